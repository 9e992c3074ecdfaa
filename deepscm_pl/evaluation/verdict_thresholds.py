"""Limits of the verdicts on a model, as settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from deepscm_pl.checks import real_number

__all__ = ["VerdictThresholds"]

_SHARES = (
    "kolmogorov_smirnov",
    "p_value",
    "miscalibrated",
    "correlation",
    "coverage",
    "wrong_coverage",
    "extrapolated",
    "mostly_extrapolated",
)
"""Limits of numbers between 0 and 1."""
_ORDERED = (
    ("gain", "large_gain"),
    ("error", "useless"),
    ("shown", "exaggerated"),
    ("kolmogorov_smirnov", "miscalibrated"),
    ("coverage", "wrong_coverage"),
    ("extrapolated", "mostly_extrapolated"),
)
"""Pairs of limits of one figure: beyond the first it is doubtful, beyond the second it is worse."""


@dataclass(frozen=True)
class VerdictThresholds:
    """Limits of the verdicts, in Python, in YAML and on the command line.

    Gains, and coverage that is not that of the interval, count if they exceed two standard errors
    as well. The limits of the reaction of images are those of
    :class:`~deepscm_pl.reaction.ReactionThresholds`, and those of the convergence those of
    :class:`~deepscm_pl.evaluation.mechanism_fit.Convergence`.

    Args:
        gain: Nats per row by which a mechanism of a scalar has to be better than without parents.
        large_gain: Nats per row by which simpler or fitted forms must not be better.
        bits: Bits per dimension by which an image model has to be better than one distribution for
            all images.
        error: Error of counterfactual images, divided by that of the factual images unchanged:
            below it, answers are good.
        useless: The same ratio, from which on answers are no better than no change.
        shown: An image reacts to a cause if it shows at least this share of the asked changes.
        exaggerated: It exaggerates if it shows more than this share.
        kolmogorov_smirnov: Noise is calibrated up to this distance from its prior.
        p_value: Noise that is further away is calibrated with at least this p-value.
        miscalibrated: The distance from which on noise is not calibrated.
        correlation: The largest correlation of calibrated noise with parents, beyond chance.
        coverage: The difference between the coverage of intervals and 90 % of a calibrated answer.
        wrong_coverage: The difference from which on answers are not calibrated.
        width: Grey levels from which on calibrated intervals are too wide to be of use.
        extrapolated: A question is supported if a smaller share of its answers extrapolates.
        mostly_extrapolated: The share from which on it is not.

    Raises:
        ValueError: If a limit is not a number from 0 on, a share is above 1, or the limit of a
            doubtful figure is beyond that of a bad one.

    Example:
        >>> VerdictThresholds(coverage=0.02).coverage
        0.02
        >>> VerdictThresholds(coverage=0.2)
        Traceback (most recent call last):
            ...
        ValueError: coverage: expected at most wrong_coverage (0.15), but got 0.2; set both.
    """

    gain: float = 0.01
    large_gain: float = 0.1
    bits: float = 0.01
    error: float = 0.9
    useless: float = 1.0
    shown: float = 0.5
    exaggerated: float = 1.5
    kolmogorov_smirnov: float = 0.05
    p_value: float = 0.01
    miscalibrated: float = 0.1
    correlation: float = 0.1
    coverage: float = 0.05
    wrong_coverage: float = 0.15
    width: float = 128.0
    extrapolated: float = 0.05
    mostly_extrapolated: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in _SHARES:
                real_number(name, value, least=0, most=1)
            else:
                real_number(name, value, least=0)
        for name, later in _ORDERED:
            value, most = getattr(self, name), getattr(self, later)
            if value > most:
                raise ValueError(
                    f"{name}: expected at most {later} ({most:g}), but got {value:g}; set both."
                )
