"""Help and wrong words are answered before anything large is imported."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from typing import get_args

import pytest

from deepscm_pl.cli.commands import WorldName
from deepscm_pl.cli.main import main
from deepscm_pl.worlds import DIGIT_WORLDS

from write_training_help import PATH, options_of

LARGE = {
    "torch",
    "numpy",
    "pytorch_lightning",
    "torchvision",
    "torchmetrics",
    "matplotlib",
    "monai",
}

COMMANDS = [
    "fit",
    "validate",
    "test",
    "predict",
    "sample",
    "intervene",
    "counterfactual",
    "data",
    "experiments",
    "export",
    "graph",
]

WRITTEN_WITH = {"pytorch-lightning": "2.6.6", "jsonargparse": "4.53.0"}

ASKED = {
    "--help": 0,
    "--version": 0,
    **{f"{command} --help": 0 for command in COMMANDS},
    "data brain --help": 0,
    "experiments": 0,
    "fitt": 2,
    "fit": 1,
    "fit --confg digits/full": 2,
    "fit --trainer.max_epoch 3": 2,
    "fit --config digits/fulll": 1,
    "sample --ckpt_path x.ckpt --ot y": 2,
    "data brian": 2,
}

PROGRAM = """
import contextlib, io, json, sys
from deepscm_pl.cli import main
answers = {}
for line in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(line.split())
        except SystemExit as stopped:
            status = stopped.code
    answers[line] = [status, out.getvalue(), err.getvalue(), sorted(sys.modules)]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers():
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(list(ASKED)),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


@pytest.mark.parametrize("line", ASKED)
def test_it_is_answered_before_anything_large_is_imported(line, answers):
    status, out, err, modules = answers[line]
    assert status == ASKED[line]
    assert (out if status == 0 else err).strip()
    assert not LARGE & set(modules)


def test_wrong_words_name_the_nearest(answers):
    assert "did you mean 'fit'?" in answers["fitt"][2]
    assert "did you mean 'config'?" in answers["fit --confg digits/full"][2]
    assert "did you mean 'trainer.max_epochs'?" in answers["fit --trainer.max_epoch 3"][2]
    assert "did you mean 'digits/full'?" in answers["fit --config digits/fulll"][2]


def test_a_question_imports_what_it_uses(checkpoint, tmp_path):
    words = ["counterfactual", "--ckpt_path", str(checkpoint), "--do", "thickness=3"]
    words += ["--index", "0", "--out", str(tmp_path / "answers"), "--trust", "tiny"]
    program = (
        "import json, sys\nfrom deepscm_pl.cli import main\n"
        "status = main(sys.argv[1:])\nprint(json.dumps([status, sorted(sys.modules)]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    status, modules = json.loads(result.stdout.splitlines()[-1])
    assert status == 0
    unused = ("digits", "morphomnist", "synthetic_brain", "scans.module", "generate")
    assert not {"monai", "sklearn", *(f"deepscm_pl.data.{name}" for name in unused)} & set(modules)


def test_worlds_are_named_as_they_are():
    assert [world.name for world in DIGIT_WORLDS] == list(get_args(WorldName))


@pytest.mark.parametrize("command", ["fit", "test"])
def test_the_help_of_trainings_is_what_their_parser_prints(command):
    """After a change of options: python tests/cli/write_training_help.py."""
    written, printed = PATH.read_text(encoding="utf-8"), options_of(command)
    for section in ("model", "association", "evaluation"):  # those of this package
        option = re.compile(rf"^  (--{section}\.\w+) ", re.MULTILINE)
        assert option.findall(written) == option.findall(printed) != []
    found = {name: version(name) for name in WRITTEN_WITH}
    if found == WRITTEN_WITH and sys.version_info[:2] == (3, 11):
        assert without_classes(written) == without_classes(printed)


def without_classes(text):
    """A help in words, but for the classes that are known: those of the tests are among them."""
    return re.sub(r", known subclasses:[^)]*", "", " ".join(text.split()))


def test_classes_may_be_named_without_their_package(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "fit",
                "--config",
                "digits/full",
                "--data",
                "SyntheticBrainDataModule",
                "--print_config",
            ]
        )
    assert stopped.value.code == 0
    assert re.search(
        r"class_path: deepscm_pl\.(data\.)?SyntheticBrainDataModule", capsys.readouterr().out
    )
