"""What is measured: this package's session, and peers that need no training, behind one small interface.

A method of your own is a class with these five names; ``--methods package.module:Class`` or ``--methods file.py:Class``
runs it beside the others, under the same rules.

The peers are honest baselines, not straw men. All keep the session's idea of rounds: a round changes the frames up to
those annotated earlier and blends old and new masks with the same weights. Where they save time, the reason stands with
the constant.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.merging import Origin, Patch, blend, compose, passes, sample
from napari_ivos.regions import MASK_LEVEL, Box, mask_box, region_around
from napari_ivos.scribbles import BACKGROUND, Scribbles, Stroke, covered_pixels, strokes_box

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

Frames = npt.NDArray[np.generic]
Labels = npt.NDArray[np.uint16]
Float = npt.NDArray[np.float32]

WALKER_PIXELS = 300_000
"""Frames are walked at this many pixels at most: a direct solve of more takes over two seconds and 500 MB."""
WALKER_BETA = 90.0
"""Contrast of the walker's edges, on colours scaled to the frame's own spread."""
PRIOR = 3e-5
"""Pull of the earlier mask in the walker's equations; an edge across even colour pulls with 1."""
FEW_PIXELS = 3
"""Pixels of a mask that others' strokes may cover before it is segmented again."""
SURROUND = 3.5
"""What lies outside this many times an object's scribbles counts as background, where no stroke says so."""
FLOW_PIXELS = 300_000
"""Optical flow is computed at this many pixels at most and scaled up: it is smooth."""
FOREST_PIXELS = 60_000
"""The forest classifies frames at this many pixels at most: it works on every pixel of every frame in every round."""
FOREST_SCALES = (0.7, 1.6, 3.5, 8.0)
"""Gaussian scales of the forest's features, in pixels of the frame as the forest sees it."""
FOREST_SAMPLES = 4000
"""Pixels of one label on one frame that the forest learns from, at most."""


class Method(Protocol):
    """An interactive segmentation of a whole stack, round by round.

    A benchmark calls `start` once, then `interact` and `propagate` in turn, then `close`. Scribbles name the ids to
    use in the labels; new ids may come in any round, 0 is the background.

    Attributes
    ----------
    name : str
        What tables call it.
    """

    name: str

    def start(self, frames: Frames) -> None:
        """A new stack: (T, H, W) or (T, H, W, 3), as its files hold it. All earlier state is dropped."""
        ...

    def interact(self, scribbles: Scribbles) -> None:
        """New strokes on one frame; a method that has nothing to do before it propagates keeps them for later."""
        ...

    def propagate(self) -> npt.ArrayLike:
        """The round's result: labels (T, H, W) of the whole stack, 0 = background."""
        ...

    def close(self) -> None:
        """No more rounds; files and memory may go."""
        ...


class IvosMethod:
    """A `Session` of this package, in memory.

    Parameters
    ----------
    model : str, path or Predictor, optional
        A name or file for `load_model`, or a predictor; the shipped weights if not given.
    name : str
        What tables call it.
    device : str, optional
        Where a model that is loaded here computes, such as "cpu" or "cuda".
    """

    def __init__(self, model: Any = None, name: str = "ivos", device: str | None = None) -> None:
        self.name = name
        self._model = _load(model, device)
        self._session: Any = None

    def start(self, frames: Frames) -> None:
        from napari_ivos import Session, open_frames

        self.close()
        axes = "TYXC" if frames.ndim == 4 else "TYX"
        self._session = Session(open_frames(frames, axes=axes), self._model)

    def interact(self, scribbles: Scribbles) -> None:
        self._session.interact(scribbles)

    def propagate(self) -> npt.ArrayLike:
        for _ in self._session.propagate():
            pass
        return np.asarray(self._session.labels)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def _load(model: Any, device: str | None) -> Any:
    from napari_ivos import load_model

    if model is None:
        return load_model() if device is None else load_model(device=device)
    if isinstance(model, str) or hasattr(model, "__fspath__"):
        return load_model(model) if device is None else load_model(model, device=device)
    return model


class CopyMask:
    """Random walker on the annotated frames; every other frame gets a copy of the nearest mask that a round carries.

    The floor under every method that looks at the other frames at all.
    """

    name = "copy"

    def __init__(self) -> None:
        self._frames: Frames = np.zeros((0, 0, 0), np.uint8)
        self.close()

    def start(self, frames: Frames) -> None:
        self.close()
        self._frames = frames

    def close(self) -> None:
        self._frames = self._frames[:0]
        self._masks: dict[int, dict[int, Patch]] = {}
        self._annotated: dict[int, set[int]] = {}
        self._open: dict[int, set[int]] = {}
        self._strokes: dict[int, list[Stroke]] = {}

    def interact(self, scribbles: Scribbles) -> None:
        """Walk from all strokes of the frame; a mask that an earlier round left there is the prior."""
        t = scribbles.frame
        if not scribbles.strokes:
            return
        kept = self._strokes.setdefault(t, [])
        kept.extend(scribbles.strokes)
        before = self._masks.get(t, {})
        probabilities = walk(self._frames[t], kept, before)
        # Objects that nobody drew on are no part of this round: their masks and spans stay as they are.
        touched = {k: p for k, p in probabilities.items() if _drawn_on(k, before.get(k), kept, self._frames.shape)}
        self._masks.setdefault(t, {}).update(touched)
        for object_id in touched:
            self._open.setdefault(object_id, set()).add(t)

    def propagate(self) -> Labels:
        """Carry what was annotated since the last call; labels (T, H, W) uint16 of the whole stack."""
        for object_id, now in sorted(self._open.items()):
            self._carry_object(object_id, now)
        for object_id, now in self._open.items():
            self._annotated.setdefault(object_id, set()).update(now)
        self._open = {}
        whole = Box(0, 0, *self._frames.shape[1:3])
        stack = [compose(self._masks.get(t, {}), whole) for t in range(len(self._frames))]
        return np.stack(stack)

    def _carry_object(self, object_id: int, now: set[int]) -> None:
        """One object over the round's spans; where two passes of a round meet, their weights make a mean of them."""
        before = {t: masks[object_id] for t, masks in self._masks.items() if object_id in masks}
        for way in passes(now, self._annotated.get(object_id, set()), range(len(self._frames))):
            patch, at = self._masks[way.start][object_id], way.start
            for t in way.frames:
                patch, at = self._step(patch, at, t), t
                mixed = blend(patch, before.get(t), way.weight(t))
                self._masks.setdefault(t, {})[object_id] = mixed.with_origin(Origin.PROPAGATED)

    def _step(self, patch: Patch, source: int, target: int) -> Patch:
        """The mask of frame `source` on its neighbour `target`: here the same."""
        return patch


class RandomWalkerFlow(CopyMask):
    """Random walker on the annotated frames, carried frame by frame along dense optical flow (DIS).

    Grady 2006 for the walker, Kroeger et al. 2016 for the flow, both as libraries give them.
    """

    name = "walker"

    def close(self) -> None:
        super().close()
        self._flows: dict[tuple[int, int], Float] = {}
        self._grey: dict[int, npt.NDArray[np.uint8]] = {}

    def _step(self, patch: Patch, source: int, target: int) -> Patch:
        extent = patch.extent
        if extent is None:
            return patch
        flow = self._flow(target, source)
        shape = (self._frames.shape[1], self._frames.shape[2])
        # Where the object may have gone: its box, by the largest motion around it, and a few pixels for its soft edge.
        near = flow[_scaled(region_around(extent, 2.0, shape), shape, (flow.shape[0], flow.shape[1])).slices]
        reach = int(np.ceil(np.abs(near).max(initial=0) * shape[1] / flow.shape[1])) + 3
        box = Box(extent.y0 - reach, extent.x0 - reach, extent.y1 + reach, extent.x1 + reach).clip(shape)
        return Patch(box, _warp(patch, box, flow, shape))

    def _flow(self, source: int, target: int) -> Float:
        """Motion (h, w, 2) in (x, y) pixels of the small frame from `source` to `target`; computed once a stack."""
        import cv2

        if (source, target) not in self._flows:
            flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
            found = flow.calc(self._small(source), self._small(target), None)
            self._flows[source, target] = np.asarray(found).astype(np.float16).astype(np.float32)
        return self._flows[source, target]

    def _small(self, t: int) -> npt.NDArray[np.uint8]:
        if t not in self._grey:
            grey = _picture(self._frames[t], FLOW_PIXELS).mean(axis=-1)
            self._grey[t] = np.rint(grey * 255).astype(np.uint8)
        return self._grey[t]


class PixelForest:
    """A random forest on the pixels' filter responses, as in ilastik and Trainable Weka Segmentation.

    It learns from all strokes so far and classifies every pixel of every frame anew in each round. Position is among
    the features: without it, objects that look alike can't be told apart at all.

    Parameters
    ----------
    trees : int
        Size of the forest.
    seed : int
        Of its draws.
    """

    name = "forest"

    def __init__(self, trees: int = 50, seed: int = 0) -> None:
        self._trees, self._seed = trees, seed
        self._frames: Frames = np.zeros((0, 0, 0), np.uint8)
        self.close()

    def start(self, frames: Frames) -> None:
        self.close()
        self._frames = frames

    def close(self) -> None:
        self._frames = self._frames[:0]
        self._features: dict[int, Float] = {}
        self._strokes: dict[int, list[Stroke]] = {}

    def interact(self, scribbles: Scribbles) -> None:
        if scribbles.strokes:
            self._strokes.setdefault(scribbles.frame, []).extend(scribbles.strokes)

    def propagate(self) -> Labels:
        """Labels (T, H, W) uint16 of the whole stack from a forest grown on all strokes so far."""
        from sklearn.ensemble import RandomForestClassifier

        labels = np.zeros(self._frames.shape[:3], np.uint16)
        if not self._strokes:
            return labels
        samples = [self._sample(t) for t in sorted(self._strokes)]
        forest = RandomForestClassifier(
            self._trees, max_depth=20, min_samples_leaf=2, n_jobs=1, random_state=self._seed
        )
        forest.fit(np.concatenate([x for x, _ in samples]), np.concatenate([y for _, y in samples]))
        for t in range(len(labels)):
            features = self._of_frame(t)
            found = forest.predict(features.reshape(-1, features.shape[-1])).reshape(features.shape[:2])
            labels[t] = _nearest(found.astype(np.uint16), labels.shape[1:])
        return labels

    def _sample(self, t: int) -> tuple[Float, npt.NDArray[np.int64]]:
        """Features (N, F) and labels (N,) of the frame's strokes and of what is far from all of them."""
        features = self._of_frame(t)
        shape = (features.shape[0], features.shape[1])
        # Only the first frame's strokes are on all objects: elsewhere, what has no stroke was right, not background.
        first = t == next(iter(self._strokes))
        seeds = seeds_of(self._strokes[t], (self._frames.shape[1], self._frames.shape[2]), shape, surround=first)
        rng = np.random.default_rng((self._seed, t))
        kept = []
        for label in np.unique(seeds[seeds >= 0]):
            at = np.flatnonzero(seeds == label)
            kept.append(rng.permutation(at)[:FOREST_SAMPLES])
        at = np.concatenate(kept)
        return features.reshape(-1, features.shape[-1])[at], seeds.ravel()[at]

    def _of_frame(self, t: int) -> Float:
        """Filter responses (h, w, F) of one frame; kept as float16 for the next round."""
        if t not in self._features:
            self._features[t] = _responses(_picture(self._frames[t], FOREST_PIXELS)).astype(np.float16)
        return self._features[t].astype(np.float32)


def _responses(image: Float) -> Float:
    """Colour, gradient, Laplacian, and Hessian eigenvalues at several scales, and the place: (h, w, C) to (h, w, F)."""
    from scipy.ndimage import gaussian_filter

    grey = image.mean(axis=-1)
    planes = []
    for scale in FOREST_SCALES:
        planes += [gaussian_filter(image[..., c], scale) for c in range(image.shape[-1])]
        first = [gaussian_filter(grey, scale, order) for order in ((0, 1), (1, 0))]
        xx, yy, xy = (scale**2 * gaussian_filter(grey, scale, order) for order in ((0, 2), (2, 0), (1, 1)))
        root = np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
        planes += [scale * np.hypot(*first), (xx + yy) / 2 + root, (xx + yy) / 2 - root]
    place = np.indices(grey.shape) / max(grey.shape)
    return np.stack([*planes, *place], axis=-1).astype(np.float32)


def walk(image: npt.NDArray[np.generic], strokes: list[Stroke], before: dict[int, Patch]) -> dict[int, Patch]:
    """Random walker segmentation of one frame (Grady 2006), with an earlier result as its prior (Grady 2005).

    Parameters
    ----------
    image : (H, W) or (H, W, 3) array
        The frame.
    strokes : list of Stroke
        All strokes on it; with no stroke of the background, what is far from all others counts as background.
    before : dict of int to Patch
        Masks that the frame has so far; empty in the first round.

    Returns
    -------
    dict of int to Patch
        Each object's probability, at the walker's resolution, cut to where it is above 1 / 255.
    """
    shape = (image.shape[0], image.shape[1])
    picture = _picture(image, WALKER_PIXELS)
    small = (picture.shape[0], picture.shape[1])
    seeds = seeds_of(strokes, shape, small, surround=not before)
    ids = sorted(({s.object_id for s in strokes} | set(before)) - {BACKGROUND})
    priors = np.stack([_plane(before.get(k), shape, small) for k in ids]) if before else None
    found = _solve(_laplacian(picture), seeds, ids, priors)
    return {k: _cut(found[i], shape) for i, k in enumerate(ids)}


def seeds_of(
    strokes: list[Stroke], shape: tuple[int, int], small: tuple[int, int], surround: bool = True
) -> npt.NDArray[np.int64]:
    """Labels (h, w) of a small frame under the strokes of a frame (H, W); -1 where nothing is known.

    With `surround`, what lies outside a box of 3.5 times each object's scribbles is background: people start with
    strokes on objects only, and no peer can do without the other side.
    """
    seeds = np.full(small, -1, np.int64)
    scale = np.array(small) / np.array(shape)
    if surround:
        seeds[:] = BACKGROUND
        for object_id in {s.object_id for s in strokes} - {BACKGROUND}:
            box = strokes_box([s for s in strokes if s.object_id == object_id], shape)
            if box is not None:
                seeds[_scaled(region_around(box, SURROUND, shape), shape, small).slices] = -1
    for stroke in sorted(strokes, key=lambda s: s.object_id):
        at = np.floor((covered_pixels([stroke], shape) + 0.5) * scale).astype(np.int64)
        seeds[tuple(at.T)] = stroke.object_id
    return seeds


def _scaled(box: Box, shape: tuple[int, int], small: tuple[int, int]) -> Box:
    """A box of a frame (H, W) in the pixels of a smaller copy (h, w) of it, at least one pixel."""
    fy, fx = small[0] / shape[0], small[1] / shape[1]
    y0, x0 = int(box.y0 * fy), int(box.x0 * fx)
    return Box(y0, x0, max(int(np.ceil(box.y1 * fy)), y0 + 1), max(int(np.ceil(box.x1 * fx)), x0 + 1)).clip(small)


def _laplacian(image: Float) -> Any:
    """Graph Laplacian (N, N) of a picture (h, w, C), 4-connected, edges weighted by likeness of colour."""
    from scipy.sparse import coo_array, diags_array

    index = np.arange(image.shape[0] * image.shape[1]).reshape(image.shape[:2])
    starts = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    ends = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    flat = image.reshape(-1, image.shape[-1])
    difference = ((flat[starts] - flat[ends]) ** 2).sum(axis=1) / max(float(flat.var(axis=0).sum()), 1e-8)
    weights = np.exp(-WALKER_BETA * difference) + 1e-4
    n = index.size
    both = np.concatenate([starts, ends]), np.concatenate([ends, starts])
    adjacency = coo_array((np.concatenate([weights, weights]), both), shape=(n, n)).tocsr()
    return (diags_array(adjacency.sum(axis=1)) - adjacency).tocsr()


def _solve(laplacian: Any, seeds: npt.NDArray[np.int64], ids: list[int], priors: Float | None) -> Float:
    """Probabilities (K, h, w) of a walker to reach each id's seeds first: one factorisation for all objects."""
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import splu

    flat = seeds.ravel()
    free, fixed = np.flatnonzero(flat < 0), np.flatnonzero(flat >= 0)
    result = np.stack([(flat == k) for k in ids]).astype(np.float32)
    if free.size:
        rows = laplacian[free]
        pull = 0.0 if priors is None else PRIOR
        # A hair on the diagonal keeps the system regular where no seed can be reached.
        system = rows[:, free] + diags_array(np.full(free.size, pull + 1e-6))
        factors = splu(system.tocsc(), "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        border = rows[:, fixed]
        for i in range(len(ids)):
            known = -(border @ result[i, fixed].astype(np.float64))
            if priors is not None:
                known += pull * priors[i].ravel()[free]
            result[i, free] = factors.solve(known)
    return np.clip(result, 0, 1).reshape(len(ids), *seeds.shape)


def _plane(patch: Patch | None, shape: tuple[int, int], small: tuple[int, int]) -> Float:
    if patch is None:
        return np.zeros(small, np.float32)
    return sample(patch, Box(0, 0, *shape), small)


def _cut(probability: Float, shape: tuple[int, int]) -> Patch:
    """A plane over a whole frame as a patch in the frame's pixels, cut to where there is something."""
    import cv2

    full = cv2.resize(probability, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    values = np.rint(np.clip(full, 0, 1) * 255).astype(np.uint8)
    box = mask_box(values > 0) or Box(0, 0, 1, 1)
    return Patch(box, values[box.slices], Origin.SCRIBBLED)


def _drawn_on(object_id: int, mask: Patch | None, strokes: list[Stroke], shape: tuple[int, ...]) -> bool:
    """Whether strokes of the object are there, or strokes of others cover more than a few pixels of its mask."""
    if mask is None or any(s.object_id == object_id for s in strokes):
        return True
    pixels = covered_pixels([s for s in strokes if s.object_id != object_id], (shape[1], shape[2]))
    whole = np.zeros((shape[1], shape[2]), bool)
    whole[mask.box.slices] = sample(mask, mask.box, mask.box.shape) >= MASK_LEVEL
    return int(whole[tuple(pixels.T)].sum()) > FEW_PIXELS


def _warp(patch: Patch, box: Box, flow: Float, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A patch seen through the flow (h, w, 2), in small pixels, of a frame (H, W): values over `box`."""
    import cv2

    scale = (flow.shape[0] / shape[0], flow.shape[1] / shape[1])
    rows, columns = np.mgrid[box.y0 : box.y1, box.x0 : box.x1].astype(np.float32)
    x, y = (columns + 0.5) * scale[1] - 0.5, (rows + 0.5) * scale[0] - 0.5
    motion = cv2.remap(flow, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    at_x = columns + motion[..., 0] / scale[1] - patch.box.x0
    at_y = rows + motion[..., 1] / scale[0] - patch.box.y0
    return np.asarray(cv2.remap(patch.probability, at_x, at_y, cv2.INTER_LINEAR, borderValue=0), np.uint8)


def _picture(image: npt.NDArray[np.generic], pixels: int) -> Float:
    """A frame as (h, w, C) float32 in 0..1, its own 0.1 to 99.9 % range, shrunk to at most so many pixels.

    What is no number, as at the borders of registered movies, is as dark as the darkest.
    """
    import cv2

    plain = np.asarray(image, np.float32)
    known = np.isfinite(plain)
    if not known.all():
        plain = np.where(known, plain, plain[known].min() if known.any() else 0)
    shrink = np.sqrt(pixels / (plain.shape[0] * plain.shape[1]))
    if shrink < 1:
        size = (max(int(plain.shape[1] * shrink), 1), max(int(plain.shape[0] * shrink), 1))
        plain = np.asarray(cv2.resize(plain, size, interpolation=cv2.INTER_AREA), np.float32)
    low, high = np.percentile(plain, [0.1, 99.9])
    scaled = np.clip((plain - low) / max(float(high - low), 1e-6), 0, 1)
    return np.asarray(scaled if scaled.ndim == 3 else scaled[..., None], np.float32)


def _nearest(labels: Labels, shape: tuple[int, ...]) -> Labels:
    rows = np.arange(shape[0]) * labels.shape[0] // shape[0]
    columns = np.arange(shape[1]) * labels.shape[1] // shape[1]
    return np.asarray(labels[rows[:, None], columns])


METHODS: dict[str, Callable[[], Method]] = {
    "ivos": IvosMethod,
    "walker": RandomWalkerFlow,
    "copy": CopyMask,
    "forest": PixelForest,
}
"""Methods by the names that the command line takes."""


def make_method(name: str, model: str | None = None, device: str | None = None) -> Method:
    """A method by its name in `METHODS`, or one of your own as "package.module:Class" or "path/to/file.py:Class".

    Parameters
    ----------
    name : str
        A known name, or where to find something that, called without arguments, gives a `Method`.
    model, device : str, optional
        For "ivos": what `load_model` takes.

    Raises
    ------
    InputError
        No such method, or something that is none.
    """
    if name == "ivos":
        return IvosMethod(model, device=device)
    if name in METHODS:
        return METHODS[name]()
    where, _, factory = name.rpartition(":")
    if not where or not factory:
        raise InputError(
            f"Unknown method {name!r}; there are {', '.join(METHODS)}, or give package.module:Class or file.py:Class."
        )
    try:
        made: Method = getattr(_module(where), factory)()
    except (ImportError, AttributeError, OSError, SyntaxError, TypeError) as error:
        raise InputError(
            f"Method {name!r} can't be loaded ({error}); expected package.module:Class or file.py:Class, and a class "
            "that is made without arguments."
        ) from error
    missing = [part for part in ("name", "start", "interact", "propagate", "close") if not hasattr(made, part)]
    if missing:
        raise InputError(f"Method {name!r} lacks {', '.join(missing)}; see napari_ivos.benchmark.Method.")
    return made


def _module(where: str) -> ModuleType:
    """A module by its dotted name or by the path of its file."""
    if not where.endswith(".py"):
        return import_module(where)
    spec = spec_from_file_location(f"ivos_method_{Path(where).stem}", where)
    if spec is None or spec.loader is None:
        raise ImportError(f"{where} is no Python file")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
