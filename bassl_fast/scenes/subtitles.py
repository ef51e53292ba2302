"""Subtitles for the scenes of films: which film has which, and when its lines are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shard_tools.errors import ConfigError, SourceError
from shard_tools.storage.checksums import sha256_of
from shard_tools.video.subtitles import Lines, film_subtitles, find_subtitles, read_subtitles

STREAM = "stream"  # in place of a file: the film's own
NO_LINES = Lines(np.zeros((0, 2)), ())


def subtitles_of(given: str, sources: Mapping[str, str]) -> dict[str, str]:
    """Name of a film -> its file of subtitles, or `STREAM`.

    Prints how many films have none.

    Args:
        given: a file, a folder (see `find_subtitles`), or `STREAM`.
        sources: name -> path or address of each film.

    Raises:
        SourceError: a file that cannot be read, or a folder without subtitles of these films.
        ConfigError: one file for several films.
    """
    if given == STREAM:
        return dict.fromkeys(sources, STREAM)
    if not Path(given).is_dir():
        read_subtitles(given)  # what is wrong is said before the long work
        if len(sources) > 1:
            raise ConfigError(f"subtitles: the file of one film, but there are {len(sources)} films; give a folder")
        return dict.fromkeys(sources, given)
    found = find_subtitles(Path(given), sources)
    if not found:
        raise SourceError(
            f"{given}: no subtitles of these films; name them like the films, such as {next(iter(sources))}.srt"
        )
    if len(found) < len(sources):
        print(f"note: {len(sources) - len(found)} of {len(sources)} films have no subtitles in {given}", flush=True)
    return found


def identity(subtitles: str | None, text_encoder: str | None = None) -> dict[str, Any]:
    """What changes when other subtitles are used, or another encoder of their words; empty without subtitles."""
    if subtitles is None:
        return {}
    words = {} if text_encoder is None else {"text_encoder_sha256": _text_sha256(text_encoder)}
    if subtitles == STREAM:
        return {"subtitles": STREAM, **words}
    with open(subtitles, "rb") as file:
        return {"subtitles_sha256": sha256_of(file), **words}


def _text_sha256(text_encoder: str) -> str:
    from bassl_fast.checkpoints import hub  # it needs torch, and times of subtitles do not

    return hub.text_sha256(text_encoder)


def read_lines(film: str | Path, subtitles: str | Path) -> Lines:
    """The lines of a file, or of the film's own stream for `STREAM`; none if the film has none.

    Raises:
        SourceError: see `read_subtitles`, `film_subtitles`.
    """
    if str(subtitles) != STREAM:
        return read_subtitles(subtitles)
    lines = film_subtitles(film)
    if lines is None or not lines.words:
        print(f"note: {film} has no subtitles of its own; its scenes are found without", flush=True)
        return NO_LINES
    return lines
