"""Strokes as a hand draws them over objects whose masks are known, in the JSON of the DAVIS interactive challenge."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

POINTS = 24
"""Points a stroke."""
SPEED = 90.0
"""Pixels a second: how fast the hand moves."""
PAUSE = 0.6
"""Seconds between strokes."""

Points = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def scribbles(
    labels: npt.NDArray[np.uint8], frame: int, frames: int, sequence: str, seed: int, *, strokes: int, around: bool
) -> dict[str, Any]:
    """First scribbles of a stack: up to `strokes` for each object of the frame's labels, and one around if asked.

    Parameters
    ----------
    labels : (H, W) uint8, 0 = background
    frame, frames : int
        The frame that is annotated, and how many there are.
    sequence : str
        Name of the stack.
    seed : int
        Of the hand's tremble.
    strokes : int
        At most so many an object; a further one is drawn only where those before left much of the object bare.
    around : bool
        Whether the background gets a stroke (object 0) beside the objects too.
    """
    rng = np.random.default_rng([seed, 4])
    drawn = [(int(i), line) for i in np.unique(labels[labels > 0]) for line in inside(labels == i, strokes, rng)]
    if around:
        drawn.append((0, beside(labels > 0, rng)))
    size = np.array([labels.shape[1] - 1, labels.shape[0] - 1], float)
    entries, clock = [], PAUSE
    for object_id, line in drawn:
        end = clock + np.hypot(*np.diff(line, axis=0).T).sum() / SPEED
        path = np.round(line[:, ::-1] / size, 5).tolist()
        times = {"start_time": round(clock, 2), "end_time": round(float(end), 2)}
        entries.append({"path": path, "object_id": object_id, **times})
        clock = end + PAUSE
    lists = [entries if t == frame else [] for t in range(frames)]
    return {"sequence": sequence, "annotated_frame": frame, "scribbles": lists}


def inside(mask: Mask, strokes: int, rng: np.random.Generator) -> list[Points]:
    """Strokes along the mask's long axis, well inside it; the next ones where the ones before are far away."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    core = depth > 0.35 * depth.max()
    lines: list[Points] = []
    bare = core
    while len(lines) < strokes and bare.sum() > 0.2 * core.sum():
        line = _along(bare, core, rng)
        lines.append(line)
        bare = bare & (_distance_to(line, mask.shape) > 0.9 * depth.max())
        parts, count = ndimage.label(bare)
        if count > 1:
            bare = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return lines


def _along(region: Mask, core: Mask, rng: np.random.Generator) -> Points:
    """A wavy line (POINTS, 2) along the region's long axis, kept inside the core."""
    places = np.argwhere(region).astype(float)
    centre = places.mean(axis=0)
    spread, axes = np.linalg.eigh(np.cov((places - centre).T))
    long, short = 2 * np.sqrt(np.maximum(spread[::-1], 0.5))
    s = np.linspace(-0.85, 0.85, POINTS)
    wave = 0.45 * short * np.sin(rng.uniform(3, 5) * s + rng.uniform(0, 2 * np.pi))
    line = centre + long * s[:, None] * axes[:, 1] + wave[:, None] * axes[:, 0]
    line = _into(core, line + 0.4 * rng.standard_normal(line.shape))
    return _into(core, np.asarray(ndimage.gaussian_filter1d(line, 1.2, axis=0, mode="nearest")))


def _into(core: Mask, line: Points) -> Points:
    """The line with points outside the core moved to the core's nearest pixel."""
    nearest = ndimage.distance_transform_edt(~core, return_distances=False, return_indices=True)
    row, col = np.clip(np.rint(line), 0, np.array(core.shape) - 1).astype(int).T
    return np.where(core[row, col][:, None], line, np.stack([nearest[0][row, col], nearest[1][row, col]], axis=1))


def _distance_to(line: Points, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Distance of each pixel of an image from the nearest point of a line."""
    empty = np.ones(shape, bool)
    row, col = np.rint(line).astype(int).T
    empty[row, col] = False
    return np.asarray(ndimage.distance_transform_edt(empty))


def beside(mask: Mask, rng: np.random.Generator) -> Points:
    """An arc (POINTS, 2) below the objects, a dozen pixels away from them."""
    away = ndimage.distance_transform_edt(~mask)
    centre = np.argwhere(mask).mean(axis=0)
    line = []
    for angle in np.linspace(0.12 * np.pi, 0.88 * np.pi, POINTS):
        ray = centre + np.arange(1, max(mask.shape))[:, None] * [np.sin(angle), np.cos(angle)]
        ray = ray[(ray >= 2).all(axis=1) & (ray <= np.array(mask.shape) - 3).all(axis=1)]
        row, col = ray.astype(int).T
        free = np.flatnonzero((away[row, col] >= 12) & ~np.logical_or.accumulate(mask[row, col][::-1])[::-1])
        line.append(ray[free[0]] if len(free) else ray[-1])
    trembling = np.array(line) + 0.5 * rng.standard_normal((POINTS, 2))
    return np.asarray(ndimage.gaussian_filter1d(trembling, 1.2, axis=0, mode="nearest"))
