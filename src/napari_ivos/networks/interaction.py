"""The interaction network: scribbles on one frame to the object's mask there, and what it looks like."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_ivos.networks.blocks import Architecture, KeptPlanes, TopDown, fine_lateral, make_encoder

PLANES = 3
"""Previous mask, positive scribbles, negative scribbles."""
KEPT = (1.0, 1.0, -1.0)
"""How much of each goes into the logits at first."""


@dataclass
class ReferenceTensors:
    """What the interaction network learned of objects on annotated frames.

    Attributes
    ----------
    coarse : (B, C, S/32, S/32) tensor
        The coarsest features; the paper's reference.
    key : (B, K, S/16, S/16) tensor
        By which positions are found again.
    value : (B, V + 1, S/16, S/16) tensor
        What is known of each position; the last channel is the mask (0..1).
    """

    coarse: Tensor
    key: Tensor
    value: Tensor


class InteractionNetwork(nn.Module):
    """Image, previous mask and scribbles of one object to its logits and its reference."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        self.encoder = make_encoder(a.encoder, PLANES)
        c2, c4, c8, c16, c32 = self.encoder.channels
        self.decoder = TopDown((c32, c16, c8, c4, c2 + 3 + PLANES), a)
        self.kept = KeptPlanes(KEPT, fine=True) if a.residual_masks else None
        self.key = nn.Conv2d(c16, a.key, 1)
        self.value = nn.Conv2d(c16 + 1, a.width, 1)

    def forward(self, image: Tensor, planes: Tensor) -> tuple[list[Tensor], ReferenceTensors]:
        """Run the network.

        Parameters
        ----------
        image : (B, 3, S, S) tensor
            0..1.
        planes : (B, 3, S, S) tensor
            Previous mask in -1..1 (0: not known), positive and negative scribbles in 0..1.

        Returns
        -------
        list of (B, 1, s, s) tensor
            Logits at strides 2, 4, 8, 16; with residual masks the finest at 1.
        ReferenceTensors
        """
        f2, f4, f8, f16, f32 = self.encoder(image, planes)
        logits = self.decoder([f32, f16, f8, f4, fine_lateral(image, planes, f2)])
        if self.kept is not None:
            logits = self.kept(logits, planes)
        mask = F.adaptive_avg_pool2d(torch.sigmoid(logits[0].float()), f16.shape[-1])  # (B, 1, S/16, S/16)
        value = torch.cat([self.value(torch.cat([f16, mask.to(f16.dtype)], 1)), mask.to(f16.dtype)], 1)
        return logits, ReferenceTensors(f32, self.key(f16), value)
