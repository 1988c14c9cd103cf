"""The way of what the user draws: out of the layers, through the engine, into the session, and what it has; no Qt.

Strokes are the user's work: from the moment they are read they wait in jobs that nothing drops, or, while there is no
model, here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_ivos.errors import IvosError, SessionBusy
from napari_ivos.plugin.engine import Engine, Job
from napari_ivos.scribbles import BACKGROUND, Scribbles, Stroke

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_ivos.plugin.layers import Binding
    from napari_ivos.plugin.tracing import Drawn
    from napari_ivos.predictor import Predictor
    from napari_ivos.session import FrameResult, Session

PATIENCE = 50
"""How often a job asks again for a session that is writing paint at that moment."""


@dataclass(eq=False)
class StrokesJob(Job):
    """Strokes of one frame on their way to the session; those drawn while it waits join it."""

    frame: int = 0
    drawn: tuple[Drawn, ...] = ()


class Drawing:
    """What is drawn in one session's layers, and how much of it the session has.

    Parameters
    ----------
    session : Session
    binding : Binding
        Its layers.
    engine : Engine
        Where strokes are segmented.
    show : callable
        Called with a `FrameResult`, or None, when a stroke has changed a frame.
    loaded : callable
        Asked in the engine's thread for the model that was loaded there last: strokes that were drawn meanwhile come
        next, and may find that the window has not given it to the session yet.
    """

    def __init__(
        self,
        session: Session,
        binding: Binding,
        engine: Engine,
        show: Callable[[FrameResult | None], None],
        loaded: Callable[[], Predictor | None] = lambda: None,
    ) -> None:
        self._loaded = loaded
        self.session = session
        self.binding = binding
        self.held: list[Drawn] = []
        self._engine = engine
        self._show = show

    def submit(self, strokes: Iterable[Drawn]) -> None:
        """Send strokes to the session, those of a frame together."""
        for drawn in strokes:
            if not self._engine.amend(partial(_joined, drawn=drawn, session=self.session)):
                job = StrokesJob("interact", self._interact, self.session, frame=drawn.frame, drawn=(drawn,))
                job.then, job.precious, job.again = self._show, True, self.catch_up
                self._engine.submit(job)

    def hold(self, strokes: Iterable[Drawn]) -> None:
        """Keep strokes until there is a model, or the session can write them."""
        self.held += strokes

    def release(self) -> None:
        """Send what waits."""
        held, self.held = self.held, []
        self.submit(held)

    def write(self) -> None:
        """Have what waits written without masks: the session ends; who opens it again makes them."""
        held, self.held = self.held, []
        for frame in dict.fromkeys(d.frame for d in held):
            scribbles = Scribbles(frame, [Stroke(d.object_id, d.points) for d in held if d.frame == frame])
            run = partial(_written, self.session, scribbles)
            self._engine.submit(Job("write", run, self.session, precious=True))

    def take_back(self, drawn: Drawn) -> None:
        """Take a stroke that was deleted or moved out of the session, or stop it on its way there."""
        stroke = drawn.stroke
        if stroke is None:
            self.held = [d for d in self.held if d is not drawn]
            self._engine.amend(partial(_parted, drawn=drawn))
            return

        def run(job: Job) -> FrameResult:
            self._equipped()
            gone: FrameResult = patiently(lambda: self.session.remove_stroke(stroke))
            return gone

        self._engine.submit(Job("remove stroke", run, self.session, then=self._show, precious=True))

    def catch_up(self) -> None:
        """Segment the strokes that were kept while frame or model failed."""

        def run(job: Job) -> tuple[FrameResult, ...]:
            made: tuple[FrameResult, ...] = patiently(self.session.catch_up)
            return made

        def then(results: tuple[FrameResult, ...]) -> None:
            for result in results:
                self._show(result)

        self._engine.submit(Job("interact", run, self.session, then=then, precious=True))

    def sync(self) -> None:
        """Let the layers show the session's strokes."""
        jobs = [job for job in self._engine.jobs if isinstance(job, StrokesJob) and job.owner is self.session]
        there = {o.id for o in self.session.objects} | {BACKGROUND}
        records = [r for r in self.session.strokes() if r.object_id in there]
        self.binding.strokes.adopt(records, self.session.open_round, [d for j in jobs for d in j.drawn] + self.held)

    def _interact(self, job: Job) -> FrameResult | None:
        if not isinstance(job, StrokesJob) or not job.drawn:
            return None
        if not self._equipped():
            self.hold(job.drawn)
            return None
        scribbles = Scribbles(job.frame, [Stroke(d.object_id, d.points) for d in job.drawn])
        before = len(self.session.strokes())
        try:
            result: FrameResult = patiently(lambda: self.session.interact(scribbles))
        except IvosError:
            if len(self.session.strokes()) == before:  # not even written: they stay on screen, and are sent again
                self.hold(job.drawn)
            raise
        return result

    def _equipped(self) -> bool:
        """Give the session the model that was loaded; whether it has one."""
        model = self._loaded()
        if self.session.model is None and model is not None:
            patiently(lambda: self.session.use_model(model))
        return self.session.model is not None


def patiently(call: Callable[[], Any]) -> Any:
    """Call, and call again while the session writes down paint."""
    for _ in range(PATIENCE):
        try:
            return call()
        except SessionBusy:
            time.sleep(0.01)
    return call()


def _written(session: Session, scribbles: Scribbles, job: Job) -> None:
    patiently(lambda: session.keep(scribbles))


def _joined(job: Job, drawn: Drawn, session: Session) -> bool:
    """Add a stroke to a job that waits for the same frame."""
    if not isinstance(job, StrokesJob) or job.owner is not session or job.frame != drawn.frame:
        return False
    job.drawn += (drawn,)
    return True


def _parted(job: Job, drawn: Drawn) -> bool:
    """Take a stroke out of a job that waits."""
    if not isinstance(job, StrokesJob) or drawn not in job.drawn:
        return False
    job.drawn = tuple(d for d in job.drawn if d is not drawn)
    return True
