"""Boxes and the choice of regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_ivos.regions import (
    MAXIMUM_ASPECT,
    MINIMUM_SIDE,
    Box,
    grow,
    mask_box,
    meeting,
    region_around,
    stacked,
    touched_sides,
)

SHAPE = (90, 140)


@st.composite
def boxes(draw, shape: tuple[int, int] = SHAPE) -> Box:
    y0 = draw(st.integers(0, shape[0] - 1))
    x0 = draw(st.integers(0, shape[1] - 1))
    return Box(y0, x0, draw(st.integers(y0 + 1, shape[0])), draw(st.integers(x0 + 1, shape[1])))


def pixels(box: Box) -> set[tuple[int, int]]:
    return {(y, x) for y in range(box.y0, box.y1) for x in range(box.x0, box.x1)}


@given(boxes((9, 11)), boxes((9, 11)))
def test_box_algebra_is_that_of_pixel_sets(a, b):
    """Intersection holds the common pixels, union both boxes and no less, and shape counts rows and columns."""
    assert pixels(a.intersect(b)) == pixels(a) & pixels(b)
    assert a.intersect(b).empty == (not pixels(a) & pixels(b))
    both = np.array(sorted(pixels(a) | pixels(b)))
    assert a.union(b) == (*both.min(0), *(both.max(0) + 1))
    assert a.height * a.width == len(pixels(a))
    assert a.shape == (a.height, a.width)


@given(boxes())
def test_box_cuts_its_pixels(box):
    """Slices of a box cut what `mask_box` finds again, also after a shift there and back."""
    mask = np.zeros(SHAPE, bool)
    mask[box.slices] = True
    assert mask_box(mask) == box
    assert box.shift(7, -9).shift(-7, 9) == box
    assert box.shift(-1000, 0).clip(SHAPE).empty


def test_nothing_has_no_box():
    """An empty mask has no box."""
    assert mask_box(np.zeros((4, 5), bool)) is None


@given(boxes(), st.floats(1, 8))
def test_region_lies_in_the_image_and_holds_the_box(box, margin):
    """A region never leaves the image and always holds the whole of what it is around."""
    region = region_around(box, margin, SHAPE)
    assert region.clip(SHAPE) == region
    assert region.union(box) == region


@given(boxes(), st.floats(1, 8))
def test_region_sides_before_clipping(box, margin):
    """Far from the image's border a region has margin x the box's sides, is not too small and not too thin."""
    height, width = region_around(box.shift(10_000, 10_000), margin, (30_000, 30_000)).shape
    assert min(height, width) >= MINIMUM_SIDE
    assert max(height, width) <= MAXIMUM_ASPECT * min(height, width) + 2  # outward rounding of both ends
    for side, own, other in ((height, box.height, box.width), (width, box.width, box.height)):
        wanted = max(own * margin, MINIMUM_SIDE, other * margin / MAXIMUM_ASPECT)
        assert wanted - 1e-6 <= side < wanted + 2 + 1e-6


@given(boxes(), st.integers(-500, 500), st.integers(-500, 500))
def test_region_moves_with_its_object(box, dy, dx):
    """Away from the border the region depends on where the object is by the shift alone."""
    wide = (5000, 5000)
    at = box.shift(2000, 2000)
    assert region_around(at.shift(dy, dx), 2.2, wide) == region_around(at, 2.2, wide).shift(dy, dx)


@given(boxes())
def test_grown_region_doubles_and_ends_at_the_image(box):
    """Growing doubles both sides about the centre, is clipped to the image, and a whole image stays as it is."""
    free = grow(box.shift(1000, 1000), (5000, 5000))
    assert 2 * box.height <= free.height <= 2 * box.height + 1
    assert 2 * box.width <= free.width <= 2 * box.width + 1
    assert free.y0 + free.y1 == box.y0 + box.y1 + 2000
    assert grow(box, SHAPE).union(box) == grow(box, SHAPE) == grow(box, SHAPE).clip(SHAPE)
    assert grow(Box(0, 0, *SHAPE), SHAPE) == Box(0, 0, *SHAPE)


@pytest.mark.parametrize(("pixel", "side"), [((0, 3), 0), ((3, 0), 1), ((7, 3), 2), ((3, 9), 3)])
def test_touched_sides_are_named(pixel, side):
    """Mask on the outer row or column of the region touches that side and no other."""
    probability = np.zeros((8, 10), np.float32)
    probability[pixel] = 0.5
    assert touched_sides(probability, Box(5, 5, 13, 15), SHAPE) == tuple(k == side for k in range(4))
    probability[pixel] = 0.49
    assert not any(touched_sides(probability, Box(5, 5, 13, 15), SHAPE))


def test_the_image_border_never_counts_as_touched():
    """A mask that fills a region touches only the sides that lie inside the image."""
    full = np.ones((8, 8), np.float32)
    assert touched_sides(full, Box(0, 0, *SHAPE), SHAPE) == (False,) * 4
    assert touched_sides(full, Box(0, 5, SHAPE[0], 20), SHAPE) == (False, True, False, True)
    assert touched_sides(full, Box(1, 0, SHAPE[0] - 1, 20), SHAPE) == (True, False, True, True)


def test_meeting_is_sharing_a_pixel():
    """Of many boxes those are found that share a pixel with one, as by intersecting them one by one."""
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 12, (200, 2, 2)), axis=1)
    boxes = [Box(int(a[0]), int(a[1]), int(b[0]), int(b[1])) for a, b in corners]
    for one in boxes[:40]:
        expected = [k for k, other in enumerate(boxes) if not one.intersect(other).empty]
        assert meeting(one, stacked(boxes)).tolist() == expected
    assert meeting(boxes[0], stacked([])).tolist() == []
