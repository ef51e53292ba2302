"""How the processes of a training run are started: by Lightning, torchrun or srun."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.strategies import DDPStrategy, Strategy

from shard_tools.errors import ConfigError


def launched() -> tuple[int, int] | None:
    """Processes a machine and machines, as started by torchrun or srun; None without them."""
    if torch.distributed.is_torchelastic_launched():  # before SLURM: srun may have started torchrun
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local
    if SLURMEnvironment.detect() and (tasks := int(os.environ["SLURM_NTASKS"])) > 1:
        nodes = int(os.environ.get("SLURM_NNODES", 1))
        return tasks // nodes, nodes
    return None


def check_gpus(processes: int, gpus: int) -> None:
    """Refuse more processes than GPUs on a machine that has any.

    Raises:
        ConfigError: some process would have no GPU of its own.
    """
    if gpus and processes > gpus:
        raise ConfigError(
            f"training.devices {processes}: a process of this machine sees {gpus} GPUs; start one process per GPU. "
            f"SLURM hides the other GPUs with --gpus-per-task: ask for them with --gres=gpu:{processes}"
        )


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
    gpus = torch.cuda.is_available()
    # DDP rebuilds its buckets after the first step of a start, unless it looks for unused parameters. The order in
    # which more than two processes are summed depends on the position in a bucket, so on CPUs, where all else is
    # bit-exact, a resumed run would differ in the last bits from one that was never stopped.
    return DDPStrategy(
        timeout=timedelta(minutes=timeout),
        find_unused_parameters=not gpus,
        # On GPUs batch normalisation is synchronised, so all processes hold the same buffers anyway.
        broadcast_buffers=not gpus,
        gradient_as_bucket_view=True,
        # Flags and names travel between CPUs: through a GPU, its queue of work would have to end first.
        process_group_backend="cpu:gloo,cuda:nccl" if gpus else "gloo",
    )


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
