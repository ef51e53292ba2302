// Plays a shot where the page can find the film: beside it, or where it was when the page was written.
"use strict";

const FRAME = 0.02; // seconds: less than a frame, so that neither the frame before nor the one after is shown

class Player {
  constructor(film) {
    this.film = film;
    this.sources = film.editing.video;
    this.ready = false;
    this.end = Infinity;
  }

  // Made when the first shot is opened.
  make() {
    this.video = element("video", { preload: "auto", playsinline: "", tabindex: "-1", "aria-label": "the shot" });
    this.video.append(...this.sources.map((src) => element("source", { src })));
    this.video.lastChild.addEventListener("error", () => this.fail());
    this.video.addEventListener("error", () => this.fail());
    this.video.addEventListener("loadedmetadata", () => {
      this.ready = this.video.videoWidth > 0;
      if (!this.ready) this.fail(); // sound only, as the browser has no decoder for its video
      else this.say("", this.seek());
    });
    this.video.addEventListener("click", () => this.toggle());
    for (const event of ["play", "pause"]) this.video.addEventListener(event, () => this.showState());
    this.say("");
  }

  // The shot is chosen: its first frame is shown beside the key-frames.
  show(i) {
    if (!this.sources.length) return this.say("");
    if (!this.video) this.make();
    this.pause();
    this.shot = i;
    if (!this.failed) get("detail-pictures").prepend(this.video);
    if (this.ready) this.seek();
  }

  seek() {
    const { start, end, editing } = this.film;
    this.video.currentTime = editing.begin + start[this.shot] + FRAME / 2;
    this.end = editing.begin + end[this.shot] - FRAME;
  }

  toggle() {
    if (!this.ready) return;
    if (!this.video.paused) return this.pause();
    if (this.video.currentTime >= this.end - FRAME) this.seek();
    this.video.play().then(() => this.watch(), () => {});
  }

  pause() {
    this.video?.pause();
  }

  // Stop at the end of the shot; a "timeupdate" comes only four times a second.
  watch() {
    if (this.video.paused) return;
    if (this.video.currentTime >= this.end) this.pause();
    else requestAnimationFrame(() => this.watch());
  }

  fail() {
    this.failed = true;
    this.ready = false;
    this.video.remove();
    this.say(`${this.film.editing.file} cannot be played here: it is not beside this page, or the browser has no decoder for it.`);
  }

  say(text) {
    get("player-says").textContent = text;
    this.showState();
  }

  showState() {
    get("play").hidden = !this.ready;
    get("play").textContent = this.video?.paused === false ? "pause" : "play";
  }
}
