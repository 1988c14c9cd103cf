"""The work of a propagation: sweeps over the frames, one batch of objects and one transaction a frame."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ivos import motion, steps
from napari_ivos.merging import Bound, Origin, Pass, Patch, blend, certainty, overlap, passes
from napari_ivos.project import LATEST, Annotation, ObjectState, Project, Row, Stage, Writer, WrittenPatch
from napari_ivos.regions import FOLLOW, Box, meeting, region_around, stacked
from napari_ivos.session.guard import failing_model
from napari_ivos.session.history import whole_propagations
from napari_ivos.session.plan import Frames, Schedule, Track, pair
from napari_ivos.session.stacks import doubts_that_end, told_by_looks
from napari_ivos.steps import DOUBTS_SECTION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from napari_ivos.predictor import Predictor, Reference
    from napari_ivos.session.stacks import Stack

LEARN_AT_ONCE = 64
"""Painted masks that the network looks at in one batch."""
REFERENCES_AT_MOST = 1024
"""References by which an object is told apart: of more, those of the annotated frames nearest to where its way starts.
With so many the network that ships takes a second and 1.2 GB for an object on a frame; both grow with their number."""
MOTION_ALLOWANCE = 0.5
"""How much of the quality is left where a mask has nothing in common with its neighbour's."""
AHEAD_MARGIN = 1.25
"""Regions are read ahead this much larger, because the object will have moved."""
AHEAD_REGIONS = 4
"""Regions of a frame that are read ahead at most; a stack keeps no more."""
JOINED_WITH = 8
"""A region to be read ahead is joined with one of so many that came last before it: there may be a thousand."""
AHEAD_WASTE = 2.0
"""Regions are read ahead as one as long as that reads at most this many times their own pixels."""


@dataclass(frozen=True, eq=False)
class Done:
    """One frame that is final: what changed on it, with each object's quality, and how long it took."""

    frame: int
    quality: Mapping[int, float]
    seconds: float


@dataclass(frozen=True, eq=False)
class Task:
    """What a propagation is asked for; `most`: after the work of so many frames it stops."""

    round: int
    directions: tuple[int, ...]
    within: range
    objects: Mapping[int, ObjectState]
    most: int | None = None


class Sweep:
    """One call of `propagate`.

    Parameters
    ----------
    project, stack, predictor
        What it reads and writes, and the networks.
    task : Task
        Round, directions, frames and objects.
    cancelled : callable
        Asked between frames.
    written : callable
        Told (frame) after each transaction.
    tracks : sequence of Track, optional
        What there is to do, where that was planned elsewhere; planned from the project by default.
    looked : callable, optional
        Called before anything is written that was made from the frames.
    """

    def __init__(
        self,
        project: Project,
        stack: Stack,
        predictor: Predictor,
        task: Task,
        cancelled: Callable[[], bool],
        written: Callable[[int], None],
        tracks: Sequence[Track] | None = None,
        looked: Callable[[], None] | None = None,
    ) -> None:
        self._project = project
        self._stack = stack
        self._predictor = predictor
        self._task = task
        self._cancelled = cancelled
        self._written = written
        self._looked = looked
        self._shape = project.shape[1:]
        self._most_doubts, self._by_looks = doubts_that_end(stack), told_by_looks(stack)
        self._step: int | None = None
        self._finished = 0
        self._worked = 0
        self._complete: dict[tuple[int, int], int] | None = None
        self._annotations: dict[int, list[Annotation]] = {}
        for annotation in project.annotations():
            self._annotations.setdefault(annotation.object_id, []).append(annotation)
        self._tracks = self._make_tracks() if tracks is None else list(tracks)
        self._learned: dict[int, list[tuple[int, int]]] = {}
        self._nearest: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self._references: dict[int, tuple[list[tuple[int, int]], dict[tuple[int, int], Reference]]] = {}
        self._plans = {
            direction: Frames([t.planned for t in self._tracks if t.direction == direction], direction)
            for direction in task.directions
        }

    @property
    def round(self) -> int:
        return self._task.round

    @property
    def directions(self) -> tuple[int, ...]:
        return self._task.directions

    @property
    def model(self) -> str:
        """Checksum of the model."""
        return self._predictor.checksum

    def part(self, direction: int, within: range) -> Task:
        """The same for one direction and some frames."""
        return Task(self._task.round, (direction,), within, {})

    @property
    def tracks(self) -> Sequence[Track]:
        """What there is to do, and how far it is."""
        return self._tracks

    @property
    def planned(self) -> Frames:
        """All frames that may change."""
        return Frames([t.planned for t in self._tracks if t.direction in self._task.directions], 1)

    # -- what there is to do

    def _make_tracks(self) -> list[Track]:
        tracks = []
        within = dict.fromkeys(self._task.directions, self._task.within)
        for object_id, state in self._task.objects.items():
            mine = self._annotations.get(object_id, [])
            starts = {a.frame: a for a in mine if a.spreads}
            going_on_from = {f: a for f, a in starts.items() if not self._carried_through(a, state)}
            for a in self._in_the_way(mine, list(going_on_from.values()), state):
                starts[a.frame] = going_on_from[a.frame] = a
            for way in passes(going_on_from, {a.frame for a in mine}, state.lifetime(self._project.shape[0])):
                start = starts[way.start]
                track = Track(object_id, way, within.get(way.frames.step, range(0)))
                track.since, track.carried = start.step, start.round != self._task.round
                if way.bound is Bound.OPEN or (track.carried and _was_open(way, start, mine)):
                    track.most_doubts = self._most_doubts
                tracks.append(track)
        pair(tracks)
        absent, exact = self._starts(tracks)
        for track in tracks:
            track.lost = (track.object_id, track.way.start) in absent
            track.exact = (track.object_id, track.way.start) in exact
        over = self._over_before(track for track in tracks if track.carried)
        kept = [track for track in tracks if track not in over]
        for track in kept:
            if track.other in over:
                track.part()
            track.resume(self._written_by(track))
            if track.lost:
                self.find_leftovers(track)
        return kept

    def _in_the_way(
        self, mine: Sequence[Annotation], begun: Sequence[Annotation], state: ObjectState
    ) -> list[Annotation]:
        """Annotations that start nothing by themselves, and stop a pass that an earlier round left undone.

        What was still to be done behind them is done from them on.
        """
        silent = [a for a in mine if not a.spreads]
        unfinished = {a.frame: a for a in begun if any(a.round < b.round for b in silent)}
        if not unfinished:
            return []
        found: dict[int, Annotation] = {}
        lifetime = state.lifetime(self._project.shape[0])
        for way in passes(unfinished, {a.frame for a in mine if a.spreads}, lifetime):
            start = unfinished[way.start]
            met = [a for a in silent if a.frame in way.frames and start.round < a.round]
            if met:
                track = Track(state.id, way, range(0), since=start.step)
                if way.bound is Bound.OPEN or _was_open(way, start, mine):
                    track.most_doubts = self._most_doubts
                track.resume(self._project.progress(state.id, way.frames, track.direction, start.step))
                if not track.over:
                    found |= {a.frame: a for a in met if not self._carried_through(a, state)}
        return list(found.values())

    def _over_before(self, carried: Iterable[Track]) -> set[Track]:
        """Those of these tracks that earlier rounds finished; the others come as far as those brought them."""
        over = set()
        for track in carried:
            track.resume(self._written_by(track, self._task.round))
            if track.lost:
                self.find_leftovers(track, self._task.round)
            elif track.way.bound is not Bound.OPEN:
                track.most_doubts = 0
            if track.over:
                over.add(track)
        return over

    def _written_by(self, track: Track, before: int = LATEST) -> dict[int, float | None]:
        """What a track has left, in rounds before one; halves count as long as somebody comes to average them."""
        held = not track.carried or track.other is not None
        way = track.way.frames
        return self._project.progress(track.object_id, way, track.direction, track.since, before, held)

    def _carried_through(self, start: Annotation, state: ObjectState) -> bool:
        """Whether a propagation of an annotation's own, earlier round came to its end for that object, everywhere."""
        if start.round == self._task.round:
            return False
        if self._complete is None:
            whole = whole_propagations(self._project)
            self._complete = {(step.round, i): step.number for step, objects in whole for i in objects}
        number = self._complete.get((start.round, start.object_id))
        then = None if number is None else self._project.object_at(start.object_id, number)
        return then is not None and (then.start, then.stop) == (state.start, state.stop)

    def _starts(self, tracks: Sequence[Track]) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
        """(object, frame) of annotations that say that the object isn't there, and of those that are exact masks."""
        absent, exact = set(), set()
        wanted: dict[int, set[int]] = {}
        for track in tracks:
            wanted.setdefault(track.way.start, set()).add(track.object_id)
        for frame, object_ids in wanted.items():
            rows = self._project.rows(frame)
            for object_id in object_ids:
                row = rows.get(object_id)
                if row is None or (row.origin is Origin.PAINTED and not row.filled):
                    absent.add((object_id, frame))
                elif row.origin is Origin.PAINTED:
                    exact.add((object_id, frame))
        return absent, exact

    def find_leftovers(self, track: Track, before: int = LATEST) -> None:
        """Note the frames on which a lost object still has a mask that has to go, or to be averaged.

        Behind doubted masks of a time-lapse nothing has to: what earlier rounds found there may be right.
        """
        ahead = track.way.frames[track.reached :]
        if len(ahead) == 0 or (track.ended and self._most_doubts > DOUBTS_SECTION):
            return
        number = self._task.round
        found = self._project.filled_before(track.object_id, ahead, number, -track.direction)
        left = {frame for frame, step in found.items() if step < track.since or not track.carried}
        if track.other is not None:
            left |= self._project.left_by(track.object_id, ahead, -track.direction, track.other.since)
        done = self._project.progress(track.object_id, ahead, track.direction, track.since, before)
        track.leftovers = left - done.keys()

    # -- doing it

    def run(self) -> Iterator[Done]:
        """Every frame that changes, once, when nothing of this call will change it again."""
        plans = self._plans
        if not any(len(plan) for plan in plans.values()):
            return
        self._learn()
        waiting = bytearray(self._project.shape[0])  # 1: changed, but a later sweep comes by again
        for place, direction in enumerate(self._task.directions):
            later = [plans[d] for d in self._task.directions[place + 1 :]]
            schedule = Schedule(self._tracks, direction)
            for frame in plans[direction]:
                if self._cancelled() or self._worked == self._task.most:
                    return
                started = time.perf_counter()
                changed = self._do(frame, direction, schedule.at(frame))
                if any(frame in plan for plan in later):
                    waiting[frame] |= bool(changed)
                elif changed or waiting[frame]:
                    self._finished += 1
                    yield Done(frame, self._report(frame), time.perf_counter() - started)
        self.conclude()

    def begin(self, writer: Writer) -> int:
        """The step of this call in the history, which its first frame makes."""
        if self._step is not None:
            return self._step
        return writer.begin("propagate", self._task.round, self._predictor.checksum, self._detail)

    def begun(self, step: int) -> None:
        """What `begin` gave was written."""
        self._step = step

    def conclude(self) -> None:
        """Say in the history that this call came to its end."""
        if self._step is not None:
            with self._project.transaction() as writer:
                writer.conclude(self._step, {**self._detail, "complete": True})

    @property
    def _detail(self) -> dict[str, Any]:
        """What the history says of this call; only one that came to its end adds that it is complete."""
        task = self._task
        return {
            "objects": sorted(task.objects),
            "directions": list(task.directions),
            "frames": [task.within.start, task.within.stop],
        }

    @property
    def _kept(self) -> str:
        return f"{self._finished} finished frames are kept; propagate again to go on."

    def _report(self, frame: int) -> dict[int, float]:
        return self._project.written(frame, () if self._step is None else (self._step,))

    def _do(self, frame: int, direction: int, tracks: Sequence[Track]) -> bool:
        """All that one sweep does on one frame, which these tracks plan; whether anything was written that shows."""
        here = [t for t in tracks if not t.lost or frame in t.leftovers]
        if not here:
            return False
        started = time.perf_counter()
        neighbours = self._neighbours(frame - direction, direction, here)
        previous = self._previous(frame, direction, [t for t in here if _needs_previous(t)])
        new = self._look(frame, direction, [t for t in here if not t.lost], neighbours)
        halves = self._halves(frame, direction, here)
        patches = []
        for track in here:
            written = self._settle(track, frame, new, neighbours, previous, halves)
            if written is not None:
                patches.append(written)
        if patches:
            self._write(frame, patches, time.perf_counter() - started)
        quality = {p.object_id: p.quality if p.filled > 0 else None for p in patches}
        for track in here:
            if not track.lost:
                track.note(quality[track.object_id])
                if track.lost:
                    self.find_leftovers(track)
        return any(p.stage is not Stage.HELD for p in patches)

    def _neighbours(self, frame: int, direction: int, here: Sequence[Track]) -> dict[int, Patch]:
        """Patches on the neighbouring frame of the objects looked for, and of those whose boxes meet theirs."""
        looked_for = {t.object_id for t in here if not t.lost}
        rows = self._project.rows(frame, direction=direction)
        boxes = stacked(rows[i].box for i in looked_for if i in rows)
        objects = self._project.objects()
        chosen = [
            row
            for row in rows.values()
            if row.object_id in looked_for or (there(objects, row.object_id, frame) and meeting(row.box, boxes).size)
        ]
        return _locked_first(self._project.patches(chosen), objects)

    def _previous(self, frame: int, direction: int, here: Sequence[Track]) -> dict[int, Patch]:
        """What earlier rounds left of these objects on this frame, passes from the other side included."""
        if not here:
            return {}
        rows = self._project.rows(frame, before=self._task.round, direction=-direction)
        return self._project.patches(rows[t.object_id] for t in here if t.object_id in rows)

    def _halves(self, frame: int, direction: int, here: Sequence[Track]) -> dict[int, Patch]:
        """What the passes from the other side left on this frame."""
        met = {t.object_id for t in here if t.other is not None}
        if not met:
            return {}
        rows = self._project.held(frame, -direction, self._task.round)
        return self._project.patches(row for object_id, row in rows.items() if object_id in met)

    def _look(
        self,
        frame: int,
        direction: int,
        here: Sequence[Track],
        neighbours: Mapping[int, Patch],
    ) -> dict[int, Patch]:
        """Run the network for these objects, while the next frame is being read."""
        if not here:
            return {}
        going_on = [t.object_id for t in here if frame + direction in t.planned]
        if going_on:
            self._read_ahead(frame + direction, [neighbours[i] for i in going_on])
        references = {t.object_id: self._references_for(t) for t in here}
        with failing_model(self._predictor, frame, self._kept):
            return steps.propagate(
                lambda box: self._stack.read(frame, box),
                self._shape,
                self._predictor,
                neighbours,
                {},
                references,
                lambda box: self._stack.read(frame - direction, box),
                self._holds(frame, here),
                self._by_looks,
            )

    def _holds(self, frame: int, here: Sequence[Track]) -> dict[int, motion.Hold]:
        """How masks are held on to: exact ones, and corrected ones, in films in colour more firmly."""
        in_colour = self._most_doubts == 0  # see `doubts_that_end`
        corrected = motion.FIRM if in_colour else motion.LOOSE
        holds = {t.object_id: corrected for t in here if len(self.learned_for(t)) > 1}
        return holds | {t.object_id: motion.exact_after(abs(frame - t.way.start)) for t in here if t.exact}

    def _read_ahead(self, frame: int, neighbours: Sequence[Patch]) -> None:
        boxes = []
        for patch in neighbours:
            around = patch.extent or patch.box
            boxes.append(region_around(around, FOLLOW * AHEAD_MARGIN, self._shape))
        for box in join(boxes)[:AHEAD_REGIONS]:
            self._stack.prefetch(frame, box)

    def _settle(
        self,
        track: Track,
        frame: int,
        new: Mapping[int, Patch],
        neighbours: Mapping[int, Patch],
        previous: Mapping[int, Patch],
        halves: Mapping[int, Patch],
    ) -> WrittenPatch | None:
        """What is stored of an object: the new mask blended with what bounds or meets it."""
        i = track.object_id
        old, half, stage = previous.get(i), halves.get(i), Stage.FINAL
        if track.other is not None and not track.other.settled(frame):
            stage = Stage.HELD if frame in track.other.planned else Stage.SHOWN
        if track.lost:
            like = half if half is not None else old
            if like is None or stage is Stage.HELD:
                return None
            mask = nothing(like.box)
        else:
            mask = new[i]
        if track.other is not None:
            if stage is Stage.FINAL:
                if half is None and track.other.carried and track.other.passed(frame):
                    half = old
                mask = blend(mask, nothing(mask.box) if half is None else half, track.way.weight(frame))
        elif track.way.bound is Bound.EARLIER:
            mask = blend(mask, old, track.way.weight(frame))
        quality = quality_of(mask, neighbours.get(i))
        return WrittenPatch.of(i, mask, quality, stage, track.direction)

    def _write(self, frame: int, patches: Sequence[WrittenPatch], seconds: float) -> None:
        if self._looked is not None:
            self._looked()
        with self._project.transaction() as writer:
            step = self.begin(writer)
            writer.put_patches(step, frame, patches)
            writer.spend(step, 1, seconds)
        self.begun(step)
        self._worked += 1
        self._written(frame)

    # -- references

    def _learn(self) -> None:
        """Learn what this model has not seen yet of the objects to be carried."""
        for frame, step, rows in self.unlearned():
            self._learn_batch(frame, step, rows)
        self.look_up_learned()

    def _carried(self) -> set[int]:
        return {t.object_id for t in self._tracks if not t.lost and len(t.planned)}

    def unlearned(self) -> list[tuple[int, int, list[Row]]]:
        """Painted masks that this model has not seen yet: (frame, step, masks), a batch each."""
        known = self._project.learned(self._predictor.checksum)
        missing: dict[tuple[int, int], set[int]] = {}
        for object_id in self._carried():
            for a in self._annotations[object_id]:
                if a.spreads and (object_id, a.step, a.frame) not in known:
                    missing.setdefault((a.frame, a.step), set()).add(object_id)
        batches = []
        for (frame, step), object_ids in sorted(missing.items()):
            rows = self._project.rows(frame, last=step)
            chosen = [rows[i] for i in sorted(object_ids) if i in rows]
            starts = range(0, len(chosen), LEARN_AT_ONCE)
            batches += [(frame, step, chosen[start : start + LEARN_AT_ONCE]) for start in starts]
        return batches

    def look_up_learned(self) -> None:
        """Look up what was learned of the objects to be carried; one of which nothing could be is lost."""
        wanted, known = self._carried(), self._project.learned(self._predictor.checksum)
        self._nearest.clear()
        for object_id in wanted:
            mine = [a for a in self._annotations[object_id] if a.spreads]
            self._learned[object_id] = [(a.step, a.frame) for a in mine if (object_id, a.step, a.frame) in known]
        for track in self._tracks:
            if track.object_id in wanted and not self._learned[track.object_id] and not track.lost:
                track.lost = True
                self.find_leftovers(track)

    def learned_for(self, track: Track) -> list[tuple[int, int]]:
        """(step, frame) of the annotations by which a track's object is told apart, in the order of rounds and frames.

        What comes of that depends on the way alone, not on where its work was interrupted or who does it.
        """
        mine = self._learned.get(track.object_id, [])
        if len(mine) <= REFERENCES_AT_MOST:
            return mine
        start = track.way.start
        key = track.object_id, start
        if key not in self._nearest:  # asked on every frame of the way
            near = set(sorted(mine, key=lambda place: (abs(place[1] - start), -place[0]))[:REFERENCES_AT_MOST])
            self._nearest[key] = [place for place in mine if place in near]
        return self._nearest[key]

    def _references_for(self, track: Track) -> list[Reference]:
        """What was learned for a track; of its object no more is held than that."""
        places = self.learned_for(track)
        before, held = self._references.get(track.object_id, ([], {}))
        if before is not places:
            held = {place: held[place] for place in places if place in held}
            missing = [place for place in places if place not in held]
            held |= self._project.references(track.object_id, self._predictor.checksum, missing)
            self._references[track.object_id] = places, held
        return [held[place] for place in places]

    def _learn_batch(self, frame: int, step: int, rows: Iterable[Row]) -> None:
        masks = self._project.patches(rows)
        with failing_model(self._predictor, frame, self._kept):
            found = steps.learn(
                lambda box: self._stack.read(frame, box), self._shape, self._predictor, masks, self._by_looks
            )
        if self._looked is not None:
            self._looked()
        with self._project.transaction() as writer:
            writer.put_references(self._predictor.checksum, {(i, step, frame): r for i, r in found.items()})


def _was_open(way: Pass, start: Annotation, mine: Iterable[Annotation]) -> bool:
    """Whether nothing bounded a way in the round of the annotation from which it starts."""
    return not any(a.round <= start.round and (a.frame - way.start) * way.frames.step > 0 for a in mine)


def _needs_previous(track: Track) -> bool:
    bounded = track.way.bound is Bound.EARLIER or (track.other is not None and track.other.carried)
    return track.lost or bounded


def nothing(box: Box) -> Patch:
    """A patch that says that the object isn't in the box."""
    return Patch(box, np.zeros((1, 1), np.uint8))


def there(objects: Mapping[int, ObjectState], object_id: int, frame: int) -> bool:
    """Whether an object is known and shown on a frame."""
    state = objects.get(object_id)
    return state is not None and state.alive(frame)


def _locked_first(patches: Mapping[int, Patch], objects: Mapping[int, ObjectState]) -> dict[int, Patch]:
    """Locked objects' masks count as painted: others get what they leave."""
    return {
        i: patch if objects[i].locked is None else patch.with_origin(Origin.PAINTED) for i, patch in patches.items()
    }


def quality_of(patch: Patch, neighbour: Patch | None) -> float:
    """How far a propagated mask can be trusted, 0..1: the network's certainty, less where it jumped."""
    agreement = overlap(patch, neighbour)
    return certainty(patch) * (MOTION_ALLOWANCE + (1 - MOTION_ALLOWANCE) * agreement)


def join(boxes: Iterable[Box]) -> list[Box]:
    """Boxes as few larger ones, as long as that covers at most `AHEAD_WASTE` times their own pixels."""
    joined: list[tuple[Box, int]] = []
    for box in sorted(boxes):
        area = box.height * box.width
        for k in range(max(0, len(joined) - JOINED_WITH), len(joined)):
            other, held = joined[k]
            both = box.union(other)
            if both.height * both.width <= AHEAD_WASTE * (area + held):
                joined[k] = (both, area + held)
                break
        else:
            joined.append((box, area))
    return [box for box, _ in joined]
