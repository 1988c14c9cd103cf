"""Who does not hear Ctrl-C: workers of this machine, for whose work the batch waits, and the batch while it ends them.

This module is the workers' preload: in their terminal Ctrl-C is sent to them as well.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def dask_setup(worker: Any) -> None:
    """Called by dask when the worker starts."""
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
