"""``explore``: a page in the browser that shows what a model answers."""

# ruff: noqa: D417 - options of several commands are described once, with their types

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from deepscm_pl.cli.options import Option, Trusted
from deepscm_pl.escaping import for_terminal

__all__ = ["ExploreOptions", "explore"]


@dataclass(frozen=True)
class ExploreOptions:
    """Options of a page.

    Args:
        index: Rows of the run's test split, from 0 (default: the first 12, or 40 without images).
        steps: Values of each number, at quantiles of the training data from 2 % to 98 %.
        weights: Weights of several checkpoints: a number for each, or "validation" for those that
            maximise the probability of the validation split (default: equal weights).
        seed: Seed of the noise.
        root: Current folder of the run's data.
        overwrite: Replace the file if it exists.
    """

    index: Annotated[tuple[int, ...], Option("ROW")] = ()
    steps: int = 7
    weights: Annotated[tuple[str, ...], Option("WEIGHT")] = ()
    seed: int = 0
    root: Annotated[Path | None, Option("DIR", ("--data.root",))] = None
    overwrite: bool = False
    trust: Trusted = ()


def explore(
    ckpt_path: Annotated[tuple[Path, ...], Option("FILE")],
    static: Annotated[Path, Option("FILE.html")],
    options: ExploreOptions,
) -> None:
    """Explore a model in the browser: observations under a grid of interventions, in one file.

    Args:
        ckpt_path: Checkpoint of a run, exported model, or name of a model that is shipped with this
            program, such as digits; several answer together, as an ensemble.
        static: File to write, new: a page that opens without a server or a network.
    """
    from deepscm_pl.checks import whole_number
    from deepscm_pl.cli.questions import announced_test_data, load_models
    from deepscm_pl.explorer.questions import Explorer
    from deepscm_pl.explorer.static import StaticPage, check_target, write_static
    from deepscm_pl.memory import format_bytes

    check_target(static, options.overwrite)
    seed = whole_number("seed", options.seed, least=0, most=2**32 - 1)
    whole_number("steps", options.steps, least=2)
    model = load_models(ckpt_path, options.weights, options.trust, options.root)
    explorer = Explorer(model, announced_test_data(model, options.root), seed)
    page = StaticPage(
        options.index or None,
        options.steps,
        ckpt_path,
        options.root,
        options.trust,
        options.weights,
    )
    data = write_static(explorer, static, page, options.overwrite)
    settings = sum(len(cause["settings"]) for cause in data["causes"])
    print(f"written: {for_terminal(static)}, {format_bytes(static.stat().st_size)}")
    print(_summary(len(data["observations"]), settings, [c["variable"] for c in data["causes"]]))
    print(f"\nOpen in a browser:   {for_terminal(static.resolve().as_uri())}")


def _summary(observations: int, settings: int, causes: Sequence[str]) -> str:
    """Describe a page."""
    rows = f"{observations:,} observation{'' if observations == 1 else 's'}"
    return for_terminal(f"{rows} under {settings:,} interventions on {', '.join(causes)}")
