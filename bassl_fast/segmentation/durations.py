"""How long the shots around a cut last, as statistics of the cut: editing slows down where a new scene begins."""

from __future__ import annotations

import numpy as np

SHOTS = 8  # durations on each side that are statistics of their own
STRETCHES = (2, 4, 8, 16, 32)  # shots on each side whose durations are averaged
RANKED = (3, 6, 12)  # shots on each side among which a shot is ranked
WINDOWS = (10, 30, 60, 120, 240)  # seconds on each side in which cuts are counted


def around(values: np.ndarray, reach: int) -> np.ndarray:
    """`[S, 2 * reach]`: values `[S]` of the shots around the cut after each shot; 0 beyond the film."""
    return np.lib.stride_tricks.sliding_window_view(np.pad(values, (reach - 1, reach)), 2 * reach)


def duration_statistics(start: np.ndarray, end: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> `[S]`, a statistic of the cut after each shot.

    Durations are logarithms, against the film's median.

    Args:
        start, end: `[S]`, when the shots begin and end, in seconds.
    """
    lasting = np.log(np.maximum(end - start, 1e-2))
    median = np.median(lasting)
    lasting = lasting - median
    return _of_neighbours(lasting) | _of_stretches(lasting) | _of_ranks(lasting) | _of_place(end, lasting, median)


def _of_neighbours(lasting: np.ndarray) -> dict[str, np.ndarray]:
    near = around(lasting, SHOTS)
    found: dict[str, np.ndarray] = {}
    for k in range(SHOTS):
        found[f"duration_before_{k + 1}"] = near[:, SHOTS - 1 - k]
        found[f"duration_after_{k + 1}"] = near[:, SHOTS + k]
    for lag in (2, 3, 4):  # small where camera set-ups alternate across the cut
        found[f"alternates_after_{lag}"] = abs(near[:, SHOTS] - near[:, SHOTS - lag])
        found[f"alternates_before_{lag}"] = abs(near[:, SHOTS - 1] - near[:, SHOTS - 1 + lag])
    return found


def _of_stretches(lasting: np.ndarray) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for k in STRETCHES:
        left, right = np.split(around(lasting, k), 2, 1)
        before, after = left.mean(1), right.mean(1)
        found[f"mean_before_{k}"], found[f"mean_after_{k}"] = before, after
        found[f"change_{k}"] = abs(before - after)
        found[f"deviation_before_{k}"], found[f"deviation_after_{k}"] = left.std(1), right.std(1)
        found[f"last_against_{k}"] = left[:, -1] - (before + after) / 2
        found[f"next_against_{k}"] = right[:, 0] - (before + after) / 2
    return found


def _of_ranks(lasting: np.ndarray) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for k in RANKED:
        near = around(lasting, k)
        left, right = np.split(near, 2, 1)
        last, following = left[:, -1], right[:, 0]
        found[f"rank_of_last_{k}"] = (near < last[:, None]).mean(1)
        found[f"rank_of_next_{k}"] = (near < following[:, None]).mean(1)
        found[f"longest_{k}"] = np.maximum(last, following) - near.max(1)
        for lag in (1, 2):
            steps = [abs(side[:, lag:] - side[:, :-lag]).mean(1) for side in (left, right)]
            found[f"step_{lag}_of_{k}"] = steps[0] + steps[1]
    return found


def _of_place(end: np.ndarray, lasting: np.ndarray, median: float) -> dict[str, np.ndarray]:
    """Where in the film the cut is, how fast the film is cut there, and as a whole."""
    count, total = len(end), end[-1]
    number = np.arange(count)
    found = {"share": end / total, "since_start": np.log1p(end), "until_end": np.log1p(np.maximum(total - end, 0))}
    found |= {"shots_before": np.log1p(number), "shots_after": np.log1p(number[::-1])}
    for window in WINDOWS:
        found[f"cuts_before_{window}s"] = np.log1p(number - np.searchsorted(end, end - window))
        found[f"cuts_after_{window}s"] = np.log1p(np.searchsorted(end, end + window) - number)
    film = {"median": median, "long": np.percentile(lasting, 90), "shots": np.log(count), "lasts": np.log(total)}
    return found | {f"film_{name}": np.full(count, value) for name, value in film.items()}
