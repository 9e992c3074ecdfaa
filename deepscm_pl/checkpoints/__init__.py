"""Trained models on disk."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.checkpoints.export import export_model as export_model
    from deepscm_pl.checkpoints.hub import from_pretrained as from_pretrained, push as push
    from deepscm_pl.checkpoints.loading import (
        Checkpoint as Checkpoint,
        TrainedModel as TrainedModel,
        load as load,
        load_data as load_data,
    )
    from deepscm_pl.checkpoints.pretrained import Pretrained as Pretrained
    from deepscm_pl.checkpoints.stored_observations import (
        StoredObservations as StoredObservations,
        write_observations as write_observations,
    )
    from deepscm_pl.runs.reading import read_checkpoint as read_checkpoint

__getattr__ = first_use(__name__)
