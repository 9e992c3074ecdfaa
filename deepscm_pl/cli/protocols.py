"""``test --protocol``: the figures that others report, by their definitions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from deepscm_pl.cli.options import NewFolder, Option, Trusted
from deepscm_pl.escaping import for_terminal

if TYPE_CHECKING:
    from torch.nn import Module

    from deepscm_pl.evaluation.model_on_data import ModelOnData
    from deepscm_pl.evaluation.protocols.answering import Task

__all__ = [
    "ComparisonOptions",
    "ProtocolOptions",
    "compare_by_protocol",
    "is_protocol",
    "judge_by_protocol",
    "protocol_command",
]

_JUDGES = (".ckpt", ".safetensors")
_FLAG, _COMPARE = "--protocol", "--compare"


@dataclass(frozen=True)
class ProtocolOptions:
    """Options of a test by a protocol.

    Args:
        protocol: causal-gen, benchmark, rasal or ours.
        ckpt_path: Checkpoint of a run; several answer together, which ours judges.
        judge: Trained judges, variable=FILE each: a checkpoint of an ImageClassifier or an
            ImageRegressor. What a known world measures is judged by measurements, too.
        embedding: Checkpoint of a model whose image has no parents, such as
            morphomnist/independent, for the latent divergence (default: left out).
        features: Network of the Fréchet distance of benchmark: a program of torch.jit.save, or of
            torch.export.save as .pt2, from bytes (N, 3, H, W) to features (N, D), as torchmetrics
            takes it; or a judge as .ckpt or .safetensors (default: the judge of a class).
        perceptual: Network of the perceptual distance of benchmark: such a program from two
            batches (N, 3, H, W) in [-1, 1] to distances, such as LPIPS; or a judge (default: the
            judge of a class).
        do: Further interventions by constants, such as thickness=5, whose truth ours compares with.
        rows: Only the first rows of the test split, which the report states (default: all).
        seeds: Seeds of the interventions; figures are means over them.
        batch_size: Rows per batch.
        workers: Number of processes that measure and draw (default: one for each core).
        root: Current folder of the data.
    """

    protocol: str
    ckpt_path: Annotated[tuple[Path, ...], Option("FILE")]
    out: NewFolder
    judge: Annotated[list[str] | None, Option("VARIABLE=FILE")] = None
    embedding: Annotated[Path | None, Option("FILE")] = None
    features: Annotated[Path | None, Option("FILE")] = None
    perceptual: Annotated[Path | None, Option("FILE")] = None
    do: Annotated[list[str] | None, Option("TEXT")] = None
    rows: Annotated[int | None, Option("NUMBER")] = None
    seeds: Annotated[tuple[int, ...], Option("SEED")] = (0, 1, 2)
    batch_size: int = 256
    workers: Annotated[int | None, Option("NUMBER")] = None
    root: Annotated[Path | None, Option("DIR", ("--data.root",))] = None
    trust: Trusted = ()


@dataclass(frozen=True)
class ComparisonOptions:
    """Options of a comparison of models that were tested by a protocol.

    Args:
        protocol: causal-gen, benchmark, rasal or ours.
        compare: Folders of deepscm test --protocol, one of each model.
    """

    protocol: str
    compare: Annotated[tuple[Path, ...], Option("DIR")]
    out: Annotated[Path | None, Option("DIR", help="Folder to make (default: none).")] = None


def is_protocol(words: Sequence[str]) -> bool:
    """Whether words of the command line are a test by a protocol.

    Example:
        >>> is_protocol(["test", "--protocol", "ours"]), is_protocol(["test"])
        (True, False)
    """
    flags = [word.partition("=")[0] for word in words[1:]]
    return words[0] == "test" and _FLAG in flags


def protocol_command(words: Sequence[str]) -> Callable[..., None]:
    """Return the function of a test by a protocol: a comparison if ``--compare`` is given."""
    flags = {word.partition("=")[0] for word in words}
    return compare_by_protocol if _COMPARE in flags else judge_by_protocol


def compare_by_protocol(options: ComparisonOptions) -> None:
    """Compare models that were tested by a protocol: a row for each model."""
    from deepscm_pl.files import new_folder
    from deepscm_pl.reports.comparison import (
        comparison_tables,
        differences,
        read_protocols,
        write_comparison,
    )
    from deepscm_pl.reports.tables import print_table

    _require_known(options.protocol)
    results = read_protocols(options.compare, options.protocol)
    written: list[Path] = []
    if options.out is not None:
        with new_folder(options.out) as folder:
            paths = write_comparison(results, options.protocol, folder)
            written = [options.out / path.name for path in paths]
    for table in comparison_tables(results):
        print_table(table)
    for note in differences(results):
        print(f"Note: {note}.")
    for path in written:
        print(f"written: {for_terminal(path)}")


def judge_by_protocol(options: ProtocolOptions) -> None:
    """Test a model by the protocol of others; --compare DIR [DIR ...] compares tested models."""
    from deepscm_pl.evaluation.protocols import run_protocol
    from deepscm_pl.files import new_folder
    from deepscm_pl.reports.protocols import protocol_table, write_protocol
    from deepscm_pl.reports.tables import print_table
    from deepscm_pl.runs.noise import without_noise

    _require_known(options.protocol)
    with new_folder(options.out) as folder, without_noise():
        result = run_protocol(options.protocol, _task(options))
        written = [options.out / path.name for path in write_protocol(result, folder)]
    print_table(protocol_table(result))
    for note in result.notes:
        print(f"Note: {for_terminal(note)}.")
    for path in written:
        print(f"written: {for_terminal(path)}")


def _require_known(protocol: str) -> None:
    from deepscm_pl.evaluation.protocols import PROTOCOLS

    if protocol not in PROTOCOLS:
        raise ValueError(
            f"protocol: expected one of {', '.join(PROTOCOLS)}, but got {protocol!r}; choose one."
        )


def _task(options: ProtocolOptions) -> Task:
    from deepscm_pl.checkpoints import load
    from deepscm_pl.evaluation.model_on_data import ModelOnData
    from deepscm_pl.evaluation.protocols.answering import ProtocolSettings, Task
    from deepscm_pl.evaluation.protocols.judging import morphometry
    from deepscm_pl.runs.clock import training_seconds
    from deepscm_pl.training.judges import LatentEmbedding, judges_from

    settings = ProtocolSettings(
        options.seeds,
        options.batch_size,
        options.workers,
        sys.stderr.isatty(),
        asked=tuple(options.do or ()),
    )
    files = _files(options.judge or [])
    trained = load(options.ckpt_path, trust=options.trust)
    contents = [each.content for each in trained.checkpoints]
    seconds = [training_seconds(content) for content in contents]
    data = trained.data(options.root)
    data.prepare_data()
    alone = ModelOnData.of(trained.scm, data, options.rows)
    model = replace(alone, ensemble=trained.ensemble)
    tuned_by = [digest for content in contents for digest in _tuned_by(content)]
    judges = judges_from(files, model, tuned_by, options.trust)
    features, perceptual = _feature_networks(options, files, model)
    embedding = None
    if options.embedding is not None:
        embedding = LatentEmbedding(options.embedding, options.trust)
    return Task(
        model,
        [*morphometry(model, options.workers), *judges],
        settings,
        data.variables("train"),
        features,
        embedding,
        perceptual,
        None if None in seconds else sum(each or 0.0 for each in seconds),
    )


def _feature_networks(
    options: ProtocolOptions, files: Mapping[str, str], model: ModelOnData
) -> tuple[Module | None, Module | None]:
    """The networks of the Fréchet and the perceptual distance, by default the judge of a class."""
    from deepscm_pl.metrics.perceptual import NetworkFeatures, NetworkLayers
    from deepscm_pl.metrics.programs import FeatureProgram, PairProgram, load_program
    from deepscm_pl.training.judges import network_of

    if options.protocol != "benchmark":
        return None, None
    scm = model.scm
    shape = scm[scm.image_variables[0]].domain.shape
    classes = [path for name, path in files.items() if scm[name].domain.categories is not None]
    kinds: dict[str, tuple[Path | None, Any, Any]] = {
        "features": (options.features, FeatureProgram, NetworkFeatures),
        "perceptual": (options.perceptual, PairProgram, NetworkLayers),
    }
    found: list[Module | None] = []
    for name, (path, program, layers) in kinds.items():
        path = path or (Path(classes[0]) if classes else None)
        if path is None:
            found.append(None)
        elif path.suffix in _JUDGES:
            judge = network_of(path, options.trust)
            found.append(layers(judge.network, judge.levels))
        else:
            found.append(program(load_program(path, name), shape))
    return found[0], found[1]


def _tuned_by(content: Mapping[str, object]) -> list[str]:
    """Return the digests of the predictors by which a model was tuned."""
    found = content.get("provenance")
    return [str(digest) for digest in found.values()] if isinstance(found, dict) else []


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
