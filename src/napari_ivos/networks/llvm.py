"""Two LLVMs in one process: the one of triton, which torchvision brings in, and the one of Mesa, which draws windows.

Mesa makes its LLVM's symbols known to everything that is loaded later. A triton that comes after it takes them for its
own, and the process ends with a segmentation fault while torchvision is imported: in napari's console, a notebook or
a plugin, wherever a window is drawn by Mesa with LLVM (in software, as on virtual and remote desktops, or on AMD's
chips). The other way round, and where there is no triton or no Mesa, nothing happens. Seen with triton 3.8, Mesa 22.3.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path

LOG = logging.getLogger("napari_ivos")
MAPPED = Path("/proc/self/maps")
"""What is loaded into this process, on Linux; there is no triton elsewhere that comes with torch."""


def load_triton_apart() -> bool:
    """Load triton's library so that it keeps to its own LLVM, where it would otherwise find another one's.

    Costs 0.1 s where it does something; call it before torchvision is imported.

    Returns
    -------
    bool
        Whether it was loaded here.
    """
    if "triton" in sys.modules or not hasattr(os, "RTLD_DEEPBIND") or not _another_llvm():
        return False
    spec = find_spec("triton")
    folders = [] if spec is None else spec.submodule_search_locations or []
    for library in (path for folder in folders for path in Path(folder, "_C").glob("libtriton*.so")):
        try:
            ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_DEEPBIND)
        except OSError as error:  # then nobody can load it, and torch goes on without
            LOG.info("triton can't be loaded: %s", error)
            return False
        return True
    return False


def _another_llvm() -> bool:
    """Whether a shared LLVM is in this process already."""
    try:
        return "/libLLVM" in MAPPED.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
