"""Rows of a table as variables: kinds with reasons, classes, missing values, and images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from deepscm_pl.data import Cache, Division, TableDataModule, TableSettings
from deepscm_pl.data.tables import ColumnRules, Table, read_attribute

CASES = Path(__file__).parents[1] / "fixtures" / "cases"
THIRDS = Division(fractions=(0.5, 0.25, 0.25))


def column(texts, name="x", **settings):
    """The attribute of a column all of whose rows are for training."""
    table = Table(Path("t.csv"), {name: np.array([str(each) for each in texts], dtype=object)})
    return read_attribute(
        table, ColumnRules(name, name, **settings), np.ones(len(texts), dtype=bool)
    )


def case(name: str, **settings) -> TableDataModule:
    table = TableSettings(str(CASES / name), identifier="eid", **settings)
    return TableDataModule(CASES, table, THIRDS)


def write(folder: Path, rows: dict, name: str = "table.csv") -> Path:
    pd.DataFrame(rows).to_csv(folder / name, index=False)
    return folder


@pytest.mark.parametrize(
    ("texts", "kind", "reason"),
    [
        (["1.5", "-2", "3"], "continuous", "some are below 0"),
        (["0", "1.5", "3"], "continuous", "some are 0"),
        (["1.5", "2", "3"], "positive", "all above 0"),
        (["0.1", "0.2", "0.9"], "bounded", "all between 0 and 1"),
        ([0, 1, 2, 0, 1, 2], "count", "whole numbers from 0 to 2, 3 of them"),
        ([51, 52, 53, 54], "positive", "all above 0"),
        (["M", "F", "F"], "binary", "two different texts"),
        ([1, 2, 2], "binary", "two different numbers"),
        (["a", "b", "c"], "categorical", "3 different texts"),
        (["high", "low", "medium"], "ordinal", "the names of its classes have an order"),
        (["Severe", "none", "Mild"], "ordinal", "the names of its classes have an order"),
        (["18-38", "39-60", "≥61"], "ordinal", "the names of its classes have an order"),
        (["stage 2", "stage 1", "stage 10"], "ordinal", "the names of its classes have an order"),
        (["III", "I", "II"], "ordinal", "the names of its classes have an order"),
        (["3xTG", "C57BL/6", "APP"], "categorical", "3 different texts"),
        (["site 2", "site 1", "site 3"], "categorical", "3 different texts"),
        (["18-38", "39-60", ">89, frail"], "categorical", "3 different texts"),
    ],
)
def test_kinds_are_inferred_with_a_reason(texts, kind, reason):
    found = column(texts)
    assert (found.kind, found.reason, found.declared) == (kind, reason, False)
    assert f"x: {kind} (inferred: {reason}), column x, " in str(found)


@pytest.mark.parametrize(
    ("texts", "levels"),
    [
        (["high", "low", "medium"], ("low", "medium", "high")),
        (["≥61", "18-38", "39-60"], ("18-38", "39-60", "≥61")),
        (["stage 10", "stage 2", "stage 1"], ("stage 1", "stage 2", "stage 10")),
        (["IV", "II", "III"], ("II", "III", "IV")),
        (["high", "low"], ("low", "high")),
        (["<5", "5-9", ">9"], ("<5", "5-9", ">9")),
        (["40+ years", "18-39 years", "0-17 years"], ("0-17 years", "18-39 years", "40+ years")),
    ],
)
def test_classes_with_an_order_have_its_indices(texts, levels):
    found = column(texts)
    assert found.levels == levels
    assert found.values.tolist() == [levels.index(text) for text in texts]


def test_a_word_overrides_a_kind():
    assert column(["1", "2", "3"], kind="categorical").levels == ("1", "2", "3")
    assert column(["1", "2", "10"], kind="ordinal").levels == ("1", "2", "10")
    assert column(["20mg", "5mg", "10mg"], kind="ordinal").levels == ("5mg", "10mg", "20mg")
    assert column(["3", "70"], kind="bounded").bounds == (0.0, 100.0)
    assert column(["0", "3", "7"], kind="count").values.tolist() == [0, 3, 7]
    assert column(["low", "medium", "high"], kind="categorical").levels == ("high", "low", "medium")
    assert column(["12.03.1960", "13.03.1960", "1.1.1999"], kind="categorical").levels


def test_an_order_can_be_given():
    found = column(["b", "a", "c"], classes=["c", "b", "a"])
    assert (found.kind, found.levels) == ("ordinal", ("c", "b", "a"))
    assert found.values.tolist() == [1, 2, 0]
    assert column(["2", "1.0"], classes=["2", "1"]).levels == ("2", "1")
    assert column(["b", "a", "c"], classes=["c", "b", "a"], kind="categorical").levels[0] == "c"


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        (["1960-03-12", "1961-01-01"], {}, "x of t.csv contains dates, such as 1960-03-12;"),
        (["12.3.60", "1.1.61", "2.2.62"], {}, "contains dates, .* days or years since an origin"),
        ([f"1960031{k}" for k in range(9)], {}, "contains dates"),
        (["12 Mar 1960", "Apr 2, 1961"], {}, "contains dates"),
        (["3", "1960-03-12", "4"], {"kind": "positive"}, "row 2 .* a number .* convert dates"),
        (["1", "2", "none", "3"], {}, "row 3 .* 'none'; correct it, .* missing_words"),
        (
            ["M", "F", "-"],
            {},
            "row 3 .* the name of a class in x, but got '-'; .* missing",
        ),
        (["a", "b", "c"], {"kind": "ordinal"}, r"of a, b, c is not known; .* classes: \{x: "),
        (["a", "b", "c"], {"classes": ["a", "b"]}, "'c' is not one of a, b; add it"),
        (["a", "b"], {"classes": ["a", "b", "c"]}, "'c' does not occur in x in any row"),
        (["1", "2.5"], {"kind": "count"}, "row 2 .* a whole number from 0 in x, but got '2.5'"),
        (["1", "-2"], {"kind": "count"}, "row 2 .* a whole number from 0 in x, but got '-2'"),
        (["1", "700"], {"kind": "bounded"}, "should be bounded, .* but it contains 1 to 700"),
        (
            ["1,234", "900", "950"],
            {},
            "row 1 of t.csv: 1,234 in x may be 1.234 or 1234; set decima",
        ),
        (["70,5", "60,5", "45.5"], {}, "row 3 .* the same decimal character"),
        (["10mg", "20mg", "30mg", "10mg"], {}, "numbers with the unit mg, such as '10mg'; remove"),
        (["5 %", "7,5 %", "9 %"], {}, "numbers with the unit %"),
        (
            ["12 kg", *(f"{k} kg" for k in range(30))],
            {},
            "30 different texts, such as '12",
        ),
        (["", ""], {"missing": "infer"}, "x of t.csv has no value in any row of the training"),
        (["5", "5", ""], {"missing": "infer"}, "x of t.csv is 5 in every row"),
    ],
)
def test_bad_columns_are_refused(texts, settings, message):
    with pytest.raises(ValueError, match=message):
        column(texts, **settings)


def test_a_row_without_a_value_is_refused_dropped_or_kept(tmp_path):
    write(tmp_path, {"age": [40 + k if k != 3 else None for k in range(12)], "s": list("ab" * 6)})
    division = Division(fractions=(0.5, 0.25, 0.25))

    def module(**settings):
        return TableDataModule(tmp_path, TableSettings(**settings), division)

    with pytest.raises(ValueError, match=r"line 5 of table.csv: expected a value in age, but got"):
        module().setup()
    assert sum(len(module(missing="drop").variables(s)["age"]) for s in SPLITS) == 11
    kept = module(missing="infer")
    ages = torch.cat([kept.variables(split)["age"] for split in SPLITS])
    assert len(ages) == 12
    assert int(ages.isnan().sum()) == 1
    assert "missing in 1 rows" in str(kept.attributes[0])


SPLITS = ("train", "validation", "test")


def test_a_class_named_none_survives_and_a_dash_can_be_missing():
    data = case("none.csv", kinds={"sex": "ordinal"})
    assert data.attributes[-1].levels == ("none", "mild", "severe")
    with pytest.raises(ValueError, match="expected the name of a class in sex, but got '-'"):
        case("dash.csv").setup()
    dropped = case("dash.csv", missing_words=["-"], missing="drop")
    assert dropped.attributes[-1].levels == ("F", "M")
    assert "0003" not in [each for split in SPLITS for each in dropped.identifiers(split)]


def test_names_that_are_numbers_or_no_are_columns():
    assert [each.name for each in case("norway.csv").attributes] == ["age", "no"]
    assert [each.name for each in case("ukbnum.csv").attributes] == ["21003", "31"]
    chosen = case("ukbnum.csv", columns={"age": "21003", "sex": "31"})
    assert [each.kind for each in chosen.attributes] == ["positive", "binary"]


def test_decimal_commas_of_a_tsv_are_read(caplog):
    data = case("t.tsv")
    with caplog.at_level("INFO"):
        data.setup()
    assert "cells separated by tabs, decimal commas in age" in caplog.text
    assert data.attributes[0].kind == "positive"
    ages = torch.cat([data.variables(split)["age"] for split in SPLITS]).flatten().tolist()
    assert {70.5, 45.7} <= {round(age, 4) for age in ages}


def test_rows_are_units_without_an_identifier(tmp_path):
    write(tmp_path, {"age": np.arange(20) + 0.5, "sex": [0, 1] * 10})
    data = TableDataModule(tmp_path, splits=THIRDS)
    assert sorted(map(int, data.identifiers("train") + data.identifiers("test")))[-1] <= 20
    ages = data.variables("test")["age"].flatten().tolist()
    assert [float(name) - 0.5 for name in data.row_names("test")] == ages
    assert data.variables("train").keys() == {"age", "sex", "index"}
    assert data.placement("test", 0) is None
    restored = data.configuration()
    assert restored["init_args"]["table"]["file"] == "table.csv"
    with pytest.raises(ValueError, match="visits: expected none without an identifier"):
        TableSettings(visits=["visit"])


def test_several_columns_of_images(tmp_path):
    generator = np.random.default_rng(0)
    rows = {"id": [f"{k:03d}" for k in range(8)], "age": 40.0 + np.arange(8)}
    rows["file"] = [f"pictures/{k}.png" for k in range(8)]
    (tmp_path / "pictures").mkdir()
    pictures = generator.integers(0, 256, (8, 6, 7), dtype=np.uint8)
    others = generator.integers(0, 256, (8, 5, 5), dtype=np.uint8)
    for k in range(8):
        Image.fromarray(pictures[k]).save(tmp_path / f"pictures/{k}.png")
        Image.fromarray(others[k]).save(tmp_path / f"{k:03d}_b.png")
    write(tmp_path, rows)
    settings = TableSettings(images={"left": "file", "right": "{id}_b.png"}, identifier="id")
    data = TableDataModule(
        tmp_path, settings, THIRDS, cache=Cache(tmp_path / "cache", workers=1, progress=False)
    )
    for split in SPLITS:
        variables = data.variables(split)
        assert variables.keys() == {"age", "left", "right", "index"}
        for row, name in enumerate(data.identifiers(split)):
            assert torch.equal(variables["left"][row, 0], torch.from_numpy(pictures[int(name)]))
            assert torch.equal(variables["right"][row, 0], torch.from_numpy(others[int(name)]))
            assert data.placement_of("left", split, row) is None
    with pytest.raises(ValueError, match="images: age is the name of a column and of images"):
        TableDataModule(tmp_path, TableSettings(images={"age": "file"}), THIRDS).setup()
    with pytest.raises(ValueError, match="images: the name index is reserved"):
        TableDataModule(tmp_path, TableSettings(images={"index": "file"}), THIRDS).setup()


def test_strata_with_decimal_commas_are_quartiles(tmp_path):
    ages = [f"{30 + k / 2:.1f}".replace(".", ",") for k in range(80)]
    (tmp_path / "table.csv").write_text("\n".join(["age;x", *(f"{a};{k}" for k, a in
                                                               enumerate(ages))]))  # fmt: skip
    data = TableDataModule(tmp_path, splits=Division(stratify=["age"]))
    found = data.variables("test")["age"].flatten()
    quartile = ((found - 30) / 10).floor().int().bincount(minlength=4)
    assert quartile.tolist() == [2, 2, 2, 2]


def test_unknown_names_in_settings_are_refused(tmp_path):
    write(tmp_path, {"age": np.arange(20) + 0.5, "sex": [0, 1] * 10})
    for settings, message in (
        ({"classes": {"sx": ["0", "1"]}}, "classes: 'sx' is not one of age, sex"),
        ({"images": "{file}.png"}, "images: .* has no column 'file'"),
        ({"identifier": "eid"}, "identifier: .* has no column 'eid'"),
        ({"units": {"agee": "years"}}, "units: 'agee' is not one of the variables"),
    ):
        with pytest.raises(ValueError, match=message):
            TableDataModule(tmp_path, TableSettings(**settings), THIRDS).setup()


def test_other_tables_are_joined_and_rows_are_chosen(tmp_path):
    scans = {
        "scan": range(30),
        "id": [f"{k // 3:02d}" for k in range(30)],
        "view": ["PA", "AP", "LL"] * 10,
    }
    write(tmp_path, scans, "scans.csv")
    write(tmp_path, {"id": [f"{k:02d}" for k in range(9)], "age": np.arange(9) + 40.5,
                     "scan": range(9)}, "people.csv")  # fmt: skip

    def module(**settings):
        joined = {"identifier": "id", "visits": ["scan"], "join": {"people.csv": ["id"]}}
        return TableDataModule(
            tmp_path, TableSettings("scans.csv", **{**joined, **settings}), THIRDS
        )

    data = module(where={"view": ["PA", "AP"]}, columns=["age", "view"], missing="drop")
    found = {s: data.variables(s)["age"].flatten().tolist() for s in SPLITS}
    for split, ages in found.items():
        assert [f"{age - 40.5:02.0f}" for age in ages] == data.identifiers(split)
    assert sum(map(len, found.values())) == 18
    assert not set(data.identifiers("train")) & set(data.identifiers("test"))
    assert [each.levels for each in data.attributes][1] == ("AP", "PA")
    assert "people.scan" in {each.name for each in module(missing="drop").attributes}
    for settings, message in (
        ({"join": {"people.csv": ["name"]}}, "join: .*scans.csv has no column 'name'"),
        ({"join": {"people.csv": ["view"]}}, "join: .*people.csv has no column 'view'"),
        ({"join": {"none.csv": ["id"]}}, "join: .*none.csv is missing"),
        ({"where": {"view": ["P"]}}, "view of .* to be P in some row, but it contains AP, LL, PA"),
        ({"where": {"vew": ["P"]}}, "where: .* no column 'vew'; .* did you mean 'view'"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            module(**settings).setup()
    write(tmp_path, {"id": [f"1{k}" for k in range(9)], "age": range(9)}, "people.csv")
    with pytest.raises(ValueError, match=r"agree in id, but there are none, as in .*00.* and .*10"):
        module().setup()
    write(tmp_path, {"id": ["00", "01", "01"], "age": range(3)}, "people.csv")
    with pytest.raises(ValueError, match=r"join: line 4 of people.csv has the same id as line 3"):
        module().setup()


def test_rows_without_a_file_can_be_left_out_and_numbers_padded(tmp_path, caplog):
    write(tmp_path, {"number": [2, 13, 114, 5, 6, 7, 8, 9], "age": np.arange(8) + 40.5})
    pixels = np.arange(30, dtype=np.uint8).reshape(5, 6)
    for number in (2, 13, 114, 5, 7, 8):
        Image.fromarray(pixels + number).save(tmp_path / f"S{number:03d}-x.png")
    cache = Cache(tmp_path / "cache", workers=1, progress=False)

    def module(missing, pattern="S{number:03}-*.png"):
        table = TableSettings(images=pattern, missing=missing)
        return TableDataModule(tmp_path, table, Division(fractions=(0.5, 0.25, 0.25)), cache=cache)

    with pytest.raises(
        FileNotFoundError, match=r"line 6 .*S006-\*.png, and 1 more are missing; .*drop"
    ):
        module("refuse").setup()
    data = module("drop")
    with caplog.at_level("INFO"):
        rows = [data.variables(split) for split in SPLITS]
    assert "without 2 rows whose image is missing" in caplog.text
    numbers = {2: 40.5, 13: 41.5, 114: 42.5, 5: 43.5, 7: 45.5, 8: 46.5}
    found = {
        int(p[0, 0, 0]): float(a) for v in rows for p, a in zip(v["image"], v["age"], strict=True)
    }
    assert found == numbers
    with pytest.raises(FileNotFoundError, match="and 7 more are missing"):
        module("drop", "{number}.jpg").setup()
