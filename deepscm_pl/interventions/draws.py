"""Distributions that a stochastic intervention draws from, and their check against a domain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, distributions
from torch.distributions import Distribution

from deepscm_pl.numerals import shortest
from deepscm_pl.variables import Domain, Stochastic

__all__ = ["FAMILIES", "TRAIN", "Draw", "check_support", "draw_values", "format_distribution"]

TRAIN = "train"
"""The family of draws from the training data."""

FAMILIES: dict[str, tuple[type[Distribution], tuple[str, ...]]] = {
    "normal": (distributions.Normal, ("loc", "scale")),
    "lognormal": (distributions.LogNormal, ("loc", "scale")),
    "uniform": (distributions.Uniform, ("low", "high")),
    "exponential": (distributions.Exponential, ("rate",)),
    "gamma": (distributions.Gamma, ("concentration", "rate")),
    "beta": (distributions.Beta, ("concentration1", "concentration0")),
    "poisson": (distributions.Poisson, ("rate",)),
    "bernoulli": (distributions.Bernoulli, ("probs",)),
    "categorical": (distributions.Categorical, ("probs",)),
}
"""The families of distributions by their names in texts, with the parameters of torch."""

_FORMS = {
    "normal": "normal(mean, standard deviation)",
    "lognormal": "lognormal(mean, standard deviation) of the logarithm",
    "uniform": "uniform(low, high)",
    "exponential": "exponential(rate)",
    "gamma": "gamma(shape, rate)",
    "beta": "beta(a, b)",
    "poisson": "poisson(mean)",
    "bernoulli": "bernoulli(probability of class 1)",
    "categorical": "categorical(probability of each class, with the sum 1)",
    TRAIN: "train, without parameters",
}
_LIMITS = {
    "normal": "a standard deviation above 0",
    "lognormal": "a standard deviation above 0",
    "uniform": "low < high",
    "exponential": "a rate above 0",
    "gamma": "numbers above 0",
    "beta": "numbers above 0",
    "poisson": "a mean of at least 0",
    "bernoulli": "a number from 0 to 1",
}
_TRIALS, _MOST_OUTSIDE, _MOST_REDRAWS = 10_000, 0.01, 100


@dataclass(frozen=True)
class Draw(Stochastic):
    """A draw from a distribution: the value of a stochastic intervention.

    Every observation and particle gets a draw of its own. Draws outside of the domain of the
    variable are drawn again, if they are at most one in a hundred; more are refused.

    Args:
        family: ``normal``, ``lognormal``, ``uniform``, ``exponential``, ``gamma``, ``beta``,
            ``poisson``, ``bernoulli``, ``categorical``, or ``train`` for the distribution of the
            variable in the training data.
        parameters: Its parameters, as in the text: ``(3.0, 0.5)`` for ``normal(3, 0.5)``.

    Raises:
        ValueError: If the family is unknown, or the parameters do not fit it.

    Example:
        >>> str(Draw("normal", (3.0, 0.5))), str(Draw("train"))
        ('normal(3, 0.5)', 'train')
        >>> Draw("normal", (3.0, -0.5))
        Traceback (most recent call last):
            ...
        ValueError: normal(3, -0.5): expected normal(mean, standard deviation), with a standard \
deviation above 0; correct its parameters.
    """

    family: str
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", tuple(float(each) for each in self.parameters))
        if self.family not in _FORMS:
            raise ValueError(
                f"draw: expected one of {', '.join(_FORMS)}, but got {self.family!r}; choose one."
            )
        if not self._fits():
            limit = _LIMITS.get(self.family, "")
            raise ValueError(
                f"{self}: expected {_FORMS[self.family]}{limit and f', with {limit}'}; correct its "
                "parameters."
            )

    def _fits(self) -> bool:
        if self.family == TRAIN:
            return not self.parameters
        names = FAMILIES[self.family][1]
        if not all(map(math.isfinite, self.parameters)):
            return False
        if self.family == "categorical":
            sums = math.isclose(sum(self.parameters), 1, abs_tol=1e-3)
            return sums and min(self.parameters) >= 0
        if len(self.parameters) != len(names):
            return False
        try:
            self.distribution()
        except ValueError:
            return False
        return True

    def distribution(self) -> Distribution:
        """Make the distribution; ValueError for ``train``, which only a model knows."""
        if self.family == TRAIN:
            raise ValueError("draw: the training data are known to a model only.")
        kind, names = FAMILIES[self.family]
        if self.family == "categorical":
            return distributions.Categorical(torch.tensor(self.parameters))
        return kind(**dict(zip(names, self.parameters, strict=True)), validate_args=True)

    def __str__(self) -> str:
        parameters = ", ".join(map(shortest, self.parameters))
        return f"{self.family}({parameters})" if self.parameters else self.family


def format_distribution(distribution: Draw | Distribution) -> str:
    """Format a distribution as text, such as ``normal(3, 0.5)``.

    Distributions of other families, or with several parameters of a kind, are formatted as their
    name with ``…``.

    Example:
        >>> format_distribution(distributions.Normal(3.0, 0.5))
        'normal(3, 0.5)'
    """
    if isinstance(distribution, Draw):
        return str(distribution)
    for family, (kind, names) in FAMILIES.items():
        if type(distribution) is kind:
            found = [torch.as_tensor(getattr(distribution, name)) for name in names]
            if family == "categorical" and found[0].dim() == 1:
                found = list(found[0])
            if all(each.numel() == 1 for each in found):
                return f"{family}({', '.join(shortest(each) for each in found)})"
    kept = getattr(distribution, "name", None)
    return str(kept) if kept == TRAIN else f"{type(distribution).__name__.lower()}(…)"


def check_support(name: str, distribution: Distribution, domain: Domain) -> None:
    """Check that a distribution draws values of a domain, but for one in a hundred.

    The share outside is that among 10,000 draws, which leave the random numbers of the caller as
    they are.

    Raises:
        ValueError: If more are outside, or the shape of the draws does not fit.

    Example:
        >>> check_support("age", distributions.Normal(40.0, 10.0), Domain(lower=0, open=True))
        >>> check_support("sex", distributions.Normal(0.0, 1.0), Domain(categories=2))
        Traceback (most recent call last):
            ...
        ValueError: do(sex): expected draws of a class index from 0 to 1, but all of those of \
normal(0, 1) are others; draw with bernoulli(p), or set a class.
    """
    shape = tuple(distribution.batch_shape) + tuple(distribution.event_shape)
    trials = max(1, _TRIALS // max(math.prod(shape), 1))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        drawn = _shaped(name, distribution, (trials, *shape[: -len(domain.shape)]), domain.shape)
    outside = (~domain.contains(drawn)).double().mean().item()
    if outside > _MOST_OUTSIDE:
        share = "all" if outside == 1 else f"{100 * outside:.2g} %"
        advice = "choose a distribution inside"
        if domain.categories is not None:
            form = "bernoulli(p)" if domain.categories == 2 else "categorical(p, …)"
            advice = f"draw with {form}, or set a class"
        elif domain.whole or domain.step is not None:
            advice = "draw whole numbers, such as poisson(5)"
        elif distribution.support is distributions.constraints.real and domain.lower == 0:
            advice = "choose one inside, such as lognormal or gamma"
        raise ValueError(
            f"do({name}): expected draws of {domain}, but {share} of those of "
            f"{format_distribution(distribution)} are others; {advice}."
        )


def draw_values(
    name: str, distribution: Distribution, shape: tuple[int, ...], domain: Domain
) -> Tensor:
    """Draw values ``(*shape, *event)`` inside of a domain, drawing again what is outside.

    Raises:
        ValueError: If the distribution gives nothing inside in a hundred draws of a value.
    """
    drawn = _shaped(name, distribution, shape, domain.shape)
    for _ in range(_MOST_REDRAWS):
        outside = ~domain.contains(drawn)
        if not bool(outside.any()):
            return drawn
        drawn = torch.where(outside, _shaped(name, distribution, shape, domain.shape), drawn)
    raise ValueError(
        f"do({name}): expected draws of {domain}, but {format_distribution(distribution)} gives "
        "some rows none; choose a distribution inside."
    )


def _shaped(
    name: str, distribution: Distribution, shape: tuple[int, ...], event: tuple[int, ...]
) -> Tensor:
    """Draws ``(*shape, *event)``; a distribution of single numbers draws each number by itself."""
    full = (*shape, *event)
    batch = full[: len(full) - len(distribution.event_shape)]
    try:
        found = distribution.expand(torch.Size(batch)).sample()
    except (RuntimeError, NotImplementedError):
        found = None
    if found is None or tuple(found.shape) != full:
        own = tuple(distribution.batch_shape) + tuple(distribution.event_shape)
        raise ValueError(
            f"do({name}): expected a distribution whose draws have a shape that broadcasts with "
            f"{full}, but got {own}; give one for all rows, or one for each observation."
        )
    return found
