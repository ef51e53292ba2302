"""The built wheel in a new environment: nothing of the checkout is on its path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.videos import draw_video

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
# One process: it packs synthetic films, plans a run, and finds the scenes of a film.
SCRIPT = """
import bassl_fast, sys
from bassl_fast import cli
assert "site-packages" in bassl_fast.__file__, bassl_fast.__file__
for argv in [
    ["draw", "films", "--films", "2", "--shots", "6", "--test", "1"],
    ["pack", "films", "shards"],
    ["info", "shards"],
    ["plan"],
    ["scenes", "film.mp4"],
]:
    assert cli.main(argv) == 0, argv
from pipelines.fused import library
print("compiled:", library() is not None)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git tracks, and what it would track. The C library is compiled again only if its source is newer
    than that of this environment: that takes longer than all the rest."""
    root = tmp_path_factory.mktemp("source")
    listed = ["git", "ls-files", "-z", "-co", "--exclude-standard", "--", ":!tests", ":!docs", ":!benchmarks"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    compiled = root / "build" / f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}" / "pipelines"
    compiled.mkdir(parents=True)
    for library in (ROOT / "pipelines").glob(f"_fused{sysconfig.get_config_var('EXT_SUFFIX')}"):
        shutil.copy2(library, compiled)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    done = subprocess.run(build, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = (root / "dist").glob("bassl_fast-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a new virtual environment with the wheel. Its dependencies are those of this one, by path: installing torch
    again would take minutes. The path brings no editable installation with it, since nested .pth files are not read."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    found = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", found, "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return found


def test_it_holds_what_it_needs_and_no_tests(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for suffix in (
        "report.css",
        "report.js",
        "costs.json",
        "similarity.safetensors",
        "py.typed",
        "configs/demo.yaml",
        "configs/pretrain/bassl.yaml",
    ):
        assert any(name.endswith(suffix) for name in names), suffix
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if "." not in top} == {"bassl_fast", "configs", "pipelines", "shard_tools"}


def test_it_works_where_nothing_else_of_us_is(python: Path, tmp_path: Path):
    draw_video(tmp_path / "film.mp4", [12, 12, 12])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*argv: object) -> str:
        done = subprocess.run(list(map(str, argv)), cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run(python.with_name("bassl-fast"), "--version").startswith("bassl-fast 0.")
    out = run(python, "-c", SCRIPT)
    assert "shards: shards (2 films, 12 shots, 36 key-frames, 12 shots labelled)" in out
    assert "compiled: True" in out
    assert (tmp_path / "scenes" / "film" / "report.html").read_text(encoding="utf-8").count("<style") == 1
