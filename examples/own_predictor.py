"""Put something else behind a session: a predictor has a name and two methods.

This one asks the shipped networks twice, for the picture and for its mirror image, and takes the mean: twice the time,
often a little better. Rounds, undo, projects, exports and the window work with it as with any other.
"""

from dataclasses import replace

import numpy as np

import napari_ivos as ivos
from napari_ivos.predictor import Segmentation
from napari_ivos.scribbles import read_davis


class Mirrored:
    """The mean of a predictor's answers for a region and for its mirror image."""

    def __init__(self, model):
        self.model = model
        self.name = f"{model.name}, mirrored"
        self.checksum = f"{model.checksum}-mirrored"  # what one predictor learned of an object is no use to another
        self.size = model.size
        self.device = model.device
        self.follows_motion = model.follows_motion  # neighbours' masks come moved along with the picture

    def segment(self, requests):
        """Strokes to masks, one answer a request."""
        both = self.model.segment([*requests, *map(mirrored, requests)])
        pairs = zip(both[: len(requests)], both[len(requests) :], strict=True)
        return [Segmentation((a.probability + b.probability[:, ::-1]) / 2, a.reference) for a, b in pairs]

    def propagate(self, requests):
        """The neighbours' masks to this frame's, one answer a request."""
        both = self.model.propagate([*requests, *map(mirrored, requests)])
        pairs = zip(both[: len(requests)], both[len(requests) :], strict=True)
        return [(a + b[:, ::-1]) / 2 for a, b in pairs]


def mirrored(request):
    """A request with every picture in it mirrored."""
    pictures = {name: value for name, value in vars(request).items() if isinstance(value, np.ndarray)}
    return replace(request, **{name: np.ascontiguousarray(value[:, ::-1]) for name, value in pictures.items()})


with ivos.Session("sample_data/cells.tif", Mirrored(ivos.load_model())) as session:
    session.interact(read_davis("sample_data/cells_scribbles.json", session.shape)[0])
    for _ in session.propagate(start=19, stop=26):
        pass
    for known in session.objects[:3]:
        areas = [int((session.labels[t] == known.id).sum()) for t in (19, 22, 25)]
        print(f"{known.name}: {areas} px on frames 19, 22 and 25")
