"""The last phase of a training, in which posteriors are refitted and all else is frozen."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from deepscm_pl.checks import whole_number
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training.objectives import Objective, TrainingProgress
from deepscm_pl.training.schedule import number_of_steps, refit_start
from deepscm_pl.training.stored import StoredModule

__all__ = ["RefittingModule"]

_COMPLETE = 2**62  # steps, and epochs, of a training that is complete


class RefittingModule(StoredModule):
    """A module that refits the posteriors q(z | x, pa) if its objective requires it.

    The best q under a weighted divergence is not the posterior. In the last steps of the training,
    a fraction ``objective.refit`` of all, only the parameters of q are trained.

    Attributes:
        refit_steps: Number of refitting steps, 0 before.
    """

    scm: StructuralCausalModel
    objective: Objective

    def __init__(self) -> None:
        super().__init__()
        self._total_steps: int | None = None
        self._repeated: tuple[int, int] | None = None
        self.refit_steps = 0

    @property
    def progress(self) -> TrainingProgress:
        """The progress of the training."""
        if self._repeated is None:
            return TrainingProgress(self.global_step, self.current_epoch, self._total_steps)
        first, spacing = self._repeated
        position = (self.global_step - first) % spacing
        is_last = self.global_step >= first and position >= refit_start(spacing, self.refit)
        return TrainingProgress(_COMPLETE, _COMPLETE, _COMPLETE if is_last else None)

    def repeat_phases(self, first: int, spacing: int) -> None:
        """Repeat both phases in every ``spacing`` steps from the step ``first`` on.

        A finished training continues: a warm-up of the objective is complete.
        """
        self._repeated = first, spacing

    @property
    def has_refit(self) -> bool:
        """Whether the training ends with a phase of refitting."""
        return self.objective.refit > 0 and bool(self._posterior_parameters)

    @property
    def refit(self) -> float:
        """The fraction of the steps of that phase."""
        return self.objective.refit if self.has_refit else 0.0

    @property
    def phase(self) -> dict[str, float]:
        """The quantity ``phase``, 1 or 2, if there are two phases."""
        return {"phase": float(1 + self.is_refitting)} if self.has_refit else {}

    @property
    def is_refitting(self) -> bool:
        """Whether only the posteriors are trained now."""
        return self.has_refit and self.objective.is_refitting(self.progress)

    @property
    def posterior_fit(self) -> str:
        """The fit of the posteriors in words, if the objective is not the evidence lower bound."""
        if self.refit_steps:
            return (
                f"refitted in the last {self.refit_steps:,} steps by the evidence lower bound, "
                "everything else frozen"
            )
        if self.objective.is_weighted and self._posterior_parameters:
            return (
                "trained with a weighted divergence and not refitted; the spread of its draws is "
                "not that of the posterior, and intervals are not reliable"
            )
        return ""

    @property
    def _posterior_parameters(self) -> set[Tensor]:
        found = {each for n in self.scm.graph for each in self.scm[n].posterior_parameters()}
        return found.union(self.scm.missing_values.parameters())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the number of refitting steps."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["refit_steps"] = self.refit_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the number of refitting steps."""
        super().on_load_checkpoint(checkpoint)
        steps = checkpoint.get("refit_steps", 0)
        self.refit_steps = whole_number("refit_steps", steps, least=0)

    def on_train_start(self) -> None:
        """Find the number of steps; ValueError if there is a last phase, but no limit of steps."""
        if self.has_refit and self._repeated is None:
            self._total_steps = number_of_steps(self.trainer, "objective: refit")

    def on_train_end(self) -> None:
        """Warn if a training that is complete has ended before the last phase."""
        total, trainer = self._total_steps, self.trainer
        is_resumed_later = trainer.interrupted or trainer.received_sigterm
        if not self.has_refit or total is None or self.refit_steps or is_resumed_later:
            return
        start = refit_start(total, self.refit)
        if start < total and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn(
                f"the training ended at step {self.global_step:,}, but the posterior would have "
                f"been refitted from step {start:,} on: intervals are not reliable. Limit "
                "trainer.max_epochs instead of stopping early, or set the objective's refit to 0."
            )

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Freeze everything but the posteriors while these are refitted."""
        is_refitting = self.is_refitting
        self.refit_steps = self.refit_steps + 1 if is_refitting else 0
        if is_refitting:
            trained = self._posterior_parameters
            for parameter in self.parameters():
                if parameter not in trained:
                    parameter.grad = None  # requires_grad must be the same on all processes
