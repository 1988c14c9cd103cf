"""Which axis of an image layer is what, and where a point of one layer lies in the frames of another; no Qt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.frames import video
from napari_ivos.frames.axes import letters_of_names
from napari_ivos.wording import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from napari.components import ViewerModel
    from napari.layers import Image, Layer

Array = npt.NDArray[Any]
Points = npt.NDArray[np.float64]
FEW_CHANNELS = 4
"""An unnamed axis between frames and pictures that is at most this long holds channels."""
SPARE_LETTERS = "ABDEFGHIJKLMNOPQRUVW"


@dataclass(frozen=True)
class Layout:
    """The axes of an image layer.

    Parameters
    ----------
    shape : tuple of int
        Of the layer, without the colours of an RGB layer; rows and columns are last.
    letters : str
        One for each axis.
    frame : int or None
        Axis along which the frames lie; None for a single picture.
    channel : int or None
        Axis of the channels.
    held : mapping of int to int
        At which entry each further axis is held.
    rgb : bool
        Whether the data have colours as a last axis.
    unnamed : frozenset of int
        Axes that are called T or Z although nothing says which.
    """

    shape: tuple[int, ...]
    letters: str
    frame: int | None
    channel: int | None
    held: Mapping[int, int] = field(default_factory=dict)
    rgb: bool = False
    unnamed: frozenset[int] = frozenset()

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def frames(self) -> int:
        return 1 if self.frame is None else self.shape[self.frame]

    @property
    def stack_shape(self) -> tuple[int, int, int]:
        """(T, H, W)."""
        return self.frames, self.shape[-2], self.shape[-1]

    @property
    def frame_axes(self) -> tuple[int, ...]:
        """Axes along which the frames could lie."""
        return tuple(a for a in range(self.ndim - 2) if a != self.channel)

    @property
    def frame_choices(self) -> tuple[tuple[int, str], ...]:
        """These axes with their letters; then with T or Z, whichever they aren't called, where nothing says which."""
        known = {x for a, x in enumerate(self.letters) if a not in self.unnamed}
        other = {"T": "Z", "Z": "T"}
        own = [(a, self.letters[a]) for a in self.frame_axes]
        return (*own, *((a, other[x]) for a, x in own if a in self.unnamed and other[x] not in known))

    @property
    def frame_letter(self) -> str | None:
        """What the axis of the frames is called."""
        return None if self.frame is None else self.letters[self.frame]

    @property
    def assumed(self) -> bool:
        """Whether nothing says that the frames are times, as which they are taken."""
        alone = "Z" not in self.letters
        return alone and self.frames > 1 and self.frame in self.unnamed and self.frame_letter == "T"

    def with_frames_along(self, axis: int, letter: str | None = None) -> Layout:
        """The same with another axis of frames, or another letter for it; the earlier axis is held at its start."""
        if axis not in self.frame_axes:
            raise InputError(f"Axis {axis} of a layer of shape {self.shape} can't hold the frames.")
        letters = list(self.letters)
        if letter is not None and (axis, letter) in self.frame_choices:
            if letter in letters:
                letters[letters.index(letter)] = letters[axis]
            letters[axis] = letter
        return _laid_out(self.shape, "".join(letters), axis, self.channel, self.rgb, self.unnamed)

    def held_at(self, place: Points) -> Layout:
        """The same with further axes held where `place` (ndim,) is, in pixels of the layer."""
        held = {a: int(np.clip(np.rint(place[a]), 0, self.shape[a] - 1)) for a in self.held}
        return replace(self, held=held)

    def options(self) -> dict[str, Any]:
        """What `open_frames` has to be told of the layer's data."""
        letters = self.letters + ("S" if self.rgb else "")
        index = {self.letters[a]: at for a, at in self.held.items()}
        return {
            "axes": letters,
            "index": index,
            "frame_axis": self.frame_letter,
        }

    @property
    def words(self) -> str:
        """For people: "48 frames of 256 x 320 px, z = 3"; along Z frames are sections."""
        t, h, w = self.stack_shape
        held = "".join(f", {self.letters[a].lower()} = {at}" for a, at in self.held.items() if self.shape[a] > 1)
        what = "section" if self.frame_letter == "Z" else "frame"
        return f"{counted(t, what)} of {h} × {w} px{held}"


def _laid_out(
    shape: tuple[int, ...],
    letters: str,
    frame: int | None,
    channel: int | None,
    rgb: bool,
    unnamed: frozenset[int],
) -> Layout:
    held = {a: 0 for a in range(len(shape) - 2) if a not in (frame, channel)}
    return Layout(shape, letters, frame, channel, held, rgb, unnamed)


def layout_of(image: Image) -> Layout:
    """The layout of an image layer: from the names of its axes, else as its file has them, else from its shape.

    Raises
    ------
    InputError
        Rows and columns are not its last axes.
    """
    rgb = bool(image.rgb)
    data = full_data(image)
    shape = tuple(int(n) for n in data.shape[: len(data.shape) - rgb])
    named = letters_of_names(image.axis_labels)
    told, guess = (named, "") if named is not None else _letters_of_file(image, shape)
    letters = told.replace("S", "C") if told is not None else _guessed(shape)
    if letters[-2:] != "YX":
        raise InputError(
            f"The axes of {image.name} are {letters}; rows and columns must be the last two. Transpose its data, "
            "or drop the names of its axes."
        )
    front = letters[:-2]
    channel = front.index("C") if "C" in front and not rgb else None
    candidates = [a for a in range(len(front)) if a != channel]
    long = [a for a in candidates if shape[a] > 1] or candidates
    ranked = sorted(long, key=lambda a: ("TZ".find(letters[a]) % 9, a))
    unnamed = frozenset(a for a, x in enumerate(front) if x in guess)
    return _laid_out(shape, letters, ranked[0] if ranked else None, channel, rgb, unnamed)


def _letters_of_file(image: Image, shape: tuple[int, ...]) -> tuple[str | None, str]:
    """Letters for axes that the layer doesn't name, but the file that it was read from; and those that are a guess."""
    path = getattr(image.source, "path", None)
    if path and Path(str(path)).suffix.lower() in video.SUFFIXES:
        return None, ""  # of a film the frames are times, and opening it takes long
    found = None
    if len(shape) >= 3 and path and Path(str(path)).exists():
        found = _told_by(str(path), Path(str(path)).stat().st_mtime_ns)
    if found is None:
        return None, "TZ"
    letters, source_shape, assumed = found
    if image.rgb:
        letters, source_shape = letters[:-1], source_shape[:-1]
    if source_shape != shape or not letters.endswith("YX"):
        return None, "TZ"
    return letters, "T" if assumed else ""


@lru_cache(maxsize=16)
def _told_by(path: str, changed: int) -> tuple[str, tuple[int, ...], bool] | None:
    """Axes and shape of a file as we read it ourselves, and whether T is a guess; None where we don't."""
    from napari_ivos.frames import open_frames

    try:
        with open_frames(path) as stack:
            facts, assumed = stack.describe(), stack.assumed
    except InputError:
        return None
    return str(facts["axes"]), tuple(facts["source_shape"]), assumed


def _guessed(shape: tuple[int, ...]) -> str:
    """Letters for axes without names."""
    count = len(shape) - 2
    if count <= 1:
        return "T" * count + "YX"
    middle = "C" if shape[-3] <= FEW_CHANNELS else "Z"
    front = ["T", *SPARE_LETTERS[: max(count - 3, 0)]]
    front += ["C" if middle == "Z" else "Z"] * (count >= 3) + [middle]
    return "".join(front) + "YX"


def full_data(image: Image) -> Any:
    """An image layer's data at full resolution."""
    return image.data[0] if image.multiscale else image.data


def spatial(image: Image) -> dict[str, Any]:
    """How the layer lies in the world, as arguments of other layers."""
    return {
        "scale": image.scale,
        "translate": image.translate,
        "rotate": image.rotate,
        "shear": image.shear,
        "affine": image.affine,
        "units": image.units,
        "axis_labels": image.axis_labels,
    }


def place(layer: Layer, placed: Mapping[str, Any]) -> None:
    """Let a layer lie as `spatial` or `shifted` says."""
    for name, value in placed.items():
        setattr(layer, name, value)


def shifted(image: Image, offset: Points) -> dict[str, Any]:
    """`spatial`, for a layer whose first pixel is the image's at `offset` (ndim,)."""
    from napari.utils.transforms import Affine

    placed = spatial(image)
    turn = Affine(scale=image.scale, rotate=image.rotate, shear=image.shear, ndim=image.ndim)
    placed["translate"] = np.asarray(image.translate) + np.asarray(turn(offset))
    return placed


def between(source: Layer, target: Layer, points: Points) -> Points:
    """Points (N, ndim) in pixels of one layer, in pixels of another of as many axes; exact for any affine transform."""
    ndim = points.shape[1]
    corners = np.concatenate([np.zeros((1, ndim)), np.eye(ndim)])
    mapped = np.array([target.world_to_data(source.data_to_world(c)) for c in corners])
    moved: Points = points @ (mapped[1:] - mapped[0]) + mapped[0]
    return moved


def place_shown(viewer: ViewerModel, image: Image) -> Points:
    """Where the viewer's sliders are, in pixels of the layer: (ndim,)."""
    return np.asarray(image.world_to_data(viewer.dims.point), float)


def frame_shown(viewer: ViewerModel, image: Image, layout: Layout) -> int:
    """The frame on screen."""
    if layout.frame is None:
        return 0
    return int(np.clip(np.rint(place_shown(viewer, image)[layout.frame]), 0, layout.frames - 1))


def frame_seen(viewer: ViewerModel, image: Image, layout: Layout) -> int:
    """The frame on screen, for what is done to it.

    Raises
    ------
    InputError
        The sliders are where the layer has no frame, because another one goes on there.
    """
    if beside(viewer, image, layout):
        raise InputError(
            f"{image.name} has no frame where the slider is: it has frames 0 to {layout.frames - 1}. Go to the "
            "frame that you mean."
        )
    return frame_shown(viewer, image, layout)


def beside(viewer: ViewerModel, image: Image, layout: Layout) -> bool:
    """Whether the sliders are where the layer has no frame, because another one goes on there."""
    if layout.frame is None:
        return False
    return not 0 <= round(float(place_shown(viewer, image)[layout.frame])) < layout.frames


def show_frame(viewer: ViewerModel, image: Image, layout: Layout, frame: int) -> None:
    """Move the sliders to a frame (and to where the other axes are held)."""
    if layout.frame is None:
        return
    place = place_shown(viewer, image)
    place[layout.frame] = frame
    for axis, at in layout.held.items():
        place[axis] = at
    world = image.data_to_world(place)
    front = viewer.dims.ndim - layout.ndim
    axes = [layout.frame, *layout.held]
    viewer.dims.set_point([front + a for a in axes], [float(world[a]) for a in axes])


def covering(viewer: ViewerModel, image: Image, more: Collection[Image] = ()) -> list[Image]:
    """Other pictures that are seen in place of an image, because they lie over it and let nothing through."""
    from napari.layers import Image as Picture

    layers = list(viewer.layers)
    above = layers[layers.index(image) + 1 :] if image in layers else []
    shut = [x for x in above if isinstance(x, Picture) and x.visible and x.opacity == 1 and x not in more]
    return [x for x in shut if x.blending in ("opaque", "translucent", "translucent_no_depth")]


def drawable(viewer: ViewerModel) -> str:
    """Why no stroke can be drawn in the present view; "" where it can."""
    dims = viewer.dims
    if dims.ndisplay != 2:
        return "The view is in 3D: press napari's 2D/3D button, then draw again."
    if set(dims.displayed) != {dims.ndim - 2, dims.ndim - 1}:
        return "The view is not along the frames: roll the axes back so that a whole frame is seen, then draw again."
    return ""


class LabelsView:
    """A session's labels with the axes of an image layer: same frames on all channels, one entry on held axes.

    Reads and writes go straight through; nothing is held. Used only where the layer has other axes than (T, H, W).

    Parameters
    ----------
    labels : session's labels
        (T, H, W) uint16.
    layout : Layout
        Of the image layer.
    """

    def __init__(self, labels: Any, layout: Layout) -> None:
        self.labels = labels
        self._layout = layout
        self.shape = tuple(1 if a in layout.held else n for a, n in enumerate(layout.shape))
        self.ndim = len(self.shape)
        self.dtype = np.dtype(np.uint16)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __deepcopy__(self, memo: dict[int, Any]) -> Array:
        return np.asarray(self)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("labels are composed when they are read: an array of them is always a copy")
        return np.asarray(self[...], self.dtype if dtype is None else dtype)

    def _entries(self, key: Any) -> list[Any]:
        entries = list(key) if isinstance(key, tuple) else [key]
        at = next((k for k, e in enumerate(entries) if e is Ellipsis), len(entries))
        rest = entries[at + 1 :]
        fill = [slice(None)] * (self.ndim - at - len(rest))
        return entries[:at] + fill + rest

    def _split(self, entries: list[Any]) -> tuple[Any, Any, Any]:
        frame = 0 if self._layout.frame is None else entries[self._layout.frame]
        return frame, entries[-2], entries[-1]

    def __getitem__(self, key: Any) -> Any:
        entries = self._entries(key)
        found = self.labels[self._split(entries)]
        if any(isinstance(e, np.ndarray) and e.ndim for e in entries):
            return found
        return np.broadcast_to(*self._grown(found, entries)).copy()

    def _grown(self, found: Any, entries: list[Any]) -> tuple[Array, tuple[int, ...]]:
        """The part with the axes that the session doesn't have put back, and the shape that was asked for."""
        shape, ones = [], []
        for axis, (entry, length) in enumerate(zip(entries, self.shape, strict=True)):
            if not isinstance(entry, slice):
                continue
            count = len(range(*entry.indices(length)))
            own = axis == self._layout.frame or axis >= self.ndim - 2
            shape.append(count)
            ones.append(count if own else 1)
        return np.reshape(found, ones), tuple(shape)

    def __setitem__(self, key: Any, value: Any) -> None:
        entries = self._entries(key)
        values = np.asarray(value)
        if not any(isinstance(e, np.ndarray) and e.ndim for e in entries) and values.ndim:
            extra = [a for a in range(self.ndim - 2) if a != self._layout.frame and isinstance(entries[a], slice)]
            kept = [a for a in range(self.ndim) if isinstance(entries[a], slice)]
            values = values.reshape((1,) * (len(kept) - values.ndim) + values.shape)
            values = values[tuple(0 if a in extra else slice(None) for a in kept)]
        self.labels[self._split(entries)] = values


class ChannelStack:
    """Image layers of the same shape as the channels of one stack: array-like (C, ...) for `open_frames`."""

    def __init__(self, arrays: list[Any]) -> None:
        self.arrays = arrays
        self.shape = (len(arrays), *(int(n) for n in arrays[0].shape))
        self.ndim = len(self.shape)
        self.dtype = np.result_type(*(a.dtype for a in arrays))

    def __getitem__(self, key: Any) -> Any:
        entries = key if isinstance(key, tuple) else (key,)
        chosen = np.arange(len(self.arrays))[entries[0]]
        parts = [np.asarray(self.arrays[c][entries[1:]]) for c in np.atleast_1d(chosen)]
        return parts[0].astype(self.dtype) if np.ndim(chosen) == 0 else np.stack(parts).astype(self.dtype)
