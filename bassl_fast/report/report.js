// The films of the report: strip of shots, overview, threshold, zoom, key-frames of a chosen shot.
// Each film has its data as JSON (class film-data); `film_data` in films.py says what is in it.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const SAYS = {
  hit: "hit: true and predicted",
  miss: "miss: true, not predicted",
  "false-alarm": "false alarm: predicted, not true",
  predicted: "predicted, truth unknown",
};
const ZOOM = { least: 28, most: 360, factor: 1.25 };
const STEP = 0.01; // of the threshold, by key

function element(name, attributes = {}, ...children) {
  const made = SVG_NAMES.has(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
const SVG_NAMES = new Set(["svg", "path", "rect", "use", "title"]);

const symbol = (mark) =>
  element("svg", { class: `mark ${mark}`, "aria-hidden": "true" }, element("use", { href: `#${mark}` }));
const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
const percent = (part, whole) => (whole ? `${Math.round((100 * part) / whole)}\u00a0%` : "–");
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const two = (number) => String(Math.floor(number)).padStart(2, "0");

function clock(seconds, digits = 0) {
  const whole = Math.floor(seconds * 10 ** digits + 1e-6) / 10 ** digits;
  const rest = digits ? (whole % 60).toFixed(digits).padStart(3 + digits, "0") : two(whole % 60);
  return `${two(whole / 3600)}:${two((whole / 60) % 60)}:${rest}`;
}

// Non-drop-frame, as in the EDL.
function timecode(seconds, rate) {
  const base = Math.round(rate), frames = Math.round(seconds * rate);
  return `${clock(Math.floor(frames / base))}:${two(frames % base)}`;
}

// As `scenes.film.choose_ends`: the most probable first, and no scene shorter than `shortest` seconds.
// The end of the film is not a boundary; where labels are known, a prediction there counts as a false alarm.
function chooseEnds(film, threshold) {
  const last = film.probability.length - 1;
  const over = [...film.probability.keys()].filter((i) => film.probability[i] >= threshold && (film.labelled || i < last));
  if (!film.shortest) return over;
  const taken = [];
  for (const i of over.sort((a, b) => film.probability[b] - film.probability[a] || a - b)) {
    const found = taken.findIndex((other) => other > i);
    const at = found < 0 ? taken.length : found;
    const before = at ? film.end[taken[at - 1]] : 0;
    const after = found < 0 ? film.end[last] : film.end[taken[at]];
    if (film.end[i] - before >= film.shortest && after - film.end[i] >= film.shortest) taken.splice(at, 0, i);
  }
  return taken;
}

function markOf(label, predicted) {
  if (label === 1) return predicted ? "hit" : "miss";
  return predicted ? (label === 0 ? "false-alarm" : "predicted") : "";
}

class Film {
  constructor(section) {
    this.section = section;
    Object.assign(this, JSON.parse(section.querySelector(".film-data").textContent));
    this.count = this.probability.length;
    this.labelled = this.label.some((label) => label >= 0);
    this.timed = this.start.every((start) => start >= 0);
    if (!this.timed) {
      // Without times all shots get the same length.
      this.start = this.number.map((_, i) => i);
      this.end = this.number.map((_, i) => i + 1);
    }
    this.duration = this.end.at(-1);
    this.chosen = 0;
    this.facts = element("p", { class: "facts", "aria-live": "polite" });
    this.legend = element("ul", { class: "legend" });
    this.shots = this.number.map((_, i) => this.makeShot(i));
    this.strip = element("div", { class: "strip", role: "listbox", "aria-label": `shots of ${this.name}` }, ...this.shots);
    this.strip.style.setProperty("--aspect", this.aspect);
    section.append(this.facts, this.makeOverview(), this.legend, this.strip);
    this.strip.addEventListener("click", (event) => {
      const shot = event.target.closest(".shot");
      if (shot) show(this, this.shots.indexOf(shot));
    });
    this.shots[0].tabIndex = 0;
  }

  picture(shot, k) {
    return this.pictures[shot * this.per_shot + k];
  }

  makeShot(i) {
    const p = this.probability, [here, before, after] = [p[i], p[Math.max(0, i - 1)], p[Math.min(this.count - 1, i + 1)]];
    const [left, middle, right] = [(before + here) / 2, here, (here + after) / 2].map((value) => 40 * (1 - value));
    const line = `${left}L50 ${middle}L100 ${right}`;
    const curve = element(
      "svg",
      { viewBox: "0 0 100 40", preserveAspectRatio: "none", "aria-hidden": "true" },
      element("path", { class: "area", d: `M0 40V${line}V40Z` }),
      element("path", { class: "line", d: `M0 ${line}` }),
      element("path", { class: "over", d: `M50 ${middle}h0` }),
    );
    const img = element("img", { src: this.picture(i, Math.floor(this.per_shot / 2)), alt: "", loading: "lazy", decoding: "async" });
    const caption = element("span", { class: "caption" }, element("b", {}, String(this.number[i])));
    if (this.timed) caption.append(" ", element("time", {}, clock(this.start[i])));
    return element(
      "div",
      { class: "shot", role: "option", tabindex: "-1", "aria-selected": "false", "data-shot": this.number[i] },
      element("span", { class: "name" }),
      element("span", { class: "frame" }, img),
      element("span", { class: "curve" }, curve),
      caption,
    );
  }

  makeOverview() {
    const row = (label, ...content) => [element("span", { class: "row" }, label), element("div", { class: "band" }, ...content)];
    const points = this.end.map((end, i) => `${end} ${100 * (1 - this.probability[i])}`).join("L");
    const curve = element(
      "svg",
      { viewBox: `0 0 ${this.duration} 100`, preserveAspectRatio: "none", role: "img", "aria-label": "probability of a boundary over time" },
      element("path", { class: "area", d: `M${this.end[0]} 100L${points}V100Z` }),
      element("path", { class: "line", d: `M${points}` }),
    );
    const axis = element("div", { class: "axis-time" });
    const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200].find((s) => this.duration / s <= 4) || 14400;
    for (let t = 0; this.timed && t <= 0.85 * this.duration; t += step) {
      const tick = element("time", {}, clock(t));
      tick.style.left = `${(100 * t) / this.duration}%`;
      axis.append(tick);
    }
    this.predictedBand = element("div", { class: "scenes predicted-scenes" });
    this.playhead = element("div", { class: "playhead" });
    const rows = this.labelled ? row("true", this.bandOf([...this.label.keys()].filter((i) => this.label[i] === 1))) : [];
    rows.push(...row(this.labelled ? "predicted" : "scenes", this.predictedBand));
    rows.push(...row("probability", element("div", { class: "curve tall" }, curve)));
    const overview = element("div", { class: "overview" }, ...rows, element("span"), axis, this.playhead);
    overview.addEventListener("click", (event) => {
      const box = this.predictedBand.getBoundingClientRect();
      const time = ((event.clientX - box.left) / box.width) * this.duration;
      if (time >= 0) show(this, Math.max(0, this.end.findIndex((end) => end > time)));
    });
    return overview;
  }

  // Scenes as blocks of time; `ends`: the shots that end one.
  bandOf(ends) {
    const band = element("div", { class: "scenes" });
    this.fillBand(band, ends);
    return band;
  }

  fillBand(band, ends) {
    let from = 0;
    const blocks = [...new Set([...ends, this.count - 1])].map((last, number) => {
      const block = element("span", { title: `scene ${number + 1}, from ${this.timed ? clock(from) : `shot ${from}`}` });
      block.style.width = `${(100 * (this.end[last] - from)) / this.duration}%`;
      from = this.end[last];
      return block;
    });
    band.replaceChildren(...blocks);
  }

  regroup(threshold, ends) {
    const isEnd = new Uint8Array(this.count), counts = {};
    for (const i of ends) isEnd[i] = 1;
    let scene = 0;
    this.scene = this.shots.map((shot, i) => {
      const begins = i === 0 || isEnd[i - 1], mark = markOf(this.label[i], isEnd[i]);
      scene += begins ? 1 : 0;
      counts[mark] = (counts[mark] || 0) + 1;
      const state = [scene, mark, begins, isEnd[i]].join();
      if (shot.dataset.state === state) return scene; // of thousands of shots few change
      shot.dataset.state = state;
      shot.dataset.scene = scene;
      shot.dataset.mark = mark;
      shot.classList.toggle("odd", scene % 2 === 1);
      shot.classList.toggle("begins", Boolean(begins));
      shot.classList.toggle("ends", Boolean(isEnd[i]) || i === this.count - 1);
      shot.classList.toggle("alone", Boolean(begins) && Boolean(isEnd[i]));
      shot.firstChild.replaceChildren(...(begins ? [element("span", {}, "scene "), String(scene)] : []));
      shot.children[1].querySelector(".mark")?.remove();
      if (mark) shot.children[1].append(symbol(mark));
      shot.title = this.say(i, mark);
      shot.setAttribute("aria-label", `${shot.title}, scene ${scene}`);
      return scene;
    });
    this.strip.style.setProperty("--threshold", threshold);
    this.section.querySelector(".tall").style.setProperty("--threshold", threshold);
    this.fillBand(this.predictedBand, ends);
    this.facts.textContent = this.sayFacts(scene, counts);
    const marks = Object.keys(SAYS).filter((mark) => counts[mark]);
    this.legend.replaceChildren(
      ...marks.map((mark) => element("li", {}, symbol(mark), `${SAYS[mark]} (${counts[mark]})`)),
      element("li", {}, element("span", { class: "key" }), `threshold ${threshold.toFixed(2)} on the probability, 0 to 1`),
    );
  }

  say(i, mark) {
    const when = this.timed ? `, ${clock(this.start[i])}` : "";
    return `shot ${this.number[i]}${when}, probability ${this.probability[i].toFixed(2)}${mark ? `, ${SAYS[mark]}` : ""}`;
  }

  sayFacts(scenes, { hit = 0, miss = 0, "false-alarm": wrong = 0 }) {
    const facts = [plural(this.count, "shot"), plural(scenes, this.labelled ? "predicted scene" : "scene")];
    if (this.timed) facts.unshift(clock(this.duration));
    if (this.labelled) {
      facts.push(`${plural(hit + miss, "true boundary", "true boundaries")}: ${hit} found, ${miss} missed, ${plural(wrong, "false alarm")}`);
      facts.push(`precision ${percent(hit, hit + wrong)}, recall ${percent(hit, hit + miss)}, F1 ${percent(2 * hit, 2 * hit + miss + wrong)}`);
    }
    return facts.join(" · ");
  }
}

// The chosen shot, threshold and zoom

const get = (id) => document.getElementById(id);
const view = { threshold: 0, zoom: 116, film: null };

function show(film, shot, open = true) {
  view.film?.shots[view.film.chosen].setAttribute("aria-selected", "false");
  film.shots[film.chosen].tabIndex = -1;
  view.film = film;
  film.chosen = clamp(shot, 0, film.count - 1);
  const chosen = film.shots[film.chosen];
  chosen.tabIndex = 0;
  chosen.setAttribute("aria-selected", "true");
  film.playhead.style.setProperty("--at", (film.start[film.chosen] + film.end[film.chosen]) / 2 / film.duration);
  film.playhead.classList.add("on");
  if (open) get("detail").hidden = false;
  fillDetail();
  chosen.focus({ preventScroll: true });
  chosen.scrollIntoView({ block: "nearest" });
}

function fillDetail() {
  const film = view.film, detail = get("detail");
  if (!film || detail.hidden) return;
  const i = film.chosen, mark = film.shots[i].dataset.mark;
  get("detail-title").textContent = `Shot ${film.number[i]}, scene ${film.scene[i]}`;
  const facts = [`probability ${film.probability[i].toFixed(3)}`];
  if (mark) facts.push(SAYS[mark]);
  if (film.timed) {
    facts.unshift(`${(film.end[i] - film.start[i]).toFixed(1)} s`, `timecode ${timecode(film.start[i], film.rate)}`);
    facts.unshift(`${clock(film.start[i], 1)} – ${clock(film.end[i], 1)}`);
  }
  get("detail-facts").textContent = facts.join(" · ");
  const pictures = Array.from({ length: film.per_shot }, (_, k) =>
    element("img", { src: film.picture(i, k), alt: `key-frame ${k + 1} of ${film.per_shot}` }),
  );
  get("detail-pictures").replaceChildren(...pictures);
}

function close() {
  get("detail").hidden = true;
  view.film?.shots[view.film.chosen].focus({ preventScroll: true });
}

function setThreshold(threshold, given) {
  view.threshold = clamp(threshold, 0, 1);
  get("threshold").value = view.threshold;
  get("threshold-value").textContent = view.threshold.toFixed(2);
  for (const film of films) film.regroup(view.threshold, given ? film.ends : chooseEnds(film, view.threshold));
  moveDot();
  fillDetail();
}

// Precision and recall of all films: the dot on their curve.
function moveDot() {
  const figure = get("pr");
  if (!figure) return;
  const curve = JSON.parse(figure.dataset.curve), box = JSON.parse(figure.dataset.box);
  const at = curve.find(([threshold]) => threshold >= view.threshold);
  const dot = figure.querySelector(".dot");
  let said = "; nothing is predicted";
  if (at) {
    const [, precision, recall] = at;
    dot.setAttribute("cx", box.left + recall * (box.right - box.left));
    dot.setAttribute("cy", box.bottom - precision * (box.bottom - box.top));
    said = `; the dot is threshold ${view.threshold.toFixed(2)}: precision ${precision.toFixed(2)}, recall ${recall.toFixed(2)}`;
  }
  dot.style.visibility = at ? "visible" : "hidden";
  figure.querySelector(".at").textContent = said;
}

function setZoom(zoom) {
  view.zoom = clamp(zoom, ZOOM.least, ZOOM.most);
  get("zoom").value = view.zoom;
  document.body.style.setProperty("--shot", `${view.zoom}px`);
  document.body.classList.toggle("tiny", view.zoom < 72);
}

// How many shots a key moves by; null if it is not one of these keys.
function stride(key, film) {
  const here = film.chosen, scene = film.scene[here];
  if (key === "ArrowRight") return 1;
  if (key === "ArrowLeft") return -1;
  if (key === "Home") return -here;
  if (key === "End") return film.count - 1 - here;
  if (key === "PageDown") return Math.max(0, film.scene.indexOf(scene + 1) - here);
  if (key === "PageUp") return film.scene.indexOf(Math.max(1, film.scene[here - 1] === scene ? scene : scene - 1)) - here;
  const across = film.shots.findIndex((shot) => shot.offsetTop !== film.shots[0].offsetTop);
  if (key === "ArrowDown") return across < 0 ? 0 : across;
  if (key === "ArrowUp") return across < 0 ? 0 : -across;
  return null;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, summary, button, a")) {
    if (event.key === "Escape") close();
    return;
  }
  const film = view.film || films[0];
  if (!film) return;
  const go = stride(event.key, film);
  if (go !== null) show(film, film.chosen + go, false);
  else if (event.key === "Enter" || event.key === " ") show(film, film.chosen);
  else if (event.key === "Escape") close();
  else if (event.key === "+" || event.key === "=") setZoom(view.zoom * ZOOM.factor);
  else if (event.key === "-") setZoom(view.zoom / ZOOM.factor);
  else if (event.key === "]") setThreshold(view.threshold + STEP);
  else if (event.key === "[") setThreshold(view.threshold - STEP);
  else if (event.key === "0") setThreshold(firstThreshold, true);
  else return;
  event.preventDefault();
}

const films = [...document.querySelectorAll(".film")].map((section) => new Film(section));
const firstThreshold = Number(get("threshold").dataset.first);
get("threshold").addEventListener("input", (event) => setThreshold(Number(event.target.value)));
get("reset").addEventListener("click", () => setThreshold(firstThreshold, true));
get("zoom").addEventListener("input", (event) => setZoom(Number(event.target.value)));
get("detail-close").addEventListener("click", close);
get("detail-before").addEventListener("click", () => show(view.film, view.film.chosen - 1));
get("detail-after").addEventListener("click", () => show(view.film, view.film.chosen + 1));
document.addEventListener("keydown", onKey);
setZoom(window.innerWidth < 560 ? 84 : 116);
setThreshold(firstThreshold, true);
