"""Level 1: what objects look like, learned where they are annotated, and told from what is around them."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from napari_ivos import Scribbles, Session, Stroke, load_model, open_frames
from napari_ivos.networks import appearance
from napari_ivos.networks.appearance import CELLS, Looks, fit
from napari_ivos.networks.inference import reference_shapes
from napari_ivos.predictor import FakePredictor, Interaction, Propagation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ivos.networks.inference import TorchPredictor

RED, GREEN, GREY = (0.8, 0.2, 0.2), (0.2, 0.7, 0.3), (0.5, 0.5, 0.5)
Picture = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def model() -> TorchPredictor:
    return load_model(device="cpu")


def scene(left: Sequence[float], right: Sequence[float]) -> Picture:
    """A disc of one colour beside a disc of another on a noisy ground, (256, 256, 3)."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((256, 256))
    image = np.full((256, 256, 3), GREY, np.float32)
    for column, colour in ((90, left), (170, right)):
        image[np.hypot(rows - 128, columns - column) < 38] = colour
    return np.asarray(np.clip(image + rng.normal(0, 0.02, image.shape), 0, 1), np.float32)


def disc(column: int) -> Picture:
    rows, columns = np.indices((256, 256))
    return (np.hypot(rows - 128, columns - column) < 38).astype(np.float32)


NOTHING = np.zeros((256, 256), np.float32)


def learned(model: TorchPredictor, image: Picture, mask: Picture) -> npt.NDArray[np.float16]:
    """The reference of an object whose mask was painted."""
    [found] = model.segment([Interaction(image, mask, NOTHING, NOTHING, appearance=True)])
    return found.reference


def looks_of(model: TorchPredictor, *references: npt.NDArray[np.float16]) -> Looks | None:
    assert model._appearance is not None
    return model._appearance.of(references)


def share(p: Picture, mask: Picture) -> float:
    return float(p[mask > 0.5].mean())


def test_the_fit_is_the_one_best_answer() -> None:
    """At the coefficients that `fit` gives, the penalised cross-entropy has no slope in any direction."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 6)) * (1, 2, 5, 0.1, 1, 1) + (0, 3, -4, 0, 1, 0)
    y = (x[:, 0] + 0.3 * x[:, 2] + rng.normal(size=400) > -1.2).astype(float)
    w = rng.uniform(0.5, 1.5, 400) / 400

    def cost(b: npt.NDArray[np.float64]) -> float:
        a = x @ b[:-1] + b[-1]
        spread = x.std(axis=0) + 1e-3
        entropy = w @ (np.logaddexp(0, a) - y * a)
        return float(entropy + 0.5 * appearance.PENALTY * ((b[:-1] * spread) ** 2).sum())

    coefficients, bias, entropy = fit(x, y, w)
    best = np.append(coefficients, bias)
    slopes = [(cost(best + h) - cost(best - h)) / 2e-4 for h in 1e-4 * np.eye(7)]
    assert np.abs(slopes).max() < 2e-3
    a = x @ coefficients + bias
    assert entropy == pytest.approx(w @ (np.logaddexp(0, a) - y * a) / w.sum())


def test_a_fit_to_what_can_be_told_apart_without_error_ends() -> None:
    """Samples that a plane divides, and two alike with different labels, give finite coefficients."""
    apart = fit(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0.0, 0, 1, 1]), np.full(4, 0.25))
    alike = fit(np.zeros((2, 1)), np.array([0.0, 1]), np.full(2, 0.5))
    assert np.isfinite([*apart[0], apart[1], apart[2]]).all()
    assert apart[0][0] > 1
    assert alike[2] == pytest.approx(np.log(2))


def test_a_mask_that_went_over_to_another_object_comes_back(model: TorchPredictor) -> None:
    """A mask of two discs lets go of the one in another colour, frame by frame; without looks it holds on to both."""
    image = scene(RED, GREEN)
    reference = learned(model, image, disc(90))
    left = {}
    for wanted in (True, False):
        mask = np.maximum(disc(90), disc(170))
        for _ in range(3):
            [mask] = model.propagate([Propagation(image, mask, None, [reference], NOTHING, appearance=wanted)])
        assert share(mask, disc(90)) > 0.95
        left[wanted] = share(mask, disc(170))
    assert left[True] < left[False] - 0.05


def test_a_mask_that_was_cut_off_grows_again(model: TorchPredictor) -> None:
    """Handed on a third of a disc, the model finds more of the disc with looks than without."""
    image = scene(RED, GREEN)
    part = disc(90) * (np.indices((256, 256))[1] < 75)
    ask = [
        Propagation(image, part, None, [learned(model, image, disc(90))], NOTHING, wanted) for wanted in (True, False)
    ]
    with_looks, without = model.propagate(ask)
    assert share(with_looks, disc(90)) > share(without, disc(90))
    assert share(with_looks, disc(170)) < 0.1


def test_looks_that_tell_nothing_are_not_heard(model: TorchPredictor) -> None:
    """Where the object is a patch of a plain ground, there are no looks, and the answer is the networks' alone."""
    image = np.full((256, 256, 3), GREY, np.float32)
    reference = learned(model, image, disc(90))
    assert looks_of(model, reference) is None
    ask = [Propagation(image, disc(90), None, [reference], NOTHING, wanted) for wanted in (True, False)]
    first, second = model.propagate(ask)
    assert np.array_equal(first, second)


def test_references_of_before_say_nothing_of_looks_and_still_serve(model: TorchPredictor) -> None:
    """A reference without a sample, as earlier versions kept it, propagates as it did, alone and beside a newer one."""
    image = scene(RED, GREEN)
    new = learned(model, image, disc(90))
    [plain] = model.segment([Interaction(image, disc(90), NOTHING, NOTHING)])
    old = plain.reference
    assert old.size == sum(int(np.prod(s)) for s in reference_shapes(model.architecture, 256))
    assert np.array_equal(new[: old.size], old)
    assert looks_of(model, old) is None
    alone = [model.propagate([Propagation(image, disc(90), None, [r], NOTHING)])[0] for r in (old, new)]
    assert np.array_equal(alone[0], alone[1])
    assert looks_of(model, old, new) is not None


def test_looks_are_remembered_as_long_as_their_references_are(model: TorchPredictor) -> None:
    """The same references give the same looks without another fit; others never do, even where memory is used again."""
    image = scene(RED, GREEN)
    first, second = learned(model, image, disc(90)), learned(model, image, disc(170))
    once = looks_of(model, first)
    assert once is looks_of(model, first)
    assert looks_of(model, second) is not once
    for _ in range(20):
        copy = first.copy()
        copied = looks_of(model, copy)
        assert copied is not once
        assert copied is not None
        assert once is not None
        assert copied.bias == once.bias
        del copy
        gc.collect()
        other = second.copy()
        assert (found := looks_of(model, other)) is not None
        assert found.bias != once.bias


def test_more_references_than_are_fitted_to_are_all_heard(
    model: TorchPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where places are limited each reference gives fewer of them, but all give some."""
    image = scene(RED, GREEN)
    references = [learned(model, image, disc(column)) for column in (90, 90, 170)]
    taken: list[int] = []
    monkeypatch.setattr(appearance, "CELLS_IN_ALL", 96)

    def counted(*samples: npt.NDArray[np.float64]) -> Any:
        taken.append(len(samples[0]))
        return fit(*samples)

    monkeypatch.setattr(appearance, "fit", counted)
    looks_of(model, *references)
    assert taken == [3 * 2 * (96 // 6)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -1000, 6e4])
def test_a_damaged_sample_does_no_harm(model: TorchPredictor, value: float) -> None:
    """Whatever numbers a stranger's project holds there, the answer is made of probabilities."""
    image = scene(RED, GREEN)
    reference = learned(model, image, disc(90))
    size = 2 + 2 * CELLS * 171
    for damaged in (slice(-size, -size + 2), slice(-size, None), slice(-40, None)):
        broken = reference.copy()
        broken[damaged] = value
        [p] = model.propagate([Propagation(image, disc(90), None, [broken], NOTHING, appearance=True)])
        assert np.isfinite(p).all()
        assert 0 <= p.min() <= p.max() <= 1


def test_a_mask_too_small_to_look_at_has_no_looks(model: TorchPredictor) -> None:
    """An object without a whole place of features, and one that fills its region, give no looks, and no error."""
    image = scene(RED, GREEN)
    dot = NOTHING.copy()
    dot[100, 100] = 1
    for mask in (dot, np.ones_like(NOTHING)):
        assert looks_of(model, learned(model, image, mask)) is None


class Watched(FakePredictor):
    """Notes of every request whether looks were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[tuple[str, bool]] = set()

    def segment(self, requests: Sequence[Interaction]) -> Any:
        self.asked |= {("segment", r.appearance) for r in requests}
        return super().segment(requests)

    def propagate(self, requests: Sequence[Propagation]) -> Any:
        self.asked |= {("propagate", r.appearance) for r in requests}
        return super().propagate(requests)


def film(colours: bool) -> npt.NDArray[np.uint8]:
    frames = np.zeros((4, 48, 64, 3), np.uint8)
    frames[:, 10:30, 20:40] = (200, 40, 30) if colours else (200, 200, 200)
    return frames


@pytest.mark.parametrize(
    ("frames", "axes", "wanted"),
    [
        (film(colours=True), "TYXC", True),
        (film(colours=False), "TYXC", False),
        (film(colours=True)[..., 0], "TYX", False),
        (film(colours=True), "ZYXC", False),
        (np.moveaxis(film(colours=True), -1, 1), "TCYX", False),
    ],
    ids=["film in colour", "grey stored in colours", "grey", "sections in colour", "channels of a microscope"],
)
def test_objects_are_told_by_looks_in_films_of_the_world_alone(
    frames: npt.NDArray[np.uint8], axes: str, wanted: bool
) -> None:
    """In a film in a camera's colours looks are learned from strokes and paint, and used; elsewhere never."""
    model = Watched()
    with Session(open_frames(frames, axes=axes), model) as session:
        session.interact(Scribbles(frame=0, strokes=[Stroke(1, [(12, 22), (26, 36)])]))
        session.annotate(3, (film(colours=True)[3, ..., 0] > 0).astype(np.uint8), [1])
        assert list(session.propagate())
    last = {(kind, asked) for kind, asked in model.asked if asked or kind == "propagate"}
    assert last == ({("segment", True), ("propagate", True)} if wanted else {("propagate", False)})


def test_a_project_remembers_looks(tmp_path: Any, model: TorchPredictor) -> None:
    """What was learned before a project was closed is used when it goes on: the masks are the same to the last bit."""
    frames = np.stack([(np.roll(scene(RED, GREEN), 3 * t, axis=1) * 255).astype(np.uint8) for t in range(4)])

    def work(path: Any, closing: bool) -> list[npt.NDArray[np.uint8]]:
        session = Session(open_frames(frames, axes="TYXC"), model, project=path)
        session.interact(Scribbles(frame=0, strokes=[Stroke(1, [(110, 80), (140, 100)])]))
        if closing:
            session.close()
            session = Session.open(path, open_frames(frames, axes="TYXC"), model=model)
        with session:
            assert list(session.propagate())
            return [session.masks(t)[1].probability for t in range(4)]

    straight, resumed = work(tmp_path / "a.ivos", closing=False), work(tmp_path / "b.ivos", closing=True)
    assert all(map(np.array_equal, straight, resumed))
