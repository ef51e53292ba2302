from __future__ import annotations

import json

import pytest

from bassl_fast import cli
from bassl_fast.cli.plan import film_lengths, plan
from bassl_fast.cli.unit_costs import COSTS

MEASURED = {"machine": "a machine", "date": "2026-11-25", "command": "python -m benchmarks.x"}


@pytest.fixture
def costs(tmp_path):
    """A file of round numbers."""
    values = {
        "key-frame": (10_000, "bytes"), "views h200": (50_000, "views/s"), "train resnet50 h200": (1e-3, "s/view"),
        "views cpu-core": (2000, "views/s"), "train resnet50 cpu-core": (0.2, "s/view"),
        "read disk": (100_000, "key-frames/s"), "fetch s3": (1e9, "bytes/s"), "pack": (1e9, "bytes/s"),
        "process": (1e9, "bytes"),
    }  # fmt: skip
    known = {name: {"value": value, "unit": unit, **MEASURED} for name, (value, unit) in values.items()}
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(known))
    return path


def test_a_plan_is_counts_times_costs(costs, capsys):
    found = plan(films=100, shots=1024, gpus=8, global_batch=256, epochs=2, price=3.0, costs=str(costs))
    assert found["steps"] == 400
    assert found["bytes"] == 100 * 1024 * 3 * 10_000
    views = 400 * 32 * 19
    assert found["seconds"]["training"] == pytest.approx(views * 1e-3)
    assert found["seconds"]["views"] == pytest.approx(views / 50_000)
    assert found["seconds"]["reading"] == pytest.approx(8 * views / 100_000)
    assert (found["limit"], found["unknown"]) == ("training", [])
    assert found["cost"] == pytest.approx(2 * views * 1e-3 / 3600 * 8 * 3)
    said = capsys.readouterr().out
    assert "train resnet50 h200: 0.001 s/view (a machine, 2026-11-25, python -m benchmarks.x)" in said
    assert "unknown" not in said


def test_the_size_of_key_frames_counts_for_disk_network_and_reading(costs):
    given = {"films": 100, "shots": 1024, "source": "s3", "cache_gib": 1, "pool": 4, "costs": str(costs)}
    measured, larger = plan(**given), plan(**given, keyframe_kb=33)
    assert larger["bytes"] == 100 * 1024 * 3 * 33_000
    for resource in ("reading", "network"):
        assert larger["seconds"][resource] == pytest.approx(3.3 * measured["seconds"][resource])
    assert larger["seconds"]["training"] == measured["seconds"]["training"]


def test_a_gpu_that_nobody_measured_is_not_guessed(capsys):
    assert cli.main(["plan", "--gpu", "h200", "--price", "4"]) == 0
    said = capsys.readouterr().out
    assert "training  unknown: measure it with `python -m benchmarks.gpu`" in said
    assert "views     unknown: measure it with `python -m benchmarks.gpu`" in said
    assert "; unknown: training, views" in said
    assert "cost      at least" in said


def test_without_a_gpu_its_cores_do_all(costs, capsys):
    found = plan(films=10, shots=512, gpus=2, gpu="cpu", cores=4, costs=str(costs))
    assert found["seconds"]["views"] == pytest.approx(20 * 128 * 19 / (4 * 2000))
    assert found["seconds"]["training"] == pytest.approx(20 * 128 * 19 * 0.2 / 4)
    assert f"memory    {2 * (1e9 + 3 * 128 * 19 * 3 * 224**2 * 2) / 1e9:.3g} GB per machine" in capsys.readouterr().out


def test_cores_may_make_the_views_of_a_gpu(costs, capsys):
    found = plan(films=10, shots=512, gpus=2, cores=16, views_on="cpu", costs=str(costs))
    assert found["seconds"]["views"] == pytest.approx(20 * 128 * 19 / (16 * 2000))
    assert found["seconds"]["training"] == pytest.approx(20 * 128 * 19 * 1e-3)
    assert "made by 16 cores of each process" in capsys.readouterr().out
    assert plan(films=10, shots=512, gpus=2, views_on="triton", costs=str(costs))["unknown"] == ["views"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--seed", "-1"), "seed -1: must be within"),
        (("--films", "1", "--shots", "9"), "9 samples"),
        (("--keyframe_kb", "0"), "keyframe_kb 0: must be positive"),
    ],
)
def test_what_no_run_would_take_is_refused(option, said, capsys):
    assert cli.main(["plan", *option, "--simulate"]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pool", "gib", "share"),
    [(None, 1e3, 0.0), (10, 2.0, 1.0), (None, 1.0, None)],
)
def test_what_is_fetched(pool, gib, share, costs):
    found = plan(films=100, shots=1024, gpus=8, source="s3", pool=pool, cache_gib=gib, costs=str(costs))
    if share is None:  # any film may be next
        assert found["fetched"] > 100 * found["bytes"]
    else:
        assert found["fetched"] == share * found["bytes"]


def test_a_plan_is_simulated(costs, capsys):
    argv = ["plan", "--films", "40", "--shots", "50", "--gpus", "16", "--global-batch", "64", "--pool", "5"]
    assert cli.main([*argv, "--source", "s3", "--cache-gib", "0.02", "--costs", str(costs), "--simulate"]) == 0
    said = capsys.readouterr().out
    assert "simulated 2,000 windows for 16 processes, 4 per step each, every one once, 48 again" in said


def test_lengths_of_films_add_up():
    for films, shots in ((1, 1), (7, 1), (100, 30)):
        lengths = film_lengths(films, shots, seed=3)
        assert len(lengths) == films
        assert lengths.sum() == films * shots
        assert lengths.min() >= 1


def test_the_costs_that_come_with_it_say_where_they_are_from():
    for cost in json.loads(COSTS.read_text()).values():
        assert cost["value"] > 0
        assert cost["machine"]
        assert cost["date"]
        assert cost["command"].startswith("python -m benchmarks.")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--films", "0"], "films 0: must be at least 1"),
        (["--gpus", "12"], "gpus 12: do not divide among machines of 8"),
        (["--gpus", "6", "--global-batch", "256"], "global_batch 256 does not divide among 6 processes"),
        (["--gpu", "h2000"], "gpu 'h2000': unknown; choose one of v100,"),
        (["--cache-gib", "0"], "cache_gib must be positive"),
        (["--costs", "none.json"], "none.json: No such file or directory; make it with `python -m benchmarks.costs`"),
        (["--costs", "list.json"], "list.json: not a file of costs"),
        (["--costs", "zero.json"], "zero.json: not a file of costs (a: 0 is not a cost)"),
        (["--costs", "deep.json"], "deep.json: not a file of costs (nested too deep)"),
    ],
)
def test_mistakes_are_one_line(argv, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "zero.json").write_text(json.dumps({"a": {"value": 0, "unit": "s", **MEASURED}}))
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert cli.main(["plan", *argv]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
