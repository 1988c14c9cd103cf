"""Make the files in sample_data/: two simulated stacks, their true masks, and first scribbles.

Run ``python scripts/make_sample_data.py``; it needs numpy, scipy and tifffile (with imagecodecs), and takes about a
minute. The same seeds give the same files.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from simulator import cells, strokes, toy

CELLS_FRAME, TOY_FRAME = 22, 12
"""Frames that the scribbles are on."""


def make_cells(folder: Path) -> None:
    """Write the fluorescence time-lapse."""
    nuclei = cells.simulate()
    images, labels = zip(*(cells.render(nuclei, t) for t in range(cells.FRAMES)), strict=True)
    metadata = {
        "axes": "TYX",
        "Name": "cells (simulated)",
        "PhysicalSizeX": cells.PIXEL_SIZE,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": cells.PIXEL_SIZE,
        "PhysicalSizeYUnit": "µm",
        "TimeIncrement": cells.FRAME_INTERVAL,
        "TimeIncrementUnit": "s",
    }
    _write(folder / "cells.tif", np.stack(images), metadata, compression="zlib", predictor=True)
    _write(folder / "cells_masks.tif", np.stack(labels), {**metadata, "Name": "masks of cells"}, compression="zlib")
    drawn = labels[CELLS_FRAME]
    first = strokes.scribbles(drawn, CELLS_FRAME, cells.FRAMES, "cells", cells.SEED, strokes=1, around=False)
    _write_json(folder / "cells_scribbles.json", first)


def make_toy(folder: Path) -> None:
    """Write the RGB clip."""
    images, labels = zip(*(toy.render(t) for t in range(toy.FRAMES)), strict=True)
    metadata = {"axes": "TYXS", "Name": "toy (simulated)", "TimeIncrement": 1 / 15, "TimeIncrementUnit": "s"}
    jpeg = {"compression": "jpeg", "compressionargs": {"level": 90}}
    _write(folder / "toy.tif", np.stack(images), metadata, photometric="rgb", **jpeg)
    masks = {**metadata, "axes": "TYX", "Name": "masks of toy"}
    _write(folder / "toy_masks.tif", np.stack(labels), masks, compression="zlib")
    first = strokes.scribbles(labels[TOY_FRAME], TOY_FRAME, toy.FRAMES, "toy", toy.SEED, strokes=2, around=True)
    _write_json(folder / "toy_scribbles.json", first)


def _write(path: Path, stack: npt.NDArray[Any], metadata: dict[str, Any], **options: Any) -> None:
    options = {"photometric": "minisblack", **options}
    tifffile.imwrite(path, stack, ome=True, metadata=metadata, software="napari-ivos sample data", **options)
    print(f"{path}: {stack.shape} {stack.dtype}, {path.stat().st_size / 1e6:.2f} MB")


def _write_json(path: Path, scribbles: dict[str, Any]) -> None:
    path.write_text(json.dumps(scribbles) + "\n", encoding="utf-8")
    print(f"{path}: {sum(map(len, scribbles['scribbles']))} strokes on frame {scribbles['annotated_frame']}")


def main() -> None:
    """Write all files into a folder, sample_data/ if none is named."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent.parent / "sample_data")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    make_cells(folder)
    make_toy(folder)


if __name__ == "__main__":
    main()
