"""Session: scribbles and paint in, labels of the whole stack out; rounds, undo, resume, suggestions.

One list of steps is the whole history, one writer works at a time, and whatever was reported as finished is in the
project. Reading never waits for a network.
"""

from __future__ import annotations

import importlib
import logging
import threading
import weakref
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError, IvosError, ProjectError, ReadOnlyProject, SessionBusy
from napari_ivos.files import from_home
from napari_ivos.predictor import Predictor, Storable
from napari_ivos.project import (
    ObjectInfo,
    Project,
    Step,
    StepState,
    StoredModel,
    StrokeRecord,
)
from napari_ivos.session import accepting, annotating, edits, history, stacks
from napari_ivos.session.annotator import Annotated, Annotator
from napari_ivos.session.labels import FrameCache, Index, Labels, LabelsBefore, Quality, composed, window_of
from napari_ivos.session.painting import Paint, settled
from napari_ivos.session.plan import Frames
from napari_ivos.session.results import FrameResult, RoundInfo, summarise
from napari_ivos.session.sweep import Sweep, Task
from napari_ivos.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from napari_ivos.merging import Patch
    from napari_ivos.scribbles import Scribbles
    from napari_ivos.session.history import Painted
    from napari_ivos.session.stacks import Stack

_log = logging.getLogger(__name__)

Direction = Literal["both", "forward", "backward"]
_MOMENT = 5.0  # seconds to wait for paint that is becoming an annotation, which takes a few milliseconds
_DIRECTIONS: Mapping[str, tuple[int, ...]] = {"both": (1, -1), "forward": (1,), "backward": (-1,)}


class Session:
    """One stack, one model, one project.

    Parameters
    ----------
    stack : FrameStack, array or path
        The frames; anything but a stack goes through `open_frames`.
    model : Predictor, optional
        The networks; without, everything but `interact` and `propagate` works.
    project : path, optional
        The project file to make. None: in memory.

    Raises
    ------
    ProjectError
        The file exists (`Session.open` opens it) or can't be made.
    InputError
        The stack can't be opened.

    Notes
    -----
    Any number of threads may read. One thing that writes runs at a time: a second one raises `SessionBusy`.
    """

    def __init__(self, stack: Any, model: Predictor | None = None, project: str | Path | None = None) -> None:
        path = None if project is None or str(project) == ":memory:" else from_home(project)
        _check_model(model)
        opened, owned = stacks.as_stack(stack)
        try:
            made = Project.create(path, opened.shape, {"stack": stacks.identity(opened, path)})
        except BaseException:
            if owned:
                opened.close()
            raise
        self._begin(made, opened, owned, model)

    @classmethod
    def open(cls, path: str | Path, frames: Any = None, model: Predictor | None = None, force: bool = False) -> Session:
        """Open a project.

        Parameters
        ----------
        path : path
            The project file.
        frames : FrameStack, array or path, optional
            Its stack. Without, it is looked for where it was, relative to the project file; where it isn't found,
            labels, export and undo work, and the rest says what is missing.
        model : Predictor, optional
            The networks.
        force : bool
            Take a stack of other pixels than those that the project was made from.

        Raises
        ------
        ProjectError
            Not a project, damaged, of a newer version, or made from another stack.
        """
        _check_model(model)
        project = Project.open(from_home(path))
        try:
            stack, owned = _find_stack(project, frames, force)
        except BaseException:
            project.close()
            raise
        session = cls.__new__(cls)
        session._begin(project, stack, owned, model)
        return session

    def _begin(self, project: Project, stack: Stack | None, owned: bool, model: Predictor | None) -> None:
        self._project = project
        self._stack = stack
        self._model = model
        self._work = threading.Lock()
        self._doing = ""
        self._cancelled = threading.Event()
        self._cache = FrameCache(project)
        self._annotator = Annotator(project)
        self._painting = threading.RLock()
        self._changing = Frames((), 1)
        self._view: weakref.ref[Labels] | None = None
        self._finalizer = weakref.finalize(self, _end, project, stack if owned else None)
        if project.read_only is not None:
            _log.warning("%s: reading only, because %s.", project.name, project.read_only)
        self._use_kept_contrast()

    # -- what it is

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, H, W) of the stack."""
        return self._project.shape

    @property
    def path(self) -> Path | None:
        """The project file; None in memory."""
        return self._project.path

    @property
    def stack(self) -> Stack | None:
        """The frames; None where they were not found."""
        return self._stack

    @property
    def made_from(self) -> dict[str, Any]:
        """What the project keeps to know its stack again; see `stacks.identity`. A stranger may have written it."""
        kept = self._project.meta("stack", {})
        return kept if isinstance(kept, dict) else {}

    @property
    def model(self) -> Predictor | None:
        """The networks in use."""
        return self._model

    @property
    def read_only(self) -> str | None:
        """Why nothing can be changed (another process holds the project, or it can't be written); else None."""
        return self._project.read_only

    @property
    def busy(self) -> str | None:
        """What runs now ("propagate" ...); else None."""
        return self._doing or None

    def __repr__(self) -> str:
        frames, height, width = self.shape
        name = "in memory" if self.path is None else self.path.name
        mode = ", read only" if self.read_only else ""
        return (
            f"<Session {name}: {frames} frames of {height} x {width} px, {counted(len(self.objects), 'object')}{mode}>"
        )

    # -- one thing at a time

    @contextmanager
    def _working(self, doing: str) -> Iterator[None]:
        """Be the one thing that writes; paint that waits becomes an annotation first."""
        if self._project.read_only is not None:
            raise ReadOnlyProject(f"{self._project.name} is open for reading only: {self._project.read_only}.")
        if not self._work.acquire(blocking=False) and (self._doing or not self._work.acquire(timeout=_MOMENT)):
            raise self._busy(doing)
        self._doing = doing
        try:
            self._commit_paint()
            yield
        finally:
            self._doing = ""
            self._work.release()

    def _busy(self, doing: str) -> SessionBusy:
        return SessionBusy(f"{doing}: the session is busy ({self._doing or 'working'}). Wait, or cancel it first.")

    def cancel(self) -> None:
        """Ask a running propagation to stop after the frame that it is at; from any thread."""
        self._cancelled.set()

    def _need_model(self) -> Predictor:
        if self._model is None:
            raise InputError("This needs a model: Session(stack, model), Session.open(..., model=...) or use_model.")
        return self._model

    def _need_stack(self) -> Stack:
        if self._stack is None:
            name = self.made_from.get("name", "its stack")
            raise InputError(
                f"The frames of {self._project.name} ({name}) were not found beside it: open it with frames=."
            )
        return self._stack

    def _frame(self, frame: int) -> int:
        try:
            at = int(frame)
        except (TypeError, ValueError, OverflowError):
            at = -1
        if at != frame or not 0 <= at < self.shape[0]:
            raise InputError(f"There is no frame {frame}: the stack has frames 0 to {self.shape[0] - 1}.")
        return at

    # -- contrast

    @property
    def contrast(self) -> Any:
        """(low, high) for each channel: the values that the networks see as 0 and 1; kept in the project."""
        return self._need_stack().contrast

    @contrast.setter
    def contrast(self, value: Any) -> None:
        stack = self._need_stack()
        with self._working("set contrast"):
            stack.contrast = value
            with self._project.transaction() as writer:
                writer.set_meta("contrast", [list(pair) for pair in stack.contrast])
            self._contrast_kept = True

    def _use_kept_contrast(self) -> None:
        kept = self._project.meta("contrast")
        self._contrast_kept = kept is not None
        if kept is not None and self._stack is not None:
            self._stack.contrast = kept

    def _keep_contrast(self) -> None:
        """Keep the contrast once it is known for good.

        Before anything that was made with it: a kill in between leaves nothing that the next run would make otherwise.
        """
        if self._contrast_kept or self._stack is None or not self._stack.contrast_known:
            return
        with self._project.transaction() as writer:
            writer.set_meta("contrast", [list(pair) for pair in self._stack.contrast])
        self._contrast_kept = True

    # -- annotating

    def interact(self, scribbles: Scribbles) -> FrameResult:
        """Segment a frame from strokes.

        The strokes are written before any network runs. All strokes of that frame in the open round count. Changed are
        the objects with new strokes, and those whose masks other strokes cover; missing objects are made.

        Parameters
        ----------
        scribbles : Scribbles
            New strokes of one frame.

        Returns
        -------
        FrameResult

        Raises
        ------
        InputError
            No such frame, no strokes, strokes outside the image, or of objects that are locked, removed or not there
            on that frame; nothing is changed.
        FrameReadError, OutOfMemory, IvosError
            Frame or model failed; the strokes are kept, and the next call on that frame, or `propagate`, uses them.
        SessionBusy, ReadOnlyProject, ProjectError
        """
        model, stack = self._need_model(), self._need_stack()
        frame = self._check_scribbles(scribbles)
        with self._working("interact"):
            self._annotator.keep_strokes(scribbles, model)
            return self._told(self._annotator.segment(frame, model, stack, self._keep_contrast))

    def keep(self, scribbles: Scribbles) -> None:
        """Write strokes without making masks of them; `catch_up`, `propagate` or `interact` there make them.

        Parameters
        ----------
        scribbles : Scribbles
            New strokes of one frame.

        Raises
        ------
        InputError
            As for `interact`.
        SessionBusy, ReadOnlyProject, ProjectError
        """
        self._check_scribbles(scribbles)
        with self._working("keep"):
            self._annotator.keep_strokes(scribbles, None)

    def _check_scribbles(self, scribbles: Scribbles) -> int:
        if not hasattr(scribbles, "strokes"):
            raise InputError(f"Scribbles(frame, strokes) are needed; got a {type(scribbles).__name__}.")
        frame = self._frame(scribbles.frame)
        if not scribbles.strokes:
            raise InputError(f"The scribbles of frame {frame} hold no stroke: draw at least one.")
        for k, stroke in enumerate(scribbles.strokes):
            if stroke.box(self.shape[1:]) is None:
                low, high = stroke.points.min(axis=0), stroke.points.max(axis=0)
                raise InputError(
                    f"Stroke {k} of frame {frame} (object {stroke.object_id}) lies outside the image: rows {low[0]:g} "
                    f"to {high[0]:g}, columns {low[1]:g} to {high[1]:g} of {self.shape[1]} x {self.shape[2]} px."
                )
        return frame

    def _told(self, done: Annotated) -> FrameResult:
        """Let readers see what an annotation changed."""
        self._cache.forget(done.frame)
        self._keep_contrast()
        return FrameResult(done.frame, done.round, tuple(sorted(done.quality)), done.quality, done.seconds, self)

    def annotate(
        self,
        frame: int,
        labels: npt.ArrayLike,
        objects: Iterable[int] | None = None,
        spreads: Iterable[int] | None = None,
    ) -> FrameResult:
        """Take painted or imported masks of one frame as they are, to the pixel.

        Parameters
        ----------
        frame : int
            Which one.
        labels : (H, W) array-like of int, or of bool with one object
            0 = background. A whole label image starts all its objects at once; missing objects are made with its ids.
        objects : iterable of int, optional
            Only these objects, exactly: one that is not in `labels` is not on that frame. None: those in `labels`;
            others keep what it leaves of them.
        spreads : iterable of int, optional
            Propagation starts from the masks of these objects only; the others' stay on this frame. None: from all.

        Returns
        -------
        FrameResult

        Raises
        ------
        InputError
            No such frame, another shape, no object at all, ids above 65535, or objects that are locked, removed or not
            there on that frame; nothing is changed.
        SessionBusy, ReadOnlyProject, ProjectError
        """
        frame = self._frame(frame)
        wanted = None if objects is None else {int(i) for i in objects}
        image = annotating.check_labels(labels, self.shape[1:], wanted)
        patches = annotating.cut_out(image, wanted)
        if not patches:
            raise InputError(
                f"The labels for frame {frame} hold no object: all are 0. To say that objects are not on it, name "
                "them: objects=[1, 2]."
            )
        chosen = None if spreads is None else {int(i) for i in spreads}
        starts = None if chosen is None else {i: i in chosen for i in patches}
        with self._working("annotate"):
            return self._told(self._annotator.paint(frame, patches, starts))

    def remove_stroke(self, stroke: int) -> FrameResult:
        """Take a stroke of the open round back; its frame is segmented again from those that are left.

        One whose masks are still to be made is taken back without a model.

        Parameters
        ----------
        stroke : int
            Its id; `strokes` tells it.

        Raises
        ------
        InputError
            No such stroke, or its round has been propagated: undo that, or correct with new strokes.
        """
        with self._working("remove stroke"):
            found = next((s for s in self._project.strokes() if s.id == stroke), None)
            if found is None:
                raise InputError(f"There is no stroke {stroke} (any more).")
            number = self._annotator.open_round()
            if found.round != number:
                raise InputError(
                    f"Stroke {stroke} belongs to round {found.round}, which has been propagated. Take that round back "
                    'with undo(to="round"), or correct it with new strokes.'
                )
            if any(s.id == stroke for s in self._project.strokes(found.frame, unfinished=True)):
                return self._told(self._annotator.withdraw(found))
            return self._told(self._annotator.remove_stroke(found, self._need_model(), self._need_stack()))

    # -- painting through the labels

    def paint(self, frame: int, place: tuple[Index, Index], values: npt.NDArray[Any]) -> None:
        """Paint on the labels of a frame; see `Labels`, which calls this. Pixels of locked objects stay."""
        try:
            self._paint(frame, place, values)
        except IvosError as error:
            if self._cache.refused is None:
                raise
            self._cache.refused(error)

    def _paint(self, frame: int, place: tuple[Index, Index], values: npt.NDArray[Any]) -> None:
        if self._project.read_only is not None:
            raise ReadOnlyProject(f"{self._project.name} is open for reading only: {self._project.read_only}.")
        if frame in self._changing:
            raise SessionBusy(f"Frame {frame} is being propagated: paint when that is done, or cancel it first.")
        found = window_of(*place, self.shape[1:])
        if found is None:
            return
        with self._painting:
            if frame not in self._cache.paint and not self._cache.holding:
                self.commit_paint()
            states = self._project.objects()
            box, inside = found
            earlier = self._cache.paint.get(frame)
            reach = box if earlier is None else box.union(earlier.box)
            image = self._cache.window(frame, reach).copy()
            part = image[box.shift(-reach.y0, -reach.x0).slices]
            before = part[inside]
            spread = np.broadcast_to(values, np.shape(before))
            other = spread != before  # napari writes all around its brush, as it is, too
            edits.check_alive(states, {int(v) for v in np.unique(spread[other])} - {0}, frame)
            locked = [i for i, state in states.items() if state.locked is not None]
            free = other & ~np.isin(before, locked)
            part[inside] = np.where(free, values, before)
            touched = np.zeros(reach.shape, bool)
            if earlier is not None:
                touched[earlier.box.shift(-reach.y0, -reach.x0).slices] = earlier.touched
            touched[box.shift(-reach.y0, -reach.x0).slices][inside] |= free
            self._cache.paint[frame] = Paint(reach, image, touched)
            self._cache.painter = threading.get_ident()

    @contextmanager
    def painting(self, refused: Callable[[IvosError], None] | None = None) -> Iterator[None]:
        """Keep what is painted inside as one stroke: looking at other frames meanwhile, or painting them, ends it not.

        napari looks at the first frame before each dab of its brush, which may reach over several frames.

        Parameters
        ----------
        refused : callable, optional
            Told why something can't be painted, in place of an error at whoever paints.
        """
        cache = self._cache
        before = cache.refused
        cache.holding, cache.refused = cache.holding + 1, refused or before
        try:
            yield
        finally:
            cache.holding, cache.refused = cache.holding - 1, before

    def commit_paint(self) -> bool:
        """Turn what was painted into annotations; False where that has to wait until the session is free."""
        if not self._cache.paint:
            return True
        if not self._work.acquire(blocking=False):
            return False
        try:
            self._commit_paint()
        finally:
            self._work.release()
        return True

    def _commit_paint(self) -> None:
        """Annotate the painted frames; the right to write is held."""
        part = 0
        with self._painting:
            for frame, paint in list(self._cache.paint.items()):
                below = partial(composed, self._project, frame)
                patches, spreads = settled(paint, self._cache.boxes(frame), below)
                if patches:
                    self._told(self._annotator.paint(frame, patches, spreads, part))
                    part += 1
                del self._cache.paint[frame]

    # -- propagating

    def propagate(
        self,
        direction: Direction = "both",
        start: int | None = None,
        stop: int | None = None,
        objects: Iterable[int] | None = None,
        most: int | None = None,
    ) -> Generator[FrameResult]:
        """Carry what was annotated in this round to the other frames.

        Does what is not done yet: calling it again after a stop, a kill or one direction goes on, also with what an
        earlier round left undone before it was corrected. An object goes from its annotated frames to the next frame
        annotated for it, or to the end of its lifetime.

        Parameters
        ----------
        direction : "both", "forward" or "backward"
            Where to. Between two frames annotated in this round both passes are averaged; with one direction, the
            other is averaged in later.
        start, stop : int, optional
            Change only frames from `start` up to, not including, `stop`. Masks go from frame to frame, so nothing is
            done behind a frame that is left out.
        objects : iterable of int, optional
            Only these.
        most : int, optional
            Stop after the work of so many frames (`Step.frames` in the `log`), as a call that was stopped did.

        Yields
        ------
        FrameResult
            Each changed frame, once, when it is final, in the order of work. Frames on which every object is the
            user's are not among them. Closing the generator, or `cancel`, keeps all of them.

        Raises
        ------
        InputError
            No model, no frames, no such object or direction.
        FrameReadError, OutOfMemory, IvosError
            A frame or the model failed; the frames before it are kept.
        SessionBusy, ReadOnlyProject, ProjectError
        """
        sweep = self._sweeper(direction, start, stop, objects, most)
        if self._doing:
            raise self._busy("propagate")
        return self._propagation(sweep)

    def remaining(
        self,
        direction: Direction = "both",
        start: int | None = None,
        stop: int | None = None,
        objects: Iterable[int] | None = None,
    ) -> int:
        """How many frames `propagate`, called like this, may still change; for progress bars."""
        return len(self._sweeper(direction, start, stop, objects)().planned)

    def _sweeper(
        self,
        direction: str,
        start: int | None,
        stop: int | None,
        wanted: Iterable[int] | None,
        most: int | None = None,
    ) -> Callable[[], Sweep]:
        """Check what is asked of a propagation, now; plan it when the result is called."""
        if direction not in _DIRECTIONS:
            raise InputError(f'Direction {direction!r}: choose "both", "forward" or "backward".')
        states = self._project.objects()
        chosen = None if wanted is None else {edits.known(states, i).id for i in wanted}
        low = 0 if start is None else self._frame(start)
        end: Any = self.shape[0] if stop is None else stop
        if not isinstance(end, int | np.integer) or end < 0:
            raise InputError(f"stop={stop!r}: give the frame before which to stop, a whole number from 0.")
        within = range(low, min(int(end), self.shape[0]))
        model, stack = self._need_model(), self._need_stack()

        def plan() -> Sweep:
            carried = {
                i: state
                for i, state in self._project.objects().items()
                if not state.removed and state.locked is None and (chosen is None or i in chosen)
            }
            task = Task(self._project.round_now()[0], _DIRECTIONS[direction], within, carried, most)
            cancelled, written, looked = self._cancelled.is_set, self._cache.forget, self._keep_contrast
            return Sweep(self._project, stack, model, task, cancelled, written, looked=looked)

        return plan

    def catch_up(self) -> tuple[FrameResult, ...]:
        """Make the masks of strokes that were kept while frame or model failed; `propagate` does it first, too.

        Raises
        ------
        FrameReadError, OutOfMemory, IvosError
            It failed again; the strokes are still kept.
        SessionBusy, ReadOnlyProject, ProjectError
        """
        with self._working("catch up"):
            return self._catch_up()

    def _catch_up(self) -> tuple[FrameResult, ...]:
        frames = self._annotator.unfinished_frames()
        segment, looked = self._annotator.segment, self._keep_contrast
        return tuple(self._told(segment(f, self._need_model(), self._need_stack(), looked)) for f in frames)

    def _propagation(self, plan: Callable[[], Sweep]) -> Generator[FrameResult]:
        with self._working("propagate"):
            self._cancelled.clear()
            self._catch_up()
            sweep = plan()
            try:
                self._changing = sweep.planned
                for done in sweep.run():
                    ids = tuple(sorted(done.quality))
                    yield FrameResult(done.frame, sweep.round, ids, done.quality, done.seconds, self)
            except ProjectError:
                if self._finalizer.alive:
                    raise
            finally:
                self._changing = Frames((), 1)
                if self._finalizer.alive:
                    self._commit_paint()

    # -- objects

    @property
    def objects(self) -> tuple[ObjectInfo, ...]:
        """The objects, by id, without those that were removed."""
        states = self._project.objects().values()
        return tuple(state.info(self.shape[0]) for state in states if not state.removed)

    def add_object(
        self,
        name: str | None = None,
        colour: str | Sequence[float] | None = None,
        id: int | None = None,  # noqa: A002
        start: int = 0,
        stop: int | None = None,
        parent: int | None = None,
    ) -> ObjectInfo:
        """Make an object; strokes and masks of unknown ids do that, too.

        Parameters
        ----------
        name : str, optional
            "object 3" by default.
        colour : str or sequence of float, optional
            "#rrggbb", or red, green and blue in 0..1.
        id : int, optional
            1..65535, never used before; by default the next one.
        start, stop : int, optional
            It may exist from frame `start` up to, not including, `stop`.
        parent : int, optional
            The object that divided into it.
        """
        first, end = edits.check_lifetime(start, stop, self.shape[0])
        return self._edit("add object", lambda s: [edits.new(s, id, name, colour, first, end, parent)])[0]

    def remove_object(self, object_id: int) -> None:
        """Remove an object with all its masks; its id is never used again, undo brings it back."""
        self._edit("remove object", lambda s: [replace(edits.free(s, object_id), removed=True)])

    def rename(self, object_id: int, name: str) -> None:
        """Give an object another name."""
        self._edit("rename", lambda s: [replace(edits.known(s, object_id), name=edits.check_name(name))])

    def recolour(self, object_id: int, colour: str | Sequence[float]) -> None:
        """Show an object in another colour: "#rrggbb", or red, green and blue in 0..1."""
        shown = edits.check_colour(colour)
        self._edit("recolour", lambda s: [replace(edits.known(s, object_id), colour=shown)])

    def lock(self, object_id: int) -> None:
        """Let nothing change an object any more, on any frame, until it is unlocked."""
        self._edit("lock", lambda s: [edits.locked(s, object_id)])

    def unlock(self, object_id: int) -> None:
        """Let an object be changed again."""
        self._edit("unlock", lambda s: [replace(edits.known(s, object_id), locked=None)])

    def set_lifetime(self, object_id: int, start: int = 0, stop: int | None = None) -> None:
        """Let an object exist from frame `start` up to, not including, `stop` (None: the end of the stack)."""
        first, end = edits.check_lifetime(start, stop, self.shape[0])
        self._edit("set lifetime", lambda s: [replace(edits.free(s, object_id), start=first, stop=end)])

    def end_object(self, object_id: int, frame: int) -> None:
        """Let an object be gone from `frame` on: `frame - 1` is the last on which it is."""
        self._edit("end object", lambda s: [edits.ended(s, object_id, frame, self.shape[0])])

    def divide(self, object_id: int, frame: int, daughters: int | Sequence[int] = 2) -> tuple[ObjectInfo, ...]:
        """Let an object divide: it is gone from `frame` on, where its daughters begin.

        Parameters
        ----------
        object_id : int
            The mother.
        frame : int
            The daughters' first frame.
        daughters : int or sequence of int
            How many to make, or their ids: new ones, or objects that are there and have no parent.

        Returns
        -------
        tuple of ObjectInfo
            The daughters; annotate them next.
        """
        return self._edit(
            "divide", lambda s: edits.divided(s, object_id, self._frame(frame), daughters, self.shape[0])
        )[1:]

    def _edit(self, kind: str, change: edits.Change) -> tuple[ObjectInfo, ...]:
        """One step that gives some objects other rows; their new states."""
        with self._working(kind):
            states = change(self._project.objects())
            number = self._project.round_now()[0]
            with self._project.transaction() as writer:
                step = writer.begin(kind, number, None, {"objects": [state.id for state in states]})
                states = [replace(s, locked=step) if s.locked == edits.THIS_STEP else s for s in states]
                writer.put_objects(step, states)
            self._cache.forget()
        return tuple(state.info(self.shape[0]) for state in states)

    # -- history

    @property
    def log(self) -> tuple[Step, ...]:
        """Everything that was ever done, undone and dropped steps too, in order."""
        return self._project.steps()

    def undo(self, to: Literal["step", "round"] = "step") -> tuple[Step, ...]:
        """Take back the last step, or the last round; costs the same for any number of frames.

        Paint of one stroke of the brush that reached over several frames is a step for each, taken back together.

        A round is its strokes, paint and propagations. What was done to the table of objects meanwhile (added, named,
        locked, divided ...) stays: those are steps of their own.

        Returns
        -------
        tuple of Step
            What was taken back; empty where there was nothing.
        """
        return self._go(to, StepState.UNDONE)

    def redo(self, to: Literal["step", "round"] = "step") -> tuple[Step, ...]:
        """Bring back what the last `undo` took, as long as nothing new was done since.

        Returns
        -------
        tuple of Step
            What was brought back; empty where there was nothing.
        """
        return self._go(to, StepState.ACTIVE)

    def _go(self, to: str, target: StepState) -> tuple[Step, ...]:
        if to not in ("step", "round"):
            raise InputError(f'{to!r}: choose "step" or "round".')
        backwards = target is StepState.UNDONE
        with self._working("undo" if backwards else "redo"):
            choose = history.to_take_back if backwards else history.to_bring_back
            chosen = choose(self._project.steps_back(), to)
            if not chosen:
                return ()
            with self._project.transaction() as writer:
                writer.set_state([s.number for s in chosen], target)
            self._cache.forget()
            return tuple(replace(s, state=target) for s in (chosen[::-1] if backwards else chosen))

    # -- what there is

    @property
    def labels(self) -> Labels:
        """The result: array-like (T, H, W) uint16, 0 = background; see `Labels`."""
        view = self._view() if self._view is not None else None
        if view is None:
            view = Labels(self, self._cache)
            self._view = weakref.ref(view)
        return view

    def labels_before(self) -> LabelsBefore:
        """The result as it was before the last round, to be compared with `labels`; nothing is taken back for it.

        Returns
        -------
        LabelsBefore
            Array-like (T, H, W) uint16, read like `labels`, with the objects of that time; empty before the first
            round.
        """
        self.commit_paint()
        taken = history.to_take_back(self._project.steps_back(), "round")
        return LabelsBefore(self, FrameCache(self._project, taken[0].number - 1 if taken else 0))

    @property
    def quality(self) -> Quality:
        """How far each mask can be trusted: array-like (T, K) in 0..1, column k is `objects[k]`; see `Quality`."""
        return Quality(self._project, tuple(o.id for o in self.objects))

    def suggest_frame(self) -> int | None:
        """The frame to look at next: the one with the worst mask, among those that nobody annotated or accepted.

        None where nothing was propagated yet, or every frame is annotated or accepted.
        """
        return self._project.worst_frame(self._project.annotated_frames() | self.accepted)

    @property
    def settled(self) -> frozenset[int]:
        """Objects that a propagation of the whole stack has carried to their ends, and that were not changed since.

        Where such an object has no mask and none was looked for, it was over before.
        """
        return history.settled(self._project)

    @property
    def accepted(self) -> frozenset[int]:
        """Frames that `accept` said are right, and that still have the masks that it said so of."""
        return accepting.accepted(self._project)

    def accept(self, frame: int, accepted: bool = True) -> None:
        """Say that the masks of a frame are right although nobody annotated it, or take that back; kept in the project.

        `suggest_frame` passes it by, and `adapt` learns from it as if it were annotated, until a round changes it.
        """
        at = self._frame(frame)
        with self._working("accept"):
            accepting.accept(self._project, at, accepted)

    def annotated_frames(self, object_id: int | None = None) -> tuple[int, ...]:
        """Frames that are the user's for an object (for any, without one), ascending."""
        if object_id is not None:
            edits.known(self._project.objects(), object_id)
        return tuple(sorted({a.frame for a in self._project.annotations(object_id)}))

    def masks(self, frame: int, before_round: int | None = None) -> dict[int, Patch]:
        """The objects' masks on a frame as they are kept: each object's own, not yet merged with the others'.

        Parameters
        ----------
        frame : int
            Which one.
        before_round : int, optional
            As they were before that round.

        Returns
        -------
        dict of int to Patch
            By object; without those that have none there. A patch's `origin` says whether it was painted, segmented
            from strokes on that frame, or propagated.
        """
        frame = self._frame(frame)
        states = self._project.objects()
        rows = self._project.rows(frame) if before_round is None else self._project.rows(frame, before=before_round)
        return self._project.patches(row for i, row in rows.items() if i in states and states[i].alive(frame))

    def found(self, frame: int) -> dict[int, bool]:
        """Which objects have a mask on a frame, by id.

        False for one that was looked for, or annotated, and is not there; those that no round has come to are missing.
        """
        return {i: row.filled for i, row in self._project.rows(self._frame(frame)).items()}

    def strokes(
        self,
        frame: int | None = None,
        object_id: int | None = None,
        round: int | None = None,  # noqa: A002
        withdrawn: bool = False,
    ) -> tuple[StrokeRecord, ...]:
        """Strokes in the order they were drawn: of one frame, object or round, or all; `withdrawn` ones on demand."""
        return self._project.strokes(frame, object_id, round, withdrawn=withdrawn)

    @property
    def open_round(self) -> int:
        """Number of the round that the next stroke belongs to: a new one once something was propagated in the last."""
        return self._annotator.open_round()

    def changed_frames(self, object_id: int) -> tuple[int, ...]:
        """The span of an object in the last round that was propagated: frames whose masks it left, ascending."""
        edits.known(self._project.objects(), object_id)
        number = self._project.propagated_round()
        return () if number is None else tuple(self._project.changed(object_id, number))

    def objects_after(self, step: int) -> tuple[ObjectInfo, ...]:
        """The objects as they were after a step of the `log`, by id, without those that were removed."""
        states = self._project.objects(int(step)).values()
        return tuple(state.info(self.shape[0]) for state in states if not state.removed)

    def painted_by(self, step: int) -> Painted:
        """What an "annotate" step of the `log` painted, to the pixel.

        Raises
        ------
        InputError
            There is no such step, it is of another kind, or it was undone.
        """
        return history.painted_by(self._project, int(step))

    def compact(self) -> int:
        """Give back the room of masks that nothing can bring back (undone, and then other work done).

        Returns
        -------
        int
            Bytes by which the project became smaller.
        """
        with self._working("compact"):
            accepting.bring_up_to_date(self._project)
            return self._project.compact()

    @property
    def rounds(self) -> tuple[RoundInfo, ...]:
        """What was annotated and propagated, round by round."""
        return summarise(self._project)

    # -- models

    def use_model(self, model: Predictor) -> None:
        """Go on with another model.

        One whose weights exist nowhere else (`napari_ivos.adapt` makes such) is kept in the project, and is its
        `adapted` model from then on. Any other changes nothing in the project.
        """
        _check_model(model)
        with self._working("use model"):
            weights = model.portable_weights() if isinstance(model, Storable) else None
            if weights is not None:
                with self._project.transaction() as writer:
                    writer.put_model(model.name, model.checksum, weights)
                    writer.set_meta("adapted", model.checksum)
            self._model = model

    @property
    def adapted(self) -> StoredModel | None:
        """The model that was adapted to this stack and is kept in the project; see `napari_ivos.adapted_model`."""
        checksum = self._project.meta("adapted")
        return next((m for m in self._project.models() if m.checksum == checksum), None)

    def drop_adapted(self, model: Predictor | None = None) -> None:
        """Forget all weights that the project keeps, and go back to a model that everybody has.

        Masks and history stay. The file gets smaller with the next `compact`.

        Parameters
        ----------
        model : Predictor, optional
            What to go on with (`load_model()`). Without: the model in use, unless it is one of those that go; then the
            session has none until `use_model`.
        """
        _check_model(model)
        with self._working("drop adapted weights"):
            gone = {m.checksum for m in self._project.models()}
            with self._project.transaction() as writer:
                writer.drop_models()
            if model is not None:
                self._model = model
            elif self._model is not None and self._model.checksum in gone:
                self._model = None

    def store_model(self, name: str, checksum: str, weights: bytes) -> None:
        """Keep a model's weights (safetensors) in the project, so that they travel with it."""
        with self._working("store model"), self._project.transaction() as writer:
            writer.put_model(name, checksum, weights)

    @property
    def stored_models(self) -> tuple[StoredModel, ...]:
        """Models whose weights travel with the project, in the order in which they came."""
        return self._project.models()

    def stored_weights(self, checksum: str) -> bytes:
        """A stored model's weights, checked; for `load_model`.

        Raises
        ------
        ProjectError
            There are none of that checksum, or they are damaged.
        """
        return self._project.model_weights(checksum)

    # -- export and the end

    def save(self, path: str | Path) -> None:
        """Keep a session that is in memory in a project file from now on, with all that was done so far.

        Raises
        ------
        ProjectError
            The session has a file already, or the new one exists or can't be made; nothing has changed then.
        """
        target = from_home(path)
        with self._working("save"):
            self._project.move_to(target)
            if self._stack is not None:
                with self._project.transaction() as writer:
                    writer.set_meta("stack", stacks.identity(self._stack, target))

    def export(self, path: str | Path, format: str | None = None, **options: Any) -> Any:  # noqa: A002
        """Write the result in a format that other programs read; see `napari_ivos.export.export`."""
        if self.read_only is None:
            self.commit_paint()
        return _exporter().export(self, path, format, **options)

    def close(self) -> None:
        """End the session: paint becomes an annotation, the project is folded into its one file. May be called twice.

        A propagation that still runs stops at its frame.
        """
        if not self._finalizer.alive:
            return
        self._cancelled.set()
        try:
            if self._project.read_only is None and not self.commit_paint():
                self._commit_paint()  # the propagation that is in the way will do nothing more
        finally:
            self._finalizer()

    def __del__(self) -> None:
        if hasattr(self, "_finalizer"):
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _check_model(model: object) -> None:
    if model is not None and not isinstance(model, Predictor):
        raise InputError(
            f"The model is a {type(model).__name__}; give what load_model returns: Session(stack, load_model())."
        )


def _exporter() -> Any:
    """The export package, which is above this one and reads sessions from outside.

    The arrow from here to there is drawn at run time only, and only in this place, so that `session.export(...)` reads
    as people expect while no module of the engine depends on a file format.
    """
    return importlib.import_module("napari_ivos.export")


def _end(project: Project, stack: Stack | None) -> None:
    """Let go of the project and of a stack that was opened here; must not hold the session itself."""
    try:
        project.close()
    finally:
        if stack is not None:
            stack.close()


def _find_stack(project: Project, frames: Any, force: bool) -> tuple[Stack | None, bool]:
    """The stack of a project, from what was given or from where it was; and whether it was opened here."""
    kept = project.meta("stack", {})
    if not isinstance(kept, dict):
        raise ProjectError(f"{project.name} is damaged: it does not say which stack it was made from.")
    source = frames if frames is not None else stacks.find(kept, project.path)
    if source is None:
        return None, False
    stack, owned = stacks.as_stack(source, kept.get("options"))
    try:
        stacks.check_same(stack, project.shape, kept, force)
    except BaseException:
        if owned:
            stack.close()
        raise
    stack, better = stacks.agree(stack, kept)
    if better is not None and project.read_only is None:
        with project.transaction() as writer:
            writer.set_meta("stack", better)
    return stack, owned
