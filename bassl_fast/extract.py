"""`bassl-fast extract`: a checkpoint and shards -> one feature a shot, cached for fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from pipelines.loader import FilmLoader
from pipelines.views import TestViews
from shard_tools.errors import FeatureError
from shard_tools.format import MANIFEST, SEQUENCES, SHOTS, ShardIndex, npy_bytes, write_atomically

from . import checkpoint, hardware
from .features import PROVENANCE
from .models import build_pretrained

_STARTED = PROVENANCE + ".part"


@torch.inference_mode()
def extract(
    pretrained: str,
    shards: str,
    features: str,
    split: str | None = None,
    dtype: Literal["float16", "float32"] = "float32",
    batch: int = 64,
    threads: int = 0,
) -> Path:
    """Encode every key-frame's test view, average each shot's, and write one array a film.

    Finished films are kept when the command is given again after a stop.

    Args:
        pretrained: checkpoint that `bassl-fast pretrain` wrote.
        shards: folder that `bassl-fast pack` wrote.
        features: folder for the features.
        split: "train", "val" or "test" films only; all films if left out.
        dtype: of the features on disk.
        batch: key-frames at a time.
        threads: CPU threads of the data pipeline; 0 takes this process's share of the cores.

    Raises:
        CheckpointError, ShardError: either cannot be used.
        FeatureError: the folder holds features of another checkpoint, other shards or another transform.
    """
    encoder, method, _ = build_pretrained(pretrained)
    index = ShardIndex.open(shards)
    chosen = index.select(split)
    size = method.views.size
    views = TestViews(round(size * 256 / 224), size)
    out = Path(features)
    provenance = {
        "dim": encoder.dim,
        "dtype": dtype,
        "checkpoint": str(Path(pretrained).resolve()),
        "checkpoint_sha256": checkpoint.sha256(pretrained),
        "shards": index.address if index.cache else str(index.root.resolve()),
        "manifest_sha256": checkpoint.sha256(index.root / MANIFEST),
        "transform": {"short_side": views.short_side, "size": views.size, "split": split},
    }
    for name in {Path(array).stem for array in (SEQUENCES, SHOTS)} & set(index.films):
        raise FeatureError(
            f"{shards}: a film called {name} would take the place of {name}.npy; rename it and pack again"
        )
    _claim(out, provenance)
    hardware.say_device()

    device = hardware.device()
    encoder = encoder.eval().to(device, memory_format=torch.channels_last)
    rows = index.sequences[chosen]
    todo = [film for film, row in zip(chosen.tolist(), rows, strict=True) if not _array(out, row).is_file()]
    loader = FilmLoader(
        index, np.array(todo, np.int64), views, batch=batch, device=device, threads=hardware.threads(threads)
    )
    with tqdm(total=int(rows["shots"].sum()), desc="extract", unit="shot", disable=None) as bar:
        bar.update(int(rows["shots"].sum() - index.sequences[todo]["shots"].sum()) if todo else bar.total)
        found: list[torch.Tensor] = []
        for film, first, images in loader:
            row = index.sequences[film]
            found.append(_encode(encoder, images))
            if first + len(images) == int(row["shots"]) * int(row["frames_per_shot"]):
                shots = torch.cat(found).unflatten(0, (int(row["shots"]), int(row["frames_per_shot"]))).mean(1)
                write_atomically(_array(out, row), npy_bytes(shots.numpy().astype(dtype)))
                found = []
                bar.update(int(row["shots"]))

    sequences = rows.copy()
    sequences["first_shot"] = np.cumsum(rows["shots"]) - rows["shots"]
    labels = np.concatenate([index.shots_of(film) for film in chosen.tolist()])
    write_atomically(out / SEQUENCES, npy_bytes(sequences))
    write_atomically(out / SHOTS, npy_bytes(labels))
    write_atomically(out / PROVENANCE, (json.dumps(provenance, indent=1) + "\n").encode())
    (out / _STARTED).unlink(missing_ok=True)
    print(f"features: {out} ({len(rows)} films, {int(rows['shots'].sum())} shots)", flush=True)
    return out


def _encode(encoder: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    pictures = images.contiguous(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if hardware.precision("auto") == "bf16-mixed" else torch.float32
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        return encoder(pictures).float().cpu()


def _array(out: Path, row: np.ndarray) -> Path:
    return out / f"{row['name'].decode()}.npy"


def _claim(out: Path, provenance: dict[str, Any]) -> None:
    """Take the folder for these features, or refuse it if others stand in it."""
    notes = [out / name for name in (PROVENANCE, _STARTED) if (out / name).is_file()]
    if not notes and any(out.glob("*.npy")):
        raise FeatureError(f"{out}: holds arrays, and nothing says of which checkpoint; choose another folder")
    for path in notes:
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FeatureError(f"{path}: damaged ({error}); delete the folder and extract again") from None
        differing = [
            key
            for key in provenance
            if earlier.get(key) != provenance[key] and key.endswith(("256", "dtype", "transform"))
        ]
        if differing:
            raise FeatureError(f"{out}: holds features of another {differing[0]}; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / _STARTED, (json.dumps(provenance) + "\n").encode())
