"""Losses are read one step late, so that no process waits for its GPU.

    GPU    forward 1 | backward 1 | forward 2 | backward 2 | ...
    host   launch 1            | launch forward 2 | read loss 1 | launch backward 2 | ...

The copy of a loss to the host begins when it is computed; when it is read, the GPU still has a step to do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bassl_fast.runtime.distributed import total, world_size


@dataclass
class StepLosses:
    """Losses of the micro-batches of a step, on their way to the host.

    Args:
        step: number of the step.
        names: of the losses, L.
    """

    step: int
    names: tuple[str, ...]
    films: list[Tensor] = field(default_factory=list)  # film numbers [b] of every micro-batch
    numbers: dict[str, float] = field(default_factory=dict)  # what else to show of the step
    _rows: list[Tensor] = field(default_factory=list)  # [2, L]: means over all processes, this process's own
    _copied: list[torch.cuda.Event] = field(default_factory=list)

    def add(self, losses: dict[str, Tensor], films: Tensor) -> None:
        """Add a micro-batch."""
        mine = torch.stack([value.detach().double() for value in losses.values()])
        self._rows.append(torch.stack([total(mine) / world_size(), mine]).to("cpu", non_blocking=True))
        self.films.append(films)
        if mine.is_cuda:
            self._copied.append(torch.cuda.current_stream(mine.device).record_event())

    def means(self) -> dict[str, float]:
        """Mean of every loss over processes and micro-batches, and their sum as `loss`; waits for the copies."""
        parts = self._read(0)
        found = {f"loss/{name}": sum(part[at] for part in parts) / len(parts) for at, name in enumerate(self.names)}
        return found | {"loss": sum(found.values())}

    def broken(self) -> int | None:
        """The first micro-batch with a loss that is not finite on any process."""
        return next((at for at, part in enumerate(self._read(0)) if not all(map(math.isfinite, part))), None)

    def mine_is_finite(self, micro_batch: int) -> bool:
        return all(map(math.isfinite, self._read(1)[micro_batch]))

    def sum_of(self, micro_batch: int) -> float:
        return sum(self._read(0)[micro_batch])

    def _read(self, row: int) -> list[list[float]]:
        for event in self._copied:
            event.synchronize()
        return [rows.tolist()[row] for rows in self._rows]
