"""Files and folders as users have them: TIFF and zarr of all kinds, folders of images, and damaged ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_ivos.errors import FrameReadError, InputError
from napari_ivos.frames import files_of, open_frames
from napari_ivos.frames.images import decode, natural_key
from napari_ivos.regions import Box

if TYPE_CHECKING:
    from collections.abc import Callable

RAW = Path(__file__).parents[2] / "shared" / "data" / "raw"


def noise(*shape: int, dtype: str = "u2", seed: int = 0) -> np.ndarray[Any, Any]:
    """Random values of a shape, 20 to 250."""
    return np.random.default_rng(seed).integers(20, 250, shape).astype(dtype)


def result_or_error(call: Callable[[], Any]) -> Any:
    """What a call returns, or the InputError that it raises."""
    try:
        return call()
    except InputError as error:
        return error


# -- TIFF


@pytest.mark.parametrize(
    ("shape", "saved", "options", "note"),
    [
        pytest.param((6, 16, 16), {"metadata": None}, {}, 'axes="ZYX"', id="nothing says"),
        pytest.param((6, 16, 16), {"metadata": {"axes": "QYX"}}, {}, 'axes="ZYX"', id="its own letter"),
        pytest.param((6, 2, 16, 16), {"metadata": {"axes": "QCYX"}}, {}, 'axes="ZCYX"', id="beside channels"),
        pytest.param((6, 16, 16), {"metadata": None}, {"axes": "ZYX"}, "", id="said by the user"),
        pytest.param((6, 16, 16), {"imagej": True, "metadata": {"axes": "TYX"}}, {}, "", id="times"),
        pytest.param((6, 16, 16), {"imagej": True, "metadata": {"axes": "ZYX"}}, {}, "", id="sections"),
        pytest.param((16, 16), {"metadata": None}, {}, "", id="one picture"),
    ],
)
def test_frames_that_are_only_taken_as_times_are_noted(
    tmp_path: Path, shape: Any, saved: Any, options: Any, note: str
) -> None:
    """Of a file that doesn't name the axis of its frames, it is said what to write if they are sections."""
    import tifffile

    tifffile.imwrite(tmp_path / "nuclei.tif", noise(*shape), **saved)
    with open_frames(tmp_path / "nuclei.tif", **options) as stack:
        assert stack.assumed == bool(note)
        assert [found for found in stack.notes if note in found and "taken as times" in found] == stack.notes
        assert len(stack.notes) == bool(note)


@pytest.mark.parametrize(
    ("shape", "options", "axes", "stack_shape"),
    [
        ((5, 3, 30, 40), {"imagej": True, "metadata": {"axes": "TCYX"}}, "TCYX", (5, 30, 40)),
        ((4, 5, 30, 40), {"imagej": True, "metadata": {"axes": "TZYX"}}, "TZYX", (4, 30, 40)),
        ((5, 30, 40), {"imagej": True, "metadata": {"axes": "ZYX"}}, "ZYX", (5, 30, 40)),
        ((4, 2, 3, 30, 40), {"ome": True, "metadata": {"axes": "TCZYX"}}, "TCZYX", (4, 30, 40)),
        ((3, 30, 40), {"ome": True, "metadata": {"axes": "CYX"}}, "CYX", (1, 30, 40)),
        ((6, 30, 40, 3), {"photometric": "rgb"}, "TYXC", (6, 30, 40)),
        ((30, 40, 3), {"photometric": "rgb"}, "YXS", (1, 30, 40)),
        ((30, 40), {}, "YX", (1, 30, 40)),
        ((6, 30, 40), {"metadata": None}, "TYX", (6, 30, 40)),
    ],
    ids=str,
)
@pytest.mark.parametrize("compressed", [False, True])
def test_axes_of_tiff_come_from_its_metadata(
    tmp_path: Path, shape: Any, options: Any, axes: str, stack_shape: Any, compressed: bool
) -> None:
    """ImageJ, OME and plain TIFF tell their axes; the first frame is the right one, compressed or not."""
    import tifffile

    values = noise(*shape)
    if not options.get("imagej"):
        options = {"photometric": "minisblack", "compression": "zlib" if compressed else None, **options}
    elif compressed:  # ImageJ knows no compression, but the other order of bytes
        options = {"byteorder": "<", **options}
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    with open_frames(tmp_path / "a.tif") as stack:
        assert stack.shape == stack_shape
        assert [x.replace("S", "C") for x in stack.axes] == [x.replace("S", "C") for x in axes]
        index = [0 if x in "TZ" else slice(None) for x in axes]
        first = values[tuple(index)]
        assert np.array_equal(stack.raw(0), np.moveaxis(first, 0, -1) if first.shape[0] < 10 else first)


OME_SIZES = {"PhysicalSizeX": 0.3, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 250, "PhysicalSizeYUnit": "nm"}
OME_SIZES |= {"PhysicalSizeZ": 2, "TimeIncrement": 5, "TimeIncrementUnit": "min"}
SIZES = {"T": [5.0, "min"], "Z": [2.0, "µm"], "Y": [250.0, "nm"], "X": [0.3, "µm"]}
IMAGEJ = {"spacing": 2, "unit": "\\u00B5m", "finterval": 5, "tunit": "min"}


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"ome": True, "metadata": OME_SIZES}, SIZES),
        ({"imagej": True, "metadata": IMAGEJ, "resolution": (10 / 3, 4)}, {**SIZES, "Y": [0.25, "µm"]}),
        ({"imagej": True, "metadata": {"finterval": 7.5}, "resolution": (72, 72)}, {"T": [7.5, "s"]}),
        ({"imagej": True, "metadata": {"unit": "pixel"}, "resolution": (1, 1)}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.3, "PhysicalSizeXUnit": "reference frame"}}, None),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
    ],
    ids=["OME", "ImageJ", "ImageJ without lengths", "ImageJ in pixels", "OME without a unit of length", "printer"],
)
def test_pixel_sizes_of_tiff_come_from_its_metadata(tmp_path: Path, options: Any, sizes: Any) -> None:
    """OME and ImageJ metadata tell what a pixel, a plane and a frame are; what a printer is told is no size."""
    import tifffile

    options = {**options, "metadata": {**options.get("metadata", {}), "axes": "TZYX"}}
    tifffile.imwrite(tmp_path / "a.tif", noise(3, 4, 30, 40), photometric="minisblack", **options)
    with open_frames(tmp_path / "a.tif") as stack:
        assert stack.describe().get("spacing") == sizes
    with open_frames(tmp_path / "a.tif", axes="ZTYX") as stack:  # a user knows better which axis is time
        kept = {x: step for x, step in (sizes or {}).items() if x in "YX"}
        assert stack.describe().get("spacing", {}) == kept


def test_a_pyramid_is_read_at_full_resolution(tmp_path: Path) -> None:
    """Of a pyramidal OME-TIFF level 0 is read, region by region."""
    import tifffile

    values = noise(3, 128, 160)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        options: dict[str, Any] = {"tile": (32, 32), "photometric": "minisblack"}
        file.write(values, subifds=1, metadata={"axes": "TYX"}, **options)
        file.write(values[:, ::2, ::2].copy(), subfiletype=1, **options)
    with open_frames(tmp_path / "a.ome.tif") as stack:
        assert stack.shape == (3, 128, 160)
        assert np.array_equal(stack.raw(2, Box(30, 31, 70, 99)), values[2, 30:70, 31:99])


def test_one_image_of_several_in_a_file_can_be_chosen(tmp_path: Path) -> None:
    """A file with two images opens the first with a note, the second by index, and refuses a third."""
    import tifffile

    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        file.write(noise(3, 30, 40), metadata={"axes": "TYX"}, photometric="minisblack")
        file.write(noise(5, 20, 25, seed=1), metadata={"axes": "TYX"}, photometric="minisblack")
    with open_frames(tmp_path / "a.ome.tif") as stack:
        assert stack.shape == (3, 30, 40)
        assert any("2 images" in note for note in stack.notes)
    with open_frames(tmp_path / "a.ome.tif", index={"series": 1}) as stack:
        assert np.array_equal(stack.raw(4), noise(5, 20, 25, seed=1)[4])
        with open_frames(tmp_path / "a.ome.tif", **stack.describe()["open"]) as again:
            assert again.fingerprint() == stack.fingerprint()
    with pytest.raises(InputError, match="0 to 1"):
        open_frames(tmp_path / "a.ome.tif", index={"series": 2})


def test_axes_can_be_given_where_a_tiff_has_none(tmp_path: Path) -> None:
    """A TIFF of four unknown axes is refused with an example, and opens with `axes`."""
    import tifffile

    values = noise(4, 2, 30, 40)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    with pytest.raises(InputError, match=r"\(4, 2, 30, 40\)"):
        open_frames(tmp_path / "a.tif")
    with open_frames(tmp_path / "a.tif", axes="TCYX", channels=[1]) as stack:
        assert np.array_equal(stack.raw(3), np.moveaxis(values[3], 0, -1))


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"metadata": None}], ids=str)
@pytest.mark.parametrize("kept", [0.9, 0.5, 0.05])
def test_a_tiff_cut_short_is_refused_or_fails_at_the_frame(tmp_path: Path, options: Any, kept: float) -> None:
    """A TIFF that ends early is refused when opened, or its missing frames raise FrameReadError; none is black."""
    import tifffile

    values = noise(8, 64, 64)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="minisblack", **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    stack = result_or_error(lambda: open_frames(path))
    if isinstance(stack, InputError):
        assert "a.tif" in str(stack)
        return
    with stack:
        assert len(stack) == 8 or stack.notes
        for k in range(len(stack)):
            found = result_or_error(lambda frame=k: stack.raw(frame))
            assert found.frame == k if isinstance(found, FrameReadError) else np.array_equal(found, values[k])


@pytest.mark.parametrize("imagej", [False, True], ids=["plain", "ImageJ"])
def test_a_tiff_cut_anywhere_is_whole_or_refused(tmp_path: Path, imagej: bool) -> None:
    """Cut after any byte, a TIFF is refused by name, or gives all frames to the bit: its directory comes last."""
    import tifffile

    values = noise(3, 16, 16)
    whole, path = tmp_path / "whole.tif", tmp_path / "cut.tif"
    tifffile.imwrite(whole, values, photometric="minisblack", imagej=imagej, metadata={"axes": "TYX"})
    content = whole.read_bytes()
    for length in range(0, len(content), 5):
        path.write_bytes(content[:length])
        stack = result_or_error(lambda: open_frames(path))
        if isinstance(stack, InputError):
            assert "cut.tif" in str(stack)
            continue
        with stack:
            assert np.array_equal([stack.raw(k) for k in range(len(stack))], values), length


def test_no_path_is_no_folder() -> None:
    """An empty path is refused; it does not mean the folder that one happens to be in."""
    with pytest.raises(InputError, match="path of the frames is empty"):
        open_frames("")


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    """Bytes overwritten in one compressed page fail at that frame only."""
    import tifffile

    values = noise(6, 64, 64)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(path) as file:
        begin, size = file.pages[3].dataoffsets[0], file.pages[3].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[begin : begin + size] = bytes(size)
    path.write_bytes(data)
    with open_frames(path) as stack:
        with pytest.raises(FrameReadError, match="Frame 3"):
            stack.read(3)
        assert np.array_equal(stack.raw(4), values[4])


# -- zarr


def ome(path: Path, metadata: dict[str, Any], version: int = 3, **arrays: Any) -> Path:
    """Write an OME-Zarr group with arrays of its own."""
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=version)
    for name, values in arrays.items():
        array = group.create_array(name, shape=values.shape, chunks=values.shape, dtype=values.dtype)
        array[...] = values
    group.attrs.update(metadata)
    return path


def image(axes: str, *levels: str) -> dict[str, Any]:
    """Multiscale metadata of one image."""
    return {"axes": [{"name": name} for name in axes.lower()], "datasets": [{"path": level} for level in levels]}


def test_axes_and_channel_names_come_from_ome_zarr(tmp_path: Path) -> None:
    """Axes of any order are taken from the metadata, the names of the channels are told."""
    values = noise(4, 2, 3, 30, 40)
    told = {"multiscales": [image("TCZYX", "0")], "omero": {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}}
    with open_frames(ome(tmp_path / "a.zarr", {"ome": told}, **{"0": values}), index={"Z": 1}) as stack:
        assert (stack.axes, stack.shape, stack.channels) == ("TCZYX", (4, 30, 40), (0, 1))
        assert stack.describe()["channel_names"] == ["DAPI", "GFP"]
        assert np.array_equal(stack.raw(2)[..., 1], values[2, 1, 1])


def test_pixel_sizes_come_from_ome_zarr(tmp_path: Path) -> None:
    """The scale of the first resolution times that of the image, with the units that the axes have."""
    told = image("TYX", "0", "1")
    told["axes"] = [{"name": "t", "unit": "minute"}, {"name": "y", "unit": "micrometer"}, {"name": "x"}]
    for level, steps in zip(told["datasets"], ([1, 0.25, 0.5], [1, 0.5, 1]), strict=True):
        level["coordinateTransformations"] = [{"type": "scale", "scale": steps}, {"type": "translation"}]
    told["coordinateTransformations"] = [{"type": "scale", "scale": [5, 1, 1]}]
    levels = {"0": noise(3, 30, 40), "1": noise(3, 15, 20)}
    path = ome(tmp_path / "a.zarr", {"ome": {"multiscales": [told]}}, **levels)
    with open_frames(path) as stack:
        assert stack.describe()["spacing"] == {"T": [5.0, "min"], "Y": [0.25, "µm"], "X": [0.5, ""]}
    told["datasets"][0]["coordinateTransformations"] = ["none", {"scale": ["a", 1, 1]}, {"scale": 3}]
    with open_frames(ome(tmp_path / "b.zarr", {"ome": {"multiscales": [told]}}, **levels)) as stack:
        assert stack.describe()["spacing"] == {"T": [5.0, "min"], "Y": [1.0, "µm"]}


def test_old_ome_zarr_without_axes_has_five(tmp_path: Path) -> None:
    """Before version 0.3 there were no axes in the metadata: they were TCZYX."""
    told = {"multiscales": [{"datasets": [{"path": "0"}], "version": "0.1"}]}
    with open_frames(ome(tmp_path / "a.zarr", told, version=2, **{"0": noise(4, 1, 1, 30, 40)})) as stack:
        assert (stack.axes, stack.shape) == ("TCZYX", (4, 30, 40))


def test_a_level_of_a_pyramid_opened_by_itself_has_its_axes(tmp_path: Path) -> None:
    """The folder of one resolution takes its axes from the image around it."""
    path = ome(tmp_path / "a.zarr", {"ome": {"multiscales": [image("CTYX", "0")]}}, **{"0": noise(2, 5, 30, 40)})
    with open_frames(path / "0") as stack:
        assert (stack.axes, stack.shape) == ("CTYX", (5, 30, 40))


def test_the_files_of_a_stack_are_those_that_its_frames_are_in(tmp_path: Path) -> None:
    """A file is its own, a folder has its images, a zarr all of it but labels beside the frames."""
    whole = ome(tmp_path / "a.zarr", {"ome": {"multiscales": [image("TYX", "0")]}}, **{"0": noise(2, 30, 40)})
    before = files_of(whole)
    assert {"zarr.json", "0/zarr.json", "0/c/0/0/0"} == {p.relative_to(whole).as_posix() for p in before}
    ome(whole / "labels", {}, cells=noise(2, 30, 40))
    assert files_of(whole) == before
    (tmp_path / "notes.txt").write_text("none of them")
    for name in ("f2.png", "f10.png", "f1.tif"):
        (tmp_path / name).write_bytes(b"any")
    assert [p.name for p in files_of(tmp_path)] == ["f2.png", "f10.png"]
    assert files_of(tmp_path / "f1.tif") == [tmp_path / "f1.tif"]
    assert files_of(ome(tmp_path / "b", {}, labels=noise(2, 30, 40)))[-1].name == "0"


def test_images_in_a_collection_are_numbered(tmp_path: Path) -> None:
    """A folder of numbered images, as bioformats2raw writes it, opens the first with a note and others by index."""
    import zarr

    zarr.open_group(tmp_path / "a.zarr", mode="w").attrs["ome"] = {"bioformats2raw.layout": 3}
    for i in range(3):
        told = {"ome": {"multiscales": [image("TYX", "0")]}}
        ome(tmp_path / "a.zarr" / str(i), told, **{"0": noise(4 + i, 30, 40)})
    with open_frames(tmp_path / "a.zarr") as stack:
        assert len(stack) == 4
        assert any("3 images" in note for note in stack.notes)
    with open_frames(tmp_path / "a.zarr", index={"series": 2}) as stack:
        assert len(stack) == 6
    with pytest.raises(InputError, match="0 to 2"):
        open_frames(tmp_path / "a.zarr", index={"series": 3})


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"ome": {"plate": {"wells": [{"path": "A/1"}]}}}, "A/1"),
        ({}, "one of its arrays"),
        ({"ome": {"multiscales": [image("TYX", "missing")]}}, "first resolution is missing"),
        ({"ome": {"multiscales": [{"datasets": []}]}}, "first resolution is missing"),
    ],
    ids=["plate", "no metadata", "no such array", "no levels"],
)
def test_groups_without_an_image_say_what_they_hold(tmp_path: Path, metadata: dict[str, Any], words: str) -> None:
    """A plate, a bare group or an unfinished image is refused with what to open instead."""
    path = ome(tmp_path / "a.zarr", metadata, x=noise(2, 30, 40), y=noise(2, 30, 40))
    with pytest.raises(InputError, match=words):
        open_frames(path)


def test_damaged_zarr_is_refused_or_fails_at_the_frame(tmp_path: Path) -> None:
    """Broken metadata is refused with what was found; a broken chunk fails at its frame only."""
    import zarr

    values = noise(4, 30, 40)
    array = zarr.create_array(tmp_path / "a.zarr", shape=values.shape, chunks=(1, 30, 40), dtype=values.dtype)
    array[...] = values
    (tmp_path / "a.zarr" / "c" / "2" / "0" / "0").write_bytes(b"broken")
    with open_frames(tmp_path / "a.zarr") as stack:
        with pytest.raises(FrameReadError, match="Frame 2"):
            stack.read(2)
        assert np.array_equal(stack.raw(3), values[3])
    (tmp_path / "a.zarr" / "zarr.json").write_text("{")
    with pytest.raises(InputError, match=r"can't be read as zarr"):
        open_frames(tmp_path / "a.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match=r"Found there: nothing"):
        open_frames(tmp_path / "empty.zarr")


# -- folders of images and single images


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "jpg", "webp"])
@pytest.mark.parametrize("channels", [None, 3])
def test_folders_of_images_open_in_natural_order(tmp_path: Path, suffix: str, channels: int | None) -> None:
    """Frame 2 comes before frame 10, whatever the format, in grey and in colour; other files are left alone."""
    import tifffile
    from PIL import Image

    shape = (30, 40) if channels is None else (30, 40, channels)
    for k in (1, 2, 3, 10, 11, 100):
        values = np.full(shape, k, np.uint8)
        if suffix == "tif":
            tifffile.imwrite(tmp_path / f"t{k}.tif", values, photometric="rgb" if channels else "minisblack")
        else:
            options = {"lossless": True} if suffix == "webp" else {}
            Image.fromarray(values).save(tmp_path / f"t{k}.{suffix}", **options)
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / f"._t1.{suffix}").write_bytes(b"what a Mac leaves behind")
    with open_frames(tmp_path) as stack:
        assert stack.shape == (6, 30, 40)
        assert stack.describe()["last_file"] == f"t100.{suffix}"
        for i, k in enumerate((1, 2, 3, 10, 11, 100)):
            assert abs(int(stack.raw(i).flat[0]) - k) <= 1


def test_the_commonest_ending_makes_the_stack(tmp_path: Path) -> None:
    """Images of other endings in a folder are left out, and a note says how many."""
    from PIL import Image

    for name in ("1.png", "2.png", "preview.jpg"):
        Image.fromarray(noise(30, 40, dtype="u1")).save(tmp_path / name)
    with open_frames(tmp_path) as stack:
        assert len(stack) == 2
        assert any("1 images that are not .png" in note for note in stack.notes)


def test_order_and_choice_of_files_do_not_hang_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that count alike, t1 and t01, have one order however the disk lists them; .jpg and .jpeg are one format."""
    from PIL import Image

    names = ["t01.jpg", "t1.jpg", "t2.jpeg", "t2.jpg"]
    for k, name in enumerate(names):
        Image.fromarray(np.full((30, 40), 60 * k, np.uint8)).save(tmp_path / name)
    for reverse in (False, True):
        listed = [tmp_path / name for name in sorted(names, reverse=reverse)]
        monkeypatch.setattr(Path, "iterdir", lambda _, listed=listed: iter(listed))
        with open_frames(tmp_path) as stack:
            assert [round(stack.raw(t).mean() / 60) for t in range(len(stack))] == [0, 1, 2, 3]
            assert stack.notes == []


def test_colours_of_image_files_are_kept(tmp_path: Path) -> None:
    """Palettes become RGB, alpha is dropped, 16 bits stay 16 bits in colour too, bits become booleans."""
    import imagecodecs
    from PIL import Image

    deep = noise(30, 40, 3, dtype="u2") * 250
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(deep))
    with open_frames(tmp_path / "deep.png") as stack:
        assert np.array_equal(stack.raw(0), deep)
    colours = noise(30, 40, 4, dtype="u1")
    Image.fromarray(colours).save(tmp_path / "alpha.png")
    with open_frames(tmp_path / "alpha.png") as stack:
        assert np.array_equal(stack.raw(0), colours[..., :3])
        assert stack.contrast == ((0.0, 255.0),) * 3
    Image.fromarray(colours[..., :3]).quantize(8).save(tmp_path / "palette.png")
    assert open_frames(tmp_path / "palette.png").raw(0).shape == (30, 40, 3)
    Image.fromarray(colours[..., 0] > 99).save(tmp_path / "bits.png")
    with open_frames(tmp_path / "bits.png") as stack:
        assert stack.dtype == bool
        assert set(np.unique(stack.read(0))) == {0.0, 1.0}


@pytest.mark.parametrize("planar", [False, True], ids=["samples together", "planes"])
@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_all_channels_of_tiffs_in_a_folder_are_read(tmp_path: Path, channels: int, planar: bool) -> None:
    """Files of 2 to 5 channels, in whatever order they lie, open with all of them; only what is called alpha goes."""
    import tifffile

    values = noise(3, 30, 40, channels, dtype="u2")
    for k in range(3):
        order, config = (np.moveaxis(values[k], -1, 0), "separate") if planar else (values[k], "contig")
        tifffile.imwrite(tmp_path / f"{k}.tif", order, photometric="minisblack", planarconfig=config)
    with open_frames(tmp_path) as stack:
        assert stack.shape == (3, 30, 40)
        assert stack.channels == tuple(range(min(channels, 3)))
        assert np.array_equal(stack.raw(2), values[2])
    with open_frames(tmp_path, channels=[channels - 1]) as stack:
        assert stack.channels == (channels - 1,)
    alpha = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "alone.tif", noise(30, 40, 4, dtype="u1"), **alpha)
    assert decode(tmp_path / "alone.tif").shape == (30, 40, 3)


def test_pages_that_a_file_calls_channels_are_channels(tmp_path: Path) -> None:
    """A folder of ImageJ files with a page for each channel opens with these channels."""
    import tifffile

    values = noise(3, 2, 30, 40, dtype="u2")
    for k in range(3):
        tifffile.imwrite(tmp_path / f"{k}.tif", values[k], imagej=True, metadata={"axes": "CYX"})
    with open_frames(tmp_path) as stack:
        assert stack.shape == (3, 30, 40)
        assert np.array_equal(stack.raw(1), np.moveaxis(values[1], 0, -1))


def test_a_page_counts_once_whatever_its_metadata_declare(tmp_path: Path) -> None:
    """A file of a folder gives its one page, also where its OME metadata speak of a hundred thousand of them."""
    import tifffile

    for k in range(2):
        tifffile.imwrite(tmp_path / f"{k}.ome.tif", noise(30, 40, seed=k), ome=True)
        data = (tmp_path / f"{k}.ome.tif").read_bytes()
        (tmp_path / f"{k}.ome.tif").write_bytes(data.replace(b'SizeT="1"', b'SizeT="9"'))
    with open_frames(tmp_path) as stack:
        assert stack.shape == (2, 30, 40)
        assert np.array_equal(stack.raw(1), noise(30, 40, seed=1))


def test_a_grey_frame_among_colours_fits_and_a_larger_one_is_named(tmp_path: Path) -> None:
    """Savers drop the colours of grey pictures: that is undone; another size is an error that names the file."""
    from PIL import Image

    Image.fromarray(noise(30, 40, 3, dtype="u1")).save(tmp_path / "1.png")
    Image.fromarray(noise(30, 40, dtype="u1")).save(tmp_path / "2.png")
    Image.fromarray(noise(31, 40, 3, dtype="u1")).save(tmp_path / "3.png")
    with open_frames(tmp_path) as stack:
        assert np.array_equal(stack.raw(1)[..., 2], noise(30, 40, dtype="u1"))
        with pytest.raises(FrameReadError, match=r"3\.png.*31 x 40.*30 x 40") as caught:
            stack.read(2)
        assert caught.value.frame == 2


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    """Of a folder with a truncated, an empty and a vanished image, these raise FrameReadError and the others read."""
    from PIL import Image

    for k in range(5):
        Image.fromarray(noise(64, 64, dtype="u1", seed=k)).save(tmp_path / f"{k}.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:900])
    (tmp_path / "2.png").write_bytes(b"")
    with open_frames(tmp_path) as stack:
        (tmp_path / "3.png").unlink()
        for k in (1, 2, 3):
            with pytest.raises(FrameReadError, match=f"Frame {k}"):
                stack.read(k)
        assert np.array_equal(stack.raw(4), noise(64, 64, dtype="u1", seed=4))
    (tmp_path / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"0\.png can't be read as an image"):
        open_frames(tmp_path)


def test_a_folder_of_stacks_says_to_open_one(tmp_path: Path) -> None:
    """A folder whose files are stacks themselves is refused with that advice."""
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", noise(4, 30, 40), photometric="minisblack")
    with pytest.raises(InputError, match="stack of 4 pages"):
        open_frames(tmp_path)


def test_names_sort_as_people_count() -> None:
    """Numbers in names count as numbers, letters without regard to case."""
    names = ["b1", "A10", "a9", "a09b", "10", "9", "9\u00b22"]
    assert sorted(names, key=natural_key) == ["9", "9\u00b22", "10", "a9", "a09b", "A10", "b1"]


# -- what can't be opened


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.tif", b"", "is empty"),
        ("a.png", b"", "is empty"),
        ("a.tif", b"no TIFF at all" * 50, "can't be read as TIFF"),
        ("a.tif", b"II*\x00\x08\x00\x00\x00", "a.tif"),
        ("a.png", b"no image", "can't be read as an image .*no picture of a known kind"),
        ("a.npy", b"\x93NUMPY", "can't be read as a numpy array"),
        ("a.npy", b"a table of numbers", "does not begin as one"),
        ("a.docx", b"text", "the ending .docx"),
        ("a", b"text", "the ending \\(none\\)"),
    ],
)
def test_files_that_are_no_stacks_are_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    """Empty files, files of another kind and unknown endings raise InputError that names the file and the way out."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        open_frames(tmp_path / name)


def test_paths_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    """A missing file, a missing folder, an empty folder and an address each say what is the matter."""
    with pytest.raises(InputError, match=r"no file or folder .*a\.tif.*exists"):
        open_frames(tmp_path / "a.tif")
    with pytest.raises(InputError, match="missing too"):
        open_frames(tmp_path / "x" / "a.tif")
    (tmp_path / "sub" / "frames").mkdir(parents=True)
    with pytest.raises(InputError, match="found frames/"):
        open_frames(tmp_path / "sub")
    with pytest.raises(InputError, match="an address"):
        open_frames("https://example.org/a.zarr")


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    """A .npy file that would unpickle objects is refused."""
    np.save(tmp_path / "a.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="numpy array"):
        open_frames(tmp_path / "a.npy")


def test_a_closed_stack_lets_its_file_go(tmp_path: Path) -> None:
    """After closing, the file is not held open: it can be removed, and nothing is left to warn about."""
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", noise(4, 30, 40), photometric="minisblack", compression="zlib")
    stack = open_frames(tmp_path / "a.tif")
    stack.read(0)
    del stack
    with pytest.raises(InputError):
        open_frames(tmp_path / "a.tif", axes="TCZYX")
    shutil.rmtree(tmp_path)


# -- real files


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "channels"),
    [
        ("cancer_cell_migration.tif", (48, 130, 130), "u2", (0,)),
        ("membrane_timelapse.tif", (5, 256, 256), "u2", (0,)),
        ("nuclei_3d.tif", (31, 61, 57), "u2", (0,)),
        ("hela_cells_16bit.tif", (1, 512, 672), "u2", (0, 1, 2)),
        ("street.mp4", (117, 480, 640), "u1", (0, 1, 2)),
    ],
)
def test_real_files_open_and_fill_the_range(name: str, shape: Any, dtype: str, channels: tuple[int, ...]) -> None:
    """Stacks from microscopes and a film open without options; their contrast uses the range from black to white."""
    if not (RAW / name).exists():
        pytest.skip(f"{name} is not here")
    with open_frames(RAW / name) as stack:
        assert (stack.shape, stack.dtype, stack.channels) == (shape, np.dtype(dtype), channels)
        assert [note for note in stack.notes if "taken as times" not in note] == []
        assert stack.hint is None
        seen = np.stack([stack.read(k) for k in (0, len(stack) // 2, len(stack) - 1)])
        assert seen.min() < 0.05
        assert seen.max() > 0.9
        assert 0.02 < seen.mean() < 0.7
