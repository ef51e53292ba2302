"""`bassl-fast classify`: a classifier and labelled images or videos -> its accuracy."""

from __future__ import annotations

from bassl_fast.config.choices import Precision


def classify(
    checkpoint: str,
    shards: str,
    out: str | None = None,
    split: str = "val",
    clips: int = 1,
    crops: int = 1,
    size: int | None = None,
    short_side: int | None = None,
    precision: Precision = "auto",
    batch: int = 32,
    threads: int = 0,
) -> dict[str, float]:
    """Classify labelled images or videos; write `predictions.npz` and `accuracy.json`; return top-1 and top-5.

    The published tests of videos use 10 clips x 3 crops of 256 pixels (Kinetics, UCF101, HMDB51), or 2 x 3
    (Something-Something): `--clips 10 --crops 3 --size 256 --short_side 256`.

    Args:
        checkpoint: of a classifier, written by `bassl-fast train` or `import-checkpoint`.
        shards: folder of images or clips, written by `bassl-fast pack`.
        out: folder or address for the results; `classify-<split>/` beside the checkpoint if left out.
        split: "train", "val" or "test".
        clips: clips of each video, spread over its length.
        crops: crops of each clip: 1 in the center, or 3 along its long side.
        size: side of a crop in pixels; as in training if left out.
        short_side: of an image before it is cropped; 256 / 224 of the size if left out.
        precision: of the network; "auto" is bfloat16 if the hardware supports it, else float32.
        batch: clips or images at a time.
        threads: CPU threads of the data pipeline; 0 uses all cores.

    Raises:
        CheckpointError: it holds no classifier.
        ConfigError: other classes than the shards have, or clips of a classifier of images.
    """
    from .classification import classify_samples  # here, so that `--help` does not wait for torch

    options = (clips, crops, size, short_side, precision, batch, threads)
    return classify_samples(checkpoint, shards, out, split, *options)
