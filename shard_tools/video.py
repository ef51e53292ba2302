"""Video files to a MovieNet-layout key-frame folder, so that any film, not only MovieNet's, can be packed and searched.

    films/*.mp4  ->  shots (PySceneDetect)  ->  240P_frames/<film>/shot_%04d_img_%d.jpg  +  anno/  +  scene318/

Every file is decoded twice, from start to end, by the same decoder: once to find the shots, once to take key-frames at
the 1/6, 3/6 and 5/6 points that only then are known. So no more than two frames are held, and a cut lies on the very
frame the detector saw. Times are those of the frames themselves (a variable frame rate is fine), from 0 at the first.

Several files played one after another are a film with known scenes: each join is a scene boundary, no cut inside is.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .errors import ConfigError, MissingDependency, SourceError
from .movienet import FPS, FRAMES_DIR, SPLITS, ShotLabels, keyframe_name, scenes_from_boundaries, write_annotations

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from PIL.Image import Image

VIDEO_SUFFIXES = (".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv")
DETECTORS = {"adaptive": "AdaptiveDetector", "content": "ContentDetector"}
HEIGHT = 240  # of a key-frame, in pixels
QUALITY = 90  # of its JPEG
DETECTION_WIDTH = 256  # pixels; the width PySceneDetect shrinks pictures to
SIXTHS = (1, 3, 5)  # where in a shot its key-frames lie, as in `movienet.write_annotations`
EPSILON = 1e-3  # seconds; containers round times to a millisecond
_CUT = "{path}: breaks off before its end; fetch it again or re-encode what there is with ffmpeg"

Progress = Callable[[float], object]  # called with the seconds of film gone through since the last call, as tqdm.update


class Shown(NamedTuple):
    """A decoded frame, the seconds [start, end) it is shown for, and the width of its pixels over their height."""

    start: float
    end: float
    frame: VideoFrame
    pixel_aspect: float


def list_videos(folder: Path) -> list[Path]:
    """The video files directly in `folder`, sorted by name.

    Raises:
        SourceError: no such folder, or no file in it ends in one of `VIDEO_SUFFIXES`.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; give the folder that holds the video files")
    videos = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    if not videos:
        raise SourceError(f"{folder}: no video in it; expected files ending in {' '.join(VIDEO_SUFFIXES)}")
    return videos


def film_name(name: str) -> str:
    """`name` as a folder name without dots, blanks or separators: "Big Buck (2008)" -> "Big_Buck_2008"."""
    return re.sub(r"[^\w-]+", "_", name).strip("_") or "film"


def duration(path: Path) -> float:
    """Seconds of film in the file as its header tells, 0 if it does not: for a progress bar, `2 * duration` a file.

    Raises:
        SourceError: not a readable file, or without a video stream.
    """
    with _open(path) as container:
        return (container.duration or 0) / 1e6


def detect_shots(path: Path, detector: str = "adaptive", progress: Progress | None = None) -> list[tuple[float, float]]:
    """Seconds [start, end) of every shot of a file, contiguous from 0; a clip without a cut is one shot.

    Args:
        detector: "adaptive" (a cut stands out from the frames around it) or "content" (exceeds a fixed threshold).

    Raises:
        SourceError: the file cannot be read to its end. ConfigError: no such detector.
    """
    if detector not in DETECTORS:
        raise ConfigError(f"detector {detector!r}: unknown; use one of {', '.join(DETECTORS)}")
    scenedetect, cv2 = _load("scenedetect"), _load("cv2")
    finder = getattr(scenedetect, DETECTORS[detector])()
    starts: list[float] = []
    cuts, size = [], None
    for shown in _decode(path, progress):
        pixels = shown.frame.to_ndarray(format="bgr24")
        # To BGR first, then small, as PySceneDetect does. Shrunk by PyAV, the black bars of a film flicker between
        # (1, 0, 1) and (0, 0, 0): nothing to the eye, a cut to a detector that looks at hue.
        if size is None:  # kept, should the picture change its size midway
            scale = min(1.0, DETECTION_WIDTH / pixels.shape[1])
            size = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
        # The timecode is the frame's index at a nominal rate: its time stands in `starts`.
        cuts += finder.process_frame(scenedetect.FrameTimecode(len(starts), FPS), pixels)
        starts.append(shown.start)
    firsts = sorted({0} | {cut.frame_num for cut in cuts})
    return list(pairwise([*(starts[first] for first in firsts), shown.end]))


def extract_film(
    files: list[Path],
    root: Path,
    film: str,
    split: str = "test",
    detector: str = "adaptive",
    progress: Progress | None = None,
) -> ShotLabels:
    """Write the key-frames of `files`, played one after another as one film, to `root/240P_frames/<film>`.

    The folder appears only when it is complete. Shots are numbered on over the files. With several files the last shot
    of each but the last is a scene boundary; with one nothing is known, so boundary and scene are -1. First and last
    frames lie on one timeline of 24 a second, contiguous; frame k of a file is the picture on show at k/24 seconds.
    All pictures of a film have one size: wider files lose their sides, for bars would give the joins away.

    Args:
        film: a plain folder name, see `film_name`.

    Raises:
        SourceError: no file, a file that cannot be read to its end, or the film is there already.
    """
    target = root / FRAMES_DIR / film
    if not files:
        raise SourceError(f"{target}: a film of no files; give at least one video")
    if target.exists():
        raise SourceError(f"{target}: is there already; remove it or choose another folder")
    # What cannot be opened is found before the long work.
    width = min(next(_pictures_at(path, [0.0], None)).width for path in files)
    target.parent.mkdir(parents=True, exist_ok=True)
    shots: list[tuple[int, int]] = []
    boundary: list[int] = []
    with tempfile.TemporaryDirectory(prefix=".video-", dir=root) as scratch:
        draft = Path(scratch) / film
        draft.mkdir()
        for path in files:
            ticks = _ticks(detect_shots(path, detector, progress))
            names = (draft / keyframe_name(len(shots) + s, i) for s in range(len(ticks)) for i in range(len(SIXTHS)))
            keys = [(start + (end - start) * sixth // 6) / FPS for start, end in ticks for sixth in SIXTHS]
            for name, image in zip(names, _pictures_at(path, keys, progress), strict=True):
                left = (image.width - width) // 2
                image.crop((left, 0, left + width, HEIGHT)).save(name, "JPEG", quality=QUALITY)
            offset = shots[-1][1] + 1 if shots else 0
            shots += [(offset + start, offset + end) for start, end in ticks]
            boundary += [0] * (len(ticks) - 1) + [1]
        draft.rename(target)
    boundary[-1] = 0
    labels = np.array(boundary, np.int8) if len(files) > 1 else np.full(len(shots), -1, np.int8)
    start, end = np.array(shots, np.int32).T
    return ShotLabels(np.arange(len(shots)), labels, scenes_from_boundaries(labels), start, end, split)


def extract_folder(
    folder: Path,
    root: Path,
    join: str | None = None,
    split: str = "test",
    detector: str = "adaptive",
    progress: Progress | None = None,
) -> dict[str, ShotLabels]:
    """Every video in `folder` as a film of its own, named after its file, or all as one film `join`; with annotations.

    `root` must be new or empty, and stays empty until all is there: key-frames are moved in last.

    Raises:
        SourceError: no video, a broken one, two files of one film name, or `root` holds something.
        ConfigError: an unknown split or detector.
    """
    if split not in ("", *SPLITS):
        raise ConfigError(f"split {split!r}: unknown; use one of {', '.join(SPLITS)}")
    films: dict[str, list[Path]] = {}
    for path in list_videos(folder):
        films.setdefault(film_name(path.stem if join is None else join), []).append(path)
        duration(path)
    for film, files in films.items():
        if join is None and len(files) > 1:
            raise SourceError(f"{files[1]}: would be film {film}, as {files[0].name} is; rename one of them")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise SourceError(f"{root}: not an empty folder; empty it or choose another")
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".video-", dir=root) as scratch:
        draft = Path(scratch)
        labels = {film: extract_film(files, draft, film, split, detector, progress) for film, files in films.items()}
        write_annotations(draft, labels)
        for child in sorted(draft.iterdir(), key=lambda path: path.name == FRAMES_DIR):
            child.rename(root / child.name)
    return labels


def _ticks(shots: list[tuple[float, float]]) -> list[tuple[int, int]]:
    """First and last frame, at 24 a second, of shots given in seconds: a frame is of the shot on show at its time.

    A shot too short to hold a frame (the end of a 120-fps clip) goes with its neighbour.
    """
    end = max(1, ceil((shots[-1][1] - EPSILON) * FPS))
    firsts = sorted({min(end - 1, ceil((start - EPSILON) * FPS)) for start, _ in shots})
    return [(first, after - 1) for first, after in pairwise([*firsts, end])]


def _pictures_at(path: Path, times: list[float], progress: Progress | None) -> Iterator[Image]:
    """The key-frame on show at each of `times` (ascending, in seconds)."""
    due = 0
    for shown in _decode(path, progress):
        while due < len(times) and times[due] < shown.end - EPSILON:
            yield _keyframe(shown)
            due += 1
    for _ in times[due:]:
        yield _keyframe(shown)


def _keyframe(shown: Shown) -> Image:
    """The frame as it should be seen: 240 pixels high, aspect kept, width even, turned upright."""
    frame = shown.frame
    aspect = frame.width * shown.pixel_aspect / frame.height
    lies = frame.rotation % 180 == 90  # on its side, as telephones film
    width = max(2, 2 * round(HEIGHT * (1 / aspect if lies else aspect) / 2))
    width, height = (HEIGHT, width) if lies else (width, HEIGHT)
    image = frame.to_image(width=width, height=height, interpolation="BICUBIC")
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _decode(path: Path, progress: Progress | None = None) -> Iterator[Shown]:
    """Every frame of the film in order of time, each shown until the next begins.

    A frame without a time, or with one before the last (joined recordings have these), follows the last at frame rate.

    Raises:
        SourceError: the file cannot be read, breaks off, or holds no picture.
    """
    held: Shown | None = None
    with _open(path) as container:
        stream = container.streams.best("video")
        stream.thread_type = "AUTO"
        pixel_aspect = float(stream.sample_aspect_ratio or 1)
        step = 1 / float(stream.average_rate or FPS)
        first, reached = None, 0.0
        for packet in container.demux():
            if packet.is_corrupt:
                raise SourceError(_CUT.format(path=path))
            if packet.pts is not None and packet.stream.type in ("video", "audio"):
                reached = max(reached, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index:
                continue
            for frame in packet.decode():
                time = None if frame.pts is None else float(frame.pts * frame.time_base)
                first = first if first is not None else time or 0.0
                start = 0.0 if held is None else held.end if time is None else time - first
                if held is not None:
                    start = start if start > held.start else held.end
                    if progress:
                        progress(start - held.start)
                    yield held._replace(end=start)
                length = float((frame.duration or 0) * frame.time_base) or step
                held = Shown(start, start + length, frame, pixel_aspect)
        # A container cut on a packet's edge ends without an error: only its header tells that there was more.
        declared = (container.duration or 0) / 1e6
        if reached < declared - max(1.0, 0.01 * declared):
            raise SourceError(_CUT.format(path=path))
    if held is None:
        raise SourceError(f"{path}: a video stream without a picture; remove the file or fetch it again")
    if progress:
        progress(held.end - held.start)
    yield held


@contextmanager
def _open(path: Path) -> Iterator[InputContainer]:
    """The file opened by PyAV, with a video stream; any complaint of the libraries becomes one line."""
    av = _load("av")
    if not path.is_file():
        raise SourceError(f"{path}: no such file; give a video file")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: an empty file; fetch it again")
    try:
        with av.open(str(path), metadata_errors="ignore") as container:  # a title in Latin-1 is no reason to stop
            stream = container.streams.best("video")
            if stream is None or stream.codec_context is None:
                raise SourceError(f"{path}: no video stream that can be decoded; remove the file or re-encode it")
            yield container
    except av.FFmpegError as error:
        raise SourceError(
            f"{path}: not a video, or a broken one ({error.strerror}); fetch it again or re-encode it with ffmpeg"
        ) from None


def _load(module: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependency(f"videos need {error.name or module}; pip install bassl-fast[video]") from None
