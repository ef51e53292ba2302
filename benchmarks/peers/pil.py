"""torch DataLoader + PIL: the data path of the reference, optimised.

A worker decodes each key-frame of a window once, then makes every view as torchvision does from PIL images: crop and
resize, flip, colour jitter (ImageEnhance; hue in HSV), Gaussian blur. Batches are sent as uint8, a quarter of the
bytes, and normalised in the main process.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.steps import normalise
from pipelines.store import Store
from pipelines.views import ORDERS, STEPS, following
from shard_tools.shards.index import ShardIndex

from . import Work


def turn_hue(picture: Image.Image, turns: float) -> Image.Image:
    same = list(range(256))
    turned = [round(level + turns * 256) % 256 for level in same]
    return picture.convert("HSV").point(turned + same + same).convert("RGB")


COLOUR = {
    "brightness": lambda picture, factor: ImageEnhance.Brightness(picture).enhance(factor),
    "contrast": lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor),
    "saturation": lambda picture, factor: ImageEnhance.Color(picture).enhance(factor),
    "hue": turn_hue,
}


def view(picture: Image.Image, row: np.void, size: int, after: Image.Image | None = None) -> Image.Image:
    """One view of a decoded key-frame by its row, without normalisation; `after` is the frame to subtract."""
    left, top = int(row["left"]), int(row["top"])
    if after is not None:
        picture = ImageChops.subtract(picture.convert("L"), after.convert("L"), 2, 128).convert("RGB")
    made = picture.crop((left, top, left + int(row["width"]), top + int(row["height"])))
    made = made.resize((size, size), Image.Resampling.BILINEAR)
    if row["flip"]:
        made = made.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if row["brightness"] != 1 or row["hue"] != 0:  # jittered
        for step in ORDERS[row["order"]]:
            made = COLOUR[STEPS[step]](made, float(row[STEPS[step]]))
    if row["grey"]:
        made = made.convert("L").convert("RGB")
    if row["blur"]:
        made = made.filter(ImageFilter.GaussianBlur(float(row["blur"])))
    return ImageOps.solarize(made, 128) if row["solarize"] else made


def window(jpegs: dict[int, bytes], rows: np.ndarray, size: int) -> np.ndarray:
    """Images uint8 `[..., size, size, 3]` of view rows `[...]`, from the JPEG of each key-frame that they name."""
    pictures = {}
    for frame, jpeg in jpegs.items():
        pictures[frame] = Image.open(io.BytesIO(jpeg))
        pictures[frame].load()
    made = [
        view(pictures[row["frame"]], row, size, pictures[row["frame"] + 1] if row["difference"] else None)
        for row in rows.ravel()
    ]
    return np.stack(made).reshape(*rows.shape, size, size, 3)


class Windows(Dataset):
    """The views of a window `[V]` or of clips `[V, T]`, indexed by their rows."""

    def __init__(self, index: ShardIndex, size: int) -> None:
        self.store, self.size = Store(index), size

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        frames = np.unique(np.concatenate([rows["frame"].ravel(), following(rows.ravel())["frame"]]))
        return window(dict(zip(frames.tolist(), self.store.read(frames), strict=True)), rows, self.size)


class Asked:
    """Batch sampler of rows; they are set from outside, so that the workers live from round to round."""

    rows: np.ndarray

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return iter([list(step) for step in self.rows])


class Pil:
    name = "DataLoader + PIL"
    includes = "read, decode, view steps, collate, normalise; not: drawing the rows, starting the workers"
    stretch = 1

    def __init__(self, work: Work) -> None:
        self.torch_threads = work.threads
        self._asked = Asked()
        self._loader = DataLoader(
            Windows(work.index, work.views.size),
            batch_sampler=self._asked,
            num_workers=work.threads,
            persistent_workers=True,
        )

    def round(self, number: int, rows: np.ndarray) -> Iterator[tuple[Tensor, np.ndarray]]:
        self._asked.rows = rows
        for pictures, made_by in zip(self._loader, rows, strict=True):
            yield normalise(pictures), made_by
