"""Loaders in real processes: as a program, it starts the processes of each case and prints what they saw as JSON.

A separate program, because a process that has used DALI, like that of the tests, must not be forked.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from pipelines.loader import WindowLoader
from shard_tools.errors import BasslFastError
from shard_tools.shards.index import ShardIndex
from shard_tools.storage.cache import Cache
from tests.pipelines.conftest import SIZE, sample


@dataclass(frozen=True)
class Case:
    """Processes that each go through two epochs.

    Args:
        shards: address of the films.
        world_size, threads, pool, max_broken: of their loaders.
        start: how they are started, "fork" or "spawn".
        at: step of the first epoch to resume at.
        cache: for a remote address: folder they share.
        gloo: they add up a number after every step, as training does.
    """

    shards: str
    world_size: int
    start: str = "fork"
    threads: int = 2
    at: int = 0
    pool: int | None = None
    max_broken: float = 0.0
    cache: str | None = None
    gloo: bool = False


def open_loader(case: Case, rank: int) -> WindowLoader:
    index = ShardIndex.open(case.shards, Cache(case.cache, wait=30) if case.cache else None)
    kwargs = {"threads": case.threads, "pool": case.pool, "max_broken": case.max_broken}
    kwargs |= {"global_batch": 8, "seed": 3, "rank": rank, "world_size": case.world_size}
    loader = WindowLoader(index, index.select(None), sample, SIZE, **kwargs)
    loader.load_state_dict({"epoch": 0, "step": case.at})
    return loader


def digests(batch: dict[str, torch.Tensor]) -> list[str]:
    """One of every sample, over all that the batch holds of it."""
    samples = zip(*(batch[name].contiguous().numpy() for name in sorted(batch)), strict=True)
    return [hashlib.sha1(b"".join(part.tobytes() for part in sample)).hexdigest() for sample in samples]


def work(case: Case, rank: int, meet: str, answer) -> None:
    """Send the digests of every step, and what ended them."""
    torch.set_num_threads(1)
    seen, error = [], None
    try:
        if case.gloo:
            dist.init_process_group("gloo", f"file://{meet}", timedelta(seconds=20), case.world_size, rank)
        loader = open_loader(case, rank)
        for _ in range(2):
            for batch in loader:
                seen.append(digests(batch))
                if case.gloo:
                    dist.all_reduce(torch.ones(1))
    except (BasslFastError, RuntimeError) as found:  # RuntimeError: gloo's, when another process went
        error = f"{type(found).__name__}: {found}"
    answer.send((seen, error))


def run(case: Case) -> list[tuple[list[list[str]], str | None]]:
    """What each process saw, in order of rank."""
    context = multiprocessing.get_context(case.start)
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for rank in range(case.world_size):
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=work, args=(case, rank, f"{folder}/meet", theirs))
            process.start()
            theirs.close()
            started.append((process, mine))
        answers = [pipe.recv() if pipe.poll(60) else ([], "no answer") for _, pipe in started]
        for process, _ in started:
            process.join(10)
            assert process.exitcode == 0, process
    return answers


def go_on_after_fork(loader: WindowLoader, answer) -> None:
    try:
        next(iter(loader))
        answer.send("went on")
    except BasslFastError as error:
        answer.send(f"{type(error).__name__}: {error}")


def fork_while_in_use(case: Case) -> str:
    """The error of a process that continues to use the loader of the process it was forked from."""
    loader = open_loader(case, 0)
    next(iter(loader))
    mine, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=go_on_after_fork, args=(loader, theirs))
    process.start()
    told = mine.recv() if mine.poll(20) else "no answer"
    process.join(10)
    assert process.exitcode == 0
    return told


def run_apart(python: str, cases: list[Case]) -> dict:
    """What `run` answers for each of `cases`, and `fork_while_in_use` for the first, from a separate program."""
    command = [python, "-m", "tests.pipelines.processes", json.dumps([asdict(case) for case in cases])]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    given = [Case(**case) for case in json.loads(sys.argv[1])]
    found = [run(case) for case in given]
    print(json.dumps({"cases": found, "forked": fork_while_in_use(given[0])}))
