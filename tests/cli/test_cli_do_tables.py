"""Tables of interventions, and the options that state interventions."""

from __future__ import annotations

import pytest

from deepscm_pl import Variable
from deepscm_pl.cli.commands import COMMANDS, InterventionOptions
from deepscm_pl.cli.do_tables import read_do_table, read_interventions
from deepscm_pl.cli.options import parse_command
from deepscm_pl.interventions import Draw, Increase, Where, parse_do

VARIABLES = {
    "age": Variable("age", unit="years"),
    "sex": Variable("sex", classes=("female", "male")),
    "group": Variable("group", classes=("18-38", "≥61", ">89, frail", "NA")),
    "brain volume": Variable("brain volume"),
}


def write(folder, text):
    (folder / "do.csv").write_text(text, encoding="utf-8")
    return folder / "do.csv"


def read(folder, text):
    texts = read_do_table(write(folder, text), VARIABLES)
    return [parse_do(each, VARIABLES) for each in texts]


def test_cells_are_the_operands_of_the_grammar(tmp_path):
    text = """age;sex;group;brain volume
60;male;;
+=5;;>89, frail;~normal(1200, 50)
0.9*age+3;0;NA;1200 if sex == male else 1100
"""
    first, second, third = read(tmp_path, text)
    assert first == {"age": 60.0, "sex": 1.0}
    drawn = Draw("normal", (1200.0, 50.0))
    assert second == {"age": Increase(5.0), "group": 2.0, "brain volume": drawn}
    assert third["sex"] == 0.0
    assert third["group"] == 3.0
    assert str(third["age"]) == "0.9 * age + 3"


def test_decimal_commas_are_those_of_the_table(tmp_path):
    assert read(tmp_path, "age;brain volume\n60,5;1200,25\n") == [
        {"age": 60.5, "brain volume": 1200.25}
    ]


def test_whole_texts_and_groups(tmp_path):
    first, second = read(tmp_path, "do;where\nage=50, sex=male;age > 60\nage+=1;\n")
    assert first["age"] == Where(50.0, first["age"].condition)
    assert str(first["sex"].condition) == "age > 60"
    assert second == {"age": Increase(1.0)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ages,sex\n1,male\n", r"do.csv has the column 'ages', which is no variable.*mean 'age'"),
        ("age,sex\n1,mail\n", r"do_table: line 2 of do.csv: do\(sex\): expected one of female"),
        ("age,sex,where\n1,male,\n,,age>3\n", r"do_table: line 3 of do.csv changes nothing"),
        ("age,sex\n", r"do.csv should have a row"),
        ("age,where\n3,age >\n", r"line 2 of do.csv: do: where: cannot read"),
    ],
)
def test_rows_that_cannot_be_read_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value)


class Model:
    variables = VARIABLES


def test_texts_come_before_the_table(tmp_path):
    path = write(tmp_path, "age\n60\n")
    options = InterventionOptions(["sex=male"], path)
    assert read_interventions(options, Model()) == [{"sex": 1.0}, {"age": 60.0}]
    with pytest.raises(
        ValueError, match=r"do: expected at least one intervention.*--do_table FILE"
    ):
        read_interventions(InterventionOptions(), Model())


def test_options_of_commands(tmp_path):
    words = ["intervene", "--ckpt_path", "x", "--out", "y"]
    for more, expected in (
        (["--do", "a=1", "b=2", "--do", "c=3"], InterventionOptions(["a=1", "b=2", "c=3"])),
        (["--do_table", "t.csv"], InterventionOptions(None, tmp_path.__class__("t.csv"))),
    ):
        command = parse_command([*words, *more], COMMANDS)
        assert command.keywords["interventions"] == expected
