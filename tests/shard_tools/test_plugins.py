"""Plug-ins: which names they may take, and what a broken one says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shard_tools import plugins
from shard_tools.errors import ConfigError, SourceError


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Install a package with a module and one entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for group in plugins.FUNCTIONS:
        monkeypatch.setitem(plugins._registered, group, {})

    def install(package: str, group: str, name: str, text: str, function: str = ":run") -> None:
        (tmp_path / f"{package}.py").write_text(text)
        (folder := tmp_path / f"{package}-1.dist-info").mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        (folder / "entry_points.txt").write_text(f"[bassl_fast.{group}]\n{name} = {package}{function}\n")
        plugins._points.cache_clear()

    yield install
    plugins._points.cache_clear()


def test_a_function_that_fails_is_one_line_that_names_it(install):
    install("tools_a", "outputs", "notes.txt", "def run(film):\n    return film['name'] / 2\n")
    with pytest.raises(ConfigError) as raised:
        plugins.functions("outputs")["notes.txt"]({"name": "a"})
    said = "plug-in notes.txt of tools_a.run: failed (TypeError: unsupported operand type(s) for /: 'str' and 'int'); "
    assert str(raised.value) == said + "fix or remove it (--debug shows where)"
    assert isinstance(raised.value.__cause__, TypeError)


def test_our_own_errors_pass_through(install):
    text = (
        "from shard_tools.errors import SourceError\ndef run(request):\n    raise SourceError('a.zip: cut; fetch it')\n"
    )
    install("tools_b", "sources", "mine", text)
    with pytest.raises(SourceError, match=r"^a.zip: cut; fetch it$"):
        plugins.functions("sources")["mine"](None)


def test_a_name_of_ours_is_refused(install):
    install("tools_c", "metrics", "ap", "def run(films, threshold): ...\n")
    with pytest.raises(ConfigError, match=r"plug-in ap of tools_c.run: bassl-fast has its own ap; rename the plug-in"):
        plugins.functions("metrics", ours={"ap"})


def test_a_name_of_two_packages_is_refused(install):
    install("tools_d", "metrics", "share", "def run(films, threshold): ...\n")
    install("tools_e", "metrics", "share", "def run(films, threshold): ...\n")
    with pytest.raises(ConfigError, match=r"share of tools_.\.run: tools_.\.run has the same name in metrics; rename"):
        plugins.functions("metrics")


def test_a_name_registered_twice_is_refused_but_may_be_defined_again(install):
    def define(text: str):
        @plugins.register("outputs", "a.txt")
        def export(film) -> str:
            return text

    define("first")
    define("second")
    assert plugins.functions("outputs")["a.txt"](None) == "second"
    with pytest.raises(ConfigError, match=r"plug-in a.txt of .*other: .*export has the same name in outputs"):

        @plugins.register("outputs", "a.txt")
        def other(film) -> str: ...


def test_a_function_that_is_declared_and_registered_is_one_plug_in(install):
    text = "from shard_tools import plugins\n@plugins.register('outputs', 'b.txt')\ndef run(film): return 'b'\n"
    install("tools_f", "outputs", "b.txt", text)
    assert plugins.functions("outputs")["b.txt"](None) == "b"


def test_a_module_is_no_function(install):
    install("tools_g", "metrics", "whole", "", function="")
    with pytest.raises(
        ConfigError, match=r"plug-in whole: <module .*> is not a function; declare it as module:function"
    ):
        plugins.functions("metrics")


def test_a_group_that_does_not_exist():
    with pytest.raises(ConfigError, match="plug-in group 'output': choose one of metrics, outputs, sources"):
        plugins.register("output", "a.txt")
