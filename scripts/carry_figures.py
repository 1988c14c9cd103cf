"""Carry measured figures into README and the model card: ``python scripts/carry_figures.py``.

What `scripts/make_benchmarks.py` left in ``docs/measured`` is rounded to the digits that
README shows between its ``figures`` marks; the card has the same text.
"""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parent.parent
FOLDER = TOP / "docs" / "measured"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
CARD = TOP / "src" / "napari_ivos" / "networks" / "models" / "compact.md"
SINGLE = [
    ("interaction", r"mask shown: median \| (\d+) ms", r"first strokes to mask, one core \| (\d+) ms"),
    ("frame-size", r"1,000 x 1,000 px, a frame \(median\) \| ([\d.]+) ms", r"object and frame, one core \| (\d+) ms"),
    ("frame-size", r"in 20,000 x 20,000 px \| ([\d.]+) ms", r"in frames of 20,000 x 20,000 px \| (\d+) ms"),
    ("film", r"one thread \| ([\d.]+) ms", r"film of 480p, a frame, one core; two \| (\d+) ms"),
    ("film", r"threads, one a core \| ([\d.]+) ms", r"film of 480p, .* \| \d+ ms; (\d+) ms"),
    ("scaling", r"1,000 over one at 16: ([\d.]+)", r"over one among 16, time \| ([\d.]+) times"),
    ("scaling", r"\| 1,000 \| [\d.]+ \| [\d.]+ \| [\d.]+ \| ([\d.]+) ", r"with 1,000 objects \| ([\d.]+) s"),
    ("memory", r"growth .* \| (\d+) MB", r"growth of memory .* \| (\d+) MB"),
    ("sparse", r"open 100 GB zarr \| ([\d.]+) s", r"opening a 100 GB zarr; memory then \| ([\d.]+) s"),
    ("sparse", r"memory then \| (\d+) MB", r"opening a 100 GB zarr; memory then \| [\d.]+ s; (\d+) MB"),
    ("sizes", r"resnet50 over compact \| ([\d.]+)", r"over `compact`, time \| (\d+) times"),
    ("newcomer", r"its mask is there +([\d.]+) s", r"from starting napari .* \| ([\d.]+) s"),
    ("newcomer", r"all 48 frames have it +([\d.]+) s", r"from starting napari .* s; ([\d.]+) s"),
    ("window", r"dock opens in +([\d.]+) s", r"opening the panel in napari \| ([\d.]+) s"),
    ("window", r"others: median +(\d+) ms", r"mouse release to mask there, 480p \(median\) \| (\d+) ms"),
    ("window", r"of the engine alone +([\d.]+)", r"over the engine alone \| ([\d.]+)"),
    ("window", r"([\d.]+) % under 50", r"under 50 ms \| ([\d.]+) %"),
    ("demo", r"cells \(simulated\) \| ([\d.]+)", r"cells ([\d.]+), toy"),
    ("demo", r"toy \(simulated\) \| ([\d.]+)", r"toy ([\d.]+)\."),
    ("import", r"import napari_ivos, .* \| ([\d.]+) s", r"`import napari_ivos` \| ([\d.]+) s"),
    ("peers-video", r"\*\*mean\*\* \| walker \| ([\d.]+)", r"has ([\d.]+) after one round"),
    ("peers-video", r"\*\*mean\*\* \| walker (?:\| [\d.]+ ){7}\| ([\d.]+)", r"and ([\d.]+) after eight"),
    ("peers-microscopy", r"\*\*mean\*\* \| walker \| ([\d.]+)", r"on the videos, ([\d.]+) and"),
    ("peers-microscopy", r"\*\*mean\*\* \| walker (?:\| [\d.]+ ){7}\| ([\d.]+)", r"and ([\d.]+) in microscopy"),
    ("seeds", r"\*\*mean\*\* \| ([\d.]+)", r"the videos have ([\d.]+) after one"),
    ("seeds", r"\*\*mean\*\* \| [\d.]+ \| ([\d.]+)", r"after one round and ([\d.]+) after two"),
    ("window", r"max (\d+);", r"the longest (\d+) ms"),
]
"""Part, pattern of a number in what it left, pattern of that number in README."""
TABLES = {"video": (1, 2, 4, 8), "microscopy": (1, 2, 4, 8, 9)}
"""Parts whose tables README has in short: which columns, from the first round's on; the ninth is without masks."""


def carried(figures: str, folder: Path = FOLDER) -> str:
    """README's figures as they should be.

    Raises
    ------
    ValueError
        A figure that is not where it is looked for; the message names part and pattern.
    """
    for part, there, here in SINGLE:
        measured = _found(there, (folder / f"{part}.md").read_text(encoding="utf-8"), part)[1]
        shown = _found(here, figures, "README")
        figures = figures[: shown.start(1)] + _rounded(measured, shown[1]) + figures[shown.end(1) :]
    for part, columns in TABLES.items():
        for name, values in _rows((folder / f"{part}.md").read_text(encoding="utf-8")).items():
            row = _found(rf"^\| {part}, J after(?s:.*?)(^\| {re.escape(name)} \| [\d.*| ]+$)", figures, "README")
            cells = [f"{float(values[k - 1]):.2f}" for k in columns]
            if name.startswith("**"):
                cells = [f"**{cell}**" if k < 9 else cell for k, cell in zip(columns, cells, strict=True)]
            figures = figures[: row.start(1)] + f"| {name} | {' | '.join(cells)} |" + figures[row.end(1) :]
    return figures


def _found(pattern: str, text: str, where: str) -> re.Match[str]:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise ValueError(f"{where} has nothing like {pattern!r}")
    return match


def _rounded(measured: str, shown: str) -> str:
    """A measured number with as many digits as one that is shown; as it is shown where that is right."""
    digits = len(shown.partition(".")[2])
    if abs(float(measured) - float(shown)) <= 0.5 * 10.0**-digits + 1e-9:
        return shown
    return f"{float(measured):.{digits}f}"


def _rows(text: str) -> dict[str, list[str]]:
    """Cells of the shipped model's rows, by stack."""
    rows = (re.match(r"\| ([^|]+) \| ivos \| (.+) \|$", line) for line in text.splitlines())
    return {row[1]: row[2].split(" | ") for row in rows if row}


def main() -> None:
    """Write README and the card."""
    path = TOP / "README.md"
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    figures, after = rest.split(END)
    figures = carried(figures)
    path.write_text(before + BEGIN + figures + END + after, encoding="utf-8")
    head, rest = CARD.read_text(encoding="utf-8").split("## Figures\n", 1)
    after = rest.split("\n## ", 1)[1]
    CARD.write_text(f"{head}## Figures\n\n{figures.strip()}\n\n## {after}", encoding="utf-8")


if __name__ == "__main__":
    main()
