"""What the user's strokes and paint do to one frame: which objects they touch, and what becomes of their masks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_ivos import steps
from napari_ivos.errors import InputError
from napari_ivos.merging import FULL, Origin, Patch, certainty, overlap, sample
from napari_ivos.regions import MASK_LEVEL, Box, meeting, stacked
from napari_ivos.scribbles import BACKGROUND, Stroke, covered_pixels
from napari_ivos.session.edits import IDS_AT_MOST, check_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from napari_ivos.predictor import Predictor, Reference

TOUCHED_PIXELS = 4
"""A stroke that covers more pixels than this of another object's mask touches that object."""
SPREAD_OVERLAP = 0.9
"""An object that only strokes of others touch is propagated if its mask keeps less than this (IoU)."""
GONE_LEVEL = 0.25
"""Below this probability the network clearly doesn't see an object where it was painted."""

Labels = npt.NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class Change:
    """What became of one object on an annotated frame.

    Parameters
    ----------
    patch : Patch or None
        Its mask; None: none any more.
    spreads : int
        1: propagation starts here; 0: the mask is the user's, and stays here; -1: it is not the user's (any more).
    quality : float
        0..1.
    reference : Reference or None
        What the network learned; None: it is learned when it is needed.
    """

    patch: Patch | None
    spreads: int
    quality: float
    reference: Reference | None = None


def covered(strokes: Sequence[Stroke], labels: Labels, window: Box, image_shape: tuple[int, int]) -> set[int]:
    """Objects whose masks are covered by strokes that are not theirs.

    Parameters
    ----------
    strokes : sequence of Stroke
        The new ones.
    labels : (h, w) uint16 array
        What is shown in `window` of the frame, which holds all strokes.
    """
    counts: Counter[int] = Counter()
    for object_id, own in by_object(strokes).items():
        pixels = covered_pixels(own, image_shape)
        under = labels[pixels[:, 0] - window.y0, pixels[:, 1] - window.x0]
        under = under[(under != object_id) & (under != BACKGROUND)]
        counts.update(under.tolist())
    return {i for i, count in counts.items() if count > TOUCHED_PIXELS}


def by_object(strokes: Iterable[Stroke]) -> dict[int, list[Stroke]]:
    """Strokes by the id of their object, in their order."""
    found: dict[int, list[Stroke]] = {}
    for stroke in strokes:
        found.setdefault(stroke.object_id, []).append(stroke)
    return found


def scribble(
    read: steps.Reader,
    image_shape: tuple[int, int],
    predictor: Predictor,
    strokes: Sequence[Stroke],
    patches: Mapping[int, Patch],
    touched: Collection[int],
    owners: Collection[int],
    erased: Collection[int],
    appearance: bool = False,
) -> dict[int, Change]:
    """Segment the touched objects of a frame from its strokes.

    Parameters
    ----------
    read, image_shape, predictor, strokes, patches, appearance
        As for `steps.segment`.
    touched : collection of int
        The objects to segment.
    owners : collection of int
        Those with strokes of their own; a painted mask of one of the others stays exact but for what the strokes take.
    erased : collection of int
        Those that strokes of the background go over: whatever these change is a correction, and spreads.
    """
    found = steps.segment(read, image_shape, predictor, strokes, patches, sorted(touched), appearance)
    drawn = {i: covered_pixels(own, image_shape) for i, own in by_object(strokes).items()}
    changes = {}
    for object_id, made in found.items():
        old, patch = patches.get(object_id), made.patch
        own = object_id in owners
        if not own and old is not None and old.origin is Origin.PAINTED:
            rivals = [pixels for i, pixels in drawn.items() if i != object_id]
            patch = give_way(old, patch, np.concatenate([np.zeros((0, 2), np.int64), *rivals]))
        spreads = own or overlap(old, patch) < (1.0 if object_id in erased else SPREAD_OVERLAP)
        reference = made.reference if patch is made.patch else None
        quality = 1.0 if patch.origin is Origin.PAINTED else certainty(patch)
        changes[object_id] = Change(patch, int(spreads), quality, reference)
    return changes


def give_way(painted: Patch, seen: Patch, pixels: npt.NDArray[np.int64]) -> Patch:
    """A painted mask without the pixels that others' strokes take.

    Taken are the strokes' own pixels, and with them the parts around them that the network clearly doesn't see as the
    object; all else stays exact.

    Parameters
    ----------
    painted : Patch
        At the frame's own pixels.
    seen : Patch
        What the network makes of the object with those strokes.
    pixels : (N, 2) int array
        The strokes' pixels (row, col).
    """
    box = painted.box
    mask = painted.probability >= FULL * MASK_LEVEL
    taken = np.zeros(mask.shape, bool)
    inside = pixels[((pixels >= (box.y0, box.x0)) & (pixels < (box.y1, box.x1))).all(axis=1)]
    taken[inside[:, 0] - box.y0, inside[:, 1] - box.x0] = True
    doubtful = mask & (sample(seen, box, mask.shape) < GONE_LEVEL)
    while True:
        grown = taken | (_dilated(taken) & doubtful)
        if np.array_equal(grown, taken):
            break
        taken = grown
    return Patch.from_mask(mask & ~taken, (box.y0, box.x0))


def _dilated(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    wide = np.pad(mask, 1)
    rows = wide[:-2] | wide[1:-1] | wide[2:]
    return np.asarray(rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:])


def check_labels(labels: npt.ArrayLike, image_shape: tuple[int, int], objects: Collection[int] | None) -> Labels:
    """A user's label image or mask as (H, W) uint16.

    Raises
    ------
    InputError
        Another shape, not whole numbers, ids out of range, or a mask without exactly one object to go with it.
    """
    image = np.asarray(labels)
    if image.shape != tuple(image_shape):
        raise InputError(f"Labels of shape {image.shape} for frames of {image_shape[0]} x {image_shape[1]} px.")
    if image.dtype == np.bool_:
        if objects is None or len(objects) != 1:
            raise InputError("A mask of True and False says nothing about ids: give objects=[id], or a label image.")
        (object_id,) = objects
        check_id(object_id)
        return np.asarray(image * np.uint16(object_id), np.uint16)
    if not np.issubdtype(image.dtype, np.integer):
        raise InputError(f"Labels of type {image.dtype}; expected whole numbers, 0 for background.")
    if image.size and (int(image.min()) < 0 or int(image.max()) > IDS_AT_MOST):
        raise InputError(
            f"Labels from {image.min()} to {image.max()}; ids run from 0 to {IDS_AT_MOST}. Relabel them first."
        )
    return image.astype(np.uint16)


def cut_out(labels: Labels, objects: Collection[int] | None = None) -> dict[int, Patch]:
    """Exact masks of the objects in a label image (H, W), each cut to its own box; empty ones for those not in it.

    One sort of the labelled pixels, so that thousands of objects cost little more than one.
    """
    places = np.flatnonzero(labels)
    ids = labels.ravel()[places]
    order = np.argsort(ids, kind="stable")
    places, ids = places[order], ids[order]
    starts = np.flatnonzero(np.diff(ids, prepend=0))
    ends = np.append(starts, len(ids))[1:]
    wanted = None if objects is None else set(objects)
    patches = {i: Patch(Box(0, 0, 1, 1), np.zeros((1, 1), np.uint8), Origin.PAINTED) for i in wanted or ()}
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        object_id = int(ids[start])
        if wanted is None or object_id in wanted:
            patches[object_id] = _patch_of(places[start:end], labels.shape[1])
    return patches


def _patch_of(places: npt.NDArray[np.int64], width: int) -> Patch:
    """Painted patch of the pixels at these flat places of a frame, which ascend."""
    rows, columns = places // width, places % width
    box = Box(int(rows[0]), int(columns.min()), int(rows[-1]) + 1, int(columns.max()) + 1)
    mask = np.zeros(box.shape, np.uint8)
    mask[rows - box.y0, columns - box.x0] = FULL
    return Patch(box, mask, Origin.PAINTED)


def cut_by(painted: Mapping[int, Patch], others: Mapping[int, Patch]) -> dict[int, Patch]:
    """Painted masks among `others` that new painted masks cover in part, without what is covered."""
    cut = {}
    new = list(painted.values())
    boxes = stacked(p.box for p in new)
    for object_id, patch in others.items():
        if patch.origin is not Origin.PAINTED or object_id in painted:
            continue
        left = patch.probability.copy()
        for k in meeting(patch.box, boxes):
            common = new[k].box.intersect(patch.box)
            over = new[k].probability[common.shift(-new[k].box.y0, -new[k].box.x0).slices] > 0
            left[common.shift(-patch.box.y0, -patch.box.x0).slices][over] = 0
        if not np.array_equal(left, patch.probability):
            cut[object_id] = Patch.from_mask(left > 0, (patch.box.y0, patch.box.x0))
    return cut


def painted_changes(
    painted: Mapping[int, Patch], others: Mapping[int, Patch], spreads: Mapping[int, bool] | None = None
) -> dict[int, Change]:
    """What annotating with exact masks does to a frame's objects.

    Parameters
    ----------
    painted : mapping of int to Patch
        The new masks.
    others : mapping of int to Patch
        All masks that the frame has so far.
    spreads : mapping of int to bool, optional
        Whether propagation starts from an object's new mask; without: it does.
    """
    given = spreads or {}
    changes = {i: Change(patch, int(given.get(i, True)), 1.0) for i, patch in painted.items()}
    for object_id, patch in cut_by(painted, others).items():
        changes[object_id] = Change(patch, int(overlap(others[object_id], patch) < SPREAD_OVERLAP), 1.0)
    return changes


def repainted(before: Labels, after: Labels) -> dict[int, bool]:
    """Objects whose pixels differ between two label images (H, W), and whether propagation should start from them.

    It does from those that gained pixels, and from those that lost so many that little of the old mask is kept.
    """
    at = before != after
    old, new = before[at], after[at]
    lost = np.bincount(old, minlength=IDS_AT_MOST + 1)
    gained = np.bincount(new, minlength=IDS_AT_MOST + 1)
    had = np.bincount(before.ravel(), minlength=IDS_AT_MOST + 1)
    changed = np.flatnonzero((lost > 0) | (gained > 0))
    return {
        int(i): bool(gained[i] > 0 or (had[i] - lost[i]) < SPREAD_OVERLAP * had[i]) for i in changed if i != BACKGROUND
    }
