"""Exports: every format holds what the labels hold, streams, and appears only when it is whole."""

from __future__ import annotations

import csv
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_ivos import FakePredictor, Session, open_frames
from napari_ivos.errors import FrameReadError, InputError
from napari_ivos.export import FORMATS, Content, check_target, decode_rle, encode_rle, export, format_of, picture
from napari_ivos.export import content as contents
from napari_ivos.export.coco import run_lengths
from napari_ivos.export.images import Tracks, davis_palette
from napari_ivos.frames.axes import LENGTHS, SIZES, TIMES
from napari_ivos.regions import Box, mask_box
from napari_ivos.session.exporting import plan


@dataclass(frozen=True)
class Thing:
    """Facts about one object."""

    id: int
    name: str
    colour: str
    parent: int | None = None


OBJECTS = (
    Thing(1, "mother", "#ff0000"),
    Thing(2, 'ünïcode, "quoted"', "#00ff00"),
    Thing(5, "daughter", "#0000ff", parent=1),
)
SHAPE = (7, 40, 52)


def moving_labels() -> np.ndarray:
    """Object 1 on frames 0-3, its daughter 5 from 4 on, object 2 with a gap on frames 2 and 3."""
    labels = np.zeros(SHAPE, np.uint16)
    for t in range(SHAPE[0]):
        labels[t, 4 + t : 12 + t, 5:17] = 1 if t < 4 else 5
        if t not in (2, 3):
            labels[t, 25:31, 30 + t : 33 + t] = 2
    return labels


@pytest.fixture
def labels() -> np.ndarray:
    return moving_labels()


@pytest.fixture
def movie() -> np.ndarray:
    return np.random.default_rng(2).integers(100, 4000, SHAPE).astype(np.uint16)


@pytest.fixture
def content(labels, movie) -> Content:
    quality = np.linspace(0, 1, SHAPE[0] * 3).reshape(SHAPE[0], 3)
    return Content(labels, OBJECTS, quality, open_frames(movie, axes="TYX"))


@pytest.fixture(params=[None, 300], ids=["whole frames", "bands"])
def band_pixels(request, monkeypatch):
    """Run once with whole frames and once with bands of a few rows, as for large frames."""
    if request.param is not None:
        monkeypatch.setattr(contents, "BAND_PIXELS", request.param)


# ---------------------------------------------------------------------------------------------------- content


class Counting:
    """Labels that count what is read at once and are no numpy array."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels, self.largest = labels, 0
        self.shape, self.dtype = labels.shape, labels.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        part = self.labels[key].copy()
        self.largest = max(self.largest, part.size)
        return part


@pytest.mark.parametrize("name", FORMATS)
def test_no_format_reads_more_than_a_band(name, labels, tmp_path, monkeypatch):
    """Every format reads labels frame by frame, and large frames band by band."""
    pytest.importorskip("av") if name == "video" else None
    counting = Counting(labels)
    export(Content(counting, OBJECTS), tmp_path / "whole", name)
    assert counting.largest == SHAPE[1] * SHAPE[2]
    monkeypatch.setattr(contents, "BAND_PIXELS", 900)
    monkeypatch.setattr("napari_ivos.export.images.WHOLE", 16)
    monkeypatch.setattr("napari_ivos.export.images.TILE", 16)
    monkeypatch.setattr("napari_ivos.export.images.CHUNK", 4)
    counting.largest = 0
    export(Content(counting, OBJECTS), tmp_path / "bands", name)
    assert counting.largest <= 900


@pytest.mark.usefixtures("band_pixels")
def test_outlines_are_those_of_the_masks(content, labels):
    """Area, centroid and box of each object equal what the mask itself gives, whether read whole or in bands."""
    for t in range(SHAPE[0]):
        outlines = content.outlines(t)
        assert list(outlines) == [i for i in np.unique(labels[t]).tolist() if i]
        for i, outline in outlines.items():
            mask = labels[t] == i
            assert outline.area == mask.sum()
            assert outline.centroid == pytest.approx(np.argwhere(mask).mean(0))
            assert outline.box == mask_box(mask)


def test_a_session_is_found_by_its_attributes(labels):
    """Anything with labels is exported, with objects, quality and stack where it has them."""

    class Session:
        pass

    session = Session()
    with pytest.raises(InputError, match="Session has no labels"):
        Content.of(session)
    session.labels = labels
    assert Content.of(session).objects == ()
    session.objects = list(OBJECTS)
    assert Content.of(session).object(5).parent == 1
    assert Content.of(session).object(9).name == "object 9"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros((3, 4), np.uint16), r"\(3, 4\)"),
        (np.zeros((0, 3, 4), np.uint16), r"\(0, 3, 4\)"),
        (np.zeros((2, 3, 4)), "float64"),
    ],
)
def test_what_is_no_label_stack_is_refused(labels, words):
    """Labels of other shapes or of fractions are an error with what was found."""
    with pytest.raises(InputError, match=words):
        Content(labels)


def test_negative_labels_are_refused(labels, tmp_path):
    """Ids below 0 are an error, and nothing is written."""
    with pytest.raises(InputError, match="-6"):
        export(Content(labels.astype(np.int32) * -3), tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []


def test_frames_of_another_shape_are_refused(labels, movie):
    """Frames and labels must be of one stack."""
    with pytest.raises(InputError, match="one stack"):
        Content(labels, frames=open_frames(movie[:3], axes="TYX"))


def test_a_session_exports_itself(labels, movie, tmp_path):
    """``session.export`` writes the session's labels, names, qualities and frames."""
    with Session(open_frames(movie, axes="TYX")) as session:
        session.annotate(0, labels[0])
        session.rename(1, "mother")
        written = session.export(tmp_path / "table.csv")
        session.export(tmp_path / "labels.tif")
        composed = np.asarray(session.labels)
    assert (written.format, written.frames) == ("table", SHAPE[0])
    rows = read_table(tmp_path / "table.csv")
    assert [(r["object"], r["name"], r["quality"]) for r in rows] == [
        ("1", "mother", "1.0000"),
        ("2", "object 2", "1.0000"),
    ]
    assert float(rows[0]["mean_intensity"]) == pytest.approx(movie[0][labels[0] == 1].mean(), rel=1e-5)
    assert np.array_equal(tifffile.imread(tmp_path / "labels.tif"), composed)
    assert np.array_equal(composed[0], labels[0])


# ---------------------------------------------------------------------------------------------------- writing


def test_a_video_without_pyav_is_refused_before_the_work(monkeypatch, tmp_path):
    """Where PyAV is missing, the place of a video is refused when it is looked at, not after a long job."""
    monkeypatch.setattr("napari_ivos.export.writing.find_spec", lambda name: None)
    check_target(tmp_path / "table.csv")
    with pytest.raises(InputError, match=r"napari-ivos\[video\]"):
        check_target(tmp_path / "overlay.mp4")


def test_formats_are_known_by_their_endings():
    """An ending means its format, a name goes before an ending, and what means nothing lists what there is."""
    endings = {"a.csv": "table", "a.ome.tif": "ome-tiff", "A.TIFF": "ome-tiff", "a.zarr": "ome-zarr", "a.json": "coco"}
    endings |= {"a.mp4": "video", "b/a.png": "contact-sheet"}
    for path, name in endings.items():
        assert format_of(path).name == name
    assert format_of("a.csv", "davis").name == "davis"
    with pytest.raises(InputError, match=r"\.csv \(table\).*davis or ctc"):
        format_of("folder")
    with pytest.raises(InputError, match=r"'word'.*ome-tiff"):
        format_of("a.csv", "word")


@pytest.mark.parametrize("name", FORMATS)
def test_progress_counts_frames(name, content, tmp_path):
    """Each format reports frames done of all, ascending, up to the last."""
    calls: list[tuple[int, int]] = []
    target = tmp_path / "new" / "folder" / "out"
    written = export(content, target, name, progress=lambda done, all_: calls.append((done, all_)))
    assert written.path == target
    assert (written.format, written.frames) == (name, SHAPE[0])
    assert target.exists()
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert calls[-1] == (SHAPE[0], SHAPE[0])


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_that_breaks_off_leaves_nothing(name, content, tmp_path):
    """Whatever ends an export midway, there is no file, no folder and no scrap of one."""

    def stop(done: int, total: int) -> None:
        if done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(content, tmp_path / "out", name, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_overwritten_unasked(name, content, tmp_path):
    """A second export to the same place is refused, unless it is said that it may replace the first."""
    target = tmp_path / "out"
    export(content, target, name)
    before = target.stat().st_mtime_ns
    with pytest.raises(InputError, match="exists already"):
        export(content, target, name)
    assert target.stat().st_mtime_ns == before
    export(content, target, name, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", [f.name for f in FORMATS.values() if f.entries])
def test_a_folder_with_other_things_is_never_replaced(name, content, tmp_path):
    """Overwriting a folder that holds anything but such an export is refused, and the folder stays."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.docx").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.docx"):
        export(content, tmp_path / "home", name, overwrite=True)
    assert (tmp_path / "home" / "thesis.docx").read_text() == "years of work"


def test_files_and_folders_are_not_confused(content, tmp_path):
    """A folder doesn't replace a file, nor a file a folder."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="makes a folder"):
        export(content, tmp_path / "file", "davis", overwrite=True)
    with pytest.raises(InputError, match="makes a file"):
        export(content, tmp_path / "folder", "table", overwrite=True)


def test_the_earlier_export_stays_when_the_new_one_fails(content, tmp_path):
    """An export that fails while overwriting leaves the old one as it was."""
    target = tmp_path / "masks"
    export(content, target, "davis")
    names = sorted(p.name for p in target.iterdir())

    def stop(done: int, total: int) -> None:
        raise InputError("enough")

    with pytest.raises(InputError, match="enough"):
        export(content, target, "davis", overwrite=True, progress=stop)
    assert sorted(p.name for p in target.iterdir()) == names


def test_a_place_that_cannot_be_written_is_named(content, tmp_path):
    """Where no file can be made, the error names the place."""
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"out\.csv can't be written"):
        export(content, tmp_path / "file" / "out.csv")


def test_a_full_disk_is_an_error_of_ours(content, tmp_path, monkeypatch):
    """An operating system's error while writing becomes one that names the place, and leaves nothing."""

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(InputError, match=r"out.*No space left.*MB are free"):
        export(content, tmp_path / "out", "ctc")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "kind"), [("movie.tif", None), ("movie.ivos", "table"), (".", "davis")])
def test_frames_and_projects_are_never_replaced(name, kind, tmp_path):
    """Whatever may be overwritten, an export takes the place neither of the frames nor of the project."""
    tifffile.imwrite(tmp_path / "movie.tif", np.zeros((3, 40, 50), np.uint8), photometric="minisblack")
    mask = np.zeros((40, 50), np.uint16)
    mask[5:9, 5:9] = 1
    before = (tmp_path / "movie.tif").read_bytes()
    with Session(tmp_path / "movie.tif", FakePredictor(), project=tmp_path / "movie.ivos") as session:
        session.annotate(0, mask)
        with pytest.raises(InputError, match="which would be lost"):
            session.export(tmp_path / name, kind, overwrite=True)
        session.annotate(1, mask)
    assert (tmp_path / "movie.tif").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "kind", "refused"),
    [
        ("images/frame_001.tif", "ome-tiff", True),
        ("images/labels.ome.tif", None, True),  # would be a frame of its own
        ("images/overlay.png", "contact-sheet", False),
        ("images/masks/labels.tif", None, False),
        ("movie.zarr/0", "ome-zarr", True),
        ("movie.zarr/0/c", "davis", True),
        ("movie.zarr/labels/cells", "ome-zarr", False),
    ],
)
def test_single_frames_in_a_folder_are_never_replaced(name, kind, refused, tmp_path):
    """An export takes the place of no frame in a folder, and becomes none; beside the frames there is room."""
    source = tmp_path / name.split("/")[0]
    frames = np.ones((3, 40, 50), np.uint8)
    if source.suffix == ".zarr":
        group = zarr.open_group(source, mode="w")
        group.create_array("0", data=frames, chunks=(1, 40, 50))
        axes = [{"name": axis} for axis in "tyx"]
        group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    else:
        source.mkdir()
        for t, frame in enumerate(frames):
            tifffile.imwrite(source / f"frame_{t:03}.tif", frame)
    before = {p: p.read_bytes() for p in source.rglob("*") if p.is_file() and "labels" not in p.parts}
    with Session(source, FakePredictor()) as session:
        mask = np.zeros((40, 50), np.uint16)
        mask[5:9, 5:9] = 1
        session.annotate(0, mask)
        if refused:
            with pytest.raises(InputError, match="lies among the frames"):
                session.export(tmp_path / name, kind, overwrite=True)
        else:
            session.export(tmp_path / name, kind)
            session.export(tmp_path / name, kind, overwrite=True)
    assert {p: p.read_bytes() for p in before} == before
    with open_frames(source) as stack:
        assert stack.shape == frames.shape


def test_a_leading_tilde_is_home(content, tmp_path, monkeypatch):
    """As for frames, ~ is the user's home, not a folder of that name; a name that only begins so is a name."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.chdir(tmp_path)
    assert export(content, "~/objects.csv").path == home / "objects.csv"
    with pytest.raises(InputError, match="exists already"):
        check_target("~/objects.csv")
    assert plan(Path("~/out"), "table", False, folder=True)[0].path == home / "out" / "objects.csv"
    export(content, "~a.tif")
    with open_frames("~a.tif") as stack:
        assert stack.shape == SHAPE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "~a.tif"]


def test_unknown_options_are_refused(content, tmp_path):
    """An option that the format doesn't have is an error that lists those it has."""
    with pytest.raises(InputError, match=r"rate.*fps, title"):
        export(content, tmp_path / "a.mp4", rate=3)


# ---------------------------------------------------------------------------------------------------- label images


@pytest.mark.usefixtures("band_pixels")
@pytest.mark.parametrize("tiled", [False, True])
def test_ome_tiff_holds_labels_and_axes(tiled, content, labels, tmp_path, monkeypatch):
    """An OME-TIFF reads back to the last bit, with axes TYX and the objects' names in its description."""
    if tiled:
        monkeypatch.setattr("napari_ivos.export.images.WHOLE", 16)
        monkeypatch.setattr("napari_ivos.export.images.TILE", 16)
    export(content, tmp_path / "labels.ome.tif")
    with tifffile.TiffFile(tmp_path / "labels.ome.tif") as tif:
        assert tif.is_ome
        [series] = tif.series
        assert series.axes == "TYX"
        assert series.dtype == np.uint16
        assert np.array_equal(series.asarray(), labels)
        assert tif.pages[0].is_tiled == tiled
        assert "ünïcode" in tif.ome_metadata
        assert "5: daughter (#0000ff), daughter of 1" in tif.ome_metadata


def test_a_volume_keeps_its_axis(labels, movie, tmp_path):
    """Labels of a volume are ZYX, in OME-TIFF and in OME-Zarr."""
    content = Content(labels, OBJECTS, frames=open_frames(movie, axes="ZYX"))
    export(content, tmp_path / "labels.tif")
    with tifffile.TiffFile(tmp_path / "labels.tif") as tif:
        assert tif.series[0].axes == "ZYX"
    export(content, tmp_path / "labels.zarr")
    axes = zarr.open_group(tmp_path / "labels.zarr", mode="r").attrs["ome"]["multiscales"][0]["axes"]
    assert axes[0] == {"name": "z", "type": "space"}


@pytest.mark.parametrize(("frame_axis", "first"), [("T", [5.0, "min"]), ("Z", [2.0, "µm"])])
def test_labels_have_the_pixel_sizes_of_their_frames(frame_axis, first, tmp_path):
    """What a pixel, a plane and a frame are goes from the frames' file to OME-TIFF and OME-Zarr, all levels of it."""
    sizes = {"PhysicalSizeX": 0.3, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2, "TimeIncrement": 5}
    metadata = {"axes": "TZYX", "TimeIncrementUnit": "min", **sizes}
    frames = np.zeros((3, 3, 20, 1030), np.uint8)
    tifffile.imwrite(tmp_path / "frames.ome.tif", frames, metadata=metadata, photometric="minisblack")
    expected = {frame_axis: first, "Y": [0.25, "µm"], "X": [0.3, "µm"]}
    with open_frames(tmp_path / "frames.ome.tif", frame_axis=frame_axis) as stack:
        content = Content(np.ones(stack.shape, np.uint16), frames=stack)
        for name in ("labels.ome.tif", "labels.zarr"):
            export(content, tmp_path / name)
            with open_frames(tmp_path / name) as written:
                assert written.describe()["spacing"] == expected
    [image] = zarr.open_group(tmp_path / "labels.zarr", mode="r").attrs["ome"]["multiscales"]
    assert image["axes"][1:] == [{"name": x, "type": "space", "unit": "micrometer"} for x in "yx"]
    scales = [level["coordinateTransformations"][0]["scale"] for level in image["datasets"]]
    assert scales == [[first[0], 0.25, 0.3], [first[0], 0.5, 0.6]]


def test_wide_ids_keep_their_width(labels, tmp_path):
    """Labels of more than 16 bits are written with 32."""
    wide = labels.astype(np.int64) * 70_000
    export(Content(wide), tmp_path / "labels.tif")
    found = tifffile.imread(tmp_path / "labels.tif")
    assert found.dtype == np.uint32
    assert np.array_equal(found, wide)


@pytest.mark.usefixtures("band_pixels")
def test_ome_zarr_holds_labels_and_metadata(content, labels, tmp_path):
    """OME-Zarr reads back to the last bit: one frame's tile a chunk, colours and names by label, nothing for empty."""
    export(content, tmp_path / "labels.zarr")
    group = zarr.open_group(tmp_path / "labels.zarr", mode="r")
    assert group.metadata.zarr_format == 3
    assert np.array_equal(group["0"][:], labels)
    assert group["0"].chunks == (1, *SHAPE[1:])
    ome = group.attrs["ome"]
    assert ome["version"] == "0.5"
    assert [a["name"] for a in ome["multiscales"][0]["axes"]] == ["t", "y", "x"]
    assert ome["image-label"]["colors"][2] == {"label-value": 5, "rgba": [0, 0, 255, 255]}
    assert ome["image-label"]["properties"][2] == {"label-value": 5, "name": "daughter", "parent": 1}


def test_ome_zarr_obeys_the_specification(content, tmp_path):
    """The metadata pass a validator of OME-Zarr 0.5."""
    models = pytest.importorskip("ome_zarr_models.v05", reason="the validator ome-zarr-models is not installed")
    export(content, tmp_path / "labels.zarr")
    image = models.ImageLabel.from_zarr(zarr.open_group(tmp_path / "labels.zarr", mode="r"))
    assert len(image.ome_attributes.multiscales) == 1


def test_large_frames_get_a_pyramid(tmp_path):
    """Frames larger than a screen get halved levels: every second pixel, with scales that say so."""
    labels = np.zeros((2, 1030, 2100), np.uint16)
    labels[1, 1000:1030, 2000:2100] = 3
    export(Content(labels), tmp_path / "labels.zarr")
    group = zarr.open_group(tmp_path / "labels.zarr", mode="r")
    datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
    for level, dataset in enumerate(datasets):
        assert np.array_equal(group[dataset["path"]][:], labels[:, :: 2**level, :: 2**level])
        assert dataset["coordinateTransformations"][0]["scale"] == [1, 2**level, 2**level]
    assert len(datasets) == 3
    stored = list((tmp_path / "labels.zarr" / "0" / "c").rglob("*"))
    assert sorted(p.relative_to(tmp_path / "labels.zarr" / "0" / "c").parts for p in stored if p.is_file()) == [
        ("1", "0", "1"),
        ("1", "0", "2"),
        ("1", "1", "1"),
        ("1", "1", "2"),
    ]


@pytest.mark.usefixtures("band_pixels")
def test_davis_masks_are_palette_images(content, labels, tmp_path):
    """One palette PNG a frame, five digits, whose pixel values are the ids and whose colours are those of DAVIS."""
    export(content, tmp_path / "masks", "davis")
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == [f"{t:05d}.png" for t in range(SHAPE[0])]
    for t in range(SHAPE[0]):
        with Image.open(tmp_path / "masks" / f"{t:05d}.png") as image:
            assert image.mode == "P"
            assert np.array_equal(np.asarray(image), labels[t])
            assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]


@pytest.mark.parametrize(
    ("index", "colour"),
    [
        (0, (0, 0, 0)),
        (3, (128, 128, 0)),
        (8, (64, 0, 0)),
        (15, (192, 128, 128)),
        (20, (0, 64, 128)),
        (255, (224, 224, 192)),
    ],
)
def test_the_palette_is_that_of_voc(index, colour):
    """The palette's colours are those that PASCAL VOC publishes."""
    assert tuple(davis_palette()[3 * index : 3 * index + 3]) == colour


def test_a_palette_has_no_room_for_large_ids(labels, tmp_path):
    """Ids above 255, known or found in the labels, are refused with the number and another format to take."""
    with pytest.raises(InputError, match=r"Object 256.*255.*ome-tiff"):
        export(Content(labels, (Thing(256, "late", "#ffffff"),)), tmp_path / "masks", "davis")
    labels[3, 0, 0] = 300
    with pytest.raises(InputError, match=r"Object 300.*frame 3"):
        export(Content(labels), tmp_path / "masks", "davis")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------- tracks


def read_tracks(folder: Path) -> dict[int, tuple[int, int, int]]:
    rows = [tuple(map(int, line.split())) for line in (folder / "res_track.txt").read_text().splitlines()]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.usefixtures("band_pixels")
def test_ctc_splits_tracks_at_gaps_and_keeps_parents(content, labels, tmp_path):
    """A gap begins a new track whose parent is the part before; a daughter's parent is its mother."""
    written = export(content, tmp_path / "ctc", "ctc")
    assert written.notes == ()
    assert read_tracks(tmp_path / "ctc") == {1: (0, 3, 0), 2: (0, 1, 0), 5: (4, 6, 1), 6: (4, 6, 2)}
    for t in range(SHAPE[0]):
        mask = tifffile.imread(tmp_path / "ctc" / f"mask{t:03d}.tif")
        assert mask.dtype == np.uint16
        expected = labels[t].copy()
        if t >= 4:
            expected[labels[t] == 2] = 6
        assert np.array_equal(mask, expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sets(st.sampled_from([1, 2, 3, 4, 9])), min_size=1, max_size=12))
def test_tracks_obey_the_challenge(presence):
    """Whatever comes and goes, each track is on all its frames and no other, and parents end before children begin."""
    tracks = Tracks({1: None, 2: 1, 3: 1, 4: 9}, 4)
    shown = [tracks.labels_at(frame, sorted(present)) for frame, present in enumerate(presence)]
    for present, labels in zip(presence, shown, strict=True):
        assert set(labels) == present
        assert len(set(labels.values())) == len(labels)
    for label, (begin, end, parent) in tracks.rows.items():
        assert [f for f, labels in enumerate(shown) if label in labels.values()] == list(range(begin, end + 1))
        assert parent == 0 or (parent in tracks.rows and tracks.rows[parent][1] < begin)
    for object_id in set().union(*presence):
        own = sorted({labels[object_id] for labels in shown if object_id in labels}, key=lambda n: tracks.rows[n][0])
        for before, after in itertools.pairwise(own):
            assert tracks.rows[after][2] == before


def test_a_mother_that_stays_is_no_parent(labels, tmp_path):
    """A daughter whose mother is still there, or never was, is written without parent, and a note says so."""
    labels[4:, 0:3, 0:3] = 1
    stays = export(Content(labels, OBJECTS), tmp_path / "stays", "ctc")
    assert read_tracks(tmp_path / "stays")[5] == (4, 6, 0)
    assert stays.notes == ("object 5: its parent 1 is still there; written without parent",)
    labels[labels == 1] = 0
    never = export(Content(labels, OBJECTS), tmp_path / "never", "ctc")
    assert "its parent 1 is on no earlier frame" in never.notes[0]


def test_too_many_tracks_are_refused():
    """More tracks than 16 bits can number are an error, not a wrapped number."""
    tracks = Tracks(dict.fromkeys(range(1, 65536)), 65535)
    tracks.labels_at(0, [7])
    with pytest.raises(InputError, match="65535 tracks"):
        tracks.labels_at(2, [7])


def test_tracks_find_room_below_a_high_id(tmp_path):
    """The highest id that there is leaves its tracks the numbers below, as ids beyond 16 bits do, never an object's."""
    labels = np.zeros((6, 8, 8), np.uint32)
    labels[::2, 0] = 65535
    labels[:, 3] = 1
    labels[1:, 5] = 70000
    export(Content(labels, (Thing(2, "b", "#ffffff"), Thing(65535, "a", "#ffffff"))), tmp_path / "ctc", "ctc")
    tracks = read_tracks(tmp_path / "ctc")
    assert tracks == {1: (0, 5, 0), 65535: (0, 0, 0), 3: (1, 5, 0), 4: (2, 2, 65535), 5: (4, 4, 4)}
    mask = tifffile.imread(tmp_path / "ctc" / "mask004.tif")
    assert [int(n) for n in mask[[0, 3, 5], 0]] == [5, 1, 3]


# ---------------------------------------------------------------------------------------------------- run lengths


def test_run_lengths_by_hand():
    """A 4 x 3 mask read down its columns: 5 of background, 3 of object (over the end of a column), 1, 1, 2."""
    mask = np.array([[0, 0, 1], [0, 1, 0], [0, 1, 0], [0, 1, 0]], bool)
    mask[0, 2], mask[1, 2], mask[2, 2] = False, True, False
    #        column 0: 0 0 0 0   column 1: 0 1 1 1   column 2: 0 1 0 0
    assert run_lengths(mask, Box(0, 0, 4, 3), (4, 3)) == [5, 3, 1, 1, 2]
    mask[0, 2] = True  # now a run crosses from column 1 to column 2: 1 1 1 | 1 1
    assert run_lengths(mask, Box(0, 0, 4, 3), (4, 3)) == [5, 5, 2]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**16), st.sampled_from([0.1, 0.5, 0.95, 1.0]))
def test_run_lengths_of_a_box_are_those_of_the_image(height, width, seed, density):
    """Looking only at an object's box gives the run lengths of the whole image, which decode to its mask."""
    mask = np.random.default_rng(seed).random((height, width)) < density
    box = mask_box(mask) or Box(0, 0, 1, 1)
    counts = run_lengths(mask[box.slices], box, (height, width))
    values = np.repeat(np.arange(len(counts)) % 2, counts).astype(bool)
    assert np.array_equal(values.reshape(width, height).T, mask)
    assert all(count > 0 for count in counts[1:])


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([5, 3, 1, 1, 2], "531N1"),  # 5, 3, 1, then 1 - 3 = -2 -> 30 + 48 = "N", 2 - 1 = 1
        ([100], "T3"),  # 100 = 3 * 32 + 4: 4 | 32 = 36 + 48 = "T", then 3
        ([15], "?"),  # 15 fits 5 bits with their sign
        ([16], "`0"),  # 16 would read as -16: 16 | 32 = 48 + 48 = "`", then 0
        ([0, 12], "0<"),
        ([1, 2, 3, 42], "123X1"),  # 42 - 2 = 40 = 1 * 32 + 8: 8 | 32 = 40 + 48 = "X", then 1
    ],
)
def test_compressed_run_lengths_by_hand(counts, text):
    """Each count, from the fourth on its difference from the one before last, is 5 bits a character, low bits first."""
    assert encode_rle(counts) == text
    assert decode_rle(text) == counts


@given(st.lists(st.integers(0, 10**9), max_size=30))
def test_compressed_run_lengths_come_back(counts):
    """Whatever the counts, decoding gives them again, and the text is printable."""
    text = encode_rle(counts)
    assert decode_rle(text) == counts
    assert all(48 <= ord(c) < 112 for c in text)


@pytest.mark.usefixtures("band_pixels")
@pytest.mark.parametrize("compressed", [True, False])
def test_coco_holds_every_mask(compressed, content, labels, tmp_path):
    """An annotation for each object on each frame: its mask, area, box (x, y, w, h), its object as category."""
    export(content, tmp_path / "labels.json", compressed=compressed)
    data = json.loads((tmp_path / "labels.json").read_text(encoding="utf-8"))
    assert [image["id"] for image in data["images"]] == list(range(SHAPE[0]))
    assert data["images"][3] == {"id": 3, "file_name": "00003.png", "height": SHAPE[1], "width": SHAPE[2]}
    assert [(c["id"], c["name"]) for c in data["categories"]] == [(o.id, o.name) for o in OBJECTS]
    back = np.zeros_like(labels)
    for number, annotation in enumerate(data["annotations"], 1):
        counts = annotation["segmentation"]["counts"]
        assert isinstance(counts, str) == compressed
        assert annotation["segmentation"]["size"] == list(SHAPE[1:])
        counts = decode_rle(counts) if compressed else counts
        mask = np.repeat(np.arange(len(counts)) % 2, counts).astype(bool).reshape(SHAPE[2], SHAPE[1]).T
        back[annotation["image_id"]][mask] = annotation["category_id"]
        box = mask_box(mask)
        assert annotation["bbox"] == [box.x0, box.y0, box.width, box.height]
        assert (annotation["area"], annotation["iscrowd"], annotation["id"]) == (mask.sum(), 0, number)
    assert np.array_equal(back, labels)


def test_coco_without_objects_is_still_json(tmp_path):
    """A stack without any object gives a file with images and no annotations."""
    export(Content(np.zeros((2, 3, 4), np.uint8)), tmp_path / "none.json")
    data = json.loads((tmp_path / "none.json").read_text())
    assert len(data["images"]) == 2
    assert data["annotations"] == data["categories"] == []


# ---------------------------------------------------------------------------------------------------- the table


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("band_pixels")
def test_the_table_measures_each_object(content, labels, movie, tmp_path):
    """A line an object and frame: area, centroid, box, quality, and the mean of the source's own values."""
    export(content, tmp_path / "table.csv")
    rows = read_table(tmp_path / "table.csv")
    present = [(t, i) for t in range(SHAPE[0]) for i in np.unique(labels[t]).tolist() if i]
    assert [(int(r["frame"]), int(r["object"])) for r in rows] == present
    for row in rows:
        t, i = int(row["frame"]), int(row["object"])
        mask = labels[t] == i
        known = next(o for o in OBJECTS if o.id == i)
        assert (row["name"], row["parent"]) == (known.name, "" if known.parent is None else str(known.parent))
        assert int(row["area_px"]) == mask.sum()
        centre = [float(row["centroid_row"]), float(row["centroid_col"])]
        assert centre == pytest.approx(np.argwhere(mask).mean(0), abs=1e-3)
        assert Box(*(int(row[k]) for k in ("row_min", "col_min", "row_end", "col_end"))) == mask_box(mask)
        assert float(row["mean_intensity"]) == pytest.approx(movie[t][mask].mean(), rel=1e-5)
        column = [o.id for o in OBJECTS].index(i)
        assert float(row["quality"]) == pytest.approx(content.quality[t, column], abs=1e-4)


@pytest.mark.parametrize(
    ("frame_axis", "unit", "of"),
    [
        ("Z", "µm", {"area_um2": lambda t, n: n * 0.25 * 0.3, "volume_um3": lambda t, n: n * 0.25 * 0.3 * 2}),
        ("T", "nm", {"area_um2": lambda t, n: n * 0.25e-3 * 0.3e-3, "time_s": lambda t, n: t * 300}),
    ],
)
def test_the_table_measures_in_micrometres_and_seconds(frame_axis, unit, of, tmp_path):
    """Where the frames' file has pixel sizes, areas are in µm², shares of volumes in µm³, times in s."""
    sizes = {"PhysicalSizeX": 0.3, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2, "TimeIncrement": 5}
    units = {"TimeIncrementUnit": "min"} | {f"PhysicalSize{x}Unit": unit for x in "XYZ"}
    metadata = {"axes": "TZYX", **sizes, **units}
    tifffile.imwrite(tmp_path / "f.ome.tif", np.zeros((3, 3, 20, 30), np.uint8), metadata=metadata)
    labels = np.zeros((3, 20, 30), np.uint8)
    labels[0, 2:6, 3:9] = labels[2, 2:12, 3:9] = 1
    with open_frames(tmp_path / "f.ome.tif", frame_axis=frame_axis) as stack:
        export(Content(labels, frames=stack), tmp_path / "table.csv")
    rows = read_table(tmp_path / "table.csv")
    measured = {"area_um2", "volume_um3", "time_s"}
    assert len(rows) == 2
    for row, (t, area) in zip(rows, [(0, 24), (2, 60)], strict=True):
        assert measured & row.keys() == of.keys()
        for name, value in of.items():
            assert float(row[name]) == pytest.approx(value(t, area), rel=1e-6)


def test_a_source_without_sizes_gives_pixels_only(content, tmp_path):
    """Frames whose file says nothing of sizes give no column in micrometres or seconds."""
    export(content, tmp_path / "table.csv")
    assert not {"area_um2", "volume_um3", "time_s"} & read_table(tmp_path / "table.csv")[0].keys()


def test_every_unit_of_a_source_has_its_size() -> None:
    """The table can convert all units that readers give, micrometres and seconds to themselves."""
    assert set(SIZES) == set(LENGTHS | TIMES)
    assert (SIZES["µm"], SIZES["s"]) == (1.0, 1.0)


def test_channels_have_a_column_each(labels, tmp_path):
    """A stack with channels gives a mean for each of them, shown or not; values that are not finite don't count."""
    movie = np.random.default_rng(1).random((SHAPE[0], 4, *SHAPE[1:])).astype(np.float32)
    movie[0, 2, 6, 6] = np.nan
    export(Content(labels, OBJECTS, frames=open_frames(movie, axes="TCYX")), tmp_path / "table.csv")
    row = read_table(tmp_path / "table.csv")[0]
    for c in range(4):
        values = movie[0, c][labels[0] == 1]
        assert float(row[f"mean_intensity_{c}"]) == pytest.approx(np.nanmean(values), rel=1e-4)


@pytest.mark.parametrize(("axes", "channels"), [("TYXS", 3), ("CTYX", 2), ("TCYX", 0)])
def test_channel_columns_fit_the_axes(axes, channels, labels, tmp_path):
    """Colours and channels are found wherever their axis lies; a single channel is no axis."""
    lengths = {"T": SHAPE[0], "Y": SHAPE[1], "X": SHAPE[2], "S": 3, "C": channels or 1}
    movie = np.random.default_rng(1).integers(0, 255, [lengths[a] for a in axes]).astype(np.uint8)
    export(Content(labels, OBJECTS, frames=open_frames(movie, axes=axes)), tmp_path / "table.csv")
    row = read_table(tmp_path / "table.csv")[0]
    plane = np.moveaxis(movie, [axes.index(a) for a in "TYX"], [0, 1, 2]).reshape(*SHAPE, -1)[0]
    names = [f"mean_intensity_{c}" for c in range(channels)] or ["mean_intensity"]
    assert [name for name in row if name.startswith("mean")] == names
    assert [float(row[name]) for name in names] == pytest.approx(plane[labels[0] == 1].mean(0), rel=1e-4)


def test_far_objects_are_read_one_by_one(tmp_path):
    """Of a large frame with two far objects only their boxes are read for the intensities."""
    labels = np.zeros((1, 200, 300), np.uint16)
    labels[0, 2:6, 3:9], labels[0, 190:195, 280:290] = 1, 2
    stack = open_frames(np.arange(200 * 300, dtype=np.uint16).reshape(1, 200, 300), axes="TYX")
    boxes: list[Box] = []

    class Watched:
        shape, describe = stack.shape, stack.describe

        def raw(self, frame: int, box: Box) -> np.ndarray:
            boxes.append(box)
            return stack.raw(frame, box)

    export(Content(labels, frames=Watched()), tmp_path / "table.csv")
    assert boxes == [Box(2, 3, 6, 9), Box(190, 280, 195, 290)]


def test_without_frames_there_are_no_intensities(labels, tmp_path):
    """A project without its stack still gives a table, without intensity columns and with empty qualities."""
    export(Content(labels, OBJECTS), tmp_path / "table.csv")
    [first, *_] = read_table(tmp_path / "table.csv")
    assert first["quality"] == ""
    assert not [name for name in first if name.startswith("mean")]


class Damaged:
    """A stack whose frame 2 can't be read."""

    def __init__(self, stack: Any) -> None:
        self.stack, self.shape, self.describe = stack, stack.shape, stack.describe

    def raw(self, frame: int, box: Box | None = None) -> np.ndarray:
        self._check(frame)
        return self.stack.raw(frame, box)

    def read(self, frame: int, box: Box | None = None) -> np.ndarray:
        self._check(frame)
        return self.stack.read(frame, box)

    def _check(self, frame: int) -> None:
        if frame == 2:
            raise FrameReadError("frame 2 can't be read (damaged)", 2)


@pytest.mark.parametrize("name", ["table", "video", "contact-sheet"])
def test_a_frame_that_cannot_be_read_is_noted(name, labels, movie, tmp_path):
    """An unreadable frame costs its own intensities or its picture, not the export; a note names it once."""
    content = Content(labels, OBJECTS, frames=Damaged(open_frames(movie, axes="TYX")))
    written = export(content, tmp_path / "out", name)
    [note] = written.notes
    assert "frame 2" in note
    if name == "table":
        empty = {int(r["frame"]) for r in read_table(tmp_path / "out") if r["mean_intensity"] == ""}
        assert empty == {2}


# ---------------------------------------------------------------------------------------------------- pictures


@pytest.mark.usefixtures("band_pixels")
def test_pictures_show_objects_in_their_colours(content, labels):
    """Edges have the object's full colour and a white rim, insides are tinted, and the rest is the frame itself."""
    drawn = picture(content, 0)
    assert drawn.shape == (*SHAPE[1:], 3)
    assert drawn[4, 5].tolist() == [255, 0, 0]
    assert drawn[25, 30].tolist() == [0, 255, 0]
    inside, image = drawn[7, 10].astype(float), content.frames.read(0)[7, 10] * 255
    assert inside == pytest.approx(image * 0.65 + np.array([255, 0, 0]) * 0.35, abs=1)
    marked = np.pad(labels[0] > 0, 1)
    beside = marked[:-2, 1:-1] | marked[2:, 1:-1] | marked[1:-1, :-2] | marked[1:-1, 2:]
    assert (drawn[beside & (labels[0] == 0)] == 255).all()
    clear = ~beside & (labels[0] == 0)
    assert np.abs(drawn[clear] - content.frames.read(0)[clear] * 255).max() <= 0.51


@pytest.mark.usefixtures("band_pixels")
@pytest.mark.parametrize("side", [52, 51, 30, 13, 5])
def test_large_frames_are_reduced_by_whole_factors(side, labels):
    """Frames are averaged down to the side that is asked for, the same whether read whole or in bands."""
    flat = np.full(SHAPE, 1000, np.uint16)
    flat[:, :, ::2] = 3000
    stack = open_frames(flat, axes="TYX", contrast=(1000, 3000))
    drawn = picture(Content(np.zeros_like(labels), frames=stack), 0, side)
    factor = -(-SHAPE[2] // side)
    assert drawn.shape == (-(-SHAPE[1] // factor), -(-SHAPE[2] // factor), 3)
    assert max(drawn.shape) <= side
    if factor % 2 == 0:
        whole = drawn[: SHAPE[1] // factor, : SHAPE[2] // factor]
        assert np.abs(whole - 127.5).max() <= 1


def test_without_frames_masks_lie_on_grey(labels):
    """A project without its stack still gives pictures."""
    drawn = picture(Content(labels, OBJECTS), 0)
    assert drawn[4, 5].tolist() == [255, 0, 0]
    assert set(np.unique(drawn[labels[0] == 0])) == {24, 255}  # grey, and the rims of the masks


def test_the_video_holds_every_frame(content, tmp_path):
    """The video has the stack's number of frames at the rate asked for, even sides, and the colours in their places."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    export(content, tmp_path / "out.mp4", fps=7, title="simulated")
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert container.metadata["title"] == "simulated"
        assert float(stream.average_rate) == 7
        shown = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
    assert len(shown) == SHAPE[0]
    zoom = shown[0].shape[0] / SHAPE[1]
    assert zoom == 6
    corner = shown[0][int(8 * zoom), int(5 * zoom + 3)].astype(int)  # on the left edge of object 1
    assert corner[0] > 180
    assert corner[1] < 90


@pytest.mark.parametrize("rate", [3, 25])
def test_the_video_runs_as_fast_as_its_source(rate, content, tmp_path):
    """Without a rate, the overlay of a video has the video's own."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    export(content, tmp_path / "source.mp4", fps=rate)
    with open_frames(tmp_path / "source.mp4") as stack:
        export(Content(np.zeros(stack.shape, np.uint8), frames=stack), tmp_path / "overlay.mp4")
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == rate


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 501), (2, 333, 5)])
def test_videos_of_odd_frames_are_written(shape, tmp_path):
    """Frames of a single pixel, and of odd or very long sides, give a video that opens."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    export(Content(np.ones(shape, np.uint8)), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == shape[0]


def test_without_pyav_the_error_says_what_to_install(content, tmp_path, monkeypatch):
    """Where PyAV is missing, the error names the extra that brings it."""
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=re.escape("napari-ivos[video]")):
        export(content, tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [0, -3, float("nan"), 1e9])
def test_impossible_rates_are_refused(fps, content, tmp_path):
    """A rate that isn't above 0 is an error with the number."""
    with pytest.raises(InputError, match="frames a second"):
        export(content, tmp_path / "out.mp4", fps=fps)


@pytest.mark.parametrize(("count", "tiles"), [(1, 1), (4, 4), (12, 7), (100, 7)])
def test_the_contact_sheet_shows_frames_side_by_side(count, tiles, content, tmp_path):
    """At most so many frames are shown, none twice, all of one size, the title above."""
    export(content, tmp_path / "sheet.png", count=count, title="simulated cells")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.mode == "RGB"
        sheet = np.asarray(image)
    width, height = 52 * 6, 40 * 6 + 18
    columns, rows = (sheet.shape[1] - 4) // (width + 4), (sheet.shape[0] - 18 - 4) // (height + 4)
    assert columns * rows >= tiles > columns * (rows - 1)
    assert (sheet[:18] < 128).any()  # the title
    red = (sheet[..., 0] == 255) & (sheet[..., 1] == 0) & (sheet[..., 2] == 0)
    assert red.any()


def test_a_sheet_of_nothing_is_refused(content, tmp_path):
    """A contact sheet of no frames is an error."""
    with pytest.raises(InputError, match="at least 1"):
        export(content, tmp_path / "sheet.png", count=0)
