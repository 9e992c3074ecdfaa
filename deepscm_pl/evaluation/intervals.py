"""Intervals of particles with conformal factors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from deepscm_pl.checks import real_number, whole_number
from deepscm_pl.escaping import one_line
from deepscm_pl.moments import Moments
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["GROUPS", "Calibration", "IntervalFactor", "coupling_of", "group_of", "scale_of"]

GROUPS = ("equal", "kept", "changed")
"""Groups of pixels: equal in all particles; varying, with a mean near the factual; and others."""

_NEAR = 8.0  # grey levels between the mean of particles and the factual of a pixel that is kept
_RANGE = 255.0  # grey levels, the largest half-width
_FLOOR = 1.0  # grey level, added to the spread so that no scale is 0


@dataclass(frozen=True)
class IntervalFactor:
    """The factor of an interval, for one intervention and one group of pixels.

    Attributes:
        intervention: The title of the intervention, such as ``do(thickness = 3 pixels)``.
        variables: The variables that it sets or changes.
        group: One of :data:`GROUPS`.
        factor: λ of the interval m ± λ·√(s² + 1) around the mean m of particles, where s is their
            standard deviation in grey levels.
        rows: Number of calibration rows with such pixels.
    """

    intervention: str
    variables: tuple[str, ...]
    group: str
    factor: float
    rows: int

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise ValueError(f"group: expected one of {', '.join(GROUPS)}, but got {self.group!r}.")
        real_number("factor", self.factor, least=0)
        whole_number("rows", self.rows, least=1)


@dataclass(frozen=True)
class Calibration:
    """Factors with which intervals of particles hold a share ``level`` of the true pixels.

    They are split-conformal (:func:`~deepscm_pl.metrics.functional.conformal.conformal_factor`):
    the promise is about new rows from the distribution of the calibration rows, on average over
    rows and pixels of a group, for the same interventions and the same number of particles.

    Attributes:
        level: The share.
        particles: Number of particles.
        members: Number of models that answered.
        factors: The factors.
        source: A description of the truth, such as ``200 validation rows of the world tiny``.
        coupling: The coupling of the pixel noise; see
            :class:`~deepscm_pl.mechanisms.ConditionalVAE`.
        is_complete: Whether the truth includes the error of interventions; if not, intervals are
            lower bounds.
    """

    level: float
    particles: int
    members: int
    factors: Sequence[IntervalFactor]
    source: str
    coupling: str = "kept"
    is_complete: bool = True

    def __post_init__(self) -> None:
        real_number("level", self.level, above=0, below=1)
        whole_number("particles", self.particles, least=2)
        whole_number("members", self.members, least=1)
        if not self.factors:
            raise ValueError("factors: expected at least one, but got none.")

    def half_width(
        self, intervention: str, variables: Sequence[str], moments: Moments, factual: Tensor
    ) -> Tensor:
        """Return the half-width of the interval of each pixel, ``(*batch, *event)``.

        Args:
            intervention: The title of the intervention.
            variables: The variables that it sets or changes.
            moments: Mean and standard deviation of the particles of the answer.
            factual: ``(*batch, *event)``.
        """
        factors = self.factors_of(intervention, variables)
        chosen = factual.new_tensor([factors[group] for group in GROUPS])
        return (chosen[group_of(moments, factual)] * scale_of(moments)).clamp(max=_RANGE)

    def is_exact(self, intervention: str) -> bool:
        """Whether this intervention itself was calibrated."""
        return any(each.intervention == intervention for each in self.factors)

    def factors_of(self, intervention: str, variables: Sequence[str]) -> dict[str, float]:
        """Return the factor of each group.

        Of an intervention that was not calibrated, it is the largest of those on the same
        variables, or else of all; of a group without calibration rows, the largest of all groups.
        """
        same = [each for each in self.factors if set(each.variables) == set(variables)]
        own = [each for each in self.factors if each.intervention == intervention]
        found = {}
        for group in GROUPS:
            candidates = [
                [each.factor for each in chosen if each.group == group]
                for chosen in (own, same, self.factors)
            ]
            everything = [each.factor for each in self.factors]
            found[group] = max(next(filter(None, candidates), everything))
        return found

    def as_plain_data(self) -> dict[str, Any]:
        """Return plain data, which :meth:`read` accepts."""
        found = asdict(self)
        found["factors"] = [
            {**each, "variables": [*each["variables"]]} for each in found["factors"]
        ]
        return found

    @classmethod
    def read(cls, data: Any) -> Calibration:
        """Read :meth:`as_plain_data`, or its JSON.

        Raises:
            ValueError: If the data have another form.
        """
        try:
            found = dict(json.loads(data) if isinstance(data, str | bytes) else data)
            factors = [
                IntervalFactor(**{**each, "variables": tuple(map(str, each["variables"]))})
                for each in found.pop("factors")
            ]
            return cls(factors=factors, **found)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else one_line(error, 200)
            raise ValueError(
                "calibration: expected the content of a calibration.json, but it cannot be read "
                f"({reason}); calibrate the model again with deepscm test."
            ) from None


def coupling_of(scm: StructuralCausalModel) -> str:
    """Return the coupling of the pixel noise of the image of a model, ``"kept"`` without a VAE."""
    return str(getattr(scm[scm.image_variables[0]], "coupling", "kept"))


def scale_of(moments: Moments) -> Tensor:
    """Return √(s² + 1) of answers with the standard deviation s, in grey levels."""
    return (moments.deviation.square() + _FLOOR**2).sqrt()


def group_of(moments: Moments, factual: Tensor) -> Tensor:
    """Return the index into :data:`GROUPS` of each pixel, ``(*batch, *event)``."""
    group = torch.where((moments.mean - factual).abs() < _NEAR, 1, 2)
    return group.masked_fill(moments.deviation == 0, 0)
