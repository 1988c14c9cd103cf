"""The stack as a session needs it, and whether it is the one that a project was made from."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Protocol, cast

from napari_ivos.errors import InputError, ProjectError
from napari_ivos.steps import DOUBTS_GREY, DOUBTS_SECTION

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from napari_ivos.regions import Box


class Stack(Protocol):
    """What a session asks of a stack; `FrameStack` is one."""

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def name(self) -> str: ...
    @property
    def source(self) -> Path | None: ...
    @property
    def contrast(self) -> Any: ...
    @contrast.setter
    def contrast(self, value: Any) -> None: ...
    @property
    def contrast_known(self) -> bool: ...

    def read(self, frame: int, box: Box | None = None) -> npt.NDArray[np.float32]: ...
    def raw(self, frame: int, box: Box | None = None) -> npt.NDArray[Any]: ...
    def prefetch(self, frame: int, box: Box | None = None) -> None: ...
    def fingerprint(self) -> str: ...
    def describe(self) -> dict[str, Any]: ...
    def close(self) -> None: ...


def doubts_that_end(stack: Stack) -> int:
    """How many doubted masks in a row are an object's last in this stack; 0: none are, for what is hidden comes back.

    That is so in a film of the world, which is in colour. Sections through a solid have ends, and under a microscope,
    which sees in grey (whether or not that is stored in colours), little comes back.
    """
    facts = stack.describe()
    if facts.get("open", {}).get("frame_axis") == "Z":
        return DOUBTS_SECTION
    grey = getattr(stack, "colourless", len(facts.get("channels", ())) == 1)
    return DOUBTS_GREY if grey else 0


def told_by_looks(stack: Stack) -> bool:
    """Whether objects of this stack can be told by what they look like: a film of the world, in the camera's colours.

    Under a microscope, in whatever colours, one object looks like the next.
    """
    return bool(getattr(stack, "pictured", False)) and doubts_that_end(stack) == 0


OPTIONS = ("axes", "channels", "index", "contrast", "frame_axis")
"""What a project keeps of how its stack was opened."""


def as_stack(frames: Any, kept: Any = None) -> tuple[Stack, bool]:
    """A stack of whatever was given, and whether it was opened here (and is to be closed here).

    Parameters
    ----------
    frames : stack, array or path
        Anything but a stack goes through `open_frames`.
    kept : mapping, optional
        How a project says that it was opened; a stranger may have written it.
    """
    if callable(getattr(frames, "prefetch", None)) and callable(getattr(frames, "fingerprint", None)):
        return cast("Stack", frames), False
    from napari_ivos.frames import open_frames

    options = {name: kept[name] for name in OPTIONS if name in kept} if isinstance(kept, dict) else {}
    try:
        return open_frames(frames, **options), True
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        if not options or isinstance(error, InputError):
            raise
        raise ProjectError(
            f"What the project says of its stack's axes can't be used ({error!r}): {options}."
        ) from error


def identity(stack: Stack, project: Path | None) -> dict[str, Any]:
    """What a project keeps to know its stack again.

    Returns
    -------
    dict
        `name`, `fingerprint`, `options` for `open_frames`, and `path`: relative to the project's folder, None where
        there is none (arrays, another drive, no project file).
    """
    path = None
    if project is not None and stack.source is not None:
        try:
            path = Path(os.path.relpath(stack.source, project.parent)).as_posix()
        except ValueError:  # another drive
            path = None
    options = stack.describe().get("open", {})
    return {"name": stack.name, "fingerprint": stack.fingerprint(), "path": path, "options": options}


def find(kept: Mapping[str, Any], project: Path | None) -> Path | None:
    """The stack's file, where the project says that it is; None where it isn't there.

    Only a path relative to the project file is tried: a stranger's project must not make this machine look anywhere
    else.
    """
    path = kept.get("path")
    if project is None or not isinstance(path, str) or not path:
        return None
    windows = PureWindowsPath(path)
    if PurePosixPath(path).is_absolute() or windows.drive or windows.root or "://" in path or "\0" in path:
        return None
    place = project.parent / path
    if not place.exists():
        return None
    short = Path(os.path.normpath(place))  # without "..", as people read it; behind a link that may be another file
    return short if short.exists() and short.samefile(place) else place


def check_same(stack: Stack, shape: tuple[int, int, int], kept: Mapping[str, Any], force: bool) -> None:
    """Refuse a stack that a project was not made from.

    Raises
    ------
    InputError
        Its shape is another.
    ProjectError
        Its content is another, and `force` is not set.
    """
    name = kept.get("name", "the stack")
    if tuple(stack.shape) != tuple(shape):
        raise InputError(
            f"{stack.name} has {_words(stack.shape)}; this project was made from {name} with {_words(shape)}. "
            "Give that stack: as frames= in Python, as INPUT or --frames on the command line."
        )
    if not force and stack.fingerprint() != kept.get("fingerprint"):
        raise ProjectError(
            f"{stack.name} has the shape of {name}, from which this project was made, but other pixels: their "
            f"fingerprint is {stack.fingerprint()} and should be {kept.get('fingerprint')}. Give the right stack as "
            "frames=, or force=True (on the command line: --force) to take this one."
        )


def agree(stack: Stack, kept: Mapping[str, Any]) -> tuple[Stack, dict[str, Any] | None]:
    """A stack and its project, of one mind about times (T) or sections (Z).

    Returns
    -------
    stack
        Along what the project says, where that of the stack is only assumed.
    dict or None
        What the project is to keep from now on, where the stack knows better.
    """
    opened, options = stack.describe().get("open", {}), kept.get("options")
    now, before = opened.get("frame_axis"), options.get("frame_axis") if isinstance(options, dict) else None
    if [now, before] not in (["T", "Z"], ["Z", "T"]):  # a stranger may have written anything there
        return stack, None
    if not getattr(stack, "assumed", False):
        return stack, {**kept, "options": opened}
    from napari_ivos.frames import open_frames

    letters = opened["axes"]
    if before in letters:
        return stack, None
    index = {letter: at for letter, at in opened["index"].items() if letter in letters}  # no series: it was chosen
    options = {**opened, "axes": letters.replace(now, before), "frame_axis": before, "index": index}
    return open_frames(stack, **options), None


def _words(shape: tuple[int, int, int]) -> str:
    return f"{shape[0]} frames of {shape[1]} x {shape[2]} px"
