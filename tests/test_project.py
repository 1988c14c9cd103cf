"""Project files: what is kept, how it is found again, and what is refused."""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from napari_ivos.errors import ProjectError, ReadOnlyProject
from napari_ivos.merging import Origin, Patch
from napari_ivos.project import Project, Stage, StepState, WrittenPatch, blobs, locking, schema, storage
from napari_ivos.project.records import ObjectState
from napari_ivos.regions import Box

SHAPE = (50, 40, 60)
PLACE = Box(2, 3, 12, 15)


def patch(value: int = 200, box: Box = PLACE, origin: Origin = Origin.PROPAGATED) -> Patch:
    return Patch(box, np.full((5, 6), value, np.uint8), origin)


def put(project: Project, frame: int, mask: Patch | None, round_number: int = 1, object_id: int = 1, **options) -> int:
    """Write one patch as a step of its own; the step."""
    with project.transaction() as writer:
        step = writer.begin("propagate", round_number)
        writer.put_patches(step, frame, [WrittenPatch.of(object_id, mask, 0.5, **options)])
    return step


def cells(project: Project, frame: int, **options) -> dict[int, int]:
    """The first cell of each object's newest patch on a frame."""
    found = project.patches(project.rows(frame, **options).values())
    return {i: int(p.probability[0, 0]) for i, p in found.items()}


def undo(project: Project, *steps: int) -> None:
    with project.transaction() as writer:
        writer.set_state(steps, StepState.UNDONE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "movie.ivos"


@pytest.fixture(params=["memory", "file"])
def project(request: pytest.FixtureRequest, path: Path):
    made = Project.create(None if request.param == "memory" else path, SHAPE, {"stack": {"name": "movie"}})
    yield made
    made.close()


# -- what comes back


def test_a_patch_comes_back_to_the_last_bit(project: Project) -> None:
    """A patch that was written is read with the same box, cells and origin."""
    values = np.random.default_rng(0).integers(0, 256, (7, 9), dtype=np.uint8)
    put(project, 3, Patch(Box(1, 2, 30, 40), values, Origin.SCRIBBLED))
    found = project.patches(project.rows(3).values())[1]
    assert found.box == Box(1, 2, 30, 40)
    assert found.origin is Origin.SCRIBBLED
    np.testing.assert_array_equal(found.probability, values)


def test_the_newest_active_patch_counts(project: Project) -> None:
    """Of all patches of an object on a frame the one of the newest active step is read; undo shows the one before."""
    first, second = put(project, 3, patch(100)), put(project, 3, patch(200), 2)
    assert cells(project, 3) == {1: 200}
    assert cells(project, 3, before=2) == {1: 100}
    assert cells(project, 3, last=first) == {1: 100}
    undo(project, second)
    assert cells(project, 3) == {1: 100}
    undo(project, first)
    assert cells(project, 3) == {}


def test_new_work_drops_what_was_undone(project: Project) -> None:
    """A new step after an undo makes the undone ones unreachable, and only those."""
    put(project, 0, patch(10))
    undone = put(project, 0, patch(20))
    undo(project, undone)
    put(project, 1, patch(30))
    states = {s.number: s.state for s in project.steps()}
    assert states == {1: StepState.ACTIVE, 2: StepState.DROPPED, 3: StepState.ACTIVE}
    assert cells(project, 0) == {1: 10}


def test_a_row_without_a_mask_hides_older_ones(project: Project) -> None:
    """Writing "no mask" takes an object off a frame until something newer is written."""
    put(project, 3, patch(100))
    put(project, 3, None)
    assert cells(project, 3) == {}
    put(project, 3, patch(120))
    assert cells(project, 3) == {1: 120}


def test_a_held_half_is_seen_only_by_its_own_pass(project: Project) -> None:
    """Half of a two-sided span shows neither in labels nor to the other pass, but to the pass that goes on from it."""
    put(project, 3, patch(100))
    put(project, 3, patch(200), 2, stage=Stage.HELD, direction=1)
    assert cells(project, 3) == {1: 100}
    assert cells(project, 3, direction=1) == {1: 200}
    assert cells(project, 3, direction=-1) == {1: 100}
    assert project.held(3, 1, 2).keys() == {1}
    assert project.held(3, -1, 2).keys() == set()


def test_objects_follow_the_history(project: Project) -> None:
    """What is known of an object is what the newest active step says of it."""
    with project.transaction() as writer:
        writer.put_objects(writer.begin("add object", 1), [ObjectState(1, "cell", "#ffffff")])
    with project.transaction() as writer:
        renamed = writer.begin("rename", 1)
        writer.put_objects(renamed, [ObjectState(1, "nucleus", "#ffffff")])
    assert project.objects()[1].name == "nucleus"
    undo(project, renamed)
    assert project.objects()[1].name == "cell"


def test_a_withdrawn_annotation_is_the_users_no_longer(project: Project) -> None:
    """The last entry of a round says whether a frame is annotated; other rounds keep theirs."""
    for number, spreads in ((1, 1), (2, 1), (2, -1), (3, 0)):
        with project.transaction() as writer:
            writer.annotate(writer.begin("interact", number), 5, {1: spreads})
    assert [(a.round, a.spreads) for a in project.annotations()] == [(1, True), (3, False)]


def test_what_fails_is_taken_back_whole(project: Project) -> None:
    """A transaction that raises leaves nothing behind."""
    put(project, 3, patch(100))
    with pytest.raises(KeyError), project.transaction() as writer:  # noqa: PT012
        writer.put_patches(writer.begin("propagate", 1), 3, [WrittenPatch.of(1, patch(200), 0.5)])
        raise KeyError
    assert cells(project, 3) == {1: 100}
    assert len(project.steps()) == 1


def test_stored_weights_come_back_or_are_called_damaged(path: Path) -> None:
    """A model's weights come back byte by byte, and changed ones are refused by their checksum."""
    weights = np.random.default_rng(0).bytes(1000)
    with closing(Project.create(path, SHAPE, {})) as project:
        with project.transaction() as writer:
            writer.put_model("mine", "abc", weights)
            writer.put_model("mine again", "abc", b"other")
        assert project.model_weights("abc") == weights
        assert [m.name for m in project.models()] == ["mine"]
        with pytest.raises(ProjectError, match="no model 'xyz'"):
            project.model_weights("xyz")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE model_parts SET data = ?", (b"x" * 1000,))
        connection.commit()
    with closing(Project.open(path)) as project, pytest.raises(ProjectError, match="damaged"):
        project.model_weights("abc")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(0, 2), (3,), (2, 3, 4), ()])
def test_arrays_come_back(dtype: type, shape: tuple[int, ...]) -> None:
    """Float arrays of any shape are packed and unpacked to the last bit."""
    values = np.random.default_rng(0).normal(size=shape).astype(dtype)
    back = blobs.unpack_array(blobs.pack_array(np.asarray(values)), "it")
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(back, values)


# -- the cost of looking


@pytest.mark.parametrize("rows", [1, 300])
def test_reading_a_frame_looks_at_that_frame_only(path: Path, rows: int) -> None:
    """However many frames there are, SQLite finds a frame's patches, a pass and an undo by index, without a scan."""
    with closing(Project.create(path, (rows, 40, 60), {})) as project:
        with project.transaction() as writer:
            step = writer.begin("propagate", 1)
            for frame in range(rows):
                writer.put_patches(step, frame, [WrittenPatch.of(1, patch(), 0.5, direction=1)])
        seen: list[str] = []
        with project._storage.reading() as connection:
            connection.set_trace_callback(seen.append)
        project.rows(0)
        project.held(0, 1, 1)
        project.progress(1, range(5), 1, 1)
        project.filled_before(1, range(5), 2)
        project.left_by(1, range(5), 1, 1)
        project.quality(1, range(5))
        project.worst_frame(())
        with project._storage.reading() as connection:
            connection.set_trace_callback(None)
            for statement in [s for s in seen if "patches" in s]:
                plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement)]
                assert any("patches_by" in line for line in plan), plan
                wide = [line for line in plan if line.startswith("SCAN p") and "patches_by_quality" not in line]
                assert not wide, plan


# -- the file


def test_a_closed_project_is_one_file(path: Path) -> None:
    """What lies beside a project while it is open is gone once it is closed."""
    project = Project.create(path, SHAPE, {})
    put(project, 3, patch())
    assert {p.name for p in path.parent.iterdir()} > {"movie.ivos"}
    project.close()
    project.close()
    assert [p.name for p in path.parent.iterdir()] == ["movie.ivos"]
    with pytest.raises(ProjectError, match="closed"):
        project.rows(3)
    with pytest.raises(ProjectError, match="closed"):
        put(project, 3, patch())


@pytest.mark.parametrize(("network", "mode"), [(False, "wal"), (True, "delete")])
def test_commits_survive_a_power_cut(path: Path, network: bool, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local projects use a write-ahead log, those on a network a rollback journal, both fully synchronised."""
    monkeypatch.setattr(storage, "on_network", lambda _: network)
    with closing(Project.create(path, SHAPE, {})) as project:
        put(project, 3, patch(77))
        with project.transaction() as writer:
            assert writer._connection.execute("PRAGMA journal_mode").fetchone()[0] == mode
            assert writer._connection.execute("PRAGMA synchronous").fetchone()[0] == 3
        assert cells(project, 3) == {1: 77}


def test_connections_trust_nothing(path: Path) -> None:
    """Neither schema nor extensions of a file are trusted, and its values and statements are bounded."""
    with closing(Project.create(path, SHAPE, {})) as project, project._storage.reading() as connection:
        assert connection.execute("PRAGMA trusted_schema").fetchone()[0] == 0
        assert connection.execute("PRAGMA query_only").fetchone()[0] == 1
        assert connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) <= 1 << 26
        assert connection.getlimit(sqlite3.SQLITE_LIMIT_ATTACHED) == 0
        with pytest.raises(sqlite3.OperationalError, match="not authorized"):
            connection.execute("SELECT load_extension('x')")


def test_an_existing_file_is_never_written_over(path: Path) -> None:
    """Making a project where something is already raises and names Session.open."""
    path.write_text("precious")
    with pytest.raises(ProjectError, match=r"Session\.open"):
        Project.create(path, SHAPE, {})
    assert path.read_text() == "precious"


def test_a_name_that_is_held_stays_free(path: Path) -> None:
    """A project that can't be made, because its name is locked, leaves no file in the way."""
    with closing(Project.create(path, SHAPE, {})):
        path.unlink()
        with pytest.raises(ProjectError, match="can't be made"):
            Project.create(path, SHAPE, {})
        assert not path.exists()
    Project.create(path, SHAPE, {}).close()


def test_another_working_folder_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project that was opened by a relative path is read at its place after the process has gone elsewhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    with closing(Project.create(Path("movie.ivos"), SHAPE, {})) as project:
        put(project, 3, patch())
        monkeypatch.chdir(tmp_path / "other")
        with closing(Project.create(Path("movie.ivos"), SHAPE, {})):
            assert cells(project, 3) == {1: 200}
        assert project.path == tmp_path / "movie.ivos"


def test_a_project_saved_from_memory_is_one_plain_file(path: Path) -> None:
    """Closed, a project that began in memory is no longer in the mode that needs files beside it."""
    with closing(Project.create(None, SHAPE, {})) as project:
        project.move_to(path)
    assert path.read_bytes()[18:20] == b"\x01\x01"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(not hasattr(os, "pathconf"), reason="this system doesn't say how long names may be")
@pytest.mark.parametrize("more", [-1, 0, 1, 100])
def test_a_name_too_long_for_the_files_beside_it_is_refused(tmp_path: Path, more: int) -> None:
    """Making, saving, and opening say so and leave nothing; the longest name that leaves room for them does."""
    most = os.pathconf(tmp_path, "PC_NAME_MAX")
    path = tmp_path / ("n" * (most + more - 5) + ".ivos")
    with pytest.raises(ProjectError, match=r"too long for this file system.*Choose a shorter one"):
        Project.create(path, SHAPE, {})
    with closing(Project.create(None, SHAPE, {})) as project:
        with pytest.raises(ProjectError, match="too long"):
            project.move_to(path)
        assert project.path is None
        put(project, 3, patch(50))
    with pytest.raises(ProjectError, match="too long"):
        Project.open(path)
    assert list(tmp_path.iterdir()) == []
    longest = tmp_path / ("n" * (most - 8 - 5) + ".ivos")
    Project.create(longest, SHAPE, {}).close()
    with closing(Project.open(longest)) as project:
        put(project, 3, patch(50))
    assert list(tmp_path.iterdir()) == [longest]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    """A project in a folder that is a file is refused, and no other error comes of it."""
    (tmp_path / "notes.txt").write_text("")
    for do in (lambda path: Project.create(path, SHAPE, {}), Project.open):
        with pytest.raises(ProjectError, match=r"notes.*(folder is there|no project)"):
            do(tmp_path / "notes.txt" / "a.ivos")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Making a project in a missing folder says so, and makes none."""
    with pytest.raises(ProjectError, match="folder"):
        Project.create(tmp_path / "none" / "movie.ivos", SHAPE, {})
    assert list(tmp_path.iterdir()) == []


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.commit()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no project"),
        (lambda p: p.mkdir(), "a folder"),
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: p.write_bytes(b"II*\x00" + bytes(5000)), "not an SQLite file"),
        (foreign, "not one of our projects"),
    ],
    ids=["missing", "folder", "empty", "TIFF", "another program's"],
)
def test_what_is_no_project_is_refused(path: Path, make, message: str) -> None:
    """A file that is not a project is refused with what it is instead, and nothing is left beside it."""
    make(path)
    before = sorted(path.parent.iterdir())
    with pytest.raises(ProjectError, match=message):
        Project.open(path)
    assert sorted(path.parent.iterdir()) == before


def change(path: Path, *statements: str) -> None:
    """Change a closed project behind its back."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER evil AFTER INSERT ON steps BEGIN DELETE FROM patches; END",
        "CREATE VIEW evil AS SELECT 1",
        "CREATE TABLE evil (x)",
        "CREATE INDEX evil ON steps (kind)",
        "DROP TABLE learned",
        "ALTER TABLE steps ADD COLUMN evil",
    ],
)
def test_a_schema_that_is_not_ours_is_refused(path: Path, statement: str) -> None:
    """Triggers, views, and tables that we did not make keep a project from being opened."""
    Project.create(path, SHAPE, {}).close()
    change(path, statement)
    with pytest.raises(ProjectError, match="does not have the tables"):
        Project.open(path)


def test_a_newer_version_is_refused(path: Path) -> None:
    """A project of a newer program says that this one has to be updated."""
    Project.create(path, SHAPE, {}).close()
    change(path, f"PRAGMA user_version = {schema.version() + 1}")
    with pytest.raises(ProjectError, match=f"version {schema.version() + 1}.*Update"):
        Project.open(path)


def test_an_older_version_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening an older project for writing migrates it and loses nothing."""
    with closing(Project.create(path, SHAPE, {})) as project:
        put(project, 3, patch(99))
    newer = (*schema.MIGRATIONS, ("CREATE TABLE notes (step INTEGER PRIMARY KEY, text TEXT)",))
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    with closing(Project.open(path)) as project:
        assert cells(project, 3) == {1: 99}
        with project._storage.reading() as connection:
            assert connection.execute("PRAGMA user_version").fetchone()[0] == len(newer)
            assert connection.execute("SELECT * FROM notes").fetchall() == []


def test_an_older_version_is_not_changed_by_a_reader(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an older project can't be written, the message says that it has to be, once."""
    with closing(Project.create(path, SHAPE, {})):
        monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE notes (x)",)))
        with pytest.raises(ProjectError, match="once where it can be written; now it can only be read"):
            Project.open(path)


def test_a_migration_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration is whole or not at all."""
    Project.create(path, SHAPE, {}).close()
    good = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", (*good, ("CREATE TABLE notes (x)", "CREATE TABLE notes (x)")))
    with pytest.raises(ProjectError, match="already exists"):
        Project.open(path)
    monkeypatch.setattr(schema, "MIGRATIONS", good)
    Project.open(path).close()


# -- hostile content


def bomb(h: int, w: int, content: bytes) -> bytes:
    return struct.pack("<4sII", b"IVP1", h, w) + zlib.compress(content)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bomb(1 << 31, 1 << 31, b""), "declares"),
        (bomb(5, 6, bytes(1 << 24)), "more or less"),
        (bomb(5, 6, bytes(29)), "more or less"),
        (b"IVP1", "cut short"),
        (b"EVIL" + bomb(5, 6, bytes(30))[4:], "starts with"),
        (bomb(5, 6, bytes(30))[:-9] + b"garbage..", "damaged"),
        ("text", "cut short"),
        (None, "cut short"),
    ],
)
def test_a_bomb_is_refused_before_it_unpacks(path: Path, data: object, message: str) -> None:
    """A mask that unpacks to something else than it may be is refused, with its numbers, whatever it claims."""
    with closing(Project.create(path, SHAPE, {})) as project:
        put(project, 3, patch())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE patches SET data = ?", (data,))
        connection.commit()
    with closing(Project.open(path)) as project, pytest.raises(ProjectError, match=message):
        cells(project, 3)


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 41, 5), (5, 5, 5, 5), (0, 0, "x", 5), (0, 0, 2.5, 5)])
def test_a_mask_outside_the_frame_is_refused(path: Path, box: tuple) -> None:
    """A mask whose box is not one of whole pixels inside the frame is called damaged."""
    with closing(Project.create(path, SHAPE, {})) as project:
        put(project, 3, patch())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE patches SET y0 = ?, x0 = ?, y1 = ?, x1 = ?", box)
        connection.commit()
    with closing(Project.open(path)) as project, pytest.raises(ProjectError, match="damaged"):
        project.rows(3)


@pytest.mark.parametrize("shape", ["[1, 2]", "[0, 5, 5]", "[1, 99999999999, 5]", '"x"', "[1.5, 2, 2]", "nonsense"])
def test_an_impossible_stack_is_refused(path: Path, shape: str) -> None:
    """A project that declares frames of an impossible shape isn't opened."""
    Project.create(path, SHAPE, {}).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'shape'", (shape,))
        connection.commit()
    with pytest.raises(ProjectError):
        Project.open(path)


def test_a_large_declared_array_is_refused() -> None:
    """Strokes and references that declare more values than any has are refused before memory is asked for."""
    data = struct.pack("<4sBB2I", b"IVA1", 0, 2, 1 << 30, 1 << 30) + zlib.compress(b"")
    with pytest.raises(ProjectError, match="declares"):
        blobs.unpack_array(data, "it")


def test_a_damaged_page_is_called_so(path: Path) -> None:
    """Garbage inside the file gives a letter that says that it is damaged."""
    with closing(Project.create(path, SHAPE, {})) as project:
        for frame in range(50):
            put(
                project,
                frame,
                Patch(Box(0, 0, 40, 60), np.random.default_rng(frame).integers(0, 256, (40, 60), dtype=np.uint8)),
            )
    content = bytearray(path.read_bytes())
    content[4096 * 4 : -4096] = b"\xa5" * (len(content) - 5 * 4096)
    path.write_bytes(content)
    with pytest.raises(ProjectError, match=r"damaged|tables|can't be read"):  # noqa: PT012
        with closing(Project.open(path)) as project:
            for frame in range(50):
                cells(project, frame)


# -- who may write


def test_the_second_may_only_read(path: Path) -> None:
    """Of two who open a project, the second reads, sees what the first writes, and is told why it can't write."""
    with closing(Project.create(path, SHAPE, {})) as first:
        put(first, 3, patch(50))
        with closing(Project.open(path)) as second:
            assert second.read_only is not None
            assert "another session" in second.read_only
            assert cells(second, 3) == {1: 50}
            before = second.version()
            put(first, 3, patch(60))
            assert second.version() != before
            assert cells(second, 3) == {1: 60}
            with pytest.raises(ReadOnlyProject, match="another session"):
                put(second, 3, patch(70))
        put(first, 4, patch(80))
    with closing(Project.open(path)) as third:
        assert third.read_only is None
        assert cells(third, 4) == {1: 80}


@pytest.mark.parametrize("first_by_link", [True, False], ids=["link-first", "link-second"])
def test_a_link_to_a_project_takes_the_same_lock(path: Path, tmp_path: Path, first_by_link: bool) -> None:
    """Whoever opens a project through a link and whoever opens it itself are never both its writers."""
    Project.create(path, SHAPE, {}).close()
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.ivos"
    try:
        link.symlink_to(path)
    except OSError as error:
        pytest.skip(f"no links can be made here: {error}")
    one, other = (link, path) if first_by_link else (path, link)
    with closing(Project.open(one)) as first, closing(Project.open(other)) as second:
        put(first, 3, patch(50))
        assert second.read_only is not None
        assert "another session" in second.read_only
        assert cells(second, 3) == {1: 50}
    assert sorted(p.name for p in link.parent.iterdir()) == ["link.ivos"]
    with closing(Project.open(other)) as third:
        assert third.read_only is None


def test_a_writer_that_ends_first_loses_nothing(path: Path) -> None:
    """A writer that closes while another reads leaves everything in place for the next one."""
    first = Project.create(path, SHAPE, {})
    put(first, 3, patch(50))
    second = Project.open(path)
    first.close()
    assert cells(second, 3) == {1: 50}
    second.close()
    with closing(Project.open(path)) as third:
        assert cells(third, 3) == {1: 50}


def killed(path: Path, value: int) -> Path:
    """A project as a kill leaves it: what was written last is in the log beside it, and nobody holds it."""
    alive = path.with_name("alive.ivos")
    with closing(Project.create(alive, SHAPE, {})) as project:
        put(project, 3, patch(value))
        for ending in ("", "-wal", "-shm"):
            path.with_name(path.name + ending).write_bytes(alive.with_name(alive.name + ending).read_bytes())
    return path


def test_a_project_that_takes_anothers_place_has_nothing_of_it(path: Path, tmp_path: Path) -> None:
    """A project that a kill has left with its log is replaced whole; the log is not taken for the new one's."""
    new = tmp_path / "new.ivos"
    with closing(Project.create(new, SHAPE, {})) as project:
        put(project, 5, patch(70))
    Project.replace(killed(path, 50), new)
    with closing(Project.open(path)) as project:
        assert (cells(project, 3), cells(project, 5)) == ({}, {1: 70})
    assert not new.exists()


@pytest.mark.parametrize("reading", [False, True], ids=["written", "read"])
def test_a_project_that_is_open_elsewhere_is_not_replaced(path: Path, tmp_path: Path, reading: bool) -> None:
    """Whoever has a project open, for reading only too, keeps it; the new one stays where it is."""
    new = tmp_path / "new.ivos"
    Project.create(new, SHAPE, {}).close()
    first = Project.create(path, SHAPE, {})
    put(first, 3, patch(50))
    with closing(Project.open(path, reading=True)) as second:
        if reading:
            first.close()
        with pytest.raises(ProjectError, match="to be made anew"):
            Project.replace(path, new)
        assert cells(second, 3) == {1: 50}
    first.close()
    assert new.exists()


def test_a_digest_is_of_what_was_done(path: Path) -> None:
    """Steps change it, undoing them gives the one before; reading, other facts and other bytes of the file don't."""
    with closing(Project.create(path, SHAPE, {})) as project:
        assert project.digest() == project.digest(by_hand=True) == ""
        with project.transaction() as writer:
            writer.annotate(writer.begin("annotate", 1), 2, {1: 1})
        drawn, by_hand = project.digest(), project.digest(by_hand=True)
        step = put(project, 3, patch(50))
        assert project.digest() not in ("", drawn)
        assert project.digest(by_hand=True) == by_hand != ""
        undo(project, step)
        with project.transaction() as writer:
            writer.set_meta("place", "elsewhere")
        assert project.digest() == drawn
        project.compact()
    with closing(Project.open(path)) as project:
        assert project.digest() == drawn


def test_a_folder_that_cant_be_written_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project in a read-only place opens for reading, without a file beside it."""
    with closing(Project.create(path, SHAPE, {})) as project:
        put(project, 3, patch(50))
    monkeypatch.setattr(storage.os, "access", lambda *_: False)
    with closing(Project.open(path)) as project:
        assert cells(project, 3) == {1: 50}
        assert [p.name for p in path.parent.iterdir()] == ["movie.ivos"]
        with pytest.raises(ReadOnlyProject, match="can't be written"):
            put(project, 4, patch())


@pytest.mark.parametrize(
    ("place", "kind"),
    [("/data/a.ivos", "ext4"), ("/lab share/b.ivos", "nfs4"), ("/lab share/win/c", "cifs"), ("/l", "ext4")],
)
def test_the_file_system_of_a_path_is_that_of_the_deepest_mount(tmp_path: Path, place: str, kind: str) -> None:
    """Which paths are on a network is read from the system's table of mounts, blanks in names and all."""
    table = tmp_path / "mounts"
    table.write_text("/dev/sda / ext4 rw 0 0\nnas:/x /lab\\040share nfs4 rw 0 0\n//w /lab\\040share/win cifs rw 0 0\n")
    assert locking.file_system(Path(place), table) == kind
    assert locking.file_system(Path(place), tmp_path / "none") == ""
    assert not locking.on_network(tmp_path)


def test_the_history_is_read_from_its_end(path: Path) -> None:
    """Going back through the history gives all of it, the newest first, and reads no more than was asked for."""
    with closing(Project.create(path, SHAPE, {})) as project:
        with project.transaction() as writer:
            for k in range(100):
                writer.begin("rename", 1, detail={"object": k})
        assert [s.number for s in project.steps_back()] == [s.number for s in project.steps()][::-1]
        assert [project.step(s.number) for s in project.steps()] == list(project.steps())
        assert project.step(1000) is None
        with project.transaction() as writer:
            writer._connection.execute("UPDATE steps SET detail = '{' WHERE id = 1")
        back = project.steps_back()
        assert [next(back).number for _ in range(40)] == list(range(100, 60, -1))
        with pytest.raises(ProjectError, match="not JSON"):
            list(back)
