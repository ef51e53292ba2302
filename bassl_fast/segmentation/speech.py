"""Subtitles move scene boundaries to pauses: few scenes end in the middle of a line.

All times are in seconds.
"""

from __future__ import annotations

import numpy as np

from shard_tools.annotations.speech import intervals, log_pause, silences

AROUND = 8  # cuts on each side with which `move_to_pauses` compares
WEIGHT = 0.25  # of the logarithm of a pause, in logits


def move_to_pauses(probability: np.ndarray, end: np.ndarray, speech: np.ndarray) -> np.ndarray:
    """Probability `[S]` of a boundary after each shot, given when somebody speaks.

    The longer the pause at a cut, against those at the cuts near it, the likelier a scene ends there; inside a line the
    pause is 0. The odds rise with the fourth root of the pause (`WEIGHT`), which is not learnt. The probabilities of
    the film are then dealt out again in the new order, so boundaries move, and their number at a threshold stays.

    Args:
        probability: `[S]`, from what is seen.
        end: `[S]`, when the shots end, in seconds.
        speech: `[L, 2]`, when each line begins and ends, in the film's time.
    """
    spoken = intervals(speech)
    if not len(spoken) or len(end) < 3:
        return probability
    pause = log_pause(np.add(*silences(end[:-1], spoken)))
    near = np.lib.stride_tricks.sliding_window_view(np.pad(pause, AROUND, constant_values=np.nan), 2 * AROUND + 1)
    seen = np.clip(probability[:-1], 1e-6, 1 - 1e-6)
    order = np.argsort(np.log(seen / (1 - seen)) + WEIGHT * (pause - np.nanmean(near, 1)), kind="stable")
    found = probability.copy()
    found[order] = np.sort(probability[:-1])
    return found
