"""Put another network behind the same session: a predictor has a name and two methods.

This one has no network at all: an object is what is brighter than half way between its strokes and its surroundings.
Rounds, undo, projects, exports and the window work with it as with any other.
"""

import numpy as np

import napari_ivos as ivos
from napari_ivos.predictor import Segmentation, shrink
from napari_ivos.scribbles import read_davis


class Brightness:
    """A threshold that it learns from the strokes and keeps as its reference."""

    name = "brightness"
    checksum = "brightness-1"  # projects keep it: references of another predictor are never used
    device = "cpu"
    size = 64  # side of the pictures that it works on

    def segment(self, requests):
        """Strokes to masks: a probability (size, size), and what to remember of the object."""
        return [self._segment(request) for request in requests]

    def propagate(self, requests):
        """The neighbour's masks to this frame's."""
        found = []
        for request in requests:
            level = float(np.mean([np.asarray(r, float).mean() for r in request.references]))
            found.append(self._above(shrink(request.image, self.size), level) * around(request.neighbour > 0.5))
        return found

    def _segment(self, request):
        image = shrink(request.image, self.size)
        on = request.positive > 0
        inside = image[on].mean() if on.any() else image.max()
        level = (inside + np.median(image)) / 2
        return Segmentation(self._above(image, level), np.full((1, 1), level, np.float16))

    @staticmethod
    def _above(image, level):
        return (1 / (1 + np.exp(-40 * (image.mean(axis=-1) - level)))).astype(np.float32)


def around(mask, reach=4):
    """A mask and what is up to `reach` pixels away: an object does not jump."""
    for axis in (0, 1):
        mask = np.logical_or.reduce([np.roll(mask, step, axis) for step in range(-reach, reach + 1)])
    return mask


with ivos.Session("sample_data/cells.tif", Brightness()) as session:
    session.interact(read_davis("sample_data/cells_scribbles.json", session.shape)[0])
    for _ in session.propagate(start=18, stop=27):
        pass
    for known in session.objects[:3]:
        areas = [int((session.labels[t] == known.id).sum()) for t in (18, 22, 26)]
        print(f"{known.name}: {areas} px on frames 18, 22 and 26")
