"""Ray: a real cluster of two nodes on this machine, one of which is killed while it works."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bassl_fast import cli
from bassl_fast.runtime import engines
from shard_tools.errors import EngineError, SourceError
from tests.bassl_fast.conftest import Project
from tests.films import digests, write_set
from tests.refused import refused
from tests.videos import draw_video

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]

ray = pytest.importorskip("ray", reason="needs Ray (the extra ray)")
from ray.cluster_utils import Cluster  # noqa: E402


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A head and one more node, a core each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        small = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        # A dead node refuses connections and is noticed at once; one that is merely slow has 20 seconds.
        checks = {"initial_delay": 0, "period": 200, "timeout": 10_000}
        of_head = {f"health_check_{name}_ms": value for name, value in checks.items()}
        cluster = Cluster()
        try:
            cluster.add_node(**small, _system_config=of_head | {"health_check_failure_threshold": 2})
            cluster.other = cluster.add_node(**small)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def fail(item: int) -> int:
    if item == 3:
        raise SourceError("three: broken; fix it")
    time.sleep(0.1)
    return item


def die(item: int) -> None:
    os._exit(1)


def kill_at_work(cluster: Cluster) -> threading.Thread:
    """Kill the raylet of the node without a driver once it is at work."""
    (raylet,) = cluster.other.all_processes["raylet"]
    pid = raylet.process.pid

    def watch() -> None:
        while not any(parent == pid and name.startswith("ray::_work") for parent, name in processes()):
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def processes() -> Iterator[tuple[int, str]]:
    """Parent and command of all running processes."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            yield int(parent), (folder / "cmdline").read_text()


def test_errors_come_back_as_themselves_and_stop_the_rest(nodes: Cluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "RETRIES", 1)
    with engines.cluster("ray", nodes.address) as each:
        with pytest.raises(SourceError, match="three: broken; fix it"):
            list(each(fail, range(200)))
        with pytest.raises(EngineError, match="film 7: its node or process died 2 times"):
            list(each(die, [7], "film {}".format))


def packed_by(engine: list[str], source: Path, out: Path) -> dict[str, str]:
    assert cli.main(["pack", str(source), str(out), *engine]) == 0
    return digests(out)


def test_extract_on_a_cluster_writes_the_bytes_of_one_machine(nodes: Cluster, project: Project, tmp_path: Path):
    out = [tmp_path / "ray", tmp_path / "local"]
    for folder, engine in zip(out, (["--engine", "ray", "--address", nodes.address], []), strict=True):
        assert cli.main(["extract", project.pretrained, project.shards, str(folder), "--threads", "1", *engine]) == 0
    assert digests(out[0]) == digests(out[1])


def test_scenes_on_a_cluster_are_those_of_one_machine(nodes: Cluster, tmp_path: Path, capsys):
    draw_video(tmp_path / "film.mp4", [24, 36, 30])
    (tmp_path / "none.mp4").write_bytes(b"no film")
    film, none, options = str(tmp_path / "film.mp4"), str(tmp_path / "none.mp4"), ["--baseline", "--scenes", "2"]
    assert cli.main(["scenes", film, *options, "--out", str(tmp_path / "local")]) == 0
    capsys.readouterr()
    ray_ = ["--engine", "ray", "--address", nodes.address, "--out", str(tmp_path / "ray")]
    assert cli.main(["scenes", film, none, *options, *ray_]) == 1
    complaints = capsys.readouterr().err
    assert "none.mp4: " in complaints
    assert "1 of 2 films failed" in complaints
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")


def output(warm: str, *argv: object, code: int = 0) -> str:
    """Standard output of a verb run in a new process."""
    command = [warm, "-m", "bassl_fast.cli", *map(str, argv)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_pack_and_verify_on_a_cluster_that_loses_a_node(nodes: Cluster, tmp_path: Path, warm: str):
    """The same shards, and only our lines on stdout, where Ray would report the death of the node."""
    films = {f"f{i:02d}": 150 for i in range(16)}
    source = write_set(tmp_path / "source", films, {"f03": "test"})
    shards = tmp_path / "ray"
    ray_ = ["--engine", "ray", "--address", nodes.address]
    counts = "(16 films, 2400 shots, 7200 key-frames, 2400 shots labelled)"
    killer = kill_at_work(nodes)
    annotated = "annotated: train 15 of 15 films, 2250 of 2250 shots; test 1 of 1 films, 150 of 150 shots"
    assert output(warm, "pack", source, shards, *ray_) == f"{annotated}\nshards: {shards} {counts}\n"
    killer.join(1)
    assert not killer.is_alive()
    assert digests(shards) == packed_by([], source, tmp_path / "local")
    assert output(warm, "verify", shards, *ray_) == output(warm, "verify", shards)
    tar = bytearray((shards / "f05.tar").read_bytes())
    tar[5000] ^= 1
    (shards / "f05.tar").write_bytes(tar)
    said = output(warm, "verify", shards, *ray_, code=1)
    assert said == output(warm, "verify", shards, code=1)
    assert "f05.tar: f05/shot_" in said


def test_a_cluster_of_this_machine_is_started_for_one_command(tmp_path: Path):
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
    assert "address head:6379: only for a Ray cluster; add --engine ray" in refused(capsys, *argv)
