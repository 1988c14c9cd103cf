"""An RGB clip: a toy duck waddles across a room, turns, and passes behind a pillar, filmed by hand.

A small ray caster: the duck is a signed distance function that rays march on, all else (floor, wall, balls, pillar) is
solved exactly. Lengths are in units of the duck's body, x to the right, y away from the viewer, z up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

SHAPE = (240, 320)
FRAMES = 48
SEED = 19040979
FINER = 2
"""Rays a pixel along each axis."""

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]

FOCAL = 1.25
"""Focal length over the picture's height."""
WALL = 3.4
"""y of the back wall."""
SUN = np.array([-0.45, -0.55, 0.71])
"""Direction to the light."""
PILLAR = (0.35, -1.0, 0.115)
"""x, y and radius of the pillar between the viewer and the duck's way."""
BALLS = (
    (-1.9, 1.7, 0.42, (0.16, 0.34, 0.62)),
    (1.9, 2.0, 0.55, (0.22, 0.48, 0.3)),
    (1.55, -0.35, 0.2, (0.6, 0.2, 0.32)),
)
"""x, y, radius and colour of the balls that lie about."""
YELLOW = (0.93, 0.68, 0.1)
WING = (0.85, 0.53, 0.06)
ORANGE = (0.9, 0.32, 0.05)
BLACK = (0.03, 0.03, 0.03)
RED = (0.72, 0.07, 0.08)
"""Reflectances of the duck: plumage, wings, beak, eyes, scarf."""


@dataclass(frozen=True)
class Pose:
    """Where the duck and the camera are on one frame.

    Parameters
    ----------
    place : (2,) float
        x and y of the duck.
    heading, roll : float
        Radians: the way it looks, counterclockwise from x; how far it leans to its side.
    eye, target : (3,) float
        Where the camera is, and what it looks at.
    """

    place: Array
    heading: float
    roll: float
    eye: Array
    target: Array


def pose(frame: int) -> Pose:
    """The duck comes from the left, walks behind the pillar, turns towards the viewer and away again."""
    t = frame / (FRAMES - 1)
    shake = 0.02 * np.array([np.sin(0.9 * frame), np.sin(1.3 * frame + 1), np.sin(0.7 * frame + 2)])
    return Pose(
        place=np.array([-1.3 + 2.7 * t, 0.5 - 0.5 * np.sin(np.pi * t) + 0.25 * np.sin(2.6 * np.pi * t) * t]),
        heading=0.35 - 2.3 * t + 0.5 * np.sin(2 * np.pi * t),
        roll=0.10 * np.sin(1.1 * frame),
        eye=np.array([-0.7 + 1.3 * t, -4.1 + 0.5 * np.sin(np.pi * t), 2.0 + 0.15 * t]) + shake,
        target=np.array([-0.5 + 0.95 * t, 0.3, 0.5]) + 0.6 * shake,
    )


def _rays(view: Pose) -> Array:
    """Unit directions of all rays, (H, W, 3) at the finer sampling."""
    height, width = SHAPE[0] * FINER, SHAPE[1] * FINER
    forward = view.target - view.eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    row = (0.5 - (np.arange(height) + 0.5) / height)[:, None, None]
    col = ((np.arange(width) + 0.5 - width / 2) / height)[None, :, None]
    rays = FOCAL * forward + col * right + row * up
    return np.asarray(rays / np.linalg.norm(rays, axis=-1, keepdims=True))


# --- the duck -----------------------------------------------------------------------------------------------------


def _ellipsoid(p: Array, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Array:
    """Distance of points (N, 3) from an ellipsoid, close enough to march on."""
    scaled = (p - centre) / radii
    near = np.linalg.norm(scaled, axis=1)
    slope = np.linalg.norm(scaled / radii, axis=1)
    return np.asarray(near * (near - 1) / np.maximum(slope, 1e-9))


def _blend(a: Array, b: Array, radius: float) -> Array:
    """Union of two shapes, rounded where they meet."""
    share = np.clip(0.5 + 0.5 * (b - a) / radius, 0, 1)
    return np.asarray(b + share * (a - b) - radius * share * (1 - share))


def _parts(p: Array) -> list[tuple[Array, tuple[float, float, float]]]:
    """Distance and colour of each part of the duck, for points (N, 3) in its own axes; it looks along x."""
    mirrored = p * np.array([1.0, 0.0, 1.0]) + np.abs(p) * np.array([0.0, 1.0, 0.0])
    body = _ellipsoid(p, (0.0, 0.0, 0.38), (0.55, 0.4, 0.38))
    tail = _ellipsoid(p, (-0.5, 0.0, 0.6), (0.2, 0.16, 0.16))
    head = _ellipsoid(p, (0.36, 0.0, 0.9), (0.27, 0.26, 0.27))
    scarf = np.hypot(np.hypot(p[:, 0] - 0.3, p[:, 1]) - 0.19, p[:, 2] - 0.68) - 0.065
    return [
        (_blend(_blend(body, tail, 0.15), head, 0.12), YELLOW),
        (_ellipsoid(mirrored, (-0.08, 0.37, 0.45), (0.31, 0.09, 0.19)), WING),
        (_ellipsoid(p, (0.66, 0.0, 0.85), (0.17, 0.13, 0.06)), ORANGE),
        (_ellipsoid(mirrored, (0.53, 0.15, 0.99), (0.055, 0.055, 0.065)), BLACK),
        (scarf, RED),
    ]


def _distance(p: Array) -> Array:
    return np.asarray(np.min([distance for distance, _ in _parts(p)], axis=0))


def _duck_axes(view: Pose) -> Array:
    """Rotation, (3, 3), from the room's axes to the duck's: about z by the heading, about its own x by the roll."""
    c, s, cr, sr = np.cos(view.heading), np.sin(view.heading), np.cos(view.roll), np.sin(view.roll)
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    lean = np.array([[1, 0, 0], [0, cr, sr], [0, -sr, cr]])
    return np.asarray(lean @ turn)


def _march(origin: Array, rays: Array) -> Array:
    """How far along each ray (N, 3), from `origin` (3,), the duck is; inf where the ray misses it."""
    centre = np.array([0.0, 0.0, 0.55]) - origin
    along = rays @ centre
    aside = np.linalg.norm(rays * along[:, None] - centre, axis=1)
    depth = np.full(len(rays), np.inf)
    active = np.flatnonzero(aside < 1.0)
    reached = np.maximum(along[active] - 1.0, 0)
    for _ in range(64):
        step = _distance(origin + reached[:, None] * rays[active])
        reached = reached + step
        hit = step < 1e-3
        depth[active[hit]] = reached[hit]
        going = ~hit & (reached < along[active] + 1.0)
        active, reached = active[going], reached[going]
        if not len(active):
            break
    return depth


def _duck_colour(p: Array, axes: Array, rays: Array) -> Array:
    """Light, (N, 3), that the duck's surface points (N, 3), in its own axes, send along `rays` to the eye."""
    tiny = 1e-3
    slopes = [_distance(p + tiny * axis) - _distance(p - tiny * axis) for axis in np.eye(3)]
    normal = np.stack(slopes, axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    parts = _parts(p)
    nearest = np.argmin([distance for distance, _ in parts], axis=0)
    colour = np.array([paint for _, paint in parts])[nearest]
    plumage = 1 + 0.22 * _noise(p[:, 0] + 0.6 * p[:, 1], p[:, 2] + 0.4 * p[:, 1], 0.22)
    colour = colour * np.where(nearest <= 1, plumage, 1)[:, None]
    sun, eye = axes @ SUN, -(rays @ axes.T)
    lit = np.clip(normal @ sun, 0, 1)
    half = sun + eye
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    shine = 0.25 * np.clip((normal * half).sum(axis=1), 0, 1) ** 40
    sky = 0.36 + 0.12 * normal[:, 2]
    return np.asarray(colour * (sky + 0.75 * lit)[:, None] + shine[:, None])


# --- the room -----------------------------------------------------------------------------------------------------


def _noise(x: Array, y: Array, size: float) -> Array:
    """Smooth noise of unit variance over the plane, with features of about `size`; it repeats after 24 of them."""
    grain = ndimage.gaussian_filter(np.random.default_rng([SEED, 1]).standard_normal((96, 96)), 1.6, mode="wrap")
    places = np.stack([np.asarray(y, float), np.asarray(x, float)]) * (4 / size)
    return np.asarray(ndimage.map_coordinates(grain / grain.std(), places, order=1, mode="grid-wrap"))


def _floor(x: Array, y: Array, view: Pose) -> Array:
    """Wooden boards with grain, a striped rug, and the shadows of duck, balls and pillar; (N, 3)."""
    board = np.floor(y / 0.42)
    tint = 0.85 + 0.25 * np.modf(np.abs(np.sin(board * 12.9898) * 43758.5453))[0]
    grain = 1 + 0.10 * _noise(x * 0.25 + 3 * board, y * 2.5, 0.5) + 0.05 * _noise(x, y * 4, 0.3)
    joint = np.where(np.abs(y / 0.42 - np.round(y / 0.42)) < 0.035, 0.55, 1.0)
    wood = np.array([0.44, 0.29, 0.17]) * (tint * grain * joint)[:, None]
    on_rug = ((x + 0.2) / 1.9) ** 2 + ((y - 0.5) / 1.05) ** 2
    ring = np.floor(on_rug * 6).astype(int) % 3
    rug = np.array([[0.32, 0.36, 0.5], [0.52, 0.5, 0.47], [0.42, 0.25, 0.3]])[ring]
    rug = rug * (1 + 0.13 * _noise(x, y, 0.12))[:, None]
    colour = np.where((on_rug < 1)[:, None], rug, wood)
    return np.asarray(colour * (0.95 * _shade(x, y, view))[:, None])


def _shade(x: Array, y: Array, view: Pose) -> Array:
    """What part of the light reaches the floor at (x, y): soft shadows, cast away from the sun."""
    cast = -SUN[:2] / SUN[2]
    shade = np.ones_like(x)
    things = [(view.place[0], view.place[1], 0.42, 0.5), *((bx, by, r * 0.8, r) for bx, by, r, _ in BALLS)]
    for px, py, radius, height in things:
        for lift, deep in ((0.0, 0.45), (height, 0.4)):
            squared = (x - px - lift * cast[0]) ** 2 + (y - py - lift * cast[1]) ** 2
            shade *= 1 - deep * np.exp(-0.5 * squared / (0.75 * radius) ** 2)
    return shade


def _wall(x: Array, z: Array) -> Array:
    """Wallpaper of stripes and dots above a skirting board; (N, 3)."""
    stripe = np.where(np.modf(np.abs(x + 20) / 0.7)[0] < 0.5, 1.0, 0.86)
    dot = (np.modf(np.abs(x + 20) / 0.35)[0] - 0.5) ** 2 + (np.modf(np.abs(z + 5) / 0.35)[0] - 0.5) ** 2 < 0.03
    paper = np.array([0.5, 0.56, 0.53]) * (stripe * (1 + 0.06 * _noise(x, z, 0.8)))[:, None]
    paper = np.where(dot[:, None], [0.36, 0.42, 0.48], paper)
    return np.asarray(np.where((z < 0.22)[:, None], [0.62, 0.6, 0.56], paper))


def _ball(eye: Array, rays: Array, ball: tuple[float, float, float, tuple[float, float, float]]) -> tuple[Array, Array]:
    """Depth (N,) and light (N, 3) of a striped ball that lies on the floor."""
    x, y, radius, paint = ball
    away = eye - np.array([x, y, radius])
    b = rays @ away
    root = b * b - (away @ away - radius**2)
    depth = np.where(root > 0, -b - np.sqrt(np.maximum(root, 0)), np.inf)
    normal = (away + np.where(root > 0, depth, 0)[:, None] * rays) / radius
    band = np.where(np.sin(7 * normal[:, 2] + 3 * normal[:, 0]) > 0.5, 1.5, 1.0)
    light = 0.4 + 0.65 * np.clip(normal @ SUN, 0, 1)
    return depth, np.asarray(np.array(paint) * (band * light)[:, None])


def _pillar(eye: Array, rays: Array) -> tuple[Array, Array]:
    """Depth (N,) and light (N, 3) of the pillar: a post wound with rope, as high as the room."""
    x, y, radius = PILLAR
    away, flat = eye[:2] - np.array([x, y]), rays[:, :2]
    a, b = (flat**2).sum(axis=1), flat @ away
    root = b * b - a * (away @ away - radius**2)
    depth = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    point = eye + np.where(root > 0, depth, 0)[:, None] * rays
    normal = (point[:, :2] - np.array([x, y])) / radius
    angle = np.arctan2(normal[:, 1], normal[:, 0])
    rope = 0.8 + 0.2 * np.sin(38 * point[:, 2] + angle) + 0.1 * _noise(angle, point[:, 2], 0.25)
    light = 0.42 + 0.6 * np.clip(normal @ SUN[:2], 0, 1)
    above = point[:, 2] > 0
    return np.where(above, depth, np.inf), np.asarray(np.array([0.42, 0.4, 0.43]) * (rope * light)[:, None])


# --- the picture --------------------------------------------------------------------------------------------------


def _room(eye: Array, rays: Array, view: Pose) -> tuple[Array, Array]:
    """Depth (N,) and light (N, 3) of all that is not the duck."""
    to_floor = np.where(rays[:, 2] < 0, -eye[2] / np.minimum(rays[:, 2], -1e-9), np.inf)
    to_wall = (WALL - eye[1]) / np.maximum(rays[:, 1], 1e-9)
    depth = np.minimum(to_floor, to_wall)
    point = eye + depth[:, None] * rays
    light = np.empty_like(rays)
    low = to_floor < to_wall
    light[low] = _floor(point[low, 0], point[low, 1], view)
    light[~low] = _wall(point[~low, 0], point[~low, 2])
    for near, colour in [_ball(eye, rays, ball) for ball in BALLS] + [_pillar(eye, rays)]:
        light[near < depth] = colour[near < depth]
        depth = np.minimum(depth, near)
    return depth, light


def render(frame: int) -> tuple[npt.NDArray[np.uint8], Labels]:
    """What the camera records on a frame, and where the duck can be seen.

    Returns
    -------
    image : (H, W, 3) uint8, RGB
    labels : (H, W) uint8
        1 = pixels that the duck fills at least half of, 0 = background.
    """
    view = pose(frame)
    shape = _rays(view).shape
    rays = _rays(view).reshape(-1, 3)
    depth, light = _room(view.eye, rays, view)
    axes = _duck_axes(view)
    origin = axes @ (view.eye - np.array([*view.place, 0.0]))
    own = rays @ axes.T
    duck = _march(origin, own)
    seen = duck < depth
    light[seen] = _duck_colour(origin + duck[seen, None] * own[seen], axes, rays[seen])
    cover = _pixels(seen.reshape(shape[:2])[..., None].astype(float))[..., 0]
    return _camera(_pixels(light.reshape(shape)), frame), (cover >= 0.5).astype(np.uint8)


def _pixels(fine: Array) -> Array:
    """Mean over the rays of each pixel: (H * FINER, W * FINER, C) -> (H, W, C)."""
    return np.asarray(fine.reshape(SHAPE[0], FINER, SHAPE[1], FINER, -1).mean(axis=(1, 3)))


def _camera(light: Array, frame: int) -> npt.NDArray[np.uint8]:
    """A small camera: soft lens, darker corners, exposure that breathes, sensor noise, gamma."""
    row, col = np.indices(SHAPE) - (np.array(SHAPE) / 2)[:, None, None]
    corners = 1 - 0.25 * (row**2 + col**2) / (np.array(SHAPE) ** 2 / 4).sum()
    exposure = 1.25 * (1 + 0.04 * np.sin(frame / 6))
    light = ndimage.gaussian_filter(light, (0.5, 0.5, 0)) * (corners * exposure)[..., None]
    noise = np.random.default_rng([SEED, 2, frame]).standard_normal(light.shape)
    light = light + 0.006 * (1 + 2 * np.sqrt(np.clip(light, 0, None))) * noise
    return np.asarray(np.rint(255 * np.clip(light, 0, 1) ** (1 / 2.2))).astype(np.uint8)
