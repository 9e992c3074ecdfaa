"""Options of commands: their help ends in whole sentences, and none is abbreviated."""

import contextlib
import io
import re

import pytest

from deepscm_pl.cli import commands
from deepscm_pl.cli.commands import COMMANDS
from deepscm_pl.cli.described import split_overrides
from deepscm_pl.cli.main import main
from deepscm_pl.cli.options import parse_command
from deepscm_pl.cli.training_help import TRAINING_COMMANDS
from deepscm_pl.cli.words import trusted_packages

KINDS = [f"data {kind}" for kind in COMMANDS["data"]]
IMAGE_CLASSIFIER = "--model.class_path deepscm_pl.training.ImageClassifier --ckpt_path last"


def printed(line):
    """The words that a command line prints, without line breaks, and its exit status."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(line.split())
        except SystemExit as stopped:
            status = stopped.code
    return out.getvalue() + err.getvalue(), status


@pytest.mark.parametrize("command", [*COMMANDS, *KINDS])
def test_every_option_is_described_in_whole_sentences(command):
    text, status = printed(f"{command} --help")
    assert status == 0
    description = text.split("\n\n")[1]
    assert re.search(r"[.?)]$", description)
    options = re.split(r"^  (?=\S)", text.split("options:\n")[1], flags=re.MULTILINE)
    for option in options[1:]:
        assert re.search(r"[.)]$|show this help message and exit$", option.strip()), option


@pytest.mark.parametrize("command", TRAINING_COMMANDS)
def test_no_help_of_the_parser_of_lightning_ends_in_a_fragment(command):
    text, status = printed(f"{command} {IMAGE_CLASSIFIER} --help")
    assert status == 0
    assert TRAINING_COMMANDS[command] in text
    for title in re.findall(r"^(\S.*):\n  --", text, flags=re.MULTILINE):
        assert ". " not in title
        assert not re.search(r"\b(to|is|of|your|the|a|and)$", title)
    for fragment in ("Useful to", "never run on your", "advantage is"):
        assert fragment not in text


@pytest.mark.parametrize(
    ("option", "full"),
    [
        ("--model.num_particle 3", "model.num_particles"),
        ("--model.num_particle=3", "model.num_particles"),
        ("--evaluation.detail_row 3", "evaluation.detail_rows"),
        ("--ckpt_pat x.ckpt", "ckpt_path"),
    ],
)
def test_trainings_refuse_abbreviations(option, full):
    text, status = printed(f"fit --config digits/full {option} --print_config")
    assert status == 2
    assert f"did you mean {full!r}?" in text
    assert "deepscm fit --help lists the options." in text


@pytest.mark.parametrize("option", ["--num_particle 3", "--observation x.csv", "--data.roo x"])
def test_questions_refuse_abbreviations(option):
    text, status = printed(f"counterfactual --ckpt_path x --out y --do a=1 --index 0 {option}")
    assert status == 2
    assert "did you mean" in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sample --ckpt_path x --out y --seed a", "--seed: expected a whole number, but got 'a'"),
        ("sample --ckpt_path x --out y --temperature a", "expected a number, but got 'a'"),
        ("sample --out y", "required: --ckpt_path"),
        ("data brian", "did you mean 'brain'?"),
        ("data brain --out x --format pn", "did you mean 'png'?"),
        ("effect avarage --out x", "did you mean 'average'?"),
        ("effect paths --out x", "'reach')\n"),  # no option is suggested for a kind
        ("data brain --out x --fractions 1 2", "--fractions: expected 3 arguments"),
        ("data morphomnist --mnist x --out y --world thickness-slan", "'thickness-slant'?"),
        ("counterfactual --ckpt_path x --out y --do a=1", "--index --observations is required"),
        ("counterfactual --ckpt_path x --out y --do a=1 --index 0 --observations x", "not allowed"),
        ("graph -c x --edges y", "not allowed with argument"),
        ("graph", "one of the arguments -c/--config --edges is required"),
    ],
)
def test_wrong_words_are_refused(line, message):
    text, status = printed(line)
    assert status == 2
    assert message in text


def parsed(line):
    return parse_command(line.split(), COMMANDS)


def test_options_are_the_parameters_of_a_function():
    call = parsed("counterfactual --ckpt_path x --out y --do a b --do c --index 1 2 --data.root z")
    assert call.func is commands.counterfactual
    assert call.keywords["interventions"] == commands.InterventionOptions(["a", "b", "c"])
    assert call.keywords["observed"].index == [1, 2]
    assert str(call.keywords["overlap"].root) == "z"
    assert call.keywords["uncertainty"] == commands.ParticleOptions()
    answers = call.keywords["answers"]
    assert (answers.seed, answers.npz, answers.image_format, answers.trust) == (0, False, None, ())


def test_a_tuple_is_replaced_and_a_list_extended():
    call = parsed("data brain --out x --shape 8 9 --shape 4 5 6 --format nifti")
    assert call.func is commands.make_brain
    assert call.keywords["shape"] == [4, 5, 6]
    assert call.keywords["fractions"] == (0.8, 0.1, 0.1)
    assert call.keywords["image_format"] == "nifti"
    assert parsed("graph -c a --config b").keywords["config"] == ["a", "b"]


def test_a_positional_argument_may_be_left_out():
    assert parsed("experiments").keywords == {"name": None, "out": None}
    assert parsed("experiments digits/full").keywords["name"] == "digits/full"


def test_an_option_before_another_option_has_no_value():
    words = ["test", "--trust", "--ckpt_path", "x", "--trust", "mine", "yours"]
    assert trusted_packages(words) == (["mine", "yours"], ["test", "--trust", "--ckpt_path", "x"])
    with pytest.raises(ValueError, match=r"--data\.root: expected a value after it; give one"):
        split_overrides(["test", "--data.root", "--ckpt_path", "x"], "data")
