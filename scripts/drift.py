"""What becomes of masks: corrected again and again on one frame, and handed on from an exact one.

``python scripts/drift.py DEV [DEV ...] [--model FILE] [--true N ... | --painted N]``

A line a sequence. First, J of a frame after first strokes and three corrections by the benchmark's robot, and the share
of the strokes' points whose pixel then has their label. Then what is left of a *true* mask: on its own frame, at the
resolution of the networks' region (no mask of theirs can be better); one frame on, where it was; one, four and eight
frames on, moved along by optical flow alone. Last, J one, four and eight frames on from a true mask that the networks
carry as they do a painted one: the same frame again and again (``still``), and from frame to frame (``moving``);
``--trusted 0`` lets go of it. Three frames of each sequence begin, with at most eight objects.

With ``--true N ...`` instead: J over the whole stack with true masks on N frames of it, as a session spreads them; a
column for each N. With ``--painted N``: J over the whole stack after each of N rounds in which the user paints the true
mask of each frame that the benchmark's robot would stroke: what of J is lost on the way from annotated frames, and what
(the rest, beside ``napari-ivos benchmark``) by the masks that strokes give there.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_ivos import Session, Stroke, load_model, motion, open_frames, steps
from napari_ivos.benchmark import (
    IvosMethod,
    Settings,
    correct,
    find_sequences,
    first_scribbles,
    read_sequence,
    run,
)
from napari_ivos.benchmark.metrics import jaccard
from napari_ivos.merging import Patch, compose, sample
from napari_ivos.regions import CLOSE, FOLLOW, Box, region_around
from napari_ivos.session.stacks import told_by_looks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from napari_ivos.frames import FrameStack
    from napari_ivos.predictor import Predictor
    from napari_ivos.scribbles import Scribbles

AHEAD = 8
CORRECTIONS = 3
OBJECTS = 8


class Scene:
    """One sequence, as the networks see it, and some of its objects."""

    def __init__(self, path: Path, model: Predictor) -> None:
        sequence = read_sequence(path)
        self.name, self.group, self.model = path.name, sequence.group, model
        self.sequence = sequence
        self.labels = np.asarray(sequence.labels).astype(np.int32)
        self.stack: FrameStack = open_frames(sequence.frames)
        self.shape = self.stack.shape[1:]
        self.looks = told_by_looks(self.stack)

    def begins(self) -> list[int]:
        """Three frames that have enough frames after them."""
        last = max(len(self.labels) - 1 - AHEAD, 0)
        return sorted({0, last // 2, last})

    def ids(self, frame: int) -> list[int]:
        """The objects that count on a frame."""
        return [int(i) for i in np.unique(self.labels[frame]) if i][:OBJECTS]

    def scores(self, patches: Mapping[int, Patch], frame: int) -> float:
        """Mean J of the patches' objects that are on a frame."""
        drawn = compose(patches, Box(0, 0, *self.shape))
        truth = self.labels[frame]
        there = [jaccard(truth == i, drawn == i) for i in patches if (truth == i).any()]
        return float(np.mean(there)) if there else np.nan

    def corrected(self, frame: int) -> list[tuple[float, float]]:
        """(J, share of the strokes that are obeyed) after first strokes and after each correction."""
        ids, truth = self.ids(frame), self.labels[frame]
        truth = np.where(np.isin(truth, ids), truth, 0)
        strokes = list(first_scribbles(truth, frame, np.random.default_rng(0)).strokes)
        patches: dict[int, Patch] = {}
        out = []
        for _ in range(CORRECTIONS + 1):
            read = partial(self.stack.read, frame)
            found = steps.segment(read, self.shape, self.model, strokes, patches, ids, self.looks)
            patches = {i: one.patch for i, one in found.items()}
            drawn = compose(patches, Box(0, 0, *self.shape))
            out.append((self.scores(patches, frame), obeyed(strokes, drawn)))
            strokes += correct(truth, drawn.astype(truth.dtype), frame).strokes
        return out

    def carried(self, begin: int, still: bool) -> list[float]:
        """J on each of the frames after `begin`, from its true masks; `still`: the same frame again and again."""
        ids = self.ids(begin)
        patches = {i: Patch.from_mask(self.labels[begin] == i) for i in ids}
        learned = steps.learn(partial(self.stack.read, begin), self.shape, self.model, patches, self.looks)
        references = {i: [learned[i]] for i in learned}
        out = []
        for k in range(1, min(AHEAD, len(self.labels) - 1 - begin) + 1):
            here, near = (begin, begin) if still else (begin + k, begin + k - 1)
            read, read_near = partial(self.stack.read, here), partial(self.stack.read, near)
            holds = dict.fromkeys(ids, motion.exact_after(k))
            patches = steps.propagate(
                read, self.shape, self.model, patches, {}, references, read_near, holds, self.looks
            )
            out.append(self.scores(patches, here))
        return out + [np.nan] * (AHEAD - len(out))

    def plain(self, begin: int) -> list[float]:
        """Mean J of true masks: coarse as a region's, one frame on where they were, 1..8 frames on moved by flow."""
        side = (self.model.size, self.model.size)
        ids = self.ids(begin)
        patches = {i: Patch.from_mask(self.labels[begin] == i) for i in ids}
        coarse = {}
        for i, patch in patches.items():
            region = region_around(patch.box, CLOSE, self.shape)
            coarse[i] = Patch.from_probability(region, sample(patch, region, side), patch.origin)
        out = [self.scores(coarse, begin), self.scores(patches, begin + 1)]
        for k in range(1, min(AHEAD, len(self.labels) - 1 - begin) + 1):
            for i, patch in patches.items():
                if patch.extent is not None:
                    region = region_around(patch.extent, FOLLOW, self.shape)
                    near, here = self.stack.read(begin + k - 1, region), self.stack.read(begin + k, region)
                    moved = motion.move_along(sample(patch, region, side), near, here)
                    patches[i] = Patch.from_probability(region, moved.mask, patch.origin)
            out.append(self.scores(patches, begin + k))
        return out + [np.nan] * (AHEAD + 2 - len(out))

    def spread(self, count: int) -> float:
        """J over all frames, with true masks on `count` of them, evenly spaced."""
        frames = sorted({int((k + 0.5) * len(self.labels) / count) for k in range(count)})
        ids = self.ids(frames[0])
        with Session(self.stack, self.model) as session:
            for frame in frames:
                session.annotate(frame, np.where(np.isin(self.labels[frame], ids), self.labels[frame], 0), ids)
            for _ in session.propagate():
                pass
            found = [self.scores(session.masks(t), t) for t in range(len(self.labels))]
        return float(np.nanmean(found))

    def painted(self, rounds: int) -> list[float]:
        """J over all frames after each round of the benchmark, with true masks in the place of strokes."""
        settings = Settings(rounds=rounds, time_limit=None, boundary=False, score="started")
        played = run(self.sequence, Painter(self.model, self.labels), settings)
        return [float(one.j) for one in played.rounds]


class Painter(IvosMethod):
    """Paints the true masks of the frames that it is given strokes for, of the objects of the first of them."""

    def __init__(self, model: Predictor, labels: npt.NDArray[np.int32]) -> None:
        super().__init__(model, "painted")
        self._labels, self._ids = labels, set[int]()

    def interact(self, scribbles: Scribbles) -> None:
        truth = self._labels[scribbles.frame]
        self._ids = self._ids or {stroke.object_id for stroke in scribbles.strokes}
        self._session.annotate(scribbles.frame, np.where(np.isin(truth, list(self._ids)), truth, 0), sorted(self._ids))


def obeyed(strokes: Sequence[Stroke], drawn: npt.NDArray[np.integer]) -> float:
    """Share of the strokes' points, inside the image, that have their stroke's label."""
    right = []
    for stroke in strokes:
        at = np.rint(stroke.points).astype(int)
        at = at[((at >= 0) & (at < drawn.shape)).all(axis=1)]
        right += list(drawn[tuple(at.T)] == stroke.object_id)
    return float(np.mean(right)) if right else 1.0


def main() -> None:
    """Print a line a sequence, and the means over each group."""
    parser = argparse.ArgumentParser(description="What becomes of masks.")
    parser.add_argument("data", type=Path, nargs="+", help="folders of sequences with ground truth")
    parser.add_argument("--model", help="a .safetensors file; by default the shipped model")
    parser.add_argument("--trusted", type=float, default=motion.FIRM.most, help="how much such masks are held on to")
    parser.add_argument("--true", type=int, nargs="+", metavar="N", help="true masks on N frames of whole stacks")
    parser.add_argument("--painted", type=int, metavar="N", help="N rounds with true masks in the place of strokes")
    options = parser.parse_args()
    motion.FIRM = motion.FIRM._replace(most=options.trusted)
    model = load_model(options.model) if options.model else load_model()
    scenes = (Scene(p, model) for root in options.data for p in find_sequences(root))
    if options.true:
        tell_stacks(scenes, lambda scene: [scene.spread(count) for count in options.true])
        return
    if options.painted:
        tell_stacks(scenes, lambda scene: scene.painted(options.painted))
        return
    rows: dict[str, list[npt.NDArray[np.float64]]] = {}
    print("J of first strokes, corrections | strokes obeyed | true: coarse, stays, moved by flow | still | moving")
    for scene in scenes:
        begins = scene.begins()
        corrected = np.mean([scene.corrected(t) for t in begins], axis=0)
        plain = np.nanmean([scene.plain(t) for t in begins], axis=0)[[0, 1, 2, 5, 9]]
        carried = [np.nanmean([scene.carried(t, still) for t in begins], axis=0)[[0, 3, 7]] for still in (True, False)]
        row = np.concatenate([*corrected.T, plain, *carried])
        rows.setdefault(scene.group, []).append(row)
        tell(scene.name, row)
    for group, own in rows.items():
        tell(f"mean, {group}", np.nanmean(own, axis=0))


def tell_stacks(scenes: Iterable[Scene], play: Callable[[Scene], list[float]]) -> None:
    """The numbers of each stack, and the means over each group."""
    groups: dict[str, list[list[float]]] = {}
    for scene in scenes:
        found = play(scene)
        groups.setdefault(scene.group, []).append(found)
        print(f"{scene.name:24s}", " ".join(f"{x:.3f}" for x in found), flush=True)
    for group, own in groups.items():
        print(f"mean, {group:18s}", " ".join(f"{x:.3f}" for x in np.mean(own, axis=0)))


def tell(name: str, row: npt.NDArray[np.float64]) -> None:
    """One line: the parts of a row, of 4, 4, 5, 3 and 3 numbers."""
    parts = np.split(row, [4, 8, 13, 16])
    print(f"{name:24s}", " | ".join(" ".join(f"{x:.3f}" for x in part) for part in parts), flush=True)


if __name__ == "__main__":
    main()
