"""Tiny films in the MovieNet layout, made on the fly: random pictures, real JPEG bytes, a few milliseconds a film."""

from __future__ import annotations

import hashlib
import io
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shard_tools.annotations import movienet
from shard_tools.annotations.labels import ShotLabels, scenes_from_boundaries


@lru_cache(maxsize=4096)
def picture(seed: int = 0, size: tuple[int, int] = (48, 32), **options) -> bytes:
    """A JPEG of random blocks, `size` = (width, height); `options` go to PIL (quality, progressive, ...)."""
    width, height = size
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize(size, Image.Resampling.BILINEAR).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def write_film(
    root: Path, film: str, shots: int | Iterable[int], images: int = 3, size: tuple[int, int] = (48, 32), seed: int = 0
) -> Path:
    """Write the key-frames of one film under `root/240P_frames`; returns its folder.

    Args:
        root: folder of the whole set.
        film: name of the film.
        shots: how many shots, or their numbers.
        images: key-frames a shot.
        size: (width, height) in pixels.
        seed: other seeds give other pictures.
    """
    folder = root / movienet.FRAMES_DIR / film
    folder.mkdir(parents=True)
    numbers = range(shots) if isinstance(shots, int) else shots
    for s, shot in enumerate(numbers):
        for image in range(images):
            data = picture(seed * 1_000_003 + s * images + image, size)
            (folder / movienet.keyframe_name(shot, image)).write_bytes(data)
    return folder


def make_labels(shots: int | Iterable[int], split: str = "train", scene: int = 3, frames: int = 48) -> ShotLabels:
    """Labels of shots that each last `frames` frames, with a new scene every `scene` shots."""
    numbers = np.array(range(shots) if isinstance(shots, int) else list(shots), np.int64)
    index = np.arange(len(numbers))
    boundary = ((index + 1) % scene == 0).astype(np.int8)
    boundary[-1:] = 0
    start = (numbers * frames).astype(np.int32)
    scenes = scenes_from_boundaries(boundary)
    return ShotLabels(numbers, boundary, scenes, start, start + np.int32(frames - 1), split)


def write_set(
    root: Path,
    films: dict[str, int | Iterable[int]],
    splits: dict[str, str] | None = None,
    images: int = 3,
    size: tuple[int, int] = (48, 32),
) -> Path:
    """Write films and their annotations; returns `root`. A film not in `splits` belongs to "train"."""
    for seed, (film, shots) in enumerate(films.items()):
        write_film(root, film, shots, images, size, seed)
    labels = {film: make_labels(shots, (splits or {}).get(film, "train")) for film, shots in films.items()}
    movienet.write_annotations(root, labels)
    return root


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A new folder that holds only so much ("48k"); skips where none may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root: mounts a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def keyframes(root: Path) -> dict[tuple[str, int, int], bytes]:
    """(film, shot, image) -> bytes of every key-frame under `root/240P_frames`."""
    found = {}
    for path in sorted((root / movienet.FRAMES_DIR).glob("*/shot_*.jpg")):
        _, shot, _, image = path.stem.split("_")
        found[path.parent.name, int(shot), int(image)] = path.read_bytes()
    return found


def digests(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file in `folder`, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
