"""Crowds and long stacks: the short ways give what the long ways give, and what is held at once is bounded."""

from __future__ import annotations

import random

import numpy as np
import pytest

from napari_ivos import FakePredictor, Session, steps
from napari_ivos.frames import open_frames
from napari_ivos.merging import Origin as From
from napari_ivos.merging import Patch, aggregate, merged, passes, sample
from napari_ivos.regions import Box
from napari_ivos.scribbles import Scribbles, Stroke, rasterise
from napari_ivos.session.plan import Schedule, Track

SIDE, PITCH = 20, 60
GAP = PITCH - SIDE
"""Ground between squares: wider than they are, so that the border of any region, however grown, is mostly ground.

Else the usual colour of the border is that of neighbours, and the fake, which has nothing but colours, guesses.
"""


@pytest.fixture(scope="module")
def crowd() -> tuple[np.ndarray, np.ndarray]:
    """Video (T, H, W, 3) uint8 and labels (H, W) of 324 squares that stand still, each unlike those beside it."""
    labels = np.zeros((18 * PITCH, 18 * PITCH), np.uint16)
    picture = np.full((*labels.shape, 3), 20, np.uint8)
    for k in range(324):
        y, x = PITCH * (k // 18) + GAP // 2, PITCH * (k % 18) + GAP // 2
        labels[y : y + SIDE, x : x + SIDE] = k + 1
        picture[y : y + SIDE, x : x + SIDE] = np.array([90, 170, 250])[[k % 3, k // 3 % 3, k // 18 % 3]]
    return np.repeat(picture[None], 3, axis=0), labels


def test_more_than_255_objects_go_in_batches_of_bounded_size(crowd) -> None:
    """324 objects are propagated to their own places; no call to the networks holds more than its share of them."""
    video, labels = crowd
    model = FakePredictor()
    with Session(open_frames(video, axes="TYXC"), model) as session:
        session.annotate(0, labels)
        list(session.propagate())
        for frame in (1, 2):
            found = session.labels[frame]
            assert len(np.unique(found)) == 325
            common = np.bincount(labels[found == labels], minlength=325)
            either = np.bincount(labels.flat, minlength=325) + np.bincount(found.flat, minlength=325) - common
            assert (common / either).min() > 0.8
    assert max(count for _, count in model.calls) == steps.AT_ONCE


def test_locked_objects_of_a_crowd_stay_as_they_were(crowd) -> None:
    """Objects locked one by one keep every pixel when all others are painted over them."""
    video, labels = crowd
    with Session(open_frames(video, axes="TYXC"), FakePredictor()) as session:
        session.annotate(0, labels)
        locked = range(1, 40, 3)
        for object_id in locked:
            session.lock(object_id)
        moved = np.roll(labels, SIDE // 2, axis=1)
        moved[np.isin(moved, list(locked))] = 0
        session.annotate(0, moved)
        expected = np.where(np.isin(labels, list(locked)), labels, moved)
        np.testing.assert_array_equal(session.labels[0], expected)


@pytest.mark.parametrize("seed", range(4))
def test_strokes_far_away_are_not_looked_at(seed: int) -> None:
    """The strokes chosen for a region draw the same plane as all strokes do."""
    rng = np.random.default_rng(seed)
    strokes = [Stroke(int(rng.integers(0, 9)), rng.uniform(-20, 320, (3, 2))) for _ in range(60)]
    drawing = steps._Drawing(strokes)
    for _ in range(20):
        y, x = rng.integers(0, 240, 2).tolist()
        region, shape = Box(y, x, y + int(rng.integers(8, 60)), x + int(rng.integers(8, 60))), (32, 32)
        others = [s for s in strokes if s.object_id != 3 or s.object_id == 0]
        near = drawing.against(3, region, shape)
        np.testing.assert_array_equal(rasterise(near, region, shape), rasterise(others, region, shape))


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("seed", range(4))
def test_a_schedule_names_the_tracks_that_plan_a_frame(seed: int, direction: int) -> None:
    """Asked frame by frame, it gives what asking every track gives, also while tracks come to their ends."""
    chance = random.Random(seed)
    tracks = []
    for object_id in range(30):
        ways = passes(chance.sample(range(200), 3), chance.sample(range(200), 4), range(200))
        within = range(chance.randrange(50), chance.randrange(120, 200))
        tracks += [Track(object_id, way, within) for way in ways]
    schedule = Schedule(tracks, direction)
    for frame in range(200)[::direction]:
        here = [t for t in tracks if t.direction == direction and frame in t.planned]
        assert schedule.at(frame) == here
        for track in here:
            track.note(chance.random() < 0.9)


@pytest.mark.parametrize("seed", range(6))
def test_merging_where_masks_meet_is_merging_everywhere(seed: int) -> None:
    """A mask merged in its contested part equals one merged over the whole region, to a ten-thousandth."""
    rng = np.random.default_rng(seed)
    patches = {}
    for i in range(1, 8):
        y, x = rng.integers(0, 60, 2).tolist()
        h, w = rng.integers(10, 60, 2).tolist()
        cells = np.zeros((16, 16), np.uint8)
        cells[3:13, 4:12] = rng.integers(0, 256, (10, 8))
        patches[i] = Patch(Box(y, x, y + h, x + w), cells, From.PROPAGATED)
    box, shape = Box(5, 5, 95, 105), (40, 48)
    for i in patches:
        every = np.stack(
            [sample(patches[i], box, shape), *(sample(p, box, shape) for j, p in patches.items() if j != i)]
        )
        alone = every[1:].max(axis=0) <= 1e-4
        whole = np.where(alone, every[0], aggregate(every)[1])
        np.testing.assert_allclose(merged(patches, i, box, shape), whole, atol=2e-4)


def test_a_crowd_of_scribbles_becomes_a_crowd_of_masks(crowd) -> None:
    """Strokes of a hundred objects on one frame make a hundred masks in their places, at once."""
    video, labels = crowd
    strokes = []
    for object_id in range(1, 101):
        rows, columns = np.nonzero(labels == object_id)
        row = int(rows.mean())
        strokes.append(Stroke(object_id, [(row, columns.min() + 4), (row, columns.max() - 4)]))
    with Session(open_frames(video, axes="TYXC"), FakePredictor()) as session:
        result = session.interact(Scribbles(0, strokes))
        assert len(result.objects) == 100
        found = session.labels[0]
        assert all((found[labels == k] == k).mean() > 0.8 for k in range(1, 101))
