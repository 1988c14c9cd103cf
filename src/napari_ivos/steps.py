"""One frame's work, as pure functions of what they are handed: scribbles to patches, neighbours' patches to this one's.

Nothing here keeps state or knows of projects, threads or files. A session, a batch worker and the training's validation
call the same functions, which decide which region of a frame the networks see and what they are told about it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from napari_ivos import motion, regions
from napari_ivos.merging import Origin, Patch, extent_of, merged, sample, that_meet
from napari_ivos.predictor import Following, Interaction, Predictor, Propagation, Reference, Segmentation, side_of
from napari_ivos.regions import MASK_LEVEL, Box
from napari_ivos.scribbles import BACKGROUND, Stroke, pen_reach, rasterise, strokes_box
from napari_ivos.untrusted import cores

_T = TypeVar("_T")

Float = npt.NDArray[np.float32]
Reader = Callable[[Box], Float]
"""Pixels (h, w, 3) float32 in 0..1 of one region of the frame at hand."""

LOST_FRAMES = 8
"""An object that is empty on this many frames in a row is absent until it is annotated again."""
DOUBTED = 0.2
"""A mask of a lower quality than this is doubted."""
DOUBTS_SECTION, DOUBTS_GREY = 1, 2
"""Along Z, and in other grey stacks, so many doubted masks in a row are an object's last: behind them the mask would go
over to whatever comes in at that place. With two, J after one round is higher by 0.10 on nuclei and by 0.21 on cells of
a tissue in 3-D, and lower by 0.02 on moving cells; one is worth another 0.03 on nuclei, and costs moving cells 0.01
(`docs/measured/endings.md`)."""
AT_ONCE = 64
"""Objects whose regions are read and held at the same time; a predictor makes no larger batches."""
THREADS_AT_MOST = 8
"""Threads in which the motion around several objects is seen at the same time."""
GROWTHS = 2
"""How often a region may grow on one look."""
CLOSE_LOOKS = 1
"""Looks at the mask that the wide look gave; a second one changed J by less than 0.005 on any kind of stack."""
ANCHOR_RATIO = 4.0
"""An earlier mask widens the region of a propagation only up to this many times the neighbour's extent, and the last
region widens it up to this many times its sides."""
NARROWING = 0.95
"""A region's sides shrink by no more than this from frame to frame."""


@dataclass(frozen=True, eq=False)
class Found:
    """What the interaction network made of one object: its patch, and the reference for propagation."""

    patch: Patch
    reference: Reference


@dataclass(eq=False)
class _Look:
    """One object's state between the looks of `segment`."""

    object_id: int
    region: Box
    previous: Patch | None
    appearance: bool = False
    growths: int = 0
    result: Segmentation | None = None


def segment(
    read: Reader,
    image_shape: tuple[int, int],
    predictor: Predictor,
    strokes: Sequence[Stroke],
    patches: Mapping[int, Patch],
    object_ids: Collection[int],
    appearance: bool = False,
) -> dict[int, Found]:
    """Segment objects on one frame from all its strokes: look wide, then close.

    Parameters
    ----------
    read : callable
        Region of this frame to pixels.
    image_shape : tuple of int
        (H, W) of the frame.
    predictor : Predictor
        The networks.
    strokes : sequence of Stroke
        All strokes of the frame; one of an object is a negative for all others.
    patches : mapping of int to Patch
        The objects' masks on this frame so far.
    object_ids : collection of int
        The objects to segment.
    appearance : bool
        Whether the references are to say what the objects look like.

    Returns
    -------
    dict of int to Found
        Without those that have neither a stroke nor a mask to look at.
    """
    looks, fresh, drawing = [], set(), _Drawing(strokes)
    for object_id in object_ids:
        drawn = strokes_box(drawing.of(object_id), image_shape)
        known = patches.get(object_id)
        extent = known.extent if known is not None else None
        if extent is not None:
            around = extent if drawn is None else extent.union(drawn)
            looks.append(_Look(object_id, regions.region_around(around, regions.CLOSE, image_shape), known, appearance))
        elif drawn is not None:
            looks.append(_Look(object_id, regions.region_around(drawn, regions.WIDE, image_shape), None))
            fresh.add(object_id)
    _see(read, image_shape, predictor, drawing, looks)
    for k in range(CLOSE_LOOKS):
        again = [look for look in looks if look.object_id in fresh]
        for look in again:
            _close_in(look, drawing, image_shape)
            look.appearance = appearance and k == CLOSE_LOOKS - 1
        _see(read, image_shape, predictor, drawing, again)
    return {look.object_id: _found(look) for look in looks}


class _Drawing:
    """The strokes of a frame, by object and by place: with a thousand objects, each looks at the few around it."""

    def __init__(self, strokes: Sequence[Stroke]) -> None:
        self._strokes = strokes
        self._by_object: dict[int, list[Stroke]] = {}
        for stroke in strokes:
            self._by_object.setdefault(stroke.object_id, []).append(stroke)
        corners = [(*np.floor(s.points.min(axis=0)), *np.ceil(s.points.max(axis=0)) + 1) for s in strokes]
        self._boxes = np.array(corners, np.float64).reshape(-1, 4)

    def of(self, object_id: int) -> Sequence[Stroke]:
        """An object's own strokes."""
        return self._by_object.get(object_id, ())

    def against(self, object_id: int, region: Box, shape: tuple[int, int]) -> list[Stroke]:
        """Strokes of the background and of all other objects that may show on a plane of `shape` over a region."""
        pad = pen_reach(region, shape)
        near = Box(region.y0 - pad, region.x0 - pad, region.y1 + pad, region.x1 + pad)
        found = (self._strokes[k] for k in regions.meeting(near, self._boxes))
        return [s for s in found if s.object_id != object_id or s.object_id == BACKGROUND]


def _close_in(look: _Look, drawing: _Drawing, image_shape: tuple[int, int]) -> None:
    """Aim the next look at the mask that the last one gave (at the strokes where it gave none)."""
    result = look.result
    if result is None:
        return
    drawn = strokes_box(drawing.of(look.object_id), image_shape)
    look.previous = Patch.from_probability(look.region, result.probability, Origin.SCRIBBLED)
    look.region = close_region(look.region, result.probability, drawn, image_shape)


def close_region(region: Box, probability: Float, drawn: Box | None, image_shape: tuple[int, int]) -> Box:
    """Where to look next: around the mask that a look at `region` gave and the strokes' box `drawn`.

    Around the strokes alone, and wider, where it gave none; the same region again where there is neither.
    """
    extent = extent_of(probability >= MASK_LEVEL, region)
    around = extent if drawn is None else drawn if extent is None else extent.union(drawn)
    if around is None:
        return region
    margin = regions.CLOSE if extent is not None else regions.WIDE / 2
    return regions.region_around(around, margin, image_shape)


def _see(
    read: Reader,
    image_shape: tuple[int, int],
    predictor: Predictor,
    drawing: _Drawing,
    looks: Sequence[_Look],
) -> None:
    """Run the interaction network on these looks, `AT_ONCE` in a batch; grow what the mask touches, run those again."""
    todo = list(looks)
    for look in todo:
        look.growths = 0
    while todo:
        results: list[Segmentation] = []
        for some in _at_once(todo):
            results += predictor.segment([_interaction(read, look, drawing, predictor) for look in some])
        again = []
        for look, result in zip(todo, results, strict=True):
            look.result = result
            if look.growths < GROWTHS and any(regions.touched_sides(result.probability, look.region, image_shape)):
                look.region = regions.grow(look.region, image_shape)
                look.growths += 1
                again.append(look)
        todo = again


def _at_once(things: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Pieces of at most `AT_ONCE`."""
    for start in range(0, len(things), AT_ONCE):
        yield things[start : start + AT_ONCE]


def _interaction(read: Reader, look: _Look, drawing: _Drawing, predictor: Predictor) -> Interaction:
    side = side_of(predictor, look.region)
    shape = (side, side)
    own, others = drawing.of(look.object_id), drawing.against(look.object_id, look.region, shape)
    previous = None if look.previous is None else sample(look.previous, look.region, shape)
    return Interaction(
        read(look.region),
        previous,
        rasterise(own, look.region, shape),
        rasterise(others, look.region, shape),
        look.appearance,
    )


def _found(look: _Look) -> Found:
    if look.result is None:
        raise AssertionError(f"object {look.object_id} was never looked at")
    patch = Patch.from_probability(look.region, look.result.probability, Origin.SCRIBBLED)
    return Found(patch, look.result.reference)


def learn(
    read: Reader,
    image_shape: tuple[int, int],
    predictor: Predictor,
    painted: Mapping[int, Patch],
    appearance: bool = False,
) -> dict[int, Reference]:
    """References of objects whose masks on a frame were painted or imported: the network looks, the mask stays.

    Parameters
    ----------
    read, image_shape, predictor, appearance
        As for `segment`.
    painted : mapping of int to Patch
        The exact masks; empty ones teach nothing and are left out of the result.
    """
    looks = [
        _Look(i, regions.region_around(patch.extent, regions.CLOSE, image_shape), patch, appearance)
        for i, patch in painted.items()
        if patch.extent is not None
    ]
    if not looks:
        return {}
    nothing, results = _Drawing(()), []
    for some in _at_once(looks):
        results += predictor.segment([_interaction(read, look, nothing, predictor) for look in some])
    return {look.object_id: result.reference for look, result in zip(looks, results, strict=True)}


def propagation_region(
    neighbours: Mapping[int, Patch], previous: Patch | None, object_id: int, image_shape: tuple[int, int]
) -> Box:
    """Where to look for an object on this frame.

    Around its merged mask on the neighbouring frame and its mask on this frame after the previous round; where the
    neighbour is empty, the box in which it was last looked for. It narrows slowly from frame to frame: what is about to
    vanish behind something comes out on its other side.
    """
    own = neighbours[object_id]
    shape = (own.probability.shape[0], own.probability.shape[1])
    extent = extent_of(merged(neighbours, object_id, own.box, shape) >= MASK_LEVEL, own.box)
    earlier = previous.extent if previous is not None else None
    if extent is None:
        return own.box if earlier is None else regions.region_around(earlier, regions.FOLLOW, image_shape)
    around = extent
    if earlier is not None:
        both = extent.union(earlier)
        if both.height <= ANCHOR_RATIO * extent.height and both.width <= ANCHOR_RATIO * extent.width:
            around = both
    region = regions.region_around(around, regions.FOLLOW, image_shape)
    if own.origin is not Origin.PROPAGATED:  # its box is the mask's own, not one that was looked at
        return region
    return _not_much_narrower(region, around, own.box, image_shape)


def _not_much_narrower(region: Box, around: Box, last: Box, image_shape: tuple[int, int]) -> Box:
    """A region with at least `NARROWING` times the sides of the last one, up to `ANCHOR_RATIO` times its own."""
    height, width = (
        max(side, min(NARROWING * before, ANCHOR_RATIO * side))
        for side, before in zip(region.shape, last.shape, strict=True)
    )
    if height <= region.height and width <= region.width:
        return region
    return regions.about_centre(around, height, width).clip(image_shape).union(region)


def propagate(
    read: Reader,
    image_shape: tuple[int, int],
    predictor: Predictor,
    neighbours: Mapping[int, Patch],
    previous: Mapping[int, Patch],
    references: Mapping[int, Sequence[Reference]],
    read_near: Reader | None = None,
    holds: Mapping[int, motion.Hold] | None = None,
    appearance: bool = False,
) -> dict[int, Patch]:
    """Carry objects from a neighbouring frame to this one, `AT_ONCE` in a batch.

    Parameters
    ----------
    read : callable
        Region of *this* frame to pixels.
    image_shape : tuple of int
        (H, W) of the frame.
    predictor : Predictor
        The networks.
    neighbours : mapping of int to Patch
        All objects' patches on the neighbouring frame as stored (those that are not carried compete too).
    previous : mapping of int to Patch
        Patches of the objects on this frame from before, as hints to the networks. A session gives none: after a
        correction they hold what was corrected, and bring it back (with earlier weights; with those that ship it
        no longer matters on videos).
    references : mapping of int to sequence of Reference
        The objects to carry, each with what was learned on its annotated frames.
    read_near : callable, optional
        Region of the *neighbouring* frame to pixels, for a predictor that follows motion (`Following`); without it
        masks are handed on where they were.
    holds : mapping of int to Hold, optional
        How the masks of objects are held on to where the picture does not change, such as those that come from a
        painted or a corrected mask; the others are not.
    appearance : bool
        Whether objects are told from their surroundings by what they look like, too: in films of the world, in colour.
        Under a microscope one object looks like the next.

    Returns
    -------
    dict of int to Patch
        One for each object in `references`; not yet blended with earlier rounds.
    """
    found: dict[int, Patch] = {}
    holds = holds or {}
    near = that_meet(neighbours, references)
    if not (isinstance(predictor, Following) and predictor.follows_motion):
        read_near = None
    todo = {i: propagation_region(near[i], previous.get(i), i, image_shape) for i in references}
    for growths in range(GROWTHS + 1):
        if not todo:
            break
        again: dict[int, Box] = {}
        for some in _at_once(list(todo.items())):
            requests = [
                _propagation(
                    read(region),
                    region,
                    i,
                    near[i],
                    previous.get(i),
                    references[i],
                    side_of(predictor, region),
                    appearance,
                )
                for i, region in some
            ]
            if read_near is not None:
                before = [
                    read_near(region) if r.neighbour.max() >= motion.PRESENT else None
                    for (_, region), r in zip(some, requests, strict=True)
                ]
                requests = _along(requests, before)
            answers = predictor.propagate(requests)
            for (i, region), request, answer in zip(some, requests, answers, strict=True):
                p = answer
                if request.change is not None and i in holds:
                    p = motion.keep_unchanged(answer, motion.Moved(request.neighbour, request.change), holds[i])
                found[i] = Patch.from_probability(region, p, Origin.PROPAGATED)
                if any(regions.touched_sides(p, region, image_shape)) and growths < GROWTHS:
                    again[i] = regions.grow(region, image_shape)
        todo = again
    return found


def _along(requests: Sequence[Propagation], near: Sequence[Float | None]) -> list[Propagation]:
    """Move the masks along with the picture, given the neighbouring frame's pixels; None: there is nothing to move.

    In threads where there are cores to spare: motion is seen on the CPU, object by object, even where the networks
    compute all of them at once on a GPU.
    """

    def moved(request: Propagation, pixels: Float | None) -> Propagation:
        if pixels is None:
            return request
        size = len(request.neighbour)
        here = motion.resampled(request.image, (size, size))  # once for both who look at it
        mask, change = motion.move_along(request.neighbour, pixels, here)
        return replace(request, image=here, neighbour=mask, change=change)

    threads = min(THREADS_AT_MOST, cores() - 1)
    if threads < 2 or len(requests) < 2:
        return list(map(moved, requests, near))
    return list(motion.pool(threads).map(moved, requests, near))


def _propagation(
    image: Float,
    region: Box,
    object_id: int,
    neighbours: Mapping[int, Patch],
    previous: Patch | None,
    references: Sequence[Reference],
    size: int,
    appearance: bool,
) -> Propagation:
    shape = (size, size)
    return Propagation(
        image,
        merged(neighbours, object_id, region, shape),
        None if previous is None else sample(previous, region, shape),
        references,
        appearance=appearance,
    )
