"""Every way in and out that napari has: shell, menus, palette, dropping, opening, saving; in the real window."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import plugin_mouse
import plugin_scene as scene
import pytest
from plugin_mouse import PATIENCE, settle
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_ivos import FakePredictor, Scribbles, Session, Stroke
from napari_ivos.plugin import docking, reading
from napari_ivos.plugin.sections import KEYS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = plugin_mouse.WARNINGS
TITLE = "Interactive video segmentation"


@pytest.fixture
def viewer(make_napari_viewer, monkeypatch, tmp_path):
    """A hidden viewer; models are fakes, and what has no folder of its own lies in the test's."""
    from napari_ivos.plugin import loading, projects

    monkeypatch.setattr(loading, "load", lambda name=None, device=None: FakePredictor())
    monkeypatch.setattr(projects, "default_folder", lambda: tmp_path / "home")
    return make_napari_viewer(show=False)


@pytest.fixture
def project(tmp_path):
    """A project with one segmented square, beside its movie; its path and its labels."""
    import tifffile

    tifffile.imwrite(tmp_path / "movie.tif", scene.movie(), metadata={"axes": "TYX"})
    import napari_ivos as ivos

    stack = ivos.open_frames(tmp_path / "movie.tif")
    with Session(stack, FakePredictor(), project=tmp_path / "movie.ivos") as session:
        session.interact(Scribbles(2, [Stroke(1, scene.line(2))]))
        list(session.propagate())
        labels = np.asarray(session.labels)
    stack.close()
    return tmp_path / "movie.ivos", labels


def action(viewer, command: str):
    """The entry of napari's menus that runs a command, as it is in the menu bar."""
    from qtpy.QtWidgets import QMenu

    for menu in viewer.window._qt_window.findChildren(QMenu):
        for entry in menu.actions():
            if getattr(entry, "_command_id", "") == command:
                return menu, entry
    raise AssertionError(f"{command} is in no menu")


def opened(qtbot, viewer, labels) -> None:
    """The project is on screen: its frames, strokes and masks, in the widget."""
    raw = getattr(viewer, "__wrapped__", viewer)
    widget = docking._widgets[id(raw)]
    qtbot.waitUntil(lambda: widget.session is not None, timeout=PATIENCE)
    settle(qtbot, widget)
    np.testing.assert_array_equal(np.asarray(widget.session.labels), labels)
    shown = {layer.name.split(" [1]")[0]: layer for layer in viewer.layers if layer.visible}
    assert set(shown) == {"movie.tif", "movie.tif [objects]", "earlier strokes", "object 1 (strokes)"}
    assert shown["movie.tif [objects]"].data is widget.session.labels
    assert shown["earlier strokes"].nshapes == 1
    assert _docked(viewer)


def _docked(viewer) -> bool:
    return any(name.startswith(TITLE) for name in viewer.window.dock_widgets)


# --- the widget ----------------------------------------------------------------------------------------------------


def test_the_widget_is_in_layers_segment(viewer, qtbot):
    """Layers > Segment has an entry that opens the dock, and closes it again."""
    menu, entry = action(viewer, "napari-ivos.widget")
    assert menu.objectName() == "napari/layers/segment"
    entry.trigger()
    qtbot.waitUntil(lambda: _docked(viewer), timeout=PATIENCE)
    assert entry.text() == f"{TITLE} (napari-ivos)"


def test_there_is_one_panel_whichever_way_it_is_opened(viewer, qtbot, project):
    """What File > Open has opened is what Layers > Segment hides and shows again, and a script brings back."""
    path, labels = project
    viewer.open(str(path), plugin="napari-ivos")
    opened(qtbot, viewer, labels)
    widget = docking.open_dock(viewer)
    panel = widget.parent()
    _menu, entry = action(viewer, "napari-ivos.widget")
    panel.hide()
    entry.trigger()
    assert not panel.isHidden()
    panel.hide()
    assert docking.open_dock(viewer) is widget
    assert not panel.isHidden()
    assert [name for name in viewer.window.dock_widgets if TITLE in name] == [entry.text()]
    assert widget is viewer.window.dock_widgets[entry.text()]


def test_the_title_of_the_panel_is_not_cut_off(make_napari_viewer, qtbot):
    """At its narrowest the panel shows all of its title, whatever napari adds to the name."""
    viewer = make_napari_viewer(show=True)
    viewer.window.add_plugin_dock_widget("napari-ivos", TITLE)
    (panel,) = viewer.window._wrapped_dock_widgets.values()
    panel.resize(panel.minimumSizeHint().width(), panel.height())
    QApplication.processEvents()
    label = panel.title.title
    assert label.text() == TITLE
    assert label.fontMetrics().horizontalAdvance(TITLE) <= label.width()


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        pytest.param("interactive video segmentation", "widget", id="widget"),
        pytest.param("propagate the masks", "propagate", id="propagate"),
        pytest.param("draw background", "draw_background", id="background"),
        pytest.param("open a project", "read_project", id="open a project"),
    ],
)
def test_commands_are_in_the_palette(viewer, qtbot, monkeypatch, typed, command):
    """What is typed into the command palette and confirmed with Enter opens the widget, whatever the command."""
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *args, **more: ("", ""))
    window = viewer.window._qt_window
    viewer.window._toggle_command_palette()
    palette = window._command_palette
    palette._line.setText(typed)
    qtbot.waitUntil(palette._list.can_execute, timeout=PATIENCE)
    found = palette._list
    for _ in range(30):
        if found.command_at(found._selected_index).id == f"napari-ivos.{command}":
            break
        QTest.keyClick(palette._line, Qt.Key.Key_Down)
    assert found.command_at(found._selected_index).id == f"napari-ivos.{command}"
    QTest.keyClick(palette._line, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: _docked(viewer), timeout=PATIENCE)


def execute(command: str) -> None:
    """Run a command as the palette does, through napari's app-model."""
    from napari._app_model import get_app_model

    get_app_model().commands.execute_command(f"napari-ivos.{command}").result()


ELSEWHERE = {"open_project": "read_project"}
"""Buttons whose command has another name: napari's own for reading."""


def test_every_button_is_a_command(viewer, monkeypatch):
    """Each button of the widget has its command in the manifest, which does what the button does."""
    from npe2 import PluginManager

    from napari_ivos.plugin.state import COMMANDS

    widget = docking.open_dock(viewer)
    names = {name for section in widget.sections for name in section.buttons}
    contributed = PluginManager.instance().get_manifest("napari-ivos").contributions.commands
    known = {command.id.removeprefix("napari-ivos."): command for command in contributed}
    assert {ELSEWHERE.get(name, name) for name in names} <= set(known)
    assert set(COMMANDS) - {"edit_object"} <= names
    assert set(KEYS) <= names
    ran = []
    monkeypatch.setattr(type(widget), "run", lambda self, name: ran.append((self, name)))
    for name in sorted(names):
        execute(ELSEWHERE.get(name, name))
    assert ran == [(widget, name) for name in sorted(names)]


def test_a_session_worked_by_commands_alone(viewer, qtbot, project):
    """Dividing, comparing, undoing and redoing a round, accepting and copying work through the manifest."""
    path, labels = project
    docking.open_dock(viewer).open_project(path)
    opened(qtbot, viewer, labels)
    widget = docking.open_dock(viewer)
    settle(qtbot, widget)

    def do(command: str) -> None:
        execute(command)
        settle(qtbot, widget)

    do("compare")
    assert widget.desk.comparing
    assert "Show after" in widget.review.buttons["compare"].text
    assert not np.asarray(widget.desk.binding.labels.data)[5].any()
    do("compare")
    assert widget.desk.binding.labels.data is widget.session.labels
    np.testing.assert_array_equal(np.asarray(widget.session.labels), labels)
    do("undo_round")
    assert not np.asarray(widget.session.labels)[5].any()
    do("redo_round")
    np.testing.assert_array_equal(np.asarray(widget.session.labels), labels)
    widget.go_to(5)
    do("accept_frame")
    assert widget.session.accepted == {5}
    assert "Not right" in widget.review.buttons["accept_frame"].text
    assert "take that back" in widget.review.buttons["accept_frame"].tooltip
    assert "(5)" in widget.review.learned.text()
    do("accept_frame")
    assert widget.session.accepted == frozenset()
    do("divide")
    assert [o.parent for o in widget.session.objects] == [None, 1, 1]
    do("undo")
    assert len(widget.session.objects) == 1
    widget.go_to(6)
    do("object_gone")
    assert widget.session.objects[0].lifetime == range(6)
    assert widget.objects.buttons["object_gone"].text == "There"
    assert "take that back" in widget.objects.buttons["object_gone"].tooltip
    widget.go_to(5)
    assert widget.objects.buttons["object_gone"].text == "Gone"
    widget.go_to(7)
    do("object_gone")
    assert widget.session.objects[0].lifetime == range(8)
    do("copy_methods")
    assert "1 object in a stack of 8 frames" in QApplication.clipboard().text()
    do("copy_script")
    assert "session.propagate(" in QApplication.clipboard().text()


SHELL = """
import json, sys
sys.argv = ["napari", sys.argv[1], "-w", "napari-ivos"]
from qtpy.QtCore import QTimer
from napari.__main__ import _build_viewer
viewer = _build_viewer()
import napari
from napari_ivos.plugin import dock

def look():
    widget = dock()
    names = [layer.name for layer in viewer.layers]
    docks = list(viewer.window.dock_widgets)
    print(json.dumps([names, docks, widget.stack.words.text(), widget.isVisible()]), flush=True)
    viewer.close()

QTimer.singleShot(0, look)
napari.run()
"""


def test_from_a_shell_the_movie_comes_first(tmp_path):
    """`napari movie.tif -w napari-ivos` opens the movie, docks the widget and offers the movie in it."""
    import tifffile

    tifffile.imwrite(tmp_path / "movie.tif", scene.movie())
    command = [sys.executable, "-W", "ignore", "-c", SHELL, str(tmp_path / "movie.tif")]
    environment = {**os.environ, "NAPARI_CONFIG": str(tmp_path / "settings.yaml")}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    names, docks, words, visible = json.loads(ran.stdout.strip().splitlines()[-1])
    assert names == ["movie"]
    assert len(docks) == 1
    assert docks[0].startswith(TITLE)
    assert words == "8 frames of 60 × 80 px, taken as times (sections: choose z under Advanced)"
    assert visible


# --- in ------------------------------------------------------------------------------------------------------------


def test_a_model_can_be_loaded_when_a_window_has_been_drawn(tmp_path):
    """In a process that has drawn with OpenGL, as from napari's console, loading a model is no crash (two LLVMs)."""
    code = (
        "from qtpy.QtWidgets import QApplication\n"
        "from qtpy.QtOpenGLWidgets import QOpenGLWidget\n"
        "app, drawn = QApplication([]), QOpenGLWidget()\n"
        "drawn.show(); drawn.grabFramebuffer()\n"
        "import napari_ivos; print(napari_ivos.load_model(device='cpu').name)\n"
        "assert not drawn.grabFramebuffer().isNull()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "compact\n"), done.stderr


@pytest.mark.parametrize(
    ("key", "shape"),
    [pytest.param("cells", (48, 256, 320), id="cells"), pytest.param("toy", (48, 240, 320, 3), id="toy")],
)
def test_sample_data_are_in_the_file_menu(viewer, key, shape):
    """File > Open Sample opens both stacks, and the widget takes them."""
    menu, entry = action(viewer, f"napari-ivos.{key}")
    assert "samples" in menu.objectName()
    entry.trigger()
    (layer,) = viewer.layers
    assert layer.data.shape == shape
    widget = docking.open_dock(viewer)
    assert widget.stack.image.value is layer
    assert "48 frames" in widget.stack.words.text()


def test_a_project_is_opened_by_file_open(viewer, qtbot, project, monkeypatch):
    """File > Open of a project brings frames, strokes, masks and the widget."""
    path, labels = project
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *args, **more: ([str(path)], ""))
    _menu, entry = action(viewer, "napari.window.file.open_files_dialog")
    entry.trigger()
    opened(qtbot, viewer, labels)


def test_a_project_is_opened_by_dropping_it(viewer, qtbot, project):
    """A project dropped on the window is opened; a second time it is opened anew, with one layer of frames."""
    path, labels = project
    for _ in range(2):
        mime = QMimeData()
        mime.setUrls([QUrl.fromLocalFile(str(path))])
        copy, left, none = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        target = viewer.window._qt_viewer
        QApplication.sendEvent(target, enter := QDragEnterEvent(QPoint(50, 50), copy, mime, left, none))
        assert enter.isAccepted()
        QApplication.sendEvent(target, QDropEvent(QPointF(50, 50), copy, mime, left, none))
        opened(qtbot, viewer, labels)
    assert [layer.name for layer in viewer.layers].count("movie.tif") == 1


def test_a_project_without_its_frames_shows_its_masks_and_says_what_is_missing(viewer, qtbot, project):
    """File > Open opens the panel, which names the stack's file; with that open, the project comes whole."""
    path, labels = project
    moved = path.parent / "elsewhere" / "movie.tif"
    moved.parent.mkdir()
    (path.parent / "movie.tif").rename(moved)
    viewer.open(str(path), plugin="napari-ivos")
    widget = docking._widgets[id(getattr(viewer, "__wrapped__", viewer))]
    assert [layer.name for layer in viewer.layers] == ["movie [objects]"]
    assert "Open movie.tif (File > Open), then the project again" in widget.banner.text()
    assert widget.session is None
    viewer.open(str(moved))
    viewer.open(str(path), plugin="napari-ivos")
    qtbot.waitUntil(lambda: widget.session is not None, timeout=PATIENCE)
    settle(qtbot, widget)
    np.testing.assert_array_equal(np.asarray(widget.session.labels), labels)


def test_a_project_that_is_none_says_so(viewer, tmp_path):
    """A file that only has a project's ending is refused with a sentence, and nothing is left behind."""
    (tmp_path / "text.ivos").write_text("this is no project")
    with pytest.raises(Exception, match=r"text\.ivos"):
        viewer.open(str(tmp_path / "text.ivos"), plugin="napari-ivos")
    assert not viewer.layers


@pytest.mark.parametrize("ending", [".mp4", ".avi", ".mov"])
def test_videos_are_opened_by_file_open(viewer, tmp_path, ending):
    """File > Open with the plugin chosen reads videos, each frame by its number, and the widget takes them."""
    av = pytest.importorskip("av")
    path = tmp_path / f"clip{ending}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * k, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (layer,) = viewer.open(str(path), plugin="napari-ivos")
    assert layer.rgb
    assert layer.data.shape == (6, 48, 64, 3)
    viewer.dims.set_point(0, 4)
    assert abs(int(np.asarray(layer._slice.image.raw).mean()) - 160) < 8
    widget = docking.open_dock(viewer)
    assert widget.stack.words.text() == "6 frames of 48 × 64 px"


def test_napari_offers_the_plugin_for_its_files(viewer):
    """For each of its endings the plugin is among the readers that napari asks for."""
    from npe2 import PluginManager

    manager = PluginManager.instance()
    for name in ("a.ivos", "a.mp4", "a.avi", "a.mov", "a.mkv", "a.webm"):
        assert "napari-ivos" in {reader.plugin_name for reader in manager.iter_compatible_readers([name])}, name


# --- out -----------------------------------------------------------------------------------------------------------


def _read_back(path: Path) -> np.ndarray | None:
    """The labels of a written file; None where it holds something else."""
    if path.name.endswith(".ome.tif"):
        import tifffile

        return tifffile.imread(path)
    if path.suffix == ".zarr":
        import zarr

        return np.asarray(zarr.open(path, mode="r")["0"])
    return None


@pytest.mark.parametrize("ending", [".ome.tif", ".zarr", ".json", ".csv", ".tif"])
def test_the_result_is_saved_by_file_save(viewer, qtbot, project, tmp_path, monkeypatch, ending):
    """File > Save Selected Layers of the result layer writes what its ending says; also by napari's own writer."""
    path, labels = project
    docking.open_dock(viewer).open_project(path)
    opened(qtbot, viewer, labels)
    viewer.layers.selection.active = viewer.layers["movie.tif [objects]"]
    target = tmp_path / f"out{ending}"
    offered = []

    def choose(*args, **more):
        offered.append(more.get("filter", args[3] if len(args) > 3 else ""))
        wanted = next(f for f in offered[0].split(";;") if (".ome.tif" in f) == (ending != ".tif"))
        return str(target), wanted

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    _menu, entry = action(viewer, "napari.window.file.save_layers_dialog.selected")
    entry.trigger()
    assert "OME-TIFF, OME-Zarr, COCO, table" in offered[0]
    assert target.exists()
    found = _read_back(target)
    if found is not None:
        np.testing.assert_array_equal(found, labels)
    elif ending == ".json":
        assert len(json.loads(target.read_text())["annotations"]) == scene.FRAMES
    elif ending == ".csv":
        assert target.read_text().count("\n") > scene.FRAMES


def test_labels_that_are_no_stack_are_refused_by_the_writer(tmp_path):
    """Labels of more axes than frames, rows and columns are refused with their shape."""
    from napari_ivos.errors import InputError

    with pytest.raises(InputError, match=r"\(2, 3, 4, 5\)"):
        reading.write_labels(str(tmp_path / "a.zarr"), np.zeros((2, 3, 4, 5), np.uint8), {})
