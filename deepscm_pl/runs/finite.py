"""Detection of losses and gradients that are not finite, without synchronising in every step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
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
    "Problem",
    "SkipSteps",
    "gradient_norm",
    "problem_of",
    "require_finite_terms",
]


class BatchRecord(NamedTuple):
    """The properties of a batch that an error message contains.

    ``quantities`` are terms of the scalar loss, ``(batch,)`` each, of which ``bound`` is the sum.
    ``rows`` are the row numbers of the images, ``(batch, 1)``; None where the data have none.
    """

    epoch: int
    number: int
    loss: Tensor
    quantities: Mapping[str, Tensor]
    rows: Tensor | None


class Problem(NamedTuple):
    """A quantity that is not finite, and whether each image is affected, ``(batch,)``."""

    term: str
    images: Tensor
    batch: BatchRecord


class _Check(NamedTuple):
    """The check of a step: ``flag`` is true if all is finite, and valid after ``arrival``."""

    batches: tuple[BatchRecord, ...]
    norms: Mapping[str, Tensor]
    flag: Tensor
    arrival: torch.cuda.Event | None

    def problem(self) -> Problem | None:
        if self.arrival is not None:
            self.arrival.synchronize()
        if bool(self.flag):
            return None
        for batch in self.batches:
            if not bool(batch.loss.isfinite()):
                return problem_of(batch)
        broken = [name for name, norm in self.norms.items() if not bool(norm.isfinite())]
        batch = self.batches[-1]
        return Problem(f"the gradient of {', '.join(broken)}", _all_images(batch), batch)


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor | None:
    """The Euclidean norm of the gradients of parameters, a scalar; None if none has a gradient."""
    gradients = [each.grad for each in parameters if each.grad is not None]
    return get_total_norm(gradients) if gradients else None


def problem_of(batch: BatchRecord) -> Problem:
    """The term that is not finite and its images; the largest term if only their sum overflows."""
    terms = {k: v for k, v in batch.quantities.items() if not k.startswith("bound")}
    for name, values in terms.items():
        if not bool(values.isfinite().all()):
            return Problem(name, ~values.isfinite(), batch)
    if not terms or bool(batch.quantities.get("bound", batch.loss).isfinite().all()):
        return Problem("objective", _all_images(batch), batch)
    largest = max(terms, key=lambda name: float(terms[name].abs().max()))
    return Problem(largest, _all_images(batch), batch)


def _all_images(batch: BatchRecord) -> Tensor:
    values = next(iter(batch.quantities.values()), batch.rows)
    return torch.ones(1 if values is None else len(values), dtype=torch.bool)


def _check(batches: tuple[BatchRecord, ...], norms: Mapping[str, Tensor]) -> _Check:
    scalars = [each.loss.detach() for each in batches] + list(norms.values())
    flag = torch.stack([scalar.float() for scalar in scalars]).isfinite().all()
    if flag.device.type != "cuda":
        return _Check(batches, norms, flag, None)
    # Only copies to pinned memory do not block.
    on_host = torch.empty((), dtype=torch.bool, pin_memory=True)
    on_host.copy_(flag, non_blocking=True)
    arrival = torch.cuda.Event()
    arrival.record()
    return _Check(batches, norms, on_host, arrival)


class FiniteCheck(pl.Callback):
    """Stop a training at a loss or gradient that is not finite, and name the term and the images.

    On the CPU, each step is checked before the optimiser changes the weights. On a GPU, the result
    is read ``delay`` steps later, so that no step synchronises with the device. A checkpoint is
    saved only if all steps so far were finite.

    :class:`~deepscm_pl.training.DeepSCM` adds this callback itself; add it to the trainer for
    modules of your own, after callbacks that change gradients. A module may have an attribute
    ``loss_terms``, the terms of its latest loss by name, ``(batch,)`` each, and a method
    ``gradient_groups()`` that returns parameters by the name under which they are reported.

    Args:
        delay: Number of steps after which the result of a GPU is read.

    Example:
        >>> check = FiniteCheck()
        >>> values = torch.tensor([1.0, float("nan")])
        >>> check.note(BatchRecord(0, 7, values.sum(), {"log_prob/image": values}, None))
        >>> problem = check.step({})
        >>> problem.term, problem.images.tolist(), problem.batch.number
        ('log_prob/image', [False, True], 7)
    """

    def __init__(self, delay: int = 2) -> None:
        self.delay = whole_number("delay", delay, least=0)
        self._batches: list[BatchRecord] = []
        self._checks: deque[_Check] = deque()
        self._batch: tuple[Any, int] = (None, 0)

    def note(self, batch: BatchRecord) -> None:
        """Add a batch that contributes to the next step."""
        self._batches.append(batch)

    def step(self, norms: Mapping[str, Tensor]) -> Problem | None:
        """Check the next step, given the norms of its gradients; return the first problem found."""
        if not self._batches:
            return None
        self._checks.append(_check(tuple(self._batches), norms))
        self._batches.clear()
        return self.finish(self.delay if self._checks[-1].arrival is not None else 0)

    def finish(self, unread: int = 0) -> Problem | None:
        """Wait for the checks of all but the latest ``unread`` steps; return the first problem."""
        while len(self._checks) > unread:
            problem = self._checks.popleft().problem()
            if problem is not None:
                self._checks.clear()
                return problem
        return None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Discard the steps of an interrupted training."""
        self._batches.clear()
        self._checks.clear()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch for an error message."""
        self._batch = (batch, batch_idx)

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Record the loss of the batch."""
        terms = getattr(pl_module, "loss_terms", {})
        self.note(_record(trainer, *self._batch, loss, terms))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Raise FloatingPointError if the loss or a gradient is not finite; on a GPU later."""
        groups: Any = getattr(pl_module, "gradient_groups", None)
        parameters = {"the network": pl_module.parameters()} if groups is None else groups()
        norms = {name: gradient_norm(group) for name, group in parameters.items()}
        found = {name: norm for name, norm in norms.items() if norm is not None}
        if not found:  # a callback has removed the gradients
            self._batches.clear()
        # If scaled gradients overflow, the scaler of the precision plugin skips the step.
        is_scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        _raise_on(self.step({} if is_scaled else found), trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Raise FloatingPointError if the weights come from a step that was not finite."""
        self._batch = (None, 0)
        _raise_on(self.finish(), trainer, pl_module)

    # Weights may be saved after these without :meth:`on_save_checkpoint`.
    on_train_epoch_end = on_validation_start = on_train_end = on_save_checkpoint


def require_finite_terms(
    pl_module: pl.LightningModule, batch: Any, batch_idx: int, terms: Mapping[str, Tensor]
) -> None:
    """Raise FloatingPointError if a sum of terms is not finite; synchronises with the device.

    The terms have the shape ``(batch,)``, and ``bound`` is their sum.
    """
    total = terms["bound"].sum()
    if not bool(total.isfinite()):
        record = _record(pl_module.trainer, batch, batch_idx, total, terms)
        _raise_on(problem_of(record), pl_module.trainer, pl_module)


def _record(
    trainer: pl.Trainer, batch: Any, number: int, loss: Tensor, terms: Mapping[str, Tensor]
) -> BatchRecord:
    rows = batch.get("index") if isinstance(batch, Mapping) else None
    detached = {name: values.detach() for name, values in terms.items()}
    return BatchRecord(trainer.current_epoch, number, loss.detach(), detached, rows)


def _raise_on(problem: Problem | None, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    if problem is None:
        return
    images, batch = problem.images, problem.batch
    callback = trainer.checkpoint_callback
    saved = getattr(callback, "last_model_path", "") or getattr(callback, "best_model_path", "")
    kept = f" The last good checkpoint is {saved}." if saved else ""
    is_intact = all(bool(torch.isfinite(each).all()) for each in pl_module.parameters())
    weights = "" if is_intact else " The parameters are no longer finite."
    raise FloatingPointError(
        f"stopped: {problem.term} is not finite for {int(images.sum())} of {len(images)} images in "
        f"batch {batch.number} of epoch {batch.epoch}{_rows_in_words(problem, trainer)}."
        f"{kept}{weights} Lower the learning rate, clip gradients (--trainer.gradient_clip_val 1), "
        "skip such steps (the callback deepscm_pl.callbacks.SkipSteps), or inspect these images."
    )


def _rows_in_words(problem: Problem, trainer: pl.Trainer) -> str:
    """The first rows of the affected images, with their identifiers if the data have any."""
    if problem.batch.rows is None:
        return ""
    rows: list[int] = problem.batch.rows.flatten()[problem.images.flatten()].tolist()
    names: dict[int, str] = {}
    data: Any = getattr(trainer, "datamodule", None)
    if hasattr(data, "row_names"):
        is_validating = trainer.validating or trainer.sanity_checking
        split = "test" if trainer.testing else "validation" if is_validating else "train"
        found = data.row_names(split)
        if found is not None:
            numbers = data.variables(split)["index"].flatten().tolist()
            names = dict(zip(numbers, found, strict=True))
    shown = [f"{row} ({names[row]})" if row in names else str(row) for row in rows[:5]]
    return f" (rows {', '.join(shown)}{', ...' if len(rows) > 5 else ''} of the data)"


class SkipSteps(pl.Callback):
    """Skip steps whose gradient is not finite, or has a norm above a limit.

    In deep hierarchical models, the gradient of a single batch can undo hours of training; Child
    (2021, arXiv:2011.10650, section 3.2) skips such steps. The optimiser then changes neither
    weights nor its own state; schedules continue. The number of steps skipped so far is logged as
    ``train/skipped_steps``. The norm is that before clipping; each step synchronises with the
    device.

    Args:
        largest_norm: Limit of the norm of all gradients, in nats per unit of the weights.
        most_in_a_row: Number of consecutive skipped steps after which the training stops.

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
        """Remove the gradients of a step; FloatingPointError after too many steps in a row."""
        found = gradient_norm(pl_module.parameters())
        norm = 0.0 if found is None else float(found)
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
                f"had a norm above {self.largest_norm:g} (the last one {norm:g}); lower the "
                "learning rate or raise largest_norm. The checkpoints saved so far are intact."
            )
        if self.skipped == 1:
            rank_zero_warn(
                f"skipped step {pl_module.global_step}, whose gradient has the norm {norm:g}; "
                "train/skipped_steps counts the following ones."
            )
        for parameter in pl_module.parameters():
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the number of skipped steps."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of skipped steps."""
        self.skipped = int(state_dict["skipped"])
