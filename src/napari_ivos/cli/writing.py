"""Outputs: the files that a command writes, with progress."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from napari_ivos.export import export
from napari_ivos.session.exporting import Target, plan, usual

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ivos.cli.output import Output

__all__ = ["Target", "plan", "usual", "write"]


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
