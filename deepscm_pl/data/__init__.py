"""Data modules and the generators of synthetic worlds."""

from deepscm_pl.data.base import CausalDataModule, InMemoryDataset, SourceSplits, Split
from deepscm_pl.data.digits import DigitsDataModule
from deepscm_pl.data.generate import generate_morphomnist
from deepscm_pl.data.idx import read_idx, write_idx
from deepscm_pl.data.morphomnist import (
    Attributes,
    MorphoMNISTDataModule,
    read_attributes,
    write_attributes,
)
from deepscm_pl.data.worlds import ThicknessIntensityWorld

__all__ = [
    "Attributes",
    "CausalDataModule",
    "DigitsDataModule",
    "InMemoryDataset",
    "MorphoMNISTDataModule",
    "SourceSplits",
    "Split",
    "ThicknessIntensityWorld",
    "generate_morphomnist",
    "read_attributes",
    "read_idx",
    "write_attributes",
    "write_idx",
]
