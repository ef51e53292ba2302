"""What can be imported from `bassl_fast`, and that asking for one thing does not import everything."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest

import bassl_fast
from bassl_fast import cli
from bassl_fast.cli.verbs import VERBS


@pytest.mark.parametrize("name", bassl_fast.__all__)
def test_every_public_name_is_there(name: str):
    found = getattr(bassl_fast, name)
    if name != "__version__":
        assert getattr(import_module(found.__module__), name) is found


def test_the_version(capsys):
    assert bassl_fast.__version__ == version("bassl-fast")
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"bassl-fast {version('bassl-fast')}\n"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        bassl_fast.Nothing  # noqa: B018


def test_help_imports_nothing_that_takes_seconds():
    """`--help` of every verb takes half a second of processor time; with torch and Lightning it would take five."""
    code = """
import sys
from bassl_fast import cli
from bassl_fast.cli.verbs import VERBS
heavy = {"torch", "pytorch_lightning", "lightning_fabric", "nvidia.dali", "sklearn", "ray"}
for verb in VERBS:
    before = set(sys.modules)
    try:
        cli.main([*verb.split(), "--help"])
    except SystemExit:
        pass
    print(f"{verb} imports:", *sorted(heavy & sys.modules.keys() - before))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^.+ imports:.*$", out, re.MULTILINE) == [f"{verb} imports:" for verb in VERBS]
    assert out.count("\nexample:\n") == len(VERBS)
