"""How much faster does DALI make the views than PIL does, on this machine's CPU?

Both get the same view rows of the same windows from the same packed shards, and as many workers as threads:
    PIL     torch DataLoader, worker processes, each key-frame decoded once a window, then crop and resize, flip,
            colour jitter (ImageEnhance, hue in HSV), Gaussian blur, float and normalise: torchvision's way
    ours    WindowLoader: plan, sampler and DALI graph, threads
They take turns, round by round, each from an empty queue, so what slows the machine slows both. A round of ours builds
its pipeline and draws its rows within its time; PIL's workers are up before and its rows are drawn.

    python -m benchmarks.loader                            draws films, about half a minute on 2 cores
    python -m benchmarks.loader --shards DIR --threads 8 --steps 10 --out loader.json
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bassl_fast.methods import BaSSL
from benchmarks.machine import machine
from pipelines.graph import MEAN, STD
from pipelines.loader import WindowLoader
from pipelines.store import Store
from pipelines.views import ORDERS, STEPS, TrainViews
from shard_tools.draw import draw_films
from shard_tools.format import ShardIndex
from shard_tools.pack import pack

# --- The PIL way ---


def turn_hue(picture: Image.Image, turns: float) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    hue = hue.point([round(level + turns * 256) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


COLOUR = {
    "brightness": lambda picture, factor: ImageEnhance.Brightness(picture).enhance(factor),
    "contrast": lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor),
    "saturation": lambda picture, factor: ImageEnhance.Color(picture).enhance(factor),
    "hue": turn_hue,
}


def pil_view(picture: Image.Image, row: np.void, size: int) -> np.ndarray:
    """`[size, size, 3]` uint8 of a decoded key-frame and its row."""
    left, top = int(row["left"]), int(row["top"])
    view = picture.crop((left, top, left + int(row["width"]), top + int(row["height"])))
    view = view.resize((size, size), Image.Resampling.BILINEAR)
    if row["flip"]:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if row["brightness"] != 1 or row["hue"] != 0:  # jittered
        for step in ORDERS[row["order"]]:
            view = COLOUR[STEPS[step]](view, float(row[STEPS[step]]))
    if row["blur"]:
        view = view.filter(ImageFilter.GaussianBlur(float(row["blur"])))
    return np.asarray(view)


class PilWindows(Dataset):
    """Windows `[V, 3, size, size]` float32 of view rows `[N, V]`."""

    def __init__(self, index: ShardIndex, rows: np.ndarray, size: int) -> None:
        self.store, self.rows, self.size = Store(index), rows, size
        self.mean, self.std = (torch.tensor(x, dtype=torch.float32).view(3, 1, 1) for x in (MEAN, STD))

    def __getitem__(self, window: int) -> Tensor:
        rows = self.rows[window]
        frames, which = np.unique(rows["frame"], return_inverse=True)
        pictures = [Image.open(io.BytesIO(jpeg)).convert("RGB") for jpeg in self.store.read(frames)]
        views = np.stack([pil_view(pictures[i], row, self.size) for i, row in zip(which, rows, strict=True)])
        return torch.from_numpy(views).permute(0, 3, 1, 2).float().div_(255).sub_(self.mean).div_(self.std)


class Batches:
    """The window numbers of one round; `round` is set from outside, so the workers stay up from round to round."""

    round = 0

    def __init__(self, steps: int, batch: int) -> None:
        self.steps, self.batch = steps, batch

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.round * self.steps, (self.round + 1) * self.steps):
            yield list(range(step * self.batch, (step + 1) * self.batch))


# --- The measurement ---


def seconds(batches: Iterator, steps: int) -> float:
    """Time to make `steps` batches; the last value of each is looked at, so none is lazy."""
    start, count = time.perf_counter(), 0
    for images in batches:
        images.view(-1)[-1].item()
        count += 1
        if count == steps:
            return time.perf_counter() - start
    raise RuntimeError(f"{count} batches where {steps} were asked for")


def likeness(ours: Tensor, theirs: Tensor) -> float:
    """Median PSNR in dB over the views of a batch: are both making the same pictures?"""
    std = torch.tensor(STD, dtype=torch.float32).view(3, 1, 1)
    error = ((ours - theirs) * std).square().mean((-3, -2, -1))
    return float((-10 * error.log10()).median())


def measure(args: argparse.Namespace, index: ShardIndex) -> dict:
    method = BaSSL(8, hidden=8, intermediate=8, heads=2, nce_hidden=8, nce_dim=8, views=TrainViews(size=args.size))

    def ours(round_: int) -> WindowLoader:
        kwargs = {"global_batch": args.batch, "seed": args.seed, "threads": args.threads}
        loader = WindowLoader(index, index.select(None), method.sample, args.size, **kwargs)
        loader.load_state_dict({"epoch": round_, "step": 0})
        return loader

    drawn = ours(0)
    if args.steps > len(drawn):
        raise SystemExit(f"--steps {args.steps}: these films have {len(drawn)} steps of {args.batch} windows")
    rounds = range(args.rounds + 1)  # the first warms up
    rows = np.concatenate([drawn.draw(r, step)[1].views for r in rounds for step in range(args.steps)])
    plan = Batches(args.steps, args.batch)
    pil = DataLoader(
        PilWindows(index, rows, args.size), batch_sampler=plan, num_workers=args.threads, persistent_workers=True
    )
    same = likeness(next(iter(pil)), next(iter(drawn))["images"])

    times: dict[str, list[float]] = {"pil": [], "ours": []}
    for plan.round in rounds:
        times["pil"].append(seconds(iter(pil), args.steps))
        loader = ours(plan.round)
        times["ours"].append(seconds((batch["images"] for batch in loader), args.steps))
        del loader  # its threads end here, so what it was doing ahead costs PIL nothing
    windows, views = args.steps * args.batch, rows.shape[1]
    rates = {name: [windows / t for t in measured[1:]] for name, measured in times.items()}
    ratios = [a / b for a, b in zip(rates["ours"], rates["pil"], strict=True)]
    return {
        "windows_per_s": {name: median(values) for name, values in rates.items()},
        "views_per_s": {name: views * median(values) for name, values in rates.items()},
        "ratio": {"median": median(ratios), "min": min(ratios), "max": max(ratios)},
        "rounds_windows_per_s": rates,
        "median_psnr_db": same,
        "views_a_window": views,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, help="packed films; none: draw some")
    parser.add_argument("--size", type=int, default=224, help="side of a view in pixels (%(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="windows a step (%(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="steps a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds after the one that warms up (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="DALI threads, and PIL worker processes (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards = args.shards
        if shards is None:
            shards = Path(folder, "shards")
            draw_films(Path(folder, "films"), films=4, shots=60, seed=args.seed, test=0)
            pack(Path(folder, "films"), shards, progress=False)
        result = measure(args, ShardIndex.open(shards))
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    result = {"benchmark": "loader", "settings": settings, "machine": machine(), **result}

    print(f"{args.size} px, {result['views_a_window']} views a window, {args.batch} windows a step, "
          f"{args.threads} threads on {result['machine']['cores']} cores of {result['machine']['cpu']}")  # fmt: skip
    for name in ("pil", "ours"):
        print(f"{name:5} {result['windows_per_s'][name]:8.1f} windows/s {result['views_per_s'][name]:9.0f} views/s")
    ratio = result["ratio"]
    print(f"ours / PIL: {ratio['median']:.2f} ({ratio['min']:.2f}..{ratio['max']:.2f} over {args.rounds} rounds); "
          f"same pictures to {result['median_psnr_db']:.1f} dB in the median")  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
