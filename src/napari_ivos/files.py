"""Files that are there whole, or as they were; and where a path leads."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from napari_ivos.errors import InputError


def from_home(path: str | os.PathLike[str]) -> Path:
    """A path with its leading ~ as the user's home; a name that only begins so, as ~x.tif, stays."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user
        return Path(path)


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file so that it is there whole, also after a power cut, or as it was before.

    Parameters
    ----------
    path : Path
        The file; its folder must be there.
    data : bytes
        All that it will hold.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    InputError
        The disk is full, or the folder can't be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # a name that is too long is that of no file, but an error here, too
            scratch.unlink(missing_ok=True)
        said = error.strerror or error
        raise InputError(f"{path} can't be written ({said}); an earlier one is as it was.") from error
    return path
