"""Films with the labels of each of several annotators, from BBC Planet Earth's annotations as published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bassl_fast.metrics.scenes import FilmScores
from shard_tools.annotations.label318 import read_shot_times
from shard_tools.annotations.scene_lists import find_scene_lists, match_videos, read_scene_list
from shard_tools.errors import SourceError


def of_annotators(
    films: Sequence[FilmScores], numbers: Mapping[str, np.ndarray], root: Path
) -> dict[str, list[FilmScores]]:
    """Annotator -> the films with the annotator's labels.

    Args:
        numbers: film -> `[S]` shot numbers, those of the published list of shots.
        root: folder with `[annotations/]scenes/annotator_N/` and `[annotations/]shots/`.

    Raises:
        SourceError: no annotators, one has not labelled a film, or its list of shots does not fit the film.
    """
    folders = [folder for part in ("annotations/scenes", "scenes") for folder in (root / part).glob("annotator_*")]
    found = sorted(int(number) for folder in folders if (number := folder.name.removeprefix("annotator_")).isdecimal())
    if not found:
        raise SourceError(f"{root}: no scenes/annotator_0/ in it; give the folder of BBC's annotations as published")
    return {f"annotator_{number}": _labelled(films, numbers, root, number) for number in dict.fromkeys(found)}


def _labelled(
    films: Sequence[FilmScores], numbers: Mapping[str, np.ndarray], root: Path, annotator: int
) -> list[FilmScores]:
    lists, _ = match_videos(find_scene_lists(root, annotator), [film.film for film in films])
    labelled = []
    for film in films:
        if film.film not in lists:
            raise SourceError(f"{root}: annotator_{annotator} has no scenes of {film.film}; choose another --split")
        scenes, shots = read_scene_list(lists[film.film]), numbers[film.film]
        if scenes.shots is None:
            raise SourceError(f"{scenes.path}: no list of shots for it; put shots/{scenes.path.name} there")
        boundary = scenes.boundaries(read_shot_times(scenes.shots)[:, 0])
        if not np.array_equal(shots, np.arange(len(boundary))):
            raise SourceError(
                f"{scenes.shots}: {len(boundary)} shots, {film.film} was packed with {len(shots)}; pack it again with "
                "the published shots"
            )
        labelled.append(replace(film, boundary=boundary))
    return labelled
