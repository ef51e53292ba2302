"""Several kinds of features of the same films, and what the similarity head reads of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bassl_fast.heads import speech
from bassl_fast.heads.similarity import alike
from shard_tools.annotations.labels import FPS
from shard_tools.errors import FeatureError, masked
from shard_tools.storage.remote import absolute

from .colours import colour_kinds
from .features import FeatureSet, Film
from .films import LabelledFilm
from .model import SceneBoundary
from .statistics import Reads, statistics_of
from .windows import Windows


@dataclass(frozen=True)
class Kinds:
    """Feature folders. The first says which films there are, with their splits and labels, and is what a contextual
    relation network reads; films are found in the others by their names."""

    sets: list[FeatureSet]

    @classmethod
    def open(cls, features: str | Path | Sequence[str | Path]) -> Kinds:
        """Open one or several finished feature folders; see `FeatureSet.open`.

        Raises:
            FeatureError: a folder is given twice, or has none of the films of the first.
        """
        sets = [FeatureSet.open(root) for root in ([features] if isinstance(features, str | Path) else features)]
        seen: set[str] = set()
        for feature_set in sets:
            if (root := absolute(feature_set.root)) in seen:
                raise FeatureError(f"{feature_set.root}: given twice; give each feature folder once")
            seen.add(root)
            _compare_films(sets[0], feature_set)
        return cls(sets)

    @property
    def first(self) -> FeatureSet:
        return self.sets[0]

    @property
    def names(self) -> list[str | None]:
        """For each folder the sha256 of the checkpoint that made it, or "colours"; None if it is not known."""
        return [feature_set.provenance["checkpoint_sha256"] for feature_set in self.sets]

    def windows(self, films: list[Film], model: SceneBoundary, device: torch.device) -> Windows:
        """What `model` reads of films of the first folder, on the device.

        Raises:
            FeatureError: it does not fit there, or see `of` and `seconds_of`.
        """
        if model.reads is None:
            return Windows.load(films, model.shots, device)
        statistics = np.concatenate([self._statistics(film, model.reads) for film in films])
        if not model.dim:  # the head alone sees no feature
            films = [replace(film, features=film.features[:, :0]) for film in films]
        return Windows.load(films, model.shots, device, statistics)

    def labelled(self, film: Film, reads_speech: bool = False) -> LabelledFilm:
        """A film of the first folder, to fit the similarity head to; `reads_speech`: also to statistics of speech."""
        seconds = seconds_of(film)
        heard = speech.film_statistics(speech.speech_of(film.shots), seconds) if reads_speech else None
        return LabelledFilm(film.name, self.of(film), seconds, film.shots["boundary"], heard)

    def have_speech(self, split: str) -> bool:
        """Whether it is known of a film of a split of the first folder when somebody speaks."""
        return any(np.isfinite(speech.speech_of(film.shots)).all() for film in self.first.films(split))

    def of(self, film: Film) -> dict[str, np.ndarray]:
        """Folder -> features `[S, D]`, or two kinds `[S, K, D]` of colours, of the folders that have the film.

        Raises:
            FeatureError: another number of shots, or other labels, than in the first folder.
        """
        found: dict[str, np.ndarray] = {}
        for feature_set in self.sets:
            there = film if feature_set is self.first else feature_set.film(film.name)
            if there is None:
                continue
            count, expected = len(there.shots), len(film.shots)
            if count != expected:
                raise FeatureError(
                    f"{feature_set.root}: {film.name} has {count} shots, but {expected} in {self.first.root}; extract "
                    "both from the same shards"
                )
            if not np.array_equal(there.shots["boundary"], film.shots["boundary"]):
                raise FeatureError(
                    f"{feature_set.root}: {film.name} has other labels than in {self.first.root}; extract both from "
                    "the same shards"
                )
            if feature_set.of_colours:
                found |= {f"{feature_set.root} ({kind})": x for kind, x in colour_kinds(there.features).items()}
            else:
                found[feature_set.root] = there.features
        return found

    def _statistics(self, film: Film, reads: Reads) -> np.ndarray:
        similar = [alike(features, f"{root}: {film.name}") for root, features in self.of(film).items()]
        return statistics_of(similar, seconds_of(film), speech.speech_of(film.shots), reads)


def _compare_films(first: FeatureSet, other: FeatureSet) -> None:
    """Print how many films of `first` are not in `other`.

    Raises:
        FeatureError: none is.
    """
    films = first.sequences["name"].tolist()
    lacking = len(set(films) - set(other.sequences["name"].tolist()))
    if films and lacking == len(films):
        raise FeatureError(f"{other.root}: has none of the films in {first.root}; extract both from the same shards")
    if lacking:
        print(f"note: {lacking} of {len(films)} films lack {masked(other.root)}")


def seconds_of(film: Film) -> np.ndarray:
    """How long the shots of a film last, `[S]`.

    Raises:
        FeatureError: the time of a shot is unknown.
    """
    start, end = (film.shots[name].astype(np.int64) for name in ("start", "end"))
    unknown = np.minimum(start, end) < 0
    if unknown.any():
        raise FeatureError(
            f"{film.name}: the time of shot {film.shots['shot'][unknown.argmax()]} is unknown, and all heads but crn "
            f"need it; pack again with scene318/shot_movie318/{film.name}.txt, then extract again"
        )
    return (end - start + 1) / FPS
