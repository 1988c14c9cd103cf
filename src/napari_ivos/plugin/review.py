"""What the timeline shows: each object's quality, annotated frames and the frames of the last round; numpy only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_ivos.session import ObjectInfo, Session

Row = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
ACTIVE = 1
"""State of a step in a session's log."""
UNKNOWN = -1.0
"""Quality of a frame that no round has come to yet."""


@dataclass(eq=False)
class Review:
    """Rows of the timeline.

    Parameters
    ----------
    frames : int
        How many.
    objects : tuple of ObjectInfo
        One row each.
    quality : dict of int to (T,) float32 array
        0..1; -1 where no round has come yet.
    annotated : dict of int to tuple of int
        Frames that are the user's, ascending.
    changed : dict of int to (T,) bool array
        The object's span in the last round: frames that its propagation wrote.
    round : int
        The last round that was propagated; 0 where none was.
    accepted : frozenset of int
        Frames that the user said are right, and that have the same masks still.
    absent : dict of int to (T,) bool array
        Where a round came, or the user annotated, and the object is not there: the quality is that of its absence.
    settled : frozenset of int
        Objects of which nothing is left to propagate: where no round came, they were over before.
    """

    frames: int = 0
    objects: tuple[ObjectInfo, ...] = ()
    quality: dict[int, Row] = field(default_factory=dict)
    annotated: dict[int, tuple[int, ...]] = field(default_factory=dict)
    changed: dict[int, Flags] = field(default_factory=dict)
    round: int = 0
    accepted: frozenset[int] = frozenset()
    absent: dict[int, Flags] = field(default_factory=dict)
    settled: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for object_id, row in self.quality.items():
            self.absent.setdefault(object_id, np.zeros(len(row), bool))

    @classmethod
    def of(cls, session: Session) -> Review:
        """Everything, read from a session; takes a while for long stacks, so do it in a thread."""
        made = cls(session.shape[0], session.objects)
        table = session.quality
        for o in made.objects:
            quality, found = table.seen(o.id)
            made.quality[o.id] = np.where(found < 0, np.float32(UNKNOWN), quality)
            made.absent[o.id] = found == 0
        made.round = max((s.round for s in session.log if s.kind == "propagate" and s.state == ACTIVE), default=0)
        made.mark(session)
        for o in made.objects:
            made._span(o.id)[list(session.changed_frames(o.id))] = True
        return made

    def mark(self, session: Session) -> None:
        """Read the objects, their annotated frames and the accepted ones again; cheap."""
        self.objects = session.objects
        self.accepted = session.accepted
        self.settled = session.settled
        self.annotated = {o.id: session.annotated_frames(o.id) for o in self.objects}
        for o in self.objects:
            self._row(o.id)

    def _row(self, object_id: int) -> Row:
        if object_id not in self.quality:
            self.quality[object_id] = np.full(self.frames, UNKNOWN, np.float32)
            self.absent[object_id] = np.zeros(self.frames, bool)
        return self.quality[object_id]

    def _span(self, object_id: int) -> Flags:
        if object_id not in self.changed:
            self.changed[object_id] = np.zeros(self.frames, bool)
        return self.changed[object_id]

    def note(
        self, frame: int, quality: Mapping[int, float], found: Mapping[int, bool], propagated_in: int | None = None
    ) -> None:
        """Take in one frame that changed, by an annotation or by the propagation of a round.

        Parameters
        ----------
        frame : int
        quality : mapping of int to float
            Of the objects that changed there.
        found : mapping of int to bool
            Which of them have a mask there; those of which nothing is known any more are missing.
        propagated_in : int, optional
            The round whose propagation it was.
        """
        if propagated_in is not None and propagated_in != self.round:
            self.changed.clear()
            self.round = propagated_in
        self.settled -= frozenset(quality)
        for object_id, value in quality.items():
            self._row(object_id)[frame] = value if object_id in found else UNKNOWN
            self.absent[object_id][frame] = not found.get(object_id, True)
            if propagated_in is not None:
                self._span(object_id)[frame] = True

    def at(self, frame: int) -> dict[int, float]:
        """Quality of each object on a frame; NaN where no round has come yet."""
        return {i: float(row[frame]) if row[frame] >= 0 else math.nan for i, row in self.quality.items()}

    def words(self, info: ObjectInfo, frame: int) -> str:
        """What is known of an object on a frame, for people."""
        if frame not in info.lifetime:
            return "it has ended" if frame >= info.lifetime.stop else "it has not begun"
        value, absent = float(self.quality[info.id][frame]), bool(self.absent[info.id][frame])
        if frame in self.annotated.get(info.id, ()):
            return "yours: it is not there" if absent else "yours: drawn or painted"
        if value < 0:
            return "no mask: it was over before" if info.id in self.settled else "not reached yet"
        said = f"no mask, looked for (sure: {value:.2f})" if absent else f"mask of quality {value:.2f}"
        return f"{said}, accepted as right" if frame in self.accepted else said


def columns(row: npt.NDArray[Any], width: int) -> Row:
    """The worst known value for each of `width` columns: (T,) to (width,); -1 where none is known.

    Costs a pass over the row, whatever the number of columns, so that 100,000 frames are drawn as fast as 100.
    """
    frames = len(row)
    if frames == 0 or width <= 0:
        return np.full(max(width, 0), UNKNOWN, np.float32)
    edges = np.arange(width) * frames // width
    known = np.where(row < 0, 2.0, row).astype(np.float32)
    worst = known[edges] if width >= frames else np.minimum.reduceat(known, edges)
    return np.where(worst > 1.5, UNKNOWN, worst).astype(np.float32)


def marked(frames: int, places: Iterable[int], width: int) -> Flags:
    """Which of `width` columns hold one of these frames."""
    found = np.zeros(max(width, 0), bool)
    at = np.fromiter(places, np.int64)
    if len(at) and width > 0:
        first = at * width // frames
        last = np.maximum((at + 1) * width // frames - 1, first) if width >= frames else first
        for low, high in zip(first.tolist(), last.tolist(), strict=True):
            found[low : high + 1] = True
    return found


def alive(lifetime: range, frames: int, width: int) -> Flags:
    """Which of `width` columns hold a frame of an object's lifetime."""
    edges = np.arange(width + 1) * frames // max(width, 1)
    last = np.maximum(edges[1:] - 1, edges[:-1])
    return (last >= lifetime.start) & (edges[:-1] < lifetime.stop)
