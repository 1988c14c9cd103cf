"""Run a tutorial cell by cell and keep what each prints: ``python cells.py TUTORIAL RESULT.json``, in its folder."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MARK = re.compile(r"^# %%(?: \[(\w+)\])?[ ]*(.*)$")


@dataclass(frozen=True)
class Cell:
    """A piece of a tutorial.

    Parameters
    ----------
    kind : "text", "code" or "folded"
        Words in Markdown; code that is shown; code that is shown on demand.
    title : str
        What folded code is folded under.
    body : str
        Markdown, or Python.
    line : int
        Of the file, on which the body begins, from 1.
    """

    kind: Literal["text", "code", "folded"]
    title: str
    body: str
    line: int


KINDS: dict[str | None, Literal["text", "code", "folded"]] = {None: "code", "markdown": "text", "folded": "folded"}


def read(path: Path) -> list[Cell]:
    """The cells of a script in percent format (``# %%``, ``# %% [markdown]``, ``# %% [folded] title``).

    Raises
    ------
    ValueError
        A cell of an unknown kind, or text that is not in comments.
    """
    found: list[tuple[int, str | None, str, list[str]]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        mark = MARK.match(line)
        if mark:
            found.append((number + 1, mark[1], mark[2], []))
        elif found:
            found[-1][3].append(line)
    cells = []
    for start, name, title, lines in found:
        if name not in KINDS:
            raise ValueError(f"{path}, line {start - 1}: unknown kind of cell {name!r}; there are {list(KINDS)}.")
        text = _words(path, start, lines) if name == "markdown" else "\n".join(lines).strip("\n")
        cells.append(Cell(KINDS[name], title, text, start))
    return cells


def _words(path: Path, start: int, lines: list[str]) -> str:
    words = []
    for number, line in enumerate(lines, start=start):
        if line.strip() and not line.startswith("#"):
            raise ValueError(f"{path}, line {number}: text cells are comments; found {line!r}.")
        words.append(line[1:].removeprefix(" "))
    return "\n".join(words).strip("\n")


def run(path: Path) -> list[str]:
    """Run all code cells in one namespace; what each cell printed ("" for text)."""
    space: dict[str, object] = {"__name__": "__main__", "__file__": str(path)}
    printed = []
    for cell in read(path):
        said = io.StringIO()
        if cell.kind != "text":
            code = compile("\n" * (cell.line - 1) + cell.body, str(path), "exec")
            with contextlib.redirect_stdout(said):
                exec(code, space)
        printed.append(said.getvalue())
    return printed


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run(Path(sys.argv[1]))), encoding="utf-8")
