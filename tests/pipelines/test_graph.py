"""DALI's pixels against PIL's and numpy's, and against the reference implementation's where its answers are there."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import graph
from pipelines.views import ORDERS, STEPS, VIEW, TestViews, TrainViews, draw_groups

from .conftest import draw_picture
from .reference import eval_view, psnr, train_view

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "bassl"
ORDER_OF = {tuple(STEPS[step] for step in order): number for number, order in enumerate(ORDERS)}


def jpeg_of(seed: int, height: int, width: int, **kwargs) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(draw_picture(seed, height, width)).save(buffer, "JPEG", quality=90, **kwargs)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def run(make_graph, inputs: tuple, **kwargs) -> np.ndarray:
    """Pictures `[N, ...]` of one batch through a graph."""
    batch = len(inputs[0])
    pipe = make_graph(
        source=lambda: inputs, gpu=False, batch_size=batch, num_threads=2, device_id=None, prefetch_queue_depth=1,
        **kwargs,
    )  # fmt: skip
    pipe.build()
    (pictures,) = pipe.run()
    return np.array(pictures.as_array())


def train_pictures(rows: np.ndarray, jpegs: list[np.ndarray], size: int, **kwargs) -> np.ndarray:
    return run(graph.train_graph, graph.train_inputs(rows, jpegs), size=size, **{"normalise": False, **kwargs})


def eval_pictures(jpegs: list[np.ndarray], size: tuple[int, int], views: TestViews, **kwargs) -> np.ndarray:
    inputs = graph.test_inputs(views, *size, jpegs)
    return run(graph.test_graph, inputs, views=views, **{"normalise": False, **kwargs})


def drawn_rows(count: int, height: int, width: int, **laws) -> np.ndarray:
    rng = np.random.default_rng(7)
    rows = draw_groups(rng, TrainViews(**laws), np.full(count, height), np.full(count, width))
    rows["blur"] *= rng.uniform(0.1, 2, count).astype(np.float32)
    return rows


def against_pil(rows: np.ndarray, jpegs: list[np.ndarray], size: int) -> np.ndarray:
    """PSNR in dB of every row."""
    ours = train_pictures(rows, jpegs, size)
    theirs = [train_view(jpeg, row, size) for row, jpeg in zip(rows, jpegs, strict=True)]
    return np.array([psnr(a, b) for a, b in zip(ours, theirs, strict=True)])


@pytest.mark.parametrize("size", [32, 224])
def test_views_without_jitter_match_pil(size: int):
    jpegs = [jpeg_of(seed, 240, 428) for seed in range(24)]
    assert against_pil(drawn_rows(24, 240, 428, jitter=0), jpegs, size).min() >= 45


def test_views_with_jitter_match_pil_in_every_order():
    jpegs = [jpeg_of(seed, 240, 428) for seed in range(48)]
    rows = drawn_rows(48, 240, 428, jitter=1)
    rows["order"] = np.arange(48) % 24
    found = against_pil(rows, jpegs, 96)
    assert found.min() >= 30
    assert np.median(found) >= 38


def test_each_colour_step_alone_matches_pil():
    jpegs = [jpeg_of(seed, 64, 112) for seed in range(2)]
    for step, values, bar in (
        ("brightness", (0.8, 1.2), 50),
        ("contrast", (0.8, 1.2), 50),
        ("saturation", (0.8, 1.2), 50),
        ("hue", (-0.05, 0.05), 30),  # YIQ turns hue as HSV does to first order only
    ):
        rows = drawn_rows(2, 64, 112, jitter=0, blur=0)
        rows[step] = values
        assert against_pil(rows, jpegs, 64).min() >= bar, step


def test_colours_clip_where_a_step_leaves_the_range():
    rows = drawn_rows(1, 64, 112, jitter=0, blur=0)
    rows["brightness"] = 3
    bright = train_pictures(rows, [jpeg_of(0, 64, 112)], 64)
    assert bright.max() == 255
    assert (bright == 255).mean() > 0.1


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_a_gaussian_of_its_sigma(sigma: float):
    rows = drawn_rows(1, 64, 112, jitter=0, blur=0)
    rows["blur"] = sigma
    assert against_pil(rows, [jpeg_of(0, 64, 112)], 64).min() >= 50


def test_flip_mirrors_the_same_crop():
    rows = np.repeat(drawn_rows(1, 64, 112, jitter=1, blur=1), 2)
    rows["flip"] = [False, True]
    plain, flipped = train_pictures(rows, [jpeg_of(0, 64, 112)] * 2, 40)
    assert (plain[:, ::-1] == flipped).all()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 128), (128, 8), (17, 33)])
def test_small_and_narrow_pictures(height: int, width: int):
    jpegs = [jpeg_of(seed, height, width) for seed in range(8)]
    assert against_pil(drawn_rows(8, height, width, jitter=0), jpegs, 32).min() >= 40


def test_a_crop_of_one_pixel():
    rows = np.zeros(1, VIEW)
    for name in ("height", "width", "brightness", "contrast", "saturation"):
        rows[name] = 1
    rows["top"], rows["left"] = 63, 111
    (view,) = train_pictures(rows, [jpeg_of(0, 64, 112)], 16)
    assert (view == view[0, 0]).all()


@pytest.mark.parametrize("kwargs", [{"subsampling": 0}, {"progressive": True}, {"optimize": True}])
def test_every_kind_of_jpeg(kwargs: dict):
    jpegs = [jpeg_of(seed, 64, 112, **kwargs) for seed in range(4)]
    assert against_pil(drawn_rows(4, 64, 112, jitter=0), jpegs, 48).min() >= 45


def test_grey_jpegs_become_three_equal_channels():
    buffer = io.BytesIO()
    Image.fromarray(draw_picture(0, 64, 112)).convert("L").save(buffer, "JPEG")
    jpegs = [np.frombuffer(buffer.getvalue(), np.uint8)]
    rows = drawn_rows(1, 64, 112, jitter=0)
    assert np.ptp(train_pictures(rows, jpegs, 32).astype(int), axis=-1).max() == 0
    assert against_pil(rows, jpegs, 32).min() >= 45


def test_normalised_views_are_the_same_pixels_in_imagenet_units():
    rows, jpegs = drawn_rows(4, 64, 112), [jpeg_of(seed, 64, 112) for seed in range(4)]
    plain, normal = train_pictures(rows, jpegs, 32), train_pictures(rows, jpegs, 32, normalise=True)
    assert normal.dtype == np.float32
    assert normal.shape == (4, 3, 32, 32)
    expected = (plain / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    # `plain` is rounded to whole grey levels, `normal` is not.
    np.testing.assert_allclose(normal.transpose(0, 2, 3, 1), expected, atol=0.51 / 255 / 0.224)


def test_a_picture_does_not_depend_on_the_batch_it_stands_in():
    rows, jpegs = drawn_rows(6, 64, 112), [jpeg_of(seed, 64, 112) for seed in range(6)]
    together = train_pictures(rows, jpegs, 32)
    alone = [train_pictures(rows[i : i + 1], jpegs[i : i + 1], 32)[0] for i in range(6)]
    assert (together == alone).all()


@pytest.mark.parametrize(
    ("height", "width", "short_side", "size"), [(240, 428, 256, 224), (64, 113, 50, 33), (97, 64, 64, 63)]
)
def test_test_views_match_pil(height: int, width: int, short_side: int, size: int):
    views, jpegs = TestViews(short_side, size), [jpeg_of(seed, height, width) for seed in range(3)]
    ours = eval_pictures(jpegs, (height, width), views)
    assert min(map(psnr, ours, map(partial(eval_view, views=views), jpegs))) >= 45


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the reference implementation's answers are not here")
def test_views_are_the_reference_implementations():
    cases = json.loads((GOLDEN / "views.json").read_text())
    with np.load(GOLDEN / "views.npz") as arrays:
        jpegs = [arrays[f"jpeg_{i}"] for i in range(len(cases))]
        theirs = [arrays[f"view_{i}"] for i in range(len(cases))]
    train = [i for i, case in enumerate(cases) if case["kind"] == "train"]
    rows = np.zeros(len(train), VIEW)
    for row, case in zip(rows, (cases[i] for i in train), strict=True):
        for name in ("top", "left", "height", "width"):
            row[name] = case[f"crop_{name}"]
        row["flip"], row["blur"], row["order"] = case["flip"], case["blur_radius"], ORDER_OF[tuple(case["order"])]
        for step in STEPS:
            row[step] = case[step] if case["jitter"] else step != "hue"
    ours = train_pictures(rows, [jpegs[i] for i in train], 224)
    found = np.array([psnr(picture, theirs[i]) for picture, i in zip(ours, train, strict=True)])
    jitter = np.array([cases[i]["jitter"] for i in train])
    assert found[~jitter].min() >= 45
    assert found[jitter].min() >= 30
    assert np.median(found[jitter]) >= 38

    tests = [i for i, case in enumerate(cases) if case["kind"] == "eval"]
    for i in tests:
        width, height = Image.open(io.BytesIO(jpegs[i].tobytes())).size
        (picture,) = eval_pictures([jpegs[i]], (height, width), TestViews())
        assert psnr(picture, theirs[i]) >= 45
    assert (len(train), len(tests)) == (14, 2)
