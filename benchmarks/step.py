"""Where does the time of a training step go?

    data         waiting for the batch, which is made in parallel with the rest; and the time to make it alone
    encoder      forward and backward
    CRN          forward and backward of its two passes, without and with a mask
    losses       heads, pseudo-boundary and losses, forward and backward
    optimiser    LARS
Every part is synchronised, so their sum is a little longer than a normal step. Options of the encoder are then measured
on whole steps, taking turns: plain, activation checkpointing, torch.compile.

    python -m benchmarks.step                                         on a CPU: a few minutes on 2 cores
    python -m benchmarks.step --batch 64 --methods instance temporal shotcol bassl bassl+shotcol     on a GPU
    python -m benchmarks.step --out benchmarks/results/step.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from bassl_fast import methods
from bassl_fast.encoders import ResNet
from bassl_fast.methods import Method
from bassl_fast.runtime import hardware
from bassl_fast.training.optim import build_optimiser
from bassl_fast.training.options import Optimiser
from benchmarks.machine import machine
from pipelines.loader import WindowLoader
from pipelines.views import TrainViews
from shard_tools.packing.pack import pack
from shard_tools.shards.index import ShardIndex
from shard_tools.sources.synthetic import draw_films

METHODS = {
    "instance": methods.Instance,
    "temporal": methods.Temporal,
    "shotcol": methods.ShotCoL,
    "bassl": methods.BaSSL,
    "bassl+shotcol": methods.BaSSLShotCoL,
}
PARTS = ("data", "encoder", "CRN", "losses", "optimiser")
SWITCHES = {"plain": {}, "activation checkpointing": {"activation_checkpointing": True}, "compile": {}}


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Watch:
    """Seconds by part of one step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        wait()
        start = time.perf_counter()
        yield
        wait()
        self.seconds[part] += time.perf_counter() - start


class Training:
    """Encoder, method and optimiser, outside of Lightning."""

    def __init__(self, args: argparse.Namespace, method: str, switch: str = "plain") -> None:
        torch.manual_seed(0)
        device = hardware.device()
        self.encoder = ResNet(args.depth, args.width, **SWITCHES[switch])
        self.method: Method = METHODS[method](self.encoder.dim, views=TrainViews(size=args.size)).to(device)
        self.encoder = self.encoder.to(device, memory_format=torch.channels_last)
        if switch == "compile":
            self.encoder.compile()
        modules = torch.nn.ModuleList([self.encoder, self.method])
        self.optimiser = build_optimiser(Optimiser(), modules, args.batch, 1000)["optimizer"]
        precision = hardware.precision(args.precision)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")

    def features(self, batch: dict[str, Tensor]) -> Tensor:
        pictures = batch["images"].flatten(0, 1).contiguous(memory_format=torch.channels_last)
        with self.autocast:
            return self.encoder(pictures).unflatten(0, batch["images"].shape[:2])

    def loss(self, features: Tensor, batch: dict[str, Tensor]) -> Tensor:
        with self.autocast:
            return sum(self.method(features, batch).values())

    def update(self) -> None:
        self.optimiser.step()
        self.optimiser.zero_grad()

    def step(self, batch: dict[str, Tensor]) -> None:
        self.loss(self.features(batch), batch).backward()
        self.update()

    def step_in_parts(self, batches: Iterator[dict[str, Tensor]]) -> dict[str, float]:
        """The same step, with the backward pass split by the chain rule at the borders of the parts."""
        watch = Watch()
        with watch("data"):
            batch = next(batches)
        with watch("encoder"):
            features = self.features(batch)
        handed = features.detach().requires_grad_()
        crn = getattr(self.method, "crn", None)
        if crn is not None:
            with watch("CRN"), self.autocast:
                dense = handed[:, -2 * self.method.radius - 1 :]
                contextual = [crn(dense), crn(dense, batch["mask"])]
            found = [output.detach().requires_grad_() for output in contextual]
            crn.forward = lambda shots, mask=None: found[mask is not None]
        with watch("losses"):
            self.loss(handed, batch).backward()
        if crn is not None:
            del crn.forward
            with watch("CRN"):
                torch.autograd.backward(contextual, [output.grad for output in found])
        with watch("encoder"):
            features.backward(handed.grad)
        with watch("optimiser"):
            self.update()
        return {part: watch.seconds[part] for part in PARTS}


def open_data(args: argparse.Namespace, index: ShardIndex, method: Method) -> Iterator[dict[str, Tensor]]:
    """Endless batches."""
    loader = WindowLoader(
        index,
        index.select(None),
        method.sample,
        args.size,
        global_batch=args.batch,
        device=hardware.device(),
        threads=hardware.threads(args.threads),
    )
    return chain.from_iterable(repeat(loader))


def measure_parts(args: argparse.Namespace, index: ShardIndex, method: str) -> tuple[dict[str, float], int]:
    """Median milliseconds by part, and of making a batch alone; views a window."""
    training = Training(args, method)
    batches = open_data(args, index, training.method)
    steps = [training.step_in_parts(batches) for _ in range(args.steps + args.warm_up)][args.warm_up :]
    alone = []
    for _ in range(args.steps + args.warm_up):
        start = time.perf_counter()
        batch = next(batches)
        wait()
        alone.append(time.perf_counter() - start)
    views = batch["images"].shape[1]
    parts = {part: 1000 * median(step[part] for step in steps) for part in PARTS}
    return parts | {"making a batch alone": 1000 * median(alone[args.warm_up :])}, views


def measure_switches(args: argparse.Namespace, index: ShardIndex) -> dict[str, dict[str, float]]:
    """Milliseconds of a whole step on one batch, median of rounds, and peak memory on a GPU."""
    trainings = {switch: Training(args, args.methods[-1], switch) for switch in SWITCHES if switch in args.switches}
    batch = next(open_data(args, index, next(iter(trainings.values())).method))
    times: dict[str, list[float]] = {switch: [] for switch in trainings}
    memory = dict.fromkeys(trainings, 0.0)
    for _ in range(args.warm_up + args.steps):
        for switch, training in trainings.items():
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            wait()
            start = time.perf_counter()
            training.step(batch)
            wait()
            times[switch].append(1000 * (time.perf_counter() - start))
            if torch.cuda.is_available():
                memory[switch] = torch.cuda.max_memory_allocated() / 2**30
    return {s: {"ms": median(t[args.warm_up :]), "peak_GiB": memory[s]} for s, t in times.items()}


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["bassl"], choices=METHODS)
    parser.add_argument("--switches", nargs="*", default=list(SWITCHES), choices=SWITCHES)
    parser.add_argument("--depth", type=int, default=50, help="of the ResNet (%(default)s)")
    parser.add_argument("--width", type=int, default=64, help="of the ResNet (%(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of a view in pixels (%(default)s)")
    parser.add_argument("--batch", type=int, default=32 if gpu else 2, help="windows a step (%(default)s)")
    parser.add_argument("--steps", type=int, default=20 if gpu else 3, help="steps measured (%(default)s)")
    parser.add_argument("--warm-up", type=int, default=5 if gpu else 1, help="steps before (%(default)s)")
    parser.add_argument("--precision", default="auto", choices=("auto", "32-true", "bf16-mixed"))
    parser.add_argument("--threads", type=int, default=0, help="of the data pipeline; 0: all cores (%(default)s)")
    parser.add_argument("--shards", type=Path, help="packed films; left out, synthetic ones")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards = args.shards
        if shards is None:
            shards = Path(folder, "shards")
            draw_films(Path(folder, "films"), films=4, shots=60, seed=0, test=0)
            pack(Path(folder, "films"), shards, quiet=True)
        index = ShardIndex.open(shards)
        found = {method: measure_parts(args, index, method) for method in args.methods}
        parts, views = ({method: pair[i] for method, pair in found.items()} for i in (0, 1))
        switches = measure_switches(args, index) if args.switches else {}

    device = torch.cuda.get_device_name() if gpu else "CPU"
    precision = hardware.precision(args.precision)
    print(
        f"{device}, {precision}, ResNet-{args.depth}, {args.size} px, {args.batch} windows a step: ms (share of a step)"
    )
    print(f"{'':14s}" + "".join(f"{column:>18s}" for column in PARTS) + f"{'step':>10s}{'batch alone':>14s}")
    for method, found in parts.items():
        whole = sum(found[column] for column in PARTS)
        cells = "".join(f"{found[c]:10.1f} ({100 * found[c] / whole:4.1f}%)" for c in PARTS)
        print(f"{method:14s}{cells}{whole:10.1f}{found['making a batch alone']:14.1f}")
    for switch, found in switches.items():
        memory = f"{found['peak_GiB']:8.1f} GiB" if gpu else ""
        print(f"{switch:26s}{found['ms']:10.1f} ms a step without data{memory}")
    if args.out:
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
        result = {"benchmark": "step", "settings": settings, "machine": machine() | {"device": device}}
        result |= {"milliseconds": parts, "views": views, "switches": switches}
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
