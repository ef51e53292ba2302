"""A function as the processes of a group, forked with their imports done."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.warm import ROOT


def run_ranks(warm: str, work: Callable[[int, str], None], count: int, folder: Path) -> None:
    """`work(rank, str(folder))` in `count` processes at once; the first that fails ends the others, and the test."""
    name = work.__name__
    code = f"import sys; from {work.__module__} import {name}; {name}(int(sys.argv[1]), sys.argv[2])"
    running = [subprocess.Popen([warm, "-c", code, str(rank), folder], cwd=ROOT) for rank in range(count)]
    try:
        while None in (codes := [process.poll() for process in running]) and not any(codes):
            time.sleep(0.02)
        assert codes == [0] * count
    finally:
        for process in running:
            process.kill()
            process.wait()
