"""Label images from files: masks, and painted scribbles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError, OutOfMemory
from napari_ivos.frames.images import check_picture, list_images, picture_bytes
from napari_ivos.frames.omezarr import is_zarr

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

INDEXED = (".png", ".bmp", ".gif")
"""Pictures whose numbers are read as they are: a palette is no colour here."""


def label_images(
    path: Path, shape: tuple[int, int, int], frame: int | None = None
) -> dict[int, npt.NDArray[np.integer[Any]]]:
    """Read the label image of one frame, or those of a whole stack.

    Parameters
    ----------
    path : Path
        PNG (palette, grey), TIFF, .npy, or a folder of such images; one image, or as many as the stack has frames.
    shape : tuple of int
        (T, H, W) of the stack.
    frame : int, optional
        The frame that one image belongs to (0), or the only one to take of a stack's (all that are not empty).

    Returns
    -------
    dict of int to (H, W) integer array
        By frame, ascending.

    Raises
    ------
    InputError
        Not whole numbers, another size, no such frame, or nothing in it.
    """
    if frame is not None and not 0 <= frame < shape[0]:
        raise InputError(f"Frame {frame}: the stack has frames 0 to {shape[0] - 1}.")
    files = _indexed_files(path)
    if files:
        count = _checked_count(path, len(files), shape)
        images = {t: _indexed(files[t]) for t in _wanted(count, frame)}
    else:
        images, count = _from_stack(path, shape, frame)
    if count == 1:
        images = {frame or 0: next(iter(images.values()))}
    for image in images.values():
        if image.shape != shape[1:]:
            raise _other_size(path, image.shape, shape)
    filled = {t: image for t, image in images.items() if image.any()}
    if not filled:
        raise InputError(f"{path} is empty: all of its values are 0{'' if frame is None else f' on frame {frame}'}.")
    return filled


def _indexed_files(path: Path) -> list[Path]:
    """Pictures whose numbers are read as they are: one, or those of a folder, one a frame; none for all else."""
    if path.is_dir() and not is_zarr(path):
        files, _ = list_images(path)
        return files if files[0].suffix.lower() in INDEXED else []
    return [path] if path.suffix.lower() in INDEXED else []


def _checked_count(path: Path, count: int, shape: tuple[int, int, int]) -> int:
    if count not in (1, shape[0]):
        raise InputError(f"{path} holds {count} images; expected one, or {shape[0]}: one for each frame.")
    return count


def _wanted(count: int, frame: int | None) -> Iterable[int]:
    """Which of the images are to be read."""
    return range(count) if frame is None or count == 1 else [frame]


def _other_size(path: Path, found: tuple[int, ...], shape: tuple[int, int, int]) -> InputError:
    return InputError(f"{path} is {' x '.join(map(str, found))} px; the frames are {shape[1]} x {shape[2]} px.")


def _indexed(path: Path) -> npt.NDArray[np.integer[Any]]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(picture_bytes(path)) as image:
            check_picture(*image.size, 4)
            if image.mode not in ("P", "L", "I", "I;16", "1"):
                raise InputError(
                    f"{path} is a picture of mode {image.mode}; expected one whole number a pixel (palette or grey)."
                )
            values = np.asarray(image)
            return values.astype(np.uint8) if values.dtype.kind == "b" else values.copy()
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is no image that can be read.") from error
    except InputError:
        raise
    except MemoryError as error:
        raise OutOfMemory(f"{path}: no memory to unpack it. Close other programs.") from error
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}.") from error
    except Exception as error:  # whatever the decoding of damaged bytes runs into
        raise InputError(
            f"{path} can't be read as an image ({type(error).__name__}: {error}): it is damaged. Save it again."
        ) from error


def _from_stack(
    path: Path, shape: tuple[int, int, int], frame: int | None
) -> tuple[dict[int, npt.NDArray[np.integer[Any]]], int]:
    from napari_ivos.frames import open_frames

    with open_frames(path) as stack:
        count = _checked_count(path, stack.shape[0], shape)
        if stack.dtype.kind not in "iub":
            raise InputError(f"{path} holds {stack.dtype}; expected whole numbers, 0 where nothing is.")
        if stack.shape[1:] != shape[1:]:  # seen before anything of that size is read
            raise _other_size(path, stack.shape[1:], shape)
        images = {t: stack.raw(t) for t in _wanted(count, frame)}
    for image in images.values():
        if image.ndim != 2:
            raise InputError(f"{path} has {image.shape[2]} channels; expected one whole number a pixel.")
    return {t: image.astype(np.int64) if image.dtype.kind == "b" else image for t, image in images.items()}, count
