"""Pack many shards in parallel: one after another while that is quick, then by processes, or on other machines."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any

from tqdm import tqdm

from shard_tools.errors import ShardError
from shard_tools.shards import format as fmt
from shard_tools.sources.source import SourceShard
from shard_tools.storage.output import Place, open_place
from shard_tools.storage.remote import absolute

from .pack_shard import Job, begin_shard
from .writer import PackedShard

Each = Callable[[Callable[[Any], Any], Iterable[Any], Callable[[Any], str]], Iterable[Any]]
_WORTH_PROCESSES = 2.0  # seconds of work from which processes, which take half a second to start, are worth it


def pack_shards(
    place: Place, shards: list[SourceShard], job: Job, workers: int, quiet: bool | None, each: Each | None
) -> list[PackedShard]:
    """Pack shards in parallel; the first that fails stops those not yet started."""
    packed: list[Future[PackedShard]] = []
    noun = "film" if job.kind == fmt.FILMS else "shard"
    with tqdm(total=len(shards), desc="pack", unit=noun, disable=quiet) as bar, ThreadPoolExecutor(1) as finisher:
        if each is not None:
            found = {}
            for shard in each(partial(_pack_anywhere, absolute(place.uri), job), shards, attrgetter("name")):
                found[shard.name] = shard
                bar.update()
            return [found[shard.name] for shard in shards]
        started = time.monotonic()
        while len(packed) < len(shards):
            left = len(shards) - len(packed)
            spent = time.monotonic() - started
            long = left * spent / len(packed) > _WORTH_PROCESSES if packed else job.kind != fmt.FILMS
            if min(workers, left) > 1 and long:
                packed += _by_processes(place, shards[len(packed) :], job, min(workers, left), bar)
            else:
                packed.append(finisher.submit(begin_shard(shards[len(packed)], place, job)))
                bar.update()
                for before in packed[-2:-1]:
                    before.result()
    return [shard.result() for shard in packed]


def _by_processes(
    place: Place, shards: list[SourceShard], job: Job, workers: int, bar: tqdm
) -> list[Future[PackedShard]]:
    """Use processes, since threads that copy small files hold Python's lock half of the time."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin_work, (place.uri, job, os.getpid())) as pool:
        # Only this process handles Ctrl-C: the workers inherit the mask.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        jobs = [pool.submit(_work, shard) for shard in shards]
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            for done in as_completed(jobs):
                done.result()
                bar.update()
        except BrokenProcessPool:
            raise ShardError(
                f"{place.uri}: a worker died, possibly out of memory; run this again with fewer --workers "
                "(a script that calls pack needs `if __name__ == '__main__':`)"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return jobs


_working: tuple[Place, Job]  # of a worker process


def _begin_work(dst: str, job: Job, parent: int) -> None:
    """Start a worker: it holds the lock on `dst` too, and dies with its parent, whatever kills that."""
    global _working
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    place = open_place(dst)
    place.join()
    _working = place, job


def _work(shard: SourceShard) -> PackedShard:
    return begin_shard(shard, *_working)()


def _pack_anywhere(dst: str, job: Job, shard: SourceShard) -> PackedShard:
    return begin_shard(shard, _opened(dst), job)()


@lru_cache(maxsize=1)
def _opened(dst: str) -> Place:
    place = open_place(dst)
    place.join()
    return place
