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

from dataclasses import replace
from pathlib import Path
from typing import Any

from bassl_fast.report.tables import count
from bassl_fast.runtime.run_folder import RunFolder
from shard_tools.errors import SourceError
from shard_tools.storage.remote import is_remote
from shard_tools.storage.untrusted import parse_json

from . import exports
from .film import FilmScenes
from .results import SCENES, identity, not_written, read_earlier, write_results
from .sources import name_of
from .text import plain, single_line
from .videos import Videos

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
    names = {row["first_shot"]: single_line(row.get("name") or "") for row in rows}
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


def correct_results(source: str, corrections: str, out: str, videos: Videos, start_timecode: str | None) -> str:
    """Write the results of a film again with scenes corrected by hand; the folder.

    Nothing is decoded, and the film need not be there any more.

    Raises:
        SourceError: no results of this film yet, or corrections of another one.
        ConfigError: not a time code of this film.
    """
    document = read_corrections(corrections)
    run, name = RunFolder(out), document["film"]
    given = name_of(source)
    if name.casefold() != given.casefold() and not name.startswith(given):  # of two films of a name, one is renamed
        raise SourceError(f"{corrections}: corrections of {name!r}, not of {given!r}; give that film")
    run.bring(SCENES, name)
    run.bring("*", f"{name}/{exports.KEYFRAMES}")
    folder = run.path / name
    there = is_remote(source) or Path(source).exists()
    earlier = read_earlier(folder, source if there else None)
    if earlier is None:
        other = f" ({corrections} says {name!r}, the film given is {given!r})" if name != given else ""
        raise SourceError(f"{run.where(name)}: no results of this film yet{other}; run without --corrections first")
    check_same_film(corrections, document, earlier)
    film = correct(exports.read_film(folder, earlier), document, earlier)
    made_by, asked = earlier["made_by"], earlier["asked"] | {"exports": sorted(exports.formats())}
    if start_timecode is not None:
        film, asked["start_timecode"] = replace(film, timing=film.timing.starting_at(start_timecode)), start_timecode
    if there:
        if made_by["film"] != identity(source):
            raise SourceError(
                f"{source}: another film than the results are of; find its scenes with another --out, and give the "
                "corrections there"
            )
        film = replace(film, source=source)
    written = write_results(folder, film, made_by, asked, videos, earlier, is_remote(out))
    run.replace(name, SCENES)
    edited = count(len(film.corrected), "edited boundary", "edited boundaries")
    counts = f"{count(len(film.scenes), 'scene')} of {count(len(film.shots), 'shot')}, {edited}"
    print(f"{name}: {counts}, {count(len(film.names), 'name')}\n  {run.where(f'{name}/report.html')}", flush=True)
    for line in written.said:
        print(f"  {line}", flush=True)
    if written.failed:
        raise not_written(written.failed, run.where(name))
    return run.where(name)


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
