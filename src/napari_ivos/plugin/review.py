"""What the timeline shows: each object's quality, annotated frames and the frames of the last round; numpy only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_ivos.session import ObjectInfo, Session

Row = npt.NDArray[np.float32]
ACTIVE = 1
"""State of a step in a session's log."""
UNKNOWN = -1.0
"""Quality of a frame without a mask."""


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
        0..1; -1 where there is no mask.
    annotated : dict of int to tuple of int
        Frames that are the user's, ascending.
    changed : dict of int to (T,) bool array
        The object's span in the last round: frames that its propagation wrote.
    round : int
        The last round that was propagated; 0 where none was.
    accepted : frozenset of int
        Frames that the user said are right, and that have the same masks still.
    """

    frames: int = 0
    objects: tuple[ObjectInfo, ...] = ()
    quality: dict[int, Row] = field(default_factory=dict)
    annotated: dict[int, tuple[int, ...]] = field(default_factory=dict)
    changed: dict[int, npt.NDArray[np.bool_]] = field(default_factory=dict)
    round: int = 0
    accepted: frozenset[int] = frozenset()

    @classmethod
    def of(cls, session: Session) -> Review:
        """Everything, read from a session; takes a while for long stacks, so do it in a thread."""
        objects, frames = session.objects, session.shape[0]
        table = np.asarray(session.quality) if objects else np.zeros((frames, 0), np.float32)
        rows = {o.id: np.where(table[:, k] > 0, table[:, k], UNKNOWN).astype(np.float32) for k, o in enumerate(objects)}
        made = cls(frames, objects, rows)
        made.round = max((s.round for s in session.log if s.kind == "propagate" and s.state == ACTIVE), default=0)
        made.mark(session)
        for o in objects:
            made._span(o.id)[list(session.changed_frames(o.id))] = True
        return made

    def mark(self, session: Session) -> None:
        """Read the objects, their annotated frames and the accepted ones again; cheap."""
        self.objects = session.objects
        self.accepted = session.accepted
        self.annotated = {o.id: session.annotated_frames(o.id) for o in self.objects}
        for o in self.objects:
            self._row(o.id)

    def _row(self, object_id: int) -> Row:
        if object_id not in self.quality:
            self.quality[object_id] = np.full(self.frames, UNKNOWN, np.float32)
        return self.quality[object_id]

    def _span(self, object_id: int) -> npt.NDArray[np.bool_]:
        if object_id not in self.changed:
            self.changed[object_id] = np.zeros(self.frames, bool)
        return self.changed[object_id]

    def note(self, frame: int, quality: Mapping[int, float], propagated_in: int | None = None) -> None:
        """Take in one frame that changed, by an annotation or by the propagation of a round."""
        if propagated_in is not None and propagated_in != self.round:
            self.changed.clear()
            self.round = propagated_in
        for object_id, value in quality.items():
            self._row(object_id)[frame] = value if value > 0 else UNKNOWN
            if propagated_in is not None:
                self._span(object_id)[frame] = True

    def at(self, frame: int) -> dict[int, float]:
        """Quality of each object on a frame; 0 without a mask."""
        return {i: max(float(row[frame]), 0.0) for i, row in self.quality.items()}


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


def marked(frames: int, places: Iterable[int], width: int) -> npt.NDArray[np.bool_]:
    """Which of `width` columns hold one of these frames."""
    found = np.zeros(max(width, 0), bool)
    at = np.fromiter(places, np.int64)
    if len(at) and width > 0:
        first = at * width // frames
        last = np.maximum((at + 1) * width // frames - 1, first) if width >= frames else first
        for low, high in zip(first.tolist(), last.tolist(), strict=True):
            found[low : high + 1] = True
    return found
