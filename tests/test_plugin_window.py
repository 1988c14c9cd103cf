"""The real window, driven with mouse and keys; needs a display (xvfb-run)."""

from __future__ import annotations

import threading

import numpy as np
import plugin_mouse
import plugin_scene as scene
import pytest
from plugin_mouse import PATIENCE, drag, draw, press, settle, start
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QPushButton

from napari_ivos import FakePredictor
from napari_ivos.errors import OutOfMemory, WeightsError
from napari_ivos.plugin import dock
from napari_ivos.plugin.sections import KEYS, Fold, Panel
from napari_ivos.plugin.state import COMMANDS, State, reasons

pytestmark = plugin_mouse.WARNINGS
NARROW = 360
"""Pixels beyond which a dock with letters of the usual size takes too much of a small window."""


# --- what can be done when: pure -----------------------------------------------------------------------------------


def test_without_an_image_nothing_can_be_done():
    """Each command says why it can't be used."""
    said = reasons(State())
    assert set(said) == set(COMMANDS)
    assert all(said.values())


@pytest.mark.parametrize(
    ("state", "possible", "impossible"),
    [
        (State(image=True), {"start"}, {"propagate", "add_object"}),
        (State(image=True, session=True, model="ready"), {"add_object"}, {"propagate", "next_object", "undo"}),
        (
            State(image=True, session=True, model="ready", objects=1, selected=1, annotated=True, can_undo=True),
            {"propagate", "undo", "remove_object", "export"},
            {"redo", "stop", "compare"},
        ),
        (
            State(image=True, session=True, model="loading", objects=1, annotated=True),
            {"add_object"},
            {"propagate"},
        ),
        (
            State(image=True, session=True, model="ready", objects=1, annotated=True, running="propagate"),
            {"stop", "add_object", "draw_background"},
            {"propagate", "undo", "remove_object"},
        ),
        (
            State(image=True, session=True, objects=1, propagated=True, read_only="another process"),
            {"next_frame", "export", "compare"},
            {"propagate", "add_object"},
        ),
        (
            State(image=True, session=True, model="ready", objects=1, annotated=True, comparing=True, can_undo=True),
            {"compare", "propagate", "add_object", "undo"},
            {"stop"},
        ),
        (State(image=True, session=True, objects=1, selected=1, locked=True), set(), {"remove_object", "divide"}),
    ],
)
def test_commands_follow_from_the_state(state, possible, impossible):
    """One pure function says what can be done."""
    said = reasons(state)
    assert not {name for name in possible if said[name]}
    assert not {name for name in impossible if not said[name]}


def test_keys_are_none_of_naparis():
    """No key of ours is bound by napari, for the viewer or for any layer."""
    from app_model.types import KeyBinding
    from napari.utils.shortcuts import default_shortcuts

    taken = {str(key) for keys in default_shortcuts.values() for key in keys}
    ours = {str(KeyBinding.from_str(key.replace("-", "+"))) for key in KEYS.values()}
    assert len(ours) == len(KEYS)
    assert not ours & taken


# --- the main job --------------------------------------------------------------------------------------------------


def test_draw_propagate_correct_undo_save_and_reopen(window, qtbot, tmp_path):
    """The whole way with mouse and keys: a stroke gives a mask, G carries it, U takes back, the project comes back."""
    viewer, widget = window(show=True)
    draw(qtbot, viewer, widget, 2)
    assert scene.overlap(widget.session.labels[2] == 1, scene.square(2)) > 0.7
    press(viewer, KEYS["propagate"])
    qtbot.waitUntil(lambda: widget.desk.state().propagated, timeout=PATIENCE)
    settle(qtbot, widget)
    assert all(scene.overlap(widget.session.labels[t] == 1, scene.square(t)) > 0.6 for t in range(scene.FRAMES))
    assert viewer.layers["movie [objects]"].data is widget.session.labels
    draw(qtbot, viewer, widget, 6)
    assert widget.session.strokes()[-1].round == 2
    press(viewer, KEYS["undo"])
    qtbot.waitUntil(lambda: len(widget.session.strokes()) == 1, timeout=PATIENCE)
    press(viewer, KEYS["redo"])
    qtbot.waitUntil(lambda: len(widget.session.strokes()) == 2, timeout=PATIENCE)
    masks = np.array(widget.session.labels)
    start(qtbot, widget)
    np.testing.assert_array_equal(np.asarray(widget.session.labels), masks)
    assert (tmp_path / "movie.ivos").exists()


def test_keys_choose_objects_and_background(window, qtbot):
    """N goes to the next object (a new one after the last), K to the background; the panel says for whom you draw."""
    viewer, widget = window()
    widget._bind(True)
    assert "<b>object 1</b>" in widget.draw.now.text()
    press(viewer, KEYS["next_object"])
    assert widget.desk.selected == 2
    widget.rename_object(2, "<img src='x'>")
    assert "You draw" in widget.draw.now.text()
    assert "<b>&lt;img src=" in widget.draw.now.text()
    press(viewer, KEYS["draw_background"])
    assert widget.desk.selected == 0
    assert "background" in widget.draw.now.text()
    assert viewer.layers.selection.active.name == "background (strokes)"


def test_stop_answers_within_a_frame_and_keeps_what_is_done(window, qtbot):
    """Q during a propagation ends it after the frame it is at; frames done stay."""
    viewer, widget = window(model := scene.Gated())
    draw(qtbot, viewer, widget, 2)
    widget.run("propagate")
    model.gate.release(2)
    qtbot.waitUntil(lambda: widget.desk.frames_done == 2, timeout=PATIENCE)
    assert not viewer.layers["movie [objects]"].editable
    widget.run("stop")
    model.gate.release()
    settle(qtbot, widget)
    done = [t for t in range(scene.FRAMES) if np.asarray(widget.session.labels[t]).any()]
    assert len(done) in (3, 4)
    assert viewer.layers["movie [objects]"].editable


def test_a_stroke_stops_a_propagation_and_runs(window, qtbot):
    """Drawing needs no waiting: the propagation ends after its frame, then the stroke is segmented."""
    viewer, widget = window(model := scene.Gated())
    draw(qtbot, viewer, widget, 2)
    widget.run("propagate")
    model.gate.release()
    qtbot.waitUntil(lambda: widget.desk.frames_done == 1, timeout=PATIENCE)
    widget.go_to(7)
    drag(viewer, scene.line(7))
    qtbot.waitUntil(lambda: widget.desk.engine.jobs[-1].kind == "interact", timeout=PATIENCE)
    model.gate.release(2)
    settle(qtbot, widget)
    assert [s.frame for s in widget.session.strokes()] == [2, 7]
    assert not np.asarray(widget.session.labels[5]).any()


def test_a_new_object_during_a_propagation(window, qtbot):
    """A new object stops the propagation too, and is then drawn."""
    viewer, widget = window(model := scene.Gated())
    draw(qtbot, viewer, widget, 2)
    widget.run("propagate")
    qtbot.waitUntil(lambda: widget.desk.engine.current is not None, timeout=PATIENCE)
    widget.run("add_object")
    model.gate.release(2)
    settle(qtbot, widget)
    assert widget.desk.selected == 2


# --- what goes wrong -----------------------------------------------------------------------------------------------


def test_no_model_is_said_in_the_window(window, qtbot, monkeypatch):
    """A model that can't be loaded is told in the banner and where the model is named; drawing goes on."""
    from napari_ivos.plugin import loading

    def fail(name, device):
        raise WeightsError("The model 'compact' is missing from this installation.")

    monkeypatch.setattr(loading, "load", fail)
    _viewer, widget = window()
    widget.desk.model = None
    widget.run("load_model")
    qtbot.waitUntil(lambda: "missing" in widget.banner.text(), timeout=PATIENCE)
    settle(qtbot, widget)
    assert "missing" in widget.stack.shown_device.text()
    assert not widget.going.buttons["propagate"].enabled


@pytest.mark.parametrize("error", [RuntimeError("cuda broke"), OutOfMemory("cuda:0 has no memory left"), KeyError("x")])
def test_errors_of_a_run_are_shown_and_the_window_goes_on(window, qtbot, monkeypatch, error):
    """Whatever a network raises is shown; nothing hangs, and the next run works."""
    viewer, widget = window(model := FakePredictor())
    draw(qtbot, viewer, widget, 2)
    with monkeypatch.context() as patch:
        patch.setattr(model, "propagate", lambda requests: (_ for _ in ()).throw(error))
        widget.run("propagate")
        qtbot.waitUntil(lambda: any(kind == "error" for kind, _ in widget.said), timeout=PATIENCE)
        settle(qtbot, widget)
    widget.run("propagate")
    settle(qtbot, widget)
    assert all(np.asarray(widget.session.labels[t]).any() for t in range(scene.FRAMES))


def test_a_command_that_is_not_possible_says_why(window):
    """A key whose command can't be used says why in the banner."""
    _viewer, widget = window(start=False)
    widget.run("propagate")
    assert "Start" in widget.banner.text()


def test_drawing_in_3d_or_across_time_is_refused(window, qtbot):
    """In a transposed view a line is taken away with a word."""
    viewer, widget = window()
    viewer.dims.order = (1, 0, 2)
    drag(viewer, [(2, 20), (4, 40), (5, 60)])
    qtbot.waitUntil(lambda: "along the frames" in widget.banner.text(), timeout=PATIENCE)
    assert not widget.session.strokes()
    viewer.dims.order = (0, 1, 2)
    draw(qtbot, viewer, widget, 1)


# --- coming and going ----------------------------------------------------------------------------------------------


def test_dock_finds_its_widget_again(window, make_napari_viewer_proxy):
    """`dock` gives the same widget for the same viewer, raw or proxied; `session` is None before the start."""
    viewer, widget = window(start=False)
    assert dock(viewer) is widget
    assert dock() is widget
    assert widget.session is None


def test_keys_are_given_back_with_the_dock(window, qtbot):
    """While the widget is hidden napari has no key of ours."""
    viewer, widget = window()
    widget._bind(True)
    assert set(map(str, viewer.keymap)) >= {"N", "G"}
    widget._bind(False)
    assert not set(map(str, viewer.keymap)) & {"N", "G", "K"}


def test_a_closed_dock_loses_nothing(window, qtbot):
    """After closing the dock and opening it again the same session is there."""
    viewer, widget = window()
    draw(qtbot, viewer, widget, 2)
    session = widget.session
    viewer.window.remove_dock_widget(widget)
    again = dock(viewer)
    assert again.session is session
    draw(qtbot, viewer, again, 4)
    assert len(session.strokes()) == 2


def test_closing_the_viewer_during_a_run(window, qtbot):
    """The run ends at its frame, the project is whole, and no thread is left."""
    viewer, widget = window(model := scene.Gated())
    draw(qtbot, viewer, widget, 2)
    desk, path = widget.desk, widget.session.path
    widget.run("propagate")
    qtbot.waitUntil(lambda: desk.engine.current is not None, timeout=PATIENCE)
    model.gate.release(50)
    viewer.close()
    qtbot.waitUntil(lambda: desk.closed, timeout=PATIENCE)
    assert desk.session is None
    assert not any(t.name == "napari-ivos engine" and t.is_alive() for t in threading.enumerate())
    from napari_ivos import Session

    with Session.open(path, frames=scene.movie()) as kept:
        assert len(kept.strokes()) == 1


def test_two_windows_work_side_by_side(window, qtbot):
    """Each viewer has a widget and a session of its own."""
    (one, first), (two, second) = window(name="one"), window(name="two")
    draw(qtbot, one, first, 2)
    assert not second.session.strokes()
    assert dock(one) is first
    assert dock(two) is second


def test_table_and_timeline_follow(window, qtbot):
    """The table names objects and annotated frames; a click in the timeline goes to its frame."""
    viewer, widget = window()
    draw(qtbot, viewer, widget, 2)
    widget.run("propagate")
    settle(qtbot, widget)
    table, timeline = widget.objects.table, widget.objects.timeline
    assert table.item(0, 1).text() == "object 1"
    assert table.item(0, 4).text() == "2"
    timeline.resize(170, 20)
    timeline.jumped.emit(timeline.frame_at(timeline._x_of(6)))
    assert widget.desk.frame == 6
    table.item(0, 1).setText("cell")
    assert widget.session.objects[0].name == "cell"
    assert not timeline.grab().isNull()


def test_nothing_is_cut_off_in_a_narrow_dock(window, qtbot):
    """With every fold open, long names, a long path and larger letters, the dock is never narrower than its text."""
    viewer, widget = window(name="a layer with a name that " + 8 * "never ends ", show=True)
    viewer.add_labels(np.zeros((scene.FRAMES, 60, 80), np.uint8), name=100 * "long")
    widget.save.words.setText("Saved in /" + 50 * "folder_without_spaces_")
    for fold in widget.findChildren(Fold):
        fold.open()
        assert fold.isVisibleTo(widget)
    panel, main = widget.findChild(Panel), viewer.window._qt_window
    widths = []
    for size in (None, 16):
        if size is not None:
            widget.setStyleSheet(f"* {{ font-size: {size}pt; }}")
        for _ in range(3):
            main.resizeDocks([widget.parent()], [10], Qt.Orientation.Horizontal)
            QApplication.processEvents()
        buttons = [b for b in panel.findChildren(QPushButton) if b.isVisible()]
        assert len(buttons) > 20
        assert not [b.text() for b in buttons if b.width() < b.sizeHint().width()]
        assert panel.widget().width() <= panel.viewport().width()
        widths.append(widget.width())
    assert widths[0] < NARROW < widths[1]


def test_a_long_timeline_is_drawn_at_once(qtbot):
    """100,000 frames of 20 objects become one picture as wide as the widget."""
    from napari_ivos.plugin.review import Review
    from napari_ivos.plugin.timeline import ROW, picture
    from napari_ivos.project import ObjectInfo

    frames = 100_000
    objects = tuple(ObjectInfo(k, f"{k}", "#ff0000", range(frames)) for k in range(1, 21))
    quality = {o.id: np.full(frames, 0.9, np.float32) for o in objects}
    quality[3][54_321] = 0.1
    review = Review(frames, objects, quality, {1: (5, 99_999)})
    image = picture(review, 300)
    assert image.shape == (20 * ROW, 300, 3)
    row = image[2 * ROW + 5]
    assert (row[54_321 * 300 // frames] != row[0]).any()
    assert (image[5, 299] == 255).all()
