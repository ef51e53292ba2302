// Scenes changed by hand: boundaries set, removed and moved, names and notes, undo and redo.
// A boundary touched by hand is pinned: it is set or removed whatever the threshold. Names and notes belong to the shot
// that a scene begins with. `corrections.py` reads what is saved.
"use strict";

const STORE = "bassl-fast scenes "; // before the key of a film, in the storage of the browser

// As `text.single_line` and `text.plain` of bassl_fast.scenes.
const BLANKS = /[\x00-\x20\x7f-\xa0\u2028\u2029]+/g, CONTROLS = /[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]+/g;
const wellFormed = (text) => text.toWellFormed?.() ?? text;
const oneLine = (text) => wellFormed(text).replace(BLANKS, " ").replace(/^ +| +$/g, "");
const plainText = (text) => wellFormed(text).replace(/\r\n?/g, "\n").replace(CONTROLS, " ").replace(/^[ \n]+|[ \n]+$/g, "");

class Editor {
  constructor(film) {
    this.film = film;
    this.player = new Player(film);
    const { key, corrected, names, notes } = film.editing;
    const isEnd = new Set(film.ends), byNumber = (texts) => new Map(Object.entries(texts).map(([i, text]) => [Number(i), text]));
    this.stores = `${STORE}${key} `; // of this film; those of pages written with other edits end in other letters
    this.store = this.stores + film.editing.written;
    this.corrected = new Set(corrected); // of which the threshold does not say what they would be without a hand
    this.written = { pins: new Map(corrected.map((i) => [i, isEnd.has(i)])), names: byNumber(names), notes: byNumber(notes) };
    this.now = this.written;
    this.past = [];
    this.future = [];
    this.typing = ""; // text that is being typed: one step to undo
    this.restore();
  }

  // Reading

  isPinned(i) {
    return this.now.pins.has(i);
  }

  nameOf(first) {
    return this.now.names.get(first) ?? "";
  }

  noteOf(first) {
    return this.now.notes.get(first) ?? "";
  }

  // Shots that end a scene, from those found at the threshold.
  edited(found) {
    const ends = new Set(found);
    for (const [i, set] of this.now.pins) set ? ends.add(i) : ends.delete(i);
    return [...ends].sort((a, b) => a - b);
  }

  // Whether there would be a boundary without a hand on it.
  isFound(i) {
    if (this.corrected.has(i) && view.threshold === view.first) return this.film.probability[i] >= view.threshold;
    this.foundFor !== this.film.found && (this.foundSet = new Set((this.foundFor = this.film.found)));
    return this.foundSet.has(i);
  }

  firstOf(i) {
    return this.film.firsts[this.film.scene[i] - 1];
  }

  // The last shot of the scene of shot i.
  endOf(i) {
    return (this.film.firsts[this.film.scene[i]] ?? this.film.count) - 1;
  }

  get count() {
    const { pins, names, notes } = this.now;
    return pins.size + names.size + notes.size;
  }

  // Changing

  change(make, typing = "") {
    const { pins, names, notes } = this.now, next = { pins: new Map(pins), names: new Map(names), notes: new Map(notes) };
    make(next);
    if (!typing || typing !== this.typing) this.past.push(this.now);
    this.typing = typing;
    this.future = [];
    this.put(next);
  }

  put(state) {
    this.now = state;
    regroup(this.film);
    this.keep();
    showEdits(this);
  }

  undo(from = this.past, to = this.future) {
    if (!from.length) return;
    this.typing = "";
    to.push(this.now);
    this.put(from.pop());
  }

  redo() {
    this.undo(this.future, this.past);
  }

  reset() {
    const gone = plural(this.count, "edit");
    if (this.now === this.written || !confirm(`Take back ${gone} and show the scenes that this page was written with?`)) return;
    this.past.push(this.now);
    this.future = [];
    this.put(this.written);
  }

  pin(state, i, set) {
    if (this.isFound(i) === set) state.pins.delete(i);
    else state.pins.set(i, set);
  }

  // Set or remove the boundary after shot i. A scene that is joined to the one before leaves it its name and note.
  toggle(i) {
    if (i < 0 || i >= this.film.count - 1) return;
    const set = !this.film.isEnd[i], first = this.firstOf(i);
    this.change((state) => {
      this.pin(state, i, set);
      if (set) return;
      const { names, notes } = state, note = [notes.get(first), notes.get(i + 1)].filter(Boolean).join("\n");
      if (!names.get(first) && names.get(i + 1)) names.set(first, names.get(i + 1));
      if (note) notes.set(first, note);
      names.delete(i + 1);
      notes.delete(i + 1);
    });
  }

  merge(i) {
    this.toggle(this.endOf(i));
  }

  // Move the boundary after shot `from` to after shot `to`, between its neighbours; names and notes move along.
  move(from, to) {
    to = this.clampMove(from, to);
    if (from === to) return from;
    this.change((state) => {
      this.pin(state, from, false);
      this.pin(state, to, true);
      for (const texts of [state.names, state.notes]) {
        const text = texts.get(from + 1);
        texts.delete(from + 1);
        text ? texts.set(to + 1, text) : texts.delete(to + 1);
      }
    });
    return to;
  }

  clampMove(from, to) {
    return clamp(to, this.firstOf(from), this.endOf(from + 1) - 1);
  }

  write(kind, i, typed) {
    const first = this.firstOf(i), text = (kind === "names" ? oneLine : plainText)(typed);
    this.change((state) => (text ? state[kind].set(first, text) : state[kind].delete(first)), `${kind} ${first}`);
  }

  // Keeping: a browser may refuse to store anything, and what it stored may be of another version.

  get threshold() {
    return this.restored?.threshold ?? null;
  }

  keep() {
    const { pins, names, notes } = this.now, threshold = view.threshold === view.first ? null : view.threshold;
    const state = { pins: [...pins], names: [...names], notes: [...notes], threshold };
    try {
      if (this.now === this.written && threshold === null) localStorage.removeItem(this.store);
      else localStorage.setItem(this.store, JSON.stringify(state));
      this.refused = false;
    } catch {
      this.refused = true;
    }
  }

  restore() {
    const kept = this.read(this.store);
    if (!kept) return;
    this.now = kept.state;
    this.past = [this.written];
    this.restored = kept;
  }

  // What is stored under a name, or null.
  read(name) {
    try {
      const kept = JSON.parse(localStorage.getItem(name)), isShot = (i) => Number.isInteger(i) && i >= 0 && i < this.film.count;
      const texts = (rows) => new Map(rows.filter(([i, text]) => isShot(i) && typeof text === "string"));
      const pins = new Map(kept.pins.filter(([i, set]) => isShot(i + 1) && isShot(i) && typeof set === "boolean"));
      const threshold = typeof kept.threshold === "number" ? kept.threshold : null;
      return { name, threshold, state: { pins, names: texts(kept.names), notes: texts(kept.notes) } };
    } catch {
      return null;
    }
  }

  // Edits from before the page was written again, if they are others than those it was written with.
  older() {
    const told = ({ pins, names, notes }) => JSON.stringify([pins, names, notes].map((map) => [...map].sort((a, b) => a[0] - b[0])));
    try {
      const names = Object.keys(localStorage).filter((name) => name.startsWith(this.stores) && name !== this.store);
      return names.map((name) => this.read(name)).find((kept) => kept && told(kept.state) !== told(this.now)) ?? null;
    } catch {
      return null;
    }
  }

  settleOlder(kept, use) {
    if (use) this.change((state) => Object.assign(state, kept.state));
    localStorage.removeItem(kept.name);
  }

  // Keys and the panel of the chosen shot

  onKey(event, typing) {
    const film = this.film, key = event.key.toLowerCase(), i = film.chosen;
    if (event.ctrlKey || event.metaKey) {
      if (key === "z") event.shiftKey ? this.redo() : this.undo();
      else if (key === "y") this.redo();
      else return false;
      return true;
    }
    if (typing) {
      if (key === "enter" && event.target.matches("#scene-name")) film.strip.focus({ preventScroll: true });
      return false;
    }
    if (event.altKey) {
      const by = { arrowleft: -1, arrowright: 1 }[key], end = this.endOf(i);
      if (!by || end === film.count - 1) return false;
      const to = this.move(end, end + by);
      if (film.chosen > to && i <= end) show(film, to, false);
    } else if (event.target.matches("button, summary, a, video, input") && key === " ") return false;
    else if (key === "s") this.toggle(i - 1);
    else if (key === "b") this.toggle(i);
    else if (key === "m") this.merge(i);
    else if (key === "n") this.askName();
    else if (key === " " && this.player.ready) this.player.toggle();
    else return false;
    view.film ??= film;
    return true;
  }

  askName() {
    show(this.film, this.film.chosen);
    get("scene-name").focus();
    get("scene-name").select();
  }

  fillDetail() {
    const film = this.film, i = film.chosen, first = this.firstOf(i), scene = film.scene[i], last = scene === film.firsts.length;
    get("detail-title").textContent = `Shot ${film.number[i]}, ${film.nameOf(scene)}`;
    for (const [id, text] of [["scene-name", this.nameOf(first)], ["scene-note", this.noteOf(first)]]) {
      const field = get(id);
      if (document.activeElement !== field || (id === "scene-name" ? oneLine : plainText)(field.value) !== text) field.value = text;
    }
    get("scene-name").placeholder = `Scene ${scene}`;
    get("toggle-start").textContent = i === first ? "join with the scene before" : "start a scene here";
    get("toggle-start").disabled = i === 0;
    get("toggle-end").textContent = film.isEnd[i] ? "join with the next scene" : "end the scene here";
    get("toggle-end").disabled = i === film.count - 1;
    get("merge").disabled = last;
    get("merge").hidden = Boolean(film.isEnd[i]); // the same as the button before
  }
}

// Click the edge between two shots to toggle a boundary there; drag one to move it.
function listenToEdges(film) {
  const { strip, editor } = film;
  let from = -1, to = -1, moved = false, pointer = { x: 0, y: 0 };
  const marker = element("div", { class: "drop" });
  const target = () => {
    const shot = document.elementFromPoint(pointer.x, pointer.y)?.closest(".shot");
    if (!shot || !strip.contains(shot)) return;
    const box = shot.getBoundingClientRect(), i = Number(shot.dataset.index);
    to = editor.clampMove(from, pointer.x < box.left + box.width / 2 ? i - 1 : i);
    film.shots.get(to)?.append(marker);
  };
  const drag = wait(() => {
    if (from < 0) return;
    const speed = pointer.y < 90 ? -18 : pointer.y > window.innerHeight - 40 ? 18 : 0;
    if (speed) {
      window.scrollBy(0, speed);
      drag();
    }
    target();
  });
  const end = () => {
    marker.remove();
    document.body.classList.remove("dragging");
    from = -1;
  };
  strip.addEventListener("pointerdown", (event) => {
    const edge = event.target.closest(".edge");
    if (!edge || event.button !== 0) return;
    event.preventDefault(); // of text and images being selected and dragged
    from = to = Number(edge.parentElement.dataset.index);
    moved = false;
    pointer = { x: event.clientX, y: event.clientY };
  });
  document.addEventListener("pointermove", (event) => {
    if (from < 0 || !film.isEnd[from]) return;
    if (!moved && Math.hypot(event.clientX - pointer.x, event.clientY - pointer.y) < 5) return;
    moved = true;
    document.body.classList.add("dragging");
    pointer = { x: event.clientX, y: event.clientY };
    drag();
  });
  document.addEventListener("pointerup", () => {
    if (from < 0) return;
    const [start, stop] = [from, to];
    end();
    if (!moved) editor.toggle(start);
    else editor.move(start, stop);
  });
  document.addEventListener("pointercancel", end);
}

function showEdits(editor) {
  get("undo").disabled = !editor.past.length;
  get("redo").disabled = !editor.future.length;
  get("reset-edits").disabled = editor.now === editor.written;
  const kept = editor.refused ? ", not kept by this browser: save them" : "";
  get("edits").textContent = editor.count ? plural(editor.count, "edit") + kept : "";
}

function prepareTools(film) {
  const { editor } = film;
  const onClick = (id, act) => get(id).addEventListener("click", act);
  onClick("undo", () => editor.undo());
  onClick("redo", () => editor.redo());
  onClick("reset-edits", () => editor.reset());
  onClick("toggle-start", () => editor.toggle(film.chosen - 1));
  onClick("toggle-end", () => editor.toggle(film.chosen));
  onClick("merge", () => editor.merge(film.chosen));
  onClick("play", () => editor.player.toggle());
  get("scene-name").addEventListener("input", (event) => editor.write("names", film.chosen, event.target.value));
  get("scene-note").addEventListener("input", (event) => editor.write("notes", film.chosen, event.target.value));
  for (const id of ["scene-name", "scene-note"]) get(id).addEventListener("blur", () => (editor.typing = ""));
  film.strip.addEventListener("dblclick", (event) => event.target.closest(".name") && editor.askName());
  listenToEdges(film);
  listSaves(film);
  const kept = editor.older();
  get("older").hidden = !kept;
  for (const [id, use] of [["older-use", true], ["older-drop", false]])
    onClick(id, () => {
      editor.settleOlder(kept, use);
      get("older").hidden = true;
    });
  showEdits(editor);
}
