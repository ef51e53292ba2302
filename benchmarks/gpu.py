"""Training on a GPU as `pretrain` does it: views a second, and whether a step ever waits.

    tests       the tests that need a GPU (`pytest -m gpu`), first
    training    `pretrain` with ResNet-50 (Lightning, DDP, synchronised batch normalisation as users run it), of each
                method: on one batch that stays on the GPU, then with the loader, views made on the CPU, by DALI on
                the GPU, and there by Triton.
                `of resident` is the rate with the loader over that without; `waits` the share of a step that the host
                waited for a batch; `gaps` the share of the time in which the GPU stood between two steps (CUDA events)
    loader      views/s into GPU memory without training, by decoder (cpu, cuda, hardware), for those of the GPU by DALI
                or Triton, and by batches prefetched
    agreement   PSNR of views made on the GPU, by either decoder, by DALI or Triton, and on the CPU, in decibels

One run prints one table and writes JSON, which is written again after every row, so an interrupted run leaves what it
has. It ends after `--minutes`: rows for which there was no time are listed. Rows of ResNet-50 BaSSL come first.
`--device cpu` runs it without a GPU, only to see that it works.

    python -m benchmarks.gpu --out benchmarks/results/gpu.json          at most nine minutes on an H200
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback as LightningCallback

from bassl_fast.encoders import ResNet
from bassl_fast.methods import BaSSL, Instance, Method, ShotCoL, Temporal
from bassl_fast.training import run
from bassl_fast.training.module import Pretraining
from bassl_fast.training.options import Data, Training, Views
from bassl_fast.training.pretrain import pretrain
from benchmarks.machine import machine
from pipelines.graph import Decoder
from pipelines.loader import WindowLoader
from pipelines.views import TrainViews
from shard_tools.errors import BasslFastError
from shard_tools.packing.pack import pack
from shard_tools.shards.index import ShardIndex
from shard_tools.sources.synthetic import draw_films

METHODS = {"bassl": BaSSL, "shotcol": ShotCoL, "instance": Instance, "temporal": Temporal}
BARS = {"views_per_s": 3500, "of_resident": 0.98, "waits": 0.01}  # for ResNet-50 BaSSL on an H200
Batch = dict[str, torch.Tensor]


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Timer(LightningCallback):
    """Times the steps after `warm_up`; on a GPU also the gaps between them, on its own clock."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.marks: list[tuple[Any, Any]] = []  # begin and end of each step
        self.waited = 0.0
        self.views = 0

    def on_train_batch_start(self, trainer: pl.Trainer, module: Pretraining, batch: Batch, batch_idx: int) -> None:
        self._began = self._now()
        self.views = len(batch["film"]) * sum(
            rows.shape[1:-3].numel() for name, rows in batch.items() if name.startswith("images")
        )

    def on_train_batch_end(self, trainer: pl.Trainer, module: Pretraining, *_: Any) -> None:
        if trainer.global_step > self.warm_up:
            self.marks.append((self._began, self._now()))
            self.waited += module.waited

    def _now(self) -> Any:
        if not torch.cuda.is_available():
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def figures(self) -> dict[str, float]:
        synchronise()
        whole = _seconds(self.marks[0][0], self.marks[-1][1])
        gaps = sum(_seconds(before[1], after[0]) for before, after in itertools.pairwise(self.marks))
        return {
            "views_per_s": self.views * len(self.marks) / whole,
            "step_s": whole / len(self.marks),
            "waits": self.waited / whole,
            "gaps": gaps / whole,
        }


def _seconds(start: Any, end: Any) -> float:
    return end - start if isinstance(start, float) else start.elapsed_time(end) / 1000


class Resident:
    """A loader of one batch, which stays on the device, again and again."""

    def __init__(self, loader: WindowLoader) -> None:
        self._loader, self.index = loader, loader.index
        self._batch = next(iter(loader))

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        return itertools.repeat(self._batch, len(self))

    def state_dict(self) -> dict[str, int]:
        return self._loader.state_dict()


def training(
    shards: Path, kind: type[Method], args: argparse.Namespace, views: Views, resident: bool
) -> dict[str, float]:
    """Figures of a run of `pretrain`."""
    timer = Timer(args.warm_up)
    data = Data(str(shards), global_batch=args.windows, threads=args.threads, prefetch=2, views=views)
    length = Training(steps=args.warm_up + args.steps, validate_every=0, devices=1)
    make_loader = run.make_loader
    with ExitStack() as stack:
        out = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(patch.object(run, "progress_callbacks", lambda late: (False, [timer])))
        if resident:
            stack.enter_context(patch.object(run, "make_loader", lambda *given: Resident(make_loader(*given))))
        method = partial(kind, views=TrainViews(size=args.size))
        pretrain(data, lambda: ResNet(args.depth), method, training=length, out=f"{out}/run")
    return timer.figures()


def open_loader(shards: Path, args: argparse.Namespace, decoder: Decoder, triton: bool, prefetch: int) -> WindowLoader:
    index, method = ShardIndex.open(shards), BaSSL(ResNet(args.depth).dim, views=TrainViews(size=args.size))
    return WindowLoader(
        index, index.select(None), method.sample, args.size, global_batch=args.windows, device=args.device,
        decoder=decoder, triton=triton, threads=args.threads or 16, prefetch=prefetch, dtype=torch.bfloat16,
    )  # fmt: skip


def views_per_second(loader: WindowLoader, batches: int) -> float:
    """Median of three rounds, after two batches that warm up."""
    stream = itertools.chain.from_iterable(itertools.repeat(loader))
    for _ in range(2):
        next(stream)
    rates = []
    for _ in range(3):
        synchronise()
        started = time.perf_counter()
        views = sum(batch["images"].shape[:2].numel() for batch in itertools.islice(stream, batches))
        synchronise()
        rates.append(views / (time.perf_counter() - started))
    return median(rates)


def agreement(ours: Batch, theirs: Batch) -> dict[str, float]:
    """Least and median PSNR in decibels of views, of normalised values about 4.4 wide."""
    apart = (ours["images"].float() - theirs["images"].float()).flatten(0, 1).square().mean((1, 2, 3))
    psnr = 10 * torch.log10(4.4**2 / apart.clamp_min(1e-9))
    return {"least_db": float(psnr.min()), "median_db": float(psnr.median())}


def gpu_tests() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"], capture_output=True, text=True,
        timeout=150, check=False,
    )  # fmt: skip
    return {"passed": done.returncode == 0, "said": done.stdout.strip().splitlines()[-1:]}


def rows(shards: Path, args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any], Callable[[], Any]]]:
    """Table, what identifies the row, and what measures it, in the order of their importance."""
    gpu = args.device == "cuda"
    if gpu:
        yield "tests", {}, gpu_tests
    places: tuple[Views, ...] = ("cpu", "gpu", "triton") if gpu else ("cpu",)
    makers: list[tuple[Decoder, bool]] = [("cpu", False)]
    makers += [("cuda", False), ("cuda", True), ("hardware", False), ("hardware", True)] if gpu else []
    for name in args.methods:
        kind = METHODS[name]
        yield "training", {"method": name, "views": "resident"}, partial(training, shards, kind, args, "cpu", True)
        for views in places:
            yield "training", {"method": name, "views": views}, partial(training, shards, kind, args, views, False)
        if name == args.methods[0]:
            for (decoder, triton), prefetch in itertools.product(makers, args.prefetch):
                loader = partial(open_loader, shards, args, decoder, triton, prefetch)
                measure = lambda loader=loader: {"views_per_s": views_per_second(loader(), args.steps // 2)}  # noqa: E731
                yield "loader", {"decoder": decoder, "triton": triton, "prefetch": prefetch}, measure
            for maker in makers[1:]:
                pair = [partial(open_loader, shards, args, *each, 2) for each in (maker, makers[0])]
                measure = lambda pair=pair: agreement(*(next(iter(make())) for make in pair))  # noqa: E731
                yield "agreement", {"decoder": maker[0], "triton": maker[1]}, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, help="packed films; left out, synthetic ones")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--windows", type=int, default=32, help="windows a step (%(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of a view in pixels (%(default)s)")
    parser.add_argument("--depth", type=int, default=50, help="of the ResNet (%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="of DALI; 0 is every core")
    parser.add_argument("--prefetch", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--steps", type=int, default=40, help="steps that are timed (%(default)s)")
    parser.add_argument("--warm_up", type=int, default=10, help="steps before (%(default)s)")
    parser.add_argument("--minutes", type=float, default=8.5, help="begin no row after so long (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    deadline = time.monotonic() + 60 * args.minutes
    report: dict[str, Any] = {
        "benchmark": "gpu",
        "machine": machine() | {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None},
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        "training": [],
        "loader": [],
        "agreement": [],
        "tests": [],
        "left_out": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        shards = args.shards
        if shards is None:
            shards = Path(folder, "shards")
            draw_films(Path(folder, "films"), films=8, shots=120, test=0)
            pack(Path(folder, "films"), shards, quiet=True)
        for table, named, measure in rows(shards, args):
            if time.monotonic() > deadline:
                report["left_out"].append({"table": table, **named})
            else:
                report[table].append(named | _measured(measure, table, named.get("views") == "resident", report[table]))
                cells = (f"{name} {_short(value)}" for name, value in report[table][-1].items())
                print(table.ljust(10), *cells, sep="  ", flush=True)
            if args.out:
                args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print_table(report)


def _measured(measure: Callable[[], Any], table: str, resident: bool, earlier: list[dict]) -> dict[str, Any]:
    """Figures of a row; an error is a figure too, and does not cost the rows after it."""
    try:
        found = measure()
    except (BasslFastError, RuntimeError, subprocess.TimeoutExpired) as error:
        return {"error": " ".join(str(error).split())[:300]}
    alone = next((row for row in reversed(earlier) if row.get("views") == "resident"), None)
    if table == "training" and not resident and alone is not None and "views_per_s" in alone:
        found["of_resident"] = found["views_per_s"] / alone["views_per_s"]
    return found


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_table(report: dict[str, Any]) -> None:
    """The rows of training, and which bars the best of the first method reaches."""
    columns = ("views_per_s", "of_resident", "waits", "gaps")
    print(f"\n{'method':12s}{'views':10s}" + "".join(f"{name:>14s}" for name in columns))
    for row in report["training"]:
        cells = [_short(row[name]) if name in row else "-" for name in columns]
        print(f"{row['method']:12s}{row['views']:10s}" + "".join(f"{cell:>14s}" for cell in cells))
    first = [row for row in report["training"] if row["views"] != "resident" and "of_resident" in row]
    if first:
        best = max((row for row in first if row["method"] == first[0]["method"]), key=lambda row: row["views_per_s"])
        for name, bar in BARS.items():
            reached = best[name] <= bar if name == "waits" else best[name] >= bar
            print(f"{name} {_short(best[name])}: bar {bar} {'reached' if reached else 'missed'} ({best['method']})")
    for row in report["left_out"]:
        print("no time for", *row.values())


if __name__ == "__main__":
    main()
