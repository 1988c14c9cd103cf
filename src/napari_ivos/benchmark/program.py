"""``napari-ivos benchmark``: its arguments, and what it does with them."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from napari_ivos.benchmark.datasets import Score, find_sequences
from napari_ivos.benchmark.methods import METHODS
from napari_ivos.benchmark.protocol import ROUNDS, TIME_LIMIT, Failure, Result, Settings, benchmark
from napari_ivos.benchmark.report import text_table, write_report
from napari_ivos.errors import InputError

if TYPE_CHECKING:
    import argparse

NEEDED = {"cv2": "opencv-python-headless", "matplotlib": "matplotlib", "scipy": "scipy", "skimage": "scikit-image"}
"""Modules of the extra `benchmark`, and the packages that bring them; the forest needs one more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``napari-ivos benchmark``."""
    known = ", ".join(METHODS)
    parser.add_argument(
        "data",
        nargs="+",
        type=Path,
        metavar="DATA",
        help="folders with SEQ/frames and SEQ/masks, DAVIS folders, or NAME.tif beside NAME_labels.tif",
    )
    parser.add_argument(
        "--methods", default="ivos", help=f"comma-separated: {known}, module:Class or file.py:Class (ivos)"
    )
    parser.add_argument("--model", help="for ivos: a model's name or a weights file (the shipped weights)")
    parser.add_argument("--device", help="for ivos: where it computes, such as cpu or cuda (the best there is)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds a sequence ({ROUNDS})")
    parser.add_argument("--every", type=int, default=1, help="use each so-manieth frame only (1)")
    parser.add_argument("--seeds", default="0", help="comma-separated; each has its own first scribbles (0)")
    parser.add_argument("--sequences", help="comma-separated names: play only these")
    parser.add_argument(
        "--score",
        choices=get_args(Score),
        default="all",
        help="all: an object absent from truth and result counts as right; labelled: only frames on which the truth "
        "has it; started: as all, for the objects of the first frame only (all)",
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=TIME_LIMIT,
        help=f"seconds an object and round, 0 for none; a round over it does not count ({TIME_LIMIT:g})",
    )
    parser.add_argument("--no-boundary", action="store_true", help="leave out F")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (1)")
    parser.add_argument("--output", type=Path, help="folder for tables and pictures (none)")


def main(arguments: argparse.Namespace) -> int:
    """Play, print a line a play and the tables at the end, write the report.

    What has been played is reported also when a later play breaks off or is interrupted.

    Parameters
    ----------
    arguments : argparse.Namespace
        What a parser with `add_arguments` gave.

    Returns
    -------
    int
        0, or 1 if a play failed.

    Raises
    ------
    InputError
        Arguments that can't be used, or a package of the extra `benchmark` that is not installed.
    """
    methods = [name.strip() for name in arguments.methods.split(",") if name.strip()]
    _check_packages(methods)
    seeds = _whole_numbers(arguments.seeds)
    settings = Settings(
        rounds=arguments.rounds,
        every=arguments.every,
        score=arguments.score,
        time_limit=arguments.time_limit or None,
        boundary=not arguments.no_boundary,
    )
    paths = _chosen([p for root in arguments.data for p in find_sequences(root)], arguments.sequences)
    total = len(paths) * len(methods) * len(seeds)
    results: list[Result] = []
    failures: list[Failure] = []
    plays = benchmark(
        paths, methods, seeds, settings, model=arguments.model, device=arguments.device, jobs=arguments.jobs
    )
    try:
        for play in plays:
            if isinstance(play, Result):
                results.append(play)
            else:
                failures.append(play)
            _say(f"[{len(results) + len(failures)}/{total}] {_line(play)}")
    finally:
        if results or failures:
            _say("\n" + text_table(results, failures))
            if arguments.output is not None:
                for path in write_report(arguments.output, results, failures):
                    _say(f"written: {path}")
    return 1 if failures else 0


def _line(play: Result | Failure) -> str:
    if isinstance(play, Failure):
        return f"{play.sequence} {play.method} seed {play.seed}: FAILED, {play.message}"
    values = " ".join(f"{v:.3f}" for v in play.j)
    return f"{play.sequence} {play.method} seed {play.seed}: J {values}, {play.times[-1]:.1f} s"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _check_packages(methods: list[str]) -> None:
    needed = dict(NEEDED)
    if "forest" in methods:
        needed["sklearn"] = "scikit-learn"
    missing = [package for module, package in needed.items() if find_spec(module) is None]
    if missing:
        raise InputError(f"Not installed: {', '.join(missing)}. Run: pip install 'napari-ivos[benchmark]'.")
    if not methods:
        raise InputError(f"No method named; there are {', '.join(METHODS)}.")


def _whole_numbers(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"Seeds are {text!r}; give whole numbers with commas between them, such as 0,1,2.") from error
    if not found or min(found) < 0:
        raise InputError(f"Seeds are {text!r}; give at least one, from 0.")
    return found


def _chosen(paths: list[Path], names: str | None) -> list[Path]:
    """The paths whose names are asked for; all if none are."""
    if names is None:
        return paths
    asked = [name.strip() for name in names.split(",") if name.strip()]
    known = {p.stem if p.is_file() else p.name for p in paths}
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise InputError(
            f"No sequence named {', '.join(unknown) or repr(names)}; there are {', '.join(sorted(known))}."
        )
    return [p for p in paths if (p.stem if p.is_file() else p.name) in asked]
