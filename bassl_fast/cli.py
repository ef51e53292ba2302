"""Console command `bassl-fast`: one verb a job. A verb's module is imported only when it is called."""

from __future__ import annotations

import errno
import importlib
import json
import logging
import os
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

from shard_tools.errors import BasslFastError, LostProcess, masked


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
        "bassl_fast.tools",
        "draw",
        "draw films with known scenes, to try everything without a download",
        "bassl-fast draw films --films 12 --test 4",
    ),
    "download": Verb(
        "bassl_fast.tools",
        "download",
        "files from the web, resumed and checked",
        "bassl-fast download --config configs/download.yaml",
        positional=False,
        goes_on=True,
    ),
    "pack": Verb(
        "bassl_fast.tools",
        "pack",
        "films (key-frames, zip, tars, videos), pictures or clips -> shards",
        "bassl-fast pack data/movienet shards",
        goes_on=True,
    ),
    "verify": Verb(
        "bassl_fast.tools",
        "verify",
        "every byte of shards accounted for, and repair",
        "bassl-fast verify shards --decode all",
    ),
    "info": Verb("bassl_fast.tools", "info", "what is in shards", "bassl-fast info shards"),
    "info --model": Verb(
        "bassl_fast.count",
        "show",
        "what a network costs",
        "bassl-fast info --model VoV3D --model.size L --classes 400",
        positional=False,
    ),
    "pretrain": Verb(
        "bassl_fast.pretrain",
        "pretrain",
        "shards -> encoder and contextual relation network, without labels",
        "bassl-fast pretrain --config configs/pretrain/bassl.yaml --data.shards shards --out runs/bassl",
        positional=False,
    ),
    "train": Verb(
        "bassl_fast.pretrain",
        "pretrain",
        "labelled pictures or videos -> a classifier: from scratch, fine-tuned, or on a frozen encoder",
        "bassl-fast train --config configs/train/vov3d_kinetics.yaml --data.shards kinetics --out runs/vov3d",
        positional=False,
        out="runs/train",
    ),
    "classify": Verb(
        "bassl_fast.classify",
        "classify",
        "a classifier and labelled pictures or videos -> how often it is right",
        "bassl-fast classify runs/vov3d/last.ckpt kinetics --clips 10 --crops 3 --size 256 --short_side 256",
    ),
    "retrieve": Verb(
        "bassl_fast.retrieval",
        "retrieve",
        "an encoder and pictures or videos -> their features, and how often the nearest are of one class",
        "bassl-fast retrieve runs/sce_clips/last.ckpt ucf101 --clips 10 --crops 3 --size 256 --short_side 256",
    ),
    "plan": Verb(
        "bassl_fast.planning",
        "plan",
        "what a run will need: disk, cache, network, memory, time, money",
        "bassl-fast plan --films 1100 --shots 1500 --gpus 8 --gpu h200 --price 4",
        positional=False,
    ),
    "import-checkpoint": Verb(
        "bassl_fast.exchange",
        "import_checkpoint",
        "released checkpoints of the reference, ImageNet weights -> a checkpoint of ours",
        "bassl-fast import-checkpoint bassl.tar.gz bassl.ckpt",
    ),
    "export-checkpoint": Verb(
        "bassl_fast.exchange",
        "export_checkpoint",
        "a checkpoint's weights as safetensors",
        "bassl-fast export-checkpoint runs/bassl/last.ckpt bassl.safetensors",
    ),
    "extract": Verb(
        "bassl_fast.extract",
        "extract",
        "checkpoint and shards -> one feature a shot",
        "bassl-fast extract runs/bassl/last.ckpt shards features",
        goes_on=True,
    ),
    "import-features": Verb(
        "bassl_fast.features",
        "import_features",
        "features in the reference's layout, a file a shot -> features for finetune",
        "bassl-fast import-features data/movienet/features/bassl data/movienet features",
    ),
    "finetune": Verb(
        "bassl_fast.finetune",
        "finetune",
        "features and labels -> a model that finds scene boundaries",
        "bassl-fast finetune --config configs/finetune/bassl.yaml --data.features features "
        "--pretrained runs/bassl/last.ckpt --out runs/scenes",
        positional=False,
    ),
    "evaluate": Verb(
        "bassl_fast.evaluate",
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
        "bassl_fast.demo",
        "demo",
        "all of it on drawn films, or on your videos",
        "bassl-fast demo --out demo",
        positional=False,
    ),
}


_NOT_YOURS = "; choose a folder you may write to"
_FIXES = {
    errno.ENOSPC: "; make room or choose another disk, and run it again",
    errno.EDQUOT: "; make room or choose another disk, and run it again",
    errno.EACCES: _NOT_YOURS,
    errno.EPERM: _NOT_YOURS,
    errno.EROFS: _NOT_YOURS,
    errno.ENOTDIR: "; a file stands where a folder should be, choose another",
    errno.EEXIST: "; a file stands where a folder should be, choose another",
}


def usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:{width}s}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        ["usage: bassl-fast VERB ...", "", *lines, "", "`bassl-fast VERB --help` tells more; --debug shows tracebacks"]
    )


def verb_of(argv: list[str]) -> str:
    """Name of the verb; one goes by its first option too."""
    both = " ".join([argv[0], *(word.partition("=")[0] for word in argv[1:2])])
    return both if both in VERBS else argv[0]


def run(argv: list[str]) -> None:
    """Run one verb.

    Raises:
        BasslFastError: whatever is the user's to mend.
    """
    from . import config

    name, rest = verb_of(argv), argv[1:]
    if name not in VERBS:
        raise config.ConfigError(f"no verb '{name}'{config.nearest(name, VERBS)}")
    verb = VERBS[name]
    function = getattr(importlib.import_module(verb.module), verb.function)
    quieten()
    parser = config.make_parser(
        function,
        verb.positional,
        prog=f"bassl-fast {name}",
        description=f"{verb.summary}.\n\nexample:\n  {verb.example}",
    )
    if verb.out is not None:
        parser.set_defaults(out=verb.out)
    if {"-h", "--help"} & set(rest):
        rest = ["--help"]  # wherever it stands, it is no value of another option
    config.call(function, parser, config.parse(parser, rest))


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch's warnings to developers; it looks when imported
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    try:
        run(argv)
    except BasslFastError as error:
        if debug:
            sys.stderr.write(masked(traceback.format_exc()))
        return _fail(str(error), first=not isinstance(error, LostProcess))
    except KeyboardInterrupt:
        hint = "; the same command goes on where it stopped" if VERBS[verb_of(argv)].goes_on else ""
        print(f"bassl-fast: interrupted{hint}", file=sys.stderr)
        return 130
    except OSError as error:
        # A full disk or a missing permission: the system's own words, and the file.
        where = f"{error.filename}: " if error.filename else ""
        if debug:
            sys.stderr.write(masked(traceback.format_exc()))
        return _fail(masked(f"{where}{error.strerror or error}{_FIXES.get(error.errno, '')}"))
    except Exception:  # a defect of ours; its traceback may quote an address
        print(masked(traceback.format_exc()), file=sys.stderr)
        return 1
    return 0


def _fail(reason: str, first: bool = True) -> int:
    """Say why the verb failed, and return its exit code; torchrun's last words are the reason of who failed `first`."""
    sys.stderr.write(f"bassl-fast: {reason}\n")  # at once: other processes write there too
    if first and (path := os.environ.get("TORCHELASTIC_ERROR_FILE")):
        Path(path).write_text(json.dumps({"message": reason, "timestamp": int(time.time())}), encoding="utf-8")
    return 1


def quieten() -> None:
    """Keep the libraries' advice to developers off the user's terminal; after their import, which turns it on."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=name)
    warnings.filterwarnings("ignore", module="jsonargparse")


if __name__ == "__main__":
    sys.exit(main())
