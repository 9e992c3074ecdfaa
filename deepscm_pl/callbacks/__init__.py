"""What a person watches: grids of images, and the table at the end."""

from deepscm_pl.callbacks.association import AssociationReport
from deepscm_pl.callbacks.grids import CounterfactualGrid, InterventionGrid

__all__ = ["AssociationReport", "CounterfactualGrid", "InterventionGrid"]
