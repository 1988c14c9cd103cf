"""The way of what the user draws: out of the layers, through the engine, into the session, and what it has; no Qt.

Strokes are the user's work: from the moment they are read they wait in jobs that nothing drops, which write them even
where there is no model. Those that can't be written wait here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_ivos.errors import OutOfMemory, ProjectError, SessionBusy
from napari_ivos.plugin.engine import Engine, Job
from napari_ivos.plugin.state import ACTIVE
from napari_ivos.scribbles import BACKGROUND, Scribbles, Stroke

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_ivos.errors import IvosError
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
    idle : callable
        Called when strokes have changed no mask.

    Attributes
    ----------
    held : list of Drawn
        Strokes that could not be written; they are sent again with the next ones.
    """

    def __init__(
        self,
        session: Session,
        binding: Binding,
        engine: Engine,
        show: Callable[[FrameResult | None], None],
        loaded: Callable[[], Predictor | None] = lambda: None,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._loaded, self._idle = loaded, idle
        self.session = session
        self.binding = binding
        self.held: list[Drawn] = []
        self._sent: list[StrokesJob] = []
        self._engine = engine
        self._show = show

    @property
    def waiting(self) -> bool:
        """Whether strokes are on their way to the session."""
        return bool(self._sent)

    def submit(self, strokes: Iterable[Drawn]) -> None:
        """Send strokes to the session, those of a frame together."""
        for drawn in strokes:
            if not self._engine.amend(partial(_joined, drawn=drawn, session=self.session)):
                job = StrokesJob("interact", self._interact, self.session, frame=drawn.frame, drawn=(drawn,))
                job.then, job.precious = partial(self._done, job), True
                self._sent.append(job)
                self._engine.submit(job)

    def _done(self, job: StrokesJob, result: FrameResult | None) -> None:
        self._sent.remove(job)
        self._show(result)
        if result is not None and not result.objects:
            self._idle()

    def failed(self, job: StrokesJob, error: IvosError) -> bool:
        """Hold what the session doesn't have of a job that failed, unless it refused that; whether anything is held."""
        self._sent.remove(job)
        if not isinstance(error, ProjectError | SessionBusy | OutOfMemory):
            return False
        self.held += [drawn for drawn in job.drawn if not drawn.withdrawn]
        self.sync()
        self.held = [drawn for drawn in self.held if drawn.stroke is None]
        return bool(self.held)

    def release(self) -> None:
        """Send the strokes that could not be written again."""
        held, self.held = self.held, []
        self.submit(held)

    def take_back(self, drawn: Drawn) -> None:
        """Take a stroke that was deleted or moved out of the session, or stop it on its way there."""
        if drawn.stroke is None:
            self.held = [d for d in self.held if d is not drawn]
            waited = self._engine.amend(partial(_parted, drawn=drawn))
            if waited or not any(drawn in job.drawn for job in self._sent):
                return
            drawn.withdrawn = True  # it is being segmented: its number is known when that is done

        def run(job: Job) -> FrameResult | None:
            stroke = self._number_of(drawn)
            if stroke is None:
                return None
            self._equipped()
            gone: FrameResult = patiently(lambda: self.session.remove_stroke(stroke))
            return gone

        self._engine.submit(Job("remove stroke", run, self.session, then=self._show, precious=True))

    def _number_of(self, drawn: Drawn) -> int | None:
        """Which of the session's strokes this is; None where it has not got there."""
        if drawn.stroke is not None:
            return drawn.stroke
        records = self.session.strokes(drawn.frame, drawn.object_id, self.session.open_round)
        return max((r.id for r in records if drawn.same(r)), default=None)

    def catch_up(self) -> None:
        """Segment the strokes, if there are any, that were kept while frame or model failed or there was no model."""
        waiting = (s for s in self.session.log if s.kind == "interact" and s.state == ACTIVE and not s.finished)
        if self.session.read_only is not None or next(waiting, None) is None:
            return

        def run(job: Job) -> tuple[FrameResult, ...]:
            made: tuple[FrameResult, ...] = patiently(self.session.catch_up)
            return made

        def then(results: tuple[FrameResult, ...]) -> None:
            for result in results:
                self._show(result)

        self._engine.submit(Job("interact", run, self.session, then=then, precious=True))

    def sync(self) -> None:
        """Let the layers show the session's strokes."""
        there = {o.id for o in self.session.objects} | {BACKGROUND}
        records = [r for r in self.session.strokes() if r.object_id in there]
        on_their_way = [drawn for job in self._sent for drawn in job.drawn]
        self.binding.strokes.adopt(records, self.session.open_round, on_their_way + self.held)

    def _interact(self, job: Job) -> FrameResult | None:
        if not isinstance(job, StrokesJob) or not job.drawn:
            return None
        scribbles = Scribbles(job.frame, [Stroke(d.object_id, d.points) for d in job.drawn])
        equipped = self._equipped()
        if self._engine.closing or not equipped:
            patiently(lambda: self.session.keep(scribbles))
            if equipped and not any(isinstance(j, StrokesJob) for j in self._engine.jobs if j is not job):
                patiently(self.session.catch_up)  # all strokes are written before the first mask is made
            return None
        result: FrameResult = patiently(lambda: self.session.interact(scribbles))
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
