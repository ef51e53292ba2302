"""A film split into a file per scene: copied from the key-frame before, or encoded again to the frame."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bassl_fast.config.choices import Split
from shard_tools.errors import SourceError
from shard_tools.video.opening import open_video

from .clip import Clip
from .encode import encode_clips
from .film import FilmScenes, Scene
from .packets import APART, Timed, VideoIndex, decoding_times, read_index, timed_packets

_KEPT = {  # containers that clips keep
    "copy": (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".ts", ".mts", ".m2ts", ".avi", ".wmv", ".flv", ".3gp"),
    "exact": (".mp4", ".m4v", ".mov", ".mkv", ".wmv"),
}
_INSTEAD = {".dv": ".mov", ".3gp": ".mov"}  # of others; those that are not here become Matroska


def split_film(film: FilmScenes, folder: Path, how: Split, index: VideoIndex | None = None) -> list[str]:
    """Write `scene-001.mp4`, ... to `folder`, with all sound tracks, subtitles and tags that the container takes.

    Args:
        how: "copy" encodes nothing again. Such a clip can only begin at a key-frame of the video, so it begins with the
            end of the scene before, often a few seconds. "exact" encodes the picture again: a clip has the frames of
            its scene and no other. Sound and subtitles are copied in both.
        index: of the film, if it was read already.

    Returns:
        What clips hold besides their scenes, and what they lack, for people.

    Raises:
        SourceError: the film cannot be read, or a clip cannot be written.
    """
    own = Path(film.source).suffix.lower()
    suffix = own if own in _KEPT[how] else _INSTEAD.get(own, ".mkv")
    index = index or read_index(film.source)
    spans = [_Span.of(scene, index) for scene in film.scenes]
    begins = [index.seconds(span.begin) if how == "copy" else scene.start for scene, span in _pairs(film, spans)]
    clips = [
        Clip(film.timing, folder / f"scene-{scene.number:03d}{suffix}", begin)
        for scene, begin in zip(film.scenes, begins, strict=True)
    ]
    try:
        try:
            if how == "copy":
                _copy_clips(film, clips, spans, index)
            else:
                encode_clips(film.source, film.scenes, clips, index)
        finally:
            for clip in clips:
                clip.close()
    except ValueError as error:
        fix = "give --split exact" if how == "copy" else "leave out --split"
        raise SourceError(f"{film.source}: cannot be split into {suffix} files ({error}); {fix}") from None
    said = _beyond(film, spans, index) if how == "copy" else []
    lost = dict.fromkeys(text for clip in clips for text in clip.lost.values())
    return [*said, *([f"clips lack {', '.join(lost)}"] if lost else [])]


class _Span(NamedTuple):
    """What a copied clip holds of the video.

    Attributes:
        numbers: `[N]` of its packets, ascending.
        dts: `[N]` when to decode them, in ticks.
        begin: when the first is shown, in ticks.
        late: how many are shown after the end of the scene.
    """

    numbers: np.ndarray
    dts: np.ndarray
    begin: int
    late: int

    @classmethod
    def of(cls, scene: Scene, index: VideoIndex) -> _Span:
        """From the last key-frame shown by its start to the last packet shown before its end.

        Among them are packets shown after the end, from which pictures of the scene are made. Those shown before the
        key-frame are left out, as they are made from what is before it.
        """
        start, end = index.tick(scene.start), index.tick(scene.end)
        keys = np.flatnonzero(index.key & (index.pts <= start))
        key = int(keys[-1]) if len(keys) else 0
        begin = int(index.pts[key])
        numbers = np.flatnonzero(index.pts >= begin)
        numbers = numbers[numbers >= key]
        last = numbers[index.pts[numbers] < end].max(initial=key)
        numbers = numbers[numbers <= last]
        pts = index.pts[numbers]
        return cls(numbers, decoding_times(pts), begin, int((pts >= end).sum()))


def _pairs(film: FilmScenes, spans: list[_Span]) -> list[tuple[Scene, _Span]]:
    return list(zip(film.scenes, spans, strict=True))


def _beyond(film: FilmScenes, spans: list[_Span], index: VideoIndex) -> list[str]:
    """How far copied clips go beyond their scenes."""
    early = max(scene.start - index.seconds(span.begin) for scene, span in _pairs(film, spans))
    late = max(span.late for span in spans)
    said = [f"begin up to {early:.1f} s early (at a key-frame)"] if early > 0.05 else []
    said += [f"end up to {late} frame{'s' * (late > 1)} late (the scene is decoded from them)"] if late else []
    return [f"clips {' and '.join(said)}"] if said else []


def _copy_clips(film: FilmScenes, clips: list[Clip], spans: list[_Span], index: VideoIndex) -> None:
    """Write clips in one pass over the film; those next to each other share packets.

    Raises:
        ValueError: a clip cannot be written.
    """
    todo = deque(
        _Copying(clip, span, span.begin * index.base, index.clock(scene.end))
        for clip, (scene, span) in zip(clips, _pairs(film, spans), strict=True)
    )
    active: list[_Copying] = []
    with open_video(film.source) as container:
        for timed in timed_packets(container, index):
            if timed.number is not None:
                while todo and todo[0].begin <= timed.time + APART:
                    active.append(todo.popleft())
                    active[-1].clip.open(container)
                for ended in [one for one in active if one.end + APART < timed.time]:
                    ended.clip.close()
                    active.remove(ended)
            for one in active:
                one.copy(timed, index)


class _Copying(NamedTuple):
    """A clip and what it is to hold: the packets of `span`, and others from `begin` to `end` on the file's clock."""

    clip: Clip
    span: _Span
    begin: Fraction
    end: Fraction

    def copy(self, timed: Timed, index: VideoIndex) -> None:
        """Write a packet if it belongs to the clip."""
        span = self.span
        if timed.number is None:
            if self.begin <= timed.time < self.end:
                self.clip.other(timed, self.begin, self.end)
            return
        at = int(np.searchsorted(span.numbers, timed.number))
        if at < len(span.numbers) and span.numbers[at] == timed.number:
            pts, dts = (int(ticks) - span.begin for ticks in (index.pts[timed.number], span.dts[at]))
            self.clip.picture(timed, pts, dts)
