"""What does each pretraining method gain on the same small budget?

On synthetic films, a set for every seed in `--draws`: each of the five methods pretrains the encoder of the demo, which
is then fine-tuned with three seeds to find scene boundaries. Reported is AP in percent on films not seen in training,
beside the rate of boundaries (chance) and an untrained encoder. The settings are those of configs/demo.yaml, which were
tuned on draw 0 only, with 300 steps and 10 epochs.

Shot-level methods have no contextual relation network and get a new one, as published. `bassl` and `bassl+shotcol` keep
theirs; a second row gives each a new one on its pretrained encoder, to compare features alone.

A method's budget is its steps and, with `--budget pictures` (the default), the number of images it encodes: a method
with fewer views a sample takes more samples a step. With `--budget samples` all take the same number of samples a step,
as in the paper, and shot-level methods encode a tenth of the images.

    python -m benchmarks.quality --out benchmarks/results/quality.json --plot docs/quality.svg
        about 25 minutes on 2 cores
    python -m benchmarks.quality --budget samples --methods instance temporal shotcol
        the shot-level methods as in the paper; the others are the same with either budget
    python -m benchmarks.quality --budget samples --steps 100 --draws 11 --methods sce byol scrl bassl \\
            --encoders ResNet-18 R3D-18 X3D-M VoV3D-M --out benchmarks/results/quality_encoders.json
        methods for pictures on films, and networks for clips as shot encoders
    python -m benchmarks.quality --draws 11 --films 4 --shots 60 --steps 2 --seeds 0 --epochs 1
        only to see that it runs: a few minutes, meaningless numbers
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bassl_fast.cli.demo import RECIPE, make_films, read_recipe, score_seeds, stage, train
from bassl_fast.runtime.quiet import quieten
from benchmarks import plots
from benchmarks.machine import machine
from shard_tools.packing.pack import pack
from shard_tools.shards.index import ShardIndex

# name -> class, views a sample
METHODS = {
    "instance": ("Instance", 2),
    "temporal": ("Temporal", 2),
    "shotcol": ("ShotCoL", 18),
    "bassl": ("BaSSL", 19),
    "bassl+shotcol": ("BaSSLShotCoL", 20),
}
MOMENTUM = {"sce": ("SCE", 2), "byol": ("BYOL", 2), "scrl": ("SCRL", 2)}
ENCODERS = {  # None: the encoder of the demo
    "ResNet-18": None,
    "R3D-18": {"class_path": "bassl_fast.encoders.ResNet3D", "init_args": {"depth": 18}},
    "X3D-M": {"class_path": "bassl_fast.encoders.X3D", "init_args": {"size": "M"}},
    "VoV3D-M": {"class_path": "bassl_fast.encoders.VoV3D", "init_args": {"size": "M"}},
}
_HEAD = ("nce_hidden", "nce_dim", "views")
_CRN = ("hidden", "intermediate", "similarity_init")


def section_of(method: str, encoder: str, recipe: dict[str, Any], budget: str) -> dict[str, Any]:
    """The section `pretrain` of the demo, with another method or encoder."""
    kind, views = (METHODS | MOMENTUM)[method]
    section = recipe["pretrain"]
    arguments, batch = section["method"]["init_args"], section["data"]["global_batch"]
    if method in MOMENTUM:
        arguments = {"hidden": 256, "outputs": 64, "momentum": 0.9, "views": arguments["views"]}
        arguments |= {"queue": 20 * 2 * batch} if method == "sce" else {}
    elif not method.startswith("bassl"):
        arguments = {name: arguments[name] for name in _HEAD}
    if budget == "pictures":
        batch = round(batch * METHODS["bassl"][1] / views)
    return section | {
        "encoder": ENCODERS[encoder] or section["encoder"],
        "method": {"class_path": f"bassl_fast.methods.{kind}", "init_args": arguments},
        "data": section["data"] | {"global_batch": batch},
    }


def rows_of_draw(
    root: Path, recipe: dict[str, Any], methods: list[str], encoders: list[str], budget: str
) -> Iterator[tuple[str, list[float]]]:
    """(row, APs by seed of fine-tuning) of one set of films."""
    shards, source = root / "shards", str(RECIPE)
    with stage("draw films and pack"):
        make_films(root / "films", recipe["draw"], None)
        pack(root / "films", shards, quiet=True)
    index = ShardIndex.open(shards)
    labels = [int(label) for film in index.select("test") for label in index.shots_of(film)["boundary"]]
    yield "chance", [100 * mean(labels)]
    fresh = {"crn": {name: recipe["pretrain"]["method"]["init_args"][name] for name in _CRN}}
    for encoder, method in product(encoders, ("untrained", *methods)):
        if method == "scrl" and encoder != "ResNet-18":
            continue  # its boxes need the feature maps of a ResNet
        section = section_of("bassl" if method == "untrained" else method, encoder, recipe, budget)
        if method == "untrained":
            section = section | {"training": section["training"] | {"steps": 0}}
        name = method if len(encoders) == 1 else f"{encoder}, {method}"
        with stage(f"pretrain: {name}"):
            checkpoint, features = train(section, root / name, shards, source)
        networks = {name: {"pretrained": checkpoint}} if method.startswith("bassl") else {}
        networks[f"{name}, new network" if networks else name] = fresh
        for row, network in networks.items():
            with stage(f"fine-tune: {row}"):
                section = recipe["finetune"] | network | {"head": "crn"}
                aps = score_seeds(section, features, root / row, recipe["seeds"], source)
                yield row, list(aps.values())


def main() -> None:
    recipe = read_recipe(str(RECIPE))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, nargs="+", default=[11, 12], help="seeds of the films (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=recipe["seeds"], help="of fine-tuning (%(default)s)")
    parser.add_argument("--methods", choices=METHODS | MOMENTUM, nargs="+", default=list(METHODS), metavar="METHOD")
    parser.add_argument("--encoders", choices=ENCODERS, nargs="+", default=["ResNet-18"], metavar="ENCODER")
    parser.add_argument("--budget", choices=("pictures", "samples"), default="pictures")
    parser.add_argument("--steps", type=int, default=300, help="of pretraining (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="of fine-tuning (%(default)s)")
    parser.add_argument("--films", type=int, default=recipe["draw"]["films"], help="a third is held out (%(default)s)")
    parser.add_argument("--shots", type=int, default=recipe["draw"]["shots"], help="a film (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--plot", type=Path, help="draw them as SVG")
    args = parser.parse_args()
    recipe["pretrain"]["training"]["steps"] = args.steps
    recipe["finetune"]["epochs"], recipe["seeds"] = args.epochs, args.seeds
    quieten()
    rows: dict[str, list[list[float]]] = {}
    for draw in args.draws:
        recipe["draw"] = {"films": args.films, "shots": args.shots, "test": max(1, args.films // 3), "seed": draw}
        with tempfile.TemporaryDirectory() as folder:
            for row, aps in rows_of_draw(Path(folder), recipe, args.methods, args.encoders, args.budget):
                rows.setdefault(row, []).append(aps)

    def spread(values: list[float]) -> str:
        return f"{mean(values):6.1f}" + (f" +- {stdev(values):4.1f}" if len(values) > 1 else " " * 8)

    print(
        f"AP in percent, mean and deviation of {len(args.seeds)} fine-tunings; {args.steps} steps, same {args.budget}"
    )
    print(f"{'':34s}" + "".join(f"{f'films {draw}':>15s}" for draw in args.draws) + f"{'all':>15s}")
    for name, draws in rows.items():
        print(f"{name:34s}" + "".join(f"{spread(aps):>15s}" for aps in [*draws, [ap for aps in draws for ap in aps]]))
    if args.out:
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
        result = {"benchmark": "quality", "settings": settings, "machine": machine(), "ap": rows}
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        plots.draw({"benchmark": "quality", "ap": rows}, args.plot)


if __name__ == "__main__":
    main()
