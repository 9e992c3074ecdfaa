"""Tables of subjects: what is read of them, and what is refused."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from scan_folders import make, subjects, write_folder, write_table

SPLITS = ("train", "validation", "test")


def changed(root, **cells):
    """The folder's table with some cells of its rows replaced, {column: {row: value}}."""
    rows = subjects()
    for column, values in cells.items():
        for row, each in enumerate(rows):
            each[column] = values.get(row, each.get(column, values.get("else")))
    write_table(root, rows)


def column(data, name, split="train"):
    return data.variables(split)[name].squeeze(-1).tolist()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_tables_of_every_format_say_the_same(tmp_path, suffix):
    rows = write_folder(tmp_path)
    if suffix == "parquet":
        pd.DataFrame(rows).to_parquet(tmp_path / "table.parquet")
    else:
        write_table(tmp_path, rows, f"table.{suffix}")
    data = make(tmp_path, table=f"table.{suffix}")
    assert data.identifiers("test") == ["0008", "0009"]
    assert column(data, "age", "test") == [48.5, 49.5]
    assert data.variables("train")["age"].dtype == torch.float32
    assert set(data.variables("train")) == {"age", "sex", "image", "index"}


def test_identifiers_are_texts_or_whole_numbers(tmp_path):
    rows = write_folder(tmp_path)
    numbered = [{**row, "eid": 2**53 + 1 + n} for n, row in enumerate(rows)]
    for row, source in zip(numbered, rows, strict=True):
        (tmp_path / f"{source['eid']}.png").rename(tmp_path / f"{row['eid']}.png")
    pd.DataFrame(numbered).to_parquet(tmp_path / "table.parquet")
    data = make(tmp_path, table="table.parquet")
    assert data.identifiers("train")[:2] == ["9007199254740993", "9007199254740994"]
    pd.DataFrame(numbered).astype({"eid": float}).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(ValueError, match=r"identifier: .*floating-point numbers, which cannot"):
        make(tmp_path, table="table.parquet").setup()


def test_columns_are_chosen_renamed_and_described(tmp_path, caplog):
    write_folder(tmp_path)
    sites = {n: "abc"[n % 3] for n in range(10)}
    balance = {n: n - 5 for n in range(10)}
    changed(tmp_path, sex={n: "FM"[n % 2] for n in range(10)}, f_1=sites, f_2=balance)
    columns = {"sex": "sex", "site": "f_1", "balance": "f_2", "years": "age"}
    data = make(tmp_path, columns=columns, kinds={"years": "continuous"})
    with caplog.at_level("INFO"):
        data.setup()
    assert [(each.name, each.kind, each.declared) for each in data.attributes] == [
        ("sex", "binary", False),
        ("site", "categorical", False),
        ("balance", "continuous", False),
        ("years", "continuous", True),
    ]
    assert "10 subjects in 10 rows: 6 train, 2 validation, 2 test" in caplog.text
    assert "sex: binary (inferred: two different texts), column sex, 0 = F, 1 = M" in caplog.text
    assert "years: continuous (declared), column age, from 40.5 to 49.5" in caplog.text
    assert column(data, "sex") == [0, 1, 0, 1, 0, 1]
    assert column(data, "site") == [0, 1, 2, 0, 1, 2]
    assert make(tmp_path, columns=["age"]).variables("test").keys() == {"age", "image", "index"}


def test_levels_of_numbers_are_ordered_as_numbers(tmp_path):
    write_folder(tmp_path)
    changed(tmp_path, site={n: ("2.0", "10", "2")[n % 3] for n in range(10)})
    data = make(tmp_path, kinds={"site": "categorical"})
    assert data.attributes[-1].levels == ("2", "10")
    assert column(data, "site") == [0, 1, 0, 0, 1, 0]


def test_classes_of_long_numbers_keep_their_names(tmp_path):
    rows = write_folder(tmp_path)
    sites = ["11025001", "11025002.0", "11025003"]
    write_table(tmp_path, [{**row, "site": sites[n % 3]} for n, row in enumerate(rows)])
    data = make(tmp_path, kinds={"site": "categorical"})
    names = data.class_names["site"]
    assert names == ("11025001", "11025002", "11025003")
    site = data.descriptions["site"]
    assert [site.class_index(text) for text in sites] == [0, 1, 2]
    assert site.class_index("1") is None


@pytest.mark.parametrize("name", ["", " ", "Unnamed: 0"])
def test_columns_without_a_name_are_left_out(tmp_path, name):
    """Such as the index that pandas writes, which would be a variable of its own."""
    rows = write_folder(tmp_path)
    write_table(tmp_path, [{name: n, **row} for n, row in enumerate(rows)])
    data = make(tmp_path)
    assert [attribute.name for attribute in data.attributes] == ["age", "sex"]


def test_visits_of_a_subject_are_rows_of_one_split(tmp_path):
    rows = [{**row, "visit": v} for row in write_folder(tmp_path) for v in ("a", "b")]
    write_table(tmp_path, rows)
    for row in rows:
        source = tmp_path / f"{row['eid']}.png"
        (tmp_path / f"{row['eid']}-{row['visit']}.png").write_bytes(source.read_bytes())
    data = make(tmp_path, visits=["visit"], images="{eid}-{visit}.png", split_column=None)
    found = [set(data.identifiers(split)) for split in SPLITS]
    assert not found[0] & found[1] | found[0] & found[2] | found[1] & found[2]
    assert sum(len(data.identifiers(split)) for split in SPLITS) == 20
    subjects = set(data.identifiers("test"))
    expected = {f"{subject}, visit {visit}" for subject in subjects for visit in "ab"}
    assert set(data.row_names("test")) == expected
    with pytest.raises(ValueError, match=r"line 3 of .* \(eid 0000\) has the same eid as"):
        make(tmp_path, images="{eid}-{visit}.png").setup()


@pytest.mark.parametrize(
    ("cells", "settings", "message"),
    [
        ({"eid": {3: "0002"}}, {}, r"line 5 of .* \(eid 0002\) has the same eid as line 4; remove"),
        ({"eid": {3: ""}}, {}, "line 5 of .* expected an identifier, but the cell is empty"),
        ({"age": {3: ""}}, {}, r"line 5 of .* \(eid 0003\): expected a value in age, but got ''"),
        ({"age": {3: "NaN"}}, {}, "line 5 of .* expected a value in age, but got 'NaN'"),
        ({"age": {3: "old"}}, {}, "line 5 of .* expected a number in age, but got 'old'"),
        ({"age": {3: "inf"}}, {}, "line 5 of .* expected a number in age, but got 'inf'"),
        ({"age": {3: -2}}, {"kinds": {"age": "positive"}}, "line 5 .* positive number .* got '-2'"),
        ({"age": {3: 0}}, {"kinds": {"age": "positive"}}, "line 5 .* positive number .* got '0'"),
        (
            {"age": {3: "1e300"}},
            {},
            "line 5 .* '1e300' in age is outside the range of single precision, .* 3e.38",
        ),
        (
            {"age": {3: "1e-60"}},
            {},
            "line 5 .* '1e-60' in age is outside the range of single precision",
        ),
        (
            {"age": {row: 1e9 + row for row in range(6)}},
            {},
            "age of .* is, in single precision, 1000000000.0 in every row .* common part",
        ),
        ({"age": dict.fromkeys(range(6), 50)}, {}, "age of .* is 50 in every row .* leave age out"),
        (
            {"sex": {9: 2}},
            {"kinds": {"sex": "categorical"}},
            r"line 11 .* '2' in sex does not occur",
        ),
        (
            {"sex": {7: "x"}},
            {"kinds": {"sex": "categorical"}},
            "line 9 .* 'x' in sex does not occur",
        ),
        ({"sex": {3: 2}}, {"kinds": {"sex": "binary"}}, "sex of .* should be binary, .* 3 differ"),
        (
            {"split": {3: "valid"}},
            {},
            "line 5 .* expected one of train, validation, test .* 'valid'",
        ),
        (
            {"split": {8: "train", 9: "train"}},
            {},
            "every split a subject, but test would have none",
        ),
        ({}, {"columns": ["agee"]}, "columns: .* has no column 'agee'; .* did you mean 'age'?"),
        ({}, {"columns": []}, "columns: expected at least one column of .*"),
        ({}, {"columns": {"image": "age"}}, "columns: the name image is reserved"),
        ({}, {"kinds": {"agee": "binary"}}, "kinds: 'agee' is not one of the variables age, sex"),
        ({}, {"kinds": {"age": "number"}}, "kinds: age: expected one of continuous, .* 'number'"),
        ({}, {"units": {"agee": "years"}}, "units: 'agee' is not one of the variables age, sex"),
        ({}, {"identifier": "id"}, "identifier: .* has no column 'id'"),
        ({}, {"visits": ["visit"]}, "visits: .* has no column 'visit'"),
        ({}, {"split_column": "fold"}, "splits.column: .* has no column 'fold'"),
        ({}, {"split_column": None, "stratify": ["site"]}, "stratify: .* has no column 'site'"),
        ({}, {"images": "{id}.png"}, "images: .* has no column 'id'; it has eid, age, sex, split"),
        ({}, {"images": "image.png"}, "images: expected a pattern that names a column"),
        ({}, {"images": "{sex}.png"}, "line 4 .* has the same file .* as line 2"),
    ],
)
def test_bad_tables_are_refused(tmp_path, cells, settings, message):
    write_folder(tmp_path)
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes((tmp_path / "0000.png").read_bytes())
    changed(tmp_path, **cells)
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **settings).setup()


def test_rows_without_a_value_can_be_left_out(tmp_path, caplog):
    write_folder(tmp_path)
    changed(tmp_path, age={1: "", 4: "n/a"}, site={"else": ""})
    with caplog.at_level("INFO"):
        data = make(tmp_path, columns=["age", "sex"], missing="drop")
        data.setup()
    assert "4 train" in caplog.text
    assert "without 2 rows in which a value is missing" in caplog.text
    assert data.identifiers("train") == ["0000", "0002", "0003", "0005"]
    assert column(data, "age") == [40.5, 42.5, 43.5, 45.5]
    # The images follow their subjects.
    whole = make(tmp_path, columns=["sex"])
    images = whole.variables("train")["image"][[0, 2, 3, 5]]
    assert torch.equal(data.variables("train")["image"], images)


def test_rows_that_are_left_out_count_in_messages(tmp_path):
    write_folder(tmp_path)
    changed(tmp_path, age={1: ""}, sex={3: "x"})
    with pytest.raises(ValueError, match=r"line 5 of subjects.csv \(eid 0003\): expected a number"):
        make(tmp_path, kinds={"sex": "continuous"}, missing="drop").setup()
    changed(tmp_path, age={1: ""}, site={"else": ""})
    with pytest.raises(ValueError, match=r"missing: no row of .* has a value in each of age, site"):
        make(tmp_path, columns=["age", "site"], missing="drop").setup()
    with pytest.raises(ValueError, match=r"missing: expected refuse or .*, but got 'ignore'"):
        make(tmp_path, missing="ignore")


def test_a_subject_in_two_splits(tmp_path):
    rows = [{**row, "visit": v} for row in write_folder(tmp_path) for v in ("a", "b")]
    rows[1]["split"] = "test"
    write_table(tmp_path, rows)
    with pytest.raises(ValueError, match=r"line 3 of .* \(eid 0000\) is in test, but .* in train"):
        make(tmp_path, visits=["visit"]).setup()


def test_a_column_of_remarks_is_no_category(tmp_path):
    write_folder(tmp_path, size=30)
    rows = [{**row, "remark": f"text {row['eid']}"} for row in subjects(30)]
    write_table(tmp_path, rows)
    with pytest.raises(ValueError, match=r"remark of .* contains 30 different texts"):
        make(tmp_path).setup()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is empty"),
        ("eid,age\n", "should have a row for each observation, but has none"),
        ("eid,age\n1,2\n3,4,5,6\n", "line 3: expected 2 cells, .* but got 4"),
        ("eid,age\n1,2,5\n3,4,6\n", "line 2: expected 2 cells, .* but got 3"),
        ("eid,age,age\n1,2,5\n3,4,6\n", "has several columns 'age'; rename or remove"),
        (b"eid,age\n\x8d\xfe,1\n", "line 2: expected text in UTF-8 or Windows-1252, .* 0x8d"),
    ],
)
def test_what_is_no_table(tmp_path, content, message):
    path = tmp_path / "subjects.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"table: .*{message}"):
        make(tmp_path).setup()


def test_missing_tables_and_formats(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"table: .*subjects.csv is missing"):
        make(tmp_path).setup()
    (tmp_path / "subjects.xlsx").touch()
    with pytest.raises(ValueError, match=r"table: .*subjects.xlsx: expected .* it is empty"):
        make(tmp_path, table="subjects.xlsx").setup()


def test_missing_images_are_named_before_training(tmp_path):
    write_folder(tmp_path)
    for name in ("0003", "0005", "0007"):
        (tmp_path / f"{name}.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"line 5 .*0003\.png, and 2 more are missing"):
        make(tmp_path).setup()
    with pytest.raises(FileNotFoundError, match=r"root: .* is missing"):
        make(tmp_path / "other", table=str(tmp_path / "subjects.csv")).setup()


def test_globs_match_one_file(tmp_path):
    rows = write_folder(tmp_path)
    for row in rows:
        folder = tmp_path / f"sub-{row['eid']}" / "anat"
        folder.mkdir(parents=True)
        (tmp_path / f"{row['eid']}.png").rename(folder / f"x{row['age']}.png")
    data = make(tmp_path, images="sub-{eid}/*/x*.png")
    assert len(data.variables("train")["image"]) == 6
    (folder / "x2.png").touch()
    with pytest.raises(ValueError, match=r"line 11 .* one file, but 2 match sub-0009/\*/x"):
        make(tmp_path, images="sub-{eid}/*/x*.png").setup()


def test_what_a_row_says_is_no_glob(tmp_path):
    write_folder(tmp_path)
    changed(tmp_path, eid={0: "[0]*"})
    (tmp_path / "0000.png").rename(tmp_path / "[0]*.png")
    for pattern in ("{eid}.png", "{eid}*png"):
        assert make(tmp_path, images=pattern).identifiers("train")[0] == "[0]*"
