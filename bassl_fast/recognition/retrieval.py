"""`bassl-fast retrieve`: features of pictures or videos; is one of the nearest in a bank of the same class?"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bassl_fast.checkpoints.build import build_pretrained, test_views
from bassl_fast.encoders import ClipEncoder
from bassl_fast.metrics.retrieval import KS, recall
from bassl_fast.runtime import hardware
from bassl_fast.runtime.run_folder import RunFolder, folder_of
from bassl_fast.training.labels import labels_of
from pipelines.clip_sampling import Clips
from shard_tools.errors import ConfigError, masked
from shard_tools.shards.format import CLIPS, FILMS, npz_bytes
from shard_tools.shards.index import ShardIndex
from shard_tools.storage.atomic import write_atomically

from .classify import clips_of
from .inference import run, views_like


@torch.inference_mode()
def retrieve(
    checkpoint: str,
    shards: str,
    out: str | None = None,
    query: str = "test",
    bank: str | None = "train",
    law: Clips | None = None,
    clips: int = 1,
    crops: int = 1,
    size: int | None = None,
    short_side: int | None = None,
    precision: hardware.Precision = "auto",
    batch: int = 32,
    threads: int = 0,
) -> dict[str, float]:
    """Write the features of pictures or videos and how often the nearest of a bank are of their class, in percent.

    `features-<split>.npz` holds `name`, `label` and `feature` `[N, D]`, the mean over the views of each; `recall.json`
    what is returned.

    Args:
        checkpoint: whose encoder is judged, that `bassl-fast pretrain`, `train` or `import-checkpoint` wrote.
        shards: folder that `bassl-fast pack` wrote, of pictures or clips.
        out: folder or address for the results; `retrieve/` beside the checkpoint if left out.
        query: split whose pictures or videos are looked for.
        bank: split that they are looked for in; null writes the features of `query` alone.
        law: frames of a clip, such as --law '{frames: 8, seconds: 2.56}'; those of the checkpoint's method if left out.
        clips: of each video, spread over its length.
        crops: of each clip: 1, in the middle, or 3 along its long side.
        size: side of a crop in pixels; that of training if left out.
        short_side: of a picture before it is cut; 256 / 224 of the size if left out.
        precision: of the encoder; "auto" is bfloat16 where the hardware multiplies it, else float32.
        batch: clips or pictures at a time.
        threads: CPU threads of the data pipeline; 0 takes the cores there are.

    Raises:
        ConfigError: films, clips of an encoder of pictures, no law of clips, or a bank that is the query.
    """
    encoder, method, _ = build_pretrained(checkpoint)
    index = ShardIndex.open(shards)
    if index.kind == FILMS:
        raise ConfigError(f"{shards}: a set of films; features of their shots are made by `bassl-fast extract`")
    if query == bank:
        raise ConfigError(
            f"bank {bank}: is what is looked for, so the nearest is itself; choose another split, or null"
        )
    law = law or clips_of(method)
    if law is None and index.kind == CLIPS and isinstance(encoder, ClipEncoder):
        raise ConfigError(
            f"{checkpoint}: does not say what a clip is; give --law '{{frames: 8, seconds: 2.56}}' or such"
        )
    if law is None and clips > 1:
        raise ConfigError(f"clips {clips}: this encoder looks at pictures; leave it out")
    if law is not None and not isinstance(encoder, ClipEncoder):
        raise ConfigError(f"law: {type(encoder).__name__} looks at pictures; leave it out")
    views = views_like(test_views(encoder, method), crops, size, short_side)
    splits = dict.fromkeys([query, *([] if bank is None else [bank])])
    for split in splits if bank is not None else ():
        labels_of(index, index.select(split))
    hardware.say_device()
    folder = RunFolder(f"{folder_of(checkpoint)}/retrieve" if out is None else out)
    folder.path.mkdir(parents=True, exist_ok=True)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for split in splits:
        films = index.select(split)
        kwargs: dict[str, Any] = {"count": clips, "precision": precision, "batch": batch, "threads": threads}
        features = run(encoder, index, films, views, law, **kwargs)
        rows = index.sequences[films]
        arrays = {"name": rows["name"], "label": rows["label"], "feature": features.numpy()}
        write_atomically(folder.path / f"features-{split}.npz", npz_bytes(**arrays))
        found[split] = features, torch.from_numpy(rows["label"].astype(np.int64))
    rates: dict[str, float] = {}
    if bank is not None:
        ks = tuple(k for k in KS if k <= len(found[bank][0]))
        rates = {f"R@{k}": rate for k, rate in recall(*found[query], *found[bank], ks).items()}
        write_atomically(folder.path / "recall.json", (json.dumps(rates, indent=1) + "\n").encode())
    folder.publish()
    print(", ".join(f"{name} {rate:.2f} %" for name, rate in rates.items()) or f"features of split {query}")
    print(f"results: {masked(folder.where(f'features-{query}.npz'))}")
    return rates
