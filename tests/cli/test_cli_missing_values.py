"""A table with empty cells, from a training to questions about rows with empty cells."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import yaml

from deepscm_pl import load
from deepscm_pl.cli.main import main


def write_table(path, rows=120):
    generator = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["name", "age", "sex", "volume"])
        for row in range(rows):
            age, male = generator.uniform(40, 80), generator.random() < 0.5
            volume = 900 - 4 * age + 80 * male + 10 * generator.standard_normal()
            cells = [f"{age:.1f}", "male" if male else "female", f"{volume:.1f}"]
            if row % 4 == 1:
                cells[row // 4 % 3] = "" if row % 8 == 1 else "NA"
            table.writerow([f"s{row}", *cells])


def flow(**settings):
    return {"class_path": "deepscm_pl.mechanisms.AffineFlow", "init_args": settings}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_table(folder / "table.csv")
    positive = "deepscm_pl.transforms.Positive"
    configuration = {
        "seed_everything": 0,
        "model": {
            "graph": "age, sex -> volume",
            "mechanisms": {
                "age": flow(constraint=positive),
                "sex": {"class_path": "deepscm_pl.mechanisms.Bernoulli"},
                "volume": flow(constraint=positive),
            },
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.05}},
        },
        "data": {
            "class_path": "deepscm_pl.data.TableDataModule",
            "init_args": {
                "root": str(folder),
                "table": {"identifier": "name", "missing": "infer"},
                "batch_size": 32,
            },
        },
    }
    (folder / "fit.yaml").write_text(yaml.safe_dump(configuration))
    words = ["fit", "--config", str(folder / "fit.yaml"), "--trainer.max_epochs", "20"]
    words += ["--trainer.default_root_dir", str(folder), "--evaluation.enabled", "false"]
    assert main([*words, "--trainer.accelerator", "cpu"]) == 0
    return folder


def ask(folder, table, out, *words):
    (folder / f"{out}.csv").write_text(table)
    checkpoint = next(folder.rglob("last.ckpt"))
    given = ["counterfactual", "--ckpt_path", str(checkpoint), "--do", "age+=5"]
    given += ["--observations", str(folder / f"{out}.csv"), "--out", str(folder / out)]
    status = main([*given, "--num_particles", "8", *words])
    if status:
        return status, []
    with (folder / out / "answers.csv").open(newline="", encoding="utf-8") as file:
        return status, list(csv.DictReader(file))


def test_empty_cells_of_observations_are_inferred(folder, capsys):
    table = "name,age,sex,volume\na,60,,740\nb,,female,700\nc,60,male,740\n"
    status, rows = ask(folder, table, "asked")
    assert status == 0
    printed = capsys.readouterr().out
    assert "missing values: age of asked.csv 1, sex of asked.csv 0 inferred" in printed
    factual = [row for row in rows if row["intervention"] == "factual"]
    assert [row["sex"] for row in factual] == ["", "female", "male"]
    assert [row["age"] for row in factual] == ["60", "", "60"]
    answers = [row for row in rows if row["intervention"] != "factual"]
    assert {row["sex"] for row in answers} <= {"female", "male"}
    assert all(float(row["age"]) > 0 and float(row["volume"]) > 0 for row in answers)
    changes = {row["name"]: row["age_change"] for row in answers}
    assert changes == {"a": "5", "b": "", "c": "5"}
    known = [row["sex"] for row in answers if row["name"] != "a"]
    assert set(known) == {"female", "male"}


def test_words_that_are_no_numbers_are_still_refused(folder, capsys):
    status, _ = ask(folder, "name,age,sex,volume\na,old,male,740\n", "refused")
    assert status == 1
    assert "expected a number, but got 'old'" in capsys.readouterr().err
    status, _ = ask(folder, "name,age,sex,volume\na,60,other,740\n", "refused")
    assert status == 1
    assert "expected one of female, male, but got 'other'" in capsys.readouterr().err


def test_a_frame_with_missing_cells_is_answered(folder):
    import pandas as pd

    model = load(next(folder.rglob("last.ckpt")))
    assert set(model.scm.missing_values.names) == {"age", "sex", "volume"}
    frame = pd.DataFrame({"age": [60.0, None], "sex": ["male", None], "volume": [740.0, 700.0]})
    answer = model.counterfactual(frame, "volume+=10", num_particles=5, seed=0)
    assert {name: mask.tolist() for name, mask in answer.inferred.items()} == {
        "age": [False, True],
        "sex": [False, True],
    }
    assert answer["age"][:, 0].unique().tolist() == [60.0]
    assert len(answer["age"][:, 1].unique()) > 1
    assert "Missing values are inferred" in repr(answer)
    assert answer.to_frame().notna()[["age", "sex", "volume"]].all().all()
