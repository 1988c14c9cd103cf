"""The neural networks: torch lives here (and in `training`), and nowhere else; it implements `predictor.Predictor`."""

from __future__ import annotations

from napari_ivos.networks.weights import load_model

__all__ = ["load_model"]
