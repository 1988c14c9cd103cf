"""How quick the window is, measured in the real one.

``xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/plugin.py``

Prints a table: time the plugin adds at the start, from releasing the mouse to the changed mask (480p frame), frames per
second while propagating against the engine alone, and, in propagations of their own, gaps of the event loop: the timer
that sees them fires 500 times a second in Python and would take part of the speed. Everything is written to project
files, as it is for users. Each line is printed as soon as it is measured, and what is being measured is said on
the way; a step that takes longer than ten minutes ends the program with the stacks of its threads. Beside other load,
run it with priority and one thread (``OMP_NUM_THREADS=1 chrt -f 5``; of several threads in real time one waits for
another without end, and the window with them): all of it takes eight minutes where nothing else runs.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

HEIGHT, WIDTH = 480, 854
TICK_MS = 2
STROKES = 12
STEP_SECONDS = 600
"""No step of the measurement takes so long on any machine; where one does, something is stuck."""
MASK_SECONDS = 120
"""How long a mask is waited for."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is being done and how long it took; a step that is stuck ends the program and says where it was."""
    sys.stderr.write(f"{what} ... ")
    sys.stderr.flush()
    faulthandler.dump_traceback_later(STEP_SECONDS, exit=True)
    begun = time.perf_counter()
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        sys.stderr.write(f"{time.perf_counter() - begun:.0f} s\n")


def _qtest() -> Any:
    """Qt's test mouse, untyped: PyQt's stubs take its static methods for instance methods."""
    from qtpy.QtTest import QTest

    return QTest


def movie(frames: int) -> np.ndarray:
    """A textured disc that moves to and fro over another texture: (T, 480, 854, 3) uint8."""
    draw = np.random.default_rng(0)
    ground = draw.normal(90, 12, (HEIGHT, WIDTH, 3))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    stack = np.empty((frames, HEIGHT, WIDTH, 3), np.uint8)
    for t in range(frames):
        inside = np.hypot(rows - 240, columns - 200 - 4 * min(t % 200, 200 - t % 200)) < 70
        stack[t] = np.clip(np.where(inside[..., None], ground[..., ::-1] + 80, ground), 0, 255)
    return stack


def press_and_move(viewer: Any, points: Any) -> tuple[Any, Any]:
    """Press the mouse and move it along (row, col) world points; the canvas and the last place."""
    from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    native = viewer.window._qt_viewer.canvas.native
    camera, (height, width) = viewer.scene.camera, viewer.canvas.size
    cy, cx = camera.center[-2:]
    places = [
        QPoint(round((x - cx) * camera.zoom + width / 2), round((y - cy) * camera.zoom + height / 2)) for y, x in points
    ]
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    _qtest().mousePress(native, left, none, places[0])
    for place in places[1:]:
        at = QPointF(native.mapToGlobal(place))
        move = QMouseEvent(QEvent.Type.MouseMove, QPointF(place), at, Qt.MouseButton.NoButton, left, none)
        QApplication.sendEvent(native, move)
        _qtest().qWait(12)
    return native, places[-1]


def release_to_mask(viewer: Any, widget: Any, frame: int) -> float:
    """Seconds from the release of the mouse to the result layer's changed data; no repaint of it in it.

    The event loop runs as it does for a user: it sleeps until something happens.
    """
    from qtpy.QtCore import QEventLoop, Qt, QTimer

    widget.go_to(frame)
    _qtest().qWait(300)  # the slider's own repaint is over
    labels, loop, seen = widget.desk.binding.labels, QEventLoop(), [0.0]
    before = np.array(widget.session.labels[frame])
    points = [(240, 170 + 4 * frame + 6 * k) for k in range(10)]
    native, place = press_and_move(viewer, points)

    def look(event: object = None) -> None:
        if not seen[0] and (np.asarray(widget.session.labels[frame]) != before).any():
            seen[0] = time.perf_counter()
            loop.quit()

    labels.events.set_data.connect(look)
    QTimer.singleShot(MASK_SECONDS * 1000, loop.quit)
    begun = time.perf_counter()
    _qtest().mouseRelease(native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, place)
    loop.exec()
    labels.events.set_data.disconnect(look)
    if not seen[0]:
        raise SystemExit(f"no mask within {MASK_SECONDS} s: {widget.banner.text()}")
    widget.wait(STEP_SECONDS)
    return seen[0] - begun


@contextmanager
def ticking(ticks: list[float]) -> Iterator[None]:
    """Note the time whenever a timer of `TICK_MS` fires in the window's thread."""
    from qtpy.QtCore import Qt, QTimer

    timer = QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    timer.start(TICK_MS)
    try:
        yield
    finally:
        timer.stop()


def propagate(widget: Any) -> tuple[float, float]:
    """Propagate in the window: frames per second until it is over, and the seconds of tidying up after that."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop, watch, over = QEventLoop(), QTimer(), [0.0]

    def note(progress: object) -> None:
        if progress is None:
            over[0] = time.perf_counter()

    widget.desk.progressed.connect(note)
    watch.timeout.connect(lambda: None if widget.desk.engine.busy else loop.quit())
    begun = time.perf_counter()
    widget.run("propagate")
    if not widget.desk.engine.busy:
        raise SystemExit(f"the propagation did not begin: {widget.banner.text()}")
    watch.start(20)
    loop.exec()
    widget.wait(STEP_SECONDS)
    widget.desk.progressed.disconnect(note)
    return widget.desk.frames_done / (over[0] - begun), time.perf_counter() - over[0]


def engine_alone(stack: np.ndarray, model: Any, points: Any, path: Path) -> float:
    """Frames per second of the same work without the plugin, in this process, with a project file as in the window."""
    import napari_ivos as ivos

    with ivos.Session(stack, model, project=path) as session:
        session.interact(ivos.Scribbles(0, [ivos.Stroke(1, points)]))
        begun = time.perf_counter()
        count = sum(1 for _ in session.propagate())
        return count / (time.perf_counter() - begun)


def begin(widget: Any, layer: Any, path: Path) -> None:
    """Start the widget's work on a layer, and wait until all is drawn."""
    widget.start(layer, path=path)
    widget.wait(STEP_SECONDS)
    _qtest().qWait(500)


def rates(viewer: Any, widget: Any, stack: np.ndarray, model: Any, folder: Path, turns: int) -> tuple[Any, ...]:
    """Frames per second in the window and alone, in turns after a warm-up; then the event loop's gaps in the window.

    Gaps are what passes between two ticks beyond their interval, in milliseconds. Last, the seconds of tidying up.
    """
    alone, window, gaps, tidying = [], [], [], []
    for turn in range(turns + 1):
        with step(f"propagation {turn} of {turns} in the window" if turn else "warm-up"):
            begin(widget, viewer.layers[0], folder / f"window{turn}.ivos")
            release_to_mask(viewer, widget, 0)
            drawn = widget.session.strokes()[0].points
            rate, tidied = propagate(widget)
        with step("the same without it"):
            other = engine_alone(stack, model, drawn, folder / f"alone{turn}.ivos")
        if turn:
            alone.append(other)
            window.append(rate)
            tidying.append(tidied)
    for turn in range(turns):
        with step(f"gaps, {turn + 1} of {turns}"):
            begin(widget, viewer.layers[0], folder / f"gaps{turn}.ivos")
            release_to_mask(viewer, widget, 0)
            ticks: list[float] = []
            with ticking(ticks):
                propagate(widget)
            gaps.append(np.diff(ticks) * 1000 - TICK_MS)
    return np.array(alone), np.array(window), np.concatenate(gaps), np.array(tidying)


def write(line: str) -> None:
    """Print a line of the table, now."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tell_strokes(strokes: list[float], networks: list[float]) -> None:
    """Print what was measured of strokes, in seconds."""
    write(f"release to mask, first            {strokes[0] * 1000:6.0f} ms")
    low, high = np.percentile(strokes[1:], [10, 90]) * 1000
    write(
        f"release to mask, others: median   {np.median(strokes[1:]) * 1000:6.0f} ms   (80 % of {low:.0f} to {high:.0f})"
    )
    write(f"  of which the session's work     {np.median(networks[1:]) * 1000:6.0f} ms")


def tell_rates(alone: np.ndarray, window: np.ndarray, gaps: np.ndarray, tidying: np.ndarray) -> None:
    """Print what was measured of propagations: frames per second, milliseconds, seconds."""
    write(f"frames per second, engine alone   {np.median(alone):6.1f}   {np.round(alone, 1)}")
    write(f"frames per second, in the window  {np.median(window):6.1f}   {np.round(window, 1)}")
    write(f"  of the engine alone             {np.median(window / alone):6.2f}   {np.round(window / alone, 2)}")
    write(f"then layers are put in order in   {np.median(tidying) * 1000:6.0f} ms")
    write(
        f"event loop gaps, ms: median {np.median(gaps):.1f}, 95 % {np.percentile(gaps, 95):.1f}, max {gaps.max():.0f}; "
        f"{np.mean(gaps < 50) * 100:.1f} % under 50"
    )


def measure(viewer: Any, widget: Any, stack: np.ndarray, model: Any, turns: int) -> None:
    """Measure strokes and propagations, and print them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            with step(f"{STROKES} strokes"):
                begin(widget, viewer.layers[0], folder / "strokes.ivos")
                strokes = [release_to_mask(viewer, widget, frame) for frame in range(0, 3 * STROKES, 3)]
            tell_strokes(strokes, [entry.seconds for entry in widget.session.log if entry.kind == "interact"])
            tell_rates(*rates(viewer, widget, stack, model, folder, turns))
        finally:
            widget.desk.close()


def main() -> int:
    """Measure and print; returns 0."""
    parser = argparse.ArgumentParser(description="How quick the window is.")
    parser.add_argument("--model", help="a .safetensors file; by default the shipped model")
    parser.add_argument("--frames", type=int, default=240, help="of the movie; at least 48")
    parser.add_argument("--turns", type=int, default=9, help="propagations in the window and alone, in turns")
    arguments = parser.parse_args()
    import napari

    from napari_ivos.plugin.loading import load

    with step("the window and the movie"):
        stack = movie(max(arguments.frames, 3 * STROKES + 12))
        viewer = napari.Viewer(show=True)
        viewer.window._qt_window.resize(1380, 860)
        viewer.add_image(stack, rgb=True, name="disc")
    begun = time.perf_counter()
    from napari_ivos.plugin import dock

    widget: Any = dock(viewer)
    write(f"the plugin's dock opens in        {time.perf_counter() - begun:6.2f} s")
    with step("the model"):
        model = load(arguments.model, "cpu")
        widget.use_model(model)
    try:
        measure(viewer, widget, stack, model, arguments.turns)
    finally:
        viewer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
