"""The table of scanned subjects, and the use of its columns."""

from __future__ import annotations

from dataclasses import dataclass

from deepscm_pl.data.cohort import (
    SPLITS,
    Cohort,
    Division,
    RowSettings,
    Source,
    divide_subjects,
    read_cohort,
)

__all__ = ["SPLITS", "Cohort", "Division", "Source", "Subjects", "divide_subjects", "read_cohort"]


@dataclass(frozen=True)
class Subjects(RowSettings):
    """The table of subjects, and the use of its columns.

    The settings are those of :class:`~deepscm_pl.data.TableSettings`, with other defaults. Ordered
    classes are ordinal only if they are declared, so that the indices of classes stay those of
    earlier versions.

    Args:
        table: The table, relative to ``root``.
        images: Pattern of the image file of a row, relative to ``root``.
        identifier: Column with the identifiers of the subjects, read as text.
        units: Variable to unit. None for those of the known world, if there is one.

    Raises:
        ValueError: If a setting has an invalid value.
    """

    table: str = "subjects.csv"
    images: str | None = "{eid}_T1_unbiased_brain_rigid_to_mni.png"
    identifier: str | None = "eid"

    @property
    def file(self) -> str:
        """The table."""
        return self.table

    @property
    def infers_order(self) -> bool:
        """False."""
        return False
