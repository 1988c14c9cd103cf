"""The commands: each turns its arguments into calls and the results into words."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from napari_ivos.errors import InputError

if TYPE_CHECKING:
    import argparse

    from napari_ivos.cli.output import Output

TRAINING_PACKAGES = {
    "cv2": "opencv-python-headless",
    "matplotlib": "matplotlib",
    "skimage": "scikit-image",
    "tensorboard": "tensorboard",
}


def segment(options: argparse.Namespace, output: Output) -> int:
    """``napari-ivos segment``."""
    from napari_ivos.cli import segmenting

    facts = segmenting.segment(segmenting.Job.of(options), output)
    output.say(segmenting.summary(facts))
    output.give(facts)
    return 0


def demo(options: argparse.Namespace, output: Output) -> int:
    """``napari-ivos demo``."""
    from napari_ivos.cli import demo as samples

    facts = samples.demo(options.output, options.overwrite, options.model, options.device, output)
    output.give(facts)
    return 0


def export(options: argparse.Namespace, output: Output) -> int:
    """``napari-ivos export``."""
    from napari_ivos import Session
    from napari_ivos.cli.writing import plan, write

    wanted = plan(options.output, options.format, options.overwrite)
    with Session.open(options.project, frames=options.frames, force=options.force) as session:
        if session.stack is None:
            output.note(
                "the project's frames were not found beside it: pictures are without images, labels without pixel "
                "sizes and tables without intensities; give --frames"
            )
        written = write(session, wanted, options.overwrite, output)
    output.give({"project": str(options.project), "outputs": written})
    return 0


def batch(options: argparse.Namespace, output: Output) -> int:
    """``napari-ivos batch``; 1 where a stack failed, or would."""
    from napari_ivos.cli import batching

    if options.dry_run:
        outlook = batching.dry_run(options, output)
        output.say(outlook.as_text())
        output.give(outlook.as_dict())
        return 0 if outlook.sound else 1
    summary = batching.batch(options, output)
    output.say(summary.as_text())
    output.give(summary.as_dict())
    return 0 if summary.complete else 1


def info(options: argparse.Namespace, output: Output) -> int:
    """``napari-ivos info``."""
    from napari_ivos.cli import facts

    found = facts.describe(options.what, reading(options))
    output.say(facts.as_text(found))
    output.give(found)
    return 0


def suggest(options: argparse.Namespace, output: Output) -> int:
    """``napari-ivos suggest``."""
    from napari_ivos.cli import facts

    found = facts.suggestion(options.project)
    frame = found["frame"]
    if frame is None:
        output.say("No frame to suggest: nothing is propagated yet, or every frame is annotated.")
    else:
        worst = min(found["objects"], key=lambda o: float(o["quality"]))
        known = f"object {worst['id']}"
        named = known if worst["name"] == known else f"{worst['name']} ({known})"
        output.say(f"Frame {frame}: {named} has quality {worst['quality']:.2f} there.")
    output.give(found)
    return 0


def adapt(options: argparse.Namespace, output: Output) -> int:
    """``napari-ivos adapt``."""
    from napari_ivos.cli import adapting

    output.give(adapting.adapt(options, output))
    return 0


def doctor(options: argparse.Namespace, output: Output) -> int:
    """``napari-ivos doctor``."""
    from napari_ivos.diagnostics import doctor as checks
    from napari_ivos.diagnostics.checks import TEST_SECONDS

    found = []
    for check in checks(options.model, options.device, 0.0 if options.no_test else TEST_SECONDS):
        output.say(
            f"{check.state:8} {check.name}: {check.found}" + (f"\n         -> {check.hint}" if check.hint else "")
        )
        found.append(check)
    problems = [check.name for check in found if check.state == "problem"]
    output.say(f"{len(problems)} problems: {', '.join(problems)}" if problems else "No problems.")
    output.give({"ok": not problems, "problems": problems, "checks": [check.to_dict() for check in found]})
    return 1 if problems else 0


def add_benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``napari-ivos benchmark``."""
    from napari_ivos.benchmark import add_arguments

    add_arguments(parser)


def benchmark(options: argparse.Namespace, output: Output) -> int:
    """``napari-ivos benchmark``."""
    from napari_ivos.benchmark import main

    return main(options)


def train(options: argparse.Namespace, output: Output) -> int:
    """``napari-ivos train``."""
    need_packages(TRAINING_PACKAGES, "train")
    from napari_ivos.training.settings import TrainingSettings
    from napari_ivos.training.train import train as run

    run(TrainingSettings.from_toml(options.config), tell=output.say)
    return 0


def need_packages(needed: dict[str, str], extra: str) -> None:
    """Refuse with the extra's name where one of its packages is missing."""
    missing = [package for module, package in needed.items() if find_spec(module) is None]
    if missing:
        raise InputError(f"Not installed: {', '.join(missing)}. Run: pip install 'napari-ivos[{extra}]'.")


def reading(options: argparse.Namespace) -> dict[str, Any]:
    """Options of `open_frames` from the arguments that say how to read the input."""
    found: dict[str, Any] = {"axes": options.axes, "frame_axis": options.frame_axis}
    if options.channels is not None:
        found["channels"] = [int(n) for n in _numbers(options.channels, "--channels", whole=True)]
    if options.contrast is not None:
        found["contrast"] = _numbers(options.contrast, "--contrast", count=2)
    if options.index:
        found["index"] = dict(_place(text) for text in options.index)
    return {key: value for key, value in found.items() if value is not None}


def _numbers(text: str, what: str, whole: bool = False, count: int | None = None) -> list[float]:
    try:
        values = [float(int(part)) if whole else float(part) for part in text.split(",")]
    except ValueError as error:
        kind = "whole numbers" if whole else "numbers"
        raise InputError(f"{what} {text!r}: give {kind} with commas between them.") from error
    if count is not None and len(values) != count:
        raise InputError(f"{what} {text!r} has {len(values)} numbers; give {count}.")
    return values


def _place(text: str) -> tuple[str, int]:
    axis, _, number = text.partition("=")
    if not axis or not number.strip().removeprefix("-").isdecimal():
        raise InputError(f"--index {text!r}: give an axis and a number, such as Z=12.")
    return axis, int(number)
