"""The kernels of Triton: their numbers by Triton's interpreter on a CPU, and that they compile for GPUs."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import pipelines
from pipelines import fused, graph
from pipelines.clip_sampling import show_differences
from pipelines.loader import WindowLoader
from pipelines.samples import Centers, Drawn, Sampler
from pipelines.views import draw_clips
from shard_tools.errors import ConfigError, MissingDependency
from shard_tools.shards.index import ShardIndex

from .conftest import SIZE, VIEWS, sample
from .reference import fused_view, psnr
from .test_graph import by_fused, by_operators, drawn_rows, jpeg_of

triton = pytest.importorskip("triton", reason="needs Triton, which comes with torch for CUDA")
ASTSource, GPUTarget = pytest.importorskip("triton.compiler").ASTSource, triton.backends.compiler.GPUTarget
pytestmark = pytest.mark.slow

NAME = "pipelines.triton_views"
ROWS: list[tuple[tuple[int, int], dict[str, float]]] = [  # size of a crop, and what its row has
    ((40, 48), {}),
    ((9, 17), {"hue": 0.4, "saturation": 1.8, "brightness": 1.7}),
    ((1, 1), {"flip": True}),
    ((30, 26), {"blur": 3, "grey": True}),
    ((30, 26), {"blur": 0, "difference": True, "flip": True}),
    ((26, 30), {"contrast": 1, "solarize": True}),
]


@pytest.fixture(scope="module")
def interpreted() -> Iterator[ModuleType]:
    """`triton_views`, run by the interpreter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        patch.delitem(sys.modules, NAME, raising=False)
        patch.delattr(pipelines, "triton_views", raising=False)
        module = importlib.import_module(NAME)
        module._TOGETHER = 4  # fewer than a test has
        module._add = triton.language.standard._sum_combine  # by which the interpreter adds in numpy, not pair by pair
        yield module
        del sys.modules[NAME], pipelines.triton_views


def cases() -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Rows, images of noise of their sizes, and next ones."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([drawn_rows(1, *sides, jitter=1) for sides, _ in ROWS])
    rows["order"] = rng.permutation(24)[: len(rows)]
    for row, (_, changes) in zip(rows, ROWS, strict=True):
        for name, value in changes.items():
            row[name] = value
    return rows, *([rng.integers(0, 256, (*sides, 3), np.uint8) for sides, _ in ROWS] for _ in range(2))


def made(
    module: ModuleType, rows: np.ndarray, images: list[np.ndarray], after: list[np.ndarray], size: int, device: str
) -> np.ndarray:
    """Views in grey levels of images `[N]` of `[h, w, 3]`, whose whole is the crop, less those `after` them."""
    crops = np.zeros(len(rows), module.CROP)
    there = [[torch.from_numpy(image).to(device) for image in each] for each in (images, after)]
    for crop, row, image, next_image in zip(crops, rows, *there, strict=True):
        crop["image"], crop["following"] = image.data_ptr(), next_image.data_ptr() * row["difference"]
        crop["height"], crop["width"] = image.shape[:2]
    crops["pitch"] = 3 * crops["width"]
    parameters = fused.parameters(rows, np.zeros(3), np.ones(3))
    crops["split"] = module.before_contrast(parameters)
    return module.make_views(crops, parameters, size, torch.float32, torch.device(device)).cpu().numpy()


def check_arithmetic(module: ModuleType, device: str) -> None:
    rows, images, after = cases()
    views = made(module, rows, images, after, 32, device)
    for ours, *given in zip(views, images, rows, [32] * len(rows), after, strict=True):
        np.testing.assert_allclose(ours, fused_view(*given), atol=0.01)
    (again,) = made(module, rows[:1], images[:1], after[:1], 32, device)
    assert np.array_equal(again, views[0])
    (large,) = made(module, rows[:1], images[:1], after[:1], 40, device)  # more than a program
    np.testing.assert_allclose(large, fused_view(images[0], rows[0], 40, after[0]), atol=0.01)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("decoder", ["cuda", "hardware"])
def test_on_a_gpu(decoder: graph.Decoder, shards: ShardIndex):
    """The first test here, as those below leave Triton's interpreter on."""
    check_arithmetic(importlib.import_module(NAME), "cuda")
    options = {"global_batch": 4, "seed": 3, "dtype": torch.bfloat16}
    load = partial(WindowLoader, shards, shards.select(None), sample, SIZE, **options)
    triton = {"device": "cuda", "decoder": decoder, "triton": True}
    theirs, ours = (torch.cat([batch["images"].cpu() for batch in load(**given)]) for given in ({}, triton))
    for pair in zip(ours.flatten(0, 1), theirs.flatten(0, 1), strict=True):
        assert psnr(*(rows.float().numpy() * graph.STD[:, None, None] for rows in pair)) >= 40
    halves = [load(rank=rank, world_size=2, **triton) for rank in range(2)]
    parts = [torch.cat([half["images"].cpu() for half in both]) for both in zip(*halves, strict=True)]
    assert torch.equal(ours, torch.cat(parts))


def test_views_are_the_arithmetic_in_numpy(interpreted: ModuleType):
    check_arithmetic(interpreted, "cpu")


def by_kernels(module: ModuleType, rows: np.ndarray, jpegs: list[np.ndarray], side: tuple[int, int], size: int):
    """Normalised views of the images that DALI decodes."""
    regions = np.zeros(len(jpegs), rows.dtype)
    regions["height"], regions["width"] = side
    image = np.arange(len(jpegs))
    inputs = graph.whole_inputs(regions, image, jpegs)
    pipe = graph.whole_graph(source=lambda: inputs, batch_size=len(jpegs), num_threads=1, device_id=None)
    pipe.build()
    (images,) = pipe.run()
    finish = partial(module.of_images, size=size, mean=graph.IMAGENET_MEAN, std=graph.IMAGENET_STD)
    return finish(rows, image, regions["width"], images, dtype=torch.float32, device=torch.device("cpu")).numpy()


def test_views_of_jpegs_are_those_of_the_fused_operator(interpreted: ModuleType):
    jpegs, rows = [jpeg_of(seed, 64, 112) for seed in range(3)], drawn_rows(3, 64, 112, grayscale=0.3, solarize=0.3)
    ours = by_kernels(interpreted, rows, jpegs, (64, 112), 32)
    np.testing.assert_allclose(ours * graph.STD, by_fused(rows, jpegs, 32) * graph.STD, atol=0.01)
    operators = by_operators(rows, jpegs, 32)
    assert min(psnr(a * graph.STD, b * graph.STD) for a, b in zip(ours, operators, strict=True)) >= 50


def few(centers: Centers, rng: np.random.Generator) -> Drawn:
    """Three views of two key-frames."""
    drawn = sample(centers, rng)
    return replace(drawn, views=drawn.views[:, [0, 2, 6]])


def differences(centers: Centers, rng: np.random.Generator) -> Drawn:
    """A clip of two frames, each less its next one."""
    frames = centers.frames(centers.position[:, None], np.arange(2))
    clips = draw_clips(rng, replace(VIEWS, size=32), centers.height, centers.width, frames)
    return Drawn(show_differences(clips, np.ones(len(clips), bool), centers)[:, None])


@pytest.mark.parametrize("sampler", [few, differences])
def test_the_loader_decodes_each_key_frame_once(
    sampler: Sampler,
    interpreted: ModuleType,
    shards: ShardIndex,
    videos: ShardIndex,
    monkeypatch: pytest.MonkeyPatch,
):
    counts, whole_inputs = [], graph.whole_inputs

    def counted(*given):
        counts.append(len(given[1]))
        return whole_inputs(*given)

    monkeypatch.setattr(graph, "whole_inputs", counted)
    index = shards if sampler is few else videos
    options = {"seed": 3, "threads": 1, "prefetch": 1}
    load = partial(WindowLoader, index, index.select(None), sampler, 32, **options)
    theirs, ours = (load(global_batch=1, triton=triton)._at(0, 0).batch["images"] for triton in (False, True))
    assert set(counts) == {2}
    scale = 255 * torch.tensor(graph.IMAGENET_STD)[:, None, None]
    torch.testing.assert_close(ours * scale, theirs * scale, atol=0.01, rtol=0)
    assert ours.flatten(0, -4).is_contiguous(memory_format=torch.channels_last)


def test_a_gpu_must_have_decoded_the_images(interpreted: ModuleType, shards: ShardIndex, monkeypatch):
    monkeypatch.setattr(interpreted, "INTERPRETED", False)
    with pytest.raises(ConfigError, match="triton: makes views of images that the GPU decoded; choose decoder cuda"):
        WindowLoader(shards, shards.select(None), few, SIZE, global_batch=2, triton=True)


def test_without_triton_it_says_so(shards: ShardIndex, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    monkeypatch.delattr(pipelines, "triton_views", raising=False)
    with pytest.raises(MissingDependency, match=r"Triton is not installed.* choose data.views gpu or cpu"):
        WindowLoader(shards, shards.select(None), few, SIZE, global_batch=2, triton=True)


def test_without_a_compiler_it_says_so(interpreted: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name, value in {"PATH": "", "TRITON_CACHE_DIR": str(tmp_path), "TRITON_LIBCUDA_PATH": "/"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(MissingDependency, match=r"cannot start \(Failed to find C compiler.*; it needs a C compiler"):
        interpreted.check_driver()


def test_the_kernels_compile_for_a_gpu(interpreted: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """To machine code of an H200; the interpreter truncates to bfloat16, the GPU rounds to nearest."""
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    spec = importlib.util.spec_from_file_location("compiled", interpreted.__file__)
    compiled = importlib.util.module_from_spec(spec)
    compiled.__package__ = "pipelines"
    spec.loader.exec_module(compiled)
    pointers = {"crops": "*i64", "out": "*bf16"}
    for name in ("_resample", "_colour", "_blur_across", "_blur_down"):
        kernel = getattr(compiled, name)
        sizes = {"BLOCK": compiled._BLOCK, "BLOCKS": 64}
        kinds = {arg: "i32" if arg in ("size", "blocks") else pointers.get(arg, "*fp32") for arg in kernel.arg_names}
        sizes = {arg: size for arg, size in sizes.items() if arg in kinds}
        source = ASTSource(kernel, kinds | dict.fromkeys(sizes, "constexpr"), constexprs=sizes)
        built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": compiled._WARPS})
        assert built.asm["cubin"]
        assert ("cvt.rn.bf16" in built.asm["ptx"]) == (name == "_blur_down")
