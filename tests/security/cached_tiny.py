"""The tiny world with a folder of caches, as data modules of scans have one."""

from __future__ import annotations

from pathlib import Path

from tiny import TinyDataModule


class CachedTinyDataModule(TinyDataModule):
    """Writes a file into its cache, and removes what others have left there."""

    def __init__(self, cache_dir: str | Path | None = None) -> None:
        super().__init__()
        self.cache_dir = cache_dir

    def load(self):
        if self.cache_dir is not None:
            for path in Path(self.cache_dir).iterdir():
                path.unlink()
            (Path(self.cache_dir) / "scans-1").touch()
        return super().load()
