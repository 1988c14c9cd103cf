"""Edits of the table of objects, as pure functions: what is there in, the new rows out."""

from __future__ import annotations

import colorsys
import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from napari_ivos import wording
from napari_ivos.errors import InputError
from napari_ivos.project import ObjectState

IDS_AT_MOST = 65535
THIS_STEP = -1
"""In `ObjectState.locked`: by the step that is being made."""

States = Mapping[int, ObjectState]
Change = Callable[[States], list[ObjectState]]


def colour_of(object_id: int) -> str:
    """A colour that differs from those of the ids around it: "#rrggbb"."""
    hue = (object_id * 0.61803398875 + 0.35) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.85, 0.6, 0.95)[object_id % 3], (1.0, 0.9, 0.75)[object_id // 3 % 3])
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def check_colour(colour: str | Sequence[float]) -> str:
    """A colour as "#rrggbb": from that, or from three numbers 0..1."""
    if isinstance(colour, str):
        if re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
            return colour.lower()
    elif len(colour) >= 3 and all(0 <= float(c) <= 1 for c in colour[:3]):
        return "#" + "".join(f"{round(float(c) * 255):02x}" for c in colour[:3])
    raise InputError(f"Colour {colour!r}: give '#rrggbb' or three numbers from 0 to 1.")


def check_name(name: object) -> str:
    """A name of an object that every file can hold.

    Raises
    ------
    InputError
        It has characters that no text file can hold.
    """
    text = str(name)
    if wording.UNWRITABLE.search(text):
        raise InputError(f"Name {text!r} has control characters or halves of characters: give it without them.")
    return text


def known(states: States, object_id: int) -> ObjectState:
    """An object that is there."""
    state = states.get(object_id)
    if state is None:
        there = [i for i, s in states.items() if not s.removed]
        some = ", ".join(map(str, there[:10])) + (" ..." if len(there) > 10 else "")
        raise InputError(f"There is no object {object_id}; there are {some or 'none yet'}.")
    if state.removed:
        raise InputError(f"Object {object_id} was removed (undo brings it back); ids are never used again.")
    return state


def free(states: States, object_id: int) -> ObjectState:
    """An object that may be changed: it is there and not locked."""
    state = known(states, object_id)
    if state.locked is not None:
        raise InputError(f"Object {object_id} ({state.name}) is locked: unlock it first.")
    return state


def locked(states: States, object_id: int) -> ObjectState:
    """The object, locked; one that is locked already stays what it was then."""
    state = known(states, object_id)
    return state if state.locked is not None else replace(state, locked=THIS_STEP)


def check_id(object_id: int) -> None:
    """Refuse a number that can be no object's id."""
    if not 1 <= object_id <= IDS_AT_MOST:
        raise InputError(f"Object id {object_id}: ids run from 1 to {IDS_AT_MOST}.")


def next_id(states: States) -> int:
    """The id after the last one; where that is used up, the smallest one that was never used.

    Raises
    ------
    InputError
        All ids were used.
    """
    return next_ids(states, 1)[0]


def next_ids(states: States, count: int) -> list[int]:
    """The next so many ids, see `next_id`."""
    last = max(states, default=0)
    if last + count <= IDS_AT_MOST:
        return list(range(last + 1, last + 1 + count))
    ids = [i for i in range(1, IDS_AT_MOST + 1) if i not in states][:count]
    if len(ids) < count:
        raise InputError(f"All ids from 1 to {IDS_AT_MOST} were used; go on with another project of the same stack.")
    return ids


def new(
    states: States,
    object_id: int | None = None,
    name: str | None = None,
    colour: str | Sequence[float] | None = None,
    start: int = 0,
    stop: int | None = None,
    parent: int | None = None,
) -> ObjectState:
    """A new object; without an id it gets the next one that was never used."""
    if object_id is None:
        object_id = next_id(states)
    object_id = operator.index(object_id)
    check_id(object_id)
    if object_id in states:
        verb = "was removed, and ids are never used again" if states[object_id].removed else "is there already"
        raise InputError(f"Object {object_id} {verb}; the next free id is {next_id(states)}.")
    if parent is not None:
        known(states, parent)
    shown = colour_of(object_id) if colour is None else check_colour(colour)
    return ObjectState(object_id, check_name(name) if name else f"object {object_id}", shown, start, stop, parent)


def missing(states: States, object_ids: Iterable[int]) -> list[ObjectState]:
    """New objects for those of these ids that are not there yet."""
    return [new(states, i) for i in sorted(set(object_ids)) if i not in states]


def check_alive(states: States, object_ids: Collection[int], frame: int) -> None:
    """Refuse to annotate objects that are locked, removed, or not there on that frame."""
    for object_id in sorted(object_ids):
        if object_id not in states:
            continue
        state = free(states, object_id)
        if not state.alive(frame):
            end = "the end" if state.stop is None else f"frame {state.stop - 1}"
            raise InputError(
                f"Object {object_id} ({state.name}) lives from frame {state.start} to {end}, so it can't be annotated "
                f"on frame {frame}. Let it be there (There in napari, set_lifetime), or add a new object."
            )


def check_lifetime(start: int, stop: int | None, frames: int) -> tuple[int, int | None]:
    """A lifetime of at least one frame of the stack."""
    end = frames if stop is None else operator.index(stop)
    if not 0 <= operator.index(start) < min(end, frames):
        raise InputError(f"A lifetime from frame {start} to before {end} holds no frame of a stack of {frames}.")
    return operator.index(start), None if stop is None else end


def ended(states: States, object_id: int, frame: int, frames: int) -> ObjectState:
    """The object, gone from `frame` on."""
    state = free(states, object_id)
    start, stop = check_lifetime(state.start, frame, frames)
    return replace(state, start=start, stop=stop)


def divided(
    states: States, object_id: int, frame: int, daughters: int | Sequence[int], frames: int
) -> list[ObjectState]:
    """The mother, which ends before `frame`, and its daughters, which begin there."""
    mother = ended(states, object_id, frame, frames)
    if not 0 <= frame < frames:
        raise InputError(f"A division on frame {frame} of a stack of {frames} leaves no frame to the daughters.")
    if isinstance(daughters, int):
        daughters = next_ids(states, daughters)
    ids = [operator.index(i) for i in daughters]
    if len(ids) < 2 or len(set(ids)) < len(ids) or object_id in ids:
        raise InputError(f"Object {object_id} divides into {ids}: two or more different objects are needed.")
    made = [_daughter(states, i, object_id, frame, f"{mother.name}.{k}") for k, i in enumerate(ids, 1)]
    return [mother, *made]


def _daughter(states: States, object_id: int, parent: int, frame: int, name: str) -> ObjectState:
    if object_id not in states:
        return new(states, object_id, name=name, start=frame, parent=parent)
    state = free(states, object_id)
    if state.parent is not None:
        raise InputError(f"Object {object_id} already has a parent ({state.parent}).")
    if state.stop is not None and state.stop <= frame:
        raise InputError(f"Object {object_id} ends before frame {frame} and can't begin there.")
    return replace(state, start=frame, parent=parent)
