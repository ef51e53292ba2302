"""`scenes.json`: all that is known of a film and its scenes but the images."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

from shard_tools.annotations.movienet import KEYFRAMES_PER_SHOT, keyframe_name
from shard_tools.errors import SourceError, masked
from shard_tools.video.facts import MediaFacts
from shard_tools.video.timing import Timing, nominal_rate

from ..film import FilmScenes, SceneShot
from ..keyframe_store import keyframe_files
from .tables import COLUMNS, scene_row

KEYFRAMES = "keyframes"  # folder of the key-frames, named as in MovieNet


def scenes_json(film: FilmScenes, made_by: dict[str, Any], asked: dict[str, Any]) -> str:
    """Everything but the images: how it was made, shots, scenes; seconds, frames, timecodes.

    Args:
        made_by: film, shots and model that the probabilities come from, as plain values.
        asked: options that the scenes were grouped by.
    """
    document = {
        "film": film.name,
        "source": masked(film.source),
        "media": film.media._asdict(),
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
        "by_hand": film.by_hand,
        "corrected": sorted(film.corrected),
        "scenes": [dict(zip(COLUMNS, scene_row(scene, film), strict=True)) for scene in film.scenes],
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
    """The film described by `scenes_json` and the key-frames in `folder`, as one scene. They are read when asked for.

    Raises:
        SourceError: a file of it is missing.
    """
    keyframes = folder / KEYFRAMES
    shots, there = [], set(os.listdir(keyframes)) if keyframes.is_dir() else set()
    for row in document["shots"]:
        names = [keyframe_name(row["shot"], i) for i in range(KEYFRAMES_PER_SHOT)]
        if missing := set(names) - there:
            raise SourceError(f"{keyframes / min(missing)}: is missing; delete {folder} and run again")
        jpegs = keyframe_files(keyframes, names)
        span = row["start"], row["end"], row["first_frame"], row["last_frame"]
        since_kept = row.get("transition"), row.get("damaged", 0)  # not in older results
        shots.append(SceneShot(row["shot"], *span, row["probability"], jpegs, *since_kept))
    name, source, method = document["film"], document["source"], document["method"]
    timing = Timing(nominal_rate(Fraction(document["rate"])), begin=document.get("begin", 0.0))
    if "start_timecode" in document:
        timing = timing.starting_at(document["start_timecode"])
    media = MediaFacts(**document.get("media", {}))
    media = media._replace(channels=tuple(media.channels))
    return FilmScenes(name, source, timing, tuple(shots), (), 1.0, "", 0.0, method, media=media)
