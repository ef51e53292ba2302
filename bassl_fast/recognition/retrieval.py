"""`bassl-fast retrieve`: features of images or videos; how often is one of the nearest of the same class?"""

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
