from __future__ import annotations

import gc
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.loader import FilmLoader, WindowLoader
from pipelines.samples import Centers, Drawn
from pipelines.store import Store
from pipelines.views import TestViews
from shard_tools.errors import ConfigError
from shard_tools.shards.index import ShardIndex

from .conftest import FILMS, SHOTS, SIZE, STEPS, Batch, MakeLoader, assert_all_equal, sample
from .reference import eval_view, psnr, train_view

pytestmark = pytest.mark.slow


def pixels(images: torch.Tensor) -> np.ndarray:
    """Normalised `[..., 3, H, W]` back to 0..255 `[..., H, W, 3]`."""
    images = images.cpu().movedim(-3, -1).double().numpy()
    return (images * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]) * 255


def sample_numbers(batch: Batch) -> list[tuple[int, int]]:
    return list(zip(batch["film"].tolist(), batch["position"].tolist(), strict=True))


def test_a_batch_has_the_promised_shapes(make_loader: MakeLoader):
    loader = make_loader()
    batch = next(iter(loader))
    assert len(loader) == STEPS
    assert loader.plan.padding == STEPS * 4 - SHOTS == 1
    assert {name: tuple(rows.shape) for name, rows in batch.items()} == {
        "images": (4, 7, 3, SIZE, SIZE),
        "film": (4,),
        "position": (4,),
        "pick": (4, 3),
    }
    assert batch["images"].dtype == torch.float32


def test_images_lie_channels_last_and_come_in_the_dtype_asked_for(make_loader: MakeLoader, two_epochs: list[Batch]):
    for ours, theirs in zip(make_loader(dtype=torch.bfloat16), two_epochs, strict=False):
        images = ours["images"].flatten(0, 1)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(images, theirs["images"].flatten(0, 1).bfloat16())
    with pytest.raises(ConfigError, match="float16"):
        make_loader(dtype=torch.float16)


def test_what_the_host_reads_stays_in_its_memory(make_loader: MakeLoader, two_epochs: list[Batch]):
    loader = make_loader()
    loader._sampler = lambda *given: replace(sample(*given), on_host=("pick",))
    batch = next(iter(loader))
    assert isinstance(batch["pick"], np.ndarray)
    assert np.array_equal(batch["pick"], two_epochs[0]["pick"].numpy())


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_batches_of_all_processes_form_that_of_one(
    make_loader: MakeLoader, two_epochs: list[Batch], world_size: int
):
    ranks = [make_loader(rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {len(loader) for loader in ranks} == {STEPS}
    parts = list(zip(*ranks, strict=True))
    assert_all_equal([{k: torch.cat([p[k] for p in part]) for k in part[0]} for part in parts], two_epochs[:STEPS])


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 1), (1, 3), (2, 1), (3, 4), (8, 2)])
def test_threads_and_prefetch_change_nothing(
    make_loader: MakeLoader, two_epochs: list[Batch], threads: int, prefetch: int
):
    loader = make_loader(threads=threads, prefetch=prefetch)
    assert_all_equal([*loader, *loader], two_epochs)


@pytest.mark.parametrize("at", [(0, 0), (0, 1), (0, STEPS - 1), (1, 0), (1, 5)])
@pytest.mark.parametrize("used_before", [False, True])
def test_resuming_continues_with_the_exact_next_batch(
    make_loader: MakeLoader, two_epochs: list[Batch], at: tuple[int, int], used_before: bool
):
    loader = make_loader()
    if used_before:
        list(islice(loader, 3))
    loader.load_state_dict({"epoch": at[0], "step": at[1]})
    rest = [batch for _ in range(2 - at[0]) for batch in loader]
    assert_all_equal(rest, two_epochs[at[0] * STEPS + at[1] :])


def test_a_state_taken_while_a_batch_is_in_use_points_at_the_next(make_loader: MakeLoader, two_epochs: list[Batch]):
    loader = make_loader()
    for step, _ in enumerate(loader):
        if step == STEPS - 1:
            assert loader.state_dict() == {"epoch": 1, "step": 0}
        if step == 4:
            state = loader.state_dict()
    other = make_loader()
    other.load_state_dict(state)
    assert_all_equal(list(other), two_epochs[5:STEPS])


def test_three_epochs_in_a_row_hold_every_shot_once(make_loader: MakeLoader):
    loader = make_loader()
    every = {(film, shot) for film, count in enumerate(loader.index.sequences["shots"]) for shot in range(count)}
    orders = []
    for epoch in range(3):
        assert loader.epoch == epoch
        batches = list(loader)
        assert len(batches) == len(loader) == STEPS
        orders.append([sample for batch in batches for sample in sample_numbers(batch)])
        assert len(orders[-1]) == SHOTS + loader.plan.padding
        assert set(orders[-1][:SHOTS]) == every
    assert orders[0] != orders[1] != orders[2]


def test_chosen_films_only(make_loader: MakeLoader):
    loader = make_loader(films=np.array([2, 0]))
    seen = {film for batch in loader for film in batch["film"].tolist()}
    assert seen == {0, 2}
    assert len(loader) == 7


def test_breaking_out_and_continuing_loses_nothing(make_loader: MakeLoader, two_epochs: list[Batch]):
    loader, seen = make_loader(), []
    for count in (3, 1, 2, 2, 5):
        seen += islice(loader, count)
    assert_all_equal(seen, two_epochs[: len(seen)])
    assert len(seen) == 13


def test_an_abandoned_iterator_and_a_new_one_share_the_position(make_loader: MakeLoader, two_epochs: list[Batch]):
    loader = make_loader()
    first = next(iter(loader))
    second = next(iter(loader))
    assert_all_equal([first, second], two_epochs[:2])


def test_batches_are_not_overwritten_later(make_loader: MakeLoader):
    loader = make_loader(prefetch=1)
    kept = list(loader)
    copies = [{name: rows.clone() for name, rows in batch.items()} for batch in kept]
    list(loader)
    assert_all_equal(kept, copies)


def test_images_are_the_rows_drawn(make_loader: MakeLoader, two_epochs: list[Batch]):
    loader = make_loader()
    store, found = Store(loader.index), []
    for step in (0, 5):
        samples, drawn = loader.draw(0, step)
        centers = loader._table[samples]
        assert sample_numbers(two_epochs[step]) == list(zip(centers.film, centers.position, strict=True))
        assert (two_epochs[step]["pick"].numpy() == drawn.extras["pick"]).all()
        rows = drawn.views.ravel()
        theirs = [train_view(jpeg, row, SIZE) for jpeg, row in zip(store.read(rows["frame"]), rows, strict=True)]
        ours = pixels(two_epochs[step]["images"]).reshape(-1, SIZE, SIZE, 3)
        found += map(psnr, ours, theirs)
    # Where bright colours clip between two steps, one of 224 views is at 26 dB; another row's view is below 20.
    assert min(found) >= 25
    assert np.median(found) >= 38


def test_views_of_a_window_come_from_its_own_shots(make_loader: MakeLoader):
    loader = make_loader()
    for step in range(STEPS):
        samples, drawn = loader.draw(0, step)
        centers = loader._table[samples]
        frames = drawn.views["frame"]
        first = centers.first_frame[:, None]
        last = first + (centers.shots * centers.frames_per_shot)[:, None]
        assert ((frames >= first) & (frames < last)).all()
        assert (frames[:, [0, 1]] == frames[:, [2, 6]]).all()


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"world_size": 3}, "use 1, 2, 4 processes"),
        ({"threads": 0}, "threads 0"),
        ({"prefetch": 0}, "prefetch 0"),
        ({"global_batch": 0}, "global_batch 0"),
        ({"films": np.array([], int)}, "no samples"),
    ],
)
def test_settings_that_cannot_work_are_refused(make_loader: MakeLoader, kwargs: dict, says: str):
    with pytest.raises(ConfigError, match=says):
        make_loader(**kwargs)


# --- What it holds on to ---


def held() -> tuple[int, int]:
    """Threads and open files of this process."""
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def private_memory() -> int:
    """Private bytes of this process, without mapped files."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("broken_off", ["left", "error"])
def test_nothing_grows_over_fifty_restarts(shards: ShardIndex, make_loader: MakeLoader, broken_off: str):
    """Restarted by a jump to another step, or after an error."""
    gc.collect()  # what tests before this one left
    calls = iter(range(10_000))

    def sometimes(centers: Centers, rng: np.random.Generator) -> Drawn:
        if broken_off == "error" and next(calls) % 7 == 6:
            raise ValueError("spilt coffee")
        return sample(centers, rng)

    loader = WindowLoader(shards, shards.select(None), sometimes, SIZE, global_batch=4, seed=3)
    for round_ in range(60):
        loader.load_state_dict({"epoch": 0, "step": round_ % 3})
        with suppress(ValueError):
            list(islice(loader, 3))
        if round_ == 9:
            before, memory = held(), private_memory()
    assert held() == before
    batch = 4 * 7 * 3 * SIZE * SIZE * 4
    assert private_memory() - memory < 25 * batch  # 50 were it, if a restart kept one


def test_threads_and_files_end_with_their_loader(make_loader: MakeLoader):
    list(islice(make_loader(), 2))  # what libraries keep for good is there after the first
    gc.collect()
    before = held()
    for _ in range(10):
        loader = make_loader()
        list(islice(loader, 2))
        del loader
    assert held() == before


# --- Test views ---

EVAL = TestViews(short_side=40, size=32)


@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (5, 2), (64, 3)])
def test_film_loader_gives_every_key_frame_once_in_order(shards: ShardIndex, batch: int, threads: int):
    films = np.array([2, 0, 1])
    parts = list(FilmLoader(shards, films, EVAL, batch=batch, threads=threads))
    sizes = [FILMS[name][:2] for name in shards.films]
    expected = []
    for film in films.tolist():
        count, per_shot = sizes[film]
        at_once = max(1, batch // per_shot)
        expected += [(film, at, (min(at_once, count - at), per_shot)) for at in range(0, count, at_once)]
    assert [(film, first, tuple(images.shape[:2])) for film, first, images in parts] == expected
    store = Store(shards)
    for film, first, images in parts:
        pictures = images.flatten(0, 1)
        rows = int(shards.sequences["first_frame"][film]) + first * images.shape[1] + np.arange(len(pictures))
        for ours, jpeg in zip(pixels(pictures), store.read(rows), strict=True):
            assert psnr(ours, eval_view(jpeg, EVAL)) >= 45


def test_film_loader_can_be_read_again_and_left_early(shards: ShardIndex):
    loader = FilmLoader(shards, np.array([0, 2]), EVAL, batch=8)
    whole = list(loader)
    assert len(list(islice(loader, 2))) == 2
    again = list(loader)
    assert all(torch.equal(a[2], b[2]) for a, b in zip(whole, again, strict=True))


def test_film_loader_refuses_an_empty_batch(shards: ShardIndex):
    with pytest.raises(ConfigError, match="batch 0"):
        FilmLoader(shards, np.array([0]), EVAL, batch=0)


# --- DALI itself ---


def test_a_missing_dali_is_one_line_with_what_to_install():
    code = "import sys; sys.modules['nvidia.dali'] = None; import pipelines.loader"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = run.stderr.strip().splitlines()[-1]
    assert run.returncode == 1
    assert last.startswith("shard_tools.errors.MissingDependency: NVIDIA DALI is not installed")
    assert "pip install 'bassl-fast[" in last


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_and_cpu_give_the_same_views(make_loader: MakeLoader, shards: ShardIndex):
    loader = make_loader(device="cuda")
    batches = list(loader)
    for ours, theirs in zip(batches, make_loader(), strict=True):
        assert ours["images"].is_cuda
        assert sample_numbers(ours) == sample_numbers(theirs)
        pairs = zip(pixels(ours["images"].flatten(0, 1)), pixels(theirs["images"].flatten(0, 1)), strict=True)
        assert min(psnr(a, b) for a, b in pairs) >= 40
    films = shards.select(None)
    for on_gpu, on_cpu in zip(FilmLoader(shards, films, EVAL, device="cuda"), FilmLoader(shards, films, EVAL)):  # noqa: B905
        assert min(map(psnr, pixels(on_gpu[2]), pixels(on_cpu[2]))) >= 40


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_whole_however_far_training_lags_behind(make_loader: MakeLoader):
    waited = []
    for batch in make_loader(device="cuda"):
        torch.cuda.synchronize()
        waited.append(batch["images"].cpu())
    load, kept = torch.randn(4096, 4096, device="cuda"), []
    for batch in make_loader(device="cuda"):
        for _ in range(20):  # the trainer's stream is some batches behind from here on
            load = load @ load / 4096
        kept.append(batch["images"] + 0 * load[0, 0])
    torch.cuda.synchronize()
    assert all(torch.equal(late.cpu(), early) for late, early in zip(kept, waited, strict=True))
