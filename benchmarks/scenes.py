"""`bassl-fast scenes`: time beside ffmpeg's decoding of the same file, and memory on a film of hours.

Time (`--speed DIR`): the clips of a folder, one after another, as H.264 of 720 and 1080 lines. `ffmpeg -f null` and
`bassl-fast scenes` take turns, both on as many threads as there are cores; the first round warms up. Seconds
of the clock and of the processor, as medians; the ratio is the median of the rounds' ratios. Starting Python counts.

Memory, and time with a model:

The film is one clip repeated by copying its packets, which is cheap. The model has the size of BaSSL's (ResNet-50,
images of 224 pixels, contextual relation network of two layers) and is untrained: time and memory do not depend on its
weights. Memory is the peak of the process: once after a short film, when models and buffers are loaded, and once after
the long one.

    python -m benchmarks.scenes --speed DIR --out benchmarks/results/scenes_speed.json
    python -m benchmarks.scenes                          a synthetic film
    python -m benchmarks.scenes --default --hours 3      with the weights of the package
    python -m benchmarks.scenes --default --clip film.mp4 --hours 3 --out benchmarks/results/scenes_memory.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import yaml

from bassl_fast import cli
from benchmarks.machine import machine
from shard_tools.video.frames import read_header
from tests.videos import draw_video, loop_video

CORES = len(os.sched_getaffinity(0))
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
PRETRAIN = {
    "data": {"global_batch": 8},
    "method": {"class_path": "bassl_fast.methods.BaSSL", "init_args": {}},
    "optimiser": {"name": "lars", "lr": 0.3},
    "training": {"steps": 0},
}
VERBS = (  # {0}: the folder
    "draw {0}/films --films 2 --shots 12 --test 1",
    "pack {0}/films {0}/shards",
    "pretrain --config {0}/pretrain.yaml --data.shards {0}/shards --out {0}/run",
    "extract {0}/run/last.ckpt {0}/shards {0}/features",
    "finetune --data.features {0}/features --data.batch 4 --epochs 1 --pretrained {0}/run/last.ckpt --out {0}/scenes",
)


def make_model(root: Path, depth: int) -> None:
    """An untrained model, made by the verbs: `scenes/best.ckpt`."""
    encoder = {"class_path": "bassl_fast.encoders.ResNet", "init_args": {"depth": depth}}
    (root / "pretrain.yaml").write_text(yaml.safe_dump(PRETRAIN | {"encoder": encoder}))
    for verb in VERBS:
        if cli.main(verb.format(root).split()):
            raise SystemExit(f"{verb.format(root)}: failed, see above")


def measure(default: bool) -> dict[str, float]:
    """Seconds and memory of `film.mp4`, after `short.mp4`; in the folder that holds them and the model."""
    found: dict[str, float] = {}
    model = [] if default else ["--checkpoint", "scenes/best.ckpt"]
    for name in ("short", "film"):
        started = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            assert cli.main(["scenes", f"{name}.mp4", *model, "--out", "found"]) == 0
        found[f"{name}_seconds"] = time.perf_counter() - started
        peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
        found[f"{name}_peak_bytes"] = 1024 * int(peak)
    document = json.loads(Path("found/film/scenes.json").read_text())
    found |= {"duration": document["duration"], "shots": len(document["shots"])}
    return found | {"report_bytes": Path("found/film/report.html").stat().st_size}


def measure_apart(root: Path, default: bool) -> dict[str, float]:
    """`measure` in a process of its own, whose memory is then that of the command alone."""
    command = [sys.executable, "-m", "benchmarks.scenes", "--measure", *["--default"] * default]
    done = subprocess.run(command, cwd=root, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def encode(films: list[Path], path: Path, height: int, seconds: float) -> Path:
    """The films one after another as H.264 of `height` lines in 16:9 at 24 frames a second, repeated to `seconds`."""
    size = f"{height * 16 // 9}:{height}"
    inputs = [part for film in films for part in ("-i", str(film))]
    graph = "".join(f"[{i}:v]fps=24,scale={size},setsar=1,format=yuv420p[v{i}];" for i in range(len(films)))
    graph += "".join(f"[v{i}]" for i in range(len(films))) + f"concat=n={len(films)}:v=1[v]"
    once = path.with_name(f"once-{path.name}")
    command = ["ffmpeg", "-v", "error", *inputs, "-filter_complex", graph, "-map", "[v]", "-c:v", "libx264"]
    subprocess.run([*command, "-preset", "veryfast", "-crf", "20", str(once)], check=True)
    return loop_video(once, path, seconds)


def spent(command: list[str], root: Path) -> tuple[float, float]:
    """Seconds of the clock and of the processor that a command takes."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=root, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def speed(folder: Path, heights: list[int], seconds: float, rounds: int) -> list[dict[str, float]]:
    """A row for each height: seconds of ffmpeg and of ours, their ratio, and times real time."""
    films = sorted(path for path in folder.iterdir() if path.suffix in (".mp4", ".webm"))
    rows = []
    for height in heights:
        with tempfile.TemporaryDirectory(prefix="bassl-fast-scenes-") as scratch:
            root = Path(scratch)
            film = encode(films, root / "film.mp4", height, seconds)
            length = read_header(film).duration
            took = []
            for turn in range(rounds + 1):
                ours = [sys.executable, "-c", "from bassl_fast.cli import main; main()", "scenes", "film.mp4"]
                ours += ["--out", f"out{turn}"]
                theirs = ["ffmpeg", "-v", "error", "-threads", str(CORES), "-i", "film.mp4", "-f", "null", "-"]
                took.append((*spent(theirs, root), *spent(ours, root)))
        clock, processor, our_clock, our_processor = (median(column) for column in zip(*took[1:], strict=True))
        rows.append(
            {
                "height": height,
                "film_seconds": length,
                "ffmpeg_seconds": clock,
                "ffmpeg_processor_seconds": processor,
                "seconds": our_clock,
                "processor_seconds": our_processor,
                "ratio": median(row[2] / row[0] for row in took[1:]),
                "processor_ratio": median(row[3] / row[1] for row in took[1:]),
                "times_real_time": length / our_clock,
                "ffmpeg_times_real_time": length / clock,
            }
        )
        print({key: round(value, 2) for key, value in rows[-1].items()}, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="video to repeat; left out, a synthetic one")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--short", type=float, default=60.0, help="seconds of the film before")
    parser.add_argument("--default", action="store_true", help="the weights of the package, without a model")
    parser.add_argument("--speed", type=Path, help="folder of clips: time beside ffmpeg instead")
    parser.add_argument("--heights", type=int, nargs="+", default=[720, 1080])
    parser.add_argument("--seconds", type=float, default=240.0, help="of the film for --speed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--depth", type=int, default=50, help="of the ResNet")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.default)))
        return
    if args.speed:
        rows = speed(args.speed, args.heights, args.seconds, args.rounds)
        if args.out:
            report = {"benchmark": "scenes_speed", "machine": machine(), "rows": rows}
            args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        return
    with tempfile.TemporaryDirectory(prefix="bassl-fast-scenes-") as scratch:
        root = Path(scratch)
        clip = args.clip or draw_video(root / "clip.mp4", [96, 60, 120, 84] * 4, size=(640, 360))
        if not args.default:
            make_model(root, args.depth)
        loop_video(clip, root / "short.mp4", args.short)
        loop_video(clip, root / "film.mp4", 3600 * args.hours)
        found = measure_apart(root, args.default)
    beyond = found["film_peak_bytes"] - found["short_peak_bytes"]
    print(f"film of {found['duration']:.0f} s, {found['shots']} shots: {found['film_seconds']:.0f} s")
    print(
        f"peak memory {found['film_peak_bytes'] / 1e9:.2f} GB, {beyond / 1e9:.2f} GB more than after {args.short:g} s"
    )
    print(f"report of {found['report_bytes'] / 1e6:.1f} MB")
    if args.out:
        settings = {"clip": args.clip.name if args.clip else "drawn", "hours": args.hours, "depth": args.depth}
        settings |= {"short": args.short, "default": args.default}
        report = {"benchmark": "scenes", "settings": settings, "machine": machine(), **found}
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
