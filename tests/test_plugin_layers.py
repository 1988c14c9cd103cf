"""Layers come and go, objects are edited, labels of other layers are taken; without Qt."""

from __future__ import annotations

import numpy as np
import plugin_scene as scene
import pytest
from napari.layers import Image, Labels
from napari.layers._layer_actions import _duplicate_layer

from napari_ivos.errors import InputError, ProjectError

# --- layers come and go --------------------------------------------------------------------------------------------


def test_a_deleted_strokes_layer_comes_back_with_its_strokes(desks):
    """Deleting a layer deletes no stroke: the object's layer is made again when the object is chosen."""
    desk = desks()
    scene.drawn_at(desk, 2)
    desk.viewer.layers.remove(desk.viewer.layers["object 1 (strokes)"])
    desk.wait()
    assert len(desk.session.strokes()) == 1
    desk.select(1)
    assert scene.shown(desk) == {"object 1 (strokes)": 1}


def test_a_deleted_result_layer_comes_back(desks):
    """The result is shown in a new layer when there is something new to show."""
    desk = desks()
    desk.viewer.layers.remove(desk.binding.labels)
    scene.drawn_at(desk, 2)
    assert desk.binding.labels in desk.viewer.layers


def test_renamed_and_reordered_layers_are_known(desks):
    """Layers are held as objects: their names and order don't matter."""
    desk = desks()
    desk.viewer.layers[0].name = "something"
    desk.viewer.layers.selection.active.name = "else"
    desk.viewer.layers.move(0, 3)
    scene.drawn_at(desk, 2)
    assert len(desk.session.strokes()) == 1


def test_removing_an_object_hides_and_empties_its_layer(desks):
    """Shapes layers are never removed: napari crashes on some machines when they are."""
    desk = desks()
    scene.drawn_at(desk, 2)
    desk.remove_object(1)
    layer = desk.viewer.layers["object 1 (strokes)"]
    assert layer.nshapes == 0
    assert not layer.visible
    desk.undo()
    assert layer.nshapes == 1
    assert layer.visible


@pytest.mark.parametrize("way", ["remove", "undo"])
def test_when_the_chosen_object_goes_the_pen_is_another_ones(desks, way):
    """After deleting an object, or taking back that it was added, the next stroke is the now chosen object's."""
    desk = desks()
    scene.drawn_at(desk, 2)
    desk.add_object()
    if way == "remove":
        desk.remove_object(2)
    else:
        desk.undo()
    assert desk.selected == 1
    scene.drawn_at(desk, 4)
    assert [(s.object_id, s.frame) for s in desk.session.strokes()] == [(1, 2), (1, 4)]


def test_two_viewers_have_their_own_sessions(desks):
    """What happens at one desk leaves the other alone."""
    one, two = desks(), desks()
    scene.drawn_at(one, 2)
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


@pytest.mark.parametrize("shape", [(8, 60, 80), (8, 3, 60, 80), (60, 80)], ids=str)
def test_a_duplicate_of_the_result_is_a_copy_of_its_own(desks, shape):
    """Napari's Duplicate keeps the masks as they are now; what is done later, and paint, stays out of it."""
    frames = scene.movie() if len(shape) > 2 else scene.movie()[2]
    image = Image(np.broadcast_to(frames[:, None] if len(shape) > 3 else frames, shape).copy(), name="movie")
    desk = desks(image)
    scene.drawn_at(desk, frame := 2 * (len(shape) > 2))
    masks = np.array(desk.session.labels)
    layers = desk.viewer.layers
    layers.selection.active = desk.binding.labels
    _duplicate_layer(layers)
    twin = layers["movie [objects] copy"]
    assert type(twin.data) is np.ndarray
    twin.data[..., 50:52, 5:9] = 1
    np.testing.assert_array_equal(np.asarray(desk.session.labels), masks)
    desk.undo()
    desk.wait()
    assert twin.data.any()
    assert not np.asarray(desk.session.labels[frame]).any()


def test_other_data_put_into_the_result_are_put_out_with_a_word(desks):
    """A script or plugin that sets the layer's data would cut it off: the session's come back, and take paint."""
    desk = desks()
    scene.drawn_at(desk, 2)
    labels = desk.binding.labels
    labels.data = np.zeros((8, 60, 80), np.uint16)
    desk.wait()
    assert labels.data is desk.session.labels
    assert desk.said[-1][0] == "warning"
    assert "no other data" in desk.said[-1][1]
    labels.paint((2, 50, 8), 1)
    desk.wait()
    assert desk.session.labels[2, 50, 8] == 1


def test_a_label_that_is_no_object_yet_is_seen_while_it_is_painted(desks):
    """It becomes an object with its own colour when the stroke ends."""
    desk = desks()
    labels = desk.binding.labels
    assert labels.get_color(7)[3] == 1
    labels.paint((2, 50, 8), 7)
    desk.wait()
    assert [o.id for o in desk.session.objects] == [1, 7]
    np.testing.assert_allclose(labels.get_color(7)[:3], _rgb(desk.session.objects[1].colour), atol=0.01)


def _rgb(colour: str) -> list[float]:
    return [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]


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


@pytest.mark.parametrize("deed", ["add", "divide"])
def test_an_object_taken_back_before_it_was_shown_is_not_drawn(desks, deed):
    """New object, then Undo, both while something runs: no error, and the pen is where it was."""
    desk = desks(model=(model := scene.Slow()))
    desk.go_to(2)
    scene.draw(desk, scene.line(2))
    assert model.begun.wait(30)
    desk.handle()
    if deed == "add":
        desk.add_object()
    else:
        desk.divide(1)
    desk.undo()
    model.gate.release(100)
    while desk.engine.busy:  # both are done before the window hears of the first
        pass
    desk.wait()
    assert not [text for kind, text in desk.said if kind == "error"]
    assert [o.id for o in desk.session.objects] == [1]
    assert desk.selected == 1
    assert desk.binding.tool == "draw"


def test_divide_ends_the_mother_and_begins_daughters(desks):
    """Daughters begin on the frame on screen, where the mother is no more."""
    desk = desks()
    scene.drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    desk.go_to(5)
    desk.divide(1)
    mother, one, two = desk.session.objects
    assert mother.lifetime.stop == 5
    assert (one.parent, two.parent) == (1, 1)
    assert (one.name, two.name) == ("object 1.1", "object 1.2")
    assert desk.selected == one.id
    assert not (np.asarray(desk.session.labels[5]) == 1).any()


def carried(desk, frame):
    """The desk, with the bright square drawn on a frame and carried to all."""
    scene.drawn_at(desk, frame)
    desk.propagate()
    desk.wait()
    return desk


def test_an_object_ends_where_it_is_gone(desks):
    """It has no mask from the frame on screen on, which is said; taken back, the masks are there again."""
    desk = carried(desks(), 2)
    masks = np.array(desk.session.labels)
    desk.go_to(5)
    assert not desk.on_gone
    desk.object_gone(1)
    assert desk.said[-1] == ("info", "object 1 is gone from this frame on: frame 4 is its last.")
    assert desk.session.objects[0].lifetime == range(5)
    assert desk.on_gone
    assert not np.asarray(desk.session.labels)[5:].any()
    np.testing.assert_array_equal(np.asarray(desk.session.labels)[:5], masks[:5])
    desk.go_to(4)
    assert not desk.on_gone
    desk.go_to(7)
    desk.object_gone(1, gone=False)
    assert desk.said[-1][1].startswith("object 1 may be on frames 0 to 7.")
    np.testing.assert_array_equal(np.asarray(desk.session.labels), masks)


def test_an_object_begins_after_where_it_is_gone(desks):
    """Before the first frame on which it was drawn, that says when it begins; each end is taken back by itself."""
    desk = carried(desks(), 4)
    masks = np.array(desk.session.labels)
    desk.go_to(1)
    desk.object_gone(1)
    assert desk.said[-1] == ("info", "object 1 begins after this frame: frame 2 is its first.")
    desk.go_to(6)
    desk.object_gone(1)
    assert desk.session.objects[0].lifetime == range(2, 6)
    shown = np.asarray(desk.session.labels)
    np.testing.assert_array_equal(shown[2:6], masks[2:6])
    assert not shown[:2].any()
    assert not shown[6:].any()
    desk.go_to(0)
    desk.object_gone(1, gone=False)
    assert desk.session.objects[0].lifetime == range(6)
    np.testing.assert_array_equal(np.asarray(desk.session.labels)[:6], masks[:6])


def test_an_object_begins_after_where_it_is_gone_though_a_frame_before_was_emptied(desks):
    """A frame that a stroke of the background has emptied is not where the object was drawn."""
    desk = carried(desks(), 5)
    desk.session.annotate(1, np.zeros((scene.HEIGHT, scene.WIDTH), np.uint16), objects=[1])
    desk._all_changed()
    desk.wait()
    desk.go_to(3)
    desk.object_gone(1)
    assert desk.session.objects[0].lifetime == range(4, 8)


def test_an_object_does_not_end_before_it_begins(desks):
    """On the first frame of all, where it was drawn, it can't be gone: that is refused, and nothing changes."""
    desk = desks()
    scene.drawn_at(desk, 0)
    with pytest.raises(InputError, match="frame 0"):
        desk.object_gone(1)
    with pytest.raises(InputError, match="no object 7"):
        desk.object_gone(7)
    assert desk.session.objects[0].lifetime == range(8)


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
    assert ("info", desk.said[-1][1]) == desk.said[-1]
    assert desk.said[-1][1].startswith("Took 2 objects of frame 3 from cellpose")
    assert other.visible is (how != "objects")


def test_objects_of_another_plugin_are_seen_and_drawn_next(desks):
    """Its layer, which would cover them, is hidden, and a correction can be drawn at once."""
    desk = desks()
    scene.drawn_at(desk, 2)
    labels = np.zeros((8, 60, 80), np.int32)
    labels[2, 40:50, 33:43] = 7
    other = desk.viewer.add_layer(Labels(labels, name="stardist"))
    assert desk.binding.tool == ""
    desk.import_labels(other)
    desk.wait()
    assert [o.name for o in desk.session.objects] == ["object 1", "stardist 7"]
    assert not other.visible
    assert desk.selected == 2
    assert desk.binding.tool == "draw"


def test_negative_labels_are_no_objects(desks):
    """-1, with which other programs mark what is not labelled, is taken as background."""
    desk = desks()
    labels = np.full((8, 60, 80), -1, np.int32)
    labels[2, 40:50, 33:43] = 1
    other = desk.viewer.add_layer(Labels(labels, name="clusters"))
    desk.go_to(2)
    desk.import_labels(other)
    desk.wait()
    assert [o.id for o in desk.session.objects] == [1]
    assert int((np.asarray(desk.session.labels[2]) == 1).sum()) == 100


def test_labels_of_another_size_are_refused(desks):
    """Labels of other pictures are an error that gives both sizes."""
    desk = desks()
    other = desk.viewer.add_layer(Labels(np.ones((8, 30, 40), np.int32), name="small"))
    with pytest.raises(InputError, match="30 × 40.*60 × 80"):
        desk.import_labels(other)


def test_features_tell_area_and_quality(desks):
    """The result layer's features hold each object's area on the frame on screen."""
    desk = desks()
    scene.drawn_at(desk, 2)
    row = desk.binding.labels.features.iloc[0]
    assert row["index"] == 1
    assert row["area"] == int((np.asarray(desk.session.labels[2]) == 1).sum())
    assert 0 < row["quality"] <= 1
