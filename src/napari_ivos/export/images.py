"""Label images: OME-TIFF, OME-Zarr, DAVIS palette PNGs, and the Cell Tracking Challenge's masks with its table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ivos.errors import InputError
from napari_ivos.export.content import rgb
from napari_ivos.frames.axes import LENGTHS, TIMES
from napari_ivos.regions import Box
from napari_ivos.wording import UNWRITABLE

if TYPE_CHECKING:
    from pathlib import Path

    from napari_ivos.export.content import Content, Labels

Tick = Callable[[int], None]
"""Called with the number of frames that are done."""

TILE = 512
"""Side of a TIFF tile; frames up to `WHOLE` are written in one piece."""
WHOLE = 4096
CHUNK = 1024
"""Largest side of a zarr chunk, which holds one frame's tile."""
SMALLEST_LEVEL = 512
"""The pyramid ends at the level whose longest side is at most this."""
PALETTE_SIZE = 255
TRACKS_AT_MOST = 65535


def frame_letter(content: Content) -> str:
    """Axis along which frames lie, "T" or "Z"; T where it isn't known."""
    if content.frames is None:
        return "T"
    letter = content.frames.describe()["open"]["frame_axis"]
    return letter if letter == "Z" else "T"


def spacing_of(content: Content) -> dict[str, tuple[float, str]]:
    """Steps (length, unit) along the exported axes T or Z, Y and X, as far as the source of the frames gives them."""
    facts = {} if content.frames is None else content.frames.describe()
    letter = frame_letter(content)
    known = {letter, *"YX"} if facts.get("open", {}).get("frame_axis") == letter else set("YX")
    return {x: (step, unit) for x, (step, unit) in facts.get("spacing", {}).items() if x in known}


def ome_tiff(content: Content, path: Path, tick: Tick) -> None:
    """Write labels as one OME-TIFF (BigTIFF where it may pass 4 GB), deflated, tiled where frames are large.

    Axes are TYX, or ZYX for a volume, with the pixel size and the time between frames that the frames' file gives. The
    objects' names, colours and parents are in the description of the image.
    """
    import tifffile

    frames, height, width = content.shape
    tiled = max(height, width) > WHOLE
    pieces = _tiles(content, tick) if tiled else _pages(content, tick)
    size = frames * height * width * content.dtype.itemsize
    with tifffile.TiffWriter(path, ome=True, bigtiff=size > 2**31) as tif:
        tif.write(
            pieces,
            shape=content.shape,
            dtype=content.dtype,
            photometric="minisblack",
            compression="zlib",
            tile=(TILE, TILE) if tiled else None,
            rowsperstrip=None if tiled else height,
            metadata={
                "axes": f"{frame_letter(content)}YX",
                "Name": "labels",
                "Description": _objects_text(content),
                **_ome_sizes(content),
            },
        )
    tick(frames)


def _ome_sizes(content: Content) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for letter, (step, unit) in spacing_of(content).items():
        name = "TimeIncrement" if letter == "T" else f"PhysicalSize{letter}"
        if unit:  # without one, readers take them for micrometres and seconds
            sizes |= {name: step, f"{name}Unit": unit}
    return sizes


def _pages(content: Content, tick: Tick) -> Iterator[Labels]:
    for frame in range(content.shape[0]):
        if frame:
            tick(frame)
        yield np.ascontiguousarray(content.cut(frame, Box(0, 0, *content.shape[1:])))


def _tiles(content: Content, tick: Tick) -> Iterator[Labels]:
    width = content.shape[2]
    for frame in range(content.shape[0]):
        if frame:
            tick(frame)
        for _, band in content.bands(frame, TILE):
            for y in range(0, band.shape[0], TILE):
                for x in range(0, width, TILE):
                    tile = np.zeros((TILE, TILE), content.dtype)
                    part = band[y : y + TILE, x : x + TILE]
                    tile[: part.shape[0], : part.shape[1]] = part
                    yield tile


def _objects_text(content: Content) -> str:
    lines = [
        f"{o.id}: {o.name} ({o.colour})" + (f", daughter of {o.parent}" if o.parent is not None else "")
        for o in content.objects
    ]
    return "Labels, 0 = background. " + UNWRITABLE.sub(" ", "; ".join(lines))


def ome_zarr(content: Content, path: Path, tick: Tick) -> None:
    """Write labels as an OME-Zarr label image (version 0.5, zarr format 3), a chunk a tile of one frame.

    The folder is itself the multiscale label image, with halved levels (every second pixel, nothing averaged) until one
    fits a screen. Scale and units are those that the frames' file gives. Chunks without objects are not stored.
    """
    import zarr

    frames, height, width = content.shape
    levels = _levels(height, width)
    root = zarr.create_group(store=path, zarr_format=3)
    arrays = [
        root.create_array(
            str(level),
            shape=(frames, -(-height // 2**level), -(-width // 2**level)),
            chunks=(1, min(CHUNK, -(-height // 2**level)), min(CHUNK, -(-width // 2**level))),
            dtype=content.dtype,
            fill_value=0,
            dimension_names=(frame_letter(content).lower(), "y", "x"),
        )
        for level in range(levels)
    ]
    root.attrs["ome"] = _ome_metadata(content, levels)
    for frame in range(frames):
        for y0, band in content.bands(frame, CHUNK):  # so that a band begins on a whole pixel of every level
            for level, array in enumerate(arrays):
                part = band[:: 2**level, :: 2**level]
                start = y0 >> level
                array[frame, start : start + part.shape[0]] = part
        tick(frame + 1)


def _levels(height: int, width: int) -> int:
    levels = 1
    while max(height, width) / 2 ** (levels - 1) > SMALLEST_LEVEL * 2:
        levels += 1
    return levels


def _ome_metadata(content: Content, levels: int) -> dict[str, Any]:
    letter = frame_letter(content)
    spacing = spacing_of(content)
    axes: list[dict[str, str]] = []
    for name in (letter, "Y", "X"):
        _, unit = spacing.get(name, (1.0, ""))
        axis = {"name": name.lower(), "type": "time" if name == "T" else "space"}
        axes.append(axis | ({"unit": (LENGTHS | TIMES)[unit]} if unit else {}))
    steps = [spacing.get(name, (1.0, ""))[0] for name in (letter, "Y", "X")]
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": "labels",
                "axes": axes,
                "datasets": [
                    {
                        "path": str(level),
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [steps[0], steps[1] * 2**level, steps[2] * 2**level]}
                        ],
                    }
                    for level in range(levels)
                ],
                "type": "nearest",
            }
        ],
        "image-label": {
            "colors": [{"label-value": o.id, "rgba": [*rgb(o.colour), 255]} for o in content.objects],
            "properties": [
                {"label-value": o.id, "name": o.name} | ({} if o.parent is None else {"parent": o.parent})
                for o in content.objects
            ],
        },
    }


def davis_palette() -> list[int]:
    """Compute the palette of DAVIS and PASCAL VOC: 256 x (r, g, b), the bits of the index spread over the colours."""
    return [
        sum((index >> (3 * place + channel) & 1) << (7 - place) for place in range(3))
        for index in range(256)
        for channel in range(3)
    ]


def digits_for(frames: int, least: int) -> int:
    """How many digits number `frames` files."""
    return max(least, len(str(frames - 1)))


def davis(content: Content, path: Path, tick: Tick) -> None:
    """Write a folder of palette PNGs, 00000.png ..., as DAVIS has them: a pixel's value is its object's id.

    Raises
    ------
    InputError
        Ids above 255: a palette has no room for them.
    """
    from PIL import Image

    _check_palette(max((o.id for o in content.objects), default=0), len(content.objects), 0)
    path.mkdir()
    digits = digits_for(content.shape[0], 5)
    palette = davis_palette()
    for frame in range(content.shape[0]):
        whole = np.zeros(content.shape[1:], np.uint8)
        for y0, band in content.bands(frame):
            _check_palette(int(band.max(initial=0)), len(content.objects), frame)
            whole[y0 : y0 + band.shape[0]] = band
        image = Image.frombytes("P", (whole.shape[1], whole.shape[0]), whole.tobytes())
        image.putpalette(palette)
        image.save(path / f"{frame:0{digits}d}.png")
        tick(frame + 1)


def _check_palette(highest: int, count: int, frame: int) -> None:
    if highest > PALETTE_SIZE:
        raise InputError(
            f"Object {highest} (of {count} objects; frame {frame}) doesn't fit a palette PNG, which holds ids up to "
            f"{PALETTE_SIZE}. Export as ome-tiff or ome-zarr instead."
        )


# ---------------------------------------------------------------------------------------------- Cell Tracking Challenge


class Tracks:
    """Tracks of the Cell Tracking Challenge, found frame by frame.

    A track there has no gaps: an object that is away for some frames comes back under a new label, whose parent is the
    label it had before. A daughter's parent is the last track of its mother, if that has ended before.
    """

    def __init__(self, parents: dict[int, int | None], highest: int) -> None:
        self._parents = parents
        self._next = highest + 1
        self._below = False
        self.rows: dict[int, list[int]] = {}  # label -> [first frame, last frame, parent label]
        self._current: dict[int, int] = {}  # object -> label
        self.notes: list[str] = []

    def labels_at(self, frame: int, present: list[int]) -> dict[int, int]:
        """Give the label of each object that is present on a frame; frames are asked for in order."""
        begins = []
        for object_id in present:
            label = self._current.get(object_id)
            if label is not None and self.rows[label][1] == frame - 1:
                self.rows[label][1] = frame
            else:
                begins.append((object_id, label))
        for object_id, before in begins:  # once it is known which mothers are still there
            parent = self._mother(object_id, frame) if before is None else before
            own = before is None and object_id not in self.rows and object_id <= TRACKS_AT_MOST
            label = object_id if own else self._fresh()
            self.rows[label] = [frame, frame, parent]
            self._current[object_id] = label
        return {object_id: self._current[object_id] for object_id in present}

    def _fresh(self) -> int:
        """Lowest label above all objects that no track has yet; where there is none, the lowest that is left below."""
        while self._next in self.rows or (self._below and self._next in self._parents):
            self._next += 1
        if self._next > TRACKS_AT_MOST and not self._below:
            self._next, self._below = 1, True
            return self._fresh()
        label = self._next
        if label > TRACKS_AT_MOST:
            raise InputError(
                f"The objects come and go so often that they need more than {TRACKS_AT_MOST} tracks, the most that the "
                "16-bit masks of the Cell Tracking Challenge can hold. Close the gaps, or export fewer objects."
            )
        return label

    def _mother(self, object_id: int, frame: int) -> int:
        mother = self._parents.get(object_id)
        if mother is None:
            return 0
        label = self._current.get(mother)
        if label is None:
            self.notes.append(f"object {object_id}: its parent {mother} is on no earlier frame; written without parent")
            return 0
        if self.rows[label][1] >= frame:
            self.notes.append(f"object {object_id}: its parent {mother} is still there; written without parent")
            return 0
        return label


def ctc(content: Content, path: Path, tick: Tick) -> None:
    """Write mask000.tif ... and res_track.txt (L B E P: label, begin, end, parent) of the Cell Tracking Challenge.

    Tracks there have no gaps: an object that is away for some frames comes back as a new track whose parent is the
    track before the gap. Objects that are on no frame are left out.

    Raises
    ------
    InputError
        More tracks than 16-bit masks can hold.
    """
    import tifffile

    path.mkdir()
    frames, height, width = content.shape
    digits = digits_for(frames, 3)
    parents = {o.id: o.parent for o in content.objects}
    tracks = Tracks(parents, max(parents, default=0))
    for frame in range(frames):
        outlines = content.outlines(frame)
        labels = tracks.labels_at(frame, list(outlines))
        whole = np.zeros((height, width), np.uint16)
        for object_id, outline in outlines.items():
            inside = content.cut(frame, outline.box) == object_id
            whole[outline.box.slices][inside] = labels[object_id]
        tifffile.imwrite(path / f"mask{frame:0{digits}d}.tif", whole, compression="zlib", photometric="minisblack")
        tick(frame + 1)
    rows = "".join(f"{label} {b} {e} {p}\n" for label, (b, e, p) in sorted(tracks.rows.items()))
    (path / "res_track.txt").write_text(rows, encoding="ascii")
    content.notes.extend(tracks.notes)
