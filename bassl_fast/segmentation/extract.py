"""`bassl-fast extract`: a checkpoint and shards -> one feature per shot, cached for fine-tuning."""

from __future__ import annotations

from typing import Literal

from bassl_fast.config.choices import Engine, Precision

from .options import Layout


def extract(
    pretrained: str,
    shards: str,
    features: str,
    split: str | None = None,
    layout: Layout = "film",
    dtype: Literal["float16", "float32"] = "float32",
    precision: Precision = "auto",
    batch: int = 64,
    threads: int = 0,
    engine: Engine = "local",
    address: str | None = None,
    subtitles: str | None = None,
) -> str:
    """Encode the test views of every shot's key-frames and write one array per film.

    The feature of a shot is the mean over its key-frames; a clip encoder takes them as one clip. `extract colours`
    takes no checkpoint: a feature is the hues and a small grey image of each key-frame, for the similarity head.

    Run again, it keeps the films that are whole and makes only the others.
    `torchrun --nproc-per-node N -m bassl_fast.cli extract ...` uses N GPUs, or N processes on the CPU.

    Args:
        pretrained: checkpoint that `bassl-fast pretrain` or `import-checkpoint` wrote, path or address;
            "efficientnet-lite0", the encoder of that package with its ImageNet weights; "hf:FOLDER", a vision model
            of transformers or timm, or "hf:NAME" in the hub's cache; or "colours".
        shards: folder or address that `bassl-fast pack` wrote to.
        features: folder or address (s3://, gs://) for the features.
        split: "train", "val" or "test" films only; all films if left out.
        layout: "film" is one array per film, for `finetune`; "reference" is one file per shot, <film>/shot_0000.npy,
            for the reference implementation (`import-features` converts it back).
        dtype: of the features on disk.
        precision: of the encoder; "auto" is bfloat16 if the hardware supports it, else float32.
        batch: key-frames per batch.
        threads: CPU threads of the data pipeline; 0 uses this process's share of the cores.
        engine: "ray" encodes the films on the nodes of a cluster, on their GPUs if they have any.
        address: of the Ray cluster; if left out, one is started on this machine.
        subtitles: folder with subtitles of the films, as for `bassl-fast pack`: the features then have times of speech.
            Given for a finished folder, these are added without encoding again. Left out, those in the folder stay.

    Raises:
        CheckpointError, ShardError: either cannot be used.
        FeatureError: the folder holds features of another checkpoint, other shards or another transform.
        SourceError: subtitles of none of the films, or a file that cannot be read.
        EngineError: the cluster cannot be reached, or nodes kept failing on a film.
    """
    from .encoding import encode_films  # here, so that `--help` does not wait for torch

    options = (split, layout, dtype, precision, batch, threads, engine, address, subtitles)
    return encode_films(pretrained, shards, features, *options)
