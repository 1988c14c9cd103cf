"""Steps of gradient descent on prepared looks: torch, and nothing of sessions.

The encoders stay as they are: they hold what thousands of pictures taught, and leaving them alone takes a third less
time. All chance comes from one generator, so that the same looks give the same weights on one machine.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_ivos import motion
from napari_ivos.errors import OutOfMemory
from napari_ivos.networks.planes import CHANGE_SCALE, UNKNOWN
from napari_ivos.networks.weights import load_bytes, to_bytes
from napari_ivos.regions import MASK_LEVEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_ivos.adapting.material import Look
    from napari_ivos.networks.blocks import Architecture
    from napari_ivos.networks.inference import TorchPredictor
    from napari_ivos.session.stacks import Stack

Rng = np.random.Generator

LEARNING_RATE = 1e-4
WARM_UP = 5
"""Steps over which the rate rises; from there it is level, so that time may run out at any step."""
AVERAGE = 0.95
"""Decay of the moving average of the weights, which is what comes out."""
CLIP_NORM = 1.0
WEIGHT_DECAY = 1e-4
BATCH = 6
"""Objects a step, each with a look of both networks."""
SCALE_WEIGHTS = (1.0, 0.4, 0.2, 0.1)
"""Weights of the cross-entropy at strides 2, 4, 8, 16; as in training."""
DICE_WEIGHT = 0.5


@dataclass(frozen=True, eq=False)
class Prepared:
    """Looks of one kind, ready for a network.

    Parameters
    ----------
    planes : (N, C, S, S) uint8 array
        Image (3), masks (M), strokes (of a network that follows motion, for propagation: the change), target, weight;
        0..255.
    known : (N, M) bool array
        Which of the masks are known.
    """

    planes: npt.NDArray[np.uint8]
    known: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class View:
    """A batch as a network gets it: image (B, 3, S, S), planes (B, P, S, S), target and weight (B, 1, S, S)."""

    image: Tensor
    planes: Tensor
    target: Tensor
    weight: Tensor


def prepared(looks: Sequence[Look], stack: Stack, architecture: Architecture) -> Prepared:
    """Read the pixels of looks, and lay all planes of a look beside each other."""
    planes = np.stack([_planes(look, stack, architecture) for look in looks])
    return Prepared(planes, np.array([[mask is not None for mask in look.masks] for look in looks]))


def _planes(look: Look, stack: Stack, architecture: Architecture) -> npt.NDArray[np.uint8]:
    shape = look.target.shape
    here = motion.resampled(stack.read(look.frame, look.region), shape)
    unknown = np.full(shape, UNKNOWN, np.float32)
    masks = [unknown if mask is None else mask for mask in look.masks]
    further = list(look.strokes)
    if look.near is not None and architecture.motion:
        masks[0], change = motion.move_along(masks[0], stack.read(look.near, look.region), here)
        further.append(change)
    whole = np.concatenate([here.transpose(2, 0, 1), np.stack([*masks, *further, look.target, look.weight])])
    return np.asarray(np.rint(np.clip(whole, 0, 1) * 255), np.uint8)


def joined(parts: Sequence[Prepared]) -> Prepared:
    """Looks of one kind, one after the other."""
    return Prepared(np.concatenate([p.planes for p in parts]), np.concatenate([p.known for p in parts]))


class Tuner:
    """Both networks of a model, on their way.

    Parameters
    ----------
    model : TorchPredictor
        Where to start; it stays as it is.
    device : torch.device
        Where to compute.
    """

    def __init__(self, model: TorchPredictor, device: torch.device) -> None:
        self.architecture, self.device = model.architecture, device
        self.interaction = copy.deepcopy(model.interaction).to(device)
        self.propagation = copy.deepcopy(model.propagation).to(device)
        networks = (self.interaction, self.propagation)
        learning = [p for network in networks for n, p in network.named_parameters() if not n.startswith("encoder.")]
        self.learning = [p.requires_grad_(True) for p in learning]
        self.average = [p.detach().clone() for p in self.learning]
        self.optimiser = torch.optim.AdamW(self.learning, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        self.steps = 0

    # -- learning

    def step(self, drawn: Prepared, carried: Prepared, rng: Rng) -> float:
        """One step on a batch drawn by chance, seen as no look before; its loss.

        Parameters
        ----------
        drawn, carried : Prepared
            Looks of the interaction and of the propagation network; entry k of both is the same object.
        rng : numpy Generator
            Source of all chance.

        Raises
        ------
        OutOfMemory
            The device has too little memory.
        """
        at = rng.integers(0, len(drawn.planes), BATCH)
        flips, light = np.where(rng.random((BATCH, 2)) < 0.5, -1.0, 1.0), _light(BATCH, rng)
        views = [self._seen(part, at, flips, light, rng) for part in (drawn, carried)]
        with device_errors(self.device), torch.enable_grad():
            loss = self.loss(*views)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.learning, CLIP_NORM)
            self.steps += 1
            for group in self.optimiser.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, self.steps / WARM_UP)
            self.optimiser.step()
            self._follow()
        return float(loss.detach())

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(AVERAGE, self.steps / (10 + self.steps))
        for average, p in zip(self.average, self.learning, strict=True):
            average.lerp_(p, 1 - decay)

    def loss(self, drawn: View, carried: View) -> Tensor:
        """Loss of both networks; what the one learns of an object is the other's reference."""
        logits, reference = self.interaction(drawn.image, drawn.planes)
        valid = torch.ones(len(carried.image), 1, dtype=torch.bool, device=self.device)
        again = self.propagation(carried.image, carried.planes, self.propagation.memorise([reference], valid))
        return weighted_loss(logits, drawn) + weighted_loss(again, carried)

    # -- looking

    def _seen(self, part: Prepared, at: npt.NDArray[np.int64], flips: Floats, light: Floats, rng: Rng) -> View:
        """Looks turned, stretched, lit and blurred by noise; a neighbour's mask moves on its own beside."""
        x = torch.from_numpy(part.planes[at]).to(self.device, torch.float32) / 255
        masks = part.known.shape[1]
        x = warp(x, _turns(len(at), rng, 0.1, 0.12, 0.05, closer=0.08) * flips[:, :, None])
        if masks > 1:
            aside = (0.02, 0.03, 0.02) if self.architecture.motion else (0.04, 0.06, 0.05)
            x[:, 3:4] = warp(x[:, 3:4], _turns(len(at), rng, *aside))
        gain, bias, gamma, grain = torch.from_numpy(light).to(self.device)[:, :, None, None, None].unbind(1)
        noise = torch.from_numpy(rng.standard_normal(x[:, :3].shape, np.float32)).to(self.device)
        x[:, :3] = (x[:, :3].clamp(1e-4, 1).pow(gamma) * gain + bias + grain * noise).clamp(0, 1)
        return self._view(x, torch.from_numpy(part.known[at]).to(self.device))

    def _view(self, x: Tensor, known: Tensor) -> View:
        masks = known.shape[1]
        planes = torch.where(known[:, :, None, None], x[:, 3 : 3 + masks], x.new_tensor(UNKNOWN)) * 2 - 1
        further = x[:, 3 + masks : -2]
        planes = torch.cat([planes, further * CHANGE_SCALE if masks > 1 else further], 1)
        fast = torch.channels_last
        return View(
            x[:, :3].contiguous(memory_format=fast),
            planes.contiguous(memory_format=fast),
            (x[:, -2:-1] >= MASK_LEVEL).float(),
            x[:, -1:],
        )

    # -- what comes out

    def model(self, name: str, notes: dict[str, str]) -> TorchPredictor:
        """The averaged weights as a model that travels with a project."""
        own = [p.detach().clone() for p in self.learning]
        with torch.no_grad():
            for p, average in zip(self.learning, self.average, strict=True):
                p.copy_(average)
            blob = to_bytes(self.interaction, self.propagation, self.architecture, name=name, **notes)
            for p, before in zip(self.learning, own, strict=True):
                p.copy_(before)
        return load_bytes(blob, name, device=str(self.device), portable=True)


Floats = npt.NDArray[np.float32]


def _turns(n: int, rng: Rng, angle: float, zoom: float, shift: float, closer: float = 0.0) -> Floats:
    """(n, 2, 3) affine maps: small turns, stretched and shifted a little; `closer` is how much larger things get.

    Without it, things get larger as often as smaller: a neighbour's mask that is mostly too large would teach to make
    masks smaller from frame to frame.
    """
    turn = rng.normal(0, angle, n)
    scale = np.exp(rng.uniform(-zoom, zoom, (n, 1)) + rng.normal(0, zoom / 4, (n, 2)) - closer)
    maps = np.zeros((n, 2, 3), np.float32)
    maps[:, 0, 0], maps[:, 0, 1] = np.cos(turn) * scale[:, 0], -np.sin(turn) * scale[:, 1]
    maps[:, 1, 0], maps[:, 1, 1] = np.sin(turn) * scale[:, 0], np.cos(turn) * scale[:, 1]
    maps[:, :, 2] = rng.normal(0, shift, (n, 2))
    return maps


def _light(n: int, rng: Rng) -> Floats:
    """(n, 4): gain, bias, gamma and noise of an image; both looks at an object get the same."""
    parts = rng.normal(1, 0.1, n), rng.normal(0, 0.05, n), np.exp(rng.normal(0, 0.15, n)), rng.uniform(0, 0.03, n)
    return np.stack(parts, 1).astype(np.float32)


def warp(x: Tensor, maps: Floats) -> Tensor:
    """Planes (B, C, S, S) through (B, 2, 3) affine maps; what comes from outside repeats the border."""
    grid = F.affine_grid(torch.from_numpy(np.asarray(maps, np.float32)).to(x.device), list(x.shape), False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def weighted_loss(logits: Sequence[Tensor], view: View) -> Tensor:
    """Cross-entropy at every scale and half of 1 - Dice at the finest, as in training, each pixel by its weight."""
    target, weight = view.target, view.weight
    total = torch.zeros(len(target), device=target.device)
    for k, (raw, scale) in enumerate(zip(logits, SCALE_WEIGHTS, strict=True)):
        x = raw.float()
        t, w = (F.adaptive_avg_pool2d(plane, x.shape[-1]) for plane in (target, weight))
        total = total + scale * (w * F.binary_cross_entropy_with_logits(x, t, reduction="none")).mean((1, 2, 3))
        if k == 0:
            p = torch.sigmoid(x)
            both, sums = (w * p * t).sum((1, 2, 3)), (w * (p + t)).sum((1, 2, 3))
            total = total + DICE_WEIGHT * w.mean((1, 2, 3)) * (1 - (2 * both + 1) / (sums + 1))
    return total.mean()


@contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Say in our own words that a device's memory is full."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        reason = str(error).split("\n")[0]
        raise OutOfMemory(
            f"{device} has too little memory to adapt ({reason}); nothing was changed. Close other programs that use "
            "it, or adapt with device='cpu'."
        ) from error
