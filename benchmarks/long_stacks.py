"""What each thing costs against the length of the stack: ``python benchmarks/long_stacks.py [--frames N ...]``.

Frames are made when they are read, and the fake predictor stands for the networks, so that what is measured is all that
is not a network: reading, blending, the project file, the labels, the history. Each length runs in a process of its
own. Times are those of the processor, so that other programs on the machine count little. ``--plot FILE`` draws those
of the things that people do most.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_ivos import Session

LENGTHS = (100, 1_000, 10_000, 100_000)
HEIGHT, WIDTH, SIDE = 96, 128, 24
REPEATS = 9
SPAN = 10
"""Frames on each side of a correction, up to the next annotated one."""
Figures = dict[str, float | None]
DRAWN = (
    "propagate, a frame, ms",
    "propagate a correction to both sides, ms",
    "seek to a frame of the labels, ms",
    "suggest a frame, ms",
    "undo that propagation, ms",
    "open the project, ms",
    "export as ome-tiff, a frame, ms",
)


class Walker:
    """A stack that is made when it is read: a bright square that wanders; (T, H, W) uint8."""

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, frames: int) -> None:
        self.shape = (frames, HEIGHT, WIDTH)

    def labels(self, t: int) -> npt.NDArray[np.uint16]:
        """The square's mask (H, W)."""
        found = np.zeros((HEIGHT, WIDTH), np.uint16)
        y, x = 30 + int(20 * np.sin(t / 9)), 48 + int(30 * np.sin(t / 31))
        found[y : y + SIDE, x : x + SIDE] = 1
        return found

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint8]:
        t, rows, columns = key
        times = np.arange(self.shape[0])[t]
        frames = [self._frame(int(f))[rows, columns] for f in np.atleast_1d(times)]
        return frames[0] if np.ndim(times) == 0 else np.stack(frames)

    def _frame(self, t: int) -> npt.NDArray[np.uint8]:
        return np.asarray(np.array([30, 200], np.uint8)[self.labels(t)])


def resident() -> float:
    """Memory that this process holds now, in MB of a million bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("/proc/self/status has no VmRSS: memory is measured on Linux only")


def cost(work: Callable[[], object], repeats: int = 1) -> float:
    """Processor time of a piece of work in ms; the median of several."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return float(np.median(times)) * 1e3


def grow(session: Session, movie: Walker) -> Figures:
    """Propagate over the whole stack: time a frame, and memory from the first hundred frames to the last."""
    middle = movie.shape[0] // 2
    session.annotate(middle, movie.labels(middle))
    begun: tuple[float, float] | None = None
    most = frames = 0.0
    for result in session.propagate():
        frames += 1
        if begun is None and frames == min(80, middle):
            gc.collect()
            begun = resident(), time.process_time()
            since = frames
        if begun is not None and result.frame % 200 == 0:
            most = max(most, resident())
    if begun is None or frames != movie.shape[0] - 1:
        raise RuntimeError(f"{frames:.0f} frames were propagated of {movie.shape[0]}")
    return {
        "propagate, a frame, ms": (time.process_time() - begun[1]) / (frames - since) * 1e3,
        "growth of memory while propagating, MB": max(most, resident()) - begun[0],
    }


def look(session: Session) -> Figures:
    """Seek, slice, and ask for qualities."""
    from napari_ivos.plugin.review import Review, columns

    frames = session.shape[0]
    places = iter(np.random.default_rng(0).integers(0, frames, 10 * REPEATS).tolist())
    far = max(frames - 100, 0)
    made: list[Review] = []
    timeline = cost(lambda: made.append(Review.of(session)))
    return {
        "seek to a frame of the labels, ms": cost(lambda: session.labels[next(places)], REPEATS),
        "labels of 10 frames across the stack, ms": cost(lambda: session.labels[:: frames // 10], 3),
        "suggest a frame, ms": cost(session.suggest_frame, REPEATS),
        "quality of the last 100 frames, ms": cost(lambda: session.quality[far:], REPEATS),
        "timeline: read the whole stack's quality, ms": timeline,
        "timeline: draw a row, ms": cost(lambda: columns(made[0].quality[1], 1000), REPEATS),
    }


def correct(session: Session, movie: Walker) -> Figures:
    """Annotate in the middle of a stack, propagate to the next annotated frames, take it back, bring it back."""
    third = movie.shape[0] // 3
    for frame in (third - SPAN, third + SPAN):
        session.annotate(frame, movie.labels(frame))

    def near() -> list[int]:
        """Propagate between the two, for what is undone beyond them is nothing to this."""
        return [result.frame for result in session.propagate(start=third - SPAN, stop=third + SPAN + 1)]

    near()
    annotated = cost(lambda: session.annotate(third, np.roll(movie.labels(third), 1, axis=0)))
    touched: list[int] = []
    figures: Figures = {
        "annotate a frame, ms": annotated,
        "propagate a correction to both sides, ms": cost(lambda: touched.extend(near())),
        "suggest a frame after that, ms": cost(session.suggest_frame, REPEATS),
        "undo that propagation, ms": cost(session.undo),
        "redo it, ms": cost(session.redo),
        "undo the round, ms": cost(lambda: session.undo(to="round")),
        "redo the round, ms": cost(lambda: session.redo(to="round")),
        "undo to before the first propagation, ms": cost(lambda: [session.undo(to="round") for _ in range(9)]),
        "redo all, ms": cost(lambda: [session.redo(to="round") for _ in range(9)]),
    }
    if sorted(touched) != [t for t in range(third - SPAN + 1, third + SPAN) if t != third]:
        raise RuntimeError(f"a correction changed {len(touched)} frames, {min(touched)} to {max(touched)}")
    return {**figures, "frames that the correction changed": float(len(touched))}


def write(session: Session, folder: Path) -> Figures:
    """Export the whole: time a frame, and memory from the first frames to the last."""
    figures: Figures = {}
    frames = session.shape[0]
    for name, target in (("table", folder / "t.csv"), ("ome-tiff", folder / "l.ome.tif")):
        seen: list[float] = []

        def tick(done: int, every: int, seen: list[float] = seen) -> None:
            if done in (min(100, every // 2), every) or done % 5000 == 0:
                gc.collect()
                seen.append(resident())

        took = cost(lambda target=target, tick=tick: session.export(target, progress=tick))  # type: ignore[misc]
        figures[f"export as {name}, a frame, ms"] = took / frames
        figures[f"growth of memory while exporting as {name}, MB"] = max(seen) - seen[0]
        target.unlink()
    return figures


def measure(frames: int, folder: Path | None) -> Figures:
    """Everything about one length."""
    from napari_ivos import Session
    from napari_ivos.predictor import FakePredictor

    movie = Walker(frames)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        project = Path(scratch) / "p.ivos"
        with Session(movie, FakePredictor(), project) as session:
            figures = grow(session, movie)
        figures["project file, a frame, kB"] = project.stat().st_size / frames / 1e3
        opened: list[Session] = []
        figures["open the project, ms"] = cost(lambda: opened.append(Session.open(project, movie, FakePredictor())))
        with opened[0] as session:
            figures |= look(session)
            figures |= correct(session, movie)
            figures |= write(session, Path(scratch))
            figures["close the project, ms"] = cost(session.close)
    return figures


def table(found: dict[int, Figures]) -> str:
    """One row for each cost, one column for each length, in Markdown."""
    lengths = sorted(found)
    lines = [f"| | {' | '.join(f'{n:,}' for n in lengths)} |", f"|---|{'---:|' * len(lengths)}"]
    for name in found[lengths[0]]:
        values = [found[n].get(name) for n in lengths]
        lines.append(f"| {name} | {' | '.join('' if v is None else f'{v:.3g}' for v in values)} |")
    return "\n".join(lines)


def draw(found: dict[int, Figures], path: Path) -> None:
    """Costs against the number of frames, log-log."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    lengths = sorted(found)
    figure, axis = plt.subplots(figsize=(8, 4.2), constrained_layout=True)
    for name in DRAWN:
        axis.loglog(lengths, [found[n][name] for n in lengths], "o-", label=name.removesuffix(", ms"))
    axis.set_xticks(lengths, [f"{n:,}" for n in lengths])
    axis.set_xlabel("frames of the stack")
    axis.set_ylabel("ms of one core")
    axis.minorticks_off()
    axis.grid(visible=True, which="both", alpha=0.25)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)


def main() -> int:
    """Measure each length in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, nargs="+", default=list(LENGTHS), help="lengths (100 to 100,000)")
    parser.add_argument("--folder", type=Path, help="where projects and exports are written meanwhile")
    parser.add_argument("--plot", type=Path, help="PNG to draw; needs matplotlib")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        sys.stdout.write(json.dumps(measure(options.frames[0], options.folder)))
        return 0
    found = {}
    for frames in options.frames:
        command = [sys.executable, __file__, "--inside", "--frames", str(frames)]
        command += [] if options.folder is None else ["--folder", str(options.folder)]
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        found[frames] = json.loads(done.stdout)
        sys.stderr.write(f"{frames:,} frames: done\n")
    sys.stdout.write(f"Cost against the number of frames\n\n{table(found)}\n")
    if options.plot is not None:
        draw(found, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
