"""Leakage between splits, duplicate images, overlap before a training, and the whole check."""

from __future__ import annotations

import pytest
import torch

from deepscm_pl.data import CausalDataModule, SourceSplits
from deepscm_pl.evaluation.check import CheckSettings, check
from deepscm_pl.evaluation.data_check import (
    check_leakage,
    check_overlap,
    find_duplicates,
    independent_table,
)
from deepscm_pl.mechanisms import AffineFlow
from deepscm_pl.scm import StructuralCausalModel

from tiny import draw, image_mechanism


class Bars(CausalDataModule):
    """The bars of ``tiny``, with chosen copies and units.

    Args:
        copies: Rows of the test split that are replaced by rows of the training split.
        noise: Largest change of a grey level of copied images.
        units: Whether rows have units, of two rows each.
    """

    def __init__(self, copies: int = 0, noise: float = 0.0, units: bool = False) -> None:
        super().__init__(batch_size=16, validation_size=20)
        self.copies, self.noise, self.units_of_two = copies, noise, units

    def load(self) -> SourceSplits:
        train, test = draw(80, seed=1), draw(40, seed=2)
        generator = torch.Generator().manual_seed(0)
        for each in (train, test):
            blur = 30 * torch.rand(each["image"].shape, generator=generator)
            each["image"] = (each["image"] * 0.8 + blur).byte()
            each["sex"] = (each["thickness"] > 3).float()
        kept, _ = self.divide(80)
        for k in range(self.copies):
            for name, values in train.items():
                test[name][k] = values[kept[k]]
            change = (torch.rand(test["image"][k].shape, generator=generator) - 0.5) * 2
            changed = test["image"][k].float() + self.noise * change
            test["image"][k] = changed.clamp(0, 255).byte()
            if self.noise:
                test["thickness"][k] += 0.01
        return SourceSplits(train=train, test=test)

    def identifiers(self, split):
        if not self.units_of_two:
            return None
        first = 0 if split != "test" else 40 - self.copies
        rows = self.variables(split)["index"].flatten()
        return [f"unit {int(row) // 2 + first}" for row in rows]


GRAPH = "thickness -> intensity; thickness, intensity -> image"


def model(graph: str = GRAPH, **more) -> StructuralCausalModel:
    mechanisms = {"thickness": AffineFlow, "intensity": AffineFlow, "image": image_mechanism()}
    return StructuralCausalModel(graph, {**mechanisms, **more})


def test_independent_splits_leak_nothing():
    found = check_leakage(Bars(), ["thickness", "intensity", "image"])
    assert found.units is None
    assert not found.rows
    assert found.verdict == "none: no row is in more than one split"


def test_equal_rows_of_two_splits_are_named():
    found = check_leakage(Bars(copies=2), ["thickness", "intensity", "image"])
    assert len(found.rows) == 2
    assert {each.split for each in found.rows[0]} == {"train", "test"}
    assert found.verdict.startswith("leak: 2 rows of one split are also in another (train row ")


def test_equal_rows_of_few_values_are_expected():
    found = check_leakage(Bars(), ["sex"])
    assert found.verdict.startswith("unknown: only 0% of the rows differ")


def test_units_in_two_splits_are_named():
    data = Bars(units=True)
    found = check_leakage(data, ["thickness"])
    # Training and validation are divided by row.
    shared = set(data.identifiers("train")) & set(data.identifiers("validation"))
    assert shared
    assert set(found.units) == shared
    assert found.verdict.startswith(f"leak: {len(shared)} units are in more than one split (unit ")


def test_only_the_first_row_of_a_unit_is_tested():
    data = Bars(units=True)
    units = {unit for split in ("train", "validation", "test") for unit in data.identifiers(split)}
    assert len(independent_table(data, model())) == len(units)
    assert len(independent_table(Bars(), model())) == 120


def test_equal_images_are_found_and_cross_splits():
    found = find_duplicates(Bars(copies=2), "image", progress=False)
    assert len(found.exact) == 2
    assert found.across == 2
    assert "2 groups of equal images" in found.verdict
    assert found.verdict.endswith("2 of them extend over two splits")


def test_nearly_equal_images_are_found():
    found = find_duplicates(Bars(copies=3, noise=3), "image", progress=False)
    assert not found.exact
    assert {frozenset(str(row) for row in pair) for pair in found.near} == {
        frozenset((f"train row {k}", f"test row {k}")) for k in range(3)
    }


def test_similar_images_are_no_duplicates():
    assert find_duplicates(Bars(), "image", progress=False).verdict.startswith("none: no two of 12")


def test_images_of_one_unit_are_no_duplicates():
    class SameUnit(Bars):
        def identifiers(self, split):
            return ["one"] * len(self.variables(split)["index"])

    for data in (SameUnit(copies=2), SameUnit(copies=2, noise=3)):
        found = find_duplicates(data, "image", progress=False)
        assert not found.exact
        assert not found.near


@pytest.mark.parametrize("fitted", [False, True])
def test_questions_beyond_the_training_split_are_extrapolated(fitted):
    scm, data = model(), Bars()
    if fitted:
        scm.fit(data.variables("train"))
    near, far = check_overlap(data, scm, ["thickness=3", "thickness=30"])
    assert near.counts["extrapolated"] == 0
    assert far.counts["extrapolated"] == 40
    assert far.verdict.startswith("extrapolated: 40 of 40 rows")
    assert bool(scm.fitted) == fitted


def test_a_question_about_an_image_is_refused():
    with pytest.raises(ValueError, match="expected interventions on thickness, intensity"):
        check_overlap(Bars(), model(), ["image=3"])
    with pytest.raises(ValueError, match="thicknes"):
        check_overlap(Bars(), model(), ["thicknes=3"])


def test_before_a_training_all_but_the_noise_is_checked():
    settings = CheckSettings(["thickness=3"], permutations=3)
    found = check(model(), Bars(copies=1), settings, progress=False)
    assert found.graph is not None
    assert found.graph.is_consistent is None  # complete
    assert list(found.verdicts) == [
        "graph, independences", "graph, edges", "graph, alternatives", "leakage",
        "duplicates of image", "do(thickness = 3)",
    ]  # fmt: skip
    assert found.has_findings
    assert any(text.startswith("The noise") for text in found.left_out)


def test_after_a_training_the_noise_is_tested():
    scm, data = model(), Bars()
    scm.fit(data.variables("train"))
    found = check(scm, data, CheckSettings(permutations=0), progress=False)
    # The model was fitted to means only, so its noise is correlated with the parent.
    assert found.verdicts["noise"].startswith("not normal: ")
    assert "intensity with thickness" in found.verdicts["noise"]


def test_a_variable_that_the_data_lack_is_named():
    scm = StructuralCausalModel(
        "thickness -> weight", {"thickness": AffineFlow, "weight": AffineFlow}
    )
    with pytest.raises(ValueError, match=r"graph: expected variables of the data.*but got weight"):
        check(scm, Bars(), progress=False)


def test_one_scalar_is_no_graph_to_test():
    scm = StructuralCausalModel("thickness", {"thickness": AffineFlow})
    found = check(scm, Bars(), progress=False)
    assert found.graph is None
    assert "fewer than two variables" in found.left_out[0]


def test_few_rows_are_refused():
    class Short(Bars):
        def load(self):
            found = super().load()
            test = {name: each[:3] for name, each in found.test.items()}
            train = {name: each[:24] for name, each in found.train.items()}
            return SourceSplits(train, test)

    with pytest.raises(ValueError, match="rows: expected at least 30 independent rows"):
        check(model(), Short(), progress=False)
