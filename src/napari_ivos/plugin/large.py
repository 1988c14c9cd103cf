"""Frames too large to be shown and painted whole: a read-only result of several resolutions, and a cut-out to paint in.

napari can't paint in layers of several resolutions, and one resolution of a frame of more than 8,192 px is more than it
can hold. So the result is shown as a pyramid that composes what is looked at, and painted through a second layer that
holds the part of the frame in view. Nothing here is ever as large as a frame.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.plugin import geometry
from napari_ivos.regions import Box, meeting, stacked
from napari_ivos.session.labels import normalise, window_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from napari_ivos.plugin.geometry import Layout
    from napari_ivos.session import Labels as SessionLabels

Array = npt.NDArray[Any]
LARGEST = 8192
"""Rows or columns up to which a frame is shown and painted as it is."""
COARSEST = 1024
"""The last resolution of a pyramid has at most this many rows and columns."""
TILE = 2048
"""Side in pixels of the parts in which a frame is composed."""
CUT_AT_MOST = 4096
CUT_AT_LEAST = 512
"""Sides of the part that is painted in, in pixels."""
ROOM = 1.5
"""Side of that part over the view's: so much can be panned before it has to move."""


def is_large(layout: Layout) -> bool:
    """Whether frames are shown as a pyramid and painted in a cut-out."""
    return max(layout.stack_shape[1:]) > LARGEST


def tiles(window: Box, boxes: dict[int, Box], side: int = TILE) -> Iterator[Box]:
    """The parts of a window, at most `side` pixels wide and high, in which there may be masks."""
    known = stacked(boxes.values())
    for y in range(window.y0, window.y1, side):
        for x in range(window.x0, window.x1, side):
            tile = Box(y, x, y + side, x + side).intersect(window)
            inside = meeting(tile, known)
            if len(inside):
                y0, x0 = known[inside, :2].min(axis=0).tolist()
                y1, x1 = known[inside, 2:].max(axis=0).tolist()
                yield tile.intersect(Box(y0, x0, y1, x1))


def areas(labels: SessionLabels, frame: int) -> npt.NDArray[np.int64]:
    """Pixels of each object on a frame, at its id: (K + 1,); only parts with masks are composed."""
    counts = np.zeros(1, np.int64)
    for tile in tiles(Box(0, 0, *labels.shape[1:]), labels.boxes(frame)):
        found = np.bincount(labels[(frame, *tile.slices)].ravel())
        counts = np.pad(counts, (0, max(len(found) - len(counts), 0)))
        counts[: len(found)] += found
    return counts


class Coarse:
    """Every `step`-th row and column of a session's labels: array-like (T, H', W') uint16, read-only.

    Parameters
    ----------
    labels : session's labels
        (T, H, W) uint16.
    step : int
    """

    dtype: np.dtype[np.uint16] = np.dtype(np.uint16)
    ndim = 3

    def __init__(self, labels: SessionLabels, step: int) -> None:
        self._labels = labels
        self._step = step
        frames, height, width = labels.shape
        self.shape = (frames, -(-height // step), -(-width // step))

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        return self.size * 2

    def __deepcopy__(self, memo: dict[int, Any]) -> Array:
        return np.asarray(self)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.asarray(self[...], self.dtype if dtype is None else dtype)

    def __getitem__(self, key: Any) -> Any:
        frames, rows, columns = normalise(key, self.shape)
        found = window_of(rows, columns, self.shape[1:])
        if found is None:
            return np.zeros(self.shape, np.uint16)[frames, rows, columns]
        box, inside = found
        if isinstance(frames, int):
            return self._window(frames, box)[inside]
        chosen = np.arange(self.shape[0])[frames]
        parts = [self._window(int(frame), box)[inside] for frame in chosen.ravel()]
        shape = np.shape(np.empty(box.shape, bool)[inside])
        return np.reshape(np.array(parts, np.uint16), chosen.shape + shape)

    def _window(self, frame: int, box: Box) -> npt.NDArray[np.uint16]:
        """A part of a frame, in pixels of this resolution."""
        step = self._step
        out = np.zeros(box.shape, np.uint16)
        boxes = {i: _coarser(b, step) for i, b in self._labels.boxes(frame).items()}
        for tile in tiles(box, boxes, max(TILE // step, 1)):
            full = tuple(slice(s.start * step, s.stop * step, step) for s in tile.slices)
            out[tile.shift(-box.y0, -box.x0).slices] = self._labels[(frame, *full)]
        return out


def _coarser(box: Box, step: int) -> Box:
    """The rows and columns of a coarser resolution that a box may reach into."""
    return Box(box.y0 // step, box.x0 // step, -(-box.y1 // step), -(-box.x1 // step))


def pyramid(labels: SessionLabels, layout: Layout) -> list[Any]:
    """The result at full resolution and coarser, with the axes of the image layer: for a multiscale layer."""
    levels: list[Any] = []
    step = 1
    while True:
        level = labels if step == 1 else Coarse(labels, step)
        if layout.frame == 0 and layout.ndim == 3:
            levels.append(level)
        else:
            shape = (*layout.shape[:-2], *level.shape[1:])
            levels.append(geometry.LabelsView(level, replace(layout, shape=shape)))
        if max(level.shape[1:]) <= COARSEST:
            return levels
        step *= 2


class CutOut:
    """A part of all frames of a session's labels: array-like (..., h, w), read and painted through.

    Parameters
    ----------
    data : array-like (..., H, W) uint16
        The labels, with the axes of the image layer.
    box : Box
        The part.
    """

    def __init__(self, data: Any, box: Box) -> None:
        self._data = data
        self.box = box
        self.shape: tuple[int, ...] = (*data.shape[:-2], *box.shape)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(np.uint16)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        return self.size * 2

    def __len__(self) -> int:
        return self.shape[0]

    def __deepcopy__(self, memo: dict[int, Any]) -> Array:
        return np.asarray(self)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.asarray(self[...], self.dtype if dtype is None else dtype)

    def _moved(self, key: Any) -> tuple[Any, ...]:
        """An index of the part as an index of the whole."""
        entries = list(normalise(key, self.shape))
        for axis, offset in ((-2, self.box.y0), (-1, self.box.x0)):
            entry = entries[axis]
            if isinstance(entry, slice):
                start, stop, step = entry.indices(self.shape[axis])
                end = stop + offset
                entries[axis] = slice(start + offset, end if end >= 0 else None, step)
            else:
                entries[axis] = entry + offset
        return tuple(entries)

    def __getitem__(self, key: Any) -> Any:
        return self._data[self._moved(key)]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._data[self._moved(key)] = value


def view_box(viewer: ViewerModel, image: Image, layout: Layout) -> Box:
    """The part of a frame that is on screen, in its pixels; may be empty."""
    camera = getattr(viewer, "scene", viewer).camera
    canvas = getattr(viewer, "canvas", None)
    size = np.asarray(viewer._canvas_size if canvas is None else canvas.size, float)
    half = size / 2 / camera.zoom
    corners = []
    for sign in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        world = np.array(viewer.dims.point, float)
        world[-2:] = np.asarray(camera.center[-2:]) + half * sign
        corners.append(np.asarray(image.world_to_data(world))[-2:])
    low, high = np.floor(np.min(corners, axis=0)), np.ceil(np.max(corners, axis=0))
    return Box(*(int(v) for v in (*low, *high))).clip(layout.stack_shape[1:])


def cut_for(view: Box, shape: tuple[int, int]) -> Box:
    """The part to paint in for a view: around its middle, with room to pan, inside the frame."""
    bounds = []
    for low, high, length in ((view.y0, view.y1, shape[0]), (view.x0, view.x1, shape[1])):
        side = min(max(int((high - low) * ROOM), CUT_AT_LEAST), CUT_AT_MOST, length)
        start = min(max((low + high - side) // 2, 0), length - side)
        bounds.append((start, start + side))
    (y0, y1), (x0, x1) = bounds
    return Box(y0, x0, y1, x1)


class Brush:
    """The layer that is painted in: a cut-out of the result that goes along with the view while it is the active layer.

    Parameters
    ----------
    viewer : ViewerModel
    image : Image
    layout : Layout
    data : array-like
        The labels at full resolution, with the axes of the image layer.
    offset : (ndim,) array
        Where the labels' first pixel is, in the image's pixels.
    on_paint : callable
        Told of each paint event.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        image: Image,
        layout: Layout,
        data: Any,
        offset: npt.NDArray[np.float64],
        on_paint: Callable[..., None],
    ) -> None:
        from napari.layers import Labels

        self.viewer, self.image, self.layout = viewer, image, layout
        self._data, self._offset = data, offset
        self._on_paint = on_paint
        self._pressed = False
        cut = CutOut(data, cut_for(view_box(viewer, image, layout), layout.stack_shape[1:]))
        self.layer: Labels = Labels(cut, name=f"{image.name} [paint here]", opacity=0.55, **self._placed(cut.box))
        self.layer.bounding_box.visible = True
        self.layer.events.paint.connect(on_paint)
        self.layer.mouse_drag_callbacks.append(self._on_drag)
        viewer.add_layer(self.layer)
        self._camera = getattr(viewer, "scene", viewer).camera
        self._camera.events.center.connect(self.follow)
        self._camera.events.zoom.connect(self.follow)
        viewer.layers.selection.events.active.connect(self.follow)

    @property
    def box(self) -> Box:
        """The part of the frame that can be painted in."""
        box: Box = self.layer.data.box
        return box

    def _placed(self, box: Box) -> dict[str, Any]:
        offset = np.array(self._offset, float)
        offset[-2:] += box.y0, box.x0
        return geometry.shifted(self.image, offset)

    def _on_drag(self, layer: object, event: Any) -> Generator[None]:
        self._pressed = True
        yield
        while event.type == "mouse_move":
            yield
        self._pressed = False

    def follow(self, event: object = None) -> None:
        """Go to where the view is, if it is not inside the part already; not in the middle of a stroke."""
        if self._pressed or self.viewer.layers.selection.active is not self.layer:
            return
        self.move()

    def show(self, data: Any) -> None:
        """Hold the same part of other labels."""
        self._data = data
        self._hold(self.box)

    def _hold(self, box: Box) -> None:
        editable = self.layer.editable
        self.layer.data = CutOut(self._data, box)
        self.layer.editable = editable  # napari lets new data be painted

    def move(self) -> None:
        """Hold the part of the frame that is in view."""
        view = view_box(self.viewer, self.image, self.layout)
        if view.empty or view.intersect(self.box) == view:
            return
        box = cut_for(view, self.layout.stack_shape[1:])
        if box == self.box:
            return
        self._hold(box)
        self.place()

    def place(self) -> None:
        """Lie where that part of the image lies."""
        geometry.place(self.layer, self._placed(self.box))

    def disconnect(self) -> None:
        """Hear nothing more, and show no frame around the part."""
        self.layer.bounding_box.visible = False
        self._camera.events.center.disconnect(self.follow)
        self._camera.events.zoom.disconnect(self.follow)
        self.viewer.layers.selection.events.active.disconnect(self.follow)
        self.layer.events.paint.disconnect(self._on_paint)
        if self._on_drag in self.layer.mouse_drag_callbacks:
            self.layer.mouse_drag_callbacks.remove(self._on_drag)
