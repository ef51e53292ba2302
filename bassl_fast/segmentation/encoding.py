"""Shards -> features, film by film: in this process, in those that torchrun started, or on the nodes of a cluster.

Under torchrun the films are divided among the processes: each writes its own films, and process 0 writes the index at
the end.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from bassl_fast.checkpoints import checkpoint
from bassl_fast.checkpoints.model import Pretrained, load_model, plain_views
from bassl_fast.config.choices import Engine, Precision
from bassl_fast.encoders import Encoder
from bassl_fast.runtime import engines, hardware
from pipelines.loader import FilmLoader
from pipelines.views import TestViews
from shard_tools.errors import ConfigError, FeatureError, ShardError, masked
from shard_tools.packing.subtitles import Lines, read_lines, speech_of_films, with_speech
from shard_tools.shards.format import FILMS, SEQUENCES, SHOTS, npy_bytes
from shard_tools.shards.index import ShardIndex
from shard_tools.storage.output import Place, open_place
from shard_tools.storage.remote import absolute, is_remote

from .colours import DIM, colours_of
from .earlier import check_folder, earlier_speech, file_name, whole_films
from .features import COLOURS, PROVENANCE, STARTED, sha256, shot_name, write_index, write_provenance
from .options import Layout


@torch.inference_mode()
def encode_films(
    pretrained: str,
    shards: str,
    features: str,
    split: str | None,
    layout: Layout,
    dtype: str,
    precision: Precision,
    batch: int,
    threads: int,
    engine: Engine,
    address: str | None,
    subtitles: str | None,
) -> str:
    """See `extract`."""
    _check_layout(layout, dtype, features, subtitles)
    model, index = _load(pretrained), ShardIndex.open(shards)
    _check_films(index, shards)
    chosen = index.select(split)
    lines = {} if subtitles is None else read_lines(Path(subtitles), [index.name_of(film) for film in chosen.tolist()])
    where = index.address if index.cache else str(index.root.resolve())
    provenance = {
        "dim": DIM if model is None else model.encoder.dim,
        "dtype": dtype,
        "layout": layout,
        "precision": "",  # filled in where the encoder runs, if any
        "checkpoint": COLOURS if model is None else masked(checkpoint.absolute(pretrained)),
        "checkpoint_sha256": COLOURS if model is None else checkpoint.sha256(pretrained),
        "shards": masked(where),
        "manifest_sha256": index.digest(),
        "transform": {**({} if model is None else plain_views(model.views)), "split": split},
    }
    with _processes() as (rank, world), engines.cluster(engine, address, gpu=model is not None) as each:
        share = hardware.threads(threads, _local_world()) if each is None else threads or each.cpus
        if model is not None:
            (provenance["precision"],) = (map if each is None else each)(hardware.precision, [precision])
        place = open_place(features)
        recorded = check_folder(place, provenance)
        speech = earlier_speech(place, recorded) if rank == 0 and layout == "film" else {}
        _barrier()
        mine = chosen[_share(index.sequences["shots"][chosen], rank, world)].tolist()
        checksums = _gather(whole_films(place, index, mine, provenance, recorded, quiet=rank > 0))
        if rank == 0:
            write_provenance(place, provenance, checksums, STARTED)
            if len(checksums) < len(chosen):
                place.delete(PROVENANCE)
            if model is not None:
                hardware.say_device()
        _barrier()
        todo = [film for film in mine if file_name(index, film, layout) not in checksums]
        if each is None:
            done = _encode(None if model is None else model.encoder, index, todo, place, provenance, batch, share)
        else:
            made_by = pretrained if model is None else checkpoint.absolute(pretrained)
            task = partial(_encode_film, made_by, where, absolute(features))
            done = each(partial(task, provenance, batch, share), todo, index.films.__getitem__)
        checksums |= _gather(_follow(done, index, mine, todo, layout, quiet=rank > 0))
        if rank == 0:
            _finish(index, chosen, place, provenance, checksums, lines, speech)
        _barrier()
    return features


def _check_layout(layout: Layout, dtype: str, features: str, subtitles: str | None) -> None:
    """Raises: ConfigError for what the layout of the reference does not allow."""
    if layout == "reference" and subtitles is not None:
        raise ConfigError("subtitles: the reference's layout has no place for them; leave out --subtitles or --layout")
    if layout == "reference" and dtype != "float32":
        raise ConfigError(f"dtype {dtype}: the reference reads float32; leave out --dtype")
    if layout == "reference" and is_remote(features):
        raise ConfigError(
            "layout reference: one file per shot needs a local folder; give a path, or leave out --layout"
        )


def _check_films(index: ShardIndex, shards: str) -> None:
    """Raises: ShardError for a set of other samples; FeatureError for a film named like a file of ours."""
    if index.kind != FILMS:
        raise ShardError(f"{shards}: a set of {index.kind}; use `bassl-fast retrieve` for these")
    for name in {Path(array).stem for array in (SEQUENCES, SHOTS)} & set(index.films):
        raise FeatureError(f"{shards}: a film named {name} would overwrite {name}.npy; rename it and pack again")


class _Done(NamedTuple):
    film: int
    keyframes: int
    seconds: dict[str, float]  # by activity
    checksum: str


def _encode(
    encoder: Encoder | None,
    index: ShardIndex,
    films: list[int],
    place: Place,
    provenance: dict[str, Any],
    batch: int,
    threads: int,
) -> Iterator[_Done]:
    """Write the features of `films`, of colours without an encoder."""
    clock = _Clock()
    if encoder is None:
        arrays = colours_of(index, films, threads)
    else:
        arrays = _encoded(encoder, index, films, provenance, batch, threads, clock)
    for film, found in arrays:
        clock.lap("colours" if encoder is None else "encoder")
        with np.errstate(over="ignore"):  # an overflow becomes infinite and is refused below
            array = found.astype(provenance["dtype"])
        if not np.isfinite(array).all():
            raise FeatureError(
                f"{index.films[film]}: a feature is not finite in {provenance['dtype']}; extract with --dtype "
                "float32 --precision 32-true; if that fails too, train the checkpoint again"
            )
        name = file_name(index, film, provenance["layout"])
        if provenance["layout"] == "reference":
            _write_reference(Path(place.uri) / name, array, index.shots_of(film)["shot"])
            checksum = sha256(array.tobytes())
        else:
            data = npy_bytes(array)
            place.write(name, data)
            checksum = sha256(data)
        clock.lap("writing")
        row = index.sequences[film]
        yield _Done(film, int(row["shots"]) * int(row["frames_per_shot"]), clock.take(), checksum)


def _encoded(
    encoder: Encoder,
    index: ShardIndex,
    films: list[int],
    provenance: dict[str, Any],
    batch: int,
    threads: int,
    clock: _Clock,
) -> Iterator[tuple[int, np.ndarray]]:
    """Number and features `[S, D]` float32 of each of `films`."""
    device = hardware.device()
    views = TestViews(**{name: value for name, value in provenance["transform"].items() if name != "split"})
    encoder = encoder.frozen(provenance["precision"])
    encoder = encoder.to(device, memory_format=encoder.memory_format)  # type: ignore[call-overload]  # torch's stubs
    loader = FilmLoader(index, np.array(films, np.int64), views, batch=batch, device=device, threads=threads)
    found: list[Tensor] = []
    for film, first, images in loader:
        # Before the first batch the pipeline is being built.
        clock.lap("waiting for images" if clock.runs else None)
        with hardware.autocast(provenance["precision"]):
            found.append(encoder.of_shots(images))
        if len(found) > 1:  # copied only now, so that a GPU has the next batch while this process waits
            found[-2] = found[-2].cpu()
        clock.lap("encoder")
        if first + len(images) == index.sequences["shots"][film]:
            yield film, torch.cat([*found[:-1], found[-1].cpu()]).numpy()
            found = []


@torch.inference_mode()
def _encode_film(
    pretrained: str, shards: str, features: str, provenance: dict[str, Any], batch: int, threads: int, film: int
) -> _Done:
    """`_encode` for one film, on any machine that can reach the same files."""
    model, index = _opened(pretrained, shards)
    encoder = None if model is None else model.encoder
    (done,) = _encode(encoder, index, [film], open_place(features), provenance, batch, threads)
    return done


@lru_cache(maxsize=1)
def _opened(pretrained: str, shards: str) -> tuple[Pretrained | None, ShardIndex]:
    return _load(pretrained), ShardIndex.open(shards)


def _load(pretrained: str) -> Pretrained | None:
    return None if pretrained == COLOURS else load_model(pretrained)


def _follow(
    done: Iterable[_Done], index: ShardIndex, films: list[int], todo: list[int], layout: Layout, quiet: bool
) -> dict[str, str]:
    """Show progress, and finally print how the time was spent; returns the checksums by file."""
    shots, keyframes = index.sequences["shots"].astype(int), 0
    spent: Counter[str] = Counter()
    checksums = {}
    with tqdm(total=shots[films].sum(), desc="extract", unit="shot", disable=quiet or None) as bar:
        bar.update(shots[films].sum() - shots[todo].sum())
        for one in done:
            checksums[file_name(index, one.film, layout)] = one.checksum
            keyframes += one.keyframes
            spent.update(one.seconds)
            bar.update(shots[one.film])
    if not quiet and (total := sum(spent.values())):
        shares = ", ".join(f"{name} {100 * seconds / total:.0f} %" for name, seconds in spent.items())
        print(f"{keyframes / total:,.1f} key-frames/s: {shares}", flush=True)
    return checksums


class _Clock:
    """Adds up time by activity."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = defaultdict(float)
        self._last, self.runs = time.perf_counter(), False

    def take(self) -> dict[str, float]:
        """Seconds by activity since the last call."""
        spent, self._spent = dict(self._spent), defaultdict(float)
        return spent

    def lap(self, name: str | None) -> None:
        """Count the time since the last lap as `name`, or not at all."""
        now = time.perf_counter()
        if name is not None:
            self._spent[name] += now - self._last
        self._last, self.runs = now, True


def _write_reference(place: Path, array: np.ndarray, numbers: np.ndarray) -> None:
    """Write a folder with one file per shot, whole or not at all."""
    part = place.with_name(place.name + ".tmp")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for number, feature in zip(numbers.tolist(), array, strict=True):
        np.save(part / shot_name(number), feature)
    os.replace(part, place)


def _finish(
    index: ShardIndex,
    chosen: np.ndarray,
    place: Place,
    provenance: dict[str, Any],
    checksums: dict[str, str],
    lines: Lines,
    speech: dict[str, np.ndarray],
) -> None:
    """Write what is about all films.

    Args:
        lines: the subtitles of films.
        speech: of the films that had times of speech in the folder, see `earlier_speech`.
    """
    rows = index.sequences[chosen]
    if provenance["layout"] == "film":
        films = {index.name_of(film): index.shots_of(film) for film in chosen.tolist()}
        write_index(place, rows, with_speech(films, speech | speech_of_films(lines, films)), provenance, checksums)
    else:
        write_provenance(place, provenance, checksums)
    place.delete(STARTED)
    print(f"features: {masked(place.uri)} ({len(rows)} films, {int(rows['shots'].sum())} shots)", flush=True)


def _share(shots: np.ndarray, rank: int, world: int) -> np.ndarray:
    """Positions of the films of this process, in order; films are dealt out in turn from longest to shortest."""
    return np.sort(np.argsort(-shots.astype(np.int64), kind="stable")[rank::world])


@contextmanager
def _processes() -> Iterator[tuple[int, int]]:
    """Rank and number of the processes torchrun started; (0, 1) without torchrun."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield 0, 1
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Used only for barriers; the fastest process may wait hours for the slowest.
    dist.init_process_group("gloo", timeout=timedelta(days=7))
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        dist.destroy_process_group()


def _local_world() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _gather(mine: dict[str, str]) -> dict[str, str]:
    """The dictionaries of all processes as one."""
    if not dist.is_initialized():
        return mine
    found: list[dict[str, str]] = [{}] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    return dict(chain.from_iterable(one.items() for one in found))


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
