"""What no input may bring a reader to do, watched by the interpreter itself: an audit hook, and a limit of memory."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = 3 << 30
"""Bytes that one small input may make a reader ask for."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FORBIDDEN = frozenset(
    {
        *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.spawn"),
        *("pty.spawn", "socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request", "pickle.find_class"),
        *("sqlite3.enable_load_extension", "sqlite3.load_extension"),
    }
)
_PLACES = {
    "os.remove": 1,
    "os.rename": 2,
    "os.rmdir": 1,
    "os.mkdir": 1,
    "os.link": 2,
    "os.symlink": 2,
    "os.truncate": 1,
    "os.chmod": 1,
    "os.chown": 1,
    "sqlite3.connect": 1,
}
"""Events whose first arguments are paths that must lie in the folder at hand."""


class Breach(BaseException):
    """An input made a reader do what no input may; no `except Exception` hides it."""


class Guard:
    """Watches one process; installed once, because an audit hook stays for good.

    Parameters
    ----------
    folder : Path
        The only place where files may be read (beside the interpreter's own) or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder.resolve())
        self.breaches: list[str] = []
        self._watching = False
        self._own = tuple({*map(str, _own_places())})
        sys.addaudithook(self._hear)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Raise `Breach` for whatever happens inside that must not."""
        self.breaches.clear()
        self._watching = True
        try:
            yield
        finally:
            self._watching = False
        if self.breaches:
            raise Breach(self.breaches[0])

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._watching:
            return
        if event in _FORBIDDEN:
            self._refuse(f"{event} {arguments!r:.200}")
        elif event == "exec":
            code = arguments[0]
            if getattr(code, "co_filename", "").startswith("<") and not _importing():
                self._refuse(f"code run: {code!r:.200}")
        elif event in _PLACES:
            for place in arguments[: _PLACES[event]]:
                self._check(event, place, writes=True)
        elif event == "open":
            self._check(event, arguments[0], bool((arguments[2] or 0) & _WRITES))

    def _check(self, event: str, place: Any, writes: bool) -> None:
        if isinstance(place, int) or place is None:
            return
        path = os.fsdecode(place)
        if path in (":memory:", os.devnull, ""):
            return
        if path.startswith("file:"):
            path = path[5:].split("?", 1)[0]
        whole = os.path.realpath(path)
        if whole.startswith(self.folder + os.sep) or whole == self.folder:
            return
        if not writes and (whole.startswith(self._own) or _importing()):
            return
        self._refuse(f"{event} of {path!r} ({'writing' if writes else 'reading'})")

    def _refuse(self, what: str) -> None:
        self.breaches.append(what)
        raise Breach(what)


def _own_places() -> list[Path]:
    """Where the interpreter, the packages and the system keep their files."""
    found = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parent.parent / "src", Path("/proc"), Path("/sys")]
    return [place.resolve() for place in [*found, Path("/usr"), Path("/etc/localtime"), Path(os.__file__).parent]]


def _importing() -> bool:
    frame: Any = sys._getframe()
    while frame is not None:
        if "importlib" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def limit_memory(room: int | None = MEMORY) -> None:
    """Let this process have no more than `room` bytes beyond what it has now; asking for more is a MemoryError.

    With None an earlier limit is lifted, as far as the process may: what is imported then is no reader's demand.
    """
    import resource

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = hard
    if room is not None:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + room
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def scratch() -> Path:
    """A fresh folder, in memory where the system offers that."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="ivos-fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
