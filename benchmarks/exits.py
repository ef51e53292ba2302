"""Does a training process always exit cleanly? Starts processes under load and counts how they exit.

    python -m benchmarks.exits --starts 200

A thread that calls Python after the interpreter has shut down kills its process with a signal, rarely and on busy
machines. Each start trains two steps on two processes with prefetched batches; busy loops load the cores.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import yaml

from bassl_fast import cli

from .machine import machine

RECIPE = {
    "data": {"global_batch": 4, "prefetch": 4},
    "encoder": {"class_path": "bassl_fast.encoders.ResNet", "init_args": {"depth": 18, "width": 4}},
    "method": {"class_path": "bassl_fast.methods.Instance", "init_args": {"nce_hidden": 8, "nce_dim": 8}},
    "optimiser": {"name": "adamw"},
    "training": {"steps": 2, "precision": "32-true", "devices": 2},
}
RECIPE["method"]["init_args"]["views"] = {"size": 32}


def _busy() -> None:
    while True:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=200, help="processes to start, two at a time")
    parser.add_argument("--load", type=int, default=2, help="busy loops beside them")
    parser.add_argument("--out", help="JSON file for the result")
    args = parser.parse_args()
    ended: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
        assert cli.main(["draw", str(root / "films"), "--films", "2", "--shots", "12", "--test", "1"]) == 0
        assert cli.main(["pack", str(root / "films"), str(root / "shards")]) == 0
        load = [multiprocessing.Process(target=_busy, daemon=True) for _ in range(args.load)]
        for process in load:
            process.start()
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        for number in range(-(-args.starts // 2)):
            verb = ["-m", "bassl_fast.cli", "pretrain", "--config", str(root / "recipe.yaml")]
            verb += ["--data.shards", str(root / "shards"), "--out", str(root / f"run-{number}")]
            done = subprocess.run([*torchrun, *verb], capture_output=True, text=True)
            how = "clean" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["?"])[-1]
            ended[how] += 2
            print(f"{2 * (number + 1)} processes: {dict(ended)}", flush=True)
        for process in load:
            process.kill()
    if args.out:
        Path(args.out).write_text(json.dumps({"ended": dict(ended), "machine": machine()}, indent=1) + "\n")
    sys.exit(len(ended) != 1 or "clean" not in ended)


if __name__ == "__main__":
    main()
