"""Training a structural causal model by its evidence lower bound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from deepscm_pl.checkpoints.loading import Checkpoint
from deepscm_pl.checks import real_number, shown, whole_number
from deepscm_pl.configuration import describe
from deepscm_pl.data import CausalDataModule
from deepscm_pl.data.base import Split
from deepscm_pl.graph import CausalGraph
from deepscm_pl.mechanisms import Context, Mechanism
from deepscm_pl.metrics import PerImageStatistics, Statistic
from deepscm_pl.metrics.functional import bits_per_dimension, mean_absolute_error
from deepscm_pl.runs.finite import FiniteCheck, require_finite
from deepscm_pl.runs.repeatable import RepeatableRun, absent
from deepscm_pl.runs.training_state import check_monitors
from deepscm_pl.scm import EvidenceLowerBound, StructuralCausalModel
from deepscm_pl.training.objectives import (
    EvidenceLowerBoundObjective,
    Objective,
    ObjectiveValue,
    TrainingProgress,
)
from deepscm_pl.training.schedule import Optimisation, number_of_steps
from deepscm_pl.training.steps import (
    check_rows,
    require_evaluation_memory,
    require_training_memory,
)
from deepscm_pl.variables import Variables

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["DeepSCM"]


class DeepSCM(pl.LightningModule):
    """A deep structural causal model, trained by maximising its evidence lower bound.

    The loss is the negative objective, the bound itself by default, in nats, averaged over the
    images of a batch. Logged for each of train, validation and test, averaged over images:
    ``log_prob/<variable>``, ``kl/<image>``, ``bound/<variable>``, their sum ``bound``, and
    ``bits_per_dimension/<image>``, whatever the objective; for train ``objective`` and what the
    objective tells of itself, such as ``kl_weight``.

    Args:
        graph: The causal graph, as text (``thickness -> intensity; thickness, intensity -> image``)
            or as a list of parents for each variable.
        mechanisms: For each variable the class of its mechanism with its arguments.
        optimizer: The optimiser with its arguments, called with one group of parameters for each
            variable. None for :class:`torch.optim.Adam`.
        scheduler: Learning-rate scheduler with its arguments, stepped after every training step
            (``ReduceLROnPlateau`` after every epoch, watching ``validation/bound``).
        learning_rates: Learning rates of single variables, where they differ from the optimiser's.
        num_particles: Draws of the latents in training.
        num_evaluation_particles: Draws of the latents in validation and test.
        objective: What is maximised, a class of :mod:`~deepscm_pl.training.objectives` with its
            arguments; called with ``num_particles``. None for
            :class:`~deepscm_pl.training.objectives.EvidenceLowerBoundObjective`.

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
    ) -> None:
        super().__init__()
        settings = {name: value for name, value in locals().items() if name not in _NO_SETTINGS}
        settings["graph"] = str(CausalGraph(graph))
        self.save_hyperparameters(describe(settings))
        self.scm = StructuralCausalModel(graph, mechanisms)
        self.optimisation = Optimisation(optimizer or torch.optim.Adam, scheduler)
        self.learning_rates = dict(learning_rates or {})
        _check_learning_rates(self.learning_rates, self.scm.graph)
        whole_number("num_particles", num_particles, least=1)
        made = (objective or EvidenceLowerBoundObjective)(num_particles)
        if not isinstance(made, Objective):
            raise ValueError(f"objective: expected an Objective, but got {shown(made)}.")
        self.objective = made
        self.num_evaluation_particles = whole_number(
            "num_evaluation_particles", num_evaluation_particles, least=1
        )
        self.loaded_steps: int | None = None
        self.loss_terms: dict[str, Tensor] = {}
        self._run_callbacks = [RepeatableRun(), FiniteCheck()]
        self._total_steps: int | None = None
        self.refit_steps = 0
        self._unlogged: dict[str, float | Tensor] | None = None
        self.validation_statistics = PerImageStatistics(self.quantities)
        self.test_statistics = PerImageStatistics([*self.quantities, *self.reconstruction_errors])

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of what is logged."""
        nodes, images = self.scm.graph.nodes, self.scm.image_variables
        return (
            *(f"log_prob/{name}" for name in nodes),
            *(f"kl/{name}" for name in images),
            *(f"bound/{name}" for name in nodes),
            "bound",
            *(f"bits_per_dimension/{name}" for name in images),
        )

    @property
    def reconstruction_errors(self) -> tuple[str, ...]:
        """Names of what is measured in the test only."""
        return tuple(f"mean_absolute_error/{name}" for name in self.scm.image_variables)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = "cpu",
        trust: Sequence[str] = (),
        **changes: Any,
    ) -> Self:
        """Load the trained model in a checkpoint, ready for questions (in evaluation mode).

        Nothing in the file is executed, and no argument of the model need be repeated.

        Args:
            checkpoint_path: The ``.ckpt`` file, or an exported ``.safetensors`` file.
            map_location: Where the tensors go, as in :func:`torch.load`.
            trust: Packages whose classes the file may name, in addition to ``deepscm_pl``,
                ``torch.nn`` and ``torch.optim``; those that you have imported are trusted.
            changes: Arguments that take the place of those in the file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is truncated, foreign or hostile, does not fit the model that it
                describes, or holds a model that was never fitted to data.
        """
        return Checkpoint.read(checkpoint_path, map_location, trust).build(cls, changes)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the data with the model, so that a checkpoint knows its test split."""
        checkpoint["variables"] = {
            name: each.describe() for name, each in self.scm.variables.items()
        }
        checkpoint["refit_steps"] = self.refit_steps
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if hasattr(datamodule, "configuration"):
            checkpoint["data"] = describe(datamodule.configuration())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the steps of the checkpoint, and what it knows of the variables."""
        self.loaded_steps = checkpoint.get("global_step")
        self.refit_steps = int(checkpoint.get("refit_steps", 0))
        data = self.scm.variables  # which know better than the file
        self.scm.describe(Checkpoint(Path("the file"), checkpoint).variables())
        self.scm.describe(data)

    def setup(self, stage: str) -> None:
        """Take units and class names of the data, and statistics of the training split only.

        Every process sees the same split, and so finds the same statistics. A model that was
        trained before keeps its own.

        Raises:
            ValueError: If there is no training split to be had.
        """
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if isinstance(datamodule, CausalDataModule):
            self.scm.describe(datamodule.descriptions)
        require_evaluation_memory(self.trainer, self.scm, self.num_evaluation_particles)
        if stage == "fit":
            require_training_memory(self.trainer, self.scm, self.objective.num_particles)
            logged = [f"validation/{name}" for name in self.quantities]
            check_monitors(self.trainer, self, logged)
            self._fit_statistics()

    def configure_callbacks(self) -> list[pl.Callback]:
        """Random numbers that survive interruptions, and the check that losses are finite."""
        return absent(self.trainer, self._run_callbacks)

    def configure_model(self) -> None:
        """As :meth:`setup`, for callbacks that copy the model before: averaging of weights."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._fit_statistics()

    def on_validation_start(self) -> None:
        """Refuse to evaluate a model that was never fitted."""
        self._require_fitted()

    def on_test_start(self) -> None:
        """Refuse to evaluate a model that was never fitted."""
        self._require_fitted()

    def on_predict_start(self) -> None:
        """Refuse to evaluate a model that was never fitted."""
        self._require_fitted()

    def _require_fitted(self) -> None:
        if not bool(self.scm.fitted):
            raise ValueError(
                "the model was never fitted to data, so an evaluation would mean nothing; give the "
                "checkpoint of a training (--ckpt_path FILE.ckpt), or train the model first."
            )

    def _fit_statistics(self) -> None:
        if bool(self.scm.fitted):
            return
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(datamodule, "variables"):
            raise ValueError(
                "the model is not fitted to its training data: train with a data module of "
                "deepscm_pl.data, or call model.scm.fit(variables) with the training split first."
            )
        if isinstance(datamodule, CausalDataModule):
            for split in get_args(Split):
                check_rows(self.scm, datamodule, split)
        self.scm.fit(datamodule.variables("train"))

    @property
    def is_refitting(self) -> bool:
        """Whether only the posteriors q(z | x, pa) are trained: the last phase of the training."""
        return self._has_refit and self.objective.is_refitting(self._progress)

    @property
    def posterior_fit(self) -> str:
        """How the posteriors were fitted, where the objective is not the evidence lower bound."""
        if self.refit_steps:
            return (
                f"refitted in the last {self.refit_steps:,} steps by the evidence lower bound, "
                "everything else frozen"
            )
        if self.objective.is_weighted and self._posterior_parameters:
            return (
                "trained with a weighted divergence and not refitted; its draws do not spread as "
                "the posterior does, and intervals are not to be trusted"
            )
        return ""

    @property
    def _has_refit(self) -> bool:
        return self.objective.refit > 0 and bool(self._posterior_parameters)

    @property
    def _posterior_parameters(self) -> set[Tensor]:
        return {
            each for name in self.scm.graph.nodes for each in self.scm[name].posterior_parameters()
        }

    @property
    def _progress(self) -> TrainingProgress:
        return TrainingProgress(self.global_step, self.current_epoch, self._total_steps)

    def on_train_start(self) -> None:
        """Count the steps of the training, if it has a phase that begins before its end.

        Raises:
            ValueError: If the number of steps is not limited.
        """
        if self._has_refit:
            self._total_steps = number_of_steps(self.trainer, "objective: refit")

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Freeze everything but the posteriors while these are refitted."""
        is_refitting = self.is_refitting
        self.refit_steps = self.refit_steps + 1 if is_refitting else 0
        if is_refitting:
            trained = self._posterior_parameters
            for parameter in self.parameters():
                if parameter not in trained:
                    parameter.grad = None  # not requires_grad, on which several processes agreed

    def training_step(self, batch: Variables, batch_index: int) -> Tensor:
        """The negative objective, in nats per image."""
        value: ObjectiveValue = self.objective(self.scm, batch, self._progress)
        quantities = self._quantities(value.elbo)
        self.loss_terms = _terms(quantities)
        means = {name: each.detach().mean() for name, each in quantities.items()}
        self.log("train/bound", means["bound"])
        others = {"objective": value.objective.detach(), **value.logged}
        if self._has_refit:
            others["phase"] = float(1 + self.is_refitting)
        self._unlogged = {**means, **others}
        if self._is_logged(batch_index):
            self._log_step()
        return -value.objective

    def on_train_batch_end(self, outputs: Any, batch: Variables, batch_index: int) -> None:
        """Log a step after which the training is stopped."""
        if self.trainer.should_stop:
            self._log_step()

    def _is_logged(self, batch_index: int) -> bool:
        """Whether all quantities of a step are logged: where Lightning does, and at both ends."""
        if self._trainer is None:
            return True
        count = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        is_chosen = count > 0 and (self.global_step + 1) % count == 0
        return batch_index == 0 or progress.is_last_batch or is_chosen

    def _log_step(self) -> None:
        if self._unlogged is None:
            return
        bound = torch.as_tensor(self._unlogged.pop("bound")).cpu()
        self.log_dict({f"train/{name}": each for name, each in self._unlogged.items()})
        # The bar looks at it after every step, for which a GPU would have to wait.
        self.log("bound", bound, prog_bar=True, logger=False)
        self._unlogged = None

    def gradient_groups(self) -> dict[str, Iterable[Tensor]]:
        """The parameters of each variable's mechanism."""
        return {name: self.scm[name].parameters() for name in self.scm.graph.nodes}

    def validation_step(self, batch: Variables, batch_index: int) -> None:
        """Collect the quantities of a batch."""
        self.validation_statistics.update(self._evaluate(batch, batch_index))

    def on_validation_epoch_end(self) -> None:
        """Log the means over all images."""
        self._log_statistics("validation", self.validation_statistics)

    def test_step(self, batch: Variables, batch_index: int) -> None:
        """Collect the quantities of a batch, and the error of its reconstruction."""
        quantities = self._evaluate(batch, batch_index)
        for name in self.scm.image_variables:
            parents = {parent: batch[parent] for parent in self.scm.graph.parents[name]}
            reconstruction = self.scm[name].reconstruct(batch[name], parents)
            dims = len(self.scm[name].domain.shape) - 1
            error = mean_absolute_error(reconstruction, batch[name], spatial_dims=dims)
            quantities[f"mean_absolute_error/{name}"] = error
        self.test_statistics.update(quantities)

    def on_test_epoch_end(self) -> None:
        """Log the means over all images; :attr:`association` holds them with standard errors."""
        self.association: dict[str, Statistic] = self._log_statistics("test", self.test_statistics)

    def predict_step(self, batch: Variables, batch_index: int) -> dict[str, Tensor]:
        """The quantities of each image in the batch."""
        return self._evaluate(batch, batch_index)

    def configure_optimizers(self) -> Any:
        """One group of parameters for each variable, with its own learning rate."""
        groups = []
        for name in self.scm.graph.nodes:
            group: dict[str, Any] = {"params": list(self.scm[name].parameters()), "name": name}
            if name in self.learning_rates:
                group["lr"] = self.learning_rates[name]
            groups.append(group)
        refit = self.objective.refit if self._has_refit else 0.0
        return self.optimisation.configure(self.trainer, groups, "validation/bound", refit)

    def _evaluate(self, batch: Variables, batch_index: int) -> dict[str, Tensor]:
        quantities = self._quantities(self.scm.elbo(batch, self.num_evaluation_particles))
        require_finite(self, batch, batch_index, _terms(quantities))
        return quantities

    def _quantities(self, elbo: EvidenceLowerBound) -> dict[str, Tensor]:
        """Every logged quantity, one value per image."""
        found: dict[str, Tensor] = {"bound": elbo.bound}
        for name, evidence in elbo.evidence.items():
            found[f"log_prob/{name}"] = evidence.log_prob
            found[f"bound/{name}"] = evidence.bound
        for name in self.scm.image_variables:
            found[f"kl/{name}"] = elbo.evidence[name].divergence
            found[f"bits_per_dimension/{name}"] = bits_per_dimension(
                elbo.evidence[name].bound, self.scm[name].domain.features
            )
        return found

    def _log_statistics(self, stage: str, statistics: PerImageStatistics) -> dict[str, Statistic]:
        computed = statistics.compute()
        statistics.reset()
        means = {f"{stage}/{name}": statistic.mean for name, statistic in computed.items()}
        # Already the same on every process; Lightning is told so that it does not warn.
        self.log_dict(means, sync_dist=True)
        return computed


_NO_SETTINGS = ("self", "__class__")


def _terms(quantities: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the bound, and the bound."""
    kept = ("log_prob/", "kl/")
    return {k: v.detach() for k, v in quantities.items() if k.startswith(kept) or k == "bound"}


def _check_learning_rates(learning_rates: Mapping[str, float], graph: CausalGraph) -> None:
    for name, rate in learning_rates.items():
        if name not in graph:
            raise ValueError(
                f"learning_rates: unknown variable {name!r}; expected some of "
                f"{', '.join(graph.nodes)}."
            )
        real_number(f"learning_rates.{name}", rate, above=0)
