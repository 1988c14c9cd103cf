"""Who does not hear Ctrl-C: workers of this machine, for whose work the batch waits, and the batch while it ends them.

This module is the workers' preload: they share the batch's terminal, which sends them its Ctrl-C, and where they would
print what the batch tells in one line.
"""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_ivos.errors import IvosError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Foreseen(logging.Filter):
    """Keeps back dask's report, with traceback and task, of an error of this package, which the batch tells itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be written."""
        if not str(record.msg).startswith("Compute Failed"):
            return True
        said = record.getMessage()
        return not any(f"{kind.__name__}(" in said for kind in _kinds(IvosError))


def _kinds(error: type[Exception]) -> Iterator[type[Exception]]:
    yield error
    for kind in error.__subclasses__():
        yield from _kinds(kind)


def dask_setup(worker: Any) -> None:
    """Called by dask when the worker starts."""
    logging.getLogger("distributed.worker").addFilter(Foreseen())
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def deaf() -> Iterator[None]:
    """Don't hear Ctrl-C for a while; in other threads than the first one, which never hear it, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
