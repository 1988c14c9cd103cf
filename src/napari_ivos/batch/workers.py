"""What runs on a worker: one model, a few open stacks, and the work of a parcel.

A worker reads its own chunks from the stack and never sees a project file; masks go back as rows.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distributed import WorkerPlugin, get_worker

from napari_ivos.errors import InputError, IvosError
from napari_ivos.session.parcels import Parcel, Yielded, carry_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ivos.batch.model import ModelSource
    from napari_ivos.frames import FrameStack
    from napari_ivos.predictor import Predictor
    from napari_ivos.project import Rows

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


def _here() -> ModelWorker:
    plugin = get_worker().plugins.get(NAME)
    if not isinstance(plugin, ModelWorker):
        raise IvosError("This worker has no model: another program has taken its plugin away. Start the batch again.")
    return plugin


class Facts(NamedTuple):
    """Who a model is, on the worker that was asked."""

    name: str
    checksum: str
    size: int
    device: str
    separable: bool


def identify() -> Facts:
    """Load this worker's model, and say who it is."""
    model = _here().model
    return Facts(model.name, model.checksum, model.size, model.device, bool(getattr(model, "separable", False)))


@dataclass(frozen=True)
class Survey:
    """What a worker found out about a stack."""

    shape: tuple[int, int, int]
    name: str
    fingerprint: str
    facts: Mapping[str, Any]
    contrast: list[list[float]] | None
    notes: tuple[str, ...]


def survey(path: str, options: Mapping[str, Any], measure: bool) -> Survey:
    """Open a stack and look at it; `measure`: its contrast, too."""
    stack = _here().stack(path, options)
    contrast = [[float(v) for v in pair] for pair in stack.contrast] if measure and stack.contrast_known else None
    return Survey(stack.shape, stack.name, stack.fingerprint(), stack.describe(), contrast, tuple(stack.notes))


class Work(NamedTuple):
    """A parcel's result, and who did it."""

    yielded: Yielded
    worker: str
    device: str


def hold(rows: Rows) -> Rows:
    """References on a worker, so that they travel once and not with each parcel."""
    return rows


def halt(dask_worker: Any) -> None:
    """Let this worker end its parcel after the frame at hand; `dask_worker` is how `Client.run` hands it in."""
    plugin = dask_worker.plugins.get(NAME)
    if isinstance(plugin, ModelWorker):
        plugin.halted.set()


def work(parcel: Parcel, references: Rows | None, path: str, options: Mapping[str, Any]) -> Work:
    """Carry out a parcel on this worker."""
    bench = _here()
    model = bench.model
    yielded = carry_out(parcel, bench.stack(path, options), model, references, bench.halted.is_set)
    return Work(yielded, get_worker().address, model.device)
