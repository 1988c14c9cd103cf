"""Sessions: what strokes, paint and propagation change, and what they leave alone."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_ivos import untrusted
from napari_ivos.errors import InputError, OutOfMemory, ProjectError, SessionBusy
from napari_ivos.frames import open_frames
from napari_ivos.frames.contrast import FRAMES_AT_MOST
from napari_ivos.merging import Origin, sample
from napari_ivos.predictor import FakePredictor, Segmentation
from napari_ivos.regions import Box
from napari_ivos.scribbles import Scribbles, Stroke
from napari_ivos.session import Session, sweep

if TYPE_CHECKING:
    from pathlib import Path

AXES = "TYXC"


@pytest.fixture
def clip(make_clip):
    return make_clip()


@pytest.fixture
def session(clip):
    with Session(open_frames(clip.video, axes=AXES), FakePredictor()) as made:
        yield made


def whole(session: Session) -> np.ndarray:
    return np.asarray(session.labels)


def run(session: Session, **options) -> list[int]:
    """Propagate to the end; the frames in the order in which they came."""
    return [result.frame for result in session.propagate(**options)]


class Level:
    """A predictor without doubt: p = `level` where the picture is bright, 0 elsewhere; notes what it was handed."""

    name, checksum, device, size = "level", "level-1", "cpu", 32

    def __init__(self, level: float = 1.0) -> None:
        self.level = level
        self.handed: list = []

    def _see(self, image: np.ndarray) -> np.ndarray:
        from napari_ivos.predictor import shrink

        return (shrink(image, self.size)[..., 0] > 0.5).astype(np.float32) * self.level

    def segment(self, requests):
        return [Segmentation(self._see(r.image), np.zeros(1, np.float16)) for r in requests]

    def propagate(self, requests):
        self.handed += requests
        return [self._see(r.image) for r in requests]


def still(frames: int = 11) -> np.ndarray:
    """A bright square that doesn't move."""
    video = np.zeros((frames, 64, 64), np.uint8)
    video[:, 20:44, 20:44] = 255
    return video


DOT = [(32, 32)]
CENTRE = Box(30, 30, 34, 34)


def stored(session: Session, frame: int, object_id: int = 1) -> float:
    """The probability kept for an object at the middle of the still square."""
    patch = session._project.patches([session._project.rows(frame)[object_id]])[object_id]
    return float(sample(patch, CENTRE, (1, 1))[0, 0])


# -- one round


def test_scribbles_become_the_labels_of_the_whole_stack(clip, session) -> None:
    """Strokes on one frame and one propagation give every object on every frame."""
    result = session.interact(clip.scribbles(5, 1, 2))
    assert (result.frame, result.round, result.objects) == (5, 1, (1, 2))
    assert set(np.unique(result.labels)) == {0, 1, 2}
    frames = run(session)
    assert frames == [6, 7, 8, 9, 10, 11, 4, 3, 2, 1, 0]
    assert min(clip.jaccard(whole(session), k) for k in (1, 2)) > 0.85


def test_objects_of_a_frame_are_one_batch(clip, session) -> None:
    """All objects on their way in one direction go through the network together on each frame."""
    session.interact(clip.scribbles(5, 1, 2))
    session.model.calls.clear()
    run(session)
    assert session.model.calls.count(("propagate", 2)) == 11


def test_a_result_tells_what_changed(clip, session) -> None:
    """Each result names frame, round, objects and their quality, and composes its labels when asked."""
    session.interact(clip.scribbles(5, 1, 2))
    for result in session.propagate("forward"):
        assert result.round == 1
        assert result.objects == (1, 2)
        assert all(0 <= q <= 1 for q in result.quality.values())
        assert result.seconds > 0
        np.testing.assert_array_equal(result.labels, session.labels[result.frame])


def test_directions_do_their_side_and_no_more(clip, session) -> None:
    """One direction does its frames; both do what is left, and then nothing is."""
    session.interact(clip.scribbles(5, 1))
    assert run(session, direction="backward") == [4, 3, 2, 1, 0]
    assert run(session) == [6, 7, 8, 9, 10, 11]
    assert run(session) == []


def test_only_the_frames_and_objects_asked_for_change(clip, session) -> None:
    """`start`, `stop` and `objects` bound what a call does; the next call does the rest."""
    session.interact(clip.scribbles(5, 1, 2))
    assert run(session, start=3, stop=8, objects=[2]) == [6, 7, 4, 3]
    assert not (whole(session)[[3, 4, 6, 7]] == 1).any()
    rest = {r.frame: r.objects for r in session.propagate()}
    assert rest[6] == (1,)
    assert rest[9] == (1, 2)


def test_what_remains_can_be_counted(clip, session) -> None:
    """The number of frames that a call may still change is known before it, and 0 after it."""
    assert session.remaining() == 0
    session.interact(clip.scribbles(5, 1, 2))
    assert session.remaining() == 11
    assert session.remaining("backward", start=2) == 3
    run(session, direction="forward")
    assert session.remaining() == 5
    run(session)
    assert session.remaining() == 0


def test_frames_behind_a_gap_wait(clip, session) -> None:
    """Nothing is done on frames that can only be reached through frames that were left out."""
    session.interact(clip.scribbles(2, 1))
    assert run(session, start=5) == []
    assert run(session, stop=5) == [3, 4, 1, 0]
    assert run(session, start=5) == [5, 6, 7, 8, 9, 10, 11]


def test_a_stack_of_one_frame_just_segments(make_clip) -> None:
    """With one frame there is nothing to propagate, and that is no error."""
    clip = make_clip(1)
    with Session(open_frames(clip.video, axes=AXES), FakePredictor()) as session:
        session.interact(clip.scribbles(0, 1, 2))
        assert run(session) == []
        assert set(np.unique(session.labels[0])) == {0, 1, 2}
        assert session.suggest_frame() is None


def test_a_frame_is_read_once_for_each_object_and_direction(clip) -> None:
    """Propagation reads one region an object on each frame, and only frames that it changes."""
    stack = open_frames(clip.video, axes=AXES)
    read: list[int] = []
    original = stack.read
    stack.read = lambda frame, box=None: (read.append(frame), original(frame, box))[1]
    with Session(stack, FakePredictor()) as session:
        session.interact(clip.scribbles(5, 1))
        assert set(read) == {5}
        read.clear()
        run(session)
        assert sorted(read) == [t for t in range(12) if t != 5]


def test_the_next_frame_is_asked_for_while_this_one_is_computed(clip) -> None:
    """Before the network runs on a frame, the next one's region is being read ahead."""
    stack = open_frames(clip.video, axes=AXES)
    asked: list[tuple[int, Box]] = []
    stack.prefetch = lambda frame, box=None: asked.append((frame, box))
    with Session(stack, FakePredictor()) as session:
        session.interact(clip.scribbles(5, 1))
        run(session, direction="forward")
    assert [frame for frame, _ in asked] == list(range(7, 12))
    assert all(box.clip((96, 128)) == box for _, box in asked)


# -- spans and blending


def test_a_later_round_stops_at_frames_annotated_before(clip, session) -> None:
    """A correction reaches the next annotated frame of that object and changes neither it nor what lies beyond."""
    session.interact(clip.scribbles(4, 1))
    run(session)
    before = whole(session)
    result = session.interact(clip.scribbles(9, 1))
    assert result.round == 2
    assert set(run(session)) == {10, 11, 8, 7, 6, 5}
    np.testing.assert_array_equal(whole(session)[:5], before[:5])


@pytest.mark.parametrize("frame", [7, 6, 5, 4, 3])
def test_a_correction_is_blended_by_distance(frame: int) -> None:
    """At distance k from the new frame and d - k from the old one, the new mask weighs 1 - k/d of the stored one."""
    model = Level(0.8)
    with Session(open_frames(still(), axes="TYX"), model) as session:
        session.interact(Scribbles(2, [Stroke(1, DOT)]))
        run(session)
        old = stored(session, frame)
        model.level = 1.0
        session.interact(Scribbles(8, [Stroke(1, DOT)]))
        run(session)
        weight = 1 - (8 - frame) / 6
        assert stored(session, frame) == pytest.approx(weight + (1 - weight) * old, abs=1 / 255)
        assert stored(session, 9) == 1.0
        assert stored(session, 1) == pytest.approx(0.8, abs=1 / 255)


@pytest.mark.parametrize("frame", [3, 5, 7])
def test_passes_that_meet_are_averaged_by_distance(frame: int) -> None:
    """Between two frames of one round the forward pass weighs 1 - k/d and the backward pass k/d."""
    model = Level(1.0)
    with Session(open_frames(still(), axes="TYX"), model) as session:
        for start in (2, 8):
            session.interact(Scribbles(start, [Stroke(1, DOT)]))
        levels = {}
        original = model.propagate

        def propagate(requests):
            model.level = 0.6 if len(levels) == 0 else 1.0
            return original(requests)

        model.propagate = propagate
        results = session.propagate()
        forward = set(range(3, 8)) | {9, 10}
        for result in results:
            levels[result.frame] = stored(session, result.frame)
        assert forward <= levels.keys()
        k = (frame - 2) / 6
        # forward masks (0.6) were held back, backward ones (1.0) came once frames were reported
        assert levels[frame] == pytest.approx((1 - k) * 0.6 + k * 1.0, abs=2 / 255)


def test_frames_between_two_of_a_round_come_once_when_they_are_final(clip, session) -> None:
    """Each changed frame is reported once; those between two annotated frames after the second pass."""
    session.interact(clip.scribbles(2, 1))
    session.interact(clip.scribbles(8, 1))
    generator = session.propagate()
    assert [next(generator).frame for _ in range(3)] == [9, 10, 11]
    assert not session.labels[5].any()
    assert [r.frame for r in generator] == [7, 6, 5, 4, 3, 1, 0]
    assert all(session.labels[t].any() for t in range(12))


def test_one_direction_shows_its_half_and_the_other_is_averaged_in(clip, session) -> None:
    """Forward alone shows its masks between two frames of a round; backward later averages the same frames."""
    session.interact(clip.scribbles(2, 1))
    session.interact(clip.scribbles(8, 1))
    assert run(session, direction="forward") == [3, 4, 5, 6, 7, 9, 10, 11]
    assert session.labels[5].any()
    assert run(session, direction="backward") == [7, 6, 5, 4, 3, 1, 0]
    assert run(session) == []
    one_by_one = whole(session)
    with Session(open_frames(clip.video, axes=AXES), FakePredictor()) as other:
        other.interact(clip.scribbles(2, 1))
        other.interact(clip.scribbles(8, 1))
        run(other)
        np.testing.assert_array_equal(whole(other), one_by_one)


def test_halves_that_a_stop_held_back_are_averaged_in_a_later_round(clip, session) -> None:
    """What a stopped round held back stays hidden until the next propagation averages it, as if nothing had come by."""
    session.interact(clip.scribbles(2, 1))
    session.interact(clip.scribbles(8, 1))
    generator = session.propagate()
    next(generator)
    generator.close()
    session.interact(clip.scribbles(11, 2))
    assert not session.labels[5].any()
    assert run(session, objects=[1]) == [10, 11, 7, 6, 5, 4, 3, 1, 0]
    with Session(open_frames(clip.video, axes=AXES), FakePredictor()) as other:
        other.interact(clip.scribbles(2, 1))
        other.interact(clip.scribbles(8, 1))
        run(other)
        for frame in range(11):
            np.testing.assert_array_equal(session.labels[frame] == 1, other.labels[frame] == 1)


def stop_after(session: Session, frames: int, **options) -> None:
    """Propagate, and stop after so many frames."""
    generator = session.propagate(**options)
    for _ in range(frames):
        next(generator)
    generator.close()


@pytest.mark.parametrize("stopped", range(10))
def test_what_a_stop_left_undone_is_done_after_a_correction(clip, session, stopped: int) -> None:
    """Stopped anywhere and corrected elsewhere, the next propagation comes to every frame, and leaves none."""
    session.interact(clip.scribbles(4, 1, 2))
    stop_after(session, stopped)
    session.interact(clip.scribbles(8, 1))
    assert session.remaining() >= 11 - stopped
    run(session)
    assert [t for t in range(12) if len(session.found(t)) < 2] == []
    assert session.remaining() == 0
    assert run(session) == []


@pytest.mark.parametrize(
    ("options", "left"),
    [({"direction": "forward"}, [3, 2, 1, 0]), ({"objects": [1]}, [5, 6, 7]), ({"stop": 7}, [7])],
)
def test_what_a_round_was_not_asked_for_is_done_by_the_next(clip, session, options, left: list[int]) -> None:
    """One direction, some objects or some frames: the next propagation goes on with the others after a correction."""
    session.interact(clip.scribbles(4, 1, 2))
    run(session, **options)
    session.interact(clip.scribbles(8, 1))
    assert set(left) <= set(run(session))
    assert all(len(session.found(t)) == 2 for t in range(12))
    assert session.remaining() == 0


def test_what_a_round_did_is_not_done_again_by_the_next(clip, session) -> None:
    """A later round runs no network on the frames that an earlier one finished and its own spans don't reach."""
    session.interact(clip.scribbles(4, 1))
    stop_after(session, 5)  # 5 to 9
    session.interact(clip.scribbles(8, 1))
    assert run(session) == [9, 10, 11, 7, 6, 5, 3, 2, 1, 0]
    session.interact(clip.scribbles(10, 1))
    assert run(session) == [11, 9]


@pytest.mark.parametrize("stop", [3, 5])
@pytest.mark.parametrize("frame", [3, 4, 5, 7])
def test_an_undone_pass_is_averaged_with_a_newer_one(frame: int, stop: int) -> None:
    """Up to a frame annotated later, a pass that was left undone weighs 1 - k/d, as if both were of one round."""
    model = Level(0.6)
    with Session(open_frames(still(), axes="TYX"), model) as session:
        session.interact(Scribbles(2, [Stroke(1, DOT)]))
        run(session, stop=stop)
        session.interact(Scribbles(8, [Stroke(1, DOT)]))
        run(session, direction="forward")
        model.level = 1.0
        run(session, direction="backward")
        k = (frame - 2) / 6
        assert stored(session, frame) == pytest.approx((1 - k) * 0.6 + k * 1.0, abs=2 / 255)


def test_undo_takes_back_what_a_round_did_for_an_earlier_one(clip, session) -> None:
    """What was left undone is left undone again after undo, there again after redo, and the other's after both."""
    session.interact(clip.scribbles(4, 1))
    stop_after(session, 2)
    first, left = whole(session), session.remaining()
    session.interact(clip.scribbles(8, 1))
    corrected = session.remaining()
    run(session)
    second = whole(session)
    session.undo()
    assert session.remaining() == corrected
    session.redo()
    assert session.remaining() == 0
    np.testing.assert_array_equal(whole(session), second)
    session.undo(to="round")
    assert session.remaining() == left
    np.testing.assert_array_equal(whole(session), first)
    assert run(session)[-4:] == [3, 2, 1, 0]


def test_a_stop_in_what_an_earlier_round_left_goes_on_to_the_same_masks(clip, session) -> None:
    """A propagation that finishes two rounds may be stopped at every frame, and gives what it gives without a stop."""
    session.interact(clip.scribbles(4, 1))
    stop_after(session, 2)
    session.interact(clip.scribbles(9, 1))
    run(session)
    expected = whole(session)
    session.undo()
    while session.remaining():
        stop_after(session, 1)
        session.rename(1, f"after {session.remaining()}")
    np.testing.assert_array_equal(whole(session), expected)


# -- what is not touched


def test_correcting_one_object_leaves_the_other(clip, session) -> None:
    """Strokes on object 2 change no pixel of object 1's masks, and no network runs for it."""
    session.interact(clip.scribbles(5, 1, 2))
    run(session)
    before = whole(session)
    session.model.calls.clear()
    session.interact(clip.scribbles(0, 2))
    run(session)
    np.testing.assert_array_equal(whole(session) == 1, before == 1)
    assert {count for _, count in session.model.calls} == {1}


@pytest.mark.parametrize("later", [[7], [3, 9], [0, 11]])
def test_an_annotated_frame_is_never_changed_by_a_later_round(clip, session, later: list[int]) -> None:
    """Whatever is propagated later, a frame stays as it was annotated."""
    session.interact(clip.scribbles(5, 1, 2))
    run(session)
    mine = session.labels[5].copy()
    for frame in later:
        session.interact(clip.scribbles(frame, 1, 2))
        run(session)
    np.testing.assert_array_equal(session.labels[5], mine)


def test_a_stroke_over_a_neighbour_touches_it(make_clip, square) -> None:
    """A stroke that covers another object's mask segments that one again, and takes the pixels that it covers."""
    clip = make_clip(4, (96, 128), square((20, 20), (0, 0)), square((20, 44), (0, 0)))
    with Session(open_frames(clip.video, axes=AXES), FakePredictor()) as session:
        session.interact(clip.scribbles(0, 1))
        mask = np.where(clip.truth[1] > 0, 1, 0)
        session.annotate(1, mask)
        result = session.interact(clip.scribbles(1, 2))
        assert result.objects == (1, 2)
        assert set(np.unique(result.labels[25:38, 48:64])) == {2}
        assert set(np.unique(result.labels[25:38, 24:40])) == {1}


def test_a_small_trespass_touches_nobody(clip, session) -> None:
    """A stroke that covers no more than a few pixels of another object leaves it as it is."""
    session.interact(clip.scribbles(5, 1, 2))
    rows, columns = np.nonzero(session.labels[5] == 2)
    at = (int(rows.min()), int(columns.min()))
    result = session.interact(Scribbles(5, [Stroke(1, [at, (at[0], at[1] + 1)])]))
    assert result.objects == (1,)


def test_background_strokes_touch_what_they_cover(clip, session) -> None:
    """A background stroke is a negative for the objects under it, and for no others."""
    session.interact(clip.scribbles(5, 1, 2))
    middle = clip.scribbles(5, 2).strokes[0].points
    result = session.interact(Scribbles(5, [Stroke(0, middle)]))
    assert result.objects == (2,)


class Carving(Level):
    """Sees the object where the picture is bright, less what negative strokes lie on."""

    def segment(self, requests):
        found = super().segment(requests)
        seen = zip(found, requests, strict=True)
        return [Segmentation(f.probability * (r.negative == 0), f.reference) for f, r in seen]


def bright(frames: int) -> np.ndarray:
    """A bright square that doesn't move, on black frames."""
    video = np.zeros((frames, 64, 64, 3), np.uint8)
    video[:, 12:52, 12:52] = 255
    return video


def on_bright(frame: int, object_id: int = 1) -> Scribbles:
    """A line through the middle of the square; of the background, a short one at its edge."""
    points = [(14, 30), (14, 34)] if object_id == 0 else [(32, 20), (32, 44)]
    return Scribbles(frame, [Stroke(object_id, points)])


def test_what_a_background_stroke_takes_away_spreads_however_little_it_is() -> None:
    """A line of the background alone is a correction of the object that it goes over, and is propagated."""
    with Session(open_frames(bright(9), axes=AXES, contrast=(0, 255)), Carving()) as session:
        session.interact(on_bright(0))
        run(session)
        before = session.labels[4].copy()
        assert session.interact(on_bright(4, 0)).objects == (1,)
        assert 0 < np.count_nonzero(before != session.labels[4]) < 0.05 * np.count_nonzero(before)
        assert sorted(run(session)) == [1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("reached", [2, 6])
@pytest.mark.parametrize("way", ["erased", "neighbour"])
def test_a_pass_that_was_stopped_goes_on_behind_a_frame_that_starts_nothing(way: str, reached: int) -> None:
    """Where others took a little of a mask, which spreads nowhere, a stopped pass goes on behind that frame."""
    with Session(open_frames(bright(9), axes=AXES, contrast=(0, 255)), Carving()) as session:
        session.interact(on_bright(0))
        stop_after(session, reached)
        if way == "erased":
            labels = session.labels[2].copy()
            labels[12, 12:20] = 0
            session.annotate(2, labels, objects=[1], spreads=[])
        else:
            session.interact(Scribbles(2, [Stroke(2, [(14, 30), (14, 34)])]))
        mine = session.labels[2].copy()
        assert not {a.object_id: a.spreads for a in session._project.annotations(frame=2)}[1]
        stop_after(session, 2)
        run(session)
        assert [int((frame == 1).sum() > 1000) for frame in whole(session)] == [1] * 9
        np.testing.assert_array_equal(session.labels[2], mine)
        assert session.remaining() == 0
        assert run(session) == []


def test_a_frame_that_starts_nothing_starts_nothing_where_all_is_done() -> None:
    """Where a little of a mask was taken by paint after a whole propagation, no frame changes."""
    with Session(open_frames(bright(9), axes=AXES, contrast=(0, 255)), Carving()) as session:
        session.interact(on_bright(0))
        run(session)
        labels = session.labels[4].copy()
        labels[12, 12:20] = 0
        session.annotate(4, labels, objects=[1], spreads=[])
        assert session.remaining() == 0
        session.interact(on_bright(7))
        assert sorted(run(session)) == [5, 6, 8]
        assert session.remaining() == 0


def test_a_second_interaction_sees_all_strokes_of_the_round(clip) -> None:
    """Strokes of one frame add up until the round is propagated; those of earlier rounds don't."""
    seen: list[int] = []

    class Watching(FakePredictor):
        def segment(self, requests):
            seen.extend(int((r.negative > 0).any()) for r in requests)
            return super().segment(requests)

    with Session(open_frames(clip.video, axes=AXES), Watching()) as session:
        session.interact(Scribbles(5, [Stroke(0, [(42, 5), (42, 100)])]))
        session.interact(clip.scribbles(5, 1))
        assert any(seen)
        run(session)
        seen.clear()
        session.interact(clip.scribbles(5, 1))
        assert not any(seen)


# -- painted masks


def test_a_project_may_lie_in_the_users_home(clip, tmp_path, monkeypatch) -> None:
    """As for frames and exports, a leading ~ of a project's path is the user's home, not a folder of that name."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    with Session(open_frames(clip.video, axes=AXES), FakePredictor(), project="~/new.ivos") as session:
        session.interact(clip.scribbles(5, 1))
    with Session.open("~/new.ivos", frames=clip.video) as session:
        assert session.path == tmp_path / "home" / "new.ivos"
    with Session(open_frames(clip.video, axes=AXES), FakePredictor()) as session:
        session.save("~/saved.ivos")
    assert sorted(p.name for p in (tmp_path / "home").iterdir()) == ["new.ivos", "saved.ivos"]


def test_a_label_image_starts_all_its_objects(clip, session) -> None:
    """A whole label image of one frame is taken to the pixel, with its ids, and propagates."""
    given = clip.truth[5].astype(np.int32)
    given[given == 2] = 900
    result = session.annotate(5, given)
    assert result.objects == (1, 900)
    np.testing.assert_array_equal(session.labels[5], given)
    run(session)
    labels = whole(session)
    labels[labels == 900] = 2
    assert min(clip.jaccard(labels, k) for k in (1, 2)) > 0.9
    np.testing.assert_array_equal(session.labels[5], given)


def test_thousands_of_objects_start_without_a_network(clip) -> None:
    """Annotating runs no network, whatever the number of objects; their references are learned when they are needed."""
    grid = np.kron(np.arange(1, 1201).reshape(30, 40), np.ones((3, 3), int))
    with Session(open_frames(np.zeros((2, 90, 120), np.uint8), axes="TYX"), FakePredictor()) as session:
        session.annotate(0, grid)
        assert session.model.calls == []
        assert len(session.objects) == 1200
        np.testing.assert_array_equal(session.labels[0], grid)


class Telling(FakePredictor):
    """Tells of each reference that it is handed from which frame it comes; they are as large as is asked for."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.values = values
        self.handed: list[list[int]] = []

    def segment(self, requests):
        found = super().segment(requests)
        heads = [r.image[0, 0, :1] * 255 for r in requests]
        tail = np.zeros(self.values)
        marked = [np.concatenate([h, f.reference.ravel(), tail]) for h, f in zip(heads, found, strict=True)]
        return [Segmentation(f.probability, m.astype(np.float16)) for f, m in zip(found, marked, strict=True)]

    def propagate(self, requests):
        for r in requests:
            self.handed.append([round(float(reference[0])) for reference in r.references])
        plain = [[reference[1:10].reshape(3, 3) for reference in r.references] for r in requests]
        return super().propagate([replace(r, references=p) for r, p in zip(requests, plain, strict=True)])


def numbered(frames: int) -> np.ndarray:
    """A bright square that doesn't move, on frames as dark as their numbers."""
    video = np.zeros((frames, 16, 16, 3), np.uint8)
    video[:] = np.arange(frames)[:, None, None, None]
    video[:, 4:12, 4:12] = 250
    return video


def test_far_more_annotated_frames_than_a_network_takes_are_no_obstacle(monkeypatch) -> None:
    """Each way gets the references nearest to its start, in their order, however large they are together."""
    monkeypatch.setattr(sweep, "REFERENCES_AT_MOST", 3)
    monkeypatch.setattr("napari_ivos.project.project._TOGETHER", 10 * 1000)  # what of one kind is unpacked at once
    video, model = numbered(42), Telling(1000)
    with Session(open_frames(video, axes=AXES, contrast=(0, 255)), model) as session:
        for frame in [*range(20, 42, 2), *range(0, 20, 2)]:
            session.annotate(frame, video[frame, :, :, 0] == 250, objects=[1])
        assert run(session, direction="forward") == [*range(1, 40, 2), 41]
        assert model.handed[:3] == [[0, 2, 4], [0, 2, 4], [2, 4, 6]]
        assert model.handed[9:13] == [[16, 18, 20], [18, 20, 22], [20, 22, 24], [22, 24, 26]]
        assert model.handed[-2:] == [[36, 38, 40], [36, 38, 40]]
        np.testing.assert_array_equal(whole(session) == 1, video[..., 0] == 250)


def test_references_are_those_of_the_whole_way_when_it_is_interrupted(monkeypatch) -> None:
    """A way that goes on later is told apart by the same references as one that was never interrupted."""
    monkeypatch.setattr(sweep, "REFERENCES_AT_MOST", 2)
    video, handed = numbered(12), []
    for calls in ([{}], [{"stop": 6}, {"direction": "backward"}, {}]):
        model = Telling(0)
        with Session(open_frames(video, axes=AXES, contrast=(0, 255)), model) as session:
            for frame in (0, 2, 9):
                session.annotate(frame, video[frame, :, :, 0] == 250, objects=[1])
            for options in calls:
                run(session, **options)
        handed.append(sorted(model.handed))
    assert handed[0] == handed[1]


def test_references_larger_than_the_memory_are_refused(monkeypatch) -> None:
    """What was learned of an object is not unpacked where that takes more than half of the memory."""
    video, model = numbered(8), Telling(1000)
    with Session(open_frames(video, axes=AXES, contrast=(0, 255)), model) as session:
        for frame in range(6):
            session.annotate(frame, video[frame, :, :, 0] == 250, objects=[1])
        monkeypatch.setattr(untrusted, "memory", lambda: 2 * 5 * 2020)
        with pytest.raises(OutOfMemory, match="what was learned of object 1 needs"):
            run(session)


def test_paint_takes_what_it_covers(clip, session) -> None:
    """A painted mask cuts other painted masks, whichever has the lower id, and leaves the rest of them exact."""
    first = np.zeros((96, 128), int)
    first[10:40, 10:40] = 1
    session.annotate(3, first)
    second = np.zeros((96, 128), int)
    second[20:30, 30:60] = 2
    session.annotate(3, second)
    np.testing.assert_array_equal(session.labels[3], np.where(second, second, first))


def test_named_objects_are_exactly_as_painted(clip, session) -> None:
    """With `objects`, one that is missing in the image is not on that frame, and others in the image are ignored."""
    session.annotate(3, clip.truth[3])
    session.annotate(3, np.where(clip.truth[3] == 1, 0, 7), objects=[1])
    assert set(np.unique(session.labels[3])) == {0, 2}
    assert session.annotated_frames(1) == (3,)
    session.annotate(4, clip.truth[4] == 1, objects=[1])
    np.testing.assert_array_equal(session.labels[4] == 1, clip.truth[4] == 1)


def test_an_object_painted_away_is_absent_from_there(clip, session) -> None:
    """An empty painted mask says that the object isn't there, and propagation carries that without a network."""
    session.annotate(0, clip.truth[0])
    run(session)
    session.annotate(6, np.zeros((96, 128), int), objects=[1])
    session.model.calls.clear()
    frames = run(session)
    assert session.model.calls == []
    assert not (whole(session)[6:] == 1).any()
    assert set(frames) >= set(range(7, 12))
    assert (whole(session)[1] == 1).any()


@pytest.mark.parametrize(
    ("labels", "objects", "message"),
    [
        (np.zeros((5, 5), int), None, "shape"),
        (np.zeros((96, 128), int), None, "no object: all are 0.*objects="),
        (np.zeros((96, 128), float), None, "float64"),
        (np.full((96, 128), 70000), None, "65535"),
        (np.full((96, 128), -1), None, "65535"),
        (np.ones((96, 128), bool), None, "ids"),
        (np.ones((96, 128), bool), [1, 2], "ids"),
    ],
)
def test_labels_that_cant_be_taken_are_refused(session, labels, objects, message: str) -> None:
    """A label image of another shape, type or range, or of nothing, says what was found and what is expected."""
    with pytest.raises(InputError, match=message):
        session.annotate(0, labels, objects)
    assert session.log == ()


def test_a_painted_mask_stays_exact_but_for_what_a_stroke_takes(clip, session) -> None:
    """Another object's stroke over a painted mask takes its pixels and leaves the rest to the pixel."""
    rows, columns = np.nonzero(clip.truth[5] == 1)
    (top, bottom), (left, right) = (rows.min(), rows.max() + 1), (columns.min(), columns.max() + 1)
    painted = np.zeros((96, 128), int)
    painted[top:bottom, left - 10 : right] = 1
    session.annotate(5, painted)
    session.interact(Scribbles(5, [Stroke(0, [(top + 2, left - 5), (bottom - 2, left - 5)])]))
    after = session.labels[5]
    np.testing.assert_array_equal(after[:, left + 2 :], painted[:, left + 2 :])
    assert not after[top + 2 : bottom - 2, left - 8 : left - 2].any()
    assert session._project.rows(5)[1].origin is Origin.PAINTED


# -- objects that come and go


def test_an_object_that_leaves_is_absent_until_it_is_annotated_again(make_clip, square) -> None:
    """After some frames without a mask no network looks for it any more, and labels show nothing."""
    clip = make_clip(40, (96, 128), square((30, 30), (1, 1), 24, range(12)))
    with Session(open_frames(clip.video, axes=AXES), FakePredictor()) as session:
        session.interact(clip.scribbles(0, 1))
        session.model.calls.clear()
        frames = run(session)
        assert len(session.model.calls) < 30
        assert clip.jaccard(whole(session), 1) > 0.85
        assert max(frames) < 25
        assert run(session) == []


def test_old_masks_of_an_object_that_is_gone_go_too() -> None:
    """Where a later round loses an object, the masks of earlier rounds behind that are emptied, without a network."""
    model = Level()
    with Session(open_frames(still(40), axes="TYX"), model) as session:
        session.interact(Scribbles(0, [Stroke(1, DOT)]))
        run(session)
        session.interact(Scribbles(5, [Stroke(1, DOT)]))
        model.level, model.handed = 0.0, []
        frames = run(session)
        assert set(frames) >= set(range(6, 40))
        assert len(model.handed) < 20
        assert not whole(session)[6:].any()
        assert whole(session)[0].any()
        assert run(session) == []


def test_an_object_may_enter_late(make_clip, square) -> None:
    """An object with a first frame is not looked for before it."""
    clip = make_clip(12, (96, 128), square((30, 30), (1, 1), 24, range(5, 12)))
    with Session(open_frames(clip.video, axes=AXES), FakePredictor()) as session:
        session.add_object("late", start=5)
        session.interact(clip.scribbles(6, 1))
        assert run(session) == [7, 8, 9, 10, 11, 5]


# -- opening, names, errors


def test_everything_is_there_again_after_opening(clip, tmp_path: Path) -> None:
    """A project opens again with the same labels to the last bit, and without its stack says what is missing."""
    stack = open_frames(clip.video, axes=AXES)
    with Session(stack, FakePredictor(), tmp_path / "a.ivos") as session:
        session.interact(clip.scribbles(5, 1, 2))
        run(session)
        session.rename(2, "right one")
        labels, quality = whole(session), np.asarray(session.quality)
    with Session.open(tmp_path / "a.ivos", model=FakePredictor()) as again:
        np.testing.assert_array_equal(whole(again), labels)
        np.testing.assert_array_equal(np.asarray(again.quality), quality)
        assert [o.name for o in again.objects] == ["object 1", "right one"]
        assert again.stack is None
        with pytest.raises(InputError, match="frames="):
            again.propagate()
        assert again.undo()[0].kind == "rename"


def test_a_tiff_beside_the_project_is_found_by_itself(clip, tmp_path: Path) -> None:
    """A stack given as a path is opened again from where it lies relative to the project, moved together or not."""
    import tifffile

    folder = tmp_path / "one"
    folder.mkdir()
    tifffile.imwrite(folder / "movie.tif", clip.video[..., 0], metadata={"axes": "TYX"})
    with Session(folder / "movie.tif", FakePredictor(), folder / "a.ivos") as session:
        session.contrast = (0, 300)
    folder.rename(tmp_path / "two")
    with Session.open(tmp_path / "two" / "a.ivos", model=FakePredictor()) as again:
        assert again.stack.shape == again.shape
        assert again.contrast == ((0.0, 300.0),)


def test_an_array_is_read_as_it_was_when_the_project_was_made(tmp_path: Path) -> None:
    """An array given when opening is taken with the axes that the project was made with."""
    volume = np.zeros((3, 40, 4, 50), np.uint8)
    volume[:, 10:30, :, 10:30] = 200
    Session(open_frames(volume, axes="TYCX", channels=[2]), None, tmp_path / "a.ivos").close()
    with Session.open(tmp_path / "a.ivos", volume) as again:
        assert again.stack.axes == "TYCX"
        assert again.stack.channels == (2,)


def test_odd_options_of_a_strangers_project_are_refused(clip, tmp_path: Path) -> None:
    """Options that no stack has, or of odd types, give a letter and call nothing."""
    from napari_ivos.session import stacks

    with pytest.raises((ProjectError, InputError)):
        stacks.as_stack(clip.video, {"axes": 7, "evil": "os.system"})
    stack, owned = stacks.as_stack(clip.video, {"evil": 1})
    assert owned
    assert stack.shape == (12, 96, 128)


def test_another_stack_is_refused(clip, make_clip, tmp_path: Path) -> None:
    """A stack of other pixels is refused unless it is forced; one of another shape always."""
    Session(open_frames(clip.video, axes=AXES), None, tmp_path / "a.ivos").close()
    other = open_frames(255 - clip.video, axes=AXES)
    with pytest.raises(ProjectError, match="other pixels"):
        Session.open(tmp_path / "a.ivos", other)
    Session.open(tmp_path / "a.ivos", other, force=True).close()
    with pytest.raises(InputError, match="12 frames of 96 x 128"):
        Session.open(tmp_path / "a.ivos", open_frames(make_clip(3).video, axes=AXES), force=True)


@pytest.mark.parametrize(
    "path", ["/etc/hosts", "C:\\x.tif", "\\\\server\\x.tif", "http://x/y.tif", "s3://x", "", 7, None]
)
def test_only_relative_paths_of_a_project_are_tried(tmp_path: Path, path) -> None:
    """A stranger's project makes this machine look nowhere but beside it."""
    from napari_ivos.session import stacks

    assert stacks.find({"path": path}, tmp_path / "a.ivos") is None


def test_the_path_of_a_stack_that_is_found_again_is_short(clip, tmp_path: Path) -> None:
    """No ".." is in it, unless a link makes the short path another file."""
    from napari_ivos.session import stacks

    for folder in ("films", "elsewhere/deep", "work"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "films" / "a.tif").touch()
    assert stacks.find({"path": "../films/a.tif"}, tmp_path / "work" / "a.ivos") == tmp_path / "films" / "a.tif"
    (tmp_path / "elsewhere" / "films").mkdir()
    (tmp_path / "elsewhere" / "films" / "a.tif").touch()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "deep", target_is_directory=True)
    found = stacks.find({"path": "../films/a.tif"}, tmp_path / "link" / "a.ivos")
    assert found is not None
    assert found.samefile(tmp_path / "elsewhere" / "films" / "a.tif")


def test_the_contrast_of_a_stack_is_kept(clip, tmp_path: Path) -> None:
    """The contrast measured at first use is in the project and used again."""
    dim = (clip.video[..., 0].astype(np.uint16) * 16) + 300
    with Session(open_frames(dim, axes="TYX"), FakePredictor(), tmp_path / "a.ivos") as session:
        session.interact(clip.scribbles(5, 1))
        kept = session.contrast
    with Session.open(tmp_path / "a.ivos", open_frames(dim, axes="TYX", contrast=(0, 1))) as again:
        assert again.contrast == kept


@pytest.mark.parametrize("frames", [0, 1, 5])
def test_contrast_that_only_the_work_tells_is_kept_before_the_work(tmp_path: Path, frames: int) -> None:
    """Where sampled frames are all the same, a propagation that ends anywhere leaves the contrast it began with."""
    video = np.zeros((60, 48, 120), np.uint16)
    sampled = np.linspace(0, 59, FRAMES_AT_MOST).round().astype(int)
    shown = [t for t in range(60) if t not in sampled]
    for t in shown:
        video[t, 10:20, 10 + t : 20 + t] = 100 + 50 * t
    with Session(open_frames(video, axes="TYX"), FakePredictor(), tmp_path / "a.ivos") as session:
        session.annotate(shown[0], video[shown[0]] > 0, objects=[1])
        assert session.stack is not None
        assert not session.stack.contrast_known
        list(session.propagate("forward", most=frames))
        seen = session.contrast
    assert seen != ((0.0, 1.0),)
    with Session.open(tmp_path / "a.ivos", open_frames(video, axes="TYX"), FakePredictor()) as again:
        assert again.contrast == seen


@pytest.mark.parametrize(
    ("scribbles", "message"),
    [
        (Scribbles(12, [Stroke(1, DOT)]), "frames 0 to 11"),
        (Scribbles(0, []), "no stroke"),
        (Scribbles(0, [Stroke(1, [(-50, 5), (-40, 5)])]), "outside the image"),
        (Scribbles(0, [Stroke(1, DOT), Stroke(2, [(5, 500)])]), "Stroke 1 .*outside"),
    ],
)
def test_strokes_that_cant_be_used_are_refused(session, scribbles: Scribbles, message: str) -> None:
    """Strokes outside the image or the stack raise, say where they are, and change nothing."""
    with pytest.raises(InputError, match=message):
        session.interact(scribbles)
    assert session.log == ()
    assert session.objects == ()


def test_without_a_model_the_message_says_so(clip) -> None:
    """Sessions without a model take paint, and ask for one where a network is needed."""
    with Session(open_frames(clip.video, axes=AXES)) as session:
        session.annotate(0, clip.truth[0])
        with pytest.raises(InputError, match="model"):
            session.propagate()
        with pytest.raises(InputError, match="model"):
            session.interact(clip.scribbles(0, 1))


def test_what_is_no_model_is_refused_at_once(clip, session, tmp_path: Path) -> None:
    """A model's name in place of the model is refused when it is handed in, and no project is made."""
    path = tmp_path / "a.ivos"
    for use in (lambda: Session(clip.video, "compact", path), lambda: session.use_model("compact")):
        with pytest.raises(InputError, match=r"model is a str; .*load_model\(\)"):
            use()
    assert not path.exists()
    with pytest.raises(InputError, match="got a list"):
        session.interact([Stroke(1, [(4, 4)])])


def test_wrong_arguments_of_a_propagation_are_named(session) -> None:
    """Unknown directions, frames and objects are refused when the call is made."""
    for options, message in (
        ({"direction": "sideways"}, "sideways"),
        ({"start": 99}, "99"),
        ({"start": "first"}, "no frame first"),
        ({"stop": -1}, "stop=-1"),
        ({"stop": "end"}, "stop='end'"),
        ({"objects": [4]}, "no object 4"),
    ):
        with pytest.raises(InputError, match=message):
            session.propagate(**options)


def test_a_running_session_is_busy(clip, session) -> None:
    """While frames are being propagated, everything that would write is refused, and reading goes on."""
    session.interact(clip.scribbles(5, 1))
    running = session.propagate()
    next(running)
    for write in (
        session.propagate,
        lambda: session.interact(clip.scribbles(5, 1)),
        lambda: session.annotate(0, clip.truth[0]),
        lambda: session.rename(1, "x"),
        session.undo,
    ):
        with pytest.raises(SessionBusy, match="propagate"):
            write()
    assert session.labels[6].any()
    running.close()
    session.rename(1, "x")


def test_readers_never_wait_for_a_network(clip, tmp_path: Path) -> None:
    """Labels are read while a network is at work in another thread."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow(FakePredictor):
        def propagate(self, requests):
            inside.set()
            assert go_on.wait(30)
            return super().propagate(requests)

    for project in (None, tmp_path / "a.ivos"):
        inside.clear()
        go_on.clear()
        with Session(open_frames(clip.video, axes=AXES), Slow(), project) as session:
            session.interact(clip.scribbles(5, 1))
            worker = threading.Thread(target=lambda s=session: list(s.propagate()))
            worker.start()
            assert inside.wait(30)
            assert session.labels[5].any()
            assert session.busy == "propagate"
            assert session.objects[0].id == 1
            go_on.set()
            worker.join()
            assert session.busy is None


def test_cancel_from_another_thread_stops_after_the_frame(clip, session) -> None:
    """`cancel` ends a propagation between two frames, keeps what is done, and the next call goes on."""
    session.interact(clip.scribbles(0, 1))
    done = []
    for result in session.propagate():
        done.append(result.frame)
        if len(done) == 3:
            threading.Thread(target=session.cancel).start()
            session._cancelled.wait(30)
    assert done == [1, 2, 3]
    assert run(session) == list(range(4, 12))


def test_suggestions_name_the_worst_frame_that_nobody_annotated(session, clip) -> None:
    """The suggested frame has the lowest quality of those propagated, and never is one of the user's."""
    assert session.suggest_frame() is None
    session.interact(clip.scribbles(5, 1, 2))
    assert session.suggest_frame() is None
    run(session)
    worst = session.suggest_frame()
    quality = np.asarray(session.quality).min(axis=1)
    assert worst == min((t for t in range(12) if t != 5), key=lambda t: (quality[t], t))
    session.interact(clip.scribbles(worst, 1, 2))
    assert session.suggest_frame() != worst


def test_a_model_may_be_changed_and_travels_with_the_project(clip, tmp_path: Path) -> None:
    """After `use_model` references are learned again by the new model, and weights that say so are stored."""

    class Other(FakePredictor):
        checksum = "other-1"

        def portable_weights(self) -> bytes:
            return b"weights"

    with Session(open_frames(clip.video, axes=AXES), FakePredictor(), tmp_path / "a.ivos") as session:
        session.interact(clip.scribbles(5, 1))
        other = Other()
        session.use_model(other)
        run(session)
        assert other.calls[0] == ("segment", 1)
        assert clip.jaccard(whole(session), 1) > 0.9
    with Session.open(tmp_path / "a.ivos") as again:
        assert [m.checksum for m in again.stored_models] == ["other-1"]
        assert again.stored_weights("other-1") == b"weights"


def test_rounds_and_strokes_can_be_told(clip, session) -> None:
    """The session lists rounds, strokes and steps with time and model, enough for a methods section."""
    session.interact(clip.scribbles(5, 1, 2))
    run(session)
    session.annotate(0, clip.truth[0])
    first, second = session.rounds
    assert (first.number, first.annotated, first.strokes, first.models) == (1, {5: (1, 2)}, 2, ("fake-1",))
    assert first.frames == 11
    assert (second.number, second.annotated) == (2, {0: (1, 2)})
    strokes = session.strokes(frame=5, object_id=2)
    assert len(strokes) == 1
    np.testing.assert_array_equal(strokes[0].points, clip.scribbles(5, 2).strokes[0].points)
    assert strokes[0].model == "fake-1"
    assert strokes[0].time.endswith("+00:00")
    assert [s.kind for s in session.log] == ["interact", "propagate", "annotate"]
    assert session.log[0].detail["model"] == "fake"


def test_dropping_the_last_reference_closes(clip, tmp_path: Path) -> None:
    """A session that nobody holds any more has closed its project, and kept the paint that waited."""
    session = Session(open_frames(clip.video, axes=AXES), FakePredictor(), tmp_path / "a.ivos")
    session.labels[3, 5:9, 5:9] = 1
    del session
    assert [p.name for p in tmp_path.iterdir()] == ["a.ivos"]
    with Session.open(tmp_path / "a.ivos") as again:
        assert int((again.labels[3] == 1).sum()) == 16
