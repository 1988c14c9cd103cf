"""Batches: manifests, the same labels as a session, one bad stack alone, going on, stopping."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_ivos import FakePredictor, Session, load_model
from napari_ivos.cli import main
from napari_ivos.errors import FrameReadError, InputError, IvosError, ProjectError
from napari_ivos.frames import open_frames
from napari_ivos.scribbles import read_davis
from napari_ivos.session.parcels import Sharing

distributed = pytest.importorskip("distributed", reason="the extra `distributed` is not installed")

from napari_ivos.batch import (  # noqa: E402 - needs distributed
    BatchInterrupted,
    Progress,
    Summary,
    look_ahead,
    read_manifest,
    run_batch,
    workers,
)
from napari_ivos.batch.deaf import held  # noqa: E402 - needs distributed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHAPE = (96, 128)


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    """Two workers in this process, which is quick to start."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", protocol="inproc"
        ) as cluster,
        distributed.Client(cluster) as made,
    ):
        yield made


def davis(scribbles, shape) -> dict:
    """Scribbles as the JSON of DAVIS interactive."""
    frames: list[list[dict]] = [[] for _ in range(shape[0])]
    for one in scribbles:
        for stroke in one.strokes:
            path = [[column / (shape[2] - 1), row / (shape[1] - 1)] for row, column in stroke.points.tolist()]
            frames[one.frame].append({"path": path, "object_id": stroke.object_id, "start_time": 0, "end_time": 1})
    return {"sequence": "clip", "scribbles": frames}


@pytest.fixture
def lay_out(tmp_path, make_clip):
    """Write clips with scribbles and a manifest of them; its path."""

    def make(count: int = 1, frames: int = 14, marks=((0, 1, 2),), **shared) -> Path:
        rows = []
        for k in range(count):
            clip = make_clip(frames, SHAPE)
            tifffile.imwrite(tmp_path / f"s{k}.tif", clip.video, photometric="rgb", metadata={"axes": "TYXS"})
            strokes = davis([clip.scribbles(*mark) for mark in marks], (frames, *SHAPE))
            (tmp_path / f"s{k}.json").write_text(json.dumps(strokes))
            rows.append({"input": f"s{k}.tif", "scribbles": f"s{k}.json", "format": "ome-tiff", **shared})
        path = tmp_path / "all.json"
        path.write_text(json.dumps(rows))
        return path

    return make


def by_hand(folder: Path, name: str = "s0") -> tuple[np.ndarray, np.ndarray]:
    """Labels and quality of a session that does the same, frame by frame, in this process."""
    with Session(open_frames(folder / f"{name}.tif"), FakePredictor()) as session:
        for scribbles in read_davis(folder / f"{name}.json", session.shape):
            session.interact(scribbles)
        for _ in session.propagate():
            pass
        return np.asarray(session.labels), np.asarray(session.quality)


def batched(folder: Path, name: str = "s0") -> tuple[np.ndarray, np.ndarray]:
    with Session.open(folder / "all_results" / f"{name}.ivos") as session:
        return np.asarray(session.labels), np.asarray(session.quality)


def run(manifest: Path, client, **options):
    return run_batch(manifest, client, **{"model": FakePredictor(), **options})


# --- the same labels ----------------------------------------------------------------------------------------------

MARKS = {
    "one-frame": ((5, 1, 2),),
    "both-ends": ((0, 1, 2), (13, 1, 2)),
    "spans": ((2, 1, 2), (7, 1, 2), (11, 1, 2)),
    "object-by-object": ((1, 1), (6, 2), (12, 1)),
}


@pytest.mark.parametrize("size", [1, 3, None], ids=["one-by-one", "by-three", "by-time"])
@pytest.mark.parametrize("marks", MARKS.values(), ids=MARKS.keys())
def test_labels_are_those_of_a_session_to_the_last_bit(lay_out, tmp_path, client, marks, size):
    """Whatever the spans and the size of parcels, labels and qualities equal those of a session on one machine."""
    summary = run(lay_out(marks=marks), client, frames_a_parcel=size)
    assert [s.state for s in summary.stacks] == ["done"], summary.as_text()
    for here, there in zip(by_hand(tmp_path), batched(tmp_path), strict=True):
        np.testing.assert_array_equal(here, there)
    exported = tifffile.imread(tmp_path / "all_results" / "s0" / "labels.ome.tif")
    np.testing.assert_array_equal(exported, by_hand(tmp_path)[0])


@pytest.mark.parametrize("most", [1, 2, 3])
def test_of_many_references_parcels_get_those_that_a_session_reads(lay_out, tmp_path, client, monkeypatch, most):
    """Where an object has more references than a network takes, labels and qualities equal a session's, too."""
    monkeypatch.setattr("napari_ivos.session.sweep.REFERENCES_AT_MOST", most)
    handed, references = [], Sharing.references

    def counted(shared, part):
        rows = references(shared, part)
        handed.append(Counter(row[0] for row in rows["learned"]))
        return rows

    monkeypatch.setattr(Sharing, "references", counted)
    marks = [(frame, 1, 2) for frame in (1, 4, 6, 9, 12)]
    assert run(lay_out(marks=marks), client, frames_a_parcel=2).complete
    assert max(max(found.values()) for found in handed) <= min(2 * most, 5)  # a span has two ends
    for here, there in zip(by_hand(tmp_path), batched(tmp_path), strict=True):
        np.testing.assert_array_equal(here, there)


def test_strokes_of_another_stack_are_noted_in_the_summary(lay_out, client):
    """Strokes whose file names another sequence than their stack are used, and the stack's row says so."""
    (stack,) = run(lay_out(), client).stacks
    assert stack.state == "done"
    assert any(
        "s0.json says that its strokes were drawn on 'clip', and this stack is 's0.tif'" in n for n in stack.notes
    )


def crowd(folder: Path, frames: int) -> Path:
    """Twelve squares on a wide picture, some of which run into each other; scribbles on a frame in the middle."""
    shape = (frames, 260, 380)
    rng = np.random.default_rng(3)
    colours = rng.integers(60, 256, (12, 3))
    motion = [(0, 0), (0, 5), (0, -5), (0, 0), (2, 2), (0, 0), (0, 0), (0, -3), (-3, 0), (0, 0), (0, 6), (0, 0)]
    video = np.full((*shape, 3), 20, np.uint8)
    lines = []
    for k in range(12):
        y, x = 30 + 90 * (k // 4), 30 + 95 * (k % 4)
        for t in range(frames):
            dy, dx = (m * (t - frames // 2) for m in motion[k])
            video[t, max(y + dy, 0) : max(y + dy + 20, 0), max(x + dx, 0) : max(x + dx + 20, 0)] = colours[k]
        path = [[(x + 4) / 379, (y + 10) / 259], [(x + 16) / 379, (y + 10) / 259]]
        lines.append({"path": path, "object_id": k + 1, "start_time": 0, "end_time": 1})
    np.save(folder / "s0.npy", video)
    scribbles = [lines if t == frames // 2 else [] for t in range(frames)]
    (folder / "s0.json").write_text(json.dumps({"sequence": "x", "scribbles": scribbles}))
    manifest = folder / "all.json"
    row = {"input": "s0.npy", "scribbles": "s0.json", "axes": "TYXC", "format": "davis"}
    manifest.write_text(json.dumps([row]))
    return manifest


@pytest.mark.parametrize("size", [4, 20], ids=["short-parcels", "long-parcels"])
def test_objects_told_apart_give_the_labels_of_all_together(tmp_path, client, monkeypatch, size):
    """Objects in parcels side by side equal a session to the last bit, also where some of them meet on the way."""
    from napari_ivos.batch.running import DaskCrew
    from napari_ivos.session.lots import Lot

    lots: list[tuple[int, int, int]] = []
    accepted = Lot.accepted

    def counted(lot):
        frames = accepted(lot)
        lots.append((len(lot.parcels), len(lot.frames), len(frames)))
        return frames

    monkeypatch.setattr(Lot, "accepted", counted)
    monkeypatch.setattr(DaskCrew, "spare", lambda crew, ways: 3)
    assert run(crowd(tmp_path, 20), client, frames_a_parcel=size).complete
    assert max(parcels for parcels, _, _ in lots) == 3
    assert size == 4 or any(done < sent for _, sent, done in lots)  # some met, and were done again together
    with Session(open_frames(tmp_path / "s0.npy", axes="TYXC"), FakePredictor()) as session:
        for scribbles in read_davis(tmp_path / "s0.json", session.shape):
            session.interact(scribbles)
        for _ in session.propagate():
            pass
        np.testing.assert_array_equal(batched(tmp_path)[0], session.labels)
        np.testing.assert_array_equal(batched(tmp_path)[1], session.quality)


def test_masks_and_projects_start_a_stack_as_scribbles_do(lay_out, tmp_path, make_clip, client):
    """Painted masks are learned from and stay to the pixel; a project that is brought is left as it was."""
    manifest = lay_out()
    truth = make_clip(14, SHAPE).truth
    tifffile.imwrite(tmp_path / "masks.tif", truth[4])
    with Session(tmp_path / "s0.tif", FakePredictor(), project=tmp_path / "mine.ivos") as session:
        session.annotate(4, truth[4])
    before = (tmp_path / "mine.ivos").read_bytes()
    rows = [
        {"name": "m", "input": "s0.tif", "masks": "masks.tif", "frame": 4, "format": "davis"},
        {"name": "p", "project": "mine.ivos", "format": "davis"},
    ]
    manifest.write_text(json.dumps(rows))
    assert run(manifest, client).complete
    with Session(open_frames(tmp_path / "s0.tif"), FakePredictor()) as session:
        session.annotate(4, truth[4])
        for _ in session.propagate():
            pass
        for name in ("m", "p"):
            np.testing.assert_array_equal(batched(tmp_path, name)[0], session.labels)
            np.testing.assert_array_equal(batched(tmp_path, name)[0][4], truth[4])
    assert (tmp_path / "mine.ivos").read_bytes() == before


def test_contrast_is_set_by_the_first_region_that_tells(tmp_path, client):
    """Where the sampled chunks are all the same, labels are still those of a session: the same region sets contrast."""
    video = np.zeros((9, *SHAPE), np.uint16)
    for t in range(4, 7):
        video[t, 30:50, 40 + 2 * t : 60 + 2 * t] = 700
    np.save(tmp_path / "s0.npy", video)
    strokes = [[] for _ in range(9)]
    strokes[4] = [{"path": [[0.4, 0.4], [0.48, 0.4]], "object_id": 1, "start_time": 0, "end_time": 1}]
    (tmp_path / "s0.json").write_text(json.dumps({"sequence": "x", "scribbles": strokes}))
    manifest = tmp_path / "all.json"
    manifest.write_text(json.dumps([{"input": "s0.npy", "scribbles": "s0.json", "format": "davis"}]))
    assert run(manifest, client, frames_a_parcel=1).complete
    with Session(open_frames(tmp_path / "s0.npy"), FakePredictor()) as session:
        for scribbles in read_davis(tmp_path / "s0.json", session.shape):
            session.interact(scribbles)
        for _ in session.propagate():
            pass
        np.testing.assert_array_equal(batched(tmp_path)[0], session.labels)


# --- faults stay alone, work goes on ------------------------------------------------------------------------------


def test_one_bad_stack_fails_alone(lay_out, tmp_path, client):
    """A stack that can't be read is named with its reason, and those beside it are finished; the tables say both."""
    manifest = lay_out(3)
    (tmp_path / "s1.tif").write_bytes(b"no picture at all")
    summary = run(manifest, client)
    assert [s.state for s in summary.stacks] == ["done", "failed", "done"]
    assert "s1.tif" in summary.failed[0].error
    folder = tmp_path / "all_results"
    assert "failed" in (folder / "summary.txt").read_text()
    (_, bad, good) = csv.DictReader(io.StringIO((folder / "summary.csv").read_text()))
    assert (bad["state"], good["state"], good["frames"]) == ("failed", "done", "14")
    assert json.loads((folder / "summary.json").read_text())["counts"] == {"done": 2, "failed": 1}


def test_a_second_run_looks_at_finished_stacks_only(lay_out, tmp_path, client):
    """Finished stacks are skipped; one whose file was lost is written again; a mended one is done."""
    manifest = lay_out(3)
    whole = (tmp_path / "s1.tif").read_bytes()
    (tmp_path / "s1.tif").write_bytes(whole[:1000])
    run(manifest, client)
    (tmp_path / "s1.tif").write_bytes(whole)
    (tmp_path / "all_results" / "s2" / "labels.ome.tif").unlink()
    again = run(manifest, client)
    assert [(s.state, s.frames > 0) for s in again.stacks] == [("earlier", False), ("done", True), ("done", False)]
    assert [s.state for s in run(manifest, client).stacks] == ["earlier"] * 3


def test_where_nothing_is_left_to_do_no_worker_is_started(lay_out, client, monkeypatch):
    """A batch that is finished is so at once, says it, and writes its summary; one that is not needs its workers."""
    manifest = lay_out(2)
    first = run(manifest, client)
    (manifest.parent / "all_results" / "summary.txt").unlink()

    def none(workers):
        raise AssertionError("workers")

    monkeypatch.setattr("napari_ivos.batch.running.local_cluster", none)
    told: list[Progress] = []
    again = run(manifest, None, progress=told.append)
    assert [(s.state, s.outputs) for s in again.stacks] == [("earlier", s.outputs) for s in first.stacks]
    assert [(now.stacks, now.finished) for now in told] == [(2, 2)]
    assert "2 done earlier" in (manifest.parent / "all_results" / "summary.txt").read_text()
    (manifest.parent / "all_results" / "s1" / "labels.ome.tif").unlink()
    with pytest.raises(AssertionError, match="workers"):
        run(manifest, None)


def test_the_bar_of_a_batch_never_goes_back(lay_out, monkeypatch, capsys):
    """However the number of frames that are needed grows, the bar counts to the number of stacks, and says both."""
    seen = [(0, 4, 8), (0, 8, 8), (1, 8, 38), (1, 20, 38), (2, 24, 38)]

    def play(manifest, client, *, progress, **options):
        for finished, frames, planned in seen:
            progress(Progress(2, finished, 0, frames, planned))
        return Summary((), 0.0, "a model")

    monkeypatch.setattr("napari_ivos.cli.batching.run_batch", play)
    monkeypatch.setattr("napari_ivos.cli.output.SLOW", 0.0)
    assert main(["batch", str(lay_out(2))]) == 0
    said = capsys.readouterr().err
    counts = [(int(done), int(of)) for done, of in re.findall(r"\b(\d+)/(\d+) \[", said)]
    assert {of for _, of in counts} == {2}
    assert sorted(counts) == counts
    assert all(f"{frames} of up to {planned} frames" in said for _, frames, planned in seen)


class Failing(FakePredictor):
    """Fails at its n-th call of all, once; travels to workers with its count."""

    checksum = "fake-1"

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def propagate(self, requests):
        self.left -= 1
        if self.left == 0:
            raise FrameReadError("Frame 0 of x can't be read.", 0)
        return super().propagate(requests)


@pytest.mark.parametrize("calls", [1, 6, 17])
def test_a_stack_that_failed_half_way_goes_on_to_the_same_labels(lay_out, tmp_path, client, calls):
    """What was finished before an error is kept, the next run does the rest, and labels are those of one run."""
    manifest = lay_out(marks=MARKS["both-ends"])
    first = run(manifest, client, model=Failing(calls), frames_a_parcel=4, at_once=1)
    assert "can't be read" in first.failed[0].error
    done = first.stacks[0].masks
    second = run(manifest, client, frames_a_parcel=4)
    assert second.complete
    for here, there in zip(by_hand(tmp_path), batched(tmp_path), strict=True):
        np.testing.assert_array_equal(here, there)
    assert done + second.stacks[0].masks == run(lay_again(manifest), client).stacks[0].masks


def lay_again(manifest: Path) -> Path:
    """The same stacks with another folder of results."""
    other = manifest.with_name("other.json")
    other.write_text(manifest.read_text())
    return other


class Other(FakePredictor):
    """Other weights."""

    checksum = "fake-2"


def test_another_model_does_not_go_on_with_what_one_has_begun(lay_out, client):
    """Masks of two models are never mixed in one project unnoticed: the second run is told to go elsewhere."""
    manifest = lay_out()
    run(manifest, client)
    summary = run(manifest, client, model=Other())
    assert "made with another model" in summary.failed[0].error


# --- what changed between two runs --------------------------------------------------------------------------------


def propagated(source: Path, project: Path | None = None) -> np.ndarray:
    """Labels of a session that propagates what a copy of a project holds."""
    copy = source.with_name("copy.ivos")
    copy.write_bytes((project or source.with_name("mine.ivos")).read_bytes())
    with Session.open(copy, frames=open_frames(source), model=FakePredictor()) as session:
        for _ in session.propagate():
            pass
        labels = np.asarray(session.labels)
    copy.unlink()
    return labels


@pytest.fixture
def brought(lay_out, tmp_path, make_clip):
    """A manifest of one stack that begins with a project, which has one annotated frame."""
    manifest = lay_out()
    with Session(tmp_path / "s0.tif", FakePredictor(), project=tmp_path / "mine.ivos") as session:
        session.annotate(4, make_clip(14, SHAPE).truth[4])
    manifest.write_text(json.dumps([{"name": "s0", "project": "mine.ivos", "format": "ome-tiff"}]))
    return manifest


def correct(project: Path, frame: int = 10) -> None:
    """Paint a third object on a frame of a project."""
    with Session.open(project, model=FakePredictor()) as session:
        image = np.zeros(SHAPE, np.uint16)
        image[60:75, 90:110] = 3
        session.annotate(frame, image, [3])


def test_a_project_that_was_corrected_is_taken_anew(brought, tmp_path, client):
    """A second run takes over what was added to the project that a stack begins with, to labels and exports."""
    exported = tmp_path / "all_results" / "s0" / "labels.ome.tif"
    assert run(brought, client).stacks[0].frames == 13
    first = tifffile.imread(exported)
    Session.open(tmp_path / "mine.ivos").close()  # opening changes nothing
    os.utime(tmp_path / "mine.ivos")
    assert run(brought, client).stacks[0].state == "earlier"
    correct(tmp_path / "mine.ivos")
    assert look_ahead(brought, model=FakePredictor()).stacks[0].state == "new"
    (again,) = run(brought, client).stacks
    assert (again.state, again.frames) == ("done", 14)
    assert "made anew" in " ".join(again.notes)
    wanted = propagated(tmp_path / "s0.tif")
    assert (wanted != first).any()
    np.testing.assert_array_equal(batched(tmp_path)[0], wanted)
    np.testing.assert_array_equal(tifffile.imread(exported), wanted)
    assert run(brought, client).stacks[0].state == "earlier"


@pytest.mark.parametrize("corrected", [False, True], ids=["as-it-was", "corrected"])
def test_a_half_done_copy_goes_on_while_its_project_is_the_same(brought, tmp_path, client, corrected):
    """After an error the copy in the output folder goes on; one of a project that was corrected since begins anew."""
    (first,) = run(brought, client, model=Failing(6), frames_a_parcel=2, at_once=1).failed
    assert 0 < first.frames < 13
    if corrected:
        correct(tmp_path / "mine.ivos")
    (second,) = run(brought, client).stacks
    assert (second.state, second.frames) == ("done", 14 if corrected else 13 - first.frames)
    np.testing.assert_array_equal(batched(tmp_path)[0], propagated(tmp_path / "s0.tif"))


def test_what_was_corrected_in_the_output_folder_is_never_lost(brought, tmp_path, client):
    """A copy that somebody has corrected stays as it is, whatever became of the project that it was made from."""
    kept = tmp_path / "all_results" / "s0.ivos"
    run(brought, client)
    correct(kept)
    before = kept.read_bytes()
    assert run(brought, client).stacks[0].state == "earlier"
    correct(tmp_path / "mine.ivos", 2)
    assert "was corrected since a batch made it" in look_ahead(brought, model=FakePredictor()).stacks[0].error
    assert "Move it to another folder" in run(brought, client).failed[0].error
    assert kept.read_bytes() == before
    kept.rename(tmp_path / "both.ivos")
    assert run(brought, client).complete
    np.testing.assert_array_equal(batched(tmp_path)[0], propagated(tmp_path / "s0.tif"))


@pytest.mark.parametrize("scribbled", [False, True])
def test_strokes_of_the_batch_itself_are_no_corrections(brought, tmp_path, client, scribbled):
    """A copy in which the batch alone has drawn is made anew, also by a run that found it half done."""
    rows = json.loads(brought.read_text())
    if scribbled:
        rows[0]["scribbles"] = "s0.json"
    brought.write_text(json.dumps(rows))
    run(brought, client, model=Failing(3), frames_a_parcel=2, at_once=1)
    run(brought, client)
    correct(tmp_path / "mine.ivos")
    (again,) = run(brought, client).stacks
    assert again.state == "done", again.error
    with Session.open(tmp_path / "all_results" / "s0.ivos") as session:
        assert session.annotated_frames() == ((0, 4, 10) if scribbled else (4, 10))


def test_a_copy_that_is_open_elsewhere_is_not_replaced(brought, tmp_path, client):
    """Where the window has the old copy open, or reads it, the stack fails with that reason and the copy stays."""
    kept = tmp_path / "all_results" / "s0.ivos"
    run(brought, client)
    correct(tmp_path / "mine.ivos")
    with Session.open(kept) as session:
        assert "another session has it open" in run(brought, client).failed[0].error
        assert session.annotated_frames() == (4,)
    assert run(brought, client).complete
    assert [p.name for p in kept.parent.iterdir() if p.name.startswith(("s0.ivos", ".s0"))] == ["s0.ivos"]


def store(path: Path, video: np.ndarray) -> None:
    """Write frames in place: as a folder of plain TIFFs, a zarr or a file, by the name."""
    if path.suffix == ".npy":
        np.save(path, video)
    elif path.suffix == ".zarr":
        zarr = pytest.importorskip("zarr")
        array = zarr.open_array(path, mode="a", shape=video.shape, chunks=(1, 96, 128, 3), dtype=video.dtype)
        array[:] = video
    else:
        path.mkdir(exist_ok=True)
        for t, frame in enumerate(video):
            tifffile.imwrite(path / f"{t}.tif", frame, photometric="rgb")


@pytest.mark.parametrize("name", ["s0.npy", "s0.zarr", "s0"], ids=["file", "zarr", "folder"])
def test_frames_that_were_rewritten_in_place_are_segmented_again(lay_out, tmp_path, make_clip, client, name):
    """Other pixels in files of the same names and sizes are found by their times: nothing of the old ones is left."""
    manifest = lay_out(marks=((3, 1, 2),))
    video = make_clip(14, SHAPE).video.copy()
    store(tmp_path / name, video)
    (row,) = json.loads(manifest.read_text())
    row |= {"input": name, "axes": "TYXC"}
    manifest.write_text(json.dumps([row]))
    assert run(manifest, client).complete
    assert run(manifest, client).stacks[0].state == "earlier"
    video[9:] = 0  # both objects are gone
    sizes = {p: p.stat().st_size for p in (tmp_path / name).rglob("*.tif")}
    store(tmp_path / name, video)
    assert sizes == {p: p.stat().st_size for p in (tmp_path / name).rglob("*.tif")}
    assert look_ahead(manifest, model=FakePredictor()).stacks[0].state == "new"
    (again,) = run(manifest, client).stacks
    assert again.state == "done", again.error
    with Session(open_frames(tmp_path / name, axes="TYXC"), FakePredictor()) as session:
        for scribbles in read_davis(tmp_path / "s0.json", session.shape):
            session.interact(scribbles)
        for _ in session.propagate():
            pass
        np.testing.assert_array_equal(batched(tmp_path)[0], session.labels)


def test_frames_of_a_project_are_looked_at_too(brought, tmp_path, client):
    """Where only a project says which frames are meant, other pixels in them are noticed; its old copy stays."""
    kept = tmp_path / "all_results" / "s0.ivos"
    run(brought, client)
    before = kept.read_bytes()
    with tifffile.TiffFile(tmp_path / "s0.tif") as file:
        video = file.asarray()
    tifffile.imwrite(tmp_path / "s0.tif", 255 - video, photometric="rgb", metadata={"axes": "TYXS"})
    assert "other pixels" in run(brought, client).failed[0].error
    assert kept.read_bytes() == before


def test_a_project_that_no_batch_made_is_left_alone(lay_out, tmp_path, client):
    """Somebody's project under the name of a stack's results is neither gone on with nor changed."""
    manifest, kept = lay_out(2), tmp_path / "all_results" / "s1.ivos"
    kept.parent.mkdir()
    with Session(tmp_path / "s1.tif", FakePredictor(), project=kept) as session:
        session.add_object("mine")
    before = kept.read_bytes()
    assert "no batch made" in look_ahead(manifest, model=FakePredictor()).stacks[1].error
    summary = run(manifest, client)
    assert [s.state for s in summary.stacks] == ["done", "failed"]
    assert f"{kept} is a project that no batch made" in summary.failed[0].error
    assert kept.read_bytes() == before
    assert not (kept.parent / "s1").exists()


def test_ctrl_c_keeps_what_is_done(lay_out, tmp_path, client):
    """An interrupt ends the batch after the parcels that are out; the same call goes on to the same labels."""
    manifest = lay_out(2, marks=MARKS["both-ends"])

    def press(now) -> None:
        if now.frames >= 4:
            raise KeyboardInterrupt

    with pytest.raises(BatchInterrupted) as stop:
        run(manifest, client, frames_a_parcel=2, at_once=1, progress=press)
    states = [s.state for s in stop.value.summary.stacks]
    assert states == ["stopped", "stopped"]
    assert 0 < stop.value.summary.stacks[0].masks < 48
    assert run(manifest, client).complete
    np.testing.assert_array_equal(by_hand(tmp_path)[0], batched(tmp_path)[0])


class Patient(FakePredictor):
    """Says when it is at its third frame, and waits there until the worker has heard that it is to stop."""

    third = threading.Event()

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def propagate(self, requests):
        self.seen += 1
        if self.seen == 3:
            self.third.set()
            assert workers._here().halted.wait(60)
        return super().propagate(requests)


def test_ctrl_c_ends_parcels_after_the_frame_at_hand(lay_out, tmp_path, client):
    """A parcel of all frames comes back with those that are done, and the same call goes on to the same labels."""
    manifest = lay_out()

    def press(now) -> None:
        if now.planned and not now.stopping:
            assert Patient.third.wait(60)
            raise KeyboardInterrupt

    with pytest.raises(BatchInterrupted) as stop:
        run(manifest, client, model=Patient(), frames_a_parcel=100, progress=press)
    assert [s.frames for s in stop.value.summary.stacks] == [1 + 3]  # the scribbled one, and those of the parcel
    assert run(manifest, client, frames_a_parcel=100).stacks[0].frames == 10
    for here, there in zip(by_hand(tmp_path), batched(tmp_path), strict=True):
        np.testing.assert_array_equal(here, there)


def test_a_script_that_its_workers_would_run_again_is_told_so(lay_out, tmp_path):
    """A call without `if __name__ == "__main__"` around it ends with an error that names that line."""
    manifest = lay_out(1)
    script = tmp_path / "plain.py"
    script.write_text(f"import napari_ivos\nnapari_ivos.run_batch({str(manifest)!r}, workers=1)\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode
    assert "if __name__ == '__main__':" in done.stderr


def test_ctrl_c_is_held_while_workers_start():
    """Pressed in the middle, it is heard at the end, and as before from then on; unpressed, nothing happens."""
    before, done = signal.getsignal(signal.SIGINT), []

    def start(press: bool) -> None:
        with held():
            if press:
                signal.raise_signal(signal.SIGINT)
            done.append(press)

    start(press=False)
    with pytest.raises(KeyboardInterrupt):
        start(press=True)
    assert done == [False, True]
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_two_batches_do_not_write_to_one_folder(lay_out, client):
    """The second batch on a folder is refused while the first one runs."""
    manifest = lay_out()
    refused = []

    def again(now) -> None:
        if not refused:
            with pytest.raises(ProjectError, match="Another batch") as error:
                run(manifest, client)
            refused.append(error)

    assert run(manifest, client, progress=again).complete
    assert refused


# --- manifests ----------------------------------------------------------------------------------------------------


def test_csv_and_json_say_the_same(tmp_path):
    """Both forms give the same entries; paths are relative to the manifest."""
    (tmp_path / "a.csv").write_text(
        "name;input;scribbles;frame;channels;index;contrast;format\n"
        '# a comment\nx;d/m.tif;s.png;3;0 2;Z=4;"1.5 9";ome-tiff davis\n'
    )
    row = {"name": "x", "input": "d/m.tif", "scribbles": "s.png", "format": ["ome-tiff", "davis"]}
    shared = {"frame": 3, "channels": [0, 2], "index": {"Z": 4}, "contrast": [1.5, 9]}
    (tmp_path / "a.json").write_text(json.dumps({"stacks": [row], **shared, "output": "a_results"}))
    (one,), (other,) = (read_manifest(tmp_path / f"a.{kind}").entries for kind in ("csv", "json"))
    assert (one.input, one.scribbles, one.frame, one.reading, one.formats, one.kept) == (
        other.input,
        other.scribbles,
        other.frame,
        other.reading,
        other.formats,
        other.kept,
    )
    assert one.input == tmp_path / "d" / "m.tif"
    assert one.kept == tmp_path / "a_results" / "x.ivos"


BAD = {
    "no-input": ({"scribbles": "s.json"}, "neither input nor project"),
    "nothing-to-do": ({"input": "m.tif"}, "nothing says what to segment"),
    "unknown-column": ({"input": "m.tif", "masks": "m.png", "colour": 1}, "unknown 'colour'"),
    "unknown-format": ({"input": "m.tif", "masks": "m.png", "format": "gif"}, "unknown format gif"),
    "name-up": ({"input": "m.tif", "masks": "m.png", "name": "../x"}, "can't be the name of a file"),
    "name-device": ({"input": "m.tif", "masks": "m.png", "name": "con"}, "can't be the name of a file"),
    "output-up": ({"input": "m.tif", "masks": "m.png", "output": "../x.tif"}, "leads out of the output folder"),
    "output-absolute": ({"input": "m.tif", "masks": "m.png", "output": "/tmp/x.tif"}, "leads out of the output folder"),
    "output-drive": ({"input": "m.tif", "masks": "m.png", "output": "C:x.tif"}, "leads out of the output folder"),
    "output-link": ({"input": "m.tif", "masks": "m.png", "output": "link/x.tif"}, "leads out of the output folder"),
    "output-itself": ({"input": "m.tif", "masks": "m.png", "output": "."}, "is the output folder itself"),
    "input-url": ({"input": "http://host/m.tif", "masks": "m.png"}, "is on another machine"),
    "input-share": ({"input": "\\\\host\\m.tif", "masks": "m.png"}, "is on another machine"),
    "frame-text": ({"input": "m.tif", "masks": "m.png", "frame": "x"}, "a whole number from 0"),
    "channels-many": ({"input": "m.tif", "masks": "m.png", "channels": [0, 1, 2, 3]}, "at most 3"),
    "contrast-one": ({"input": "m.tif", "masks": "m.png", "contrast": [1]}, "two numbers"),
    "input-number": ({"input": 5, "masks": "m.png"}, "text is expected"),
}


@pytest.mark.parametrize(("row", "words"), BAD.values(), ids=BAD.keys())
def test_bad_lines_are_named_before_anything_starts(tmp_path, row, words):
    """A line that can't be used is refused with its place and the reason, and nothing is made."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    good = {"input": "g.tif", "masks": "m.png"}
    (tmp_path / "a.json").write_text(json.dumps([good, row]))
    with pytest.raises(InputError, match="stack 2") as error:
        read_manifest(tmp_path / "a.json", tmp_path / "out")
    assert words in str(error.value)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["link"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "{", "not JSON"),
        ("a.json", '{"stacks": 5}', "list of stacks"),
        ("a.json", "[]", "names no stack"),
        ("a.json", "[[]]", "an object is expected"),
        ("a.json", '{"stacks": [], "input": "x"}', "can't be said for all"),
        ("a.json", '{"stacks": [], "output": "../.."}', "leads out of the manifest's folder"),
        ("a.json", "[" * 100_000, "not JSON"),
        ("a.csv", "input,input\n", "is there twice"),
        ("a.csv", "input,masks\na,b,c\n", "3 values for 2 columns"),
        ("a.csv", 'input,masks\n"a,b\n', "not CSV"),
        ("a.csv", "input,masks,frame\na,b,c\n", "is not a number"),
        ("a.csv", "input,masks\nx/a.tif,b\ny/a.tif,b\n", "line 3 and line 2 both write"),
        ("a.csv", "input,masks,name\nx.tif,b,A\ny.tif,b,a\n", "line 3 and line 2 both write"),
    ],
)
def test_bad_manifests_are_refused(tmp_path, name, text, words):
    """What is no manifest is an InputError that says what was found."""
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="a\\.(csv|json)|leads out") as error:
        read_manifest(tmp_path / name)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"input": "movie.tif", "scribbles": "movie.json"}, "scribbles of stack 1"),
        ({"input": "movie.tif", "scribbles": "strokes.json"}, "window keeps its project"),
        ({"project": "movie.ivos"}, "project of stack 1"),
        ({"input": "other/movie.tif", "masks": "summary.csv"}, "masks of stack 1"),
    ],
)
def test_results_never_take_the_place_of_what_is_read(row, words, tmp_path):
    """An output folder in which results would be written over inputs or a user's project is refused."""
    (tmp_path / "a.json").write_text(json.dumps([row]))
    with pytest.raises(InputError, match=words):
        read_manifest(tmp_path / "a.json", tmp_path)
    assert read_manifest(tmp_path / "a.json", tmp_path / "results").entries


@pytest.mark.parametrize("name", ["summary.txt", "summary.csv", "summary.json"])
def test_somebodys_summary_is_not_written_over(name, lay_out, tmp_path, client):
    """A file of a summary's name that no batch wrote is named before anything starts; a batch's own is replaced."""
    manifest, folder = lay_out(), tmp_path / "all_results"
    folder.mkdir()
    (folder / name).write_text('{"mine": 1}\n')
    with pytest.raises(InputError, match=f"{name} is in the output folder .* no batch wrote it"):
        run(manifest, client)
    assert [p.name for p in folder.iterdir()] == [name]
    (folder / name).unlink()
    assert run(manifest, client).complete
    assert "earlier" in run(manifest, client).line()
    (folder / "summary.csv").write_text("name;state;my notes\n" + (folder / "summary.csv").read_text())
    with pytest.raises(InputError, match=r"summary\.csv is in the output folder"):
        look_ahead(manifest, model=FakePredictor())


def test_somebodys_file_under_a_records_name_fails_that_stack(lay_out, tmp_path, client):
    """A file that lies where a stack's record goes is left as it is, and the stack fails before it is begun."""
    manifest, folder = lay_out(2), tmp_path / "all_results"
    folder.mkdir()
    (folder / "s1.json").write_text('{"sequence": "x", "scribbles": []}')
    assert [s.state for s in look_ahead(manifest, model=FakePredictor()).stacks] == ["new", "trouble"]
    summary = run(manifest, client)
    assert [s.state for s in summary.stacks] == ["done", "failed"]
    assert "s1.json was not written by a batch" in summary.failed[0].error
    assert (folder / "s1.json").read_text() == '{"sequence": "x", "scribbles": []}'
    assert not (folder / "s1.ivos").exists()


def test_an_export_never_takes_the_place_of_what_it_is_made_from(lay_out, tmp_path, make_clip, client):
    """Masks that lie where a stack's labels go are left as they are, whatever may be overwritten."""
    manifest, folder = lay_out(), tmp_path / "all_results" / "s0"
    folder.mkdir(parents=True)
    tifffile.imwrite(folder / "labels.ome.tif", make_clip(14, SHAPE).truth)
    before = (folder / "labels.ome.tif").read_bytes()
    row = {"input": "s0.tif", "masks": "all_results/s0/labels.ome.tif", "format": "ome-tiff"}
    manifest.write_text(json.dumps([row]))
    assert look_ahead(manifest, model=FakePredictor(), overwrite=True).stacks[0].state == "trouble"
    (failed,) = run(manifest, client, overwrite=True).failed
    assert "is, or holds, the masks" in failed.error
    assert (folder / "labels.ome.tif").read_bytes() == before


@pytest.mark.parametrize(
    "row",
    [
        {"input": "Summary.tif", "masks": "m.png"},
        {"input": "a.tif", "masks": "m.png", "name": "summary.csv"},
        {"input": "a.tif", "masks": "m.png", "output": "summary.txt/a.tif"},
        {"input": "a.tif", "masks": "m.png", "output": ".batch-lock", "format": "table"},
    ],
    ids=["record", "folder", "below", "lock"],
)
def test_no_stack_takes_the_names_of_the_batch(row, tmp_path):
    """A stack whose results would have the name of the summary, or of the lock, is refused with what to do."""
    (tmp_path / "a.json").write_text(json.dumps([row]))
    with pytest.raises(InputError, match="stack 1 would write .* which the batch itself writes: give"):
        read_manifest(tmp_path / "a.json")


def test_a_manifest_of_bytes_is_refused(tmp_path):
    """Text in no known encoding is refused with the hint to save it as UTF-8."""
    (tmp_path / "a.csv").write_bytes(b"input,masks\n\xff\xfe\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_manifest(tmp_path / "a.csv")


def test_the_trouble_of_all_lines_is_told_together(tmp_path):
    """Lines that can't be read and lines that can't be used are named in one message, ten of them at most."""
    lines = ["a.tif,m,x", "b.tif,m,0,9", "c.tif,,", "../d.tif,m,0"] + [f"e{k}.tif,m,?" for k in range(10)]
    (tmp_path / "a.csv").write_text("\n".join(["input,masks,frame", *lines]))
    with pytest.raises(InputError) as error:
        read_manifest(tmp_path / "a.csv")
    told = str(error.value)
    for words in ("line 2: frame 'x' is not a number", "line 3: 4 values for 3", "line 4: nothing says", "and 3 more"):
        assert words in told
    assert told.count("\n") == 11


# --- before it runs -----------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_each_stack_would_come_to(lay_out, tmp_path, client):
    """Stacks to do, begun, finished and bad are told apart with the reason, and nothing is written or started."""
    manifest = lay_out(5)
    (tmp_path / "s3.json").write_text("{")
    (tmp_path / "s4.tif").unlink()
    first = look_ahead(manifest, model=FakePredictor())
    assert [s.state for s in first.stacks] == ["new", "new", "new", "trouble", "trouble"]
    assert (first.stacks[0].shape, first.stacks[0].annotated) == ((14, *SHAPE), 1)
    assert "s4.tif" in first.stacks[4].error
    assert not (tmp_path / "all_results").exists()
    rows = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(rows[:2]))
    run(manifest, client)
    (tmp_path / "all_results" / "s1" / "labels.ome.tif").unlink()
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "all_results" / "s2").mkdir()
    (tmp_path / "all_results" / "s2" / "labels.ome.tif").write_bytes(b"mine")
    manifest.write_text(json.dumps(rows))
    again = look_ahead(manifest, model=FakePredictor())
    assert [s.state for s in again.stacks] == ["earlier", "begun", "trouble", "trouble", "trouble"]
    assert "exists" in again.stacks[2].error
    assert look_ahead(manifest, model=FakePredictor(), overwrite=True).stacks[2].state == "new"
    assert not again.sound
    assert "5 stacks: 1 goes on, 1 done earlier, 3 can't be done; 14 frames" in again.as_text()
    assert set(tmp_path.rglob("*")) - set(before) == {
        tmp_path / "all_results" / "s2" / n for n in ("", "labels.ome.tif")
    }


def test_a_dry_run_on_the_command_line_ends_with_1_where_a_stack_is_bad(lay_out, tmp_path, capsys):
    """`--dry-run` prints the outlook, for machines too; the exit code says whether all can be done."""
    from napari_ivos.cli import main

    manifest = lay_out(2)
    assert main(["batch", str(manifest), "--dry-run"]) == 0
    assert "2 stacks: 2 to do; 28 frames" in capsys.readouterr().out
    (tmp_path / "s1.tif").write_bytes(b"")
    assert main(["batch", str(manifest), "--dry-run", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["dry_run"], facts["sound"], facts["counts"]) == (True, False, {"new": 1, "trouble": 1})
    assert not (tmp_path / "all_results").exists()


@pytest.mark.parametrize(
    ("cores", "gigabytes", "gpus", "default", "words"),
    [
        (8, 64, 0, 8, ["20 workers share 8 cores"]),
        (8, 4, 0, 2, ["20 workers share 8 cores", "0.2 GiB of memory each"]),
        (64, 64, 4, 4, []),
    ],
    ids=["cores", "memory", "gpus"],
)
def test_too_many_workers_are_told_so(monkeypatch, caplog, cores, gigabytes, gpus, default, words):
    """One worker a GPU, else one a core as far as the memory goes; more are started, with a word of warning."""
    from napari_ivos.batch import running

    monkeypatch.setattr(running, "cores", lambda: cores)
    monkeypatch.setattr(running, "memory", lambda: gigabytes << 30)
    monkeypatch.setattr("napari_ivos.networks.inference.cuda_devices", lambda: gpus)
    assert running._default_workers() == default
    running._warn(running._default_workers())
    assert not caplog.messages
    running._warn(20)
    assert [all(w in message for w in [word]) for word, message in zip(words, caplog.messages, strict=True)] == [
        True for _ in words
    ]


class OnWarning(logging.Handler):
    """Does something at the first warning; keeps what was said."""

    def __init__(self, act) -> None:
        super().__init__(logging.WARNING)
        self.act, self.said = act, []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        if len(self.said) == 1:
            self.act()


def test_a_cluster_without_workers_is_waited_for(lay_out):
    """A batch on a cluster that has no worker yet says so, and does its work when one comes."""
    options = {"threads_per_worker": 1, "processes": False, "dashboard_address": None, "protocol": "inproc"}
    logger = logging.getLogger("napari_ivos.batch")
    with distributed.LocalCluster(n_workers=0, **options) as cluster, distributed.Client(cluster) as empty:
        waiting = OnWarning(lambda: cluster.scale(1))
        logger.addHandler(waiting)
        try:
            assert run(lay_out(), empty).complete
        finally:
            logger.removeHandler(waiting)
    assert "has no worker yet" in waiting.said[0]


def test_a_scheduler_that_is_slow_to_answer_does_not_stop_a_batch(lay_out, client, monkeypatch):
    """Where no answer comes in time, the batch goes on with as many workers as it knew of."""
    monkeypatch.setattr("napari_ivos.batch.running.ANSWER", 0.0)
    assert run(lay_out(), client).complete


def test_workers_that_leave_as_the_batch_begins_or_ends_do_not_break_it(lay_out, client, monkeypatch):
    """Where dask fails to reach a worker that is just leaving, its plugin is sent again, or left to go with it."""
    register, calls = client.register_plugin, []

    def reach(*arguments, **named):
        calls.append("register")
        if len(calls) < 3:
            raise distributed.comm.CommClosedError("a worker left")
        register(*arguments, **named)

    def leave(name):
        calls.append("unregister")
        raise distributed.comm.CommClosedError("a worker left")

    monkeypatch.setattr(client, "register_plugin", reach)
    monkeypatch.setattr(client, "unregister_worker_plugin", leave)
    assert run(lay_out(), client).complete
    assert calls == ["register"] * 3 + ["unregister"]


def test_workers_that_never_get_their_model_are_named(lay_out, client, monkeypatch):
    """Where the plugin can't be given to the workers the batch ends with one message of its own, and does nothing."""

    def reach(*arguments, **named):
        raise ModuleNotFoundError("No module named 'napari_ivos'")

    monkeypatch.setattr(client, "register_plugin", reach)
    with pytest.raises(IvosError, match=r"workers can't begin.*napari_ivos.*same versions"):
        run(lay_out(), client)


@pytest.mark.parametrize(
    ("message", "arguments", "kept"),
    [
        ("Compute Failed\nException: %r", (repr(FrameReadError("Frame 3 of x can't be read.", 3)),), False),
        ("Compute Failed\nException: %r", (repr(TypeError("no")),), True),
        ("Removing worker %s, InputError('x')", ("a",), True),
    ],
    ids=["ours", "unforeseen", "other-words"],
)
def test_workers_of_this_machine_leave_foreseen_errors_to_the_batch(message, arguments, kept):
    """In the batch's terminal dask prints the tracebacks of unforeseen errors only."""
    from napari_ivos.batch.deaf import Foreseen

    record = logging.LogRecord("distributed.worker", logging.ERROR, "worker.py", 1, message, arguments, None)
    assert Foreseen().filter(record) is kept


# --- from outside -------------------------------------------------------------------------------------------------


def test_errors_of_workers_arrive_whole():
    """Errors that a worker raises can travel: type, message and frame are kept."""
    import pickle

    error = pickle.loads(pickle.dumps(FrameReadError("Frame 3 of x can't be read.", 3)))
    assert (type(error), str(error), error.frame) == (FrameReadError, "Frame 3 of x can't be read.", 3)


def test_each_worker_takes_a_gpu_of_its_own(tmp_path, monkeypatch):
    """Workers of one machine take its GPUs one after the other, and share them evenly where they are more."""
    from napari_ivos.batch import model

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("napari_ivos.networks.inference.cuda_devices", lambda: 3)
    taken = [model.pinned_device() for _ in range(6)]
    assert taken == ["cuda:0", "cuda:1", "cuda:2"] * 2
    for lock in model._held:
        lock.release()
    model._held.clear()
    monkeypatch.setattr("napari_ivos.networks.inference.cuda_devices", lambda: 1)
    assert model.pinned_device() is None


def test_the_command_line_computes_what_a_session_does_with_the_shipped_weights(tmp_path, make_clip, square):
    """A worker process with the shipped model gives the labels of a session in this process, to the last bit."""
    clip = make_clip(4, (64, 80), square((10, 10), (0, 3)), square((34, 50), (0, -3)))
    np.save(tmp_path / "s0.npy", clip.video)
    (tmp_path / "s0.json").write_text(json.dumps(davis([clip.scribbles(1, 1, 2)], clip.truth.shape)))
    (tmp_path / "all.csv").write_text("input,scribbles,axes,format\ns0.npy,s0.json,TYXC,davis\n")
    launch = [sys.executable, "-m", "napari_ivos", "batch", "all.csv", "--workers", "1", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["counts"], facts["devices"]) == ({"done": 1}, ["cpu"])
    assert "dashboard: http://127.0.0.1:" in done.stderr
    with Session(open_frames(clip.video, axes="TYXC"), load_model(device="cpu")) as session:
        for scribbles in read_davis(tmp_path / "s0.json", session.shape):
            session.interact(scribbles)
        for _ in session.propagate():
            pass
        np.testing.assert_array_equal(batched(tmp_path)[0], session.labels)
