"""The errors this package raises on purpose: one tree, each message a letter to its reader.

::

    IvosError
    ├── InputError (also a ValueError)   what was handed in can't be used: files, axes, strokes, arguments
    │   └── FrameReadError               one frame of a stack can't be read; `.frame` says which
    ├── WeightsError                     a model that is unknown, damaged, or of another architecture
    ├── ProjectError                     a project file that can't be opened, read or written
    │   └── ReadOnlyProject              a write to a project that another process holds, or that can't be written
    ├── SessionBusy                      a session asked for a second thing while it does the first
    └── OutOfMemory                      the device or the machine ran out of memory

None derives from `RuntimeError`: superqt's generator workers swallow those, and a user would wait for ever.
"""

from __future__ import annotations


class IvosError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(IvosError, ValueError):
    """What was handed in can't be used; the message says what was found and what to do."""


class FrameReadError(InputError):
    """One frame of a stack can't be read.

    Parameters
    ----------
    message : str
        What was found and what to do.
    frame : int
        Index of the frame.
    """

    def __init__(self, message: str, frame: int) -> None:
        super().__init__(message)
        self.frame = frame

    def __reduce__(self) -> tuple[type[FrameReadError], tuple[str, int]]:
        """Errors of workers travel to who waits for them."""
        return type(self), (str(self), self.frame)


class WeightsError(IvosError):
    """A model that is unknown, damaged, or of another architecture."""


class ProjectError(IvosError):
    """A project file that can't be opened, read or written."""


class ReadOnlyProject(ProjectError):
    """A write to a project that is open for reading only."""


class SessionBusy(IvosError):
    """A session was asked for something while something else runs in it."""


class OutOfMemory(IvosError):
    """The device, or the machine, ran out of memory."""
