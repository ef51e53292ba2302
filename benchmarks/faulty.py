"""The command `bassl-fast`, in which one thing breaks at a set place, once; for `benchmarks.failures`.

    FAULT="kill 5 2" FAULT_DONE=done torchrun ... -m benchmarks.faulty pretrain ...

kills process 2 by SIGKILL when step 5 begins, and makes the file `done`; whoever finds the file lets everything live.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from bassl_fast import cli
from bassl_fast.checkpoints import checkpoint
from bassl_fast.training.module import Pretraining


def kill() -> None:
    """What `kill -9`, the kernel out of memory, or a machine that goes away does."""
    os.kill(os.getpid(), signal.SIGKILL)


def freeze() -> None:
    """A process that is there and does nothing: a disk that does not answer, a driver that hangs."""
    os.kill(os.getpid(), signal.SIGSTOP)


def end_job() -> None:
    """A scheduler says to torchrun that time is up."""
    os.kill(os.getppid(), signal.SIGTERM)


def unplug(seconds: str) -> None:
    """The network of this host is gone for a time."""
    again = f"sleep {seconds}; ip link set eth0 up"
    subprocess.run(["ip", "link", "set", "eth0", "down"], check=True)
    subprocess.Popen(["sh", "-c", again], start_new_session=True)


def kill_while_saving() -> None:
    """At the next save: half of the checkpoint is on the disk."""

    def cut(file: int) -> None:
        os.ftruncate(file, os.fstat(file).st_size // 2)
        kill()

    checkpoint.os.fsync = cut


FAULTS: dict[str, Callable[..., None]] = {
    "kill": kill,
    "freeze": freeze,
    "end_job": end_job,
    "unplug": unplug,
    "kill_while_saving": kill_while_saving,
}


def at(step: int, rank: int, break_it: Callable[[], None], done: str) -> None:
    """Have process `rank` break at the beginning of `step`, unless `done` is there."""
    whole = Pretraining.on_train_batch_start

    def broken(module: Pretraining, *arguments: Any) -> None:
        if (module.global_step, module.global_rank) == (step, rank) and not os.path.exists(done):
            open(done, "x").close()
            break_it()
        whole(module, *arguments)

    Pretraining.on_train_batch_start = broken


if __name__ == "__main__":
    if "FAULT" in os.environ:
        name, step, rank, *values = os.environ["FAULT"].split()
        at(int(step), int(rank), lambda: FAULTS[name](*values), os.environ["FAULT_DONE"])
    sys.exit(cli.main())
