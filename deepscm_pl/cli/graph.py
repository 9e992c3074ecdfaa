"""``deepscm graph``: a causal graph as a picture."""

from __future__ import annotations

from pathlib import Path

from deepscm_pl.cli.configurations import Configuration
from deepscm_pl.cli.parser import FriendlyArgumentParser
from deepscm_pl.escaping import for_terminal
from deepscm_pl.figures import draw_graph, save_figure
from deepscm_pl.graph import CausalGraph

__all__ = ["run_graph_command"]


def run_graph_command(words: list[str]) -> None:
    """Draw the graph of a configuration, or one given as text.

    Raises:
        FileNotFoundError: If the configuration does not exist.
        ValueError: If it cannot be read, has no graph, or the graph is not valid.
    """
    parser = FriendlyArgumentParser(prog="deepscm graph", description="Draw a causal graph.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "-c",
        "--config",
        action="append",
        metavar="FILE",
        help="configuration of a model, a YAML file; several are merged, and later ones win",
    )
    source.add_argument(
        "--edges", help="the graph as text, such as 'age -> volume; volume -> image'"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("graph.svg"),
        help="file to write, ending in .svg, .png or .pdf (default: %(default)s)",
    )
    options = parser.parse_args(words[1:])
    graph = CausalGraph(_graph_of(options.config) if options.edges is None else options.edges)
    print(f"written: {for_terminal(save_figure(draw_graph(graph), options.out))}")


def _graph_of(files: list[str]) -> str | dict[str, list[str]]:
    model = Configuration.read(files).settings.get("model")
    graph = model.get("graph") if isinstance(model, dict) else None
    if not isinstance(graph, str | dict):
        raise ValueError(f"config: {', '.join(files)} has no entry model.graph; add one.")
    return graph
