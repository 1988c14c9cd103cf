"""A session told as a Python program that does the same again, to the last bit on the same machine; no Qt.

The program replays the steps that count, in order, by calls of the public interface. What doesn't fit into text is
written beside it: painted masks as one compressed .npz, models that only the project has as .safetensors.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.plugin import loading
from napari_ivos.predictor import FakePredictor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from napari_ivos.session import ObjectInfo, Session, Step, StrokeRecord

Masks = dict[str, npt.NDArray[np.uint16]]
ACTIVE = 1
"""State of a step in a session's log."""
WAYS = {(1,): '"forward"', (-1,): '"backward"'}
CHECKED = '''
def checked(model, checksum):
    """Only the very same weights give the very same masks."""
    if model.checksum != checksum:
        raise SystemExit(f"This was done with model {checksum}, not {model.checksum}: give its file to load_model.")
    return model
'''
PAINTED = '''
def painted(step, row, column):
    """The masks that a step painted, in a whole frame."""
    labels, part = np.zeros(session.shape[1:], np.uint16), masks[f"step_{step}"]
    labels[row : row + part.shape[0], column : column + part.shape[1]] = part
    return labels
'''


def script(session: Session, folder: Path, source: str | Path | None = None) -> tuple[str, Path | None]:
    """The program, and the file of its painted masks, if it has any; these, and models, are written into `folder`.

    Parameters
    ----------
    session : Session
        With its paint committed.
    folder : Path
        Where the program will look for them.
    source : str or path, optional
        What the model in use was loaded from, where it isn't the shipped one.

    Raises
    ------
    InputError
        They can't be written there.
    """
    masks: Masks = {}
    models: dict[str, str] = {}
    body = _Replay(session, masks, models).lines()
    stem = "work" if session.path is None else session.path.stem
    try:
        folder.mkdir(parents=True, exist_ok=True)
        loads = {checksum: _model(session, checksum, folder, stem, source) for checksum in models}
        stored = folder / f"{stem}_masks_{_digest(masks)}.npz"
        if masks:
            np.savez_compressed(stored, allow_pickle=False, **masks)
    except OSError as error:
        raise InputError(
            f"The script's masks can't be written into {folder} ({error}): choose another folder."
        ) from error
    lines = ["import numpy as np", ""] if masks else []
    threads = loading.threads()
    if threads and models:
        lines += ["import torch", ""]
    lines += ["import napari_ivos as ivos", CHECKED, "", *_opening(session)]
    if threads and models:
        lines += [f"torch.set_num_threads({threads})  # sums are rounded in the order that the threads give them"]
    lines += [f'{name} = checked({loads[checksum]}, "{checksum}")' for checksum, name in models.items()]
    first = next(iter(models.values()), "")
    lines += [f"session = ivos.Session(stack{', ' * bool(first)}{first})"]
    if session.stack is not None and session.stack.contrast_known:
        lines += [f"session.contrast = {[tuple(map(float, pair)) for pair in session.contrast]}"]
    if masks:
        lines += [f"with np.load({str(stored)!r}) as file:", "    masks = dict(file)", PAINTED]
    return "\n".join([*lines, "", *body, "", 'session.export("labels.tif")', ""]), stored if masks else None


def _digest(masks: Masks) -> str:
    """What tells masks from others: no script reads those of another one, and none are written over."""
    found = hashlib.sha256()
    for name, mask in masks.items():
        found.update(f"{name} {mask.dtype.str} {mask.shape}".encode())
        found.update(np.ascontiguousarray(mask).tobytes())
    return found.hexdigest()[:8]


def _opening(session: Session) -> list[str]:
    """How the stack is opened."""
    stack = session.stack
    options = {} if stack is None else stack.describe().get("open", {})
    given = "".join(f", {k}={v!r}" for k, v in options.items() if v not in (None, {}, []))
    if stack is None or stack.source is None:
        note = "# the frames did not come from a file: save them as this one first"
        return [note, f'stack = ivos.open_frames("stack.tif"{given})']
    return [f"stack = ivos.open_frames({str(stack.source)!r}{given})"]


def _model(session: Session, checksum: str, folder: Path, stem: str, source: str | Path | None) -> str:
    """How a model is loaded; one that travels with the project is written beside the program."""
    model = session.model
    device = "" if model is None else f"device={model.device!r}"
    stored = next((m for m in session.stored_models if m.checksum == checksum), None)
    if stored is not None:
        weights = session.stored_weights(checksum)
        path = folder / f"{stem}_model_{hashlib.sha256(weights).hexdigest()[:8]}.safetensors"
        path.write_bytes(weights)
        return f"ivos.load_model({str(path)!r}, {device})"
    if isinstance(model, FakePredictor) and model.checksum == checksum:
        return "ivos.FakePredictor()"
    if source is not None and model is not None and model.checksum == checksum:
        return f"ivos.load_model({str(source)!r}, {device})"
    return f"ivos.load_model({device})"


class _Replay:
    """The lines that do the steps again.

    Parameters
    ----------
    session : Session
    masks, models : dict
        Filled on the way: painted masks by their names, and the variables of models by checksum.
    """

    def __init__(self, session: Session, masks: Masks, models: dict[str, str]) -> None:
        self._session = session
        self._masks = masks
        self._models = models
        self._model: str | None = None
        self._present: list[int] = []  # ids of the strokes that the program's session has, in order
        self._made: set[int] = {0}  # objects that the program's session knows, and the background
        self._waiting: dict[int, list[StrokeRecord]] = {}  # by frame: kept while a model failed
        self._strokes: dict[int, list[StrokeRecord]] = {}
        for record in session.strokes(withdrawn=True):
            self._strokes.setdefault(record.step, []).append(record)

    def lines(self) -> list[str]:
        """All of them, in order."""
        return [line for s in self._session.log if s.state == ACTIVE for line in self._step(s)]

    def _step(self, step: Step) -> list[str]:
        if step.kind == "interact":
            return self._interact(step)
        if step.kind == "annotate":
            return self._annotate(step)
        if step.kind == "propagate":
            return self._propagate(step)
        if step.kind == "remove stroke":
            stroke = int(step.detail["stroke"])
            for waiting in self._waiting.values():
                at = next((k for k, r in enumerate(waiting) if r.id == stroke), None)
                if at is not None:  # the program doesn't draw it in the first place
                    return self._add([waiting.pop(at).object_id])
            place = self._present.index(stroke)
            del self._present[place]
            return [*self._with_model(step), f"session.remove_stroke(session.strokes()[{place}].id)"]
        return self._edit(step)

    def _with_model(self, step: Step) -> list[str]:
        """Go on with the model of a step."""
        checksum = step.model
        if checksum is None or checksum == self._model:
            return []
        first, self._model = self._model is None, checksum
        name = self._models.setdefault(checksum, f"model_{len(self._models) + 1}" if self._models else "model")
        return [] if first else [f"session.use_model({name})"]

    def _interact(self, step: Step) -> list[str]:
        records = self._strokes.get(step.number, [])
        waiting = self._waiting.setdefault(records[0].frame, []) if records else []
        waiting += records
        if step.seconds == 0:  # their masks were made together with later ones
            return []
        lines = [*self._with_model(step), f"session.interact(ivos.Scribbles({waiting[0].frame}, ["]
        for r in waiting:
            points = ", ".join(f"({float(y)!r}, {float(x)!r})" for y, x in r.points)
            lines.append(f"    ivos.Stroke({r.object_id}, [{points}]),")
        self._made.update(r.object_id for r in waiting)
        self._present += [r.id for r in waiting]
        waiting.clear()
        return [*lines, "]))"]

    def _annotate(self, step: Step) -> list[str]:
        painted = self._session.painted_by(step.number)
        rows, columns = np.nonzero(painted.labels)
        y, x = (int(rows.min()), int(columns.min())) if rows.size else (0, 0)
        part = painted.labels[y : rows.max() + 1, x : columns.max() + 1] if rows.size else painted.labels[:1, :1]
        self._masks[f"step_{step.number}"] = part
        self._made.update(painted.objects)
        whose = f"objects={list(painted.objects)}, spreads={list(painted.spreads)}"
        return [f"session.annotate({painted.frame}, painted({step.number}, {y}, {x}), {whose})"]

    def _propagate(self, step: Step) -> list[str]:
        detail = step.detail
        given = [WAYS.get(tuple(detail.get("directions", (1, -1))), '"both"')]
        frames = list(detail.get("frames", [0, self._session.shape[0]]))
        if frames != [0, self._session.shape[0]]:
            given += [f"start={frames[0]}", f"stop={frames[1]}"]
        free = [o.id for o in self._session.objects_after(step.number) if not o.locked]
        if detail.get("objects", free) != free:
            given.append(f"objects={list(detail['objects'])}")
        if not detail.get("complete"):
            given.append(f"most={step.frames}")
        return [*self._with_model(step), f"for result in session.propagate({', '.join(given)}):", "    pass"]

    def _edit(self, step: Step) -> list[str]:
        """An edit of the table of objects.

        Before it come those that the program does not have, because the strokes or the paint that made them were undone
        since, or have no masks yet.
        """
        ids = [int(i) for i in step.detail.get("objects", [])]
        there = {o.id: o for o in self._session.objects_after(step.number)}
        fresh = ids if step.kind == "add object" else []
        if step.kind == "divide":
            fresh = [i for k, i in enumerate(ids) if k and there[i].name == f"{there[ids[0]].name}.{k}"]
        parents = [there[i].parent for i in fresh if i in there]
        lines = self._add([*(i for i in parents if i in there), *(i for i in ids if i not in fresh)])
        self._made.update(ids)
        return [*lines, *_edit(step, ids, there, self._session.shape[0])]

    def _add(self, ids: Iterable[int]) -> list[str]:
        """Objects as strokes and paint make them, where the program does not have them."""
        missing = [i for i in dict.fromkeys(ids) if i not in self._made]
        self._made.update(missing)
        return [f"session.add_object(id={i})" for i in missing]


def _edit(step: Step, ids: Sequence[int], there: Mapping[int, ObjectInfo], frames: int) -> list[str]:
    """An edit of the table of objects, which holds those in `there` after it."""
    if not ids:
        return []
    first = ids[0]
    if step.kind == "remove object":
        return [f"session.remove_object({i})" for i in ids]
    info = there[first]
    stop = None if info.lifetime.stop == frames else info.lifetime.stop
    parent = info.parent if info.parent in there else None  # gone with the strokes or paint that made it
    calls: dict[str, Any] = {
        "add object": f"add_object({info.name!r}, {info.colour!r}, id={first}, start={info.lifetime.start}, "
        f"stop={stop}, parent={parent})",
        "rename": f"rename({first}, {info.name!r})",
        "recolour": f"recolour({first}, {info.colour!r})",
        "lock": f"lock({first})",
        "unlock": f"unlock({first})",
        "end object": f"end_object({first}, {info.lifetime.stop})",
        "set lifetime": f"set_lifetime({first}, {info.lifetime.start}, {stop})",
        "divide": f"divide({first}, {info.lifetime.stop}, {ids[1:]})",
    }
    if step.kind not in calls:
        raise InputError(
            f'Step {step.number} ("{step.kind}") is of a kind that this version can not write as a script.'
        )
    return [f"session.{calls[step.kind]}"]
