"""open_frames: the one door, for arrays, files, folders and videos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_ivos.frames.axes import check_axes, guess_axes, lay_out, unknown_axes
from napari_ivos.frames.contrast import check_ranges
from napari_ivos.frames.sources import Source, array_source, check_values
from napari_ivos.frames.stack import FrameStack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def open_frames(
    source: Any,
    *,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    index: Mapping[str, int] | None = None,
    contrast: Any = None,
    frame_axis: str | None = None,
) -> FrameStack:
    """Open an array."""
    base: Source = source.origin if isinstance(source, FrameStack) else array_source(source)
    check_values(base)
    letters = check_axes(axes, base.shape, base.name) if axes is not None else base.axes or guess_axes(base.shape)
    if letters is None:
        raise unknown_axes(base.shape, base.name)
    layout, notes = lay_out(letters, base.shape, base.name, channels=channels, index=index, frame_axis=frame_axis)
    ranges = None if contrast is None else check_ranges(contrast, len(layout.channels))
    return FrameStack(base, layout, notes, ranges)
