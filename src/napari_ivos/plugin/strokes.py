"""From the vertices of a layer to strokes, and which of them are new: pure, numpy only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.scribbles import Stroke

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Points = npt.NDArray[np.float64]
ELLIPSE_POINTS = 48
"""So many points of an ellipse are taken."""
Vertices = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Piece:
    """A line on one frame: points (N, 2) are (row, col) in its pixels."""

    frame: int
    points: Points


def pieces_of(points: Points, shape: tuple[int, int, int]) -> tuple[list[Piece], list[str]]:
    """The parts of a line that can be strokes, and what is to be said of those that can't.

    Parameters
    ----------
    points : (N, 3) float array
        (frame, row, col).
    shape : tuple of int
        (T, H, W) of the stack.

    Returns
    -------
    pieces : list of Piece
        One for each run of points on the same frame; a click becomes a dot.
    notes : list of str
    """
    points = points[np.isfinite(points).all(axis=1)]
    pieces: list[Piece] = []
    notes: list[str] = []
    if len(points) == 0:
        return pieces, notes
    frames = np.rint(points[:, 0]).astype(int)
    breaks = np.flatnonzero(np.diff(frames)) + 1
    if len(breaks):
        notes.append(f"A line ran over frames {frames.min()} to {frames.max()}: it was split by frame.")
    for run in np.split(np.arange(len(points)), breaks):
        frame, line = int(frames[run[0]]), points[run, 1:]
        keep = np.append(True, (np.diff(line, axis=0) != 0).any(axis=1))
        piece = Piece(frame, line[keep])
        if not 0 <= frame < shape[0]:
            notes.append(f"A stroke on frame {frame} was dropped: the stack has frames 0 to {shape[0] - 1}.")
        elif Stroke(1, piece.points).box(shape[1:]) is None:
            notes.append(f"A stroke outside the image ({shape[1]} × {shape[2]} px) was dropped.")
        else:
            pieces.append(piece)
    return pieces, notes


def outline(vertices: Vertices, kind: str) -> Vertices:
    """The line that napari shows for a shape.

    Parameters
    ----------
    vertices : (N, ndim) array
        As napari keeps them: of an ellipse, the four corners of the rectangle around it.
    kind : str
        "path", "line", "rectangle", "polygon" or "ellipse".
    """
    if kind == "ellipse":
        turn = np.linspace(0, 2 * np.pi, ELLIPSE_POINTS + 1)[:, None]
        down, across = vertices[1] - vertices[0], vertices[3] - vertices[0]
        middle = (vertices[0] + vertices[2]) / 2
        curve: Vertices = middle + np.cos(turn) * down / 2 + np.sin(turn) * across / 2
        return curve
    return np.concatenate([vertices, vertices[:1]]) if kind in ("rectangle", "polygon") else vertices


def key_of(vertices: Vertices) -> bytes:
    """What tells one line from another: its vertices as napari keeps them."""
    return np.ascontiguousarray(vertices, np.float32).tobytes()


def difference(known: Iterable[Vertices], present: Sequence[Vertices]) -> tuple[list[int], list[int]]:
    """Places of the known lines that are gone, and of the present ones that are new; a moved line is both.

    Parameters
    ----------
    known, present : sequence of (N, ndim) arrays
        Equal lines are paired one to one.
    """
    left = Counter(key_of(v) for v in present)
    gone = []
    for place, vertices in enumerate(known):
        key = key_of(vertices)
        if left[key]:
            left[key] -= 1
        else:
            gone.append(place)
    new = []
    for place in range(len(present) - 1, -1, -1):  # of equal ones, the last drawn is the new one
        key = key_of(present[place])
        if left[key]:
            left[key] -= 1
            new.append(place)
    return gone, new[::-1]
