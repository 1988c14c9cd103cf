"""Slices of simulated volumes: cells that fill a tissue, nuclei, neurites, cut along z as a microscope does.

What a z-stack has and a film of moving things has not: an object shrinks to a cap and is gone within a few slices, its
wall is seen face on, the next object below comes in at the same place, and a blurred trace of what is above or below
the plane shows through.

Every object is an ellipsoid's quadratic form about a centre, in coordinates bent by smooth noise. Where objects fill
space, the smallest form takes a point (an anisotropic power diagram) and a wall stands where the two smallest are
nearly equal; where they do not, an object ends where its form is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Rng = np.random.Generator

SMALLEST, LARGEST = 24.0, 150.0
"""Diameters of objects in pixels of a canvas of 256, drawn evenly on a logarithmic scale."""
FEWEST, MOST = 2.5, 16.0
"""Slices that an object of middling size lasts, drawn likewise."""
LEAST_AREA = 12
"""What shows fewer pixels than this on a slice has no label there."""
LONGEST = 1.7
"""An object's longest half axis, in radii."""
REACH = 2.5
"""An object is looked for within so many radii of its centre: its surface and the wall or the haze around it."""


@dataclass(frozen=True)
class Kind:
    """What is in a volume and how it is stained.

    Attributes
    ----------
    packed : bool
        Whether objects fill the space.
    stretch : float
        Standard deviation of the logarithm of an object's axes.
    wall, inside : float
        Brightness of the walls between objects and of what is in them; without walls, of the objects and around them.
    varied : float
        Standard deviation of the logarithm of an object's brightness.
    grain : float
        Contrast of the texture.
    """

    packed: bool
    stretch: float
    wall: float
    inside: float
    varied: float
    grain: float


KINDS = {
    "membranes": Kind(packed=True, stretch=0.2, wall=0.8, inside=0.12, varied=0.3, grain=0.12),
    "cytoplasm": Kind(packed=True, stretch=0.25, wall=0.1, inside=0.5, varied=0.35, grain=0.3),
    "neurites": Kind(packed=True, stretch=0.55, wall=0.1, inside=0.65, varied=0.12, grain=0.35),
    "nuclei": Kind(packed=False, stretch=0.2, wall=0.05, inside=0.6, varied=0.35, grain=0.25),
}


def draw_slices(rng: Rng, side: int, count: int) -> tuple[UInt8, npt.NDArray[np.int32], str]:
    """Neighbouring slices of a new volume.

    Parameters
    ----------
    rng : numpy Generator
        Source of chance.
    side : int
        Side of the slices in pixels.
    count : int
        How many.

    Returns
    -------
    frames : (T, S, S, 3) uint8 array
        Grey, as it would be without noise and with the best of lenses.
    labels : (T, S, S) int32 array
        Instances, 0 = background; an object has the same id on all slices.
    kind : str
        One of `KINDS`.
    """
    import cv2

    name = str(rng.choice(list(KINDS)))
    kind = KINDS[name]
    diameter = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST)))) * side / 256
    fine = float(rng.uniform(min(max(0.3, 10 / diameter), 1.0), 1.0)) if rng.random() < 0.6 else 1.0
    small = max(round(side * fine), 48)
    radius = diameter * small / side / 2
    lasts = float(np.exp(rng.uniform(np.log(FEWEST), np.log(MOST))))
    step = 2 * radius / lasts
    forms, centres = _objects(rng, kind, small, radius, step * count)
    levels = np.exp(rng.normal(0, kind.varied, len(centres) + 1)).astype(np.float32)
    grain = _grain(rng, small, count, float(np.exp(-step / radius * rng.uniform(0.3, 3))))
    edge, edge_z = float(rng.uniform(0.03, 0.12)), float(rng.uniform(0.02, 0.16))
    limit = float(rng.uniform(1.0, 2.2)) if rng.random() < 0.4 else np.inf  # where the tissue ends
    frames, labels = [], []
    for t, (x, y) in enumerate(_bent(rng, small, count, radius)):
        nearest, second, ids = _forms_at(x, y, (t - (count - 1) / 2) * step, forms, centres, radius)
        if kind.packed:
            between = np.sqrt(second) - np.sqrt(nearest)
            wall = np.exp(-((between / edge) ** 2))
            body = kind.inside * levels[ids] * (1 + kind.grain * grain[t])
            picture = body + (kind.wall - body) * wall
            outside = (nearest > limit) | (ids == 0)
            picture[outside] = 0.05
            ids[outside] = 0
        else:
            shown = 1 / (1 + np.exp(np.minimum((np.sqrt(nearest) - 1) / edge_z, 60)))
            picture = kind.wall + kind.inside * levels[ids] * (1 + kind.grain * grain[t]) * shown
            ids[nearest > 1] = 0
        frames.append(cv2.resize(picture.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC))
        labels.append(_enlarged(ids, side))
    grey = np.clip(np.stack(frames) * 255, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1), _without_crumbs(np.stack(labels)), name


def _objects(
    rng: Rng, kind: Kind, side: int, radius: float, depth: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Quadratic forms (N, 3, 3), 1 on the surface, and centres (N, 3), x y z, of the objects in and around a slab."""
    spacing = 2 * radius * (1.0 if kind.packed else float(rng.uniform(0.85, 1.6)))
    pad = REACH * radius
    axes = [
        np.arange(-pad, side + pad + spacing, spacing),
        np.arange(-pad, side + pad + spacing, spacing),
        np.arange(-depth / 2 - pad, depth / 2 + pad + spacing, spacing),
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    centres = grid + rng.uniform(-0.42, 0.42, grid.shape) * spacing + rng.uniform(-0.5, 0.5, 3) * spacing
    if not kind.packed:
        centres = centres[rng.random(len(centres)) < rng.uniform(0.4, 1.0)]
    n = len(centres)
    turns, _ = np.linalg.qr(rng.normal(0, 1, (n, 3, 3)))
    if kind.stretch > 0.4:  # fibres of a bundle lie alike
        common, _ = np.linalg.qr(rng.normal(0, 1, (3, 3)))
        turns, _ = np.linalg.qr(common + rng.normal(0, 0.25, (n, 3, 3)))
    size = radius * np.exp(rng.normal(0, 0.18, (n, 1)) + rng.normal(0, kind.stretch, (n, 3)))
    size = np.clip(size, 0.4 * radius, LONGEST * radius)
    scaled = turns / size[:, None, :]
    return scaled @ scaled.transpose(0, 2, 1), centres


def _bent(rng: Rng, side: int, count: int, radius: float) -> list[tuple[Float, Float]]:
    """Where each pixel of each slice looks things up: x and y (S, S), bent smoothly, a little elsewhere every slice."""
    import cv2

    cells = max(int(side / (1.5 * radius)), 1) + 3
    amount = float(rng.uniform(0.05, 0.3)) * radius
    jitter = float(rng.gamma(1.0, 0.015)) * radius
    first, last = rng.normal(0, amount, (2, cells, cells, 2)).astype(np.float32)
    rows, columns = np.indices((side, side), np.float32)
    out = []
    for t in range(count):
        share = t / max(count, 8)
        grid = (np.cos(share * np.pi / 2) * first + np.sin(share * np.pi / 2) * last).astype(np.float32)
        bend = cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        aside = rng.normal(0, jitter, 2).astype(np.float32)
        out.append((columns + bend[..., 0] + aside[0], rows + bend[..., 1] + aside[1]))
    return out


def _forms_at(
    x: Float,
    y: Float,
    z: float,
    forms: npt.NDArray[np.float64],
    centres: npt.NDArray[np.float64],
    radius: float,
) -> tuple[Float, Float, npt.NDArray[np.int32]]:
    """The smallest and the second smallest form at each point of a slice, and whose the smallest is (0: nobody's)."""
    nearest, second = np.full(x.shape, 9.0, np.float32), np.full(x.shape, 9.0, np.float32)
    ids = np.zeros(x.shape, np.int32)
    reach = REACH * radius
    for k in np.flatnonzero(np.abs(centres[:, 2] - z) < reach):
        cx, cy, cz = centres[k]
        rows = slice(max(int(cy - reach), 0), max(int(cy + reach) + 1, 0))
        columns = slice(max(int(cx - reach), 0), max(int(cx + reach) + 1, 0))
        window = rows, columns
        dx, dy, dz = x[window] - np.float32(cx), y[window] - np.float32(cy), z - cz
        if not dx.size:
            continue
        q = forms[k].astype(np.float32)
        form = dx * (q[0, 0] * dx + 2 * q[0, 1] * dy + np.float32(2 * q[0, 2] * dz))
        form += dy * (q[1, 1] * dy + np.float32(2 * q[1, 2] * dz)) + np.float32(q[2, 2] * dz * dz)
        closer = form < nearest[window]
        second[window] = np.where(closer, nearest[window], np.minimum(second[window], form))
        nearest[window] = np.where(closer, form, nearest[window])
        ids[window][closer] = k + 1
    return np.maximum(nearest, 0), np.maximum(second, 0), ids


def _grain(rng: Rng, side: int, count: int, kept: float) -> Float:
    """Smooth noise (T, S, S) of unit variance at several scales; `kept` of it stays from slice to slice."""
    import cv2

    now = np.zeros((side, side), np.float32)
    out = []
    for t in range(count):
        fresh = np.zeros((side, side), np.float32)
        for cells in (6, 20, 60):
            noise = rng.normal(0, 0.6, (cells, cells)).astype(np.float32)
            fresh += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
        now = fresh if t == 0 else np.float32(kept) * now + np.float32(np.sqrt(1 - kept**2)) * fresh
        out.append(now)
    return np.stack(out)


def _enlarged(ids: npt.NDArray[np.int32], side: int) -> npt.NDArray[np.int32]:
    import cv2

    bigger = cv2.resize(ids.astype(np.float32), (side, side), interpolation=cv2.INTER_NEAREST)
    return np.asarray(bigger, np.int32)


def _without_crumbs(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Take the labels of objects away on slices where hardly anything of them shows."""
    for slice_ in labels:
        areas = np.bincount(slice_.ravel())
        slice_[(areas < LEAST_AREA)[slice_]] = 0
    return labels
