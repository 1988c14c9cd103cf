"""A project: the history of what was done, and the masks that came of it, by step.

Reads and writes rows; decides nothing about spans, networks or blending. Every write happens inside `transaction`, and
a reader gets what the active steps say.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError, ProjectError
from napari_ivos.merging import Origin, Patch
from napari_ivos.project import extracts
from napari_ivos.project.blobs import declared_cells, pack_array, pack_cells, unpack_array, unpack_cells
from napari_ivos.project.records import (
    ROUND_KINDS,
    Annotation,
    ObjectState,
    Step,
    StepState,
    StoredModel,
    StrokeRecord,
)
from napari_ivos.project.soundness import check_detail, check_object, check_place, sound
from napari_ivos.project.storage import Storage, copy_database, database_size, replace_database
from napari_ivos.regions import Box
from napari_ivos.scribbles import MAXIMUM_POINTS
from napari_ivos.untrusted import check_room, parse_json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_ivos.predictor import Reference
    from napari_ivos.scribbles import Stroke

MODEL_PART = 1 << 24
"""Stored weights are cut into pieces of this many bytes."""
MODEL_LIMIT = 1 << 32
_SIDE_LIMIT = 1 << 20
_FRAME_LIMIT = 1 << 24
_TOGETHER = 1 << 26  # values of strokes that are unpacked at once
_AT_ONCE = 500  # values in one IN (...)
_STEPS_BACK = 32  # steps that are read at a time from the end of the history

T = TypeVar("T")


class Stage(IntEnum):
    """How far a patch is."""

    FINAL = 0
    HELD = 1
    """Half of a span between two frames of one round, hidden until the other half is averaged into it."""
    SHOWN = 2
    """The same, shown, where only one direction was asked for."""


class Row(NamedTuple):
    """Where a stored patch is, and what is known of it without unpacking it."""

    id: int
    object_id: int
    step: int
    box: Box
    origin: Origin
    filled: bool
    quality: float


class Trace(NamedTuple):
    """Of one object on a frame: a box around all masks that it ever had, and the steps that wrote it, ascending."""

    box: Box
    steps: list[int]


@dataclass(frozen=True, eq=False)
class WrittenPatch:
    """A patch on its way into a project; packed when it is made, so that transactions stay short."""

    object_id: int
    box: Box
    origin: Origin
    filled: int
    quality: float
    stage: Stage
    direction: int
    data: bytes | None

    @classmethod
    def of(
        cls, object_id: int, patch: Patch | None, quality: float, stage: Stage = Stage.FINAL, direction: int = 0
    ) -> WrittenPatch:
        """Pack a patch; None says that the object has no mask there."""
        if patch is None:
            return cls(object_id, Box(0, 0, 0, 0), Origin.PROPAGATED, -1, quality, stage, direction, None)
        data = pack_cells(patch.probability)
        filled = int(not patch.empty)
        return cls(object_id, patch.box, patch.origin, filled, float(quality), stage, direction, data)


_NEWEST = """
SELECT p.object, MAX(p.step * 4 - p.stage), p.id, p.step, p.origin, p.filled, p.quality, p.y0, p.x0, p.y1, p.x1
FROM patches AS p CROSS JOIN steps AS s ON s.id = p.step
WHERE p.frame = ? AND s.state = 1 AND (p.stage <> 1 OR p.direction = ?)
AND s.round < ? AND p.step <= ? {only} GROUP BY p.object
"""
LATEST = 1 << 62
"""As a step, or a round: everything that there is."""
_ROW = "iriiiiriiii"  # kinds of what `_NEWEST` gives


class Project:
    """Everything that a session knows, in one SQLite file or in memory.

    Parameters
    ----------
    storage : Storage
        The opened database; see `create` and `open`.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._cache: dict[str, Any] = {}
        self._version = 0
        self.shape = self._read_shape()

    @classmethod
    def create(cls, path: Path | None, shape: tuple[int, int, int], meta: Mapping[str, Any]) -> Project:
        """Make a project for a stack of `shape` (T, H, W).

        Raises
        ------
        ProjectError
            The file exists (the message names `Session.open`), or can't be made.
        """
        storage = Storage(path, create=True)
        try:
            with storage.transaction() as connection:
                values = {**meta, "shape": list(shape), "created": now()}
                connection.executemany(
                    "INSERT INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in values.items()]
                )
            return cls(storage)
        except BaseException:
            storage.close()
            if path is not None:
                path.unlink(missing_ok=True)
            raise

    @classmethod
    def open(cls, path: Path, reading: bool = False) -> Project:
        """Open a project; for reading only where that is asked, another process holds it or it can't be written.

        Raises
        ------
        ProjectError
            Not a project, damaged, or of a newer version.
        """
        storage = Storage(path, create=False, reading=reading)
        try:
            return cls(storage)
        except BaseException:
            storage.close()
            raise

    # -- copies, and parts that travel

    def copy_to(self, path: Path) -> None:
        """Write a copy of what is in the project now to a file that is not there yet."""
        with self._storage.reading() as connection:
            copy_database(connection, path)

    def extract(
        self,
        objects: Iterable[int],
        patches: Iterable[int],
        learned: Iterable[extracts.Place] = (),
        model: str = "",
        frame: int | None = None,
    ) -> extracts.Extract:
        """A part for work elsewhere; see `extracts.take`."""
        with self._storage.reading() as connection:
            return extracts.take(connection, self.shape, objects, patches, learned, model, frame)

    @classmethod
    def restore(cls, extract: extracts.Extract) -> Project:
        """A project in memory that holds an extract."""
        project = cls.create(None, extract.shape, {})
        with project._storage.transaction() as connection:
            extracts.fill(connection, extract.rows)
        return project

    def added(self, extract: extracts.Extract) -> extracts.Rows:
        """What work has added to a project that `restore` made."""
        with self._storage.reading() as connection:
            return extracts.added(connection, extract)

    def digest(self, by_hand: bool = False) -> str:
        """Hash of all that was done and still counts, "" for nothing; `by_hand`: without what was propagated.

        It is of the steps, which every change is one of, and not of the file, whose bytes change without any.
        """
        which = "id, kind, time" if by_hand else "id, kind, time, round, finished, model, detail, frames"
        only = " AND kind <> 'propagate'" if by_hand else ""
        with self._storage.reading() as connection:
            rows = connection.execute(f"SELECT {which} FROM steps WHERE state = 1{only} ORDER BY id").fetchall()
        return hashlib.sha256(repr(rows).encode()).hexdigest() if rows else ""

    @staticmethod
    def replace(path: Path, new: Path) -> None:
        """Put a project that is closed in the place of another one, which is gone then.

        Raises
        ------
        ProjectError
            Another program has the other one open, or it can't be written.
        """
        replace_database(path, new)

    @property
    def path(self) -> Path | None:
        return self._storage.path

    @property
    def name(self) -> str:
        return self._storage.name

    @property
    def read_only(self) -> str | None:
        """Why nothing can be written, None where it can."""
        return self._storage.read_only

    def move_to(self, path: Path) -> None:
        """Go on in a new file with everything that is in memory; see `Storage.move_to`."""
        self._storage.move_to(path)

    def close(self) -> None:
        self._storage.close()

    @contextmanager
    def transaction(self) -> Iterator[Writer]:
        """One write, whole or not at all; see `Storage.transaction` for its errors."""
        with self._storage.transaction() as connection:
            yield Writer(connection)
        self._version += 1

    def compact(self) -> int:
        """Delete the masks and references of dropped steps, and shrink the file; the bytes that it became smaller."""
        with self.transaction() as writer:
            before = writer.size()
            writer.sweep_out()
        return before - self._storage.vacuum()

    def version(self) -> tuple[int, int]:
        """Changes with every write, of this process and (where it is open for reading only) of others."""
        return self._version, self._storage.foreign_version()

    # -- small things, read once and kept until something is written

    def _kept(self, key: str, make: Callable[[], T]) -> T:
        """Value of `make`, until something is written; a thread that was slower only makes others read again."""
        version = self.version()
        cache = self._cache
        if cache.get("version") != version:
            self._cache = cache = {"version": version}
        if key not in cache:
            cache[key] = make()
        value: T = cache[key]
        return value

    # -- meta

    def meta(self, key: str, default: Any = None) -> Any:
        """A value of the project's table of facts (JSON)."""
        with self._storage.reading() as connection:
            found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if found is None:
            return default
        try:
            return parse_json(found[0])
        except (TypeError, ValueError) as error:
            raise ProjectError(f"{self.name} is damaged: its entry {key!r} is not JSON ({error}).") from error

    def _sound(self, rows: Sequence[Any], kinds: str, what: str) -> Sequence[Any]:
        """Rows of the kinds that this program writes; see `soundness.sound`."""
        return sound(rows, kinds, self.name, what)

    def _read_shape(self) -> tuple[int, int, int]:
        shape = self.meta("shape")
        limits = (_FRAME_LIMIT, _SIDE_LIMIT, _SIDE_LIMIT)
        if not isinstance(shape, list) or len(shape) != 3:
            raise ProjectError(f"{self.name} is damaged: the shape of its stack is {shape!r}.")
        if not all(type(n) is int and 0 < n <= top for n, top in zip(shape, limits, strict=True)):
            raise ProjectError(f"{self.name} declares frames of {shape!r} (T, H, W); at most {limits} are taken.")
        return shape[0], shape[1], shape[2]

    # -- history

    def steps(self) -> tuple[Step, ...]:
        """The whole history, dropped steps too, in order."""
        return self._steps("ORDER BY id")

    def step(self, number: int) -> Step | None:
        """One entry of the history; None where there is none of this number."""
        return next(iter(self._steps("WHERE id = ?", number)), None)

    def steps_back(self) -> Iterator[Step]:
        """The history from its end, dropped steps too; no more of it is read than is asked for."""
        found = self._steps("ORDER BY id DESC LIMIT ?", _STEPS_BACK)
        while found:
            yield from found
            found = self._steps("WHERE id < ? ORDER BY id DESC LIMIT ?", found[-1].number, _STEPS_BACK)

    def _steps(self, which: str, *values: int) -> tuple[Step, ...]:
        names = "id, kind, round, state, finished, time, model, detail, frames, seconds"
        with self._storage.reading() as connection:
            rows = connection.execute(f"SELECT {names} FROM steps {which}", values).fetchall()
        self._sound(rows, "itiiitTtir", "steps")
        if not {r[3] for r in rows} <= set(StepState):
            raise ProjectError(f"{self.name} is damaged: a step of it is in no state that there is.")
        return tuple(
            Step(r[0], r[1], r[2], StepState(r[3]), bool(r[4]), r[5], r[6], self._detail(r[7]), r[8], r[9])
            for r in rows
        )

    def _detail(self, text: str) -> dict[str, Any]:
        try:
            detail = parse_json(text)
        except (TypeError, ValueError) as error:
            raise ProjectError(f"{self.name} is damaged: a step's details are not JSON ({error}).") from error
        detail = detail if isinstance(detail, dict) else {}
        check_detail(detail, self.name, self.shape[0])
        return detail

    def round_now(self) -> tuple[int, bool]:
        """Number of the current round, and whether something was propagated in it."""
        kinds = ", ".join(f"'{kind}'" for kind in sorted(ROUND_KINDS))
        with self._storage.reading() as connection:
            found = connection.execute(
                "SELECT round, MAX(kind = 'propagate') FROM steps WHERE state = 1 AND round = "
                f"(SELECT MAX(round) FROM steps WHERE state = 1 AND kind IN ({kinds})) GROUP BY round"
            ).fetchone()
        if found is None:
            return 1, False
        number, propagated = self._sound([found], "ii", "steps")[0]
        return number, bool(propagated)

    def propagated_round(self) -> int | None:
        """Number of the last round in which something was propagated."""
        with self._storage.reading() as connection:
            found = connection.execute("SELECT MAX(round) FROM steps WHERE state = 1 AND kind = 'propagate'").fetchone()
        number: int | None = self._sound([found], "I", "steps")[0][0]
        return number

    # -- objects

    def objects(self, last: int = LATEST) -> dict[int, ObjectState]:
        """All objects ever made by active steps (up to step `last`), by id; removed ones too."""
        return self._kept("objects", self._read_objects) if last == LATEST else self._read_objects(last)

    def _read_objects(self, last: int = LATEST) -> dict[int, ObjectState]:
        with self._storage.reading() as connection:
            rows = connection.execute(
                "SELECT o.id, o.name, o.colour, o.start, o.stop, o.parent, o.locked, o.removed, MAX(o.step) "
                "FROM objects AS o JOIN steps AS s ON s.id = o.step WHERE s.state = 1 AND o.step <= ? "
                "GROUP BY o.id ORDER BY o.id",
                (last,),
            ).fetchall()
        self._sound(rows, "ittiIIIir", "objects")
        states = {r[0]: ObjectState(r[0], r[1], r[2], r[3], r[4], r[5], r[6], bool(r[7])) for r in rows}
        for state in states.values():
            check_object(state, self.name, self.shape[0])
        return states

    def object_at(self, object_id: int, last: int) -> ObjectState | None:
        """What was known of an object after step `last`; None where it was not there yet."""
        states = self._kept("states", self._read_states).get(object_id, [])
        at = bisect_right(states, last, key=lambda entry: entry[0])
        return states[at - 1][1] if at else None

    def _read_states(self) -> dict[int, list[tuple[int, ObjectState]]]:
        """All that active steps said of each object, with their numbers, ascending."""
        with self._storage.reading() as connection:
            rows = connection.execute(
                "SELECT o.id, o.name, o.colour, o.start, o.stop, o.parent, o.locked, o.removed, o.step "
                "FROM objects AS o JOIN steps AS s ON s.id = o.step WHERE s.state = 1 ORDER BY o.id, o.step"
            ).fetchall()
        states: dict[int, list[tuple[int, ObjectState]]] = {}
        for r in self._sound(rows, "ittiIIIii", "objects"):
            state = ObjectState(r[0], r[1], r[2], r[3], r[4], r[5], r[6], bool(r[7]))
            states.setdefault(r[0], []).append((r[8], state))
        return states

    # -- strokes and annotations

    def strokes(
        self,
        frame: int | None = None,
        object_id: int | None = None,
        round_number: int | None = None,
        unfinished: bool = False,
        withdrawn: bool = False,
    ) -> tuple[StrokeRecord, ...]:
        """Strokes of active steps in the order they were drawn; those taken back are left out unless `withdrawn`."""
        asked = {"k.frame": frame, "k.object": object_id, "s.round": round_number}
        asked = {column: value for column, value in asked.items() if value is not None}  # those named use an index
        where = "".join(f" AND {column} = ?" for column in asked)
        with self._storage.reading() as connection:
            rows = connection.execute(
                "SELECT k.id, k.frame, k.object, s.round, k.step, s.time, s.model, k.points "
                f"FROM strokes AS k CROSS JOIN steps AS s ON s.id = k.step WHERE s.state = 1{where} "
                "AND s.finished <= ? AND (? OR NOT EXISTS (SELECT 1 FROM withdrawals AS w "
                "JOIN steps AS v ON v.id = w.step WHERE w.stroke = k.id AND v.state = 1)) ORDER BY k.id",
                (*asked.values(), 0 if unfinished else 1, withdrawn),
            ).fetchall()
        self._sound(rows, "iiiiitTb", "strokes")
        records, values = [], 0
        for r in rows:
            check_place(self.name, f"stroke {r[0]}", r[1], r[2], self.shape[0], lowest=0)
            record = StrokeRecord(r[0], r[1], r[2], r[3], r[4], r[5], r[6], self._points(r[7], r[0]))
            values += record.points.size
            if values > _TOGETHER:  # a small file must not become a large memory
                raise ProjectError(f"{self.name}: its strokes hold more than {_TOGETHER:,} values: refused.")
            records.append(record)
        return tuple(records)

    def _points(self, data: object, stroke: int) -> npt.NDArray[np.float64]:
        points = unpack_array(data, f"Stroke {stroke} of {self.name}", 2 * MAXIMUM_POINTS)
        if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise ProjectError(f"{self.name} is damaged: stroke {stroke} is not a line.")
        return np.asarray(points, np.float64)

    def annotations(self, object_id: int | None = None, frame: int | None = None) -> list[Annotation]:
        """What is the user's: each annotated (object, frame) once a round, ascending by object, round, frame.

        Within a round the newest entry counts, and `spreads` if any of that round does.
        """
        where = "s.state = 1"
        values: list[int] = []
        for column, value in (("a.object", object_id), ("a.frame", frame)):
            if value is not None:
                where += f" AND {column} = ?"
                values.append(value)
        with self._storage.reading() as connection:
            rows = connection.execute(
                "SELECT a.object, a.frame, a.step, s.round, a.spreads FROM annotations AS a "
                f"CROSS JOIN steps AS s ON s.id = a.step WHERE {where} ORDER BY a.object, s.round, a.frame, a.step",
                values,
            ).fetchall()
        found: dict[tuple[int, int, int], Annotation] = {}
        for object_id_, frame_, step, number, spreads in self._sound(rows, "iiiii", "annotations"):
            check_place(self.name, "an annotation", frame_, object_id_, self.shape[0])
            key = (object_id_, number, frame_)
            before = found.pop(key, None)
            if spreads >= 0:
                spread = spreads == 1 or (before is not None and before.spreads)
                found[key] = Annotation(object_id_, frame_, step, number, spread)
        return list(found.values())

    def annotated_by(self, step: int) -> dict[int, int]:
        """Objects that a step annotated, and whether propagation starts there (1: it does)."""
        with self._storage.reading() as connection:
            return dict(connection.execute("SELECT object, spreads FROM annotations WHERE step = ?", (step,)))

    def annotated_frames(self) -> frozenset[int]:
        """Frames that are the user's for at least one object."""
        return frozenset(a.frame for a in self.annotations())

    # -- patches

    def rows(
        self,
        frame: int,
        before: int = LATEST,
        last: int = LATEST,
        direction: int = 0,
        objects: Collection[int] = (),
    ) -> dict[int, Row]:
        """The newest patch of each object on a frame.

        Parameters
        ----------
        frame : int
            Which one.
        before : int
            Only what rounds before this one made.
        last : int
            Only what steps up to this one made.
        direction : int
            Include what passes of this direction hold back.
        objects : collection of int
            Only these; empty: all. Many are looked up as all are.
        """
        some = objects if len(objects) <= _AT_ONCE else ()
        only = f"AND p.object IN ({','.join('?' * len(some))})" if some else ""
        with self._storage.reading() as connection:
            asked = (frame, direction, before, last, *some)
            found = connection.execute(_NEWEST.format(only=only), asked).fetchall()
        rows = {}
        for object_id, _, row_id, step, origin, filled, quality, *sides in self._sound(found, _ROW, "masks"):
            if filled >= 0:
                rows[object_id] = self._row(row_id, object_id, step, sides, origin, filled, quality)
        return rows

    def traces(self, frame: int) -> dict[int, Trace]:
        """What active steps ever wrote of each object on a frame."""
        with self._storage.reading() as connection:
            found = connection.execute(
                "SELECT p.object, p.step, p.filled, p.y0, p.x0, p.y1, p.x1 FROM patches AS p CROSS JOIN steps AS s "
                "ON s.id = p.step WHERE p.frame = ? AND s.state = 1 ORDER BY p.step",
                (frame,),
            ).fetchall()
        boxes: dict[int, Box] = {}
        steps: dict[int, list[int]] = {}
        for object_id, step, filled, *sides in self._sound(found, "iiiiiii", "masks"):
            steps.setdefault(object_id, []).append(step)
            if filled >= 0:
                box = Box(*sides)
                boxes[object_id] = boxes.get(object_id, box).union(box)
        return {i: Trace(box, steps[i]) for i, box in boxes.items()}

    def held(self, frame: int, direction: int, round_number: int) -> dict[int, Row]:
        """What the pass of this direction left on a frame, to be averaged with the other one."""
        with self._storage.reading() as connection:
            found = connection.execute(
                "SELECT p.object, MAX(p.step), p.id, p.step, p.origin, p.filled, p.quality, p.y0, p.x0, p.y1, p.x1 "
                "FROM patches AS p CROSS JOIN steps AS s ON s.id = p.step WHERE p.frame = ? AND s.state = 1 "
                "AND s.round = ? AND p.stage <> 0 AND p.direction = ? GROUP BY p.object",
                (frame, round_number, direction),
            ).fetchall()
        self._sound(found, _ROW, "masks")
        return {r[0]: self._row(r[2], r[0], r[3], r[7:], r[4], r[5], r[6]) for r in found if r[5] >= 0}

    def _row(
        self, row_id: int, object_id: int, step: int, sides: Sequence[int], origin: int, filled: int, quality: float
    ) -> Row:
        box = Box(*sides)
        sound = all(type(side) is int for side in box) and not box.empty and box.clip(self.shape[1:]) == box
        if not sound or origin not in (0, 1, 2) or type(object_id) is not int or not 0 < object_id < 65536:
            raise ProjectError(f"{self.name} is damaged: mask {row_id} of object {object_id} lies at {tuple(box)}.")
        return Row(row_id, object_id, step, box, Origin(origin), filled > 0, float(quality))

    def patches(self, rows: Iterable[Row]) -> dict[int, Patch]:
        """Unpack the patches of these rows, by object."""
        wanted = list(rows)
        data: dict[int, object] = {}
        with self._storage.reading() as connection:
            for start in range(0, len(wanted), _AT_ONCE):
                ids = [row.id for row in wanted[start : start + _AT_ONCE]]
                marks = ",".join("?" * len(ids))
                data |= dict(connection.execute(f"SELECT id, data FROM patches WHERE id IN ({marks})", ids))
        check_room(sum(map(declared_cells, data.values())), f"{self.name}: unpacking {len(data)} masks")
        return {row.object_id: self._unpack(row, data.get(row.id)) for row in wanted}

    def _unpack(self, row: Row, data: object) -> Patch:
        what = f"{self.name}: mask {row.id} of object {row.object_id}"
        return Patch(row.box, unpack_cells(data, row.box.shape, what), row.origin)

    def written_as(self, ids: Collection[int]) -> dict[int, tuple[int, int, int]]:
        """(frame, object, step) of masks by the ids of their rows; of none where masks were deleted.

        The ids of deleted rows are given again, so that they say nothing any more.
        """
        wanted = sorted(set(ids))
        found: list[tuple[int, ...]] = []
        with self._storage.reading() as connection:
            dropped = connection.execute("SELECT id FROM steps WHERE state = -1 AND seconds > 0").fetchall()
            if dropped and set(dropped) - set(connection.execute("SELECT DISTINCT step FROM patches")):
                return {}
            for start in range(0, len(wanted), _AT_ONCE):
                some = wanted[start : start + _AT_ONCE]
                query = f"SELECT id, frame, object, step FROM patches WHERE id IN ({','.join('?' * len(some))})"
                found += connection.execute(query, some).fetchall()
        return {row[0]: (row[1], row[2], row[3]) for row in self._sound(found, "iiii", "masks")}

    def written(self, frame: int, steps: Collection[int]) -> dict[int, float]:
        """Objects whose shown masks on a frame were written by these steps, with their quality."""
        rows = self.rows(frame)
        return {row.object_id: row.quality for row in rows.values() if row.step in steps}

    def changed(self, object_id: int, round_number: int) -> list[int]:
        """Frames on which a round's propagation left an object's mask, ascending."""
        with self._storage.reading() as connection:
            found = connection.execute(
                "SELECT DISTINCT p.frame FROM patches AS p CROSS JOIN steps AS s ON s.id = p.step WHERE p.object = ? "
                "AND p.stage <> 1 AND p.direction <> 0 AND s.state = 1 AND s.round = ? ORDER BY p.frame",
                (object_id, round_number),
            ).fetchall()
        return [row[0] for row in found]

    def progress(
        self, object_id: int, frames: range, direction: int, since: int, before: int = LATEST, held: bool = True
    ) -> dict[int, float | None]:
        """Frames that a pass has written, and the quality of the mask on each; None where there is none.

        `since`: the step that annotated the frame from which it starts; `before`: only what rounds before this one
        made; `held`: count what is held back.
        """
        low, high = min(frames), max(frames)
        with self._storage.reading() as connection:
            found = connection.execute(
                "SELECT p.frame, p.filled, p.quality, MAX(p.step * 4 - p.stage) FROM patches AS p "
                "CROSS JOIN steps AS s ON s.id = p.step "
                "WHERE p.object = ? AND p.frame BETWEEN ? AND ? AND p.direction = ? "
                "AND s.state = 1 AND p.step > ? AND s.round < ? AND (? OR p.stage <> 1) GROUP BY p.frame",
                (object_id, low, high, direction, since, before, held),
            ).fetchall()
        sound = self._sound(found, "iirr", "masks")
        return {frame: float(quality) if filled > 0 else None for frame, filled, quality, _ in sound}

    def filled_before(self, object_id: int, frames: range, round_number: int, direction: int = 0) -> dict[int, int]:
        """Frames on which rounds before this one left a mask of an object, with the steps that wrote them.

        Included is what passes of this direction hold back.
        """
        if not frames:
            return {}
        low, high = min(frames), max(frames)
        with self._storage.reading() as connection:
            found = connection.execute(
                "SELECT p.frame, p.filled, p.step, MAX(p.step * 4 - p.stage) FROM patches AS p CROSS JOIN steps AS s "
                "ON s.id = p.step WHERE p.object = ? AND p.frame BETWEEN ? AND ? "
                "AND (p.stage <> 1 OR p.direction = ?) AND s.state = 1 AND s.round < ? GROUP BY p.frame",
                (object_id, low, high, direction, round_number),
            ).fetchall()
        return {frame: step for frame, filled, step, _ in self._sound(found, "iiir", "masks") if filled > 0}

    def left_by(self, object_id: int, frames: range, direction: int, since: int) -> set[int]:
        """Frames on which a pass of this direction left a half to be averaged; `since` as for `progress`."""
        low, high = min(frames), max(frames)
        with self._storage.reading() as connection:
            found = connection.execute(
                "SELECT p.frame FROM patches AS p CROSS JOIN steps AS s ON s.id = p.step WHERE p.object = ? "
                "AND p.frame BETWEEN ? AND ? AND p.stage <> 0 AND p.direction = ? AND s.state = 1 AND p.step > ?",
                (object_id, low, high, direction, since),
            ).fetchall()
        return {row[0] for row in self._sound(found, "i", "masks")}

    # -- quality

    def quality(self, object_id: int, frames: range) -> list[tuple[int, float, bool]]:
        """(frame, quality, whether it was found) of an object's masks in a range of frames, ascending."""
        with self._storage.reading() as connection:
            found = connection.execute(
                "SELECT p.frame, p.filled, p.quality, MAX(p.step * 4 - p.stage) FROM patches AS p "
                "CROSS JOIN steps AS s ON s.id = p.step WHERE p.object = ? AND p.frame BETWEEN ? AND ? "
                "AND p.stage <> 1 AND s.state = 1 GROUP BY p.frame",
                (object_id, frames.start, frames.stop - 1),
            ).fetchall()
        self._sound(found, "iirr", "masks")
        return [(frame, float(quality), filled > 0) for frame, filled, quality, _ in found if filled >= 0]

    def worst_frame(self, skip: Collection[int]) -> int | None:
        """The frame with the least certain propagated mask, without those in `skip`; the first of equals."""
        objects = self.objects()
        with self._storage.reading() as connection:
            candidates = connection.execute(
                "SELECT p.frame, p.object, p.step, p.stage FROM patches AS p INDEXED BY patches_by_quality "
                "CROSS JOIN steps AS s ON s.id = p.step WHERE p.origin = 2 AND p.stage <> 1 AND s.state = 1 "
                "AND p.filled >= 0 ORDER BY p.quality, p.frame"
            )
            for candidate in candidates:
                frame, object_id, step, stage = self._sound([candidate], "iiii", "masks")[0]
                state = objects.get(object_id)
                if frame in skip or state is None or not state.alive(frame):
                    continue
                newer = connection.execute(
                    "SELECT 1 FROM patches AS p CROSS JOIN steps AS s ON s.id = p.step WHERE p.frame = ? "
                    "AND p.object = ? AND p.stage <> 1 AND s.state = 1 AND p.step * 4 - p.stage > ? LIMIT 1",
                    (frame, object_id, step * 4 - stage),
                ).fetchone()
                if newer is None:
                    return int(frame)
        return None

    # -- references and models

    def references(
        self, object_id: int, model: str, places: Iterable[tuple[int, int]]
    ) -> dict[tuple[int, int], Reference]:
        """What a model learned of an object on these annotations, by their (step, frame); one after the other.

        Raises
        ------
        OutOfMemory
            Together they are larger than this machine takes.
        """
        what = f"{self.name}: what was learned of object {object_id}"
        query = "SELECT data FROM learned WHERE object = ? AND step = ? AND frame = ? AND model = ?"
        references: dict[tuple[int, int], Reference] = {}
        size = 0
        for step, frame in places:
            with self._storage.reading() as connection:
                found = connection.execute(query, (object_id, step, frame, model)).fetchall()
            for (data,) in self._sound(found, "b", "references"):
                references[step, frame] = np.asarray(unpack_array(data, what), np.float16)
                size += references[step, frame].nbytes
                check_room(size, what)
        return references

    def learned(self, model: str) -> set[tuple[int, int, int]]:
        """(object, step, frame) of everything that a model has learned."""
        with self._storage.reading() as connection:
            found = connection.execute("SELECT object, step, frame FROM learned WHERE model = ?", (model,)).fetchall()
        return set(self._sound(found, "iii", "references"))

    def models(self) -> tuple[StoredModel, ...]:
        """Weights that travel with the project."""
        with self._storage.reading() as connection:
            rows = connection.execute("SELECT name, checksum, size, time FROM models ORDER BY id").fetchall()
        return tuple(StoredModel(*row) for row in self._sound(rows, "ttit", "models"))

    def model_weights(self, checksum: str) -> bytes:
        """A stored model's weights.

        Raises
        ------
        ProjectError
            There are none of that checksum, or they are not what was stored.
        """
        with self._storage.reading() as connection:
            found = connection.execute(
                "SELECT id, size, sha256, name FROM models WHERE checksum = ?", (checksum,)
            ).fetchone()
            if found is None:
                raise ProjectError(f"{self.name} holds no model {checksum!r}.")
            number, size, digest, name = self._sound([found], "iitt", "models")[0]
            held = connection.execute("SELECT SUM(length(data)) FROM model_parts WHERE model = ?", (number,)).fetchone()
            if held[0] != size or not 0 < size <= MODEL_LIMIT:
                raise ProjectError(f"{self.name}: model {name!r} should have {size} bytes; there are {held[0]}.")
            parts = connection.execute("SELECT data FROM model_parts WHERE model = ? ORDER BY part", (number,))
            weights = b"".join(row[0] for row in self._sound(parts.fetchall(), "b", "models"))
        if hashlib.sha256(weights).hexdigest() != digest:
            raise ProjectError(
                f"{self.name}: model {name!r} is damaged (its checksum is another). Give the model again."
            )
        return weights


def now() -> str:
    """The time, UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Writer:
    """Everything that changes a project; lives for one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def set_meta(self, key: str, value: Any) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    # -- history

    def begin(
        self,
        kind: str,
        round_number: int,
        model: str | None = None,
        detail: Mapping[str, Any] | None = None,
        finished: bool = True,
    ) -> int:
        """Add a step, and drop what was undone; its number."""
        self._connection.execute("UPDATE steps SET state = -1 WHERE state = 0")
        done = self._connection.execute(
            "INSERT INTO steps (kind, round, state, finished, time, model, detail, frames, seconds) "
            "VALUES (?, ?, 1, ?, ?, ?, ?, 0, 0)",
            (kind, round_number, int(finished), now(), model, json.dumps(detail or {})),
        )
        return int(done.lastrowid or 0)

    def finish(self, step: int, model: str | None) -> None:
        """An interaction's masks are made."""
        self._connection.execute("UPDATE steps SET finished = 1, model = ifnull(?, model) WHERE id = ?", (model, step))

    def conclude(self, step: int, detail: Mapping[str, Any]) -> None:
        """Say more about a step."""
        self._connection.execute("UPDATE steps SET detail = ? WHERE id = ?", (json.dumps(detail), step))

    def spend(self, step: int, frames: int, seconds: float) -> None:
        self._connection.execute(
            "UPDATE steps SET frames = frames + ?, seconds = seconds + ? WHERE id = ?", (frames, seconds, step)
        )

    def set_state(self, steps: Iterable[int], state: StepState) -> None:
        self._connection.executemany("UPDATE steps SET state = ? WHERE id = ?", [(int(state), s) for s in steps])

    def size(self) -> int:
        """Bytes of the database."""
        return database_size(self._connection)

    def sweep_out(self) -> None:
        """Delete what only dropped steps made; the steps themselves and their strokes stay in the log."""
        for table in ("patches", "annotations", "learned", "objects"):
            self._connection.execute(f"DELETE FROM {table} WHERE step IN (SELECT id FROM steps WHERE state = -1)")

    # -- content

    def merge(self, rows: extracts.Rows, steps: Mapping[int, int]) -> None:
        """Keep what work elsewhere has added; `steps`: which step here each step there is."""
        extracts.merge(self._connection, rows, steps)

    def put_objects(self, step: int, states: Iterable[ObjectState]) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO objects (id, step, name, colour, start, stop, parent, locked, removed) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(o.id, step, o.name, o.colour, o.start, o.stop, o.parent, o.locked, int(o.removed)) for o in states],
        )

    def put_strokes(self, step: int, frame: int, strokes: Iterable[Stroke]) -> list[int]:
        """Keep strokes; their ids."""
        return [
            int(
                self._connection.execute(
                    "INSERT INTO strokes (step, frame, object, points) VALUES (?, ?, ?, ?)",
                    (step, frame, stroke.object_id, pack_array(stroke.points)),
                ).lastrowid
                or 0
            )
            for stroke in strokes
        ]

    def withdraw(self, step: int, stroke: int) -> None:
        self._connection.execute("INSERT INTO withdrawals VALUES (?, ?)", (stroke, step))

    def annotate(self, step: int, frame: int, spreads: Mapping[int, int]) -> None:
        """These objects' masks on a frame are the user's: 1 spreads, 0 stays, -1 is the user's no longer."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO annotations (object, frame, step, spreads) VALUES (?, ?, ?, ?)",
            [(object_id, frame, step, value) for object_id, value in spreads.items()],
        )

    def put_patches(self, step: int, frame: int, patches: Iterable[WrittenPatch]) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO patches "
            "(step, frame, object, stage, direction, origin, filled, quality, y0, x0, y1, x1, data) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    step,
                    frame,
                    p.object_id,
                    int(p.stage),
                    p.direction,
                    int(p.origin),
                    p.filled,
                    p.quality,
                    *p.box,
                    p.data,
                )
                for p in patches
            ],
        )

    def put_references(self, model: str, learned: Mapping[tuple[int, int, int], Reference]) -> None:
        """Keep references by (object, step, frame) of the annotation that they come from."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO learned (object, step, frame, model, data) VALUES (?, ?, ?, ?, ?)",
            [(*key, model, pack_array(reference)) for key, reference in learned.items()],
        )

    def put_model(self, name: str, checksum: str, weights: bytes) -> None:
        """Keep a model's weights; once for each checksum."""
        if not 0 < len(weights) <= MODEL_LIMIT:
            raise InputError(f"Weights of {len(weights):,} bytes can't be kept; 1 to {MODEL_LIMIT:,} can.")
        if self._connection.execute("SELECT 1 FROM models WHERE checksum = ?", (checksum,)).fetchone():
            return
        number = self._connection.execute(
            "INSERT INTO models (name, checksum, size, sha256, time) VALUES (?, ?, ?, ?, ?)",
            (name, checksum, len(weights), hashlib.sha256(weights).hexdigest(), now()),
        ).lastrowid
        self._connection.executemany(
            "INSERT INTO model_parts VALUES (?, ?, ?)",
            [
                (number, part, weights[start : start + MODEL_PART])
                for part, start in enumerate(range(0, len(weights), MODEL_PART))
            ],
        )

    def drop_models(self) -> None:
        """Delete all stored weights, and what those models learned of objects."""
        self._connection.execute("DELETE FROM learned WHERE model IN (SELECT checksum FROM models)")
        self._connection.execute("DELETE FROM model_parts")
        self._connection.execute("DELETE FROM models")
        self._connection.execute("DELETE FROM meta WHERE key = 'adapted'")
