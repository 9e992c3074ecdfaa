"""Noticing numbers that are not finite, without waiting for the device in every step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from deepscm_pl.checks import real_number, whole_number

__all__ = [
    "BatchRecord",
    "FiniteCheck",
    "FiniteWatch",
    "Problem",
    "SkipSteps",
    "gradient_norm",
    "problem_of",
    "require_finite",
]


@dataclass(frozen=True)
class BatchRecord:
    """What may have to be told of a batch.

    Attributes:
        epoch: In which it came.
        number: Of the batch in the epoch.
        loss: A scalar.
        quantities: Terms of the loss, one value per image, ``(batch,)``; ``bound`` is their sum.
        rows: ``index`` of the images, ``(batch, 1)``; None where the data have none.
    """

    epoch: int
    number: int
    loss: Tensor
    quantities: Mapping[str, Tensor]
    rows: Tensor | None


class Problem(NamedTuple):
    """What is not finite.

    Attributes:
        term: A name of a quantity, ``objective``, or ``gradient of`` what.
        images: For which images of the batch, ``(batch,)``.
        batch: In which batch.
    """

    term: str
    images: Tensor
    batch: BatchRecord


class _Check(NamedTuple):
    """The batches of a step, and whether all is well, once it has come from the device."""

    batches: tuple[BatchRecord, ...]
    norms: Mapping[str, Tensor]
    flag: Tensor
    arrival: torch.cuda.Event | None

    def is_fine(self) -> bool:
        if self.arrival is not None:
            self.arrival.synchronize()
        return bool(self.flag)


class FiniteWatch:
    """Whether losses and gradients are finite, looked at when it costs nothing.

    On the CPU every step is looked at before the optimiser moves. On a GPU the answer is on its way
    while the next steps are queued, and is looked at ``delay`` steps later; nothing waits.

    Args:
        delay: How many steps later.

    Example:
        >>> watch = FiniteWatch()
        >>> values = torch.tensor([1.0, float("nan")])
        >>> watch.note(BatchRecord(0, 7, values.sum(), {"log_prob/image": values}, None))
        >>> problem = watch.step({})
        >>> problem.term, problem.images.tolist(), problem.batch.number
        ('log_prob/image', [False, True], 7)
    """

    def __init__(self, delay: int = 2) -> None:
        self.delay = delay
        self._batches: list[BatchRecord] = []
        self._checks: deque[_Check] = deque()

    def note(self, batch: BatchRecord) -> None:
        """A batch whose gradient goes into the next step."""
        self._batches.append(batch)

    def skip(self) -> None:
        """The next step is not done: forget its batches."""
        self._batches.clear()

    def step(self, norms: Mapping[str, Tensor]) -> Problem | None:
        """A step of the optimiser is about to be done.

        Args:
            norms: Of the gradients, by what they are gradients of.

        Returns:
            What is wrong with this step or an earlier one.
        """
        if not self._batches:
            return None
        self._checks.append(_check(tuple(self._batches), norms))
        self._batches.clear()
        waiting = self.delay if self._checks[-1].arrival is not None else 0
        return self._look_until(waiting)

    def finish(self) -> Problem | None:
        """Wait for all that is on its way."""
        return self._look_until(0)

    def _look_until(self, waiting: int) -> Problem | None:
        while len(self._checks) > waiting:
            check = self._checks.popleft()
            if not check.is_fine():
                self._checks.clear()
                return _problem(check)
        return None


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor | None:
    """The Euclidean norm of the gradients of parameters, a scalar; None if none has a gradient."""
    gradients = [each.grad for each in parameters if each.grad is not None]
    return get_total_norm(gradients) if gradients else None


def _describe(problem: Problem, trainer: pl.Trainer) -> str:
    """What is not finite, where, in which images of the data, and what is left."""
    images, batch = problem.images, problem.batch
    last = getattr(trainer.checkpoint_callback, "last_model_path", "")
    best = getattr(trainer.checkpoint_callback, "best_model_path", "")
    kept = f" The last good checkpoint is {last or best}." if last or best else ""
    return (
        f"stopped: {problem.term} is not finite for {int(images.sum())} of {len(images)} images in "
        f"batch {batch.number} of epoch {batch.epoch}{_named_rows(problem, trainer)}.{kept}"
    )


def _named_rows(problem: Problem, trainer: pl.Trainer) -> str:
    if problem.batch.rows is None:
        return ""
    rows: list[int] = problem.batch.rows.flatten()[problem.images.flatten()].tolist()
    names = _row_names(trainer)
    shown = [f"{row} ({names[row]})" if row in names else str(row) for row in rows[:5]]
    return f" (rows {', '.join(shown)}{', ...' if len(rows) > 5 else ''} of the data)"


def _row_names(trainer: pl.Trainer) -> dict[int, str]:
    """By row, what the data call it, if they do."""
    data: Any = getattr(trainer, "datamodule", None)
    if not hasattr(data, "row_names"):
        return {}
    is_validating = trainer.validating or trainer.sanity_checking
    split = "test" if trainer.testing else "validation" if is_validating else "train"
    names = data.row_names(split)
    rows = [] if names is None else data.variables(split)["index"].flatten().tolist()
    return dict(zip(rows, names or [], strict=True))


def _check(batches: tuple[BatchRecord, ...], norms: Mapping[str, Tensor]) -> _Check:
    scalars = [each.loss.detach() for each in batches] + list(norms.values())
    flag = torch.stack([scalar.float() for scalar in scalars]).isfinite().all()
    if flag.device.type != "cuda":
        return _Check(batches, norms, flag, None)
    # Only a copy to pinned memory does not wait.
    host = torch.empty((), dtype=torch.bool, pin_memory=True)
    host.copy_(flag, non_blocking=True)
    arrival = torch.cuda.Event()
    arrival.record()
    return _Check(batches, norms, host, arrival)


def _problem(check: _Check) -> Problem:
    for batch in check.batches:
        if not bool(batch.loss.isfinite()):
            return problem_of(batch)
    broken = [name for name, norm in check.norms.items() if not bool(norm.isfinite())]
    batch = check.batches[-1]
    return Problem(f"the gradient of {', '.join(broken)}", _everywhere(batch), batch)


def problem_of(batch: BatchRecord) -> Problem:
    """The term at fault and its images: the largest one where only the sum of terms overflows."""
    terms = {k: v for k, v in batch.quantities.items() if not k.startswith("bound")}
    for name, values in terms.items():
        if not bool(values.isfinite().all()):
            return Problem(name, ~values.isfinite(), batch)
    if not terms or bool(batch.quantities.get("bound", batch.loss).isfinite().all()):
        return Problem("objective", _everywhere(batch), batch)
    largest = max(terms, key=lambda name: float(terms[name].abs().max()))
    return Problem(largest, _everywhere(batch), batch)


def _everywhere(batch: BatchRecord) -> Tensor:
    each = next(iter(batch.quantities.values()), batch.rows)
    return torch.ones(1 if each is None else len(each), dtype=torch.bool)


class FiniteCheck(pl.Callback):
    """Stops a training where a loss or a gradient is not finite, and names term and images.

    A training step never waits for a GPU: see :class:`FiniteWatch`. A checkpoint is saved only if
    all steps so far were finite.

    :class:`~deepscm_pl.training.DeepSCM` adds this callback itself; add it to the trainer for
    modules of your own, behind callbacks that change gradients. A module may offer ``loss_terms``,
    the terms of its latest loss by name, a value per image ``(batch,)``, and a method
    ``gradient_groups()``, parameters by the name under which their gradient is reported.

    Args:
        delay: How many steps later the answer of a GPU is looked at.
    """

    def __init__(self, delay: int = 2) -> None:
        self.delay = whole_number("delay", delay, least=0)
        self.watch = FiniteWatch(self.delay)
        self._batch: tuple[Any, int] = (None, 0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget steps of a training that was interrupted."""
        self.watch = FiniteWatch(self.delay)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch, which may have to be reported."""
        self._batch = (batch, batch_idx)

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Note the loss of the batch."""
        terms = getattr(pl_module, "loss_terms", {})
        self.watch.note(_record(trainer, *self._batch, loss, terms))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Stop where the loss or a gradient is not finite.

        Raises:
            FloatingPointError: If so; on a GPU a few steps later.
        """
        groups: Any = getattr(pl_module, "gradient_groups", None)
        parameters = {"the network": pl_module.parameters()} if groups is None else groups()
        norms = {name: gradient_norm(group) for name, group in parameters.items()}
        found = {name: norm for name, norm in norms.items() if norm is not None}
        if not found:  # a callback has taken the gradients away
            self.watch.skip()
        # A scaled gradient may overflow: then the scaler leaves the step out.
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        _stop_at(self.watch.step({} if scaled else found), trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the answers of steps that may be saved now without the trainer's state."""
        _stop_at(self.watch.finish(), trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the answers of steps that may be saved after the validation."""
        _stop_at(self.watch.finish(), trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the answers that are still on their way."""
        self._batch = (None, 0)
        _stop_at(self.watch.finish(), trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save nothing that is not finite.

        Raises:
            FloatingPointError: If the weights come from a step that was not finite.
        """
        _stop_at(self.watch.finish(), trainer, pl_module)


def require_finite(
    pl_module: pl.LightningModule, batch: Any, batch_idx: int, terms: Mapping[str, Tensor]
) -> None:
    """Stop an evaluation where a sum of terms is not finite; waits for the device.

    Args:
        pl_module: The model.
        batch: The batch.
        batch_idx: Its number.
        terms: Terms by name, a value per image ``(batch,)``; ``bound`` is their sum.

    Raises:
        FloatingPointError: If so.
    """
    total = terms["bound"].sum()
    if not bool(total.isfinite()):
        record = _record(pl_module.trainer, batch, batch_idx, total, terms)
        _stop_at(problem_of(record), pl_module.trainer, pl_module)


def _record(
    trainer: pl.Trainer, batch: Any, number: int, loss: Tensor, terms: Mapping[str, Tensor]
) -> BatchRecord:
    rows = batch.get("index") if isinstance(batch, Mapping) else None
    detached = {name: values.detach() for name, values in terms.items()}
    return BatchRecord(trainer.current_epoch, number, loss.detach(), detached, rows)


def _stop_at(problem: Problem | None, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    if problem is None:
        return
    finite = all(bool(torch.isfinite(each).all()) for each in pl_module.parameters())
    weights = "" if finite else " The parameters are no longer finite."
    raise FloatingPointError(
        f"{_describe(problem, trainer)}{weights} Lower the learning rate, clip gradients "
        "(--trainer.gradient_clip_val 1), leave such steps out (the callback "
        "deepscm_pl.callbacks.SkipSteps), or look at these images."
    )


class SkipSteps(pl.Callback):
    """Leaves out a step whose gradient is not finite, or longer than it may be.

    Deep hierarchical models now and then meet a batch with a gradient that would undo hours of
    training; to leave it out is what later work does (Child 2021, arXiv:2011.10650, section 3.2).
    Without gradients the optimiser changes neither weights nor its own state; schedules go on. The
    number of steps left out so far is logged as ``train/skipped_steps``. The norm is that before
    clipping; on a GPU it is waited for in every step.

    Args:
        largest_norm: Of all gradients together, in nats per unit of the weights.
        most_in_a_row: After how many steps left out in a row the training stops, for then
            something is broken.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> SkipSteps(largest_norm=1e4).largest_norm
        10000.0
    """

    def __init__(self, largest_norm: float = math.inf, most_in_a_row: int = 100) -> None:
        if largest_norm != math.inf:
            real_number("largest_norm", largest_norm, above=0)
        self.largest_norm = float(largest_norm)
        self.most_in_a_row = whole_number("most_in_a_row", most_in_a_row, least=1)
        self.skipped = 0
        self._in_a_row = 0

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Take the gradients away, if they are unfit.

        Raises:
            FloatingPointError: If too many steps in a row were left out.
        """
        gradients = [each.grad for each in pl_module.parameters() if each.grad is not None]
        norm = float(get_total_norm(gradients)) if gradients else 0.0
        if norm <= self.largest_norm and math.isfinite(norm):
            self._in_a_row = 0
        else:
            self._skip(norm, pl_module)
        pl_module.log("train/skipped_steps", float(self.skipped))

    def _skip(self, norm: float, pl_module: pl.LightningModule) -> None:
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row > self.most_in_a_row:
            raise FloatingPointError(
                f"stopped: {self._in_a_row} steps in a row had gradients that were not finite or "
                f"longer than {self.largest_norm:g} (the last one {norm:g}); lower the learning "
                "rate or raise largest_norm. The checkpoints saved so far are intact."
            )
        if self.skipped == 1:
            rank_zero_warn(
                f"left out step {pl_module.global_step}, whose gradient has the norm {norm:g}; "
                "train/skipped_steps counts those that follow."
            )
        for parameter in pl_module.parameters():
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The number of steps left out."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped = int(state_dict["skipped"])
