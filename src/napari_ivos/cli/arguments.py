"""The arguments of every command."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import napari_ivos
from napari_ivos.cli import commands

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LEVELS = ("debug", "info", "warning", "error")
"""As in `napari_ivos.diagnostics`."""
FORMATS = ("ome-tiff", "ome-zarr", "davis", "coco", "ctc", "video", "contact-sheet", "table")
"""As in `napari_ivos.export`, which is not loaded to print help; a test holds them together."""


class Parser(argparse.ArgumentParser):
    """Says on wrong usage what is wrong and how it is right, and not every argument that there is.

    Attributes
    ----------
    example : str
        A command that can be typed, without the program's name; the end of its help, too.
    """

    example = ""

    def error(self, message: str) -> NoReturn:
        """What argparse found wrong ends with 2."""
        self._end(message)

    def _end(self, message: str) -> NoReturn:
        said = f"{self.prog}: error: {_corrected(message)}\n"
        said += f"An example: napari-ivos {self.example}\n" if self.example else self.format_usage()
        self.exit(2, f"{said}All arguments: {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse, but what a command does not know is an error of that command: its help has what it knows."""
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            self._end(f"unrecognized arguments: {' '.join(rest)}{_meant(rest[0], self._option_string_actions)}")
        return known, rest


def _corrected(message: str) -> str:
    """What argparse says of a command that isn't there, with the one that was probably meant."""
    found = re.search(r"invalid choice: '([^']+)' \((?:choose|maybe)[^(]* from (.*)\)$", message)
    return message if found is None else message + _meant(found[1], re.findall(r"[\w-]+", found[2]))


def _meant(typed: str, known: Iterable[str]) -> str:
    """What was probably meant, at the end of a message."""
    from difflib import get_close_matches

    near = get_close_matches(typed, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _shown(parser: Parser, example: str) -> Parser:
    """The parser, with an example at the end of its help."""
    parser.example, parser.epilog = example, f"An example: napari-ivos {example}"
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments; `run` of what comes back is the command: ``run(options, output)`` gives the exit code."""
    parser = Parser(
        prog="napari-ivos",
        description="Scribbles on one frame in, masks on all frames out: videos, time-lapses and volumes.",
        epilog="Exit codes: 0 done, 1 something can't be used or done, 2 wrong usage, 130 stopped with Ctrl-C.",
    )
    parser.add_argument("--version", action="version", version=f"napari-ivos {napari_ivos.__version__}")
    parsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="one JSON object on stdout, for machines")
    common.add_argument("--quiet", action="store_true", help="no progress on stderr")
    _telling(common)
    segment = parsers.add_parser("segment", parents=[common], help="segment a stack from scribbles or masks")
    _segment(_shown(segment, "segment cells.tif --scribbles strokes.json --project cells.ivos --output labels.ome.tif"))
    _demo(parsers.add_parser("demo", parents=[common], help="segment the two simulated stacks that ship with this"))
    export = parsers.add_parser("export", parents=[common], help="write a project's labels for other programs")
    _export(_shown(export, "export cells.ivos --output labels.ome.tif"))
    info = parsers.add_parser("info", parents=[common], help="what a stack, a project or a model is")
    info.description = "Says what a stack, a project or a model is, without reading all of it."
    _shown(info, "info cells.tif")
    info.add_argument("what", metavar="INPUT|PROJECT|MODEL", help="a file or folder, or a shipped model's name")
    _reading(info)
    info.set_defaults(run=commands.info)
    suggest = parsers.add_parser("suggest", parents=[common], help="which frame of a project to correct next")
    suggest.description = "Names the frame and the object that most likely need a correction."
    _shown(suggest, "suggest cells.ivos")
    _project(suggest)
    suggest.set_defaults(run=commands.suggest)
    _adapt(parsers.add_parser("adapt", parents=[common], help="fine-tune the model on a project's annotated frames"))
    _batch(parsers.add_parser("batch", parents=[common], help="segment many stacks, on many machines if need be"))
    _doctor(parsers.add_parser("doctor", parents=[common], help="check this installation, and how fast it is"))
    _others(parsers, arguments)
    return parser.parse_args(_joined(arguments))


def _joined(arguments: Sequence[str]) -> list[str]:
    """Tie a contrast that begins with a minus, as CT has it, to its option: argparse would take it for another one."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--contrast" and re.match(r"-\.?\d", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _telling(parser: argparse.ArgumentParser) -> None:
    """What a command says of its own work, and of what goes wrong."""
    parser.add_argument("--debug", action="store_true", help="show where in the program an error came from")
    parser.add_argument("--log-level", choices=LEVELS, help="what is logged (warning; info with --log-file)")
    parser.add_argument("--log-file", type=Path, metavar="FILE", help="add the log to a file")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="where a report of an error goes; it holds no image data and no folders (without: a temporary file, after "
        "unexpected errors only)",
    )


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Checks versions, device, weights, codecs, video, zarr, window and projects, and segments a simulated clip for "
        "up to five seconds. Exit code 1 where there is a problem."
    )
    parser.add_argument("--no-test", action="store_true", help="leave the self-test out")
    _model(parser)
    parser.set_defaults(run=commands.doctor)


def _segment(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Segments a stack. Without --project, what is done is kept beside OUT (OUT.unfinished.ivos) until the command "
        "ends well. The same command again goes on where it was stopped."
    )
    parser.add_argument("input", metavar="INPUT", help="TIFF, OME-Zarr, folder of images, video")
    parser.add_argument(
        "--scribbles",
        type=Path,
        metavar="FILE",
        help="strokes: JSON of DAVIS interactive, or a label image with painted strokes (each value an object)",
    )
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="FILE",
        help="finished masks: a label image of one frame, or a stack or folder of one for each frame",
    )
    parser.add_argument("--frame", type=int, metavar="N", help="frame that a label image belongs to (0)")
    parser.add_argument("--background", type=int, metavar="V", help="value of painted strokes that means background")
    parser.add_argument("--project", type=Path, metavar="FILE", help="project to make, or to go on with")
    _forcing(parser)
    _writing(parser)
    _model(parser)
    _reading(parser)
    parser.set_defaults(run=commands.segment)


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.description = "Segments both sample stacks, which are simulated, and compares with their known masks."
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for the results (demo_output)")
    parser.add_argument("--overwrite", action="store_true", help="replace results in a folder named with --output")
    _model(parser)
    parser.set_defaults(run=commands.demo)


def _export(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes the labels of a project, pictures of them and a table of its objects, for other programs. OUT's ending "
        "says in which format: .ome.tif, .zarr, .json, .mp4, .png, .csv."
    )
    _project(parser)
    parser.add_argument("--frames", metavar="INPUT", help="the project's stack, where it isn't found beside it")
    _forcing(parser)
    _writing(parser)
    parser.set_defaults(run=commands.export)


def _adapt(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Fine-tunes the model on the frames of a project that were scribbled on, painted or imported, and keeps the "
        "result in the project. One annotated frame is kept back at first: if masks carried there are not better than "
        "before, nothing is kept. Ctrl-C leaves the project as it was."
    )
    _project(parser)
    parser.add_argument("--seconds", type=float, default=120.0, metavar="S", help="time limit (120)")
    parser.add_argument("--accept", metavar="N,N-N", help="frames that are right although nobody annotated them")
    parser.add_argument("--drop", action="store_true", help="drop the project's adapted weights again")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all chance (0)")
    parser.add_argument("--frames", metavar="INPUT", help="the project's stack, where it isn't found beside it")
    _forcing(parser)
    _model(parser)
    parser.set_defaults(run=commands.adapt)


def _batch(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Segments all stacks of a manifest on dask workers (extra: distributed). The same command again goes on where "
        "it was stopped; one bad stack fails alone."
    )
    parser.add_argument(
        "manifest",
        type=Path,
        metavar="MANIFEST",
        help="CSV or JSON: for each stack input, scribbles, masks or project, and how to read it",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--scheduler", metavar="ADDRESS", help="a running dask scheduler, such as tcp://10.0.0.1:8786")
    where.add_argument("--workers", type=int, metavar="N", help="workers on this machine (one a GPU, else one a core)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for all results (MANIFEST_results beside it)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace exports that no earlier run of this made")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="look at all stacks and say what would be done and what can't be; nothing is started or written",
    )
    _model(parser)
    parser.set_defaults(run=commands.batch)


def _project(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "project", type=Path, metavar="PROJECT", help="a file (.ivos) that the window, Python or segment made"
    )


def _forcing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force", action="store_true", help="take a stack of other pixels than those that the project was made from"
    )


def _writing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="OUT", help="file, or folder, to write")
    parser.add_argument(
        "--format",
        metavar="NAMES",
        help=f"comma-separated: {', '.join(FORMATS)}; by default OUT's ending says it, and a folder gets labels, "
        "overlay video, contact sheet and table",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME|FILE", help="a shipped model, or a .safetensors file (compact)")
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps (the best there is)")


def _reading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to read the input")
    group.add_argument("--axes", metavar="LETTERS", help="such as TYX, ZYX, TCYX, where the file doesn't say it")
    group.add_argument("--channels", metavar="N,N", help="one to three channels that the networks see")
    group.add_argument(
        "--index", action="append", metavar="AXIS=N", help="where a further axis is held, such as Z=12; repeatable"
    )
    group.add_argument("--contrast", metavar="LOW,HIGH", help="values that become black and white (measured)")
    group.add_argument("--frame-axis", metavar="LETTER", help="axis along which frames lie (T, else Z)")


def _others(parsers: argparse._SubParsersAction[Parser], arguments: Sequence[str]) -> None:
    """Commands of other parts of the package, whose arguments are loaded only if one of them is meant."""
    played = parsers.add_parser("benchmark", help="measure on data with known masks (extra: benchmark)")
    _telling(played)
    if "benchmark" in arguments:
        commands.add_benchmark_arguments(played)
    played.set_defaults(run=commands.benchmark)
    train = parsers.add_parser("train", help="train networks as a settings file says (extra: train)")
    train.add_argument("config", type=Path, metavar="CONFIG", help="settings, a TOML file")
    _telling(train)
    train.set_defaults(run=commands.train)
