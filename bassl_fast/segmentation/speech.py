"""When somebody speaks around a cut, as statistics of the cut: few scenes end in the middle of a line.

    lines of subtitles -> align -> intervals of the film's own time -> statistics of every cut

All times are in seconds. A film without lines has statistics of 0, but for `without_speech`, which is 1.
"""

from __future__ import annotations

import numpy as np

from .durations import around

# Speeds that subtitles of another copy of the film may have: a film of 24 frames a second played at 25 or 23.976.
SPEEDS = (1.0, 1.001, 1 / 1.001, 25 / 24, 24 / 25, 25.025 / 24, 24 / 25.025)
OFFSETS = 60.0  # longest offset that is looked for
OFFSET_STEP = 0.1
CERTAIN = 5.0  # deviations by which the best offset has to exceed the median of all
WINDOWS = (3, 7, 15, 30, 60, 120, 240)  # seconds on each side in which speech is measured
SHOTS = 6  # shots on each side whose share of speech is a statistic
CUTS = (1, 2, 4, 8, 12)  # cuts on each side with which the pause at a cut is compared
NEIGHBOURS = 3  # cuts on each side whose pauses are statistics of their own
NEAR = (15, 30, 60)  # seconds on each side in which the longest pause is looked for
INSIDE = 0.3  # a cut is inside a line if this much of it is on both sides
_LONGEST = 300.0  # pause; longer ones count as this
_LEAST = 0.1  # added to pauses before their logarithm is taken


def align(speech: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Lines `[L, 2]` moved to the film's time: subtitles of another copy may run late, or at another speed.

    Subtitles often appear and disappear at cuts, so the right speed and offset are those at which most lines do.
    Without a clear best, lines stay as they are.

    Args:
        speech: `[L, 2]`, when each line begins and ends.
        cuts: `[C]`, times of cuts, ascending.
    """
    edges = np.arange(-OFFSETS, OFFSETS + OFFSET_STEP, OFFSET_STEP)
    best, moved = CERTAIN, speech
    for speed in SPEEDS:
        times = np.sort(speech.ravel() * speed)
        first, after = (np.searchsorted(times, cuts + reach) for reach in (-OFFSETS, OFFSETS))
        apart = [cut - times[a:b] for cut, a, b in zip(cuts, first, after, strict=True)]
        count = np.histogram(np.concatenate([*apart, []]), edges)[0]
        count = np.convolve(count, np.ones(3), "valid")  # starts come just after a cut, ends just before
        usual = max(1.0, float(np.median(count)))
        certain = (count.max() - usual) / np.sqrt(usual)
        if certain > best:
            best, offset = certain, edges[count.argmax() + 1] + OFFSET_STEP / 2
            moved = speech * speed + offset
    return moved


def intervals(speech: np.ndarray) -> np.ndarray:
    """Lines `[L, 2]` in any order -> intervals `[N, 2]` of speech, ascending; overlapping lines are joined."""
    lines = np.asarray(speech, np.float64).reshape(-1, 2)
    lines = lines[lines[:, 1] > lines[:, 0]]
    lines = lines[lines[:, 0].argsort(kind="stable")]
    until = np.maximum.accumulate(lines[:, 1])
    first = np.flatnonzero(np.append(True, lines[1:, 0] > until[:-1])[: len(lines)])
    return np.stack([lines[first, 0], until[np.append(first[1:], len(lines))[: len(first)] - 1]], 1)


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
    since_start = np.where(past, end - line_before[:, 0], _LONGEST)
    since_end = np.where(past, end - line_before[:, 1], _LONGEST)  # negative inside a line
    until_next = np.where(to_come, line_after[:, 0] - end, _LONGEST)
    goes_on = since_end < 0
    silence_before, silence_after = since_end.clip(0, _LONGEST), np.where(goes_on, 0, until_next.clip(0, _LONGEST))
    return {
        "pause": _log(silence_before + silence_after),
        "silence_before": _log(silence_before),
        "silence_after": _log(silence_after),
        "silence_before_share": silence_before / (silence_before + silence_after + _LEAST),
        "since_line": _log(since_start),
        "until_line": _log(until_next),
        "line_goes_on": _log(-since_end),
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
        np.pad(pause, reach, constant_values=_log(np.zeros(1))[0]), 2 * reach + 1
    )
    for k in CUTS:
        others = np.delete(near[:, reach - k : reach + k + 1], k, 1)
        found[f"pause_against_{k}"] = pause - others.max(1)
        found[f"pause_rank_{k}"] = (others < pause[:, None]).mean(1)
    line = np.pad(goes_on, NEIGHBOURS, constant_values=_log(np.zeros(1))[0])
    for k in range(1, NEIGHBOURS + 1):
        found[f"pause_before_{k}"], found[f"pause_after_{k}"] = near[:, reach - k], near[:, reach + k]
        found[f"line_goes_on_before_{k}"] = line[NEIGHBOURS - k : len(line) - NEIGHBOURS - k]
        found[f"line_goes_on_after_{k}"] = line[NEIGHBOURS + k : len(line) - NEIGHBOURS + k]
    pauses = np.append(_log(spoken[1:, 0] - spoken[:-1, 1]), _log(np.zeros(1)))
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


def share(spoken: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Share `[N]` of the time from `begin` to `end`, `[N]` each, that is in intervals of speech `[L, 2]`."""
    total = np.append(0, np.cumsum(spoken[:, 1] - spoken[:, 0]))

    def until(time: np.ndarray) -> np.ndarray:
        begun = np.searchsorted(spoken[:, 0], time)
        still = np.where(begun > 0, np.minimum(0, time - spoken[np.maximum(begun - 1, 0), 1]), 0)
        return total[begun] + still

    return (until(end) - until(begin)) / np.maximum(end - begin, 1e-6)


def _log(seconds: np.ndarray) -> np.ndarray:
    return np.log(np.clip(seconds, 0, _LONGEST) + _LEAST)
