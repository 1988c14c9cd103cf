"""A session's work in parcels that are done elsewhere, to the same masks as here.

A parcel holds everything that its work reads from the project; whoever carries it out makes a small project in memory
of it and runs on that what a session runs: `Annotator.segment`, `steps.learn`, `Sweep`. What was added comes back as
rows, and the one who holds the project file keeps them. Parcels know nothing of machines: a batch sends them to its
workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from napari_ivos import steps
from napari_ivos.errors import IvosError
from napari_ivos.project import Extract, Project, Rows
from napari_ivos.session.annotator import Annotator
from napari_ivos.session.guard import failing_model
from napari_ivos.session.lots import Group, Lot, beside, grouped, reach
from napari_ivos.session.plan import Frames, independent, portion
from napari_ivos.session.stacks import told_by_looks
from napari_ivos.session.sweep import Sweep, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari_ivos.predictor import Predictor
    from napari_ivos.project import Row
    from napari_ivos.scribbles import Scribbles
    from napari_ivos.session.plan import Track
    from napari_ivos.session.session import Session
    from napari_ivos.session.stacks import Stack

MASKS_AT_MOST = 4096
"""A parcel makes at most about this many masks, so that it stays small."""
_KEPT = "What was finished before is kept."


@dataclass(frozen=True, eq=False)
class Parcel:
    """One piece of work.

    Parameters
    ----------
    extract : Extract
        What it reads of the project.
    frame : int
        For strokes and painted masks, the frame; for a span, the first one.
    kind : {"segment", "learn", "propagate"}
        Make the masks of a frame's strokes; learn references of painted masks; carry masks through a span of frames.
    """

    extract: Extract
    frame: int
    kind: str = "segment"
    step: int = 0
    """Of the painted masks to learn from."""
    learners: tuple[int, ...] = ()
    """Objects to learn."""
    task: Task | None = None
    tracks: Sequence[Track] = ()
    """What a span has to do, with the tracks that it meets."""

    frames: int = 1
    """How many it works on."""


@dataclass(frozen=True, eq=False)
class Yielded:
    """What came of a parcel.

    Parameters
    ----------
    rows : dict
        What is to be added to the project, by table.
    fresh : int
        Number that the parcel's own step has in `rows`; 0: it made none.
    finished : tuple of int
        Steps whose strokes have their masks now.
    seconds : float
        Time that it took.
    contrast : list or None
        The stack's contrast, once it is known for good.
    error : IvosError or None
        Why it ended early; `rows` hold what was done before.
    stopped : bool
        It was told to end early; `rows` hold what was done until then.
    """

    rows: Rows
    fresh: int
    finished: tuple[int, ...]
    seconds: float
    contrast: list[list[float]] | None
    error: IvosError | None = None
    stopped: bool = False

    @property
    def short(self) -> bool:
        """Whether its last frames may be missing."""
        return self.stopped or self.error is not None

    @property
    def masks(self) -> int:
        """Masks that were made."""
        return len(self.rows["patches"])


# -- elsewhere


def carry_out(
    parcel: Parcel,
    stack: Stack,
    predictor: Predictor,
    references: Rows | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Yielded:
    """Do the work of a parcel.

    Parameters
    ----------
    parcel : Parcel
        What to do.
    references : dict, optional
        What `Sharing.references` gave for its part.
    stack : FrameStack
        The frames, with the session's contrast.
    predictor : Predictor
        The networks.
    stopping : callable
        Asked between frames: whether to end with what is done.

    Returns
    -------
    Yielded
        Errors of frames and networks are in it, beside what was done before them.
    """
    started = time.perf_counter()
    extract = replace(parcel.extract, rows={**parcel.extract.rows, **(references or {})})
    project = Project.restore(extract)
    error = None
    try:
        before = {s.number: s.finished for s in project.steps()}
        try:
            _DO[parcel.kind](project, parcel, stack, predictor, stopping)
        except IvosError as found:
            error = found
        after = project.steps()
        finished = tuple(s.number for s in after if s.finished and not before.get(s.number, True))
        fresh = next((s.number for s in after if s.number not in before), 0)
        contrast = [[float(v) for v in pair] for pair in stack.contrast] if stack.contrast_known else None
        rows = project.added(extract)
    finally:
        project.close()
    return Yielded(rows, fresh, finished, time.perf_counter() - started, contrast, error, stopping())


_Stopping = Callable[[], bool]


def _segment(project: Project, parcel: Parcel, stack: Stack, predictor: Predictor, _: _Stopping) -> None:
    Annotator(project).segment(parcel.frame, predictor, stack)


def _learn(project: Project, parcel: Parcel, stack: Stack, predictor: Predictor, _: _Stopping) -> None:
    rows = project.rows(parcel.frame, last=parcel.step)
    masks = project.patches(rows[i] for i in parcel.learners)
    with failing_model(predictor, parcel.frame, _KEPT):
        by_looks = told_by_looks(stack)
        found = steps.learn(lambda box: stack.read(parcel.frame, box), project.shape[1:], predictor, masks, by_looks)
    with project.transaction() as writer:
        learned = {(i, parcel.step, parcel.frame): reference for i, reference in found.items()}
        writer.put_references(predictor.checksum, learned)


def _propagate(project: Project, parcel: Parcel, stack: Stack, predictor: Predictor, stopping: _Stopping) -> None:
    if parcel.task is None:
        raise ValueError("a span without a task")
    sweep = Sweep(project, stack, predictor, parcel.task, stopping, lambda frame: None, parcel.tracks)
    for _ in sweep.run():
        pass


_DO: Mapping[str, Callable[[Project, Parcel, Stack, Predictor, _Stopping], None]] = {
    "segment": _segment,
    "learn": _learn,
    "propagate": _propagate,
}


# -- where the project is


@dataclass(eq=False)
class Part:
    """Work of a propagation that is independent of its other parts: one direction after the other.

    Parameters
    ----------
    tracks : list of Track
        Its objects' passes.
    ways : list of (int, iterator of int)
        Directions with the frames that are still to be done.
    """

    tracks: list[Track]
    ways: list[tuple[int, Iterator[int]]] = field(default_factory=list)
    total: int = 0

    def put_back(self, frames: Sequence[int]) -> None:
        """Let frames of the direction at hand come again."""
        if frames:
            direction, rest = self.ways[0]
            self.ways[0] = direction, chain(frames, rest)

    def take(self, most: int) -> tuple[int, list[int]] | None:
        """Direction and the next frames on which there is something to do; None at the end."""
        while self.ways:
            direction, frames = self.ways[0]
            tracks = [t for t in self.tracks if t.direction == direction]
            room = max(1, min(most, MASKS_AT_MOST // max(1, len(tracks))))
            found = list(islice((f for f in frames if any(t.busy(f) for t in tracks)), room))
            if found:
                return direction, found
            self.ways.pop(0)
        return None


@contextmanager
def sharing(session: Session) -> Iterator[Sharing]:
    """Have a session's work done elsewhere; meanwhile nothing else changes it.

    Parameters
    ----------
    session : Session
        Its `model` and `stack` say who they are; nothing is computed or read with them.

    Raises
    ------
    SessionBusy, ReadOnlyProject
    """
    with session._working("batch"):
        yield Sharing(session)


class Sharing:
    """A session's open work, parcel by parcel; see `sharing`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._project = session._project
        self._sweep: Sweep | None = None

    # -- strokes

    def draw(self, scribbles: Scribbles) -> None:
        """Keep strokes, and the objects that they are the first of; `strokes` has the work that this makes.

        Raises
        ------
        InputError
            As for `Session.interact`.
        """
        self._session._check_scribbles(scribbles)
        Annotator(self._project).keep_strokes(scribbles, self._session._need_model())

    def strokes(self) -> list[Parcel]:
        """A parcel for each frame with strokes that have no masks yet."""
        return [self._strokes_of(frame) for frame in Annotator(self._project).unfinished_frames()]

    def _strokes_of(self, frame: int) -> Parcel:
        rows = self._project.rows(frame)
        extract = self._project.extract(self._project.objects(), [row.id for row in rows.values()], frame=frame)
        return Parcel(extract, frame)

    # -- propagation

    def plan(self) -> None:
        """Plan the propagation of the current round: `unlearned` comes first, then `parts`."""
        self._sweep = self._session._sweeper("both", None, None, None)()

    @property
    def sweep(self) -> Sweep:
        """The planned propagation."""
        if self._sweep is None:
            raise ValueError("nothing is planned yet")
        return self._sweep

    def unlearned(self) -> list[Parcel]:
        """A parcel for each batch of painted masks that the model has not seen yet."""
        return [self._learning(*batch) for batch in self.sweep.unlearned()]

    def _learning(self, frame: int, step: int, rows: Sequence[Row]) -> Parcel:
        ids = tuple(row.object_id for row in rows)
        extract = self._project.extract(ids, [row.id for row in rows])
        return Parcel(extract, frame, "learn", step, ids)

    def parts(self) -> list[Part]:
        """The independent parts of the propagation, once everything is learned."""
        sweep = self.sweep
        sweep.look_up_learned()
        parts = []
        for tracks in independent(sweep.tracks):
            part = Part(tracks)
            for direction in sweep.directions:
                frames = Frames([t.planned for t in tracks if t.direction == direction], direction)
                part.ways.append((direction, iter(frames)))
                part.total += len(frames)
            parts.append(part)
        return parts

    def references(self, part: Part) -> Rows:
        """What the networks learned of a part's objects; the same for all its parcels, so that it travels once."""
        places = {(t.object_id, *place) for t in part.tracks for place in self.sweep.learned_for(t)}
        extract = self._project.extract((), (), places, self.sweep.model)
        return {"learned": extract.rows["learned"]}

    def next(self, part: Part, most: int, side_by_side: int = 1) -> Lot | None:
        """The next frames of a part, at most so many; None when it is done. Its parcels need the part's `references`.

        Parameters
        ----------
        part : Part
            Which one.
        most : int
            Frames.
        side_by_side : int
            Parcels that may be made of them, for objects that can't meet; 1: one for all objects.
        """
        taken = part.take(most)
        if taken is None:
            return None
        direction, frames = taken
        tracks = portion(part.tracks, direction, range(min(frames), max(frames) + 1))
        carried = {t.object_id for t in tracks}
        stored = {
            frame: list(self._project.rows(frame, direction=direction).values())
            for frame in sorted({f - direction for f in frames} | set(frames))
        }
        places = {r.object_id: r.box for r in stored[frames[0] - direction] if r.object_id in carried}
        parts = grouped(places, side_by_side, self._project.shape[1:])
        parts[0] |= carried - places.keys()
        lot = Lot(direction, frames, stored, [], [])
        for objects in parts:
            self._add(lot, [t for t in tracks if t.object_id in objects], objects, carried, len(parts) == 1)
        return lot

    def _add(self, lot: Lot, tracks: list[Track], objects: set[int], carried: set[int], alone: bool) -> None:
        """Make the parcel of one group of a lot: masks around its objects, their earlier ones, and halves."""
        project, number, first = self._project, self.sweep.round, lot.frames[0]
        shape = project.shape[1:]
        reaches = [reach(r.box, shape) for r in lot.stored[first - lot.direction] if r.object_id in objects]
        found: list[Row] = []
        near: dict[int, set[int]] = {}
        for frame, rows in lot.stored.items():
            others = beside(rows, carried, reaches, alone)
            near[frame] = {row.object_id for row in others}
            found += [row for row in rows if row.object_id in objects] + others
        for frame in lot.frames:
            earlier = project.rows(frame, before=number, direction=-lot.direction)
            for more in (earlier, project.held(frame, -lot.direction, number)):
                found += [row for row in more.values() if row.object_id in objects]
        known = objects | {row.object_id for row in found}
        extract = project.extract(known, [row.id for row in found])
        task = self.sweep.part(lot.direction, range(min(lot.frames), max(lot.frames) + 1))
        lot.groups.append(Group(objects, near))
        lot.parcels.append(Parcel(extract, first, "propagate", task=task, tracks=tracks, frames=len(lot.frames)))

    # -- results

    def keep(self, yielded: Yielded) -> list[int]:
        """Write what came of a parcel of `strokes` or `unlearned`; the frames that it changed."""
        with self._project.transaction() as writer:
            for step in yielded.finished:
                writer.finish(step, self._session._need_model().checksum)
            writer.merge(yielded.rows, {})
            if yielded.finished:
                writer.spend(yielded.finished[-1], 0, yielded.seconds)
        frames = sorted({row[2] for row in yielded.rows["patches"]})
        self._tell(frames, yielded.contrast)
        return frames

    def settle(self, part: Part, lot: Lot) -> tuple[list[int], int]:
        """Write what came of a lot, and bring its part as far; the frames that are done, and the masks made on them.

        All in one transaction. Frames that have to be done again are the part's next ones.
        """
        accepted = lot.accepted()
        chosen, sweep = set(accepted), self.sweep
        part.put_back([f for f in lot.frames if f not in chosen])
        results = list(lot.came.values())
        made = [[row for row in y.rows["patches"] if row[2] in chosen] for y in results]
        masks = sum(len(rows) for rows in made)
        if masks:
            with self._project.transaction() as writer:
                step = sweep.begin(writer)
                for yielded, rows in zip(results, made, strict=True):
                    writer.merge({**yielded.rows, "patches": rows}, {yielded.fresh: step})
                writer.spend(step, len(accepted), sum(y.seconds for y in results))
            sweep.begun(step)
        self._note(part, lot.direction, accepted, [row for rows in made for row in rows])
        self._tell(accepted, next((y.contrast for y in results if y.contrast is not None), None))
        return accepted, masks

    def _tell(self, frames: Sequence[int], contrast: list[list[float]] | None) -> None:
        """Let the session see what has changed."""
        session = self._session
        for frame in frames:
            session._cache.forget(frame)
        if contrast is not None and session.stack is not None and not session._contrast_kept:
            session.stack.contrast = contrast
            session._keep_contrast()

    def _note(self, part: Part, direction: int, frames: Sequence[int], rows: Sequence[tuple[Any, ...]]) -> None:
        """Bring a part's tracks as far as its last lot has come."""
        found = {(row[2], row[3]): float(row[8]) if row[7] > 0 else None for row in rows}
        tracks = [t for t in part.tracks if t.direction == direction]
        for frame in frames:
            for track in tracks:
                key = frame, track.object_id
                if not track.lost and key in found and frame in track.planned:
                    track.note(found[key])
                    if track.lost:
                        self.sweep.find_leftovers(track)

    def conclude(self) -> None:
        """Say in the history that the propagation is complete."""
        self.sweep.conclude()
