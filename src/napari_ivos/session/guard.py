"""What goes wrong inside a model becomes one of our own errors, which no worker swallows."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_ivos.errors import FrameReadError, IvosError, OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_ivos.predictor import Predictor


@contextmanager
def failing_model(predictor: Predictor, frame: int, kept: str) -> Iterator[None]:
    """Say on which frame a model or the stack failed, what is kept, and how to go on."""
    try:
        yield
    except FrameReadError as error:
        raise FrameReadError(f"{error} {kept}", error.frame) from error
    except OutOfMemory as error:
        raise OutOfMemory(f"{error} (frame {frame}). {kept}") from error
    except IvosError:
        raise
    except MemoryError as error:
        raise OutOfMemory(f"Out of memory on frame {frame}. Fewer objects at once need less. {kept}") from error
    except Exception as error:  # a model may be anybody's
        raise IvosError(f"The model {predictor.name} failed on frame {frame}: {error!r}. {kept}") from error
