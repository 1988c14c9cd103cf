"""The protocol of a predictor, and the fake that obeys it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_ivos.predictor import FakePredictor, Interaction, Predictor, Propagation, shrink

SIZE = 16
RED, BLUE = (0.9, 0.1, 0.1), (0.1, 0.1, 0.8)


def picture(rows: slice, columns: slice, shape: tuple[int, int] = (32, 48)) -> np.ndarray:
    image = np.zeros((*shape, 3), np.float32) + np.float32(BLUE)
    image[rows, columns] = RED
    return image


def plane(*points: tuple[int, int]) -> np.ndarray:
    drawn = np.zeros((SIZE, SIZE), np.float32)
    for point in points:
        drawn[point] = 1
    return drawn


@pytest.fixture
def fake() -> FakePredictor:
    return FakePredictor(SIZE)


def test_fake_is_a_predictor(fake):
    """The fake has all that the protocol asks for."""
    assert isinstance(fake, Predictor)
    assert (fake.size, fake.device) == (SIZE, "cpu")


def test_fake_finds_the_colour_under_the_stroke(fake):
    """A stroke on a red rectangle in a blue picture gives exactly the rectangle, at the network's size."""
    image = picture(slice(8, 24), slice(12, 36))
    [found] = fake.segment([Interaction(image, None, plane((8, 8)), plane())])
    assert found.probability.shape == (SIZE, SIZE)
    assert found.probability.dtype == np.float32
    assert found.reference.dtype == np.float16
    assert np.array_equal(found.probability >= 0.5, shrink(image, SIZE)[..., 0] > 0.5)


def test_fake_follows_the_colour_of_its_reference(fake):
    """What was learned on one frame finds the moved object on another, without strokes."""
    [found] = fake.segment([Interaction(picture(slice(8, 24), slice(12, 36)), None, plane((8, 8)), plane())])
    moved = picture(slice(0, 10), slice(0, 20))
    [p] = fake.propagate([Propagation(moved, plane(), None, [found.reference])])
    assert np.array_equal(p >= 0.5, shrink(moved, SIZE)[..., 0] > 0.5)


def test_fake_takes_a_mask_for_a_stroke(fake):
    """Without a stroke, the mask so far says where the object is."""
    image = picture(slice(8, 24), slice(12, 36))
    [from_stroke] = fake.segment([Interaction(image, None, plane((8, 8)), plane())])
    [from_mask] = fake.segment([Interaction(image, from_stroke.probability, plane(), plane())])
    assert np.array_equal(from_stroke.probability >= 0.5, from_mask.probability >= 0.5)


def test_fake_finds_nothing_where_nothing_is_said(fake):
    """No stroke and no mask gives probability 0 everywhere."""
    [found] = fake.segment([Interaction(picture(slice(8, 24), slice(12, 36)), None, plane(), plane((1, 1)))])
    assert not found.probability.any()


def test_results_do_not_depend_on_the_batch(fake):
    """A batch gives what each request gives alone, in order, and is counted as one call."""
    requests = [
        Interaction(picture(slice(8, 24), slice(a, a + 20)), None, plane((8, a // 3 + 2)), plane((0, 0)))
        for a in (3, 12, 24)
    ]
    together = fake.segment(requests)
    assert fake.calls == [("segment", 3)]
    for one, request in zip(together, requests, strict=True):
        [alone] = fake.segment([request])
        assert np.array_equal(one.probability, alone.probability)
        assert np.array_equal(one.reference, alone.reference)


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (200, 7)])
def test_shrink_takes_pixels_of_the_image(shape):
    """Shrinking (or enlarging) to a square takes whole pixels and mixes none."""
    image = np.random.default_rng(1).random((*shape, 3)).astype(np.float32)
    small = shrink(image, 5)
    assert small.shape == (5, 5, 3)
    known = {tuple(p) for p in image.reshape(-1, 3)}
    assert all(tuple(p) in known for p in small.reshape(-1, 3))
