"""open_frames: the one door, for arrays, files, folders and videos."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ivos.errors import InputError
from napari_ivos.frames import images, omezarr, tiff, video
from napari_ivos.frames.axes import check_axes, guess_axes, lay_out, unknown_axes
from napari_ivos.frames.contrast import check_ranges
from napari_ivos.frames.sources import Source, array_source, check_values, existing
from napari_ivos.frames.stack import FrameStack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SERIES = "series"
"""Key of `index` that chooses one image of a file that holds several."""


def open_frames(
    source: Any,
    *,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    index: Mapping[str, int] | None = None,
    contrast: Any = None,
    frame_axis: str | None = None,
) -> FrameStack:
    """Open a movie, time-lapse, volume or picture; nothing but its directory is read.

    Parameters
    ----------
    source : array-like, str, Path or FrameStack
        A numpy, dask, zarr or xarray array, or any with shape, dtype and indexing; the path of a TIFF (OME, ImageJ), an
        OME-Zarr or zarr folder, a folder of images (PNG, JPEG, TIFF, BMP, WebP, in natural order), one image, a `.npy`
        file, or a video (MP4, AVI, MOV, MKV, WebM). A FrameStack without options is returned as it is; with options, a
        second stack of the same source is, with all else as in the first; close it before the first.
    axes : str, optional
        One letter for each axis of the source: T time, Z depth, C channels, Y rows, X columns, any other letter for a
        further axis. Needed where it can't be told. What is told without: the file's metadata; else a last axis of 3
        or 4 after one of more than 4 is colours, and what is left is "YX" or "TYX" (of a file, with a note).
    channels : sequence of int, optional
        One to three source channels that the networks see. One is grey; two are red and green; three are RGB. Default:
        all, of more than three (or RGBA) the first three.
    index : mapping of str to int, optional
        At which entry further axes are held, by letter (default 0, with a note): ``{"Z": 12}``; the key "series"
        chooses one image of a file that holds several.
    contrast : (low, high) or sequence of these, optional
        Values that become 0 and 1, for all shown channels or for each. Default: measured at first use.
    frame_axis : str, optional
        Letter of the axis along which frames lie. Default: T if it has more than one entry, else Z.

    Returns
    -------
    FrameStack
        A context manager; dropping the last reference closes it too.

    Raises
    ------
    InputError
        There is no such file, it is empty, damaged, cut short or no image; its axes can't be told or don't fit; it has
        no pixels, or its values are no real numbers. The message says what was found and what to do.

    Examples
    --------
    >>> import numpy as np
    >>> stack = open_frames(np.zeros((5, 2, 64, 80), np.uint16), axes="TCYX")
    >>> stack.shape, stack.channels, stack.read(4).shape
    ((5, 64, 80), (0, 1), (64, 80, 3))
    """
    given = {"axes": axes, "channels": channels, "index": index, "contrast": contrast, "frame_axis": frame_axis}
    if isinstance(source, FrameStack):
        asked = {key: value for key, value in given.items() if value is not None}
        return _stack(source.origin, owns=False, **_inherited(source, asked)) if asked else source
    options = dict(index or {})
    series = next((int(options.pop(key)) for key in list(options) if key.lower() == SERIES), None)
    base = _base(source, series)
    try:
        return _stack(base, owns=True, **{**given, "index": options})
    except InputError:
        base.close()
        raise


def _stack(
    base: Source,
    *,
    owns: bool,
    axes: str | None,
    channels: Sequence[int] | None,
    index: Mapping[str, int] | None,
    contrast: Any,
    frame_axis: str | None,
) -> FrameStack:
    """Stack of a source, once the options fit it."""
    check_values(base)
    letters = check_axes(axes, base.shape, base.name) if axes is not None else base.axes or guess_axes(base.shape)
    if letters is None:
        raise unknown_axes(base.shape, base.name)
    layout, notes = lay_out(letters, base.shape, base.name, channels=channels, index=index, frame_axis=frame_axis)
    ranges = None if contrast is None else check_ranges(contrast, len(layout.channels))
    guessed = axes is None and (base.axes is None or base.assumed)
    assumed = guessed and layout.frame is not None and letters[layout.frame] == "T" and layout.stack_shape[0] > 1
    if assumed and base.path is not None and "Z" not in letters:
        notes.append(
            f"nothing says whether its {layout.stack_shape[0]} frames are times or sections of a volume; they are "
            f'taken as times. For sections, say so with axes="{letters.replace("T", "Z")}" '
            f"(on the command line: --axes {letters.replace('T', 'Z')})."
        )
    return FrameStack(base, layout, notes, ranges, owns=owns, assumed=assumed)


def _inherited(stack: FrameStack, asked: dict[str, Any]) -> dict[str, Any]:
    """Options of a second stack: what isn't asked for stays as it is, as far as it still has a meaning."""
    before: dict[str, Any] = stack.describe()["open"]
    before["index"] = {key: at for key, at in before["index"].items() if key != SERIES}
    if "axes" in asked:
        before = dict.fromkeys(before)
    elif "channels" in asked:
        before["contrast"] = None
    if "frame_axis" in asked and "axes" not in asked:
        asked_axis = str(asked["frame_axis"]).upper()
        before["index"] = {key: at for key, at in before["index"].items() if key != asked_axis}
    if "index" in asked:
        further = {key.upper(): at for key, at in asked["index"].items() if key.lower() != SERIES}
        asked["index"] = {**(before["index"] or {}), **further}
    return {**before, **asked}


def files_of(path: Path) -> list[Path]:
    """Files that the frames at a path are read from: the images of a folder, all of a zarr, else the file itself.

    Labels that a zarr holds beside its frames are none of these.

    Raises
    ------
    InputError
        A folder without images.
    OSError
        It can't be looked into.
    """
    if not path.is_dir():
        return [path]
    if not omezarr.is_zarr(path):
        return images.list_images(path)[0]
    found = []
    for folder, folders, names in os.walk(path, onerror=_fail):
        if folder == str(path) and len(folders) > 1 and omezarr.LABELS in folders:
            folders.remove(omezarr.LABELS)
        folders.sort()
        found += [Path(folder, name) for name in sorted(names)]
    return found


def _fail(error: OSError) -> None:
    """Where a folder can't be listed: `os.walk` would leave it out."""
    raise error


def _base(source: Any, series: int | None) -> Source:
    """Source behind an array or a path."""
    if not isinstance(source, (str, os.PathLike)):
        if type(source).__module__.startswith("zarr.") and hasattr(source, "array_keys"):
            return omezarr.group_source(source, source.basename or "group", series)
        return array_source(source)
    path = existing(source)
    if omezarr.is_zarr(path):
        return omezarr.zarr_folder_source(path, series)
    if path.is_dir():
        return images.ImageFolder(*images.list_images(path), path)
    suffix = path.suffix.lower()
    if suffix in tiff.SUFFIXES:
        return tiff.tiff_source(path, series)
    if suffix in video.SUFFIXES:
        return video.Video(path)
    if suffix in images.SUFFIXES:
        return images.ImageFolder([path], [], path)
    if suffix == ".npy":
        return _npy_source(path)
    raise InputError(
        f"{path} has the ending {suffix or '(none)'}, which is not read. Known: TIFF ({', '.join(tiff.SUFFIXES)}), "
        f"OME-Zarr (.zarr), images ({', '.join(images.SUFFIXES)}) alone or in a folder, videos "
        f"({', '.join(video.SUFFIXES)}), .npy. Convert it, or read it in Python and hand over the array: "
        "open_frames(array)."
    )


def _npy_source(path: Path) -> Source:
    import numpy as np

    try:
        with path.open("rb") as file:
            if not file.read(6).startswith((b"\x93NUMPY", b"PK\x03\x04")):
                raise ValueError("it does not begin as one")  # numpy would take it for a pickle
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # its header is Python text, and damaged text fails in many ways
        raise InputError(f"{path} can't be read as a numpy array ({error}). Save it again with numpy.save.") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{path} holds several arrays (it is an .npz): save the one you mean with numpy.save.")
    source = array_source(array, path.name)
    source.path, source.kind = path, "numpy file"
    return source
