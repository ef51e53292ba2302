"""`bassl-fast classify`: a classifier and labelled pictures or videos -> how often it is right.

A picture is judged by its test view, a video by K clips of one or three crops each: the mean of the probabilities of
all its views. While training, one view of each "val" picture or video.
"""

from __future__ import annotations

import json

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipelines.clips import Clips
from pipelines.shot_loader import ShotLoader
from pipelines.views import TestViews
from shard_tools.errors import CheckpointError, ConfigError, masked
from shard_tools.format import CLIPS, PICTURES, ShardIndex, npz_bytes, write_atomically

from . import hardware
from .distributed import total
from .methods import Classifier, Method, Supervised
from .methods.method import for_encoder
from .models import build_pretrained, test_views
from .module import Pretraining
from .run_folder import RunFolder, folder_of
from .validation import Measure

KS = (1, 5)


def over_views(network: nn.Module, loader: ShotLoader, clips: bool, bar: tqdm | None = None) -> Tensor:
    """What `network` says `[N, ...]` of the N pictures or videos of `loader`: the mean over the views of each, float32.

    Args:
        network: an encoder, or a `Classifier`.
        clips: hand it clips `[n, 3, T, H, W]`, and not pictures.
    """
    found: list[Tensor] = []
    part, each = torch.empty(0), loader.views_a_shot
    for _, images in loader:
        said = network(for_encoder(images if clips else images[:, 0])).float()
        # A batch may end among the views of one video.
        part = torch.cat([part, said]) if len(part) else said
        whole = len(part) // each * each
        found.append(part[:whole].unflatten(0, (-1, each)).mean(1))
        part = part[whole:]
        if bar is not None:
            bar.update(len(images))
    return torch.cat(found)


def run(
    network: nn.Module,
    index: ShardIndex,
    films: np.ndarray,
    views: TestViews,
    clips: Clips | None,
    *,
    count: int,
    precision: hardware.Precision,
    batch: int,
    threads: int,
) -> Tensor:
    """What `network` says `[N, ...]` of the pictures or videos `films` `[N]`, on the CPU; see `over_views`.

    Args:
        views, clips, count: what is looked at, see `ShotLoader`; clips is None for pictures.
        precision, batch, threads: as of `classify`.
    """
    device = hardware.device()
    kwargs = {"count": count, "batch": batch, "device": device, "threads": hardware.threads(threads)}
    loader = ShotLoader(index, films, views, clips or Clips(1), **kwargs)
    network = network.eval().to(device)
    with (
        hardware.autocast(hardware.precision(precision)),
        tqdm(total=len(films) * loader.views_a_shot, desc="look", unit="view", disable=None) as bar,
    ):
        said = over_views(network, loader, clips is not None, bar).cpu()
    if not torch.isfinite(said).all():
        raise CheckpointError("the network says what is no number; try --precision 32-true, or train it again")
    return said


def views_like(trained: TestViews, crops: int, size: int | None, short_side: int | None) -> TestViews:
    """`trained` with so many crops, and of another size where one is given."""
    size = trained.size if size is None else size
    short_side = max(size, round(size * 256 / 224)) if short_side is None else short_side
    return TestViews(short_side, size, crops, trained.mean, trained.std)


def clips_of(method: Method | None) -> Clips | None:
    """What clips a method looks at; None of one that looks at pictures, and where there is none."""
    return getattr(method, "clips", None)


def hits(probability: Tensor, labels: Tensor) -> Tensor:
    """For each of `KS`, how many of `probability` `[N, classes]` have their label `[N]` among the k most probable.

    Of equal ones, those of lower number come first.
    """
    ranked = probability.argsort(dim=1, descending=True, stable=True)
    ranks = (ranked == labels[:, None]).long().argmax(1)
    return torch.stack([(ranks < k).sum() for k in KS])


def labels_of(index: ShardIndex, films: np.ndarray, classes: int | None = None) -> np.ndarray:
    """Classes `[N]` of pictures or videos.

    Args:
        classes: that a model has; those of the set if left out.

    Raises:
        ConfigError: there are none, or not as many.
    """
    if "label" not in index.sequences.dtype.names:
        raise ConfigError(f"{index.address}: a set of films, whose shots have no class; give pictures or clips")
    labels, there = index.sequences["label"][films].astype(np.int64), len(index.classes)
    if unlabelled := int((labels < 0).sum()):
        what = f"{unlabelled} of {len(films)} have no class"
        raise ConfigError(f"{index.address}: {what}; pack with the lists that say it")
    if classes is not None and classes != there:
        raise ConfigError(
            f"{index.address}: has {there} classes, and method.classes is {classes}; give a model of the same list"
        )
    return labels


class Accuracy(Measure):
    """Logs `val/top1` and `val/top5`, in percent, of one test view of each of `films`, every so many steps.

    Pictures are shared out among the processes.

    Args:
        index, films: what is judged, `[N]` numbers.
        steps: measure every so many steps.
        threads: CPU threads of the data pipeline; 0 takes this process's share of the cores.
    """

    def __init__(self, index: ShardIndex, films: np.ndarray, steps: int, threads: int) -> None:
        self.index, self.films, self.steps, self.threads = index, films, steps, threads

    @torch.no_grad()
    def measure(self, trainer: pl.Trainer, module: Pretraining) -> None:
        method, mine = module.method, self.films[trainer.global_rank :: trainer.world_size]
        counts = torch.zeros(len(KS), device=module.device)
        if len(mine):
            loader = ShotLoader(
                self.index,
                mine,
                method.views.at_test(),
                clips_of(method) or Clips(1),
                device=module.device,
                threads=hardware.threads(self.threads, trainer.num_devices),
            )
            labels = torch.from_numpy(labels_of(self.index, mine, method.classes)).to(module.device)
            module.eval()
            with trainer.precision_plugin.forward_context():
                said = over_views(Classifier(module.encoder, method), loader, clips_of(method) is not None)
            counts += hits(said, labels)
            module.train()
        rates = (100 * total(counts) / len(self.films)).tolist()
        found = {f"val/top{k}": rate for k, rate in zip(KS, rates, strict=True)}
        for logger in trainer.loggers:
            logger.log_metrics(found, step=trainer.global_step - 1)
        if trainer.is_global_zero:
            shown = "  ".join(f"top-{k} {rate:.1f}" for k, rate in zip(KS, rates, strict=True))
            tqdm.write(f"step {trainer.global_step}: of {len(self.films)} in percent  {shown}")


@torch.inference_mode()
def classify(
    checkpoint: str,
    shards: str,
    out: str | None = None,
    split: str = "val",
    clips: int = 1,
    crops: int = 1,
    size: int | None = None,
    short_side: int | None = None,
    precision: hardware.Precision = "auto",
    batch: int = 32,
    threads: int = 0,
) -> dict[str, float]:
    """Judge labelled pictures or videos; write `predictions.npz` and `accuracy.json`; return top-1 and top-5.

    The published tests of videos take 10 clips x 3 crops of 256 pixels (Kinetics, UCF101, HMDB51), or 2 x 3
    (Something-Something): `--clips 10 --crops 3 --size 256 --short_side 256`.

    Args:
        checkpoint: of a classifier, that `bassl-fast train` or `import-checkpoint` wrote.
        shards: folder that `bassl-fast pack` wrote, of pictures or clips.
        out: folder or address for the results; `classify-<split>/` beside the checkpoint if left out.
        split: "train", "val" or "test".
        clips: of each video, spread over its length.
        crops: of each clip: 1, in the middle, or 3 along its long side.
        size: side of a crop in pixels; that of training if left out.
        short_side: of a picture before it is cut; 256 / 224 of the size if left out.
        precision: of the network; "auto" is bfloat16 where the hardware multiplies it, else float32.
        batch: clips or pictures at a time.
        threads: CPU threads of the data pipeline; 0 takes the cores there are.

    Raises:
        CheckpointError: no classifier.
        ConfigError: labels that it does not know, or clips of pictures.
    """
    encoder, method, _ = build_pretrained(checkpoint)
    if not isinstance(method, Supervised):
        raise CheckpointError(f"{checkpoint}: is no classifier; train one on it by `bassl-fast train`")
    if method.clips is None and clips > 1:
        raise ConfigError(f"clips {clips}: this classifier looks at pictures; leave it out")
    if clips < 1:
        raise ConfigError(f"clips {clips}: must be at least 1")
    index = ShardIndex.open(shards)
    if method.clips is not None and index.kind == PICTURES:
        raise ConfigError(f"{shards}: a set of pictures, and this classifier looks at clips")
    films = index.select(split)
    if method.clips is None and index.kind == CLIPS:
        print("note: this classifier looks at pictures, so one frame of each video is judged")
    labels = labels_of(index, films, method.classes)
    views = views_like(test_views(encoder, method), crops, size, short_side)
    hardware.say_device()
    probability = run(
        Classifier(encoder, method),
        index,
        films,
        views,
        method.clips,
        count=clips,
        precision=precision,
        batch=batch,
        threads=threads,
    )
    right = hits(probability, torch.from_numpy(labels)).tolist()
    found = {f"top{k}": 100 * count / len(films) for k, count in zip(KS, right, strict=True)}
    folder = RunFolder(f"{folder_of(checkpoint)}/classify-{split}" if out is None else out)
    folder.path.mkdir(parents=True, exist_ok=True)
    arrays = {"name": index.sequences["name"][films], "label": labels, "probability": probability.numpy()}
    write_atomically(folder.path / "predictions.npz", npz_bytes(**arrays))
    facts = {"split": split, "number": len(films), "clips": clips, "crops": crops, "size": views.size, **found}
    write_atomically(folder.path / "accuracy.json", (json.dumps(facts, indent=1) + "\n").encode())
    folder.publish()
    print(f"{len(films)} of split {split}: " + ", ".join(f"top-{k} {found[f'top{k}']:.2f} %" for k in KS))
    print(f"results: {masked(folder.where('predictions.npz'))}")
    return found
