"""What helps someone who has never seen the window: nothing is waited for, hidden, cut off or changed by accident."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import plugin_mouse
import plugin_scene as scene
import pytest
from plugin_mouse import PATIENCE, drag, draw, press, settle
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QApplication, QComboBox, QFileDialog, QScrollArea, QTableView

from napari_ivos import FakePredictor
from napari_ivos.plugin import dock, loading, projects
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


def test_what_a_drag_does_is_said_on_one_line(window):
    """Between object, background, brush and another layer no button moves under the mouse, on a laptop either."""
    viewer, widget = window(show=True)
    viewer.window._qt_window.resize(*LAPTOPS["768 lines"])
    button = widget.draw.buttons["next_object"].native
    tops, lines, said = [], [], set()

    def look() -> None:
        lay_out()
        now = widget.draw.now
        tops.append(button.mapTo(widget, QPoint()).y())
        lines.append(now.heightForWidth(now.width()) / now.fontMetrics().lineSpacing())
        said.add(now.text())

    widget.desk.unsay()
    look()
    for command in ("draw_background", "paint_mask"):
        widget.run(command)
        look()
    viewer.layers.selection.active = viewer.layers["movie"]
    look()
    assert len(said) == 4
    assert len(set(tops)) == 1
    assert max(lines) < 2


def test_the_legend_stands_on_one_line(window):
    """Also where a scroll bar stands beside it."""
    viewer, widget = window(show=True)
    viewer.window._qt_window.resize(1000, 500)
    lay_out()
    legend = widget.objects.legend
    assert widget.findChild(QScrollArea).verticalScrollBar().isVisible()
    assert legend.heightForWidth(legend.width()) <= legend.fontMetrics().lineSpacing()


def test_the_key_of_the_background_leads_back_to_the_object(window):
    """Pressed once more, it gives the pen of the object before, and the button says so meanwhile."""
    viewer, widget = window()
    widget._bind(True)
    button = widget.draw.buttons["draw_background"]
    widget.add_object()
    assert widget.desk.selected == 2
    press(viewer, KEYS["draw_background"])
    assert widget.desk.selected == 0
    assert button.text.startswith("Back to object")
    assert "before the background" in button.tooltip
    press(viewer, KEYS["draw_background"])
    assert widget.desk.selected == 2
    assert viewer.layers.selection.active.name == "object 2 (strokes)"
    assert button.text.startswith("Background")
    widget.run("draw_background")
    widget.run("paint_mask")
    widget.run("draw_background")  # with the brush in hand, it is the background that is wanted
    assert widget.desk.selected == 0


def test_the_background_leads_back_to_an_object_that_is_there(window):
    """Where the one before is gone, to the first; where there is none, to a new one."""
    _viewer, widget = window()
    widget.add_object()
    widget.run("draw_background")
    widget.desk.remove_object(2)
    widget.run("draw_background")
    assert widget.desk.selected == 1
    widget.run("draw_background")
    widget.desk.remove_object(1)
    widget.run("draw_background")
    assert [o.id for o in widget.session.objects] == [widget.desk.selected]


@pytest.mark.parametrize("tool", ["paint", "erase", "pan_zoom"])
def test_the_brush_is_in_hand_again_after_a_propagation(window, qtbot, tool):
    """Nothing is painted while frames come out; then napari's tool is the one that it was before."""
    viewer, widget = window()
    draw(qtbot, viewer, widget, 2)
    widget.run("paint_mask")
    paper = widget.desk.binding.paper
    paper.mode = tool
    widget.run("propagate")
    assert not paper.editable
    settle(qtbot, widget)
    assert paper.editable
    assert paper.mode == tool


def test_an_image_of_one_frame_has_nowhere_to_propagate_to(window, qtbot):
    """That is said, rather than that something were left to draw."""
    viewer, widget = window(data=scene.movie()[2])
    drag(viewer, scene.line(2))
    settle(qtbot, widget)
    widget.run("propagate")
    settle(qtbot, widget)
    assert widget.banner.text().startswith("There is no other frame")
    assert np.asarray(widget.session.labels[0]).any()


def test_a_background_stroke_that_changes_nothing_says_so(window, qtbot):
    """One beside all masks is heard, and the line says what it takes to be more than a slip."""
    viewer, widget = window()
    draw(qtbot, viewer, widget, 2)
    settle(qtbot, widget)
    widget.run("draw_background")
    drag(viewer, [(57, 70), (57, 76)])
    settle(qtbot, widget)
    assert widget.banner.text().startswith("No mask has changed: more than 4 pixels of one must lie under a stroke")


def test_another_stack_is_shown_on_one_of_its_frames(window, qtbot):
    """Where the slider stands behind the end of the stack that is begun, it goes to its last frame."""
    viewer, widget = window()
    widget.go_to(7)
    short = viewer.add_image(scene.movie()[:3], name="short")
    widget.stack.image.value = short
    widget.run("start")
    settle(qtbot, widget)
    assert widget.desk.binding.image is short
    assert viewer.dims.current_step[0] == 2


def test_nothing_is_to_be_taken_back_at_the_start(window, qtbot):
    """The first object is there by itself: Undo takes back what the user did."""
    viewer, widget = window()
    assert not widget.draw.buttons["undo"].enabled
    draw(qtbot, viewer, widget, 2)
    settle(qtbot, widget)
    assert widget.draw.buttons["undo"].enabled
    widget.run("undo")
    settle(qtbot, widget)
    assert not widget.draw.buttons["undo"].enabled
    assert len(widget.session.objects) == 1


def test_a_script_names_the_file_that_it_needs(window, qtbot):
    """Painted masks are written beside the project; the line says where."""
    viewer, widget = window()
    draw(qtbot, viewer, widget, 2)
    settle(qtbot, widget)
    widget.run("copy_script")
    assert widget.banner.text() == "The script is on the clipboard."
    widget.session.annotate(4, scene.square(4).astype(np.uint16))
    widget.desk._all_changed()
    settle(qtbot, widget)
    widget.run("copy_script")
    said = widget.banner.text()
    assert "The painted masks that it reads are in " in said
    assert Path(said.split(" are in ")[1].removesuffix(".")).is_file()


def test_a_frame_that_is_right_is_said_to_be(window, qtbot):
    """With what comes next; taken back, nothing is said."""
    viewer, widget = window()
    draw(qtbot, viewer, widget, 2)
    widget.run("propagate")
    settle(qtbot, widget)
    widget.go_to(5)
    widget.run("accept_frame")
    settle(qtbot, widget)
    assert widget.banner.text() == "Frame 5 counts as right. Worst frame goes to the next."
    widget.run("accept_frame")
    settle(qtbot, widget)
    assert not widget.banner.isVisibleTo(widget)


def test_a_project_that_is_there_is_named_before_the_start(window, tmp_path):
    """Until then nobody knows that Start goes on with it; another folder or a new project are heard."""
    _viewer, widget = window(start=False)
    words = widget.save.words
    assert words.text().startswith("Nothing is saved yet")
    (tmp_path / "movie.ivos").touch()
    widget.refresh()
    assert words.text() == "movie.ivos is there: Start goes on with it."
    widget.stack.fresh.value = True
    assert words.text().startswith("Nothing is saved yet")
    widget.stack.fresh.value = False
    assert words.text().startswith("movie.ivos is there")
    widget.stack.folder.value = tmp_path / "elsewhere"
    assert words.text().startswith("Nothing is saved yet")


def test_a_project_is_looked_for_where_it_would_be(window, tmp_path, monkeypatch):
    """Beside the stack that is chosen; without one here, and where there is none in the folder of samples."""
    import tifffile

    asked = []
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *given, **more: (asked.append(given[2]), ("", ""))[1])
    here, ours, films = (tmp_path / name for name in ("here", "ours", "films"))
    for folder in (here, ours, films):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(projects, "default_folder", lambda: ours)
    tifffile.imwrite(films / "cells.tif", scene.movie())
    viewer, widget = window(start=False)
    (layer,) = viewer.open(str(films / "cells.tif"))
    widget.stack.image.value = layer
    widget.run("open_project")
    viewer.layers.clear()
    widget.run("open_project")
    (ours / "cells.ivos").touch()
    widget.run("open_project")
    (here / "other.ivos").touch()
    widget.run("open_project")
    assert asked == [str(films), str(here), str(ours), str(here)]


def test_where_a_project_will_be_is_said_in_full(window, qtbot, tmp_path, monkeypatch):
    """Also where napari was started with the name of a file in the folder that it was started in."""
    import tifffile

    tifffile.imwrite(tmp_path / "cells.tif", scene.movie())
    monkeypatch.chdir(tmp_path)
    viewer, widget = window(start=False)
    widget.stack.folder.value = None
    (widget.stack.image.value,) = viewer.open("cells.tif")
    plugin_mouse.start(qtbot, widget)
    assert widget.save.words.text().endswith(f"\n{tmp_path / 'cells.ivos'}")
    assert str(tmp_path / "cells.ivos") in widget.banner.text()


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
