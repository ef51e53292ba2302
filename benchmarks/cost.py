"""AP against the encoder's work: the published recipe of BaSSL beside recipes that encode less.

Each set of films is pretrained on with every recipe in turn, once for each seed. The features are then fine-tuned on
with the same seed, and scored on films not seen in training: by the default head from the pretrained network, which
also reads how alike shots are; and by the network alone, pretrained and new.
The encoder's work is counted in passes: images encoded, an image of fewer pixels as its fraction of the full size.

A recipe is `full`, or its changes to it: `w16` runs of 16 windows, `b32` 32 windows a step, `s150` 150 steps, `a32`
windows of one film less than 32 shots apart are no negatives, `g32` views of 32 pixels for the first half of the steps.

    python -m benchmarks.cost --out benchmarks/results/cost.json --plot docs/cost.svg
        the demo's films and model, three draws; hours on two cores
    python -m benchmarks.cost --shards DIR --steps 200 --recipes full w16b32s100a32
        on your own films: shards with labelled "train" and "test" splits
    python -m benchmarks.cost --draws 21 --films 4 --shots 40 --steps 2 --seeds 0 --epochs 1 --recipes full w4
        only to see that it runs
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bassl_fast.cli.demo import RECIPE, make_films, read_recipe, score_seeds, stage, train
from bassl_fast.methods import BaSSL
from bassl_fast.runtime.quiet import quieten
from benchmarks import plots
from benchmarks.machine import machine
from shard_tools.packing.pack import pack

RECIPES = ("full", "s100", "w2s172a18", "w4s270a20", "w8a24", "w8", "w16a32", "w32b32s150a48")
HEADS = ("default", "pretrained", "new")  # the network alone is the last two
_CRN = ("hidden", "intermediate", "similarity_init")
FULL_SIZE_FROM = 0.5  # fraction of the steps after which `g` has views of full size


def section_of(name: str, full: dict[str, Any]) -> dict[str, Any]:
    """The section `pretrain` of a recipe.

    Raises:
        ValueError: the name is not of a recipe, or its batches do not hold whole runs.
    """
    if name != "full" and not re.fullmatch(r"([wbsag]\d+)+", name):
        raise ValueError(f"{name}: not a recipe; write it as full, w16 or w16b32s150a32g32")
    given = {} if name == "full" else {key: int(value) for key, value in re.findall(r"([wbsag])(\d+)", name)}
    section = copy.deepcopy(full)
    arguments, data, training = section["method"]["init_args"], section["data"], section["training"]
    arguments |= {"run_length": given.get("w", 1), "negatives_apart": given.get("a", 0)}
    data["global_batch"] = given.get("b", data["global_batch"])
    training["steps"] = given.get("s", training["steps"])
    if data["global_batch"] % arguments["run_length"]:
        raise ValueError(f"{name}: {data['global_batch']} windows a step are no whole runs; add a multiple, as in b32")
    if "g" in given:
        training["smaller_views"] = [[given["g"], FULL_SIZE_FROM]]
    return section


def passes(section: dict[str, Any]) -> float:
    """Images of full size that the encoder sees in a run."""
    given, training = section["method"]["init_args"], section["training"]
    runs = BaSSL(1, run_length=given["run_length"]).runs
    a_step = section["data"]["global_batch"] // runs.length * (runs.dense_shots + len(runs.sparse_shots))
    saved = [until * (1 - (side / given["views"]["size"]) ** 2) for side, until in training.get("smaller_views", [])]
    return a_step * training["steps"] * (1 - sum(saved))


def of_films(
    root: Path, shards: Path, recipe: dict[str, Any], name: str, seed: int, heads: list[str]
) -> dict[str, Any]:
    """What a recipe makes of one set of films: its cost, and AP by head."""
    fresh = {"crn": {name: recipe["pretrain"]["method"]["init_args"][name] for name in _CRN}}
    full = recipe["pretrain"] | {"data": recipe["pretrain"]["data"] | {"shards": str(shards)}, "seed": seed}
    section, out = section_of(name, full), root / f"{name}-{seed}"
    with stage(f"pretrain: {name}, seed {seed}"):
        started, processor = time.perf_counter(), time.process_time()
        checkpoint, features = train(section, out, shards, str(RECIPE))
        row: dict[str, Any] = {
            "passes": passes(section),
            "seconds": time.perf_counter() - started,
            "processor_seconds": time.process_time() - processor,
        }
    pretrained = {"pretrained": checkpoint}
    starts = {"default": pretrained, "pretrained": pretrained | {"head": "crn"}, "new": fresh | {"head": "crn"}}
    for head in heads:
        with stage(f"fine-tune: {name}, {head}"):
            section = recipe["finetune"] | starts[head]
            (row[head],) = score_seeds(section, features, out / head, [seed], str(RECIPE)).values()
    return row


def spread(values: list[float]) -> str:
    """Mean, and its standard error."""
    error = f" +- {stdev(values) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{error}"


def main() -> None:
    recipe = read_recipe(str(RECIPE))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, help="of your own films, instead of drawn ones")
    parser.add_argument("--draws", type=int, nargs="+", default=[21, 22, 23], help="seeds of the films (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=recipe["seeds"], help="of training (%(default)s)")
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=HEADS, help="(%(default)s)")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), metavar="RECIPE", help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="of pretraining (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="of fine-tuning (%(default)s)")
    parser.add_argument("--films", type=int, default=recipe["draw"]["films"], help="a third is held out (%(default)s)")
    parser.add_argument("--shots", type=int, default=recipe["draw"]["shots"], help="a film (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--plot", type=Path, help="draw them as SVG")
    args = parser.parse_args()
    recipe["pretrain"]["training"]["steps"] = args.steps
    recipe["finetune"]["epochs"] = args.epochs
    for name in args.recipes:
        section_of(name, recipe["pretrain"])
    quieten()
    rows: dict[str, list[dict[str, Any]]] = {}
    for draw in [0] if args.shards else args.draws:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            if args.shards is None:
                drawn = {"films": args.films, "shots": args.shots, "test": max(1, args.films // 3), "seed": draw}
                with stage(f"draw films {draw} and pack"):
                    make_films(root / "films", drawn, None)
                    pack(root / "films", root / "shards", quiet=True)
            for name, seed in product(args.recipes, args.seeds):
                row = of_films(root, args.shards or root / "shards", recipe, name, seed, args.heads)
                rows.setdefault(name, []).append({"draw": draw, "seed": seed} | row)
    first = next(iter(rows.values()))
    columns = "".join(f"{name:>16s}" for name in [*args.heads, "to the first"])
    print(f"AP in percent, mean and standard error of {len(first)} runs")
    print(f"{'':20s}{'passes':>10s}{'of full':>9s}{'seconds':>10s}{columns}")
    for name, runs in rows.items():
        work, seconds = runs[0]["passes"], mean(run["seconds"] for run in runs)
        gains = [run[args.heads[0]] - one[args.heads[0]] for run, one in zip(runs, first, strict=True)]
        found = [*([run[head] for run in runs] for head in args.heads), gains]
        shown = "".join(f"{spread(values):>16s}" for values in found)
        print(f"{name:20s}{work:10.0f}{work / first[0]['passes']:9.2f}{seconds:10.0f}{shown}")
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    result = {"benchmark": "cost", "settings": settings, "machine": machine(), "recipes": rows}
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        plots.draw(result, args.plot)


if __name__ == "__main__":
    main()
