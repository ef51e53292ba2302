"""Gradient accumulation: a global batch in micro-batches, each of which all processes share.

    global batch     0 1 2 3 | 4 5 6 7        2 micro-batches
    process 0        0 1       4 5            of 2 processes
    process 1            2 3       6 7

A micro-batch is a slice of the global batch, whoever computes it: what a step computes depends on the number of
micro-batches, since the losses are taken over each of them, and not on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from pipelines.loader import WindowLoader
from pipelines.samples import Drawn
from shard_tools.errors import ConfigError


class InterleavedLoader(WindowLoader):
    """A `WindowLoader` whose batch holds this process's share of every micro-batch, one after the other.

    Args:
        micro_batches: parts of a global batch.
        global_batch, world_size, arguments, options: as of `WindowLoader`.

    Raises:
        ConfigError: the global batch does not divide.
    """

    def __init__(self, *arguments, global_batch: int, world_size: int = 1, micro_batches: int = 1, **options) -> None:
        if global_batch % (micro_batches * world_size):
            raise ConfigError(
                f"data.global_batch {global_batch} does not divide into training.accumulate {micro_batches} times "
                f"{world_size} processes; choose a multiple of {micro_batches * world_size}"
            )
        super().__init__(*arguments, global_batch=global_batch, world_size=world_size, **options)
        # Rows of the global batch by (process, micro-batch, row).
        rows = np.arange(global_batch).reshape(micro_batches, world_size, -1)
        self._order = rows.transpose(1, 0, 2).ravel()

    def draw(self, epoch: int, step: int) -> tuple[np.ndarray, Drawn]:
        """As of `WindowLoader`, with the rows in an order that gives each process its share as one slice."""
        samples, drawn = super().draw(epoch, step)
        extras = {name: rows[self._order] for name, rows in drawn.extras.items()}
        return samples[self._order], Drawn(drawn.views[self._order], extras)


class MicroBatches:
    """Iterable over the micro-batches of an epoch, `[b / micro_batches, ...]` each; otherwise as its loader."""

    def __init__(self, loader: WindowLoader, micro_batches: int) -> None:
        self._loader, self._parts = loader, micro_batches
        self.index = loader.index

    def __len__(self) -> int:
        return len(self._loader) * self._parts

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self._loader:
            for part in zip(*(rows.chunk(self._parts) for rows in batch.values()), strict=True):
                yield dict(zip(batch, part, strict=True))

    def state_dict(self) -> dict[str, int]:
        """Where the next step stands; within a step, already the next."""
        return self._loader.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._loader.load_state_dict(state)
