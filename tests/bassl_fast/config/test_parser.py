"""What `config.parse` makes of a command line."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pytest

from bassl_fast.config import spelling
from tests.refused import refused


class Base(ABC):
    @abstractmethod
    def forward(self) -> None: ...


class Half(Base):
    """Abstract, though none of its own methods is."""

    def backward(self) -> None: ...


class Whole(Half):
    def forward(self) -> None: ...


def test_an_abstract_base_in_between_is_not_offered():
    assert spelling.class_names(Base) == ["Whole"]
    with pytest.raises(spelling.ConfigError, match="no base 'half'; known: whole"):
        spelling.class_name(Base, "half")


@pytest.mark.parametrize("path", ["bassl_fast.encoders.ClipEncoder", "bassl_fast.encoders.clip.ClipEncoder"])
def test_an_abstract_class_is_not_built(path: str, capsys):
    said = refused(capsys, "info", "--model", path)
    assert "bassl_fast.encoders.ClipEncoder is a base class; choose one of " in said
    assert {"ResNet3D", "VoV3D", "X3D"} <= set(said.split("one of ")[1].split(", "))  # tests have more of them
