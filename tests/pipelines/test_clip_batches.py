"""Batches of clips, and of views of several sizes: they keep the same promises as windows of films."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.clip_sampling import Clips, show_differences
from pipelines.loader import WindowLoader
from pipelines.samples import Centers, Drawn, ShotTable
from pipelines.store import Store
from pipelines.views import VIEW, TrainViews, draw_clips
from shard_tools.errors import PictureError
from shard_tools.shards.index import ShardIndex

from .conftest import Batch, assert_all_equal, flip_byte
from .reference import psnr, train_view

LARGE = TrainViews(size=32, jitter=0, grayscale=0.2, solarize=0.2, mean=(0.45,) * 3, std=(0.225,) * 3)
SMALL = TrainViews(size=16, jitter=0, area=(0.05, 0.14))
CLIPS = Clips(4, seconds=1.5)
STEPS = 3  # 5 videos in batches of 2


def sample(centers: Centers, rng: np.random.Generator) -> Drawn:
    """Two clips of a video, as SCE's, of which one may show differences; and a third one that is small."""
    numbers = CLIPS.draw(centers, rng, 3)
    clips = [
        draw_clips(
            rng, augmentation, centers.height, centers.width, centers.frames(centers.position[:, None], numbers[:, i])
        )
        for i, augmentation in enumerate((LARGE, LARGE, SMALL))
    ]
    clips[0] = show_differences(clips[0], rng.random(len(numbers)) < 0.7, centers)
    return Drawn(np.stack(clips[:2], 1), {"u": rng.random(len(numbers))}, {SMALL.size: clips[2][:, None]})


def open_loader(index: ShardIndex, **kwargs) -> WindowLoader:
    augmentation = {"mean": LARGE.mean, "std": LARGE.std}
    return WindowLoader(
        index, index.select(None), sample, LARGE.size, **{"global_batch": 2, "seed": 3, **augmentation, **kwargs}
    )


@pytest.fixture(scope="module")
def two_epochs(videos: ShardIndex) -> list[Batch]:
    loader = open_loader(videos)
    return [*loader, *loader]


def test_a_batch_has_the_promised_shapes(two_epochs: list[Batch]):
    assert {name: tuple(rows.shape) for name, rows in two_epochs[0].items()} == {
        "images": (2, 2, 4, 3, 32, 32),
        "images_16": (2, 1, 4, 3, 16, 16),
        "film": (2,),
        "position": (2,),
        "u": (2,),
    }
    clips = two_epochs[0]["images"].flatten(0, 1).transpose(1, 2)  # [N, 3, T, H, W]
    assert clips.is_contiguous(memory_format=torch.channels_last_3d)


def test_images_are_the_rows_drawn(videos: ShardIndex, two_epochs: list[Batch]):
    loader, store = open_loader(videos), Store(videos)
    _, drawn = loader.draw(0, 0)
    assert drawn.views["difference"].any()
    for name, rows in (("images", drawn.views), ("images_16", drawn.small[16])):
        ours = two_epochs[0][name].movedim(-3, -1).numpy() * 0.225 + 0.45
        ours = (255 * ours).reshape(-1, *ours.shape[-3:])
        rows = rows.ravel()
        jpegs, after = store.read(rows["frame"]), store.read(rows["frame"] + rows["difference"])
        theirs = [train_view(j, row, len(ours[0]), a) for j, row, a in zip(jpegs, rows, after, strict=True)]
        assert min(map(psnr, ours, theirs)) >= 40


def test_pictures_of_a_clip_share_crop_flip_colour_and_blur(videos: ShardIndex):
    loader = open_loader(videos, global_batch=5)
    for _, drawn in (loader.draw(epoch, 0) for epoch in range(20)):
        for rows in (drawn.views, drawn.small[16]):
            for name in set(VIEW.names) - {"frame"}:
                assert (rows[name] == rows[name][..., :1]).all(), name
        first, second = drawn.views[:, 0, 0], drawn.views[:, 1, 0]
        assert (first["brightness"] == 1).all()
        assert (first[["top", "left"]] != second[["top", "left"]]).any()


def test_frames_and_crops_lie_inside_their_video(videos: ShardIndex):
    loader = open_loader(videos, global_batch=5)
    for samples, drawn in (loader.draw(epoch, 0) for epoch in range(20)):
        centers = ShotTable(videos, videos.select(None))[samples]
        begin, end = centers.first_frame, centers.first_frame + centers.frames_per_shot
        for rows in (drawn.views, drawn.small[16]):
            inside = (slice(None), None, None)
            assert (rows["frame"] >= begin[inside]).all()
            assert (rows["frame"] + rows["difference"] < end[inside]).all()
            assert (rows["top"] + rows["height"] <= centers.height[inside]).all()
            assert (rows["left"] + rows["width"] <= centers.width[inside]).all()


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_batches_of_all_processes_form_that_of_one(videos: ShardIndex, world_size: int):
    whole = list(open_loader(videos, global_batch=4))
    ranks = [open_loader(videos, global_batch=4, rank=rank, world_size=world_size) for rank in range(world_size)]
    parts = zip(*ranks, strict=True)
    assert_all_equal([{k: torch.cat([p[k] for p in part]) for k in part[0]} for part in parts], whole)


@pytest.mark.parametrize("at", [(0, 0), (0, 2), (1, 1)])
@pytest.mark.parametrize("used_before", [False, True])
def test_resuming_continues_with_the_exact_next_batch(
    videos: ShardIndex, two_epochs: list[Batch], at: tuple[int, int], used_before: bool
):
    loader = open_loader(videos, threads=1, prefetch=3)
    if used_before:
        list(islice(loader, 2))
    loader.load_state_dict({"epoch": at[0], "step": at[1]})
    assert_all_equal([batch for _ in range(2 - at[0]) for batch in loader], two_epochs[at[0] * STEPS + at[1] :])


def test_a_broken_frame_is_named_or_replaced(videos: ShardIndex, tmp_path: Path, two_epochs: list[Batch]):
    broken = replace(videos, root=shutil.copytree(videos.root, tmp_path / "broken"))
    broken = replace(broken, address=str(broken.root))
    frame = int(open_loader(videos).draw(0, 0)[1].small[16]["frame"][0, 0, 0])
    flip_byte(broken, frame)
    with pytest.raises(PictureError, match="differ from the index"):
        list(open_loader(broken))
    loader = open_loader(broken, max_broken=0.5)
    substituted = list(loader)
    assert len(substituted) == STEPS
    assert not torch.equal(substituted[0]["images_16"], two_epochs[0]["images_16"])
    assert torch.equal(substituted[0]["u"], two_epochs[0]["u"])


def test_pools_are_of_shards_not_of_pictures(videos: ShardIndex):
    rows = videos.sequences.copy()
    rows["shard"] = [0, 0, 0, 1, 1]
    table = ShotTable(replace(videos, sequences=rows), np.arange(5))
    assert table.together.tolist() == [3, 2]
    assert ShotTable(videos, np.arange(5)).together.tolist() == [1] * 5
