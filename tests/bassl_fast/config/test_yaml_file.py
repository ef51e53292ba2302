"""YAML files as plain values."""

from __future__ import annotations

from pathlib import Path

import pytest

from bassl_fast.config import read_yaml
from shard_tools.errors import ConfigError


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "b: {x: [{a: 1, a: 1}]}", "? [1]\n: 2\na: 1\n'a': 1"])
def test_a_key_given_twice_is_refused(tmp_path: Path, text: str):
    (file := tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match="key 'a' is duplicated"):
        read_yaml(str(file))


def test_an_empty_key_given_twice_is_refused(tmp_path: Path):
    (file := tmp_path / "config.yaml").write_text('"": 1\n"": 2')
    with pytest.raises(ConfigError, match="key '' is duplicated"):
        read_yaml(str(file))


def test_an_alias_and_equal_keys_of_two_mappings_are_not_duplicates(tmp_path: Path):
    (file := tmp_path / "config.yaml").write_text("a: &x {a: 1}\nb: *x\nc: [*x, {a: 2}]")
    assert read_yaml(str(file)) == {"a": {"a": 1}, "b": {"a": 1}, "c": [{"a": 1}, {"a": 2}]}
