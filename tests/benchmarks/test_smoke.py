"""Every benchmark runs at tiny sizes and has a `--help`.

`benchmarks.loader` and `benchmarks.learning` have their own tests, `benchmarks.failures` those of
`tests/bassl_fast/training/test_failures.py`.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from benchmarks import gpu
from shard_tools.packing.pack import pack
from tests.bassl_fast.conftest import PRETRAIN
from tests.films import write_film
from tests.videos import draw_video

pytestmark = pytest.mark.slow

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SCRIPTS = (
    *(
        "boundary",
        "corrections",
        "cost",
        "costs",
        "exits",
        "extract",
        "failures",
        "finetune",
        "gpu",
        "heads",
        "joined",
        "knn",
        "large",
        "learning",
        "loader",
        "metrics",
        "no_pixels",
        "pack",
        "plan",
    ),
    *("page", "plots", "quality", "real_films", "scale", "scenes", "shots", "step"),
)

Run = Callable[..., None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a benchmark in this process, and afterwards restores what it sets."""
    threads, environment = torch.get_num_threads(), dict(os.environ)

    def main(name: str, *argv: object) -> None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, argv)])
        import_module(f"benchmarks.{name}").main()

    yield main
    torch.set_num_threads(threads)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    for film in range(2):
        write_film(root / "films", f"tt{film}", shots=20, size=(96, 64), seed=film)
    pack(root / "films", root / "shards")
    return root / "shards"


def read(path: Path, name: str) -> dict:
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["benchmark"] == name
    assert {"settings", "machine"} <= report.keys()
    return report


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name: str, run: Run, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit, match="0"):
        run(name, "--help")
    assert "usage:" in capsys.readouterr().out


@pytest.mark.skipif(find_spec("tslearn") is None, reason="needs tslearn (the extra bench), the peer of this benchmark")
def test_boundary(run: Run, tmp_path: Path):
    run("boundary", "--batch", 4, "--rounds", 1, "--repeats", 1, "--out", tmp_path / "out.json")
    assert set(read(tmp_path / "out.json", "boundary")["equal"].values()) == {1.0}


def test_costs_of_the_committed_results(run: Run, tmp_path: Path):
    run("costs", RESULTS, "--out", tmp_path / "costs.json")
    costs = json.loads((tmp_path / "costs.json").read_text())
    assert {"views cpu-core", "key-frame", "read disk", "process", "pack", "fetch s3"} <= costs.keys()
    assert {"value", "unit", "machine", "date", "command"} == costs["pack"].keys()


def test_exits(run: Run, tmp_path: Path, warm: str, monkeypatch: pytest.MonkeyPatch):
    """Only torchrun is forked: its processes end as those of a user, whole."""
    monkeypatch.setenv("PYTHON_EXEC", sys.executable)  # by which torchrun starts them
    monkeypatch.setattr(sys, "executable", warm)
    with pytest.raises(SystemExit) as ended:
        run("exits", "--starts", 2, "--load", 0, "--out", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["ended"] == {"clean": 2}
    assert not ended.value.code


def test_extract(run: Run, tmp_path: Path):
    sizes = ["--model", "tiny", "--patch", 16, "--size", 32, "--films", 1, "--shots", 4, "--batch", 6, "--rounds", 1]
    run("extract", *sizes, "--out", tmp_path / "out.json")
    assert set(read(tmp_path / "out.json", "extract")["ratios"]) == {"transformers", "compute"}


def test_finetune(run: Run, tmp_path: Path):
    sizes = ["--films", 2, "--shots", 40, "--dim", 16, "--batch", 16, "--step-batch", 8]
    peer = ["--peer-films", 1, "--peer-batches", 2, "--workers", 1]
    run("finetune", *sizes, *peer, "--rounds", 1, "--out", tmp_path / "out.json")
    assert set(read(tmp_path / "out.json", "finetune")["ratios"]) == {"float32", "float16", "peer"}


def test_gpu_on_a_cpu(run: Run, shards: Path, tmp_path: Path):
    sizes = ["--windows", 2, "--size", 32, "--depth", 18, "--threads", 1, "--prefetch", 1, 2, "--methods", "instance"]
    steps = ["--steps", 2, "--warm_up", 1]
    run("gpu", "--device", "cpu", "--shards", shards, *sizes, *steps, "--out", tmp_path / "out.json")
    report = read(tmp_path / "out.json", "gpu")
    assert [(row["decoder"], row["prefetch"]) for row in report["loader"]] == [("cpu", 1), ("cpu", 2)]
    resident, loaded = report["training"]
    assert resident["views"] == "resident"
    assert loaded["of_resident"] == loaded["views_per_s"] / resident["views_per_s"] > 0
    assert not report["left_out"]
    run("gpu", "--device", "cpu", "--shards", shards, *sizes, "--minutes", 0, "--out", tmp_path / "out.json")
    assert len(read(tmp_path / "out.json", "gpu")["left_out"]) == 4


def test_rows_of_a_gpu(tmp_path: Path):
    args = Namespace(device="cuda", methods=["bassl"], prefetch=[2, 3])
    tables = [(table, *named.values()) for table, named, _ in gpu.rows(tmp_path, args)]
    assert len(tables) == len(set(tables)) == 1 + 4 + 5 * 2 + 4
    assert {("training", "bassl", "triton"), ("loader", "cuda", True, 3), ("agreement", "cuda", True)} < set(tables)


def test_costs_of_a_gpu(run: Run, tmp_path: Path):
    report = {
        "machine": {"gpu": "NVIDIA H200", "cpu": "x", "cores": 16, "date": "2026-01-01T00:00"},
        "settings": {"depth": 50},
    }
    dali, triton = {"decoder": "cuda", "triton": False}, {"decoder": "cuda", "triton": True}
    rows = [dali | {"views_per_s": 10.0}, dali | {"error": "x"}, dali | {"views_per_s": 20.0}]
    rows += [triton | {"views_per_s": 30.0}, {"decoder": "cpu", "triton": False, "views_per_s": 40.0}]
    report |= {"loader": rows}
    report |= {"training": [{"method": "bassl", "views": "resident", "views_per_s": 4.0}]}
    (tmp_path / "gpu.json").write_text(json.dumps(report))
    run("costs", tmp_path, "--out", tmp_path / "costs.json")
    costs = json.loads((tmp_path / "costs.json").read_text())
    assert (costs["views h200"]["value"], costs["train resnet50 h200"]["value"]) == (20.0, 0.25)
    assert costs["triton-views h200"]["value"] == 30.0


def test_knn(run: Run, tmp_path: Path):
    run("knn", "--shots", 60, "--films", 1, "--dim", 8, "--rounds", 1, "--out", tmp_path / "out.json")
    assert read(tmp_path / "out.json", "knn")["ratio"]["median"] > 0


def test_metrics(run: Run, tmp_path: Path):
    sizes = ["--films", 3, "--shots", 60, "--dim", 8, "--peer-films", 2]
    run("metrics", *sizes, "--rounds", 1, "--out", tmp_path / "out.json")
    assert "kNN precision" in read(tmp_path / "out.json", "metrics")["seconds"]


def test_pack(run: Run, tmp_path: Path):
    sizes = ["--films", 1, "--copies", 1, "--workers", 1, "--pictures", 30, "--shots", 20_000]
    run("pack", *sizes, "--indexed-pictures", 5000, "--rounds", 1, "--out", tmp_path / "out.json")
    report = read(tmp_path / "out.json", "pack")
    assert all(report[name]["ratios"] for name in ("pack folder", "pack zip", "pack pictures", "verify", "S3, cold"))
    assert all(found["seconds"] > 0 for found in report["index"].values())


def test_large(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("benchmarks.large.SHOTS", 4)
    monkeypatch.setattr("benchmarks.large.DISTINCT", 5)
    run("large", "--gb", 1e-6, "--scratch", tmp_path, "--out", tmp_path / "out.json")
    report = read(tmp_path / "out.json", "large")
    assert report["films"] == 1  # so the first pack is killed at once
    assert report["verify"]["MiB, peak"] > 10
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_page(run: Run, tmp_path: Path):
    run("page", "--shots", 10, "--rounds", 1, "--out", tmp_path / "out.json")
    assert {"open", "edit", "write"} < read(tmp_path / "out.json", "page")["seconds"].keys()


def test_plan(run: Run, tmp_path: Path):
    sizes = ["--films", 60, "--shots", 20, "--gpus", 4, "--gpus-per-node", 2, "--global-batch", 16, "--pools", 8]
    run("plan", *sizes, "--out", tmp_path / "out.json")
    (found,) = read(tmp_path / "out.json", "plan")["results"]
    assert found["every_sample_once"]


@pytest.mark.parametrize("name", ["loader", "quality", "scale"])
def test_plots_of_the_committed_results(name: str, run: Run, tmp_path: Path):
    for path in (tmp_path / "a.svg", tmp_path / "b.svg"):
        run("plots", RESULTS / f"{name}.json", path)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    texts = "".join(ElementTree.parse(tmp_path / "a.svg").getroot().itertext())
    assert {"loader": "2236, 8.8 x", "quality": "bassl+shotcol, new network", "scale": "open s: 0.013"}[name] in texts


def test_quality(run: Run, tmp_path: Path):
    sizes = ["--draws", 11, "--films", 3, "--shots", 24, "--steps", 1, "--seeds", 0, "--epochs", 1]
    out = ["--out", tmp_path / "out.json", "--plot", tmp_path / "plot.svg"]
    run("quality", *sizes, "--methods", "shotcol", *out)
    assert read(tmp_path / "out.json", "quality")["ap"].keys() == {"chance", "untrained", "shotcol"}
    assert "shotcol" in (tmp_path / "plot.svg").read_text()


def test_cost(run: Run, tmp_path: Path):
    sizes = ["--draws", 11, "--films", 3, "--shots", 24, "--steps", 2, "--seeds", 0, "--epochs", 1]
    out = ["--out", tmp_path / "out.json", "--plot", tmp_path / "plot.svg"]
    run("cost", *sizes, "--recipes", "w8b8a24g32", *out)
    (found,) = read(tmp_path / "out.json", "cost")["recipes"]["w8b8a24g32"]
    assert found["passes"] == 2 * 40 * (1 - 0.5 * 0.75)
    assert all(0 < found[head] <= 100 for head in ("default", "pretrained", "new"))
    assert "w8b8a24g32" in (tmp_path / "plot.svg").read_text()


def test_scale(run: Run, tmp_path: Path, warm: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", warm)
    sizes = ["--films", 2, "--shots", 40, "--steps", 1, "--threads", 1, "--windows", 8]
    out = ["--out", tmp_path / "out.json", "--plot", tmp_path / "plot.svg"]
    run("scale", *sizes, "--rounds", 1, *out)
    report = read(tmp_path / "out.json", "scale")
    assert {"films", "order", "pools", "cold", "python"} <= report.keys()
    assert all(parts["inputs"] >= 0 for parts in report["python"].values())
    assert "windows per s" in (tmp_path / "plot.svg").read_text()


def test_scenes(run: Run, tmp_path: Path, warm: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", warm)
    monkeypatch.setattr("benchmarks.scenes.PRETRAIN", PRETRAIN | {"training": {"steps": 0}})
    clip = draw_video(tmp_path / "clip.mp4", [36, 48, 60])
    run("scenes", "--clip", clip, "--hours", 0.008, "--short", 6, "--depth", 18, "--out", tmp_path / "out.json")
    assert read(tmp_path / "out.json", "scenes")["shots"] > 10


def test_shots(run: Run, tmp_path: Path):
    for name, frames in (("sintel_sunset.mp4", 620), ("big_buck_bunny_30s.mp4", 720)):
        draw_video(tmp_path / name, [frames // 4] * 4, size=(848, 360))
    sizes = ["--films", tmp_path, "--shots", 2, "--seeds", 1, "--kinds", "cut", "--detectors", "adaptive"]
    run("shots", *sizes, "--out", tmp_path / "out.json")
    found = read(tmp_path / "out.json", "shots")["rows"]["adaptive"]["cut"]
    assert found["right"] + found["missed"] == 1


def test_step(run: Run, shards: Path, tmp_path: Path):
    sizes = ["--depth", 18, "--width", 8, "--size", 32, "--batch", 2, "--steps", 1, "--warm-up", 0, "--threads", 1]
    run("step", *sizes, "--shards", shards, "--switches", "plain", "--out", tmp_path / "out.json")
    assert read(tmp_path / "out.json", "step")["milliseconds"]["bassl"]["encoder"] > 0


def write_real_films(folder: Path) -> None:
    """Two sets, in which a film lacks a kind."""
    folder.mkdir()
    for seed, name in enumerate(["one01", "one02", "two1", "two2", "two3", "two4", "two5"]):
        rng = np.random.default_rng(seed)
        scene = np.repeat(np.arange(8), rng.integers(3, 7, 8))
        last = np.cumsum(rng.integers(10, 100, len(scene))) - 1
        kinds = {
            "hue": rng.dirichlet(np.full(256, 0.1), 8)[scene] * 0.8
            + rng.dirichlet(np.full(256, 0.1), len(scene)) * 0.2,
            "vgg19": rng.normal(size=(8, 16))[scene] + rng.normal(size=(len(scene), 16)),
        }
        if name == "two3":
            del kinds["vgg19"]
        shots = np.stack([np.append(0, last[:-1] + 1), last], 1).astype(np.int32)
        boundary = np.append(np.diff(scene), 0).astype(np.int8)
        half = {kind: x.astype(np.float16) for kind, x in kinds.items()}
        np.savez(folder / f"{name}.npz", shots=shots, boundary=boundary, **half)


def test_corrections(run: Run, tmp_path: Path):
    write_real_films(tmp_path / "films")
    sizes = ["--corrected", 1, 3, "--draws", 2]
    run("corrections", "--films", tmp_path / "films", *sizes, "--out", tmp_path / "out.json")
    rows = read(tmp_path / "out.json", "corrections")["rows"]
    assert [(row["set"], row["corrected"]) for row in rows[::2]] == [("one", 1), ("two", 1), ("two", 3)]
    assert all(row["rises"] + row["falls"] + row["stays"] == pytest.approx(100) for row in rows)
    assert rows[0]["gain"] == 0  # a single film sets the threshold only


def write_labels(path: Path) -> None:
    """Films whose scenes end in a pause and begin with a long shot; one without speech, one whose lines run late."""
    arrays = {}
    for film in range(8):
        rng = np.random.default_rng(film)
        scene = np.repeat(np.arange(30), rng.integers(3, 7, 30))
        last = np.append(np.diff(scene), 1)
        frames = rng.integers(40, 90, len(scene)) * np.where(np.append(1, last[:-1]), 2, 1)
        end = np.cumsum(frames)
        lines = np.stack([end - frames + 4, end], 1)[last == 0] / 23.976 + 3 * (film == 1)
        found = {"shots": np.stack([end - frames, end - 1], 1), "raw_label": last[:-1], "speech": lines}
        found |= {"speech": lines[:0]} if film == 2 else {}
        found["split"] = np.array(["train"] * 4 + ["val"] * 2 + ["test"] * 2)[film]
        arrays |= {f"tt{film}/{name}": array for name, array in found.items()}
    np.savez(path, **arrays)


def test_no_pixels(run: Run, tmp_path: Path):
    write_labels(tmp_path / "labels.npz")
    where = ["--labels", tmp_path / "labels.npz", "--test", tmp_path / "labels.npz"]
    run("no_pixels", *where, "--seeds", 1, "--epochs", 1, "--out", tmp_path / "out.json")
    report = read(tmp_path / "out.json", "no_pixels")
    assert report["settings"]["films"] == {"train": 4, "val": 2, "test": 2}
    best = {row["kinds"][0]: row for row in report["rows"] if row["model"] == "linear"}
    assert all(row["test_ap"] > 2 * row["test_chance"] for row in best.values())


def test_heads(run: Run, tmp_path: Path):
    write_labels(tmp_path / "labels.npz")
    write_real_films(tmp_path / "films")
    where = ["--labels", tmp_path / "labels.npz", "--films", tmp_path / "films"]
    run("heads", *where, "--seeds", 1, "--epochs", 1, "--out", tmp_path / "out.json")
    rows = {(row["set"], row["model"]): row for row in read(tmp_path / "out.json", "heads")["rows"]}
    assert {group for group, _ in rows} == {
        "val",
        "test",
        *(f"{g}, {k}" for g in ("one", "two") for k in ("hue", "hue + vgg19")),
    }
    networks = [row for (_, model), row in rows.items() if model in ("film head", "attention", "state space")]
    assert len(networks) == 18
    assert all(row["mean_ap"] > 50 for row in networks)


def test_joined(run: Run, tmp_path: Path):
    (tmp_path / "clips").mkdir()
    for number in range(3):
        draw_video(tmp_path / "clips" / f"{number}.mp4", [30 + number, 40, 30])
    run("joined", "--films", tmp_path / "clips", "--orders", 3, "--out", tmp_path / "out.json")
    report = read(tmp_path / "out.json", "joined")
    assert {row["joined"] for row in report["rows"]} == {"clips", "short clips", "pieces"}
    assert all(0 < row["ap"] <= 100 for row in report["rows"])


def test_real_films(run: Run, tmp_path: Path):
    """Fitted, scored across sets, and by the weights of the package."""
    write_real_films(tmp_path / "films")
    where = ["--films", tmp_path / "films", "--out", tmp_path / "out.json"]
    run("real_films", *where, "--seeds", "2", "--epochs", "1", "--plot", tmp_path / "plot.svg")
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {row["model"] for row in rows} > {"chance", "neighbours", "colour change", "sequential grouping"}
    ours = {(r["set"], "+".join(r["kinds"])): r for r in rows if r["model"] == "similarity"}
    chance = {row["set"]: row["mean_ap"] for row in rows if row["model"] == "chance"}
    assert all(row["mean_ap"] > 1.5 * chance[row["set"]] for row in ours.values())
    assert [ours["two", kinds]["films"] for kinds in ("hue", "vgg19", "hue+vgg19")] == [5, 4, 5]
    assert ours["two", "hue+vgg19"]["films_with_all_kinds"] == 4
    ElementTree.parse(tmp_path / "plot.svg")
    run("real_films", *where[:2], "--fit", tmp_path / "weights.safetensors")
    for weights in ("shipped", tmp_path / "weights.safetensors"):
        run("real_films", *where, "--weights", weights)
        rows = json.loads((tmp_path / "out.json").read_text())["rows"]
        assert [row["kinds"] for row in rows if row["set"] == "one"] == [["hue"], ["vgg19"], ["hue", "vgg19"]]
        assert all(0 < row["f1"] <= 100 and 0.3 < row["scene_ratio"] < 3 for row in rows)
