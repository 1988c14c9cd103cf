"""What is in a project file, and how older files become it.

Everything is kept by the number of the step that made it, and a step is active, undone (it can be redone) or dropped.
The newest row of an active step counts; nothing is overwritten, so undo and redo change one row of `steps`, however
many frames they take back.

- ``meta``: shape and identity of the stack, its contrast, the model in use.
- ``steps``: one history of all that was done, with round, time, model, frames and seconds.
- ``objects``: what is known of an object after a step.
- ``strokes``, ``withdrawals``: what was drawn, and what of it was taken back.
- ``annotations``: the frames that are the user's, by object; `spreads` 1: propagation starts there, 0: it only stops
  there, -1: no longer the user's.
- ``patches``: masks. `stage`: 0 final, 1 held (half of a span whose other half is still to come, hidden), 2 shown
  (the same, where nobody asked for the other half). `direction`: 1, -1, or 0 for an annotation. No data: no mask.
- ``learned``: references, by the step that annotated and by model.
- ``models``, ``model_parts``: weights that travel with the project.
"""

from __future__ import annotations

import sqlite3
from functools import cache

APPLICATION_ID = 0x49564F53
"""Marks an SQLite file as a project ("IVOS")."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        (
            "CREATE TABLE steps (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, round INTEGER NOT NULL, "
            "state INTEGER NOT NULL, finished INTEGER NOT NULL, time TEXT NOT NULL, model TEXT, detail TEXT NOT NULL, "
            "frames INTEGER NOT NULL, seconds REAL NOT NULL)"
        ),
        (
            "CREATE TABLE objects (id INTEGER NOT NULL, step INTEGER NOT NULL, name TEXT NOT NULL, "
            "colour TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER, parent INTEGER, locked INTEGER, "
            "removed INTEGER NOT NULL, PRIMARY KEY (id, step)) WITHOUT ROWID"
        ),
        (
            "CREATE TABLE strokes (id INTEGER PRIMARY KEY, step INTEGER NOT NULL, frame INTEGER NOT NULL, "
            "object INTEGER NOT NULL, points BLOB NOT NULL)"
        ),
        "CREATE INDEX strokes_by_frame ON strokes (frame, step)",
        (
            "CREATE TABLE withdrawals (stroke INTEGER NOT NULL, step INTEGER NOT NULL, PRIMARY KEY (stroke, step)) "
            "WITHOUT ROWID"
        ),
        (
            "CREATE TABLE annotations (object INTEGER NOT NULL, frame INTEGER NOT NULL, step INTEGER NOT NULL, "
            "spreads INTEGER NOT NULL, PRIMARY KEY (object, frame, step)) WITHOUT ROWID"
        ),
        "CREATE INDEX annotations_by_frame ON annotations (frame, object, step)",
        (
            "CREATE TABLE patches (id INTEGER PRIMARY KEY, step INTEGER NOT NULL, frame INTEGER NOT NULL, "
            "object INTEGER NOT NULL, stage INTEGER NOT NULL, direction INTEGER NOT NULL, origin INTEGER NOT NULL, "
            "filled INTEGER NOT NULL, quality REAL NOT NULL, y0 INTEGER NOT NULL, x0 INTEGER NOT NULL, "
            "y1 INTEGER NOT NULL, x1 INTEGER NOT NULL, data BLOB)"
        ),
        "CREATE UNIQUE INDEX patches_by_frame ON patches (frame, object, step, stage)",
        "CREATE INDEX patches_by_object ON patches (object, frame, step, stage, direction, filled, quality)",
        "CREATE INDEX patches_by_quality ON patches (quality, frame) WHERE origin = 2 AND stage <> 1",
        (
            "CREATE TABLE learned (object INTEGER NOT NULL, step INTEGER NOT NULL, frame INTEGER NOT NULL, "
            "model TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (object, step, frame, model))"
        ),
        (
            "CREATE TABLE models (id INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL UNIQUE, "
            "size INTEGER NOT NULL, sha256 TEXT NOT NULL, time TEXT NOT NULL)"
        ),
        (
            "CREATE TABLE model_parts (model INTEGER NOT NULL, part INTEGER NOT NULL, data BLOB NOT NULL, "
            "PRIMARY KEY (model, part))"
        ),
    ),
)
"""Statements that make each version out of the one before; a version never changes once it is out."""


def version() -> int:
    """The newest schema version, which this program writes."""
    return len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, found: int) -> None:
    """Bring a file of version `found` to the newest one, inside the transaction at hand."""
    for statements in MIGRATIONS[found:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version()}")


def content(connection: sqlite3.Connection) -> frozenset[tuple[str, str, str, str | None]]:
    """Everything that a file's schema declares: type, name, table and text of each table, index, view and trigger."""
    return frozenset(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))


def expected(at: int) -> frozenset[tuple[str, str, str, str | None]]:
    """`content` of an honest file of version `at`."""
    return _expected(MIGRATIONS[:at])


@cache
def _expected(migrations: tuple[tuple[str, ...], ...]) -> frozenset[tuple[str, str, str, str | None]]:
    connection = sqlite3.connect(":memory:")
    try:
        for statements in migrations:
            for statement in statements:
                connection.execute(statement)
        return content(connection)
    finally:
        connection.close()
