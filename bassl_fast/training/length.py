"""Whether a run may resume with another number of steps: only if nothing so far would have been otherwise."""

from __future__ import annotations

from bassl_fast.methods import Method
from bassl_fast.methods.momentum import MomentumMethod
from shard_tools.errors import CheckpointError

from .optim import rate_factor
from .options import Optimiser, Training


def check_length(
    path: str, done: int, was: int, total: int, optimiser: Optimiser, training: Training, task: Method
) -> None:
    """Check that the first `done` steps of a run of `was` steps are those of a run of `total` steps.

    Raises:
        CheckpointError: they are not; names what differs.
    """
    if total == was:
        return
    if total < done:
        raise CheckpointError(f"{path}: is at step {done}; resume with at least as many training.steps, not {total}")
    if (why := _differs(done, was, total, optimiser, training, task)) is not None:
        raise CheckpointError(
            f"{path}: cannot go from {was} steps to {total}, as {why} follows the length of the run; resume with {was} "
            f"steps, or start a new run with --initial_encoder {path}"
        )


def _differs(done: int, was: int, total: int, optimiser: Optimiser, training: Training, task: Method) -> str | None:
    """What was otherwise in the first `done` steps; None if nothing was."""
    before, after = (rate_factor(optimiser, length) for length in (was, total))
    if any(before(step) != after(step) for step in range(done + 1)):  # the next step's rate is set already
        return f"the learning rate (optimiser.schedule {optimiser.schedule})"
    if isinstance(task, MomentumMethod):
        if any(task.momentum_at(step, was) != task.momentum_at(step, total) for step in range(done)):
            return "the momentum of the target network"
    elif done and type(task).after_step is not Method.after_step:
        return f"what {type(task).__name__} does after a step"
    if any(min(round(until * was), done) != min(round(until * total), done) for _, until in training.smaller_views):
        return "the size of views (training.smaller_views)"
    return None
