"""The commands that do not train, as functions whose parameters are their options.

Nothing that takes long to import is imported before a function is called.
"""

# ruff: noqa: D417 - options of several commands are described once, with their types

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from deepscm_pl.cli.demo import demo
from deepscm_pl.cli.effect_commands import EFFECTS
from deepscm_pl.cli.explore import explore
from deepscm_pl.cli.exports import export
from deepscm_pl.cli.init import InitOptions, plan_experiment
from deepscm_pl.cli.options import CheckpointPath, Command, NewFolder, Option, Trusted
from deepscm_pl.cli.push import push
from deepscm_pl.escaping import for_shell, for_terminal

__all__ = [
    "COMMANDS",
    "AnswerOptions",
    "CheckOptions",
    "DrawOptions",
    "InterventionOptions",
    "ObservationOptions",
    "OverlapOptions",
    "ParticleOptions",
    "WorldName",
]

File = Annotated[Path, Option("FILE")]
Folder = Annotated[Path, Option("DIR")]
Workers = Annotated[
    int | None, Option("NUMBER", help="Number of processes (default: one for each core).")
]
FormatOption = Annotated[Literal["png", "nifti"] | None, Option(flags=("--format",))]
_EXPERIMENTS = {
    "thickness-intensity": "full",
    "thickness-intensity-falling": "falling_full",
    "thickness-slant": "slant_full",
    "thickness-width": "width_full",
    "thickness-intensity-slant": "intensity_slant_full",
    "colour": "colour_full",
}
"""The experiment of each world of digits."""
_SLICES = (64, 64)
"""The slices of the experiments with brains."""
WorldName = Literal[
    "thickness-intensity",
    "thickness-intensity-falling",
    "thickness-slant",
    "thickness-width",
    "thickness-intensity-slant",
    "colour",
]


@dataclass(frozen=True)
class AnswerOptions:
    """Options of all questions to a model.

    Args:
        ckpt_path: Checkpoint of a run, exported model, or name of a model that is shipped with this
            program, such as digits; several answer together, as an ensemble.
        weights: Weights of several checkpoints: a number for each, or "validation" for those that
            maximise the probability of the validation split (default: equal weights).
        seed: Seed of the noise.
        image_format: Format of the image files: png, with the central planes of volumes, or nifti
            (.nii.gz), with the position and the header of the scan (default: nifti for volumes, png
            for others).
        npz: Also write all values to answers.npz.
    """

    ckpt_path: Annotated[tuple[Path, ...], Option("FILE")]
    out: NewFolder
    trust: Trusted = ()
    weights: Annotated[tuple[str, ...], Option("WEIGHT")] = ()
    seed: int = 0
    image_format: FormatOption = None
    npz: bool = False


@dataclass(frozen=True)
class InterventionOptions:
    """Options that state interventions.

    Args:
        do: Intervention: variable=number, variable=class, variable+=number, variable*=number, a
            function (age=0.9*age+3 if sex == male), a draw (age~normal(40, 5), age~train), and at
            the end of all a group (where age > 60). Commas join several variables into one
            intervention; further texts are further interventions. If several are changed, names
            refer to values under the other changes; for counterfactuals, variable=factual+number
            refers to the observed value. Names with commas, brackets or quotes are quoted.
        do_table: Table of further interventions, one a row: columns of variables have values as
            after variable= in --do, such as 3, male, +=5 or ~train, empty for no change; the
            columns do and where have whole texts.
    """

    do: Annotated[list[str] | None, Option("TEXT")] = None
    do_table: Annotated[Path | None, Option("FILE")] = None

    @property
    def words(self) -> list[str]:
        """The options as words of a command line."""
        table = [] if self.do_table is None else ["--do_table", str(self.do_table)]
        return [*(["--do", *self.do] if self.do else []), *table]


@dataclass(frozen=True)
class DrawOptions:
    """Options of commands that draw samples.

    Args:
        size: Number of observations to draw.
        temperature: Scale of the pixel noise that the image's likelihood draws, 0 for none
            (default: as the model was configured, usually 1).
    """

    size: int = 8
    temperature: Annotated[float | None, Option("NUMBER")] = None


@dataclass(frozen=True)
class ObservationOptions:
    """Options that select observations.

    Args:
        index: Rows of the run's test split, from 0.
        observations: Table with a column per variable; images (PNG, JPEG, TIFF, .npy, .nii.gz) by
            path, relative to the table. They are prepared like the files of the run: cropped,
            resized and normalised as its data module does.
        prepared: The images of --observations are prepared already, as are those of answers: in the
            size of the model, in 8-bit grey levels.
        prepare: Without effect, because images are prepared by default.
    """

    index: Annotated[list[int] | None, Option("ROW", exclusive=True)] = None
    observations: Annotated[Path | None, Option("FILE.csv", exclusive=True)] = None
    prepared: bool = False
    prepare: bool = False


@dataclass(frozen=True)
class ParticleOptions:
    """Options of the uncertainty of counterfactuals.

    Args:
        num_particles: Number of draws of the noise that observations do not determine (default: one
            answer without draws, with that noise at its most likely value, or 2 draws for each of
            several checkpoints).
        resample: Draw the latents from K candidates of the encoder by importance, which is exact in
            the limit of many candidates, at K times the cost (default: draws of the encoder).
        coupling: Coupling of the pixel noise of factual and counterfactual images: kept at its
            pixel, or renewed where the picture changes (default: as the model was configured).
        calibration: File calibration.json that deepscm test has written for these checkpoints
            (default: the calibration in the checkpoint, if there is one).
    """

    num_particles: Annotated[int | None, Option("NUMBER")] = None
    resample: Annotated[int | None, Option("K")] = None
    coupling: Literal["kept", "renewed"] | None = None
    calibration: Annotated[Path | None, Option("FILE.json")] = None


@dataclass(frozen=True)
class OverlapOptions:
    """Options about the distance of interventions from the training data.

    Args:
        refuse: Do not write answers that are extrapolated, or (edge) those that are not supported
            by the training data.
        read_training_data: If the model is of an earlier version, read the training data of its run
            to compute their distribution.
        root: Current folder of the run's data.
    """

    refuse: Literal["edge", "extrapolated"] | None = None
    read_training_data: bool = False
    root: Annotated[Path | None, Option("DIR", ("--data.root",))] = None

    @property
    def refused(self) -> tuple[str, ...]:
        """The verdicts on answers that are refused."""
        return {None: (), "edge": ("edge", "extrapolated")}.get(self.refuse, ("extrapolated",))


@dataclass(frozen=True)
class CheckOptions:
    """Options of a check.

    Args:
        level: Level of the tests.
        permutations: Number of random graphs of the same shape to compare with, 0 for none.
        seed: Seed of the random graphs and of p-values.
        root: Current folder of the data.
    """

    out: NewFolder
    do: Annotated[
        list[str] | None,
        Option("TEXT", help="Interventions whose overlap with the training split is checked."),
    ] = None
    level: float = 0.05
    permutations: int = 100
    seed: int = 0
    root: Annotated[Path | None, Option("DIR", ("--data.root",))] = None
    trust: Trusted = ()


def sample(answers: AnswerOptions, drawing: DrawOptions) -> None:
    """Association: draw observations from a trained model."""
    from deepscm_pl.cli.questions import answer_by_drawing

    answer_by_drawing(answers, drawing)


def intervene(
    answers: AnswerOptions,
    interventions: InterventionOptions,
    drawing: DrawOptions,
    overlap: OverlapOptions,
) -> None:
    """Intervention: draw observations under do(...), several if --do is repeated."""
    from deepscm_pl.cli.questions import answer_by_drawing

    answer_by_drawing(answers, drawing, interventions, overlap)


def counterfactual(
    answers: AnswerOptions,
    interventions: InterventionOptions,
    observed: ObservationOptions,
    overlap: OverlapOptions,
    uncertainty: ParticleOptions,
) -> None:
    """Counterfactual: infer the observations that would have been made under do(...)."""
    from deepscm_pl.cli.questions import answer_counterfactual

    answer_counterfactual(answers, interventions, observed, overlap, uncertainty)


def check(
    options: CheckOptions,
    config: Annotated[list[str] | None, Option("FILE", ("-c", "--config"), exclusive=True)] = None,
    ckpt_path: Annotated[Path | None, Option("FILE", exclusive=True)] = None,
) -> None:
    """Check a causal graph and its data: independences, leakage, duplicates, overlap, noise.

    Args:
        config: Configuration of a training, a YAML file; several are merged, later ones override.
        ckpt_path: Checkpoint of a run, whose noise is tested, too.
    """
    from deepscm_pl.cli.check import check_model_and_data

    check_model_and_data(config, ckpt_path, options)


def keep_members(
    ckpt_path: CheckpointPath,
    out: NewFolder,
    count: int = 10,
    steps: Annotated[int | None, Option("NUMBER")] = None,
    rate: float = 1.0,
    gradient_clip_val: Annotated[float | None, Option("NUMBER")] = None,
    seed: int = 0,
    root: Annotated[Path | None, Option("DIR", ("--data.root",))] = None,
    trust: Trusted = (),
) -> None:
    """Make an ensemble of one trained model: train it further at a constant learning rate.

    Args:
        count: Number of members, which are kept at equal intervals.
        steps: Number of further steps (default: half of those of the training).
        rate: Learning rates as a fraction of those of the optimiser.
        gradient_clip_val: Largest norm of gradients (default: that of the training).
        seed: Seed of the noise in the further training.
        root: Current folder of the run's data.
    """
    from deepscm_pl.checkpoints import load_data
    from deepscm_pl.runs.noise import without_noise
    from deepscm_pl.runs.output import progress_for
    from deepscm_pl.suggestions import free_folder
    from deepscm_pl.training import keep_iterates

    data = None if root is None else load_data(ckpt_path, root, trust)
    trainer: dict[str, Any] = {"callbacks": [progress_for(sys.stdout)]}
    if gradient_clip_val is not None:
        trainer["gradient_clip_val"] = gradient_clip_val
    with without_noise():
        paths = keep_iterates(
            ckpt_path, out, count, steps, rate, seed, trust=trust, data=data, **trainer
        )
    _print_written(out)
    options = for_shell("--trust", *trust) + " " if trust else ""
    folder = for_shell("--out", free_folder("samples"))
    files = f"{for_shell(str(paths[0].parent))}/*{paths[0].suffix}"
    print(f"\nAsk all members:     deepscm sample --ckpt_path {files} {options}{folder}")


def make_morphomnist(
    mnist: Folder,
    out: NewFolder,
    world: WorldName = "thickness-intensity",
    attributes: Folder | None = None,
    seed: int = 0,
    workers: Workers = None,
    limit: int | None = None,
    download: bool = False,
) -> None:
    """Render MNIST digits in a known world, such as one where thickness causes intensity.

    Args:
        mnist: Folder with MNIST, as torchvision stores it (MNIST/raw inside).
        world: Known world of the digits.
        attributes: Folder with train-morpho.csv and t10k-morpho.csv, whose values are imposed
            (default: values are drawn).
        seed: Seed of the drawn values.
        limit: Render only the first images of each split.
        download: Download MNIST into --mnist if it is not there.
    """
    from deepscm_pl.data import generate_morphomnist, known_world

    generate_morphomnist(
        mnist, out, attributes, seed, workers, download, limit=limit, world=known_world(world)
    )
    _print_written(out)
    _print_training(f"morphomnist/{_EXPERIMENTS[world]}", out)


def make_brain(
    out: NewFolder,
    size: int = 1000,
    shape: Annotated[tuple[int, ...], Option("SIZE")] = (64, 64),
    image_format: FormatOption = None,
    seed: int = 0,
    fractions: Annotated[tuple[float, float, float], Option("SHARE")] = (0.8, 0.1, 0.1),
    workers: Workers = None,
) -> None:
    """Draw heads whose age and sex cause the volumes of brain and ventricles, as slices or volumes.

    Args:
        size: Number of heads.
        shape: Rows and columns of slices, or three sizes of volumes: left to right, back to front,
            bottom to top.
        image_format: png, for slices, or nifti (default: png for slices, nifti for volumes).
        seed: Seed of the heads.
        fractions: Shares of training, validation and test.
    """
    from deepscm_pl.data import generate_brain

    generate_brain(out, size, shape, image_format, seed, fractions, workers)
    _print_written(out)
    if tuple(shape) == _SLICES:
        _print_training("brain/best_scans", out)


def graph(
    config: Annotated[list[str] | None, Option("FILE", ("-c", "--config"), exclusive=True)] = None,
    edges: Annotated[str | None, Option(exclusive=True)] = None,
    out: File = Path("graph.svg"),
) -> None:
    """Draw a causal graph.

    Args:
        config: Configuration of a model, a YAML file; several are merged, later ones override.
        edges: The graph as text, such as 'age -> volume; volume -> image'.
        out: File to write, ending in .svg, .png or .pdf.
    """
    from deepscm_pl.cli.configurations import Configuration
    from deepscm_pl.figures import draw_graph, save_figure
    from deepscm_pl.graph import CausalGraph

    edges_of_graph: Any = edges
    if config is not None:
        model = Configuration.read(config).settings.get("model")
        edges_of_graph = model.get("graph") if isinstance(model, dict) else None
        if not isinstance(edges_of_graph, str | dict):
            raise ValueError(f"config: {', '.join(config)} has no entry model.graph; add one.")
    _print_written(save_figure(draw_graph(CausalGraph(edges_of_graph)), out))


def init(
    table: Annotated[Path, Option("TABLE", ("table",))],
    data: InitOptions,
    out: File = Path("experiment.yaml"),
    overwrite: bool = False,
    no_dry_run: bool = False,
) -> None:
    """Plan an experiment from a table and a graph: a YAML file that trains as it is.

    Args:
        table: CSV, TSV, Parquet or Excel file with a row for each unit or visit.
        out: YAML file to write; each setting has its reason as a comment.
        overwrite: Replace the file if it exists.
        no_dry_run: Do not measure memory and time in a few steps.
    """
    plan_experiment(table, data, out, overwrite, not no_dry_run)


def list_experiments(
    name: Annotated[str | None, Option("NAME", ("name",))] = None,
    out: Annotated[Path | None, Option("FILE.yaml")] = None,
) -> None:
    """List the experiments of this package, or copy one to change it.

    Args:
        name: Experiment, such as digits/full.
        out: New file for its complete configuration (default: print it).
    """
    import yaml

    import deepscm_pl
    from deepscm_pl.checks import nearest
    from deepscm_pl.cli.configurations import Configuration
    from deepscm_pl.cli.yaml_files import experiments
    from deepscm_pl.files import new_file

    known = experiments()
    if name is None:
        if out is not None:
            raise ValueError("out: expected the name of an experiment to copy; give one.")
        for experiment, path in known.items():
            print(f"{experiment:<{max(map(len, known))}}  {_first_comment(path)}")
        return
    if name not in known:
        raise FileNotFoundError(
            f"there is no experiment {name!r}"
            f"{nearest(name, known) or '; deepscm experiments lists them.'}"
        )
    text = (
        f"# {_first_comment(known[name])}\n"
        f"# The experiment {name} of deepscm_pl {deepscm_pl.__version__}, complete.\n"
        + yaml.safe_dump(
            Configuration.read([str(known[name])]).settings, sort_keys=False, width=100
        )
    )
    if out is None:
        print(text, end="")
        return
    if out.exists() or out.is_symlink():
        raise ValueError(f"out: {out} exists; name a new file.")
    if not out.parent.is_dir():
        raise ValueError(f"out: there is no folder {out.parent}; make it first.")
    with new_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    _print_written(out)
    print(f"\nTrain a model:       {for_shell('deepscm', 'fit', '--config', str(out))}")


def _first_comment(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()


def _print_written(path: Path, note: str = "") -> None:
    print(f"written: {for_terminal(path)}{note}")


def _print_training(experiment: str, data: Path) -> None:
    """Print the command that trains the model of an experiment on generated data."""
    words = ("deepscm", "fit", "--config", experiment, "--data.root", str(data))
    print(f"\nTrain a model:       {for_shell(*words)}")


COMMANDS: Mapping[str, Command | Mapping[str, Command]] = {
    "sample": sample,
    "intervene": intervene,
    "counterfactual": counterfactual,
    "check": check,
    "effect": EFFECTS,
    "explore": explore,
    "demo": demo,
    "members": keep_members,
    "init": init,
    "data": {"morphomnist": make_morphomnist, "brain": make_brain},
    "experiments": list_experiments,
    "export": export,
    "push": push,
    "graph": graph,
}
