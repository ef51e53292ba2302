"""The accuracy of a classifier on labelled images or videos.

An image is classified by its test view, a video by K clips of one or three crops each: the mean of the probabilities
of all its views.
"""

from __future__ import annotations

import torch

from bassl_fast.checkpoints.model import load_model
from bassl_fast.config.choices import Precision
from bassl_fast.methods import Classifier, Supervised
from bassl_fast.metrics.accuracy import TOP, hits
from bassl_fast.runtime import hardware
from bassl_fast.runtime.run_folder import RunFolder, folder_of
from bassl_fast.training.labels import labels_of
from shard_tools.errors import CheckpointError, ConfigError, masked
from shard_tools.shards.format import CLIPS, PICTURES
from shard_tools.shards.index import ShardIndex

from .testing import Testing, views_like, write_arrays, write_scores


@torch.inference_mode()
def classify_samples(
    checkpoint: str,
    shards: str,
    out: str | None,
    split: str,
    clips: int,
    crops: int,
    size: int | None,
    short_side: int | None,
    precision: Precision,
    batch: int,
    threads: int,
) -> dict[str, float]:
    """See `classify`."""
    model = load_model(checkpoint)
    method = model.method
    if not isinstance(method, Supervised):
        raise CheckpointError(f"{checkpoint}: holds no classifier; train one with `bassl-fast train`")
    if method.clips is None and clips > 1:
        raise ConfigError(f"clips {clips}: this classifier takes images; leave it out")
    if clips < 1:
        raise ConfigError(f"clips {clips}: must be at least 1")
    index = ShardIndex.open(shards)
    if method.clips is not None and index.kind == PICTURES:
        raise ConfigError(f"{shards}: a set of images, and this classifier takes clips")
    samples = index.select(split)
    if method.clips is None and index.kind == CLIPS:
        print("note: this classifier takes images, so it sees one frame of each video")
    labels = labels_of(index, samples, method.classes)
    views = views_like(model.views, crops, size, short_side)
    hardware.say_device()
    testing = Testing(views, method.clips, clips, precision, batch, threads)
    probability = testing.outputs(Classifier(model.encoder, method), index, samples)
    correct = hits(probability, torch.from_numpy(labels)).tolist()
    found = {f"top{k}": 100 * count / len(samples) for k, count in zip(TOP, correct, strict=True)}
    folder = RunFolder(f"{folder_of(checkpoint)}/classify-{split}" if out is None else out)
    arrays = {"name": index.sequences["name"][samples], "label": labels, "probability": probability.numpy()}
    write_arrays(folder, "predictions.npz", arrays)
    facts = {"split": split, "number": len(samples), "clips": clips, "crops": crops, "size": views.size, **found}
    write_scores(folder, "accuracy.json", facts)
    folder.publish()
    print(f"{len(samples)} of split {split}: " + ", ".join(f"top-{k} {found[f'top{k}']:.2f} %" for k in TOP))
    print(f"results: {masked(folder.where('predictions.npz'))}")
    return found
