"""Trained models on disk."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.checkpoints.export import export_model
    from deepscm_pl.checkpoints.loading import Checkpoint, TrainedModel, load, load_data
    from deepscm_pl.runs.reading import read_checkpoint

__all__ = ["Checkpoint", "TrainedModel", "export_model", "load", "load_data", "read_checkpoint"]

__getattr__ = first_use(__name__)
