"""One frame's work: which regions the networks see, what they are told, and what is made of their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_ivos import regions
from napari_ivos.merging import Origin, Patch, compose, merged
from napari_ivos.predictor import FakePredictor, Interaction, Propagation, Segmentation
from napari_ivos.regions import Box
from napari_ivos.scribbles import Stroke, rasterise
from napari_ivos.steps import CLOSE_LOOKS, GROWTHS, learn, propagate, propagation_region, segment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHAPE = (120, 160)
WHOLE = Box(0, 0, *SHAPE)
RED, GREEN, GREY = (0.9, 0.1, 0.1), (0.1, 0.8, 0.1), (0.3, 0.3, 0.3)


class Frame:
    """A frame with coloured boxes, which notes the regions that were read of it."""

    def __init__(self, *coloured: tuple[Box, tuple[float, float, float]]) -> None:
        self.image = np.zeros((*SHAPE, 3), np.float32) + np.float32(GREY)
        for box, colour in coloured:
            self.image[box.slices] = colour
        self.read: list[Box] = []

    def __call__(self, box: Box) -> np.ndarray:
        assert box.clip(SHAPE) == box
        assert not box.empty
        self.read.append(box)
        return self.image[box.slices]


class Scripted:
    """A predictor that answers with what it is told to and keeps the requests."""

    name, checksum, device, size = "scripted", "scripted-1", "cpu", 32

    def __init__(self, answer: Callable[[Interaction | Propagation], np.ndarray]) -> None:
        self.answer = answer
        self.batches: list[list[Interaction | Propagation]] = []

    def segment(self, requests: Sequence[Interaction]) -> list[Segmentation]:
        self.batches.append(list(requests))
        return [Segmentation(self.answer(r), np.full(3, len(self.batches), np.float16)) for r in requests]

    def propagate(self, requests: Sequence[Propagation]) -> list[np.ndarray]:
        self.batches.append(list(requests))
        return [self.answer(r) for r in requests]


def middle(request: object) -> np.ndarray:
    """A mask in the middle third of the region."""
    p = np.zeros((32, 32), np.float32)
    p[11:21, 11:21] = 1
    return p


def everywhere(request: object) -> np.ndarray:
    return np.ones((32, 32), np.float32)


def nowhere(request: object) -> np.ndarray:
    return np.zeros((32, 32), np.float32)


def mask_of(box: Box) -> Patch:
    return Patch.from_mask(np.ones(box.shape, bool), (box.y0, box.x0))


# ---------------------------------------------------------------------------------------------------- segment


def test_strokes_become_the_objects_they_lie_on():
    """Two objects on one frame, each with a stroke, are found pixel by pixel up to a cell of their region."""
    red, green = Box(30, 30, 60, 70), Box(60, 90, 100, 130)
    strokes = [Stroke(1, [(40, 40), (50, 60)]), Stroke(7, [(70, 100), (90, 120)])]
    frame = Frame((red, RED), (green, GREEN))
    found = segment(frame, SHAPE, FakePredictor(64), strokes, {}, [1, 7])
    labels = compose({i: f.patch for i, f in found.items()}, WHOLE)
    truth = np.zeros(SHAPE, int)
    truth[red.slices], truth[green.slices] = 1, 7
    for i in (1, 7):
        both = ((labels == i) & (truth == i)).sum() / ((labels == i) | (truth == i)).sum()
        assert both > 0.85
        assert found[i].patch.origin is Origin.SCRIBBLED


def test_fresh_scribbles_are_looked_at_wide_then_close():
    """The first region is that of the strokes at the wide margin; the later ones close in on the mask it gave."""
    stroke = Stroke(1, [(60, 70), (60, 80)])
    frame, predictor = Frame(), Scripted(middle)
    found = segment(frame, SHAPE, predictor, [stroke], {}, [1])
    wide = regions.region_around(Box(60, 70, 61, 81), regions.WIDE, SHAPE)
    assert frame.read[0] == wide
    assert len(frame.read) == 1 + CLOSE_LOOKS
    assert all(box.union(wide) == wide for box in frame.read)
    assert frame.read[1].height < wide.height
    assert found[1].patch.box == frame.read[-1]
    assert predictor.batches[0][0].previous is None
    for batch in predictor.batches[1:]:
        assert batch[0].previous is not None
        assert batch[0].previous.max() > 0.9


def test_the_reference_is_that_of_the_last_look():
    """What propagation gets to know is what the network learned when it saw the region that counts."""
    predictor = Scripted(middle)
    found = segment(Frame(), SHAPE, predictor, [Stroke(1, [(60, 70)])], {}, [1])
    assert (found[1].reference == len(predictor.batches)).all()


def test_a_known_mask_is_looked_at_once():
    """An object that has a mask already gets one close look around mask and strokes, and is told its mask."""
    known, stroke = mask_of(Box(40, 40, 60, 60)), Stroke(1, [(70, 70)])
    frame, predictor = Frame(), Scripted(middle)
    segment(frame, SHAPE, predictor, [stroke], {1: known}, [1])
    assert frame.read == [regions.region_around(Box(40, 40, 71, 71), regions.CLOSE, SHAPE)]
    [[request]] = predictor.batches
    assert request.previous is not None
    region = frame.read[0]
    assert request.previous.mean() * region.height * region.width == pytest.approx(400, rel=0.02)


def test_every_stroke_of_another_object_is_a_negative():
    """An object's own strokes are its positives; others' and the background's are its negatives, in its region."""
    strokes = [Stroke(1, [(60, 70)]), Stroke(2, [(62, 76)]), Stroke(0, [(55, 66)])]
    frame, predictor = Frame(), Scripted(middle)
    segment(frame, SHAPE, predictor, strokes, {}, [1, 2])
    for k, own in enumerate((1, 2)):
        request, region = predictor.batches[0][k], frame.read[k]
        mine = [s for s in strokes if s.object_id == own]
        others = [s for s in strokes if s.object_id != own]
        assert np.array_equal(request.positive, rasterise(mine, region, (32, 32)))
        assert np.array_equal(request.negative, rasterise(others, region, (32, 32)))
        assert request.positive.any()
        assert request.negative.any()


def test_a_mask_that_touches_its_region_makes_it_grow():
    """A mask up to the border doubles the region and runs again, at most a stated number of times a look."""
    frame, predictor = Frame(), Scripted(everywhere)
    segment(frame, SHAPE, predictor, [], {1: mask_of(Box(58, 78, 62, 82))}, [1])
    assert len(frame.read) == 1 + GROWTHS
    for before, after in zip(frame.read, frame.read[1:], strict=False):
        assert after == regions.grow(before, SHAPE)
    [request] = predictor.batches[-1]
    assert request.previous is not None
    assert 0 < request.previous.mean() < 0.05  # the known mask, not the one that touched


def test_a_region_as_large_as_the_image_does_not_grow():
    """Where the region is the whole image, a mask that fills it is the answer."""
    frame = Frame()
    found = segment(frame, SHAPE, Scripted(everywhere), [], {1: mask_of(WHOLE)}, [1])
    assert frame.read == [WHOLE]
    assert (compose({1: found[1].patch}, WHOLE) == 1).all()


def test_objects_of_a_frame_are_one_batch():
    """All objects go through the network together, look by look; those that are done stay out."""
    strokes = [Stroke(1, [(30, 30)]), Stroke(2, [(80, 120)])]
    predictor = Scripted(middle)
    segment(Frame(), SHAPE, predictor, strokes, {3: mask_of(Box(90, 20, 100, 30))}, [1, 2, 3])
    assert [len(batch) for batch in predictor.batches] == [3] + [2] * CLOSE_LOOKS


def test_an_object_without_stroke_or_mask_is_left_out():
    """Nothing to look at: no answer, no read, no network."""
    frame, predictor = Frame(), Scripted(middle)
    empty = Patch(Box(3, 3, 9, 9), np.zeros((6, 6), np.uint8))
    outside = Stroke(4, [(500, 500)])
    assert segment(frame, SHAPE, predictor, [outside], {3: empty}, [2, 3, 4]) == {}
    assert frame.read == []
    assert predictor.batches == []


def test_a_network_that_finds_nothing_gives_an_empty_mask():
    """Looking again at the strokes where the wide look gave nothing ends with an empty patch, not with an error."""
    frame = Frame()
    found = segment(frame, SHAPE, Scripted(nowhere), [Stroke(1, [(60, 70), (64, 90)])], {}, [1])
    assert found[1].patch.empty
    assert len(frame.read) == 1 + CLOSE_LOOKS
    assert frame.read[1].width < frame.read[0].width


# ---------------------------------------------------------------------------------------------------- learn


def test_painted_masks_teach_and_stay():
    """A painted mask gives a reference from one look around it; an empty one teaches nothing."""
    painted = {4: mask_of(Box(20, 20, 40, 50)), 6: Patch.from_mask(np.zeros((5, 5), bool))}
    frame, predictor = Frame(), Scripted(nowhere)
    references = learn(frame, SHAPE, predictor, painted)
    assert set(references) == {4}
    assert frame.read == [regions.region_around(Box(20, 20, 40, 50), regions.CLOSE, SHAPE)]
    [[request]] = predictor.batches
    assert request.previous is not None
    assert request.previous.max() == 1
    assert not request.positive.any()
    assert learn(frame, SHAPE, predictor, {6: painted[6]}) == {}
    assert len(predictor.batches) == 1


# ---------------------------------------------------------------------------------------------------- propagate


def references(*ids: int) -> dict[int, list[np.ndarray]]:
    return {i: [np.zeros(3, np.float16)] for i in ids}


def test_objects_are_followed_to_where_they_moved():
    """Coloured objects that moved a few pixels are found at their new place, all in one batch."""
    fake = FakePredictor(64)
    before = {1: Box(30, 30, 60, 70), 7: Box(60, 90, 100, 130)}
    strokes = [Stroke(1, [(40, 40), (50, 60)]), Stroke(7, [(70, 100), (90, 120)])]
    found = segment(Frame((before[1], RED), (before[7], GREEN)), SHAPE, fake, strokes, {}, [1, 7])
    after = {1: before[1].shift(4, 6), 7: before[7].shift(-5, 3)}
    fake.calls.clear()
    moved = propagate(
        Frame((after[1], RED), (after[7], GREEN)),
        SHAPE,
        fake,
        {i: f.patch for i, f in found.items()},
        {},
        {i: [f.reference] for i, f in found.items()},
    )
    assert fake.calls[0] == ("propagate", 2)
    labels = compose(moved, WHOLE)
    for i, box in after.items():
        inside = labels[box.slices] == i
        assert inside.mean() > 0.9
        assert moved[i].origin is Origin.PROPAGATED


def test_the_region_is_around_neighbour_and_earlier_mask():
    """The region holds the mask on the neighbouring frame and this frame's mask of the previous round."""
    neighbour, earlier = mask_of(Box(40, 40, 60, 60)), mask_of(Box(50, 50, 70, 66))
    assert propagation_region({1: neighbour}, None, 1, SHAPE) == regions.region_around(
        Box(40, 40, 60, 60), regions.FOLLOW, SHAPE
    )
    assert propagation_region({1: neighbour}, earlier, 1, SHAPE) == regions.region_around(
        Box(40, 40, 70, 66), regions.FOLLOW, SHAPE
    )


def test_a_far_earlier_mask_does_not_widen_the_region():
    """An earlier mask so far away that the object would be lost in the region is left out of it."""
    neighbour, far = mask_of(Box(10, 10, 20, 20)), mask_of(Box(100, 140, 110, 150))
    assert propagation_region({1: neighbour}, far, 1, SHAPE) == propagation_region({1: neighbour}, None, 1, SHAPE)


def test_a_lost_object_is_looked_for_where_it_was():
    """An empty neighbour is looked for in its last box, or where an earlier round had it on this frame."""
    lost = Patch(Box(30, 30, 70, 80), np.zeros((16, 16), np.uint8))
    assert propagation_region({1: lost}, None, 1, SHAPE) == lost.box
    earlier = mask_of(Box(90, 90, 100, 100))
    assert propagation_region({1: lost}, earlier, 1, SHAPE) == regions.region_around(
        Box(90, 90, 100, 100), regions.FOLLOW, SHAPE
    )


def test_a_region_narrows_slowly_so_that_the_other_side_stays_in_sight():
    """A mask that shrinks at once to a sliver at a post is still looked for in nearly all of the last box."""
    last = Box(20, 20, 100, 120)
    sliver = np.zeros((80, 100), np.uint8)
    sliver[30:60, 40:44] = 255
    region = propagation_region({1: Patch(last, sliver, Origin.PROPAGATED)}, None, 1, SHAPE)
    plain = propagation_region({1: Patch(last, sliver, Origin.SCRIBBLED)}, None, 1, SHAPE)
    assert plain == regions.region_around(Box(50, 60, 80, 64), regions.FOLLOW, SHAPE)
    assert region.width >= 0.9 * last.width
    assert region.union(plain) == region
    assert region.clip(SHAPE) == region


def test_a_region_is_never_many_times_wider_than_the_object_asks_for():
    """A speck in a box as large as the frame is looked at four times as widely as usual, not in the whole frame."""
    speck = np.zeros(SHAPE, np.uint8)
    speck[60:64, 80:84] = 255
    region = propagation_region({1: Patch(WHOLE, speck, Origin.PROPAGATED)}, None, 1, SHAPE)
    plain = regions.region_around(Box(60, 80, 64, 84), regions.FOLLOW, SHAPE)
    assert plain.height < region.height <= 4 * plain.height + 2
    assert plain.width < region.width <= 4 * plain.width + 2


def test_the_region_follows_the_merged_mask():
    """What a rival holds on the neighbouring frame doesn't count: the region is that of what is left."""
    own, rival = mask_of(Box(40, 40, 60, 80)).with_origin(Origin.PROPAGATED), mask_of(Box(40, 70, 60, 80))
    assert propagation_region({1: own, 2: rival}, None, 1, SHAPE) == regions.region_around(
        Box(40, 40, 60, 70), regions.FOLLOW, SHAPE
    )


def test_the_network_is_told_the_merged_neighbour_and_the_stored_previous():
    """The neighbour's plane is merged with its rivals, those that are not carried too; the previous one is its own."""
    own, rival = mask_of(Box(40, 40, 60, 60)).with_origin(Origin.PROPAGATED), mask_of(Box(40, 55, 60, 75))
    earlier = mask_of(Box(42, 42, 62, 62))
    frame, predictor = Frame(), Scripted(middle)
    propagate(frame, SHAPE, predictor, {1: own, 2: rival}, {1: earlier}, references(1))
    [[request]] = predictor.batches
    [region] = frame.read
    assert np.array_equal(request.image, frame.image[region.slices])
    assert np.array_equal(request.neighbour, merged({1: own, 2: rival}, 1, region, (32, 32)))
    assert request.neighbour.sum() < merged({1: own}, 1, region, (32, 32)).sum()
    assert request.previous is not None
    cell = region.height * region.width / 32**2
    assert request.previous.sum() * cell == pytest.approx(400, rel=0.1)


def test_only_what_touches_runs_again():
    """Growing runs the network again for the objects that touched their region, at most a stated number of times."""

    def answer(request: Interaction | Propagation) -> np.ndarray:
        return everywhere(request) if request.image[0, 0, 0] < 0.2 else middle(request)

    frame = Frame((Box(0, 0, 120, 60), GREEN))
    neighbours = {1: mask_of(Box(58, 20, 62, 24)), 2: mask_of(Box(50, 120, 56, 126))}
    predictor = Scripted(answer)
    found = propagate(frame, SHAPE, predictor, neighbours, {}, references(1, 2))
    assert [len(batch) for batch in predictor.batches] == [2] + [1] * GROWTHS
    assert frame.read[2] == regions.grow(frame.read[0], SHAPE)
    assert found[2].box == frame.read[1]
    assert found[1].box == frame.read[-1]


def test_nothing_to_carry_runs_no_network():
    """Without objects to carry there is no read and no call."""
    frame, predictor = Frame(), Scripted(middle)
    assert propagate(frame, SHAPE, predictor, {1: mask_of(Box(3, 3, 9, 9))}, {}, {}) == {}
    assert frame.read == []
    assert predictor.batches == []


def test_an_object_does_not_depend_on_the_batch():
    """Objects that don't meet give the same patches carried together and one by one."""
    fake = FakePredictor(48)
    boxes = {1: Box(10, 10, 30, 30), 2: Box(80, 100, 110, 140)}
    frame = Frame((boxes[1], RED), (boxes[2], GREEN))
    neighbours = {i: mask_of(b) for i, b in boxes.items()}
    known = {i: [r] for i, r in learn(frame, SHAPE, fake, neighbours).items()}
    together = propagate(frame, SHAPE, fake, neighbours, {}, known)
    for i in boxes:
        alone = propagate(frame, SHAPE, fake, neighbours, {}, {i: known[i]})[i]
        assert alone.box == together[i].box
        assert np.array_equal(alone.probability, together[i].probability)
