"""Where the package's log goes: to stderr, to a file on request, and its last lines to an error report.

The package logs through the standard `logging`, under "napari_ivos", and stays silent until somebody listens.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_ivos.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEVELS = ("debug", "info", "warning", "error")
NAME = "napari_ivos"
KEPT_LINES = 200
"""Last lines that an error report holds."""
_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_last: deque[str] = deque(maxlen=KEPT_LINES)


class _Keeper(logging.Handler):
    """Keeps the last lines in memory."""

    def emit(self, record: logging.LogRecord) -> None:
        _last.append(f"{record.levelname} {record.name}: {record.getMessage()}")


@contextmanager
def listening(level: str | None = None, file: Path | None = None) -> Iterator[None]:
    """Listen to the package's log for a while.

    Parameters
    ----------
    level : str, optional
        One of `LEVELS`. Default: "warning" on stderr, "info" for a file.
    file : Path, optional
        Where it goes (added to what is there); None: to stderr.

    Raises
    ------
    InputError
        The file can't be written.
    """
    logger = logging.getLogger(NAME)
    _last.clear()
    handlers: list[logging.Handler] = [_Keeper()]
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(logging.Formatter("%(levelname)s: %(message)s" if level is None else _LINE))
    stderr.setLevel((level or "warning").upper() if file is None else logging.WARNING)
    handlers.append(stderr)
    if file is not None:
        try:
            kept = logging.FileHandler(file, encoding="utf-8")
        except OSError as error:
            raise InputError(f"The log {file} can't be written: {error.strerror or error}.") from error
        kept.setFormatter(logging.Formatter(_LINE))
        kept.setLevel((level or "info").upper())
        handlers.append(kept)
    before = logger.level
    logger.setLevel(logging.DEBUG if level == "debug" else logging.INFO)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.setLevel(before)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def last_lines() -> tuple[str, ...]:
    """The last lines that were logged while somebody listened."""
    return tuple(_last)
