"""DALI's pixels against PIL's and numpy's, and against the recorded ones of the reference implementation."""

from __future__ import annotations

import ctypes
import io
import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines import fused, graph
from pipelines.views import ORDERS, STEPS, VIEW, TestViews, TrainViews, draw_groups

from .conftest import draw_picture
from .reference import coloured, eval_view, fused_view, psnr, train_view

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "bassl"
ORDER_OF = {tuple(STEPS[step] for step in order): number for number, order in enumerate(ORDERS)}


TrainPictures = Callable[[np.ndarray, list[np.ndarray], int], np.ndarray]
drawn = cache(draw_picture)


def jpeg_of(seed: int, height: int, width: int, **kwargs) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(drawn(seed, height, width)).save(buffer, "JPEG", quality=90, **kwargs)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def run(make_graph, inputs: tuple, gpu: bool = False) -> np.ndarray:
    """Normalised views `[N, size, size, 3]` of one batch through a graph."""
    kwargs = {"batch_size": len(inputs[0]), "num_threads": 2, "device_id": 0 if gpu else None}
    pipe = make_graph(source=lambda: inputs, prefetch_queue_depth=1, **kwargs)
    pipe.build()
    (pictures,) = pipe.run()
    return np.array((pictures.as_cpu() if gpu else pictures).as_array())


def grey_levels(normalised: np.ndarray) -> np.ndarray:
    """Normalised `[..., 3]` to whole grey levels, uint8."""
    return np.rint(normalised * graph.STD + graph.MEAN).astype(np.uint8)


def by_operators(rows: np.ndarray, jpegs: list[np.ndarray], size: int) -> np.ndarray:
    """Views of the graph of DALI's operators."""
    return run(partial(graph.train_graph, size=size), graph.train_inputs(rows, jpegs))


def on_gpu(rows: np.ndarray, jpegs: list[np.ndarray], size: int) -> np.ndarray:
    return run(partial(graph.train_graph, size=size, decoder="cuda"), graph.train_inputs(rows, jpegs), gpu=True)


def by_fused(rows: np.ndarray, jpegs: list[np.ndarray], size: int, bfloat16: bool = False) -> np.ndarray:
    """Views of the fused operator, which a CPU takes."""
    return run(partial(graph.fused_graph, size=size, bfloat16=bfloat16), graph.fused_inputs(rows, jpegs))


NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(params=[by_operators, by_fused, pytest.param(on_gpu, marks=NEEDS_GPU)])
def train_pictures(request: pytest.FixtureRequest) -> TrainPictures:
    """`train_pictures(rows, jpegs, size)` by either graph, in grey levels."""
    return lambda *arguments: grey_levels(request.param(*arguments))


def call_fused(crop: np.ndarray, row: np.void, size: int, following: np.ndarray) -> np.ndarray:
    """The fused operator's function without DALI, on crops `[h, w, 3]`, in grey levels, not rounded."""
    out, canvas = np.full((size, size, 3), np.nan, np.float32), np.zeros(size, np.uint8)
    parameters = fused.parameters(np.array([row]), np.zeros(3), np.ones(3))
    inputs = (canvas, np.ascontiguousarray(crop), parameters, np.ascontiguousarray(following))
    shapes = [np.array(array.shape, np.int64) for array in (out, *inputs)]
    pointer = lambda array: array.ctypes.data  # noqa: E731
    outs, out_shapes = (ctypes.c_void_p * 1)(pointer(out)), (ctypes.c_void_p * 1)(pointer(shapes[0]))
    ins, in_shapes = (ctypes.c_void_p * 4)(*map(pointer, inputs)), (ctypes.c_void_p * 4)(*map(pointer, shapes[1:]))
    for count in 2 ** np.arange(6, 15):  # what malloc hands out next is full of NaN
        np.full(count, np.nan, np.float32)
    fused.library().view_float32(outs, out_shapes, None, 1, ins, in_shapes, None, 4)
    return out


def eval_pictures(jpegs: list[np.ndarray], size: tuple[int, int], views: TestViews) -> np.ndarray:
    regions = np.zeros(len(jpegs), VIEW)
    regions["height"], regions["width"] = size
    inputs = graph.test_inputs(views, regions, np.full(len(jpegs), 0.5), jpegs)
    return grey_levels(run(partial(graph.test_graph, views=views), inputs))


def drawn_rows(count: int, height: int, width: int, **augmentation) -> np.ndarray:
    rng = np.random.default_rng(7)
    rows = draw_groups(rng, TrainViews(**augmentation), np.full(count, height), np.full(count, width))
    rows["blur"] *= rng.uniform(0.1, 2, count).astype(np.float32)
    return rows


@pytest.fixture
def against_pil(train_pictures: TrainPictures) -> TrainPictures:
    """`against_pil(rows, jpegs, size)`: PSNR in dB of every row."""

    def compare(rows: np.ndarray, jpegs: list[np.ndarray], size: int) -> np.ndarray:
        theirs = [train_view(jpeg, row, size) for row, jpeg in zip(rows, jpegs, strict=True)]
        return np.array([psnr(a, b) for a, b in zip(train_pictures(rows, jpegs, size), theirs, strict=True)])

    return compare


@pytest.mark.parametrize("size", [32, 224])
def test_views_without_jitter_match_pil(size: int, against_pil: TrainPictures):
    jpegs = [jpeg_of(seed, 240, 428) for seed in range(24)]
    assert against_pil(drawn_rows(24, 240, 428, jitter=0), jpegs, size).min() >= 45


def test_views_with_jitter_match_pil_in_every_order(against_pil: TrainPictures):
    jpegs = [jpeg_of(seed, 240, 428) for seed in range(48)]
    rows = drawn_rows(48, 240, 428, jitter=1)
    rows["order"] = np.arange(48) % 24
    found = against_pil(rows, jpegs, 96)
    assert found.min() >= 42
    assert np.median(found) >= 44


# Brightness, contrast, saturation and hue of the recipes of BaSSL, of SCE for images, and of SCE for clips; hue alone.
@pytest.mark.parametrize("jitter", [(0.2, 0.2, 0.2, 0.05), (0.4, 0.4, 0.2, 0.1), (0.8, 0.8, 0.4, 0.2), (0, 0, 0, 0.5)])
def test_jitter_of_any_colours_is_pils(jitter: tuple[float, ...]):
    """docs/design.md promises the least value; single colours show the rounding of PIL's steps most."""
    rng = np.random.default_rng(0)
    rows = drawn_rows(150, 16, 16, jitter=1, blur=0, **dict(zip(STEPS, jitter, strict=True)))
    for name, place in (("top", 0), ("left", 0), ("height", 16), ("width", 16), ("flip", False)):
        rows[name] = place
    for i, row in enumerate(rows):
        tiles = rng.integers(0, 256, ([1, 1, 3], [4, 4, 3], [16, 16, 3])[i % 3])  # one colour, patches, noise
        picture = tiles.repeat(16 // len(tiles), 0).repeat(16 // len(tiles), 1).astype(np.uint8)
        theirs = coloured(Image.fromarray(picture), row)
        assert psnr(np.rint(call_fused(picture, row, 16, picture)), theirs) >= 27, (row, picture[0, 0])


def test_each_colour_step_alone_matches_pil(against_pil: TrainPictures):
    jpegs = [jpeg_of(seed, 64, 112) for seed in range(2)]
    for step, values in (
        ("brightness", (0.8, 1.2)),
        ("contrast", (0.8, 1.2)),
        ("saturation", (0.8, 1.2)),
        ("hue", (-0.05, 0.05)),
        ("hue", (-0.2, 0.5)),
    ):
        rows = drawn_rows(2, 64, 112, jitter=0, blur=0)
        rows[step] = values
        assert against_pil(rows, jpegs, 64).min() >= 50, step


def test_hue_turns_as_in_hsv():
    """(200, 40, 40) turns towards yellow, and by thirds channels change places."""
    picture = np.full((8, 8, 3), (200, 40, 40), np.uint8)
    for turns, expected in (
        (0.05, (200, 88, 40)),
        (-0.05, (200, 40, 88)),
        (1 / 6, (200, 200, 40)),
        (1 / 3, (40, 200, 40)),
        (0.5, (40, 200, 200)),
        (-1 / 3, (40, 40, 200)),
    ):
        (row,) = drawn_rows(1, 8, 8, jitter=0, blur=0)
        row["hue"] = turns
        np.testing.assert_allclose(call_fused(picture, row, 8, picture)[0, 0], expected, atol=1e-3)


def test_grey_and_solarized_views_match_pil(against_pil: TrainPictures):
    jpegs = [jpeg_of(seed, 240, 428) for seed in range(16)]
    for augmentation in ({"grayscale": 1}, {"solarize": 1}, {"grayscale": 1, "solarize": 0.5}):
        rows = drawn_rows(16, 240, 428, jitter=0, **augmentation)
        assert rows["grey"].all() == ("grayscale" in augmentation)
        assert rows["solarize"].any() == ("solarize" in augmentation)
        assert against_pil(rows, jpegs, 96).min() >= 45, augmentation
    rows = drawn_rows(16, 240, 428, jitter=1, grayscale=1, solarize=0.5, brightness=0.4, contrast=0.4, hue=0.1)
    assert against_pil(rows, jpegs, 96).min() >= 40


def test_solarizing_inverts_every_level_from_128_on(train_pictures: TrainPictures):
    rows, jpegs = drawn_rows(2, 64, 112, jitter=0, blur=0), [jpeg_of(seed, 64, 112) for seed in range(2)]
    plain = train_pictures(rows, jpegs, 64)
    rows["solarize"] = True
    turned = train_pictures(rows, jpegs, 64).astype(int)
    # The fold is made of levels that are not rounded yet: 127.6 is 128, and 127.4 is 127.
    assert np.abs(turned - np.where(plain < 128, plain, 255 - plain)).max() <= 1
    assert turned.max() <= 128 < plain.max()


def test_grey_has_three_equal_channels(train_pictures: TrainPictures):
    rows = drawn_rows(4, 64, 112, jitter=1, grayscale=1, hue=0.2)
    pictures = train_pictures(rows, [jpeg_of(seed, 64, 112) for seed in range(4)], 32).astype(int)
    assert np.ptp(pictures, axis=-1).max() <= 1


def test_views_are_normalised_as_asked():
    rows, jpegs = drawn_rows(3, 64, 112), [jpeg_of(seed, 64, 112) for seed in range(3)]
    for gpu_graph in (False, True):
        found = []
        for mean, std in ((graph.IMAGENET_MEAN, graph.IMAGENET_STD), ((0.45, 0.4, 0.5), (0.225, 0.2, 0.25))):
            make, inputs = graph.train_path(32, mean=mean, std=std)
            if gpu_graph:  # DALI's operators, on the CPU
                make = partial(graph.train_graph, size=32, mean=255 * np.array(mean), std=255 * np.array(std))
                inputs = graph.train_inputs
            found.append((run(make, inputs(rows, jpegs)) * std + mean) * 255)
        np.testing.assert_allclose(*found, atol=1e-3)


def test_colours_clip_where_a_step_leaves_the_range(train_pictures: TrainPictures):
    rows = drawn_rows(1, 64, 112, jitter=0, blur=0)
    rows["brightness"] = 3
    bright = train_pictures(rows, [jpeg_of(0, 64, 112)], 64)
    assert bright.max() == 255
    assert (bright == 255).mean() > 0.1


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_a_gaussian_of_its_sigma(sigma: float, against_pil: TrainPictures):
    rows = drawn_rows(1, 64, 112, jitter=0, blur=0)
    rows["blur"] = sigma
    assert against_pil(rows, [jpeg_of(0, 64, 112)], 64).min() >= 50


def test_flip_mirrors_the_same_crop(train_pictures: TrainPictures):
    rows = np.repeat(drawn_rows(1, 64, 112, jitter=1, blur=1), 2)
    rows["flip"] = [False, True]
    plain, flipped = train_pictures(rows, [jpeg_of(0, 64, 112)] * 2, 40)
    assert (plain[:, ::-1] == flipped).all()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 128), (128, 8), (17, 33)])
def test_small_and_narrow_pictures(height: int, width: int, against_pil: TrainPictures):
    jpegs = [jpeg_of(seed, height, width) for seed in range(8)]
    assert against_pil(drawn_rows(8, height, width, jitter=0), jpegs, 32).min() >= 40


def test_a_crop_of_one_pixel(train_pictures: TrainPictures):
    rows = np.zeros(1, VIEW)
    for name in ("height", "width", "brightness", "contrast", "saturation"):
        rows[name] = 1
    rows["top"], rows["left"] = 63, 111
    (view,) = train_pictures(rows, [jpeg_of(0, 64, 112)], 16)
    assert (view == view[0, 0]).all()


@pytest.mark.parametrize("kwargs", [{"subsampling": 0}, {"progressive": True}, {"optimize": True}])
def test_every_kind_of_jpeg(kwargs: dict, against_pil: TrainPictures):
    jpegs = [jpeg_of(seed, 64, 112, **kwargs) for seed in range(4)]
    assert against_pil(drawn_rows(4, 64, 112, jitter=0), jpegs, 48).min() >= 45


def test_grey_jpegs_become_three_equal_channels(train_pictures: TrainPictures, against_pil: TrainPictures):
    buffer = io.BytesIO()
    Image.fromarray(drawn(0, 64, 112)).convert("L").save(buffer, "JPEG")
    jpegs = [np.frombuffer(buffer.getvalue(), np.uint8)]
    rows = drawn_rows(1, 64, 112, jitter=0)
    assert np.ptp(train_pictures(rows, jpegs, 32).astype(int), axis=-1).max() == 0
    assert against_pil(rows, jpegs, 32).min() >= 45


@pytest.mark.parametrize("size", [32, 65, 224])
def test_both_graphs_make_the_same_views(size: int):
    jpegs = [jpeg_of(seed, 240, 428) for seed in range(32)]
    rows = drawn_rows(32, 240, 428, grayscale=0.3, solarize=0.3)
    operators, fused = by_operators(rows, jpegs, size), by_fused(rows, jpegs, size)
    assert fused.dtype == operators.dtype == np.float32
    assert fused.shape == operators.shape == (32, size, size, 3)
    found = [psnr(a * graph.STD, b * graph.STD) for a, b in zip(operators, fused, strict=True)]
    assert min(found) >= 50


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    size=st.integers(8, 70),
    sigma=st.sampled_from([0, 0.1, 0.7, 2, 9]),
    flip=st.booleans(),
    grey=st.booleans(),
    solarize=st.booleans(),
    difference=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_any_crop_to_any_size_is_the_arithmetic_in_numpy(
    height: int,
    width: int,
    size: int,
    sigma: float,
    flip: bool,
    grey: bool,
    solarize: bool,
    difference: bool,
    seed: int,
):
    rng = np.random.default_rng(seed)
    crop, following = rng.integers(0, 256, (2, height, width, 3), np.uint8)
    (row,) = drawn_rows(1, height, width, jitter=1)
    row["flip"], row["blur"], row["grey"], row["solarize"] = flip, sigma, grey, solarize
    row["difference"] = difference
    ours = call_fused(crop, row, size, following)
    np.testing.assert_allclose(ours, fused_view(crop, row, size, following), atol=0.01)


@pytest.mark.parametrize("fused_operator", [False, True])
def test_a_difference_is_that_of_whole_frames(fused_operator: bool):
    rows = drawn_rows(12, 64, 112, jitter=0, grayscale=0.2, solarize=0.3)
    rows["difference"] = np.arange(12) % 3 > 0
    jpegs = [jpeg_of(seed, 64, 112) for seed in range(24)]
    asked = [jpegs[12 + i] for i in np.flatnonzero(rows["difference"])]
    inputs = partial(graph.clip_inputs, rows, [*jpegs[:12], *asked])
    if fused_operator:
        ours = run(partial(graph.fused_clip_graph, size=48, bfloat16=False), inputs(inputs=graph.fused_inputs))
    else:
        ours = run(partial(graph.train_graph, size=48, clips=True), inputs(inputs=graph.train_inputs))
    theirs = [train_view(jpeg, row, 48, after) for jpeg, row, after in zip(jpegs[:12], rows, jpegs[12:], strict=True)]
    assert min(map(psnr, grey_levels(ours), theirs)) >= 44
    plain = by_fused(rows, jpegs[:12], 48) if fused_operator else by_operators(rows, jpegs[:12], 48)
    same = [np.array_equal(a, b) for a, b in zip(ours, plain, strict=True)]
    assert same == (~rows["difference"]).tolist()


def test_bfloat16_is_float32_rounded_to_nearest():
    rows, jpegs = drawn_rows(4, 64, 112), [jpeg_of(seed, 64, 112) for seed in range(4)]
    bits = torch.from_numpy(by_fused(rows, jpegs, 40, bfloat16=True)).view(torch.bfloat16)
    assert torch.equal(bits, torch.from_numpy(by_fused(rows, jpegs, 40)).bfloat16())


def test_a_picture_does_not_depend_on_its_batch(train_pictures: TrainPictures):
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


def test_three_test_views_lie_along_the_long_side_of_pictures_of_any_size():
    views, sizes = TestViews(40, 40, crops=3), [(240, 428), (97, 64), (64, 64)]
    jpegs = [jpeg_of(0, *size) for size in sizes for _ in views.places]
    regions = np.zeros(len(jpegs), VIEW)
    regions["height"], regions["width"] = np.repeat(sizes, 3, 0).T
    places = np.tile(views.places, len(sizes))
    ours = grey_levels(run(partial(graph.test_graph, views=views), graph.test_inputs(views, regions, places, jpegs)))
    assert min(psnr(o, eval_view(j, views, p)) for o, j, p in zip(ours, jpegs, places, strict=True)) >= 45
    for left, middle, right in ours[:6].reshape(2, 3, 40, 40, 3):
        assert psnr(left, middle) < 30
        assert psnr(middle, right) < 30


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs the reference's answers, which are too large for the repository")
def test_views_are_the_reference_implementations(train_pictures: TrainPictures):
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
    assert found[jitter].min() >= 43
    assert np.median(found[jitter]) >= 44

    tests = [i for i, case in enumerate(cases) if case["kind"] == "eval"]
    for i in tests:
        width, height = Image.open(io.BytesIO(jpegs[i].tobytes())).size
        (picture,) = eval_pictures([jpegs[i]], (height, width), TestViews())
        assert psnr(picture, theirs[i]) >= 45
    assert (len(train), len(tests)) == (14, 2)


def test_exif_orientation_is_ignored(train_pictures: TrainPictures):
    """The index counts rows as stored, and crops are drawn in them."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees
    plain, tagged = jpeg_of(3, 48, 64), jpeg_of(3, 48, 64, exif=exif)
    rows = drawn_rows(1, 48, 64)
    assert np.array_equal(train_pictures(rows, [tagged], 32), train_pictures(rows, [plain], 32))
    views = TestViews(40, 32)
    assert np.array_equal(eval_pictures([tagged], (48, 64), views), eval_pictures([plain], (48, 64), views))
