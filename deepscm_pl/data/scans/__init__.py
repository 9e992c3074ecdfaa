"""Scans of subjects in a table: read, checked, divided by subject, prepared and cached."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.data.scans.cache import Cache
    from deepscm_pl.data.scans.cohort import Division, Subjects
    from deepscm_pl.data.scans.module import BrainMRIDataModule
    from deepscm_pl.data.scans.preprocessing import Normalisation, Preprocessing, Slicing
    from deepscm_pl.data.scans.slices import Axis
    from deepscm_pl.data.tables import Attribute, AttributeKind

__all__ = [
    "Attribute",
    "AttributeKind",
    "Axis",
    "BrainMRIDataModule",
    "Cache",
    "Division",
    "Normalisation",
    "Preprocessing",
    "Slicing",
    "Subjects",
]

__getattr__ = first_use(__name__)
