"""Clips to train on: a target object with its mask on a few frames, made from stills, cut-outs, shapes and real stacks.

A clip is a pure function of its seed: the same seed gives the same clip in any process, so that a run that was stopped
goes on as if it had not been. OpenCV does the warping: a clip takes some 30 to 65 ms of one slow core.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.training.volumes import draw_slices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

UInt8 = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Rng = np.random.Generator

log = logging.getLogger(__name__)

TARGET = 1
"""Label of the target; other labels are other objects, 0 is background."""
MINIMUM_AREA = 40
"""An instance smaller than this, in pixels of its still, is not worth following."""
MAXIMUM_NEIGHBOURS = 5
HELD_OUT = 40
"""Every so-manyth still is kept for validation."""

STILL_WEIGHTS = {
    "animals_openimages": 16.0,
    "feral_cats": 9.0,
    "clothing_person_parts": 14.0,
    "iot_boards": 1.0,
    "aerial_buildings": 3.0,
    "building_facade": 1.0,
    "small_objects5": 2.0,
    "bottles_crystl": 4.0,
    "plants_ampgcv": 3.0,
    "dsb2018_nuclei": 16.0,
    "embryo_micro": 4.0,
    "granular_pellets": 4.0,
    "segmush": 2.0,
    "bn_flakes_micro": 2.0,
    "stardist_img2d": 1.0,
    "maize_clsm": 3.0,
    "wheat_seedling": 1.0,
    "tree_limbs": 1.0,
    "strawberry_parts": 1.0,
    "warehouse_pallets": 1.0,
    "retina_disc": 1.0,
}
"""How often each source of stills is drawn; one that is not listed gets 1."""
MICROSCOPY = frozenset(
    {"dsb2018_nuclei", "embryo_micro", "granular_pellets", "bn_flakes_micro", "stardist_img2d", "maize_clsm"}
)
ONE_OBJECT = frozenset({"clothing_person_parts"})
"""Sources whose labels are parts of one object."""
WHOLE_STACKS = ("fib25",)
"""Real stacks, by the beginnings of their names, where an object without a label on a frame is not on that frame."""
SLOWEST, FASTEST = 0.03, 1.6
"""Paces of clips, drawn evenly on a logarithmic scale. At pace 1 an object moves by about a fifth of its size from
frame to frame; neighbouring frames of most videos and time-lapses differ by far less, and there a mask must keep its
detail.
"""
ENDING, ENDING_MICRO = 0.08, 0.3
"""Share of clips of things that move by themselves in which the target comes or goes; from slice to slice of a z-stack
small things do so all the time.
"""
REPLACED = 0.45
"""Share of the endings under a microscope where another object of the image comes in the target's place, as the next
nucleus below does in a dense stack.
"""
FADING = 0.6
"""Share of the endings under a microscope that leave a dim trace."""
ENDING_SLICES = 0.5
"""Share of clips from simulated volumes whose target is drawn among those that are not on every slice."""
BLANK = 4.0
"""Grey values hardly differ where a microscope was set so badly that nothing shows."""
PRESENT = 0.5
"""What shows less than this counts as gone: it has no label."""
WHOLE_GENTLE = 0.55
"""Share of gentle clips from stills that show the whole scene, whose edges are those of a real picture."""
DOUBLE = 0.2
"""Share of clips in which a lone target gets a mirrored copy of itself beside it."""
HELD_OUT_FRAMES = 6
"""The last 1/6 of a real stack's frames, or so many if that is more, are kept for validation; not of short stacks."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A few frames of one target.

    Attributes
    ----------
    frames : (T, H, W, 3) uint8 array
        RGB.
    labels : (T, H, W) uint8 array
        1 = the target, 2.. = other objects, 0 = background.
    known : (T,) bool array
        Frames whose labels can be trusted.
    source : str
        Where it comes from, for statistics.
    """

    frames: UInt8
    labels: UInt8
    known: npt.NDArray[np.bool_]
    source: str


@dataclass(frozen=True)
class ClipSettings:
    """What clips look like.

    Attributes
    ----------
    side : int
        Side of the square frames in pixels.
    frames : int
        Frames in a clip.
    real, cutouts, procedural, volumes : float
        Shares of clips from real stacks, of cut-outs as targets, of procedural shapes, and of slices of simulated
        volumes; stills make the rest.
    gentle : float
        Share of clips from stills that a good camera films: more of them show a whole scene as it is, in its own
        colours, with little blur and noise.
    distractors : bool
        Whether look-alikes move beside the target.
    exclude : tuple of str
        Sources that are left out (for ablations).
    """

    side: int = 256
    frames: int = 3
    real: float = 0.18
    cutouts: float = 0.08
    procedural: float = 0.06
    volumes: float = 0.12
    gentle: float = 0.0
    distractors: bool = True
    exclude: tuple[str, ...] = ()


@dataclass(eq=False)
class Layer:
    """Something that moves: a picture, where it is opaque, and which label it bears."""

    image: UInt8  # (h, w, 3)
    alpha: Float  # (h, w), 0..1
    label: int
    motion: list[npt.NDArray[np.float64]] = field(default_factory=list)  # T matrices (3, 3): canvas to source pixels
    bend: list[Float] = field(default_factory=list)  # T displacement grids (4, 4, 2) in canvas pixels
    there: list[float] = field(default_factory=list)  # how much of it shows on each of the T frames, 0..1; empty: all


class ClipSource:
    """Draws clips from a folder of training data, laid out as `stills/SOURCE`, `cutouts/SOURCE` and `clips/SEQ`.

    An image whose mask is empty is passed over, with a line in the log.

    Parameters
    ----------
    root : path
        The folder.
    settings : ClipSettings
        What clips look like.
    held_out : bool
        Draw from the stills, and the last frames of real stacks, that are kept for validation instead of the others.

    Raises
    ------
    InputError
        A folder without stills, or an image there that has no mask beside it.
    """

    def __init__(self, root: str | Path, settings: ClipSettings | None = None, held_out: bool = False) -> None:
        self.root = Path(root)
        self.settings = settings or ClipSettings()
        self.held_out = held_out
        if not self.stills:
            raise InputError(f"{self.root}: no stills with masks in stills/SOURCE/ID.jpg + ID_mask.png")

    @cached_property
    def stills(self) -> dict[str, list[Path]]:
        """Paths of the images of each source; each has a mask beside it."""
        found = {}
        for folder in sorted((self.root / "stills").glob("*")):
            images = sorted(folder.glob("*.jpg"))
            masks = {path.name for path in folder.glob("*_mask.png")}
            bare = [path.name for path in images if f"{path.stem}_mask.png" not in masks]
            if bare:
                raise InputError(
                    f"{folder}: {len(bare)} of {len(images)} images have no mask, the first is {bare[0]}; put "
                    f"{Path(bare[0]).stem}_mask.png beside it, or take the image away."
                )
            few = len(images) < 2 * HELD_OUT
            kept = [p for k, p in enumerate(images) if few or (k % HELD_OUT == 0) == self.held_out]
            if kept and folder.name not in self.settings.exclude:
                found[folder.name] = kept
        return found

    @cached_property
    def cutouts(self) -> list[Path]:
        return sorted((self.root / "cutouts").glob("*/*.webp"))

    @cached_property
    def stacks(self) -> list[Path]:
        return [p for p in sorted((self.root / "clips").glob("*")) if p.name not in self.settings.exclude]

    def draw(self, seed: int) -> Clip:
        """The clip of this seed."""
        import cv2

        cv2.setNumThreads(0)
        rng = np.random.default_rng([seed, 1 if self.held_out else 0])
        for _ in range(20):
            clip = self._try(rng)
            if clip is not None:
                return clip
        raise InputError(f"{self.root}: twenty draws in a row gave no object to follow; are the masks empty?")

    def _try(self, rng: Rng) -> Clip | None:
        s = self.settings
        choice = rng.random()
        makers: list[tuple[float, Callable[[Rng], Clip | None]]] = [
            (s.real if self.stacks else 0.0, self._from_stack),
            (s.cutouts if self.cutouts else 0.0, self._from_cutouts),
            (s.procedural, self._from_shapes),
            (s.volumes, self._from_volume),
        ]
        for share, make in makers:
            if choice < share:
                clip = make(rng)
                break
            choice -= share
        else:
            clip = self._from_still(rng)
        if clip is None or np.count_nonzero(clip.labels == TARGET, axis=(1, 2)).max() < 16:
            return None
        return clip

    # --- stills -------------------------------------------------------------------------------------------------

    def _still(self, rng: Rng, source: str | None = None) -> tuple[UInt8, npt.NDArray[np.int32], str]:
        if source is None:
            names = list(self.stills)
            weights = np.array([STILL_WEIGHTS.get(n, 1.0) for n in names])
            source = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        path = self.stills[source][int(rng.integers(len(self.stills[source])))]
        image, labels = read_still(path)
        if not labels.any():
            _tell_empty(path)
        return image, (labels > 0).astype(np.int32) if source in ONE_OBJECT else labels, source

    def _from_still(self, rng: Rng) -> Clip | None:
        image, labels, source = self._still(rng)
        ids, areas = np.unique(labels[labels > 0], return_counts=True)
        ids, areas = ids[areas >= MINIMUM_AREA], areas[areas >= MINIMUM_AREA]
        if ids.size == 0:
            return None
        chance = np.sqrt(areas)
        target = int(ids[rng.choice(ids.size, p=chance / chance.sum())])
        micro, gentle = source in MICROSCOPY, self._gentle(rng)
        kind = rng.random()
        if kind < (WHOLE_GENTLE if gentle else 0.35 if micro else 0.3):
            layers = self._whole_scene(image, labels, target)
        else:
            background = image
            if not micro and kind < 0.7:
                background = self._still(rng)[0]
            layers = self._taken_apart(rng, image, labels, target, background)
        if not micro and self.settings.distractors and self.cutouts and rng.random() < 0.2:
            layers.append(self._cutout_layer(rng, layers[-1], label=0))
        if rng.random() < (0.06 if micro else 0.35):
            layers.append(_occluder(rng, labels == target, micro))
        return self._play(rng, layers, labels == target, micro, source, gentle)

    def _gentle(self, rng: Rng) -> bool:
        """Whether a good camera films a clip; draws nothing where none does."""
        return self.settings.gentle > 0 and bool(rng.random() < self.settings.gentle)

    @staticmethod
    def _whole_scene(image: UInt8, labels: npt.NDArray[np.int32], target: int) -> list[Layer]:
        """One layer of everything: the camera or the tissue moves, not the object in it."""
        scene = Layer(image, np.ones(labels.shape, np.float32), 0)
        seen = Layer(image, (labels == target).astype(np.float32), TARGET)
        others = [
            Layer(image, (labels == k).astype(np.float32), 2 + n)
            for n, k in enumerate(_nearest(labels, target, MAXIMUM_NEIGHBOURS))
        ]
        for layer in (seen, *others):
            layer.motion = scene.motion  # the same list: they move as one
            layer.bend = scene.bend
        return [scene, *others, seen]

    def _taken_apart(
        self, rng: Rng, image: UInt8, labels: npt.NDArray[np.int32], target: int, background: UInt8
    ) -> list[Layer]:
        """Target and neighbours cut out, each to move by itself over a background with the holes filled."""
        near = _nearest(labels, target, MAXIMUM_NEIGHBOURS) if self.settings.distractors else []
        taken = np.isin(labels, [target, *near])
        if background is image:
            background = fill_holes(image, taken)
        layers = [Layer(background, np.ones(background.shape[:2], np.float32), 0)]
        cut = [Layer(image, soft_edge(labels == k), 2 + n) for n, k in enumerate(near)]
        own = Layer(image, soft_edge(labels == target), TARGET)
        if self.settings.distractors and not cut and rng.random() < DOUBLE:
            cut.append(_double(rng, own))
        cut.insert(int(rng.integers(len(cut) + 1)), own)
        return layers + cut

    # --- cut-outs and shapes --------------------------------------------------------------------------------------

    def _cutout(self, rng: Rng) -> tuple[UInt8, Float]:
        path = self.cutouts[int(rng.integers(len(self.cutouts)))]
        rgba = read_rgba(path)
        return rgba[..., :3], (rgba[..., 3] / np.float32(255)).astype(np.float32)

    def _cutout_layer(self, rng: Rng, beside: Layer, label: int) -> Layer:
        """A cut-out pasted into the source coordinates of another layer, at a random place and size."""
        import cv2

        rgb, alpha = self._cutout(rng)
        h, w = beside.alpha.shape
        size = float(rng.uniform(0.1, 0.5)) * min(h, w)
        scale = size / max(alpha.shape)
        at = rng.uniform(0, 1, 2) * (h - size, w - size)
        matrix = np.array([[scale, 0, at[1]], [0, scale, at[0]]])
        image = cv2.warpAffine(rgb, matrix, (w, h), flags=cv2.INTER_AREA)
        mask = cv2.warpAffine(alpha, matrix, (w, h), flags=cv2.INTER_LINEAR)
        return Layer(np.asarray(image, np.uint8), np.asarray(mask, np.float32), label)

    def _from_cutouts(self, rng: Rng) -> Clip | None:
        background = self._still(rng)[0]
        layers = [Layer(background, np.ones(background.shape[:2], np.float32), 0)]
        for label in (TARGET, *range(2, 2 + int(rng.integers(0, 3)))):
            layers.append(self._cutout_layer(rng, layers[0], label))
        order = [0, *(1 + rng.permutation(len(layers) - 1))]
        return self._play(rng, [layers[k] for k in order], layers[1].alpha > 0.5, False, "cutouts")

    def _from_shapes(self, rng: Rng) -> Clip | None:
        side = 320
        grey = rng.random() < 0.6
        background = texture(rng, side, grey)
        layers = [Layer(background, np.ones((side, side), np.float32), 0)]
        skin = texture(rng, side, grey)
        radius = float(np.exp(rng.uniform(np.log(10), np.log(70))))
        centre = rng.uniform(0.3, 0.7, 2) * side
        for label in range(1, 2 + int(rng.integers(0, 5))):
            own = skin if rng.random() < 0.7 else texture(rng, side, grey)
            off = np.zeros(2) if label == 1 else rng.normal(0, 2.2 * radius, 2)
            mask = blob(rng, side, centre + off, radius * rng.uniform(0.7, 1.3))
            layers.append(Layer(own, soft_edge(mask), label))
        order = [0, *(1 + rng.permutation(len(layers) - 1))]
        return self._play(rng, [layers[k] for k in order], layers[1].alpha > 0.5, grey, "shapes")

    # --- motion -----------------------------------------------------------------------------------------------------

    def _play(
        self,
        rng: Rng,
        layers: Sequence[Layer],
        target: npt.NDArray[np.bool_],
        micro: bool,
        source: str,
        gentle: bool = False,
    ) -> Clip | None:
        """Set the layers in motion, draw the frames, and make the camera's faults."""
        rows, columns = np.nonzero(target)
        if rows.size < MINIMUM_AREA:
            return None
        s = self.settings
        extent = max(float(np.ptp(rows)), float(np.ptp(columns))) + 1
        view = _view(rng, s.side, extent, float(rows.mean()), float(columns.mean()), target.shape)
        size = extent * view[2, 2]  # the object's extent in pixels of the canvas
        view = view.copy()
        view[2, 2] = 1
        pace = float(np.exp(rng.uniform(np.log(SLOWEST), np.log(FASTEST))))
        middle = (s.side / 2, s.side / 2)
        camera = _trajectory(
            rng, s.frames, pace * 0.35 * s.side * 0.2, 0.06 * pace, 0.05 * pace, middle, 0.03 * pace / s.side
        )
        middle_of_target = (float(columns.mean()), float(rows.mean()))
        for k, layer in enumerate(layers):
            if layer.motion:
                continue
            own = [np.eye(3)] * s.frames
            if k and layer.alpha[::4, ::4].any():
                centre = _centre(np.linalg.inv(view).astype(np.float64), layer, middle_of_target)
                step = pace * (0.12 if micro else 0.2) * size
                tilt = (0.02 if micro else 0.08) * pace / max(size, 16)
                own = _trajectory(rng, s.frames, step, 0.15 * pace, 0.06 * pace, centre, tilt)
                ending = ENDING_MICRO if micro else ENDING
                if rng.random() < (ending if layer.label == TARGET else ending / 2):
                    own, layer.there = _ending(rng, own, centre, micro)
            layer.motion.extend(view @ np.linalg.inv(c @ o) for c, o in zip(camera, own, strict=True))
            layer.bend.extend(_bends(rng, s.frames, (0.02 if k == 0 else 0.05) * size * pace))
        if micro and rng.random() < REPLACED:
            _replace(rng, layers)
        frames, labels = _draw(layers, s.side, s.frames)
        frames = film(rng, frames, micro, gentle)
        return Clip(frames, labels, np.ones(s.frames, bool), source)

    # --- volumes ----------------------------------------------------------------------------------------------------

    def _from_volume(self, rng: Rng) -> Clip | None:
        frames, ids, kind = draw_slices(rng, self.settings.side, self.settings.frames)
        areas = np.stack([np.bincount(slice_.ravel(), minlength=ids.max() + 1) for slice_ in ids])
        areas[:, 0] = 0
        candidates = np.flatnonzero(areas.max(0) >= MINIMUM_AREA)
        if candidates.size == 0:
            return None
        ending = candidates[(areas[:, candidates] == 0).any(0)]
        target = int(rng.choice(ending if ending.size and rng.random() < ENDING_SLICES else candidates))
        labels = _about(ids, target)
        frames = film(rng, frames, True)
        if frames.std() < BLANK:
            return None
        return Clip(frames, labels, np.ones(len(frames), bool), f"volume of {kind}")

    # --- real stacks --------------------------------------------------------------------------------------------------

    def _from_stack(self, rng: Rng) -> Clip | None:
        import cv2

        s = self.settings
        stack = self.stacks[int(rng.integers(len(self.stacks)))]
        images, masks = self._part_of(*read_stack(str(stack)))
        step = int(rng.choice([1, 2, 3, 5], p=[0.4, 0.3, 0.2, 0.1])) * int(rng.choice([-1, 1]))
        reach = abs(step) * (s.frames - 1)
        if len(images) <= reach:
            return None
        first = int(rng.integers(0, len(images) - reach)) + (reach if step < 0 else 0)
        picked = [first + k * step for k in range(s.frames)]
        ids, areas = np.unique(masks[picked[0]], return_counts=True)
        ids = ids[(ids > 0) & (areas >= MINIMUM_AREA)]
        if ids.size == 0:
            return None
        ending = ids[~np.isin(ids, masks[picked[-1]])]
        target = int(rng.choice(ending if ending.size and rng.random() < 0.3 else ids))
        rows, columns = np.nonzero(masks[picked[0]] == target)
        extent = max(float(np.ptp(rows)), float(np.ptp(columns))) + 1
        view = _view(rng, s.side, extent, float(rows.mean()), float(columns.mean()), masks[0].shape)
        view = view.copy()
        view[2, 2] = 1
        frames, labels = [], []
        for k in picked:
            image = images[k] if images[k].ndim == 3 else np.repeat(images[k][..., None], 3, 2)
            linear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
            size = (s.side, s.side)
            frames.append(cv2.warpAffine(image, view[:2], size, flags=linear, borderMode=cv2.BORDER_REFLECT_101))
            labels.append(
                cv2.warpAffine(_about(masks[k], target), view[:2], size, flags=nearest, borderMode=cv2.BORDER_CONSTANT)
            )
        whole = stack.name.startswith(WHOLE_STACKS)
        known = np.array([whole or (masks[k] == target).any() for k in picked])
        return Clip(film(rng, np.stack(frames), True, gentle=True), np.stack(labels), known, "real")

    def _part_of(
        self, images: list[UInt8], masks: list[npt.NDArray[np.int32]]
    ) -> tuple[list[UInt8], list[npt.NDArray[np.int32]]]:
        """The frames of a stack that are for training, or those kept for validation; all of a short one."""
        kept = max(len(images) // 6, HELD_OUT_FRAMES)
        if len(images) < 4 * kept:
            return images, masks
        part = slice(-kept, None) if self.held_out else slice(-kept)
        return images[part], masks[part]


def _about(ids: npt.NDArray[np.int32], target: int) -> UInt8:
    """Labels of a clip from instances of any shape: `TARGET`, other objects from 2 on, background 0."""
    return np.where(ids == target, TARGET, np.where(ids > 0, 2 + ids % 200, 0)).astype(np.uint8)


@lru_cache(maxsize=100_000)
def _tell_empty(path: Path) -> None:
    """Say once a process that an image has nothing to follow."""
    log.warning("%s: its mask is empty (no pixel above 0), so it is passed over.", path)


def read_still(path: Path) -> tuple[UInt8, npt.NDArray[np.int32]]:
    """An image (H, W, 3) uint8 and its instance labels (H, W) int32.

    Raises
    ------
    InputError
        A file that can't be read, or a mask of another size.
    """
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    mask = cv2.imread(str(path.with_name(f"{path.stem}_mask.png")), cv2.IMREAD_UNCHANGED)
    if image is None or mask is None:
        raise InputError(f"{path}: the image or its mask can't be read; is the file damaged?")
    if mask.ndim == 3:
        mask = mask[..., 0]
    if mask.shape != image.shape[:2]:
        raise InputError(f"{path}: the image is {image.shape[:2]} but its mask {mask.shape}; they must agree.")
    return np.ascontiguousarray(image[..., ::-1]), mask.astype(np.int32)


@lru_cache(maxsize=512)
def read_rgba(path: Path) -> UInt8:
    """A cut-out (h, w, 4) uint8, RGB and alpha."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4:
        raise InputError(f"{path}: not an image with an alpha channel.")
    return np.ascontiguousarray(image[..., [2, 1, 0, 3]])


@lru_cache(maxsize=16)
def read_stack(folder: str) -> tuple[list[UInt8], list[npt.NDArray[np.int32]]]:
    """Frames (grey where they are) and masks of a real clip, all in memory: some tens of MB each."""
    import cv2

    images, masks = [], []
    for path in sorted(Path(folder, "frames").glob("*.jpg")):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        mask = cv2.imread(str(Path(folder, "masks", f"{path.stem}.png")), cv2.IMREAD_UNCHANGED)
        if image is None or mask is None or mask.shape[:2] != image.shape[:2]:
            raise InputError(f"{path}: the frame or its mask is missing, damaged or of another size.")
        grey = bool((image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all())
        images.append(image[..., 0].copy() if grey else np.ascontiguousarray(image[..., ::-1]))
        masks.append((mask if mask.ndim == 2 else mask[..., 0]).astype(np.int32))
    return images, masks


def _nearest(labels: npt.NDArray[np.int32], target: int, most: int) -> list[int]:
    """Ids of the instances nearest to the target, by their centres."""
    small = labels[::3, ::3]
    ids = [int(k) for k in np.unique(small) if k not in (0, target)]
    at = np.argwhere(small == target)
    if not len(at) or not ids:
        return []
    centre = at.mean(0)
    rows, columns = np.indices(small.shape)
    flat = small.ravel()
    count = np.maximum(np.bincount(flat), 1)
    cy, cx = np.bincount(flat, rows.ravel()) / count, np.bincount(flat, columns.ravel()) / count
    return sorted(ids, key=lambda k: float(np.hypot(cy[k] - centre[0], cx[k] - centre[1])))[:most]


def soft_edge(mask: npt.NDArray[np.bool_]) -> Float:
    """A mask with an edge of about a pixel, so that a pasted object has no saw teeth."""
    import cv2

    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0.7), np.float32)


def fill_holes(image: UInt8, holes: npt.NDArray[np.bool_]) -> UInt8:
    """Fill regions from what surrounds them (normalised blur at growing scales), with the image's own grain."""
    import cv2

    hole = cv2.dilate(holes.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    keep = (~hole).astype(np.float32)
    value = image.astype(np.float32) * keep[..., None]
    out, left = image.astype(np.float32), hole.copy()
    for side in (15, 41, 101, 301):
        if not left.any():
            break
        weight = cv2.blur(keep, (side, side))
        mean = cv2.blur(value, (side, side)) / np.maximum(weight, 1e-6)[..., None]
        now = left & (weight > 0.05)
        out[now] = mean[now]
        left &= ~now
    grain = (out - cv2.blur(out, (5, 5))) * keep[..., None]
    out[hole] += np.roll(grain, (hole.shape[0] // 3, hole.shape[1] // 3), (0, 1))[hole] * 0.7
    return np.clip(out, 0, 255).astype(np.uint8)


def texture(rng: Rng, side: int, grey: bool) -> UInt8:
    """Smooth noise at several scales around a random colour, (side, side, 3) uint8."""
    import cv2

    base = rng.uniform(10, 245, 3) if not grey else np.repeat(rng.uniform(5, 250), 3)
    out = np.zeros((side, side, 3), np.float32) + base.astype(np.float32)
    for cells in (4, 12, 40, 120):
        channels = 1 if grey else 3
        noise = rng.normal(0, 1, (cells, cells, channels)).astype(np.float32)
        big = cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC).reshape(side, side, channels)
        out += big * float(rng.gamma(1.5, 8))
    return np.clip(out, 0, 255).astype(np.uint8)


def blob(rng: Rng, side: int, centre: npt.NDArray[np.float64], radius: float) -> npt.NDArray[np.bool_]:
    """A random smooth closed shape: a circle with a few waves on it, stretched and turned."""
    import cv2

    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    r = np.ones_like(angle)
    for k in range(2, 7):
        r += rng.normal(0, 0.35 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    r = np.clip(r, 0.25, 2)
    stretch, turn = float(np.exp(rng.normal(0, 0.35))), float(rng.uniform(0, np.pi))
    xy = np.stack([r * np.cos(angle) * stretch, r * np.sin(angle) / stretch], 1) * radius
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = xy @ rotation.T + centre[::-1]
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)
    return mask > 0


def _view(
    rng: Rng, side: int, extent: float, row: float, column: float, shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Canvas to source pixels: the object at a random place and size; element [2, 2] holds canvas px a source px."""
    wanted = float(np.exp(rng.uniform(np.log(10), np.log(0.95 * side))))
    scale = float(np.clip(wanted / extent, 0.3, 3.0))  # canvas pixels a source pixel
    scale = max(scale, 0.8 * side / max(shape[:2]))  # do not show much more than there is
    scale = min(scale, 0.95 * side / extent)
    room = max(side / 2 - extent * scale / 2, 0)
    at = side / 2 + rng.uniform(-1, 1, 2) * (0.9 * room)
    turn = float(rng.choice([0, rng.normal(0, 0.2), rng.uniform(0, 2 * np.pi)], p=[0.4, 0.4, 0.2]))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
    linear = np.array([[cos * flip, -sin], [sin * flip, cos]])
    offset = np.array([column, row]) - linear @ at
    view = np.eye(3)
    view[:2, :2], view[:2, 2] = linear, offset
    view[2, 2] = scale
    return view


def _trajectory(
    rng: Rng, frames: int, step: float, turn: float, zoom: float, centre: tuple[float, float], tilt: float = 0.0
) -> list[npt.NDArray[np.float64]]:
    """Smooth motion about a centre: T matrices (3, 3) that move points of the canvas, identity on a random frame.

    `tilt`, in 1 / px a frame, turns it out of the plane: a perspective change.
    """
    lean = rng.normal(0, tilt, 2)
    pivot = int(rng.integers(frames))
    velocity = rng.normal(0, step, 2)
    spin, growth, shear = rng.normal(0, turn), rng.normal(0, zoom), rng.normal(0, zoom, 2)
    out = []
    for t in range(frames):
        k = t - pivot
        wobble = 0.25 * (k != 0)
        angle = spin * k + wobble * rng.normal(0, turn)
        size = np.exp(growth * k + wobble * rng.normal(0, zoom))
        linear = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = linear @ np.array([[1, shear[0] * k], [0, np.exp(shear[1] * k)]])
        matrix = np.eye(3)
        matrix[:2, :2] = linear
        matrix[:2, 2] = np.array(centre) - linear @ np.array(centre) + velocity * k + wobble * rng.normal(0, step, 2)
        out.append(matrix @ _leaning(lean * k, centre))
    return out


def _leaning(lean: npt.NDArray[np.float64], centre: tuple[float, float]) -> npt.NDArray[np.float64]:
    """A perspective change (3, 3) that leaves the centre where it is; `lean` in 1 / px along x and y."""
    there, back = np.eye(3), np.eye(3)
    there[:2, 2], back[:2, 2] = centre, (-centre[0], -centre[1])
    out = np.eye(3)
    out[2, :2] = lean
    return np.asarray(there @ out @ back)


def _ending(
    rng: Rng, motion: list[npt.NDArray[np.float64]], centre: tuple[float, float], micro: bool
) -> tuple[list[npt.NDArray[np.float64]], list[float]]:
    """Let something end on a frame of the clip (or begin): shrinking on the frame before, or all at once.

    In front of a microscope it may leave a dim trace, as what lies above or below the plane in focus does.
    """
    frames = len(motion)
    last = int(rng.integers(0, frames - 1))  # the last frame on which it is
    there = [float(t <= last) for t in range(frames)]
    if micro and rng.random() < FADING:
        trace = float(rng.uniform(0.1, 0.45))
        there = [float(rng.uniform(0.6, 1.0)) if t == last else p or trace ** (t - last) for t, p in enumerate(there)]
    motion = list(motion)
    if rng.random() < 0.6:
        scale = float(rng.uniform(0.45, 0.85))
        shrink = np.diag([scale, scale, 1.0])
        shrink[:2, 2] = (1 - scale) * np.array(centre)
        motion[last] = motion[last] @ shrink
    if rng.random() < 0.5:
        return motion[::-1], there[::-1]
    return motion, there


def _centre(to_canvas: npt.NDArray[np.float64], layer: Layer, otherwise: tuple[float, float]) -> tuple[float, float]:
    """Where (x, y) the middle of what is opaque in a layer lies on the canvas."""
    solid = np.argwhere(layer.alpha[::4, ::4] > 0.5) * 4
    x, y = (solid[:, 1].mean(), solid[:, 0].mean()) if len(solid) else otherwise
    at = to_canvas @ (x, y, 1.0)
    return float(at[0]), float(at[1])


def _replace(rng: Rng, layers: Sequence[Layer]) -> None:
    """Where the target ends, let another object be in its place from then on (or until then, where it begins)."""
    target = next(layer for layer in layers if layer.label == TARGET)
    others = [layer for layer in layers if layer.label > TARGET and layer.motion is not layers[0].motion]
    if not target.there or not others:
        return
    heir = others[int(rng.integers(len(others)))]
    solid, own = (np.argwhere(layer.alpha > 0.5) for layer in (target, heir))
    if not len(solid) or not len(own):
        return
    extent = np.ptp(solid, axis=0) + 1
    aside = own.mean(0) - solid.mean(0) + rng.normal(0, 0.25, 2) * extent
    shift = np.eye(3)
    shift[:2, 2] = aside[::-1]  # in pixels of the image, which all its objects share
    heir.motion[:] = [shift @ m for m in target.motion]
    heir.there = [float(p < PRESENT) for p in target.there]


def _double(rng: Rng, own: Layer) -> Layer:
    """A mirrored copy of the target beside it, label 2: the strictest look-alike."""
    import cv2

    h, w = own.alpha.shape
    rows, columns = np.nonzero(own.alpha > 0.5)
    if rows.size == 0:
        return Layer(own.image, own.alpha, 2)
    extent = float(np.ptp(columns)) + 1
    aside = float(rng.choice([-1, 1]) * rng.uniform(0.8, 1.4)) * extent
    matrix = np.array([[-1, 0, 2 * float(columns.mean()) + aside], [0, 1, float(rng.normal(0, 0.15)) * extent]])
    image = cv2.warpAffine(own.image, matrix, (w, h), flags=cv2.INTER_LINEAR)
    alpha = cv2.warpAffine(own.alpha, matrix, (w, h), flags=cv2.INTER_LINEAR)
    return Layer(np.asarray(image, np.uint8), np.asarray(alpha, np.float32), 2)


def _occluder(rng: Rng, target: npt.NDArray[np.bool_], micro: bool) -> Layer:
    """Something in front of the target that is no object: a post, or a blob as dust and leaves are. Label 0."""
    if not micro and rng.random() < 0.75:
        return _post(rng, target)
    rows, columns = np.nonzero(target)
    extent = max(float(np.ptp(rows)), float(np.ptp(columns))) + 1
    at = int(rng.integers(rows.size))
    side = max(target.shape)
    mask = blob(rng, side, np.array([rows[at], columns[at]], float), extent * float(rng.uniform(0.08, 0.3)))
    skin = texture(rng, side, micro)
    h, w = target.shape
    return Layer(skin[:h, :w], soft_edge(mask[:h, :w]), 0)


def _post(rng: Rng, target: npt.NDArray[np.bool_]) -> Layer:
    """A long narrow thing in front of the target, as a post, a pole or a stem: label 0."""
    import cv2

    rows, columns = np.nonzero(target)
    extent = max(float(np.ptp(rows)), float(np.ptp(columns))) + 1
    at = int(rng.integers(rows.size))
    angle = float(rng.normal(np.pi / 2, 0.3) if rng.random() < 0.7 else rng.uniform(0, np.pi))
    along = np.array([np.cos(angle), np.sin(angle)]) * 2 * max(target.shape)
    middle = np.array([columns[at], rows[at]], float)
    mask = np.zeros(target.shape, np.uint8)
    ends = [tuple(np.rint(middle + sign * along).astype(int).tolist()) for sign in (-1, 1)]
    cv2.line(mask, ends[0], ends[1], 1, max(1, int(extent * rng.uniform(0.04, 0.35))))
    skin = texture(rng, max(target.shape), False)[: target.shape[0], : target.shape[1]]
    return Layer(skin, soft_edge(mask > 0), 0)


def _bends(rng: Rng, frames: int, amount: float) -> list[Float]:
    """Elastic change: displacement grids (4, 4, 2) that grow linearly from frame to frame."""
    if rng.random() < 0.35:
        return [np.zeros((4, 4, 2), np.float32)] * frames
    slope = rng.normal(0, amount, (4, 4, 2)).astype(np.float32)
    pivot = int(rng.integers(frames))
    return [slope * (t - pivot) for t in range(frames)]


def _draw(layers: Sequence[Layer], side: int, frames: int) -> tuple[UInt8, UInt8]:
    """Warp and stack all layers: frames (T, S, S, 3) and labels (T, S, S) uint8."""
    import cv2

    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="xy"), -1).astype(np.float32)
    images, labels = [], []
    for t in range(frames):
        canvas = np.zeros((side, side, 3), np.float32)
        ids = np.zeros((side, side), np.uint8)
        shared: list[Any] = []
        for k, layer in enumerate(layers):
            shown = layer.there[t] if layer.there else 1.0
            if not shown:
                continue
            if not (k and layer.motion is layers[0].motion):
                where = grid
                if layer.bend[t].any():
                    where = grid + cv2.resize(layer.bend[t], (side, side), interpolation=cv2.INTER_CUBIC)
                shared = [_mapped(where, layer.motion[t])]
            border = cv2.BORDER_REFLECT_101 if k == 0 else cv2.BORDER_CONSTANT
            alpha = cv2.remap(layer.alpha, shared[0], None, cv2.INTER_LINEAR, borderMode=border)
            covers, alpha = alpha > 0.5, alpha * np.float32(shown)
            if not (k and layer.motion is layers[0].motion):
                image = cv2.remap(layer.image, shared[0], None, cv2.INTER_LINEAR, borderMode=border).astype(np.float32)
                canvas = image if k == 0 else canvas + (image - canvas) * alpha[..., None]
            if k and shown >= PRESENT:
                ids[covers] = layer.label
        images.append(canvas)
        labels.append(ids)
    return np.clip(np.stack(images), 0, 255).astype(np.uint8), np.stack(labels)


def _mapped(points: Float, matrix: npt.NDArray[np.float64]) -> Float:
    """Points (H, W, 2) of the canvas, x before y, in pixels of a layer's source."""
    m = matrix.astype(np.float32)
    out = points @ m[:2, :2].T + m[:2, 2]
    if m[2, :2].any():
        out /= np.maximum(points @ m[2, :2] + m[2, 2], 0.2)[..., None]
    return np.ascontiguousarray(out)


def film(rng: Rng, frames: UInt8, micro: bool, gentle: bool = False) -> UInt8:
    """What optics, camera and file do to a clip: colour, contrast, drift, bleaching, haze, blur, noise, compression.

    Parameters
    ----------
    rng : numpy Generator
        Source of chance.
    frames : (T, H, W, 3) uint8 array
        RGB.
    micro : bool
        As a microscope makes it: grey, photon noise, background, bleaching, one contrast for the clip.
    gentle : bool
        Less of it, for frames that have been through a camera already; colours stay as they are.
    """
    import cv2

    x = (frames / np.float32(255)).astype(np.float32)
    x = _light(rng, x if gentle and not micro else _toned(rng, x, micro), micro, gentle)
    blur = float(rng.gamma(1.2, 0.5 if gentle else 0.8)) if rng.random() < 0.5 else 0.0
    streak = None if micro or gentle or rng.random() > 0.12 else _streak(rng, x.shape[1])
    noise = float(rng.gamma(1.5, 0.012 if gentle else 0.02)) if rng.random() < 0.6 else 0.0
    gain = float(rng.uniform(20, 400)) if micro and rng.random() < (0.2 if gentle else 0.5) else 0.0
    dark = float(rng.uniform(0, 0.4)) if rng.random() < 0.5 else 0.0  # background light, whose photons are noise too
    quality = int(rng.integers(25, 90)) if rng.random() < 0.4 else 0
    out = []
    for clean in x:
        focus = blur * float(np.exp(rng.normal(0, 0.2)))
        image = cv2.GaussianBlur(clean, (0, 0), focus) if focus > 0.3 else clean
        if streak is not None:
            image = cv2.filter2D(image, -1, streak, borderType=cv2.BORDER_REFLECT_101)
        if gain:
            photons = (np.clip(image[..., :1], 0, 4) + dark) * gain
            image = np.repeat(rng.poisson(photons).astype(np.float32) / gain - dark, 3, -1)
        if noise:
            n = rng.standard_normal((*image.shape[:2], 1 if micro else 3), np.float32)
            image = image + noise * n
        byte = np.clip(image * 255, 0, 255).astype(np.uint8)
        if quality:
            byte = cv2.imdecode(cv2.imencode(".jpg", byte, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
        out.append(byte)
    made = np.stack(out)
    return _stretch(made) if micro else made


def _toned(rng: Rng, frames: Float, micro: bool) -> Float:
    """Grey or other colours, inverted, of low contrast, brighter or darker: (T, H, W, 3) in 0..1 to the same."""
    x: npt.NDArray[np.floating] = frames
    if micro or rng.random() < 0.2:
        x = np.repeat((x @ rng.dirichlet([2, 2, 2]).astype(np.float32))[..., None], 3, -1)
        if rng.random() < 0.3:
            x = 1 - x
    elif rng.random() < 0.3:
        x = x[..., rng.permutation(3)]
    if rng.random() < 0.6:
        low, high = (
            np.sort(rng.uniform(0, 1, 2)) if rng.random() < 0.15 else (rng.uniform(0, 0.15), rng.uniform(0.7, 1))
        )
        x = low + x * max(high - low, 0.15)
        x = np.clip(x, 0, 1) ** float(np.exp(rng.normal(0, 0.3)))
    return np.asarray(x, np.float32)


def _light(rng: Rng, x: npt.NDArray[np.floating], micro: bool, gentle: bool) -> Float:
    """Brightness that drifts; for microscopes bleaching, uneven light and haze from out of focus."""
    import cv2

    frames, side = len(x), x.shape[1]
    drift = np.exp(rng.normal(0, 0.06) * np.arange(frames) + rng.normal(0, 0.03, frames))
    if micro and rng.random() < 0.3:
        drift *= np.exp(-rng.uniform(0.05, 0.3) * np.arange(frames))
    x = x * drift[:, None, None, None].astype(np.float32)
    if micro and not gentle and rng.random() < 0.3:
        lamp = cv2.resize(np.exp(rng.normal(0, 0.25, (3, 3))).astype(np.float32), (x.shape[2], side))
        x = x * lamp[None, :, :, None]
    if micro and not gentle and rng.random() < 0.25:
        share = float(rng.uniform(0.2, 0.7))
        wide = (side // 5, side // 5)
        x = x + share * np.stack([cv2.blur(cv2.blur(image[..., 0], wide), wide) for image in x])[..., None]
    return np.asarray(x, np.float32)


def _streak(rng: Rng, side: int) -> Float:
    """Kernel (n, n) of a motion blur: a line of a few pixels in any direction."""
    import cv2

    reach = int(rng.integers(1, max(side // 40, 2) + 1))
    angle = float(rng.uniform(0, np.pi))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    ends = [
        (round(reach + sign * reach * float(np.cos(angle))), round(reach + sign * reach * float(np.sin(angle))))
        for sign in (-1, 1)
    ]
    cv2.line(kernel, ends[0], ends[1], 1)
    return np.asarray(kernel / kernel.sum(), np.float32)


def _stretch(frames: UInt8) -> UInt8:
    """One contrast for the clip, as in use: from its 0.5th to its 99.8th percentile."""
    low, high = np.percentile(frames[:, ::4, ::4], [0.5, 99.8])
    scaled = (frames.astype(np.float32) - low) * (255 / max(high - low, 16.0))
    return np.asarray(np.clip(scaled, 0, 255), np.uint8)
