"""`bassl-fast finetune`: cached features and labels -> a contextual relation network that finds scene boundaries.

All features live on the device; a batch is a gather by a table of windows. There is nothing to load, so there are no
worker processes. Where only the head is trained, what it sees of every shot is computed once.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from bassl_fast.checkpoints import checkpoint
from bassl_fast.checkpoints.build import build_pretrained, encoder_state
from bassl_fast.heads.crn import ContextualRelationNetwork
from bassl_fast.methods.losses import balanced_cross_entropy
from bassl_fast.metrics.scenes import best_threshold, scene_metrics
from bassl_fast.runtime import hardware
from bassl_fast.runtime.run_folder import RunFolder
from bassl_fast.training.optim import Optimiser
from bassl_fast.training.progress import progress
from pipelines.plan import Plan
from pipelines.rng import check_seed
from pipelines.views import TestViews
from shard_tools.errors import CheckpointError, ConfigError, FeatureError, RemoteError, masked

from .features import FeatureSet
from .model import SceneBoundary
from .windows import Windows

BEST = "best.ckpt"
TEST = "test"
BestEpoch = Literal["validation", "last", "test_as_the_reference_does"]


@dataclass(frozen=True)
class Data:
    """What to train on.

    Args:
        features: folder or address that `bassl-fast extract` wrote to.
        train: split to train on.
        val: split that chooses the best epoch and the threshold, not that of the test; where it has no boundary, the
            last epoch is kept and the threshold comes from the training films.
        batch: windows a step.
    """

    features: str
    train: str = "train"
    val: str = "val"
    batch: int = 1024


@dataclass(frozen=True)
class CRN:
    """Shape of a new contextual relation network; one from a checkpoint keeps its own."""

    hidden: int = 768
    intermediate: int = 3072
    heads: int = 8
    layers: int = 2
    shots: int = 17
    dropout: float = 0.1
    similarity_init: bool = False

    def __post_init__(self) -> None:
        if self.shots < 3 or self.shots % 2 == 0:
            raise ConfigError(f"crn.shots {self.shots}: a window needs an odd number of shots, at least 3")


class _Batches:
    """Shots `[B]` of every step of an epoch, in the order of the plan; unlabelled shots are left out."""

    def __init__(self, windows: Windows, batch: int, seed: int) -> None:
        self._shots = torch.nonzero(windows.boundary >= 0)[:, 0]
        self.plan = Plan(len(self._shots), batch, seed)
        self._epoch = 0

    def __len__(self) -> int:
        return self.plan.steps

    def __iter__(self):
        for step in range(len(self)):
            yield self._shots[torch.from_numpy(self.plan.batch(self._epoch, step)).to(self._shots.device)]
        self._epoch += 1


class Finetuning(pl.LightningModule):
    """Class-balanced cross-entropy of windows; keeps the weights of the epoch that is best on the judge's films.

    Args:
        model: what is trained.
        train: windows to train on.
        judge: name and windows of the split that chooses the best epoch; None keeps the last.
        batches, optimiser, epochs: order, and how to learn.
    """

    def __init__(
        self,
        model: SceneBoundary,
        train: Windows,
        judge: tuple[str, Windows] | None,
        batches: _Batches,
        optimiser: Optimiser,
        epochs: int,
    ) -> None:
        super().__init__()
        self.model = model
        # Plain attributes: Lightning must neither move nor save the features.
        self.data, self._batches, self._optimiser, self._epochs = (train, judge), batches, optimiser, epochs
        self.best_ap, self.best_epoch, self.best = -1.0, epochs - 1, None

    def configure_optimizers(self) -> dict:
        plan = self._batches.plan
        return self._optimiser.build(self.model, plan.global_batch, self._epochs * plan.steps)

    def train_dataloader(self) -> _Batches:
        return self._batches

    def training_step(self, shots: Tensor, batch_idx: int) -> Tensor:
        train, _ = self.data
        loss = balanced_cross_entropy(self.model(train[shots]), train.boundary[shots])
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def on_train_epoch_end(self) -> None:
        _, judge = self.data
        if judge is not None:
            split, windows = judge
            ap = scene_metrics(windows.scores(self.model))["ap"]
            self.model.train()
            self.log(f"{split}/ap", ap, prog_bar=True)
            if ap > self.best_ap:
                self.best_ap, self.best_epoch = ap, self.current_epoch
                self.best = copy.deepcopy(self.model.state_dict())


def finetune(
    data: Data,
    pretrained: str | None = None,
    new_crn: bool = False,
    freeze_crn: bool = False,
    linear_probe: bool = False,
    crn: CRN = CRN(),
    optimiser: Optimiser = Optimiser(name="adam", lr=2.5e-6, weight_decay=0.0, warmup=0.0),  # noqa: B008
    epochs: int = 20,
    best_epoch: BestEpoch = "validation",
    out: str = "runs/finetune",
    seed: int = 0,
    recipe: dict[str, Any] | None = None,
) -> str:
    """Train a boundary head on cached features and return the path, or address, of its checkpoint.

    Args:
        data: what to train on.
        pretrained: checkpoint whose contextual relation network to start from; the features must be its own.
        new_crn: start from a new network of the same shape instead.
        freeze_crn: train the head alone, on what the pretrained network makes of a window.
        linear_probe: train the head alone, on the feature of the centre shot, without a network.
        crn: shape of the network where there is no `pretrained`.
        optimiser: recipe of the optimiser.
        epochs: passes over all labelled shots.
        best_epoch: "validation" keeps the epoch of highest AP on the films of `data.val`, "last" the last one;
            "test_as_the_reference_does" chooses on the test films, so their scores flatter: only to compare with it.
        out: folder or address (s3://, gs://) for checkpoint, resolved config and curves.
        seed: of weights, order and dropout.

    Raises:
        FeatureError: no features, no labelled film in the split, or features of another checkpoint.
        CheckpointError: `pretrained` cannot be used.
        ConfigError: `out` holds a finished run, or options that do not go together.
        RemoteError: an address cannot be read or written in time.
    """
    check_seed(seed)
    run = RunFolder(out)
    if run.has(BEST):
        raise ConfigError(f"{run.where(BEST)}: this run exists; choose another --out or delete it")
    if epochs < 1:
        raise ConfigError(f"epochs {epochs}: must be at least 1")
    if new_crn and pretrained is None:
        raise ConfigError("new_crn: without --pretrained the network is new anyway; leave it out")
    if freeze_crn and (pretrained is None or new_crn):
        raise ConfigError("freeze_crn: a new network knows nothing; give --pretrained and leave out --new_crn")
    if linear_probe and (freeze_crn or new_crn):
        raise ConfigError("linear_probe: has no contextual relation network; leave out --freeze_crn and --new_crn")
    if data.val == TEST and best_epoch == "validation":
        raise ConfigError(f"data.val {TEST}: say it by --best_epoch test_as_the_reference_does")
    feature_set = FeatureSet.open(data.features)
    pl.seed_everything(seed, verbose=False)
    _check_same_checkpoint(feature_set, pretrained)
    dim, device = feature_set.provenance["dim"], hardware.device()
    model = SceneBoundary(None if linear_probe else _network(dim, pretrained, new_crn, crn), dim).to(device)

    def windows(split: str) -> Windows | None:
        films = feature_set.films(split)
        return Windows.load(films, model.shots, device) if films else None

    train = windows(data.train)
    if train is None:
        raise FeatureError(f"{data.features}: no film in split '{data.train}'; choose another --data.train")
    if not (train.boundary == 1).any():
        raise FeatureError(
            f"{data.features}: split '{data.train}' has no labelled boundary; pack with anno/ and extract again"
        )
    labelled = int((train.boundary >= 0).sum())
    if data.batch > labelled:
        raise ConfigError(f"data.batch {data.batch}: there are {labelled} labelled shots; choose fewer")
    hardware.say_device()
    val = windows(data.val)
    if val is not None and not (val.boundary == 1).any():
        val = None
    judge = None if val is None or best_epoch == "last" else ("val", val)
    if best_epoch == "test_as_the_reference_does":
        judge = (TEST, windows(TEST))
        if judge[1] is None or not (judge[1].boundary == 1).any():
            raise FeatureError(f"{data.features}: split '{TEST}' has no boundary to choose an epoch by")
    batches = _Batches(train, data.batch, seed)

    run.path.mkdir(parents=True, exist_ok=True)
    (run.path / "config.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    run.publish()  # what keeps it from being written to is known before the long work
    if freeze_crn:
        module = _train_head(model, train, judge, batches, optimiser, epochs)
    else:
        module = Finetuning(model, train, judge, batches, optimiser, epochs)
    bar, callbacks = progress()
    trainer = pl.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=epochs,
        logger=[CSVLogger(run.path, name="", version=""), TensorBoardLogger(run.path, name="", version="tensorboard")],
        callbacks=callbacks if bar else [],
        enable_progress_bar=bar,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=max(1, min(50, epochs * len(batches) // 50)),
        num_sanity_val_steps=0,
    )
    trainer.fit(module)
    model.to(device)
    if module.best is not None:
        module.model.load_state_dict(module.best)
    split, films = (data.train, train) if val is None else (data.val, val)
    state = {
        "recipe": recipe,
        "state_dict": {name: value.cpu() for name, value in model.state_dict().items()},
        "crn": None if model.crn is None else model.crn.shape,
        "dim": dim,
        "threshold": best_threshold(films.scores(model)),
        "threshold_from": split,
        "best_epoch": module.best_epoch,
        "best_epoch_from": None if judge is None else data.val if judge[0] == "val" else TEST,
        "checkpoint_sha256": feature_set.provenance["checkpoint_sha256"],
        "encoder": _encoder(feature_set, pretrained),
        "views": asdict(_views(feature_set)),
    }
    checkpoint.save(run.path / BEST, state)
    run.publish()
    chosen = f", chosen on the {state['best_epoch_from']} films" if judge else ""
    print(f"checkpoint: {masked(run.where(BEST))} (epoch {module.best_epoch + 1} of {epochs}{chosen})", flush=True)
    return run.where(BEST)


def _train_head(
    model: SceneBoundary,
    train: Windows,
    judge: tuple[str, Windows] | None,
    batches: _Batches,
    optimiser: Optimiser,
    epochs: int,
) -> Finetuning:
    """Fine-tuning of the head of `model`, in place, on what its network makes of every window, computed once."""
    model.eval()

    def fixed(windows: Windows) -> Windows:
        return Windows(windows.films, windows.each(model.represent), shots=1)

    probe = SceneBoundary(None, model.crn.hidden)
    probe.head = model.head
    judge = judge and (judge[0], fixed(judge[1]))
    return Finetuning(probe, fixed(train), judge, batches, optimiser, epochs)


def _encoder(feature_set: FeatureSet, pretrained: str | None) -> dict[str, Any] | None:
    """The encoder that made the features, for `scenes` to make those of a film; None where it is not at hand."""
    made_by = feature_set.provenance
    path = pretrained or made_by["checkpoint"]
    with suppress(RemoteError):
        if path and checkpoint.find(path) and checkpoint.sha256(path) == made_by["checkpoint_sha256"]:
            return encoder_state(path)
    where = masked(str(feature_set.root))
    print(f"note: the encoder that made {where} is not at hand; `bassl-fast scenes` will ask for it")
    return None


def _views(feature_set: FeatureSet) -> TestViews:
    """What the encoder saw; of imported features, what the reference shows it."""
    transform = feature_set.provenance["transform"] or {}
    return TestViews(**{name: value for name, value in transform.items() if name != "split"})


def _check_same_checkpoint(feature_set: FeatureSet, pretrained: str | None) -> None:
    if pretrained is None:
        return
    noted = feature_set.provenance["checkpoint_sha256"]
    if noted is None:
        raise FeatureError(
            f"{feature_set.root}: nothing says which checkpoint these features are of; "
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
    _, method, _ = build_pretrained(pretrained)
    if not hasattr(method, "crn"):
        raise CheckpointError(f"{pretrained}: trained no contextual relation network; leave --pretrained out")
    network = ContextualRelationNetwork(**method.crn.shape) if new_crn else method.crn
    return network.requires_grad_(True)  # some pretext losses leave it, or parts of it, frozen
