"""The rounds of a desk: propagating, stopping, finding what is wrong, going back and forth in history; no Qt."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from napari_ivos.plugin.drawing import patiently
from napari_ivos.plugin.engine import Job
from napari_ivos.plugin.progress import Meter
from napari_ivos.plugin.work import Reading, Work
from napari_ivos.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.components import ViewerModel

    from napari_ivos.session import FrameResult

Direction = Literal["both", "forward", "backward"]
ALONE = "There is no other frame to carry masks to: this image is one frame. Correct it, or export its masks."


@dataclass(eq=False)
class Run(Job):
    """A propagation: about how many frames it will change, and how many it has."""

    total: int = 0
    meter: Meter = field(default_factory=Meter)


class Rounds(Work):
    """The part of a desk that has to do with rounds; see `Work` for parameters.

    Attributes
    ----------
    follow : bool
        Whether the view goes along with a propagation.
    """

    def __init__(self, viewer: ViewerModel, ring: Callable[[bool], None] | None = None) -> None:
        super().__init__(viewer, ring)
        self.follow = False
        self._last = Meter()

    def propagate(self, direction: Direction = "both", start: int | None = None, stop: int | None = None) -> None:
        """Carry the annotations of this round to the other frames, or on to those that are not done yet."""
        session, _ = self._live()
        self.show_before(False)
        self._look()
        if self.drawing is not None:
            self.drawing.release()

        def run(job: Job) -> Generator[FrameResult]:
            if not job.stop.is_set():
                task.meter.begin()
                task.total = session.remaining(direction, start, stop)
                yield from patiently(lambda: session.propagate(direction, start, stop))

        def then(value: object) -> None:
            self.review.mark(session)
            self.notice(_told(task.meter.done, task.stop.is_set()) if session.shape[0] > 1 else ALONE)

        task = Run("propagate", run, session, then=then)
        task.again = lambda: self.propagate(direction, start, stop)
        self._last = task.meter
        self.engine.submit(task)
        self._lock_result(True)
        self.notice("Look at any frame meanwhile. A stroke or Stop ends this after its frame; what is done is kept.")
        self.changed.emit()

    @property
    def frames_done(self) -> int:
        """Frames that the last propagation has changed so far."""
        return self._last.done

    def _take_item(self, job: Job, item: Any) -> None:
        if not isinstance(job, Run):
            super()._take_item(job, item)
            return
        self._show_result(item, propagated=True)
        if self.follow and self.binding is not None and not job.stop.is_set():
            self.binding.show_frame(item.frame)
        progress = job.meter.count(job.total)
        if progress is not None:
            self.progressed.emit(progress)

    def stop(self) -> None:
        """Stop what runs within a frame; what is done is kept, and so are strokes that wait."""
        unread = any(isinstance(job, Reading) for job in self.exporter.jobs)
        for engine in self.engines:
            engine.stop()
        if self.session is not None:
            self.session.cancel()
            if unread:
                self._reviewed()
        self._lock_result(any(job.kind == "propagate" for job in self.engine.jobs))
        self.changed.emit()

    def go_to(self, frame: int) -> None:
        """Put a frame on screen."""
        self._live()[1].show_frame(frame)

    def next_frame(self) -> None:
        """Go to the frame whose masks are the worst, and say whose mask it is; unless one paints, it is drawn next."""
        from napari.layers import Labels

        session, binding = self._live()
        frame = session.suggest_frame()
        if frame is None:
            self.notice("Nothing to suggest: every frame that was propagated is annotated, or right as you said.")
            return
        binding.show_frame(frame)
        alive = {o.id: o.name for o in session.objects if frame in o.lifetime and not o.locked}
        known = {i: q for i, q in self.review.at(frame).items() if i in alive and not math.isnan(q)}
        worst = min(known, key=lambda i: known[i], default=None)
        if worst is None:
            return
        if not isinstance(self.viewer.layers.selection.active, Labels):  # in which one paints
            self.select(worst)
        said = f"Frame {frame}: the least sure is {alive[worst]} ({known[worst]:.2f})."
        self.notice(f"{said} Draw where it is wrong; or press Gone, or Frame is right.")

    def undo(self, to: Literal["step", "round"] = "step") -> None:
        """Take back the last step (a stroke, an edit, a propagation), or the last round but for its new objects."""
        session, _ = self._live()
        self._edit(lambda: session.undo(to), self._all_changed)

    def redo(self, to: Literal["step", "round"] = "step") -> None:
        """Bring back what undo took."""
        session, _ = self._live()
        self._edit(lambda: session.redo(to), self._all_changed)


def _told(done: int, stopped: bool) -> str:
    """What is said of a propagation that has ended."""
    frames = counted(done, "frame")
    if stopped:
        return f"Stopped after {frames}: what is done is kept, and Propagate goes on with the rest."
    if not done:
        return "Nothing was left to propagate. Draw where a mask is wrong, then propagate again."
    return f"Propagated {frames}. Look through them, or go to the worst one."
