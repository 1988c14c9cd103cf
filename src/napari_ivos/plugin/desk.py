"""The desk: everything that can be done with one stack in one viewer, as plain methods; no Qt.

The window (`widget`) shows the desk's state and calls its methods, and so do commands, keys and scripts. What may take
longer than a blink runs in the desk's engine; `handle` takes in what came of it and looks what the user drew.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from psygnal import Signal

from napari_ivos.errors import InputError, IvosError, OutOfMemory, SessionBusy, WeightsError
from napari_ivos.plugin import geometry, importing, loading, projects, telling
from napari_ivos.plugin.engine import Engine, Event, Job
from napari_ivos.plugin.layers import Binding, Drawn
from napari_ivos.plugin.review import Review
from napari_ivos.plugin.state import State
from napari_ivos.scribbles import BACKGROUND, Scribbles, Stroke

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from napari_ivos.plugin.projects import Choice
    from napari_ivos.predictor import Predictor
    from napari_ivos.session import FrameResult, ObjectInfo, Session

TELL_EVERY = 0.5
"""Seconds between two words about a propagation's progress: drawing them takes time from the networks."""
LONG = ("open", "model", "propagate", "export", "tracks")
"""Kinds of jobs whose progress is shown."""
PATIENCE = 50
"""How often a job asks again for a session that is writing paint at that moment."""
Direction = Literal["both", "forward", "backward"]


@dataclass(frozen=True)
class Progress:
    """How far a long job has come: for people, and in frames (`total` 0: unknown)."""

    kind: str
    done: int = 0
    total: int = 0
    seconds_left: float | None = None


@dataclass(eq=False)
class StrokesJob(Job):
    """Strokes of one frame on their way to the session."""

    frame: int = 0
    drawn: tuple[Drawn, ...] = ()


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
        self.session: Session | None = None
        self.binding: Binding | None = None
        self.review = Review()
        self.selected: int | None = None
        self.follow = False
        self.comparing = False
        self.model: Predictor | None = None
        self.model_state = ""
        self._held: list[Drawn] = []
        self._opening = False
        self._begun = 0.0
        self._total = 0
        self._done = 0
        self._told = 0.0
        self.closed = False

    # -- the loop

    def ring(self) -> None:
        """Ask for `handle`; from any thread."""
        self._bell.set()
        if self._ring is not None and not self.closed:
            self._ring()

    def handle(self) -> None:
        """Take in what the engine did and what the user drew."""
        self._bell.clear()
        if self.closed:
            return
        events = [*self.engine.take(), *self.exporter.take()]
        for event in self._current(events):
            self._take_in(event)
        self._look()
        if any(event.kind != "item" for event in events):
            self._lock_result(any(job.kind == "propagate" for job in self.engine.jobs))
            self.changed.emit()

    def wait(self, seconds: float = 60.0) -> None:
        """Work until nothing is left to do; for scripts and notebooks, in the window's thread.

        Raises
        ------
        IvosError
            It takes longer.
        """
        end = time.monotonic() + seconds
        self.handle()
        while self.engine.busy or self.exporter.busy or self._bell.is_set():
            left = end - time.monotonic()
            if left <= 0:
                raise IvosError(f"Not done within {seconds:g} seconds.")
            self._bell.wait(min(left, 0.05))
            self.handle()

    def _current(self, events: Iterable[Event]) -> list[Event]:
        """Events that are still of interest: answers of sessions that are gone are dropped."""
        return [e for e in events if e.job.owner is None or e.job.owner is self.session]

    def _take_in(self, event: Event) -> None:
        job = event.job
        if event.kind == "started":
            self._start_clock(job)
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
        if job.kind == "propagate":
            self._done += 1
            self._show_result(item, propagated=True)
            if self.follow and self.binding is not None and not job.stop.is_set():
                self.binding.show_frame(item.frame)
            now = time.monotonic()
            if now - self._told < TELL_EVERY:
                return
            self._told, spent = now, now - self._begun
            left = spent / self._done * max(self._total - self._done, 0)
            self.progressed.emit(Progress("propagate", self._done, max(self._total, self._done), left))
        else:
            self.progressed.emit(Progress(job.kind, *item))

    def _start_clock(self, job: Job) -> None:
        self._begun, self._done = time.monotonic(), 0
        if job.kind in LONG:
            self.progressed.emit(Progress(job.kind, 0, self._total if job.kind == "propagate" else 0))

    def _take_error(self, job: Job, error: IvosError) -> None:
        if job.kind == "open":
            self._opening = False
        if job.kind == "model":
            self.model_state = str(error)
        self.noticed.emit(str(error), "error")
        device = "" if self.model is None else self.model.device
        if isinstance(error, OutOfMemory) and device not in ("", "cpu"):
            self.noticed.emit(f"{device} is out of memory: the model goes on on the CPU.", "warning")
            self.load_model(device="cpu")

    def notice(self, text: str, kind: str = "info") -> None:
        """Tell the user something."""
        self.noticed.emit(text, kind)

    # -- state

    def state(self, image: bool = False) -> State:
        """What decides which commands are possible; `image`: whether a layer is chosen."""
        session = self.session
        jobs = (*self.engine.jobs, *self.exporter.jobs)
        running = next((j.kind for j in jobs if j.kind == "propagate"), jobs[0].kind if jobs else "")
        base = State(image=image, opening=self._opening, model=self.model_state, running=running)
        if session is None:
            return base
        objects = session.objects
        active = [s for s in session.log if s.state == 1]
        return replace(
            base,
            session=True,
            read_only=session.read_only or "",
            objects=len(objects),
            selected=self.selected,
            locked=any(o.id == self.selected and o.locked for o in objects),
            annotated=any(s.kind in ("interact", "annotate", "remove stroke") for s in active),
            propagated=any(s.kind == "propagate" for s in active),
            can_undo=bool(active),
            can_redo=any(s.state == 0 for s in session.log),
            comparing=self.comparing,
        )

    @property
    def open_round(self) -> int:
        """The round that the next stroke belongs to."""
        if self.session is None:
            return 1
        active = [s for s in self.session.log if s.state == 1]
        last = max((s.round for s in active), default=1)
        return last + any(s.kind == "propagate" and s.round == last for s in active)

    @property
    def frame(self) -> int:
        """The frame on screen."""
        return 0 if self.binding is None else self.binding.frame

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
            The project file; None: in memory. By default beside the stack. One that exists is gone on with.
        fresh : bool
            Begin a new project even if there is one.
        """
        choice = chosen if isinstance(chosen, projects.Choice) else self.choice(chosen)
        target = projects.project_path(choice.image) if path == "auto" else path
        self._open(lambda: projects.open_session(choice, target, fresh), choice)

    def open_project(self, path: str | Path, image: Image | None = None) -> None:
        """Open a project with its layers, colours, strokes and history.

        The frames are those of `image`, else they are looked for where they were and shown as a new layer.
        """
        from napari_ivos.session import Session

        choice = None if image is None else self.choice(image)
        stack = None if choice is None else projects.stack_of(choice)
        self._open(lambda: (Session.open(path, frames=stack), f"Opened {Path(path).name}."), choice)

    def _open(self, make: Callable[[], tuple[Session, str]], choice: Choice | None) -> None:
        self.leave()
        self._opening = True

        def run(job: Job) -> Any:
            session, note = make()
            return session, note, Review.of(session)

        def then(made: tuple[Session, str, Review]) -> None:
            session, note, review = made
            self._opening = False
            self._begin(session, choice or self.choice(self._show_stack(session)), review)
            self.notice(note, "warning" if note.startswith("NOTHING") else "info")

        self.engine.submit(Job("open", run, then=then))
        if self.model is None and self.model_state != "loading":
            self.load_model()
        self.changed.emit()

    def _show_stack(self, session: Session) -> Image:
        """The layer of a session's frames: one that is there, or a new one."""
        from napari.layers import Image

        data, options = projects.image_of(session)
        for layer in self.viewer.layers:
            if isinstance(layer, Image) and session.stack is not None:
                file = projects.stack_file(layer)
                if file is not None and file == session.stack.source:
                    return layer
        image = Image(data, **options)
        self.viewer.add_layer(image)
        return image

    def _begin(self, session: Session, choice: Choice, review: Review) -> None:
        if tuple(session.shape) != choice.layout.stack_shape:
            raise InputError(f"{choice.image.name} has {choice.layout.words}; the project {session.shape}.")
        binding = Binding(self.viewer, choice.image, choice.layout, session, self.ring)
        self.session, self.review, self.binding = session, review, binding
        if self.model is not None and session.read_only is None:
            session.use_model(self.model)
        binding.colour()
        self._sync()
        objects = session.objects
        if objects:
            self.select(objects[0].id)
        elif session.read_only is None:
            self.add_object()
        self.changed.emit()

    def leave(self) -> None:
        """End the session: its project is whole, its layers are emptied and hidden."""
        session, binding = self.session, self.binding
        if session is None or binding is None:
            return
        self.show_before(False)
        binding.retire()
        self.stop()
        self.session = self.binding = self.selected = None
        self.review = Review()
        self.engine.submit(Job("close", lambda job: session.close()))
        self.changed.emit()

    def close(self) -> None:
        """End everything; a job that runs stops at its frame, and what is done is kept."""
        if self.closed:
            return
        if self.session is not None and self.comparing and not self.engine.busy:
            self.show_before(False)
        self.closed = True
        session, binding = self.session, self.binding
        if binding is not None:
            binding.disconnect()
        if session is not None:
            session.cancel()
        self.exporter.close()
        self.engine.close(None if session is None else session.close)
        self.session = self.binding = None

    # -- models

    def load_model(self, name: str | Path | None = None, device: str | None = None) -> None:
        """Load a model in the background: the shipped one, another's name, or a .safetensors file."""

        def run(job: Job) -> Predictor:
            return loading.load(name, device)

        self.model_state = "loading"
        self.engine.submit(Job("model", run, then=self.use_model))

    def use_model(self, model: Predictor) -> None:
        """Work with this model from now on."""
        self.model, self.model_state = model, "ready"
        session = self.session
        if session is not None and session.read_only is None:
            self._edit(lambda: session.use_model(model))
        held, self._held = self._held, []
        self._submit(held)
        self.changed.emit()

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
        for drawn in changes.gone:
            self._take_back(drawn)
        self._submit(changes.new)
        if binding.painted and not self.engine.busy:
            binding.painted = False
            session.commit_paint()
            self._sync()
            self._reviewed()
            self.changed.emit()

    def _submit(self, strokes: Iterable[Drawn]) -> None:
        """Send strokes to the session, those of a frame together; a propagation stops for them."""
        for drawn in strokes:
            self._interrupt()
            if self.model_state not in ("ready", "loading"):
                self._held.append(drawn)
                self.notice(f"The stroke waits for a model. {self.model_state}", "error")
            elif not self.engine.amend(partial(_joined, drawn=drawn)):
                job = StrokesJob("interact", self._interact, self.session, frame=drawn.frame, drawn=(drawn,))
                job.then = self._show_result
                self.engine.submit(job)

    def _interact(self, job: Job) -> FrameResult | None:
        if not isinstance(job, StrokesJob) or not job.drawn:
            return None
        session = cast("Session", job.owner)
        strokes = [Stroke(d.object_id, d.points) for d in job.drawn]
        if session.model is None:
            raise WeightsError(f"The stroke could not be segmented: {self.model_state}")
        result: FrameResult = patiently(lambda: session.interact(Scribbles(job.frame, strokes)))
        return result

    def _take_back(self, drawn: Drawn) -> None:
        session = self.session
        stroke = drawn.stroke
        if session is None:
            return
        if stroke is None:
            self._held = [d for d in self._held if d is not drawn]
            self.engine.amend(partial(_parted, drawn=drawn))
            return
        self._interrupt()
        self.engine.submit(Job("remove stroke", partial(_remove, session, stroke), session, then=self._show_result))

    def _show_result(self, result: FrameResult | None, propagated: bool = False) -> None:
        """Show a frame that changed; those of other sessions never come here."""
        if result is None or self.binding is None:
            return
        self.review.note(result.frame, result.quality, propagated)
        if self.binding.refresh([result.frame]) and not propagated:
            self.binding.describe(self.review.at(result.frame))

    def _sync(self) -> None:
        """Let layers and timeline show the session's strokes and annotations."""
        session, binding = self.session, self.binding
        if session is None or binding is None:
            return
        on_their_way = [d for j in self.engine.jobs if isinstance(j, StrokesJob) for d in j.drawn] + self._held
        there = {o.id for o in session.objects} | {BACKGROUND}
        records = [r for r in session.strokes() if r.object_id in there]
        binding.adopt(records, self.open_round, on_their_way)
        self.review.mark(session)

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

    def _edit(self, call: Callable[[], Any], then: Callable[[Any], None] | None = None) -> Any:
        """Change the session: now if it is free, else when what runs has stopped. Its value, if now."""
        if self.engine.busy:
            self._interrupt()
            self.engine.submit(Job("edit", lambda job: patiently(call), self.session, then=then))
            return None
        value = call()
        if then is not None:
            then(value)
        return value

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
            self.notice(f"Draw {made[0].name} and {made[1].name} here, then propagate.")

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
        """Read all qualities again, in the background."""
        session = self.session
        if session is None:
            return

        def then(review: Review) -> None:
            review.changed = self.review.changed
            self.review = review
            if self.binding is not None:
                self.binding.describe(review.at(self.binding.frame))

        self.exporter.submit(Job("review", lambda job: Review.of(session), session, then=then))

    # -- propagating

    def propagate(self, direction: Direction = "both", start: int | None = None, stop: int | None = None) -> None:
        """Carry the annotations of this round to the other frames, or on to those that are not done yet."""
        session, _ = self._live()
        self._look()
        self._total = telling.frames_ahead(session, direction, start, stop)
        self.review.begin_round()

        def run(job: Job) -> Generator[FrameResult]:
            if not job.stop.is_set():
                yield from patiently(lambda: session.propagate(direction, start, stop))

        def then(value: object) -> None:
            self.notice(f"Propagated {self._done} frame{'s' * (self._done != 1)}.")

        self.engine.submit(Job("propagate", run, session, then=then))
        self._lock_result(True)
        self.changed.emit()

    def stop(self) -> None:
        """Stop what runs within a frame; what is done is kept."""
        self.engine.stop()
        self.exporter.stop()
        if self.session is not None:
            self.session.cancel()
        self.changed.emit()

    def _lock_result(self, locked: bool) -> None:
        if self.binding is not None and self.binding.labels.editable == locked:
            self.binding.labels.editable = not locked

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
        """Take back the last step (a stroke, an edit, a propagation), or the whole last round."""
        session, _ = self._live()
        self._edit(lambda: session.undo(to), self._all_changed)

    def redo(self, to: Literal["step", "round"] = "step") -> None:
        """Bring back what undo took."""
        session, _ = self._live()
        self._edit(lambda: session.redo(to), self._all_changed)

    def show_before(self, before: bool = True) -> None:
        """Show the result as it was before the last round, or as it is; nothing can be changed meanwhile."""
        session = self.session
        if session is None or before == self.comparing:
            return
        self.comparing = before
        self._edit(lambda: (session.undo if before else session.redo)("round"), self._all_changed)

    # -- from and to elsewhere

    def import_labels(self, layer: Labels, how: Literal["objects", "masks", "scribbles"] = "objects") -> None:
        """Take what a Labels layer has on the frame on screen.

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
        self._edit(lambda: importing.IMPORTS[how](session, frame, image, layer.name), self._all_changed)

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

    def script(self) -> str:
        """The same work as Python code."""
        session, binding = self._live()
        return telling.script(session, projects.stack_file(binding.image))

    def methods_text(self) -> str:
        """What was done, as sentences for a methods section."""
        return telling.methods_text(self._live()[0])


def patiently(call: Callable[[], Any]) -> Any:
    """Call, and call again while the session writes down paint."""
    for _ in range(PATIENCE):
        try:
            return call()
        except SessionBusy:
            time.sleep(0.01)
    return call()


def _remove(session: Session, stroke: int, job: Job) -> FrameResult:
    result: FrameResult = patiently(lambda: session.remove_stroke(stroke))
    return result


def _joined(job: Job, drawn: Drawn) -> bool:
    """Add a stroke to a job that waits for the same frame."""
    if not isinstance(job, StrokesJob) or job.frame != drawn.frame:
        return False
    job.drawn += (drawn,)
    return True


def _parted(job: Job, drawn: Drawn) -> bool:
    """Take a stroke out of a job that waits."""
    if not isinstance(job, StrokesJob) or drawn not in job.drawn:
        return False
    job.drawn = tuple(d for d in job.drawn if d is not drawn)
    return True
