"""Make the pictures of the gallery by running the commands of its page.

``python docs/gallery.py --data DIR`` runs all of them, with DIR the data of ``deepscm data
morphomnist``, and ``python docs/gallery.py --data DIR digits effect`` those that make
``images/gallery-digits.png`` and ``images/gallery-effect.png``.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "gallery.md"
FILES = {"effect": "effect.png", "particles": "image-deviation.png"}
"""The file of an answer that is shown; ``image.png`` unless stated here."""

_ENTRY = re.compile(r"```bash\n(.*?)```\n\n!\[[^\]]*\]\((images/gallery-(\w+)\.\w+)\)", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """A picture of the gallery and the command that makes it.

    Attributes:
        name: Its name.
        words: The words of the command after ``deepscm``.
        picture: The file of the picture.
    """

    name: str
    words: tuple[str, ...]
    picture: Path


def entries() -> list[Entry]:
    """The pictures of the page, in order."""
    found = _ENTRY.findall(PAGE.read_text(encoding="utf-8"))
    return [
        Entry(name, tuple(shlex.split(text.replace("\\\n", " "))[1:]), PAGE.parent / picture)
        for text, picture, name in found
    ]


def make(entry: Entry, folder: Path) -> None:
    """Run the command of an entry in a folder, and keep its picture."""
    subprocess.run([sys.executable, "-m", "deepscm_pl", *entry.words], cwd=folder, check=True)
    if entry.name == "explore":
        _screenshot(folder / "explore.html", entry.picture)
        return
    output = folder / entry.words[entry.words.index("--out") + 1]
    made = output if output.is_file() else output / FILES.get(entry.name, "image.png")
    if made.suffix == ".png":
        _reduce(made, entry.picture)
    else:
        shutil.copy(made, entry.picture)


def _screenshot(page: Path, picture: Path) -> None:
    """Photograph a page by Chromium without a window, after its first answer is drawn."""
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1200,1000"]
    target = [f"--screenshot={picture}", f"{page.as_uri()}#index=0&do=digit%3D3"]
    subprocess.run(["chromium", *options, *target], check=True)


def _reduce(made: Path, picture: Path) -> None:
    """Store a picture in 256 colours, at most 1,400 pixels wide."""
    from PIL import Image

    image = Image.open(made).convert("RGB")
    image.thumbnail((1400, 4000))
    image.quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)


def main() -> None:
    """Run the commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Morpho-MNIST")
    parser.add_argument("names", nargs="*", help="pictures to make; all unless stated")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "models").symlink_to(ROOT / "models")
        (folder / "data").mkdir()
        (folder / "data" / "morphomnist").symlink_to(options.data.resolve())
        for entry in entries():
            if not options.names or entry.name in options.names:
                make(entry, folder)
                print(f"written: {entry.picture.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
