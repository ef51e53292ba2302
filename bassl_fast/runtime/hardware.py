"""Device, precision and threads of this run, without Lightning, which takes seconds to import."""

from __future__ import annotations

import os
from functools import cache

import torch

from bassl_fast.config.choices import Precision
from shard_tools.errors import ConfigError

# As Lightning looks for them: SLURM sets its own also where torchrun starts the processes.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def device() -> torch.device:
    """The GPU of this process, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def first_process() -> bool:
    """Whether this is the first process of all that torchrun, srun or Lightning started."""
    return next((int(os.environ[name]) for name in _RANKS if name in os.environ), 0) == 0


@cache
def say_device() -> None:
    """Print one line, once and by the first process, if there is no GPU."""
    if first_process() and not torch.cuda.is_available():
        print(f"no GPU found: running on the CPU ({torch.get_num_threads()} threads)", flush=True)


def precision(wanted: Precision) -> str:
    """Lightning's name of the precision; "auto" is bfloat16 if the hardware computes in it, else float32.

    Raises:
        ConfigError: float16 without a GPU.
    """
    if wanted == "16-mixed" and not torch.cuda.is_available():
        raise ConfigError("precision 16-mixed: needs a GPU; choose bf16-mixed or 32-true")
    if wanted != "auto":
        return wanted
    fast = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if torch.cuda.is_available()
        else torch.cpu._is_avx512_bf16_supported()
    )
    return "bf16-mixed" if fast else "32-true"


def autocast(name: str) -> torch.autocast:
    """Context in which an encoder computes in a precision, by Lightning's name of it, on `device()`."""
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(name)
    return torch.autocast(device().type, half, enabled=half is not None)


def threads(wanted: int, processes: int = 1) -> int:
    """CPU threads of a data pipeline; 0 divides the cores among the `processes` of this machine."""
    return wanted or max(1, len(os.sched_getaffinity(0)) // processes)
