"""Make the transcripts of the documentation by running their commands.

``python docs/transcripts.py`` makes all of them, and ``python docs/transcripts.py from-a-table``
one. Each is written to ``docs/NAME.md``, with the printed lines and the seconds of a processor that
each command needed, which do not depend on the other programs of the machine.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
BY_HAND = "<!-- The rest of this page is written by hand. -->\n"
"""The line of a page below which everything is kept."""

_WIDEST = 96
"""Characters in a line of a command, unless an option has more."""

_PIXELS = 32
"""Width and height of the pictures of shapes."""

_OTHERS = ("cat", "sed", "ls", "head", "python")
"""Programs other than ``deepscm`` that transcripts run."""

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
        judge: Keeps pictures of the folder or compares its answers with the truth, and returns a
            paragraph; None where there is nothing to add.
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


def draw_clinic(patients: int = 800) -> str:
    """Draw the invented clinic of the tutorial, as a table of text.

    Severe cases are treated more often. Treatment shortens a stay by half a day for each point of
    severity: for any patient, the days with and without it differ by severity / 2.
    """
    import numpy as np

    generator = np.random.default_rng(7)
    age = np.clip(generator.normal(58, 13, patients), 19, 95).round()
    noise = generator.normal(size=patients)
    severity = np.clip(5 + 0.05 * (age - 58) + 1.4 * noise, 0.5, 12).round(2)
    urgency = 1.1 * (severity - 5) + 0.05 * (age - 58)
    treated = generator.random(patients) < 1 / (1 + np.exp(-urgency))
    noise = generator.normal(size=patients)
    days = 6 + 1.5 * severity + 0.06 * (age - 58) - 0.5 * severity * treated + 1.2 * noise
    lines = ["patient,age,severity,treatment,days"]
    for k in range(patients):
        treatment = "drug" if treated[k] else "none"
        lines.append(f"{k + 1},{age[k]:.0f},{severity[k]:.2f},{treatment},{max(days[k], 1):.1f}")
    return "\n".join(lines) + "\n"


def write_clinic(folder: Path) -> None:
    """Copy the table of the tutorial, which is a file of the documentation."""
    shutil.copy(ROOT / "docs" / "data" / "clinic.csv", folder)


def judge_clinic(folder: Path) -> str:
    """Compare the answers about patients with the equations that drew them."""
    import csv

    with (folder / "answers" / "answers.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    errors, changes, rows = [], [], []
    for line in lines:
        before = next(e for e in lines if e["observation"] == line["observation"])
        if before["treatment"] == line["treatment"]:
            continue
        answered = float(line["days_change"])
        truth = (0.5 if line["treatment"] == "none" else -0.5) * float(before["severity"])
        errors.append(abs(answered - truth))
        changes.append(abs(truth))
        rows.append(
            f"| {line['observation']} | {before['severity']} | {before['treatment']} | "
            f"{float(before['days']):.1f} | {answered:+.1f} | {truth:+.1f} |"
        )
    shutil.copy(folder / "graph.svg", ROOT / "docs" / "images" / "tutorial-graph.svg")
    shutil.copy(
        folder / "effect-groups" / "effect.png", ROOT / "docs" / "images" / "tutorial-effect.png"
    )
    with (folder / "clinic.csv").open(encoding="utf-8") as file:
        severities = [float(line["severity"]) for line in csv.DictReader(file)]
    average = -sum(severities) / len(severities) / 2
    table = ["| patient | severity | treatment | days | change, answered | change, true |"]
    return (
        "## Was it right?\n\n"
        + textwrap.fill(
            "Here the truth is known, because the clinic is invented: treatment shortens a stay by "
            "half a day for each point of severity, for everyone. The average effect is therefore "
            f"{average:.2f} days. The patients who would have been treated differently:",
            110,
        )
        + "\n\n"
        + "\n".join([*table, "|---|---:|---|---:|---:|---:|", *rows])
        + "\n\n"
        + textwrap.fill(
            f"The answers are off by {sum(errors) / len(errors):.2f} days on average, where the "
            f"true changes are {sum(changes) / len(changes):.2f} days. With real data there is no "
            "such table: what remains is the graph, and the checks of this page.",
            110,
        )
    )


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


def show_scans(folder: Path) -> str:
    """Keep the picture of the heads with larger ventricles, and return it with its caption."""
    shutil.copy(folder / "larger" / "image.png", ROOT / "docs" / "images" / "from-scans.png")
    return (
        "![Two heads of the test split, with ventricles that are half as large again, and the "
        "differences](images/from-scans.png)\n\n"
        + textwrap.fill(
            "*`larger/image.png`: three planes of each volume. Ventricles become larger and darker "
            "where they are, and the outline remains; scattered changes elsewhere are the error of "
            "the model.*",
            110,
        )
    )


DIABETES_GRAPH = (
    "sex -> age; age -> bmi; age, sex, bmi -> blood pressure (mmHg); "
    "age, bmi, blood pressure (mmHg) -> log triglycerides; "
    "age, sex, bmi, blood pressure (mmHg), log triglycerides -> progression"
)
CLINIC_GRAPH = "age -> severity; age, severity -> treatment; age, severity, treatment -> days"
SHAPES_GRAPH = "kind -> size; kind, size, colour -> image"
SCANS_GRAPH = (
    "age, sex -> brain_volume; age, brain_volume -> ventricle_volume; "
    "brain_volume, ventricle_volume -> image"
)
CHECKPOINT = "runs/{}/lightning_logs/version_0/checkpoints/epoch=*.ckpt"
TRANSCRIPTS = {
    "tutorial": Transcript(
        "Tutorial: from a table to an answer that can be judged",
        "This page takes a quarter of an hour. You state a causal graph, train a model on a "
        "table, check it, ask it three kinds of questions, and learn when not to trust an answer. "
        "You need `pip install deepscm_pl` and the table [clinic.csv](data/clinic.csv) in an empty "
        "folder. The clinic is invented, so that answers can be compared with the truth at the "
        "end.",
        write_clinic,
        (
            Step(
                "## 1. The question\n\n"
                "The table has a row for each of 800 patients: age in years, severity of the "
                "disease in points, whether a drug was given, and the days that the patient "
                "stayed.",
                "head -n 5 clinic.csv",
                (5, 0),
            ),
            Step(
                "Does the drug shorten the stay? Compare the two groups:",
                "python -c \"import pandas; table = pandas.read_csv('clinic.csv'); "
                "print(table.groupby('treatment')[['age', 'severity', 'days']].mean().round(1))\"",
            ),
            Step(
                "Patients with the drug stayed longer. But they were also sicker: doctors give the "
                "drug to severe cases. The comparison answers *which patients stay longer?* "
                "(association), not *what does the drug do?* (intervention). The table alone "
                "cannot tell these apart. It takes knowledge of what causes what.\n\n"
                "## 2. What you know: a graph\n\n"
                "Write down each variable with its direct causes. Age causes severity. Age and "
                "severity decide about the treatment. All three cause the days. An arrow that is "
                "left out is the stronger statement: it says that there is no direct effect.",
                f'graph --edges "{CLINIC_GRAPH}" --out graph.svg',
            ),
            Step(
                "![The causal graph of the clinic](images/tutorial-graph.svg)\n\n"
                "The graph also states that no common cause of two variables is missing. If "
                "doctors had looked at something that is not in the table, the answers below would "
                "be wrong.\n\n"
                "## 3. Plan an experiment\n\n"
                "`deepscm init` reads the table, chooses a *mechanism* for each variable (the "
                "function that computes it from its causes and from noise), and plans a training. "
                "`patient` is not in the graph, and not part of the model.",
                f'init clinic.csv --out clinic.yaml --graph "{CLINIC_GRAPH}"',
                (14, 14),
            ),
            Step(
                "Each choice is in `clinic.yaml` with its reason. Here are those of two variables:",
                "sed -n '/^    treatment:/,/^  optimizer/p' clinic.yaml",
                (16, 0),
            ),
            Step(
                "## 4. Ask the data about the graph\n\n"
                "Before training: do the data contradict the graph? This one has every possible "
                "arrow, so that it implies no independence and nothing could contradict it.",
                "check --config clinic.yaml --out check --permutations 20",
                (24, 6),
            ),
            Step(
                "A graph without the arrow from severity to treatment claims that doctors do not "
                "look at the severity. The table contradicts it:",
                "init clinic.csv --out wrong.yaml --graph "
                '"age -> severity; age -> treatment; age, severity, treatment -> days"',
                (0, 2),
            ),
            Step("", "check --config wrong.yaml --out check-wrong --permutations 20", (8, 4)),
            Step(
                "So data can contradict a graph. They cannot confirm it: other graphs fit as "
                "well.\n\n"
                "## 5. Train\n\n"
                "Each mechanism is fitted to the training rows. The validation rows choose the "
                "best epoch, and the test rows judge it.",
                "fit --config clinic.yaml",
                (30, 30),
            ),
            Step(
                "The verdict judges each variable on rows that the training did not see: whether "
                "its training has converged, whether its causes help to predict it, and whether "
                "the noise that the model infers is as it should be. "
                "[The report](evaluation.md) has the figures behind it.\n\n"
                "*Doubtful* is a reason to look, not yet a fault. The graph is right here, because "
                "the clinic is invented. Nevertheless, noise correlates with causes. For "
                "`severity`, this is chance: among these 120 test patients, older ones happen to "
                "be less ill than the equations that drew them say (the correlation is −0.24 with "
                "the true noise), and no figure can tell that from a wrong graph. For `treatment`, "
                "it is the model, which understates how much severity decides about the drug. The "
                "questions below set the treatment, so that this mechanism is replaced; `days`, "
                "on which they rest, is good.\n\n"
                "## 6. Ask\n\n"
                "**Intervention.** How many days would patients stay if everyone got the drug, "
                "against no one? The causes of `treatment` no longer matter: the question cuts "
                "them.",
                f"effect average --ckpt_path {CHECKPOINT.format('clinic')} --do treatment=drug "
                "--versus treatment=none --outcome days --out effect",
            ),
            Step(
                "The drug shortens the stay, although treated patients stay longer. And for mild, "
                "medium and severe cases?",
                f"effect average --ckpt_path {CHECKPOINT.format('clinic')} --do treatment=drug "
                "--versus treatment=none --outcome days --by severity:4,6 --out effect-groups",
                (16, 4),
            ),
            Step(
                "![Effect of the drug by severity, with intervals](images/tutorial-effect.png)\n\n"
                "**Counterfactual.** What if *these* patients had not got the drug, or had got it? "
                "The model infers the noise of each patient, which is everything about them that "
                "the causes do not explain, and keeps it.",
                f"counterfactual --ckpt_path {CHECKPOINT.format('clinic')} --do treatment=none "
                "--do treatment=drug --index 0 1 2 3 4 5 --out answers",
                (20, 4),
            ),
            Step(
                "## 7. When not to trust an answer\n\n"
                "The model answers every question, also those about which it has no data. What if "
                "three patients were 115 years old? The last line tells that the answers "
                "extrapolate. `--refuse extrapolated` leaves such answers out.",
                f"counterfactual --ckpt_path {CHECKPOINT.format('clinic')} --do age=115 "
                "--index 0 1 2 --out centenarians",
                (12, 4),
            ),
        ),
        judge_clinic,
    ),
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
            Step("", "fit --config shapes.yaml", (30, 40)),
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
                (30, 40),
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
        show_scans,
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
                (30, 30),
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
        is_other = step.command.split()[0] in _OTHERS
        typed = step.command if is_other else _typed(f"deepscm {step.command}")
        start = _seconds_of_children()
        lines = _run(step.command, folder, is_other)
        seconds = _seconds_of_children() - start
        total += seconds
        if step.text:
            parts.append(_filled(step.text))
        took = "" if is_other else f"\n[{seconds:.0f} seconds of a processor]"
        parts.append(f"```console\n$ {typed}\n" + "\n".join(_shown(lines, step)) + f"{took}\n```")
    if transcript.judge is not None:
        parts.append(transcript.judge(folder))
    parts.append(
        f"All commands took {total / 60:.1f} minutes of a processor{_busy()}. This page was made "
        f"by `python docs/transcripts.py {name}`."
    )
    return "\n\n".join(parts) + "\n"


def _typed(command: str) -> str:
    """A command in lines that fit the page, which break before options."""
    lines = [""]
    for part in re.split(r" (?=--)", command):
        joined = f"{lines[-1]} {part}" if lines[-1] else part
        if lines[-1] and len(joined) > _WIDEST:
            lines.append(f"    {part}")
        else:
            lines[-1] = joined
    return " \\\n".join(lines)


def _filled(text: str) -> str:
    """Paragraphs in lines of at most 110 characters."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(e if e[0] in "#!" else textwrap.fill(e, 110) for e in paragraphs)


def _busy() -> str:
    """A remark if other programs slowed the steps that a plan measures."""
    others = os.getloadavg()[2] - 1
    return f" while about {others:.0f} other programs ran" if others >= 1 else ""


def _seconds_of_children() -> float:
    """The processor time of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
    lines = [line.replace(str(folder), "/home/ana") for line in [*printed, *errors]]
    return [line for line in lines if not _PROGRESS.match(line)]


def _shown(lines: list[str], step: Step) -> list[str]:
    first, last = step.shown
    if len(lines) <= first + last + 1:
        return lines
    left_out = f"… {len(lines) - first - last} lines …"
    return [*lines[:first], left_out, *lines[len(lines) - last :]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make transcripts by running their commands.")
    names = ", ".join(TRANSCRIPTS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{names}; all by default")
    chosen_names = parser.parse_args().names or [*TRANSCRIPTS]
    if unknown := {*chosen_names} - {*TRANSCRIPTS}:
        parser.error(f"expected {names}, but got {', '.join(sorted(unknown))}")
    for chosen in chosen_names:
        with tempfile.TemporaryDirectory() as temporary:
            page = make(chosen, Path(temporary))
        path = ROOT / "docs" / f"{chosen}.md"
        earlier = path.read_text(encoding="utf-8") if path.is_file() else ""
        kept = earlier.partition(BY_HAND)[2]
        path.write_text(f"{page}\n{BY_HAND}{kept}" if kept else page, encoding="utf-8")
        print(f"written: docs/{chosen}.md")
