"""Data modules and the generators of synthetic worlds."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.data.base import (
        CausalDataModule as CausalDataModule,
        InMemoryDataset as InMemoryDataset,
        SourceSplits as SourceSplits,
    )
    from deepscm_pl.data.causal_data import CausalData as CausalData, Split as Split
    from deepscm_pl.data.cohort import Division as Division, TableSettings as TableSettings
    from deepscm_pl.data.digits import DigitsDataModule as DigitsDataModule
    from deepscm_pl.data.generate import (
        generate_brain as generate_brain,
        generate_morphomnist as generate_morphomnist,
    )
    from deepscm_pl.data.idx import read_idx as read_idx, write_idx as write_idx
    from deepscm_pl.data.morphomnist import (
        MorphoMNISTDataModule as MorphoMNISTDataModule,
        read_attributes as read_attributes,
        write_attributes as write_attributes,
    )
    from deepscm_pl.data.placement import Placement as Placement
    from deepscm_pl.data.scans import (
        BrainMRIDataModule as BrainMRIDataModule,
        Cache as Cache,
        Preprocessing as Preprocessing,
        Slicing as Slicing,
        Subjects as Subjects,
    )
    from deepscm_pl.data.synthetic_brain import SyntheticBrainDataModule as SyntheticBrainDataModule
    from deepscm_pl.data.table_module import TableDataModule as TableDataModule
    from deepscm_pl.data.tables import TableFormat as TableFormat, read_table as read_table
    from deepscm_pl.data.truth import (
        measure_attributes as measure_attributes,
        render_truth as render_truth,
    )
    from deepscm_pl.worlds import (
        BrainWorld as BrainWorld,
        ColourWorld as ColourWorld,
        DigitWorld as DigitWorld,
        KnownWorld as KnownWorld,
        ThicknessIntensityFallingWorld as ThicknessIntensityFallingWorld,
        ThicknessIntensitySlantWorld as ThicknessIntensitySlantWorld,
        ThicknessIntensityWorld as ThicknessIntensityWorld,
        ThicknessSlantWorld as ThicknessSlantWorld,
        ThicknessWidthWorld as ThicknessWidthWorld,
        known_world as known_world,
    )

__getattr__ = first_use(__name__)
