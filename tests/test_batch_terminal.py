"""Ctrl-C in a terminal, which sends it to the batch and all its workers: nothing is lost, and nobody stays behind."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_ivos import FakePredictor, Session

pytest.importorskip("distributed", reason="the extra `distributed` is not installed")
fcntl, pty, termios = (
    pytest.importorskip(name, reason="this system has no such terminals") for name in ("fcntl", "pty", "termios")
)

import psutil  # noqa: E402 - comes with distributed

from napari_ivos.batch import run_batch  # noqa: E402 - needs distributed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FRAMES = 60
PATIENCE = 120
"""Seconds in which a program has to show or do something."""
PRESS = b"\x03"

PROGRAM = """
import sys, threading
from napari_ivos import FakePredictor
from napari_ivos.batch import nanny
from napari_ivos.cli import batching, main

class Telling(nanny.BriefNanny):
    async def start(self):
        print("starting", file=sys.stderr, flush=True)
        return await super().start()

class Stuck(FakePredictor):
    def propagate(self, requests):
        print("computing", file=sys.stderr, flush=True)
        threading.Event().wait()

class Slow(FakePredictor):  # so that no machine is done before the key is pressed
    def propagate(self, requests):
        threading.Event().wait(0.05)
        return super().propagate(requests)

run = batching.run_batch
model = {"stuck": Stuck, "slow": Slow, "starting": Slow}[sys.argv[1]]()
if sys.argv[1] == "starting":
    nanny.BriefNanny = Telling
batching.run_batch = lambda manifest, client, **given: run(
    manifest, client, **{**given, "model": model, "frames_a_parcel": 2}
)
if __name__ == "__main__":
    sys.exit(main(["batch", "all.json", "--workers", "2"]))
"""


TAKE_TERMINAL = """
import fcntl, os, sys, termios

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the standard input the terminal that sends this process and its children Ctrl-C; then runs the program."""


class Terminal:
    """A program that runs in a terminal of its own; what it shows."""

    def __init__(self, command: list[str], folder: Path) -> None:
        mine, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.screen = mine
        self.shown = b""
        self.others: set[psutil.Process] = set()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *command],
            cwd=folder,
            env=environment,
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
        )
        os.close(its)

    def more(self) -> bool:
        """Read on; False at the end."""
        assert select.select([self.screen], [], [], PATIENCE)[0], f"nothing more after: {self.shown.decode()}"
        try:
            got = os.read(self.screen, 1 << 16)
        except OSError:  # so Linux tells that nobody has the terminal any more
            return False
        self.shown += got
        return bool(got)

    def until(self, words: bytes) -> None:
        """Read until something is shown that matches a pattern."""
        while not re.search(words, self.shown):
            assert self.more(), self.shown.decode()

    def press(self) -> None:
        """Press Ctrl-C."""
        self.others |= set(psutil.Process(self.process.pid).children(recursive=True))
        os.write(self.screen, PRESS)

    def end(self) -> str:
        """Read to the end, when every process has let go of the terminal; everything that was shown."""
        while self.more():
            pass
        self.process.wait(PATIENCE)
        return self.shown.decode()

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self.screen)


@pytest.fixture
def batch(tmp_path: Path, make_clip, square) -> Iterator[Any]:
    """Start a batch of two stacks in a terminal, by a model that takes its time ("slow") or never answers ("stuck").

    "starting" says when the first worker is started.
    """
    clip = make_clip(FRAMES, (48, 64), square((12, 20), (0, 0)))
    np.save(tmp_path / "s0.npy", clip.video)
    tifffile.imwrite(tmp_path / "first.tif", clip.truth[0])
    rows = [{"name": n, "input": "s0.npy", "axes": "TYXC", "masks": "first.tif", "frame": 0} for n in ("one", "two")]
    (tmp_path / "all.json").write_text(json.dumps({"stacks": rows, "format": "ome-tiff"}))
    (tmp_path / "batch_in_terminal.py").write_text(PROGRAM)
    started: list[Terminal] = []

    def start(kind: str) -> Terminal:
        started.append(Terminal([sys.executable, "batch_in_terminal.py", kind], tmp_path))
        return started[-1]

    yield start
    for terminal in started:
        terminal.close()


def check_gone(terminal: Terminal) -> None:
    """The program ended with the code of Ctrl-C, and what it had started ends too."""
    assert terminal.process.returncode == 130
    assert len(terminal.others) >= 2
    assert not psutil.wait_procs(terminal.others, timeout=60)[1]


def test_one_ctrl_c_keeps_what_the_workers_had_in_hand(batch, tmp_path: Path) -> None:
    """The batch says that it stops and how to go on, all processes end, and the next call does the rest."""
    terminal = batch("slow")
    terminal.until(rb" [1-9]\d* of up to \d+ frames")
    terminal.press()
    said = terminal.end()
    assert "Ctrl-C again does not wait" in said
    assert "Traceback" not in said
    assert "What is done is kept" in said
    assert "the same command again goes on" in said
    check_gone(terminal)
    facts = json.loads((tmp_path / "all_results" / "summary.json").read_text())
    assert facts["counts"] == {"stopped": 2}
    kept = sum(stack["frames"] for stack in facts["stacks"])
    assert 0 < kept < 2 * (FRAMES - 1)
    shown = 0
    for name in ("one", "two"):
        with Session.open(tmp_path / "all_results" / f"{name}.ivos") as session:
            shown += int(np.asarray(session.labels).any(axis=(1, 2))[1:].sum())
            assert session.read_only is None
    assert shown == kept
    after = run_batch(tmp_path / "all.json", workers=1, model=FakePredictor())
    assert sum(stack.frames for stack in after.stacks) == 2 * (FRAMES - 1) - kept


def test_a_second_ctrl_c_does_not_wait_for_the_workers(batch, tmp_path: Path) -> None:
    """Workers that never answer are waited for after one Ctrl-C, and ended after two; a third one changes nothing."""
    terminal = batch("stuck")
    terminal.until(b"computing")
    terminal.press()
    terminal.until(b"Ctrl-C again does not wait")
    terminal.press()
    terminal.press()
    said = terminal.end()
    assert "Traceback" not in said
    assert "the same command again goes on" in said
    check_gone(terminal)
    assert json.loads((tmp_path / "all_results" / "summary.json").read_text())["counts"] == {"stopped": 2}


def test_ctrl_c_while_the_workers_start_ends_all_of_them(batch, tmp_path: Path) -> None:
    """Half a cluster is made whole and closed: no process prints a traceback or stays, and nothing was begun."""
    terminal = batch("starting")
    terminal.until(b"starting")
    terminal.press()
    said = terminal.end()
    assert "Traceback" not in said
    assert "Stopped." in said
    assert terminal.process.returncode == 130
    assert not psutil.wait_procs(terminal.others, timeout=60)[1]
    assert not list((tmp_path / "all_results").glob("*.ivos"))
