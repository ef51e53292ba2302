"""Models in a local folder, or in the cache of the Hugging Face Hub. Nothing here downloads one.

A folder holds `config.json`, weights, best as `model.safetensors`, and often `preprocessor_config.json` or a tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.views import TestViews
from shard_tools.errors import ConfigError, MissingDependency
from shard_tools.storage.untrusted import one_line, parse_json

CONFIG = "config.json"
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# What a tokenizer of transformers may be read from.
_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)
POOLING = f"1_Pooling/{CONFIG}"  # of sentence-transformers: how the tokens of a text become one feature
OF_TEXT = (*_TOKENIZERS, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", POOLING)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WAIT = 10.0  # seconds for the hub to say how large a model is


class ModelFolder(NamedTuple):
    """A model on disk.

    Attributes:
        name: as the user wrote it, for messages.
        path: the folder.
        config: content of `config.json`.
        weights: the file of weights, or the index of several.
        beside: names of other files that the model depends on, if they are there.
    """

    name: str
    path: Path
    config: dict[str, Any]
    weights: Path
    beside: Sequence[str]

    @property
    def pickled(self) -> bool:
        """Whether the weights are not safetensors."""
        return ".bin" in self.weights.suffixes

    @property
    def files(self) -> list[Path]:
        """All files that the model depends on: configuration, processor or tokenizer, and weights."""
        index = self.weights.suffix == ".json"
        shards = sorted(set(read_json(self.weights)["weight_map"].values())) if index else []
        beside = [path for name in self.beside if (path := self.path / name).is_file()]
        return [self.path / CONFIG, *beside, self.weights, *(self.path / shard for shard in shards)]

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is what a tokenizer is read from."""
        return any((self.path / name).is_file() for name in _TOKENIZERS)


def open_model(name: str, beside: Sequence[str] = _PROCESSORS) -> ModelFolder:
    """The model in a folder, or the one of that name in the hub's cache.

    Args:
        beside: files that it may depend on beside configuration and weights: the processors of images, or `OF_TEXT`.

    Raises:
        ConfigError: there is none, or it has no weights. For a model of the hub, the message says what to fetch, how
            large it is, and with which command.
        MissingDependency: it has the name of a model of the hub, and huggingface_hub is not installed.
    """
    if not name:
        raise ConfigError("hf: names no model; write hf:FOLDER, the folder of a model, or its name on the hub")
    path = Path(name).expanduser()
    if path.is_file():
        raise ConfigError(f"{name}: a file; give the folder of the model, which holds {CONFIG}")
    if not path.is_dir():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name}: no such folder; give the folder of a model, or its name on the hub")
        path = _cached(name, beside)
    if not (path / CONFIG).is_file():
        raise ConfigError(f"{name}: no {CONFIG} in it; give the folder of a model of transformers or timm")
    weights = next((path / file for file in _WEIGHTS if (path / file).is_file()), None)
    if weights is None:
        lacks = f"has {CONFIG} but no weights ({_WEIGHTS[0]})"
        raise ConfigError(f"{name}: {lacks}; {how_to_complete(name, path, beside)}")
    return ModelFolder(name, path, read_json(path / CONFIG), weights, beside)


def how_to_complete(name: str, path: Path, beside: Sequence[str]) -> str:
    """For an error: how the files that a model lacks get into its folder, or into the hub's cache."""
    return "copy its files there" if path == Path(name).expanduser() else _to_fetch(name, beside)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ConfigError: it is not one.
    """
    try:
        found = parse_json(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: not a JSON object; copy it again")
    return found


# The views that a model was trained with


def views_of(model: ModelFolder) -> TestViews:
    """The test views of a model, from its processor.

    The field's processors crop a square after resizing the short side, or squash the whole picture into a square. The
    latter distorts films, so here the short side is resized to the side of the square instead.

    Raises:
        ConfigError: there is no processor, or it lacks a value.
    """
    path = next((path for name in _PROCESSORS if (path := model.path / name).is_file()), None)
    if path is None:
        raise ConfigError(
            f"{model.name}: no {_PROCESSORS[0]} in it, which holds mean and std; copy it there, or set encoder.views"
        )
    found = read_json(path)
    found = found.get("image_processor", found)
    try:
        size, crop = _side(found["size"]), found.get("crop_size")
        side = _side(crop) if crop and found.get("do_center_crop", True) else size
        short_side = max(side, size)
        if (share := found.get("crop_pct")) and size < 384:  # of ConvNeXt, whose size is that of the crop
            short_side = int(size / share)
        normalises = found.get("do_normalize", True)
        mean, std = (tuple(found["image_mean"]), tuple(found["image_std"])) if normalises else ((0.0,) * 3, (1.0,) * 3)
        return TestViews(short_side, side, mean=mean, std=std)
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise ConfigError(
            f"{path}: lacks size, image_mean or image_std ({one_line(error)}); set encoder.views"
        ) from None


def _side(size: Any) -> int:
    """The side in pixels of a size, which is a number or a dictionary."""
    if isinstance(size, dict):
        return int(next(size[key] for key in ("shortest_edge", "height") if size.get(key)))
    return int(size)


# The hub


def _cached(name: str, beside: Sequence[str]) -> Path:
    """The folder of a model in the hub's cache."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        raise MissingDependency(
            f"{name}: no such folder; for models of the hub, pip install 'bassl-fast[hf]'"
        ) from None
    found = try_to_load_from_cache(name, CONFIG)
    if not isinstance(found, str):
        raise ConfigError(f"{name}: neither a folder nor in the hub's cache; {_to_fetch(name, beside)}")
    return Path(found).parent


def _to_fetch(name: str, beside: Sequence[str]) -> str:
    """The command that downloads a model, and how large its files are."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        listed = HfApi().model_info(name, files_metadata=True, timeout=_WAIT).siblings or []
    except RepositoryNotFoundError:
        return "the hub has no model of that name for you; check it, or log in with `hf auth login`"
    except Exception as error:  # offline, or whatever the client raises for a network
        return f"`hf download {name}` fetches it (its size is unknown: {one_line(error)})"
    sizes = {file.rfilename: file.size or 0 for file in listed}
    wanted = _needed(list(sizes), beside)
    total = sum(sizes[file] for file in wanted) / 1e6
    return f"`hf download {name} {' '.join(wanted)}` fetches {total:,.0f} MB"


def _needed(files: Sequence[str], beside: Sequence[str]) -> list[str]:
    """Of the files of a model, those that are read: of the weights, safetensors if there are any."""
    kinds = (r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?", r"pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?")
    weights = ([file for file in files if re.fullmatch(kind, file)] for kind in kinds)
    return [file for file in (CONFIG, *beside) if file in files] + next(filter(None, weights), [])
