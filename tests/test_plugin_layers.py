"""Layers and session without Qt: what is drawn becomes strokes, what changes is shown, in any layout of axes."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_ivos import FakePredictor, Session
from napari_ivos.errors import FrameReadError, InputError, OutOfMemory, ProjectError
from napari_ivos.plugin import geometry, loading, projects
from napari_ivos.plugin.desk import Desk
from napari_ivos.plugin.engine import Job
from napari_ivos.plugin.strokes import difference, pieces_of

sys.path.insert(0, str(Path(__file__).parent))
import plugin_scene as scene


@pytest.fixture
def desks():
    """Makes desks with an open session of a layer; all are closed in the end."""
    made = []

    def make(image: Image | None = None, path=None, **options) -> Desk:
        viewer = options.pop("viewer", None) or ViewerModel()
        layer = Image(scene.movie(), name="movie") if image is None else image
        if layer not in viewer.layers:
            viewer.add_layer(layer)
        desk = Desk(viewer)
        desk.said = []
        desk.noticed.connect(lambda text, kind: desk.said.append((kind, text)))
        desk.use_model(FakePredictor())
        made.append(desk)
        desk.start(layer, path=path, **options)
        desk.wait()
        return desk

    yield make
    for desk in made:
        desk.close()


def shown(desk: Desk) -> dict[str, int]:
    """How many strokes each Shapes layer shows."""
    return {layer.name: layer.nshapes for layer in desk.viewer.layers if hasattr(layer, "nshapes")}


def drawn_at(desk: Desk, frame: int) -> None:
    """Draw along the bright square of a frame and wait for its mask."""
    desk.go_to(frame)
    scene.draw(desk, scene.line(frame))
    desk.wait()


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


# --- layouts -------------------------------------------------------------------------------------------------------

LAYOUTS = [
    pytest.param((8, 60, 80), {}, "TYX", id="TYX"),
    pytest.param((8, 60, 80), {"axis_labels": ("z", "y", "x")}, "ZYX", id="ZYX"),
    pytest.param((8, 2, 60, 80), {}, "TCYX", id="TCYX by its lengths"),
    pytest.param((2, 8, 60, 80), {"axis_labels": ("c", "t", "y", "x")}, "CTYX", id="CTYX by its names"),
    pytest.param((8, 5, 60, 80), {}, "TZYX", id="TZYX by its lengths"),
    pytest.param((5, 8, 60, 80), {"axis_labels": ("z", "t", "y", "x")}, "ZTYX", id="ZTYX by its names"),
    pytest.param((60, 80), {}, "YX", id="one picture"),
]


def spread(letters: str, shape: tuple[int, ...]) -> np.ndarray:
    """The scene with further axes: the same at each of their entries."""
    frames = scene.movie()
    if "T" not in letters and "Z" not in letters:
        return frames[0]
    frame_axis = letters.index("T" if "T" in letters else "Z")
    view = [1] * (len(shape) - 2)
    view[frame_axis] = scene.FRAMES
    return np.broadcast_to(frames.reshape(*view, scene.HEIGHT, scene.WIDTH), shape).copy()


@pytest.mark.parametrize(("shape", "options", "letters"), LAYOUTS)
def test_axes_are_told_from_names_or_lengths(shape, options, letters):
    """Names say which axis is what; without, an axis of at most 4 before the picture holds channels."""
    layout = geometry.layout_of(Image(np.zeros(shape, np.uint8), rgb=False, **options))
    assert layout.letters == letters
    assert layout.stack_shape == ((1 if len(shape) == 2 else 8), 60, 80)


@pytest.mark.parametrize(("shape", "options", "letters"), LAYOUTS)
def test_a_stroke_segments_its_frame_in_any_layout(desks, shape, options, letters):
    """A stroke drawn on the screen gives the right mask on the right frame, and the result layer shows it there."""
    data = spread(letters, shape)
    scale = (2.0, 3.0, 0.5, 0.25)[-len(shape) :]
    image = Image(data, rgb=False, scale=scale, translate=np.arange(len(shape)) * 5.0, name="movie", **options)
    desk = desks(image)
    frame = 0 if letters == "YX" else 3
    drawn_at(desk, frame)
    assert scene.overlap(desk.session.labels[frame] == 1, scene.square(frame)) > 0.8
    labels = desk.binding.labels
    place = np.asarray(desk.viewer.dims.point)
    y, x = scene.corner(frame)
    inside = np.asarray(image.world_to_data(place))
    inside[-2:] = (y + 8, x + 8)
    assert labels.get_value(image.data_to_world(inside), world=True) == 1
    np.testing.assert_allclose(labels.scale, image.scale)


def test_a_rotated_and_sheared_layer_is_drawn_on_rightly(desks):
    """Points on the screen become pixels through the layer's whole transform."""
    image = Image(scene.movie(), name="movie", rotate=30, shear=[0.1, 0, 0], scale=(1, 2, 2), translate=(0, 9, 9))
    desk = desks(image)
    drawn_at(desk, 2)
    np.testing.assert_allclose(desk.session.strokes()[0].points, scene.line(2), atol=1e-3)


def test_rgb_and_multiscale_layers_work(desks):
    """Colours are no axis, and of several resolutions the full one counts."""
    colours = np.repeat(scene.movie()[..., None], 3, axis=-1)
    drawn_at(rgb := desks(Image(colours, rgb=True, name="movie")), 3)
    assert scene.overlap(rgb.session.labels[3] == 1, scene.square(3)) > 0.8
    levels = [scene.movie(), scene.movie()[:, ::2, ::2]]
    drawn_at(several := desks(Image(levels, multiscale=True, name="movie")), 3)
    assert several.session.shape == (8, 60, 80)
    assert scene.overlap(several.session.labels[3] == 1, scene.square(3)) > 0.8


def test_the_chosen_plane_is_held(desks):
    """With a further axis, the plane on screen is segmented, and a stroke on another one is dropped with a word."""
    image = Image(spread("TZYX", (8, 5, 60, 80)), name="movie")
    viewer = ViewerModel()
    viewer.add_layer(image)
    viewer.dims.set_point(1, 3)
    desk = desks(image, viewer=viewer)
    assert dict(desk.binding.layout.held) == {1: 3}
    assert desk.binding.labels.translate[1] == 3
    viewer.dims.set_point(1, 1)
    scene.draw(desk, scene.line(0))
    desk.wait()
    assert not desk.session.strokes()
    assert "z = 3" in desk.said[-1][1]


def test_layers_as_channels(desks):
    """Layers of the same shape can be the channels of one stack."""
    viewer = ViewerModel()
    one, two = (viewer.add_layer(Image(scene.movie(), name=n)) for n in "ab")
    desk = desks(one, viewer=viewer)
    desk.start(desk.choice(one, more=(two,)), path=None)
    desk.wait()
    assert desk.session.stack.channels == (0, 1)
    drawn_at(desk, 1)
    assert scene.overlap(desk.session.labels[1] == 1, scene.square(1)) > 0.8


def test_units_and_axis_names_are_copied(desks):
    """Result and strokes lie in the same world as the image."""
    units = ("second", "micrometer", "micrometer")
    desk = desks(Image(scene.movie(), name="m", units=units, axis_labels=("t", "y", "x"), scale=(2, 0.3, 0.3)))
    for layer in desk.binding.layers:
        assert tuple(map(str, layer.units)) == units
        assert tuple(layer.axis_labels) == ("t", "y", "x")


# --- the way of a stroke -------------------------------------------------------------------------------------------


def test_the_result_layer_holds_the_sessions_labels(desks):
    """Nothing is copied: the layer's data are `session.labels`."""
    desk = desks()
    assert desk.binding.labels.data is desk.session.labels


def test_a_propagation_closes_the_round(desks):
    """After a propagation the strokes are faded and locked in a layer of their own, and the masks are right."""
    desk = desks()
    drawn_at(desk, 2)
    assert shown(desk) == {"object 1 (strokes)": 1}
    desk.propagate()
    desk.wait()
    assert shown(desk) == {"object 1 (strokes)": 0, "earlier strokes": 1}
    assert not desk.viewer.layers["earlier strokes"].editable
    assert all(scene.overlap(desk.session.labels[t] == 1, scene.square(t)) > 0.7 for t in range(8))


def test_a_moved_stroke_replaces_the_old_one(desks):
    """Moving a stroke of the open round takes the old one back and draws the new one."""
    desk = desks()
    drawn_at(desk, 2)
    layer = desk.viewer.layers["object 1 (strokes)"]
    layer.data = [layer.data[0] + [0, 1, 0]]
    desk.wait()
    (stroke,) = desk.session.strokes()
    np.testing.assert_allclose(stroke.points, scene.line(2) + [1, 0], atol=1e-4)
    assert shown(desk) == {"object 1 (strokes)": 1}


def test_a_deleted_stroke_is_taken_back(desks):
    """Deleting a stroke of the open round takes its mask away."""
    desk = desks()
    drawn_at(desk, 2)
    layer = desk.viewer.layers["object 1 (strokes)"]
    layer.selected_data = {0}
    layer.remove_selected()
    desk.wait()
    assert not desk.session.strokes()
    assert not np.asarray(desk.session.labels[2]).any()


def test_undo_and_redo_of_a_stroke(desks):
    """Undo takes stroke and mask back, redo brings both."""
    desk = desks()
    drawn_at(desk, 2)
    desk.undo()
    assert shown(desk) == {"object 1 (strokes)": 0}
    assert not np.asarray(desk.session.labels[2]).any()
    desk.redo()
    assert shown(desk) == {"object 1 (strokes)": 1}
    assert np.asarray(desk.session.labels[2]).any()


def test_a_click_gives_a_dot_and_leaves_nothing_unfinished(desks):
    """A click is one stroke of one point, and napari's half-drawn path is ended."""
    desk = desks()
    desk.go_to(4)
    scene.draw(desk, scene.line(4)[:1])
    desk.wait()
    assert [len(s.points) for s in desk.session.strokes()] == [1]
    assert shown(desk) == {"object 1 (strokes)": 1}
    desk.go_to(6)
    drawn_at(desk, 6)
    assert [s.frame for s in desk.session.strokes()] == [4, 6]


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
    assert shown(desk) == {"object 1 (strokes)": 0}
    assert "along the frames" in desk.said[-1][1]


def test_strokes_outside_leave_the_layer(desks):
    """A stroke beside the image is taken away with a word, so that it doesn't stretch the view."""
    desk = desks()
    desk.viewer.layers.selection.active.add_paths([np.array([[0.0, -50, -50], [0, -40, -40]])])
    desk.wait()
    assert shown(desk) == {"object 1 (strokes)": 0}
    assert "outside" in desk.said[-1][1]


def test_a_background_stroke_is_object_0(desks):
    """The layer "background" draws what belongs to nothing."""
    desk = desks()
    drawn_at(desk, 2)
    desk.draw_background()
    scene.draw(desk, [(50, 5), (50, 9), (50, 14)])
    desk.wait()
    assert [s.object_id for s in desk.session.strokes()] == [1, 0]


def test_strokes_wait_for_a_model(desks):
    """Without a model strokes are kept, the reason is told, and a model that comes later segments them."""
    desk = desks()
    desk.model_state = "The model is missing."
    desk.go_to(2)
    scene.draw(desk, scene.line(2))
    desk.wait()
    assert not desk.session.strokes()
    assert shown(desk) == {"object 1 (strokes)": 1}
    assert desk.said[-1][0] == "error"
    desk.use_model(FakePredictor())
    desk.wait()
    assert len(desk.session.strokes()) == 1


def test_paint_becomes_an_annotation(desks):
    """What is painted in the result layer is that frame's annotation when the stroke ends, and survives a round."""
    desk = desks()
    drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    desk.go_to(5)
    labels = desk.binding.labels
    labels.selected_label, labels.brush_size = 1, 9
    labels.paint((5, 50, 8), 1)
    desk.wait()
    assert 5 in desk.session.annotated_frames(1)
    assert desk.session.labels[5][50, 8] == 1
    drawn_at(desk, 0)
    desk.propagate()
    desk.wait()
    assert desk.session.labels[5][50, 8] == 1


def test_naparis_undo_does_not_touch_what_was_written(desks):
    """After the engine wrote a frame, Ctrl-Z in the result layer replays nothing."""
    desk = desks()
    labels = desk.binding.labels
    labels.paint((2, 50, 8), 1)
    desk.wait()
    drawn_at(desk, 2)
    before = np.array(desk.session.labels[2])
    labels.undo()
    desk.wait()
    np.testing.assert_array_equal(desk.session.labels[2], before)


# --- layers come and go --------------------------------------------------------------------------------------------


def test_a_deleted_strokes_layer_comes_back_with_its_strokes(desks):
    """Deleting a layer deletes no stroke: the object's layer is made again when the object is chosen."""
    desk = desks()
    drawn_at(desk, 2)
    desk.viewer.layers.remove(desk.viewer.layers["object 1 (strokes)"])
    desk.wait()
    assert len(desk.session.strokes()) == 1
    desk.select(1)
    assert shown(desk) == {"object 1 (strokes)": 1}


def test_a_deleted_result_layer_comes_back(desks):
    """The result is shown in a new layer when there is something new to show."""
    desk = desks()
    desk.viewer.layers.remove(desk.binding.labels)
    drawn_at(desk, 2)
    assert desk.binding.labels in desk.viewer.layers


def test_renamed_and_reordered_layers_are_known(desks):
    """Layers are held as objects: their names and order don't matter."""
    desk = desks()
    desk.viewer.layers[0].name = "something"
    desk.viewer.layers.selection.active.name = "else"
    desk.viewer.layers.move(0, 3)
    drawn_at(desk, 2)
    assert len(desk.session.strokes()) == 1


def test_removing_an_object_hides_and_empties_its_layer(desks):
    """Shapes layers are never removed: napari crashes on some machines when they are."""
    desk = desks()
    drawn_at(desk, 2)
    desk.remove_object(1)
    layer = desk.viewer.layers["object 1 (strokes)"]
    assert layer.nshapes == 0
    assert not layer.visible
    desk.undo()
    assert layer.nshapes == 1
    assert layer.visible


def test_two_viewers_have_their_own_sessions(desks):
    """What happens at one desk leaves the other alone."""
    one, two = desks(), desks()
    drawn_at(one, 2)
    assert one.session.strokes()
    assert not two.session.strokes()


def test_ending_hides_layers_and_leaves_no_callbacks(desks):
    """After `leave` the layers are empty and hidden, none is removed, and drawing in them reaches nobody."""
    desk = desks()
    layer = desk.viewer.layers.selection.active
    session = desk.session
    desk.leave()
    layer.add_paths([np.array([[0.0, 5, 5], [0, 5, 9]])])
    desk.wait()
    assert desk.session is None
    assert layer in desk.viewer.layers
    assert not layer.visible
    assert not np.asarray(desk.viewer.layers["movie [objects]"].data[3]).any()
    with pytest.raises(ProjectError, match="closed"):
        session.strokes()


# --- objects -------------------------------------------------------------------------------------------------------


def test_objects_are_named_coloured_hidden_and_locked(desks):
    """The result layer and the strokes follow the table of objects."""
    desk = desks()
    desk.rename_object(1, "cell")
    desk.recolour_object(1, "#ff0000")
    layer = desk.viewer.layers.selection.active
    assert layer.name == "cell (strokes)"
    np.testing.assert_allclose(desk.binding.labels.get_color(1), [1, 0, 0, 1])
    desk.hide_object(1)
    assert desk.binding.labels.get_color(1)[3] == 0
    assert not layer.visible
    desk.hide_object(1, False)
    desk.lock_object(1)
    assert not layer.editable
    desk.lock_object(1, False)
    assert layer.editable


def test_next_object_goes_round_to_a_new_one(desks):
    """After the last object comes a new one, drawn next."""
    desk = desks()
    desk.next_object()
    assert [o.id for o in desk.session.objects] == [1, 2]
    assert desk.selected == 2
    assert desk.viewer.layers.selection.active.name == "object 2 (strokes)"
    assert desk.viewer.layers.selection.active.mode == "add_path"


def test_divide_ends_the_mother_and_begins_daughters(desks):
    """Daughters begin on the frame on screen, where the mother is no more."""
    desk = desks()
    drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    desk.go_to(5)
    desk.divide(1)
    mother, one, two = desk.session.objects
    assert mother.lifetime.stop == 5
    assert (one.parent, two.parent) == (1, 1)
    assert desk.selected == one.id
    assert not (np.asarray(desk.session.labels[5]) == 1).any()


@pytest.mark.parametrize("how", ["objects", "masks", "scribbles"])
def test_labels_of_another_layer_are_taken(desks, how):
    """A Labels layer starts its objects: as exact masks, or as scribbles."""
    desk = desks()
    painted = np.zeros((8, 60, 80), np.int32)
    painted[3][scene.square(3)] = 1
    painted[3, 40:50, 33:43] = 2
    other = desk.viewer.add_layer(Labels(painted, name="cellpose"))
    desk.go_to(3)
    desk.import_labels(other, how)
    desk.wait()
    assert [o.id for o in desk.session.objects] == [1, 2]
    found = np.asarray(desk.session.labels[3])
    if how == "scribbles":
        assert scene.overlap(found == 1, scene.square(3)) > 0.7
    else:
        np.testing.assert_array_equal(found, painted[3])


def test_labels_of_another_size_are_refused(desks):
    """Labels of other pictures are an error that gives both sizes."""
    desk = desks()
    other = desk.viewer.add_layer(Labels(np.ones((8, 30, 40), np.int32), name="small"))
    with pytest.raises(InputError, match="30 × 40.*60 × 80"):
        desk.import_labels(other)


def test_features_tell_area_and_quality(desks):
    """The result layer's features hold each object's area on the frame on screen."""
    desk = desks()
    drawn_at(desk, 2)
    row = desk.binding.labels.features.iloc[0]
    assert row["index"] == 1
    assert row["area"] == int((np.asarray(desk.session.labels[2]) == 1).sum())
    assert 0 < row["quality"] <= 1


# --- projects ------------------------------------------------------------------------------------------------------


def test_a_project_is_gone_on_with(desks, tmp_path):
    """Started again with the same stack, strokes, masks and colours are there again."""
    first = desks(path=tmp_path / "movie.ivos")
    drawn_at(first, 2)
    first.recolour_object(1, "#00ff00")
    masks = np.array(first.session.labels[2])
    first.close()
    second = desks(path=tmp_path / "movie.ivos")
    np.testing.assert_array_equal(second.session.labels[2], masks)
    assert shown(second) == {"object 1 (strokes)": 1}
    np.testing.assert_allclose(second.binding.labels.get_color(1), [0, 1, 0, 1])


def test_a_project_of_another_stack_is_left_alone(desks, tmp_path):
    """Where a project of another stack lies, a new one is begun beside it."""
    first = desks(path=tmp_path / "movie.ivos")
    drawn_at(first, 2)
    first.close()
    other = Image(scene.movie()[::-1].copy(), name="other")
    second = desks(other, path=tmp_path / "movie.ivos")
    drawn_at(second, 2)
    assert second.session.path == tmp_path / "movie-2.ivos"
    with Session.open(tmp_path / "movie.ivos", frames=scene.movie()) as kept:
        assert len(kept.strokes()) == 1


def test_leaving_a_comparison_brings_the_result_back(desks):
    """Before and after the last round can be looked at in turn."""
    desk = desks()
    drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    after = np.array(desk.session.labels[6])
    desk.show_before()
    assert not np.asarray(desk.session.labels[6]).any()
    desk.show_before(False)
    np.testing.assert_array_equal(desk.session.labels[6], after)


def test_the_work_is_told_as_a_script_and_as_sentences(desks):
    """The script is valid Python with the strokes, the sentences have the numbers."""
    desk = desks()
    drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    script = desk.script()
    compile(script, "script", "exec")
    assert "ivos.Stroke(1, [(14.0, 21.0)" in script
    assert "session.propagate(" in script
    assert "1 scribbles on 1 of 8 frames" in desk.methods_text()


# --- one error stops no other ----------------------------------------------------------------------------------------


def test_each_answer_is_taken_in_by_itself(desks):
    """An error while one answer is taken in is told, and the others of its batch are taken in all the same."""
    desk = desks()
    gate, taken = threading.Event(), []

    def fail(value):
        raise ValueError("this answer can't be shown")

    desk.engine.submit(Job("edit", lambda job: gate.wait(30), desk.session))
    desk.engine.submit(Job("edit", lambda job: 1, desk.session, then=fail))
    desk.engine.submit(Job("edit", lambda job: 2, desk.session, then=taken.append))
    gate.set()
    while desk.engine.busy:  # all answers wait in one batch
        desk._bell.wait(0.01)
    desk.handle()
    assert taken == [2]
    assert any(kind == "error" and "this answer can't be shown" in text for kind, text in desk.said)
    drawn_at(desk, 2)
    assert len(desk.session.strokes()) == 1


def test_stopping_keeps_strokes_that_wait(desks):
    """Stop ends what runs; what the user drew meanwhile is segmented all the same."""
    desk = desks()
    gate = threading.Event()
    desk.engine.submit(Job("edit", lambda job: gate.wait(30), desk.session))
    desk.go_to(2)
    scene.draw(desk, scene.line(2))
    desk.handle()
    desk.stop()
    gate.set()
    desk.wait()
    assert [s.frame for s in desk.session.strokes()] == [2]


def test_closing_writes_strokes_that_wait(desks, tmp_path):
    """A window that is closed right after a stroke has lost nothing."""
    desk = desks(path=tmp_path / "movie.ivos")
    gate = threading.Event()
    desk.engine.submit(Job("edit", lambda job: gate.wait(30), desk.session))
    desk.go_to(2)
    scene.draw(desk, scene.line(2))
    desk.handle()
    threading.Timer(0.05, gate.set).start()
    desk.close()
    with Session.open(tmp_path / "movie.ivos", frames=scene.movie()) as kept:
        assert [s.frame for s in kept.strokes()] == [2]
        assert kept.labels[2].any()


# --- the project is made with the first stroke -----------------------------------------------------------------------


def test_opening_and_looking_leaves_no_file(desks, tmp_path):
    """Only the first stroke makes the project, with everything that was done before it."""
    desk = desks(path=tmp_path / "movie.ivos")
    desk.add_object("cell")
    desk.go_to(5)
    assert not list(tmp_path.iterdir())
    assert "first stroke" in desk.where
    drawn_at(desk, 2)
    assert desk.session.path == tmp_path / "movie.ivos"
    assert str(tmp_path / "movie.ivos") in desk.where
    desk.close()
    with Session.open(tmp_path / "movie.ivos", frames=scene.movie()) as kept:
        assert [o.name for o in kept.objects] == ["object 1", "cell"]
        assert len(kept.strokes()) == 1


@pytest.mark.parametrize("how", ["paint", "import", "script"])
def test_other_work_makes_the_project_too(desks, tmp_path, how):
    """Paint, imported labels, and what a script did with the session are kept like strokes."""
    desk = desks(path=tmp_path / "movie.ivos")
    desk.go_to(3)
    if how == "paint":
        desk.binding.labels.paint((3, 50, 8), 1)
    elif how == "import":
        labels = np.zeros((8, 60, 80), np.int32)
        labels[3][scene.square(3)] = 1
        desk.import_labels(desk.viewer.add_layer(Labels(labels, name="other")))
    else:
        desk.session.annotate(3, scene.square(3).astype(np.uint16))
    desk.wait()
    desk.close()
    with Session.open(tmp_path / "movie.ivos", frames=scene.movie()) as kept:
        assert kept.annotated_frames() == (3,)


def test_a_project_that_can_not_be_made_is_saved_elsewhere(desks, tmp_path):
    """Where the file can't be made that is said aloud, work goes on, and `save` keeps all of it."""
    (tmp_path / "file").touch()
    desk = desks(path=tmp_path / "file" / "movie.ivos")
    drawn_at(desk, 2)
    assert any(kind == "warning" and text.startswith("NOTHING IS SAVED") for kind, text in desk.said)
    assert desk.where.startswith("NOTHING IS SAVED")
    desk.save(tmp_path / "kept.ivos")
    desk.wait()
    drawn_at(desk, 4)
    desk.close()
    with Session.open(tmp_path / "kept.ivos", frames=scene.movie()) as kept:
        assert [s.frame for s in kept.strokes()] == [2, 4]


# --- rounds ----------------------------------------------------------------------------------------------------------


def test_undoing_the_first_round_keeps_the_objects(desks):
    """Strokes and propagation of round 1 go; the objects that were added stay in the table, with their layers."""
    desk = desks()
    desk.add_object("cell")
    drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    desk.undo("round")
    desk.wait()
    assert [o.name for o in desk.session.objects] == ["object 1", "cell"]
    assert not np.asarray(desk.session.labels).any()
    assert shown(desk)["cell (strokes)"] == 0
    drawn_at(desk, 3)
    assert desk.session.strokes()[0].round == 1


def test_spans_of_the_last_round_come_back_with_the_project(desks, tmp_path):
    """The timeline shows, object by object, what the last round changed, after opening and after undo, too."""
    first = desks(path=tmp_path / "movie.ivos")
    drawn_at(first, 2)
    first.propagate()
    first.wait()
    first.add_object()
    first.go_to(5)
    scene.draw(first, [(40, 32), (46, 38), (50, 44)])
    first.wait()
    first.propagate("forward")
    first.wait()
    spans = {i: row.tolist() for i, row in first.review.changed.items() if row.any()}
    assert np.flatnonzero(spans[2]).tolist() == [6, 7]
    assert 1 not in spans
    first.close()
    second = desks(path=tmp_path / "movie.ivos")
    assert {i: row.tolist() for i, row in second.review.changed.items() if row.any()} == spans
    second.undo("round")
    second.wait()
    assert np.flatnonzero(second.review.changed[1]).tolist() == [0, 1, 3, 4, 5, 6, 7]


# --- memory, frames that can't be read -------------------------------------------------------------------------------


class Elsewhere(FakePredictor):
    """A model on an accelerator whose memory is too small."""

    device = "cuda:0"

    def __init__(self, fails: str) -> None:
        super().__init__()
        self.fails = fails

    def segment(self, requests):
        if self.fails == "segment":
            raise OutOfMemory("cuda:0 has too little memory for one object")
        return super().segment(requests)

    def propagate(self, requests):
        if self.fails == "propagate":
            raise OutOfMemory("cuda:0 has too little memory for one object")
        return super().propagate(requests)


@pytest.mark.parametrize("fails", ["segment", "propagate"])
def test_what_an_accelerator_has_no_memory_for_is_done_on_the_cpu(desks, monkeypatch, fails):
    """It is said clearly, the model is loaded on the CPU, the other one is let go of, and the work is done there."""
    loaded = []

    def load(name, device):
        loaded.append(device)
        return FakePredictor()

    monkeypatch.setattr(loading, "load", load)
    desk = desks()
    model = Elsewhere(fails)
    gone = weakref.ref(model)
    desk.use_model(model)
    del model
    drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    assert loaded == ["cpu"]
    assert sum("cuda:0" in text for kind, text in desk.said if kind == "warning") == 1
    assert all(scene.overlap(desk.session.labels[t] == 1, scene.square(t)) > 0.6 for t in range(scene.FRAMES))
    gc.collect()
    assert gone() is None


def test_a_frame_that_can_not_be_read_ends_the_round_there(desks):
    """The round keeps what it has, the frame is named, and the rest is done when it can be read again."""
    desk = desks()
    stack, broken = desk.session.stack, [5]
    read = stack.read

    def failing(frame, box=None):
        if frame in broken:
            raise FrameReadError(f"Frame {frame} of movie can't be read (disk gone).", frame)
        return read(frame, box)

    stack.read = failing
    drawn_at(desk, 2)
    desk.propagate("forward")
    desk.wait()
    assert any(kind == "error" and "Frame 5" in text and "kept" in text for kind, text in desk.said)
    assert [t for t in range(8) if np.asarray(desk.session.labels[t]).any()] == [2, 3, 4]
    assert desk.binding.labels.editable
    broken.clear()
    desk.propagate("forward")
    desk.wait()
    assert np.asarray(desk.session.labels[7]).any()


# --- views and keys --------------------------------------------------------------------------------------------------


def test_strokes_in_a_3d_view_are_taken_away_with_a_word(desks):
    """A line in a volume is on no frame: it is removed, told, and drawing works again in the flat view."""
    desk = desks()
    desk.viewer.dims.ndisplay = 3
    desk.viewer.layers.selection.active.add_paths([np.array([[0.0, 5, 5], [3, 5, 9]])])
    desk.wait()
    assert not desk.session.strokes()
    assert shown(desk) == {"object 1 (strokes)": 0}
    assert "3D" in desk.said[-1][1]
    desk.viewer.dims.ndisplay = 2
    drawn_at(desk, 2)
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
    assert not desk.binding.strokes_layer(1).editable
    assert desk.binding.strokes_layer(2).mode == "add_path"


@pytest.mark.parametrize("edit", ["rename", "undo", "lock"])
def test_drawing_goes_on_after_an_edit(desks, edit):
    """No edit of the table and no undo takes the pen out of the user's hand."""
    desk = desks()
    drawn_at(desk, 2)
    if edit == "rename":
        desk.rename_object(1, "cell")
    elif edit == "undo":
        desk.undo()
    else:
        desk.lock_object(1)
        desk.lock_object(1, False)
    assert desk.viewer.layers.selection.active.mode == "add_path"
    drawn_at(desk, 4)
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
    drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    desk.go_to(5)
    desk.binding.labels.paint((5, 50, 8), 1)
    desk.wait()
    painted = np.array(desk.session.labels[5])
    layers = {"strokes": desk.binding.strokes_layer(1), "result": desk.binding.labels}
    layer = layers.get(where) or desk.viewer.layers[where]
    pressed(layer, "Control-Z")
    desk.wait()
    assert desk.session.labels[5][50, 8] == 0
    assert desk.session.annotated_frames() == (2,)
    pressed(layer, "Control-Shift-Z")
    desk.wait()
    np.testing.assert_array_equal(desk.session.labels[5], painted)


# --- the same work as a program --------------------------------------------------------------------------------------


def run_script(text: str, folder, monkeypatch) -> np.ndarray:
    """Run a program in a folder of its own; the labels that it exported."""
    import tifffile

    folder.mkdir()
    monkeypatch.chdir(folder)
    exec(compile(text, "script.py", "exec"), {"__name__": "__main__"})
    return tifffile.imread(folder / "labels.tif")


def test_the_script_gives_the_same_labels_to_the_last_bit(desks, tmp_path, monkeypatch):
    """Strokes, paint, imports, edits, removed strokes, stopped and one-way propagations: all is done again."""
    import tifffile

    tifffile.imwrite(tmp_path / "movie.tif", scene.movie(), metadata={"axes": "TYX"})
    image = Image(scene.movie(), name="movie", metadata={projects.HINTS: {"file": str(tmp_path / "movie.tif")}})
    desk = desks(image, path=tmp_path / "movie.ivos")
    session = desk.session
    drawn_at(desk, 2)
    scene.draw(desk, [(40, 32), (46, 38), (50, 44)])
    desk.wait()
    session.remove_stroke(session.strokes()[0].id)
    desk.undo()
    list(session.propagate(most=3))
    desk.add_object("nucleus")
    labels = np.zeros((8, 60, 80), np.int32)
    labels[6, 38:50, 30:46] = 2
    desk.go_to(6)
    desk.import_labels(desk.viewer.add_layer(Labels(labels, name="other")), "masks")
    desk.wait()
    desk.propagate("backward", 1, 7)
    desk.wait()
    desk.binding.labels.paint((4, 50, 8), 1)
    desk.wait()
    desk.lock_object(1)
    desk.divide(2, 2)
    desk.lock_object(1, False)
    drawn_at(desk, 7)
    session.remove_stroke(session.strokes()[-1].id)
    session.set_lifetime(1, 1)
    desk.undo()
    desk.recolour_object(2, "#123456")
    desk.propagate()
    desk.wait()
    with_gone = desk.script()
    assert "np.load" in with_gone
    assert "most=3" in with_gone
    assert "remove_stroke" in with_gone
    truth = np.asarray(session.labels)
    assert len(np.unique(truth)) > 2
    np.testing.assert_array_equal(run_script(with_gone, tmp_path / "again", monkeypatch), truth)


def test_a_script_says_when_the_model_is_another(desks, tmp_path, monkeypatch):
    """Masks of other weights would differ, so the program ends with both checksums."""
    desk = desks()
    drawn_at(desk, 2)
    text = desk.script(tmp_path).replace(f'"{desk.session.model.checksum}"', '"0123"')
    text = text.replace('open_frames("stack.tif"', "open_frames(np.zeros((8, 60, 80), np.uint8)")
    with pytest.raises(SystemExit, match="0123"):
        run_script("import numpy as np\n" + text, tmp_path / "again", monkeypatch)
