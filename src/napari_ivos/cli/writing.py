"""Outputs: which files a command is to write, checked before the work starts."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_ivos.errors import InputError
from napari_ivos.export import FORMATS, check_target, export, format_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_ivos.cli.output import Output

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


def plan(path: Path, formats: str | None, overwrite: bool) -> list[Target]:
    """Decide what is written where.

    Parameters
    ----------
    path : Path
        As given: a file or folder of one format, or a folder for several.
    formats : str or None
        Comma-separated names. None: the path's ending says it; a path without ending is a folder of the usual ones.
    overwrite : bool
        Whether earlier results may be replaced.

    Raises
    ------
    InputError
        Unknown formats, or something in the way.
    """
    names = None if formats is None else [name.strip() for name in formats.split(",") if name.strip()]
    if names is not None and not names:
        raise InputError(f"--format {formats!r} names no format; there are {', '.join(FORMATS)}.")
    if names is None:
        several = not path.suffix
        names = usual() if several else [format_of(path).name]
    else:
        names = list(dict.fromkeys(format_of(path, name).name for name in names))
        several = len(names) > 1
    targets = [Target(path / NAMES[name] if several else path, name) for name in names]
    if several and path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; name a folder for {', '.join(names)}.")
    for target in targets:
        check_target(target.path, target.format, overwrite)
    return targets


def usual() -> list[str]:
    """What a folder of results holds where no format is named; the video needs PyAV."""
    return [name for name in USUAL if name != "video" or find_spec("av") is not None]


def write(
    source: Any, targets: Sequence[Target], overwrite: bool, output: Output, title: str = ""
) -> list[dict[str, Any]]:
    """Write all targets, with progress, and say where they are.

    Returns
    -------
    list of dict
        path, format, notes and seconds of each, JSON-able.
    """
    written = []
    for target in targets:
        began = time.perf_counter()
        options = {"title": title} if title and target.format in ("video", "contact-sheet") else {}
        with output.progress(f"writing {target.format}", source.shape[0]) as show:
            result = export(
                source,
                target.path,
                target.format,
                overwrite=overwrite,
                progress=lambda done, _, show=show: show(done),  # type: ignore[misc]
                **options,
            )
        for note in result.notes:
            output.note(note)
        output.say(f"{target.format}: {result.path}")
        seconds = round(time.perf_counter() - began, 3)
        written.append(
            {
                "path": str(result.path),
                "format": result.format,
                "frames": result.frames,
                "seconds": seconds,
                "notes": list(result.notes),
            }
        )
    return written
