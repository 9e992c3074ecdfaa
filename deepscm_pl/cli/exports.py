"""``export``: a trained model as one file, or as a bundle of MONAI, with card and observations."""

# ruff: noqa: D417 - options of several commands are described once, with their types

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from deepscm_pl.cli.options import CheckpointPath, Option, Trusted
from deepscm_pl.escaping import for_shell, for_terminal

if TYPE_CHECKING:
    from torch import Tensor

    from deepscm_pl.reports.card import ModelCard

__all__ = ["ExportOptions", "export"]

_OF_BUNDLES = ("authors", "license")


@dataclass(frozen=True)
class ExportOptions:
    """Options of exports.

    Args:
        card: Folders that deepscm test has written for this checkpoint; their figures are those of
            a model card, README.md beside the file. A bundle always has a card.
        observations: Number of rows of the test split, from row 0, that travel with the model, in
            observations.safetensors beside the file, so that it can be asked about them without its
            data. Names of rows are left out.
        root: Folder of the data as the file names it, such as data/morphomnist, so that it contains
            no path of this computer (default: the absolute path of the training).
        authors: Authors of the model, for --format monai.
        license: File with the licence of the weights, for --format monai.
        overwrite: Replace what exists: the file or folder, the card and the observations.
    """

    card: Annotated[list[Path] | None, Option("DIR")] = None
    observations: Annotated[int | None, Option("NUMBER")] = None
    root: Annotated[str | None, Option("DIR", ("--data.root",))] = None
    authors: Annotated[str | None, Option("TEXT")] = None
    license: Annotated[Path | None, Option("FILE")] = None
    overwrite: bool = False
    trust: Trusted = ()

    def check_format(self, is_bundle: bool) -> None:
        """Raise ValueError if an option is given that is only for the other format."""
        others = ("observations",) if is_bundle else _OF_BUNDLES
        given = [name for name in others if getattr(self, name) is not None]
        if given:
            wanted = "safetensors" if is_bundle else "monai"
            raise ValueError(f"{given[0]}: expected with --format {wanted} only; leave it out.")

    def read_licence(self) -> str:
        """Return the terms of the licence; an empty text if there is none."""
        if self.license is None:
            return ""
        try:
            return self.license.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"license: {self.license} cannot be read ({type(error).__name__}); give a file of "
                "text."
            ) from None

    def model_card(self, ckpt_path: Path, name: str, file: str) -> ModelCard:
        """Make the card of a model with the figures that ``deepscm test`` has written."""
        from deepscm_pl.checkpoints import Checkpoint
        from deepscm_pl.reports.card import ModelCard, read_measured

        measured = [read_measured(folder) for folder in self.card or ()]
        opened = Checkpoint.read(ckpt_path, trust=self.trust)
        scm, rows = opened.trained_model().scm, self.observations or 0
        return ModelCard(name, scm, opened.content, file, measured, rows)

    def stored_rows(self, ckpt_path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The first rows of the test split, if some travel with the model."""
        from deepscm_pl.checkpoints import load
        from deepscm_pl.checkpoints.stored_observations import observations_of

        if self.observations is None:
            return None
        model = load(ckpt_path, trust=self.trust)
        return observations_of(model.scm, model.data(), self.observations)


def export(
    ckpt_path: CheckpointPath,
    options: ExportOptions,
    out: Annotated[Path | None, Option("PATH")] = None,
    export_format: Annotated[
        Literal["safetensors", "monai"], Option(flags=("--format",))
    ] = "safetensors",
) -> None:
    """Write a trained model for questions, without what further training needs.

    Args:
        out: File to write, new, ending in .safetensors; for monai a folder (default:
            model.safetensors, or the folder bundle).
        export_format: safetensors, one file; monai, a bundle of a model with one image, which
            MONAI can run.
    """
    from deepscm_pl.shipped.names import find_model

    options.check_format(export_format == "monai")
    ckpt_path = find_model(ckpt_path)
    if export_format == "monai":
        _write_bundle(ckpt_path, out or Path("bundle"), options)
    else:
        _write_file(ckpt_path, out or Path("model.safetensors"), options)


def _write_file(ckpt_path: Path, out: Path, options: ExportOptions) -> None:
    from deepscm_pl.checkpoints.export import write_model
    from deepscm_pl.files import new_file
    from deepscm_pl.memory import format_bytes
    from deepscm_pl.numerals import format_number
    from deepscm_pl.runs.safetensors_file import write_tensors
    from deepscm_pl.shipped.names import CARD, OBSERVATIONS, model_title
    from deepscm_pl.suggestions import Asked

    card, rows = out.parent / CARD, out.parent / OBSERVATIONS
    _check_targets(out, {"card": card, "observations": rows}, options)
    # Made first, so that nothing is written if figures or data belong to another model.
    name = model_title(out.resolve())
    made = options.model_card(ckpt_path, name, out.name) if options.card else None
    stored = options.stored_rows(ckpt_path)
    scm, model = write_model(ckpt_path, out, options.overwrite, options.trust, options.root)
    for name, variable in model["variables"].items():
        print(for_terminal(f"{name}: {', '.join(_variable_properties(variable))}"))
    megabytes = format_number(out.stat().st_size / 1e6)
    print(f"{model['parameters']:,} parameters, {model['weights']} weights, {megabytes} MB")
    _print_written(out)
    if made is not None:
        with new_file(card) as temporary:
            temporary.write_text(made.as_markdown(), encoding="utf-8")
        _print_written(card)
    if stored is not None:
        write_tensors(*stored, rows)
        size = format_bytes(rows.stat().st_size)
        _print_written(rows, f", {options.observations:,} rows, {size}")
    print(f"\nAsk what if:         {Asked(scm, [out], options.trust).intervene()}")


def _check_targets(out: Path, others: Mapping[str, Path], options: ExportOptions) -> None:
    """Check the files that are written beside a model, by option."""
    for option, path in others.items():
        if not getattr(options, option):
            continue
        if path == out:
            raise ValueError(f"out: {path.name} is the file of the {option}; name another.")
        if path.exists() and not options.overwrite:
            raise ValueError(
                f"{option}: {path} exists; choose another folder for --out, or --overwrite to "
                "replace it."
            )


def _write_bundle(ckpt_path: Path, out: Path, options: ExportOptions) -> None:
    """Write a bundle of MONAI, and print how to run it."""
    from deepscm_pl.checkpoints.bundle_files import BundleTexts, write_bundle
    from deepscm_pl.reports.card import INTENDED_USE

    card = options.model_card(ckpt_path, out.resolve().name, "models/model.safetensors")
    figures = {name: text for each in card.measured for name, text in each.figures.items()}
    texts = BundleTexts(
        card.as_markdown(), INTENDED_USE, figures, options.authors or "", options.read_licence()
    )
    write_bundle(ckpt_path, out, texts, options.overwrite, options.trust, options.root)
    _print_written(out)
    program = ("python", "-m", "monai.bundle", "run")
    config = ("--config_file", str(out / "configs/inference.json"), "--bundle_root", str(out))
    print(f"\nRun it:              {for_shell(*program, *config, '--observations', 'FILE.csv')}")


def _variable_properties(variable: Mapping[str, Any]) -> Iterator[str]:
    yield variable["values"]
    if variable["shape"] != [1]:
        yield " × ".join(map(str, variable["shape"]))
    yield from variable["classes"] or ()
    if variable["unit"]:
        yield variable["unit"]


def _print_written(path: Path, note: str = "") -> None:
    print(f"written: {for_terminal(path)}{note}")
