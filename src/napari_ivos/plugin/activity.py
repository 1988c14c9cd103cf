"""How far a job is, drawn: the bar of the window and napari's activity dock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QLabel

if TYPE_CHECKING:
    from qtpy.QtWidgets import QProgressBar, QWidget

    from napari_ivos.plugin.progress import Progress


DOING = {
    "open": "opening the stack",
    "model": "loading the model",
    "propagate": "propagating",
    "export": "exporting",
    "tracks": "making tracks",
    "adapt": "adapting the model",
}
"""Kinds of jobs that take long, as the bar says them."""


class Activity:
    """Shows progress.

    Parameters
    ----------
    bar : QProgressBar
    owner : QWidget
        Lies in the window whose activity dock shows the same.
    """

    def __init__(self, bar: QProgressBar, owner: QWidget) -> None:
        self._bar = bar
        self._owner = owner
        self._shown: Any = None
        self._words = 0

    def show(self, progress: Progress | None) -> None:
        """Show this; None: the job is over."""
        self._words += 1
        mine = self._words
        if progress is None:
            self._fill(0, 1, "")
            self.end()
            return
        told = progress.done, max(progress.total, 1), _told(progress)
        if not self._bar.format():  # as it comes into view: what follows may take seconds where a library is read in
            self._fill(*told)
        self._in_dock(progress)  # first, because napari's lets Qt paint what waits, and do what else waits
        if mine != self._words:
            return  # by now there is a later word
        self._fill(*told)

    def _fill(self, value: int, total: int, text: str) -> None:
        """Change the bar in one painting: where the window is drawn in software, each composes all of it again."""
        bar = self._bar
        bar.setUpdatesEnabled(False)
        if bar.maximum() != total:
            bar.setRange(0, total)
        bar.setValue(value)
        bar.setFormat(text)
        bar.setUpdatesEnabled(True)

    def _in_dock(self, progress: Progress) -> None:
        from napari.utils import progress as activity

        if progress.kind == "propagate" and not progress.total:
            return  # known with the first frame; napari draws its window several times for each bar that it makes
        if self._shown is not None and progress.total and not self._shown.total:
            self.end()  # only now it is known how much there is to do
        if self._shown is None:
            mine = self._words
            # words come seldom enough: each is to show, with the time left
            made = activity(total=progress.total or None, desc=_doing(progress), mininterval=0, miniters=1)
            if mine != self._words:
                made.close()
                return
            self._shown = made
            self._still_spinner()
        ahead = progress.done - self._shown.n
        if ahead > 0:
            self._shown.update(ahead)

    def _still_spinner(self) -> None:
        """Hold napari's activity spinner still: each of its pictures composes the whole window again.

        Where the window is drawn in software that took 36 ms each, and more than half of a propagation's speed.
        """
        window = self._owner.window()
        for label in [] if window is None else window.findChildren(QLabel):
            movie = label.movie()
            if movie is not None:
                movie.setPaused(True)

    def end(self) -> None:
        """Take it out of the activity dock."""
        if self._shown is not None:
            self._shown.close()
            self._shown = None


def _doing(progress: Progress) -> str:
    return DOING.get(progress.kind, progress.kind)


def _told(progress: Progress) -> str:
    left = "" if progress.seconds_left is None else f", {words(progress.seconds_left)} left"
    return f"{_doing(progress)} {progress.done}/{progress.total}{left}" if progress.total else f"{_doing(progress)} …"


def words(seconds: float) -> str:
    """A time for people: "2 min 5 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
