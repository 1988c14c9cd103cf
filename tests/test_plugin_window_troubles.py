"""What goes wrong or is unusual, in a shown window: reads that fail, 3-D, Ctrl-Z anywhere, very large frames."""

from __future__ import annotations

import numpy as np
import plugin_mouse
import plugin_scene as scene
import plugin_wide as wide
import pytest
from plugin_mouse import PATIENCE, click, drag, draw, hover, press, settle
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_ivos import FakePredictor
from napari_ivos.plugin import dock
from napari_ivos.plugin.sections import KEYS

pytestmark = plugin_mouse.WARNINGS


def masked(widget) -> list[int]:
    """Frames on which object 1 has a mask."""
    return [t for t in range(scene.FRAMES) if (np.asarray(widget.session.labels[t]) == 1).any()]


def errors(widget) -> list[str]:
    """What the user was told of errors."""
    return [text for kind, text in widget.said if kind == "error"]


def test_a_read_that_fails_in_the_middle_of_a_run(window, qtbot):
    """The frame is named, what is done is kept, drawing goes on, and once it can be read so does the run."""
    viewer, widget = window(data=(frames := scene.Failing()), show=True)
    draw(qtbot, viewer, widget, 2)
    frames.broken = True
    press(viewer, KEYS["propagate"])
    qtbot.waitUntil(lambda: bool(errors(widget)), timeout=PATIENCE)
    settle(qtbot, widget)
    (said,) = errors(widget)
    assert "the share is gone" in said
    assert "5" in said
    assert widget.banner.isVisible()
    assert widget.banner.text() == said
    kept = masked(widget)
    assert set(kept) >= {2, 3, 4}
    assert 5 not in kept
    assert viewer.layers["movie [objects]"].editable
    assert widget.going.buttons["propagate"].enabled
    assert not widget.going.bar.text()
    draw(qtbot, viewer, widget, 3)
    assert scene.overlap(widget.session.labels[3] == 1, scene.square(3)) > 0.7
    frames.broken = False
    press(viewer, KEYS["propagate"])
    qtbot.waitUntil(lambda: set(masked(widget)) >= set(range(2, scene.FRAMES)), timeout=PATIENCE)
    settle(qtbot, widget)
    assert len(errors(widget)) == 1


def test_in_3d_nothing_can_be_drawn_and_in_2d_it_goes_on(window, qtbot):
    """In napari's 3-D view a drag is no stroke, and that is said; the button pressed again, the next one is."""
    viewer, widget = window(show=True)
    viewer.window._qt_window.resize(760, 420)  # volumes are drawn in software here
    QApplication.processEvents()
    viewer.reset_view()
    draw(qtbot, viewer, widget, 2)
    masks = np.array(widget.session.labels)
    button = viewer.window._qt_viewer.viewerButtons.ndisplayButton
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: viewer.dims.ndisplay == 3, timeout=PATIENCE)
    drag(viewer, scene.line(3)[::4])
    qtbot.waitUntil(lambda: "3D" in widget.banner.text(), timeout=PATIENCE)
    settle(qtbot, widget)
    assert [s.frame for s in widget.session.strokes()] == [2]
    np.testing.assert_array_equal(np.asarray(widget.session.labels), masks)
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: viewer.dims.ndisplay == 2, timeout=PATIENCE)
    QApplication.processEvents()
    draw(qtbot, viewer, widget, 5)
    assert [s.frame for s in widget.session.strokes()] == [2, 5]


def test_after_a_3d_view_a_stroke_layer_that_was_not_active_is_drawn_in(window, qtbot):
    """Chosen in napari's list when the view is flat again; its tool is the pen, and not the hand."""
    viewer, widget = window(show=True)
    draw(qtbot, viewer, widget, 2)
    widget.run("paint_mask")
    viewer.dims.ndisplay = 3
    QApplication.processEvents()
    viewer.dims.ndisplay = 2
    QApplication.processEvents()
    viewer.layers.selection.active = viewer.layers["object 1 (strokes)"]
    draw(qtbot, viewer, widget, 5)


def test_what_the_right_button_encircles_is_one_step(window, qtbot):
    """However many dabs napari makes of the way round, which no button is held on: one annotation, one undo."""
    viewer, widget = window(show=True)
    draw(qtbot, viewer, widget, 3)
    before, steps = np.array(widget.session.labels[3]), len(widget.session.log)
    widget.run("paint_mask")
    viewer.layers.selection.active.brush_size = 3
    click(viewer, (40, 60), Qt.MouseButton.RightButton)
    hover(viewer, [(40 + 8 * np.sin(a), 52 + 8 * np.cos(a)) for a in np.linspace(0, 2 * np.pi, 24)])
    qtbot.waitUntil(lambda: len(widget.session.log) > steps, timeout=PATIENCE)
    settle(qtbot, widget)
    assert widget.session.labels[3, 40, 52] == 1
    assert len(widget.session.log) == steps + 1
    press(viewer, "Control-Z")
    settle(qtbot, widget)
    np.testing.assert_array_equal(widget.session.labels[3], before)


def test_ctrl_z_in_any_layer(window, qtbot):
    """In the image and each layer of ours Ctrl-Z is the session's undo, with Shift its redo; elsewhere napari's."""
    viewer, widget = window(show=True)
    draw(qtbot, viewer, widget, 2)
    press(viewer, KEYS["propagate"])
    qtbot.waitUntil(lambda: widget.desk.state().propagated, timeout=PATIENCE)
    settle(qtbot, widget)
    draw(qtbot, viewer, widget, 6)
    after = np.array(widget.session.labels)
    for name in ("movie", "movie [objects]", "object 1 (strokes)", "earlier strokes"):
        viewer.layers.selection.active = viewer.layers[name]
        press(viewer, "Control-Z")
        qtbot.waitUntil(lambda: len(widget.session.strokes()) == 1, timeout=PATIENCE)
        settle(qtbot, widget)
        press(viewer, "Control-Shift-Z")
        qtbot.waitUntil(lambda: len(widget.session.strokes()) == 2, timeout=PATIENCE)
        settle(qtbot, widget)
        np.testing.assert_array_equal(np.asarray(widget.session.labels), after, err_msg=name)
    log = widget.session.log
    own = viewer.add_labels(np.zeros(viewer.layers["movie"].data.shape, np.uint8), name="my own")
    own.mode = "paint"
    drag(viewer, [(40, 10), (44, 14), (48, 18)])
    assert own.data.any()
    press(viewer, "Control-Z")
    assert not own.data.any()
    lines = viewer.add_shapes(ndim=3, name="my own lines")
    lines.mode = "add_path"
    drag(viewer, scene.line(6))
    press(viewer, "Control-Z")
    settle(qtbot, widget)
    assert lines.nshapes == 1
    assert widget.session.log == log
    np.testing.assert_array_equal(np.asarray(widget.session.labels), after)


@pytest.fixture
def wide_window(make_napari_viewer, qtbot, tmp_path):
    """A shown window with frames of 9,000 x 20,000 px, zoomed to the scene, and the started widget."""
    viewer = make_napari_viewer(show=True)
    viewer.add_layer(wide.layer())
    widget = dock(viewer)
    plugin_mouse.ready(widget, FakePredictor(), tmp_path)
    wide.look_at(viewer, wide.PLACE[0] + 30, wide.PLACE[1] + 40)
    plugin_mouse.start(qtbot, widget)
    return viewer, widget


def test_frames_larger_than_a_layer_takes_are_drawn_and_painted(wide_window, qtbot):
    """Drawn, propagated, painted and taken back with mouse and keys, where a labels layer can't hold the frame."""
    viewer, widget = wide_window
    desk, session = widget.desk, widget.session
    assert viewer.layers["wide [objects]"].multiscale
    widget.go_to(2)
    drag(viewer, scene.line(2) + wide.PLACE)
    qtbot.waitUntil(lambda: len(session.strokes()) == 1, timeout=PATIENCE)
    settle(qtbot, widget)
    assert scene.overlap(wide.mask(session, 2), scene.square(2)) > 0.7
    press(viewer, KEYS["propagate"])
    qtbot.waitUntil(lambda: desk.state().propagated, timeout=PATIENCE)
    settle(qtbot, widget)
    assert all(scene.overlap(wide.mask(session, t), scene.square(t)) > 0.6 for t in range(scene.FRAMES))
    widget.go_to(5)
    QTest.mouseClick(widget.draw.buttons["paint_mask"].native, Qt.MouseButton.LeftButton)
    paper = viewer.layers.selection.active
    assert (paper.name, paper.mode) == ("wide [paint here]", "paint")
    paper.brush_size = 6
    spot = np.array(wide.PLACE) + (50, 10)
    drag(viewer, [spot, spot + (0, 4), spot + (0, 8)])
    qtbot.waitUntil(lambda: session.annotated_frames(1) == (2, 5), timeout=PATIENCE)
    settle(qtbot, widget)
    assert session.labels[5, spot[0], spot[1] + 4] == 1
    assert viewer.layers["wide [objects]"].data[0] is session.labels
    press(viewer, "Control-Z")

    qtbot.waitUntil(lambda: session.annotated_frames(1) == (2,), timeout=PATIENCE)
    settle(qtbot, widget)
    assert session.labels[5, spot[0], spot[1] + 4] == 0
    wide.look_at(viewer, wide.HEIGHT / 2, wide.WIDTH / 2, zoom=0.03)
    viewer.reset_view()
    QApplication.processEvents()
    assert viewer.layers["wide [objects]"].data_level > 0
