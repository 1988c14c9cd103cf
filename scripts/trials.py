"""Ideas that need no training, each measured on whole stacks with the same weights, to see whether it pays.

``python scripts/trials.py OUTPUT DATA ... [--only NAME ...] [--every 8] [--rounds 3] [--model FILE]``

Each trial plays the benchmark with one thing changed: objects that are never or always told by their looks, masks
that stay where they were instead of moving along with the picture, masks of earlier rounds shown to the network, masks
averaged over mirrored input, margins of the regions in which an object is followed, how masks from two annotated frames
are mixed, and how many doubted masks in a row end an object. A trial is a change from outside, to measure it: what pays
belongs into the package.
Call it again to go on; ``OUTPUT/trials.txt`` has the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from napari_ivos import load_model, merging, motion, regions, steps
from napari_ivos.benchmark import IvosMethod, Settings, find_sequences, read_sequence, run
from napari_ivos.merging import Patch, certainty
from napari_ivos.predictor import Following, Interaction, Predictor, Propagation, Segmentation
from napari_ivos.session import annotator, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from napari_ivos.regions import Box


class Mirrored:
    """A predictor that also looks at everything in a mirror, and takes the mean; twice the time."""

    def __init__(self, inner: Predictor) -> None:
        self._inner = inner
        self.name, self.checksum = inner.name + " mirrored", inner.checksum
        self.size, self.device = inner.size, inner.device
        self.follows_motion = isinstance(inner, Following) and inner.follows_motion

    def segment(self, requests: Sequence[Interaction]) -> list[Segmentation]:
        """Both looks' mean; the reference holds those of both, one after the other."""
        turned = [replace(r, **{name: _turn(x) for name, x in _parts(r).items()}) for r in requests]
        both = zip(self._inner.segment(requests), self._inner.segment(turned), strict=True)
        return [
            Segmentation(_mean(a.probability, b.probability), np.concatenate([a.reference, b.reference]))
            for a, b in both
        ]

    def propagate(self, requests: Sequence[Propagation]) -> list[npt.NDArray[np.float32]]:
        """Both looks' mean, each with the references of its own kind."""
        plain, turned = [], []
        for r in requests:
            halves = [np.split(reference, 2) for reference in r.references]
            plain.append(replace(r, references=[a for a, _ in halves]))
            mirrored = (_turn(r.image), _turn(r.neighbour), _turn(r.previous))
            turned.append(Propagation(*mirrored, [b for _, b in halves], _turn(r.change), r.appearance))
        both = zip(self._inner.propagate(plain), self._inner.propagate(turned), strict=True)
        return [_mean(a, b) for a, b in both]


def _mean(plain: npt.NDArray[np.float32], turned: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray((plain + turned[:, ::-1]) / 2, np.float32)


def _parts(r: Interaction) -> dict[str, Any]:
    return {"image": r.image, "previous": r.previous, "positive": r.positive, "negative": r.negative}


def _turn(x: Any) -> Any:
    return None if x is None else np.ascontiguousarray(x[:, ::-1])


class MotionRegion:
    """`steps.propagation_region` with a margin that grows with the object's last motion, and moves along with it.

    Remembers where each object was on the frame before; a jump of more than its own size is a new pass, not motion.
    """

    def __init__(self, still: float, reach: float) -> None:
        self._still, self._reach = still, reach
        self._last: dict[int, tuple[float, float]] = {}
        self._plain = steps.propagation_region

    def __call__(
        self, neighbours: Mapping[int, Patch], previous: Patch | None, object_id: int, image_shape: tuple[int, int]
    ) -> Box:
        """A region like that of `steps.propagation_region`."""
        region = self._plain(neighbours, previous, object_id, image_shape)
        extent = neighbours[object_id].extent
        if extent is None:
            self._last.pop(object_id, None)
            return region
        here = ((extent.y0 + extent.y1) / 2, (extent.x0 + extent.x1) / 2)
        before = self._last.get(object_id, here)
        self._last[object_id] = here
        step = (here[0] - before[0], here[1] - before[1])
        size = max(extent.height, extent.width)
        if max(abs(step[0]), abs(step[1])) > size:
            step = (0.0, 0.0)
        ahead = extent.union(extent.shift(round(step[0]), round(step[1])))
        margin = self._still + self._reach * max(abs(step[0]), abs(step[1])) / size
        return regions.region_around(ahead, margin, image_shape)


def still(mask: npt.NDArray[np.float32], near: object, here: object) -> motion.Moved:
    """A mask where it was, and no word of what changed."""
    return motion.Moved(mask, np.zeros_like(mask))


def unsaid(mask: npt.NDArray[np.float32], near: Any, here: Any) -> motion.Moved:
    """A mask moved along with the picture, and no word of what changed otherwise."""
    return motion.Moved(_MOVE_ALONG(mask, near, here).mask, np.zeros_like(mask))


def nearest(way: merging.Pass, frame: int) -> float:
    """Weight of a pass's mask where two meet: all to the nearer annotated frame."""
    if way.distance is None:
        return 1.0
    return float(2 * abs(frame - way.start) <= way.distance)


def by_certainty(new: Patch, old: Patch | None, weight: float) -> Patch:
    """Blend by distance and by how sure the network was of each mask."""
    if old is None or weight >= 1:
        return merging.blend(new, old, weight)
    mine, other = weight * (certainty(new) + 0.05), (1 - weight) * (certainty(old) + 0.05)
    return merging.blend(new, old, mine / (mine + other))


_MOVE_ALONG, _LOOK, _PROPAGATE = motion.move_along, sweep.Sweep._look, steps.propagate


def showing_earlier(self: Any, frame: int, direction: int, here: Any, neighbours: Any) -> dict[int, Patch]:
    """A sweep's look at a frame in which the network sees what earlier rounds left there, as in the papers."""
    previous = self._previous(frame, direction, here)

    def shown(read: Any, shape: Any, model: Any, near: Any, _: Any, references: Any, *more: Any) -> dict[int, Patch]:
        own = {i: p for i, p in previous.items() if i in references}
        return _PROPAGATE(read, shape, model, near, own, references, *more)

    with mock.patch.object(steps, "propagate", shown):
        return _LOOK(self, frame, direction, here, neighbours)


def holding(
    read: Any, shape: Any, model: Any, near: Any, previous: Any, references: Any, beside: Any, _: Any, looks: bool
) -> dict[int, Patch]:
    """Carry masks as if all of them were to be held on to firmly."""
    return _PROPAGATE(read, shape, model, near, previous, references, beside, references, looks)


def let_go(found: npt.NDArray[np.float32], moved: object, hold: object) -> npt.NDArray[np.float32]:
    """The network's answer as it is."""
    return found


Trial = tuple["Callable[[Predictor], Predictor]", "Callable[[], contextlib.AbstractContextManager[Any]]"]


def _same(model: Predictor) -> Predictor:
    return model


def _trials() -> dict[str, Trial]:
    """Trials by name: what becomes of the model, and what is changed while it plays."""
    none = contextlib.nullcontext

    def follow(margin: float) -> Callable[[], contextlib.AbstractContextManager[Any]]:
        return lambda: mock.patch.object(regions, "FOLLOW", margin)

    def by_motion(at_rest: float, reach: float) -> Callable[[], contextlib.AbstractContextManager[Any]]:
        return lambda: mock.patch.object(steps, "propagation_region", MotionRegion(at_rest, reach))

    def moving(way: Callable[..., motion.Moved]) -> Callable[[], contextlib.AbstractContextManager[Any]]:
        return lambda: mock.patch.object(motion, "move_along", way)

    def ending(doubts: int) -> Callable[[], contextlib.AbstractContextManager[Any]]:
        return lambda: mock.patch.object(sweep, "doubts_that_end", return_value=doubts)

    def looking(wanted: bool) -> Callable[[], contextlib.AbstractContextManager[Any]]:
        @contextlib.contextmanager
        def patched() -> Iterator[None]:
            with contextlib.ExitStack() as both:
                for module in (annotator, sweep):
                    both.enter_context(mock.patch.object(module, "told_by_looks", return_value=wanted))
                yield

        return patched

    return {
        "as shipped": (_same, none),
        "objects are not told by their looks": (_same, looking(wanted=False)),
        "objects are told by their looks": (_same, looking(wanted=True)),
        "masks stay where they were": (_same, moving(still)),
        "masks move, changes unsaid": (_same, moving(unsaid)),
        "masks of earlier rounds shown": (_same, lambda: mock.patch.object(sweep.Sweep, "_look", showing_earlier)),
        "moved masks not held on to": (_same, lambda: mock.patch.object(motion, "keep_unchanged", let_go)),
        "those of first strokes held on to, too": (_same, lambda: mock.patch.object(steps, "propagate", holding)),
        "mirrored as well": (Mirrored, none),
        "margin by motion, 1.8 and 3 x motion": (_same, by_motion(1.8, 3.0)),
        "margin 1.8": (_same, follow(1.8)),
        "margin 2.0": (_same, follow(2.0)),
        "margin 2.4": (_same, follow(2.4)),
        "two-way: the nearer frame's mask": (_same, lambda: mock.patch.object(merging.Pass, "weight", nearest)),
        "two-way: by certainty": (_same, lambda: mock.patch.object(sweep, "blend", by_certainty)),
        "objects never end": (_same, ending(0)),
        "two doubted masks end": (_same, ending(2)),
        "one doubted mask ends": (_same, ending(1)),
    }


def play(trial: Trial, model: Predictor, options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """J after each round and seconds of every sequence, by group/name."""
    change, patched = trial
    settings = Settings(options.rounds, options.every, score="started", time_limit=None, boundary=False)
    found = {}
    for path in (p for root in options.data for p in find_sequences(root)):
        stack = read_sequence(path)
        with patched():
            result = run(stack, IvosMethod(change(model)), settings, options.seed)
        found[f"{stack.group}/{stack.name}"] = {"j": result.j.tolist(), "seconds": [float(result.times[-1])]}
        print(f"  {stack.group}/{stack.name}: " + " ".join(f"{v:.3f}" for v in result.j), flush=True)
    return found


def table(done: dict[str, dict[str, Any]], options: argparse.Namespace) -> str:
    """Mean J after the first and the last round by group, the difference to the first row, and the time."""
    groups = sorted({name.split("/")[0] for plays in done.values() for name in plays})
    head = ["trial", *(f"{g} J{r}" for g in groups for r in dict.fromkeys((1, options.rounds))), "seconds"]
    rows = [head]
    for name, plays in done.items():
        cells = [name]
        for group in groups:
            own = np.array([p["j"] for key, p in plays.items() if key.startswith(group + "/")])
            base = np.array([done[next(iter(done))][key]["j"] for key in plays if key.startswith(group + "/")])
            for r in dict.fromkeys((0, options.rounds - 1)):
                gain = own[:, r].mean() - base[:, r].mean()
                cells.append(f"{own[:, r].mean():.3f} ({gain:+.3f})")
        rows.append([*cells, f"{sum(p['seconds'][0] for p in plays.values()):.0f}"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    title = f"Every {options.every}th frame, {options.rounds} rounds, objects of the first frame, seed {options.seed}."
    return "\n".join([title, "", *lines]) + "\n"


def main() -> None:
    """Play what is not played yet, and write the table after each."""
    trials = _trials()
    parser = argparse.ArgumentParser(description="Measure ideas that need no training.")
    parser.add_argument("output", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--model", help="a model's name or file (the shipped weights)")
    parser.add_argument("--every", type=int, default=8, help="each so-manieth frame (8)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (3)")
    parser.add_argument("--seed", type=int, default=0, help="of the first scribbles (0)")
    parser.add_argument("--only", nargs="+", choices=list(trials), metavar="NAME", help=f"of {', '.join(trials)}")
    options = parser.parse_args()
    model = load_model(options.model) if options.model else load_model()
    options.output.mkdir(parents=True, exist_ok=True)
    done: dict[str, dict[str, Any]] = {}
    names = list(dict.fromkeys([next(iter(trials)), *(options.only or trials)]))
    for name in names:
        played = f"every{options.every}_rounds{options.rounds}_seed{options.seed}"
        path = options.output / ("".join(c if c.isalnum() else "_" for c in name) + f"_{played}.json")
        if not path.exists():
            print(name, flush=True)
            path.write_text(json.dumps(play(trials[name], model, options)), encoding="utf-8")
        done[name] = json.loads(path.read_text(encoding="utf-8"))
        (options.output / "trials.txt").write_text(table(done, options), encoding="utf-8")
    print(table(done, options))


if __name__ == "__main__":
    main()
