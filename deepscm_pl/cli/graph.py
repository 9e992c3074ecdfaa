"""``deepscm graph``: a causal graph as a picture."""

from __future__ import annotations

import argparse

from deepscm_pl.cli.configurations import Configuration
from deepscm_pl.escaping import for_terminal
from deepscm_pl.figures import draw_graph, save_figure
from deepscm_pl.graph import CausalGraph

__all__ = ["run_graph_command"]


def run_graph_command(command: str, options: argparse.Namespace) -> None:
    """Draw the graph of a configuration, or one given as text.

    Raises:
        FileNotFoundError: If the configuration does not exist.
        ValueError: If it cannot be read, has no graph, or the graph is not valid.
    """
    graph = CausalGraph(_graph_of(options.config) if options.edges is None else options.edges)
    print(f"written: {for_terminal(save_figure(draw_graph(graph), options.out))}")


def _graph_of(files: list[str]) -> str | dict[str, list[str]]:
    model = Configuration.read(files).settings.get("model")
    graph = model.get("graph") if isinstance(model, dict) else None
    if not isinstance(graph, str | dict):
        raise ValueError(f"config: {', '.join(files)} has no entry model.graph; add one.")
    return graph
