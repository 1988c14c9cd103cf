"""Boxes, and the choice of the region of a frame that a network looks at; pure, numpy only.

The same functions serve use and training: a network that was trained on other regions than it meets in use fails there.
A region is relative to the object (small cells and large animals both fill it), is clipped to the image, and grows when
the mask that came out touches its border.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable

MINIMUM_SIDE = 24
"""Smallest side of a region, in pixels of the frame: below this a network sees interpolation only."""
MAXIMUM_ASPECT = 2.0
"""Longest side over shortest side of a region, before it is clipped: more would distort the object too much."""
WIDE = 6.0
"""First look at fresh scribbles: region side over the scribbles' extent."""
CLOSE = 1.9
"""Second look, at the mask that the first one gave: region side over the mask's extent."""
FOLLOW = 1.6
"""Propagation: region side over the extent of the neighbour's mask and this frame's earlier mask. Tight, so that large
objects are seen in many pixels (2.4 gives less in the first round on videos); a mask that leaves it makes it grow."""
MASK_LEVEL = 0.5
"""A probability from here on is mask."""


class Box(NamedTuple):
    """A half-open rectangle of whole pixels of a frame: rows y0..y1-1, columns x0..x1-1."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def shape(self) -> tuple[int, int]:
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def empty(self) -> bool:
        return self.y1 <= self.y0 or self.x1 <= self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def union(self, other: Box) -> Box:
        """Smallest box around both."""
        return Box(min(self.y0, other.y0), min(self.x0, other.x0), max(self.y1, other.y1), max(self.x1, other.x1))

    def intersect(self, other: Box) -> Box:
        """The common part; may be `empty`."""
        return Box(max(self.y0, other.y0), max(self.x0, other.x0), min(self.y1, other.y1), min(self.x1, other.x1))

    def clip(self, shape: tuple[int, int]) -> Box:
        """The part inside an image of `shape` (H, W)."""
        return self.intersect(Box(0, 0, shape[0], shape[1]))

    def shift(self, dy: int, dx: int) -> Box:
        return Box(self.y0 + dy, self.x0 + dx, self.y1 + dy, self.x1 + dx)


def mask_box(mask: npt.NDArray[np.bool_]) -> Box | None:
    """Tight box around the true pixels of a (H, W) mask, None where there are none."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(mask.any(axis=0))
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def stacked(boxes: Iterable[Box]) -> npt.NDArray[np.int64]:
    """Boxes as one array (N, 4), for `meeting`."""
    return np.array([tuple(box) for box in boxes], np.int64).reshape(-1, 4)


def meeting(box: Box, others: npt.NDArray[np.int64] | npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Which of many boxes (N, 4) meet one: their places; whole arrays, because there may be thousands."""
    y0, x0, y1, x1 = others.T
    common = (np.maximum(y0, box.y0) < np.minimum(y1, box.y1)) & (np.maximum(x0, box.x0) < np.minimum(x1, box.x1))
    return np.flatnonzero(common)


def region_around(box: Box, margin: float, image_shape: tuple[int, int], minimum: int = MINIMUM_SIDE) -> Box:
    """Region around an object's box: `margin` times its sides, not too thin, not too small, clipped to the image.

    Parameters
    ----------
    box : Box
        Extent of the object (or of its scribbles), in pixels of the frame.
    margin : float
        Side of the region over side of the box.
    image_shape : tuple of int
        (H, W) of the frame.
    minimum : int
        Smallest side before clipping, in pixels.

    Returns
    -------
    Box
        Never empty as long as `box` meets the image.
    """
    height = max(box.height * margin, minimum)
    width = max(box.width * margin, minimum)
    height = max(height, width / MAXIMUM_ASPECT)
    width = max(width, height / MAXIMUM_ASPECT)
    return about_centre(box, height, width).clip(image_shape)


def about_centre(box: Box, height: float, width: float) -> Box:
    """A box of at least this size about another's centre; not clipped."""
    cy, cx = (box.y0 + box.y1) / 2, (box.x0 + box.x1) / 2
    return Box(
        int(np.floor(cy - height / 2)),
        int(np.floor(cx - width / 2)),
        int(np.ceil(cy + height / 2)),
        int(np.ceil(cx + width / 2)),
    )


def touched_sides(
    probability: npt.NDArray[np.floating], region: Box, image_shape: tuple[int, int]
) -> tuple[bool, bool, bool, bool]:
    """Which of the region's four sides (top, left, bottom, right) inside the image the mask touches.

    Parameters
    ----------
    probability : (h, w) float array
        0..1, over the region, at any resolution.
    region : Box
        Where it lies in the frame.
    image_shape : tuple of int
        (H, W) of the frame; a side on the image's own border never counts.
    """
    mask = probability >= MASK_LEVEL
    return (
        bool(mask[0].any()) and region.y0 > 0,
        bool(mask[:, 0].any()) and region.x0 > 0,
        bool(mask[-1].any()) and region.y1 < image_shape[0],
        bool(mask[:, -1].any()) and region.x1 < image_shape[1],
    )


def grow(region: Box, image_shape: tuple[int, int]) -> Box:
    """The region with both sides doubled about its centre, clipped to the image."""
    dy, dx = (region.height + 1) // 2, (region.width + 1) // 2
    return Box(region.y0 - dy, region.x0 - dx, region.y1 + dy, region.x1 + dx).clip(image_shape)
