"""Runs, features and checkpoints in remote storage: an S3 server, and its failures."""

from __future__ import annotations

import gc
import json
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from bassl_fast import cli
from bassl_fast.checkpoints import checkpoint
from bassl_fast.runtime.run_folder import RunFolder
from shard_tools.errors import RemoteError
from shard_tools.storage import remote
from tests.bassl_fast.conftest import PRETRAIN, Project
from tests.bassl_fast.training.test_launch import ROOT, launch, plain, same, torchrun, trained_as_one
from tests.refused import refused
from tests.servers import BUCKET, Proxy, s3_server, use_s3

pytestmark = pytest.mark.slow

S3 = f"s3://{BUCKET}"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[tuple[Path, int]]:
    """The folder of the bucket, and the port."""
    folder = tmp_path_factory.mktemp("s3")
    (folder / BUCKET).mkdir()
    with s3_server(folder) as port:
        yield folder / BUCKET, port


@pytest.fixture
def bucket(server, monkeypatch, tmp_path) -> Path:
    use_s3(monkeypatch, server[1])
    monkeypatch.setenv("BASSL_FAST_CACHE", str(tmp_path / "cache"))
    return server[0]


@pytest.fixture
def proxy(server, bucket, monkeypatch) -> Iterator[Proxy]:
    """A proxy that spoils writes."""
    proxy = Proxy(server[1], lambda request: request.startswith((b"PUT", b"POST")))
    use_s3(monkeypatch, proxy.port)
    monkeypatch.setattr(remote, "_STALL", 1)
    yield proxy
    proxy.close()


@pytest.fixture
def argv(project: Project, tmp_path: Path) -> list[str]:
    recipe = PRETRAIN | {"encoder": {"class_path": "tests.bassl_fast.plain.Plain"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return ["pretrain", "--config", str(tmp_path / "recipe.yaml"), "--data.shards", project.shards]


def test_a_whole_remote_project_equals_a_local_one(project: Project, bucket: Path, tmp_path: Path, capsys, monkeypatch):
    run, features, scenes = f"{S3}/all/run", f"{S3}/all/features", f"{S3}/all/scenes"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "private"))
    (tmp_path / "private").mkdir()
    for argv in (
        ["pretrain", "--config", project.config, "--data.shards", project.shards, "--out", run],
        ["extract", f"{run}/last.ckpt", project.shards, features],
        [
            *["finetune", "--data.features", features, "--pretrained", f"{run}/last.ckpt", "--out", scenes],
            *["--head", "crn"],
            *["--epochs", "2", "--data.batch", "8", "--optimiser.lr", "1e-3", "--optimiser.lr_batch", "0"],
        ],
        ["evaluate", f"{scenes}/best.ckpt", features],
        ["export-checkpoint", f"{run}/last.ckpt", f"{S3}/all/weights.safetensors"],
    ):
        assert cli.main(argv) == 0, capsys.readouterr().err
    assert cli.main(["evaluate", project.finetuned, project.features, "--out", str(tmp_path / "evaluate")]) == 0
    there = bucket / "all"
    for name in ("run/config.yaml", "run/metrics.csv", "run/summary.json", "scenes/config.yaml", "scenes/metrics.csv"):
        assert (there / name).is_file(), name
    assert list((there / "run" / "tensorboard").glob("events*"))
    assert not list(there.rglob("*.tmp"))
    same(weights(there / "run/last.ckpt"), weights(Path(project.pretrained)), "pretrained")
    same(weights(there / "scenes/best.ckpt"), weights(Path(project.finetuned)), "finetuned")
    for path in Path(project.features).glob("*.npy"):
        assert (there / "features" / path.name).read_bytes() == path.read_bytes()
    noted = json.loads((there / "features" / "features.json").read_text())
    assert noted["checkpoint"] == f"{run}/last.ckpt"
    mine, theirs = (
        json.loads((folder / "metrics.json").read_text())
        for folder in (tmp_path / "evaluate", there / "scenes/evaluate-test")
    )
    assert mine == theirs
    assert "pretraining: loss" in (there / "scenes/evaluate-test/report.html").read_text()
    gc.collect()
    assert not list((tmp_path / "private").iterdir())

    # Existing runs are not overwritten, and missing files are reported.
    assert f"{run}/last.ckpt: this run exists" in refused(
        capsys, *["pretrain", "--config", project.config, "--data.shards", project.shards, "--out", run]
    )
    assert f"{scenes}/best.ckpt: this run exists" in refused(
        capsys, "finetune", "--data.features", features, "--out", scenes
    )
    assert "holds features of another dtype" in refused(
        capsys, "extract", f"{run}/last.ckpt", project.shards, features, "--dtype", "float16"
    )
    assert "no such checkpoint" in refused(capsys, "extract", f"{S3}/all/none.ckpt", project.shards, f"{S3}/all/f2")
    assert "features.json: missing" in refused(capsys, "evaluate", f"{scenes}/best.ckpt", f"{S3}/all/none")


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_run_that_got_sigterm_has_uploaded_and_resumes_bit_exactly(
    project: Project, bucket: Path, tmp_path: Path, warm: str
):
    """Told to end in the middle of an epoch and of a step of two micro-batches: the weights of a run without stops."""
    argv = ["pretrain", "--config", project.config, "--data.shards", project.shards, "--training.accumulate", "2"]
    argv += ["--training.steps", "12", "--training.checkpoint_steps", "1000"]
    broken = [*argv, "--out", f"{S3}/ended"]
    command = [warm, "-m", "bassl_fast.cli", *broken]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in running.stdout:
        if line.startswith("step 2/"):
            break
    running.send_signal(signal.SIGTERM)
    said, complaints = running.communicate(timeout=300)
    assert (running.returncode, complaints) == (0, "")
    saved = r"s3://films/ended/last.ckpt: stopped by SIGTERM at step (\d+) of 12 and saved; continue with --resume"
    ended = int(re.search(saved, said.splitlines()[-1])[1])
    assert 2 <= ended < 12
    there, straight = bucket / "ended", tmp_path / "straight"
    assert torch.load(there / "last.ckpt", weights_only=True)["global_step"] == ended
    summary = json.loads((there / "summary.json").read_text())
    assert (summary["ended"], summary["step"], summary["restarts"]) == ("SIGTERM", ended, 0)
    assert cli.main([*broken, "--resume"]) == 0
    assert cli.main([*argv, "--out", str(straight)]) == 0
    mine, theirs = (torch.load(run / "last.ckpt", weights_only=True) for run in (there, straight))
    assert mine["global_step"] == theirs["global_step"] == 12
    for key in ("data", "state_dict", "optimizer_states", "lr_schedulers"):
        same(mine[key], theirs[key], key)
    assert (there / "metrics-000.csv").is_file()
    summary = json.loads((there / "summary.json").read_text())
    found = [summary[key] for key in ("ended", "step", "steps", "restarts")]
    assert found == ["finished", 12, 12 - ended, 1]


def test_of_two_processes_one_writes_and_both_train_as_one(project: Project, bucket: Path, tmp_path: Path, warm: str):
    argv = [*plain(project, tmp_path), "--training.accumulate", "2"]
    done = launch(torchrun(warm), [*argv, "--out", f"{S3}/two"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint: s3://films/two/last.ckpt") == done.stdout.count("checkpoint: ") == 1
    summary = json.loads((bucket / "two" / "summary.json").read_text())
    assert (summary["world_size"], summary["samples"]) == (2, 24)
    assert len(list((bucket / "two" / "tensorboard").glob("events*"))) == 1
    assert cli.main([*argv, "--out", str(tmp_path / "one")]) == 0
    trained_as_one(bucket / "two", tmp_path / "one")


def test_an_upload_waits_for_a_server_that_is_away(bucket: Path, proxy: Proxy, tmp_path: Path):
    run = RunFolder(f"{S3}/away")
    (run.path / "last.ckpt").write_bytes(b"new")
    proxy.faults.extend(["refuse", "busy", "cut", "refuse"])
    run.publish()
    assert proxy.spoilt == 4
    assert (bucket / "away" / "last.ckpt").read_bytes() == b"new"


def test_an_upload_that_fails_is_an_error_and_keeps_the_local_files(bucket: Path, proxy: Proxy, monkeypatch):
    monkeypatch.setattr(remote.attempt, "__defaults__", (0.5,))
    (bucket / "lost").mkdir()
    (bucket / "lost" / "last.ckpt").write_bytes(b"earlier")
    run = RunFolder(f"{S3}/lost")
    (run.path / "last.ckpt").write_bytes(b"new")
    proxy.faults.extend(["busy"] * 100)
    with pytest.raises(
        RemoteError, match=r"s3://films/lost/last.ckpt: given up after 0 s .*; all files of the run are in"
    ):
        run.publish()
    assert (bucket / "lost" / "last.ckpt").read_bytes() == b"earlier"
    kept = run.path
    del run
    assert (kept / "last.ckpt").read_bytes() == b"new"


def test_a_process_killed_in_an_upload_leaves_the_previous_checkpoint(
    bucket: Path, proxy: Proxy, tmp_path: Path, warm: str
):
    """A checkpoint is uploaded in parts; the process is killed during one of them."""
    (bucket / "dies").mkdir()
    (bucket / "dies" / "last.ckpt").write_bytes(b"earlier")
    with open(tmp_path / "last.ckpt", "wb") as file:
        file.truncate(120 << 20)
    code = (
        "import sys; from pathlib import Path; from bassl_fast.runtime.run_folder import RunFolder\n"
        f"run = RunFolder('{S3}/dies'); (run.path / 'last.ckpt').symlink_to(sys.argv[1])\n"
        "print('begins', flush=True); run.publish(); print('ended', flush=True)"
    )
    begun, killed = threading.Event(), threading.Event()
    proxy.spoils = lambda request: b"partNumber" in request[:300] and (begun.set() or killed.wait(240)) and False
    proxy.faults.append("none")  # without a fault `spoils` is not called
    uploading = subprocess.Popen(
        [warm, "-c", code, str(tmp_path / "last.ckpt")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert begun.wait(240)
    uploading.kill()
    assert uploading.communicate()[0] == "begins\n"
    killed.set()
    time.sleep(0.5)  # the part arrives
    assert (bucket / "dies" / "last.ckpt").read_bytes() == b"earlier"
    assert [path.name for path in (bucket / "dies").iterdir()] == ["last.ckpt"]


def test_wrong_keys_and_a_missing_bucket_are_one_line_before_the_work(
    argv: list[str], bucket: Path, monkeypatch, capsys
):
    assert "s3://nowhere/run/config.yaml: no such bucket" in refused(capsys, *argv, "--out", "s3://nowhere/run")
    assert "http://example.org/run: http addresses are read-only" in refused(
        capsys, *argv, "--out", "http://example.org/run"
    )
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "s3://films/run/last.ckpt: no permission; set the keys" in refused(capsys, *argv, "--out", f"{S3}/run")


def test_a_checkpoint_is_fetched_once_and_again_when_it_was_replaced(bucket: Path, project: Project, tmp_path: Path):
    (bucket / "c.ckpt").write_bytes(Path(project.pretrained).read_bytes())
    first = checkpoint.find(f"{S3}/c.ckpt")
    facts = first.stat()
    assert checkpoint.find(f"{S3}/c.ckpt") == first
    assert first.stat().st_ino == facts.st_ino
    (bucket / "c.ckpt").write_bytes(Path(project.finetuned).read_bytes())
    assert checkpoint.load(f"{S3}/c.ckpt", checkpoint.SCENES)["recipe"]["verb"] == "finetune"
    assert not first.exists()
    assert len([path for path in (tmp_path / "cache" / "files").rglob("*") if path.is_file()]) == 1
