"""Contestants of `benchmarks.loader`, one a file: alternatives for feeding windows of shots to a trainer.

All turn the same JPEGs into the same batches: float32 `[b, V, 3, S, S]`, normalised, every view cropped, resized,
flipped, jittered and blurred by the same augmentation. A library that can follow view rows gets the rows that ours
draws, and its images equal ours up to some decibels; one that draws for itself draws from the same distributions.
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
        views: augmentation of the view rows, and their size S.
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
        includes: what the time of a round includes and what it does not.
        torch_threads: of the process that takes the batches.
        stretch: how many times longer its rounds are, for one too fast to be timed otherwise.
    """

    name: str
    includes: str
    torch_threads: int
    stretch: int

    def round(self, number: int, rows: np.ndarray) -> Iterator[tuple[Tensor, np.ndarray | None]]:
        """Batches of round `number`, from an empty queue, each with its view rows `[b, V]`.

        Args:
            rows: `[steps, b, V]` to make, or `[steps, b, V, T]` of clips; one with its own order makes the same number.

        Yields:
            images `[b, V, 3, S, S]`, and rows or None if the library drew crop, flip or colour itself.
        """
        ...
