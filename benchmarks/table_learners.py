"""The same questions to deepscm_pl, DoWhy's gcm and causal normalising flows.

Each learner fits itself to a table and a graph with its own defaults, draws samples under an
intervention, and answers counterfactuals of individuals.
"""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from table_worlds import Column, TableWorld

__all__ = ["LEARNERS", "Learner"]

_OF_TRAINER = ("max_epochs", "check_val_every_n_epoch", "precision", "gradient_clip_val")

Table = Mapping[str, Column]


@dataclass
class Learner(ABC):
    """A method that learns a causal model from a table and a graph.

    Attributes:
        world: The world, of which a learner may use the graph and the kinds of the variables.
        seed: Seed of the training and of samples.
    """

    world: TableWorld
    seed: int = 0

    @property
    def answers_counterfactuals(self) -> bool:
        """Whether the method defines counterfactuals in this world."""
        return True

    @abstractmethod
    def fit(self, table: Table) -> None:
        """Learn from the rows of a table."""

    @abstractmethod
    def intervene(self, do: Mapping[str, float], rows: int) -> Table:
        """Draw rows under an intervention."""

    @abstractmethod
    def counterfactual(self, factual: Table, do: Mapping[str, float]) -> Table:
        """Infer the values of individuals under an intervention."""


class DeepSCMLearner(Learner):
    """This package, with the plan that ``deepscm init`` makes of the table and the graph."""

    def fit(self, table: Table) -> None:
        """Plan the mechanisms and the training, and train with early stopping."""
        with TemporaryDirectory() as folder:
            self.scm = self._trained(table, Path(folder)).eval()

    def _trained(self, table: Table, folder: Path) -> Any:
        import pytorch_lightning as pl
        import torch
        from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

        from deepscm_pl.planning import make_plan, read_fingerprint, with_chosen_forms
        from deepscm_pl.planning.training import data_of, model_of

        file = folder / "table.csv"
        self._frame(table).to_csv(file, index=False)
        graph = "; ".join(
            f"{', '.join(causes)} -> {name}" if causes else name
            for name, causes in self.world.parents.items()
        )
        plan = with_chosen_forms(make_plan(read_fingerprint(file), graph))
        pl.seed_everything(self.seed, verbose=False)
        model, data = model_of(plan), data_of(plan)
        wanted = plan.settings["trainer"]
        best = ModelCheckpoint(folder, monitor="validation/bound", mode="max")
        stop = EarlyStopping(**wanted["callbacks"][0]["init_args"])
        trainer = pl.Trainer(
            callbacks=[best, stop],
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **{name: wanted[name] for name in _OF_TRAINER},
        )
        trainer.fit(model, datamodule=data)
        weights = torch.load(best.best_model_path, weights_only=False)["state_dict"]
        model.load_state_dict(weights)
        return model.scm

    def _frame(self, table: Table) -> Any:
        import pandas as pd

        return pd.DataFrame(
            {
                name: [f"class {each:g}" for each in values]
                if self.world.equations[name].categories
                else values
                for name, values in table.items()
            }
        )

    def intervene(self, do: Mapping[str, float], rows: int) -> Table:
        """Sample the truncated model."""
        import torch

        with torch.no_grad():
            drawn = self.scm.intervene(dict(do), rows)
        return {name: value.double().numpy()[:, 0] for name, value in drawn.items()}

    def counterfactual(self, factual: Table, do: Mapping[str, float]) -> Table:
        """Abduct, act and predict."""
        import torch

        rows = {n: torch.from_numpy(v).float()[:, None] for n, v in factual.items()}
        with torch.no_grad():
            found = self.scm.counterfactual(rows, dict(do))
        return {name: value.double().numpy()[0, :, 0] for name, value in found.items()}


class DoWhyLearner(Learner):
    """DoWhy's graphical causal models with automatically assigned mechanisms."""

    @property
    def answers_counterfactuals(self) -> bool:
        """Only for additive noise models, not for classifiers."""
        return self.world.is_continuous

    def fit(self, table: Table) -> None:
        """Assign mechanisms of the quality GOOD, the default, and fit them."""
        import networkx as nx
        from dowhy import gcm

        gcm.util.general.set_random_seed(self.seed)
        gcm.config.disable_progress_bars()
        graph = nx.DiGraph()
        graph.add_nodes_from(self.world.parents)
        graph.add_edges_from(
            (cause, name) for name, causes in self.world.parents.items() for cause in causes
        )
        is_invertible = self.answers_counterfactuals
        kind = gcm.InvertibleStructuralCausalModel if is_invertible else gcm.StructuralCausalModel
        self.model = kind(graph)
        frame = self._frame(table)
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            logging.getLogger("dowhy").setLevel(logging.ERROR)
            gcm.auto.assign_causal_mechanisms(self.model, frame)
            gcm.fit(self.model, frame)

    def intervene(self, do: Mapping[str, float], rows: int) -> Table:
        """Draw interventional samples."""
        from dowhy import gcm

        drawn = gcm.interventional_samples(
            self.model, self._functions(do), num_samples_to_draw=rows
        )
        return self._columns(drawn)

    def counterfactual(self, factual: Table, do: Mapping[str, float]) -> Table:
        """Counterfactual samples of observed individuals."""
        from dowhy import gcm

        found = gcm.counterfactual_samples(
            self.model, self._functions(do), observed_data=self._frame(factual)
        )
        return self._columns(found)

    def _functions(self, do: Mapping[str, float]) -> dict[str, Any]:
        # Classes are texts, because gcm takes numbers for ordered values.
        return {
            name: partial(_constant, value=self._cell(name, value)) for name, value in do.items()
        }

    def _cell(self, name: str, value: float) -> Any:
        return f"class {value:g}" if self.world.equations[name].categories else value

    def _frame(self, table: Table) -> Any:
        import pandas as pd

        return pd.DataFrame(
            {
                name: [self._cell(name, each) for each in values]
                if self.world.equations[name].categories
                else values
                for name, values in table.items()
            }
        )

    def _columns(self, frame: Any) -> Table:
        return {
            name: frame[name].str.removeprefix("class ").to_numpy().astype(np.float64)
            if self.world.equations[name].categories
            else frame[name].to_numpy().astype(np.float64)
            for name in self.world.equations
        }


def _constant(_: Any, value: Any) -> Any:
    return value


class CausalFlowLearner(Learner):
    """A causal normalising flow with splines, and the graph as its adjacency.

    Values are standardised, and classes dequantised by uniform noise, because it is a density of
    real numbers. It is trained by Adam with early stopping on a tenth of the rows.
    """

    @property
    def answers_counterfactuals(self) -> bool:
        """A class has no noise that a continuous flow could infer."""
        return self.world.is_continuous

    def fit(self, table: Table) -> None:
        """Train a CausalNSF to the end of the improvement of its validation likelihood."""
        import copy

        import torch
        from causalflows.flows import CausalNSF

        torch.manual_seed(self.seed)
        generator = np.random.default_rng(self.seed)
        names = list(self.world.equations)
        values = np.stack([table[name] for name in names], axis=1)
        self.discrete = np.array([bool(self.world.equations[n].categories) for n in names])
        values = values + self.discrete * generator.random(values.shape)
        self.mean, self.deviation = values.mean(axis=0), values.std(axis=0)
        rows = torch.from_numpy((values - self.mean) / self.deviation).float()
        adjacency = torch.eye(len(names), dtype=torch.bool)
        for row, name in enumerate(names):
            for cause in self.world.parents[name]:
                adjacency[row, names.index(cause)] = True
        self.flow = CausalNSF(len(names), adjacency=adjacency, hidden_features=(32, 32))
        held_out = max(len(rows) // 10, 50)
        train, validation = rows[held_out:], rows[:held_out]
        optimiser = torch.optim.Adam(self.flow.parameters(), lr=1e-3)
        best, state, patience = np.inf, copy.deepcopy(self.flow.state_dict()), 0
        for _ in range(1000):
            for batch in train[torch.randperm(len(train))].split(256):
                loss = -self.flow().log_prob(batch).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            with torch.no_grad():
                found = -self.flow().log_prob(validation).mean().item()
            patience += 1
            if found < best:
                best, state, patience = found, copy.deepcopy(self.flow.state_dict()), 0
            if patience > 30:
                break
        self.flow.load_state_dict(state)

    def intervene(self, do: Mapping[str, float], rows: int) -> Table:
        """Sample with the intervened coordinates fixed."""
        import torch

        index, value = self._intervention(do)
        with torch.no_grad():
            drawn = self.flow().sample_interventional(index, value, torch.Size([rows]))
        return self._columns(drawn)

    def counterfactual(self, factual: Table, do: Mapping[str, float]) -> Table:
        """Counterfactuals by the inverse of the flow."""
        import torch

        index, value = self._intervention(do)
        values = np.stack([factual[name] for name in self.world.equations], axis=1)
        rows = torch.from_numpy((values - self.mean) / self.deviation).float()
        with torch.no_grad():
            found = self.flow().compute_counterfactual(rows, index, value)
        return self._columns(found)

    def _intervention(self, do: Mapping[str, float]) -> tuple[Any, Any]:
        import torch

        names = list(self.world.equations)
        index = [names.index(name) for name in do]
        middle = self.discrete[index] * 0.5
        values = (np.array(list(do.values())) + middle - self.mean[index]) / self.deviation[index]
        return torch.tensor(index), torch.from_numpy(values).float()

    def _columns(self, rows: Any) -> Table:
        values = rows.double().numpy() * self.deviation + self.mean
        found = {}
        for column, (name, each) in enumerate(self.world.equations.items()):
            kept = values[:, column]
            most = each.categories - 1
            found[name] = np.clip(np.floor(kept), 0, most) if each.categories else kept
        return found


LEARNERS: dict[str, type[Learner]] = {
    "deepscm_pl": DeepSCMLearner,
    "dowhy": DoWhyLearner,
    "causalflows": CausalFlowLearner,
}
"""Name to method."""
