"""The objects that a plan describes: its data, its mechanisms and its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from deepscm_pl.configuration import restore, with_classes
from deepscm_pl.data import TableDataModule
from deepscm_pl.data.cohort import Division, TableSettings
from deepscm_pl.mechanisms import Context, Mechanism
from deepscm_pl.planning.plan import Plan
from deepscm_pl.training import DeepSCM

__all__ = ["data_of", "mechanism_of", "model_of"]


def data_of(plan: Plan) -> TableDataModule:
    """Make the data module of the table of a plan, without its images.

    Raises:
        ValueError: If a setting is out of range.
    """
    arguments = plan.settings["data"]["init_args"]
    settings = {**(arguments.get("table") or arguments["subjects"])}
    settings["file"] = settings.pop("table", None) or settings["file"]
    settings.pop("images", None)
    splits = Division(**arguments["splits"])
    return TableDataModule(
        arguments["root"],
        TableSettings(**settings),
        splits,
        batch_size=arguments["batch_size"],
    )


def model_of(plan: Plan) -> DeepSCM:
    """Make the model of a plan, as its configuration describes it.

    Raises:
        ValueError: If a setting is out of range.
    """
    model = {name: with_classes(each) for name, each in plan.settings["model"].items()}
    restored = {
        name: restore(each) for name, each in model.items() if name not in ("graph", "mechanisms")
    }
    made = {name: mechanism_of(each) for name, each in model["mechanisms"].items()}
    return DeepSCM(model["graph"], made, **restored)


def mechanism_of(described: Mapping[str, Any] | str) -> Callable[[Context], Mechanism]:
    """Make the factory of a mechanism from its class and arguments.

    Raises:
        ValueError: If there is no such class or argument.
    """
    made: Callable[[Context], Mechanism] = restore(
        with_classes(described), Callable[[Context], Mechanism]
    )
    return made
