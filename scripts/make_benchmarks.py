"""Measure again what the documentation shows: ``python scripts/make_benchmarks.py [PART ...] [--data DEV]``.

Each part is a command that anyone can run. What it prints is kept as ``docs/measured/PART.md`` with the command, the
day and the machine, a plot beside it as ``PART.png`` where there is one. The page shows whatever is there. On a machine
that does other things as well, give it priority (``chrt -f 5 python scripts/make_benchmarks.py ...``, as root): then
times are about those of a quiet one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TOP = Path(__file__).parent.parent
FOLDER = TOP / "docs" / "measured"
SCREEN = ["xvfb-run", "-a", "-s", "-screen 0 1400x900x24"]
PROGRAM = [sys.executable, "-m", "napari_ivos"]


@dataclass(frozen=True)
class Part:
    """One thing to measure.

    Parameters
    ----------
    title : str
        Its heading.
    shown : str
        The command as people type it.
    command : list of str
        The command as it is run here, in an empty folder; the samples are in ``sample_data``.
    table : callable
        What it printed, and its folder, to Markdown.
    plot : str
        A picture that it leaves; "" where there is none.
    """

    title: str
    shown: str
    command: list[str]
    table: Callable[[str, Path], str]
    plot: str = ""


def _engine(part: str, title: str, *more: str) -> Part:
    command = [sys.executable, str(TOP / "benchmarks" / "engine.py"), part, *more]
    return Part(title, " ".join(["python benchmarks/engine.py", part, *more]), command, _as_printed)


def _as_printed(said: str, folder: Path) -> str:
    """Tables that the program itself wrote, without its headings."""
    return "\n".join(line for line in said.splitlines() if line.startswith("|"))


def _preformatted(said: str, folder: Path) -> str:
    return f"```text\n{said.strip()}\n```"


def _curves(said: str, folder: Path) -> str:
    """Several tables and what is said of them, their headings in bold."""
    lines = [f"**{line.lstrip('# ')}**" if line.startswith("#") else line for line in said.strip().splitlines()]
    return "\n".join(lines)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _demo(said: str, folder: Path) -> str:
    found = json.loads(said)["samples"]
    return table(
        ["sample", "J after one round"], ([f"{name} (simulated)", f"{one['j']:.3f}"] for name, one in found.items())
    )


def _rounds(said: str, folder: Path) -> str:
    """The benchmark's own text report."""
    return _preformatted((folder / "report" / "benchmark.txt").read_text(encoding="utf-8"), folder)


def _rows(said: str, folder: Path) -> str:
    """What one mask of each sample costs on its way back from a worker."""
    rows = (
        [
            name,
            f"{row['mask_kB']:.1f} kB",
            f"{row['references_an_object_kB']:.0f} kB",
            f"{row['planned_and_written_ms_a_mask']:.2f} ms",
        ]
        for name, row in json.loads(said).items()
    )
    return table(["", "a mask on its way back", "references of an object", "to plan and write a mask"], rows)


def _efficiency(said: str, folder: Path) -> str:
    """One worker and two, by the clock and by what the processor did."""
    found = json.loads(said)
    cost = found["cpu_s_per_mask"]
    rows = ([n, f"{rate:.1f}", f"{1e3 * cost[n]:.0f} ms"] for n, rate in found["masks_per_s"].items())
    return (
        f"{table(['workers', 'masks a second', 'processor time of a mask'], rows)}\n\n"
        f"Efficiency of two: {found['efficiency_by_clock']:.2f} by the clock, "
        f"{found['efficiency_by_processor']:.2f} by processor time. The writer takes "
        f"{100 * found['writer_cpu_share']:.0f} % of the workers' processor time."
    )


PLAY = ["benchmark", "sample_data", "--methods", "ivos,walker,forest,copy"]
PLAY += ["--rounds", "4", "--every", "4", "--no-boundary", "--output", "report"]
PARTS = {
    "demo": Part("Both samples", "napari-ivos demo", [*PROGRAM, "demo", "--json", "--quiet"], _demo),
    "rounds": Part(
        "Both samples over four rounds, every fourth frame",
        f"napari-ivos {' '.join(PLAY)}",
        [*PROGRAM, *PLAY],
        _rounds,
        "report/curves.png",
    ),
    "import": _engine("import", "Import"),
    "sparse": _engine("sparse", "A stack of 100 GB"),
    "interaction": _engine("interaction", "One interaction"),
    "frame-size": _engine("frame-size", "Cost and the size of frames"),
    "film": _engine("film", "A film"),
    "busy": _engine("busy", "A film beside another program"),
    "sizes": _engine("sizes", "Two sizes of networks"),
    "memory": _engine("memory", "Memory over a long stack"),
    "scaling": Part(
        "Speed against objects, size of frames and length of the stack",
        "python benchmarks/scaling.py --plot scaling.png",
        [sys.executable, str(TOP / "benchmarks" / "scaling.py"), "--plot", "scaling.png"],
        _curves,
        "scaling.png",
    ),
    "long": Part(
        "What else costs how much on long stacks",
        "python benchmarks/long_stacks.py --plot long.png",
        [sys.executable, str(TOP / "benchmarks" / "long_stacks.py"), "--plot", "long.png"],
        _as_printed,
        "long.png",
    ),
    "bytes": Part(
        "Bytes that a batch reads of a chunked stack",
        "python benchmarks/batch.py bytes --table",
        [sys.executable, str(TOP / "benchmarks" / "batch.py"), "bytes", "--table"],
        _as_printed,
    ),
    "rows": Part(
        "Masks on their way back to the one who writes",
        "python benchmarks/batch.py rows --frames 48",
        [sys.executable, str(TOP / "benchmarks" / "batch.py"), "rows", "--frames", "48"],
        _rows,
    ),
    "efficiency": Part(
        "Two workers against one, on two cores",
        "python benchmarks/batch.py efficiency",
        [sys.executable, str(TOP / "benchmarks" / "batch.py"), "efficiency"],
        _efficiency,
    ),
    "window": Part(
        "The window",
        "python benchmarks/plugin.py",
        [*SCREEN, sys.executable, str(TOP / "benchmarks" / "plugin.py")],
        _preformatted,
    ),
    "window-memory": Part(
        "Memory of the window on a stack of 50 GB",
        "python benchmarks/plugin_memory.py",
        [*SCREEN, sys.executable, str(TOP / "benchmarks" / "plugin_memory.py")],
        _preformatted,
    ),
    "newcomer": Part(
        "How long a newcomer waits",
        "python benchmarks/newcomer.py",
        [*SCREEN, sys.executable, str(TOP / "benchmarks" / "newcomer.py")],
        _preformatted,
    ),
}


def machine() -> str:
    """Processor, cores, system and versions, and how busy the machine is."""
    import torch

    busy = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        busy += ", before all of which this went (real-time priority)"
    return (
        f"{platform.machine()}, {os.cpu_count()} cores{busy}; {platform.system()}, Python {platform.python_version()}, "
        f"torch {torch.__version__.split('+')[0]}"
    )


def measure(name: str, part: Part, kept: Path | None = None) -> None:
    """Run a part and keep what it gives.

    Parameters
    ----------
    name, part : str, Part
        What.
    kept : Path, optional
        Run it in this folder, where it may go on with what it left there; without, in one that is deleted afterwards.

    Raises
    ------
    RuntimeError
        It failed; the message has its last lines.
    """
    before = machine()
    with tempfile.TemporaryDirectory() as scratch:
        folder = kept or Path(scratch)
        shutil.copytree(TOP / "sample_data", folder / "sample_data", dirs_exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(part.command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{part.shown} failed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
        picture = f"\n\n![{part.title}](measured/{name}.png)" if part.plot else ""
        when = datetime.now(UTC).strftime("%d %B %Y")
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / f"{name}.md").write_text(
            f"### {part.title}\n\n`{part.shown}`\n\n{part.table(done.stdout, folder)}{picture}\n\n"
            f"*{when}; at its start: {before}.*\n",
            encoding="utf-8",
        )
        if part.plot:
            shutil.copy(folder / part.plot, FOLDER / f"{name}.png")


def main() -> int:
    """Measure the parts and carry the figures; 1 if one failed."""
    import carry_figures
    import make_quality

    needing = make_quality.parts(Path("DEV"))
    parser = argparse.ArgumentParser(description="Measure again what the documentation shows.")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; with --data also {', '.join(needing)} (all)"
    )
    parser.add_argument("--data", type=Path, metavar="DEV", help="folder of the development stacks")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="keep here what an interrupted part goes on from")
    options = parser.parse_args()
    parts = dict(PARTS)
    if options.data:
        parts |= make_quality.parts(options.data.resolve())
    unknown = [name for name in options.parts if name not in parts]
    if unknown:
        hint = "; give --data for it" if unknown[0] in needing else ""
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(parts)}{hint}")
    failed = 0
    for name in options.parts or parts:
        try:
            measure(name, parts[name], options.work and options.work.resolve() / name)
        except RuntimeError as error:
            failed = 1
            print(error, file=sys.stderr)
        else:
            print(f"{name}: {(FOLDER / name).with_suffix('.md')}", flush=True)
    carry_figures.main()
    return failed


if __name__ == "__main__":
    sys.exit(main())
