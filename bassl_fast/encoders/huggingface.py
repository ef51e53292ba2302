"""Vision backbones of Hugging Face transformers, from a local folder or the hub's cache."""

from __future__ import annotations

import inspect
import json
from typing import Any

from torch import Tensor, nn

from pipelines.views import TestViews
from shard_tools.errors import ConfigError, MissingDependency
from shard_tools.storage.untrusted import one_line

from .backbone import Backbone
from .hub import ModelFolder, open_model, views_of

_NO_POOLER = ("vit", "deit")  # their pooler is not trained by the published weights
_DROPPED = ("architectures", "auto_map", "dtype", "id2label", "label2id", "torch_dtype", "transformers_version")


class HuggingFace(Backbone):
    """Images `[N, 3, H, W]` -> features `[N, dim]` of a vision model of transformers.

    Of models of images and text, such as CLIP and SigLIP, it is the vision tower.

    A feature is what the field takes from a frozen model of its family:

    * DINOv2, DINOv3, ViT and DeiT: the class token after the last normalisation;
    * CLIP: the class token after the last normalisation, before the projection (Radford et al., arXiv:2103.00020, A.3);
    * SigLIP: the output of its attention pooling;
    * ConvNeXt, Swin and others: the model's `pooler_output`, a mean over the last map;
    * a model without a pooler: its class token, or without one the mean over its patches.

    Views of another size than the model's own interpolate its positions, as transformers does.

    Args:
        path: folder with config.json, preprocessor_config.json and model.safetensors; or the name of a model in the
            hub's cache, such as facebook/dinov2-base. Nothing is downloaded.
        config: instead of `path`: the model's configuration, for random weights. Checkpoints hold it.
        views: test views, with mean and std; left out, those of the model's processor.

    Raises:
        ConfigError: no such folder, no weights, or not a vision model.
        MissingDependency: transformers is not installed.
    """

    def __init__(
        self, path: str | None = None, config: dict[str, Any] | None = None, views: TestViews | None = None
    ) -> None:
        super().__init__()
        if (path is None) == (config is None):
            raise ConfigError("encoder: HuggingFace needs either path, the folder of a model, or config")
        model = None if path is None else open_model(path)
        name = str(path or (config or {}).get("model_type"))
        config = plain_config(model, "vision_config") if model else _safe(config or {})
        made, options = _configured(config, name)  # a text model has no processor, which is not what is wrong with it
        self._take_views(views or (views_of(model) if model else TestViews()))
        self.network = (
            load_weights(made, model, options) if model else library(name).AutoModel.from_config(made, **options)
        )
        patch = config.get("patch_size", 1)
        self.patch = patch if isinstance(patch, int) else max(patch)
        self._positions = "interpolate_pos_encoding" in inspect.signature(self.network.forward).parameters
        self._try(name)
        self._arguments = {"path": None, "config": config, "views": self.views}

    def features(self, images: Tensor) -> Tensor:
        found = self.network(images, interpolate_pos_encoding=True) if self._positions else self.network(images)
        if (pooled := getattr(found, "pooler_output", None)) is not None:
            return pooled.flatten(1)
        hidden = found.last_hidden_state
        if hidden.ndim == 4:
            return hidden.mean((2, 3))
        return hidden[:, 0] if self._has_class_token() else hidden.mean(1)

    def _has_class_token(self) -> bool:
        names = (name for name, _ in self.network.named_parameters())
        return any(name.endswith(("cls_token", "class_embedding")) for name in names)


def plain_config(model: ModelFolder, tower: str) -> dict[str, Any]:
    """The configuration of a model, or of one of its towers, as plain values with all defaults.

    Args:
        tower: where a model of images and text has the configuration of the tower.
    """
    transformers = library(model.name)
    try:
        found = transformers.AutoConfig.from_pretrained(model.path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever transformers raises for a configuration it cannot read
        raise ConfigError(
            f"{model.name}: transformers cannot read its config.json ({one_line(error)}); upgrade transformers or "
            "choose another model"
        ) from None
    found = getattr(found, tower, found)
    return _safe(json.loads(found.to_json_string(use_diff=False)))


def _safe(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without names of code to import or kernels to fetch, and without what features do not need."""
    return {
        k: v for k, v in config.items() if k not in _DROPPED and not k.startswith("_") and "implementation" not in k
    }


def _configured(config: dict[str, Any], name: str) -> tuple[Any, dict[str, Any]]:
    """The configuration of transformers, and the options to make its network with.

    Raises:
        ConfigError: not a vision model.
    """
    transformers = library(name)
    options: dict[str, Any] = {"trust_remote_code": False}
    if config.get("model_type") in _NO_POOLER:
        options["add_pooling_layer"] = False
    try:
        made = transformers.AutoConfig.for_model(**config)
        kind = transformers.AutoModel._model_mapping[type(made)]
    except Exception as error:
        raise ConfigError(f"{name}: not a model of transformers ({one_line(error)}); choose another") from None
    if kind.main_input_name != "pixel_values":
        raise ConfigError(f"{name}: {kind.__name__} is not a vision model; choose one that takes images")
    if "mask_ratio" in config:
        raise ConfigError(
            f"{name}: {kind.__name__} sees a random part of an image; write vit as the model_type in its config.json"
        )
    return made, options


def load_weights(config: Any, model: ModelFolder, options: dict[str, Any]) -> nn.Module:
    """The network with the weights in its folder, every one of them.

    Args:
        config: of transformers.
        options: of `from_pretrained`.

    Raises:
        ConfigError: they cannot be read, or are of another model.
    """
    transformers = library(model.name)
    said = transformers.utils.logging
    before, bars = said.get_verbosity(), said.is_progress_bar_enabled()
    said.set_verbosity_error()  # it lists weights of heads that features do not need
    said.disable_progress_bar()
    try:
        found, about = transformers.AutoModel.from_pretrained(
            model.path, config=config, local_files_only=True, use_safetensors=not model.pickled,
            output_loading_info=True, dtype="float32", **options,
        )  # fmt: skip
    except Exception as error:  # whatever a damaged file raises
        fix = "convert them to safetensors" if model.pickled else "copy them again"
        raise ConfigError(f"{model.name}: cannot read {model.weights.name} ({one_line(error)}); {fix}") from None
    finally:
        said.set_verbosity(before)
        if bars:
            said.enable_progress_bar()
    if missing := sorted(about["missing_keys"]):
        raise ConfigError(
            f"{model.name}: {model.weights.name} has no {missing[0]}: it is of another model than config.json; "
            "copy both again"
        )
    return found


def library(name: str) -> Any:
    """The package transformers; the name of the model is for the error."""
    try:
        import transformers
    except ImportError:
        raise MissingDependency(f"{name}: needs transformers; pip install 'bassl-fast[hf]'") from None
    return transformers
