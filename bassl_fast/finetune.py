"""`bassl-fast finetune`: cached features and labels -> a contextual relation network that finds scene boundaries.

All features live on the device; a batch is a gather by a table of windows. There is nothing to load, so there are no
worker processes.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn

from pipelines.plan import Plan
from pipelines.windows import clipped_window
from shard_tools.errors import CheckpointError, ConfigError, FeatureError

from . import checkpoint, hardware
from .crn import ContextualRelationNetwork
from .features import FeatureSet, Film
from .losses import balanced_cross_entropy
from .metrics import FilmScores, best_threshold, scene_metrics
from .models import build_pretrained
from .optim import Optimiser
from .pretrain import check_seed, progress

BEST = "best.ckpt"


@dataclass(frozen=True)
class Data:
    """What to train on.

    Args:
        features: folder that `bassl-fast extract` wrote.
        train: split to train on.
        val: split that chooses the best epoch and the threshold; where it has no boundary, the last epoch is kept
            and the threshold comes from the training films.
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


class SceneBoundary(nn.Module):
    """Contextual relation network and a linear head: is the centre shot the last of its scene?"""

    def __init__(self, crn: ContextualRelationNetwork) -> None:
        super().__init__()
        self.crn, self.head = crn, nn.Linear(crn.hidden, 2)

    def forward(self, windows: Tensor) -> Tensor:
        """Logits `[B, 2]` from windows of features `[B, T, D]`."""
        return self.head(self.crn.pool(self.crn(windows)))


class Windows:
    """Features and windows of some films, resident on a device.

    Attributes:
        features: `[S, D]` float32, all films end to end.
        window: `[S, T]` rows of `features` around each shot, clipped at the ends of its film.
        boundary: `[S]` labels.
    """

    def __init__(self, films: list[Film], radius: int, device: torch.device) -> None:
        tables, first = [], 0
        for film in films:
            shots = len(film.shots)
            tables.append(first + clipped_window(np.arange(shots), np.full(shots, shots), radius))
            first += shots
        self.films = films
        self.features = torch.cat([torch.from_numpy(film.features.astype(np.float32)) for film in films]).to(device)
        self.window = torch.from_numpy(np.concatenate(tables)).to(device)
        labels = np.concatenate([film.shots["boundary"] for film in films]).astype(np.int64)
        self.boundary = torch.from_numpy(labels).to(device)

    def __getitem__(self, shots: Tensor) -> Tensor:
        """Windows `[B, T, D]` around the shots `[B]`."""
        return self.features[self.window[shots]]

    @torch.inference_mode()
    def scores(self, model: SceneBoundary, batch: int = 4096) -> list[FilmScores]:
        """Boundary probability of every shot, film by film."""
        model.eval()
        shots = torch.arange(len(self.window), device=self.window.device)
        probability = torch.cat([model(self[some]).softmax(-1)[:, 1] for some in shots.split(batch)]).cpu().numpy()
        parts = np.split(probability, np.cumsum([len(film.shots) for film in self.films])[:-1])
        return [
            FilmScores(film.name, part, film.shots["boundary"], film.shots["start"], film.shots["end"])
            for film, part in zip(self.films, parts, strict=True)
        ]


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
    """Class-balanced cross-entropy of windows; keeps the weights of the best validation epoch."""

    def __init__(
        self,
        model: SceneBoundary,
        train: Windows,
        val: Windows | None,
        batches: _Batches,
        optimiser: Optimiser,
        epochs: int,
    ) -> None:
        super().__init__()
        self.model = model
        # Plain attributes: Lightning must neither move nor save the features.
        self.data, self._batches, self._optimiser, self._epochs = (train, val), batches, optimiser, epochs
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
        _, val = self.data
        if val is not None:
            ap = scene_metrics(val.scores(self.model)).get("ap", 0.0)
            self.model.train()
            self.log("val/ap", ap, prog_bar=True)
            if ap > self.best_ap:
                self.best_ap, self.best_epoch = ap, self.current_epoch
                self.best = copy.deepcopy(self.model.state_dict())


def finetune(
    data: Data,
    pretrained: str | None = None,
    new_crn: bool = False,
    crn: CRN = CRN(),
    optimiser: Optimiser = Optimiser(name="adam", lr=2.5e-6, weight_decay=0.0, warmup=0.0),  # noqa: B008
    epochs: int = 20,
    out: str = "runs/finetune",
    seed: int = 0,
    recipe: dict[str, Any] | None = None,
) -> Path:
    """Train a boundary head on cached features and return the path of its checkpoint.

    Args:
        data: what to train on.
        pretrained: checkpoint whose contextual relation network to start from; the features must be its own.
        new_crn: start from a new network of the same shape instead.
        crn: shape of the network where there is no `pretrained`.
        optimiser: recipe of the optimiser.
        epochs: passes over all labelled shots.
        out: folder for checkpoint, resolved config and curves.
        seed: of weights, order and dropout.

    Raises:
        FeatureError: no features, no labelled film in the split, or features of another checkpoint.
        CheckpointError: `pretrained` cannot be used.
        ConfigError: `out` holds a finished run.
    """
    check_seed(seed)
    out_dir = Path(out)
    if (out_dir / BEST).exists():
        raise ConfigError(f"{out_dir / BEST}: this run exists; choose another --out or delete it")
    if epochs < 1:
        raise ConfigError(f"epochs {epochs}: must be at least 1")
    if new_crn and pretrained is None:
        raise ConfigError("new_crn: without --pretrained the network is new anyway; leave it out")
    feature_set = FeatureSet.open(data.features)
    pl.seed_everything(seed, verbose=False)
    network = _network(feature_set, pretrained, new_crn, crn)
    radius, device = network.shape["shots"] // 2, hardware.device()
    train = _windows(feature_set, data.train, radius, device)
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
    val = _windows(feature_set, data.val, radius, device)
    if val is not None and not (val.boundary == 1).any():
        val = None
    batches = _Batches(train, data.batch, seed)

    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "config.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    model = SceneBoundary(network).to(device)
    module = Finetuning(model, train, val, batches, optimiser, epochs)
    bar, callbacks = progress()
    trainer = pl.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=epochs,
        logger=[CSVLogger(out_dir, name="", version=""), TensorBoardLogger(out_dir, name="", version="tensorboard")],
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
        model.load_state_dict(module.best)
    judge = train if val is None else val
    state = {
        "recipe": recipe,
        "state_dict": {name: value.cpu() for name, value in model.state_dict().items()},
        "crn": network.shape,
        "threshold": best_threshold(judge.scores(model)),
        "threshold_from": data.train if val is None else data.val,
        "best_epoch": module.best_epoch,
        "checkpoint_sha256": feature_set.provenance["checkpoint_sha256"],
    }
    checkpoint.save(out_dir / BEST, state)
    print(f"checkpoint: {out_dir / BEST} (epoch {module.best_epoch + 1} of {epochs})", flush=True)
    return out_dir / BEST


def load_finetuned(path: str | Path) -> tuple[SceneBoundary, dict[str, Any]]:
    """Model (on the CPU) and whole state of a checkpoint of `bassl-fast finetune`.

    Raises:
        CheckpointError: it cannot be read, or its weights do not fit its shape.
    """
    state = checkpoint.load(path, "finetune")
    model = SceneBoundary(ContextualRelationNetwork(**state["crn"]))
    checkpoint.load_weights(model, state["state_dict"], "", path)
    return model, state


def _windows(feature_set: FeatureSet, split: str, radius: int, device: torch.device) -> Windows | None:
    films = feature_set.films(split)
    return Windows(films, radius, device) if films else None


def _network(feature_set: FeatureSet, pretrained: str | None, new_crn: bool, crn: CRN) -> ContextualRelationNetwork:
    """The network to start from."""
    if pretrained is None:
        return ContextualRelationNetwork(feature_set.provenance["dim"], **asdict(crn))
    if checkpoint.sha256(pretrained) != feature_set.provenance["checkpoint_sha256"]:
        raise FeatureError(
            f"{feature_set.root}: extracted with another checkpoint than {pretrained}; "
            f"use {feature_set.provenance['checkpoint']} or extract again"
        )
    _, method, _ = build_pretrained(pretrained)
    if not hasattr(method, "crn"):
        raise CheckpointError(f"{pretrained}: its method trains no contextual relation network; leave --pretrained out")
    network = ContextualRelationNetwork(**method.crn.shape) if new_crn else method.crn
    return network.requires_grad_(True)  # some pretext losses leave it, or parts of it, frozen
