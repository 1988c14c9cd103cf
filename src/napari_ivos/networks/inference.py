"""The two networks behind the predictor protocol: numpy in, numpy out; one batch for all objects of a call."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_ivos.errors import OutOfMemory, WeightsError
from napari_ivos.motion import resampled
from napari_ivos.networks.appearance import Appearance
from napari_ivos.networks.blocks import MobileNetV2Encoder
from napari_ivos.networks.interaction import InteractionNetwork, ReferenceTensors
from napari_ivos.networks.planes import Float, mask_plane, propagation_planes, stroke_plane
from napari_ivos.networks.remembered import Remembered
from napari_ivos.predictor import Interaction, Propagation, Reference, Segmentation
from napari_ivos.untrusted import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_ivos.networks.blocks import Architecture
    from napari_ivos.networks.propagation import Memory, PropagationNetwork
    from napari_ivos.regions import Box

_N = TypeVar("_N", bound=torch.nn.Module)
_R = TypeVar("_R")
_A = TypeVar("_A")

_threads: int | None = None
_settled = threading.local()
MAXIMUM_BATCH = 64
"""Objects that go through a network at once on an accelerator; more are cut into batches of this many."""
CPU_BATCH = 8
"""The same on a CPU: its caches gain nothing from more, and memory stays small."""
THREAD_BATCH = 1
"""The same where a CPU computes with one thread: a batch gains nothing there (30 to 45 ms an object for 1 to 8), and
alone an object's result does not depend on its company, whose number decides how convolutions are summed."""

MEMORIES_AT_MOST = 64 * 2**20
"""Bytes of what is kept of references from one frame to the next: some hundred kB an object and reference."""


class TorchPredictor:
    """Both networks, ready for use; implements `napari_ivos.Predictor`.

    Parameters
    ----------
    interaction, propagation : nn.Module
        The networks; moved to the device and set to evaluation.
    name, checksum : str
        What the model is called, and what identifies its weights.
    device : str, optional
        Where to compute; the best there is if left out.
    portable : bytes, optional
        The weights as a .safetensors file, for a model that exists nowhere else (one adapted to a stack): a project
        keeps them.

    Notes
    -----
    A CUDA device computes in autocast (bfloat16 where it has it, else float16); CPU and MPS in float32, which the light
    encoder's depthwise convolutions are fastest in. On a CPU that multiplies bfloat16 by itself (`multiplies_bfloat16`)
    the decoders compute in that, in half the time. Calls from several threads wait for each other.

    Raises
    ------
    WeightsError
        A device that is not there.
    """

    def __init__(
        self,
        interaction: InteractionNetwork,
        propagation: PropagationNetwork,
        *,
        name: str,
        checksum: str,
        device: str | None = None,
        portable: bytes | None = None,
    ) -> None:
        self._device = pick_device(device)
        self._name, self._checksum, self._portable = name, checksum, portable
        self.architecture: Architecture = propagation.architecture
        self.interaction = self._ready(interaction)
        self.propagation = self._ready(propagation)
        for decoder in (self.interaction.decoder, self.propagation.decoder):
            decoder.in_bfloat16 = self._device.type == "cpu" and multiplies_bfloat16()
        encoder = self.interaction.encoder
        self._appearance: Appearance | None = None
        if isinstance(encoder, MobileNetV2Encoder):  # a ResNet's features are ten times as many
            plain = [_values(reference_shapes(self.architecture, side)) for side in sides_of(self.architecture)]
            self._appearance = Appearance(encoder, plain)
        self._memories = Remembered(MEMORIES_AT_MOST, _bytes_of)
        self._lock = threading.Lock()
        self._amp = self._device.type == "cuda"
        self._batch = _batch_on(self._device)

    def __repr__(self) -> str:
        return f"<TorchPredictor {self.name} ({self.checksum[:8]}), {self.size} px, on {self.device}>"

    @property
    def name(self) -> str:
        return self._name

    @property
    def checksum(self) -> str:
        return self._checksum

    @property
    def size(self) -> int:
        return self.architecture.size

    @property
    def device(self) -> str:
        return str(self._device)

    @property
    def separable(self) -> bool:
        """Whether an object's result is the same, to the last bit, whatever other objects go with it."""
        return self._batch == 1

    @property
    def follows_motion(self) -> bool:
        """Whether neighbours' masks are to be moved along with the picture before the networks see them."""
        return self.architecture.motion

    def side(self, region: Box) -> int:
        """Side at which the networks see a region: a small one need not be seen as large as a large one."""
        a = self.architecture
        return a.small if 0 < a.small < a.size and max(region.shape) <= a.size else a.size

    def portable_weights(self) -> bytes | None:
        """The weights as a .safetensors file where a project has to keep them; None where they can be had again."""
        return self._portable

    def segment(self, requests: Sequence[Interaction]) -> list[Segmentation]:
        """Scribbles to masks; see `napari_ivos.Predictor`.

        Raises
        ------
        OutOfMemory
            The device has too little memory even for one object.
        """
        return self._by_side(self._segment, requests, [len(r.positive) for r in requests])

    def propagate(self, requests: Sequence[Propagation]) -> list[Float]:
        """Neighbours' masks to this frame's; see `napari_ivos.Predictor`.

        Raises
        ------
        OutOfMemory
            The device has too little memory even for one object.
        """
        return self._by_side(self._propagate, requests, [len(r.neighbour) for r in requests])

    # --- inside -----------------------------------------------------------------------------------------------------

    def _ready(self, network: _N) -> _N:
        moved = network.to(self._device).to(memory_format=torch.channels_last)
        return moved.eval().requires_grad_(False)

    def _by_side(
        self, run: Callable[[Sequence[_R]], list[_A]], requests: Sequence[_R], sides: Sequence[int]
    ) -> list[_A]:
        """Answers in the order of the requests, which are run in batches of one side each."""
        answers: dict[int, _A] = {}
        for side in sorted(set(sides)):
            places = [k for k, s in enumerate(sides) if s == side]
            for start in range(0, len(places), self._batch):
                part = places[start : start + self._batch]
                answers |= zip(part, self._smaller(run, [requests[k] for k in part]), strict=True)
        return [answers[k] for k in range(len(requests))]

    def _smaller(self, run: Callable[[Sequence[_R]], list[_A]], requests: Sequence[_R]) -> list[_A]:
        """Run; where memory is short, run halves."""
        try:
            with self._lock, torch.inference_mode():
                _settle()
                return run(self._even(requests))[: len(requests)]
        except (torch.OutOfMemoryError, MemoryError) as error:
            failure = str(error).split("\n")[0]
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if len(requests) == 1:
            raise OutOfMemory(
                f"{self.device} has too little memory for one object at {self.size} px ({failure}): close other "
                "programs that use it, or load the model with device='cpu'."
            )
        half = len(requests) // 2
        return self._smaller(run, requests[:half]) + self._smaller(run, requests[half:])

    def _even(self, requests: Sequence[_R]) -> Sequence[_R]:
        """Requests, on a GPU with copies of the first up to the next power of two.

        cuDNN plans each size of batch anew, which takes longer than many a batch.
        """
        if self._device.type != "cuda":
            return requests
        return [*requests, *[requests[0]] * ((1 << (len(requests) - 1).bit_length()) - len(requests))]

    def _segment(self, requests: Sequence[Interaction]) -> list[Segmentation]:
        side = len(requests[0].positive)
        planes = torch.cat(
            [
                mask_plane([r.previous for r in requests], side),
                stroke_plane([r.positive for r in requests]),
                stroke_plane([r.negative for r in requests]),
            ],
            1,
        )
        images = self._images(requests, side)
        with self._autocast():
            logits, reference = self.interaction(images, self._to(planes))
        probabilities = self._probabilities(logits[0].float(), side)
        packed = [pack(reference, k) for k in range(len(requests))]
        seen = [k for k, r in enumerate(requests) if r.appearance]
        if self._appearance is not None and seen:
            for k, features in zip(seen, self._features(self._appearance, images[seen]), strict=True):
                r = requests[k]
                drawn = r.positive.any() or r.negative.any()
                mask = probabilities[k] if drawn or r.previous is None else r.previous
                packed[k] = np.concatenate([packed[k], self._appearance.sample(features, mask)])
        return [Segmentation(p, one) for p, one in zip(probabilities, packed, strict=True)]

    def _features(self, appearance: Appearance, images: Tensor) -> Tensor:
        with self._autocast():
            return appearance.features(images)

    def _without_sample(self, reference: Reference) -> Reference:
        return reference if self._appearance is None else self._appearance.without_sample(reference)

    def _propagate(self, requests: Sequence[Propagation]) -> list[Float]:
        side = len(requests[0].neighbour)
        planes = propagation_planes(
            [r.neighbour for r in requests],
            [r.previous for r in requests],
            [r.change for r in requests] if self.follows_motion else None,
            side,
        )
        images = self._images(requests, side)
        with self._autocast():
            logits = self.propagation(images, self._to(planes), self._memory(requests, side))
        return self._probabilities(logits[0].float(), side, self._odds(requests, images, side))

    def _memory(self, requests: Sequence[Propagation], side: int) -> Memory:
        """What the objects' references say, put together anew only where they are not those of the last frame."""
        every = [one for r in requests for one in r.references]
        counts = tuple(len(r.references) for r in requests)
        return self._memories.get(every, lambda: self._memorise([r.references for r in requests], side), counts, side)

    def _memorise(self, references: Sequence[Sequence[Reference]], side: int) -> Memory:
        most = max(map(len, references))
        valid = torch.tensor([[k < len(own) for k in range(most)] for own in references], device=self._device)
        unpacked = [
            unpack(
                [self._without_sample(own[min(k, len(own) - 1)]) for own in references],
                self.architecture,
                side,
                self._device,
            )
            for k in range(most)
        ]
        return self.propagation.memorise(unpacked, valid)

    def _odds(self, requests: Sequence[Propagation], images: Tensor, side: int) -> Tensor | None:
        """What the objects' looks add to the logits (B, 1, S, S); None: nothing."""
        if self._appearance is None:
            return None
        found = {k: self._appearance.of(r.references) for k, r in enumerate(requests) if r.appearance}
        looks = {k: one for k, one in found.items() if one is not None}
        if not looks:
            return None
        told = list(looks)
        odds = torch.zeros((len(requests), 1, side, side), device=self._device)
        features = self._features(self._appearance, images[told])
        odds[told] = self._appearance.odds(features, list(looks.values()), side)
        return odds

    def _images(self, requests: Sequence[Interaction] | Sequence[Propagation], side: int) -> Tensor:
        images = np.stack([resampled(request.image, (side, side)) for request in requests])  # (B, S, S, 3)
        return torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2)  # so they lie with their channels last

    def _to(self, planes: Tensor) -> Tensor:
        return planes.to(self._device).contiguous(memory_format=torch.channels_last)

    def _probabilities(self, logits: Tensor, side: int, odds: Tensor | None = None) -> list[Float]:
        """Logits (B, 1, s, s), and `odds` (B, 1, S, S) in their favour, to probabilities (S, S)."""
        full = F.interpolate(logits, side, mode="bilinear", align_corners=False)
        if odds is not None:
            full = full + odds
        return list(torch.sigmoid(full)[:, 0].cpu().numpy())

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if not self._amp:
            return contextlib.nullcontext()
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.autocast(self._device.type, dtype)


def leave_a_core() -> None:
    """Compute with one thread less than there are cores, unless the user has said how many (``OMP_NUM_THREADS``).

    In a process with a window the last core draws it: threads of a convolution wait for each other, so that all of them
    stand still whenever one of their cores paints.
    """
    global _threads  # noqa: PLW0603 - OpenMP's own setting is one of the process and its threads, too
    if "OMP_NUM_THREADS" not in os.environ:
        _threads = max(1, min(torch.get_num_threads(), cores() - 1))
        _settle()


def _settle() -> None:
    """Give the calling thread the number of threads that was agreed on: OpenMP asks each one for its own."""
    if _threads is not None and getattr(_settled, "threads", None) != _threads:
        torch.set_num_threads(_threads)
        _settled.threads = _threads


def threads() -> int:
    """With how many threads networks compute on the CPU."""
    return torch.get_num_threads()


def release_memory() -> None:
    """Give memory of accelerators that nothing uses any more back to other programs."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def pick_device(name: str | None) -> torch.device:
    """The device of that name, or the best there is.

    Raises
    ------
    WeightsError
        It is not there.
    """
    if not name or name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise WeightsError(f"{name!r} is not a device; try 'cpu', 'cuda' or 'mps'.") from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        found = [kind for kind, yes in there.items() if yes and kind != device.type]
        raise WeightsError(f"The device {name!r} is not there; this machine has: {', '.join(found)}.")
    return device


def _batch_on(device: torch.device) -> int:
    if device.type != "cpu":
        return MAXIMUM_BATCH
    return CPU_BATCH if torch.get_num_threads() > 1 else THREAD_BATCH


def multiplies_bfloat16() -> bool:
    """Whether the CPU multiplies matrices of bfloat16 by itself (Intel's AMX, in servers since 2023)."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # newer versions of PyTorch tell
    return bool(capabilities.get("amx_bf16", False))


def cuda_devices() -> int:
    """How many CUDA devices this process sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def pack(reference: ReferenceTensors, k: int) -> Reference:
    """Object k's reference as one flat float16 array: coarse, key and value features one after the other."""
    parts = [x[k].float().flatten() for x in (reference.coarse, reference.key, reference.value)]
    flat = torch.cat(parts).clamp(-6e4, 6e4).cpu().numpy()
    return np.asarray(flat, np.float16)


def unpack(
    references: Sequence[Reference], architecture: Architecture, side: int, device: torch.device
) -> ReferenceTensors:
    """References of B objects as tensors, as if all had been learned from regions of `side`; see `pack`.

    Raises
    ------
    WeightsError
        A reference that another architecture made.
    """
    known = {_values(reference_shapes(architecture, S)): S for S in sides_of(architecture)}
    wrong = next((r for r in references if r.size not in known), None)
    if wrong is not None:
        raise WeightsError(
            f"A reference holds {wrong.size} numbers, this model's {' or '.join(map(str, known))}: another model made "
            "it. Annotate again with this model, or go on with the other."
        )
    parts = [_tensors(r, reference_shapes(architecture, known[r.size]), device) for r in references]
    wanted = reference_shapes(architecture, side)
    whole = [
        torch.cat([x if x.shape[1:] == shape else _at(x, shape) for x in kind])
        for kind, shape in zip(zip(*parts, strict=True), wanted, strict=True)
    ]
    return ReferenceTensors(*whole)


def _tensors(reference: Reference, shapes: Sequence[tuple[int, int, int]], device: torch.device) -> list[Tensor]:
    flat = torch.from_numpy(reference.astype(np.float32)).to(device)
    parts = torch.split(flat, [int(np.prod(s)) for s in shapes])
    return [part.view(1, *s) for part, s in zip(parts, shapes, strict=True)]


def _at(features: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Features (1, C, h, w) at another (h, w)."""
    return F.interpolate(features, shape[1:], mode="bilinear", align_corners=False)


def _bytes_of(memory: Memory) -> int:
    tensors = (x for x in vars(memory).values() if x is not None)
    return sum(x.numel() * x.element_size() for x in tensors)


def _values(shapes: Sequence[tuple[int, int, int]]) -> int:
    return sum(int(np.prod(shape)) for shape in shapes)


def sides_of(architecture: Architecture) -> tuple[int, ...]:
    """Sides at which the networks see regions."""
    return (architecture.size, architecture.small) if architecture.small else (architecture.size,)


def reference_shapes(architecture: Architecture, side: int) -> tuple[tuple[int, int, int], ...]:
    """Shapes (C, h, w) of one object's coarse, key and value features, from a region seen at `side`."""
    coarse = {"mobilenet_v2": 320, "resnet18": 512, "resnet50": 2048}[architecture.encoder]
    low, high = side // 32, side // 16
    return (coarse, low, low), (architecture.key, high, high), (architecture.width + 1, high, high)
