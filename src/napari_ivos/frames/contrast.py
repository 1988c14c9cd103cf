"""From a source's numbers to 0..1: one (low, high) for each shown channel, measured on a sample; pure functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = npt.NDArray[Any]
Range = tuple[float, float]

PERCENTILES = (0.1, 99.9)
"""Part of the values below black, and up to white: robust to hot and dead pixels."""
CHUNKS_AT_MOST = 64
"""Chunks of a stack that are read to measure its contrast."""
FRAMES_AT_MOST = 16
"""Frames over which these are spread."""
CELL = 256
"""Side of the part of a chunk that counts, in pixels."""
VALUES_PER_CELL = 16_384
"""Values that are kept of it."""
TINT = 0.03
"""Channels that differ by more than this share of a sample's range make colour, not a codec's rounding."""
TINTED = 0.005
"""Share of pixels with colour from which a sample is in colour."""
BYTE_VALUES = 256
"""Values of an unsigned byte; regions of more are looked up in a table of them."""
_PLASTIC = (0.7548776662466927, 0.5698402909980532)
"""Steps of the sequence that spreads points most evenly over a square."""


def spread_cells(shape: tuple[int, int], count: int, start: int = 0) -> list[tuple[int, int]]:
    """`count` distinct cells, or all, spread evenly over a grid of `shape` (rows, columns)."""
    if count >= shape[0] * shape[1]:
        return [(row, column) for row in range(shape[0]) for column in range(shape[1])]
    cells: dict[tuple[int, int], None] = {}
    step = start
    while len(cells) < count:
        at = [(0.5 + step * stride) % 1 for stride in _PLASTIC]
        cells[min(int(at[0] * shape[0]), shape[0] - 1), min(int(at[1] * shape[1]), shape[1] - 1)] = None
        step += 1
    return list(cells)


def thin(values: Array) -> Array:
    """At most about `VALUES_PER_CELL` of an (h, w, c) array's pixels, evenly, as (n, c)."""
    step = max(1, math.isqrt(values.shape[0] * values.shape[1] // VALUES_PER_CELL))
    return values[::step, ::step].reshape(-1, values.shape[2])


def in_colour(values: Array) -> bool:
    """Whether a sample of (n, c) values of any real dtype is in colour: its channels differ at some of the pixels."""
    known = values[np.isfinite(values).all(axis=1)].astype(np.float64)
    if known.size == 0:
        return False
    least, most = known.min(axis=1), known.max(axis=1)
    return bool(np.mean(most - least > TINT * (most.max() - least.min())) > TINTED)


def measure(values: Array) -> tuple[Range, bool, list[str]]:
    """Contrast of one channel.

    Parameters
    ----------
    values : (n,) array of any real dtype
        A sample of the channel.

    Returns
    -------
    range : (low, high)
        What becomes 0 and 1; always finite, low < high.
    known : bool
        False where all values are equal or none is finite, so that the range says nothing about the rest of the stack.
    notes : list of str
        NaN, inf and constant values.
    """
    finite, notes = values, []
    if values.dtype.kind == "f":
        keep = np.isfinite(values)
        finite = values[keep]
        if not keep.all():
            bad = 100 * (1 - keep.mean())
            notes.append(
                f"{bad:.3g} % of the sampled values are NaN or infinite; NaN is shown as 0 and does not count."
            )
    if finite.size == 0:
        return (
            (0.0, 1.0),
            False,
            [*notes, "no sampled value is finite; the contrast is set by the first region that has some."],
        )
    work = finite.astype(np.float64)
    low, high = (float(x) for x in np.percentile(work, PERCENTILES))
    if not low < high:
        rest = work[work != low]
        if rest.size == 0:
            note = f"all sampled values are {low:g}; the contrast is set by the first region that has others."
            return (low, low + max(1.0, abs(low))), False, [*notes, note]
        low, high = min(low, float(rest.min())), max(low, float(np.percentile(rest, PERCENTILES[1])))
    return (low, high), True, notes


def apply(values: Array, ranges: Sequence[Range]) -> npt.NDArray[np.float32]:
    """(h, w, c) values of any real dtype to (h, w, c) float32 in 0..1; NaN becomes 0."""
    if values.dtype == np.uint8 and values.size > BYTE_VALUES:
        return _looked_up(values, ranges)
    return _computed(values, ranges)


def _looked_up(values: npt.NDArray[np.uint8], ranges: Sequence[Range]) -> npt.NDArray[np.float32]:
    """`_computed`, by what it gives for each of the few values that there are; in half its time."""
    import cv2

    each = np.arange(BYTE_VALUES, dtype=np.uint8)[None, :, None]
    table = _computed(np.repeat(each, values.shape[2], axis=2), ranges)  # (1, 256, c)
    out = np.asarray(cv2.LUT(np.ascontiguousarray(values), table), np.float32)
    return out.reshape(values.shape)  # OpenCV drops an only channel


def _computed(values: Array, ranges: Sequence[Range]) -> npt.NDArray[np.float32]:
    wide = values.dtype.itemsize > (2 if values.dtype.kind in "iu" else 4)
    work: type[np.floating[Any]] = np.float64 if wide else np.float32
    height, width, channels = values.shape
    out: npt.NDArray[np.floating[Any]] = values.astype(work, order="C").reshape(height, width * channels)
    low, high = (np.tile(np.array(side, work), width) for side in zip(*ranges, strict=True))  # of whole rows
    # Infinite values, and ranges near the limits of the type, may overflow on the way; the clip gives them their place.
    with np.errstate(all="ignore"):
        out = np.clip((out - low) / np.maximum(high - low, np.finfo(work).tiny), 0.0, 1.0)
    if values.dtype.kind == "f":
        np.nan_to_num(out, copy=False, nan=0.0)
    return out.astype(np.float32, copy=False).reshape(values.shape)


def check_ranges(given: Any, count: int) -> tuple[Range, ...]:
    """Check a user's contrast, (low, high) or one such pair for each of `count` shown channels; pairs come back."""
    problem = f"contrast must be (low, high), or {count} such pairs, one for each shown channel; found {given!r}"
    try:
        pairs = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{problem}.") from error
    if pairs.shape == (2,):
        pairs = np.repeat(pairs[None], count, axis=0)
    if pairs.shape != (count, 2):
        raise InputError(f"{problem} of shape {pairs.shape}.")
    if not np.isfinite(pairs).all() or not (pairs[:, 0] < pairs[:, 1]).all():
        raise InputError(f"{problem}: both must be finite, and low below high.")
    return tuple((float(low), float(high)) for low, high in pairs)
