"""Where the training views of a run on GPUs are made: on the CPU's cores, or on the GPU itself."""

from __future__ import annotations

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from bassl_fast.encoders import ClipEncoder, Encoder
from pipelines.graph import Decoder
from shard_tools.errors import ConfigError

from .options import Views

# Estimates, not measured on a GPU: what a core makes of 224 pixels beside training, and what an H200 trains with
# ResNet-50 in bfloat16, which takes 4.1e9 multiply-accumulates a view.
_MADE_PER_CORE = 1500
_TRAINED, _OF_MACS = 3500, 4.1e9
_RESERVE = 1.3
_SIDE = 224


def place_views(wanted: Views, gpu: bool, cores: float, made: float, trained: float) -> Decoder:
    """Where views are made.

    Args:
        wanted: the option `data.views`.
        gpu: whether training runs on GPUs.
        cores: CPU cores per GPU.
        made, trained: views/s that a core makes, and that a GPU trains on.

    Raises:
        ConfigError: the GPU is to make them, and there is none.
    """
    if wanted in ("gpu", "triton") and not gpu:
        raise ConfigError(f"data.views {wanted}: no GPU found; choose cpu or auto")
    if wanted == "auto":
        wanted = "cpu" if not gpu or cores * made >= _RESERVE * trained else "gpu"
    return "cpu" if wanted == "cpu" else "cuda"


def rates(encoder: Encoder, size: int, frames: int) -> tuple[float, float]:
    """Estimated views/s that a core makes, and that a GPU trains on; a frame of a clip is a view.

    Args:
        encoder: to train.
        size: side of the views in pixels.
        frames: of a clip; 1 for images.
    """
    abstract = copy.deepcopy(encoder).to("meta").eval()
    shape = (1, 3, frames, size, size) if isinstance(encoder, ClipEncoder) else (1, 3, size, size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        abstract.forward(torch.empty(shape, device="meta"))
    macs = counter.get_total_flops() / 2 / (frames if isinstance(encoder, ClipEncoder) else 1)
    return _MADE_PER_CORE * (_SIDE / size) ** 2, _TRAINED * _OF_MACS / max(macs, 1)


def in_words(decoder: Decoder, cores: int, triton: bool) -> str:
    """One line for the start of a run on GPUs."""
    if decoder == "cpu":
        return f"training views are made on the CPU ({cores} cores per GPU) and copied to the GPU"
    by = "by Triton's kernels" if triton else "on the GPU"
    return f"training views are made {by}; all JPEGs are decoded by CUDA, none by hardware decoders"
