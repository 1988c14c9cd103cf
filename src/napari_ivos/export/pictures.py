"""Pictures for people: the masks drawn over the frames, as one picture, a video, or a contact sheet."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import FrameReadError, InputError
from napari_ivos.export.content import rgb
from napari_ivos.regions import Box

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from napari_ivos.export.content import Content, Labels
    from napari_ivos.export.images import Tick

Picture = npt.NDArray[np.uint8]

VIDEO_SIDE = 1280
"""Longest side of the video; larger frames are reduced by a whole factor."""
PICTURE_PIXELS = 1 << 22
"""A frame is reduced in bands of rows of this many pixels."""
SMALL_SIDE = 320
"""Smaller frames are enlarged by a whole factor, so that there is something to see."""
SHEET_SIDE = 360
SHEET_COUNT = 12
FILL = 0.35
"""Share of the object's colour inside its mask; the mask's edge is all colour."""
RIM = 255
"""Grey of the pixels around a mask."""
EMPTY = 24
"""Grey where there is no frame to show."""
CAPTION = 18
"""Height of a line of text, in pixels."""
RATE = 10.0


def picture(content: Content, frame: int, side: int = VIDEO_SIDE) -> Picture:
    """Draw the masks of a frame over it.

    Parameters
    ----------
    content : Content
        Without frames, masks are drawn on grey.
    frame : int
        Index of the frame.
    side : int
        The frame is reduced by the smallest whole factor that brings its longest side to this or less.

    Returns
    -------
    (h, w, 3) uint8 array
        Objects are tinted in their colour, with a full edge and a white rim around it.
    """
    factor = max(1, ceil(max(content.shape[1:]) / side))
    bands, marks = [], []
    for y0, labels in content.bands(frame, factor, PICTURE_PIXELS):
        box = Box(y0, 0, y0 + labels.shape[0], labels.shape[1])
        bands.append(_reduced(_pixels(content, frame, box), factor))
        rows, columns = (np.minimum(np.arange(0, n, factor) + factor // 2, n - 1) for n in labels.shape)
        marks.append(labels[rows][:, columns])
    return _tinted(content, np.concatenate(bands), np.concatenate(marks))


def _pixels(content: Content, frame: int, box: Box) -> npt.NDArray[np.float32]:
    nothing = np.full((*box.shape, 3), EMPTY / 255, np.float32)
    if content.frames is None:
        return nothing
    try:
        found: npt.NDArray[np.float32] = content.frames.read(frame, box)
        return found
    except FrameReadError as error:
        content.notes.append(f"frame {frame} is shown without its image: {error}")
        return nothing


def _reduced(image: npt.NDArray[np.float32], factor: int) -> npt.NDArray[np.float32]:
    """Mean of blocks of factor x factor pixels, those at the far border smaller; 0..255."""
    if factor > 1:
        sums = np.add.reduceat(image, np.arange(0, image.shape[0], factor), axis=0)
        sums = np.add.reduceat(sums, np.arange(0, image.shape[1], factor), axis=1)
        rows, columns = (np.diff(np.append(np.arange(0, n, factor), n)) for n in image.shape[:2])
        image = sums / (rows[:, None, None] * columns[:, None])
    return np.asarray(image * 255, np.float32)


def _tinted(content: Content, image: npt.NDArray[np.float32], labels: Labels) -> Picture:
    ids, where = np.unique(labels, return_inverse=True)
    colours = np.array([rgb(content.object(int(i)).colour) if i else (0, 0, 0) for i in ids], np.float32)
    edges = _edges(labels)
    share = np.where(labels > 0, np.where(edges, 1.0, FILL), 0.0).astype(np.float32)[..., None]
    mixed = image * (1 - share) + colours[where.reshape(labels.shape)] * share
    mixed[edges & (labels == 0)] = RIM  # a mask of the colour of what is under it would not be seen
    return np.asarray(np.rint(np.clip(mixed, 0, 255)), np.uint8)


def _edges(labels: Labels) -> npt.NDArray[np.bool_]:
    """Pixels of an object that have another value beside them."""
    around = np.pad(labels, 1, mode="edge")
    middle = around[1:-1, 1:-1]
    return np.asarray(
        (around[:-2, 1:-1] != middle)
        | (around[2:, 1:-1] != middle)
        | (around[1:-1, :-2] != middle)
        | (around[1:-1, 2:] != middle)
    )


def _enlarged(image: Picture) -> Picture:
    factor = max(1, SMALL_SIDE // max(image.shape[:2]))
    return np.asarray(image.repeat(factor, axis=0).repeat(factor, axis=1))


def video(content: Content, path: Path, tick: Tick, fps: float | None = None, title: str = "") -> None:
    """Write the frames with their masks as an MP4 video: H.264 where it can be written, else MPEG-4.

    Parameters
    ----------
    content, path, tick
        What, where to, and the progress.
    fps : float, optional
        Frames a second; that of the source where it has one, else 10.
    title : str
        Kept in the file's title.

    Raises
    ------
    InputError
        A rate that is not above 0.
    """
    if fps is None:
        facts = {} if content.frames is None else content.frames.describe()
        fps = float(facts.get("frames_per_second") or RATE)
    if not 0 < fps <= 1000:
        raise InputError(f"A video of {fps:g} frames a second can't be written; give fps above 0, at most 1000.")
    import av

    first = _even(_enlarged(picture(content, 0)))
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w", format="mp4") as container:
        container.metadata["title"] = title or "napari-ivos"
        stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast"} if codec == "libx264" else {"qscale": "3"}
        for frame in range(content.shape[0]):
            drawn = first if frame == 0 else _even(_enlarged(picture(content, frame)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(drawn, format="rgb24")))
            tick(frame + 1)
        container.mux(stream.encode(None))


def _even(image: Picture) -> Picture:
    """Repeat the last row and column where their number is odd: the codecs take pairs of pixels."""
    pads = ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0))
    return np.ascontiguousarray(np.pad(image, pads, mode="edge"))


def contact_sheet(content: Content, path: Path, tick: Tick, count: int = SHEET_COUNT, title: str = "") -> None:
    """Write a PNG with frames spread over the stack, the first and the last among them, masks drawn on them.

    Parameters
    ----------
    content, path, tick
        What, where to, and the progress.
    count : int
        How many frames to show at most.
    title : str
        A line above them.
    """
    from PIL import Image

    if count < 1:
        raise InputError(f"A contact sheet of {count} frames was asked for; give at least 1.")
    frames = content.shape[0]
    shown = sorted({round(k) for k in np.linspace(0, frames - 1, min(count, frames))})
    tiles = []
    for frame in shown:
        drawn = _enlarged(picture(content, frame, SHEET_SIDE))
        tiles.append(_captioned(Image.fromarray(drawn), f"frame {frame}"))
        tick(frame + 1)
    width, height = tiles[0].size
    columns = min(len(tiles), max(1, round((len(tiles) * height / width * 1.6) ** 0.5)))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (width + 4) + 4, rows * (height + 4) + 4), (255, 255, 255))
    for k, tile in enumerate(tiles):
        sheet.paste(tile, (4 + k % columns * (width + 4), 4 + k // columns * (height + 4)))
    (_captioned(sheet, title) if title else sheet).save(path, format="PNG")


def _captioned(image: Image, text: str) -> Image:
    from PIL import Image, ImageDraw

    whole = Image.new("RGB", (image.width, image.height + CAPTION), (255, 255, 255))
    whole.paste(image, (0, CAPTION))
    ImageDraw.Draw(whole).text((4, 3), text, fill=(0, 0, 0))
    return whole
