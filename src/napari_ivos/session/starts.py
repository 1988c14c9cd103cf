"""What a session starts from when nobody sits before it: strokes and finished masks in files.

A job that is run again adds nothing twice: `new_strokes` and `new_masks` say what a session does not have already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.frames.painted import label_images
from napari_ivos.project import StepState
from napari_ivos.scribbles import Scribbles, Stroke, read_davis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_ivos.session.session import Session


class Starts(NamedTuple):
    """Strokes, a frame each, and finished masks (H, W) by frame."""

    strokes: list[Scribbles]
    masks: dict[int, npt.NDArray[np.integer[Any]]]


def read_starts(
    shape: tuple[int, int, int],
    scribbles: Path | None = None,
    masks: Path | None = None,
    frame: int | None = None,
    background: int | None = None,
) -> Starts:
    """Read what a session starts from.

    Parameters
    ----------
    shape : tuple of int
        (T, H, W) of the stack.
    scribbles : Path, optional
        JSON of DAVIS interactive, or a label image of painted strokes.
    masks : Path, optional
        Label image of one frame, or of all.
    frame : int, optional
        The frame that a label image belongs to (0).
    background : int, optional
        Value of painted strokes that means background.

    Raises
    ------
    InputError
        A file that can't be read, that doesn't fit the stack, or that holds nothing.
    """
    strokes: list[Scribbles] = []
    if scribbles is not None and scribbles.suffix.lower() == ".json":
        strokes = read_davis(scribbles, shape)
    elif scribbles is not None:
        drawn = label_images(scribbles, shape, frame)
        for at, image in drawn.items():
            if image.all():
                raise InputError(
                    f"{scribbles}: no pixel is 0 on frame {at}. It looks like a picture, not like painted "
                    "strokes, which leave most pixels 0. (Whole masks go with --masks.)"
                )
        strokes = [Scribbles.from_labels(at, image, background) for at, image in drawn.items()]
    return Starts(strokes, {} if masks is None else label_images(masks, shape, frame))


def new_strokes(session: Session, scribbles: Scribbles) -> list[Stroke]:
    """Strokes that are not in the session yet."""
    known = [Stroke(s.object_id, s.points) for s in session.strokes(scribbles.frame)]
    return [stroke for stroke in scribbles.strokes if stroke not in known]


def new_masks(
    session: Session, masks: Mapping[int, npt.NDArray[np.integer[Any]]]
) -> dict[int, npt.NDArray[np.integer[Any]]]:
    """Finished masks that a session was not given yet, by frame; what became of those that it was is the user's."""
    given: dict[int, list[int]] = {}
    for step in session.log:
        if step.kind == "annotate" and step.state is StepState.ACTIVE:
            given.setdefault(step.detail["frame"], []).append(step.number)
    return {frame: image for frame, image in masks.items() if not _holds(session, frame, image, given.get(frame, []))}


def _holds(session: Session, frame: int, image: npt.NDArray[Any], steps: Sequence[int]) -> bool:
    """Whether one of these steps painted the masks of a frame, or they are there, bit by bit, as annotation."""
    inside = image > 0
    if any(np.array_equal(session.painted_by(step).labels[inside], image[inside]) for step in steps):
        return True
    ids = set(np.unique(image).tolist()) - {0}
    known = {o.id for o in session.objects}
    if not ids <= known or any(frame not in session.annotated_frames(i) for i in ids):
        return False
    return bool((session.labels[frame] == image)[inside].all())
