"""J of whole stacks against hours of training: would more time help.

``python scripts/hours.py OUTPUT --data DEV ... MODEL ... [--every 8] [--rounds 3]``

A MODEL is an exported file, a run's checkpoint (its averaged weights are measured), or ``COMMIT:NAME``, weights that
once shipped as NAME, from the repository's history. ``MODEL@HOURS`` where the hours of earlier runs are to be added or
the file does not say. ``keep_hours`` in a run's settings keeps files on the way.
``OUTPUT/hours.txt``, ``.csv`` and ``.png`` have the table and the curves; what was measured is not measured again.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open

from napari_ivos import InputError, load_model
from napari_ivos.benchmark import IvosMethod, Settings, find_sequences, read_sequence, run
from napari_ivos.networks.blocks import Architecture
from napari_ivos.networks.weights import load_bytes, new_networks, to_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from napari_ivos.predictor import Predictor

TOP = Path(__file__).parent.parent


@dataclass(frozen=True)
class Point:
    """Weights after some hours."""

    path: Path
    hours: float
    steps: str

    @property
    def name(self) -> str:
        """The file's name and that of its folder."""
        return f"{self.path.resolve().parent.name}/{self.path.stem}"

    @classmethod
    def of(cls, text: str, output: Path) -> Point:
        """From what stands on the command line; weights from the repository's history are put into `output`.

        Raises
        ------
        InputError
            Weights that do not say their hours, and no hours given.
        subprocess.CalledProcessError
            Weights that the repository's history does not have.
        """
        name, _, hours = text.partition("@")
        if ":" in name and not Path(name).exists():
            commit, _, kind = name.partition(":")
            name = str(shipped(commit, kind, output))
        with safe_open(name, "pt") as file:
            notes = file.metadata() or {}
        if not hours and "hours" not in notes:
            raise InputError(f"{name} does not say after how many hours it was written; give {name}@HOURS.")
        return cls(Path(name), float(hours or notes["hours"]), notes.get("steps", notes.get("step", "")))

    def model(self) -> Predictor:
        """The weights, ready for use; of a checkpoint the moving average."""
        with safe_open(self.path, "pt") as file:
            notes = file.metadata() or {}
            if "step" not in notes:
                return load_model(self.path)
            average = {k.removeprefix("average."): file.get_tensor(k) for k in file.keys() if k.startswith("average.")}  # noqa: SIM118 - not a mapping
        architecture = Architecture(**json.loads(notes["architecture"]))
        networks = dict(zip(("interaction", "propagation"), new_networks(architecture), strict=True))
        for part, network in networks.items():
            state = {k.removeprefix(f"{part}."): v for k, v in average.items() if k.startswith(f"{part}.")}
            network.load_state_dict(state)
        blob = to_bytes(networks["interaction"], networks["propagation"], architecture)
        return load_bytes(blob, self.path.stem)


def shipped(commit: str, name: str, output: Path) -> Path:
    """Weights that the repository had under this name in that commit, as a file in `output`."""
    path = output / f"{name}-{commit}.safetensors"
    there = f"{commit}:src/napari_ivos/networks/models/{name}.safetensors"
    path.write_bytes(subprocess.run(["git", "show", there], cwd=TOP, check=True, stdout=subprocess.PIPE).stdout)
    return path


def measure(point: Point, options: argparse.Namespace) -> dict[str, Any]:
    """Mean J by group after the first and the last round: a row of the table."""
    model = point.model()
    settings = Settings(options.rounds, options.every, score="started", time_limit=None, boundary=False)
    found: dict[str, list[Any]] = {}
    for path in (p for root in options.data for p in find_sequences(root)):
        stack = read_sequence(path)
        found.setdefault(stack.group, []).append(run(stack, IvosMethod(model), settings).j)
    row: dict[str, Any] = {"weights": point.name, "hours": point.hours, "steps": point.steps}
    for group, own in sorted(found.items()):
        for r in dict.fromkeys((1, options.rounds)):
            row[f"{group} J{r}"] = round(float(np.mean(own, axis=0)[r - 1]), 4)
    return row


def figure_of(rows: list[dict[str, Any]]) -> Figure:
    """One curve a score, over hours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for key in list(rows[0])[3:]:
        axis.plot([row["hours"] for row in rows], [row.get(key, np.nan) for row in rows], "o-", ms=4, label=key)
    axis.set(xlabel="hours of training", ylabel="mean J")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def write(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """Text, CSV and PNG; the text."""
    rows = sorted(rows, key=lambda row: row["hours"])
    head = list(rows[0])
    cells = [head] + [[f"{row[k]:.3f}" if isinstance(row[k], float) else str(row[k]) for k in head] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    title = f"Every {options.every}th frame, {options.rounds} rounds, objects of the first frame."
    text = "\n".join([title, "", *lines]) + "\n"
    (options.output / "hours.txt").write_text(text, encoding="utf-8")
    with (options.output / "hours.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, head)
        writer.writeheader()
        writer.writerows(rows)
    figure_of(rows).savefig(options.output / "hours.png", dpi=110)
    return text


def main() -> None:
    """Measure what is not measured yet, in the order given."""
    parser = argparse.ArgumentParser(description="J of whole stacks against hours of training.")
    parser.add_argument("output", type=Path)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="sequences with ground truth")
    parser.add_argument("--every", type=int, default=8, help="each so-manieth frame (8)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (3)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for point in (Point.of(text, options.output) for text in options.models):
        played = f"every{options.every}_rounds{options.rounds}"
        done = options.output / f"{point.name.replace('/', '_')}_{point.hours:.3g}h_{played}.json"
        if not done.exists():
            done.write_text(json.dumps(measure(point, options)), encoding="utf-8")
        rows.append(json.loads(done.read_text(encoding="utf-8")))
        print(write(rows, options), flush=True)


if __name__ == "__main__":
    main()
