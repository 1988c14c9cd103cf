"""Reading ahead: regions that a thread fetches while the network works on the frame before."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_ivos.regions import Box

Array = npt.NDArray[Any]

AHEAD = 8
"""Regions that are read ahead and kept at the same time: those of two frames, for motion is seen between two."""
AHEAD_BYTES = 32 << 20
"""What they may hold together; a larger region is not read ahead."""


class ReadAhead:
    """Regions that are being read in the background, or were: bounded in number and bytes, the oldest dropped first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._regions: OrderedDict[tuple[int, Box], tuple[int, Future[Array]]] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False

    def start(self, frame: int, box: Box, size: int, read: Callable[[int, Box], Array]) -> None:
        """Begin to read a region of `size` bytes, unless one that contains it is there, or it is too large."""
        if size > AHEAD_BYTES or self.find(frame, box) is not None:
            return
        with self._lock:
            if self._closed:
                return
            if self._pool is None:
                self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ivos-frames")
            held = sum(bytes_ for bytes_, _ in self._regions.values())
            while self._regions and (len(self._regions) >= AHEAD or held + size > AHEAD_BYTES):
                bytes_, oldest = self._regions.popitem(last=False)[1]
                oldest.cancel()
                held -= bytes_
            self._regions[frame, box] = size, self._pool.submit(read, frame, box)

    def find(self, frame: int, box: Box) -> tuple[Box, Future[Array]] | None:
        """Find a region of that frame that contains the box."""
        with self._lock:
            for (at, whole), (_, future) in self._regions.items():
                if at == frame and whole.intersect(box) == box:
                    return whole, future
        return None

    def forget(self, frame: int, box: Box) -> None:
        with self._lock:
            self._regions.pop((frame, box), None)

    def close(self, wait: bool) -> None:
        """Read no more; `wait` for the read that runs (not from its own thread)."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
            self._regions.clear()
        if pool is not None:
            pool.shutdown(wait=wait, cancel_futures=True)
