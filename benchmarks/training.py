"""Measure the training program: ``python benchmarks/training.py DATA [PART ...] [--steps N]``.

Parts: clips (how fast one process makes them, by kind), steps (seconds a step by region and number type, and how many
processes keep the networks busy), repeat (two runs of ``--steps`` steps with one seed: are their losses the same
numbers). One thread each. Nothing here is kept.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_ivos.training.settings import TrainingSettings

THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
CLIPS = 40
STEPS = 6


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def settings_of(options: argparse.Namespace, output: str, **changes: Any) -> TrainingSettings:
    """The defaults, with regions of 128 px and no processes beside."""
    from napari_ivos.training.settings import TrainingSettings

    values: dict[str, Any] = {"data": str(options.data), "output": output, "overrides": {"size": 128}, "workers": 0}
    return TrainingSettings.from_dict({**values, "validate_every": 0, "device": options.device, **changes})


def clips(options: argparse.Namespace) -> float:
    """Milliseconds of one core that a clip takes, by where it comes from; their mean as they come."""
    from napari_ivos.training.clips import ClipSettings, ClipSource

    kinds = {
        "as they come": ClipSettings(),
        "stills": ClipSettings(real=0, cutouts=0, procedural=0),
        "real stacks": ClipSettings(real=1),
        "cut-outs": ClipSettings(real=0, cutouts=1),
        "shapes": ClipSettings(real=0, cutouts=0, procedural=1),
    }
    found = []
    for name, settings in kinds.items():
        source = ClipSource(options.data, settings)
        source.draw(0)
        begin = time.process_time()
        for seed in range(1, CLIPS + 1):
            source.draw(seed)
        found.append((time.process_time() - begin) / CLIPS * 1000)
        say(f"clips, {name}: {found[-1]:.0f} ms of one core each")
    return found[0]


def steps(options: argparse.Namespace) -> None:
    """Seconds a step, by region and number type; processes that make its clips in that time."""
    import torch

    from napari_ivos.training.clips import ClipSource
    from napari_ivos.training.train import ClipDataset, Trainer

    each = clips(options)
    for size in (128, 192, 256):
        for amp in (False, True):
            settings = settings_of(options, "unused", overrides={"size": size}, amp=amp)
            trainer = Trainer(settings)
            batches = ClipDataset(ClipSource(settings.data, settings.clips), settings, 0)
            drawn = [batches[k] for k in range(STEPS)]
            trainer.advance(drawn[0], trainer.rollout())
            begin = time.perf_counter(), time.process_time()
            for batch in drawn[1:]:
                trainer.advance(batch, trainer.rollout())
            if trainer.device.type == "cuda":
                torch.cuda.synchronize()
            wall = (time.perf_counter() - begin[0]) / (STEPS - 1)
            used = (time.process_time() - begin[1]) / (STEPS - 1)
            real = wall if trainer.device.type == "cuda" else used
            need = settings.batch * each / 1000 / real
            kind = "bfloat16" if amp else "float32"
            say(f"steps, {size} px, {kind}, {trainer.device}: {wall:.2f} s ({used:.2f} s of one core); "
                f"{settings.batch} clips a step keep {need:.2f} processes busy")  # fmt: skip


def repeat(options: argparse.Namespace) -> None:
    """Two runs with one seed: the largest difference of a loss."""
    from napari_ivos.training.journal import LOG, STEP, read_log, series
    from napari_ivos.training.train import train

    curves = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("first", "second"):
            at = Path(folder, name)
            small = {"size": 64, "width": 16, "fine_width": 8, "key": 8}
            train(settings_of(options, str(at), steps=options.steps, batch=2, overrides=small, cool_down=20), say)
            curves.append(series(read_log(at / LOG), STEP, "loss"))
    worst = float(abs(curves[0] - curves[1]).max())
    say(f"repeat: {len(curves[0])} steps twice, from {curves[0][0, 1]:.3f} to {curves[0][-1, 1]:.3f}; "
        f"largest difference {worst:g}")  # fmt: skip
    if worst:
        raise SystemExit("the two curves differ")


PARTS = {"clips": clips, "steps": steps, "repeat": repeat}


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description="Measure the training program.")
    parser.add_argument("data", type=Path)
    parser.add_argument("parts", nargs="*", default=[], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--steps", type=int, default=200, help="of the runs that are compared (200)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part is called {sorted(unknown)[0]!r}; there are {', '.join(PARTS)}")
    os.environ.update(THREADS)
    for name in options.parts or PARTS:
        PARTS[name](options)


if __name__ == "__main__":
    main()
