"""Scene boundaries from statistics of the cut, by a small network: for a hundred labelled films or more.

Its statistics reach over minutes of the film, so it needs no attention to other cuts: with the same inputs, attention
and state spaces over the shots of a film did no better (docs/explanation/benchmarks.md, "Heads over whole films").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bassl_fast.config.described import Described

_CLIP = 5.0  # deviations at which a statistic is clipped
_SAME = 1e-5  # deviation up to which a statistic counts as the same in all films


class FilmHead(Described, nn.Module):
    """Residual layers on standardised statistics of each cut; no cut sees another.

    Args:
        inputs: number F of statistics.
        hidden: width.
        layers: number of residual layers.
        dropout: in the layers; half of it on the inputs.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, inputs: int, hidden: int = 48, layers: int = 2, dropout: float = 0.2) -> None:
        super().__init__()
        self.hidden = hidden
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.embed = nn.Sequential(nn.Dropout(dropout / 2), nn.Linear(inputs, hidden))
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden),
                nn.Linear(hidden, 2 * hidden),
                nn.GELU(),
                nn.Linear(2 * hidden, hidden),
                nn.Dropout(dropout),
            )
            for _ in range(layers)
        )
        self.norm = nn.Sequential(nn.LayerNorm(hidden), nn.Dropout(dropout))

    @torch.no_grad()
    def standardise(self, statistics: Tensor) -> None:
        """Take mean and deviation from the statistics `[N, F]` of the training films.

        A statistic that is the same in all of them, as without times of speech, is not read in others either.
        """
        deviation = statistics.std(0)
        self.mean.copy_(statistics.mean(0))
        self.deviation.copy_(torch.where(deviation > _SAME, deviation, torch.inf))

    def forward(self, statistics: Tensor) -> Tensor:
        """Features `[B, hidden]` of cuts, from their statistics `[B, F]`."""
        x = self.embed(((statistics - self.mean) / self.deviation).clamp(-_CLIP, _CLIP))
        for layer in self.layers:
            x = x + layer(x)
        return self.norm(x)
