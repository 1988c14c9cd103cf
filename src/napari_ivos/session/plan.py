"""What a propagation has to do: one `Track` for each object and pass, and the order of frames; pure.

A track knows how far its pass has come from the masks that it left, so a plan made after a stop or a kill is the rest
of the plan made before.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from napari_ivos.merging import Bound, Pass
from napari_ivos.steps import DOUBTED, LOST_FRAMES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence


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
    doubts : int
        How many of the last masks are doubted.
    most_doubts : int
        So many in a row are the object's last masks; 0: it is looked for behind them whatever they are worth.
    exact : bool
        The mask that it starts from was painted or imported.
    since : int
        The step that annotated the frame from which it starts.
    carried : bool
        An earlier round left it undone.
    """

    object_id: int
    way: Pass
    within: range
    reached: int = 0
    empties: int = 0
    lost: bool = False
    leftovers: set[int] = field(default_factory=set)
    other: Track | None = None
    doubts: int = 0
    most_doubts: int = 0
    exact: bool = False
    since: int = 0
    carried: bool = False

    @property
    def direction(self) -> int:
        return self.way.frames.step

    def resume(self, written: Mapping[int, float | None]) -> None:
        """Come as far as the masks (frame: as for `note`) that this pass has left, from where it is now."""
        for frame in self.way.frames[self.reached :]:
            if self.lost or frame not in written:
                return
            self.note(written[frame])

    def note(self, quality: float | None) -> None:
        """One more frame of the way is done: with a mask of this quality, or without one (None)."""
        self.reached += 1
        self.empties = self.empties + 1 if quality is None else 0
        self.doubts = self.doubts + 1 if quality is not None and quality < DOUBTED else 0
        self.lost = self.empties >= LOST_FRAMES or self.ended

    @property
    def ended(self) -> bool:
        """Whether doubted masks were the object's last."""
        return 0 < self.most_doubts <= self.doubts

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

    def busy(self, frame: int) -> bool:
        """Whether there is something to do on a frame."""
        return frame in self.planned and (not self.lost or frame in self.leftovers)

    def settled(self, frame: int) -> bool:
        """Whether this track will do no more on a frame of its way: it was there, or is lost before it."""
        return self.lost or self.passed(frame)

    def passed(self, frame: int) -> bool:
        """Whether this track was on a frame of its way."""
        return frame in self.way.frames[: self.reached]

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do, whatever is asked for."""
        return self.reached == len(self.way.frames) or (self.lost and not self.leftovers)

    def part(self) -> None:
        """Forget the track that comes from the other side, which is over: what it left counts as earlier masks."""
        self.way, self.other = replace(self.way, bound=Bound.EARLIER), None


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


def independent(tracks: Sequence[Track]) -> list[list[Track]]:
    """Parts of the work that know nothing of each other, each in the order of `tracks`.

    Two tracks belong together if one may read what the other writes: where they change the same frames, or where one
    starts from a frame that the other changes. Every object counts as one that may be met. Spans between frames on
    which all objects are annotated come apart, and so do the two sides of a single annotated frame.
    """
    active = [t for t in tracks if len(t.planned) and (not t.lost or t.leftovers)]
    spans = Frames([t.planned for t in active], 1).spans
    starts = [low for low, _ in spans]
    owner = list(range(len(spans)))

    def root(k: int) -> int:
        while owner[k] != k:
            k = owner[k]
        return k

    def span_of(frame: int) -> int | None:
        k = bisect_right(starts, frame) - 1
        return k if k >= 0 and frame < spans[k][1] else None

    for track in active:
        first = track.planned[0]
        here, before = span_of(first), span_of(first - track.direction)
        if here is not None and before is not None and root(here) != root(before):
            owner[max(root(here), root(before))] = min(root(here), root(before))
    parts: dict[int, list[Track]] = {}
    for track in active:
        here = span_of(track.planned[0])
        parts.setdefault(-1 if here is None else root(here), []).append(track)
    return list(parts.values())


def portion(tracks: Iterable[Track], direction: int, within: range) -> list[Track]:
    """Copies of the tracks of one direction that may change something in `within`, and of those that they meet there.

    The first are held to `within` (of step 1); the others keep what they plan, so that it is known what they will do.
    """
    here = [t for t in tracks if t.direction == direction and len(_inside(t.planned, within))]
    copies: dict[int, Track] = {}
    for track in here:
        held = range(max(track.within.start, within.start), min(track.within.stop, within.stop))
        copies[id(track)] = replace(track, within=held, leftovers={f for f in track.leftovers if f in within})
    for track in here:
        if track.other is not None:
            meets = copies.setdefault(id(track.other), replace(track.other, leftovers=set()))
            copies[id(track)].other, meets.other = meets, copies[id(track)]
    return list(copies.values())


class Schedule:
    """Which tracks of one direction have a frame before them, asked in the order of that direction.

    Costs what is under way, not what there is: ten thousand annotated frames make as many tracks, of which few meet.
    """

    def __init__(self, tracks: Sequence[Track], direction: int) -> None:
        self._direction = direction
        ahead = [(t.planned, k, t) for k, t in enumerate(tracks) if t.direction == direction]
        coming = [(planned[0] * direction, planned[-1] * direction, k, t) for planned, k, t in ahead if len(planned)]
        self._coming = sorted(coming, key=lambda entry: entry[:3], reverse=True)
        self._here: list[tuple[int, int, Track]] = []

    def at(self, frame: int) -> list[Track]:
        """Tracks that plan a frame, in the order in which they were given."""
        now = frame * self._direction
        if self._coming and self._coming[-1][0] <= now:
            while self._coming and self._coming[-1][0] <= now:
                self._here.append(self._coming.pop()[1:])
            self._here.sort(key=lambda entry: entry[1])
        if any(last < now for last, _, _ in self._here):
            self._here = [entry for entry in self._here if entry[0] >= now]
        return [track for _, _, track in self._here if frame in track.planned]


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

    @property
    def spans(self) -> Sequence[tuple[int, int]]:
        """Begin and end of each run of frames, ascending."""
        return self._spans

    def __iter__(self) -> Iterator[int]:
        for low, high in self._spans[:: self._direction]:
            yield from range(low, high) if self._direction > 0 else range(high - 1, low - 1, -1)

    def __contains__(self, frame: int) -> bool:
        at = bisect_right(self._starts, frame) - 1
        return at >= 0 and frame < self._spans[at][1]

    def __len__(self) -> int:
        return sum(high - low for low, high in self._spans)
