"""Labels of other layers as strokes, masks or new objects of a session; no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.scribbles import Scribbles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari.layers import Image, Labels

    from napari_ivos.plugin.geometry import Layout
    from napari_ivos.session import Session

Picture = npt.NDArray[Any]
OBJECTS_AT_MOST = 2000


def labels_on(layer: Labels, image: Image, layout: Layout, frame: int) -> Picture:
    """What a Labels layer holds on a frame: (H, W) of its integers.

    Raises
    ------
    InputError
        Its rows and columns are not the frame's, or it has nothing there.
    """
    place = np.zeros(layout.ndim)
    if layout.frame is not None:
        place[layout.frame] = frame
    for axis, at in layout.held.items():
        place[axis] = at
    data = layer.data[0] if layer.multiscale else layer.data
    if tuple(data.shape[-2:]) != layout.stack_shape[1:]:
        raise InputError(
            f"{layer.name} has pictures of {data.shape[-2]} × {data.shape[-1]} px; the frames have "
            f"{layout.shape[-2]} × {layout.shape[-1]} px. Take labels of the same picture."
        )
    world = np.asarray(image.data_to_world(place))
    inside = np.rint(layer.world_to_data(world))[: data.ndim - 2].astype(int)
    if any(not 0 <= at < n for at, n in zip(inside, data.shape, strict=False)):
        raise InputError(f"{layer.name} has nothing on frame {frame}.")
    picture = np.asarray(data[tuple(int(i) for i in inside)])
    if picture.dtype.kind == "i":
        picture = np.maximum(picture, 0)  # negative: not labelled, as trackers and annotation tools write it
    if not picture.any():
        raise InputError(f"{layer.name} is empty on frame {frame}: go to a frame that it labels.")
    return picture


def as_scribbles(session: Session, frame: int, picture: Picture, name: str) -> tuple[int, ...]:
    """What was painted, as strokes: labels are ids of objects."""
    session.interact(Scribbles.from_labels(frame, picture))
    return _ids(picture)


def as_masks(session: Session, frame: int, picture: Picture, name: str) -> tuple[int, ...]:
    """What was painted, to the pixel: labels are ids of objects."""
    session.annotate(frame, picture)
    return _ids(picture)


def as_objects(session: Session, frame: int, picture: Picture, name: str) -> tuple[int, ...]:
    """Each label starts a new object; with no object drawn so far, labels keep their numbers."""
    values = _ids(picture)
    if len(values) > OBJECTS_AT_MOST:
        raise InputError(f"{name} has {len(values)} labels on frame {frame}; at most {OBJECTS_AT_MOST} at once.")
    unused = [o.id for o in session.objects if not session.annotated_frames(o.id)]
    made = session.objects
    image = np.zeros(picture.shape, np.uint16)
    if len(made) == len(unused) <= 1 and not session.strokes() and max(values) <= 65535:
        image[:] = picture
    else:
        for value in values:
            image[picture == value] = session.add_object(f"{name} {value}").id
    session.annotate(frame, image)
    return _ids(image)


def _ids(picture: Picture) -> tuple[int, ...]:
    return tuple(int(v) for v in np.unique(picture) if v > 0)


IMPORTS: Mapping[str, Callable[[Session, int, Picture, str], tuple[int, ...]]] = {
    "objects": as_objects,
    "masks": as_masks,
    "scribbles": as_scribbles,
}
"""The ways to take labels, by name; each returns the ids of the objects that were taken."""
