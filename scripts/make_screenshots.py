"""Pictures of each step, from the real window with the sample data.

``xvfb-run -a -s "-screen 0 1500x1000x24" python scripts/make_screenshots.py docs/images [--model FILE]``
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_ivos.plugin.widget import IvosWidget

SIZE = (1440, 960)
PATIENCE = 3600
"""Seconds to wait for the networks, on a busy machine."""


def strokes_of(widget: IvosWidget) -> dict[int, list[Any]]:
    """The sample's own scribbles by object, moved to be drawn one object after another."""
    from napari_ivos.scribbles import read_davis

    hints = widget.stack.image.value.metadata["napari_ivos"]
    assert widget.session is not None
    first = read_davis(hints["scribbles"], widget.session.shape)[0]
    by_object: dict[int, list[Any]] = {}
    for stroke in first.strokes:
        by_object.setdefault(stroke.object_id, []).append((first.frame, stroke.points))
    return by_object


def draw(widget: Any, frame: int, points: np.ndarray) -> None:
    """Add a stroke to the active layer, as if it had been drawn."""
    place = np.zeros((len(points), widget.desk.binding.layout.ndim))
    place[:, 0], place[:, -2:] = frame, points
    widget.viewer.layers.selection.active.add_paths(place)
    widget.wait(PATIENCE)


def main() -> int:
    """Make all pictures; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="a .safetensors file; by default the shipped model")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)

    import napari
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QApplication

    from napari_ivos.plugin import dock
    from napari_ivos.plugin.loading import load

    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(*SIZE)
    viewer.open_sample("napari-ivos", "cells")
    widget: Any = dock(viewer)
    viewer.window._qt_window.resizeDocks([widget.parent()], [380], Qt.Orientation.Horizontal)
    widget.use_model(load(arguments.model, "cpu"))
    for _ in range(4):
        QApplication.processEvents()
    viewer.reset_view()
    camera = Camera(viewer, arguments.folder)
    camera.window("1-open")
    with tempfile.TemporaryDirectory() as folder:
        widget.stack.folder.value = folder
        widget.run("start")
        widget.wait(PATIENCE)
        work(widget, camera)
        review(widget, camera)
        widget.desk.close()
    viewer.close()
    return 0


class Camera:
    """Takes pictures of a viewer's window into a folder."""

    def __init__(self, viewer: Any, folder: Path) -> None:
        self.viewer, self.folder = viewer, folder

    def _settle(self) -> None:
        from qtpy.QtCore import QCoreApplication, QEvent
        from qtpy.QtWidgets import QApplication

        for _ in range(6):
            QApplication.processEvents()
            QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)  # napari's spinner goes with its bar

    def window(self, name: str) -> None:
        """The whole window."""
        self._settle()
        self._keep(self.viewer.screenshot(canvas_only=False, flash=False), name)

    def of(self, widget: Any, name: str) -> None:
        """One widget, a dialog for instance."""
        from napari._qt.utils import QImg2array

        widget.show()
        self._settle()
        self._keep(QImg2array(widget.grab().toImage()), name)
        widget.hide()

    def _keep(self, picture: np.ndarray, name: str) -> None:
        """Write (H, W, 4) uint8 as WebP: a sixth of PNG's size, and nothing that can be seen is lost."""
        from PIL import Image

        Image.fromarray(picture[..., :3]).save(self.folder / f"{name}.webp", quality=90, method=6)


def work(widget: Any, camera: Camera) -> None:
    """From the first stroke to the first propagation."""
    for object_id, strokes in strokes_of(widget).items():
        if object_id > len(widget.session.objects):
            widget.add_object()
        widget.select(object_id)
        for frame, points in strokes:
            widget.go_to(frame)
            draw(widget, frame, points)
        if object_id == 1:
            widget.banner.hide()  # it names a folder that is gone tomorrow
            camera.window("2-stroke")
    camera.window("3-objects")
    widget.run("propagate")
    widget.wait(PATIENCE)
    camera.window("4-propagated")


def review(widget: Any, camera: Camera) -> None:
    """To the worst frame, a correction there by the brush, and out."""
    from napari_ivos.plugin.dialogs import ExportDialog

    widget.run("next_frame")
    widget.frame_changed()
    camera.window("5-worst-frame")
    widget.run("paint_mask")
    camera.window("6-paint")
    camera.of(ExportDialog(widget, Path("cells")), "7-export")


if __name__ == "__main__":
    sys.exit(main())
