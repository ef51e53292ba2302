"""View rows -> pixels: the DALI graph, with no random number of its own.

A row becomes a picture in this order: decode only the crop region, antialiased bilinear resize, colour steps, each
clipped to 0..255, Gaussian blur, solarize, flip, normalise. The flip is last because it commutes with all steps before
it and is free inside the normalisation. If a frame of a clip shows the change to the next one, that one is decoded and
resized too, and subtracted; these steps are linear, so the result is that of whole frames. On a GPU DALI's operators
do this (`train_graph`); on a CPU one operator does everything after the decode (`fused_graph`), several times as fast,
and the views of either may be copied to a GPU. All parameters of a row come in through `source`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch

from . import fused
from .dali import backend, dali_math, fn, pipeline_def, types
from .views import GREY, IMAGENET_MEAN, IMAGENET_STD, ORDERS, STEPS, TestViews, colour_steps

# ImageNet's, in grey levels.
MEAN, STD = 255 * np.array(IMAGENET_MEAN), 255 * np.array(IMAGENET_STD)
Channels = Sequence[float]  # one number a channel
# 3x3: the next channel of a pixel (of blue: red), the previous one, and its grey level.
NEXT, PREVIOUS, LUMA = np.eye(3)[[1, 2, 0]], np.eye(3)[[2, 0, 1]], np.tile(GREY, (3, 1))
CONTRAST, HUE = STEPS.index("contrast"), STEPS.index("hue")
# Where JPEGs are decoded: on the CPU, by CUDA kernels, or by the JPEG engines that some GPUs have.
Decoder = Literal["cpu", "cuda", "hardware"]

PIXELS = {"axis_names": "HW", "normalized_anchor": False, "normalized_shape": False}
# Smooth chroma upsampling, as in libjpeg and PIL.
DECODE = {"jpeg_fancy_upsampling": True}
if backend.GetSchema("decoders__Image").HasArgument("adjust_orientation"):
    DECODE["adjust_orientation"] = False  # rows as stored, like the index; DALI 1.34 always does so


def default_decoder(device: torch.device) -> Decoder:
    """CUDA kernels on a GPU: every GPU has them, in every container."""
    return "cuda" if device.type == "cuda" else "cpu"


def decoding(decoder: Decoder) -> dict[str, object]:
    """Arguments of DALI's decoders for one kind of decoder.

    By default DALI gives the first 65 % of a batch to the hardware and the rest to CUDA. Their inverse transforms may
    differ by a grey level, so pixels would depend on the place in the batch, hence on the number of processes.
    """
    return {"device": "cpu"} if decoder == "cpu" else {"device": "mixed", "hw_decoder_load": float(decoder != "cuda")}


def train_path(
    size: int,
    decoder: Decoder = "cpu",
    to_gpu: bool = False,
    bfloat16: bool = False,
    mean: Channels = IMAGENET_MEAN,
    std: Channels = IMAGENET_STD,
    clips: bool = False,
) -> tuple[Callable, Callable]:
    """The graph that makes training views of `size` pixels on this machine, and the function that makes its inputs.

    Args:
        size: side of the views in pixels.
        decoder: where JPEGs are decoded, and views made.
        to_gpu: copy views that were made on the CPU to the GPU.
        bfloat16: training uses bfloat16, which the fused operator writes; DALI's operators only have float32.
        mean, std: of the channels, as of `TrainViews`.
        clips: rows may have `difference`; the JPEGs of `views.following` then follow those of the rows.
    """
    grey_mean, grey_std = 255 * np.array(mean), 255 * np.array(std)
    inputs: Callable
    if decoder == "cpu" and fused.library():
        make_graph = fused_clip_graph if clips else fused_graph
        inputs = partial(fused_inputs, mean=grey_mean, std=grey_std)
        make_graph = partial(make_graph, size=size, bfloat16=bfloat16, to_gpu=to_gpu)
    else:
        make_graph = partial(
            train_graph, size=size, decoder=decoder, to_gpu=to_gpu, mean=grey_mean, std=grey_std, clips=clips
        )
        inputs = train_inputs
    return make_graph, partial(clip_inputs, inputs=inputs) if clips else inputs


def fused_inputs(rows: np.ndarray, jpegs: list[np.ndarray], mean: np.ndarray = MEAN, std: np.ndarray = STD) -> tuple:
    """Inputs of `fused_graph` for view rows `[N]` and their JPEG bytes; `mean` and `std` `[3]` in grey levels."""
    return jpegs, *_region(rows), fused.parameters(rows, mean, std)


def train_inputs(rows: np.ndarray, jpegs: list[np.ndarray]) -> tuple:
    """Inputs of `train_graph` for view rows `[N]` and their JPEG bytes."""
    jitter = colour_steps(rows)[:, 1:5, None, None]
    matrix = jitter["own"] * np.eye(3) + jitter["next"] * NEXT + jitter["previous"] * PREVIOUS + jitter["grey"] * LUMA
    colours = matrix, jitter["mean"] * LUMA, jitter["extremes"]
    # The window reaches 3 sigma to either side; a window of 1 is no blur.
    window = np.where(rows["blur"] > 0, 2 * np.ceil(3 * rows["blur"]) + 1, 1)
    return (
        jpegs,
        *_region(rows),
        window.astype(np.int32),
        np.maximum(rows["blur"], np.float32(1e-3)),
        *(rows[name].astype(np.int32) for name in ("grey", "solarize", "flip")),
        *np.ascontiguousarray(ORDERS[rows["order"]].T, np.int32),
        *(numbers[:, place].astype(np.float32) for place in range(4) for numbers in colours),
    )


def clip_inputs(rows: np.ndarray, jpegs: list[np.ndarray], inputs: Callable) -> tuple:
    """Inputs of the graph of `inputs` for clips: additionally the next frames, and which rows have one."""
    next_frames, nothing = iter(jpegs[len(rows) :]), np.zeros(1, np.uint8)
    after = [next(next_frames) if differs else nothing for differs in rows["difference"]]
    return *inputs(rows, jpegs[: len(rows)]), after, rows["difference"].astype(np.int32)


def whole_inputs(regions: np.ndarray, first: np.ndarray, jpegs: list[np.ndarray]) -> tuple:
    """Inputs of `whole_graph`: the images `first` `[U]` of the JPEGs `[N]`; `regions` `[N]` have their sizes."""
    return [jpegs[at] for at in first], *_region(regions[first])


def _region(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([rows["top"], rows["left"]], 1), np.stack([rows["height"], rows["width"]], 1)


def test_inputs(views: TestViews, regions: np.ndarray, places: np.ndarray, jpegs: list[np.ndarray]) -> tuple:
    """Inputs of `test_graph` for JPEGs `[N]`.

    The long side is rounded down and the corner of the crop half to even, as by torchvision's Resize and CenterCrop.

    Args:
        views: sizes of the views.
        regions: `[N]` rows with `height` and `width` of the pictures.
        places: `[N]` of `TestViews.places`.
        jpegs: their bytes.
    """
    source = np.stack([regions["height"], regions["width"]], 1).astype(np.int64)
    short = source.min(1, keepdims=True)
    size = source * views.short_side // short
    place = np.where(source == short, 0.5, places[:, None])
    corner = np.rint((size - views.size) * place).astype(np.int32)
    return jpegs, size.astype(np.float32), corner


@pipeline_def
def fused_graph(source: Callable[[], tuple], size: int, bfloat16: bool, to_gpu: bool = False):
    """Training views `[N, size, size, 3]`, float32 or the bits of bfloat16 as int16, made on the CPU."""
    jpeg, anchor, shape, row = fn.external_source(
        source=source, num_outputs=4, dtype=[types.UINT8, types.INT32, types.INT32, types.FLOAT], ndim=[1, 1, 1, 1]
    )
    views = fused.view(_decode_region(jpeg, anchor, shape, "cpu"), row, size, bfloat16)
    return views.gpu() if to_gpu else views


@pipeline_def(enable_conditionals=True)
def fused_clip_graph(source: Callable[[], tuple], size: int, bfloat16: bool, to_gpu: bool = False):
    """As `fused_graph`, of rows that may have `difference`."""
    jpeg, anchor, shape, row, after, difference = fn.external_source(
        source=source,
        num_outputs=6,
        dtype=[types.UINT8, types.INT32, types.INT32, types.FLOAT, types.UINT8, types.INT32],
        ndim=[1, 1, 1, 1, 1, 0],
    )
    crop = _decode_region(jpeg, anchor, shape, "cpu")
    following = crop  # not used
    if difference > 0:
        following = _decode_region(after, anchor, shape, "cpu")
    views = fused.view(crop, row, size, bfloat16, following)
    return views.gpu() if to_gpu else views


@pipeline_def(enable_conditionals=True)
def train_graph(
    source: Callable[[], tuple],
    size: int,
    decoder: Decoder = "cpu",
    to_gpu: bool = False,
    mean: np.ndarray = MEAN,
    std: np.ndarray = STD,
    clips: bool = False,
):
    """Training views `[N, size, size, 3]` float32."""
    integer, real = types.INT32, types.FLOAT
    inputs = fn.external_source(
        source=source,
        num_outputs=26 if clips else 24,
        dtype=[types.UINT8, integer, integer, integer, real, *[integer] * 7, *[real] * 12]
        + [types.UINT8, integer] * clips,
        ndim=[1, 1, 1, *[0] * 9, *[2] * 12] + [1, 0] * clips,
    )
    jpeg, anchor, shape, window, sigma, grey, solarize, flip = inputs[:8]
    steps, weights = inputs[8:12], inputs[12:24]
    # Float from here on: DALI's conversion to uint8 costs more than it saves on a CPU.
    images = _resize(_decode_region(jpeg, anchor, shape, decoder), size)
    if clips:
        after, difference = inputs[24:]
        if difference > 0:
            change = images - _resize(_decode_region(after, anchor, shape, decoder), size)
            images = fn.coord_transform(change, M=(LUMA / 2).ravel().tolist(), T=127.5)
    for place in range(4):
        matrix, mean_grey, extremes = weights[3 * place : 3 * place + 3]
        if steps[place] == HUE:
            images = _turn(images, matrix, extremes)
        elif steps[place] == CONTRAST:
            mean_pixel = fn.reductions.mean(images, axes=[0, 1], keep_dims=True)
            images = _clip(fn.coord_transform(images, M=matrix) + fn.coord_transform(mean_pixel, M=mean_grey))
        else:
            images = _clip(fn.coord_transform(images, M=matrix))
    if grey > 0:
        images = fn.coord_transform(images, M=LUMA.ravel().tolist())
    if window > 1:
        images = fn.gaussian_blur(images, sigma=sigma, window_size=window)
    if solarize > 0:
        images = dali_math.min(images, 255.0 - images)  # equal at 127.5, so the threshold is between 127 and 128
    views = _normalise(images, mean, std, mirror=flip)
    return views.gpu() if to_gpu and decoder == "cpu" else views


@pipeline_def
def whole_graph(source: Callable[[], tuple], decoder: Decoder = "cpu"):
    """Whole images `[h, w, 3]` uint8, of any sizes."""
    jpeg, anchor, shape = fn.external_source(
        source=source, num_outputs=3, dtype=[types.UINT8, types.INT32, types.INT32], ndim=[1, 1, 1]
    )
    return _decode_region(jpeg, anchor, shape, decoder)


@pipeline_def
def test_graph(source: Callable[[], tuple], views: TestViews, decoder: Decoder = "cpu"):
    """Test views `[N, size, size, 3]` float32."""
    jpeg, size, corner = fn.external_source(
        source=source, num_outputs=3, dtype=[types.UINT8, types.FLOAT, types.INT32], ndim=[1, 1, 1]
    )
    images = fn.decoders.image(jpeg, **DECODE, **decoding(decoder))
    images = fn.resize(images, size=size, interp_type=types.INTERP_CUBIC, antialias=True)
    # On a GPU a list would become a constant there, which the operator would have to wait for.
    images = fn.slice(images, corner, types.Constant([views.size, views.size], device="cpu"), **PIXELS)
    return _normalise(images, 255 * np.array(views.mean), 255 * np.array(views.std))


test_inputs.__test__ = test_graph.__test__ = False  # type: ignore[attr-defined]  # for pytest: not tests


def _decode_region(jpeg, anchor, shape, decoder: Decoder):
    return fn.decoders.image_slice(jpeg, anchor, shape, **PIXELS, **DECODE, **decoding(decoder))


def _resize(images, size: int):
    kwargs = {"interp_type": types.INTERP_LINEAR, "antialias": True, "dtype": types.FLOAT}
    return fn.resize(images, size=[size, size], **kwargs)


def _clip(images):
    return dali_math.clamp(images, 0.0, 255.0)


def _turn(images, matrix, extremes):
    """Turn the hue, see `views.STEP`."""
    least, most = (reduce(images, axes=[2], keep_dims=True) for reduce in (fn.reductions.min, fn.reductions.max))
    turned = fn.coord_transform(images, M=matrix) + fn.coord_transform(least + most, M=extremes)
    return dali_math.clamp(turned, least, most)


def _normalise(images, mean: np.ndarray, std: np.ndarray, **kwargs):
    """(level - mean) / std, channels last: the fastest layout for convolutions."""
    return fn.crop_mirror_normalize(
        images, dtype=types.FLOAT, output_layout="HWC", mean=mean.tolist(), std=std.tolist(), **kwargs
    )
