"""A fluorescence time-lapse: nuclei that wander, deform, touch and bleach, seen by a 16-bit camera.

In the order of the light's way: motion and shapes, then labels (geometry), dye (texture), optics (blur, haze), camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

SHAPE = (256, 320)
FRAMES = 48
SEED = 20180602
PIXEL_SIZE = 0.65
"""Micrometres."""
FRAME_INTERVAL = 300.0
"""Seconds."""

Image = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]

START = np.array([[60, 70], [84, 102], [66, 236], [188, 84], [158, 150], [186, 186], [128, 266]], float)
"""(row, col) of each nucleus on the first frame; their drift brings the fourth to the sixth together."""
RADIUS = np.array([19.0, 15.0, 21.0, 17.5, 13.5, 18.5, 16.0])
"""Mean radius in pixels."""
BRIGHTNESS = np.array([430.0, 330.0, 520.0, 380.0, 610.0, 300.0, 470.0])
"""Photons a pixel, on the first frame."""
DRIFT = np.array([[0.35, 0.25], [-0.1, 0.45], [0.75, -0.35], [-0.55, 0.45], [0.1, -0.55], [0.1, -0.6], [-0.2, -0.65]])
"""Pixels a frame."""

HARMONICS = np.arange(2, 6)
STEPS = 4
"""Steps of the motion a frame."""
BLEACHING = 70.0
"""Frames until the dye is down to 1/e."""
BLUR = 1.2
"""Standard deviation of the point spread function, in pixels."""
OFFSET, GAIN, READ_NOISE = 300.0, 1.0, 5.0
"""Camera: counts without light, counts a photon, photons."""


@dataclass(frozen=True)
class Nuclei:
    """Where the nuclei are and what they look like, for T frames and K nuclei.

    Parameters
    ----------
    centres : (T, K, 2) float, (row, col)
    angles : (T, K) float, radians
    outlines : (T, K, 2, harmonics) float
        Cosine and sine parts of the outline's radius, relative to the mean radius.
    light : (T, K) float, photons a pixel
    """

    centres: Image
    angles: Image
    outlines: Image
    light: Image


def _wander(rng: np.random.Generator, shape: tuple[int, ...], memory: float) -> Image:
    """Smooth unit-variance random walks that come back to 0: (T, ...) with a memory in frames."""
    length = shape[0] + int(8 * memory)
    noise = rng.standard_normal((length, *shape[1:]))
    smooth = ndimage.gaussian_filter1d(noise, memory, axis=0, mode="wrap")[: shape[0]]
    return np.asarray(smooth * np.sqrt(2 * np.sqrt(np.pi) * memory))


def simulate() -> Nuclei:
    """Move the nuclei: drift, a random walk, walls, and a soft push where two overlap."""
    rng = np.random.default_rng(SEED)
    count = len(RADIUS)
    kicks = 0.9 * _wander(rng, (FRAMES * STEPS, count, 2), 6.0 * STEPS)
    centres = np.empty((FRAMES, count, 2))
    position = START.copy()
    for step in range(FRAMES * STEPS):
        if step % STEPS == 0:
            centres[step // STEPS] = position
        position = position + (DRIFT + kicks[step] + _push(position)) / STEPS
    angles = rng.uniform(0, 2 * np.pi, count) + 0.5 * np.cumsum(0.12 * _wander(rng, (FRAMES, count), 5.0), axis=0)
    sizes = 0.2 / HARMONICS**1.3
    outlines = sizes * _wander(rng, (FRAMES, count, 2, len(HARMONICS)), 7.0)
    bleached = np.exp(-np.arange(FRAMES) / BLEACHING)[:, None]
    light = BRIGHTNESS * bleached * (1 + 0.07 * _wander(rng, (FRAMES, count), 5.0))
    return Nuclei(centres, angles, outlines, light)


def _push(position: Image) -> Image:
    """Speed, in pixels a frame, that overlapping neighbours and the walls give each nucleus."""
    apart = position[:, None] - position[None]
    distance = np.hypot(apart[..., 0], apart[..., 1]) + np.eye(len(position)) * 1e6
    overlap = np.clip(0.96 * (RADIUS[:, None] + RADIUS[None]) - distance, 0, None)
    push = (0.5 * overlap / distance)[..., None] * apart
    margin = 0.9 * RADIUS[:, None]
    wall = np.clip(margin - position, 0, None) - np.clip(position - (np.array(SHAPE) - margin), 0, None)
    return np.asarray(push.sum(axis=1) + 0.3 * wall)


def _reach(nuclei: Nuclei, frame: int) -> tuple[Image, Image, Image]:
    """Distance of each pixel from each nucleus' centre over its radius there, and (u, v) in the nucleus' own axes."""
    grid = np.indices(SHAPE, dtype=float)
    away = grid[None] - nuclei.centres[frame][:, :, None, None]
    angle = np.arctan2(away[:, 0], away[:, 1]) - nuclei.angles[frame][:, None, None]
    waves = angle[:, None] * HARMONICS[None, :, None, None]
    cosine, sine = nuclei.outlines[frame, :, 0, :, None, None], nuclei.outlines[frame, :, 1, :, None, None]
    radius = RADIUS[:, None, None] * (1 + (cosine * np.cos(waves) + sine * np.sin(waves)).sum(axis=1))
    reach = np.hypot(away[:, 0], away[:, 1]) / radius
    return reach, reach * np.cos(angle), reach * np.sin(angle)


def _chromatin(rng: np.random.Generator, side: int = 96) -> Image:
    """A nucleus' texture over (-1.2, 1.2) in its own axes, mean 1: patches, bright chromocentres, dark nucleoli."""
    coarse = ndimage.gaussian_filter(rng.standard_normal((side, side)), 9)
    fine = ndimage.gaussian_filter(rng.standard_normal((side, side)), 3)
    texture = 1 + 0.16 * coarse / coarse.std() + 0.10 * fine / fine.std()
    v, u = np.indices((side, side)) / (side - 1) * 2.4 - 1.2
    for height, width, number in ((0.8, 0.09, 6), (-0.6, 0.16, 2)):
        for distance, turn in zip(rng.uniform(0.1, 0.75, number), rng.uniform(0, 2 * np.pi, number), strict=True):
            squared = (u - distance * np.cos(turn)) ** 2 + (v - distance * np.sin(turn)) ** 2
            texture += height * np.exp(-squared / (2 * width**2))
    return np.asarray(np.clip(texture, 0.25, 2.2))


def _dye(nuclei: Nuclei, frame: int, label: Labels, u: Image, v: Image) -> Image:
    """Photons from the dye before the optics: texture that turns with its nucleus, thinner towards the rim."""
    dye = np.zeros(SHAPE)
    for k in range(len(RADIUS)):
        inside = label == k + 1
        texture = _chromatin(np.random.default_rng([SEED, 1, k]))
        places = (np.stack([v[k][inside], u[k][inside]]) + 1.2) / 2.4 * (len(texture) - 1)
        depth = ndimage.distance_transform_edt(inside)[inside]
        thickness = 1 - np.exp(-depth / (0.16 * RADIUS[k]))
        dye[inside] = nuclei.light[frame, k] * thickness * ndimage.map_coordinates(texture, places, order=1)
    return dye


def _background(frame: int) -> Image:
    """Photons of the medium: a gradient, slow clouds out of focus, and a few specks of debris that drift."""
    rng = np.random.default_rng([SEED, 2])
    row, col = np.indices(SHAPE, dtype=float)
    ground = 38 + 26 * (col / SHAPE[1]) + 14 * (1 - row / SHAPE[0])
    for phase in rng.uniform(0, 2 * np.pi, (3, 2)):
        place = np.array(SHAPE) * (0.5 + 0.4 * np.sin(phase + frame / 30))
        ground += 9 * np.exp(-((row - place[0]) ** 2 + (col - place[1]) ** 2) / (2 * 48.0**2))
    for place, speed in zip(rng.uniform(0.08, 0.92, (9, 2)) * SHAPE, rng.normal(0, 0.25, (9, 2)), strict=True):
        spot = place + frame * speed
        ground += 55 * np.exp(-((row - spot[0]) ** 2 + (col - spot[1]) ** 2) / (2 * 1.6**2))
    return ground


def render(nuclei: Nuclei, frame: int) -> tuple[npt.NDArray[np.uint16], Labels]:
    """What the camera records on a frame, and the true labels.

    Returns
    -------
    image : (H, W) uint16, counts
    labels : (H, W) uint8, 0 = background
        Where two nuclei press on each other, the one whose centre is nearer (over its radius) has the pixel.
    """
    reach, u, v = _reach(nuclei, frame)
    label = np.where(reach.min(axis=0) < 1, reach.argmin(axis=0) + 1, 0).astype(np.uint8)
    dye = _dye(nuclei, frame, label, u, v)
    light = 0.86 * ndimage.gaussian_filter(dye, BLUR) + 0.14 * ndimage.gaussian_filter(dye, 7.0)
    light += _background(frame) * (0.75 + 0.25 * np.exp(-frame / BLEACHING))
    noise = np.random.default_rng([SEED, 3, frame]).standard_normal(SHAPE)
    counts = OFFSET + GAIN * (light + np.sqrt(light + READ_NOISE**2) * noise)  # shot noise and read noise
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16), label
