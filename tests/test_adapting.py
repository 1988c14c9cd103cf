"""Adapting a model to a stack: what it learns from, that it learns, that it asks first, and that it leaves no trace."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import napari_ivos as ivos
from napari_ivos.adapting import adaptation, testing, tuning
from napari_ivos.adapting import material as material_module
from napari_ivos.adapting.material import Material
from napari_ivos.adapting.tuning import BATCH, View, weighted_loss
from napari_ivos.cli import main
from napari_ivos.errors import InputError, OutOfMemory, ReadOnlyProject, WeightsError
from napari_ivos.merging import Origin
from napari_ivos.networks import weights
from napari_ivos.networks.blocks import Architecture
from napari_ivos.regions import Box
from napari_ivos.scribbles import rasterise

SMALL = Architecture(size=64, width=16, fine_width=8, key=8, motion=True)


@pytest.fixture(scope="module")
def blob() -> bytes:
    """The file of a small model with fresh weights."""
    torch.manual_seed(0)
    return weights.to_bytes(*weights.new_networks(SMALL), SMALL, name="small")


@pytest.fixture
def model(blob):
    """That model, as everybody has it."""
    return weights.load_bytes(blob, "small", "cpu")


@pytest.fixture
def clip(make_clip):
    return make_clip(6, (80, 96))


@pytest.fixture
def make_session(clip, model):
    """Makes sessions of the clip with exact masks of both squares on these frames; all are closed in the end."""
    made = []

    def make(*frames: int, path=None) -> ivos.Session:
        session = ivos.Session(clip.video, model, project=path)
        made.append(session)
        for frame in frames:
            session.annotate(frame, clip.truth[frame])
        return session

    yield make
    for session in made:
        session.close()


def run(session: ivos.Session, **options) -> list[ivos.adapting.Adaptation]:
    """All that adapting yields."""
    return list(ivos.adapt(session, **{"steps": 3, "seconds": 600.0, **options}))


@pytest.fixture
def few_looks(monkeypatch):
    """Look at fewer objects than in earnest."""
    monkeypatch.setattr(adaptation, "OBJECTS_READ", 24)


pytestmark = pytest.mark.usefixtures("few_looks")


# --- learning ----------------------------------------------------------------------------------------------------


def test_learning_from_one_painted_frame_lowers_the_loss(make_session, monkeypatch):
    """Over thirty steps on two squares of one colour each, the loss falls by a third."""
    monkeypatch.setattr(tuning, "LEARNING_RATE", 4e-3)  # fresh decoders have farther to go than trained ones
    losses = [p.loss for p in run(make_session(2), steps=30) if p.stage == "adapting"]
    assert len(losses) == 30
    assert np.mean(losses[-6:]) < 2 / 3 * np.mean(losses[:4])


def test_the_same_session_and_seed_give_the_same_weights(make_session):
    """Two runs end with the same bytes; another seed ends with others."""
    session = make_session(2)
    ends = [run(session, seed=seed)[-1].model.checksum for seed in (0, 0, 1)]
    assert ends[0] == ends[1] != ends[2]


def test_only_the_decoders_change(make_session, model):
    """The encoders come out as they went in, the decoders do not, and the model it started from stays as it was."""
    before = {k: v.clone() for k, v in model.propagation.state_dict().items()}
    after = run(make_session(2))[-1].model.propagation.state_dict()
    assert all(torch.equal(before[k], v) for k, v in model.propagation.state_dict().items())
    same = {k: torch.equal(v, after[k]) for k, v in before.items()}
    assert all(equal for k, equal in same.items() if k.startswith("encoder."))
    assert not any(equal for k, equal in same.items() if k.startswith("decoder.heads"))


def test_progress_counts_to_the_end_and_the_last_word_has_the_model(make_session):
    """Steps are counted one by one; the last yield is "done", with the model that the generator returns."""
    session = make_session(1, 4)
    steps = ivos.adapt(session, steps=4, seconds=600.0)
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            returned = end.value
            break
    assert sorted(p.done for p in seen) == [p.done for p in seen]
    assert {p.total for p in seen} == {4}
    assert {p.stage for p in seen} == {"reading", "testing", "adapting", "done"}
    assert seen[-1].stage == "done"
    assert seen[-1].model is returned
    assert all(p.model is None and p.report is None for p in seen[:-1])


def test_when_time_is_up_what_was_learned_counts(make_session):
    """With next to no time one step is taken, and the report says that more were planned."""
    report = run(make_session(2), steps=50, seconds=1e-6)[-1].report
    assert (report.steps, report.planned, report.kept) == (1, 50, True)
    assert "1 of 50 steps (time limit)" in str(report)


# --- whether it helped -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "kept"), [(0.8, True), (0.5, False), (0.3, False)], ids=["more", "same", "less"])
def test_what_is_no_gain_on_a_frame_that_was_held_back_is_not_taken(make_session, monkeypatch, after, kept):
    """The frame that is tested on is not learned from before; the model that comes out is the better one."""
    scores, learned = iter([0.5, after]), []
    monkeypatch.setattr(testing, "score", lambda trial, predictor, stack: next(scores))
    pick = Material.pick
    monkeypatch.setattr(Material, "pick", lambda m, rng: (learned.append({k.frame for k in m.known}), pick(m, rng))[1])
    session = make_session(1, 4)
    last = run(session, steps=6)[-1]
    assert last.report.tested_on == 4
    assert 4 not in learned[0]
    assert 4 in learned[-1]
    assert (last.report.before, last.report.after, last.report.kept) == (0.5, after, kept)
    assert (last.model is session.model) is not kept
    assert last.report.steps == (6 if kept else 4)
    assert ("no gain" in str(last.report)) is not kept


def test_one_annotated_frame_is_learned_from_untested_and_the_report_says_so(make_session):
    """Without a second annotated frame there is nothing to test on."""
    report = run(make_session(2))[-1].report
    assert (report.tested_on, report.before, report.after, report.kept) == (None, None, None, True)
    assert "Not tested: annotate a second frame" in str(report)


def test_a_trial_carries_masks_from_the_nearest_annotated_frame(make_session, clip):
    """The trial is on the last frame of those with most objects; a perfect predictor scores 1 there, a blind one 0."""
    session = make_session(0, 1, 4)
    trial = testing.plan(Material(session, ivos.FakePredictor(64)))
    assert (trial.frame, trial.objects, list(trial.ways)) == (4, 2, [1])
    assert testing.score(trial, ivos.FakePredictor(64), session.stack) > 0.9

    class Blind(ivos.FakePredictor):
        def propagate(self, requests):
            return [np.zeros((self.size, self.size), np.float32) for _ in requests]

    assert testing.score(trial, Blind(64), session.stack) == 0


# --- what is learned from --------------------------------------------------------------------------------------------


def test_painted_masks_teach_more_than_scribbled_ones_and_those_more_than_propagated_ones(clip, monkeypatch):
    """Trust falls from painted to scribbled to propagated; accepted frames count as scribbled ones."""
    monkeypatch.setattr(material_module, "GOOD", 0.1)
    with ivos.Session(clip.video, ivos.FakePredictor(64)) as session:
        session.annotate(0, clip.truth[0])
        session.interact(clip.scribbles(3, 1))
        list(session.propagate())
        material = Material(session, ivos.FakePredictor(64))
        trust = {(k.frame, k.object_id): k.trust for k in material.known}
        assert trust[0, 1] > trust[3, 1] > trust[2, 1] > 0
        assert {k.frame for k in material.annotated[1]} == {0, 3}
        accepted = Material(session, ivos.FakePredictor(64), accepted=[5])
        assert {k.trust for k in accepted.known if k.frame == 5} == {trust[3, 1]}


def test_masks_to_learn_from_are_moved_along_as_in_use(make_session, model):
    """A mask of a neighbouring frame lies where the picture went, one of the same frame where it was; both are seen."""
    session = make_session(0, 1)
    rng, found = np.random.default_rng(0), {}
    held = Material(session, model)
    while len(found) < 2:
        _, look = held.pick(rng)
        found.setdefault(look.near == look.frame, look)
    for same, look in found.items():
        planes = tuning.prepared([look], session.stack, model.architecture).planes[0]
        moved = np.abs(planes[3] / 255 - look.masks[0]).max() > 0.05
        assert moved is not same
        assert len(planes) == 3 + 2 + 1 + 2
        assert planes[5].any() is not same
    plain = replace(model.architecture, motion=False)
    assert tuning.prepared([found[False]], session.stack, plain).planes.shape[1] == 3 + 2 + 2


def test_strokes_are_certain_whatever_the_mask_says(clip):
    """Where a stroke contradicts the mask that came of it, the stroke is what is learned, with full weight."""
    frame = Box(0, 0, 80, 96)
    outside, inside = ivos.Stroke(1, [(60, 20), (60, 40)]), ivos.Stroke(0, [(20, 14), (20, 28)])
    with ivos.Session(clip.video, ivos.FakePredictor(64)) as session:
        session.interact(clip.scribbles(0, 1))
        material = Material(session, ivos.FakePredictor(64))
        material.strokes = lambda frame: [outside, inside]
        target, weight = material.truth(material.annotated[1][0], frame)
    for stroke, value in ((outside, 1), (inside, 0)):
        drawn = rasterise([stroke], frame, (64, 64)) > 0
        assert drawn.any()
        assert (target[drawn] == value).all()
        assert (weight[drawn] == 1).all()
    assert weight[rasterise([outside, inside], frame, (64, 64)) == 0].max() < 1


def test_the_loss_weighs_each_pixel():
    """Pixels of weight 0 don't matter, and a right answer costs less than a wrong one."""
    target = torch.zeros(1, 1, 64, 64)
    target[..., :32] = 1
    half = torch.ones_like(target)
    half[..., 32:] = 0

    def loss(value: torch.Tensor, weight: torch.Tensor) -> float:
        logits = [torch.nn.functional.interpolate(value, 64 // s) for s in (2, 4, 8, 16)]
        return float(weighted_loss(logits, View(target, target, target, weight)))

    right, wrong = 8 * (2 * target - 1), -8 * (2 * target - 1)
    everywhere = torch.full_like(target, 8.0)
    assert loss(everywhere, half) == pytest.approx(loss(right, half))
    assert loss(right, torch.ones_like(target)) < loss(everywhere, torch.ones_like(target)) < loss(wrong, half * 0 + 1)
    assert BATCH > 0


def test_masks_before_a_round_are_those_that_it_corrected(clip):
    """`masks(frame, before_round=n)` gives the mask that round n corrected; that one is taught as the previous one."""
    with ivos.Session(clip.video, ivos.FakePredictor(64)) as session:
        session.annotate(0, clip.truth[0])
        list(session.propagate())
        session.annotate(4, clip.truth[4])
        now, before = session.masks(4), session.masks(4, before_round=2)
        assert {p.origin for p in now.values()} == {Origin.PAINTED}
        assert {p.origin for p in before.values()} == {Origin.PROPAGATED}
        assert not session.masks(4, before_round=1)
        known = {k.frame: k for k in Material(session, ivos.FakePredictor(64)).annotated[1]}
        assert known[0].before is None
        assert np.array_equal(known[4].before.probability, before[1].probability)


# --- the session -----------------------------------------------------------------------------------------------------


def state_of(session: ivos.Session) -> tuple:
    """All that adapting could have changed."""
    labels = np.asarray(session.labels).tobytes()
    return session.log, session.stored_models, session.adapted, session.model.checksum, labels, session.busy


@pytest.mark.parametrize("stop_at", ["reading", "testing", "adapting"])
def test_closing_the_generator_leaves_the_session_as_it_was(make_session, stop_at):
    """Stopped at any stage, nothing of the session has changed, and it is free."""
    session = make_session(1, 4)
    before = state_of(session)
    steps = ivos.adapt(session, steps=4, seconds=600.0)
    for progress in steps:
        assert state_of(session) == before
        if progress.stage == stop_at:
            steps.close()
    assert state_of(session) == before
    session.annotate(2, np.ones((80, 96), np.uint8))


def test_a_project_takes_its_weights_along(make_session, tmp_path, clip):
    """Reopened under another name, the project gives the adapted model, which computes what it did before."""
    session = make_session(2, path=tmp_path / "a.ivos")
    adapted = run(session)[-1].model
    session.use_model(adapted)
    list(session.propagate())
    labels = np.asarray(session.labels)
    session.close()
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "a.ivos").rename(tmp_path / "elsewhere" / "b.ivos")
    with ivos.Session.open(moved, frames=clip.video) as again:
        found = ivos.adapted_model(again, "cpu")
        assert found.checksum == again.adapted.checksum == adapted.checksum
        assert found.name == "small, adapted"
        again.use_model(found)
        again.undo()
        list(again.propagate())
        assert np.array_equal(np.asarray(again.labels), labels)


def test_dropping_brings_the_old_model_back_and_empties_the_project(make_session, model, tmp_path):
    """After `drop_adapted` the project keeps no weights, the file shrinks, and the masks are as they were."""
    session = make_session(2, path=tmp_path / "a.ivos")
    session.use_model(run(session)[-1].model)
    list(session.propagate())
    labels = np.asarray(session.labels)
    session.drop_adapted(model)
    assert session.model is model
    assert session.adapted is None
    assert not session.stored_models
    assert ivos.adapted_model(session) is None
    assert session.compact() > 1_000_000
    assert np.array_equal(np.asarray(session.labels), labels)


def test_dropping_without_a_model_to_go_on_with_leaves_none_in_use(make_session, model):
    """A dropped model is out of use at once; one that everybody has stays."""
    session = make_session(2)
    session.drop_adapted()
    assert session.model is model
    session.use_model(run(session)[-1].model)
    session.drop_adapted()
    assert session.model is None


def test_damaged_weights_of_a_project_are_refused_with_the_reason(make_session, model, blob):
    """What a stranger's project keeps as adapted weights is checked as any other file."""
    session = make_session(2)
    session.use_model(weights.load_bytes(blob, "small", "cpu", portable=True))
    with session._project.transaction() as writer:
        writer.put_model("evil", "evil-1", b"\x80\x04not a model")
        writer.set_meta("adapted", "evil-1")
    with pytest.raises(WeightsError, match="pickle"):
        ivos.adapted_model(session)


# --- what can't be done ----------------------------------------------------------------------------------------------


def test_without_annotations_the_error_says_what_to_do(make_session):
    """The call itself fails, before anything is read."""
    with pytest.raises(InputError, match="nothing to adapt to: no frame holds a mask .* Annotate an object"):
        ivos.adapt(make_session())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": ivos.FakePredictor()}, "needs networks of this package, from load_model.*'fake'"),
        ({"seconds": 0}, "120 steps in 0 s"),
        ({"steps": 0}, "0 steps in 120 s"),
        ({"accepted": [3, 99]}, "no frame 99 to accept: the stack has frames 0 to 5"),
    ],
    ids=["fake", "seconds", "steps", "accepted"],
)
def test_what_makes_no_sense_is_refused_with_the_number(make_session, options, says):
    """Each wrong argument is named, with what was found."""
    with pytest.raises(InputError, match=says):
        ivos.adapt(make_session(2), **options)


def test_without_frames_or_model_the_error_names_what_is_missing(make_session, model, tmp_path):
    """A project whose stack was not found can't be adapted, nor a session without a model."""
    make_session(2, path=tmp_path / "a.ivos").close()
    with ivos.Session.open(tmp_path / "a.ivos") as session:
        with pytest.raises(InputError, match="there is no model"):
            ivos.adapt(session)
        with pytest.raises(InputError, match="open the project with frames="):
            ivos.adapt(session, model=model)


def test_a_device_without_memory_is_our_own_error(make_session, monkeypatch):
    """The device's out-of-memory error becomes ours, and says that nothing was changed."""
    monkeypatch.setattr(torch.Tensor, "backward", lambda self: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(OutOfMemory, match=r"too little memory to adapt \(full\); nothing was changed"):
        run(make_session(2))


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def project(make_session, tmp_path, blob, clip):
    """A project with one painted frame beside its stack, and a model's file; their paths as text."""
    np.save(tmp_path / "stack.npy", clip.video)
    (tmp_path / "small.safetensors").write_bytes(blob)
    make_session(2, path=tmp_path / "a.ivos").close()
    return str(tmp_path / "a.ivos")


def command(capsys, *arguments: str) -> tuple[int, dict, str]:
    """Exit code, JSON and stderr of ``napari-ivos adapt``."""
    code = main(["adapt", "--json", "--quiet", *arguments])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


@pytest.fixture
def given(project, tmp_path, clip, monkeypatch):
    """The command's arguments for the project, its frames and the small model."""
    tiff = pytest.importorskip("tifffile")
    tiff.imwrite(tmp_path / "stack.tif", clip.video, photometric="rgb", metadata={"axes": "TYXS"})
    monkeypatch.setattr(adaptation, "STEPS", 3)
    return [project, "--frames", str(tmp_path / "stack.tif"), "--model", str(tmp_path / "small.safetensors"), "--force"]


def test_the_command_adapts_a_project_and_drops_it_again(capsys, given, clip):
    """`adapt` keeps weights in the project, `--drop` takes them out; both say so in JSON."""
    code, facts, _ = command(capsys, *given, "--seconds", "1e-6", "--device", "cpu")
    assert code == 0
    assert facts["kept"] is True
    assert facts["tested_on"] is None
    with ivos.Session.open(given[0]) as session:
        assert session.adapted.checksum == facts["model"]["checksum"]
    code, facts, _ = command(capsys, given[0], "--drop")
    assert (code, facts["dropped"] is None) == (0, False)
    assert facts["bytes_freed"] > 0
    with ivos.Session.open(given[0]) as session:
        assert session.adapted is None


def test_segmenting_goes_on_with_the_weights_of_the_project(capsys, given, tmp_path):
    """`segment` with an adapted project uses its weights and says so; with `--model` it takes the one that is named."""
    assert command(capsys, *given, "--seconds", "1e-6")[0] == 0
    frames, small = given[2], given[4]
    more = ["--project", given[0], "--force", "--json", "--quiet", "--overwrite", "--output", str(tmp_path / "out.tif")]
    assert main(["segment", frames, *more]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["model"]["name"] == "small, adapted"
    assert "adapted to this stack" in err
    assert main(["segment", frames, *more, "--model", small]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["model"]["name"] == "small"
    assert "adapted to this stack" not in err


def test_ctrl_c_leaves_the_project_as_it_was(capsys, given, monkeypatch):
    """Stopped by the keyboard, the command ends with 130, says so, and the project keeps no weights."""

    def interrupted(*arguments, **options):
        yield replace(adaptation.Adaptation("adapting", 1, 3, 0.1))
        raise KeyboardInterrupt

    monkeypatch.setattr(ivos, "adapt", interrupted)
    code, facts, err = command(capsys, *given)
    assert code == 130
    assert facts["interrupted"]
    assert "The project is as it was" in err
    with ivos.Session.open(given[0]) as session:
        assert not session.stored_models


@pytest.mark.parametrize(("text", "frames"), [("3,7-9", [3, 7, 8, 9]), ("", []), (" 4 ", [4])])
def test_accepted_frames_are_single_ones_and_ranges(text, frames):
    """Frames are told one by one or from one to another, both included."""
    from napari_ivos.cli.adapting import frames_of

    assert frames_of(text) == frames


@pytest.mark.parametrize("text", ["a", "3-", "1-2-3", "-4"])
def test_accepted_frames_that_are_no_numbers_are_refused(text):
    """Anything else is refused with an example."""
    from napari_ivos.cli.adapting import frames_of

    with pytest.raises(InputError, match="give frames such as 3,7-9"):
        frames_of(text)


def test_a_project_that_another_holds_is_refused_before_two_minutes_of_work(capsys, given, clip):
    """While a session holds the project, the command says so at once."""
    with ivos.Session.open(given[0], frames=clip.video):
        with pytest.raises(ReadOnlyProject, match="open for reading only"):
            main(["adapt", "--debug", "--json", given[0]])
