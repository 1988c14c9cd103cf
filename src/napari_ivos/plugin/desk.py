"""The desk: everything that can be done with one stack in one viewer, as plain methods; no Qt.

The window (`widget`) shows the desk's state and calls its methods, and so do commands, keys and scripts. Here a stack's
work begins and ends; `models`, `objects`, `rounds` and `exchange` hold what is done in between.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_ivos.errors import InputError
from napari_ivos.plugin import geometry, projects
from napari_ivos.plugin.drawing import Drawing
from napari_ivos.plugin.engine import Job
from napari_ivos.plugin.exchange import Exchange
from napari_ivos.plugin.layers import Binding
from napari_ivos.plugin.models import Models
from napari_ivos.plugin.objects import Objects
from napari_ivos.plugin.review import Review
from napari_ivos.plugin.rounds import Rounds
from napari_ivos.session.annotating import TOUCHED_PIXELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Image

    from napari_ivos.plugin.projects import Choice
    from napari_ivos.session import Session


IDLE = (
    f"No mask has changed: more than {TOUCHED_PIXELS} pixels of one must lie under a stroke of the background. "
    "It counts with the next stroke on this frame."
)


class Desk(Models, Objects, Rounds, Exchange):
    """The work on one viewer.

    Made with the parameters of `Work`, and with its attributes; beside them:

    Attributes
    ----------
    follow : bool
        Whether the view goes along with a propagation.
    """

    def choice(self, image: Image, frame_axis: int | None = None, letter: str | None = None, **more: Any) -> Choice:
        """What is to be segmented: a layer, with the axis of its frames, its `channels` and layers `more` as such.

        `letter` is "T" or "Z", for an axis of which nothing says whether its frames are times or sections.
        """
        layout = geometry.layout_of(image)
        if frame_axis is not None:
            layout = layout.with_frames_along(frame_axis, letter)
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
        self._open(lambda: (*projects.open_session(choice, target, fresh), choice), target)

    def open_project(self, path: str | Path, image: Image | None = None) -> None:
        """Open a project with its layers, colours, strokes and history.

        The frames are those of `image`; else they are looked for where they were, and shown as a new layer; else they
        are those of a layer that has them, the active one first.
        """
        from napari_ivos.session import Session

        if image is None:
            images = self.images
            self._open(lambda: projects.reopen(Path(path), images))
            return
        choice = self.choice(image)
        stack = projects.stack_of(choice)
        self._open(lambda: (Session.open(path, frames=stack), f"Opened {Path(path).name}.", choice))

    @property
    def images(self) -> list[Image]:
        """The layers that may have a project's frames, the active one first."""
        from napari.layers import Image

        found = [layer for layer in self.viewer.layers if isinstance(layer, Image)]
        return sorted(found, key=lambda layer: layer is not self.viewer.layers.selection.active)

    def _open(self, make: Callable[[], tuple[Session, str, Choice | None]], target: Path | None = None) -> None:
        self.leave()
        self.engine.stop("open")

        def run(job: Job) -> Any:
            left, self._opened = self._opened, None
            if left is not None:  # this one was asked for before that one was shown
                left.close()
            session, note, choice = make()
            review = Review.of(session)
            self._opened = session
            return session, note, choice, review

        def then(made: tuple[Session, str, Choice | None, Review]) -> None:
            session, note, choice, review = made
            if self._opening is not job:  # another one was asked for meanwhile
                self.engine.submit(Job("close", lambda job: session.close(), precious=True))
                return
            self._opening = self._opened = None
            found = choice or projects.found_in(self.viewer, session)
            self._begin(session, found, review)
            if choice is None or geometry.beside(self.viewer, found.image, found.layout):
                self.go_to(self.frame)  # on the plane that was segmented, and on a frame of this stack
            self._target = target if session.path is None else None
            if session.read_only is not None:
                note += f" It can only be read: {session.read_only}. Nothing can be drawn."
            covers = geometry.covering(self.viewer, found.image, found.more)
            if covers:
                note += f" {covers[-1].name} lies over {found.image.name}: hide it to see what you draw on."
            doubtful = covers or session.read_only is not None or note.startswith(projects.UNSAVED)
            self.notice(note, "warning" if doubtful else "info")

        job = self._opening = Job("open", run, then=then)
        self.engine.submit(job)
        self.changed.emit()

    def _begin(self, session: Session, choice: Choice, review: Review) -> None:
        if tuple(session.shape) != choice.layout.stack_shape:
            raise InputError(f"{choice.image.name} has {choice.layout.words}; the project {session.shape}.")
        layout = choice.layout
        if session.stack is not None and layout.frame is not None:  # the project may know whether t or z
            layout = replace(
                layout.with_frames_along(layout.frame, projects.frame_axis(session.stack)), held=layout.held
            )
        binding = Binding(self.viewer, choice.image, layout, session, self.ring)
        binding.keys.told, binding.strokes.on_stroke = self._by_key, self._at_once
        self.session, self.review, self.binding = session, review, binding
        self.drawing = Drawing(
            session, binding, self.engine, self._show_result, lambda: self.loaded, lambda: self.notice(IDLE)
        )
        if self.model is not None and session.read_only is None:
            session.use_model(self.model)
        choice.image.visible = True
        binding.colour()
        self._lock_result(False)
        self._sync()
        objects = session.objects
        if objects:
            self.select(objects[0].id)
        elif session.read_only is None:
            self.add_object()
        if self.model is None and self.model_state != "loading":
            self.load_model(
                *self.wanted
            )  # after the layers, which would have to share the interpreter with its imports
        self.adapting.begin(session)
        if self.model is not None:
            self.drawing.catch_up()
        self.changed.emit()

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
        self.comparing = False
        self._keep_all()
        binding.retire()
        self.stop()
        self.adapting.leave()
        self.session = self.binding = self.drawing = self.selected = self._target = None
        self.review = Review()
        self.engine.submit(Job("close", lambda job: session.close(), precious=True))
        self.changed.emit()

    def _keep_all(self) -> None:
        """Send what the user did to the project, at the end."""
        session, drawing = self.session, self.drawing
        if session is None or drawing is None:
            return
        if session.strokes() or session.annotated_frames() or drawing.held:
            self._keep()
        drawing.release()

    def close(self) -> None:
        """End everything; a job that runs stops at its frame, and what is done is kept."""
        if self.closed:
            return
        session, binding = self.session, self.binding
        if session is not None:
            self._keep_all()
            session.cancel()
        self.closed = True
        if binding is not None:
            binding.disconnect()
        for engine in self.engines:
            if engine is not self.engine:
                engine.close()

        def last() -> None:  # when nobody reads them any more
            for live in (session, self._opened):
                if live is not None:
                    live.close()

        self.engine.close(last)
        self.session = self.binding = self.drawing = None
