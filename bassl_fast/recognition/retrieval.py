"""Features of images or videos, and the recall of their classes among the nearest neighbours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bassl_fast.checkpoints.model import load_model
from bassl_fast.config.choices import Precision
from bassl_fast.encoders import ClipEncoder, Encoder
from bassl_fast.metrics.retrieval import KS, recall
from bassl_fast.runtime import hardware
from bassl_fast.runtime.run_folder import RunFolder, folder_of
from bassl_fast.training.labels import labels_of
from pipelines.clip_sampling import Clips
from shard_tools.errors import ConfigError, masked
from shard_tools.shards.format import CLIPS, FILMS
from shard_tools.shards.index import ShardIndex

from .testing import Testing, views_like, write_arrays, write_scores


@torch.inference_mode()
def retrieve_samples(
    checkpoint: str,
    shards: str,
    out: str | None,
    query: str,
    bank: str | None,
    clip_sampling: Clips | None,
    clips: int,
    crops: int,
    size: int | None,
    short_side: int | None,
    precision: Precision,
    batch: int,
    threads: int,
) -> dict[str, float]:
    """See `retrieve`."""
    model = load_model(checkpoint)
    index = ShardIndex.open(shards)
    if index.kind == FILMS:
        raise ConfigError(f"{shards}: a set of films; `bassl-fast extract` makes features of their shots")
    if query == bank:
        raise ConfigError(f"bank {bank}: is the query too, so the nearest is itself; choose another split, or null")
    sampling = clip_sampling or (model.method.clips if model.method else None)
    _check_sampling(checkpoint, model.encoder, index, sampling, clips)
    views = views_like(model.views, crops, size, short_side)
    testing = Testing(views, sampling, clips, precision, batch, threads)
    splits = dict.fromkeys([query, *([] if bank is None else [bank])])
    for split in splits if bank is not None else ():
        labels_of(index, index.select(split))
    hardware.say_device()
    folder = RunFolder(f"{folder_of(checkpoint)}/retrieve" if out is None else out)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for split in splits:
        samples = index.select(split)
        features = testing.outputs(model.encoder, index, samples)
        rows = index.sequences[samples]
        arrays = {"name": rows["name"], "label": rows["label"], "feature": features.numpy()}
        write_arrays(folder, f"features-{split}.npz", arrays)
        found[split] = features, torch.from_numpy(rows["label"].astype(np.int64))
    rates: dict[str, float] = {}
    if bank is not None:
        ks = tuple(k for k in KS if k <= len(found[bank][0]))
        rates = {f"R@{k}": rate for k, rate in recall(*found[query], *found[bank], ks).items()}
        write_scores(folder, "recall.json", rates)
    folder.publish()
    print(", ".join(f"{name} {rate:.2f} %" for name, rate in rates.items()) or f"features of split {query}")
    print(f"results: {masked(folder.where(f'features-{query}.npz'))}")
    return rates


def _check_sampling(path: str, encoder: Encoder, index: ShardIndex, sampling: Clips | None, clips: int) -> None:
    """Raises: ConfigError where encoder, shards and clip sampling do not go together."""
    if sampling is None and index.kind == CLIPS and isinstance(encoder, ClipEncoder):
        raise ConfigError(
            f"{path}: does not say which frames make a clip; give --clip_sampling '{{frames: 8, seconds: 2.56}}'"
        )
    if sampling is None and clips > 1:
        raise ConfigError(f"clips {clips}: this encoder takes images; leave it out")
    if sampling is not None and not isinstance(encoder, ClipEncoder):
        raise ConfigError(f"clip_sampling: {type(encoder).__name__} takes images; leave it out")
