"""The desk: everything that can be done with one stack in one viewer, as plain methods; no Qt.

The window (`widget`) shows the desk's state and calls its methods, and so do commands, keys and scripts. What may take
longer than a blink runs in the desk's engine; `handle` takes in what came of it and looks what the user drew.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from psygnal import Signal

from napari_ivos.errors import InputError, IvosError, OutOfMemory
from napari_ivos.plugin import geometry, importing, loading, projects, scripting, telling
from napari_ivos.plugin.adapting import Adapting
from napari_ivos.plugin.drawing import Drawing, StrokesJob, patiently
from napari_ivos.plugin.engine import Engine, Event, Job
from napari_ivos.plugin.layers import Binding, Changes
from napari_ivos.plugin.progress import Meter, Progress
from napari_ivos.plugin.review import Review
from napari_ivos.plugin.state import State, reasons, state_of
from napari_ivos.scribbles import BACKGROUND

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from napari_ivos.plugin.layers import Drawn
    from napari_ivos.plugin.projects import Choice
    from napari_ivos.predictor import Predictor
    from napari_ivos.session import FrameResult, ObjectInfo, Session

LOG = logging.getLogger("napari_ivos")
LONG = ("open", "model", "propagate", "export", "tracks", "adapt")
"""Kinds of jobs whose progress is shown."""
Direction = Literal["both", "forward", "backward"]


@dataclass(eq=False)
class Run(Job):
    """A propagation, as it was asked for, and about how many frames it will change."""

    asked: tuple[Direction, int | None, int | None] = ("both", None, None)
    total: int = 0


class Desk:
    """The work on one viewer.

    Parameters
    ----------
    viewer : ViewerModel or Viewer
    ring : callable, optional
        Called from any thread when `handle` is to be called, soon, in the window's thread.

    Attributes
    ----------
    changed, noticed, progressed
        Signals: something that is shown has changed; a sentence for the user and its kind ("info", "warning",
        "error"); a `Progress`, or None at its end.
    session : Session or None
        The live session; None before a stack is chosen.
    follow : bool
        Whether the view goes along with a propagation.
    """

    changed = Signal()
    noticed = Signal(str, str)
    progressed = Signal(object)

    def __init__(self, viewer: ViewerModel, ring: Callable[[], None] | None = None) -> None:
        self.viewer = viewer
        self._ring = ring
        self._bell = threading.Event()
        self.engine = Engine(self.ring)
        self.exporter = Engine(self.ring)
        self.adapting = Adapting(self)
        self.session: Session | None = None
        self.binding: Binding | None = None
        self.drawing: Drawing | None = None
        self.review = Review()
        self.meter = Meter()
        self.selected: int | None = None
        self.follow = False
        self.comparing = False
        self.model: Predictor | None = None
        self.model_state = ""
        self.model_source: str | Path | None = None
        self._target: Path | None = None
        self._opening = False
        self._again: Job | None = None
        self.closed = False

    # -- the loop

    def ring(self) -> None:
        """Ask for `handle`; from any thread."""
        self._bell.set()
        if self._ring is not None and not self.closed:
            self._ring()

    def handle(self) -> None:
        """Take in what the engine did and what the user drew; each by itself, so that one error stops no other."""
        self._bell.clear()
        if self.closed:
            return
        events = [*self.engine.take(), *self.exporter.take(), *self.adapting.engine.take()]
        for event in events:
            if event.job.owner in (None, self.session):  # answers of sessions that are gone are dropped
                self.safely(self._take_in, event)
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
        self.handle()
        while any(e.busy for e in (self.engine, self.exporter, self.adapting.engine)) or self._bell.is_set():
            left = end - time.monotonic()
            if left <= 0:
                raise IvosError(f"Not done within {seconds:g} seconds.")
            self._bell.wait(min(left, 0.05))
            self.handle()

    def _take_in(self, event: Event) -> None:
        job = event.job
        if event.kind == "started":
            self.meter.begin()
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
            if job.kind in ("interact", "propagate", "remove stroke"):
                self._sync()

    def _take_item(self, job: Job, item: Any) -> None:
        if not isinstance(job, Run):
            self.progressed.emit(Progress(job.kind, *item))
            return
        self._show_result(item, propagated=True)
        if self.follow and self.binding is not None and not job.stop.is_set():
            self.binding.show_frame(item.frame)
        progress = self.meter.count(job.total)
        if progress is not None:
            self.progressed.emit(progress)

    def _take_error(self, job: Job, error: IvosError) -> None:
        if job.kind == "open":
            self._opening = False
        if job.kind == "model":
            self.model_state = str(error)
        self.notice(telling.failure(error), "error")
        device = "" if self.model is None else self.model.device
        if isinstance(error, OutOfMemory) and device not in ("", "cpu"):
            self.notice(f"{device} is out of memory: the model goes on on the CPU. ({error})", "warning")
            self._again = job
            self.load_model(self.model_source, device="cpu")

    def notice(self, text: str, kind: str = "info") -> None:
        """Tell the user something."""
        self.noticed.emit(text, kind)

    # -- state

    def state(self, image: bool = False) -> State:
        """What decides which commands are possible; `image`: whether a layer is chosen."""
        jobs = (*self.adapting.engine.jobs, *self.engine.jobs, *self.exporter.jobs)
        running = next((j.kind for j in jobs if j.kind == "propagate"), jobs[0].kind if jobs else "")
        return state_of(
            self.session,
            self.selected,
            image=image,
            opening=self._opening,
            model=self.model_state,
            running=running,
            comparing=self.comparing,
        )

    @property
    def frame(self) -> int:
        """The frame on screen."""
        return 0 if self.binding is None else self.binding.frame

    @property
    def where(self) -> str:
        """Where the work is kept, for people."""
        if self.session is None:
            return ""
        if self.session.path is not None:
            return f"Saved in {self.session.path}"
        if self._target is not None:
            return f"A project is made with your first stroke: {self._target}"
        return f"{projects.UNSAVED}: the project is only in memory."

    @property
    def frames_done(self) -> int:
        """Frames that the last propagation has changed so far."""
        return self.meter.done

    def _live(self) -> tuple[Session, Binding]:
        if self.session is None or self.binding is None:
            raise InputError("Choose a stack and press Start first.")
        return self.session, self.binding

    # -- beginning and ending

    def choice(self, image: Image, frame_axis: int | None = None, **more: Any) -> Choice:
        """What is to be segmented: a layer, with the axis of its frames, its `channels` and layers `more` as such."""
        layout = geometry.layout_of(image)
        if frame_axis is not None:
            layout = layout.with_frames_along(frame_axis)
        return projects.Choice(image, layout.held_at(geometry.place_shown(self.viewer, image)), **more)

    def start(self, chosen: Image | Choice, path: Path | Literal["auto"] | None = "auto", fresh: bool = False) -> None:
        """Begin, or go on, with a layer's frames.

        Parameters
        ----------
        chosen : Image or Choice
            What to segment.
        path : path or None, optional
            The project file, made with the first stroke; None: in memory. By default beside the stack. One that exists
            is gone on with.
        fresh : bool
            Begin a new project even if there is one.
        """
        choice = chosen if isinstance(chosen, projects.Choice) else self.choice(chosen)
        target = projects.project_path(choice.image) if path == "auto" else path
        self._open(lambda: projects.open_session(choice, target, fresh), choice, target)

    def open_project(self, path: str | Path, image: Image | None = None) -> None:
        """Open a project with its layers, colours, strokes and history.

        The frames are those of `image`, else they are looked for where they were and shown as a new layer.
        """
        from napari_ivos.session import Session

        choice = None if image is None else self.choice(image)
        stack = None if choice is None else projects.stack_of(choice)
        self._open(lambda: (Session.open(path, frames=stack), f"Opened {Path(path).name}."), choice)

    def _open(self, make: Callable[[], tuple[Session, str]], choice: Choice | None, target: Path | None = None) -> None:
        self.leave()
        self._opening = True

        def run(job: Job) -> Any:
            session, note = make()
            return session, note, Review.of(session)

        def then(made: tuple[Session, str, Review]) -> None:
            session, note, review = made
            self._opening = False
            found = choice or self.choice(projects.layer_of(self.viewer, session))
            self._begin(session, found, review)
            self._target = target if session.path is None else None
            self.notice(note, "warning" if note.startswith(projects.UNSAVED) else "info")

        self.engine.submit(Job("open", run, then=then))
        if self.model is None and self.model_state != "loading":
            self.load_model()
        self.changed.emit()

    def _begin(self, session: Session, choice: Choice, review: Review) -> None:
        if tuple(session.shape) != choice.layout.stack_shape:
            raise InputError(f"{choice.image.name} has {choice.layout.words}; the project {session.shape}.")
        binding = Binding(self.viewer, choice.image, choice.layout, session, self.ring)
        binding.on_history, binding.on_stroke = self._by_key, self._at_once
        self.session, self.review, self.binding = session, review, binding
        self.drawing = Drawing(session, binding, self.engine, self._show_result)
        if self.model is not None and session.read_only is None:
            session.use_model(self.model)
        self.adapting.begin(session)
        binding.colour()
        self._sync()
        objects = session.objects
        if objects:
            self.select(objects[0].id)
        elif session.read_only is None:
            self.add_object()
        self.changed.emit()

    def _keep(self) -> None:
        """Give the session its project file, before the first of the user's work is written."""
        session, path = self.session, self._target
        if session is None or path is None:
            return
        self._target = None
        job = Job("save", lambda job: patiently(lambda: projects.keep(session, path)), session, precious=True)
        job.then = lambda note: self.notice(note, "warning" if note.startswith(projects.UNSAVED) else "info")
        self.engine.submit(job)

    def save(self, path: str | Path) -> None:
        """Give a session that is only in memory its project file, with all that was done so far."""
        session, _ = self._live()
        if session.path is not None:
            raise InputError(f"Everything is saved in {session.path} already.")
        self._target = Path(path)
        self._keep()
        self.changed.emit()

    def leave(self) -> None:
        """End the session: its project is whole, its layers are emptied and hidden."""
        session, binding = self.session, self.binding
        if session is None or binding is None:
            return
        self.show_before(False)
        if session.strokes() or session.annotated_frames():
            self._keep()
        binding.retire()
        self.stop()
        self.adapting.leave()
        self.session = self.binding = self.drawing = self.selected = self._target = None
        self.review = Review()
        self.engine.submit(Job("close", lambda job: session.close(), precious=True))
        self.changed.emit()

    def close(self) -> None:
        """End everything; a job that runs stops at its frame, and what is done is kept."""
        if self.closed:
            return
        session, binding = self.session, self.binding
        if session is not None:
            if self.comparing and not self.engine.busy:
                self.show_before(False)
            if session.strokes() or session.annotated_frames():
                self._keep()
            session.cancel()
        self.closed = True
        if binding is not None:
            binding.disconnect()
        self.exporter.close()
        self.adapting.engine.close()
        self.engine.close(None if session is None else session.close)
        self.session = self.binding = self.drawing = None

    # -- models

    def load_model(self, name: str | Path | None = None, device: str | None = None) -> None:
        """Load a model in the background: the shipped one, another's name, or a .safetensors file."""

        def run(job: Job) -> Predictor:
            return loading.load(name, device)

        def then(model: Predictor) -> None:
            self.use_model(model)
            self.model_source = name

        self.model_state = "loading"
        self.engine.submit(Job("model", run, then=then))

    def use_model(self, model: Predictor) -> None:
        """Work with this model from now on, and do again what another one had no memory for."""
        self.model, self.model_state, self.model_source = model, "ready", None
        self.adapting.note(model)
        session = self.session
        if session is not None and session.read_only is None:
            self._edit(lambda: session.use_model(model))
        loading.release_memory()
        if self.drawing is not None:
            self.drawing.release()
        again, self._again = self._again, None
        if again is not None and again.owner is session and self.drawing is not None:
            if isinstance(again, Run):
                self.propagate(*again.asked)
            elif isinstance(again, StrokesJob):
                self.drawing.catch_up()
        self.changed.emit()

    def adapt(self) -> None:
        """Fine-tune the model on what is annotated here, for two minutes at most; `stop` leaves it as it was."""
        session, _ = self._live()
        self._look()
        self.adapting.start(session)

    def drop_adapted(self) -> None:
        """Go back to the model as it was before it was adapted, and forget the adapted weights."""
        session, _ = self._live()
        self._edit(lambda: session.drop_adapted(self.adapting.plain), self.adapting.dropped)

    # -- drawing

    def _look(self) -> None:
        """Take in what the user drew, moved, deleted or painted."""
        session, binding = self.session, self.binding
        if session is None or binding is None or self.comparing:
            return
        changes = binding.read()
        for note in changes.notes:
            self.notice(note, "warning")
        if session.read_only is not None:
            if changes.new or changes.gone:
                self._sync()
            return
        self._take_strokes(changes)
        if binding.painted:
            self._keep()
            if not self.engine.busy:
                binding.painted = False
                session.commit_paint()
                self._all_changed()

    def _at_once(self, drawn: Drawn) -> None:
        """A stroke has just ended: send it before anything is painted."""
        if self.comparing or self.session is None or self.session.read_only is not None:
            self.ring()
        else:
            self.safely(self._take_strokes, Changes(new=(drawn,)))

    def _take_strokes(self, changes: Changes) -> None:
        """Send what was drawn to the session; a propagation stops for it."""
        drawing = self.drawing
        if drawing is None or not (changes.new or changes.gone):
            return
        for drawn in changes.gone:
            if drawn.stroke is not None:
                self._interrupt()
            drawing.take_back(drawn)
        if changes.new:
            self._interrupt()
            self._keep()
        if self.model_state in ("ready", "loading"):
            drawing.submit(changes.new)
        elif changes.new:
            drawing.hold(changes.new)
            self.notice(f"The stroke waits for a model. {self.model_state}", "error")

    def _show_result(self, result: FrameResult | None, propagated: bool = False) -> None:
        """Show a frame that changed; those of other sessions never come here."""
        if result is None or self.binding is None:
            return
        self.review.note(result.frame, result.quality, result.round if propagated else None)
        if self.binding.refresh([result.frame]) and not propagated:
            self.binding.describe(self.review.at(result.frame))

    def _sync(self) -> None:
        """Let layers and timeline show the session's strokes and annotations."""
        if self.session is not None and self.drawing is not None:
            self.drawing.sync()
            self.review.mark(self.session)

    def _interrupt(self) -> None:
        """Stop a propagation after its frame."""
        if any(job.kind == "propagate" for job in self.engine.jobs):
            self.engine.stop("propagate")
            if self.session is not None:
                self.session.cancel()

    def frame_changed(self) -> None:
        """The user went to another frame."""
        if self.session is not None and self.binding is not None:
            self.binding.describe(self.review.at(self.binding.frame))

    # -- objects

    def _edit(self, call: Callable[[], Any], then: Callable[[Any], None] | None = None) -> None:
        """Change the session: now if it is free, else when what runs has stopped."""
        if self.engine.busy:
            self._interrupt()
            self.engine.submit(Job("edit", lambda job: patiently(call), self.session, then=then, precious=True))
            return
        value = call()
        if then is not None:
            then(value)

    def add_object(self, name: str | None = None) -> None:
        """Make an object and draw it next."""
        session, _ = self._live()
        self._edit(lambda: session.add_object(name), lambda made: self._objects_changed(made.id))

    def select(self, object_id: int) -> None:
        """Draw for this object (0: background) from now on."""
        _, binding = self._live()
        self.selected = object_id
        binding.draw_for(object_id)
        self.changed.emit()

    def draw_background(self) -> None:
        """Draw what belongs to no object."""
        self.select(BACKGROUND)

    def paint_mask(self) -> None:
        """Paint the chosen object's mask by hand: napari's brush, in the result layer or the part of it in view."""
        session, binding = self._live()
        ids = [o.id for o in session.objects]
        binding.paint_for(self.selected if self.selected in ids else next(iter(ids), 1))
        self.changed.emit()

    def next_object(self) -> None:
        """Draw for the next object of the table; after the last comes a new one."""
        session, _ = self._live()
        after = [o.id for o in session.objects if o.id > (self.selected or 0)]
        if after:
            self.select(after[0])
        else:
            self.add_object()

    def rename_object(self, object_id: int, name: str) -> None:
        """Give an object another name."""
        session, _ = self._live()
        self._edit(lambda: session.rename(object_id, name), self._objects_changed)

    def recolour_object(self, object_id: int, colour: str) -> None:
        """Show an object in another colour, "#rrggbb"."""
        session, _ = self._live()
        self._edit(lambda: session.recolour(object_id, colour), self._objects_changed)

    def hide_object(self, object_id: int, hidden: bool = True) -> None:
        """Hide an object's mask and strokes, or show them again."""
        _, binding = self._live()
        (binding.hidden.add if hidden else binding.hidden.discard)(object_id)
        binding.colour()
        self.changed.emit()

    def lock_object(self, object_id: int, locked: bool = True) -> None:
        """Let nothing change an object, or let it be changed again."""
        session, _ = self._live()
        self._edit(lambda: (session.lock if locked else session.unlock)(object_id), self._objects_changed)

    def remove_object(self, object_id: int) -> None:
        """Remove an object with its masks; undo brings it back."""
        session, _ = self._live()
        self._edit(lambda: session.remove_object(object_id), self._all_changed)

    def divide(self, object_id: int, daughters: int = 2) -> None:
        """End an object before the frame on screen, where its daughters begin: annotate them next."""
        session, _ = self._live()
        frame = self.frame

        def then(made: tuple[ObjectInfo, ...]) -> None:
            self._all_changed()
            self.select(made[0].id)
            self.notice(f"Draw {' and '.join(o.name for o in made)} here, then propagate.")

        self._edit(lambda: session.divide(object_id, frame, daughters), then)

    def _objects_changed(self, chosen: int | None = None) -> None:
        session, binding = self._live()
        binding.colour()
        self.review.mark(session)
        if chosen is not None:
            self.select(chosen)
        self.changed.emit()

    def _all_changed(self, value: object = None) -> None:
        """After undo, redo and the like: show everything again."""
        session, binding = self._live()
        objects = [o.id for o in session.objects]
        if self.selected and self.selected not in objects:
            self.selected = objects[0] if objects else None
        self._sync()
        binding.colour()
        binding.refresh()
        self._reviewed()
        self.changed.emit()

    def _reviewed(self) -> None:
        """Read all qualities and spans again, in the background."""
        session = self.session
        if session is None:
            return

        def then(review: Review) -> None:
            self.review = review
            if self.binding is not None:
                self.binding.describe(review.at(self.binding.frame))

        self.exporter.submit(Job("review", lambda job: Review.of(session), session, then=then))

    # -- propagating

    def propagate(self, direction: Direction = "both", start: int | None = None, stop: int | None = None) -> None:
        """Carry the annotations of this round to the other frames, or on to those that are not done yet."""
        session, _ = self._live()
        self._look()

        def run(job: Job) -> Generator[FrameResult]:
            if not job.stop.is_set():
                task.total = session.remaining(direction, start, stop)
                yield from patiently(lambda: session.propagate(direction, start, stop))

        def then(value: object) -> None:
            done = self.frames_done
            self.notice(f"Propagated {done} frame{'s' * (done != 1)}.")

        task = Run("propagate", run, session, then=then, asked=(direction, start, stop))
        self.engine.submit(task)
        self._lock_result(True)
        self.changed.emit()

    def stop(self) -> None:
        """Stop what runs within a frame; what is done is kept, and so are strokes that wait."""
        self.engine.stop()
        self.exporter.stop()
        self.adapting.engine.stop()
        if self.session is not None:
            self.session.cancel()
        self.changed.emit()

    def _lock_result(self, locked: bool) -> None:
        if self.binding is not None and self.binding.paper.editable == locked:
            self.binding.paper.editable = not locked

    # -- review

    def go_to(self, frame: int) -> None:
        """Put a frame on screen."""
        self._live()[1].show_frame(frame)

    def next_frame(self) -> None:
        """Go to the frame whose masks are the worst."""
        session, binding = self._live()
        frame = session.suggest_frame()
        if frame is None:
            self.notice("Nothing to suggest: every frame is annotated, or nothing was propagated yet.")
        else:
            binding.show_frame(frame)

    def undo(self, to: Literal["step", "round"] = "step") -> None:
        """Take back the last step (a stroke, an edit, a propagation), or the last round but for its new objects."""
        session, _ = self._live()
        self._edit(lambda: session.undo(to), self._all_changed)

    def redo(self, to: Literal["step", "round"] = "step") -> None:
        """Bring back what undo took."""
        session, _ = self._live()
        self._edit(lambda: session.redo(to), self._all_changed)

    def _by_key(self, command: str) -> None:
        """Ctrl-Z or Ctrl-Shift-Z in one of our layers: there is one history, whatever layer is asked."""
        reason = reasons(self.state())[command]
        if reason:
            self.notice(reason, "warning")
        else:
            self.safely(getattr(self, command))

    def show_before(self, before: bool = True) -> None:
        """Show the result as it was before the last round, or as it is; nothing can be changed meanwhile."""
        session = self.session
        if session is None or before == self.comparing:
            return
        self.comparing = before
        self._edit(lambda: (session.undo if before else session.redo)("round"), self._all_changed)

    # -- from and to elsewhere

    def import_labels(self, layer: Labels, how: Literal["objects", "masks", "scribbles"] = "objects") -> None:
        """Take what a Labels layer has on the frame on screen, in the background.

        Parameters
        ----------
        layer : Labels
            Painted by hand, or made by another plugin.
        how : str
            "objects": each label starts a new object; "masks": labels are ids of objects, taken to the pixel;
            "scribbles": what was painted is drawn as strokes.
        """
        session, binding = self._live()
        frame = self.frame
        image = importing.labels_on(layer, binding.image, binding.layout, frame)
        self._interrupt()
        self._keep()
        call = importing.IMPORTS[how]
        job = Job("import", lambda job: patiently(lambda: call(session, frame, image, layer.name)), session)
        job.then, job.precious = self._all_changed, True
        self.engine.submit(job)
        self.changed.emit()

    def export(self, path: str | Path, format: str | None = None, overwrite: bool = False) -> None:  # noqa: A002
        """Write the result for other programs, in the background."""
        session, _ = self._live()

        def run(job: Job) -> Any:
            def progress(done: int, total: int) -> None:
                if job.stop.is_set():
                    raise IvosError("The export was stopped; nothing was written.")
                self.exporter.report(job, (done, total))

            return session.export(path, format, overwrite=overwrite, progress=progress)

        def then(written: Any) -> None:
            self.notice(" ".join([f"Wrote {written.path}.", *written.notes]))

        self.exporter.submit(Job("export", run, session, then=then))
        self.changed.emit()

    def add_tracks(self) -> None:
        """Add a Tracks layer: where each object was, and which divided into which."""
        session, binding = self._live()

        def then(made: Any) -> None:
            self.viewer.add_layer(telling.tracks_layer(made, binding.image, binding.layout))

        self.exporter.submit(Job("tracks", lambda job: telling.tracks(session), session, then=then))

    def script(self, folder: str | Path | None = None) -> str:
        """The same work as a Python program, which gives the same labels to the last bit on the same machine.

        What does not fit into text (painted masks, adapted models) is written into `folder` (default: the project's),
        where the program looks for it.
        """
        session, _ = self._live()
        session.commit_paint()
        beside = Path(folder) if folder is not None else projects.copied_beside(session, "").resolve()
        return scripting.script(session, beside, self.model_source)

    def methods_text(self) -> str:
        """What was done, as sentences for a methods section."""
        return telling.methods_text(self._live()[0])
