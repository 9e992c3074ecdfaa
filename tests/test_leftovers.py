"""Half-written files of killed programs are removed, and no others."""

from __future__ import annotations

from pathlib import Path

from deepscm_pl.files import clear_leftovers

HEX = "0123456789abcdef"


def make_folder(path: Path) -> Path:
    path.mkdir()
    (path / "inside").write_text("kept")
    return path


def test_only_temporary_names_of_the_program_are_removed(tmp_path):
    folder = make_folder(tmp_path / "run")
    gone = [folder / f".samples-epoch=1.png.{7}.partial", folder / ".last.ckpt.4711.partial"]
    for path in gone:
        path.write_text("half")
    gone.append(make_folder(folder / f".evaluation.{HEX}.partial"))
    kept = ["last.ckpt", ".partial", "a.7.partial", ".a.partial", f".a.{HEX}.partial", ".a.b"]
    for name in kept:
        (folder / name).write_text("whole")
    kept += [make_folder(folder / name).name for name in (".b.7.partial", ".c.xyz.partial")]
    below = make_folder(folder / "below")
    (below / ".a.7.partial").write_text("of another")
    clear_leftovers(folder)
    assert not [path for path in gone if path.exists()]
    assert {path.name for path in folder.iterdir()} == {*kept, "below", "inside"}
    assert (below / ".a.7.partial").exists()


def test_symbolic_links_are_left_alone(tmp_path):
    precious = make_folder(tmp_path / "precious")
    folder = make_folder(tmp_path / "run")
    links = {
        f".a.{HEX}.partial": precious,
        ".b.7.partial": precious / "inside",
        ".c.previous": precious,
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    inside = make_folder(folder / f".d.{HEX}.partial")
    (inside / "link").symlink_to(precious)
    (tmp_path / "other").symlink_to(folder)
    (folder / ".e.7.partial").write_text("half")
    clear_leftovers(tmp_path / "other")
    assert (folder / ".e.7.partial").exists()
    clear_leftovers(folder)
    assert all((folder / name).is_symlink() for name in links)
    assert not inside.exists()
    assert not (folder / ".e.7.partial").exists()
    assert (precious / "inside").read_text() == "kept"


def test_a_folder_is_restored_if_its_replacement_was_interrupted(tmp_path):
    make_folder(tmp_path / ".report.previous")
    clear_leftovers(tmp_path)
    assert (tmp_path / "report" / "inside").exists()
    make_folder(tmp_path / ".report.previous")
    clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_missing_folder_needs_no_clearing(tmp_path):
    clear_leftovers(tmp_path / "missing")
