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
    widget.wait()


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
    from napari_ivos.plugin.sample_data import cells

    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(*SIZE)
    data, options, _ = cells()[0]
    viewer.add_image(data, **options)
    widget: Any = dock(viewer)
    viewer.window._qt_window.resizeDocks([widget.parent()], [380], Qt.Orientation.Horizontal)
    widget.use_model(load(arguments.model, "cpu"))

    def picture(name: str) -> None:
        for _ in range(4):
            QApplication.processEvents()
        viewer.screenshot(str(arguments.folder / f"{name}.png"), canvas_only=False, flash=False)

    picture("1-open")
    with tempfile.TemporaryDirectory() as folder:
        widget.stack.folder.value = folder
        widget.run("start")
        widget.wait()
        work(widget, picture)
        widget.desk.close()
    viewer.close()
    return 0


def work(widget: Any, picture: Any) -> None:
    """From the first stroke to the review."""
    for object_id, strokes in strokes_of(widget).items():
        if object_id > len(widget.session.objects):
            widget.add_object()
        widget.select(object_id)
        for frame, points in strokes:
            widget.go_to(frame)
            draw(widget, frame, points)
        if object_id == 1:
            picture("2-stroke")
    picture("3-objects")
    widget.run("propagate")
    widget.wait(600)
    picture("4-propagated")
    widget.run("next_frame")
    widget.frame_changed()
    picture("5-worst-frame")


if __name__ == "__main__":
    sys.exit(main())
