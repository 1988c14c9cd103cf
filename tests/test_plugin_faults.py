"""What goes wrong at a desk stays alone: errors, stops, too little memory, frames that can't be read; without Qt."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import plugin_scene as scene
import pytest

from napari_ivos import FakePredictor, Session
from napari_ivos.errors import FrameReadError, OutOfMemory, ProjectError
from napari_ivos.plugin import loading
from napari_ivos.plugin.engine import Job

# --- one error stops no other ----------------------------------------------------------------------------------------


def test_each_answer_is_taken_in_by_itself(desks):
    """An error while one answer is taken in is told, and the others of its batch are taken in all the same."""
    desk = desks()
    gate, taken = threading.Event(), []

    def fail(value):
        raise ValueError("this answer can't be shown")

    desk.engine.submit(Job("edit", lambda job: gate.wait(30), desk.session))
    desk.engine.submit(Job("edit", lambda job: 1, desk.session, then=fail))
    desk.engine.submit(Job("edit", lambda job: 2, desk.session, then=taken.append))
    gate.set()
    while desk.engine.busy:  # all answers wait in one batch
        desk._bell.wait(0.01)
    desk.handle()
    assert taken == [2]
    assert any(kind == "error" and "this answer can't be shown" in text for kind, text in desk.said)
    scene.drawn_at(desk, 2)
    assert len(desk.session.strokes()) == 1


def test_answers_keep_their_order_where_qt_rings_in_the_middle(desks):
    """An answer that comes while another one is being taken in waits until that is done."""
    desk = desks()
    order = []

    def slow(value):
        desk.engine.submit(Job("edit", lambda job: 2, desk.session, then=lambda value: order.append("second")))
        while desk.engine.busy:
            desk._bell.wait(0.01)
        desk.handle()  # as Qt does, when napari's progress lets it
        order.append("first")

    desk.engine.submit(Job("edit", lambda job: 1, desk.session, then=slow))
    desk.wait()
    assert order == ["first", "second"]


def test_stopping_keeps_strokes_that_wait(desks):
    """Stop ends what runs; what the user drew meanwhile is segmented all the same."""
    desk = desks()
    gate = threading.Event()
    desk.engine.submit(Job("edit", lambda job: gate.wait(30), desk.session))
    desk.go_to(2)
    scene.draw(desk, scene.line(2))
    desk.handle()
    desk.stop()
    gate.set()
    desk.wait()
    assert [s.frame for s in desk.session.strokes()] == [2]


def test_closing_writes_strokes_that_wait(desks, tmp_path):
    """A window that is closed right after a stroke has lost nothing."""
    desk = desks(path=tmp_path / "movie.ivos")
    gate = threading.Event()
    desk.engine.submit(Job("edit", lambda job: gate.wait(30), desk.session))
    desk.go_to(2)
    scene.draw(desk, scene.line(2))
    desk.handle()
    threading.Timer(0.05, gate.set).start()
    desk.close()
    with Session.open(tmp_path / "movie.ivos", frames=scene.movie()) as kept:
        assert [s.frame for s in kept.strokes()] == [2]
        assert kept.labels[2].any()


@pytest.mark.parametrize("trouble", ["disk", "console"])
def test_strokes_that_can_not_be_written_are_sent_again(desks, monkeypatch, tmp_path, trouble):
    """They stay on screen, that is told, and the next stroke or Propagate brings them into the project."""
    desk = desks(path=tmp_path / "movie.ivos")
    scene.drawn_at(desk, 2)
    with monkeypatch.context() as patch:
        if trouble == "disk":
            error = ProjectError("movie.ivos: there is no room left for it (disk full).")
            patch.setattr(desk.session, "interact", lambda scribbles: (_ for _ in ()).throw(error))
        else:
            running = desk.session.propagate()
            next(running)
        for frame in (4, 5):
            scene.drawn_at(desk, frame)
            assert any(kind == "error" and text.endswith("the next stroke or Propagate.") for kind, text in desk.said)
        assert scene.shown(desk)["object 1 (strokes)"] == 2 + (trouble == "disk")
        assert [s.frame for s in desk.session.strokes()] == [2]
    if trouble == "console":
        running.close()
    desk.propagate()
    desk.wait()
    assert [s.frame for s in desk.session.strokes()] == [2, 4, 5]
    assert all(np.asarray(desk.session.labels[t]).any() for t in range(2, scene.FRAMES))


@pytest.mark.parametrize("end", ["leave", "close"])
def test_strokes_that_could_not_be_written_are_written_at_the_end(desks, monkeypatch, tmp_path, end):
    """Who makes room and closes the window, or goes to another stack, has lost nothing."""
    desk = desks(path=tmp_path / "movie.ivos")
    with monkeypatch.context() as patch:
        error = ProjectError("movie.ivos: there is no room left for it (disk full).")
        patch.setattr(desk.session, "interact", lambda scribbles: (_ for _ in ()).throw(error))
        scene.drawn_at(desk, 2)
    getattr(desk, end)()
    if end == "leave":
        desk.wait()
    with Session.open(tmp_path / "movie.ivos", frames=scene.movie()) as kept:
        assert [s.frame for s in kept.strokes()] == [2]


def test_a_stroke_that_is_lost_with_its_session_is_told(desks, monkeypatch):
    """What can't be written at the end either is not lost in silence."""
    desk = desks()
    error = ProjectError("movie.ivos: there is no room left for it (disk full).")
    monkeypatch.setattr(desk.session, "interact", lambda scribbles: (_ for _ in ()).throw(error))
    scene.drawn_at(desk, 2)
    desk.said.clear()
    desk.leave()
    desk.wait()
    assert ("error", str(error)) in desk.said


def test_a_stroke_that_the_session_refuses_is_taken_away(desks):
    """Of an object that isn't there on that frame nothing is ever sent again."""
    desk = desks()
    desk.session.set_lifetime(1, 0, 4)
    scene.drawn_at(desk, 5)
    assert any(kind == "error" and "lives from frame 0 to frame 3" in text for kind, text in desk.said)
    assert scene.shown(desk) == {"object 1 (strokes)": 0}
    assert not desk.drawing.held


# --- memory, frames that can't be read -------------------------------------------------------------------------------


class Elsewhere(FakePredictor):
    """A model on an accelerator whose memory is too small."""

    device = "cuda:0"

    def __init__(self, fails: str) -> None:
        super().__init__()
        self.fails = fails

    def segment(self, requests):
        if self.fails == "segment":
            raise OutOfMemory("cuda:0 has too little memory for one object")
        return super().segment(requests)

    def propagate(self, requests):
        if self.fails == "propagate":
            raise OutOfMemory("cuda:0 has too little memory for one object")
        return super().propagate(requests)


@pytest.mark.parametrize("fails", ["segment", "propagate"])
def test_what_an_accelerator_has_no_memory_for_is_done_on_the_cpu(desks, monkeypatch, fails):
    """It is said clearly, the model is loaded on the CPU, the other one is let go of, and the work is done there."""
    loaded = []

    def load(name, device):
        loaded.append(device)
        return FakePredictor()

    monkeypatch.setattr(loading, "load", load)
    desk = desks()
    model = Elsewhere(fails)
    gone = weakref.ref(model)
    desk.use_model(model)
    del model
    scene.drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    assert loaded == ["cpu"]
    assert sum("cuda:0" in text for kind, text in desk.said if kind == "warning") == 1
    assert all(scene.overlap(desk.session.labels[t] == 1, scene.square(t)) > 0.6 for t in range(scene.FRAMES))
    gc.collect()
    assert gone() is None


def test_an_export_without_memory_leaves_the_model_where_it_is(desks, monkeypatch, tmp_path):
    """Memory that an export lacks is the computer's own: it is said, and the model stays on its accelerator."""
    desk = desks()
    desk.use_model(Elsewhere("nothing"))
    scene.drawn_at(desk, 2)

    def full(*_args, **_options):
        raise MemoryError("Unable to allocate 40 GiB")

    monkeypatch.setattr(desk.session, "export", full)
    desk.export(tmp_path / "labels.csv")
    desk.wait()
    assert isinstance(desk.model, Elsewhere)
    assert "Out of memory" in desk.said[-1][1]


def test_a_frame_that_can_not_be_read_ends_the_round_there(desks):
    """The round keeps what it has, the frame is named, and the rest is done when it can be read again."""
    desk = desks()
    stack, broken = desk.session.stack, [5]
    read = stack.read

    def failing(frame, box=None):
        if frame in broken:
            raise FrameReadError(f"Frame {frame} of movie can't be read (disk gone).", frame)
        return read(frame, box)

    stack.read = failing
    scene.drawn_at(desk, 2)
    desk.propagate("forward")
    desk.wait()
    assert any(kind == "error" and "Frame 5" in text and "kept" in text for kind, text in desk.said)
    assert [t for t in range(8) if np.asarray(desk.session.labels[t]).any()] == [2, 3, 4]
    assert desk.binding.labels.editable
    broken.clear()
    desk.propagate("forward")
    desk.wait()
    assert np.asarray(desk.session.labels[7]).any()
