"""Build and check a release: ``python tools/release.py --url https://HOST/OWNER/REPOSITORY``.

The source distribution and the wheel are built from the tracked files, in a temporary folder. Then
their contents are checked, ``twine check`` reads their description, and the wheel is installed into
an empty folder, where the program has to run. Nothing is uploaded.

Links of ``README.md`` are relative to the repository, and a package index cannot follow them. With
``--url`` they lead to the tag of the version in that repository, which the metadata name as well.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["absolute_links", "check_contents", "main", "members_of", "with_project_urls"]

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(!?)\[([^\[\]]*)\]\((?!\w+:|#)([^()\s]+)\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)

IN_BOTH = (
    r"deepscm_pl/py\.typed",
    r"deepscm_pl/cli/training_options\.txt",
    r"deepscm_pl/explorer/page\.html",
    r"deepscm_pl/explorer/page\.css",
    r"deepscm_pl/explorer/page\.js",
    r"deepscm_pl/explorer/parts\.css",
    r"deepscm_pl/explorer/live\.css",
    r"deepscm_pl/reports/page\.css",
    r"deepscm_pl/shipped/models/digits/model\.safetensors",
    r"LICENSE",
)
IN_WHEEL = (r"deepscm_pl/experiments/digits/full\.yaml", r"entry_points\.txt")
IN_SOURCES = (r"experiments/digits/full\.yaml", r"docs/index\.md", r"CITATION\.cff", r"README\.md")
FORBIDDEN = r"(^|/)(tests|benchmarks|lightning_logs|__pycache__|\.git|\.ci)/|\.ckpt$|\.pyc$"


def absolute_links(text: str, url: str, tag: str) -> str:
    """Let the relative links of a Markdown text lead to a repository.

    Args:
        text: The text; its code stays as it is.
        url: Address of the repository.
        tag: The tag or the branch of its files.

    Example:
        >>> print(absolute_links("[a](docs/a.md) ![b](b.png)", "https://host/o/r", "v1"))
        [a](https://host/o/r/blob/v1/docs/a.md) ![b](https://host/o/r/raw/v1/b.png)
    """

    def replaced(found: re.Match[str]) -> str:
        mark, words, target = found.groups()
        kind = "raw" if mark else "tree" if target.endswith("/") else "blob"
        return f"{mark}[{words}]({url.rstrip('/')}/{kind}/{tag}/{target})"

    parts = _FENCE.split(text)
    parts[::2] = [_LINK.sub(replaced, each) for each in parts[::2]]
    return "".join(parts)


def with_project_urls(settings: str, url: str) -> str:
    r"""Add the addresses of the project to the text of ``setup.cfg``.

    Example:
        >>> print(with_project_urls("[metadata]\nname = a\n", "https://host/o/r"))
        [metadata]
        url = https://host/o/r
        project_urls =
            Source = https://host/o/r
            Issues = https://host/o/r/issues
            Changelog = https://host/o/r/blob/main/CHANGELOG.md
        name = a
        <BLANKLINE>
    """
    url = url.rstrip("/")
    lines = [
        "[metadata]",
        f"url = {url}",
        "project_urls =",
        f"    Source = {url}",
        f"    Issues = {url}/issues",
        f"    Changelog = {url}/blob/main/CHANGELOG.md",
    ]
    return settings.replace("[metadata]", "\n".join(lines), 1)


def members_of(archive: Path) -> list[str]:
    """The files of a wheel or of a source distribution, without its outer folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.namelist()
    with tarfile.open(archive) as sources:
        return [name.partition("/")[2] for name in sources.getnames()]


def check_contents(members: Iterable[str], required: Iterable[str]) -> None:
    """Check the files of an archive.

    Raises:
        ValueError: If a required file is missing, or a file does not belong there.

    Example:
        >>> check_contents(["a.txt", "tests/b.py"], ["a"])
        Traceback (most recent call last):
            ...
        ValueError: expected no file of tests, trainings or caches, but got tests/b.py.
    """
    names = list(members)
    missing = [each for each in required if not any(re.search(each, name) for name in names)]
    if missing:
        raise ValueError(f"expected files that match {', '.join(missing)}, but got none.")
    wrong = [name for name in names if re.search(FORBIDDEN, name)]
    if wrong:
        raise ValueError(f"expected no file of tests, trainings or caches, but got {wrong[0]}.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Build and check a release."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", help="address of the repository")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the archives")
    parser.add_argument(
        "--venv",
        action="store_true",
        help="install with all dependencies in a new environment, not beside those of this one",
    )
    parser.add_argument(
        "--no_isolation", action="store_true", help="build with the setuptools of this environment"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sources = _copy(folder / "sources", options.url)
        out = options.out.resolve()
        isolation = ["--no-isolation"] if options.no_isolation else []
        _run(sys.executable, "-m", "build", *isolation, "--outdir", str(out), str(sources))
        version = _version()
        wheel = next(out.glob(f"*-{version}-*.whl"))
        archive = next(out.glob(f"*-{version}.tar.gz"))
        check_contents(members_of(wheel), [*IN_BOTH, *IN_WHEEL])
        check_contents(members_of(archive), [*IN_BOTH, *IN_SOURCES])
        _run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(archive))
        _try(wheel, folder, options.venv)
    print(f"checked: {wheel}\nchecked: {archive}")
    if options.url is None:
        print("Links of the README are relative, which a package index cannot follow: give --url.")


def _copy(folder: Path, url: str | None) -> Path:
    """Copy the tracked files, with absolute links if the address of the repository is known."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    if url is not None:
        readme, settings = folder / "README.md", folder / "setup.cfg"
        text = absolute_links(readme.read_text(encoding="utf-8"), url, f"v{_version()}")
        readme.write_text(text, encoding="utf-8")
        text = with_project_urls(settings.read_text(encoding="utf-8"), url)
        settings.write_text(text, encoding="utf-8")
    return folder


def _try(wheel: Path, folder: Path, is_alone: bool) -> None:
    """Install the wheel into an empty folder, and run the program in another one."""
    empty, place = folder / "empty", folder / "installed"
    empty.mkdir()
    environment = dict(os.environ)
    if is_alone:
        venv.create(place, with_pip=True)
        python = str(place / ("Scripts" if os.name == "nt" else "bin") / "python")
        _run(python, "-m", "pip", "install", "--quiet", str(wheel))
    else:
        python = sys.executable
        install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place)]
        _run(python, *install, str(wheel))
        environment["PYTHONPATH"] = str(place)
    found = "import deepscm_pl; print(deepscm_pl.__file__)"
    path = _run(python, "-c", found, cwd=empty, env=environment)
    if not Path(path.strip()).resolve().is_relative_to(place.resolve()):
        raise ValueError(f"expected the installed package, but {path.strip()} was imported.")
    scripts = "Scripts" if is_alone and os.name == "nt" else "bin"
    program = [str(place / scripts / "deepscm")]
    print(_run(*program, "--version", cwd=empty, env=environment).strip())
    _run(*program, "graph", "--edges", "a -> b", cwd=empty, env=environment)
    if "\n  demo " in _run(*program, "--help", cwd=empty, env=environment):
        print(_run(*program, "demo", cwd=empty, env=environment).strip())


def _version() -> str:
    found = re.search(r"^version = (\S+)$", (ROOT / "setup.cfg").read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError("setup.cfg: expected version = NUMBER, but got none.")
    return found[1]


def _run(*words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a program, and return what it prints.

    Raises:
        SystemExit: If it fails, after its output.
    """
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        raise SystemExit(f"{' '.join(words)}: ended with status {done.returncode}.")
    return done.stdout


if __name__ == "__main__":
    main()
