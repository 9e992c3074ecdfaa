"""``demo``: counterfactuals of a model inside the package, as a picture and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from deepscm_pl.cli.options import Option
from deepscm_pl.escaping import for_shell, for_terminal

if TYPE_CHECKING:
    from deepscm_pl.checkpoints import TrainedModel

__all__ = ["demo", "open_page"]

_MODEL = "digits"
_ROWS = range(5)
_INTERVENTIONS = ("thickness=1.5", "thickness=3", "thickness=4", "intensity=100", "intensity=250")
_PICTURE, _PAGE = "counterfactuals.png", "explore.html"


def demo(
    out: Annotated[Path | None, Option("DIR")] = None,
    opens: Annotated[bool, Option(flags=("--open",))] = False,
) -> None:
    """Show counterfactuals of handwritten digits by a model inside the package, in seconds.

    Args:
        out: Folder to make; new or empty (default: demo, or demo_2 and so on).
        opens: Also make a page to explore the model, and open it in the browser.
    """
    from deepscm_pl.checkpoints import load
    from deepscm_pl.files import new_folder
    from deepscm_pl.runs.noise import without_noise
    from deepscm_pl.suggestions import free_folder

    out = Path(free_folder("demo")) if out is None else out
    with new_folder(out) as folder, without_noise():
        model = load(_MODEL)
        _draw(model, folder / _PICTURE)
        if opens:
            _write_page(model, folder / _PAGE)
    print(
        for_terminal(
            f"{len(_ROWS)} handwritten digits, and how they would have looked under "
            f"{len(_INTERVENTIONS)} interventions, by a model of the graph {model.scm.graph}."
        )
    )
    print(f"written: {for_terminal(out / _PICTURE)}")
    if opens:
        print(f"written: {for_terminal(out / _PAGE)}")
        open_page(out / _PAGE)
    question = ("counterfactual", "--ckpt_path", _MODEL, "--do", "thickness+=1")
    words = ("--index", "0", "1", "2", "--out", free_folder("answers"))
    print(f"\nAsk it yourself:     {for_shell('deepscm', *question, *words)}")
    if not opens:
        print("Explore it:          deepscm demo --open")


def _draw(model: TrainedModel, path: Path) -> None:
    """Draw the observations and their counterfactuals."""
    from deepscm_pl.figures import save_figure

    answer = model.counterfactual(model.observations(_ROWS), list(_INTERVENTIONS), seed=0)
    save_figure(answer.plot(), path)


def _write_page(model: TrainedModel, path: Path) -> None:
    from deepscm_pl.checkpoints.stored_observations import observations_beside
    from deepscm_pl.explorer.questions import Explorer
    from deepscm_pl.explorer.static import StaticPage, write_static

    data = observations_beside(model.checkpoint.path, model.scm)
    if data is None:
        raise FileNotFoundError(
            f"demo: the observations of {model.checkpoint.path} are missing; install deepscm_pl "
            "again."
        )
    write_static(Explorer(model, data), path, StaticPage(files=[Path(_MODEL)]))


def open_page(page: Path) -> None:
    """Open a page in the browser, or print where it is."""
    from deepscm_pl.explorer.live import open_browser

    address = page.resolve().as_uri()
    if open_browser(address):
        print(f"opened in the browser: {for_terminal(address)}")
    else:
        print(f"no browser was found; open this address in one: {for_terminal(address)}")
