"""Device, precision and processes of this run."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cache

import torch
from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.strategies import DDPStrategy, Strategy

from bassl_fast.config.choices import Precision
from shard_tools.errors import ConfigError


def device() -> torch.device:
    """The GPU of this process, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


@cache
@rank_zero_only
def say_device() -> None:
    """Print one line, once, if there is no GPU."""
    if not torch.cuda.is_available():
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


def launched() -> tuple[int, int] | None:
    """Processes a machine and machines, as started by torchrun or srun; None without them."""
    if torch.distributed.is_torchelastic_launched():  # before SLURM: srun may have started torchrun
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local
    if SLURMEnvironment.detect() and (tasks := int(os.environ["SLURM_NTASKS"])) > 1:
        nodes = int(os.environ.get("SLURM_NNODES", 1))
        return tasks // nodes, nodes
    return None


def restarts() -> bool:
    """Whether torchrun restarts failed processes (--max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0


@rank_zero_only
def say_restarts() -> None:
    """Print one line if processes that torchrun restarts would find the addresses of the previous ones.

    torchrun shares a store with its processes that outlives them (https://github.com/pytorch/pytorch/issues/135712).
    """
    if restarts() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        print("torchrun --max-restarts: set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, or a restart may fail", flush=True)


def strategy(devices: int | str, nodes: int, timeout: float) -> Strategy | str:
    """Lightning's strategy; several processes stop when they wait for each other longer than `timeout` minutes.

    Args:
        devices: processes of this machine; "auto" is one a GPU.
        nodes: machines.
    """
    local = max(1, torch.cuda.device_count()) if devices == "auto" else int(devices)
    if local * nodes == 1:
        return "auto"
    # DDP rebuilds its buckets after the first step of a start, unless it looks for unused parameters. The order in
    # which more than two processes are summed depends on the position in a bucket, so on CPUs, where all else is
    # bit-exact, a resumed run would differ in the last bits from one that was never stopped.
    return DDPStrategy(timeout=timedelta(minutes=timeout), find_unused_parameters=not torch.cuda.is_available())


def launch_plugins() -> list[ClusterEnvironment]:
    """Plugins that tell Lightning how the processes are started, in cases that it detects wrongly.

    Under SLURM it would requeue the job itself, into its own folder; and it would run a job of one task, which may use
    all GPUs of its machine, as one process.

    Raises:
        ConfigError: the SLURM options do not say how many tasks a machine has.
    """
    if torch.distributed.is_torchelastic_launched() or not SLURMEnvironment.detect():
        return []
    try:
        return [SLURMEnvironment(auto_requeue=False) if launched() else LightningEnvironment()]
    except RuntimeError as error:
        raise ConfigError(f"SLURM: {' '.join(str(error).split())}") from None


def threads(wanted: int, processes: int = 1) -> int:
    """CPU threads of a data pipeline; 0 divides the cores among the `processes` of this machine."""
    return wanted or max(1, len(os.sched_getaffinity(0)) // processes)
