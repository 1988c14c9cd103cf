"""What a run writes of itself: a CSV log, TensorBoard's events, curves and example clips as PNG."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.files import write_whole
from napari_ivos.training.pictures import draw_track, sheet, write_picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from napari_ivos.training.rollout import Track

LOG = "log.csv"
CURVES = "curves.png"
EXAMPLES = "examples.png"
EVENTS = "tensorboard"
HEAD = ("step", "hours", "kind", "name", "value")
STEP, TRAIN, HELD_OUT = "step", "train", "held out"
"""Kinds of rows: the loss of one step, means over the steps since the last such row, validation."""
Row = tuple[int, float, str, str, float]


class Journal:
    """The log of one run; a run that goes on drops what was logged after its checkpoint.

    Parameters
    ----------
    folder : path
        Where the run writes; must be there.
    step : int
        The step that the run begins or goes on with.

    Raises
    ------
    InputError
        The log can't be read, or (here and later) not be written.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        self._new: list[Row] = []
        rows = [row for row in read_log(folder / LOG) if row[0] <= step]
        write_whole(folder / LOG, _text([HEAD, *rows]).encode())
        try:
            self._events: Any = SummaryWriter(str(folder / EVENTS), purge_step=step + 1)
        except OSError as error:
            raise self._refused(error) from error

    def note(self, step: int, hours: float, loss: float) -> None:
        """The loss of one step; written with what comes next."""
        self._new.append((step, hours, STEP, "loss", loss))

    def add(self, step: int, hours: float, kind: str, values: Mapping[str, float]) -> None:
        """A row of means, or of a validation."""
        self._new += [(step, hours, kind, name, value) for name, value in values.items()]
        self.flush()
        try:
            for name, value in values.items():
                self._events.add_scalar(f"{kind}/{name}".replace(" ", "_"), value, step)
            self._events.flush()
        except OSError as error:
            raise self._refused(error) from error

    def show(self, step: int, tracks: Sequence[Track]) -> None:
        """Example clips, a row each: truth outlined, what the networks found tinted, strokes drawn."""
        picture = sheet([[draw_track(track)] for track in tracks])
        write_whole(self.folder / EXAMPLES, write_picture(picture))
        try:
            self._events.add_image("examples", picture, step, dataformats="HWC")
        except OSError as error:
            raise self._refused(error) from error

    def draw(self) -> None:
        """The curves so far, as a PNG."""
        self.flush()
        blob = io.BytesIO()
        curves_figure(read_log(self.folder / LOG)).savefig(blob, dpi=100, format="png")
        write_whole(self.folder / CURVES, blob.getvalue())

    def flush(self) -> None:
        """Put everything noted on disk: before a checkpoint is written, so that a log is never behind it."""
        try:
            with (self.folder / LOG).open("a", encoding="utf-8", newline="") as file:
                file.write(_text(self._new))
        except OSError as error:
            raise self._refused(error) from error
        self._new = []

    def close(self) -> None:
        self.flush()
        self._events.close()

    def _refused(self, error: OSError) -> InputError:
        return InputError(f"The log in {self.folder} can't be written ({error.strerror or error}).")


def _text(rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        writer.writerow([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row])
    return out.getvalue()


def read_log(path: Path) -> list[Row]:
    """Rows (step, hours, kind, name, value) of a run's CSV log; none where there is no file.

    Raises
    ------
    InputError
        A file that is no such log; one whose last line is cut off loses that line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The log {path} can't be read ({error}).") from error
    lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    if not lines or tuple(lines[0]) != HEAD:
        raise InputError(f"{path} is no log of a training run: it begins with {text[:60]!r}.")
    try:
        return [(int(step), float(hours), kind, name, float(value)) for step, hours, kind, name, value in lines[1:]]
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); move it away to go on from the checkpoint.") from error


def series(rows: Sequence[Row], kind: str, name: str) -> npt.NDArray[np.float64]:
    """(N, 2): steps and values of one name."""
    return np.array([(row[0], row[4]) for row in rows if row[2:4] == (kind, name)], float).reshape(-1, 2)


def curves_figure(rows: Sequence[Row]) -> Figure:
    """Loss by stage, J by stage while training, J on held-out clips, and how the time was spent, against steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 3.6), layout="constrained")
    panels = figure.subplots(1, 4)
    wanted = (
        (TRAIN, "loss/", "loss by stage"),
        (TRAIN, "J/", "J of training clips"),
        (HELD_OUT, "J/", "J of held-out clips"),
        (TRAIN, "", "time"),
    )
    for axis, (kind, prefix, title) in zip(panels, wanted, strict=True):
        names = dict.fromkeys(row[3] for row in rows if row[2] == kind)
        for name in names:
            if name.startswith(prefix) if prefix else "/" not in name:
                axis.plot(*series(rows, kind, name).T, ".-", ms=3, lw=1, label=name.removeprefix(prefix))
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        if axis.has_data():
            axis.legend(fontsize=7)
    return figure
