"""Ctrl-Z and Ctrl-Shift-Z in our layers are the session's: napari's own undo knows nothing of what it wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Layer


class HistoryKeys:
    """Binds the keys in layers.

    Attributes
    ----------
    told : callable or None
        Called with "undo" or "redo".
    """

    def __init__(self) -> None:
        self.told: Callable[[str], None] | None = None

    def bind(self, layer: Layer) -> None:
        """Take the keys in a layer."""
        from app_model.types import KeyCode, KeyMod

        layer.bind_key(KeyMod.CtrlCmd | KeyCode.KeyZ, self._undo, overwrite=True)
        layer.bind_key(KeyMod.CtrlCmd | KeyMod.Shift | KeyCode.KeyZ, self._redo, overwrite=True)

    def unbind(self, layer: Layer) -> None:
        """Give the keys back, so that a layer that is kept somewhere keeps no session."""
        from app_model.types import KeyCode, KeyMod

        layer.bind_key(KeyMod.CtrlCmd | KeyCode.KeyZ, None)
        layer.bind_key(KeyMod.CtrlCmd | KeyMod.Shift | KeyCode.KeyZ, None)

    def _undo(self, layer: object = None) -> None:
        if self.told is not None:
            self.told("undo")

    def _redo(self, layer: object = None) -> None:
        if self.told is not None:
            self.told("redo")
