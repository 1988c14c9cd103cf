"""Patches, references and strokes as bytes: a header that says how large they are, checked before anything unpacks."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import ProjectError

MAXIMUM_CELLS = 1 << 28
"""A patch of more cells than this (16,384 x 16,384) is refused."""
MAXIMUM_VALUES = 1 << 26
"""An array (reference, stroke) of more values than this is refused."""
_MAGIC = b"IVP1"
_ARRAY = b"IVA1"
_PATCH_HEADER = struct.Struct("<4sII")
_ARRAY_HEADER = struct.Struct("<4sBB")
_DTYPES = (np.dtype("<f2"), np.dtype("<f4"), np.dtype("<f8"))
_LEVEL = 1  # of zlib: masks are flat, higher levels cost more time than they save


def inflate(data: bytes, size: int, what: str) -> bytes:
    """Unpack zlib data that must give exactly `size` bytes; never makes more than that, whatever the data claim."""
    machine = zlib.decompressobj()
    try:
        plain = machine.decompress(data, size + 1)
    except zlib.error as error:
        raise ProjectError(f"{what} is damaged ({error}).") from error
    if len(plain) != size or not machine.eof:
        raise ProjectError(f"{what} is damaged: it holds more or less than the {size:,} bytes that it declares.")
    return plain


def pack_cells(cells: npt.NDArray[np.uint8]) -> bytes:
    """Probabilities (h, w) as bytes."""
    return _PATCH_HEADER.pack(_MAGIC, *cells.shape) + zlib.compress(np.ascontiguousarray(cells).data, _LEVEL)


def unpack_cells(data: object, limit: tuple[int, int], what: str) -> npt.NDArray[np.uint8]:
    """Probabilities (h, w), at most `limit` (the box they lie in); read-only."""
    if not isinstance(data, bytes) or len(data) < _PATCH_HEADER.size:
        raise ProjectError(f"{what} is damaged: it is cut short.")
    magic, h, w = _PATCH_HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ProjectError(f"{what} is damaged: it starts with {magic!r}.")
    if not (0 < h <= limit[0] and 0 < w <= limit[1] and h * w <= MAXIMUM_CELLS):
        raise ProjectError(f"{what} declares {h} x {w} cells for a box of {limit[0]} x {limit[1]} pixels: refused.")
    plain = inflate(data[_PATCH_HEADER.size :], h * w, what)
    return np.frombuffer(plain, np.uint8).reshape(h, w)


def pack_array(values: npt.NDArray[np.floating]) -> bytes:
    """A float16, float32 or float64 array of any shape as bytes."""
    dtype = values.dtype.newbyteorder("<")
    shape = struct.pack(f"<{values.ndim}I", *values.shape)
    plain = np.ascontiguousarray(values, dtype).tobytes()
    return _ARRAY_HEADER.pack(_ARRAY, _DTYPES.index(dtype), values.ndim) + shape + zlib.compress(plain, _LEVEL)


def declared_cells(data: object) -> int:
    """How many cells packed probabilities will unpack to; 0 where `unpack_cells` refuses them."""
    if not isinstance(data, bytes) or len(data) < _PATCH_HEADER.size:
        return 0
    _, h, w = _PATCH_HEADER.unpack_from(data)
    return h * w if h * w <= MAXIMUM_CELLS else 0


def unpack_array(data: object, what: str, most: int = MAXIMUM_VALUES) -> npt.NDArray[np.floating]:
    """The array again, of at most so many values; read-only."""
    if not isinstance(data, bytes) or len(data) < _ARRAY_HEADER.size:
        raise ProjectError(f"{what} is damaged: it is cut short.")
    magic, kind, ndim = _ARRAY_HEADER.unpack_from(data)
    start = _ARRAY_HEADER.size + 4 * ndim
    if magic != _ARRAY or kind >= len(_DTYPES) or ndim > 8 or len(data) < start:
        raise ProjectError(f"{what} is damaged: its header is not one of ours.")
    shape = struct.unpack_from(f"<{ndim}I", data, _ARRAY_HEADER.size)
    count = 1
    for length in shape:
        count *= length
    if count > most:
        raise ProjectError(f"{what} declares {count:,} values; at most {most:,} are taken.")
    plain = inflate(data[start:], count * _DTYPES[kind].itemsize, what)
    return np.frombuffer(plain, _DTYPES[kind]).reshape(shape)
