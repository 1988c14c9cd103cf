"""What a session knows of its objects, as examples to learn from: masks, strokes, regions; numpy, no networks.

Everything is read from the session before anything is learned, so that it is free again while the networks are trained.
Regions, planes and masks come from the very functions that serve in use.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_ivos import regions, steps
from napari_ivos.errors import InputError
from napari_ivos.merging import Origin, Patch, merged, sample, that_meet
from napari_ivos.predictor import side_of
from napari_ivos.regions import MASK_LEVEL, Box
from napari_ivos.scribbles import BACKGROUND, Stroke, middle_lines, rasterise, strokes_box

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from napari_ivos.predictor import Predictor
    from napari_ivos.session import Session

Rng = np.random.Generator
Float = npt.NDArray[np.float32]

TRUST = {Origin.PAINTED: 1.0, Origin.SCRIBBLED: 0.6, Origin.PROPAGATED: 0.15}
"""How much a mask teaches: an exact one most, one that nobody has touched least."""
GOOD = 0.8
"""Quality from which a propagated mask is learned from: nobody had to correct it."""
AROUND = (-2, -1, 1, 2)
"""Frames beside an annotated one whose propagated masks may be learned from."""
OBJECTS_AT_MOST = 256
"""Objects that are learned from; of more, those with the most annotated frames."""
NEAR = 12
"""The mask of an annotated frame this far away may serve as the neighbour's: large motion."""
JITTER = 0.5
"""Share of looks whose region is moved and resized by chance."""
SKETCH_SIDE = 48
"""A mask is shrunk to this before its middle line is drawn as a stroke: people don't follow each pixel either."""
FRAMES_KEPT = 64


@dataclass(frozen=True, eq=False)
class Known:
    """One object's mask on one frame, how much it teaches (0..1), and its mask there before the user corrected it."""

    frame: int
    object_id: int
    patch: Patch
    trust: float
    before: Patch | None = None


@dataclass(frozen=True, eq=False)
class Look:
    """One look of a network at a region, and what it should see.

    Parameters
    ----------
    frame, region
        Where.
    masks : tuple of (S, S) float32 array or None
        Previous mask (interaction); neighbour's and previous mask (propagation). None: not known.
    strokes : tuple of (S, S) float32 array
        Own and others' (interaction), none (propagation).
    target, weight : (S, S) float32 array
        True mask, and how much each pixel counts, 0..1.
    near : int or None
        The frame that the neighbour's mask is of (propagation), None where there is none.
    """

    frame: int
    region: Box
    masks: tuple[Float | None, ...]
    strokes: tuple[Float, ...]
    target: Float
    weight: Float
    near: int | None = None


class Material:
    """All masks that a session offers, as looks.

    Parameters
    ----------
    session : Session
    model : Predictor
        Whose networks will look: all looks are at the side S at which they see most of what is learned from.
    accepted : collection of int
        Frames that the user says are right: their propagated masks teach as much as scribbled ones.

    Attributes
    ----------
    known : list of Known
        What is learned from.
    annotated : dict of int to list of Known
        The part of it that is the user's own, by object.

    Raises
    ------
    InputError
        Nothing is annotated.
    """

    def __init__(self, session: Session, model: Predictor, accepted: Collection[int] = ()) -> None:
        self.session, self.accepted = session, frozenset(accepted)
        self.shape = session.shape[1:]
        self.masks = lru_cache(FRAMES_KEPT)(session.masks)
        self.strokes = lru_cache(FRAMES_KEPT)(self._read_strokes)
        self.annotated: dict[int, list[Known]] = self._annotated()
        if not self.annotated:
            raise InputError(
                "There is nothing to adapt to: no frame holds a mask that was scribbled or painted. Annotate an object "
                "on a frame or two, propagate, correct, and adapt then."
            )
        self.known = [k for known in self.annotated.values() for k in known]
        self.size = self._usual_side(model)
        self.known += self._untouched()

    def _usual_side(self, model: Predictor) -> int:
        seen = [regions.region_around(k.patch.extent or k.patch.box, regions.FOLLOW, self.shape) for k in self.known]
        return Counter(side_of(model, region) for region in seen).most_common(1)[0][0]

    def without(self, frame: int) -> Material:
        """The same, with nothing of a frame: that one is for testing."""
        left = copy(self)
        left.annotated = {i: [k for k in mine if k.frame != frame] for i, mine in self.annotated.items()}
        left.annotated = {i: mine for i, mine in left.annotated.items() if mine}
        left.known = [k for k in self.known if k.frame != frame and k.object_id in left.annotated]
        return left

    # -- reading the session

    def _read_strokes(self, frame: int) -> list[Stroke]:
        there = {o.id for o in self.session.objects} | {BACKGROUND}
        return [Stroke(s.object_id, s.points) for s in self.session.strokes(frame) if s.object_id in there]

    def _annotated(self) -> dict[int, list[Known]]:
        latest: dict[tuple[int, int], int] = {}
        for info in self.session.rounds:
            for frame, ids in info.annotated.items():
                latest |= {(i, frame): info.number for i in ids}
        before = lru_cache(FRAMES_KEPT)(self.session.masks)
        found: dict[int, list[Known]] = defaultdict(list)
        for (i, frame), number in sorted(latest.items(), key=lambda entry: entry[0][::-1]):
            patch = self.masks(frame).get(i)
            if patch is not None and not patch.empty:
                trust = max(TRUST[patch.origin], TRUST[Origin.SCRIBBLED])
                found[i].append(Known(frame, i, patch, trust, before(frame, number).get(i)))
        most = sorted(found, key=lambda i: (-len(found[i]), i))[:OBJECTS_AT_MOST]
        return {i: found[i] for i in sorted(most)}

    def _untouched(self) -> list[Known]:
        """Propagated masks that nobody had to correct: beside annotated frames, and on accepted ones."""
        frames = {k.frame + d for k in self.known for d in AROUND} | self.accepted
        ids = [o.id for o in self.session.objects]
        found = []
        for frame in sorted(f for f in frames if 0 <= f < self.session.shape[0]):
            quality = dict(zip(ids, self.session.quality[frame], strict=True))
            said = frame in self.accepted
            for i, patch in self.masks(frame).items():
                good = said or quality.get(i, 0.0) >= GOOD
                if i in self.annotated and patch.origin is Origin.PROPAGATED and good and not patch.empty:
                    found.append(Known(frame, i, patch, TRUST[Origin.SCRIBBLED if said else Origin.PROPAGATED]))
        return found

    # -- looks

    def pick(self, rng: Rng) -> tuple[Look, Look]:
        """One object by chance: a look at strokes on one of its frames, and a look from a neighbouring mask."""
        trust = np.array([k.trust for k in self.known])
        target = self.known[int(rng.choice(len(trust), p=trust / trust.sum()))]
        mine = self.annotated[target.object_id]
        others = [k for k in mine if k.frame != target.frame] or mine
        return self.drawn(others[int(rng.integers(len(others)))], rng), self.carried(target, rng)

    def drawn(self, known: Known, rng: Rng) -> Look:
        """A look at an annotated mask as the interaction network gets it: strokes, or the mask itself."""
        strokes = self.strokes(known.frame)
        own = [s for s in strokes if s.object_id == known.object_id]
        previous = known.before
        if not own or rng.random() < 0.5:
            own, previous = self._sketch(known.patch, rng), None
        if rng.random() < 0.25:
            previous = known.patch
            own = [] if rng.random() < 0.5 else own
        extent = known.patch.extent
        box = strokes_box(own, self.shape)
        if previous is None and box is not None and rng.random() < 0.15:
            region = regions.region_around(box, regions.WIDE, self.shape)
        else:
            around = extent if box is None else box if extent is None else extent.union(box)
            region = regions.region_around(around or known.patch.box, regions.CLOSE, self.shape)
        region = disturb(region, self.shape, rng)
        shape = (self.size, self.size)
        others = [s for s in strokes if s.object_id != known.object_id]
        planes = rasterise(own, region, shape), rasterise(others, region, shape)
        before = None if previous is None else sample(previous, region, shape)
        return Look(known.frame, region, (before,), planes, *self.truth(known, region))

    def carried(self, known: Known, rng: Rng) -> Look:
        """A look as the propagation network gets it: from a mask beside it, from an annotated one, or from its own."""
        place, near = self._neighbours(known, rng)
        region = steps.propagation_region(near, None, known.object_id, self.shape)
        extent = known.patch.extent
        if extent is None or region.intersect(extent).empty:
            place, near = known.frame, {known.object_id: known.patch}
            region = steps.propagation_region(near, None, known.object_id, self.shape)
        region = disturb(region, self.shape, rng)
        shape = (self.size, self.size)
        masks = (merged(near, known.object_id, region, shape), None)  # no mask of an earlier round, as in use
        return Look(known.frame, region, masks, (), *self.truth(known, region), place)

    def _neighbours(self, known: Known, rng: Rng) -> tuple[int, Mapping[int, Patch]]:
        """Masks to carry from, and the frame that they are of."""
        i, frame = known.object_id, known.frame
        if rng.random() < 0.3:
            return frame, {i: known.patch}
        places = [f for f in (frame - 1, frame + 1) if 0 <= f < self.session.shape[0]]
        far = [k.frame for k in self.annotated[i] if 1 < abs(k.frame - frame) <= NEAR]
        if far and rng.random() < 0.25:
            places = far
        place = places[int(rng.integers(len(places)))] if places else frame
        masks = self.masks(place)
        if i not in masks or masks[i].empty:
            return frame, {i: known.patch}
        return place, that_meet(masks, [i])[i]

    def truth(self, known: Known, region: Box) -> tuple[Float, Float]:
        """What should be seen over a region, and how much each pixel counts: strokes are certain, masks as they are."""
        shape = (self.size, self.size)
        masks = {**self.masks(known.frame), known.object_id: known.patch}
        p = merged(that_meet(masks, [known.object_id])[known.object_id], known.object_id, region, shape)
        target = np.asarray(p >= MASK_LEVEL, np.float32)
        weight = np.asarray(known.trust * np.clip(np.abs(2 * p - 1), 0.1, 1), np.float32)
        strokes = self.strokes(known.frame)
        if known.patch.origin is not Origin.PAINTED:
            for own, value in ((True, 1.0), (False, 0.0)):
                drawn = rasterise([s for s in strokes if (s.object_id == known.object_id) is own], region, shape) > 0
                target[drawn], weight[drawn] = value, 1.0
        return target, weight

    def _sketch(self, patch: Patch, rng: Rng) -> list[Stroke]:
        """The longest middle line of a mask, or a part of it, as a stroke of its object (id 1)."""
        mask = patch.probability >= 255 * MASK_LEVEL
        step = max(1, -(-max(mask.shape) // SKETCH_SIDE))
        lines = middle_lines(mask[::step, ::step]) or middle_lines(mask)
        line = max(lines, key=len)
        if len(line) > 4 and rng.random() < 0.6:
            length = max(3, int(len(line) * rng.uniform(0.3, 0.9)))
            start = int(rng.integers(0, len(line) - length + 1))
            line = line[start : start + length]
        scale = np.array(patch.box.shape) / np.array(mask.shape)
        return [Stroke(1, (line * step + 0.5) * scale - 0.5 + (patch.box.y0, patch.box.x0))]


def disturb(region: Box, shape: tuple[int, int], rng: Rng) -> Box:
    """Move and resize a region by chance, in half of the looks, so that it cuts the object or is too wide."""
    if rng.random() > JITTER:
        return region
    scale = np.exp(rng.normal(0, 0.2, 2) + rng.normal(0, 0.2))
    h, w = region.height * scale[0], region.width * scale[1]
    dy, dx = rng.normal(0, 0.08, 2) * (region.height, region.width)
    cy, cx = (region.y0 + region.y1) / 2 + dy, (region.x0 + region.x1) / 2 + dx
    moved = Box(int(cy - h / 2), int(cx - w / 2), int(cy + h / 2) + 1, int(cx + w / 2) + 1).clip(shape)
    return region if moved.empty or min(moved.shape) < 8 else moved
