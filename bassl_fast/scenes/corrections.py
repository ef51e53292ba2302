"""Scenes corrected by hand: read, checked, and put in the place of those that were found.

Corrections are the `scenes.json` of a results folder (`exports.scenes_json`) whose scenes somebody edited, which the
page of a film does. What counts in them:

    film         name of the film
    threshold, threshold_from, min_scene
                 how the scenes were found before they were edited
    shots        first_frame and last_frame of each shot must be those of the results
    scenes       a scene is the shots from first_shot to last_shot, both included; scenes follow each other, from shot 0
                 to the last; name and note are text, "" or missing if there is none
    corrected    numbers of the shots after which a boundary was set or removed by hand, ascending; a boundary that was
                 removed is in this list and is not the last_shot of a scene. It may be missing or incomplete: what
                 differs from the results is added

Everything else is what the results said, and is not read from here: start, end and time codes follow from the shots.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from shard_tools.errors import SourceError
from shard_tools.storage.untrusted import parse_json

from .film import FilmScenes

_BLANK = r"\x00-\x20\x7f-\xa0\u2028\u2029"  # controls and blanks; `editor.js` has the same
_BLANKS = re.compile(f"[{_BLANK}]+")
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATES = re.compile("[\ud800-\udfff]")  # halves of a character, which no file can hold
_FIX = "export corrections again from the film's report"


def read_corrections(path: str | Path) -> dict[str, Any]:
    """A file of corrections, checked for what `correct` uses.

    Raises:
        SourceError: no such file, not JSON, or not corrections.
    """
    try:
        document = parse_json(Path(path).read_bytes())
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); give the file saved from the report") from None
    except ValueError:
        raise SourceError(f"{path}: not JSON; give the file saved from the report") from None
    if reason := _fault(document):
        raise SourceError(f"{path}: {reason}; {_FIX}")
    return document


def is_corrected(document: dict[str, Any]) -> bool:
    """Whether the `scenes.json` of a folder holds what somebody did by hand; older ones have no `by_hand`."""
    rows = document.get("scenes", ())
    named = any(row.get("name") or row.get("note") for row in rows)
    return bool(document.get("by_hand") or document.get("corrected") or named)


def check_same_film(path: str | Path, document: dict[str, Any], results: dict[str, Any]) -> None:
    """Check that corrections belong to the `scenes.json` of a results folder.

    Raises:
        SourceError: they are of another film, or of other shots.
    """
    if document["film"] != results["film"]:
        raise SourceError(f"{path}: corrections of {document['film']!r}, not of {results['film']!r}; give that film")
    mine, found = ([(row["first_frame"], row["last_frame"]) for row in one["shots"]] for one in (document, results))
    if mine != found:
        counts = f"{len(mine)} shots, the results {len(found)}" if len(mine) != len(found) else "other shots"
        raise SourceError(
            f"{path}: made from other shots of {results['film']} (it has {counts}); correct the present report"
        )


def correct(film: FilmScenes, document: dict[str, Any], results: dict[str, Any] | None = None) -> FilmScenes:
    """The film with scenes, names and notes of checked corrections; see `read_corrections`, `check_same_film`.

    Args:
        results: `scenes.json` that was edited; boundaries that differ from it are corrected, listed or not.
    """
    rows = document["scenes"]
    names = {row["first_shot"]: one_line(row.get("name") or "") for row in rows}
    notes = {row["first_shot"]: plain(row.get("note") or "") for row in rows}
    return replace(
        film,
        ends=tuple(row["last_shot"] for row in rows[:-1]),
        threshold=float(document["threshold"]),
        threshold_from=document["threshold_from"],
        shortest=float(document["min_scene"]),
        names={shot: name for shot, name in names.items() if name},
        notes={shot: note for shot, note in notes.items() if note},
        corrected=frozenset(document.get("corrected", ())) | (_edited(film, document, results) if results else set()),
        by_hand=True,
    )


def _edited(film: FilmScenes, document: dict[str, Any], results: dict[str, Any]) -> set[int]:
    """Shots after which the scenes differ from those found: in the results, or at another threshold if it was moved.

    What corrected results had found there follows from the probability, as in `editor.js`.
    """
    threshold, shortest = document["threshold"], document["min_scene"]
    if (threshold, shortest) == (results["threshold"], results["min_scene"]):
        touched = results.get("corrected", ())
        found = _ends(results).difference(touched)
        found |= {shot for shot in touched if film.shots[shot].probability >= threshold}
    else:
        found = set(film.regrouped(threshold, "", shortest=shortest).ends)
    return _ends(document) ^ found


def _ends(document: dict[str, Any]) -> set[int]:
    return {row["last_shot"] for row in document["scenes"][:-1]}


def one_line(text: str) -> str:
    """A name: line breaks, controls and runs of blanks become one blank.

    >>> one_line(" At  the\\tbar,\\nnight ")
    'At the bar, night'
    """
    return _BLANKS.sub(" ", _SURROGATES.sub("\ufffd", text)).strip(" ")


def plain(text: str) -> str:
    r"""A note: it may have several lines, which end in "\n"; other controls become blanks."""
    lines = _SURROGATES.sub("\ufffd", text).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub(" ", lines).strip(" \n")


def _fault(document: Any) -> str:
    """What is wrong with it as corrections, or ""."""
    if not isinstance(document, dict) or not {"film", "scenes", "shots", "threshold"} <= document.keys():
        return "not the scenes of a film"
    try:
        shots = [(int(row["first_frame"]), int(row["last_frame"])) for row in document["shots"]]
        rows = [(row["first_shot"], row["last_shot"]) for row in document["scenes"]]
        texts = [row.get(key) or "" for row in document["scenes"] for key in ("name", "note")]
        corrected = document.get("corrected", [])
        numbers = [*corrected, *(shot for row in rows for shot in row)]
        float(document["threshold"]), float(document["min_scene"]), str(document["threshold_from"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"a value is missing or of the wrong kind ({error})"
    if not all(isinstance(text, str) for text in [*texts, document["film"], document["threshold_from"]]):
        return "a name or note is not text"
    if not all(type(number) is int and 0 <= number < len(shots) for number in numbers):
        return f"it names a shot that is not one of the {len(shots)}"
    follows = 0
    for first, last in rows:
        if first != follows or last < first:
            return f"a scene should begin at shot {follows}, not at {first}" if first != follows else "a scene is empty"
        follows = last + 1
    if follows != len(shots) or not shots:
        return f"its scenes end at shot {follows - 1} of {len(shots)}"
    return ""
