"""The timeline: what it tells apart, in colours and in words."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import plugin_mouse
import plugin_scene as scene
import pytest

from napari_ivos import FakePredictor
from napari_ivos.plugin.engine import Job
from napari_ivos.plugin.review import UNKNOWN, Review, alive
from napari_ivos.plugin.timeline import (
    ABSENT_COLOUR,
    BEST,
    GROUND,
    LINE,
    ROW,
    UNKNOWN_COLOUR,
    WORST,
    Timeline,
    picture,
)
from napari_ivos.project import ObjectInfo

pytestmark = plugin_mouse.WARNINGS
COLUMN = 3
"""Pixels to a frame."""


class Unsure(FakePredictor):
    """Finds masks of which it is not sure at all: their quality is 0."""

    checksum = "unsure"

    def propagate(self, requests):
        half = np.full((self.size, self.size), 0.51, np.float32)
        half[:, self.size // 2 :] = 0.49
        return [half for _ in requests]


class Blind(FakePredictor):
    """Finds nothing."""

    checksum = "blind"

    def propagate(self, requests):
        return [np.zeros((self.size, self.size), np.float32) for _ in requests]


@pytest.fixture
def desk(desks):
    """Frame 2 drawn, 3 a sure mask, 4 one of quality 0, 5 without a mask, 6 annotated as empty; 0, 1 not reached."""
    desk = desks()
    scene.drawn_at(desk, 2)
    for model, frame in ((FakePredictor(), 3), (Unsure(), 4), (Blind(), 5)):
        desk.use_model(model)
        desk.propagate("forward", frame, frame + 1)
        desk.wait()
    desk.session.annotate(6, np.zeros((scene.HEIGHT, scene.WIDTH), np.uint16), objects=[1])
    desk.session.end_object(1, 7)
    return desk


WORDS = {
    0: "not reached yet",
    2: "yours: drawn or painted",
    4: "mask of quality 0.00",
    5: "no mask, looked for (sure: 0.50)",
    6: "yours: it is not there",
    7: "it has ended",
}


def words_of(review: Review) -> dict[int, str]:
    """What is to be read on each frame; on the third, how sure the model was: neither the best nor the worst."""
    sure = float(review.quality[1][3])
    assert 0.4 < sure < 0.7
    return {**WORDS, 3: f"mask of quality {sure:.2f}"}


@pytest.mark.parametrize("opened", [False, True], ids=["as it came", "read again"])
def test_quality_0_no_mask_not_reached_and_annotated_are_told_apart(desk, opened):
    """Seven things that can be true of an object on a frame have seven looks and seven words, also after opening."""
    review = Review.of(desk.session) if opened else desk.review
    review.mark(desk.session)
    if not opened:  # what was annotated past the desk
        review.note(6, {1: 1.0}, desk.session.found(6))
    (info,) = review.objects
    assert float(review.quality[1][4]) == 0
    for frame, words in words_of(review).items():
        assert review.words(info, frame).startswith(words)
    drawn = picture(review, COLUMN * scene.FRAMES)
    looks = {frame: drawn[:ROW, COLUMN * frame + 1].tobytes() for frame in words_of(review)}
    for one, two in itertools.combinations(looks, 2):
        assert looks[one] != looks[two], (one, two)
    assert drawn[5, COLUMN * 4].tolist() == list(WORST)
    assert drawn[5, COLUMN * 3].tolist() not in (list(WORST), list(BEST))
    assert drawn[2, COLUMN * 7].tolist() == list(GROUND)


def test_what_was_over_before_is_told_from_what_is_not_reached(desks):
    """Behind an object's last, doubted masks nothing is left to do, which shows; until it is drawn on again."""
    desk = desks(model=Unsure())
    scene.drawn_at(desk, 2)
    (info,) = desk.review.objects
    assert desk.review.words(info, 7) == "not reached yet"
    desk.propagate()
    desk.wait()
    assert desk.review.quality[1][7] == UNKNOWN
    for review in (desk.review, Review.of(desk.session)):
        assert review.words(info, 7) == "no mask: it was over before"
        assert picture(review, COLUMN * scene.FRAMES)[5, COLUMN * 7 + 1].tolist() == list(ABSENT_COLOUR)
    scene.drawn_at(desk, 6)
    assert desk.review.words(info, 7) == "not reached yet"
    assert picture(desk.review, COLUMN * scene.FRAMES)[5, COLUMN * 7 + 1].tolist() == list(UNKNOWN_COLOUR)


def test_the_tooltip_says_what_is_under_the_mouse(desk, qtbot):
    """In the window each place of the strip says object, frame, and what is known of it."""
    timeline = Timeline()
    qtbot.addWidget(timeline)
    timeline.resize(200, timeline.sizeHint().height())
    timeline.show_review(Review.of(desk.session))
    for frame, words in words_of(Review.of(desk.session)).items():
        assert timeline.words_at(timeline._x_of(frame), 5).startswith(f"object 1, frame {frame}: {words}")
    assert timeline.words_at(timeline._x_of(3), 5 * ROW) == "frame 3"


def test_a_stroke_taken_back_leaves_nothing_known(desks):
    """Where the only stroke of a frame is removed, that frame is as if no round had come."""
    desk = desks()
    scene.drawn_at(desk, 2)
    assert desk.review.quality[1][2] > 0
    (stroke,) = desk.session.strokes()
    result = desk.session.remove_stroke(stroke.id)
    assert result.found == {}
    desk.review.note(result.frame, result.quality, result.found)
    assert desk.review.quality[1][2] < 0
    assert np.isnan(desk.review.at(2)[1])


def test_many_frames_share_a_column():
    """A column shows the worst mask of its frames, an absence only where none has one, and life where one is alive."""
    frames = 900
    info = ObjectInfo(1, "1", "#ff0000", range(100, 899))
    quality, absent = np.full(frames, 0.99, np.float32), np.zeros(frames, bool)
    quality[304] = 0.0
    absent[600:606] = True
    drawn = picture(Review(frames, (info,), {1: quality}, absent={1: absent}), frames // 3)
    assert drawn[5, 304 // 3].tolist() == list(WORST)
    assert (drawn[2, 200:202] != drawn[2, 199]).any(axis=-1).all()
    assert drawn[LINE.start, 200].tolist() == list(BEST)
    shown = alive(info.lifetime, frames, frames // 3)
    assert np.flatnonzero(shown).tolist() == list(range(33, 300))


def test_stop_does_not_stop_the_timeline(desks, monkeypatch):
    """What is read again after an undo, in the background, comes although Stop is pressed while it waits."""
    desk = desks()
    scene.drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    gate, begun = threading.Event(), threading.Event()

    def held(job):
        begun.set()
        gate.wait(30)

    desk.exporter.submit(Job("export", held))
    assert begun.wait(30)
    desk.undo()
    desk.stop()
    gate.set()
    desk.wait()
    assert [float(v) >= 0 for v in desk.review.quality[1]] == [t == 2 for t in range(scene.FRAMES)]


def test_paint_after_a_stroke_is_shown_after_it(desks):
    """Where a mask has come, and the window has not taken it in yet, paint is newer than it."""
    desk = desks(model=(model := scene.Slow()))
    desk.go_to(2)
    scene.draw(desk, scene.line(2))
    assert model.begun.wait(30)
    desk.handle()
    model.gate.release(100)
    while desk.engine.busy:
        pass
    desk.binding.labels.paint((2, 50, 8), 1)
    desk._look()
    desk.wait()
    there = Review.of(desk.session)
    np.testing.assert_array_equal(desk.review.quality[1], there.quality[1])
    assert desk.review.annotated == there.annotated
