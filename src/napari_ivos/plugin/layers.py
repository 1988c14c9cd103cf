"""Layers on one side, a session on the other: `StrokeLayers` and `Result` do the work, here they are one; no Qt.

Layers are held as objects, never by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_ivos.plugin import geometry
from napari_ivos.plugin.history_keys import HistoryKeys
from napari_ivos.plugin.result import Result
from napari_ivos.plugin.stroke_layers import StrokeLayers
from napari_ivos.scribbles import BACKGROUND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer

    from napari_ivos.plugin.geometry import Layout
    from napari_ivos.session import Session


class Binding:
    """The layers of one session in one viewer.

    Parameters
    ----------
    viewer : ViewerModel
    image : Image
        The layer whose frames are segmented.
    layout : Layout
        Its axes.
    session : Session
    on_change : callable
        Told that strokes, paint or the set of layers may have changed; `strokes.read` looks what it was.

    Attributes
    ----------
    result : Result
        The layer of the masks, and the one in which they are painted.
    strokes : StrokeLayers
        A layer of strokes for each object.
    keys : HistoryKeys
        Ctrl-Z and Ctrl-Shift-Z in all of them, and in the image.
    hidden : set of int
        Objects whose masks and strokes are not shown.
    """

    def __init__(
        self, viewer: ViewerModel, image: Image, layout: Layout, session: Session, on_change: Callable[[], None]
    ) -> None:
        self.viewer, self.image, self.layout, self.session = viewer, image, layout, session
        self._on_change = on_change
        self.hidden: set[int] = set()
        self.keys = HistoryKeys()
        self.result = Result(viewer, image, layout, session, self.keys, on_change)
        self.strokes = StrokeLayers(viewer, image, layout, session, self.hidden, self.keys, on_change)
        self.keys.bind(image)
        viewer.dims.events.ndisplay.connect(self._turned)
        for name in geometry.spatial(image):
            getattr(image.events, name).connect(self._moved)

    # -- layers

    @property
    def labels(self) -> Labels:
        """The layer with the result."""
        return self.result.labels

    @property
    def paper(self) -> Labels:
        """The layer in which masks are painted: the result, or the part of a large one that is in view."""
        return self.result.paper

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers that are here because of the session."""
        return (*self.result.layers, *self.strokes.layers)

    def mend(self) -> None:
        """Make the layers of the result again where they were deleted."""
        if self.result.mend() or self.result.mend_paper():
            self.colour()

    def disconnect(self) -> None:
        """Hear nothing more from the layers."""
        self.keys.told = None
        self.viewer.dims.events.ndisplay.disconnect(self._turned)
        for name in geometry.spatial(self.image):
            getattr(self.image.events, name).disconnect(self._moved)
        self.keys.unbind(self.image)
        self.strokes.disconnect()
        self.result.disconnect()

    def retire(self) -> None:
        """Let go of the session: layers are emptied and hidden, and serve the next one."""
        self.disconnect()
        self.strokes.retire()
        self.result.retire()

    # -- showing

    def colour(self) -> None:
        """Give masks and strokes the objects' colours, names and visibility."""
        objects = self.session.objects
        self.result.colour(objects, self.hidden)
        self.strokes.colour(objects)

    def _moved(self, event: object = None) -> None:
        """The image was scaled, moved or turned, by the user or a script."""
        self.result.move()
        self.strokes.move()

    def _turned(self, event: object = None) -> None:
        """The view became 3D or flat."""
        reason = geometry.drawable(self.viewer)
        if reason:
            self.strokes.refuse(reason)
            self._on_change()
        else:
            self.strokes.flattened()

    def draw_for(self, object_id: int) -> None:
        """Make the layer of an object's strokes the active one, in freehand mode."""
        self.strokes.draw_for(object_id)
        if object_id != BACKGROUND:
            self.paper.selected_label = object_id

    @property
    def tool(self) -> str:
        """What a drag does now: "draw" a stroke, "paint" a mask, or "" where no layer for that is the active one."""
        active = self.viewer.layers.selection.active
        if active is self.paper:
            return "paint"
        return "" if self.strokes.object_of(active) is None else "draw"

    def paint_for(self, object_id: int) -> None:
        """Make the layer in which masks are painted the active one, with its brush."""
        self.mend()
        self.result.paint_for(object_id)

    def refresh(self, frames: Iterable[int] | None = None) -> bool:
        """Show the result again, if what changed (None: everything) is on screen; whether it was."""
        if frames is not None and self.frame not in frames:
            return False
        if self.result.mend():
            self.colour()
        self.result.refresh()
        return True

    def describe(self, quality: Mapping[int, float]) -> None:
        """Fill the result layer's features: each object's area and quality on the frame on screen."""
        self.result.describe(self.frame, quality)

    @property
    def frame(self) -> int:
        """The frame on screen."""
        return geometry.frame_shown(self.viewer, self.image, self.layout)

    @property
    def seen(self) -> int:
        """The same for what is done to it: an error where it is not a frame of the image that is on screen."""
        return geometry.frame_seen(self.viewer, self.image, self.layout)

    def show_frame(self, frame: int) -> None:
        """Put a frame on screen."""
        geometry.show_frame(self.viewer, self.image, self.layout, frame)
