"""Paint that is no annotation yet: kept as the part of a frame that was painted on, whatever the frame's size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_ivos.session import annotating

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_ivos.merging import Patch
    from napari_ivos.regions import Box

Composed = npt.NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class Paint:
    """What was painted on one frame.

    Parameters
    ----------
    box : Box
        The part of the frame that was painted on.
    labels : (h, w) uint16 array
        All labels there, as painted; never written to.
    touched : (h, w) bool array
        Which of them were painted; what is below the others may change meanwhile. Never written to.
    """

    box: Box
    labels: Composed
    touched: npt.NDArray[np.bool_]

    def over(self, below: Composed, window: Box) -> Composed:
        """Labels (h, w) of a window with the paint over them; `below` itself where there is no paint."""
        common = self.box.intersect(window)
        if common.empty:
            return below
        place = common.shift(-self.box.y0, -self.box.x0).slices
        shown = below.copy()
        np.copyto(shown[common.shift(-window.y0, -window.x0).slices], self.labels[place], where=self.touched[place])
        return shown


def settled(
    paint: Paint, boxes: Mapping[int, Box], read: Callable[[Box], Composed]
) -> tuple[dict[int, Patch], dict[int, bool]]:
    """Exact masks of the objects that paint changed, and whether propagation should start from them.

    Parameters
    ----------
    paint : Paint
    boxes : mapping of int to Box
        Where the objects' masks are on that frame, at the most.
    read : callable
        Gives the labels (h, w) of a box of the frame without the paint.

    Returns
    -------
    patches : dict of int to Patch
        Empty where nothing changed.
    spreads : dict of int to bool
    """
    below = read(paint.box)
    at = paint.touched & (below != paint.labels)
    touched = {int(i) for i in np.unique(np.concatenate([below[at], paint.labels[at]]))} - {0}
    if not touched:
        return {}, {}
    window = paint.box
    for object_id in touched & set(boxes):
        window = window.union(boxes[object_id])
    if window != paint.box:
        below = read(window)
    after = paint.over(below, window)
    spreads = annotating.repainted(below, after)
    patches = annotating.cut_out(after, spreads)
    moved = {i: replace(p, box=p.box.shift(window.y0, window.x0)) for i, p in patches.items()}
    return moved, spreads
