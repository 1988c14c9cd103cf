"""The simulated stacks that ship with the package, as napari layers; ``File > Open Sample`` calls these."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).parent.parent / "sample_data"
"""Where the files are: in the package of a wheel, through a relative link in an editable install."""

LayerData = tuple[Any, dict[str, Any], Literal["image"]]


def cells() -> list[LayerData]:
    """Seven simulated nuclei that move, deform, touch and bleach: an image layer, (48, 256, 320) uint16."""
    spatial = {
        "axis_labels": ("t", "y", "x"),
        "scale": (1.0, 0.65, 0.65),
        "units": ("pixel", "micrometer", "micrometer"),
    }
    return [_layer("cells", {**spatial, "rgb": False})]


def toy() -> list[LayerData]:
    """A simulated toy that turns and passes behind a pillar: an RGB image layer, (48, 240, 320, 3) uint8."""
    return [_layer("toy", {"axis_labels": ("t", "y", "x"), "rgb": True})]


def _layer(name: str, options: dict[str, Any]) -> LayerData:
    """One sample as an image layer; its metadata says where its scribbles and its true masks are."""
    import tifffile

    source = {"file": FOLDER / f"{name}.tif", "scribbles": FOLDER / f"{name}_scribbles.json"}
    hints = {key: str(path) for key, path in {**source, "masks": FOLDER / f"{name}_masks.tif"}.items()}
    frames = tifffile.imread(source["file"])
    return frames, {**options, "name": f"{name} (simulated)", "metadata": {"napari_ivos": hints}}, "image"
