"""Shot detectors on clips whose transitions are known to the frame: cuts, fades through black, dissolves, disturbances.

Single shots of real films are joined by ffmpeg's filters, so the filter graph says where each transition begins and
ends. "Disturbed" films have cuts, and inside every shot a flash of two frames or a pan across the whole picture in a
third of a second, neither of which begins a shot. "Dark" films have cuts, and two of every four shots are so dark that
no level exceeds 18 of 255. Half of the shots were used to tune our own detector; the figures are
of the other half (`--half tuning` shows the first).

A shot begins correctly if it begins within a transition, or at most `TOLERANCE` frames from it; a second one there
counts as wrong.

    python -m benchmarks.shots --films DIR --out benchmarks/results/shots.json
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import machine
from shard_tools.video.cutter import Begin, Cutter, Spaced
from shard_tools.video.detectors import DETECTORS, make_cutter
from shard_tools.video.frames import Shown
from shard_tools.video.pyscenedetect import SceneDetect
from shard_tools.video.shots import small_frames

RATE = 24
TOLERANCE = 2  # frames
SHOTS_PER_FILM = 14
# Frames of single shots without titles or fades: film -> [(first, last)].
HALVES: dict[str, dict[str, list[tuple[int, int]]]] = {
    "tuning": {
        "sintel_trailer.mp4": [(70, 118), (150, 205), (340, 380), (455, 500), (527, 570), (577, 620)],
        "tears_of_steel_5s.webm": [(0, 82), (83, 119)],
    },
    "reported": {
        "sintel_sunset.mp4": [(0, 75), (76, 120), (121, 318), (319, 456), (457, 544), (545, 610)],
        "big_buck_bunny_30s.mp4": [(60, 284), (285, 377), (378, 552), (553, 719)],
    },
}
CROP = {"sintel_sunset.mp4": "crop=848:356,"}  # its bars
KINDS = ("cut", "fade", "dissolve")
FILMS = (*KINDS, "mixed", "disturbed", "dark")
DARK = ",colorchannelmixer=rr=0.07:gg=0.07:bb=0.07"
FILL = "scale={0}:{1}:force_original_aspect_ratio=increase,crop={0}:{1},setsar=1"


class Truth(NamedTuple):
    """A transition: the first frame that is not only of the shot before, and the first that is only of the next."""

    start: int
    end: int
    kind: str


def make_film(path: Path, films: Path, half: str, kind: str, seed: int, shots: int = SHOTS_PER_FILM) -> list[Truth]:
    """Write a film of so many shots joined by transitions of a kind of `FILMS`; its transitions."""
    draw = random.Random(f"{half} {kind} {seed}")
    pieces = _draw_pieces(draw, HALVES[half], shots)
    inputs: list[str] = []
    graph, truth, length = [], [], 0
    used = 0  # frames of the shot before that a dissolve at its beginning took
    for i, (film, first, count) in enumerate(pieces):
        inputs += ["-i", str(films / film)]
        filters = f"trim=start_frame={first}:end_frame={first + count},settb=1/{RATE},setpts=N,fps={RATE},"
        filters += CROP.get(film, "") + (_disturbance(draw, count) if kind == "disturbed" else FILL.format(640, 360))
        if kind == "dark" and i % 4 in (1, 2):
            filters += DARK
        joined = {"mixed": draw.choice(KINDS), "disturbed": "cut", "dark": "cut"}.get(kind, kind)
        if i == 0:
            graph.append(f"[0:v]{filters},format=yuv420p[j0]")
            length = count
            continue
        before = f"[j{i - 1}]"
        if joined == "dissolve":
            frames = max(12, min(draw.randint(12, 48), pieces[i - 1][2] - used - 8, count - 20))
            graph.append(f"[{i}:v]{filters},format=yuv420p[s{i}]")
            offset = (length - frames) / RATE
            graph.append(f"{before}[s{i}]xfade=transition=fade:duration={frames / RATE}:offset={offset}[j{i}]")
            # The first frame of a dissolve is still wholly of the shot before.
            truth.append(Truth(length - frames + 1, length, joined))
            length, used = length + count - frames, frames
            continue
        used = 0
        if joined == "fade":
            out, hold, back = draw.randint(8, 20), draw.randint(2, 12), draw.randint(8, 20)
            graph.append(f"{before}fade=out:{length - out}:{out},tpad=stop={hold}:color=black[f{i}]")
            before, filters = f"[f{i}]", f"{filters},fade=in:0:{back}"
            truth.append(Truth(length - out, length + hold + back, joined))
            length += hold
        else:
            truth.append(Truth(length, length, joined))
        graph.append(f"[{i}:v]{filters},format=yuv420p[s{i}]")
        graph.append(f"{before}[s{i}]concat=n=2:v=1,settb=1/{RATE},fps={RATE}[j{i}]")
        length += count
    command = ["ffmpeg", "-v", "error", "-y", *inputs, "-filter_complex", ";".join(graph), "-map", f"[j{i}]"]
    subprocess.run([*command, "-c:v", "libx264", "-preset", "ultrafast", "-crf", "20", str(path)], check=True)
    return truth


def _draw_pieces(
    draw: random.Random, shots: dict[str, list[tuple[int, int]]], number: int
) -> list[tuple[str, int, int]]:
    """File, first frame and number of frames of every shot; no two of one shot in a row."""
    every = [(film, first, last) for film, spans in shots.items() for first, last in spans]
    pieces: list[tuple[str, int, int]] = []
    order: list[tuple[str, int, int]] = []
    while len(pieces) < number:
        if not order:
            order = draw.sample(every, len(every))
            if pieces and order[-1][0] == pieces[-1][0] and order[-1][1] <= pieces[-1][1] <= order[-1][2]:
                order.reverse()
        film, first, last = order.pop()
        count = min(last - first + 1, draw.randint(56, 100))
        pieces.append((film, draw.randint(first, last + 1 - count), count))
    return pieces


def _disturbance(draw: random.Random, count: int) -> str:
    at = count // 2
    if draw.random() < 0.5:
        return f"{FILL.format(640, 360)},drawbox=color=white@0.8:t=fill:enable='between(n,{at},{at + 1})'"
    return f"{FILL.format(1280, 720)},crop=640:360:x='640*clip((n-{at})/8,0,1)':y=180"


def score(truth: Sequence[Truth], found: Iterable[int]) -> tuple[int, int, int]:
    """Transitions found, shots begun where there is none, transitions missed."""
    left, wrong = list(truth), 0
    for number in found:
        hit = next((t for t in left if t.start - TOLERANCE <= number <= t.end + TOLERANCE), None)
        if hit is None:
            wrong += 1
        else:
            left.remove(hit)
    return len(truth) - len(left), wrong, len(left)


class _Both:
    """Two detectors; of what both find, one shot."""

    def __init__(self, *cutters: Cutter) -> None:
        self._cutters, self._spaced = cutters, Spaced()
        self.lag = max(cutter.lag for cutter in cutters)

    def push(self, shown: Shown) -> Iterable[Begin]:
        return self._spaced(sorted(begin for cutter in self._cutters for begin in cutter.push(shown)))

    def finish(self) -> Iterable[Begin]:
        return self._spaced(sorted(begin for cutter in self._cutters for begin in cutter.finish()))


def contestants(names: Sequence[str] | None) -> dict[str, Callable[[], Cutter]]:
    """Ours by name, and PySceneDetect's detector of fades, alone and beside its detector of cuts."""
    ours: dict[str, Callable[[], Cutter]] = {name: lambda name=name: make_cutter(name) for name in DETECTORS}
    fades = {
        "threshold": lambda: SceneDetect("ThresholdDetector"),
        "adaptive+threshold": lambda: _Both(SceneDetect("AdaptiveDetector"), SceneDetect("ThresholdDetector")),
    }
    every = ours | fades
    return {name: every[name] for name in names or every}


def measure(path: Path, make: Callable[[], Cutter]) -> tuple[list[Begin], float, int]:
    """Where shots begin, processor seconds of the detector beyond decoding, and the number of frames."""
    frames = list(small_frames(path))  # first: decoding goes on in other threads, whose seconds would count
    cutter, started = make(), time.process_time()
    found = [begin for shown in frames for begin in cutter.push(shown)]
    found += cutter.finish()
    return found, time.process_time() - started, len(frames)


def rates(counts: tuple[int, int, int]) -> dict[str, float]:
    """Precision, recall and F1 in percent."""
    right, wrong, missed = counts
    found = {
        "precision": right / max(1, right + wrong),
        "recall": right / max(1, right + missed),
        "f1": 2 * right / max(1, 2 * right + wrong + missed),
    }
    return {name: round(100 * value, 1) for name, value in found.items()}


def evaluate(films: dict[str, list[tuple[Path, list[Truth]]]], make: Callable[[], Cutter]) -> dict[str, Any]:
    """Rates by kind of film and over all, share of transitions found whose kind is right, seconds per 1000 frames."""
    row: dict[str, Any] = {}
    total, seconds, frames, named, hits = [0, 0, 0], 0.0, 0, 0, 0
    for kind, made in films.items():
        counts = [0, 0, 0]
        for path, truth in made:
            found, took, number = measure(path, make)
            counts = [a + b for a, b in zip(counts, score(truth, [begin.frame for begin in found]), strict=True)]
            for t in truth:
                near = [b.kind for b in found if t.start - TOLERANCE <= b.frame <= t.end + TOLERANCE][:1]
                hits, named = hits + len(near), named + (near == [t.kind])
            seconds, frames = seconds + took, frames + number
        row[kind] = rates(tuple(counts)) | dict(zip(("right", "wrong", "missed"), counts, strict=True))
        total = [a + b for a, b in zip(total, counts, strict=True)]
    return row | {
        "all": rates(tuple(total)),
        "kind_right": round(100 * named / max(1, hits), 1),
        "seconds_per_1000_frames": round(1000 * seconds / frames, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, required=True, help="folder of the source films")
    parser.add_argument("--half", choices=HALVES, default="reported")
    parser.add_argument("--seeds", type=int, default=2, help="films of each kind")
    parser.add_argument("--shots", type=int, default=SHOTS_PER_FILM, help="of a film")
    parser.add_argument("--kinds", nargs="+", choices=FILMS, default=FILMS, help="of films")
    parser.add_argument("--detectors", nargs="+", help="left out, all")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory(prefix="bassl-fast-shots-") as scratch:
        films: dict[str, list[tuple[Path, list[Truth]]]] = {kind: [] for kind in args.kinds}
        for kind in args.kinds:
            for seed in range(args.seeds):
                path = Path(scratch) / f"{kind}{seed}.mp4"
                films[kind].append((path, make_film(path, args.films, args.half, kind, seed, args.shots)))
        print(f"{'F1 (precision, recall)':20s}" + "".join(f"{kind:>20s}" for kind in (*args.kinds, "all")) + "  s/1000")
        for name, make in contestants(args.detectors).items():
            rows[name] = row = evaluate(films, make)
            cells = [
                f"{r['f1']:.0f} ({r['precision']:.0f}, {r['recall']:.0f})" for r in map(row.get, (*args.kinds, "all"))
            ]
            print(f"{name:20s}" + "".join(f"{cell:>20s}" for cell in cells), row["seconds_per_1000_frames"], flush=True)
    if args.out:
        settings = {"half": args.half, "seeds": args.seeds, "shots": args.shots, "tolerance": TOLERANCE}
        report = {"benchmark": "shots", "settings": settings, "machine": machine(), "rows": rows}
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
