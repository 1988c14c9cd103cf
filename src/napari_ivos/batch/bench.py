"""What a worker has at hand between parcels: its model and a few open stacks, as a plugin of dask's worker."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin

from napari_ivos.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ivos.batch.model import ModelSource
    from napari_ivos.frames import FrameStack
    from napari_ivos.predictor import Predictor

NAME = "napari-ivos"
"""Of the plugin, on every worker."""
OPEN_STACKS = 4
"""Stacks that a worker keeps open."""


class ModelWorker(WorkerPlugin):  # type: ignore[misc]  # dask ships no types
    """Gives a worker its model, which it loads at its first parcel, and keeps stacks open between parcels.

    Parameters
    ----------
    source : ModelSource
        The model.
    """

    name = NAME

    def __init__(self, source: ModelSource) -> None:
        self.source = source

    def setup(self, worker: Any) -> None:
        """Called by dask on each worker, on those that come later too."""
        self._lock = threading.Lock()
        self._model: Predictor | None = None
        self._stacks: OrderedDict[str, FrameStack] = OrderedDict()
        self.halted = threading.Event()

    def teardown(self, worker: Any) -> None:
        """Called by dask when the worker ends or gets another model."""
        self._model = None
        self._stacks.clear()

    @property
    def model(self) -> Predictor:
        with self._lock:
            if self._model is None:
                self._model = self.source.load()
            return self._model

    def stack(self, path: str, options: Mapping[str, Any]) -> FrameStack:
        """Open a stack, or take it from the last parcels; one that has changed on disk is opened again."""
        from napari_ivos.frames import open_frames

        key = repr((path, sorted(options.items()), _stamp(path)))
        with self._lock:
            found = self._stacks.pop(key, None)
            if found is None:
                found = open_frames(path, **options)
            self._stacks[key] = found
            while len(self._stacks) > OPEN_STACKS:
                self._stacks.popitem(last=False)  # closed when the parcel that may still read it lets go
        return found


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = Path(path).stat()
    except OSError as error:
        raise InputError(
            f"{path} is not there for the worker on {_host()} ({error.strerror}): all workers need the stacks under "
            "the same path."
        ) from error
    return found.st_mtime_ns, found.st_size


def _host() -> str:
    import socket

    return socket.gethostname()
