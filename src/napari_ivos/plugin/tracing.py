"""A stroke as napari and as the session have it, and the way from one to the other; no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_ivos.plugin import geometry
from napari_ivos.plugin.strokes import pieces_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Shapes

    from napari_ivos.plugin.geometry import Layout
    from napari_ivos.session import StrokeRecord

DOT = 0.25
"""A click is shown as a line of twice this length in pixels."""


@dataclass(eq=False)
class Drawn:
    """A stroke of the open round, as the session and as napari have it.

    Parameters
    ----------
    object_id, frame : int
    points : (N, 2) float64 array
        (row, col) in pixels of the frame.
    vertices : (N, ndim) float32 array
        As in the layer.
    stroke : int or None
        Its id in the session; None while it is on its way there.
    withdrawn : bool
        It was deleted or moved on its way there.
    """

    object_id: int
    frame: int
    points: npt.NDArray[np.float64]
    vertices: npt.NDArray[np.float32]
    stroke: int | None = None
    withdrawn: bool = False

    def same(self, record: StrokeRecord) -> bool:
        """Whether the session has this line, on this frame, as that stroke."""
        return record.frame == self.frame and np.array_equal(record.points, self.points)


@dataclass(frozen=True)
class Changes:
    """What was drawn, moved or deleted since the last look; a moved stroke is gone and new."""

    new: tuple[Drawn, ...] = ()
    gone: tuple[Drawn, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Tracing:
    """The way between lines in the layers of a viewer and strokes in the frames of an image layer.

    Parameters
    ----------
    viewer : ViewerModel
    image : Image
        The layer whose frames are segmented.
    layout : Layout
        Its axes.
    """

    viewer: ViewerModel
    image: Image
    layout: Layout

    def strokes_of(
        self, object_id: int, layer: Shapes, vertices: npt.NDArray[np.float32]
    ) -> tuple[list[Drawn], list[str]]:
        """A layer's line as strokes, and what is to be said of the parts that can't be any."""
        reason = geometry.drawable(self.viewer)
        if reason:
            return [], [reason]
        inside = geometry.between(layer, self.image, np.asarray(vertices, float))
        for axis, at in self.layout.held.items():
            if self.layout.shape[axis] > 1 and (np.rint(inside[:, axis]) != at).any():
                letter = self.layout.letters[axis].lower()
                return [], [f"A stroke away from {letter} = {at} was dropped: only that plane is segmented."]
        frames = np.zeros(len(inside)) if self.layout.frame is None else inside[:, self.layout.frame]
        pieces, notes = pieces_of(np.column_stack([frames, inside[:, -2:]]), self.layout.stack_shape)
        whole = len(pieces) == 1 and len(pieces[0].points) == len(vertices) > 1
        drawn = []
        for piece in pieces:
            shown = vertices if whole else self.vertices(layer, piece.frame, piece.points)
            drawn.append(Drawn(object_id, piece.frame, piece.points, shown))
        return drawn, notes

    def vertices(self, layer: Shapes, frame: int, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Points of a frame as vertices of a layer; a dot as a short line."""
        if len(points) == 1:
            points = points + [[0, -DOT], [0, DOT]]
        place = np.zeros((len(points), self.layout.ndim))
        if self.layout.frame is not None:
            place[:, self.layout.frame] = frame
        for axis, at in self.layout.held.items():
            place[:, axis] = at
        place[:, -2:] = points
        return geometry.between(self.image, layer, place).astype(np.float32)
