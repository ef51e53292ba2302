"""What a run reports: summary, curves, Prometheus."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import yaml

from bassl_fast import cli
from bassl_fast.training import monitor
from shard_tools.counters import count, counted
from tests.bassl_fast.conftest import PRETRAIN, Project
from tests.refused import refused

pytestmark = pytest.mark.slow

LINE = re.compile(r'bassl_fast_[a-z_]+\{run="[^"]+"\} [0-9.e+-]+')


@pytest.fixture
def argv(project: Project, tmp_path: Path) -> list[str]:
    recipe = PRETRAIN | {"encoder": {"class_path": "tests.bassl_fast.plain.Plain"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    argv = ["pretrain", "--config", str(tmp_path / "recipe.yaml"), "--data.shards", project.shards]
    return [*argv, "--training.validate_every", "0", "--out", str(tmp_path / "run")]


def test_a_run_reports_what_it_did(argv: list[str], tmp_path: Path, monkeypatch):
    save = monitor.write_atomically
    written = []
    monkeypatch.setattr(
        monitor, "write_atomically", lambda path, data: (written.append((path, data)), save(path, data))
    )
    count("retries", 5)  # before the run
    assert cli.main([*argv, "--training.steps", "4", "--training.prometheus", str(tmp_path / "run.prom")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["ended"], summary["step"], summary["steps"], summary["samples"]) == ("finished", 4, 4, 32)
    assert summary["samples_per_second"] == pytest.approx(32 / summary["seconds"])
    assert 0 <= summary["data_wait"] <= 1
    assert 50 << 20 < summary["host_bytes"] < 64 << 30
    assert (summary["retries"], summary["replaced_pictures"], summary["restarts"], summary["world_size"]) == (
        0,
        0,
        0,
        1,
    )
    assert {"python", "torch", "dali", "numpy"} <= summary["versions"].keys()
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        steps = [row["watch/step"] for row in csv.DictReader(file) if row["watch/step"]]
    assert steps == ["1", "2", "3", "4"]
    shown = (tmp_path / "run.prom").read_text()
    assert "# TYPE bassl_fast_samples_total counter" in shown
    assert f'bassl_fast_samples_total{{run="{tmp_path / "run"}"}} 32.0\n' in shown
    assert all(line.startswith("#") or LINE.fullmatch(line) for line in shown.splitlines())
    assert [path.suffix for path, _ in written] == [".prom"] * 5 + [".json"]


def test_broken_pictures_are_counted(project: Project, argv: list[str], tmp_path: Path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in Path(project.shards).iterdir():
        if path.is_file():
            data = bytearray(path.read_bytes())
            if path.suffix == ".tar":
                data[1000] ^= 1  # in the first key-frame
            (broken / path.name).write_bytes(data)
    options = ["--data.shards", str(broken), "--data.max_broken", "1", "--training.steps", "8"]
    before = counted()["replaced_pictures"]
    assert cli.main([*argv, *options]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["replaced_pictures"] == counted()["replaced_pictures"] - before > 0


@pytest.mark.parametrize("name", ["run.txt", "none/run.prom"])
def test_a_file_the_collector_would_not_read(argv: list[str], tmp_path: Path, capsys, name: str):
    line = refused(capsys, *argv, "--training.prometheus", str(tmp_path / name))
    assert "give a .prom file in an existing folder" in line


def test_metrics_keep_their_names_and_quote_their_label():
    text = monitor.exposition(dict.fromkeys(monitor._SHOWN, 1), 'a"b\\c').decode()
    assert 'bassl_fast_step_total{run="a\\"b\\\\c"} 1.0\n' in text
    assert re.findall(r"^# TYPE (\S+ \S+)$", text, re.MULTILINE) == [
        *("bassl_fast_step_total counter", "bassl_fast_samples_total counter"),
        *("bassl_fast_samples_per_second gauge", "bassl_fast_data_wait gauge"),
        *("bassl_fast_gpu_bytes gauge", "bassl_fast_host_bytes gauge"),
        *("bassl_fast_cache_hits_total counter", "bassl_fast_cache_misses_total counter"),
        *("bassl_fast_cache_bytes_total counter", "bassl_fast_replaced_pictures_total counter"),
        *("bassl_fast_retries_total counter", "bassl_fast_restarts_total counter"),
    ]
