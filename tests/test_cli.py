"""The command line: what it says, writes and returns, in this process with a fake model and outside in a fresh one."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tifffile
from PIL import Image

import napari_ivos
from napari_ivos import FakePredictor, Scribbles, Session, Stroke, WeightsError
from napari_ivos.cli import arguments as typed
from napari_ivos.cli import main
from napari_ivos.cli.arguments import FORMATS
from napari_ivos.cli.demo import SAMPLES, sample_folder
from napari_ivos.errors import FrameReadError
from napari_ivos.export import FORMATS as EXPORTS
from napari_ivos.scribbles import read_davis, write_davis
from napari_ivos.session.exporting import NAMES, USUAL

TOP = Path(__file__).parent.parent
SHAPE = (9, 60, 80)
Run = Callable[..., tuple[int, str, str]]


def movie() -> tuple[np.ndarray, np.ndarray]:
    """A bright and a dark square that move on grey: (frames, true labels)."""
    frames, truth = np.full(SHAPE, 1000, np.uint16), np.zeros(SHAPE, np.uint16)
    for t in range(SHAPE[0]):
        truth[t, 10 + t : 26 + t, 12:30] = 1
        truth[t, 34:48, 60 - t : 74 - t] = 2
    frames[truth == 1], frames[truth == 2] = 3000, 100
    return frames, truth


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a stack and scribbles of its two objects on frame 4; models are fake."""
    frames, _ = movie()
    tifffile.imwrite(tmp_path / "movie.tif", frames, imagej=True, metadata={"axes": "TYX"})
    strokes = [Stroke(1, [(18, 16), (26, 26)]), Stroke(2, [(38, 60), (44, 66)])]
    data = write_davis([Scribbles(4, strokes)], SHAPE, "movie")
    (tmp_path / "strokes.json").write_text(json.dumps(data))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(napari_ivos, "load_model", lambda name=None, device=None: FakePredictor(64))
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process: exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


SEGMENT = ("segment", "movie.tif", "--scribbles", "strokes.json", "--quiet")

# ---------------------------------------------------------------------------------------------------- segment


@pytest.mark.parametrize("letters", [250, 300])
def test_a_project_whose_name_is_too_long_is_refused(run, folder, letters):
    """The command says that the name is too long, and leaves nothing behind."""
    before = sorted(folder.iterdir())
    code, _, said = run(*SEGMENT, "--output", "labels.tif", "--project", "n" * letters + ".ivos")
    assert code == 1
    assert "too long for this file system" in said
    assert sorted(folder.iterdir()) == before


def test_an_output_whose_name_is_too_long_is_refused_before_any_work(run, folder):
    """The command says so at once; nothing is segmented, and nothing is left behind."""
    before = sorted(folder.iterdir())
    code, _, said = run(*SEGMENT, "--output", "n" * 300 + ".tif", "--project", "cells.ivos")
    assert code == 1
    assert "can't be looked for (File name too long): choose another name" in said
    assert sorted(folder.iterdir()) == before


def test_a_folder_that_may_not_be_written_is_named_with_what_to_choose(run, monkeypatch):
    """Where no file can be made, the command says so, and names the argument that says where they go."""
    real = os.open

    def only_read(path: Any, flags: int, *mode: int, **options: Any) -> int:
        if str(path).endswith(".ivos") and flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", only_read)
    code, _, said = run(*SEGMENT, "--output", "labels.tif")
    assert code == 1
    assert "can't be made (Read-only file system): choose a folder that can be written" in said
    assert "name an --output elsewhere" in said
    assert "--output" not in run(*SEGMENT, "--output", "labels.tif", "--project", "a.ivos")[2]


def test_a_project_that_is_open_elsewhere_is_named_once_with_what_to_do(run, project):
    """A second program on a project says what is the matter once, and that it is to be closed in the first."""
    with Session.open(project):
        code, _, said = run("segment", "movie.tif", "--masks", "labels.tif", "--project", project, "--output", "b.tif")
    assert code == 1
    (line,) = [line for line in said.splitlines() if "error:" in line]
    assert line.count("movie.ivos") == 1
    assert "another session has it open; close it there first" in line


def test_the_package_runs_as_a_module():
    """`python -m napari_ivos` is the command line, for shells that don't find the program."""
    done = subprocess.run(
        [sys.executable, "-m", "napari_ivos", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("napari-ivos ")


def test_scribbles_become_labels(run):
    """The main job: scribbles on one frame in, a label stack out, nothing else left behind."""
    code, said, _ = run(*SEGMENT, "--output", "labels.tif")
    assert code == 0
    labels, (_, truth) = tifffile.imread("labels.tif"), movie()
    for i in (1, 2):
        assert ((labels == i) & (truth == i)).sum() / ((labels == i) | (truth == i)).sum() > 0.8
    assert "ome-tiff: labels.tif" in said
    assert "2 objects on 9 frames" in said
    assert sorted(p.name for p in Path().iterdir()) == ["labels.tif", "movie.tif", "strokes.json"]


def test_a_folder_gets_the_usual_results(run):
    """An output without an ending is a folder with labels, overlay video, contact sheet and table."""
    pytest.importorskip("av", reason="PyAV is not installed")
    assert run(*SEGMENT, "--output", "out")[0] == 0
    assert sorted(p.name for p in Path("out").iterdir()) == sorted(NAMES[name] for name in USUAL)


def test_formats_are_chosen_by_name(run):
    """One named format is written to the output itself, several into it as a folder."""
    assert run(*SEGMENT, "--output", "ctc", "--format", "ctc")[0] == 0
    assert Path("ctc/res_track.txt").exists()
    assert run(*SEGMENT, "--output", "both", "--format", "coco, davis")[0] == 0
    assert sorted(p.name for p in Path("both").iterdir()) == ["davis", "labels.json"]


def test_the_formats_in_the_help_are_those_there_are():
    """Formats are listed in the help, and have names in a folder, without loading what writes them."""
    assert set(FORMATS) == set(EXPORTS) == set(NAMES)
    assert set(USUAL) <= set(EXPORTS)


def test_json_is_one_object_on_stdout(run):
    """With --json, stdout holds one JSON object with objects, times and files; progress goes elsewhere."""
    code, said, progress = run(*SEGMENT[:-1], "--output", "labels.tif", "--json")
    assert code == 0
    facts = json.loads(said)
    assert said.count("\n") == 1
    assert "segmenting" in progress
    assert facts["shape"] == list(SHAPE)
    assert [o["id"] for o in facts["objects"]] == [1, 2]
    assert facts["annotated_frames"] == [4]
    assert facts["frames_changed"] == 8
    assert facts["masks_made"] == 18
    assert facts["seconds_per_object_and_frame"] > 0
    assert facts["outputs"][0]["path"] == "labels.tif"
    assert facts["project"] is None


def test_quiet_is_quiet(run):
    """With --quiet there is no progress."""
    assert run(*SEGMENT, "--output", "labels.tif")[2] == ""


def test_exported_folders_of_masks_come_back(run, folder):
    """What the DAVIS and the tracking formats write, a file a frame, is taken as finished masks, to the pixel."""
    assert run(*SEGMENT, "--output", "out", "--format", "davis,ctc,ome-tiff")[0] == 0
    labels = tifffile.imread("out/labels.ome.tif")
    for name in ("davis", "ctc"):
        assert run("segment", "movie.tif", "--masks", f"out/{name}", "--output", f"{name}.tif", "--quiet")[0] == 0
        assert np.array_equal(tifffile.imread(f"{name}.tif"), labels)
    one = ("--masks", "out/davis", "--frame", 4, "--project", "one.ivos", "--output", "one.tif", "--quiet")
    assert run("segment", "movie.tif", *one)[0] == 0
    with Session.open("one.ivos") as session:
        assert session.annotated_frames() == (4,)
    (folder / "out/davis/00003.png").unlink()
    refused = run("segment", "movie.tif", "--masks", "out/davis", "--output", "b.tif", "--quiet")
    assert "holds 8 images; expected one, or 9" in refused[2]


@pytest.mark.parametrize("kind", ["png", "palette", "tif", "npy", "stack"])
def test_scribbles_and_masks_come_as_label_images(kind, run):
    """A label image is painted strokes, or finished masks that stay to the pixel; a stack holds one for each frame."""
    frames, truth = movie()
    strokes = np.zeros(SHAPE[1:], np.uint8)
    strokes[20:22, 16:26], strokes[38:46, 64], strokes[2, 40:70] = 1, 2, 9
    for name, image in (("strokes", strokes), ("masks", truth[4].astype(np.uint8))):
        if kind in ("png", "palette"):
            picture = Image.fromarray(image)
            if kind == "palette":
                picture = Image.frombytes("P", (SHAPE[2], SHAPE[1]), image.tobytes())
                picture.putpalette([v for k in range(256) for v in (k, 255 - k, 7)])
            picture.save(f"{name}.png")
        elif kind == "npy":
            np.save(f"{name}.npy", image)
        else:
            whole = np.zeros(SHAPE, np.uint8)
            whole[4] = image
            tifffile.imwrite(f"{name}.tif", whole if kind == "stack" else image)
    ending = {"palette": "png", "stack": "tif"}.get(kind, kind)
    where = [] if kind == "stack" else ["--frame", 4]
    painted = ["--scribbles", f"strokes.{ending}", "--background", 9, *where]
    assert run("segment", "movie.tif", *painted, "--project", "a.ivos", "--output", "a.tif", "--quiet")[0] == 0
    with Session.open("a.ivos", frames=frames) as session:
        assert {s.object_id for s in session.strokes(4)} == {0, 1, 2}
    masks = ["--masks", f"masks.{ending}", *where]
    assert run("segment", "movie.tif", *masks, "--output", "b.tif", "--quiet")[0] == 0
    labels = tifffile.imread("b.tif")
    assert np.array_equal(labels[4], truth[4])
    assert (labels[8] == 1).any()


def test_what_reading_showed_is_told(run):
    """Notes that a stack makes while it is read, here of NaN in its frames, come on stderr."""
    frames = movie()[0].astype(np.float32)
    frames[7, 0, 0] = np.nan
    tifffile.imwrite("movie.tif", frames, photometric="minisblack")
    code, _, said = run(*SEGMENT, "--output", "labels.tif")
    assert code == 0
    assert said.count("NaN is shown as 0") == 1


def test_the_reading_options_reach_the_stack(run, monkeypatch):
    """Axes, channels, index, contrast and frame axis are handed to open_frames as they are meant."""
    asked: list[dict[str, Any]] = []

    def refuse(path: str, **options: Any) -> None:
        asked.append(options)
        raise napari_ivos.InputError("enough")

    monkeypatch.setattr(napari_ivos, "open_frames", refuse)
    options = ["--axes", "TCZYX", "--channels", "0,2", "--index", "Z=3", "--contrast", "5,99.5", "--frame-axis", "T"]
    assert run(*SEGMENT, "--output", "a.tif", *options)[0] == 1
    assert asked == [
        {"axes": "TCZYX", "channels": [0, 2], "index": {"Z": 3}, "contrast": [5.0, 99.5], "frame_axis": "T"}
    ]


def test_a_contrast_may_begin_below_zero(run):
    """CT has values from -1000 on, and a minus is no other option."""
    for contrast in (("--contrast", "-1000,400"), ("--contrast=-1000,400",)):
        assert json.loads(run("info", "movie.tif", "--json", *contrast)[1])["contrast"] == [[-1000.0, 400.0]]
    with pytest.raises(SystemExit):
        run("info", "movie.tif", "--contrast", "--json")


# ---------------------------------------------------------------------------------------------------- going on


class Stopping(FakePredictor):
    """A predictor during whose work the user presses Ctrl-C once, or whose memory ends."""

    def __init__(self, after: int, error: BaseException | None = None) -> None:
        super().__init__(64)
        self.left, self.error = after, error

    def propagate(self, requests: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            if self.error is not None:
                raise self.error
            signal.raise_signal(signal.SIGINT)
        return super().propagate(requests)


@pytest.mark.parametrize("project", [None, "mine.ivos"])
def test_ctrl_c_keeps_what_is_done(project, run, monkeypatch):
    """Ctrl-C ends with 130 and says how to go on; the same command again does the rest, with the same labels."""
    assert run(*SEGMENT, "--output", "whole.tif")[0] == 0
    command = [*SEGMENT, "--output", "labels.tif", *(["--project", project] if project else [])]
    monkeypatch.setattr(napari_ivos, "load_model", lambda name=None, device=None: Stopping(3))
    code, _, said = run(*command)
    kept = Path(project or "labels.tif.unfinished.ivos").absolute()
    assert code == 130
    assert str(kept.name) in said
    assert "same command again" in said
    assert kept.exists()
    assert not Path("labels.tif").exists()
    fake = FakePredictor(64)
    monkeypatch.setattr(napari_ivos, "load_model", lambda name=None, device=None: fake)
    code, _, _ = run(*command)
    assert code == 0
    assert ("segment", 2) not in fake.calls  # the scribbled frame is not made again
    assert 0 < sum(kind == "propagate" for kind, _ in fake.calls) < 8
    assert np.array_equal(tifffile.imread("labels.tif"), tifffile.imread("whole.tif"))
    assert kept.exists() == (project is not None)


def test_a_stacks_own_project_is_left_alone(run):
    """A project beside the output, such as the window makes, is neither gone on with nor deleted."""
    with Session("movie.tif", FakePredictor(64), project="movie.ivos") as session:
        session.add_object("mine")
    before = Path("movie.ivos").read_bytes()
    assert run(*SEGMENT, "--output", "movie", "--format", "davis")[0] == 0
    assert Path("movie.ivos").read_bytes() == before


@pytest.mark.parametrize(
    ("output", "what"),
    [
        ("movie.tif", "the frames"),
        ("./sub/../strokes.json", "the scribbles"),
        ("masks.tif", "the masks"),
        ("p.tif", "the project"),
        ("model.tif", "the model"),
    ],
)
def test_nothing_that_is_read_is_written_over(output, what, run):
    """An output in the place of what the command reads is refused before anything is loaded, overwriting or not."""
    tifffile.imwrite("masks.tif", movie()[1])
    Path("model.tif").write_bytes(b"weights")
    Path("sub").mkdir()
    before = {p: p.read_bytes() for p in Path().iterdir() if p.is_file()}
    given = ["--masks", "masks.tif", "--project", "p.tif", "--model", "model.tif"]
    code, _, error = run(*SEGMENT, *given, "--output", output, "--overwrite")
    assert code == 1
    assert f"{output.removeprefix('./')} is, or holds, {what}, which would be lost" in error
    assert {p: p.read_bytes() for p in Path().iterdir() if p.is_file()} == before


def test_a_project_of_the_name_of_its_own_is_left_alone(run):
    """Somebody's project where a run would keep its own is neither gone on with nor deleted, unless it is named."""
    kept = "labels.tif.unfinished.ivos"
    with Session("movie.tif", FakePredictor(64), project=kept) as session:
        session.add_object("mine")
    before = Path(kept).read_bytes()
    code, _, said = run(*SEGMENT, "--output", "labels.tif")
    assert code == 1
    assert f"{kept} is a project that no such command made for itself" in said
    assert Path(kept).read_bytes() == before
    assert not Path("labels.tif").exists()
    assert run(*SEGMENT, "--output", "labels.tif", "--project", kept)[0] == 0
    assert Path(kept).exists()


def test_what_was_corrected_meanwhile_is_not_deleted(run, monkeypatch):
    """The project of a run that was stopped stays in the end where somebody has drawn in it before it went on."""
    command = [*SEGMENT, "--output", "labels.tif"]
    monkeypatch.setattr(napari_ivos, "load_model", lambda name=None, device=None: Stopping(3))
    assert run(*command)[0] == 130
    kept = "labels.tif.unfinished.ivos"
    with Session.open(kept, model=FakePredictor(64)) as session:
        session.interact(Scribbles(6, [Stroke(1, [(20, 16), (26, 26)])]))
    monkeypatch.setattr(napari_ivos, "load_model", lambda name=None, device=None: FakePredictor(64))
    code, _, said = run(*command)
    assert code == 0
    assert f"{kept} stays" in said
    with Session.open(kept) as session:
        assert session.annotated_frames() == (4, 6)


@pytest.mark.parametrize(("given", "expected"), [({}, 3), ({"OMP_NUM_THREADS": "2"}, 4)], ids=["unsaid", "said"])
def test_a_command_leaves_a_core_to_others(given, expected, run, monkeypatch):
    """Of four cores three compute, unless the user has said how many: threads on a core that is taken wait for it."""
    from napari_ivos.networks import inference

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    chosen = [4]
    monkeypatch.setattr(inference, "cores", lambda: 4)
    monkeypatch.setattr(inference, "_threads", None)
    monkeypatch.setattr(inference.torch, "get_num_threads", lambda: chosen[-1])
    monkeypatch.setattr(inference.torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(inference, "_settled", threading.local())
    assert run(*SEGMENT, "--output", "labels.tif")[0] == 0
    assert chosen[-1] == expected


def test_ctrl_c_is_json_too(run, monkeypatch):
    """With --json, a stopped command says so with the project and the number of frames done."""
    monkeypatch.setattr(napari_ivos, "load_model", lambda name=None, device=None: Stopping(3))
    code, said, _ = run(*SEGMENT, "--json", "--output", "labels.tif")
    facts = json.loads(said)
    assert code == 130
    assert facts["interrupted"] is True
    assert facts["frames_done"] == 3
    assert facts["project"].endswith("labels.tif.unfinished.ivos")


def test_a_second_ctrl_c_stops_at_once(run, monkeypatch):
    """A Ctrl-C that comes as an exception, as from a second press, ends the same way."""
    monkeypatch.setattr(napari_ivos, "load_model", lambda name=None, device=None: Stopping(3, KeyboardInterrupt()))
    code, _, said = run(*SEGMENT, "--output", "labels.tif", "--project", "mine.ivos")
    assert code == 130
    assert "mine.ivos" in said
    assert "Traceback" not in said


def test_the_ctrl_c_of_others_is_given_back(run):
    """After a command, Ctrl-C means what it meant before."""
    before = signal.getsignal(signal.SIGINT)
    run(*SEGMENT, "--output", "labels.tif")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_project_is_not_segmented_again(run, monkeypatch):
    """The same command on a finished project draws nothing twice and runs no network."""
    command = [*SEGMENT, "--output", "labels.tif", "--project", "mine.ivos"]
    assert run(*command)[0] == 0
    first = tifffile.imread("labels.tif")
    fake = FakePredictor(64)
    monkeypatch.setattr(napari_ivos, "load_model", lambda name=None, device=None: fake)
    code, said, _ = run(*command, "--overwrite")
    assert code == 0
    assert fake.calls == []
    assert "nothing was left to do" in said
    assert np.array_equal(tifffile.imread("labels.tif"), first)


def test_a_run_without_work_shows_no_bar(run):
    """A bar says how much is done of what there is to do; a project that is finished has none, and its run says so."""
    words = tuple(word for word in SEGMENT if word != "--quiet")
    _, _, said = run(*words, "--output", "a.tif", "--project", "p.ivos")
    assert "segmenting" in said
    code, told, said = run(*words, "--output", "b.tif", "--project", "p.ivos")
    assert code == 0
    assert "nothing was left to do" in told
    assert "segmenting" not in said
    assert "writing ome-tiff" in said


@pytest.mark.parametrize(
    ("drawn_on", "told"),
    [("rider", True), ("", False), ("movie", False), ("Movie 2", False), ("mov", False), (7, False), (None, False)],
)
def test_strokes_of_another_stack_are_noted(drawn_on, told, run, folder):
    """Strokes of another sequence are taken, with a note; one name within the other, or none, is no other sequence."""
    data = json.loads((folder / "strokes.json").read_text())
    data["sequence"] = drawn_on
    (folder / "strokes.json").write_text(json.dumps(data))
    code, _, said = run(*SEGMENT, "--output", "labels.tif")
    assert code == 0
    assert ("strokes.json says that its strokes were drawn on 'rider', and this stack is 'movie.tif'" in said) == told
    assert ("drawn on" in said) == told


def test_masks_are_not_taken_twice(run):
    """A finished project that began with masks is left as it is by the same command."""
    tifffile.imwrite("masks.tif", movie()[1][4])
    command = ["segment", "movie.tif", "--masks", "masks.tif", "--frame", "4", "--project", "p.ivos", "--quiet"]
    assert run(*command, "--output", "a.tif")[0] == 0
    assert run(*command, "--output", "b.tif")[0] == 0
    with Session.open("p.ivos") as session:
        assert [step.kind for step in session.log] == ["annotate", "propagate"]


def test_masks_and_strokes_of_one_frame_are_not_taken_twice(run):
    """Masks that strokes of the same command correct stay corrected when that command runs again; so does any paint."""
    tifffile.imwrite("masks.tif", movie()[1][4])
    command = ["segment", "movie.tif", "--masks", "masks.tif", "--frame", "4", "--project", "p.ivos", "--quiet"]
    cut = write_davis([Scribbles(4, [Stroke(0, [(14, 13), (28, 28)])])], SHAPE)
    Path("cut.json").write_text(json.dumps(cut))
    command += ["--scribbles", "cut.json"]
    assert run(*command, "--output", "a.tif")[0] == 0
    with Session.open("p.ivos") as session:
        assert (session.labels[4] != movie()[1][4]).any()
        session.labels[4, 36:40, 60:64] = 0
    with Session.open("p.ivos") as session:
        kinds, labels = [step.kind for step in session.log], np.asarray(session.labels)
    assert run(*command, "--output", "b.tif")[0] == 0
    with Session.open("p.ivos") as session:
        assert [step.kind for step in session.log][:3] == kinds[:3] == ["annotate", "interact", "propagate"]
        assert [step.kind for step in session.log].count("annotate") == 2
        np.testing.assert_array_equal(session.labels[4], labels[4])


def test_a_contrast_that_is_asked_for_replaces_the_one_that_is_kept(run):
    """A project keeps its contrast; --contrast sets another one, for this run and from then on."""
    command = [*SEGMENT, "--project", "p.ivos"]
    assert run(*command, "--output", "a.tif")[0] == 0
    assert run(*command, "--output", "b.tif", "--contrast", "50,4000")[0] == 0
    assert run(*command, "--output", "c.tif")[0] == 0
    with Session.open("p.ivos") as session:
        assert session.contrast == ((50.0, 4000.0),)


def test_new_scribbles_are_a_new_round(run):
    """Other scribbles on an existing project correct it: a second round."""
    assert run(*SEGMENT, "--output", "a.tif", "--project", "p.ivos")[0] == 0
    more = write_davis([Scribbles(0, [Stroke(1, [(18, 16), (22, 26)])])], SHAPE)
    Path("more.json").write_text(json.dumps(more))
    again = ["segment", "movie.tif", "--scribbles", "more.json", "--project", "p.ivos", "--output", "b.tif", "--quiet"]
    assert run(*again)[0] == 0
    with Session.open("p.ivos") as session:
        assert [r.number for r in session.rounds] == [1, 2]


def test_correcting_runs_as_the_reference_has_it(run, folder):
    """The commands of the page make a project, name a frame, and correct it there in a second round."""
    page = (TOP / "docs" / "reference" / "command_line.md").read_text(encoding="utf-8")
    block = page.split("## Correcting", 1)[1].split("```sh\n", 1)[1].split("```", 1)[0]
    first, suggest, again = [line.split()[1:] for line in block.splitlines()]
    (folder / "movie.tif").rename(folder / "cells.tif")
    (folder / "strokes.json").rename(folder / "first.json")
    assert run(*first)[0] == 0
    frame = int(run(*suggest)[1].split()[1].rstrip(":"))
    before = tifffile.imread("labels.tif")
    more = [Scribbles(frame, [Stroke(1, [(40, 30), (44, 34)])])]
    (folder / "more.json").write_text(json.dumps(write_davis(more, SHAPE)))
    code, _, said = run(*again)
    assert code == 0, said
    with Session.open("cells.ivos") as session:
        assert [list(done.annotated) for done in session.rounds] == [[4], [frame]]
    assert not np.array_equal(tifffile.imread("labels.tif"), before)


def test_another_stack_is_refused_unless_forced(run):
    """A stack of other pixels is refused for a project, with the way out, which goes on with it."""
    assert run(*SEGMENT, "--project", "p.ivos", "--output", "a.tif")[0] == 0
    tifffile.imwrite("movie.tif", 255 - tifffile.imread("movie.tif"))
    for command in ((*SEGMENT, "--project", "p.ivos"), ("export", "p.ivos", "--frames", "movie.tif", "--quiet")):
        code, _, said = run(*command, "--output", "b.tif")
        assert code == 1
        assert "other pixels" in said
        assert "--force" in said
        assert run(*command, "--output", "b.tif", "--force")[0] == 0
        assert np.array_equal(tifffile.imread("b.tif"), tifffile.imread("a.tif"))
        Path("b.tif").unlink()


def test_a_broken_frame_keeps_what_is_before_it(run, monkeypatch):
    """An error midway is one line, and says where what is done is kept."""
    broken = FrameReadError("frame 7 of movie.tif can't be read: damaged", 7)
    monkeypatch.setattr(napari_ivos, "load_model", lambda name=None, device=None: Stopping(3, broken))
    code, _, said = run(*SEGMENT, "--output", "labels.tif")
    assert code == 1
    assert "frame 7" in said
    assert "labels.tif.unfinished.ivos` " not in said
    assert "napari-ivos export" in said
    assert Path("labels.tif.unfinished.ivos").exists()
    assert run("export", "labels.tif.unfinished.ivos", "--output", "part.tif", "--quiet")[0] == 0
    assert tifffile.imread("part.tif")[4].any()


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("segment", "movie.tif", "--output", "a.tif"), "Nothing says what to segment"),
        (("segment", "none.tif", "--scribbles", "strokes.json", "--output", "a.tif"), "none.tif"),
        (("segment", "movie.tif", "--scribbles", "none.json", "--output", "a.tif"), "none.json"),
        (("segment", "movie.tif", "--scribbles", "movie.tif", "--output", "a"), "no pixel is 0"),
        (("segment", "movie.tif", "--masks", "text.png", "--output", "a.tif"), "text.png is no image"),
        (("segment", "movie.tif", "--masks", "colour.png", "--output", "a.tif"), "mode RGB"),
        (("segment", "movie.tif", "--masks", "small.png", "--output", "a.tif"), "5 x 7 px; the frames are 60 x 80"),
        (("segment", "movie.tif", "--masks", "black.png", "--output", "a.tif"), "is empty"),
        (("segment", "movie.tif", "--masks", "none.png", "--output", "a.tif"), "none.png can't be read"),
        (("segment", "movie.tif", "--masks", "two.tif", "--output", "a.tif"), "holds 2 images; expected one, or 9"),
        (("segment", "movie.tif", "--masks", "float.tif", "--output", "a.tif"), "float32; expected whole numbers"),
        ((*SEGMENT, "--frame", "9", "--masks", "black.png", "--output", "a.tif"), "frames 0 to 8"),
        ((*SEGMENT, "--output", "a.docx"), "doesn't say which format"),
        ((*SEGMENT, "--output", "a.tif", "--format", "word"), "'word'"),
        ((*SEGMENT, "--output", "a.tif", "--format", " ,"), "names no format"),
        ((*SEGMENT, "--output", "strokes.json"), "Choose another name, or replace it (--overwrite)."),
        ((*SEGMENT, "--output", "strokes.json/a/b.tif"), "can't be made (Not a directory): name another --output"),
        ((*SEGMENT, "--output", "movie.tif", "--format", "coco,davis"), "is a file"),
        ((*SEGMENT, "--output", "a.tif", "--project", "strokes.json"), "strokes.json"),
        ((*SEGMENT, "--output", "a.tif", "--channels", "one"), "--channels 'one'"),
        ((*SEGMENT, "--output", "a.tif", "--contrast", "1"), "has 1 numbers"),
        ((*SEGMENT, "--output", "a.tif", "--index", "Z"), "--index 'Z'"),
        ((*SEGMENT, "--output", "a.tif", "--index", "Z=\u00b2"), "--index 'Z=\u00b2'"),
        ((*SEGMENT, "--output", "/"), None),
        (("export", "none.ivos", "--output", "a.tif"), "none.ivos"),
        (("export", "strokes.json", "--output", "a.tif"), "strokes.json"),
        (("info", "none"), "none"),
        (("info", "compact.safetensors"), "compact.safetensors"),
        (("info", "fake.safetensors"), "safetensors"),
        (("suggest", "none.ivos"), "none.ivos"),
        (("train", "none.toml"), None),
    ],
)
def test_errors_are_one_line(arguments, words, run):
    """What can't be used ends with 1 and one line on stderr that says what; nothing is written, no traceback shown."""
    Path("text.png").write_text("no picture")
    Image.new("RGB", (80, 60)).save("colour.png")
    Image.new("L", (7, 5), 1).save("small.png")
    Image.new("L", (80, 60)).save("black.png")
    tifffile.imwrite("two.tif", np.ones((2, 60, 80), np.uint8))
    tifffile.imwrite("float.tif", np.ones((60, 80), np.float32))
    Path("fake.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not a header....")
    before = sorted(p.name for p in Path().iterdir())
    code, said, error = run(*arguments)
    assert code == 1
    assert said == ""
    lines = [line for line in error.splitlines() if not line.startswith("note:")]
    assert len(lines) == 1
    assert lines[0].startswith("napari-ivos: error: ")
    if words is not None:
        assert words in error
    assert sorted(p.name for p in Path().iterdir()) == before


def test_errors_are_json_too(run):
    """With --json the error is an object on stdout as well."""
    code, said, error = run("info", "none", "--json")
    assert code == 1
    assert "none" in json.loads(said)["error"]
    assert json.loads(said)["error"] in error


def test_debug_shows_where(run):
    """With --debug an error is not shortened."""
    with pytest.raises(napari_ivos.InputError):
        run("info", "none", "--debug")


@pytest.mark.parametrize("arguments", [(), ("nothing",), ("segment",), ("export", "p.ivos"), ("info", "--axes")])
def test_wrong_usage_is_2(arguments, run):
    """A command that isn't there or lacks an argument ends with 2 and its usage."""
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2


def test_wrong_usage_says_how_it_is_right(run, capsys):
    """In three lines: what is wrong, an example, where the rest is; a command that is nearly one is named."""

    def wrong(*arguments: str) -> str:
        with pytest.raises(SystemExit):
            run(*arguments)
        return capsys.readouterr().err

    assert wrong("export", "p.ivos").splitlines() == [
        "napari-ivos export: error: the following arguments are required: --output",
        "An example: napari-ivos export cells.ivos --output labels.ome.tif",
        "All arguments: napari-ivos export --help",
    ]
    assert "did you mean segment?" in wrong("segmnet")
    assert "did you mean" not in wrong("zebra")
    assert "did you mean info?" in wrong("ifno", "cells.tif")


@pytest.mark.parametrize(
    ("typed", "told"),
    [("--overwirte", "; did you mean --overwrite?"), ("--zebra", ""), ("further.tif", "")],
    ids=["nearly an option", "no option", "one file too many"],
)
def test_what_a_command_does_not_know_is_its_own_error(typed, told, run, capsys):
    """The command itself says so, with its example and where its arguments are; what is nearly an option is named."""
    with pytest.raises(SystemExit):
        run("export", "p.ivos", "--output", "o.tif", typed)
    assert capsys.readouterr().err.splitlines() == [
        f"napari-ivos export: error: unrecognized arguments: {typed}{told}",
        "An example: napari-ivos export cells.ivos --output labels.ome.tif",
        "All arguments: napari-ivos export --help",
    ]


def test_the_examples_of_the_help_are_arguments():
    """Each is one that the program itself can read."""
    for command in ("segment", "export", "info", "suggest"):
        with pytest.raises(SystemExit), mock.patch("sys.stdout", io.StringIO()) as said:
            typed.parse([command, "--help"])
        given = " ".join(said.getvalue().rpartition("An example: napari-ivos ")[2].split())
        assert given.startswith(command)
        assert typed.parse(given.split()).run


def test_what_is_not_there_is_said_to_be_misspelt(run):
    """Of a project and of scribbles as of a stack, with what makes one where nothing does."""
    code, _, error = run("info", "toyy.ivos")
    assert code == 1
    assert "There is no project toyy.ivos. Check the spelling" in error
    assert "segment --project" in error
    code, _, error = run("segment", "movie.tif", "--scribbles", "strokess.json", "--output", "a.tif")
    assert (code, error.strip()) == (
        1,
        "napari-ivos: error: There is no file of scribbles strokess.json. Check the spelling.",
    )


def test_spacing_is_told_for_people(run, folder):
    """Each axis with its step, in a few digits, and its unit."""
    metadata = {"axes": "ZYX", "unit": "um", "spacing": 0.3}
    planes = np.zeros((3, 8, 8), np.uint8)
    tifffile.imwrite(folder / "z.tif", planes, imagej=True, resolution=(3.0, 3.0), metadata=metadata)
    _, said, _ = run("info", "z.tif")
    (line,) = [line for line in said.splitlines() if line.startswith("spacing")]
    assert "Z 0.3 " in line
    assert "Y 0.333333 " in line


def test_a_missing_model_is_an_error(run, monkeypatch):
    """A model that can't be loaded is told before anything is made."""

    def missing(name: str | None = None, device: str | None = None) -> None:
        raise WeightsError(f"No model is called {name!r}.")

    monkeypatch.setattr(napari_ivos, "load_model", missing)
    code, _, error = run(*SEGMENT, "--output", "a.tif", "--model", "huge")
    assert code == 1
    assert "'huge'" in error
    assert not Path("a.tif.unfinished.ivos").exists()


@pytest.mark.parametrize(("command", "extra"), [("benchmark", "benchmark"), ("train", "train")])
def test_a_missing_extra_is_named(command, extra, run, monkeypatch):
    """Commands of an extra that isn't installed say how to install it."""
    gone = {"cv2", "matplotlib"}

    def find(name: str, *rest: Any) -> object | None:
        return None if name in gone else object()

    monkeypatch.setattr("napari_ivos.cli.commands.find_spec", find)
    monkeypatch.setattr("napari_ivos.benchmark.program.find_spec", find)
    code, _, error = run(command, "data" if command == "benchmark" else "settings.toml")
    assert code == 1
    assert f"napari-ivos[{extra}]" in error


def test_without_dask_distributed_only_running_a_batch_is_refused(folder):
    """Whoever lacks the extra is told to install it by a batch; all names import, and a dry run looks at the stacks."""
    (folder / "stacks.csv").write_text("input,scribbles\nmovie.tif,strokes.json\n")

    def run(program: str) -> tuple[int, str]:
        hidden = f"import sys; sys.modules['distributed'] = None; {program}"
        done = subprocess.run([sys.executable, "-c", hidden], cwd=folder, capture_output=True, text=True, check=False)
        assert "should not be" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    command = "from napari_ivos.cli.program import main; sys.exit(main(['batch', 'stacks.csv'{}]))"
    assert run("from napari_ivos import *")[0] == 0
    code, said = run(command.format(", '--dry-run'"))
    assert (code, "1 stack: 1 to do" in said) == (0, True), said
    for program in (command.format(""), "import napari_ivos; napari_ivos.run_batch('stacks.csv')"):
        code, said = run(program)
        assert code == 1
        assert "napari-ivos[distributed]" in said


# ---------------------------------------------------------------------------------------------------- other commands


@pytest.fixture
def project(run, folder) -> Path:
    """A finished project beside its stack."""
    assert run(*SEGMENT, "--output", "labels.tif", "--project", "movie.ivos")[0] == 0
    return folder / "movie.ivos"


def test_export_writes_a_project(project, run):
    """A project's labels go to any format, with the frames found beside it."""
    code, said, _ = run("export", project, "--output", "e", "--format", "table,ome-tiff", "--json", "--quiet")
    assert code == 0
    assert [o["format"] for o in json.loads(said)["outputs"]] == ["table", "ome-tiff"]
    assert np.array_equal(tifffile.imread("e/labels.ome.tif"), tifffile.imread("labels.tif"))
    assert "mean_intensity" in Path("e/objects.csv").read_text()
    assert run("export", project, "--output", "e", "--format", "table,ome-tiff", "--quiet")[0] == 1
    assert run("export", project, "--output", "e", "--format", "table,ome-tiff", "--quiet", "--overwrite")[0] == 0


def test_export_works_without_the_frames(project, run):
    """Where the stack has gone, labels are exported all the same, a note says what is missing, --frames finds it."""
    Path("movie.tif").rename("moved.tif")
    code, _, said = run("export", project, "--output", "a.csv", "--quiet")
    assert code == 0
    assert "give --frames" in said
    assert "mean_intensity" not in Path("a.csv").read_text()
    assert run("export", project, "--output", "b.csv", "--frames", "moved.tif", "--quiet")[0] == 0
    assert "mean_intensity" in Path("b.csv").read_text()


def test_info_of_a_stack(run):
    """A stack's shape, type and axes are told without reading it."""
    _, said, _ = run("info", "movie.tif", "--json")
    facts = json.loads(said)
    assert (facts["kind"], facts["shape"], facts["axes"], facts["dtype"]) == ("stack", list(SHAPE), "TYX", "uint16")
    assert "shape: 9, 60, 80" in run("info", "movie.tif")[1]


def test_info_of_a_project(project, run):
    """A project's objects, rounds and next frame are told, whatever its name."""
    _, said, _ = run("info", project, "--json")
    facts = json.loads(said)
    assert facts["kind"] == "project"
    assert facts["axes"] == "TYX"
    assert [o["id"] for o in facts["objects"]] == [1, 2]
    assert facts["objects"][0]["annotated_frames"] == [4]
    assert facts["rounds"][0]["annotated"] == {"4": [1, 2]}
    project.rename("other.bin")
    _, said, _ = run("info", "other.bin")
    assert "kind: project" in said
    assert f"frames 0 to {SHAPE[0] - 1}, annotated frames 4," in said
    assert "annotated frame 4 (objects 1 2)," in said


def test_suggest_names_a_frame(project, run):
    """The frame to correct next, with the quality of its objects."""
    code, said, _ = run("suggest", project, "--json")
    facts = json.loads(said)
    assert code == 0
    assert facts["frame"] in set(range(SHAPE[0])) - {4}
    assert [o["id"] for o in facts["objects"]] == [1, 2]
    said = run("suggest", project)[1]
    assert f"Frame {facts['frame']}: object " in said
    assert said.count("object") == 1


def test_qualities_are_of_frames_on_which_an_object_may_be(project, run):
    """Frames after an object's end don't lower its mean, and one that no round has looked for is nowhere the worst."""
    with Session.open(project) as session:
        session.set_lifetime(1, 4, 5)  # the frame that it was annotated on
        session.add_object("later")
        session.rename(2, "left cell")
        quality = float(session.quality[4, 0])
    facts = json.loads(run("info", project, "--json")[1])
    assert facts["objects"][0]["mean_quality"] == pytest.approx(quality, abs=1e-4)
    suggested = json.loads(run("suggest", project, "--json")[1])
    assert [o["id"] for o in suggested["objects"]] == [2]
    assert ": left cell (object 2) has" in run("suggest", project)[1]


def test_suggest_without_anything_done(run, folder):
    """A project without masks has no frame to suggest."""
    Session(folder / "movie.tif", FakePredictor(), project="new.ivos").close()
    assert json.loads(run("suggest", "new.ivos", "--json")[1]) == {"frame": None, "objects": []}
    assert "No frame" in run("suggest", "new.ivos")[1]


def test_the_samples_are_there():
    """Both samples ship with masks of their frames and scribbles that lie on them."""
    for name in SAMPLES:
        with napari_ivos.open_frames(sample_folder() / f"{name}.tif") as stack:
            assert tifffile.imread(sample_folder() / f"{name}_masks.tif").shape == stack.shape
            assert read_davis(sample_folder() / f"{name}_scribbles.json", stack.shape)


def test_the_demo_leaves_all_results(run, folder, monkeypatch):
    """The demo writes labels, video, sheet and table of both samples, says that they are simulated, and compares."""
    pytest.importorskip("av", reason="PyAV is not installed")
    monkeypatch.setattr("napari_ivos.cli.demo.sample_folder", lambda: folder)
    for name in SAMPLES:
        tifffile.imwrite(f"{name}.tif", movie()[0], imagej=True, metadata={"axes": "TYX"})
        tifffile.imwrite(f"{name}_masks.tif", movie()[1], imagej=True, metadata={"axes": "TYX"})
        Path(f"{name}_scribbles.json").write_bytes(Path("strokes.json").read_bytes())
    code, said, _ = run("demo", "--quiet")
    assert code == 0
    for name in SAMPLES:
        assert sorted(p.name for p in Path("demo_output", name).iterdir()) == sorted(NAMES[n] for n in USUAL)
        assert f"{name} (simulated data)" in said
    assert said.count("against the known masks") == 2
    assert str(Path("demo_output").resolve()) in said
    code, said, _ = run("demo", "--quiet", "--json")  # once more, over its own results
    facts = json.loads(said)
    assert code == 0
    assert facts["simulated"] is True
    assert 0.8 < facts["samples"]["toy"]["j"] <= 1
    assert run("demo", "--quiet", "--output", "demo_output")[0] == 1


def test_training_is_handed_its_settings(run, monkeypatch):
    """``train`` reads its settings file and hands them to the training program."""
    Path("run.toml").write_text('data = "data"\noutput = "out"\nsteps = 7\n')
    seen: list[Any] = []
    training = pytest.importorskip("napari_ivos.training.train")
    monkeypatch.setattr(training, "train", lambda settings, tell: seen.append(settings))
    assert run("train", "run.toml")[0] == 0
    assert seen[0].steps == 7


# ---------------------------------------------------------------------------------------------------- outside


def outside(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "napari_ivos", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_help_and_version_from_outside(tmp_path):
    """The program runs as a process of its own: help, version, usage errors."""
    helped = outside("--help", cwd=tmp_path)
    assert helped.returncode == 0
    for command in ("segment", "demo", "export", "info", "suggest", "benchmark", "train"):
        assert command in helped.stdout
    assert outside("--version", cwd=tmp_path).stdout.strip() == f"napari-ivos {napari_ivos.__version__}"
    assert outside("nonsense", cwd=tmp_path).returncode == 2
    failed = outside("info", "nothing.tif", cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr.startswith("napari-ivos: error:")
    assert "Traceback" not in failed.stderr


def test_help_loads_nothing_heavy(tmp_path):
    """Help is there at once: it loads neither torch nor what reads and writes files."""
    code = (
        "import sys\nfrom napari_ivos.cli import main\n"
        "try:\n    main(['segment', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'torchvision', 'dask', 'zarr', 'tifffile', 'av', 'PIL', 'napari', 'qtpy', 'scipy', 'tqdm'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["napari_ivos.cli.program", "argparse", "napari_ivos.frames"])
def test_ctrl_c_while_the_program_loads_is_one_line(module, folder):
    """Ctrl-C that comes as the program, its arguments or what a command needs is loaded ends with 130 and one line."""
    code = (
        "import os, signal, sys\n"
        "class Press:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Press())\n"
        "from napari_ivos.cli import main\n"
        "sys.exit(main(['info', 'movie.tif']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "\nnapari-ivos: Stopped.\n"


def test_a_closed_pipe_is_no_traceback(folder):
    """Whoever reads only the first line of the output gets no traceback."""
    done = subprocess.run(
        f"{sys.executable} -m napari_ivos info movie.tif | true",
        shell=True,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def shipped_weights() -> bool:
    from napari_ivos.networks import weights

    return (Path(weights.__file__).parent / "models" / f"{weights.DEFAULT}.safetensors").exists()


@pytest.mark.skipif(not shipped_weights(), reason="no trained weights in this checkout")
def test_the_demo_with_the_shipped_weights(tmp_path):
    """From outside, with the real networks: both samples reach J 0.8 from one scribbled frame."""
    done = outside("demo", "--device", "cpu", "--json", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    for name, sample in facts["samples"].items():
        assert sample["j"] >= 0.8, name
        for written in sample["outputs"]:
            assert (tmp_path / written["path"]).stat().st_size > 1000
