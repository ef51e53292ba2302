"""Where many films are worked on: in this process (and those it starts), or on the nodes of a Ray cluster.

    items -> each(function, items) -> results as they come, in any order

What is written for a film is written whole or not at all, so when a node dies its films are done again elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlsplit

from bassl_fast.config.choices import Engine
from shard_tools import plugins
from shard_tools.errors import BasslFastError, ConfigError, EngineError, MissingDependency

WAIT = 20.0  # seconds to wait for a cluster to answer
RETRIES = 3  # retries of a film whose node, or process there, died
_OBJECTS = 200 << 20  # bytes of Ray's object store on this machine: only results of a few KB pass through it
# Read by Ray when it is imported. Its driver prints cluster events (a node died, a task is retried) to stdout, whatever
# log_to_driver says; they pass its filter of log lines, which is told to drop every line.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "1", "RAY_DEDUP_LOGS_SKIP_REGEX": "^"}

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def cluster(engine: Engine, address: str | None = None, gpu: bool = False) -> Iterator[Nodes | None]:
    """The nodes of a Ray cluster; None for the engine "local".

    Args:
        address: host:port of its head, or "auto" on one of its machines; left out, a cluster of this machine alone.
        gpu: every item wants a GPU, where the cluster has some.

    Raises:
        ConfigError: an address without Ray, or not a valid one.
        EngineError: the cluster cannot be reached in time.
        MissingDependency: Ray is not installed.
    """
    if engine == "local":
        if address is not None:
            raise ConfigError(f"address {address}: only for a Ray cluster; add --engine ray")
        yield None
        return
    os.environ.update(_ENVIRONMENT)
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # of 40 s each; Ray's own default is 20
    try:
        import ray
    except ImportError:
        raise MissingDependency("engine ray: Ray is not installed; pip install 'bassl-fast[ray]'") from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    try:
        if address is None:
            ray.init("local", include_dashboard=False, object_store_memory=_OBJECTS, **quiet)
        else:
            _knock(address)
            ray.init(address, **quiet)
    except BasslFastError:
        raise
    except Exception as error:  # Ray raises many types, built-in ones among them
        raise EngineError(
            f"Ray at {address or 'this machine'}: {' '.join(str(error).split())[:200]}; see `ray status` there"
        ) from None
    try:
        yield Nodes(gpu)
    finally:
        ray.shutdown()


class Nodes:
    """Called like `map`; yields results as they come, in any order.

    Attributes:
        cpus: cores of each item.
    """

    def __init__(self, gpu: bool) -> None:
        import ray

        owned = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        shares = [int(has.get("CPU", 1) // has["GPU"]) for has in owned if gpu and has.get("GPU", 0) >= 1]
        self.cpus = max(1, min(shares, default=1))
        # Enough for every node to have a next item; not all at once, as there may be 100,000.
        self._ahead = max(64, int(4 * sum(has.get("CPU", 1) for has in owned)))
        # max_calls 0 keeps a process for the next item; by default Ray ends those that had a GPU.
        options: dict[str, Any] = {
            "num_cpus": self.cpus,
            "num_gpus": int(bool(shares)),
            "max_calls": 0,
            "max_retries": RETRIES,
        }
        self._task: Any = ray.remote(**options)(_work)

    def __call__(
        self, function: Callable[[Item], Result], items: Iterable[Item], name: Callable[[Item], str] = str
    ) -> Iterator[Result]:
        """Results of `function`; the first item that fails stops the others.

        Args:
            function: of a module, so that a node can import it.
            name: of an item, for errors.

        Raises:
            EngineError: an item's node, or its process there, died at every try.
            Whatever `function` raises.
        """
        import ray

        left, modules = iter(items), plugins.imported()
        waiting = {self._task.remote(modules, function, item): item for item in islice(left, self._ahead)}
        try:
            while waiting:
                (done, *_), _ = ray.wait(list(waiting))
                item = waiting.pop(done)
                try:
                    result = ray.get(done)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, (BasslFastError, OSError)):
                        raise error.cause from None
                    raise
                except ray.exceptions.RayError as error:
                    raise EngineError(
                        f"{name(item)}: its node or process died {RETRIES + 1} times ({type(error).__name__}), perhaps "
                        "out of memory; run the command again with more memory a core"
                    ) from None
                waiting |= {self._task.remote(modules, function, more): more for more in islice(left, 1)}
                yield result
        finally:
            for task in waiting:
                ray.cancel(task, force=True)


def _work(modules: Iterable[str], function: Callable[[Item], Result], item: Item) -> Result:
    _die_with_the_node()
    plugins.import_modules(modules)
    return function(item)


@cache
def _die_with_the_node() -> None:
    """End this process when its parent ends, however that ends: the work is then done elsewhere."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:
        os._exit(1)


def _knock(address: str) -> None:
    """Raises EngineError: nothing listens at the address. Ray itself would try for minutes."""
    if address == "auto":
        return
    parts: Any = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise ConfigError(f"address {address}: give host:port of the cluster's head, such as 10.0.0.1:6379, or auto")
    deadline = time.monotonic() + WAIT
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise EngineError(
                    f"Ray at {address}: nothing answers for {WAIT:.0f} s ({error.strerror or error}); "
                    "start its head with `ray start --head`"
                ) from None
        time.sleep(0.5)
