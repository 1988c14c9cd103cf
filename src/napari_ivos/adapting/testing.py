"""Whether a model got better: masks carried to an annotated frame that it did not learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_ivos import motion, steps
from napari_ivos.merging import Origin, overlap
from napari_ivos.session.stacks import told_by_looks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ivos.adapting.material import Material
    from napari_ivos.merging import Patch
    from napari_ivos.predictor import Predictor
    from napari_ivos.session.stacks import Stack

LOOKS_AT_MOST = 96
"""Looks of the propagation network in one test; more objects, or longer ways, are left out."""


@dataclass(frozen=True, eq=False)
class Trial:
    """Objects to carry from frames that were learned from to one that was not.

    Parameters
    ----------
    frame : int
        Where the result is looked at.
    ways : mapping of int to mapping of int to (Patch, Patch)
        First frame of a way to its objects, each with its mask there and on `frame`.
    """

    frame: int
    ways: Mapping[int, Mapping[int, tuple[Patch, Patch]]]

    @property
    def objects(self) -> int:
        return sum(len(way) for way in self.ways.values())


def plan(material: Material) -> Trial | None:
    """The trial with the most objects: on an annotated frame whose objects are annotated on another one, too.

    None where there is no such frame. Of equals the last frame, because work goes on from there.
    """
    frames = sorted({k.frame for mine in material.annotated.values() for k in mine})
    trials = [_trial(material, frame) for frame in frames]
    return max((t for t in trials if t.ways), key=lambda t: (t.objects, t.frame), default=None)


def _trial(material: Material, frame: int) -> Trial:
    found = []
    for i, mine in material.annotated.items():
        here = [k for k in mine if k.frame == frame]
        others = [k for k in mine if k.frame != frame]
        if here and others:
            nearest = min(others, key=lambda k: (abs(k.frame - frame), k.frame))
            found.append((abs(nearest.frame - frame), i, nearest, here[0]))
    ways: dict[int, dict[int, tuple[Patch, Patch]]] = {}
    looks = 0
    for distance, i, start, end in sorted(found, key=lambda entry: entry[:2]):
        looks += distance
        if looks <= LOOKS_AT_MOST or not ways:
            ways.setdefault(start.frame, {})[i] = (start.patch, end.patch)
    return Trial(frame, ways)


def score(trial: Trial, predictor: Predictor, stack: Stack) -> float:
    """Mean J of the trial's objects on its frame, carried there by a model, mask by mask."""
    found, by_looks = [], told_by_looks(stack)
    for start, way in sorted(trial.ways.items()):
        carried = {i: patch for i, (patch, _) in way.items()}
        references = _learn(start, carried, predictor, stack, by_looks)
        direction = 1 if trial.frame > start else -1
        exact = [i for i, patch in carried.items() if patch.origin is Origin.PAINTED]
        for frame in range(start + direction, trial.frame + direction, direction):
            holds = dict.fromkeys(exact, motion.exact_after(abs(frame - start)))
            carried = _carry(frame, frame - direction, carried, references, predictor, stack, holds, by_looks)
        found += [overlap(carried[i], true) for i, (_, true) in way.items()]
    return float(np.mean(found))


def _learn(
    frame: int, masks: Mapping[int, Patch], predictor: Predictor, stack: Stack, by_looks: bool
) -> dict[int, list[np.ndarray]]:
    learned = steps.learn(lambda box: stack.read(frame, box), stack.shape[1:], predictor, masks, by_looks)
    return {i: [reference] for i, reference in learned.items()}


def _carry(
    frame: int,
    near: int,
    masks: Mapping[int, Patch],
    references: Mapping[int, list[np.ndarray]],
    predictor: Predictor,
    stack: Stack,
    holds: Mapping[int, motion.Hold],
    by_looks: bool,
) -> dict[int, Patch]:
    return steps.propagate(
        lambda box: stack.read(frame, box),
        stack.shape[1:],
        predictor,
        masks,
        {},
        references,
        lambda box: stack.read(near, box),
        holds,
        by_looks,
    )
