"""Masks as patches, and everything that is done to them without a network; pure, numpy only.

A mask of one object on one frame is a `Patch`: a box and a small uint8 probability. What is stored is always the
network's own probability of one object, blended with its older self but never merged with other objects. Objects meet
only when they are read: as labels (`compose`, whole-number arithmetic, the same to the last bit everywhere) and before
the next frame is computed (`merged`, soft aggregation).

Equations
---------
Soft aggregation (Oh et al. 2018, equation 1): with p_m the probability of object m = 1..M and p_0 = prod(1 - p_m),
the merged probability is odds(p_m) / sum_j odds(p_j), odds(p) = p / (1 - p).

Blending: on a side bounded by an earlier annotated frame at distance d, the new mask's weight at distance k from the
frame annotated now is 1 - k / d; on an open side it is 1.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import cached_property, reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_ivos.regions import MASK_LEVEL, Box, mask_box, meeting, stacked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

FULL = 255
"""The uint8 value of probability 1."""
CLAMP = 1e-4
"""Probabilities are kept this far from 0 and 1 before odds are taken."""
_WEIGHT = 256
_UNIT = 65535  # probability 1 in the whole numbers of `compose`; its square still fits 32 bits

Float = npt.NDArray[np.float32]


class Origin(IntEnum):
    """Where a patch comes from; on ties the lower one wins."""

    PAINTED = 0
    SCRIBBLED = 1
    PROPAGATED = 2

    @property
    def annotated(self) -> bool:
        """Whether it is the user's: painted, or segmented from strokes on that very frame."""
        return self is not Origin.PROPAGATED


@dataclass(frozen=True, eq=False)
class Patch:
    """One object's probability on one frame.

    Parameters
    ----------
    box : Box
        The part of the frame that it covers; outside it the probability is 0.
    probability : (h, w) uint8 array
        0..255 for 0..1, at the network's resolution or the frame's own, whichever is coarser.
    origin : Origin
        Painted, scribbled or propagated.
    """

    box: Box
    probability: npt.NDArray[np.uint8]
    origin: Origin = Origin.PROPAGATED

    @classmethod
    def from_probability(cls, box: Box, probability: npt.NDArray[np.floating], origin: Origin) -> Patch:
        """Quantise a network's (S, S) probability over `box`; never kept finer than the frame's own pixels."""
        values: Float = np.ascontiguousarray(probability, np.float32)
        shape = (min(values.shape[0], box.height), min(values.shape[1], box.width))
        if shape != values.shape:
            values = _resize(values, box, box, shape)
        return cls(box, np.rint(np.clip(values, 0, 1) * FULL).astype(np.uint8), origin)

    @classmethod
    def from_mask(cls, mask: npt.NDArray[np.bool_], offset: tuple[int, int] = (0, 0)) -> Patch:
        """An exact painted mask: `mask` (H, W) lies at `offset` (row, col) in the frame; cut to its own box."""
        box = mask_box(mask) or Box(0, 0, 1, 1)
        cut = np.where(mask[box.slices], FULL, 0).astype(np.uint8)
        return cls(box.shift(*offset), cut, Origin.PAINTED)

    @cached_property
    def extent(self) -> Box | None:
        """Box in the frame around what is mask in this patch alone; None where nothing is."""
        return extent_of(self.probability >= FULL * MASK_LEVEL, self.box)

    @cached_property
    def support(self) -> Box:
        """Box in the frame that holds every pixel above 0, with a cell to spare; empty where there is none."""
        around = extent_of(self.probability > 0, self.box)
        if around is None:
            return Box(self.box.y0, self.box.x0, self.box.y0, self.box.x0)
        h, w = self.probability.shape
        py, px = _divide_up(self.box.height, h), _divide_up(self.box.width, w)
        return Box(around.y0 - py, around.x0 - px, around.y1 + py, around.x1 + px).intersect(self.box)

    @cached_property
    def _filled(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Ranges of the rows and of the columns of cells that hold all that is above 0; empty ones where nothing is."""
        cells = mask_box(self.probability > 0)
        return ((0, 0), (0, 0)) if cells is None else ((cells.y0, cells.y1), (cells.x0, cells.x1))

    @property
    def empty(self) -> bool:
        return self.extent is None

    def with_origin(self, origin: Origin) -> Patch:
        return Patch(self.box, self.probability, origin)


def extent_of(mask: npt.NDArray[np.bool_], box: Box) -> Box | None:
    """Box in the frame around the true cells of a mask (h, w) that lies over `box` at any resolution."""
    cells = mask_box(mask)
    if cells is None:
        return None
    h, w = mask.shape
    return Box(
        box.y0 + cells.y0 * box.height // h,
        box.x0 + cells.x0 * box.width // w,
        box.y0 + _divide_up(cells.y1 * box.height, h),
        box.x0 + _divide_up(cells.x1 * box.width, w),
    )


def _divide_up(a: int, b: int) -> int:
    """Ceiling of a / b in whole numbers: floats would now and then give one more than the box holds."""
    return -(-a // b)


Range = tuple[int, int]
"""First entry, and the one behind the last."""


class _Taps(NamedTuple):
    """Which source cells each of n target cells of an axis is made of, K of them, and how much of each."""

    cells: npt.NDArray[np.intp]  # (K, n)
    weights: Float  # (K, n)


def _taps(
    source: Range, target: Range, n_source: int, n_target: int, cells: Range | None = None, at: Range | None = None
) -> _Taps:
    """How to resample one axis; outside the source there is 0.

    Enlarging is linear between the cells' centres and level from the outer centres to the source's border, so that a
    mask that ends at its box keeps its edge. Shrinking is by the share of a target cell that each source cell covers,
    so that the area stays the same, down to objects that are smaller than one target cell. `cells` and `at`: only
    these source cells, counted from the first of them, and these target cells.
    """
    length_source, length_target = source[1] - source[0], target[1] - target[0]
    first, last = cells or (0, n_source)
    to_cells = np.arange(*(at or (0, n_target)))
    if length_target * n_source > length_source * n_target:
        step_source, step_target = length_source / n_source, length_target / n_target
        low = target[0] + to_cells * step_target
        widest = math.ceil(step_target / step_source) + 1
        begin = np.clip(np.floor((low - source[0]) / step_source).astype(np.intp), first - widest, last)
        own = begin + np.arange(widest)[:, None]
        start = source[0] + own * step_source
        covered = np.minimum(low + step_target, start + step_source) - np.maximum(low, start)
        weights = np.maximum(covered, 0) / step_target
    else:  # whole numbers as long as possible: a patch on its own grid comes back to the last bit
        centre = 2 * (target[0] - source[0]) * n_target + (2 * to_cells + 1) * length_target
        inside = (centre >= 0) & (centre < 2 * n_target * length_source)
        cell = np.minimum(np.maximum(centre * n_source / (2 * n_target * length_source) - 0.5, 0), n_source - 1)
        own = np.floor(cell).astype(np.intp) + np.arange(2)[:, None]
        weights = np.where(inside, np.maximum(1 - np.abs(cell - own), 0), 0)
    weights = np.where((own >= first) & (own < last), weights, 0)
    return _Taps(np.clip(own - first, 0, last - first - 1), weights.astype(np.float32))


def _resampled(values: Float, down: _Taps, along: _Taps) -> Float:
    """Values (h, w) at other rows and columns.

    No matrix product, although it would be one: the threads of BLAS and those of the networks wait for each other, and
    took twice the time together on two cores.
    """
    if values.size == 0:
        return np.zeros((down.weights.shape[1], along.weights.shape[1]), np.float32)
    rows = _weighted(values, down.cells, down.weights[..., None], axis=0)
    return _weighted(rows, along.cells, along.weights, axis=1)


def _weighted(values: Float, cells: npt.NDArray[np.intp], weights: Float, axis: int) -> Float:
    """Sums of K rows or columns each, with their weights, which have one axis or two."""
    out: Float = np.take(values, cells[0], axis)
    out *= weights[0]
    for those, weight in zip(cells[1:], weights[1:], strict=True):
        more = np.take(values, those, axis)
        more *= weight
        out += more
    return out


def _resize(values: Float, source: Box, target: Box, shape: tuple[int, int]) -> Float:
    down = _taps((source.y0, source.y1), (target.y0, target.y1), values.shape[0], shape[0])
    along = _taps((source.x0, source.x1), (target.x0, target.x1), values.shape[1], shape[1])
    return _resampled(values, down, along)


def sample(patch: Patch, box: Box, shape: tuple[int, int], part: tuple[Range, Range] | None = None) -> Float:
    """A patch's probability over `box` at `shape` (h, w): float32 in 0..1, 0 outside the patch.

    `part`: only these rows and columns of that. Costs grow with what is above 0 and asked for, not with box and patch.
    """
    if part is None and box == patch.box and shape == patch.probability.shape:
        return np.asarray(patch.probability / np.float32(FULL), np.float32)
    (y0, y1), (x0, x1) = patch._filled
    rows, columns = part or ((0, shape[0]), (0, shape[1]))
    h, w = patch.probability.shape
    down = _taps((patch.box.y0, patch.box.y1), (box.y0, box.y1), h, shape[0], (y0, y1), rows)
    along = _taps((patch.box.x0, patch.box.x1), (box.x0, box.x1), w, shape[1], (x0, x1), columns)
    return _resampled(np.asarray(patch.probability[y0:y1, x0:x1] / np.float32(FULL), np.float32), down, along)


def _cells_of(part: Box, box: Box, shape: tuple[int, int]) -> tuple[Range, Range]:
    """Rows and columns of a grid of `shape` over `box` that hold a part of it, with a cell to spare."""
    ranges = []
    for low, high, start, length, n in (
        (part.y0, part.y1, box.y0, box.height, shape[0]),
        (part.x0, part.x1, box.x0, box.width, shape[1]),
    ):
        first, last = (low - start) * n // length - 1, _divide_up((high - start) * n, length) + 1
        ranges.append((max(first, 0), min(last, n)))
    return ranges[0], ranges[1]


def aggregate(probabilities: npt.NDArray[np.floating]) -> Float:
    """Soft aggregation of objects (Oh et al. 2018, equation 1).

    Parameters
    ----------
    probabilities : (M, ...) float array
        Each object's own probability, 0..1.

    Returns
    -------
    (M + 1, ...) float32 array
        Merged probabilities of background (first) and objects; they sum to 1.
    """
    odds = _odds(probabilities)
    return np.asarray(odds / odds.sum(axis=0, keepdims=True), np.float32)


def _odds(probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Odds (M + 1, ...) of the background, which is first, and of the objects (M, ...)."""
    p = np.clip(np.asarray(probabilities, np.float64), CLAMP, 1 - CLAMP)
    background = np.clip(np.prod(1 - p, axis=0, keepdims=True), CLAMP, 1 - CLAMP)
    every = np.concatenate([background, p])
    return np.asarray(every / (1 - every), np.float64)


def merged(patches: Mapping[int, Patch], object_id: int, box: Box, shape: tuple[int, int]) -> Float:
    """One object's merged probability over `box` at `shape`, all patches of that frame competing.

    Painted masks come first, then scribbled ones, then propagated ones: each gets only what those before it leave, and
    those of one kind compete.

    Parameters
    ----------
    patches : mapping of int to Patch
        All objects of one frame.
    object_id : int
        The one that is asked for; 0 everywhere if it has no patch.
    box, shape : Box, tuple of int
        Where, and at what resolution (h, w).

    Returns
    -------
    (h, w) float32 array
    """
    if object_id not in patches:
        return np.zeros(shape, np.float32)
    own = patches[object_id]
    contested = own.support.intersect(box)
    meets = {i: p.support.intersect(contested) for i, p in patches.items() if i != object_id}
    rivals = [(patches[i], where) for i, where in meets.items() if not where.empty]
    result = sample(own, box, shape)
    if not rivals:
        return result
    (y0, y1), (x0, x1) = _cells_of(reduce(Box.union, (where for _, where in rivals)), box, shape)
    every = np.zeros((len(rivals) + 1, y1 - y0, x1 - x0), np.float32)
    every[0] = result[y0:y1, x0:x1]
    for k, (rival, where) in enumerate(rivals, start=1):  # each only where it meets the mask: most hardly do
        rows, columns = _cells_of(where, box, shape)
        at = slice(rows[0] - y0, rows[1] - y0), slice(columns[0] - x0, columns[1] - x0)
        every[k][at] = sample(rival, box, shape, (rows, columns))
    _give_way(every, np.array([own.origin, *(rival.origin for rival, _ in rivals)]))
    odds = _odds(every)
    alone = every[1:].max(axis=0) <= CLAMP
    result[y0:y1, x0:x1] = np.where(alone, every[0], odds[1] / odds.sum(axis=0))
    return result


def _give_way(probabilities: Float, origins: npt.NDArray[np.int_]) -> None:
    """Set (M, h, w) probabilities to 0, in place, where a mask of an earlier kind (lower origin) lies."""
    taken = np.zeros(probabilities.shape[1:], bool)
    for origin in np.unique(origins):
        kind = np.flatnonzero(origins == origin)
        probabilities[kind] = np.where(taken, 0, probabilities[kind])
        taken |= (probabilities[kind] >= MASK_LEVEL).any(axis=0)


def _whole_weights(source: tuple[int, int], n: int, low: int, high: int) -> tuple[npt.NDArray[np.int64], ...]:
    """For pixels low..high-1 of one axis: left cell, right cell, weight of the right one in 1/256."""
    extent = source[1] - source[0]
    at = np.arange(low, high, dtype=np.int64) - source[0]
    twice = (2 * at + 1) * n - extent  # 2 * extent * (position in cells)
    left = np.floor_divide(twice, 2 * extent)
    weight = ((twice - left * 2 * extent) * _WEIGHT + extent) // (2 * extent)
    return np.clip(left, 0, n - 1), np.clip(left + 1, 0, n - 1), weight


def _pixels(patch: Patch, window: Box) -> npt.NDArray[np.uint16]:
    """A patch at the frame's pixels of `window` (inside its box): uint16, 0.._UNIT, whole-number bilinear.

    Columns first, while there are few rows; then whole rows, which memory moves fast.
    """
    if patch.probability.shape == patch.box.shape:
        cut = patch.probability[window.shift(-patch.box.y0, -patch.box.x0).slices]
        return np.asarray(cut.astype(np.uint16) * np.uint16(257), np.uint16)
    h, w = patch.probability.shape
    top, bottom, wy = _whole_weights((patch.box.y0, patch.box.y1), h, window.y0, window.y1)
    left, right, wx = _whole_weights((patch.box.x0, patch.box.x1), w, window.x0, window.x1)
    values = patch.probability.astype(np.uint16)
    fy, fx = wy.astype(np.uint32)[:, None], wx.astype(np.uint16)
    one, scale = np.uint32(_WEIGHT), np.uint32(8)
    columns = values[:, left] * (np.uint16(_WEIGHT) - fx) + values[:, right] * fx  # (h, window w), at most 65280
    wide = columns.astype(np.uint32)
    pixels = (wide[top] * (one - fy) + wide[bottom] * fy) >> scale
    return np.asarray(pixels + (pixels >> scale), np.uint16)


def compose(patches: Mapping[int, Patch], window: Box) -> npt.NDArray[np.uint16]:
    """Labels of a window of one frame from all its patches, by whole-number arithmetic.

    A pixel goes to the object whose probability is highest and at least that of the background, prod(1 - p). Painted
    and scribbled masks are settled first; propagated ones get what they leave. Ties: painted before scribbled before
    propagated, then the lower id.

    Parameters
    ----------
    patches : mapping of int to Patch
        All objects of that frame.
    window : Box
        The part of the frame.

    Returns
    -------
    (h, w) uint16 array
        0 = background.
    """
    labels = np.zeros(window.shape, np.uint16)
    tiers: tuple[list[tuple[Origin, int, Box]], ...] = ([], [])
    for object_id, patch in patches.items():
        inside = patch.support.intersect(window)
        if not inside.empty:
            tiers[0 if patch.origin.annotated else 1].append((patch.origin, object_id, inside))
    for tier in tiers:
        if not tier:
            continue
        best = np.zeros(window.shape, np.uint16)
        rest = np.full(window.shape, _UNIT, np.uint16)
        won = np.zeros(window.shape, np.uint16)
        for _, object_id, inside in sorted(tier, key=lambda t: t[:2]):
            at = inside.shift(-window.y0, -window.x0).slices
            p = _pixels(patches[object_id], inside)
            np.copyto(won[at], np.uint16(object_id), where=p > best[at])
            np.maximum(best[at], p, out=best[at])
            rest[at] = (rest[at].astype(np.uint32) * (np.uint16(_UNIT) - p)) >> np.uint32(16)
        free = (labels == 0) & (best >= rest) & (best > 0)
        np.copyto(labels, won, where=free)
    return labels


def blend(new: Patch, old: Patch | None, weight: float) -> Patch:
    """Mix weight * new + (1 - weight) * old on the union of their boxes, at the finer of the two scales.

    Parameters
    ----------
    new, old : Patch
        `old` None means that there is nothing to blend with.
    weight : float
        Weight of the new one, 0..1.
    """
    if old is None or weight >= 1:
        return new
    box = new.box.union(old.box)
    shape = _finer_shape(box, new, old)
    mixed = weight * sample(new, box, shape) + (1 - weight) * sample(old, box, shape)
    return Patch(box, np.rint(mixed * FULL).astype(np.uint8), new.origin)


def _finer_shape(box: Box, *patches: Patch) -> tuple[int, int]:
    """Shape for `box` at which no patch loses resolution, at most one cell a pixel."""
    h = max(_divide_up(box.height * p.probability.shape[0], p.box.height) for p in patches)
    w = max(_divide_up(box.width * p.probability.shape[1], p.box.width) for p in patches)
    return min(h, box.height), min(w, box.width)


def overlap(a: Patch | None, b: Patch | None) -> float:
    """Intersection over union of two patches' masks (p >= 0.5); 1 where both are empty."""
    boxes = [p.extent for p in (a, b) if p is not None and p.extent is not None]
    if not boxes:
        return 1.0
    if a is None or b is None or len(boxes) == 1:
        return 0.0
    box = boxes[0].union(boxes[1])
    shape = _finer_shape(box, a, b)
    one, two = sample(a, box, shape) >= MASK_LEVEL, sample(b, box, shape) >= MASK_LEVEL
    union = np.count_nonzero(one | two)
    return float(np.count_nonzero(one & two) / union) if union else 1.0


def certainty(patch: Patch) -> float:
    """How sure a network was of a mask: 1 - 2 sum(min(p, 1 - p)) / sum(p >= 0.5), at least 0; empty: 1 - 2 max(p)."""
    p = patch.probability.astype(np.float32) / FULL
    area = np.count_nonzero(p >= MASK_LEVEL)
    if area == 0:
        return float(max(0.0, 1 - 2 * float(p.max(initial=0))))
    return float(max(0.0, 1 - 2 * float(np.minimum(p, 1 - p).sum()) / area))


class Bound(Enum):
    """What ends a pass over frames."""

    OPEN = "open"
    EARLIER = "earlier"
    SAME_ROUND = "same round"


@dataclass(frozen=True)
class Pass:
    """One object's way from a frame annotated in this round, in one direction, to what bounds it.

    `frames` are in the order in which they are computed; `distance` is to the bounding frame, None where it is open.
    """

    start: int
    frames: range
    bound: Bound
    distance: int | None

    def weight(self, frame: int) -> float:
        """Weight of the new mask at `frame`: 1 - k / d on a bounded side, 1 on an open one."""
        if self.distance is None:
            return 1.0
        return 1.0 - abs(frame - self.start) / self.distance


def passes(annotated: Collection[int], earlier: Collection[int], lifetime: range) -> tuple[Pass, ...]:
    """Which frames a round may change for one object.

    Parameters
    ----------
    annotated : collection of int
        Frames annotated for that object in this round; those outside its lifetime start nothing.
    earlier : collection of int
        Frames annotated for it in earlier rounds; the spans stop there.
    lifetime : range
        The frames on which it may exist.

    Returns
    -------
    tuple of Pass
        Forward passes in the order of their start, then backward ones; without empty ones.
    """
    now = sorted({frame for frame in annotated if frame in lifetime})
    stops = sorted(set(now) | set(earlier))
    found = []
    for step in (1, -1):
        for start in now:
            at = bisect_left(stops, start) + step
            end = stops[at] if 0 <= at < len(stops) else None
            edge = lifetime.stop if step > 0 else lifetime.start - 1
            if end is not None and (edge - end) * step <= 0:
                end = None
            frames = range(start + step, edge if end is None else end, step)
            if len(frames) == 0:
                continue
            bound = Bound.OPEN if end is None else Bound.SAME_ROUND if end in now else Bound.EARLIER
            found.append(Pass(start, frames, bound, None if end is None else abs(end - start)))
    return tuple(found)


def that_meet(patches: Mapping[int, Patch], object_ids: Iterable[int]) -> dict[int, dict[int, Patch]]:
    """For each of these objects, its patch and those that meet its box, in the order of `patches`."""
    ids, boxes = list(patches), stacked(p.box for p in patches.values())
    return {i: {ids[k]: patches[ids[k]] for k in meeting(patches[i].box, boxes)} for i in object_ids}
