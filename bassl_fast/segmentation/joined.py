"""Films to train on that are pieces of labelled films, one after another.

Films as people join them from clips have few shots, and nothing in common from one scene to the next: not light or
place, and not the length of shots. Training on such films beside whole ones keeps a head from relying on lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .films import LabelledFilm

EACH = 8  # joined films for each film
PIECES = (3, 6)  # least and most, each of another film ...
SHOTS = (2, 16)  # ... and how many shots each has
_SEED = 0


class Joined(NamedTuple):
    """A joined film, and the numbers of the films that its pieces are from."""

    film: LabelledFilm
    pieces: frozenset[int]


def joined(films: Sequence[LabelledFilm]) -> list[Joined]:
    """`EACH` joined films for each film, the same at every call; none from fewer than `PIECES[0]` films.

    Pieces keep their labels, and where two of them meet is a boundary. All pieces of a film have features of one kind.
    """
    rng = np.random.default_rng(_SEED)
    kinds = sorted({(kind, x.shape[1:]) for film in films for kind, x in film.kinds.items()})
    found = []
    for number in range(EACH * len(films)):
        kind, shape = kinds[number % len(kinds)]
        having = [i for i, film in enumerate(films) if _has(film, kind, shape) and len(film.seconds) >= SHOTS[0]]
        if len(having) < PIECES[0]:
            continue
        count = rng.integers(PIECES[0], min(PIECES[1], len(having)) + 1)
        chosen = rng.choice(having, count, replace=False).tolist()
        found.append(Joined(_join([_piece(films[i], rng) for i in chosen], kind), frozenset(chosen)))
    return found


def _has(film: LabelledFilm, kind: str, shape: tuple[int, ...]) -> bool:
    return kind in film.kinds and film.kinds[kind].shape[1:] == shape


def _piece(film: LabelledFilm, rng: np.random.Generator) -> LabelledFilm:
    count = min(int(rng.integers(SHOTS[0], SHOTS[1] + 1)), len(film.seconds))
    first = int(rng.integers(len(film.seconds) - count + 1))
    chosen = slice(first, first + count)
    labels = np.append(film.boundary[chosen][:-1], 1)
    kinds, speech = {k: x[chosen] for k, x in film.kinds.items()}, None if film.speech is None else film.speech[chosen]
    return LabelledFilm(film.name, kinds, film.seconds[chosen], labels, speech)


def _join(pieces: Sequence[LabelledFilm], kind: str) -> LabelledFilm:
    features = np.concatenate([piece.kinds[kind] for piece in pieces])
    name = " + ".join(piece.name for piece in pieces)
    seconds, labels = (np.concatenate([getattr(piece, what) for piece in pieces]) for what in ("seconds", "boundary"))
    # Silence at the end of a piece has no meaning in the joined film, so its speech counts as unknown.
    speech = None if pieces[0].speech is None else np.zeros((len(seconds), pieces[0].speech.shape[1]), np.float32)
    return LabelledFilm(name, {kind: features}, seconds, labels, speech)
