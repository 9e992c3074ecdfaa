"""Training of a structural causal model by its evidence lower bound."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from deepscm_pl.checkpoints.loading import Checkpoint
from deepscm_pl.checks import whole_number
from deepscm_pl.configuration import describe
from deepscm_pl.graph import CausalGraph
from deepscm_pl.mechanisms import Context, Mechanism
from deepscm_pl.metrics import PerImageStatistics, Statistic
from deepscm_pl.runs.finite import require_finite_terms
from deepscm_pl.runs.training_state import check_monitors
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training import bound, preparation
from deepscm_pl.training.bound import read_history
from deepscm_pl.training.objectives import Objective, make_objective
from deepscm_pl.training.refit import RefittingModule
from deepscm_pl.training.schedule import Optimisation, check_learning_rates
from deepscm_pl.variables import Variables

__all__ = ["DeepSCM"]


_INFERENCE = "(missing values)"  # not the name of a variable


class DeepSCM(RefittingModule):
    """A deep structural causal model, trained by maximising its evidence lower bound.

    The loss is the negative objective in nats, averaged over the images of a batch. Logged means
    over images in train, validation and test: ``log_prob/<variable>``, ``kl/<image>``,
    ``bound/<variable>``, their sum ``bound``, and ``bits_per_dimension/<image>``; in train also
    ``objective`` and the quantities that the objective reports, such as ``kl_weight``. A mechanism
    that is trained by a loss of its own has ``loss/<variable>`` instead in train and validation;
    ``objective``, the bounds of the others less that loss, replaces ``bound`` there.

    Args:
        graph: The causal graph, as text (``thickness -> intensity; thickness, intensity -> image``)
            or as a list of parents for each variable.
        mechanisms: For each variable the class of its mechanism with its arguments.
        optimizer: The optimiser with its arguments, called with one group of parameters for each
            variable. None for :class:`torch.optim.Adam`.
        scheduler: Learning-rate scheduler with its arguments, stepped after every training step
            (``ReduceLROnPlateau`` after every epoch, by ``validation/bound``).
        learning_rates: Learning rates of single variables that differ from the optimiser's.
        num_particles: Draws of the latents in training.
        num_evaluation_particles: Draws of the latents in validation and test.
        objective: The objective with its arguments, called with ``num_particles``. None for
            :class:`~deepscm_pl.training.objectives.EvidenceLowerBoundObjective`.
        initial: A checkpoint or an exported model of the same mechanisms, with whose weights and
            statistics the training starts. A resumed training does not read it.

    Attributes:
        validation_history: The mean validation bound of each variable, in nats, once for each
            validation of the training; of a mechanism that is trained by a loss, its negative.

    Raises:
        ValueError: If the graph is not valid, or does not match the mechanisms or learning rates.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> model = DeepSCM("age -> volume", {"age": AffineFlow, "volume": AffineFlow})
        >>> model.scm.sample(3)["volume"].shape
        torch.Size([3, 1])
    """

    required_settings = ("graph", "mechanisms")

    def __init__(
        self,
        graph: str | dict[str, list[str]],
        mechanisms: dict[str, Callable[[Context], Mechanism]],
        optimizer: Callable[[Iterable[Any]], Optimizer] | None = None,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        learning_rates: dict[str, float] | None = None,
        num_particles: int = 1,
        num_evaluation_particles: int = 1,
        objective: Callable[[int], Objective] | None = None,
        initial: str | None = None,
    ) -> None:
        super().__init__()
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.save_hyperparameters(describe({**settings, "graph": str(CausalGraph(graph))}))
        self.scm = StructuralCausalModel(graph, mechanisms)
        self.optimisation = Optimisation(optimizer or torch.optim.Adam, scheduler)
        self.learning_rates = dict(learning_rates or {})
        check_learning_rates(self.learning_rates, self.scm.graph.nodes)
        self.objective = make_objective(objective, num_particles)
        particles = whole_number("num_evaluation_particles", num_evaluation_particles, least=1)
        self.num_evaluation_particles = particles
        self.initial = initial
        self.loaded_steps: int | None = None
        self.quantities = bound.quantity_names(self.scm, is_training=True)
        self.total = bound.total_name(bool(bound.loss_variables(self.scm, is_training=True)))
        self.test_quantities = bound.test_quantity_names(self.scm)
        diagnostics = bound.diagnostic_names(self.scm)
        self.quantities = (*self.quantities, *diagnostics)
        self.validation_statistics = PerImageStatistics(self.quantities)
        tested = [*bound.quantity_names(self.scm), *diagnostics]
        self.test_statistics = PerImageStatistics([*tested, *self.test_quantities])
        self.validation_history: dict[str, list[float]] = {}
        self._unlogged: dict[str, float | Tensor] | None = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the descriptions of the variables and the validation bounds with the model."""
        checkpoint["validation_history"] = {k: list(v) for k, v in self.validation_history.items()}
        checkpoint["variables"] = {k: v.describe() for k, v in self.scm.variables.items()}
        if provenance := self.objective.provenance:
            checkpoint["provenance"] = provenance
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the number of steps, and the units and class names that the data lack."""
        super().on_load_checkpoint(checkpoint)
        self.loaded_steps = checkpoint.get("global_step")
        history = read_history(checkpoint.get("validation_history", {}))
        # The best checkpoint, which is tested after a training, has only a part of its course.
        if sum(map(len, history.values())) > sum(map(len, self.validation_history.values())):
            self.validation_history = history
        for known in (Checkpoint(Path("the file"), checkpoint).variables(), self.scm.variables):
            self.scm.describe(known)

    def setup(self, stage: str) -> None:
        """Take units and class names from the data, and statistics from the training split."""
        trainer, scm = self.trainer, self.scm
        preparation.describe_variables(trainer, scm)
        preparation.require_evaluation_memory(trainer, scm, self.num_evaluation_particles)
        if stage == "fit":
            preparation.require_training_memory(trainer, scm, self.objective.num_particles)
            check_monitors(trainer, self, [f"validation/{name}" for name in self.quantities])
            self._fit_statistics()
            self.objective.freeze(scm)

    def configure_model(self) -> None:
        """Fit the statistics before callbacks that average weights copy the model."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._fit_statistics()

    def _fit_statistics(self) -> None:
        is_tried: bool = self.trainer.fast_dev_run  # type: ignore[attr-defined]
        if self.objective.needs_trained and self.initial is None and not is_tried:
            preparation.require_initial(self.scm)
        preparation.load_initial(self.scm, self.initial)
        preparation.fit_statistics(self.trainer, self.scm)

    def on_train_start(self) -> None:
        """Find the number of steps, and start the objective."""
        super().on_train_start()
        self.objective.start(self.scm, getattr(self.trainer, "datamodule", None))

    def on_validation_start(self) -> None:
        """Raise ValueError if the model was never fitted, also before test and prediction."""
        preparation.require_fitted(self.scm)

    on_test_start = on_predict_start = on_validation_start

    def training_step(self, batch: Variables, batch_index: int) -> Tensor:
        """The negative objective, in nats per image."""
        value = self.objective(self.scm, batch, self.progress)
        quantities = bound.bound_quantities(self.scm, value.elbo)
        self.loss_terms = bound.bound_terms(quantities)
        means = {name: each.detach().mean() for name, each in quantities.items()}
        self.log(f"train/{self.total}", means[self.total])
        if self.total == "bound":
            means["objective"] = value.objective.detach()
        self._unlogged = {**means, **value.logged, **self.phase}
        if self._is_logged(batch_index):
            self._log_step()
        return -value.objective

    def on_train_batch_end(self, outputs: Any, batch: Variables, batch_index: int) -> None:
        """Log the last step of a training that stops early."""
        if self.trainer.should_stop:
            self._log_step()

    def _is_logged(self, batch_index: int) -> bool:
        """Whether to log the step: every ``log_every_n_steps``, and at both ends of an epoch."""
        if self._trainer is None or batch_index == 0:
            return True
        interval = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        is_last: bool = self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        return is_last or (interval > 0 and (self.global_step + 1) % interval == 0)

    def _log_step(self) -> None:
        if self._unlogged is not None:
            on_host = torch.as_tensor(self._unlogged.pop(self.total)).cpu()
            self.log_dict({f"train/{name}": each for name, each in self._unlogged.items()})
            # Progress bars read it after every step, which would synchronise with a GPU.
            self.log(self.total, on_host, prog_bar=True, logger=False)
            self._unlogged = None

    def gradient_groups(self) -> dict[str, Iterable[Tensor]]:
        """The parameters of each variable's mechanism, and of the inference of missing values."""
        groups: dict[str, Iterable[Tensor]] = {}
        groups |= {name: self.scm[name].parameters() for name in self.scm.graph.nodes}
        inference = [*self.scm.missing_values.parameters()]
        return {**groups, _INFERENCE: inference} if inference else groups

    def validation_step(self, batch: Variables, batch_index: int) -> None:
        """Collect the quantities of a batch."""
        found = bound.diagnostic_quantities(self.scm, batch)
        found |= self._evaluate(batch, batch_index, is_training=True)
        self.validation_statistics.update(found)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all images, and keep the bounds of the course of a training."""
        found = self.log_means("validation", self.validation_statistics)
        if not self.trainer.sanity_checking:
            self._warn_of_failures(found)
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            for name in self.scm.graph.nodes:
                bounds = self.validation_history.setdefault(name, [])
                bounded = f"bound/{name}" in found
                value = found[f"bound/{name}"].mean if bounded else -found[f"loss/{name}"].mean
                bounds.append(float(value))

    def test_step(self, batch: Variables, batch_index: int) -> None:
        """Collect the quantities of a batch, and those of the test only."""
        found = bound.test_quantities(self.scm, batch, self.num_evaluation_particles)
        found |= bound.diagnostic_quantities(self.scm, batch)
        self.test_statistics.update(self._evaluate(batch, batch_index) | found)

    def on_test_epoch_end(self) -> None:
        """Log the means over all images, and keep them with standard errors in ``association``."""
        self.association: dict[str, Statistic] = self.log_means("test", self.test_statistics)
        self._warn_of_failures(self.association)

    def _warn_of_failures(self, found: dict[str, Statistic]) -> None:
        means = {name: float(statistic.mean) for name, statistic in found.items()}
        for failure in bound.failures(self.scm, means):
            rank_zero_warn(failure)

    def predict_step(self, batch: Variables, batch_index: int) -> dict[str, Tensor]:
        """The quantities of each image in the batch, ``(batch,)`` each."""
        return self._evaluate(batch, batch_index)

    def _evaluate(
        self, batch: Variables, batch_index: int, is_training: bool = False
    ) -> dict[str, Tensor]:
        elbo = self.scm.elbo(batch, self.num_evaluation_particles, is_training)
        quantities = bound.bound_quantities(self.scm, elbo)
        require_finite_terms(self, batch, batch_index, bound.bound_terms(quantities))
        return quantities

    def configure_optimizers(self) -> Any:
        """One group of parameters for each variable, with its own learning rate."""
        groups = []
        for name, parameters in self.gradient_groups().items():
            rate = {"lr": self.learning_rates[name]} if name in self.learning_rates else {}
            groups.append({"params": list(parameters), "name": name, **rate})
        return self.optimisation.configure(
            self.trainer, groups, f"validation/{self.total}", self.refit
        )
