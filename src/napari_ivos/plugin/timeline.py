"""The timeline: a row for each object, a column for each frame (or several), drawn as one small picture."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QEvent, QPoint, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QImage, QPainter
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_ivos.plugin.review import UNKNOWN, Review, alive, columns, marked

if TYPE_CHECKING:
    from qtpy.QtGui import QHelpEvent, QMouseEvent, QPaintEvent

    from napari_ivos.session import ObjectInfo

ROW = 14
"""Height of an object's row in pixels."""
GUTTER = 10
"""Width of the objects' colours on the left."""
ROWS_AT_MOST = 40
FEW = 3
"""So many rows keep their height."""
GROUND = (30, 30, 30)
UNKNOWN_COLOUR = (74, 79, 89)
ABSENT_COLOUR = (12, 12, 14)
SPAN_COLOUR = (150, 190, 255)
ACCEPTED_COLOUR = (90, 190, 235)
ANNOTATED = (255, 255, 255)
WORST, MIDDLE, BEST = (214, 62, 62), (226, 190, 70), (70, 160, 96)
BAD, GOOD = 0.35, 0.75
"""Qualities that are shown as the worst and as the best colour.

With earlier weights, masks of quality 0.3 to 0.4 had a mean J of 0.49, of 0.5 to 0.6 one of 0.62, of 0.7 to 0.8 one
of 0.88 (629 masks of both samples and of six development clips, after one stroke).
"""
LINE = slice(ROW // 2 - 2, ROW // 2 + 1)
"""Rows of pixels in which the quality of an absence is shown."""

Picture = npt.NDArray[np.uint8]


def coloured(quality: npt.NDArray[np.float32]) -> Picture:
    """Colours (N, 3) of qualities (N,): red (0, too), yellow, green; grey where it is -1."""
    place = np.clip((quality - BAD) / (GOOD - BAD), 0, 1)
    stops = np.array([WORST, MIDDLE, BEST], float)
    mixed = np.stack([np.interp(place, [0, 0.5, 1], stops[:, c]) for c in range(3)], axis=-1)
    mixed[quality < 0] = UNKNOWN_COLOUR
    return mixed.astype(np.uint8)


def picture(review: Review, width: int) -> Picture:
    """The rows as an image (rows * ROW, width, 3).

    A mask's quality as colour from top to bottom; no mask, where one was looked for, as a line of its quality on black;
    black alone where the object was over before; grey where no round has come yet; nothing where the object has not
    begun or has ended. Annotated frames are white marks, hollow where the object is not there. Below runs a line for
    the object's span in the last round, above one where the frame was accepted as right.
    Costs a few passes over each row, whatever the number of frames.
    """
    objects = review.objects[:ROWS_AT_MOST]
    image = np.full((max(len(objects), 1) * ROW, width, 3), GROUND, np.uint8)
    right = marked(review.frames, sorted(review.accepted), width)
    for k, info in enumerate(objects):
        if info.id not in review.quality:
            continue
        strip = image[k * ROW : (k + 1) * ROW]
        _draw_masks(strip, review, info, width)
        span = review.changed.get(info.id)
        if span is not None:
            strip[-2, columns(np.where(span, 1.0, UNKNOWN), width) > 0] = SPAN_COLOUR
        strip[:2, right] = ACCEPTED_COLOUR
    return image


def _draw_masks(strip: Picture, review: Review, info: ObjectInfo, width: int) -> None:
    """One object's masks and annotations, into its row (ROW, width, 3) of the picture."""
    quality, absent = review.quality[info.id], review.absent[info.id]
    masks, gone = columns(np.where(absent, UNKNOWN, quality), width), columns(np.where(absent, quality, UNKNOWN), width)
    alone = (gone >= 0) & (masks < 0)
    strip[1:-2] = coloured(masks)
    over = alone | ((gone < 0) & (masks < 0) & (info.id in review.settled))
    strip[1:-2, over] = ABSENT_COLOUR
    strip[LINE, alone] = coloured(gone[alone])
    strip[1:-2, ~alive(info.lifetime, review.frames, width)] = GROUND
    frames = review.annotated.get(info.id, ())
    strip[3:-4, marked(review.frames, frames, width)] = ANNOTATED
    hollow = marked(review.frames, [t for t in frames if absent[t]], width)
    strip[LINE, hollow & alone] = ABSENT_COLOUR


class Timeline(QWidget):
    """Shows a `Review`; a click asks for a frame.

    Attributes
    ----------
    jumped : Signal(int)
        The frame that was clicked.
    """

    jumped = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._review = Review()
        self._rows = 1
        self._frame = 0
        self._image: Picture | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Maximum)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAccessibleName("Quality of each object on each frame")

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """As many rows as there are objects."""
        return QSize(200, self._rows * ROW + 2)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """All rows; where there is little room, many of them at half their height."""
        return QSize(80, max(min(self._rows, FEW) * ROW, self._rows * ROW // 2) + 2)

    def show_review(self, review: Review) -> None:
        """Show this, now or when it has changed."""
        rows = max(len(review.objects[:ROWS_AT_MOST]), 1)
        self._review, self._image = review, None
        if rows != self._rows:
            self._rows = rows
            self.updateGeometry()
        self.update()

    def show_frame(self, frame: int) -> None:
        """Mark the frame on screen."""
        if frame != self._frame:
            self._frame = frame
            self.update()

    def frame_at(self, x: int) -> int:
        """The frame at a place of the widget."""
        width = max(self.width() - GUTTER, 1)
        return int(np.clip((x - GUTTER) * self._review.frames // width, 0, max(self._review.frames - 1, 0)))

    def _x_of(self, frame: int) -> int:
        return GUTTER + int((frame + 0.5) * (self.width() - GUTTER) / max(self._review.frames, 1))

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802 - Qt's name
        """Draw the picture, made anew only where something changed."""
        width = max(self.width() - GUTTER, 1)
        if self._image is None or self._image.shape[1] != width:
            self._image = np.ascontiguousarray(picture(self._review, width))
        height = self._image.shape[0]
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.scale(1, (self.height() - 2) / height)
        shown = QImage(self._image.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
        painter.drawImage(QPoint(GUTTER, 1), shown)
        for k, info in enumerate(self._review.objects[:ROWS_AT_MOST]):
            painter.fillRect(0, k * ROW + 2, GUTTER - 3, ROW - 3, QColor(info.colour))
        if self._review.frames > 1:
            painter.setPen(QColor("#ffffff"))
            painter.drawLine(self._x_of(self._frame), 0, self._x_of(self._frame), height + 1)
        painter.end()

    def mousePressEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 - Qt's name
        """Go to the frame under the mouse."""
        if event is not None and self._review.frames:
            self.jumped.emit(self.frame_at(int(event.position().x())))

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 - Qt's name
        """Go along with the mouse."""
        self.mousePressEvent(event)

    def event(self, event: QEvent | None) -> bool:
        """Say what is under the mouse."""
        if event is not None and event.type() == QEvent.Type.ToolTip:
            self._tell(event)
            return True
        return bool(super().event(event))

    def words_at(self, x: int, y: int) -> str:
        """What is said of a place of the widget."""
        frame, row = self.frame_at(x), y * self._rows // max(self.height() - 2, 1)
        words = f"frame {frame}"
        if 0 <= row < len(self._review.objects):
            info = self._review.objects[row]
            words = f"{info.name}, {words}: {self._review.words(info, frame)}"
        return words

    def _tell(self, event: QHelpEvent | Any) -> None:
        words = self.words_at(event.pos().x(), event.pos().y())
        QToolTip.showText(event.globalPos(), f"<qt>{escape(words)}</qt>", self)
