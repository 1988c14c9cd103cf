"""What is exported: labels, objects, and (where at hand) quality and frames; read in pieces of bounded size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.regions import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_ivos.session.stacks import Stack

Labels = npt.NDArray[np.unsignedinteger[Any]]

BAND_PIXELS = 1 << 25
"""Labels are read in pieces of at most this many pixels: a frame of 5,800 x 5,800, or a band of rows of a larger."""
QUALITY_BLOCK = 512
"""Frames whose qualities are asked for at once."""
GOLDEN = 0.618033988749895
"""Step through the hues for objects without a colour of their own: neighbours in number are far apart in hue."""


class ObjectFacts(Protocol):
    """What an export asks of an object; `session.objects` has it."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def colour(self) -> str: ...
    @property
    def parent(self) -> int | None: ...


class LabelStack(Protocol):
    """An array-like (T, H, W) of whole numbers, 0 = background; `session.labels` is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True)
class _Nameless:
    """An id that is in the labels and not among the objects."""

    id: int
    name: str
    colour: str
    parent: int | None = None


@dataclass(frozen=True, eq=False)
class Outline:
    """Where one object is on one frame: its area in pixels, its centroid (row, col) and the box around it."""

    area: int
    centroid: tuple[float, float]
    box: Box


@dataclass(eq=False)
class Content:
    """What an export reads.

    Parameters
    ----------
    labels : (T, H, W) array-like of int
        0 = background; read frame by frame, in bands where frames are large.
    objects : sequence of ObjectFacts
        Ids in the labels that are not among them are exported as "object 7", in a colour of their own.
    quality : (T, K) array-like of float, optional
        One column for each of `objects`.
    frames : FrameStack, optional
        For pictures and mean intensities.
    notes : list of str
        Filled while writing: what could not be shown.
    """

    labels: LabelStack
    objects: Sequence[ObjectFacts] = ()
    quality: Any = None
    frames: Stack | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        shape, dtype = tuple(self.labels.shape), np.dtype(self.labels.dtype)
        if len(shape) != 3 or 0 in shape:
            raise InputError(f"Labels of shape {shape} can't be exported; expected (frames, rows, columns), none 0.")
        if dtype.kind not in "iub":
            raise InputError(f"Labels of dtype {dtype} can't be exported; expected whole numbers.")
        if self.frames is not None and self.frames.shape != shape:
            raise InputError(f"Labels are {shape} and frames {self.frames.shape}; they must be of one stack.")
        self._known: dict[int, ObjectFacts] = {o.id: o for o in self.objects}
        self._columns = {o.id: k for k, o in enumerate(self.objects)}
        self._kept: tuple[int, Labels] | None = None
        self._qualities: tuple[range, npt.NDArray[np.floating[Any]]] | None = None

    @classmethod
    def of(cls, thing: Any) -> Content:
        """Find what is to be exported in a session, or anything with `labels` (and `objects`, `quality`, `stack`)."""
        if isinstance(thing, Content):
            return thing
        labels = getattr(thing, "labels", None)
        if labels is None:
            raise InputError(f"A {type(thing).__name__} has no labels to export; expected a session.")
        return cls(
            labels,
            tuple(getattr(thing, "objects", ())),
            getattr(thing, "quality", None),
            getattr(thing, "stack", None),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        frames, height, width = self.labels.shape
        return frames, height, width

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Unsigned dtype of the labels: uint16 unless they are wider."""
        return np.dtype(np.uint16 if np.dtype(self.labels.dtype).itemsize <= 2 else np.uint32)

    def object(self, object_id: int) -> ObjectFacts:
        """Facts about an id of the labels, made up where it is not among the objects."""
        found = self._known.get(object_id)
        if found is None:
            found = _Nameless(object_id, f"object {object_id}", spare_colour(object_id))
            self._known[object_id] = found
        return found

    def quality_of(self, frame: int, object_id: int) -> float | None:
        """Quality 0..1 of an object on a frame; None where it isn't known."""
        column = self._columns.get(object_id)
        if self.quality is None or column is None:
            return None
        if self._qualities is None or frame not in self._qualities[0]:
            block = range(frame, min(frame + QUALITY_BLOCK, self.shape[0]))
            self._qualities = block, np.asarray(self.quality[block.start : block.stop, :])
        block, values = self._qualities
        value = float(values[frame - block.start, column])
        return value if np.isfinite(value) else None

    # -- reading

    def cut(self, frame: int, box: Box) -> Labels:
        """Labels (h, w) of a box of a frame."""
        if self.shape[1] * self.shape[2] <= BAND_PIXELS:
            return self._whole(frame)[box.slices]
        return self._checked(self.labels[(frame, *box.slices)], box.shape, frame)

    def bands(self, frame: int, multiple: int = 1, pixels: float = float("inf")) -> Iterator[tuple[int, Labels]]:
        """Cut a frame into bands of whole rows, (first row, labels (h, W)); h a multiple, except for the last."""
        height, width = self.shape[1:]
        rows = max(int(min(pixels, BAND_PIXELS)) // width // multiple, 1) * multiple
        for y0 in range(0, height, rows):
            yield y0, self.cut(frame, Box(y0, 0, min(y0 + rows, height), width))

    def _whole(self, frame: int) -> Labels:
        if self._kept is None or self._kept[0] != frame:
            self._kept = frame, self._checked(self.labels[frame], self.shape[1:], frame)
        return self._kept[1]

    def _checked(self, labels: Any, shape: tuple[int, int], frame: int) -> Labels:
        found = np.asarray(labels)
        if found.shape != shape:
            raise InputError(f"Labels of frame {frame} have shape {found.shape}; expected {shape}.")
        if found.dtype.kind == "i" and found.size and int(found.min()) < 0:
            raise InputError(f"Labels of frame {frame} hold {int(found.min())}; ids run from 0.")
        return found.astype(self.dtype, copy=False)

    def outlines(self, frame: int) -> dict[int, Outline]:
        """Find all objects on a frame: id to outline, by ascending id."""
        parts: dict[int, list[tuple[int, float, float, Box]]] = {}
        for y0, labels in self.bands(frame):
            for object_id, part in _outlines_in(labels, y0):
                parts.setdefault(object_id, []).append(part)
        found = {}
        for object_id in sorted(parts):
            areas, rows, columns, boxes = zip(*parts[object_id], strict=True)
            around = boxes[0]
            for box in boxes[1:]:
                around = around.union(box)
            area = sum(areas)
            found[object_id] = Outline(area, (sum(rows) / area, sum(columns) / area), around)
        return found


def _outlines_in(labels: Labels, y0: int) -> Iterator[tuple[int, tuple[int, float, float, Box]]]:
    """(id, (area, sum of rows, sum of columns, box)) of each object in a band (h, W) that begins at row y0."""
    width = labels.shape[1]
    flat = np.ascontiguousarray(labels).ravel()
    at = np.flatnonzero(flat)
    if at.size == 0:
        return
    at = at[np.argsort(flat[at], kind="stable")]  # by object, within it by row
    ids, first = np.unique(flat[at], return_index=True)
    rows, columns = at // width + y0, at % width
    areas = np.diff(np.append(first, at.size))
    sums = np.add.reduceat(rows, first), np.add.reduceat(columns, first)
    left, right = np.minimum.reduceat(columns, first), np.maximum.reduceat(columns, first)
    top, bottom = rows[first], rows[first + areas - 1]
    for k, object_id in enumerate(ids.tolist()):
        box = Box(int(top[k]), int(left[k]), int(bottom[k]) + 1, int(right[k]) + 1)
        yield object_id, (int(areas[k]), float(sums[0][k]), float(sums[1][k]), box)


def spare_colour(object_id: int) -> str:
    """A colour "#rrggbb" for an id: hues by the golden ratio, always the same for the same id."""
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(object_id * GOLDEN % 1, 0.75, 1.0)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def rgb(colour: str) -> tuple[int, int, int]:
    """Split "#rrggbb" into red, green and blue, 0..255."""
    digits = colour.removeprefix("#")
    try:
        if len(digits) != 6:
            raise ValueError
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)
    except ValueError as error:
        raise InputError(f"Colour {colour!r} is not of the form #rrggbb.") from error
