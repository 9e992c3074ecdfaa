"""Configurations that nest, repeat or go on without end: one line, and nothing is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deepscm_pl.cli import main, yaml_files
from deepscm_pl.cli.configurations import Configuration
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
        return _get("yaml")(text)

    _get = yaml_files.get_loader
    monkeypatch.setattr(yaml_files, "get_loader", lambda mode: build)


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
