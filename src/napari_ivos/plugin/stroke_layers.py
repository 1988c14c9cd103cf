"""Shapes layers on one side, a session's strokes on the other; no Qt.

One layer holds the open round's strokes of one object, so that nothing depends on napari's per-shape colours or
features; the strokes of closed rounds are in one layer that can't be edited. Layers are held as objects, never by name,
and emptied and hidden, never removed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.plugin import geometry, spares
from napari_ivos.plugin.strokes import difference, outline
from napari_ivos.plugin.tracing import Changes, Drawn, Tracing
from napari_ivos.scribbles import BACKGROUND

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from napari.components import ViewerModel
    from napari.layers import Image, Shapes

    from napari_ivos.plugin.geometry import Layout
    from napari_ivos.plugin.history_keys import HistoryKeys
    from napari_ivos.session import ObjectInfo, Session, StrokeRecord

BACKGROUND_COLOUR = "#f0f0f0"
EARLIER_OPACITY = 0.35
OPACITY = 0.7
BY_CLICKS = ("add_polygon", "add_polyline", "add_polygon_lasso")
"""Tools whose lines are made click by click, and end with a double click, Escape or another tool."""


class StrokeLayers:
    """The strokes of one session in one viewer.

    Parameters
    ----------
    viewer : ViewerModel
    image : Image
        The layer whose frames are segmented.
    layout : Layout
        Its axes.
    session : Session
    hidden : set of int
        Objects that are not shown.
    keys : HistoryKeys
        Bound in its layers.
    on_change : callable
        Told that strokes, or the set of layers, may have changed; `read` looks what it was.

    Attributes
    ----------
    pressed : bool
        A mouse button is held.
    behind : bool
        The session's strokes came while one was held: `adopt` is to be called again.
    on_stroke : callable or None
        Told of a stroke that has just ended, before napari draws it.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        image: Image,
        layout: Layout,
        session: Session,
        hidden: set[int],
        keys: HistoryKeys,
        on_change: Callable[[], None],
    ) -> None:
        self.viewer, self.image, self.layout, self.session = viewer, image, layout, session
        self._hidden = hidden
        self._keys = keys
        self._on_change = on_change
        self._tracing = Tracing(viewer, image, layout)
        self._strokes: dict[int, Shapes] = {}
        self._drawn: dict[int, list[Drawn]] = {}
        self._earlier: Shapes | None = None
        self._earlier_shown: tuple[int, ...] = ()
        self._width = max(1.0, max(layout.shape[-2:]) / 160)
        self._writing = self.pressed = self._dragged = self.behind = False
        self._notes: list[str] = []
        self.on_stroke: Callable[[Drawn], None] | None = None
        viewer.layers.events.removed.connect(self._tell)
        viewer.layers.selection.events.active.connect(self._released)

    # -- layers

    def _add(self, name: str, **options: Any) -> Shapes:
        from napari.layers import Shapes

        placed = geometry.spatial(self.image)
        shapes: Shapes | None = spares.spare(self.viewer, Shapes, self.layout.ndim)
        if shapes is None:
            more = {"edge_width": self._width, "face_color": "transparent", **placed, **options}
            shapes = Shapes(ndim=self.layout.ndim, name=name, **more)
            self.viewer.add_layer(shapes)
        else:
            spares.reuse(self.viewer, shapes, name, {"opacity": OPACITY, **placed, **options})
        shapes.events.data.connect(self._tell)
        shapes.events.features.connect(self._tell)  # all that napari tells of lines that are pasted
        shapes.mouse_drag_callbacks.append(self._on_drag)
        self._keys.bind(shapes)
        return shapes

    def layer_of(self, object_id: int) -> Shapes:
        """The layer for strokes of an object (0: background); made, or made again, where it is missing."""
        layer = self._strokes.get(object_id)
        if layer is None or layer not in self.viewer.layers:
            name = "background" if object_id == BACKGROUND else self._info(object_id).name
            layer = self._add(f"{name} (strokes)", edge_color=self._colour(object_id))
            self._strokes[object_id] = layer
            self._write(object_id)
        return layer

    @property
    def layers(self) -> tuple[Shapes, ...]:
        """All of them, those of earlier rounds first."""
        return (*(() if self._earlier is None else (self._earlier,)), *self._strokes.values())

    def move(self) -> None:
        """Lie where the image lies now."""
        for layer in self.layers:
            geometry.place(layer, geometry.spatial(self.image))

    def object_of(self, layer: object) -> int | None:
        """Whose strokes a layer holds; None where it isn't one of ours."""
        return next((i for i, ours in self._strokes.items() if ours is layer), None)

    def _info(self, object_id: int) -> ObjectInfo:
        return next(o for o in self.session.objects if o.id == object_id)

    def _colour(self, object_id: int) -> str:
        return next((o.colour for o in self.session.objects if o.id == object_id), BACKGROUND_COLOUR)

    # -- events, which only ring

    def _tell(self, event: object = None) -> None:
        if self._writing:
            return
        self._on_change()
        layer = getattr(event, "source", None)
        object_id = self.object_of(layer)
        if object_id is not None and self._dragged and not self.pressed and self.on_stroke is not None:
            drawn = self._just_drawn(object_id, layer)
            if drawn is not None:
                self.on_stroke(drawn)

    def _just_drawn(self, object_id: int, layer: Any) -> Drawn | None:
        """A stroke that has just ended, where there is nothing to mend; all else is left to the next `read`.

        Called while napari ends the stroke, so the layer is only looked at. The networks begin before the window
        draws the stroke, which would keep them waiting for 40 ms where that is done in software.
        """
        known = self._drawn.setdefault(object_id, [])
        present = _lines(layer)
        lost, fresh = difference([d.vertices for d in known], present)
        if lost or len(fresh) != 1:
            return None
        made, said = self._tracing.strokes_of(object_id, layer, present[fresh[0]])
        if said or len(made) != 1 or not np.array_equal(made[0].vertices, present[fresh[0]]):
            return None
        known.append(made[0])
        return made[0]

    def _released(self, event: object = None) -> None:
        self.pressed = False
        self._on_change()

    def _on_drag(self, layer: object, event: Any) -> Generator[None]:
        self.pressed, self._dragged = True, False
        yield
        while event.type == "mouse_move":
            self._dragged = True
            yield
        self.pressed = False
        self._on_change()

    def disconnect(self) -> None:
        """Hear nothing more from the layers."""
        self.on_stroke = None
        self.viewer.layers.events.removed.disconnect(self._tell)
        self.viewer.layers.selection.events.active.disconnect(self._released)
        for layer in self.layers:
            self._keys.unbind(layer)
            layer.events.data.disconnect(self._tell)
            layer.events.features.disconnect(self._tell)
            if self._on_drag in layer.mouse_drag_callbacks:
                layer.mouse_drag_callbacks.remove(self._on_drag)

    def retire(self) -> None:
        """Let go of the session: layers are emptied and hidden."""
        self._drawn.clear()
        for layer in self.layers:
            if layer in self.viewer.layers:
                spares.retire(layer)
                self._fill(layer, [], BACKGROUND_COLOUR)

    # -- reading strokes

    def read(self) -> Changes:
        """What the user drew, moved or deleted since the last call; nothing while a mouse button is held."""
        if self.pressed:
            return Changes()
        new: list[Drawn] = []
        gone: list[Drawn] = []
        notes, self._notes = self._notes, []
        for object_id, layer in self._strokes.items():
            if layer in self.viewer.layers:
                self._read_layer(object_id, layer, new, gone, notes)
        return Changes(tuple(new), tuple(gone), tuple(dict.fromkeys(notes)))

    def _read_layer(self, object_id: int, layer: Shapes, new: list[Drawn], gone: list[Drawn], notes: list[str]) -> None:
        if layer.mode in BY_CLICKS and _unfinished(layer) and layer is self.viewer.layers.selection.active:
            return
        untidy = self._finish(layer)
        present = _lines(layer)
        known = self._drawn.setdefault(object_id, [])
        lost, fresh = difference([d.vertices for d in known], present)
        clicked = untidy and not self._dragged
        if clicked and len(fresh) and fresh[-1] == len(present) - 1 and len(present[-1]) > 1:
            present[-1] = present[-1][:-1]  # the vertex that follows the mouse
        gone += [known[k] for k in lost]
        self._drawn[object_id] = [d for k, d in enumerate(known) if k not in lost]
        for k in fresh:
            made, said = self._tracing.strokes_of(object_id, layer, present[k])
            notes += said
            untidy |= len(made) != 1 or not np.array_equal(made[0].vertices, present[k])
            new += made
            self._drawn[object_id] += made
        if untidy:
            self._write(object_id)

    def _finish(self, layer: Shapes) -> bool:
        """End a path that is still being drawn although no button is held (napari leaves it so after a click)."""
        if not _unfinished(layer):
            return False
        mode, self._writing = layer.mode, True
        try:
            layer.mode = "pan_zoom"
            layer.mode = mode
        finally:
            self._writing = False
        return True

    # -- showing strokes

    def adopt(self, records: Iterable[StrokeRecord], open_round: int, on_their_way: Iterable[Drawn] = ()) -> None:
        """Let the layers show the session's strokes: the open round's each in its object's layer, earlier ones faded.

        Parameters
        ----------
        records : iterable of StrokeRecord
            All strokes of the session.
        open_round : int
            The round that the next stroke belongs to.
        on_their_way : iterable of Drawn
            Strokes that the session will get; all others that it doesn't have are taken away.
        """
        self.behind = self.pressed
        if self.pressed:  # napari holds on to the place of the line that is being drawn
            return
        everything = list(records)
        waiting = set(map(id, on_their_way))
        current: dict[int, list[StrokeRecord]] = {}
        for record in everything:
            if record.round == open_round:
                current.setdefault(record.object_id, []).append(record)
        for object_id in sorted({*current, *self._drawn}):
            self._adopt_object(object_id, current.get(object_id, []), waiting)
        self._show_earlier([r for r in everything if r.round != open_round])

    def _adopt_object(self, object_id: int, records: list[StrokeRecord], waiting: set[int]) -> None:
        before = self._drawn.get(object_id, [])
        by_id = {r.id: r for r in records}
        kept = [d for d in before if d.stroke in by_id]
        missing = [r for r in records if r.id not in {d.stroke for d in kept}]
        for drawn in (d for d in before if d.stroke is None):
            same = next((r for r in missing if drawn.same(r)), None)
            if same is not None:
                drawn.stroke = same.id
                missing.remove(same)
                kept.append(drawn)
            elif id(drawn) in waiting:
                kept.append(drawn)
        if len(kept) == len(before) and not missing:
            return
        layer = self.layer_of(object_id)
        kept += [
            Drawn(object_id, r.frame, r.points, self._tracing.vertices(layer, r.frame, r.points), r.id) for r in missing
        ]
        self._drawn[object_id] = kept
        self._write(object_id)

    def _write(self, object_id: int) -> None:
        """Put what is known of an object's strokes into its layer."""
        drawn = self._drawn.get(object_id, [])
        self._fill(self._strokes[object_id], [d.vertices for d in drawn], self._colour(object_id))

    def _fill(self, layer: Shapes, lines: list[npt.NDArray[np.float32]], colours: str | list[str]) -> None:
        if not lines and layer.nshapes == 0:
            return
        self._finish(layer)
        mode, editable, self._writing = layer.mode, layer.editable, True
        try:
            layer.selected_data = set()
            layer.data = []
            if lines:
                layer.add_paths(lines, edge_color=colours, edge_width=self._width, face_color="transparent")
            layer.selected_data = set()
            if isinstance(colours, str):
                layer.current_edge_color = colours
            layer.editable = editable
            layer.mode = mode
        finally:
            self._writing = False

    def _show_earlier(self, records: list[StrokeRecord]) -> None:
        ids = tuple(r.id for r in records)
        present = self._earlier is not None and self._earlier in self.viewer.layers
        if ids == self._earlier_shown and (present or not ids):
            return
        if not present:
            active = self.viewer.layers.selection.active
            self._earlier = self._add("earlier strokes", opacity=EARLIER_OPACITY)
            if active is not None:
                self.viewer.layers.selection.active = active
        layer = self._earlier
        if layer is None:
            return
        known = {o.id: o.colour for o in self.session.objects} | {BACKGROUND: BACKGROUND_COLOUR}
        shown = [r for r in records if r.object_id in known]
        lines = [self._tracing.vertices(layer, r.frame, r.points) for r in shown]
        self._fill(layer, lines, [known[r.object_id] for r in shown])
        layer.editable = False
        self._earlier_shown = ids

    # -- showing objects

    def colour(self, objects: Iterable[ObjectInfo]) -> None:
        """Give strokes the objects' colours, names and visibility."""
        known = {o.id: o for o in objects}
        self._writing = True
        try:
            for object_id, layer in self._strokes.items():
                if object_id != BACKGROUND:
                    self._dress(layer, known.get(object_id))
        finally:
            self._writing = False

    def _dress(self, layer: Shapes, info: ObjectInfo | None) -> None:
        if info is None:
            layer.visible = False
            return
        if layer.name != f"{info.name} (strokes)":
            layer.name = f"{info.name} (strokes)"
        if layer.visible == (info.id in self._hidden):  # setting it to what it is would end drawing
            layer.visible = info.id not in self._hidden
        if layer.editable == info.locked:
            layer.editable = not info.locked
            if layer is self.viewer.layers.selection.active:
                self._ready(layer)
        if layer.nshapes:
            layer.edge_color = info.colour
        layer.current_edge_color = info.colour

    def _ready(self, layer: Shapes) -> None:
        """Let a layer be drawn in again, after napari has put it into a mode for looking only."""
        if layer.editable and layer.visible and layer.mode == "pan_zoom" and self.viewer.dims.ndisplay == 2:
            layer.mode = "add_path"

    def refuse(self, reason: str) -> None:
        """Say at the next `read` why nothing can be drawn."""
        self._notes.append(reason)

    def flattened(self) -> None:
        """The view is flat again; napari lets all layers be edited then, locked ones too."""
        if self._earlier is not None:
            self._earlier.editable = False
        self.colour(self.session.objects)
        for layer in self._strokes.values():
            self._ready(layer)

    def draw_for(self, object_id: int) -> None:
        """Make an object's layer the active one, in freehand mode."""
        layer = self.layer_of(object_id)
        layer.visible = True
        self.viewer.layers.selection.active = layer
        if layer.editable:
            layer.mode = "add_path"


def _unfinished(layer: Shapes) -> bool:
    """Whether napari is still making the layer's last line."""
    return bool(getattr(layer, "_is_creating", False))


def _lines(layer: Shapes) -> list[npt.NDArray[np.float32]]:
    """A layer's lines as they are now, and outlines of other shapes.

    Copies, because napari moves a line by changing its array in place.
    """
    shapes = zip(layer.data, layer.shape_type, strict=True)
    return [np.array(outline(vertices, kind), np.float32) for vertices, kind in shapes]
