"""Splits are by subject, repeatable, of the shares asked for, and balanced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepscm_pl.data.scans.cohort import divide_subjects
from deepscm_pl.data.tables import Table

from scan_folders import make, write_folder

FRACTIONS = (0.7, 0.1, 0.2)


def table(size=200, visits=2, seed=0):
    generator = np.random.default_rng(seed)
    subjects = np.repeat([f"{n:03d}" for n in range(size)], visits)
    sex = np.repeat(generator.integers(0, 2, size), visits)
    age = np.repeat(generator.normal(60, 10, size), visits)
    columns = {"id": subjects, "sex": sex.astype(str), "age": age.astype(str)}
    return Table(Path("t.csv"), {n: c.astype(object) for n, c in columns.items()}, "id")


@pytest.mark.parametrize("seed", range(20))
def test_no_subject_is_in_two_splits(seed):
    subjects = table()
    splits = divide_subjects(subjects, FRACTIONS, seed)
    of_subject = {}
    for subject, split in zip(subjects["id"], splits, strict=True):
        assert of_subject.setdefault(subject, split) == split
    counts = np.bincount(list(of_subject.values()))
    np.testing.assert_allclose(counts, [140, 20, 40], atol=1)


def test_splits_depend_on_the_seed_and_the_subjects_alone():
    subjects = table()
    first = divide_subjects(subjects, FRACTIONS, 3)
    assert np.array_equal(first, divide_subjects(subjects, FRACTIONS, 3))
    assert not np.array_equal(first, divide_subjects(subjects, FRACTIONS, 4))
    order = np.random.default_rng(1).permutation(len(subjects))
    mixed = Table(subjects.path, {n: c[order] for n, c in subjects.columns.items()}, "id")
    assert np.array_equal(divide_subjects(mixed, FRACTIONS, 3), first[order])
    np.random.seed(1)
    expected = np.random.rand()
    np.random.seed(1)
    divide_subjects(subjects, FRACTIONS, 3)
    assert np.random.rand() == expected


@pytest.mark.parametrize("seed", range(10))
def test_stratified_splits_are_balanced(seed):
    subjects = table(visits=1)
    splits = divide_subjects(subjects, FRACTIONS, seed, ["sex", "age"])
    age = subjects["age"].astype(float)
    quarter = np.searchsorted(np.quantile(age, [0.25, 0.5, 0.75]), age)
    strata = 4 * (subjects["sex"] == "1") + quarter
    for stratum in range(8):
        inside = splits[strata == stratum]
        shares = np.bincount(inside, minlength=3)
        np.testing.assert_allclose(shares, np.array(FRACTIONS) * len(inside), atol=2)


def test_unstratified_splits_are_not_as_balanced():
    subjects = table(visits=1)
    male = subjects["sex"] == "1"
    errors = {}
    for stratify in ([], ["sex"]):
        splits = [divide_subjects(subjects, FRACTIONS, seed, stratify) for seed in range(20)]
        shares = [(each[male] == 0).mean() - 0.7 for each in splits]
        errors[len(stratify)] = np.abs(shares).mean()
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.5, 0.5, 0.0), (0.5, 0.4, 0.2), (1.2, 0.1, -0.3)]
)
def test_fractions_that_are_no_shares(tmp_path, fractions):
    with pytest.raises(ValueError, match="fractions: expected three positive shares"):
        make(tmp_path, fractions=fractions)


def test_too_few_subjects():
    with pytest.raises(
        ValueError, match=r"fractions: 4 subjects .* validation and test would have"
    ):
        divide_subjects(table(4), (0.9, 0.05, 0.05), 0)


def test_the_module_divides_by_its_seed(tmp_path):
    write_folder(tmp_path, size=20)
    columns = ["age", "sex"]
    found = [
        make(tmp_path, split_column=None, columns=columns, split_seed=seed).identifiers("test")
        for seed in (1, 1, 2)
    ]
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 2
