"""Chunks of a source, read once: a store bounded in bytes, and a reader that fills regions from it."""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.untrusted import CHUNKS_ON_AXIS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from napari_ivos.frames.axes import Selection

Array = npt.NDArray[Any]
Edges = tuple[npt.NDArray[np.int64], ...]
"""For each axis of a source where its chunks begin, and its length as the last entry."""

BLOCKS_BYTES = 32 << 20
"""Chunks that are kept; small, since memory must not grow with the number of frames."""
CELL = 128
"""Smaller chunks of a picture are joined to cells of at least this side, in pixels."""
REGION_BYTES = 16 << 20
"""A region whose chunks together are larger than this is read as one and not kept."""


def regular_edges(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Edges:
    """Edges of a grid of equal chunks.

    Raises
    ------
    InputError
        More chunks on an axis than a table of them may hold.
    """
    most = max((math.ceil(n / max(step, 1)) for n, step in zip(shape, chunks, strict=True)), default=0)
    if most > CHUNKS_ON_AXIS:
        raise InputError(
            f"A shape of {shape} in chunks of {chunks} has {most:,} chunks along one axis; up to {CHUNKS_ON_AXIS:,} "
            "are read. If that is true, rechunk it; else its metadata are damaged."
        )
    return tuple(
        np.append(np.arange(0, length, max(step, 1)), length) for length, step in zip(shape, chunks, strict=True)
    )


def merged_edges(edges: npt.NDArray[np.int64], least: int) -> npt.NDArray[np.int64]:
    """Edges of chunks joined to at least `least` entries each: many small chunks are read faster in one call."""
    kept = [int(edges[0])]
    for edge in edges[1:-1].tolist():
        if edge - kept[-1] >= least:
            kept.append(edge)
    return np.array([*kept, edges[-1]], dtype=np.int64)


class ByteCache:
    """Arrays by key, the least recently used thrown away above `capacity` bytes; may be shared by threads."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._items: OrderedDict[Hashable, Array] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Array | None:
        with self._lock:
            if key not in self._items:
                return None
            self._items.move_to_end(key)
            return self._items[key]

    def put(self, key: Hashable, value: Array) -> None:
        with self._lock:
            if key in self._items or value.nbytes > self.capacity:
                return
            self._items[key] = value
            self._bytes += value.nbytes
            while self._bytes > self.capacity:
                self._bytes -= self._items.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        with self._lock:
            self._items.clear()
            self._bytes = 0


class BlockReader:
    """Reads regions of a chunked source by whole chunks: each is decompressed once for all regions that it serves.

    Parameters
    ----------
    fetch : callable
        Takes a `Selection`, returns its values; integer entries lose their axis.
    edges : Edges
        Borders of the chunks.
    fixed : mapping of int to int
        Axes that are always read at one index: their chunks are kept at that index only.
    dtype : dtype
        Of the values.
    """

    def __init__(
        self, fetch: Callable[[Selection], Array], edges: Edges, fixed: Mapping[int, int], dtype: np.dtype[Any]
    ) -> None:
        self._fetch = fetch
        self._edges = edges
        self._fixed = fixed
        self._dtype = dtype
        self._cache = ByteCache(BLOCKS_BYTES)

    def read(self, selection: Selection) -> Array:
        """Values of a selection, which has the fixed axes at their index."""
        spans = [self._cells(axis, entry) for axis, entry in enumerate(selection)]
        if self._dtype.itemsize * math.prod(self._length(axis, span) for axis, span in enumerate(spans)) > REGION_BYTES:
            return self._fetch(selection)
        if all(len(span) == 1 for span in spans):
            cell = tuple(span[0] for span in spans)
            return self._block(cell)[tuple(self._local(selection, cell))].copy()
        return self._assemble(selection, spans)

    def _assemble(self, selection: Selection, spans: list[range]) -> Array:
        out = np.empty([entry.stop - entry.start for entry in selection if isinstance(entry, slice)], dtype=self._dtype)
        for cell in itertools.product(*spans):
            place = []
            for axis, entry in enumerate(selection):
                if isinstance(entry, slice):
                    edges = self._edges[axis]
                    first, last = max(entry.start, edges[cell[axis]]), min(entry.stop, edges[cell[axis] + 1])
                    place.append(slice(int(first) - entry.start, int(last) - entry.start))
            out[tuple(place)] = self._block(cell)[tuple(self._local(selection, cell))]
        return out

    def _cells(self, axis: int, entry: int | slice) -> range:
        """Chunks of an axis that an entry touches; a fixed axis counts as one."""
        if axis in self._fixed:
            return range(1)
        first, last = (entry.start, entry.stop - 1) if isinstance(entry, slice) else (entry, entry)
        low, high = np.searchsorted(self._edges[axis], (first, last), side="right") - 1
        return range(int(low), int(high) + 1)

    def _length(self, axis: int, cells: range) -> int:
        if axis in self._fixed:
            return 1
        return int(self._edges[axis][cells.stop] - self._edges[axis][cells.start])

    def _block(self, cell: tuple[int, ...]) -> Array:
        """One chunk, without the fixed axes."""
        block = self._cache.get(cell)
        if block is None:
            whole: Selection = tuple(
                self._fixed[axis]
                if axis in self._fixed
                else slice(int(self._edges[axis][at]), int(self._edges[axis][at + 1]))
                for axis, at in enumerate(cell)
            )
            block = self._fetch(whole)
            if block.base is not None:  # a view would keep more in memory than the store counts
                block = block.copy()
            self._cache.put(cell, block)
        return block

    def _local(self, selection: Selection, cell: tuple[int, ...]) -> list[int | slice]:
        """Part of a selection that lies in a chunk, counted from the chunk's corner."""
        local: list[int | slice] = []
        for axis, entry in enumerate(selection):
            if axis in self._fixed:
                continue
            begin, end = int(self._edges[axis][cell[axis]]), int(self._edges[axis][cell[axis] + 1])
            if isinstance(entry, slice):
                local.append(slice(max(entry.start, begin) - begin, min(entry.stop, end) - begin))
            else:
                local.append(entry - begin)
        return local

    def clear(self) -> None:
        self._cache.clear()
