"""What the heads that see no feature read of a cut.

* `similar`: how alike shots are, and how long they last, see `heads.similarity`.
* `heard`: the same, and when somebody speaks, see `heads.speech`.
* `film`: the same, and durations of more shots, the place in the film, and speech within minutes.

Without times of speech, statistics of speech are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from bassl_fast.heads import similarity, speech
from bassl_fast.heads.similarity import film_statistics

from .durations import duration_statistics

Reads = Literal["similar", "heard", "film"]
WINDOWS = (7, 15, 30, 60, 120, 240)  # seconds on each side in which speech is measured


def names(reads: Reads) -> list[str]:
    """The columns of `statistics_of`, in order."""
    found = similarity.statistic_names()
    if reads != "similar":
        found += speech.statistic_names()
    if reads == "film":
        nothing = np.zeros((2, 3))
        found += [*duration_statistics(np.zeros(2), np.ones(2)), *_speech_around(nothing, np.ones(2))]
    return found


def statistics_of(
    similar: Sequence[np.ndarray], seconds: np.ndarray, spoken: np.ndarray | None, reads: Reads
) -> np.ndarray:
    """Statistics `[S, F]` float32 of the cut after every shot of a film.

    Args:
        similar: similarities of each kind of feature, see `heads.similarity.alike`.
        seconds: `[S]`, how long the shots last.
        spoken: `[S, 3]`, see `heads.speech.speech_of`; None if it is not known.
        reads: which statistics.
    """
    found = [film_statistics(similar, seconds)]
    spoken = np.full((len(seconds), 3), np.nan) if spoken is None else spoken
    if reads != "similar":
        found.append(speech.film_statistics(spoken, seconds))
    if reads == "film":
        end = np.cumsum(seconds)
        wide = duration_statistics(end - seconds, end) | _speech_around(spoken, seconds)
        found.append(np.stack(list(wide.values()), 1).astype(np.float32))
    return np.column_stack(found)


def _speech_around(spoken: np.ndarray, seconds: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> `[S]`: shares of speech in windows before and after the cut, and in the shots beside it, and silences.

    All are against the film's mean, so 0 is also right for films of which nothing is known.
    """
    known = bool(np.isfinite(spoken).all())
    speech_seconds, before, after = (spoken if known else np.zeros_like(spoken)).T
    end = np.cumsum(seconds)
    mean = speech_seconds.sum() / max(end[-1], 1e-6)
    times, total = np.append(0, end), np.append(0, np.cumsum(speech_seconds))

    def until(time: np.ndarray) -> np.ndarray:  # seconds of speech, as if spread evenly over a shot
        return np.interp(time, times, total)

    found = {}
    for window in WINDOWS:
        left, right = (until(end) - until(end - window)) / window, (until(end + window) - until(end)) / window
        found[f"speech_before_{window}s"], found[f"speech_after_{window}s"] = left - mean, right - mean
        found[f"speech_change_{window}s"] = abs(left - right)
    share = speech_seconds / np.maximum(seconds, 1e-6) - mean
    found |= {"speech_in_shot_before": share, "speech_in_shot_after": np.append(share[1:], 0)}
    for name, silence in (("silence_before", before), ("silence_after", after)):
        found[name] = speech.log_pause(silence) - speech.log_pause(silence).mean()
    film = {"film_speech": mean, "speech_known": float(known)}
    return found | {name: np.full(len(end), value) for name, value in film.items()}
