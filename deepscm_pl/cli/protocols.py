"""``test --protocol``: the figures that others report, by their definitions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from deepscm_pl.cli.options import NewFolder, Option, Trusted
from deepscm_pl.escaping import for_terminal

if TYPE_CHECKING:
    from deepscm_pl.evaluation.protocols.answering import Task

__all__ = ["ProtocolOptions", "is_protocol", "judge_by_protocol"]

_FLAG = "--protocol"


@dataclass(frozen=True)
class ProtocolOptions:
    """Options of a test by a protocol.

    Args:
        protocol: causal-gen, benchmark, rasal or ours.
        judge: Trained judges, variable=FILE each: a checkpoint of an ImageClassifier or an
            ImageRegressor. What a known world measures is judged by measurements, too.
        embedding: Checkpoint of a model whose image has no parents, such as
            morphomnist/independent, for the latent divergence (default: left out).
        do: Further interventions by constants, such as thickness=5, whose truth ours compares with.
        rows: Only the first rows of the test split, which the report states (default: all).
        seeds: Seeds of the interventions; figures are means over them.
        batch_size: Rows per batch.
        workers: Number of processes that measure and draw (default: one for each core).
        root: Current folder of the data.
    """

    protocol: str
    ckpt_path: Annotated[Path, Option("FILE", help="Checkpoint of a run.")]
    out: NewFolder
    judge: Annotated[list[str] | None, Option("VARIABLE=FILE")] = None
    embedding: Annotated[Path | None, Option("FILE")] = None
    do: Annotated[list[str] | None, Option("TEXT")] = None
    rows: Annotated[int | None, Option("NUMBER")] = None
    seeds: Annotated[tuple[int, ...], Option("SEED")] = (0, 1, 2)
    batch_size: int = 256
    workers: Annotated[int | None, Option("NUMBER")] = None
    root: Annotated[Path | None, Option("DIR", ("--data.root",))] = None
    trust: Trusted = ()


def is_protocol(words: Sequence[str]) -> bool:
    """Whether words of the command line are a test by a protocol.

    Example:
        >>> is_protocol(["test", "--protocol", "ours"]), is_protocol(["test"])
        (True, False)
    """
    flags = [word.partition("=")[0] for word in words[1:]]
    return words[0] == "test" and _FLAG in flags


def judge_by_protocol(options: ProtocolOptions) -> None:
    """Test a model by the protocol of others: their interventions, judges and definitions."""
    from deepscm_pl.evaluation.protocols import PROTOCOLS, run_protocol
    from deepscm_pl.files import new_folder
    from deepscm_pl.reports.protocols import protocol_table, write_protocol
    from deepscm_pl.reports.tables import print_table
    from deepscm_pl.runs.output import without_noise

    if options.protocol not in PROTOCOLS:
        raise ValueError(
            f"protocol: expected one of {', '.join(PROTOCOLS)}, but got {options.protocol!r}; "
            "choose one."
        )
    with new_folder(options.out) as folder, without_noise():
        result = run_protocol(options.protocol, _task(options))
        written = [options.out / path.name for path in write_protocol(result, folder)]
    print_table(protocol_table(result))
    for note in result.notes:
        print(f"Note: {for_terminal(note)}.")
    for path in written:
        print(f"written: {for_terminal(path)}")


def _task(options: ProtocolOptions) -> Task:
    from deepscm_pl.checkpoints import Checkpoint
    from deepscm_pl.evaluation.model_on_data import ModelOnData
    from deepscm_pl.evaluation.protocols.answering import ProtocolSettings, Task
    from deepscm_pl.evaluation.protocols.judging import morphometry
    from deepscm_pl.metrics.perceptual import NetworkFeatures, NetworkLayers
    from deepscm_pl.training.judges import LatentEmbedding, judges_from, network_of

    settings = ProtocolSettings(
        options.seeds,
        options.batch_size,
        options.workers,
        sys.stderr.isatty(),
        asked=tuple(options.do or ()),
    )
    files = _files(options.judge or [])
    opened = Checkpoint.read(options.ckpt_path, trust=options.trust)
    scm = opened.trained_model().scm
    data = opened.data(options.root)
    data.prepare_data()
    model = ModelOnData.of(scm, data, options.rows)
    judges = judges_from(files, model, _tuned_by(opened.content), options.trust)
    features = perceptual = None
    classes = [name for name in files if scm[name].domain.categories is not None]
    if classes and options.protocol == "benchmark":
        network = network_of(files[classes[0]], options.trust)
        features = NetworkFeatures(network.network, network.levels)
        perceptual = NetworkLayers(network.network, network.levels)
    embedding = None
    if options.embedding is not None:
        embedding = LatentEmbedding(options.embedding, options.trust)
    training = data.variables("train")
    judges = [*morphometry(model, options.workers), *judges]
    return Task(model, judges, settings, training, features, embedding, perceptual)


def _tuned_by(content: dict[str, object]) -> dict[str, str]:
    """Return the digests of the predictors by which a model was tuned."""
    found = content.get("provenance")
    return {str(n): str(d) for n, d in found.items()} if isinstance(found, dict) else {}


def _files(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise ValueError(
                f"judge: expected variable=FILE, but got {text!r}; name the variable that it reads."
            )
        found[name] = path
    return found
