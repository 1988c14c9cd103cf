"""What a user draws on one frame: strokes, their clipping and rasterising, DAVIS JSON in and out; pure, numpy only.

Points are (row, col) in pixels of the full frame, pixel centres at whole numbers; only the DAVIS reader and writer
see (x, y) in 0..1. Strokes are drawn with one fixed width in the network's own pixels, so that neither the zoom nor the
width of a pen matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.regions import Box, mask_box
from napari_ivos.untrusted import check_text_size, parse_json

BACKGROUND = 0
"""Object id of a stroke that is a negative for all objects."""
STROKE_WIDTH = 3.0
"""Width of every stroke in pixels of the network's input."""
MAXIMUM_POINTS = 100_000
"""A stroke of more points than this is refused: no hand draws it, and each point costs time."""
FARTHEST = 1e9
"""Pixels from the frame's corner up to which a stroke may reach: from further out, where it meets the border is lost in
rounding, and it may come out longer than any memory."""

Points = npt.NDArray[np.float64]


def _whole(value: object) -> int | None:
    """`value` as a whole number from 0; None where it is not one."""
    try:
        whole = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return whole if whole == value and whole >= 0 else None


@dataclass(frozen=True, eq=False, init=False)
class Stroke:
    """One line drawn by a user: this belongs to that object (and to no other).

    Parameters
    ----------
    object_id : int
        1..65535, or 0 for background (a negative for all objects).
    points : (N, 2) array-like of float
        (row, col) in pixels of the full frame; one point is a dot.

    Raises
    ------
    InputError
        No points, points that are not (N, 2), not finite or billions of pixels away, or an object id out of range.
    """

    object_id: int
    points: Points

    def __init__(self, object_id: int, points: npt.ArrayLike) -> None:
        try:
            points = np.array(points, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"A stroke's points can't be read as numbers ({error}); expected (row, col) pairs."
            ) from error
        if points.ndim == 1 and points.size == 2:
            points = points[None]
        if points.size == 0:
            raise InputError("A stroke without points: give at least one (row, col) pair.")
        if points.ndim != 2 or points.shape[1] != 2:
            raise InputError(f"A stroke's points have shape {points.shape}; expected (N, 2): one (row, col) a line.")
        if len(points) > MAXIMUM_POINTS:
            raise InputError(
                f"A stroke has {len(points):,} points; at most {MAXIMUM_POINTS:,} are taken: draw it in parts."
            )
        bad = int((~np.isfinite(points)).any(axis=1).sum())
        if bad:
            raise InputError(f"A stroke has {bad} of {len(points)} points that are not finite: drop or mend them.")
        furthest = float(np.abs(points).max())
        if furthest > FARTHEST:
            raise InputError(
                f"A stroke reaches to {furthest:.3g} px; up to {FARTHEST:,.0f} are taken: give (row, col) in pixels."
            )
        number = _whole(object_id)
        if number is None or number > 65535:
            raise InputError(
                f"A stroke names object {object_id!r}; ids are whole numbers from 1 to 65535, 0 is the background."
            )
        points.flags.writeable = False
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "object_id", number)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Stroke):
            return NotImplemented
        return self.object_id == other.object_id and np.array_equal(self.points, other.points)

    def __hash__(self) -> int:
        return hash((self.object_id, self.points.tobytes()))

    def pieces(self, image_shape: tuple[int, int]) -> tuple[Points, ...]:
        """The parts of the line inside an image of (H, W), each an (N, 2) polyline; empty where all lies outside."""
        return clip_line(self.points, Box(0, 0, *image_shape))

    def box(self, image_shape: tuple[int, int]) -> Box | None:
        """Smallest box of whole pixels around the parts inside the image, None where all lies outside."""
        pieces = self.pieces(image_shape)
        if not pieces:
            return None
        points = np.concatenate(pieces)
        last = np.array(image_shape) - 1  # a line on the very border may round to the pixel beyond it
        low = np.clip(np.floor(points.min(axis=0) + 0.5).astype(int), 0, last)
        high = np.clip(np.floor(points.max(axis=0) + 0.5).astype(int), 0, last) + 1
        return Box(int(low[0]), int(low[1]), int(high[0]), int(high[1]))


@dataclass(frozen=True)
class Scribbles:
    """The strokes of one frame.

    Parameters
    ----------
    frame : int
        Index of the frame.
    strokes : sequence of Stroke
        In the order they were drawn.
    """

    frame: int
    strokes: Sequence[Stroke] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        frame = _whole(self.frame)
        if frame is None:
            raise InputError(f"Scribbles on frame {self.frame!r}: a frame is a whole number from 0.")
        strokes = tuple(self.strokes)
        for stroke in strokes:
            if not isinstance(stroke, Stroke):
                raise InputError(
                    f"Scribbles hold a {type(stroke).__name__}; each stroke is a Stroke(object_id, points)."
                )
        object.__setattr__(self, "frame", frame)
        object.__setattr__(self, "strokes", strokes)

    @cached_property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the objects drawn on, ascending, without the background."""
        return tuple(sorted({s.object_id for s in self.strokes} - {BACKGROUND}))

    @classmethod
    def from_labels(cls, frame: int, labels: npt.ArrayLike, background: int | None = None) -> Scribbles:
        """Turn scribbles painted as labels into strokes: the middle lines of what was painted, whatever the brush.

        Parameters
        ----------
        frame : int
            Index of the frame.
        labels : (H, W) array-like of int
            Painted ids; 0 is "not painted".
        background : int, optional
            The value that was painted for "background".

        Raises
        ------
        InputError
            Not a 2-D array of whole numbers, nothing painted, or ids out of range.
        """
        image = np.asarray(labels)
        if image.ndim != 2 or not np.issubdtype(image.dtype, np.integer):
            raise InputError(f"Painted scribbles are {image.ndim}-D {image.dtype}; expected a 2-D integer image.")
        strokes = []
        for value in (int(v) for v in np.unique(image) if v != 0):
            target = BACKGROUND if value == background else value
            box = mask_box(image == value) or Box(0, 0, 0, 0)
            lines = middle_lines(image[box.slices] == value)
            strokes += [Stroke(target, line + (box.y0, box.x0)) for line in lines]
        if not strokes:
            raise InputError(f"Painted scribbles of frame {frame} hold no painted pixel (all {image.size} are 0).")
        return cls(frame, strokes)


_RING = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
"""The eight neighbours of a pixel, in order, from the right one."""


def middle_lines(mask: npt.NDArray[np.bool_]) -> list[Points]:
    """Middle lines of a painted mask (H, W), as polylines of (N, 2) pixels; each part of it gives at least one."""
    thin = _thin(mask)
    left = {(int(r), int(c)) for r, c in np.argwhere(thin)}

    def around(pixel: tuple[int, int]) -> list[tuple[int, int]]:
        near = [(pixel[0] + dy, pixel[1] + dx) for dy, dx in _RING[::2] + _RING[1::2]]  # straight before slanted
        return [n for n in near if n in left]

    ends = sorted(p for p in left if len(around(p)) <= 1)
    lines: list[Points] = []
    for start in [*ends, *sorted(left)]:
        if start not in left:
            continue
        line = [start]
        left.remove(start)
        while ahead := around(line[-1]):
            line.append(ahead[0])
            left.remove(ahead[0])
        lines.append(np.array(line, float))
    return lines


def _thin(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Thin a mask (H, W) to lines of one pixel, in one piece for each of its pieces.

    Takes border pixels from one side after another (Rosenfeld 1975), as long as a pixel is neither the end of a line
    nor needed to hold two parts together (its Yokoi number is 1). Only pixels of the border are looked at: whole
    frames, pass after pass, took 40 s instead of 0.3 for a filled object of 1,000 x 1,000 px.
    """
    thin = np.pad(mask, 1)
    ring = np.array([dy * thin.shape[1] + dx for dy, dx in _RING])
    listed = thin.copy()
    listed[1:-1, 1:-1] &= ~(thin[:-2, 1:-1] & thin[2:, 1:-1] & thin[1:-1, :-2] & thin[1:-1, 2:])
    flat, listed = thin.ravel(), listed.ravel()
    border = np.flatnonzero(listed)
    changed = True
    while changed:
        changed = False
        for side in (2, 6, 0, 4):
            at = border[~flat[border + ring[side]]]
            x = flat[at[:, None] + ring]
            pieces = sum((~x[:, k] & (x[:, k + 1] | x[:, (k + 2) % 8])).astype(np.int8) for k in (0, 2, 4, 6))
            go = at[(pieces == 1) & (x.sum(axis=1) > 1)]
            if go.size:
                changed = True
                flat[go] = False
                near = (go[:, None] + ring[::2]).ravel()
                near = np.unique(near[flat[near] & ~listed[near]])
                listed[near] = True
                border = np.concatenate([border[flat[border]], near])
    return np.asarray(thin[1:-1, 1:-1])


def clip_line(points: Points, box: Box) -> tuple[Points, ...]:
    """Clip a polyline to the pixels of a box (Liang and Barsky 1984), as polylines of (N, 2)."""
    low = np.array([box.y0, box.x0]) - 0.5
    high = np.array([box.y1, box.x1]) - 0.5
    if len(points) == 1:
        inside = bool(((points[0] >= low) & (points[0] < high)).all())
        return (points,) if inside else ()
    pieces: list[list[Points]] = []
    for start, end in pairwise(points):
        part = _clip_segment(start, end, low, high)
        if part is None:
            continue
        if pieces and np.array_equal(pieces[-1][-1], part[0]):
            pieces[-1].append(part[1])
        else:
            pieces.append([part[0], part[1]])
    return tuple(np.array(piece) for piece in pieces)


def _clip_segment(start: Points, end: Points, low: Points, high: Points) -> tuple[Points, Points] | None:
    step = end - start
    enter, leave = 0.0, 1.0
    for axis in (0, 1):
        for sign, border in ((-1.0, low[axis]), (1.0, high[axis])):
            along, room = sign * step[axis], sign * (border - start[axis])
            if along == 0.0:
                if room < 0.0:
                    return None
            elif along > 0.0:
                leave = min(leave, room / along)
            else:
                enter = max(enter, room / along)
    if enter > leave:
        return None
    return (start if enter == 0.0 else start + enter * step), (end if leave == 1.0 else start + leave * step)


def strokes_box(strokes: Iterable[Stroke], image_shape: tuple[int, int]) -> Box | None:
    """Smallest box around all strokes inside an image of (H, W), None where there is none."""
    around: Box | None = None
    for stroke in strokes:
        box = stroke.box(image_shape)
        if box is not None:
            around = box if around is None else around.union(box)
    return around


def rasterise(
    strokes: Iterable[Stroke], region: Box, shape: tuple[int, int], width: float = STROKE_WIDTH
) -> npt.NDArray[np.float32]:
    """Draw strokes over a region of a frame as a plane for the networks.

    Parameters
    ----------
    strokes : iterable of Stroke
        Lines in pixels of the frame.
    region : Box
        The part of the frame that the plane covers.
    shape : tuple of int
        (h, w) of the plane.
    width : float
        Width of a line in pixels of the plane.

    Returns
    -------
    (h, w) float32 array
        1 within width / 2 of a line, 0 elsewhere.
    """
    plane = np.zeros(shape, np.float32)
    scale = np.array(shape) / np.array(region.shape)
    reach = width / 2
    span = np.arange(-int(reach), int(reach) + 1)
    disk = np.stack(np.meshgrid(span, span, indexing="ij"), -1).reshape(-1, 2)
    disk = disk[(disk**2).sum(1) <= reach**2 + 1e-9]
    pad = pen_reach(region, shape, width)
    around = Box(region.y0 - pad, region.x0 - pad, region.y1 + pad, region.x1 + pad)
    for stroke in strokes:
        for piece in clip_line(stroke.points, around):
            dense = densify((piece + 0.5 - (region.y0, region.x0)) * scale - 0.5, 0.5)
            pixels = (np.rint(dense).astype(np.int64)[:, None] + disk).reshape(-1, 2)
            inside = ((pixels >= 0) & (pixels < shape)).all(1)
            plane[tuple(pixels[inside].T)] = 1
    return plane


def pen_reach(region: Box, shape: tuple[int, int], width: float = STROKE_WIDTH) -> int:
    """How far outside a region, in pixels of the frame, a line may lie and still show on its plane; see `rasterise`."""
    scale = min(shape[0] / region.height, shape[1] / region.width)
    return int(np.ceil(width / 2 / scale)) + 1


def densify(points: Points, spacing: float) -> Points:
    """The polyline with extra points, so that neighbours are at most `spacing` apart: (N, 2) to (M, 2)."""
    if len(points) == 1:
        return points
    lengths = np.hypot(*np.diff(points, axis=0).T)
    parts = [
        a + (b - a) * np.linspace(0, 1, max(int(np.ceil(n / spacing)), 1), endpoint=False)[:, None]
        for a, b, n in zip(points[:-1], points[1:], lengths, strict=True)
    ]
    return np.concatenate([*parts, points[-1:]])


def covered_pixels(strokes: Iterable[Stroke], image_shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """The pixels of a frame of (H, W) that the bare lines run through: (N, 2) distinct (row, col)."""
    parts = [
        np.floor(densify(piece, 0.5) + 0.5).astype(np.int64)
        for stroke in strokes
        for piece in stroke.pieces(image_shape)
    ]
    if not parts:
        return np.zeros((0, 2), np.int64)
    pixels = np.unique(np.concatenate(parts), axis=0)
    inside = ((pixels >= 0) & (pixels < np.array(image_shape))).all(1)
    return np.asarray(pixels[inside])


def read_davis(source: str | Path | Mapping[str, Any], shape: tuple[int, int, int]) -> list[Scribbles]:
    """Read scribbles in the JSON of the DAVIS interactive challenge.

    Parameters
    ----------
    source : path or mapping
        The file, or what it holds: ``{"sequence", "annotated_frame", "scribbles": [per frame: [{"path", "object_id",
        "start_time", "end_time"}]]}`` with path points (x, y) in 0..1.
    shape : tuple of int
        (T, H, W) of the stack.

    Returns
    -------
    list of Scribbles
        One for each frame with strokes, ascending.

    Raises
    ------
    InputError
        Not that JSON, strokes on a frame that the stack does not have, or no stroke at all.
    """
    return read_davis_of(source, shape)[0]


def read_davis_of(source: str | Path | Mapping[str, Any], shape: tuple[int, int, int]) -> tuple[list[Scribbles], str]:
    """Scribbles as by `read_davis`, and the name of the sequence that they were drawn on; empty where none is said."""
    name, data = _load_json(source)
    frames = data.get("scribbles") if isinstance(data, Mapping) else None
    if not isinstance(frames, list):
        raise InputError(f"{name}: no list 'scribbles' (one entry a frame); expected the JSON of DAVIS interactive.")
    found = []
    for frame, lines in enumerate(frames):
        if not lines:
            continue
        if frame >= shape[0]:
            raise InputError(
                f"{name}: strokes on frame {frame}, but the stack has {shape[0]} frames (0..{shape[0] - 1})."
            )
        if not isinstance(lines, Sequence) or isinstance(lines, str):
            raise InputError(f"{name}: the entry of frame {frame} is {lines!r:.40}; expected the list of its strokes.")
        strokes = [_read_stroke(line, shape[1:], f"{name}, frame {frame}, stroke {k}") for k, line in enumerate(lines)]
        found.append(Scribbles(frame, strokes))
    if not found:
        raise InputError(f"{name}: no stroke on any of {len(frames)} frames.")
    sequence = data.get("sequence")
    return found, sequence if isinstance(sequence, str) else ""


def _read_stroke(line: Any, image_shape: tuple[int, int], place: str) -> Stroke:
    """A stroke of the file; `place`: where in it, for messages."""
    if not isinstance(line, Mapping):
        raise InputError(f"{place}: it is {line!r:.40}; expected an object with 'path' and 'object_id'.")
    missing = [repr(name) for name in ("path", "object_id") if name not in line]
    if missing:
        raise InputError(f"{place}: it has no {' and no '.join(missing)}; every stroke needs 'path' and 'object_id'.")
    try:
        path = np.array(line["path"], float)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{place}: its 'path' is no list of numbers ({error}); expected [[x, y], ...].") from error
    if path.size and (path.ndim != 2 or path.shape[1] != 2):
        raise InputError(f"{place}: its 'path' has the shape {path.shape}; expected [[x, y], ...].")
    last = np.array(image_shape) - 1
    try:
        stroke = Stroke(line["object_id"], path.reshape(-1, 2)[:, ::-1] * last)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    if stroke.box(image_shape) is None:
        low, high = path.min(axis=0), path.max(axis=0)
        raise InputError(
            f"{place}: it lies outside the image, with x from {low[0]:g} to {high[0]:g} and y from {low[1]:g} to "
            f"{high[1]:g}; x and y must be from 0 to 1, over the whole width and height, and not in pixels."
        )
    return stroke


def _load_json(source: str | Path | Mapping[str, Any]) -> tuple[str, Any]:
    if isinstance(source, Mapping):
        return "scribbles", source
    path = Path(source)
    try:
        check_text_size(path)
        return path.name, parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"There is no file of scribbles {path}. Check the spelling.") from error
    except OSError as error:
        raise InputError(f"Scribbles file {path} can't be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise InputError(
            f"{path.name} is not JSON ({error}); expected scribbles of the DAVIS interactive kind."
        ) from error


def write_davis(scribbles: Iterable[Scribbles], shape: tuple[int, int, int], sequence: str = "") -> dict[str, Any]:
    """The JSON-able mapping of the DAVIS interactive challenge for these scribbles; see `read_davis`."""
    given = sorted(scribbles, key=lambda s: s.frame)
    size = np.array([max(shape[2] - 1, 1), max(shape[1] - 1, 1)], float)
    frames: list[list[dict[str, Any]]] = [[] for _ in range(shape[0])]
    for one in given:
        if one.frame >= shape[0]:
            raise InputError(f"Scribbles on frame {one.frame}, but the stack has {shape[0]} frames.")
        frames[one.frame] += [
            {
                "path": (s.points[:, ::-1] / size).tolist(),
                "object_id": s.object_id,
                "start_time": 0,
                "end_time": 0,
            }
            for s in one.strokes
        ]
    annotated = given[0].frame if given else 0
    return {"sequence": sequence, "annotated_frame": annotated, "scribbles": frames}
