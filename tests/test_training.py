"""The training program, on a small folder of drawn pictures: clips, annotator, settings, checkpoints, thirty steps."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path  # noqa: TC003 - pytest reads the annotations of fixtures

import numpy as np
import pytest
import torch

from napari_ivos import InputError, WeightsError, load_model

cv2 = pytest.importorskip("cv2", reason="the extra 'train' is not installed")
pytest.importorskip("skimage", reason="the extra 'train' is not installed")

from napari_ivos.training import annotator, clips, train  # noqa: E402 - they need what is skipped for above
from napari_ivos.training.clips import TARGET, ClipSettings, ClipSource  # noqa: E402
from napari_ivos.training.settings import TrainingSettings  # noqa: E402

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
    "shares", [{}, {"real": 1.0}, {"real": 0.0, "cutouts": 1.0}, {"real": 0.0, "cutouts": 0.0, "procedural": 1.0}]
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
        ClipSource(tmp_path, ClipSettings(side=96, procedural=0.0)).draw(0)
    with pytest.raises(InputError, match="no stills"):
        ClipSource(tmp_path / "stills")


def test_filled_holes_show_nothing_of_what_was_there() -> None:
    """After a bright disc is taken out of a dark picture, its place is dark."""
    image = np.full((80, 80, 3), 30, np.uint8)
    hole = np.zeros((80, 80), bool)
    hole[20:60, 30:70] = True
    image[hole] = 250
    assert clips.fill_holes(image, hole)[hole].max() < 60


# --- the annotator ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", annotator._STYLES)
def test_strokes_of_every_style_are_drawn_on_the_object(style: str, monkeypatch) -> None:
    """Nearly all of a stroke's points lie on the mask it is drawn on, whatever its style and the mask's shape."""
    monkeypatch.setattr(annotator, "_CHANCES", [float(s == style) for s in annotator._STYLES])
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(20):
        mask = clips.blob(rng, 200, rng.uniform(80, 120, 2), float(rng.uniform(5, 60)))
        line = annotator.draw_on(mask, rng)[0]
        cells = np.clip(np.rint(line).astype(int), 0, 199)
        near = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        shares.append(near[tuple(cells.T)].mean())
    assert np.mean(shares) > 0.85


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


# --- the run --------------------------------------------------------------------------------------------------------


def test_thirty_steps_lower_the_loss_and_the_weights_round_trip(data: Path, tmp_path: Path) -> None:
    """After thirty steps the loss has fallen, and the exported file loads as a model of that architecture."""
    losses = []
    settings = settings_for(
        data, tmp_path, batch=2, corrections=0.0, overrides={**TINY, "encoder": "resnet18"}, learning_rate=1e-3
    )
    trainer, source = train.Trainer(settings), ClipSource(data, settings.clips)
    batches, rollout = train.ClipDataset(source, settings, 0), trainer.rollout()
    for n in range(30):
        outcome = trainer.advance(batches[n % 2], rollout)
        losses.append(float((outcome.losses["wide"] + outcome.losses["close"]).detach()))
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    trainer.export(tmp_path / "m.safetensors", name="thirty")
    model = load_model(tmp_path / "m.safetensors", device="cpu")
    assert (model.name, model.size) == ("thirty", 64)
    for key, value in model.interaction.state_dict().items():
        torch.testing.assert_close(value, trainer.average[f"interaction.{key}"], atol=1e-3, rtol=1e-3)
    scores = trainer.validate(ClipSource(data, settings.clips, held_out=True))
    assert set(scores) == {"close", "propagated", "corrected", "again"}


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


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    """Six steps at once, and three, a checkpoint and three more, end in the same weights to the last bit."""
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


def test_a_full_disk_leaves_the_earlier_checkpoint_whole(data: Path, tmp_path: Path, monkeypatch) -> None:
    """When a checkpoint can't be written, the error says so and the one before it still loads."""
    trainer = train.Trainer(settings_for(data, tmp_path))
    trainer.save(tmp_path)
    before = (tmp_path / train.CHECKPOINT).read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(train.os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        trainer.save(tmp_path)
    assert (tmp_path / train.CHECKPOINT).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [train.CHECKPOINT]
