"""Files from elsewhere are data, and keys stay where they are: in the environment."""

from __future__ import annotations

import ast
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import yaml

from bassl_fast import cli, config
from bassl_fast.training.pretrain import pretrain
from shard_tools.errors import BasslFastError, ConfigError, RemoteError, ShardError, masked
from shard_tools.packing.pack import pack
from shard_tools.shards.format import MANIFEST
from shard_tools.shards.index import ShardIndex
from shard_tools.storage import remote
from shard_tools.storage.cache import Cache
from shard_tools.storage.untrusted import map_npy, parse_json
from tests.films import write_set
from tests.servers import http_server

ROOT = Path(__file__).parents[1]
PACKAGES = ("shard_tools", "pipelines", "bassl_fast", "benchmarks")
# Calls that run what they are given, or trust it.
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "tempfile.mktemp", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "torch.hub.load", "torch.jit.load", "joblib.load",
}  # fmt: skip
FORBIDDEN_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "telnetlib", "pty"}
FORBIDDEN_METHODS = {"extractall", "extract"}  # of archives
# Named one by one: file, what, why.
EXCEPTIONS = {
    ("benchmarks/pack.py", "shell=True"),  # what a user would type at a shell, of names that the script makes itself
    ("benchmarks/finetune.py", "np.load"),  # the peer, as its users write it, on files that the script wrote itself
}


def name_of(node: ast.expr) -> str:
    """`a.b.c` as it is written; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}" if name_of(node.value) else f".{node.attr}"
    return ""


def dangers(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, what) of whatever could run code from a file, or let one out of its folder."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [(node.lineno, m) for m in modules if m.split(".")[0] in FORBIDDEN_MODULES]
        if not isinstance(node, ast.Call):
            continue
        name, given = name_of(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in FORBIDDEN or ("." in name and name.rpartition(".")[2] in FORBIDDEN_METHODS):
            found.append((node.lineno, name))
        if given.get("shell", "False") != "False":
            found.append((node.lineno, f"shell={given['shell']}"))
        if name == "torch.load" and given.get("weights_only") != "True":
            found.append((node.lineno, "torch.load"))
        if name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
            found.append((node.lineno, "np.load"))
        if given.get("allow_pickle", "False") != "False":
            found.append((node.lineno, f"{name}(allow_pickle)"))
    return found


def test_nothing_runs_what_a_file_says():
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            found |= {(name, what) for _, what in dangers(ast.parse(path.read_text(encoding="utf-8")))}
    assert found == EXCEPTIONS


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from marshal import loads", "eval(x)", "torch.load(p)", "torch.load(p, weights_only=False)",
        "np.load(p)", "np.load(p, allow_pickle=True)", "yaml.load(x)", "tar.extractall(p)", "tempfile.mktemp()",
        "subprocess.run(x, shell=True)", "os.system(x)", "open_memmap(p, allow_pickle=True)",
    ],
)  # fmt: skip
def test_the_search_finds(line):
    assert dangers(ast.parse(line))


# --- bounds ---


def test_a_header_that_claims_much_takes_nothing(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + bytes(64))
    with pytest.raises(ValueError):
        map_npy(tmp_path / "x.npy")
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json("[" * 100_000)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)) + "data: *a59\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "expands to more than 10000 values"),
        ("data: &d {shards: *d}\n", "expands to more than 10000 values"),
        ("data: " + "[" * 100_000, "more than 100 brackets in a line"),
        ("data: " + "{a: " * 2000, "not YAML"),
        ("seed: !!python/object/apply:os.abort []\n", "not YAML"),
        ("seed: 2001-99-99\n", "not YAML"),
        ("x" * (2 << 20), "MiB"),
    ],
)
def test_a_configuration_that_is_a_bomb(text, said, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        config.parse(config.make_parser(pretrain), ["--config", str(tmp_path / "x.yaml")])


def test_a_manifest_cannot_name_files_outside_of_the_cache(tmp_path):
    pack(write_set(tmp_path / "source", {"a": 2}), tmp_path / "shards", quiet=True)
    manifest = json.loads((tmp_path / "shards" / MANIFEST).read_text())
    manifest["shards"][0]["sha256"] = "../../../x"
    (tmp_path / "shards" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ShardError, match=r"'\.\./\.\./\.\./x' is not a sha256"):
        ShardIndex.open(tmp_path / "shards")


# --- secrets ---

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://me:{SECRET}@host/a.tar: gone", "https://***@host/a.tar: gone"),
        (f"s3://{SECRET}@b/a", "s3://***@b/a"),
        (f"https://h/a.mp4?X-Amz-Signature={SECRET}&b=1: gone", "https://h/a.mp4?***: gone"),
        (f"<a href='https://h/a?token={SECRET}'>", "<a href='https://h/a?***'>"),
        ("https://host/a@b.tar, me@host and a?b", "https://host/a@b.tar, me@host and a?b"),
        ("two https://a:b@c and http://d:e@f", "two https://***@c and http://***@f"),
    ],
)
def test_what_is_masked(text, shown):
    assert masked(text) == shown
    assert str(BasslFastError(text)) == shown


def test_an_error_is_one_line():
    assert str(BasslFastError("a\nb\r\nc\u2028d")) == "a b c d"


ADDRESS = f"http://me:{SECRET}@127.0.0.1:{{port}}/shards"


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """Address, with a password in it, of a set of shards."""
    monkeypatch.setenv("BASSL_FAST_CACHE", str(tmp_path / "cache"))
    pack(write_set(tmp_path / "source", {"a": 4, "b": 4}, images=1), tmp_path / "served" / "shards", quiet=True)
    with http_server(tmp_path / "served") as port:
        yield ADDRESS.format(port=port)


def test_verbs_neither_print_nor_write_a_password(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = {
        "data": {"global_batch": 2},
        "encoder": {"class_path": "bassl_fast.encoders.ResNet", "init_args": {"depth": 18, "width": 2}},
        "method": {"class_path": "bassl_fast.methods.Instance", "init_args": {"views": {"size": 32}}},
        "training": {"steps": 0},
    }
    Path("x.yaml").write_text(yaml.safe_dump(recipe))
    assert cli.main(["info", shards]) == 0
    assert cli.main(["verify", shards]) == 0
    assert cli.main(["pretrain", "--config", "x.yaml", "--data.shards", shards, "--out", "run"]) == 0
    assert cli.main(["extract", "run/last.ckpt", shards, "features"]) == 0
    (tmp_path / "served" / "shards" / MANIFEST).unlink()
    for debug in ([], ["--debug"]):
        assert cli.main(["info", f"{shards}/none", *debug]) == 1
    said = capsys.readouterr()
    assert "127.0.0.1" in said.err
    assert SECRET not in said.out + said.err
    written = [path for folder in ("run", "features", "cache") for path in Path(folder).rglob("*") if path.is_file()]
    assert {"config.yaml", "features.json", "last.ckpt"} <= {path.name for path in written}
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    assert json.loads(Path("features/features.json").read_text())["shards"].startswith("http://***@127.0.0.1")


def test_where_a_run_goes_is_shown_without_its_password(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BASSL_FAST_CACHE", str(tmp_path / "cache"))
    pack(write_set(tmp_path / "source", {"a": 4}, images=1), tmp_path / "shards", quiet=True)
    recipe = {
        "data": {"shards": str(tmp_path / "shards"), "global_batch": 2},
        "encoder": {"class_path": "bassl_fast.encoders.ResNet", "init_args": {"depth": 18, "width": 2}},
        "method": {"class_path": "bassl_fast.methods.Instance", "init_args": {"views": {"size": 32}}},
        "training": {"steps": 1, "prometheus": str(tmp_path / "run.prom")},
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(recipe))
    where = f"memory://me:{SECRET}@host/run"
    assert cli.main(["pretrain", "--config", str(tmp_path / "x.yaml"), "--out", where]) == 0
    assert cli.main(["pretrain", "--config", str(tmp_path / "x.yaml"), "--out", where, "--resume"]) == 0
    said = capsys.readouterr()
    assert "checkpoint: memory://***@host/run/last.ckpt" in said.out
    assert SECRET not in said.out + said.err + (tmp_path / "run.prom").read_text()


def test_a_film_behind_a_signed_address(tmp_path, monkeypatch, capsys):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.mp4").write_bytes(b"no film")
    monkeypatch.chdir(tmp_path)
    with http_server(tmp_path / "served") as port:
        for film in ("a.mp4", "gone.mp4"):
            address = f"http://127.0.0.1:{port}/{film}?X-Amz-Signature={SECRET}"
            assert cli.main(["scenes", address, "--baseline", "--out", "scenes"]) == 1
    said = capsys.readouterr()
    assert "?***" in said.err
    assert SECRET not in said.out + said.err


# --- addresses ---


@pytest.mark.parametrize("bucket", ["", "a", "my bucket", "-films", "films-", "a/../b", "x" * 300, "films\n"])
def test_an_impossible_bucket_name(bucket):
    with pytest.raises(RemoteError, match="is not the name of a bucket"):
        remote.filesystem(f"s3://{bucket}/shards" if bucket != "a/../b" else "s3://../b")


@pytest.mark.parametrize(
    "endpoint", ["localhost:9000", "ftp://host", "http://", "http://host:port", "https://host:99999"]
)
def test_an_impossible_endpoint(endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ConfigError, match="not the address of a server; write http"):
        remote.filesystem("s3://films/shards")


# --- permissions ---


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_cached_is_its_users_alone(shards, tmp_path):
    before = os.umask(0o022)
    try:
        ShardIndex.open(shards)
        assert mode(tmp_path / "cache") == 0o700
        Cache(tmp_path / "deep" / "cache")._make_private()
        (tmp_path / "everybodys").mkdir(mode=0o777)
        Cache(tmp_path / "everybodys")._make_private()
        assert mode(tmp_path / "everybodys") == 0o755  # whoever made it knows for whom
    finally:
        os.umask(before)


def test_arrays_of_objects_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError):
        map_npy(tmp_path / "x.npy")
