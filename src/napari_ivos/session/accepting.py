"""Frames that the user says are right although nobody annotated them: kept in the project, with the masks they are for.

A frame is accepted as long as its masks are those that were looked at; a later round that writes other masks there ends
that, and undoing the round brings it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_ivos.errors import ProjectError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_ivos.project import Project

_KEY = "accepted masks"
"""By frame, the [object, step] of each mask: no step makes a mask twice, and its number is never used again."""
_BY_ROW = "accepted"
"""Where projects were made before: by frame, the ids of the masks' rows, which are given again once masks were deleted.
They count as long as none were, and become steps with the next thing that is accepted or deleted."""
_ROWS = 1 << 63


def accepted(project: Project) -> frozenset[int]:
    """The frames that are accepted now."""
    return frozenset(frame for frame, masks in _kept(project).items() if masks == _shown(project, frame))


def accept(project: Project, frame: int, on: bool) -> None:
    """Keep that a frame is right with the masks that it has now, or that it is not."""
    kept = _kept(project)
    kept.pop(frame, None)
    if on:
        kept[frame] = _shown(project, frame)
    _keep(project, kept)


def bring_up_to_date(project: Project) -> None:
    """Keep what was accepted in a way that outlives the deletion of masks."""
    if project.meta(_BY_ROW):
        _keep(project, _kept(project))


def _keep(project: Project, kept: dict[int, list[list[int]]]) -> None:
    with project.transaction() as writer:
        writer.set_meta(_KEY, {str(frame): masks for frame, masks in kept.items()})
        writer.set_meta(_BY_ROW, {})


def _shown(project: Project, frame: int) -> list[list[int]]:
    """Which masks a frame shows."""
    return sorted([row.object_id, row.step] for row in project.rows(frame).values())


def _kept(project: Project) -> dict[int, list[list[int]]]:
    by_row = _read(project, _BY_ROW, lambda row: type(row) is int and 0 < row < _ROWS)
    kept: dict[int, list[list[int]]] = _read(project, _KEY, _is_mask)
    known = project.written_as([row for rows in by_row.values() for row in rows]) if by_row else {}
    for frame, rows in by_row.items():
        masks = [known[row] for row in rows if row in known]
        if len(masks) == len(rows) and all(mask[0] == frame for mask in masks):
            kept[frame] = sorted([object_id, step] for _, object_id, step in masks)
    return kept


def _read(project: Project, key: str, sound: Callable[[Any], bool]) -> dict[int, list[Any]]:
    found: Any = project.meta(key, {})
    frames = project.shape[0]
    if not isinstance(found, dict) or not all(_is_entry(frame, masks, frames, sound) for frame, masks in found.items()):
        raise ProjectError(
            f"{project.name} is damaged: its entry {key!r} is not a list of masks for each frame. Restore it from a "
            "copy."
        )
    return {int(frame): masks for frame, masks in found.items()}


def _is_entry(frame: str, masks: Any, frames: int, sound: Callable[[Any], bool]) -> bool:
    """Whether this is one of the stack's frames with its masks."""
    known = frame.isascii() and frame.isdecimal() and len(frame) < 19 and int(frame) < frames
    return known and isinstance(masks, list) and all(map(sound, masks))


def _is_mask(mask: Any) -> bool:
    return isinstance(mask, list) and len(mask) == 2 and all(type(number) is int for number in mask)
