"""When somebody speaks around a cut, as statistics of the cut: few scenes end in the middle of a line.

All times are in seconds. A film without lines has statistics of 0, but for `without_speech`, which is 1.
"""

from __future__ import annotations

import numpy as np

from bassl_fast.segmentation.durations import around
from shard_tools.annotations.speech import LEAST, LONGEST, intervals, log_pause, share, silences

WINDOWS = (3, 7, 15, 30, 60, 120, 240)  # seconds on each side in which speech is measured
SHOTS = 6  # shots on each side whose share of speech is a statistic
CUTS = (1, 2, 4, 8, 12)  # cuts on each side with which the pause at a cut is compared
NEIGHBOURS = 3  # cuts on each side whose pauses are statistics of their own
NEAR = (15, 30, 60)  # seconds on each side in which the longest pause is looked for
INSIDE = 0.3  # a cut is inside a line if this much of it is on both sides


def speech_statistics(start: np.ndarray, end: np.ndarray, speech: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> `[S]`, a statistic of the cut after each shot.

    Args:
        start, end: `[S]`, when the shots begin and end.
        speech: `[L, 2]`, when each line begins and ends, in the film's time (see `align`).
    """
    spoken = intervals(speech)
    silent = not len(spoken)
    if silent:
        spoken = np.array([[0.0, 1.0]])
    found = _of_pauses(end, spoken)
    found |= _of_pauses_near(end, spoken, found["pause"], found["line_goes_on"])
    found |= _of_shares(start, end, spoken)
    return {name: x * (not silent) for name, x in found.items()} | {"without_speech": np.full(len(end), float(silent))}


def _of_pauses(end: np.ndarray, spoken: np.ndarray) -> dict[str, np.ndarray]:
    """The line before the cut, the line after it, and the pause between them."""
    after = np.searchsorted(spoken[:, 0], end)  # the first line that begins at the cut or later
    before = after - 1
    past, to_come = before >= 0, after < len(spoken)
    line_before, line_after = spoken[np.maximum(before, 0)], spoken[np.minimum(after, len(spoken) - 1)]
    since_start = np.where(past, end - line_before[:, 0], LONGEST)
    since_end = np.where(past, end - line_before[:, 1], LONGEST)  # negative inside a line
    until_next = np.where(to_come, line_after[:, 0] - end, LONGEST)
    silence_before, silence_after = silences(end, spoken)
    return {
        "pause": log_pause(silence_before + silence_after),
        "silence_before": log_pause(silence_before),
        "silence_after": log_pause(silence_after),
        "silence_before_share": silence_before / (silence_before + silence_after + LEAST),
        "since_line": log_pause(since_start),
        "until_line": log_pause(until_next),
        "line_goes_on": log_pause(-since_end),
        "inside_line": ((since_start > INSIDE) & (since_end < -INSIDE)).astype(np.float64),
        "line_before": np.where(past, line_before[:, 1] - line_before[:, 0], 0),
        "line_after": np.where(to_come, line_after[:, 1] - line_after[:, 0], 0),
        "since_first_line": np.clip((end - spoken[0, 0]) / 600, -1, 1),
        "until_last_line": np.clip((spoken[-1, 1] - end) / 600, -1, 1),
    }


def _of_pauses_near(
    end: np.ndarray, spoken: np.ndarray, pause: np.ndarray, goes_on: np.ndarray
) -> dict[str, np.ndarray]:
    """The pause at a cut against those at other cuts, and against all pauses nearby."""
    reach, found = max(CUTS), {}
    near = np.lib.stride_tricks.sliding_window_view(
        np.pad(pause, reach, constant_values=log_pause(np.zeros(1))[0]), 2 * reach + 1
    )
    for k in CUTS:
        others = np.delete(near[:, reach - k : reach + k + 1], k, 1)
        found[f"pause_against_{k}"] = pause - others.max(1)
        found[f"pause_rank_{k}"] = (others < pause[:, None]).mean(1)
    line = np.pad(goes_on, NEIGHBOURS, constant_values=log_pause(np.zeros(1))[0])
    for k in range(1, NEIGHBOURS + 1):
        found[f"pause_before_{k}"], found[f"pause_after_{k}"] = near[:, reach - k], near[:, reach + k]
        found[f"line_goes_on_before_{k}"] = line[NEIGHBOURS - k : len(line) - NEIGHBOURS - k]
        found[f"line_goes_on_after_{k}"] = line[NEIGHBOURS + k : len(line) - NEIGHBOURS + k]
    pauses = np.append(log_pause(spoken[1:, 0] - spoken[:-1, 1]), log_pause(np.zeros(1)))
    for seconds in NEAR:
        first, after = np.searchsorted(spoken[1:, 0], end - seconds), np.searchsorted(spoken[:-1, 1], end + seconds)
        longest = [pauses[a : max(b, a + 1)].max() for a, b in zip(first, after, strict=True)]
        found[f"pause_against_{seconds}s"] = pause - longest
    return found


def _of_shares(start: np.ndarray, end: np.ndarray, spoken: np.ndarray) -> dict[str, np.ndarray]:
    """How much of the time is speech: in windows, in the shots around the cut, in the film."""
    found = {}
    for window in WINDOWS:
        before, after = share(spoken, end - window, end), share(spoken, end, end + window)
        found[f"speech_before_{window}s"], found[f"speech_after_{window}s"] = before, after
        found[f"speech_change_{window}s"] = abs(before - after)
    of_shot = share(spoken, start, end)
    near = around(of_shot, SHOTS)
    for k in range(SHOTS):
        found[f"speech_in_shot_before_{k + 1}"] = near[:, SHOTS - 1 - k]
        found[f"speech_in_shot_after_{k + 1}"] = near[:, SHOTS + k]
    number, speaks = np.arange(len(end)), of_shot >= 0.05
    last = np.maximum.accumulate(np.where(speaks, number, -1))
    following = np.minimum.accumulate(np.where(speaks, number, len(end))[::-1])[::-1]
    found["silent_shots_before"] = np.log1p(number - last)
    found["silent_shots_after"] = np.log1p(np.append(following[1:], len(end)) - number - 1)
    found["film_speech"] = np.full(len(end), share(spoken, np.zeros(1), end[-1:])[0])
    return found
