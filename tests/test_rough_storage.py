"""Storage on rough days: it stalls, fails now and then, is full at any byte, can't be written, or lies; clocks jump."""

from __future__ import annotations

import os
import random
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_ivos.errors import FrameReadError, ProjectError, ReadOnlyProject
from napari_ivos.frames import ahead, open_frames
from napari_ivos.predictor import FakePredictor
from napari_ivos.project import project as projects
from napari_ivos.project import storage
from napari_ivos.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FAULTS = int(os.environ.get("NAPARI_IVOS_FAULTS", "5"))
"""How many faults of each kind are tried at random points; 200 for the whole promise."""


class Source:
    """An array whose reads can be made to fail or to wait; faults begin when `fault` is set."""

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(self, video: np.ndarray) -> None:
        self._video = video
        self.shape = video.shape
        self.fault: Callable[[int], None] | None = None

    def __getitem__(self, key: Any) -> np.ndarray:
        if self.fault is not None:
            self.fault(int(np.atleast_1d(np.arange(self.shape[0])[key[0]])[0]))
        return self._video[key]


@pytest.fixture(scope="module")
def clip(make_clip, square):
    """Two objects that pass by each other."""
    return make_clip(14, (96, 128), square((12, 10), (1, 4)), square((40, 90), (0, -4)))


def annotate(session: Session, clip) -> None:
    """A first round, and a second one that is still to be propagated."""
    session.interact(clip.scribbles(7, 1, 2))
    list(session.propagate())
    session.interact(clip.scribbles(2, 1))
    session.interact(clip.scribbles(11, 1))


def everything(session: Session) -> dict[tuple[int, int], tuple[Any, ...]]:
    """All shown patches, to the last bit."""
    found = {}
    for frame in range(session.shape[0]):
        rows = session._project.rows(frame)
        for i, patch in session._project.patches(rows.values()).items():
            found[frame, i] = (patch.box, patch.origin, patch.probability.tobytes(), rows[i].quality)
    return found


@pytest.fixture(scope="module")
def unbroken(clip) -> dict[tuple[int, int], tuple[Any, ...]]:
    """What a quiet day gives."""
    with Session(open_frames(clip.video, axes="TYXC"), FakePredictor()) as session:
        annotate(session, clip)
        list(session.propagate())
        return everything(session)


@pytest.mark.parametrize("seed", range(FAULTS))
def test_reads_that_fail_now_and_then_cost_calls_but_no_frame(clip, unbroken, seed: int) -> None:
    """Every failed read ends a call with the frame's name, keeps the others, and calling again ends the same."""
    chance, source = random.Random(seed), Source(clip.video)
    failures: list[FrameReadError] = []

    def now_and_then(frame: int) -> None:
        if not failures or chance.random() < 0.3:  # a read ahead that fails is tried again: only the second one tells
            raise OSError(5, "Input/output error")

    with open_frames(source, axes="TYXC") as stack, Session(stack, FakePredictor()) as session:
        annotate(session, clip)
        source.fault = now_and_then
        done: set[int] = set()
        for _ in range(1000):
            state = everything(session)
            assert {k: v for k, v in state.items() if k[0] in done} == {
                k: v for k, v in unbroken.items() if k[0] in done
            }
            try:
                for result in session.propagate():
                    done.add(result.frame)
                break
            except FrameReadError as error:
                failures.append(error)
        assert failures
        assert all(error.frame is not None and "kept" in str(error) for error in failures)
        assert everything(session) == unbroken


@pytest.mark.parametrize("bad", [0, 4, 9, 13])
def test_storage_that_stalls_holds_up_nobody_but_the_work(
    clip, unbroken, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    """While a read hangs, labels and qualities are read and the rest is refused; cancelled, the work goes on later."""
    monkeypatch.setattr(ahead, "AHEAD", 2)  # so that no frame is still there from the round before
    source, hangs, goes_on = Source(clip.video), threading.Event(), threading.Event()

    def stall(frame: int) -> None:
        if frame == bad:
            hangs.set()
            goes_on.wait()

    done: list[int] = []
    with open_frames(source, axes="TYXC") as stack, Session(stack, FakePredictor()) as session:
        annotate(session, clip)
        source.fault = stall
        worker = threading.Thread(target=lambda: done.extend(r.frame for r in session.propagate()))
        worker.start()
        assert hangs.wait(60)
        assert session.busy == "propagate"
        assert session.labels[7].any()
        assert session.quality[:, :].shape == (14, 2)
        session.cancel()
        goes_on.set()
        worker.join()
        done.extend(r.frame for r in session.propagate())
        assert len(done) == len(set(done))
        assert everything(session) == unbroken


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits on the size of files")
@pytest.mark.parametrize("network", [False, True], ids=["local", "network"])
@pytest.mark.parametrize("seed", range(FAULTS))
def test_a_disk_that_is_full_at_any_byte_keeps_what_was_reported(
    clip, unbroken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, network: bool
) -> None:
    """Writes that end in the middle of a frame take back that frame alone; with room again the masks are the same."""
    import resource

    monkeypatch.setattr(storage, "on_network", lambda path: network)
    chance, path = random.Random(seed), tmp_path / "a.ivos"
    stack = open_frames(clip.video, axes="TYXC")
    done: list[int] = []
    with Session(stack, FakePredictor(), path) as session:
        annotate(session, clip)
        log = path.with_name("a.ivos-wal")
        size = path.stat().st_size if network else log.stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + chance.randrange(120_000), limits[1]))
        said: list[str] = []
        try:
            done.extend(result.frame for result in session.propagate())
        except ProjectError as error:  # not every seed fills the disk
            said.append(str(error))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert all("kept" in message for message in said)
        state = everything(session)
    with Session.open(path, stack, FakePredictor()) as again:
        assert everything(again) == state
        assert {k: v for k, v in state.items() if k[0] in done} == {k: v for k, v in unbroken.items() if k[0] in done}
        list(again.propagate())
        assert everything(again) == unbroken


@pytest.mark.parametrize("seed", range(FAULTS))
def test_clocks_that_jump_change_no_mask_and_no_order(
    clip, unbroken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """With a clock that jumps by years, back and forth, history keeps its order, and undo and masks are the same."""
    chance = random.Random(seed)

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=chance.randrange(-9000, 9000))

    monkeypatch.setattr(projects, "datetime", Jumping)
    monkeypatch.setattr("time.time", lambda: chance.uniform(0, 4e9))
    path, stack = tmp_path / "a.ivos", open_frames(clip.video, axes="TYXC")
    with Session(stack, FakePredictor(), path) as session:
        annotate(session, clip)
        before = everything(session)
    with Session.open(path, stack, FakePredictor()) as session:
        list(session.propagate())
        assert everything(session) == unbroken
        assert [step.kind for step in session.undo()] == ["propagate"]
        assert everything(session) == before
        session.redo()
        assert everything(session) == unbroken
        assert [s.number for s in session.log] == sorted(s.number for s in session.log)
        assert [s.kind for s in session.log] == ["interact", "propagate", "interact", "interact", "propagate"]
        assert [stroke.frame for stroke in session.strokes()] == [7, 7, 2, 11]


@pytest.mark.parametrize("network", [False, True], ids=["local", "network"])
def test_a_project_on_a_read_only_path_is_read_and_left_as_it_is(
    clip, unbroken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: bool
) -> None:
    """Where nothing may be written, masks and exports are there, every change is refused, and no byte of it changes."""
    monkeypatch.setattr(storage, "on_network", lambda path: network)
    folder = tmp_path / "project"
    folder.mkdir()
    path, stack = folder / "a.ivos", open_frames(clip.video, axes="TYXC")
    with Session(stack, FakePredictor(), path) as session:
        annotate(session, clip)
        list(session.propagate())
    content, access = path.read_bytes(), os.access
    monkeypatch.setattr(os, "access", lambda p, mode: mode & os.W_OK == 0 and access(p, mode))
    with Session.open(path, stack, FakePredictor()) as session:
        assert "can't be written" in str(session.read_only)
        assert everything(session) == unbroken
        session.export(tmp_path / "labels.tif")
        for change in (session.undo, lambda: session.annotate(0, clip.truth[0]), lambda: next(session.propagate())):
            with pytest.raises(ReadOnlyProject, match="can't be written"):
                change()
    assert path.read_bytes() == content
    assert [p.name for p in folder.iterdir()] == ["a.ivos"]


@pytest.mark.parametrize("network", [False, True], ids=["local", "network"])
def test_of_many_writers_one_writes_and_the_others_read(
    clip, unbroken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: bool
) -> None:
    """Of sessions opened at the same moment one gets the right to write; the others see what it does, as it does it."""
    monkeypatch.setattr(storage, "on_network", lambda path: network)
    path, stack = tmp_path / "a.ivos", open_frames(clip.video, axes="TYXC")
    with Session(stack, FakePredictor(), path) as session:
        annotate(session, clip)
    for _ in range(FAULTS):
        sessions: list[Session] = []
        barrier = threading.Barrier(6)

        def start(opened: list[Session] = sessions, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            opened.append(Session.open(path, stack, FakePredictor()))

        threads = [threading.Thread(target=start) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(sessions) == 6
        writers = [s for s in sessions if s.read_only is None]
        assert len(writers) == 1
        reader = next(s for s in sessions if s.read_only is not None)
        for result in writers[0].propagate():
            np.testing.assert_array_equal(reader.labels[result.frame], result.labels)
        assert everything(reader) == everything(writers[0]) == unbroken
        for opened in sessions:
            opened.close()
