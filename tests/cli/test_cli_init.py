"""``deepscm init`` plans an experiment that trains as it is, and measures it before."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from deepscm_pl.cli import main
from deepscm_pl.planning import fingerprint as module, read_fingerprint

GRAPH = "age, sex -> Volume (ml); age, Volume (ml) -> grade"


def write_people(path: Path, rows: int = 60, **columns: Sequence[object]) -> Path:
    generator = np.random.default_rng(0)
    age = generator.uniform(20, 80, rows).round(1)
    table: dict[str, Sequence[object]] = {
        "participant_id": [f"sub-{row:03d}" for row in range(rows)],
        "age": age.tolist(),
        "sex": generator.choice(["female", "male"], rows).tolist(),
        "Volume (ml)": (100 + age + generator.normal(size=rows)).round(2).tolist(),
        "grade": generator.choice(["low", "medium", "high"], rows).tolist(),
        "born": [f"19{row % 90 + 10}-01-02" for row in range(rows)],
        "site": ["here"] * rows,
    } | columns
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    return path


def test_a_table_is_planned_trained_and_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my data").mkdir()
    write_people(tmp_path / "my data" / "people.csv")
    assert main(["init", "my data/people.csv", "--graph", GRAPH, "--out", "plan.yaml"]) == 0
    printed = capsys.readouterr().out
    assert "participant_id: identifier" in printed
    assert "born: other" in printed
    assert "Volume: positive" in printed
    assert "rows:        42 train, 9 validation, 9 test" in printed
    assert "steps of" in printed
    assert not (tmp_path / "runs").exists()  # nothing is trained
    settings = yaml.safe_load((tmp_path / "plan.yaml").read_text("utf-8"))
    table = settings["data"]["init_args"]["table"]
    assert table["units"] == {"Volume": "ml"}
    assert table["classes"] == {"grade": ["low", "medium", "high"]}
    options = ["--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "1"]
    assert main(["fit", "--config", "plan.yaml", *options]) == 0
    printed = capsys.readouterr().out
    assert "runs/people" in printed
    checkpoint = next((tmp_path / "runs").rglob("last.ckpt"))
    question = ["--ckpt_path", str(checkpoint), "--do", "age+=5", "--index", "0", "1"]
    assert main(["counterfactual", *question, "--out", "answers"]) == 0
    assert (tmp_path / "answers" / "answers.csv").is_file()


def test_a_dry_run_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_people(tmp_path / "people.csv")
    main(["init", "people.csv", "--graph", GRAPH, "--out", "plan.yaml", "--no_dry_run"])
    capsys.readouterr()
    before = sorted(tmp_path.rglob("*"))
    limits = ["--trainer.max_steps", "7"]
    assert main(["fit", "--config", "plan.yaml", "--dry_run", *limits]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    printed = capsys.readouterr().out
    assert "7 steps of" in printed
    assert [word for word in ("rows:", "parameters:", "memory:", "kB") if word not in printed] == []


def test_the_size_of_checkpoints_is_that_of_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepscm_pl.cli.training import TrainingCommand
    from deepscm_pl.training.dry_run import measure_training

    monkeypatch.chdir(tmp_path)
    experiment = Path(__file__).parents[2] / "experiments" / "brain" / "full.yaml"
    settings = yaml.safe_load(experiment.read_text("utf-8"))
    settings["model"]["mechanisms"]["image"]["init_args"] |= {"shape": [1, 16, 16], "latent": 4}
    settings["data"]["init_args"] = {
        "train_size": 40,
        "validation_size": 10,
        "test_size": 10,
        "shape": [16, 16],
    }
    settings["trainer"] = {"max_epochs": 1, "default_root_dir": str(tmp_path / "run")}
    for section in ("association", "evaluation"):
        settings.pop(section)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(settings))
    found = []
    monkeypatch.setattr(
        "deepscm_pl.cli.training.measure_training",
        lambda trainer, model, data: found.extend([measure_training(trainer, model, data), model]),
    )
    assert main(["fit", "--config", "plan.yaml", "--dry_run"]) == 0
    monkeypatch.setattr(TrainingCommand, "test", lambda *_, **__: None)
    assert main(["fit", "--config", "plan.yaml"]) == 0
    size = next((tmp_path / "run").rglob("last.ckpt")).stat().st_size
    assert found[0].checkpoint_bytes == pytest.approx(size, rel=0.1)
    assert found[0].steps == 1
    total = sum(each.numel() for each in found[1].parameters())
    assert sum(found[0].parameters.values()) == total
    assert found[0].rows == {"train": 30, "validation": 10, "test": 10}


def test_missing_values_are_planned_and_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ages = [f"{20 + row / 3:.1f}" if row % 5 else "" for row in range(60)]
    write_people(tmp_path / "people.csv", age=ages)
    assert main(["init", "people.csv", "--graph", "age, sex -> grade"]) == 0
    printed = capsys.readouterr().out
    assert "12 of 60 values missing" in printed
    assert "others)" in printed  # the network that infers them
    plan = (tmp_path / "experiment.yaml").read_text("utf-8")
    assert yaml.safe_load(plan)["data"]["init_args"]["table"]["missing"] == "infer"
    assert "assuming that they are missing at random" in plan


def error_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["init", *words]) == 1
    message = capsys.readouterr().err.strip()
    assert message.startswith("deepscm init: ")
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["is empty"]),
        ("\n\n", ["is empty"]),
        ("age,sex\n", ["has none below the names"]),
        ("age\n" + "".join(f"{20 + row}.5\n" for row in range(40)), ["at least two", "got age"]),
        ("age,sex\n" + "1.5,f\n2.5,m\n" * 5, ["10 rows", "at least 20"]),
        (
            "code,born\n" + "".join(f"c{row},2000-01-{row % 28 + 1:02d}\n" for row in range(40)),
            ["got none", "code is identifier", "dates"],
        ),
        (",".join(f"g{n}" for n in range(1_000_000)) + "\n", ["columns", "at most 2,000"]),
        (
            "\n".join([";".join(f"g{n}" for n in range(5000))] + [";".join(["1"] * 5000)] * 3),
            ["5,000 columns"],
        ),
    ],
    ids=["nothing", "blank", "header", "one", "short", "unusable", "million", "wide"],
)
def test_tables_that_cannot_be_used(
    content: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(content)
    out = str(tmp_path / "plan.yaml")
    message = error_of([str(table), "--graph", "age -> sex", "--out", out], capsys)
    assert [word for word in [*words, "table.csv"] if word not in message] == []
    assert not Path(out).exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["--graph", "age, sex -> Volume (ml)"]),
        (["--graph", "agee -> sex"], ["no column 'agee'", "'age'"]),
        (["--graph", "born -> sex"], ["'born'", "dates", "days or years"]),
        (["--graph", "site -> sex"], ["'site'", "constant"]),
        (["--graph", "age -> image", "--images", "{ids}.png"], ["'ids'"]),
        (["--graph", "age -> image", "--images", "{participant_id}.png"], ["no file", "line 2"]),
        (["--graph", "age -> sex", "--identifier", "person"], ["identifier", "'person'"]),
        (["--graph", "age -> sex", "--visits", "session"], ["visits", "'session'"]),
        (["--graph", "age -> sex", "--identifier", "sex"], ["visits", "--visits session"]),
        (["--graph", "age -> sex", "--sheet", "one"], ["sheet"]),
        (["--graph", "age -> sex", "--out", "plan.json"], ["out", ".yaml"]),
        (["--graph", "age -> sex", "--out", "no/plan.yaml"], ["there is no folder no"]),
        (["--graph", "age -> sex", "--out", "old.yaml"], ["old.yaml exists", "--overwrite"]),
    ],
)
def test_options_that_do_not_fit(
    options: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.yaml").write_text("a: 1\n")
    table = write_people(tmp_path / "people.csv")
    message = error_of([str(table), *options], capsys)
    assert [word for word in words if word not in message] == []
    assert sorted(path.name for path in tmp_path.glob("*.yaml")) == ["old.yaml"]


def test_words_for_missing_values_are_an_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sexes = ["female", "male", "-"] * 20
    table = write_people(tmp_path / "people.csv", sex=sexes)
    out = tmp_path / "plan.yaml"
    planned = ["--graph", "age -> sex", "--out", str(out)]
    message = error_of([str(table), *planned], capsys)
    assert "'-'" in message
    assert "--missing_words" in message
    options = [*planned, "--missing_words", "-", "NA"]
    assert main(["init", str(table), *options]) == 0
    printed = capsys.readouterr().out
    assert "sex: binary (two different texts: female, male), 20 of 60" in printed
    assert "steps of" in printed  # a few steps are trained with the planned settings
    settings = yaml.safe_load(out.read_text("utf-8"))["data"]["init_args"]["table"]
    assert settings["missing_words"] == ["-", "NA"]
    assert settings["missing"] == "infer"
    cache = tmp_path / "plan.fingerprint.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "read_table", None)  # a call would fail
        read_fingerprint(table, cache=cache, missing_words=["-", "NA"])
        with pytest.raises(TypeError):
            read_fingerprint(table, cache=cache)


def test_an_assumed_encoding_is_told_and_another_can_be_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_people(tmp_path / "people.csv", site=["Köln", "Graz"] * 30)
    text = table.read_text("utf-8")
    out = tmp_path / "plan.yaml"
    planned = ["--graph", "site -> age", "--out", str(out), "--no_dry_run", "--overwrite"]
    for encoding, options, expected in [
        ("utf-8", [], None),
        ("latin-1", [], "Windows-1252"),
        ("mac-roman", ["--encoding", "mac-roman"], "mac-roman"),
    ]:
        table.write_text(text, encoding)
        assert main(["init", str(table), *planned, *options]) == 0
        printed = capsys.readouterr().out
        assert "Graz, Köln" in printed
        assert ("not UTF-8, read as Windows-1252" in printed) == (encoding == "latin-1")
        settings = yaml.safe_load(out.read_text("utf-8"))["data"]["init_args"]["table"]
        assert settings.get("encoding") == expected


def test_a_missing_table_and_a_missing_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.csv is missing" in error_of(["nowhere.csv"], capsys)
    with pytest.raises(SystemExit):
        main(["init"])
    assert "TABLE" in capsys.readouterr().err


def test_the_fingerprint_is_read_once_for_each_state_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, cache = write_people(tmp_path / "people.csv"), tmp_path / "found.json"
    first = read_fingerprint(table, cache=cache)
    assert json.loads(cache.read_text("utf-8"))["rows"] == 60
    with monkeypatch.context() as patch:
        patch.setattr(module, "read_table", None)  # a call would fail
        assert read_fingerprint(table, cache=cache) == first
        assert read_fingerprint(table, identifier="participant_id", cache=cache) == first
    write_people(table, rows=50)
    os.utime(table, ns=(1, 1))
    assert read_fingerprint(table, cache=cache).rows == 50
    cache.write_text("{broken")
    assert read_fingerprint(table, cache=cache).rows == 50


@pytest.mark.parametrize(
    ("name", "cells", "kind"),
    [
        ("subject", [f"s{row // 2}" for row in range(60)], "identifier"),
        ("eid", [1000 + row for row in range(60)], "identifier"),
        ("id", [row // 2 for row in range(60)], "identifier"),
        ("weight_code", [100 + row for row in range(60)], "identifier"),
        ("weight", [100 + row for row in range(60)], "positive"),
        ("id", [100.5 + row for row in range(60)], "positive"),
        ("drug_name", ["abc"[row % 3] for row in range(60)], "categorical"),
        ("scan", [f"a/{row}.nii.gz" for row in range(60)], "images"),
        ("score", [row % 3 for row in range(60)], "count"),
    ],
)
def test_identifiers_are_told_from_variables(
    name: str, cells: list[object], kind: str, tmp_path: Path
) -> None:
    others: dict[str, list[object]] = {"participant_id": [1] * 60, "session": list(range(60))}
    table = write_people(tmp_path / "people.csv", **others | {name: cells, "id_of": range(60)})
    columns = read_fingerprint(table, identifier="id_of").columns
    assert next(each.kind for each in columns if each.name == name) == kind


def test_visits_are_found_by_name(tmp_path: Path) -> None:
    rows = 60
    visits = {
        "participant_id": [f"sub-{row // 2:03d}" for row in range(rows)],
        "session": [row % 2 + 1 for row in range(rows)],
    }
    found = read_fingerprint(write_people(tmp_path / "people.csv", **visits))
    assert (found.identifier, found.units, found.visits) == ("participant_id", 30, ("session",))


def test_splits_of_the_table_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_people(tmp_path / "people.csv", part=["train"] * 40 + ["validation", "test"] * 10)
    assert main(["init", "people.csv", "--graph", "age -> sex", "--no_dry_run"]) == 0
    settings = yaml.safe_load((tmp_path / "experiment.yaml").read_text("utf-8"))
    assert settings["data"]["init_args"]["splits"] == {"column": "part"}
