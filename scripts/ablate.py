"""Each ingredient's worth: short trainings of equal time that differ in one thing, measured alike.

``python scripts/ablate.py OUTPUT --data FOLDER --imagenet FILE --dev FOLDER [--minutes 8] [--only NAME ...]``

The clock is the time that the process itself computes (networks and clips, one thread, no workers), so that a busy
machine does not favour anyone; the learning rate follows that clock too. A run that was stopped goes on from its
checkpoint, and what is finished is not done again: call it as often as you like. ``OUTPUT/ablations.txt``, ``.csv`` and
``.png`` hold the table of what is there. Dev data are only measured on.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ivos.files import write_whole
from napari_ivos.training.clips import ClipSource
from napari_ivos.training.settings import TrainingSettings
from napari_ivos.training.train import ClipDataset, Trainer, interruptible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARE_ALIKE = ["fib25_em_z000_119", "fib25_em_y_even"]
"""Real clips under CC BY-SA."""
WARM_UP, COOL_DOWN = 0.05, 0.4
"""Shares of the time over which the learning rate rises, and falls to zero."""
CHECKPOINT_SECONDS = 90.0
STAGES = ("close", "propagated", "corrected", "again")
"""Held-out scores: first strokes, carried on, corrected, carried on again."""


@dataclass(frozen=True)
class Variant:
    """One training: what it is called in the table, and what it changes."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    scratch: bool = False


VARIANTS = (
    Variant("all ingredients"),
    Variant("no corrections", {"corrections": 0.0}),
    Variant("no real clips", {"clips": {"real": 0.0}}),
    Variant("no feature aggregation", {"overrides": {"pooled_reference": False, "spatial_reference": False}}),
    Variant("encoder from scratch", scratch=True),
    Variant("ResNet-18 from scratch", {"overrides": {"encoder": "resnet18"}}, scratch=True),
    Variant("masks stay where they were", {"overrides": {"motion": False}}),
    Variant("no residual masks", {"overrides": {"residual_masks": False}}),
    Variant("region 192 px", {"overrides": {"size": 192}}),
    Variant("no distractors", {"clips": {"distractors": False}}),
    Variant("no simulated volumes", {"clips": {"volumes": 0.0}}),
    Variant("no share-alike sources", {"clips": {"exclude": SHARE_ALIKE}}),
    Variant("all, another seed", {"seed": 1}),
    Variant("region 256 px", {"overrides": {"size": 256}}),
    Variant("pooled reference only", {"overrides": {"spatial_reference": False}}),
    Variant("spatial reference only", {"overrides": {"pooled_reference": False}}),
)
"""All but the named thing are equal; the second seed shows how much of a difference is chance."""


class ClockedTrainer(Trainer):
    """A trainer whose learning rate follows the share of its time that is used up, not its steps."""

    seconds: float

    def rate(self) -> float:
        """Up over the warm-up, level, down to zero over the cool-down."""
        used = self.hours * 3600 / self.seconds
        return self.settings.learning_rate * max(min(1.0, used / WARM_UP, (1 - used) / COOL_DOWN), 0.02)


def settings_of(variant: Variant, options: argparse.Namespace) -> TrainingSettings:
    """The settings of one variant: the same but for its changes."""
    common: dict[str, Any] = {
        "data": str(options.data),
        "output": str(options.output / variant.name.replace(" ", "_").replace(",", "")),
        "imagenet": "" if variant.scratch else str(options.imagenet),
        "overrides": {"size": options.size, "small": 0, "residual_masks": True, "motion": True},
        "average": 0.98,
        "validation_clips": 64,
        "workers": 0,
        "device": "cpu",
        "encoder_rate": 1.0 if variant.scratch else 0.3,
        "clips": {"frames": 3},
    }
    for key, value in variant.changes.items():
        common[key] = {**common[key], **value} if isinstance(value, dict) else value
    return TrainingSettings.from_dict(common, variant.name)


def learn(variant: Variant, options: argparse.Namespace) -> dict[str, Any]:
    """Train one variant to the end of its time, and measure it; the row of the table."""
    settings = settings_of(variant, options)
    folder = Path(settings.output)
    folder.mkdir(parents=True, exist_ok=True)
    trainer = ClockedTrainer(settings)
    trainer.seconds = options.minutes * 60
    if trainer.resume(folder):
        say(f"{variant.name}: going on from step {trainer.step}, {trainer.hours * 60:.1f} minutes")
    _spend(trainer, folder)
    trainer.export(folder / "model.safetensors", name=variant.name, steps=str(trainer.step))
    asked = {"size": options.size, "every": options.every, "rounds": options.rounds}
    row: dict[str, Any] = {
        "asked": asked,
        "variant": variant.name,
        "minutes": round(trainer.hours * 60, 2),
        "steps": trainer.step,
    }
    held_out = ClipSource(settings.data, replace(settings.clips, real=0.0, exclude=(), distractors=True), held_out=True)
    row |= {f"held out {stage}": value for stage, value in trainer.validate(held_out).items()}
    say(f"{variant.name}: held out " + ", ".join(f"{s} {row[f'held out {s}']:.3f}" for s in STAGES))
    return row | on_dev(folder / "model.safetensors", options)


def _spend(trainer: ClockedTrainer, folder: Path) -> None:
    source = ClipSource(trainer.settings.data, trainer.settings.clips)
    batches = ClipDataset(source, trainer.settings, 0)
    rollout = trainer.rollout()
    saved = time.monotonic()
    try:
        while trainer.hours * 3600 < trainer.seconds:
            begin = time.process_time()
            trainer.advance(batches[trainer.step], rollout)
            trainer.hours += (time.process_time() - begin) / 3600
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                trainer.save(folder)
                saved = time.monotonic()
    finally:
        trainer.save(folder)


def on_dev(model: Path, options: argparse.Namespace) -> dict[str, float]:
    """Mean J of the benchmark on dev after the first and the last round, by group."""
    from napari_ivos.benchmark import Result, Settings, benchmark, find_sequences

    if options.dev is None:
        return {}
    settings = Settings(options.rounds, options.every, score="started", time_limit=None, boundary=False)
    plays = list(benchmark(find_sequences(options.dev), ["ivos"], (0,), settings, model=str(model), device="cpu"))
    found: dict[str, list[Result]] = {}
    for play in plays:
        if not isinstance(play, Result):
            raise SystemExit(f"{play.sequence} could not be played: {play.message}")
        found.setdefault(play.group, []).append(play)
    return {
        f"{group} J{rounds}": float(np.mean([r.j[rounds - 1] for r in own]))
        for group, own in sorted(found.items())
        for rounds in dict.fromkeys((1, options.rounds))
    }


def write_table(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """The table as text, CSV and PNG; its text."""
    head = list(dict.fromkeys(key for row in rows for key in row))
    cells = [head] + [[_cell(row.get(key, "")) for key in head] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True)))
             for r in cells]  # fmt: skip
    title = (
        f"{options.minutes:g} minutes of one core each, from the same start; dev: every {options.every}th frame, "
        f"{options.rounds} rounds, objects of the first frame."
    )
    text = "\n".join([title, "", *lines]) + "\n"
    write_whole(options.output / "ablations.txt", text.encode())
    with (options.output / "ablations.csv").open("w", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, head).writeheader()
        csv.DictWriter(file, head).writerows(rows)
    bars(rows, head).savefig(options.output / "ablations.png", dpi=110)
    return text


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def bars(rows: list[dict[str, Any]], head: list[str]) -> Figure:
    """One panel a score, one bar a variant; the line is what all ingredients give."""
    from matplotlib.figure import Figure

    scores = [key for key in head if key not in ("variant", "minutes", "steps")]
    figure = Figure(figsize=(2.1 * len(scores) + 2.5, 0.32 * len(rows) + 1.4), layout="constrained")
    names = [row["variant"] for row in rows]
    for axis, score in zip(figure.subplots(1, len(scores), sharey=True, squeeze=False)[0], scores, strict=True):
        values = [row.get(score, np.nan) for row in rows]
        axis.barh(names, values, color=["0.25" if n.startswith("all") else "tab:blue" for n in names])
        axis.axvline(values[0], color="0.25", lw=0.8)
        axis.set_title(score, fontsize=9)
        axis.set_xlim(max(np.nanmin(values) - 0.1, 0), np.nanmax(values) + 0.03)
        axis.invert_yaxis()
    return figure


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def main() -> None:
    """Do what is not done yet, and write the table after each."""
    parser = argparse.ArgumentParser(description="Train variants for equal times and compare them.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="training data")
    parser.add_argument("--imagenet", type=Path, required=True, help="MobileNetV2's ImageNet weights")
    parser.add_argument("--dev", type=Path, help="sequences to measure on; without it, held-out clips only")
    parser.add_argument("--minutes", type=float, default=8.0, help="of one core, a variant (8)")
    parser.add_argument("--size", type=int, default=128, help="side of the region where a variant does not say (128)")
    parser.add_argument("--every", type=int, default=8, help="dev: each so-manieth frame (8)")
    parser.add_argument("--rounds", type=int, default=3, help="dev: rounds (3)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these variants only")
    options = parser.parse_args()
    chosen = [v for v in VARIANTS if not options.only or v.name in options.only]
    if not chosen:
        parser.error(f"no such variant; there are {', '.join(repr(v.name) for v in VARIANTS)}")
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with interruptible():
        for variant in chosen:
            done = options.output / f"{variant.name.replace(' ', '_').replace(',', '')}.json"
            if not done.exists():
                write_whole(done, json.dumps(learn(variant, options), indent=1).encode())
            row = json.loads(done.read_text())
            asked = row.pop("asked")
            if any(asked[key] != getattr(options, key) for key in asked):
                raise SystemExit(f"{done} was measured with {asked}; take another output folder for other settings.")
            rows.append(row)
            text = write_table(rows, options)
    say(text)


if __name__ == "__main__":
    main()
