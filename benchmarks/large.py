"""Pack and verify a large set, killed in the middle: time, memory, and what a restart repeats.

Films are of MovieNet's size: 1,450 shots of three key-frames of about 33 KB, 424x240. The key-frames are hard links to
600 drawn ones, so the source takes 20 MB of disk and is read from memory: reading 160 GB from a disk comes on top.

The first `bassl-fast pack` gets SIGKILL once half of the shards are there, the second one resumes, and `bassl-fast
verify` reads what they wrote, decoding one key-frame in 100. Memory is that of all processes of a command, twice a
second, without pages of files, which the kernel may take back. Needs Linux, and `--gb` of disk.

    python -m benchmarks.large --gb 20 --out benchmarks/results/large.json
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.machine import machine
from shard_tools.annotations import movienet

SHOTS, IMAGES, DISTINCT, MOVIENET_GB = 1450, 3, 600, 160
Row = dict[str, float]


def draw_keyframe(seed: int) -> bytes:
    """A JPEG with the detail of a film frame."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (15, 27, 3), np.uint8))
    coarse = coarse.resize((424, 240), Image.Resampling.BICUBIC)
    grain = random.normal(0, 20, (240, 424, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=75)
    return file.getvalue()


def make_films(root: Path, total: float) -> int:
    """Write film after film until their key-frames have `total` bytes; returns the number of films."""
    (root / "drawn").mkdir(parents=True)
    for seed in range(DISTINCT):
        (root / "drawn" / f"{seed}.jpg").write_bytes(draw_keyframe(seed))
    sizes = [(root / "drawn" / f"{seed}.jpg").stat().st_size for seed in range(DISTINCT)]
    films = max(1, round(total / (SHOTS * IMAGES * np.mean(sizes))))
    for film in range(films):
        folder = root / movienet.FRAMES_DIR / f"tt{film:07d}"
        folder.mkdir(parents=True)
        for image in range(SHOTS * IMAGES):
            drawn = root / "drawn" / f"{(film * 7 + image) % DISTINCT}.jpg"
            os.link(drawn, folder / movienet.keyframe_name(*divmod(image, IMAGES)))
    return films


def memory_of(session: int) -> float:
    """MiB of all processes of a session, without pages of files; pages that they share count once."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) != session:
                continue
            rollup = (process / "smaps_rollup").read_text()
        except OSError:  # it ended
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss_Anon:"))
    return total / 1024


def watched(command: list[str], stop: Callable[[], bool] = lambda: False) -> Row:
    """Run a command of bassl-fast, killed as soon as `stop()`: seconds and memory."""
    started, memory = time.perf_counter(), []
    process = subprocess.Popen([sys.executable, "-m", "bassl_fast.cli", *command], start_new_session=True)
    while process.poll() is None:
        if stop():
            os.killpg(process.pid, 9)
        memory.append(memory_of(process.pid))
        time.sleep(0.5)
    seconds = time.perf_counter() - started
    if process.returncode not in (0, -9):
        raise SystemExit(f"bassl-fast {command[0]} ended with status {process.returncode}")
    quarter = max(1, len(memory) // 4)
    return {
        "seconds": seconds,
        "MiB, second quarter": median(memory[quarter : 2 * quarter] or memory),
        "MiB, last quarter": median(memory[-quarter:]),
        "MiB, peak": max(memory),
    }


def measure(root: Path, gb: float, workers: int) -> dict[str, object]:
    films = make_films(root / "source", gb * 1e9)
    out = root / "shards"
    pack = ["pack", str(root / "source"), str(out), "--workers", str(workers)]

    def written() -> list[Path]:
        return sorted(out.glob("*.tar"))

    killed = watched(pack, lambda: len(written()) >= films // 2)
    kept = {path: path.stat().st_mtime_ns for path in written()}
    resumed = watched(pack)
    repeated = sum(path.stat().st_mtime_ns != written for path, written in kept.items())
    verified = watched(["verify", str(out), "--workers", str(workers)])
    size = sum(path.stat().st_size for path in written()) / 1e9
    seconds = killed["seconds"] + resumed["seconds"]
    return {
        "films": films,
        "GB": size,
        "pack, killed": killed,
        "pack, resumed": resumed,
        "verify": verified,
        "shards at the kill": len(kept),
        "of these packed again": repeated,
        "minutes for 160 GB": {
            "pack": seconds / size * MOVIENET_GB / 60,
            "verify": verified["seconds"] / size * MOVIENET_GB / 60,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scratch", type=Path, help="folder on the disk to measure; by default the temporary one")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bassl-fast-", dir=args.scratch))
    try:
        found = measure(root, args.gb, args.workers)
    finally:
        shutil.rmtree(root)
    for name in ("pack, killed", "pack, resumed", "verify"):
        print(f"{name:14}", "  ".join(f"{key} {value:.1f}" for key, value in found[name].items()))
    print({key: value for key, value in found.items() if not isinstance(value, dict) or key.startswith("minutes")})
    if args.out:
        report = {
            "benchmark": "large",
            "settings": {"gb": args.gb, "workers": args.workers},
            "machine": machine(),
            **found,
        }
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
