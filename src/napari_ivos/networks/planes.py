"""Numbers to tensors: what the networks are told about masks and strokes, the same in training and in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_ivos.networks.llvm import load_triton_apart

load_triton_apart()  # before torchvision, which looks for triton

from torchvision.ops import roi_align  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ivos.regions import Box

Float = npt.NDArray[np.float32]
UNKNOWN = 0.5
"""A mask that is not known yet: the probability that says nothing, 0 on the networks' scale of -1..1."""

CHANGE_SCALE = 3.0
"""Changes of brightness are mostly small; they are shown so much larger."""


def mask_plane(masks: Sequence[Float | None], size: int) -> Tensor:
    """Masks (S, S) in 0..1, None where not known, to (B, 1, S, S) in -1..1."""
    unknown = np.full((size, size), UNKNOWN, np.float32)
    return torch.from_numpy(np.stack([unknown if m is None else m for m in masks])[:, None] * 2 - 1)


def stroke_plane(strokes: Sequence[Float]) -> Tensor:
    """Rasterised strokes (S, S) in 0..1 to (B, 1, S, S)."""
    return torch.from_numpy(np.stack(strokes)[:, None])


def change_plane(changes: Sequence[Float | None], size: int) -> Tensor:
    """How much pictures changed, (S, S) in 0..1, None (then 0) where not known, to (B, 1, S, S)."""
    nothing = np.zeros((size, size), np.float32)
    return torch.from_numpy(np.stack([nothing if c is None else c for c in changes])[:, None] * CHANGE_SCALE)


def propagation_planes(
    neighbours: Sequence[Float], previous: Sequence[Float | None], changes: Sequence[Float | None] | None, size: int
) -> Tensor:
    """What the propagation network is told, (B, 2, S, S); one plane more with `changes`, where it follows motion."""
    planes = [mask_plane(neighbours, size), mask_plane(previous, size)]
    return torch.cat(planes if changes is None else [*planes, change_plane(changes, size)], 1)


def crop(images: Tensor, boxes: Sequence[Box], size: int) -> Tensor:
    """Regions of images by ROI align, one a image: (B, C, H, W) float to (B, C, S, S).

    Sampling adapts to the region: a large one is averaged, a small one is interpolated.
    """
    rois = torch.tensor([[k, b.x0, b.y0, b.x1, b.y1] for k, b in enumerate(boxes)], dtype=images.dtype)
    out: Tensor = roi_align(images, rois.to(images.device), size, sampling_ratio=-1, aligned=True)
    return out
