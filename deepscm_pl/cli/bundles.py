"""``deepscm export --format monai``, and the model card that all exports share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from deepscm_pl.cli.options import Option
from deepscm_pl.escaping import for_shell, for_terminal

if TYPE_CHECKING:
    from deepscm_pl.reports.card import ModelCard

__all__ = ["BundleOptions", "export_bundle", "model_card"]


@dataclass(frozen=True)
class BundleOptions:
    """Options of bundles.

    Args:
        authors: Authors of the model, for --format monai.
        license: File with the licence of the weights, for --format monai.
    """

    authors: Annotated[str | None, Option("TEXT")] = None
    license: Annotated[Path | None, Option("FILE")] = None

    def check_unused(self) -> None:
        """Raise ValueError if an option is given that is only for bundles."""
        given = [name for name in ("authors", "license") if getattr(self, name)]
        if given:
            raise ValueError(f"{given[0]}: expected with --format monai only; leave it out.")

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


def model_card(
    ckpt_path: Path, name: str, file: str, folders: Sequence[Path], trust: Sequence[str]
) -> ModelCard:
    """Make the card of a model with the figures in folders that ``deepscm test`` has written."""
    from deepscm_pl.checkpoints import Checkpoint
    from deepscm_pl.reports.card import ModelCard, read_measured

    measured = [read_measured(folder) for folder in folders]
    opened = Checkpoint.read(ckpt_path, trust=trust)
    return ModelCard(name, opened.trained_model().scm, opened.content, file, measured)


def export_bundle(
    ckpt_path: Path,
    out: Path,
    options: BundleOptions,
    folders: Sequence[Path],
    overwrite: bool,
    trust: Sequence[str],
    root: str | None,
) -> None:
    """Write a bundle of MONAI, and print how to run it."""
    from deepscm_pl.checkpoints.bundle_files import BundleTexts, write_bundle
    from deepscm_pl.reports.card import INTENDED_USE

    card = model_card(ckpt_path, out.resolve().name, "models/model.safetensors", folders, trust)
    figures = {name: text for each in card.measured for name, text in each.figures.items()}
    texts = BundleTexts(
        card.as_markdown(), INTENDED_USE, figures, options.authors or "", options.read_licence()
    )
    write_bundle(ckpt_path, out, texts, overwrite, trust, root)
    print(f"written: {for_terminal(out)}")
    program = ("python", "-m", "monai.bundle", "run")
    config = ("--config_file", str(out / "configs/inference.json"), "--bundle_root", str(out))
    command = for_shell(*program, *config, "--observations", "FILE.csv")
    print(f"\nRun it:              {command}")
