"""What napari shows: the only folder that may import napari, Qt and magicgui; it holds no state of a segmentation.

`desk` does, by `work` and its parts; `widget` shows; `layers`, with `result` and `stroke_layers`, binds layers to a
session; `engine` is the one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_ivos.plugin.widget import IvosWidget

__all__ = ["dock"]


def dock(viewer: Any = None) -> IvosWidget:
    """The plugin's widget in a viewer; opened where it isn't.

    Parameters
    ----------
    viewer : napari.Viewer, optional
        Raw or as plugins get it. Default: the current one, or a new one.

    Returns
    -------
    IvosWidget
        Its `session` is the live session, None before a stack is chosen; its methods are those of `Desk`.
    """
    from napari_ivos.plugin.docking import open_dock

    return open_dock(viewer)
