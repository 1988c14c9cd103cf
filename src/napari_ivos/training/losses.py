"""The loss of one look: pixel cross-entropy at every scale of the decoder, and a Dice term at the finest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

SCALE_WEIGHTS = (1.0, 0.4, 0.2, 0.1)
"""Weights of the cross-entropy at strides 2, 4, 8, 16."""
DICE_WEIGHT = 0.5


def mask_loss(logits: Sequence[Tensor], target: Tensor, weight: Tensor) -> Tensor:
    """Loss of one look, averaged over the objects that count.

    Parameters
    ----------
    logits : sequence of (B, 1, s, s) tensor
        Finest first.
    target : (B, 1, S, S) tensor
        The true mask over the region, 0..1.
    weight : (B,) tensor
        0 leaves an object out.

    Returns
    -------
    scalar tensor
        Cross-entropy + 0.5 (1 - Dice); Dice = (2 sum(pt) + 1) / (sum(p) + sum(t) + 1) (Milletari et al. 2016).
    """
    total = torch.zeros(logits[0].shape[0], device=target.device)
    for k, (x, scale) in enumerate(zip(logits, SCALE_WEIGHTS[: len(logits)], strict=True)):
        t = F.adaptive_avg_pool2d(target, x.shape[-1])
        total = total + scale * F.binary_cross_entropy_with_logits(x.float(), t, reduction="none").mean((1, 2, 3))
        if k == 0:
            p = torch.sigmoid(x.float())
            both, sums = (p * t).sum((1, 2, 3)), p.sum((1, 2, 3)) + t.sum((1, 2, 3))
            total = total + DICE_WEIGHT * (1 - (2 * both + 1) / (sums + 1))
    return (total * weight).sum() / weight.sum().clamp(min=1)
