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
    """

    title: str
    introduction: str
    prepare: Callable[[Path], None]
    steps: tuple[Step, ...]


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

    drawn_shapes.write_shapes(folder / "shapes", 300, pixels=32)


DIABETES_GRAPH = (
    "age, sex -> bmi; age, sex, bmi -> blood pressure (mmHg); age, sex, bmi -> log triglycerides; "
    "age, sex, bmi, blood pressure (mmHg), log triglycerides -> progression"
)
SHAPES_GRAPH = "kind -> size; kind, size, colour -> image"
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
                "What would the first pictures of the test split look like in green?",
                f"counterfactual --ckpt_path {CHECKPOINT.format('shapes')} --do colour=green "
                "--index 0 1 2 3 4 5 --out green",
            ),
            Step("", "ls green"),
        ),
    ),
    "from-a-table": Transcript(
        "From a table to an answer",
        "A table and a graph are enough: no Python is written. The table is the diabetes data of "
        "scikit-learn (Efron et al. 2004): 442 patients, ten measurements, and the progression of "
        "the disease a year later. It holds no images. The graph is an assumption: age and sex "
        "cause the body mass index, these cause blood pressure and triglycerides in the blood, and "
        "all of them cause the progression.",
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
                "Is the graph consistent with the table?",
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
        is_other = step.command.split()[0] in ("cat", "sed", "ls")
        typed = step.command if is_other else f"deepscm {step.command}"
        start = time.perf_counter()
        lines = _run(step.command, folder, is_other)
        seconds = time.perf_counter() - start
        total += seconds
        if step.text:
            parts.append(textwrap.fill(step.text, 110))
        took = "" if is_other else f"\n[{seconds:.0f} seconds]"
        parts.append(f"```console\n$ {typed}\n" + "\n".join(_shown(lines, step)) + f"{took}\n```")
    parts.append(
        f"All commands took {total / 60:.1f} minutes on {os.cpu_count()} cores of a CPU. This page "
        f"was made by `python docs/transcripts.py {name}`."
    )
    return "\n\n".join(parts) + "\n"


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
