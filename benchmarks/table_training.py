"""The training of this package in the benchmark of tables."""

from __future__ import annotations

import os
from functools import partial

import pytorch_lightning as pl
import torch

from deepscm_pl import AffineFlow, Bernoulli, Categorical, DeepSCM, Positive, Real, SplineFlow
from deepscm_pl.data import CausalDataModule, SourceSplits
from deepscm_pl.training import OneCycle


class Rows(CausalDataModule):
    def __init__(self, table, batch_size=64):
        size = len(next(iter(table.values())))
        super().__init__(batch_size=batch_size, validation_size=size // 10)
        self.table = table

    def load(self):
        rows = {n: torch.from_numpy(v).float()[:, None] for n, v in self.table.items()}
        return SourceSplits(train=rows, test={n: v[:10] for n, v in rows.items()})


def training_of(world, table):
    kind = os.environ.get("KIND", "affine")
    hidden = [int(x) for x in os.environ.get("HIDDEN", "16,16").split(",") if x]
    steps = int(os.environ.get("STEPS", "2000"))
    wd = float(os.environ.get("WD", "0"))
    mechanisms = {}
    for name, each in world.equations.items():
        if each.categories == 2:
            mechanisms[name] = partial(Bernoulli, hidden=hidden)
        elif each.categories:
            mechanisms[name] = partial(Categorical, categories=each.categories, hidden=hidden)
        else:
            flow = AffineFlow if kind == "affine" else SplineFlow
            mechanisms[name] = partial(
                flow, constraint=Positive if each.positive else Real, hidden=hidden
            )
    model = DeepSCM(
        {n: list(p) for n, p in world.parents.items()},
        mechanisms,
        optimizer=partial(
            torch.optim.AdamW, lr=float(os.environ.get("LR", "1e-2")), weight_decay=wd
        ),
        scheduler=OneCycle,
    )
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    trainer.fit(model, datamodule=Rows(table))
    return model.scm
