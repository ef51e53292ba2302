"""WebDataset + PIL: windows from films that are read sequentially, shard by shard, and shuffled in a buffer.

Every process draws shards at random, reads each as a tar, and slides the window of 17 shots along the film; a shuffle
buffer holds windows as JPEG bytes. The rest is as in `pil.py`. The order is the library's; the view rows of each window
are drawn beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import webdataset
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.peers.pil import window
from benchmarks.peers.steps import normalise
from pipelines import rng
from pipelines.samples import ShotTable

from . import Work

BUFFER = 256  # windows


class Slide:
    """Pipeline stage: the shots of films -> (JPEGs of a window, its number)."""

    def __init__(self, work: Work, rows: np.ndarray) -> None:
        self.rows = rows
        self.place = {}  # WebDataset's key of a shot -> film, position of the shot, number of its window
        for film in work.index.sequences:
            first = int(film["first_shot"])
            for position in range(int(film["shots"])):
                key = f"{film['name'].decode()}/shot_{work.index.shots[first + position]['shot']:04d}"
                self.place[key] = film, position, first + position

    def __call__(self, shots: Iterable[dict]) -> Iterator[tuple[dict[int, bytes], int]]:
        for shot in shots:
            film, position, number = self.place[shot["__key__"]]
            count = int(film["frames_per_shot"])
            first = int(film["first_frame"]) + position * count
            if position == 0:  # a film begins
                held, ahead, end = {}, number, number + int(film["shots"])
            held |= {first + image: shot[f"{image}.jpg"] for image in range(count)}
            held = {frame: jpeg for frame, jpeg in held.items() if frame >= first - 16 * count}
            while ahead < end and self.rows[ahead]["frame"].max() < first + count:
                yield {frame: held[frame] for frame in np.unique(self.rows[ahead]["frame"]).tolist()}, ahead
                ahead += 1


class Draw:
    """Pipeline stage: a window's views, with its number."""

    def __init__(self, rows: np.ndarray, size: int) -> None:
        self.rows, self.size = rows, size

    def __call__(self, sample: tuple[dict[int, bytes], int]) -> tuple[np.ndarray, int]:
        jpegs, number = sample
        return window(jpegs, self.rows[number], self.size), number


class Web:
    name = "WebDataset + PIL"
    includes = "open and read the tars, fill the buffer, decode, view steps, collate, normalise; not: drawing the rows"
    stretch = 1

    def __init__(self, work: Work) -> None:
        self.torch_threads = work.threads
        table = ShotTable(work.index, work.index.select(None))
        numbers = np.arange(len(table))
        self.rows = work.sampler(table[numbers], rng.generator(work.seed, rng.SAMPLE, 0)).views
        tars = [str(work.index.root / shard["name"]) for shard in work.index.shards]
        dataset = (
            webdataset.WebDataset(tars, resampled=True, shardshuffle=False, seed=work.seed)
            .compose(Slide(work, self.rows))
            .shuffle(BUFFER, initial=BUFFER // 4)
            .map(Draw(self.rows, work.views.size))
            .with_epoch(work.steps * work.batch // work.threads)
        )
        self._loader = DataLoader(dataset, batch_size=work.batch, num_workers=work.threads, persistent_workers=True)

    def round(self, number: int, rows: np.ndarray) -> Iterator[tuple[Tensor, np.ndarray]]:
        for pictures, numbers in self._loader:
            yield normalise(pictures), self.rows[numbers.numpy()]
