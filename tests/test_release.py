"""The script that builds and checks a release."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import release  # noqa: E402

URL = "https://example.org/owner/deepscm_pl/"


def test_no_link_of_the_readme_stays_relative():
    text = release.absolute_links((ROOT / "README.md").read_text("utf-8"), URL, "v1.2.3")
    assert not release._LINK.search(text)
    assert "(https://example.org/owner/deepscm_pl/raw/v1.2.3/docs/images/heads.png)" in text
    assert "(https://example.org/owner/deepscm_pl/blob/v1.2.3/docs/concepts.md)" in text
    assert "(https://example.org/owner/deepscm_pl/tree/v1.2.3/notebooks/)" in text
    assert "(https://arxiv.org/abs/2006.06485)" in text


def test_code_and_anchors_stay_as_they_are():
    text = "```bash\n[a](b)\n```\n[here](#there)\n"
    assert release.absolute_links(text, URL, "v1") == text


def test_addresses_are_added_once():
    made = release.with_project_urls((ROOT / "setup.cfg").read_text("utf-8"), URL)
    assert made.count("project_urls =") == 1
    assert "    Source = https://example.org/owner/deepscm_pl\n" in made


def write(path: Path, names: list[str]) -> Path:
    """An archive with empty files of these names."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as wheel:
            for name in names:
                wheel.writestr(name, "")
        return path
    with tarfile.open(path, "w:gz") as sources:
        for name in names:
            sources.addfile(tarfile.TarInfo(f"deepscm_pl-1/{name}"), io.BytesIO())
    return path


@pytest.mark.parametrize("suffix", [".whl", ".tar.gz"])
def test_archives_are_listed_and_checked(tmp_path, suffix):
    names = ["deepscm_pl/runs/a.py", "deepscm_pl/py.typed"]
    found = release.members_of(write(tmp_path / f"a{suffix}", names))
    release.check_contents(found, ["py.typed", "runs"])
    with pytest.raises(ValueError, match="expected files that match LICENSE, but got none"):
        release.check_contents(found, ["py.typed", "LICENSE"])


@pytest.mark.parametrize(
    "name", ["tests/test_a.py", "a/__pycache__/b.pyc", "x/lightning_logs/y", "last.ckpt"]
)
def test_files_that_do_not_belong_in_an_archive_are_named(name):
    with pytest.raises(ValueError, match="but got " + name):
        release.check_contents(["deepscm_pl/py.typed", name], ["py.typed"])


def test_what_package_data_declare_is_required():
    """A page of the explorer that is renamed would otherwise be missing in silence."""
    names = [path.relative_to(ROOT).as_posix() for path in (ROOT / "deepscm_pl").rglob("*")]
    release.check_contents(
        [name for name in names if "__pycache__" not in name] + ["LICENSE"], release.IN_BOTH
    )
