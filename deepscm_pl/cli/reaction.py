"""The reaction of images to an intervention, in sentences beside the answers."""

from __future__ import annotations

from collections.abc import Sequence

from deepscm_pl.reaction import image_reactions
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Do

__all__ = ["reaction_sentences"]


def reaction_sentences(scm: StructuralCausalModel, dos: Sequence[Do]) -> list[str]:
    """Describe images that do not react to a variable that an intervention sets or changes."""
    asked = [name for do in dos for name in do if name not in scm.image_variables]
    return [verdict for each in image_reactions(scm) for verdict in each.verdicts(asked)]
