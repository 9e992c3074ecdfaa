"""Explorers of small models in memory, which are fitted but not trained."""

from __future__ import annotations

from functools import partial

import pytest
import pytorch_lightning as pl
import torch

from deepscm_pl.checkpoints import TrainedModel
from deepscm_pl.data import CausalDataModule, SourceSplits
from deepscm_pl.explorer import Explorer
from deepscm_pl.mechanisms import AffineFlow, Bernoulli, Categorical, SplineFlow
from deepscm_pl.nn import PyramidDecoder, PyramidEncoder
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training import DeepSCM
from deepscm_pl.transforms import Interval, Positive
from deepscm_pl.variables import Variable

from tiny import KnownTinyDataModule, TinyDataModule, image_mechanism

HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)>"
CLASSES = ("a, b", "x\"y'z", HOSTILE, "<!--", "\u2028\u202eevil", "{{data}}", "3")
UNIT = "<b>mm</b>\"&'"
GRAPH = "thickness -> intensity; thickness, intensity -> image"


def image_mechanisms():
    return {
        "thickness": partial(SplineFlow, constraint=Positive),
        "intensity": partial(AffineFlow, constraint=partial(Interval, low=0, high=255)),
        "image": image_mechanism(),
    }


def image_model(seed=0):
    torch.manual_seed(seed)
    data = KnownTinyDataModule()
    data.setup()
    scm = StructuralCausalModel(GRAPH, image_mechanisms())
    scm.fit(data.variables("train"))
    scm.describe(data.descriptions)
    return scm, data


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A checkpoint after one step, in place of that of a whole run."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("step") / "last.ckpt"
    trainer = pl.Trainer(
        default_root_dir=path.parent,
        max_steps=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(DeepSCM(GRAPH, image_mechanisms()), datamodule=TinyDataModule())
    trainer.save_checkpoint(path)
    return path


class HostileTable(CausalDataModule):
    """A table with classes and units that break pages, and a missing number."""

    def __init__(self) -> None:
        super().__init__(validation_size=20)

    def load(self) -> SourceSplits:
        return SourceSplits(train=self._rows(120, 1), test=self._rows(12, 2))

    def _rows(self, size, seed):
        generator = torch.Generator().manual_seed(seed)
        kind = torch.randint(0, len(CLASSES), (size, 1), generator=generator).float()
        dose = 1e6 * torch.rand(size, 1, generator=generator)
        effect = dose / 1e5 + kind + torch.randn(size, 1, generator=generator)
        sick = (effect > 8).float()
        effect[0] = torch.nan
        return {"kind": kind, "dose": dose, "effect": effect, "sick": sick}

    @property
    def descriptions(self):
        return {
            "kind": Variable("kind", classes=CLASSES),
            "effect": Variable("effect", unit=UNIT),
            "sick": Variable("sick", classes=("no", "yes")),
        }


@pytest.fixture(scope="session")
def pictures() -> Explorer:
    """An explorer of a model with images of a known world."""
    scm, data = image_model()
    return Explorer(TrainedModel.of(scm), data)


@pytest.fixture(scope="session")
def two_models() -> Explorer:
    """An explorer of two models that answer together."""
    (first, data), (second, _) = image_model(0), image_model(1)
    return Explorer(TrainedModel.of(first, second), data)


@pytest.fixture(scope="session")
def table() -> Explorer:
    """An explorer of a model without images."""
    data = HostileTable()
    data.setup()
    mechanisms = {
        "kind": partial(Categorical, categories=len(CLASSES)),
        "dose": partial(AffineFlow, constraint=Positive),
        "effect": AffineFlow,
        "sick": Bernoulli,
    }
    scm = StructuralCausalModel("kind, dose -> effect -> sick", mechanisms)
    scm.fit(data.variables("train"))
    scm.describe(data.descriptions)
    return Explorer(TrainedModel.of(scm), data)


class Volumes(CausalDataModule):
    """Noise in volumes of 8×8×8 voxels, whose level is a cause."""

    def __init__(self) -> None:
        super().__init__(validation_size=4)

    def load(self) -> SourceSplits:
        def rows(size, seed):
            generator = torch.Generator().manual_seed(seed)
            level = 200 * torch.rand(size, 1, generator=generator)
            noise = 50 * torch.rand(size, 1, 8, 8, 8, generator=generator)
            return {"level": level, "scan": (level[:, :, None, None, None] + noise).byte()}

        return SourceSplits(train=rows(24, 1), test=rows(3, 2))


@pytest.fixture(scope="session")
def volumes() -> tuple[StructuralCausalModel, Volumes]:
    """A model of volumes, and its data."""
    data = Volumes()
    data.setup()
    scan = partial(
        image_mechanism((1, 8, 8, 8)),
        encoder=partial(PyramidEncoder, features=8, channels=(2, 4), convolutions=1),
        decoder=partial(PyramidDecoder, channels=(4, 2), convolutions=1),
    )
    scm = StructuralCausalModel("level -> scan", {"level": AffineFlow, "scan": scan})
    scm.fit(data.variables("train"))
    return scm.eval(), data
