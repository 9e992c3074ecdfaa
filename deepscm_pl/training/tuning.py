"""Fine-tuning of a trained image mechanism, so that counterfactuals show what was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, distributed

from deepscm_pl.checks import real_number, whole_number
from deepscm_pl.data import CausalDataModule, InMemoryDataset
from deepscm_pl.evaluation.cause_predictor import CausePredictor
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training.objectives import (
    EvidenceLowerBoundObjective,
    Objective,
    ObjectiveValue,
    TrainingProgress,
    answered_values,
    counterfactual_values,
    permuted,
)
from deepscm_pl.training.predictors import PredictorFactory, Predictors, causes_of
from deepscm_pl.variables import Variables

__all__ = ["BoundConstraint", "CounterfactualTuning", "OwnPredictor"]

_ROWS = 2_000  # of the reference, and of the errors of predictors
_BATCH = 100
_SMALLEST = 1e-3  # deviation of F between batches, relative to F
_MOST = 3.0  # deviations of a shortfall that count
_SHARE = 0.1  # of a batch in the moving average of the shortfall
_LEAST = 1e-5  # of λ, at most its inverse
_RETURNED = 4  # of so many rows of a batch one is returned to its factual values
_SEED = 20_061  # of the predictors, which differs from that of the predictor that evaluates
_ONE_IMAGE = "objective: expected a model with one image, but it has {}: tune another model."


@dataclass(frozen=True)
class BoundConstraint:
    """The constraint that the objective F of the images does not fall below that at the start.

    F has the weight λ·exp(``damping``·g), where g is the moving average over about ten batches of
    the shortfall of F, divided by the standard deviation s of F between batches at the start, and
    within ±3. After every step λ is multiplied by exp(``rate``·g), so that it finds its order of
    magnitude, which depends on the likelihood and on the predictors. The damping acts long before
    λ, and prevents oscillations, as in the method of multipliers of Platt and Barr (1987), which De
    Sousa Ribeiro et al. (2023, arXiv:2306.15764) use with sums in place of products.

    Attributes:
        slack: Nats per pixel by which F may fall.
        rate: The logarithm of the factor of λ for a shortfall of one deviation, after each step.
        damping: The logarithm of the factor of the weight for such a shortfall.
        start: λ before the first step, relative to ℓ/s for the loss ℓ of the first batch.
    """

    slack: float = 0.0
    rate: float = 0.02
    damping: float = 1.0
    start: float = 0.1

    def __post_init__(self) -> None:
        real_number("slack", self.slack, least=0)
        real_number("rate", self.rate, above=0)
        real_number("damping", self.damping, least=0)
        real_number("start", self.start, above=0)


@dataclass(frozen=True)
class OwnPredictor:
    """The training of a predictor of all causes, where no predictors are given.

    Attributes:
        steps: Steps of 64 images.
        seed: Random seed; another than that of the predictor that evaluates.
    """

    steps: int = 2_000
    seed: int = _SEED

    def __post_init__(self) -> None:
        whole_number("steps", self.steps, least=1)


class CounterfactualTuning(Objective):
    """Predictors push counterfactual images to show what was asked, and F must not fall.

    For each batch one of the sets of variables is drawn, and its values are permuted, as in
    :class:`~deepscm_pl.training.CounterfactualObjective`. Frozen predictors q(pa | x) then see the
    counterfactual images x*. The loss is the sum over causes of −log q(pa* | x*) of what was
    intervened on, and of the divergence from the predictor's own view of the factual image of
    everything else (:class:`~deepscm_pl.training.predictors.Predictors`): hard targets there would
    amplify attributes (Xia et al. 2024, arXiv:2403.09422). Gradients pass through abduction and
    prediction. Only the mechanism of the image is trained, under the constraint that another
    objective F of the factual batch does not fall below its value at the start
    (:class:`BoundConstraint`).

    Start from a trained model, ``model.initial``, and keep the last epoch, because the bound of the
    best one is that of the start: ``checkpoint.monitor: null``. Predictors of the tuning must not
    evaluate the model; checkpoints contain the digests of their weights as ``predictors``.

    Args:
        num_particles: Draws of the latents in F.
        predictors: For each cause of the image its predictor: a checkpoint of an
            :class:`~deepscm_pl.training.ImageClassifier` or a similar model, or the class of a
            differentiable module of images, such as a measurement. None to train one of all causes
            on the training split.
        variables: Sets of variables to intervene on; None for every cause of the image alone.
        weight: The weight of the loss of the predictors.
        reversibility: The weight of the mean absolute error, in grey levels, of images after an
            intervention on a cause, of whichever, and back to its factual value, both with the
            likeliest noise; of a quarter of each batch. 0 to leave it out.
        objective: Factory of F, called with the number of draws. None for
            :class:`~deepscm_pl.training.EvidenceLowerBoundObjective`.
        constraint: The constraint of F.
        own: The training of the predictor, if none is given.

    Raises:
        ValueError: If a set is empty or the weight is not positive; at the start of a training, if
            the model has not one image, or a variable or a predictor does not fit.
    """

    needs_trained = True
    reference: Tensor
    multiplier: Tensor
    shortfall: Tensor

    def __init__(
        self,
        num_particles: int,
        predictors: Mapping[str, str | PredictorFactory] | None = None,
        variables: Sequence[Sequence[str]] | None = None,
        weight: float = 1.0,
        reversibility: float = 0.0,
        objective: Callable[[int], Objective] | None = None,
        constraint: BoundConstraint = BoundConstraint(),
        own: OwnPredictor = OwnPredictor(),
    ) -> None:
        super().__init__(num_particles)
        if variables is not None and not (variables and all(variables)):
            raise ValueError(
                "variables: expected lists of variables to intervene on, such as "
                f"[[thickness], [intensity]], but got {variables!r}; leave it out for all causes."
            )
        self.factories = None if predictors is None else dict(predictors)
        self.variables = None if variables is None else [list(names) for names in variables]
        self.weight = real_number("weight", weight, above=0)
        self.reversibility = real_number("reversibility", reversibility, least=0)
        self.objective = (objective or EvidenceLowerBoundObjective)(num_particles)
        self.refit, self.is_weighted = self.objective.refit, self.objective.is_weighted
        self.constraint, self.own = constraint, own
        self.register_buffer("reference", torch.tensor([torch.nan, torch.nan]))
        self.register_buffer("multiplier", torch.tensor(torch.nan))
        self.register_buffer("shortfall", torch.tensor(0.0))
        self.predictors: Predictors | None = None

    def freeze(self, scm: StructuralCausalModel) -> None:
        """Freeze everything but the mechanism of the image."""
        image = _image_of(scm)
        scm.requires_grad_(False)
        scm[image].requires_grad_(True)

    def start(self, scm: StructuralCausalModel, data: Any) -> None:
        """Make the predictors, and compute the reference of a training that begins.

        Raises:
            FileNotFoundError: If the checkpoint of a predictor does not exist.
            ValueError: If something does not fit the model or the data.
        """
        image = _image_of(scm)
        if not isinstance(data, CausalDataModule):
            raise ValueError(
                "objective: expected a data module of deepscm_pl.data, but got "
                f"{type(data).__name__}; derive yours from CausalDataModule."
            )
        causes = causes_of(scm, image)
        if self.variables is None:
            self.variables = [[name] for name in causes]
        unknown = sorted({name for names in self.variables for name in names} - {*causes})
        if unknown:
            raise ValueError(
                f"variables: expected some of {', '.join(causes)}, the causes of {image}, but got "
                f"{unknown[0]!r}; remove it."
            )
        self.predictors = self._made_predictors(scm, data, image)
        rows = _rows(data, "validation", scm)
        self.predictors.fit(rows[image], rows)
        found = ", ".join(f"{name} {each:.3g}" for name, each in self.predictors.errors.items())
        rank_zero_info(f"errors of the predictors on recorded images: {found}")
        for sentence in self.predictors.blind():
            rank_zero_warn(sentence)
        if bool(self.reference.isnan().any()):
            self.reference.copy_(self._reference(scm, _rows(data, "train", scm)))

    def _made_predictors(
        self, scm: StructuralCausalModel, data: CausalDataModule, image: str
    ) -> Predictors:
        if self.factories is not None:
            return Predictors.made(self.factories, scm, image)
        network = _InUnits(CausePredictor.trained_on(scm, data, self.own.steps, self.own.seed))
        causes = causes_of(scm, image)
        return Predictors(dict.fromkeys(causes, network), {n: scm[n].domain for n in causes})

    @property
    def provenance(self) -> dict[str, str]:
        """The digests of the weights of the predictors; empty before the start."""
        return {} if self.predictors is None else self.predictors.digests

    @torch.no_grad()
    def _reference(self, scm: StructuralCausalModel, rows: Variables) -> Tensor:
        """F of recorded rows and its deviation between batches, ``(2,)``; the draws are fixed."""
        size, device = len(next(iter(rows.values()))), scm.fitted.device
        complete = TrainingProgress(2**62, 2**62)
        found = []
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(_SEED)
            for start in range(0, size, _BATCH):
                batch = {name: each[start : start + _BATCH] for name, each in rows.items()}
                found.append(self.objective(scm, batch, complete).objective)
        values = torch.stack(found)
        deviation = values.std() if len(values) > 1 else values.new_zeros(())
        return torch.stack([values.mean(), deviation.clamp(min=_SMALLEST * values.mean().abs())])

    def forward(
        self, scm: StructuralCausalModel, batch: Variables, progress: TrainingProgress
    ) -> ObjectiveValue:
        """Return the objective.

        ``tuning/VARIABLE`` is the loss of each predictor, and ``reversibility`` the error of the
        way back.

        Raises:
            ValueError: If :meth:`start` was not called.
        """
        factual: ObjectiveValue = self.objective(scm, batch, progress)
        if self.is_refitting(progress):
            return factual
        observed = scm.drawn_complete({name: batch[name] for name in scm.graph.nodes})
        predictors, sets = self._started()
        asked = sets[int(torch.randint(len(sets), ()))]
        losses = _losses(predictors, scm, observed, asked)
        means = {f"tuning/{name}": each.mean() for name, each in losses.items()}
        loss = self.weight * torch.stack([*means.values()]).sum()
        if self.reversibility:
            causes = causes_of(scm, _image_of(scm))
            returned = causes[int(torch.randint(len(causes), ()))]
            means["reversibility"] = _error_of_return(scm, observed, returned)
            loss = loss + self.reversibility * means["reversibility"]
        pixels = scm[_image_of(scm)].domain.features
        weight = self._weight(factual.objective.detach(), loss.detach(), pixels)
        total = weight * factual.objective - loss
        logged = {name: each.detach() for name, each in means.items()}
        logged["constraint_weight"] = weight
        return ObjectiveValue(total, factual.elbo, {**factual.logged, **logged})

    def _weight(self, value: Tensor, loss: Tensor, pixels: int) -> Tensor:
        """The weight of F for its value in this batch; λ then changes."""
        constraint, (start, deviation) = self.constraint, self.reference
        first = constraint.start * _mean_over_processes(loss) / deviation
        known = torch.where(self.multiplier.isnan(), first.clamp(min=_LEAST), self.multiplier)
        shortfall = _mean_over_processes(start - constraint.slack * pixels - value) / deviation
        self.shortfall.lerp_(shortfall.clamp(-_MOST, _MOST), _SHARE)
        changed = known * (constraint.rate * self.shortfall).exp()
        self.multiplier.copy_(changed.clamp(_LEAST, 1 / _LEAST))
        weight: Tensor = known * (constraint.damping * self.shortfall).exp()
        return weight

    def _started(self) -> tuple[Predictors, list[list[str]]]:
        """The predictors, and the sets of variables to intervene on."""
        if self.predictors is None or self.variables is None:
            raise ValueError(
                "objective: the predictors of the tuning are missing; call start(scm, data) first."
            )
        return self.predictors, self.variables


def _losses(
    predictors: Predictors, scm: StructuralCausalModel, observed: Variables, asked: Sequence[str]
) -> dict[str, Tensor]:
    """The loss of each predictor for counterfactuals of a batch, ``(B,)`` each."""
    image = _image_of(scm)
    answer = counterfactual_values(scm, observed, asked)
    with torch.no_grad():
        before = predictors.views(observed[image])
    after = predictors.views(answer[image])
    found = {}
    for name, view in after.items():
        if name in asked:
            found[name] = predictors.asked(name, view, answer[name])
        else:
            change = answer[name] - observed[name]
            found[name] = predictors.kept(name, view, before[name], change)
    return found


def _error_of_return(scm: StructuralCausalModel, observed: Variables, cause: str) -> Tensor:
    """The mean absolute error in grey levels of images after do(cause) and back."""
    image, size = _image_of(scm), len(observed[cause])
    some = {name: each[: max(1, size // _RETURNED)] for name, each in observed.items()}
    there = answered_values(scm, some, {cause: permuted(some, cause)}, is_likeliest=True)
    back = answered_values(scm, there, {cause: some[cause]}, is_likeliest=True)
    return (back[image] - some[image]).abs().mean()


class _InUnits(torch.nn.Module):
    """A predictor of standardised causes, whose numbers are in their units."""

    def __init__(self, network: CausePredictor) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        found = self.network(image)
        for name, classes in self.network.classes.items():
            if classes is None:
                mean, deviation = (
                    self.network.get_buffer(f"{name}_{key}") for key in ("mean", "deviation")
                )
                found[name] = mean + deviation * found[name]
        return found


def _image_of(scm: StructuralCausalModel) -> str:
    names = scm.image_variables
    if len(names) != 1:
        raise ValueError(_ONE_IMAGE.format(", ".join(names) or "none"))
    return names[0]


def _rows(data: CausalDataModule, split: Any, scm: StructuralCausalModel) -> dict[str, Tensor]:
    """Some rows of a split, evenly spaced, as in batches."""
    dataset = InMemoryDataset(data.variables(split))
    step = -(-len(dataset) // _ROWS)
    rows = dataset.__getitems__(range(0, len(dataset), step))
    return {name: rows[name].to(scm.fitted.device) for name in scm.graph.nodes}


def _mean_over_processes(value: Tensor) -> Tensor:
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(value)
        value = value / distributed.get_world_size()
    return value
