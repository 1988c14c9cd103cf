"""A scene whose masks are known, and a mouse that needs no window; shared by the tests of the plugin."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from napari.utils._proxies import ReadOnlyWrapper
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks

FRAMES, HEIGHT, WIDTH = 8, 60, 80
SIDE = 16
OBJECT, OTHER, GROUND = 200, 80, 30


def corner(frame: int) -> tuple[int, int]:
    """Upper left corner of the bright square on a frame."""
    return 10, 10 + 4 * frame


def movie() -> np.ndarray:
    """A bright square that moves to the right, and a grey one that stays: (T, H, W) uint8."""
    frames = np.full((FRAMES, HEIGHT, WIDTH), GROUND, np.uint8)
    frames[:, 38:54, 30:46] = OTHER
    for t in range(FRAMES):
        y, x = corner(t)
        frames[t, y : y + SIDE, x : x + SIDE] = OBJECT
    return frames


def square(frame: int) -> np.ndarray:
    """The bright square's true mask: (H, W) bool."""
    return movie()[frame] == OBJECT


def line(frame: int) -> np.ndarray:
    """A line along the bright square of a frame: (N, 2) of (row, col)."""
    y, x = corner(frame)
    return np.array([(y + 4.0, x + c) for c in range(3, 13)])


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union."""
    return float((mask & truth).sum() / max((mask | truth).sum(), 1))


def _event(kind: str, position: Any) -> Any:
    place = np.asarray(position, float)
    event = SimpleNamespace(
        type=kind,
        position=tuple(place),
        pos=place[-2:][::-1] * 100,  # far apart on the screen, so that each move gives a vertex
        is_dragging=kind == "mouse_move",
        modifiers=[],
        button=1,
        dims_displayed=[len(place) - 2, len(place) - 1],
        view_direction=None,
        up_direction=None,
        handled=False,
        dims_point=list(place),
        camera_zoom=1.0,
        inverted=False,
        native=None,
        delta=(0, 0),
    )
    return ReadOnlyWrapper(event, exceptions=("handled",))


def drag(layer: Any, world: Any, release: bool = True) -> None:
    """Press at the first of these world positions (N, ndim), move along them, release at the last."""
    mouse_press_callbacks(layer, _event("mouse_press", world[0]))
    for place in world[1:]:
        mouse_move_callbacks(layer, _event("mouse_move", place))
    if release:
        mouse_release_callbacks(layer, _event("mouse_release", world[-1]))


def draw(desk: Any, points: Any) -> None:
    """Draw along (row, col) pixels of the frame on screen, in the active layer."""
    binding = desk.binding
    place = np.array([np.asarray(binding.image.world_to_data(desk.viewer.dims.point))] * len(points))
    place[:, -2:] = points
    drag(desk.viewer.layers.selection.active, [binding.image.data_to_world(p) for p in place])
