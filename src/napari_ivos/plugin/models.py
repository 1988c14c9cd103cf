"""Models at a desk: loading them, going on on the CPU where an accelerator has no memory, adapting; no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_ivos.errors import OutOfMemory
from napari_ivos.plugin import loading
from napari_ivos.plugin.adapting import Adapting
from napari_ivos.plugin.engine import Job
from napari_ivos.plugin.work import SEGMENTING, Work

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari.components import ViewerModel

    from napari_ivos.errors import IvosError
    from napari_ivos.predictor import Predictor


class Models(Work):
    """The part of a desk that has to do with models; see `Work` for parameters.

    Attributes
    ----------
    loaded : Predictor or None
        What the engine's thread loaded last; `model`, which is in use, follows when the window has taken that in.
    wanted : tuple
        Name and device of the model that is loaded when a session begins and there is none.
    """

    def __init__(self, viewer: ViewerModel, ring: Callable[[bool], None] | None = None) -> None:
        super().__init__(viewer, ring)
        self.adapting = Adapting(self)
        self.engines = [self.adapting.engine, *self.engines]
        self._again: Job | None = None
        self.loaded: Predictor | None = None
        self.wanted: tuple[str | Path | None, str | None] = (None, None)

    def load_model(self, name: str | Path | None = None, device: str | None = None) -> None:
        """Load a model in the background: the shipped one, another's name, or a .safetensors file."""

        def run(job: Job) -> Predictor:
            self.loaded = loading.load(name, device)
            return self.loaded

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
            self.drawing.catch_up()
        failed, self._again = self._again, None
        if failed is not None and failed.owner is session and failed.again is not None:
            failed.again()
        self.changed.emit()

    def _take_error(self, job: Job, error: IvosError) -> None:
        if job.kind == "model":
            self.model_state = str(error) if self.model is None else "ready"  # the one before goes on
        super()._take_error(job, error)
        device = "" if self.model is None else self.model.device
        on_device = job.kind in (*SEGMENTING, "adapt", "model")  # others need memory of the computer's own
        if isinstance(error, OutOfMemory) and on_device and device not in ("", "cpu"):
            self.notice(f"{device} is out of memory: the model goes on on the CPU. ({error})", "warning")
            self._again = job
            self.load_model(self.model_source, device="cpu")

    def accept_frame(self, frame: int | None = None, accepted: bool = True) -> None:
        """Say that all masks of a frame (default: the one on screen) are right, or take that back.

        `adapt` learns from it as from a frame that was drawn on, and `next_frame` passes it by, until a later round
        changes it.
        """
        session, binding = self._live()
        at = binding.seen if frame is None else frame

        def then(value: object) -> None:
            self._objects_changed()
            if accepted:
                self.notice(f"Frame {at} counts as right. Worst frame goes to the next.")

        self._edit(lambda: session.accept(at, accepted), then)

    def adapt(self) -> None:
        """Fine-tune the model on what is annotated here, for two minutes at most; `stop` leaves it as it was."""
        session, _ = self._live()
        self._look()
        self.adapting.start(session)

    def drop_adapted(self) -> None:
        """Go back to the model as it was before it was adapted, and forget the adapted weights."""
        session, _ = self._live()
        self._edit(lambda: session.drop_adapted(self.adapting.plain), self.adapting.dropped)
