"""What can be done now: one pure function of one small record; no Qt, no napari."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_ivos.session import Session

ACTIVE, UNDONE = 1, 0
"""States of a step in a session's log."""
ANNOTATING = ("interact", "annotate", "remove stroke")
LASTING = ("propagate", "adapt")
"""Jobs that the commands that would disturb them wait for; all others are over in a moment, and commands queue up."""


@dataclass(frozen=True)
class State:
    """Everything that decides which commands are possible.

    Parameters
    ----------
    image : bool
        An image layer is chosen.
    session : bool
        Its session is open.
    opening : bool
        A session is being opened.
    model : str
        "" before it is asked for, "loading", "ready", or why there is none.
    read_only : str
        Why the project can't be changed; "" where it can.
    running : str
        Kind of the job that runs or waits: "propagate", "interact", "export" ...; "" where nothing does.
    objects : int
        How many there are.
    selected : int or None
        The chosen object; 0 for background.
    locked : bool
        The chosen object is locked.
    annotated : bool
        There is something to propagate.
    propagated, corrected : bool
        Something was propagated; and again in another round.
    can_undo, can_redo : bool
    comparing : bool
        The result before the last round is shown.
    saved : bool
        The session has a project file.
    adapted : bool
        Its project keeps a model that was adapted to its stack.
    on_annotated : bool
        The frame on screen is annotated.
    on_accepted : bool
        The frame on screen was accepted as right.
    on_gone : bool
        The chosen object was said not to be on the frame on screen.
    """

    image: bool = False
    session: bool = False
    opening: bool = False
    model: str = ""
    read_only: str = ""
    running: str = ""
    objects: int = 0
    selected: int | None = None
    locked: bool = False
    annotated: bool = False
    propagated: bool = False
    corrected: bool = False
    can_undo: bool = False
    can_redo: bool = False
    comparing: bool = False
    saved: bool = False
    adapted: bool = False
    on_annotated: bool = False
    on_accepted: bool = False
    on_gone: bool = False


def state_of(session: Session | None, selected: int | None, **more: Any) -> State:
    """The state that a session (None: not begun) makes possible; `more` is what the session doesn't know."""
    state = State(**more)
    if session is None:
        return state
    objects, log = session.objects, session.log
    active = [s for s in log if s.state == ACTIVE]
    rounds = {s.round for s in active if s.kind == "propagate"}
    return replace(
        state,
        session=True,
        saved=session.path is not None,
        read_only=session.read_only or "",
        objects=len(objects),
        selected=selected,
        locked=any(o.id == selected and o.locked for o in objects),
        annotated=any(s.kind in ANNOTATING for s in active),
        propagated=bool(rounds),
        corrected=len(rounds) > 1,
        can_undo=[s.kind for s in active] not in ([], ["add object"]),  # which Start does by itself
        can_redo=any(s.state == UNDONE for s in log),
        adapted=session.adapted is not None,
    )


COMMANDS = (
    "start",
    "add_object",
    "draw_background",
    "next_object",
    "paint_mask",
    "edit_object",
    "remove_object",
    "divide",
    "object_gone",
    "import_labels",
    "propagate",
    "stop",
    "undo",
    "redo",
    "undo_round",
    "redo_round",
    "compare",
    "next_frame",
    "save_project",
    "export",
    "copy_script",
    "copy_methods",
    "accept_frame",
    "adapt",
    "drop_adapted",
)
"""Names of the commands, as the window has them."""


def reasons(state: State) -> dict[str, str]:
    """Why each command can't be used now, "" where it can: what the window's tooltips say.

    Every command has an entry.
    """
    said = dict.fromkeys(COMMANDS, "")
    said["start"] = _start(state)
    began = "" if state.session else "Choose a stack and press Start first."
    writable = began or (f"The project is read-only: {state.read_only}." if state.read_only else "")
    lasting = state.running in LASTING
    quiet = writable or (f"Wait until it is done ({state.running}), or stop it." if lasting else "")
    chosen = "" if state.selected else "Choose an object in the table first."
    for name in ("add_object", "draw_background"):
        said[name] = writable
    said["next_object"] = writable or ("" if state.objects else "Add an object first.")
    said["paint_mask"] = quiet or ("" if state.objects else "Add an object first.")
    said["edit_object"] = quiet or chosen
    said["remove_object"] = quiet or chosen or ("The object is locked." if state.locked else "")
    said["divide"] = said["object_gone"] = said["remove_object"]
    said["import_labels"] = quiet
    said["propagate"] = _propagate(state, quiet)
    said["stop"] = "" if state.running else "Nothing is running."
    said["undo"] = quiet or ("" if state.can_undo else "There is nothing to take back.")
    said["redo"] = quiet or ("" if state.can_redo else "There is nothing to bring back.")
    said["undo_round"] = said["undo"]
    said["redo_round"] = said["redo"]
    said["compare"] = _compare(state, began)
    said["next_frame"] = began or ("" if state.propagated else "Propagate first: then the worst frame is known.")
    said["save_project"] = began or ("It has its file already." if state.saved else "")
    for name in ("export", "copy_script", "copy_methods"):
        said[name] = began or ("" if state.objects else "There is no object yet.")
    said["accept_frame"] = quiet or _accept(state)
    said["adapt"] = quiet or ("" if state.annotated else "Annotate some frames first.")
    said["drop_adapted"] = quiet or ("" if state.adapted else "The model was not adapted to this stack.")
    return said


def _accept(state: State) -> str:
    if state.on_accepted:
        return ""
    if state.on_annotated:
        return "You annotated this frame: it counts as right already."
    return "" if state.propagated else "Propagate first, and look at the frames that come out."


def _start(state: State) -> str:
    if state.opening:
        return "The stack is being opened."
    return "" if state.image else "Open an image first: File > Open, or File > Open Sample."


def _propagate(state: State, quiet: str) -> str:
    if quiet:
        return quiet
    if not state.annotated:
        return "Draw a stroke on an object first."
    if state.model == "loading":
        return "The model is being loaded."
    return "" if state.model == "ready" else state.model or "No model is loaded yet."


def _compare(state: State, began: str) -> str:
    if began or state.comparing:
        return began
    if state.running in LASTING:
        return f"Wait until it is done ({state.running}), or stop it."
    return "" if state.propagated else "Nothing was propagated yet."
