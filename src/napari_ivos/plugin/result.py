"""The Labels layer whose data are the session's labels, and the layer in which they are painted; no Qt.

For most stacks they are one layer; frames too large for that are shown as a pyramid and painted in a cut-out (`large`).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.plugin import geometry, large, spares

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from napari_ivos.errors import IvosError
    from napari_ivos.plugin.geometry import Layout
    from napari_ivos.plugin.history_keys import HistoryKeys
    from napari_ivos.session import Labels as SessionLabels
    from napari_ivos.session import LabelsBefore, ObjectInfo, Session

OPACITY = 0.55
UNKNOWN_COLOUR = "#f0f0f0"
"""Of labels that are no objects yet: they become some when the stroke that paints them ends."""


class Result:
    """The result of one session in one viewer.

    Parameters
    ----------
    viewer : ViewerModel
    image : Image
        The layer whose frames are segmented.
    layout : Layout
        Its axes.
    session : Session
    keys : HistoryKeys
        Bound in its layers.
    on_change : callable
        Told that something was painted.

    Attributes
    ----------
    labels : Labels
        The layer that shows the result.
    brush : Brush or None
        What is painted in, where it isn't that layer.
    painted : bool
        Something was painted; whoever takes it in clears this.
    refused : IvosError or None
        Why something that was painted can't be.
    earlier : LabelsBefore or None
        What is shown instead of the session's labels.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        image: Image,
        layout: Layout,
        session: Session,
        keys: HistoryKeys,
        on_change: Callable[[], None],
    ) -> None:
        self.viewer, self.image, self.layout, self.session = viewer, image, layout, session
        self._keys = keys
        self._on_change = on_change
        self.painted = False
        self._drags = self._drags_seen = 0
        self.refused: IvosError | None = None
        self.brush: large.Brush | None = None
        self.earlier: LabelsBefore | None = None
        self._mode = "pan_zoom"
        self._circling = ExitStack()
        self.labels = self._add_labels()

    # -- layers

    def _add_labels(self) -> Labels:
        from napari.layers import Labels

        data, offset = self._data()
        self._own = data
        several = large.is_large(self.layout)
        shown = large.pyramid(self._shown, self.layout) if several else data
        options = {"opacity": OPACITY, **geometry.shifted(self.image, offset)}
        name = f"{self.image.name} [objects]"
        labels: Labels | None = None if several else spares.spare(self.viewer, Labels, self.layout.ndim)
        if labels is None:
            labels = Labels(shown, multiscale=several, name=name, **options)
            self.viewer.add_layer(labels)
        else:
            labels.data = shown
            spares.reuse(self.viewer, labels, name, options)
        labels.events.paint.connect(self._on_paint)
        labels.events.data.connect(self._on_data)
        self._watch(labels)
        self.brush = self._add_brush() if several else None
        return labels

    @property
    def _shown(self) -> SessionLabels:
        return self.session.labels if self.earlier is None else self.earlier

    def _data(self) -> tuple[Any, npt.NDArray[np.float64]]:
        """The labels that are shown, with the axes of the image, and where they begin in its pixels."""
        data: Any = self._shown
        offset = np.zeros(self.layout.ndim)
        if self.layout.frame != 0 or self.layout.ndim != data.ndim:
            data = geometry.LabelsView(data, self.layout)
            for axis, at in self.layout.held.items():
                offset[axis] = at
        return data, offset

    def _add_brush(self) -> large.Brush:
        brush = large.Brush(self.viewer, self.image, self.layout, *self._data(), self._on_paint)
        brush.layer.opacity = OPACITY
        self._watch(brush.layer)
        return brush

    def _watch(self, layer: Labels) -> None:
        """Bind the keys in a layer, and see where strokes of the brush begin and end."""
        layer.mouse_drag_callbacks.append(self._on_brush)
        circle = _circle_of(layer)
        if circle is not None:
            circle.events.active.connect(self._on_circle)
        self._keys.bind(layer)

    def _unwatch(self, layer: Labels) -> None:
        self._keys.unbind(layer)
        if self._on_brush in layer.mouse_drag_callbacks:
            layer.mouse_drag_callbacks.remove(self._on_brush)
        circle = _circle_of(layer)
        if circle is not None:
            circle.events.active.disconnect(self._on_circle)

    @property
    def paper(self) -> Labels:
        """The layer in which masks are painted: the result, or the part of a large one that is in view."""
        return self.labels if self.brush is None else self.brush.layer

    @property
    def layers(self) -> tuple[Labels, ...]:
        """The one or two of them."""
        return tuple(dict.fromkeys((self.labels, self.paper)))

    def move(self) -> None:
        """Lie where the image lies now."""
        geometry.place(self.labels, geometry.shifted(self.image, self._data()[1]))
        if self.brush is not None:
            self.brush.place()

    def mend(self) -> bool:
        """Make the layer with the result again where it was deleted; whether it was."""
        if self.labels in self.viewer.layers:
            return False
        self.labels = self._add_labels()
        return True

    def mend_paper(self) -> bool:
        """The same for the layer in which large frames are painted."""
        if self.brush is None or self.brush.layer in self.viewer.layers:
            return False
        self.brush.disconnect()
        self.brush = self._add_brush()
        return True

    def paint_for(self, object_id: int) -> None:
        """Make the layer in which masks are painted the active one, with its brush."""
        paper = self.paper
        paper.visible = True
        self.viewer.layers.selection.active = paper
        paper.selected_label = object_id
        if paper.editable:
            paper.mode = "paint"

    def let_paint(self, on: bool) -> None:
        """Let masks be painted, or not for now: the tool that was in hand before is so again."""
        paper = self.paper
        if paper.editable == on:
            return
        if not on:
            self._mode = str(paper.mode)
        paper.editable = on
        if on and paper.mode == "pan_zoom":  # which napari has put it into
            paper.mode = self._mode

    # -- events, which only ring

    def _on_paint(self, event: object = None) -> None:
        self.painted = True
        self._on_change()

    def painted_anew(self) -> bool:
        """Whether something was painted with another drag of the brush than when this was asked before."""
        anew = self.painted and self._drags_seen != self._drags
        if anew:
            self._drags_seen = self._drags
        return anew

    def _refuse(self, error: IvosError) -> None:
        self.refused = error
        self._on_change()

    def taken_off(self) -> str:
        """Show what is there in place of paint that was refused, and say why; "" where none was."""
        error, self.refused = self.refused, None
        if error is None:
            return ""
        self.refresh()
        return str(error)

    def _on_data(self, event: object = None) -> None:
        self._on_change()

    def reclaim(self) -> bool:
        """Put the session's labels back where a script or another plugin has put others; whether it had."""
        foreign = not self.labels.multiscale and self.labels.data is not self._own
        if foreign:
            self.labels.data = self._own
        return foreign

    def _on_brush(self, layer: object, event: Any) -> Generator[None]:
        """One drag of napari's brush is one stroke."""
        self._drags += 1
        with self.session.painting(self._refuse):
            yield
            while event.type == "mouse_move":
                yield

    def _on_circle(self, event: object = None) -> None:
        """What napari's right button encircles and fills is one stroke, although no button is held."""
        self._circling.close()
        if any(circle.active for circle in map(_circle_of, self.layers) if circle is not None):
            self._circling.enter_context(self.session.painting(self._refuse))

    def disconnect(self) -> None:
        """Hear nothing more from the layers."""
        self.labels.events.paint.disconnect(self._on_paint)
        self.labels.events.data.disconnect(self._on_data)
        for layer in self.layers:
            self._unwatch(layer)
        self._circling.close()
        if self.brush is not None:
            self.brush.disconnect()

    def retire(self) -> None:
        """Let go of the session: nothing is shown any more."""
        for layer in self.layers:
            if layer in self.viewer.layers:
                spares.retire(layer)
            shapes = layer.data.shapes if layer.multiscale else [layer.data.shape]
            nothing = [np.broadcast_to(np.uint16(0), shape) for shape in shapes]
            layer.data = nothing if layer.multiscale else nothing[0]
            layer.editable = False

    # -- showing

    def colour(self, objects: tuple[ObjectInfo, ...], hidden: set[int]) -> None:
        """Give masks the objects' colours; those of hidden ones are not seen."""
        from napari.utils.colormaps import DirectLabelColormap

        shown: dict[int | None, Any] = {None: UNKNOWN_COLOUR, 0: "transparent"}
        shown |= {o.id: "transparent" if o.id in hidden else o.colour for o in objects}
        for layer in self.layers:
            layer.colormap = DirectLabelColormap(color_dict=shown)

    def refresh(self) -> None:
        """Show the frame on screen again."""
        for layer in self.layers:
            reset = getattr(layer, "_reset_history", None)
            if reset is not None:  # napari would replay its undo over what has just been written
                reset()
            layer.refresh(extent=False, highlight=False, thumbnail=False)

    def show_earlier(self, earlier: LabelsBefore | None) -> None:
        """Show the result as it was before, in which nothing is painted, or (None) as it is, with the same tool."""
        paper, self.earlier = self.paper, earlier
        if earlier is not None:
            self._mode = str(paper.mode)
        data, _ = self._data()
        self._own = data
        self.labels.data = large.pyramid(self._shown, self.layout) if self.labels.multiscale else data
        if self.brush is not None:
            self.brush.show(data)
        paper.editable = earlier is None
        if earlier is None:
            paper.mode = self._mode
        self.refresh()

    def describe(self, frame: int, quality: Mapping[int, float]) -> None:
        """Fill the layer's features: each object's area and quality on a frame."""
        import pandas as pd

        objects = self.session.objects
        areas = large.areas(self._shown, frame)
        self.labels.features = pd.DataFrame(
            {
                "index": [o.id for o in objects],
                "name": [o.name for o in objects],
                "area": [int(areas[o.id]) if o.id < len(areas) else 0 for o in objects],
                "quality": [round(float(quality.get(o.id, np.nan)), 3) for o in objects],
            }
        )


def _circle_of(layer: Labels) -> Any:
    """What says whether something is being encircled in a layer; None where napari can't."""
    return getattr(layer, "_overlays", {}).get("brush_stroke")
