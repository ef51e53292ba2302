"""Losses that several methods share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bassl_fast.runtime.distributed import gather


def info_nce(anchor: Tensor, positive: Tensor, temperature: float = 0.1, left_out: Tensor | None = None) -> Tensor:
    """InfoNCE in both directions over all processes (NT-Xent; Chen et al., arXiv:2002.05709, equation 1).

    Each of the 2N embeddings is the anchor once; its partner is the positive, the other 2N - 2 are negatives.

    Args:
        anchor, positive: `[b, D]` float32, L2-normalised, of this process; rows of the same number are partners.
        temperature: divides the cosines.
        left_out: `[N, N]` bool, pairs over all processes that are no negatives of each other, see `near`.
    """
    z = torch.cat([gather(anchor), gather(positive)]).float()
    with torch.autocast(z.device.type, enabled=False):  # half precision is too coarse for cosines over a temperature
        logits = z @ z.T / temperature
    hidden = torch.eye(len(z), dtype=torch.bool, device=z.device)
    partner = torch.arange(len(z), device=z.device).roll(len(z) // 2)
    if left_out is not None:
        hidden = (hidden | left_out.repeat(2, 2)).scatter(1, partner[:, None], False)
    logits = logits.masked_fill(hidden, float("-inf"))
    return F.cross_entropy(logits, partner)


def near(batch: dict[str, Tensor], shots: int) -> Tensor | None:
    """Pairs over all processes of one film, less than `shots` shots apart: `[N, N]` bool; None if `shots` is 0.

    They may be of one scene, so as negatives they would teach to tell apart what belongs together.

    Args:
        batch: its `film` `[b]` and `position` `[b]`, or for runs of windows `window` `[b, W]`; N samples or windows.
    """
    if not shots:
        return None
    position = batch.get("window", batch["position"][:, None])
    film, position = gather(batch["film"][:, None].expand_as(position).flatten()), gather(position.flatten())
    return (film[:, None] == film) & ((position[:, None] - position).abs() < shots)


def shotcol(sparse: Tensor, dense: Tensor, temperature: float = 0.1, left_out: Tensor | None = None) -> Tensor:
    """InfoNCE of the centre shot and the most similar shot of its window (ShotCoL; arXiv:2104.13537, section 3).

    Similarity is the cosine to the dense view of the centre; no gradient flows through the choice.

    Args:
        sparse: `[b, D]` L2-normalised embeddings of the centre's sparse view.
        dense: `[b, T, D]` L2-normalised embeddings of the window, its centre at T // 2.
        temperature, left_out: of InfoNCE.
    """
    centre, rows = dense.shape[1] // 2, torch.arange(len(dense), device=dense.device)
    with torch.no_grad(), torch.autocast(dense.device.type, enabled=False):
        cosine = torch.einsum("bd,btd->bt", dense[:, centre], dense)
        cosine[:, centre].fill_(-torch.inf)
    return info_nce(sparse, dense[rows, cosine.argmax(1)], temperature, left_out)


def balanced_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Class-balanced cross-entropy: the boundaries of a batch have the same total weight as its other shots.

    Args:
        logits: `[N, 2]`.
        labels: `[N]` int64, 0 or 1.
    """
    loss = F.cross_entropy(logits.float(), labels, reduction="none")
    positive = (labels == 1).to(loss.dtype)
    negative = 1 - positive
    # 1e-5 keeps the loss of a batch without boundaries finite.
    return 0.5 * ((loss * positive).sum() / (positive.sum() + 1e-5) + (loss * negative).sum() / (negative.sum() + 1e-5))
