"""Loading the networks for a command, on a machine that does other things as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari_ivos

if TYPE_CHECKING:
    from pathlib import Path

    from napari_ivos.predictor import Predictor


def load(name: str | Path | None, device: str | None) -> Predictor:
    """`napari_ivos.load_model`, with one thread less than there are cores unless ``OMP_NUM_THREADS`` says how many.

    Threads of PyTorch wait for each other, and where another program has one of the cores they mostly wait: beside one
    on two cores two threads take several times as long as one does, and on idle ones they gain less than a third
    (`benchmarks/engine.py busy`).
    """
    from napari_ivos.networks.inference import leave_a_core

    leave_a_core()
    return napari_ivos.load_model(name, device=device)
