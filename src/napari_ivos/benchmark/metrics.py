"""What a benchmark counts: region overlap J, boundary measure F, and the curve of a metric against time; pure.

J and F are those of DAVIS (Perazzi et al. 2016), the area under the curve that of its interactive track (Caelles et
al. 2018). All ids of a frame are counted in one pass: a benchmark computes J for every object, frame and round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.regions import Box, mask_box

if TYPE_CHECKING:
    from collections.abc import Sequence

BOUNDARY_TOLERANCE = 0.008
"""How far apart two boundaries may lie and still match, over the diagonal of the image."""

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


def jaccard(truth: npt.ArrayLike, prediction: npt.ArrayLike) -> float:
    """Intersection over union of two masks.

    Parameters
    ----------
    truth, prediction : array-like of bool
        Of one shape.

    Returns
    -------
    float
        0..1; 1 where both are empty.

    Raises
    ------
    InputError
        Two shapes.
    """
    a, b = np.asarray(truth, bool), np.asarray(prediction, bool)
    _same_shape(a, b)
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


def frame_jaccard(truth: Labels, prediction: Labels, n_objects: int) -> Floats:
    """J of the objects 1..n_objects of one frame, from one confusion count.

    Parameters
    ----------
    truth, prediction : (H, W) integer array
        0 = background; ids above `n_objects` are nobody's.
    n_objects : int
        How many ids to count.

    Returns
    -------
    (n_objects,) float64 array
        Entry k is of id k + 1; 1 where it is in neither.
    """
    both, in_truth, in_prediction = _areas(truth, prediction, n_objects)
    union = in_truth + in_prediction - both
    return np.where(union > 0, both / np.maximum(union, 1), 1.0)


def stack_jaccard(truth: npt.NDArray[np.integer], prediction: npt.ArrayLike, n_objects: int) -> Floats:
    """`frame_jaccard` of every frame of a stack: (T, H, W) twice to (T, n_objects)."""
    given = np.asarray(prediction)
    _same_shape(truth, given)
    return np.stack([frame_jaccard(a, b, n_objects) for a, b in zip(truth, given, strict=True)])


def _areas(truth: Labels, prediction: Labels, n: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Pixels of id k + 1 in both, in the truth, in the prediction: three (n,) arrays."""
    _same_shape(truth, prediction)
    a, b = truth.ravel(), prediction.ravel()
    lowest = min(int(a.min(initial=0)), int(b.min(initial=0)))
    if lowest < 0:
        raise InputError(f"Labels hold {lowest}; ids run from 1, 0 is the background.")
    agree = np.bincount(a[a == b], minlength=n + 1)
    counted = (agree, np.bincount(a, minlength=n + 1), np.bincount(b, minlength=n + 1))
    return tuple(c[1 : n + 1].astype(np.int64) for c in counted)


def boundary_f(truth: npt.ArrayLike, prediction: npt.ArrayLike, tolerance: int | None = None) -> float:
    """Boundary F-measure of two masks: how much of each outline lies near the other.

    Parameters
    ----------
    truth, prediction : (H, W) array-like of bool
        Two masks of a whole frame.
    tolerance : int, optional
        Pixels that outlines may lie apart; ceil(0.008 * diagonal of the frame) if not given.

    Returns
    -------
    float
        0..1: harmonic mean of the shares of the predicted outline near the true one and of the true one near the
        predicted one. 1 where neither has an outline, 0 where one has none.
    """
    a, b = np.asarray(truth, bool), np.asarray(prediction, bool)
    _same_shape(a, b)
    reach = boundary_tolerance((a.shape[0], a.shape[1])) if tolerance is None else tolerance
    return _outline_f(_outline(a), _outline(b), reach)


def boundary_tolerance(shape: tuple[int, int]) -> int:
    """Pixels that two outlines may lie apart in an image of (H, W)."""
    return int(np.ceil(BOUNDARY_TOLERANCE * np.hypot(*shape)))


def frame_boundary_f(truth: Labels, prediction: Labels, n_objects: int) -> Floats:
    """`boundary_f` of the objects 1..n_objects of one frame, each in its own box: (H, W) twice to (n_objects,)."""
    from scipy.ndimage import find_objects

    _same_shape(truth, prediction)
    shape = (truth.shape[0], truth.shape[1])
    reach = boundary_tolerance(shape)
    boxes = [_boxes(find_objects(x.astype(np.int32), n_objects)) for x in (truth, prediction)]
    values = np.ones(n_objects)
    for k, (mine, yours) in enumerate(zip(*boxes, strict=True)):
        if mine is None and yours is None:
            continue
        box = mine.union(yours) if mine and yours else mine or yours
        assert box is not None
        # One pixel more than the object on each side, so that an outline inside the image looks like one.
        around = Box(box.y0 - 1, box.x0 - 1, box.y1 + 1, box.x1 + 1).clip(shape)
        at = around.slices
        values[k] = _outline_f(_outline(truth[at] == k + 1), _outline(prediction[at] == k + 1), reach)
    return values


def stack_boundary_f(truth: npt.NDArray[np.integer], prediction: npt.ArrayLike, n_objects: int) -> Floats:
    """`frame_boundary_f` of every frame of a stack: (T, H, W) twice to (T, n_objects)."""
    given = np.asarray(prediction)
    _same_shape(truth, given)
    return np.stack([frame_boundary_f(a, b, n_objects) for a, b in zip(truth, given, strict=True)])


def _boxes(found: Sequence[tuple[slice, slice] | None]) -> list[Box | None]:
    return [None if s is None else Box(s[0].start, s[1].start, s[0].stop, s[1].stop) for s in found]


def _outline(mask: Mask) -> Mask:
    """Pixels that differ from the neighbour to the right, below, or both: an outline one pixel wide."""
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge


def _outline_f(truth: Mask, prediction: Mask, reach: int) -> float:
    n_truth, n_prediction = int(np.count_nonzero(truth)), int(np.count_nonzero(prediction))
    if n_truth == 0 and n_prediction == 0:
        return 1.0
    if n_truth == 0 or n_prediction == 0:
        return 0.0
    precision = _share_near(prediction, truth, reach)
    recall = _share_near(truth, prediction, reach)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _share_near(outline: Mask, other: Mask, reach: int) -> float:
    """Share of `outline` within `reach` pixels of `other`; a distance map costs the same for every reach."""
    import cv2

    box = mask_box(outline)
    assert box is not None
    at = Box(box.y0 - reach, box.x0 - reach, box.y1 + reach, box.x1 + reach).clip(outline.shape).slices
    if not other[at].any():
        return 0.0
    away = np.where(other[at], 0, 1).astype(np.uint8)
    distance = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(np.mean(distance[outline[at]] <= reach + 1e-3))


def _same_shape(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> None:
    if a.shape != b.shape:
        raise InputError(f"Truth and prediction have two shapes, {a.shape} and {b.shape}: they must be of one frame.")


def area_under_curve(times: npt.ArrayLike, values: npt.ArrayLike, horizon: float) -> float:
    """Mean height of a metric's curve against time, from 0 to the horizon.

    The curve starts at (0, 0), runs straight from point to point, and holds its last value up to the horizon.

    Parameters
    ----------
    times : (N,) array-like of float
        Cumulative seconds at the end of each round, ascending.
    values : (N,) array-like of float
        The metric after each round.
    horizon : float
        Seconds: time limit times rounds times mean number of objects. What lies beyond is cut off.

    Returns
    -------
    float
        Area / horizon, between 0 and the largest value.

    Raises
    ------
    InputError
        No points, two lengths, times that fall or are below 0, or a horizon that is not above 0.
    """
    t, v = _curve(times, values)
    if not horizon > 0:
        raise InputError(f"The horizon is {horizon} s; give a time above 0.")
    inside = t < horizon
    t_all = np.concatenate([t[inside], [horizon]])
    v_all = np.concatenate([v[inside], [np.interp(horizon, t, v)]])
    return float(np.sum(np.diff(t_all) * (v_all[1:] + v_all[:-1]) / 2) / horizon)


def value_at(times: npt.ArrayLike, values: npt.ArrayLike, seconds: float = 60.0) -> float:
    """The metric at a time on the curve of `area_under_curve`: straight between rounds, held after the last."""
    t, v = _curve(times, values)
    return float(np.interp(seconds, t, v))


def _curve(times: npt.ArrayLike, values: npt.ArrayLike) -> tuple[Floats, Floats]:
    t, v = np.asarray(times, float).ravel(), np.asarray(values, float).ravel()
    if t.size == 0 or t.size != v.size:
        raise InputError(f"A curve needs as many times as values and at least one; found {t.size} and {v.size}.")
    if t[0] < 0 or (np.diff(t) < 0).any():
        raise InputError(f"Times of a curve must ascend from 0; found {t.tolist()}.")
    return np.concatenate([[0.0], t]), np.concatenate([[0.0], v])
