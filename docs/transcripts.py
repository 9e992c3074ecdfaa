"""Make the transcripts of the documentation by running their commands.

``python docs/transcripts.py`` makes all of them, and ``python docs/transcripts.py from-a-table``
one. Each is written to ``docs/NAME.md``, with the printed lines and the seconds of each command.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
BY_HAND = "<!-- The rest of this page is written by hand. -->\n"
"""The line of a page below which everything is kept."""

_PIXELS = 32
"""Width and height of the pictures of shapes."""

_PROGRESS = re.compile(r"trained \d+ %: |Restoring states|Loaded model weights|Seed set to|Using ")


@dataclass(frozen=True)
class Step:
    """A command with the text before it.

    Attributes:
        text: The paragraph before it.
        command: The words after ``deepscm``, as typed; ``cat FILE`` and others run as they are.
        shown: How many of the first and of the last printed lines are shown.
    """

    text: str
    command: str
    shown: tuple[int, int] = (12, 12)


@dataclass(frozen=True)
class Transcript:
    """A page.

    Attributes:
        title: Its title.
        introduction: The text below the title.
        prepare: Makes the data in a folder.
        steps: The commands, in order.
        judge: Compares the answers in the folder with the truth, and returns a paragraph; None
            where no truth is known.
    """

    title: str
    introduction: str
    prepare: Callable[[Path], None]
    steps: tuple[Step, ...]
    judge: Callable[[Path], str] | None = None


def write_diabetes(folder: Path) -> None:
    """Write the diabetes table of scikit-learn (Efron et al. 2004), in its own units."""
    from sklearn.datasets import load_diabetes

    frame = load_diabetes(as_frame=True, scaled=False).frame
    frame["sex"] = frame["sex"].map({1: "female", 2: "male"})
    names = {"bp": "blood pressure (mmHg)", "s5": "log triglycerides", "target": "progression"}
    frame.rename(columns=names).to_csv(folder / "diabetes.csv", index=False)


def write_shapes(folder: Path) -> None:
    """Write 300 pictures of shapes with their table."""
    sys.path.insert(0, str(ROOT / "tests"))
    import drawn_shapes

    drawn_shapes.write_shapes(folder / "shapes", 300, pixels=_PIXELS)


def judge_shapes(folder: Path) -> str:
    """Compare the pictures in green with the same shapes drawn in green."""
    import csv

    import numpy as np
    from PIL import Image

    sys.path.insert(0, str(ROOT / "tests"))
    import drawn_shapes

    drawn = drawn_shapes.draw_rows(300, pixels=_PIXELS)
    with (folder / "green" / "answers.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    factual = [line for line in lines if line["intervention"] == "factual"]
    green = [line for line in lines if line["intervention"] != "factual"]
    columns = []
    for before, after in zip(factual, green, strict=True):
        number = int(before["observation"].rpartition("(")[2].rstrip(")"))
        row = drawn[number - 1]
        truth = drawn_shapes.draw_shape(
            row["kind"], row["size"], "green", row["centre"], pixels=_PIXELS
        )
        pictures = [np.asarray(Image.open(folder / "green" / e["image"])) for e in (before, after)]
        columns.append([*pictures, truth])
    stacked = np.array(columns, dtype=float)
    nothing, error = (np.abs(stacked[:, k] - stacked[:, 2]).mean() for k in (0, 1))
    sheet = np.concatenate([np.concatenate(list(column), axis=0) for column in columns], axis=1)
    large = Image.fromarray(sheet).resize([6 * n for n in sheet.shape[1::-1]], Image.NEAREST)
    large.save(ROOT / "docs" / "images" / "from-pictures.png")
    return (
        "![Six pictures, the answers of the model in green, and the true pictures in green]"
        "(images/from-pictures.png)\n\n"
        "*Above the recorded pictures, in the middle the answers, below the same shapes drawn in "
        "green.*\n\n"
        + textwrap.fill(
            f"From the true pictures the answers differ by {error:.1f} grey levels per pixel and "
            f"channel on average, and the recorded pictures by {nothing:.1f}: the error is "
            f"{error / nothing:.2f} of that of doing nothing.",
            110,
        )
    )


def write_scans(folder: Path) -> None:
    """Write 120 heads as volumes in NIfTI files, with a table separated by tabs."""
    import pandas

    from deepscm_pl.cli.main import main

    words = ["data", "brain", "--size", "120", "--shape", "16", "20", "16", "--format", "nifti"]
    if main([*words, "--workers", "1", "--out", str(folder / "drawn")]) != 0:
        raise RuntimeError("write_scans: the heads were not drawn.")
    scans = folder / "scans"
    scans.mkdir()
    frame = pandas.read_csv(folder / "drawn" / "subjects.csv", dtype={"eid": str})
    frame["sex"] = frame["sex"].map({0: "female", 1: "male"})
    for name in frame["eid"]:
        scan = folder / "drawn" / f"{name}_T1_unbiased_brain_rigid_to_mni.nii.gz"
        scan.rename(scans / f"{name}_T1w.nii.gz")
    frame = frame.rename(columns={"eid": "participant_id"})
    frame.to_csv(scans / "participants.tsv", sep="\t", index=False)


DIABETES_GRAPH = (
    "sex -> age; age -> bmi; age, sex, bmi -> blood pressure (mmHg); "
    "age, bmi, blood pressure (mmHg) -> log triglycerides; "
    "age, sex, bmi, blood pressure (mmHg), log triglycerides -> progression"
)
SHAPES_GRAPH = "kind -> size; kind, size, colour -> image"
SCANS_GRAPH = (
    "age, sex -> brain_volume; age, brain_volume -> ventricle_volume; "
    "brain_volume, ventricle_volume -> image"
)
CHECKPOINT = "runs/{}/lightning_logs/version_0/checkpoints/epoch=*.ckpt"
TRANSCRIPTS = {
    "from-pictures": Transcript(
        "From pictures and a table to an answer",
        "300 colour pictures of 32 × 32 pixels, and a table with their file, and the kind, size "
        "and colour of the shape in each. The shapes are drawn, so that answers can be compared "
        "with the truth: the kind causes the size, all three cause the picture, and the position "
        "is noise.",
        write_shapes,
        (
            Step(
                "`--images` names the column of the files. `image` is the picture of a row.",
                f'init shapes/shapes.csv --images file --out shapes.yaml --graph "{SHAPES_GRAPH}"',
                (20, 20),
            ),
            Step(
                "The mechanism of the images is as large as the pictures and their number need.",
                "sed -n '/^    image:/,/^  optimizer/p' shapes.yaml",
                (40, 0),
            ),
            Step("", "fit --config shapes.yaml", (22, 22)),
            Step(
                "Is the graph consistent with the table, and is the noise that the model infers "
                "independent of the causes?",
                f"check --ckpt_path {CHECKPOINT.format('shapes')} --out check --permutations 20",
                (40, 8),
            ),
            Step(
                "What would the first pictures of the test split look like in green?",
                f"counterfactual --ckpt_path {CHECKPOINT.format('shapes')} --do colour=green "
                "--index 0 1 2 3 4 5 --out green",
            ),
            Step("", "ls green"),
            Step(
                "How much larger would shapes be on average, if all were triangles rather than "
                "circles? In the world that drew them, 2.94 pixels.",
                f"effect average --ckpt_path {CHECKPOINT.format('shapes')} --do kind=triangle "
                "--versus kind=circle --outcome size --out effect",
            ),
        ),
        judge_shapes,
    ),
    "from-scans": Transcript(
        "From scans and a table to an answer",
        "A folder of 120 heads, one NIfTI file of 16 × 20 × 16 voxels for each, and a table "
        "separated by tabs. The heads are drawn (`deepscm data brain --format nifti`): age and sex "
        "cause the volume of the brain, age and brain volume that of the ventricles, and both "
        "volumes (in mm³) cause the scan. So few and such small heads show the way, not the "
        "quality that models of scans reach.",
        write_scans,
        (
            Step("", "head -n 4 scans/participants.tsv", (4, 0)),
            Step(
                "`--images` gives the name of the file of a row, relative to the folder of the "
                "table.",
                "init scans/participants.tsv --images '{participant_id}_T1w.nii.gz' "
                f'--out scans.yaml --graph "{SCANS_GRAPH}"',
                (20, 20),
            ),
            Step(
                "A quarter of the planned epochs, so that this page is made in minutes.",
                "fit --config scans.yaml --trainer.max_epochs 84",
                (20, 34),
            ),
            Step(
                "Is the graph consistent with the table, and is the noise that the model infers "
                "independent of the causes?",
                f"check --ckpt_path {CHECKPOINT.format('participants')} --out check "
                "--permutations 20",
                (40, 8),
            ),
            Step(
                "What would two heads of the test split look like with ventricles that are half as "
                "large again?",
                f"counterfactual --ckpt_path {CHECKPOINT.format('participants')} "
                "--do 'ventricle_volume*=1.5' --index 0 1 --out larger",
                (16, 8),
            ),
            Step("Volumes keep the place of their scan.", "ls larger/*", (20, 0)),
            Step(
                "How much do ventricles grow on average, if all people are ten years older?",
                f"effect average --ckpt_path {CHECKPOINT.format('participants')} --do 'age+=10' "
                "--outcome ventricle_volume --out effect",
            ),
        ),
    ),
    "from-a-table": Transcript(
        "From a table to an answer",
        "A table and a graph are enough: no Python is written. The table is the diabetes data of "
        "scikit-learn (Efron et al. 2004): 442 patients, ten measurements, and the progression of "
        "the disease a year later. It holds no images. The graph is an assumption: age causes the "
        "body mass index, age, sex and body mass index cause blood pressure, age, body mass index "
        "and blood pressure cause triglycerides in the blood, and all of them cause the "
        "progression. Men and women of this clinic differ in age. This is a matter of who came, "
        "not an effect of sex on age, but the edge says that they are dependent.",
        write_diabetes,
        (
            Step(
                "Without a graph, `deepscm init` describes the columns and asks for one. It never "
                "guesses causes.",
                "init diabetes.csv",
            ),
            Step(
                "With a graph it plans an experiment: mechanisms, sizes, splits and the length of "
                "the training. Then it measures a few steps.",
                f'init diabetes.csv --out diabetes.yaml --graph "{DIABETES_GRAPH}"',
                (1, 12),
            ),
            Step(
                "Each setting has its reason beside it. Change what you know better.",
                "cat diabetes.yaml",
                (40, 26),
            ),
            Step(
                "The experiment trains as it is. The best epoch on the validation split is tested.",
                "fit --config diabetes.yaml",
                (14, 8),
            ),
            Step(
                "What would the progression of three patients of the test split be if their body "
                "mass index were 10 % lower?",
                f"counterfactual --ckpt_path {CHECKPOINT.format('diabetes')} --do 'bmi*=0.9' "
                "--index 0 1 2 --out answers",
            ),
            Step("", "cat answers/answers.csv"),
            Step(
                "And over all patients, with an interval?",
                f"effect average --ckpt_path {CHECKPOINT.format('diabetes')} --do 'bmi*=0.9' "
                "--outcome progression --out effect",
            ),
            Step(
                "Is the graph consistent with the table? It has 13 of 15 possible edges and "
                "implies two independences, so that a table can say little for it or against it.",
                "check --config diabetes.yaml --out check --permutations 20",
                (30, 10),
            ),
        ),
    ),
}


def make(name: str, folder: Path) -> str:
    """Run the commands of a transcript in a folder, and return its page."""
    transcript = TRANSCRIPTS[name]
    transcript.prepare(folder)
    parts = [f"# {transcript.title}", textwrap.fill(transcript.introduction, 110)]
    total = 0.0
    for step in transcript.steps:
        is_other = step.command.split()[0] in ("cat", "sed", "ls", "head")
        typed = step.command if is_other else f"deepscm {step.command}"
        start = time.perf_counter()
        lines = _run(step.command, folder, is_other)
        seconds = time.perf_counter() - start
        total += seconds
        if step.text:
            parts.append(textwrap.fill(step.text, 110))
        took = "" if is_other else f"\n[{seconds:.0f} seconds]"
        parts.append(f"```console\n$ {typed}\n" + "\n".join(_shown(lines, step)) + f"{took}\n```")
    if transcript.judge is not None:
        parts.append(transcript.judge(folder))
    parts.append(
        f"All commands took {total / 60:.1f} minutes on {os.cpu_count()} cores of a CPU"
        f"{_busy()}. This page was made by `python docs/transcripts.py {name}`."
    )
    return "\n\n".join(parts) + "\n"


def _busy() -> str:
    """A remark if other programs used the machine."""
    others = os.getloadavg()[2] - 1
    return f" while about {others:.0f} other programs ran" if others >= 1 else ""


def _run(command: str, folder: Path, is_other: bool) -> list[str]:
    words = command if is_other else f"{sys.executable} -m deepscm_pl {command}"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "110"}
    done = subprocess.run(
        words, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    printed = done.stdout.rstrip().splitlines()
    # Warnings and logs are not part of an answer, but errors are.
    errors = done.stderr.rstrip().splitlines()[-1:] if done.returncode else []
    lines = [line.replace(str(folder), "/work") for line in [*printed, *errors]]
    return [line for line in lines if not _PROGRESS.match(line)]


def _shown(lines: list[str], step: Step) -> list[str]:
    first, last = step.shown
    if len(lines) <= first + last + 1:
        return lines
    left_out = f"… {len(lines) - first - last} lines …"
    return [*lines[:first], left_out, *lines[len(lines) - last :]]


if __name__ == "__main__":
    for chosen in sys.argv[1:] or TRANSCRIPTS:
        with tempfile.TemporaryDirectory() as temporary:
            page = make(chosen, Path(temporary))
        path = ROOT / "docs" / f"{chosen}.md"
        earlier = path.read_text(encoding="utf-8") if path.is_file() else ""
        kept = earlier.partition(BY_HAND)[2]
        path.write_text(f"{page}\n{BY_HAND}{kept}" if kept else page, encoding="utf-8")
        print(f"written: docs/{chosen}.md")
