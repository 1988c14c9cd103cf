"""Frames of more than 8,192 px: shown as a pyramid, painted in the part that is in view; no window."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import plugin_scene as scene
import pytest
from napari.components import ViewerModel
from plugin_wide import HEIGHT, PLACE, WIDTH, layer, look_at, mask

from napari_ivos.plugin import large
from napari_ivos.regions import Box

if TYPE_CHECKING:
    from napari_ivos.plugin.desk import Desk


@pytest.fixture
def begin(desks):
    """Makes a viewer with large frames, zoomed to the scene, and its desk."""

    def make(*further: int) -> Desk:
        viewer = ViewerModel()
        image = layer(*further)
        viewer.add_layer(image)
        look_at(viewer, PLACE[0] + 30, PLACE[1] + 40)
        return desks(image, viewer)

    return make


def draw(desk: Desk, frame: int) -> None:
    """Draw along the bright square of a frame."""
    desk.go_to(frame)
    scene.draw(desk, scene.line(frame) + PLACE)
    desk.wait()


# --- pure ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        pytest.param(Box(1000, 2000, 2000, 4000), Box(750, 1500, 2250, 4500), id="room around the view"),
        pytest.param(Box(0, 0, 1000, 1000), Box(0, 0, 1500, 1500), id="in a corner"),
        pytest.param(Box(8000, 19000, 9000, 20000), Box(7500, 18500, 9000, 20000), id="in the other corner"),
        pytest.param(Box(0, 0, 9000, 20000), Box(2452, 7952, 6548, 12048), id="of the whole frame only the middle"),
        pytest.param(Box(500, 500, 504, 504), Box(246, 246, 758, 758), id="never tiny"),
    ],
)
def test_the_part_to_paint_in_lies_around_the_view(view, expected):
    """It has room to pan, is bounded, and inside the frame."""
    assert large.cut_for(view, (HEIGHT, WIDTH)) == expected


def test_tiles_are_where_masks_are():
    """Of a window only parts with masks come up, each cut to what is in it."""
    boxes = {1: Box(10, 10, 60, 30), 2: Box(900, 950, 1000, 1000)}
    found = list(large.tiles(Box(0, 0, 1000, 1000), boxes, 100))
    assert found == [Box(10, 10, 60, 30), Box(900, 950, 1000, 1000)]
    assert list(large.tiles(Box(200, 200, 300, 300), boxes, 100)) == []


class Plain:
    """Labels of a plain array, as a session has them."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape = values, values.shape

    def __getitem__(self, key):
        return self.values[key]

    def boxes(self, frame):
        found = {}
        for value in np.unique(self.values[frame])[1:]:
            rows, columns = np.nonzero(self.values[frame] == value)
            found[int(value)] = Box(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
        return found


@pytest.mark.parametrize("step", [1, 2, 3, 8, 64])
def test_a_coarse_resolution_is_every_nth_pixel(step):
    """Every kind of index gives what the full labels give at every n-th row and column."""
    values = np.zeros((3, 101, 157), np.uint16)
    values[0, 20:50, 30:90], values[2, 60:100, 100:156], values[2, 90:101, 3:20] = 1, 2, 3
    level = large.Coarse(Plain(values), step)
    expected = values[:, ::step, ::step]
    assert level.shape == expected.shape
    np.testing.assert_array_equal(np.asarray(level), expected)
    for key in (
        2,
        (0, slice(None), slice(None)),
        (slice(0, 3, 2), slice(0, 1), slice(None)),
        (2, 0, 0),
        (1, slice(0, 0)),
    ):
        np.testing.assert_array_equal(level[key], expected[key])


def test_a_cut_out_is_read_and_painted_through():
    """Indexing and painting a part reaches the same pixels of the whole."""
    values = np.arange(2 * 20 * 30, dtype=np.uint16).reshape(2, 20, 30)
    whole = values.copy()
    cut = large.CutOut(values, Box(5, 8, 15, 20))
    part = whole[:, 5:15, 8:20]
    keys = [1, (0, slice(2, 9, 3)), (1, 4, 5), (0, slice(None, None, -1), slice(3, 5)), (slice(None), -1, -2)]
    for key in keys:
        np.testing.assert_array_equal(cut[key], part[key])
    cut[1, 2:4, 3:5] = 7
    cut[(np.array([0, 0]), np.array([1, 2]), np.array([3, 4]))] = 9
    part = part.copy()
    part[1, 2:4, 3:5] = 7
    part[(np.array([0, 0]), np.array([1, 2]), np.array([3, 4]))] = 9
    np.testing.assert_array_equal(np.asarray(cut), part)
    assert (values != whole).sum() == 6


# --- layers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("further", [(), (2,)], ids=["TYX", "TCYX"])
def test_a_large_result_is_a_pyramid_that_is_not_edited(begin, further):
    """Masks are shown at every resolution, the result can't be painted, and nothing as large as a frame is made."""
    desk = begin(*further)
    tracemalloc.start()
    draw(desk, 2)
    desk.propagate("forward", stop=5)
    desk.wait()
    desk.go_to(4)
    desk.frame_changed()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < HEIGHT * WIDTH / 2
    result = desk.binding.labels
    assert result.multiscale
    assert not result.editable
    desk._lock_result(False)
    assert not result.editable
    place = (4, *(0,) * len(further), slice(None), slice(None))
    for level in result.data[2:]:
        shown = np.asarray(level[place])
        step = round(HEIGHT / shown.shape[0])
        truth = np.zeros((HEIGHT // step + 1, WIDTH // step + 1), bool)
        y, x = (-(-(p + c) // step) for p, c in zip(PLACE, scene.corner(4), strict=True))
        truth[y : y + scene.SIDE // step, x : x + scene.SIDE // step] = True
        if step <= 4:
            assert scene.overlap(shown == 1, truth[: shown.shape[0], : shown.shape[1]]) > 0.5
        assert shown.sum() < 2 * (scene.SIDE / step + 2) ** 2
    assert scene.overlap(mask(desk.session, 4), scene.square(4)) > 0.7
    row = result.features.iloc[0]
    assert row["area"] == mask(desk.session, desk.frame).sum()


@pytest.mark.parametrize("further", [(), (2,)], ids=["TYX", "TCYX"])
def test_a_large_result_is_painted_in_the_part_in_view(begin, further):
    """The brush works in a layer over the view; its paint is the frame's annotation and shows in the pyramid."""
    desk = begin(*further)
    draw(desk, 2)
    desk.paint_mask()
    paper = desk.viewer.layers.selection.active
    assert paper is desk.binding.paper
    assert (paper.mode, paper.selected_label) == ("paint", 1)
    y, x = PLACE[0] + 50, PLACE[1] + 8
    world = np.array(desk.binding.image.data_to_world((2, *(0,) * len(further), y, x)))
    paper.brush_size = 9
    paper.paint(tuple(paper.world_to_data(world)), 1)
    desk.wait()
    assert desk.session.labels[2, y, x] == 1
    assert desk.session.annotated_frames(1) == (2,)
    coarser = desk.binding.labels.data[1]
    assert np.asarray(coarser[(2, *(0,) * len(further), slice(None), slice(None))])[y // 2, x // 2] == 1
    assert scene.overlap(mask(desk.session, 2)[:34], scene.square(2)[:34]) > 0.7


@pytest.mark.parametrize("further", [(), (2,)], ids=["TYX", "TCYX"])
def test_a_large_result_is_compared_with_what_was_before(begin, further):
    """Pyramid and part both show what was, neither is painted in, and both show the result again."""
    desk = begin(*further)
    draw(desk, 2)
    desk.propagate("forward", stop=4)
    desk.wait()
    y, x = (p + c + 8 for p, c in zip(PLACE, scene.corner(2), strict=True))
    place, paper = (2, *(0,) * len(further), y, x), desk.binding.paper
    world = desk.binding.image.data_to_world(place)
    for before, value in ((False, 1), (True, 0), (False, 1)):
        desk.show_before(before)
        assert np.asarray(desk.binding.labels.data[0][place]) == value
        assert paper.data[tuple(int(v) for v in np.rint(paper.world_to_data(world)))] == value
        assert paper.editable is not before
        assert not desk.binding.labels.editable


def test_the_part_goes_along_with_the_view(begin):
    """While it is the active layer the part follows the view, but not a small move, nor while strokes are drawn."""
    desk = begin()
    desk.paint_mask()
    brush = desk.binding.result.brush
    first = brush.box
    assert large.view_box(desk.viewer, desk.binding.image, desk.binding.layout).intersect(first) != Box(0, 0, 0, 0)
    look_at(desk.viewer, PLACE[0] + 20, PLACE[1] + 30)
    assert brush.box == first
    look_at(desk.viewer, 500, 700)
    assert brush.box != first
    assert brush.layer.data.box == brush.box
    np.testing.assert_allclose(brush.layer.translate[-2:], (brush.box.y0, brush.box.x0))
    desk.select(1)
    held = brush.box
    look_at(desk.viewer, 4_000, 9_000)
    assert brush.box == held
    desk.paint_mask()
    assert brush.box != held


def test_a_deleted_part_comes_back(begin):
    """Where the user deletes the layer to paint in, choosing to paint makes it again, and drawing never misses it."""
    desk = begin()
    desk.viewer.layers.remove(desk.binding.paper)
    draw(desk, 2)
    desk.paint_mask()
    assert desk.binding.paper in desk.viewer.layers
    assert desk.binding.paper.colormap.map(1)[3] == 1


def test_a_large_session_ends_like_any_other(begin):
    """After `leave` pyramid and part are empty, hidden, and hear nothing of the view."""
    desk = begin()
    draw(desk, 2)
    layers = desk.binding.labels, desk.binding.paper
    desk.leave()
    desk.wait()
    look_at(desk.viewer, 100, 100)
    assert not any(layer.visible for layer in layers)
    assert not np.asarray(layers[1].data[0]).any()
    assert not np.asarray(layers[0].data[-1][0]).any()
