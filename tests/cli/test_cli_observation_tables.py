"""Tables of observations are read as tables of training data are."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from deepscm_pl import AffineFlow, Bernoulli, StructuralCausalModel
from deepscm_pl.cli.observations import observations_from_csv

CASES = Path(__file__).parents[1] / "fixtures" / "cases"


@pytest.fixture(scope="module")
def scm():
    flow = partial(AffineFlow)
    return StructuralCausalModel(
        "age, sex -> brain_volume", {"age": flow, "sex": Bernoulli, "brain_volume": flow}
    )


def read(scm, path):
    (found,) = observations_from_csv(scm, path).read(100)
    return {name: values.flatten().tolist() for name, values in found.values.items()}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shift.csv", "line 2: expected 4 cells, one for each name in the header, but got 5"),
        ("shift_trailing.csv", "line 2: expected 4 cells, one for each name in the header, but go"),
        ("dup.csv", "has several columns 'age'"),
    ],
)
def test_broken_tables_are_refused_by_file_and_line(scm, name, message):
    with pytest.raises(ValueError, match=f"observations: .*{name}.*{message}"):
        observations_from_csv(scm, CASES / name)


def test_an_open_quotation_mark_is_named_with_its_line(scm, tmp_path):
    rows = '61.5,1,1100000,"a.png\n' + "60,1,1,b.png\n" * 20_000
    (tmp_path / "o.csv").write_text(f"age,sex,brain_volume,image\n60,0,1,b.png\n{rows}")
    with pytest.raises(ValueError, match=r"o.csv, line 3: a quotation mark opens a cell"):
        observations_from_csv(scm, tmp_path / "o.csv")


@pytest.mark.parametrize("name", ["latin1.csv", "spaces_header.csv"])
def test_encodings_and_blanks_are_read(scm, name):
    assert read(scm, CASES / name) == {"age": [61.5], "sex": [1.0], "brain_volume": [1100000.0]}


def test_decimal_commas_and_lines_of_the_file(scm, tmp_path):
    path = tmp_path / "o.txt"
    path.write_text("age\tsex\tbrain_volume\r\n61,5\t1\t1.100.000,5\r\n\r\n60\t0\t9,5\r\n")
    assert read(scm, path)["age"] == [61.5, 60.0]
    assert read(scm, path)["brain_volume"] == [1100000.5, 9.5]
    path.write_text("age;sex;brain_volume\n61,5;1;2\n\n60;x;9,5\n")
    with pytest.raises(ValueError, match=r"o.txt, line 4, sex: expected a number, but got 'x'"):
        observations_from_csv(scm, path)
    path.write_text("age;sex;brain_volume\n61;1;1,234\n")
    with pytest.raises(
        ValueError, match=r"line 2, brain_volume: .* '1,234', which may be 1.234 or 1234"
    ):
        observations_from_csv(scm, path)
