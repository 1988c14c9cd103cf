"""What all tests share: one thread, and synthetic clips whose masks are known by construction."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

# Set before torch and numpy come in. One thread: the tests' images are small, so that more threads only get in each
# other's way, and sums in one order give the same figures on every machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from napari_ivos.scribbles import Scribbles, Stroke

sys.path.insert(0, str(Path(__file__).parent))  # the modules beside the tests that some of them share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_ivos.plugin.desk import Desk
    from napari_ivos.predictor import Predictor

GREY = (60, 60, 60)
COLOURS = ((210, 40, 40), (40, 200, 50), (50, 70, 220), (220, 200, 40))


@dataclass(frozen=True, eq=False)
class Square:
    """A coloured square: its first top left corner, its motion a frame, its side, the frames on which it is there."""

    corner: tuple[int, int]
    motion: tuple[int, int]
    side: int = 24
    there: range = range(1 << 30)


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames (T, H, W, 3) uint8 of coloured squares, and their labels (T, H, W)."""

    video: np.ndarray
    truth: np.ndarray

    def scribbles(self, frame: int, *ids: int) -> Scribbles:
        """A level stroke through the middle of each of these objects."""
        strokes = []
        for object_id in ids:
            rows, columns = np.nonzero(self.truth[frame] == object_id)
            row = int(rows.mean())
            low, high = int(columns.min()) + 4, int(columns.max()) - 4
            strokes.append(Stroke(object_id, [(row, low), (row, high)]))
        return Scribbles(frame, strokes)

    def jaccard(self, labels: np.ndarray, object_id: int) -> float:
        """Intersection over union of one object over all frames."""
        a, b = labels == object_id, self.truth == object_id
        return float((a & b).sum() / (a | b).sum())


def draw_clip(frames: int, shape: tuple[int, int], squares: Sequence[Square]) -> Clip:
    """Squares on grey, later ones over earlier ones."""
    video = np.zeros((frames, *shape, 3), np.uint8)
    video[:] = GREY
    truth = np.zeros((frames, *shape), np.uint16)
    for k, square in enumerate(squares):
        for t in range(frames):
            if t in square.there:
                y, x = (c + t * m for c, m in zip(square.corner, square.motion, strict=True))
                at = (t, slice(max(y, 0), max(y + square.side, 0)), slice(max(x, 0), max(x + square.side, 0)))
                video[at] = COLOURS[k]
                truth[at] = k + 1
    return Clip(video, truth)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes, those of the window stay in one: there is one keyboard and one mouse."""
    for item in items:
        if item.path.name.startswith("test_plugin"):
            item.add_marker(pytest.mark.xdist_group("window"))


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Clip]:
    """Clips of coloured squares: ``make_clip(frames, shape, square(...), ...)``; two squares that pass by default."""

    def make(frames: int = 12, shape: tuple[int, int] = (96, 128), *squares: Square) -> Clip:
        given = squares or (Square((12, 10), (0, 4)), Square((56, 90), (0, -4)))
        return draw_clip(frames, shape, given)

    return make


@pytest.fixture(scope="session")
def square() -> type[Square]:
    """The class of squares for `make_clip`."""
    return Square


@pytest.fixture
def desks() -> Iterator[Callable[..., Desk]]:
    """Makes desks with the started session of a layer (by default the scene's movie), in memory unless a path is given.

    What they say to the user is in `said`, as (kind, text). All are closed in the end.
    """
    import plugin_scene
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_ivos import FakePredictor
    from napari_ivos.plugin.desk import Desk

    made = []

    def make(
        image: Image | None = None,
        viewer: ViewerModel | None = None,
        path: Path | None = None,
        model: Predictor | None = None,
    ) -> Desk:
        viewer = ViewerModel() if viewer is None else viewer
        layer = Image(plugin_scene.movie(), name="movie") if image is None else image
        if layer not in viewer.layers:
            viewer.add_layer(layer)
        desk = Desk(viewer)
        made.append(desk)
        desk.said = []
        desk.noticed.connect(lambda text, kind: desk.said.append((kind, text)))
        desk.use_model(FakePredictor() if model is None else model)
        desk.start(layer, path=path)
        desk.wait()
        return desk

    yield make
    for desk in made:
        desk.close()


@pytest.fixture
def window(make_napari_viewer, qtbot, tmp_path):
    """Makes real windows with a movie and the widget, started; hidden by default, so that layers may be removed."""
    import plugin_mouse
    import plugin_scene

    from napari_ivos import FakePredictor
    from napari_ivos.plugin import dock

    def make(model=None, show=False, start=True, name="movie", data=None):
        viewer = make_napari_viewer(show=show)
        viewer.add_image(plugin_scene.movie() if data is None else data, name=name, contrast_limits=(0, 255))
        widget = dock(viewer)
        said = widget.said = []
        widget.desk.noticed.connect(lambda text, kind: said.append((kind, text)))
        plugin_mouse.ready(widget, model or FakePredictor(), tmp_path)
        if start:
            plugin_mouse.start(qtbot, widget)
        return viewer, widget

    return make
