"""How long a newcomer waits: README's steps in the real window, from starting napari to a segmented stack.

``xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/newcomer.py [--shots FOLDER]``

Opens the sample and the panel through napari's menus, presses Start, draws one line on a nucleus and presses the key
for Propagate, all with a mouse and keys that lose no time: what is left is what one waits for. Prints the seconds since
the program began. With ``--shots`` it keeps a picture of the window after each step.
"""

from __future__ import annotations

import time

BEGUN = time.perf_counter()

import argparse  # noqa: E402 - the clock comes first
import sys  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLE = ("File", "Open Sample", "napari-ivos", "Cells that move, touch and bleach (simulated, 16-bit)")
PANEL = ("Layers", "Segment", "Interactive video segmentation (napari-ivos)")
LINE = [(54.0, 63.0 + 2 * k) for k in range(7)]
"""(row, col) on a nucleus of the frame that napari shows first."""
PATIENCE = 300
"""Seconds."""


class Watch:
    """Prints when something was done, and keeps a picture of the window then.

    Parameters
    ----------
    viewer : napari.Viewer
    shots : Path or None
        Folder for pictures.
    """

    def __init__(self, viewer: Any, shots: Path | None) -> None:
        self.viewer, self.shots = viewer, shots
        self._count = 0
        self._spent = 0.0

    def note(self, what: str) -> None:
        """Print the seconds since the program began, less those that pictures took."""
        now = time.perf_counter()
        sys.stdout.write(f"{what:34}{now - BEGUN - self._spent:6.1f} s\n")
        sys.stdout.flush()
        self._count += 1
        if self.shots is not None:
            self.shots.mkdir(parents=True, exist_ok=True)
            wait(0.3)
            self.viewer.screenshot(str(self.shots / f"{self._count}.png"), canvas_only=False, flash=False)
            self._spent += time.perf_counter() - now


def wait(seconds: float) -> None:
    """Let the window live."""
    from qtpy.QtTest import QTest

    test: Any = QTest
    test.qWait(round(seconds * 1000))


def until(what: str, reached: Callable[[], bool]) -> None:
    """Wait for something; it is an error if it doesn't come."""
    end = time.perf_counter() + PATIENCE
    while not reached():
        if time.perf_counter() > end:
            raise SystemExit(f"not within {PATIENCE} s: {what}")
        wait(0.005)


def click(widget: Any, place: Any = None) -> None:
    """Click into a widget's middle, or at a place of it."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    test: Any = QTest
    test.mouseClick(widget, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, place or widget.rect().center())


def choose(viewer: Any, *texts: str) -> None:
    """Click through the menus of the window."""
    menu = viewer.window._qt_window.menuBar()
    for text in texts:
        entry = next((a for a in menu.actions() if a.text().replace("&", "") == text), None)
        if entry is None:
            raise SystemExit(f"{text!r} is not in the menu; there is {[a.text() for a in menu.actions()]}")
        click(menu, menu.actionGeometry(entry).center())
        if entry.menu() is not None:
            menu = entry.menu()
            until(f"the menu {text}", menu.isVisible)


def draw(viewer: Any) -> None:
    """Draw the line with the mouse."""
    from plugin import press_and_move
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    test: Any = QTest
    native, place = press_and_move(viewer, LINE)
    test.mouseRelease(native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, place)


def walk(viewer: Any, watch: Watch, folder: str) -> Any:
    """README's steps; the widget, when all is done."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    until("napari's window", viewer.window._qt_window.isVisible)
    watch.note("napari's window is there")
    choose(viewer, *SAMPLE)
    until("the sample", lambda: bool(len(viewer.layers)))
    watch.note("the sample is open")
    choose(viewer, *PANEL)
    until("the panel", lambda: bool(viewer.window.dock_widgets))
    from napari_ivos.plugin import dock

    widget: Any = dock(viewer)
    widget.stack.folder.value = folder
    watch.note("the panel is open")
    click(widget.stack.buttons["start"].native)
    until("the first object", lambda: widget.desk.selected == 1)
    watch.note("a line can be drawn")
    frame = widget.desk.frame
    draw(viewer)
    until("the first mask", lambda: bool((widget.session.labels[frame] == 1).any()))
    watch.note("its mask is there")
    until("the end of that", lambda: not widget.desk.engine.busy)
    test: Any = QTest
    test.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_G)
    until("the propagation", lambda: bool(widget.desk.state().propagated) and widget.desk.engine.idle)
    watch.note(f"all {widget.session.shape[0]} frames have it")
    return widget


def main() -> int:
    """Walk and print; returns 0."""
    parser = argparse.ArgumentParser(description="How long a newcomer waits.")
    parser.add_argument("--shots", type=Path, help="folder for a picture of the window after each step")
    arguments = parser.parse_args()
    import napari

    viewer = napari.Viewer(show=True)
    with tempfile.TemporaryDirectory() as folder:
        widget = walk(viewer, Watch(viewer, arguments.shots), folder)
        widget.desk.close()
    viewer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
