"""The one door: `export` chooses the format, and puts the result in its place only when it is whole."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_ivos.errors import InputError, IvosError
from napari_ivos.export import coco, images, pictures, table
from napari_ivos.export.content import Content
from napari_ivos.files import from_home
from napari_ivos.frames import files_of
from napari_ivos.wording import REPLACING

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

Progress = Callable[[int, int], None]
"""Called with the number of frames that are done and of all."""


@dataclass(frozen=True)
class Format:
    """One kind of export.

    Parameters
    ----------
    name : str
        As `export` and the command line call it.
    write : callable
        ``write(content, path, tick, **options)``; the path doesn't exist yet, its folder does.
    suffixes : tuple of str
        Endings that mean this format where none is named; the first is the usual one. Empty for folders.
    entries : str, optional
        Folders only: pattern of the names that such a folder holds. One that holds others is never replaced.
    words : str
        What it is, in a few words.
    module, extra : str, optional
        A module that it needs beside the base installation, and the extra that brings it.
    """

    name: str
    write: Callable[..., None]
    suffixes: tuple[str, ...]
    words: str
    entries: str | None = None
    module: str = ""
    extra: str = ""

    @property
    def installed(self) -> bool:
        """Whether all that it needs is there."""
        return not self.module or find_spec(self.module) is not None


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("ome-tiff", images.ome_tiff, (".ome.tif", ".tif", ".tiff"), "labels as one OME-TIFF"),
        Format("ome-zarr", images.ome_zarr, (".zarr",), "labels as OME-Zarr 0.5", r"zarr\.json|\d+"),
        Format("davis", images.davis, (), "a folder of palette PNGs, as DAVIS has them", r"\d{5,}\.png"),
        Format("coco", coco.coco, (".json",), "COCO annotations with run lengths"),
        Format("ctc", images.ctc, (), "Cell Tracking Challenge masks and tracks", r"mask\d{3,}\.tif|res_track\.txt"),
        Format("video", pictures.video, (".mp4",), "the masks over the frames, as MP4", module="av", extra="video"),
        Format("contact-sheet", pictures.contact_sheet, (".png",), "frames with their masks on one picture"),
        Format("table", table.table, (".csv",), "area, place, intensity and quality of each object on each frame"),
    )
}
"""All formats by name."""


class Written(NamedTuple):
    """What an export wrote: where, in which format, of how many frames, and what is to be known about it."""

    path: Path
    format: str
    frames: int
    notes: tuple[str, ...]


def format_of(path: str | os.PathLike[str], name: str | None = None) -> Format:
    """Find the format that is named, or else meant by a path's ending.

    Raises
    ------
    InputError
        An unknown name, or an ending that means none; the message lists what there is.
    """
    if name is not None:
        if name not in FORMATS:
            raise InputError(f"Unknown export format {name!r}; there are {', '.join(FORMATS)}.")
        return FORMATS[name]
    target = Path(path).name.lower()
    for known in FORMATS.values():
        if any(target.endswith(suffix) for suffix in known.suffixes):
            return known
    endings = ", ".join(f"{f.suffixes[0]} ({f.name})" for f in FORMATS.values() if f.suffixes)
    folders = " or ".join(f.name for f in FORMATS.values() if not f.suffixes)
    raise InputError(
        f"{path}: its ending doesn't say which format is meant. Use one of {endings}, or name the format: {folders}."
    )


def check_target(path: str | os.PathLike[str], format: str | None = None, overwrite: bool = False) -> None:  # noqa: A002
    """Find out before a long job whether its export will have a place.

    Raises
    ------
    InputError
        An unknown format, one whose package isn't installed, or something at `path` that is not to be replaced.
    """
    _check_possible(from_home(path), format_of(path, format), overwrite)


def check_apart(target: Path, frames: Path | None, others: Mapping[str, Path | None]) -> None:
    """Refuse to put an export where it would take the place of what it is made from, whatever may be overwritten.

    Parameters
    ----------
    target : Path
        Where the export would be.
    frames : Path or None
        File or folder of the frames.
    others : mapping of str to Path
        What else is read, by what it is called: "the scribbles".

    Raises
    ------
    InputError
        It would; or it would lie among the images of a folder, and be taken for a frame.
    """
    for what, path in {"the frames": frames, **others}.items():
        if isinstance(path, Path) and (path.resolve().is_relative_to(target.resolve()) or _same(path, target)):
            raise InputError(f"{target} is, or holds, {what}, which would be lost; choose another name for the export.")
    if not isinstance(frames, Path) or not frames.is_dir():
        return
    root, place = frames.resolve(), target.parent.resolve() / target.name
    if root in place.parents and _among(place, root):
        raise InputError(
            f"{target} lies among the frames in {frames}, and would be one of them; choose another folder."
        )


def _same(one: Path, other: Path) -> bool:
    """Whether two names are of one file, as those that differ in case only are on many disks."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False


def _among(place: Path, root: Path) -> bool:
    """Whether a file of the frames in a folder is in this place or below it, or one there would be taken for such."""
    files = files_of(root)
    if place.exists() and any(file.is_relative_to(place) for file in files):
        return True
    return place.parent == root and any(place.suffix.lower() == file.suffix.lower() for file in files[:1])


def export(
    source: Any,
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Written:
    """Write labels and objects in a format that other programs read.

    Works frame by frame, in memory that does not grow with their number. Nothing appears at `path` before it is whole;
    what is there stays until then.

    Parameters
    ----------
    source : Session or Content
        A session, or anything with `labels`, and `objects`, `quality` and `stack` where it has them.
    path : path
        File or folder to write; folders above it are made.
    format : str, optional
        A name in `FORMATS`; by default the path's ending says it.
    overwrite : bool
        Whether to replace what is at `path`: a file, or a folder that holds an earlier export of the same format and
        nothing else.
    progress : callable, optional
        Called as ``progress(done, all)`` after each frame; what it raises ends the export, and nothing is left of it.
    **options
        Of the format: ``fps`` and ``title`` (video), ``count`` and ``title`` (contact-sheet), ``compressed`` (coco).

    Returns
    -------
    Written
        With notes on what could not be shown: frames that can't be read, parents that can't be written.

    Raises
    ------
    InputError
        An unknown format or option, something at `path` already, content that the format can't hold, or a place that
        can't be written.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> labels = np.zeros((3, 20, 30), np.uint16)
    >>> labels[:, 5:9, 5:9] = 1
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(Content(labels), f"{folder}/cells.csv").frames
    3
    """
    target, chosen = from_home(path), format_of(path, format)
    _check_options(chosen, options)
    stack = getattr(source, "stack", None)
    check_apart(target, getattr(stack, "source", None), {"the project": getattr(source, "path", None)})
    content = replace(Content.of(source), notes=[])
    frames = content.shape[0]

    def tick(done: int) -> None:
        if progress is not None:
            progress(done, frames)

    with _in_place(target, chosen, overwrite) as scratch:
        chosen.write(content, scratch, tick, **options)
    return Written(target, chosen.name, frames, tuple(dict.fromkeys(content.notes)))


def _check_options(chosen: Format, options: dict[str, Any]) -> None:
    import inspect

    known = list(inspect.signature(chosen.write).parameters)[3:]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InputError(
            f"The format {chosen.name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}."
        )


@contextmanager
def _in_place(target: Path, chosen: Format, overwrite: bool) -> Iterator[Path]:
    """Give a path to write to, in the same folder; put what is there in place of `target` at the end."""
    _check_possible(target, chosen, overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=target.parent) as folder:
            scratch = Path(folder) / target.name
            yield scratch
            _check_possible(target, chosen, overwrite)
            _put(scratch, target, Path(folder) / "replaced")
    except IvosError:
        raise
    except OSError as error:
        raise InputError(
            f"{target} can't be written: {error.strerror or error} ({_room(target)}). Nothing was left there; make "
            "room, or choose another place."
        ) from error


def _put(scratch: Path, target: Path, aside: Path) -> None:
    """Give `scratch` the name `target`; a folder of that name goes aside, and back if anything fails."""
    if not target.is_dir():
        scratch.replace(target)
        return
    target.rename(aside)
    try:
        scratch.rename(target)
    except OSError:
        aside.rename(target)
        raise


def _check_possible(target: Path, chosen: Format, overwrite: bool) -> None:
    if not chosen.installed:
        raise InputError(
            f"The format {chosen.name} needs the module {chosen.module}, which is not installed. "
            f"Run: pip install 'napari-ivos[{chosen.extra}]'."
        )
    if not target.name:
        raise InputError(f"{target} is no name for an export; give a file or a folder to be made.")
    try:
        there = target.exists()
    except OSError as error:
        raise InputError(f"{str(target)[:200]} can't be looked for ({error.strerror}): choose another name.") from error
    if not there:
        return
    if not overwrite:
        raise InputError(f"{target} exists already. Choose another name, or replace it ({REPLACING}).")
    if not target.is_dir():
        if chosen.entries is not None:
            raise InputError(f"{target} is a file, and {chosen.name} makes a folder; choose another name.")
        return
    if chosen.entries is None:
        raise InputError(f"{target} is a folder, and {chosen.name} makes a file; choose another name.")
    others = [entry.name for entry in target.iterdir() if not re.fullmatch(chosen.entries, entry.name)]
    if others:
        raise InputError(
            f"The folder {target} holds more than an export as {chosen.name} ({', '.join(sorted(others)[:3])}), so it "
            "is not replaced; choose another name."
        )


def _room(target: Path) -> str:
    there = next((p for p in (target.parent, *target.parent.parents) if p.exists()), Path())
    return f"{shutil.disk_usage(there).free / 2**20:.0f} MB are free"
