"""Motion between neighbouring frames, and masks that are moved along with it."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

import napari_ivos as ivos
from napari_ivos import motion, steps
from napari_ivos.merging import Origin, Patch, sample
from napari_ivos.motion import move_along
from napari_ivos.predictor import FakePredictor, Following, Propagation
from napari_ivos.regions import Box
from napari_ivos.scribbles import Scribbles, Stroke

SIDE = 96


def world(seed: int = 0, side: int = 2 * SIDE) -> np.ndarray:
    """A picture (side, side, 3) float32 of soft spots at several scales, 0..1."""
    rng = np.random.default_rng(seed)
    out = np.zeros((side, side), np.float32)
    for cells in (6, 20, 60):
        spots = rng.random((cells, cells), np.float32)
        out += cv2.resize(spots, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.repeat(np.clip(out / 3, 0, 1)[..., None], 3, 2)


def cut(picture: np.ndarray, dy: float = 0, dx: float = 0, side: int = SIDE) -> np.ndarray:
    """The middle of a picture that has moved by (dy, dx)."""
    shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    moved = cv2.warpAffine(picture, shift, picture.shape[1::-1], flags=cv2.INTER_LINEAR)
    first = (picture.shape[0] - side) // 2
    return moved[first : first + side, first : first + side]


def disc(y: float = SIDE / 2, x: float = SIDE / 2, radius: float = 20) -> np.ndarray:
    rows, columns = np.indices((SIDE, SIDE))
    return (np.hypot(rows - y, columns - x) < radius).astype(np.float32)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a >= 0.5, b >= 0.5
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (5, -3), (-11, 8), (0.5, 14)])
def test_a_mask_goes_where_the_picture_goes(dy: float, dx: float) -> None:
    """After a shift of the whole picture the mask lies on the same texture, and no change is left where it is."""
    moved = move_along(disc(), cut(world()), cut(world(), dy, dx))
    true = disc(SIDE / 2 + dy, SIDE / 2 + dx)
    assert jaccard(moved.mask, true) > 0.95
    assert moved.change[true > 0].mean() < 0.03


def test_nothing_moves_in_a_still_picture() -> None:
    """Between two equal frames a mask stays what it is, to the last bit, and nothing changed."""
    mask = disc() * np.float32(0.8)
    moved = move_along(mask, cut(world()), cut(world()))
    np.testing.assert_array_equal(moved.mask, mask)
    assert moved.change.max() == 0


def test_light_that_drifts_is_no_motion() -> None:
    """A frame that is 10 % of the range brighter moves no mask, and counts as unchanged."""
    near = cut(world()) * 0.7
    moved = move_along(disc(), near, near + np.float32(0.1))
    assert jaccard(moved.mask, disc()) > 0.97
    assert moved.change.max() < 0.05


def test_what_is_covered_shows_as_change() -> None:
    """Where a plain post came in front of the object the change is high, and low elsewhere."""
    near = cut(world())
    here = near.copy()
    here[:, 40:56] = np.linspace(0, 1, SIDE)[:, None, None]
    moved = move_along(disc(), near, here)
    assert moved.change[:, 42:54].mean() > 4 * moved.change[:, :30].mean()


def test_a_dim_picture_moves_like_a_bright_one() -> None:
    """A region that uses 2 % of the brightness is stretched, so that its motion is found as well."""
    dim = world() * np.float32(0.02) + np.float32(0.4)
    moved = move_along(disc(), cut(dim), cut(dim, 6, 6))
    assert jaccard(moved.mask, disc(SIDE / 2 + 6, SIDE / 2 + 6)) > 0.93


def test_a_picture_without_contrast_keeps_the_mask() -> None:
    """Two flat frames say nothing of motion: the mask stays, finite and unchanged."""
    flat = np.full((SIDE, SIDE, 3), 0.3, np.float32)
    moved = move_along(disc(), flat, flat)
    np.testing.assert_array_equal(moved.mask, disc())
    assert np.isfinite(moved.change).all()


@pytest.mark.parametrize("shape", [(24, 24), (31, 200), (400, 150)])
def test_regions_of_any_shape_are_seen_at_the_size_of_the_mask(shape: tuple[int, int]) -> None:
    """Pixels come at the frame's resolution, however thin, and mask and change leave at the mask's."""
    near = cv2.resize(world(), shape[::-1], interpolation=cv2.INTER_AREA)
    moved = move_along(disc(), near, near)
    assert moved.mask.shape == moved.change.shape == (SIDE, SIDE)
    np.testing.assert_array_equal(moved.mask, disc())


def test_an_empty_mask_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no object is, no motion is computed, and what was handed in comes back."""
    monkeypatch.setattr(cv2.DISOpticalFlow, "create", None)
    empty = np.full((SIDE, SIDE), 0.2, np.float32)
    assert move_along(empty, cut(world()), cut(world(1))).mask is empty


def test_the_result_does_not_depend_on_opencvs_threads() -> None:
    """With one thread and with four the mask is the same to the last bit, and the setting is left as it was."""
    before = cv2.getNumThreads()
    found = []
    try:
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            found.append(move_along(disc(), cut(world()), cut(world(), 4, 9)))
            assert cv2.getNumThreads() == threads
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(found[0].mask, found[1].mask)
    np.testing.assert_array_equal(found[0].change, found[1].change)


def test_several_threads_may_move_masks_at_once() -> None:
    """Eight threads get what one gets, and OpenCV's own number of threads is what it was before."""
    before = cv2.getNumThreads()
    alone = [move_along(disc(), cut(world(k)), cut(world(k), k, -k)).mask for k in range(8)]
    found: dict[int, np.ndarray] = {}

    def work(k: int) -> None:
        found[k] = move_along(disc(), cut(world(k)), cut(world(k), k, -k)).mask

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(8):
        np.testing.assert_array_equal(found[k], alone[k])
    assert cv2.getNumThreads() == before


# -- in a propagation


class Follower(FakePredictor):
    """A predictor that copies the mask that it is handed, and keeps the requests."""

    def __init__(self, follows: bool = True) -> None:
        super().__init__(64)
        self.follows_motion = follows
        self.asked: list[Propagation] = []

    def propagate(self, requests):  # type: ignore[no-untyped-def]
        self.asked += requests
        return [r.neighbour for r in requests]


@pytest.mark.parametrize("follows", [True, False])
def test_masks_are_moved_for_predictors_that_say_so(follows: bool) -> None:
    """One that follows motion gets the mask where the picture went, with the change; any other as it was, without."""
    model = Follower(follows)
    assert isinstance(model, Following)
    near, here = cut(world()), cut(world(), 7, 0)
    mask = disc()
    found = steps.propagate(
        lambda box: here[box.slices],
        (SIDE, SIDE),
        model,
        {1: Patch.from_mask(mask >= 0.5)},
        {},
        {1: [np.zeros(3, np.float16)]},
        lambda box: near[box.slices],
    )
    true = disc(SIDE / 2 + (7 if follows else 0))
    got = sample(found[1], Box(0, 0, SIDE, SIDE), (SIDE, SIDE))
    assert jaccard(got, true) > 0.9
    assert found[1].origin is Origin.PROPAGATED
    assert (model.asked[0].change is not None) is follows


def test_many_objects_move_in_threads_as_they_would_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """On nine cores twelve objects get the very masks that they get on one, in their order."""
    near, here = cut(world()), cut(world(), 4, 4)
    patches = {i: Patch.from_mask(disc(20 + 5 * i, 90 - 6 * i, 9) >= 0.5) for i in range(1, 13)}
    found = []
    for cores in (1, 9):
        monkeypatch.setattr(steps, "cores", lambda n=cores: n)
        model = Follower()
        steps.propagate(
            lambda box: here[box.slices],
            (SIDE, SIDE),
            model,
            patches,
            {},
            {i: [np.zeros(3, np.float16)] for i in patches},
            lambda box: near[box.slices],
        )
        found.append([r.neighbour for r in model.asked])
    motion.pool.cache_clear()
    assert len(found[0]) == len(found[1]) >= 12
    for one, many in zip(*found, strict=True):
        np.testing.assert_array_equal(one, many)


def test_a_session_reads_the_neighbouring_frame_for_motion() -> None:
    """A propagation over frames that pan carries the mask along, because each frame is compared with its neighbour."""
    picture = (world(side=256) * 255).astype(np.uint8)
    frames = np.stack([np.roll(picture, 4 * t, axis=1)[64:192, 64:192] for t in range(6)])
    model = Follower()
    with ivos.Session(ivos.open_frames(frames, axes="TYXC"), model) as session:
        painted = np.zeros(session.shape[1:], np.int32)
        painted[50:80, 30:60] = 1
        session.annotate(0, painted)
        list(session.propagate())
        for t in range(1, 6):
            true = np.zeros(painted.shape, bool)
            true[50:80, 30 + 4 * t : 60 + 4 * t] = True
            assert jaccard((np.asarray(session.labels[t]) == 1).astype(float), true.astype(float)) > 0.85
    assert len(model.asked) == 5


def test_a_neighbour_that_cannot_be_read_stops_the_round_by_name(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Where the annotated frame itself can't be read for motion, the error names it and finished frames stay."""
    picture = (world(side=128) * 255).astype(np.uint8)
    frames = ivos.open_frames(np.stack([picture] * 3), axes="TYXC")
    read = frames.read
    broken = False

    def failing(frame: int, box: Box | None = None) -> np.ndarray:
        if broken and frame == 1:
            raise ivos.FrameReadError("Frame 1 can't be read: gone.", 1)
        return read(frame, box)

    frames.read = failing  # type: ignore[method-assign]
    with ivos.Session(frames, Follower()) as session:
        session.interact(Scribbles(1, [Stroke(1, np.array([[60.0, 40.0], [60.0, 80.0]]))]))
        before = np.asarray(session.labels[1])
        broken = True
        with pytest.raises(ivos.FrameReadError, match="Frame 1"):
            list(session.propagate())
        np.testing.assert_array_equal(np.asarray(session.labels[1]), before)


@pytest.mark.parametrize(("hold", "share"), [(motion.FIRM, 0.9), (motion.LOOSE, 0.7)])
def test_a_mask_is_held_on_to_where_nothing_changed(hold: motion.Hold, share: float) -> None:
    """Without change most of the moved mask is in the answer; where the picture changed much, nothing of it."""
    found = np.zeros((4, 4), np.float32)
    change = np.zeros((4, 4), np.float32)
    change[2:] = 1.0
    kept = motion.keep_unchanged(found, motion.Moved(np.ones((4, 4), np.float32), change), hold)
    np.testing.assert_allclose(kept[:2], share, rtol=1e-6)
    np.testing.assert_allclose(kept[2:], 0.0, atol=1e-6)
    assert kept.dtype == np.float32


def test_an_exact_mask_is_held_on_to_less_the_further_away_it_is() -> None:
    """On the next frame by 90 %, after ten by 86 %, after forty by less than half, in the same way where it changes."""
    holds = [motion.exact_after(k) for k in (1, 10, 40)]
    assert [h.most for h in holds] == pytest.approx([0.9, 0.8647, 0.4746], abs=1e-3)
    assert {(h.unsettled, h.power) for h in holds} == {(motion.FIRM.unsettled, motion.FIRM.power)}


class Blind(FakePredictor):
    """Finds nothing on any frame to which masks are carried."""

    follows_motion = True

    def propagate(self, requests):  # type: ignore[no-untyped-def]
        return [np.zeros_like(r.neighbour) for r in requests]


@pytest.mark.parametrize(
    ("holds", "held"), [(None, False), ({2: motion.FIRM}, False), ({1: motion.LOOSE}, True), ({1: motion.FIRM}, True)]
)
def test_only_masks_with_a_hold_are_held_on_to(holds: dict[int, motion.Hold] | None, held: bool) -> None:
    """A network that finds nothing loses an object; one that is held on to stays where nothing changed."""
    blind = Blind(64)
    frame = np.random.default_rng(0).random((80, 90, 3)).astype(np.float32)
    mask = np.zeros((80, 90), bool)
    mask[20:50, 30:60] = True
    patches = {1: Patch.from_mask(mask)}
    learned = steps.learn(lambda b: frame[b.slices], (80, 90), blind, patches)[1]
    found = steps.propagate(
        lambda b: frame[b.slices],
        (80, 90),
        blind,
        patches,
        {},
        {1: [learned] * 2},
        lambda b: frame[b.slices],
        holds,
    )
    assert (found[1].extent is not None) == held


def test_a_painted_mask_is_let_go_on_its_way() -> None:
    """On a still picture where the network finds nothing, a frame keeps as much of the last as its distance says."""
    picture = (world(side=128) * 255).astype(np.uint8)
    painted = np.zeros((128, 128), np.uint8)
    painted[40:90, 30:80] = 1
    with ivos.Session(ivos.open_frames(np.stack([picture] * 4), axes="TYXC"), Blind(128)) as session:
        session.annotate(0, painted)
        list(session.propagate())
        left = [int(session.masks(t)[1].probability.max()) for t in range(4)]
    for k in (1, 2, 3):
        assert left[k] / left[k - 1] == pytest.approx(motion.exact_after(k).most, abs=0.01)


@pytest.mark.parametrize("kind", ["first strokes", "corrected", "exact"])
@pytest.mark.parametrize("colour", [True, False])
def test_corrected_and_exact_masks_alone_are_held_on_to(kind: str, colour: bool) -> None:
    """A network that finds nothing loses an object of first strokes; another one stays on a still picture."""
    picture = (world(side=128) * 255).astype(np.uint8)
    picture[..., 1] = picture[::-1, :, 1]
    picture = picture if colour else picture[..., :1].repeat(3, 2)
    painted = np.zeros((128, 128), np.uint8)
    painted[40:90, 30:80] = 1
    strokes = [Stroke(1, np.array([[60.0, 40.0], [60.0, 80.0]]))]
    with ivos.Session(ivos.open_frames(np.stack([picture] * 6), axes="TYXC"), Blind(64)) as session:
        if kind == "exact":
            session.annotate(2, painted)
        else:
            session.interact(Scribbles(2, strokes))
        if kind == "corrected":
            list(session.propagate())
            session.interact(Scribbles(5, strokes))
        list(session.propagate())
        assert session.masks(4)[1].probability.any() == (kind != "first strokes")


@pytest.mark.parametrize(("colour", "share"), [(True, 0.9), (False, 0.7)])
def test_corrected_masks_are_held_on_to_firmly_in_colour_only(colour: bool, share: float) -> None:
    """On a still picture 90 % of a corrected mask stays in colour and 70 % in grey where the network finds nothing."""
    picture = (world(side=128) * 255).astype(np.uint8)
    picture[..., 1] = picture[::-1, :, 1]
    picture = picture if colour else picture[..., :1].repeat(3, 2)
    strokes = [Stroke(1, np.array([[60.0, 40.0], [60.0, 80.0]]))]
    with ivos.Session(ivos.open_frames(np.stack([picture] * 6), axes="TYXC"), Blind(64)) as session:
        session.interact(Scribbles(0, strokes))
        list(session.propagate())
        session.interact(Scribbles(5, strokes))
        list(session.propagate(direction="backward"))
        most = int(session.masks(5)[1].probability.max())
        left = int(session.masks(4)[1].probability.max())
        assert left / most == pytest.approx(share * 0.8, abs=0.02)  # 0.8: averaged with the first round's, four to one


@pytest.mark.parametrize("painted", [True, False])
def test_a_painted_mask_is_held_on_to_in_its_first_round(painted: bool) -> None:
    """On a still picture it stays although the network finds nothing there; what first strokes gave is gone."""
    picture = (world(side=128) * 255).astype(np.uint8)
    with ivos.Session(ivos.open_frames(np.stack([picture] * 4), axes="TYXC"), Blind(64)) as session:
        if painted:
            mask = np.zeros(session.shape[1:], np.int32)
            mask[50:80, 30:60] = 1
            session.annotate(0, mask)
        else:
            session.interact(Scribbles(0, [Stroke(1, np.array([[60.0, 40.0], [60.0, 80.0]]))]))
        assert session.labels[0].any()
        list(session.propagate())
        assert [bool(session.labels[t].any()) for t in (1, 2, 3)] == [painted] * 3


def test_a_session_shows_no_masks_from_before_a_correction() -> None:
    """In the second round the network gets the neighbour's mask alone: an earlier mask would undo the correction."""
    shown: list[bool] = []

    class Watching(FakePredictor):
        def propagate(self, requests):
            shown.extend(r.previous is not None for r in requests)
            return super().propagate(requests)

    frames = np.repeat((world()[None] * 255).astype(np.uint8), 5, 0)
    frames[:, :32, :32, 0] = 255  # a film, in which nothing ends: the fake's masks are doubtful
    with ivos.Session(frames, Watching(64)) as session:
        for frame, end in ((0, 80), (4, 100)):
            session.interact(Scribbles(frame, [Stroke(1, [[60, 60], [60, end]])]))
            list(session.propagate())
    assert len(shown) >= 7
    assert not any(shown)
