"""What a propagation has to do: one `Track` for each object and pass, and the order of frames; pure.

A track knows how far its pass has come from the masks that it left, so a plan made after a stop or a kill is the rest
of the plan made before.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_ivos.merging import Bound, Pass
from napari_ivos.steps import LOST_FRAMES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping


@dataclass(eq=False)
class Track:
    """One object's pass in one direction, as far as it has come.

    Parameters
    ----------
    object_id : int
        Whose.
    way : Pass
        The frames, in order, and what bounds them.
    within : range
        Only these frames may change now.
    reached : int
        How many frames of the way are done, from its start without a gap.
    empties : int
        How many of the last ones are without a mask.
    lost : bool
        The object is absent on the rest of the way: no network looks for it there.
    leftovers : set of int
        Where it is lost: frames on which something is still to be changed.
    other : Track or None
        In a span between two frames of one round, the track that comes from the other side.
    """

    object_id: int
    way: Pass
    within: range
    reached: int = 0
    empties: int = 0
    lost: bool = False
    leftovers: set[int] = field(default_factory=set)
    other: Track | None = None

    @property
    def direction(self) -> int:
        return self.way.frames.step

    def resume(self, written: Mapping[int, bool]) -> None:
        """Come as far as the masks (frame: whether there is one) that this pass has left in this round."""
        for frame in self.way.frames:
            if self.lost or frame not in written:
                return
            self.note(written[frame])

    def note(self, filled: bool) -> None:
        """One more frame of the way is done."""
        self.reached += 1
        self.empties = 0 if filled else self.empties + 1
        self.lost = self.empties >= LOST_FRAMES

    @property
    def planned(self) -> range:
        """Frames that this call may still change, in order: those ahead, up to where `within` ends."""
        ahead = self.way.frames[self.reached :]
        if len(ahead) == 0:
            return ahead
        if self.lost:
            return _inside(ahead, self.within)
        if ahead[0] not in self.within:
            return ahead[:0]
        return _inside(ahead, self.within)

    def settled(self, frame: int) -> bool:
        """Whether this track will do no more on a frame of its way: it was there, or is lost before it."""
        return self.lost or frame in self.way.frames[: self.reached]


def _inside(frames: range, within: range) -> range:
    """The part of a range of step 1 or -1 that lies in another of step 1."""
    if frames.step > 0:
        return range(max(frames.start, within.start), min(frames.stop, within.stop))
    return range(min(frames.start, within.stop - 1), max(frames.stop, within.start - 1), -1)


def pair(tracks: Collection[Track]) -> None:
    """Make the two tracks of each span between frames of one round known to each other."""
    starts = {(t.object_id, t.direction, t.way.start): t for t in tracks}
    for track in tracks:
        way = track.way
        if way.bound is Bound.SAME_ROUND and way.distance is not None:
            track.other = starts.get((track.object_id, -track.direction, way.start + track.direction * way.distance))


class Frames:
    """The union of ranges of frames, in the order of one direction."""

    def __init__(self, ranges: Iterable[range], direction: int) -> None:
        self._direction = direction
        spans: list[tuple[int, int]] = []
        for low, high in sorted((min(r), max(r) + 1) for r in ranges if len(r)):
            if spans and low <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(spans[-1][1], high))
            else:
                spans.append((low, high))
        self._spans = spans
        self._starts = [low for low, _ in spans]

    def __iter__(self) -> Iterator[int]:
        for low, high in self._spans[:: self._direction]:
            yield from range(low, high) if self._direction > 0 else range(high - 1, low - 1, -1)

    def __contains__(self, frame: int) -> bool:
        at = bisect_right(self._starts, frame) - 1
        return at >= 0 and frame < self._spans[at][1]

    def __len__(self) -> int:
        return sum(high - low for low, high in self._spans)
