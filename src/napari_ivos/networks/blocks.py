"""What both networks are built of: encoders with extra input planes, residual blocks, the top-down path.

Shapes in comments: B objects, C channels, S side of the region at the network's resolution; features at stride s have
side S / s.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_ivos.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

EncoderName = Literal["mobilenet_v2", "resnet18", "resnet50"]


@dataclass(frozen=True)
class Architecture:
    """What must be known to build both networks; kept with the weights.

    Attributes
    ----------
    encoder : str
        "mobilenet_v2" (light, for CPUs), "resnet18" or "resnet50" (the paper's).
    size : int
        Side of the region that the networks see, in pixels; a multiple of 32.
    small : int
        The same for objects that are small on the frame, of whose region `size` would show no more than this does; 0:
        all are seen at `size`. The weights are the same.
    width : int
        Channels of the decoders' top-down path.
    fine_width : int
        Channels of its last step, at stride 2.
    deep_laterals : bool
        Laterals of the top-down path are a 3x3 convolution and a residual block (as in the paper's decoder) instead of
        a 1x1 convolution.
    key : int
        Channels by which frames are compared in the spatial reference.
    pooled_reference : bool
        Feature aggregation after Oh et al. 2018: channel weights over the coarsest features.
    spatial_reference : bool
        Attention from the current frame to every position of all annotated frames (Oh et al. 2019).
    residual_masks : bool
        The networks say what changes: masks and strokes that come in are added to the logits that go out
        (`KeptPlanes`). Without it both drop the fine parts of a mask that was right, even where nothing moves.
    motion : bool
        A neighbour's mask is moved along with the picture before the propagation network sees it, and a plane more says
        where the picture changed otherwise (`napari_ivos.motion`).
    """

    encoder: EncoderName = "mobilenet_v2"
    size: int = 128
    small: int = 0
    width: int = 64
    fine_width: int = 32
    deep_laterals: bool = False
    key: int = 48
    pooled_reference: bool = True
    spatial_reference: bool = True
    residual_masks: bool = False
    motion: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class MobileNetV2Encoder(nn.Module):
    """MobileNetV2 without its classifier and without BatchNorm (folded into the convolutions), with extra input planes.

    Convolutions of stride 2 pad right and bottom only (TensorFlow's SAME on even sizes), which is what the ImageNet
    weights were trained with.
    """

    channels = (16, 24, 32, 96, 320)
    _stages = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    _taps = (1, 3, 6, 13, 17)

    def __init__(self, extra_planes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_SamePadConv(3, 32, 2)]
        self.planes = nn.Conv2d(extra_planes, 32, 3, stride=2, bias=False)
        nn.init.normal_(self.planes.weight, std=0.02)
        channels = 32
        for expand, out, repeats, stride in self._stages:
            for k in range(repeats):
                blocks.append(_InvertedResidual(channels, out, stride if k == 0 else 1, expand))
                channels = out
        self.features = nn.ModuleList(blocks)

    def forward(self, image: Tensor, planes: Tensor) -> list[Tensor]:
        """Image (B, 3, S, S) in 0..1 and planes (B, E, S, S) to features at strides 2, 4, 8, 16, 32."""
        return self._taken(self.features[0](image * 2 - 1) + _halved(planes, self.planes), self._taps)

    def plain(self, image: Tensor) -> list[Tensor]:
        """Image (B, 3, S, S) in 0..1, of which nothing is said, to features at strides 2, 4, 8 and 16."""
        return self._taken(self.features[0](image * 2 - 1), self._taps[:4])

    def _taken(self, x: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """What comes out of the blocks `taps`, given what the first convolution gave."""
        x = F.relu6(x, inplace=True)
        taken = []
        for k, block in enumerate(self.features[1 : taps[-1] + 1], start=1):
            x = block(x)
            if k in taps:
                taken.append(x)
        return taken

    def load_imagenet(self, state: dict[str, Tensor]) -> None:
        """Take ImageNet weights with BatchNorm folded in, in torchvision's names plus biases; the rest stays."""
        own = dict(self.named_parameters())
        taken = {}
        for name, value in state.items():
            parts = name.split(".")
            block, leaf = int(parts[1]), parts[-1]
            if block == 18:
                continue
            if block == 0:
                key = f"features.0.conv.{leaf}"
            else:
                inner = ".".join(parts[3:-1])
                last = "conv.2" if block > 1 else "conv.1"
                where = f"conv.{inner}"
                kind = (
                    "project" if where == last else "depthwise" if (block == 1 or inner.startswith("1")) else "expand"
                )
                suffix = ".conv" if kind == "depthwise" else ""
                key = f"features.{block}.{kind}{suffix}.{leaf}"
            taken[key] = value.float().reshape(own[key].shape)
        missing = {n for n in own if n.startswith("features.")} - set(taken)
        if missing:
            raise WeightsError(f"the ImageNet weights lack {len(missing)} tensors, such as {sorted(missing)[0]}")
        self.load_state_dict(taken, strict=False)


class _SamePadConv(nn.Module):
    """3x3 convolution; with stride 2 padded right and bottom only."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1 if stride == 1 else 0, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            return _halved(x, self.conv)
        out: Tensor = self.conv(x)
        return out


class _EverySecond(torch.autograd.Function):
    """The lower right of each two by two places; the gradient lies in memory as features do, channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x[:, :, 1::2, 1::2].contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        spread = torch.empty(ctx.shape, dtype=grad.dtype, memory_format=torch.channels_last).zero_()
        spread[:, :, 1::2, 1::2] = grad
        return spread


def _every_second(x: Tensor) -> Tensor:
    """(B, C, H, W) of even sides to (B, C, H / 2, W / 2)."""
    out: Tensor = _EverySecond.apply(x)
    return out


def _halved(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 3x3 convolution of stride 2, padded right and bottom only.

    On a CPU by a kernel with a row and a column of zeros before it and padding on all sides: the same sums without a
    copy of what comes in, which takes a tenth of the encoder's time. While it learns there in bfloat16, a depthwise one
    is computed at stride 1 and thinned out: what oneDNN has for its gradient at stride 2 takes four times as long, a
    fifth of a training step.
    """
    if x.device.type == "cpu" and not torch.is_grad_enabled():
        return F.conv2d(x, F.pad(conv.weight, (1, 0, 1, 0)), conv.bias, 2, 1, 1, conv.groups)
    if x.device.type == "cpu" and conv.groups > 1 and x.dtype == torch.bfloat16:
        return _every_second(F.conv2d(x, conv.weight, conv.bias, 1, 1, 1, conv.groups))
    return F.conv2d(F.pad(x, (0, 1, 0, 1)), conv.weight, conv.bias, 2, 0, 1, conv.groups)


def _pointwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1x1 convolution.

    On a CPU as a product of matrices: the same sums, in three quarters of the encoder's time with two threads, because
    the weights are not laid out anew for each frame.
    """
    if x.device.type == "cpu" and conv.bias is not None and not torch.is_grad_enabled():
        rows = x.permute(0, 2, 3, 1).flatten(0, 2)  # (B h w, C); a view where channels lie last
        found = torch.addmm(conv.bias, rows, conv.weight.flatten(1).T)
        return found.view(x.shape[0], x.shape[2], x.shape[3], -1).permute(0, 3, 1, 2)
    out: Tensor = conv(x)
    return out


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.expand = nn.Conv2d(inputs, hidden, 1) if expand != 1 else None
        self.depthwise = _SamePadConv(hidden, hidden, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(_pointwise(x, self.expand), inplace=True)
        y = _pointwise(F.relu6(self.depthwise(y), inplace=True), self.project)
        out: Tensor = x + y if self.residual else y
        return out


class ResNetEncoder(nn.Module):
    """torchvision's ResNet without its classifier, BatchNorm frozen, with extra filters in the first convolution."""

    def __init__(self, name: str, extra_planes: int) -> None:
        super().__init__()
        import torchvision

        net = getattr(torchvision.models, name)(weights=None)
        self.conv1, self.bn1 = net.conv1, net.bn1
        self.layers = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4])
        self.planes = nn.Conv2d(extra_planes, 64, 7, stride=2, padding=3, bias=False)
        nn.init.normal_(self.planes.weight, std=0.01)
        wide = 4 if name == "resnet50" else 1
        self.channels = (64, 64 * wide, 128 * wide, 256 * wide, 512 * wide)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGE_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor, planes: Tensor) -> list[Tensor]:
        """Image (B, 3, S, S) in 0..1 and planes (B, E, S, S) to features at strides 2, 4, 8, 16, 32."""
        x = F.relu(self.bn1(self.conv1((image - self.mean) / self.std) + self.planes(planes)))
        taps = [x]
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for layer in self.layers:
            x = layer(x)
            taps.append(x)
        return taps

    def train(self, mode: bool = True) -> ResNetEncoder:
        """BatchNorm keeps its statistics: batches of a few objects are too small to estimate them."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def load_imagenet(self, state: dict[str, Tensor]) -> None:
        """Take torchvision's ImageNet state dict; the extra filters stay as they are."""
        renamed = {}
        for name, value in state.items():
            if name.startswith("layer"):
                renamed[f"layers.{int(name[5]) - 1}{name[6:]}"] = value
            elif not name.startswith("fc."):
                renamed[name] = value
        own = self.state_dict()
        lost = [
            k
            for k, v in own.items()
            if not k.startswith("planes") and getattr(renamed.get(k), "shape", None) != v.shape
        ]
        unexpected = sorted(set(renamed) - set(own))
        if lost or unexpected:
            raise WeightsError(
                f"not a state dict of this ResNet: without {lost[:3]} or in another shape, unknown {unexpected[:3]}"
            )
        self.load_state_dict(renamed, strict=False)


def make_encoder(name: str, extra_planes: int) -> MobileNetV2Encoder | ResNetEncoder:
    """The encoder of that name with `extra_planes` input planes beside RGB."""
    if name == "mobilenet_v2":
        return MobileNetV2Encoder(extra_planes)
    return ResNetEncoder(name, extra_planes)


class ResidualBlock(nn.Module):
    """Pre-activation residual block (He et al. 2016): x + conv(relu(conv(relu(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.relu(self.first(F.relu(x)), inplace=True))
        return out


class TopDown(nn.Module):
    """Feature-pyramid decoder: coarse to fine, lateral features added on the way, a head at every scale.

    Parameters
    ----------
    laterals : sequence of int
        Channels of what comes in at strides 32, 16, 8, 4, 2.
    architecture : Architecture
        Says how wide the path is at strides 32..4 and at stride 2, and what a lateral is made of.

    Attributes
    ----------
    in_bfloat16 : bool
        Compute in bfloat16 where nothing is to be learned, for a CPU that does so faster than in float32.
    """

    def __init__(self, laterals: Sequence[int], architecture: Architecture) -> None:
        super().__init__()
        width, fine_width = architecture.width, architecture.fine_width
        widths = [width] * 4 + [fine_width]
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, w, 3, padding=1), ResidualBlock(w))
            if architecture.deep_laterals
            else nn.Conv2d(c, w, 1)
            for c, w in zip(laterals, widths, strict=True)
        )
        self.in_bfloat16 = False
        self.narrow = nn.Conv2d(width, fine_width, 1)
        self.blocks = nn.ModuleList(ResidualBlock(w) for w in widths)
        self.heads = nn.ModuleList(nn.Conv2d(w, 1, 3, padding=1) for w in widths[1:])

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Laterals from stride 32 to 2 to logits (B, 1, s, s) at strides 2, 4, 8, 16 (finest first).

        Where nothing is to be learned, the finest alone.
        """
        if self.in_bfloat16 and not torch.is_grad_enabled():
            with torch.autocast(features[0].device.type, torch.bfloat16):
                return self._down(features)
        return self._down(features)

    def _down(self, features: Sequence[Tensor]) -> list[Tensor]:
        logits = []
        x = self.blocks[0](self.lateral[0](features[0]))
        for k in range(1, 5):
            if k == 4:
                x = self.narrow(x)
            up = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.blocks[k](up + self.lateral[k](features[k]))
            if k == 4 or self.training or torch.is_grad_enabled():
                logits.append(self.heads[k - 1](F.relu(x)))
        return logits[::-1]


SHARPENING = 3.0
"""How much masks are sharpened before they are added to logits: resampled and softened from frame to frame, thin parts
would fade away by themselves."""


class KeptPlanes(nn.Module):
    """Adds the planes that came in, sharpened, to the logits that go out, each by a learned weight, at every scale.

    Parameters
    ----------
    weights : sequence of float
        The weights to begin with, one a plane, in logits.
    fine : bool
        Whether the finest logits are brought to the planes' own resolution before, so that a thin stroke counts just
        where it was drawn.
    """

    def __init__(self, weights: Sequence[float], fine: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weights).view(1, -1, 1, 1))
        self.fine = fine

    def forward(self, logits: Sequence[Tensor], planes: Tensor) -> list[Tensor]:
        """Logits (B, 1, s, s), finest first, and planes (B, E, S, S) to logits of the same shapes.

        The finest become (B, 1, S, S) where this is `fine`.
        """
        kept = ((planes * SHARPENING).clamp(-1, 1) * self.weight).sum(1, keepdim=True)  # (B, 1, S, S)
        if self.fine:
            finest = F.interpolate(logits[0], planes.shape[-1], mode="bilinear", align_corners=False)
            logits = [finest, *logits[1:]]
        return [x + F.adaptive_avg_pool2d(kept, x.shape[-1]) for x in logits]


def fine_lateral(image: Tensor, planes: Tensor, features: Tensor) -> Tensor:
    """Stride-2 lateral: the encoder's features beside the image and planes themselves, where edges are sharpest."""
    return torch.cat([features, F.avg_pool2d(torch.cat([image * 2 - 1, planes], 1), 2)], 1)
