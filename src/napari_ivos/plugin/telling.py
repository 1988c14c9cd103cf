"""A session told to others: as Python, as sentences of a methods section, as tracks; no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.plugin import geometry

if TYPE_CHECKING:
    from pathlib import Path

    from napari.layers import Image, Tracks

    from napari_ivos.plugin.geometry import Layout
    from napari_ivos.session import Session

Table = npt.NDArray[np.float64]


def frames_ahead(session: Session, direction: str, start: int | None, stop: int | None) -> int:
    """About how many frames a propagation will write: from this round's annotated frames to the next ones."""
    if not session.rounds:
        return 0
    now = session.rounds[-1].annotated
    low, high = 0 if start is None else start, session.shape[0] if stop is None else stop
    reached: set[int] = set()
    for info in session.objects:
        mine = sorted(f for f, ids in now.items() if info.id in ids)
        fixed = session.annotated_frames(info.id)
        for frame in mine:
            before = max((f for f in fixed if f < frame), default=info.lifetime.start - 1)
            after = min((f for f in fixed if f > frame), default=info.lifetime.stop)
            reached |= set(range(frame + 1, after)) if direction != "backward" else set()
            reached |= set(range(before + 1, frame)) if direction != "forward" else set()
    return sum(low <= f < high for f in reached)


def script(session: Session, file: Path | None) -> str:
    """Python code that does what was done: objects, strokes and propagations in order.

    Painted masks are in the project and not in the code; a comment says on which frames they were.
    """
    name = "stack" if file is None else str(file)
    options = {} if session.stack is None else session.stack.describe().get("open", {})
    given = "".join(f", {k}={v!r}" for k, v in options.items() if v not in (None, {}, []))
    lines = [
        "import napari_ivos as ivos",
        "",
        f"stack = ivos.open_frames({name!r}{given})",
        "model = ivos.load_model()",
    ]
    lines += ["session = ivos.Session(stack, model)", ""]
    for o in session.objects:
        parent = "" if o.parent is None else f", parent={o.parent}"
        stop = "" if o.lifetime.stop == session.shape[0] else f", stop={o.lifetime.stop}"
        begin = f", start={o.lifetime.start}" if o.lifetime.start else ""
        lines.append(f"session.add_object({o.name!r}, {o.colour!r}, id={o.id}{begin}{stop}{parent})")
    strokes: dict[int, list[Any]] = {}
    for record in session.strokes():
        strokes.setdefault(record.step, []).append(record)
    known = {o.id for o in session.objects} | {0}
    for step in session.log:
        if step.state == 1:
            lines += _step_lines(step, [r for r in strokes.get(step.number, []) if r.object_id in known])
    return "\n".join([*lines, "", 'session.export("labels.tif")', ""])


def _step_lines(step: Any, records: list[Any]) -> list[str]:
    if records:
        lines = [f"session.interact(ivos.Scribbles({records[0].frame}, ["]
        for r in records:
            points = ", ".join(f"({y:.2f}, {x:.2f})" for y, x in r.points)
            lines.append(f"    ivos.Stroke({r.object_id}, [{points}]),")
        return [*lines, "]))"]
    if step.kind == "annotate":
        return [f"# step {step.number}: masks were painted here; session.annotate(frame, labels)"]
    if step.kind == "propagate":
        ways = tuple(step.detail.get("directions", (1, -1)))
        way = {(1,): '"forward"', (-1,): '"backward"'}.get(ways, "")
        return [f"for result in session.propagate({way}):", "    pass"]
    return []


def methods_text(session: Session) -> str:
    """Sentences with the numbers that a methods section needs."""
    from napari_ivos import __version__

    frames, height, width = session.shape
    rounds = [r for r in session.rounds if r.strokes or r.annotated]
    strokes = sum(r.strokes for r in rounds)
    annotated = len({f for r in rounds for f in r.annotated})
    model = "no model" if session.model is None else f"the model {session.model.name} ({session.model.checksum[:12]})"
    count = len(session.objects)
    return (
        f"{count} object{'s' * (count != 1)} in a stack of {frames} frames of {height} × {width} px "
        f"{'were' if count != 1 else 'was'} segmented interactively with napari-ivos {__version__} and {model}: "
        f"{strokes} scribbles on {annotated} of {frames} frames in {len(rounds)} round{'s' * (len(rounds) != 1)} of "
        "scribbling, propagation and correction. The method follows S. W. Oh, J.-Y. Lee, N. Xu and S. J. Kim, Fast "
        "User-Guided Video Object Segmentation by Interaction-and-Propagation Networks, CVPR 2019."
    )


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
