"""Exported networks compute in onnxruntime what they compute in torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bassl_fast import cli
from bassl_fast.checkpoints import checkpoint
from bassl_fast.checkpoints.model import load_model, section_of
from bassl_fast.encoders import Encoder, ResNet3D
from bassl_fast.segmentation.model import load_finetuned
from tests.bassl_fast.conftest import Project
from tests.bassl_fast.plain import Plain
from tests.refused import refused

pytestmark = pytest.mark.slow


def run(path: Path, inputs: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    return found


def test_an_encoder_for_any_number_of_images(project: Project, tmp_path: Path, capfd):
    out = tmp_path / "encoder.onnx"
    assert cli.main(["export-checkpoint", project.pretrained, str(out), "--format", "onnx"]) == 0
    said = capfd.readouterr()
    assert said.out == f"network: {out} (images [N, 3, 32, 32] -> features)\n"
    assert said.err == ""
    model = load_model(project.pretrained)
    for count in (1, 5):
        images = torch.randn(count, 3, 32, 32)
        with torch.no_grad():
            np.testing.assert_allclose(run(out, images), model.encoder.eval()(images), atol=1e-4)
    facts = {one.key: json.loads(one.value) for one in onnx.load(out).metadata_props}
    assert facts["views"]["size"] == 32
    assert facts["model"]["encoder"]["class_path"].endswith("ResNet")


def test_the_boundary_model(project: Project, tmp_path: Path):
    out = tmp_path / "boundary.onnx"
    assert cli.main(["export-checkpoint", project.finetuned, str(out), "--format", "onnx"]) == 0
    model, _ = load_finetuned(project.finetuned)
    for count in (1, 3):
        windows = torch.randn(count, model.shots, model.dim)
        with torch.no_grad():
            np.testing.assert_allclose(run(out, windows), model.eval()(windows).softmax(1)[:, 1], atol=1e-4)


def test_an_encoder_of_clips_of_any_length(tmp_path: Path, capsys):
    source, out = saved(tmp_path / "r3d.ckpt", ResNet3D(18)), tmp_path / "r3d.onnx"
    assert cli.main(["export-checkpoint", str(source), str(out), "--format", "onnx"]) == 0
    assert "(images [N, 3, T, 224, 224] -> features)" in capsys.readouterr().out
    clips, encoder = torch.randn(1, 3, 2, 224, 224), load_model(source).encoder.eval()
    with torch.no_grad():
        np.testing.assert_allclose(run(out, clips), encoder(clips), atol=1e-4)


def saved(path: Path, encoder: Encoder) -> Path:
    weights = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    checkpoint.save(path, {"model": section_of(encoder, None), "state_dict": weights, "recipe": {}, "imported": ""})
    return path


class Backwards(Plain):
    """Has a layer that ONNX cannot express."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * float(images.sum().item() > 0)


def test_what_cannot_be_exported_is_refused_by_name(project: Project, tmp_path: Path, capsys, monkeypatch):
    source = saved(tmp_path / "data.ckpt", Backwards())
    said = refused(capsys, "export-checkpoint", source, tmp_path / "x.onnx", "--format", "onnx")
    assert "Backwards cannot be exported as ONNX" in said
    said = refused(capsys, "export-checkpoint", source, tmp_path / "x.safetensors", "--format", "onnx")
    assert "name the file x.onnx" in said
    said = refused(capsys, "export-checkpoint", source, tmp_path / "x.onnx", "--format", "onnx", "--names", "reference")
    assert "--names reference: only for safetensors" in said
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    said = refused(capsys, "export-checkpoint", source, tmp_path / "x.onnx", "--format", "onnx")
    assert "pip install 'bassl-fast[onnx]'" in said
    assert not list(tmp_path.glob("x.*"))
