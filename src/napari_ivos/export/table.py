"""The table of objects: a CSV line for each object on each frame."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import FrameReadError
from napari_ivos.export.images import spacing_of
from napari_ivos.frames.axes import SIZES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_ivos.export.content import Content, Outline
    from napari_ivos.export.images import Tick
    from napari_ivos.regions import Box

COLUMNS = (
    "frame", "object", "name", "parent", "area_px", "centroid_row", "centroid_col",
    "row_min", "col_min", "row_end", "col_end", "quality",
)  # fmt: skip


def table(content: Content, path: Path, tick: Tick) -> None:
    """Write a CSV file with a line for each object on each frame on which it has pixels.

    Columns: frame (from 0), object (its id), name, parent, area_px, centroid_row and centroid_col, the box around it
    (row_min, col_min and, one beyond the last, row_end, col_end), quality (0..1), and mean_intensity (mean_intensity_0,
    _1 ... where the stack has channels): the mean of the source's own values that are finite. Fields stay empty where a
    value isn't known: no frames at hand, or a frame that can't be read (`content.notes` names it).

    Where the source gives the size of its pixels, area_um2 stands behind quality; where it gives the distance of
    sections as well, volume_um3, what the object fills of this section: their sum over its lines is its volume. Where
    it gives the time between frames, time_s, from frame 0.
    """
    measures = _measures(content)
    channels = _channels(content)
    names = [] if channels is None else ["mean_intensity"] if channels == 0 else []
    names += [f"mean_intensity_{c}" for c in range(channels or 0)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *measures, *names])
        for frame in range(content.shape[0]):
            outlines = content.outlines(frame)
            means = _intensities(content, frame, outlines, len(names)) if names else {}
            for object_id, outline in outlines.items():
                line = _line(content, frame, object_id, outline)
                line += [f"{measure(frame, outline.area):.9g}" for measure in measures.values()]
                writer.writerow(line + means.get(object_id, [""] * len(names)))
            tick(frame + 1)


def _line(content: Content, frame: int, object_id: int, outline: Outline) -> list[Any]:
    known = content.object(object_id)
    quality = content.quality_of(frame, object_id)
    return [
        frame,
        object_id,
        known.name,
        "" if known.parent is None else known.parent,
        outline.area,
        *(f"{value:.3f}" for value in outline.centroid),
        *outline.box,
        "" if quality is None else f"{quality:.4f}",
    ]


def _measures(content: Content) -> dict[str, Callable[[int, int], float]]:
    """What a frame's index and an object's area in pixels are in the world, by column, as far as the source says it."""
    steps = {letter: step * SIZES[unit] for letter, (step, unit) in spacing_of(content).items() if unit}
    measures: dict[str, Callable[[int, int], float]] = {}
    if "Y" in steps and "X" in steps:
        pixel = steps["Y"] * steps["X"]
        measures["area_um2"] = lambda _, area: area * pixel
        if "Z" in steps:
            voxel = pixel * steps["Z"]
            measures["volume_um3"] = lambda _, area: area * voxel
    if "T" in steps:
        measures["time_s"] = lambda frame, _: frame * steps["T"]
    return measures


def _channels(content: Content) -> int | None:
    """How many channels the source has: 0 without a channel axis, None without frames."""
    if content.frames is None:
        return None
    facts = content.frames.describe()
    lengths = dict(zip(facts["axes"], facts["source_shape"], strict=True))
    lengths.pop(facts["open"]["frame_axis"], None)
    return next((int(lengths[letter]) for letter in "SC" if lengths.get(letter, 1) > 1), 0)


def _intensities(content: Content, frame: int, outlines: dict[int, Outline], count: int) -> dict[int, list[str]]:
    """Mean of each channel under each object; none where the frame can't be read."""
    if content.frames is None or not outlines:
        return {}
    boxes = [outline.box for outline in outlines.values()]
    around = boxes[0]
    for box in boxes[1:]:
        around = around.union(box)
    together = around.height * around.width <= 2 * sum(box.height * box.width for box in boxes)
    try:
        whole = content.frames.raw(frame, around) if together else None
        return {
            object_id: _means(
                content.frames.raw(frame, outline.box) if whole is None else _part(whole, around, outline.box),
                content.cut(frame, outline.box) == object_id,
            )
            for object_id, outline in outlines.items()
        }
    except FrameReadError as error:
        content.notes.append(f"frame {frame} has no intensities: {error}")
        return {object_id: [""] * count for object_id in outlines}


def _part(whole: npt.NDArray[Any], around: Box, box: Box) -> npt.NDArray[Any]:
    return whole[box.shift(-around.y0, -around.x0).slices]


def _means(values: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> list[str]:
    inside = values[mask].astype(np.float64)  # (pixels,) or (pixels, channels)
    inside = inside.reshape(len(inside), -1)
    finite = np.isfinite(inside)
    sums, counts = np.where(finite, inside, 0).sum(axis=0), finite.sum(axis=0)
    return [f"{s / n:.6g}" if n else "" for s, n in zip(sums.tolist(), counts.tolist(), strict=True)]
