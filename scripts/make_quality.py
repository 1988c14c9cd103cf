"""What the documentation says of the networks: parts of `scripts/make_benchmarks.py` that need the development stacks.

They lie in the folders ``video`` and ``microscopy`` of ``DEV``. Each part is a command that anyone who has them can
run.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from make_benchmarks import PROGRAM, TOP, Part, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NAMES = {
    "usiigaci_t98g": "cells in phase contrast",
    "stardist_nuclei3d": "tiny nuclei in 3-D",
    "plantseg_ovule": "ovule, membranes in 3-D",
    "fib25_em": "neurites in EM",
}
"""What the pages call stacks."""
TRIALS = (
    "objects are not told by their looks",
    "masks stay where they were",
    "masks of earlier rounds shown",
    "margin 2.4",
    "two-way: by certainty",
)
LOOKS = ("objects are told by their looks",)
ENDINGS = ("objects never end", "one doubted mask ends")
GROUPS = ("video", "microscopy")
HISTORY = {
    "7a89e28:compact@1.2": ("1, 2", "192 px", "20,000"),
    "1904ac9:compact@4.6": ("to 5", "192 px", "42,000"),
    "7957cf5:compact@6.5": ("to 7, one on a GPU", "192 px", "105,000"),
    "0dadf23:compact@7.4": ("to 8", "192 px", "111,000"),
    "f53f3ce:fine@8.5": ("to 9", "256 px", "114,000"),
    "80fe3b6:fine@9.7": ("to 10", "256 px", "119,000"),
    "8409922:compact@10.8": ("to 11", "both", "124,000"),
    "6e232d3:compact@12.3": ("to 12, as shipped", "both", "128,000"),
}
"""Weights that shipped, with the hours of one core that went into them: the recipes they went through, the regions they
see, and clips so far."""
ENDING_STACKS = ("stardist_nuclei3d", "plantseg_ovule", "usiigaci_t98g")


def parts(data: Path) -> dict[str, Part]:
    """All parts, on the stacks in `data`."""
    played = ["--no-boundary", "--time-limit", "0"]
    started = ["--score", "started", *played]
    three = ["--methods", "forest,copy", "--sequences", "blackswan,bmx-trees,camel", *played]
    trials = ["trials", "DEV/video", "--every", "2", "--rounds", "6", "--only", *TRIALS]
    stacks = [f"DEV/microscopy/{name}" for name in ENDING_STACKS]
    looks = ["trials", "DEV/microscopy", "--every", "2", "--rounds", "3", "--only", *LOOKS]
    ending = ["trials", *stacks, "--every", "1", "--rounds", "1", "--only", *ENDINGS]

    def play(title: str, folder: str, *more: str) -> Part:
        shown = ["benchmark", f"DEV/{folder}", *more]
        command = [*PROGRAM, *_there(shown, data), "--output", "report"]
        return Part(title, " ".join(["napari-ivos", *shown]), command, _played)

    def script(title: str, name: str, shown: Sequence[str], made: Callable[[str, Path], str]) -> Part:
        words = [f'"{word}"' if " " in word else word for word in shown]
        command = [sys.executable, str(TOP / name), *_there(shown, data)]
        return Part(title, " ".join(["python", name, *words]), command, made)

    return {
        "video": play("Videos", "video", *played),
        "microscopy": play("Microscopy, objects of the first frame", "microscopy", *started),
        "seeds": replace(
            play("Videos, other first strokes", "video", "--rounds", "2", "--seeds", "1,2,3,4,5", *played), table=_seeds
        ),
        "peers-video": play("Videos, a peer", "video", "--methods", "walker", *played),
        "peers-microscopy": play("Microscopy, a peer", "microscopy", "--methods", "walker", *started),
        "peers-three": play("Three videos, further peers", "video", *three),
        "drift": script("What becomes of masks", "scripts/drift.py", ["DEV"], _drift),
        "drift-let-go": script(
            "Carried by the networks alone", "scripts/drift.py", ["DEV/video", "--trusted", "0"], _let_go
        ),
        "true-masks": script(
            "True masks on some frames", "scripts/drift.py", ["DEV/video", "--true", "1", "3", "8"], _true
        ),
        "painted": script(
            "True masks in the place of strokes", "scripts/drift.py", ["DEV/video", "--painted", "8"], _painted
        ),
        "trials": script("What needs no training", "scripts/trials.py", trials, _trials),
        "looks": script("Told by looks under a microscope", "scripts/trials.py", looks, _looks),
        "endings": script("Where objects end", "scripts/trials.py", ending, _endings),
        "hours": replace(
            script(
                "Would more time help", "scripts/hours.py", ["OUT", *HISTORY, "--every", "4", "--data", "DEV"], _hours
            ),
            plot="OUT/hours.png",
        ),
        "training-speed": script("Training on a CPU", "benchmarks/training.py", ["TRAIN", "steps"], _training),
        "adapt": script("Adapting to a stack", "benchmarks/adapt.py", ["DEV/microscopy"], _adapt),
    }


def _there(words: Sequence[str], data: Path) -> list[str]:
    """A command's words with the real folders for ``DEV``, and for ``TRAIN`` beside it."""
    there = {"DEV": data, "TRAIN": data.parent / "train"}
    return [
        str(there[word.split("/")[0]] / word.partition("/")[2]) if word.split("/")[0] in there else word
        for word in words
    ]


# --- tables -----------------------------------------------------------------------------------------------------------


def _named(name: str) -> str:
    return NAMES.get(name, name)


def _played(said: str, folder: Path) -> str:
    """J after every round of each play, the mean of each method, and what no mask at all scores."""
    report: dict[str, Any] = json.loads((folder / "report" / "benchmark.json").read_text(encoding="utf-8"))
    rounds, rows = range(1, report["settings"]["rounds"] + 1), []
    for mean in report["means"]:
        own = [play for play in report["plays"] if play["method"] == mean["method"]]
        for play in own:
            found = [one["j"] for one in play["rounds"]]
            rows.append([_named(play["sequence"]), mean["method"], *map(_digits, found), _digits(play["empty_j"])])
        empty = sum(play["empty_j"] for play in own) / len(own)
        rows.append(["**mean**", mean["method"], *map(_digits, mean["j"]), _digits(empty)])
    return table(["J after round", "", *map(str, rounds), "without any mask"], rows)


def _seeds(said: str, folder: Path) -> str:
    """Mean J after each round by seed of the first strokes, and of all."""
    report: dict[str, Any] = json.loads((folder / "report" / "benchmark.json").read_text(encoding="utf-8"))
    by_seed: dict[int, list[list[float]]] = {}
    for play in report["plays"]:
        by_seed.setdefault(play["seed"], []).append([one["j"] for one in play["rounds"]])
    means = {str(seed): np.mean(found, axis=0) for seed, found in by_seed.items()}
    means["**mean**"] = np.mean(list(means.values()), axis=0)
    rows = [[name, *map(_digits, found)] for name, found in means.items()]
    return table(["first strokes, by seed: J after round", *map(str, range(1, report["settings"]["rounds"] + 1))], rows)


def _digits(value: float) -> str:
    return f"{value:.3f}"


def _lines(said: str) -> dict[str, list[str]]:
    """The numbers of each line of `scripts/drift.py`, by its name."""
    found = {}
    for line in said.splitlines():
        if parts := re.fullmatch(r"(\S+|mean, \w+) +([\d.| na]+)", line):
            found[parts[1]] = parts[2].replace("|", " ").split()
    return found


def _drift(said: str, folder: Path) -> str:
    lines = _lines(said)
    means = {name: values for name, values in lines.items() if name.startswith("mean, ")}
    corrected = [[name[6:], ", ".join(v[:4]), ", ".join(v[4:8])] for name, v in means.items()]
    carried = [[name[6:], ", ".join(v[10:13]), ", ".join(v[16:19]), ", ".join(v[13:16])] for name, v in means.items()]
    each = [[_named(name), v[8], v[1], v[3], v[17]] for name, v in lines.items() if name not in means]
    return "\n\n".join(
        [
            table(["", "J after first strokes, 1, 2, 3 corrections", "strokes obeyed"], corrected),
            table(
                ["a true mask, 1, 4, 8 frames on", "moved by optical flow alone", "as shipped", "on a still picture"],
                carried,
            ),
            table(
                [
                    "",
                    "the truth in the region's pixels",
                    "corrected once",
                    "three times",
                    "four frames on from the truth",
                ],
                each,
            ),
        ]
    )


def _let_go(said: str, folder: Path) -> str:
    values = _lines(said)["mean, video"]
    return table(
        ["a true mask, 1, 4, 8 frames on", "by the networks alone", "on a still picture"],
        [["video", ", ".join(values[16:19]), ", ".join(values[13:16])]],
    )


def _true(said: str, folder: Path) -> str:
    return table(["J, true masks on", "1 frame", "3 frames", "8 frames"], _stacks(said))


def _painted(said: str, folder: Path) -> str:
    return table(["J after round", *map(str, range(1, 9))], _stacks(said))


def _stacks(said: str) -> list[list[str]]:
    """A row for each stack and each mean, of all numbers that `scripts/drift.py` gives for it."""
    return [[f"**{name[6:]}**" if name.startswith("mean, ") else name, *v] for name, v in _lines(said).items()]


def _tried(folder: Path) -> list[list[str]]:
    """Rows of what `scripts/trials.py` left, without the first one."""
    text = (folder / "trials" / "trials.txt").read_text(encoding="utf-8")
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines()[3:] if line.strip()]


def _trials(said: str, folder: Path) -> str:
    return table(["trial", "J, round 1", "J, round 6"], [row[:3] for row in _tried(folder)])


def _looks(said: str, folder: Path) -> str:
    return table(["trial", "J, round 1", "J, round 3"], [row[:3] for row in _tried(folder)])


def _endings(said: str, folder: Path) -> str:
    """A row a stack, a column a trial."""
    columns = {"never": ENDINGS[0], "two doubted masks in a row, as shipped": "as shipped", "one": ENDINGS[1]}
    found = []
    for trial in columns.values():
        (path,) = (folder / "trials").glob(re.sub(r"\W", "_", trial) + "_every1_*.json")
        plays: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found.append({name.split("/")[1]: play["j"][0] for name, play in plays.items()})
    rows = [[_named(stack), *(_digits(trial[stack]) for trial in found)] for stack in ENDING_STACKS]
    return table(["J after one round; ended by doubted masks:", *columns], rows)


def _hours(said: str, folder: Path) -> str:
    """What the weights went through, and J of both groups after the first round and the third."""
    measured = csv.DictReader((folder / "OUT" / "hours.csv").read_text(encoding="utf-8").splitlines())
    found = {row["weights"].split("/")[1]: row for row in measured}
    rows = []
    for weights, what in HISTORY.items():
        commit, name, hours = re.split("[:@]", weights)
        row = found[f"{name}-{commit}"]
        scores = [f"{_digits(float(row[f'{group} J1']))}, {_digits(float(row[f'{group} J3']))}" for group in GROUPS]
        rows.append([commit, *what, hours, *scores])
    return table(
        ["commit", "parts", "regions", "clips so far", "hours of one core", *(f"{g}, rounds 1, 3" for g in GROUPS)],
        rows,
    )


def _training(said: str, folder: Path) -> str:
    """Seconds a step by region and number type, and how many processes then keep up with it."""
    lines = re.findall(r"steps, (\d+ px), (\w+), \w+: ([\d.]+) s .* keep ([\d.]+) processes busy", said)
    clip = re.search(r"clips, as they come: (\d+) ms", said)
    if clip is None or not lines:
        raise RuntimeError(f"benchmarks/training.py said nothing of clips or steps:\n{said}")
    rows = [[region, kind, f"{seconds} s", busy] for region, kind, seconds, busy in lines]
    return f"A clip takes {clip[1]} ms of one core.\n\n" + table(
        ["regions", "numbers", "a step of 8 clips", "processes that make its clips meanwhile"], rows
    )


def _adapt(said: str, folder: Path) -> str:
    rows = []
    for line in said.splitlines():
        if found := re.fullmatch(r"(\w+) +([\d.]+) +([\d.]+) +(yes|no) +(\d+)", line):
            kept = "kept" if found[4] == "yes" else "dropped"
            rows.append([_named(found[1]), found[2], found[3], kept, f"{found[5]} s"])
        elif found := re.match(r"mean +([\d.]+) +([\d.]+)", line):
            rows.append(["**mean**", found[1], found[2], "", ""])
    return table(["J over later frames", "before", "after", "the adapted model was", "CPU time"], rows)
