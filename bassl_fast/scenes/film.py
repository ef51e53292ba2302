"""A film with its shots, and how they are grouped into scenes."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np

from shard_tools.video.cutter import Transition
from shard_tools.video.facts import MediaFacts
from shard_tools.video.timing import Timing


@dataclass(frozen=True)
class SceneShot:
    """A shot of a film.

    Attributes:
        number: from 0.
        start, end: seconds, [start, end).
        first, last: its frames as decoded, from 0, `last` included.
        probability: 0..1, that it is the last of its scene.
        keyframes: JPEG bytes of three frames at 1/6, 3/6 and 5/6 of it, 240 pixels high.
        transition: how it begins, "cut", "fade" or "dissolve"; None if unknown, as of the first shot.
        damaged: number of packets and pictures of it that could not be decoded, or only in part.
    """

    number: int
    start: float
    end: float
    first: int
    last: int
    probability: float
    keyframes: Sequence[bytes]
    transition: Transition | None = None
    damaged: int = 0


@dataclass(frozen=True)
class Scene:
    """Consecutive shots that belong together.

    Attributes:
        number: from 1.
        name, note: as given by hand; "" if not.
    """

    number: int
    shots: tuple[SceneShot, ...]
    name: str = ""
    note: str = ""

    @property
    def title(self) -> str:
        """Its name, or "Scene 1"."""
        return self.name or f"Scene {self.number}"

    @property
    def start(self) -> float:
        """Seconds."""
        return self.shots[0].start

    @property
    def end(self) -> float:
        """Seconds, exclusive: where the next scene starts."""
        return self.shots[-1].end


@dataclass(frozen=True)
class FilmScenes:
    """A film and the scenes found in it.

    Attributes:
        name: fit for a folder.
        source: path or address of the file.
        timing: frame rate, time code and start of the file.
        shots: all of them, contiguous.
        ends: numbers of the shots that end a scene, ascending, without the last shot of the film.
        threshold: probability from which a shot ends a scene; the lowest taken if a number of scenes was asked for.
        threshold_from: how the threshold was chosen, for people.
        shortest: minimum length of a scene in seconds.
        method: the model that gave the probabilities, for people.
        names, notes: of scenes, by their first shot, given by hand.
        corrected: shots after which a boundary was set or removed by hand.
        by_hand: whether somebody corrected the scenes, or took them over as they are; later runs then keep them.
        media: picture size, sound and reel of the file.
    """

    name: str
    source: str
    timing: Timing
    shots: tuple[SceneShot, ...]
    ends: tuple[int, ...]
    threshold: float
    threshold_from: str
    shortest: float
    method: str
    names: Mapping[int, str] = field(default_factory=dict)
    notes: Mapping[int, str] = field(default_factory=dict)
    corrected: frozenset[int] = frozenset()
    by_hand: bool = False
    media: MediaFacts = field(default_factory=MediaFacts)

    @property
    def rate(self) -> Fraction:
        """Frames a second, a standard rate: see `shard_tools.video.timing.nominal_rate`."""
        return self.timing.rate

    @property
    def damaged(self) -> int:
        """Packets and pictures that could not be decoded, or only in part."""
        return sum(shot.damaged for shot in self.shots)

    @property
    def scenes(self) -> tuple[Scene, ...]:
        bounds = [0, *(end + 1 for end in self.ends), len(self.shots)]
        return tuple(
            Scene(number, self.shots[first:after], self.names.get(first, ""), self.notes.get(first, ""))
            for number, (first, after) in enumerate(pairwise(bounds), 1)
        )

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.shots[-1].end

    def regrouped(
        self, threshold: float, threshold_from: str, count: int | None = None, shortest: float = 0.0
    ) -> FilmScenes:
        """The same shots grouped into other scenes, see `choose_ends`."""
        probability = np.array([shot.probability for shot in self.shots])
        end = np.array([shot.end for shot in self.shots])
        ends = choose_ends(probability, end, threshold, count, shortest)
        if count is not None:
            threshold = float(min((probability[i] for i in ends), default=1.0))
        return replace(self, ends=tuple(ends), threshold=threshold, threshold_from=threshold_from, shortest=shortest)


def choose_ends(
    probability: Sequence[float] | np.ndarray,
    end: Sequence[float] | np.ndarray,
    threshold: float,
    count: int | None = None,
    shortest: float = 0.0,
) -> list[int]:
    """The shots that end a scene, ascending, without the last of the film.

    Candidates are taken by falling probability (the earlier of two equal ones first) and skipped if a scene would be
    shorter than `shortest`, down to `threshold` or, if `count` is given, until there are that many scenes.

    Args:
        probability: `[S]` that a shot is the last of its scene.
        end: `[S]` end of each shot in seconds.
        threshold: ignored if `count` is given.
        count: number of scenes; there are fewer if the film has fewer shots, or no room for more scenes of `shortest`.

    >>> choose_ends([0.1, 0.9, 0.6, 0.8, 0.1], [10, 20, 30, 32, 40], threshold=0.5)
    [1, 2, 3]
    >>> choose_ends([0.1, 0.9, 0.6, 0.8, 0.1], [10, 20, 30, 32, 40], threshold=0.5, shortest=8)
    [1, 3]
    >>> choose_ends([0.1, 0.9, 0.6, 0.8, 0.1], [10, 20, 30, 32, 40], threshold=0.5, count=2)
    [1]
    """
    taken: list[int] = []
    times = [0.0, float(end[-1])]
    for shot in sorted(range(len(end) - 1), key=lambda i: -probability[i]):
        if len(taken) + 1 >= count if count is not None else probability[shot] < threshold:
            break
        at = bisect_left(times, end[shot])
        if end[shot] - times[at - 1] >= shortest and times[at] - end[shot] >= shortest:
            times.insert(at, end[shot])
            insort(taken, shot)
    return taken
