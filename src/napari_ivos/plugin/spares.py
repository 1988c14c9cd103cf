"""Layers that serve the next session, emptied and hidden, instead of being removed: that crashes some machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

RETIRED = "napari_ivos retired"
"""Key in the metadata of layers that ended with their session, and wait to be used again by the next."""


def retire(layer: Layer) -> None:
    """Hide a layer, and let it wait for the next session."""
    layer.visible = False
    layer.metadata[RETIRED] = True


def spare(viewer: ViewerModel, kind: type[Layer], ndim: int) -> Any:
    """A layer of an earlier session in this viewer, emptied and hidden; None where there is none."""
    for layer in viewer.layers:
        if isinstance(layer, kind) and layer.metadata.get(RETIRED) and not layer.visible:
            same = layer.ndim == ndim and not getattr(layer, "multiscale", False)
            if same and not getattr(layer, "nshapes", 0):
                return layer
    return None


def reuse(viewer: ViewerModel, layer: Layer, name: str, options: dict[str, Any]) -> None:
    """Let a spare layer be as if it were new: on top of the others, named and placed."""
    del layer.metadata[RETIRED]
    viewer.layers.move(viewer.layers.index(layer), len(viewer.layers))
    for option, value in options.items():
        setattr(layer, "current_edge_color" if option == "edge_color" else option, value)
    layer.name = name
    layer.visible = layer.editable = True
    viewer.layers.selection.active = layer
