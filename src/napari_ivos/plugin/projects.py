"""Where a project lies, which file a layer comes from, and the session of both; no Qt."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from napari_ivos.errors import InputError, IvosError, ProjectError
from napari_ivos.plugin import geometry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_ivos.frames import FrameStack
    from napari_ivos.plugin.geometry import Layout
    from napari_ivos.session import Session
    from napari_ivos.session.stacks import Stack

SUFFIX = ".ivos"
UNSAVED = "NOTHING IS SAVED"
"""How a note begins that says so."""
HINTS = "napari_ivos"
"""Key of a layer's metadata under which we say where its frames are ("file"), and its project."""


def default_folder() -> Path:
    """Where projects go whose stack has no folder that can be written."""
    return Path.home() / "napari-ivos"


@dataclass(frozen=True)
class Choice:
    """What is to be segmented.

    Parameters
    ----------
    image : Image
    layout : Layout
    channels : tuple of int, optional
        Of the layer's channel axis; None: as `open_frames` does it.
    more : tuple of Image
        Further layers of the same shape, as channels.
    """

    image: Image
    layout: Layout
    channels: tuple[int, ...] | None = None
    more: tuple[Image, ...] = ()


def stack_file(image: Image) -> Path | None:
    """The file or folder that a layer comes from, as far as the layer says so."""
    source = getattr(image.source, "path", None)
    hints = image.metadata.get(HINTS)
    named = source or (hints.get("file") if isinstance(hints, dict) else None)
    path = None if not named else Path(str(named))
    return path if path is not None and path.exists() else None


def project_path(image: Image, folder: Path | None = None) -> Path:
    """Where the project of a layer belongs: beside its stack, else in `folder` (default: `default_folder`).

    A layer that was made for a project belongs to that one.
    """
    source = getattr(image.source, "path", None)
    hints = image.metadata.get(HINTS)
    if folder is None and isinstance(hints, dict) and "project" in hints:
        return Path(str(hints["project"]))
    name = _stem(Path(source).name if source else image.name) + SUFFIX
    if folder is None and source and os.access(Path(source).parent, os.W_OK):
        return Path(source).absolute().with_name(name)
    return (folder or default_folder()) / name


def folder_to_open(image: Image | None) -> Path:
    """Where a project is looked for first: where that of a layer belongs; else where one is, here or in our folder."""
    if image is not None:
        return project_path(image).parent
    here, ours = Path.cwd(), default_folder()
    return next((folder for folder in (here, ours) if any(folder.glob(f"*{SUFFIX}"))), here)


def _stem(name: str) -> str:
    """A name for a file: without endings that say the format, and without what file systems don't like."""
    short = re.sub(r"(\.ome)?\.(tiff?|zarr|mp4|avi|mov|mkv|webm|npy|png|jpe?g)$", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^\w\-. ()]+", "_", short).strip(" .") or "stack"


def free_name(path: Path) -> Path:
    """The path, or with -2, -3 ... what is free."""
    number, free = 1, path
    while os.path.exists(free):  # noqa: PTH110 - not a name that is too long: making the project says so
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def namesakes(path: Path) -> list[Path]:
    """The projects that `free_name` gave this path or one beside it, the last changed first."""
    name = re.compile(rf"{re.escape(path.stem)}(-\d+)?{re.escape(path.suffix)}")
    found = [p for p in path.parent.iterdir() if name.fullmatch(p.name)] if path.parent.is_dir() else []
    return sorted(found, key=lambda p: p.stat().st_mtime_ns, reverse=True)


def stack_of(choice: Choice) -> FrameStack:
    """The frames of a choice: from its file where that holds the same, so that the project can find it again."""
    from napari_ivos.frames import open_frames

    if choice.more:
        layers = [choice.image, *choice.more]
        options = choice.layout.options()
        arrays = geometry.ChannelStack([geometry.full_data(layer) for layer in layers])
        return open_frames(arrays, **{**options, "axes": "C" + options["axes"]})
    options = {**choice.layout.options(), "channels": choice.channels}
    shown = open_frames(geometry.full_data(choice.image), **options)
    shown.assumed = choice.layout.assumed
    file = stack_file(choice.image)
    found = None if file is None else _from_file(file, shown, options)
    return shown if found is None else found


def _from_file(file: Path, shown: FrameStack, options: dict[str, Any]) -> FrameStack | None:
    """The stack of a file, if it is the one that is shown."""
    from napari_ivos.frames import open_frames

    try:
        stack = open_frames(file, channels=options["channels"], index=options["index"] or None)
        letter = options["frame_axis"]
        if stack.assumed and letter is not None and letter not in stack.axes:  # the user says z
            found = stack.axes.replace("T", letter)
            stack.close()
            stack = open_frames(file, axes=found, channels=options["channels"], index=options["index"] or None)
    except InputError:
        return None  # read by another plugin, from a format that we don't read or with other axes
    if stack.shape == shown.shape and stack.dtype == shown.dtype and _same_pixels(stack, shown):
        return stack
    stack.close()
    return None


def _same_pixels(one: FrameStack, other: FrameStack) -> bool:
    import numpy as np

    from napari_ivos.regions import Box

    frames, height, width = one.shape
    box = Box(height // 4, width // 4, min(height // 4 + 256, height), min(width // 4 + 256, width))
    return all(np.array_equal(one.raw(f, box), other.raw(f, box)) for f in {0, frames // 2, frames - 1})


def open_session(choice: Choice, path: Path | None, fresh: bool = False) -> tuple[Session, str]:
    """The session of a choice, and what is to be said about it.

    Of the projects that are at `path` or beside it already, the last changed that was made from this stack is gone on
    with, unless `fresh`. Else the session is in memory, and gets its file with the first stroke (`keep`): looking
    leaves nothing behind.
    """
    from napari_ivos.session import Session

    stack = stack_of(choice)
    if path is None:
        return Session(stack), "The project is only in memory: nothing is saved."
    refused = ""
    for found in [] if fresh else namesakes(path):
        seen = found.stat()
        try:
            return Session.open(found, frames=stack), f"Goes on with {found.name}."
        except (ProjectError, InputError) as error:
            with contextlib.suppress(OSError):  # opening it was no change
                os.utime(found, ns=(seen.st_atime_ns, seen.st_mtime_ns))
            if found == path:
                refused = f"{path.name} is not of this stack ({error}) A new project is begun beside it."
    if refused:
        return Session(stack), refused
    there = next((folder for folder in path.parents if folder.exists()), path.parent)
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Session(stack), f"{UNSAVED}: {path.parent} can't be written. Press Save project and choose a folder."
    return Session(stack), f"Draw a line on an object. From then on, everything is saved as {free_name(path)}."


def keep(session: Session, path: Path) -> str:
    """Give a session that is in memory its file: `path`, or a free name beside it; what is to be said about it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = free_name(path)
        session.save(target)
    except (OSError, ProjectError) as error:
        return f"{UNSAVED}: {path} can't be made ({error}). Press Save project and choose another folder."
    return f"Saved all the time as {target}. Next: another object, or Propagate."


def reopen(path: Path, images: Sequence[Image]) -> tuple[Session, str, Choice | None]:
    """The session of a project, and what is to be said about it.

    Where its frames are not where they were, they are those of the first of the layers that has them: the choice, else
    None.

    Raises
    ------
    IvosError
        None has them.
    """
    from napari_ivos.session import Session

    session = Session.open(path)
    if session.stack is not None:
        return session, f"Opened {path.name}.", None
    with session:
        found = _frames_among(images, session)
        if found is None:
            raise _lost(session)
    choice, stack = found
    return Session.open(path, frames=stack), f"Opened {path.name}, with the frames of {choice.image.name}.", choice


def missing(session: Session, images: Sequence[Image]) -> str:
    """What is to be said of a project whose frames are neither where they were nor those of a layer; else ""."""
    return "" if session.stack is not None or _frames_among(images, session) is not None else str(_lost(session))


def _lost(session: Session) -> IvosError:
    project, kept = "" if session.path is None else session.path.name, session.made_from
    if not kept.get("path"):
        return IvosError(
            f"The frames of {project} were not found: they had no file of their own, and no open image has them. Open "
            "or make that image in napari, then open the project again."
        )
    file = PurePosixPath(str(kept["path"])).name
    return IvosError(
        f"The frames of {project}, {file}, were not found: not where they were, and no open image has them. Open "
        f"{file} (File > Open), then the project again; or put it back where it was beside the project."
    )


def _frames_among(images: Sequence[Image], session: Session) -> tuple[Choice, FrameStack] | None:
    """The first of these layers that has a project's frames to the pixel, as it was opened for the project."""
    kept = session.made_from
    options = kept.get("options")
    options = options if isinstance(options, dict) else {}
    for image in images:
        try:  # a stranger may have written the options
            layout = _layout_in(image, session.shape, options)
            if layout is None:
                continue
            several = layout.rgb or layout.channel is not None
            choice = Choice(image, layout, tuple(options["channels"]) if several and "channels" in options else None)
            stack = stack_of(choice)
        except (InputError, TypeError, ValueError, OverflowError, AttributeError):
            continue
        if stack.fingerprint() == kept.get("fingerprint"):
            return choice, stack
        stack.close()
    return None


def copied_beside(session: Session, name: str) -> Path:
    """Where what is made from a project goes by default: beside it."""
    folder = default_folder() if session.path is None else session.path.parent
    return folder / name


def export_beside(session: Session) -> Path:
    """Where an export goes by default, without its ending: not where the stack is, which may have that ending, too."""
    return copied_beside(session, "labels" if session.path is None else f"{session.path.stem}_labels")


def image_of(session: Session) -> tuple[Any, dict[str, Any]]:
    """A lazy array of a session's frames, and how an image layer should show it.

    Frames that lie in a file are opened for it once more, because a layer outlives its session.

    Raises
    ------
    IvosError
        The stack was not found.
    """
    from napari_ivos.frames import open_frames

    if session.stack is None:
        raise _lost(session)
    stack = session.stack
    if stack.source is not None:
        stack = open_frames(stack.source, **stack.describe().get("open", {}))
    data = frames_array(stack)
    along = (frame_axis(stack) or "t").lower()
    options: dict[str, Any] = {"name": stack.name, "rgb": data.ndim == 4, "axis_labels": (along, "y", "x")}
    if data.ndim == 4 and not coloured(data):
        data = data.transpose(0, 3, 1, 2)
        options |= {"rgb": False, "axis_labels": (along, "c", "y", "x")}
    if stack.source is not None:
        options["metadata"] = {HINTS: {"file": str(stack.source), "project": str(session.path)}}
    return data, options


def frame_axis(stack: Stack) -> str | None:
    """Letter of the axis along which a stack's frames lie."""
    letter = stack.describe().get("open", {}).get("frame_axis")
    return None if letter is None else str(letter)


def found_in(viewer: ViewerModel, session: Session) -> Choice:
    """The layer of a session's frames, with their plane and axis: one that is there, or a new one."""
    from napari.layers import Image

    stack = session.stack
    for layer in viewer.layers:
        if isinstance(layer, Image) and stack is not None:
            file = stack_file(layer)
            opened = stack.describe().get("open", {})
            layout = _layout_in(layer, stack.shape, opened) if file is not None and file == stack.source else None
            if layout is not None:
                return Choice(layer, layout)
    data, options = image_of(session)
    image = Image(data, **options)
    viewer.add_layer(image)
    return Choice(image, geometry.layout_of(image))


def _layout_in(layer: Image, shape: tuple[int, ...], opened: Mapping[str, Any]) -> Layout | None:
    """The axes of a layer, held at the plane that frames of this shape are, as they were opened; None: not there."""
    try:
        layout = geometry.layout_of(layer)
    except InputError:
        return None
    along = [chosen for chosen in layout.frame_choices if chosen[1] == opened.get("frame_axis")]
    if along:
        layout = layout.with_frames_along(*along[0])
    index = opened.get("index") or {}
    at = {a: int(index.get(layout.letters[a], -1 if layout.shape[a] > 1 else 0)) for a in layout.held}
    fits = layout.stack_shape == tuple(shape) and all(0 <= i < layout.shape[a] for a, i in at.items())
    return replace(layout, held=at) if fits else None


def coloured(frames: Any) -> bool:
    """Whether the last axis of frames (T, H, W, C) is red, green and blue of a picture."""
    return bool(frames.shape[-1] in (3, 4) and frames.dtype == "uint8")


def frames_array(stack: Any) -> Any:
    """Frames as a dask array that reads one at a time: (T, H, W) or, for several shown channels, (T, H, W, 3)."""
    import dask.array as da
    import numpy as np

    first = stack.raw(0)
    dtype, shape = first.dtype, first.shape

    def read(block_info: Any = None) -> Any:
        frame = block_info[None]["array-location"][0][0]
        return np.asarray(stack.raw(frame), dtype)[None]

    chunks = ((1,) * stack.shape[0], *((n,) for n in shape))
    return da.map_blocks(  # type: ignore[no-untyped-call]
        read, chunks=chunks, dtype=dtype, meta=np.empty((0,) * (len(shape) + 1), dtype)
    )
