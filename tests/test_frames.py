"""One law for all sources, axes, contrast, reading ahead and faults of arrays; files and videos are tested apart."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_ivos.errors import FrameReadError, InputError, OutOfMemory
from napari_ivos.frames import FrameStack, ahead, blocks, open_frames
from napari_ivos.frames import contrast as contrasts
from napari_ivos.frames.axes import check_axes, guess_axes, lay_out, letters_of_names
from napari_ivos.frames.blocks import ByteCache
from napari_ivos.regions import Box
from napari_ivos.session.stacks import doubts_that_end
from napari_ivos.steps import DOUBTS_GREY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T, H, W = 7, 40, 56
BOXES = [None, Box(0, 0, 40, 56), Box(3, 5, 30, 49), Box(31, 33, 33, 34), Box(39, 55, 40, 56)]
PATIENCE = 30
"""Seconds after which a test that waits for another thread gives up."""


@pytest.fixture(scope="module")
def movie() -> np.ndarray[Any, Any]:
    """A (7, 40, 56) uint16 movie of random values."""
    return np.random.default_rng(0).integers(200, 5000, (T, H, W), dtype=np.uint16)


@pytest.fixture(autouse=True)
def cells_as_small_as_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks stay apart, so that regions here are put together from several."""
    monkeypatch.setattr(blocks, "CELL", 1)


class Duck:
    """An array that only knows shape, dtype and basic indexing, and writes down what is asked of it."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.asked: list[Any] = []

    def __getitem__(self, key: Any) -> np.ndarray[Any, Any]:
        self.asked.append(key)
        return np.asarray(self.values[key])

    @property
    def values_read(self) -> int:
        return sum(self.values[key].size for key in self.asked)


def _dask(movie: Any, path: Path) -> Any:
    import dask.array as da

    return da.from_array(movie, chunks=(3, (16, 24), 20))


def _zarr(version: int, **options: Any) -> Callable[[Any, Path], Any]:
    def make(movie: Any, path: Path) -> Any:
        import zarr

        array = zarr.create_array(path / "a.zarr", shape=movie.shape, dtype=movie.dtype, zarr_format=version, **options)
        array[:] = movie
        return array

    return make


def _zarr_folder(movie: Any, path: Path) -> Any:
    _zarr(3, chunks=(1, 16, 16), dimension_names=["z", "y", "x"])(movie, path)
    return path / "a.zarr"


def _ome_zarr(version: str) -> Callable[[Any, Path], Any]:
    def make(movie: Any, path: Path) -> Any:
        import zarr

        group = zarr.open_group(path / "o.zarr", mode="w", zarr_format=2 if version == "0.4" else 3)
        for level, values in enumerate((movie, movie[:, ::2, ::2])):
            array = group.create_array(
                str(level), shape=(T, 1, *values.shape[1:]), chunks=(1, 1, 16, 16), dtype=movie.dtype
            )
            array[:, 0] = values
        image = {
            "axes": [{"name": name, "type": "space"} for name in "tcyx"],
            "datasets": [{"path": "0"}, {"path": "1"}],
            "version": version,
        }
        group.attrs.update({"multiscales": [image]} if version == "0.4" else {"ome": {"multiscales": [image]}})
        return path / "o.zarr"

    return make


def _xarray(movie: Any, path: Path) -> Any:
    import xarray

    return xarray.DataArray(movie.transpose(1, 2, 0), dims=("row", "column", "time"), name="movie")


def _tiff(**options: Any) -> Callable[[Any, Path], Any]:
    def make(movie: Any, path: Path) -> Any:
        import tifffile

        tifffile.imwrite(path / "a.tif", movie, **{"photometric": "minisblack", **options})
        return str(path / "a.tif")

    return make


def _folder(movie: Any, path: Path) -> Any:
    from PIL import Image

    for i, frame in enumerate(movie):
        Image.fromarray(frame).save(path / f"frame{i + 7}.png")  # 7 ... 13: not in alphabetical order
    return path


def _npy(movie: Any, path: Path) -> Any:
    np.save(path / "a.npy", movie)
    return path / "a.npy"


SOURCES: dict[str, Callable[[Any, Path], Any]] = {
    "numpy": lambda movie, path: movie,
    "numpy big-endian": lambda movie, path: movie.astype(">u2"),
    "duck": lambda movie, path: Duck(movie),
    "dask": _dask,
    "zarr 2": _zarr(2, chunks=(2, 16, 16)),
    "zarr 3": _zarr(3, chunks=(1, 16, 20)),
    "zarr shards": _zarr(3, chunks=(1, 8, 8), shards=(2, 40, 56)),
    "zarr folder": _zarr_folder,
    "OME-Zarr 0.4": _ome_zarr("0.4"),
    "OME-Zarr 0.5": _ome_zarr("0.5"),
    "xarray": _xarray,
    "TIFF plain": _tiff(),
    "TIFF big-endian": _tiff(byteorder=">"),
    "TIFF deflate": _tiff(compression="zlib"),
    "TIFF strips": _tiff(compression="zlib", rowsperstrip=7),
    "TIFF tiles": _tiff(tile=(16, 32)),
    "ImageJ": _tiff(imagej=True, metadata={"axes": "TYX"}, photometric=None),
    "OME-TIFF": _tiff(ome=True, metadata={"axes": "ZYX"}, compression="zlib"),
    "folder of PNG": _folder,
    "npy": _npy,
}
HASHED_AS_FILES = ("folder of PNG",)


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, movie: Any, tmp_path: Path) -> tuple[str, Any]:
    return request.param, SOURCES[request.param](movie, tmp_path)


def test_every_source_reads_the_same_regions(source: tuple[str, Any], movie: Any) -> None:
    """Whatever holds a movie, shape, values and what the networks see are the same, and nearly so the contrast."""
    with open_frames(source[1]) as stack:
        assert stack.shape == (T, H, W)
        assert stack.dtype == np.uint16
        assert np.allclose(stack.contrast, np.percentile(movie, contrasts.PERCENTILES), atol=10)
        ((low, high),) = stack.contrast
        for frame in (0, 3, 6, 5):
            for box in BOXES:
                part = movie[frame] if box is None else movie[frame][box.slices]
                assert np.array_equal(stack.raw(frame, box), part)
                seen = stack.read(frame, box)
                assert seen.shape == (*part.shape, 3)
                assert seen.dtype == np.float32
                expected = np.clip((part.astype(float) - low) / (high - low), 0, 1)
                assert np.abs(seen - expected[..., None]).max() < 1e-6


def test_every_source_has_the_same_fingerprint(source: tuple[str, Any], movie: Any) -> None:
    """The fingerprint tells what is in a stack, not how it is stored, except where files are hashed as they are."""
    name, handed = source
    with open_frames(handed) as stack, open_frames(handed) as again, open_frames(movie) as array:
        assert stack.fingerprint() == again.fingerprint()
        assert (stack.fingerprint() == array.fingerprint()) == (name not in HASHED_AS_FILES)


def test_every_source_opens_again_as_described(source: tuple[str, Any]) -> None:
    """What `describe` says goes through JSON and opens the same stack again, contrast included."""
    _, handed = source
    with open_frames(handed, contrast=(100, 2000)) as stack:
        told = json.loads(json.dumps(stack.describe()))
        with open_frames(stack.source or handed, **told["open"]) as again:
            assert again.contrast == stack.contrast == ((100.0, 2000.0),)
            assert np.array_equal(again.read(4), stack.read(4))
            assert again.fingerprint() == stack.fingerprint()


def test_every_source_can_be_read_from_many_threads(source: tuple[str, Any], movie: Any) -> None:
    """Eight threads that read and read ahead at once all get the right regions."""
    failures: list[str] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(12):
            frame, y, x = int(rng.integers(T)), int(rng.integers(H - 8)), int(rng.integers(W - 8))
            box = Box(y, x, y + 8, x + 8)
            stack.prefetch((frame + 1) % T, box)
            if not np.array_equal(stack.raw(frame, box), movie[frame][box.slices]):
                failures.append(f"{frame} {box}")
            if abs(float(stack.read(frame, box).max()) - float(stack.read(frame)[box.slices].max())) > 0:
                failures.append(f"read {frame} {box}")

    with open_frames(source[1]) as stack:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert failures == []


# -- axes


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((50, 60), "YX"),
        ((48, 50, 60), "TYX"),
        ((3, 50, 60), "TYX"),
        ((50, 60, 3), "YXC"),
        ((50, 60, 4), "YXC"),
        ((7, 4, 4), "TYX"),
        ((48, 50, 60, 3), "TYXC"),
        ((48, 1, 50, 60), "TAYX"),
        ((1, 48, 50, 60), "ATYX"),
        ((1, 1, 50, 60), "TAYX"),
        ((1, 50, 60, 3), "TYXC"),
        ((48, 2, 50, 60), None),
        ((5, 4, 50, 60, 3), None),
        ((60,), None),
    ],
)
def test_axes_are_guessed_only_where_they_are_safe(shape: tuple[int, ...], axes: str | None) -> None:
    """An array without names is a picture, frames of pictures, or one of these in colour; else nothing is guessed."""
    assert guess_axes(shape) == axes


@pytest.mark.parametrize(
    ("names", "letters"),
    [
        (("time", "z", "y", "x"), "TZYX"),
        (("band", "lat", "lon"), "CYX"),
        (("position", "t", "y", "x"), "PTYX"),
        (("y", "x", "rgb"), "YXS"),
        (("dim_0", "dim_1", "dim_2"), None),
        (("t", "time", "y", "x"), None),
    ],
)
def test_names_of_axes_become_letters(names: tuple[str, ...], letters: str | None) -> None:
    """The usual names of axes are understood; others get a letter as long as rows and columns are known."""
    assert letters_of_names(names) == letters


@pytest.mark.parametrize(
    ("axes", "shape", "frame_axis", "expected"),
    [
        ("TYX", (9, 5, 6), None, "T"),
        ("ZYX", (9, 5, 6), None, "Z"),
        ("TZYX", (1, 9, 5, 6), None, "Z"),
        ("TZYX", (9, 4, 5, 6), None, "T"),
        ("TZYX", (9, 4, 5, 6), "z", "Z"),
        ("CYX", (9, 5, 6), None, None),
        ("CYX", (9, 5, 6), "C", "C"),
        ("YXT", (5, 6, 9), None, "T"),
        ("TYX", (1, 5, 6), None, "T"),
    ],
)
def test_frames_lie_along_time_or_else_depth(
    axes: str, shape: tuple[int, ...], frame_axis: str | None, expected: str | None
) -> None:
    """T is the frame axis if it has several entries, else Z, unless another is asked for."""
    layout, _ = lay_out(axes, shape, "array", frame_axis=frame_axis)
    assert (None if layout.frame is None else axes[layout.frame]) == expected


@pytest.mark.parametrize("order", ["TZCYX", "CZYXT", "XYTCZ", "ZTYXC", "YXCTZ"])
def test_any_order_of_axes_gives_the_same_frames(order: str) -> None:
    """Five axes in any order: frames along T, Z held at an index, chosen channels in the chosen order."""
    values = np.random.default_rng(1).integers(0, 4000, (4, 3, 5, 20, 30), dtype=np.uint16)
    turned = np.ascontiguousarray(values.transpose(["TZCYX".index(letter) for letter in order]))
    with open_frames(turned, axes=order.lower(), channels=(4, 0), index={"z": 2}, contrast=(0, 4000)) as stack:
        assert stack.shape == (4, 20, 30)
        box = Box(2, 3, 18, 25)
        seen = stack.read(3, box)
        assert np.allclose(seen[..., 0] * 4000, values[3, 2, 4][box.slices], atol=0.01)
        assert np.allclose(seen[..., 1] * 4000, values[3, 2, 0][box.slices], atol=0.01)
        assert (seen[..., 2] == 0).all()
        assert np.array_equal(stack.raw(3, box), np.moveaxis(values[3, 2][:, *box.slices], 0, -1))


def test_further_axes_are_held_at_zero_with_a_note() -> None:
    """An axis that is neither frame nor picture nor channel is held at 0, and the notes say how to choose."""
    with open_frames(np.zeros((4, 3, 20, 30)), axes="TZYX") as stack:
        assert any("axis Z has 3 entries" in note and 'index={"Z"' in note for note in stack.notes)
        assert stack.describe()["open"]["index"] == {"Z": 0}


@pytest.mark.parametrize(
    ("count", "channels", "shown"),
    [(1, None, (0,)), (2, None, (0, 1)), (3, None, (0, 1, 2)), (6, None, (0, 1, 2)), (6, (5,), (5,))],
)
def test_channels_become_three_planes(count: int, channels: tuple[int, ...] | None, shown: tuple[int, ...]) -> None:
    """One channel is grey, two are red and green, three RGB, of more the first three with a note, or as chosen."""
    values = np.random.default_rng(2).integers(0, 1000, (2, count, 20, 30), dtype=np.uint16)
    with open_frames(values, axes="TCYX", channels=channels, contrast=(0, 1000)) as stack:
        assert stack.channels == shown
        seen = stack.read(1)
        for plane in range(3):
            at = 0 if len(shown) == 1 else plane
            expected = values[1, shown[at]] / 1000 if at < len(shown) else np.zeros((20, 30))
            assert np.abs(seen[..., plane] - expected).max() < 1e-6
        assert any("first three" in note for note in stack.notes) == (count > 3 and channels is None)


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((4, 2, 20, 30), {}, ["(4, 2, 20, 30)", 'axes="TCYX"']),
        ((4, 9, 20, 30), {}, ['axes="TZYX"']),
        ((2, 2, 2, 2, 20, 30), {}, ["6 axes", "axes="]),
        ((30,), {}, ["(30,)", 'axes="YX"']),
        ((4, 20, 30), {"axes": "YX"}, ["2 letters for 3 axes"]),
        ((4, 20, 30), {"axes": "TTX"}, ["a letter of its own"]),
        ((4, 20, 30), {"axes": "TQX"}, ["rows (Y)"]),
        ((4, 20, 30), {"axes": "T?X"}, ["a letter of its own"]),
        ((4, 20, 30), {"frame_axis": "Z"}, ["frame_axis='Z'", "TYX"]),
        ((4, 20, 30), {"frame_axis": "Y"}, ["frame_axis='Y'"]),
        ((4, 20, 30), {"index": {"Z": 1}}, ["index names Z", "none"]),
        ((4, 20, 30), {"index": {"T": 1}}, ["index names T"]),
        ((4, 3, 20, 30), {"axes": "TZYX", "index": {"Z": 3}}, ["Z=3", "0 to 2"]),
        ((4, 3, 20, 30), {"axes": "TCYX", "channels": (3,)}, ["channels=(3,)", "3 channels"]),
        ((4, 3, 20, 30), {"axes": "TCYX", "channels": ()}, ["one, two or three"]),
        ((4, 20, 30), {"channels": (1,)}, ["1 channel "]),
        ((4, 20, 30), {"contrast": (5, 5)}, ["low below high"]),
        ((4, 20, 30), {"contrast": (0, np.nan)}, ["finite"]),
        ((4, 20, 30), {"contrast": "auto"}, ["'auto'"]),
        ((4, 20, 30), {"contrast": [(0, 1), (0, 1)]}, ["(2, 2)"]),
    ],
)
def test_options_that_do_not_fit_are_refused(shape: tuple[int, ...], options: dict[str, Any], words: list[str]) -> None:
    """Axes, indices, channels and contrast that don't fit raise InputError that says what was found and what fits."""
    with pytest.raises(InputError) as caught:
        open_frames(np.zeros(shape, np.uint8), **options)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((0, 20, 30)), "(0, 20, 30)"),
        (np.zeros((4, 20, 0)), "empty"),
        (np.float64(3.0), "empty"),
        (np.zeros((4, 20, 30), np.complex64), "abs(array)"),
        (np.zeros((4, 20, 30), "M8[s]"), "datetime64"),
        (np.array([["a", "b"]]), "dtype"),
        ([np.zeros((20, 30))] * 4, "numpy.stack"),
        (None, "NoneType"),
        (12, "int"),
    ],
    ids=["no frames", "no columns", "a number", "complex", "times", "text", "a list", "None", "int"],
)
def test_arrays_without_pixels_or_numbers_are_refused(array: Any, words: str) -> None:
    """An empty array, values that are no real numbers, and things that are no arrays raise InputError."""
    with pytest.raises(InputError) as caught:
        open_frames(array)
    assert words in str(caught.value)


def test_dask_with_unknown_lengths_is_refused() -> None:
    """A dask array whose shape isn't known says to compute its chunk sizes."""
    import dask.array as da

    lazy = da.from_array(np.arange(6000.0).reshape(10, 20, 30), chunks=5)
    with pytest.raises(InputError, match="compute_chunk_sizes"):
        open_frames(lazy[lazy[:, 0, 0] > 3])


def test_a_zarr_group_names_its_arrays() -> None:
    """A zarr group with several arrays says which there are; with one, that is read."""
    import zarr

    group = zarr.group()
    group.create_array("raw", shape=(4, 20, 30), dtype="u1")
    with open_frames(group) as stack:
        assert stack.shape == (4, 20, 30)
        assert "raw" in stack.notes[0]
    group.create_array("other", shape=(4, 20, 30), dtype="u1")
    with pytest.raises(InputError, match="raw"):
        open_frames(group)


def test_lengths_in_an_axes_error_show_an_example_that_works() -> None:
    """The example in the message about unknown axes opens the array it was given for."""
    array = np.zeros((4, 2, 20, 30), np.uint8)
    with pytest.raises(InputError) as caught:
        open_frames(array)
    axes = str(caught.value).split('axes="')[1].split('"')[0]
    assert check_axes(axes, array.shape, "array") == axes
    assert open_frames(array, axes=axes).shape == (4, 20, 30)


# -- contrast


@pytest.mark.parametrize(
    "dtype", ["bool", "u1", "i1", "u2", ">u2", "i2", ">i4", "u4", "i8", "u8", "f2", "f4", ">f4", "f8", "longdouble"]
)
def test_any_real_dtype_spans_black_to_white(dtype: str) -> None:
    """Grey values of any integer, float or boolean dtype come out between 0 and 1, in their order."""
    span = {"b": (0, 1), "u": (0, 100), "i": (-100, 100), "f": (-100, 100)}[np.dtype(dtype).kind]
    ramp = np.linspace(*span, 60).round().astype(dtype)
    with open_frames(np.broadcast_to(ramp, (3, 40, 60)).copy()) as stack:
        row = stack.read(1)[0, :, 0]
    assert row.dtype == np.float32
    assert row[0] == 0
    assert row[-1] == 1
    assert (np.diff(row) >= 0).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_bytes_are_seen_as_the_same_numbers_of_a_wider_type(channels: int) -> None:
    """Unsigned bytes, which are looked up in a table, come out to the last bit as 16-bit values do; so do slices."""
    values = np.random.default_rng(5).integers(0, 256, (40, 50, 2 * channels), dtype=np.uint8)[::2, 3:, ::2]
    ranges = [(3.5 * k, 90.0 + 40 * k) for k in range(channels)]
    shown = contrasts.apply(values, ranges)
    assert shown.dtype == np.float32
    assert np.array_equal(shown, contrasts.apply(values.astype(np.uint16), ranges))


def test_large_integers_keep_their_differences() -> None:
    """64-bit values far from zero don't lose their differences to float32."""
    values = np.int64(10**12) + np.arange(1200, dtype=np.int64).reshape(1, 30, 40)
    with open_frames(values, contrast=(10**12, 10**12 + 1199)) as stack:
        assert np.abs(stack.read(0)[..., 0] - np.arange(1200).reshape(30, 40) / 1199).max() < 1e-6


def test_eight_bit_colours_are_shown_as_they_are() -> None:
    """uint8 RGB goes from 0..255 to 0..1 unchanged, alpha dropped; uint8 channels that are no colours are stretched."""
    values = np.random.default_rng(3).integers(60, 90, (3, 20, 30, 4), dtype=np.uint8)
    with open_frames(values) as stack:
        assert stack.contrast == ((0.0, 255.0),) * 3
        assert np.array_equal(stack.read(2), values[2, ..., :3].astype(np.float32) / 255)
    with open_frames(np.moveaxis(values, 3, 1).copy(), axes="TCYX") as stack:
        assert stack.contrast[0] != (0.0, 255.0)


@pytest.mark.parametrize("channels", [(0, 1, 2), (2, 0, 1)])
def test_the_channels_of_a_pixel_lie_side_by_side(channels: tuple[int, ...]) -> None:
    """What is read of a colour frame is contiguous, so that nothing has to copy it to walk across."""
    values = np.random.default_rng(3).integers(0, 255, (2, 20, 30, 3), dtype=np.uint8)
    with open_frames(values, axes="TYXC", channels=channels) as stack:
        assert stack.read(1, Box(2, 3, 15, 25)).flags.c_contiguous


def test_grey_pictures_stored_in_colours_are_seen_as_grey_ones() -> None:
    """A grey stack repeated to RGB, with a codec's rounding and a black first frame, is read as the grey one is."""
    draw = np.random.default_rng(5)
    grey = draw.integers(60, 90, (4, 40, 50), dtype=np.uint8)
    grey[0] = 0
    stored = np.repeat(grey[..., None], 3, axis=3)
    with open_frames(grey) as one, open_frames(stored) as three:
        assert (one.colourless, three.colourless) == (True, True)
        assert three.contrast == one.contrast * 3
        assert np.array_equal(one.read(2), three.read(2))
        assert doubts_that_end(three) == doubts_that_end(one) == DOUBTS_GREY
    rounded = np.repeat(draw.integers(0, 250, (4, 40, 50, 1), dtype=np.uint8), 3, axis=3)
    rounded[..., 0] += draw.integers(0, 3, rounded.shape[:3], dtype=np.uint8)
    with open_frames(rounded) as stack:
        assert stack.colourless


def test_a_little_colour_on_one_frame_makes_a_colour_stack() -> None:
    """Grey frames with one red spot on the last are in colour: shown as they are, and no object ends by doubt."""
    stored = np.repeat(np.random.default_rng(6).integers(60, 90, (4, 40, 50, 1), dtype=np.uint8), 3, axis=3)
    stored[3, :8, :8, 0] = 200
    with open_frames(stored) as stack:
        assert not stack.colourless
        assert stack.contrast == ((0.0, 255.0),) * 3
        assert doubts_that_end(stack) == 0
    with open_frames(np.zeros((2, 40, 50, 3), np.uint8)) as nothing:
        assert not nothing.colourless, "where nothing shows, nothing is known"


def test_hot_pixels_do_not_set_the_contrast() -> None:
    """A few values far out change neither black nor white by more than the noise."""
    values = np.random.default_rng(4).normal(1000, 50, (10, 100, 100)).astype(np.uint16)
    with open_frames(values) as clean:
        before = clean.contrast[0]
    values[:, ::50, ::50] = 65535
    values[:, 1::50, 1::50] = 0
    with open_frames(values) as dirty:
        after = dirty.contrast[0]
    assert abs(after[0] - before[0]) < 10
    assert abs(after[1] - before[1]) < 10


def test_rare_objects_on_an_even_background_set_the_contrast() -> None:
    """Where nearly all values are the same, the others decide."""
    values = np.zeros((4, 200, 200), np.uint16)
    values[:, 100:103, 100:103] = np.arange(500, 509).reshape(3, 3)
    with open_frames(values) as stack:
        low, high = stack.contrast[0]
    assert low == 0
    assert 500 < high <= 508


@pytest.mark.parametrize("value", [0, 7, -3.5, 1e30])
def test_a_constant_stack_is_black_and_says_so(value: float) -> None:
    """A constant stack reads as 0, its contrast is finite and a note names the value."""
    with open_frames(np.full((3, 20, 30), value, np.float32)) as stack:
        low, high = stack.contrast[0]
        assert low < high < np.inf
        assert not stack.contrast_known
        assert (stack.read(0) == 0).all()
        assert any("all sampled values are" in note for note in stack.notes)
        assert stack.describe()["contrast"] is None


def test_the_first_region_that_differs_sets_the_contrast_of_an_empty_sample() -> None:
    """Where the sample saw an even background only, the first region read that has more sets the contrast, once."""
    import zarr

    lazy = zarr.create_array(zarr.storage.MemoryStore(), shape=(40, 3840, 3840), chunks=(1, 64, 64), dtype="u2")
    lazy[0, 17 * 64 : 18 * 64, 23 * 64 : 24 * 64] = np.arange(4096).reshape(64, 64)
    lazy[30, 17 * 64 : 18 * 64, 23 * 64 : 24 * 64] = 60_000
    with open_frames(lazy) as stack:
        assert not stack.contrast_known
        assert (stack.read(0, Box(0, 0, 64, 64)) == 0).all()
        assert stack.read(0, Box(17 * 64, 23 * 64, 18 * 64, 24 * 64)).max() == 1
        assert stack.contrast_known
        before = stack.contrast
        stack.read(30, Box(17 * 64 - 9, 23 * 64, 18 * 64, 24 * 64))
        assert stack.contrast == before


def test_nan_that_the_sample_missed_is_told_when_it_is_read() -> None:
    """The first frame read that holds NaN is named once; where the sample had some, that note is enough."""
    values = np.random.default_rng(5).uniform(0, 10, (200, 20, 30)).astype(np.float32)
    values[[37, 38]] = np.nan
    with open_frames(values) as stack:
        assert stack.contrast_known
        assert stack.notes == []
        for frame in (36, 37, 38):
            stack.read(frame)
        assert stack.notes == ["frame 37 holds values that are NaN or infinite; NaN is shown as 0."]
    values[0] = np.nan
    with open_frames(values) as stack:
        stack.read(37)
        assert [note for note in stack.notes if "frame 37" in note] == []


def test_nan_and_infinite_values_are_counted_and_shown() -> None:
    """NaN reads as 0, +inf as 1, -inf as 0; none of them sets the contrast, and a note says that they are there."""
    values = np.random.default_rng(5).uniform(0, 10, (3, 20, 30)).astype(np.float32)
    values[1, 2, 3], values[1, 4, 5], values[1, 6, 7] = np.nan, np.inf, -np.inf
    values[2] = np.nan
    with open_frames(values) as stack:
        low, high = stack.contrast[0]
        assert 0 <= low < high <= 10
        seen = stack.read(1)[..., 0]
        assert (seen[2, 3], seen[4, 5], seen[6, 7]) == (0, 1, 0)
        assert (stack.read(2) == 0).all()
        assert any("NaN" in note for note in stack.notes)
    with open_frames(np.full((2, 20, 30), np.nan)) as stack:
        assert (stack.read(0) == 0).all()
        assert any("finite" in note for note in stack.notes)


def test_the_extremes_of_a_type_do_not_overflow() -> None:
    """The largest and smallest floats and integers come out as 1 and 0 without a warning."""
    for dtype in (np.float16, np.float32, np.float64, np.int64, np.uint64):
        info = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
        values = np.zeros((1, 20, 30), dtype)
        values[0, :10], values[0, 10:] = info.min, info.max
        with open_frames(values) as stack:
            seen = stack.read(0)
            assert (seen[10:] >= seen[:10]).all()
            assert np.isfinite(seen).all()


def test_contrast_can_be_set_and_measured_again() -> None:
    """Setting the contrast changes what is read at once; None measures again."""
    values = np.random.default_rng(6).integers(0, 1000, (3, 20, 30), dtype=np.uint16)
    with open_frames(values) as stack:
        measured = stack.contrast
        stack.contrast = (0, 500)
        assert stack.contrast == ((0.0, 500.0),)
        assert np.array_equal(stack.read(0)[..., 0], np.clip(values[0].astype(np.float32) / 500, 0, 1))
        stack.contrast = None
        assert stack.contrast == measured


def test_contrast_is_measured_on_few_chunks_far_apart() -> None:
    """Of a large stack at most 64 chunks are read, over many frames and both halves of the picture."""
    duck = Duck(np.random.default_rng(7).integers(0, 1000, (100, 1024, 1024), dtype=np.uint16))
    with open_frames(duck) as stack:
        assert stack.contrast_known
        chunks = list(duck.asked)
    assert len(chunks) <= contrasts.CHUNKS_AT_MOST
    assert len({at for at, _, _ in chunks}) >= 16
    assert len({(rows.start // 512, columns.start // 512) for _, rows, columns in chunks}) == 4


# -- reading


def test_only_the_region_asked_for_is_read(movie: Any) -> None:
    """Reading a region asks the source for that region of that frame and channel, nothing else."""
    duck = Duck(np.stack([movie, movie, movie, movie], axis=1))
    with open_frames(duck, axes="TCYX", channels=(1,), contrast=(0, 5000)) as stack:
        stack.read(2, Box(3, 4, 13, 24))
        assert duck.values_read == 10 * 20
        with open_frames(stack, channels=(0, 3), contrast=(0, 5000)) as two:
            two.read(2, Box(3, 4, 13, 24))
        assert duck.values_read == 10 * 20 * (1 + 2)


def test_opening_reads_nothing(movie: Any) -> None:
    """Opening a lazy array reads no value of it."""
    duck = Duck(movie)
    with open_frames(duck) as stack:
        assert stack.shape == movie.shape
        assert stack.describe()["contrast"] is None
    assert duck.asked == []


def test_chunks_are_read_once_for_all_regions_in_them(tmp_path: Path, movie: Any) -> None:
    """Regions of one chunk, and frames that share a chunk, cost one reading of that chunk."""
    import zarr

    array = zarr.create_array(tmp_path / "a.zarr", shape=movie.shape, dtype=movie.dtype, chunks=(4, 20, 28))
    array[:] = movie
    with open_frames(array, contrast=(0, 5000)) as stack:
        fetch, asked = stack.origin.fetch, []
        stack._blocks._fetch = lambda at: (asked.append(at), fetch(at))[1]  # type: ignore[union-attr,assignment]
        for frame in range(4):
            for box in (Box(0, 0, 9, 9), Box(5, 5, 19, 27)):
                stack.read(frame, box)
        assert len(asked) == 1
        stack.read(1, Box(5, 5, 30, 40))
        assert len(asked) == 4


def test_a_region_larger_than_the_store_is_read_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, movie: Any
) -> None:
    """Regions whose chunks would not fit the store are read as one, with the same values."""
    monkeypatch.setattr(blocks, "REGION_BYTES", 1000)
    with open_frames(_zarr(3, chunks=(2, 16, 16))(movie, tmp_path)) as stack:
        assert np.array_equal(stack.raw(3, Box(1, 2, 39, 50)), movie[3, 1:39, 2:50])


def test_small_chunks_are_read_together() -> None:
    """Chunks smaller than a cell are joined, larger ones stay; the last cell is what is left."""
    assert blocks.merged_edges(np.array([0, 50, 100, 150, 200, 230]), 128).tolist() == [0, 150, 230]
    assert blocks.merged_edges(np.array([0, 512, 1024, 1030]), 128).tolist() == [0, 512, 1024, 1030]
    assert blocks.merged_edges(np.array([0, 7]), 128).tolist() == [0, 7]


def test_the_store_of_chunks_is_bounded() -> None:
    """A store never holds more bytes than its capacity, drops the least recently used, and refuses what can't fit."""
    store = ByteCache(1000)
    for i in range(50):
        store.put(i, np.zeros(200, np.uint8))
        store.get(0)
    assert store.get(0) is not None
    assert [i for i in range(50) if store.get(i) is not None] == [0, 46, 47, 48, 49]
    store.put("large", np.zeros(1001, np.uint8))
    assert store.get("large") is None


@pytest.mark.parametrize("frame", [-1, 7, 10**9])
def test_a_missing_frame_is_refused(movie: Any, frame: int) -> None:
    """A frame that isn't there raises InputError with the frames that are."""
    with open_frames(movie) as stack, pytest.raises(InputError, match="frames 0 to 6"):
        stack.read(frame)


@pytest.mark.parametrize("box", [Box(5, 5, 5, 9), Box(-1, 0, 5, 5), Box(0, 0, 41, 5), Box(9, 9, 3, 12)])
def test_a_box_outside_the_picture_is_refused(movie: Any, box: Box) -> None:
    """An empty box, or one that reaches out of the picture, raises InputError: the result would not fit the box."""
    with open_frames(movie) as stack, pytest.raises(InputError, match="40 rows and 56 columns"):
        stack.read(0, box)


def test_a_frame_that_fails_is_named(movie: Any) -> None:
    """Any failure while reading becomes a FrameReadError with number and cause; other frames still read."""

    class Broken(Duck):
        def __getitem__(self, key: Any) -> Any:
            if key[0] == 3:
                raise OSError("the disk has gone")
            return super().__getitem__(key)

    with open_frames(Broken(movie)) as stack:
        with pytest.raises(FrameReadError, match=r"Frame 3 of array.*the disk has gone") as caught:
            stack.read(3)
        assert caught.value.frame == 3
        assert stack.read(4).shape == (H, W, 3)
        assert any("left out of the contrast: Frame 3" in note for note in stack.notes)
        assert len(stack.fingerprint()) == 32


def test_a_stack_none_of_whose_frames_can_be_read_says_so_at_each(movie: Any) -> None:
    """With nothing readable the contrast stays open and every read raises FrameReadError."""

    class Broken(Duck):
        def __getitem__(self, key: Any) -> Any:
            raise OSError("gone")

    with open_frames(Broken(movie)) as stack:
        assert not stack.contrast_known
        with pytest.raises(FrameReadError, match="Frame 0"):
            stack.read(0)


def test_no_memory_for_a_frame_is_out_of_memory(movie: Any) -> None:
    """A MemoryError while reading becomes OutOfMemory, which is no fault of the file."""

    class Full(Duck):
        def __getitem__(self, key: Any) -> Any:
            raise MemoryError

    with open_frames(Full(movie), contrast=(0, 1)) as stack, pytest.raises(OutOfMemory, match="Frame 2"):
        stack.read(2)


# -- reading ahead


class Gate(Duck):
    """An array whose reads wait until they are let through."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        super().__init__(values)
        self.began, self.let = threading.Event(), threading.Event()

    def __getitem__(self, key: Any) -> Any:
        self.began.set()
        assert self.let.wait(PATIENCE)
        return super().__getitem__(key)


def test_reading_ahead_overlaps_and_serves_contained_regions(movie: Any) -> None:
    """`prefetch` returns while the read runs; later reads of that region or parts of it don't ask the source again."""
    gate = Gate(movie)
    with open_frames(gate, contrast=(0, 5000)) as stack:
        stack.prefetch(2, Box(5, 6, 30, 40))
        assert gate.began.wait(PATIENCE)
        assert gate.asked == []
        stack.prefetch(2, Box(6, 6, 9, 9))
        gate.let.set()
        for box in (Box(5, 6, 30, 40), Box(7, 8, 20, 21)):
            seen = stack.read(2, box)
            assert np.allclose(seen[..., 0] * 5000, movie[2][box.slices], atol=1e-2)
        assert len(gate.asked) == 1
        stack.read(2, Box(4, 6, 30, 40))
        stack.read(3, Box(5, 6, 30, 40))
        assert len(gate.asked) == 3


def test_reading_ahead_is_bounded(movie: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few regions are kept, by number and by bytes, and too large a region is not read ahead."""
    duck = Duck(movie)
    monkeypatch.setattr(ahead, "AHEAD", 5)
    with open_frames(duck, contrast=(0, 5000)) as stack:
        for frame in range(T):
            stack.prefetch(frame)
            stack.read(frame)
        assert len(stack._ahead._regions) == 5 < T
        monkeypatch.setattr(ahead, "AHEAD_BYTES", 2 * H * W * 2)
        stack.prefetch(0)
        assert len(stack._ahead._regions) == 2
        monkeypatch.setattr(ahead, "AHEAD_BYTES", 10)
        stack.prefetch(1, Box(0, 0, 20, 20))
        assert (1, Box(0, 0, 20, 20)) not in stack._ahead._regions


def test_an_error_while_reading_ahead_comes_up_at_the_read(movie: Any) -> None:
    """`prefetch` never raises for a frame that fails; the read does, and a second read tries again."""

    class Once(Duck):
        failed = False

        def __getitem__(self, key: Any) -> Any:
            if not self.failed:
                self.failed = True
                raise OSError("hiccup")
            return super().__getitem__(key)

    with open_frames(Once(movie), contrast=(0, 5000)) as stack:
        stack.prefetch(4)
        with pytest.raises(FrameReadError, match="hiccup"):
            stack.read(4)
        assert stack.read(4).shape == (H, W, 3)


def test_a_closed_stack_refuses_and_ends_its_thread(movie: Any) -> None:
    """After `close`, or without a reference, no thread is left; reading a closed stack is an InputError."""

    def threads() -> int:
        return sum(thread.name.startswith("ivos-frames") for thread in threading.enumerate())

    stack = open_frames(Duck(movie))
    stack.prefetch(1)
    stack.close()
    stack.close()
    assert threads() == 0
    for read in (stack.read, stack.raw, stack.prefetch):
        with pytest.raises(InputError, match="closed"):
            read(0)
    dropped = open_frames(Duck(movie))
    dropped.prefetch(1)
    dropped.read(1)
    worker = next(thread for thread in threading.enumerate() if thread.name.startswith("ivos-frames"))
    del dropped
    worker.join(PATIENCE)
    assert not worker.is_alive()


# -- the door


def test_a_stack_passes_through_or_is_seen_anew(movie: Any) -> None:
    """Without options a stack is returned itself; with options a second one shares its source and doesn't close it."""
    values = np.stack([movie, movie // 2], axis=1)
    with open_frames(values, axes="TCYX") as stack:
        assert open_frames(stack) is stack
        with open_frames(stack, channels=(1,)) as second:
            assert isinstance(second, FrameStack)
            assert np.array_equal(second.raw(1), stack.raw(1))
            assert second.channels == (1,)
            assert second.axes == "TCYX"
            assert second.fingerprint() != stack.fingerprint()
        assert stack.read(0).shape == (H, W, 3)


def test_a_second_view_keeps_what_is_not_asked_for() -> None:
    """Another index, channel or frame axis of a stack leaves its other options as they were."""
    values = np.random.default_rng(8).integers(0, 900, (4, 3, 2, 20, 30), dtype=np.uint16)
    with open_frames(values, axes="TZCYX", index={"Z": 2}, channels=(1,), contrast=(0, 900)) as stack:
        with open_frames(stack, index={"z": 1}) as second:
            assert np.array_equal(second.raw(3), np.moveaxis(values[3, 1], 0, -1))
            assert (second.channels, second.contrast) == ((1,), ((0.0, 900.0),))
        with open_frames(stack, frame_axis="Z") as second:
            assert second.shape == (3, 20, 30)
            assert np.array_equal(second.raw(1), np.moveaxis(values[0, 1], 0, -1))
        with open_frames(stack, axes="ZTCYX") as second:
            assert second.channels == (0, 1)
            assert second.shape == (3, 20, 30)


def test_a_single_picture_is_a_stack_of_one_frame() -> None:
    """A 2-D array is one frame."""
    with open_frames(np.arange(600, dtype=np.uint16).reshape(20, 30)) as stack:
        assert stack.shape == (1, 20, 30)
        assert len(stack) == 1
        assert stack.read(0).max() == 1


def test_a_different_stack_has_another_fingerprint(movie: Any) -> None:
    """Other values, another dtype, another shape: each changes the fingerprint; the contrast doesn't."""
    changed = movie.copy()
    changed[T - 1] += 1
    prints = [open_frames(each).fingerprint() for each in (movie, changed, movie.astype(np.uint32), movie[:-1])]
    assert len(set(prints)) == 4
    assert open_frames(movie, contrast=(0, 9)).fingerprint() == prints[0]


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ((400, 64, 64), None),
        ((1, 512, 512), None),
        ((400, 512, 512), ["400 frames", "(1, 512, 512)"]),
        ((1, 4096, 4096), ["one whole frame"]),
    ],
)
def test_chunks_that_make_regions_costly_are_reported(chunks: tuple[int, ...], words: list[str] | None) -> None:
    """`hint` speaks up where a small region needs a large chunk, and says how to rechunk."""
    import zarr

    array = zarr.create_array(zarr.storage.MemoryStore(), shape=(400, 4096, 4096), chunks=chunks, dtype="u2")
    hint = open_frames(array).hint
    assert (hint is None) == (words is None)
    for word in words or []:
        assert word in str(hint)


def test_a_stack_of_a_hundred_gigabytes_opens_without_reading(tmp_path: Path) -> None:
    """A sparse zarr of 100 GB opens, is measured and read with a few dozen chunk reads."""
    import zarr

    array = zarr.create_array(tmp_path / "big.zarr", shape=(250, 20_000, 20_000), chunks=(1, 512, 512), dtype="u1")
    array[7, 1000:1200, 2000:2200] = np.full((200, 200), 50, np.uint8) + np.arange(200, dtype=np.uint8)
    with open_frames(tmp_path / "big.zarr") as stack:
        assert np.prod(stack.shape) * stack.dtype.itemsize == 100_000_000_000
        assert stack.hint is None
        assert stack.read(7, Box(1000, 2000, 1200, 2200)).max() == 1
        assert len(stack.fingerprint()) == 32


def test_importing_frames_loads_numpy_only() -> None:
    """dask, zarr, tifffile, PyAV, Pillow and xarray are loaded when a source needs them, not before."""
    code = "import sys, napari_ivos.frames; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["dask", "zarr", "tifffile", "av", "PIL", "xarray", "imagecodecs", "torch"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
