"""A method of your own in the benchmark, beside the others and under the same rules.

``napari-ivos benchmark sample_data --methods ivos,examples/benchmark_method.py:Box`` plays it as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_ivos.benchmark import Settings, find_sequences, read_sequence, run

if TYPE_CHECKING:
    from napari_ivos import Scribbles


class Box:
    """Every object is the box around its newest strokes, on all frames: the least that a method can do."""

    name = "box"

    def start(self, frames: np.ndarray) -> None:
        """A new stack, (T, H, W) or (T, H, W, 3)."""
        self.labels = np.zeros(frames.shape[:3], np.uint16)

    def interact(self, scribbles: Scribbles) -> None:
        """New strokes on one frame; ids are those to use in the labels."""
        for stroke in scribbles.strokes:
            if stroke.object_id:
                (y0, x0), (y1, x1) = stroke.points.min(0).astype(int), stroke.points.max(0).astype(int) + 1
                self.labels[:, y0:y1, x0:x1] = stroke.object_id

    def propagate(self) -> np.ndarray:
        """The round's result: labels (T, H, W)."""
        return self.labels

    def close(self) -> None:
        """No more rounds."""


if __name__ == "__main__":
    for path in find_sequences("sample_data"):
        result = run(read_sequence(path), Box(), Settings(rounds=2, every=5, boundary=False))
        print(f"{result.sequence}: J {result.j[0]:.2f} after the first round, {result.j[1]:.2f} after the second")
