"""The seam between the session and the neural networks: one small protocol, and a fake in numpy that obeys it.

A predictor forgets: each call takes everything it needs and returns everything it learned. One request is one object on
one frame, already cut to its region; all requests of a call go through the network as one batch, and the result of a
request does not depend on the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from napari_ivos.regions import MASK_LEVEL, Box

if TYPE_CHECKING:
    from collections.abc import Sequence

Float = npt.NDArray[np.float32]
Reference = npt.NDArray[np.float16]
"""What an interaction network learned of an object on one annotated frame; its shape is the predictor's own affair."""


@dataclass(frozen=True, eq=False)
class Interaction:
    """Scribbles of one object on one frame.

    Parameters
    ----------
    image : (h, w, 3) float32 array
        The region's pixels, 0..1, at the frame's own resolution.
    previous : (S, S) float32 array or None
        The object's mask on this frame so far, 0..1, over the region; None: not known yet.
    positive, negative : (S, S) float32 array
        Strokes of the object, and of the background and all other objects: 1 on a stroke, else 0.
    appearance : bool
        Whether the reference is to say what the object looks like, for a `Propagation` with `appearance`. Of a request
        without any strokes, `previous` is the mask that this is learned from.
    """

    image: Float
    previous: Float | None
    positive: Float
    negative: Float
    appearance: bool = False


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What an interaction gives: `probability` (S, S) float32 over the region, and the object's `reference`."""

    probability: Float
    reference: Reference


@dataclass(frozen=True, eq=False)
class Propagation:
    """One object's way from a neighbouring frame to this one.

    Parameters
    ----------
    image : (h, w, 3) float32 array
        The region's pixels on this frame, 0..1, at the frame's own resolution or at (S, S).
    neighbour : (S, S) float32 array
        The object's merged mask on the neighbouring frame, over the same region; all 0 where it was lost there.
    previous : (S, S) float32 array or None
        The object's mask on this frame after the previous round; None: not known yet.
    references : sequence of Reference
        What was learned on its annotated frames so far, in the order of rounds and frames; at least one.
    change : (S, S) float32 array or None
        Of a predictor that `follows_motion`: how much the picture differs from the neighbouring frame's, moved along
        with it as `neighbour` then is, 0..1 (`napari_ivos.motion`); None: not known.
    appearance : bool
        Whether the object is told from its surroundings by what it looks like, too, where the references say that.
    """

    image: Float
    neighbour: Float
    previous: Float | None
    references: Sequence[Reference]
    change: Float | None = None
    appearance: bool = False


@runtime_checkable
class Predictor(Protocol):
    """Two networks behind two methods.

    Attributes
    ----------
    name : str
        What people call the model.
    checksum : str
        Identifies the weights: a project notes it beside everything that they made.
    size : int
        Side S of the networks' input, in pixels; the largest, of a predictor that is `Scaling`.
    device : str
        Where it computes, such as "cpu" or "cuda:0".
    """

    @property
    def name(self) -> str: ...
    @property
    def checksum(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def device(self) -> str: ...

    def segment(self, requests: Sequence[Interaction]) -> list[Segmentation]:
        """Scribbles to masks, one result a request, in order."""
        ...

    def propagate(self, requests: Sequence[Propagation]) -> list[Float]:
        """Neighbours' masks to this frame's: (S, S) float32 in 0..1, one a request, in order."""
        ...


@runtime_checkable
class Following(Protocol):
    """A predictor that says whether neighbours' masks are to be moved along with the picture before it gets them."""

    @property
    def follows_motion(self) -> bool: ...


@runtime_checkable
class Scaling(Protocol):
    """A predictor that sees regions at a side S of their own, such as small ones at fewer pixels."""

    def side(self, region: Box) -> int:
        """Side S of its input for a region; requests come, and results go, at it."""
        ...


def side_of(predictor: Predictor, region: Box) -> int:
    """Side S at which a predictor sees a region."""
    return predictor.side(region) if isinstance(predictor, Scaling) else predictor.size


@runtime_checkable
class Separable(Protocol):
    """A predictor that says whether a request's result is the same, to the last bit, whatever goes with it in a call.

    Where it is, objects that don't meet may be computed on different machines.
    """

    @property
    def separable(self) -> bool: ...


@runtime_checkable
class Storable(Protocol):
    """A predictor that can travel with a project; see `Session.use_model`."""

    def portable_weights(self) -> bytes | None:
        """The weights as safetensors; None where everybody has them (a shipped model), so that none are kept."""
        ...


def shrink(image: Float, size: int) -> Float:
    """An image (h, w, 3) at (size, size, 3), each pixel the nearest one; for numpy predictors."""
    rows = np.minimum((np.arange(size) + 0.5) * image.shape[0] / size, image.shape[0] - 1).astype(int)
    columns = np.minimum((np.arange(size) + 0.5) * image.shape[1] / size, image.shape[1] - 1).astype(int)
    return np.asarray(image[rows][:, columns], np.float32)


class FakePredictor:
    """A predictor without networks, for tests and documentation: an object is what has its colour.

    Segments what is nearer to the colour under the positive strokes than to the colour under the negative ones and to
    the usual colour of the region's border, and finds on the next frame what is nearer to the reference's object colour
    than to these two. Right for flat synthetic pictures; no use on real ones.

    Parameters
    ----------
    size : int
        Side of the input it works on.

    Attributes
    ----------
    calls : list of (str, int)
        Each call made: its kind and the number of requests; tests count them.
    """

    name = "fake"
    checksum = "fake-1"
    device = "cpu"
    separable = True

    def __init__(self, size: int = 32) -> None:
        self.size = size
        self.calls: list[tuple[str, int]] = []

    def segment(self, requests: Sequence[Interaction]) -> list[Segmentation]:
        self.calls.append(("segment", len(requests)))
        return [self._segment(r) for r in requests]

    def propagate(self, requests: Sequence[Propagation]) -> list[Float]:
        self.calls.append(("propagate", len(requests)))
        return [self._propagate(r) for r in requests]

    def _segment(self, request: Interaction) -> Segmentation:
        image = shrink(request.image, self.size)
        inside = request.positive > 0
        if not inside.any() and request.previous is not None:
            inside = request.previous >= MASK_LEVEL
        if not inside.any():
            return Segmentation(np.zeros(inside.shape, np.float32), np.zeros((3, 3), np.float16))
        edge = np.ones_like(inside)
        edge[1:-1, 1:-1] = False
        own = image[inside].mean(0)
        outside = [image[where] for where in (request.negative > 0, edge & ~inside)]
        colours = np.stack([own, *(np.median(c, axis=0) if len(c) else 1 - own for c in outside)])
        return Segmentation(self._nearer(image, colours), colours.astype(np.float16))

    def _propagate(self, request: Propagation) -> Float:
        image = shrink(request.image, self.size)
        colours = np.mean([np.asarray(r, np.float32) for r in request.references], axis=0)
        return self._nearer(image, colours)

    @staticmethod
    def _nearer(image: Float, colours: npt.NDArray[np.floating]) -> Float:
        near, *others = (np.linalg.norm(image - c, axis=-1) for c in colours)
        far = np.min(others, axis=0)
        return np.asarray(np.clip(far / np.maximum(near + far, 1e-6), 0.02, 0.98), np.float32)
