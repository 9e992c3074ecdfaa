"""Configurations in several files: how they merge, their bases, and errors that name the line."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import yaml

from deepscm_pl.cli import main
from deepscm_pl.cli.configurations import Configuration, merge_settings
from deepscm_pl.cli.words import split_configurations

from tiny import CONFIGURATION

CLASS = {"class_path": "X", "init_args": {"p": 1, "q": {"r": [1, 2]}}}
SETTINGS = [
    {},
    {"a": 1, "b": {"c": [1, 2], "d": "x"}},
    {"b": {"c": [3]}, "z": {"f": 2.5}},
    {"b": {"d": "y", "g": {"h": True}}},
    {"e": CLASS},
    {"e": {"init_args": {"p": 2, "s": 3}}},
    {"e": {"class_path": "X", "init_args": {"q": {"r": [3]}}}},
]
"""Settings in which no class changes, nothing is removed, and no mapping becomes a plain value."""


@pytest.mark.parametrize("settings", [*SETTINGS, {"a": None}, {"a": "Y"}, CLASS])
def test_nothing_is_the_identity_and_a_repetition_changes_nothing(settings):
    assert merge_settings({}, settings) == settings
    assert merge_settings(settings, {}) == settings
    assert merge_settings(settings, settings) == settings


@pytest.mark.parametrize("three", list(itertools.permutations(SETTINGS, 3)))
def test_merging_is_associative_where_no_class_changes(three):
    first, second, third = three
    left = merge_settings(merge_settings(first, second), third)
    assert left == merge_settings(first, merge_settings(second, third))


def test_what_is_merged_stays_as_it_was():
    base, overlay = copy.deepcopy(SETTINGS[1]), copy.deepcopy(SETTINGS[2])
    merge_settings(base, overlay)["b"]["new"] = 1
    assert (base, overlay) == (SETTINGS[1], SETTINGS[2])


@pytest.mark.parametrize(
    ("base", "overlay", "expected"),
    [
        ([1, 2], [3], [3]),
        ({"a": [1, 2]}, {"a": []}, {"a": []}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": None}}, {"a": {}}),
        ({"b": 2}, {"a": None}, {"a": None, "b": 2}),
        ({"a": None}, {"a": None}, {"a": None}),
        ({"a": None}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": CLASS}, {"a": {"class_path": "Y"}}, {"a": {"class_path": "Y"}}),
        ({"a": CLASS}, {"a": "Y"}, {"a": "Y"}),
        ({"a": CLASS}, {"a": {"init_args": {"p": None}}}, {"a": {**CLASS, "init_args": {"q": {"r": [1, 2]}}}}),  # noqa: E501
        ({"a": "X"}, {"a": {"init_args": {"p": 2}}}, {"a": {"class_path": "X", "init_args": {"p": 2}}}),  # noqa: E501
        ({"a": {"graph": "x"}}, {"a": CLASS}, {"a": CLASS}),
        ({"a": {"init_args": {"s": 3}}}, {"a": {"class_path": "X"}}, {"a": {"class_path": "X", "init_args": {"s": 3}}}),  # noqa: E501
    ],
)  # fmt: skip
def test_merged_settings(base, overlay, expected):
    assert merge_settings(base, overlay) == expected


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a base, an overlay of it, and one of the overlay."""
    (tmp_path / "study" / "deeper").mkdir(parents=True)
    (tmp_path / "study" / "full.yaml").write_text("a: {b: 1, c: 2}\nd: [1, 2]\n")
    (tmp_path / "study" / "small.yaml").write_text("base: full.yaml\na: {b: 3}\n")
    (tmp_path / "study" / "deeper" / "x.yaml").write_text("base: ../small.yaml\nd: [4]\n")
    (tmp_path / "study" / "other.yaml").write_text("base: full.yaml\na: {c: 5}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def merged(*configurations):
    return Configuration.read(configurations).settings


def test_a_file_is_read_after_its_base(folder):
    assert merged("study/small.yaml") == {"a": {"b": 3, "c": 2}, "d": [1, 2]}
    assert merged("study/deeper/x.yaml") == {"a": {"b": 3, "c": 2}, "d": [4]}
    assert merged("{base: study/full.yaml, d: 3}") == {"a": {"b": 1, "c": 2}, "d": 3}


def test_a_base_that_was_read_before_is_not_read_again(folder):
    assert merged("study/full.yaml", "study/small.yaml") == merged("study/small.yaml")
    assert merged("study/small.yaml", "study/other.yaml")["a"] == {"b": 3, "c": 5}
    assert merged("study/full.yaml", "{a: {c: 6}}", "study/small.yaml")["a"] == {"b": 3, "c": 6}


def test_a_file_that_is_named_again_wins_again(folder):
    assert merged("study/full.yaml", "{a: {b: 9}}", "study/full.yaml")["a"]["b"] == 1


@pytest.mark.parametrize("command", ["fit", "graph"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: ful.yaml", "base: there is no file study/ful.yaml; give its path relative to the "
         "folder study; did you mean 'full.yaml'?"),
        ("base: 3", "base: expected the name of a file, but got 3."),
        ("base: [full.yaml]", "base: expected the name of a file, but got"),
        ("base: ''", "base: expected the name of a file, but got ''."),
        ("base: new.yaml", "base: study/new.yaml -> study/new.yaml is a circle"),
        ("base: ../study/a.yaml",
         "base: study/new.yaml -> study/a.yaml -> study/new.yaml is a circle"),
        ("base: broken.yaml", "study/broken.yaml is no YAML (while parsing a flow sequence"),
    ],
)  # fmt: skip
def test_wrong_bases_are_refused_in_a_line(folder, capsys, command, text, message):
    (folder / "study" / "new.yaml").write_text(text)
    (folder / "study" / "a.yaml").write_text("base: new.yaml")
    (folder / "study" / "broken.yaml").write_text("a: 1\nb: [c\n")
    assert main([command, "--config", "study/new.yaml"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"deepscm {command}: config: ")
    assert message in error
    assert error.count("\n") == 1


def test_errors_of_yaml_name_the_line(folder, capsys):
    (folder / "study" / "broken.yaml").write_text("a: 1\nb: [c\n")
    assert main(["fit", "--config", "study/full.yaml", "--config", "study/broken.yaml"]) == 1
    error = capsys.readouterr().err
    assert "config: study/broken.yaml is no YAML" in error
    assert "line 2" in error


def test_a_file_that_does_not_exist_is_named(folder, capsys):
    assert main(["fit", "--config", "study/full.yaml", "--config", "study/none.yaml"]) == 1
    assert capsys.readouterr().err == (
        "deepscm fit: config: there is no file or experiment study/none.yaml; deepscm experiments "
        "lists them.\n"
    )


def test_options_are_split():
    words = ["fit", "-c", "a", "--x", "1", "--config=b", "-c={c: 1}", "--config"]
    assert split_configurations(words) == (["a", "b", "{c: 1}"], ["fit", "--x", "1", "--config"])


def test_texts_survive_the_way_to_the_parser():
    """Numbers of all notations stay numbers, and texts that look like numbers stay texts."""
    values = {"a": 1.0e-05, "b": "1e-5", "c": ".5", "d": "null", "e": "on", "f": float("inf")}
    values |= {"g": "x: y, {z}", "h": "- a\n'b'", "i": "1_000", "j": [None, True, 10**20], "k": ""}
    first = yaml.dump(values, default_style='"')
    first = first.replace('!!float ".inf"', ".inf").replace('!!float "1.0e-05"', "1e-5")
    once = Configuration.read([first, "{l: 1}"])
    assert once.settings == {**values, "l": 1}
    _, text = once.words()
    assert Configuration.read([text]).settings == once.settings


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The configuration of a tiny model, and an overlay of it."""
    monkeypatch.chdir(tmp_path)
    Path("full.yaml").write_text(yaml.safe_dump(CONFIGURATION, sort_keys=False))
    return tmp_path


def printed(capsys, *words):
    """The settings of a run, as the parser understands them."""
    with pytest.raises(SystemExit) as end:
        main(["fit", *words, "--print_config"])
    assert end.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


OVERLAY = """
base: full.yaml
model:
  mechanisms:
    image:
      init_args:
        latent: 3
        likelihood:
          class_path: deepscm_pl.likelihoods.DiscretisedLogisticMixture
          init_args: {num_components: 2}
  scheduler: null
trainer:
  max_epochs: 1
  callbacks:
    - class_path: deepscm_pl.callbacks.SampleGrid
"""


def test_the_parser_sees_merged_files_and_options_win(tiny, capsys):
    Path("overlay.yaml").write_text(OVERLAY)
    words = ["--trainer.max_epochs", "7", "--config", "overlay.yaml"]
    alone = printed(capsys, *words, "--model.learning_rates.intensity", "0.5")
    model = alone["model"]
    image = model["mechanisms"]["image"]["init_args"]
    assert (image["latent"], image["hidden"]) == (3, 8)
    assert image["likelihood"]["class_path"].endswith("DiscretisedLogisticMixture")
    assert list(model["mechanisms"]) == ["thickness", "intensity", "image"]
    assert model["scheduler"] is None
    assert model["learning_rates"] == {"thickness": 0.01, "intensity": 0.5}
    assert alone["trainer"]["max_epochs"] == 7
    assert [each["class_path"] for each in alone["trainer"]["callbacks"]] == [
        "deepscm_pl.callbacks.SampleGrid"
    ]
    both = printed(capsys, "--config", "full.yaml", "-c=overlay.yaml", *words[:2])
    assert both["model"]["mechanisms"] == alone["model"]["mechanisms"]
    assert "base" not in both


@pytest.mark.parametrize(
    ("overlay", "place"),
    [
        ("trainer:\n  max_epoch: 3", "overlay.yaml, line 3"),
        ("trainer:\n  max_epochs: x", "overlay.yaml, line 3"),
        ("modl: 3", "overlay.yaml, line 2"),
        ("model:\n  mechanisms:\n    image:\n      init_args:\n        latnt: 3",
         "overlay.yaml, line 6"),
        ("data:\n  init_args:\n    batch_size: x", "overlay.yaml, line 4"),
        ("data:\n  init_args: {batch_size: -3}", "overlay.yaml, line 3"),
        ("trainer:\n  callbacks:\n  - class_path: deepscm_pl.callbacks.SampleGrid\n"
         "    init_args: {every: 1}", "overlay.yaml, line 5"),
        ("model: {graph: a ->}", "overlay.yaml, line 2"),
        ("evaluation: [1]", "overlay.yaml, line 2"),
    ],
)  # fmt: skip
def test_errors_name_the_line_of_the_setting(tiny, capsys, overlay, place):
    Path("overlay.yaml").write_text(f"base: full.yaml\n{overlay}\n")
    try:
        assert main(["fit", "--config", "overlay.yaml"]) == 1
    except SystemExit as end:
        assert end.code == 2  # noqa: PT017
    assert f"It is set in {place}." in capsys.readouterr().err


def test_errors_of_the_base_name_the_base(tiny, capsys):
    settings = {**CONFIGURATION, "data": {**CONFIGURATION["data"], "init_args": {"batch_size": 0}}}
    text = yaml.safe_dump(settings, sort_keys=False)
    Path("full.yaml").write_text(text)
    Path("overlay.yaml").write_text("base: full.yaml\ntrainer: {max_epochs: 1}\n")
    assert main(["fit", "--config", "overlay.yaml"]) == 1
    line = 1 + text.splitlines().index("    batch_size: 0")
    assert f"It is set in full.yaml, line {line}." in capsys.readouterr().err


def test_a_key_that_stands_in_several_places_has_no_line():
    both = Configuration.read(["{a: {init_args: {hidden: 1}}, b: {init_args: {hidden: 2}}}"])
    assert both.line_of("hidden: expected a whole number, but got x") is None
    assert both.line_of("a, hidden: expected a whole number") == "config, line 1"
    assert both.line_of("there is no memory") is None


def test_names_of_variables_are_no_settings():
    """An error about a variable is not one about its learning rate."""
    rates = Configuration.read(["{model: {learning_rates: {thickness: 1}}}"])
    assert rates.line_of("thickness: expected finite values, but 3 rows are NaN.") is None


def test_graphs_are_those_of_merged_files(folder, capsys):
    (folder / "study" / "full.yaml").write_text("model: {graph: a -> b}")
    (folder / "study" / "new.yaml").write_text("base: full.yaml\nmodel: {hidden: 3}")
    assert main(["graph", "--config", "study/new.yaml", "--out", "new.svg"]) == 0
    assert Path("new.svg").is_file()
    assert main(["graph", "-c", "study/new.yaml", "--config", "{model: {graph: null}}"]) == 1
    assert "has no entry model.graph; add one." in capsys.readouterr().err
