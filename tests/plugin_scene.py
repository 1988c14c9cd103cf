"""A scene whose masks are known, a model that waits, and a mouse that needs no window; shared by the plugin's tests."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
from napari.utils._proxies import ReadOnlyWrapper
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks

from napari_ivos import FakePredictor

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


def drawn_at(desk: Any, frame: int) -> None:
    """Draw along the bright square of a frame and wait for its mask."""
    desk.go_to(frame)
    draw(desk, line(frame))
    desk.wait()


def shown(desk: Any) -> dict[str, int]:
    """How many strokes each Shapes layer shows."""
    return {layer.name: layer.nshapes for layer in desk.viewer.layers if hasattr(layer, "nshapes")}


class Gated(FakePredictor):
    """Waits at each frame until the test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)

    def propagate(self, requests: Any) -> Any:
        self.gate.acquire(timeout=30)
        return super().propagate(requests)


class Slow(FakePredictor):
    """Waits at each frame with strokes until the test lets it go on; `begun` says that one has come."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)
        self.begun = threading.Event()

    def segment(self, requests: Any) -> Any:
        self.begun.set()
        self.gate.acquire(timeout=30)
        return super().segment(requests)


class Failing:
    """Frames of which one can't be read while `broken` is set."""

    def __init__(self) -> None:
        self.movie = movie()
        self.shape, self.ndim, self.dtype = self.movie.shape, 3, self.movie.dtype
        self.broken = False

    def __getitem__(self, key):
        first = key[0] if isinstance(key, tuple) else key
        if self.broken and 5 in np.ravel(np.arange(self.shape[0])[first]):
            raise OSError("the share is gone")
        return self.movie[key]
