"""Image networks of timm (PyTorch Image Models), from a local folder or the hub's cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipelines.views import TestViews
from shard_tools.errors import ConfigError, MissingDependency
from shard_tools.storage.untrusted import one_line

from .backbone import Backbone
from .hub import ModelFolder, open_model

_STAGES = ("layer1", "layer2", "layer3", "layer4")


class Timm(Backbone):
    """Images `[N, 3, H, W]` -> features `[N, dim]` of a network of timm: what its classifier would get.

    A vision transformer takes views of its own size only, unless `arguments` holds `dynamic_img_size: true`.

    Args:
        path: folder with config.json and model.safetensors, as timm saves them for the hub; or the name of a model in
            the hub's cache, such as timm/vit_base_patch16_224.augreg_in21k. Nothing is downloaded.
        architecture: instead of `path`: timm's name of the network, for random weights. Checkpoints hold it.
        arguments: of the architecture.
        views: test views, with mean and std; left out, those of config.json.

    Raises:
        ConfigError: no such folder, no weights, or not a network of timm.
        MissingDependency: timm is not installed.
    """

    def __init__(
        self,
        path: str | None = None,
        architecture: str | None = None,
        arguments: dict[str, Any] | None = None,
        views: TestViews | None = None,
    ) -> None:
        super().__init__()
        if (path is None) == (architecture is None):
            raise ConfigError("encoder: Timm needs either path, the folder of a model, or architecture")
        model = None if path is None else open_model(path)
        name = str(path or architecture)
        if model is not None:
            architecture = str(model.config.get("architecture"))
            arguments = dict(model.config.get("model_args") or {}) | (arguments or {})
        self._take_views(views or (views_of(model) if model else TestViews()))
        self.network = _build(str(architecture), arguments or {}, name)
        if model is not None:
            _load(self.network, model)
        patch = getattr(getattr(self.network, "patch_embed", None), "patch_size", 1)
        self.patch = patch if isinstance(patch, int) else max(patch)
        self._try(name)
        self._arguments = {"path": None, "architecture": architecture, "arguments": arguments, "views": self.views}

    def features(self, images: Tensor) -> Tensor:
        return self.network(images)

    def _layers(self) -> list[nn.Module]:
        """Also the stages of a ResNet, which are not in a list."""
        stages = [module for name, module in self.network.named_children() if name in _STAGES]
        return stages or super()._layers()


def is_of_timm(model: ModelFolder) -> bool:
    """Whether a folder was saved by timm rather than by transformers."""
    return "architecture" in model.config and "model_type" not in model.config


def views_of(model: ModelFolder) -> TestViews:
    """The test views of a network: the square of `input_size`, after resizing to it divided by `crop_pct`.

    Raises:
        ConfigError: config.json lacks a value.
    """
    found = model.config.get("pretrained_cfg", model.config)
    try:
        side = int(found["input_size"][-1])
        mean, std = tuple(found["mean"]), tuple(found["std"])
        return TestViews(max(side, int(side / found.get("crop_pct", 1))), side, mean=mean, std=std)
    except (KeyError, TypeError, ValueError, LookupError) as error:
        raise ConfigError(
            f"{model.name}: config.json lacks input_size, mean or std ({one_line(error)}); set encoder.views"
        ) from None


def _build(architecture: str, arguments: dict[str, Any], name: str) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise MissingDependency(f"{name}: needs timm; pip install 'bassl-fast[timm]'") from None
    try:
        return timm.create_model(architecture, **{**arguments, "pretrained": False, "num_classes": 0})
    except Exception as error:  # whatever timm raises for a name or an argument
        raise ConfigError(f"{name}: not a network of timm ({one_line(error)}); choose another") from None


def _load(network: nn.Module, model: ModelFolder) -> None:
    """Fill the network with the weights in the folder; those of the classifier are left out."""
    from safetensors.torch import load_file

    try:
        if model.pickled:
            weights = torch.load(model.weights, map_location="cpu", weights_only=True)
        else:
            weights = load_file(model.weights)
        kept = {name: weights[name] for name in network.state_dict()}
        network.load_state_dict(kept)
    except KeyError as error:
        raise ConfigError(
            f"{model.name}: {model.weights.name} has no {error.args[0]}: it is of another model than config.json; "
            "copy both again"
        ) from None
    except Exception as error:  # whatever a damaged file raises
        fix = "convert them to safetensors" if model.pickled else "copy them again"
        raise ConfigError(f"{model.name}: cannot read {model.weights.name} ({one_line(error)}); {fix}") from None
