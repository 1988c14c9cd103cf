"""How the picture moved between two neighbouring frames, and a mask moved along with it; pure functions.

The motion is dense optical flow by OpenCV's DIS (Kroeger and others 2016, "Fast optical flow using
dense inverse search"), computed inside an object's region at the networks' resolution, so that it costs the same for a
cell and for an elephant. Training and use call the same function.
"""

from __future__ import annotations

import functools
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Float = npt.NDArray[np.float32]

DARKEST, BRIGHTEST = 1.0, 99.0
"""Percentiles of both frames' pixels in the region that become black and white: dim regions have motion, too."""
SAMPLED = 3
"""Contrast is judged by every so-manyth row and column."""
FLATTEST = 1e-3
"""A region whose brightness (0..1) varies by less has no contrast to see motion by: it is not stretched further."""
CHANGE_BLUR = 5
"""Side, in pixels of the networks' resolution, of the neighbourhood over which a change of brightness is averaged."""
DESCENT = 16
"""Steps by which each small patch is matched. Without the refinement that follows in OpenCV's preset, which smooths the
motion over the object's edge, masks moved by one hop fitted better (J 0.792 to 0.785 on videos) in 3 ms instead of 5.
"""
MOST_SAMPLES = 4
"""Samples along each side of a pixel of the networks' resolution, at most."""
MEAN_OF_COLOURS = np.full((1, 3), 1 / 3, np.float32)
"""Weights of red, green and blue in a pixel's brightness."""
PRESENT = 0.5
"""A mask without any probability from here on moves nowhere."""


class Hold(NamedTuple):
    """How a mask is held on to where the picture does not change.

    Attributes
    ----------
    most : float
        The moved mask's share in the answer where nothing changed.
    unsettled : float
        The change of brightness (0..1) at which that has fallen to 1/e of it.
    power : float
        Of the change in the exponential function: 2 falls off as a Gaussian does.
    """

    most: float
    unsettled: float
    power: float


FIRM, LOOSE = Hold(0.9, 0.06, 2.0), Hold(0.7, 0.05, 1.0)
"""For exact masks, and for corrected ones in films in colour; for corrected ones in grey stacks, in which a picture
that looks unchanged says less: there a firm hold cost J 0.02 after eight rounds on sections in EM.
"""
LASTING = 50.0
"""Frames behind which the hold on a mask that was exact has fallen to 1/e, as a Gaussian does: far away it is exact no
more, and the network has to repair it."""


class Moved(NamedTuple):
    """A mask where this frame shows it.

    Attributes
    ----------
    mask : (S, S) float32 array
        The neighbour's mask, 0..1, each pixel taken from where the motion says that it was.
    change : (S, S) float32 array
        How much the picture differs from the neighbour's moved the same way, 0 (not at all) to 1: high where
        something was covered or uncovered, or where the motion was not found.
    """

    mask: Float
    change: Float


def move_along(mask: Float, near: Float, here: Float) -> Moved:
    """Move a mask of a neighbouring frame along with the picture.

    Parameters
    ----------
    mask : (S, S) float32 array
        The object's mask on the neighbouring frame, 0..1, over a region.
    near, here : (h, w, 3) float32 array
        The same region's pixels, 0..1, on the neighbouring frame and on this one.

    Returns
    -------
    Moved
        The mask as it is, and no change, where the mask is empty.
    """
    if mask.max(initial=0.0) < PRESENT:
        return Moved(mask, np.zeros_like(mask))
    import cv2

    shape = (mask.shape[0], mask.shape[1])
    before, after = _stretched(_grey(near, shape), _grey(here, shape))
    with _one_thread():
        flow = _flow().calc(after, before, None)  # (S, S, 2): from this frame back to the neighbour
        rows, columns = np.indices(mask.shape, np.float32)
        x, y = columns + flow[..., 0], rows + flow[..., 1]
        moved = cv2.remap(mask, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        like = cv2.remap(before, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        change = cv2.blur(cv2.absdiff(after, like).astype(np.float32) / 255, (CHANGE_BLUR, CHANGE_BLUR))
    return Moved(np.asarray(moved, np.float32), np.asarray(change, np.float32))


def keep_unchanged(found: Float, moved: Moved, hold: Hold) -> Float:
    """Hold on to a mask that can be trusted where the picture shows no change.

    The network's answer alone loses a little of a good mask on each frame, thin parts first. Masks from first strokes
    alone are not good enough to be held on to: the network repairs them on the way.

    Parameters
    ----------
    found : (S, S) float32 array
        The network's answer, 0..1.
    moved : Moved
        The neighbouring frame's mask where this frame shows it.
    hold : Hold
        How firmly.

    Returns
    -------
    (S, S) float32 array
        A mean of both in 0..1, the moved mask's weight ``most * exp(-(change / unsettled) ** power)``.
    """
    weight = hold.most * np.exp(-((moved.change / hold.unsettled) ** hold.power))
    return np.asarray(found + weight * (moved.mask - found), np.float32)


def exact_after(frames: int) -> Hold:
    """How a mask is held on to that was exact so many frames ago."""
    return FIRM._replace(most=FIRM.most * math.exp(-((frames / LASTING) ** 2)))


@functools.cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Threads that find motion and stay from frame to frame, each with a flow of its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="ivos-motion")


def resampled(image: Float, shape: tuple[int, int]) -> Float:
    """Pixels of a region at the networks' resolution: averaged where it is coarser, interpolated where it is finer.

    Each pixel of the result is the mean of evenly spaced, bilinearly interpolated samples, so many that none of the
    image is left out: what ROI align does (He et al. 2017, "Mask R-CNN"), by which regions are cut in training, in a
    fifth of its time. Where that were more than `MOST_SAMPLES` a side, it is the mean of all pixels.

    Parameters
    ----------
    image : (h, w, C) float32 array
        The region's pixels.
    shape : tuple of int
        Rows and columns of the result.

    Returns
    -------
    (S, S, C) float32 array
        Contiguous; the image itself where it has that shape.
    """
    out = np.ascontiguousarray(image, np.float32)
    if out.shape[:2] == shape:
        return out
    with _one_thread():
        out = _resized(out, [min(side, MOST_SAMPLES * n) for n, side in zip(shape, out.shape, strict=False)])
        out = _resized(out, [n * -(-side // n) for n, side in zip(shape, out.shape, strict=False)])
        out = _resized(out, shape)
    return out.reshape(*shape, image.shape[2])


def _resized(image: Float, shape: Sequence[int]) -> Float:
    """Averaged where no axis grows, else interpolated."""
    import cv2

    if image.shape[:2] == tuple(shape):
        return image
    shrinks = shape[0] <= image.shape[0] and shape[1] <= image.shape[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=way), np.float32)


def _grey(image: Float, shape: tuple[int, int]) -> Float:
    """Brightness of an image (h, w, 3) at another shape; one plane is resampled sooner than three."""
    import cv2

    with _one_thread():
        grey = cv2.transform(np.ascontiguousarray(image, np.float32), MEAN_OF_COLOURS)
    return resampled(np.asarray(grey, np.float32)[..., None], shape)[..., 0]


def _stretched(a: Float, b: Float) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Both at one contrast that uses all 256 values; each first made as bright as the other on the whole."""
    a, b = (x - float(np.median(x[::SAMPLED, ::SAMPLED])) for x in (a, b))
    sample = np.stack([a[::SAMPLED, ::SAMPLED], b[::SAMPLED, ::SAMPLED]])
    low, high = (float(x) for x in np.percentile(sample, (DARKEST, BRIGHTEST)))
    scale = 255 / max(high - low, FLATTEST)
    first, second = (np.clip((x - low) * scale, 0, 255).astype(np.uint8) for x in (a, b))
    return first, second


_local = threading.local()
_counting = threading.Lock()
_inside = 0
_threads_before = 0


def _flow() -> Any:
    """The calling thread's own flow, because OpenCV's keeps buffers."""
    import cv2

    if not hasattr(_local, "flow"):
        flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        flow.setVariationalRefinementIterations(0)
        flow.setGradientDescentIterations(DESCENT)
        _local.flow = flow
    return _local.flow


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have OpenCV compute with one thread: with several its flow depends on how many they are.

    The setting is the whole process's, so it is put back when the last thread in here leaves.
    """
    import cv2

    global _inside, _threads_before  # noqa: PLW0603 - as OpenCV's own setting is
    with _counting:
        if _inside == 0:
            _threads_before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _inside += 1
    try:
        yield
    finally:
        with _counting:
            _inside -= 1
            if _inside == 0:
                cv2.setNumThreads(_threads_before)
