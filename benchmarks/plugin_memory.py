"""How much memory the window takes on a stack that is far larger than the machine's, measured in the real one.

``xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/plugin_memory.py``

The stack is a zarr of 6,000 frames of 2,048 x 2,048 px, 16-bit: 50 GB for who reads it, of which only the frames that
are looked at are written, so that it takes little room on disk. Prints the resident memory at each step, for that stack
and for one of 40 frames: the difference is what the length costs. Linux only (it reads ``/proc``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 2048
LONG, SHORT = 6000, 40
RUN = 30
"""Frames that are propagated over."""
LOOKS = 60
"""Frames, spread over the stack, that are looked at."""


def picture(frame: int) -> np.ndarray:
    """A bright disc that moves over a smooth texture: (2048, 2048) uint16."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    ground = 1200 + 300 * np.sin(rows / 40) * np.cos(columns / 55)
    inside = np.hypot(rows - 1000, columns - 900 - 3 * (frame % RUN)) < 120
    texture = 3200 + 200 * np.sin(rows / 9)
    return np.asarray(np.where(inside, texture, ground), np.uint16)


def stack_of(folder: Path, frames: int) -> Path:
    """A sparse zarr: the frames of the run, and some spread over all."""
    import zarr

    path = folder / "stack.zarr"
    array = zarr.create_array(path, shape=(frames, SIDE, SIDE), chunks=(1, SIDE, SIDE), dtype="uint16", fill_value=1200)
    middle = frames // 2
    for frame in sorted({*range(middle, min(middle + RUN, frames)), *spread(frames)}):
        array[frame] = picture(frame)
    return path


def spread(frames: int) -> list[int]:
    """Places of the frames that are looked at."""
    return sorted({int(f) for f in np.linspace(0, frames - 1, LOOKS)})


def memory(name: str) -> float:
    """A line of this process's /proc status (VmRSS, VmHWM), in MB of a million bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit(f"/proc/self/status has no {name}: this benchmark needs Linux.")


def steps(path: Path, model_name: str | None, note: Callable[[str], None]) -> None:
    """Open, start, draw, propagate and look through; `note` is called after each."""
    import napari
    import zarr
    from qtpy.QtTest import QTest

    from napari_ivos.plugin import dock
    from napari_ivos.plugin.loading import load

    wait: Any = QTest
    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(1380, 860)
    data = zarr.open_array(path, mode="r")
    viewer.add_image(data, name="stack", contrast_limits=(0, 4000))
    middle = data.shape[0] // 2
    viewer.dims.set_point(0, middle)
    wait.qWait(500)
    note("napari shows the stack")
    widget: Any = dock(viewer)
    widget.use_model(load(model_name, "cpu"))
    wait.qWait(500)
    note("dock and model")
    widget.start(viewer.layers[0], path=path.with_suffix(".ivos"))
    widget.wait()
    note("started")
    layer = viewer.layers.selection.active
    layer.add_paths(np.array([[middle, 1000, 850 + 10 * k] for k in range(12)]))
    widget.wait()
    note("a stroke's mask")
    widget.propagate("forward", stop=middle + RUN)
    widget.wait(1800)
    note("propagated")
    for frame in spread(data.shape[0]):
        viewer.dims.set_point(0, frame)
        wait.qWait(20)
    note(f"looked at {LOOKS} frames")
    widget.desk.close()
    viewer.close()


def child(path: str, model: str | None) -> int:
    """Measure one stack in this process; prints (step, resident MB) and the peak as JSON."""
    taken: list[tuple[str, float]] = []
    steps(Path(path), model, lambda step: taken.append((step, memory("VmRSS"))))
    sys.stdout.write(json.dumps([*taken, ("peak", memory("VmHWM"))]) + "\n")
    return 0


def main() -> int:
    """Measure both stacks, each in a process of its own, and print a table; returns 0."""
    parser = argparse.ArgumentParser(description="How much memory the window takes on a 50 GB stack.")
    parser.add_argument("--model", help="a .safetensors file; by default the shipped model")
    parser.add_argument("--stack", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stack:
        return child(arguments.stack, arguments.model)
    columns = []
    for frames in (SHORT, LONG):
        with tempfile.TemporaryDirectory() as folder:
            path = stack_of(Path(folder), frames)
            command = [sys.executable, __file__, "--stack", str(path)]
            command += ["--model", arguments.model] if arguments.model else []
            ran = subprocess.run(command, check=True, capture_output=True, text=True)
            columns.append(json.loads(ran.stdout.strip().splitlines()[-1]))
    sizes = [f"{n * SIDE * SIDE * 2 / 1e9:.1f} GB" for n in (SHORT, LONG)]
    sys.stdout.write(f"{'resident memory, MB':28}{sizes[0]:>10}{sizes[1]:>10}\n")
    for (step, short), (_, long) in zip(*columns, strict=True):
        sys.stdout.write(f"{step:28}{short:10.0f}{long:10.0f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
