"""Power cuts: a recording file system under SQLite, cut at any write, with what was not synced lost in part.

Every write, sync, truncation and deletion that SQLite asks for is recorded, with notes of what the session had reported
by then. At a cut, all that was synced is there; of the rest each write is there or not, in any combination, and a write
may be torn at a sector. A deletion that no sync followed may not have happened.
"""

from __future__ import annotations

import os
import random
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_ivos.frames import open_frames
from napari_ivos.predictor import FakePredictor
from napari_ivos.project import storage
from napari_ivos.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

apsw = pytest.importorskip("apsw")

CUTS = int(os.environ.get("NAPARI_IVOS_POWER_CUTS", "20"))
"""At how many random points the power is cut, in each journal mode; 200 for the whole promise."""
SECTOR = 512


@dataclass(frozen=True)
class Write:
    """Bytes at a place of a file."""

    file: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    file: str
    size: int


@dataclass(frozen=True)
class Sync:
    file: str


@dataclass(frozen=True)
class Delete:
    """A name is taken out of the folder; `lasting`: and the folder synced."""

    file: str
    lasting: bool


@dataclass(frozen=True)
class Note:
    """Something that the session reported as done."""

    what: str
    frame: int = -1


@dataclass
class Disk:
    """What was asked of the disk, in order."""

    log: list[Any] = field(default_factory=list)

    def after(self, cut: int, chance: random.Random) -> dict[str, bytes]:
        """Files as they may be after the power was cut behind the first `cut` entries."""
        log = self.log[:cut]
        synced = {entry.file: at for at, entry in enumerate(log) if isinstance(entry, Sync)}
        last_sync = max(synced.values(), default=-1)
        files: dict[str, bytearray] = {}
        for at, entry in enumerate(log):
            if isinstance(entry, Delete):
                # the folder's own journal goes to disk with the next sync of anything in it; before, all may be
                if entry.lasting or at < last_sync or chance.random() < 0.5:
                    files.pop(entry.file, None)
            elif isinstance(entry, Write | Truncate):
                whole = files.setdefault(entry.file, bytearray())
                if at < synced.get(entry.file, -1) or chance.random() < 0.5:
                    _apply(whole, entry)
                elif isinstance(entry, Write) and chance.random() < 0.3:
                    _apply(whole, _torn(entry, chance))
        return {name: bytes(content) for name, content in files.items()}


def _apply(whole: bytearray, entry: Write | Truncate) -> None:
    if isinstance(entry, Truncate):
        del whole[entry.size :]
        whole.extend(bytes(max(0, entry.size - len(whole))))
        return
    whole.extend(bytes(max(0, entry.offset - len(whole))))
    whole[entry.offset : entry.offset + len(entry.data)] = entry.data


def _torn(write: Write, chance: random.Random) -> Write:
    """The write up to a border of sectors on the disk."""
    borders = [b - write.offset for b in range(0, write.offset + len(write.data), SECTOR) if b > write.offset]
    return Write(write.file, write.offset, write.data[: chance.choice(borders)] if borders else b"")


def recording(disk: Disk, name: str) -> Any:
    """SQLite's own file system, which also notes in `disk` what it is asked for."""

    class File(apsw.VFSFile):
        def __init__(self, filename: Any, flags: Any) -> None:
            named = filename.filename() if isinstance(filename, apsw.URIFilename) else filename
            self.name = Path(named).name
            super().__init__("", filename, flags)

        def xWrite(self, data: bytes, offset: int) -> None:
            disk.log.append(Write(self.name, offset, bytes(data)))
            super().xWrite(data, offset)

        def xTruncate(self, newsize: int) -> None:
            disk.log.append(Truncate(self.name, newsize))
            super().xTruncate(newsize)

        def xSync(self, flags: int) -> None:
            disk.log.append(Sync(self.name))
            super().xSync(flags)

    class FileSystem(apsw.VFS):
        def __init__(self) -> None:
            super().__init__(name, "")

        def xOpen(self, filename: Any, flags: Any) -> File:
            return File(filename, flags)

        def xDelete(self, filename: str, syncdir: bool) -> None:
            super().xDelete(filename, syncdir)
            disk.log.append(Delete(Path(filename).name, syncdir))

    return FileSystem()


class Connection:
    """An apsw connection with the methods of `sqlite3.Connection` that a project uses."""

    def __init__(self, target: str, vfs: str) -> None:
        flags = apsw.SQLITE_OPEN_URI | (
            apsw.SQLITE_OPEN_READONLY if "mode=ro" in target else apsw.SQLITE_OPEN_READWRITE
        )
        self._connection = apsw.Connection(target, flags=flags, vfs=vfs)
        self._connection.set_busy_timeout(1000)
        self._connection.execute("PRAGMA wal_autocheckpoint = 24")  # many checkpoints in a short story
        self.setlimit = self._connection.limit
        self.setconfig = self._connection.config
        self.close = self._connection.close

    def execute(self, sql: str, values: Any = ()) -> Any:
        cursor = self._connection.execute(sql, tuple(values))
        return (
            SimpleNamespace(
                fetchone=cursor.fetchone,
                fetchall=cursor.fetchall,
                lastrowid=self._connection.last_insert_rowid(),
                __iter__=cursor.__iter__,
            )
            if not sql.lstrip().upper().startswith("SELECT")
            else cursor
        )

    def executemany(self, sql: str, values: Any) -> None:
        self._connection.executemany(sql, [tuple(v) for v in values])

    @property
    def in_transaction(self) -> bool:
        return bool(self._connection.in_transaction)


@pytest.fixture(scope="module")
def clip(make_clip, square):
    """Two objects that pass by each other."""
    return make_clip(12, (96, 128), square((12, 10), (1, 4)), square((40, 90), (0, -4)))


def the_stack(clip) -> Any:
    return open_frames(clip.video, axes="TYXC")


FIRST, THEN = (6, (1, 2)), ((1, (1,)), (9, (1,)), (0, (2,)))
"""Frames and objects that are scribbled on in the first round, and in the second."""


def story(session: Session, clip, told: Callable[[Note], None]) -> None:
    """Two rounds; goes on wherever it stands, and tells of everything that is done."""

    def scribble(frame: int, ids: tuple[int, ...]) -> None:
        if not session.strokes(frame):
            session.interact(clip.scribbles(frame, *ids))
            told(Note("scribbled", frame))

    def carry(what: str) -> None:
        for result in session.propagate():
            told(Note(what, result.frame))
        told(Note(f"{what} all"))

    scribble(*FIRST)
    if not any(session.strokes(frame) for frame, _ in THEN):
        carry("first round")
    for frame, ids in THEN:
        scribble(frame, ids)
    carry("second round")


def everything(session: Session) -> dict[tuple[int, int], tuple[Any, ...]]:
    """All shown patches, to the last bit."""
    project = session._project
    found = {}
    for frame in range(session.shape[0]):
        rows = project.rows(frame)
        for i, patch in project.patches(rows.values()).items():
            found[frame, i] = (patch.box, patch.origin, patch.probability.tobytes(), rows[i].quality)
    return found


@dataclass
class Recorded:
    """A story, what the disk saw of it, and the masks after each note."""

    disk: Disk
    states: dict[int, dict[tuple[int, int], tuple[Any, ...]]]
    end: dict[tuple[int, int], tuple[Any, ...]]
    labels: np.ndarray


@pytest.fixture(scope="module", params=["write-ahead log", "rollback journal"])
def recorded(request: pytest.FixtureRequest, clip, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """One unbroken story on a local path, and one as on a network path."""
    disk, name = Disk(), f"recording {request.param}"
    system, connect = recording(disk, name), sqlite3.connect
    states = {}

    def told(note: Note) -> None:
        disk.log.append(note)
        states[len(disk.log)] = everything(session)

    def connecting(target: str, **options: Any) -> Any:
        return connect(target, **options) if target == ":memory:" else Connection(target, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage.sqlite3, "connect", connecting)
        patch.setattr(storage, "on_network", lambda path: request.param == "rollback journal")
        folder = tmp_path_factory.mktemp("recorded")
        with Session(the_stack(clip), FakePredictor(), folder / "a.ivos") as session:
            told(Note("made"))
            story(session, clip, told)
            end, labels = everything(session), np.asarray(session.labels)
        disk.log.append(Note("closed"))
        states[len(disk.log)] = end
    yield Recorded(disk, states, end, labels)
    system.unregister()


def test_the_recorder_sees_what_is_on_the_disk(recorded, tmp_path: Path) -> None:
    """With all of it kept, the record of a story gives a project with the story's masks; there is much to cut."""
    log = recorded.disk.log
    kinds = {type(entry) for entry in log}
    assert kinds >= {Write, Sync, Delete, Note}
    assert sum(isinstance(entry, Sync) for entry in log) > 60
    (tmp_path / "a.ivos").write_bytes(recorded.disk.after(len(log), random.Random(0))["a.ivos"])
    with Session.open(tmp_path / "a.ivos") as session:
        np.testing.assert_array_equal(np.asarray(session.labels), recorded.labels)


@pytest.mark.parametrize("seed", range(CUTS))
def test_a_power_cut_loses_nothing_that_was_reported(recorded, clip, tmp_path: Path, seed: int) -> None:
    """After a cut at any write the project opens, shows all that was reported, and goes on to the same masks."""
    chance = random.Random(seed)
    disk = recorded.disk
    made = min(recorded.states)  # before, no project was reported as made
    cut = chance.randrange(made, len(disk.log) + 1)
    for name, content in disk.after(cut, chance).items():
        (tmp_path / name).write_bytes(content)
    notes = [entry for entry in disk.log[:cut] if isinstance(entry, Note)]
    reported = max(at for at in recorded.states if at <= cut)
    since = [state for at, state in recorded.states.items() if at >= reported]
    with Session.open(tmp_path / "a.ivos", the_stack(clip), FakePredictor()) as session:
        now = everything(session)
        older = [key for key in since[0] if not any(now.get(key) == state.get(key) for state in since)]
        assert not older  # all is as it was when last reported, or as it became later
        drawn = [note.frame for note in notes if note.what == "scribbled"]
        assert {stroke.frame for stroke in session.strokes()} >= set(drawn)
        story(session, clip, lambda note: None)
        assert everything(session) == recorded.end
        np.testing.assert_array_equal(np.asarray(session.labels), recorded.labels)
