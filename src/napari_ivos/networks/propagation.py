"""The propagation network: the mask of a neighbouring frame, and all references, to the mask of this frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_ivos.networks.blocks import Architecture, KeptPlanes, TopDown, fine_lateral, make_encoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ivos.networks.interaction import ReferenceTensors

PLANES = 2
"""Neighbour's mask of this round, this frame's mask after the previous round; with motion a third, the change."""
KEPT = (3.0, 1.0, 0.0)
"""How much of each goes into the logits at first."""


NEGLIGIBLE = 1e-12
"""A smaller weight of attention is 0: a product with the subnormal numbers that softmax gives takes a hundred times as
long on a CPU (38 instead of 0.5 ms an object and frame with eight references)."""


class FeatureAggregation(nn.Module):
    """Folds a new reference into the aggregate by per-channel weights (Oh et al. 2018).

    Both are pooled globally, concatenated, passed through two fully connected layers with a bottleneck and turned by a
    softmax over the pair into weights; the aggregate is the weighted sum.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.squeeze = nn.Linear(2 * channels, max(channels // reduction, 16))
        self.excite = nn.Linear(max(channels // reduction, 16), 2 * channels)

    def forward(self, aggregate: Tensor, new: Tensor) -> Tensor:
        """Two (B, C, h, w) to one."""
        pooled = torch.cat([aggregate.mean((2, 3)), new.mean((2, 3))], 1)  # (B, 2C)
        weights = self.excite(F.relu(self.squeeze(pooled))).unflatten(1, (2, -1)).softmax(1)  # (B, 2, C)
        out: Tensor = weights[:, 0, :, None, None] * aggregate + weights[:, 1, :, None, None] * new
        return out


@dataclass
class Memory:
    """What the references of objects say together, made once for all frames that are compared with them.

    Attributes
    ----------
    aggregate : (B, C, S/32, S/32) tensor or None
        The coarsest features, folded into one.
    keys : (B, K, N) tensor
        By which positions of all references are found again, float32.
    far : (B, 1, N) tensor
        Their squared lengths over sqrt(K), infinite where an object has no such reference.
    values : (B, N, V + 1) tensor
        What is known of each position, float32.
    """

    aggregate: Tensor | None
    keys: Tensor
    far: Tensor
    values: Tensor


class PropagationNetwork(nn.Module):
    """Image, neighbour's mask, previous mask and references of one object to its logits."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.planes = PLANES + a.motion
        self.encoder = make_encoder(a.encoder, self.planes)
        c2, c4, c8, c16, c32 = self.encoder.channels
        self.aggregation = FeatureAggregation(c32) if a.pooled_reference else None
        self.query = nn.Conv2d(c16, a.key, 1) if a.spatial_reference else None
        coarse = 2 * c32 if a.pooled_reference else c32
        middle = c16 + a.width + 1 if a.spatial_reference else c16
        self.decoder = TopDown((coarse, middle, c8, c4, c2 + 3 + self.planes), a)
        self.kept = KeptPlanes(KEPT[: self.planes]) if a.residual_masks else None

    def memorise(self, references: Sequence[ReferenceTensors], valid: Tensor) -> Memory:
        """Put together what `forward` is told of references.

        Parameters
        ----------
        references : sequence of ReferenceTensors
            R of them, each of B objects, in the order of rounds and frames.
        valid : (B, R) bool tensor
            Which of them an object really has; the first is always there.
        """
        aggregate = None
        if self.aggregation is not None:
            aggregate = references[0].coarse
            for r, new in enumerate(references[1:], start=1):
                folded = self.aggregation(aggregate, new.coarse)
                aggregate = torch.where(valid[:, r, None, None, None], folded, aggregate)
        with _in_float32(valid.device):
            keys = torch.cat([r.key.float().flatten(2) for r in references], 2)
            values = torch.cat([r.value.float().flatten(2) for r in references], 2)
            known = valid.repeat_interleave(keys.shape[2] // len(references), 1)  # (B, N)
            far = (keys.pow(2).sum(1) / math.sqrt(keys.shape[1])).masked_fill(~known, float("inf"))
        return Memory(aggregate, keys, far[:, None], values.transpose(1, 2))

    def forward(self, image: Tensor, planes: Tensor, memory: Memory) -> list[Tensor]:
        """Run the network.

        Parameters
        ----------
        image : (B, 3, S, S) tensor
            0..1.
        planes : (B, 2 or 3, S, S) tensor
            Neighbour's and previous mask in -1..1 (0: not known); with motion the change in 0..1.
        memory : Memory
            What the objects' references say; see `memorise`.

        Returns
        -------
        list of (B, 1, s, s) tensor
            Logits at strides 2, 4, 8, 16.
        """
        f2, f4, f8, f16, f32 = self.encoder(image, planes)
        if memory.aggregate is not None:
            aggregate = memory.aggregate
            if aggregate.shape[-1] != f32.shape[-1]:
                aggregate = F.adaptive_avg_pool2d(aggregate, f32.shape[-1])
            f32 = torch.cat([f32, aggregate.to(f32.dtype)], 1)
        if self.query is not None:
            f16 = torch.cat([f16, self._read(self.query(f16), memory).to(f16.dtype)], 1)
        out: list[Tensor] = self.decoder([f32, f16, f8, f4, fine_lateral(image, planes, f2)])
        return out if self.kept is None else self.kept(out, planes)

    @staticmethod
    def _read(query: Tensor, memory: Memory) -> Tensor:
        """What the references know of each position of this frame: attention by squared distance of keys.

        Always in float32: distances are small differences of large numbers.
        """
        b, k, h, w = query.shape
        with _in_float32(query.device):
            asked = query.float().flatten(2).transpose(1, 2) * (2 / math.sqrt(k))  # (B, hw, K)
            affinity = torch.baddbmm(-memory.far, asked, memory.keys)  # (B, hw, N), up to a constant in N
            weights = F.threshold(affinity.softmax(2), NEGLIGIBLE, 0.0)
            return (weights @ memory.values).transpose(1, 2).reshape(b, -1, h, w)


def _in_float32(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, enabled=False)
