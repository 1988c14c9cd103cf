"""What helps someone who has never seen the window: nothing is waited for, hidden, cut off or changed by accident."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading

import numpy as np
import plugin_mouse
import plugin_scene as scene
import pytest
from plugin_mouse import PATIENCE, drag, draw, press, settle
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QApplication, QComboBox, QScrollArea, QTableView

from napari_ivos import FakePredictor
from napari_ivos.plugin import dock, loading
from napari_ivos.plugin.fitting import SLACK_BEFORE, whole_in_view
from napari_ivos.plugin.sections import KEYS, Fold

pytestmark = plugin_mouse.WARNINGS


def test_objects_are_drawn_while_the_model_is_still_loading(make_napari_viewer, qtbot, monkeypatch, tmp_path):
    """After Start the first object is there at once; what is drawn meanwhile has its masks when the model is there."""
    gate, asked = threading.Event(), []
    monkeypatch.setattr(loading, "load", lambda *wanted: (asked.append(wanted), gate.wait(30), FakePredictor())[2])
    viewer = make_napari_viewer(show=False)
    viewer.add_image(scene.movie(), name="movie")
    widget = dock(viewer)
    widget.stack.folder.value = tmp_path
    widget.stack.device.value = "cpu"  # as from the preferences
    widget.run("start")
    qtbot.waitUntil(lambda: widget.desk.selected == 1, timeout=PATIENCE)
    assert widget.desk.model_state == "loading"
    assert "Draw a line" in widget.banner.text()
    widget.go_to(2)
    drag(viewer, scene.line(2))
    assert "as soon as the model is loaded" in widget.banner.text()
    widget.run("next_object")
    gate.set()
    settle(qtbot, widget)
    assert [o.id for o in widget.session.objects] == [1, 2]
    assert scene.overlap(widget.session.labels[2] == 1, scene.square(2)) > 0.7
    assert asked == [(None, "cpu")]


def test_progress_and_stop_are_seen_wherever_the_panel_is_scrolled_to(window, qtbot):
    """While something long runs, a bar and Stop stand outside of what scrolls; before and after they take no room."""
    viewer, widget = window(model=(model := scene.Gated()), show=True)
    running, stop = widget.going.running, widget.going.buttons["stop"].native
    area = widget.findChild(QScrollArea)
    assert not running.isVisible()
    draw(qtbot, viewer, widget, 2)
    press(viewer, KEYS["propagate"])
    qtbot.waitUntil(running.isVisible, timeout=PATIENCE)
    qtbot.waitUntil(stop.isEnabled, timeout=PATIENCE)
    assert stop.isVisible()
    assert not area.isAncestorOf(running)
    assert running.geometry().bottom() <= widget.height()
    QTest.mouseClick(stop, Qt.MouseButton.LeftButton)
    model.gate.release(100)
    settle(qtbot, widget)
    qtbot.waitUntil(lambda: not running.isVisible(), timeout=PATIENCE)


def test_the_worst_frame_says_whose_mask_it_is(window, qtbot):
    """The least sure object of the frame is named, and drawn next; the brush stays what it is where one paints."""
    viewer, widget = window()
    draw(qtbot, viewer, widget, 2)
    widget.run("add_object")
    drag(viewer, [(44, 32), (46, 38), (50, 44)])
    settle(qtbot, widget)
    widget.run("propagate")
    settle(qtbot, widget)
    for painting in (False, True):
        if painting:
            widget.run("paint_mask")
        active, before = viewer.layers.selection.active, widget.desk.selected
        widget.run("next_frame")
        frame = widget.desk.frame
        known = widget.desk.review.at(frame)
        worst = min(known, key=known.get)
        assert f"Frame {frame}: the least sure is object {worst} ({known[worst]:.2f})" in widget.banner.text()
        assert widget.desk.selected == (before if painting else worst)
        assert not painting or viewer.layers.selection.active is active


def test_the_wheel_scrolls_and_chooses_nothing(window):
    """The wheel over a box of choices or numbers leaves it as it is, until it was clicked."""
    viewer, widget = window(show=True, start=False)
    viewer.add_image(scene.movie(), name="other")
    for box in (widget.stack.image.native, widget.going.last.native):
        assert box.focusPolicy() == Qt.FocusPolicy.StrongFocus
        middle = QPointF(box.rect().center())
        nothing = Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase
        turn = QWheelEvent(
            middle, QPointF(box.mapToGlobal(box.rect().center())), QPoint(), QPoint(0, -120), *nothing, False
        )
        chosen = box.currentText() if isinstance(box, QComboBox) else box.value()
        QApplication.sendEvent(box, turn)
        assert (box.currentText() if isinstance(box, QComboBox) else box.value()) == chosen
        assert not turn.isAccepted()


@pytest.mark.parametrize("moved", [False, True], ids=["fitted", "zoomed in before"])
def test_the_panel_leaves_the_picture_in_view(make_napari_viewer, qtbot, moved):
    """A picture that was whole in view is so beside the panel, too; a view that the user chose stays as it is."""
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1000, 560)
    QApplication.processEvents()
    viewer.add_image(np.tile(scene.movie(), (1, 1, 3)), name="wide")
    QApplication.processEvents()
    if moved:
        viewer.scene.camera.zoom *= 2
    zoom, width = viewer.scene.camera.zoom, viewer.canvas.size[1]
    assert whole_in_view(viewer, SLACK_BEFORE) is not moved
    dock(viewer)
    qtbot.waitUntil(lambda: viewer.canvas.size[1] < width, timeout=PATIENCE)
    QApplication.processEvents()
    assert whole_in_view(viewer) is not moved
    assert (viewer.scene.camera.zoom == zoom) is moved
    if not moved:
        viewer.scene.camera.zoom *= 3
        zoom = viewer.scene.camera.zoom
        viewer.window._qt_window.resize(900, 560)
        QApplication.processEvents()
        assert viewer.scene.camera.zoom == zoom


LAPTOPS = {"1080 lines, with its bars": (1500, 940), "768 lines": (1366, 768)}


def after_propagating(qtbot, viewer, widget, objects: int) -> None:
    """Give the work so many objects, and masks on all frames."""
    for _ in range(objects - 1):
        widget.add_object()
    widget.select(1)
    draw(qtbot, viewer, widget, 2)
    widget.run("propagate")
    settle(qtbot, widget)
    lay_out()


def lay_out() -> None:
    """Let what changed in size have its place: a turn for each layout that lies in another."""
    for _ in range(6):
        QApplication.processEvents()


def in_view(panel, thing) -> bool:
    """Whether nothing of it is scrolled away."""
    return thing.isVisible() and panel.viewport().rect().contains(thing.rect().translated(thing.mapTo(panel, QPoint())))


@pytest.mark.parametrize("size", LAPTOPS.values(), ids=list(LAPTOPS))
def test_all_of_the_work_is_in_view_on_a_laptop(window, qtbot, size):
    """With three objects, masks and a word on them, from the stack to Export nothing has to be scrolled to."""
    viewer, widget = window(show=True)
    viewer.window._qt_window.resize(*size)
    after_propagating(qtbot, viewer, widget, 3)
    assert widget.banner.isVisible()
    widget.save.words.setText("Saved in /home/anna/films/2026-11-30/cells.ivos")  # shorter than a test's folder
    lay_out()
    panel = widget.findChild(QScrollArea)
    assert [section.accessibleName() for section in widget.sections if not in_view(panel, section)] == []
    assert in_view(panel, widget.review.buttons["next_frame"].native)
    assert in_view(panel, widget.save.buttons["export"].native)
    assert panel.verticalScrollBar().maximum() == 0
    table = widget.objects.table
    assert table.verticalScrollBar().maximum() == 0
    assert table.rowCount() == 3


def test_many_objects_scroll_in_their_table_before_the_panel_does(window, qtbot):
    """The table and the timeline give way, the chosen object stays in view; in a higher window there are more rows."""
    viewer, widget = window(show=True)
    viewer.window._qt_window.resize(1440, 860)
    after_propagating(qtbot, viewer, widget, 12)
    panel, table, timeline = widget.findChild(QScrollArea), widget.objects.table, widget.objects.timeline
    assert in_view(panel, widget.save.buttons["export"].native)
    heights = table.height(), timeline.height()
    assert table.verticalScrollBar().maximum() > 0
    widget.select(12)
    lay_out()
    assert table.viewport().rect().contains(table.visualItemRect(table.item(11, 1)))
    viewer.window._qt_window.resize(1440, 800)
    lay_out()
    assert table.height() < heights[0]
    assert timeline.height() < heights[1]
    assert table.viewport().rect().contains(table.visualItemRect(table.item(11, 1)))
    assert timeline.words_at(50, timeline.height() - 5).startswith("object 12")


def test_what_is_chosen_once_folds_away_at_the_start(window, qtbot):
    """Image and Start are there until the work begins; then one click brings them back, for another stack, too."""
    viewer, widget = window(show=True, start=False)
    stack = widget.stack
    image, begin = stack.image.native, stack.buttons["start"].native
    lay_out()
    assert image.isVisible()
    assert begin.isVisible()
    for name in ("movie", "another"):
        if name not in viewer.layers:
            viewer.add_image(scene.movie() // 2, name=name)
        stack.choice.open()
        stack.image.value = viewer.layers[name]
        plugin_mouse.start(qtbot, widget)
        assert not image.isVisible()
        assert stack.words.isVisible()
        assert stack.words.text().startswith("8 frames")
        QTest.mouseClick(stack.choice.button, Qt.MouseButton.LeftButton)
        assert image.isVisible()
        assert begin.isVisible()


def test_tab_goes_from_top_to_bottom(window):
    """With every fold open, the next thing to have the focus is beside or below the one before, and never above it."""
    _viewer, widget = window(show=True)
    for fold in widget.findChildren(Fold):
        fold.open()
    lay_out()
    column = widget.findChild(QScrollArea).widget()
    tops, thing = [], column.nextInFocusChain()
    while column.isAncestorOf(thing):
        if thing.isVisible() and isinstance(thing, (QAbstractButton, QComboBox, QTableView)):
            tops.append(thing.mapTo(column, thing.rect().center()).y())
        thing = thing.nextInFocusChain()
    assert len(tops) > 20
    beside = 6  # a title's line, where letters are smaller than in a button
    assert all(after > before - beside for before, after in itertools.pairwise(tops))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the import does it")
def test_torch_is_read_in_before_it_is_imported():
    """Its libraries are in the process without an import, which then goes as ever, and once only."""
    code = """
import sys
from pathlib import Path
from napari_ivos.plugin import loading

mapped = lambda: "/libtorch_cpu.so" in Path("/proc/self/maps").read_text()
before = mapped()
read_in = loading.read_in_torch()
print(before, read_in, mapped(), "torch" in sys.modules)
import torch
import torchvision

print(torch.nn.Conv2d(1, 1, 3)(torch.ones(1, 1, 8, 8)).shape == (1, 1, 6, 6), loading.read_in_torch())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True", "False", "True", "False"]
