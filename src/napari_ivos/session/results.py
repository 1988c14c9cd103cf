"""What a session hands back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_ivos.project import Project, Step, StepState

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from napari_ivos.session.session import Session


@dataclass(frozen=True, eq=False)
class FrameResult:
    """One frame that changed.

    Parameters
    ----------
    frame : int
        Which one.
    round : int
        In which round.
    objects : tuple of int
        Ids of the objects whose masks changed, ascending.
    quality : mapping of int to float
        How far each of those masks can be trusted, 0..1.
    seconds : float
        Time that it took.
    """

    frame: int
    round: int
    objects: tuple[int, ...]
    quality: Mapping[int, float]
    seconds: float
    _session: Session = field(repr=False)

    @property
    def found(self) -> dict[int, bool]:
        """Which of the objects have a mask there now, by id; see `Session.found`."""
        found = self._session.found(self.frame)
        return {i: found[i] for i in self.objects if i in found}

    @property
    def labels(self) -> npt.NDArray[np.uint16]:
        """The frame's labels (H, W) as they are now, 0 = background; composed when asked for."""
        labels: npt.NDArray[np.uint16] = self._session.labels[self.frame]
        return labels


@dataclass(frozen=True)
class RoundInfo:
    """One round: what was annotated, and the propagation that followed.

    Parameters
    ----------
    number : int
        From 1.
    annotated : mapping of int to tuple of int
        Frame to the ids of the objects that are the user's there.
    strokes : int
        Strokes drawn in it.
    frames : int
        Frames written by its propagations, each object's passes counted once a frame and direction.
    seconds : float
        Time that the networks and the project took.
    models : tuple of str
        Checksums of the models used.
    time : str
        When it began: UTC, ISO 8601.
    """

    number: int
    annotated: Mapping[int, tuple[int, ...]]
    strokes: int
    frames: int
    seconds: float
    models: tuple[str, ...]
    time: str


def summarise(project: Project) -> tuple[RoundInfo, ...]:
    """The rounds of a project, from its active steps."""
    annotated: dict[int, dict[int, set[int]]] = {}
    for a in project.annotations():
        annotated.setdefault(a.round, {}).setdefault(a.frame, set()).add(a.object_id)
    strokes = Counter(s.round for s in project.strokes())
    by_round: dict[int, list[Step]] = {}
    for step in project.steps():
        if step.state is StepState.ACTIVE:
            by_round.setdefault(step.round, []).append(step)
    return tuple(
        RoundInfo(
            number,
            {frame: tuple(sorted(ids)) for frame, ids in sorted(annotated.get(number, {}).items())},
            strokes[number],
            sum(s.frames for s in steps),
            sum(s.seconds for s in steps),
            tuple(dict.fromkeys(s.model for s in steps if s.model is not None)),
            steps[0].time,
        )
        for number, steps in sorted(by_round.items())
    )
