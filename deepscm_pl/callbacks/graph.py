"""A callback that shows the causal graph in TensorBoard."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from deepscm_pl.callbacks.figure_callback import causal_model
from deepscm_pl.escaping import for_markdown
from deepscm_pl.figures import draw_graph, thumbnail_pixels
from deepscm_pl.runs.folders import trained_steps
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["GraphPicture"]


class GraphPicture(pl.Callback):
    """Show the causal graph in TensorBoard when a training starts.

    Under the tag ``model/graph`` there is a picture, and a table of the variables with their
    causes and mechanisms on the tab Text. ``deepscm fit`` adds the callback to each training.

    Example:
        >>> callback = GraphPicture()
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the picture and the table."""
        found = [each for each in trainer.loggers if isinstance(each, TensorBoardLogger)]
        if not found or not trainer.is_global_zero:
            return
        scm, step = causal_model(pl_module), trained_steps(trainer, pl_module)
        pixels = thumbnail_pixels(draw_graph(scm.graph))
        for logger in found:
            logger.experiment.add_image("model/graph", pixels, step, dataformats="HWC")
            logger.experiment.add_text("model/graph", graph_markdown(scm), step)


def graph_markdown(scm: StructuralCausalModel) -> str:
    """Return a table of the variables, their causes and their mechanisms, in Markdown.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> scm = StructuralCausalModel("age -> size", {"age": AffineFlow, "size": AffineFlow})
        >>> print(graph_markdown(scm))
        | variable | causes | mechanism |
        |---|---|---|
        | age | – | AffineFlow |
        | size | age | AffineFlow |
    """
    lines = ["| variable | causes | mechanism |", "|---|---|---|"]
    for name in scm.graph.nodes:
        causes = ", ".join(map(for_markdown, scm.graph.parents[name])) or "–"
        lines.append(f"| {for_markdown(name)} | {causes} | {type(scm[name]).__name__} |")
    return "\n".join(lines)
