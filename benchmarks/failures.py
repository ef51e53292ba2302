"""Faults in training with several processes, and what they cost: only time.

    killed      one of four processes is killed (SIGKILL) at a random step; torchrun restarts all of them
    fewer       the same without a restart; the command is run again with half as many processes
    saving      process 0 is killed when half of a checkpoint is on the disk
    frozen      a process is stopped (SIGSTOP); the others time out
    picture     a key-frame is broken, with data.max_broken 0
    terminated  torchrun gets SIGTERM, and the command is run again
    flicker     two hosts lose their connection for 2 seconds
    cut         two hosts lose their connection for longer than training.timeout_minutes

Every run uses real processes that talk over sockets (gloo), started by torchrun; the hosts are network namespaces,
which needs root. The result must be bit-exactly that of a run without faults, except where fewer processes continue.

    python -m benchmarks.failures                            a few minutes on 2 quiet cores
    python -m benchmarks.failures --only killed --rounds 10 --out benchmarks/results/failures.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.machine import machine
from shard_tools.packing.pack import pack
from shard_tools.shards.index import ShardIndex
from shard_tools.sources.synthetic import draw_films

STEPS, SAVED_EVERY = 12, 2
TIMEOUT = 8  # seconds that processes wait for each other, in the faults that test it
LONGEST = 600  # seconds after which a run is killed
ROOT = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
# No layer that depends on the number of processes, such as batch normalisation and dropout on CPUs.
RECIPE = {
    "data": {"global_batch": 8, "threads": 1},
    "encoder": {"class_path": "tests.bassl_fast.plain.Plain"},
    "method": {
        "class_path": "bassl_fast.methods.BaSSL",
        "init_args": {
            "hidden": 16,
            "intermediate": 32,
            "heads": 2,
            "nce_hidden": 32,
            "nce_dim": 16,
            "dropout": 0.0,
            "views": {"size": 32},
        },
    },
    "optimiser": {"name": "adamw", "lr": 1e-3, "lr_batch": 0},
    "training": {
        "steps": STEPS,
        "precision": "32-true",
        "checkpoint_steps": SAVED_EVERY,
        "validate_every": 0,
    },
}


# --- runs ---


@dataclass
class Run:
    """A running command and its output, line by line with the time of each line."""

    process: subprocess.Popen
    lines: list[tuple[float, str]] = field(default_factory=list)

    @classmethod
    def start(cls, command: list[str], **environment: str) -> Run:
        quiet = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | quiet | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        run = cls(process)
        threading.Thread(target=run._listen, daemon=True).start()
        return run

    def _listen(self) -> None:
        for line in self.process.stdout:
            self.lines.append((time.time(), line.rstrip()))

    def wait(self) -> int:
        """The exit code; a run that takes too long is killed."""
        try:
            code = self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            code = self.process.wait()
        time.sleep(0.1)  # its last lines
        return code

    def said(self, part: str, since: float = 0.0) -> list[tuple[float, str]]:
        return [(when, line) for when, line in self.lines if part in line and when >= since]

    def steps(self, since: float = 0.0) -> list[tuple[float, int]]:
        """Time and number (from 1) of each step in the output."""
        found = [(when, re.match(r"step (\d+)/", line)) for when, line in self.lines if when >= since]
        return [(when, int(step[1])) for when, step in found if step]

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)


def torchrun(processes: int, *options: str) -> list[str]:
    return [*TORCHRUN, str(processes), *(options or ("--standalone",)), "-m", "benchmarks.faulty", "pretrain"]


@dataclass(frozen=True)
class Project:
    """Shards, a recipe, and runs."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Project:
        draw_films(root / "films", films=3, shots=20, test=1, val=1)
        pack(root / "films", root / "shards")
        (root / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
        return cls(root)

    def options(self, out: str, *more: str, shards: str = "shards") -> list[str]:
        places = ["--data.shards", str(self.root / shards), "--out", str(self.root / out)]
        return ["--config", str(self.root / "recipe.yaml"), *places, *more]

    def fault(self, out: str, what: str, step: int, rank: int, *values: object) -> dict[str, str]:
        done = str(self.root / f"{out}.broken")
        return {"FAULT": " ".join(map(str, (what, step, rank, *values))), "FAULT_DONE": done}

    def broken_at(self, out: str) -> float:
        """When the fault happened."""
        return (self.root / f"{out}.broken").stat().st_mtime

    def checkpoint(self, out: str) -> dict[str, Any]:
        return torch.load(self.root / out / "last.ckpt", weights_only=True)

    def undisturbed(self, processes: int) -> str:
        """The run without faults."""
        out = f"undisturbed-{processes}"
        if not (self.root / out / "last.ckpt").exists():
            run = Run.start(torchrun(processes) + self.options(out))
            assert run.wait() == 0, run.text
        return out


def apart(mine: Any, theirs: Any) -> float:
    """The largest difference between two checkpoints, or parts of them; 0 means bit-exactly equal."""
    if isinstance(mine, torch.Tensor):
        return 0.0 if torch.equal(mine, theirs) else float((mine.double() - theirs.double()).abs().max())
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys()
        return max((apart(value, theirs[key]) for key, value in mine.items()), default=0.0)
    if isinstance(mine, list):
        return max((apart(a, b) for a, b in zip(mine, theirs, strict=True)), default=0.0)
    return 0.0 if mine == theirs else float("inf") if not isinstance(mine, float) else abs(mine - theirs)


def difference(project: Project, out: str, processes: int) -> float:
    """Between the ends of a run and of the run without faults: weights, optimiser, schedule, position in the data."""
    mine, theirs = project.checkpoint(out), project.checkpoint(project.undisturbed(processes))
    keys = ("global_step", "data", "state_dict", "optimizer_states", "lr_schedulers")
    return max(apart(mine[key], theirs[key]) for key in keys)


# --- faults ---


@dataclass(frozen=True)
class Outcome:
    """What a fault did.

    Attributes:
        step: at which it happened.
        again: steps that were computed twice.
        stopped: seconds until all other processes had ended with a reason; None if they need not end.
        went_on: seconds until the next new step was done.
        apart: largest difference between the result of this run and of the run without faults.
        reason: the error message.
    """

    step: int
    again: int
    stopped: float | None
    went_on: float | None
    apart: float | None
    reason: str


def _stopped(run: Run, since: float) -> float:
    """Seconds until torchrun had seen all processes end."""
    return run.said("failed (exitcode", since)[0][0] - since


def _reason(run: Run) -> str:
    return next(line for _, line in run.lines if line.startswith("bassl-fast: "))


def killed(project: Project, out: str, rng: random.Random, processes: int = 4) -> Outcome:
    step, rank = rng.randrange(SAVED_EVERY + 1, STEPS - 1), rng.randrange(processes)
    return _restarted(project, out, "kill", step, rank, processes)


def saving(project: Project, out: str, rng: random.Random, processes: int = 4) -> Outcome:
    return _restarted(project, out, "kill_while_saving", 2 * rng.randrange(2, STEPS // 2 - 1) + 1, 0, processes)


def frozen(project: Project, out: str, rng: random.Random) -> Outcome:
    options = ("--training.timeout_minutes", str(TIMEOUT / 60))
    step, rank = rng.randrange(SAVED_EVERY + 1, STEPS - 1), rng.randrange(4)
    return _restarted(project, out, "freeze", step, rank, 4, *options)


def _restarted(project: Project, out: str, what: str, step: int, rank: int, processes: int, *options: str) -> Outcome:
    command = torchrun(processes, "--standalone", "--max-restarts", "1") + project.options(out, *options)
    run = Run.start(command, **project.fault(out, what, step, rank))
    assert run.wait() == 0, run.text
    broken = project.broken_at(out)
    stopped = _stopped(run, broken)
    went_on, first = run.steps(broken + stopped)[0]
    made = step + (what == "kill_while_saving")  # which happens after the step
    ends = difference(project, out, processes)
    return Outcome(step, made + 1 - first, stopped, went_on - broken, ends, _reason(run))


def fewer(project: Project, out: str, rng: random.Random, processes: int = 4) -> Outcome:
    step, rank = rng.randrange(SAVED_EVERY + 1, STEPS - 1), rng.randrange(processes)
    run = Run.start(torchrun(processes) + project.options(out), **project.fault(out, "kill", step, rank))
    assert run.wait() != 0, run.text
    stopped, saved = _stopped(run, project.broken_at(out)), project.checkpoint(out)["global_step"]
    again = Run.start(torchrun(processes // 2) + project.options(out, "--resume"))
    assert again.wait() == 0, again.text
    return Outcome(step, step - saved, stopped, None, difference(project, out, processes), _reason(run))


def terminated(project: Project, out: str, rng: random.Random) -> Outcome:
    step, options = rng.randrange(3, STEPS - 1), project.options(out, "--resume")
    run = Run.start(torchrun(2) + options, **project.fault(out, "end_job", step, 0))
    run.wait()
    saved = project.checkpoint(out)["global_step"]
    again = Run.start(torchrun(2) + options)
    assert again.wait() == 0, again.text
    said = next(line for _, line in run.lines if "stopped by SIGTERM" in line)
    stopped = run.said("stopped by SIGTERM")[0][0] - project.broken_at(out)
    return Outcome(step, max(0, step - saved), stopped, None, difference(project, out, 2), said)


def picture(project: Project, out: str, rng: random.Random) -> Outcome:
    """A byte of a key-frame is changed: the run stops on all processes; fixed, it resumes."""
    index = ShardIndex.open(str(project.root / "shards"))
    frame = rng.randrange(len(index.frames))
    shard = Path(index.locate(frame)[0])
    at = int(index.frames[frame]["offset"]) + 300
    options = project.options(out, "--resume")
    with open(shard, "r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))
        file.flush()
        try:
            began = time.time()
            run = Run.start(torchrun(2) + options)
            code = run.wait()
        finally:
            file.seek(at)
            file.write(bytes([byte]))
    assert code != 0, run.text
    (said, reason), *_ = run.said("bytes differ from the index", began)
    saved = project.checkpoint(out)["global_step"] if (project.root / out / "last.ckpt").exists() else 0
    again = Run.start(torchrun(2) + options)
    assert again.wait() == 0, again.text
    return Outcome(saved, 0, _stopped(run, said), None, difference(project, out, 2), reason)


@contextmanager
def hosts() -> Iterator[list[str]]:
    """Two network namespaces, 10.77.0.1 and 10.77.0.2, joined by a virtual cable whose ends are called eth0."""
    names = [f"bassl-{os.getpid()}-{i}" for i in (1, 2)]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    with ExitStack() as stack:
        for name in names:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
        ends = [word for name in names for word in ("eth0", "netns", name)]
        ip("link", "add", *ends[:3], "type", "veth", "peer", "name", *ends[3:])
        for i, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.77.0.{i}/24", "dev", "eth0")
            for end in ("lo", "eth0"):
                ip("-n", name, "link", "set", end, "up")
        yield names


def on_two_hosts(project: Project, out: str, what: dict[str, str], *options: str) -> list[Run]:
    """The same command on both hosts, until both succeed."""
    with hosts() as names:
        runs = []
        for i, name in enumerate(names, 1):
            meet = ["--nnodes", "2", "--max-restarts", "3", "--rdzv-backend", "c10d", "--rdzv-id", out]
            meet += ["--rdzv-endpoint", "10.77.0.1:29500", "--local-addr", f"10.77.0.{i}"]
            meet += ["--rdzv-conf", f"is_host={int(i == 1)}"]  # these addresses have no host names
            command = ["ip", "netns", "exec", name, *torchrun(1, *meet), *project.options(out, *options)]
            runs.append(Run.start(command, GLOO_SOCKET_IFNAME="eth0", **what))
        codes = [run.wait() for run in runs]
    assert codes == [0, 0], "\n\n".join(run.text for run in runs)
    return runs


def flicker(project: Project, out: str, rng: random.Random) -> Outcome:
    step = rng.randrange(3, STEPS - 1)
    runs = on_two_hosts(project, out, project.fault(out, "unplug", step, 1, 2))
    assert not any(run.said("bassl-fast: ") for run in runs), "\n\n".join(run.text for run in runs)
    broken = project.broken_at(out)
    went_on, _ = min(done for run in runs for done in run.steps(broken))
    return Outcome(step, 0, None, went_on - broken, difference(project, out, 2), "")


def cut(project: Project, out: str, rng: random.Random) -> Outcome:
    step = rng.randrange(SAVED_EVERY + 1, STEPS - 1)
    limit = ("--training.timeout_minutes", str(TIMEOUT / 60))
    runs = on_two_hosts(project, out, project.fault(out, "unplug", step, 1, 2 * TIMEOUT), *limit)
    broken = project.broken_at(out)
    said = [run.said("bassl-fast: ", broken)[0] for run in runs]
    stopped = max(when for when, _ in said)
    when, first = min(done for run in runs for done in run.steps(stopped))
    reason = " / ".join(line for _, line in said)
    return Outcome(step, step + 1 - first, stopped - broken, when - broken, difference(project, out, 2), reason)


FAULTS: dict[str, Callable[[Project, str, random.Random], Outcome]] = {
    each.__name__: each for each in (killed, fewer, saving, frozen, picture, terminated, flicker, cut)
}


# --- the table ---


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the outcomes")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        project = Project.make(Path(folder))
        print(f"{'fault':12s} {'at step':>7s} {'repeated':>10s} {'stopped':>8s} {'resumed':>8s} {'apart':>8s}  reason")
        for name in arguments.only:
            for i in range(arguments.rounds):
                rng = random.Random(f"{name} {arguments.seed} {i}")
                found = FAULTS[name](project, f"{name}-{i}", rng)
                times = [f"{t:.1f} s" if t is not None else "" for t in (found.stopped, found.went_on)]
                print(f"{name:12s} {found.step:7d} {found.again:10d} {times[0]:>8s} {times[1]:>8s}", end=" ")
                print(f"{found.apart:8.2g}  {found.reason.replace(folder, '')}", flush=True)
                rows.append({"fault": name, **asdict(found), "reason": found.reason.replace(folder, "")})
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": machine(), "outcomes": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
