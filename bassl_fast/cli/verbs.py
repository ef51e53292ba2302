"""The verbs of the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """A verb: the function whose signature is its options, a summary and a worked example.

    `positional`: required arguments have no `--`. `resumes`: the same command keeps what an interrupted one finished.
    """

    module: str
    function: str
    summary: str
    example: str
    positional: bool = True
    resumes: bool = False


VERBS = {
    "draw": Verb(
        "bassl_fast.cli.data",
        "draw",
        "draw synthetic films with known scenes, to try everything without a download",
        "bassl-fast draw films --films 12 --test 4",
    ),
    "download": Verb(
        "bassl_fast.cli.data",
        "download",
        "download files from the web, with resuming and checksums",
        "bassl-fast download --files '[{url: https://example.org/anno.test.ndjson, name: anno/anno.test.ndjson}]'",
        positional=False,
        resumes=True,
    ),
    "pack": Verb(
        "bassl_fast.cli.data",
        "pack",
        "films (key-frames, zip, tars, videos), images or clips -> shards",
        "bassl-fast pack data/movienet shards",
        resumes=True,
    ),
    "verify": Verb(
        "bassl_fast.cli.data",
        "verify",
        "check every byte of shards, and repair them",
        "bassl-fast verify shards --decode all",
    ),
    "info": Verb("bassl_fast.cli.data", "info", "show what is in shards", "bassl-fast info shards"),
    "cache": Verb(
        "bassl_fast.cli.cache",
        "cache",
        "show, check or empty the cache of what was fetched from addresses",
        "bassl-fast cache info",
    ),
    "info --model": Verb(
        "bassl_fast.cli.cost",
        "cost",
        "parameters and multiply-accumulates of a network",
        "bassl-fast info --model VoV3D --model.size L --classes 400",
        positional=False,
    ),
    "pretrain": Verb(
        "bassl_fast.training.pretrain",
        "pretrain",
        "shards -> an encoder, trained without labels",
        "bassl-fast pretrain --config configs/pretrain/bassl.yaml --data.shards shards --out runs/bassl",
        positional=False,
    ),
    "train": Verb(
        "bassl_fast.training.pretrain",
        "train",
        "labelled images or videos -> a classifier: from scratch, fine-tuned, or on a frozen encoder",
        "bassl-fast train --config configs/train/vov3d_kinetics.yaml --data.shards kinetics --out runs/vov3d",
        positional=False,
    ),
    "classify": Verb(
        "bassl_fast.recognition.classify",
        "classify",
        "a classifier and labelled images or videos -> top-1 and top-5 accuracy",
        "bassl-fast classify runs/vov3d/last.ckpt kinetics --clips 10 --crops 3 --size 256 --short_side 256",
    ),
    "retrieve": Verb(
        "bassl_fast.recognition.retrieve",
        "retrieve",
        "an encoder and images or videos -> features, and the recall of classes among nearest neighbours",
        "bassl-fast retrieve runs/sce_clips/last.ckpt ucf101 --clips 10 --crops 3 --size 256 --short_side 256",
    ),
    "plan": Verb(
        "bassl_fast.cli.plan",
        "plan",
        "what a run needs: disk, cache, network, memory, time, money",
        "bassl-fast plan --films 1100 --shots 1500 --gpus 8 --gpu h200 --price 4",
        positional=False,
    ),
    "import-checkpoint": Verb(
        "bassl_fast.checkpoints.exchange",
        "import_checkpoint",
        "released checkpoints or ImageNet weights -> a checkpoint of bassl-fast",
        "bassl-fast import-checkpoint bassl.tar.gz bassl.ckpt",
    ),
    "export-checkpoint": Verb(
        "bassl_fast.checkpoints.exchange",
        "export_checkpoint",
        "a checkpoint -> its weights as safetensors, or its network as ONNX",
        "bassl-fast export-checkpoint runs/bassl/last.ckpt bassl.safetensors",
    ),
    "extract": Verb(
        "bassl_fast.segmentation.extract",
        "extract",
        "a checkpoint and shards -> one feature per shot",
        "bassl-fast extract runs/bassl/last.ckpt shards features",
        resumes=True,
    ),
    "import-features": Verb(
        "bassl_fast.segmentation.import_features",
        "import_features",
        "features in the reference's layout (one file per shot) -> features for finetune",
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
        "a fine-tuned model and features -> metrics and a report on held-out films",
        "bassl-fast evaluate runs/scenes/best.ckpt features",
    ),
    "scenes": Verb(
        "bassl_fast.scenes.command",
        "scenes",
        "films -> their scenes: report, CSV, EDL, OpenTimelineIO, chapters",
        "bassl-fast scenes film.mp4 --out scenes",
        resumes=True,
    ),
    "demo": Verb(
        "bassl_fast.cli.demo",
        "demo",
        "everything from films to a report, on synthetic films or your videos",
        "bassl-fast demo --out demo",
        positional=False,
    ),
}


def verb_of(argv: list[str]) -> str:
    """Name of the verb in `argv`; `info --model`, also as `info --model.help`, is a verb of its own."""
    both = " ".join([argv[0], *(re.split("[=.]", word)[0] for word in argv[1:2])])
    return both if both in VERBS else argv[0]
