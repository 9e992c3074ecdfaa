"""From a fingerprint and a graph to a complete experiment, each setting with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepscm_pl.data.tables import MISSING_WORDS
from deepscm_pl.graph import CausalGraph
from deepscm_pl.planning.columns import ColumnFingerprint
from deepscm_pl.planning.commented import commented_yaml
from deepscm_pl.planning.fingerprint import Fingerprint
from deepscm_pl.planning.network import image_mechanism, preprocessing, slicing
from deepscm_pl.planning.pictures import ImageFingerprint
from deepscm_pl.planning.scalars import scalar_mechanism
from deepscm_pl.planning.wanted_graph import IMAGE, read_graph

__all__ = ["Plan", "make_plan"]

_FEW_MISSING = 0.05
_LEAST_EPOCHS = 10
_CHECKS = 50


@dataclass(frozen=True)
class Plan:
    """An experiment.

    Attributes:
        settings: The configuration, as ``deepscm fit --config`` reads it.
        reasons: Dotted path of a setting to the reason for its value.
        notes: Remarks about the whole, such as a small number of rows.
    """

    settings: Mapping[str, Any]
    reasons: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def yaml(self, title: str) -> str:
        """Return the configuration as YAML with comments.

        Args:
            title: The first comment.
        """
        head = [title, *(f"Note: {note}" for note in self.notes)]
        comments = "".join(f"# {line}\n" for line in head)
        return comments + commented_yaml(self.settings, self.reasons)


@dataclass(frozen=True)
class _Length:
    """The length of a training."""

    train_rows: int
    batch_size: int
    steps: int

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return math.ceil(self.train_rows / self.batch_size)

    @property
    def epochs(self) -> int:
        """Epochs with about the number of steps."""
        return max(_LEAST_EPOCHS, math.ceil(self.steps / self.batches))

    @property
    def epochs_between_checks(self) -> int:
        """Epochs between two validations."""
        return max(1, self.epochs // _CHECKS)


def make_plan(fingerprint: Fingerprint, graph: str | None) -> Plan:
    """Plan an experiment.

    Args:
        fingerprint: The data.
        graph: The causes, such as ``age, sex -> volume; volume -> image``.

    Raises:
        ValueError: If there is no graph, or it does not fit the data.

    Example:
        >>> from deepscm_pl.planning import ColumnFingerprint, Fingerprint
        >>> ages = ColumnFingerprint("age", "age", "positive", "numbers", 400, 0, 60, 19.0, 79.0)
        >>> sexes = ColumnFingerprint("sex", "sex", "binary", "two", 400, 0, 2, levels=("f", "m"))
        >>> plan = make_plan(Fingerprint("t.csv", 1, 1, 400, (ages, sexes)), "sex -> age")
        >>> plan.settings["model"]["mechanisms"]["sex"]
        'deepscm_pl.mechanisms.Bernoulli'
        >>> plan.reasons["model.mechanisms.sex"]
        'binary: two'
    """
    found = read_graph(graph, fingerprint)
    columns = [fingerprint.variables[name] for name in found.nodes if name != IMAGE]
    has_image = IMAGE in found.nodes
    splits, reasons_of_splits = _splits(fingerprint, columns)
    rows = fingerprint.training_rows
    if rows is None:
        rows = math.ceil(splits["fractions"][0] * fingerprint.rows)
    length = _length(rows, has_image)
    reasons: dict[str, str] = {}
    data = _data(fingerprint, columns, found, splits, reasons)
    reasons |= {f"data.init_args.splits.{key}": value for key, value in reasons_of_splits.items()}
    data["init_args"]["batch_size"] = length.batch_size
    reasons["data.init_args.batch_size"] = (
        f"{length.batches} batches in an epoch of {rows:,} training rows"
    )
    model = _model(fingerprint, found, rows, length, reasons)
    settings = {
        "seed_everything": 0,
        "model": model,
        "data": data,
        **_evaluation(has_image, fingerprint.rows, reasons),
        "trainer": _trainer(fingerprint, has_image, length, model, reasons),
    }
    reasons["seed_everything"] = "the same answers in every run"
    return Plan(settings, reasons, tuple(_notes(fingerprint, columns, rows)))


def _notes(fingerprint: Fingerprint, columns: list[ColumnFingerprint], rows: int) -> list[str]:
    notes = []
    if rows < 200:
        notes.append(
            f"{rows} training rows are few: answers will be uncertain; train several members "
            "(deepscm fit --members 5) to see how uncertain."
        )
    rare = [each for each in columns if each.levels and each.rarest < 5]
    for each in rare:
        notes.append(
            f"a class of {each.variable} has only {each.rarest} rows; merge it with another "
            "class, because little can be learned about it."
        )
    return notes


def _length(rows: int, has_image: bool) -> _Length:
    if has_image:
        batch = 16 if rows < 500 else 32 if rows < 2000 else 64
        steps = 2000 if rows < 500 else 4000 if rows < 5000 else 12_000
    else:
        batch = 32 if rows < 1000 else 128 if rows < 10_000 else 512
        steps = 1000 if rows < 1000 else 2000 if rows < 10_000 else 4000
    return _Length(rows, min(batch, rows), steps)


def _splits(
    fingerprint: Fingerprint, columns: list[ColumnFingerprint]
) -> tuple[dict[str, Any], dict[str, str]]:
    if fingerprint.training_rows is not None:
        recorded = [each for each in fingerprint.columns if each.kind == "splits"]
        name = next(each.name for each in recorded if len(each.levels) == 3)
        return {"column": name}, {"column": "train, validation or test for each row"}
    small = fingerprint.units < 1000
    fractions = [0.7, 0.15, 0.15] if small else [0.8, 0.1, 0.1]
    unit = f" of {fingerprint.identifier}" if fingerprint.identifier else ""
    splits: dict[str, Any] = {"fractions": fractions, "seed": 0}
    reasons = {
        "fractions": f"training, validation and test{unit}; "
        + (
            f"with {fingerprint.units:,} units, a tenth would be too few to validate on"
            if small
            else "the usual shares"
        ),
        "seed": "the same division in every run",
    }
    classes = sorted((each for each in columns if each.levels), key=lambda each: each.rarest)
    if classes:
        splits["stratify"] = [each.name for each in classes[:2]]
        reasons["stratify"] = "every class in every split, in equal shares"
    return splits, reasons


def _data(
    fingerprint: Fingerprint,
    columns: list[ColumnFingerprint],
    graph: CausalGraph,
    splits: dict[str, Any],
    reasons: dict[str, str],
) -> dict[str, Any]:
    path = Path(fingerprint.table).absolute()
    scans = fingerprint.images if IMAGE in graph.nodes else None
    cut = scans is not None and slicing(scans) is not None
    section, key = ("subjects", "table") if cut else ("table", "file")
    where = f"data.init_args.{section}"
    table = {
        key: path.name,
        **_source(fingerprint, scans, where, reasons),
        **_variables(columns, where, reasons),
        "missing": _missing(fingerprint.rows, columns, where, reasons),
    }
    arguments: dict[str, Any] = {"root": str(path.parent), section: table, "splits": splits}
    reasons["data.init_args.root"] = "folder of the table"
    if scans is not None:
        arguments |= _prepared(scans, reasons)
    name = "BrainMRIDataModule" if cut else "TableDataModule"
    return {"class_path": f"deepscm_pl.data.{name}", "init_args": arguments}


def _source(
    fingerprint: Fingerprint,
    scans: ImageFingerprint | None,
    where: str,
    reasons: dict[str, str],
) -> dict[str, Any]:
    """How the table is read, and what its rows are."""
    table: dict[str, Any] = {}
    if fingerprint.sheet is not None:
        table["sheet"] = fingerprint.sheet
    if encoding := fingerprint.encoding or fingerprint.assumed_encoding:
        table["encoding"] = encoding
        if fingerprint.encoding is None:
            reasons[f"{where}.encoding"] = "not UTF-8; change it if letters look wrong"
    if fingerprint.missing_words != MISSING_WORDS:
        table["missing_words"] = list(fingerprint.missing_words)
        reasons[f"{where}.missing_words"] = "mean a missing value, as do empty cells"
    if scans is not None:
        table["images"] = scans.pattern
        reasons[f"{where}.images"] = f"{scans.files:,} files, one for each row"
    if fingerprint.identifier is not None:
        table["identifier"] = fingerprint.identifier
        reasons[f"{where}.identifier"] = "all rows of a unit are in one split"
    if fingerprint.visits:
        table["visits"] = list(fingerprint.visits)
        reasons[f"{where}.visits"] = "distinguishes the rows of a unit"
    return table


def _variables(
    columns: list[ColumnFingerprint], where: str, reasons: dict[str, str]
) -> dict[str, Any]:
    """The variables with their columns, kinds, classes and units."""
    table: dict[str, Any] = {"columns": {each.variable: each.name for each in columns}}
    reasons[f"{where}.columns"] = "variable: column, those of the graph"
    table["kinds"] = {each.variable: each.kind for each in columns}
    for each in columns:
        reasons[f"{where}.kinds.{each.variable}"] = each.reason
    ordered = {each.variable: list(each.levels) for each in columns if each.kind == "ordinal"}
    if ordered:
        table["classes"] = ordered
        reasons[f"{where}.classes"] = "the order of the classes, lowest first"
    units = {each.variable: each.unit for each in columns if each.unit}
    if units:
        table["units"] = units
        reasons[f"{where}.units"] = "in the names of the columns"
    return table


def _missing(
    rows: int, columns: list[ColumnFingerprint], where: str, reasons: dict[str, str]
) -> str:
    """The treatment of missing values."""
    missing = {each.variable: each.missing for each in columns if each.missing}
    if not missing:
        reasons[f"{where}.missing"] = "no value is missing; a gap that appears later is an error"
        return "refuse"
    counts = ", ".join(f"{count} of {name}" for name, count in missing.items())
    is_dropped = sum(missing.values()) / rows <= _FEW_MISSING
    reasons[f"{where}.missing"] = f"{counts} missing: " + (
        "few enough to leave the rows out"
        if is_dropped
        else "inferred, assuming that they are missing at random"
    )
    return "drop" if is_dropped else "infer"


def _prepared(scans: ImageFingerprint, reasons: dict[str, str]) -> dict[str, Any]:
    """The preparation of images, and the slice of volumes that are too large."""
    arguments: dict[str, Any] = {}
    prepared, why = preprocessing(scans)
    if prepared:
        arguments["preprocessing"] = prepared
        reasons |= {f"data.init_args.preprocessing.{k}": v for k, v in why.items()}
    if cut := slicing(scans):
        arguments["slicing"] = cut
        reasons["data.init_args.slicing"] = (
            f"volumes of {' × '.join(map(str, scans.sizes))} voxels are too large for a model "
            "of this size; the middle axial slice stands for them"
        )
    return arguments


def _model(
    fingerprint: Fingerprint,
    graph: CausalGraph,
    rows: int,
    length: _Length,
    reasons: dict[str, str],
) -> dict[str, Any]:
    has_image = IMAGE in graph.nodes
    rate = 1.0e-3 if has_image else 3.0e-3
    model: dict[str, Any] = {
        "graph": str(graph),
        "mechanisms": _mechanisms(fingerprint, graph, rows, reasons),
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": rate}},
        "scheduler": {"class_path": "deepscm_pl.training.OneCycle", "init_args": {"warmup": 0.1}},
    }
    reasons["model.graph"] = "as you stated it: an assumption, which no data can prove"
    reasons["model.optimizer.init_args.lr"] = (
        "for the networks of images" if has_image else "the best of 0.01 and 0.003 on small tables"
    )
    reasons["model.scheduler.init_args.warmup"] = "rises in a tenth of the steps, then falls to 0"
    scalars = [name for name in graph.nodes if name != IMAGE]
    if has_image:
        model["learning_rates"] = dict.fromkeys(scalars, 3.0e-3)
        reasons["model.learning_rates"] = "flows of numbers learn faster than networks of images"
        model["num_evaluation_particles"] = 2
        reasons["model.num_evaluation_particles"] = "a less noisy bound to choose the best epoch by"
        model["objective"] = _objective(rows, length, reasons)
    return model


def _mechanisms(
    fingerprint: Fingerprint, graph: CausalGraph, rows: int, reasons: dict[str, str]
) -> dict[str, Any]:
    mechanisms: dict[str, Any] = {}
    for name, parents in graph.parents.items():
        where = f"model.mechanisms.{name}"
        if name == IMAGE and fingerprint.images is not None:
            mechanisms[name], found = image_mechanism(fingerprint.images, rows)
        else:
            column = fingerprint.variables[name]
            mechanisms[name], found = scalar_mechanism(column, bool(parents), rows)
        reasons |= {f"{where}.{key}" if key else where: value for key, value in found.items()}
    return mechanisms


def _objective(rows: int, length: _Length, reasons: dict[str, str]) -> dict[str, Any]:
    """The objective of an image with a latent."""
    is_small = rows < 5000
    where = "model.objective.init_args"
    reasons[f"{where}.warmup_steps"] = (
        "steps until the latent costs its full divergence, so that it is not left unused"
    )
    reasons[f"{where}.divergence_weight"] = (
        "the evidence lower bound, which needs no last phase, so that the training may stop early"
        if is_small
        else "the latent learns more; the last 15 % of the steps refit the posterior"
    )
    return {
        "class_path": "deepscm_pl.training.objectives.EvidenceLowerBoundObjective",
        "init_args": {
            "warmup_steps": length.steps // (10 if is_small else 4),
            "divergence_weight": 1.0 if is_small else 0.5,
        },
    }


def _evaluation(has_image: bool, rows: int, reasons: dict[str, str]) -> dict[str, Any]:
    if not has_image:
        return {}
    tested = max(2, rows // 10)
    reasons["association.importance_rows"] = "of the test split; more take longer"
    reasons["evaluation.detail_rows"] = "rows with 19 draws each, which take the longest"
    return {
        "association": {"importance_rows": min(50, tested)},
        "evaluation": {"detail_rows": min(20, tested)},
    }


def _trainer(
    fingerprint: Fingerprint,
    has_image: bool,
    length: _Length,
    model: Mapping[str, Any],
    reasons: dict[str, str],
) -> dict[str, Any]:
    trainer: dict[str, Any] = {
        "default_root_dir": f"runs/{Path(fingerprint.table).stem}",
        "max_epochs": length.epochs,
        "check_val_every_n_epoch": length.epochs_between_checks,
        "precision": "auto" if has_image else "32-true",
        "gradient_clip_val": 1000 if has_image else 100,
        "log_every_n_steps": min(20, length.batches),
    }
    reasons["trainer.default_root_dir"] = "results, relative to where the training is started"
    reasons["trainer.max_epochs"] = (
        f"{length.epochs * length.batches:,} steps of {length.batch_size} rows"
    )
    reasons["trainer.check_val_every_n_epoch"] = "validated about 50 times; the best epoch is kept"
    reasons["trainer.precision"] = (
        "bfloat16 where the processor or GPU computes in it, else float32"
        if has_image
        else "float32: a table is small, and densities need the digits"
    )
    reasons["trainer.gradient_clip_val"] = "stops outliers only"
    objective = model.get("objective", {}).get("init_args", {})
    if objective.get("divergence_weight", 1.0) == 1:
        reasons["trainer.callbacks.0"] = (
            "stops when the validation bound has not risen in a third of the training; the best "
            "epoch is tested"
        )
        patience = math.ceil(length.epochs / length.epochs_between_checks / 3)
        trainer["callbacks"] = [
            {
                "class_path": "pytorch_lightning.callbacks.EarlyStopping",
                "init_args": {"monitor": "validation/bound", "mode": "max", "patience": patience},
            }
        ]
    return trainer
