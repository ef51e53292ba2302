"""Costs of a unit of work for `bassl-fast plan --costs`, collected from the JSON of the other benchmarks.

Nothing is measured here: run the benchmarks that matter on the machine to plan for, then this.

    python -m benchmarks.loader --out results/loader.json       views/s of a CPU core; bytes of a key-frame
    python -m benchmarks.gpu --out results/gpu.json             views/s and training of ResNet-50 on this GPU
    python -m benchmarks.step --out results/step.json           training of any ResNet, on a GPU or CPU
    python -m benchmarks.scale --out results/scale.json         key-frames read from this disk; memory of a process
    python -m benchmarks.pack --out results/pack.json           packing; fetching from S3 (a server on loopback)
    python -m benchmarks.costs results --out costs.json

Costs of a missing file are left out, and `plan` says so.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

Costs = dict[str, dict[str, Any]]


def gather(results: Path) -> Costs:
    """Name -> value, unit, machine, date, command."""
    costs: Costs = {}
    for name, read in (("loader", loader), ("gpu", gpu), ("step", step), ("scale", scale), ("pack", pack)):
        path = results / f"{name}.json"
        if not path.is_file():
            continue
        report = json.loads(path.read_text(encoding="utf-8"))
        facts = report["machine"]
        where = f"{facts['cpu']}, {facts['cores']} cores"
        on = {"machine": where, "date": facts["date"][:10], "command": f"python -m benchmarks.{name}"}
        costs |= {cost: {"value": value, "unit": unit, **on} for cost, (value, unit) in read(report).items()}
    return costs


def loader(report: dict) -> dict[str, tuple[float, str]]:
    views = report["contestants"]["ours-bfloat16"]["views_per_s"]["median"] / report["settings"]["threads"]
    return {"views cpu-core": (views, "views/s"), "key-frame": (report["jpegs"]["mean_bytes"], "bytes")}


def gpu(report: dict) -> dict[str, tuple[float, str]]:
    name = short(report["machine"]["gpu"])
    views: dict[str, tuple[float, str]] = {}
    for row in report["loader"]:
        if "views_per_s" in row and row["decoder"] != "cpu":
            made = f"triton-views {name}" if row["triton"] else f"views {name}"
            views[made] = max(views.get(made, (0, "")), (row["views_per_s"], "views/s"))
    # Training on a batch that stays on the GPU, of the first method.
    alone = next(row["views_per_s"] for row in report["training"] if row["views"] == "resident")
    encoder = f"resnet{report['settings']['depth']}"
    return views | {f"train {encoder} {name}": (1 / alone, "s/view")}


def step(report: dict) -> dict[str, tuple[float, str]]:
    settings, name = report["settings"], short(report["machine"]["device"])
    parts = report["milliseconds"]["bassl"]
    seconds = sum(parts[part] for part in ("encoder", "CRN", "losses", "optimiser")) / 1000
    views = report["views"]["bassl"] * settings["batch"]
    if name == "cpu":
        return {f"train resnet{settings['depth']} cpu-core": (report["machine"]["cores"] * seconds / views, "s/view")}
    return {f"train resnet{settings['depth']} {name}": (seconds / views, "s/view")}


def scale(report: dict) -> dict[str, tuple[float, str]]:
    memory = max(figures["memory_mb"] for figures in report["films"].values())
    return {"read disk": (2000 / report["cold"]["store"]["s"], "key-frames/s"), "process": (1e6 * memory, "bytes")}


def pack(report: dict) -> dict[str, tuple[float, str]]:
    size = report["bytes"]
    return {
        "pack": (size / report["pack folder"]["seconds"]["ours"], "bytes/s"),
        "fetch s3": (size / report["S3, cold"]["seconds"]["ours"], "bytes/s"),
    }


def short(device: str) -> str:
    """The word that identifies a device: "h200" of "NVIDIA H200", "cpu" of "CPU"."""
    words = [word for word in re.split(r"[\s-]+", device.lower()) if re.fullmatch(r"cpu|[a-z]*\d+[a-z]*", word)]
    return words[0] if words else device.lower()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder of the JSON files")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args()
    costs = gather(args.results)
    for name, cost in costs.items():
        print(f"{name:24s}{cost['value']:14.6g} {cost['unit']:14s}{cost['machine']}, {cost['date']}")
    args.out.write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
