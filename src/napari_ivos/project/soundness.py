"""Whether what a file holds is what this program writes: SQLite keeps any kind of value in any column.

A file that was damaged, or made by a stranger, must end in a `ProjectError`, not deep in the engine; and nothing that
lies beside a project may lead SQLite to other files.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import TYPE_CHECKING, Any, NoReturn

from napari_ivos.errors import ProjectError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_ivos.project.records import ObjectState

IDS_AT_MOST = 65535
COMPANIONS = ("-wal", "-shm", "-journal", "-lock")
"""Endings of the files that SQLite and the lock keep beside a project."""
_NAME_ON_WINDOWS = 255
_JOURNAL_END = bytes.fromhex("d9d505f920a163d7")
"""Last bytes of a rollback journal that names another one."""
_KINDS: dict[str, set[type]] = {"i": {int}, "r": {int, float}, "t": {str}, "b": {bytes}}
_WORDS = {"i": "a whole number", "r": "a number", "t": "text", "b": "bytes"}


def sound(rows: Sequence[Any], kinds: str, name: str, what: str) -> Sequence[Any]:
    """The rows, once every value has the kind of its column.

    Parameters
    ----------
    rows : sequence of tuple
        As SQLite gives them.
    kinds : str
        One letter a column: i whole number, r number, t text, b bytes; a capital letter allows none.
    name, what : str
        The project, and which of its tables, for the message.

    Raises
    ------
    ProjectError
        A value of another kind.
    """
    for column, kind in zip(zip(*rows, strict=True), kinds, strict=False):
        allowed = _KINDS[kind.lower()].union([type(None)] if kind.isupper() else [])
        strange = set(map(type, column)) - allowed
        if strange:
            found = ", ".join(sorted(k.__name__ for k in strange))
            raise ProjectError(
                f"{name} is damaged: its {what} hold {found} where {_WORDS[kind.lower()]} belongs. Restore it from a "
                "copy."
            )
    return rows


def check_place(name: str, what: str, frame: int, object_id: int, frames: int, lowest: int = 1) -> None:
    """Refuse a frame that the stack doesn't have, or an object id that can't be."""
    if not 0 <= frame < frames or not lowest <= object_id <= IDS_AT_MOST:
        _refuse(name, f"{what} of object {object_id} lies on frame {frame} of {frames}")


def check_object(state: ObjectState, name: str, frames: int) -> None:
    """Refuse a row of the table of objects that this program doesn't write."""
    if not 1 <= state.id <= IDS_AT_MOST or not (state.parent is None or 1 <= state.parent <= IDS_AT_MOST):
        _refuse(name, f"an object has the id {state.id} and the parent {state.parent}")
    if not re.fullmatch(r"#[0-9a-f]{6}", state.colour):
        _refuse(name, f"object {state.id} has the colour {state.colour!r:.40}")
    if not 0 <= state.start < frames or not (state.stop is None or state.stop > state.start):
        _refuse(name, f"object {state.id} lives from frame {state.start} to before {state.stop}")


def check_detail(detail: Mapping[str, Any], name: str, frames: int) -> None:
    """Refuse a step's details where what others read of them is not what this program writes."""
    frame, ways = detail.get("frame", 0), detail.get("directions", [])
    if type(frame) is not int or not 0 <= frame < frames:
        _refuse(name, f"a step was made on frame {frame!r:.40} of {frames}")
    if not isinstance(ways, list) or not all(way in (1, -1) for way in ways):
        _refuse(name, f"a step went into the directions {ways!r:.40}")


def _refuse(name: str, found: str) -> NoReturn:
    raise ProjectError(f"{name} is damaged: {found}. Restore it from a copy.")


def check_companions(path: Path) -> None:
    """Refuse what an honest program doesn't leave beside a project.

    SQLite and the lock open fixed names beside the file: a link there would lead them to write elsewhere. And a
    rollback journal can name another one, at any path, which SQLite deletes when it rolls back. What goes away while it
    is looked at, because another process is done with it, is none of this.

    Raises
    ------
    ProjectError
        A link, a pipe or a folder of such a name, or such a journal; the message says what to delete. Or there can be
        no files of such names.
    """
    for place in {path, path.resolve()}:
        for ending in COMPANIONS:
            beside = place.with_name(place.name + ending)
            try:
                sound = _plain_or_absent(beside)
            except OSError as error:
                raise _no_place(beside, path, error) from error
            if not sound:
                raise ProjectError(
                    f"{beside.name} beside {path.name} is a link or no file, which no project comes with: it would let "
                    "the project write somewhere else. Nothing was opened; delete it first."
                )
    journal = path.resolve().with_name(path.resolve().name + "-journal")
    if _last_bytes(journal) == _JOURNAL_END:
        raise ProjectError(
            f"{journal.name} beside {path.name} names another journal, which no project of ours does, and "
            "which would be deleted. Nothing was opened; delete that journal if you don't know whence it comes."
        )


def _no_place(beside: Path, path: Path, error: OSError) -> ProjectError:
    """Why nothing can lie beside a project."""
    if error.errno == errno.ENAMETOOLONG or (os.name == "nt" and len(beside.name) > _NAME_ON_WINDOWS):
        short, more = f"{path.name[:30]}...", max(map(len, COMPANIONS))
        return ProjectError(
            f"The name {short} of {len(path.name)} letters is too long for this file system: files whose names are "
            f"longer by up to {more} come to lie beside a project. Choose a shorter one."
        )
    return ProjectError(f"{path} can't be looked for ({error.strerror}): check that its folder is there.")


def _plain_or_absent(place: Path) -> bool:
    try:
        return stat.S_ISREG(place.lstat().st_mode)
    except FileNotFoundError:
        return True


def _last_bytes(journal: Path) -> bytes:
    """The last eight bytes of a journal; none where there is no journal, or one without room for a name."""
    try:
        with journal.open("rb") as file:
            if file.seek(0, os.SEEK_END) < 16:
                return b""
            file.seek(-8, os.SEEK_END)
            return file.read(8)
    except FileNotFoundError:
        return b""
