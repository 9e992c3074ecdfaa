"""Effects, mediation, causes of events, contributions and smallest changes, with intervals.

Each question compares *potential outcomes*: values of one variable for the same rows under several
interventions. A row is its noise (:class:`~deepscm_pl.effects.units.Units`), drawn from the model
or inferred from an observation.
"""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.effects.average import (
        average_effect as average_effect,
        individual_effects as individual_effects,
    )
    from deepscm_pl.effects.causation import causes_of_event as causes_of_event
    from deepscm_pl.effects.contributions import (
        contributions_of_changes as contributions_of_changes,
        contributions_to_difference as contributions_to_difference,
        contributions_to_rows as contributions_to_rows,
        contributions_to_variance as contributions_to_variance,
    )
    from deepscm_pl.effects.mediation import mediated_effects as mediated_effects
    from deepscm_pl.effects.outcome import Condition as Condition, Outcome as Outcome
    from deepscm_pl.effects.result import EffectEstimate as EffectEstimate, Effects as Effects
    from deepscm_pl.effects.shapley import shapley_values as shapley_values
    from deepscm_pl.effects.smallest_change import (
        SmallestChanges as SmallestChanges,
        smallest_changes as smallest_changes,
    )
    from deepscm_pl.effects.units import EffectSettings as EffectSettings, Units as Units

__getattr__ = first_use(__name__)
