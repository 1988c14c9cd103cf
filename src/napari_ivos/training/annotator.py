"""A simulated annotator: scribbles as people draw them, on an object, beside it, and where a prediction is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_ivos.scribbles import BACKGROUND, Stroke

if TYPE_CHECKING:
    from collections.abc import Sequence

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]
Rng = np.random.Generator

_SKELETON_SIDE = 56  # a mask is shrunk to this before it is thinned: people do not follow each pixel either
STYLES = ("axis", "part", "zigzag", "dab", "dot", "inside", "circle")
"""How strokes are drawn: along the middle, along a part of it, to and fro across it, a short dab, a dot, an arc along
the inner side of the outline, a loop around."""
_CHANCES = (0.36, 0.19, 0.12, 0.14, 0.07, 0.08, 0.04)
SLIP = 0.15
"""Share of strokes whose end slips over the edge."""
AROUND = 0.3
"""Share of strokes beside an object that go around it, instead of a short one somewhere near."""


def first_strokes(labels: npt.NDArray[np.integer], target: int, rng: Rng) -> list[Stroke]:
    """Strokes on an object, sometimes on the background beside it and on its neighbours.

    Parameters
    ----------
    labels : (H, W) int array
        All objects of the frame.
    target : int
        The one to draw on; its strokes bear object id 1, those of others 2 and the background's 0.
    rng : numpy Generator
        Source of chance.
    """
    mask = labels == target
    strokes = [Stroke(1, line) for line in draw_on(mask, rng)]
    if rng.random() < 0.15:
        strokes += [Stroke(1, line) for line in draw_on(mask, rng)]
    if rng.random() < 0.25:
        line = _beside(mask, labels, rng)
        if line is not None:
            strokes.append(Stroke(BACKGROUND, line))
    others = [k for k in np.unique(labels) if k not in (0, target)]
    if others and rng.random() < 0.45:
        for k in rng.permutation(others)[: int(rng.integers(1, 4))]:
            strokes += [Stroke(2, line) for line in draw_on(labels == k, rng)]
    return strokes


def corrections(truth: Mask, predicted: Mask, rng: Rng, most: int = 2) -> list[Stroke]:
    """Strokes where a prediction is most wrong: object id 1 on misses, 0 on false alarms.

    None of them is a loop around: about a false alarm it would run over the object.
    """
    chances = np.array(_CHANCES[:-1]) / sum(_CHANCES[:-1])
    strokes: list[Stroke] = []
    for wrong, object_id in ((truth & ~predicted, 1), (predicted & ~truth, BACKGROUND)):
        for part in _largest_parts(wrong, most):
            style = str(rng.choice(STYLES[:-1], p=chances))
            strokes += [Stroke(object_id, line) for line in draw_on(part, rng, style)]
    return strokes


def draw_on(mask: Mask, rng: Rng, style: str | None = None) -> list[Points]:
    """One stroke on a mask.

    Parameters
    ----------
    mask : (H, W) bool array
        What to draw on.
    rng : numpy Generator
        Source of chance.
    style : str, optional
        One of `STYLES`; by chance if not given.

    Returns
    -------
    list of one (N, 2) float64 array
        (row, col) in pixels, inside the image; an empty list where the mask is empty.
    """
    import cv2

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if rows.size == 0:
        return []
    y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    cut = np.pad(mask[y0:y1, x0:x1], 1).astype(np.uint8)
    shrink = min(1.0, _SKELETON_SIDE / max(cut.shape))
    if shrink < 1:
        cut = cv2.resize(cut, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        if not cut.any():
            cut[cut.shape[0] // 2, cut.shape[1] // 2] = 1
    depth = cv2.distanceTransform(cut, cv2.DIST_L2, 3)
    line = _style(style or str(rng.choice(STYLES, p=_CHANCES)), cut > 0, depth, rng)
    if len(line) > 2 and rng.random() < SLIP:
        line = _slipped(line, depth, rng)
    line = line + _wobble(len(line), rng) * (0.25 + 0.03 * float(depth.max()))
    line = (line + 0.5) / shrink - 0.5 - 1 + (y0, x0)
    inside = ((line >= -0.5) & (line < np.array(mask.shape) - 0.5)).all(1)
    return [line[inside]] if inside.any() else [np.array([[rows.mean(), columns.mean()]])]


def _wobble(n: int, rng: Rng) -> Points:
    """How a hand wavers along a line of n points (N, 2), by about 1: slowly, not from one point to the next."""
    knots = rng.normal(0, 1, (n if n < 12 else n // 6 + 2, 2))
    at = np.linspace(0, len(knots) - 1, n)
    return np.stack([np.interp(at, np.arange(len(knots)), knots[:, k]) for k in (0, 1)], 1)


def _style(style: str, mask: Mask, depth: npt.NDArray[np.float32], rng: Rng) -> Points:
    if style == "dot" or depth.max() < 1.5:
        return _deep_point(depth, rng)[None]
    if style == "dab":
        at, angle = _deep_point(depth, rng), rng.uniform(0, np.pi)
        reach = depth.max() * rng.uniform(0.3, 1.2)
        line = at + np.linspace(-reach, reach, 6)[:, None] * (np.sin(angle), np.cos(angle))
        return np.asarray(line)
    if style == "inside":
        return _contour(depth, rng)
    if style == "circle":
        return _loop(mask, depth, rng)
    path = medial_path(mask)
    if style == "part" and len(path) > 4:
        length = max(int(len(path) * rng.uniform(0.25, 0.7)), 3)
        start = int(rng.integers(0, len(path) - length + 1))
        path = path[start : start + length]
    if style == "zigzag" and len(path) > 2:
        at = np.linspace(0, len(path) - 1, int(rng.integers(5, 12)))
        spine = path[np.rint(at).astype(int)]
        width = depth[tuple(np.rint(spine).astype(int).T)] * rng.uniform(0.4, 0.9)
        along = np.gradient(spine, axis=0)
        normal = np.stack([-along[:, 1], along[:, 0]], 1)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
        return np.asarray(spine + normal * (width * np.where(np.arange(len(spine)) % 2, 1, -1))[:, None])
    return smooth(path)


def _deep_point(depth: npt.NDArray[np.float32], rng: Rng) -> Points:
    """A point well inside, by chance."""
    inside = np.argwhere(depth >= 0.5 * depth.max())
    return np.asarray(inside[int(rng.integers(len(inside)))], float)


def _contour(depth: npt.NDArray[np.float32], rng: Rng) -> Points:
    """An arc along the inner side of the outline."""
    import cv2

    level = (depth >= depth.max() * rng.uniform(0.3, 0.6)).astype(np.uint8)
    outlines, _ = cv2.findContours(level, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    longest = max(outlines, key=len)[:, 0, ::-1].astype(float)
    start = int(rng.integers(len(longest)))
    length = max(int(len(longest) * rng.uniform(0.3, 1.0)), 2)
    return np.asarray(np.roll(longest, -start, axis=0)[:length])


def _loop(mask: Mask, depth: npt.NDArray[np.float32], rng: Rng) -> Points:
    """A closed loop by the outline: a little inside, on it, or around it, as a lasso is drawn."""
    import cv2

    reach = float(depth.max()) * rng.uniform(-0.35, 0.25)  # below 0 inside, above 0 outside
    pad = int(np.ceil(max(reach, 0))) + 1
    wide = np.pad(mask.astype(np.uint8), pad)
    level = cv2.distanceTransform(1 - wide, cv2.DIST_L2, 3) - cv2.distanceTransform(wide, cv2.DIST_L2, 3)
    outlines, _ = cv2.findContours((level <= reach).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    longest = max(outlines, key=len)[:, 0, ::-1].astype(float) - pad
    start = int(rng.integers(len(longest)))
    turned = np.roll(longest, -start, axis=0)
    return smooth(np.concatenate([turned, turned[:1]]))


def _slipped(line: Points, depth: npt.NDArray[np.float32], rng: Rng) -> Points:
    """The line drawn on for a bit beyond one of its ends, over the edge of narrow objects."""
    if rng.random() < 0.5:
        line = line[::-1]
    ahead = line[-1] - line[max(len(line) - 4, 0)]
    ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-6)
    beyond = float(depth.max()) * rng.uniform(0.5, 1.5) + 1
    return np.concatenate([line, line[-1] + ahead * np.linspace(0.25, 1, 4)[:, None] * beyond])


def _beside(mask: Mask, labels: npt.NDArray[np.integer], rng: Rng) -> Points | None:
    """A stroke on background close to the object: a short one, or one that goes around it."""
    import cv2

    if rng.random() < AROUND:
        return _around(mask, labels, rng)
    extent = int(np.sqrt(np.count_nonzero(mask))) // 2 + 5
    around = cv2.dilate(mask.astype(np.uint8), np.ones((2 * extent + 1,) * 2, np.uint8))
    tight = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8))
    free = np.argwhere((around > 0) & (tight == 0) & (labels == 0))
    if not len(free):
        return None
    at, angle = free[int(rng.integers(len(free)))].astype(float), rng.uniform(0, np.pi)
    line = at + np.linspace(-0.5, 0.5, 8)[:, None] * extent * (np.sin(angle), np.cos(angle))
    cells = np.clip(np.rint(line).astype(int), 0, np.array(mask.shape) - 1)
    clear = (tight[tuple(cells.T)] == 0) & (labels[tuple(cells.T)] == 0)
    return np.asarray(line[clear]) if clear.any() else None


def _around(mask: Mask, labels: npt.NDArray[np.integer], rng: Rng) -> Points | None:
    """An arc, or a whole turn, around the object at some distance, as far as there is background."""
    import cv2

    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
    reach = 4 + rng.uniform(0.1, 0.6) * float(np.sqrt(np.count_nonzero(mask)))
    outlines, _ = cv2.findContours((away <= reach).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    longest = max(outlines, key=len)[:, 0, ::-1]
    turned = np.roll(longest, -int(rng.integers(len(longest))), axis=0)
    turned = turned[: max(int(len(turned) * rng.uniform(0.25, 1.0)), 2)]
    free = (labels[tuple(turned.T)] == 0) & (turned > 0).all(1) & (turned < np.array(mask.shape) - 1).all(1)
    ends = np.flatnonzero(~free)
    piece = turned[: ends[0]] if ends.size else turned
    return smooth(piece.astype(float)) if len(piece) > 4 else None


def _largest_parts(wrong: Mask, most: int) -> Sequence[Mask]:
    """The largest connected parts of an error, after slivers along the outline are opened away."""
    import cv2

    area = int(np.count_nonzero(wrong))
    if area < 12:
        return []
    radius = int(min(8, 0.1 * np.sqrt(area)))
    opened = wrong.astype(np.uint8)
    while radius > 0:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
        trial = cv2.morphologyEx(wrong.astype(np.uint8), cv2.MORPH_OPEN, kernel)
        if trial.any():
            opened = trial
            break
        radius -= 1
    _, parts, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    order = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA])
    largest = stats[order[0], cv2.CC_STAT_AREA]
    return [parts == k for k in order[:most] if stats[k, cv2.CC_STAT_AREA] >= max(8, 0.25 * largest)]


def medial_path(mask: Mask) -> Points:
    """The longest path along a mask's skeleton, (N, 2) in its pixels; found by walking to the farthest end twice."""
    from skimage.morphology import skeletonize

    nodes = np.argwhere(skeletonize(mask))
    if len(nodes) < 2:
        return (nodes if len(nodes) else np.argwhere(mask)[:1]).astype(float)
    index = {(int(r), int(c)): k for k, (r, c) in enumerate(nodes)}
    start, _ = _walk(index, len(nodes) // 2, nodes)
    end, parents = _walk(index, start, nodes)
    path = [end]
    while parents[path[-1]] >= 0:
        path.append(parents[path[-1]])
    return nodes[path].astype(float)


_STEPS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))


def _walk(index: dict[tuple[int, int], int], start: int, nodes: npt.NDArray[np.int64]) -> tuple[int, dict[int, int]]:
    """Breadth first from one node: the node reached last, and the way back from each."""
    parents = {start: -1}
    frontier, last = [start], start
    while frontier:
        ahead = []
        for k in frontier:
            r, c = nodes[k]
            for dr, dc in _STEPS:
                j = index.get((int(r + dr), int(c + dc)))
                if j is not None and j not in parents:
                    parents[j] = k
                    ahead.append(j)
        if ahead:
            last = ahead[-1]
        frontier = ahead
    return last, parents


def smooth(path: Points) -> Points:
    """A path with its corners taken off (moving mean of five), ends kept; every second point."""
    if len(path) < 5:
        return path
    padded = np.concatenate([path[:1], path[:1], path, path[-1:], path[-1:]])
    mean = np.asarray(sum(padded[k : k + len(path)] for k in range(5))) / 5
    mean[0], mean[-1] = path[0], path[-1]
    return np.concatenate([mean[:-1:2], mean[-1:]])
