"""When somebody speaks around a cut, as statistics for a linear head beside those of `similarity`.

They are made from what shards and features keep of every shot (`shard_tools.shards.format.SPEECH`). Like the
others they are symmetric in time and standardised within the film; a film without subtitles has zeros.
"""

from __future__ import annotations

import numpy as np

from shard_tools.annotations.speech import log_pause
from shard_tools.shards.format import SPEECH

NEIGHBOURS = 3  # cuts on each side whose pauses are statistics of their own
CUTS = (1, 2, 4, 8, 12)  # cuts on each side with which the pause at a cut is compared
STRETCHES = (1, 2, 4, 8, 16)  # shots on each side whose share of speech is averaged
_SPREAD = 0.1  # added to the deviation of a statistic in its film, as in `similarity`


def speech_of(shots: np.ndarray) -> np.ndarray:
    """The columns of `SPEECH` of rows `[S]` of shots as `[S, 3]`; NaN if they have no such columns."""
    names = SPEECH.names or ()
    if not set(names) <= set(shots.dtype.names or ()):
        return np.full((len(shots), len(names)), np.nan)
    return np.stack([shots[name].astype(np.float64) for name in names], 1)


def statistic_names() -> list[str]:
    """The columns of `film_statistics`, in order."""
    return list(_statistics(np.zeros((2, 3)), np.ones(2)))


def film_statistics(speech: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Statistics `[S, G]` float32 of the cut after every shot of a film.

    Args:
        speech: `[S, 3]`, see `speech_of`.
        seconds: `[S]`, how long the shots last.
    """
    if not np.isfinite(speech).all():
        return np.zeros((len(speech), len(statistic_names())), np.float32)
    found = np.stack(list(_statistics(speech, seconds).values()), 1)
    cuts = found[:-1] if len(found) > 1 else found  # there is none after the last shot
    return ((found - cuts.mean(0)) / (cuts.std(0) + _SPREAD)).astype(np.float32)


def _statistics(speech: np.ndarray, seconds: np.ndarray) -> dict[str, np.ndarray]:
    spoken, before, after = speech.T
    pause, share = log_pause(before + after), spoken / np.maximum(seconds, 1e-6)
    found = {"pause": pause, "in_line": (before + after == 0).astype(float)}
    found["uneven_silence"] = abs(before - after) / (before + after + 1)
    reach = max(CUTS)
    near = np.lib.stride_tricks.sliding_window_view(np.pad(pause, reach, "edge"), 2 * reach + 1)
    for k in range(1, NEIGHBOURS + 1):
        found[f"pauses_{k}"] = near[:, reach - k] + near[:, reach + k]
    for k in CUTS:
        others = np.delete(near[:, reach - k : reach + k + 1], k, 1)
        found[f"pause_against_{k}"] = pause - others.max(1)
        found[f"pause_rank_{k}"] = (others < pause[:, None]).mean(1)
    for k in STRETCHES:
        sides = np.lib.stride_tricks.sliding_window_view(np.pad(share, (k - 1, k)), 2 * k)
        left, right = (side.mean(1) for side in np.split(sides, 2, 1))
        found[f"speech_{k}"], found[f"speech_change_{k}"] = left + right, abs(left - right)
    return found
