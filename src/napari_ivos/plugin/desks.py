"""One desk for each viewer's window, which outlives its dock, and the bell that calls it from other threads."""

from __future__ import annotations

import logging
import time
import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QApplication

from napari_ivos.plugin.desk import Desk

if TYPE_CHECKING:
    from collections.abc import Callable

LOG = logging.getLogger("napari_ivos")
_desks: dict[int, tuple[Desk, Bridge]] = {}
"""The desk of each viewer that is open, by `id`: closing its dock loses nothing."""


SOON_MS = 100
"""Frames that come out faster than this are taken in together: each call of the window takes time from the networks."""


class Bridge(QObject):
    """Brings the engine's bell from its thread into the window's."""

    rung = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.desk: weakref.ref[Desk] | None = None
        self.rung.connect(self._answer, Qt.ConnectionType.QueuedConnection)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._handle)
        self._handled = time.monotonic()

    def ring(self, urgent: bool) -> None:
        """Ask for `Desk.handle`, at once or soon; from any thread."""
        try:
            self.rung.emit(urgent)
        except RuntimeError:  # the window is gone
            LOG.debug("a bell rang after the window was closed")

    def _answer(self, urgent: bool) -> None:
        desk = None if self.desk is None else self.desk()
        left = SOON_MS - round(1000 * (time.monotonic() - self._handled))
        if urgent or left <= 0 or (desk is not None and desk.follow):
            self._handle()
        elif not self._soon.isActive():
            self._soon.start(left)

    def _handle(self) -> None:
        self._soon.stop()
        self._handled = time.monotonic()
        desk = None if self.desk is None else self.desk()
        if desk is not None:
            desk.safely(desk.handle)


def desk_of(viewer: Any) -> Desk:
    """The desk of a viewer; made where there is none. It ends with the viewer's window."""
    raw = getattr(viewer, "__wrapped__", viewer)
    found = _desks.get(id(raw))
    if found is not None and not found[0].closed:
        return found[0]
    bridge = Bridge()
    desk = Desk(raw, bridge.ring)
    bridge.desk = weakref.ref(desk)
    _desks[id(raw)] = (desk, bridge)

    end = _ending(id(raw), desk)
    window = getattr(raw.window, "_qt_window", None)
    if window is not None:
        window.destroyed.connect(end)
    app = QApplication.instance()
    if app is not None:
        app.aboutToQuit.connect(end)
    return desk


def _ending(key: int, desk: Desk) -> Callable[[], None]:
    """A slot that ends a desk, but doesn't keep it: Qt lets go of its slots late."""
    known = weakref.ref(desk)

    def end() -> None:
        found = known()
        if found is None:
            return
        if key in _desks and _desks[key][0] is found:
            del _desks[key]
        found.close()

    return end
