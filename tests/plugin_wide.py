"""Frames of more than 8,192 px with the scene somewhere in them, shared by the plugin's tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import plugin_scene as scene
from napari.layers import Image

HEIGHT, WIDTH = 9_000, 20_000
PLACE = (7_000, 18_000)
"""Where the scene lies in the large frames."""


class Wide:
    """The scene somewhere in large frames of its background, with further axes before the picture; never held whole."""

    def __init__(self, *further: int) -> None:
        self.shape = (scene.FRAMES, *further, HEIGHT, WIDTH)
        self.ndim = len(self.shape)
        self.size = int(np.prod(self.shape))
        self.dtype = np.dtype(np.uint8)
        self.movie = scene.movie()

    def __getitem__(self, key):
        key = key if isinstance(key, tuple) else (key,)
        key = (*key, *(slice(None),) * (self.ndim - len(key)))
        frames, rows, columns = (
            np.atleast_1d(np.arange(n)[k])
            for n, k in zip((scene.FRAMES, *self.shape[-2:]), (key[0], *key[-2:]), strict=True)
        )
        assert rows.size * columns.size < HEIGHT * WIDTH / 4, "a whole frame was asked for"
        out = np.full((frames.size, rows.size, columns.size), scene.GROUND, np.uint8)
        y, x = rows - PLACE[0], columns - PLACE[1]
        above, beside = (y >= 0) & (y < scene.HEIGHT), (x >= 0) & (x < scene.WIDTH)
        out[np.ix_(np.ones(frames.size, bool), above, beside)] = self.movie[np.ix_(frames, y[above], x[beside])]
        further = self.shape[1:-2]
        shaped = out.reshape(frames.size, *(1,) * len(further), *out.shape[1:])
        whole = np.broadcast_to(shaped, (frames.size, *further, *out.shape[1:]))
        ends = [slice(None) if isinstance(k, slice) or np.ndim(k) else 0 for k in (key[0], *key[-2:])]
        return whole[(ends[0], *key[1:-2], *ends[1:])]


def coarse(*further: int) -> np.ndarray:
    """A small stand-in for the coarser resolution, which napari looks at."""
    return np.zeros((scene.FRAMES, *further, HEIGHT // 20, WIDTH // 20), np.uint8)


def layer(*further: int) -> Image:
    """An image layer of the large frames."""
    return Image([Wide(*further), coarse(*further)], multiscale=True, name="wide", contrast_limits=(0, 255))


def look_at(viewer: Any, y: float, x: float, zoom: float = 4.0) -> None:
    """Put this place in the middle of the canvas."""
    viewer.scene.camera.center = (0, y, x)
    viewer.scene.camera.zoom = zoom


def mask(session: Any, frame: int, value: int = 1) -> np.ndarray:
    """Where an object is in the scene's part of a frame."""
    y, x = PLACE
    return session.labels[frame, y : y + scene.HEIGHT, x : x + scene.WIDTH] == value
