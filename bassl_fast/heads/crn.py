"""Contextual relation network: a shot in the context of its neighbours (BaSSL, section 3.3; arXiv:2201.05277)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bassl_fast.config.described import Described
from shard_tools.errors import ConfigError


class TransformerLayer(nn.Module):
    """Post-norm transformer layer (Vaswani et al., arXiv:1706.03762) with exact GELU.

    Unlike `nn.TransformerEncoderLayer` it has no dropout between the two feed-forward projections.
    """

    def __init__(self, hidden: int, intermediate: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.p = heads, dropout
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.attention_out = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=1e-12)
        self.up, self.down = nn.Linear(hidden, intermediate), nn.Linear(intermediate, hidden)
        self.output_norm = nn.LayerNorm(hidden, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, read: slice = slice(None)) -> Tensor:
        """`[B, T, hidden]` -> the outputs at the positions `read`; these still attend to all."""
        projected = self.query(x[:, read]), self.key(x), self.value(x)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in projected)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.p if self.training else 0.0)
        y = self.attention_out(y.transpose(1, 2).flatten(2))
        x = self.attention_norm(x[:, read] + self.dropout(y))
        return self.output_norm(x + self.dropout(self.down(F.gelu(self.up(x)))))


class ContextualRelationNetwork(Described, nn.Module):
    """Shot features of a window -> contextual features, with a leading token for their mean.

    Args:
        inputs: size D of a shot feature.
        hidden, intermediate, heads, layers: of the transformer.
        shots: length T of the window.
        dropout: in attention and residuals.
        similarity_init: start with attention to similar shots, see `_start_with_similarity`; otherwise the published
            initialisation.

    Raises:
        ConfigError: `heads` does not divide `hidden`, or no layer.
    """

    def __init__(
        self,
        inputs: int = 2048,
        hidden: int = 768,
        intermediate: int = 3072,
        heads: int = 8,
        layers: int = 2,
        shots: int = 17,
        dropout: float = 0.1,
        similarity_init: bool = False,
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise ConfigError(f"crn: hidden {hidden} is not a multiple of heads {heads}; change one of them")
        if layers < 1:
            raise ConfigError(f"crn: layers {layers}; must be at least 1")
        self.inputs, self.hidden, self.shots = inputs, hidden, shots
        # Row 0 (a shot that is not masked) stays zero; row 1 replaces a masked shot.
        self.mask_embedding = nn.Embedding(2, inputs, padding_idx=0)
        self.project = nn.Linear(inputs, hidden)
        self.position = nn.Embedding(shots + 1, hidden)
        self.norm = nn.LayerNorm(hidden, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(TransformerLayer(hidden, intermediate, heads, dropout) for _ in range(layers))
        self.apply(_initialise)
        if similarity_init:
            self._start_with_similarity()

    @torch.no_grad()
    def _start_with_similarity(self) -> None:
        """Keys equal to queries, and positions as large as the features they are added to.

        The network must learn where shots stop being similar. With this initialisation attention starts as similarity,
        and the position of an attended shot is visible in the output. The published initialisation (weights and
        positions of deviation 0.02) learns this in a full run, but not in a few hundred steps (docs/design.md, "The
        demo").
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.5 * module.in_features**-0.5)
        nn.init.normal_(self.position.weight, std=0.2)
        for module in self.modules():
            if isinstance(module, TransformerLayer):
                module.key.weight.copy_(module.query.weight)

    def forward(self, shots: Tensor, mask: Tensor | None = None) -> Tensor:
        """Contextual features `[B, T + 1, hidden]`; index 0 is the leading token, shot t is at t + 1.

        Args:
            shots: `[B, T, D]` shot features.
            mask: `[B, T]` bool, shots to replace by the learned mask vector.
        """
        if mask is not None:
            shots = torch.where(mask[..., None], self.mask_embedding.weight[1].to(shots.dtype), shots)
        x = self._embed(shots)
        for layer in self.layers:
            x = layer(x)
        return x

    def centre(self, shots: Tensor) -> Tensor:
        """What `forward` gives the centre shot, `[B, hidden]` from `[B, T, D]`; the last layer computes only that."""
        x = self._embed(shots)
        for layer in self.layers[:-1]:
            x = layer(x)
        centre = x.shape[1] // 2
        return self.layers[-1](x, slice(centre, centre + 1))[:, 0]

    def _embed(self, shots: Tensor) -> Tensor:
        """The inputs `[B, T + 1, hidden]` of the first layer."""
        x = torch.cat([shots.mean(1, keepdim=True), shots], 1)
        return self.dropout(self.norm(self.project(x) + self.position.weight))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        elif module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])
