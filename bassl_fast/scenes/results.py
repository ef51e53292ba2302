"""The results folder of a film: key-frames, contact sheets, exports, report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from bassl_fast.metrics.scenes import FilmScores
from bassl_fast.report.films import FilmPage
from bassl_fast.report.page import write_report
from shard_tools.annotations.movienet import keyframe_name
from shard_tools.errors import SourceError, masked
from shard_tools.storage.remote import attempt, filesystem, is_remote
from shard_tools.storage.untrusted import parse_json

from . import exports
from .film import FilmScenes
from .sheet import contact_sheet
from .split import split_film

SCENES = "scenes.json"  # says how the folder was made


def identity(source: str) -> dict[str, Any]:
    """What changes when another film is put at the same path or address."""
    if is_remote(source):
        fs, path = filesystem(source)
        return {"bytes": attempt(source, lambda: fs.size(path))}
    facts = Path(source).stat()
    return {"bytes": facts.st_size, "modified": facts.st_mtime_ns}


def read_earlier(folder: Path, source: str) -> dict[str, Any] | None:
    """`scenes.json` of an earlier run on the same film, if there was one.

    Raises:
        SourceError: the folder is another film's, or not a results folder.
    """
    if not folder.exists():
        return None
    try:
        earlier = parse_json((folder / SCENES).read_text(encoding="utf-8"))
        same = earlier["source"] == masked(source) or _moved(earlier, source)
    except (OSError, ValueError, KeyError, TypeError):
        raise SourceError(f"{folder}: exists and is not a result of this command; choose another --out") from None
    if not same:
        raise SourceError(f"{folder}: holds the scenes of {earlier['source']}; choose another --out for {source}")
    return earlier


def _moved(earlier: dict[str, Any], source: str) -> bool:
    """Whether the film of earlier results is given by another path."""
    return Path(earlier["source"]).name == Path(source).name and earlier["made_by"].get("film") == identity(source)


def write_results(folder: Path, film: FilmScenes, made_by: dict[str, Any], asked: dict[str, Any]) -> None:
    """Write all files of a film; the folder appears, or replaces an earlier one, when all are written.

    Args:
        made_by, asked: see `exports.scenes_json`.
    """
    draft, old = (folder.with_name(f".{folder.name}.{what}") for what in ("part", "old"))
    for leftover in (draft, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        for name in (exports.KEYFRAMES, "sheets"):
            (draft / name).mkdir(parents=True)
        for shot in film.shots:
            for i, jpeg in enumerate(shot.keyframes):
                (draft / exports.KEYFRAMES / keyframe_name(shot.number, i)).write_bytes(jpeg)
        for scene in film.scenes:
            (draft / "sheets" / f"scene-{scene.number:03d}.jpg").write_bytes(contact_sheet(scene))
        for name, text in {**exports.texts(film), SCENES: exports.scenes_json(film, made_by, asked)}.items():
            (draft / name).write_text(text, encoding="utf-8")
        if asked["split"]:
            (draft / "clips").mkdir()
            split_film(film, draft / "clips")
        write_report(draft / "report.html", film.name, [_page(film)], {}, film.threshold, {}, subtitle=_subtitle(film))
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
    finally:
        for leftover in (draft, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _page(film: FilmScenes) -> FilmPage:
    seconds = np.array([(shot.start, shot.end) for shot in film.shots])
    unknown = np.full(len(film.shots), -1)
    probability = np.array([shot.probability for shot in film.shots])
    scores = FilmScores(film.name, probability, unknown, unknown, unknown)
    thumbnails = [jpeg for shot in film.shots for jpeg in shot.keyframes]
    return FilmPage(
        film.name, thumbnails, scores, seconds=seconds, ends=film.ends, shortest=film.shortest, rate=film.rate
    )


def _subtitle(film: FilmScenes) -> str:
    shortest = f"; no scene shorter than {film.shortest:g} s" if film.shortest else ""
    threshold = f"Threshold {film.threshold:.3f}: {film.threshold_from}{shortest}."
    return f"{masked(film.source)}, scored by {film.method}. {threshold}"
