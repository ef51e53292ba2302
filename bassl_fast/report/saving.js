// The scenes as files, the same bytes as `bassl-fast scenes --corrections` writes. All texts of a shot (seconds, time
// codes, clocks) come from Python, which computes them once (`bassl_fast/scenes/page.py`); here they are put together.
"use strict";

const csvField = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const metadataField = (text) => text.replace(/[=;#\\\n]/g, "\\$&");
const htmlText = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const serial = (number) => String(number).padStart(3, "0");
const jsonList = (items) => (items.length ? `[\n  ${items.join(",\n  ")}\n ]` : "[]");

// The scenes with all that files say of them. Bounds are numbered: bound i is where shot i begins, the last one the end.
function scenesOf(film) {
  return film.firsts.map((first, at) => {
    const after = film.firsts[at + 1] ?? film.count, name = film.editor.nameOf(first), note = film.editor.noteOf(first);
    return { number: at + 1, first, after, last: after - 1, name, note, title: name || `Scene ${at + 1}` };
  });
}

// A film of more frames a second than time code counts may have scenes shorter than a frame, which no editor takes.
const inFrames = (scenes, texts) => scenes.filter(({ first, after }) => texts.frame[after] > texts.frame[first]);

function correctedJson(film, scenes, texts) {
  const rows = scenes.map((scene) => {
    const { first, after, last } = scene;
    const row = [
      ["scene", scene.number],
      ["start", texts.seconds[first]],
      ["end", texts.seconds[after]],
      ["start_timecode", `"${texts.timecode[first]}"`],
      ["end_timecode", `"${texts.timecode[after]}"`],
      ["first_frame", texts.first_frame[first]],
      ["last_frame", texts.last_frame[last]],
      ["first_shot", first],
      ["last_shot", last],
      ["probability", after === film.count ? "null" : texts.probability[last]],
      ["name", JSON.stringify(scene.name)],
      ["note", JSON.stringify(scene.note)],
    ];
    return `{\n${row.map(([key, value]) => `   "${key}": ${value}`).join(",\n")}\n  }`;
  });
  const threshold = view.threshold === view.first ? texts.threshold : [decimal(view.threshold), '"chosen in the report"'];
  const corrected = [...film.editor.now.pins.keys()].sort((a, b) => a - b);
  const [head, middle, tail] = texts.json;
  return [
    head, ` "threshold": ${threshold[0]},`, ` "threshold_from": ${threshold[1]},`, middle,
    ` "corrected": ${jsonList(corrected)},`, ` "scenes": ${jsonList(rows)},`, tail,
  ].join("\n");
}

// Of a number with at most four digits, as Python writes it.
const decimal = (number) => (Number.isInteger(number) ? number.toFixed(1) : String(number));

function scenesCsv(film, scenes, texts) {
  const rows = scenes.map(({ number, first, after, last, name, note }) => [
    number, texts.csv_seconds[first], texts.csv_seconds[after], texts.timecode[first], texts.timecode[after],
    texts.first_frame[first], texts.last_frame[last], first, last,
    after === film.count ? "" : texts.csv_probability[last], csvField(name), csvField(note),
  ]);
  return [texts.csv_columns, ...rows].map((row) => `${row.join(",")}\n`).join("");
}

function scenesEdl(film, scenes, texts) {
  const events = inFrames(scenes, texts).map(({ first, after, title, note }, at) => {
    const span = `${texts.timecode[first]} ${texts.timecode[after]}`;
    const comments = [title, oneLine(note)].filter(Boolean).map((text) => `* COMMENT: ${text}\n`);
    return `${serial(at + 1)}  ${texts.reel.padEnd(8)} V     C        ${span} ${span}\n* FROM CLIP NAME: ${texts.file}\n${comments.join("")}`;
  });
  return texts.edl_header + events.join("");
}

function resolveMarkers(film, scenes, texts) {
  const events = inFrames(scenes, texts).map(({ first, after, title, note }, at) => {
    const span = `${texts.timecode[first]} ${texts.timecode_after[first]}`, length = texts.frame[after] - texts.frame[first];
    const [name, said] = [title, oneLine(note)].map((text) => text.replaceAll("|", "/"));
    return `${serial(at + 1)}  001      V     C        ${span} ${span}  \n${said} |C:ResolveColorBlue |M:${name} |D:${length}\n`;
  });
  return texts.edl_header + events.join("\n");
}

function avidMarkers(film, scenes, texts) {
  const line = ({ first, title, note }) =>
    `bassl-fast\t${texts.timecode[first]}\tV1\tblue\t${[title, oneLine(note)].filter(Boolean).join(": ")}\t1\n`;
  return inFrames(scenes, texts).map(line).join("");
}

function ffmetadata(film, scenes, texts) {
  const chapter = ({ first, after, title }) =>
    `[CHAPTER]\nTIMEBASE=1/1000\nSTART=${texts.milliseconds[first]}\nEND=${texts.milliseconds[after]}\ntitle=${metadataField(title)}\n`;
  return `;FFMETADATA1\n${scenes.map(chapter).join("")}`;
}

function chapterLines(film, scenes, texts) {
  return scenes.map(({ first, title }) => `${first ? texts.clock[first] : "0:00"} ${title}\n`).join("");
}

function webvtt(film, scenes, texts) {
  const cue = ({ number, first, after, title }) =>
    `${number}\n${texts.long_clock[first]} --> ${texts.long_clock[after]}\n${htmlText(title)}\n`;
  return ["WEBVTT\n", ...scenes.map(cue)].join("\n");
}

const SAVES = {
  "corrected.json": ["all edits, for bassl-fast", correctedJson],
  "scenes.csv": ["spreadsheets", scenesCsv],
  "scenes.edl": ["editing programs: an event a scene", scenesEdl],
  "markers-resolve.edl": ["markers for DaVinci Resolve", resolveMarkers],
  "markers-avid.txt": ["markers for Avid Media Composer", avidMarkers],
  "chapters.ffmetadata": ["chapters for ffmpeg", ffmetadata],
  "chapters.txt": ["chapters for video sites", chapterLines],
  "chapters.vtt": ["chapters for web players", webvtt],
};

function textOf(film, name) {
  film.texts ??= JSON.parse(film.section.querySelector(".film-texts").textContent);
  return SAVES[name][1](film, scenesOf(film), film.texts);
}

function listSaves(film) {
  const save = (name) => {
    const address = URL.createObjectURL(new Blob([textOf(film, name)], { type: "application/octet-stream" }));
    element("a", { href: address, download: `${film.name}-${name}` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  };
  for (const [name, [purpose]] of Object.entries(SAVES)) {
    const button = element("button", { type: "button" }, name);
    button.addEventListener("click", () => save(name));
    get("saves").append(element("li", {}, button, element("span", {}, purpose)));
  }
  get("command").textContent = `bassl-fast scenes ${film.editing.file} --corrections ${film.name}-corrected.json`;
}
