"""What came of a batch: a table of its stacks as text, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from napari_ivos.files import write_whole
from napari_ivos.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

State = Literal["done", "earlier", "failed", "stopped"]
"""Finished now; finished by an earlier run; failed; stopped before it was finished."""
WORDS = {"done": "done", "earlier": "done earlier", "failed": "failed", "stopped": "stopped"}
FILES = ("summary.txt", "summary.csv", "summary.json")
"""Names of a summary in the output folder."""
_WIDE = 300  # of an error in the table of text: a long path, and what is wrong with it


@dataclass(frozen=True)
class StackResult:
    """What came of one stack.

    Parameters
    ----------
    name : str
        As in the manifest.
    state : {"done", "earlier", "failed", "stopped"}
        "earlier": an earlier run had finished it.
    error : str
        Why it failed, else "".
    frames : int
        Frames that were changed, each counted once.
    masks : int
        Masks that the networks made.
    seconds : float
        From its first parcel to its last file.
    frames_per_second : float
        `frames` over `seconds`; 0 where nothing was to be done.
    project : str
        Its project file.
    outputs : tuple of str
        Files and folders that were written.
    notes : tuple of str
        What is to be known about them.
    """

    name: str
    state: State
    error: str = ""
    frames: int = 0
    masks: int = 0
    seconds: float = 0.0
    frames_per_second: float = 0.0
    project: str = ""
    outputs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What came of a batch.

    Parameters
    ----------
    stacks : tuple of StackResult
        In the order of the manifest.
    seconds : float
        For all of it.
    model : str
        Name and checksum.
    devices : tuple of str
        What the workers computed on.
    """

    stacks: tuple[StackResult, ...]
    seconds: float
    model: str
    devices: tuple[str, ...] = field(default=())

    @property
    def failed(self) -> tuple[StackResult, ...]:
        """Those that failed."""
        return tuple(s for s in self.stacks if s.state == "failed")

    @property
    def complete(self) -> bool:
        """Whether every stack is finished."""
        return all(s.state in ("done", "earlier") for s in self.stacks)

    def as_text(self) -> str:
        """A table for people."""
        rows = [("stack", "state", "frames", "masks", "seconds", "frames/s", "")]
        for s in self.stacks:
            rate = f"{s.frames_per_second:.2f}" if s.frames else ""
            rows.append((s.name, WORDS[s.state], str(s.frames), str(s.masks), f"{s.seconds:.1f}", rate, s.error))
        return "\n".join([*table(rows, left=2), self.line()])

    def line(self) -> str:
        """One line about all of it."""
        counts: Counter[str] = Counter(s.state for s in self.stacks)
        told = ", ".join(f"{counts[state]} {words}" for state, words in WORDS.items() if counts[state])
        frames = sum(s.frames for s in self.stacks)
        rate = f", {frames / self.seconds:.2f} frames/s" if frames and self.seconds else ""
        count = counted(len(self.stacks), "stack")
        return f"{count}: {told or 'nothing to do'}; {frames} frames in {self.seconds:.1f} s{rate}."

    def as_csv(self) -> str:
        """A table for spreadsheets: a line a stack."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        names = [f.name for f in fields(StackResult)]
        writer.writerow(names)
        for s in self.stacks:
            values = asdict(s)
            writer.writerow([";".join(v) if isinstance(v := values[n], tuple) else v for n in names])
        return out.getvalue()

    def as_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        counts = Counter(s.state for s in self.stacks)
        return {
            "model": self.model,
            "devices": list(self.devices),
            "seconds": round(self.seconds, 3),
            "counts": dict(counts),
            "complete": self.complete,
            "stacks": [asdict(s) for s in self.stacks],
        }

    def write(self, folder: Path) -> tuple[Path, ...]:
        """Put `summary.txt`, `summary.csv` and `summary.json` into a folder, each whole or not at all."""
        texts = (self.as_text() + "\n", self.as_csv(), json.dumps(self.as_dict(), indent=1) + "\n")
        return tuple(write_whole(folder / name, text.encode()) for name, text in zip(FILES, texts, strict=True))


_BEGINNINGS = (r"stack +state +frames ", ",".join(f.name for f in fields(StackResult)) + "\n", r'\{\n "model": ')
"""Of the texts in these files, as patterns."""


def strangers(folder: Path) -> list[str]:
    """Files, or folders, of these names that no summary of a batch is in."""
    found = []
    for name, beginning in zip(FILES, _BEGINNINGS, strict=True):
        try:
            with (folder / name).open(encoding="utf-8", newline="") as file:
                known = re.match(beginning, file.read(len(beginning) + _WIDE))
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            known = None
        if known is None:
            found.append(name)
    return found


def table(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Lines of a table: so many columns to the left, others to the right, the last one as it is but for its length."""
    last = len(rows[0]) - 1
    wide = [max(len(row[k]) for row in rows) for k in range(last)]
    lines = []
    for row in rows:
        cells = [row[k].ljust(wide[k]) if k < left else row[k].rjust(wide[k]) for k in range(last)]
        words = " ".join(row[last].split())
        cells.append(words if len(words) <= _WIDE else words[: _WIDE - 3] + "...")
        lines.append("  ".join(cells).rstrip())
    return lines
