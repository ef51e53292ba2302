"""`bassl-fast retrieve`: features of images or videos; how often is one of the nearest of the same class?"""

from __future__ import annotations

from bassl_fast.config.choices import Precision
from pipelines.clip_sampling import Clips


def retrieve(
    checkpoint: str,
    shards: str,
    out: str | None = None,
    query: str = "test",
    bank: str | None = "train",
    clip_sampling: Clips | None = None,
    clips: int = 1,
    crops: int = 1,
    size: int | None = None,
    short_side: int | None = None,
    precision: Precision = "auto",
    batch: int = 32,
    threads: int = 0,
) -> dict[str, float]:
    """Write the features of images or videos, and the recall of their classes among the nearest of a bank, in percent.

    `features-<split>.npz` holds `name`, `label` and `feature` `[N, D]`, the mean over the views of each; `recall.json`
    holds what is returned.

    Args:
        checkpoint: of an encoder, written by `bassl-fast pretrain`, `train` or `import-checkpoint`.
        shards: folder of images or clips, written by `bassl-fast pack`.
        out: folder or address for the results; `retrieve/` beside the checkpoint if left out.
        query: split whose images or videos are searched for.
        bank: split that they are searched in; null only writes the features of `query`.
        clip_sampling: which frames make a clip, such as --clip_sampling '{frames: 8, seconds: 2.56}'; as in the
            checkpoint if left out.
        clips: clips of each video, spread over its length.
        crops: crops of each clip: 1 in the center, or 3 along its long side.
        size: side of a crop in pixels; as in training if left out.
        short_side: of an image before it is cropped; 256 / 224 of the size if left out.
        precision: of the encoder; "auto" is bfloat16 if the hardware supports it, else float32.
        batch: clips or images at a time.
        threads: CPU threads of the data pipeline; 0 uses all cores.

    Raises:
        ConfigError: films, clips of an encoder of images, no clip sampling, or a bank that is the query.
    """
    from .retrieval import retrieve_samples  # here, so that `--help` does not wait for torch

    options = (clip_sampling, clips, crops, size, short_side, precision, batch, threads)
    return retrieve_samples(checkpoint, shards, out, query, bank, *options)
