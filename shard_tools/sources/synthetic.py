"""Synthetic films with known scenes, in the MovieNet layout, for the demo, tests and benchmarks.

A film is a sequence of scenes. A scene plays in a *set*: a grey panorama with its own texture, a cast of objects and a
light. Two to four cameras film the set and alternate, like shot and reverse shot. Each camera has its own colours, so
two cameras of one scene differ in colour as much as two scenes do: mean colour finds no boundaries, texture and cast
do.

Random numbers come from Philox with the seed as key and (film, part, index) as counter, so a film does not depend on
the other films or on which thread draws it.
"""

from __future__ import annotations

import colorsys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from shard_tools.annotations.labels import FPS, ShotLabels
from shard_tools.annotations.movienet import FRAMES_DIR, KEYFRAMES_PER_SHOT, keyframe_name, write_annotations
from shard_tools.errors import SourceError
from shard_tools.progress import Progress

WIDTH, HEIGHT = 426, 240
QUALITY = 85
PANORAMA = (1152, 432)  # width, height of a set
SPRITE = (150, 210)  # width, height of an object, before its camera scales it
SCENE_SHOTS = (4, 7, 17)  # shortest, most frequent, one past the longest scene, in shots
SHOT_SECONDS = (1.0, 8.0)

# How hard the boundaries are to find. Chances are 0..1, strengths 0 = off.
PALETTE_COLOURS = 3  # at least 2; the fewer, the more often two scenes show the same ones
SHARED_PALETTE = 0.5  # chance that a scene has the palette of the scene before it
RETURNING_SET = 0.15  # chance that a scene plays in a set seen before
SAME_CAMERA = 0.15  # chance that a shot keeps the camera of the shot before it
CAMERA_COLOUR = 0.5  # 0: all cameras of a set see it in the same colours, 1: in colours drawn independently
CAMERA_ZOOM = (0.7, 1.25)  # set pixels per frame pixel; the wider the range, the less the scale of a texture reveals
TAKE_SHIFT = 25.0  # standard deviation over shots of where a camera points, in set pixels
TAKE_ZOOM = 0.08  # standard deviation over shots of the log of its zoom
EXPOSURE_JITTER = 0.25  # standard deviation over shots, in stops
EXPOSURE_DRIFT = 0.25  # the same over scenes, from first to last shot of a scene, in stops
WHITE_JITTER = 0.08  # standard deviation over shots of the log gain of each colour channel
MOTION = 10.0  # pixels between two key-frames of a shot, as a standard deviation

Rng: TypeAlias = np.random.Generator
Array: TypeAlias = np.ndarray

SCRIPT, PALETTE, SET, CAMERA, SHOT = range(5)  # parts of a film, each with its own random numbers
CAMERAS = 4  # at most, in a set


def _rng(seed: int, film: int, part: int, index: int = 0) -> Rng:
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, index, part, film]))


# --- Textures: (rng, x, y) -> grey in 0..1; x is `[1, w]` and y `[h, 1]`, in pixels. ---


def _field(rng: Rng, x: Array, y: Array, period: float, stretch: float = 1.0) -> Array:
    """Smooth noise `[h, w]` in about 0..1 with lumps `period` pixels high and `period * stretch` wide."""
    h, w = y.size, x.size
    lumps = rng.random((int(h / period) + 2, int(w / (period * stretch)) + 2), dtype=np.float32)
    return np.asarray(Image.fromarray(lumps).resize((w, h), Image.Resampling.BICUBIC))


def _step(value: Array, sharpness: float) -> Array:
    return 1 / (1 + np.exp(-sharpness * value))


def _turn(rng: Rng, x: Array, y: Array) -> tuple[Array, Array]:
    """Positions rotated by a random angle and scaled so that a random period becomes 2 pi."""
    angle, scale = rng.uniform(0, np.pi), 2 * np.pi / rng.uniform(14, 60)
    c, s = np.float32(scale * np.cos(angle)), np.float32(scale * np.sin(angle))
    return c * x + s * y, c * y - s * x


def _noise(rng: Rng, x: Array, y: Array) -> Array:
    period, stretch = rng.uniform(6, 24), rng.uniform(0.4, 4)
    return 0.6 * _field(rng, x, y, period, stretch) + 0.4 * _field(rng, x, y, 4 * period, stretch)


def _stripes(rng: Rng, x: Array, y: Array) -> Array:
    along, _ = _turn(rng, x, y)
    bend = rng.uniform(0, 4) * _field(rng, x, y, 90)
    return _step(np.sin(along + bend), rng.uniform(2, 8))


def _checks(rng: Rng, x: Array, y: Array) -> Array:
    u, v = _turn(rng, x, y)
    return _step(np.sin(u) * np.sin(v * rng.uniform(0.5, 2)), rng.uniform(4, 15))


def _blobs(rng: Rng, x: Array, y: Array) -> Array:
    return _step(_field(rng, x, y, rng.uniform(12, 40), rng.uniform(0.6, 2)) - rng.uniform(0.4, 0.6), 18)


def _bricks(rng: Rng, x: Array, y: Array) -> Array:
    high, wide, gap = rng.uniform(12, 40), rng.uniform(20, 80), rng.uniform(2, 5)
    row = np.floor(y / high)
    across = x + (row % 2) * wide * rng.choice([0, 0.5])
    shade = rng.random((97,), dtype=np.float32)[(row * 31 + np.floor(across / wide) * 17).astype(int) % 97]
    return np.where((y % high < gap) | (across % wide < gap), np.float32(0.05), 0.45 + 0.55 * shade)


def _towers(rng: Rng, x: Array, y: Array) -> Array:
    wide, pane = rng.uniform(30, 90), rng.uniform(7, 16)
    column = np.floor(x / wide).astype(int) % 61
    top = rng.uniform(0, 0.6, 61).astype(np.float32)[column] * y.size
    shade = rng.uniform(0.1, 0.5, 61).astype(np.float32)[column]
    lit = (x % pane > 0.5 * pane) & (y % (1.4 * pane) > 0.7 * pane)
    return np.where(y < top, 0.95 - 0.2 * y / y.size, shade + 0.4 * lit)


TEXTURES = (_noise, _stripes, _checks, _blobs, _bricks, _towers)


def _texture(rng: Rng, width: int, height: int) -> Image.Image:
    """A grey picture with a texture of a random family."""
    y, x = (axis.astype(np.float32) for axis in np.ogrid[:height, :width])
    grey = TEXTURES[rng.integers(len(TEXTURES))](rng, x, y)
    return Image.fromarray((255 * np.clip(grey, 0, 1)).astype(np.uint8))


# --- Colours ---


def _palette(rng: Rng, colours: int) -> Array:
    """`[colours, 3]` RGB in 0..1, of any hue."""
    hsv = rng.uniform((0, 0.15, 0.5), (1, 0.7, 1), (colours, 3))
    return np.array([colorsys.hsv_to_rgb(*row) for row in hsv])


def _tint(grey: Image.Image, dark: Array, light: Array) -> Image.Image:
    """Map grey to RGB: black to `dark` and white to `light`, both `[3]` in 0..1."""
    ramp = np.linspace(255 * dark, 255 * light, 256).round().astype(int)
    return Image.merge("RGB", [grey.point(channel.tolist()) for channel in ramp.T])


# --- Sets and their cast ---

# An object is a stack of shapes, in fractions of its width and height: the first plain, the others textured.
SHAPES: tuple[tuple[tuple[Any, ...], ...], ...] = (
    (("ellipse", 0.3, 0.0, 0.7, 0.33), ("rounded_rectangle", 0.12, 0.3, 0.88, 1.0)),  # a person
    (("rectangle", 0.0, 0.3, 1.0, 0.4), ("rectangle", 0.06, 0.4, 0.94, 1.0)),  # a chest
    (("rectangle", 0.45, 0.3, 0.55, 1.0), ("polygon", 0.3, 0.0, 0.7, 0.0, 1.0, 0.4, 0.0, 0.4)),  # a lamp
    (("rectangle", 0.42, 0.6, 0.58, 1.0), ("ellipse", 0.0, 0.0, 1.0, 0.7)),  # a tree
    (("polygon", 0.0, 0.45, 0.5, 0.0, 1.0, 0.45), ("rectangle", 0.1, 0.45, 0.9, 1.0)),  # a hut
)


def _sprite(rng: Rng) -> Image.Image:
    """One object as RGBA, with its own shape, texture and colours."""
    plain, dark, light = _palette(rng, 3)
    cloth = _tint(_texture(rng, *SPRITE), 0.4 * dark, light)
    skin = Image.new("RGB", SPRITE, tuple((255 * plain).astype(int).tolist()))
    sprite = Image.new("RGBA", SPRITE)
    for number, (kind, *corners) in enumerate(SHAPES[rng.integers(len(SHAPES))]):
        mask = Image.new("L", SPRITE)
        getattr(ImageDraw.Draw(mask), kind)((np.reshape(corners, (-1, 2)) * SPRITE).flatten().tolist(), fill=255)
        sprite.paste(cloth if number else skin, mask=mask)
    return sprite


@dataclass(frozen=True)
class FilmSet:
    """The set of a scene: what all its shots share."""

    panorama: Image.Image  # grey, PANORAMA
    palette: Array  # `[C, 3]`; colour n is the light one of camera n
    cast: list[Image.Image]
    light: Image.Image  # RGB, WIDTH x HEIGHT: factor of each colour where the light falls off
    gamma: float


def _film_set(rng: Rng, palette: Array) -> FilmSet:
    width, height = PANORAMA
    panorama, horizon = _texture(rng, width, height), int(height * rng.uniform(0.55, 0.8))
    panorama.paste(_texture(rng, width, height - horizon).point(lambda v: v * 0.6), (0, horizon))
    pen = ImageDraw.Draw(panorama)
    for _ in range(rng.integers(3, 8)):  # doors, windows, posts
        left, w, h = rng.uniform(0, width), rng.uniform(12, 120), rng.uniform(60, 200)
        foot = horizon - rng.choice([0, 40])
        pen.rectangle((left, foot - h, left + w, foot), int(rng.integers(256)), int(rng.integers(256)), 4)
    angle, fall, tint = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.6), rng.uniform(0.88, 1, 3)
    y, x = np.ogrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    lit = 1 - fall * (0.5 + 0.35 * (x * np.cos(angle) + y * np.sin(angle)))
    light = Image.fromarray((255 * lit[..., None] * tint).astype(np.uint8))
    cast = [_sprite(rng) for _ in range(CAMERAS)]
    return FilmSet(panorama, rng.permutation(palette), cast, light, rng.uniform(0.75, 1.3))


@dataclass(frozen=True)
class Camera:
    """One view of a set."""

    plate: Image.Image  # the whole panorama, mirrored or not, in this camera's colours
    corner: Array  # `[2]` x, y of the frame's upper left corner in the plate
    size: Array  # `[2]` width, height of the frame in the plate
    cast: list[tuple[Image.Image, Array]]  # sprite and `[2]` position of its upper left corner in the frame
    light: Image.Image


def _camera(rng: Rng, film_set: FilmSet, number: int) -> Camera:
    flip = Image.Transpose.FLIP_LEFT_RIGHT
    turn = (lambda picture: picture.transpose(flip)) if rng.random() < 0.5 else (lambda picture: picture)
    colours = len(film_set.palette)
    dark, light = film_set.palette[np.array((number + rng.integers(1, colours), number)) % colours]
    dark, light = film_set.palette[:2] * (1 - CAMERA_COLOUR) + CAMERA_COLOUR * np.stack((dark, light))
    size = rng.uniform(*CAMERA_ZOOM) * np.array((WIDTH, HEIGHT))
    corner = rng.uniform(0.05, 0.95, 2) * (PANORAMA - size)
    cast = []
    # Each camera faces its own object, often with a neighbour beside or in front of it, as over a shoulder.
    for who in (number + 1, number)[rng.random() > 0.7 :]:
        scale, x = rng.uniform(0.45, 1.0), rng.uniform(0.0, 0.75)
        sprite = turn(film_set.cast[who % CAMERAS]).resize([int(scale * side) for side in SPRITE])
        cast.append((sprite, np.array((x * WIDTH, HEIGHT - sprite.height * rng.uniform(0.75, 1.1)))))
    plate = _tint(turn(film_set.panorama), 0.5 * dark, light)
    return Camera(plate, corner, size, cast, turn(film_set.light))


# --- Films ---


@dataclass(frozen=True)
class Script:
    """What happens in a film. Arrays `[S]` int, a row per shot."""

    scene: Array
    film_set: Array
    palette: Array
    camera: Array
    frames: Array  # length of the shot at 24 frames a second


def _script(rng: Rng, shots: int) -> Script:
    rows: list[tuple[int, int, int, int]] = []
    palettes: list[int] = []  # by set
    scene, film_set = 0, -1
    while len(rows) < shots:
        earlier = [s for s in range(len(palettes)) if s != film_set]
        if earlier and rng.random() < RETURNING_SET:
            film_set = int(rng.choice(earlier))
        else:
            shared = bool(palettes) and rng.random() < SHARED_PALETTE
            palettes.append(palettes[film_set] if shared else len(palettes))
            film_set = len(palettes) - 1
        weight, camera = np.array([1, 1, 0.4, 0.4])[: rng.integers(2, CAMERAS + 1)], 0
        for number in range(int(rng.triangular(*SCENE_SHOTS))):
            if number and rng.random() >= SAME_CAMERA:
                others = np.where(np.arange(len(weight)) == camera, 0, weight)
                camera = int(rng.choice(len(weight), p=others / others.sum()))
            rows.append((scene, film_set, palettes[film_set], camera))
        scene += 1
    seconds = np.clip(rng.lognormal(1.1, 0.5, shots), *SHOT_SECONDS)
    frames = np.rint(seconds * FPS).astype(np.int32)
    return Script(*np.array(rows[:shots]).T, frames)  # type: ignore[call-arg]  # four columns


def _labels(script: Script, split: str) -> ShotLabels:
    last = np.append(np.diff(script.scene) > 0, False)
    end = np.cumsum(script.frames).astype(np.int32) - 1
    start = (end + 1 - script.frames).astype(np.int32)
    shots = np.arange(len(end), dtype=np.int64)
    return ShotLabels(shots, last.astype(np.int8), script.scene.astype(np.int32), start, end, split)


def _frames(rng: Rng, camera: Camera, gamma: float, stops: float) -> list[Image.Image]:
    """The key-frames of one shot, exposed `stops` brighter than the camera's own exposure."""
    gain = np.exp2(stops + EXPOSURE_JITTER * rng.normal()) * np.exp(WHITE_JITTER * rng.normal(size=3))
    tone = np.outer(gain, 255 * np.linspace(0, 1, 256) ** gamma).clip(0, 255).round().astype(int).flatten().tolist()
    size = np.minimum(camera.size * np.exp(TAKE_ZOOM * rng.normal()), PANORAMA)
    start, pan = camera.corner + rng.normal(0, TAKE_SHIFT, 2), rng.normal(0, (MOTION, MOTION / 4))
    walks = [(rng.normal(0, TAKE_SHIFT / 2, 2), rng.normal(0, (MOTION, MOTION / 4))) for _ in camera.cast]
    frames = []
    for time in range(KEYFRAMES_PER_SHOT):
        x, y = np.clip(start + time * pan, 0, PANORAMA - size)
        box = (x, y, x + size[0], y + size[1])
        frame = camera.plate.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box)
        for (sprite, place), (stand, walk) in zip(camera.cast, walks, strict=True):
            frame.paste(sprite, tuple((place + stand + time * walk).astype(int).tolist()), sprite)
        frames.append(ImageChops.multiply(frame, camera.light).point(tone))
    return frames


def _draw_film(frames_dir: Path, shots: int, seed: int, film: int, name: str, split: str) -> ShotLabels:
    script = _script(_rng(seed, film, SCRIPT), shots)

    @lru_cache(1)  # of the current scene
    def film_set(index: int, palette: int) -> FilmSet:
        colours = _palette(_rng(seed, film, PALETTE, palette), PALETTE_COLOURS)
        return _film_set(_rng(seed, film, SET, index), colours)

    @lru_cache(CAMERAS)
    def camera(index: int, palette: int, number: int) -> Camera:
        return _camera(_rng(seed, film, CAMERA, index * CAMERAS + number), film_set(index, palette), number)

    folder = frames_dir / name
    folder.mkdir(parents=True)
    for shot in range(shots):
        rng = _rng(seed, film, SHOT, shot)
        place = np.flatnonzero(script.scene == script.scene[shot])
        drift = _rng(seed, film, SCRIPT, 1 + int(script.scene[shot])).normal(0, EXPOSURE_DRIFT)
        stops = drift * ((shot - place[0]) / len(place) - 0.5)
        where = int(script.film_set[shot]), int(script.palette[shot])
        view = camera(*where, int(script.camera[shot]))
        for image, frame in enumerate(_frames(rng, view, film_set(*where).gamma, stops)):
            frame.save(folder / keyframe_name(shot, image), quality=QUALITY)
    return _labels(script, split)


def draw_films(
    root: Path,
    films: int = 12,
    shots: int = 100,
    seed: int = 0,
    test: int = 4,
    val: int = 0,
    workers: int = 2,
    progress: Progress | None = None,
) -> dict[str, ShotLabels]:
    """Draw `films` films of `shots` shots into `root`: key-frames, boundary labels and shot times; return the labels.

    The first films are split "train", followed by `val` films and `test` films. Equal arguments give equal bytes for
    any number of `workers`; a film does not depend on `films`. Files are moved to `root` when all films are drawn.

    Args:
        progress: counts films.

    Raises:
        SourceError: a number out of range, or `root` already holds a set.
    """
    given = {"films": films, "shots": shots, "seed": seed, "test": test, "val": val, "workers": workers}
    for name, least in {"films": 1, "shots": 2, "seed": 0, "test": 0, "val": 0, "workers": 1}.items():
        if given[name] < least:
            raise SourceError(f"{name} {given[name]}: must be at least {least}")
    if test + val >= films:
        raise SourceError(
            f"--test {test} and --val {val} leave no film to train on of --films {films}; draw more, or hold out fewer"
        )
    frames_dir = root / FRAMES_DIR
    for place in (frames_dir, root / "anno", root / "scene318"):
        if place.exists():
            raise SourceError(f"{place}: already exists; remove it or choose another folder")
    splits = ["train"] * (films - test - val) + ["val"] * val + ["test"] * test
    names = [f"tt{9_000_000 + film}" for film in range(films)]
    labels = {}
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draw-", dir=root) as scratch, ThreadPoolExecutor(workers) as pool:
        draft = Path(scratch)
        done = pool.map(partial(_draw_film, draft / FRAMES_DIR, shots, seed), range(films), names, splits)
        for name, film_labels in zip(names, done, strict=True):
            labels[name] = film_labels
            if progress:
                progress(1)
        write_annotations(draft, labels)
        for child in sorted(draft.iterdir(), key=lambda path: path.name == FRAMES_DIR):
            child.rename(root / child.name)
    return labels
