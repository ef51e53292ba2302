"""OpenTimelineIO."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from shard_tools.errors import MissingDependency

from ..film import FilmScenes
from ..text import single_line
from .spans import address, length, scene_spans


def load_otio() -> ModuleType:
    """Raises MissingDependency: the library is not installed."""
    try:
        return import_module("opentimelineio")
    except ImportError:
        raise MissingDependency("scenes.otio needs opentimelineio; pip install bassl-fast") from None


def otio(film: FilmScenes) -> str:
    """A timeline of a clip per scene, for the picture and, if there is sound, for the sound, as its JSON."""
    library = load_otio()
    timing = film.timing
    rate, shown = float(film.rate), timing.file_first + timing.lead

    def span(start: int, end: int):
        """Of the file, from frames of the film."""
        begin, count = (library.opentime.RationalTime(frames, rate) for frames in (shown + start, end - start))
        return library.opentime.TimeRange(begin, count)

    timeline = library.schema.Timeline(name=single_line(film.name))
    timeline.global_start_time = library.opentime.RationalTime(timing.first, rate)
    kinds = [library.schema.TrackKind.Video, *([library.schema.TrackKind.Audio] if film.media.channels else [])]
    for kind in kinds:
        track = library.schema.Track(name="scenes", kind=kind)
        for scene in scene_spans(film):
            media = library.schema.ExternalReference(address(film), span(-timing.lead, length(film)))
            clip = library.schema.Clip(scene.name, media, span(scene.start, scene.end))
            clip.metadata["bassl-fast"] = {"scene": scene.number, "note": scene.note}
            track.append(clip)
        timeline.tracks.append(track)
    return library.adapters.write_to_string(timeline, "otio_json") + "\n"
