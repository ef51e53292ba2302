"""Logistic regression with a Gaussian prior, solved exactly by Newton's method: no seeds, no epochs."""

from __future__ import annotations

import numpy as np

_STEPS = 100
_ENOUGH = 1e-10  # decrease of the objective at which it is solved, relative


def solve(x: np.ndarray, y: np.ndarray, weight: np.ndarray, centre: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Coefficients `[F]` of least sum of `weight * loss`, plus half of `penalty * (coefficients - centre) ** 2`.

    The problem is convex. It has a solution if both labels occur, or if every penalty is above 0.

    Args:
        x: `[N, F]` float64, a column of ones among them for the intercept.
        y: `[N]`, 0 or 1.
        weight: `[N]` of the samples.
        centre: `[F]`, the most probable coefficients before any label is seen; also where the search starts.
        penalty: `[F]`, how certain they are: one over the variance.
    """

    def objective(found: np.ndarray) -> float:
        logit = x @ found
        loss = weight @ (np.logaddexp(0, logit) - y * logit)
        return float(loss + penalty @ (found - centre) ** 2 / 2)

    found = np.asarray(centre, np.float64)
    value = objective(found)
    for _ in range(_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(x @ found, -500, 500)))
        gradient = x.T @ (weight * (probability - y)) + penalty * (found - centre)
        curvature = (x * (weight * probability * (1 - probability))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (after := objective(found - size * step)) > value and size > 1e-6:
            size /= 2
        if after > value:
            break
        found, before, value = found - size * step, value, after
        if before - value <= _ENOUGH * max(1.0, abs(value)):
            break
    return found
