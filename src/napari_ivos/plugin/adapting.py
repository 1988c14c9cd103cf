"""Adapting the model to the stack at hand, in a thread of its own, and the way back; no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_ivos.errors import InputError
from napari_ivos.plugin.engine import Engine, Job

if TYPE_CHECKING:
    from napari_ivos.adapting import Adaptation
    from napari_ivos.plugin.models import Models
    from napari_ivos.predictor import Predictor
    from napari_ivos.session import Session

SECONDS = 120.0
"""Time limit."""


class Adapting:
    """The part of a desk that adapts its model.

    Strokes are segmented meanwhile: learning reads the session in its beginning, and never writes to it.

    Parameters
    ----------
    desk : Models
        Its desk.

    Attributes
    ----------
    engine : Engine
        The thread in which it learns.
    plain : Predictor or None
        The model that is adapted, and gone back to: the last one in use that exists elsewhere, too.
    """

    def __init__(self, desk: Models) -> None:
        self.desk = desk
        self.engine = Engine(desk.ring)
        self.plain: Predictor | None = None

    def note(self, model: Predictor) -> None:
        """A model is in use from now on."""
        weights = getattr(model, "portable_weights", lambda: None)()
        if weights is None:
            self.plain = model

    def begin(self, session: Session) -> None:
        """A session begins: load the weights that its project keeps, if it does."""
        if session.adapted is None or session.read_only is not None:
            return

        def run(job: Job) -> Predictor | None:
            from napari_ivos.adapting import adapted_model

            return adapted_model(session, None if self.plain is None else self.plain.device)

        def then(model: Predictor | None) -> None:
            if model is not None:
                self.desk.use_model(model)
                self.desk.notice("The weights that were adapted to this stack are in use.")

        self.desk.engine.submit(Job("model", run, session, then=then))

    def leave(self) -> None:
        """A session ends: what was adapted to its stack is no good for another."""
        self.engine.stop()
        if self.plain is not None:
            self.desk.model = self.plain

    def start(self, session: Session, seconds: float = SECONDS) -> None:
        """Adapt in the background, and use what comes out if it is better."""
        plain = self.plain
        if plain is None:
            raise InputError("The model is not loaded yet: wait until it is, then adapt it.")

        def run(job: Job) -> Adaptation | None:
            from napari_ivos.adapting import adapt

            last = None
            for last in adapt(session, model=plain, seconds=seconds):
                if job.stop.is_set():
                    return None
                self.engine.report(job, (last.done, last.total, last.seconds_left))
            return last

        self.engine.submit(Job("adapt", run, session, then=self._done))
        self.desk.changed.emit()

    def _done(self, last: Adaptation | None) -> None:
        if last is None or last.model is None or last.report is None:
            self.desk.notice("Stopped: the model is as it was.")
            return
        text = str(last.report)
        if last.report.kept:
            self.desk.use_model(last.model)
            text += " Used from now on; to redo the last propagation with it, press Undo, then Propagate."
        self.desk.notice(text)

    def dropped(self, value: object = None) -> None:
        """The project keeps no weights any more: go on with the model as it was."""
        if self.plain is not None:
            self.desk.use_model(self.plain)
        self.desk.notice("The model is as it was before it was adapted.")
