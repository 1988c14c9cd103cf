"""The dock widget: shows a desk, and turns buttons and keys into calls of its methods."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QFileDialog, QLabel, QVBoxLayout, QWidget

from napari_ivos.errors import InputError
from napari_ivos.plugin import preferences, projects
from napari_ivos.plugin.activity import Activity
from napari_ivos.plugin.choosing import Choosing
from napari_ivos.plugin.desks import desk_of
from napari_ivos.plugin.dialogs import TRACKS, ExportDialog
from napari_ivos.plugin.sections import (
    HELP,
    HELP_AGAIN,
    KEYS,
    DrawSection,
    ObjectsSection,
    Panel,
    PropagateSection,
    ReviewSection,
    SaveSection,
    Section,
    StackSection,
    command_of,
)
from napari_ivos.plugin.state import reasons
from napari_ivos.scribbles import BACKGROUND

if TYPE_CHECKING:
    import napari
    from qtpy.QtGui import QHideEvent, QKeyEvent, QShowEvent

    from napari_ivos.plugin.progress import Progress
    from napari_ivos.session import Session

COLOURS = {"info": "#2f4858", "warning": "#7a5a10", "error": "#7d2630"}


class IvosWidget(QWidget):
    """Interactive video segmentation, as a dock widget.

    Every button is one call of a method of the desk, and each of these can be called here too:
    ``dock().propagate("forward")``; see `Desk`.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer

    Attributes
    ----------
    desk : Desk
        What it shows.
    session : Session or None
        The live session; None before a stack is chosen.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.desk = desk_of(napari_viewer)
        self.viewer = self.desk.viewer
        self.choosing = Choosing(self.desk)
        self._bound = False
        self._shown_for = False, False, False
        self._shown_session: weakref.ref[Session] | None = None
        self.stack = StackSection(self.choosing.images)
        self.objects = ObjectsSection()
        self.draw = DrawSection(self.choosing.labels)
        self.going = PropagateSection()
        self.activity = Activity(self.going.bar, self)
        self.review = ReviewSection()
        self.save = SaveSection()
        self.sections: tuple[Section, ...] = (
            self.stack,
            self.objects,
            self.draw,
            self.going,
            self.review,
            self.save,
        )
        self._lay_out()
        self._connect()
        preferences.apply(self.stack)
        self.reset_choices()

    @property
    def session(self) -> Session | None:
        return self.desk.session

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "desk":
            raise AttributeError(name)
        return getattr(self.desk, name)

    # -- making

    def _lay_out(self) -> None:
        self.help = QLabel(HELP)
        self.help.setWordWrap(True)
        self.banner = QLabel()
        self.banner.setWordWrap(True)
        self.banner.setTextFormat(Qt.TextFormat.PlainText)
        self.banner.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.banner.hide()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        outer.addWidget(Panel(self.help, *self.sections), 1)
        outer.addWidget(self.going.running)
        outer.addWidget(self.banner)

    def _connect(self) -> None:
        desk = self.desk
        desk.changed.connect(self.refresh)
        desk.noticed.connect(self._notice)
        desk.unsaid.connect(self._unsay)
        desk.progressed.connect(self._progress)
        self.stack.image.changed.connect(self._image_changed)
        self.stack.frames.changed.connect(self._axis_changed)
        for choice in (self.stack.folder, self.stack.fresh):
            choice.changed.connect(_calling(self, "_show_session"))
        for section in self.sections:
            for name, button in section.buttons.items():
                button.changed.connect(_calling(self, "_pressed", name))
        table = self.objects.table
        table.chosen.connect(_calling(self, "_ask", "select"))
        table.renamed.connect(_calling(self, "_ask", "rename_object"))
        table.recoloured.connect(_calling(self, "_ask", "recolour_object"))
        table.hidden.connect(_calling(self, "_ask", "hide_object"))
        table.locked.connect(_calling(self, "_ask", "lock_object"))
        table.jumped.connect(_calling(self, "_go_to"))
        self.objects.timeline.jumped.connect(_calling(self, "_go_to"))
        self.going.follow.changed.connect(self._follow)
        layers = self.viewer.layers.events
        for event in (layers.inserted, layers.removed, layers.reordered):
            event.connect(self.reset_choices)
        layers.inserted.connect(self._layer_inserted)
        self.viewer.dims.events.current_step.connect(self._frame_changed)
        self.viewer.layers.selection.events.active.connect(self._active_changed)
        self.destroyed.connect(_unhook(self))

    def disconnect_viewer(self) -> None:
        """Hear nothing more of viewer and desk."""
        self._bind(False)
        desk = self.desk
        for signal, slot in (
            (desk.changed, self.refresh),
            (desk.noticed, self._notice),
            (desk.unsaid, self._unsay),
            (desk.progressed, self._progress),
        ):
            signal.disconnect(slot, missing_ok=True)
        layers = self.viewer.layers.events
        for event in (layers.inserted, layers.removed, layers.reordered):
            event.disconnect(self.reset_choices)
        layers.inserted.disconnect(self._layer_inserted)
        self.viewer.dims.events.current_step.disconnect(self._frame_changed)
        self.viewer.layers.selection.events.active.disconnect(self._active_changed)

    # -- commands

    def _ask(self, method: str, *arguments: Any) -> None:
        """Call one of the desk's methods; what goes wrong is told."""
        self.desk.unsay()
        self.desk.safely(getattr(self.desk, method), *arguments)

    def _go_to(self, frame: int) -> None:
        """Look at another frame: what was said of the last deed still holds."""
        self.desk.safely(self.desk.go_to, frame)

    def _pressed(self, name: str, value: object = None) -> None:
        self.run(name)

    def run(self, name: str) -> None:
        """Do what a button or a key says, or say why it can't be done now."""
        reason = reasons(self.desk.state(self.stack.image.value is not None)).get(name, "")
        if reason:
            self._notice(reason, "warning")
        else:
            self.desk.unsay()
            self.desk.safely(getattr(self, f"_do_{name}", None) or getattr(self.desk, name))

    def _do_start(self) -> None:
        stack = self.stack
        chosen = list(stack.channels.value)
        numbers = tuple(c for c in chosen if isinstance(c, int))
        more = tuple(c for c in chosen if not isinstance(c, int))
        axis, letter = stack.frames.value or (None, None)
        choice = self.desk.choice(stack.image.value, axis, letter, channels=numbers or None, more=more)
        folder = stack.folder.value
        path = projects.project_path(stack.image.value, Path(str(folder)) if folder else None)
        self.desk.wanted = self._wanted()
        self.desk.start(choice, path, fresh=bool(stack.fresh.value))

    def _do_open_project(self) -> None:
        start = str(projects.folder_to_open(self.stack.image.value))
        path, _ = QFileDialog.getOpenFileName(self, "Open a project", start, filter="Projects (*.ivos)")
        if path:
            self.desk.open_project(path)

    def _do_load_model(self) -> None:
        self.desk.load_model(*self._wanted())
        self.refresh()

    def _wanted(self) -> tuple[str | None, str | None]:
        """The model's file and the device that are chosen; None: the shipped one, the best one."""
        device, file = self.stack.device.value, self.stack.model.value
        return str(file) if file else None, None if device == "automatic" else device

    def _do_propagate(self) -> None:
        going = self.going
        inside = (going.first.value, going.last.value + 1) if going.ranged.value else (None, None)
        self.desk.propagate(going.direction.value, *inside)

    def _do_remove_object(self) -> None:
        self.desk.remove_object(self._chosen())

    def _do_divide(self) -> None:
        self.desk.divide(self._chosen())

    def _do_object_gone(self) -> None:
        self.desk.object_gone(self._chosen(), gone=not self.desk.on_gone)

    def _chosen(self) -> int:
        if not self.desk.selected:
            raise InputError("Choose an object in the table first.")
        return self.desk.selected

    @property
    def _on_background(self) -> bool:
        """Whether a drag draws background."""
        binding = self.desk.binding
        return self.desk.selected == BACKGROUND and binding is not None and binding.tool == "draw"

    def _do_draw_background(self) -> None:
        if self._on_background:
            self.desk.draw_object()
        else:
            self.desk.draw_background()

    def _do_undo_round(self) -> None:
        self.desk.undo("round")

    def _do_redo_round(self) -> None:
        self.desk.redo("round")

    def _do_accept_frame(self) -> None:
        self.desk.accept_frame(accepted=not self.desk.on_accepted)

    def _do_compare(self) -> None:
        self.desk.show_before(not self.desk.comparing)

    def _do_import_labels(self) -> None:
        layer = self.draw.labels.value
        if layer is None:
            raise InputError("Choose a Labels layer first: one that you painted, or another plugin's result.")
        self.desk.import_labels(layer, self.draw.how.value)

    def _do_save_project(self) -> None:
        start = projects.project_path(self.stack.image.value) if self.stack.image.value is not None else Path.home()
        path, _ = QFileDialog.getSaveFileName(self, "Save the project", str(start), filter="Projects (*.ivos)")
        if path:
            named = path if path.endswith(projects.SUFFIX) else path + projects.SUFFIX  # "exp1.rep2" keeps its end
            self.desk.save(Path(named))

    def _do_export(self) -> None:
        session = self.desk.session
        dialog = ExportDialog(self, projects.export_beside(session))  # type: ignore[arg-type]  # `run` asks for one
        if dialog.exec():
            kind, path, overwrite = dialog.choice
            if kind == TRACKS:
                self.desk.add_tracks()
            else:
                self.desk.export(path, kind, overwrite)

    def _do_copy_script(self) -> None:
        program, masks = self.desk.program()
        beside = "" if masks is None else f" The painted masks that it reads are in {masks}."
        self._copy(program, f"The script is on the clipboard.{beside}")

    def _do_copy_methods(self) -> None:
        self._copy(self.desk.methods_text(), "The text is on the clipboard.")

    def _copy(self, text: str, said: str) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(text)
        self._notice(said, "info")

    def _follow(self, on: bool) -> None:
        self.desk.follow = on

    # -- showing

    def refresh(self) -> None:
        """Show the desk's state."""
        desk = self.desk
        self._show_commands()
        hidden = set() if desk.binding is None else desk.binding.hidden
        self.objects.table.show_objects(desk.review, hidden, desk.selected)
        self.objects.timeline.show_review(desk.review)
        annotated = {frame for frames in desk.review.annotated.values() for frame in frames}
        self.review.show_learned(len(annotated), sorted(desk.review.accepted))
        for part in (self.objects.timeline, self.objects.legend):
            part.setVisible(bool(desk.review.objects))
        self._show_tool()
        self._show_session()
        self._frame_changed()

    def _show_tool(self) -> None:
        """Say what a drag of the mouse does."""
        desk = self.desk
        chosen = next((o for o in desk.review.objects if o.id == desk.selected), None)
        tool = "" if desk.binding is None else desk.binding.tool
        self.draw.show_now(chosen, desk.selected, desk.session is not None, tool)

    def _show_commands(self) -> None:
        """Let buttons be usable, or say why they aren't."""
        state = self.desk.state(self.stack.image.value is not None)
        self._shown_for = state.on_annotated, state.on_accepted, state.on_gone
        self.draw.turn("draw_background", self._on_background)
        self.objects.turn("object_gone", state.on_gone)
        self.review.turn("compare", state.comparing)
        self.review.turn("accept_frame", state.on_accepted)
        said = reasons(state)
        for section in self.sections:
            for name, button in section.buttons.items():
                reason = said.get(name, "")
                button.enabled = not reason
                button.tooltip = f"{section.tips[name]}\n{reason}" if reason else section.tips[name]
        self.help.setText(HELP_AGAIN if state.propagated else HELP)
        self.help.setVisible(not state.corrected)

    def _show_session(self, event: object = None) -> None:
        desk, session = self.desk, self.desk.session
        self.stack.show_begun(session is not None)
        loaded = desk.model
        words = {"": "The model is loaded when you press Start.", "loading": "The model is being loaded …"}
        if loaded is not None:
            self.stack.shown_device.setText(f"Model {loaded.name} on {loaded.device}")
        else:
            self.stack.shown_device.setText(words.get(desk.model_state, f"No model: {desk.model_state}"))
        if session is None:
            self._show_found()
            return
        if self._shown_session is None or self._shown_session() is not session:
            self._shown_session = weakref.ref(session)
            self._show_image()
        self.going.show_frames(session.shape[0] - 1)
        self.save.words.setText(desk.where)
        self.save.buttons["save_project"].visible = session.path is None

    def _show_found(self) -> None:
        """Say before the start whether a project is there to go on with."""
        image, folder, words = self.stack.image.value, self.stack.folder.value, self.save.unsaved
        if image is not None and not self.stack.fresh.value:
            path = projects.project_path(image, Path(str(folder)) if folder else None)
            words = f"{path.name} is there: Start goes on with it." if projects.free_name(path) != path else words
        self.save.words.setText(words)

    def _show_image(self) -> None:
        """Choose the layer of the work that has begun: that of a project may be another one than was chosen."""
        binding, image = self.desk.binding, self.stack.image
        if binding is not None and image.value is not binding.image and binding.image in self.viewer.layers:
            image.reset_choices()
            image.value = binding.image

    def _axis_changed(self, event: object = None) -> None:
        self.choosing.show_place(self.stack)

    def _frame_changed(self, event: object = None) -> None:
        self.choosing.show_place(self.stack)
        if self.desk.session is not None and not self.desk.closed:
            frame = self.desk.frame
            self.objects.timeline.show_frame(frame)
            self.objects.table.frame = frame
            if event is not None:
                self.desk.safely(self.desk.frame_changed)
                if (self.desk.on_annotated, self.desk.on_accepted, self.desk.on_gone) != self._shown_for:
                    self._show_commands()

    def _active_changed(self, event: object = None) -> None:
        """A Shapes layer that is made active by hand chooses its object."""
        binding = self.desk.binding
        if binding is not None:
            object_id = binding.strokes.object_of(self.viewer.layers.selection.active)
            if object_id is not None and object_id != self.desk.selected:
                self.desk.safely(self.desk.select, object_id)
            self._show_tool()
            self._show_commands()

    def _notice(self, text: str, kind: str) -> None:
        self.banner.setText(text)
        self.banner.setStyleSheet(f"background: {COLOURS.get(kind, COLOURS['info'])}; color: white; padding: 6px;")
        self.banner.show()

    def _unsay(self) -> None:
        self.banner.hide()
        self.banner.clear()

    def _progress(self, progress: Progress | None) -> None:
        self.going.running.setVisible(progress is not None)
        self.activity.show(progress)
        if progress is not None and progress.kind == "propagate":
            self.objects.timeline.show_review(self.desk.review)

    # -- layers

    def reset_choices(self, event: object = None) -> None:
        """Offer the layers that are there now."""
        self.choosing.layers_changed(self.stack, self.draw)
        self.refresh()

    def _layer_inserted(self, event: Any) -> None:
        """Another stack is opened: that is a deed, too."""
        from napari.layers import Image

        if isinstance(event.value, Image):
            self.desk.unsay()

    def _image_changed(self, event: object = None) -> None:
        self.choosing.image_changed(self.stack)
        self.refresh()

    # -- keys, and coming and going

    def _bind(self, on: bool) -> None:
        """Bind the keys while the widget is open; napari's own stay as they are."""
        if on == self._bound:
            return
        self._bound = on
        for name, key in KEYS.items():
            call = None if not on else (lambda viewer, name=name: self.run(name))
            self.viewer.bind_key(key, call, overwrite=True)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 - Qt's name
        """Do what a key says wherever in the panel the focus is."""
        command = None if event is None else command_of(event)
        if command is None:
            super().keyPressEvent(event)
        else:
            self.run(command)

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """Take the keys."""
        super().showEvent(event)
        self._bind(True)
        self.reset_choices()

    def hideEvent(self, event: QHideEvent | None) -> None:  # noqa: N802 - Qt's name
        """Give the keys back; work goes on."""
        super().hideEvent(event)
        self._bind(False)


def _calling(widget: IvosWidget, method: str, *first: Any) -> Any:
    """A slot that calls a widget's method, but keeps neither widget nor desk: Qt lets go of its slots late."""
    known = weakref.ref(widget)

    def call(*arguments: Any) -> None:
        found = known()
        if found is not None:
            getattr(found, method)(*first, *arguments)

    return call


def _unhook(widget: IvosWidget) -> Any:
    """What to do when a widget is destroyed; must not use the widget's own Qt side."""
    known = weakref.ref(widget)

    def unhook() -> None:
        found = known()
        if found is not None:
            found.disconnect_viewer()

    return unhook
