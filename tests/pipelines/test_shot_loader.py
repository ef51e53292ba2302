"""Test views of pictures, clips and shots, whatever the sizes of their pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.clip_sampling import Clips
from pipelines.samples import ShotTable
from pipelines.shot_loader import ShotLoader
from pipelines.store import Store
from pipelines.views import TestViews
from shard_tools.errors import ConfigError, ShardError
from shard_tools.shards.index import ShardIndex

from .conftest import FILMS, VIDEOS
from .reference import eval_view, psnr
from .test_loader import pixels

ONE = TestViews(short_side=40, size=32)
THREE = TestViews(short_side=32, size=32, crops=3)
TEN_OF = Clips(4, seconds=1.5)


@pytest.mark.parametrize("batch", [1, 4, 7, 64])
def test_every_view_of_every_clip_comes_once_in_order(videos: ShardIndex, batch: int):
    films, store = np.array([3, 0, 2, 1]), Store(videos)
    loader = ShotLoader(videos, films, THREE, TEN_OF, count=2, batch=batch)
    parts = list(loader)
    assert loader.views_a_shot == 6
    assert len(loader) == len(parts)
    assert {len(images) for _, images in parts[:-1]} <= {batch}
    assert torch.cat([film for film, _ in parts]).tolist() == np.repeat(films, 6).tolist()
    images = torch.cat([images for _, images in parts]).unflatten(0, (4, 2, 3))
    assert images.shape == (4, 2, 3, 4, 3, 32, 32)
    centers = ShotTable(videos, films)[np.arange(4)]
    for video, clips in enumerate(TEN_OF.spaced(centers, 2)):
        for clip, numbers in enumerate(clips):
            jpegs = store.read(centers.first_frame[video] + numbers)
            for crop, place in enumerate(THREE.places):
                theirs = [eval_view(jpeg, THREE, place) for jpeg in jpegs]
                assert min(map(psnr, pixels(images[video, clip, crop]), theirs)) >= 45


def test_pictures_are_clips_of_one_frame(videos: ShardIndex):
    parts = list(ShotLoader(videos, np.arange(5), ONE, batch=3))
    assert [film.tolist() for film, _ in parts] == [[0, 1, 2], [3, 4]]
    assert parts[0][1].shape == (3, 1, 3, 32, 32)
    (jpeg,) = Store(videos).read(videos.sequences["first_frame"][4:5].astype(int))
    assert psnr(pixels(parts[1][1])[1, 0], eval_view(jpeg, ONE)) >= 45


def test_shots_of_films_are_clips_of_their_key_frames(shards: ShardIndex):
    films = np.flatnonzero(shards.sequences["frames_per_shot"] == 3)
    parts = list(ShotLoader(shards, films, ONE, Clips(3), batch=5))
    film, images = (torch.cat(part) for part in zip(*parts, strict=True))
    shots = [FILMS[shards.films[number]][0] for number in films]
    assert film.tolist() == np.repeat(films, shots).tolist()
    jpegs = Store(shards).read(int(shards.sequences["first_frame"][films[1]]) + 3 * 2 + np.arange(3))
    ours = pixels(images[shots[0] + 2])
    assert min(psnr(o, eval_view(jpeg, ONE)) for o, jpeg in zip(ours, jpegs, strict=True)) >= 45


def test_views_are_normalised_as_asked(videos: ShardIndex):
    plain, other = ONE, TestViews(40, 32, mean=(0.45,) * 3, std=(0.225,) * 3)
    (_, ours), (_, theirs) = (next(iter(ShotLoader(videos, np.arange(5), views))) for views in (other, plain))
    np.testing.assert_allclose((ours.movedim(2, -1).numpy() * 0.225 + 0.45) * 255, pixels(theirs), atol=1e-3)


def test_it_can_be_read_again(videos: ShardIndex):
    loader = ShotLoader(videos, np.arange(len(VIDEOS)), THREE, TEN_OF, count=3, batch=8)
    first, second = list(loader), list(loader)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(first, second, strict=True))


def test_impossible_settings_are_refused(videos: ShardIndex, shards: ShardIndex):
    for kwargs, says in (
        ({"batch": 0}, "batch 0"),
        ({"count": 0}, "count 0"),
        ({"count": 2}, "2 clips: the whole shot"),
    ):
        with pytest.raises(ConfigError, match=says):
            ShotLoader(videos, np.arange(2), ONE, **kwargs)
    with pytest.raises(ShardError, match=rf"frames/s of {shards.films[0]} are unknown \(1 of 1\).*--fps"):
        ShotLoader(shards, np.arange(1), ONE, TEN_OF)
    assert list(ShotLoader(videos, np.arange(0), ONE)) == []
