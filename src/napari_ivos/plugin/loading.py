"""Loading the networks into a process that shows a window."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from napari_ivos.predictor import Predictor


def load(name: str | Path | None, device: str | None) -> Predictor:
    """`napari_ivos.load_model`, in a process that has a window to keep alive."""
    from napari_ivos.networks import load_model
    from napari_ivos.networks.inference import leave_a_core

    leave_a_core()
    return load_model(name, device)


def release_memory() -> None:
    """Give memory that networks used on an accelerator back to other programs, if any were loaded in this process."""
    inference = sys.modules.get("napari_ivos.networks.inference")
    if inference is not None:
        inference.release_memory()


def threads() -> int:
    """With how many threads networks compute in this process; 0 where none were loaded."""
    inference = sys.modules.get("napari_ivos.networks.inference")
    return 0 if inference is None else int(inference.threads())
