"""Contestants of `benchmarks.loader`, one a file: what else feeds windows of shots to a trainer, each at its best.

All of them turn the same JPEGs into the same batches: float32 `[b, V, 3, S, S]`, normalised, every view cropped,
resized, flipped, jittered and blurred by the same laws. Where a library can follow view rows it is given the rows that
ours draws, and its pictures are ours to some decibels; where it draws for itself, its draws have the same laws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from pipelines.samples import Sampler
from pipelines.views import TrainViews
from shard_tools.shards.index import ShardIndex


@dataclass(frozen=True)
class Work:
    """What the contestants share.

    Attributes:
        index: of the shards, all films of which are used.
        sampler: draws the view rows.
        views: laws of the view rows, and their size S.
        batch: windows b a step.
        steps: steps of a round.
        threads: threads or worker processes that each may use.
        seed: of the rows and of the order.
        scratch: folder for a contestant's own files.
    """

    index: ShardIndex
    sampler: Sampler
    views: TrainViews
    batch: int
    steps: int
    threads: int
    seed: int
    scratch: Path


class Contestant(Protocol):
    """One way to make the batches.

    Attributes:
        name: in the table.
        includes: what the time of a round holds and what it does not.
        torch_threads: of the process that takes the batches.
        stretch: its rounds are so many times longer, for one that would be through too soon to be timed.
    """

    name: str
    includes: str
    torch_threads: int
    stretch: int

    def round(self, number: int, rows: np.ndarray) -> Iterator[tuple[Tensor, np.ndarray | None]]:
        """Batches of round `number`, from an empty queue, each with the view rows `[b, V]` it was made by.

        Args:
            rows: `[steps, b, V]` to make, or `[steps, b, V, T]` of clips; one with an order of its own makes as many.

        Yields:
            images `[b, V, 3, S, S]`, and rows or None if the library drew crop, flip or colour itself.
        """
        ...
