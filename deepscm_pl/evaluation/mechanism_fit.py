"""Whether each mechanism has converged, and beats simpler forms of itself in validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.evaluation.best_constant import (
    constant_image_log_probs,
    constant_scalar_log_probs,
)
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.quick_fit import (
    MechanismRows,
    copied,
    fit_mechanism,
    has_forms,
    is_linear,
    linear_form,
    log_probs,
    nonlinear_form,
    parentless_form,
)
from deepscm_pl.mechanisms import Mechanism
from deepscm_pl.numerals import format_number

__all__ = [
    "Convergence",
    "MechanismFit",
    "convergence_of",
    "evaluate_mechanisms",
    "left_out_words",
]

_FEWEST_VALIDATIONS = 6
_FEWEST_ROWS = 10
_SMALL = 0.01  # nats per row
_UNCLEAR = 0.1  # nats per row, a gain that would matter
_RISE = 0.02  # nats per row over the last third, or to the end
_RELATIVE = 1e-4  # of the bound of an image
_IMAGES = 256

State = Literal["converged", "still rising", "falling", "unknown"]


@dataclass(frozen=True)
class Convergence:
    """The course of the validation bound of one variable in its last third.

    Attributes:
        validations: Number of validations.
        rise: The rise over that third by its trend, in nats per row.
        standard_error: The standard error of ``rise``.
        least: The smallest rise that counts.
    """

    validations: int
    rise: float = math.nan
    standard_error: float = math.nan
    least: float = _RISE

    @property
    def state(self) -> State:
        """Whether the bound still rises, beyond chance."""
        if math.isnan(self.rise):
            return "unknown"
        if abs(self.rise) < max(self.least, 2 * self.standard_error):
            return "converged"
        return "still rising" if self.rise > 0 else "falling"

    @property
    def words(self) -> str:
        """The state with its reason."""
        if self.state == "unknown":
            plural = "" if self.validations == 1 else "s"
            return f"convergence unknown ({self.validations} validation{plural})"
        if self.state == "converged":
            return "converged"
        change = f"{format_number(abs(self.rise), 2)} nats in the last third of the training"
        fit = "its fit to the validation split"
        if self.state == "still rising":
            return f"not converged ({fit} still rose by {change}): train longer"
        return f"overfits ({fit} fell by {change}): an earlier checkpoint is used"


def convergence_of(history: Sequence[float]) -> Convergence:
    """Fit a line to the last third of the validation bounds, at least five.

    Example:
        >>> convergence_of([-3.0, -2.0, -1.5, -1.2, -1.1, -1.05, -1.0, -0.9]).state
        'still rising'
        >>> convergence_of([-3.0, -1.0, -0.801, -0.802, -0.8, -0.801, -0.8, -0.802]).state
        'converged'
    """
    bounds = np.asarray(history, dtype=np.float64)
    size = max(_FEWEST_VALIDATIONS - 1, len(bounds) // 3)
    last = bounds[-size:]
    if len(bounds) < _FEWEST_VALIDATIONS or not np.isfinite(last).all():
        return Convergence(len(bounds))
    places = np.arange(size) - (size - 1) / 2
    slope = float(places @ last / (places @ places))
    residual = last - last.mean() - slope * places
    error = math.sqrt(float(residual @ residual) / (size - 2) / float(places @ places))
    least = max(_RISE, _RELATIVE * abs(float(last.mean())))
    return Convergence(len(bounds), slope * (size - 1), error * (size - 1), least)


@dataclass(frozen=True)
class MechanismFit:
    """The fit of one mechanism, in nats per row of the validation split.

    Gains are differences of log p(x | pa), or of its bound, to simpler forms of the same family
    that were fitted to the training split.

    Attributes:
        variable: The variable.
        parents: Its parents.
        bound: log p(x | pa), or its bound.
        over_parentless: Gain over the form without parents; of an image and of a formula, over the
            same mechanism with the parents of other rows. None without parents.
        over_linear: Gain over the linear form; of a linear mechanism, a loss is what its training
            left out. None for an image.
        nonlinear: Gain that a nonlinear form would have over a linear mechanism; None for others.
        convergence: The course of the training; None if it is unknown.
        shuffled: Whether ``over_parentless`` is that over parents of other rows.
        over_constant: Gain over the best distribution without parents and without a latent, see
            :mod:`~deepscm_pl.evaluation.best_constant`; None if it is unknown.
        features: Number of values of the variable: of pixels or voxels in all channels.
    """

    variable: str
    parents: tuple[str, ...]
    bound: Estimate
    over_parentless: Estimate | None = None
    over_linear: Estimate | None = None
    nonlinear: Estimate | None = None
    convergence: Convergence | None = None
    shuffled: bool = False
    over_constant: Estimate | None = None
    features: int = 1

    @property
    def sentence(self) -> str:
        """The verdict on the mechanism, in words."""
        parts = [] if self.convergence is None else [self.convergence.words]
        if self.over_parentless is None:
            return f"{self.variable}: {', '.join([*parts, 'no parents'])}"
        parts.append(self._parents(self.over_parentless))
        uses = _sign(self.over_parentless) > 0
        if self.left_out is not None:
            parts.append(f"but {left_out_words(self.left_out)}")
        over = None if self.nonlinear is not None else self.over_linear
        if over is not None and (uses or _sign(over)):
            parts.append(self._linear(over))
        if self.nonlinear is not None and _sign(self.nonlinear) > 0:
            parts.append(
                f"but a nonlinear form would gain {_nats(self.nonlinear)} (hidden: [16, 16])"
            )
        return f"{self.variable}: {', '.join(parts)}"

    @property
    def left_out(self) -> Estimate | None:
        """What the training of a linear mechanism left out: the gain of its own fitted form."""
        gain = self.over_linear
        if self.nonlinear is None or gain is None or _sign(gain) >= 0 or gain.mean > -_RISE:
            return None
        return gain._replace(mean=-gain.mean)

    def _parents(self, gain: Estimate) -> str:
        none = "those of other rows" if self.shuffled else "none"
        if _sign(gain) > 0:
            return f"uses its parents (gains {_nats(gain)} over {none})"
        if _sign(gain) < 0:
            return f"worse than without its parents (loses {_nats(gain)}): it overfits"
        change = f"gains {_nats(gain)} over" if gain.mean >= 0 else f"loses {_nats(gain)} against"
        if gain.mean + 2 * gain.standard_error > _UNCLEAR:
            return f"perhaps uses its parents ({change} {none}: too few rows)"
        return f"does not use its parents ({change} {none})"

    def _linear(self, gain: Estimate) -> str:
        if _sign(gain) > 0:
            return f"and gains {_nats(gain)} over a linear form"
        if _sign(gain) < 0:
            return f"but loses {_nats(gain)} to a linear form: set hidden: [], or train longer"
        return "but gains nothing over a linear form"


def left_out_words(gain: Estimate) -> str:
    """The loss of a training that stopped early, in words."""
    return (
        f"its own form gains {_nats(gain)} if it is fitted to the end: train longer, or with a "
        "larger learning rate"
    )


def _sign(gain: Estimate) -> int:
    """1 for a gain, −1 for a loss and 0 for neither, beyond two standard errors."""
    error = 0.0 if math.isnan(gain.standard_error) else gain.standard_error
    if abs(gain.mean) < max(_SMALL, 2 * error):
        return 0
    return 1 if gain.mean > 0 else -1


def _nats(gain: Estimate) -> str:
    return f"{abs(gain.mean):.2f} ± {gain.standard_error:.2f} nats"


@torch.inference_mode(False)  # tests of Lightning run in it, where nothing can be fitted
def evaluate_mechanisms(
    model: ModelOnData,
    history: Mapping[str, Sequence[float]] | None = None,
    progress: bool = True,
    images: Mapping[str, Tensor] | None = None,
) -> list[MechanismFit]:
    """Compare each mechanism with its linear and its parentless form, and with a constant.

    These are fitted to the training split, in seconds. Only the first row of each person is used.

    Args:
        model: A model and rows of the validation split.
        history: Validation bounds of each variable in the course of the training.
        progress: Whether to show a progress bar.
        images: Images of the training split, ``(n, *shape)`` each; without them, images are not
            compared with a constant.
    """
    rows = model.independent_rows(len(model))
    names = model.scm.graph.nodes
    found = []
    with tqdm(total=len(names), desc="mechanisms", disable=None if progress else True) as bar:
        for name in names:
            known = history.get(name) if history else None
            # The course of a loss is not in nats.
            is_bound = not model.scm[name].has_training_loss
            course = convergence_of(known) if known and is_bound else None
            if name in model.scm.image_variables:
                trained = (images or {}).get(name)
                each = _image_fit(model, name, rows[:_IMAGES], course, trained)
            else:
                each = _scalar_fit(model, name, rows, course)
            found += [] if each is None else [each]
            bar.update()
    return found


def _scalar_fit(
    model: ModelOnData, name: str, rows: Tensor, course: Convergence | None
) -> MechanismFit | None:
    parents = model.scm.graph.parents[name]
    if any(parent in model.scm.image_variables for parent in parents):
        return None
    values = {each: model.variables[each][rows] for each in (name, *parents)}
    asked, training = (
        MechanismRows.of(values, name, parents),
        MechanismRows.of(model.training, name, parents),
    )
    mechanism = model.scm[name]
    if len(asked) < _FEWEST_ROWS or not len(training):
        return None
    try:
        own = log_probs(copied(mechanism), asked)
    except NotImplementedError:  # without an exact log-probability
        return None
    constant = constant_scalar_log_probs(mechanism.domain, training.value, asked.value)
    over_constant = None if constant is None else Estimate.of(own - constant)
    fit = MechanismFit(
        name, parents, Estimate.of(own), convergence=course, over_constant=over_constant
    )
    if not parents:
        return fit
    if not has_forms(mechanism):
        other = log_probs(copied(mechanism), asked.with_parents_of_others())
        return replace(fit, over_parentless=Estimate.of(own - other), shuffled=True)

    def gain(form: Callable[[Mechanism], Mechanism]) -> Estimate:
        # Stopped by the validation rows, like the training, whose best checkpoint is used.
        fitted = fit_mechanism(form(mechanism), training, asked)
        return Estimate.of(own - log_probs(fitted, asked))

    fit = replace(fit, over_parentless=gain(parentless_form), over_linear=gain(linear_form))
    if not is_linear(mechanism):
        return fit
    would = gain(nonlinear_form)
    return replace(fit, nonlinear=would._replace(mean=-would.mean))


def _image_fit(
    model: ModelOnData,
    name: str,
    rows: Tensor,
    course: Convergence | None,
    training: Tensor | None,
) -> MechanismFit | None:
    """Compare an image with parents of its own and of other rows, and with a constant."""
    scm, parents = model.scm, model.scm.graph.parents[name]
    for parent in parents:
        values = model.variables[parent][rows].flatten(1)
        rows = rows[~values.isnan().any(dim=1)] if values.is_floating_point() else rows
    if len(rows) < _FEWEST_ROWS or not scm[name].has_likelihood:
        return None
    own: list[Tensor] = []
    shuffled: list[Tensor] = []
    turned = rows.roll(len(rows) // 2)
    device, dtype = scm.fitted.device, scm.dtype
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        for first in range(0, len(rows), 64):
            part, others = rows[first : first + 64], turned[first : first + 64]
            value = model.variables[name][part].to(device, dtype)
            for chosen, collected in ((part, own), (others, shuffled)):
                causes = {p: model.variables[p][chosen].to(device, dtype) for p in parents}
                torch.manual_seed(first)
                evidence = scm[name].evidence(scm[name].dequantise(value), causes)
                collected.append(evidence.bound.expand(len(part)).double().cpu())
    bound = torch.cat(own)
    fit = MechanismFit(
        name,
        parents,
        Estimate.of(bound),
        Estimate.of(bound - torch.cat(shuffled)) if parents else None,
        convergence=course,
        shuffled=True,
        features=scm[name].domain.features,
    )
    if training is None or not len(training):
        return fit
    constant = constant_image_log_probs(scm[name], training, model.variables[name][rows])
    return fit if constant is None else replace(fit, over_constant=Estimate.of(bound - constant))
