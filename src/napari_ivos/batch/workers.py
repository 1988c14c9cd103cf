"""What runs on a worker: a look at a stack, and the work of a parcel.

A worker reads its own chunks from the stack and never sees a project file; masks go back as rows. dask.distributed is
imported on the workers only: manifests are read and looked over without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_ivos.errors import IvosError
from napari_ivos.session.parcels import Parcel, Yielded, carry_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ivos.batch.bench import ModelWorker
    from napari_ivos.project import Rows


def _here() -> ModelWorker:
    from distributed import get_worker

    from napari_ivos.batch.bench import NAME, ModelWorker

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
    from napari_ivos.batch.bench import NAME, ModelWorker

    plugin = dask_worker.plugins.get(NAME)
    if isinstance(plugin, ModelWorker):
        plugin.halted.set()


def work(parcel: Parcel, references: Rows | None, path: str, options: Mapping[str, Any]) -> Work:
    """Carry out a parcel on this worker."""
    from distributed import get_worker

    bench = _here()
    model = bench.model
    yielded = carry_out(parcel, bench.stack(path, options), model, references, bench.halted.is_set)
    return Work(yielded, get_worker().address, model.device)
