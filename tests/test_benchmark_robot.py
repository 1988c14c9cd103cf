"""The simulated user: its strokes lie where they should and say what is true."""

import numpy as np
import pytest

from napari_ivos.benchmark import robot
from napari_ivos.errors import InputError
from napari_ivos.scribbles import covered_pixels


def blobs(seed, shape=(120, 150), n=4):
    """Labels of a few wavy discs that may touch."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    labels = np.zeros(shape, np.uint16)
    for k in range(1, n + 1):
        y, x = rng.uniform(15, shape[0] - 15), rng.uniform(15, shape[1] - 15)
        angle = np.arctan2(rows - y, columns - x)
        radius = rng.uniform(10, 25) * (1 + 0.3 * np.sin(rng.integers(2, 5) * angle + rng.uniform(0, 6)))
        labels[np.hypot(rows - y, columns - x) < radius] = k
    return labels


@pytest.mark.parametrize("seed", range(8))
def test_corrections_lie_in_the_error_with_the_true_label(seed):
    """Every point of every correction is a pixel that has the stroke's label in truth and another in the prediction."""
    truth, prediction = blobs(seed), np.roll(blobs(seed), (6, 9), axis=(0, 1))
    strokes = robot.correct(truth, prediction, frame=7).strokes
    assert {s.object_id for s in strokes} >= {0, 1}
    for stroke in strokes:
        at = tuple(np.floor(stroke.points + 0.5).astype(int).T)
        assert (truth[at] == stroke.object_id).all()
        assert (prediction[at] != stroke.object_id).all()
        assert len(stroke.points) >= robot.FEWEST_NODES


def test_nothing_wrong_no_strokes():
    """A perfect prediction gets no stroke."""
    truth = blobs(0)
    assert robot.correct(truth, truth.copy()).strokes == ()


def test_specks_get_no_stroke():
    """Errors of single pixels are too small for a stroke."""
    truth = np.zeros((60, 60), np.uint16)
    prediction = truth.copy()
    prediction[10::12, 10::12] = 1
    assert robot.correct(truth, prediction).strokes == ()


def test_background_is_corrected():
    """A false alarm gets a background stroke, a miss a stroke of its object, on the frame that was named."""
    truth, prediction = np.zeros((2, 80, 80), np.uint16)
    truth[10:30, 10:60] = 3
    prediction[50:70, 10:60] = 3
    found = robot.correct(truth, prediction, frame=5)
    assert found.frame == 5
    assert [s.object_id for s in found.strokes] == [0, 3]
    assert found.strokes[0].points[:, 0].min() > 50
    assert found.strokes[1].points[:, 0].max() < 30


def test_pixels_of_unknown_truth_are_left_alone():
    """No stroke is drawn on ignored pixels, here where the truth lacks the label of an object that was predicted."""
    truth, prediction = np.zeros((2, 80, 80), np.uint16)
    prediction[50:70, 10:60] = 2
    prediction[10:30, 10:60] = 1
    unknown = robot.unknown_pixels(truth, prediction, np.array([True, False]))
    np.testing.assert_array_equal(unknown, prediction == 2)
    strokes = robot.correct(truth, prediction, ignore=unknown).strokes
    assert len(strokes) == 1
    assert strokes[0].points[:, 0].max() < 30


def test_stroke_of_a_bar_runs_along_its_middle():
    """The stroke of a long bar is a line on its middle row over most of its length."""
    mask = np.zeros((60, 200), bool)
    mask[20:41, 10:190] = True
    (line,) = robot.axis_lines(mask)
    middle = line[(line[:, 1] > 40) & (line[:, 1] < 160)]
    assert np.abs(middle[:, 0] - 30).max() <= 1
    assert np.ptp(line[:, 1]) > 140


def test_opening_is_that_with_a_disk():
    """Opening by distances equals morphological opening with a disk of the same radius."""
    from skimage.morphology import disk, opening

    mask = blobs(3) > 0
    radius = min(16, 0.2 * np.sqrt(mask.sum()) / 2)
    rows, columns = np.indices((41, 41)) - 20
    footprint = np.hypot(rows, columns) <= radius
    assert footprint.sum() >= disk(int(radius)).sum()
    expected = opening(np.pad(mask, 30), footprint)[30:-30, 30:-30]
    np.testing.assert_array_equal(robot.open_region(mask), expected)


def test_opening_shrinks_until_something_is_left():
    """A region too thin for its disk is opened with a smaller one, or left as it is, never lost."""
    thin = np.zeros((40, 400), bool)
    thin[20:22, 5:395] = True
    assert robot.open_region(thin).any()


def test_longest_path_of_a_comb():
    """On a skeleton with side branches and a loop, the path found is the longest between two ends."""
    axis = np.zeros((30, 60), bool)
    axis[15, 5:55] = True
    axis[10:15, 20] = True
    axis[16:22, 35] = True
    path = robot.longest_path(axis)
    assert sorted(map(tuple, path[[0, -1]])) == [(15, 5), (15, 54)]
    assert len(path) == 50
    assert np.abs(np.diff(path, axis=0)).max() == 1


@pytest.mark.parametrize("seed", range(5))
def test_first_scribbles_lie_on_every_object(seed):
    """First scribbles draw on each object of the frame, on its own pixels only."""
    truth = blobs(seed, n=5)
    truth[0, 0] = 9
    found = robot.first_scribbles(truth, 2, np.random.default_rng(seed))
    assert found.frame == 2
    assert list(found.object_ids) == [i for i in np.unique(truth) if i]
    for stroke in found.strokes:
        at = tuple(np.floor(stroke.points + 0.5).astype(int).T)
        assert (truth[at] == stroke.object_id).all()


def test_first_scribbles_differ_from_draw_to_draw():
    """One seed gives the same scribbles again, another seed others."""
    truth = blobs(1)
    a, b, c = (robot.first_scribbles(truth, 0, np.random.default_rng(s)) for s in (0, 0, 1))
    assert a == b
    assert a != c
    shared = set(map(tuple, covered_pixels(a.strokes, truth.shape))) & set(
        map(tuple, covered_pixels(c.strokes, truth.shape))
    )
    assert shared


def test_first_scribbles_of_chosen_objects():
    """Only the ids asked for are drawn on; a frame with none of them is refused."""
    truth = blobs(1)
    assert robot.first_scribbles(truth, 0, np.random.default_rng(0), ids=[2]).object_ids == (2,)
    with pytest.raises(InputError, match="frame 4"):
        robot.first_scribbles(truth, 4, np.random.default_rng(0), ids=[50])
