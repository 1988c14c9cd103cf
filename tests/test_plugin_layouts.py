"""Any layout of axes, turned, scaled, coloured: strokes and masks lie where the image does; without Qt."""

from __future__ import annotations

import numpy as np
import plugin_scene as scene
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_ivos.errors import InputError
from napari_ivos.plugin import geometry

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
    scene.drawn_at(desk, frame)
    assert scene.overlap(desk.session.labels[frame] == 1, scene.square(frame)) > 0.8
    labels = desk.binding.labels
    place = np.asarray(desk.viewer.dims.point)
    y, x = scene.corner(frame)
    inside = np.asarray(image.world_to_data(place))
    inside[-2:] = (y + 8, x + 8)
    assert labels.get_value(image.data_to_world(inside), world=True) == 1
    np.testing.assert_allclose(labels.scale, image.scale)


def test_a_rotated_and_sheared_layer_is_drawn_on_rightly(desks):
    """Points on the screen become pixels through the layer's whole transform, which result and strokes have, too."""
    image = Image(scene.movie(), name="movie", rotate=30, shear=[0.1, 0, 0], scale=(1, 2, 2), translate=(0, 9, 9))
    desk = desks(image)
    scene.drawn_at(desk, 2)
    np.testing.assert_allclose(desk.session.strokes()[0].points, scene.line(2), atol=1e-3)
    assert len(desk.binding.layers) == 2
    for layer in desk.binding.layers:
        for name in ("scale", "translate", "rotate", "shear"):
            np.testing.assert_allclose(getattr(layer, name), getattr(image, name), err_msg=f"{name} of {layer.name}")


def test_rgb_and_multiscale_layers_work(desks):
    """Colours are no axis, and of several resolutions the full one counts."""
    colours = np.repeat(scene.movie()[..., None], 3, axis=-1)
    scene.drawn_at(rgb := desks(Image(colours, rgb=True, name="movie")), 3)
    assert scene.overlap(rgb.session.labels[3] == 1, scene.square(3)) > 0.8
    levels = [scene.movie(), scene.movie()[:, ::2, ::2]]
    scene.drawn_at(several := desks(Image(levels, multiscale=True, name="movie")), 3)
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


def test_nothing_is_done_to_a_frame_that_is_not_on_screen(desks):
    """Where a longer stack goes on after the last frame, that one is neither divided, accepted nor labelled."""
    viewer = ViewerModel()
    other = viewer.add_layer(Labels(np.ones((30, 60, 80), np.uint8)))
    desk = desks(Image(scene.movie(), name="movie"), viewer=viewer)
    scene.drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    viewer.dims.set_point(0, 20)
    log = desk.session.log
    for deed in (lambda: desk.divide(1), desk.accept_frame, lambda: desk.import_labels(other)):
        with pytest.raises(InputError, match="has frames 0 to 7"):
            deed()
    assert desk.session.log == log
    desk.go_to(7)
    desk.accept_frame()
    assert desk.session.accepted == {7}


@pytest.mark.parametrize("way", ["over it", "below it", "hidden", "additive", "a channel"])
def test_a_picture_over_the_one_that_is_drawn_on_is_told(desks, way):
    """Where another image is seen in its place, one would draw on that and segment this."""
    viewer = ViewerModel()
    one = viewer.add_layer(Image(scene.movie(), name="one", visible=False))
    two = viewer.add_layer(Image(scene.movie()[::-1], name="two", visible=way != "hidden"))
    if way == "additive":
        two.blending = "additive"
    if way == "below it":
        viewer.layers.move(1, 0)
    desk = desks(one, viewer=viewer)
    if way == "a channel":
        desk.start(desk.choice(one, more=(two,)), path=None)
        desk.wait()
    assert one.visible
    told = [kind for kind, text in desk.said if "two lies over one" in text]
    assert desk.said[-1][1].endswith("draw on.") == (way == "over it")
    assert told == ["warning"] * (way in ("over it", "a channel"))


def test_layers_as_channels(desks):
    """Layers of the same shape can be the channels of one stack."""
    viewer = ViewerModel()
    one, two = (viewer.add_layer(Image(scene.movie(), name=n)) for n in "ab")
    desk = desks(one, viewer=viewer)
    desk.start(desk.choice(one, more=(two,)), path=None)
    desk.wait()
    assert desk.session.stack.channels == (0, 1)
    scene.drawn_at(desk, 1)
    assert scene.overlap(desk.session.labels[1] == 1, scene.square(1)) > 0.8


def test_units_and_axis_names_are_copied(desks):
    """Result and strokes lie in the same world as the image."""
    units = ("second", "micrometer", "micrometer")
    desk = desks(Image(scene.movie(), name="m", units=units, axis_labels=("t", "y", "x"), scale=(2, 0.3, 0.3)))
    for layer in desk.binding.layers:
        assert tuple(map(str, layer.units)) == units
        assert tuple(layer.axis_labels) == ("t", "y", "x")


MOVES = {
    "scale": (1, 0.5, 0.25),
    "translate": (0, 7, 9),
    "rotate": 30,
    "shear": (0.1, 0, 0),
    "affine": [[1, 0, 0, 0], [0, 1, 0, 5], [0, 0, 2, 0], [0, 0, 0, 1]],
    "units": ("second", "micrometer", "micrometer"),
    "axis_labels": ("t", "y", "x"),
}


@pytest.mark.parametrize("name", MOVES)
def test_masks_and_strokes_go_along_with_the_image(desks, name):
    """Calibrated or moved after Start, the image has its result and its strokes over it still, and is drawn on."""
    desk = desks()
    scene.drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    image = desk.binding.image
    setattr(image, name, MOVES[name])
    desk.wait()
    scene.drawn_at(desk, 4)
    np.testing.assert_allclose(desk.session.strokes()[-1].points, scene.line(4), atol=1e-3)
    assert [s.frame for s in desk.session.strokes()] == [2, 4]
    assert len(desk.binding.layers) == 3
    for layer in desk.binding.layers:
        np.testing.assert_array_equal(*(str(getattr(x, name)) for x in (layer, image)), err_msg=layer.name)


def test_a_plane_goes_along_with_its_volume(desks):
    """The result of one plane stays at that plane where its volume is scaled after Start."""
    viewer = ViewerModel()
    image = viewer.add_layer(Image(spread("TZYX", (8, 5, 60, 80)), name="movie"))
    viewer.dims.set_point(1, 3)
    desk = desks(image, viewer=viewer)
    image.scale = (1, 2.5, 0.5, 0.5)
    np.testing.assert_allclose(desk.binding.labels.translate, (0, 7.5, 0, 0))
    np.testing.assert_allclose(desk.binding.labels.scale, image.scale)
