"""Fine-tuning on cached features.

All features are on the device, and a batch is gathered by a table of windows: no worker processes are needed. If only
the linear layer is trained, its inputs are computed once. The similarity head is solved exactly, and a network that is
trained together with it starts from the solution.
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
from bassl_fast.heads import ContextualRelationNetwork, FilmHead
from bassl_fast.methods.losses import balanced_cross_entropy
from bassl_fast.metrics.scenes import best_threshold, scene_metrics
from bassl_fast.runtime import hardware
from bassl_fast.runtime.quiet import quieten
from bassl_fast.runtime.run_folder import RunFolder
from bassl_fast.training.loggers import local_loggers
from bassl_fast.training.optim import build_optimiser
from bassl_fast.training.options import Optimiser
from bassl_fast.training.progress import progress_callbacks
from pipelines.plan import Plan
from pipelines.rng import check_seed
from pipelines.views import TestViews
from shard_tools.errors import CheckpointError, ConfigError, FeatureError, MissingDependency, RemoteError, masked
from shard_tools.storage.atomic import write_atomically

from . import similarity
from .features import FeatureSet
from .kinds import Kinds
from .model import SceneBoundary, section_of
from .options import CRN, PUBLISHED, BestEpoch, Data, Head
from .statistics import Reads, names
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
    head: Head | None,
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
    head = head or ("crn" if linear_probe else "both")
    run = RunFolder(out)
    if run.has(BEST):
        raise ConfigError(f"{run.where(BEST)}: this run exists; choose another --out or delete it")
    _check_length(data, epochs, best_epoch)
    _check_start(pretrained, new_crn, freeze_crn, linear_probe)
    _check_head(head, data, pretrained, linear_probe)
    _check_optimiser(head, optimiser)
    kinds = Kinds.open(data.folders)
    pl.seed_everything(seed, verbose=False)
    _check_same_checkpoint(kinds.first, pretrained)
    dim, device = kinds.first.provenance["dim"], hardware.device()
    alone = head in ("similarity", "film")  # no network sees features
    network = None if linear_probe or alone else _network(dim, pretrained, new_crn, crn)
    reads = _reads(head, kinds.have_speech(data.train))
    film = FilmHead(len(names("film"))) if head == "film" else None
    model = SceneBoundary(network, 0 if alone else dim, reads, film).to(device)
    sets = _load_sets(kinds, data, "last" if head == "similarity" else best_epoch, model, device)
    batches = None if head == "similarity" else Batches(sets.train, _batch(data, sets.train), seed)
    hardware.say_device()

    run.path.mkdir(parents=True, exist_ok=True)
    write_atomically(run.path / "config.yaml", yaml.safe_dump(recipe, sort_keys=False).encode())
    run.publish()  # fails here, before the long work, if `out` cannot be written
    held_out = _solve_statistics(model, kinds, data.train) if head in ("similarity", "both") else None
    if film is not None and sets.train.statistics is not None:
        film.standardise(sets.train.statistics)
    if batches is None:
        chosen: dict[str, Any] = {"best_epoch": 0, "best_epoch_from": None}
        said = "the similarity head, solved exactly"
    else:
        module = _train(model, sets, batches, optimiser, epochs, freeze_crn, run)
        chosen_from = None if sets.chooser is None else data.val if sets.chooser[0] == "val" else TEST
        chosen = {"best_epoch": module.best_epoch, "best_epoch_from": chosen_from}
        why = f", chosen on the {chosen_from} films" if chosen_from else ""
        said = f"epoch {module.best_epoch + 1} of {epochs}{why}"
    model.to(device)  # Lightning leaves it on the CPU
    if sets.val is None and batches is None:
        threshold = held_out
    else:
        threshold = best_threshold((sets.val or sets.train).scores(model))
    chosen |= {"threshold": threshold, "threshold_from": data.train if sets.val is None else data.val}
    checkpoint.save(run.path / BEST, _content(model, kinds, data, pretrained) | chosen | {"recipe": recipe})
    run.publish()
    print(f"checkpoint: {masked(run.where(BEST))} ({said})", flush=True)
    return run.where(BEST)


# Before the first step


def _reads(head: Head, have_speech: bool) -> Reads | None:
    """Which statistics of a cut the head reads."""
    if head == "crn":
        return None
    return "film" if head == "film" else "heard" if have_speech else "similar"


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


def _check_head(head: Head, data: Data, pretrained: str | None, linear_probe: bool) -> None:
    """Raises: ConfigError for options that do not go with the head."""
    if head == "crn" and len(data.folders) > 1:
        raise ConfigError("data.features: head crn reads one folder; give one, or --head similarity, both or film")
    if head != "crn" and linear_probe:
        raise ConfigError(f"linear_probe: is not for head {head}; leave one of them out")
    if head in ("similarity", "film") and pretrained is not None:
        raise ConfigError(f"pretrained: head {head} cannot start from a checkpoint; leave it out, or give --head both")


def _check_optimiser(head: Head, optimiser: Optimiser) -> None:
    """Raises: ConfigError for a recipe that would do nothing."""
    if optimiser.frozen_layers:
        raise ConfigError(
            f"optimiser.frozen_layers {optimiser.frozen_layers}: no encoder is trained here; leave it out"
        )
    if head == "film" and optimiser == PUBLISHED:
        raise ConfigError(
            "head film: the default optimiser is that of the published network, and would hardly train this one; "
            "add --config configs/finetune/film.yaml"
        )


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


def _load_sets(kinds: Kinds, data: Data, best_epoch: BestEpoch, model: SceneBoundary, device: torch.device) -> Sets:
    """The windows of the splits, on the device.

    Raises:
        FeatureError: a split without films or labels, or features that do not belong together.
    """
    root = kinds.first.root

    def windows(split: str) -> Windows | None:
        films = kinds.first.films(split)
        return kinds.windows(films, model, device) if films else None

    train = windows(data.train)
    if train is None:
        raise FeatureError(f"{root}: no film in split '{data.train}'; choose another --data.train")
    if not _has_boundary(train):
        raise FeatureError(f"{root}: split '{data.train}' has no labelled boundary; pack with anno/ and extract again")
    val = windows(data.val)
    val = val if _has_boundary(val) else None
    chooser = None if val is None or best_epoch == "last" else ("val", val)
    if best_epoch == "test_as_the_reference_does":
        test = windows(TEST)
        if test is None or not _has_boundary(test):
            raise FeatureError(
                f"{root}: split '{TEST}' has no labelled boundary to choose the epoch with; give --best_epoch "
                "validation"
            )
        chooser = TEST, test
    return Sets(train, val, chooser)


def _has_boundary(windows: Windows | None) -> bool:
    return windows is not None and bool((windows.boundary == 1).any())


def _batch(data: Data, train: Windows) -> int:
    """Raises: ConfigError for a batch larger than the training films."""
    labelled = int((train.boundary >= 0).sum())
    if data.batch > labelled:
        raise ConfigError(f"data.batch {data.batch}: there are {labelled} labelled shots; choose at most {labelled}")
    return data.batch


# Training


@torch.no_grad()
def _solve_statistics(model: SceneBoundary, kinds: Kinds, split: str) -> float:
    """Set the linear layer to the exact solution for the statistics alone; a threshold from films held out in turn."""
    found = similarity.fit([kinds.labelled(film, model.reads_speech) for film in kinds.first.films(split)])
    model.head.weight.zero_()
    model.head.bias.zero_()
    coefficients = torch.from_numpy(found.head.coefficients)
    model.head.weight[1, -model.statistics :], model.head.bias[1] = coefficients[:-1], coefficients[-1]
    return found.thresholds["normal"]


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
        loss = balanced_cross_entropy(self.model(*train.inputs(shots)), train.boundary[shots])
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


def _train(
    model: SceneBoundary,
    sets: Sets,
    batches: Batches,
    optimiser: Optimiser,
    epochs: int,
    freeze_crn: bool,
    run: RunFolder,
) -> Finetuning:
    """Train `model` in place, to the weights of its best epoch."""
    if freeze_crn:
        module = _linear_layer_alone(model, sets, batches, optimiser, epochs)
    else:
        module = Finetuning(model, sets.train, sets.chooser, batches, optimiser, epochs)
    _trainer(run, epochs, len(batches)).fit(module)
    if module.best is not None:
        module.model.load_state_dict(module.best)
    return module


def _linear_layer_alone(
    model: SceneBoundary, sets: Sets, batches: Batches, optimiser: Optimiser, epochs: int
) -> Finetuning:
    """Fine-tuning of only the linear layer of `model`, in place, on outputs of its network that are computed once."""
    model.eval()

    def fixed(windows: Windows) -> Windows:
        features = windows.each(lambda shots: model.represent(windows[shots]))
        return Windows(windows.films, features, shots=1, statistics=windows.statistics)

    probe = SceneBoundary(None, model.head.in_features - model.statistics, model.reads)
    probe.head = model.head
    chooser = sets.chooser and (sets.chooser[0], fixed(sets.chooser[1]))
    return Finetuning(probe, fixed(sets.train), chooser, batches, optimiser, epochs)


def _trainer(run: RunFolder, epochs: int, steps: int) -> pl.Trainer:
    bar, callbacks = progress_callbacks()
    return pl.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=epochs,
        logger=local_loggers(run.path),
        callbacks=callbacks if bar else [],
        enable_progress_bar=bar,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=max(1, min(50, epochs * steps // 50)),
        num_sanity_val_steps=0,
    )


# Contents of the checkpoint


def _content(model: SceneBoundary, kinds: Kinds, data: Data, pretrained: str | None) -> dict[str, Any]:
    """The model, and what it was trained on."""
    made = next((found for found in kinds.sets if not found.of_colours), kinds.first)
    return {
        "model": section_of(model, _views(made), _encoder(made, pretrained), kinds.names),
        "state_dict": {name: value.cpu() for name, value in model.state_dict().items()},
        "trained_on": {"features": masked(", ".join(data.folders)), "pretrained": pretrained and masked(pretrained)},
        "checkpoint_sha256": made.provenance["checkpoint_sha256"],
    }


def _encoder(feature_set: FeatureSet, pretrained: str | None) -> dict[str, Any] | None:
    """The encoder that made the features, so that `scenes` can encode films; None if it is not found."""
    if feature_set.of_colours:
        return None
    made_by = feature_set.provenance
    path = pretrained or made_by["checkpoint"]
    with suppress(RemoteError, MissingDependency):
        if path and checkpoint.find(path) and checkpoint.sha256(path) == made_by["checkpoint_sha256"]:
            return encoder_alone(path)
    where = masked(str(feature_set.root))
    print(f"note: the encoder that made {where} was not found; `bassl-fast scenes` will need it as --encoder")
    return None


def _views(feature_set: FeatureSet) -> TestViews:
    """The test views the features were made from; for imported features, those of the reference."""
    transform = feature_set.provenance["transform"] or {}
    return TestViews(**{name: value for name, value in transform.items() if name != "split"})
