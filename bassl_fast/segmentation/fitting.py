"""Fine-tuning on cached features.

All features are on the device, and a batch is gathered by a table of windows: no worker processes are needed. If only
the linear layer is trained, its inputs are computed once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor

from bassl_fast.checkpoints import checkpoint
from bassl_fast.checkpoints.model import encoder_alone, load_model
from bassl_fast.config.described import describe, make
from bassl_fast.heads import ContextualRelationNetwork
from bassl_fast.methods.losses import balanced_cross_entropy
from bassl_fast.metrics.scenes import best_threshold, scene_metrics
from bassl_fast.runtime import hardware
from bassl_fast.runtime.quiet import quieten
from bassl_fast.runtime.run_folder import RunFolder
from bassl_fast.training.optim import build_optimiser
from bassl_fast.training.options import Optimiser
from bassl_fast.training.progress import loggers, progress_callbacks
from pipelines.plan import Plan
from pipelines.rng import check_seed
from pipelines.views import TestViews
from shard_tools.errors import CheckpointError, ConfigError, FeatureError, RemoteError, masked
from shard_tools.storage.atomic import write_atomically

from .features import FeatureSet
from .model import SceneBoundary, section_of
from .options import CRN, BestEpoch, Data
from .windows import Windows

BEST = "best.ckpt"
TEST = "test"


class Sets(NamedTuple):
    """Windows to train on, to choose the threshold on (None: the training films), and to choose the epoch on.

    `chooser` is the name and the windows of a split; None keeps the last epoch.
    """

    train: Windows
    val: Windows | None
    chooser: tuple[str, Windows] | None


def fit(
    data: Data,
    pretrained: str | None,
    new_crn: bool,
    freeze_crn: bool,
    linear_probe: bool,
    crn: CRN,
    optimiser: Optimiser,
    epochs: int,
    best_epoch: BestEpoch,
    out: str,
    seed: int,
    recipe: dict[str, Any] | None,
) -> str:
    """See `finetune`."""
    quieten()
    check_seed(seed)
    run = RunFolder(out)
    if run.has(BEST):
        raise ConfigError(f"{run.where(BEST)}: this run exists; choose another --out or delete it")
    _check_length(data, epochs, best_epoch)
    _check_start(pretrained, new_crn, freeze_crn, linear_probe)
    feature_set = FeatureSet.open(data.features)
    pl.seed_everything(seed, verbose=False)
    _check_same_checkpoint(feature_set, pretrained)
    dim, device = feature_set.provenance["dim"], hardware.device()
    model = SceneBoundary(None if linear_probe else _network(dim, pretrained, new_crn, crn), dim).to(device)
    sets = _load_sets(feature_set, data, best_epoch, model.shots, device)
    batches = Batches(sets.train, data.batch, seed)
    hardware.say_device()

    run.path.mkdir(parents=True, exist_ok=True)
    write_atomically(run.path / "config.yaml", yaml.safe_dump(recipe, sort_keys=False).encode())
    run.publish()  # fails here, before the long work, if `out` cannot be written
    if freeze_crn:
        module = _linear_layer_alone(model, sets, batches, optimiser, epochs)
    else:
        module = Finetuning(model, sets.train, sets.chooser, batches, optimiser, epochs)
    _trainer(run, epochs, len(batches)).fit(module)
    model.to(device)
    if module.best is not None:
        module.model.load_state_dict(module.best)
    chosen_from = None if sets.chooser is None else data.val if sets.chooser[0] == "val" else TEST
    split, films = (data.train, sets.train) if sets.val is None else (data.val, sets.val)
    chosen: dict[str, Any] = {"best_epoch": module.best_epoch, "best_epoch_from": chosen_from}
    chosen |= {"threshold": best_threshold(films.scores(model)), "threshold_from": split}
    state = _content(model, feature_set, data, pretrained)
    checkpoint.save(run.path / BEST, state | chosen | {"recipe": recipe})
    run.publish()
    why = f", chosen on the {chosen_from} films" if chosen_from else ""
    print(f"checkpoint: {masked(run.where(BEST))} (epoch {module.best_epoch + 1} of {epochs}{why})", flush=True)
    return run.where(BEST)


# Before the first step


def _check_length(data: Data, epochs: int, best_epoch: BestEpoch) -> None:
    """Raises: ConfigError for no epochs, or a best epoch chosen on test films without saying so."""
    if epochs < 1:
        raise ConfigError(f"epochs {epochs}: must be at least 1")
    if data.val == TEST and best_epoch == "validation":
        raise ConfigError(
            f"data.val {TEST}: to choose the epoch on test films, give --best_epoch test_as_the_reference_does"
        )


def _check_start(pretrained: str | None, new_crn: bool, freeze_crn: bool, linear_probe: bool) -> None:
    """Raises: ConfigError for options that contradict each other."""
    if new_crn and pretrained is None:
        raise ConfigError("new_crn: without --pretrained the network is new anyway; leave --new_crn out")
    if freeze_crn and (pretrained is None or new_crn):
        raise ConfigError("freeze_crn: a new network is untrained; give --pretrained and leave out --new_crn")
    if linear_probe and (freeze_crn or new_crn):
        raise ConfigError("linear_probe: has no contextual relation network; leave out --freeze_crn and --new_crn")


def _check_same_checkpoint(feature_set: FeatureSet, pretrained: str | None) -> None:
    """Raises: FeatureError if the features were not extracted with `pretrained`."""
    if pretrained is None:
        return
    noted = feature_set.provenance["checkpoint_sha256"]
    if noted is None:
        raise FeatureError(
            f"{feature_set.root}: the checkpoint of these features is unknown; "
            f"import them again with --checkpoint {pretrained}"
        )
    if checkpoint.find(pretrained) is None:
        raise CheckpointError(f"{pretrained}: no such checkpoint; give the one the features were extracted with")
    if checkpoint.sha256(pretrained) != noted:
        raise FeatureError(
            f"{feature_set.root}: extracted with another checkpoint than {pretrained}; "
            f"use {feature_set.provenance['checkpoint']} or extract again"
        )


def _network(dim: int, pretrained: str | None, new_crn: bool, crn: CRN) -> ContextualRelationNetwork:
    """The network to start from."""
    if pretrained is None:
        return ContextualRelationNetwork(dim, **asdict(crn))
    trained = getattr(load_model(pretrained).method, "crn", None)
    if trained is None:
        raise CheckpointError(f"{pretrained}: has no contextual relation network; leave --pretrained out")
    network = make(describe(trained), ContextualRelationNetwork) if new_crn else trained
    return network.requires_grad_(True)  # some methods leave parts of it frozen


def _load_sets(feature_set: FeatureSet, data: Data, best_epoch: BestEpoch, shots: int, device: torch.device) -> Sets:
    """The windows of the splits, on the device.

    Raises:
        FeatureError, ConfigError: a split without films or labels, or a batch larger than the training films.
    """

    def windows(split: str) -> Windows | None:
        films = feature_set.films(split)
        return Windows.load(films, shots, device) if films else None

    train = windows(data.train)
    if train is None:
        raise FeatureError(f"{data.features}: no film in split '{data.train}'; choose another --data.train")
    if not _has_boundary(train):
        raise FeatureError(
            f"{data.features}: split '{data.train}' has no labelled boundary; pack with anno/ and extract again"
        )
    labelled = int((train.boundary >= 0).sum())
    if data.batch > labelled:
        raise ConfigError(f"data.batch {data.batch}: there are only {labelled} labelled shots; choose fewer")
    val = windows(data.val)
    val = val if _has_boundary(val) else None
    chooser = None if val is None or best_epoch == "last" else ("val", val)
    if best_epoch == "test_as_the_reference_does":
        test = windows(TEST)
        if test is None or not _has_boundary(test):
            raise FeatureError(f"{data.features}: split '{TEST}' has no labelled boundary to choose the epoch with")
        chooser = TEST, test
    return Sets(train, val, chooser)


def _has_boundary(windows: Windows | None) -> bool:
    return windows is not None and bool((windows.boundary == 1).any())


# Training


class Batches:
    """Shots `[B]` for every step of an epoch, in the order of the plan, without unlabelled shots."""

    def __init__(self, windows: Windows, batch: int, seed: int) -> None:
        self._shots = torch.nonzero(windows.boundary >= 0)[:, 0]
        self.plan = Plan(len(self._shots), batch, seed)
        self._epoch = 0

    def __len__(self) -> int:
        return self.plan.steps

    def __iter__(self) -> Iterator[Tensor]:
        for step in range(len(self)):
            yield self._shots[torch.from_numpy(self.plan.batch(self._epoch, step)).to(self._shots.device)]
        self._epoch += 1


class Finetuning(pl.LightningModule):
    """Class-balanced cross-entropy of windows; keeps the weights of the epoch with the highest AP on chosen films.

    Args:
        model: the model to train.
        train: windows to train on.
        chooser: name and windows of the split that chooses the best epoch; None keeps the last.
        batches, optimiser, epochs: order, optimiser and length of training.
    """

    def __init__(
        self,
        model: SceneBoundary,
        train: Windows,
        chooser: tuple[str, Windows] | None,
        batches: Batches,
        optimiser: Optimiser,
        epochs: int,
    ) -> None:
        super().__init__()
        self.model = model
        # Not modules or buffers: Lightning must neither move nor save the features.
        self.data, self._batches, self._optimiser, self._epochs = (train, chooser), batches, optimiser, epochs
        self.best_ap, self.best_epoch = -1.0, epochs - 1
        self.best: dict[str, Any] | None = None

    def configure_optimizers(self) -> dict:
        plan = self._batches.plan
        return build_optimiser(self._optimiser, self.model, plan.global_batch, self._epochs * plan.steps)

    def train_dataloader(self) -> Batches:
        return self._batches

    def training_step(self, shots: Tensor, batch_idx: int) -> Tensor:
        train, _ = self.data
        loss = balanced_cross_entropy(self.model(train[shots]), train.boundary[shots])
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def on_train_epoch_end(self) -> None:
        _, chooser = self.data
        if chooser is not None:
            split, windows = chooser
            ap = scene_metrics(windows.scores(self.model))["ap"]
            self.model.train()
            self.log(f"{split}/ap", ap, prog_bar=True)
            if ap > self.best_ap:
                self.best_ap, self.best_epoch = ap, self.current_epoch
                self.best = copy.deepcopy(self.model.state_dict())


def _linear_layer_alone(
    model: SceneBoundary, sets: Sets, batches: Batches, optimiser: Optimiser, epochs: int
) -> Finetuning:
    """Fine-tuning of only the linear layer of `model`, in place, on outputs of its network that are computed once."""
    model.eval()

    def fixed(windows: Windows) -> Windows:
        return Windows(windows.films, windows.each(model.represent), shots=1)

    probe = SceneBoundary(None, model.head.in_features)
    probe.head = model.head
    chooser = sets.chooser and (sets.chooser[0], fixed(sets.chooser[1]))
    return Finetuning(probe, fixed(sets.train), chooser, batches, optimiser, epochs)


def _trainer(run: RunFolder, epochs: int, steps: int) -> pl.Trainer:
    bar, callbacks = progress_callbacks()
    return pl.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=epochs,
        logger=loggers(run.path),
        callbacks=callbacks if bar else [],
        enable_progress_bar=bar,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=max(1, min(50, epochs * steps // 50)),
        num_sanity_val_steps=0,
    )


# Contents of the checkpoint


def _content(model: SceneBoundary, feature_set: FeatureSet, data: Data, pretrained: str | None) -> dict[str, Any]:
    """The model, and what it was trained on."""
    return {
        "model": section_of(model, _views(feature_set), _encoder(feature_set, pretrained)),
        "state_dict": {name: value.cpu() for name, value in model.state_dict().items()},
        "trained_on": {"features": masked(data.features), "pretrained": pretrained and masked(pretrained)},
        "checkpoint_sha256": feature_set.provenance["checkpoint_sha256"],
    }


def _encoder(feature_set: FeatureSet, pretrained: str | None) -> dict[str, Any] | None:
    """The encoder that made the features, so that `scenes` can encode films; None if it is not found."""
    made_by = feature_set.provenance
    path = pretrained or made_by["checkpoint"]
    with suppress(RemoteError):
        if path and checkpoint.find(path) and checkpoint.sha256(path) == made_by["checkpoint_sha256"]:
            return encoder_alone(path)
    where = masked(str(feature_set.root))
    print(f"note: the encoder that made {where} was not found; `bassl-fast scenes` will need it as --encoder")
    return None


def _views(feature_set: FeatureSet) -> TestViews:
    """The test views the features were made from; for imported features, those of the reference."""
    transform = feature_set.provenance["transform"] or {}
    return TestViews(**{name: value for name, value in transform.items() if name != "split"})
