"""`bassl-fast pretrain` and `train`: shards -> a trained encoder, with labels or without."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .options import Data, Optimiser, Training

if TYPE_CHECKING:
    from bassl_fast.encoders import Encoder
    from bassl_fast.methods import Method


def pretrain(
    data: Data,
    encoder: Callable[[], Encoder],
    method: Callable[[int], Method],
    optimiser: Optimiser = Optimiser(),
    training: Training = Training(),
    initial_encoder: str | None = None,
    out: str = "runs/pretrain",
    seed: int = 0,
    resume: bool = False,
    recipe: dict[str, Any] | None = None,
) -> str:
    """Train an encoder with a method and return the path, or address, of its checkpoint.

    Args:
        data: training data.
        encoder: class and arguments of the shot encoder.
        method: class and arguments of the method.
        optimiser: recipe of the optimiser.
        training: length, precision and hardware.
        initial_encoder: checkpoint whose encoder to start from, such as imported ImageNet weights; random weights if
            left out.
        out: folder or address (s3://, gs://) for checkpoint, resolved config and curves.
        seed: of weights, order, views and dropout.
        resume: resume from the checkpoint in `out`; start if there is none yet. torchrun --max-restarts implies it.

    Raises:
        ShardError, ConfigError, CheckpointError: before the first step, if the data or options cannot be used.
        PictureError, TrainingError: during training.
        RemoteError: an address cannot be read or written in time.
    """
    # torch and Lightning take seconds to import, which `--help` need not wait for.
    from bassl_fast.runtime.distributed import own_process_group
    from bassl_fast.runtime.lightning import import_lightning

    import_lightning()
    from .run import run_training

    with own_process_group():
        return run_training(data, encoder, method, optimiser, training, initial_encoder, out, seed, resume, recipe)


def train(
    data: Data,
    encoder: Callable[[], Encoder],
    method: Callable[[int], Method],
    optimiser: Optimiser = Optimiser(),
    training: Training = Training(),
    initial_encoder: str | None = None,
    out: str = "runs/train",
    seed: int = 0,
    resume: bool = False,
    recipe: dict[str, Any] | None = None,
) -> str:
    return pretrain(data, encoder, method, optimiser, training, initial_encoder, out, seed, resume, recipe)


train.__doc__ = (pretrain.__doc__ or "").replace("with a method", "and a classifier with labels", 1)
