"""`bassl-fast scenes` on a film of two hours: time and memory beyond the model.

The film is one clip played again and again, its packets copied, so it costs nothing to make. The model is BaSSL's own
size (ResNet-50, pictures of 224 pixels, contextual relation network of two layers), untrained: time and memory do not
depend on what it learnt. Memory is that of the process at its peak: once after a minute of film, when models and
buffers are there, and once after the whole film.

    python -m benchmarks.scenes                          a drawn film
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
    "encoder": {"class_path": "bassl_fast.encoders.ResNet", "init_args": {"depth": 50}},
    "method": {"class_path": "bassl_fast.methods.BaSSL", "init_args": {}},
    "optimiser": {"name": "lars", "lr": 0.3},
    "training": {"steps": 0},
}


VERBS = (
    "draw films --films 2 --shots 12 --test 1",
    "pack films shards",
    "pretrain --config pretrain.yaml --data.shards shards --out run",
    "extract run/last.ckpt shards features",
    "finetune --data.features features --data.batch 4 --epochs 1 --pretrained run/last.ckpt --out scenes",
)


def run(module: str, *argv: str, folder: Path) -> str:
    """Standard output of a module of ours in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", module, *argv]
    return subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def make_model(root: Path) -> None:
    """An untrained model of the published size, made by the verbs: `scenes/best.ckpt`."""
    (root / "pretrain.yaml").write_text(yaml.safe_dump(PRETRAIN))
    for verb in VERBS:
        run("bassl_fast.cli", *verb.split(), folder=root)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="video to repeat; a drawn one if left out")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure()))
        return
    with tempfile.TemporaryDirectory(prefix="bassl-fast-scenes-") as scratch:
        root = Path(scratch)
        clip = args.clip or draw_video(root / "clip.mp4", [96, 60, 120, 84] * 4, size=(640, 360))
        make_model(root)
        loop_video(clip, root / "minute.mp4", 60)
        loop_video(clip, root / "film.mp4", 3600 * args.hours)
        found = json.loads(run("benchmarks.scenes", "--measure", folder=root).splitlines()[-1])
    beyond = found["film_peak_bytes"] - found["minute_peak_bytes"]
    print(f"film of {found['duration']:.0f} s, {found['shots']} shots: {found['film_seconds']:.0f} s")
    print(
        f"peak memory {found['film_peak_bytes'] / 1e9:.2f} GB, {beyond / 1e9:.2f} GB more than after a minute of film"
    )
    print(f"report of {found['report_bytes'] / 1e6:.1f} MB")
    if args.out:
        settings = {"clip": args.clip.name if args.clip else "drawn", "hours": args.hours}
        report = {"benchmark": "scenes", "settings": settings, "machine": machine(), **found}
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
