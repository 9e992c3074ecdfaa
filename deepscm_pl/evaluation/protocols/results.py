"""Results of a protocol: figures with their intervention, judge and floor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deepscm_pl.evaluation.estimate import Estimate

__all__ = ["Figure", "ProtocolResult", "mean_over_seeds"]


@dataclass(frozen=True)
class Figure:
    """One number of a protocol.

    Attributes:
        intervention: Such as ``do(thickness ~ train)``; empty for a figure without one.
        variable: The variable that is judged, or ``image``.
        quantity: Such as ``mean absolute error`` or ``accuracy``.
        unit: The unit of the quantity; empty for shares and ratios.
        judge: What reads the variable from images: ``network`` or ``morphometry``; empty where
            images are compared.
        defined: The quantity as it is defined, a mean over images and seeds with its standard
            error over images.
        deviation: Standard deviation of the means of single seeds; NaN for one seed.
        published: The quantity as the published code computes it, where that differs.
        floor: The same quantity of recorded images, from which a perfect model suffers, too.
        published_floor: The floor as the published code computes it, where that differs.
    """

    intervention: str
    variable: str
    quantity: str
    unit: str
    judge: str
    defined: Estimate
    deviation: float = math.nan
    published: float | None = None
    floor: float | None = None
    published_floor: float | None = None

    def as_plain_data(self) -> dict[str, Any]:
        """Return plain data for JSON, with None instead of NaN."""
        return {
            "intervention": self.intervention,
            "variable": self.variable,
            "quantity": self.quantity,
            "unit": self.unit,
            "judge": self.judge,
            "defined": self.defined.as_plain_data(),
            "deviation": _finite(self.deviation),
            "published": _finite(self.published),
            "floor": _finite(self.floor),
            "published_floor": _finite(self.published_floor),
        }


@dataclass(frozen=True)
class ProtocolResult:
    """All figures of one protocol.

    Attributes:
        protocol: Its name.
        figures: The figures, in the order of the protocol.
        rows: Number of test images.
        available: Number of images of the test split.
        seeds: Seeds of the interventions.
        notes: What was left out, and where the protocol differs from the published code.
        judges: For each variable that a network read, the digest of its weights.
        weights: The digest of the weights of the model; empty if unknown.
    """

    protocol: str
    figures: Sequence[Figure]
    rows: int
    available: int
    seeds: Sequence[int]
    notes: Sequence[str] = ()
    judges: Mapping[str, str] = field(default_factory=dict)
    weights: str = ""

    def figure(self, intervention: str, variable: str, quantity: str, judge: str = "") -> Figure:
        """Return a figure.

        Raises:
            KeyError: If there is none.
        """
        wanted = (intervention, variable, quantity, judge)
        for each in self.figures:
            if (each.intervention, each.variable, each.quantity, each.judge) == wanted:
                return each
        raise KeyError(wanted)

    @classmethod
    def of_plain_data(cls, data: Any) -> ProtocolResult:
        """Return the result that :meth:`as_plain_data` has written.

        Raises:
            ValueError: If the data are those of something else.
        """
        try:
            return cls(
                str(data["protocol"]),
                [_figure_of(each) for each in data["figures"]],
                int(data["rows"]),
                int(data["available"]),
                [int(seed) for seed in data["seeds"]],
                [str(note) for note in data["notes"]],
                {str(name): str(digest) for name, digest in data.get("judges", {}).items()},
                str(data.get("weights", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                "expected the figures of a protocol, as deepscm test --protocol writes them, but "
                f"{type(error).__name__}: {error}; write them again."
            ) from None

    def as_plain_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "protocol": self.protocol,
            "rows": self.rows,
            "available": self.available,
            "seeds": list(self.seeds),
            "notes": list(self.notes),
            "judges": dict(self.judges),
            "weights": self.weights,
            "figures": [each.as_plain_data() for each in self.figures],
        }


def _figure_of(data: Mapping[str, Any]) -> Figure:
    numbers: dict[str, Any] = {"deviation": _read(data["deviation"], math.nan)}
    for name in ("published", "floor", "published_floor"):
        numbers[name] = _read(data.get(name), None)
    found = data["defined"]
    mean, error = (_read(found[name], math.nan) for name in ("mean", "standard_error"))
    words: dict[str, Any] = {
        name: str(data[name]) for name in ("intervention", "variable", "quantity", "unit", "judge")
    }
    return Figure(**words, defined=Estimate(mean, error, int(found["rows"])), **numbers)


def _read(value: Any, unknown: Any) -> Any:
    return unknown if value is None else float(value)


def mean_over_seeds(estimates: Sequence[Estimate]) -> tuple[Estimate, float]:
    """Return the mean of the estimates of several seeds, and the deviation of their means.

    The images are the same for every seed, so that the standard error is that of one seed, on
    average.

    Example:
        >>> mean_over_seeds([Estimate(1.0, 0.2, 9), Estimate(3.0, 0.2, 9)])
        (Estimate(mean=2.0, standard_error=0.2, rows=9), 1.4142135623730951)
    """
    count = len(estimates)
    mean = sum(each.mean for each in estimates) / count
    error = sum(each.standard_error for each in estimates) / count
    spread = math.nan
    if count > 1:
        spread = math.sqrt(sum((each.mean - mean) ** 2 for each in estimates) / (count - 1))
    return Estimate(mean, error, estimates[0].rows), spread


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
