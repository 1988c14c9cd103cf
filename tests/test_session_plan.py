"""Plans of propagation: how far a pass has come, and in which order frames are visited."""

from __future__ import annotations

import pytest

from napari_ivos.merging import Bound, Pass, passes
from napari_ivos.regions import Box
from napari_ivos.session.plan import Frames, Track, pair
from napari_ivos.session.sweep import AHEAD_WASTE, join
from napari_ivos.steps import DOUBTED, LOST_FRAMES

EVERYTHING = range(1000)


def track(frames: range, within: range = EVERYTHING, start: int | None = None) -> Track:
    return Track(1, Pass(frames[0] - frames.step if start is None else start, frames, Bound.OPEN, None), within)


@pytest.mark.parametrize("frames", [range(5, 20), range(20, 5, -1)], ids=["forward", "backward"])
def test_a_track_goes_on_where_its_masks_end(frames: range) -> None:
    """What a pass has written without a gap is done; what lies behind a gap isn't."""
    resumed = track(frames)
    resumed.resume({frames[0]: 0.9, frames[1]: None, frames[3]: 0.9})
    assert resumed.reached == 2
    assert list(resumed.planned) == list(frames[2:])
    assert resumed.settled(frames[1])
    assert not resumed.settled(frames[2])


@pytest.mark.parametrize(
    ("within", "planned"),
    [(range(1000), [5, 6, 7, 8, 9]), (range(7), [5, 6]), (range(6, 9), []), (range(0), []), (range(5, 6), [5])],
)
def test_a_track_stops_where_frames_may_not_change(within: range, planned: list[int]) -> None:
    """Only frames inside the window that are reached without a gap are planned, in either direction."""
    assert list(track(range(5, 10), within).planned) == planned
    mirrored = range(14 - within.stop + 1, 14 - within.start + 1) if len(within) else within
    assert list(track(range(9, 4, -1), mirrored).planned) == [14 - t for t in planned]


def test_an_object_is_lost_after_so_many_empty_frames() -> None:
    """`LOST_FRAMES` frames without a mask, in a row, end the search; one mask among them starts the count again."""
    lost = track(range(100))
    for _ in range(LOST_FRAMES - 1):
        lost.note(None)
    lost.note(0.0)
    for _ in range(LOST_FRAMES):
        assert not lost.lost
        lost.note(None)
    assert lost.lost
    assert lost.reached == 2 * LOST_FRAMES


def test_a_resumed_track_is_lost_where_the_first_run_lost_it() -> None:
    """Masks faded in behind the frame where an object was lost don't bring it back."""
    written = {t: 0.9 if t >= LOST_FRAMES else None for t in range(20)}
    resumed = track(range(50))
    resumed.resume(written)
    assert resumed.lost
    assert resumed.reached == LOST_FRAMES
    assert len(resumed.planned) == 50 - LOST_FRAMES


@pytest.mark.parametrize(("most", "reached"), [(0, 9), (1, 3), (2, 8), (3, 9)])
def test_doubted_masks_in_a_row_are_the_last_where_that_is_asked_for(most: int, reached: int) -> None:
    """So many masks below `DOUBTED` in a row end the search, at once and after a stop; by default none do."""
    qualities = [0.9, DOUBTED, 0.19, 0.9, 0.0, None, 0.1, 0.0, 0.0]
    unbroken, resumed = track(range(50)), track(range(50))
    unbroken.most_doubts = resumed.most_doubts = most
    for quality in qualities:
        if not unbroken.lost:
            unbroken.note(quality)
    resumed.resume(dict(enumerate(qualities)))
    assert unbroken.reached == resumed.reached == reached
    assert unbroken.lost == resumed.lost == (most > 0)


def test_the_two_tracks_of_a_span_know_each_other() -> None:
    """Tracks between two frames of one round are paired, all others aren't."""
    tracks = [Track(i, way, EVERYTHING) for i in (1, 2) for way in passes([5, 15], [30], range(40))]
    pair(tracks)
    for t in tracks:
        if t.way.bound is Bound.SAME_ROUND:
            assert t.other is not None
            assert t.other.other is t
            assert t.other.object_id == t.object_id
            assert set(t.other.way.frames) == set(t.way.frames)
        else:
            assert t.other is None
    assert sum(t.other is not None for t in tracks) == 4


@pytest.mark.parametrize("direction", [1, -1])
def test_frames_are_visited_once_and_in_order(direction: int) -> None:
    """Overlapping, touching and separate ranges of either step give each frame once, in the order of the sweep."""
    ranges = [range(3, 6), range(9, 4, -1), range(20, 22), range(22, 23), range(50, 50), range(40, 38, -1)]
    frames = Frames(ranges, direction)
    expected = sorted({t for r in ranges for t in r}, reverse=direction < 0)
    assert list(frames) == expected
    assert len(frames) == len(expected)
    assert [t for t in range(60) if t in frames] == sorted(expected)
    assert list(Frames([], direction)) == []


def test_regions_are_read_ahead_together_where_that_wastes_little() -> None:
    """Every region lies in one that is read ahead; near ones share it, far ones don't."""
    near, far = [Box(0, 0, 10, 10), Box(2, 8, 12, 18)], Box(500, 500, 520, 510)
    joined = join([near[1], far, near[0]])
    assert joined == [Box(0, 0, 12, 18), far]
    for box in joined:
        inside = [b for b in (*near, far) if b.intersect(box) == b]
        assert box.height * box.width <= AHEAD_WASTE * sum(b.height * b.width for b in inside)
