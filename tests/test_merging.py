"""Patches: sampling, soft aggregation, composing labels, blending, and which frames a round may change."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ivos.merging import (
    CLAMP,
    Bound,
    Origin,
    Patch,
    aggregate,
    blend,
    certainty,
    compose,
    extent_of,
    merged,
    overlap,
    passes,
    sample,
    that_meet,
)
from napari_ivos.regions import Box

FRAME = (24, 30)


def flat(box: Box, value: int, origin: Origin = Origin.PROPAGATED, shape: tuple[int, int] | None = None) -> Patch:
    return Patch(box, np.full(shape or box.shape, value, np.uint8), origin)


@st.composite
def patches(draw, frame: tuple[int, int] = FRAME) -> Patch:
    y0, x0 = draw(st.integers(0, frame[0] - 1)), draw(st.integers(0, frame[1] - 1))
    box = Box(y0, x0, draw(st.integers(y0 + 1, frame[0])), draw(st.integers(x0 + 1, frame[1])))
    shape = (draw(st.integers(1, box.height)), draw(st.integers(1, box.width)))
    if draw(st.booleans()):
        shape = box.shape
    seed = draw(st.integers(0, 2**16))
    values = np.random.default_rng(seed).choice([0, 0, 3, 100, 127, 128, 180, 255, 255], shape)
    return Patch(box, values.astype(np.uint8), draw(st.sampled_from(Origin)))


# ---------------------------------------------------------------------------------------------------- sampling


@given(patches())
def test_sampling_on_the_own_grid_changes_nothing(patch):
    """A patch sampled over its own box at its own shape is itself, to the last bit, resampled or not."""
    (h, w) = shape = patch.probability.shape
    for same in (sample(patch, patch.box, shape), sample(patch, patch.box, shape, ((0, h), (0, w)))):
        assert np.array_equal(same, patch.probability / np.float32(255))
        assert same.dtype == np.float32


@given(patches(), patches(), st.integers(1, 40), st.integers(1, 40))
def test_sampling_never_leaves_the_range(patch, window, h, w):
    """Whatever the box and shape, samples stay between the patch's extremes and 0 (no overshoot)."""
    values = sample(patch, window.box, (h, w))
    assert values.shape == (h, w)
    assert values.min() >= 0
    assert values.max() <= patch.probability.max() / 255 + 1e-6


@given(patches(), st.integers(1, 200), st.integers(1, 200))
def test_a_constant_stays_constant(patch, h, w):
    """A constant patch sampled inside its own box gives that constant at every scale, up to and at its borders."""
    assert np.allclose(sample(flat(patch.box, 200), patch.box, (h, w)), 200 / 255, atol=1e-6)


def test_nothing_is_eroded_at_the_image_border():
    """A mask that fills a coarse patch up to the image's border reaches that border in every sampling."""
    patch = flat(Box(0, 0, 20, 24), 255, shape=(5, 6))
    for shape in [(24, 30), (7, 9), (3, 4), (96, 120)]:
        values = sample(patch, Box(0, 0, *FRAME), shape)
        assert values[0, 0] == pytest.approx(1)
        inside = values[: int(20 / 24 * shape[0]), : int(24 / 30 * shape[1])]
        assert np.allclose(inside, 1, atol=1e-6)


@given(patches(), st.integers(1, 24), st.integers(1, 30))
def test_shrinking_keeps_the_area(patch, h, w):
    """Sampled over the whole frame at a coarser grid, a patch at the frame's own scale keeps its sum of probability."""
    exact = Patch(patch.box, np.resize(patch.probability, patch.box.shape), patch.origin)
    values = sample(exact, Box(0, 0, *FRAME), (h, w))
    cell = FRAME[0] / h * FRAME[1] / w
    assert values.sum(dtype=float) * cell == pytest.approx(exact.probability.sum() / 255, rel=1e-4, abs=1e-4)


def test_an_object_smaller_than_a_cell_does_not_vanish():
    """Two pixels in a cell of four give half of it, wherever they lie in the cell."""
    for x in range(4):
        values = sample(flat(Box(0, 4 + x, 4, 5 + x), 255), Box(0, 0, 4, 12), (1, 3))
        assert values[0].tolist() == pytest.approx([0, 0.25, 0])


def test_enlarging_keeps_painted_edges():
    """A painted rectangle sampled finer keeps a sharp edge at its own box, without a soft rim."""
    patch = Patch.from_mask(np.ones((3, 3), bool), (4, 4))
    values = sample(patch, Box(0, 0, 12, 12), (48, 48))
    expected = np.zeros((48, 48))
    expected[16:28, 16:28] = 1
    assert np.allclose(values, expected)


def test_enlarging_is_linear_between_centres():
    """Between two cells the samples lie on the straight line through their centres, level outside it."""
    patch = Patch(Box(0, 0, 1, 8), np.array([[0, 200]], np.uint8))
    values = sample(patch, patch.box, (1, 8))[0] * 255
    assert values.tolist() == pytest.approx([0, 0, 25, 75, 125, 175, 200, 200], abs=1e-3)


# ---------------------------------------------------------------------------------------------------- patches


@given(patches())
def test_the_extent_is_the_box_of_the_mask(patch):
    """The extent holds every pixel whose cell is at least 0.5, ends where cells do, and stays inside the box."""
    mask = patch.probability >= 127.5
    if not mask.any():
        assert patch.extent is None
        assert patch.empty
        return
    extent = patch.extent
    assert extent is not None
    assert not patch.empty
    assert extent.union(patch.box) == patch.box
    h, w = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert extent.y0 == patch.box.y0 + rows[0] * patch.box.height // h
    assert extent.x1 == patch.box.x0 - (-(int(columns[-1]) + 1) * patch.box.width // w)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_the_extent_of_all_is_the_box_itself(n, side):
    """No rounding makes a full mask's extent larger or smaller than its box, at any ratio of scales."""
    assert extent_of(np.ones((n, 1), bool), Box(3, 0, 3 + side, 1)) == Box(3, 0, 3 + side, 1)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**16))
def test_a_painted_mask_is_kept_exactly(h, w, seed):
    """A painted mask comes back pixel by pixel, at its place, from a patch no larger than needed."""
    mask = np.random.default_rng(seed).random((h, w)) < 0.2
    patch = Patch.from_mask(mask, (5, 7))
    expected = np.zeros(FRAME, bool)
    expected[5 : 5 + h, 7 : 7 + w] = mask
    assert np.array_equal(compose({3: patch}, Box(0, 0, *FRAME)), np.where(expected, 3, 0))
    assert patch.origin is Origin.PAINTED
    assert patch.empty == (not mask.any())
    if mask.any():
        assert patch.extent == patch.box


def test_a_patch_is_never_finer_than_the_frame():
    """A network's probability over a region smaller than its grid is kept at the frame's pixels, else as it is."""
    p = np.zeros((128, 128), np.float32)
    p[:, :64] = 1
    small = Patch.from_probability(Box(0, 0, 32, 200), p, Origin.SCRIBBLED)
    assert small.probability.shape == (32, 128)
    assert np.array_equal(small.probability, np.where(np.arange(128) < 64, 255, 0)[None].repeat(32, 0))
    assert small.origin is Origin.SCRIBBLED


@given(st.floats(-1, 2, width=32))
def test_quantising_is_to_the_nearest_step(p):
    """A probability is stored within half a step of 1/255, clipped to 0..1."""
    patch = Patch.from_probability(Box(0, 0, 2, 2), np.full((2, 2), p, np.float32), Origin.PROPAGATED)
    assert patch.probability / 255 == pytest.approx(min(max(p, 0), 1), abs=0.5 / 255 + 1e-6)


def test_with_origin_changes_only_the_origin():
    """The same patch under another origin shares box and values."""
    patch = flat(Box(1, 2, 3, 4), 9)
    other = patch.with_origin(Origin.SCRIBBLED)
    assert (other.box, other.origin, other.probability is patch.probability) == (patch.box, Origin.SCRIBBLED, True)


# ---------------------------------------------------------------------------------------------------- aggregation


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_merged_probabilities_sum_to_one(values):
    """Background and objects together have probability 1, each in 0..1, and the order of objects is kept."""
    got = aggregate(np.array(values)[:, None])
    assert got.shape == (len(values) + 1, 1)
    assert got.sum() == pytest.approx(1, abs=1e-5)
    assert got.min() >= 0
    for a, b in itertools.combinations(range(len(values)), 2):
        if values[a] > values[b]:
            assert got[a + 1, 0] >= got[b + 1, 0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5], [0.5, 0.5]),
        ([0.8], [1 / 17, 16 / 17]),  # odds 0.2/0.8 = 1/4 and 4
        ([0.8, 0.2], [16 / 373, 336 / 373, 21 / 373]),  # p0 = 0.16: odds 4/21, 4, 1/4; times 84: 16, 336, 21
        ([0.5, 0.5], [1 / 7, 3 / 7, 3 / 7]),  # p0 = 1/4: odds 1/3, 1, 1
    ],
    ids=["even", "one", "two", "tie"],
)
def test_soft_aggregation_by_hand(values, expected):
    """The merged probability is odds over the sum of odds, as worked out by hand."""
    assert aggregate(np.array(values)[:, None])[:, 0] == pytest.approx(expected, rel=1e-5)


def test_aggregation_survives_certainty():
    """Probabilities 0 and 1 give no infinities: a certain object gets nearly all, two of them share."""
    got = aggregate(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]]))
    assert np.isfinite(got).all()
    assert got[1, 0] > 0.999
    assert got[1:, 1] == pytest.approx([0.5, 0.5], abs=1e-3)
    assert got[0, 2] > 0.999


def test_an_object_alone_keeps_its_own_probability():
    """Where no other patch has anything to say, merged is the patch as stored."""
    own = Patch(Box(0, 0, 4, 4), np.arange(16, dtype=np.uint8).reshape(4, 4) * 15)
    far = flat(Box(10, 10, 20, 20), 255)
    silent = flat(Box(0, 0, 4, 4), 0)
    for others in ({}, {2: far}, {2: silent}):
        got = merged({1: own, **others}, 1, own.box, (4, 4))
        assert np.array_equal(got, own.probability / np.float32(255))


def test_merged_is_soft_aggregation_where_objects_meet():
    """Two propagated patches compete by the equation where they overlap, and only there."""
    one, two = flat(Box(0, 0, 4, 6), 204), flat(Box(0, 3, 4, 9), 102)
    got = merged({1: one, 2: two}, 1, Box(0, 0, 4, 9), (4, 9))
    expected = aggregate(np.array([[0.8], [0.4]]))[1, 0]
    assert got[:, :3] == pytest.approx(0.8)
    assert got[:, 3:6] == pytest.approx(expected, rel=1e-5)
    assert got[:, 6:].max() <= CLAMP
    assert not merged({1: one, 2: two}, 7, Box(0, 0, 4, 9), (4, 9)).any()


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(Origin, 2)), ids=lambda o: o.name.lower())
def test_later_kinds_get_what_earlier_kinds_leave(first, second):
    """Painted goes before scribbled before propagated, in the merged probability as in the labels."""
    own = flat(Box(0, 0, 6, 6), 255 if first is Origin.PAINTED else 160, first)
    rival = flat(Box(0, 3, 6, 9), 255 if first is not Origin.PAINTED else 250, second)
    window = Box(0, 0, 6, 9)
    for ids in ((1, 2), (2, 1)):  # the lower id makes no difference
        frame = {ids[0]: own, ids[1]: rival}
        mine = merged(frame, ids[0], window, window.shape)
        theirs = merged(frame, ids[1], window, window.shape)
        assert (mine[:, :6] >= 0.5).all()
        assert (theirs[:, :6] < 0.5).all()
        assert (theirs[:, 6:] >= 0.5).all()
        labels = compose(frame, window)
        assert np.array_equal(labels[0], [ids[0]] * 6 + [ids[1]] * 3)


# ---------------------------------------------------------------------------------------------------- labels


def pixel_of(patch: Patch, y: int, x: int) -> int:
    """One pixel's probability in 0..65535, in Python's whole numbers: bilinear with weights in 1/256, rounded."""
    b, values = patch.box, patch.probability.tolist()
    h, w = len(values), len(values[0])
    if not (b.y0 <= y < b.y1 and b.x0 <= x < b.x1):
        return 0
    if (h, w) == b.shape:
        return values[y - b.y0][x - b.x0] * 257

    def cells(at: int, n: int, extent: int) -> tuple[int, int, int]:
        position = (2 * at + 1) * n - extent  # in units of 1 / (2 * extent) cells
        left = position // (2 * extent)
        weight = ((position - left * 2 * extent) * 256 + extent) // (2 * extent)
        return min(max(left, 0), n - 1), min(max(left + 1, 0), n - 1), weight

    top, bottom, fy = cells(y - b.y0, h, b.height)
    left, right, fx = cells(x - b.x0, w, b.width)
    a = values[top][left] * (256 - fy) + values[bottom][left] * fy
    c = values[top][right] * (256 - fy) + values[bottom][right] * fy
    p = (a * (256 - fx) + c * fx) >> 8
    return p + (p >> 8)


def label_of(frame: dict[int, Patch], y: int, x: int) -> int:
    """One pixel's label as the words of `compose` say it."""
    for tier in (True, False):
        best, winner, background = 0, 0, 65535
        for origin, object_id in sorted((p.origin, i) for i, p in frame.items() if p.origin.annotated == tier):
            assert origin.annotated == tier
            p = pixel_of(frame[object_id], y, x)
            if p > best:
                best, winner = p, object_id
            if p:
                background = background * (65535 - p) >> 16
        if best and best >= background:
            return winner
    return 0


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(1, 65535), patches((9, 11)), max_size=4), patches((9, 11)))
def test_labels_are_whole_number_arithmetic(frame, window):
    """Labels of any window equal a slow reference in Python's whole numbers, pixel by pixel."""
    got = compose(frame, window.box)
    assert got.dtype == np.uint16
    assert got.shape == window.box.shape
    for (y, x), label in np.ndenumerate(got):
        assert label == label_of(frame, y + window.box.y0, x + window.box.x0)


@settings(deadline=None)
@given(st.dictionaries(st.integers(1, 9), patches(), max_size=4), patches())
def test_a_window_is_a_cut_of_the_frame(frame, window):
    """Labels don't depend on the window they are asked for in, nor on the order of the patches."""
    whole = compose(frame, Box(0, 0, *FRAME))
    assert np.array_equal(compose(dict(reversed(frame.items())), window.box), whole[window.box.slices])


@given(patches())
def test_one_object_is_labelled_from_one_half_on(patch):
    """A single object's label is where its probability at the frame's pixels is at least 128 of 255."""
    exact = Patch(patch.box, np.resize(patch.probability, patch.box.shape), patch.origin)
    labels = compose({4: exact}, patch.box)
    assert np.array_equal(labels == 4, exact.probability >= 128)


@pytest.mark.parametrize("origin", Origin)
def test_ties_go_to_the_lower_id(origin):
    """Of equal patches of one kind the lower id wins."""
    box = Box(2, 2, 6, 6)
    for value in (128, 200, 255):
        assert (compose({9: flat(box, value, origin), 4: flat(box, value, origin)}, box) == 4).all()


def test_two_weak_objects_can_beat_the_background():
    """The background's probability is the product of what objects leave: 0.45 and 0.45 leave it 0.30."""
    box = Box(0, 0, 3, 3)
    assert (compose({1: flat(box, 115)}, box) == 0).all()
    assert (compose({1: flat(box, 115), 2: flat(box, 115)}, box) == 1).all()


# ---------------------------------------------------------------------------------------------------- blending


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 0.9])
def test_blending_weighs_on_the_union(weight):
    """Each part of the union has its own mix: new alone w, old alone 1 - w, both w * new + (1 - w) * old."""
    new, old = flat(Box(0, 0, 4, 6), 200), flat(Box(0, 4, 4, 10), 80)
    mixed = blend(new, old, weight)
    assert mixed.box == Box(0, 0, 4, 10)
    expected = np.zeros(10)
    expected[:6] += 200 * weight
    expected[4:] += 80 * (1 - weight)
    assert np.array_equal(mixed.probability, np.rint(expected)[None].repeat(4, 0))


def test_blending_makes_a_new_patch():
    """Neither of the blended patches changes, and the mix shares no memory with them."""
    new, old = flat(Box(0, 0, 4, 4), 200), flat(Box(0, 0, 4, 4), 80)
    mixed = blend(new, old, 0.5)
    assert (mixed.probability == 140).all()
    assert not np.shares_memory(mixed.probability, new.probability)
    assert (new.probability == 200).all()
    assert (old.probability == 80).all()


def test_blending_with_nothing_keeps_the_new():
    """Without an old mask, or with the whole weight on the new one, the new one stands."""
    new = flat(Box(0, 0, 4, 4), 200)
    assert blend(new, None, 0.3) is new
    assert blend(new, flat(Box(0, 0, 9, 9), 80), 1.0) is new


@given(patches(), st.floats(0, 1))
def test_blending_with_itself_changes_nothing(patch, weight):
    """A mask blended with itself is itself, to the last bit, at any weight and scale."""
    mixed = blend(patch, Patch(patch.box, patch.probability.copy(), Origin.PAINTED), weight)
    assert mixed.box == patch.box
    assert np.array_equal(mixed.probability, patch.probability)
    assert mixed.origin is patch.origin


@given(patches(), patches())
def test_blending_is_at_the_finer_scale(new, old):
    """The mix loses no resolution of either patch and is never finer than the frame."""
    mixed = blend(new, old, 0.5)
    for axis in (0, 1):
        n, side = mixed.probability.shape[axis], mixed.box.shape[axis]
        assert n <= side
        for patch in (new, old):
            assert n * patch.box.shape[axis] >= patch.probability.shape[axis] * side  # cells a pixel, without division


def test_forward_and_backward_average_by_distance():
    """Between two frames of one round the passes' weights are 1 - k/d and k/d."""
    forward, backward = passes([2, 10], [], range(2, 11))
    assert (forward.bound, backward.bound) == (Bound.SAME_ROUND, Bound.SAME_ROUND)
    for frame in range(3, 10):
        assert forward.weight(frame) == pytest.approx(1 - (frame - 2) / 8)
        assert forward.weight(frame) + backward.weight(frame) == pytest.approx(1)


# ---------------------------------------------------------------------------------------------------- measures


@given(patches(), patches())
def test_overlap_is_symmetric_and_bounded(a, b):
    """Overlap is in 0..1, the same both ways, and 1 for a patch with itself."""
    assert 0 <= overlap(a, b) <= 1
    assert overlap(a, b) == overlap(b, a)
    assert overlap(a, a) == 1


def test_overlap_by_hand():
    """Two 4 x 4 squares that share half have an overlap of 1/3; empty ones agree with each other only."""
    a, b = flat(Box(0, 0, 4, 4), 255), flat(Box(0, 2, 4, 6), 255)
    nothing = flat(Box(0, 0, 9, 9), 0)
    assert overlap(a, b) == pytest.approx(1 / 3)
    assert overlap(a, nothing) == overlap(None, a) == 0
    assert overlap(None, nothing) == overlap(None, None) == 1


@pytest.mark.parametrize(("value", "expected"), [(255, 1.0), (128, 0.0), (204, 0.6), (0, 1.0), (51, 0.6)])
def test_certainty_by_hand(value, expected):
    """A constant patch p has certainty 1 - 2 min(p, 1 - p), mask or not."""
    assert certainty(flat(Box(0, 0, 5, 5), value)) == pytest.approx(expected, abs=0.01)


# ---------------------------------------------------------------------------------------------------- passes


def changed_by(annotated: set[int], earlier: set[int], life: range) -> dict[tuple[int, int], int | None]:
    """What a round may change, found by walking: (start, frame) -> the bounding frame or None."""
    found: dict[tuple[int, int], int | None] = {}
    for start in annotated & set(life):
        for step in (1, -1):
            walked, at = [], start + step
            while at in life and at not in annotated | earlier:
                walked.append(at)
                at += step
            bound = at if at in life else None
            found |= dict.fromkeys(((start, frame) for frame in walked), bound)
    return found


@settings(max_examples=300)
@given(
    st.sets(st.integers(0, 11), max_size=4),
    st.sets(st.integers(0, 11), max_size=4),
    st.integers(0, 11),
    st.integers(1, 12),
)
def test_passes_change_what_a_walk_finds(annotated, earlier, first, last):
    """Passes hold exactly the frames that walking from each annotated frame to its bound meets, with right bounds."""
    life = range(first, last)
    expected = changed_by(annotated, earlier, life)
    found = {}
    for one in passes(annotated, earlier, life):
        assert len(one.frames) > 0
        assert abs(one.frames[0] - one.start) == 1
        distances = [abs(f - one.start) for f in one.frames]
        assert distances == list(range(1, len(distances) + 1))
        for frame in one.frames:
            bound = None if one.distance is None else one.start + one.distance * one.frames.step
            found[one.start, frame] = bound
            kind = Bound.OPEN if bound is None else Bound.SAME_ROUND if bound in annotated else Bound.EARLIER
            assert one.bound is kind
            assert one.weight(frame) == (1 if bound is None else 1 - abs(frame - one.start) / one.distance)
    assert found == expected


@pytest.mark.parametrize("lengths", [range(7)])
def test_annotated_frames_are_never_passed_over(lengths):
    """Over all small stacks, no pass changes an annotated frame, nor crosses one."""
    for length in lengths:
        subsets = [set(c) for k in range(length + 1) for c in itertools.combinations(range(length), k)]
        for now, earlier in itertools.product(subsets, subsets):
            for one in passes(now, earlier, range(length)):
                assert not set(one.frames) & (now | earlier)


def test_objects_that_meet_an_object():
    """For each object asked for, those patches are named whose boxes share a pixel with its own, itself included."""
    frame = {1: flat(Box(0, 0, 4, 4), 255), 2: flat(Box(3, 3, 8, 8), 255), 3: flat(Box(8, 8, 22, 22), 255)}
    assert {i: list(near) for i, near in that_meet(frame, [3, 1]).items()} == {3: [3], 1: [1, 2]}
    assert that_meet(frame, iter([2]))[2] == {1: frame[1], 2: frame[2]}
    assert that_meet({}, []) == {}


def test_the_support_of_a_patch_holds_all_that_shows():
    """Nothing of a patch is above 0 outside its support, wherever its cells lie; an empty patch has an empty one."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        cells = np.zeros(rng.integers(1, 9, 2), np.uint8)
        cells.flat[rng.integers(cells.size)] = 200
        patch = Patch(Box(5, 3, 5 + int(rng.integers(9, 40)), 3 + int(rng.integers(9, 40))), cells)
        shown = sample(patch, Box(0, 0, 60, 60), (60, 60)) > 0
        shown[patch.support.slices] = False
        assert not shown.any()
        assert patch.box.intersect(patch.support) == patch.support
    assert flat(Box(1, 2, 3, 4), 0).support.empty
