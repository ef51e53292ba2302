"""MovieNet's key-frame folders: which films are there, and which files are the key-frames of a shot."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from shard_tools.annotations.movienet import FRAMES_DIR, keyframe_name
from shard_tools.errors import SourceError

from .names import is_litter, keyframe_of


def frames_dir(source: Path) -> Path:
    """`source/240P_frames` if it exists, else `source`."""
    return source / FRAMES_DIR if (source / FRAMES_DIR).is_dir() else source


def find_frames_dir(source: Path) -> Path:
    """The folder that holds one folder per film: `source/240P_frames` or `source` itself.

    Raises:
        SourceError: `source` is not a folder, or no film folder in it holds a key-frame.
    """
    layout = f"{FRAMES_DIR}/<film>/shot_0000_img_0.jpg"
    if not source.is_dir():
        raise SourceError(f"{source}: no such folder; give a folder of {layout}, of videos, or of folders of classes")
    frames = frames_dir(source)
    if not any(keyframe_of(path.name) for film in list_films(frames) for path in film.iterdir()):
        if not any(source.iterdir()):
            raise SourceError(f"{source}: an empty folder; give a folder of {layout}, <film>.tar or video files")
        raise SourceError(
            f"{frames}: not a key-frame folder (no folder of a film with key-frames); expected {layout}, "
            "<film>.tar or video files"
        )
    return frames


def list_films(frames: Path) -> list[Path]:
    """Film folders in order of name, of a folder that may not exist; loose files and litter are ignored.

    Raises:
        SourceError: a broken symlink, whose film would otherwise be left out silently.
    """
    if not frames.is_dir():
        return []
    for child in frames.iterdir():
        if child.is_symlink() and not child.exists():
            raise SourceError(f"{child}: broken symlink; fix or remove it")
    return sorted(child for child in frames.iterdir() if child.is_dir() and not is_litter(child.name))


def list_keyframes(film_dir: Path) -> tuple[np.ndarray, list[list[str]]]:
    """Key-frames of one film's folder: shot numbers `[S]` and, per shot, the paths of its files in order.

    Raises:
        SourceError: see `arrange_keyframes`.
    """
    shots, names = arrange_keyframes(str(film_dir), os.listdir(film_dir))
    folder = str(film_dir)
    return shots, [[f"{folder}/{name}" for name in images] for images in names]


def arrange_keyframes(film: str, names: Iterable[str]) -> tuple[np.ndarray, list[list[str]]]:
    """Shot numbers `[S]` and, per shot, the file names of its key-frames in order of image number.

    Every shot must have the same images 0..K-1; gaps in shot numbers are allowed (MovieNet has some), and
    litter is ignored.

    Args:
        film: where the files are, for messages.
        names: of all files there, in any order.

    Raises:
        SourceError: no shot, a file outside the naming scheme, two files for one key-frame, or a missing key-frame.
    """
    shots: dict[int, dict[int, str]] = defaultdict(dict)
    for name in names:
        if is_litter(name):
            continue
        if (found := keyframe_of(name)) is None:
            raise SourceError(
                f"{film}/{name}: not a key-frame name (shot_%04d_img_%d.jpg); move it out of the film's folder"
            )
        images = shots[found[0]]
        if found[1] in images:
            raise SourceError(f"{film}/{name}: same key-frame as {images[found[1]]}; remove one of them")
        images[found[1]] = name
    if not shots:
        raise SourceError(f"{film}: a film without shots; remove it or extract its key-frames again")
    per_shot = max(max(images) for images in shots.values()) + 1
    for shot, images in shots.items():
        for image in range(per_shot):
            if image not in images:
                raise SourceError(
                    f"{film}/{keyframe_name(shot, image)}: key-frame missing "
                    f"(other shots of this film have {per_shot}); extract it again or remove shot {shot}"
                )
    numbers = sorted(shots)
    return np.array(numbers, np.int64), [[shots[n][i] for i in range(per_shot)] for n in numbers]
