"""The moving picture of the README: the real window, the simulated cells, a real mouse.

``xvfb-run -a -s "-screen 0 1500x1000x24" python scripts/make_movie.py docs/images/window.webp [--sheet FILE]``

Strokes are drawn by mouse events on the canvas and commands are given by their keys, as by a person. What is shown is
what the window showed after each of them; only the pointer and the line of text below are drawn in afterwards.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

WINDOW = (1280, 832)
SHOWN = (960, 624)
CAPTION = 34
OBJECTS = (1, 3, 2)
"""Whom to draw, in this order, of the seven nuclei."""
POINTER = ((0, 0), (0, 15), (4, 11), (7, 17), (9, 16), (6, 10), (11, 10))
Points = npt.NDArray[np.float64]


class Film:
    """Pictures of the window with a caption and a pointer, and how long each is shown.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.pictures: list[Image.Image] = []
        self.times: list[int] = []
        self.caption = ""
        self.font = ImageFont.load_default(17)

    def take(self, milliseconds: int, pointer: tuple[float, float] | None = None) -> None:
        """Take a picture; the pointer is (x, y) in the window's pixels."""
        _settle()
        shot = Image.fromarray(self.viewer.screenshot(canvas_only=False, flash=False)[..., :3])
        scale = SHOWN[0] / shot.width
        picture = Image.new("RGB", (SHOWN[0], SHOWN[1] + CAPTION), "#10151a")
        picture.paste(shot.resize(SHOWN, Image.Resampling.LANCZOS), (0, 0))
        pen = ImageDraw.Draw(picture)
        middle = (SHOWN[0] / 2, SHOWN[1] + CAPTION / 2)
        pen.text(middle, self.caption, fill="white", font=self.font, anchor="mm")
        if pointer is not None:
            x, y = (scale * c for c in pointer)
            pen.polygon([(x + a, y + b) for a, b in POINTER], fill="white", outline="black")
        self.pictures.append(picture)
        self.times.append(milliseconds)

    def write(self, path: Path) -> None:
        """Write an animated WebP that repeats."""
        first, *others = self.pictures
        first.save(path, save_all=True, append_images=others, duration=self.times, loop=0, quality=70, method=6)

    def sheet(self, path: Path, columns: int = 4) -> None:
        """Every picture, small, side by side: to look at."""
        width, height = SHOWN[0] // 2, (SHOWN[1] + CAPTION) // 2
        rows = -(-len(self.pictures) // columns)
        whole = Image.new("RGB", (columns * width, rows * height))
        for k, picture in enumerate(self.pictures):
            whole.paste(picture.resize((width, height)), (k % columns * width, k // columns * height))
        whole.save(path)


def _settle() -> None:
    from qtpy.QtCore import QCoreApplication, QEvent
    from qtpy.QtWidgets import QApplication

    for _ in range(4):
        QApplication.processEvents()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)  # napari's spinner goes with its bar


def _canvas(viewer: Any) -> Any:
    return viewer.window._qt_viewer.canvas.native


def _places(viewer: Any, points: Points) -> list[Any]:
    """Places on the canvas of (row, col) pixels of the image."""
    from qtpy.QtCore import QPoint

    world = points * np.asarray(viewer.layers[0].scale[-2:])
    camera, (height, width) = viewer.scene.camera, viewer.canvas.size
    middle = np.asarray(camera.center[-2:])
    return [QPoint(round(x + width / 2), round(y + height / 2)) for y, x in (world - middle) * camera.zoom]


def _in_window(viewer: Any, place: Any) -> tuple[float, float]:
    at = _canvas(viewer).mapTo(viewer.window._qt_window, place)
    return at.x(), at.y()


def draw(film: Film, points: Points) -> None:
    """Press the mouse, move it along the points, release it, and film that."""
    from qtpy.QtCore import QEvent, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    viewer, native, mouse = film.viewer, _canvas(film.viewer), _untyped(QTest)
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    places = _places(viewer, points)
    film.take(350, _in_window(viewer, places[0]))
    mouse.mousePress(native, left, none, places[0])
    every = max(len(places) // 4, 1)
    for k, place in enumerate(places[1:], start=1):
        at = QPointF(native.mapToGlobal(place))
        move = QMouseEvent(QEvent.Type.MouseMove, QPointF(place), at, Qt.MouseButton.NoButton, left, none)
        QApplication.sendEvent(native, move)
        mouse.qWait(12)
        if k % every == 0:
            film.take(90, _in_window(viewer, place))
    mouse.mouseRelease(native, left, none, places[-1])


def press(film: Film, key: str) -> None:
    """Press a key on the canvas."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    _untyped(QTest).keyClick(_canvas(film.viewer), getattr(Qt.Key, f"Key_{key}"))


def _untyped(value: Any) -> Any:
    """Qt's test mouse, untyped: PyQt's stubs take its static methods for instance methods."""
    return value


def samples_strokes(widget: Any) -> tuple[int, dict[int, Points]]:
    """The frame that the sample's own scribbles are on, and each object's stroke (N, 2)."""
    from napari_ivos.scribbles import read_davis

    hints = widget.stack.image.value.metadata["napari_ivos"]
    first = read_davis(hints["scribbles"], widget.session.shape)[0]
    return first.frame, {stroke.object_id: np.asarray(stroke.points, float) for stroke in first.strokes}


def play(film: Film, widget: Any) -> None:
    """Five steps: open, draw, propagate, look where it is least sure, done."""
    film.caption = "Open a stack, press Start"
    film.take(1500)
    widget.run("start")
    widget.wait()
    frame, strokes = samples_strokes(widget)
    widget.go_to(frame)
    film.caption = "Draw on an object in one frame: its mask appears"
    film.take(900)
    for k, object_id in enumerate(OBJECTS):
        if k:
            film.caption = "N: the next object"
            press(film, "N")
            widget.wait()
        draw(film, strokes[object_id])
        widget.wait()
        film.take(1100 if k == 0 else 700)
    propagate(film, widget, frame)
    film.caption = "J: the frame that most likely needs you. Draw there, or take the result"
    press(film, "J")
    widget.wait()
    film.take(2600)


def propagate(film: Film, widget: Any, frame: int) -> None:
    """Press G, film the window while the masks spread, then walk through the stack."""
    film.caption = "G: the masks spread to all other frames"
    film.take(500)
    widget.going.follow.value = True
    press(film, "G")
    seen = 0
    while widget.desk.engine.busy:
        _settle()
        if widget.desk.frames_done >= seen + 4:
            seen = widget.desk.frames_done
            film.take(110)
    widget.wait()
    film.take(700)
    film.caption = "Each of them in every frame, and how sure each mask is"
    last = widget.session.shape[0] - 1
    for at in (*range(frame, last, 3), *range(last, 0, -4), *range(0, frame + 1, 4)):
        widget.go_to(at)
        film.take(90)


def main() -> int:
    """Make the film; returns 0."""
    parser = argparse.ArgumentParser(description="The moving picture of the README.")
    parser.add_argument("file", type=Path, help="where to, .webp")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="all pictures side by side, .png")
    arguments = parser.parse_args()

    import napari
    from qtpy.QtCore import Qt

    from napari_ivos.plugin import dock
    from napari_ivos.plugin.loading import load
    from napari_ivos.plugin.sample_data import cells

    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(*WINDOW)
    data, options, _ = cells()[0]
    viewer.add_image(data, **options)
    widget: Any = dock(viewer)
    viewer.window._qt_window.resizeDocks([widget.parent()], [360], Qt.Orientation.Horizontal)
    widget.use_model(load(None, "cpu"))
    film = Film(viewer)
    with tempfile.TemporaryDirectory(prefix="stacks-") as folder:
        widget.stack.folder.value = folder
        play(film, widget)
        widget.desk.close()
    viewer.close()
    film.write(arguments.file)
    if arguments.sheet is not None:
        film.sheet(arguments.sheet)
    sys.stdout.write(f"{arguments.file}: {len(film.pictures)} pictures, {arguments.file.stat().st_size / 1e6:.2f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
