"""Who does not hear Ctrl-C: workers of this machine, and the batch while it starts or ends them.

This module is the workers' preload: they share the batch's terminal, which sends them its Ctrl-C, and where they would
print what the batch tells in one line.
"""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import contextmanager
from multiprocessing import resource_tracker
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


@contextmanager
def held() -> Iterator[None]:
    """Hear Ctrl-C at the end of this only; processes and threads that are started meanwhile never do.

    Raises
    ------
    KeyboardInterrupt
        At the end, where Ctrl-C was pressed.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with _blocked():
            yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        before(signal.SIGINT, None)


@contextmanager
def _blocked() -> Iterator[None]:
    """Block Ctrl-C in this thread, and in what it starts, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # the thread that starts it, with the first process, would unblock what we block
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
