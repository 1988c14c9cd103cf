"""Measure what adapting gains: ``python benchmarks/adapt.py DATA [DATA ...]``; DATA as for ``napari-ivos benchmark``.

Of each stack some frames around its middle are used, and the objects that live longest on both sides of it. The first
half is worked on: a few rounds of the benchmark's robot, strokes on the first frame and on the worst one after that
(``--painted``: exact masks on the same kind of frames instead). Then the model is adapted to that work, and both
models, the one before and the one after, start again from the same masks of the annotated frames and carry them over
the second half, of which nothing was annotated. J is the mean over objects and frames on which the truth has them.

What was worked can be kept (``--keep FOLDER``), so that another run only adapts and compares. Needs the extra
``benchmark``. Nothing is tuned to what comes out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import napari_ivos
from napari_ivos.benchmark import find_sequences, read_sequence, robot
from napari_ivos.benchmark.metrics import stack_jaccard

if TYPE_CHECKING:
    from napari_ivos.benchmark import Sequence
    from napari_ivos.session import Session

FRAMES = 28
"""Frames of each stack that are used, around its middle."""
OBJECTS = 6
"""Objects of each stack that are used."""
ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Scene:
    """What is used of a stack: frames, true labels 1..K, and the first frame that nobody works on."""

    name: str
    frames: npt.NDArray[np.generic]
    labels: npt.NDArray[np.integer]
    half: int

    @property
    def first(self) -> int:
        """The worked frame that shows the objects best."""
        count = int(self.labels.max())
        sides = np.sqrt([np.bincount(f.ravel(), minlength=count + 1)[1:] for f in self.labels[: self.half]])
        return int((sides / np.maximum(sides.max(axis=0), 1)).sum(axis=1).argmax())

    def open(self) -> Any:
        """The frames as a stack."""
        return napari_ivos.open_frames(self.frames, axes="TYXC" if self.frames.ndim == 4 else "TYX")

    def jaccard(self, labels: npt.NDArray[np.integer], start: int) -> npt.NDArray[np.float64]:
        """J (t, K) of labels of the frames from `start` on; NaN where the truth has no such object."""
        truth = self.labels[start : start + len(labels)]
        count = int(self.labels.max())
        there = np.stack([np.bincount(f.ravel(), minlength=count + 1)[1:] > 0 for f in truth])
        return np.where(there, stack_jaccard(truth, labels, count), np.nan)


def scene(sequence: Sequence, frames: int, objects: int) -> Scene:
    """The middle of a stack, with the objects that live longest on both sides of it."""
    middle = len(sequence) // 2
    used = slice(max(0, middle - frames // 2), min(len(sequence), middle + frames // 2))
    half = middle - used.start
    there = sequence.areas[used] > 0
    both = np.minimum(there[:half].sum(axis=0), there[half:].sum(axis=0))
    chosen = [k for k in np.argsort(-both, kind="stable")[:objects] if both[k] > 0]
    labels = np.zeros_like(sequence.labels[used])
    for number, k in enumerate(chosen, start=1):
        labels[sequence.labels[used] == k + 1] = number
    return Scene(sequence.name, sequence.frames[used], labels, half)


def work(scene: Scene, session: Session, rounds: int, painted: bool) -> None:
    """Rounds of the robot on the first half."""
    frame, used = scene.first, [scene.first]
    strokes = robot.first_scribbles(scene.labels[frame], frame, np.random.default_rng(0))
    for _ in range(rounds):
        if painted:
            session.annotate(frame, scene.labels[frame])
        else:
            session.interact(strokes)
        for _ in session.propagate(stop=scene.half):
            pass
        labels = np.asarray(session.labels[: scene.half])
        j = scene.jaccard(labels, 0)
        mean = np.nanmean(np.where(np.isnan(j).all(axis=1, keepdims=True), 2.0, j), axis=1)
        for t in np.argsort(mean, kind="stable"):
            frame, strokes = int(t), robot.correct(scene.labels[t], labels[t], int(t))
            if frame not in used and strokes.strokes:
                break
        used.append(frame)


def later(scene: Scene, session: Session, model: Any) -> float:
    """Mean J over the second half, carried there from the session's annotated masks by a model."""
    frames = session.annotated_frames()
    with scene.open() as stack, napari_ivos.Session(stack, model) as anew:
        for t in frames:
            anew.annotate(t, np.asarray(session.labels[t]))
        for _ in anew.propagate("forward", start=max(frames) + 1):
            pass
        return float(np.nanmean(scene.jaccard(np.asarray(anew.labels[scene.half :]), scene.half)))


def measure(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One stack: work, adapt, compare."""
    here = scene(read_sequence(path), options.frames, options.objects)
    model = napari_ivos.load_model(options.model, options.device)
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / f"{here.name}{'-painted' if options.painted else ''}.ivos"
        frames = stack.enter_context(here.open())
        if kept.exists():
            session = stack.enter_context(napari_ivos.Session.open(kept, frames=frames, model=model))
        else:
            session = stack.enter_context(napari_ivos.Session(frames, model, project=kept))
            work(here, session, options.rounds, options.painted)
        before = later(here, session, model)
        say(f"{here.name}: frames {session.annotated_frames()} annotated, J over later frames {before:.3f} before")
        busy = time.process_time()
        for progress in napari_ivos.adapt(session, model=model, seconds=options.seconds, steps=options.steps):
            last = progress
        busy = time.process_time() - busy
        assert last.report is not None
        after = later(here, session, last.model) if last.report.kept else before  # the same model: the same figure
    facts = {"stack": here.name, "objects": int(here.labels.max()), "before": before, "after": after, "cpu": busy}
    say(f"{here.name}: {after:.3f} after ({busy:.0f} s of CPU time). {last.report}")
    return {**facts, "report": asdict(last.report)}


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Measure all stacks, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, metavar="DATA")
    parser.add_argument("--frames", type=int, default=FRAMES, metavar="N", help=f"frames of each stack ({FRAMES})")
    parser.add_argument("--objects", type=int, default=OBJECTS, metavar="N", help=f"objects of each ({OBJECTS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"rounds of the robot ({ROUNDS})")
    parser.add_argument("--painted", action="store_true", help="exact masks instead of strokes")
    parser.add_argument("--seconds", type=float, default=120.0, metavar="S", help="time limit of adapting (120)")
    parser.add_argument("--steps", type=int, default=120, metavar="N", help="steps of adapting (120)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the worked projects here, and use them again")
    parser.add_argument("--model", metavar="NAME|FILE", help="as for load_model")
    parser.add_argument("--device", metavar="DEVICE", help="as for load_model")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    rows = [measure(path, options) for data in options.data for path in find_sequences(data)]
    say(f"\n{'stack':<24} {'before':>7} {'after':>7} {'kept':>5} {'CPU s':>6}")
    for row in rows:
        kept = "yes" if row["report"]["kept"] else "no"
        say(f"{row['stack']:<24} {row['before']:7.3f} {row['after']:7.3f} {kept:>5} {row['cpu']:6.0f}")
    means = [float(np.mean([row[key] for row in rows])) for key in ("before", "after")]
    say(f"{'mean':<24} {means[0]:7.3f} {means[1]:7.3f}   (load of the machine {os.getloadavg()[0]:.1f})")
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
