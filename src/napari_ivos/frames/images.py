"""A folder of images, one a frame, or a single image; decoded when asked for."""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import FrameReadError, InputError
from napari_ivos.frames.blocks import regular_edges
from napari_ivos.frames.tiff import check_ome
from napari_ivos.untrusted import CHUNK_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    import tifffile

    from napari_ivos.frames.axes import Selection
    from napari_ivos.frames.contrast import Range

Array = npt.NDArray[Any]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_SIGNED_FILES = 5
"""Files of a folder whose beginnings go into its signature."""
_SIGNED_BYTES = 1 << 16


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which frame2 comes before frame10."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def list_images(folder: Path) -> tuple[list[Path], list[str]]:
    """Images of a folder in natural order, of the ending that most of them have, and a note on what was left out."""
    files = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_file()]
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not images:
        inside = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
        found = ", ".join(inside[:6]) + (f" and {len(inside) - 6} more" if len(inside) > 6 else "")
        raise InputError(
            f"The folder {folder} holds no images ({', '.join(SUFFIXES)}) and no zarr; found {found or 'nothing'}. "
            "Give the folder in which the frames themselves lie, or one file."
        )
    common = Counter(_ending(file) for file in images).most_common(1)[0][0]
    chosen = [file for file in images if _ending(file) == common]
    chosen.sort(key=lambda file: (natural_key(file.name), file.name))  # t1 and t01 too: disks list them in any order
    others = len(images) - len(chosen)
    notes = [f"{others} images that are not {common} were left out."] if others else []
    return chosen, notes


def _ending(file: Path) -> str:
    """Ending of a file, one for each format."""
    suffix = file.suffix.lower()
    return {".jpeg": ".jpg", ".tiff": ".tif"}.get(suffix, suffix)


class ImageFolder:
    """Source of frames that are files of their own: axes TYX or TYXC.

    The first file tells size, channels and dtype; the others must agree when they are read.
    """

    def __init__(self, files: list[Path], notes: list[str], path: Path) -> None:
        try:
            first = decode(files[0])
        except Exception as error:
            raise InputError(
                f"{files[0]} can't be read as an image ({type(error).__name__}: {error}): it is damaged, cut short, "
                "or of another format than its name says. Copy it again from its origin."
            ) from error
        self._files = files
        self.kind = "folder of images" if path.is_dir() else "image"
        self.name = path.name or str(path)
        self.path: Path | None = path
        self.shape: tuple[int, ...] = (len(files), *first.shape)
        self.dtype = first.dtype
        self.axes: str | None = "TYX" if first.ndim == 2 else "TYXC"
        self.assumed = False
        self.edges = regular_edges(self.shape, (1, *first.shape)) if first.size else None
        self.seeking = False
        self.as_is: Range | None = None
        self.in_memory = False
        self.notes = notes
        self.hint: str | None = None
        self.details: dict[str, Any] = {"first_file": files[0].name, "last_file": files[-1].name}

    def fetch(self, selection: Selection) -> Array:
        """Values of a basic index; each frame is decoded whole."""
        at, *rest = selection
        if isinstance(at, slice):
            return np.stack([self._frame(i)[tuple(rest)] for i in range(at.start, at.stop)])
        return self._frame(at)[tuple(rest)].copy()

    def _frame(self, number: int) -> Array:
        values = decode(self._files[number])
        wanted = self.shape[1:]
        if values.ndim == 2 and wanted[2:] == (3,):
            values = np.repeat(values[..., None], 3, axis=2)  # savers drop the colours of a grey picture
        elif values.ndim == 3 and len(wanted) == 2 and (values == values[..., :1]).all():
            values = values[..., 0]
        if values.shape != wanted or values.dtype != self.dtype:
            raise FrameReadError(
                f"Frame {number} ({self._files[number].name}) is {_words(values.shape, values.dtype)}, but the first "
                f"frame ({self._files[0].name}) is {_words(wanted, self.dtype)}. All frames need the same size and "
                "kind: take it out of the folder or convert it.",
                number,
            )
        return values

    def signature(self) -> bytes | None:
        """Sizes of the files and the beginning of some: decoders differ in a JPEG's last bit."""
        digest = hashlib.sha256(repr([file.stat().st_size for file in self._files]).encode())
        for i in np.linspace(0, len(self._files) - 1, _SIGNED_FILES).round().astype(int):
            with self._files[i].open("rb") as file:
                digest.update(file.read(_SIGNED_BYTES))
        return digest.digest()

    def close(self) -> None:
        """Nothing stays open."""


def _words(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    kind = "grey" if len(shape) == 2 else f"{shape[2]} channels"
    return f"{shape[0]} x {shape[1]} px, {kind}, {dtype}"


def decode(file: Path) -> Array:
    """Pixels of an image file, (h, w) or (h, w, channels).

    Palettes and other colour spaces become RGB, alpha is dropped; a TIFF may have any number of channels.
    """
    if file.stat().st_size == 0:
        raise ValueError("the file is empty (0 bytes)")
    if file.suffix.lower() in (".tif", ".tiff"):
        return _decode_tiff(file)
    if _is_deep_png(file):
        import imagecodecs

        with file.open("rb") as stream:
            width, height = struct.unpack(">II", stream.read(24)[16:])
        check_picture(width, height, 8)
        values = np.asarray(imagecodecs.png_decode(file.read_bytes()))
        return _without_alpha(values)
    from PIL import Image, UnidentifiedImageError

    try:
        opened = Image.open(picture_bytes(file))
    except UnidentifiedImageError as error:
        raise ValueError("it holds no picture of a known kind") from error
    with opened as image:
        check_picture(*image.size, 4)
        if image.mode in ("1", "L", "RGB", "I", "F") or image.mode.startswith("I;16"):
            return np.array(image)
        return np.array(image.convert("L" if image.mode == "LA" else "RGB"))


def check_picture(width: int, height: int, pixel: int) -> None:
    """ValueError for a picture too large to be unpacked whole, from its header alone; `pixel`: bytes of one."""
    size = width * height * pixel
    if size > CHUNK_BYTES:
        raise ValueError(
            f"it declares {width:,} x {height:,} px, {size / 2**30:,.1f} GB unpacked; pictures up to "
            f"{CHUNK_BYTES / 2**30:,.1f} GB are read. Save it as a tiled TIFF or OME-Zarr, which are read in parts"
        )


def picture_bytes(file: Path) -> io.BytesIO:
    """A picture's file, read whole: a decoder gets no more than there is, whatever lengths the file declares."""
    size = file.stat().st_size
    if size > CHUNK_BYTES:
        raise ValueError(f"it has {size:,} bytes; pictures of up to {CHUNK_BYTES:,} are read")
    return io.BytesIO(file.read_bytes())


def _decode_tiff(file: Path) -> Array:
    """Pixels of a TIFF with one picture, whose channels are samples or, where the file says so, pages of their own."""
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        page, count = tiff.pages.first, len(tiff.pages)
        size = max(page.samplesperpixel, 1) * max(page.bitspersample // 8, 1)
        check_picture(page.imagewidth, page.imagelength, size * count)
        if count > 1 and not _pages_are_channels(tiff, file):
            raise ValueError(f"a stack of {count} pages, not one frame; open that file instead of its folder")
        # Page by page: the series of an OME-TIFF may reach over other files, and declare any number of frames.
        planes = [np.asarray(each.asarray()) for each in tiff.pages]
        if count > 1:
            return np.stack(planes, axis=-1)
        values, axes = planes[0], page.axes
        alpha = bool(page.extrasamples) and page.extrasamples[-1] in (1, 2)
    if "S" not in axes:
        return np.squeeze(values)
    values = np.moveaxis(values, axes.index("S"), -1)
    return values if not alpha else values[..., 0] if values.shape[-1] == 2 else values[..., :-1]


def _pages_are_channels(tiff: tifffile.TiffFile, file: Path) -> bool:
    check_ome(tiff, file)
    series = tiff.series[0]
    return series.axes == "CYX" and series.shape[0] == len(tiff.pages)


def _without_alpha(values: Array) -> Array:
    if values.ndim == 3 and values.shape[2] in (2, 4):
        return values[..., 0] if values.shape[2] == 2 else values[..., :3]
    return values


def _is_deep_png(file: Path) -> bool:
    """Whether a file is a PNG of 16 bits with several channels, which Pillow cuts to 8."""
    with file.open("rb") as stream:
        head = stream.read(26)
    return head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 26 and head[24] == 16 and head[25] in (2, 4, 6)
