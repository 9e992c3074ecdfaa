"""The tiny world with a cache folder like that of scan data modules."""

from __future__ import annotations

from pathlib import Path

from tiny import TinyDataModule


class CachedTinyDataModule(TinyDataModule):
    """A data module that removes all files in its cache folder and writes one."""

    def __init__(self, cache_dir: str | Path | None = None) -> None:
        super().__init__()
        self.cache_dir = cache_dir

    def load(self):
        if self.cache_dir is not None:
            for path in Path(self.cache_dir).iterdir():
                path.unlink()
            (Path(self.cache_dir) / "scans-1").touch()
        return super().load()
