"""Counter-based random numbers: any process can draw any step of any epoch on its own, with the same result."""

from __future__ import annotations

import numpy as np

from shard_tools.errors import ConfigError

# What a generator is for; two purposes never share numbers.
ORDER, SAMPLE, MODEL, POOL, MIX, SET = range(6)

_SMALL = 4096  # below this, shuffling all numbers is faster than computing a few
_ROUNDS = 4  # of two half-rounds each


def check_seed(seed: int) -> None:
    """Raises: ConfigError for a seed that a generator, here or in torch, does not accept."""
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed {seed}: must be within [0, 2^32)")


def generator(seed: int, purpose: int, epoch: int, step: int = 0) -> np.random.Generator:
    """The generator of (seed, purpose, epoch, step).

    Philox 4x64 (Salmon et al., SC 2011) with key (seed, purpose) and (epoch, step) in the high words of its counter, so
    the streams of two steps are 2^128 numbers apart.
    """
    # As uint64: numpy makes floats of a list with a number beyond 2^63, which merges neighbouring seeds.
    key, counter = np.array([seed % 2**64, purpose], np.uint64), np.array([0, 0, step, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def permute(numbers: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Images `[N]` of `numbers` `[N]` under a random permutation of range(`count`), computed only for these numbers.

    A small permutation is drawn whole. Otherwise a Feistel network (Luby and Rackoff, SIAM J. Comput. 1988) permutes
    range(2^bits), the smallest that contains range(count); a result outside range(count) is permuted again until it is
    inside (cycle walking; Black and Rogaway, CT-RSA 2002).
    """
    if count <= _SMALL:
        return rng.permutation(count)[numbers]
    bits = (count - 1).bit_length()
    keys = rng.integers(0, 2**64, (_ROUNDS, 2), np.uint64)
    found = numbers.astype(np.uint64)
    out = np.arange(len(found))
    while len(out):
        found[out] = _feistel(found[out], bits, keys)
        out = out[found[out] >= count]
    return found.astype(np.int64)


def _feistel(numbers: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    half = bits // 2
    high, low = numbers >> half, numbers & np.uint64(2**half - 1)
    for first, second in keys:
        high ^= _mix(low ^ first) >> (64 - bits + half)
        low ^= _mix(high ^ second) >> (64 - half)
    return high << half | low


def _mix(words: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix (Steele, Lea and Flood, OOPSLA 2014): each bit of a word changes half of the others."""
    words = (words ^ (words >> 30)) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> 27)) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> 31)
