"""The base class of image encoders whose architecture and weights come from another library."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipelines.views import TestViews
from shard_tools.errors import ConfigError
from shard_tools.storage.untrusted import one_line

from .encoder import Encoder


class Backbone(Encoder):
    """Normalised images `[N, 3, H, W]` -> features `[N, dim]` of a published network.

    Its weights were trained with a normalisation of their own, which all its views get, whatever a config says.

    Attributes:
        views: the test views that it was trained for.
        patch: side in pixels of the patches that an image is cut into.
    """

    views: TestViews
    patch: int
    _frozen: tuple[nn.Module, ...] = ()

    def forward(self, images: Tensor) -> Tensor:
        for side in images.shape[-2:]:
            self.check_side(side)
        dtype = next(self.parameters()).dtype
        if dtype == torch.float32:
            return self.features(images)
        with torch.autocast(images.device.type, enabled=False):  # it would compute normalisations in float32
            return self.features(images.to(dtype))

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Features `[N, dim]` of normalised images whose sides the patches divide."""

    def check_side(self, side: int) -> None:
        """Raises: ConfigError for a side in pixels that the patches do not divide, unless the model was made for it."""
        if side % self.patch and side != self.views.size:
            below = max(1, side // self.patch) * self.patch
            raise ConfigError(
                f"view of {side} pixels: {type(self).__name__}'s patches of {self.patch} pixels do not divide it; "
                f"choose {below} or {below + self.patch} as method.views.size"
            )

    def frozen(self, precision: str) -> Backbone:
        """See `Encoder`; weights of a transformer become bfloat16, which is faster than to cast them for every batch.

        Buffers stay in float32: those of rotary positions need its digits.
        """
        norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.modules())
        if precision == "bf16-mixed" and not norms:
            for parameter in self.parameters():
                parameter.data = parameter.data.bfloat16()
        return self.eval()

    def test_views(self) -> TestViews:
        return self.views

    def layers_above(self) -> dict[nn.Parameter, int]:
        """See `Encoder`; what comes before the first layer, the embeddings, has all layers above it and one more."""
        layers = self._layers()
        if not layers:
            return super().layers_above()
        place = {parameter: i for i, layer in enumerate(layers) for parameter in layer.parameters()}
        found, outside = {}, len(layers) + 1
        for parameter in self.parameters():  # in the order of the network
            if parameter in place:
                found[parameter], outside = len(layers) - place[parameter], 0
            else:
                found[parameter] = outside
        return found

    def _layers(self) -> list[nn.Module]:
        """The blocks of a transformer or the stages of a convolutional network: the largest list of modules in it."""
        lists = (m for m in self.modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m) > 1)
        return list(max(lists, key=lambda found: sum(p.numel() for p in found.parameters()), default=[]))

    def freeze(self, layers: int) -> None:
        """Train neither the embeddings nor the first layers, as many as this.

        Raises:
            ConfigError: there are fewer.
        """
        number = len(self._layers())
        if layers > number:
            raise ConfigError(
                f"optimiser.frozen_layers {layers}: {type(self).__name__} has {number}; choose at most {number}"
            )
        for parameter, above in self.layers_above().items():
            if above > number - layers:
                parameter.requires_grad_(False)
        owned = {module: list(module.parameters()) for module in self.modules()}
        self._frozen = tuple(m for m, own in owned.items() if own and not any(p.requires_grad for p in own))
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """As `nn.Module.train`, but frozen layers stay in evaluation mode: no dropout, and statistics do not move."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def _take_views(self, views: TestViews) -> None:
        (r, g, b), (sr, sg, sb) = views.mean, views.std  # lists, if they are from a checkpoint
        self.mean, self.std = (r, g, b), (sr, sg, sb)
        self.views = replace(views, mean=self.mean, std=self.std)

    def _try(self, name: str) -> None:
        """Set `dim` from a forward pass without memory, and make buffers of weights that features do not depend on.

        Training must give every parameter a gradient, and DDP waits for one; a mask token, say, gets none.

        Raises:
            ConfigError: the network does not turn one image into one feature.
        """
        names = [parameter for parameter, _ in self.named_parameters()]
        with torch.inference_mode(False), torch.enable_grad():
            state = {n: torch.empty(p.shape, device="meta", requires_grad=True) for n, p in self.named_parameters()}
            state |= {n: torch.empty(b.shape, dtype=b.dtype, device="meta") for n, b in self.named_buffers()}
            images = torch.empty(2, 3, self.views.size, self.views.size, device="meta")
            try:
                found = torch.func.functional_call(self, state, (images,))
                (two, self.dim) = found.shape
                assert two == 2, "a feature an image"
                grads = torch.autograd.grad(found.sum(), [state[n] for n in names], allow_unused=True)
            except ConfigError:
                raise
            except Exception as error:  # whatever a network of another library does
                raise ConfigError(
                    f"{name}: not a network that turns one image into one feature ({one_line(error)}); choose another"
                ) from None
        for path, grad in zip(names, grads, strict=True):
            if grad is None:
                owner, _, last = path.rpartition(".")
                module = self.get_submodule(owner)
                weight = module._parameters.pop(last)
                module.register_buffer(last, weight.detach())
        self.train()  # some libraries build networks in evaluation mode, and Lightning keeps the mode it finds
