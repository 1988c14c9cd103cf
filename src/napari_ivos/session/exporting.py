"""From a session to its exports: which files, under which names, checked before a long job starts.

The export package is above this one and reads sessions from outside. The arrow from here to there is drawn at run time
only, and only in this place, so that `session.export(...)` and a batch read as people expect while no module of the
engine depends on a file format.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_ivos.errors import InputError
from napari_ivos.files import from_home

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {
    "ome-tiff": "labels.ome.tif",
    "ome-zarr": "labels.zarr",
    "davis": "davis",
    "coco": "labels.json",
    "ctc": "ctc",
    "video": "overlay.mp4",
    "contact-sheet": "contact_sheet.png",
    "table": "objects.csv",
}
"""What each format is called in a folder of results."""
USUAL = ("ome-tiff", "video", "contact-sheet", "table")
"""What a folder of results holds where no format is named."""


class Target(NamedTuple):
    """One thing to write."""

    path: Path
    format: str


def exporter() -> Any:
    """The export package."""
    return importlib.import_module("napari_ivos.export")


def plan(path: Path, formats: str | None, overwrite: bool, folder: bool = False) -> list[Target]:
    """Decide what is written where.

    Parameters
    ----------
    path : Path
        As given: a file or folder of one format, or a folder for several.
    formats : str or None
        Comma-separated names. None: the path's ending says it; a path without ending is a folder of the usual ones.
    overwrite : bool
        Whether earlier results may be replaced.
    folder : bool
        The path is a folder, for one format too.

    Raises
    ------
    InputError
        Unknown formats, or something in the way.
    """
    export, path = exporter(), from_home(path)
    names = None if formats is None else [name.strip() for name in formats.split(",") if name.strip()]
    if names is not None and not names:
        raise InputError(f"--format {formats!r} names no format; there are {', '.join(export.FORMATS)}.")
    if names is None:
        several = folder or not path.suffix
        names = usual() if several else [export.format_of(path).name]
    else:
        names = list(dict.fromkeys(export.format_of(path, name).name for name in names))
        several = folder or len(names) > 1
    targets = [Target(path / NAMES[name] if several else path, name) for name in names]
    if several and path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; name a folder for {', '.join(names)}.")
    for target in targets:
        export.check_target(target.path, target.format, overwrite)
    return targets


def usual() -> list[str]:
    """What a folder of results holds where no format is named: the video where PyAV is installed."""
    formats = exporter().FORMATS
    return [name for name in USUAL if formats[name].installed]
