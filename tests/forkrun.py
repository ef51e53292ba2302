"""torchrun, with processes that are forked from it: what they import, for five seconds each, is imported once.

    python -m tests.forkrun --nproc-per-node 2 --standalone -m benchmarks.faulty pretrain ...

The agent, its rendezvous and its restarts are torchrun's own.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

from torch.distributed import run
from torch.distributed.launcher.api import elastic_launch

from bassl_fast.runtime.lightning import import_lightning


def work(module: str, *words: str) -> None:
    """`python -m module *words`, where a word may hold `$LOCAL_RANK`. It returns where that exits with 0, as the agent
    waits for it."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):  # the agent has its own handlers
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[1:] = map(os.path.expandvars, words)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:
            raise


def main() -> None:
    import_lightning()
    import bassl_fast.training.run  # noqa: F401

    given = run.parse_args(sys.argv[1:])
    if given.standalone:
        given.rdzv_backend, given.rdzv_endpoint, given.rdzv_id = "c10d", "localhost:0", "standalone"
    config, _, _ = run.config_from_args(given)
    config.start_method = "fork"
    elastic_launch(config, work)(given.training_script, *given.training_script_args)


if __name__ == "__main__":
    main()
