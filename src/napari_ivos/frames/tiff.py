"""TIFF, OME-TIFF, ImageJ TIFF and their relatives, read lazily: plain bytes are mapped, all else goes through zarr."""

from __future__ import annotations

import html
import logging
import math
import re
import threading
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.frames.axes import UNKNOWN, Selection, guess_axes, spacing_of
from napari_ivos.frames.blocks import regular_edges
from napari_ivos.frames.sources import ArraySource
from napari_ivos.untrusted import CHUNK_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    import tifffile

Array = npt.NDArray[Any]

PLANES_AT_MOST = 1 << 24
"""Planes that OME metadata may declare."""
SPARE_PARTS = 16
"""A page may declare so many times the strips or tiles that it lists: some writers leave empty ones out."""
_OME_COUNTS = re.compile(r"\b(Size[TCZ]|PlaneCount|First[TCZ]|IFD)\s*=\s*[\"']\s*(\d+)")
_OME_FILES = re.compile(r"\bFileName\s*=\s*[\"']([^\"']*)")
_OME_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b([^<>]*)>")
_OME_SIZES = re.compile(r"\b(Size[XY]|(?:PhysicalSize[XYZ]|TimeIncrement)(?:Unit)?)\s*=\s*([\"'])(.{0,40}?)\2")

SUFFIXES = (".tif", ".tiff", ".btf", ".lsm", ".stk", ".qptiff", ".svs", ".ndpi", ".scn")
"""Endings of what tifffile reads."""


def tiff_source(path: Path, series: int | None = None) -> ArraySource:
    """Source behind a TIFF file; only its directory is read.

    Parameters
    ----------
    path : Path
        An existing file.
    series : int, optional
        Which image of a file that holds several; None: the first, with a note where there are more.

    Raises
    ------
    InputError
        No TIFF, damaged or cut short, or no such series.
    """
    import tifffile

    damage = _Complaints()
    with damage:
        try:
            file = tifffile.TiffFile(path)
        except Exception as error:  # whatever the parsing of damaged bytes runs into
            raise InputError(
                f"{path} can't be read as TIFF ({error}). Either it is another format under a TIFF's name, or it is "
                "damaged: copy it again from its origin."
            ) from error
        try:
            return _source(file, path, series, damage.messages)
        except InputError:
            file.close()
            raise
        except Exception as error:
            file.close()
            raise InputError(
                f"The directory of {path} can't be read ({type(error).__name__}: {error}): the file is damaged or was "
                "cut short. Copy it again from its origin."
            ) from error


def _source(file: tifffile.TiffFile, path: Path, number: int | None, damage: list[str]) -> ArraySource:
    check_ome(file, path)
    if len(file.pages) > 0:
        _check_page(file.pages.first, path)
    every = file.series
    if not every:
        raise InputError(f"{path} holds no image. Check that it was saved to the end, and copy it again.")
    if not 0 <= (number or 0) < len(every):
        raise InputError(f"{path} holds {len(every)} images, 0 to {len(every) - 1}; there is no series {number}.")
    series = every[number or 0].levels[0]
    _check_page(series.keyframe, path)
    _check_complete(file, series, path)
    source = _mapped(file, series, path) if series.dataoffset is not None else _through_zarr(series, path)
    source.close = file.close
    source.axes, source.assumed = _axes(series.axes, series.shape)
    source.kind = "OME-TIFF" if file.is_ome else "ImageJ TIFF" if file.is_imagej else "TIFF"
    spacing = _spacing(file, number or 0, series)
    if spacing:
        source.details["spacing"] = spacing
    source.notes += [f"the file seems damaged: {message}" for message in damage]
    if len(every) > 1:
        source.details["series"] = number or 0
        if number is None:
            note = f'{len(every)} images in the file; the first is used. Choose with index={{"series": ...}}.'
            source.notes.append(note)
    return source


def _mapped(file: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path) -> ArraySource:
    """Source of one contiguous block of bytes.

    The file is mapped anew for each read: a mapping that is kept counts all pages ever touched as memory of the
    process, and one of a file that shrinks kills it.
    """
    dtype: np.dtype[Any] = np.dtype(file.byteorder + series.dtype.char)
    shape, offset = series.shape, series.dataoffset or 0

    def fetch(selection: Selection) -> Array:
        return np.array(np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)[selection])

    return ArraySource("TIFF", path.name, shape, dtype, fetch, path=path)


def _through_zarr(series: tifffile.TiffPageSeries, path: Path) -> ArraySource:
    """Source of strips and tiles, through tifffile's zarr store."""
    import zarr

    array = zarr.open_array(series.aszarr(level=0), mode="r")
    edges = regular_edges(tuple(array.shape), tuple(array.chunks))

    def fetch(selection: Selection) -> Array:
        return np.asarray(array[selection])

    source = ArraySource("TIFF", path.name, series.shape, series.dtype, fetch, path=path, edges=edges)
    source.details["chunks"] = [int(step) for step in array.chunks]
    return source


def _axes(axes: str, shape: tuple[int, ...]) -> tuple[str | None, bool]:
    """Letters of tifffile, and whether T is a guess; where it knows the picture only, what the shape says."""
    letters = axes.upper()
    unknown = [letter for letter in letters if letter in UNKNOWN]
    if all(letter in UNKNOWN for letter in letters.replace("Y", "").replace("X", "")):
        return guess_axes(shape), bool(unknown)
    assumed = len(unknown) == 1 and "T" not in letters
    if assumed:
        letters = letters.replace(unknown[0], "T")
    known = len(set(letters)) == len(letters) and {"Y", "X"} <= set(letters)
    return (letters, assumed) if known else (None, False)


def _spacing(file: tifffile.TiffFile, number: int, series: tifffile.TiffPageSeries) -> dict[str, tuple[float, str]]:
    """Pixel size, distance of planes and time between frames, as OME or ImageJ metadata give them.

    The resolution of other TIFFs is what a printer was meant to do, and left alone.
    """
    if file.is_ome:
        return _spacing_of_ome(file.ome_metadata or "", number, dict(zip(series.axes, series.shape, strict=True)))
    told = file.imagej_metadata if file.is_imagej else None
    if not told:
        return {}
    tags, unit = file.pages.first.tags, told.get("unit")
    found: dict[str, tuple[Any, Any]] = {"T": (told.get("finterval"), told.get("tunit", "s"))}
    if unit:  # without one, lengths are in pixels
        found["Z"] = told.get("spacing"), unit
        for letter, name in (("X", "XResolution"), ("Y", "YResolution")):
            resolution = tags[name].value if name in tags else None
            if isinstance(resolution, tuple) and len(resolution) == 2 and resolution[0]:
                found[letter] = resolution[1] / resolution[0], unit
    return spacing_of(found)


def _spacing_of_ome(text: str, number: int, lengths: dict[str, int]) -> dict[str, tuple[float, str]]:
    pixels = _OME_PIXELS.findall(text)
    if number >= len(pixels):
        return {}
    told = {key: html.unescape(value) for key, _, value in _OME_SIZES.findall(pixels[number])}
    if any(told.get(f"Size{letter}") != str(lengths.get(letter)) for letter in "XY"):
        return {}
    found = {x: (told.get(f"PhysicalSize{x}"), told.get(f"PhysicalSize{x}Unit", "µm")) for x in "ZYX"}
    return spacing_of({"T": (told.get("TimeIncrement"), told.get("TimeIncrementUnit", "s")), **found})


def _check_page(page: tifffile.TiffPage, path: Path) -> None:
    """InputError for a page that declares more than its file can hold: found before anything of that size is made."""
    whole = f"{path} declares pages of {page.imagewidth:,} x {page.imagelength:,} px"
    parts, listed = math.prod(page.chunked), len(page.dataoffsets)
    if parts > SPARE_PARTS * (listed + SPARE_PARTS):
        raise InputError(
            f"{whole} in {parts:,} parts, but lists {listed:,}: its directory is damaged. Copy it again from "
            "its origin."
        )
    size = math.prod(page.chunks) * (0 if page.dtype is None else page.dtype.itemsize)
    if page.compression != 1 and size > CHUNK_BYTES:
        raise InputError(
            f"{whole}, packed in parts of {size / 2**30:,.1f} GB; parts up to {CHUNK_BYTES / 2**30:,.1f} GB are read. "
            "If that is true, save it in tiles: tifffile.imwrite(..., tile=(512, 512)); else it is damaged."
        )


def check_ome(file: tifffile.TiffFile, path: Path) -> None:
    """InputError for OME metadata that declares too much, or sends its reader to files elsewhere."""
    text = file.ome_metadata if len(file.pages) > 0 else None
    if not text:
        return
    for name, value in _OME_COUNTS.findall(text):
        if len(value) > 9 or int(value) > PLANES_AT_MOST:
            raise InputError(f"{path}: its OME metadata say {name}={value:.20}; at most {PLANES_AT_MOST:,} are read.")
    for named in map(html.unescape, _OME_FILES.findall(text)):
        if named != PurePosixPath(named).name or named != PureWindowsPath(named).name:
            raise InputError(
                f"{path}: its OME metadata name the file {named!r}, which lies elsewhere; only files beside it are "
                "read."
            )


def _check_complete(file: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path) -> None:
    """InputError where the file ends before the pixels do."""
    size = path.stat().st_size
    needed = 0
    if series.dataoffset is not None:
        needed = series.dataoffset + math.prod(series.shape) * series.dtype.itemsize
        # ImageJ writes one directory for all its images; where they can't all be there, tifffile gives the first only
        declared = (file.imagej_metadata or {}).get("images") if len(file.pages) == 1 else None
        if isinstance(declared, int) and declared > len(series):
            needed = max(needed, series.dataoffset + declared * file.pages.first.nbytes)
    else:
        for number in {0, len(series) // 2, len(series) - 1}:
            page = series[number]
            if page is not None and page.parent is file:
                ends = np.add(page.dataoffsets, page.databytecounts)
                needed = max(needed, int(ends.max(initial=0)))
    if needed > size:
        raise InputError(
            f"{path} is cut short: it has {size:,} bytes and its pixels need {needed:,}. Copy it again from its "
            "origin; if that is all there is, save the frames that are whole as a new file (ImageJ: Duplicate) and "
            "open that."
        )


class _Complaints(logging.Handler):
    """What tifffile logs on this thread while it reads a directory."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.messages.append(record.getMessage())

    def __enter__(self) -> None:
        logging.getLogger("tifffile").addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("tifffile").removeHandler(self)
