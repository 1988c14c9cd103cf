"""The panel takes room from the canvas; what was whole in view stays so, until the user moves the view; no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari.components import ViewerModel

SLACK = 1.01
"""So much farther than the canvas's border a picture may reach and still be called whole."""
SLACK_BEFORE = 1.2
"""The same before the panel comes: napari fits a first layer before it makes room for the layer's controls."""


class Fit:
    """Fits the view again when the canvas becomes too small for it.

    Parameters
    ----------
    viewer : ViewerModel
        Nothing is done where its layers reach out of the canvas already, nor before napari 0.9, which doesn't tell of
        sizes.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self._on = hasattr(viewer, "canvas") and whole_in_view(viewer, SLACK_BEFORE)
        if self._on:
            self._seen = self._view()
            viewer.canvas.events.size.connect(self._resized)

    def _view(self) -> tuple[float, ...]:
        camera = self.viewer.scene.camera
        return (*camera.center, camera.zoom)

    def _resized(self, event: object = None) -> None:
        if self._view() != self._seen:
            self.end()
        elif not whole_in_view(self.viewer):
            self.viewer.reset_view()
            self._seen = self._view()

    def end(self) -> None:
        """Leave the view alone from now on."""
        if self._on:
            self._on = False
            self.viewer.canvas.events.size.disconnect(self._resized)


def whole_in_view(viewer: ViewerModel, slack: float = SLACK) -> bool:
    """Whether all layers are seen from border to border in the flat view; False where there are none."""
    dims = viewer.dims
    if not len(viewer.layers) or dims.ndisplay != 2 or set(dims.displayed) != {dims.ndim - 2, dims.ndim - 1}:
        return False
    camera = viewer.scene.camera
    low, high = viewer.layers.extent.world[:, -2:]
    middle, half = np.asarray(camera.center[-2:]), np.asarray(viewer.canvas.size) / 2 / camera.zoom * slack
    return bool((low >= middle - half).all() and (high <= middle + half).all())
