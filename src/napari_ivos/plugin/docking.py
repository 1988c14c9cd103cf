"""Finding and opening the widget, and the commands of the palette."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from napari_ivos.plugin.widget import IvosWidget

if TYPE_CHECKING:
    import napari

TITLE = "Interactive video segmentation"
_widgets: weakref.WeakValueDictionary[int, IvosWidget] = weakref.WeakValueDictionary()


class DockedWidget(IvosWidget):
    """The widget as napari's menus and `napari -w` make it: it takes over from one whose dock was closed.

    A class, because napari hands its viewer to classes of widgets only, and not to functions that make them.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Raw, or as napari wraps it for plugins.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        raw = getattr(napari_viewer, "__wrapped__", napari_viewer)
        old = _widgets.get(id(raw))
        if old is not None:
            old.disconnect_viewer()
        super().__init__(napari_viewer)
        _widgets[id(raw)] = self


def open_dock(viewer: Any = None) -> IvosWidget:
    """See `napari_ivos.plugin.dock`."""
    import napari

    found = viewer if viewer is not None else napari.current_viewer()
    raw = getattr(found, "__wrapped__", found) if found is not None else napari.Viewer()
    widget = _widgets.get(id(raw))
    if widget is not None and widget.desk.viewer is raw and not widget.desk.closed and _docked(widget):
        return widget
    widget = DockedWidget(raw)
    raw.window.add_dock_widget(widget, name=TITLE, area="right", add_vertical_stretch=False)
    return widget


def _docked(widget: IvosWidget) -> bool:
    try:
        return widget.parent() is not None
    except RuntimeError:  # Qt has deleted it
        return False


def _run(viewer: napari.viewer.Viewer, name: str) -> None:
    open_dock(viewer).run(name)


def propagate(viewer: napari.viewer.Viewer) -> None:
    """Carry the masks to the other frames."""
    _run(viewer, "propagate")


def stop(viewer: napari.viewer.Viewer) -> None:
    """Stop what runs."""
    _run(viewer, "stop")


def add_object(viewer: napari.viewer.Viewer) -> None:
    """Add an object and draw it next."""
    _run(viewer, "add_object")


def next_object(viewer: napari.viewer.Viewer) -> None:
    """Draw for the next object."""
    _run(viewer, "next_object")


def draw_background(viewer: napari.viewer.Viewer) -> None:
    """Draw what belongs to no object."""
    _run(viewer, "draw_background")


def paint_mask(viewer: napari.viewer.Viewer) -> None:
    """Paint the chosen object's mask by hand."""
    _run(viewer, "paint_mask")


def undo(viewer: napari.viewer.Viewer) -> None:
    """Take back the last step."""
    _run(viewer, "undo")


def redo(viewer: napari.viewer.Viewer) -> None:
    """Bring back what was undone."""
    _run(viewer, "redo")


def next_frame(viewer: napari.viewer.Viewer) -> None:
    """Go to the frame with the worst masks."""
    _run(viewer, "next_frame")


def export(viewer: napari.viewer.Viewer) -> None:
    """Write the result for other programs."""
    _run(viewer, "export")
