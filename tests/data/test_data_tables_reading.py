"""The one reader of tables: formats, broken files, numbers, and missing values."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepscm_pl.data.tables import Table, TableFormat, read_table

AGES = [70.5, 45.75, 81.25]


def table(tmp_path: Path, content: str | bytes, name: str = "t.csv", **settings) -> Table:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, TableFormat(**settings))


def refusal(tmp_path: Path, content: str | bytes, **settings) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        table(tmp_path, content, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


POINTS = "id,age,sex\n0001,70.5,F\n0002,45.75,M\n0003,81.25,F\n"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_decimals_and_line_ends_are_found(tmp_path, separator, decimal, end):
    cells = [line.split(",") for line in POINTS.splitlines()]
    quoted = '"' if separator == decimal == "," else ""
    lines = [
        separator.join([row[0], f"{quoted}{row[1].replace('.', decimal)}{quoted}", row[2]])
        for row in cells
    ]
    found = table(tmp_path, end.join(lines))
    assert found.numbers("age").tolist() == AGES
    assert found["id"].tolist() == ["0001", "0002", "0003"]
    assert found.where(2) == "line 4 of t.csv"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"]
)
def test_encodings_are_found(tmp_path, encoding):
    text = "Größe;Straße\n1,5;Müller\n2,5;Grün\n"
    found = table(tmp_path, text.encode(encoding))
    assert list(found.columns) == ["Größe", "Straße"]
    assert found.numbers("Größe").tolist() == [1.5, 2.5]
    assert found["Straße"].tolist() == ["Müller", "Grün"]


def test_a_damaged_text_is_not_read_as_another_encoding(tmp_path):
    text = "Größe;Straße;Höhe\n1,5;Müller;1\n".encode()
    message = refusal(tmp_path, text + b"2,5;Gr\xfcn;2\n")
    assert "line 3: expected text in utf-8, but got the byte 0xfc; set encoding" in message


def test_names_of_several_lines_become_one(tmp_path):
    assert list(table(tmp_path, '"age\n(years)",\ufeffsex\n1,2\n').columns) == [
        "age (years)",
        "sex",
    ]


def test_compressed_tables_are_read(tmp_path):
    assert table(tmp_path, gzip.compress(POINTS.encode())).numbers("age").tolist() == AGES
    assert "broken" in refusal(tmp_path, gzip.compress(POINTS.encode())[:-9])


def test_blanks_around_names_and_cells_are_removed(tmp_path):
    found = table(tmp_path, ' age , sex ,"free, text"\n 61.5 , 1 , "a, b" \n 60, 0, c\n')
    assert list(found.columns) == ["age", "sex", "free, text"]
    assert found["free, text"].tolist() == ["a, b", "c"]


def test_lines_are_counted_as_in_the_file(tmp_path):
    found = table(tmp_path, 'id,text\n\n1,"two\nlines"\n\n\n2,b\n')
    assert [found.number(row) for row in range(2)] == [3, 7]
    assert found["text"].tolist() == ["two\nlines", "b"]


def test_excel_hints_and_lines_above_the_header(tmp_path):
    assert list(table(tmp_path, "sep=;\nage;a,b\n1;2\n3;4\n").columns) == ["age", "a,b"]
    found = table(tmp_path, "3\nSmiling Male\n1.jpg -1 1\n2.jpg 1 -1\n", header_line=2,
                  row_names="file")  # fmt: skip
    assert {name: cells.tolist() for name, cells in found.columns.items()} == {
        "file": ["1.jpg", "2.jpg"],
        "Smiling": ["-1", "1"],
        "Male": ["1", "-1"],
    }
    assert found.number(0) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n3,4,5\n", "t.csv, line 3: expected 2 cells, .* but got 3; quote cells"),
        ("a,b\n1,2\n3\n", "t.csv, line 3: expected 2 cells, .* but got 1; complete the row"),
        ("a;b\n1;2\n\n3;4;5\n", "line 4: expected 2 cells, .* but got 3"),
        ("a,b\n1,61,5\n", "line 2: expected 2 cells, .* but got 3"),
        ("a,b\n1,x,5\n2,y,6\n", "line 2: .* names of rows, name their column in row_names"),
        ("age,sex,age\n1,2,3\n", "has several columns 'age'"),
        ("age,sex, age \n1,2,3\n", "has several columns 'age'"),
        ('a,b\n1,2\n3,"4\n5,6\n7,8\n', "t.csv, line 3: a quotation mark opens a cell"),
        ('a,b\n1,"2\n5,"6\n7,8\n', "t.csv, line 2: a quotation mark opens a cell"),
        ('a,b\n1,"multi\nline"\n"5,6\n7,8\n', "t.csv, line 4: a quotation mark opens a cell"),
        ('a,b\n1,"2"x\n', "t.csv, line 2: a quotation mark opens a cell"),
        ("1,2\n3,4\n", "expected names of columns in the first line, but 1, 2 looks like"),
        ("0,1,2\nx,1,a\ny,2,b\n", "expected names of columns in the first line"),
        ("ok.png,1,61.5,1100000\nb.png,0,60,1000000\n", "expected names of columns"),
        ("0000,70.5,M\n0001,45.7,F\n0002,50.1,M\n", "expected names of columns"),
        ("", "it is empty"),
        ("\n\n", "it is empty"),
        ("a,b\n", "should have a row for each observation"),
        (b"a,b\n1,\x8d\n", "line 2: expected text in UTF-8 or Windows-1252, .* 0x8d"),
        (b"a,b\n1,\0\n", "line 2: expected text, but got the character 0"),
        (b"\xd0\xcf\x11\xe0" + bytes(600), "it is an old Excel file; save it as .xlsx or CSV"),
        (b"PK\x03\x04" + bytes(600), "Excel workbook cannot be read"),
        ("<!DOCTYPE html>\n<html>", "it is a web page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(90), "it is a picture"),
        (b"PAR1" + bytes(90), "Parquet file cannot be read"),
    ],
)
def test_broken_tables_are_refused_with_their_line(tmp_path, content, message):
    import re

    assert re.search(message, refusal(tmp_path, content))


def test_surplus_empty_cells_are_no_error(tmp_path):
    assert list(table(tmp_path, "a,b\n1,2,,\n3,4\n").columns) == ["a", "b"]
    assert list(table(tmp_path, ",a,b,\n0,1,2,\n").columns) == ["a", "b"]


@pytest.mark.parametrize(
    "header", ["eid,21003,31", "21003,31,eid", "id,no,yes", "x,y,z", "p1,p2,p3", "index,0,1.5"]
)
def test_headers_that_are_names_are_accepted(tmp_path, header):
    rows = ["1000,70.5,2", "1001,45.7,0", "1002,60.0,1"]
    if header.startswith("21003"):
        rows = ["70.5,2,1000", "45.7,0,1001", "60.0,1,1002"]
    assert ",".join(table(tmp_path, "\n".join([header, *rows])).columns) == header


def test_expected_names_are_names(tmp_path):
    (tmp_path / "t.csv").write_text("31,21003\n1,40\n0,50\n")
    with pytest.raises(ValueError, match="expected names of columns"):
        read_table(tmp_path / "t.csv")
    assert list(read_table(tmp_path / "t.csv", expected=["31", "21003"]).columns) == ["31", "21003"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["70.5", "-1e3", ".5", "5."], [70.5, -1000.0, 0.5, 5.0]),
        (["70,5", "45", "-0,25"], [70.5, 45, -0.25]),
        (["1,100,000", "900", "2,000.5"], [1100000, 900, 2000.5]),
        (["1.100.000", "900", "2.000,5"], [1100000, 900, 2000.5]),
        (["1 100 000", "1\u202f234,5", "1'000"], [1100000, 1234.5, 1000]),
        (["−5", "+5"], [-5, 5]),
        (["1.234", "5.678"], [1.234, 5.678]),
        (["1,234", "5,67"], [1.234, 5.67]),
        (["1_000", "0x10", "12.03.1960", "3xTG", "1e", "inf", "∞"], [np.nan] * 7),
    ],
)
def test_numbers_are_recognised(texts, expected):
    found = Table(Path("t.csv"), {"x": np.array(texts, dtype=object)})
    np.testing.assert_array_equal(found.numbers("x"), expected)


def test_the_smaller_part_of_a_mixture_is_no_number():
    """So that it is named with its row, rather than read with another meaning."""
    found = Table(Path("t.csv"), {"x": np.array(["70,5", "60,5", "45.5"], dtype=object)})
    np.testing.assert_array_equal(found.numbers("x"), [70.5, 60.5, np.nan])


def test_a_comma_that_may_be_either_is_not_guessed():
    columns = {"x": np.array(["1,234", "900"], dtype=object)}
    found = Table(Path("t.csv"), columns)
    assert found.uncertain("x") == "1,234"
    for other, number in (("70,5", 1.234), ("70.5", 1234.0)):
        beside = Table(Path("t.csv"), {**columns, "y": np.array([other, "1"], dtype=object)})
        assert beside.uncertain("x") is None
        assert beside.numbers("x").tolist() == [number, 900]
    for decimal, number in ((",", 1.234), (".", 1234.0)):
        asked = Table(Path("t.csv"), columns, format=TableFormat(decimal=decimal))
        assert asked.numbers("x").tolist() == [number, 900]


def test_missing_words_are_a_setting():
    cells = np.array(["", "NA", "n/a", "None", "-", "nan"], dtype=object)
    found = Table(Path("t.csv"), {"x": cells})
    assert found.is_missing("x").tolist() == [True, True, True, False, False, True]
    found = Table(Path("t.csv"), {"x": cells}, format=TableFormat(missing_words=["-", "NONE"]))
    assert found.is_missing("x").tolist() == [True, False, False, True, True, False]
    with pytest.raises(ValueError, match="missing_words: expected a list of words, but got '-'"):
        TableFormat(missing_words="-")


def test_parquet_keeps_its_index_and_joins_its_levels(tmp_path):
    frame = pd.DataFrame({"age": AGES, "sex": ["F", None, "F"]}, index=["0001", "0002", "0003"])
    frame.rename_axis("eid").to_parquet(tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet")
    assert list(found.columns) == ["eid", "age", "sex"]
    assert found["eid"].tolist() == ["0001", "0002", "0003"]
    assert found["sex"].tolist() == ["F", "", "F"]
    assert found.where(1) == "row 2 of t.parquet"
    two = pd.DataFrame({("age", "mean"): AGES, ("age", "sd"): AGES, ("sex", ""): [1, 0, 1]})
    two.to_parquet(tmp_path / "two.parquet")
    assert list(read_table(tmp_path / "two.parquet").columns) == ["age_mean", "age_sd", "sex"]
    pd.DataFrame({"a": [[1], [2]]}).to_parquet(tmp_path / "lists.parquet")
    with pytest.raises(ValueError, match="row 1: expected a number or a text in a, but got a"):
        read_table(tmp_path / "lists.parquet")


def test_excel_sheets_are_read(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    path = tmp_path / "t.xlsx"
    frame = pd.DataFrame({" id ": ["0001", "0002", None], "age": [70.5, None, 81.0]})
    frame.dropna(how="all").to_excel(path, index=False, sheet_name="people")
    found = read_table(path)
    assert found["id"].tolist() == ["0001", "0002", ""]
    assert found.numbers("age").tolist()[0] == 70.5
    assert found.where(2) == "row 4 of t.xlsx"
    book = openpyxl.load_workbook(path)
    book.create_sheet("more").append(["a", "b"])
    book.save(path)
    with pytest.raises(ValueError, match="one sheet, but the workbook has people, more; set sheet"):
        read_table(path)
    with pytest.raises(ValueError, match=r"no sheet 'poeple'; it has .* did you mean 'people'"):
        read_table(path, TableFormat(sheet="poeple"))
    assert len(read_table(path, TableFormat(sheet="people"))) == 3
    sheet = book["people"]
    sheet["B3"] = "=1+1"
    book.save(path)
    with pytest.raises(ValueError, match="row 3: B3 is a formula without a stored value"):
        read_table(path, TableFormat(sheet="people"))
    with pytest.raises(ValueError, match="sheet: expected an Excel workbook"):
        table(tmp_path, POINTS, sheet="people")


def test_excel_without_its_package(tmp_path, monkeypatch):
    pytest.importorskip("openpyxl")
    pd.DataFrame({"a": [1]}).to_excel(tmp_path / "t.xlsx", index=False)
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(ImportError, match=r"pip install deepscm_pl\[excel\]"):
        read_table(tmp_path / "t.xlsx")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"separator": ",,"}, "separator: expected one character"),
        ({"decimal": ";"}, "decimal: expected"),
        ({"encoding": "utf-9"}, "encoding: expected the name of an encoding, .* 'utf-9'"),
        ({"encoding": "ascii"}, "line 2: expected text in ascii, but got the byte 0xc3"),
        ({"header_line": 0}, "header_line"),
        ({"header_line": 9}, "it is empty"),
    ],
)
def test_settings_of_a_format_are_checked(tmp_path, settings, message):
    import re

    assert re.search(message, refusal(tmp_path, "a,b\nMü,1\n", **settings))


def test_tables_of_many_columns_are_described_briefly(tmp_path):
    names = [f"column{k}" for k in range(5000)]
    found = table(tmp_path, ",".join(names) + "\n" + ",".join(["1"] * 5000) + "\n")
    with pytest.raises(
        ValueError, match=r"no column 'colum9'; .* and 4980 more; did you"
    ) as caught:
        found.require("columns", ["colum9"])
    assert len(str(caught.value)) < 500
