"""What of the history a command means, and what a step once did: read from the project, changing nothing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.project import ROUND_KINDS, Project, Step, StepState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, eq=False)
class Painted:
    """The exact masks that one step gave to a frame.

    Parameters
    ----------
    frame : int
        Which one.
    labels : (H, W) uint16 array
        0 where the step gave nobody a pixel.
    objects : tuple of int
        Whose masks the step changed; one that is not in `labels` lost all of its mask.
    spreads : tuple of int
        Those from whose masks propagation starts.
    """

    frame: int
    labels: npt.NDArray[np.uint16]
    objects: tuple[int, ...]
    spreads: tuple[int, ...]


def to_take_back(newest_first: Iterable[Step], to: str) -> list[Step]:
    """Steps that `undo` takes back, in order: the last one, or strokes, paint and propagations of the last round.

    The last one is several where one stroke of paint went over several frames.

    Edits of the table of objects outlive a round: an object that was added for it stays, without its masks. The history
    is read as far back as that round goes, no farther.
    """
    chosen: list[Step] = []
    for step in newest_first:
        if step.state is not StepState.ACTIVE:
            continue
        if to == "step":
            chosen.append(step)
            if _goes_on(step):
                continue
            break
        if step.kind not in ROUND_KINDS:
            continue
        if chosen and step.round != chosen[0].round:
            break
        chosen.append(step)
    return chosen[::-1]


def to_bring_back(newest_first: Iterable[Step], to: str) -> list[Step]:
    """Steps that `redo` brings back, in order: the first that was undone, or all up to the end of its round.

    What was undone came after every stroke, paint and propagation that still counts, so the history is read back to the
    last of those.
    """
    tail = takewhile(lambda s: s.state is not StepState.ACTIVE or s.kind not in ROUND_KINDS, newest_first)
    undone = [s for s in tail if s.state is StepState.UNDONE][::-1]
    if to == "step":
        return [*undone[:1], *takewhile(_goes_on, undone[1:])]
    rounds = [s for s in undone if s.kind in ROUND_KINDS]
    if not rounds:
        return undone
    last = max(s.number for s in rounds if s.round == rounds[0].round)
    return [s for s in undone if s.number <= last]


def _goes_on(step: Step) -> bool:
    """Whether it is of the same stroke of paint as the step before it."""
    return bool(step.detail.get("part"))


def painted_by(project: Project, number: int) -> Painted:
    """What an active step of kind "annotate" painted, to the pixel.

    Raises
    ------
    InputError
        There is no such step, or it painted nothing.
    """
    step = project.step(number)
    if step is None or step.kind != "annotate" or step.state is not StepState.ACTIVE:
        found = "is not there" if step is None else f'is "{step.kind}" and {step.state.name.lower()}'
        raise InputError(f'Step {number} {found}: only an active step of kind "annotate" has painted something.')
    frame = int(step.detail["frame"])
    spreads = project.annotated_by(number)
    rows = [row for row in project.rows(frame, last=number).values() if row.step == number]
    labels = np.zeros(project.shape[1:], np.uint16)
    for object_id, patch in project.patches(rows).items():
        labels[patch.box.slices][patch.probability > 0] = object_id
    return Painted(frame, labels, tuple(sorted(spreads)), tuple(sorted(i for i, value in spreads.items() if value > 0)))


def whole_propagations(project: Project) -> Iterator[tuple[Step, list[int]]]:
    """The steps that carried masks both ways over all frames and came to their ends, and whose masks they carried."""
    everywhere = [1, -1], [0, project.shape[0]]
    for step in project.steps():
        detail = step.detail if step.kind == "propagate" and step.state is StepState.ACTIVE else {}
        whole = detail.get("complete") is True and (detail.get("directions"), detail.get("frames")) == everywhere
        if whole and isinstance(detail.get("objects"), list):
            yield step, [i for i in detail["objects"] if isinstance(i, int)]


def settled(project: Project) -> frozenset[int]:
    """Objects of which nothing is left to propagate: see `Session.settled`."""
    done = {i: step.number for step, objects in whole_propagations(project) for i in objects}
    later = {a.object_id for a in project.annotations() if a.step > done.get(a.object_id, a.step)}
    found = []
    for object_id, now in project.objects().items():
        then = project.object_at(object_id, done[object_id]) if object_id in done else None
        if then is not None and (then.start, then.stop) == (now.start, now.stop):
            found.append(object_id)
    return frozenset(found) - later
