"""Three tiny synthetic films, packed once, and a sampler small enough to run in milliseconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.loader import WindowLoader
from pipelines.samples import Centers, Drawn
from pipelines.views import TrainViews, draw_groups, spread
from pipelines.windows import dense_window
from shard_tools.annotations.movienet import keyframe_name
from shard_tools.packing.pack import pack
from shard_tools.shards.index import ShardIndex
from tests.servers import BUCKET, s3_server

SIZE = 32  # of the views
# name -> shots, key-frames a shot, height, width: one of another height, one shorter than a window
FILMS = {"tall": (7, 2, 96, 64), "tiny": (3, 3, 48, 80), "wide": (21, 3, 64, 112)}
# Videos, of which one is shorter than a clip, and a picture: films of one shot.
VIDEOS = {"a": (1, 20, 64, 112), "b": (1, 33, 96, 64), "c": (1, 3, 48, 80), "d": (1, 1, 64, 64), "e": (1, 12, 64, 80)}
FPS = 5
SHOTS = sum(shots for shots, *_ in FILMS.values())
STEPS = 8  # 31 shots in batches of 4
VIEWS = TrainViews(size=SIZE)


def draw_picture(seed: int, height: int, width: int) -> np.ndarray:
    """`[height, width, 3]` uint8: soft colours and two hard edges, no two seeds alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16
    grey, *colours = (np.sin(a * x + b * y + c) for a, b, c in rng.uniform(-1, 1, (4, 3)) * [1, 1, 3])
    picture = 128 + 50 * grey[..., None] + 20 * np.stack(colours, -1)
    top, left = rng.integers(0, [height // 2, width // 2])
    picture[top : top + height // 2, left : left + width // 2] += rng.uniform(-25, 25, 3)
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw_films(source: Path, films: dict[str, tuple[int, int, int, int]] = FILMS) -> None:
    """Key-frames of all `films` in the MovieNet layout, as 4:2:0 JPEGs like MovieNet's."""
    seed = 0
    for film, (shots, images, height, width) in films.items():
        folder = source / "240P_frames" / film
        folder.mkdir(parents=True)
        for shot in range(shots):
            for image in range(images):
                seed += 1
                Image.fromarray(draw_picture(seed, height, width)).save(folder / keyframe_name(shot, image), quality=90)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key-frame folder; do not modify."""
    folder = tmp_path_factory.mktemp("source")
    draw_films(folder)
    return folder


@pytest.fixture(scope="session")
def shards(source: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    """The packed films; do not modify."""
    folder = tmp_path_factory.mktemp("shards")
    pack(source, folder, quiet=True)
    return ShardIndex.open(folder)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    """The packed `VIDEOS`, of `FPS` frames/s; do not modify."""
    source, folder = tmp_path_factory.mktemp("frames"), tmp_path_factory.mktemp("videos")
    draw_films(source, VIDEOS)
    pack(source, folder, quiet=True)
    index = ShardIndex.open(folder)
    rows = np.empty(len(index.sequences), [*index.sequences.dtype.descr, ("fps", "<f4")])
    for name in index.sequences.dtype.names:
        rows[name] = index.sequences[name]
    rows["fps"] = FPS
    return replace(index, sequences=rows)


@pytest.fixture(scope="session")
def served(shards: ShardIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of an S3 server with the packed films."""
    folder = tmp_path_factory.mktemp("s3")
    shutil.copytree(shards.root, folder / BUCKET / "shards")
    with s3_server(folder) as port:
        yield port


def sample(centers: Centers, rng: np.random.Generator) -> Drawn:
    """First and last shot, then all five of a window, as two groups: a small version of BaSSL's sample."""
    window = dense_window(centers.position, centers.shots, radius=2)
    dense = centers.frames(window, rng.integers(0, centers.frames_per_shot[:, None], window.shape))
    sparse_group = draw_groups(rng, VIEWS, centers.height, centers.width)
    dense_group = draw_groups(rng, VIEWS, centers.height, centers.width)
    views = [spread(rng, VIEWS, sparse_group, dense[:, [0, -1]]), spread(rng, VIEWS, dense_group, dense)]
    return Drawn(np.concatenate(views, 1), {"pick": rng.random((len(window), 3))})


MakeLoader = Callable[..., WindowLoader]


@pytest.fixture
def make_loader(shards: ShardIndex) -> MakeLoader:
    """`make_loader(**kwargs)` over all films in global batches of 4, or over another `index`."""

    def make(index: ShardIndex = shards, films: np.ndarray | None = None, **kwargs) -> WindowLoader:
        films = index.select(None) if films is None else films
        return WindowLoader(index, films, sample, SIZE, **{"global_batch": 4, "seed": 3, **kwargs})

    return make


Batch = dict[str, torch.Tensor]


def assert_equal(ours: Batch, theirs: Batch) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def assert_all_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert_equal(one, other)


@pytest.fixture(scope="session")
def two_epochs(shards: ShardIndex) -> list[Batch]:
    """What every loader of seed 3 must give, from one process; do not modify."""
    loader = whole_loader(shards)
    return [*loader, *loader]


def whole_loader(shards: ShardIndex) -> WindowLoader:
    return WindowLoader(shards, shards.select(None), sample, SIZE, global_batch=4, seed=3)


def flip_byte(index: ShardIndex, frame: int) -> None:
    """In place, so that a shard that is already mapped sees it."""
    shard, _, offset = index.locate(frame)
    with open(shard, "r+b") as file:
        file.seek(offset + 200)
        byte = file.read(1)[0]
        file.seek(offset + 200)
        file.write(bytes([byte ^ 0xFF]))
