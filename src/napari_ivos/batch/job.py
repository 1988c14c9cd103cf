"""One stack of a batch, from its line in the manifest to its exports; its project is written here and nowhere else."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import queue
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from napari_ivos.batch import workers
from napari_ivos.batch.summary import StackResult
from napari_ivos.errors import InputError, IvosError, ProjectError
from napari_ivos.files import write_whole
from napari_ivos.project import Project
from napari_ivos.scribbles import Scribbles
from napari_ivos.session import Session, stacks
from napari_ivos.session.exporting import exporter
from napari_ivos.session.parcels import sharing
from napari_ivos.session.starts import as_own, mark, new_masks, new_strokes, own, read_starts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    import numpy.typing as npt

    from napari_ivos.batch.manifest import Entry
    from napari_ivos.batch.model import AbsentModel
    from napari_ivos.frames import FrameStack
    from napari_ivos.project import Rows
    from napari_ivos.regions import Box
    from napari_ivos.session.exporting import Target
    from napari_ivos.session.lots import Lot
    from napari_ivos.session.parcels import Parcel, Part, Sharing

_log = logging.getLogger(__name__)

SECONDS_A_PARCEL = 4.0
"""Parcels grow or shrink towards this; a worker that dies loses no more than one of them."""
FIRST_FRAMES = 4
MOST_FRAMES = 256
RECORD_LIMIT = 1 << 20
MAKER = "batch"
"""In the mark of projects that a batch made."""
_LOOKED_AT = 1 << 14  # files of one stack whose sizes and times are asked for; a zarr may have millions
_WAKE = 0.2  # seconds between two looks at whether the batch is to stop


class Stopped(Exception):
    """The batch is to stop; what was finished is kept."""


class Crew(Protocol):
    """The workers, as one stack's job sees them."""

    @property
    def model(self) -> AbsentModel: ...
    @property
    def frames_a_parcel(self) -> int | None: ...
    @property
    def stopping(self) -> bool: ...

    def submit(self, job: int, near: str | None, function: Callable[..., Any], *arguments: Any) -> Any:
        """Give a worker something to do, if possible the one at the address `near`; a dask Future."""
        ...

    def spare(self, ways: int) -> int:
        """Workers for each of a stack's independent parts, in which objects may be told apart; 1: they may not."""
        ...

    def told(self, job: int, frames: int = 0, planned: int = 0) -> None:
        """Count frames that are done, or that will be."""
        ...


class SurveyedStack:
    """A stack as a worker saw it; pixels are read here for exports only.

    Parameters
    ----------
    path : Path
        Where it is.
    survey : Survey
        What a worker found.
    """

    def __init__(self, path: Path, survey: workers.Survey) -> None:
        self._survey = survey
        self._opened: FrameStack | None = None
        self.shape = survey.shape
        self.name = survey.name
        self.source = path
        self.contrast: Any = survey.contrast

    @property
    def contrast_known(self) -> bool:
        return self.contrast is not None

    def fingerprint(self) -> str:
        return self._survey.fingerprint

    def describe(self) -> dict[str, Any]:
        return dict(self._survey.facts)

    @property
    def options(self) -> dict[str, Any]:
        """Options with which a worker opens the very same stack, with the contrast as it is known now."""
        contrast = None if self.contrast is None else tuple(tuple(pair) for pair in self.contrast)
        return {**self._survey.facts["open"], "contrast": contrast}

    def _stack(self) -> FrameStack:
        from napari_ivos.frames import open_frames

        if self._opened is None:
            self._opened = open_frames(self.source, **self.options)
        return self._opened

    def read(self, frame: int, box: Box | None = None) -> npt.NDArray[np.float32]:
        return self._stack().read(frame, box)

    def raw(self, frame: int, box: Box | None = None) -> npt.NDArray[Any]:
        return self._stack().raw(frame, box)

    def prefetch(self, frame: int, box: Box | None = None) -> None:
        self._stack().prefetch(frame, box)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


@dataclass
class Tally:
    """What the networks did for one stack."""

    frames: set[int]
    masks: int = 0


# -- a stack as the manifest and earlier runs leave it


def digest_of(entry: Entry, model: str, origin: str) -> str:
    """What a stack's results depend on; another digest, and it is looked at again.

    Raises
    ------
    InputError
        A file that the manifest names is not there.
    """
    facts: list[Any] = [model, entry.name, entry.frame, entry.background, entry.formats]
    facts += [sorted(entry.reading.items()), entry.output.name, origin]
    return _hashed([*facts, _looks(entry.scribbles), _looks(entry.masks)])


def origin_of(entry: Entry) -> str:
    """What a stack's own project is made from: its frames, and what was done in the project that the manifest names.

    Raises
    ------
    InputError, ProjectError
        They are not there, or can't be read.
    """
    if entry.project is None:
        return _hashed([_looks(entry.input)])
    if not entry.project.exists():
        raise InputError(f"{entry.project} can't be read: there is no such file.")
    project = Project.open(entry.project, reading=True)
    try:
        facts, contrast, done = project.meta("stack", {}), project.meta("contrast"), project.digest()
    finally:
        project.close()
    kept: Mapping[str, Any] = facts if isinstance(facts, dict) else {}
    frames = entry.input or stacks.find(kept, entry.project)
    return _hashed([_looks(frames), kept.get("fingerprint"), kept.get("options"), contrast, done])


def _hashed(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


def _looks(path: Path | None) -> Any:
    """Names, sizes and times of the files behind a path; of very many, names of all, and the others of some."""
    from napari_ivos.frames import files_of

    if path is None:
        return None
    digest = hashlib.sha256()
    try:
        files = files_of(path)
        every = len(files) // _LOOKED_AT + 1
        for number, file in enumerate(files):
            found = None if number % every else file.stat()
            told = (str(file).removeprefix(str(path)), found and (found.st_size, found.st_mtime_ns))
            digest.update(repr(told).encode())
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}.") from error
    return [path.name, digest.hexdigest()]


def _recorded(entry: Entry) -> tuple[str, tuple[str, ...]] | None:
    """Digest and files of the run that finished a stack; None where no record is, or none of ours."""
    path = entry.record
    try:
        if path.stat().st_size > RECORD_LIMIT:
            return None
        data = json.loads(path.read_text(encoding="utf-8"))
        return str(data["digest"]), tuple(str(o) for o in data["result"]["outputs"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None


def seen_before(entry: Entry) -> bool:
    """Whether an earlier run began or finished a stack: exports that are there are its own, and may be replaced."""
    return entry.kept.exists() or _recorded(entry) is not None


def targets_of(entry: Entry, overwrite: bool) -> list[Target]:
    """What is to be written, over what earlier runs left, and with `overwrite` over other results.

    Raises
    ------
    InputError
        Something is in the way, such as what the stack is made from.
    """
    targets = entry.targets(overwrite or seen_before(entry))
    others = {"the scribbles": entry.scribbles, "the masks": entry.masks, "the project": entry.project}
    for target in targets:
        exporter().check_apart(target.path, entry.input, others)
    return targets


def finished(entry: Entry, digest: str) -> StackResult | None:
    """The result of an earlier run that finished this very stack, with all its files still there."""
    found = _recorded(entry)
    if found is None:
        return None
    before, outputs = found
    targets = {str(target.path) for target in entry.targets(overwrite=True)}
    there = entry.kept.exists() and targets <= set(outputs) and all(Path(t).exists() for t in targets)
    if not (before == digest and there):
        return None
    return StackResult(entry.name, "earlier", project=str(entry.kept), outputs=outputs)


def all_finished(entries: Iterable[Entry], model: str) -> tuple[StackResult, ...] | None:
    """The results of earlier runs, where these finished every stack; None at the first one that is to be looked at."""
    found = []
    for entry in entries:
        try:
            result = finished(entry, digest_of(entry, model, origin_of(entry)))
        except (IvosError, OSError):  # its own job will tell
            return None
        if result is None:
            return None
        found.append(result)
    return tuple(found)


def goes_on(entry: Entry, origin: str) -> bool:
    """Whether a stack's own project is there, and was made from what the manifest names as that is now.

    Raises
    ------
    ProjectError
        No batch made it, or it holds what no batch drew and can't be made anew for that: it is left as it is.
    """
    if not entry.kept.exists():
        return False
    found = own(entry.kept, MAKER)
    if found is None:
        raise ProjectError(
            f"{entry.kept} is a project that no batch made, so it is left as it is. Give this stack another name, or "
            "name another output folder."
        )
    if found.origin == origin:
        return True
    if not found.untouched:
        raise ProjectError(
            f"{entry.kept} was corrected since a batch made it, and what it was made from was changed too. Move it to "
            "another folder: then this stack is done anew, or goes on from there where it is named as its project."
        )
    return False


def frames_of(entry: Entry, begun: bool) -> tuple[Path, dict[str, Any]]:
    """Where a stack's frames are, and how they are opened; `begun`: its own project says so.

    Raises
    ------
    InputError, ProjectError
        Nothing says where, or the project that does can't be read.
    """
    project = entry.kept if begun else entry.project
    if project is None:
        if entry.input is None:
            raise InputError("neither input nor project is named")
        return entry.input, dict(entry.reading)
    opened = Project.open(project, reading=True)
    try:
        facts = opened.meta("stack", {})
        contrast = opened.meta("contrast")
    finally:
        opened.close()
    kept: Mapping[str, Any] = facts if isinstance(facts, dict) else {}
    found = entry.input or stacks.find(kept, project)
    if found is None:
        raise InputError(f"The frames of {project} were not found beside it: name them (column input).")
    given = kept.get("options")
    options = {k: given[k] for k in stacks.OPTIONS if k in given} if isinstance(given, dict) else {}
    return found, {**options, **({} if contrast is None else {"contrast": contrast}), **entry.reading}


def check_places(entry: Entry) -> None:
    """Look once more whether results stay below the output folder, and take no other file's place there.

    Raises
    ------
    InputError
        They would not: links may have been made since, and somebody's file may have the name of the record.
    """
    root = entry.kept.parent.resolve()
    for path in (entry.kept, entry.output, entry.record):
        if not path.resolve().is_relative_to(root):
            raise InputError(f"{path} is a link that leads out of the output folder {root}; remove it.")
    if entry.record.exists() and _recorded(entry) is None:
        raise InputError(
            f"{entry.record} was not written by a batch, and what is known of the finished stack would be written "
            "there. Move it, give this stack another name, or name another output folder."
        )


class Job:
    """One stack's work.

    Parameters
    ----------
    number : int
        Its place in the manifest.
    entry : Entry
        Its line.
    crew : Crew
        Who computes.
    overwrite : bool
        Whether results that no earlier run left may be replaced.
    """

    def __init__(self, number: int, entry: Entry, crew: Crew, overwrite: bool) -> None:
        self._number = number
        self._entry = entry
        self._crew = crew
        self._overwrite = overwrite
        self._tally = Tally(set())
        self._notes: list[str] = []
        self._last: str | None = None
        self._ways = 1

    def run(self) -> StackResult:
        """Do everything that is not done yet; whatever goes wrong is in the result."""
        started = time.perf_counter()
        try:
            origin = origin_of(self._entry)
            digest = digest_of(self._entry, self._crew.model.checksum, origin)
            earlier = finished(self._entry, digest)
            if earlier is not None:
                return earlier
            outputs = self._do(origin)
            result = self._result("done", "", started, outputs)
            write_whole(self._entry.record, json.dumps({"digest": digest, "result": asdict(result)}, indent=1).encode())
        except Stopped:
            return self._result("stopped", "", started)
        except IvosError as error:
            return self._result("failed", str(error), started)
        except Exception as error:  # noqa: BLE001 - one bad stack fails alone, whatever is wrong with it
            _log.exception("%s failed in a way that was not foreseen", self._entry.name)
            return self._result("failed", f"{type(error).__name__}: {error}", started)
        return result

    def _result(self, state: Any, error: str, started: float, outputs: Iterable[str] = ()) -> StackResult:
        seconds = time.perf_counter() - started
        frames = len(self._tally.frames)
        kept = str(self._entry.kept) if self._entry.kept.exists() else ""
        rate = frames / seconds if frames else 0.0
        return StackResult(
            self._entry.name,
            state,
            error,
            frames,
            self._tally.masks,
            round(seconds, 3),
            round(rate, 3),
            kept,
            tuple(outputs),
            tuple(self._notes),
        )

    # -- the way

    def _do(self, origin: str) -> list[str]:
        entry = self._entry
        check_places(entry)
        begun = goes_on(entry, origin)
        entry.kept.parent.mkdir(parents=True, exist_ok=True)
        targets = targets_of(entry, self._overwrite)
        with self._open(begun, origin) as session:
            self._check_model(session)
            about = (entry.scribbles, entry.masks, entry.frame, entry.background)
            starts = read_starts(session.shape, *about, "" if session.stack is None else session.stack.name)
            self._notes += starts.notes
            with as_own(session):
                for frame, image in new_masks(session, starts.masks).items():
                    session.annotate(frame, image)
            with sharing(session) as shared:
                with as_own(session):
                    for scribbles in starts.strokes:
                        new = new_strokes(session, scribbles)
                        if new:
                            shared.draw(Scribbles(scribbles.frame, new))
                self._each(session, shared, shared.strokes())
                self._propagate(session, shared)
            return [self._export(session, target.path, target.format) for target in targets]

    def _export(self, session: Session, path: Path, name: str) -> str:
        def tick(done: int, total: int) -> None:
            if self._crew.stopping:
                raise Stopped

        if self._crew.stopping:
            raise Stopped
        written = session.export(path, name, overwrite=True, progress=tick)
        self._notes += [note for note in written.notes if note not in self._notes]
        return str(path)

    # -- its project

    def _open(self, begun: bool, origin: str) -> Session:
        """Its session, with the project in the output folder; a new one appears there only when it is whole."""
        entry = self._entry
        source, options = frames_of(entry, begun)
        survey = self._wait(self._crew.submit(self._number, None, workers.survey, str(source), options, True))
        self._notes += survey.notes
        stack = SurveyedStack(source, survey)
        if not begun:
            scratch = entry.kept.with_name(f".{entry.name}.ivos.new")
            for left in entry.kept.parent.glob(f".{glob_safe(entry.name)}.ivos.new*"):
                left.unlink()
            if entry.project is not None:
                self._copy(entry.project, scratch, stack)
            else:
                Session(stack, self._crew.model, project=scratch).close()
            self._put(scratch, origin)
        return Session.open(entry.kept, frames=stack, model=self._crew.model)

    def _copy(self, origin: Path, scratch: Path, stack: SurveyedStack) -> None:
        """Copy a project that the manifest brings, and tell the copy where its stack is."""
        original = Project.open(origin, reading=True)
        try:
            original.copy_to(scratch)
        finally:
            original.close()
        copy = Project.open(scratch)
        try:
            facts = copy.meta("stack", {})
            stacks.check_same(stack, copy.shape, facts, force=False)
            try:
                place: str | None = os.path.relpath(stack.source, self._entry.kept.parent)
            except ValueError:  # another drive
                place = None
            with copy.transaction() as writer:
                writer.set_meta("stack", {**facts, "path": None if place is None else place.replace(os.sep, "/")})
        finally:
            copy.close()

    def _put(self, scratch: Path, origin: str) -> None:
        """Mark a new project, and put it in its place; one that was there was made from what is no longer so."""
        kept = self._entry.kept
        project = Project.open(scratch)
        try:
            mark(project, MAKER, origin)
        finally:
            project.close()
        if not kept.exists():
            os.replace(scratch, kept)  # noqa: PTH105 - within one folder, over nothing
            return
        Project.replace(kept, scratch)
        self._notes.append(f"{kept.name} was made anew: its frames, or the project that it began with, were changed.")

    def _check_model(self, session: Session) -> None:
        """Refuse to go on with another model than the one that made what this batch has made so far."""
        model = self._crew.model.checksum
        used = {step.model for step in session.log if step.model is not None and step.state > 0}
        if self._entry.project is None and used - {model}:
            raise ProjectError(
                f"{self._entry.kept} was made with another model ({', '.join(sorted(m[:12] for m in used - {model}))}; "
                f"this run has {model[:12]}). Name another output folder, or delete this project to start anew."
            )

    # -- the work

    def _each(self, session: Session, shared: Sharing, parcels: Iterable[Parcel]) -> None:
        """Have parcels done that know nothing of each other, and keep what comes of them."""
        waiting = _Waiting()
        errors: list[BaseException] = []
        for parcel in parcels:
            if self._crew.stopping:
                break
            waiting.add(self._send(session, parcel, None, self._last), parcel)
            if not self._contrast_known(session):  # the first region that tells decides, as in a session
                self._take(shared, waiting, errors)
        while waiting:
            self._take(shared, waiting, errors)
        self._settle(errors)

    def _propagate(self, session: Session, shared: Sharing) -> None:
        shared.plan()
        self._each(session, shared, shared.unlearned())
        shared.plan()
        parts = shared.parts()
        self._crew.told(self._number, planned=sum(part.total for part in parts))
        waiting = _Waiting()
        errors: list[BaseException] = []
        ways = [_Way(part, self._crew.frames_a_parcel) for part in parts]
        self._ways = len(ways)
        for way in ways:
            self._send_next(session, shared, way, waiting)
            if not self._contrast_known(session):
                while waiting:
                    self._advance(session, shared, waiting, errors)
        while waiting:
            self._advance(session, shared, waiting, errors)
        self._settle(errors)
        shared.conclude()

    def _advance(self, session: Session, shared: Sharing, waiting: _Waiting, errors: list[BaseException]) -> None:
        """Keep what came of one parcel, and send the next one of its part."""
        taken = self._take(shared, waiting, errors)
        if taken is not None:
            self._send_next(session, shared, taken, waiting)

    def _send_next(self, session: Session, shared: Sharing, way: _Way, waiting: _Waiting) -> None:
        if self._crew.stopping:
            return
        lot = way.lot = shared.next(way.part, way.most, self._crew.spare(self._ways))
        if lot is None:
            return
        if way.references is None:
            rows = shared.references(way.part)
            way.references = self._crew.submit(self._number, way.worker, workers.hold, rows)
        for place, parcel in enumerate(lot.parcels):
            near = way.worker if place == 0 else None
            waiting.add(self._send(session, parcel, way.references, near), parcel, way)

    def _send(self, session: Session, parcel: Parcel, references: Rows | None, near: str | None) -> Any:
        stack = session.stack
        if not isinstance(stack, SurveyedStack):
            raise TypeError("the session of a batch reads its frames elsewhere")
        path = str(stack.source)
        return self._crew.submit(self._number, near, workers.work, parcel, references, path, stack.options)

    def _take(self, shared: Sharing, waiting: _Waiting, errors: list[BaseException]) -> _Way | None:
        """Wait for a parcel and keep what came of it; its part, if that goes on."""
        future, parcel, way = waiting.get(self._crew)
        try:
            done: workers.Work = self._wait(future)
        except (IvosError, Stopped) as error:
            errors.append(error)
            return None
        self._last = done.worker
        if done.yielded.error is not None:
            errors.append(done.yielded.error)
        if way is None or way.lot is None:
            self._tally.frames.update(shared.keep(done.yielded))
            self._tally.masks += done.yielded.masks
            return None
        if not way.lot.receive(parcel, done.yielded):
            return None
        frames, masks = shared.settle(way.part, way.lot)
        self._tally.frames.update(frames)
        self._tally.masks += masks
        self._crew.told(self._number, frames=len(frames))
        way.learn(done, parcel.frames)
        return way if all(y.error is None for y in way.lot.came.values()) else None

    def _contrast_known(self, session: Session) -> bool:
        return session.stack is not None and session.stack.contrast_known

    def _settle(self, errors: list[BaseException]) -> None:
        """Raise what went wrong, now that everything that came is kept."""
        for error in sorted(errors, key=lambda e: isinstance(e, Stopped)):
            raise error
        if self._crew.stopping:
            raise Stopped

    def _wait(self, future: Any) -> Any:
        """What comes of a future; errors of dask become our own."""
        from distributed import KilledWorker

        try:
            return future.result()
        except IvosError:
            raise
        except KilledWorker as error:
            raise IvosError(
                f"{error.allowed_failures + 1} workers ended while they had this stack ({error}). It may need more "
                "memory than they have: give them more, or put fewer on a machine. What was finished before is kept."
            ) from error
        except Exception as error:
            if future.cancelled():
                raise Stopped from error
            raise IvosError(f"A worker failed: {type(error).__name__}: {error}") from error
        finally:
            future.release()


class _Way:
    """A part of the propagation under way: where it is, and how large its parcels are."""

    def __init__(self, part: Part, frames: int | None) -> None:
        self.part = part
        self.worker: str | None = None
        self.references: Any = None
        self.lot: Lot | None = None
        self._fixed = frames
        self.most = frames or FIRST_FRAMES

    def learn(self, done: workers.Work, frames: int) -> None:
        """Stay with the worker, which has the stack open; fit the next parcel to the time that this one took."""
        self.worker = done.worker
        if self._fixed is None:
            wanted = frames * SECONDS_A_PARCEL / max(done.yielded.seconds, 1e-3)
            self.most = int(min(max(wanted, 1), 4 * self.most, MOST_FRAMES))


class _Waiting:
    """Parcels that are out, in the order in which they come back."""

    def __init__(self) -> None:
        self._out: dict[Any, tuple[Any, Parcel, _Way | None]] = {}
        self._back: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def add(self, future: Any, parcel: Parcel, way: _Way | None = None) -> None:
        self._out[future.key] = future, parcel, way
        future.add_done_callback(lambda done: self._back.put(done.key))

    def __len__(self) -> int:
        return len(self._out)

    def get(self, crew: Crew) -> tuple[Any, Parcel, _Way | None]:
        return self._out.pop(self._back.get())


def glob_safe(name: str) -> str:
    """A name as a pattern that means only itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
