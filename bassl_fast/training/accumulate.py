"""Gradient accumulation: a global batch in micro-batches, each shared by all processes.

    global batch     0 1 2 3 | 4 5 6 7        2 micro-batches
    process 0        0 1       4 5            of 2 processes
    process 1            2 3       6 7

A micro-batch is a slice of the global batch, and losses are taken over each micro-batch. So the result of a step
depends on the number of micro-batches, not on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from pipelines.loader import WindowLoader
from shard_tools.errors import ConfigError


class InterleavedLoader(WindowLoader):
    """A `WindowLoader` whose batch holds this process's share of every micro-batch, in order.

    Args:
        micro_batches: micro-batches per global batch, which is in runs of samples.
        global_batch, rank, world_size, arguments, options: see `WindowLoader`.

    Raises:
        ConfigError: the global batch does not divide into micro-batches and processes.
    """

    def __init__(
        self, *arguments, global_batch: int, rank: int = 0, world_size: int = 1, micro_batches: int = 1, **options
    ) -> None:
        if global_batch % (micro_batches * world_size):
            run = options.get("run_length", 1)
            raise ConfigError(
                f"data.global_batch {global_batch * run} does not divide into training.accumulate {micro_batches} "
                f"times {world_size} processes; choose a multiple of {micro_batches * world_size * run}"
            )
        super().__init__(*arguments, global_batch=global_batch, rank=rank, world_size=world_size, **options)
        self._mine = np.arange(global_batch).reshape(micro_batches, world_size, -1)[:, rank].ravel()


class MicroBatches:
    """Iterable over the micro-batches `[b / micro_batches, ...]` of an epoch; its state is that of its loader."""

    def __init__(self, loader: WindowLoader, micro_batches: int) -> None:
        self._loader, self._parts = loader, micro_batches
        self.index = loader.index

    def __len__(self) -> int:
        return len(self._loader) * self._parts

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._loader:
            for part in zip(*(_parts(rows, self._parts) for rows in batch.values()), strict=True):
                yield dict(zip(batch, part, strict=True))

    def state_dict(self) -> dict[str, int]:
        """Position of the next step; in the middle of a step, of the one after it."""
        return self._loader.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._loader.load_state_dict(state)


def _parts(rows: Tensor | np.ndarray, count: int) -> Sequence[Tensor | np.ndarray]:
    return rows.chunk(count) if isinstance(rows, Tensor) else np.split(rows, count)
