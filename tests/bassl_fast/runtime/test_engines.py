"""Ray: a real cluster of three nodes on this machine, of which one is killed in the middle."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bassl_fast import cli
from bassl_fast.runtime import engines
from shard_tools.errors import EngineError, SourceError
from tests.bassl_fast.cli.test_mistakes import refused
from tests.bassl_fast.conftest import Project
from tests.films import digests, write_set

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A head and two more nodes, a core each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        small = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        cluster = Cluster()
        try:
            for _ in range(3):
                cluster.newest = cluster.add_node(**small)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def fail(item: int) -> int:
    if item == 3:
        raise SourceError("three: is broken; mend it")
    time.sleep(0.1)
    return item


def die(item: int) -> None:
    os._exit(1)


def kill_at_work(cluster: Cluster) -> threading.Thread:
    """Kill the raylet of the newest node, which no driver is on, once it is at work."""
    (raylet,) = cluster.newest.all_processes["raylet"]
    pid = raylet.process.pid

    def watch() -> None:
        while not any(parent == pid and name.startswith("ray::_work") for parent, name in processes()):
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def processes() -> Iterator[tuple[int, str]]:
    """Parent and command of all that run."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            yield int(parent), (folder / "cmdline").read_text()


def test_errors_come_back_as_themselves_and_stop_the_rest(nodes: Cluster):
    with engines.cluster("ray", nodes.address) as each:
        with pytest.raises(SourceError, match="three: is broken; mend it"):
            list(each(fail, range(200)))
        with pytest.raises(EngineError, match="film 7: its node or process died 4 times"):
            list(each(die, [7], "film {}".format))


def packed_by(engine: list[str], source: Path, out: Path) -> dict[str, str]:
    assert cli.main(["pack", str(source), str(out), *engine]) == 0
    return digests(out)


def test_pack_and_verify_on_a_cluster_that_loses_a_node(nodes: Cluster, tmp_path: Path, capsys):
    films = {f"f{i:02d}": 150 for i in range(16)}
    source = write_set(tmp_path / "source", films, {"f03": "test"})
    shards = tmp_path / "ray"
    ray_ = ["--engine", "ray", "--address", nodes.address]
    killer = kill_at_work(nodes)
    assert packed_by(ray_, source, shards) == packed_by([], source, tmp_path / "local")
    killer.join(1)
    assert not killer.is_alive()
    assert cli.main(["verify", str(shards), *ray_]) == 0
    tar = bytearray((shards / "f05.tar").read_bytes())
    tar[5000] ^= 1
    (shards / "f05.tar").write_bytes(tar)
    said = []
    for engine in ([], ray_):
        capsys.readouterr()
        assert cli.main(["verify", str(shards), *engine]) == 1
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "f05.tar: f05/shot_" in said[0]


def test_extract_on_a_cluster_writes_the_bytes_of_one_machine(nodes: Cluster, project: Project, tmp_path: Path):
    out = [tmp_path / "ray", tmp_path / "local"]
    for folder, engine in zip(out, (["--engine", "ray", "--address", nodes.address], []), strict=True):
        assert cli.main(["extract", project.pretrained, project.shards, str(folder), "--threads", "1", *engine]) == 0
    assert digests(out[0]) == digests(out[1])


def test_a_cluster_of_this_machine_is_started_and_leaves_nothing(tmp_path: Path):
    source = write_set(tmp_path / "source", {"a": 3, "b": 4})
    assert packed_by(["--engine", "ray"], source, tmp_path / "ray") == packed_by([], source, tmp_path / "local")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:9", "Ray at 127.0.0.1:9: nothing answers for 0 s"),
        ("head", "address head: give host:port of the cluster's head"),
        ("head:port", "address head:port: give host:port of the cluster's head"),
    ],
)
def test_no_cluster_there(tmp_path: Path, capsys, monkeypatch, address: str, said: str):
    monkeypatch.setattr(engines, "WAIT", 0.1)
    source = write_set(tmp_path / "source", {"a": 3})
    argv = ["pack", str(source), str(tmp_path / "shards"), "--engine", "ray", "--address", address]
    assert said in refused(capsys, *argv)


def test_an_address_needs_ray(tmp_path: Path, capsys):
    argv = ["pack", str(tmp_path), str(tmp_path / "shards"), "--address", "head:6379"]
    assert "address head:6379: is of a Ray cluster; add --engine ray" in refused(capsys, *argv)
