"""The command `bassl-fast` with one fault, once, at a given step and process; for `benchmarks.failures`.

    FAULT="kill 5 2" FAULT_DONE=done torchrun ... -m benchmarks.faulty pretrain ...

kills process 2 with SIGKILL when step 5 begins, and creates the file `done`; if the file exists, nothing is broken.
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
from bassl_fast.runtime.lightning import import_lightning


def kill() -> None:
    """Like `kill -9`, the out-of-memory killer, or a machine that goes away."""
    os.kill(os.getpid(), signal.SIGKILL)


def freeze() -> None:
    """A process that makes no progress: a disk that does not answer, a driver that hangs."""
    os.kill(os.getpid(), signal.SIGSTOP)


def end_job() -> None:
    """Like a scheduler that tells torchrun that time is up."""
    os.kill(os.getppid(), signal.SIGTERM)


def unplug(seconds: str) -> None:
    """This host loses its network for some seconds."""
    again = f"sleep {seconds}; ip link set eth0 up"
    subprocess.run(["ip", "link", "set", "eth0", "down"], check=True)
    subprocess.Popen(["sh", "-c", again], start_new_session=True)


def kill_while_saving() -> None:
    """Killed at the next save, when half of the checkpoint is on the disk."""

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
    """Break process `rank` at the beginning of `step`, unless the file `done` exists."""
    import_lightning()
    from bassl_fast.training.module import Pretraining

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
