"""A part of a project that travels: rows that another machine makes a small project in memory of, and the way back.

Whoever computes elsewhere reads and writes a real project, with the queries of a real project, so that it finds what it
would find in the whole one. What it added comes back as rows, and the one writer puts them where they belong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "steps": ("id", "kind", "round", "state", "finished", "time", "model", "detail", "frames", "seconds"),
    "objects": ("id", "step", "name", "colour", "start", "stop", "parent", "locked", "removed"),
    "strokes": ("id", "step", "frame", "object", "points"),
    "withdrawals": ("stroke", "step"),
    "annotations": ("object", "frame", "step", "spreads"),
    "patches": (
        *("id", "step", "frame", "object", "stage", "direction", "origin", "filled", "quality"),
        *("y0", "x0", "y1", "x1", "data"),
    ),
    "learned": ("object", "step", "frame", "model", "data"),
}
"""What travels, table by table; steps first, because the others point to them."""
RESULTS = ("patches", "annotations", "learned")
"""Tables that work adds rows to."""
_AT_ONCE = 500  # values in one IN (...)

Rows = dict[str, list[tuple[Any, ...]]]
"""Rows by table, in the order of `COLUMNS`."""
Place = tuple[int, int, int]
"""(object, step, frame) of an annotation."""


@dataclass(frozen=True, eq=False)
class Extract:
    """A part of a project.

    Parameters
    ----------
    shape : tuple of int
        (T, H, W) of the stack.
    rows : dict
        By table.
    """

    shape: tuple[int, int, int]
    rows: Rows

    @property
    def size(self) -> int:
        """Bytes of the masks, references and strokes in it."""
        return sum(len(row[-1] or b"") for name in ("patches", "learned", "strokes") for row in self.rows[name])


def take(
    connection: sqlite3.Connection,
    shape: tuple[int, int, int],
    objects: Iterable[int],
    patches: Iterable[int],
    learned: Iterable[Place],
    model: str,
    frame: int | None,
) -> Extract:
    """Read an extract: the history, these objects with their annotations, these patches.

    Parameters
    ----------
    objects : iterable of int
        Ids of the objects that are known in it.
    patches : iterable of int
        Ids of rows.
    learned : iterable of tuple of int
        (object, step, frame) of the annotations whose references of `model` come along.
    frame : int or None
        A frame whose strokes come along.
    """
    known = sorted(set(objects))
    active = "step IN (SELECT id FROM steps WHERE state = 1)"
    rows: Rows = {"strokes": [], "withdrawals": []}
    names = ", ".join(COLUMNS["steps"]).replace("detail", "'{}'")
    rows["steps"] = connection.execute(f"SELECT {names} FROM steps WHERE state = 1 ORDER BY id").fetchall()
    rows["objects"] = _among(connection, "objects", "id", known, active)
    rows["annotations"] = _among(connection, "annotations", "object", known, active)
    rows["patches"] = _among(connection, "patches", "id", sorted(set(patches)))
    rows["learned"] = _learned(connection, sorted(set(learned)), model)
    if frame is not None:
        rows["strokes"] = _among(connection, "strokes", "frame", [frame], active)
        drawn = [row[0] for row in rows["strokes"]]
        rows["withdrawals"] = _among(connection, "withdrawals", "stroke", drawn, active)
    return Extract(shape, rows)


def _learned(connection: sqlite3.Connection, places: Iterable[Place], model: str) -> list[tuple[Any, ...]]:
    """What a model learned on these annotations."""
    names = ", ".join(COLUMNS["learned"])
    query = f"SELECT {names} FROM learned WHERE object = ? AND step = ? AND frame = ? AND model = ?"
    return [row for place in places for row in connection.execute(query, (*place, model))]


def _among(
    connection: sqlite3.Connection, table: str, column: str, values: Sequence[int], where: str = "1"
) -> list[tuple[Any, ...]]:
    """Rows of a table whose `column` is one of these values, in the table's order."""
    found: list[tuple[Any, ...]] = []
    names = ", ".join(COLUMNS[table])
    for start in range(0, len(values), _AT_ONCE):
        some = values[start : start + _AT_ONCE]
        marks = ",".join("?" * len(some))
        query = f"SELECT {names} FROM {table} WHERE {column} IN ({marks}) AND {where}"
        found += connection.execute(query, some).fetchall()
    return found


def fill(connection: sqlite3.Connection, rows: Rows) -> None:
    """Put the rows of an extract into an empty project."""
    for table, columns in COLUMNS.items():
        marks = ",".join("?" * len(columns))
        connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows[table])


def added(connection: sqlite3.Connection, extract: Extract) -> Rows:
    """The rows that were added to (or changed in) a project made of an extract."""
    found: Rows = {}
    for table in RESULTS:
        before = set(extract.rows[table]) if table != "patches" else {row[0] for row in extract.rows[table]}
        now = connection.execute(f"SELECT {', '.join(COLUMNS[table])} FROM {table}")
        found[table] = [row for row in now if (row[0] if table == "patches" else row) not in before]
    return found


def merge(connection: sqlite3.Connection, rows: Rows, steps: Mapping[int, int]) -> None:
    """Put added rows where they belong; `steps` says which step here each step there is."""
    for table in RESULTS:
        columns = COLUMNS[table]
        at = columns.index("step")
        renumbered = [(*row[:at], steps.get(row[at], row[at]), *row[at + 1 :]) for row in rows[table]]
        if table == "patches":  # their ids are given anew
            columns, renumbered = columns[1:], [row[1:] for row in renumbered]
        marks = ",".join("?" * len(columns))
        connection.executemany(f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({marks})", renumbered)
