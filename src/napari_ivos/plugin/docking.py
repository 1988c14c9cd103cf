"""Finding and opening the widget: one in each viewer."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QLabel, QWidget

from napari_ivos.plugin.fitting import Fit
from napari_ivos.plugin.widget import IvosWidget

if TYPE_CHECKING:
    import napari
    from qtpy.QtGui import QShowEvent

TITLE = "Interactive video segmentation"
NAME = f"{TITLE} (napari-ivos)"
"""Of the dock, as napari calls one that its own menu opens, so that the menu shows and hides ours, too."""
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
        self._fit = Fit(raw)
        _widgets[id(raw)] = self

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """Show the title without the plugin's name, which has no room beside it."""
        super().showEvent(event)
        label = getattr(getattr(self.parent(), "title", None), "title", None)
        if isinstance(label, QLabel):
            label.setText(TITLE)

    def disconnect_viewer(self) -> None:
        """Hear nothing more of viewer and desk."""
        self._fit.end()
        super().disconnect_viewer()


def open_dock(viewer: Any = None) -> IvosWidget:
    """See `napari_ivos.plugin.dock`."""
    import napari

    found = viewer if viewer is not None else napari.current_viewer()
    raw = getattr(found, "__wrapped__", found) if found is not None else napari.Viewer()
    widget = _widgets.get(id(raw))
    if widget is not None and widget.desk.viewer is raw and not widget.desk.closed and _docked(widget):
        _bring_forward(widget)
        return widget
    widget = DockedWidget(raw)
    raw.window.add_dock_widget(widget, name=NAME, area="right", add_vertical_stretch=False)
    return widget


def _bring_forward(widget: IvosWidget) -> None:
    """Show a panel that was hidden, or lies under another one."""
    panel = widget.parent()
    if isinstance(panel, QWidget) and not widget.isVisible():
        panel.show()
        panel.raise_()


def _docked(widget: IvosWidget) -> bool:
    try:
        return widget.parent() is not None
    except RuntimeError:  # Qt has deleted it
        return False
