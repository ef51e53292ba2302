// The films of the report: strip of shots, overview, threshold, zoom, key-frames of a chosen shot.
// Each film has its data as JSON (class film-data); `film_data` in films.py says what is in it. Its images are text in
// blocks (class images), taken apart when one of them is shown, and only shots near the window are in the page.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const SAYS = {
  hit: "hit: true and predicted",
  miss: "miss: true, not predicted",
  "false-alarm": "false alarm: predicted, not true",
  predicted: "predicted, truth unknown",
  set: "set by hand",
  removed: "removed by hand",
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
const get = (id) => document.getElementById(id);
const wait = (change) => { // at most once a frame
  let due = false;
  return () => {
    if (!due) requestAnimationFrame(() => { due = false; change(); });
    due = true;
  };
};

// For the axis; the times of shots come from Python.
function clock(seconds) {
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  return `${two(seconds / 3600)}:${two((seconds / 60) % 60)}:${two(seconds % 60)}`;
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

function markOf(label, predicted, byHand) {
  if (byHand) return predicted ? "set" : "removed";
  if (label === 1) return predicted ? "hit" : "miss";
  return predicted ? (label === 0 ? "false-alarm" : "predicted") : "";
}

class Film {
  constructor(section) {
    this.section = section;
    Object.assign(this, JSON.parse(section.querySelector(".film-data").textContent));
    this.blocks = [...section.querySelectorAll(".images")];
    this.count = this.probability.length;
    this.labelled = this.label.some((label) => label >= 0);
    this.truth = [...this.label.keys()].filter((i) => this.label[i] === 1);
    this.timed = this.timecode[0].length > 0;
    if (!this.timed) {
      // Without times all shots get the same length.
      this.start = this.number.map((_, i) => i);
      this.end = this.number.map((_, i) => i + 1);
    }
    this.duration = this.end.at(-1);
    this.chosen = 0;
    this.shots = new Map(); // number in the film -> element, of the shots that are in the page
    this.row = { columns: 1, height: 180 };
    this.editor = this.editing ? new Editor(this) : null;
    this.facts = element("p", { class: "facts", "aria-live": "polite" });
    this.legend = element("ul", { class: "legend" });
    this.strip = element("div", { class: "strip", role: "listbox", tabindex: "0", "aria-label": `shots of ${this.name}` });
    this.strip.style.setProperty("--aspect", this.aspect);
    section.append(this.facts, this.makeOverview(), this.legend, this.strip);
    this.strip.addEventListener("click", (event) => {
      const shot = event.target.closest(".shot");
      if (shot && !event.target.closest(".edge")) show(this, Number(shot.dataset.index));
    });
  }

  picture(shot, k) {
    const index = shot * this.per_shot + k, number = Math.floor(index / this.per_block);
    let block = this.blocks[number];
    if (block instanceof Element) block = this.blocks[number] = block.textContent.split("\n");
    return `data:image/jpeg;base64,${block[index % this.per_block]}`;
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
    const img = element("img", { src: this.picture(i, Math.floor(this.per_shot / 2)), alt: "", decoding: "async" });
    const caption = element("span", { class: "caption" }, element("b", {}, String(this.number[i])));
    if (this.timed) {
      const code = this.timecode[0][i];
      caption.append(" ", element("time", {}, code.slice(0, 8), element("span", { class: "frames" }, code.slice(8))));
    }
    const shot = element(
      "div",
      { class: "shot", role: "option", id: this.idOf(i), "data-shot": this.number[i], "data-index": i },
      element("span", { class: "name" }),
      element("span", { class: "frame" }, img),
      element("span", { class: "curve" }, curve),
      caption,
    );
    shot.setAttribute("aria-setsize", this.count);
    shot.setAttribute("aria-posinset", i + 1);
    if (this.editor && i < this.count - 1) shot.append(element("span", { class: "edge" }));
    return shot;
  }

  idOf(i) {
    return `${this.section.id}-shot-${i}`;
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
    const zero = this.timed ? this.timecode[0][0].split(":").slice(0, 3).reduce((sum, part) => 60 * sum + parseInt(part), 0) : 0;
    const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200].find((s) => this.duration / s <= 4) || 14400;
    for (let t = 0; this.timed && t <= 0.85 * this.duration; t += step) {
      const tick = element("time", {}, clock(zero + t));
      tick.style.left = `${(100 * t) / this.duration}%`;
      axis.append(tick);
    }
    this.predictedBand = this.makeBand("predicted-scenes");
    this.playhead = element("div", { class: "playhead" });
    const rows = [];
    if (this.labelled) {
      const truth = this.makeBand("true-scenes");
      this.fillBand(truth, this.truth);
      rows.push(...row("true", truth));
    }
    rows.push(...row(this.labelled ? "predicted" : "scenes", this.predictedBand));
    rows.push(...row("probability", element("div", { class: "curve tall" }, curve)));
    const overview = element("div", { class: "overview" }, ...rows, element("span"), axis, this.playhead);
    const shotAt = (event) => {
      const box = this.predictedBand.getBoundingClientRect();
      const time = ((event.clientX - box.left) / box.width) * this.duration;
      return time < 0 ? -1 : Math.max(0, this.end.findIndex((end) => end > time));
    };
    overview.addEventListener("click", (event) => {
      const shot = shotAt(event);
      if (shot >= 0) show(this, shot);
    });
    overview.addEventListener("pointermove", (event) => {
      const shot = shotAt(event);
      overview.title = shot < 0 ? "" : `${this.nameOf(this.scene[shot])}, ${this.say(shot)}`;
    });
    return overview;
  }

  // Scenes as blocks of time: every second one in each of two paths, as there may be thousands.
  makeBand(kind) {
    return element(
      "svg",
      { class: `scenes ${kind}`, viewBox: `0 0 ${this.duration} 1`, preserveAspectRatio: "none", "aria-hidden": "true" },
      element("path", { class: "block" }),
      element("path", { class: "block other" }),
    );
  }

  // `ends`: the shots that end a scene.
  fillBand(band, ends) {
    const paths = ["", ""];
    let from = 0, number = 0;
    for (const last of new Set([...ends, this.count - 1])) {
      paths[number++ % 2] += `M${from} 0H${this.end[last]}V1H${from}Z`;
      from = this.end[last];
    }
    paths.forEach((path, i) => band.children[i].setAttribute("d", path));
    band.dataset.scenes = number;
  }

  // Scenes from the shots that end one.
  regroup(threshold, ends) {
    this.isEnd = new Uint8Array(this.count);
    for (const i of ends) this.isEnd[i] = 1;
    this.firsts = [0, ...ends.filter((i) => i < this.count - 1).map((i) => i + 1)]; // shot that each scene begins with
    this.scene = new Uint32Array(this.count);
    this.firsts.forEach((first, at) => this.scene.fill(at + 1, first, this.firsts[at + 1]));
    const counts = {};
    for (const i of new Set([...ends, ...this.truth, ...(this.editor?.now.pins.keys() ?? [])])) {
      const mark = this.markAt(i);
      counts[mark] = (counts[mark] || 0) + 1;
    }
    for (const [i, shot] of this.shots) this.paint(i, shot);
    this.fillBand(this.predictedBand, ends);
    this.facts.textContent = this.sayFacts(this.firsts.length, counts);
    this.showLegend(threshold, counts);
  }

  markAt(i) {
    return markOf(this.label[i], this.isEnd[i], this.editor?.isPinned(i));
  }

  // The threshold is a line on every curve: it is only set when it changes, as all of them are then drawn again.
  showLegend(threshold, counts) {
    if (this.threshold !== threshold) {
      this.threshold = threshold;
      for (const part of [this.strip, this.section.querySelector(".tall")]) part.style.setProperty("--threshold", threshold);
    }
    const marks = Object.keys(SAYS).filter((mark) => counts[mark]);
    this.legend.replaceChildren(
      ...marks.map((mark) => element("li", {}, symbol(mark), `${this.says(mark)} (${counts[mark]})`)),
      element("li", {}, element("span", { class: "key" }), `threshold ${threshold.toFixed(2)} on the probability, 0 to 1`),
    );
  }

  // What changes in the element of a shot.
  paint(i, shot) {
    const scene = this.scene[i], mark = this.markAt(i), begins = this.firsts[scene - 1] === i;
    const ends = i === this.count - 1 || this.isEnd[i], chosen = view.film === this && this.chosen === i;
    const name = begins ? (this.editor?.nameOf(i) ?? "") : "", noted = begins && Boolean(this.editor?.noteOf(i));
    const state = JSON.stringify([scene, mark, begins, ends, chosen, name, noted]);
    if (shot.dataset.state === state) return;
    shot.dataset.state = state;
    shot.dataset.scene = scene;
    shot.dataset.mark = mark;
    shot.classList.toggle("odd", scene % 2 === 1);
    shot.classList.toggle("begins", begins);
    shot.classList.toggle("ends", Boolean(ends));
    shot.classList.toggle("alone", begins && Boolean(ends));
    shot.setAttribute("aria-selected", chosen);
    const label = name ? [element("b", {}, String(scene)), ` ${name}`] : [element("span", {}, "scene "), String(scene)];
    if (noted) label.push(element("i", { "aria-label": "has a note" }, " ✎"));
    shot.firstChild.replaceChildren(...(begins ? label : []));
    const frame = shot.children[1];
    frame.querySelector(".mark")?.remove();
    if (mark) frame.append(symbol(mark));
    const edge = shot.querySelector(".edge");
    if (edge) edge.title = ends ? "click: join the two scenes; drag: move this boundary" : "click: start a new scene here";
    shot.title = this.say(i, mark);
    shot.setAttribute("aria-label", `${shot.title}, ${this.nameOf(scene)}`);
  }

  nameOf(scene) {
    const name = this.editor?.nameOf(this.firsts[scene - 1]);
    return name ? `scene ${scene}, ${name}` : `scene ${scene}`;
  }

  say(i, mark = "") {
    const when = this.timed ? `, ${this.timecode[0][i]}` : "";
    return `shot ${this.number[i]}${when}, probability ${this.probability[i].toFixed(2)}${mark ? `, ${this.says(mark)}` : ""}`;
  }

  says(mark) {
    return mark === "predicted" && !this.labelled ? "boundary found" : SAYS[mark];
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

  // Put the rows of shots near the window into the page, and blank space in the place of the others.
  draw(all = view.printing) {
    const box = this.strip.getBoundingClientRect(), near = window.innerHeight;
    const { columns, height } = this.row, rows = Math.ceil(this.count / columns);
    const from = all ? 0 : clamp(Math.floor((-box.top - near) / height), 0, rows - 1);
    const to = all ? rows : clamp(Math.ceil((2 * near - box.top) / height), from + 1, rows);
    const first = from * columns, after = Math.min(this.count, to * columns);
    if (this.drawn?.join() === [first, after, columns, height].join()) return;
    this.drawn = [first, after, columns, height];
    for (const [i, shot] of this.shots) {
      if (i >= first && i < after) continue;
      shot.remove();
      this.shots.delete(i);
    }
    let next = this.strip.firstChild;
    for (let i = first; i < after; i++) {
      let shot = this.shots.get(i);
      if (!shot) {
        this.shots.set(i, (shot = this.makeShot(i)));
        this.paint(i, shot);
      }
      if (shot === next) next = next.nextSibling;
      else this.strip.insertBefore(shot, next);
    }
    this.strip.style.paddingTop = `${from * height}px`;
    this.strip.style.paddingBottom = `${(rows - to) * height}px`;
    this.measure();
  }

  // Columns and height of rows, which change with the window and the zoom.
  measure() {
    const style = getComputedStyle(this.strip);
    const columns = style.gridTemplateColumns.split(" ").length;
    const height = this.strip.firstChild.offsetHeight + parseFloat(style.rowGap);
    if (columns === this.row.columns && Math.abs(height - this.row.height) < 0.5) return;
    this.row = { columns, height };
    this.draw();
  }

  // Scroll so that a shot is in the window, below the tools and above the details.
  reveal(i) {
    const top = this.strip.getBoundingClientRect().top + Math.floor(i / this.row.columns) * this.row.height;
    const above = document.querySelector(".toolbar").offsetHeight + 8;
    const below = window.innerHeight - (get("detail").hidden ? 0 : get("detail").offsetHeight) - 8;
    if (top < above) window.scrollBy(0, top - above);
    else if (top + this.row.height > below) window.scrollBy(0, Math.max(above - top, 0) || Math.min(top - above, top + this.row.height - below));
    this.draw();
  }
}

// The chosen shot, threshold and zoom

const view = { threshold: 0, first: 0, zoom: 116, film: null, printing: false };
const films = [];

function show(film, shot, open = true) {
  const before = view.film, left = before?.chosen;
  view.film = film;
  film.chosen = clamp(shot, 0, film.count - 1);
  if (before?.shots.has(left)) before.paint(left, before.shots.get(left));
  film.playhead.style.setProperty("--at", (film.start[film.chosen] + film.end[film.chosen]) / 2 / film.duration);
  film.playhead.classList.add("on");
  if (open) get("detail").hidden = false;
  fillDetail();
  film.reveal(film.chosen);
  film.paint(film.chosen, film.shots.get(film.chosen));
  film.strip.setAttribute("aria-activedescendant", film.idOf(film.chosen));
  film.strip.focus({ preventScroll: true });
}

function fillDetail() {
  const film = view.film;
  if (!film || get("detail").hidden) return;
  const i = film.chosen, mark = film.markAt(i);
  get("detail-title").textContent = `Shot ${film.number[i]}, scene ${film.scene[i]}`;
  const facts = [`probability ${film.probability[i].toFixed(3)}`];
  if (mark) facts.push(film.says(mark));
  if (film.timed) facts.unshift(`${film.timecode[0][i]} – ${film.timecode[1][i]}`, `${(film.end[i] - film.start[i]).toFixed(1)} s`);
  get("detail-facts").textContent = facts.join(" · ");
  film.editor?.fillDetail();
  const shown = `${film.section.id} ${i}`;
  if (get("detail-pictures").dataset.shown === shown) return;
  get("detail-pictures").dataset.shown = shown;
  const pictures = Array.from({ length: film.per_shot }, (_, k) =>
    element("img", { src: film.picture(i, k), alt: `key-frame ${k + 1} of ${film.per_shot}` }),
  );
  get("detail-pictures").replaceChildren(...pictures);
  film.editor?.player.show(i);
}

function close() {
  get("detail").hidden = true;
  view.film?.editor?.player.pause();
  view.film?.strip.focus({ preventScroll: true });
}

function setThreshold(threshold) {
  view.threshold = clamp(threshold, 0, 1);
  get("threshold").value = view.threshold;
  get("threshold-value").textContent = view.threshold.toFixed(2);
  films.forEach(regroup);
  moveDot();
}

// Each film by the threshold, or, where the page opens, by the scenes it was written with; then as edited.
function regroup(film) {
  if (film.foundAt !== view.threshold) {
    film.found = view.threshold === view.first ? film.ends : chooseEnds(film, view.threshold);
    film.foundAt = view.threshold;
  }
  film.regroup(view.threshold, film.editor ? film.editor.edited(film.found) : film.found);
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
  document.body.classList.toggle("small", view.zoom < 104);
  document.body.classList.toggle("tiny", view.zoom < 72);
  films.forEach((film) => film.strip.firstChild && film.measure());
  drawAll();
}

function drawAll() {
  for (const film of films) film.draw();
}

// How many shots a key moves by; null if it is not one of these keys.
function stride(key, film) {
  const here = film.chosen, scene = film.scene[here], first = film.firsts[scene - 1];
  if (key === "ArrowRight") return 1;
  if (key === "ArrowLeft") return -1;
  if (key === "Home") return -here;
  if (key === "End") return film.count - 1 - here;
  if (key === "PageDown") return scene < film.firsts.length ? film.firsts[scene] - here : 0;
  if (key === "PageUp") return (here > first || scene === 1 ? first : film.firsts[scene - 2]) - here;
  const rows = Math.ceil(film.count / film.row.columns);
  if (key === "ArrowDown") return rows > 1 ? film.row.columns : 0;
  if (key === "ArrowUp") return rows > 1 ? -film.row.columns : 0;
  return null;
}

function onKey(event) {
  const film = view.film || films[0];
  if (!film) return;
  const typing = event.target.matches("input:not([type=range]), textarea");
  if (event.key === "Escape") {
    document.querySelectorAll("details[open]").forEach((menu) => (menu.open = false));
    close();
    return;
  }
  if (film.editor?.onKey(event, typing)) {
    event.preventDefault();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || typing || event.target.matches("input, summary, button, a, video")) return;
  const go = stride(event.key, film);
  if (go !== null) show(film, film.chosen + go, false);
  else if (event.key === "Enter" || event.key === " ") show(film, film.chosen);
  else if (event.key === "+" || event.key === "=") setZoom(view.zoom * ZOOM.factor);
  else if (event.key === "-") setZoom(view.zoom / ZOOM.factor);
  else if (event.key === "]") moveThreshold(view.threshold + STEP);
  else if (event.key === "[") moveThreshold(view.threshold - STEP);
  else if (event.key === "0") moveThreshold(view.first);
  else return;
  event.preventDefault();
}

// Four digits are enough to choose by, and can be written the same way everywhere.
function moveThreshold(threshold) {
  setThreshold(threshold === view.first ? threshold : Math.round(1e4 * threshold) / 1e4);
  films.forEach((film) => film.editor?.keep());
}

function start() {
  view.first = view.threshold = Number(get("threshold").dataset.first);
  films.push(...[...document.querySelectorAll(".film")].map((section) => new Film(section)));
  get("threshold").addEventListener("input", (event) => moveThreshold(Number(event.target.value)));
  get("reset").addEventListener("click", () => moveThreshold(view.first));
  get("zoom").addEventListener("input", (event) => setZoom(Number(event.target.value)));
  get("detail-close").addEventListener("click", close);
  get("detail-before").addEventListener("click", () => show(view.film, view.film.chosen - 1));
  get("detail-after").addEventListener("click", () => show(view.film, view.film.chosen + 1));
  document.addEventListener("keydown", onKey);
  const drawSoon = wait(drawAll);
  window.addEventListener("scroll", drawSoon, { passive: true });
  window.addEventListener("resize", wait(() => films.forEach((film) => { film.measure(); film.draw(); })));
  window.addEventListener("beforeprint", () => { view.printing = true; drawAll(); });
  window.addEventListener("afterprint", () => { view.printing = false; drawAll(); });
  setThreshold(films.find((film) => film.editor)?.editor.threshold ?? view.first);
  setZoom(window.innerWidth < 560 ? 84 : 116);
  if (films[0]?.editor) prepareTools(films[0]);
}
