"""From strokes and paint to what is written: the part of a session that changes single frames."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_ivos.merging import Origin, Patch
from napari_ivos.project import ObjectState, Project, Row, StepState, StrokeRecord, Writer, WrittenPatch
from napari_ivos.regions import meeting, stacked
from napari_ivos.scribbles import BACKGROUND, Scribbles, Stroke, strokes_box
from napari_ivos.session import edits
from napari_ivos.session.annotating import Change, covered, painted_changes, scribble
from napari_ivos.session.guard import failing_model
from napari_ivos.session.labels import composed
from napari_ivos.session.stacks import told_by_looks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from napari_ivos.predictor import Predictor
    from napari_ivos.session.stacks import Stack


@dataclass(frozen=True, eq=False)
class Annotated:
    """What an annotation changed on a frame: each object's quality, the round, and the time it took."""

    frame: int
    round: int
    quality: Mapping[int, float]
    seconds: float


class Annotator:
    """Writes strokes, and what becomes of masks on annotated frames.

    Parameters
    ----------
    project : Project
        Where everything is kept.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._shape = project.shape[1:]

    def open_round(self) -> int:
        """Number of the round that takes the next annotation: a new one once something was propagated in the last."""
        number, propagated = self._project.round_now()
        return number + propagated

    # -- strokes

    def keep_strokes(self, scribbles: Scribbles, model: Predictor | None) -> None:
        """Write strokes, and the objects that they are the first of, before any network runs."""
        states = self._project.objects()
        edits.check_alive(states, scribbles.object_ids, scribbles.frame)
        made = edits.missing(states, scribbles.object_ids)
        detail: dict[str, Any] = {"frame": scribbles.frame}
        if model is not None:
            detail |= {"model": model.name, "device": model.device}
        number = self.open_round()
        with self._project.transaction() as writer:
            checksum = None if model is None else model.checksum
            step = writer.begin("interact", number, checksum, detail, finished=False)
            writer.put_objects(step, made)
            writer.put_strokes(step, scribbles.frame, scribbles.strokes)

    def unfinished_frames(self) -> list[int]:
        """Frames with strokes whose masks are still to be made."""
        return sorted({s.frame for s in self._project.strokes(unfinished=True)})

    def segment(
        self, frame: int, model: Predictor, stack: Stack, looked: Callable[[], None] | None = None
    ) -> Annotated:
        """Make the masks of all strokes of a frame that have none yet, from all its strokes of their round.

        `looked` is called before anything is written that was made from the frame.
        """
        started = time.perf_counter()
        states = self._project.objects()
        fresh = self._counting(self._project.strokes(frame, unfinished=True), states)
        if not fresh:
            return Annotated(frame, self._project.round_now()[0], {}, 0.0)
        number = fresh[-1].round
        drawn = self._counting(self._project.strokes(frame, round_number=number), states)
        owners = {s.object_id for s in fresh} - {BACKGROUND}
        others, erased = self._covered(frame, fresh)
        touched = owners | others
        touched = {i for i in touched if i in states and states[i].alive(frame) and states[i].locked is None}
        rows = self._project.rows(frame)
        patches = self._project.patches(rows[i] for i in touched if i in rows)
        changes = self._scribble(frame, model, stack, drawn, patches, touched, owners, erased)
        if looked is not None:
            looked()
        steps = sorted({s.step for s in fresh})

        def finish(writer: Writer) -> int:
            for step in steps:
                writer.finish(step, model.checksum)
            return steps[-1]

        return self._write(finish, frame, number, changes, started, model.checksum)

    def _scribble(
        self,
        frame: int,
        model: Predictor,
        stack: Stack,
        drawn: Sequence[StrokeRecord],
        patches: Mapping[int, Patch],
        touched: Collection[int],
        owners: Collection[int],
        erased: Collection[int],
    ) -> dict[int, Change]:
        strokes = [Stroke(s.object_id, s.points) for s in drawn]
        with failing_model(model, frame, "The strokes are kept; their masks are made when you go on."):
            return scribble(
                lambda box: stack.read(frame, box),
                self._shape,
                model,
                strokes,
                patches,
                touched,
                owners,
                erased,
                told_by_looks(stack),
            )

    def _counting(self, strokes: Iterable[StrokeRecord], states: Mapping[int, ObjectState]) -> list[StrokeRecord]:
        """Strokes of the background and of objects that are there."""
        there = {i for i, state in states.items() if not state.removed} | {BACKGROUND}
        return [s for s in strokes if s.object_id in there]

    def _covered(self, frame: int, fresh: Sequence[StrokeRecord]) -> tuple[set[int], set[int]]:
        """Objects that strokes of others go over; and those of them that strokes of the background do.

        The background's say of them what is too much.
        """
        strokes = [Stroke(s.object_id, s.points) for s in fresh]
        window = strokes_box(strokes, self._shape)
        if window is None:
            return set(), set()
        labels = composed(self._project, frame, window)
        background = [s for s in strokes if s.object_id == BACKGROUND]
        return (
            covered(strokes, labels, window, self._shape),
            covered(background, labels, window, self._shape),
        )

    def withdraw(self, stroke: StrokeRecord) -> Annotated:
        """Take back a stroke that no mask was made from."""
        detail = {"frame": stroke.frame, "stroke": stroke.id}
        with self._project.transaction() as writer:
            writer.withdraw(writer.begin("remove stroke", stroke.round, None, detail), stroke.id)
        return Annotated(stroke.frame, stroke.round, {}, 0.0)

    def remove_stroke(self, stroke: StrokeRecord, model: Predictor, stack: Stack) -> Annotated:
        """Take a stroke of the open round back, and make its frame's masks again from those that are left."""
        started = time.perf_counter()
        frame, number = stroke.frame, stroke.round
        states = self._project.objects()
        kept = self._counting(self._project.strokes(frame, round_number=number), states)
        kept = [s for s in kept if s.id != stroke.id]
        redo = {a.object_id for a in self._project.annotations(frame=frame) if a.round == number}
        free = {i for i, state in states.items() if state.alive(frame) and state.locked is None}
        redo = {i for i in redo & free if self._drawn(i, frame)}
        rows = self._project.rows(frame, before=number)
        painted = self._painted(frame, number, redo)
        rows |= painted
        exact = {i for i, row in painted.items() if all(s.step < row.step for s in kept)}  # no stroke is left after it
        before = self._project.patches(rows[i] for i in redo if i in rows)
        owners = {s.object_id for s in kept} & redo - exact
        others, erased = self._covered(frame, kept)
        touched = owners | (others & (redo - exact))
        changes = self._scribble(frame, model, stack, kept, before, touched, owners, erased) if kept else {}
        for i in redo - changes.keys():
            quality = rows[i].quality if i in rows else 0.0
            changes[i] = Change(before.get(i), 1 if i in painted else -1, quality)

        def withdraw(writer: Writer) -> int:
            step = writer.begin("remove stroke", number, model.checksum, {"frame": frame, "stroke": stroke.id})
            writer.withdraw(step, stroke.id)
            return step

        return self._write(withdraw, frame, number, changes, started, model.checksum)

    def _painted(self, frame: int, number: int, objects: Collection[int]) -> dict[int, Row]:
        """The last mask of each of these objects that was painted on a frame in this round."""
        found: dict[int, Row] = {}
        for step in self._project.steps():
            if step.kind == "annotate" and step.round == number and step.state is StepState.ACTIVE:
                rows = self._project.rows(frame, last=step.number, objects=objects)
                found |= {i: row for i, row in rows.items() if row.step == step.number and i in objects}
        return found

    def _drawn(self, object_id: int, frame: int) -> bool:
        """Whether an object's mask on a frame is one of the networks' (a painted one stays as it is)."""
        row = self._project.rows(frame).get(object_id)
        return row is None or row.origin is not Origin.PAINTED

    # -- paint

    def paint(
        self, frame: int, painted: Mapping[int, Patch], spreads: Mapping[int, bool] | None = None, part: int = 0
    ) -> Annotated:
        """Take exact masks; painted masks of others lose what these cover.

        `part` counts the frames of one stroke of paint, which are taken back together.
        """
        started = time.perf_counter()
        states = self._project.objects()
        edits.check_alive(states, painted, frame)
        made = edits.missing(states, painted)
        free = {i for i, state in states.items() if state.alive(frame) and state.locked is None}
        others = [row for i, row in self._project.rows(frame).items() if row.origin is Origin.PAINTED and i in free]
        boxes = stacked(patch.box for patch in painted.values())
        old = self._project.patches(row for row in others if meeting(row.box, boxes).size)
        changes = painted_changes(painted, old, spreads)
        number = self.open_round()

        def begin(writer: Writer) -> int:
            detail = {"frame": frame, "objects": len(painted), **({"part": part} if part else {})}
            step = writer.begin("annotate", number, None, detail)
            writer.put_objects(step, made)
            return step

        return self._write(begin, frame, number, changes, started, None)

    # -- both

    def _write(
        self,
        begin: Callable[[Writer], int],
        frame: int,
        number: int,
        changes: Mapping[int, Change],
        started: float,
        model: str | None,
    ) -> Annotated:
        """Keep what became of an annotated frame's objects, in one transaction."""
        patches = [WrittenPatch.of(i, c.patch, c.quality) for i, c in changes.items()]
        learned = {i: c.reference for i, c in changes.items() if c.reference is not None}
        seconds = time.perf_counter() - started
        with self._project.transaction() as writer:
            step = begin(writer)
            writer.put_patches(step, frame, patches)
            writer.annotate(step, frame, {i: c.spreads for i, c in changes.items()})
            if model is not None:
                writer.put_references(model, {(i, step, frame): r for i, r in learned.items()})
            writer.spend(step, 0, seconds)
        quality = {i: changes[i].quality for i in sorted(changes)}
        return Annotated(frame, number, quality, seconds)
