"""The result as an array: reading any part of it, painting through it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_ivos.errors import InputError, ReadOnlyProject, SessionBusy
from napari_ivos.frames import open_frames
from napari_ivos.predictor import FakePredictor
from napari_ivos.regions import Box
from napari_ivos.session import Session, labels
from napari_ivos.session.labels import normalise
from napari_ivos.session.painting import settled

if TYPE_CHECKING:
    from pathlib import Path

KEYS = [
    3,
    -1,
    np.int64(2),
    slice(2, 5),
    slice(None, None, -4),
    slice(5, 5),
    Ellipsis,
    (3, slice(10, 40)),
    (3, slice(40, 10, -3), slice(5, 90, 2)),
    (3, slice(None, None, -2), 17),
    (3, 20, 30),
    (-2, -3, -4),
    (slice(1, 4), 20, slice(0, 64)),
    (slice(1, 4), slice(8, 8)),
    (Ellipsis, 7),
    (2, Ellipsis, slice(3, 9)),
    ([1, 5, 1],),
    (np.array([[1, 5], [0, 2]]), slice(10, 30), slice(4, 9)),
    (np.array([1, 5, 1]), np.array([20, 60, 21]), np.array([15, 90, -1])),
    (np.array([1, 5]), 20, 33),
    (3, np.array([20, 60]), np.array([15, 90])),
    (3, np.array([20, 60]), slice(4, 8)),
    (3, np.array([20, 60])[:, None], np.array([15, 90, 3])),
    (slice(0, 3), np.array([20, 60]), np.array([15, 90])),
    (np.array([], int), np.array([], int), np.array([], int)),
]


@pytest.fixture(scope="module")
def clip(make_clip):
    return make_clip(6)


@pytest.fixture
def session(clip):
    with Session(open_frames(clip.video, axes="TYXC"), FakePredictor()) as made:
        made.interact(clip.scribbles(2, 1, 2))
        list(made.propagate())
        yield made


@pytest.fixture
def frames(session) -> np.ndarray:
    return np.stack([session.labels[t] for t in range(6)])


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_any_part_is_what_numpy_would_give(session, frames, key) -> None:
    """Every index gives what the same index gives on the whole array, from the cache or composed afresh."""
    for _ in range(2):
        np.testing.assert_array_equal(session.labels[key], frames[key])
        session._cache.forget()
        got = session.labels[key]
        np.testing.assert_array_equal(got, frames[key])
        assert got.dtype == np.uint16
        assert np.shape(got) == np.shape(frames[key])


def test_a_mask_of_booleans_picks_pixels(session, frames) -> None:
    """A boolean array of the labels' shape picks what it picks of the whole array."""
    mask = frames == 2
    np.testing.assert_array_equal(session.labels[mask], frames[mask])
    session.labels[mask] = 5
    np.testing.assert_array_equal(np.asarray(session.labels) == 5, mask)


@pytest.mark.parametrize(
    "key", [6, -7, (0, 96), (0, 0, 0, 0), "x", 1.5, None, (0, [500]), (Ellipsis, Ellipsis), ([0, 1], [2, 3])]
)
def test_an_index_that_isnt_one_is_an_index_error(session, key) -> None:
    """Places outside, too many axes, and things that are no index raise IndexError, for reading and painting."""
    with pytest.raises(IndexError):
        session.labels[key]
    with pytest.raises(IndexError):
        session.labels[key] = 1


def test_it_looks_like_an_array(session, frames) -> None:
    """Shape, dtype, length, iteration and numpy's own conversion are those of an array."""
    view = session.labels
    assert view is session.labels
    assert (view.shape, view.ndim, view.dtype, len(view)) == ((6, 96, 128), 3, np.dtype("uint16"), 6)
    assert view.nbytes == view.size * 2 == frames.nbytes
    np.testing.assert_array_equal(np.asarray(view), frames)
    assert np.asarray(view, np.int32).dtype == np.int32
    assert [f.shape for f in view] == [(96, 128)] * 6
    with pytest.raises(ValueError, match="copy"):
        np.asarray(view, copy=False)
    assert len([*normalise(3, view.shape)]) == 3


def test_a_window_is_composed_alone(session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a part of a frame composes that part only, until the whole frame is at hand."""
    asked = []
    original = labels.composed
    monkeypatch.setattr(labels, "composed", lambda p, f, w, last: (asked.append(w.shape), original(p, f, w, last))[1])
    session._cache.forget()
    session.labels[3, 10:20, 30:50]
    session.labels[3, 10, 30]
    assert asked == [(10, 20), (1, 1)]
    session.labels[3]
    session.labels[3, 10:20, 30:50]
    assert asked[2:] == [(96, 128)]


def test_what_is_read_is_the_readers_own(session, frames) -> None:
    """Changing an array that was read changes nothing in the session."""
    for key in (3, (3, slice(5, 50)), slice(2, 4)):
        got = session.labels[key]
        got[...] = 9
        np.testing.assert_array_equal(session.labels[key], frames[key])


def test_memory_for_composed_frames_is_bounded(clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many frames are read, only so many are kept, and at least one."""
    monkeypatch.setattr(labels, "CACHE_BYTES", 3 * 96 * 128 * 2)
    with Session(open_frames(clip.video, axes="TYXC")) as session:
        for t in range(6):
            session.labels[t]
        assert len(session._cache._frames) == 3
        monkeypatch.setattr(labels, "CACHE_BYTES", 1)
        session._cache.forget()
        session.labels[0]
        assert len(session._cache._frames) == 1


# -- painting


def test_a_stroke_of_many_writes_is_one_annotation(session, frames) -> None:
    """All that is painted on a frame before `commit` becomes one step, exact to the pixel."""
    expected = frames[4].copy()
    steps = len(session.log)
    for column in range(20, 30):
        session.labels[4, 70:80, column] = 3
        expected[70:80, column] = 3
    np.testing.assert_array_equal(session.labels[4], expected)
    assert len(session.log) == steps
    assert session.labels.commit()
    assert len(session.log) == steps + 1
    np.testing.assert_array_equal(session.labels[4], expected)
    assert 3 in [o.id for o in session.objects]
    session.undo()
    np.testing.assert_array_equal(session.labels[4], frames[4])


@pytest.mark.parametrize(
    "key",
    [
        (np.array([4, 4, 4]), np.array([70, 71, 72]), np.array([5, 6, 7])),
        (4, np.array([70, 71]), np.array([5, 6])),
        (4, slice(70, 75), slice(3, 9)),
        (4, slice(75, 70, -1), slice(3, 9, 2)),
        (slice(4, 5), 70, 5),
        ([4], slice(70, 72), slice(0, 9)),
        (4, 70),
        4,
    ],
    ids=str,
)
def test_any_index_paints(session, frames, key) -> None:
    """Painting with any index does what numpy does to an array."""
    expected = frames.copy()
    expected[key] = 2
    session.labels[key] = 2
    session.labels.commit()
    np.testing.assert_array_equal(session.labels[4], expected[4])


def test_arrays_of_values_paint_many_frames(session, frames) -> None:
    """A block of values over several frames is painted frame by frame."""
    block = np.random.default_rng(0).integers(0, 4, (3, 10, 20))
    session.labels[1:4, 50:60, 30:50] = block
    expected = frames.copy()
    expected[1:4, 50:60, 30:50] = block
    np.testing.assert_array_equal(np.asarray(session.labels), expected)
    session.labels[[0, 5], 50:52] = np.array([7, 8])[:, None, None]
    assert (session.labels[0, 50:52] == 7).all()
    assert (session.labels[5, 50:52] == 8).all()


def test_painted_objects_are_the_users_and_propagate(session) -> None:
    """What gained pixels is annotated there and carried on; what lost a few is annotated and stays put."""
    rows, columns = np.nonzero(session.labels[4] == 2)
    session.labels[4, rows.min() : rows.min() + 2, columns.min() : columns.min() + 5] = 1
    session.labels.commit()
    assert 4 in session.annotated_frames(1)
    assert 4 in session.annotated_frames(2)
    spreads = {a.object_id: a.spreads for a in session._project.annotations(frame=4)}
    assert spreads == {1: True, 2: False}


def test_paint_that_changes_nothing_is_no_step(session, frames) -> None:
    """Painting what is there already leaves no trace in the history."""
    steps = len(session.log)
    session.labels[4] = frames[4]
    session.labels.commit()
    assert len(session.log) == steps


def test_paint_holds_what_was_painted_and_no_more(session) -> None:
    """What changes between painted pixels before paint is written is not put back by it."""
    with session.painting():
        session.labels[5, 2:4, 2:4] = 7
        session.labels[5, 60:62, 90:92] = 7
        paint = session._cache.paint[5]
    below = np.full((96, 128), 3, np.uint16)
    shown = paint.over(below, Box(0, 0, 96, 128))
    assert int((shown == 7).sum()) == 8
    assert int((shown == 3).sum()) == shown.size - 8
    patches, spreads = settled(paint, {3: Box(0, 0, 96, 128)}, lambda box: below[box.slices])
    assert spreads.keys() == patches.keys() == {3, 7}
    assert int((patches[3].probability > 0).sum()) == shown.size - 8


def test_paint_may_write_what_is_there_already(session) -> None:
    """Pixels of a locked object that stay as they are don't count as paint, nor keep what changes below them."""
    rows = np.nonzero(session.labels[4] == 2)[0]
    session.lock(2)
    window = np.array(session.labels[4, : rows.min() + 2])
    window[:3, :3] = 3
    session.labels[4, : rows.min() + 2] = window
    paint = session._cache.paint[4]
    assert int(paint.touched.sum()) == 9
    session.labels.commit()
    assert (session.labels[4, :3, :3] == 3).all()
    with pytest.raises(InputError, match="locked"):
        session.labels[4, :3, :3] = 2


def test_paint_of_one_stroke_over_frames_is_taken_back_at_once(session) -> None:
    """A step for each frame, which one undo takes back and one redo brings back; the stroke before it is its own."""
    session.labels[2, 80:90, 5:9] = 3
    session.labels.commit()
    before = np.array(session.labels)
    steps = len(session.log)
    with session.painting():
        for column in (5, 7):
            session.labels[3:6, 80:90, column : column + 4] = 3
    session.labels.commit()
    after = np.array(session.labels)
    assert [step.kind for step in session.log[steps:]] == ["annotate"] * 3
    assert [step.detail["frame"] for step in session.undo()] == [5, 4, 3]
    np.testing.assert_array_equal(session.labels, before)
    assert [step.detail["frame"] for step in session.redo()] == [3, 4, 5]
    np.testing.assert_array_equal(session.labels, after)
    session.undo()
    assert [step.detail["frame"] for step in session.undo()] == [2]


def test_looking_elsewhere_ends_the_stroke(session) -> None:
    """Reading or painting another frame, from the thread that paints, makes the paint an annotation."""
    steps = len(session.log)
    session.labels[4, 80:90, 5:9] = 3
    threading.Thread(target=lambda: session.labels[0]).start()
    session.labels[4]
    assert len(session.log) == steps
    session.labels[0]
    assert len(session.log) == steps + 1
    session.labels[3, 80:90, 5:9] = 3
    session.labels[4, 80:90, 5:9] = 0
    assert len(session.log) == steps + 2


@pytest.mark.parametrize("ask", ["interact", "propagate", "undo", "export", "close"])
def test_whatever_is_asked_next_takes_the_paint_with_it(clip, tmp_path: Path, ask: str) -> None:
    """Nothing that was painted is forgotten, whatever the session is asked for."""
    path = tmp_path / "a.ivos"
    session = Session(open_frames(clip.video, axes="TYXC"), FakePredictor(), path)
    session.labels[4, 80:90, 5:9] = 3
    if ask == "interact":
        session.interact(clip.scribbles(4, 1))
    elif ask == "propagate":
        assert len(list(session.propagate())) == 5
    elif ask == "undo":
        assert [s.kind for s in session.undo()] == ["annotate"]
        session.redo()
    elif ask == "export":
        session.export(tmp_path / "x.tif")
    session.close()
    with Session.open(path) as again:
        assert (again.labels[4, 80:90, 5:9] == 3).all()


def test_frames_on_their_way_refuse_paint(session, clip) -> None:
    """Frames that a propagation may still change raise SessionBusy; others keep the paint until it is over."""
    session.interact(clip.scribbles(5, 1))
    running = session.propagate()
    next(running)
    with pytest.raises(SessionBusy, match="Frame 3"):
        session.labels[3, 0, 0] = 1
    session.labels[2, 80:90, 5:9] = 3
    assert not session.labels.commit()
    assert (session.labels[2, 80:90, 5:9] == 3).all()
    running.close()
    assert session.log[-1].kind == "annotate"
    assert (session.labels[2, 80:90, 5:9] == 3).all()


def test_paint_waits_for_nobody_at_the_end(clip, tmp_path: Path) -> None:
    """Closing while a propagation is open keeps the paint that waited for it."""
    path = tmp_path / "a.ivos"
    session = Session(open_frames(clip.video, axes="TYXC"), FakePredictor(), path)
    session.interact(clip.scribbles(3, 1))
    running = session.propagate(stop=5, start=2)
    next(running)
    session.labels[0, 80:90, 5:9] = 3
    session.close()
    assert list(running) == []
    with Session.open(path) as again:
        assert (again.labels[0, 80:90, 5:9] == 3).all()


@pytest.mark.parametrize("value", [70000, -1, 1.5, "x"])
def test_only_ids_are_painted(session, value) -> None:
    """Values that are no ids raise and paint nothing."""
    with pytest.raises(InputError):
        session.labels[3, 0, 0] = value
    assert session._cache.paint == {}


def test_locked_objects_shed_paint(session, frames) -> None:
    """Paint over a locked object leaves its pixels, and painting with its id is refused."""
    session.lock(1)
    session.labels[4] = 2
    session.labels.commit()
    np.testing.assert_array_equal(session.labels[4], np.where(frames[4] == 1, 1, 2))
    with pytest.raises(InputError, match="locked"):
        session.labels[4, 0, 0] = 1


def test_a_reader_can_not_paint(session, tmp_path: Path, clip) -> None:
    """A session that may only read says so when it is painted on."""
    path = tmp_path / "a.ivos"
    with Session(open_frames(clip.video, axes="TYXC"), None, path) as first:
        first.annotate(0, clip.truth[0])
        with Session.open(path) as second:
            np.testing.assert_array_equal(second.labels[0], clip.truth[0])
            with pytest.raises(ReadOnlyProject, match="another session"):
                second.labels[0, 0, 0] = 1
            first.annotate(0, clip.truth[1])
            np.testing.assert_array_equal(second.labels[0], clip.truth[1])


# -- quality


def test_quality_is_an_array_of_frames_by_objects(session) -> None:
    """Quality is (T, K) in 0..1, its column k is object k, and every part is that part of the whole."""
    quality = session.quality
    whole = np.asarray(quality)
    assert whole.shape == quality.shape == (6, 2)
    assert whole.dtype == np.float32
    assert (whole > 0).all()
    assert (whole <= 1).all()
    for key in (
        0,
        (slice(None), 1),
        (3, 1),
        slice(1, 3),
        (slice(4, 1, -1), 0),
        ([0, 5],),
        (2, [1, 0]),
        ([1, 2], [0, 1]),
    ):
        np.testing.assert_array_equal(quality[key], whole[key])
    assert len(quality) == 6


def test_quality_is_full_for_paint_and_none_where_nothing_is(clip) -> None:
    """What the user painted is certain; where an object has no mask yet there is none."""
    with Session(open_frames(clip.video, axes="TYXC")) as session:
        assert np.asarray(session.quality).shape == (6, 0)
        session.annotate(2, clip.truth[2])
        np.testing.assert_array_equal(np.asarray(session.quality), [[k == 2] * 2 for k in range(6)])


def test_paint_on_a_huge_frame_costs_what_it_covers():
    """On a frame of 900 million pixels strokes take megabytes, and a mask that was painted on in part stays whole."""
    import tracemalloc

    stack = np.broadcast_to(np.uint8(0), (2, 30_000, 30_000))
    with Session(open_frames(stack, axes="TYX"), FakePredictor()) as session:
        tracemalloc.start()
        session.labels[1, 20_000:20_100, 5_000:5_100] = 1
        session.labels.commit()
        session.labels[1, 20_050:20_060, 5_090:5_200] = 2
        session.labels[1, 20_055, 5_195] = 0
        shown = session.labels[1, 19_990:20_110, 4_990:5_210]
        session.labels.commit()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        expected = np.zeros((120, 220), np.uint16)
        expected[10:110, 10:110] = 1
        expected[60:70, 100:210] = 2
        expected[65, 205] = 0
        np.testing.assert_array_equal(shown, expected)
        np.testing.assert_array_equal(session.labels[1, 19_990:20_110, 4_990:5_210], expected)
        assert session.labels.boxes(1) == {1: (20_000, 5_000, 20_100, 5_100), 2: (20_050, 5_090, 20_060, 5_200)}
        assert session.annotated_frames(1) == (1,)
    assert peak < 32 << 20


# --- before the last round -----------------------------------------------------------------------------------------


def test_before_the_last_round_is_what_undo_would_show(session, clip) -> None:
    """`labels_before` has what taking the round back gives, without taking it back; masks, locks and edits included."""
    session.lock(2)
    before = np.asarray(session.labels)
    session.interact(clip.scribbles(4, 1))
    list(session.propagate("backward"))
    session.rename(1, "later")
    log, after = session.log, np.asarray(session.labels)
    assert (before != after).any()
    earlier = session.labels_before()
    np.testing.assert_array_equal(np.asarray(earlier), before)
    np.testing.assert_array_equal(earlier[4, 10:40, 5:90], before[4, 10:40, 5:90])
    assert set(earlier.boxes(0)) == {1, 2}
    assert session.log == log
    np.testing.assert_array_equal(np.asarray(session.labels), after)
    session.undo("round")
    np.testing.assert_array_equal(np.asarray(session.labels), before)


def test_before_the_first_round_there_is_nothing(session) -> None:
    """With one round, and with none, what was before is empty."""
    assert not np.asarray(session.labels_before()).any()
    session.undo("round")
    assert not np.asarray(session.labels_before()).any()


def test_what_was_before_is_not_painted(session, frames) -> None:
    """Paint there is an error in words; paint in the result is a round of its own, and missing from what was before."""
    with pytest.raises(InputError, match="only looked at"):
        session.labels_before()[0, 3, 4] = 1
    session.labels[0, 3, 4] = 1
    np.testing.assert_array_equal(np.asarray(session.labels_before()), frames)
    assert session.labels[0, 3, 4] == 1
