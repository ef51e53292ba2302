"""Processes, machines and networks that fail: nothing is lost but time.

The faults are those of `benchmarks.failures`, which runs four processes; here two, as their starts take the time. They
are forked with their imports done (`tests.warm`).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist
from torch.distributed.run import get_args_parser as run_parser

from bassl_fast import cli, config
from bassl_fast.checkpoints import checkpoint
from bassl_fast.runtime.distributed import lost_process
from bassl_fast.training.pretrain import pretrain
from benchmarks import failures
from benchmarks.failures import SAVED_EVERY, Project, Run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SLOW = 60.0  # seconds that a busy machine may take beyond what is promised
TIMEOUT = 5  # seconds that processes wait for each other


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory, warm: str) -> Iterator[Project]:
    project = Project.make(tmp_path_factory.mktemp("faults"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failures, "TORCHRUN", [warm, "-u", *failures.TORCHRUN[1:]])
        patch.setattr(failures, "TIMEOUT", TIMEOUT)
        project.undisturbed(2)
        yield project


@pytest.fixture
def rng() -> random.Random:
    return random.Random(0)


def test_a_killed_process_costs_the_steps_since_the_last_save_and_not_a_bit(faults: Project, rng: random.Random):
    found = failures.killed(faults, "killed", rng, processes=2)
    assert found.apart == 0
    assert 1 <= found.again <= SAVED_EVERY
    assert found.stopped < 30 + SLOW
    assert "another process ended or cannot be reached" in found.reason
    assert "continue with --resume" in found.reason


def test_fewer_processes_resume_with_the_same_batches(faults: Project, rng: random.Random):
    """Only the order differs in which gradients and losses are summed, and the optimiser carries that on."""
    found = failures.fewer(faults, "fewer", rng, processes=2)
    assert 0 < found.apart < 1e-5
    assert faults.checkpoint("fewer")["data"] == faults.checkpoint(faults.undisturbed(2))["data"]


def test_a_process_killed_while_it_saves_leaves_the_previous_checkpoint(faults: Project, rng: random.Random):
    found = failures.saving(faults, "saving", rng, processes=2)
    assert found.apart == 0
    assert found.again == SAVED_EVERY  # the save that failed was the one of this step
    assert [path.name for path in (faults.root / "saving").glob("*.tmp")] == []


needs_hosts = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None or subprocess.run(["ip", "netns"], capture_output=True).returncode,
    reason="network namespaces need root and ip (iproute2)",
)


@needs_hosts
def test_a_network_that_is_gone_for_longer_stops_both_sides_in_time_and_they_start_again(
    faults: Project, rng: random.Random
):
    found = failures.cut(faults, "cut", rng)
    assert found.apart == 0
    assert TIMEOUT - 1 < found.stopped < TIMEOUT + SLOW
    assert found.reason.count("another process ended or cannot be reached") == 2


def test_processes_that_do_not_see_the_same_checkpoint_are_refused(faults: Project, warm: str):
    """As when --out is a local folder on each machine."""
    shutil.copytree(faults.root / faults.undisturbed(2), faults.root / "own-0")
    state = faults.checkpoint("own-0")
    state["global_step"] -= 1  # not finished yet, nor as Lightning counts
    counted = state["loops"]["fit_loop"]["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"][
        "total"
    ]
    counted |= {name: number - 1 for name, number in counted.items()}
    checkpoint.save(faults.root / "own-0" / "last.ckpt", state)
    limit = ("--training.timeout_minutes", "0.5")
    words = ["-m", "bassl_fast.cli", "pretrain", *faults.options("own-$LOCAL_RANK", "--resume", *limit)]
    run = Run.start([*failures.TORCHRUN, "2", "--standalone", "--no-python", "sh", "-c", " ".join([warm, *words])])
    assert run.wait() != 0
    assert "the processes begin at different steps" in run.text, run.text


def test_resume_without_a_checkpoint_starts(faults: Project, capsys: pytest.CaptureFixture):
    options = faults.options("first", "--resume", "--training.steps", "1")
    assert cli.main(["pretrain", *options]) == 0
    assert "first/last.ckpt: no checkpoint yet, the run starts from the beginning" in capsys.readouterr().out
    assert cli.main(["pretrain", *options]) == 0
    assert "first/last.ckpt: finished already, at step 1" in capsys.readouterr().out


def test_restarts_by_torchrun_resume(faults: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Also where a process cannot know that it was restarted, because its machine is new."""
    options = ["pretrain", *faults.options("again", "--training.steps", "1")]
    assert [cli.main(options), cli.main(options)] == [0, 1]
    assert "this run exists" in capsys.readouterr().err
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert cli.main(options) == 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError(
                "[/a/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:31. This is typically"
            ),
            "Connection closed by peer [127.0.0.1]:31",
        ),
        (
            RuntimeError("[/a/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 8000ms for recv"),
            "Timed out waiting 8000ms for recv",
        ),
        (dist.DistBackendError("NCCL error: remote process exited\nframe #0"), "NCCL error: remote process exited"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ""),
    ],
)
def test_a_lost_process_is_distinguished_from_a_bug(error: RuntimeError, said: str):
    assert lost_process(error) == said


# --- launch files ---


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that record how they were called; `srun` also runs what it is given, as on every machine of a job."""
    note = f'printf "%s\\n" "$(basename "$0") $*" >> {tmp_path}/told\n'
    programs = {"torchrun": "sleep ${LASTS:-0} & wait $!", "scontrol": 'echo "$(hostname)"', "srun": 'shift; exec "$@"'}
    for name, does in programs.items():
        (tmp_path / name).write_text(
            f"#!/bin/sh\ntrap 'echo {name} ended >> {tmp_path}/told; exit' TERM\n{note}{does}\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "told"


LAUNCH = {
    "one-machine.sh": {},
    "several-machines.sh": {"NODES": "1:2", "HEAD": "10.0.0.1"},
    "slurm.sbatch": {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "a[1-2]"},
}


@pytest.mark.parametrize("name", LAUNCH)
def test_launch_files_give_torchrun_a_command_that_works(told: Path, name: str):
    words = ["--config", "configs/pretrain/bassl.yaml", "--data.shards", "shards", "--training.checkpoint_minutes", "3"]
    subprocess.run(["bash", ROOT / "launch" / name, *words], check=True, cwd=ROOT, env=os.environ | LAUNCH[name])
    (command,) = [line for line in told.read_text().splitlines() if line.startswith("torchrun ")]
    ours, theirs = command.partition(" -m bassl_fast.cli pretrain ")[::2]
    parsed = run_parser().parse_args([*ours.split()[1:], "-m", "bassl_fast.cli"])
    assert parsed.max_restarts == 3
    given = config.parse(config.make_parser(pretrain), theirs.split())
    assert (given.resume, given.training.checkpoint_minutes) == (True, 3)


def test_the_slurm_job_saves_and_is_queued_again_before_its_time_is_up(told: Path):
    environment = os.environ | LAUNCH["slurm.sbatch"] | {"LASTS": "20"}
    job = subprocess.Popen(["bash", ROOT / "launch/slurm.sbatch"], cwd=ROOT, env=environment)
    while not (told.exists() and "\ntorchrun " in told.read_text()):  # a line of its own: its trap is set
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(10) == 0
    assert told.read_text().splitlines()[-2:] == ["torchrun ended", "scontrol requeue 7"]


@pytest.mark.parametrize("minutes", ["0", "-1"])
def test_a_timeout_that_is_not_positive_is_refused(faults: Project, capsys: pytest.CaptureFixture, minutes: str):
    assert cli.main(["pretrain", *faults.options("none", "--training.timeout_minutes", minutes)]) == 1
    assert "training.timeout_minutes" in capsys.readouterr().err
