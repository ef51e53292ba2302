"""The data path on a GPU: views a second, and whether training ever waits for data.

    loader      views/s into GPU memory, without training: decoded and augmented on the GPU, or by the fused operator on
                the CPU and copied; for several numbers of threads and of prefetched batches
    training    steps of BaSSL with ResNet-50, bfloat16, channels last: with the loader, and on one batch that stays on
                the GPU, taking turns; the ratio of the two, and the share of a step spent waiting for data

The last line is what training gets. Needs a CUDA device; `--device cpu` runs it without one, only to see that it works.

    python -m benchmarks.gpu --out benchmarks/results/gpu.json          ten minutes on an H200 with 16 cores
    python -m benchmarks.gpu --shards DIR --window 32
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from bassl_fast.encoders import ResNet
from bassl_fast.methods import BaSSL
from bassl_fast.training.optim import build_optimiser
from bassl_fast.training.options import Optimiser
from benchmarks.machine import machine
from pipelines.loader import WindowLoader
from pipelines.views import TrainViews
from shard_tools.packing.pack import pack
from shard_tools.shards.index import ShardIndex
from shard_tools.sources.synthetic import draw_films

PLACES = ("cuda", "cpu")  # where JPEGs are decoded and views are made


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def endless(loader: WindowLoader) -> Iterator[dict[str, torch.Tensor]]:
    while True:
        yield from loader


def views_per_second(loader: WindowLoader, device: torch.device, batches: int, rounds: int) -> list[float]:
    """Rates of `rounds` rounds of `batches` batches, after two that warm up."""
    stream, rates = endless(loader), []
    for _ in range(2):
        next(stream)["images"].to(device)
    for _ in range(rounds):
        synchronise()
        started, views = time.perf_counter(), 0
        for batch in itertools.islice(stream, batches):
            views += batch["images"].to(device, non_blocking=True).shape[:2].numel()
        synchronise()
        rates.append(views / (time.perf_counter() - started))
    return rates


class Trainer:
    """One training step of BaSSL, as in `bassl_fast.training.module`."""

    def __init__(self, method: BaSSL, encoder: ResNet, device: torch.device, windows: int) -> None:
        self.encoder = encoder.to(device, memory_format=torch.channels_last)
        self.method, self.device = method.to(device), device
        both = torch.nn.ModuleDict({"encoder": self.encoder, "method": self.method})
        self.optimiser = build_optimiser(Optimiser(), both, windows, 1000)["optimizer"]

    def step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        batch = {name: rows.to(self.device, non_blocking=True) for name, rows in batch.items()}
        shape = batch["images"].shape[:2]
        with torch.autocast(self.device.type, torch.bfloat16):
            features = self.encoder(batch["images"].flatten(0, 1)).unflatten(0, shape)
            loss = sum(self.method(features, batch).values())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach()


def train(trainer: Trainer, batches: Iterator[dict[str, torch.Tensor]], steps: int) -> tuple[float, float]:
    """Seconds a step, and seconds of it waiting for the next batch."""
    synchronise()
    started, waited = time.perf_counter(), 0.0
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        loss = trainer.step(batch)
        loss.item()  # a training loop reads its loss; any wait after this is for the loader
    synchronise()
    return (time.perf_counter() - started) / steps, waited / steps


def training(trainer: Trainer, loader: WindowLoader, steps: int, rounds: int) -> dict[str, float]:
    """Training with the loader against training on one batch that stays on the device, taking turns."""
    stream = endless(loader)
    batch = next(stream)
    resident = itertools.repeat({name: rows.to(trainer.device) for name, rows in batch.items()})
    train(trainer, resident, 3), train(trainer, stream, 3)  # warms up
    found = [(train(trainer, stream, steps), train(trainer, resident, steps)) for _ in range(rounds)]
    views = batch["images"].shape[:2].numel()
    return {
        "views_per_s": median(views / step for (step, _), _ in found),
        "of_compute_alone": median(alone / step for (step, _), (alone, _) in found),
        "waiting_for_data": median(wait / step for (step, wait), _ in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, help="packed films; left out, synthetic ones")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--windows", type=int, default=32, help="windows a step (%(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of a view in pixels (%(default)s)")
    parser.add_argument("--depth", type=int, default=50, help="of the ResNet (%(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--prefetch", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--steps", type=int, default=20, help="steps or batches a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    device = torch.device(args.device)
    places = PLACES if device.type == "cuda" else ("cpu",)
    method = BaSSL(ResNet(args.depth).dim, views=TrainViews(size=args.size))
    with tempfile.TemporaryDirectory() as folder:
        shards = args.shards
        if shards is None:
            shards = Path(folder, "shards")
            draw_films(Path(folder, "films"), films=16, shots=120, test=0)
            pack(Path(folder, "films"), shards, quiet=True)
        index = ShardIndex.open(shards)

        def open_loader(place: str, threads: int, prefetch: int) -> WindowLoader:
            return WindowLoader(
                index, index.select(None), method.sample, args.size, global_batch=args.windows, device=place,
                threads=threads, prefetch=prefetch, dtype=torch.bfloat16,
            )  # fmt: skip

        sweep = []
        for place, threads, prefetch in itertools.product(places, args.threads, args.prefetch):
            rates = views_per_second(open_loader(place, threads, prefetch), device, args.steps, args.rounds)
            sweep.append({"place": place, "threads": threads, "prefetch": prefetch, "views_per_s": median(rates),
                          "least": min(rates), "most": max(rates)})  # fmt: skip
            print(f"views made on {place:5s}{threads:3d} threads, {prefetch} batches prefetched: {median(rates):8.0f} "
                  f"views/s ({min(rates):.0f}..{max(rates):.0f})", flush=True)  # fmt: skip
        best = max(sweep, key=lambda row: row["views_per_s"])

        trainer = Trainer(method, ResNet(args.depth), device, args.windows)
        loader = open_loader(best["place"], best["threads"], best["prefetch"])
        found = {"loader": best, **training(trainer, loader, args.steps, args.rounds)}
    result = {
        "benchmark": "gpu",
        "machine": machine() | {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None},
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        "loader": sweep,
        "training": found,
    }
    print(f"training, {args.windows} windows: {found['views_per_s']:.0f} views/s, {found['of_compute_alone']:.3f} of "
          f"compute alone, {100 * found['waiting_for_data']:.2f} % of a step waiting for data")  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
