"""``adapt``: fine-tune the model on a project's annotated frames, keep it in the project, or drop it again."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import napari_ivos
from napari_ivos.adapting import STEPS
from napari_ivos.cli.loading import load
from napari_ivos.cli.output import Interrupted
from napari_ivos.errors import InputError, ReadOnlyProject

if TYPE_CHECKING:
    import argparse

    from napari_ivos.adapting import Adaptation
    from napari_ivos.cli.output import Output
    from napari_ivos.session import Session


def adapt(options: argparse.Namespace, output: Output) -> dict[str, Any]:
    """Run the command.

    Returns
    -------
    dict
        What came of it, JSON-able.

    Raises
    ------
    IvosError
        Something can't be used; the project is as it was.
    Interrupted
        The user stopped it; the same.
    """
    with napari_ivos.Session.open(options.project, frames=options.frames, force=options.force) as session:
        if session.read_only is not None:
            raise ReadOnlyProject(f"{options.project} is open for reading only: {session.read_only}.")
        facts = {"project": str(options.project)}
        if options.drop:
            return {**facts, **_drop(session, output)}
        accepted = frames_of(options.accept or "")
        model = load(options.model, options.device)
        run = napari_ivos.adapt(session, model=model, seconds=options.seconds, accepted=accepted, seed=options.seed)
        try:
            with output.progress("adapting", STEPS, unit="step") as show:
                for progress in run:
                    show(progress.done)
        except KeyboardInterrupt as stop:
            raise Interrupted("Stopped. The project is as it was.", facts) from stop
        return {**facts, **_keep(session, progress, output)}


def _keep(session: Session, progress: Adaptation, output: Output) -> dict[str, Any]:
    report, model = progress.report, progress.model
    if report is None or model is None:
        raise AssertionError("adapting ended without a model")
    output.say(str(report))
    if report.kept:
        session.use_model(model)
        output.say("The adapted weights are in the project; `segment` with this project uses them.")
    return {"model": {"name": model.name, "checksum": model.checksum, "device": model.device}, **asdict(report)}


def _drop(session: Session, output: Output) -> dict[str, Any]:
    kept = session.adapted
    session.drop_adapted()
    freed = session.compact()
    output.say(
        "There are no adapted weights in this project." if kept is None else "The project's adapted weights are gone."
    )
    return {"dropped": None if kept is None else kept.checksum, "bytes_freed": freed}


def frames_of(text: str) -> list[int]:
    """Frames from "3,7-9".

    Raises
    ------
    InputError
        It is no such list.
    """
    found: list[int] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InputError(f"--accept {text!r}: give frames such as 3,7-9.")
        found += range(int(first), int(last or first) + 1)
    return found
