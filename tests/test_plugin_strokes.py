"""What is drawn becomes strokes of the session: lines taken apart, moved, deleted, undone, in any view; without Qt."""

from __future__ import annotations

import numpy as np
import plugin_scene as scene
import pytest
from napari.components import ViewerModel
from napari.layers import Image
from napari.layers.shapes._shapes_key_bindings import copy_selected_shapes, paste_shape
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks

from napari_ivos import FakePredictor, Session
from napari_ivos.errors import ProjectError, WeightsError
from napari_ivos.plugin import engine, loading
from napari_ivos.plugin.desk import Desk
from napari_ivos.plugin.strokes import difference, pieces_of

# --- strokes, pure -------------------------------------------------------------------------------------------------


def test_a_line_over_two_frames_is_split():
    """A line over frames 5 and 9 becomes one stroke on each, and the user is told."""
    pieces, notes = pieces_of(np.array([[5.0, 1, 1], [5.2, 2, 2], [8.8, 3, 3], [9.0, 4, 4]]), (10, 20, 20))
    assert [(p.frame, len(p.points)) for p in pieces] == [(5, 2), (9, 2)]
    assert "split" in notes[0]


@pytest.mark.parametrize(
    "points",
    [
        pytest.param([[3.0, -9, -9], [3, -5, -5]], id="beside the image"),
        pytest.param([[-4.0, 5, 5], [-4, 6, 6]], id="before the first frame"),
        pytest.param([[30.0, 5, 5], [30, 6, 6]], id="behind the last frame"),
    ],
)
def test_what_lies_outside_is_dropped_with_a_word(points):
    """A line outside the stack gives no stroke and one sentence."""
    pieces, notes = pieces_of(np.array(points), (10, 20, 20))
    assert not pieces
    assert len(notes) == 1


def test_a_click_is_a_dot():
    """Equal points are one point."""
    pieces, notes = pieces_of(np.array([[2.0, 7, 8]] * 3), (10, 20, 20))
    assert pieces[0].points.tolist() == [[7, 8]]
    assert not notes


def test_lines_without_numbers_are_nothing():
    """Vertices that are not finite are dropped."""
    assert pieces_of(np.full((3, 3), np.nan), (4, 4, 4)) == ([], [])


def test_a_moved_line_is_gone_and_new():
    """Equal lines are paired one to one; of equal ones the last drawn is new."""
    a, b, c = (np.full((2, 3), v, np.float32) for v in (1, 2, 3))
    assert difference([a, b], [a, b]) == ([], [])
    assert difference([a, b], [a, c]) == ([1], [1])
    assert difference([a], [a, a]) == ([], [1])
    assert difference([a, a], [a]) == ([1], [])


# --- the way of a stroke -------------------------------------------------------------------------------------------


def test_the_result_layer_holds_the_sessions_labels(desks):
    """Nothing is copied: the layer's data are `session.labels`."""
    desk = desks()
    assert desk.binding.labels.data is desk.session.labels


def test_a_propagation_closes_the_round(desks):
    """After a propagation the strokes are faded and locked in a layer of their own, and the masks are right."""
    desk = desks()
    scene.drawn_at(desk, 2)
    assert scene.shown(desk) == {"object 1 (strokes)": 1}
    desk.propagate()
    desk.wait()
    assert scene.shown(desk) == {"object 1 (strokes)": 0, "earlier strokes": 1}
    assert not desk.viewer.layers["earlier strokes"].editable
    assert all(scene.overlap(desk.session.labels[t] == 1, scene.square(t)) > 0.7 for t in range(8))


def test_a_moved_stroke_replaces_the_old_one(desks):
    """Moving a stroke of the open round takes the old one back and draws the new one."""
    desk = desks()
    scene.drawn_at(desk, 2)
    layer = desk.viewer.layers["object 1 (strokes)"]
    layer.data = [layer.data[0] + [0, 1, 0]]
    desk.wait()
    (stroke,) = desk.session.strokes()
    np.testing.assert_allclose(stroke.points, scene.line(2) + [1, 0], atol=1e-4)
    assert scene.shown(desk) == {"object 1 (strokes)": 1}


@pytest.mark.parametrize("opened", [False, True], ids=["just drawn", "opened again"])
@pytest.mark.parametrize("mode", ["select", "direct"])
def test_a_stroke_that_the_mouse_moves_is_followed(desks, tmp_path, mode, opened):
    """With napari's own tools, which change a line in place: moved whole, or by one of its points."""
    desk = desks(path=tmp_path / "a.ivos")
    scene.drawn_at(desk, 2)
    if opened:
        desk.close()
        desk = desks(path=tmp_path / "a.ivos")
        desk.go_to(2)
    layer = desk.viewer.layers["object 1 (strokes)"]
    desk.viewer.layers.selection.active = layer
    layer.mode = mode
    grip = scene.line(2)[-1 if mode == "direct" else 5]
    layer.selected_data = {0} if mode == "direct" else set()
    scene.draw(desk, grip + np.array([[0, 0], [1, 0], [2, 0], [4, 0]]))
    desk.wait()
    (stroke,) = desk.session.strokes()
    shift = stroke.points - scene.line(2)
    np.testing.assert_allclose(shift[-1], [4, 0], atol=0.01)
    np.testing.assert_allclose(shift[0], [4 if mode == "select" else 0, 0], atol=0.01)
    assert scene.shown(desk) == {"object 1 (strokes)": 1}
    assert layer.mode == mode


@pytest.mark.parametrize("tool", ["add_rectangle", "add_ellipse"])
def test_other_shapes_are_strokes_along_their_outline(desks, tool):
    """Napari keeps the corners around an ellipse; the stroke is the closed line that is seen, and no other is."""
    desk = desks()
    desk.go_to(2)
    layer = desk.viewer.layers.selection.active
    layer.mode = tool
    scene.draw(desk, [(12, 20), (18, 26), (24, 32)])
    desk.wait()
    (stroke,) = desk.session.strokes()
    points = stroke.points
    np.testing.assert_array_equal(points[0], points[-1])
    np.testing.assert_allclose([points.min(axis=0), points.max(axis=0)], [(12, 20), (24, 32)], atol=0.2)
    if tool == "add_ellipse":
        np.testing.assert_allclose(np.linalg.norm(points - [18, 26], axis=1), 6, atol=0.2)
    desk.handle()
    assert layer.shape_type == [tool.removeprefix("add_")]


def test_a_pasted_stroke_is_one_of_the_frame_on_screen(desks):
    """Copied on one frame and pasted on another with napari's keys; it is read at once, without another deed."""
    desk = desks()
    scene.drawn_at(desk, 2)
    layer = desk.viewer.layers.selection.active
    layer.mode, layer.selected_data = "select", {0}
    copy_selected_shapes(layer)
    desk.go_to(3)
    desk._bell.clear()
    paste_shape(layer)
    assert desk._bell.is_set()
    desk.wait()
    assert [s.frame for s in desk.session.strokes()] == [2, 3]
    np.testing.assert_array_equal(*(s.points for s in desk.session.strokes()))


def test_a_deleted_stroke_is_taken_back(desks):
    """Deleting a stroke of the open round takes its mask away."""
    desk = desks()
    scene.drawn_at(desk, 2)
    layer = desk.viewer.layers["object 1 (strokes)"]
    layer.selected_data = {0}
    layer.remove_selected()
    desk.wait()
    assert not desk.session.strokes()
    assert not np.asarray(desk.session.labels[2]).any()


def test_undo_and_redo_of_a_stroke(desks):
    """Undo takes stroke and mask back, redo brings both."""
    desk = desks()
    scene.drawn_at(desk, 2)
    desk.undo()
    assert scene.shown(desk) == {"object 1 (strokes)": 0}
    assert not np.asarray(desk.session.labels[2]).any()
    desk.redo()
    assert scene.shown(desk) == {"object 1 (strokes)": 1}
    assert np.asarray(desk.session.labels[2]).any()


def test_a_click_gives_a_dot_and_leaves_nothing_unfinished(desks):
    """A click is one stroke of one point, and napari's half-drawn path is ended."""
    desk = desks()
    desk.go_to(4)
    scene.draw(desk, scene.line(4)[:1])
    desk.wait()
    assert [len(s.points) for s in desk.session.strokes()] == [1]
    assert scene.shown(desk) == {"object 1 (strokes)": 1}
    desk.go_to(6)
    scene.drawn_at(desk, 6)
    assert [s.frame for s in desk.session.strokes()] == [4, 6]


def test_undo_in_the_middle_of_a_stroke_leaves_that_stroke_whole(desks):
    """Taken back is the stroke before; the one that is being drawn is taken when the button is released."""
    desk = desks()
    scene.drawn_at(desk, 2)
    desk.go_to(4)
    layer = desk.viewer.layers.selection.active
    points = [desk.binding.image.data_to_world((4, *p)) for p in scene.line(4)]
    mouse_press_callbacks(layer, scene._event("mouse_press", points[0]))
    for point in points[1:5]:
        mouse_move_callbacks(layer, scene._event("mouse_move", point))
    desk.undo()
    desk.wait()
    for point in points[5:]:
        mouse_move_callbacks(layer, scene._event("mouse_move", point))
    mouse_release_callbacks(layer, scene._event("mouse_release", points[-1]))
    desk.wait()
    (stroke,) = desk.session.strokes()
    assert stroke.frame == 4
    assert len(stroke.points) == len(points)
    assert layer.nshapes == 1


def test_a_held_button_is_waited_for(desks):
    """While a stroke is being drawn nothing is read, whatever else happens."""
    desk = desks()
    desk.go_to(2)
    layer = desk.viewer.layers.selection.active
    points = [np.array([2, *p]) for p in scene.line(2)]
    scene.drag(layer, points, release=False)
    desk.wait()
    assert not desk.session.strokes()
    assert layer._is_creating


def test_a_stroke_in_a_transposed_view_is_refused(desks):
    """A line drawn across time is taken away, and the user is told why."""
    desk = desks()
    desk.viewer.dims.order = (1, 0, 2)
    layer = desk.viewer.layers.selection.active
    layer.add_paths([np.array([[0.0, 5, 5], [3, 5, 9]])])
    desk.wait()
    assert not desk.session.strokes()
    assert scene.shown(desk) == {"object 1 (strokes)": 0}
    assert "along the frames" in desk.said[-1][1]


def test_strokes_outside_leave_the_layer(desks):
    """A stroke beside the image is taken away with a word, so that it doesn't stretch the view."""
    desk = desks()
    desk.viewer.layers.selection.active.add_paths([np.array([[0.0, -50, -50], [0, -40, -40]])])
    desk.wait()
    assert scene.shown(desk) == {"object 1 (strokes)": 0}
    assert "outside" in desk.said[-1][1]


def test_a_background_stroke_is_object_0(desks):
    """The layer "background" draws what belongs to nothing."""
    desk = desks()
    scene.drawn_at(desk, 2)
    desk.draw_background()
    scene.draw(desk, [(50, 5), (50, 9), (50, 14)])
    desk.wait()
    assert [s.object_id for s in desk.session.strokes()] == [1, 0]


@pytest.fixture
def modelless(monkeypatch):
    """A desk whose model can't be loaded."""

    def missing(name, device):
        raise WeightsError("The model is missing.")

    monkeypatch.setattr(loading, "load", missing)
    desk = Desk(ViewerModel())
    desk.said = []
    desk.noticed.connect(lambda text, kind: desk.said.append((kind, text)))
    yield desk
    desk.close()


def test_strokes_without_a_model_are_in_the_project(modelless, desks, tmp_path):
    """They are written at once, the reason is told, and the masks come with the model, in another window, too."""
    image = modelless.viewer.add_layer(Image(scene.movie(), name="movie"))
    modelless.start(image, path=tmp_path / "movie.ivos")
    modelless.wait()
    scene.drawn_at(modelless, 2)
    scene.drawn_at(modelless, 3)
    assert ("error", "The stroke is kept; its mask waits for a model. The model is missing.") in modelless.said
    assert [s.frame for s in modelless.session.strokes()] == [2, 3]
    assert scene.shown(modelless) == {"object 1 (strokes)": 2}
    modelless.close()
    desk = desks(path=tmp_path / "movie.ivos")
    assert scene.shown(desk) == {"object 1 (strokes)": 2}
    assert all(np.asarray(desk.session.labels[t]).any() for t in (2, 3))


def test_strokes_without_a_model_get_their_masks_with_it(modelless):
    """One that was deleted meanwhile stays so."""
    image = modelless.viewer.add_layer(Image(scene.movie(), name="movie"))
    modelless.start(image, path=None)
    modelless.wait()
    scene.drawn_at(modelless, 2)
    scene.drawn_at(modelless, 3)
    layer = modelless.viewer.layers.selection.active
    layer.selected_data = {1}
    layer.remove_selected()
    modelless.wait()
    assert [s.frame for s in modelless.session.strokes()] == [2]
    modelless.use_model(FakePredictor())
    modelless.wait()
    assert [t for t in range(scene.FRAMES) if np.asarray(modelless.session.labels[t]).any()] == [2]


def test_a_model_that_can_not_be_loaded_leaves_the_one_before_in_use(desks):
    """Strokes go on to the model that is there when another one could not be loaded."""
    desk = desks()
    desk.load_model("nowhere.safetensors")
    desk.wait()
    desk.go_to(2)
    scene.draw(desk, scene.line(2))
    desk.wait()
    assert len(desk.session.strokes()) == 1
    assert not desk.drawing.held


def test_strokes_that_could_not_be_written_are_sent_again(desks, monkeypatch):
    """A stroke that the session has no room for stays on screen, and goes with the next one."""
    desk = desks()

    def full(*_args):
        raise ProjectError("There is no room left.")

    with monkeypatch.context() as patched:
        patched.setattr(desk.session._annotator, "keep_strokes", full)
        desk.go_to(2)
        scene.draw(desk, scene.line(2))
        desk.wait()
    assert sum(scene.shown(desk).values()) == 1
    scene.draw(desk, scene.line(2))
    desk.wait()
    assert len(desk.session.strokes()) == 2


@pytest.fixture
def slow(desks, tmp_path):
    """A desk at which a stroke on frame 2 is being segmented, and goes on when the test lets its model."""
    desk = desks(path=tmp_path / "movie.ivos", model=(model := scene.Slow()))
    desk.go_to(2)
    scene.draw(desk, scene.line(2))
    assert model.begun.wait(30)
    desk.handle()
    yield desk
    model.gate.release(100)


@pytest.mark.parametrize("deed", ["delete", "move"])
def test_a_stroke_changed_while_it_is_segmented_is_changed(slow, deed):
    """Deleted or moved before its mask has come, it is not there any more afterwards, nor is its mask."""
    layer = slow.viewer.layers.selection.active
    layer.data = [] if deed == "delete" else [layer.data[0] + [0, 2, 0]]
    slow.handle()
    slow.propagate()
    slow.model.gate.release(100)
    slow.wait()
    left = [scene.line(2) + [2, 0]] * (deed == "move")
    np.testing.assert_array_equal([s.points for s in slow.session.strokes()], left)
    assert sum(scene.shown(slow).values()) == len(left)
    assert np.asarray(slow.session.labels[2]).any() == bool(left)


def test_a_propagation_that_waits_is_dropped_for_a_stroke_that_is_deleted(slow):
    """Deleted while it is segmented and a propagation waits for that, it is carried nowhere."""
    slow.propagate()
    slow.viewer.layers.selection.active.data = []
    slow.handle()
    slow.model.gate.release(100)
    slow.wait()
    assert not slow.session.strokes()
    assert not np.asarray(slow.session.labels).any()


def test_stop_before_a_propagation_has_begun_leaves_the_result_to_be_painted(slow):
    """It is dropped without having run, and nothing else has to happen for the brush to work again."""
    slow.propagate()
    assert not slow.binding.paper.editable
    slow.stop()
    assert slow.binding.paper.editable
    slow.model.gate.release(100)
    slow.wait()
    assert [step.kind for step in slow.session.log] == ["add object", "interact"]


def test_closing_writes_strokes_before_their_masks_are_made(slow, monkeypatch):
    """However slow the model is: no stroke has to wait for the masks of those before it."""
    session, segment, written = slow.session, slow.model.segment, []

    def counted(requests):
        written.append(len(session.strokes()))
        return segment(requests)

    monkeypatch.setattr(slow.model, "segment", counted)
    for frame in (4, 6):
        slow.go_to(frame)
        scene.draw(slow, scene.line(frame))
    path, thread = session.path, slow.engine._thread
    monkeypatch.setattr(engine, "JOIN_SECONDS", 0)
    slow.close()
    slow.model.gate.release(100)
    thread.join(30)
    assert written[-1] == 3
    assert 2 not in written
    with Session.open(path, scene.movie()) as kept:
        assert [s.frame for s in kept.strokes()] == [2, 4, 6]
        assert all(np.asarray(kept.labels[t]).any() for t in (2, 4, 6))


def test_paint_becomes_an_annotation(desks):
    """What is painted in the result layer is that frame's annotation when the stroke ends, and survives a round."""
    desk = desks()
    scene.drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    desk.go_to(5)
    labels = desk.binding.labels
    labels.selected_label, labels.brush_size = 1, 9
    labels.paint((5, 50, 8), 1)
    desk.wait()
    assert 5 in desk.session.annotated_frames(1)
    assert desk.session.labels[5][50, 8] == 1
    scene.drawn_at(desk, 0)
    desk.propagate()
    desk.wait()
    assert desk.session.labels[5][50, 8] == 1


def test_a_drag_of_the_brush_is_one_step(desks):
    """However many dabs napari makes of it: one annotation when the button is released, and one undo takes it back."""
    desk = desks()
    scene.drawn_at(desk, 2)
    before = np.array(desk.session.labels[2])
    desk.paint_mask()
    desk.viewer.layers.selection.active.brush_size = 6
    scene.draw(desk, [(50, 10), (50, 14), (50, 18)])
    desk.wait()
    assert [step.kind for step in desk.session.log][-2:] == ["interact", "annotate"]
    assert (desk.session.labels[2, 50, 10:19] == 1).all()
    desk.undo()
    np.testing.assert_array_equal(desk.session.labels[2], before)


def test_a_drag_of_a_brush_that_reaches_over_frames_is_one_step_a_frame(desks):
    """With three dimensions to edit: one undo takes the drag back on all frames."""
    desk = desks()
    scene.drawn_at(desk, 2)
    before, steps = np.array(desk.session.labels), len(desk.session.log)
    desk.go_to(4)
    desk.paint_mask()
    brush = desk.viewer.layers.selection.active
    brush.brush_size, brush.n_edit_dimensions = 4, 3
    scene.draw(desk, [(50, 10), (50, 14), (50, 18)])
    desk.wait()
    assert (np.asarray(desk.session.labels)[3:6, 50, 10:19] == 1).all()
    assert len(desk.session.log) == steps + 5
    desk.undo()
    desk.wait()
    np.testing.assert_array_equal(desk.session.labels, before)


@pytest.mark.parametrize("why", ["locked", "not there"])
def test_paint_that_is_refused_is_taken_off_with_a_word(desks, why):
    """For a locked object, or one that has ended: napari would show an error out of its brush as a crash."""
    desk = desks()
    scene.drawn_at(desk, 2)
    if why == "locked":
        desk.lock_object(1)
    else:
        desk.go_to(4)
        desk.divide(1)
    desk.go_to(5)
    desk.viewer.layers.selection.active = brush = desk.binding.paper
    brush.mode, brush.selected_label = "paint", 1
    scene.draw(desk, [(50, 10), (50, 14), (50, 18)])
    desk.wait()
    kind, said = desk.said[-1]
    assert kind == "warning"
    assert ("locked" if why == "locked" else "lives from frame 0 to frame 3") in said
    assert not np.asarray(desk.session.labels[5]).any()
    assert not np.asarray(brush._slice.image.raw).any()


def test_paint_beside_a_locked_object_is_no_paint_on_it(desks):
    """The rectangle around the brush, which napari writes whole, may hold pixels of locked objects."""
    desk = desks()
    scene.drawn_at(desk, 2)
    locked = np.asarray(desk.session.labels[2]) == 1
    desk.lock_object(1)
    desk.add_object()
    desk.paint_mask()
    brush = desk.viewer.layers.selection.active
    brush.brush_size = 8
    assert brush.selected_label == 2
    scene.draw(desk, [(28, 30), (28, 26)])
    desk.wait()
    assert not [text for kind, text in desk.said if kind != "info"]
    np.testing.assert_array_equal(np.asarray(desk.session.labels[2]) == 1, locked)
    assert desk.session.labels[2, 29, 28] == 2


def test_naparis_undo_does_not_touch_what_was_written(desks):
    """After the engine wrote a frame, Ctrl-Z in the result layer replays nothing."""
    desk = desks()
    labels = desk.binding.labels
    labels.paint((2, 50, 8), 1)
    desk.wait()
    scene.drawn_at(desk, 2)
    before = np.array(desk.session.labels[2])
    labels.undo()
    desk.wait()
    np.testing.assert_array_equal(desk.session.labels[2], before)


# --- views and keys --------------------------------------------------------------------------------------------------


def test_strokes_in_a_3d_view_are_taken_away_with_a_word(desks):
    """A line in a volume is on no frame: it is removed, told, and drawing works again in the flat view."""
    desk = desks()
    desk.viewer.dims.ndisplay = 3
    desk.viewer.layers.selection.active.add_paths([np.array([[0.0, 5, 5], [3, 5, 9]])])
    desk.wait()
    assert not desk.session.strokes()
    assert scene.shown(desk) == {"object 1 (strokes)": 0}
    assert "3D" in desk.said[-1][1]
    desk.viewer.dims.ndisplay = 2
    scene.drawn_at(desk, 2)
    assert len(desk.session.strokes()) == 1


def test_a_view_in_3d_and_back_unlocks_nothing(desks):
    """Going into 3D is answered with a word; back in the flat view a locked object stays locked, others are drawn."""
    desk = desks()
    desk.add_object()
    desk.lock_object(1)
    desk.viewer.dims.ndisplay = 3
    desk.wait()
    assert "3D" in desk.said[-1][1]
    desk.viewer.dims.ndisplay = 2
    assert not desk.binding.strokes.layer_of(1).editable
    assert desk.binding.strokes.layer_of(2).mode == "add_path"


@pytest.mark.parametrize("edit", ["rename", "undo", "lock"])
def test_drawing_goes_on_after_an_edit(desks, edit):
    """No edit of the table and no undo takes the pen out of the user's hand."""
    desk = desks()
    scene.drawn_at(desk, 2)
    if edit == "rename":
        desk.rename_object(1, "cell")
    elif edit == "undo":
        desk.undo()
    else:
        desk.lock_object(1)
        desk.lock_object(1, False)
    assert desk.viewer.layers.selection.active.mode == "add_path"
    scene.drawn_at(desk, 4)
    assert 4 in [s.frame for s in desk.session.strokes()]


def pressed(layer, key) -> None:
    """Press a key while a layer is active, as napari's keymaps resolve it."""
    from napari.utils.key_bindings import coerce_keybinding

    wanted = coerce_keybinding(key)
    found = next(keys[wanted] for keys in (layer.keymap, type(layer).class_keymap) if wanted in keys)
    found(layer)


@pytest.mark.parametrize("where", ["strokes", "result", "earlier strokes"])
def test_ctrl_z_takes_back_the_last_step_in_any_of_our_layers(desks, where):
    """There is one history: Ctrl-Z in any layer of ours is its undo, Ctrl-Shift-Z its redo."""
    desk = desks()
    scene.drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    desk.go_to(5)
    desk.binding.labels.paint((5, 50, 8), 1)
    desk.wait()
    painted = np.array(desk.session.labels[5])
    layers = {"strokes": desk.binding.strokes.layer_of(1), "result": desk.binding.labels}
    layer = layers.get(where) or desk.viewer.layers[where]
    pressed(layer, "Control-Z")
    desk.wait()
    assert desk.session.labels[5][50, 8] == 0
    assert desk.session.annotated_frames() == (2,)
    pressed(layer, "Control-Shift-Z")
    desk.wait()
    np.testing.assert_array_equal(desk.session.labels[5], painted)
