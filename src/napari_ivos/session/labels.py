"""The result as an array: `Labels`, composed when it is read, painted through; and `Quality`.

Nothing is held but a few composed frames and the paint that has not become an annotation yet.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.merging import compose
from napari_ivos.project import LATEST
from napari_ivos.regions import Box, meeting, stacked
from napari_ivos.untrusted import check_room

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from napari_ivos.errors import IvosError
    from napari_ivos.project import Project
    from napari_ivos.session.painting import Paint
    from napari_ivos.session.session import Session

CACHE_BYTES = 64 << 20
"""Composed frames kept, in bytes; at least one."""

Composed = npt.NDArray[np.uint16]


def composed(project: Project, frame: int, window: Box, last: int = LATEST) -> Composed:
    """Labels (h, w) of a window of one frame, as the project has them now, or had them after step `last`.

    What a locked object had when it was locked is settled first: later masks of others get what it leaves.
    """
    check_room(4 * window.height * window.width, f"Composing {window.height:,} x {window.width:,} px of frame {frame}")
    objects = project.objects(last)
    if any(state.locked is not None for state in objects.values()):
        return _Locked(project, frame).labels(window, last)
    rows = project.rows(frame, last=last).items()
    shown = (row for i, row in rows if i in objects and objects[i].alive(frame))
    return compose(project.patches(row for row in shown if not row.box.intersect(window).empty), window)


class _Locked:
    """Labels of a frame where objects are locked."""

    def __init__(self, project: Project, frame: int) -> None:
        self._project = project
        self._frame = frame
        self._traces = project.traces(frame)
        self._ids = list(self._traces)
        self._boxes = stacked(trace.box for trace in self._traces.values())

    def labels(self, window: Box, last: int = LATEST, among: Collection[int] = ()) -> Composed:
        """Labels (h, w) of a window after step `last`; only of the objects `among`, if there are any.

        Where something has changed around a locked object since, it has the pixels that it had when it was locked.
        """
        found = self._project.rows(self._frame, last=last, objects=among).items()
        rows = {i: r for i, r in found if self._state(i, last)[0] and not r.box.intersect(window).empty}
        fixed = {}
        for i, row in rows.items():
            locked = self._state(i, last)[1]
            if locked is not None and any(self._changed(j, locked, last) for j in self._near(row.box)):
                fixed[i] = locked
        labels = compose(self._project.patches(row for i, row in rows.items() if i not in fixed), window)
        for i, step in sorted(fixed.items(), key=lambda e: e[1], reverse=True):  # locked first: settled last
            inside = rows[i].box.intersect(window)
            mask = self.labels(inside, step, self._near(inside)) == i
            labels[inside.shift(-window.y0, -window.x0).slices][mask] = i
        return labels

    def _near(self, box: Box) -> list[int]:
        """Objects that ever had a mask there."""
        return [self._ids[k] for k in meeting(box, self._boxes).tolist()]

    def _state(self, object_id: int, last: int) -> tuple[bool, int | None]:
        """Whether an object is shown on the frame after a step, and since when it is locked then."""
        state = self._project.object_at(object_id, last)
        return (False, None) if state is None else (state.alive(self._frame), state.locked)

    def _changed(self, object_id: int, since: int, last: int) -> bool:
        """Whether an object's masks, its being there or its lock may be others after step `last` than after `since`."""
        steps = self._traces[object_id].steps
        written = bisect_right(steps, last) > bisect_right(steps, since)
        return written or self._state(object_id, since) != self._state(object_id, last)


class FrameCache:
    """The last composed frames, and paint on its way; shared by all views of a session.

    Parameters
    ----------
    project : Project
    last : int
        The frames as they were after this step; paint goes over those of today only.
    """

    def __init__(self, project: Project, last: int = LATEST) -> None:
        self._project = project
        self._last = last
        self._lock = threading.RLock()
        self._frames: OrderedDict[int, Composed] = OrderedDict()
        self._stamp = 0
        self._foreign = project.version()[1]
        self.paint: dict[int, Paint] = {}
        self.painter: int | None = None
        self.holding = 0
        self.refused: Callable[[IvosError], None] | None = None

    def forget(self, frame: int | None = None) -> None:
        """A frame, or everything, has changed."""
        with self._lock:
            self._stamp += 1
            if frame is None:
                self._frames.clear()
            else:
                self._frames.pop(frame, None)

    def frame(self, frame: int) -> Composed:
        """A whole frame's labels, not to be written to; as painted where there is paint."""
        return self.window(frame, Box(0, 0, *self._project.shape[1:]))

    def window(self, frame: int, window: Box) -> Composed:
        """A part of a frame; only that part is composed unless the whole is at hand."""
        paint = self.paint.get(frame)
        below = self._below(frame, window)
        return below if paint is None else paint.over(below, window)

    def _below(self, frame: int, window: Box) -> Composed:
        """A part of a frame without paint."""
        with self._lock:
            self._look_abroad()
            whole = self._frames.get(frame)
            if whole is not None:
                self._frames.move_to_end(frame)
                return whole[window.slices]
            stamp = self._stamp
        labels = composed(self._project, frame, window, self._last)
        if window.shape == self._project.shape[1:]:
            labels.flags.writeable = False
            self._keep(frame, labels, stamp)
        return labels

    def _keep(self, frame: int, labels: Composed, stamp: int) -> None:
        """Keep a composed frame, unless something has changed since it was begun."""
        with self._lock:
            if stamp == self._stamp:
                self._frames[frame] = labels
                while len(self._frames) > 1 and len(self._frames) * labels.nbytes > CACHE_BYTES:
                    self._frames.popitem(last=False)

    def boxes(self, frame: int) -> dict[int, Box]:
        """Where the objects' masks are on a frame, without paint; nothing is composed for it."""
        alive = {i for i, state in self._project.objects(self._last).items() if state.alive(frame)}
        return {i: row.box for i, row in self._project.rows(frame, last=self._last).items() if i in alive}

    def _look_abroad(self) -> None:
        """Forget everything where another process wrote to a project that is only read here."""
        foreign = self._project.version()[1]
        if foreign != self._foreign:
            self._foreign = foreign
            self.forget()


Index = int | slice | npt.NDArray[np.int64]


def normalise(key: Any, shape: tuple[int, ...]) -> tuple[Index, ...]:
    """An indexing key as one entry an axis: whole numbers from 0, slices with their steps, or arrays of whole numbers.

    Raises
    ------
    IndexError
        Too many entries, out of range, or of a kind that is not supported.
    """
    entries = list(key) if isinstance(key, tuple) else [key]
    entries = [e for entry in entries for e in _spread(entry, shape)]
    if sum(e is Ellipsis for e in entries) > 1:
        raise IndexError("an index can only have one ellipsis")
    if Ellipsis in [e for e in entries if not isinstance(e, np.ndarray)]:
        at = next(k for k, e in enumerate(entries) if e is Ellipsis)
        entries[at : at + 1] = [slice(None)] * (len(shape) - len(entries) + 1)
    if len(entries) > len(shape):
        raise IndexError(f"too many indices: {len(entries)} for {len(shape)} axes")
    entries += [slice(None)] * (len(shape) - len(entries))
    return tuple(_entry(e, n, axis) for axis, (e, n) in enumerate(zip(entries, shape, strict=True)))


def _spread(entry: Any, shape: tuple[int, ...]) -> list[Any]:
    """Boolean arrays as the places where they are true; lists as arrays."""
    if isinstance(entry, list | np.ndarray):
        values = np.asarray(entry)
        if values.dtype == np.bool_:
            return [np.asarray(places) for places in np.nonzero(values)]
        return [values]
    return [entry]


def _entry(entry: Any, length: int, axis: int) -> Index:
    if isinstance(entry, slice):
        return entry
    if isinstance(entry, np.ndarray) and entry.ndim > 0:
        if entry.size and not np.issubdtype(entry.dtype, np.integer):
            raise IndexError(f"axis {axis} is indexed with {entry.dtype}; whole numbers are needed")
        places = entry.astype(np.int64)
        if places.size and (places.min() < -length or places.max() >= length):
            raise IndexError(f"axis {axis} has {length} entries; asked for {places.min()} to {places.max()}")
        return np.where(places < 0, places + length, places)
    try:
        place = entry.__index__()
    except AttributeError:
        raise IndexError(f"axis {axis} can't be indexed with {entry!r}") from None
    if not -length <= place < length:
        raise IndexError(f"axis {axis} has {length} entries, 0 to {length - 1}; asked for {place}")
    return int(place % length)


def window_of(rows: Index, columns: Index, shape: tuple[int, int]) -> tuple[Box, tuple[Index, Index]] | None:
    """The smallest box that holds what is asked of a frame, and the index inside it; None where nothing is."""
    bounds, inside = [], []
    for entry, length in ((rows, shape[0]), (columns, shape[1])):
        if isinstance(entry, int):
            bounds.append((entry, entry + 1))
            inside.append(cast("Index", 0))
            continue
        places = np.arange(length)[entry] if isinstance(entry, slice) else entry
        if places.size == 0:
            return None
        low = int(places.min())
        bounds.append((low, int(places.max()) + 1))
        inside.append(_shifted(entry, places, low))
    (y0, y1), (x0, x1) = bounds
    return Box(y0, x0, y1, x1), (inside[0], inside[1])


def _shifted(entry: Index, places: npt.NDArray[np.int64], low: int) -> Index:
    if not isinstance(entry, slice):
        return places - low
    step = entry.step or 1
    return slice(None, None, step)


class Labels:
    """A session's result: array-like (T, H, W) uint16, 0 = background.

    Reads compose what is asked for, down to a window of one frame, and never wait for a network. Writes paint: the
    frame's objects that changed become exact masks, one annotation for all writes up to `commit` (which painting on,
    or reading, another frame, and everything else that the session is asked for, calls too). Frames that are being
    propagated refuse paint with `SessionBusy`.
    """

    dtype: np.dtype[np.uint16] = np.dtype(np.uint16)
    ndim = 3

    def __init__(self, session: Session, cache: FrameCache) -> None:
        self._session = session
        self._cache = cache
        self.shape: tuple[int, int, int] = session.shape

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def nbytes(self) -> int:
        return self.size * 2

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Composed]:
        return (self[frame] for frame in range(len(self)))

    def __repr__(self) -> str:
        return f"<Labels {self.shape[0]} frames of {self.shape[1]} x {self.shape[2]} px, uint16>"

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("labels are composed when they are read: an array of them is always a copy")
        return np.asarray(self[:], self.dtype if dtype is None else dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> npt.NDArray[Any]:
        return np.asarray(self)  # as a session can't be copied: napari duplicates layers so

    # -- reading

    def __getitem__(self, key: Any) -> Any:
        frames, rows, columns = normalise(key, self.shape)
        if isinstance(frames, int):
            self._leave(frames)
            return self._part(frames, rows, columns)
        if isinstance(frames, np.ndarray) and not (isinstance(rows, slice) and isinstance(columns, slice)):
            return self._points(*_together(frames, rows, columns))
        places = np.arange(self.shape[0])[frames]
        blank = np.broadcast_to(np.uint16(0), self.shape[1:])[rows, columns]
        check_room(2 * places.size * blank.size, f"An array of the labels of {places.size:,} frames")
        out = np.zeros((places.size, *np.shape(blank)), np.uint16)
        for k, frame in enumerate(places.ravel().tolist()):
            self._leave(frame)
            out[k] = self._part(frame, rows, columns)
        return out.reshape(places.shape + np.shape(blank))

    def _part(self, frame: int, rows: Index, columns: Index) -> Any:
        found = window_of(rows, columns, self.shape[1:])
        if found is None:
            return np.zeros(self.shape[1:], np.uint16)[rows, columns]
        box, inside = found
        part = self._cache.window(frame, box)[inside]
        return np.array(part) if np.ndim(part) else part

    def _points(self, t: npt.NDArray[np.int64], y: npt.NDArray[np.int64], x: npt.NDArray[np.int64]) -> Composed:
        out = np.zeros(t.shape, np.uint16)
        for frame in np.unique(t).tolist():
            at = t == frame
            self._leave(frame)
            out[at] = self._part(frame, y[at], x[at])
        return out

    def _leave(self, frame: int) -> None:
        """Whoever painted another frame and looks at this one has ended the stroke there."""
        cache = self._cache
        ended = cache.paint and frame not in cache.paint and not cache.holding
        if ended and cache.painter == threading.get_ident():
            self._session.commit_paint()

    # -- painting

    def boxes(self, frame: int) -> dict[int, Box]:
        """Where the objects' masks are on a frame, by object, at the most; nothing is composed for it."""
        return self._cache.boxes(frame)

    def __setitem__(self, key: Any, value: Any) -> None:
        frames, rows, columns = normalise(key, self.shape)
        values = np.asarray(value)
        if not (np.issubdtype(values.dtype, np.integer) or values.dtype == np.bool_):
            raise InputError(f"Labels are painted with whole numbers; got {values.dtype}.")
        if values.size and (int(values.min()) < 0 or int(values.max()) > 65535):
            raise InputError(f"Labels are painted with ids from 0 to 65535; got {values.min()} to {values.max()}.")
        if isinstance(frames, int):
            self._session.paint(frames, (rows, columns), values)
        elif isinstance(frames, np.ndarray) and not (isinstance(rows, slice) and isinstance(columns, slice)):
            t, y, x = _together(frames, rows, columns)
            spread = np.broadcast_to(values, t.shape)
            for frame in np.unique(t).tolist():
                at = t == frame
                self._session.paint(frame, (y[at], x[at]), spread[at])
        else:
            places = np.arange(self.shape[0])[frames].ravel()
            part = np.shape(np.broadcast_to(np.uint16(0), self.shape[1:])[rows, columns])
            spread = np.broadcast_to(values, (places.size, *part))
            for k, frame in enumerate(places.tolist()):
                self._session.paint(frame, (rows, columns), spread[k])

    def commit(self) -> bool:
        """End the stroke: what was painted becomes that frame's annotation.

        Returns
        -------
        bool
            False where it has to wait until the session is free; then the session does it by itself.
        """
        return self._session.commit_paint()


class LabelsBefore(Labels):
    """The result as it was before the last round, read like `Labels`; nothing can be painted there."""

    def __setitem__(self, key: Any, value: Any) -> None:
        raise InputError("The result as it was before the last round is only looked at: paint in session.labels.")


def _together(*indices: Index) -> tuple[npt.NDArray[np.int64], ...]:
    if any(isinstance(i, slice) for i in indices):
        raise IndexError("arrays of indices go with whole numbers or arrays on the other axes, not with slices")
    return tuple(np.asarray(a, np.int64) for a in np.broadcast_arrays(*(cast("Any", i) for i in indices)))


class Quality:
    """How far each mask can be trusted: array-like (T, K) float32 in 0..1, column k is `session.objects[k]`.

    1 where the user painted; from the network's certainty and the agreement with the neighbouring frame elsewhere;
    0 where an object has no mask yet. `seen` tells that 0 from the quality 0, and masks from their absence.
    """

    dtype: np.dtype[np.float32] = np.dtype(np.float32)
    ndim = 2

    def __init__(self, project: Project, object_ids: tuple[int, ...]) -> None:
        self._project = project
        self._ids = object_ids
        self.shape = (project.shape[0], len(object_ids))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<Quality {self.shape[0]} frames x {self.shape[1]} objects>"

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("qualities are read from the project: an array of them is always a copy")
        return np.asarray(self[:, :], self.dtype if dtype is None else dtype)

    def __getitem__(self, key: Any) -> Any:
        frames, columns = normalise(key, self.shape)
        places = np.arange(self.shape[0])[frames]
        chosen = np.arange(self.shape[1])[columns]
        if places.size == 0 or chosen.size == 0:
            return np.zeros(self.shape, np.float32)[frames, columns]
        low, high = int(places.min()), int(places.max()) + 1
        used = np.unique(chosen)
        values = np.zeros((high - low, used.size), np.float32)
        for k, column in enumerate(used.tolist()):
            for frame, quality, _ in self._project.quality(self._ids[column], range(low, high)):
                values[frame - low, k] = min(max(quality, 0.0), 1.0)
        inside = np.searchsorted(used, chosen)
        if isinstance(columns, slice):
            return values[places - low][..., inside]
        if isinstance(frames, slice):
            return values[places - low][:, inside]
        return values[places - low, inside]

    def seen(self, object_id: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
        """One object's qualities, and where it was found.

        Parameters
        ----------
        object_id : int
            One that exists.

        Returns
        -------
        quality : (T,) float32 array
            Its column: where it was not found, how sure that is.
        found : (T,) int8 array
            1: it has a mask; 0: it was looked for, or annotated, and is not there; -1: no round has come there yet.
        """
        quality = np.zeros(self.shape[0], np.float32)
        found = np.full(self.shape[0], -1, np.int8)
        for frame, value, filled in self._project.quality(object_id, range(self.shape[0])):
            quality[frame], found[frame] = min(max(value, 0.0), 1.0), filled
        return quality, found
