"""Natural direct and indirect effects, by nested counterfactuals with shared noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from deepscm_pl.effects.average import Contrast, notes_on_question
from deepscm_pl.effects.outcome import Outcome, check_known
from deepscm_pl.effects.result import Effects, Replicates
from deepscm_pl.effects.units import EffectQuestion, EffectSettings, Model, Units
from deepscm_pl.variables import Do, Variables

__all__ = ["mediated_effects"]


def mediated_effects(
    model: Model,
    outcome: str | Outcome,
    do: Do | str,
    versus: Do | str | None = None,
    through: Sequence[str] | None = None,
    observed: Any = None,
    settings: EffectSettings | None = None,
) -> Effects:
    """Divide the effect of an intervention into a direct and an indirect part.

    With mediators M, and Y(a, M(b)) the outcome under the intervention a with the mediators that
    each row has under b (Pearl 2001, "Direct and indirect effects"):

    - ``total``: Y(a, M(a)) − Y(b, M(b));
    - ``direct``: Y(a, M(b)) − Y(b, M(b)), the natural direct effect;
    - ``indirect``: Y(b, M(a)) − Y(b, M(b)), the natural indirect effect;
    - ``interaction``: total − direct − indirect, zero if both parts add up.

    Args:
        model: The model, or several.
        outcome: As of :func:`~deepscm_pl.effects.average_effect`.
        do: The intervention a.
        versus: The intervention b; None for none.
        through: The mediators; by default, all variables on directed paths from the intervened
            variables to the outcome. With some of them, "indirect" is the effect through these, and
            "direct" that along all other paths.
        observed: As of :func:`~deepscm_pl.effects.average_effect`.
        settings: Rows, seed and intervals.

    Raises:
        ValueError: As of :func:`~deepscm_pl.effects.average_effect`, and if a mediator is not on a
            directed path to the outcome.

    Example:
        >>> from functools import partial
        >>> from torch.distributions import AffineTransform
        >>> from deepscm_pl.mechanisms import Known
        >>> from deepscm_pl.scm import StructuralCausalModel
        >>> def linear(**weights):
        ...     def layers(parents):
        ...         return [AffineTransform(sum(weights[n] * parents[n] for n in parents), 1.0)]
        ...     return partial(Known, layers=layers)
        >>> scm = StructuralCausalModel(
        ...     "x -> m; x, m -> y", {"x": linear(), "m": linear(x=2.0), "y": linear(x=1.0, m=3.0)}
        ... )
        >>> found = mediated_effects(scm, "y", {"x": 1.0}, {"x": 0.0})
        >>> [round(found[name].value, 3) for name in ("total", "direct", "indirect")]
        [7.0, 1.0, 6.0]
    """
    contrast = Contrast.read(model, outcome, do, versus)
    paths = _Paths.read(contrast, through)
    question = EffectQuestion.of(model, [*contrast.names, *paths.mediators], settings, observed)
    columns = question.collect(paths.ask)
    replicates = Replicates(question, columns)
    unit = contrast.outcome.unit
    estimates = {
        name: replicates.estimate(itemgetter(name), unit=unit)
        for name in ("total", "direct", "indirect")
    }
    estimates["interaction"] = replicates.estimate(
        lambda mean: mean["total"] - mean["direct"] - mean["indirect"], unit=unit
    )
    return Effects(
        contrast.title,
        contrast.outcome,
        estimates,
        (*paths.notes(), *notes_on_question(question, contrast)),
        question.settings.level,
    )


@dataclass(frozen=True)
class _Paths:
    """The directed paths of a contrast, divided by mediators."""

    contrast: Contrast
    mediators: tuple[str, ...]
    has_direct: bool

    @classmethod
    def read(cls, contrast: Contrast, through: Sequence[str] | None) -> _Paths:
        graph, targets = contrast.graph, contrast.outcome.names
        between = graph.descendants(*contrast.changed) & graph.ancestors(*targets)
        on_path = tuple(n for n in graph.nodes if n in between - {*contrast.changed, *targets})
        chosen = on_path if through is None else tuple(through)
        for name in chosen:
            check_known("through", name, graph.nodes)
            if name not in on_path:
                known = f"choose from {', '.join(on_path)}" if on_path else "leave it out"
                raise ValueError(
                    f"through: expected variables on directed paths from "
                    f"{', '.join(contrast.changed)} to {', '.join(targets)}, but got {name}; "
                    f"{known}."
                )
        # Without the mediators, does a path remain?
        kept = {
            name: [cause for cause in causes if cause not in chosen]
            for name, causes in graph.parents.items()
        }
        reached = set(contrast.changed)
        for name in graph.nodes:
            if name not in chosen and reached & set(kept[name]):
                reached.add(name)
        return cls(contrast, chosen, bool(reached & set(targets)))

    def ask(self, units: Units) -> dict[str, Tensor]:
        """The parts of the effect on each unit."""
        contrast = self.contrast
        worlds = units.under(contrast.do), units.under(contrast.versus)
        first, second = (contrast.outcome(world) for world in worlds)
        total = first - second if contrast.has_path else torch.zeros_like(first)
        zero = torch.zeros_like(total)
        direct = contrast.outcome(self._nested(units, *worlds)) - second
        indirect = contrast.outcome(self._nested(units, *worlds[::-1])) - second
        return {
            "total": total,
            "direct": direct if self.has_direct else zero,
            "indirect": indirect if self.mediators else zero,
        }

    def _nested(self, units: Units, causes: Variables, mediators: Variables) -> Variables:
        """The causes of one world, with the mediators of another."""
        held = {name: causes[name] for name in self.contrast.changed}
        held |= {name: mediators[name] for name in self.mediators}
        return units.under(held)

    def notes(self) -> Iterator[str]:
        """Sentences about the paths, and why a part is zero."""
        contrast = self.contrast
        if not contrast.has_path:
            return
        if self.mediators:
            yield f"Indirect: through {', '.join(self.mediators)}."
        else:
            yield "The indirect effect is exactly 0: no variable lies between cause and outcome."
        if not self.has_direct:
            yield (
                "The direct effect is exactly 0: every directed path leads through "
                f"{', '.join(self.mediators)}."
            )
