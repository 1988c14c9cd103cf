"""Speed against objects, size of frames and length of the stack: ``python benchmarks/scaling.py [PART ...]``.

Prints a table for each, and draws all three (``--plot FILE``). The pictures hold a crowd of discs of 40 px on a noisy
ground, which moves by a pixel a frame; as many of them as asked for are annotated on the first frame and propagated.
Times are those of the processor with one thread, so that other programs on the machine count little; with
``--model fake`` the networks cost next to nothing, and what is left is all the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PITCH, RADIUS, PERIOD = 64, 20, 2048
COUNTS = (1, 4, 16, 64, 256, 1000)
SIDES = (256, 512, 1024, 2048, 4096, 8192)
LENGTHS = (100, 1_000, 10_000, 100_000)
WORK = 64
"""Objects and frames that are timed, at least; but at most 16 frames."""


@dataclass
class Point:
    """One measurement: what it cost, a frame and an object on a frame, in seconds; memory in MB."""

    frames: int
    side: int
    objects: int
    frame: float = 0.0
    each: float = 0.0
    wall: float = 0.0
    first: float = 0.0
    compose: float = 0.0
    peak: float = 0.0
    found: float = 0.0

    @property
    def speed(self) -> float:
        """Frames a second."""
        return 1 / self.frame


class Crowd:
    """Discs on a grid, the same again every `PERIOD` pixels; made when it is read; (T, H, W) uint8."""

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, frames: int, side: int) -> None:
        self.shape = (frames, side, side)
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:PERIOD, :PERIOD]
        self.inside = np.hypot(y % PITCH - PITCH / 2, x % PITCH - PITCH / 2) < RADIUS
        bright = rng.integers(110, 230, (PERIOD // PITCH, PERIOD // PITCH))[y // PITCH, x // PITCH]
        ground = rng.integers(20, 70, (PERIOD, PERIOD))
        self.picture = np.where(self.inside, bright + ground // 4, ground).astype(np.uint8)

    def labels(self, objects: int) -> npt.NDArray[np.uint16]:
        """The first frame's masks (H, W): a square block of so many discs."""
        side = self.shape[1]
        wide = int(np.ceil(np.sqrt(objects)))
        block = np.arange(min(side, wide * PITCH)) // PITCH
        ids = block[:, None] * wide + block + 1
        whole = np.zeros((side, side), np.uint16)
        n = len(block)
        whole[:n, :n] = np.where(self.inside[:n, :n] & (ids <= objects), ids, 0)
        return whole

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint8]:
        t, rows, columns = key
        times = np.arange(self.shape[0])[t]
        y, x = np.arange(self.shape[1])[rows], np.arange(self.shape[2])[columns]
        frames = [self.picture[np.ix_((y - f) % PERIOD, (x - f) % PERIOD)] for f in np.atleast_1d(times).tolist()]
        return frames[0] if np.ndim(times) == 0 else np.stack(frames)


def measure(point: Point, model: Any, folder: Path) -> Point:
    """Annotate the first frame, propagate as far as makes a good figure, compose a frame."""
    import resource

    from napari_ivos import Session

    movie = Crowd(point.frames, point.side)
    timed = min(-(-WORK // point.objects), 16)
    with tempfile.TemporaryDirectory(dir=folder) as scratch, Session(movie, model, Path(scratch) / "p.ivos") as session:
        began = time.process_time()
        session.annotate(0, movie.labels(point.objects))
        running = session.propagate(stop=timed + 2)
        next(running)  # learns the references, too
        point.first = time.process_time() - began
        began, clock = time.process_time(), time.perf_counter()
        frames = sum(1 for _ in running)
        point.frame, point.wall = (time.process_time() - began) / frames, (time.perf_counter() - clock) / frames
        point.each = point.frame / point.objects
        if point.side <= 4096:
            began = time.process_time()
            labels = session.labels[timed]
            point.compose = time.process_time() - began
            point.found = len(np.unique(labels)) - 1
    point.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return point


def points(part: str) -> list[Point]:
    """What is measured for one curve."""
    if part == "objects":
        return [Point(100, 2048, k) for k in COUNTS]
    if part == "side":
        return [Point(100, side, 4) for side in SIDES]
    return [Point(frames, 512, 4) for frames in LENGTHS]


PARTS = {
    "objects": "Number of objects, frames of 2,048 x 2,048 px",
    "side": "Side of the frames in px, 4 objects",
    "frames": "Length of the stack, 4 objects, frames of 512 x 512 px",
}


def table(part: str, found: list[Point]) -> str:
    """One curve in Markdown."""
    lines = [f"### {PARTS[part]}", "", "| | frames/s | a frame and object, ms | first frame, s | compose, s | MB |"]
    lines.append("|---:|---:|---:|---:|---:|---:|")
    for p in found:
        composed = f"{p.compose:.3f}" if p.found else ""
        values = f"{p.speed:.3g} | {p.each * 1e3:.3g} | {p.first:.3g} | {composed} | {p.peak:.0f}"
        lines += [f"| {getattr(p, part):,} | {values} |"]
    if part == "objects":
        by_count = {p.objects: p for p in found}
        ratio = by_count[max(by_count)].each / by_count[16].each
        lines += ["", f"An object at {max(by_count):,} over one at 16: {ratio:.2f}"]
        lines.append(f"Ids on the composed frame: {by_count[max(by_count)].found:.0f} of {max(by_count)}")
    return "\n".join(lines) + "\n"


def draw(curves: dict[str, list[Point]], path: Path, model: str) -> None:
    """Frames a second against each, log-log."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharey=True, constrained_layout=True)
    for axis, part in zip(axes, PARTS, strict=True):
        found = curves[part]
        at = np.array([getattr(p, part) for p in found], float)
        speed = np.array([p.speed for p in found])
        axis.loglog(at, speed, "o-", color="#2b6cb0")
        if part == "objects":
            axis.loglog(at, speed[0] * at[0] / at, ":", color="#888888", label="in proportion to the objects")
            axis.legend(frameon=False, fontsize=8)
        axis.set_xlabel(PARTS[part], fontsize=8)
        axis.set_xticks(at, [f"{value:,.0f}" for value in at])
        axis.tick_params(axis="x", labelsize=7)
        axis.minorticks_off()
        axis.grid(visible=True, which="both", alpha=0.25)
    axes[0].set_ylabel("frames per second of one core")
    figure.suptitle(f"Propagation on one CPU thread, model {model}", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def inside(options: argparse.Namespace) -> None:
    """Measure one curve, and write it as JSON."""
    import napari_ivos
    from napari_ivos.predictor import FakePredictor

    model = FakePredictor() if options.model == "fake" else napari_ivos.load_model(options.model, device="cpu")
    wanted = [p for p in points(options.parts[0]) if max(p.objects, 1) <= options.most]
    measure(Point(100, 256, 2), model, options.folder)  # so that all that happens once has happened
    sys.stdout.write(json.dumps([asdict(measure(p, model, options.folder)) for p in wanted]))


def main() -> int:
    """Measure each curve in a process of its own, print the tables and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (all)")
    parser.add_argument("--model", help="a shipped model, a .safetensors file, or fake (compact)")
    parser.add_argument("--most", type=int, default=COUNTS[-1], help="objects at most (1000)")
    parser.add_argument("--folder", type=Path, help="where projects are written meanwhile")
    parser.add_argument("--plot", type=Path, help="PNG to draw; needs all parts and matplotlib")
    parser.add_argument("--keep", type=Path, help="JSON file of what was measured; parts that are in it are not again")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options)
        return 0
    if set(options.parts) - set(PARTS):
        parser.error(f"there are the parts {', '.join(PARTS)}")
    kept = options.keep is not None and options.keep.exists()
    before = json.loads(options.keep.read_text()) if kept else {}
    curves = {part: [Point(**point) for point in found] for part, found in before.items()}
    for part in options.parts or PARTS:
        if part in curves:
            sys.stdout.write("\n" + table(part, curves[part]))
            continue
        command = [sys.executable, __file__, part, "--inside", "--most", str(options.most)]
        for name in ("model", "folder"):
            value = getattr(options, name)
            command += [] if value is None else [f"--{name}", str(value)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        curves[part] = [Point(**entry) for entry in json.loads(done.stdout)]
        sys.stdout.write("\n" + table(part, curves[part]))
        sys.stdout.flush()
        if options.keep is not None:
            options.keep.write_text(json.dumps({p: [asdict(x) for x in found] for p, found in curves.items()}))
    if options.plot is not None:
        draw(curves, options.plot, options.model or "compact")
    return 0


if __name__ == "__main__":
    sys.exit(main())
