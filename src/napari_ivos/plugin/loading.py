"""Loading the networks into a process that shows a window."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_ivos.predictor import Predictor


@contextmanager
def without_triton() -> Iterator[None]:
    """Let imports find no triton.

    torchvision's operators import it on the way, through torch's compiler, which we don't use. It brings an LLVM of its
    own, and where the window is drawn by Mesa in software, which has another, the process ends with a segmentation
    fault (seen with triton 3, Mesa 22.3 on Linux).
    """
    if "triton" in sys.modules:
        yield
        return
    sys.modules["triton"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if sys.modules.get("triton", 0) is None:
            del sys.modules["triton"]


def load(name: str | Path | None, device: str | None) -> Predictor:
    """`napari_ivos.load_model`, safely in a process with a window."""
    with without_triton():
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
