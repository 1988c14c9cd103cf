"""Who may write: a lock that dies with its process, and the question whether a path is on a network.

The lock is a small file beside the project, held by the operating system for as long as the process lives; what stays
of it after a kill is an empty file that the next writer takes over. SQLite's own locks would also keep out the readers
of the same process, and a lock on the project file itself would drop them (POSIX forgets all of a process's locks on a
file when any descriptor of it is closed).
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from pathlib import Path

_log = logging.getLogger(__name__)

NETWORK_FILE_SYSTEMS = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "afpfs", "ncpfs", "9p", "webdav", "davfs"),
        *("ceph", "glusterfs", "lustre", "beegfs", "gpfs", "drvfs", "vboxsf"),
        *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone"),
    }
)
"""File systems whose shared memory and locks SQLite's write-ahead log can't rely on."""

if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}


class FileLock:
    """The right to write a project; taken at most once, by one process, until `release` or its end.

    Parameters
    ----------
    project : Path
        The project file; the lock is the file beside it with "-lock" added to its name.
    """

    def __init__(self, project: Path) -> None:
        self.path = project.with_name(project.name + "-lock")
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock; False where somebody else has it.

        Raises
        ------
        OSError
            The file can't be made there: a read-only folder.
        """
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            try:
                _take(descriptor)
            except OSError as error:
                if error.errno in _BUSY:
                    os.close(descriptor)
                    return False
                _log.warning(
                    "%s: this file system knows no locks (%s); two writers would not notice.", self.path, error
                )
            if self._is_current(descriptor):
                self._descriptor = descriptor
                return True
            os.close(descriptor)  # its last holder took the file away between our opening and locking it

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give it back and take the file away."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            if sys.platform != "win32":
                self.path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
        if sys.platform == "win32":  # an open file can't be removed there, and another process may have opened it
            try:
                self.path.unlink(missing_ok=True)
            except PermissionError:
                _log.debug("%s is in use by the next writer and stays.", self.path)


def on_network(path: Path) -> bool:
    """Whether a path lies on a file system that other machines share."""
    if sys.platform == "win32":
        import ctypes

        drive = Path(path).resolve().drive
        return drive.startswith("\\\\") or ctypes.windll.kernel32.GetDriveTypeW(drive + "\\") == 4
    return file_system(path, Path("/proc/self/mounts")) in NETWORK_FILE_SYSTEMS


def file_system(path: Path, table: Path) -> str:
    """Type of the file system that holds a path, from a table of mounts; "" where there is none."""
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    place = path.resolve()
    best, found = -1, ""
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount = Path(fields[1].encode("latin-1", "surrogateescape").decode("unicode_escape"))
        if place.is_relative_to(mount) and len(mount.parts) >= best:
            best, found = len(mount.parts), fields[2]
    return found
