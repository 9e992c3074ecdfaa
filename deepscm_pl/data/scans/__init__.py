"""Scans of subjects in a table: read, checked, divided by subject, prepared and cached."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.data.cohort import Division as Division
    from deepscm_pl.data.scans.cache import Cache as Cache
    from deepscm_pl.data.scans.cohort import Subjects as Subjects
    from deepscm_pl.data.scans.module import BrainMRIDataModule as BrainMRIDataModule
    from deepscm_pl.data.scans.preprocessing import (
        Normalisation as Normalisation,
        Preprocessing as Preprocessing,
        Slicing as Slicing,
    )
    from deepscm_pl.data.scans.slices import Axis as Axis
    from deepscm_pl.data.tables import Attribute as Attribute, AttributeKind as AttributeKind

__getattr__ = first_use(__name__)
