"""Scribble on one frame, get the object on all of them.

Public names only: everything a user needs is imported from here. `import napari_ivos` loads no more than numpy;
each name loads its module, and with it dask, zarr, torch and the like, when it is first used.
"""

from __future__ import annotations

import importlib
import logging
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
    from napari_ivos.adapting import adapt as adapt
    from napari_ivos.adapting import adapted_model as adapted_model
    from napari_ivos.batch import run_batch as run_batch
    from napari_ivos.frames import FrameStack as FrameStack
    from napari_ivos.frames import open_frames as open_frames
    from napari_ivos.networks import load_model as load_model
    from napari_ivos.predictor import FakePredictor as FakePredictor
    from napari_ivos.predictor import Predictor as Predictor
    from napari_ivos.scribbles import Scribbles as Scribbles
    from napari_ivos.scribbles import Stroke as Stroke
    from napari_ivos.session import FrameResult as FrameResult
    from napari_ivos.session import Session as Session

__version__: str
"""From the tags of the repository, when the package was built."""

_HOME = {
    "FakePredictor": "predictor",
    "FrameResult": "session",
    "FrameStack": "frames",
    "Predictor": "predictor",
    "Scribbles": "scribbles",
    "Session": "session",
    "Stroke": "scribbles",
    "adapt": "adapting",
    "adapted_model": "adapting",
    "load_model": "networks",
    "open_frames": "frames",
    "run_batch": "batch",
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
    "adapt",
    "adapted_model",
    "load_model",
    "open_frames",
    "run_batch",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent, until a program listens


def __getattr__(name: str) -> object:
    """Load a public name's module at its first use (PEP 562)."""
    value: object
    if name == "__version__":
        value = _version()
    elif name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    """The installed version; "0+unknown" where the sources are used without being installed."""
    from importlib import metadata

    try:
        return metadata.version("napari-ivos")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted(__all__)
