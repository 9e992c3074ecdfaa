"""Preparation of a training or an evaluation: statistics of the data, rows and memory."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_info

from deepscm_pl.checkpoints.loading import load
from deepscm_pl.data import CausalDataModule
from deepscm_pl.data.base import Split
from deepscm_pl.escaping import for_terminal
from deepscm_pl.mechanisms import LatentImageMechanism
from deepscm_pl.model_memory import bytes_of, require_memory_for
from deepscm_pl.runs.reading import load_weights
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training.repeated_values import warn_of_repeated_values
from deepscm_pl.variables import Variables

__all__ = [
    "check_rows",
    "describe_variables",
    "fit_statistics",
    "load_initial",
    "require_evaluation_memory",
    "require_fitted",
    "require_initial",
    "require_training_memory",
]

_FLOAT_BYTES = 4


def describe_variables(trainer: pl.Trainer, scm: StructuralCausalModel) -> None:
    """Give a model the units and class names in the data module of a trainer."""
    datamodule: Any = getattr(trainer, "datamodule", None)
    if isinstance(datamodule, CausalDataModule):
        scm.describe(datamodule.descriptions)


def fit_statistics(trainer: pl.Trainer, scm: StructuralCausalModel) -> None:
    """Fit a model to the statistics of the training split, unless it is fitted already.

    Variables with missing values in any split get the networks that infer them.

    Raises:
        ValueError: If there is no training split, or a value is not possible in the model.
    """
    datamodule: Any = getattr(trainer, "datamodule", None)
    if bool(scm.fitted):
        if hasattr(datamodule, "variables"):  # a fitted model may continue with incomplete data
            scm.declare_incomplete(datamodule.variables("train"))
        return
    if not hasattr(datamodule, "variables"):
        raise ValueError(
            "the model is not fitted to its training data: train with a data module of "
            "deepscm_pl.data, or call model.scm.fit(variables) with the training split first."
        )
    if isinstance(datamodule, CausalDataModule):
        for split in get_args(Split):
            check_rows(scm, datamodule, split)
    training = datamodule.variables("train")
    _report_missing(scm, training)
    scm.fit(training, _incomplete(scm, datamodule))
    persons = datamodule.identifiers("train") if isinstance(datamodule, CausalDataModule) else None
    warn_of_repeated_values(scm, datamodule.variables("train"), persons)


def require_initial(scm: StructuralCausalModel) -> None:
    """Raise ValueError if a model was never fitted, and its objective needs a trained one."""
    if not bool(scm.fitted):
        raise ValueError(
            "initial: expected a trained model, which the objective tunes, but got none; give its "
            "checkpoint (--model.initial FILE.ckpt)."
        )


def load_initial(scm: StructuralCausalModel, path: str | None) -> None:
    """Load the weights and the statistics of a trained model, unless the model is fitted already.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not that of a causal model with the same graph and mechanisms.
    """
    if path is None or bool(scm.fitted):
        return
    found = load(path).scm
    if str(found.graph) != str(scm.graph):
        raise ValueError(
            f"initial: expected a model of the graph {scm.graph}, but {path} has {found.graph}; "
            "give another one."
        )
    try:
        load_weights(scm, found.state_dict())
    except ValueError as error:
        raise ValueError(f"initial: {path}: {error}") from None


def _incomplete(scm: StructuralCausalModel, data: Any) -> list[str]:
    """The scalar variables with missing values in any split."""
    if not isinstance(data, CausalDataModule):
        return []
    splits = [data.variables(split) for split in get_args(Split)]
    return [n for n in scm.scalar_variables if any(bool(s[n].isnan().any()) for s in splits)]


def _report_missing(scm: StructuralCausalModel, training: Variables) -> None:
    """Report how many values of the training split are missing, and what is assumed about them."""
    counts = {name: int(training[name].isnan().sum()) for name in scm.scalar_variables}
    rows = len(next(iter(training.values())))
    found = [f"{name} in {count:,}" for name, count in counts.items() if count]
    if found:
        rank_zero_info(
            for_terminal(
                f"missing values: {', '.join(found)} of {rows:,} training rows; they are inferred "
                "from the other variables, assuming that they are missing at random: whether a "
                "value is missing depends on observed values only."
            )
        )


def require_fitted(scm: StructuralCausalModel) -> None:
    """Raise ValueError if a model was never fitted to data."""
    if not bool(scm.fitted):
        raise ValueError(
            "the model was never fitted to data, so an evaluation would mean nothing; give the "
            "checkpoint of a training (--ckpt_path FILE.ckpt), or train the model first."
        )


def check_rows(scm: StructuralCausalModel, data: CausalDataModule, split: Split) -> None:
    """Raise unless every value in a split is possible in the model, or missing.

    Raises:
        ValueError: Naming the variable, the row and its identifier, and the domain.
    """
    variables = data.variables(split)
    for name in scm.graph.nodes:
        if name not in variables:
            continue  # the model reports missing variables
        domain, values = scm[name].domain, variables[name]
        try:
            domain.check(name, values, is_complete=False)
        except ValueError as error:
            outside = (
                row
                for row, value in enumerate(values)
                if not domain.contains(value[~value.isnan()]).all()
            )
            row = next(outside, None)
            if row is None:
                raise
            names = data.row_names(split)
            identifier = "" if names is None else f" ({names[row]})"
            raise ValueError(
                f"data: row {row}{identifier} of the {split} split: {error} Correct it, leave it "
                f"out, or give {name} a mechanism whose values include it."
            ) from None


def require_training_memory(
    trainer: pl.Trainer, scm: StructuralCausalModel, num_particles: int
) -> None:
    """Raise ValueError if the gradients, or the output of the decoders, would not fit in memory."""
    device = trainer.strategy.root_device
    require_memory_for("mechanisms", "the training", 2 * bytes_of(scm), device)
    outputs = sum(each.outputs * math.prod(each.shape[1:]) for each in _autoencoders(scm))
    wanted = _FLOAT_BYTES * num_particles * _batch_size(trainer) * outputs
    require_memory_for("num_particles", num_particles, wanted, device)


def require_evaluation_memory(
    trainer: pl.Trainer, scm: StructuralCausalModel, num_particles: int
) -> None:
    """Raise ValueError if the latents of an evaluation step would not fit in memory."""
    latents = sum(each.latent for each in _autoencoders(scm))
    wanted = _FLOAT_BYTES * num_particles * _batch_size(trainer) * latents
    device = trainer.strategy.root_device
    require_memory_for("num_evaluation_particles", num_particles, wanted, device)


def _autoencoders(scm: StructuralCausalModel) -> list[LatentImageMechanism]:
    mechanisms = (scm[name] for name in scm.image_variables)
    return [each for each in mechanisms if isinstance(each, LatentImageMechanism)]


def _batch_size(trainer: pl.Trainer) -> int:
    """The size of a training batch; 1 if it is unknown."""
    data: Any = getattr(trainer, "datamodule", None)
    size = getattr(data, "batch_size", 1)
    if hasattr(data, "variables"):
        size = min(size, len(next(iter(data.variables("train").values()))))
    return int(size)
