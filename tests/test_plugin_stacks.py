"""Stacks as users open them in napari: any type of number, dask, zarr, resolutions, OME-Zarr by path; no window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plugin_scene as scene
import pytest
from napari.components import ViewerModel
from napari.layers import Image
from napari.plugins import _initialize_plugins

from napari_ivos import FakePredictor
from napari_ivos.plugin import geometry
from napari_ivos.plugin.desk import Desk

if TYPE_CHECKING:
    from pathlib import Path


def work(desk: Desk) -> None:
    """Draw on frame 3, go on to the last frame."""
    desk.go_to(3)
    scene.draw(desk, scene.line(3))
    desk.wait()
    desk.propagate("forward")
    desk.wait()


def segmented(desk: Desk) -> None:
    """The bright square has its mask on the frames from 3 on, and on no other; the result layer shows it in place."""
    labels = np.asarray(desk.session.labels)
    assert all(scene.overlap(labels[t] == 1, scene.square(t)) > 0.7 for t in range(3, scene.FRAMES))
    assert not labels[:3].any()
    desk.go_to(6)
    y, x = scene.corner(6)
    image = desk.binding.image
    inside = geometry.place_shown(desk.viewer, image)
    inside[-2:] = y + 8, x + 8
    assert desk.binding.labels.get_value(image.data_to_world(inside), world=True) in (1, (0, 1))


def zarr_of(values: np.ndarray, folder: Path, chunks=None):
    """The values as a zarr array, a frame a chunk by default."""
    import zarr

    chunks = chunks or (1,) * (values.ndim - 2) + values.shape[-2:]
    array = zarr.create_array(folder / "a.zarr", shape=values.shape, chunks=chunks, dtype=values.dtype)
    array[...] = values
    return array


NUMBERS = [
    pytest.param(lambda v: v.astype(np.uint16) * 200 + 1000, id="uint16"),
    pytest.param(lambda v: v.astype(np.int16) * 90 - 9000, id="int16 with negative values"),
    pytest.param(lambda v: v.astype(np.float32) / 255, id="float32 in 0..1"),
    pytest.param(lambda v: v.astype(np.float64) * 1e6, id="float64, large"),
    pytest.param(lambda v: v > 150, id="bool"),
]


@pytest.mark.parametrize("convert", NUMBERS)
def test_any_type_of_number_is_segmented(desks, convert):
    """What the numbers of a stack are called makes no difference."""
    values = convert(scene.movie())
    desk = desks(Image(values, name="movie"))
    assert desk.session.stack.dtype == values.dtype
    work(desk)
    segmented(desk)


def test_pixels_that_are_no_numbers_are_left_out(desks):
    """NaN and infinite pixels, as masked parts of a stack have them, spoil neither contrast nor masks."""
    values = scene.movie().astype(np.float32)
    values[:, :4] = np.nan
    values[2, -1, -1] = np.inf
    desk = desks(Image(values, name="movie", contrast_limits=(0, 255)))
    work(desk)
    segmented(desk)


STORES = [
    pytest.param("dask", id="dask"),
    pytest.param("dask in blocks", id="dask, several frames and parts of pictures a block"),
    pytest.param("zarr", id="zarr"),
    pytest.param("zarr in blocks", id="zarr, several frames and parts of pictures a block"),
    pytest.param("xarray", id="xarray"),
]


def stored(kind: str, values: np.ndarray, folder: Path):
    """The values in another kind of array."""
    import dask.array as da

    blocks = (3,) * (values.ndim - 2) + (32, 32)
    if kind == "xarray":
        import xarray

        return xarray.DataArray(values)
    if kind.startswith("dask"):
        return da.from_array(values, chunks=blocks if "blocks" in kind else (1,) * (values.ndim - 2) + (-1, -1))
    return zarr_of(values, folder, blocks if "blocks" in kind else None)


@pytest.mark.parametrize("kind", STORES)
def test_any_kind_of_array_is_segmented(desks, tmp_path, kind):
    """dask, zarr and xarray are read as they lie, whatever their blocks are."""
    desk = desks(Image(stored(kind, scene.movie(), tmp_path), name="movie", contrast_limits=(0, 255)))
    work(desk)
    segmented(desk)


@pytest.mark.parametrize("kind", ["dask", "zarr"])
@pytest.mark.parametrize("layout", ["TCYX", "TZYX at z = 2", "RGB"])
def test_further_axes_are_read_lazily_too(desks, tmp_path, kind, layout):
    """Channels, planes and colours of dask and zarr stacks work as those of numpy arrays do."""
    frames = scene.movie()
    viewer = ViewerModel()
    if layout == "RGB":
        colours = np.repeat(frames[..., None], 3, axis=-1)
        chunks = (1, 32, 32, 3)
        import dask.array as da

        data = da.from_array(colours, chunks=chunks) if kind == "dask" else zarr_of(colours, tmp_path, chunks)
        image = Image(data, rgb=True, name="movie")
    else:
        further = 2 if layout == "TCYX" else 5
        values = np.zeros((scene.FRAMES, further, scene.HEIGHT, scene.WIDTH), np.uint8)
        if layout == "TCYX":
            values[:] = frames[:, None]
        else:
            values[:, 2] = frames  # nothing to be seen on any other plane
        image = Image(stored(kind, values, tmp_path), name="movie", contrast_limits=(0, 255))
    viewer.add_layer(image)
    if layout.startswith("TZYX"):
        viewer.dims.set_point(1, 2)
    desk = desks(image, viewer)
    work(desk)
    segmented(desk)


def test_another_plane_is_another_work(desks):
    """A movie of volumes is segmented at the plane on screen; started again at another one, that one is."""
    frames = scene.movie()
    values = np.stack([frames, frames[:, ::-1]], axis=1)
    values = np.concatenate([values, values, values], axis=1)
    image = Image(values, name="movie", axis_labels=("t", "z", "y", "x"))
    viewer = ViewerModel()
    viewer.add_layer(image)
    viewer.dims.set_point(1, 1)
    desk = desks(image, viewer)
    desk.go_to(3)
    turned = scene.line(3)
    turned[:, 0] = scene.HEIGHT - 1 - turned[:, 0]
    scene.draw(desk, turned)
    desk.wait()
    assert scene.overlap(desk.session.labels[3] == 1, scene.square(3)[::-1]) > 0.8
    viewer.dims.set_point(1, 4)
    desk.start(image, path=None)
    desk.wait()
    assert dict(desk.binding.layout.held) == {1: 4}
    work(desk)
    segmented(desk)


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
def test_of_several_resolutions_the_full_one_is_segmented(desks, tmp_path, kind):
    """A multiscale layer, as pyramids are opened, is segmented at full resolution with the result in its place."""
    frames = scene.movie()
    levels = [frames, frames[:, ::2, ::2], frames[:, ::4, ::4]]
    if kind != "numpy":
        levels = [stored(kind, level, tmp_path / str(k)) for k, level in enumerate(levels)]
    image = Image(levels, multiscale=True, name="movie", scale=(1, 0.5, 0.5), contrast_limits=(0, 255))
    desk = desks(image)
    assert desk.session.shape == frames.shape
    work(desk)
    segmented(desk)


def pyramid(path: Path, values: np.ndarray, axes: str) -> Path:
    """An OME-Zarr image of two resolutions."""
    import zarr

    group = zarr.open_group(path, mode="w")
    datasets = []
    for k, level in enumerate([values, values[..., ::2, ::2]]):
        chunks = (1,) * (level.ndim - 2) + level.shape[-2:]
        array = group.create_array(str(k), shape=level.shape, chunks=chunks, dtype=level.dtype)
        array[...] = level
        scale = [1.0] * (level.ndim - 2) + [2.0**k] * 2
        datasets.append({"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    named = [{"name": a.lower(), "type": {"T": "time", "C": "channel"}.get(a, "space")} for a in axes]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": named, "datasets": datasets}]}
    return path


@pytest.mark.parametrize("axes", ["TYX", "TCYX", "TCZYX"])
def test_an_ome_zarr_opened_by_its_path_is_gone_on_with(desks, tmp_path, axes):
    """Opened by its path, worked on and opened again from its project, an OME-Zarr is found where it lies."""
    view = {"TYX": (), "TCYX": (2,), "TCZYX": (2, 1)}[axes]
    frames = scene.movie()
    values = np.broadcast_to(
        frames.reshape(len(frames), *(1,) * len(view), *frames.shape[1:]), (len(frames), *view, *frames.shape[1:])
    ).copy()
    path = pyramid(tmp_path / "movie.ome.zarr", values, axes)
    viewer = ViewerModel()
    _initialize_plugins()
    (image,) = viewer.open(str(path), plugin="napari")
    assert image.multiscale
    desk = desks(image, viewer, path="auto")
    assert desk.session.stack.source == path
    work(desk)
    assert desk.session.path == tmp_path / "movie.ivos"
    segmented(desk)
    masks = np.asarray(desk.session.labels)
    desk.close()
    again = Desk(ViewerModel())
    again.use_model(FakePredictor())
    again.open_project(tmp_path / "movie.ivos")
    again.wait()
    np.testing.assert_array_equal(np.asarray(again.session.labels), masks)
    again.go_to(6)
    shown = again.binding.image
    assert np.asarray(shown.data[6]).max() == scene.OBJECT
    again.close()


class Counted:
    """An array of many frames that counts which were read; the scene over and over."""

    def __init__(self, frames: int) -> None:
        self.shape = (frames, scene.HEIGHT, scene.WIDTH)
        self.ndim = 3
        self.dtype = np.dtype(np.uint8)
        self.movie = scene.movie()
        self.read: set[int] = set()

    def __getitem__(self, key):
        key = key if isinstance(key, tuple) else (key,)
        frames = np.arange(self.shape[0])[key[0]]
        self.read |= {int(f) for f in np.ravel(frames)}
        picked = self.movie[np.asarray(frames) % scene.FRAMES]
        rest = (slice(None),) * (np.ndim(frames) > 0) + key[1:]
        return picked[rest] if rest else picked


def test_of_a_long_stack_only_what_is_needed_is_read(desks):
    """Beginning, drawing and propagating over ten frames reads less than a hundredth of 100,000 frames."""
    frames = Counted(100_000)
    desk = desks(Image(frames, name="long", contrast_limits=(0, 255)))
    desk.go_to(50_000)
    scene.draw(desk, scene.line(0))
    desk.wait()
    desk.propagate("forward", start=50_000, stop=50_008)
    desk.wait()
    assert all(scene.overlap(desk.session.labels[50_000 + t] == 1, scene.square(t)) > 0.7 for t in range(8))
    assert len(frames.read) < 1000
