"""Projects at a desk: begun with the first stroke, gone on with, their rounds, the work as a program; without Qt."""

from __future__ import annotations

import threading

import numpy as np
import plugin_scene as scene
import pytest
import tifffile
from napari.layers import Image, Labels

from napari_ivos import FakePredictor, Scribbles, Session, Stroke
from napari_ivos.plugin import projects
from napari_ivos.plugin.review import Review
from napari_ivos.plugin.scripting import script

# --- projects ------------------------------------------------------------------------------------------------------


def test_a_project_is_gone_on_with(desks, tmp_path):
    """Started again with the same stack, strokes, masks and colours are there again."""
    first = desks(path=tmp_path / "movie.ivos")
    scene.drawn_at(first, 2)
    first.recolour_object(1, "#00ff00")
    masks = np.array(first.session.labels[2])
    first.close()
    second = desks(path=tmp_path / "movie.ivos")
    np.testing.assert_array_equal(second.session.labels[2], masks)
    assert scene.shown(second) == {"object 1 (strokes)": 1}
    np.testing.assert_allclose(second.binding.labels.get_color(1), [0, 1, 0, 1])


def test_a_project_of_another_stack_is_left_alone(desks, tmp_path):
    """Where a project of another stack lies, a new one is begun beside it."""
    first = desks(path=tmp_path / "movie.ivos")
    scene.drawn_at(first, 2)
    first.close()
    other = Image(scene.movie()[::-1].copy(), name="other")
    second = desks(other, path=tmp_path / "movie.ivos")
    scene.drawn_at(second, 2)
    assert second.session.path == tmp_path / "movie-2.ivos"
    with Session.open(tmp_path / "movie.ivos", frames=scene.movie()) as kept:
        assert len(kept.strokes()) == 1


@pytest.mark.parametrize("letters", [250, 300])
def test_a_layer_whose_name_is_too_long_for_a_project_is_worked_on(desks, tmp_path, letters):
    """The strokes are kept in memory, and the panel says that nothing is saved and why."""
    desk = desks(path=tmp_path / ("n" * letters + ".ivos"))
    scene.drawn_at(desk, 2)
    assert desk.where.startswith("NOTHING IS SAVED")
    assert any(kind == "warning" and "is too long for this file system" in text for kind, text in desk.said)
    assert len(desk.session.strokes()) == 1
    assert list(tmp_path.iterdir()) == []


def test_stacks_of_one_name_each_find_their_project(desks, tmp_path):
    """The second one's project, beside the first's, is gone on with, and of two of one stack the last changed."""
    movies = {"first": scene.movie(), "second": scene.movie()[::-1].copy()}

    def begun(name, fresh=False):
        """Open a stack, draw on it; its project, and how many strokes that had."""
        desk = desks(Image(movies[name], name="cells"), path=tmp_path / "cells.ivos")
        if fresh:
            desk.start(desk.binding.image, tmp_path / "cells.ivos", fresh=True)
            desk.wait()
        had = len(desk.session.strokes())
        scene.drawn_at(desk, had)
        path = desk.session.path
        desk.close()
        return path.name, had

    assert [begun(name) for name in ("first", "second")] == [("cells.ivos", 0), ("cells-2.ivos", 0)]
    assert [begun(name) for name in ("first", "second")] == [("cells.ivos", 1), ("cells-2.ivos", 1)]
    assert begun("first", fresh=True) == ("cells-3.ivos", 0)
    assert begun("second") == ("cells-2.ivos", 2)
    assert begun("first") == ("cells-3.ivos", 1)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.fixture
def compared(desks, tmp_path):
    """A desk that shows what was before the last of its two rounds, and the labels before and after it."""
    desk = desks(path=tmp_path / "movie.ivos")
    scene.drawn_at(desk, 2)
    desk.propagate("forward")
    desk.wait()
    before = np.asarray(desk.session.labels)
    scene.drawn_at(desk, 1)
    desk.propagate("backward")
    desk.wait()
    desk.go_to(0)
    desk.show_before()
    return desk, before, np.asarray(desk.session.labels)


def test_before_and_after_the_last_round_are_looked_at_in_turn(compared):
    """The result layer shows what was, the project stays as it is, and a second call shows it again."""
    desk, before, after = compared
    layer, log = desk.binding.labels, desk.session.log
    assert after[0].any()
    np.testing.assert_array_equal(np.asarray(layer.data), before)
    np.testing.assert_array_equal(np.asarray(desk.session.labels), after)
    assert list(layer.features["area"]) == [0]
    desk.show_before(False)
    assert layer.data is desk.session.labels
    assert list(layer.features["area"]) == [(after[0] == 1).sum()]
    assert desk.session.log == log
    assert all(step.state == 1 for step in log)


def test_a_window_killed_in_a_comparison_has_lost_nothing(compared, tmp_path):
    """What is on disk while the earlier result is shown is the whole work."""
    _desk, _before, after = compared
    with Session.open(tmp_path / "movie.ivos", frames=scene.movie()) as found:
        np.testing.assert_array_equal(np.asarray(found.labels), after)


@pytest.mark.parametrize("deed", ["stroke", "brush", "propagate", "undo", "add_object", "import", "paint_mask"])
def test_whatever_is_done_in_a_comparison_goes_on_from_the_result(compared, deed):
    """The earlier result can't be painted; everything else ends the comparison first, so that no round is lost."""
    desk, before, after = compared
    rounds = [step.number for step in desk.session.log if step.kind == "propagate"]
    if deed == "stroke":
        scene.drawn_at(desk, 5)
    elif deed == "brush":
        layer = desk.binding.labels
        desk.viewer.layers.selection.active = layer
        assert not layer.editable
        layer.mode = "paint"
        scene.draw(desk, [(50, 10), (50, 14), (50, 18)])
        desk.wait()
        np.testing.assert_array_equal(np.asarray(layer.data), before)
        desk.show_before(False)
        assert layer.editable
    elif deed == "import":
        other = np.zeros((8, 60, 80), np.uint8)
        other[0, 40:50, 40:50] = 7
        desk.import_labels(desk.viewer.add_layer(Labels(other, name="other")))
    else:
        getattr(desk, deed)()
    desk.wait()
    assert not desk.comparing
    assert desk.binding.labels.data is desk.session.labels
    if deed == "undo":
        desk.redo()
        desk.wait()
    assert [step.number for step in desk.session.log if step.kind == "propagate" and step.state == 1][:2] == rounds
    if deed != "stroke":
        np.testing.assert_array_equal(np.asarray(desk.session.labels) == 1, after == 1)


def test_a_project_that_is_only_read_can_be_compared_too(compared, desks, tmp_path):
    """A second window that may not write shows before and after, and a stroke drawn in it is taken away with a word."""
    _desk, before, after = compared
    reader = desks(path=tmp_path / "movie.ivos")
    assert reader.session.read_only
    reader.show_before()
    np.testing.assert_array_equal(np.asarray(reader.binding.labels.data), before)
    reader.show_before(False)
    np.testing.assert_array_equal(np.asarray(reader.binding.labels.data), after)
    reader.select(1)
    layer = reader.viewer.layers.selection.active
    layer.add_paths([np.array([[3.0, 14, 21], [3, 14, 31]])])
    reader.wait()
    assert layer.nshapes == 0
    assert any(kind == "warning" and "read-only" in text for kind, text in reader.said)
    paper = reader.binding.paper
    assert not paper.editable  # napari would show the refusal of its brush as a crash
    reader.viewer.layers.selection.active = paper
    paper.mode = "paint"
    scene.draw(reader, [(50, 10), (50, 14)])
    np.testing.assert_array_equal(np.asarray(reader.session.labels), after)


# --- the project is made with the first stroke -----------------------------------------------------------------------


def test_opening_and_looking_leaves_no_file(desks, tmp_path):
    """Only the first stroke makes the project, with everything that was done before it."""
    desk = desks(path=tmp_path / "movie.ivos")
    desk.add_object("cell")
    desk.go_to(5)
    assert not list(tmp_path.iterdir())
    assert "first stroke" in desk.where
    scene.drawn_at(desk, 2)
    assert desk.session.path == tmp_path / "movie.ivos"
    assert str(tmp_path / "movie.ivos") in desk.where
    desk.close()
    with Session.open(tmp_path / "movie.ivos", frames=scene.movie()) as kept:
        assert [o.name for o in kept.objects] == ["object 1", "cell"]
        assert len(kept.strokes()) == 1


@pytest.mark.parametrize("how", ["paint", "import", "script"])
def test_other_work_makes_the_project_too(desks, tmp_path, how):
    """Paint, imported labels, and what a script did with the session are kept like strokes."""
    desk = desks(path=tmp_path / "movie.ivos")
    desk.go_to(3)
    if how == "paint":
        desk.binding.labels.paint((3, 50, 8), 1)
    elif how == "import":
        labels = np.zeros((8, 60, 80), np.int32)
        labels[3][scene.square(3)] = 1
        desk.import_labels(desk.viewer.add_layer(Labels(labels, name="other")))
    else:
        desk.session.annotate(3, scene.square(3).astype(np.uint16))
    desk.wait()
    desk.close()
    with Session.open(tmp_path / "movie.ivos", frames=scene.movie()) as kept:
        assert kept.annotated_frames() == (3,)


def test_a_project_that_can_not_be_made_is_saved_elsewhere(desks, tmp_path):
    """Where the file can't be made that is said aloud, work goes on, and `save` keeps all of it."""
    (tmp_path / "file").touch()
    desk = desks(path=tmp_path / "file" / "movie.ivos")
    scene.drawn_at(desk, 2)
    assert any(kind == "warning" and text.startswith("NOTHING IS SAVED") for kind, text in desk.said)
    assert desk.where.startswith("NOTHING IS SAVED")
    desk.save(tmp_path / "kept.ivos")
    desk.wait()
    scene.drawn_at(desk, 4)
    desk.close()
    with Session.open(tmp_path / "kept.ivos", frames=scene.movie()) as kept:
        assert [s.frame for s in kept.strokes()] == [2, 4]


# --- rounds ----------------------------------------------------------------------------------------------------------


def test_of_two_projects_opened_at_once_the_later_one_stays(desks, tmp_path):
    """The first one is closed, its layers take no more strokes, and another program can have it."""
    paths = []
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / f"{name}.tif", scene.movie(), metadata={"axes": "TYX"})
        paths.append(tmp_path / f"{name}.ivos")
        with Session(tmp_path / f"{name}.tif", FakePredictor(), project=paths[-1]) as session:
            session.add_object(name)
    desk = desks()
    for path in paths:
        desk.open_project(path)
    desk.wait()
    assert desk.session.path == paths[1]
    with Session.open(paths[0], model=FakePredictor()) as session:
        assert session.read_only is None


def test_undoing_the_first_round_keeps_the_objects(desks):
    """Strokes and propagation of round 1 go; the objects that were added stay in the table, with their layers."""
    desk = desks()
    desk.add_object("cell")
    scene.drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    desk.undo("round")
    desk.wait()
    assert [o.name for o in desk.session.objects] == ["object 1", "cell"]
    assert not np.asarray(desk.session.labels).any()
    assert scene.shown(desk)["cell (strokes)"] == 0
    scene.drawn_at(desk, 3)
    assert desk.session.strokes()[0].round == 1


def test_the_timeline_keeps_what_comes_while_it_is_read(desks, monkeypatch):
    """Frames that are propagated while all qualities are being read again are in the timeline afterwards."""
    desk = desks()
    scene.drawn_at(desk, 2)
    gate, read = threading.Event(), Review.of
    monkeypatch.setattr(Review, "of", lambda session: (read(session), gate.wait(30))[0])
    desk.rename_object(1, "cell")
    desk.undo()
    desk.propagate()
    while desk.engine.busy:
        desk._bell.wait(0.01)
        desk.handle()
    gate.set()
    desk.wait()
    row = desk.review.quality[1]
    assert (np.delete(row, 2) > 0).all()
    assert np.flatnonzero(desk.review.changed[1]).tolist() == [0, 1, 3, 4, 5, 6, 7]


def test_spans_of_the_last_round_come_back_with_the_project(desks, tmp_path):
    """The timeline shows, object by object, what the last round changed, after opening and after undo, too."""
    first = desks(path=tmp_path / "movie.ivos")
    scene.drawn_at(first, 2)
    first.propagate()
    first.wait()
    first.add_object()
    first.go_to(5)
    scene.draw(first, [(40, 32), (46, 38), (50, 44)])
    first.wait()
    first.propagate("forward")
    first.wait()
    spans = {i: row.tolist() for i, row in first.review.changed.items() if row.any()}
    assert np.flatnonzero(spans[2]).tolist() == [6, 7]
    assert 1 not in spans
    first.close()
    second = desks(path=tmp_path / "movie.ivos")
    assert {i: row.tolist() for i, row in second.review.changed.items() if row.any()} == spans
    second.undo("round")
    second.wait()
    assert np.flatnonzero(second.review.changed[1]).tolist() == [0, 1, 3, 4, 5, 6, 7]


# --- the same work as a program --------------------------------------------------------------------------------------


def test_the_work_is_told_as_a_script_and_as_sentences(desks):
    """The script is valid Python with the strokes, the sentences have the numbers."""
    desk = desks()
    scene.drawn_at(desk, 2)
    desk.propagate()
    desk.wait()
    script = desk.script()
    compile(script, "script", "exec")
    assert "ivos.Stroke(1, [(14.0, 21.0)" in script
    assert "session.propagate(" in script
    assert "1 scribble on 1 of 8 frames in 1 round of" in desk.methods_text()
    mask = np.zeros(desk.session.shape[1:], np.int32)
    mask[2:9, 2:9] = 1
    desk.session.annotate(5, mask)
    assert "1 scribble and 1 painted or imported mask on 2 of 8 frames" in desk.methods_text()


def run_script(text: str, folder, monkeypatch) -> np.ndarray:
    """Run a program in a folder of its own; the labels that it exported."""
    import tifffile

    folder.mkdir()
    monkeypatch.chdir(folder)
    exec(compile(text, "script.py", "exec"), {"__name__": "__main__"})
    return tifffile.imread(folder / "labels.tif")


def test_the_script_gives_the_same_labels_to_the_last_bit(desks, tmp_path, monkeypatch):
    """Strokes, paint, imports, edits, removed strokes, stopped and one-way propagations: all is done again."""
    import tifffile

    tifffile.imwrite(tmp_path / "movie.tif", scene.movie(), metadata={"axes": "TYX"})
    image = Image(scene.movie(), name="movie", metadata={projects.HINTS: {"file": str(tmp_path / "movie.tif")}})
    desk = desks(image, path=tmp_path / "movie.ivos")
    session = desk.session
    scene.drawn_at(desk, 2)
    scene.draw(desk, [(40, 32), (46, 38), (50, 44)])
    desk.wait()
    session.remove_stroke(session.strokes()[0].id)
    desk.undo()
    list(session.propagate(most=3))
    desk.add_object("nucleus")
    labels = np.zeros((8, 60, 80), np.int32)
    labels[6, 38:50, 30:46] = 2
    desk.go_to(6)
    desk.import_labels(desk.viewer.add_layer(Labels(labels, name="other")), "masks")
    desk.wait()
    desk.propagate("backward", 1, 7)
    desk.wait()
    desk.binding.labels.paint((4, 50, 8), 1)
    desk.wait()
    desk.lock_object(1)
    desk.divide(2, 2)
    desk.lock_object(1, False)
    scene.drawn_at(desk, 7)
    session.remove_stroke(session.strokes()[-1].id)
    session.set_lifetime(1, 1)
    desk.undo()
    desk.recolour_object(2, "#123456")
    desk.propagate()
    desk.wait()
    with_gone = desk.script()
    assert "np.load" in with_gone
    assert "most=3" in with_gone
    assert "remove_stroke" in with_gone
    truth = np.asarray(session.labels)
    assert len(np.unique(truth)) > 2
    np.testing.assert_array_equal(run_script(with_gone, tmp_path / "again", monkeypatch), truth)


def test_scripts_of_two_sessions_share_no_masks(desks, tmp_path):
    """Masks that scripts need are never written over those of others, not even in the folder of work without a file."""
    (tmp_path / "work_masks.npz").write_bytes(b"the user's")
    written = []
    for label in (5, 9):
        desk = desks()
        mask = np.zeros((60, 80), np.uint16)
        mask[5 : 5 + label, 5:30] = 1
        desk.session.annotate(2, mask)
        script(desk.session, tmp_path)
        written.append(script(desk.session, tmp_path))
    assert written[0] != written[1]
    assert len(list(tmp_path.glob("work_masks_*.npz"))) == 2
    assert (tmp_path / "work_masks.npz").read_bytes() == b"the user's"


def test_a_script_leaves_out_strokes_that_were_taken_back_before_they_had_masks(desks, tmp_path, monkeypatch):
    """Nothing was made from them, so that the program neither draws nor removes them."""
    desk = desks()
    session = desk.session
    for frame in (2, 3):
        session.keep(Scribbles(frame, [Stroke(1, scene.line(frame))]))
    session.remove_stroke(session.strokes()[1].id)
    session.catch_up()
    text = desk.script(tmp_path).replace('open_frames("stack.tif"', "open_frames(scene.movie()")
    labels = run_script("import plugin_scene as scene\n" + text, tmp_path / "again", monkeypatch)
    np.testing.assert_array_equal(labels, np.asarray(session.labels))


EDITS = {
    "rename": lambda session: session.rename(3, "nucleus"),
    "recolour": lambda session: session.recolour(2, "#123456"),
    "lock": lambda session: session.lock(2),
    "lifetime": lambda session: session.set_lifetime(3, 1, 7),
    "end": lambda session: session.end_object(3, 7),
    "remove": lambda session: session.remove_object(2),
    "divide": lambda session: session.divide(3, 6),
    "adopt": lambda session: session.divide(3, 6, [2, 4]),
    "child": lambda session: session.add_object("child", parent=2),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_script_has_edits_of_objects_whose_strokes_were_undone(desks, tmp_path, monkeypatch, edit):
    """What was done to objects outlives the round that made them, in the program as in the session."""
    desk = desks()
    session = desk.session
    labels = np.zeros((60, 80), np.int32)
    labels[40:50, 30:46] = 2
    session.annotate(4, labels)
    session.interact(Scribbles(3, [Stroke(3, scene.line(3))]))
    edit(session)
    session.undo("round")
    session.interact(Scribbles(5, [Stroke(3, scene.line(5))]))
    list(session.propagate())
    text = desk.script(tmp_path).replace('open_frames("stack.tif"', "open_frames(scene.movie()")
    text += "table = [(o.id, o.name, o.colour, o.lifetime, o.locked) for o in session.objects]\n"
    text += "np.save('table.npy', np.array([str(row) for row in table]))\n"
    found = run_script("import numpy as np\nimport plugin_scene as scene\n" + text, tmp_path / "again", monkeypatch)
    np.testing.assert_array_equal(found, np.asarray(session.labels))
    table = [(o.id, o.name, o.colour, o.lifetime, o.locked) for o in session.objects]
    assert np.load(tmp_path / "again" / "table.npy").tolist() == [str(row) for row in table]


def test_a_script_draws_kept_strokes_when_they_had_masks(desks, tmp_path, monkeypatch):
    """Before that, their object can be renamed and other strokes taken back, in the program as in the session."""
    desk = desks()
    session = desk.session
    session.keep(Scribbles(2, [Stroke(4, scene.line(2))]))
    session.rename(4, "nucleus")
    session.interact(Scribbles(3, [Stroke(2, scene.line(3))]))
    session.remove_stroke(session.strokes(3)[0].id)
    session.keep(Scribbles(2, [Stroke(4, scene.line(2))]))
    session.catch_up()
    text = desk.script(tmp_path).replace('open_frames("stack.tif"', "open_frames(scene.movie()")
    labels = run_script("import plugin_scene as scene\n" + text, tmp_path / "again", monkeypatch)
    assert labels[2].any()
    np.testing.assert_array_equal(labels, np.asarray(session.labels))


def test_models_of_two_scripts_are_two_files(desks, tmp_path):
    """A model beside a script is named by its content: its checksum may begin like that of another one."""
    for k in (1, 2):
        desk = desks()
        model = FakePredictor()
        model.checksum = f"adapted-to-cells-{k}"
        model.portable_weights = lambda k=k: b"weights %d" % k
        desk.session.use_model(model)
        scene.drawn_at(desk, 2)
        text = desk.script(tmp_path)
        name = next(p for p in tmp_path.glob("work_model_*.safetensors") if p.read_bytes() == b"weights %d" % k)
        assert str(name) in text
    assert len(list(tmp_path.glob("work_model_*.safetensors"))) == 2


def test_a_script_says_when_the_model_is_another(desks, tmp_path, monkeypatch):
    """Masks of other weights would differ, so the program ends with both checksums."""
    desk = desks()
    scene.drawn_at(desk, 2)
    text = desk.script(tmp_path).replace(f'"{desk.session.model.checksum}"', '"0123"')
    text = text.replace('open_frames("stack.tif"', "open_frames(np.zeros((8, 60, 80), np.uint8)")
    with pytest.raises(SystemExit, match="0123"):
        run_script("import numpy as np\n" + text, tmp_path / "again", monkeypatch)
