"""Do the methods and networks for pictures and clips learn? Each is compared with its untrained encoder.

    pictures    crops of the photographs in scikit-image, a class a photograph: training crops from its left half,
                validation crops from its right. SCE, BYOL and SCRL pretrain without labels, then a linear layer is
                trained on the frozen encoder (linear evaluation), as on the encoder before pretraining.
    clips       a bright square that crosses a dark image to the left, right, top or bottom: a single frame does not
                tell which. R3D, X3D and VoV3D are trained with labels; untrained, they guess.

Runs through the functions of the command line, at sizes for two cores. Scores are top-1 in percent; a gain of less than
`MARGIN` points fails the run.

    python -m benchmarks.learning --out benchmarks/results/learning.json
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bassl_fast import config
from bassl_fast.recognition.classify import classify
from bassl_fast.runtime.quiet import quieten
from bassl_fast.training.pretrain import pretrain
from shard_tools.packing.pack import pack
from shard_tools.sources.detect import Reading

PHOTOGRAPHS = (
    *("astronaut", "coffee", "chelsea", "rocket", "retina", "hubble_deep_field", "immunohistochemistry"),
    *("brick", "grass", "gravel", "moon", "coins"),
)
MOTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}

Network = tuple[str, dict[str, Any]]  # class and arguments of an encoder
RESNET: Network = ("ResNet", {"depth": 18, "width": 16})
CLIPS: dict[str, Network] = {
    "R3D-18": ("ResNet3D", {"depth": 18}),
    "X3D-M": ("X3D", {"size": "M"}),
    "VoV3D-M": ("VoV3D", {"size": "M"}),
    "VoV3D-M-2020": ("VoV3D", {"size": "M-2020"}),
}
MARGIN = 10.0  # points of top-1
_HEADS = {"hidden": 128, "outputs": 32, "momentum": 0.9}
PICTURES: dict[str, dict[str, Any]] = {
    "SCE": {**_HEADS, "queue": 960},
    "BYOL": _HEADS,
    "SCRL": _HEADS,
}


def photographs(root: Path, size: int = 72, train: int = 40, val: int = 10) -> Path:
    """A tree of square crops, `{train,val}/<photograph>/`, of photographs whose short side is 256 pixels."""
    from skimage import data

    rng = np.random.default_rng(0)
    for name in PHOTOGRAPHS:
        picture = Image.fromarray(getattr(data, name)()).convert("RGB")
        scale = 256 / min(picture.size)
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
        half = picture.width // 2
        for split, first, count in (("train", 0, train), ("val", half, val)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                left, top = first + rng.integers(half - size + 1), rng.integers(picture.height - size + 1)
                picture.crop((left, top, left + size, top + size)).save(folder / f"{number:03d}.jpg", quality=90)
    return root


def motions(root: Path, size: int = 48, frames: int = 4, train: int = 40, val: int = 25) -> Path:
    """A tree of frames, `{train,val}/<motion>/<clip>/`, in which a square crosses a texture."""
    rng, side = np.random.default_rng(0), size // 3
    for split, count in (("train", train), ("val", val)):
        for name, way in MOTIONS.items():
            for number in range(count):
                folder = root / split / name / f"{name}{number:03d}"
                folder.mkdir(parents=True)
                ground = rng.integers(0, 96, (size // 8, size // 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
                colour, across = rng.integers(160, 256, 3), rng.integers(size - side)
                for frame in range(frames):
                    along = round((size - side) * frame / (frames - 1))
                    along = along if sum(way) > 0 else size - side - along
                    top, left = (along, across) if way[0] else (across, along)
                    picture = ground.copy()
                    picture[top : top + side, left : left + side] = colour
                    Image.fromarray(picture).save(folder / f"{frame + 1:08d}.jpg", quality=90)
    return root


def train(out: Path, shards: Path, network: Network, method: str, arguments: dict, steps: int, **more: Any) -> Path:
    """Checkpoint of a run of `bassl-fast pretrain` or `train`, which are the same function."""
    kind, sizes = network
    recipe = {
        "data": {"shards": str(shards), "split": "train", "global_batch": more.pop("batch", 48)},
        "encoder": {"class_path": f"bassl_fast.encoders.{kind}", "init_args": sizes},
        "method": {"class_path": f"bassl_fast.methods.{method}", "init_args": arguments},
        "optimiser": {"name": "adamw", "lr_batch": 0, "weight_decay": 1e-4, "lr": 2e-3} | more.pop("optimiser", {}),
        "training": {"steps": steps, "validate_every": 0, "precision": "32-true"} | more.pop("training", {}),
        "out": str(out),
        **more,
    }
    return config.run(pretrain, recipe, "benchmarks.learning")


def curve(run: Path) -> list[float]:
    """Losses of a run, in order of its steps."""
    with open(run / "metrics.csv", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


def learn_pictures(
    root: Path, methods: list[str], steps: int, size: int = 64, linear_steps: int = 100
) -> dict[str, dict[str, Any]]:
    """Method -> `untrained` and `trained` top-1, and `loss` of pretraining."""
    shards = root / "pictures"
    pack(photographs(root / "photographs"), shards, quiet=True, reading=Reading("pictures"))

    def linear(encoder: Path, name: str) -> float:
        views = {"size": size, "area": [0.3, 1.0], "jitter": 0.0, "blur": 0.0}
        arguments = {"classes": len(PHOTOGRAPHS), "frozen": True, "views": views}
        rate = {"lr": 1e-2, "weight_decay": 0.0, "warmup": 0.0}
        start = str(encoder)
        more = {"optimiser": rate, "initial_encoder": start}
        made = train(root / name, shards, RESNET, "Supervised", arguments, linear_steps, **more)
        return classify(str(made), str(shards))["top1"]

    found: dict[str, dict[str, Any]] = {}
    views = {"size": size, "area": [0.3, 1.0], "brightness": 0.4, "contrast": 0.4, "hue": 0.1, "grayscale": 0.2}
    # The encoder is made first, so that all methods start from identical weights.
    before = train(root / "before", shards, RESNET, methods[0], PICTURES[methods[0]] | {"views": views}, 0)
    untrained = linear(before, "linear-before")
    for method in methods:
        after = train(root / method, shards, RESNET, method, PICTURES[method] | {"views": views}, steps)
        trained = linear(after, f"{method}-linear")
        found[method] = {"untrained": untrained, "trained": trained, "loss": curve(root / method)}
    return found


def learn_clips(root: Path, networks: list[str], steps: int, frames: int = 4) -> dict[str, dict[str, Any]]:
    """Network -> `untrained` and `trained` top-1, and `loss` of training with labels."""
    shards = root / "clips"
    pack(motions(root / "motions", frames=frames), shards, quiet=True, reading=Reading("clips"))
    views = {"size": 40, "area": [0.7, 1.0], "flip": 0.0, "jitter": 0.0, "blur": 0.0}
    arguments = {"classes": len(MOTIONS), "clips": {"frames": frames}, "views": views}
    found: dict[str, dict[str, Any]] = {}
    for name in networks:
        top1 = {}
        for state, count in (("untrained", 0), ("trained", steps)):
            # In such a short run the running statistics lag behind.
            kwargs = {"batch": 16, "training": {"precise_bn": 10}}
            made = train(root / f"{name}-{state}", shards, CLIPS[name], "Supervised", arguments, count, **kwargs)
            top1[state] = classify(str(made), str(shards))["top1"]
        found[name] = {**top1, "loss": curve(root / f"{name}-trained")}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=160, help="of training (%(default)s)")
    parser.add_argument("--methods", nargs="*", default=list(PICTURES), choices=PICTURES)
    parser.add_argument("--networks", nargs="*", default=list(CLIPS), choices=CLIPS)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    quieten()
    with tempfile.TemporaryDirectory() as folder:
        found = learn_pictures(Path(folder), args.methods, args.steps) if args.methods else {}
        found |= learn_clips(Path(folder), args.networks, args.steps) if args.networks else {}
    print(f"\n{'top-1 in percent':18s}{'untrained':>10s}{'trained':>10s}   loss")
    for name, row in found.items():
        losses = row["loss"]
        shown = " ".join(f"{losses[i]:.2f}" for i in np.linspace(0, len(losses) - 1, 6).astype(int))
        print(f"{name:18s}{row['untrained']:10.1f}{row['trained']:10.1f}   {shown}")
    if args.out:
        from benchmarks.machine import machine

        result = {"benchmark": "learning", "settings": {"steps": args.steps}, "machine": machine(), "top1": found}
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if dull := [name for name, row in found.items() if row["trained"] - row["untrained"] < MARGIN]:
        raise SystemExit(f"{', '.join(dull)}: gained less than {MARGIN:g} points")


if __name__ == "__main__":
    main()
