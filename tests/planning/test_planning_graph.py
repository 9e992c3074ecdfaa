"""Graphs are stated in the names of columns; what does not fit is named."""

from __future__ import annotations

import pytest

from deepscm_pl.planning import ColumnFingerprint, Fingerprint
from deepscm_pl.planning.pictures import ImageFingerprint
from deepscm_pl.planning.wanted_graph import read_graph

IMAGES = ImageFingerprint(
    "{file}", 300, 60, (64, 64), 1, (64, 64), 3, "uint8", 0.0, 255.0, (".png",)
)


def column(name: str, kind: str = "positive", variable: str | None = None) -> ColumnFingerprint:
    return ColumnFingerprint(name, variable or name, kind, "a reason", 300, 0, 100, 1.0, 9.0)


def data(*columns: ColumnFingerprint, images: ImageFingerprint | None = None) -> Fingerprint:
    return Fingerprint("people.csv", 1, 1, 300, columns, images)


PEOPLE = data(
    column("age"),
    column("sex", "binary"),
    column("Brain volume (ml)", variable="Brain_volume"),
    column("height, cm", variable="height_cm"),
    column("id", "identifier"),
    column("born", "date"),
    column("file", "images"),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age, sex -> Brain volume (ml)", "age; sex; age, sex -> Brain_volume"),
        ("age -> sex -> Brain_volume", "age; age -> sex; sex -> Brain_volume"),
        ("age -> 'height, cm'; sex", "age; age -> height_cm; sex"),
        ('age → "height, cm"\nsex\n', "age; age -> height_cm; sex"),
        ("age -> `height, cm`;; age -> sex;", "age; age -> height_cm; age -> sex"),
        ("age -> sex; age -> sex", "age; age -> sex"),
    ],
)
def test_reads_names_of_columns_and_of_variables(text: str, expected: str) -> None:
    assert str(read_graph(text, PEOPLE)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["expected the causes that you assume", "--graph", "age, sex ->", "Brain volume"]),
        ("  ", ["expected the causes that you assume"]),
        ("agee -> sex", ["no column 'agee'", "did you mean 'age'", "people.csv"]),
        ("id -> sex", ["the column 'id'", "cannot be a variable: identifier (a reason)"]),
        ("born -> sex", ["the column 'born'", "date"]),
        ("file -> sex", ["'file'", "names of image files", "--images file"]),
        ("age -> image", ["only with --images"]),
        ("age -> sex -> age", ["cycle"]),
        ("age -> age", ["its own parent"]),
        ("-> age", ["expected a name before '->'"]),
        ("age ->", ["expected a name before 'the end'"]),
        ("age,, sex -> Brain_volume", ["expected a name before ','"]),
        ("age -> 'height, cm", ["is not closed"]),
    ],
)
def test_names_what_does_not_fit(text: str | None, words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^graph: ") as error:
        read_graph(text, PEOPLE)
    assert [word for word in words if word not in str(error.value)] == []
    assert "\n" not in str(error.value)


def test_images_need_a_place_in_the_graph() -> None:
    shapes = data(column("size"), column("kind", "categorical"), images=IMAGES)
    assert read_graph("kind, size -> image", shapes).parents["image"] == ("kind", "size")
    with pytest.raises(ValueError, match="expected the causes of image"):
        read_graph("kind -> size", shapes)
    with pytest.raises(ValueError, match="size, kind -> image"):
        read_graph(None, shapes)


def test_the_example_is_a_graph_that_can_be_read() -> None:
    for given in (PEOPLE, data(column("a"), images=IMAGES), data(column("a"), column("b"))):
        with pytest.raises(ValueError, match="--graph") as error:
            read_graph(None, given)
        example = str(error.value).split("--graph ")[1].split("'")[1]
        assert read_graph(example.removesuffix("; ..."), given).edges
