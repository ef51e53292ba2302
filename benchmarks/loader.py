"""Windows, pictures or clips a second on this machine's CPU: our loader and its alternatives.

    DataLoader + PIL     worker processes, as in the reference; ratios are to this one
    WebDataset + PIL     the same work on shards read sequentially
    DALI, naive graph    decode, random_resized_crop, color_twist, gaussian_blur, crop_mirror_normalize
    FFCV + torch         its file, its crop and flip; jitter, blur and normalisation in torch
    SPDL + torch         decode, crop and resize by FFmpeg; the rest in torch
    ours                 WindowLoader, float32 and bfloat16
    decoding alone       the limit: DALI decodes the crop regions of the same rows, nothing else

Each is a file in `benchmarks/peers`, which says what it does and what the time of its round includes. All have the same
JPEGs in the page cache, the same windows, the same augmentation and, if the library allows, the same view rows; each
has `--threads` worker processes or threads, on the same `--threads` cores. They take turns, round by round, each from
an empty queue to the last normalised batch `[b, V, 3, S, S]` of the round. Our rounds have four times as many steps, or
they would be too short to time. The CPU time of a view is printed too, as a busy machine affects it less; two threads
that never wait make 2000 / it views a second.

In a first round, not timed, the images of each are compared with ours: PSNR if the rows are the same, else mean,
standard deviation and mean step between neighbouring pixels, in grey levels, and the mean share of an image in a crop.

`--samples pictures` makes two views of a picture by SCE's recipe, `--samples clips` two clips of 8 frames of a video by
SCE's recipe for videos; the peers of both are DataLoader + PIL and decoding alone.

FFCV and SPDL are left out if they are not installed: this project does not require them.

    apt-get install libturbojpeg0-dev libopencv-dev pkg-config ffmpeg
    pip install ffcv spdl-io spdl-core

    python -m benchmarks.loader                            synthetic films; about four minutes on 2 quiet cores
    python -m benchmarks.loader --out benchmarks/results/loader.json           and loader.svg beside it
    python -m benchmarks.loader --shards DIR --threads 8 --steps 16            or --films DIR of video files
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bassl_fast.methods import SCE, BaSSL, Method
from benchmarks import plots
from benchmarks.machine import machine
from benchmarks.peers import Contestant, Work
from pipelines import graph
from pipelines.clip_sampling import Clips
from pipelines.store import Store
from pipelines.stream import Request, Stream
from pipelines.views import TrainViews, draw_groups, following
from shard_tools.annotations.movienet import FRAMES_DIR, keyframe_name
from shard_tools.packing.pack import pack
from shard_tools.shards.index import ShardIndex
from shard_tools.sources.synthetic import draw_films
from shard_tools.video.keyframes import extract_folder

# Those with worker processes come first, to be forked before there are threads.
CONTESTANTS = {
    "pil": "pil.Pil",
    "web": "web.Web",
    "dali": "dali.NaiveDali",
    "ffcv": "ffcv.Ffcv",
    "spdl": "spdl.Spdl",
    "ours": "ours.Ours",
    "ours-bfloat16": "ours.OursBfloat16",
    "decode": "ours.Decode",
}
OPTIONAL = ("ffcv", "spdl")
OF_ANY = ("pil", "ours", "ours-bfloat16", "decode")  # the others make only windows
VIDEO = 12  # frames
STD = torch.tensor(graph.STD, dtype=torch.float32).view(3, 1, 1)
MEAN = torch.tensor(graph.MEAN, dtype=torch.float32).view(3, 1, 1)


def start(names: list[str], work: Work) -> tuple[dict[str, Contestant], dict[str, str]]:
    """The contestants of these names, and why some are left out."""
    found, left_out = {}, {}
    for name in names:
        module, _, kind = CONTESTANTS[name].partition(".")
        try:
            found[name] = getattr(import_module(f"benchmarks.peers.{module}"), kind)(work)
        except (ImportError, RuntimeError) as error:  # SPDL without FFmpeg raises the latter
            if name not in OPTIONAL:
                raise
            left_out[name] = str(error).splitlines()[0][:80]
    if not found:
        raise SystemExit(f"nothing to measure: {left_out}")
    return found, left_out


def draw_rows(work: Work, rounds: int, steps: int) -> np.ndarray:
    """View rows `[rounds, steps, b, V]` that ours draws for its steps, one after another."""
    loader = import_module("benchmarks.peers.ours").open_loader(work)
    rows = [loader.draw(*divmod(step, len(loader)))[1].views for step in range(rounds * steps)]
    return np.stack(rows).reshape(rounds, steps, *rows[0].shape)


def seconds(contestant: Contestant, number: int, rows: np.ndarray) -> tuple[float, float]:
    """Wall and CPU seconds of the batches of a round; a value of each is read, so that none is lazy."""
    torch.set_num_threads(contestant.torch_threads)
    count, started = 0, clocks()
    for images, _ in contestant.round(number, rows):
        images[(-1,) * images.ndim].item()
        ended, count = clocks(), count + 1
    if count != len(rows):
        raise RuntimeError(f"{contestant.name}: {count} batches where {len(rows)} were asked for")
    return ended[0] - started[0], ended[1] - started[1]


def clocks() -> tuple[float, float]:
    """Wall seconds, and CPU seconds of this process and its workers."""
    stats = [Path(f"/proc/{worker.pid}/stat").read_text() for worker in multiprocessing.active_children()]
    ticks = sum(int(field) for stat in stats for field in stat.rpartition(")")[2].split()[11:13])  # user, system
    return time.perf_counter(), time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


# --- Do all make the same images? ---


class Painter:
    """Makes the views of given rows, as ours does."""

    def __init__(self, work: Work) -> None:
        self._store, self._size, self._threads = Store(work.index), work.views.size, work.threads

    def __call__(self, rows: np.ndarray) -> Tensor:
        """`[..., 3, S, S]` of rows `[b, V]` or `[b, V, T]`."""
        make_graph, inputs = graph.train_path(self._size, clips=rows.ndim == 3)
        pictures = np.concatenate([rows.ravel(), following(rows.ravel())])
        request = Request(pictures["frame"], pictures, lambda jpegs: inputs(rows.ravel(), jpegs))
        kwargs = {"batch_size": rows.size, "num_threads": self._threads, "prefetch_queue_depth": 1}
        ((_, images),) = Stream(self._store, iter([request]), make_graph, torch.device("cpu"), **kwargs)
        return images.view(*rows.shape, *images.shape[1:])


def check(contestant: Contestant, work: Work, rows: np.ndarray, paint: Painter) -> dict:
    """Run round 0 and compare its images with ours: PSNR in dB, or statistics of theirs and ours."""
    torch.set_num_threads(contestant.torch_threads)
    decibels, theirs, ours = [], [], []
    for (images, made_by), step in zip(contestant.round(0, rows), rows, strict=True):
        if images.ndim < 5:  # no views
            continue
        if made_by is None:
            theirs.append(statistics(images))
            ours.append(statistics(paint(step)))
        else:
            error = ((paint(made_by) - images) * STD / 255).square().mean((-3, -2, -1))
            decibels.append(-10 * error.clamp(min=1e-12).log10().flatten())
    if decibels:
        return {"psnr_db": float(torch.cat(decibels).median())}
    if not theirs:
        return {}
    film, draws = work.index.sequences[0], 1000
    sides = (np.full(draws, int(film[side])) for side in ("height", "width"))
    crops = draw_groups(np.random.default_rng(work.seed), work.views, *sides)
    area = float((crops["height"] * crops["width"]).mean() / (int(film["height"]) * int(film["width"])))
    names = ("mean", "deviation", "step", "crop_area")
    return {
        "theirs": dict(zip(names, [*np.mean(theirs, 0).tolist(), contestant.crop_area()], strict=True)),
        "ours": dict(zip(names, [*np.mean(ours, 0).tolist(), area], strict=True)),
    }


def statistics(images: Tensor) -> tuple[float, float, float]:
    """Mean, standard deviation, and mean step between neighbouring pixels of a row, in grey levels."""
    levels = images * STD + MEAN
    return float(levels.mean()), float(levels.std()), float(levels.diff(dim=-1).abs().mean())


# --- The measurement ---


def method_of(args: argparse.Namespace) -> Method:
    """The method whose views are made, with the recipe of its config."""
    if args.samples == "windows":
        return BaSSL(8, hidden=8, intermediate=8, heads=2, nce_hidden=8, nce_dim=8, views=TrainViews(size=args.size))
    strength = 2 if args.samples == "clips" else 1
    first = TrainViews(
        size=args.size,
        area=(0.2, 0.766) if args.samples == "clips" else (0.2, 1.0),
        brightness=0.4 * strength,
        contrast=0.4 * strength,
        saturation=0.2 * strength,
        hue=0.1 * strength,
        grayscale=0.2,
        blur=1.0,
    )
    clips = {"clips": Clips(8, segments=True), "difference": 0.2} if args.samples == "clips" else {}
    return SCE(8, first, replace(first, blur=0.1, solarize=0.2), hidden=8, outputs=8, queue=8, **clips)


def measure(args: argparse.Namespace, index: ShardIndex, scratch: Path) -> dict:
    method = method_of(args)
    work = Work(index, method.sample, method.views, args.batch, args.steps, args.threads, args.seed, scratch)
    contestants, left_out = start(args.only, work)
    longest = max(contestant.stretch for contestant in contestants.values())
    rows = draw_rows(work, args.rounds + 1, longest * args.steps)
    paint, windows, views = Painter(work), args.steps * args.batch, rows[0, 0, 0].size
    pictures, rates, costs = {}, {name: [] for name in contestants}, {name: [] for name in contestants}
    bar = tqdm(total=(args.rounds + 1) * len(contestants), desc="rounds", disable=None)
    for number in range(args.rounds + 1):
        for name, contestant in contestants.items():
            mine = rows[number, : contestant.stretch * args.steps]
            if number == 0:  # warms up, too
                pictures[name] = check(contestant, work, mine[: args.steps], paint)
            else:
                wall, processors = seconds(contestant, number, mine)
                rates[name].append(contestant.stretch * windows / wall)
                costs[name].append(1000 * processors / mine.size)
            bar.update()
    bar.close()

    def over(name: str, other: str) -> dict:
        return spread([rate / base for rate, base in zip(rates[name], rates[other], strict=True)])

    first = next(iter(contestants))
    return {
        "views_a_window": views,
        "left_out": left_out,
        "of_the_limit": {
            name: over(name, "decode") for name in ("ours", "ours-bfloat16") if {name, "decode"} <= {*rates}
        },
        "contestants": {
            name: {
                "name": contestant.name,
                "a_round_includes": contestant.includes,
                "pictures": pictures[name],
                "windows_per_s": spread(rates[name]),
                "views_per_s": spread([views * rate for rate in rates[name]]),
                "cpu_ms_a_view": spread(costs[name]),
                "ratio": over(name, first),
            }
            for name, contestant in contestants.items()
        },
    }


def spread(rounds: list[float]) -> dict:
    return {"median": median(rounds), "min": min(rounds), "max": max(rounds), "rounds": rounds}


def likeness(pictures: dict) -> str:
    """One contestant's check in words."""
    if "psnr_db" in pictures:
        return f"{pictures['psnr_db']:.1f} dB"
    if not pictures:
        return "makes none"
    pairs = [(theirs, pictures["ours"][name]) for name, theirs in pictures["theirs"].items()]
    return "mean, deviation, step, crop: " + ", ".join(f"{theirs:.3g} for {ours:.3g}" for theirs, ours in pairs)


def table(result: dict) -> str:
    """The contestants, one a line."""
    lines = [f"{'':20} {result['settings']['samples'] + '/s':>20} {'views/s':>8} {'CPU ms':>7} {'ratio':>20}  pictures"]
    for one in result["contestants"].values():
        rate, ratio = one["windows_per_s"], one["ratio"]
        views, cost = one["views_per_s"]["median"], one["cpu_ms_a_view"]["median"]
        rate = f"{rate['median']:.1f} ({rate['min']:.1f}..{rate['max']:.1f})"
        ratio = f"{ratio['median']:.2f} ({ratio['min']:.2f}..{ratio['max']:.2f})"
        lines.append(f"{one['name']:20} {rate:>20} {views:8.0f} {cost:7.2f} {ratio:>20}  {likeness(one['pictures'])}")
    for name, ratio in result["of_the_limit"].items():
        name = result["contestants"][name]["name"]
        lines.append(f"{name} / decoding alone: {ratio['median']:.2f} ({ratio['min']:.2f}..{ratio['max']:.2f})")
    return "\n".join([*lines, *(f"left out: {name} ({why})" for name, why in result["left_out"].items())])


def packed(args: argparse.Namespace, folder: Path) -> Path:
    """The shards to read: those given, or of the given videos, or of synthetic films."""
    if args.shards:
        return args.shards
    if args.films:
        extract_folder(args.films, folder / "films", join="film")  # one film, as short ones repeat their last shot
    else:
        draw_films(folder / "films", films=8, shots=60, seed=args.seed, test=0)
    if args.samples == "clips":
        as_videos(folder / "films" / FRAMES_DIR, folder / "videos")
        pack(folder / "videos", folder / "shards", quiet=True)
        return folder / "shards"
    pack(folder / "films", folder / "shards", quiet=True)
    return folder / "shards"


def as_videos(films: Path, videos: Path) -> None:
    """The key-frames of films as videos of `VIDEO` frames, each a film of one shot."""
    for film in sorted(films.iterdir()):
        frames = sorted(film.iterdir())
        for first in range(0, len(frames) - VIDEO + 1, VIDEO):
            folder = videos / FRAMES_DIR / f"{film.name}_{first}"
            folder.mkdir(parents=True)
            for number, frame in enumerate(frames[first : first + VIDEO]):
                frame.rename(folder / keyframe_name(0, number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--shards", type=Path, help="packed films; left out, synthetic ones")
    source.add_argument("--films", type=Path, help="folder of video files to take key-frames from")
    parser.add_argument("--samples", choices=("windows", "pictures", "clips"), default="windows")
    parser.add_argument("--size", type=int, default=224, help="side of a view in pixels (%(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="windows a step (%(default)s)")
    parser.add_argument("--steps", type=int, default=8, help="steps a round, a multiple of --threads (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds after a warm-up round (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="cores, threads or worker processes (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="+", choices=CONTESTANTS, help="contestants, by default all; ratios are to the first"
    )
    parser.add_argument("--out", type=Path, help="write the figures as JSON, and a plot as SVG beside it")
    args = parser.parse_args()
    able = list(CONTESTANTS) if args.samples == "windows" else list(OF_ANY)
    args.only = args.only or able
    if unable := set(args.only) - set(able):
        parser.error(f"--only {', '.join(sorted(unable))}: cannot make {args.samples}")
    if args.steps % args.threads:
        parser.error(f"--steps {args.steps}: worker processes would be idle; give a multiple of {args.threads}")
    facts, cores = machine(), sorted(os.sched_getaffinity(0))
    if args.threads > len(cores):
        parser.error(f"--threads {args.threads}: there are {len(cores)} cores")
    os.sched_setaffinity(0, cores[: args.threads])
    with tempfile.TemporaryDirectory() as folder:
        index = ShardIndex.open(packed(args, Path(folder)))
        sizes = sorted({f"{w}x{h}" for h, w in index.sequences[["height", "width"]].tolist()})
        jpegs = {"count": len(index.frames), "mean_bytes": float(index.frames[:]["size"].mean()), "sizes": sizes}
        result = measure(args, index, Path(folder))
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    result = {"benchmark": "loader", "settings": settings, "machine": facts, "jpegs": jpegs, **result}
    print(f"{args.size} px, {result['views_a_window']} views of each, {args.batch} {args.samples} a step, {args.steps} "
          f"steps a round, {args.rounds} rounds, {args.threads} of {facts['cores']} cores of {facts['cpu']}; "
          f"{jpegs['count']} JPEGs of {jpegs['mean_bytes']:.0f} bytes on average, {', '.join(sizes)} px")  # fmt: skip
    print(table(result))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        plots.draw(result, args.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
