"""The verbs: what each does, and the function whose signature is its options."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """A job of the command line: the function whose signature is its options, and a worked example.

    `goes_on` is for those that, given again after a stop, keep what they had finished.
    """

    module: str
    function: str
    summary: str
    example: str
    positional: bool = True
    goes_on: bool = False
    out: str | None = None


VERBS = {
    "draw": Verb(
        "bassl_fast.cli.data",
        "draw",
        "draw films with known scenes, to try everything without a download",
        "bassl-fast draw films --films 12 --test 4",
    ),
    "download": Verb(
        "bassl_fast.cli.data",
        "download",
        "files from the web, resumed and checked",
        "bassl-fast download --config configs/download.yaml",
        positional=False,
        goes_on=True,
    ),
    "pack": Verb(
        "bassl_fast.cli.data",
        "pack",
        "films (key-frames, zip, tars, videos), pictures or clips -> shards",
        "bassl-fast pack data/movienet shards",
        goes_on=True,
    ),
    "verify": Verb(
        "bassl_fast.cli.data",
        "verify",
        "every byte of shards accounted for, and repair",
        "bassl-fast verify shards --decode all",
    ),
    "info": Verb("bassl_fast.cli.data", "info", "what is in shards", "bassl-fast info shards"),
    "info --model": Verb(
        "bassl_fast.cli.cost",
        "show",
        "what a network costs",
        "bassl-fast info --model VoV3D --model.size L --classes 400",
        positional=False,
    ),
    "pretrain": Verb(
        "bassl_fast.training.pretrain",
        "pretrain",
        "shards -> encoder and contextual relation network, without labels",
        "bassl-fast pretrain --config configs/pretrain/bassl.yaml --data.shards shards --out runs/bassl",
        positional=False,
    ),
    "train": Verb(
        "bassl_fast.training.pretrain",
        "pretrain",
        "labelled pictures or videos -> a classifier: from scratch, fine-tuned, or on a frozen encoder",
        "bassl-fast train --config configs/train/vov3d_kinetics.yaml --data.shards kinetics --out runs/vov3d",
        positional=False,
        out="runs/train",
    ),
    "classify": Verb(
        "bassl_fast.recognition.classify",
        "classify",
        "a classifier and labelled pictures or videos -> how often it is right",
        "bassl-fast classify runs/vov3d/last.ckpt kinetics --clips 10 --crops 3 --size 256 --short_side 256",
    ),
    "retrieve": Verb(
        "bassl_fast.recognition.retrieval",
        "retrieve",
        "an encoder and pictures or videos -> their features, and how often the nearest are of one class",
        "bassl-fast retrieve runs/sce_clips/last.ckpt ucf101 --clips 10 --crops 3 --size 256 --short_side 256",
    ),
    "plan": Verb(
        "bassl_fast.cli.plan",
        "plan",
        "what a run will need: disk, cache, network, memory, time, money",
        "bassl-fast plan --films 1100 --shots 1500 --gpus 8 --gpu h200 --price 4",
        positional=False,
    ),
    "import-checkpoint": Verb(
        "bassl_fast.checkpoints.exchange",
        "import_checkpoint",
        "released checkpoints of the reference, ImageNet weights -> a checkpoint of ours",
        "bassl-fast import-checkpoint bassl.tar.gz bassl.ckpt",
    ),
    "export-checkpoint": Verb(
        "bassl_fast.checkpoints.exchange",
        "export_checkpoint",
        "a checkpoint's weights as safetensors",
        "bassl-fast export-checkpoint runs/bassl/last.ckpt bassl.safetensors",
    ),
    "extract": Verb(
        "bassl_fast.segmentation.extract",
        "extract",
        "checkpoint and shards -> one feature a shot",
        "bassl-fast extract runs/bassl/last.ckpt shards features",
        goes_on=True,
    ),
    "import-features": Verb(
        "bassl_fast.segmentation.features",
        "import_features",
        "features in the reference's layout, a file a shot -> features for finetune",
        "bassl-fast import-features data/movienet/features/bassl data/movienet features",
    ),
    "finetune": Verb(
        "bassl_fast.segmentation.finetune",
        "finetune",
        "features and labels -> a model that finds scene boundaries",
        "bassl-fast finetune --config configs/finetune/bassl.yaml --data.features features "
        "--pretrained runs/bassl/last.ckpt --out runs/scenes",
        positional=False,
    ),
    "evaluate": Verb(
        "bassl_fast.segmentation.evaluate",
        "evaluate",
        "metrics and a report on held-out films",
        "bassl-fast evaluate runs/scenes/best.ckpt features",
    ),
    "scenes": Verb(
        "bassl_fast.scenes.command",
        "scenes",
        "films -> their scenes: report, CSV, EDL, OpenTimelineIO, chapters",
        "bassl-fast scenes film.mp4 --checkpoint runs/scenes/best.ckpt --out scenes",
        goes_on=True,
    ),
    "demo": Verb(
        "bassl_fast.cli.demo",
        "demo",
        "all of it on drawn films, or on your videos",
        "bassl-fast demo --out demo",
        positional=False,
    ),
}


def verb_of(argv: list[str]) -> str:
    """Name of the verb; one goes by its first option too."""
    both = " ".join([argv[0], *(word.partition("=")[0] for word in argv[1:2])])
    return both if both in VERBS else argv[0]
