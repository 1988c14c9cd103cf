"""What users do to a window while it works: layers, docks and viewers come and go, strokes go wrong."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import plugin_mouse
import plugin_scene as scene
import pytest
from plugin_mouse import PATIENCE, click, drag, draw, press, ready, settle, start
from qtpy.QtCore import QEvent, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_ivos import FakePredictor, Session
from napari_ivos.plugin import dock

pytestmark = plugin_mouse.WARNINGS
RESULT = "movie [objects]"


def masked(widget) -> list[int]:
    """Frames on which object 1 has a mask."""
    return [t for t in range(scene.FRAMES) if (np.asarray(widget.session.labels[t]) == 1).any()]


def finish(qtbot, widget, model) -> None:
    """Let a gated propagation go on to its end."""
    model.gate.release(100)
    settle(qtbot, widget)


# --- layers --------------------------------------------------------------------------------------------------------


def _rename(viewer, widget):
    for number, layer in enumerate(viewer.layers):
        layer.name = f"layer {number}"


def _hide(viewer, widget):
    for layer in viewer.layers:
        layer.visible = False


def _turn_round(viewer, widget):
    viewer.layers.move_multiple([2, 1, 0])


def _delete_result(viewer, widget):
    viewer.layers.remove(viewer.layers[RESULT])


def _delete_strokes(viewer, widget):
    viewer.layers.remove(viewer.layers["object 1 (strokes)"])


def _delete_image(viewer, widget):
    viewer.layers.remove(viewer.layers["movie"])


def _delete_all(viewer, widget):
    viewer.layers.clear()


def _add(viewer, widget):
    viewer.add_image(scene.movie()[:, ::-1], name="another")
    viewer.add_labels(np.zeros((scene.FRAMES, scene.HEIGHT, scene.WIDTH), np.uint8))
    viewer.add_points([[0, 5, 5]])


DEEDS = [_rename, _hide, _turn_round, _delete_result, _delete_strokes, _delete_image, _delete_all, _add]


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__.strip("_"))
def test_a_run_goes_on_whatever_happens_to_the_layers(window, qtbot, deed):
    """Layers renamed, hidden, reordered, deleted or added during a propagation neither end it nor spoil its masks."""
    viewer, widget = window(model := scene.Gated())
    draw(qtbot, viewer, widget, 2)
    widget.run("propagate")
    model.gate.release(2)
    qtbot.waitUntil(lambda: widget.desk.frames_done == 2, timeout=PATIENCE)
    deed(viewer, widget)
    QApplication.processEvents()
    finish(qtbot, widget, model)
    assert not [text for kind, text in widget.said if kind == "error"]
    assert masked(widget) == list(range(scene.FRAMES))
    assert all(scene.overlap(widget.session.labels[t] == 1, scene.square(t)) > 0.6 for t in range(scene.FRAMES))


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__.strip("_"))
def test_drawing_goes_on_whatever_happened_to_the_layers(window, qtbot, deed):
    """After it, choosing the object shows its earlier stroke again, and the next one is taken and segmented."""
    viewer, widget = window()
    draw(qtbot, viewer, widget, 2)
    deed(viewer, widget)
    QApplication.processEvents()
    if "movie" not in viewer.layers and deed is not _rename:
        viewer.add_image(scene.movie(), name="movie", contrast_limits=(0, 255))
    widget.select(1)
    active = viewer.layers.selection.active
    assert active.visible
    assert active.nshapes == 1
    draw(qtbot, viewer, widget, 5)
    assert [s.frame for s in widget.session.strokes()] == [2, 5]
    assert active.nshapes == 2
    assert scene.overlap(widget.session.labels[5] == 1, scene.square(5)) > 0.6
    results = [layer for layer in viewer.layers if layer is widget.desk.binding.labels]
    assert len(results) == 1
    assert results[0].data is widget.session.labels


# --- docks and viewers ---------------------------------------------------------------------------------------------


def test_a_dock_closed_by_its_cross_during_a_run_loses_nothing(window, qtbot):
    """The run goes on without its dock; opened again from the menu, it shows what was done meanwhile."""
    viewer, widget = window(model := scene.Gated())
    draw(qtbot, viewer, widget, 2)
    widget.run("propagate")
    model.gate.release(2)
    qtbot.waitUntil(lambda: widget.desk.frames_done == 2, timeout=PATIENCE)
    session, desk = widget.session, widget.desk
    widget.parent().close()
    QApplication.processEvents()
    model.gate.release(100)
    qtbot.waitUntil(lambda: not desk.engine.busy, timeout=PATIENCE)
    again = dock(viewer)
    assert again.session is session
    settle(qtbot, again)
    assert masked(again) == list(range(scene.FRAMES))
    assert again.objects.table.item(0, 1).text() == "object 1"
    draw(qtbot, viewer, again, 6)


def test_a_panel_that_was_hidden_is_shown_when_it_is_asked_for(window):
    """Hidden by the eye in its title, it comes back for `dock`, and so for the commands of napari's palette."""
    viewer, widget = window(show=True)
    widget.parentWidget().title.hide_button.click()
    assert not widget.isVisible()
    assert dock(viewer) is widget
    assert widget.isVisible()


def test_the_panel_names_the_layer_of_the_project_that_is_opened(window, qtbot, tmp_path):
    """Opened while another layer was chosen, also in a panel that is new: Start would go on with what is worked on."""
    import tifffile

    tifffile.imwrite(tmp_path / "one.tif", scene.movie())
    Session(tmp_path / "one.tif", project=tmp_path / "one.ivos").close()
    viewer, widget = window()
    assert widget.stack.image.value is viewer.layers["movie"]
    widget.open_project(tmp_path / "one.ivos")
    qtbot.waitUntil(lambda: widget.session is not None and widget.session.path is not None, timeout=PATIENCE)
    settle(qtbot, widget)
    assert widget.stack.image.value is viewer.layers["one.tif"] is widget.desk.binding.image
    widget.stack.image.value = viewer.layers["movie"]  # for another Start
    widget.refresh()
    assert widget.stack.image.value is viewer.layers["movie"]


def test_two_viewers_propagate_at_the_same_time(window, qtbot, tmp_path):
    """Runs in two windows don't meet, and closing one of them leaves the other's going."""
    one, first = window(held := scene.Gated())
    two, second = window(other := scene.Gated())
    assert first.session.path != second.session.path or first.session.path is None
    for viewer, widget, frame in ((one, first, 2), (two, second, 4)):
        draw(qtbot, viewer, widget, frame)
        widget.run("propagate")
    held.gate.release(100)
    one.close()
    finish(qtbot, second, other)
    assert masked(second) == list(range(scene.FRAMES))
    assert [s.frame for s in second.session.strokes()] == [4]


def _collect() -> None:
    """Let Qt delete what waits for it, and Python too."""
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    QApplication.processEvents()
    gc.collect()


def _threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("napari-ivos") and t.is_alive()]


def test_closed_viewers_leave_nothing(make_napari_viewer, qtbot, tmp_path):
    """No widget, desk, binding, session or thread is left of a closed viewer, nor of those before it."""
    for number in range(3):
        viewer = make_napari_viewer(show=False)
        viewer.add_image(scene.movie(), name="movie")
        widget = dock(viewer)
        ready(widget, FakePredictor(), tmp_path / f"{number}")
        start(qtbot, widget)
        draw(qtbot, viewer, widget, 2)
        widget.run("propagate")
        settle(qtbot, widget)
        desk = widget.desk
        left = {thing.__class__.__name__: weakref.ref(thing) for thing in (widget, desk, desk.binding, desk.session)}
        viewer.close()
        assert desk.closed
        del viewer, widget, desk
        _collect()
        assert {name: ref() for name, ref in left.items()} == dict.fromkeys(left)
        assert not _threads()


def test_a_closed_dock_leaves_no_widget_and_no_callback(window, qtbot):
    """Closing and opening the dock again and again leaves one widget, and no callback of the closed ones."""
    viewer, widget = window()
    emitters = (viewer.layers.events.inserted, viewer.layers.events.removed, viewer.dims.events.current_step)
    before = [len(emitter.callbacks) for emitter in emitters]
    closed = []
    for _ in range(3):
        closed.append(weakref.ref(widget))
        viewer.window.remove_dock_widget(widget)
        widget = dock(viewer)
    assert [len(emitter.callbacks) for emitter in emitters] == before
    _collect()
    assert [ref() for ref in closed] == [None] * 3
    draw(qtbot, viewer, widget, 3)


def test_starting_again_leaves_no_layers_behind(window, qtbot):
    """Start, pressed again and again, shows one result and one layer of strokes an object, and keeps no others."""
    viewer, widget = window()
    draw(qtbot, viewer, widget, 2)
    widget.run("propagate")
    settle(qtbot, widget)
    names = {layer.name for layer in viewer.layers}
    for _ in range(3):
        start(qtbot, widget)
    assert {layer.name for layer in viewer.layers} == names
    assert len(viewer.layers) == len(names)
    draw(qtbot, viewer, widget, 6)
    assert viewer.layers["earlier strokes"].nshapes == 1
    assert viewer.layers["object 1 (strokes)"].nshapes == 1


# --- strokes that go wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (1, 2, 0)], ids=str)
def test_in_a_transposed_view_a_drag_is_no_stroke(window, qtbot, order):
    """Drawn across time, a line is taken away with a word, and the slider keeps its length."""
    viewer, widget = window()
    viewer.dims.order = order
    QApplication.processEvents()
    drag(viewer, [(2, 20), (4, 40), (5, 60)])
    qtbot.waitUntil(lambda: any("along the frames" in text for _, text in widget.said), timeout=PATIENCE)
    settle(qtbot, widget)
    assert not widget.session.strokes()
    assert viewer.dims.nsteps[0] == scene.FRAMES
    viewer.dims.order = (0, 1, 2)
    draw(qtbot, viewer, widget, 1)


def test_a_stroke_outside_is_taken_away(window, qtbot):
    """Drawn beside the image, a line is taken away with a word."""
    viewer, widget = window()
    drag(viewer, [(-9, 5), (-9, 25), (-9, 45), (-9, 65)])
    qtbot.waitUntil(lambda: any("outside" in text for _, text in widget.said), timeout=PATIENCE)
    settle(qtbot, widget)
    assert not widget.session.strokes()
    assert viewer.layers["object 1 (strokes)"].nshapes == 0


def test_a_click_is_a_dot_and_the_next_frame_is_free_of_it(window, qtbot):
    """A click gives a dot; moving the slider then drags no line over frames, and the next stroke is its own."""
    viewer, widget = window()
    widget.go_to(2)
    drag(viewer, scene.line(2)[:1])
    qtbot.waitUntil(lambda: len(widget.session.strokes()) == 1, timeout=PATIENCE)
    settle(qtbot, widget)
    widget.go_to(5)
    QTest.qWait(20)
    draw(qtbot, viewer, widget, 5)
    strokes = widget.session.strokes()
    assert [(s.frame, len(s.points) == 1) for s in strokes] == [(2, True), (5, False)]
    assert viewer.layers["object 1 (strokes)"].nshapes == 2


CORNERS = [(12, 20), (12, 32), (24, 32), (24, 20)]


@pytest.mark.parametrize(("tool", "points"), [("add_polygon", 5), ("add_polyline", 4)])
def test_a_line_made_by_clicks_is_one_stroke(window, qtbot, tool, points):
    """With napari's tools for polygons and lines of clicks: nothing is segmented until the double click ends it."""
    viewer, widget = window(show=True)
    widget.go_to(2)
    layer = viewer.layers["object 1 (strokes)"]
    layer.mode = tool
    for corner in CORNERS:
        click(viewer, corner)
        settle(qtbot, widget)
        assert not widget.session.strokes()
    click(viewer, CORNERS[-1], twice=True)
    qtbot.waitUntil(lambda: len(widget.session.strokes()) == 1, timeout=PATIENCE)
    settle(qtbot, widget)
    assert layer.nshapes == 1
    np.testing.assert_allclose(widget.session.strokes()[0].points, (CORNERS * 2)[:points], atol=0.5)


def test_undo_while_a_polygon_is_made_drops_it(window, qtbot):
    """Ctrl-Z takes the last stroke back, the corners clicked so far go too, and the next polygon is whole."""
    viewer, widget = window(show=True)
    draw(qtbot, viewer, widget, 2)
    layer = viewer.layers["object 1 (strokes)"]
    layer.mode = "add_polygon"
    for corner in CORNERS[:2]:
        click(viewer, corner)
    press(viewer, "Control-Z")
    settle(qtbot, widget)
    assert layer.nshapes == len(widget.session.strokes()) == 0
    for corner in CORNERS[:3]:
        click(viewer, corner)
    viewer.layers.selection.active = viewer.layers["movie"]  # which ends it, too
    qtbot.waitUntil(lambda: len(widget.session.strokes()) == 1, timeout=PATIENCE)
    settle(qtbot, widget)
    assert layer.nshapes == 1


@pytest.mark.parametrize("way", ["other layer", "slider"])
def test_a_stroke_left_unfinished_ends_where_it_was_left(window, qtbot, way):
    """Leaving a stroke half drawn, for another layer or another frame, leaves no line that still follows the mouse."""
    viewer, widget = window()
    widget.go_to(2)
    drag(viewer, scene.line(2)[:6], release=False)
    if way == "slider":
        viewer.dims.set_current_step(0, 5)
    else:
        viewer.layers.selection.active = viewer.layers["movie"]
    canvas = viewer.window._qt_viewer.canvas.native
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton)
    QApplication.processEvents()
    widget.wait()  # looks at once what was drawn
    layer = viewer.layers["object 1 (strokes)"]
    assert not layer._is_creating
    assert {s.frame for s in widget.session.strokes()} <= {2, 5}
    assert all(len(np.unique(np.rint(line[:, 0]))) == 1 for line in layer.data)
    widget.select(1)
    before = len(widget.session.strokes())
    draw(qtbot, viewer, widget, 6)
    assert len(widget.session.strokes()) == before + 1
