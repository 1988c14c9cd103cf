"""One SQLite file, opened as if a stranger had sent it: connections, transactions, locks and the letters about them.

A file on a local disk uses a write-ahead log (readers never wait for the writer), one on a network path a rollback
journal; both with synchronous=EXTRA, so that what was committed survives a power cut. Nothing in a file is run: its
schema must be exactly ours, text by text, so there are no triggers, views or other people's tables; extensions are off
and sizes limited. Closing folds everything into the one file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sqlite3
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from napari_ivos.errors import ProjectError, ReadOnlyProject
from napari_ivos.project import schema
from napari_ivos.project.locking import FileLock, on_network
from napari_ivos.project.soundness import check_companions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)

_BLOB_LIMIT = 1 << 26
_SQL_LIMIT = 1 << 16
_PATIENCE = 30.0  # seconds to wait for another connection's short transaction
_IDLE_READERS = 8


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn SQLite's errors into letters about the project `name`."""
    try:
        yield
    except UnicodeDecodeError as error:  # SQLite quotes names of a damaged file in its messages
        raise ProjectError(f"{name} is damaged (it holds text that is none): restore it from a copy.") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_FULL:
            raise ProjectError(
                f"{name}: there is no room left for it (disk full). This step was taken back, all earlier ones are "
                "kept. Make room and go on."
            ) from error
        if code == sqlite3.SQLITE_NOTADB:
            raise ProjectError(
                f"{name} is not a project: it is not an SQLite file. A project is what the window keeps beside "
                "a stack, or `segment --project` wrote; its name mostly ends in .ivos."
            ) from error
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            raise ProjectError(f"{name} can't be opened or written there ({error}): check the folder.") from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise ProjectError(f"{name} is held by another program ({error}): close it there and try again.") from error
        if code == sqlite3.SQLITE_CORRUPT:
            raise ProjectError(f"{name} is damaged ({error}): restore it from a copy.") from error
        raise ProjectError(f"{name} can't be read or written ({error}); what was finished before is kept.") from error


class Storage:
    """A project's database: one writer, any number of readers.

    Parameters
    ----------
    path : Path or None
        The file; None: in memory.
    create : bool
        Make it (it must not exist); else it must exist.
    reading : bool
        Only read, and leave the file as it is.

    Attributes
    ----------
    read_only : str or None
        Why nothing can be written; None where it can.

    Raises
    ------
    ProjectError
        Not a project, damaged, of a newer version, or not openable.
    """

    def __init__(self, path: Path | None, create: bool, reading: bool = False) -> None:
        self.path = None if path is None else path.absolute()  # the process may go to another folder
        self.name = "The project in memory" if path is None else path.name
        self.read_only: str | None = None
        self.writing = threading.RLock()
        self._lock: FileLock | None = None
        self._writer: sqlite3.Connection | None = None
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue(_IDLE_READERS)
        self._closed = threading.Event()
        self._made = False  # the file is a new one
        self._accepted = False  # a file that turned out not to be ours is left as it is
        self._immutable = False
        self._watcher: sqlite3.Connection | None = None
        try:
            with translated(self.name):
                if path is None:
                    self._start_in_memory()
                else:
                    self._start(path, create, reading)
        except BaseException:
            self.close()
            if self._made and path is not None:
                path.unlink(missing_ok=True)
            raise

    # -- opening

    def _start_in_memory(self) -> None:
        self._writer = _connect(":memory:")
        self._migrate(self._writer, 0)

    def _start(self, path: Path, create: bool, reading: bool) -> None:
        check_companions(path)
        if create:
            _make(path)
            self._made = True
        else:
            _check_there(path)
        path = path.resolve()  # one file, one lock, whatever links lead to it; SQLite's files lie beside the file too
        self.read_only = "that was asked for" if reading else self._take_lock(path)
        if create and self.read_only is not None:
            raise ProjectError(f"{path} can't be made: {self.read_only}.")
        if self.read_only is None:
            self._writer = _connect(_uri(path, "rw"))
            self._prepare_writer(self._writer, create)
        else:
            self._immutable = not os.access(path.parent, os.W_OK) and not _has_log(path)
            with self.reading() as connection:
                self._check_schema(connection, may_migrate=False)
            self._watcher = self._connect_reader()

    def _take_lock(self, path: Path) -> str | None:
        """Take the right to write; the reason where it can't be had."""
        if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
            return "the file or its folder can't be written; copy it to a folder of your own"
        lock = FileLock(path)
        try:
            if not lock.acquire():
                return "another session has it open; close it there first"
        except OSError as error:
            return f"no lock can be made beside it ({error.strerror}); copy it to a folder of your own"
        self._lock = lock
        return None

    def _prepare_writer(self, connection: sqlite3.Connection, create: bool) -> None:
        found = 0 if create else self._check_schema(connection, may_migrate=True)
        _set_journal(connection, self.path)
        if found < schema.version():
            self._migrate(connection, found)
        self._accepted = True

    def _check_schema(self, connection: sqlite3.Connection, may_migrate: bool) -> int:
        """Version of the file, once all its schema is known to be ours."""
        identity = connection.execute("PRAGMA application_id").fetchone()[0]
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if identity != schema.APPLICATION_ID:
            raise ProjectError(f"{self.name} is an SQLite file, but not one of our projects (application {identity}).")
        if found > schema.version():
            raise ProjectError(
                f"{self.name} has version {found}; this program reads up to {schema.version()}. Update napari-ivos."
            )
        if schema.content(connection) != schema.expected(found):
            strange = sorted(str(row[1]) for row in schema.content(connection) ^ schema.expected(found))
            raise ProjectError(
                f"{self.name} does not have the tables of a project of version {found} (look at "
                f"{', '.join(strange[:5])}): damaged, or made by somebody else. It is not opened."
            )
        if found < schema.version() and not may_migrate:
            raise ProjectError(
                f"{self.name} has the older version {found} and is to be opened once where it can be written; now it "
                f"can only be read: {self.read_only}."
            )
        return found

    def _migrate(self, connection: sqlite3.Connection, found: int) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            schema.migrate(connection, found)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def move_to(self, path: Path) -> None:
        """Go on in a file that is not there yet, with everything that is in memory; readers notice nothing.

        Raises
        ------
        ProjectError
            It is in a file already, the new one exists or can't be made; nothing has changed then.
        """
        with self.writing:
            memory = self._memory()
            if self.path is not None:
                raise ProjectError(f"{self.name} is in a file already; copy that one when it is closed.")
            path = path.absolute()
            check_companions(path)
            with translated(path.name):
                _make(path)
                try:
                    writer = self._copied(memory, path)
                except BaseException:
                    if self._lock is not None:
                        self._lock.release()
                        self._lock = None
                    path.unlink(missing_ok=True)
                    raise
            self._writer, self.name, self.path = writer, path.name, path
            self._accepted = True
            memory.close()

    def _copied(self, memory: sqlite3.Connection, path: Path) -> sqlite3.Connection:
        """A writer of a new, empty file that holds a copy of what is in memory."""
        reason = self._take_lock(path)
        if reason is not None:
            raise ProjectError(f"{path} can't be made: {reason}.")
        writer = _connect(_uri(path, "rw"))
        try:
            memory.backup(writer)
            _set_journal(writer, path)
        except BaseException:
            writer.close()
            raise
        return writer

    # -- using

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write, whole or not at all.

        Raises
        ------
        ReadOnlyProject
            Another process holds the project, or it can't be written.
        ProjectError
            Disk full, or another error of SQLite; nothing of this write is kept, everything before is.
        """
        with self.writing:
            connection = self._writer
            if connection is None:
                raise self._refusal()
            with translated(self.name):
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise

    def vacuum(self) -> int:
        """Shrink the file to what is in it; its size in bytes."""
        with self.writing, translated(self.name):
            connection = self._memory()
            allowed = connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 1)  # where SQLite writes the new file
            try:
                connection.execute("VACUUM")
            finally:
                connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, allowed)
            return database_size(connection)

    def _refusal(self) -> ProjectError:
        if self._closed.is_set():
            return ProjectError(f"{self.name} is closed; open it again with Session.open.")
        return ReadOnlyProject(f"{self.name} is open for reading only: {self.read_only}. Nothing was changed.")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read from; a file's readers have their own and never wait for the writer's work."""
        if self._closed.is_set():
            raise self._refusal()
        if self.path is None:
            with self.writing, translated(self.name):
                yield self._memory()
            return
        with translated(self.name):
            try:
                connection = self._readers.get_nowait()
            except queue.Empty:
                connection = self._connect_reader()
            try:
                yield connection
            finally:
                self._give_back(connection)

    def _memory(self) -> sqlite3.Connection:
        if self._writer is None:
            raise self._refusal()
        return self._writer

    def _connect_reader(self) -> sqlite3.Connection:
        if self.path is None:
            raise ValueError("a project in memory has no readers of its own")
        connection = _connect(_uri(self.path, "ro", self._immutable))
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if not self._closed.is_set():
            try:
                self._readers.put_nowait(connection)
            except queue.Full:
                connection.close()
            else:
                if self._closed.is_set():
                    self._close_readers()
            return
        connection.close()

    def foreign_version(self) -> int:
        """A number that changes when another process wrote to a project that is open here for reading only."""
        watcher = self._watcher
        if watcher is None:
            return 0
        with self.writing, translated(self.name):
            return int(watcher.execute("PRAGMA data_version").fetchone()[0])

    # -- the end

    def close(self) -> None:
        """Fold everything into the one file and let go of it; may be called twice."""
        with self.writing:
            self._closed.set()
            self._close_readers()
            if self._watcher is not None:
                self._watcher.close()
                self._watcher = None
            writer, self._writer = self._writer, None
            try:
                if writer is not None:
                    self._fold(writer)
            finally:
                if self._lock is not None:
                    self._lock.release()
                    self._lock = None

    def _close_readers(self) -> None:
        while True:
            try:
                self._readers.get_nowait().close()
            except queue.Empty:
                return

    def _fold(self, writer: sqlite3.Connection) -> None:
        try:
            if self._accepted and self.path is not None and not writer.in_transaction:
                writer.execute("PRAGMA busy_timeout = 100")
                writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                writer.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:  # somebody still reads, or the disk is full: the log stays, nothing is lost
            _log.info("%s keeps its write-ahead log: %s", self.name, error)
        finally:
            writer.close()


def database_size(connection: sqlite3.Connection) -> int:
    """Bytes that a database takes."""
    pages, size = (connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
    return int(pages) * int(size)


def copy_database(connection: sqlite3.Connection, path: Path) -> None:
    """Copy a database, as one reader sees it, to a file that is not there yet."""
    _make(path)
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as copy:
            connection.backup(copy)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def replace_database(path: Path, new: Path) -> None:
    """Put a closed database in the place of another one, once that has no log left that would be taken for its own."""
    old = Storage(path, create=False)
    try:
        reason = old.read_only
    finally:
        old.close()
    if reason is None and path.with_name(path.name + "-wal").exists():
        reason = "another program reads it; close it there first"
    if reason is not None:
        raise ProjectError(f"{path} is to be made anew, and can't be: {reason}. Then run it again.")
    os.replace(new, path)  # noqa: PTH105 - as a project is made: whole or not at all


def _connect(target: str) -> sqlite3.Connection:
    """Connect with everything off that a file could use against its reader."""
    connection = sqlite3.connect(
        target, timeout=_PATIENCE, isolation_level=None, check_same_thread=False, uri=target.startswith("file:")
    )
    if sys.version_info >= (3, 12):  # before, the exact comparison of the schema has to do
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        for setting in (sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER, sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW):
            connection.setconfig(setting, False)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA mmap_size = 0")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _BLOB_LIMIT)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _SQL_LIMIT)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 0)
    return connection


def _set_journal(connection: sqlite3.Connection, path: Path | None) -> None:
    """A write-ahead log, so that readers never wait; on a network path, where that is not safe, a rollback journal."""
    mode = "DELETE" if path is not None and on_network(path) else "WAL"
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("PRAGMA synchronous = EXTRA")  # FULL; and a deleted rollback journal stays deleted
    connection.execute("PRAGMA journal_size_limit = 67108864")


def _uri(path: Path, mode: str, immutable: bool = False) -> str:
    place = path.resolve().as_posix()
    place = place if place.startswith("/") else "/" + place
    return f"file:{quote(place)}?mode={mode}" + ("&immutable=1" if immutable else "")


def _has_log(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0


def _make(path: Path) -> None:
    """Create an empty file, never over another one."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError as error:
        raise ProjectError(
            f"{path} exists. Session.open({str(path)!r}) opens a project; choose another name for a new one."
        ) from error
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        hint = "check that its folder is there" if missing else "choose a folder that can be written"
        raise ProjectError(f"{path} can't be made ({error.strerror}): {hint}.") from error


def _check_there(path: Path) -> None:
    """Look at the file without opening it: closing it again would drop SQLite's locks on it in this process."""
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise ProjectError(
            f"There is no project {path}. Check the spelling; a new one is made by Session(stack, model, project=...), "
            "on the command line by segment --project."
        ) from error
    except OSError as error:
        raise ProjectError(f"{path} can't be read ({error.strerror}).") from error
    if path.is_dir():
        raise ProjectError(f"{path} is a folder, not a project file.")
    if size == 0:
        raise ProjectError(f"{path.name} is not a project: it is empty.")
