"""What there is to run on."""

from __future__ import annotations

import os
from functools import cache
from typing import Literal

import torch

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]


def device() -> torch.device:
    """The GPU of this process, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


@cache
def say_device() -> None:
    """Say in one line, once, when there is no GPU."""
    if not torch.cuda.is_available():
        print(f"no GPU found: running on the CPU ({torch.get_num_threads()} threads)", flush=True)


def precision(wanted: Precision) -> str:
    """Lightning's name of the precision; "auto" is bfloat16 where the hardware multiplies it, else float32."""
    if wanted != "auto":
        return wanted
    fast = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if torch.cuda.is_available()
        else torch.cpu._is_avx512_bf16_supported()
    )
    return "bf16-mixed" if fast else "32-true"


def threads(wanted: int, processes: int = 1) -> int:
    """CPU threads of a data pipeline; 0 takes the share of the cores that one of `processes` on this machine has."""
    return wanted or max(1, len(os.sched_getaffinity(0)) // processes)
