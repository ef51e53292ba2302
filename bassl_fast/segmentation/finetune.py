"""`bassl-fast finetune`: cached features and labels -> a model that finds scene boundaries."""

from __future__ import annotations

from typing import Any

from bassl_fast.training.options import Optimiser
from shard_tools.errors import ConfigError

from .options import CRN, PUBLISHED, BestEpoch, Data, Head


def finetune(
    data: Data,
    pretrained: str | None = None,
    new_crn: bool = False,
    freeze_crn: bool = False,
    linear_probe: bool = False,
    head: Head | None = None,
    crn: CRN = CRN(),
    optimiser: Optimiser = PUBLISHED,
    epochs: int = 20,
    best_epoch: BestEpoch = "validation",
    out: str = "runs/finetune",
    seed: int = 0,
    recipe: dict[str, Any] | None = None,
) -> str:
    """Train a boundary model on cached features and return the path, or address, of its checkpoint.

    With `data.corrections` the similarity head that comes with the package is adapted to films corrected by hand; only
    `out` is read besides.

    Args:
        data: training data.
        pretrained: checkpoint whose contextual relation network to start from; it must have made the features.
        new_crn: start from a new network of the same shape instead.
        freeze_crn: train only the linear layer, on the outputs of the pretrained network.
        linear_probe: train only a linear layer on the feature of the centre shot, without a network.
        head: "crn" is the contextual relation network alone, as published. "similarity" sees only how alike shots are
            and how long they last; it is solved exactly, so optimiser, epochs and batch have no effect. "both" is one
            model: the network, and the statistics of similarity as further inputs of its linear layer. "film" is a
            small network on these statistics and others over minutes of the film; it needs a hundred labelled films or
            more, and the optimiser of configs/finetune/film.yaml. Left out, it is "both", or "crn" for a linear probe.
        crn: shape of the network if there is no `pretrained`.
        optimiser: recipe of the optimiser.
        epochs: passes over all labelled shots.
        best_epoch: "validation" keeps the epoch of highest AP on the films of `data.val`, "last" the last one;
            "test_as_the_reference_does" chooses on the test films, which inflates their scores: only to compare with
            the reference.
        out: folder or address (s3://, gs://) for checkpoint, resolved config and curves.
        seed: of weights, order and dropout.

    Raises:
        FeatureError: no features, no labelled film in the split, or features of another checkpoint.
        SourceError: no corrected film, or corrections that do not belong to their key-frames.
        CheckpointError: `pretrained` cannot be used.
        ConfigError: `out` holds a finished run, or options contradict each other.
        RemoteError: an address cannot be read or written in time.
    """
    if data.corrections is not None:
        from .fit_corrections import fit_corrections

        if pretrained is not None or new_crn or freeze_crn or linear_probe or head not in (None, "similarity"):
            raise ConfigError("data.corrections: adapts the similarity head alone; leave out options of a network")
        return fit_corrections(data.corrections, out, recipe)
    from .fitting import fit  # here, so that `--help` does not wait for torch

    start = (pretrained, new_crn, freeze_crn, linear_probe, head, crn)
    return fit(data, *start, optimiser, epochs, best_epoch, out, seed, recipe)
