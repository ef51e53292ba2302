"""SCRL: spatially consistent representation learning (Roh et al., arXiv:2103.06122).

As BYOL, but on boxes: a box of one view predicts the box of the other view that shows the same content.

centre, centre      2 views of one key-frame, and K boxes in their common part      V = 2
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bassl_fast.encoders import Encoder, ResNet
from bassl_fast.runtime.distributed import global_mean
from pipelines.samples import Centers, Drawn
from pipelines.views import TrainViews
from shard_tools.errors import ConfigError

from .boxes import Boxes, draw_boxes, roi_align
from .byol import BYOL

_STRIDE = 32  # pixels per cell of ResNet's last map


class SCRL(BYOL):
    """The method of the paper, section 3.

    Args:
        dim: size D of a shot feature.
        views: augmentation of the training views.
        boxes: how boxes are drawn.
        second: augmentation of the second view, if different.
        hidden: width of the hidden layers of projector and predictor.
        outputs: size of the projections that are compared.
        momentum: of the target network in the first step.
        classes: online evaluation: also train a linear classifier with this many classes on the mean over the map,
            from which the encoder learns nothing.

    Raises:
        ConfigError: views too small for a box, or an encoder other than ResNet.
    """

    target_encoder: ResNet
    resizable = False  # boxes are in pixels of the view

    def __init__(
        self,
        dim: int,
        views: TrainViews = TrainViews(),
        boxes: Boxes = Boxes(),  # noqa: B008 (frozen)
        second: TrainViews | None = None,
        hidden: int = 4096,
        outputs: int = 256,
        momentum: float = 0.97,
        classes: int | None = None,
    ) -> None:
        super().__init__(dim, views, second, hidden, outputs, momentum, classes)
        if boxes.least >= views.size:
            raise ConfigError(f"boxes.least {boxes.least}: must be below the size of a view, {views.size}")
        self.boxes = boxes

    def attach(self, encoder: Encoder) -> None:
        if not isinstance(encoder, ResNet):
            raise ConfigError(f"SCRL needs feature maps of images, and {type(encoder).__name__} has none; use ResNet")
        super().attach(encoder)

    def sample(self, centers: Centers, rng: np.random.Generator) -> Drawn:
        """Two views `[B, 2]` of one key-frame, their `boxes` `[B, 2, K, 4]`, and `common` `[B]`: which have boxes."""
        views = super().sample(centers, rng).views
        boxes, common = draw_boxes(rng, self.boxes, views[:, 0], views[:, 1], self.views.size)
        return Drawn(views, {"boxes": boxes, "common": common}, on_host=("common",))

    def embed(self, encoder: ResNet, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]  # see `attach`
        """Features `[b, 2 + 2, K, D]` of the boxes: by the encoder, then by the target encoder."""
        images, boxes = batch["images"].flatten(0, 1), batch["boxes"].flatten(0, 1)
        with torch.no_grad():
            target = roi_align(self.target_encoder.maps(images), boxes, _STRIDE)
        maps = encoder.maps(images)
        self.watch(maps.mean((2, 3)).unflatten(0, (-1, 2)))
        online = roi_align(maps, boxes, _STRIDE)
        return torch.cat([each.unflatten(0, (-1, 2)) for each in (online, target)], 1)

    def forward(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss, a mean over all boxes of the global batch, from features `[b, 4, K, D]` and `common` `[b]`."""
        common = np.asarray(batch["common"])  # on the host, so that nothing waits for the GPU to count images
        # A process without boxes still takes part in the collectives: all its rows, at weight 0.
        has_any = bool(common.any())
        # Not `from_numpy`: what it dispatches is counted by tests as a tensor made on the GPU.
        chosen = torch.from_dlpack(np.flatnonzero(common) if has_any else np.arange(len(common)))
        if features.is_cuda:
            chosen = chosen.pin_memory().to(features.device, non_blocking=True)
        distances = self.distances(features.index_select(0, chosen).transpose(1, 2).flatten(0, 1))
        # The count is not 0, which would be a division by zero if no process has boxes.
        count = distances.new_full((), distances.numel() if has_any else 1e-6)
        return {"scrl": global_mean(has_any * distances.sum(), count), **self.online(batch)}
