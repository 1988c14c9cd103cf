"""Frames that the user says are right although nobody annotated them: kept in the project, with the masks they are for.

A frame is accepted as long as its masks are those that were looked at; a later round that writes other masks there ends
that, and undoing the round brings it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_ivos.errors import ProjectError

if TYPE_CHECKING:
    from napari_ivos.project import Project

_KEY = "accepted"


def accepted(project: Project) -> frozenset[int]:
    """The frames that are accepted now."""
    return frozenset(frame for frame, rows in _kept(project).items() if rows == _shown(project, frame))


def accept(project: Project, frame: int, on: bool) -> None:
    """Keep that a frame is right with the masks that it has now, or that it is not."""
    kept = _kept(project)
    kept.pop(frame, None)
    if on:
        kept[frame] = _shown(project, frame)
    with project.transaction() as writer:
        writer.set_meta(_KEY, {str(f): rows for f, rows in kept.items()})


def _shown(project: Project, frame: int) -> list[int]:
    """Which stored masks a frame shows."""
    return sorted(row.id for row in project.rows(frame).values())


def _kept(project: Project) -> dict[int, list[int]]:
    found: Any = project.meta(_KEY, {})
    frames = project.shape[0]
    if not isinstance(found, dict) or not all(_is_entry(frame, rows, frames) for frame, rows in found.items()):
        raise ProjectError(
            f"{project.name} is damaged: its entry {_KEY!r} is not a list of masks for each frame. Restore it from a "
            "copy."
        )
    return {int(frame): rows for frame, rows in found.items()}


def _is_entry(frame: str, rows: Any, frames: int) -> bool:
    """Whether this is one of the stack's frames with its masks."""
    known = frame.isascii() and frame.isdecimal() and len(frame) < 19 and int(frame) < frames
    return known and isinstance(rows, list) and all(type(row) is int for row in rows)
