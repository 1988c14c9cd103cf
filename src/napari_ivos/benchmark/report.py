"""What a benchmark found, as text, CSV, JSON and pictures.

Pictures show frames of the data that was played: look whether its terms let you pass them on before you publish them.
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.benchmark.datasets import read_sequence
from napari_ivos.benchmark.metrics import area_under_curve, value_at
from napari_ivos.errors import InputError
from napari_ivos.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.figure import Figure

    from napari_ivos.benchmark.protocol import Failure, Result

SECONDS = 60.0
"""Where the protocol reads its curve, beside the area under it."""
ALL = "all"
"""Name of the group of everything, in tables."""
PALETTE = (
    (230, 97, 0), (93, 58, 155), (26, 133, 255), (212, 17, 89), (0, 158, 115), (240, 228, 66), (86, 180, 233),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Curve:
    """One method on one group of results: means after each round.

    Parameters
    ----------
    j, f, times : (R,) float64 array
        Mean J, mean F, mean seconds from the first scribbles on.
    auc, at_60 : float
        Area under the J curve over the horizon, and J on it at 60 s.
    auc_jf : float
        The same area for the mean of J and F; NaN where F was not asked for.
    spread : float
        Standard deviation of the last J over seeds; NaN with one seed.
    memory : int
        Largest peak of a play, in bytes.
    """

    method: str
    group: str
    n_sequences: int
    n_plays: int
    j: npt.NDArray[np.float64]
    f: npt.NDArray[np.float64]
    times: npt.NDArray[np.float64]
    auc: float
    at_60: float
    auc_jf: float
    spread: float
    memory: int


def curves(results: Iterable[Result]) -> list[Curve]:
    """The curve of each method on each group, and on everything where there is more than one group.

    Parameters
    ----------
    results : iterable of Result
        Of one number of rounds.

    Raises
    ------
    InputError
        Results of several numbers of rounds.
    """
    given = list(results)
    lengths = {len(r.rounds) for r in given}
    if len(lengths) > 1:
        raise InputError(f"Results of {sorted(lengths)} rounds can't be averaged; play all with one number.")
    groups = sorted({r.group for r in given})
    named = [(g, [r for r in given if r.group == g]) for g in groups]
    if len(groups) > 1:
        named.append((ALL, given))
    found = []
    for group, members in named:
        for method in dict.fromkeys(r.method for r in given):
            own = [r for r in members if r.method == method]
            if own:
                found.append(_curve(method, group, own))
    return found


def _curve(method: str, group: str, results: Sequence[Result]) -> Curve:
    j = np.mean([r.j for r in results], axis=0)
    f = np.mean([r.f for r in results], axis=0)
    times = np.mean([r.times for r in results], axis=0)
    horizon = float(np.mean([r.horizon for r in results]))
    seeds = sorted({r.seed for r in results})
    last = [np.mean([r.j[-1] for r in results if r.seed == s]) for s in seeds]
    return Curve(
        method=method,
        group=group,
        n_sequences=len({(r.source, r.sequence) for r in results}),
        n_plays=len(results),
        j=j,
        f=f,
        times=times,
        auc=area_under_curve(times, j, horizon),
        at_60=value_at(times, j, SECONDS),
        auc_jf=area_under_curve(times, (j + f) / 2, horizon),
        spread=float(np.std(last, ddof=1)) if len(last) > 1 else math.nan,
        memory=max(r.memory for result in results for r in result.rounds),
    )


def text_table(results: Sequence[Result], failures: Sequence[Failure] = ()) -> str:
    """The means by group and method, then each sequence, in plain columns; J0 is what no mask at all scores."""
    if not results:
        return "\n".join(["No play ended.", *_failure_lines(failures)]) + "\n"
    n = len(results[0].rounds)
    head = ["group", "method", "plays", *(f"J{i + 1}" for i in range(n)), "F", "AUC", "J@60", "s/round", "MB", "±"]
    rows = [head]
    for c in curves(results):
        cells = [c.group, c.method, str(c.n_plays), *(_cell(v) for v in c.j), _cell(c.f[-1]), _cell(c.auc)]
        rows.append([*cells, _cell(c.at_60), f"{c.times[-1] / n:.2f}", f"{c.memory / 1e6:.0f}", _cell(c.spread)])
    each = [
        ["sequence", "method", "seed", "T", "K", "J0", *(f"J{i + 1}" for i in range(n)), "F", "s/round", "min K", ""]
    ]
    for r in sorted(results, key=lambda r: (r.group, r.sequence)):
        cells = [f"{r.group}/{r.sequence}", r.method, str(r.seed), str(r.n_frames), str(r.n_objects)]
        cells += [
            _cell(r.empty_j),
            *(_cell(v) for v in r.j),
            _cell(r.f[-1]),
            f"{r.times[-1] / n:.2f}",
            _cell(np.nanmin(r.object_j)),
        ]
        each.append([*cells, f"over time in round {r.overtime}" if r.overtime else ""])
    settings = results[0].settings
    frames = "every frame" if settings.every == 1 else f"every {settings.every}th frame"
    title = (
        f"Mean J after each of {counted(n, 'round')}; {frames}; score: {settings.score} objects; {len(results)} plays."
    )
    return "\n".join([title, "", *_columns(rows), "", *_columns(each), *_failure_lines(failures)]) + "\n"


def _failure_lines(failures: Sequence[Failure]) -> list[str]:
    return [f"FAILED {x.sequence} with {x.method}, seed {x.seed}: {x.message}" for x in failures]


def _cell(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(_padded(cell, w, i) for i, (cell, w) in enumerate(zip(r, widths, strict=True))).rstrip() for r in rows
    ]


def _padded(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column < 2 else cell.rjust(width)


def csv_table(results: Iterable[Result]) -> str:
    """One line a round of every play."""
    out = io.StringIO()
    writer: Any = None
    for r in results:
        for one, seconds in zip(r.rounds, r.times, strict=True):
            fixed = {"group": r.group, "sequence": r.sequence, "method": r.method, "seed": r.seed}
            row = {
                **fixed,
                "frames": r.n_frames,
                "objects": r.n_objects,
                **_plain(asdict(one)),
                "seconds": float(seconds),
            }
            if writer is None:
                writer = csv.DictWriter(out, list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
    return out.getvalue()


def json_table(results: Sequence[Result], failures: Sequence[Failure] = ()) -> str:
    """Everything but pixels: settings, curves, and every play with its frames and objects; NaN is null."""
    plays = []
    for r in results:
        kept = (
            "sequence",
            "group",
            "method",
            "seed",
            "n_frames",
            "n_objects",
            "shape",
            "overtime",
            "empty_j",
            "horizon",
        )
        play = {name: getattr(r, name) for name in kept}
        play["rounds"] = [asdict(one) for one in r.rounds]
        play["frame_j"], play["object_j"] = r.frame_j.tolist(), r.object_j.tolist()
        play["worst_frames"] = [t for t, _ in r.worst]
        plays.append(play)
    settings = asdict(results[0].settings) if results else None
    means = [{k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(c).items()} for c in curves(results)]
    whole = {"settings": settings, "means": means, "plays": plays, "failures": [asdict(x) for x in failures]}
    return json.dumps(_plain(whole), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """The same with None for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def curves_figure(results: Sequence[Result]) -> Figure:
    """J after each round, and J against time, a column a group."""
    from matplotlib.figure import Figure

    found = curves(results)
    groups = list(dict.fromkeys(c.group for c in found))
    figure = Figure(figsize=(4.2 * len(groups), 7), layout="constrained")
    axes = figure.subplots(2, len(groups), squeeze=False, sharey=True)
    for column, group in enumerate(groups):
        by_round, by_time = axes[0, column], axes[1, column]
        for c in (c for c in found if c.group == group):
            by_round.plot(np.arange(1, len(c.j) + 1), c.j, "o-", label=f"{c.method} (AUC {c.auc:.3f})")
            by_time.plot(np.r_[0, c.times], np.r_[0, c.j], "o-", ms=3, label=c.method)
        n = max(c.n_sequences for c in found if c.group == group)
        by_round.set(
            title=f"{group} ({n} sequences)",
            xlabel="round",
            ylim=(0, 1),
            xticks=np.arange(1, len(results[0].rounds) + 1),
        )
        by_time.set(xlabel="seconds", ylim=(0, 1))
        by_round.legend(fontsize=8)
        for axis in (by_round, by_time):
            axis.grid(alpha=0.3)
    for row in axes:
        row[0].set_ylabel("mean J")
    return figure


def bars_figure(results: Sequence[Result]) -> Figure:
    """Each sequence and method: J after the first round (solid) and after the last (black outline)."""
    from matplotlib.figure import Figure

    names = sorted({(r.group, r.sequence) for r in results})
    methods = list(dict.fromkeys(r.method for r in results))
    figure = Figure(figsize=(max(6, 0.9 * len(names) + 2), 4.5), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(methods)
    for m, method in enumerate(methods):
        colour = f"C{m}"
        for x, name in enumerate(names):
            own = [r.j for r in results if r.method == method and (r.group, r.sequence) == name]
            if own:
                first, last = np.mean(own, axis=0)[[0, -1]]
                at, label = x + (m - (len(methods) - 1) / 2) * width, method if x == 0 else None
                axis.bar(at, first, width * 0.9, color=colour, label=label)
                axis.bar(at, last, width * 0.9, fill=False, edgecolor="black", linewidth=0.8)
    axis.set_xticks(range(len(names)), [f"{g}/{s}" for g, s in names], rotation=40, ha="right", fontsize=8)
    axis.set(ylim=(0, 1), ylabel="mean J", title="first round (solid), last round (black outline)")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def strip_figure(results: Sequence[Result]) -> Figure:
    """The worst frames of each play of one method, a row a play: masks in colour, true outlines in white."""
    from matplotlib.figure import Figure

    columns = max(len(r.worst) for r in results)
    figure = Figure(figsize=(3.4 * columns, 2.6 * len(results)), layout="constrained", dpi=90)
    axes = figure.subplots(len(results), columns, squeeze=False)
    for row, result in zip(axes, results, strict=True):
        stack = read_sequence(result.source).thin(result.settings.every)
        for axis in row:
            axis.set_axis_off()
        for axis, (t, labels) in zip(row, result.worst, strict=False):
            axis.imshow(draw(stack.frames[t], labels, stack.labels[t]))
            axis.set_title(f"{result.sequence} {t}: J {result.frame_j[-1, t]:.2f}", fontsize=9)
    return figure


def draw(
    frame: npt.NDArray[np.generic], labels: npt.NDArray[np.integer], truth: npt.NDArray[np.integer] | None = None
) -> npt.NDArray[np.uint8]:
    """A frame with masks in colour, their outlines, and those of the truth in white.

    Parameters
    ----------
    frame : (H, W) or (H, W, C) array
        Of any type; shown from its 0.5 to its 99.5 % value, of channels the first three; NaN is black.
    labels, truth : (H, W) integer array
        0 = background.

    Returns
    -------
    (H, W, 3) uint8 array
    """
    plain = np.asarray(frame if frame.ndim == 2 else frame[..., :3], np.float32)
    known = plain[np.isfinite(plain)]
    low, high = np.percentile(known, [0.5, 99.5]) if known.size else (0.0, 1.0)
    grey = np.nan_to_num(np.clip((plain - low) / max(float(high - low), 1e-6), 0, 1)) * 255
    if grey.ndim == 2:
        grey = np.repeat(grey[..., None], 3, axis=2)
    picture = np.concatenate([grey, np.zeros((*grey.shape[:2], 3 - grey.shape[2]), np.float32)], axis=2)
    colours = np.array(PALETTE, np.float32)[(labels.astype(np.int64) - 1) % len(PALETTE)]
    inside = labels > 0
    picture[inside] = 0.6 * picture[inside] + 0.4 * colours[inside]
    edge = outlines(labels)
    picture[edge] = np.where(inside[edge, None], colours[edge], picture[edge])
    if truth is not None:
        picture[outlines(truth)] = 255
    return np.asarray(np.rint(picture), np.uint8)


def outlines(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Pixels (H, W) of objects that touch another label to the right, left, above or below."""
    edge = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge & (labels > 0)


def write_report(folder: str | Path, results: Sequence[Result], failures: Sequence[Failure] = ()) -> list[Path]:
    """Write all of it into a folder (made if needed): ``benchmark.txt``, ``.csv``, ``.json``, and PNGs.

    Parameters
    ----------
    folder : path
        Where; files of those names there are replaced.
    results, failures : sequences
        What `benchmark` gave.

    Returns
    -------
    list of Path
        What was written: the tables, ``curves.png``, ``sequences.png``, and ``worst_METHOD.png`` of the first seed.

    Raises
    ------
    InputError
        The folder can't be written.
    """
    at = Path(folder)
    tables = {
        "benchmark.txt": text_table(results, failures),
        "benchmark.csv": csv_table(results),
        "benchmark.json": json_table(results, failures),
    }
    try:
        at.mkdir(parents=True, exist_ok=True)
        for name, text in tables.items():
            (at / name).write_text(text, encoding="utf-8")
        return [at / name for name in tables] + _write_figures(at, results)
    except OSError as error:
        raise InputError(f"The report can't be written to {at} ({error.strerror or error}).") from error


def _write_figures(folder: Path, results: Sequence[Result]) -> list[Path]:
    if not results:
        return []
    figures = {"curves.png": curves_figure(results), "sequences.png": bars_figure(results)}
    seed = results[0].seed
    for method in dict.fromkeys(r.method for r in results):
        own = [r for r in results if r.method == method and r.seed == seed and r.source and r.worst]
        if own:
            safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in method)
            figures[f"worst_{safe}.png"] = strip_figure(own)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=110)
    return [folder / name for name in figures]
