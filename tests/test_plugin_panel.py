"""The panel: a word on everything, keys wherever the focus is, choices that stay, progress, preferences."""

from __future__ import annotations

from functools import partial

import numpy as np
import plugin_mouse
import plugin_scene as scene
import pytest
from plugin_mouse import PATIENCE, drag, draw, press, settle
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QHeaderView,
    QLineEdit,
    QProgressBar,
    QWidget,
)

from napari_ivos import FakePredictor, Session
from napari_ivos.plugin import desks, dock, preferences, progress
from napari_ivos.plugin.dialogs import ExportDialog
from napari_ivos.plugin.sections import HELP_AGAIN, KEYS, Fold
from napari_ivos.plugin.work import LONG

pytestmark = plugin_mouse.WARNINGS
USED = (QAbstractButton, QComboBox, QAbstractSpinBox, QLineEdit, QAbstractItemView, QProgressBar)


# --- a word on everything --------------------------------------------------------------------------------------------


def told(thing: QWidget, root: QWidget) -> str:
    """What is said when the mouse rests on a widget: its own tip, or that of what it is a part of."""
    while thing is not root:
        if thing.toolTip():
            return thing.toolTip()
        thing = thing.parentWidget()
    return ""


def test_everything_says_what_it_is(window, tmp_path):
    """Each button, choice, number, table and bar has its tooltip, in the panel and in the dialog of exports."""
    _viewer, widget = window()
    for root in (widget, ExportDialog(widget, tmp_path / "labels")):
        things = [thing for kind in USED for thing in root.findChildren(kind)]
        answers = ("OK", "&OK", "Cancel", "&Cancel")
        mute = [
            thing
            for thing in things
            if not isinstance(thing, QHeaderView)
            and not told(thing, root)
            and not (isinstance(thing, QAbstractButton) and thing.text() in answers)
        ]
        assert len(things) > 5
        assert not mute
    table = widget.objects.table
    assert all(table.horizontalHeaderItem(column).toolTip() for column in range(table.columnCount()))
    assert widget.objects.timeline.words_at(30, 5)


DEEDS = {
    "undo": lambda widget: widget.run("undo"),
    "undo and redo": lambda widget: (widget.run("undo"), widget.desk.wait(), _tell(widget), widget.run("redo")),
    "undo round": lambda widget: widget.run("undo_round"),
    "undo by napari's key": lambda widget: widget.desk._by_key("undo"),
    "show after": lambda widget: (widget.run("compare"), _tell(widget), widget.run("compare")),
    "frame is right": lambda widget: widget.run("accept_frame"),
    "lock": lambda widget: widget.objects.table.locked.emit(1, True),
    "stroke": lambda widget: drag(widget.viewer, scene.line(7)),
    "brush": lambda widget: (
        widget.run("paint_mask"),
        _tell(widget),
        drag(widget.viewer, [(50, 60), (50, 64), (50, 68)]),
    ),
    "another stack": lambda widget: widget.viewer.add_image(scene.movie(), name="another"),
}


def _tell(widget) -> None:
    """Say something that the next deed makes untrue."""
    widget.desk.notice("said of the deed before", "error")


@pytest.mark.parametrize("deed", DEEDS.values(), ids=list(DEEDS))
def test_what_was_said_of_one_deed_is_over_with_the_next(window, qtbot, deed):
    """Whatever the user does next, successfully, takes the line away or puts its own in its place."""
    viewer, widget = window(show=True)
    draw(qtbot, viewer, widget, 0)
    settle(qtbot, widget)
    widget.run("propagate")
    settle(qtbot, widget)
    widget.go_to(7)
    _tell(widget)
    deed(widget)
    settle(qtbot, widget)
    assert "deed before" not in widget.banner.text()
    assert widget.banner.isVisible() == bool(widget.banner.text())


def test_what_was_said_stays_while_one_only_looks(window, qtbot):
    """Going to a frame in timeline or table is no deed: the line about the result stays."""
    _, widget = window(show=True)
    widget.desk.notice("Propagated 8 frames.", "info")
    widget.objects.timeline.jumped.emit(3)
    assert widget.desk.frame == 3
    assert widget.banner.text() == "Propagated 8 frames."
    assert widget.banner.isVisible()


def test_a_project_that_can_only_be_read_says_why(window, qtbot, tmp_path):
    """The line says so when it opens, and what is said of its file is not that it is saved there."""
    with Session(scene.movie(), FakePredictor(), project=tmp_path / "movie.ivos") as session:
        session.add_object("cell")
        _, widget = window()
        widget.said.clear()
        widget.desk.open_project(tmp_path / "movie.ivos", widget.stack.image.value)
        settle(qtbot, widget)
        reason = widget.session.read_only
        assert reason
        assert widget.said == [("warning", widget.banner.text())]
        assert widget.banner.text().startswith(f"Opened movie.ivos. It can only be read: {reason}.")
        assert widget.save.words.text() == f"Read only: {tmp_path / 'movie.ivos'} ({reason})"


def test_an_export_is_not_proposed_where_the_stack_lies(window, qtbot, tmp_path, monkeypatch):
    """Whatever the format, the proposed name is free, though stack and project have the same one."""
    import tifffile

    stack = tmp_path / "cells.ome.tif"
    tifffile.imwrite(stack, scene.movie(), metadata={"axes": "TYX"})
    proposed = []
    monkeypatch.setattr(ExportDialog, "exec", lambda dialog: bool(proposed.append(dialog)))
    _, widget = window()
    Session(stack, FakePredictor(), project=tmp_path / "cells.ivos").close()
    widget.desk.open_project(tmp_path / "cells.ivos")
    plugin_mouse.settle(qtbot, widget)
    widget.run("export")
    (dialog,) = proposed
    paths = []
    for at in range(dialog.format.count()):
        dialog.format.setCurrentIndex(at)
        paths.append(dialog.choice[1])
    assert paths[0] == tmp_path / "cells_labels.ome.tif"
    assert not any(path.is_file() for path in paths)


def test_the_first_use_is_explained_in_three_lines(window, qtbot):
    """Three lines where the panel is narrowest; after the first propagation the third alone, until the second one."""
    viewer, widget = window()
    margin = 30  # of the scroll bar and around it
    lines = widget.help.heightForWidth(widget.minimumSizeHint().width() - margin)
    lines /= widget.help.fontMetrics().lineSpacing()
    assert lines < 4
    assert widget.help.isVisibleTo(widget)
    draw(qtbot, viewer, widget, 2)
    widget.run("propagate")
    settle(qtbot, widget)
    assert widget.help.isVisibleTo(widget)
    assert widget.help.text() == HELP_AGAIN
    draw(qtbot, viewer, widget, 6)
    settle(qtbot, widget)
    widget.run("propagate")
    settle(qtbot, widget)
    assert not widget.help.isVisibleTo(widget)
    widget.run("undo")
    settle(qtbot, widget)
    assert widget.help.isVisibleTo(widget)


def test_a_propagation_says_how_it_ended(window, qtbot):
    """All frames, nothing left to do, and stopped are told apart; what can be done meanwhile is said, too."""
    viewer, widget = window(model := scene.Gated())
    draw(qtbot, viewer, widget, 2)
    widget.run("propagate")
    assert "meanwhile" in widget.banner.text()
    model.gate.release(1)
    qtbot.waitUntil(lambda: widget.desk.frames_done == 1, timeout=PATIENCE)
    widget.run("stop")
    model.gate.release(100)
    settle(qtbot, widget)
    assert widget.banner.text().startswith(f"Stopped after {widget.desk.frames_done} frame")
    widget.run("propagate")
    settle(qtbot, widget)
    assert widget.banner.text().startswith(f"Propagated {widget.desk.frames_done} frame")
    widget.run("propagate")
    settle(qtbot, widget)
    assert widget.banner.text().startswith("Nothing was left to propagate")


# --- keys ------------------------------------------------------------------------------------------------------------


def boxes(widget) -> dict[str, QWidget]:
    """Everything in the panel that can have the focus, a kind each."""
    return {
        "table": widget.objects.table,
        "choice": widget.stack.image.native,
        "number": widget.going.last.native,
        "button": widget.objects.buttons["add_object"].native,
        "check box": widget.going.follow.native,
        "fold": widget.findChild(Fold).button,
        "list": widget.stack.channels.native,
    }


def test_keys_are_commands_wherever_the_focus_is(window):
    """A letter typed after a click into the panel is its command, once, and neither a search nor a new name."""
    _viewer, widget = window()
    widget.add_object()
    for kind, box in boxes(widget).items():
        if kind == "table":
            name = box.visualItemRect(box.item(0, 1)).center()
            QTest.mouseClick(box.viewport(), Qt.MouseButton.LeftButton, pos=name)
        widget.select(1)
        QTest.keyClick(box, Qt.Key.Key_N)
        assert widget.desk.selected == 2, kind
        QTest.keyClick(box, Qt.Key.Key_K)
        assert widget.desk.selected == 0, kind
        widget.banner.clear()
        QTest.keyClick(box, Qt.Key.Key_U, Qt.KeyboardModifier.ShiftModifier)
        assert "bring back" in widget.banner.text(), kind
    QApplication.processEvents()
    assert [o.name for o in widget.session.objects] == ["object 1", "object 2"]
    assert widget.stack.image.value.name == "movie"


def test_a_name_is_typed_letter_by_letter(window):
    """While an object's name is edited, letters are letters, those of commands too."""
    _viewer, widget = window()
    table = widget.objects.table
    table.editItem(table.item(0, 1))
    editor = table.viewport().findChild(QLineEdit)
    editor.clear()
    QTest.keyClicks(editor, "KnUgQ")
    QTest.keyClick(editor, Qt.Key.Key_Return)
    QApplication.processEvents()
    assert [o.name for o in widget.session.objects] == ["KnUgQ"]
    assert widget.desk.selected == 1


def test_a_stroke_is_moved_with_the_mouse_and_deleted_with_a_key(window, qtbot):
    """With napari's own tools for shapes; the mask follows, and goes."""
    viewer, widget = window(show=True)
    draw(qtbot, viewer, widget, 2)
    before = widget.session.strokes()[0].points
    layer = viewer.layers["object 1 (strokes)"]
    layer.mode = "select"
    grip = scene.line(2)[5]
    drag(viewer, [grip, grip + (1, 0), grip + (2, 0), grip + (4, 0), grip + (5, 0)])
    # A moved stroke is taken back and drawn anew, one after the other: in between there is none.
    qtbot.waitUntil(
        lambda: any((stroke.points != before).any() for stroke in widget.session.strokes()), timeout=PATIENCE
    )
    settle(qtbot, widget)
    (moved,) = widget.session.strokes()
    shift = moved.points - before
    assert np.abs(shift - (shift[0, 0], 0)).max() < 0.01
    assert 2 < shift[0, 0] < 6
    QTest.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_Delete)
    qtbot.waitUntil(lambda: not widget.session.strokes(), timeout=PATIENCE)
    settle(qtbot, widget)
    assert not np.asarray(widget.session.labels[2]).any()


# --- choices ---------------------------------------------------------------------------------------------------------


def test_chosen_layers_stay_chosen_when_they_are_renamed(window):
    """Image, channels, axis and Labels layer are held as layers, not by their names; others come and go beside them."""
    viewer, widget = window(start=False)
    more = viewer.add_image(scene.movie(), name="more")
    labels = viewer.add_labels(np.zeros((scene.FRAMES, 60, 80), np.uint8), name="labels")
    movie = viewer.layers["movie"]
    widget.stack.image.value = movie
    widget.stack.channels.value = [more]
    widget.draw.labels.value = labels
    for layer in (movie, more, labels):
        layer.name = f"{layer.name} renamed"
    viewer.add_image(scene.movie(), name="yet another")
    viewer.add_labels(np.zeros((3, 3), np.uint8))
    assert widget.stack.image.value is movie
    assert widget.stack.image.native.currentText() == "movie renamed"
    assert widget.stack.channels.value == [more]
    assert widget.draw.labels.value is labels
    viewer.layers.remove(labels)
    assert widget.draw.labels.value not in (labels, None)


def test_the_panel_says_what_a_drag_does(window):
    """A stroke for the chosen object, paint, or nothing, where another layer is active; a click brings the pen back."""
    viewer, widget = window()
    said = widget.draw.now
    assert "You draw" in said.text()
    widget.run("paint_mask")
    assert "You paint" in said.text()
    viewer.layers.selection.active = viewer.layers["movie"]
    assert "Click an object" in said.text()
    assert "Another layer is active" in said.toolTip()
    table = widget.objects.table
    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=table.visualItemRect(table.item(0, 1)).center())
    assert "You draw" in said.text()
    assert viewer.layers.selection.active.mode == "add_path"


def test_the_plane_that_start_would_take_is_said(window, qtbot):
    """With z beside time the words follow slider and axis; from the start on they name the plane that is segmented."""
    planes = np.repeat(scene.movie()[:, None], 5, axis=1)
    viewer, widget = window(data=planes, start=False)
    words = widget.stack.words
    viewer.dims.set_point(1, 3)
    assert words.text() == "8 frames of 60 × 80 px, z = 3"
    widget.stack.frames.value = (1, "Z")
    viewer.dims.set_point(0, 6)
    assert words.text() == "5 sections of 60 × 80 px, t = 6"
    widget.stack.frames.value = (0, "T")
    viewer.dims.set_point(1, 2)
    plugin_mouse.start(qtbot, widget)
    viewer.dims.set_point(1, 4)
    assert words.text() == "8 frames of 60 × 80 px, z = 2"
    assert dict(widget.desk.binding.layout.held) == {1: 2}


@pytest.mark.parametrize("told", ["nothing", "ZYX", "TYX"])
def test_who_knows_better_says_that_frames_are_sections(make_napari_viewer, qtbot, tmp_path, told):
    """Where nothing says it, t is taken, with a word, and z can be chosen, which the project then knows for good."""
    import tifffile

    options = {"metadata": None} if told == "nothing" else {"imagej": True, "metadata": {"axes": told}}
    tifffile.imwrite(tmp_path / "nuclei.tif", scene.movie(), **options)

    def begun(choose=None):
        viewer = make_napari_viewer(show=False)
        viewer.open(str(tmp_path / "nuclei.tif"))
        widget = dock(viewer)
        plugin_mouse.ready(widget, FakePredictor(), tmp_path)
        box = widget.stack.frames.native
        offered = [box.itemText(k) for k in range(box.count())]
        before = widget.stack.words.text()
        if choose is not None:
            widget.stack.frames.value = choose
        plugin_mouse.start(qtbot, widget)
        return widget, offered, before

    widget, offered, words = begun((0, "Z") if told == "nothing" else None)
    axis = "T" if told == "TYX" else "Z"
    assert widget.session.stack.describe()["open"]["frame_axis"] == axis
    assert widget.desk.binding.layout.frame_letter == axis
    if told != "nothing":
        assert offered == [f"{told[0].lower()} (8)"]
        assert "taken as times" not in words
        return
    assert offered == ["t (8)", "z (8)"]
    assert words == "8 frames of 60 × 80 px, taken as times (sections: choose z under Advanced)"
    assert widget.stack.words.text() == "8 sections of 60 × 80 px"
    widget.desk.session.add_object("nucleus")
    widget.desk.save(tmp_path / "nuclei.ivos")
    settle(qtbot, widget)
    assert widget.session.made_from["options"]["frame_axis"] == "Z"
    widget.viewer.close()
    again, _, _ = begun()
    assert again.session.path == tmp_path / "nuclei.ivos"
    assert again.session.stack.describe()["open"]["frame_axis"] == "Z"
    assert again.stack.words.text() == "8 sections of 60 × 80 px"


@pytest.mark.parametrize("direction", ["backward", "both"])
def test_only_a_chosen_range_is_changed(window, qtbot, direction):
    """Who sets first and last frame means it: no other frame is touched, in whatever direction."""
    viewer, widget = window()
    draw(qtbot, viewer, widget, 3)
    going = widget.going
    assert not going.ranged.value
    going.first.native.setValue(2)
    going.last.native.setValue(5)
    assert going.ranged.value
    going.direction.value = direction
    widget.run("propagate")
    settle(qtbot, widget)
    found = {t for t in range(scene.FRAMES) if np.asarray(widget.session.labels[t]).any()}
    assert found == {"backward": {2, 3}, "both": {2, 3, 4, 5}}[direction]


def test_the_view_goes_along_only_where_that_is_chosen(window, qtbot):
    """The view stays where the user is; with "follow" the frame on screen is the one that was done last."""
    viewer, widget = window()
    draw(qtbot, viewer, widget, 2)
    for direction, follow, seen in (("forward", False, 1), ("backward", True, 0)):
        widget.go_to(1)
        widget.going.follow.native.setChecked(follow)
        widget.going.direction.value = direction
        widget.run("propagate")
        settle(qtbot, widget)
        assert widget.desk.frame == seen


def reviewed(widget) -> list[int]:
    """Frames on which the window knows the first object's quality."""
    return [t for t in range(scene.FRAMES) if not np.isnan(widget.desk.review.at(t).get(1, np.nan))]


def test_frames_that_come_out_fast_are_taken_in_together_and_the_last_word_at_once(window, qtbot, monkeypatch):
    """The window works once for many frames, and does not wait when the propagation is over."""
    monkeypatch.setattr(desks, "SOON_MS", 600_000)
    viewer, widget = window(model := scene.Gated())
    draw(qtbot, viewer, widget, 2)
    with qtbot.waitSignal(widget.desk.progressed, timeout=PATIENCE):  # the word that it began, before any frame
        widget.run("propagate")
    labels, most = widget.session.labels, scene.FRAMES - 1
    for count in range(1, most):
        model.gate.release()
        qtbot.waitUntil(lambda count=count: sum(labels[t].any() for t in range(len(labels))) > count, timeout=PATIENCE)
        assert widget.desk.frames_done == 0
    model.gate.release()
    qtbot.waitUntil(lambda: widget.desk.engine.idle, timeout=PATIENCE)
    assert widget.desk.frames_done == most
    assert reviewed(widget) == list(range(scene.FRAMES))


def test_a_frame_that_nothing_follows_is_taken_in_soon(window, qtbot, monkeypatch):
    """The next frame may take long: what is done shows without it."""
    monkeypatch.setattr(desks, "SOON_MS", 50)
    viewer, widget = window(model := scene.Gated())
    draw(qtbot, viewer, widget, 2)
    widget.run("propagate")
    model.gate.release(2)
    qtbot.waitUntil(lambda: widget.desk.frames_done == 2, timeout=PATIENCE)
    assert widget.desk.engine.busy  # at the third frame, which waits
    assert reviewed(widget) == [2, 3, 4]
    model.gate.release(100)
    settle(qtbot, widget)
    assert widget.desk.frames_done == scene.FRAMES - 1


# --- progress --------------------------------------------------------------------------------------------------------


def test_progress_and_time_left_are_in_the_panel_and_in_naparis_activity_dock(window, qtbot, monkeypatch):
    """While frames come out both bars tell how many and how long it will still take; afterwards both are gone."""
    from napari._qt.widgets.qt_progress_bar import QtLabeledProgressBar

    monkeypatch.setattr(progress, "TELL_EVERY", 0.0)
    viewer, widget = window(model := scene.Gated(), show=True)
    bars = partial(viewer.window._qt_window._activity_dialog.findChildren, QtLabeledProgressBar)
    draw(qtbot, viewer, widget, 2)
    press(viewer, KEYS["propagate"])
    for count in (1, 2, 3):
        model.gate.release()
        qtbot.waitUntil(lambda count=count: widget.going.bar.value() == count, timeout=PATIENCE)
    assert widget.going.bar.maximum() == scene.FRAMES - 1
    assert widget.going.bar.text().startswith(f"propagating 3/{scene.FRAMES - 1}, ")
    assert widget.going.bar.text().endswith(" s left")
    (bar,) = bars()
    assert bar.description_label.text().startswith("propagating")
    assert bar.qt_progress_bar.value() == 3
    assert bar.qt_progress_bar.maximum() == scene.FRAMES - 1
    assert "<" in bar.eta_label.text()
    model.gate.release(100)
    settle(qtbot, widget)
    assert not widget.going.bar.isVisible()
    qtbot.waitUntil(lambda: not any(bar.isVisible() for bar in bars()), timeout=PATIENCE)


def test_a_bar_says_what_is_done_as_soon_as_it_is_there(window, monkeypatch):
    """Before napari is told, which may draw the window or wait for Python's lock meanwhile."""
    import napari.utils

    _viewer, widget = window()
    seen = []

    class Told:
        total = 0
        n = 0

        def __init__(self, **_options):
            seen.append(widget.going.bar.text())

        def close(self):
            """Nothing to close."""

    monkeypatch.setattr(napari.utils, "progress", Told)
    for kind in LONG:
        widget.desk.progressed.emit(progress.Progress(kind))
        assert widget.going.bar.text().endswith(" …")
        widget.desk.progressed.emit(None)
    # of a propagation napari is told with its first frame
    assert seen == [
        *("opening the stack …", "loading the model …", "exporting …", "making tracks …", "adapting the model …")
    ]


# --- from outside ----------------------------------------------------------------------------------------------------


def test_dock_takes_a_viewer_as_plugins_get_it(window):
    """Napari hands plugins a proxy of its viewer: `dock` knows the widget by that, too."""
    from napari.utils._proxies import PublicOnlyProxy

    viewer, widget = window(start=False)
    assert dock(PublicOnlyProxy(viewer)) is widget


def test_dock_opens_the_widget_in_a_proxied_viewer(make_napari_viewer_proxy):
    """Where it isn't open yet, it is docked in the window behind the proxy; `session` is None before the start."""
    proxy = make_napari_viewer_proxy(show=False)
    widget = dock(proxy)
    assert widget.session is None
    assert dock(proxy) is widget
    assert widget.desk.viewer is proxy.__wrapped__
    assert any(name.startswith("Interactive video") for name in proxy.__wrapped__.window.dock_widgets)


def test_dock_opens_a_viewer_where_there_is_none(make_napari_viewer, monkeypatch):
    """From a console without a window one call gives both."""
    import napari

    made = []
    monkeypatch.setattr(napari, "current_viewer", lambda: None)
    monkeypatch.setattr(napari, "Viewer", lambda: made.append(make_napari_viewer(show=False)) or made[-1])
    widget = dock()
    assert widget.desk.viewer is made[0]


def _preferred(npe2pm, **values):
    """Register the plugin and set its preferences, as napari's dialog does."""
    from napari.settings import get_plugin_settings
    from npe2 import PluginManifest

    npe2pm.register(PluginManifest.from_distribution("napari-ivos"))
    settings = get_plugin_settings("napari-ivos")
    for place, value in values.items():
        group, name = place.split("__")
        setattr(getattr(settings, group), name, value)
    return settings


def test_preferences_are_what_the_panel_begins_with(plugin_settings, npe2pm, make_napari_viewer, tmp_path):
    """Device, model and folder that are set in napari's preferences are chosen when the panel opens."""
    model = tmp_path / "my.safetensors"
    _preferred(npe2pm, compute__device="cpu", compute__model=str(model), projects__folder=str(tmp_path))
    stack = dock(make_napari_viewer(show=False)).stack
    assert stack.device.value == "cpu"
    assert stack.model.value == model
    assert stack.folder.value == tmp_path


def test_preferences_that_can_not_be_are_refused(plugin_settings, npe2pm):
    """Napari itself takes only devices that there are."""
    with pytest.raises(Exception, match="device"):
        _preferred(npe2pm, compute__device="toaster")


def test_without_preferences_of_plugins_there_are_defaults(make_napari_viewer, monkeypatch):
    """An older napari, which keeps none for plugins, gives the panel with its defaults."""
    import napari.settings

    monkeypatch.delattr(napari.settings, "get_plugin_settings")
    assert preferences.get("compute", "device", "automatic") == "automatic"
    stack = dock(make_napari_viewer(show=False)).stack
    assert stack.device.value == "automatic"
    assert not stack.folder.value
