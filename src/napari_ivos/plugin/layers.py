"""Layers on one side, a session on the other: strokes out of Shapes layers, masks into a Labels layer; no Qt.

One Shapes layer holds the open round's strokes of one object, so that nothing depends on napari's per-shape colours or
features; the strokes of closed rounds are in one layer that can't be edited. Layers are held as objects, never by name,
and a Shapes layer is emptied and hidden, never removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.plugin import geometry, large
from napari_ivos.plugin.strokes import difference, pieces_of
from napari_ivos.scribbles import BACKGROUND

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer, Shapes

    from napari_ivos.plugin.geometry import Layout
    from napari_ivos.session import ObjectInfo, Session, StrokeRecord

BACKGROUND_COLOUR = "#f0f0f0"
EARLIER_OPACITY = 0.35
RESULT_OPACITY = 0.55
STROKES_OPACITY = 0.7
RETIRED = "napari_ivos retired"
"""Key in the metadata of layers that ended with their session, and wait to be used again by the next."""
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
    """

    object_id: int
    frame: int
    points: npt.NDArray[np.float64]
    vertices: npt.NDArray[np.float32]
    stroke: int | None = None


@dataclass(frozen=True)
class Changes:
    """What was drawn, moved or deleted since the last look; a moved stroke is gone and new."""

    new: tuple[Drawn, ...] = ()
    gone: tuple[Drawn, ...] = ()
    notes: tuple[str, ...] = ()


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
        Told that strokes, paint or the set of layers may have changed; `read` looks what it was.
    """

    def __init__(
        self, viewer: ViewerModel, image: Image, layout: Layout, session: Session, on_change: Callable[[], None]
    ) -> None:
        self.viewer = viewer
        self.image = image
        self.layout = layout
        self.session = session
        self._on_change = on_change
        self._strokes: dict[int, Shapes] = {}
        self._drawn: dict[int, list[Drawn]] = {}
        self._earlier: Shapes | None = None
        self._earlier_shown: tuple[int, ...] = ()
        self._writing = False
        self.pressed = False
        self._dragged = False
        self.painted = False
        self.hidden: set[int] = set()
        self._notes: list[str] = []
        self.on_stroke: Callable[[Drawn], None] | None = None
        self.on_history: Callable[[str], None] | None = None
        self.labels = self._add_labels()
        self._bind_history(image)
        viewer.layers.events.removed.connect(self._tell)
        viewer.layers.selection.events.active.connect(self._released)
        viewer.dims.events.ndisplay.connect(self._turned)

    # -- layers

    def _add_labels(self) -> Labels:
        from napari.layers import Labels

        data, offset = self._result()
        several = large.is_large(self.layout)
        shown = large.pyramid(self.session.labels, self.layout) if several else data
        options = {"opacity": RESULT_OPACITY, **geometry.shifted(self.image, offset)}
        name = f"{self.image.name} [objects]"
        labels: Labels | None = None if several else self._spare(Labels)
        if labels is None:
            labels = Labels(shown, multiscale=several, name=name, **options)
            self.viewer.add_layer(labels)
        else:
            labels.data = shown
            self._reuse(labels, name, options)
        labels.events.paint.connect(self._on_paint)
        labels.mouse_drag_callbacks.append(self._on_brush)
        self._bind_history(labels)
        self.brush: large.Brush | None = self._add_brush() if several else None
        return labels

    def _result(self) -> tuple[Any, npt.NDArray[np.float64]]:
        """The session's labels with the axes of the image, and where they begin in its pixels."""
        data: Any = self.session.labels
        offset = np.zeros(self.layout.ndim)
        if self.layout.frame != 0 or self.layout.ndim != data.ndim:
            data = geometry.LabelsView(data, self.layout)
            for axis, at in self.layout.held.items():
                offset[axis] = at
        return data, offset

    def _add_brush(self) -> large.Brush:
        brush = large.Brush(self.viewer, self.image, self.layout, *self._result(), self._on_paint)
        brush.layer.opacity = RESULT_OPACITY
        brush.layer.mouse_drag_callbacks.append(self._on_brush)
        self._bind_history(brush.layer)
        return brush

    @property
    def paper(self) -> Labels:
        """The layer in which masks are painted: the result, or the part of a large one that is in view."""
        return self.labels if self.brush is None else self.brush.layer

    def paint_for(self, object_id: int) -> None:
        """Make the layer in which masks are painted the active one, made again where it was deleted, with its brush."""
        self.result_layer()
        if self.brush is not None and self.brush.layer not in self.viewer.layers:
            self.brush.disconnect()
            self.brush = self._add_brush()
            self.colour()
        paper = self.paper
        paper.visible = True
        self.viewer.layers.selection.active = paper
        paper.selected_label = object_id
        if paper.editable:
            paper.mode = "paint"

    def _add_shapes(self, name: str, **options: Any) -> Shapes:
        from napari.layers import Shapes

        placed = geometry.spatial(self.image)
        self._width = max(1.0, max(self.layout.shape[-2:]) / 160)
        shapes: Shapes | None = self._spare(Shapes)
        if shapes is None:
            more = {"edge_width": self._width, "face_color": "transparent", **placed, **options}
            shapes = Shapes(ndim=self.layout.ndim, name=name, **more)
            self.viewer.add_layer(shapes)
        else:
            self._reuse(shapes, name, {"opacity": STROKES_OPACITY, **placed, **options})
        shapes.events.data.connect(self._tell)
        shapes.mouse_drag_callbacks.append(self._on_drag)
        self._bind_history(shapes)
        return shapes

    def _spare(self, kind: type[Layer]) -> Any:
        """A layer of an earlier session in this viewer, emptied and hidden by `retire`; None where there is none."""
        for layer in self.viewer.layers:
            if isinstance(layer, kind) and layer.metadata.get(RETIRED) and not layer.visible:
                same = layer.ndim == self.layout.ndim and not getattr(layer, "multiscale", False)
                if same and not getattr(layer, "nshapes", 0):
                    return layer
        return None

    def _reuse(self, layer: Layer, name: str, options: dict[str, Any]) -> None:
        """Let a spare layer be as if it were new: on top of the others, named and placed."""
        del layer.metadata[RETIRED]
        self.viewer.layers.move(self.viewer.layers.index(layer), len(self.viewer.layers))
        for option, value in options.items():
            setattr(layer, "current_edge_color" if option == "edge_color" else option, value)
        layer.name = name
        layer.visible = layer.editable = True
        self.viewer.layers.selection.active = layer

    def strokes_layer(self, object_id: int) -> Shapes:
        """The layer for strokes of an object (0: background); made, or made again, where it is missing."""
        layer = self._strokes.get(object_id)
        if layer is None or layer not in self.viewer.layers:
            name = "background" if object_id == BACKGROUND else self._info(object_id).name
            layer = self._add_shapes(f"{name} (strokes)", edge_color=self._colour(object_id))
            self._strokes[object_id] = layer
            self._write(object_id)
        return layer

    def result_layer(self) -> Labels:
        """The Labels layer with the result; made again where it was deleted."""
        if self.labels not in self.viewer.layers:
            self.labels = self._add_labels()
            self.colour()
        return self.labels

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers that are here because of the session."""
        earlier = () if self._earlier is None else (self._earlier,)
        return (*dict.fromkeys((self.labels, self.paper)), *earlier, *self._strokes.values())

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
        present = [np.asarray(v, np.float32) for v in layer.data]
        lost, fresh = difference([d.vertices for d in known], present)
        if lost or len(fresh) != 1:
            return None
        made, said = self._strokes_of(object_id, layer, present[fresh[0]])
        if said or len(made) != 1 or not np.array_equal(made[0].vertices, present[fresh[0]]):
            return None
        known.append(made[0])
        return made[0]

    def _on_paint(self, event: object = None) -> None:
        self.painted = True
        self._on_change()

    def _bind_history(self, layer: Layer) -> None:
        """Let Ctrl-Z and Ctrl-Shift-Z be the session's: napari's own undo knows nothing of what the session wrote."""
        from app_model.types import KeyCode, KeyMod

        layer.bind_key(KeyMod.CtrlCmd | KeyCode.KeyZ, self._undo, overwrite=True)
        layer.bind_key(KeyMod.CtrlCmd | KeyMod.Shift | KeyCode.KeyZ, self._redo, overwrite=True)

    def _unbind_history(self, layer: Layer) -> None:
        """Give the keys back, so that a layer that is kept somewhere keeps no session."""
        from app_model.types import KeyCode, KeyMod

        layer.bind_key(KeyMod.CtrlCmd | KeyCode.KeyZ, None)
        layer.bind_key(KeyMod.CtrlCmd | KeyMod.Shift | KeyCode.KeyZ, None)

    def _undo(self, layer: object = None) -> None:
        if self.on_history is not None:
            self.on_history("undo")

    def _redo(self, layer: object = None) -> None:
        if self.on_history is not None:
            self.on_history("redo")

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

    def _on_brush(self, layer: object, event: Any) -> Generator[None]:
        """One drag of napari's brush is one stroke."""
        with self.session.painting():
            yield
            while event.type == "mouse_move":
                yield

    def disconnect(self) -> None:
        """Hear nothing more from the layers."""
        self.on_history = self.on_stroke = None
        self.viewer.layers.events.removed.disconnect(self._tell)
        self.viewer.layers.selection.events.active.disconnect(self._released)
        self.viewer.dims.events.ndisplay.disconnect(self._turned)
        self.labels.events.paint.disconnect(self._on_paint)
        for layer in (self.image, *self.layers):
            self._unbind_history(layer)
            if self._on_brush in layer.mouse_drag_callbacks:
                layer.mouse_drag_callbacks.remove(self._on_brush)
        for layer in [*self._strokes.values(), *([] if self._earlier is None else [self._earlier])]:
            layer.events.data.disconnect(self._tell)
            if self._on_drag in layer.mouse_drag_callbacks:
                layer.mouse_drag_callbacks.remove(self._on_drag)
        if self.brush is not None:
            self.brush.disconnect()

    def retire(self) -> None:
        """Let go of the session: layers are emptied and hidden, because removing Shapes crashes some machines."""
        self.disconnect()
        self._drawn.clear()
        for layer in self.layers:
            if layer not in self.viewer.layers:
                continue
            layer.visible = False
            layer.metadata[RETIRED] = True
            if layer not in (self.labels, self.paper):
                self._fill(layer, [], BACKGROUND_COLOUR)
        for result in dict.fromkeys((self.labels, self.paper)):
            shapes = result.data.shapes if result.multiscale else [result.data.shape]
            nothing = [np.broadcast_to(np.uint16(0), shape) for shape in shapes]
            result.data = nothing if result.multiscale else nothing[0]
            result.editable = False

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
        untidy = self._finish(layer)
        present = [np.asarray(v, np.float32) for v in layer.data]
        known = self._drawn.setdefault(object_id, [])
        lost, fresh = difference([d.vertices for d in known], present)
        clicked = untidy and not self._dragged
        if clicked and len(fresh) and fresh[-1] == len(present) - 1 and len(present[-1]) > 1:
            present[-1] = present[-1][:-1]  # the vertex that follows the mouse
        gone += [known[k] for k in lost]
        self._drawn[object_id] = [d for k, d in enumerate(known) if k not in lost]
        for k in fresh:
            made, said = self._strokes_of(object_id, layer, present[k])
            notes += said
            untidy |= len(made) != 1 or not np.array_equal(made[0].vertices, present[k])
            new += made
            self._drawn[object_id] += made
        if untidy:
            self._write(object_id)

    def _finish(self, layer: Shapes) -> bool:
        """End a path that is still being drawn although no button is held (napari leaves it so after a click)."""
        if not getattr(layer, "_is_creating", False):
            return False
        mode, self._writing = layer.mode, True
        try:
            layer.mode = "pan_zoom"
            layer.mode = mode
        finally:
            self._writing = False
        return True

    def _strokes_of(
        self, object_id: int, layer: Shapes, vertices: npt.NDArray[np.float32]
    ) -> tuple[list[Drawn], list[str]]:
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
            shown = vertices if whole else self._vertices(layer, piece.frame, piece.points)
            drawn.append(Drawn(object_id, piece.frame, piece.points, shown))
        return drawn, notes

    def _vertices(self, layer: Shapes, frame: int, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
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
            same = next((r for r in missing if r.frame == drawn.frame and np.array_equal(r.points, drawn.points)), None)
            if same is not None:
                drawn.stroke = same.id
                missing.remove(same)
                kept.append(drawn)
            elif id(drawn) in waiting:
                kept.append(drawn)
        if len(kept) == len(before) and not missing:
            return
        layer = self.strokes_layer(object_id)
        kept += [Drawn(object_id, r.frame, r.points, self._vertices(layer, r.frame, r.points), r.id) for r in missing]
        self._drawn[object_id] = kept
        self._write(object_id)

    def _write(self, object_id: int) -> None:
        """Put what is known of an object's strokes into its layer."""
        drawn = self._drawn.get(object_id, [])
        self._fill(self._strokes[object_id], [d.vertices for d in drawn], self._colour(object_id))

    def _fill(self, layer: Shapes, lines: list[npt.NDArray[np.float32]], colours: str | list[str]) -> None:
        if not lines and layer.nshapes == 0:
            return
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
            self._earlier = self._add_shapes("earlier strokes", opacity=EARLIER_OPACITY)
            if active is not None:
                self.viewer.layers.selection.active = active
        layer = self._earlier
        if layer is None:
            return
        known = {o.id: o.colour for o in self.session.objects} | {BACKGROUND: BACKGROUND_COLOUR}
        shown = [r for r in records if r.object_id in known]
        lines = [self._vertices(layer, r.frame, r.points) for r in shown]
        self._fill(layer, lines, [known[r.object_id] for r in shown])
        layer.editable = False
        self._earlier_shown = ids

    # -- showing objects and masks

    def colour(self) -> None:
        """Give masks and strokes the objects' colours, names and visibility."""
        from napari.utils.colormaps import DirectLabelColormap

        objects = self.session.objects
        shown: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
        shown |= {o.id: "transparent" if o.id in self.hidden else o.colour for o in objects}
        for result in dict.fromkeys((self.labels, self.paper)):
            result.colormap = DirectLabelColormap(color_dict=shown)
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
        if layer.visible == (info.id in self.hidden):  # setting it to what it is would end drawing
            layer.visible = info.id not in self.hidden
        if layer.editable == info.locked:
            layer.editable = not info.locked
            self._ready(layer)
        if layer.nshapes:
            layer.edge_color = info.colour
        layer.current_edge_color = info.colour

    def _ready(self, layer: Shapes) -> None:
        """Let the active layer be drawn in again, after napari has put it into a mode for looking only."""
        active = layer is self.viewer.layers.selection.active
        if active and layer.editable and layer.visible and layer.mode == "pan_zoom" and self.viewer.dims.ndisplay == 2:
            layer.mode = "add_path"

    def _turned(self, event: object = None) -> None:
        """The view became 3D or flat; napari lets all layers be edited again in the flat one, locked ones too."""
        reason = geometry.drawable(self.viewer)
        if reason:
            self._notes.append(reason)
            self._on_change()
            return
        if self._earlier is not None:
            self._earlier.editable = False
        self.colour()
        for layer in self._strokes.values():
            self._ready(layer)

    def draw_for(self, object_id: int) -> None:
        """Make an object's layer the active one, in freehand mode."""
        layer = self.strokes_layer(object_id)
        layer.visible = True
        self.viewer.layers.selection.active = layer
        if layer.editable:
            layer.mode = "add_path"
        if object_id != BACKGROUND:
            self.paper.selected_label = object_id

    def refresh(self, frames: Iterable[int] | None = None) -> bool:
        """Show the result again, if what changed (None: everything) is on screen; whether it was."""
        if frames is not None and self.frame not in frames:
            return False
        for result in dict.fromkeys((self.result_layer(), self.paper)):
            reset = getattr(result, "_reset_history", None)
            if reset is not None:  # napari would replay its undo over what has just been written
                reset()
            result.refresh(extent=False, highlight=False, thumbnail=False)
        return True

    def describe(self, quality: Mapping[int, float]) -> None:
        """Fill the result layer's features: each object's area and quality on the frame on screen."""
        import pandas as pd

        objects = self.session.objects
        areas = large.areas(self.session.labels, self.frame)
        self.labels.features = pd.DataFrame(
            {
                "index": [o.id for o in objects],
                "name": [o.name for o in objects],
                "area": [int(areas[o.id]) if o.id < len(areas) else 0 for o in objects],
                "quality": [round(float(quality.get(o.id, np.nan)), 3) for o in objects],
            }
        )

    @property
    def frame(self) -> int:
        """The frame on screen."""
        return geometry.frame_shown(self.viewer, self.image, self.layout)

    def show_frame(self, frame: int) -> None:
        """Put a frame on screen."""
        geometry.show_frame(self.viewer, self.image, self.layout, frame)
