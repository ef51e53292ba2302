"""Features: by one process or several, in our layout and the reference's, and their provenance."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from bassl_fast import cli
from bassl_fast.segmentation.encoding import _share
from bassl_fast.segmentation.features import FeatureSet
from shard_tools.shards.index import ShardIndex
from tests.bassl_fast.conftest import Project
from tests.refused import refused

pytestmark = pytest.mark.slow


def arrays(root: str | Path) -> dict[str, np.ndarray]:
    return {film.name: film.features for film in FeatureSet.open(root).films(None)}


def test_two_processes_write_what_one_does(project: Project, tmp_path: Path, warm: str):
    out = tmp_path / "features"
    torchrun = [warm, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    argv = ["-m", "bassl_fast.cli", "extract", project.pretrained, project.shards, str(out)]
    done = subprocess.run(
        [*torchrun, *argv], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("features: ") == 1
    ours, theirs = arrays(out), arrays(project.features)
    assert list(ours) == list(theirs)
    for name, features in theirs.items():
        np.testing.assert_allclose(ours[name], features, rtol=1e-4, atol=1e-5)
    for name in ("sequences.npy", "shots.npy", "features.json"):
        assert (out / name).read_bytes() == (Path(project.features) / name).read_bytes()
    assert not list(out.glob("*.part"))


def test_films_are_dealt_out_evenly():
    shots = np.random.default_rng(0).integers(1, 3000, 101)
    shares = [_share(shots, rank, 4) for rank in range(4)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(101))
    totals = [shots[share].sum() for share in shares]
    assert max(totals) - min(totals) <= 3000


def test_what_the_time_went_into_is_said(project: Project, tmp_path: Path, capsys):
    assert cli.main(["extract", project.pretrained, project.shards, str(tmp_path / "f"), "--dtype", "float16"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "key-frames/s" in line)
    shares = [int(part.split()[-2]) for part in line.split(", ")]
    assert "encoder" in line
    assert "waiting for images" in line
    assert 98 <= sum(shares) <= 102
    half, whole = arrays(tmp_path / "f"), arrays(project.features)
    for name, features in half.items():
        assert isinstance(features, np.memmap)
        assert features.dtype == np.float16
        np.testing.assert_array_equal(features, whole[name].astype(np.float16))


def test_the_reference_layout_and_back(project: Project, tmp_path: Path, capsys):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    argv = ["extract", project.pretrained, project.shards, str(theirs), "--layout", "reference"]
    assert cli.main(argv) == 0
    index = ShardIndex.open(project.shards)
    assert sorted(path.name for path in theirs.iterdir()) == sorted([*index.films, "features.json"])
    feature = np.load(theirs / "tt9000001" / "shot_0003.npy")
    assert feature.dtype == np.float32
    np.testing.assert_array_equal(feature, arrays(project.features)["tt9000001"][3])

    # A stopped run resumes: finished files stay, missing ones are made.
    kept = theirs / "tt9000000" / "shot_0000.npy"
    shutil.rmtree(theirs / "tt9000001")
    before = kept.stat().st_mtime_ns
    assert cli.main(argv) == 0
    np.testing.assert_array_equal(np.load(theirs / "tt9000001" / "shot_0003.npy"), feature)
    assert kept.stat().st_mtime_ns == before

    said = refused(capsys, "finetune", "--data.features", theirs, "--out", tmp_path / "s")
    assert "in the reference's layout; convert it with `bassl-fast import-features`" in said
    assert cli.main(["import-features", str(theirs), project.films, str(ours)]) == 0
    imported, extracted = FeatureSet.open(ours), FeatureSet.open(project.features)
    assert imported.provenance == extracted.provenance
    assert np.array_equal(imported.shots, extracted.shots)
    assert (
        imported.sequences[["name", "split", "shots"]].tolist()
        == extracted.sequences[["name", "split", "shots"]].tolist()
    )
    for name, features in arrays(project.features).items():
        np.testing.assert_array_equal(arrays(ours)[name], features)
    (theirs / "features.json").rename(theirs / "features.json.part")
    assert "these features are unfinished" in refused(capsys, "import-features", theirs, project.films, tmp_path / "o")


def made_elsewhere(project: Project, root: Path) -> Path:
    """Features as the reference's own code leaves them: files without provenance."""
    for film, features in arrays(project.features).items():
        (root / film).mkdir(parents=True)
        for shot, feature in enumerate(features):
            np.save(root / film / f"shot_{shot:04d}.npy", feature)
    return root


def test_features_made_elsewhere_are_fine_tuned_on(project: Project, tmp_path: Path, capsys):
    theirs = made_elsewhere(project, tmp_path / "theirs")
    tune = ["--epochs", "1", "--data.batch", "8"]

    ours = tmp_path / "ours"
    assert cli.main(["import-features", str(theirs), project.films, str(ours)]) == 0
    argv = ["finetune", "--data.features", ours, "--pretrained", project.pretrained, "--out", tmp_path / "s", *tune]
    assert f"import them again with --checkpoint {project.pretrained}" in refused(capsys, *argv)

    shutil.rmtree(ours)
    assert cli.main(["import-features", str(theirs), project.films, str(ours), "--checkpoint", project.pretrained]) == 0
    assert cli.main([str(word) for word in argv]) == 0
    assert cli.main(["evaluate", str(tmp_path / "s" / "best.ckpt"), str(ours)]) == 0
    assert "report without thumbnails: the features were imported" in capsys.readouterr().out

    argv = ["import-features", str(theirs), project.films, str(tmp_path / "named"), "--checkpoint"]
    assert cli.main([*argv, "efficientnet-lite0"]) == 0
    assert FeatureSet.open(tmp_path / "named").provenance["checkpoint"] == "efficientnet-lite0"


def test_features_that_cannot_be_imported(project: Project, tmp_path: Path, capsys):
    theirs = made_elsewhere(project, tmp_path / "theirs")
    argv = ["import-features", theirs, project.films, tmp_path / "ours"]
    spoilt = theirs / "tt9000001" / "shot_0004.npy"
    whole = spoilt.read_bytes()
    for data, said in (
        (whole[:-10], "cannot be read"),
        (whole[:20], "cannot be read"),
        (b"", "cannot be read"),
    ):
        spoilt.write_bytes(data)
        message = refused(capsys, *argv)
        assert said in message
        assert "shot_0004.npy" in message
    for feature, said in (
        (np.zeros((2, 64), np.float32), "is not one finite feature"),
        (np.full(64, np.nan, np.float32), "is not one finite feature"),
        (np.zeros(64, np.int64), "is not one finite feature"),
        (np.zeros(65, np.float32), "different sizes in one film"),
    ):
        np.save(spoilt, feature)
        assert said in refused(capsys, *argv)
    assert not (tmp_path / "ours" / "features.json").exists()
    (tmp_path / "ours" / "features.json.part").unlink()
    assert "not empty" in refused(capsys, *argv)
    assert "no: no such folder; give the folder of <film>/shot_0000.npy" in refused(
        capsys, "import-features", tmp_path / "no", project.films, tmp_path / "o"
    )
    assert "give the MovieNet folder" in refused(capsys, "import-features", theirs, tmp_path, tmp_path / "o")


def test_features_that_are_not_finite_are_not_written(project: Project, tmp_path: Path, capsys):
    state = torch.load(project.pretrained, weights_only=True)
    state["state_dict"]["encoder.layer4.1.bn2.bias"] += 1e5
    torch.save(state, tmp_path / "large.ckpt")
    argv = ["extract", tmp_path / "large.ckpt", project.shards, tmp_path / "f"]
    said = refused(capsys, *argv, "--dtype", "float16")
    assert "tt9000000: a feature is not finite in float16; extract with --dtype float32" in said
    assert not list((tmp_path / "f").glob("*.npy"))
    assert "holds features of another dtype" in refused(capsys, *argv)
    assert "the reference reads float32" in refused(capsys, *argv, "--dtype", "float16", "--layout", "reference")


def test_an_array_of_another_kind_is_named(project: Project, tmp_path: Path, capsys):
    shutil.copytree(project.features, tmp_path / "f")
    array = np.load(tmp_path / "f" / "tt9000000.npy")
    for spoilt in (array[:-1], array[:, :8], array.astype(np.float64)):
        np.save(tmp_path / "f" / "tt9000000.npy", spoilt)
        said = refused(capsys, "finetune", "--data.features", tmp_path / "f", "--out", tmp_path / "s")
        assert "tt9000000.npy: " in said
        assert "expected float32 [20, 64]; extract again" in said
    assert json.loads((tmp_path / "f" / "features.json").read_text())["transform"]["size"] == 32
