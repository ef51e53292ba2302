"""What all tests share."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from tests.warm import warm_python

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a shell's background job; the programs under test inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own is 15: on a busy machine its tasks would never run

WARM = "BASSL_FAST_WARM_PYTHON"

settings.register_profile("busy", deadline=None)  # of hypothesis: a busy machine takes longer, and nothing is wrong
settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first: the quick ones fill the time in which only one process would still have work."""
    slow = {item.path for item in items if "slow" in item.keywords}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not go through it again, nor as often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 20)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the server of `warm`, which the processes of pytest-xdist inherit."""
    if WARM not in os.environ:
        started = ExitStack()
        session.config.add_cleanup(started.close)
        folder = started.enter_context(tempfile.TemporaryDirectory())
        os.environ[WARM] = started.enter_context(warm_python(Path(folder)))


@pytest.fixture(scope="session")
def warm() -> str:
    """A program that takes the words of `python` and starts with all imports done."""
    subprocess.run([os.environ[WARM], "-c", ""], check=True)  # only the first time takes long
    return os.environ[WARM]
