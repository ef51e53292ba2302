"""`bassl-fast extract`: a checkpoint and shards -> one feature a shot, cached for fine-tuning.

Under torchrun the films are divided among the processes: each writes its own, and process 0 the index when all are
done.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from pipelines.loader import FilmLoader
from pipelines.views import TestViews, TrainViews
from shard_tools.errors import ConfigError, FeatureError
from shard_tools.format import MANIFEST, SEQUENCES, SHOTS, ShardIndex, npy_bytes, write_atomically

from . import checkpoint, hardware
from .features import PROVENANCE, STARTED, shot_name, write_index
from .models import build_pretrained

Layout = Literal["film", "reference"]
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": None}


@torch.inference_mode()
def extract(
    pretrained: str,
    shards: str,
    features: str,
    split: str | None = None,
    layout: Layout = "film",
    dtype: Literal["float16", "float32"] = "float32",
    precision: hardware.Precision = "auto",
    batch: int = 64,
    threads: int = 0,
) -> Path:
    """Encode every key-frame's test view, average each shot's, and write one array a film.

    Finished films are kept when the command is given again after a stop. `torchrun --nproc-per-node N -m bassl_fast.cli
    extract ...` takes N GPUs, or N processes on the CPU.

    Args:
        pretrained: checkpoint that `bassl-fast pretrain` or `import-checkpoint` wrote.
        shards: folder that `bassl-fast pack` wrote.
        features: folder for the features.
        split: "train", "val" or "test" films only; all films if left out.
        layout: "film" is one array a film, for `finetune`; "reference" is <film>/shot_0000.npy, a file a shot, for the
            reference's own code (`import-features` turns it into the other).
        dtype: of the features on disk.
        precision: of the encoder; "auto" is bfloat16 where the hardware multiplies it, else float32.
        batch: key-frames at a time.
        threads: CPU threads of the data pipeline; 0 takes this process's share of the cores.

    Raises:
        CheckpointError, ShardError: either cannot be used.
        FeatureError: the folder holds features of another checkpoint, other shards or another transform.
    """
    if layout == "reference" and dtype != "float32":
        raise ConfigError(f"dtype {dtype}: the reference reads float32; leave out --dtype")
    encoder, method, _ = build_pretrained(pretrained)
    index = ShardIndex.open(shards)
    chosen = index.select(split)
    for name in {Path(array).stem for array in (SEQUENCES, SHOTS)} & set(index.films):
        raise FeatureError(
            f"{shards}: a film called {name} would take the place of {name}.npy; rename it and pack again"
        )
    views = (TrainViews() if method is None else method.views).at_test()
    precision = hardware.precision(precision)
    provenance = {
        "dim": encoder.dim,
        "dtype": dtype,
        "layout": layout,
        "precision": precision,
        "checkpoint": str(Path(pretrained).resolve()),
        "checkpoint_sha256": checkpoint.sha256(pretrained),
        "shards": index.address if index.cache else str(index.root.resolve()),
        "manifest_sha256": checkpoint.sha256(index.root / MANIFEST),
        "transform": {**asdict(views), "mean": list(views.mean), "std": list(views.std), "split": split},
    }
    out = Path(features)
    with _processes() as (rank, world):
        _check_folder(out, provenance)
        _barrier()
        if rank == 0:
            out.mkdir(parents=True, exist_ok=True)
            write_atomically(out / STARTED, (json.dumps(provenance) + "\n").encode())
            hardware.say_device()
        _barrier()
        mine = chosen[_share(index.sequences["shots"][chosen], rank, world)]
        _encode_films(encoder, index, mine, views, out, provenance, batch, hardware.threads(threads, _local_world()))
        _barrier()
        if rank == 0:
            _finish(index, chosen, out, provenance)
        _barrier()
    return out


def _encode_films(
    encoder: nn.Module,
    index: ShardIndex,
    films: np.ndarray,
    views: TestViews,
    out: Path,
    provenance: dict[str, Any],
    batch: int,
    threads: int,
) -> None:
    """Write the features of `films` that are not there yet, and say what time was spent on."""
    device, autocast = hardware.device(), _AUTOCAST[provenance["precision"]]
    encoder = encoder.eval().to(device, memory_format=encoder.memory_format)
    write = _write_reference if provenance["layout"] == "reference" else _write_film
    todo = [film for film in films.tolist() if not _place(out, index, film, provenance["layout"]).exists()]
    loader = FilmLoader(index, np.array(todo, np.int64), views, batch=batch, device=device, threads=threads)
    spent = {"encoder": 0.0, "waiting for pictures": 0.0, "writing": 0.0}
    pictures = 0
    shots_of = index.sequences["shots"].astype(int)
    first_process = not dist.is_initialized() or dist.get_rank() == 0
    with tqdm(total=shots_of[films].sum(), desc="extract", unit="shot", disable=None if first_process else True) as bar:
        bar.update(shots_of[films].sum() - shots_of[todo].sum())
        found: list[Tensor] = []
        clock = _Clock(spent)
        for film, first, images in loader:
            # Until the first batch comes, the pipeline is being built.
            clock.lap("waiting for pictures" if pictures else None)
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                found.append(encoder(images.contiguous(memory_format=torch.channels_last)).float().cpu())
            pictures += len(images)
            clock.lap("encoder")
            shots, per_shot = int(shots_of[film]), int(index.sequences[film]["frames_per_shot"])
            if first + len(images) == shots * per_shot:
                mean = torch.cat(found).unflatten(0, (shots, per_shot)).mean(1).numpy()
                with np.errstate(over="ignore"):  # infinite then, and refused
                    array = mean.astype(provenance["dtype"])
                if not np.isfinite(array).all():
                    raise FeatureError(
                        f"{index.films[film]}: a feature is not finite in {provenance['dtype']}; extract with --dtype "
                        "float32 --precision 32-true, and if that fails too train the checkpoint again"
                    )
                write(_place(out, index, film, provenance["layout"]), array, index.shots_of(film)["shot"])
                found = []
                bar.update(shots)
                clock.lap("writing")
    if first_process and (total := sum(spent.values())):
        shares = ", ".join(f"{name} {100 * seconds / total:.0f} %" for name, seconds in spent.items())
        print(f"{pictures / total:.0f} key-frames/s: {shares}", flush=True)


class _Clock:
    """Adds the time since the last lap to a name."""

    def __init__(self, spent: dict[str, float]) -> None:
        self._spent, self._last = spent, time.perf_counter()

    def lap(self, name: str | None) -> None:
        now = time.perf_counter()
        if name is not None:
            self._spent[name] += now - self._last
        self._last = now


def _place(out: Path, index: ShardIndex, film: int, layout: Layout) -> Path:
    return out / (index.films[film] + ("" if layout == "reference" else ".npy"))


def _write_film(place: Path, array: np.ndarray, numbers: np.ndarray) -> None:
    write_atomically(place, npy_bytes(array))


def _write_reference(place: Path, array: np.ndarray, numbers: np.ndarray) -> None:
    """A folder with a file a shot, there whole or not at all."""
    part = place.with_name(place.name + ".tmp")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for number, feature in zip(numbers.tolist(), array, strict=True):
        np.save(part / shot_name(number), feature)
    os.replace(part, place)


def _finish(index: ShardIndex, chosen: np.ndarray, out: Path, provenance: dict[str, Any]) -> None:
    rows = index.sequences[chosen]
    if provenance["layout"] == "film":
        labels = np.concatenate([index.shots_of(film) for film in chosen.tolist()])
        write_index(out, rows, labels, provenance)
    else:
        write_atomically(out / PROVENANCE, (json.dumps(provenance, indent=1) + "\n").encode())
    (out / STARTED).unlink(missing_ok=True)
    print(f"features: {out} ({len(rows)} films, {int(rows['shots'].sum())} shots)", flush=True)


def _check_folder(out: Path, provenance: dict[str, Any]) -> None:
    """Refuse a folder in which other features stand."""
    notes = [out / name for name in (PROVENANCE, STARTED) if (out / name).is_file()]
    if not notes and any(out.glob("[!.]*")):
        raise FeatureError(f"{out}: holds files, and nothing says of which checkpoint; choose another folder")
    for path in notes:
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FeatureError(f"{path}: damaged ({error}); delete the folder and extract again") from None
        for key in ("checkpoint_sha256", "manifest_sha256", "dtype", "layout", "precision", "transform"):
            if earlier.get(key) != provenance[key]:
                what = key.removesuffix("_sha256").replace("manifest", "set of shards")
                raise FeatureError(f"{out}: holds features of another {what}; choose another folder")


def _share(shots: np.ndarray, rank: int, world: int) -> np.ndarray:
    """Which films this process takes, in order: from the longest to the shortest, dealt out in turn."""
    return np.sort(np.argsort(-shots.astype(np.int64), kind="stable")[rank::world])


@contextmanager
def _processes() -> Iterator[tuple[int, int]]:
    """Rank and number of the processes that torchrun started; (0, 1) without it."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield 0, 1
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Only barriers, and the last may come hours before the slowest process is done.
    dist.init_process_group("gloo", timeout=timedelta(days=7))
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        dist.destroy_process_group()


def _local_world() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
