"""Scenes as files of other tools: `FORMATS` has a pure function from a film to text for each.

    tables     CSV: scenes, shots, shots as PySceneDetect writes them
    edl        CMX3600 edit decision lists of scenes and of shots
    markers    of scenes, for DaVinci Resolve and Avid Media Composer
    otio, fcp7, fcpxml
               timelines: OpenTimelineIO, Final Cut Pro 7 (Premiere Pro), Final Cut Pro
    chapters   for ffmpeg, video sites, web players, Matroska
    document   `scenes.json`, which is also read back

Time codes and frame numbers are those of `film.timing`. Chapters count from the start of the file.
"""

from __future__ import annotations

from collections.abc import Callable

from shard_tools import plugins
from shard_tools.errors import ConfigError
from shard_tools.storage.untrusted import is_plain_name

from ..film import FilmScenes
from .chapters import chapters, ffmetadata, matroska, webvtt
from .document import KEYFRAMES, read_film, scenes_json
from .edl import scenes_edl, shots_edl
from .fcp7 import fcp7
from .fcpxml import fcpxml
from .markers import avid_markers, resolve_markers
from .otio import load_otio, otio
from .tables import pyscenedetect_csv, scenes_csv, shots_csv

__all__ = ["FORMATS", "KEYFRAMES", "formats", "load_otio", "read_film", "scenes_json", "texts"]

FORMATS: dict[str, Callable[[FilmScenes], str]] = {  # file name -> its text
    "scenes.csv": scenes_csv,
    "shots.csv": shots_csv,
    "pyscenedetect.csv": pyscenedetect_csv,
    "scenes.edl": scenes_edl,
    "shots.edl": shots_edl,
    "scenes.otio": otio,
    "scenes.xml": fcp7,
    "scenes.fcpxml": fcpxml,
    "markers-resolve.edl": resolve_markers,
    "markers-avid.txt": avid_markers,
    "chapters.ffmetadata": ffmetadata,
    "chapters.txt": chapters,
    "chapters.vtt": webvtt,
    "chapters.xml": matroska,
}
_OTHER_RESULTS = {KEYFRAMES, "sheets", "clips", "report.html", "scenes.json"}  # see results.py


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
