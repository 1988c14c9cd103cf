"""What an object looks like, learned where it is annotated: a classifier of the interaction encoder's features.

How the propagation network knows an object again was learned once, for all objects. This is learned anew of each one,
from its own annotated frames: a target model after Robinson et al. 2020 ("Learning Fast and Robust Target Models for
Video Object Segmentation"), but a linear one, which has one best answer: logistic regression on the features that the
encoder gives for the picture alone. A reference carries a sample of these features on the object and around it; the
classifier is fitted to the samples of all references of an object, and its log-odds are added to the network's.

Shapes in comments: B objects, C features, S side of the region at the network's resolution, h side of the features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_ivos.networks.remembered import Remembered

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from napari_ivos.networks.blocks import MobileNetV2Encoder
    from napari_ivos.predictor import Reference

Float = npt.NDArray[np.float32]
Sample = npt.NDArray[np.float16]

SCALE = 0.75
"""The encoder sees regions at so much of the network's side: as good as all of it, in half the time."""
STRIDE = 4
"""Features are compared at this stride of what the encoder sees."""
CELLS = 256
"""So many places on the object, and as many around it, are kept of an annotated frame."""
CELLS_IN_ALL = 8192
"""So many places of all references together are fitted to, on the object and around it: the fewer of each, the more
references there are."""
STEPS_PER_UNIT, MOST_STEPS = 20, 127
"""Features are kept in whole steps, which pack to half of their bytes."""
OUTSIDE, INSIDE = 0.2, 0.8
"""A place is around the object, or on it, where its share of the mask is below or above these."""
PENALTY = 0.025
"""Half the squared coefficients count so much beside the mean cross-entropies of all references."""
NEWTON_STEPS = 12
WORTH = 0.4
"""How much the classifier's log-odds count beside the network's. They are added on every frame, and the mask goes on to
the next one: more of them would move edges that the network has right."""
MOST_ODDS = 3.0
"""The largest log-odds of the classifier, either way."""
CLEAR, BLURRED = 0.04, 0.08
"""Cross-entropy of the samples up to which the classifier counts in full, and from which it does not count: there the
object and what is around it look alike."""
FITTED_AT_MOST = 4096
"""Classifiers that are remembered: one an object and way."""


@dataclass(frozen=True, eq=False)
class Looks:
    """An object's classifier: ``features @ weights + bias`` are log-odds, which count `worth` times."""

    weights: Tensor  # (C,) float32
    bias: float
    worth: float


class Appearance:
    """Learns what objects look like, and says where that is seen.

    Parameters
    ----------
    encoder : MobileNetV2Encoder
        The interaction network's.
    plain : collection of int
        How many values references have that say nothing of this.
    """

    def __init__(self, encoder: MobileNetV2Encoder, plain: Collection[int]) -> None:
        self._encoder, self._plain = encoder, plain
        self.channels = 3 + sum(encoder.channels[:4])
        self._fitted: Remembered[Looks | None] = Remembered(FITTED_AT_MOST)

    @property
    def values(self) -> int:
        """How many values a reference's sample has."""
        return 2 + 2 * CELLS * self.channels

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in 0..1 to features (B, C, h, h): colours, and what is seen at strides 2 to 16."""
        side = int(images.shape[-1] * SCALE) // 16 * 16
        seen = F.interpolate(images, side, mode="bilinear", align_corners=False)
        h = side // STRIDE
        colours = F.adaptive_avg_pool2d(seen, h) * 4  # as large as features are
        return torch.cat([colours, *(_at_side(x.float(), h) for x in self._encoder.plain(seen))], 1)

    def sample(self, features: Tensor, mask: Float) -> Sample:
        """Features (C, h, h) on the object and around it, `mask` (S, S) in 0..1, as the end of a reference."""
        share = F.adaptive_avg_pool2d(torch.tensor(mask)[None, None], features.shape[-1]).flatten().numpy()
        cells = features.flatten(1).T.cpu().numpy()  # (h h, C)
        steps = np.clip(np.rint(np.nan_to_num(cells) * STEPS_PER_UNIT), -MOST_STEPS, MOST_STEPS)
        kept = np.zeros((2, CELLS, self.channels), np.float16)
        counts = np.zeros(2, np.float16)
        for k, there in enumerate((share < OUTSIDE, share > INSIDE)):
            places = _scattered(np.flatnonzero(there))[:CELLS]
            kept[k, : len(places)], counts[k] = steps[places], len(places)
        return np.concatenate([counts, kept.ravel()])

    def without_sample(self, reference: Reference) -> Reference:
        """What else a reference holds."""
        return reference[: -self.values] if self._has_sample(reference) else reference

    def odds(self, features: Tensor, looks: Sequence[Looks], side: int) -> Tensor:
        """What features (B, C, h, h) of objects with these looks add to their logits (B, 1, S, S), S = `side`."""
        weights = torch.stack([x.weights for x in looks]).to(features.device)
        bias = torch.tensor([x.bias for x in looks], device=features.device)
        worth = torch.tensor([x.worth for x in looks], device=features.device)
        found = torch.einsum("bchw,bc->bhw", features, weights) + bias[:, None, None]  # (B, h, h)
        whole = F.interpolate(found[:, None], side, mode="bilinear", align_corners=False)
        return whole.clamp(-MOST_ODDS, MOST_ODDS) * worth[:, None, None, None]

    def of(self, references: Sequence[Reference]) -> Looks | None:
        """What an object with these references looks like; None where that tells nothing, or they don't say.

        Remembered as long as the references are.
        """
        return self._fitted.get(references, lambda: self._fit(references))

    def _has_sample(self, reference: Reference) -> bool:
        return reference.size - self.values in self._plain

    def _fit(self, references: Sequence[Reference]) -> Looks | None:
        samples = [r[-self.values :] for r in references if self._has_sample(r)]
        most = max(1, min(CELLS, CELLS_IN_ALL // (2 * max(len(samples), 1))))
        rows, kinds, weights = [], [], []
        for sample in samples:
            known = np.nan_to_num(sample.astype(np.float64), posinf=0, neginf=0)  # a stranger may have written it
            cells = known[2:].reshape(2, CELLS, self.channels)
            for kind in (0, 1):
                some = cells[kind, : int(np.clip(known[kind], 0, most))]
                rows.append(some / STEPS_PER_UNIT)
                kinds.append(np.full(len(some), kind, np.float64))
                weights.append(np.full(len(some), 0.5 / max(len(some), 1)))
        if not {0.0, 1.0} <= {float(k[0]) for k in kinds if len(k)}:
            return None
        x, y, w = np.concatenate(rows), np.concatenate(kinds), np.concatenate(weights)
        coefficients, bias, entropy = fit(x, y, w)
        worth = WORTH * float(np.clip((BLURRED - entropy) / (BLURRED - CLEAR), 0, 1))
        return Looks(torch.from_numpy(coefficients.astype(np.float32)), bias, worth) if worth > 0 else None


def fit(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], w: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], float, float]:
    """Logistic regression with a squared penalty, by Newton's method.

    Parameters
    ----------
    x : (N, C) float64 array
        Features; the penalty is on coefficients of features of unit variance.
    y : (N,) float64 array
        0 or 1.
    w : (N,) float64 array
        Weights of the samples.

    Returns
    -------
    coefficients : (C,) float64 array
    bias : float
    entropy : float
        Mean cross-entropy of the samples, in nats.
    """
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-3
    z = np.column_stack([(x - mean) / spread, np.ones(len(x))])
    penalty = np.full(z.shape[1], PENALTY)
    penalty[-1] = 1e-6

    def cost(b: npt.NDArray[np.float64]) -> float:
        a = z @ b
        return float(w @ (np.logaddexp(0, a) - y * a) + 0.5 * penalty @ b**2)

    b = np.zeros(z.shape[1])
    now = cost(b)
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(z @ b, -60, 60)))
        slope = z.T @ (w * (p - y)) + penalty * b
        curvature = z.T @ (z * (w * p * (1 - p))[:, None])
        curvature[np.diag_indices_from(curvature)] += penalty
        step = np.linalg.solve(curvature, slope)
        size, before = 1.0, now
        while (now := cost(b - size * step)) > before and size > 1e-3:
            size /= 2
        b = b - size * step
        if before - now < 1e-5 * w.sum():
            break
    a = z @ b
    entropy = float(w @ (np.logaddexp(0, a) - y * a) / w.sum())
    coefficients = b[:-1] / spread
    return coefficients, float(b[-1] - coefficients @ mean), entropy


def _scattered(places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The same places in an order whose every beginning lies all over them."""
    return places[np.argsort(np.arange(len(places)) * 0.6180339887498949 % 1)]


def _at_side(x: Tensor, h: int) -> Tensor:
    """Features (B, C, s, s) as (B, C, h, h): finer ones averaged, coarser ones interpolated."""
    if x.shape[-1] > h:
        return F.avg_pool2d(x, x.shape[-1] // h)
    return x if x.shape[-1] == h else F.interpolate(x, h, mode="bilinear", align_corners=False)
