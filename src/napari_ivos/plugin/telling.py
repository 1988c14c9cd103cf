"""A session told to others: as sentences of a methods section, as tracks; and what went wrong; no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_ivos.merging import Origin
from napari_ivos.plugin import geometry
from napari_ivos.wording import REPLACING, counted

if TYPE_CHECKING:
    from collections.abc import Collection

    from napari.layers import Image, Tracks

    from napari_ivos.plugin.geometry import Layout
    from napari_ivos.session import Session

Table = npt.NDArray[np.float64]

REPLACE = "Replace what is there"
"""What is ticked in the window for an export to take the place of an earlier one."""


def failure(error: Exception) -> str:
    """What the user is told of an error; of one that should not be also where its report lies, without image data."""
    from napari_ivos.diagnostics import write_report
    from napari_ivos.errors import IvosError

    told = str(error) if isinstance(error, IvosError) else f"{type(error).__name__}: {error}"
    if isinstance(error, IvosError) and (type(error) is not IvosError or error.__cause__ is None):
        return told.replace(REPLACING, f"tick {REPLACE}")
    try:
        file = write_report(error)
    except OSError as trouble:
        return f"{told} (its report could not be written: {trouble.strerror})"
    return f"{told} (a report of it, without images and folders, is in {file}; please send it with what you did)"


def methods_text(session: Session) -> str:
    """Sentences with the numbers that a methods section needs."""
    from napari_ivos import __version__

    frames, height, width = session.shape
    rounds = [r for r in session.rounds if r.strokes or r.annotated]
    strokes = sum(r.strokes for r in rounds)
    annotated: dict[int, set[int]] = {}
    for r in rounds:
        for frame, ids in r.annotated.items():
            annotated.setdefault(frame, set()).update(ids)
    painted = sum(_painted(session, frame, ids) for frame, ids in annotated.items())
    model = "no model" if session.model is None else f"the model {session.model.name} ({session.model.checksum[:12]})"
    count = len(session.objects)
    given = [counted(strokes, "scribble")] if strokes or not painted else []
    given += [counted(painted, "painted or imported mask")] if painted else []
    return (
        f"{counted(count, 'object')} in a stack of {frames} frames of {height} × {width} px "
        f"{'were' if count != 1 else 'was'} segmented interactively with napari-ivos {__version__} and {model}: "
        f"{' and '.join(given)} on {len(annotated)} of {frames} frames in {counted(len(rounds), 'round')} of "
        "scribbling, propagation and correction. The method follows S. W. Oh, J.-Y. Lee, N. Xu and S. J. Kim, Fast "
        "User-Guided Video Object Segmentation by Interaction-and-Propagation Networks, CVPR 2019."
    )


def _painted(session: Session, frame: int, ids: Collection[int]) -> int:
    """How many of these objects have a mask on a frame that was painted or imported."""
    masks = session.masks(frame)
    return sum(i in masks and masks[i].origin is Origin.PAINTED and masks[i].extent is not None for i in ids)


def tracks(session: Session) -> tuple[Table, dict[int, list[int]]]:
    """Where each object was: rows (id, frame, row, col), and each daughter's mother; reads every frame."""
    from napari_ivos.export import Content

    content = Content.of(session)
    rows = [
        (object_id, frame, *outline.centroid)
        for frame in range(session.shape[0])
        for object_id, outline in content.outlines(frame).items()
    ]
    table = np.array(sorted(rows), float).reshape(-1, 4)
    there = set(table[:, 0].astype(int).tolist())
    return table, {o.id: [o.parent] for o in session.objects if o.parent in there and o.id in there and o.parent}


def tracks_layer(made: tuple[Table, dict[int, list[int]]], image: Image, layout: Layout) -> Tracks:
    """A Tracks layer over the image."""
    from napari.layers import Tracks

    table, graph = made
    place = np.zeros((len(table), layout.ndim + 1))
    place[:, 0] = table[:, 0]
    if layout.frame is not None:
        place[:, 1 + layout.frame] = table[:, 1]
    for axis, at in layout.held.items():
        place[:, 1 + axis] = at
    place[:, -2:] = table[:, 2:]
    placed = geometry.spatial(image)
    return Tracks(place, graph=graph, name=f"{image.name} [tracks]", tail_length=layout.frames, **placed)
