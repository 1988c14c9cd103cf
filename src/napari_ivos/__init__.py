"""Scribble on one frame, get the object on all of them.

Public names only: everything a user needs is imported from here. `import napari_ivos` loads no more than numpy;
each name loads its module, and with it dask, zarr, torch and the like, when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from napari_ivos.errors import (
    FrameReadError,
    InputError,
    IvosError,
    OutOfMemory,
    ProjectError,
    ReadOnlyProject,
    SessionBusy,
    WeightsError,
)

if TYPE_CHECKING:
    from napari_ivos.frames import FrameStack as FrameStack
    from napari_ivos.frames import open_frames as open_frames
    from napari_ivos.networks import load_model as load_model
    from napari_ivos.predictor import FakePredictor as FakePredictor
    from napari_ivos.predictor import Predictor as Predictor
    from napari_ivos.scribbles import Scribbles as Scribbles
    from napari_ivos.scribbles import Stroke as Stroke
    from napari_ivos.session import FrameResult as FrameResult
    from napari_ivos.session import Session as Session

__version__ = "0.1.0"

_HOME = {
    "FakePredictor": "predictor",
    "FrameResult": "session",
    "FrameStack": "frames",
    "Predictor": "predictor",
    "Scribbles": "scribbles",
    "Session": "session",
    "Stroke": "scribbles",
    "load_model": "networks",
    "open_frames": "frames",
}
"""Public name -> the module that it is loaded from at first use."""

__all__ = [
    "FakePredictor",
    "FrameReadError",
    "FrameResult",
    "FrameStack",
    "InputError",
    "IvosError",
    "OutOfMemory",
    "Predictor",
    "ProjectError",
    "ReadOnlyProject",
    "Scribbles",
    "Session",
    "SessionBusy",
    "Stroke",
    "WeightsError",
    "__version__",
    "load_model",
    "open_frames",
]


def __getattr__(name: str) -> object:
    """Load a public name's module at its first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
