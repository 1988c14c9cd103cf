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
_STYLES = ("axis", "part", "zigzag", "dab", "dot", "inside")
_CHANCES = (0.38, 0.2, 0.12, 0.15, 0.07, 0.08)


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
    """Strokes where a prediction is most wrong: object id 1 on misses, 0 on false alarms."""
    strokes: list[Stroke] = []
    for wrong, object_id in ((truth & ~predicted, 1), (predicted & ~truth, BACKGROUND)):
        for part in _largest_parts(wrong, most):
            strokes += [Stroke(object_id, line) for line in draw_on(part, rng)]
    return strokes


def draw_on(mask: Mask, rng: Rng) -> list[Points]:
    """One stroke on a mask (H, W), in a style drawn by chance: a list of one polyline, empty where the mask is."""
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
    style = str(rng.choice(_STYLES, p=_CHANCES))
    line = _style(style, cut > 0, depth, rng)
    line = line + rng.normal(0, 0.25 + 0.03 * depth.max(), line.shape)
    line = (line + 0.5) / shrink - 0.5 - 1 + (y0, x0)
    inside = ((line >= -0.5) & (line < np.array(mask.shape) - 0.5)).all(1)
    return [line[inside]] if inside.any() else [np.array([[rows.mean(), columns.mean()]])]


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


def _beside(mask: Mask, labels: npt.NDArray[np.integer], rng: Rng) -> Points | None:
    """A short stroke on background close to the object."""
    import cv2

    extent = int(np.sqrt(np.count_nonzero(mask))) // 2 + 5
    around = cv2.dilate(mask.astype(np.uint8), np.ones((2 * extent + 1,) * 2, np.uint8))
    tight = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8))
    free = np.argwhere((around > 0) & (tight == 0) & (labels == 0))
    if not len(free):
        return None
    at, angle = free[int(rng.integers(len(free)))].astype(float), rng.uniform(0, np.pi)
    line = at + np.linspace(-0.5, 0.5, 8)[:, None] * extent * (np.sin(angle), np.cos(angle))
    cells = np.clip(np.rint(line).astype(int), 0, np.array(mask.shape) - 1)
    return np.asarray(line[(tight[tuple(cells.T)] == 0)]) if (tight[tuple(cells.T)] == 0).any() else None


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
