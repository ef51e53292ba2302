"""One epoch of fine-tuning: features held on the device, against a DataLoader that opens 17 files a sample.

Features are synthetic: 190 films of 1,500 shots, 2,048 numbers each, 2.3 GB. Both deliver the same windows of 17 shots
in batches of 1,024, in random order:

    ours     `Windows`: one gather by index from float32 or float16 features, delivered in that precision (the network
             converts float16 to float32)
    peer     torch DataLoader, 2 workers: np.load of 17 files `<film>/shot_0000.npy` a sample, stacked and collated

The peer's files are in the page cache. A whole set would have 285,000 files, so the peer gets those of `--peer-films`
films and reads some batches of an epoch; its epoch is computed from the time of a batch once the workers are running.
Ours runs whole epochs. They take turns, round by round.

Delivering a batch is one cost, the whole epoch another: the contextual relation network takes the same time with either
and, on a CPU, most of the epoch. Its step (forward, backward, Adam) is timed on a small batch and scaled to an epoch:
for ours gather + step; for the peer the longer of loading and step, as its workers run in parallel (without a spare
core they would take longer). An epoch of the head alone (`--linear_probe`) is timed whole.

    python -m benchmarks.finetune                                     about ten minutes and 6 GB of memory on 2 cores
    python -m benchmarks.finetune --out benchmarks/results/finetune.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bassl_fast.heads.crn import ContextualRelationNetwork
from bassl_fast.methods.losses import balanced_cross_entropy
from bassl_fast.runtime import hardware
from bassl_fast.segmentation.features import Film, shot_name
from bassl_fast.segmentation.model import SceneBoundary
from bassl_fast.segmentation.windows import Windows
from pipelines.plan import Plan
from shard_tools.shards.format import SHOT

SHOTS = 17  # of a window


class FileAWindow(Dataset):
    """The peer: a window is read from 17 files."""

    def __init__(self, root: Path, films: int, shots: int) -> None:
        self.root, self.films, self.shots = str(root), films, shots

    def __len__(self) -> int:
        return self.films * self.shots

    def __getitem__(self, sample: int) -> tuple[Tensor, int]:
        film, centre = divmod(sample, self.shots)
        around = np.clip(np.arange(centre - SHOTS // 2, centre + SHOTS // 2 + 1), 0, self.shots - 1)
        rows = [np.load(f"{self.root}/{film}/{shot_name(shot)}") for shot in around.tolist()]
        return torch.from_numpy(np.stack(rows)), sample


def make_windows(features: Tensor, films: int, shots: int, window: int) -> Windows:
    rng, made = np.random.default_rng(0), []
    for film in range(films):
        rows = np.zeros(shots, SHOT)
        rows["boundary"] = rng.random(shots) < 0.08
        made.append(Film(str(film), features[film * shots : (film + 1) * shots], rows))
    return Windows(made, features, window)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ours_batch(windows: Windows, plan: Plan, epoch: int) -> float:
    """Seconds a batch, over a whole epoch."""
    device = windows.features.device
    synchronise(device)
    started = time.perf_counter()
    for step in range(plan.steps):
        windows[torch.from_numpy(plan.batch(epoch, step)).to(device)]
    synchronise(device)
    return (time.perf_counter() - started) / plan.steps


def peer_batch(root: Path, films: int, shots: int, batches: int, batch: int, workers: int) -> float:
    """Seconds a batch, from the first to the last of `batches`."""
    data = FileAWindow(root, films, shots)
    order = torch.randperm(len(data)).repeat(-(-batches * batch // len(data)))[: batches * batch].tolist()
    arrived = []
    for _ in DataLoader(data, batch, sampler=order, num_workers=workers):
        arrived.append(time.perf_counter())
    return (arrived[-1] - arrived[0]) / (batches - 1)


def step_sample(windows: Windows, model: SceneBoundary, batch: int, steps: int) -> float:
    """Seconds a sample takes in a training step, the median step."""
    device = windows.features.device
    optimiser = torch.optim.Adam(model.train().parameters(), 1e-5)
    times = []
    for step in range(steps + 1):
        shots = torch.arange(step * batch, (step + 1) * batch, device=device) % len(windows.boundary)
        synchronise(device)
        started = time.perf_counter()
        balanced_cross_entropy(model(windows[shots]), windows.boundary[shots]).backward()
        optimiser.step()
        optimiser.zero_grad()
        synchronise(device)
        times.append((time.perf_counter() - started) / batch)
    return median(times[1:])


def deliver(args: argparse.Namespace, windows: dict[str, Windows], plan: Plan) -> dict[str, list[float]]:
    """Seconds a batch of ours, by precision, and of the peer, in every round."""
    times: dict[str, list[float]] = {**{name: [] for name in windows}, "peer": []}
    whole = windows["float32"].features
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for film in range(args.peer_films):
            (root / str(film)).mkdir()
            for shot in range(args.shots):
                np.save(root / str(film) / shot_name(shot), whole[film * args.shots + shot].cpu().numpy())
        for path in root.glob("*/*.npy"):
            path.read_bytes()
        for i in range(args.rounds + 1):
            for name in windows:
                times[name].append(ours_batch(windows[name], plan, i))
            peer = root, args.peer_films, args.shots, args.peer_batches, args.batch, args.workers
            times["peer"].append(peer_batch(*peer))
    return {name: seconds[1:] for name, seconds in times.items()}  # the first round warms up


def plain_copy(whole: Tensor, batch: int) -> float:
    """Seconds to copy the features of a batch of windows, the median."""
    destination = torch.empty_like(whole[: batch * SHOTS])
    copies = []
    for source in whole.split(batch * SHOTS):
        if len(source) == len(destination):
            synchronise(whole.device)
            started = time.perf_counter()
            destination.copy_(source)
            synchronise(whole.device)
            copies.append(time.perf_counter() - started)
    return median(copies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=190)
    parser.add_argument("--shots", type=int, default=1500, help="of a film")
    parser.add_argument("--dim", type=int, default=2048, help="of a feature")
    parser.add_argument("--batch", type=int, default=1024, help="windows")
    parser.add_argument("--peer-films", type=int, default=24, help="films whose files the peer reads")
    parser.add_argument("--peer-batches", type=int, default=16, help="batches of the peer in a round")
    parser.add_argument("--workers", type=int, default=2, help="of the peer")
    parser.add_argument("--step-batch", type=int, default=64, help="windows of a timed training step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    device, total = hardware.device(), args.films * args.shots
    plan = Plan(total, args.batch)
    torch.manual_seed(0)
    whole = torch.rand(total, args.dim, device=device)
    windows = {
        name: make_windows(features, args.films, args.shots, SHOTS)
        for name, features in (("float32", whole), ("float16", whole.half()))
    }
    times = deliver(args, windows, plan)
    batch = {name: median(seconds) for name, seconds in times.items()}
    copy, gigabytes = plain_copy(whole, args.batch), args.batch * SHOTS * args.dim * 4 / 1e9
    print(
        f"{total} shots on {device}, {plan.steps} batches of {args.batch} windows, {gigabytes:.2f} GB each in float32"
    )
    print(f"a plain copy of one batch takes {1e3 * copy:.1f} ms\n")
    print(f"{'deliver':10s}{'a batch, ms':>14s}{'an epoch, s':>14s}{'peer / it':>12s}")
    ratios = {}
    for name, seconds in batch.items():
        each = [theirs / mine for theirs, mine in zip(times["peer"], times[name], strict=True)]
        ratios[name] = {"median": median(each), "min": min(each), "max": max(each)}
        print(f"{name:10s}{1e3 * seconds:14.1f}{plan.steps * seconds:14.1f}{median(each):12.0f}")

    crn = SceneBoundary(ContextualRelationNetwork(args.dim), args.dim).to(device)
    probe = SceneBoundary(None, args.dim).to(device)
    step = total * step_sample(windows["float32"], crn, args.step_batch, 5)
    alone = make_windows(whole, args.films, args.shots, 1)
    head = total * step_sample(alone, probe, args.batch, plan.steps - 1)
    epochs = {
        "ours": plan.steps * batch["float32"] + step,
        "peer, workers on their own cores": max(plan.steps * batch["peer"], step),
        "ours, head alone": head,
    }
    print(f"\na step of the network takes {step / plan.steps:.2f} s (from batches of {args.step_batch} windows)")
    for name, seconds in epochs.items():
        print(f"whole epoch, {name:38s}{seconds:10.1f} s")
    if args.out:
        from benchmarks.machine import machine

        report = {
            "benchmark": "finetune",
            "settings": {key: value for key, value in vars(args).items() if key != "out"},
            "machine": machine(),
            "device": str(device),
            "seconds_a_batch": batch,
            "copy_of_a_batch": copy,
            "ratios": ratios,
            "step_of_the_network": step / plan.steps,
            "epochs": epochs,
        }
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
