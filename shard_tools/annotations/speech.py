"""When somebody speaks in a film: lines of subtitles on the film's clock, and how they meet its cuts.

    lines of subtitles -> on_clock -> lines on the clock of the film -> inside -> times of speech of every shot
                                                                      -> words of every shot

All times are in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shard_tools.errors import masked

# Speeds that subtitles of another copy of the film may have: a film of 24 frames a second played at 25 or 23.976.
SPEEDS = (1.0, 1.001, 1 / 1.001, 25 / 24, 24 / 25, 25.025 / 24, 24 / 25.025)
OFFSETS = 60.0  # longest offset that is looked for
OFFSET_STEP = 0.1
LONGEST = 300.0  # pause; longer ones count as this
LEAST = 0.1  # added to pauses before their logarithm is taken
HEARD = 4.0  # seconds around the middle of a shorter shot in which lines count as its own
CERTAIN = 5.0  # deviations by which the best offset has to exceed the median of all
_SAID = 0.5  # seconds of offset that are worth a note


def on_clock(lines: np.ndarray, end: np.ndarray, where: str | Path) -> np.ndarray:
    """Lines `[L, 2]` of a file moved to the film's time, see `align`. Prints how far.

    Args:
        end: `[S]`, when the shots end.
        where: the file, for messages.
    """
    moved = align(lines, end[:-1])
    if moved is not lines:
        speed = float(np.ptp(moved) / np.ptp(lines))
        offset = float(moved[0, 0] - speed * lines[0, 0])
        if abs(offset) > _SAID or abs(speed - 1) > 0.01:
            print(masked(f"note: {where}: moved by {offset:+.1f} s, at {speed:.3f} times its length"), flush=True)
    return moved


def inside(lines: np.ndarray, end: np.ndarray, where: str | Path) -> np.ndarray:
    """Lines `[L, 2]` within a film whose shots end at `[S]`. Prints how many are not."""
    kept = lines[(lines[:, 1] > 0) & (lines[:, 0] < end[-1])].clip(0, end[-1])
    if len(kept) < len(lines):
        outside = f"{len(lines) - len(kept)} of {len(lines)} lines"
        print(masked(f"note: {where}: {outside} are outside of the film; are they of this film?"), flush=True)
    return kept


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
        certain = 2 * (np.sqrt(count.max() + 3 / 8) - np.sqrt(usual + 3 / 8))  # Anscombe's, for small counts
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


def speech_of_shots(start: np.ndarray, end: np.ndarray, speech: np.ndarray) -> np.ndarray:
    """Speech and silences `[S, 3]` of shots, the columns of `shards.format.SPEECH`; NaN without a line.

    Silence is `LONGEST` before the first line and after the last.

    Args:
        start, end: `[S]`, when the shots begin and end.
        speech: `[L, 2]`, when each line begins and ends, on the clock of the film.
    """
    spoken = intervals(speech)
    if not len(spoken):
        return np.full((len(end), 3), np.nan)
    return np.stack([share(spoken, start, end) * (end - start), *silences(end, spoken)], 1)


def words_of_shots(start: np.ndarray, end: np.ndarray, speech: np.ndarray, words: Sequence[str]) -> list[str]:
    """The words of all lines that overlap each of S shots; "" where nobody speaks.

    A line belongs to every shot that it overlaps. A shot shorter than `HEARD` has those of that time around its middle,
    as hardly a word is said in a second.

    Args:
        start, end: `[S]`, when the shots begin and end.
        speech: `[L, 2]`, when each line begins and ends, on the clock of the film.
        words: of each line.
    """
    more = np.maximum(0, HEARD - (end - start)) / 2
    found = []
    for begin, until in zip(start - more, end + more, strict=True):
        said = np.flatnonzero((speech[:, 0] < until) & (speech[:, 1] > begin)).tolist()
        found.append(" ".join(words[line] for line in said if words[line]))
    return found


def silences(cuts: np.ndarray, spoken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds `[C]` from the last line to each cut, and from the cut to the next line; 0 inside a line.

    Args:
        cuts: `[C]` times.
        spoken: `[N, 2]`, see `intervals`.
    """
    after = np.searchsorted(spoken[:, 0], cuts)  # the first line that begins at the cut or later
    bounds = np.concatenate([[[-np.inf, -np.inf]], spoken, [[np.inf, np.inf]]])
    before, until = cuts - bounds[after, 1], bounds[after + 1, 0] - cuts
    return before.clip(0, LONGEST), np.where(before < 0, 0, until.clip(0, LONGEST))


def log_pause(seconds: np.ndarray) -> np.ndarray:
    """The logarithm of pauses, of which the shortest count alike."""
    return np.log(np.clip(seconds, 0, LONGEST) + LEAST)


def share(spoken: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Share `[N]` of the time from `begin` to `end`, `[N]` each, that is in intervals of speech `[L, 2]`."""
    total = np.append(0, np.cumsum(spoken[:, 1] - spoken[:, 0]))

    def until(time: np.ndarray) -> np.ndarray:
        begun = np.searchsorted(spoken[:, 0], time)
        still = np.where(begun > 0, np.minimum(0, time - spoken[np.maximum(begun - 1, 0), 1]), 0)
        return total[begun] + still

    return (until(end) - until(begin)) / np.maximum(end - begin, 1e-6)
