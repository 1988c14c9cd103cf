"""What a stack reads from: the `Source` protocol, and arrays of every kind (numpy, dask, zarr, xarray, or alike)."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.files import from_home
from napari_ivos.frames.axes import Selection, letters_of_names
from napari_ivos.frames.blocks import Edges, regular_edges

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from napari_ivos.frames.contrast import Range

Array = npt.NDArray[Any]

AXIS_AT_MOST = 1 << 31
"""A longer axis is no picture's."""
HEAVY_BYTES = 16 << 20
"""A chunk from this size on makes reading a small region of one frame expensive."""


class Source(Protocol):
    """N-dimensional values that are fetched by basic indices, from any number of threads.

    Attributes
    ----------
    kind : str
        What it is, for people: "TIFF", "zarr array", "video" ...
    name : str
        How messages call it.
    path : Path or None
        The file or folder it comes from.
    shape, dtype
        Of the whole source.
    axes : str or None
        One letter for each axis; None where nothing tells.
    assumed : bool
        Whether T among the axes is a guess.
    edges : Edges or None
        Borders of chunks that can only be read whole; None where any region is cheap.
    seeking : bool
        Reading another frame than the next one is slow (videos).
    as_is : (low, high) or None
        Contrast of values that are shown as they are, as a camera gives them; None: measured.
    in_memory : bool
        Reading costs nothing: nothing is read ahead.
    notes : list of str
        What the user should know.
    hint : str or None
        How to make reading cheaper.
    details : dict
        More for `describe`, JSON-able.
    """

    kind: str
    name: str
    path: Path | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str | None
    assumed: bool
    edges: Edges | None
    seeking: bool
    as_is: Range | None
    in_memory: bool
    notes: list[str]
    hint: str | None
    details: dict[str, Any]

    def fetch(self, selection: Selection) -> Array:
        """Values of a basic index: integers lose their axis."""
        ...

    def signature(self) -> bytes | None:
        """Bytes of the file that tell it from others, where decoded values may differ between machines; else None."""
        ...

    def close(self) -> None: ...


def _nothing() -> None:
    """Close an array: there is nothing to close."""


@dataclass
class ArraySource:
    """Anything that gives an array for a basic index."""

    kind: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fetch: Callable[[Selection], Array]
    path: Path | None = None
    axes: str | None = None
    assumed: bool = False
    edges: Edges | None = None
    seeking: bool = False
    as_is: Range | None = None
    in_memory: bool = False
    notes: list[str] = field(default_factory=list)
    hint: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    close: Callable[[], None] = _nothing

    def signature(self) -> bytes | None:
        return None


def array_source(array: Any, name: str = "array") -> ArraySource:
    """Source behind an array in memory or a lazy one; nothing is read.

    Parameters
    ----------
    array : array-like
        numpy, dask, zarr, xarray, or anything with shape, dtype and basic indexing.
    name : str
        How messages call it.
    """
    package = type(array).__module__.split(".")[0]
    if not all(hasattr(array, attribute) for attribute in ("shape", "dtype", "__getitem__")):
        raise InputError(
            f"open_frames can't read a {type(array).__name__}: give a path, or an array with shape, dtype and indexing "
            "(numpy, dask, zarr, xarray). A list of frames becomes an array with numpy.stack(frames)."
        )
    shape = _shape(array, name)
    dtype = _dtype(array)
    if isinstance(array, np.ndarray):
        values = np.asarray(array)
        on_disk = isinstance(array, np.memmap)
        return ArraySource("numpy array", name, shape, dtype, values.__getitem__, in_memory=not on_disk)
    if package == "dask":
        return _dask_source(array, name, shape, dtype)
    if package == "xarray":
        return _xarray_source(array, name, shape, dtype)
    if package == "zarr":
        return zarr_source(array, name)
    source = ArraySource(f"{package} array", name, shape, dtype, lambda at: np.asarray(array[at]))
    chunks = getattr(array, "chunks", None)
    if isinstance(chunks, tuple) and len(chunks) == len(shape) and all(isinstance(step, int) for step in chunks):
        source.edges = regular_edges(shape, chunks)
    return source


def zarr_source(array: Any, name: str, path: Path | None = None) -> ArraySource:
    """Source behind a `zarr.Array` of either format; axes from its dimension names where it has them."""
    shape = tuple(int(length) for length in array.shape)
    source = ArraySource("zarr array", name, shape, np.dtype(array.dtype), lambda at: np.asarray(array[at]), path=path)
    source.edges = regular_edges(shape, array.chunks)
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if names and len(names) == len(shape):
        source.axes = letters_of_names(names)
    source.details["chunks"] = [int(step) for step in array.chunks]
    return source


def _dask_source(array: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> ArraySource:
    def fetch(selection: Selection) -> Array:
        part = array[selection]
        # Threads pay only where several chunks are worked on; a distributed client gets no work one region at a time.
        return np.asarray(part.compute(scheduler="threads" if part.npartitions > 1 else "synchronous"))

    edges = tuple(np.append(0, np.cumsum(steps)).astype(np.int64) for steps in array.chunks)
    source = ArraySource("dask array", name, shape, dtype, fetch, edges=edges)
    source.details["chunks"] = [int(max(steps)) for steps in array.chunks]
    return source


def _xarray_source(array: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> ArraySource:
    name = str(array.name) if array.name is not None else name
    if array.chunks is not None:
        source = _dask_source(array.data, name, shape, dtype)
    else:
        lazy = array.variable  # indexing a variable reads that part of a file only
        source = ArraySource("xarray", name, shape, dtype, lambda at: np.asarray(lazy[at].values))
        source.in_memory = bool(getattr(lazy, "_in_memory", False))
    source.kind = "xarray"
    source.axes = letters_of_names(array.dims)
    return source


def _shape(array: Any, name: str) -> tuple[int, ...]:
    try:
        return tuple(int(length) for length in array.shape)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} has the shape {array.shape}, with lengths that are not known yet; for a dask array call "
            "array.compute_chunk_sizes() first."
        ) from error


def _dtype(array: Any) -> np.dtype[Any]:
    """Numpy's dtype of any array; libraries with dtypes of their own are asked for one value."""
    try:
        dtype: np.dtype[Any] = np.dtype(array.dtype)
    except TypeError:
        dtype = np.asarray(array[(slice(0, 1),) * len(array.shape)]).dtype
    return dtype


def check_values(source: Source) -> None:
    """InputError for a source that is empty or whose values are no real numbers."""
    if math.prod(source.shape) == 0 or not source.shape:
        raise InputError(
            f"{source.name} is empty: its shape is {source.shape}. A stack needs at least one frame of one pixel."
        )
    too_long = [n for n in source.shape if n > AXIS_AT_MOST]
    if too_long:
        raise InputError(
            f"{source.name} declares the shape {source.shape}; axes up to {AXIS_AT_MOST:,} are read: it is damaged."
        )
    if source.dtype.kind not in "buif":
        what = "complex numbers" if source.dtype.kind == "c" else f"values of dtype {source.dtype}"
        raise InputError(
            f"{source.name} holds {what}; frames need integers, floats or booleans. "
            + ("Take the magnitude first: abs(array)." if source.dtype.kind == "c" else "Convert it first.")
        )


def chunk_hint(source: Source, roles: Mapping[str, int | None]) -> str | None:
    """How to rechunk a source whose chunks make one region of one frame expensive, None where they are fine.

    Parameters
    ----------
    source : Source
    roles : mapping of str to int or None
        Positions of "frame", "row" and "column" among its axes.
    """
    if source.edges is None or source.seeking:
        return None
    steps = [int(np.diff(edges).max()) for edges in source.edges]
    size = source.dtype.itemsize * math.prod(steps)
    frames = 1 if roles["frame"] is None else steps[roles["frame"]]
    if size < HEAVY_BYTES:
        return None
    good = [1 if i not in (roles["row"], roles["column"]) else min(512, n) for i, n in enumerate(source.shape)]
    holds = f"{frames} frames" if frames > 1 else "one whole frame"
    where = "array" if source.path is None else source.path.name
    how = (
        f'dask.array.from_zarr("{where}").rechunk({tuple(good)}).to_zarr("rechunked.zarr")'
        if source.kind == "zarr array"
        else f"write it once as zarr with chunks={tuple(good)}, or as a TIFF in tiles: "
        'tifffile.imwrite("tiled.tif", frames, tile=(512, 512))'
    )
    return (
        f"Each chunk of {source.name} holds {holds} ({size / 2**20:,.0f} MB), and all of it is read for any region of "
        f"one frame. To make this fast, rechunk once: {how}"
    )


def existing(source: str | os.PathLike[str]) -> Path:
    """Path of a source that exists; InputError with what was found otherwise."""
    text = os.fspath(source)
    if not text:
        raise InputError("The path of the frames is empty: give a file, a folder, or an array.")
    if "://" in text:
        raise InputError(
            f"{text} is an address, not a file; open it with zarr, dask or fsspec and hand over the array: "
            "open_frames(zarr.open(address))."
        )
    path = from_home(text)
    if not path.exists():
        near = path.parent if path.parent.exists() else None
        where = f"its folder {near} exists" if near else f"its folder {path.parent} is missing too"
        raise InputError(f"There is no file or folder {path} ({where}). Check the spelling.")
    if not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is neither a file nor a folder (a pipe or a device): copy what it gives to a file.")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes): it was probably not copied whole. Copy it again from its origin.")
    return path
