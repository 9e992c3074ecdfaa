"""Limits of plans: what a number of rows, a share of gaps or a class changes, and where."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from test_planning_plan import column, data, images

from deepscm_pl.data.tables import read_table
from deepscm_pl.graph import CausalGraph
from deepscm_pl.planning import Fingerprint, Form, choose_forms, make_plan, read_fingerprint
from deepscm_pl.planning.columns import describe_column, variable_name
from deepscm_pl.planning.commented import commented_yaml
from deepscm_pl.planning.forms import _folds
from deepscm_pl.planning.network import image_mechanism, image_shape, preprocessing
from deepscm_pl.planning.scalars import scalar_mechanism


def numbers(name, **settings):
    return column(name, "continuous", **{"lowest": -1.0, "highest": 1.0} | settings)


def planned(rows=400, graph="x -> y", columns=None, **settings):
    """The settings and the notes of a plan."""
    columns = columns or (numbers("x"), numbers("y"))
    given = {"units": rows} | settings
    return make_plan(Fingerprint("t.csv", 1, 1, rows, tuple(columns), **given), graph)


def table_of(plan):
    return plan.settings["data"]["init_args"]["table"]


def splits_of(plan):
    return plan.settings["data"]["init_args"]["splits"]


@pytest.mark.parametrize(
    ("gaps", "wanted"),
    [((0, 0), "refuse"), ((10, 10), "drop"), ((11, 10), "infer"), ((0, 21), "infer")],
)
def test_gaps_are_dropped_up_to_a_twentieth_of_the_rows(gaps, wanted):
    columns = [numbers(name, missing=gap) for name, gap in zip("xy", gaps, strict=True)]
    plan = planned(400, columns=columns)
    assert table_of(plan)["missing"] == wanted
    reason = plan.reasons["data.init_args.table.missing"]
    assert all(f"{gap} of {n}" in reason for n, gap in zip("xy", gaps, strict=True) if gap)


def test_only_variables_of_the_graph_count_as_gaps_and_are_in_the_table():
    columns = [numbers("x"), numbers("y"), numbers("z", missing=390)]
    plan = planned(400, columns=columns)
    assert table_of(plan)["missing"] == "refuse"
    assert list(table_of(plan)["columns"]) == list(table_of(plan)["kinds"]) == ["x", "y"]


def test_units_and_not_rows_determine_the_shares_of_the_splits():
    assert splits_of(planned(2000, units=999))["fractions"] == [0.7, 0.15, 0.15]
    assert splits_of(planned(2000, units=1000))["fractions"] == [0.8, 0.1, 0.1]


def test_splits_are_stratified_by_the_two_rarest_classes():
    classes = [
        column(name, "binary", levels=("a", "b"), distinct=2, rarest=rarest)
        for name, rarest in (("often", 150), ("seldom", 20), ("rare", 6))
    ]
    plan = planned(400, "often, seldom, rare -> x", [*classes, numbers("x")])
    assert splits_of(plan)["stratify"] == ["rare", "seldom"]
    assert "stratify" not in splits_of(planned())


def test_few_rows_and_rare_classes_are_noted():
    # Of 285 and of 286 rows, 200 and 201 are for training.
    assert any("rows are few" in note for note in planned(284).notes)
    assert not any("rows are few" in note for note in planned(287).notes)
    for rarest, is_noted in ((4, True), (5, False)):
        sex = column("s", "binary", levels=("a", "b"), distinct=2, rarest=rarest)
        notes = planned(400, "s -> x", [sex, numbers("x")]).notes
        assert any(f"has only {rarest} rows" in note for note in notes) == is_noted


@pytest.mark.parametrize(
    ("rows", "batch", "steps"),
    [(20, 14, 1000), (1000, 32, 1000), (5000, 128, 2000), (50_000, 512, 4000)],
)
def test_batches_and_epochs_follow_the_training_rows(rows, batch, steps):
    plan = planned(rows)
    trainer, batch_size = plan.settings["trainer"], plan.settings["data"]["init_args"]["batch_size"]
    training = round(splits_of(plan)["fractions"][0] * rows)
    batches = -(-training // batch_size)
    assert batch_size == batch
    assert trainer["max_epochs"] == max(10, -(-steps // batches))
    assert f"{batches} batches" in plan.reasons["data.init_args.batch_size"]
    checks = trainer["max_epochs"] // trainer["check_val_every_n_epoch"]
    assert 10 <= checks < 100
    # Early stopping waits for a third of the validations.
    patience = trainer["callbacks"][0]["init_args"]["patience"]
    assert checks / 3 - 1 <= patience <= checks / 3 + 2


def test_a_column_of_splits_determines_the_training_rows():
    part = column("part", "splits", levels=("test", "train", "validation"))
    plan = planned(400, columns=[numbers("x"), numbers("y"), part], training_rows=90)
    assert splits_of(plan) == {"column": "part"}
    assert "3 batches in an epoch of 90 training rows" in plan.reasons["data.init_args.batch_size"]
    # 90 rows are too few for a network.
    assert plan.settings["model"]["mechanisms"]["y"]["init_args"]["hidden"] == []


@pytest.mark.parametrize(("rows", "warmup", "weight"), [(4000, 400, 1.0), (40_000, 3000, 0.5)])
def test_an_image_has_its_own_rates_and_objective(rows, warmup, weight):
    plan = planned(rows, "x -> image", [numbers("x")], images=images(28, 28))
    model = plan.settings["model"]
    assert model["objective"]["init_args"] == {"warmup_steps": warmup, "divergence_weight": weight}
    assert model["optimizer"]["init_args"]["lr"] == 1e-3
    assert model["learning_rates"] == {"x": 3e-3}
    assert ("callbacks" in plan.settings["trainer"]) == (weight == 1)
    assert planned(rows).settings["model"]["optimizer"]["init_args"]["lr"] == 3e-3
    assert "objective" not in planned(rows).settings["model"]


# Mechanisms.


def chosen(kind, rows=400, has_parents=True, **settings):
    found, reasons = scalar_mechanism(column("y", kind, **settings), has_parents, rows)
    return (
        (found if isinstance(found, str) else found["class_path"]).rpartition(".")[2],
        found,
        (reasons),
    )


def test_zeros_need_a_lowest_value_of_zero():
    zeros = {"zeros": 0.1, "most_frequent": 0.1, "highest": 9.0}
    assert chosen("continuous", lowest=0.0, **zeros)[0] == "ZeroInflatedFlow"
    assert chosen("continuous", lowest=-1.0, **zeros)[0] == "SplineFlow"
    assert chosen("continuous", lowest=0.0, **zeros | {"zeros": 0.09})[0] == "SplineFlow"


def test_numbers_that_repeat_are_stepped():
    stepped = {"lowest": 1.0, "highest": 30.0, "step": 0.5}
    assert chosen("positive", distinct=20, **stepped)[0] == "SteppedFlow"
    assert chosen("positive", distinct=21, **stepped)[0] == "SplineFlow"
    assert chosen("positive", distinct=21, most_frequent=0.1, **stepped)[0] == "SteppedFlow"
    # 20 different values in 50 rows do not repeat.
    for rows, name in ((60, "SteppedFlow"), (59, "SplineFlow")):
        few = column("y", "positive", distinct=20, rows=rows, **stepped)
        assert scalar_mechanism(few, True, 400)[0]["class_path"].endswith(name)
    # Zeros that are frequent are no steps.
    many = stepped | {"lowest": 0.0, "zeros": 0.3, "most_frequent": 0.3}
    assert chosen("positive", distinct=60, **many)[0] == "ZeroInflatedFlow"


def constraint_of(found):
    arguments = found["init_args"]
    return (arguments["flow"]["init_args"] if "flow" in arguments else arguments)["constraint"]


def test_scores_have_every_value_of_their_scale_and_end_above_the_highest():
    score = {"lowest": 1.0, "highest": 5.0, "step": 1.0}
    _, found, reasons = chosen("count", distinct=5, **score)
    assert constraint_of(found)["init_args"] == {"low": 1.0, "high": 6.0}
    assert any("scores from 1 to 5" in reason for reason in reasons.values())
    _, found, _ = chosen("count", distinct=4, **score)
    assert constraint_of(found) == "deepscm_pl.transforms.Positive"
    _, found, _ = chosen("count", distinct=11, **score | {"highest": 11.0})
    assert constraint_of(found) == "deepscm_pl.transforms.Positive"


def test_bounds_are_wider_only_where_a_value_is_on_them():
    _, found, _ = chosen("bounded", lowest=0.0, highest=0.9)
    assert constraint_of(found)["init_args"] == {"low": -0.001, "high": 1.0}
    _, found, _ = chosen("bounded", lowest=0.1, highest=1.0)
    assert constraint_of(found)["init_args"] == {"low": 0.0, "high": 1.001}


def test_networks_grow_with_the_rows():
    hidden = {
        rows: chosen("continuous", rows, lowest=-1.0, highest=1.0)[1]["init_args"]["hidden"]
        for rows in (99, 100, 4999, 5000)
    }
    assert hidden == {99: [], 100: [16, 16], 4999: [16, 16], 5000: [32, 32]}
    root = chosen("continuous", has_parents=False, lowest=-1.0, highest=1.0)[1]
    assert "hidden" not in root["init_args"]
    names = {rows: chosen("continuous", rows, lowest=-1.0)[0] for rows in (99, 100)}
    assert names == {99: "AffineFlow", 100: "SplineFlow"}


# Columns.


def described(tmp_path, name, cells):
    path = tmp_path / "t.csv"
    path.write_text("\n".join([name, *map(str, cells)]) + "\n", "utf-8")
    return describe_column(read_table(path), name, name)


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([1, 2, 4], 1.0),
        ([1.5, 3, 8], 0.5),
        ([0.3, 2.5], 0.1),
        ([0.15, 4.0], 0.05),
        ([0.01, 0.5], 0.01),
        ([0.123, 4], None),
    ],
)
def test_the_step_of_numbers_is_the_largest_that_divides_all(tmp_path, values, step):
    rng = np.random.default_rng(0)
    cells = np.concatenate([[-30.0], rng.choice(values, 60)])
    found = described(tmp_path, "v", cells.tolist())
    assert found.step == step
    _, counts = np.unique(cells, return_counts=True)
    assert found.rarest == counts.min() == 1
    assert found.most_frequent == pytest.approx(counts.max() / 61)
    assert (found.lowest, found.highest) == (-30.0, max(values))


def test_few_rows_are_not_identifiers(tmp_path):
    assert described(tmp_path, "id", [f"s{k}" for k in range(10)]).kind != "identifier"
    assert described(tmp_path, "id", [f"s{k}" for k in range(11)]).kind == "identifier"
    # Numbers with a fraction are none.
    assert described(tmp_path, "id", [100.5 + k for k in range(60)]).kind == "positive"


def test_identifiers_that_repeat_are_more_than_a_twentieth_of_the_rows(tmp_path):
    for different, kind in ((25, "positive"), (26, "identifier")):
        cells = [1 + row % different for row in range(500)]
        assert described(tmp_path, "subject_id", cells).kind == kind


def test_every_variable_has_its_own_name():
    taken = []
    for _ in range(4):
        taken.append(variable_name("age", taken)[0])
    assert taken == ["age", "age_2", "age_3", "age_4"]


# Fingerprints.


def write(path, rows=30, **columns):
    names = {"x": range(rows), "y": [0.5 * k * k for k in range(rows)]} | columns
    lines = [
        ",".join(names),
        *(",".join(map(str, row)) for row in zip(*names.values(), strict=True)),
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_a_cached_fingerprint_is_of_the_same_state_and_options(tmp_path: Path):
    columns = {
        "pid": [f"p{k // 2}" for k in range(30)],
        "session": [1, 2] * 15,
        "other": [f"o{k}" for k in range(30)],
    }
    table, cache = write(tmp_path / "t.csv", **columns), tmp_path / "c.json"
    first = read_fingerprint(table, identifier="other", cache=cache)
    assert first.identifier == "other"
    assert read_fingerprint(table, identifier="pid", cache=cache).identifier == "pid"
    assert read_fingerprint(table, identifier="other", cache=cache) == first
    again = read_fingerprint(table, identifier="pid", visits=["session"], cache=cache)
    assert (again.identifier, again.units, again.visits) == ("pid", 15, ("session",))
    assert read_fingerprint(table, encoding="latin-1", cache=cache).encoding == "latin-1"
    words = ["", "9"]
    found = read_fingerprint(table, identifier="other", missing_words=words, cache=cache)
    assert next(each for each in found.columns if each.name == "x").missing == 1
    # A table of the same size that was written later.
    assert read_fingerprint(table, identifier="other", cache=cache) == first
    os.utime(table, ns=(1, 1))
    assert read_fingerprint(table, identifier="other", cache=cache).modified == 1


def test_a_variable_and_an_image_are_enough(tmp_path: Path):
    from PIL import Image

    for k in range(30):
        Image.fromarray(np.full((8, 8), k, dtype=np.uint8)).save(tmp_path / f"{k}.png")
    path = tmp_path / "t.csv"
    path.write_text("x,file\n" + "".join(f"{0.5 * k * k},{k}.png\n" for k in range(30)), "utf-8")
    assert read_fingerprint(path, images="file").images.files == 30
    with pytest.raises(ValueError, match="expected at least two columns that can be variables"):
        read_fingerprint(path)


def test_training_rows_are_those_of_the_training_split(tmp_path: Path):
    part = ["train"] * 18 + ["validation"] * 5 + ["test"] * 7
    assert read_fingerprint(write(tmp_path / "t.csv", part=part)).training_rows == 18
    part = ["train"] * 18 + ["test"] * 12
    assert read_fingerprint(write(tmp_path / "t.csv", part=part)).training_rows is None


# Images.


def test_slices_have_rows_from_front_to_back():
    assert image_shape(images(100, 200, 50)) == (1, 64, 32)
    assert image_shape(images(40, 32, 20)) == (1, 40, 32, 20)
    assert image_shape(images(200, 100)) == (1, 64, 32)


def test_sixteen_bits_that_are_used_are_one_scale():
    for highest, wanted in ((2**15, "window"), (2**15 + 1, "depth")):
        steps, _ = preprocessing(images(28, 28, type="uint16", highest=float(highest)))
        assert steps["normalisation"] == wanted


def test_channels_double_with_each_halving_and_the_decoder_is_the_reverse():
    found, reasons = image_mechanism(images(64, 64), 400)
    encoder, decoder = (found["init_args"][name]["init_args"] for name in ("encoder", "decoder"))
    assert encoder["channels"] == decoder["channels"][::-1] == [8, 16, 32, 64]
    assert any("halved 4 times" in reason for reason in reasons.values())
    found, _ = image_mechanism(images(32, 32, 32), 6000)
    assert found["init_args"]["encoder"]["init_args"]["channels"] == [16, 32, 64]


# Forms.


def test_rows_are_held_out_once_in_three_folds_or_a_quarter():
    folds = _folds(999)
    assert len(folds) == 3
    assert torch.stack([held for _, held in folds]).sum(dim=0).tolist() == [1] * 999
    ((fitted, held),) = _folds(1000)
    assert (int(fitted.sum()), int(held.sum())) == (750, 250)
    assert not bool((fitted & held).any())


def test_a_form_that_gains_by_chance_is_not_chosen():
    flow = {"class_path": "deepscm_pl.mechanisms.AffineFlow", "init_args": {}}
    chosen_forms = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        x, u = torch.randn(2, 150, 1, generator=generator, dtype=torch.float64)
        values = {"x": x, "y": u}
        found = choose_forms(CausalGraph("x -> y"), {"x": flow, "y": flow}, values)
        chosen_forms.append(found["y"].form)
    assert chosen_forms == [Form((), True)] * 3


def test_forms_are_compared_row_by_row():
    flow = {"class_path": "deepscm_pl.mechanisms.AffineFlow", "init_args": {}}
    generator = torch.Generator().manual_seed(0)
    x, u = torch.randn(2, 1000, 1, generator=generator, dtype=torch.float64)
    values = {"x": x, "y": 0.35 * x**2 + u}
    found = choose_forms(CausalGraph("x -> y"), {"x": flow, "y": flow}, values)["y"]
    # A gain of 0.1 nats, far smaller than the differences among rows.
    assert found.form.hidden == (16, 16)


# Text.


@pytest.mark.parametrize("excess", [0, 1])
def test_a_comment_is_at_the_end_of_lines_of_a_hundred_characters(excess):
    reason = "r" * (100 - len("key: 1  # ") + excess)
    lines = commented_yaml({"key": 1}, {"key": reason}).splitlines()
    assert len(lines) == 1 + excess
    assert max(map(len, lines)) <= 100


def test_causes_of_several_statements_add_up():
    columns = [numbers(name) for name in "abc"]
    plan = make_plan(data(*columns), "a -> c; b -> c; a -> c")
    assert CausalGraph(plan.settings["model"]["graph"]).parents["c"] == ("a", "b")
