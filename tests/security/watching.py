"""An audit hook that blocks harmful operations and records them."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

TOKEN = "pwned"
"""String that occurs in every operation that hostile files would run."""

CANARIES = (
    "antigravity",
    "idlelib",
    "pytorch_lightning.demos",
    "this",
    "torch.testing._internal",
    "torchmetrics.image.fid",
    "turtledemo",
    "unittest.__main__",
    "venv.__main__",
    TOKEN,
)
"""Modules that only hostile files import."""

_FORBIDDEN = (
    "subprocess.",
    "os.system",
    "os.exec",
    "os.spawn",
    "os.posix_spawn",
    "os.fork",
    "os.forkpty",
    "os.kill",
    "os.startfile",
    "pty.",
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "urllib.",
    "webbrowser.",
    "ftplib.",
    "http.",
    "smtplib.",
    "pickle.find_class",
)
_PATHS = {
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.mkdir": (0,),
    "os.link": (1,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "shutil.rmtree": (0,),
    "shutil.move": (0, 1),
    "shutil.copyfile": (1,),
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Violation(BaseException):
    """A blocked operation; not an `Exception`, so that no error handler catches it."""


@dataclass
class Watch:
    """Allowed operations while a command runs, and blocked attempts.

    Attributes:
        folders: Folders in which files may be written.
        violations: Blocked attempts.
        modules: Roots of modules that may be imported.
    """

    folders: tuple[Path, ...] = ()
    violations: list[str] = field(default_factory=list)
    modules: frozenset[str] = frozenset()
    active: bool = False

    def see(self, event: str, arguments: tuple) -> None:
        problem = self._problem(event, arguments)
        if problem is not None:
            self.violations.append(problem)
            raise Violation(problem)

    def _problem(self, event, arguments):
        if event.startswith(_FORBIDDEN) and event != "subprocess.":
            return f"{event}{arguments!r:.200}"
        if event == "import":
            return self._imported(arguments[0])
        if event == "exec":
            code = arguments[0]
            return f"exec of {code.co_filename}" if TOKEN in repr(code.co_consts) else None
        if event == "compile":
            return f"compile of {arguments[0]!r:.80}" if TOKEN in repr(arguments[0]) else None
        if event == "open":
            return self._opened(*arguments)
        written = [
            arguments[k] for k in _PATHS.get(event, ()) if not self._is_allowed(arguments[k])
        ]
        return f"{event} {written}" if written else None

    def _imported(self, module):
        is_canary = any(module == each or module.startswith(f"{each}.") for each in CANARIES)
        is_listed = module.partition(".")[0] in self.modules
        return f"import of {module}" if is_canary or not is_listed else None

    def _opened(self, path, mode, flags):
        writes = (mode and set(mode) & set("wax+")) or (flags or 0) & _WRITING
        return f"open {path!r} to write" if writes and not self._is_allowed(path) else None

    def _is_allowed(self, path):
        if isinstance(path, int):
            return True
        found = Path(os.path.realpath(os.fsdecode(path)))
        return str(found) == os.devnull or any(found.is_relative_to(each) for each in self.folders)

    @contextlib.contextmanager
    def during(self, *folders: Path):
        """Watch a block that may write files only to the given folders."""
        self.folders = tuple(Path(os.path.realpath(folder)) for folder in folders)
        self.violations = []
        self.active = True
        try:
            yield self
        finally:
            self.active = False


def install() -> Watch:
    """Install the watch of this process; hooks cannot be removed, but it can be inactive."""
    watch = Watch()

    def hook(event, arguments):
        if watch.active:
            watch.see(event, arguments)

    sys.addaudithook(hook)
    return watch
