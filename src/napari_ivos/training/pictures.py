"""Clips, masks and strokes as pictures, to be looked at: a network learns whatever is drawn wrong here as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_ivos.training.clips import TARGET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ivos.scribbles import Stroke
    from napari_ivos.training.rollout import Track

UInt8 = npt.NDArray[np.uint8]

OWN, OTHER, FOUND = (255, 140, 0), (70, 150, 255), (255, 0, 200)
STROKE_COLOURS = {0: (255, 40, 40), 1: (60, 255, 60)}
"""Strokes of the background red, of the target green, of other objects white."""
GAP = 3
"""Pixels between pictures of a sheet."""


def draw_frame(
    frame: UInt8, labels: npt.NDArray[np.integer], found: npt.NDArray[np.bool_] | None = None, zoom: int = 1
) -> UInt8:
    """A frame with the outlines of its labels.

    Parameters
    ----------
    frame : (H, W, 3) uint8 array
        RGB.
    labels : (H, W) int array
        The target's outline is orange, those of other objects are blue.
    found : (H, W) bool array, optional
        What a network made of the target: tinted magenta.
    zoom : int
        Pixels of the picture a pixel of the frame.

    Returns
    -------
    (H * zoom, W * zoom, 3) uint8 array
    """
    import cv2

    picture = frame.astype(np.float32)
    if found is not None:
        picture[found] = 0.6 * picture[found] + 0.4 * np.array(FOUND, np.float32)
    size = (frame.shape[1] * zoom, frame.shape[0] * zoom)
    out = np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    for label in sorted(set(np.unique(labels).tolist()) - {0}, reverse=True):
        mask = cv2.resize((labels == label).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        lines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, lines, -1, OWN if label == TARGET else OTHER, 1)
    return out


def draw_strokes(picture: UInt8, strokes: Sequence[Stroke], zoom: int = 1) -> UInt8:
    """The picture with strokes on it: green the target's, red the background's, white other objects'."""
    import cv2

    out = picture.copy()
    for stroke in strokes:
        colour = STROKE_COLOURS.get(stroke.object_id, (255, 255, 255))
        points = np.rint((np.asarray(stroke.points)[:, ::-1] + 0.5) * zoom - 0.5).astype(np.int32)
        if len(points) == 1:
            cv2.circle(out, tuple(points[0].tolist()), 2, colour, -1)
        cv2.polylines(out, [points[:, None]], False, colour, 2, cv2.LINE_AA)
    return out


def draw_track(track: Track) -> UInt8:
    """One clip of a rollout in a row of frames: truth outlined, what was found tinted, strokes drawn.

    Returns
    -------
    (H, T * W, 3) uint8 array
        With gaps.
    """
    frames = []
    for t in range(len(track.truth)):
        found = track.mask(t) if t in track.patches else None
        picture = draw_frame(track.clip.frames[t], track.clip.labels[t], found)
        frames.append(draw_strokes(picture, track.strokes.get(t, [])))
    return sheet([frames])


def sheet(rows: Sequence[Sequence[UInt8]]) -> UInt8:
    """Pictures of one size in rows, (N * h, M * w, 3) with white gaps; rows may differ in length."""
    h, w = rows[0][0].shape[:2]
    most = max(len(row) for row in rows)
    out = np.full((len(rows) * (h + GAP) - GAP, most * (w + GAP) - GAP, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            out[r * (h + GAP) : r * (h + GAP) + h, c * (w + GAP) : c * (w + GAP) + w] = picture
    return out


def write_picture(picture: UInt8) -> bytes:
    """A picture (H, W, 3) as the bytes of a PNG."""
    import cv2

    return bytes(cv2.imencode(".png", picture[..., ::-1])[1])
