"""Data modules and the generators of synthetic worlds."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.data.base import CausalDataModule, InMemoryDataset, SourceSplits, Split
    from deepscm_pl.data.digits import DigitsDataModule
    from deepscm_pl.data.generate import generate_brain, generate_morphomnist
    from deepscm_pl.data.idx import read_idx, write_idx
    from deepscm_pl.data.morphomnist import (
        MorphoMNISTDataModule,
        read_attributes,
        write_attributes,
    )
    from deepscm_pl.data.placement import Placement
    from deepscm_pl.data.scans import (
        BrainMRIDataModule,
        Cache,
        Division,
        Preprocessing,
        Slicing,
        Subjects,
    )
    from deepscm_pl.data.synthetic_brain import SyntheticBrainDataModule
    from deepscm_pl.data.truth import measure_attributes, render_truth
    from deepscm_pl.worlds import (
        BrainWorld,
        DigitWorld,
        KnownWorld,
        ThicknessIntensityFallingWorld,
        ThicknessIntensityWorld,
        ThicknessSlantWorld,
        ThicknessWidthWorld,
        known_world,
    )

__all__ = [
    "BrainMRIDataModule",
    "BrainWorld",
    "Cache",
    "CausalDataModule",
    "DigitWorld",
    "DigitsDataModule",
    "Division",
    "InMemoryDataset",
    "KnownWorld",
    "MorphoMNISTDataModule",
    "Placement",
    "Preprocessing",
    "Slicing",
    "SourceSplits",
    "Split",
    "Subjects",
    "SyntheticBrainDataModule",
    "ThicknessIntensityFallingWorld",
    "ThicknessIntensityWorld",
    "ThicknessSlantWorld",
    "ThicknessWidthWorld",
    "generate_brain",
    "generate_morphomnist",
    "known_world",
    "measure_attributes",
    "read_attributes",
    "read_idx",
    "render_truth",
    "write_attributes",
    "write_idx",
]

__getattr__ = first_use(__name__)
