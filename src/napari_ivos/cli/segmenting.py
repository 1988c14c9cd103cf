"""``segment``: open or make the project, add what is new to it, propagate, write; stoppable at any moment."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari_ivos
from napari_ivos.cli.commands import reading
from napari_ivos.cli.facts import mean_qualities
from napari_ivos.cli.loading import load
from napari_ivos.cli.output import Interrupted
from napari_ivos.cli.writing import plan, write
from napari_ivos.errors import InputError, ProjectError
from napari_ivos.export import check_apart
from napari_ivos.files import from_home
from napari_ivos.scribbles import Scribbles
from napari_ivos.session.starts import as_own, make_own, new_masks, new_strokes, own, read_starts
from napari_ivos.wording import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from napari_ivos.cli.output import Output
    from napari_ivos.frames import FrameStack
    from napari_ivos.session import Session


@dataclass(frozen=True)
class Job:
    """What ``segment`` was asked to do; the arguments, read."""

    input: str
    output: Path
    reading: Mapping[str, Any] = field(default_factory=dict)
    scribbles: Path | None = None
    masks: Path | None = None
    frame: int | None = None
    background: int | None = None
    project: Path | None = None
    formats: str | None = None
    overwrite: bool = False
    model: str | None = None
    device: str | None = None
    force: bool = False

    @classmethod
    def of(cls, options: argparse.Namespace) -> Job:
        return cls(
            options.input,
            options.output,
            reading(options),
            options.scribbles,
            options.masks,
            options.frame,
            options.background,
            options.project,
            options.format,
            options.overwrite,
            options.model,
            options.device,
            options.force,
        )

    @property
    def kept(self) -> Path:
        """The project: the one that is named, or one beside the output that goes when all is well."""
        if self.project is not None:
            return self.project
        whole = self.output.absolute()
        if not whole.name:
            raise InputError(f"{self.output} is no name for results; give a file or a folder to be made.")
        return whole.with_name(whole.name + UNFINISHED)


UNFINISHED = ".unfinished.ivos"
"""How the project of a run ends that goes when all is well."""
MAKER = "segment"
"""In the mark of such a project: one of that name without it is somebody's, and stays."""


@dataclass
class Tally:
    """What the networks did: masks made (one for each object on each frame) and the time for them."""

    masks: int = 0
    frames: int = 0
    seconds: float = 0.0

    @property
    def per_mask(self) -> float | None:
        """Seconds an object and frame, all included."""
        return self.seconds / self.masks if self.masks else None


def segment(job: Job, output: Output) -> dict[str, Any]:
    """Run a job.

    Returns
    -------
    dict
        What was done, JSON-able.

    Raises
    ------
    IvosError
        Something can't be used; what is done is kept in the project.
    Interrupted
        The user stopped it; the same.
    """
    targets = plan(job.output, job.formats, job.overwrite)
    for target in targets:
        check_apart(target.path, from_home(job.input), _read(job))
    _check_own(job)
    if job.scribbles is None and job.masks is None and not _there(job.kept):
        raise InputError("Nothing says what to segment: give --scribbles, --masks, or a --project that holds some.")
    with napari_ivos.open_frames(job.input, **job.reading) as stack:
        told = [*stack.notes]
        for note in [*told, *([stack.hint] if stack.hint else [])]:
            output.note(note)
        starts = read_starts(stack.shape, job.scribbles, job.masks, job.frame, job.background, stack.name)
        for note in starts.notes:
            output.note(note)
        model = load(job.model, job.device)
        with _project(job, stack, model, output) as session:
            tally = run(session, starts.strokes, starts.masks, output)
            for note in stack.notes[len(told) :]:  # what was seen of the frames only as they were read
                output.note(note)
            written = write(session, targets, job.overwrite, output)
            return _facts(job, session, tally, written)


def _read(job: Job) -> dict[str, Path | None]:
    """What else a job reads than the frames."""
    model = None if job.model is None else Path(job.model)
    return {"the scribbles": job.scribbles, "the masks": job.masks, "the project": job.project, "the model": model}


def _check_own(job: Job) -> None:
    """Refuse to go on with, and to delete in the end, a project that is somebody's."""
    if job.project is None and _there(job.kept) and own(job.kept, MAKER) is None:
        raise ProjectError(
            f"{job.kept} is a project that no such command made for itself, so it is left as it is. Name it with "
            "--project to go on with it, or choose another --output."
        )


def _let_go(path: Path, output: Output) -> None:
    """Delete the project of a run that has ended well, but for one in which somebody else has worked, too."""
    found = own(path, MAKER)
    if found is not None and found.untouched:
        path.unlink(missing_ok=True)
    else:
        output.note(f"{path} stays: it holds work that was not done by this command")


def _begun(job: Job, stack: FrameStack, model: Any) -> Session:
    """A session with a new project."""
    named = "--output" if job.project is None else "--project"
    try:
        job.kept.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProjectError(f"{job.kept.parent} can't be made ({error.strerror}): name another {named}.") from error
    if job.project is not None:
        return napari_ivos.Session(stack, model, project=job.project)
    try:
        make_own(job.kept, stack, MAKER)
    except ProjectError as error:  # of a file that nobody has named
        raise ProjectError(
            f"{error} It would lie beside the results until they are written: name an --output elsewhere."
        ) from error
    return napari_ivos.Session.open(job.kept, frames=stack, model=model)


@contextmanager
def _project(job: Job, stack: FrameStack, model: Any, output: Output) -> Iterator[Session]:
    """The session of a job; kept beside the output until the job is done, where no project was named."""
    path = job.kept
    if _there(path):
        session = napari_ivos.Session.open(path, frames=stack, model=model, force=job.force)
        if job.project is None:
            output.note(f"going on with {path}, left by a run that was stopped; delete it to start anew")
        asked = job.reading.get("contrast")
        if asked is not None and session.read_only is None:
            session.contrast = asked  # the one that the project keeps is for those who ask for none
        if job.model is None and session.adapted is not None and session.read_only is None:
            adapted = napari_ivos.adapted_model(session, job.device)
            if adapted is not None:
                session.use_model(adapted)
                output.note("uses the weights that were adapted to this stack; --model compact takes the shipped ones")
    else:
        session = _begun(job, stack, model)
    worthless = False
    try:
        with session:
            try:
                yield session
            except BaseException:
                worthless = not session.log
                raise
    except (KeyboardInterrupt, Interrupted) as stop:
        facts = {**getattr(stop, "facts", {}), "project": str(path)}
        raise Interrupted(f"Stopped. What is done is kept in {path}; the same command again goes on.", facts) from stop
    except BaseException:
        if worthless and job.project is None:
            path.unlink(missing_ok=True)
        elif not worthless:
            output.note(f"what is done is kept in {path}: `napari-ivos export {path} --output ...` writes it")
        raise
    if job.project is None:
        _let_go(path, output)


def _there(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - not a name that is too long: making the project says so


def run(
    session: Session,
    strokes: Sequence[Scribbles],
    masks: Mapping[int, npt.NDArray[Any]],
    output: Output,
) -> Tally:
    """Add what the session doesn't hold yet, and propagate; raises `Interrupted` after Ctrl-C."""
    tally, began = Tally(), time.perf_counter()
    with as_own(session):
        for frame, image in new_masks(session, masks).items():
            session.annotate(frame, image)
        for scribbles in strokes:
            new = new_strokes(session, scribbles)
            if new:
                tally.masks += len(session.interact(Scribbles(scribbles.frame, new)).objects)
    total = session.remaining()
    with output.progress("segmenting", total) as show, _stoppable(session) as stopped:
        for result in session.propagate():
            tally.masks += len(result.objects)
            tally.frames += 1
            show(tally.frames)
        tally.seconds = time.perf_counter() - began
        if stopped.is_set():  # in here, so that the bar stays where it is
            raise Interrupted("Stopped.", {"frames_done": tally.frames, "frames_at_most": total})
    return tally


@contextmanager
def _stoppable(session: Session) -> Iterator[threading.Event]:
    """Let the first Ctrl-C end the propagation after its frame, and a second one end it at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(number: int, frame: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()
        session.cancel()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def _facts(job: Job, session: Session, tally: Tally, written: list[dict[str, Any]]) -> dict[str, Any]:
    model = session.model
    return {
        "input": job.input,
        "shape": list(session.shape),
        "model": None if model is None else {"name": model.name, "checksum": model.checksum, "device": model.device},
        "project": None if job.project is None else str(job.project),
        "objects": [
            {"id": o.id, "name": o.name, "mean_quality": mean}
            for o, mean in zip(session.objects, mean_qualities(session), strict=True)
        ],
        "annotated_frames": list(session.annotated_frames()),
        "frames_changed": tally.frames,
        "masks_made": tally.masks,
        "seconds": round(tally.seconds, 3),
        "seconds_per_object_and_frame": None if tally.per_mask is None else round(tally.per_mask, 5),
        "suggested_frame": session.suggest_frame(),
        "outputs": written,
    }


def summary(facts: Mapping[str, Any]) -> str:
    """What ``segment`` says at its end."""
    frames, objects = facts["shape"][0], facts["objects"]
    each = facts["seconds_per_object_and_frame"]
    time_ = "nothing was left to do" if each is None else f"{each * 1000:.0f} ms an object and frame"
    line = f"{counted(len(objects), 'object')} on {counted(frames, 'frame')}: {facts['seconds']:.1f} s, {time_}."
    if facts["suggested_frame"] is not None:
        line += f" Least certain: frame {facts['suggested_frame']}."
    return line
