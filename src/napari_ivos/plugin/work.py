"""What everything that is done at a desk shares: its session, the way in for strokes and answers, what is shown; no Qt.

What may take longer than a blink runs in the desk's engines; `handle` takes in what came of it and looks what the user
drew. `models`, `objects`, `rounds` and `exchange` are what can be done with it, each by itself; `desk` joins them.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_ivos.errors import InputError, IvosError
from napari_ivos.plugin import projects, telling
from napari_ivos.plugin.drawing import StrokesJob, patiently
from napari_ivos.plugin.engine import Engine, Event, Job
from napari_ivos.plugin.progress import Progress
from napari_ivos.plugin.review import Review
from napari_ivos.plugin.state import State, reasons, state_of
from napari_ivos.plugin.tracing import Changes
from napari_ivos.scribbles import BACKGROUND

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from napari.components import ViewerModel

    from napari_ivos.plugin.drawing import Drawing
    from napari_ivos.plugin.layers import Binding
    from napari_ivos.plugin.tracing import Drawn
    from napari_ivos.predictor import Predictor
    from napari_ivos.session import FrameResult, Session

LOG = logging.getLogger("napari_ivos")
LONG = ("open", "model", "propagate", "export", "tracks", "adapt")
"""Kinds of jobs whose progress is shown."""
SEGMENTING = ("interact", "propagate", "remove stroke")
"""Kinds of jobs that run the model in use."""
WAITS = "The mask comes as soon as the model is loaded. Draw on meanwhile."
FOREIGN = (
    "The layer of the result shows the project's masks, and no other data. Add labels from elsewhere as a layer of "
    "their own, then press Take labels of this frame."
)


@dataclass(eq=False)
class Reading(Job):
    """Reads all qualities and spans; the journal has what came while it did."""

    journal: list[tuple[int, Mapping[int, float], Mapping[int, bool], int | None]] = field(default_factory=list)


class Work:
    """The session of one viewer, its layers and its threads.

    Parameters
    ----------
    viewer : ViewerModel or Viewer
    ring : callable, optional
        Called from any thread when `handle` is to be called, soon, in the window's thread.

    Attributes
    ----------
    changed, noticed, unsaid, progressed
        Signals: something that is shown has changed; a sentence for the user and its kind ("info", "warning",
        "error"); it no longer holds; a `Progress`, or None at its end.
    engine, exporter : Engine
        Threads: for all that changes the session, one thing after the other; for what only reads it.
    session : Session or None
        The live session; None before a stack is chosen.
    selected : int or None
        The object that is drawn; 0: background.
    before : int or None
        The object that was drawn before the background.
    comparing : bool
        The result layer shows what was before the last round.
    model_source : str, path or None
        What the model in use was loaded from; None: the shipped one, or one that was handed over.
    """

    changed = Signal()
    noticed = Signal(str, str)
    unsaid = Signal()
    progressed = Signal(object)

    def __init__(self, viewer: ViewerModel, ring: Callable[[bool], None] | None = None) -> None:
        self.viewer = viewer
        self._ring = ring
        self._bell = threading.Event()
        self._handling = self._missed = False
        self.engine = Engine(self.ring)
        self.exporter = Engine(self.ring)
        self.engines = [self.engine, self.exporter]
        self.session: Session | None = None
        self.binding: Binding | None = None
        self.drawing: Drawing | None = None
        self.review = Review()
        self._readings: weakref.WeakSet[Reading] = weakref.WeakSet()
        self.selected: int | None = None
        self.before: int | None = None
        self.comparing = False
        self.model: Predictor | None = None
        self.model_state = ""
        self.model_source: str | Path | None = None
        self._target: Path | None = None
        self._opening: Job | None = None
        self._opened: Session | None = None
        self.closed = False

    # -- the loop

    def ring(self, urgent: bool = True) -> None:
        """Ask for `handle`, at once or soon; from any thread."""
        self._bell.set()
        if self._ring is not None and not self.closed:
            self._ring(urgent)

    def handle(self) -> None:
        """Take in what the engines did and what the user drew; for the bell.

        Where Qt rings in the middle of an answer (napari's progress lets it), the rest is taken in after that one.
        """
        if self._handling:
            self._missed = True
            return
        self._handling = True
        try:
            self._take_all()
        finally:
            self._handling = False
        if self._missed:
            self._missed = False
            self.ring()

    def _take_all(self) -> None:
        """Take in everything that waits; each by itself, so that one error stops no other."""
        self._bell.clear()
        if self.closed:
            return
        events = [event for engine in self.engines for event in engine.take()]
        for event in events:
            if event.job.owner in (None, self.session):  # answers of sessions that are gone are dropped
                self.safely(self._take_in, event)
            elif event.kind == "failed" and event.job.precious:  # the user's work
                self.notice(telling.failure(event.value), "error")
        self.safely(self._look)
        if any(event.kind != "item" for event in events):
            self._lock_result(any(job.kind == "propagate" for job in self.engine.jobs))
            self.changed.emit()

    def safely(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call; what goes wrong is told to the user: nobody else would hear of it. The value; None after an error."""
        try:
            return call(*arguments)
        except IvosError as error:
            self.notice(str(error), "error")
        except Exception as error:
            LOG.exception("napari-ivos")
            self.notice(telling.failure(error), "error")
        return None

    def wait(self, seconds: float = 60.0) -> None:
        """Work until nothing is left to do; for scripts and notebooks, in the window's thread.

        Raises
        ------
        IvosError
            It takes longer.
        """
        end = time.monotonic() + seconds
        take = self._take_all if self._handling else self.handle
        take()
        while not all(engine.idle for engine in self.engines) or self._bell.is_set():
            left = end - time.monotonic()
            if left <= 0:
                raise IvosError(f"Not done within {seconds:g} seconds.")
            self._bell.wait(min(left, 0.05))
            take()

    def _take_in(self, event: Event) -> None:
        job = event.job
        if event.kind == "started":
            if job.kind in LONG:
                self.progressed.emit(Progress(job.kind))
        elif event.kind == "item":
            self._take_item(job, event.value)
        else:
            if job.kind in LONG:
                self.progressed.emit(None)
            if event.kind == "failed":
                self._take_error(job, event.value)
            elif job.then is not None:
                job.then(event.value)
            if job.kind in SEGMENTING:
                self._sync()

    def _take_item(self, job: Job, item: Any) -> None:
        self.progressed.emit(Progress(job.kind, *item))

    def _take_error(self, job: Job, error: IvosError) -> None:
        told = telling.failure(error)
        if self.drawing is not None and isinstance(job, StrokesJob) and self.drawing.failed(job, error):
            told += " What you drew stays on screen, and is sent again with the next stroke or Propagate."
        self.notice(told, "error")

    def notice(self, text: str, kind: str = "info") -> None:
        """Tell the user something."""
        self.noticed.emit(text, kind)

    def unsay(self) -> None:
        """The user does something else: what was told of the deed before is over. Called first, at each way in.

        That strokes wait for the model holds until it is there.
        """
        self.unsaid.emit()
        if self.model_state == "loading" and self.drawing is not None and self.drawing.waiting:
            self.notice(WAITS)

    # -- state

    def state(self, image: bool = False) -> State:
        """What decides which commands are possible; `image`: whether a layer is chosen."""
        jobs = [job for engine in self.engines for job in engine.jobs]
        running = next((j.kind for j in jobs if j.kind == "propagate"), jobs[0].kind if jobs else "")
        return state_of(
            self.session,
            self.selected,
            image=image,
            opening=any(job.kind == "open" for job in jobs),
            model=self.model_state,
            running=running,
            comparing=self.comparing,
            on_annotated=self.on_annotated,
            on_accepted=self.on_accepted,
            on_gone=self.on_gone,
        )

    @property
    def frame(self) -> int:
        """The frame on screen."""
        return 0 if self.binding is None else self.binding.frame

    @property
    def on_annotated(self) -> bool:
        """Whether the frame on screen is annotated."""
        return any(self.frame in frames for frames in self.review.annotated.values())

    @property
    def on_accepted(self) -> bool:
        """Whether the frame on screen was accepted as right."""
        return self.frame in self.review.accepted

    @property
    def on_gone(self) -> bool:
        """Whether the chosen object was said not to be on the frame on screen."""
        return any(o.id == self.selected and self.frame not in o.lifetime for o in self.review.objects)

    @property
    def where(self) -> str:
        """Where the work is kept, for people."""
        if self.session is None:
            return ""
        if self.session.read_only is not None:
            return f"Read only: {self.session.path} ({self.session.read_only})"
        if self.session.path is not None:
            return f"Saved in {self.session.path}"
        if self._target is not None:
            return f"A project is made with your first stroke:\n{self._target}"
        return f"{projects.UNSAVED}: the project is only in memory."

    def _live(self) -> tuple[Session, Binding]:
        if self.session is None or self.binding is None:
            raise InputError("Choose a stack and press Start first.")
        return self.session, self.binding

    # -- strokes and paint on their way to the session

    def _look(self) -> None:
        """Take in what the user drew, moved, deleted or painted."""
        session, binding = self.session, self.binding
        if session is None or binding is None:
            return
        if binding.result.reclaim():
            self.notice(FOREIGN, "warning")
        changes = binding.strokes.read()
        if changes.new or changes.gone or binding.result.painted_anew():
            self.unsay()
        refused = binding.result.taken_off()
        if refused:
            self.notice(refused, "warning")
        for note in changes.notes:
            self.notice(note, "warning")
        if session.read_only is not None:
            if changes.new or changes.gone:
                self.notice(f"The project is read-only: {session.read_only}. Nothing can be drawn.", "warning")
                self._sync()
            return
        self._take_strokes(changes)
        if binding.strokes.behind:
            self._sync()
        if binding.result.painted:
            self._keep()
            if self.engine.idle:  # what it did before the paint is shown before it
                binding.result.painted = False
                session.commit_paint()
                self._all_changed()

    def _at_once(self, drawn: Drawn) -> None:
        """A stroke has just ended: send it before anything is painted."""
        if self.session is None or self.session.read_only is not None:
            self.ring()
        else:
            self.unsay()
            self.safely(self._take_strokes, Changes(new=(drawn,)))

    def _take_strokes(self, changes: Changes) -> None:
        """Send what was drawn to the session; a propagation stops for it."""
        drawing = self.drawing
        if drawing is None or not (changes.new or changes.gone):
            return
        self.show_before(False)
        self._interrupt()
        for drawn in changes.gone:
            drawing.take_back(drawn)
        if changes.new:
            self._keep()
            drawing.release()
            drawing.submit(changes.new)
            if self.model_state == "loading":
                self.notice(WAITS)
            elif self.model_state != "ready":
                self.notice(f"The stroke is kept; its mask waits for a model. {self.model_state}", "error")

    def _keep(self) -> None:
        """Give the session its project file, before the first of the user's work is written."""
        session, path = self.session, self._target
        if session is None or path is None:
            return
        self._target = None
        job = Job("save", lambda job: patiently(lambda: projects.keep(session, path)), session, precious=True)
        job.then = lambda note: self.notice(note, "warning" if note.startswith(projects.UNSAVED) else "info")
        self.engine.submit(job)

    def _interrupt(self) -> None:
        """Stop a propagation after its frame."""
        if any(job.kind == "propagate" for job in self.engine.jobs):
            self.engine.stop("propagate")
            if self.session is not None:
                self.session.cancel()

    # -- changes, and showing what they did

    def _edit(self, call: Callable[[], Any], then: Callable[[Any], None] | None = None) -> None:
        """Change the session: now if it is free (as it is while a model is loaded), else when what runs has stopped."""
        self.show_before(False)
        if any(job.owner is not None for job in self.engine.jobs):
            self._interrupt()
            self.engine.submit(Job("edit", lambda job: patiently(call), self.session, then=then, precious=True))
            return
        value = call()
        if then is not None:
            then(value)

    def show_before(self, before: bool = True) -> None:
        """Show the result as it was before the last round, until something is done to it or this is called with False.

        Nothing is taken back for it: what is in the project stays as it is.
        """
        session, binding = self.session, self.binding
        if session is None or binding is None or before == self.comparing:
            return
        self.comparing = before
        binding.result.show_earlier(session.labels_before() if before else None)
        self._lock_result(any(job.kind == "propagate" for job in self.engine.jobs))
        self.frame_changed()
        if before:
            self.notice(
                "This is what was before the last round. Whatever you draw or do next brings the new result back."
            )
        self.changed.emit()

    def select(self, object_id: int) -> None:
        """Draw for this object (0: background) from now on."""
        _, binding = self._live()
        if object_id == BACKGROUND and self.selected:
            self.before = self.selected
        self.selected = object_id
        binding.draw_for(object_id)
        self.changed.emit()

    def draw_next(self, object_id: int) -> None:
        """Draw for an object that was made in the background, unless it was taken back meanwhile."""
        if any(o.id == object_id for o in self._live()[0].objects):
            self.select(object_id)

    def _show_result(self, result: FrameResult | None, propagated: bool = False) -> None:
        """Show a frame that changed; those of other sessions never come here."""
        if result is None or self.binding is None:
            return
        noted = result.frame, result.quality, result.found, result.round if propagated else None
        self.review.note(*noted)
        for reading in self._readings:
            reading.journal.append(noted)
        if self.binding.refresh([result.frame]) and not propagated:
            self.binding.describe(self.review.at(result.frame))

    def _sync(self) -> None:
        """Let layers and timeline show the session's strokes and annotations."""
        if self.session is not None and self.drawing is not None:
            self.drawing.sync()
            self.review.mark(self.session)

    def frame_changed(self) -> None:
        """The user went to another frame."""
        if self.session is not None and self.binding is not None:
            frame = self.binding.frame
            self.binding.describe({} if self.comparing else self.review.at(frame))

    def _objects_changed(self, chosen: int | None = None) -> None:
        session, binding = self._live()
        binding.colour()
        self.review.mark(session)
        if chosen is not None:
            self.draw_next(chosen)
        self.changed.emit()

    def _all_changed(self, value: object = None) -> None:
        """After undo, redo and the like: show everything again."""
        session, binding = self._live()
        objects = [o.id for o in session.objects]
        gone = self.selected not in (BACKGROUND, *objects)
        if gone:
            self.selected = objects[0] if objects else None
        self._sync()
        binding.colour()
        if gone and self.selected is not None and binding.tool == "draw":
            binding.draw_for(self.selected)  # in place of the layer that has just been hidden
        binding.refresh()
        self._reviewed()
        self.changed.emit()

    def _reviewed(self) -> None:
        """Read all qualities and spans again, in the background."""
        session = self.session
        if session is None:
            return

        reading = Reading("review", lambda job: Review.of(session), session)
        journal = reading.journal

        def then(review: Review) -> None:
            for noted in journal:
                review.note(*noted)
            review.mark(session)
            self.review = review
            self.frame_changed()

        reading.then = then
        self._readings.add(reading)
        self.exporter.submit(reading)

    def _lock_result(self, running: bool) -> None:
        """Let the result be painted, unless that would be refused: napari shows errors of its brush as crashes."""
        locked = running or self.comparing or (self.session is not None and self.session.read_only is not None)
        if self.binding is not None:
            self.binding.result.let_paint(not locked)

    def _by_key(self, command: str) -> None:
        """Ctrl-Z or Ctrl-Shift-Z in one of our layers: there is one history, whatever layer is asked."""
        reason = reasons(self.state())[command]
        if reason:
            self.notice(reason, "warning")
        else:
            self.unsay()
            self.safely(getattr(self, command))
