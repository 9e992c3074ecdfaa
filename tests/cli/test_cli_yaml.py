"""Configurations that nest, repeat or go on without end: one line, and nothing is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deepscm_pl.cli import main, yaml_files
from deepscm_pl.cli.configurations import Configuration
from deepscm_pl.cli.lightning_parser import FriendlyLightningParser
from deepscm_pl.cli.yaml_files import YAMLLimitError, check_yaml, load_yaml

from tiny import CONFIGURATION

BOMB = "\n".join(
    ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    + [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12)]
)
HOSTILE = {
    "deep lists": ("a: " + "[" * 5000 + "]" * 5000, "nests lists or mappings more than 64 deep"),
    "deep mappings": ("{a: " * 5000 + "}" * 5000, "nests lists or mappings more than 64 deep"),
    "deep dashes": ("- " * 5000, "nests lists or mappings more than 64 deep"),
    "a bit too deep": ("[" * 65 + "]" * 65, "nests lists or mappings more than 64 deep"),
    "aliases": (BOMB, "more than 50,000 values, with those that aliases repeat"),
    "itself": ("model: &a {graph: *a}", r"contains itself by *a"),
    "long": ("a: b\n" * 10**6, "longer than 1,048,576 bytes"),
    "many": ("a: [" + "1," * 60_000 + "]", "more than 50,000 values"),
    "a text of lists": ("a: '" + "[" * 500 + "]" * 500 + "'", "more than 64 deep"),
    "broken": ("a: [b", "is no YAML (while parsing a flow sequence"),
    "bytes": ("a: \x00", "is no YAML (unacceptable character"),
    "tag": ("!!python/name:os.system x", "is no YAML (could not determine a constructor"),
    "keys": ("? [a, b]\n: 1", "is no YAML (while constructing a mapping"),
}


@pytest.fixture
def never_made(monkeypatch):
    """What would build the values of a text that exceeds a limit must not be reached."""

    def build(text):
        assert len(text) < 5000, "built before it was measured"
        return load(text)

    load = yaml_files.load_checked
    monkeypatch.setattr(yaml_files, "load_checked", build)


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("command", ["graph", "fit", "test"])
def test_hostile_configurations_are_refused_in_a_line(
    tmp_path, capsys, kind, command, never_made, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    text, message = HOSTILE[kind]
    Path("bad.yaml").write_text(text)
    assert main([command, "--config", "bad.yaml"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"deepscm {command}: config: bad.yaml ")
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize("kind", ["deep lists", "aliases", "long"])
def test_files_that_a_configuration_names_are_measured_as_well(
    tmp_path, capsys, monkeypatch, kind, never_made
):
    """By the parser itself."""
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(HOSTILE[kind][0])
    Path("good.yaml").write_text(yaml.safe_dump({**CONFIGURATION, "data": "bad.yaml"}))
    with pytest.raises(SystemExit):
        main(["fit", "--config", "good.yaml"])
    assert HOSTILE[kind][1] in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["fit", "--data", "bad.yaml"])
    assert HOSTILE[kind][1] in capsys.readouterr().err


def test_texts_on_the_command_line_are_measured(capsys):
    assert main(["fit", "--model.graph", "[" * 500 + "]" * 500]) == 1
    assert "model.graph nests lists or mappings more than 64 deep" in capsys.readouterr().err
    assert main(["fit", "--config", "{a: " * 500 + "}" * 500]) == 1
    assert "config nests lists or mappings more than 64 deep" in capsys.readouterr().err


def test_what_may_be_written_passes():
    text = "base: &base {lr: 1.0e-3}\na: {<<: *base, x: [1, 2]}\nb: *base"
    assert load_yaml(text, "x")["a"] == {"lr": 1e-3, "x": [1, 2]}
    check_yaml("[" * 64 + "]" * 64, "x")
    check_yaml("a: [" + "1," * 49_000 + "]", "x")
    check_yaml("'" + "x" * 10**6 + "'", "x")
    check_yaml("{a: [", "x")  # its reader says what is wrong
    with pytest.raises(YAMLLimitError):
        check_yaml("a: &a [" + "1," * 100 + "]\nb: [" + "*a," * 600 + "]", "x")


def test_settings_have_names(tmp_path):
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(ValueError, match=r"list\.yaml has no settings; expected 'name: value'"):
        Configuration.read([str(tmp_path / "list.yaml")])
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.yaml"):
        Configuration.read([str(tmp_path / "none.yaml")])
    assert Configuration.read(["{a: 1}"]).settings == {"a": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{no: 1, 21003: 2, yes: {on: 3}}", {"no": 1, "21003": 2, "yes": {"on": 3}}),
        ("{no: [], off: [no], 1.50: [y]}", {"no": [], "off": ["no"], "1.50": ["y"]}),
        ("columns: {sex: no, age: '21003'}", {"columns": {"sex": "no", "age": "21003"}}),
        ("{a: true, b: False, c: 3, d: 1e-3, e: null, f: ~}",
         {"a": True, "b": False, "c": 3, "d": 1e-3, "e": None, "f": None}),
        ("{~: 1, null: 2, 007: 3, 0x1F: 4}", {"~": 1, "null": 2, "007": 3, "0x1F": 4}),
        ("base: &b {1: 2}\nother: {<<: *b, 3: 4}", {"base": {"1": 2}, "other": {"1": 2, "3": 4}}),
    ],
)  # fmt: skip
def test_keys_are_names_and_no_is_a_text(text, expected):
    assert load_yaml(text, "config") == expected


def test_truth_values_may_be_yes_and_no_and_names_that_are_numbers_are_to_be_quoted(capsys):
    parser = FriendlyLightningParser()
    parser.add_argument("--flag", type=bool)
    parser.add_argument("--columns", type=dict[str, str])
    parser.add_argument("--graph", type=str | dict[str, list[str]])
    for text, value in (("no", False), ("yes", True), ("off", False), ("true", True)):
        assert parser.parse_string(f"flag: {text}").flag is value
    found = parser.parse_string("columns: {sex: no, 3: on}\ngraph: {no: [off, y]}")
    assert found.columns == {"sex": "no", "3": "on"}
    assert found.graph == {"no": ["off", "y"]}
    for text in ("columns: {age: 21003}", "columns: {age: true}"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--columns", text.partition(" ")[2]])
        message = capsys.readouterr().err
        assert "expected a text, but got " in message
        assert "; quote it, as in '21003'" in message
