"""Projects and videos through napari's File menu, exports from the desk, and where projects lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plugin_scene as scene
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_ivos import FakePredictor, Scribbles, Session, Stroke, open_frames
from napari_ivos.plugin import projects, reading
from napari_ivos.plugin.desk import Desk
from napari_ivos.plugin.review import UNKNOWN, columns, marked

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def desk():
    """A desk without a window."""
    made = Desk(ViewerModel())
    made.said = []
    made.noticed.connect(lambda text, kind: made.said.append((kind, text)))
    made.use_model(FakePredictor())
    yield made
    made.close()


@pytest.fixture
def movie_file(tmp_path):
    """The scene as a TIFF file."""
    import tifffile

    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, scene.movie(), metadata={"axes": "TYX"})
    return path


def layer_of(path: Path) -> Image:
    """A layer that says which file it comes from."""
    return Image(scene.movie(), name="movie", metadata={projects.HINTS: {"file": str(path)}})


def test_a_project_opens_with_its_stack_beside_it(desk, movie_file):
    """A project made from a file finds it again, and frames, masks and strokes are shown."""
    image = layer_of(movie_file)
    desk.viewer.add_layer(image)
    desk.start(image, path=movie_file.with_suffix(".ivos"))
    desk.wait()
    desk.go_to(2)
    scene.draw(desk, scene.line(2))
    desk.wait()
    masks = np.array(desk.session.labels[2])
    desk.leave()
    desk.wait()
    desk.viewer.layers.clear()
    desk.open_project(movie_file.with_suffix(".ivos"))
    desk.wait()
    np.testing.assert_array_equal(desk.session.labels[2], masks)
    names = [layer.name for layer in desk.viewer.layers]
    assert "movie.tif" in names
    assert desk.viewer.layers["object 1 (strokes)"].nshapes == 1
    np.testing.assert_array_equal(np.asarray(desk.viewer.layers["movie.tif"].data[3]), scene.movie()[3])


def project_of(folder: Path, name: str) -> Path:
    """A project with one stroke, beside its stack."""
    import tifffile

    stack = folder / f"{name}.tif"
    tifffile.imwrite(stack, scene.movie(), metadata={"axes": "TYX"})
    with Session(stack, FakePredictor(), project=stack.with_suffix(".ivos")) as session:
        session.interact(Scribbles(2, [Stroke(1, scene.line(2))]))
    return stack.with_suffix(".ivos")


@pytest.mark.parametrize("second", ["a", "b"])
@pytest.mark.parametrize("ready", [False, True], ids=["while one opens", "before one is shown"])
def test_of_two_projects_that_are_opened_the_last_is_at_the_desk(desk, tmp_path, ready, second):
    """Another project that is opened meanwhile takes the first one's place, which is let go of, unchanged."""
    paths = {name: project_of(tmp_path, name) for name in "ab"}
    desk.open_project(paths["a"])
    while ready and desk.engine.busy:
        desk._bell.wait(0.01)
    desk.open_project(paths[second])
    desk.wait()
    assert desk.session.path == paths[second]
    assert desk.session.read_only is None
    assert scene.shown(desk) == {"object 1 (strokes)": 1}
    scene.drawn_at(desk, 4)
    for name, path in paths.items():
        if name != second:
            with Session.open(path) as other:
                assert other.read_only is None
                assert [s.frame for s in other.strokes()] == [2]
    desk.leave()
    desk.wait()
    assert not any(layer.visible for layer in desk.viewer.layers if "[objects]" in layer.name or "stroke" in layer.name)


def test_the_layer_of_a_project_outlives_its_session(desk, tmp_path):
    """The frames stay on screen when the project is left, and Start on them goes on with that project."""
    path = project_of(tmp_path, "movie").rename(tmp_path / "mine.ivos")
    desk.open_project(path)
    desk.wait()
    image = desk.binding.image
    desk.leave()
    desk.wait()
    np.testing.assert_array_equal(np.asarray(image.data), scene.movie())
    desk.start(image)
    desk.wait()
    assert desk.session.path == path
    assert desk.session.stack.source == tmp_path / "movie.tif"
    assert scene.shown(desk) == {"object 1 (strokes)": 1}


@pytest.mark.parametrize(("axes", "shape"), [("TZYX", (8, 5, 60, 80)), ("ZTYX", (5, 8, 60, 80))])
def test_a_project_opens_on_the_plane_that_was_segmented(desk, tmp_path, axes, shape):
    """Where its volumes are on screen at another plane, masks and strokes are at the project's, which is shown."""
    import tifffile

    volumes = np.stack([scene.movie() // (z + 1) for z in range(5)], axis=axes.index("Z"))
    assert volumes.shape == shape
    tifffile.imwrite(tmp_path / "movie.ome.tif", volumes, metadata={"axes": axes})
    image = Image(volumes, name="movie", metadata={projects.HINTS: {"file": str(tmp_path / "movie.ome.tif")}})
    image.axis_labels = tuple(axes.lower())
    z = axes.index("Z")
    desk.viewer.add_layer(image)
    desk.viewer.dims.set_point(z, 3)
    desk.start(desk.choice(image, axes.index("T")), path=tmp_path / "p.ivos")
    desk.wait()
    scene.drawn_at(desk, 2)
    desk.leave()
    desk.viewer.dims.set_point(z, 1)
    desk.open_project(tmp_path / "p.ivos")
    desk.wait()
    assert desk.binding.image is image
    assert dict(desk.binding.layout.held) == {z: 3}
    assert desk.viewer.dims.point[z] == 3
    assert desk.binding.labels.translate[z] == 3
    scene.drawn_at(desk, 4)
    assert [s.frame for s in desk.session.strokes()] == [2, 4]


def test_a_project_without_its_stack_says_what_to_do(desk, tmp_path):
    """Frames that are not found are an error in words, and the window goes on."""
    Session(scene.movie(), project=tmp_path / "lost.ivos").close()
    desk.open_project(tmp_path / "lost.ivos")
    desk.wait()
    assert any(kind == "error" and "had no file of their own" in text for kind, text in desk.said)
    assert desk.session is None


def test_a_project_whose_stack_was_moved_takes_the_frames_of_an_open_layer(desk, tmp_path):
    """It says which file it misses; with that one open anywhere, among others of its shape, it goes on."""
    path = project_of(tmp_path, "movie")
    moved = tmp_path / "elsewhere" / "movie.tif"
    moved.parent.mkdir()
    (tmp_path / "movie.tif").rename(moved)
    desk.viewer.add_layer(Image(scene.movie()[::-1].copy(), name="other"))
    desk.open_project(path)
    desk.wait()
    assert desk.session is None
    assert desk.said[-1][0] == "error"
    assert "Open movie.tif (File > Open), then the project again" in desk.said[-1][1]
    image = desk.viewer.add_layer(layer_of(moved))
    desk.viewer.layers.selection.active = desk.viewer.layers["other"]
    desk.open_project(path)
    desk.wait()
    assert desk.binding.image is image
    assert desk.session.path == path
    assert desk.session.stack.source == moved
    assert scene.shown(desk) == {"object 1 (strokes)": 1}
    assert desk.said[-1] == ("info", "Opened movie.ivos, with the frames of movie.")
    assert [layer.name for layer in desk.viewer.layers if isinstance(layer, Image)] == ["other", "movie"]


def test_a_project_of_some_channels_knows_them_in_an_open_layer(desk, tmp_path):
    """The frames are looked for as they were opened: with the channels and at the plane of the project."""
    volume = np.stack([scene.movie() // (c + 1) for c in range(3)], axis=1)
    stack = open_frames(volume, axes="TCYX", channels=(2,))
    with Session(stack, FakePredictor(), project=tmp_path / "two.ivos") as session:
        session.interact(Scribbles(2, [Stroke(1, scene.line(2))]))
    image = desk.viewer.add_layer(Image(volume, name="volume"))
    desk.open_project(tmp_path / "two.ivos")
    desk.wait()
    assert desk.binding.image is image
    assert desk.session.stack.channels == (2,)


def test_readers_take_only_their_files(tmp_path):
    """Readers decline what is not theirs."""
    assert reading.project_reader("a.tif") is None
    assert reading.video_reader(["a.mp4", "b.mp4"]) is None
    assert reading.project_reader("a.ivos") is not None
    assert reading.video_reader("a.MP4") is not None


def test_videos_are_read_lazily_by_number(tmp_path):
    """A video becomes an RGB layer whose frames are decoded when they are looked at."""
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * k, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    ((data, options, kind),) = reading.read_video(str(path))
    assert (data.shape, kind, options["rgb"]) == ((6, 48, 64, 3), "image", True)
    assert abs(int(np.asarray(data[4]).mean()) - 160) < 8
    assert abs(int(np.asarray(data[1]).mean()) - 40) < 8


def test_labels_are_written_by_ending(tmp_path):
    """A Labels layer's data go where File > Save says."""
    import tifffile

    labels = np.zeros((3, 20, 30), np.uint16)
    labels[:, 5:9, 5:9] = 2
    (written,) = reading.write_labels(str(tmp_path / "out.ome.tif"), labels, {})
    np.testing.assert_array_equal(tifffile.imread(written), labels)


@pytest.mark.parametrize("kind", ["of-napari", "list", "tuple"])
@pytest.mark.parametrize("said", [True, False], ids=["said", "unsaid"])
def test_labels_of_several_scales_are_written_in_full(said, kind, tmp_path):
    """Of a Labels layer with levels, as large frames have, the first level is written, whatever else napari tells."""
    import tifffile

    labels = np.zeros((3, 20, 30), np.uint16)
    labels[:, 5:9, 5:9] = 2
    layer = Labels([labels, labels[:, ::2, ::2]], name="large")
    data, meta, _ = layer.as_layer_data_tuple()
    data = {"of-napari": data, "list": list(data), "tuple": tuple(data)}[kind]
    (written,) = reading.write_labels(str(tmp_path / "out.ome.tif"), data, meta if said else {})
    np.testing.assert_array_equal(tifffile.imread(written), labels)


def test_exports_run_in_the_background(desk, tmp_path):
    """An export is written by a thread of its own, and the user is told where."""
    image = Image(scene.movie(), name="movie")
    desk.viewer.add_layer(image)
    desk.start(image, path=None)
    desk.wait()
    desk.go_to(2)
    scene.draw(desk, scene.line(2))
    desk.wait()
    desk.export(tmp_path / "cells.csv")
    desk.add_tracks()
    desk.wait()
    assert (tmp_path / "cells.csv").read_text().count("object 1") == 1
    assert any("cells.csv" in text for _, text in desk.said)
    assert desk.viewer.layers["movie [tracks]"].data.shape[1] == 4


def test_tracks_lie_on_their_objects_and_know_their_mothers(desk):
    """The Tracks layer goes through the objects' middles, in the image's world, with each daughter's mother."""
    image = Image(scene.movie(), name="movie", scale=(2, 0.5, 0.5), translate=(1, 7, 9), axis_labels=("t", "y", "x"))
    desk.viewer.add_layer(image)
    desk.start(image, path=None)
    desk.wait()
    scene.drawn_at(desk, 2)
    desk.propagate("forward")
    desk.wait()
    desk.go_to(6)
    desk.divide(1)
    daughters = np.zeros((scene.HEIGHT, scene.WIDTH), np.uint16)
    daughters[10:14, 34:38], daughters[20:24, 34:38] = 2, 3
    desk.session.annotate(6, daughters)
    desk.add_tracks()
    desk.wait()
    tracks = desk.viewer.layers["movie [tracks]"]
    assert tracks.graph == {2: [1], 3: [1]}
    assert {(int(row[0]), int(row[1])) for row in tracks.data} == {(1, 2), (1, 3), (1, 4), (1, 5), (2, 6), (3, 6)}
    (middle,) = (row[1:] for row in tracks.data if tuple(row[:2]) == (1, 3))
    y, x = scene.corner(3)
    np.testing.assert_allclose(middle, (3, y + 7.5, x + 7.5), atol=1)
    np.testing.assert_allclose(tracks.scale[-3:], image.scale)
    np.testing.assert_allclose(tracks.translate[-3:], image.translate)


def test_a_stack_in_a_folder_that_is_only_read_has_its_project_elsewhere(desk, tmp_path, monkeypatch):
    """Its project lies in the user's folder for projects, or in the one that was picked; the stack's is left alone."""
    import os

    from napari.layers._source import layer_source

    share = tmp_path / "share"
    share.mkdir()
    (share / "movie.tif").touch()
    writable = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != share and writable(path, mode))
    monkeypatch.setattr(projects, "default_folder", lambda: tmp_path / "home")
    with layer_source(path=str(share / "movie.tif")):
        image = desk.viewer.add_layer(Image(scene.movie(), name="movie"))
    assert projects.project_path(image, tmp_path / "picked") == tmp_path / "picked" / "movie.ivos"
    desk.start(image)
    desk.wait()
    assert "home" in desk.said[-1][1]
    scene.drawn_at(desk, 2)
    assert desk.session.path == tmp_path / "home" / "movie.ivos"
    assert [file.name for file in share.iterdir()] == ["movie.tif"]


def test_projects_lie_beside_their_stack_or_in_a_folder(tmp_path):
    """The name is the stack's, in a chosen folder, too, and where there is no file; a taken one gets a number."""
    from napari.layers._source import layer_source

    image = Image(np.zeros((2, 8, 8), np.uint8), name="a/b: c.ome.tif")
    assert projects.project_path(image, tmp_path) == tmp_path / "a_b_ c.ivos"
    assert projects.project_path(image).parent == projects.default_folder()
    with layer_source(path=str(tmp_path / "cells.ome.tif")):
        read = Image(np.zeros((2, 8, 8), np.uint8), name="cells.ome")  # as napari names it
    assert projects.project_path(read) == tmp_path / "cells.ivos"
    assert projects.project_path(read, tmp_path / "there") == tmp_path / "there" / "cells.ivos"
    (tmp_path / "x.ivos").touch()
    assert projects.free_name(tmp_path / "x.ivos") == tmp_path / "x-2.ivos"


def test_a_place_that_can_not_be_written_is_said_aloud(tmp_path):
    """Where no project can be made, the session is in memory and the note says that nothing is saved."""
    (tmp_path / "file").touch()
    image = Image(scene.movie(), name="movie")
    desk = Desk(ViewerModel())
    choice = desk.choice(image)
    session, note = projects.open_session(choice, tmp_path / "file" / "movie.ivos")
    assert session.path is None
    assert note.startswith("NOTHING IS SAVED")
    session.close()
    desk.close()


def test_columns_keep_the_worst_frame():
    """Many frames in one column are shown by their worst; one without a mask doesn't count."""
    row = np.full(1000, 0.9, np.float32)
    row[555] = 0.2
    row[:100] = UNKNOWN
    shown = columns(row, 10)
    np.testing.assert_allclose(shown, [UNKNOWN, 0.9, 0.9, 0.9, 0.9, 0.2, 0.9, 0.9, 0.9, 0.9])
    assert len(columns(row[:3], 10)) == 10
    assert marked(1000, [0, 999], 10).tolist() == [True, *[False] * 8, True]
