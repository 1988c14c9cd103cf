"""Sequences with ground truth, from the folders and files in which people keep them.

Three layouts are known, each found at any depth below the folder that is given:

- ``SEQ/frames/00000.jpg`` and ``SEQ/masks/00000.png``: one image and one mask a frame;
- ``JPEGImages/[480p/]SEQ/00000.jpg`` and ``Annotations/[480p/]SEQ/00000.png``: DAVIS and its kin;
- ``NAME.tif`` and ``NAME_labels.tif`` (or ``_masks``, ``_mask``, ``_gt``): a stack and its labels, (T, H, W[, C]).

A frame without a mask file is not annotated: it is segmented, never scored, and never scribbled on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.frames.images import decode, natural_key

if TYPE_CHECKING:
    from collections.abc import Iterator

Score = Literal["all", "labelled", "started"]
"""Which (object, frame) pairs count.

- "all": the protocol's own, every object on every annotated frame; J is 1 where truth and result are both empty, so
  that doing nothing scores well where objects come and go.
- "labelled": only where the ground truth has the object, for data in which labels are missing.
- "started": the objects of the first frame on every annotated frame; 1 can be reached in the first round.
"""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
LABEL_ENDINGS = ("_labels", "_masks", "_mask", "_gt")
RESOLUTIONS = ("480p", "Full-Resolution", "1080p", "")
STACK_SUFFIXES = (".tif", ".tiff")

NEAR_BEST = 0.95
"""First frames of other seeds: those that show the objects at least this well, over the best one."""


@dataclass(frozen=True, eq=False)
class Sequence:
    """Frames of one stack with their true labels.

    Parameters
    ----------
    name : str
        What tables call it.
    group : str
        What it is averaged with, for example "video" or "microscopy".
    frames : (T, H, W) or (T, H, W, 3) array
        The stack in memory, as its files hold it.
    labels : (T, H, W) integer array
        True ids 1..K, constant over time; 0 = background.
    annotated : (T,) bool array, optional
        Frames whose labels are known; all if not given.
    ids : tuple of int
        What the files call the objects 1..K; empty: the same.

    Raises
    ------
    InputError
        Frames and labels that do not belong together, or labels without any object.
    """

    name: str
    group: str
    frames: npt.NDArray[np.generic]
    labels: npt.NDArray[np.integer]
    annotated: npt.NDArray[np.bool_] | None = None
    ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.frames.ndim not in (3, 4) or self.frames.shape[:3] != self.labels.shape:
            raise InputError(
                f"{self.name}: frames of shape {self.frames.shape} and labels of shape {self.labels.shape}; expected "
                "(T, H, W) or (T, H, W, 3), and labels (T, H, W)."
            )
        if self.annotated is not None and self.annotated.shape != self.labels.shape[:1]:
            raise InputError(f"{self.name}: {len(self.labels)} frames, but 'annotated' is {self.annotated.shape}.")
        if int(self.labels.max(initial=0)) < 1:
            raise InputError(f"{self.name}: its ground truth holds no object (every pixel is 0).")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def n_objects(self) -> int:
        """K: the ids run from 1 to it."""
        return int(self.labels.max())

    @cached_property
    def areas(self) -> npt.NDArray[np.int64]:
        """(T, K): pixels of object k + 1 on each frame."""
        counts = [np.bincount(frame.ravel(), minlength=self.n_objects + 1)[1:] for frame in self.labels]
        return np.stack(counts).astype(np.int64)

    def counted(self, score: Score = "all", first: int = 0) -> npt.NDArray[np.bool_]:
        """(T, K): which (frame, object) pairs enter a score, with the first scribbles on frame `first`."""
        every = np.ones(self.areas.shape, bool)
        if score != "all":
            every &= self.areas > 0 if score == "labelled" else self.areas[first] > 0
        return every if self.annotated is None else every & self.annotated[:, None]

    def thin(self, every: int) -> Sequence:
        """Each `every`-th frame of it, from the first: a harder sequence that takes less time."""
        if every < 1:
            raise InputError(f"Every {every}-th frame: give a whole number from 1.")
        if every == 1:
            return self
        annotated = None if self.annotated is None else self.annotated[::every]
        return _renumbered(replace(self, frames=self.frames[::every], labels=self.labels[::every], annotated=annotated))

    def first_frame(self, seed: int = 0) -> int:
        """The frame that the first scribbles are drawn on: one that shows as many objects, as large, as it gets.

        Parameters
        ----------
        seed : int
            0 takes the best frame, others draw from those nearly as good.
        """
        sides = np.sqrt(self.areas)
        shown = (sides / np.maximum(sides.max(axis=0), 1)).sum(axis=1)
        if self.annotated is not None:
            shown = np.where(self.annotated, shown, -1)
        if seed == 0:
            return int(np.argmax(shown))
        return int(np.random.default_rng(seed).choice(np.flatnonzero(shown >= NEAR_BEST * shown.max())))


def find_sequences(path: str | Path) -> list[Path]:
    """Paths of all sequences at or below a folder (or of one stack file), sorted; each can be given to `read_sequence`.

    Raises
    ------
    InputError
        Nothing there, or nothing that looks like a sequence with ground truth.
    """
    root = Path(path)
    if not root.exists():
        raise InputError(f"{root} does not exist.")
    found = sorted(set(_walk(root)))
    if not found:
        raise InputError(
            f"{root} holds no sequence with ground truth. Expected SEQ/frames and SEQ/masks, JPEGImages and "
            f"Annotations, or NAME.tif with NAME_labels.tif."
        )
    return found


def _walk(path: Path) -> Iterator[Path]:
    if path.is_file():
        if path.suffix.lower() in STACK_SUFFIXES and _label_file(path):
            yield path
        return
    if (path / "frames").is_dir() and (path / "masks").is_dir():
        yield path
    elif _davis_images(path) is not None:
        images = _davis_images(path)
        yield from (p for p in sorted(images.iterdir()) if p.is_dir() and _davis_masks(p).is_dir()) if images else ()
    elif path.parent.name in RESOLUTIONS + ("JPEGImages",) and _davis_masks(path).is_dir():
        yield path
    else:
        for entry in sorted(path.iterdir()):
            if entry.is_dir() or entry.suffix.lower() in STACK_SUFFIXES:
                yield from _walk(entry)


def _davis_images(root: Path) -> Path | None:
    """Folder of the sequences' image folders where `root` has the layout of DAVIS."""
    for resolution in RESOLUTIONS:
        images, masks = root / "JPEGImages" / resolution, root / "Annotations" / resolution
        if images.is_dir() and masks.is_dir():
            return images
    return None


def _davis_masks(images: Path) -> Path:
    parts = list(images.parts)
    if "JPEGImages" not in parts:
        return images / "no masks"
    parts[len(parts) - 1 - parts[::-1].index("JPEGImages")] = "Annotations"
    return Path(*parts)


def _label_file(stack: Path) -> Path | None:
    for ending in LABEL_ENDINGS:
        for suffix in STACK_SUFFIXES:
            beside = stack.with_name(stack.stem + ending + suffix)
            if beside.is_file():
                return beside
    return None


def read_sequence(path: str | Path) -> Sequence:
    """Read one sequence into memory.

    Parameters
    ----------
    path : path
        What `find_sequences` gives: the folder of a sequence, the image folder of a DAVIS sequence, or a stack file.

    Returns
    -------
    Sequence
        Its ids renumbered to 1..K; the name is the folder's (the file's), the group that of the folder above.

    Raises
    ------
    InputError
        No such layout, no image, sizes that differ, or a mask that is not one of whole numbers.
    """
    at = Path(path)
    if at.is_file():
        return _read_stack(at)
    if (at / "frames").is_dir():
        return _read_folders(at.name, at.resolve().parent.name, at / "frames", at / "masks")
    masks = _davis_masks(at)
    if masks.is_dir():
        return _read_folders(at.name, "video", at, masks)
    raise InputError(f"{at} is no sequence with ground truth; expected frames/ and masks/ in it, or a DAVIS folder.")


def _read_stack(path: Path) -> Sequence:
    import tifffile

    beside = _label_file(path)
    if beside is None:
        raise InputError(f"{path.name} has no labels beside it; expected {path.stem}_labels.tif.")
    try:
        frames, labels = np.asarray(tifffile.imread(path)), np.asarray(tifffile.imread(beside))
    except (OSError, tifffile.TiffFileError, ValueError) as error:
        raise InputError(f"{path.name} or {beside.name} can't be read as TIFF ({error}).") from error
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{beside.name} holds {labels.dtype}; labels are whole numbers.")
    return _renumbered(Sequence(path.stem, path.resolve().parent.name, frames, labels))


def _images(folder: Path) -> dict[str, Path]:
    """Images of a folder by their names without the ending, in the order in which `open_frames` has them."""
    found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    return {p.stem: p for p in sorted(found, key=lambda p: natural_key(p.name))}


def _read_folders(name: str, group: str, frames: Path, masks: Path) -> Sequence:
    images, truths = _images(frames), _images(masks)
    known = np.array([stem in truths for stem in images], bool)
    if not known.any():
        raise InputError(
            f"{name}: {len(images)} images in {frames.name}/ and {len(truths)} masks in {masks.name}/, but none of one "
            "name; a frame and its mask have the same file name up to the ending."
        )
    stack = [_read_image(path) for path in images.values()]
    shapes = {image.shape for image in stack}
    if len(shapes) > 1:
        raise InputError(f"{name}: its frames have {len(shapes)} shapes, {sorted(shapes)[:3]}; they must have one.")
    labels = np.zeros((len(stack), *stack[0].shape[:2]), np.uint16)
    for t, stem in enumerate(images):
        if known[t]:
            mask = _read_mask(truths[stem])
            if mask.shape != labels.shape[1:]:
                raise InputError(f"{name}: frame {stem} is {labels.shape[1:]} pixels, its mask {mask.shape}.")
            labels[t] = mask
    return _renumbered(Sequence(name, group, np.stack(stack), labels, None if known.all() else known))


def _read_image(path: Path) -> npt.NDArray[np.generic]:
    """An image as its file holds it: (H, W) or (H, W, 3)."""
    try:
        return decode(path)
    except Exception as error:  # whatever the decoding of damaged bytes runs into
        raise InputError(f"{path} can't be read as an image ({error}).") from error


def _read_mask(path: Path) -> npt.NDArray[np.uint16]:
    """Ids of a mask image (H, W): palette indices or grey values, never colours."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.asarray(image)
    except OSError as error:
        raise InputError(f"{path} can't be read as an image ({error}).") from error
    if values.ndim != 2 or not (np.issubdtype(values.dtype, np.integer) or values.dtype == bool):
        raise InputError(f"{path} is of mode {mode}; a mask is a palette or a grey image of whole numbers.")
    if int(values.max(initial=0)) > 65535 or int(values.min(initial=0)) < 0:
        raise InputError(f"{path} holds ids from {values.min()} to {values.max()}; they run from 0 to 65535.")
    return values.astype(np.uint16)


def _renumbered(sequence: Sequence) -> Sequence:
    """The same with ids 1..K in the order of the old ones; what they were called is kept."""
    old = np.unique(sequence.labels)
    old = old[old != 0]
    if old.size and int(old[0]) < 0:
        raise InputError(f"{sequence.name}: its labels hold {old[0]}; ids run from 1, 0 is the background.")
    if old.size > 65535:
        raise InputError(f"{sequence.name}: {old.size} objects; at most 65535 ids can be told apart.")
    names = tuple(int(sequence.ids[i - 1]) if sequence.ids else int(i) for i in old)
    both = np.concatenate([[0], old])
    labels = np.searchsorted(both, sequence.labels).astype(np.uint16)
    return replace(sequence, labels=labels, ids=names)
