"""What a project tells about itself: plain frozen records."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt


ROUND_KINDS = frozenset({"interact", "annotate", "remove stroke", "propagate"})
"""Kinds of steps that make up a round; all others edit the table of objects, which outlives a round."""


class StepState(IntEnum):
    """Whether a step counts."""

    DROPPED = -1
    UNDONE = 0
    ACTIVE = 1


@dataclass(frozen=True)
class Step:
    """One entry of the history.

    Parameters
    ----------
    number : int
        Ascending in the order in which things were done; never used twice.
    kind : str
        "interact", "annotate", "propagate", "remove stroke", "add object", "rename" ...
    round : int
        The round it belongs to.
    state : StepState
        Active, undone (it can be redone), or dropped.
    finished : bool
        False for an interaction whose strokes are kept but whose masks are still to be made.
    time : str
        When it began: UTC, ISO 8601.
    model : str or None
        Checksum of the model in use.
    detail : mapping
        More about it, by kind.
    frames : int
        Frames that it wrote.
    seconds : float
        Time that it took.
    """

    number: int
    kind: str
    round: int
    state: StepState
    finished: bool
    time: str
    model: str | None
    detail: Mapping[str, Any] = field(default_factory=dict)
    frames: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class ObjectInfo:
    """What is known of one object.

    Parameters
    ----------
    id : int
        1..65535, never reused.
    name : str
        As shown to people.
    colour : str
        "#rrggbb".
    lifetime : range
        The frames on which it may exist.
    parent : int or None
        The object that divided into this one.
    locked : bool
        Whether nothing may change it.
    """

    id: int
    name: str
    colour: str
    lifetime: range
    parent: int | None = None
    locked: bool = False


@dataclass(frozen=True)
class ObjectState:
    """A row of the table of objects: what `ObjectInfo` is made from."""

    id: int
    name: str
    colour: str
    start: int = 0
    stop: int | None = None
    parent: int | None = None
    locked: int | None = None
    removed: bool = False

    def alive(self, frame: int) -> bool:
        """Whether it is shown on a frame."""
        return not self.removed and self.start <= frame and (self.stop is None or frame < self.stop)

    def lifetime(self, frames: int) -> range:
        return range(self.start, frames if self.stop is None else min(self.stop, frames))

    def info(self, frames: int) -> ObjectInfo:
        return ObjectInfo(self.id, self.name, self.colour, self.lifetime(frames), self.parent, self.locked is not None)


@dataclass(frozen=True, eq=False)
class StrokeRecord:
    """One stroke as it was drawn, for replay and for a methods section.

    Parameters
    ----------
    id : int
        Names it; never reused.
    frame, object_id, round, step : int
        Where it belongs; object 0 is the background.
    time : str
        UTC, ISO 8601.
    model : str or None
        Checksum of the model that saw it.
    points : (N, 2) float64 array
        (row, col) in pixels of the frame.
    """

    id: int
    frame: int
    object_id: int
    round: int
    step: int
    time: str
    model: str | None
    points: npt.NDArray[np.float64]


class Annotation(NamedTuple):
    """A frame that is the user's for one object; `spreads`: propagation starts there."""

    object_id: int
    frame: int
    step: int
    round: int
    spreads: bool


@dataclass(frozen=True)
class StoredModel:
    """Weights that travel with a project."""

    name: str
    checksum: str
    size: int
    time: str
