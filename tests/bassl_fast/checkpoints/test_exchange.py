"""Weights from elsewhere: released checkpoints give the reference's answers, and no file runs code."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bassl_fast import cli
from bassl_fast.checkpoints import checkpoint
from bassl_fast.checkpoints.model import load_model
from bassl_fast.checkpoints.reference import METHODS, in_reference_names, rename
from bassl_fast.config.described import describe
from bassl_fast.encoders import ResNet
from tests import golden_weights
from tests.bassl_fast.conftest import Project
from tests.bassl_fast.test_golden import close, golden
from tests.golden_seeds import facts
from tests.golden_weights import GOLDEN
from tests.refused import refused

pytestmark = pytest.mark.slow

FULL = json.loads((GOLDEN / "pretrain_bassl_state_dict_keys.json").read_text())


def reference_weights(shapes: dict[str, list[int]], drop: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    weights = {
        key: golden_weights.tensor(key, tuple(shape)) for key, shape in shapes.items() if not key.startswith(drop)
    }
    if "crn.attention_mask" in weights:
        weights["crn.attention_mask"] = torch.zeros(1, 1, 1, 18)
        weights["crn.shot_embedding.pos_ids"] = torch.arange(18)
    return weights


def small_shapes() -> dict[str, list[int]]:
    """Weights of a reference checkpoint with a small encoder and network: the same names, other sizes."""
    shapes = {f"shot_encoder.{name}": list(value.shape) for name, value in ResNet(18, width=4).state_dict().items()}
    sizes = {2048: 32, 768: 16, 1536: 32, 3072: 24, 128: 8}
    for key, (_, shape) in FULL.items():
        if not key.startswith("shot_encoder."):
            shapes[key] = [sizes.get(n, n) for n in shape]
    return shapes


@pytest.fixture
def released(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder as the model zoo has it: Lightning's state with the weights, and config.json."""

    def make(weights: dict[str, torch.Tensor], method: str | None = "bassl", name: str = "model.ckpt", **extra) -> Path:
        folder = tmp_path / "released"
        folder.mkdir(exist_ok=True)
        state = {"epoch": 9, "global_step": 5, "pytorch-lightning_version": "1.3.8", "state_dict": weights, **extra}
        torch.save(state, folder / name)
        if method is not None:
            config = {"EXPR_NAME": "x", "LOSS": {"sampling_method": {"name": method, "params": {}}}}
            (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


def packed(folder: Path, *extra: tuple[str, bytes]) -> Path:
    """`folder` as a .tar.gz, with other members before its own."""
    archive = folder.with_suffix(".tar.gz")
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name, kind in extra:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        tar.add(folder, "bassl")
    return archive


def test_a_released_checkpoint_gives_the_outputs_of_the_reference(released, tmp_path: Path):
    folder = released(reference_weights({key: shape for key, (_, shape) in FULL.items()}))
    assert cli.main(["import-checkpoint", str(folder), str(tmp_path / "bassl.ckpt")]) == 0
    model = load_model(tmp_path / "bassl.ckpt")
    encoder, method = model.encoder, model.method
    arrays = golden("full_model.npz")
    pictures, shots = (torch.from_numpy(arrays[name]).float() for name in ("x", "shots"))
    with torch.inference_mode():
        encoder.eval(), method.eval()
        close(encoder(pictures), arrays["shot_features"])
        contextual, pooled = method.crn(shots), method.crn.centre(shots)
        close(contextual, arrays["crn_hidden"])
        close(method.head_nce(shots), arrays["head_nce"])
        close(method.head_pp(contextual), arrays["head_pp"])
        close(method.head_cgm(torch.cat([pooled, pooled], -1)), arrays["head_cgm"])
        close(method.head_msm(contextual[:, 1:]), arrays["head_msm"])


@pytest.mark.parametrize("method", METHODS)
def test_every_released_method_finds_its_class(released, tmp_path: Path, method: str):
    shot_level = () if method.startswith("bassl") else ("crn.", "loss.head_pp", "loss.head_cgm", "loss.head_msm")
    weights = reference_weights(small_shapes(), drop=shot_level)
    archive = packed(released(weights, method, name="model-v1.ckpt"))
    assert cli.main(["import-checkpoint", str(archive), str(tmp_path / "ours.ckpt")]) == 0
    model = load_model(tmp_path / "ours.ckpt")
    encoder, task = model.encoder, model.method
    assert f"{type(task).__module__.split('.')[0]}.methods.{type(task).__name__}" == METHODS[method]
    assert hasattr(task, "crn") == method.startswith("bassl")
    assert torch.equal(encoder.conv1.weight, weights["shot_encoder.conv1.weight"])
    assert torch.equal(task.head_nce[2].bias, weights["loss.head_nce.model.2.bias"])
    assert describe(encoder)["init_args"].items() >= {"depth": 18, "width": 4}.items()


def test_the_checkpoint_alone_needs_the_method_where_weights_do_not_tell(released, tmp_path: Path, capsys):
    weights = reference_weights(small_shapes())
    alone = released(weights, method=None) / "model.ckpt"
    assert cli.main(["import-checkpoint", str(alone), str(tmp_path / "a.ckpt")]) == 0
    assert "bassl of the reference" in capsys.readouterr().out
    shot_level = {key: value for key, value in weights.items() if key.startswith(("shot_encoder", "loss.head_nce"))}
    alone = released(shot_level, method=None) / "model.ckpt"
    argv = ["import-checkpoint", alone, tmp_path / "b.ckpt"]
    assert "give --method instance, temporal or shotcol" in refused(capsys, *argv)
    assert "no contextual relation network, so it is not of bassl" in refused(capsys, *argv, "--method", "bassl")
    assert not (tmp_path / "b.ckpt").exists()


def test_names_go_back_to_the_reference(released, tmp_path: Path):
    weights = reference_weights(small_shapes())
    assert in_reference_names({rename(key): value for key, value in weights.items() if rename(key)}).keys() == set(
        FULL
    ) - {key for key in FULL if key.startswith("shot_encoder.")} | {
        key for key in weights if key.startswith("shot_encoder.")
    }
    assert cli.main(["import-checkpoint", str(released(weights)), str(tmp_path / "ours.ckpt")]) == 0
    out = tmp_path / "theirs.safetensors"
    assert cli.main(["export-checkpoint", str(tmp_path / "ours.ckpt"), str(out), "--names", "reference"]) == 0
    exported = load_file(out)
    assert exported.keys() == weights.keys()
    one_tensor = weights["loss.head_msm.predictions.decoder.bias"]  # in the reference both names are of one tensor
    for key, value in (weights | {"loss.head_msm.predictions.bias": one_tensor}).items():
        assert torch.equal(exported[key], value), key
    assert cli.main(["import-checkpoint", str(out), str(tmp_path / "again.ckpt")]) == 0


def test_export_in_our_names_carries_the_recipe(project: Project, tmp_path: Path, capsys):
    from safetensors import safe_open

    for source in (project.pretrained, project.finetuned):
        assert cli.main(["export-checkpoint", source, str(tmp_path / "a.safetensors")]) == 0
        state = torch.load(source, weights_only=True)
        exported = load_file(tmp_path / "a.safetensors")
        assert exported.keys() == state["state_dict"].keys()
        assert all(torch.equal(value, state["state_dict"][name]) for name, value in exported.items())
        with safe_open(tmp_path / "a.safetensors", "pt") as file:
            assert json.loads(file.metadata()["recipe"]) == state["recipe"]
    said = refused(capsys, "export-checkpoint", project.finetuned, tmp_path / "b.safetensors", "--names", "reference")
    assert "the reference has no name for crn." in said
    assert "name the file b.safetensors" in refused(
        capsys, "export-checkpoint", project.pretrained, tmp_path / "b.ckpt"
    )
    assert "no such checkpoint" in refused(capsys, "export-checkpoint", tmp_path / "no", tmp_path / "b.safetensors")


def test_imagenet_weights_become_an_encoder_that_extract_takes(project: Project, tmp_path: Path, capsys):
    resnet = ResNet(18, width=4)
    weights = {**resnet.state_dict(), "fc.weight": torch.zeros(1000, 32), "fc.bias": torch.zeros(1000)}
    weights = {name: value for name, value in weights.items() if "num_batches" not in name}  # old files have none
    torch.save(weights, tmp_path / "resnet.pth")
    save_file(weights, tmp_path / "resnet.safetensors")
    for file in ("resnet.pth", "resnet.safetensors"):
        (tmp_path / "ours.ckpt").unlink(missing_ok=True)
        assert cli.main(["import-checkpoint", str(tmp_path / file), str(tmp_path / "ours.ckpt")]) == 0
    assert "ResNet-18" in capsys.readouterr().out
    model = load_model(tmp_path / "ours.ckpt")
    encoder, method = model.encoder, model.method
    assert method is None
    assert torch.equal(encoder.layer4[1].conv2.weight, resnet.layer4[1].conv2.weight)
    out = tmp_path / "features"
    assert cli.main(["extract", str(tmp_path / "ours.ckpt"), project.shards, str(out), "--split", "val"]) == 0
    argv = ["finetune", "--data.features", out, "--data.train", "val", "--out", tmp_path / "s", "--data.batch", "8"]
    said = refused(capsys, *argv, "--pretrained", tmp_path / "ours.ckpt")
    assert "no contextual relation network; leave --pretrained out" in said


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "encoder_q.", "_orig_mod.", "module._orig_mod.backbone."])
def test_weights_of_a_wrapped_model_are_taken_out(tmp_path: Path, prefix: str):
    resnet = ResNet(18, width=4)
    weights = {f"{prefix}{name}": value for name, value in resnet.state_dict().items()}
    if "backbone" in prefix or "encoder_q" in prefix:  # a method's other parts, which a queue is one of
        weights |= {f"{prefix}fc.0.weight": torch.zeros(8, 32), "module.encoder_k.conv1.weight": torch.ones(1)}
    file, ours = tmp_path / "wrapped.pth", tmp_path / "ours.ckpt"
    for content in (weights, {"model": weights, "epoch": 3}, {"state_dict": weights, "model": "resnet18"}):
        torch.save(content, file)
        ours.unlink(missing_ok=True)
        assert cli.main(["import-checkpoint", str(file), str(ours)]) == 0
        assert torch.equal(load_model(ours).encoder.layer4[1].conv2.weight, resnet.layer4[1].conv2.weight)


def test_what_an_encoder_lacks_is_named(tmp_path: Path, capsys):
    weights, file = ResNet(18, width=4).state_dict(), tmp_path / "x.pth"
    argv = ["import-checkpoint", file, tmp_path / "y"]
    cases = {
        "(nearest is ResNet-18: missing: bn1.bias, layer4.1.conv2.weight)": dict.fromkeys(
            ("bn1.bias", "layer4.1.conv2.weight")
        ),
        "missing: bn1.weight, bn1.bias, bn1.running_mean and 1 more": {
            name: None for name in weights if name.startswith("bn1.") and "num" not in name
        },
        "(nearest is ResNet-18: not part of it: conv9.weight)": {"conv9.weight": torch.ones(1)},
        "(nearest is ResNet-18: bn1.bias has shape [4], here [5])": {"bn1.bias": torch.ones(5)},
        "encoder.bn1.bias holds NaN or infinite values": {"bn1.bias": torch.tensor([0, 0, torch.nan, 0])},
    }
    for says, changed in cases.items():
        torch.save({name: value for name, value in (weights | changed).items() if value is not None}, file)
        assert says in refused(capsys, *argv)
    assert not (tmp_path / "y").exists()


class Evil:
    """What a pickle can do: call anything when it is read."""

    def __init__(self, function: Callable, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("where", ["hyper_parameters", "state_dict"])
@pytest.mark.parametrize("function", [os.system, eval])
def test_a_pickle_that_would_run_code_is_refused(released, tmp_path: Path, capsys, function: Callable, where: str):
    mark = tmp_path / "ran"
    command = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    weights = reference_weights(small_shapes())
    evil = Evil(function, command)
    extra = {where: {"config": evil}} if where != "state_dict" else {}
    folder = released(weights | ({"shot_encoder.conv1.weight": evil} if where == "state_dict" else {}), **extra)
    said = refused(capsys, "import-checkpoint", folder, tmp_path / "ours.ckpt")
    assert function.__name__ in said
    assert "no checkpoint needs; do not use this file" in said
    plain = tmp_path / "plain.ckpt"  # not of torch at all
    plain.write_bytes(pickle.dumps(evil))
    assert "cannot be read as a checkpoint" in refused(capsys, "import-checkpoint", plain, tmp_path / "ours.ckpt")
    assert not mark.exists()
    assert not (tmp_path / "ours.ckpt").exists()


def test_objects_beside_the_weights_are_skipped(released, tmp_path: Path, monkeypatch):
    """Classes of packages that are not installed, as Lightning 1.3 pickles them: a callback's, the configuration's."""
    module = types.ModuleType("omegaconf.dictconfig")

    class DictConfig(dict):
        pass

    class ModelCheckpoint:
        def __init__(self, path: Path) -> None:
            self.dirpath = path

    for kind in (DictConfig, ModelCheckpoint):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
    for name in ("omegaconf", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    extra = {
        "callbacks": {ModelCheckpoint: {"best_model_score": np.float64(1), "state": ModelCheckpoint(tmp_path)}},
        "hyper_parameters": DictConfig(LOSS=DictConfig(name="bassl")),
    }
    folder = released(reference_weights(small_shapes()), **extra)
    for name in ("omegaconf", module.__name__):
        monkeypatch.delitem(sys.modules, name)
    assert cli.main(["import-checkpoint", str(folder), str(tmp_path / "ours.ckpt")]) == 0
    state = torch.load(tmp_path / "ours.ckpt", weights_only=True)
    assert "hyper_parameters" not in state
    assert state["imported"]["sha256"] == checkpoint.sha256(folder / "model.ckpt")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("bassl/../../x", tarfile.REGTYPE), ("/x", tarfile.REGTYPE), ("bassl/x", tarfile.SYMTYPE), ("x", tarfile.LNKTYPE)],
)
def test_members_that_leave_the_archive_are_refused(released, tmp_path: Path, capsys, name: str, kind: bytes):
    archive = packed(released({"a": torch.zeros(1)}), (name, kind))
    said = refused(capsys, "import-checkpoint", archive, tmp_path / "ours.ckpt")
    assert "is a link or outside the folder; do not use this file" in said


def test_holes_that_would_fill_the_disk_are_refused(tmp_path: Path, capsys):
    """A member of a kilobyte that unpacks to eight gigabytes."""
    info = tarfile.TarInfo("bassl/model-v1.ckpt")
    info.size, info.pax_headers = 512, {"GNU.sparse.map": "0,512", "GNU.sparse.size": str(8 << 30)}
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(bytes(512)))
    assert "has holes; do not use this file" in refused(capsys, "import-checkpoint", tmp_path / "x.tar", tmp_path / "y")


def test_a_weight_without_dimensions_is_one_line(tmp_path: Path, capsys):
    torch.save({"conv1.weight": torch.tensor(1.0), "bn1.weight": torch.ones(4)}, tmp_path / "x.pth")
    assert "its encoder is not one of" in refused(capsys, "import-checkpoint", tmp_path / "x.pth", tmp_path / "y")


def test_files_that_cannot_be_imported(project: Project, released, tmp_path: Path, capsys):
    out = tmp_path / "ours.ckpt"

    def said(source: object, *options: str) -> str:
        return refused(capsys, "import-checkpoint", source, out, *options)

    folder = released(reference_weights(small_shapes()))
    archive = packed(folder)
    whole = archive.read_bytes()
    for size in (len(whole) // 2, 40, 0):
        archive.write_bytes(whole[:size])
        assert "truncated or damaged" in said(archive)
    assert "no such file or folder" in said(tmp_path / "absent")
    assert "neither model-v1.ckpt nor model.ckpt" in said(tmp_path)
    assert "already a checkpoint of bassl-fast" in said(project.pretrained)

    (folder / "config.json").write_text('{"LOSS": {}}')
    assert "LOSS.sampling_method.name is missing" in said(folder)
    (folder / "config.json").write_text('{"LOSS": {"sampling_method": {"name": "moco"}}}')
    assert "unknown method 'moco'; give --method: instance, temporal" in said(folder)
    (folder / "config.json").unlink()

    vgg = tmp_path / "vgg.pth"
    torch.save({"features.0.weight": torch.zeros(1)}, vgg)
    assert "features.0.weight is not a weight of the reference's models or of a ResNet" in said(vgg)
    torch.save({**ResNet(18, 4).state_dict(), "conv1.weight": torch.zeros(4, 1, 7, 7)}, vgg)
    assert "its encoder is not one of ResNet-18, ResNet-34" in said(vgg)
    torch.save([1, 2], vgg)
    assert "holds no named weights" in said(vgg)
    with zipfile.ZipFile(vgg, "w") as file:
        file.writestr("hello", "world")
    assert "cannot be read as a checkpoint" in said(vgg)
    (tmp_path / "x.safetensors").write_bytes(b"12345678")
    assert "cannot be read as safetensors" in said(tmp_path / "x.safetensors")
    weights = reference_weights(small_shapes(), drop=("crn.encoder.layer.1.output.dense.bias",))
    assert "layers.1.down.bias is missing" in said(released(weights))
    assert not out.exists()
    out.write_bytes(b"")
    assert "exists; delete it" in said(folder)


def of_shapes(keys: dict[str, tuple[str, list[int]]], prefix: str) -> dict[str, torch.Tensor]:
    """Random tensors for a published list of keys, each key after `prefix`."""
    draw = torch.Generator().manual_seed(0)
    return {
        prefix + key: torch.rand(shape, generator=draw) if dtype == "float32" else torch.zeros(shape, dtype=torch.int64)
        for key, (dtype, shape) in keys.items()
    }


def sce_on_videos() -> dict[str, torch.Tensor]:
    trunk, heads = facts("sce_trunk_keys")["resnet3d18"]["keys"], facts("sce_heads_keys")
    weights = of_shapes(trunk, "trunk.") | of_shapes(trunk, "momentum_trunk.")
    for name, part in (("projector", "projector"), ("momentum_projector", "projector"), ("predictor", "predictor")):
        weights |= of_shapes(heads[f"r3d18_{part}"]["keys"], f"{name}.")
    return weights | {"queue": torch.rand(256, 64), "queue_ptr": torch.zeros(1, dtype=torch.int64)}


def test_released_checkpoints_of_sce_on_videos(tmp_path: Path, capsys):
    weights, file, ours = sce_on_videos(), tmp_path / "sce.ckpt", tmp_path / "ours.ckpt"
    loader_buffers = {"train_transform.mean": torch.zeros(3)}
    torch.save({"state_dict": weights | loader_buffers, "epoch": 199, "optimizer_states": [{}]}, file)
    assert cli.main(["import-checkpoint", str(file), str(ours)]) == 0
    assert "(SCE on ResNet3D-18)" in capsys.readouterr().out
    model = load_model(ours)
    encoder, method = model.encoder, model.method
    assert describe(method)["init_args"]["hidden"] == 1024
    assert torch.equal(encoder.conv.weight, weights["trunk.model.blocks.0.conv.weight"])
    assert torch.equal(method.target_encoder.conv.weight, weights["momentum_trunk.model.blocks.0.conv.weight"])
    assert torch.equal(method.queue.keys, weights["queue"])

    ours.unlink()
    for key in [key for key in weights if key.startswith("predictor")]:
        del weights[key]
    torch.save({"state_dict": weights}, file)
    assert cli.main(["import-checkpoint", str(file), str(ours)]) == 0
    said = capsys.readouterr().out
    assert "(ResNet3D-18 only; SCE lacks method.predictor.0.weight, method.predictor.1.weight, " in said
    assert "and 4 more)" in said
    assert load_model(ours).method is None

    ours.unlink()
    prefix = "trunk.model."
    torch.save({key.removeprefix(prefix): w for key, w in weights.items() if key.startswith(prefix)}, file)
    assert cli.main(["import-checkpoint", str(file), str(ours)]) == 0
    assert "(ResNet3D-18 only; the file has no method)" in capsys.readouterr().out


def test_a_released_checkpoint_of_scrl(tmp_path: Path, capsys):
    keys, file = facts("scrl_state_dict_keys"), tmp_path / "checkpoint_last.pth"
    parts = {"online_network": keys["online_network"], "predictor": keys["predictor"], "evaluator": keys["evaluator"]}
    content = {f"{part}_state_dict": of_shapes(shapes, "") for part, shapes in parts.items()}
    content["target_network_state_dict"] = of_shapes(keys["online_network"], "")
    torch.save(content | {"tag": "last", "epoch": 1, "xent_loss_state_dict": {}, "scaler_state_dict": None}, file)
    assert cli.main(["import-checkpoint", str(file), str(tmp_path / "ours.ckpt")]) == 0
    assert "(SCRL on ResNet-50)" in capsys.readouterr().out
    model = load_model(tmp_path / "ours.ckpt")
    encoder, method = model.encoder, model.method
    given = content["online_network_state_dict"]
    assert torch.equal(encoder.layer4[2].bn3.weight, given["encoder.7.2.bn3.weight"])
    assert torch.equal(method.projector[3].weight, given["projector.net.3.weight"])


@pytest.mark.parametrize(("name", "said"), [("x3d_m", "X3D-M"), ("vov3d_m_seed", "VoV3D-M-2020")])
def test_a_released_classifier_of_clips(tmp_path: Path, capsys, name: str, said: str):
    weights, file = of_shapes(facts(f"{name}_keys"), ""), tmp_path / "checkpoint_epoch_00256.pyth"
    torch.save({"epoch": 255, "model_state": weights, "optimizer_state": {}, "cfg": "TRAIN: x"}, file)
    assert cli.main(["import-checkpoint", str(file), str(tmp_path / "ours.ckpt")]) == 0
    assert f"(Supervised on {said})" in capsys.readouterr().out
    method = load_model(tmp_path / "ours.ckpt").method
    assert torch.equal(method.classifier.weight, weights["head.projection.weight"])
