"""Grids of counterfactual and interventional images, to TensorBoard and as PNG."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from deepscm_pl.callbacks.run_folder import checkpoint_folder
from deepscm_pl.figures import ImageColumn, draw_grid, figure_to_array, save_figure
from deepscm_pl.interventions import format_do, parse_do
from deepscm_pl.scm import StructuralCausalModel, summarise
from deepscm_pl.types import Variables

__all__ = ["CounterfactualGrid", "InterventionGrid"]


class _ImageGrid(pl.Callback):
    """Draw a grid of every image variable after chosen validation epochs and after the test.

    The noise is the same in every epoch, and drawing leaves the random numbers of the training
    untouched.

    Args:
        interventions: A column each, as text: ``thickness=3``, ``thickness+=1, intensity=100``.
        every_n_epochs: Draw after every so many epochs, and after the last.
        num_images: Number of rows.
        num_particles: Particles that an image is averaged over.
        seed: Seed of the noise.

    Attributes:
        texts: The interventions as they were given.
        written: The PNG files written so far.

    Raises:
        ValueError: If an intervention cannot be read, or a number is less than 1.
    """

    name = "grid"
    differences = True

    def __init__(
        self,
        interventions: list[str],
        every_n_epochs: int = 10,
        num_images: int = 8,
        num_particles: int = 1,
        seed: int = 0,
    ) -> None:
        for name, value in (
            ("every_n_epochs", every_n_epochs),
            ("num_images", num_images),
            ("num_particles", num_particles),
            ("number of interventions", len(interventions)),
        ):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, but got {value}.")
        self.texts = list(interventions)
        self.interventions = [parse_do(text) for text in interventions]
        self.every_n_epochs = every_n_epochs
        self.num_images = num_images
        self.num_particles = num_particles
        self.seed = seed
        self.written: list[Path] = []
        self._observations: dict[str, Tensor] = {}

    @abstractmethod
    def columns(
        self, scm: StructuralCausalModel, observations: Variables
    ) -> tuple[list[str], list[dict[str, Tensor]]]:
        """Titles and variables ``(num_images, *event)`` of the columns."""

    @abstractmethod
    def row_labels(self, observations: Variables, split: str) -> list[str]:
        """A label for each row."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop before any training if an intervention does not fit the model."""
        for do in self.interventions:
            _scm(pl_module).act(do)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Variables,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first observations."""
        if batch_idx == 0:
            self._observations = {
                name: value[: self.num_images].detach() for name, value in batch.items()
            }

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, if the epoch is one of those chosen."""
        epoch = trainer.current_epoch + 1
        last = trainer.max_epochs == epoch
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if last or epoch % self.every_n_epochs == 0:
            self._draw(trainer, pl_module, "validation", f"epoch={trainer.current_epoch}")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the observations of the test split."""
        self._draw(trainer, pl_module, "test", "test")

    def _draw(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str, when: str
    ) -> None:
        folder = checkpoint_folder(trainer)
        if not trainer.is_global_zero or not self._observations:
            return
        scm = _scm(pl_module)
        devices = [pl_module.device] if pl_module.device.type != "cpu" else []
        with torch.random.fork_rng(devices), torch.no_grad():
            torch.manual_seed(self.seed)
            titles, columns = self.columns(scm, self._observations)
        labels = self.row_labels(self._observations, split)
        for name in scm.image_variables:
            figure = draw_grid(
                _image_columns(scm, name, titles, columns), labels, differences=self.differences
            )
            path = folder / f"{self.name}-{name}-{when}.png"
            self.written.append(save_figure(figure, path))
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image(
                        f"{self.name}/{name}/{split}",
                        figure_to_array(figure),
                        trainer.global_step,
                        dataformats="HWC",
                    )


class CounterfactualGrid(_ImageGrid):
    """Rows are observations, columns are counterfactuals, with signed difference maps below.

    The first column is the factual. See the base class for the arguments.
    """

    name = "counterfactual"

    def columns(
        self, scm: StructuralCausalModel, observations: Variables
    ) -> tuple[list[str], list[dict[str, Tensor]]]:
        """The factual, then every counterfactual, averaged over particles."""
        factual = {name: observations[name] for name in scm.graph.nodes}
        answers = scm.counterfactual(factual, self.interventions, self.num_particles)
        columns = [
            {name: summarise(value[:, k])[0] for name, value in answers.items()}
            for k in range(len(self.interventions))
        ]
        return ["factual", *map(format_do, self.interventions)], [factual, *columns]

    def row_labels(self, observations: Variables, split: str) -> list[str]:
        """The row of the data that the observation is."""
        count = len(next(iter(observations.values())))
        rows = observations["index"].flatten().tolist() if "index" in observations else range(count)
        source = "test" if split == "test" else "train"
        return [f"{source} {row}" for row in rows]


class InterventionGrid(_ImageGrid):
    """Rows are draws of the noise, columns are interventions that all see the same noise.

    The first column is without intervention. See the base class for the arguments.
    """

    name = "intervention"
    differences = False

    def columns(
        self, scm: StructuralCausalModel, observations: Variables
    ) -> tuple[list[str], list[dict[str, Tensor]]]:
        """A sample, then the same noise under every intervention."""
        draws = [
            {name: scm[name].sample_noise((self.num_images,)) for name in scm.graph.nodes}
            for _ in range(self.num_particles)
        ]
        columns = []
        for do in ({}, *self.interventions):
            acted = scm.act(do)
            values = [_spread(scm, acted.predict(noise), self.num_images) for noise in draws]
            columns.append(
                {name: summarise(torch.stack([v[name] for v in values]))[0] for name in values[0]}
            )
        return ["sample", *map(format_do, self.interventions)], columns

    def row_labels(self, observations: Variables, split: str) -> list[str]:
        """The number of the draw."""
        return [f"noise {k}" for k in range(self.num_images)]


def _scm(pl_module: pl.LightningModule) -> StructuralCausalModel:
    scm = getattr(pl_module, "scm", None)
    if not isinstance(scm, StructuralCausalModel):
        raise ValueError(
            "expected a module with a structural causal model as its attribute scm, but got "
            f"{type(pl_module).__name__}."
        )
    return scm


def _spread(scm: StructuralCausalModel, values: Variables, size: int) -> dict[str, Tensor]:
    return {name: value.expand(size, *scm[name].domain.shape) for name, value in values.items()}


def _image_columns(
    scm: StructuralCausalModel,
    name: str,
    titles: Sequence[str],
    columns: Sequence[Variables],
) -> list[ImageColumn]:
    scalars = [node for node in scm.graph.nodes if scm[node].domain.shape == (1,)]
    return [
        ImageColumn(title, column[name], _captions(column, scalars))
        for title, column in zip(titles, columns, strict=True)
    ]


def _captions(column: Variables, scalars: Sequence[str]) -> list[str]:
    if not scalars:
        return []
    values = zip(*(column[name].flatten().tolist() for name in scalars), strict=True)
    return [
        "\n".join(f"{name} {value:.3g}" for name, value in zip(scalars, row, strict=True))
        for row in values
    ]
