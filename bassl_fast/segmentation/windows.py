"""Features of films on the device, and the windows around their shots."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bassl_fast.metrics.scenes import FilmScores
from pipelines.windows import clipped_window
from shard_tools.errors import FeatureError

from .features import Film
from .model import SceneBoundary


class Windows:
    """Features and windows of some films, resident on a device.

    Attributes:
        features: `[S, D]`, all films end to end, in the precision on disk.
        window: `[S, T]` rows of `features` around each shot, clipped at the ends of its film.
        boundary: `[S]` labels.
        statistics: `[S, F]` of the similarity of shots, see `statistics`; None for models without.
    """

    def __init__(self, films: list[Film], features: Tensor, shots: int, statistics: Tensor | None = None) -> None:
        tables, first = [], 0
        for film in films:
            count = len(film.shots)
            tables.append(first + clipped_window(np.arange(count), np.full(count, count), shots // 2))
            first += count
        self.films, self.features, self.statistics = films, features, statistics
        self.window = torch.from_numpy(np.concatenate(tables)).to(features.device)
        labels = np.concatenate([film.shots["boundary"] for film in films]).astype(np.int64)
        self.boundary = torch.from_numpy(labels).to(features.device)
        self._batch = features.new_empty(0)

    @classmethod
    def load(cls, films: list[Film], shots: int, device: torch.device, statistics: np.ndarray | None = None) -> Windows:
        """Windows of `shots` shots, the features read onto `device`.

        Raises:
            FeatureError: they do not fit in its memory, or a film has one that is not finite.
        """
        counts = [len(film.features) for film in films]
        dtype = torch.from_numpy(np.empty(0, films[0].features.dtype)).dtype
        try:
            features = torch.empty(sum(counts), films[0].features.shape[1], dtype=dtype, device=device)
        except torch.OutOfMemoryError:
            gigabytes = sum(film.features.nbytes for film in films) / 1e9
            raise FeatureError(
                f"{gigabytes:.1f} GB of features do not fit on the GPU; extract with --dtype float16 to halve them"
            ) from None
        for film, part in zip(films, features.split(counts), strict=True):
            array = np.array(film.features)
            if not np.isfinite(array).all():
                shot = int((~np.isfinite(array)).any(1).argmax())
                raise FeatureError(
                    f"{film.name}: the feature of shot {shot} is NaN or infinite; check the encoder, extract again"
                )
            part.copy_(torch.from_numpy(array))
        return cls(films, features, shots, None if statistics is None else torch.from_numpy(statistics).to(device))

    def __getitem__(self, shots: Tensor) -> Tensor:
        """Windows `[B, T, D]` around the shots `[B]`, in memory that the next call overwrites."""
        rows = self.window[shots].flatten()
        if len(self._batch) < len(rows):
            # Allocating this much memory for every batch would take longer than filling it.
            self._batch = self.features.new_empty(len(rows), self.features.shape[1])
        out = self._batch[: len(rows)]
        torch.index_select(self.features, 0, rows, out=out)
        return out.view(len(shots), self.window.shape[1], out.shape[1])

    def inputs(self, shots: Tensor) -> tuple[Tensor, Tensor | None]:
        """What `SceneBoundary` takes for the shots `[B]`: windows and statistics."""
        return self[shots], None if self.statistics is None else self.statistics[shots]

    @torch.no_grad()
    def each(self, function: Callable[[Tensor], Tensor], batch: int = 1024) -> Tensor:
        """Rows `[S, ...]` of `function` applied to all shots, in batches of their numbers `[B]`."""
        shots = torch.arange(len(self.window), device=self.window.device)
        return torch.cat([function(some) for some in shots.split(batch)])

    def scores(self, model: SceneBoundary) -> list[FilmScores]:
        """Boundary probability of every shot, film by film.

        With statistics it is 0 after the last shot, where the film ends in any case.
        """
        model.eval()
        probability = self.each(lambda shots: model(*self.inputs(shots)).softmax(-1)[:, 1]).cpu().numpy()
        parts = np.split(probability, np.cumsum([len(film.shots) for film in self.films])[:-1])
        for part in parts if self.statistics is not None else ():
            part[-1:] = 0
        return [
            FilmScores(film.name, part, film.shots["boundary"], film.shots["start"], film.shots["end"])
            for film, part in zip(self.films, parts, strict=True)
        ]
