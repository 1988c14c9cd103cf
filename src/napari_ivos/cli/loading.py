"""Loading the networks for a command, on a machine that does other things as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari_ivos

if TYPE_CHECKING:
    from pathlib import Path

    from napari_ivos.predictor import Predictor


def load(name: str | Path | None, device: str | None) -> Predictor:
    """`napari_ivos.load_model`, with one thread less than there are cores unless ``OMP_NUM_THREADS`` says how many.

    Threads of PyTorch wait for each other, and where another program has one of the cores they mostly wait: on two
    cores with two other programs two threads took 280 to 340 ms for a large object and frame, one thread 65 to 80. On
    two idle ones they take 25 instead of 32 (`benchmarks/engine.py film`).
    """
    from napari_ivos.networks.inference import leave_a_core

    leave_a_core()
    return napari_ivos.load_model(name, device=device)
