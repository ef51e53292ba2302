"""`bassl-fast classify`: a classifier and labelled pictures or videos -> how often it is right.

A picture is judged by its test view, a video by K clips of one or three crops each: the mean of the probabilities of
all its views. While training, one view of each "val" picture or video.
"""

from __future__ import annotations

import json

import torch

from bassl_fast.checkpoints.build import build_pretrained, test_views
from bassl_fast.methods import Classifier, Method, Supervised
from bassl_fast.metrics.accuracy import TOP, hits
from bassl_fast.runtime import hardware
from bassl_fast.runtime.run_folder import RunFolder, folder_of
from bassl_fast.training.labels import labels_of
from pipelines.clip_sampling import Clips
from shard_tools.errors import CheckpointError, ConfigError, masked
from shard_tools.shards.format import CLIPS, PICTURES, npz_bytes
from shard_tools.shards.index import ShardIndex
from shard_tools.storage.atomic import write_atomically

from .inference import run, views_like


def clips_of(method: Method | None) -> Clips | None:
    """What clips a method looks at; None of one that looks at pictures, and where there is none."""
    return getattr(method, "clips", None)


@torch.inference_mode()
def classify(
    checkpoint: str,
    shards: str,
    out: str | None = None,
    split: str = "val",
    clips: int = 1,
    crops: int = 1,
    size: int | None = None,
    short_side: int | None = None,
    precision: hardware.Precision = "auto",
    batch: int = 32,
    threads: int = 0,
) -> dict[str, float]:
    """Judge labelled pictures or videos; write `predictions.npz` and `accuracy.json`; return top-1 and top-5.

    The published tests of videos take 10 clips x 3 crops of 256 pixels (Kinetics, UCF101, HMDB51), or 2 x 3
    (Something-Something): `--clips 10 --crops 3 --size 256 --short_side 256`.

    Args:
        checkpoint: of a classifier, that `bassl-fast train` or `import-checkpoint` wrote.
        shards: folder that `bassl-fast pack` wrote, of pictures or clips.
        out: folder or address for the results; `classify-<split>/` beside the checkpoint if left out.
        split: "train", "val" or "test".
        clips: of each video, spread over its length.
        crops: of each clip: 1, in the middle, or 3 along its long side.
        size: side of a crop in pixels; that of training if left out.
        short_side: of a picture before it is cut; 256 / 224 of the size if left out.
        precision: of the network; "auto" is bfloat16 where the hardware multiplies it, else float32.
        batch: clips or pictures at a time.
        threads: CPU threads of the data pipeline; 0 takes the cores there are.

    Raises:
        CheckpointError: no classifier.
        ConfigError: labels that it does not know, or clips of pictures.
    """
    encoder, method, _ = build_pretrained(checkpoint)
    if not isinstance(method, Supervised):
        raise CheckpointError(f"{checkpoint}: is no classifier; train one on it by `bassl-fast train`")
    if method.clips is None and clips > 1:
        raise ConfigError(f"clips {clips}: this classifier looks at pictures; leave it out")
    if clips < 1:
        raise ConfigError(f"clips {clips}: must be at least 1")
    index = ShardIndex.open(shards)
    if method.clips is not None and index.kind == PICTURES:
        raise ConfigError(f"{shards}: a set of pictures, and this classifier looks at clips")
    films = index.select(split)
    if method.clips is None and index.kind == CLIPS:
        print("note: this classifier looks at pictures, so one frame of each video is judged")
    labels = labels_of(index, films, method.classes)
    views = views_like(test_views(encoder, method), crops, size, short_side)
    hardware.say_device()
    probability = run(
        Classifier(encoder, method),
        index,
        films,
        views,
        method.clips,
        count=clips,
        precision=precision,
        batch=batch,
        threads=threads,
    )
    right = hits(probability, torch.from_numpy(labels)).tolist()
    found = {f"top{k}": 100 * count / len(films) for k, count in zip(TOP, right, strict=True)}
    folder = RunFolder(f"{folder_of(checkpoint)}/classify-{split}" if out is None else out)
    folder.path.mkdir(parents=True, exist_ok=True)
    arrays = {"name": index.sequences["name"][films], "label": labels, "probability": probability.numpy()}
    write_atomically(folder.path / "predictions.npz", npz_bytes(**arrays))
    facts = {"split": split, "number": len(films), "clips": clips, "crops": crops, "size": views.size, **found}
    write_atomically(folder.path / "accuracy.json", (json.dumps(facts, indent=1) + "\n").encode())
    folder.publish()
    print(f"{len(films)} of split {split}: " + ", ".join(f"top-{k} {found[f'top{k}']:.2f} %" for k in TOP))
    print(f"results: {masked(folder.where('predictions.npz'))}")
    return found
