"""Heads of 16×20×16 voxels, and a model of them that trains in seconds."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import yaml
from nibabel.nifti1 import Nifti1Header

from deepscm_pl.data import SyntheticBrainDataModule
from deepscm_pl.data.placement import Placement

SHAPE = (16, 20, 16)
PLACE = np.array([[12.0, 0, 0, -90], [0, 12.0, 0, -114], [0, 0, 12.0, -90], [0, 0, 0, 1]])

CONFIGURATION = {
    "model": {
        "graph": "age, sex -> brain_volume; age, brain_volume -> ventricle_volume; "
        "brain_volume, ventricle_volume -> image",
        "mechanisms": {
            "age": {
                "class_path": "deepscm_pl.AffineFlow",
                "init_args": {"constraint": "deepscm_pl.Positive"},
            },
            "sex": {"class_path": "deepscm_pl.mechanisms.Bernoulli"},
            "brain_volume": {
                "class_path": "deepscm_pl.AffineFlow",
                "init_args": {"constraint": "deepscm_pl.Positive"},
            },
            "ventricle_volume": {
                "class_path": "deepscm_pl.AffineFlow",
                "init_args": {"constraint": "deepscm_pl.Positive"},
            },
            "image": {
                "class_path": "deepscm_pl.ConditionalVAE",
                "init_args": {
                    "shape": [1, *SHAPE],
                    "latent": 3,
                    "hidden": 8,
                    "encoder": {
                        "class_path": "deepscm_pl.nn.PyramidEncoder",
                        "init_args": {"features": 8, "channels": [2, 4], "convolutions": 1},
                    },
                    "decoder": {
                        "class_path": "deepscm_pl.nn.PyramidDecoder",
                        "init_args": {"channels": [4, 2], "convolutions": 1},
                    },
                },
            },
        },
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.005}},
    },
    "association": {"num_importance_samples": 2, "importance_rows": 4},
    "evaluation": {
        "interventions": ["age=80", "brain_volume=1000000, ventricle_volume*=1.2"],
        "density_values": {
            "age": [70],
            "sex": [1],
            "brain_volume": [1.1e6],
            "ventricle_volume": [4e4],
        },
        "density_size": 60,
        "num_particles": 2,
        "workers": 1,
    },
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "callbacks": [
            {
                "class_path": "deepscm_pl.callbacks.CounterfactualGrid",
                "init_args": {"interventions": ["age=80", "sex=1"], "num_images": 2},
            }
        ],
    },
}


class PlacedBrainDataModule(SyntheticBrainDataModule):
    """Heads of 16×20×16 voxels; even test rows have the placement of a scan, odd ones none."""

    def __init__(
        self,
        batch_size: int = 8,
        validation_size: int = 4,
        train_size: int = 20,
        test_size: int = 6,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            validation_size=validation_size,
            train_size=train_size,
            test_size=test_size,
            shape=SHAPE,
            cache_dir=cache_dir,
        )

    def placement(self, split, row):
        if row % 2:
            return None
        header = Nifti1Header()
        header.set_data_shape((192, 256, 192))
        header.set_xyzt_units("mm")
        header["sform_code"], header["qform_code"] = 4, 1
        header["db_name"] = f"{split} {row}".encode()
        return Placement(PLACE, header)


def write_configuration(folder: Path) -> Path:
    settings = copy.deepcopy(CONFIGURATION)
    cache = str(folder / "cache")
    settings["data"] = {
        "class_path": "tiny_brain.PlacedBrainDataModule",
        "init_args": {"cache_dir": cache},
    }
    settings["evaluation"]["cache_dir"] = cache
    path = folder / "brain.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path
