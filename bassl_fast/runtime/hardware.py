"""Device, precision and threads of this run, without Lightning, which takes seconds to import."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import torch

from bassl_fast.config.choices import Precision
from shard_tools.errors import ConfigError

from .cores import cores

# As Lightning looks for them: SLURM sets its own also where torchrun starts the processes.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")

# The oldest driver for a version of CUDA, by its first number (NVIDIA, CUDA Compatibility).
_DRIVERS = {11: 450, 12: 525, 13: 580}


def device() -> torch.device:
    """The GPU of this process, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def first_process() -> bool:
    """Whether this is the first process of all that torchrun, srun or Lightning started."""
    return next((int(os.environ[name]) for name in _RANKS if name in os.environ), 0) == 0


@cache
def say_device() -> None:
    """Print one line, once and by the first process, if there is no GPU.

    Raises:
        ConfigError: there is a GPU, but torch cannot use it.
    """
    if torch.cuda.is_available():
        return
    if (driver := driver_version()) and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("", "-1"):
        raise ConfigError(why_unusable(driver, torch.__version__, torch.version.cuda))
    if first_process():
        print(f"no GPU found: running on the CPU ({torch.get_num_threads()} threads)", flush=True)


def driver_version(root: Path = Path("/")) -> str:
    """Version of the NVIDIA driver, such as "535.104.05"; "" without a driver or without GPUs.

    Args:
        root: of the file system.
    """
    if not any(root.glob("dev/nvidia[0-9]*")):  # a container without GPUs sees the driver of its host
        return ""
    try:
        text = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return ""
    found = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", text)
    return found[0] if found else ""


def why_unusable(driver: str, wheel: str, cuda: str | None) -> str:
    """One line: why torch cannot use the GPU, and the fix.

    Args:
        driver: version of the driver.
        wheel: version of torch.
        cuda: version of CUDA it was built for; None without CUDA.
    """
    on_cpu = "or set CUDA_VISIBLE_DEVICES= to run on the CPU"
    if cuda is None:
        return (
            f"torch {wheel} was built without CUDA, and the driver {driver} has a GPU: install a CUDA build, {on_cpu}"
        )
    has, needs = int(driver.split(".")[0]), _DRIVERS.get(int(cuda.split(".")[0]), 0)
    if has >= needs:
        return (
            f"torch {wheel} for CUDA {cuda} cannot use the GPU, though the driver {driver} is new enough: see what "
            f"`nvidia-smi` says, {on_cpu}"
        )
    fitting = max((major for major, oldest in _DRIVERS.items() if oldest <= has), default=None)
    older = f", or install torch for CUDA {fitting} (bassl-fast[cuda{fitting}0])" if fitting else ""
    return (
        f"the driver {driver} is too old for torch {wheel}: CUDA {cuda} needs driver {needs} or newer; "
        f"update the driver{older}, {on_cpu}"
    )


def precision(wanted: Precision) -> str:
    """Lightning's name of the precision; "auto" is bfloat16 if the hardware computes in it, else float32.

    Raises:
        ConfigError: float16 without a GPU.
    """
    if wanted == "16-mixed" and not torch.cuda.is_available():
        raise ConfigError("precision 16-mixed: needs a GPU; choose bf16-mixed or 32-true")
    if wanted != "auto":
        return wanted
    return _auto()


@cache
def _auto() -> Precision:
    """What "auto" is here; without a GPU, one line of the first process says it."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    unit = "AMX" if torch.cpu._is_amx_tile_supported() else "AVX-512" if torch.cpu._is_avx512_bf16_supported() else ""
    if first_process():
        said = f"bfloat16, by {unit}" if unit else "float32, as the CPU has neither AMX nor AVX512-BF16"
        print(f"precision auto: {said}", flush=True)
    return "bf16-mixed" if unit else "32-true"


def autocast(name: str) -> torch.autocast:
    """Context in which an encoder computes in a precision, by Lightning's name of it, on `device()`."""
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(name)
    return torch.autocast(device().type, half, enabled=half is not None)


def threads(wanted: int, processes: int = 1) -> int:
    """CPU threads of a data pipeline; 0 divides the cores among the `processes` of this machine."""
    return wanted or max(1, cores() // processes)
