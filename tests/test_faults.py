"""Rough days: stops, kills, errors, full disks and second processes. Nothing that was reported as done is lost."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_ivos.errors import FrameReadError, IvosError, OutOfMemory, ProjectError, ReadOnlyProject
from napari_ivos.frames import open_frames
from napari_ivos.predictor import FakePredictor
from napari_ivos.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TextIO

KILLS = int(os.environ.get("NAPARI_IVOS_KILLS", "6"))
"""At how many random moments a propagating process is killed; 200 for the whole promise."""
REAL_KILLS = int(os.environ.get("NAPARI_IVOS_REAL_KILLS", "1"))
"""The same with the shipped networks; 50 for the whole promise."""


@pytest.fixture(scope="module")
def clip(make_clip, square):
    """Two objects that pass by each other; one leaves the picture and comes back."""
    return make_clip(16, (96, 128), square((12, 10), (1, 4)), square((40, 90), (0, -4)))


@pytest.fixture
def stack(clip):
    return open_frames(clip.video, axes="TYXC")


def annotate(session: Session, clip) -> None:
    """Two rounds: one done before, and one with two frames of object 1 and one of object 2 still to be propagated."""
    session.interact(clip.scribbles(8, 1, 2))
    list(session.propagate())
    session.interact(clip.scribbles(2, 1))
    session.interact(clip.scribbles(12, 1))
    session.interact(clip.scribbles(0, 2))


def everything(session: Session) -> dict[tuple[int, int], tuple]:
    """All shown patches, to the last bit."""
    project = session._project
    found = {}
    for frame in range(session.shape[0]):
        rows = project.rows(frame)
        for i, patch in project.patches(rows.values()).items():
            found[frame, i] = (patch.box, patch.origin, patch.probability.tobytes(), rows[i].quality)
    return found


@pytest.fixture(scope="module")
def unbroken(clip) -> dict:
    """What a run without any trouble gives, and the order in which its frames come."""
    with Session(open_frames(clip.video, axes="TYXC"), FakePredictor()) as session:
        annotate(session, clip)
        before = everything(session)
        order = [r.frame for r in session.propagate()]
        return {"order": order, "patches": everything(session), "before": before}


def test_the_unbroken_run_is_worth_comparing_with(unbroken) -> None:
    """The round that the faults break has both kinds of spans, and changes many frames."""
    assert len(unbroken["order"]) == 14
    assert unbroken["patches"] != unbroken["before"]


@pytest.mark.parametrize("way", ["close", "cancel", "reopen"])
@pytest.mark.parametrize("after", range(1, 14))
def test_a_run_stopped_anywhere_goes_on_to_the_same_masks(
    clip, stack, unbroken, tmp_path: Path, way: str, after: int
) -> None:
    """Stopped after any frame, in any way, a propagation keeps what is done and resumes to bit-identical masks."""
    path = tmp_path / "a.ivos"
    session = Session(stack, FakePredictor(), path)
    annotate(session, clip)
    running = session.propagate()
    done = [next(running).frame for _ in range(after)]
    kept = {key: value for key, value in everything(session).items() if key[0] in done}
    if way == "cancel":
        session.cancel()
        assert list(running) == []
    else:
        running.close()
    if way == "reopen":
        session.close()
        session = Session.open(path, stack, FakePredictor())
    state = everything(session)
    assert {key: value for key, value in state.items() if key[0] in done} == kept
    rest = [r.frame for r in session.propagate()]
    assert set(done) | set(rest) == set(unbroken["order"])
    assert everything(session) == unbroken["patches"]
    session.close()


def story(session: Session, clip, chance: random.Random, propagate) -> None:
    """Three rounds of whatever a user may do: strokes, paint, absences, one direction, parts of the stack."""
    frames = session.shape[0]
    for _ in range(3):
        for _ in range(chance.randrange(1, 4)):
            frame, object_id = chance.randrange(frames), chance.choice((1, 2, 3))
            there = bool((clip.truth[frame] == object_id).any())
            if there and chance.random() < 0.6:
                session.interact(clip.scribbles(frame, object_id))
            else:
                session.annotate(frame, clip.truth[frame] == object_id, objects=[object_id])
        if chance.random() < 0.4:
            propagate(session, direction=chance.choice(("forward", "backward")))
        if chance.random() < 0.3:
            propagate(session, stop=chance.randrange(5, frames))
        propagate(session)


def enter_and_leave(make_clip, square):
    """Three objects: one leaves, one stays, one enters late."""
    return make_clip(
        30,
        (96, 128),
        square((12, 10), (1, 4), 22, range(14)),
        square((40, 90), (0, -3)),
        square((60, 20), (0, 1), 20, range(9, 30)),
    )


@pytest.mark.parametrize("seed", range(12))
def test_in_any_story_only_reported_frames_change(make_clip, square, seed: int) -> None:
    """Whatever is annotated: a propagation reports each frame that it changes, once, and no annotated mask changes."""
    clip = enter_and_leave(make_clip, square)

    def checked(session: Session, **options) -> None:
        before, labels = everything(session), np.asarray(session.labels)
        mine = {(t, i) for i in (1, 2, 3) if i in clip_ids(session) for t in session.annotated_frames(i)}
        reported = [result.frame for result in session.propagate(**options)]
        after = everything(session)
        assert len(set(reported)) == len(reported)
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        assert {frame for frame, _ in changed} <= set(reported)
        assert not changed & mine
        differing = np.flatnonzero((np.asarray(session.labels) != labels).any(axis=(1, 2)))
        assert set(differing.tolist()) <= set(reported)

    with Session(open_frames(clip.video, axes="TYXC"), FakePredictor()) as session:
        story(session, clip, random.Random(seed), checked)


def clip_ids(session: Session) -> set[int]:
    return {o.id for o in session.objects}


@pytest.mark.parametrize("seed", range(12))
def test_any_story_told_with_stops_ends_the_same(make_clip, square, tmp_path: Path, seed: int) -> None:
    """Random rounds on objects that enter, leave and pass, stopped and reopened anywhere, give bit-identical masks."""
    clip = enter_and_leave(make_clip, square)
    stack = open_frames(clip.video, axes="TYXC")
    with Session(stack, FakePredictor()) as session:
        story(session, clip, random.Random(seed), lambda s, **options: list(s.propagate(**options)))
        expected, labels = everything(session), np.asarray(session.labels)
        rounds = [(r.number, r.annotated) for r in session.rounds]
    stops = random.Random(-seed)
    path = tmp_path / "a.ivos"
    holder = [Session(stack, FakePredictor(), path)]

    def broken(_: Session, **options) -> None:
        while True:
            running = holder[0].propagate(**options)
            if not any(True for _ in zip(range(stops.randrange(1, 9)), running, strict=False)):
                return
            running.close()
            holder[0].close()
            holder[0] = Session.open(path, stack, FakePredictor())

    class Holder:
        """Whichever session is open now."""

        def __getattr__(self, name: str):
            return getattr(holder[0], name)

    story(Holder(), clip, random.Random(seed), broken)
    with holder[0] as session:
        assert everything(session) == expected
        np.testing.assert_array_equal(np.asarray(session.labels), labels)
        assert [(r.number, r.annotated) for r in session.rounds] == rounds


class Failing(FakePredictor):
    """Raises when it has been called so many times."""

    def __init__(self, at: int, error: BaseException) -> None:
        super().__init__()
        self.at, self.error = at, error

    def propagate(self, requests):
        if len([c for c in self.calls if c[0] == "propagate"]) == self.at:
            self.at = -1
            raise self.error
        return super().propagate(requests)


@pytest.mark.parametrize("at", range(0, 14, 3))
@pytest.mark.parametrize(
    ("error", "becomes", "message"),
    [
        (RuntimeError("CUDA error"), IvosError, "model fake failed on frame .*CUDA error.*kept"),
        (OutOfMemory("The device is full."), OutOfMemory, "device is full.*kept"),
        (MemoryError(), OutOfMemory, "kept"),
    ],
    ids=["error", "device memory", "memory"],
)
def test_a_model_that_fails_anywhere_costs_one_frame(clip, stack, unbroken, at: int, error, becomes, message) -> None:
    """An error in the network leaves every finished frame, says which failed, and the next call gets the same masks."""
    with Session(stack, FakePredictor()) as session:
        annotate(session, clip)
        session.use_model(Failing(at, error))
        done = []
        with pytest.raises(becomes, match=message) as caught:
            done.extend(result.frame for result in session.propagate())
        assert not isinstance(caught.value, RuntimeError)
        assert session.busy is None
        rest = [r.frame for r in session.propagate()]
        assert set(done) | set(rest) == set(unbroken["order"])
        assert everything(session) == unbroken["patches"]


@pytest.mark.parametrize("bad", [0, 5, 9, 15])
def test_a_frame_that_cant_be_read_ends_the_round_there(clip, unbroken, bad: int) -> None:
    """The error names the frame, all frames before it are kept, and once it can be read the round goes on."""
    stack = open_frames(clip.video, axes="TYXC")
    with Session(stack, FakePredictor()) as session:
        annotate(session, clip)
        read, broken = stack.read, True

        def reading(frame, box=None):
            if broken and frame == bad:
                raise FrameReadError(f"Frame {frame} of it can't be read.", frame)
            return read(frame, box)

        stack.read = reading
        with pytest.raises(FrameReadError, match=f"Frame {bad} .*kept") as caught:
            list(session.propagate())
        assert caught.value.frame == bad
        broken = False
        list(session.propagate())
        assert everything(session) == unbroken["patches"]


def test_strokes_outlive_a_model_that_fails(clip, stack, tmp_path: Path) -> None:
    """Strokes are written before the network runs; after an error, or a kill, propagation makes their masks."""

    class Broken(FakePredictor):
        def segment(self, requests):
            raise RuntimeError("no")

    with Session(stack, Broken(), tmp_path / "a.ivos") as session:
        with pytest.raises(IvosError, match="strokes are kept"):
            session.interact(clip.scribbles(8, 1))
        assert len(session.strokes()) == 1
        assert not session.labels[8].any()
    with Session.open(tmp_path / "a.ivos", stack, FakePredictor()) as again:
        assert len(list(again.propagate())) == 15
        assert again.labels[8].any()
        assert all(step.finished for step in again.log)


NURSERY = """
import os, signal, sys
import numpy as np
from napari_ivos.predictor import FakePredictor
from napari_ivos.frames import open_frames
from napari_ivos.session import Session
if sys.argv[1] == "shipped":
    from napari_ivos.networks import load_model
    model = load_model(device="cpu")
else:
    model = FakePredictor()
for line in sys.stdin:
    path, video, told = line.rstrip().split("\\t")
    child = os.fork()
    if child == 0:
        out = os.open(told, os.O_WRONLY)
        session = Session.open(path, open_frames(np.load(video), axes="TYXC"), model)
        os.write(out, b"%d\\n" % os.getpid())
        for result in session.propagate():
            os.write(out, b"%d\\n" % result.frame)
        os.write(out, b"end\\n")
        while True:
            signal.pause()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Makes one process after another that opens a project and propagates; all are born with the imports done."""


class Nursery:
    """Processes to be killed; `born` starts the next one, `gone` waits for its end."""

    def __init__(self, networks: str) -> None:
        self._mother = subprocess.Popen(
            [sys.executable, "-c", NURSERY, networks],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def born(self, path: Path, video: Path) -> tuple[int, TextIO]:
        """Id of a new process, and the pipe in which it tells each frame that is reported."""
        told = path.with_name("told")
        os.mkfifo(told)
        assert self._mother.stdin is not None
        self._mother.stdin.write(f"{path}\t{video}\t{told}\n")
        self._mother.stdin.flush()
        pipe = told.open()
        told.unlink()
        return int(pipe.readline()), pipe

    def gone(self) -> int:
        """Exit status of the process, once it is gone with all its locks."""
        assert self._mother.stdout is not None
        return int(self._mother.stdout.readline())

    def close(self) -> None:
        self._mother.communicate()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Processes with the fake predictor."""
    made = Nursery("fake")
    yield made
    made.close()


needs_kill = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs kill -9 and fork")


def kill_and_go_on(clip, model, expected: dict, folder: Path, seed: int, nursery: Nursery) -> None:
    """Kill a propagating process after a random number of frames and of a further moment; check, and go on."""
    chance = random.Random(seed)
    path, video = folder / "a.ivos", folder / "video.npy"
    stack = open_frames(clip.video, axes="TYXC")
    np.save(video, clip.video)
    with Session(stack, model, path) as session:
        annotate(session, clip)
    process, pipe = nursery.born(path, video)
    with pipe:
        reported = [pipe.readline().strip() for _ in range(chance.randrange(0, 14))]
        moment = 200_000 if isinstance(model, FakePredictor) else 4_000_000
        for _ in range(chance.randrange(0, moment)):  # part of a frame's work, on no clock
            pass
        os.kill(process, signal.SIGKILL)
        reported += pipe.read().split()
    assert nursery.gone() == -signal.SIGKILL
    frames = {int(line) for line in reported if line.isdigit()}
    with Session.open(path, stack, model) as session:
        assert session.read_only is None
        state = everything(session)
        kept = {key: value for key, value in expected.items() if key[0] in frames}
        assert {key: value for key, value in state.items() if key[0] in frames} == kept
        list(session.propagate())
        assert everything(session) == expected
    assert sorted(p.name for p in folder.iterdir()) == ["a.ivos", "video.npy"]


@needs_kill
@pytest.mark.parametrize("seed", range(KILLS))
def test_a_killed_process_loses_nothing_that_it_reported(clip, unbroken, nursery, tmp_path: Path, seed: int) -> None:
    """After kill -9 at a random moment the project opens, holds every reported frame, and goes on to the same masks."""
    kill_and_go_on(clip, FakePredictor(), unbroken["patches"], tmp_path, seed, nursery)


@pytest.fixture(scope="module")
def shipped_run(clip) -> Iterator[tuple]:
    """The shipped networks on one thread, what an unbroken run with them gives, and processes with them."""
    from napari_ivos.networks import load_model

    made = Nursery("shipped")
    model = load_model(device="cpu")
    with Session(open_frames(clip.video, axes="TYXC"), model) as session:
        annotate(session, clip)
        list(session.propagate())
        expected = everything(session)
    yield model, expected, made
    made.close()


@needs_kill
@pytest.mark.skipif(os.environ.get("OMP_NUM_THREADS") != "1", reason="the same sums need one thread")
@pytest.mark.parametrize("seed", range(REAL_KILLS))
def test_a_killed_process_with_the_shipped_networks_loses_nothing(clip, shipped_run, tmp_path: Path, seed: int) -> None:
    """The same promise is kept by the networks that ship: reported frames are there, and the end is bit-identical."""
    model, expected, made = shipped_run
    kill_and_go_on(clip, model, expected, tmp_path, seed, made)


@needs_kill
def test_a_second_process_may_only_read_until_the_first_is_gone(clip, stack, nursery, tmp_path: Path) -> None:
    """While another process holds a project it opens for reading and says so; once that is killed it can be written."""
    path, video = tmp_path / "a.ivos", tmp_path / "video.npy"
    np.save(video, clip.video)
    with Session(stack, FakePredictor(), path) as session:
        session.interact(clip.scribbles(8, 1))
    process, pipe = nursery.born(path, video)
    with pipe:
        while pipe.readline() != "end\n":
            pass
    with Session.open(path, stack, FakePredictor()) as second:
        assert "another session" in str(second.read_only)
        assert "read only" in repr(second)
        assert all(second.labels[t].any() for t in range(16))
        for write in (
            lambda: second.interact(clip.scribbles(3, 1)),
            lambda: next(second.propagate()),
            lambda: second.annotate(0, clip.truth[0]),
            second.undo,
            second.add_object,
        ):
            with pytest.raises(ReadOnlyProject, match="another session"):
                write()
    os.kill(process, signal.SIGKILL)
    nursery.gone()
    with Session.open(path, stack, FakePredictor()) as third:
        assert third.read_only is None
        third.add_object()


class Grainy(FakePredictor):
    """Its masks have a grain, so that they take room."""

    grain = np.random.default_rng(0).uniform(-0.02, 0.02, (32, 32)).astype(np.float32)

    def propagate(self, requests):
        return [np.clip(p + self.grain, 0, 1) for p in super().propagate(requests)]


@pytest.mark.parametrize("pages", [0, 1, 2, 4])
def test_a_full_disk_keeps_what_was_finished(clip, stack, tmp_path: Path, pages: int) -> None:
    """When the disk is full the message says so, finished frames stay, and with room again the work goes on."""
    path = tmp_path / "a.ivos"
    with Session(stack, Grainy(), path) as session:
        session.interact(clip.scribbles(8, 1, 2))
        connection = session._project._storage._writer
        assert connection is not None
        used = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {used + pages}")
        done = []
        with pytest.raises(ProjectError, match="disk full.*kept"):
            done.extend(result.frame for result in session.propagate())
        assert len(done) < 15
        with pytest.raises(ProjectError, match="disk full"):
            session.annotate(0, np.random.default_rng(0).integers(0, 200, (96, 128)))
        shown = [t for t in range(16) if session.labels[t].any()]
        assert set(shown) >= {8, *done}
    with Session.open(path, stack, Grainy()) as again:
        assert [t for t in range(16) if again.labels[t].any()] == shown
        list(again.propagate())
        resumed = everything(again)
    with Session(stack, Grainy()) as unbroken_run:
        unbroken_run.interact(clip.scribbles(8, 1, 2))
        list(unbroken_run.propagate())
        assert resumed == everything(unbroken_run)


@pytest.mark.parametrize("keep", [0, 3])
def test_a_file_cut_short_is_called_damaged(clip, stack, tmp_path: Path, keep: int) -> None:
    """A project of which the end is missing raises a letter, on opening or on reading, and not a crash."""
    path = tmp_path / "a.ivos"
    with Session(stack, FakePredictor(), path) as session:
        session.interact(clip.scribbles(8, 1, 2))
        list(session.propagate())
    path.write_bytes(path.read_bytes()[: 4096 * keep + 100])
    with pytest.raises(ProjectError):  # noqa: PT012
        with Session.open(path) as again:
            np.asarray(again.labels)
            np.asarray(again.quality)


def test_a_hostile_row_is_a_letter_not_a_crash(clip, stack, tmp_path: Path) -> None:
    """Rows that no session writes (unknown objects, odd types) never show and never crash."""
    path = tmp_path / "a.ivos"
    with Session(stack, FakePredictor(), path) as session:
        session.interact(clip.scribbles(8, 1, 2))
        list(session.propagate())
        labels = session.labels[3].copy()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "INSERT INTO patches (step, frame, object, stage, direction, origin, filled, quality, y0, x0, y1, x1, data)"
            " SELECT step, frame, 77, stage, direction, origin, filled, quality, y0, x0, y1, x1, data FROM patches "
            "WHERE frame = 3 AND object = 1"
        )
        connection.commit()
    with Session.open(path, stack, FakePredictor()) as again:
        np.testing.assert_array_equal(again.labels[3], labels)
        again.interact(clip.scribbles(4, 1))
        list(again.propagate())
        again.annotate(3, clip.truth[3])


def test_long_stacks_cost_no_more_a_frame(make_clip) -> None:
    """On 100,000 frames a session holds nothing a frame: opening, painting, reading and undo touch what they must."""

    class Long:
        shape = (100_000, 64, 64)
        name, source, contrast, contrast_known = "long", None, ((0.0, 1.0),), True

        def read(self, frame, box=None):
            return picture[box.slices]

        def prefetch(self, frame, box=None):
            """Nothing to read ahead."""

        def fingerprint(self):
            return "long"

        def describe(self):
            return {}

        def close(self):
            """Nothing to close."""

    mask = np.zeros((64, 64), int)
    mask[10:30, 10:30] = 1
    picture = np.repeat(mask[..., None], 3, axis=2).astype(np.float32)
    with Session(Long(), FakePredictor()) as session:
        for frame in (0, 50_000, 99_999):
            session.annotate(frame, mask)
        frames = [r.frame for r in session.propagate(start=49_990, stop=50_010)]
        assert set(frames) == set(range(49_990, 50_010)) - {50_000}
        assert session.labels[99_999].any()
        assert session.quality[50_000:50_003].shape == (3, 1)
        session.undo()
        assert session.annotated_frames() == (0, 50_000, 99_999)
