"""Features: by one process or several, in our layout and the reference's, and their provenance."""

from __future__ import annotations

import hashlib
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
from tests.servers import BUCKET, s3_server, use_s3

pytestmark = pytest.mark.slow


def arrays(root: str | Path) -> dict[str, np.ndarray]:
    return {film.name: film.features for film in FeatureSet.open(root).films(None)}


def checksums(root: str | Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path(root).glob("*.npy"))}


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
    for name in ("sequences.npy", "shots.npy"):
        assert (out / name).read_bytes() == (Path(project.features) / name).read_bytes()
    assert FeatureSet.open(out).provenance == FeatureSet.open(project.features).provenance
    assert FeatureSet.open(out).checksums == checksums(out)
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
    assert "give the folder of MovieNet" in refused(capsys, "import-features", theirs, tmp_path, tmp_path / "o")


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


def without_checksums(folder: Path) -> None:
    """As earlier versions wrote it."""
    noted = json.loads((folder / "features.json").read_text())
    del noted["sha256"]
    (folder / "features.json").write_text(json.dumps(noted, indent=1) + "\n")


def test_an_array_of_another_kind_is_named(project: Project, tmp_path: Path, capsys):
    shutil.copytree(project.features, tmp_path / "f")
    without_checksums(tmp_path / "f")
    array = np.load(tmp_path / "f" / "tt9000000.npy")
    for spoilt in (array[:-1], array[:, :8], array.astype(np.float64)):
        np.save(tmp_path / "f" / "tt9000000.npy", spoilt)
        said = refused(capsys, "finetune", "--data.features", tmp_path / "f", "--out", tmp_path / "s")
        assert "tt9000000.npy: " in said
        assert "expected float32 [20, 64]; run `bassl-fast extract` again" in said
    assert json.loads((tmp_path / "f" / "features.json").read_text())["transform"]["size"] == 32


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("earlier", "spoil"), [(False, flip), (False, cut), (False, Path.unlink), (True, cut), (True, empty)]
)
def test_a_damaged_film_is_named_and_made_again_alone(project: Project, tmp_path: Path, capsys, earlier, spoil):
    out = Path(shutil.copytree(project.features, tmp_path / "f"))
    if earlier:
        without_checksums(out)
    else:
        assert FeatureSet.open(out).checksums == checksums(out)
    path, written = out / "tt9000001.npy", {other: other.stat().st_mtime_ns for other in out.glob("tt*.npy")}
    spoil(path)
    said = refused(capsys, "finetune", "--data.features", out, "--out", tmp_path / "s")
    assert f"{path}: cannot be read (" in said
    assert said.endswith("); run `bassl-fast extract` again")
    assert cli.main(["extract", project.pretrained, project.shards, str(out)]) == 0
    assert (f"{path}: cut or altered; extracting it again" in capsys.readouterr().out) == (spoil is not Path.unlink)
    assert [other for other, before in written.items() if other.stat().st_mtime_ns != before] == [path]
    assert FeatureSet.open(out).checksums == checksums(out)
    np.testing.assert_array_equal(arrays(out)["tt9000001"], arrays(project.features)["tt9000001"])


@pytest.mark.parametrize("name", ["sequences.npy", "shots.npy"])
def test_damaged_labels_are_found_and_written_again(project: Project, tmp_path: Path, capsys, name: str):
    out = Path(shutil.copytree(project.features, tmp_path / "f"))
    flip(out / name)
    said = refused(capsys, "finetune", "--data.features", out, "--out", tmp_path / "s")
    assert f"({name} differs from its checksum in features.json); run `bassl-fast extract` again" in said
    assert cli.main(["extract", project.pretrained, project.shards, str(out)]) == 0
    assert (out / name).read_bytes() == (Path(project.features) / name).read_bytes()


def test_checksums_that_are_none(project: Project, tmp_path: Path, capsys):
    out = Path(shutil.copytree(project.features, tmp_path / "f"))
    noted = json.loads((out / "features.json").read_text())
    for wrong in ([], {"tt9000000.npy": 1}, {"tt9000000.npy": "0" * 63}):
        (out / "features.json").write_text(json.dumps(noted | {"sha256": wrong}))
        assert "features.json: damaged (sha256 holds no checksums); delete the folder" in refused(
            capsys, "finetune", "--data.features", out, "--out", tmp_path / "s"
        )


def test_a_damaged_film_in_the_reference_layout(project: Project, tmp_path: Path, capsys):
    theirs = tmp_path / "theirs"
    argv = ["extract", project.pretrained, project.shards, str(theirs), "--layout", "reference"]
    assert cli.main(argv) == 0
    spoilt, kept = theirs / "tt9000001" / "shot_0003.npy", theirs / "tt9000000" / "shot_0000.npy"
    whole, before = spoilt.read_bytes(), kept.stat().st_mtime_ns
    for spoil in (flip, cut, Path.unlink):
        spoil(spoilt)
        said = refused(capsys, "import-features", theirs, project.films, tmp_path / "ours")
        assert "tt9000001" in said
        assert cli.main(argv) == 0
        assert f"{theirs}/tt9000001: cut or altered; extracting it again" in capsys.readouterr().out
        assert spoilt.read_bytes() == whole
        assert kept.stat().st_mtime_ns == before
        shutil.rmtree(tmp_path / "ours", ignore_errors=True)
    assert cli.main(["import-features", str(theirs), project.films, str(tmp_path / "ours")]) == 0
    assert FeatureSet.open(tmp_path / "ours").checksums == checksums(tmp_path / "ours")


def test_a_damaged_film_that_was_imported(project: Project, tmp_path: Path, capsys):
    theirs, ours = made_elsewhere(project, tmp_path / "theirs"), tmp_path / "ours"
    argv = ["import-features", theirs, project.films, ours]
    assert cli.main([str(word) for word in argv]) == 0
    whole, written = checksums(ours), {path: path.stat().st_mtime_ns for path in ours.glob("tt*.npy")}
    assert FeatureSet.open(ours).checksums == whole
    path = ours / "tt9000001.npy"
    flip(path)
    said = refused(capsys, "finetune", "--data.features", ours, "--out", tmp_path / "s")
    assert f"{path}: cannot be read (tt9000001.npy differs from its checksum in features.json); " in said
    assert said.endswith("run `bassl-fast import-features` again")
    assert cli.main([str(word) for word in argv]) == 0
    assert checksums(ours) == whole
    assert [other for other, before in written.items() if other.stat().st_mtime_ns != before] == [path]
    other = shutil.copytree(theirs, tmp_path / "other")
    assert "not empty; choose a new folder" in refused(capsys, "import-features", other, project.films, ours)


def test_a_stopped_extraction_keeps_the_checksums_of_what_is_whole(project: Project, tmp_path: Path, capsys):
    """Stopped before it made a film again, it has not finished, and believes no more afterwards than before."""
    out = Path(shutil.copytree(project.features, tmp_path / "f"))
    flip(out / "tt9000001.npy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bassl_fast.segmentation.encoding._encode", lambda *args: iter([1 / 0]))
        assert cli.main(["extract", project.pretrained, project.shards, str(out)]) == 1
    assert "features.json: missing, so these features are unfinished" in refused(
        capsys, "finetune", "--data.features", out, "--out", tmp_path / "s"
    )
    flip(out / "tt9000000.npy")
    assert cli.main(["extract", project.pretrained, project.shards, str(out)]) == 0
    assert f"{out}/tt9000000.npy: cut or altered; extracting it again" in capsys.readouterr().out
    for name, features in arrays(project.features).items():
        np.testing.assert_array_equal(arrays(out)[name], features)


def test_a_damaged_film_at_an_address(project: Project, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("BASSL_FAST_CACHE", str(tmp_path / "cache"))
    there, uri = tmp_path / "s3" / BUCKET / "features", f"s3://{BUCKET}/features"
    shutil.copytree(project.features, there)
    with s3_server(tmp_path / "s3") as port:
        use_s3(monkeypatch, port)
        assert FeatureSet.open(uri).checksums == checksums(there)
        (cached,) = (tmp_path / "cache" / "files").glob("*/*shots.npy")
        flip(cached)
        assert len(FeatureSet.open(uri).films(None)) == 3  # fetched again: the address is not to blame
        flip(there / "tt9000001.npy")
        said = refused(capsys, "finetune", "--data.features", uri, "--out", tmp_path / "s")
        assert f"{uri}/tt9000001.npy: cannot be read (tt9000001.npy differs from its checksum" in said
        assert cli.main(["extract", project.pretrained, project.shards, uri]) == 0
        assert f"{uri}/tt9000001.npy: cut or altered; extracting it again" in capsys.readouterr().out
        assert checksums(there) == checksums(project.features) == FeatureSet.open(uri).checksums
