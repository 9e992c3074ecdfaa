"""The base class of callbacks that draw figures of a causal model."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from deepscm_pl.checks import seed_number, whole_number
from deepscm_pl.data.base import CausalDataModule
from deepscm_pl.escaping import for_file_name, for_tag, for_terminal
from deepscm_pl.figures import save_figure, thumbnail_pixels
from deepscm_pl.mechanisms.missing import complete_rows
from deepscm_pl.runs.folders import checkpoint_folder, trained_steps
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Variable, Variables

__all__ = [
    "FigureCallback",
    "Figures",
    "causal_model",
    "image_count",
    "level_count",
    "observation_labels",
    "pictures",
]


Figures = Iterator[tuple[str, Figure]]
"""Figures with their names."""


def pictures(scm: StructuralCausalModel) -> tuple[str, ...]:
    """Return the variables with pictures: images and volumes of 1 or 3 channels."""
    return tuple(name for name in scm.image_variables if scm[name].domain.shape[0] in (1, 3))


def level_count(scm: StructuralCausalModel, name: str) -> int:
    """Return the number of grey levels of an image variable."""
    return round(scm[name].domain.upper) + 1


def observation_labels(observations: Variables, split: str, count: int) -> list[str]:
    """Label each of the first ``count`` observations by published split and row, ``test 7``."""
    numbers: Sequence[int] = range(count)
    if "index" in observations:
        numbers = observations["index"][:count].flatten().tolist()
    # Validation rows are numbered within the published training split.
    source = "test" if split == "test" else "train"
    return [f"{source} {number}" for number in numbers]


def image_count(num_images: int) -> int:
    """Return the number of images of a picture, or raise a ValueError beyond 1 to 1000."""
    return whole_number("num_images", num_images, least=1, most=1000)


class FigureCallback(pl.Callback, ABC):
    """Draw figures of a causal model after chosen validation epochs, and after the test.

    Subclasses implement :meth:`check`, which runs before the training, and :meth:`draw`, which
    yields figures from the first observations of a split. The first process writes each figure to
    ``<name>-<figure>-<epoch=N | test>.png`` beside the checkpoints and logs a small form of it to
    TensorBoard, with at most three rows and large letters, as ``<name>/<figure>/<split>``.

    The random numbers are the same for every drawing, and the random state of the training is
    preserved. With several processes, the observations are those of the first. If a picture cannot
    be written, a training continues with a warning, and a test fails.

    Args:
        every_n_epochs: Draw after every so many epochs, and after the last.
        num_observations: How many observations to keep for drawing; all, if the split has fewer.
        seed: Seed of the random numbers.
        units: Deprecated; the data give variables their units.

    Attributes:
        written: The PNG files written so far.

    Raises:
        ValueError: If a number is less than 1, or the seed negative.
    """

    name: ClassVar[str]

    def __init__(
        self,
        every_n_epochs: int,
        num_observations: int,
        seed: int,
        units: Mapping[str, str] | None = None,
    ) -> None:
        self.every_n_epochs = whole_number("every_n_epochs", every_n_epochs, least=1)
        self.num_observations = whole_number("num_observations", num_observations, least=1)
        self.seed = seed_number("seed", seed)
        self.units = dict(units or {})
        if units:
            message = "units: deprecated; leave them out, because the data give their units."
            warnings.warn(message, DeprecationWarning, stacklevel=3)
        self.written: list[Path] = []
        self._kept: list[dict[str, Tensor]] = []
        self._reported: set[str] = set()
        self._is_warned = False

    @abstractmethod
    def check(self, scm: StructuralCausalModel) -> str | None:
        """Return why there is nothing to draw for ``scm``, as a sentence, or None.

        Raises:
            ValueError: If the settings do not fit the model.
        """

    @abstractmethod
    def draw(self, scm: StructuralCausalModel, observations: Variables, split: str) -> Figures:
        """Yield figures with their names.

        Args:
            scm: The model, in evaluation mode.
            observations: The first ``num_observations`` rows of the split, ``(N, *event)`` for
                each of :meth:`needed`.
            split: ``"validation"`` or ``"test"``.
        """

    def needed(self, scm: StructuralCausalModel) -> Sequence[str]:
        """Return the variables whose observations are kept."""
        return scm.graph.nodes

    def described(self, scm: StructuralCausalModel) -> dict[str, Variable]:
        """Return the variables of the model, with deprecated ``units`` in place of their own."""
        return {
            name: replace(each, unit=self.units.get(name, each.unit))
            for name, each in scm.variables.items()
        }

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check before the training that the settings fit the model."""
        data: Any = getattr(trainer, "datamodule", None)
        scm = causal_model(pl_module)
        if isinstance(data, CausalDataModule):  # Lightning sets up the module after its callbacks
            scm.describe(data.descriptions)
        for name in self.units:
            if name not in scm.graph:
                raise ValueError(f"units: unknown variable {name!r}.")
        nothing = self.check(scm)
        if nothing is not None and nothing not in self._reported:
            self._reported.add(nothing)
            rank_zero_info("%s draws nothing: %s", type(self).__name__, for_terminal(nothing))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Discard earlier observations."""
        self._kept = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Variables,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first observations if figures are drawn after the epoch."""
        missing = self.num_observations - sum(len(next(iter(k.values()))) for k in self._kept)
        if dataloader_idx == 0 and missing > 0 and self._is_chosen(trainer):
            names = {*self.needed(causal_model(pl_module)), "index"} & batch.keys()
            # Copies, so that a few rows do not hold the memory of a whole batch.
            complete = complete_rows(batch, names & {*causal_model(pl_module).scalar_variables})
            chosen = slice(missing) if complete is None else complete[:missing]
            rows = {name: batch[name][chosen].detach().clone() for name in names}
            if complete is None or len(complete):
                self._kept.append(rows)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw after the test and after chosen epochs."""
        if self._is_chosen(trainer):
            is_test = trainer.state.fn == "test"
            split = "test" if is_test else "validation"
            when = "test" if is_test else f"epoch={trainer.current_epoch}"
            self._write_all(trainer, pl_module, split, when)

    on_test_start = on_validation_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def _is_chosen(self, trainer: pl.Trainer) -> bool:
        epoch = trainer.current_epoch + 1
        chosen = epoch == trainer.max_epochs or epoch % self.every_n_epochs == 0
        is_training = trainer.state.fn == "fit" and not trainer.sanity_checking
        return trainer.state.fn == "test" or (is_training and chosen)

    def _write_all(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str, when: str
    ) -> None:
        folder = checkpoint_folder(trainer)  # on every process
        kept, self._kept = self._kept, []
        if not trainer.is_global_zero or not kept:
            return
        observations = {name: torch.cat([rows[name] for rows in kept]) for name in kept[0]}
        device = pl_module.device
        devices = [] if device.type == "cpu" else [device]
        accelerator = "cuda" if device.type == "cpu" else device.type
        with torch.random.fork_rng(devices, device_type=accelerator), torch.no_grad():
            torch.manual_seed(self.seed)
            # A model in training may be one that cannot be asked, whose solver does not converge.
            with self._continue_without("pictures that cannot be drawn", trainer):
                for name, figure in self.draw(causal_model(pl_module), observations, split):
                    path = folder / f"{for_file_name(f'{self.name}-{name}')}-{when}.png"
                    tag = for_tag(f"{self.name}/{name}/{split}")
                    lost = (
                        f"the picture {for_terminal(path.name)} and others that cannot be written"
                    )
                    with self._continue_without(lost, trainer):
                        save_figure(figure, path)
                        self.written.append(path)
                        _log_picture(trainer, tag, figure, trained_steps(trainer, pl_module))
                    figure.clear()

    @contextmanager
    def _continue_without(self, lost: str, trainer: pl.Trainer) -> Iterator[None]:
        """Warn once instead of ending a training."""
        try:
            yield
        except (OSError, ValueError) as error:
            if trainer.state.fn != "fit":
                raise
            if not self._is_warned:
                self._is_warned = True
                rank_zero_warn(f"the training continues without {lost}: {for_terminal(error)}")


def _log_picture(trainer: pl.Trainer, tag: str, figure: Figure, step: int) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, thumbnail_pixels(figure), step, dataformats="HWC")


def causal_model(pl_module: pl.LightningModule) -> StructuralCausalModel:
    """Return the causal model of a module, its attribute ``scm``, or raise a ValueError."""
    scm = getattr(pl_module, "scm", None)
    if not isinstance(scm, StructuralCausalModel):
        raise ValueError(
            "expected a module with a structural causal model as its attribute scm, but got "
            f"{type(pl_module).__name__}."
        )
    return scm
