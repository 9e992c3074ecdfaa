"""Data modules that do not fit a model of the tiny world."""

from __future__ import annotations

import torch

from deepscm_pl.data import SourceSplits

from tiny import KnownTinyDataModule


class OtherVariables(KnownTinyDataModule):
    """Calls the thickness by another name."""

    def load(self) -> SourceSplits:
        splits = super().load()
        return SourceSplits(train=_renamed(splits.train), test=_renamed(splits.test))


class OneMore(KnownTinyDataModule):
    """Has an age, too."""

    def load(self) -> SourceSplits:
        splits = super().load()
        return SourceSplits(train=_aged(splits.train), test=_aged(splits.test))


def _renamed(variables):
    return {"width" if name == "thickness" else name: v for name, v in variables.items()}


def _aged(variables):
    return {**variables, "age": torch.linspace(20, 80, len(variables["label"]))[:, None]}
