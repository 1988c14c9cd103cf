"""What a session starts from when nobody sits before it: strokes and finished masks in files.

A job that is run again adds nothing twice: `new_strokes` and `new_masks` say what a session does not have already. The
project that it keeps for itself bears its mark: one without is somebody's, and so is what others added to it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.frames.painted import label_images
from napari_ivos.project import Project, StepState
from napari_ivos.scribbles import Scribbles, Stroke, read_davis_of
from napari_ivos.session import stacks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_ivos.session.session import Session

_MARK = "made_by"
"""In a project's table of facts: which job keeps it for itself, what it was made from, and what that job drew."""


class Starts(NamedTuple):
    """Strokes, a frame each, and finished masks (H, W) by frame; what a user should know of them."""

    strokes: list[Scribbles]
    masks: dict[int, npt.NDArray[np.integer[Any]]]
    notes: list[str]


def read_starts(
    shape: tuple[int, int, int],
    scribbles: Path | None = None,
    masks: Path | None = None,
    frame: int | None = None,
    background: int | None = None,
    name: str = "",
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
    name : str
        The stack's, to which the strokes' own word of what they were drawn on is held; empty: it has none.

    Raises
    ------
    InputError
        A file that can't be read, that doesn't fit the stack, or that holds nothing.
    """
    strokes: list[Scribbles] = []
    notes: list[str] = []
    if scribbles is not None and scribbles.suffix.lower() == ".json":
        strokes, drawn_on = read_davis_of(scribbles, shape)
        if _other_name(drawn_on, name):
            notes.append(
                f"{scribbles.name} says that its strokes were drawn on {drawn_on!r}, and this stack is {name!r}; if "
                "that is another stack, its objects lie elsewhere"
            )
    elif scribbles is not None:
        drawn = label_images(scribbles, shape, frame)
        for at, image in drawn.items():
            if image.all():
                raise InputError(
                    f"{scribbles}: no pixel is 0 on frame {at}. It looks like a picture, not like painted "
                    "strokes, which leave most pixels 0. (Whole masks go with --masks.)"
                )
        strokes = [Scribbles.from_labels(at, image, background) for at, image in drawn.items()]
    return Starts(strokes, {} if masks is None else label_images(masks, shape, frame), notes)


def _other_name(a: str, b: str) -> bool:
    """Whether two names, endings aside, are surely of different things: a longer one may be a copy's, or a part's."""
    plain, other = ("".join(filter(str.isalnum, x.split(".")[0].casefold())) for x in (a, b))
    return bool(plain and other) and plain not in other and other not in plain


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


# -- projects that a job keeps for itself


class Own(NamedTuple):
    """What the mark of a job's own project says."""

    origin: str
    """What it was made from, in the job's own words."""
    untouched: bool
    """Whether all that was drawn, painted or edited in it is the job's."""


def make_own(path: Path, stack: stacks.Stack, maker: str) -> None:
    """Make a project that a job keeps for itself.

    Raises
    ------
    ProjectError
        The file exists, or can't be made.
    """
    said = {"by": maker, "from": "", "drawn": ""}
    Project.create(path, stack.shape, {"stack": stacks.identity(stack, path), _MARK: said}).close()


def mark(project: Project, maker: str, origin: str) -> None:
    """Say that a job keeps this project for itself, with all that is in it now."""
    with project.transaction() as writer:
        writer.set_meta(_MARK, {"by": maker, "from": origin, "drawn": project.digest(by_hand=True)})


@contextmanager
def as_own(session: Session) -> Iterator[None]:
    """What is drawn in here is the job's, where all that was there before is; without a mark nothing is noted."""
    project = session._project
    found, before = project.meta(_MARK), project.digest(by_hand=True)
    ours = isinstance(found, dict) and found.get("drawn") == before
    try:
        yield
    finally:
        after = project.digest(by_hand=True)
        if ours and after != before:
            with project.transaction() as writer:
                writer.set_meta(_MARK, {**found, "drawn": after})


def own(path: Path, maker: str) -> Own | None:
    """What is known of the project that a job keeps; None where it is no such one, but somebody's.

    Raises
    ------
    ProjectError
        It can't be read.
    """
    project = Project.open(path, reading=True)
    try:
        found = project.meta(_MARK)
        if not isinstance(found, dict) or found.get("by") != maker:
            return None
        return Own(str(found.get("from")), found.get("drawn") == project.digest(by_hand=True))
    finally:
        project.close()
