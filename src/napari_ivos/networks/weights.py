"""Models on disk: safetensors with the architecture in the header, a registry of names, checksums; no pickle."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ivos.errors import WeightsError
from napari_ivos.files import from_home
from napari_ivos.untrusted import parse_json

if TYPE_CHECKING:
    import torch

    from napari_ivos.networks.blocks import Architecture
    from napari_ivos.networks.inference import TorchPredictor
    from napari_ivos.networks.interaction import InteractionNetwork
    from napari_ivos.networks.propagation import PropagationNetwork

FORMAT = "napari-ivos 1"
DEFAULT = "compact"
SHIPPED = ("compact",)
"""Models in the package, by name."""
TRAINABLE = ("compact", "resnet50")
"""Architectures that the training program knows by name; without trained weights there is nothing to load."""
MAXIMUM_BYTES = 2_000_000_000
MAXIMUM_HEADER = 1_000_000


def architecture_of(name: str) -> Architecture:
    """The architecture of that name: "compact" for CPUs, "resnet50" as in the paper."""
    from napari_ivos.networks.blocks import Architecture

    if name == "compact":
        return Architecture(size=256, small=192, residual_masks=True, motion=True)
    if name == "resnet50":
        return Architecture(
            encoder="resnet50", size=256, width=256, fine_width=64, deep_laterals=True, key=128, residual_masks=True
        )
    raise WeightsError(f"No architecture is called {name!r}; there are {', '.join(TRAINABLE)}.")


def load_model(name: str | Path | None = None, device: str | None = None) -> TorchPredictor:
    """Load a trained model: the shipped one, one of another name, or a file.

    Parameters
    ----------
    name : str or path, optional
        A shipped model's name ("compact", the default), or a .safetensors file.
    device : str, optional
        "cpu", "cuda", "cuda:1", "mps"; the best there is if left out.

    Returns
    -------
    TorchPredictor

    Raises
    ------
    WeightsError
        An unknown name; a file that is missing, damaged, pickled or of another architecture; a device that is not
        there.
    """
    path, known = _locate(DEFAULT if name is None else name)
    return load_bytes(_read(path), known, device)


def load_bytes(blob: bytes, name: str, device: str | None = None, portable: bool = False) -> TorchPredictor:
    """The model in the bytes of a .safetensors file, such as one that a project keeps; see `load_model`.

    `portable` says that they exist nowhere else, so that a project that uses the model keeps them.
    """
    from napari_ivos.networks.inference import TorchPredictor

    interaction, propagation, meta = build(blob, name)
    return TorchPredictor(
        interaction,
        propagation,
        name=meta.get("name", name),
        checksum=checksum_of(blob),
        device=device,
        portable=blob if portable else None,
    )


def _locate(name: str | Path) -> tuple[Path, str]:
    if str(name) in SHIPPED:
        path = Path(str(resources.files("napari_ivos.networks") / "models" / f"{name}.safetensors"))
        if not path.exists():
            raise WeightsError(f"The model {name!r} is missing from this installation ({path.name}); install again.")
        return path, str(name)
    path = from_home(name)
    if path.is_file():
        return path, path.stem
    if str(name) in TRAINABLE:
        raise WeightsError(
            f"The architecture {name!r} has no trained weights in this package: train it with `napari-ivos train`, "
            "then give the path of its .safetensors file."
        )
    known = ", ".join(repr(n) for n in SHIPPED)
    raise WeightsError(f"No model is called {str(name)!r} and no such file exists; shipped: {known}.")


def _read(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAXIMUM_BYTES:
        raise WeightsError(f"{path.name} is {size / 1e9:.1f} GB; weights are at most {MAXIMUM_BYTES / 1e9:.0f} GB.")
    blob = path.read_bytes()
    expected = path.with_name(path.name + ".sha256")
    if expected.exists():
        wanted = (expected.read_text(encoding="ascii", errors="replace").split() or ["nothing"])[0]
        found = checksum_of(blob)
        if found != wanted:
            raise WeightsError(
                f"{path.name} is damaged: its checksum is {found[:12]}..., expected {wanted[:12]}...; install again."
            )
    return blob


def describe(name: str | Path | None = None) -> dict[str, Any]:
    """Say what a model's file says of itself, without loading it or torch.

    Parameters
    ----------
    name : str or path, optional
        As for `load_model`.

    Returns
    -------
    dict
        path, bytes, checksum (SHA-256), architecture, and whatever its maker noted; JSON-able.

    Raises
    ------
    WeightsError
        As for `load_model`.
    """
    path, known = _locate(DEFAULT if name is None else name)
    blob = _read(path)
    facts = {"name": known, "path": str(path), "bytes": len(blob), "checksum": checksum_of(blob)}
    return {**facts, **read_header(blob, known)}


def checksum_of(blob: bytes) -> str:
    """SHA-256 of a model's file, in hexadecimal."""
    return hashlib.sha256(blob).hexdigest()


def read_header(blob: bytes, name: str = "the file") -> dict[str, Any]:
    """What a model's file says of itself: "architecture" and whatever its maker noted.

    Raises
    ------
    WeightsError
        Not a safetensors file of this package; a pickle is named as such.
    """
    if blob[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or blob[:4] == b"PK\x03\x04":
        raise WeightsError(f"{name} is a pickle, which can run code when it is opened: only .safetensors is taken.")
    size = int.from_bytes(blob[:8], "little")
    if len(blob) < 8 or not 0 < size <= min(MAXIMUM_HEADER, len(blob) - 8):
        raise WeightsError(f"{name} is not a safetensors file (or is cut off): {len(blob)} bytes, header of {size}.")
    try:
        header = parse_json(blob[8 : 8 + size])
        meta = header.get("__metadata__", {})
        if meta.get("format") != FORMAT:
            raise WeightsError(
                f"{name} holds format {meta.get('format')!r}; expected {FORMAT!r}: not made by this package."
            )
        if not all(isinstance(value, str) for value in meta.values()):
            raise WeightsError(f"{name}: the notes in its header are not all text, as safetensors demands.")
        return {**meta, "architecture": parse_json(meta["architecture"])}
    except (ValueError, KeyError, AttributeError) as error:
        raise WeightsError(f"{name}: the header of the safetensors file can't be read ({error}).") from error


def build(blob: bytes, name: str = "the file") -> tuple[InteractionNetwork, PropagationNetwork, dict[str, Any]]:
    """Both networks and the header of a model's file."""
    import safetensors
    from safetensors.torch import load

    meta = read_header(blob, name)
    architecture = _architecture(meta["architecture"], name)
    _check_size(architecture, len(blob), name)
    try:
        tensors = load(blob)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{name} is damaged: {error!r}.") from error
    interaction, propagation = new_networks(architecture)
    for prefix, network in (("interaction.", interaction), ("propagation.", propagation)):
        fill(network, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}, name)
    return interaction, propagation, meta


def _architecture(values: dict[str, Any], name: str) -> Architecture:
    from napari_ivos.networks.blocks import Architecture

    try:
        architecture = Architecture(**values)
    except TypeError as error:
        raise WeightsError(f"{name} describes an architecture this version does not know: {error}.") from error
    sizes = (architecture.size, architecture.small or architecture.size)
    widths = (architecture.width, architecture.fine_width, architecture.key)
    whole = all(type(number) is int for number in (architecture.size, architecture.small, *widths))  # no 64.0, no True
    fits = whole and all(size % 32 == 0 and 64 <= size <= 512 for size in sizes)
    if not fits or architecture.encoder not in ("mobilenet_v2", "resnet18", "resnet50"):
        raise WeightsError(f"{name} describes an impossible architecture: {values}.")
    if min(widths) < 1 or max(widths) > 1024:
        raise WeightsError(f"{name} describes an architecture that is impossibly narrow or wide: {values}.")
    return architecture


def _check_size(architecture: Architecture, size: int, name: str) -> None:
    """Refuse a file too small for its architecture, before memory is taken for the networks."""
    import torch

    with torch.device("meta"):
        networks = new_networks(architecture)
    values = sum(value.numel() for network in networks for value in network.state_dict().values())
    if size < values:  # a byte a value is less than any weights need
        raise WeightsError(f"{name} has {size:,} bytes; its architecture has {values:,} values: it is cut off.")


def new_networks(architecture: Architecture) -> tuple[InteractionNetwork, PropagationNetwork]:
    """Both networks with fresh weights."""
    from napari_ivos.networks.interaction import InteractionNetwork
    from napari_ivos.networks.propagation import PropagationNetwork

    return InteractionNetwork(architecture), PropagationNetwork(architecture)


def fill(network: torch.nn.Module, tensors: dict[str, torch.Tensor], name: str) -> None:
    """Load tensors into a network; all must be there, of the right shape and finite.

    Raises
    ------
    WeightsError
        Names the first that is not.
    """
    own = network.state_dict()
    for key, value in own.items():
        if key not in tensors:
            raise WeightsError(f"{name} lacks the tensor {key!r} of its architecture.")
        if tensors[key].shape != value.shape:
            raise WeightsError(
                f"{name}: tensor {key!r} has shape {tuple(tensors[key].shape)}, the architecture {tuple(value.shape)}."
            )
        if tensors[key].dtype not in _kept_as(value.dtype):
            raise WeightsError(f"{name}: tensor {key!r} holds {tensors[key].dtype}, which is not read.")
        if not bool(tensors[key].isfinite().all()):
            raise WeightsError(f"{name}: tensor {key!r} holds values that are not finite.")
    network.load_state_dict({k: tensors[k].to(own[k].dtype) for k in own})


def _kept_as(dtype: torch.dtype) -> tuple[torch.dtype, ...]:
    """Types in which a file may hold a tensor that is of `dtype` in a network."""
    import torch

    if dtype.is_floating_point:
        return torch.float16, torch.bfloat16, torch.float32, torch.float64
    return (dtype,)


def to_bytes(
    interaction: torch.nn.Module, propagation: torch.nn.Module, architecture: Architecture, **notes: str
) -> bytes:
    """A model's file, float16: what `load_bytes` reads. The same weights and notes give the same bytes."""
    import torch
    from safetensors.torch import save

    tensors = {
        f"{prefix}.{key}": value.detach()
        .to("cpu", torch.float16 if value.is_floating_point() else value.dtype)
        .contiguous()
        for prefix, network in (("interaction", interaction), ("propagation", propagation))
        for key, value in network.state_dict().items()
    }
    meta = {"format": FORMAT, "architecture": json.dumps(architecture.to_dict()), **notes}
    return _sorted_notes(save(tensors, meta))


def _sorted_notes(blob: bytes) -> bytes:
    """The same file with the header's notes in one order; safetensors writes them in any, so that checksums differ."""
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text + blob[8 + size :]
