"""Counter-based random numbers: any step of any epoch can be drawn alone, by any process, and comes out the same."""

from __future__ import annotations

import numpy as np

# What a generator is for; two purposes never share numbers.
ORDER, SAMPLE, MODEL = range(3)


def generator(seed: int, purpose: int, epoch: int, step: int = 0) -> np.random.Generator:
    """The generator of (seed, purpose, epoch, step).

    Philox 4x64 (Salmon et al., SC 2011) with key (seed, purpose) and (epoch, step) in the high words of its counter, so
    the streams of two steps are 2^128 numbers apart.
    """
    # As uint64: numpy makes floats of a list with a number beyond 2^63, and then neighbouring seeds are one.
    key, counter = np.array([seed % 2**64, purpose], np.uint64), np.array([0, 0, step, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
