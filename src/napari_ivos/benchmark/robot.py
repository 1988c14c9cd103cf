"""The user that a benchmark simulates: first scribbles on a frame, then corrections where a prediction is wrong.

Written from the published description of the DAVIS interactive protocol (Caelles et al. 2018): the region that a label
misses is opened with a disk, thinned to its medial axis, and the longest path of each connected part becomes a stroke.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.regions import mask_box
from napari_ivos.scribbles import BACKGROUND, Points, Scribbles, Stroke

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST_RADIUS = 16.0
"""Radius of the opening disk, in pixels, at most."""
RADIUS_SHARE = 0.2
"""Diameter of the opening disk over the square root of the region's area."""
FEWEST_NODES = 4
"""A path of fewer pixels is no stroke."""
SMOOTHING = 4.0
"""Standard deviation of the smoothing along a path, in pixels; lowered where a path would leave its region."""

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.integer]


def correct(truth: Labels, prediction: Labels, frame: int = 0, ignore: Mask | None = None) -> Scribbles:
    """The strokes that a user would add to one frame to mend a prediction.

    Parameters
    ----------
    truth, prediction : (H, W) integer array
        0 = background.
    frame : int
        Index of the frame, for the scribbles.
    ignore : (H, W) bool array, optional
        Pixels whose true label is not known: never scribbled on.

    Returns
    -------
    Scribbles
        For each label of the truth, background 0 included, strokes of that label inside the pixels that should have it
        and do not; no stroke where nothing, or too little, is wrong.

    Raises
    ------
    InputError
        Two shapes.
    """
    if truth.shape != prediction.shape:
        raise InputError(
            f"Truth and prediction of frame {frame} have two shapes, {truth.shape} and {prediction.shape}."
        )
    wrong = truth != prediction
    if ignore is not None:
        wrong &= ~ignore
    strokes = []
    for label in np.unique(truth[wrong]):
        strokes += [Stroke(int(label), line) for line in axis_lines(wrong & (truth == label))]
    return Scribbles(frame, strokes)


def axis_lines(region: Mask) -> list[Points]:
    """Smoothed longest paths along the medial axis of a region's parts, after an opening.

    Parameters
    ----------
    region : (H, W) bool array

    Returns
    -------
    list of (N, 2) float64 arrays
        (row, col), each point inside the region, neighbours at most about one pixel apart; larger parts first.
    """
    from scipy.ndimage import find_objects, label

    box = mask_box(region)
    if box is None:
        return []
    cut = region[box.slices]
    opened = open_region(cut)
    parts, n = label(opened, np.ones((3, 3), int))
    lines = []
    for k, at in enumerate(find_objects(parts, n), start=1):
        part = parts[at] == k
        path = longest_path(_medial_axis(part))
        if len(path) >= FEWEST_NODES:
            offset = (box.y0 + at[0].start, box.x0 + at[1].start)
            lines.append((int(part.sum()), _smoothed(path, part) + offset))
    return [line for _, line in sorted(lines, key=lambda entry: -entry[0])]


def open_region(region: Mask) -> Mask:
    """Morphological opening with a disk of radius min(16, 0.2 * sqrt(area) / 2), halved until something is left.

    A distance transform instead of a structuring element: the cost does not grow with the radius.
    """
    from scipy.ndimage import distance_transform_edt

    radius = min(LARGEST_RADIUS, RADIUS_SHARE * float(np.sqrt(np.count_nonzero(region))) / 2)
    inside = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    while radius >= 1:
        # A disk of this radius fits where the nearest pixel outside is farther than the radius.
        core = inside > radius
        if core.any():
            return np.asarray(distance_transform_edt(~core) <= radius) & region
        radius /= 2
    return region


def _medial_axis(part: Mask) -> Mask:
    from skimage.morphology import medial_axis

    # The generator breaks ties between pixels equally far from the border: fixed, so that the robot repeats itself.
    axis = medial_axis(np.pad(part, 1), rng=0)
    return np.asarray(axis[1:-1, 1:-1], bool)


def longest_path(axis: Mask) -> npt.NDArray[np.int64]:
    """Pixels along the longest shortest path of a thin connected mask.

    Loops are cut by a spanning tree; on a tree two sweeps find the longest path exactly.

    Parameters
    ----------
    axis : (h, w) bool array
        An 8-connected skeleton.

    Returns
    -------
    (N, 2) int64 array
        (row, col) from end to end.
    """
    from scipy.sparse.csgraph import dijkstra, minimum_spanning_tree

    nodes = np.argwhere(axis)
    if len(nodes) < 2:
        return nodes
    tree = minimum_spanning_tree(_pixel_graph(axis, len(nodes)))
    far = dijkstra(tree, directed=False, indices=0)
    start = int(np.argmax(np.where(np.isfinite(far), far, -1)))
    away, before = dijkstra(tree, directed=False, indices=start, return_predecessors=True)
    at = int(np.argmax(np.where(np.isfinite(away), away, -1)))
    path = [at]
    while at != start:
        at = int(before[at])
        path.append(at)
    return nodes[path]


def _pixel_graph(axis: Mask, n: int) -> object:
    """Sparse graph of the true pixels of a mask (in scan order), 8-connected, edges as long as the steps."""
    from scipy.sparse import coo_array

    # int32: scipy 1.14 spans no tree of a graph whose indices are wider
    index = np.full((axis.shape[0] + 1, axis.shape[1] + 2), -1, np.int32)
    index[:-1, 1:-1][axis] = np.arange(n)
    here = index[:-1, 1:-1]
    starts, ends, lengths = [], [], []
    for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1)):
        there = index[dy : dy + axis.shape[0], 1 + dx : 1 + dx + axis.shape[1]]
        both = (here >= 0) & (there >= 0)
        starts.append(here[both])
        ends.append(there[both])
        lengths.append(np.full(int(both.sum()), np.hypot(dy, dx)))
    edges = (np.concatenate(starts), np.concatenate(ends))
    return coo_array((np.concatenate(lengths), edges), shape=(n, n)).tocsr()


def _smoothed(path: npt.NDArray[np.int64], part: Mask) -> Points:
    """The path without the steps of its pixels, as smooth as it can be without leaving the part."""
    from scipy.ndimage import gaussian_filter1d

    sigma = min(SMOOTHING, len(path) / 6)
    while sigma >= 0.5:
        line = np.asarray(gaussian_filter1d(path.astype(np.float64), sigma, axis=0, mode="nearest"))
        if _inside(line, part):
            return line
        sigma /= 2
    return path.astype(np.float64)


def _inside(line: Points, part: Mask) -> bool:
    pixels = np.floor(line + 0.5).astype(np.int64)
    if (pixels < 0).any() or (pixels >= part.shape).any():
        return False
    return bool(part[tuple(pixels.T)].all())


def first_scribbles(truth: Labels, frame: int, rng: np.random.Generator, ids: Sequence[int] | None = None) -> Scribbles:
    """First scribbles on a frame, as people draw them: a line or a few along every object's shape.

    Parameters
    ----------
    truth : (H, W) integer array
        True labels of the frame.
    frame : int
        Its index.
    rng : numpy Generator
        Where a line starts and ends, how it wavers and how many parts get one differs from draw to draw.
    ids : sequence of int, optional
        The objects to draw on; all of the frame if not given.

    Returns
    -------
    Scribbles
        At least one stroke for every object with a pixel on the frame, all on the object, none on the background.

    Raises
    ------
    InputError
        None of the objects has a pixel on the frame.
    """
    present = [int(i) for i in np.unique(truth) if i != BACKGROUND]
    asked = present if ids is None else [i for i in present if i in set(ids)]
    if not asked:
        raise InputError(f"No object to scribble on in frame {frame}: its ground truth holds the ids {present}.")
    strokes = []
    for object_id in asked:
        box = mask_box(truth == object_id)
        assert box is not None
        part = np.asarray(truth[box.slices] == object_id)
        strokes += [Stroke(object_id, line + (box.y0, box.x0)) for line in _hand_lines(part, rng)]
    return Scribbles(frame, strokes)


def _hand_lines(mask: Mask, rng: np.random.Generator) -> list[Points]:
    """One to three lines on an object: the axis of its largest part, often a second part or a branch."""
    lines = axis_lines(mask)
    if not lines:
        return [_dot(mask)]
    longest = len(lines[0])
    kept = lines[:1] + [line for line in lines[1:3] if len(line) > 0.3 * longest and rng.random() < 0.7]
    if len(kept) == 1 and rng.random() < 0.3:
        kept += _branch(mask, lines[0])
    return [_by_hand(line, mask, rng) for line in kept]


def _dot(mask: Mask) -> Points:
    """The pixel deepest inside: what is too small for a line gets a dot."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return np.array([np.unravel_index(int(np.argmax(depth)), mask.shape)], float)


def _branch(mask: Mask, line: Points) -> list[Points]:
    """A second line where the first leaves much of the object uncovered: a leg, a wing, the other lobe."""
    from scipy.ndimage import distance_transform_edt

    free = np.ones(mask.shape, bool)
    free[tuple(np.floor(line + 0.5).astype(np.int64).T)] = False
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    reach = 1.5 * float(np.median(depth[~free]))
    rest = mask & (distance_transform_edt(free) > reach)
    found = [extra for extra in axis_lines(rest) if len(extra) >= 0.3 * len(line)]
    return found[:1]


def _by_hand(line: Points, mask: Mask, rng: np.random.Generator) -> Points:
    """The line as a hand draws it: not quite from end to end, wavering, but on the object."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter1d

    n = len(line)
    first, last = int(n * rng.uniform(0.0, 0.2)), n - int(n * rng.uniform(0.0, 0.2))
    cut = line[first : max(last, first + FEWEST_NODES)]
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    room = depth[tuple(np.floor(cut + 0.5).astype(np.int64).T)]
    waver = gaussian_filter1d(rng.standard_normal(cut.shape), max(len(cut) / 6, 2.0), axis=0, mode="reflect")
    waver /= max(float(np.abs(waver).max()), 1e-9)
    size = rng.uniform(0.1, 0.6)
    while size > 0.02:
        drawn = cut + size * room.min() * waver
        if _inside(drawn, mask):
            return np.asarray(drawn)
        size /= 2
    return cut


def unknown_pixels(truth: Labels, prediction: Labels, known: npt.NDArray[np.bool_]) -> Mask:
    """Pixels of one frame that no stroke may judge: predicted as an object whose label the ground truth lacks there.

    Parameters
    ----------
    truth, prediction : (H, W) integer array
        0 = background.
    known : (K,) bool array
        Entry k: whether object k + 1 is scored on this frame.

    Returns
    -------
    (H, W) bool array
        Where the truth says background, and the prediction an object that is not scored here.
    """
    table = np.zeros(max(int(prediction.max(initial=0)), len(known)) + 1, bool)
    table[1 : len(known) + 1] = ~known
    return np.asarray((truth == BACKGROUND) & table[prediction])
