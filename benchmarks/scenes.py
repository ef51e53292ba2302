"""`bassl-fast scenes` on a film of two hours: time and memory beyond the model.

The film is one clip repeated by copying its packets, which is cheap. The model has the size of BaSSL's (ResNet-50,
images of 224 pixels, contextual relation network of two layers) and is untrained: time and memory do not depend on its
weights. Memory is the peak of the process: once after a minute of film, when models and buffers are loaded, and once
after the whole film.

    python -m benchmarks.scenes                          a synthetic film
    python -m benchmarks.scenes --clip film.mp4 --out benchmarks/results/scenes.json
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

import yaml

from bassl_fast import cli
from benchmarks.machine import machine
from tests.videos import draw_video, loop_video

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


def measure() -> dict[str, float]:
    """Seconds and memory of `film.mp4`, after `minute.mp4`; in the folder that holds them and the model."""
    found: dict[str, float] = {}
    for name in ("minute", "film"):
        started = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            assert cli.main(["scenes", f"{name}.mp4", "--checkpoint", "scenes/best.ckpt", "--out", "found"]) == 0
        found[f"{name}_seconds"] = time.perf_counter() - started
        peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
        found[f"{name}_peak_bytes"] = 1024 * int(peak)
    document = json.loads(Path("found/film/scenes.json").read_text())
    found |= {"duration": document["duration"], "shots": len(document["shots"])}
    return found | {"report_bytes": Path("found/film/report.html").stat().st_size}


def measure_apart(root: Path) -> dict[str, float]:
    """`measure` in a process of its own, whose memory is then that of the command alone."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "benchmarks.scenes", "--measure"]
    done = subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="video to repeat; left out, a synthetic one")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--depth", type=int, default=50, help="of the ResNet")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure()))
        return
    with tempfile.TemporaryDirectory(prefix="bassl-fast-scenes-") as scratch:
        root = Path(scratch)
        clip = args.clip or draw_video(root / "clip.mp4", [96, 60, 120, 84] * 4, size=(640, 360))
        make_model(root, args.depth)
        loop_video(clip, root / "minute.mp4", 60)
        loop_video(clip, root / "film.mp4", 3600 * args.hours)
        found = measure_apart(root)
    beyond = found["film_peak_bytes"] - found["minute_peak_bytes"]
    print(f"film of {found['duration']:.0f} s, {found['shots']} shots: {found['film_seconds']:.0f} s")
    print(
        f"peak memory {found['film_peak_bytes'] / 1e9:.2f} GB, {beyond / 1e9:.2f} GB more than after a minute of film"
    )
    print(f"report of {found['report_bytes'] / 1e6:.1f} MB")
    if args.out:
        settings = {"clip": args.clip.name if args.clip else "drawn", "hours": args.hours, "depth": args.depth}
        report = {"benchmark": "scenes", "settings": settings, "machine": machine(), **found}
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
