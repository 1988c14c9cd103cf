"""The loop of the protocol, its methods, and the report, on stacks whose answers are known."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_ivos.benchmark import methods, protocol, report
from napari_ivos.benchmark.datasets import Sequence
from napari_ivos.errors import InputError
from napari_ivos.predictor import FakePredictor
from napari_ivos.scribbles import Scribbles, Stroke


def moving(n=6, shape=(60, 100), step=0, late=False):
    """Two flat bars on a flat ground, each `step` pixels further right on each frame; the second may come late."""
    rng = np.random.default_rng(0)
    labels = np.zeros((n, *shape), np.uint16)
    for t in range(n):
        labels[t, 8:20, 6 + step * t : 46 + step * t] = 1
        if not late or t >= n // 2:
            labels[t, 36:46, 20 + step * t : 56 + step * t] = 2
    frames = np.array([40, 120, 220], np.uint8)[labels] + rng.integers(0, 6, labels.shape, np.uint8)
    return Sequence("moving", "synthetic", frames, labels)


class Scripted:
    """A method that gives what it was told to, and notes what it was asked."""

    name = "scripted"

    def __init__(self, answers):
        self.answers, self.asked, self.closed = list(answers), [], 0

    def start(self, frames):
        self.frames = frames

    def interact(self, scribbles):
        self.asked.append(scribbles)

    def propagate(self):
        return self.answers[min(len(self.asked), len(self.answers)) - 1]

    def close(self):
        self.closed += 1


def test_perfect_method_scores_one():
    """A method that is right from the start has J = F = AUC-curve 1 in all rounds, and is asked once."""
    sequence = moving(step=2)
    method = Scripted([sequence.labels])
    result = protocol.run(sequence, method, protocol.Settings(rounds=5))
    assert (result.j == 1).all()
    assert (result.f == 1).all()
    assert len(result.rounds) == 5
    assert [r.frame for r in result.rounds[1:]] == [None] * 4
    assert len(method.asked) == 1
    assert method.closed == 1
    assert method.asked[0].object_ids == (1, 2)


def test_next_frame_is_the_worst_unused():
    """Each round goes to the frame of lowest mean J that was not used, with strokes on what is wrong there."""
    sequence = moving()
    wrong = sequence.labels.copy()
    wrong[3] = 0
    wrong[1][wrong[1] == 2] = 0
    method = Scripted([wrong])
    result = protocol.run(sequence, method, protocol.Settings(rounds=4, boundary=False))
    first = sequence.first_frame()
    assert [r.frame for r in result.rounds] == [first, 3, 1, None]
    assert method.asked[1].object_ids == (1, 2)
    assert method.asked[2].object_ids == (2,)
    np.testing.assert_allclose(result.frame_j[0], [1, 0.5, 1, 0, 1, 1])
    assert result.j[0] == pytest.approx(4.5 / 6)
    assert result.worst[0][0] == 3
    assert np.isnan(result.f).all()


def test_late_objects_are_added_by_corrections():
    """An object that is not on the first frame is first drawn on where it is missed, and counts from the start."""
    sequence = moving(late=True)
    labels = sequence.labels.copy()
    labels[3:][labels[3:] == 1] = 0
    late = Sequence("late", "g", sequence.frames, labels)
    method = Scripted([np.where(labels == 1, 1, 0), labels])
    result = protocol.run(late, method, protocol.Settings(rounds=2, boundary=False))
    assert [s.frame for s in method.asked] == [0, 3]
    assert [s.object_ids for s in method.asked] == [(1,), (2,)]
    np.testing.assert_allclose(result.j, [9 / 12, 1])


def test_score_of_labelled_ids_only():
    """Scored by label, a false alarm where the truth lacks the object costs nothing and gets no stroke; else both."""
    sequence = moving(late=True)
    everywhere = moving().labels
    alone = protocol.run(sequence, Scripted([everywhere]), protocol.Settings(rounds=2, score="labelled"))
    assert (alone.j == 1).all()
    assert alone.rounds[1].frame is None
    method = Scripted([everywhere])
    every = protocol.run(sequence, method, protocol.Settings(rounds=2))
    assert every.j[0] == pytest.approx(9 / 12)
    assert [s.object_id for s in method.asked[1].strokes] == [0]


def test_score_of_started_objects_and_of_nothing():
    """Scored by the first frame's objects, a late one costs nothing; an empty result's own score stands beside it."""
    sequence = moving(late=True)
    labels = sequence.labels.copy()
    labels[3:][labels[3:] == 1] = 0
    late = Sequence("late", "g", sequence.frames, labels)
    answer = np.where(labels == 1, 1, 0)
    started = protocol.run(late, Scripted([answer]), protocol.Settings(rounds=1, score="started"))
    every = protocol.run(late, Scripted([answer]), protocol.Settings(rounds=1))
    assert started.j[0] == 1
    assert every.j[0] == pytest.approx(9 / 12)
    assert started.empty_j == every.empty_j == pytest.approx(0.5)


def test_overtime_ends_the_play(monkeypatch):
    """A round beyond 30 s an object does not count and is the last: the value before it is held."""
    sequence = moving()
    half = sequence.labels.copy()
    half[:3] = 0
    ticks = iter([0, 1, 2, 10, 11, 71.5])
    monkeypatch.setattr(protocol.time, "perf_counter", lambda: next(ticks))
    result = protocol.run(sequence, Scripted([half, sequence.labels]), protocol.Settings(rounds=4))
    assert result.overtime == 2
    np.testing.assert_allclose(result.j, 0.5)
    np.testing.assert_allclose(result.times, [2, 63.5, 63.5, 63.5])
    assert result.horizon == 30 * 4 * 2


def test_wrong_shape_is_named():
    """Labels of another shape than the stack end the play with both shapes, and the method is closed."""
    method = Scripted([np.zeros((2, 3, 4))])
    with pytest.raises(InputError, match=r"\(2, 3, 4\).*\(6, 60, 100\)"):
        protocol.run(moving(), method)
    assert method.closed == 1


def test_labels_that_are_no_whole_numbers_are_named():
    """A method that gives floats is told so, by its name, and the other plays go on."""
    sequence = moving()
    with pytest.raises(InputError, match=r"'scripted' gave labels of float32"):
        protocol.run(sequence, Scripted([sequence.labels.astype(np.float32)]))
    for dtype in (np.uint8, np.int64, np.uint64):
        assert protocol.run(sequence, Scripted([sequence.labels.astype(dtype)])).j[0] == 1


@pytest.mark.parametrize("bad", [{"rounds": 0}, {"every": 0}, {"score": "some"}, {"time_limit": -1.0}])
def test_settings_are_checked(bad):
    """Settings without meaning are refused."""
    with pytest.raises(InputError):
        protocol.Settings(**bad)


@pytest.mark.parametrize(
    ("method", "level"),
    [(methods.CopyMask, 0.97), (methods.RandomWalkerFlow, 0.97), (methods.PixelForest, 0.65)],
    ids=["copy", "walker", "forest"],
)
def test_peers_on_a_still_stack(method, level):
    """On flat objects that do not move the walker is right, and the forest right but for the objects' rims."""
    result = protocol.run(moving(), method(), protocol.Settings(rounds=1))
    assert result.j[0] > level


@pytest.mark.parametrize("method", [methods.CopyMask, methods.RandomWalkerFlow, methods.PixelForest])
def test_peers_take_frames_with_borders_that_are_no_numbers(method):
    """Registered movies have NaN where a frame was moved in; peers see black there, as this package's networks do."""
    sequence = moving()
    frames = sequence.frames.astype(np.float32)
    dark = frames.copy()
    frames[:, :4], dark[:, :4] = np.nan, frames.min()
    found = []
    for stack in (frames, dark):
        play = Sequence("moving", "synthetic", stack, sequence.labels)
        found.append(protocol.run(play, method(), protocol.Settings(rounds=1)))
    assert found[0].j[0] == found[1].j[0] > 0.6


def test_session_plays_like_any_method():
    """A session with the fake networks follows flat moving objects, is corrected, and takes objects that come late."""
    method = methods.IvosMethod(FakePredictor(64))
    result = protocol.run(moving(step=2), method, protocol.Settings(rounds=2))
    assert result.method == "ivos"
    assert result.j[0] > 0.8
    late = protocol.run(moving(late=True), method, protocol.Settings(rounds=2))
    assert late.n_objects == 2


def test_flow_follows_what_copying_loses():
    """On moving objects the walker with flow stays right where a copied mask falls behind."""
    sequence = moving(step=3)
    flow = protocol.run(sequence, methods.RandomWalkerFlow(), protocol.Settings(rounds=1, boundary=False))
    copied = protocol.run(sequence, methods.CopyMask(), protocol.Settings(rounds=1, boundary=False))
    assert flow.j[0] > 0.9
    assert copied.j[0] < 0.75


def test_corrections_help_the_peers():
    """Over the rounds a copied mask gets better: each correction is carried to its neighbours."""
    result = protocol.run(moving(step=3), methods.CopyMask(), protocol.Settings(rounds=3, boundary=False))
    assert (np.diff(result.j) > 0.02).all()


def test_a_round_stops_at_earlier_annotated_frames():
    """A peer's later round leaves frames beyond an earlier annotated one, and that frame, as they were."""
    sequence = moving(n=7)
    method = methods.CopyMask()
    method.start(sequence.frames)
    method.interact(Scribbles(3, [Stroke(1, [(16, 10), (16, 26)])]))
    before = method.propagate()
    method.interact(Scribbles(6, [Stroke(0, [(16, 7), (16, 28)])]))
    after = method.propagate()
    np.testing.assert_array_equal(after[:4], before[:4])
    assert (after[6] == 1).sum() < (before[6] == 1).sum()


@pytest.mark.parametrize(
    "name",
    ["nothing", "no.such.module:thing", "napari_ivos.errors:nothing", "nowhere.py:thing", "napari_ivos:Stroke", ":x"],
)
def test_unknown_methods(name):
    """A method that does not exist is refused by name."""
    with pytest.raises(InputError, match=name):
        methods.make_method(name)


def test_methods_of_ones_own():
    """A method is found as module:Class."""
    assert methods.make_method("napari_ivos.benchmark.methods:CopyMask").name == "copy"


OWN_METHOD = (Path(__file__).parent.parent / "examples" / "benchmark_method.py").resolve()


def test_the_example_of_a_method_plays_from_its_file():
    """The file that the documentation shows is a method: it plays a sequence, and copies what the strokes cover."""
    result = protocol.run(moving(n=4), methods.make_method(f"{OWN_METHOD}:Box"), protocol.Settings(rounds=2))
    assert result.method == "box"
    assert 0 < result.j[0] < 1


def test_what_is_no_method_is_told_what_it_lacks(tmp_path):
    """A class without the five names is refused with those that are missing."""
    (tmp_path / "half.py").write_text("class Half:\n    name = 'half'\n    def start(self, frames): ...\n")
    with pytest.raises(InputError, match="lacks interact, propagate, close"):
        methods.make_method(f"{tmp_path / 'half.py'}:Half")


@pytest.fixture
def folder(tmp_path):
    """Two small TIFF sequences, and one that can't be read."""
    sequence = moving(n=4)
    for name in ("one", "two"):
        tifffile.imwrite(tmp_path / f"{name}.tif", sequence.frames, photometric="minisblack")
        tifffile.imwrite(tmp_path / f"{name}_labels.tif", sequence.labels, photometric="minisblack")
    tifffile.imwrite(tmp_path / "zero.tif", sequence.frames, photometric="minisblack")
    tifffile.imwrite(tmp_path / "zero_labels.tif", np.zeros_like(sequence.labels), photometric="minisblack")
    return tmp_path


def test_report_is_complete(folder):
    """All plays come, a bad sequence is a failure that stops no other, and tables and pictures hold all of them."""
    paths = [folder / f"{name}.tif" for name in ("one", "two", "zero")]
    plays = list(protocol.benchmark(paths, ["copy", "forest"], [0, 1], protocol.Settings(rounds=2)))
    results = [p for p in plays if isinstance(p, protocol.Result)]
    failures = [p for p in plays if isinstance(p, protocol.Failure)]
    assert len(results) == 8
    assert [f.sequence for f in failures] == ["zero"] * 4
    written = report.write_report(folder / "out", results, failures)
    names = {"benchmark.txt", "benchmark.csv", "benchmark.json", "curves.png", "sequences.png"}
    assert {p.name for p in written} == names | {"worst_copy.png", "worst_forest.png"}
    assert all(p.stat().st_size > 0 for p in written)
    with (folder / "out/benchmark.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8 * 2
    found = json.loads((folder / "out/benchmark.json").read_text())
    assert len(found["plays"]) == 8
    assert len(found["failures"]) == 4
    assert found["means"][0]["auc"] == pytest.approx(found["means"][0]["j"][-1], abs=0.05)
    assert "FAILED zero" in (folder / "out/benchmark.txt").read_text()


@pytest.mark.parametrize("channels", [(), (2,), (3,), (4,)], ids=str)
def test_any_frame_can_be_drawn(channels):
    """A frame of any number of channels, with values that are no numbers, is a picture in three."""
    frame = np.linspace(0, 1, 20 * 30 * (channels or (1,))[0]).reshape(20, 30, *channels).astype(np.float32)
    frame[:4] = np.nan
    labels = np.zeros((20, 30), np.uint16)
    labels[8:12, 5:9] = 1
    drawn = report.draw(frame, labels, labels)
    assert drawn.shape == (20, 30, 3)
    assert drawn.dtype == np.uint8
    assert (drawn[:4] == 0).all()
    assert (drawn[8, 5:9] == 255).all()


def test_means_are_over_plays():
    """A group's curve is the mean over its plays, its AUC that of the mean curve over the mean horizon."""
    sequence = moving()
    half = sequence.labels.copy()
    half[:3] = 0
    settings = protocol.Settings(rounds=2)
    right = protocol.run(sequence, Scripted([sequence.labels]), settings)
    wrong = protocol.run(sequence, Scripted([half]), settings)
    (curve,) = report.curves([right, wrong])
    np.testing.assert_allclose(curve.j, 0.75)
    assert curve.auc == pytest.approx(0.75, abs=0.01)
    assert curve.n_plays == 2


def test_program_runs_in_processes(folder):
    """The command line plays in several processes, prints the table, and writes the report."""
    command = [sys.executable, "-m", "napari_ivos.benchmark", str(folder / "one.tif"), str(folder / "two.tif")]
    command += ["--methods", "copy", "--rounds", "1", "--jobs", "2", "--output", str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[2/2]" in done.stdout
    assert (folder / "out/benchmark.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--methods", "magic"], "magic"), (["--seeds", "a"], "'a'"), (["--sequences", "nine"], "nine")],
)
def test_program_names_bad_arguments(folder, arguments, said):
    """A method, seed or sequence that does not exist ends with exit status 2 and its name."""
    command = [sys.executable, "-m", "napari_ivos.benchmark", str(folder / "one.tif"), "--methods", "copy", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_import_is_light():
    """Importing the benchmark loads no library of the extra."""
    heavy = ("cv2", "scipy", "skimage", "matplotlib", "torch", "sklearn", "tifffile", "PIL")
    code = f"import sys, napari_ivos.benchmark; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
