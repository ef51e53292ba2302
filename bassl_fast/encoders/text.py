"""Text models of Hugging Face transformers: the words of a shot -> a feature."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shard_tools.errors import ConfigError, FeatureError
from shard_tools.storage.untrusted import one_line

from .hub import OF_TEXT, POOLING, ModelFolder, how_to_complete, open_model, read_json
from .huggingface import library, load_weights, plain_config

LONGEST = 256  # tokens of a text; what follows is left out
_OFFSET = 2  # positions of RoBERTa's family that are no token's
_BATCH = 32  # texts
_OF_CLIP = "clip_text_model"


class TextEncoder(nn.Module):
    """Texts -> features `[N, dim]`, by BERT or another encoder of text, or by the text tower of CLIP.

    A feature is the mean of the last hidden states over all tokens (Reimers and Gurevych, arXiv:1908.10084, section 3),
    or the first of them if the folder is of sentence-transformers and says so; of CLIP, that of the end of the text.

    Args:
        path: folder with config.json, model.safetensors and the files of a tokenizer; or the name of a model in the
            hub's cache, such as sentence-transformers/all-MiniLM-L6-v2. Nothing is downloaded.

    Raises:
        ConfigError: no such folder, no weights, no tokenizer, or not a text encoder.
        MissingDependency: transformers is not installed.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        model = open_model(path, OF_TEXT)
        config = plain_config(model, "text_config")
        self._name = path
        self._is_clip = config["model_type"] == _OF_CLIP
        self._takes_first = _takes_first(model)
        self.network = _build(config, model).eval()
        self._tokenizer = _tokenizer(model)
        positions = config.get("max_position_embeddings") or LONGEST + _OFFSET
        self._longest = min(LONGEST, positions - _OFFSET, self._tokenizer.model_max_length)
        self._try()

    @torch.inference_mode()
    def of_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Features `[N, dim]` float32 of N texts; NaN of empty ones.

        Raises:
            FeatureError: the model gave NaN for a text.
        """
        said = [i for i, text in enumerate(texts) if text]
        said.sort(key=lambda i: len(texts[i]))  # texts of a batch are as long as its longest
        features = np.full((len(texts), self.dim), np.nan, np.float32)
        for first in range(0, len(said), _BATCH):
            batch = said[first : first + _BATCH]
            features[batch] = self._features([texts[i] for i in batch]).float().cpu().numpy()
        if not np.isfinite(features[said]).all():
            raise FeatureError(f"{self._name}: its features of words are NaN or infinite; choose another text encoder")
        return features

    def _features(self, texts: list[str]) -> Tensor:
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt")
        ids, mask = (tokens[name].to(next(self.parameters()).device) for name in ("input_ids", "attention_mask"))
        found = self.network(input_ids=ids, attention_mask=mask)
        if self._is_clip:
            return found.pooler_output
        hidden = found.last_hidden_state
        if self._takes_first:
            return hidden[:, 0]
        weight = mask[..., None].to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)

    def _try(self) -> None:
        """Sets `dim`.

        Raises:
            ConfigError: the network makes no feature of a text.
        """
        try:
            found = self._features(["word", "two words"])
            (_, self.dim) = found.shape
        except Exception as error:  # whatever a network of another kind raises
            raise ConfigError(
                f"{self._name}: not a network that turns a text into one feature ({one_line(error)}); choose another"
            ) from None


def _build(config: dict[str, Any], model: ModelFolder) -> nn.Module:
    transformers = library(model.name)
    try:
        made = transformers.AutoConfig.for_model(**config)
    except Exception as error:
        raise ConfigError(f"{model.name}: not a model of transformers ({one_line(error)}); choose another") from None
    kind = transformers.AutoModel._model_mapping.get(type(made), None)
    if kind is None or kind.main_input_name != "input_ids" or getattr(made, "is_encoder_decoder", False):
        raise ConfigError(f"{model.name}: {made.model_type} is not a text encoder; choose one such as BERT or MiniLM")
    options: dict[str, Any] = {"trust_remote_code": False}
    if "add_pooling_layer" in inspect.signature(kind.__init__).parameters:
        options["add_pooling_layer"] = False  # many checkpoints have none, and the mean needs none
    return load_weights(made, model, options)


def _tokenizer(model: ModelFolder) -> Any:
    if not model.has_tokenizer:  # transformers would make an empty one
        lacks = "no tokenizer in it, such as tokenizer.json"
        raise ConfigError(f"{model.name}: {lacks}; {how_to_complete(model.name, model.path, model.beside)}")
    try:
        return library(model.name).AutoTokenizer.from_pretrained(
            model.path, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever a damaged file raises
        raise ConfigError(f"{model.name}: cannot read its tokenizer ({one_line(error)}); copy it again") from None


def _takes_first(model: ModelFolder) -> bool:
    """Whether sentence-transformers takes the first token of this model, instead of the mean over tokens.

    Raises:
        ConfigError: it takes neither.
    """
    path = model.path / POOLING
    if not path.is_file():
        return False
    found, prefix = read_json(path), "pooling_mode_"
    flags = [key.removeprefix(prefix) for key, value in found.items() if key.startswith(prefix) and value is True]
    given = found.get("pooling_mode", flags)  # since their version 6, one or several names
    modes = given if isinstance(given, list) else [given]
    if modes not in (["mean_tokens"], ["mean"], ["cls_token"], ["cls"]):
        said = " and ".join(map(str, modes)) or "no mode"
        raise ConfigError(f"{path}: {said} is not supported; choose a model with the mean or the cls token")
    return modes in (["cls_token"], ["cls"])
