"""A command that must be refused in one line."""

from __future__ import annotations

import pytest

from bassl_fast import cli


def refused(capsys: pytest.CaptureFixture, *argv: object) -> str:
    """The one line that a refused command prints."""
    capsys.readouterr()
    assert cli.main([str(word) for word in argv]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in lines if line.startswith("bassl-fast:")]
    assert len(lines) == 1
    return lines[0]
