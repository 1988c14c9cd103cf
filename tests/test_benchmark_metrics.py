"""Metrics of the benchmark against answers known by construction and against slow, plain counting."""

import numpy as np
import pytest

from napari_ivos.benchmark import metrics
from napari_ivos.errors import InputError


def square(shape, y, x, side):
    mask = np.zeros(shape, bool)
    mask[y : y + side, x : x + side] = True
    return mask


@pytest.mark.parametrize(
    ("shift", "expected"),
    [(0, 1.0), (5, 50 / 150), (10, 0.0)],
    ids=["same", "half", "apart"],
)
def test_jaccard_of_shifted_squares(shift, expected):
    """J of two 10 x 10 squares is overlap over union."""
    assert metrics.jaccard(square((40, 40), 5, 5, 10), square((40, 40), 5, 5 + shift, 10)) == pytest.approx(expected)


def test_jaccard_of_nothing():
    """J is 1 where both masks are empty and 0 where one is."""
    nothing, something = np.zeros((8, 8), bool), square((8, 8), 2, 2, 3)
    assert metrics.jaccard(nothing, nothing) == 1
    assert metrics.jaccard(nothing, something) == metrics.jaccard(something, nothing) == 0


def test_frame_jaccard_is_that_of_each_object():
    """Counting all ids at once gives each object the J of its own two masks."""
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 6, (2, 3, 50, 40)).astype(np.uint16)
    truth[truth == 4] = 0
    prediction[0][prediction[0] == 4] = 0
    found = metrics.stack_jaccard(truth, prediction, 7)
    slow = [[metrics.jaccard(truth[t] == k, prediction[t] == k) for k in range(1, 8)] for t in range(3)]
    np.testing.assert_allclose(found, slow)
    assert found[0, 3] == 1
    assert found[1, 3] == 0
    assert (found[:, 5:] == 1).all()


def slow_f(truth, prediction, reach):
    """Boundary F by comparing every outline pixel with every other."""

    def outline(mask):
        h, w = mask.shape
        return [
            (y, x)
            for y in range(h)
            for x in range(w)
            if any(mask[y, x] != mask[j, i] for j, i in ((y, x + 1), (y + 1, x), (y + 1, x + 1)) if j < h and i < w)
        ]

    def near(points, others):
        return np.mean([any((y - j) ** 2 + (x - i) ** 2 <= reach**2 for j, i in others) for y, x in points])

    a, b = outline(truth), outline(prediction)
    if not a or not b:
        return float(not a and not b)
    precision, recall = near(b, a), near(a, b)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(6))
def test_boundary_f_is_what_counting_gives(seed):
    """F through distance maps equals F by comparing all pairs of outline pixels."""
    rng = np.random.default_rng(seed)
    shape = (40, 60)
    truth = square(shape, *rng.integers(2, 20, 2), 15)
    prediction = square(shape, *rng.integers(2, 20, 2), int(rng.integers(8, 18))) ^ (rng.random(shape) < 0.005)
    for reach in (1, 3):
        assert metrics.boundary_f(truth, prediction, reach) == pytest.approx(slow_f(truth, prediction, reach))


def test_boundary_f_per_frame_is_that_of_whole_masks():
    """F in each object's own box equals F on the whole frame, at the frame's borders too."""
    truth, prediction = np.zeros((2, 120, 160), np.uint16)
    for k, (y, x) in enumerate([(0, 0), (60, 120), (100, 20), (30, 60)], start=1):
        truth[y : y + 30, x : x + 40] = k
        prediction[y + 3 : y + 31, max(x - 2, 0) : x + 38] = k
    prediction[prediction == 3] = 0
    found = metrics.frame_boundary_f(truth, prediction, 5)
    whole = [metrics.boundary_f(truth == k, prediction == k) for k in range(1, 6)]
    np.testing.assert_allclose(found, whole)
    assert found[2] == 0
    assert found[4] == 1


def test_boundary_tolerance_is_in_share_of_the_diagonal():
    """The tolerance is 0.008 of the diagonal, rounded up: 8 pixels at 480p; within it F is 1, beyond it falls."""
    assert metrics.boundary_tolerance((480, 854)) == 8
    assert metrics.boundary_tolerance((360, 640)) == 6
    truth = square((360, 640), 100, 100, 80)
    assert metrics.boundary_f(truth, square((360, 640), 100, 106, 80)) == 1
    assert metrics.boundary_f(truth, square((360, 640), 100, 107, 80)) < 1


def test_area_under_curve_by_hand():
    """A curve from (0, 0) over (10, 0.5) and (20, 0.7), held to 100, has the area 2.5 + 6 + 56."""
    assert metrics.area_under_curve([10, 20], [0.5, 0.7], 100) == pytest.approx(0.645)
    assert metrics.value_at([10, 20], [0.5, 0.7], 5) == pytest.approx(0.25)
    assert metrics.value_at([10, 20], [0.5, 0.7], 15) == pytest.approx(0.6)
    assert metrics.value_at([10, 20], [0.5, 0.7]) == pytest.approx(0.7)


def test_area_stops_at_the_horizon():
    """What lies beyond the horizon does not count: (0, 0) to (40, 0.8), cut at 20, is a triangle of mean height 0.2."""
    assert metrics.area_under_curve([40], [0.8], 20) == pytest.approx(0.2)
    assert metrics.area_under_curve([0, 0], [0.3, 0.8], 50) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("times", "values", "horizon"),
    [([], [], 1), ([1, 2], [1], 1), ([2, 1], [0, 1], 1), ([-1], [0], 1), ([1], [1], 0)],
    ids=["empty", "lengths", "falling", "negative", "horizon"],
)
def test_curves_that_are_none(times, values, horizon):
    """A curve without points, of two lengths, not ascending, or without a horizon is refused."""
    with pytest.raises(InputError):
        metrics.area_under_curve(times, values, horizon)


@pytest.mark.parametrize("metric", [metrics.jaccard, metrics.boundary_f])
def test_masks_of_two_shapes(metric):
    """Masks of two shapes are refused with both shapes in the message."""
    with pytest.raises(InputError, match=r"\(4, 5\).*\(5, 4\)"):
        metric(np.zeros((4, 5)), np.zeros((5, 4)))
