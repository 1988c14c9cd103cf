"""Loading the networks into a process that shows a window."""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_ivos.predictor import Predictor


def load(name: str | Path | None, device: str | None) -> Predictor:
    """`napari_ivos.load_model`, in a process that has a window to keep alive."""
    read_in_torch()
    from napari_ivos.networks import load_model
    from napari_ivos.networks.inference import leave_a_core

    leave_a_core()
    return load_model(name, device)


def read_in_torch() -> bool:
    """Have torch's libraries read and linked while the window goes on, on Linux; whether it was done here.

    An import holds Python's lock for as long as the system needs to read hundreds of megabytes, and the window stands
    still: 0.3 s, and one or several seconds where they come from the disk. A call through ctypes doesn't hold it. What
    fails here is left to the import.
    """
    if sys.platform != "linux" or "torch" in sys.modules:
        return False
    spec = find_spec("torch")
    folders = [] if spec is None else spec.submodule_search_locations or []
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype, dlopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    loaded = []
    # as torch itself does, what it needs of others first and for all; nothing of it that calls Python as it is linked
    for name, mode in (("libtorch_global_deps.so", os.RTLD_GLOBAL), ("libtorch.so", os.RTLD_LOCAL)):
        paths = [path for path in (Path(folder, "lib", name) for folder in folders) if path.exists()]
        loaded += [bool(dlopen(os.fsencode(path), os.RTLD_NOW | mode)) for path in paths[:1]]
    return all(loaded) and len(loaded) == 2


def release_memory() -> None:
    """Give memory that networks used on an accelerator back to other programs, if any were loaded in this process."""
    inference = sys.modules.get("napari_ivos.networks.inference")
    if inference is not None:
        inference.release_memory()


def threads() -> int:
    """With how many threads networks compute in this process; 0 where none were loaded."""
    inference = sys.modules.get("napari_ivos.networks.inference")
    return 0 if inference is None else int(inference.threads())
