"""A real mouse, real keys and patience for tests of the real window; a file that imports it is skipped without display.

Import it before Qt, and let `pytestmark` be `WARNINGS`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import plugin_scene as scene
import pytest

pytest.importorskip("pytestqt")
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    pytest.skip("no display: run with xvfb-run", allow_module_level=True)

from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

WARNINGS = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
"""napari's and its libraries' own warnings in a window; ours stay errors."""
PATIENCE = 30_000
MOUSE_PACE = 12
"""Milliseconds between moves of the mouse: vispy and napari drop those that come faster than 10."""


def settle(qtbot: Any, widget: Any) -> None:
    """Wait until nothing runs and everything is taken in."""
    desk = widget.desk
    qtbot.waitUntil(lambda: all(engine.idle for engine in desk.engines), timeout=PATIENCE)
    QApplication.processEvents()
    qtbot.waitUntil(lambda: not desk._bell.is_set(), timeout=PATIENCE)


def ready(widget: Any, model: Any, folder: Any) -> None:
    """Give the widget a model and the folder of its projects."""
    widget.use_model(model)
    widget.stack.folder.value = folder


def start(qtbot: Any, widget: Any) -> None:
    """Press Start and wait until the session is there."""
    before = widget.session
    widget.run("start")
    qtbot.waitUntil(lambda: widget.session not in (None, before), timeout=PATIENCE)
    settle(qtbot, widget)


def places_of(viewer: Any, points: Any) -> list[QPoint]:
    """Where on the canvas these (row, col) world points are."""
    zoom, centre = viewer.scene.camera.zoom, viewer.scene.camera.center[-2:]
    height, width = viewer.canvas.size
    return [
        QPoint(round((x - centre[1]) * zoom + width / 2), round((y - centre[0]) * zoom + height / 2))
        for y, x in np.asarray(points, float)
    ]


def drag(viewer: Any, points: Any, release: bool = True) -> None:
    """Press, move and release the mouse along (row, col) world points."""
    native = viewer.window._qt_viewer.canvas.native
    places = places_of(viewer, points)
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    QTest.mousePress(native, left, none, places[0])
    for place in places[1:]:
        at = QPointF(native.mapToGlobal(place))
        move = QMouseEvent(QEvent.Type.MouseMove, QPointF(place), at, Qt.MouseButton.NoButton, left, none)
        QApplication.sendEvent(native, move)
        QTest.qWait(MOUSE_PACE)
    if release:
        QTest.mouseRelease(native, left, none, places[-1])


def hover(viewer: Any, points: Any) -> None:
    """Move the mouse along (row, col) world points, no button held."""
    native = viewer.window._qt_viewer.canvas.native
    none, held = Qt.KeyboardModifier.NoModifier, Qt.MouseButton.NoButton
    for place in places_of(viewer, points):
        at = QPointF(native.mapToGlobal(place))
        QApplication.sendEvent(native, QMouseEvent(QEvent.Type.MouseMove, QPointF(place), at, held, held, none))
        QTest.qWait(MOUSE_PACE)


def click(viewer: Any, point: Any, button: Qt.MouseButton = Qt.MouseButton.LeftButton, twice: bool = False) -> None:
    """Move the mouse to a (row, col) world point and click there."""
    native = viewer.window._qt_viewer.canvas.native
    hover(viewer, [point])
    place = places_of(viewer, [point])[0]
    (QTest.mouseDClick if twice else QTest.mouseClick)(native, button, Qt.KeyboardModifier.NoModifier, place)
    QTest.qWait(MOUSE_PACE)


def draw(qtbot: Any, viewer: Any, widget: Any, frame: int) -> None:
    """Draw along the bright square of a frame, and wait for the mask."""
    widget.go_to(frame)
    before = len(widget.session.strokes())
    drag(viewer, scene.line(frame))
    qtbot.waitUntil(lambda: len(widget.session.strokes()) == before + 1, timeout=PATIENCE)
    settle(qtbot, widget)
    drawn = widget.session.strokes()[-1].points
    assert np.abs(drawn[[0, -1]] - scene.line(frame)[[0, -1]]).max() < 5, "the mouse was elsewhere"


def press(viewer: Any, key: str) -> None:
    """Press a key in the canvas: "G", "Shift-U", "Control-Z"."""
    native = viewer.window._qt_viewer.canvas.native
    *modifiers, letter = key.split("-")
    held = Qt.KeyboardModifier.NoModifier
    for name in modifiers:
        held |= getattr(Qt.KeyboardModifier, f"{name}Modifier")
    QTest.keyClick(native, getattr(Qt.Key, f"Key_{letter}"), held)
