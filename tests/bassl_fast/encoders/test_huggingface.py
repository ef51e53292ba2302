"""Models of transformers, of images and of words: the features that it gives itself, from tiny models that we save."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import (
    AutoModel,
    BertConfig,
    CLIPConfig,
    CLIPModel,
    ConvNextConfig,
    Dinov2Config,
    DINOv3ViTConfig,
    MPNetConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
)

from bassl_fast import SceneDetector, load_model
from bassl_fast.checkpoints import checkpoint, hub
from bassl_fast.checkpoints.model import from_state, plain_views, section_of
from bassl_fast.cli import main
from bassl_fast.config.described import describe, make
from bassl_fast.encoders import Encoder, HuggingFace
from bassl_fast.encoders.text import TextEncoder
from bassl_fast.methods import Instance
from bassl_fast.segmentation.features import FeatureSet
from pipelines.views import TestViews, TrainViews
from shard_tools.errors import ConfigError, FeatureError
from tests.bassl_fast.conftest import Project
from tests.refused import refused
from tests.videos import draw_video

VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TEXT = {**VIT, "vocab_size": 20, "max_position_embeddings": 8}
CLIP = {"mean": [0.48, 0.45, 0.40], "std": [0.26, 0.26, 0.27]}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}


def models() -> dict[str, tuple[PreTrainedModel, dict[str, Any]]]:
    """Family -> a tiny model of it with its whole head, and the processor that its makers publish with it."""
    eye, vision = {"image_size": 32, "patch_size": 8}, {**VIT, "image_size": 32, "patch_size": 8}
    square = {"size": {"height": 32, "width": 32}}
    cropped = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}
    edge = {"size": {"shortest_edge": 32}}
    shortest = {**edge, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}
    config = {
        "dinov2": Dinov2Config(**VIT, **eye),
        "dinov3": DINOv3ViTConfig(**VIT, **eye, num_register_tokens=2),
        "convnext": ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], image_size=32),
    }
    return {
        "vit": (ViTForImageClassification(ViTConfig(**vision)), {**square, **HALF}),
        "dinov2": (AutoModel.from_config(config["dinov2"]), {**cropped, **CLIP}),
        "dinov3": (AutoModel.from_config(config["dinov3"]), {**square, **CLIP}),
        "convnext": (AutoModel.from_config(config["convnext"]), {**edge, "crop_pct": 0.9, **CLIP}),
        "clip": (CLIPModel(CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=8)), {**shortest, **CLIP}),
        "siglip": (SiglipModel(SiglipConfig(text_config=TEXT, vision_config=vision)), {**square, **HALF}),
    }  # fmt: skip


FAMILIES = ("vit", "dinov2", "dinov3", "convnext", "clip", "siglip")


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> the folder that transformers saved."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for family, (model, processor) in models().items():
        for parameter in model.parameters():  # those that begin at 0 or 1 would hide a mistake
            nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(root / family)
        mean, std = processor.pop("mean"), processor.pop("std")
        written = {**processor, "image_mean": mean, "image_std": std, "do_normalize": True}
        (root / family / "preprocessor_config.json").write_text(json.dumps(written))
    return {family: root / family for family in FAMILIES}


def theirs(family: str, folder: Path, pixels: Tensor) -> Tensor:
    """Features by transformers' own classes."""
    if family in ("clip", "siglip"):
        kind = {"clip": CLIPModel, "siglip": SiglipModel}[family]
        whole = kind.from_pretrained(folder).eval()
        return whole.vision_model(pixel_values=pixels).pooler_output
    if family == "vit":
        whole = ViTForImageClassification.from_pretrained(folder).eval()
        return whole.vit(pixels).last_hidden_state[:, 0]
    return AutoModel.from_pretrained(folder).eval()(pixels).pooler_output


def images(views: TestViews, number: int = 2) -> tuple[list[Image.Image], Tensor]:
    """Pictures of the size of a view, and the views `[N, 3, S, S]` that our pipeline makes of them."""
    levels = np.random.default_rng(0).integers(0, 256, (number, views.size, views.size, 3), np.uint8)
    pixels = torch.tensor(levels).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(value)[:, None, None] for value in (views.mean, views.std))
    return [Image.fromarray(one) for one in levels], (pixels - mean) / std


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_features_are_those_of_transformers(family: str, saved: dict[str, Path]):
    encoder = HuggingFace(str(saved[family])).eval()
    pictures, ours = images(encoder.views)
    settings = json.loads((saved[family] / "preprocessor_config.json").read_text())
    mean, std = (torch.tensor(settings[name])[:, None, None] for name in ("image_mean", "image_std"))
    pixels = torch.stack([torch.tensor(np.asarray(one)).permute(2, 0, 1) / 255 for one in pictures])
    expected = theirs(family, saved[family], (pixels - mean) / std)
    assert expected.shape == (2, encoder.dim)
    torch.testing.assert_close(encoder(ours), expected, rtol=1e-4, atol=1e-5)
    shots = encoder.of_shots(ours[None])
    torch.testing.assert_close(shots, expected.mean(0, keepdim=True), rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert nn.functional.cosine_similarity(encoder(ours).float(), expected).min() > 0.99
        half = encoder.frozen("bf16-mixed")
        assert next(half.parameters()).dtype == torch.bfloat16
        assert nn.functional.cosine_similarity(half(ours).float(), expected).min() > 0.99
        assert half.of_shots(ours[None]).dtype == torch.float32


@pytest.mark.parametrize(
    ("family", "short_side"),
    [("vit", 32), ("dinov2", 36), ("dinov3", 32), ("convnext", 35), ("clip", 32), ("siglip", 32)],
)
def test_views_are_those_of_the_processor(family: str, short_side: int, saved: dict[str, Path]):
    views = HuggingFace(str(saved[family])).views
    assert (views.short_side, views.size) == (short_side, 32)
    assert views.mean == tuple((HALF if family in ("vit", "siglip") else CLIP)["mean"])


@torch.inference_mode()
def test_views_of_another_size_interpolate_positions(saved: dict[str, Path]):
    encoder = HuggingFace(str(saved["clip"])).eval()
    pixels = torch.randn(1, 3, 48, 48)
    whole = CLIPModel.from_pretrained(saved["clip"]).eval()
    expected = whole.vision_model(pixel_values=pixels, interpolate_pos_encoding=True).pooler_output
    torch.testing.assert_close(encoder(pixels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_gets_a_gradient(family: str, saved: dict[str, Path]):
    """DDP waits for all of them; the mask token of DINOv2 is in the checkpoint, but not trained."""
    encoder = HuggingFace(str(saved[family]))
    assert encoder.training
    encoder(torch.randn(2, 3, 32, 32)).sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []
    assert ("network.embeddings.mask_token" in dict(encoder.named_buffers())) == family.startswith("dino")


def test_a_checkpoint_needs_no_folder(saved: dict[str, Path], tmp_path: Path):
    shutil.copytree(saved["dinov2"], tmp_path / "model")
    encoder = HuggingFace(str(tmp_path / "model"))
    held = json.loads(json.dumps(section_of(encoder, None)))
    weights = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    shutil.rmtree(tmp_path / "model")
    found = from_state({"model": held, "state_dict": weights}, "last.ckpt")
    assert plain_views(found.views) == plain_views(encoder.views)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(found.encoder.eval()(pixels), encoder.eval()(pixels), rtol=0, atol=0)
    assert describe(found.encoder) == held["encoder"]


def test_a_name_takes_the_place_of_a_checkpoint(saved: dict[str, Path], tmp_path: Path, monkeypatch, capfd):
    found = load_model(f"hf:{saved['clip']}")
    assert capfd.readouterr() == ("", ""), "transformers lists the weights of the text tower"
    assert (found.views, found.encoder.dim) == (TestViews(32, 32, mean=tuple(CLIP["mean"]), std=tuple(CLIP["std"])), 16)
    monkeypatch.chdir(saved["clip"].parent)
    assert checkpoint.absolute("hf:clip") == f"hf:{saved['clip']}"
    shutil.copytree("clip", tmp_path / "copy")
    assert checkpoint.sha256("hf:clip") == checkpoint.sha256(f"hf:{tmp_path / 'copy'}")
    processor = tmp_path / "copy" / "preprocessor_config.json"
    processor.write_text(processor.read_text().replace("0.48", "0.49"))
    assert checkpoint.sha256("hf:clip") != checkpoint.sha256(f"hf:{tmp_path / 'copy'}")


def test_views_have_the_normalisation_of_the_encoder(saved: dict[str, Path]):
    encoder = HuggingFace(str(saved["siglip"]))
    method = Instance(encoder.dim, views=TrainViews(size=48))
    method.attach(encoder)
    assert (method.views.mean, method.views.std) == ((0.5,) * 3, (0.5,) * 3)
    assert section_of(encoder, method)["views"]["mean"] == [0.5] * 3
    with pytest.raises(ConfigError, match=r"view of 36 pixels: HuggingFace's patches of 8 pixels .*; choose 32 or 40"):
        Instance(encoder.dim, views=TrainViews(size=36)).attach(encoder)
    with pytest.raises(ConfigError, match=r"view of 20 pixels: .*; choose 16 or 24"):
        method.fit_views(encoder, [24, 20])


def test_a_checkpoint_names_no_code_and_no_kernel(saved: dict[str, Path]):
    """What a file of unknown origin could ask transformers to fetch or to import."""
    held = describe(HuggingFace(str(saved["vit"])))
    evil = {"auto_map": {"AutoModel": "evil--model.Model"}, "_attn_implementation": "evil/kernel"}
    held["init_args"]["config"] |= evil | {"attn_implementation": "evil/kernel"}
    found = make(held, Encoder)
    assert not evil.keys() & found._arguments["config"].keys()
    assert found.network.config._attn_implementation in ("sdpa", "eager")


def copied(saved: dict[str, Path], tmp_path: Path, family: str = "vit") -> Path:
    return Path(shutil.copytree(saved[family], tmp_path / "copy"))


def test_folders_that_are_none(saved: dict[str, Path], tmp_path: Path):
    with pytest.raises(ConfigError, match=r"config.json: a file; give the folder of the model"):
        HuggingFace(str(saved["vit"] / "config.json"))
    with pytest.raises(ConfigError, match=r"nowhere: no such folder; give the folder of a model, or its name"):
        HuggingFace(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"no config.json in it; give the folder of a model"):
        HuggingFace(str(tmp_path))
    with pytest.raises(ConfigError, match=r"needs either path, the folder of a model, or config"):
        HuggingFace()
    folder = copied(saved, tmp_path)
    (folder / "config.json").write_text("[")
    with pytest.raises(ConfigError, match=r"config.json: not a JSON object; copy it again"):
        HuggingFace(str(folder))


def test_weights_that_are_missing_or_of_another_model(saved: dict[str, Path], tmp_path: Path):
    folder = copied(saved, tmp_path)
    weights = folder / "model.safetensors"
    shutil.copy(saved["convnext"] / weights.name, weights)
    with pytest.raises(ConfigError, match=r"model.safetensors has no .*: it is of another model than config.json"):
        HuggingFace(str(folder))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"cannot read model.safetensors \(.*\); copy them again"):
        HuggingFace(str(folder))
    weights.unlink()
    with pytest.raises(
        ConfigError, match=r"has config.json but no weights \(model.safetensors\); copy its files there"
    ):
        HuggingFace(str(folder))


class Evil:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("touched"),)


def test_pickled_weights_may_hold_tensors_only(saved: dict[str, Path], tmp_path: Path, monkeypatch):
    folder = copied(saved, tmp_path)
    monkeypatch.chdir(tmp_path)
    expected = HuggingFace(str(folder)).state_dict()
    (folder / "model.safetensors").unlink()
    weights = ViTForImageClassification.from_pretrained(saved["vit"]).state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    found = HuggingFace(str(folder)).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    torch.save(weights | {"evil": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"cannot read pytorch_model.bin \(.*\); convert them to safetensors"):
        HuggingFace(str(folder))
    assert not Path("touched").exists()


def test_models_of_other_things(saved: dict[str, Path], tmp_path: Path):
    folder = copied(saved, tmp_path)
    model = AutoModel.from_config(BertConfig(**TEXT))
    model.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"BertModel is not a vision model; choose one that takes images"):
        HuggingFace(str(folder))
    (folder / "preprocessor_config.json").unlink()  # as text models are published
    with pytest.raises(ConfigError, match=r"BertModel is not a vision model; choose one that takes images"):
        HuggingFace(str(folder))
    video = {**VIT, "model_type": "videomae", "image_size": 32, "patch_size": 8, "num_frames": 2}
    with pytest.raises(ConfigError, match=r"videomae: not a network that turns one image into one feature"):
        HuggingFace(config=video)
    with pytest.raises(ConfigError, match=r"vit_mae: ViTMAEModel sees a random part of an image; write vit"):
        HuggingFace(config={**VIT, "model_type": "vit_mae", "mask_ratio": 0.75})
    with pytest.raises(ConfigError, match=r"nothing: not a model of transformers"):
        HuggingFace(config={"model_type": "nothing"})


def test_a_processor_that_lacks_values(saved: dict[str, Path], tmp_path: Path):
    folder = copied(saved, tmp_path)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({"size": 32, "image_mean": [0.5] * 3}))
    with pytest.raises(ConfigError, match=r"lacks size, image_mean or image_std .*; set encoder.views"):
        HuggingFace(str(folder))
    path.unlink()
    with pytest.raises(ConfigError, match=r"no preprocessor_config.json in it, which holds mean and std"):
        HuggingFace(str(folder))
    assert HuggingFace(str(folder), views=TestViews(40, 32, mean=(0.1, 0.2, 0.3))).mean == (0.1, 0.2, 0.3)


@pytest.mark.slow
def test_extract_and_scenes_take_the_name(project: Project, saved: dict[str, Path], tmp_path: Path, capsys):
    name = f"hf:{saved['siglip']}"
    assert main(["extract", name, project.shards, str(tmp_path / "features"), "--precision", "32-true"]) == 0
    features = FeatureSet.open(tmp_path / "features")
    made_by = features.provenance
    assert (made_by["checkpoint"], made_by["dim"], made_by["transform"]["mean"]) == (name, 16, [0.5] * 3)
    video = draw_video(tmp_path / "film.mp4", [24, 36])
    assert main(["scenes", str(video), "--encoder", name, "--out", str(tmp_path / "out")]) == 0
    assert f"and of features of {name}" in capsys.readouterr().out


@pytest.mark.slow
def test_pretrain_starts_from_a_folder_and_resumes(project: Project, saved: dict[str, Path], tmp_path: Path, capsys):
    folder = copied(saved, tmp_path, "dinov2")
    run = tmp_path / "run"
    argv = ["pretrain", "--config", project.config, "--data.shards", project.shards, "--out", str(run)]
    argv += [
        "--encoder",
        "HuggingFace",
        "--encoder.path",
        str(folder),
        "--method",
        "Instance",
        "--method.views.size",
        "32",
    ]
    argv += ["--optimiser.layer_decay", "0.8", "--optimiser.frozen_layers", "1", "--optimiser.exempt", "vectors"]
    argv += ["--training.validate_every", "0"]
    assert main(argv) == 0
    found, start = load_model(run / "last.ckpt"), HuggingFace(str(folder)).state_dict()
    assert tuple(found.views.mean) == tuple(CLIP["mean"])
    moved = {name for name, value in found.encoder.state_dict().items() if not torch.equal(value, start[name])}
    assert moved
    assert all(name.startswith(("network.encoder.layer.1.", "network.layernorm.")) for name in moved)
    assert main([*argv, "--resume"]) == 0
    assert "finished already" in capsys.readouterr().out
    argv = [str(tmp_path / "other") if word == str(run) else word for word in argv]
    assert "view of 36 pixels: HuggingFace's patches" in refused(capsys, *argv, "--method.views.size", "36")
    shutil.rmtree(folder)
    assert load_model(run / "last.ckpt").encoder.dim == 16
    assert "no such folder" in refused(capsys, *argv)


# Words


LETTERS = ["<pad>", "<unk>", "<s>", "</s>", "a", "b", "c", "d", "e", "f"]


@pytest.fixture(scope="module")
def readers(saved: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> a tiny text model that transformers saved, with a tokenizer of six words."""
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(LETTERS)}, "<unk>"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    folders = {family: tmp_path_factory.mktemp("text") / family for family in ("bert", "mpnet", "clip")}
    torch.manual_seed(0)
    sizes = {**TEXT, "max_position_embeddings": 10}
    bert, mpnet = AutoModel.from_config(BertConfig(**sizes)), AutoModel.from_config(MPNetConfig(**sizes))
    for family, model in (("bert", bert), ("mpnet", mpnet)):
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folders[family])
    shutil.copytree(saved["clip"], folders["clip"])
    for folder in folders.values():
        tokenizer.save_pretrained(folder)
    return folders


TEXTS = ["a b c", "", "d", "a b c d e f a b c d e f"]  # the last is longer than any of the models reads


@pytest.mark.parametrize("family", ["bert", "mpnet", "clip"])
@torch.inference_mode()
def test_features_of_words_are_those_of_transformers(family: str, readers: dict[str, Path]):
    found = TextEncoder(str(readers[family])).of_texts(TEXTS)
    assert (found.shape, found.dtype) == ((4, 16), np.float32)
    assert np.isnan(found).any(1).tolist() == [False, True, False, False]
    length = 6 if family == "clip" else 8  # tokens: two less than positions
    for text, feature in zip(TEXTS, found, strict=True):
        ids = [2, *(LETTERS.index(word) for word in text.split()[: length - 2]), 3]
        if not text:
            continue
        if family == "clip":
            expected = (
                CLIPModel.from_pretrained(readers[family]).eval().text_model(torch.tensor([ids])).pooler_output[0]
            )
        else:
            network = AutoModel.from_pretrained(readers[family]).eval()
            expected = network(torch.tensor([ids])).last_hidden_state[0].mean(0)
        torch.testing.assert_close(torch.tensor(feature), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_first_token_is_taken_where_the_model_says_so(readers: dict[str, Path], tmp_path: Path):
    folder = copied(readers, tmp_path, "bert")
    pooling = folder / "1_Pooling" / "config.json"
    pooling.parent.mkdir()
    modes = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    modes["include_prompt"] = True  # as most models say; it is no mode
    pooling.write_text(json.dumps(modes))
    plain, name = TextEncoder(str(readers["bert"])).of_texts(["a b"]), f"hf:{folder}"
    assert np.array_equal(hub.text_encoder(name).of_texts(["a b"]), plain)
    before = hub.text_sha256(name)
    pooling.write_text(json.dumps({**modes, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    network = AutoModel.from_pretrained(folder).eval()
    expected = network(torch.tensor([[2, 4, 5, 3]])).last_hidden_state[:, 0]
    torch.testing.assert_close(torch.tensor(TextEncoder(str(folder)).of_texts(["a b"])), expected)
    assert hub.text_sha256(name) != before
    pooling.write_text(json.dumps({"pooling_mode": "cls"}))  # as they write it since version 6
    torch.testing.assert_close(torch.tensor(TextEncoder(str(folder)).of_texts(["a b"])), expected)
    for wrong, said in (
        ({"pooling_mode_max_tokens": True}, "max_tokens"),
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({"pooling_mode": ["mean", "max"]}, "mean and max"),
        ({"pooling": "mean"}, "no mode"),
        ({"pooling_mode": 5}, "5"),
    ):
        pooling.write_text(json.dumps(wrong))
        with pytest.raises(ConfigError, match=f"1_Pooling/config.json: {said} is not supported; choose"):
            TextEncoder(str(folder))


def test_text_models_that_are_none(readers: dict[str, Path], saved: dict[str, Path], tmp_path: Path):
    with pytest.raises(ConfigError, match=r"vit is not a text encoder; choose one such as BERT or MiniLM"):
        TextEncoder(str(saved["vit"]))
    with pytest.raises(ConfigError, match=r"siglip_text_model is not a text encoder; choose one"):
        TextEncoder(str(saved["siglip"]))
    with pytest.raises(ConfigError, match=r"text_encoder bert: write hf:FOLDER, a text model of transformers"):
        hub.text_encoder("bert")
    with pytest.raises(ConfigError, match=r"^hf: names no model; write hf:FOLDER"):
        hub.text_encoder("hf:")
    folder = copied(readers, tmp_path, "bert")
    before = hub.text_sha256(f"hf:{folder}")
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text().replace('"a"', '"z"'))
    assert hub.text_sha256(f"hf:{folder}") != before
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ConfigError, match=r"cannot read its tokenizer \(.*\); copy it again"):
        TextEncoder(str(folder))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"no tokenizer in it, such as tokenizer.json; copy its files there"):
        TextEncoder(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ConfigError, match=r"has config.json but no weights \(model.safetensors\); copy its files there"
    ):
        TextEncoder(str(folder))


def test_pickled_text_models_may_hold_tensors_only(readers: dict[str, Path], tmp_path: Path, monkeypatch):
    folder = copied(readers, tmp_path, "bert")
    monkeypatch.chdir(tmp_path)
    weights = AutoModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    found, expected = (TextEncoder(str(path)).of_texts(TEXTS[:1]) for path in (folder, readers["bert"]))
    assert np.array_equal(found, expected)
    torch.save(weights | {"evil": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"cannot read pytorch_model.bin \(.*\); convert them to safetensors"):
        TextEncoder(str(folder))
    assert not Path("touched").exists()


def test_nan_of_a_text_encoder_is_no_silence(readers: dict[str, Path]):
    encoder = TextEncoder(str(readers["bert"]))
    nn.init.constant_(encoder.network.embeddings.word_embeddings.weight, float("nan"))
    with pytest.raises(FeatureError, match=r"its features of words are NaN or infinite; choose another text encoder"):
        encoder.of_texts(["a", ""])


@pytest.mark.slow
def test_scenes_read_words(readers: dict[str, Path], tmp_path: Path, capsys):
    video, subtitles = draw_video(tmp_path / "film.mp4", [24, 60, 60, 60, 24]), tmp_path / "film.srt"
    times = [("01,100", "01,300", "a b"), ("04,800", "04,900", "c d"), ("08,700", "08,900", "a b")]
    subtitles.write_text("".join(f"{i}\n00:00:{a} --> 00:00:{b}\n{said}\n\n" for i, (a, b, said) in enumerate(times)))
    name, out = f"hf:{readers['bert']}", tmp_path / "out"
    plain, reader = SceneDetector(), SceneDetector.by_similarity(text_encoder=name)
    seen, heard = plain(video), plain(video, subtitles=subtitles)
    read = reader(video, subtitles=subtitles)
    assert read.method == f"{heard.method}, and the words (by {name})"
    assert [shot.probability for shot in read.shots] != [shot.probability for shot in heard.shots]
    for silent in (reader(video), reader(video, subtitles="stream")):
        assert (silent.shots, silent.method) == (seen.shots, seen.method)

    argv = ["scenes", str(video), "--out", str(out), "--text-encoder", name]
    assert main([*argv, "--subtitles", str(subtitles)]) == 0
    assert f"words of subtitles are compared by {name}" in capsys.readouterr().out
    found = json.loads((out / "film" / "scenes.json").read_text())
    assert [shot["probability"] for shot in found["shots"]] == [shot.probability for shot in read.shots]
    assert found["made_by"]["text_encoder_sha256"] == hub.text_sha256(name)
    assert main([*argv, "--subtitles", str(subtitles)]) == 0
    assert "(unchanged)" in capsys.readouterr().out
