"""Which model a batch computes with, as it travels to the workers; who it is, where nothing is computed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from napari_ivos.errors import InputError
from napari_ivos.predictor import Predictor, Storable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ivos.predictor import Float, Interaction, Propagation, Segmentation

MOST_DEVICES = 64


@dataclass(frozen=True)
class ModelSource:
    """A model as it is sent to workers.

    Parameters
    ----------
    name, checksum : str
        Who it is.
    weights : bytes or None
        The .safetensors file of a model that is not shipped.
    predictor : Predictor or None
        A predictor that is no shipped format at all; it travels as it is.
    device : str or None
        Where every worker is to compute; None: the best it has, each worker its own GPU.
    """

    name: str
    checksum: str
    weights: bytes | None = None
    predictor: Predictor | None = None
    device: str | None = None

    @classmethod
    def of(cls, model: Any, device: str | None) -> ModelSource:
        """From what `run_batch` was given: a name, a path, None, or a predictor.

        Raises
        ------
        WeightsError, InputError
            An unknown name, a damaged file, or something that is no model.
        """
        if model is None or isinstance(model, str | os.PathLike):
            from napari_ivos.networks.weights import DEFAULT, SHIPPED, describe

            named = DEFAULT if model is None else str(model)
            facts = describe(named)
            weights = None if named in SHIPPED else Path(facts["path"]).read_bytes()
            return cls(named, facts["checksum"], weights, None, device)
        if not isinstance(model, Predictor):
            raise InputError(f"The model is a {type(model).__name__}; give a name, a path or what load_model returns.")
        if isinstance(model, Storable):
            weights = model.portable_weights()
            return cls(model.name, model.checksum, weights, None, device)
        return cls(model.name, model.checksum, None, model, device)

    @property
    def title(self) -> str:
        """Who it is, for people."""
        return f"{self.name} ({self.checksum[:12]})"

    def load(self) -> Predictor:
        """The model, on this machine; a worker calls it once."""
        if self.predictor is not None:
            return self.predictor
        from napari_ivos.networks.weights import load_bytes, load_model

        device = self.device or pinned_device()
        if self.weights is not None:
            return load_bytes(self.weights, self.name, device)
        return load_model(self.name, device=device)


@dataclass(frozen=True)
class AbsentModel:
    """A model that computes elsewhere: a predictor that only says who it is."""

    name: str
    checksum: str
    size: int
    device: str
    separable: bool

    def segment(self, requests: Sequence[Interaction]) -> list[Segmentation]:
        """Raise `InputError`: nothing is computed here."""
        self._refuse()

    def propagate(self, requests: Sequence[Propagation]) -> list[Float]:
        """Raise `InputError`: nothing is computed here."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(f"The model {self.name} computes on the batch's workers only.")


_held: list[Any] = []
"""Locks on devices, held until the process ends."""


def pinned_device() -> str | None:
    """A GPU that no other worker on this machine has taken; None where there is at most one.

    Each GPU has lock files in the user's temporary folder, which the operating system frees when their process ends;
    so workers that come later, or come again, get what is free. With more workers than GPUs these fill up evenly.
    """
    from napari_ivos.networks.inference import cuda_devices

    count = cuda_devices()
    if count < 2:
        return None
    from napari_ivos.project.locking import FileLock

    user = getattr(os, "getuid", os.getpid)()
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "all").replace(",", "-")
    folder = Path(tempfile.gettempdir()) / f"napari-ivos-{user}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    for turn in range(MOST_DEVICES):
        for device in range(count):
            lock = FileLock(folder / f"gpu-{seen}-{device}-{turn}")
            if lock.acquire():
                _held.append(lock)
                return f"cuda:{device}"
    return None
