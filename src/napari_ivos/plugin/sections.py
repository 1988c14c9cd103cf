"""The groups of the window, top to bottom in the order of the work; each only has widgets, and decides nothing."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, Container, FileEdit, PushButton, Select, SpinBox
from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtGui import QKeyEvent, QKeySequence
from qtpy.QtWidgets import (
    QAbstractItemView,
    QAbstractSpinBox,
    QComboBox,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_ivos.plugin.table import ObjectTable
from napari_ivos.plugin.timeline import (
    ABSENT_COLOUR,
    ACCEPTED_COLOUR,
    ANNOTATED,
    BEST,
    UNKNOWN_COLOUR,
    WORST,
    Timeline,
)
from napari_ivos.scribbles import BACKGROUND
from napari_ivos.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from napari_ivos.plugin.geometry import Layout
    from napari_ivos.session import ObjectInfo

KEYS = {
    "next_object": "N",
    "draw_background": "K",
    "propagate": "G",
    "stop": "Q",
    "undo": "U",
    "redo": "Shift-U",
    "next_frame": "J",
    "accept_frame": "H",
}
"""Command -> key; none of them is one of napari's, for any kind of layer."""
UNTITLED = "QGroupBox { margin-top: 0px; }"
"""napari leaves room for a title above the frame of a group; ours is inside."""
NARROW = "QPushButton { padding: 4px; }"
"""What napari's style says, too, but only once the panel is in its window: until then no button is less than 80 px
wide, and by that the window gives the panel its width."""
MAIN = "font-weight: bold;"
"""The style of what is to be pressed: Start, then Propagate."""
OTHERWISE = {
    "object_gone": ("There", "You said that the object is not on this frame: take that back."),
    "draw_background": ("Back to object", "Draw for the object that was drawn before the background."),
    "compare": ("Show after", "Show the result as it is now."),
    "accept_frame": ("Not right after all", "You said that all masks of this frame are right: take that back."),
}
"""Text and tip of the buttons that, pressed once more, take back what they did."""
FRAMES_NAMED = 8
"""So many frames that were accepted are named; of more, these and the number."""
HELP_AGAIN = "<b>3</b>&nbsp; Draw where it is wrong; propagate again."
"""What is left to be done after the first propagation; one line, also where the panel is as narrow as it gets."""
HELP = (
    "<b>1</b>&nbsp; <b>Start</b>, then draw a line on an object.<br>"
    f"<b>2</b>&nbsp; <b>Propagate</b>: all frames get its mask.<br>{HELP_AGAIN}"
)
"""Three lines."""


def labelled(name: str, text: str) -> str:
    """The text of a command's button: with its key, where it has one."""
    key = KEYS.get(name)
    return f"{text}  [{key}]" if key else text


def command_of(event: QKeyEvent) -> str | None:
    """The command whose key was pressed; None for any other key."""
    pressed = QKeySequence(event.keyCombination()).toString(QKeySequence.SequenceFormat.PortableText)
    return next((name for name, key in KEYS.items() if key.replace("-", "+") == pressed), None)


LEGEND = (
    "<small>"
    + " ".join(
        f'<span style="background: rgb{ground}; color: rgb{colour}">{sign}</span>&nbsp;{word}'
        for ground, colour, sign, word in (
            (UNKNOWN_COLOUR, WORST, "■", "unsure"),
            (UNKNOWN_COLOUR, BEST, "■", "sure"),
            (ABSENT_COLOUR, BEST, "━", "no&nbsp;mask"),
            (UNKNOWN_COLOUR, UNKNOWN_COLOUR, "■", "not&nbsp;yet"),
            (UNKNOWN_COLOUR, ANNOTATED, "■", "yours"),
            (UNKNOWN_COLOUR, ACCEPTED_COLOUR, "■", "right"),
        )
    )
    + "</small>"
)
"""The colours of the timeline, in words that stand on one line."""


class Section(QGroupBox):
    """A titled group; `buttons` are its commands by name.

    What belongs beside the title stands there, for height is scarce: words on how things are, and what folds out below.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self.setAccessibleName(title)
        self.setStyleSheet(UNTITLED)
        self.buttons: dict[str, PushButton] = {}
        self.tips: dict[str, str] = {}
        self._plain: dict[str, tuple[str, str]] = {}
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(5, 3, 5, 4)
        self.body.setSpacing(4)
        self.head = QHBoxLayout()
        self.head.setSpacing(6)
        self.head.addWidget(QLabel(f"<b>{title}</b>"))
        self.body.addLayout(self.head)

    def button(self, name: str, text: str, tip: str) -> PushButton:
        """A command's button; a key is named in its tip and beside its text."""
        made = PushButton(text=labelled(name, text), tooltip=tip)
        self.buttons[name], self.tips[name], self._plain[name] = made, tip, (text, tip)
        return made

    def turn(self, name: str, on: bool) -> None:
        """Let a button say that it takes back what it did, or again what it does; before its tip is shown."""
        text, tip = OTHERWISE[name] if on else self._plain[name]
        self.buttons[name].text, self.tips[name] = labelled(name, text), tip

    def row(self, *widgets: Any) -> None:
        """Put widgets beside each other."""
        self.body.addWidget(_beside(*widgets))

    def fold(self, title: str, tip: str, *inside: Any) -> Fold:
        """Put what is seldom needed below the title, and beside the title what opens and closes it."""
        made = Fold(title, tip, *inside)
        self.head.addWidget(made.button, 0, Qt.AlignmentFlag.AlignRight)
        self.body.insertWidget(1, made)
        return made


def _form(*widgets: Any) -> QWidget:
    """Widgets with their labels; a long name among the choices (of a layer) makes no window wide."""
    for widget in widgets:
        if isinstance(widget, ComboBox):
            widget.native.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            widget.native.setMinimumContentsLength(8)
    container = Container(widgets=list(widgets), labels=True)
    container.margins = (0, 0, 0, 0)
    native: QWidget = container.native
    native.setProperty("container", container)  # keeps it alive with its widget
    return native


class Panel(QScrollArea):
    """Sections below each other, never narrower than what is in them; they scroll where the height is too small.

    Parameters
    ----------
    *inside : QWidget
    """

    def __init__(self, *inside: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self._column = _Column(inside)
        self.setWidget(self._column)
        WheelGuard(self._column)
        KeyGuard(self._column)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """As wide as the sections with a bar beside them, whatever the font."""
        bar, frame = self.verticalScrollBar(), 2 * self.frameWidth()
        beside = frame if bar is None else frame + bar.sizeHint().width()
        return QSize(self._column.minimumSizeHint().width() + beside, super().minimumSizeHint().height())

    def eventFilter(self, column: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name
        """Hear when the sections need another width."""
        if event is not None and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(column, event))


class _Column(QWidget):
    """What scrolls."""

    def __init__(self, inside: Iterable[QWidget]) -> None:
        super().__init__()
        self._rows = QVBoxLayout(self)
        self._rows.setContentsMargins(2, 5, 2, 2)  # napari's title of a dock reaches over the uppermost pixels
        self._rows.setSpacing(3)
        for widget in inside:
            self._rows.addWidget(widget)
        self._rows.addStretch(1)

    def heightForWidth(self, width: int) -> int:  # noqa: N802 - Qt's name
        """The least: before anything scrolls, the table of objects and the timeline give way."""
        return self._rows.minimumHeightForWidth(width)


class WheelGuard(QObject):
    """Lets the mouse wheel scroll the panel, and not change what is chosen in a box that it happens to pass.

    Parameters
    ----------
    inside : QWidget
        Whose choices and numbers are guarded; those that were clicked before take the wheel.
    """

    def __init__(self, inside: QWidget) -> None:
        super().__init__(inside)
        for box in (*inside.findChildren(QComboBox), *inside.findChildren(QAbstractSpinBox)):
            box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            box.installEventFilter(self)

    def eventFilter(self, box: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name
        """Hand a wheel's turn on to the panel."""
        turned = event is not None and event.type() == QEvent.Type.Wheel
        if turned and isinstance(box, QWidget) and event is not None and not box.hasFocus():
            event.ignore()
            return True
        return False


class KeyGuard(QObject):
    """Hands keys that are commands on to the panel, where a table or a box of choices would search for the letter.

    Parameters
    ----------
    inside : QWidget
        Whose tables, choices and numbers are guarded; where text is typed, letters stay letters.
    """

    def __init__(self, inside: QWidget) -> None:
        super().__init__(inside)
        for box in (*inside.findChildren(QComboBox), *inside.findChildren(QAbstractSpinBox)):
            box.installEventFilter(self)
        for box in inside.findChildren(QAbstractItemView):
            window = box.window()
            if window is None or window.windowType() != Qt.WindowType.Popup:  # that of an open box of choices
                box.installEventFilter(self)

    def eventFilter(self, box: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name
        """Leave a command's key to whoever the box is in."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress and command_of(event) is not None:
            event.ignore()
            return True
        return False


class Fold(QWidget):
    """What is seldom needed; `button` opens and closes it, and has a place of its own."""

    def __init__(self, title: str, tip: str, *inside: Any) -> None:
        super().__init__()
        self._title = title
        self.button = QPushButton()
        self.button.setToolTip(tip)
        self.button.setCheckable(True)
        self.button.setStyleSheet("text-align: left; border: none; background: transparent; padding: 1px;")
        column = QVBoxLayout(self)
        column.setContentsMargins(12, 0, 0, 2)
        column.setSpacing(4)
        for widget in inside:
            column.addWidget(getattr(widget, "native", widget))
        self.button.toggled.connect(self.open)
        self.open(False)

    def open(self, on: bool = True) -> None:
        """Show what is inside, or hide it."""
        self.button.setChecked(on)
        self.button.setText(f"{'▾' if on else '▸'} {self._title}")
        self.setVisible(on)


def _beside(*widgets: Any, equal: bool = True) -> QWidget:
    """Widgets beside each other, of equal width where each has the width that it needs, or as wide as their words."""
    line = QWidget()
    layout = QHBoxLayout(line)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for widget in widgets:
        layout.addWidget(getattr(widget, "native", widget), int(equal))
    if not equal:
        line.setStyleSheet(NARROW)
    return line


def _words(text: str = "", tip: str = "") -> QLabel:
    """A sentence, wrapped; a long name in it (of a file) makes no window wide, and no name is read as HTML."""
    label = QLabel(text)
    label.setToolTip(tip)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


class StackSection(Section):
    """Which frames: layer, axis, channels, project, model."""

    def __init__(self, images: Callable[[Any], list[tuple[str, Any]]]) -> None:
        super().__init__("Stack")
        self.image = ComboBox(label="Image", choices=images, nullable=True, tooltip="The layer to segment.")
        self.words = _words(tip="What is segmented: as many frames, along the axis that is chosen below.")
        start = self.button("start", "Start", "Begin with this stack, or go on with its project.")
        self.frames = ComboBox(
            label="Frames along",
            choices=(),
            tooltip="Axis along which the frames lie: t are times, z are sections of a volume.",
        )
        self.channels = Select(label="Channels", choices=(), tooltip="One to three; none chosen: the first three.")
        self.channels.native.setMaximumHeight(70)
        self.folder = FileEdit(
            label="Project folder",
            mode=FileDialogMode.EXISTING_DIRECTORY,
            nullable=True,
            tooltip="Where the project is. Empty: beside the stack.",
        )
        self.fresh = CheckBox(label="", text="New project", tooltip="Begin anew although there is a project already.")
        self.model = FileEdit(
            label="Model",
            mode=FileDialogMode.EXISTING_FILE,
            filter="*.safetensors",
            nullable=True,
            tooltip="A trained model's file. Empty: the one that comes with the plugin.",
        )
        self.device = ComboBox(
            label="Device", choices=("automatic", "cpu", "cuda", "mps"), tooltip="Where the networks run."
        )
        self.shown_device = _words(tip="The trained networks in use, and where they run.")
        load = self.button("load_model", "Load model", "Load this model on this device.")
        open_project = self.button("open_project", "Open project …", "Go on with a project (.ivos) from elsewhere.")
        for file in (self.folder, self.model):
            file.choose_btn.text = "Browse …"
            file.line_edit.native.setPlaceholderText("automatic")
        more = _form(self.frames, self.channels, self.folder, self.fresh, self.model, self.device)
        tip = "Where the defaults don't fit: another axis, some channels, another folder, model or device."
        advanced = Fold("Advanced: axes, channels, folder, model", tip, more, load)
        self.head.addWidget(self.words, 1)
        tip = "Image, project and model: what is chosen once, and folds away at the start."
        buttons = _beside(start, open_project)
        self.choice = self.fold("Choose", tip, _form(self.image), buttons, self.shown_device, advanced.button, advanced)
        self._begun: bool | None = None
        self.show_begun(False)

    def show_begun(self, begun: bool) -> None:
        """Let Start stand out until there is a session, and what was chosen for it fold away then."""
        if begun != self._begun:
            self._begun = begun
            self.buttons["start"].native.setStyleSheet("" if begun else MAIN)
            self.choice.open(not begun)

    def show_layout(self, layout: Layout | None, words: str, others: list[tuple[str, Any]], keep: bool = False) -> None:
        """Offer the axes and channels of a layer, and layers like it as channels; `keep` what is chosen of them."""
        axis, channels = self.frames.value, self.channels.value
        self.words.setText(words)
        choices = () if layout is None else layout.frame_choices
        self.frames.choices = [(f"{x.lower()} ({layout.shape[a]})", (a, x)) for a, x in choices] if layout else []
        if layout is not None and layout.frame is not None:
            self.frames.value = axis if keep else (layout.frame, layout.frame_letter)
        own = [] if layout is None or layout.channel is None else range(layout.shape[layout.channel])
        self.channels.choices = [(f"channel {c}", c) for c in own] + others
        offered = [*own, *(layer for _, layer in others)]
        self.channels.value = [c for c in offered if keep and c in channels]
        self.channels.visible = bool(self.channels.choices)


class ObjectsSection(Section):
    """The objects, their timeline, and what can be done with them."""

    def __init__(self) -> None:
        super().__init__("Objects")
        self.table = ObjectTable()
        self.timeline = Timeline()
        self.legend = QLabel(LEGEND)
        self.legend.setWordWrap(True)
        self.legend.setToolTip("A row for each object, a column for each frame: click to go there.")
        add = self.button("add_object", "New object", "Add an object and draw it next.")
        remove = self.button("remove_object", "Delete", "Remove the chosen object with its masks. Undo brings it back.")
        divide = self.button("divide", "Divide", "A cell divides: it ends before this frame; its two daughters begin.")
        tip = "The object is not on this frame, nor behind it as seen from where you drew it: it ends, or begins, here."
        gone = self.button("object_gone", "Gone", tip)
        self.head.addWidget(_beside(add, divide, gone, remove, equal=False), 1)
        self.body.addWidget(self.table)
        self.body.addWidget(self.timeline)
        self.body.addWidget(self.legend)


class DrawSection(Section):
    """Strokes: for whom, and from where else."""

    def __init__(self, labels: Callable[[Any], list[tuple[str, Any]]]) -> None:
        super().__init__("Draw")
        following = self.button("next_object", "Next object", "Draw for the next object; after the last, a new one.")
        tip = "Draw what belongs to no object: where masks spill over. Once more: back to the object."
        ground = self.button("draw_background", "Background", tip)
        undo = self.button("undo", "Undo", "Take back the last stroke, edit or propagation.")
        redo = self.button("redo", "Redo", "Bring back what was undone.")
        paint = self.button("paint_mask", "Paint mask", "Correct the chosen object's mask with napari's brush.")
        self.now = _words()
        self.now.setTextFormat(Qt.TextFormat.RichText)
        self.head.addWidget(self.now, 1)
        self.labels = ComboBox(
            label="Labels", choices=labels, nullable=True, tooltip="Painted by you, or by another plugin."
        )
        self.how = ComboBox(
            label="Taken as",
            choices=[
                ("new objects", "objects"),
                ("finished masks of these ids", "masks"),
                ("scribbles of these ids", "scribbles"),
            ],
            tooltip="What the labels of this frame become.",
        )
        take = self.button("import_labels", "Take labels of this frame", "Use what the Labels layer has on this frame.")
        tip = "Begin with masks of Cellpose, StarDist or another plugin, or with what you painted."
        self.fold("From labels", tip, _form(self.labels, self.how), take)
        self.row(following, ground)
        self.row(paint, undo, redo)

    def show_now(self, chosen: ObjectInfo | None, selected: int | None, began: bool, tool: str) -> None:
        """Say what a drag of the mouse would do, and for whom; one line, so that nothing below it moves."""
        tip = "What a drag in the picture does now."
        if tool == "paint":
            said, tip = "You paint <b>masks</b>.", "In the colour of napari's brush; its eraser takes away."
        elif began and not tool:
            said, tip = "Click an object above.", "Another layer is active: click an object in the table to draw it."
        elif chosen is not None:
            swatch = f'<span style="color: {escape(chosen.colour)}">■</span>&nbsp;<b>{escape(chosen.name)}</b>'
            said = f"{swatch} is locked." if chosen.locked else f"You draw {swatch}."
            tip = "Nothing changes it: untick Lock in the table to draw it." if chosen.locked else tip
        elif selected == BACKGROUND:
            said, tip = "You draw <b>background</b>.", "What belongs to no object: where masks spill over."
        else:
            said = "Add an object first." if began else "Press Start first."
        self.now.setText(said)
        self.now.setToolTip(tip)


class PropagateSection(Section):
    """Carry the masks to the other frames.

    Attributes
    ----------
    running : QWidget
        How far a long job is, and the button that stops it: for a place where they are always seen.
    """

    def __init__(self) -> None:
        super().__init__("Propagate")
        go = self.button("propagate", "Propagate", "Carry the masks from the frames you drew on to the others.")
        go.native.setStyleSheet(MAIN)
        self.running = self._running()
        self.direction = ComboBox(
            label="Direction",
            choices=[("both ways", "both"), ("forward", "forward"), ("backward", "backward")],
            tooltip="Where to, from the frames you drew on.",
        )
        self.follow = CheckBox(label="", text="Follow: show each frame as it is done", tooltip="This is slower.")
        self.ranged = CheckBox(label="", text="Only", tooltip="Change only a range of frames.")
        self.first = SpinBox(label="from", min=0, max=0, tooltip="First frame to change.")
        self.last = SpinBox(label="to", min=0, max=0, tooltip="Last frame to change.")
        between = QWidget()
        line = QHBoxLayout(between)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(5)
        for widget, stretch in (
            (self.ranged.native, 0),
            (self.first.native, 1),
            (QLabel("to"), 0),
            (self.last.native, 1),
        ):
            line.addWidget(widget, stretch)
        for box in (self.first, self.last):
            box.native.setMinimumWidth(70)
            box.changed.connect(self._limit)
        tip = "One way only, a range of frames only, or a view that goes along."
        self.fold("Direction, range, view", tip, _form(self.direction), between, self.follow)
        self.row(go)

    def _limit(self, value: int) -> None:
        """Who sets a range means it."""
        self.ranged.value = True

    def show_frames(self, last: int) -> None:
        """Offer a stack's frames up to the last one."""
        if self.last.max != last:
            with self.first.changed.blocked(), self.last.changed.blocked():
                self.first.max = self.last.max = last
                self.first.value, self.last.value = 0, last
            self.ranged.value = False

    def _running(self) -> QWidget:
        stop = self.button("stop", "Stop", "Stop within a frame; what is done is kept.")
        self.bar = QProgressBar()
        self.bar.setFormat("")
        self.bar.setToolTip("How far it is, and how long it will still take.")
        self.bar.setMinimumHeight(22)
        line = QWidget()
        layout = QHBoxLayout(line)
        layout.setContentsMargins(8, 5, 8, 5)
        layout.addWidget(self.bar, 1)
        layout.addWidget(stop.native)
        line.hide()
        return line


class ReviewSection(Section):
    """Look where it went wrong."""

    def __init__(self) -> None:
        super().__init__("Review")
        go = self.button("next_frame", "Worst frame", "Go to the frame whose masks are the least certain.")
        right = self.button(
            "accept_frame",
            "Frame is right",
            "All masks of this frame are right although you drew nothing on it: until a round changes it, it is not "
            "suggested again, and adapting learns from it.",
        )
        compare = self.button("compare", "Show before", "Show the result as it was before the last round.")
        undo = self.button("undo_round", "Undo round", "Take back the last round: its strokes and its propagation.")
        redo = self.button("redo_round", "Redo round", "Bring back the round that was undone.")
        adapt = self.button("adapt", "Adapt", "Train the model on these frames for two minutes at most; Stop ends it.")
        drop = self.button("drop_adapted", "Model as it was", "Forget the weights that were adapted to this stack.")
        self.learned = _words(tip="The more frames you corrected or said are right, the more there is to learn from.")
        tip = "Where the same mistake comes back on every frame: train the model on your corrections."
        self.fold("Adapt the model to this stack", tip, self.learned, _beside(adapt, drop))
        self.row(go, right)
        self.row(compare, undo, redo)

    def show_learned(self, annotated: int, accepted: Sequence[int]) -> None:
        """Say what adapting would learn from."""
        yours = f"the {counted(annotated, 'frame')} that you drew or painted on"
        few = ", ".join(map(str, accepted[:FRAMES_NAMED])) + " …" * (len(accepted) > FRAMES_NAMED)
        right = f"{len(accepted)} that you said {'is' if len(accepted) == 1 else 'are'} right ({few})"
        right = right if accepted else "none that you said is right"
        self.learned.setText(
            "When the same mistake comes again and again, the model can learn from your work on this stack: from "
            f"{yours}, and {right}."
        )


class SaveSection(Section):
    """Where everything is, and out into the world."""

    def __init__(self) -> None:
        super().__init__("Save")
        self.unsaved = "Nothing is saved yet: a project is made with your first stroke."
        self.words = _words(self.unsaved, "Strokes, masks and history: all of it.")
        save = self.button(
            "save_project", "Save project …", "Keep the work in a file, which is then always up to date."
        )
        export = self.button("export", "Export …", "Write labels, tables, videos and tracks for other programs.")
        script = self.button("copy_script", "Copy as script", "The same work as Python, to the clipboard.")
        methods = self.button("copy_methods", "Copy methods text", "Sentences with the numbers, to the clipboard.")
        self.head.addWidget(self.words, 1)
        self.body.addWidget(save.native)
        self.row(export, script, methods)
