"""``explore``: pages in the browser that show what a model answers."""

# ruff: noqa: D417 - options of several commands are described once, with their types

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from deepscm_pl.cli.options import Option, Trusted
from deepscm_pl.escaping import for_terminal

if TYPE_CHECKING:
    from deepscm_pl.explorer.live import Place
    from deepscm_pl.explorer.questions import Explorer
    from deepscm_pl.scm import StructuralCausalModel

__all__ = ["ExploreOptions", "LiveOptions", "explore"]


@dataclass(frozen=True)
class ExploreOptions:
    """Options of a page.

    Args:
        index: Rows of the run's test split in the file, from 0 (default: the first 12, or 40
            without images).
        steps: Values of each number in the file, at quantiles of the training data from 2 % to
            98 %.
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


@dataclass(frozen=True)
class LiveOptions:
    """Options of a live page.

    Args:
        host: Address of this machine that the live page is bound to; 0.0.0.0 lets others open it.
        port: Port of the live page (default: the first free one from 7860).
        open: Open the live page in the browser.
    """

    host: str = "127.0.0.1"
    port: Annotated[int | None, Option("NUMBER")] = None
    open: bool = False


def explore(
    options: ExploreOptions,
    live: LiveOptions,
    model: Annotated[Path | None, Option("MODEL", ("model",))] = None,
    ckpt_path: Annotated[tuple[Path, ...], Option("FILE")] = (),
    static: Annotated[Path | None, Option("FILE.html")] = None,
    space: Annotated[Path | None, Option("DIR")] = None,
) -> None:
    """Explore a model in the browser: a live page, or one file that needs no server.

    Args:
        model: Name of a model that is shipped with this program, such as digits, exported model, or
            checkpoint of a run.
        ckpt_path: The same as an option, which takes several models of one graph; they answer
            together, as an ensemble.
        static: File to write, new, in place of a live page: a grid of interventions, which opens
            without a server or a network.
        space: Folder to write, new, in place of a live page: it runs as a Space of Hugging Face.
    """
    from deepscm_pl.checks import whole_number
    from deepscm_pl.cli.questions import announced_test_data, load_models
    from deepscm_pl.explorer.questions import Explorer

    whole_number("steps", options.steps, least=2)
    seed = whole_number("seed", options.seed, least=0, most=2**32 - 1)
    if static is not None and space is not None:
        raise ValueError("static: expected --static or --space, but got both; ask for one.")
    if (model is None) == (not ckpt_path):
        raise ValueError(
            "model: expected a model, such as digits, or --ckpt_path, but got "
            f"{'neither' if model is None else 'both'}; give one."
        )
    _check_options(static, space, options)
    page = _checked(static, space, options, live)
    files = ckpt_path if model is None else (model,)
    loaded = load_models(files, options.weights, options.trust, options.root)
    is_fitted = loaded.scm.training_distribution.is_known  # else the training split is read
    rows = page.rows(loaded.scm) if is_fitted else None
    explorer = Explorer(loaded, announced_test_data(loaded, options.root, rows), seed)
    page.make(explorer, files)


@dataclass(frozen=True)
class _Page:
    """A kind of page.

    Attributes:
        make: Makes it, from a model and the names of its files.
        rows: The rows of the test split that it shows; None for all.
    """

    make: Callable[[Explorer, Sequence[Path]], None]
    rows: Callable[[StructuralCausalModel], Sequence[int] | None]


def _check_options(static: Path | None, space: Path | None, options: ExploreOptions) -> None:
    """Raise ValueError for an option that the page would ignore."""
    if static is None and options.index:
        raise ValueError(
            "index: expected with --static only; choose the row on the page, or add "
            f"?index={options.index[0]} to its address."
        )
    if static is None and options.overwrite:
        raise ValueError("overwrite: expected with --static only; leave it out.")
    for name in ("weights", "seed"):
        if space is not None and getattr(options, name):
            raise ValueError(f"{name}: expected without --space, which keeps none; leave it out.")


def _checked(
    static: Path | None, space: Path | None, options: ExploreOptions, live: LiveOptions
) -> _Page:
    """The page to make; options that cannot work are refused before a model is loaded."""
    if static is not None:
        from deepscm_pl.explorer.static import StaticPage, check_target

        check_target(static, options.overwrite)
        return _Page(
            lambda explorer, files: _write_static(explorer, files, static, options),
            StaticPage(options.index or None).wanted,
        )
    if space is not None:
        from deepscm_pl.explorer.space import check_space

        check_space(space)
        return _Page(
            lambda explorer, files: _write_space(explorer, files, space, options), lambda scm: None
        )
    from deepscm_pl.explorer.live import Place, choose_port, require_gradio
    from deepscm_pl.explorer.questions import offered_rows

    place = Place(live.host, live.port, live.open)
    require_gradio()
    choose_port(place)
    return _Page(lambda explorer, files: _serve(explorer, files, options, place), offered_rows)


def _serve(
    explorer: Explorer, files: Sequence[Path], options: ExploreOptions, place: Place
) -> None:
    from deepscm_pl.explorer.live import serve
    from deepscm_pl.explorer.programs import Programs
    from deepscm_pl.explorer.session import Session

    programs = Programs(files, options.root, options.trust, options.weights, explorer.seed)
    serve(Session(explorer, programs), place)


def _write_space(
    explorer: Explorer, files: Sequence[Path], space: Path, options: ExploreOptions
) -> None:
    from deepscm_pl.explorer.space import write_space

    for path in write_space(explorer, files, space, options.trust):
        print(f"written: {for_terminal(path)}")


def _write_static(
    explorer: Explorer, files: Sequence[Path], static: Path, options: ExploreOptions
) -> None:
    from deepscm_pl.explorer.static import StaticPage, write_static
    from deepscm_pl.memory import format_bytes

    page = StaticPage(
        options.index or None, options.steps, files, options.root, options.trust, options.weights
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
