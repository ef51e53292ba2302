"""Which frames of a shot make a clip. A video is a film of one shot, so these are its frames too.

seconds     T frames at equal distances of a span of seconds        2.56 s, anywhere (SCE, arXiv:2212.11187)
stride      the same of T x stride frames at 30 frames/s            16 x 5, anywhere (VoV3D on Kinetics)
segments    a frame of each of T equal parts of the shot            (VoV3D on Something-Something)
none        T frames at equal distances of the whole shot           the key-frames of a film's shot

a shot of 20 frames, T = 4     seconds, stride     ....|..|..|..|.......
                               segments            ..|...|.....|.....|..
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shard_tools.errors import ConfigError, ShardError
from shard_tools.shards.index import ShardIndex

from .samples import Centers, Drawn, Sampler

_RATE = 30  # frames/s that a stride counts by
_NOISE = 1e-6  # of a frame: what floating point may add to a whole one


@dataclass(frozen=True)
class Clips:
    """The law of the frames of a clip.

    Of a shot shorter than the span, the frames are spread over the clip (`seconds`) or the last repeated (`stride`).

    Args:
        frames: T of a clip.
        seconds, stride, segments: one of them, or none; see above.

    Raises:
        ConfigError: a value outside its range, or two laws.
    """

    frames: int = 8
    seconds: float | None = None
    stride: float | None = None
    segments: bool = False

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigError(f"clips.frames {self.frames}: must be at least 1")
        for name in ("seconds", "stride"):
            if (value := getattr(self, name)) is not None and not 0 < value < float("inf"):
                raise ConfigError(f"clips.{name} {value}: must be positive")
        if (self.seconds is not None) + (self.stride is not None) + self.segments > 1:
            laws = f"seconds {self.seconds}, stride {self.stride}, segments {self.segments}"
            raise ConfigError(f"clips: {laws}: give one law, and null or false for another that the config gives")

    def draw(self, centers: Centers, rng: np.random.Generator, count: int) -> np.ndarray:
        """Frame numbers `[B, count, T]` within the centre shots, of `count` clips of each, at random places.

        Raises:
            ShardError: the law needs frames/s, and those of a video are unknown.
        """
        shape = (len(centers.position), count)
        return self._numbers(centers, rng.random((*shape, self.frames) if self.segments else shape))

    def spaced(self, centers: Centers, count: int) -> np.ndarray:
        """Frame numbers `[B, count, T]` of the `count` clips of each centre shot that it is judged by.

        Clip i of K begins at i / (K - 1) of the possible places by `seconds` (SCE), at i / K by `stride` (VoV3D), so
        that its last does not reach the end; of segments it takes the frame at (i + 0.5) / K.

        Raises:
            ConfigError: many clips of a law that has one.
            ShardError: as of `draw`.
        """
        if count < 1 or (count > 1 and self == Clips(self.frames)):
            raise ConfigError(f"{count} clips: the whole shot is one clip; give a law, such as clips.seconds, or 1")
        number = np.arange(count)
        place = (number + 0.5) / count if self.segments else number / (count if self.stride else max(1, count - 1))
        place = np.broadcast_to(place, (len(centers.position), count))
        return self._numbers(centers, place[..., None] if self.segments else place)

    def check(self, index: ShardIndex, films: np.ndarray) -> None:
        """Refuse `films` `[N]` before the first clip is drawn.

        Raises:
            ShardError: as of `draw`, by name.
        """
        if self.seconds is None and self.stride is None:
            return
        fps = index.sequences["fps"][films] if "fps" in index.sequences.dtype.names else np.zeros(len(films))
        if len(unknown := films[~(fps > 0)]):
            raise ShardError(
                f"{index.address}: frames/s of {index.films[unknown[0]]} are unknown ({len(unknown)} of {len(films)}), "
                "and the law of clips counts in them; pack again with --fps, or take clips.segments"
            )

    def _numbers(self, centers: Centers, place: np.ndarray) -> np.ndarray:
        length = centers.frames_per_shot[:, None]
        if self.segments:
            return of_segments(length, self.frames, place)
        if self.seconds is None and self.stride is None:
            return of_span(np.zeros_like(place, np.int64), length, self.frames)
        rate = np.broadcast_to(centers.fps, centers.film.shape)[:, None]
        if not (rate > 0).all():
            unknown = centers.film[np.flatnonzero(~(rate[:, 0] > 0))[0]]
            raise ShardError(f"video number {unknown}: its frames/s are unknown, and the law of clips counts in them")
        if self.seconds is not None:
            return of_seconds(length, rate, self.frames, self.seconds, place)
        return of_stride(length, rate, self.frames, self.stride, place)


def of_span(first: np.ndarray, length: np.ndarray, frames: int) -> np.ndarray:
    """Numbers `[..., T]` of T = `frames` frames at equal distances, rounded down, of `length` from `first` on."""
    number = np.arange(frames)
    return first[..., None] + number * (length[..., None] - 1) // max(1, frames - 1)


def of_seconds(length: np.ndarray, fps: np.ndarray, frames: int, seconds: float, place: np.ndarray) -> np.ndarray:
    """Numbers `[..., T]` of T = `frames` frames of those that lie within a span of `seconds`.

    Args:
        length: frames of the shot, `[...]`, as all that follow.
        fps: frames/s.
        place: of the span, 0 at the beginning of the shot, 1 at its end.
    """
    start = place * np.maximum(length / fps - seconds, 0) * fps
    first = np.ceil(start - _NOISE).astype(np.int64)
    end = np.minimum(np.ceil(start + seconds * fps - _NOISE), length).astype(np.int64)
    first = np.minimum(first, length - 1)  # a span shorter than a frame
    return of_span(first, np.maximum(end - first, 1), frames)


def of_stride(length: np.ndarray, fps: np.ndarray, frames: int, stride: float, place: np.ndarray) -> np.ndarray:
    """Numbers `[..., T]` of T = `frames` frames of what T x `stride` frames at 30 frames/s last; arguments as above."""
    span = frames * stride * fps / _RATE
    start = place * np.maximum(length - span, 0)
    step = np.maximum(span - 1, 0) / max(1, frames - 1)
    numbers = start[..., None] + np.arange(frames) * np.broadcast_to(step, start.shape)[..., None]
    return np.minimum(np.floor(numbers + _NOISE).astype(np.int64), length[..., None] - 1)


def of_segments(length: np.ndarray, frames: int, place: np.ndarray) -> np.ndarray:
    """Numbers `[..., T]` of one frame of each of T = `frames` segments of (length - 1) / T, both ends included.

    Args:
        length: frames of the shot, `[...]`.
        place: `[..., T]` or `[..., 1]`: which of a segment's frames, 0 the first, below 1.
    """
    bounds = np.rint((length[..., None] - 1) / frames * np.arange(frames + 1)).astype(np.int64)
    first, last = bounds[..., :-1], bounds[..., 1:]
    return first + np.floor(place * (last - first + 1)).astype(np.int64)


@dataclass(frozen=True)
class WholeShots:
    """A sampler that shows all of a film's shot, as a clip, where `sampler` shows one of its key-frames.

    Args:
        sampler: what it draws as clips stays as it is.
        frames: T of a clip.
    """

    sampler: Sampler
    frames: int

    def __call__(self, centers: Centers, rng: np.random.Generator) -> Drawn:
        drawn = self.sampler(centers, rng)
        views, *small = (_whole(rows, centers, self.frames) for rows in (drawn.views, *drawn.small.values()))
        return Drawn(views, drawn.extras, dict(zip(drawn.small, small, strict=True)))


def _whole(rows: np.ndarray, centers: Centers, frames: int) -> np.ndarray:
    """Rows `[B, V, T]` of T = `frames` key-frames at equal distances of the shots that `rows` `[B, V]` show.

    All pictures of a clip share the view of the one that was there.
    """
    if rows.ndim == 3:
        return rows
    per_shot = np.broadcast_to(centers.frames_per_shot[:, None], rows.shape)
    position = (rows["frame"] - centers.first_frame[:, None]) // per_shot
    first = centers.frames(position, np.zeros_like(position))
    clips = np.repeat(rows[..., None], frames, axis=2)
    clips["frame"] = of_span(first, per_shot, frames)
    return clips


def show_differences(rows: np.ndarray, chosen: np.ndarray, centers: Centers) -> np.ndarray:
    """Rows `[B, T]` of clips, of which those `chosen` `[B]` show what changes to the next frame (SCE, section 3.4).

    The last frame of a clip has none in it, and shows the change that led to it. A shot of one frame stays as it is.
    """
    rows, frame = rows.copy(), rows["frame"]
    first = centers.frames(centers.position[:, None], np.zeros((len(rows), 1), np.int64))
    rows["difference"] = (chosen & (centers.frames_per_shot > 1))[:, None]
    led_to = rows["difference"] & (frame == frame[:, -1:]) & (frame > first)
    rows["frame"] = frame - led_to
    return rows
