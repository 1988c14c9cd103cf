"""The training program, on a small folder of drawn pictures: clips, annotator, settings, checkpoints, thirty steps."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_ivos import InputError, Stroke, WeightsError, files, load_model

cv2 = pytest.importorskip("cv2", reason="the extra 'train' is not installed")
pytest.importorskip("skimage", reason="the extra 'train' is not installed")

from napari_ivos.networks.blocks import Architecture  # noqa: E402
from napari_ivos.networks.weights import describe, new_networks, to_bytes  # noqa: E402 - needs what is skipped for above
from napari_ivos.training import annotator, card, clips, journal, pictures, rollout, train  # noqa: E402 - they need what is skipped for above
from napari_ivos.training.clips import TARGET, ClipSettings, ClipSource  # noqa: E402
from napari_ivos.training.settings import Stage, TrainingSettings  # noqa: E402
from napari_ivos.training.sharing import Share, sharing  # noqa: E402

CLIPS = {"side": 96}
TINY = {"size": 64, "width": 16, "fine_width": 8, "key": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of training data: stills of bright discs with their masks, a cut-out, and a real clip."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for source in ("discs", "dsb2018_nuclei"):
        (root / "stills" / source).mkdir(parents=True)
        for k in range(6):
            image, labels = picture(rng)
            cv2.imwrite(str(root / "stills" / source / f"{k}.jpg"), image)
            cv2.imwrite(str(root / "stills" / source / f"{k}_mask.png"), labels)
    (root / "cutouts" / "one").mkdir(parents=True)
    rgba = np.dstack([picture(rng)[0], picture(rng)[1] * 120])
    cv2.imwrite(str(root / "cutouts" / "one" / "a.webp"), rgba)
    for part in ("frames", "masks"):
        (root / "clips" / "seq" / part).mkdir(parents=True)
    for k in range(12):
        image, labels = picture(np.random.default_rng(5), shift=k)
        cv2.imwrite(str(root / "clips" / "seq" / "frames" / f"{k:05d}.jpg"), image)
        cv2.imwrite(str(root / "clips" / "seq" / "masks" / f"{k:05d}.png"), labels)
    return root


def picture(rng: np.random.Generator, shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A dark ground with two bright discs, and their labels."""
    image = rng.integers(0, 60, (140, 160, 3)).astype(np.uint8)
    labels = np.zeros((140, 160), np.uint8)
    for k, (y, x) in enumerate(((50, 45), (85, 110)), start=1):
        colour = tuple(int(c) for c in rng.integers(140, 255, 3))
        cv2.circle(image, (x + shift, y), 24, colour, -1)
        cv2.circle(labels, (x + shift, y), 24, k, -1)
    return image, labels


def settings_for(data: Path, output: Path, **changes: object) -> TrainingSettings:
    values = {
        "data": str(data), "output": str(output), "overrides": TINY, "steps": 30, "batch": 4, "warm_up": 5,
        "cool_down": 1, "learning_rate": 2e-3, "encoder_rate": 1.0, "workers": 0, "validate_every": 0, "device": "cpu",
        "clips": CLIPS,
    }  # fmt: skip
    return TrainingSettings.from_dict({**values, **changes})


# --- clips ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shares",
    [
        {},
        {"real": 1.0},
        {"real": 0.0, "cutouts": 1.0},
        {"real": 0.0, "cutouts": 0.0, "procedural": 1.0},
        {"real": 0.0, "cutouts": 0.0, "procedural": 0.0, "volumes": 1.0},
    ],
)
def test_a_clip_is_a_function_of_its_seed(data: Path, shares: dict[str, float]) -> None:
    """Two sources draw the same clip for the same seed, another one for another, and the target is on it."""
    settings = ClipSettings(side=96, **shares)
    first, second = ClipSource(data, settings), ClipSource(data, settings)
    for seed in range(4):
        a, b = first.draw(seed), second.draw(seed)
        np.testing.assert_array_equal(a.frames, b.frames)
        np.testing.assert_array_equal(a.labels, b.labels)
        assert a.frames.shape == (3, 96, 96, 3)
        assert a.labels.shape == (3, 96, 96)
        assert (a.labels == TARGET).any()
        assert not np.array_equal(a.frames, first.draw(seed + 100).frames)


def test_in_a_still_world_the_labels_follow_the_pixels(data: Path) -> None:
    """What is labelled as the target looks alike on all frames: masks move with what they are masks of."""
    source = ClipSource(data, ClipSettings(side=96, real=1.0))
    close = []
    for seed in range(12):
        clip = source.draw(seed)
        means = [clip.frames[t][clip.labels[t] == TARGET].mean() for t in range(3) if (clip.labels[t] == TARGET).any()]
        ground = [clip.frames[t][clip.labels[t] == 0].mean() for t in range(3)]
        close.append(np.ptp(means) < 0.5 * abs(np.mean(means) - np.mean(ground)))
    assert np.mean(close) > 0.8


def test_the_last_frames_of_a_long_stack_are_never_trained_on(data: Path) -> None:
    """Of a stack of 36 frames the last six are held out; one of twelve is too short to share."""
    frames = [np.full((4, 4), t, np.uint8) for t in range(36)]
    masks = [frame.astype(np.int32) for frame in frames]
    parts = []
    for held_out in (False, True):
        source = ClipSource(data, ClipSettings(side=96), held_out=held_out)
        parts.append({int(image[0, 0]) for image in source._part_of(frames, masks)[0]})
        assert len(source._part_of(frames[:12], masks[:12])[0]) == 12
    assert parts == [set(range(30)), set(range(30, 36))]


def test_leaning_moves_the_far_side_and_not_the_centre() -> None:
    """A perspective change leaves the centre in place and makes one side of a square shorter than the other."""
    matrix = clips._leaning(np.array([0.004, 0.0]), (50.0, 50.0))
    corners = np.array([[[x, y] for x, y in ((50, 50), (20, 20), (20, 80), (80, 20), (80, 80))]], np.float32)
    moved = clips._mapped(corners, matrix)[0]
    np.testing.assert_allclose(moved[0], (50, 50), atol=1e-3)
    near, far = np.linalg.norm(moved[2] - moved[1]), np.linalg.norm(moved[4] - moved[3])
    assert near > 1.2 * far


@pytest.mark.parametrize("micro", [False, True], ids=["photograph", "microscope"])
def test_what_stands_in_front_hides_the_target_and_its_label(micro: bool) -> None:
    """Where an occluder is opaque, a clip's frame shows it and its label is 0."""
    rng = np.random.default_rng(3)
    target = np.zeros((80, 80), bool)
    target[20:60, 20:60] = True
    ground = clips.Layer(np.full((80, 80, 3), 40, np.uint8), np.ones((80, 80), np.float32), 0)
    own = clips.Layer(np.full((80, 80, 3), 200, np.uint8), clips.soft_edge(target), TARGET)
    front = clips._occluder(rng, target, micro)
    for layer in (ground, own, front):
        layer.motion, layer.bend = [np.eye(3)], [np.zeros((4, 4, 2), np.float32)]
    frames, labels = clips._draw([ground, own, front], 80, 1)
    hidden = target & (front.alpha > 0.9)
    assert hidden.any()
    assert not labels[0][hidden].any()
    np.testing.assert_allclose(frames[0][hidden].astype(float), front.image[hidden], atol=25)


def test_what_fades_out_of_focus_is_seen_longer_than_it_is_labelled() -> None:
    """A thing that shows less than half has no label, though its trace is still brighter than the ground."""
    target = np.zeros((80, 80), bool)
    target[20:60, 20:60] = True
    ground = clips.Layer(np.full((80, 80, 3), 40, np.uint8), np.ones((80, 80), np.float32), 0)
    own = clips.Layer(np.full((80, 80, 3), 200, np.uint8), target.astype(np.float32), TARGET)
    for layer in (ground, own):
        layer.motion, layer.bend = [np.eye(3)] * 3, [np.zeros((4, 4, 2), np.float32)] * 3
    own.there = [1.0, 0.7, 0.3]
    frames, labels = clips._draw([ground, own], 80, 3)
    assert [bool(label.any()) for label in labels] == [True, True, False]
    np.testing.assert_allclose(frames[:, 40, 40, 0], [200, 152, 88], atol=2)


def test_things_end_or_begin_and_some_leave_a_trace_under_a_microscope() -> None:
    """What ends shows on at least one frame and not fully on another; only under a microscope may it be in between."""
    motion, traces = [np.eye(3)] * 3, {True: 0, False: 0}
    for seed in range(80):
        for micro in traces:
            there = clips._ending(np.random.default_rng(seed), motion, (40.0, 40.0), micro)[1]
            assert max(there) >= clips.PRESENT > min(there)
            assert there in (sorted(there), sorted(there, reverse=True)) or micro
            traces[micro] += any(0 < p < clips.PRESENT for p in there)
    assert traces[True] > 30
    assert traces[False] == 0


def test_a_lone_target_gets_a_look_alike_beside_it() -> None:
    """The double is another object, as large, mostly outside the target."""
    alpha = np.zeros((100, 200), np.float32)
    alpha[30:70, 80:120] = 1
    own = clips.Layer(np.full((100, 200, 3), 90, np.uint8), alpha, TARGET)
    for seed in range(10):
        double = clips._double(np.random.default_rng(seed), own)
        assert double.label == 2
        assert (double.alpha > 0.5).sum() > 1200
        assert ((double.alpha > 0.5) & (alpha > 0.5)).sum() < 500


def test_a_bleaching_microscope_loses_light_and_keeps_order() -> None:
    """Frames stay uint8, of one shape and grey, whatever film is drawn; some clips lose half their light."""
    frames = np.full((4, 48, 48, 3), 120, np.uint8)
    frames[:, 10:30, 10:30] = 220
    falls = []
    for seed in range(60):
        made = clips._light(np.random.default_rng(seed), frames.astype(np.float32) / 255, True, False)
        falls.append(made[-1].mean() / made[0].mean())
        shown = clips.film(np.random.default_rng(seed), frames, True)
        assert (shown.shape, shown.dtype) == (frames.shape, np.uint8)
        assert np.ptp(shown[..., :2].astype(int), axis=-1).max() <= 20  # JPEG may tint a little
    assert min(falls) < 0.55


def test_a_good_camera_keeps_the_colours_of_what_it_films() -> None:
    """A gentle clip in colour may get brighter, blurred or noisy as a whole, but red stays red; others change hue."""
    frames = np.zeros((2, 48, 48, 3), np.uint8)
    frames[..., :] = (200, 100, 40)
    shares = {True: [], False: []}
    for gentle, seen in shares.items():
        for seed in range(30):
            colour = clips.film(np.random.default_rng(seed), frames, False, gentle).mean((0, 1, 2))
            seen.append(colour / colour.sum())
    wanted = np.array([200, 100, 40]) / 340
    assert np.abs(np.array(shares[True]) - wanted).max() < 0.05
    assert np.abs(np.array(shares[False]) - wanted).max() > 0.2


def test_gentle_clips_are_drawn_in_their_share_and_change_no_others(data: Path) -> None:
    """Without them clips are as ever, seed by seed; of 200 stills with a share of a half, about 100 are gentle."""
    plain, none = (ClipSource(data, ClipSettings(side=96, real=0.0, **more)) for more in ({}, {"gentle": 0.0}))
    np.testing.assert_array_equal(plain.draw(3).frames, none.draw(3).frames)
    half = ClipSource(data, ClipSettings(gentle=0.5))
    assert 70 < sum(half._gentle(np.random.default_rng(seed)) for seed in range(200)) < 130


def test_a_run_with_a_small_side_draws_the_side_of_each_step(data: Path, tmp_path: Path) -> None:
    """Steps see both sides in their share, each the same one whenever it comes; a validation sees the large one."""
    settings = settings_for(data, tmp_path, overrides={**TINY, "small": 32, "size": 64}, small=0.3)
    with pytest.raises(InputError, match="small = 32"):
        train.Trainer(settings)
    settings = settings_for(data, tmp_path, overrides={**TINY, "small": 64, "size": 96}, small=0.3)
    trainer = train.Trainer(settings)
    sides = [trainer._size_at(step) for step in range(200)]
    again = train.Trainer(settings)
    assert sides == [again._size_at(step) for step in range(200)]
    assert 30 < sides.count(64) < 90
    assert set(sides) == {64, 96}
    trainer.step = sides.index(64)
    assert trainer.rollout().size == 64
    assert trainer.rollout(96).size == 96
    trainer.export(tmp_path / "model.safetensors")
    found = describe(tmp_path / "model.safetensors")["architecture"]
    assert (found["size"], found["small"]) == (96, 64)


def test_the_held_out_stills_are_never_trained_on(tmp_path: Path) -> None:
    """With enough stills, the two kinds of sources share none."""
    folder = tmp_path / "stills" / "many"
    folder.mkdir(parents=True)
    for k in range(2 * clips.HELD_OUT + 5):
        (folder / f"{k:03d}.jpg").touch()
        (folder / f"{k:03d}_mask.png").touch()
    trained, kept = (ClipSource(tmp_path, held_out=h).stills["many"] for h in (False, True))
    assert kept
    assert not set(trained) & set(kept)
    assert len(trained) + len(kept) == 2 * clips.HELD_OUT + 5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.with_name("0_mask.png").write_bytes(b"no"), "can't be read"),
        (lambda p: cv2.imwrite(str(p.with_name("0_mask.png")), np.zeros((3, 3), np.uint8)), "must agree"),
    ],
    ids=["corrupt", "size"],
)
def test_a_bad_still_is_named(tmp_path: Path, damage, message: str) -> None:
    """A mask that can't be read, or of another size than its image, is an error that names the file."""
    path = tmp_path / "0.jpg"
    cv2.imwrite(str(path), np.zeros((20, 20, 3), np.uint8))
    damage(path)
    with pytest.raises(InputError, match=message):
        clips.read_still(path)


def test_empty_masks_are_passed_over_and_all_empty_is_an_error(tmp_path: Path) -> None:
    """Stills without any object give no clip; a folder of nothing else says so instead of searching for ever."""
    folder = tmp_path / "stills" / "empty"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "0.jpg"), np.zeros((60, 60, 3), np.uint8))
    cv2.imwrite(str(folder / "0_mask.png"), np.zeros((60, 60), np.uint8))
    with pytest.raises(InputError, match="masks empty"):
        ClipSource(tmp_path, ClipSettings(side=96, procedural=0.0, volumes=0.0)).draw(0)
    with pytest.raises(InputError, match="no stills"):
        ClipSource(tmp_path / "stills")


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    """A still that has no mask beside it is an error that says which, not a picture that is quietly left out."""
    folder = tmp_path / "stills" / "some"
    folder.mkdir(parents=True)
    for name in ("a.jpg", "a_mask.png", "b.jpg"):
        (folder / name).touch()
    with pytest.raises(InputError, match=r"1 of 2 images have no mask, the first is b\.jpg"):
        ClipSource(tmp_path)


def test_an_empty_mask_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log names an image whose mask is empty, once, and clips come from the others."""
    folder = tmp_path / "stills" / "some"
    folder.mkdir(parents=True)
    image, labels = picture(np.random.default_rng(0))
    for name, mask in (("a", labels), ("b", np.zeros_like(labels))):
        cv2.imwrite(str(folder / f"{name}.jpg"), image)
        cv2.imwrite(str(folder / f"{name}_mask.png"), mask)
    source = ClipSource(tmp_path, ClipSettings(side=96, procedural=0.0, volumes=0.0))
    for seed in range(12):
        source.draw(seed)
    assert [record.getMessage().count("b.jpg: its mask is empty") for record in caplog.records] == [1]


def gradients_by_rank(rank: int) -> list[torch.nn.Parameter]:
    """Two parameters, one laid out channels last; the second has a gradient in the first process only."""
    weights = torch.nn.Parameter(torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last))
    bias = torch.nn.Parameter(torch.zeros(7))
    values = torch.arange(120.0).view(2, 3, 4, 5) * (1 + rank)
    weights.grad = values.contiguous(memory_format=torch.channels_last)
    bias.grad = None if rank else torch.full((7,), 4.0)
    return [weights, bias]


def average_own(share: Share) -> None:
    """What the other process of a test does: its part of the mean."""
    share.average_gradients(gradients_by_rank(share.rank))


def fail(share: Share) -> None:
    """What the other process of a test does: it meets a file that it can't read."""
    raise InputError(f"image of process {share.rank} can't be read")


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes find this file's functions."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent)


@pytest.mark.usefixtures("importable")
def test_processes_take_the_mean_of_their_gradients() -> None:
    """Of two processes' gradients the mean is left, in the parameters' own layout; a missing one counts as 0."""
    with sharing(2, average_own) as share:
        weights, bias = gradients_by_rank(0)
        share.average_gradients([weights, bias])
    assert torch.equal(weights.grad, torch.arange(120.0).view(2, 3, 4, 5) * 1.5)
    assert weights.grad.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(bias.grad, torch.full((7,), 2.0))
    assert not multiprocessing.active_children()


def test_a_process_that_cannot_start_is_no_wait_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that another process cannot even import ends the run with that process's exit code."""
    nowhere = types.ModuleType("a_module_of_this_process_alone")
    exec("def work(share): pass", nowhere.__dict__)
    monkeypatch.setitem(sys.modules, nowhere.__name__, nowhere)
    with pytest.raises(RuntimeError, match="ended with code 1 before"), sharing(2, nowhere.work):
        raise AssertionError("it began")
    assert not multiprocessing.active_children()


@pytest.mark.usefixtures("importable")
def test_what_ends_another_process_ends_the_run_in_its_words() -> None:
    """The first process, which waits for a gradient that never comes, raises what the other one met."""
    with (
        pytest.raises(InputError, match=r"^image of process 1 can't be read$"),
        sharing(2, fail) as share,
    ):
        share.average_gradients(gradients_by_rank(0))
    assert not multiprocessing.active_children()


def test_processes_that_share_steps_are_one_run(data: Path, tmp_path: Path) -> None:
    """A run of two processes that was stopped half-way goes on to the very weights of one that was not."""
    for name, steps in (("whole", 4), ("parts", 2), ("parts", 4)):
        train.train(settings_for(data, tmp_path / name, steps=steps, processes=2), tell=lambda _: None)
    whole, parts = (load_file(tmp_path / name / train.CHECKPOINT) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())


def test_processes_make_the_clips_of_one_between_them(data: Path, tmp_path: Path) -> None:
    """The clips of two processes are, one after the other, those that one process would make."""
    settings = settings_for(data, tmp_path, batch=4)
    source = ClipSource(data, settings.clips)
    alone, first, second = (
        train.ClipDataset(source, settings, 3, share)[0] for share in (None, Share(0, 2), Share(1, 2))
    )
    assert len(alone) == 4
    for a, b in zip(alone, [*first, *second], strict=True):
        np.testing.assert_array_equal(a.frames, b.frames)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_file_ends_a_run_by_name_and_leaves_a_checkpoint(data: Path, tmp_path: Path, workers: int) -> None:
    """The error of a worker process reaches the user as it was, one line that names the file; the steps are kept."""
    root = tmp_path / "data"
    (root / "stills" / "one").mkdir(parents=True)
    (root / "stills" / "one" / "a.jpg").write_bytes(b"no image")
    (root / "stills" / "one" / "a_mask.png").write_bytes(b"no mask")
    settings = settings_for(root, tmp_path / "out", workers=workers, clips={**CLIPS, "procedural": 0.0, "volumes": 0.0})
    with pytest.raises(InputError) as caught:
        train.train(settings, tell=lambda line: None)
    assert str(caught.value).endswith("a.jpg: the image or its mask can't be read; is the file damaged?")
    assert (tmp_path / "out" / train.CHECKPOINT).exists()
    assert not multiprocessing.active_children()  # nothing that the program would wait for when it ends


def test_filled_holes_show_nothing_of_what_was_there() -> None:
    """After a bright disc is taken out of a dark picture, its place is dark."""
    image = np.full((80, 80, 3), 30, np.uint8)
    hole = np.zeros((80, 80), bool)
    hole[20:60, 30:70] = True
    image[hole] = 250
    assert clips.fill_holes(image, hole)[hole].max() < 60


# --- the annotator ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", annotator.STYLES)
def test_strokes_of_every_style_are_drawn_on_the_object(style: str) -> None:
    """Nearly all of a stroke's points lie on or by the mask it is drawn on, whatever its style and the mask's shape."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(20):
        radius = float(rng.uniform(5, 60))
        mask = clips.blob(rng, 200, rng.uniform(80, 120, 2), radius)
        line = annotator.draw_on(mask, rng, style)[0]
        cells = np.clip(np.rint(line).astype(int), 0, 199)
        reach = 7 if style != "circle" else 7 + 2 * int(0.3 * radius)
        near = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))) > 0
        shares.append(near[tuple(cells.T)].mean())
    assert np.mean(shares) > 0.85


def test_a_circle_goes_around_and_comes_back() -> None:
    """A loop by the outline of a disc turns once about its centre, and ends where it began."""
    mask = np.zeros((120, 120), np.uint8)
    cv2.circle(mask, (60, 60), 30, 1, -1)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        line = annotator._loop(mask > 0, cv2.distanceTransform(mask, cv2.DIST_L2, 3), rng) - 60
        turn = np.unwrap(np.arctan2(line[:, 0], line[:, 1]))
        assert abs(abs(turn[-1] - turn[0]) - 2 * np.pi) < 0.2
        assert (np.linalg.norm(line, axis=1) > 15).all()


def test_some_strokes_slip_over_the_edge_and_none_leaves_the_image() -> None:
    """On a narrow bar some strokes end beyond the mask, most do not, and every point lies in the image."""
    bar = np.zeros((60, 120), bool)
    bar[26:34, 3:117] = True
    beyond = 0
    for seed in range(60):
        line = annotator.draw_on(bar, np.random.default_rng(seed), "part")[0]
        cells = np.rint(line).astype(int)
        assert (cells >= 0).all()
        assert (cells < bar.shape).all()
        beyond += not bar[cells[0, 0], cells[0, 1]] or not bar[cells[-1, 0], cells[-1, 1]]
    assert 0 < beyond < 30


def test_negatives_lie_beside_the_object_or_on_its_neighbours() -> None:
    """First strokes of the background lie on background, and near the object; those of others on a neighbour."""
    labels = np.zeros((160, 160), np.uint8)
    cv2.circle(labels, (60, 80), 22, 7, -1)
    cv2.circle(labels, (112, 80), 22, 3, -1)
    kinds = set()
    for seed in range(60):
        for stroke in annotator.first_strokes(labels, 7, np.random.default_rng(seed)):
            cells = np.clip(np.rint(stroke.points).astype(int), 0, 159)
            under = labels[tuple(cells.T)]
            kinds.add(stroke.object_id)
            if stroke.object_id == 0:
                assert (under == 0).mean() > 0.9
                assert np.linalg.norm(cells - (80, 60), axis=1).min() < 70
            elif stroke.object_id == 2:
                assert (under != 7).mean() > 0.9
    assert kinds == {0, 1, 2}


def test_the_medial_path_runs_from_end_to_end() -> None:
    """The path along a bar goes along its axis for most of its length; along a ring it stays on the ring."""
    bar = np.zeros((20, 100), bool)
    bar[6:14, 5:95] = True
    path = annotator.medial_path(bar)
    assert np.ptp(path[:, 1]) > 75
    assert np.abs(path[:, 0] - 9.5).mean() < 1.5
    ring = np.zeros((60, 60), np.uint8)
    cv2.circle(ring, (30, 30), 20, 1, 5)
    around = annotator.medial_path(ring > 0)
    assert ring[tuple(around.astype(int).T)].all()
    assert annotator.medial_path(np.ones((1, 1), bool)).shape == (1, 2)


def test_corrections_tell_misses_from_false_alarms() -> None:
    """A missed half gets a stroke of the object on it, a false alarm one of the background, a right mask none."""
    truth = np.zeros((100, 100), bool)
    truth[20:60, 20:60] = True
    predicted = np.zeros_like(truth)
    predicted[20:60, 20:40] = predicted[70:95, 60:95] = True
    strokes = annotator.corrections(truth, predicted, np.random.default_rng(0))
    middle = {s.object_id: s.points.mean(0) for s in strokes}
    assert set(middle) == {0, 1}
    assert 35 < middle[1][1] < 65
    assert middle[0][0] > 65
    assert annotator.corrections(truth, truth, np.random.default_rng(0)) == []
    right = []
    for seed in range(30):
        for stroke in annotator.corrections(truth, predicted, np.random.default_rng(seed)):
            cells = np.clip(np.rint(stroke.points).astype(int), 0, 99)
            right.append((truth[tuple(cells.T)] == (stroke.object_id == 1)).mean())
    assert np.mean(right) > 0.9


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data = 'd'\noutput = 'o'\nstep = 3", "unknown key 'step'"),
        ("data = 'd'", "'output' is missing"),
        ("data = 'd'\noutput = 'o'\nsteps = 'many'", "expected int"),
        ("data = 'd'\noutput = 'o'\nbatch = true", "expected int"),
        ("data = 'd'\noutput = 'o'\n[clips]\nsides = 3", r"\[clips\]: unknown key 'sides'"),
        ("data = ", "not TOML"),
        ("data = 'd'\noutput = 'o'\nsteps = 3\n[[stages]]\nsteps = 4", "have 4 together"),
        ("data = 'd'\noutput = 'o'\n[[stages]]\nsteps = 4\nsize = 100", "multiple of 32"),
        ("data = 'd'\noutput = 'o'\n[[stages]]\nsize = 128", r"\[\[stages\]\] 1: the key 'steps' is missing"),
        ("data = 'd'\noutput = 'o'\n[[stages]]\nsteps = 4\n[stages.clips]\nside = 'x'", "1 .clips.: side"),
        ("data = 'd'\noutput = 'o'\nstages = 3", r"expected tables \[\[stages\]\]"),
        ("data = 'd'\noutput = 'o'\nfrozen = 'interaction.'", r"expected list\[str\]"),
        ("data = 'd'\noutput = 'o'\nfrozen = ['']", "expected beginnings of parameters' names"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, text: str, message: str) -> None:
    """An unknown or missing key, a value of another type and a broken file each give an error that names it."""
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        TrainingSettings.from_toml(path)


def test_settings_survive_their_own_dictionary(tmp_path: Path) -> None:
    """Paths are relative to the file, and what is written into a checkpoint makes the same settings again."""
    path = tmp_path / "run.toml"
    path.write_text("data = 'd'\noutput = 'o'\nlearning_rate = 1e-3\n[clips]\nside = 128\nexclude = ['a']")
    settings = TrainingSettings.from_toml(path, steps=5)
    assert settings.data == str(tmp_path / "d")
    assert (settings.steps, settings.clips.side, settings.clips.exclude) == (5, 128, ("a",))
    assert TrainingSettings.from_dict(settings.to_dict()) == settings


def test_stages_follow_each_other_and_take_over_what_they_do_not_say(tmp_path: Path) -> None:
    """Each step belongs to one stage; clips of a stage are the run's own but for what its table changes."""
    path = tmp_path / "run.toml"
    path.write_text(
        "data = 'd'\noutput = 'o'\n[clips]\nside = 128\n[[stages]]\nsteps = 3\nsize = 128\n[[stages]]\nsteps = 2\n"
        "[stages.clips]\nframes = 4\nreal = 0.5"
    )
    settings = TrainingSettings.from_toml(path)
    assert settings.steps == 5
    first, second = settings.stages
    assert first == Stage(3, 128, settings.clips)
    assert (second.clips.side, second.clips.frames, second.clips.real) == (128, 4, 0.5)
    assert [settings.stage_at(k) for k in range(7)] == [first] * 3 + [second] * 4
    assert TrainingSettings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("overrides", "message"), [({"sise": 128}, "'sise'.*known are encoder, size"), ({"size": 100}, "multiple of 32")]
)
def test_overrides_that_make_no_architecture_are_named(data: Path, tmp_path: Path, overrides, message: str) -> None:
    """An unknown field, or a size that does not halve five times, is an error before anything is built."""
    with pytest.raises(InputError, match=message):
        train.Trainer(settings_for(data, tmp_path, overrides=overrides))


RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_that_ship_can_be_read(path: Path) -> None:
    """Each recipe is a whole set of settings whose networks exist."""
    settings = TrainingSettings.from_toml(path)
    assert settings.steps > 0
    assert train._architecture(settings).size in (128, 192, 256)


# --- the run --------------------------------------------------------------------------------------------------------


def test_thirty_steps_lower_the_loss_and_the_weights_round_trip(data: Path, tmp_path: Path) -> None:
    """After thirty steps the loss has fallen, and the exported file loads as a model of that architecture."""
    losses = []
    settings = settings_for(
        data,
        tmp_path,
        batch=2,
        corrections=0.0,
        overrides={**TINY, "encoder": "resnet18"},
        learning_rate=1e-3,
        validation_clips=4,
    )
    trainer = train.Trainer(settings)
    shown = [picture(np.random.default_rng(7), shift=t) for t in range(2)]
    frames, labels = (np.stack(part)[:, 20:116, :96] for part in zip(*shown, strict=True))
    batch = [clips.Clip(frames, (labels == 1).astype(np.uint8), np.ones(2, bool), "disc")] * 2
    for _ in range(30):
        outcome = trainer.advance(batch, trainer.rollout())
        losses.append(float((outcome.losses["wide"] + outcome.losses["close"]).detach()))
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    trainer.export(tmp_path / "m.safetensors", name="thirty")
    model = load_model(tmp_path / "m.safetensors", device="cpu")
    assert (model.name, model.size) == ("thirty", 64)
    for key, value in model.interaction.state_dict().items():
        torch.testing.assert_close(value, trainer.average[f"interaction.{key}"], atol=1e-3, rtol=1e-3)
    scores = trainer.validate(ClipSource(data, settings.clips, held_out=True))
    assert set(scores) == {"close", "propagated", "corrected", "again"}


def test_what_is_frozen_keeps_its_weights_and_the_rest_learns(data: Path, tmp_path: Path) -> None:
    """A step moves no parameter whose name begins as said, and others; a name that there is not is an error."""
    frozen = ["interaction.encoder.", "propagation."]
    settings = settings_for(data, tmp_path, frozen=frozen, batch=2, corrections=1.0)
    trainer = train.Trainer(settings)
    before = {k: v.clone() for k, v in trainer.networks.state_dict().items()}
    batch = train.ClipDataset(ClipSource(data, settings.clips), settings, 0)[0]
    trainer.advance(batch, trainer.rollout())
    moved = {k for k, v in trainer.networks.state_dict().items() if not torch.equal(v, before[k])}
    assert moved
    assert not [k for k in moved if k.startswith(tuple(frozen))]
    assert any(k.startswith("interaction.decoder.") for k in moved)
    with pytest.raises(InputError, match="no parameter's name begins with 'decoder'"):
        train.Trainer(settings_for(data, tmp_path, frozen=["decoder"]))
    with pytest.raises(InputError, match="nothing is left to learn"):
        train.Trainer(settings_for(data, tmp_path, frozen=["interaction.", "propagation."]))


@pytest.mark.parametrize("finished", [0.0, 1.0], ids=["as segmented", "true"])
def test_finished_masks_are_the_truth(data: Path, tmp_path: Path, monkeypatch, finished: float) -> None:
    """Fresh networks' masks stay what they are, or are the truth to the pixel where users are said to finish all."""
    for share in ("EXACT", "SPOILED", "SPOILED_TORN", "WEATHERED"):
        monkeypatch.setattr(rollout, share, 0.0)
    settings = settings_for(data, tmp_path, finished=finished, batch=4, corrections=1.0)
    trainer = train.Trainer(settings)
    loop = trainer.rollout()
    trainer.advance(train.ClipDataset(ClipSource(data, settings.clips), settings, 0)[0], loop)
    right = [track.jaccard(t) == 1 for track in loop.tracks for t in track.annotated]
    assert len(right) > len(loop.tracks), "some clips were corrected on a second frame"
    assert set(right) == {bool(finished)}


def test_stages_change_the_region_in_mid_run_and_across_a_stop(data: Path, tmp_path: Path) -> None:
    """Two steps at 64 px and two at 96 px, stopped in between: a model of 96 px, the same as without a stop."""
    ends = []
    stages = [{"steps": 2, "size": 64, "clips": CLIPS}, {"steps": 2, "size": 96, "clips": {**CLIPS, "frames": 4}}]
    for name in ("whole", "parts"):
        settings = settings_for(data, tmp_path / name, steps=4, stages=stages, batch=2)
        if name == "parts":
            trainer = train.Trainer(settings)
            batches = train.ClipDataset(ClipSource(data, settings.clips), settings, 0)
            assert [batches[n][0].frames.shape[0] for n in (0, 2)] == [3, 4]
            for n in range(2):
                trainer.advance(batches[n], trainer.rollout())
            assert trainer.architecture.size == 64
            (tmp_path / name).mkdir()
            trainer.save(tmp_path / name)
        lines: list[str] = []
        train.train(settings, tell=lines.append)
        assert any("stage 2 of 2: 2 steps at 96 px" in line for line in lines)
        ends.append(load_model(tmp_path / name / train.EXPORT, device="cpu"))
    assert [model.size for model in ends] == [96, 96]
    first, second = (model.propagation.state_dict() for model in ends)
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_bfloat16_trains_on_a_cpu(data: Path, tmp_path: Path) -> None:
    """Two steps in autocast end in finite weights, near those in float32 and not the same."""
    ends = []
    for amp in (False, True):
        settings = settings_for(data, tmp_path, amp=amp, batch=2, overrides={**TINY, "encoder": "resnet18"})
        trainer = train.Trainer(settings)
        batches = train.ClipDataset(ClipSource(data, settings.clips), settings, 0)
        outcomes = [trainer.advance(batches[n], trainer.rollout()) for n in range(2)]
        ends.append([float(o.losses["wide"].detach()) for o in outcomes])
    assert np.isfinite(ends).all()
    assert ends[0] != ends[1]
    np.testing.assert_allclose(ends[0][0], ends[1][0], rtol=0.05)


def test_a_run_leaves_curves_examples_events_and_a_card(data: Path, tmp_path: Path, monkeypatch) -> None:
    """After a run there are PNGs, events that TensorBoard reads, and a card that names the data's licences."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(train, "ROW_STEPS", 1)
    rows = ("source | repository | licence", "---|---|---", "discs | here | CC0", "seq | there | CC BY-SA 4.0")
    (data / card.SOURCES).write_text("".join(f"| {row} |\n" for row in rows))
    settings = settings_for(data, tmp_path, steps=2, batch=2, validate_every=2, validation_clips=2)
    train.train(settings, tell=lambda line: None)
    for name in (journal.CURVES, journal.EXAMPLES):
        assert cv2.imread(str(tmp_path / name)).std() > 5
    events = EventAccumulator(str(tmp_path / journal.EVENTS))
    events.Reload()
    assert [e.step for e in events.Scalars("train/loss/close")] == [1, 2]
    assert [e.step for e in events.Scalars("held_out/J/close")] == [2]
    assert events.Images("examples")[0].step == 2
    text = (tmp_path / train.CARD).read_text()
    assert "| discs | here | CC0 |" in text
    assert "| **seq** | there | **CC BY-SA 4.0** |" in text
    assert "Share-alike: seq." in text
    assert "2 steps of 2" in text
    assert "| dsb2018_nuclei | not stated | not stated |" in text
    assert str(tmp_path) not in text
    toml = text.split("```toml\n")[1].split("```")[0]
    (tmp_path / "again.toml").write_text(toml)
    again = TrainingSettings.from_toml(tmp_path / "again.toml")
    assert (again.clips, again.overrides, again.steps) == (settings.clips, settings.overrides, settings.steps)


def test_models_on_the_way_are_kept_and_say_their_hours(data: Path, tmp_path: Path) -> None:
    """With keep_hours a run leaves a model and its card each time so many hours are over; each says how many."""
    trainer = train.Trainer(settings_for(data, tmp_path, keep_hours=0.5))
    source = ClipSource(data, trainer.settings.clips)
    loop = train._Loop(trainer, source, tmp_path, journal.Journal(tmp_path), lambda line: None, train.Interrupts())
    for hours in (0.2, 0.4, 0.8, 0.9, 1.25):
        trainer.hours = hours
        loop._keep()
    loop.journal.close()
    kept = sorted(path.name for path in tmp_path.glob("model_*"))
    assert kept == [f"model_{hours}h.{end}" for hours in ("0.80", "1.25") for end in ("md", "safetensors")]
    assert describe(tmp_path / "model_0.80h.safetensors")["hours"] == "0.80"


def test_the_mean_of_two_models_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`scripts/average.py` gives a file that loads, with half the sum of the weights; two architectures are refused.

    Those of other sizes of region are not: the first one's size is the mean's.
    """
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    from average import average

    for name, change in (("a", {}), ("b", {}), ("c", {"width": 8}), ("d", {"size": 96, "small": 64})):
        architecture = Architecture(**{**TINY, **change})
        (tmp_path / name).write_bytes(to_bytes(*new_networks(architecture), architecture, steps="5", hours="0.5"))
    (tmp_path / "mean.safetensors").write_bytes(average([tmp_path / "a", tmp_path / "b"], "mean"))
    a, b, mean = (load_file(tmp_path / name) for name in ("a", "b", "mean.safetensors"))
    weight = next(key for key, value in a.items() if value.ndim == 4)
    half = (a[weight].double() + b[weight].double()) / 2
    assert torch.allclose(mean[weight].double(), half, atol=1e-3)
    assert not torch.equal(a[weight], b[weight])
    assert {k: describe(tmp_path / "mean.safetensors")[k] for k in ("name", "hours")} == {
        "name": "mean",
        "hours": "1.00",
    }
    (tmp_path / "soup.safetensors").write_bytes(average([tmp_path / "a", tmp_path / "b"], "soup", one_run=True))
    assert describe(tmp_path / "soup.safetensors")["hours"] == "0.50"
    assert load_model(tmp_path / "mean.safetensors", device="cpu").size == 64
    (tmp_path / "sizes.safetensors").write_bytes(average([tmp_path / "d", tmp_path / "a"], "sizes"))
    both = load_model(tmp_path / "sizes.safetensors", device="cpu").architecture
    assert (both.size, both.small) == (96, 64)
    with pytest.raises(InputError, match="2 architectures"):
        average([tmp_path / "a", tmp_path / "c"], "mean")


def test_a_log_drops_what_comes_after_the_checkpoint(tmp_path: Path) -> None:
    """A run that goes on from step 2 finds rows up to step 2 only; a cut last line goes, another file is refused."""
    log = journal.Journal(tmp_path)
    for step in (1, 2, 3):
        log.note(step, 0.1, 1 / step)
    log.close()
    with (tmp_path / journal.LOG).open("a") as file:
        file.write("4,0.1,step,lo")
    journal.Journal(tmp_path, 2).close()
    assert curve(tmp_path) == [(1, "loss", 1.0), (2, "loss", 0.5)]
    (tmp_path / journal.LOG).write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no log of a training run"):
        journal.Journal(tmp_path)


def test_pictures_show_masks_and_strokes() -> None:
    """A target's outline is orange, another object's blue, a background stroke red; a sheet keeps all in rows."""
    frame = np.full((40, 40, 3), 100, np.uint8)
    labels = np.zeros((40, 40), np.uint8)
    labels[5:15, 5:15], labels[25:35, 25:35] = TARGET, 2
    picture_ = pictures.draw_frame(frame, labels, labels == TARGET, zoom=2)
    assert picture_.shape == (80, 80, 3)
    assert (picture_ == pictures.OWN).all(-1).any()
    assert (picture_ == pictures.OTHER).all(-1).any()
    drawn = pictures.draw_strokes(picture_, [Stroke(0, np.array([[20.0, 2.0], [20.0, 30.0]]))], zoom=2)
    assert (drawn == pictures.STROKE_COLOURS[0]).all(-1).sum() > 40
    assert pictures.sheet([[drawn, drawn], [drawn]]).shape == (163, 163, 3)


def test_a_model_from_before_motion_starts_one_that_follows_it(data: Path, tmp_path: Path) -> None:
    """The new network does what the old one did as long as it is told of no change; other shapes are refused."""
    old = tmp_path / "old.safetensors"
    torch.manual_seed(0)
    plain = Architecture(**TINY, residual_masks=True)
    old.write_bytes(to_bytes(*new_networks(plain), plain))
    overrides = {**TINY, "residual_masks": True, "motion": True}
    settings = TrainingSettings(str(data), str(tmp_path / "out"), overrides=overrides, start_from=str(old))
    new, before = train.Trainer(settings), load_model(old, device="cpu")
    assert new.architecture.motion
    image, planes = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    reference = before.interaction(image, planes)[1]
    valid = torch.ones(2, 1, dtype=torch.bool)
    unchanged = torch.cat([planes[:, :2], torch.zeros(2, 1, 64, 64)], 1)
    was = before.propagation(image, planes[:, :2], before.propagation.memorise([reference], valid))
    now = new.propagation(image, unchanged, new.propagation.memorise([reference], valid))
    assert len(was) == 4
    for a, b in zip(was, now, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("deep", [False, True])
def test_a_narrow_model_starts_a_wider_one(deep: bool, data: Path, tmp_path: Path) -> None:
    """The wider networks do what the narrow ones did and learn on; narrower ones and other keys are refused."""
    old = tmp_path / "old.safetensors"
    torch.manual_seed(0)
    kind = {**TINY, "residual_masks": True, "motion": True, "deep_laterals": deep}
    narrow = Architecture(**kind)
    networks = new_networks(narrow)
    for p in (q for network in networks for q in network.parameters()):
        torch.nn.init.normal_(p, std=0.05)  # nothing is 0 by chance
    old.write_bytes(to_bytes(*networks, narrow))
    widths = {"width": narrow.width + 8, "fine_width": narrow.fine_width + 4}
    settings = TrainingSettings(str(data), str(tmp_path / "w"), overrides={**kind, **widths}, start_from=str(old))
    wide, before = train.Trainer(settings), load_model(old, device="cpu")
    image, planes = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    valid = torch.ones(2, 1, dtype=torch.bool)
    was, known = before.interaction(image, planes)
    now, wider = wide.interaction(image, planes)
    torch.testing.assert_close(wider.value[:, : narrow.width], known.value[:, :-1])
    torch.testing.assert_close(wider.value[:, -1], known.value[:, -1])
    was += before.propagation(image, planes, before.propagation.memorise([known], valid))
    now += wide.propagation(image, planes, wide.propagation.memorise([wider], valid))
    assert len(was) == 8
    for a, b in zip(was, now, strict=True):
        torch.testing.assert_close(a, b)
    sum(x.sum() for x in now).backward()
    extra = wide.propagation.decoder.heads[3].weight.grad[:, narrow.fine_width :]
    assert extra.abs().sum() > 0
    for other in ({"width": narrow.width - 4}, {"key": narrow.key + 8}):
        settings = TrainingSettings(str(data), str(tmp_path / "n"), overrides={**kind, **other}, start_from=str(old))
        with pytest.raises(WeightsError, match="another architecture"):
            train.Trainer(settings)


def test_a_spoilt_mask_has_lost_a_side_or_won_a_piece() -> None:
    """Every fault leaves part of the mask; pieces too much lie on it or beside it, and both kinds come up."""
    labels = np.zeros((96, 96), np.uint8)
    labels[20:60, 20:60], labels[20:60, 62:90] = TARGET, 2
    mask = labels == TARGET
    lost = won = 0
    for seed in range(60):
        spoilt = rollout.spoil(mask, labels, np.random.default_rng(seed))
        missing, extra = np.count_nonzero(mask & ~spoilt), np.count_nonzero(spoilt & ~mask)
        assert np.count_nonzero(spoilt & mask) >= 0.1 * np.count_nonzero(mask)
        assert not (missing and extra)
        lost += missing > 0
        won += extra > 0
    assert lost > 25
    assert won > 5


def test_of_a_torn_mask_one_part_is_left() -> None:
    """Of a mask that a post cuts in two, four of five faults leave one whole side and nothing of the other."""
    mask = np.zeros((96, 96), bool)
    mask[30:70, 20:40] = mask[30:70, 48:75] = True
    labels = np.where(mask, TARGET, 0).astype(np.uint8)
    sides = [mask & (np.arange(96) < 44), mask & (np.arange(96) > 44)]
    spoilt = [rollout.spoil(mask, labels, np.random.default_rng(seed)) for seed in range(60)]
    left = [sum(np.array_equal(s, side) for s in spoilt) for side in sides]
    assert min(left) > 12
    assert sum(left) > 40


def test_a_mask_of_a_few_pixels_is_not_spoilt() -> None:
    """Nothing could be told from what would be left."""
    mask = np.zeros((20, 20), bool)
    mask[4:7, 4:8] = True
    np.testing.assert_array_equal(rollout.spoil(mask, mask.astype(np.uint8), np.random.default_rng(0)), mask)


def test_an_encoder_starts_from_a_state_dict_on_disk(data: Path, tmp_path: Path) -> None:
    """Torchvision's ResNet weights, as .pth or .safetensors, start both encoders; anything else is refused by name."""
    import torchvision
    from safetensors.torch import save_file

    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(state, tmp_path / "r.pth")
    save_file(state, tmp_path / "r.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    overrides = {**TINY, "encoder": "resnet18"}
    for name in ("r.pth", "r.safetensors"):
        trainer = train.Trainer(settings_for(data, tmp_path, overrides=overrides, imagenet=str(tmp_path / name)))
        for network in (trainer.interaction, trainer.propagation):
            assert torch.equal(network.encoder.conv1.weight, state["conv1.weight"])
    for name, message in (("list.pth", "holds a list"), ("bad.pth", "no plain state"), ("none.pth", "can't be read")):
        with pytest.raises(WeightsError, match=message):
            train.read_imagenet(tmp_path / name)


def curve(folder: Path, kind: str = journal.STEP) -> list[tuple[int, str, float]]:
    """Steps, names and values of the rows of one kind, without those that tell time."""
    rows = journal.read_log(folder / journal.LOG)
    timed = ("seconds a step", "waiting share")
    return [(step, name, value) for step, _, k, name, value in rows if k == kind and name not in timed]


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(data: Path, tmp_path: Path, monkeypatch) -> None:
    """Six steps at once, and three, a checkpoint and three more, end in the same weights and curve to the last bit."""
    monkeypatch.setattr(train, "ROW_STEPS", 2)
    ends = []
    for name, stops in (("whole", (6,)), ("parts", (3, 6))):
        for stop in stops:
            settings = settings_for(data, tmp_path / name, steps=stop, cool_down=0, batch=2)
            train.train(settings, tell=lambda line: None)
        ends.append(train.Trainer(settings))
        assert ends[-1].resume(tmp_path / name)
        assert ends[-1].step == 6
    first, second = (t.networks.state_dict() for t in ends)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert all(torch.equal(ends[0].average[k], ends[1].average[k]) for k in first)
    assert len(curve(tmp_path / "whole")) == 6
    assert curve(tmp_path / "whole") == curve(tmp_path / "parts")
    assert curve(tmp_path / "whole", journal.TRAIN) == curve(tmp_path / "parts", journal.TRAIN)


def test_two_runs_with_one_seed_have_one_curve(data: Path, tmp_path: Path) -> None:
    """The loss of every step is the same number twice; with another seed it is another.

    ``IVOS_TRAINING_STEPS=200`` makes the runs as long as one wants to know of.
    """
    steps = int(os.environ.get("IVOS_TRAINING_STEPS", "4"))
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        settings = settings_for(data, tmp_path / name, steps=steps if name != "c" else 2, batch=2, seed=seed)
        train.train(settings, tell=lambda line: None)
    assert len(curve(tmp_path / "a")) == steps
    assert curve(tmp_path / "a") == curve(tmp_path / "b")
    assert curve(tmp_path / "c")[0] != curve(tmp_path / "a")[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_that_end_programs_are_interrupts(number: int) -> None:
    """Ctrl-C and a cluster's SIGTERM stop a run the same way, and the handlers are as before afterwards."""
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), train.interruptible():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(data: Path, tmp_path: Path, monkeypatch) -> None:
    """An interrupt in the middle writes the checkpoint of the steps done and names the folder."""
    real, lines = train.Trainer.advance, []

    def interrupted(self, batch, rollout):
        if self.step == 2:
            raise KeyboardInterrupt
        return real(self, batch, rollout)

    monkeypatch.setattr(train.Trainer, "advance", interrupted)
    settings = settings_for(data, tmp_path, batch=2)
    with pytest.raises(KeyboardInterrupt):
        train.train(settings, tell=lines.append)
    assert "goes on from the checkpoint" in lines[-1]
    trainer = train.Trainer(settings)
    assert trainer.resume(tmp_path)
    assert trainer.step == 2


def test_a_signal_in_the_middle_of_a_step_waits_for_its_end(data: Path, tmp_path: Path, monkeypatch) -> None:
    """SIGTERM while the optimiser works ends the run after that step; gone on with, the curve is that of one run."""
    real, ends = torch.optim.AdamW.step, []

    def hit(self, *arguments):
        real(self, *arguments)
        if not ends:
            ends.append(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    settings = settings_for(data, tmp_path / "whole", steps=2, batch=1)
    train.train(settings, tell=lambda line: None)
    monkeypatch.setattr(torch.optim.AdamW, "step", hit)
    settings = settings_for(data, tmp_path / "parts", steps=2, batch=1)
    with pytest.raises(KeyboardInterrupt):
        train.train(settings, tell=lambda line: None)
    assert [step for step, _, _ in curve(tmp_path / "parts")] == [1]
    train.train(settings, tell=lambda line: None)
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


@pytest.mark.skipif(not hasattr(signal, "SIGCONT"), reason="Windows stops no process that way")
@pytest.mark.parametrize("slept", [True, False])
def test_hours_in_which_the_process_was_stopped_are_no_training(data: Path, tmp_path: Path, monkeypatch, slept) -> None:
    """A step that took an hour counts as one, but not where the process slept meanwhile (SIGSTOP, then SIGCONT)."""
    real, real_clock, ahead = torch.optim.AdamW.step, time.monotonic, [0.0]

    def long_step(self, *arguments):
        real(self, *arguments)
        if not ahead[0]:
            ahead[0] = 3600.0
            if slept:
                signal.raise_signal(signal.SIGCONT)

    monkeypatch.setattr(torch.optim.AdamW, "step", long_step)
    monkeypatch.setattr(train.time, "monotonic", lambda: real_clock() + ahead[0])
    settings = settings_for(data, tmp_path, steps=2, batch=1)
    train.train(settings, tell=lambda line: None)
    trainer = train.Trainer(settings)
    trainer.resume(tmp_path)
    assert 0 < trainer.hours < 0.5 if slept else 1 < trainer.hours < 1.5


def test_a_checkpoint_of_another_architecture_is_refused(data: Path, tmp_path: Path) -> None:
    """Changing the architecture under a run is an error that shows both; a damaged checkpoint is one too."""
    train.Trainer(settings_for(data, tmp_path)).save(tmp_path)
    other = train.Trainer(settings_for(data, tmp_path, overrides={**TINY, "width": 24}))
    with pytest.raises(WeightsError, match=r"'width': \(16, 24\)"):
        other.resume(tmp_path)
    path = tmp_path / train.CHECKPOINT
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="damaged"):
        other.resume(tmp_path)


def full(_: int) -> None:
    """What a full disk answers."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_earlier_checkpoint_whole(data: Path, tmp_path: Path, monkeypatch) -> None:
    """When a checkpoint can't be written, the error says so and the one before it still loads."""
    trainer = train.Trainer(settings_for(data, tmp_path))
    trainer.save(tmp_path)
    before = (tmp_path / train.CHECKPOINT).read_bytes()

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        trainer.save(tmp_path)
    assert (tmp_path / train.CHECKPOINT).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [train.CHECKPOINT]


def test_a_full_disk_leaves_the_log_of_a_run_whole(tmp_path: Path, monkeypatch) -> None:
    """A run that can't go on because the disk is full has lost nothing of its log."""
    first = journal.Journal(tmp_path)
    for step in range(1, 200):
        first.note(step, 0.1, 1.0)
    first.close()
    before = (tmp_path / journal.LOG).read_bytes()
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        journal.Journal(tmp_path, 150)
    assert (tmp_path / journal.LOG).read_bytes() == before
    monkeypatch.undo()
    journal.Journal(tmp_path, 150).close()
    assert len(journal.read_log(tmp_path / journal.LOG)) == 150
