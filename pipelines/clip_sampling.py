"""Clip sampling: which frames of a shot make a clip. A video is a film of one shot, so this covers its frames too.

seconds     T frames evenly spaced over a span of seconds           2.56 s, at random (SCE, arXiv:2212.11187)
stride      the same over T x stride frames at 30 frames/s          16 x 5, at random (VoV3D on Kinetics)
segments    one frame of each of T equal parts of the shot          (VoV3D on Something-Something)
none        T frames evenly spaced over the whole shot              the key-frames of a film's shot

a shot of 20 frames, T = 4     seconds, stride     ....|..|..|..|.......
                               segments            ..|...|.....|.....|..
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from shard_tools.errors import ConfigError, ShardError
from shard_tools.shards.index import ShardIndex

from .samples import Centers, Drawn, Sampler

_RATE = 30  # frames/s in which a stride is counted
_NOISE = 1e-6  # frames: tolerance for rounding errors


@dataclass(frozen=True)
class Clips:
    """How the frames of a clip are sampled.

    If a shot is shorter than the span, its frames are spread over the clip (`seconds`) or its last is repeated
    (`stride`).

    Args:
        frames: frames T per clip.
        seconds, stride, segments: at most one of them; see above.

    Raises:
        ConfigError: a value outside its range, or two samplings.
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
            given = f"seconds {self.seconds}, stride {self.stride}, segments {self.segments}"
            raise ConfigError(f"clips: {given}: give one of them, and null or false for those that the config sets")

    def draw(self, centers: Centers, rng: np.random.Generator, count: int) -> np.ndarray:
        """Frame numbers `[B, count, T]` in the centre shots, of `count` clips per shot at random positions.

        Raises:
            ShardError: the sampling needs frames/s, and those of a video are unknown.
        """
        shape = (len(centers.position), count)
        return self._numbers(centers, rng.random((*shape, self.frames) if self.segments else shape))

    def spaced(self, centers: Centers, count: int) -> np.ndarray:
        """Frame numbers `[B, count, T]` of `count` evenly spaced clips per centre shot, for testing.

        Clip i of K starts at i / (K - 1) of the possible positions for `seconds` (SCE), and at i / K for `stride`
        (VoV3D), so that the last clip does not reach the end; for `segments` it takes the frame at (i + 0.5) / K.

        Raises:
            ConfigError: several clips of the whole shot.
            ShardError: see `draw`.
        """
        if count < 1 or (count > 1 and self == Clips(self.frames)):
            raise ConfigError(f"{count} clips: the whole shot is one clip; give a sampling such as clips.seconds, or 1")
        number = np.arange(count)
        place = (number + 0.5) / count if self.segments else number / (count if self.stride else max(1, count - 1))
        place = np.broadcast_to(place, (len(centers.position), count))
        return self._numbers(centers, place[..., None] if self.segments else place)

    def check(self, index: ShardIndex, films: np.ndarray) -> None:
        """Check `films` `[N]` before the first clip is drawn.

        Raises:
            ShardError: see `draw`; names the first of them.
        """
        if self.seconds is None and self.stride is None:
            return
        fps = index.sequences["fps"][films] if "fps" in (index.sequences.dtype.names or ()) else np.zeros(len(films))
        if len(unknown := films[~(fps > 0)]):
            raise ShardError(
                f"{index.address}: frames/s of {index.films[unknown[0]]} are unknown ({len(unknown)} of {len(films)}), "
                "and this clip sampling needs them; pack again with --fps, or use clips.segments"
            )

    def _numbers(self, centers: Centers, place: np.ndarray) -> np.ndarray:
        length = centers.frames_per_shot[:, None]
        if self.segments:
            return of_segments(length, self.frames, place)
        if self.seconds is not None:
            return of_seconds(length, _rate(centers), self.frames, self.seconds, place)
        if self.stride is not None:
            return of_stride(length, _rate(centers), self.frames, self.stride, place)
        return of_span(np.zeros_like(place, np.int64), length, self.frames)


def _rate(centers: Centers) -> np.ndarray:
    """Frames/s `[B, 1]`. Raises: ShardError if one is unknown."""
    rate = np.broadcast_to(centers.fps, centers.film.shape)[:, None]
    if not (rate > 0).all():
        unknown = centers.film[np.flatnonzero(~(rate[:, 0] > 0))[0]]
        raise ShardError(f"video number {unknown}: its frames/s are unknown, and this clip sampling needs them")
    return rate


def of_span(first: np.ndarray, length: np.ndarray, frames: int) -> np.ndarray:
    """Numbers `[..., T]` of T = `frames` evenly spaced frames, rounded down, of the `length` frames from `first` on."""
    number = np.arange(frames)
    return first[..., None] + number * (length[..., None] - 1) // max(1, frames - 1)


def of_seconds(length: np.ndarray, fps: np.ndarray, frames: int, seconds: float, place: np.ndarray) -> np.ndarray:
    """Numbers `[..., T]` of T = `frames` frames within a span of `seconds`.

    Args:
        length: `[...]` frames of the shot.
        fps: `[...]` frames/s.
        place: `[...]` position of the span, 0 at the start of the shot, 1 at its end.
    """
    start = place * np.maximum(length / fps - seconds, 0) * fps
    first = np.ceil(start - _NOISE).astype(np.int64)
    end = np.minimum(np.ceil(start + seconds * fps - _NOISE), length).astype(np.int64)
    first = np.minimum(first, length - 1)  # a span shorter than a frame
    return of_span(first, np.maximum(end - first, 1), frames)


def of_stride(length: np.ndarray, fps: np.ndarray, frames: int, stride: float, place: np.ndarray) -> np.ndarray:
    """Numbers `[..., T]` of T = `frames` frames within T x `stride` / 30 seconds; arguments as of `of_seconds`."""
    span = frames * stride * fps / _RATE
    start = place * np.maximum(length - span, 0)
    step = np.maximum(span - 1, 0) / max(1, frames - 1)
    numbers = start[..., None] + np.arange(frames) * np.broadcast_to(step, start.shape)[..., None]
    return np.minimum(np.floor(numbers + _NOISE).astype(np.int64), length[..., None] - 1)


def of_segments(length: np.ndarray, frames: int, place: np.ndarray) -> np.ndarray:
    """Numbers `[..., T]` of one frame of each of T = `frames` segments of (length - 1) / T, both ends included.

    Args:
        length: `[...]` frames of the shot.
        place: `[..., T]` or `[..., 1]` position in the segment, in [0, 1).
    """
    bounds = np.rint((length[..., None] - 1) / frames * np.arange(frames + 1)).astype(np.int64)
    first, last = bounds[..., :-1], bounds[..., 1:]
    return first + np.floor(place * (last - first + 1)).astype(np.int64)


@dataclass(frozen=True)
class WholeShots:
    """A sampler that shows a whole shot as a clip, where `sampler` shows one of its key-frames.

    Args:
        sampler: its clips are left as they are.
        frames: frames T per clip.
    """

    sampler: Sampler
    frames: int

    def __call__(self, centers: Centers, rng: np.random.Generator) -> Drawn:
        drawn = self.sampler(centers, rng)
        views, *small = (_whole(rows, centers, self.frames) for rows in (drawn.views, *drawn.small.values()))
        return replace(drawn, views=views, small=dict(zip(drawn.small, small, strict=True)))


def _whole(rows: np.ndarray, centers: Centers, frames: int) -> np.ndarray:
    """Rows `[B, V, T]` of T = `frames` evenly spaced key-frames of the shots in `rows` `[B, V]`.

    All pictures of a clip have the view of the original row.
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
    """Make clips `chosen` `[B]` of `rows` `[B, T]` show the change to the next frame (SCE, section 3.4).

    The last frame of a clip has no next one, and shows the change from the frame before. A shot of one frame stays as
    it is.
    """
    rows, frame = rows.copy(), rows["frame"]
    first = centers.frames(centers.position[:, None], np.zeros((len(rows), 1), np.int64))
    rows["difference"] = (chosen & (centers.frames_per_shot > 1))[:, None]
    led_to = rows["difference"] & (frame == frame[:, -1:]) & (frame > first)
    rows["frame"] = frame - led_to
    return rows
