"""docs/design.md names the rooms, modules and import directions that the tree has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
ROOMS = re.findall(r"^\| (.+?) \| .+? \| (.+) \|$", PAGE.split("### Why these rooms")[0], re.MULTILINE)


def modules(folder: str) -> set[str]:
    return {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__", "__main__"}


def rooms(package: str) -> dict[str, set[str]]:
    """The modules of every room of a package, as the tables of the page list them; "" has no folder."""
    start = next(i for i, (room, _) in enumerate(ROOMS) if room == f"room of `{package}`")
    found = {}
    for room, listed in ROOMS[start + 1 :]:
        if room.startswith("room of"):
            break
        found[room.strip("`") if room.startswith("`") else ""] = set(re.findall(r"`(\w+)`", listed))
    return found


@pytest.mark.parametrize("package", ["bassl_fast", "shard_tools"])
def test_every_module_is_in_the_table_of_rooms(package: str):
    top = ROOT / package
    folders = [str(path.parent.relative_to(top)) for path in top.rglob("__init__.py") if path.parent != top]
    there = {"": modules(package)} | {name: modules(f"{package}/{name}") for name in folders}
    assert rooms(package) == {room: names for room, names in there.items() if names}


def test_every_module_of_pipelines_is_listed():
    (listed,) = re.findall(r"^`pipelines` is one room: (.+?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", listed)) == modules("pipelines")


def test_import_directions_are_those_that_lint_checks():
    contracts = re.findall(r"^layers = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert len(contracts) == 3
    for layers in contracts:
        line = " -> ".join(re.findall(r'"(.+?)"', layers))
        assert f"\n    {line}\n" in PAGE


def test_every_module_named_exists():
    """A file without a folder is in the folder named before it; the old names of the map are dotted, not paths."""
    folder = ""
    for name in re.findall(r"`([\w./-]+\.(?:py|c))`", PAGE):
        folder = name.rpartition("/")[0] or folder
        assert (ROOT / folder / Path(name).name).is_file(), f"{folder}/{Path(name).name}"
