"""BaSSL: boundary-aware self-supervised learning (Mun et al., arXiv:2201.05277).

A window of 17 shots is split in two at a pseudo-boundary, found by dynamic time warping of its first and last shot onto
all of its shots. Four pretext tasks then train the encoder and the contextual relation network to find where one scene
ends and the next begins.

    sparse   first, last        2 views, their own augmentation     V = 2 + 17
    dense    shots 0 .. 16     17 views, one augmentation
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bassl_fast.heads.crn import ContextualRelationNetwork
from bassl_fast.runtime.distributed import global_mean
from pipelines.samples import Centers, Drawn
from pipelines.views import TrainViews
from shard_tools.errors import ConfigError

from .losses import info_nce, near
from .method import Method, Projection, check_apart
from .pseudo_boundary import pseudo_boundary
from .window import Runs


class BaSSL(Method):
    """The method of the paper, section 3.

    Args:
        dim: size D of a shot feature.
        views: augmentation of the training views.
        radius: shots on either side of the centre; a window has 2 * radius + 1 shots.
        hidden: width of the contextual relation network, a transformer.
        intermediate: width of its feed-forward layers.
        heads: attention heads.
        layers: number of layers.
        dropout: fraction of activations dropped in training.
        similarity_init: start with attention to similar shots.
        nce_hidden: hidden size of the InfoNCE head.
        nce_dim: output size of the InfoNCE head.
        temperature: of InfoNCE.
        mask_rate: fraction of the shots to mask; at least one is masked.
        shot_scene_matching: each end of the window matches the mean of the shots on its side of the pseudo-boundary; a
            loss of weight 1, as are the next three.
        contextual_group_matching: tells whether two shots are on the same side of the pseudo-boundary.
        pseudo_boundary_prediction: tells the pseudo-boundary from another shot.
        masked_shot_modelling: predicts the features of masked shots.
        run_length: number W of consecutive windows that share the views of their shots; 1, as published:
            none do.
        negatives_apart: windows of one film less than this many shots apart are no negatives of each other; 0, as
            published: all are.

    Raises:
        ConfigError: no loss is on, `mask_rate` is outside (0, 1), or another value is too small.
    """

    def __init__(
        self,
        dim: int,
        views: TrainViews = TrainViews(),
        radius: int = 8,
        hidden: int = 768,
        intermediate: int = 3072,
        heads: int = 8,
        layers: int = 2,
        dropout: float = 0.1,
        similarity_init: bool = False,
        nce_hidden: int = 2048,
        nce_dim: int = 128,
        temperature: float = 0.1,
        mask_rate: float = 0.15,
        shot_scene_matching: bool = True,
        contextual_group_matching: bool = True,
        pseudo_boundary_prediction: bool = True,
        masked_shot_modelling: bool = True,
        run_length: int = 1,
        negatives_apart: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < mask_rate < 1:
            raise ConfigError(f"method.mask_rate {mask_rate}: must be within (0, 1)")
        if radius < 1:
            raise ConfigError(f"method.radius {radius}: must be at least 1")
        if not (
            shot_scene_matching or contextual_group_matching or pseudo_boundary_prediction or masked_shot_modelling
        ):
            raise ConfigError(
                "method: all four losses are off; switch one on (e.g. shot_scene_matching) or use a shot-level method"
            )
        self.views, self.radius, self.temperature, self.mask_rate = views, radius, temperature, mask_rate
        self.ssm, self.cgm = shot_scene_matching, contextual_group_matching
        self.pp, self.msm = pseudo_boundary_prediction, masked_shot_modelling
        self.negatives_apart = check_apart(negatives_apart)
        self.runs, self.run_length = Runs(run_length, radius, self.sparse), run_length
        # DDP waits for the gradient of every trainable parameter, so only those that a loss reaches are trainable.
        self.finds_boundary = self.ssm or self.cgm or self.pp
        if self.finds_boundary or self.trains_nce:
            self.head_nce = Projection(dim, nce_hidden, nce_dim).requires_grad_(self.trains_nce)
        if self.cgm or self.pp or self.msm:
            self.crn = ContextualRelationNetwork(
                dim, hidden, intermediate, heads, layers, 2 * radius + 1, dropout, similarity_init=similarity_init
            )
            self.crn.mask_embedding.requires_grad_(self.msm)
        if self.cgm:
            self.head_cgm = nn.Linear(2 * hidden, 2)
        if self.pp:
            self.head_pp = nn.Linear(hidden, 2)
        if self.msm:
            self.head_msm = _masked_shot_head(hidden, dim)

    @property
    def sparse(self) -> list[int]:
        """Positions in the window of the shots that have a sparse view; the first two are the ends of the window."""
        return [0, 2 * self.radius]

    @property
    def trains_nce(self) -> bool:
        """Whether a loss trains the NCE head; if not, it only finds the pseudo-boundary, with its initial weights."""
        return self.ssm

    def sample(self, centers: Centers, rng: np.random.Generator) -> Drawn:
        """Views `[B, S + T]`, sparse then dense; `mask` `[B, T]` bool; `pick` `[B, 3]` float32, uniform, see `pick`.

        Of runs, views `[B, V]`, see `Runs`, and a mask and numbers a window: `[B, W, T]` and `[B, W, 3]`.
        """
        views, where = self.runs.draw(centers, rng, self.views)
        windows = len(views) * self.run_length
        mask = rng.random((windows, self.runs.shots)) < self.mask_rate
        fallback = rng.integers(0, self.runs.shots, windows)
        mask[np.arange(windows), fallback] |= ~mask.any(1)
        drawn = {"mask": mask, "pick": rng.random((windows, 3), dtype=np.float32)}
        if self.run_length > 1:
            drawn = {name: rows.reshape(len(views), self.run_length, -1) for name, rows in drawn.items()}
        return Drawn(views, drawn | where)

    def forward(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The enabled losses, from features `[b, V, D]` and what `sample` drew."""
        _, dense = self.runs.gather(features, batch)
        nce = None
        if self.finds_boundary or self.trains_nce:
            nce = self.runs.gather(self.head_nce(features), batch)
        drawn = {name: batch[name].reshape(len(dense), -1) for name in ("mask", "pick")}
        return self.losses(dense, nce, drawn, near(batch, self.negatives_apart))

    def losses(
        self,
        dense: Tensor,
        nce: tuple[Tensor, Tensor] | None,
        drawn: dict[str, Tensor],
        left_out: Tensor | None,
    ) -> dict[str, Tensor]:
        """The enabled losses of N windows.

        Args:
            dense: `[N, T, D]` features of the dense views.
            nce: embeddings of the sparse views `[N, S, E]` and of the dense ones `[N, T, E]`, if a loss needs them.
            drawn: `mask` `[N, T]` and `pick` `[N, 3]`.
            left_out: see `info_nce`.
        """
        found = {}
        if self.finds_boundary:
            nce_sparse, nce_dense = nce  # type: ignore[misc]  # see `forward`
            boundary = pseudo_boundary(nce_sparse[:, :2], nce_dense)
            shot = torch.arange(dense.shape[1], device=boundary.device)
            first = shot <= boundary[:, None]  # [b, T], shots of the first group
        if self.ssm:
            found["ssm"] = self._shot_scene_matching(nce_sparse, nce_dense, first, left_out)
        if self.cgm or self.pp:
            contextual, u = self.crn(dense)[:, 1:], drawn["pick"]
        if self.cgm:
            found["cgm"] = self._contextual_group_matching(contextual, first, u[:, 1], u[:, 2])
        if self.pp:
            found["pp"] = self._pseudo_boundary_prediction(contextual, boundary, u[:, 0])
        if self.msm:
            found["msm"] = self._masked_shot_modelling(dense, drawn["mask"])
        return found

    def _shot_scene_matching(self, sparse: Tensor, dense: Tensor, first: Tensor, left_out: Tensor | None) -> Tensor:
        """The first shot should match the mean of the first group, the last shot that of the second (section 3.3.1)."""
        losses = []
        for i, group in enumerate((first, ~first)):
            scene = F.normalize((dense * group[..., None]).sum(1), dim=-1)
            losses.append(info_nce(sparse[:, i], scene, self.temperature, left_out) / 2)
        return losses[0] + losses[1]

    def _contextual_group_matching(self, contextual: Tensor, first: Tensor, u_own: Tensor, u_other: Tensor) -> Tensor:
        """Classify one shot of the centre's group and one of the other: same group or not (section 3.3.2)."""
        rows = torch.arange(len(contextual), device=contextual.device)
        z = F.normalize(contextual.float(), dim=-1)
        center = self.radius
        own = first == first[:, center, None]
        other = ~own
        own = own & (torch.arange(own.shape[1], device=own.device) != center)
        pairs = [
            torch.cat([z[:, center], z[rows, pick(group, u)]], -1) for group, u in ((own, u_own), (other, u_other))
        ]
        labels = torch.cat([torch.ones_like(rows), torch.zeros_like(rows)])
        return F.cross_entropy(self.head_cgm(torch.cat(pairs)).float(), labels)

    def _pseudo_boundary_prediction(self, contextual: Tensor, boundary: Tensor, u: Tensor) -> Tensor:
        """Classify the pseudo-boundary and one other shot: boundary or not (section 3.3.3)."""
        rows = torch.arange(len(contextual), device=contextual.device)
        others = torch.ones(contextual.shape[:2], dtype=torch.bool, device=contextual.device)
        others.scatter_(1, boundary[:, None], False)
        shots = torch.cat([contextual[rows, boundary], contextual[rows, pick(others, u)]])
        labels = torch.cat([torch.ones_like(rows), torch.zeros_like(rows)])
        return F.cross_entropy(self.head_pp(shots).float(), labels)

    def _masked_shot_modelling(self, dense: Tensor, mask: Tensor) -> Tensor:
        """Reconstruct the features of masked shots from their context (section 3.3.4)."""
        restored = self.head_msm(self.crn(dense, mask)[:, 1:])
        error = (restored.float() - dense.detach().float()).square().mean(-1)
        return global_mean((error * mask).sum(), mask.sum())


def _masked_shot_head(hidden: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.LayerNorm(hidden, eps=1e-12), nn.Linear(hidden, dim))


def pick(candidates: Tensor, u: Tensor) -> Tensor:
    """Index `[b]` int64 of one candidate per row: number floor(u * count) of the row's candidates.

    Args:
        candidates: `[b, T]` bool, at least one per row.
        u: `[b]` uniform numbers in [0, 1).
    """
    order = candidates.cumsum(1)
    wanted = (u * order[:, -1]).floor().long().clamp(max=order[:, -1] - 1) + 1
    return ((order == wanted[:, None]) & candidates).int().argmax(1)
