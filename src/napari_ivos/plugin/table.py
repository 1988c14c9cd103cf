"""The table of objects: colour, name, shown, locked, annotated frames."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QColorDialog, QHeaderView, QSizePolicy, QTableWidget, QTableWidgetItem

if TYPE_CHECKING:
    from collections.abc import Collection

    from qtpy.QtGui import QResizeEvent

    from napari_ivos.plugin.review import Review

COLOUR, NAME, SHOWN, LOCKED, FRAMES = range(5)
HEADERS = ("", "Object", "Show", "Lock", "Yours")
TIPS = (
    "Colour: double-click to change it.",
    "Name: double-click to change it.",
    "Whether mask and strokes are shown.",
    "A locked object is not changed by anything.",
    "Frames that are yours: click to go to the next one.",
)
BOXES = "QTableView::indicator:unchecked { border: 1px solid #8a8f98; border-radius: 2px; }"
"""napari's dark theme has boxes as dark as the table."""
ROWS_SHOWN = 3, 8
"""So many rows there are at least, and so many are in view where there is room."""
AROUND_TEXT = 8
"""Pixels that a row is higher than its text."""
COLOUR_ROLE = Qt.ItemDataRole.UserRole + 1
FRAMES_AT_MOST = 6
"""So many annotated frames are named; of more, the number is."""


class ObjectTable(QTableWidget):
    """Shows objects, and says what the user wants of them.

    Attributes
    ----------
    chosen, renamed, recoloured, hidden, locked, jumped : Signal
        (id); (id, name); (id, "#rrggbb"); (id, whether); (id, whether); (frame).
    """

    chosen = Signal(int)
    renamed = Signal(int, str)
    recoloured = Signal(int, str)
    hidden = Signal(int, bool)
    locked = Signal(int, bool)
    jumped = Signal(int)

    def __init__(self) -> None:
        super().__init__(0, len(HEADERS))
        self._shown: object = None
        self._annotated: dict[int, tuple[int, ...]] = {}
        self.frame = 0
        self.setHorizontalHeaderLabels(HEADERS)
        for column, tip in enumerate(TIPS):
            item = self.horizontalHeaderItem(column)
            if item is not None:
                item.setToolTip(tip)
        header = self.horizontalHeader()
        if header is not None:
            header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
            header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
            header.setMinimumSectionSize(22)
        rows = self.verticalHeader()
        if rows is not None:
            rows.hide()
        self.setStyleSheet(BOXES)
        self.setToolTip("Your objects: choose the one to draw; double-click a colour or a name to change it.")
        self.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked | QAbstractItemView.EditTrigger.EditKeyPressed
        )  # and not any letter, as Qt has it: those are commands
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Maximum)
        self.cellClicked.connect(self._on_click)
        self.cellDoubleClicked.connect(self._on_double_click)
        self.itemChanged.connect(self._on_change)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """As many rows as there are objects, up to a limit."""
        return self._sized(ROWS_SHOWN[1])

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """A few rows; the others scroll."""
        return self._sized(ROWS_SHOWN[0])

    def _sized(self, most: int) -> QSize:
        header, rows = self.horizontalHeader(), self.verticalHeader()
        above = 0 if header is None else header.sizeHint().height()
        row = 0 if rows is None else rows.defaultSectionSize()
        height = above + row * min(max(self.rowCount(), ROWS_SHOWN[0]), most) + 2 * self.frameWidth()
        return QSize(super().minimumSizeHint().width(), height)

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802 - Qt's name
        """Keep the chosen object in view."""
        super().resizeEvent(event)
        self.scrollTo(self.currentIndex())

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802 - Qt's name
        """Make rows as high as the font needs."""
        super().changeEvent(event)
        rows, kinds = self.verticalHeader(), (QEvent.Type.FontChange, QEvent.Type.StyleChange)
        if rows is not None and event is not None and event.type() in kinds:
            rows.setDefaultSectionSize(self.fontMetrics().height() + AROUND_TEXT)

    def show_objects(self, review: Review, hidden: Collection[int], selected: int | None) -> None:
        """Show these; nothing is done where nothing has changed."""
        rows = tuple(
            (o.id, o.name, o.colour, o.id in hidden, o.locked, review.annotated.get(o.id, ())) for o in review.objects
        )
        if (rows, selected) == self._shown:
            return
        self._shown = (rows, selected)
        self._annotated = dict(review.annotated)
        self.blockSignals(True)
        self.setRowCount(len(rows))
        for k, (object_id, name, colour, unseen, fixed, frames) in enumerate(rows):
            self._fill_row(k, object_id, name, colour, unseen, fixed, frames)
        at = next((k for k, row in enumerate(rows) if row[0] == selected), -1)
        if at >= 0:
            self.selectRow(at)
        else:
            self.clearSelection()
        self.blockSignals(False)
        self.updateGeometry()

    def _fill_row(
        self, row: int, object_id: int, name: str, colour: str, unseen: bool, fixed: bool, frames: tuple[int, ...]
    ) -> None:
        few = ", ".join(map(str, frames)) if len(frames) <= FRAMES_AT_MOST else f"{len(frames)} frames"
        base = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        for column, text in enumerate(("", name, "", "", few)):
            item = QTableWidgetItem(text)
            item.setFlags(base)
            item.setToolTip(f"<qt><b>{escape(name)}</b><br>{TIPS[column]}</qt>")
            item.setData(Qt.ItemDataRole.UserRole, object_id)
            if column == COLOUR:
                swatch = QPixmap(14, 14)
                swatch.fill(QColor(colour))
                icon = QIcon(swatch)
                icon.addPixmap(swatch, QIcon.Mode.Selected)  # else the chosen object's colour is mixed with the row's
                item.setIcon(icon)
                item.setData(COLOUR_ROLE, colour)
            elif column == NAME:
                item.setFlags(base | Qt.ItemFlag.ItemIsEditable)
            elif column in (SHOWN, LOCKED):
                item.setFlags(base | Qt.ItemFlag.ItemIsUserCheckable)
                on = not unseen if column == SHOWN else fixed
                item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)
            self.setItem(row, column, item)

    def _id_at(self, row: int) -> int:
        item = self.item(row, NAME)
        return 0 if item is None else int(item.data(Qt.ItemDataRole.UserRole))

    def _on_click(self, row: int, column: int) -> None:
        object_id = self._id_at(row)
        if column in (COLOUR, NAME, FRAMES):
            self.chosen.emit(object_id)
        if column == FRAMES:
            frames = self._annotated.get(object_id, ())
            ahead = [f for f in frames if f > self.frame] or list(frames)
            if ahead:
                self.jumped.emit(ahead[0])

    def _on_double_click(self, row: int, column: int) -> None:
        if column == COLOUR:
            item = self.item(row, COLOUR)
            start = "#ffffff" if item is None else str(item.data(COLOUR_ROLE))
            colour = QColorDialog.getColor(QColor(start), self, "Colour of the object")
            if colour.isValid():
                self.recoloured.emit(self._id_at(row), colour.name())

    def _on_change(self, item: QTableWidgetItem) -> None:
        object_id = int(item.data(Qt.ItemDataRole.UserRole))
        on = item.checkState() == Qt.CheckState.Checked
        if item.column() == NAME:
            self.renamed.emit(object_id, item.text().strip() or f"object {object_id}")
        elif item.column() == SHOWN:
            self.hidden.emit(object_id, not on)
        elif item.column() == LOCKED:
            self.locked.emit(object_id, on)
