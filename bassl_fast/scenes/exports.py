"""Scenes as files of other tools: pure functions from a film to text, listed in `FORMATS`."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from shard_tools import plugins
from shard_tools.annotations.movienet import KEYFRAMES_PER_SHOT, keyframe_name
from shard_tools.errors import ConfigError, MissingDependency, SourceError, masked
from shard_tools.storage.remote import is_remote
from shard_tools.storage.untrusted import is_plain_name
from shard_tools.video.timing import Timing, nominal_rate

from .film import FilmScenes, Scene, SceneShot, clock
from .keyframe_store import KeyframeStore

KEYFRAMES = "keyframes"  # folder of the key-frames, named as in MovieNet
_OTHER_RESULTS = {KEYFRAMES, "sheets", "clips", "report.html", "scenes.json"}  # besides `FORMATS`, see results.py
_COLUMNS = (
    *("scene", "start", "end", "start_timecode", "end_timecode"),
    *("first_frame", "last_frame", "first_shot", "last_shot", "probability"),
)


def scenes_csv(film: FilmScenes) -> str:
    """A row a scene; `probability` is that of the boundary at its end, empty for the last."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for scene in film.scenes:
        row = _scene_row(scene, film)
        rows.writerow(["" if value is None else f"{value:.3f}" if isinstance(value, float) else value for value in row])
    return out.getvalue()


def scenes_json(film: FilmScenes, made_by: dict[str, Any], asked: dict[str, Any]) -> str:
    """Everything but the images: how it was made, shots, scenes; seconds, frames, timecodes.

    Args:
        made_by: film, shots and model that the probabilities come from, as plain values.
        asked: options that the scenes were grouped by.
    """
    document = {
        "film": film.name,
        "source": masked(film.source),
        "rate": str(film.rate),
        "start_timecode": film.timing.timecode(0),
        "begin": film.timing.begin,
        "duration": film.duration,
        "method": film.method,
        "threshold": film.threshold,
        "threshold_from": film.threshold_from,
        "min_scene": film.shortest,
        "made_by": made_by,
        "asked": asked,
        "corrected": sorted(film.corrected),
        "scenes": [
            dict(zip(_COLUMNS, _scene_row(scene, film), strict=True)) | {"name": scene.name, "note": scene.note}
            for scene in film.scenes
        ],
        "shots": [
            {
                "shot": shot.number,
                "start": shot.start,
                "end": shot.end,
                "start_timecode": film.timing.timecode(shot.start),
                "end_timecode": film.timing.timecode(shot.end),
                "first_frame": shot.first,
                "last_frame": shot.last,
                "probability": shot.probability,
                "transition": shot.transition,
                "damaged": shot.damaged,
            }
            for shot in film.shots
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def read_film(folder: Path, document: dict[str, Any]) -> FilmScenes:
    """The film described by `scenes_json` and the key-frames in `folder`, as one scene.

    Raises:
        SourceError: a file of it is missing.
    """
    store, shots = KeyframeStore(), []
    for row in document["shots"]:
        names = [folder / KEYFRAMES / keyframe_name(row["shot"], i) for i in range(KEYFRAMES_PER_SHOT)]
        try:
            jpegs = store.add(name.read_bytes() for name in names)
        except OSError as error:
            raise SourceError(f"{error.filename}: {error.strerror}; delete {folder} and run again") from None
        span = row["start"], row["end"], row["first_frame"], row["last_frame"]
        since_kept = row.get("transition"), row.get("damaged", 0)  # not in older results
        shots.append(SceneShot(row["shot"], *span, row["probability"], jpegs, *since_kept))
    name, source, method = document["film"], document["source"], document["method"]
    timing = Timing(nominal_rate(Fraction(document["rate"])), begin=document.get("begin", 0.0))
    if "start_timecode" in document:
        timing = timing.starting_at(document["start_timecode"])
    return FilmScenes(name, source, timing, tuple(shots), (), 1.0, "", 0.0, method)


def _scene_row(scene: Scene, film: FilmScenes) -> list[Any]:
    first, last = scene.shots[0], scene.shots[-1]
    return [
        scene.number,
        scene.start,
        scene.end,
        film.timing.timecode(scene.start),
        film.timing.timecode(scene.end),
        first.first,
        last.last,
        first.number,
        last.number,
        None if last is film.shots[-1] else last.probability,
    ]


def edl(film: FilmScenes) -> str:
    """A CMX3600 edit decision list, an event a scene, with equal source and record times."""
    lines = [f"TITLE: {film.name}", f"FCM: {'DROP' if film.timing.drop else 'NON-DROP'} FRAME", ""]
    for scene in film.scenes:
        start, end = film.timing.timecode(scene.start), film.timing.timecode(scene.end)
        lines.append(f"{scene.number:03d}  AX       V     C        {start} {end} {start} {end}")
        lines.append(f"* FROM CLIP NAME: {_file_name(film)}")
        lines.append(f"* COMMENT: scene {scene.number}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Text as ffmpeg's metadata files take it: special characters after a backslash."""
    return re.sub(r"([=;#\\\n])", r"\\\1", text)


def load_otio() -> ModuleType:
    """Raises MissingDependency: the library is not installed."""
    try:
        return import_module("opentimelineio")
    except ImportError:
        raise MissingDependency("scenes.otio needs opentimelineio; pip install bassl-fast") from None


def otio(film: FilmScenes) -> str:
    """An OpenTimelineIO timeline, a clip a scene, as its JSON."""
    library = load_otio()
    rate = float(film.rate)

    def span(start: float, end: float):
        first, after = film.timing.first + film.timing.frame(start), film.timing.first + film.timing.frame(end)
        return library.opentime.TimeRange(
            library.opentime.RationalTime(first, rate), library.opentime.RationalTime(after - first, rate)
        )

    address = masked(film.source) if is_remote(film.source) else Path(film.source).resolve().as_uri()
    track = library.schema.Track(name="scenes", kind=library.schema.TrackKind.Video)
    for scene in film.scenes:
        media = library.schema.ExternalReference(target_url=address, available_range=span(0, film.duration))
        clip = library.schema.Clip(name=f"scene {scene.number}", media_reference=media)
        clip.source_range = span(scene.start, scene.end)
        clip.metadata["bassl-fast"] = {"shots": len(scene.shots), "probability": scene.shots[-1].probability}
        track.append(clip)
    timeline = library.schema.Timeline(name=film.name)
    timeline.tracks.append(track)
    return library.adapters.write_to_string(timeline, "otio_json") + "\n"


def ffmetadata(film: FilmScenes) -> str:
    """Chapters as ffmpeg reads them: `ffmpeg -i FILM -i chapters.ffmetadata -map_metadata 1 -codec copy NEW.mkv`."""
    lines = [";FFMETADATA1"]
    for scene in film.scenes:
        lines += [
            "[CHAPTER]",
            "TIMEBASE=1/1000",
            f"START={round(1000 * (film.timing.begin + scene.start))}",
            f"END={round(1000 * (film.timing.begin + scene.end))}",
        ]
        lines.append(f"title={_escaped(scene.title)}")
    return "\n".join(lines) + "\n"


def chapters(film: FilmScenes) -> str:
    """Chapters as video sites read them from a description: a line a scene, time and name."""
    begin = film.timing.begin
    starts = [0.0, *(begin + scene.start for scene in film.scenes[1:])]  # video sites want the first at 0:00
    return "".join(f"{clock(start)} {scene.title}\n" for start, scene in zip(starts, film.scenes, strict=True))


FORMATS: dict[str, Callable[[FilmScenes], str]] = {  # file name -> its text
    "scenes.csv": scenes_csv,
    "scenes.edl": edl,
    "scenes.otio": otio,
    "chapters.ffmetadata": ffmetadata,
    "chapters.txt": chapters,
}


def formats() -> dict[str, Callable[[FilmScenes], str]]:
    """`FORMATS` and those of plug-ins: file name -> function from a film to its text.

    Raises:
        ConfigError: a plug-in cannot be imported, or its name is taken or not that of a file.
    """
    others = plugins.functions("outputs", ours=_OTHER_RESULTS | FORMATS.keys())
    for name in others:
        if not is_plain_name(name):
            raise ConfigError(f"plug-in {name!r} of outputs: its name is not that of a file; rename it")
    return FORMATS | others


def texts(film: FilmScenes) -> dict[str, str]:
    """File name -> text of every format, those of plug-ins among them.

    Raises:
        ConfigError: a plug-in fails, or returns something other than text.
    """
    found = {name: text_of(film) for name, text_of in formats().items()}
    for name, text in found.items():
        if not isinstance(text, str):
            raise ConfigError(f"plug-in {name}: returned {type(text).__name__}, not text; fix or remove it")
    return found


def _file_name(film: FilmScenes) -> str:
    return film.source.rstrip("/").rsplit("/", 1)[-1]
