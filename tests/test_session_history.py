"""One history: undo and redo of steps and rounds, to any depth, and the edits of objects in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_ivos.errors import InputError, OutOfMemory, ProjectError
from napari_ivos.frames import open_frames
from napari_ivos.predictor import FakePredictor
from napari_ivos.scribbles import Scribbles, Stroke
from napari_ivos.session import Session

if TYPE_CHECKING:
    import sqlite3


@pytest.fixture(scope="module")
def clip(make_clip):
    return make_clip(8)


@pytest.fixture(params=["memory", "file"])
def session(request, clip, tmp_path):
    path = None if request.param == "memory" else tmp_path / "a.ivos"
    with Session(open_frames(clip.video, axes="TYXC"), FakePredictor(), path) as made:
        yield made


def state(session: Session) -> tuple:
    """Everything a user sees: labels, objects, annotated frames, strokes."""
    return (
        np.asarray(session.labels).tobytes(),
        session.objects,
        session.annotated_frames(),
        tuple(s.id for s in session.strokes()),
        session.suggest_frame(),
    )


def work(session: Session, clip):
    """Steps of every kind, one after the other."""
    yield "interact", lambda: session.interact(clip.scribbles(2, 1, 2))
    yield "propagate", lambda: list(session.propagate())
    yield "rename", lambda: session.rename(1, "left")
    yield "annotate", lambda: session.annotate(6, clip.truth[6])
    yield "propagate", lambda: list(session.propagate("forward"))
    yield "propagate", lambda: list(session.propagate())
    yield "lock", lambda: session.lock(1)
    yield "divide", lambda: session.divide(2, 4)
    yield "remove object", lambda: session.remove_object(4)
    yield "add object", lambda: session.add_object("more")
    yield "interact", lambda: session.interact(Scribbles(0, [Stroke(0, [(60, 5), (60, 100)])]))
    yield "recolour", lambda: session.recolour(2, (1, 0, 0.5))
    yield "unlock", lambda: session.unlock(1)
    yield "end object", lambda: session.end_object(1, 5)
    yield "set lifetime", lambda: session.set_lifetime(1)


def test_undo_and_redo_walk_the_whole_history(session, clip) -> None:
    """Undo gives back, step by step, exactly what was there before each step; redo what was there after it."""
    seen = [state(session)]
    kinds = []
    for kind, do in work(session, clip):
        do()
        kinds.append(kind)
        seen.append(state(session))
    assert [s.kind for s in session.log] == kinds
    for kind, before in zip(kinds[::-1], seen[-2::-1], strict=True):
        assert [s.kind for s in session.undo()] == [kind]
        assert state(session) == before
    assert session.undo() == ()
    for kind, after in zip(kinds, seen[1:], strict=True):
        assert [s.kind for s in session.redo()] == [kind]
        assert state(session) == after
    assert session.redo() == ()


def test_a_round_is_taken_back_and_brought_back_at_once(session, clip) -> None:
    """`undo(to="round")` takes everything of the last round, `redo(to="round")` brings it back."""
    session.interact(clip.scribbles(2, 1))
    list(session.propagate())
    first = state(session)
    session.interact(clip.scribbles(6, 1))
    session.interact(clip.scribbles(5, 2))
    list(session.propagate())
    second = state(session)
    assert [s.kind for s in session.undo(to="round")] == ["propagate", "interact", "interact"]
    assert state(session) == first
    session.redo(to="round")
    assert state(session) == second
    session.undo(to="round")
    session.undo(to="round")
    assert not np.asarray(session.labels).any()
    with pytest.raises(InputError, match="sideways"):
        session.undo(to="sideways")


def test_new_work_forgets_what_was_undone(session, clip) -> None:
    """After new work there is nothing to redo, and the dropped masks never come back."""
    session.interact(clip.scribbles(2, 1))
    list(session.propagate())
    session.undo()
    session.rename(1, "x")
    assert session.redo() == ()
    assert [t for t in range(8) if session.labels[t].any()] == [2]
    assert list(session.propagate())


def test_the_round_goes_on_after_undo(session, clip) -> None:
    """Taking a propagation back opens its round again: it is done again with the same result."""
    session.interact(clip.scribbles(2, 1, 2))
    list(session.propagate())
    before = np.asarray(session.labels)
    session.undo()
    assert session.interact(clip.scribbles(2, 1)).round == 1
    session.undo()
    assert len(list(session.propagate())) == 7
    np.testing.assert_array_equal(np.asarray(session.labels), before)


def test_undo_survives_closing(clip, tmp_path) -> None:
    """What was undone can be redone after the project was opened again."""
    with Session(open_frames(clip.video, axes="TYXC"), FakePredictor(), tmp_path / "a.ivos") as session:
        session.interact(clip.scribbles(2, 1))
        list(session.propagate())
        full = np.asarray(session.labels)
        session.undo()
    with Session.open(tmp_path / "a.ivos") as again:
        assert [t for t in range(8) if again.labels[t].any()] == [2]
        again.redo()
        np.testing.assert_array_equal(np.asarray(again.labels), full)


def test_undo_changes_one_row_whatever_it_takes_back(session, clip) -> None:
    """Undoing a propagation of any number of frames writes one row of the table of steps."""
    session.interact(clip.scribbles(2, 1))
    list(session.propagate())
    with session._project.transaction() as writer:
        connection: sqlite3.Connection = writer._connection
        before = connection.total_changes
    session.undo()
    assert connection.total_changes - before == 1


def test_a_removed_stroke_is_as_if_it_had_not_been_drawn(session, clip) -> None:
    """Removing the only stroke of an object takes its mask; removing another's leaves it."""
    session.interact(clip.scribbles(2, 1, 2))
    before = session.labels[2].copy()
    stroke = session.strokes(object_id=2)[0]
    result = session.remove_stroke(stroke.id)
    assert 2 in result.objects
    assert set(np.unique(session.labels[2])) == {0, 1}
    assert session.annotated_frames(2) == ()
    assert [s.object_id for s in session.strokes()] == [1]
    session.undo()
    np.testing.assert_array_equal(session.labels[2], before)
    assert [s.object_id for s in session.strokes()] == [1, 2]


def test_a_stroke_removed_over_an_older_mask_gives_that_back(session, clip) -> None:
    """Where an earlier round left a mask, removing this round's stroke brings it back."""
    session.interact(clip.scribbles(2, 1))
    list(session.propagate())
    before = session.labels[6].copy()
    session.interact(Scribbles(6, [Stroke(0, [(5, 30), (60, 30)])]))
    session.interact(clip.scribbles(6, 1))
    for stroke in session.strokes(frame=6):
        session.remove_stroke(stroke.id)
    np.testing.assert_array_equal(session.labels[6], before)
    assert session.annotated_frames(1) == (2,)


def test_a_stroke_of_a_closed_round_stays(session, clip) -> None:
    """A stroke whose round was propagated can't be removed, and the message says what to do."""
    session.interact(clip.scribbles(2, 1))
    list(session.propagate())
    with pytest.raises(InputError, match="round 1.*undo"):
        session.remove_stroke(session.strokes()[0].id)
    with pytest.raises(InputError, match="no stroke 99"):
        session.remove_stroke(99)


def test_compacting_frees_what_cant_come_back(clip, tmp_path) -> None:
    """Masks that were undone and dropped are deleted, the file shrinks, and all that counts stays."""
    with Session(open_frames(clip.video, axes="TYXC"), FakePredictor(), tmp_path / "a.ivos") as session:
        noise = np.random.default_rng(0).integers(0, 2, (8, 96, 128))
        for frame in range(8):
            session.annotate(frame, noise[frame])
        for _ in range(7):
            session.undo()
        assert session.compact() == 0
        session.redo()
        session.rename(1, "kept")
        seen = state(session)
        assert session.compact() > 0
        assert state(session) == seen
    with Session.open(tmp_path / "a.ivos") as again:
        assert state(again) == seen
        assert len(again.log) == 9


# -- objects


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("after", [1, 2])
def test_a_stroke_that_is_taken_back_leaves_the_mask_painted_before_it(session, before: int, after: int) -> None:
    """A mask painted in the same round comes back when the strokes after it go, and still spreads."""
    line = Scribbles(4, [Stroke(1, [(40, 60), (40, 70)])])
    mask = np.zeros((96, 128), np.uint16)
    mask[10:30, 10:40] = 1
    for _ in range(before):
        session.interact(line)
    session.annotate(4, mask)
    for _ in range(after):
        session.interact(line)
    for stroke in session.strokes()[before:]:
        session.remove_stroke(stroke.id)
    assert np.array_equal(session.labels[4], mask)
    assert session.annotated_frames(1) == (4,)
    assert session.remaining() > 0


def test_strokes_are_kept_without_a_model(session) -> None:
    """`keep` writes strokes and makes no mask; `catch_up` makes it."""
    session.keep(Scribbles(4, [Stroke(1, [(20, 12), (20, 38)])]))
    assert [s.frame for s in session.strokes()] == [4]
    assert not session.masks(4)
    assert [result.frame for result in session.catch_up()] == [4]
    assert session.masks(4)


def test_the_last_id_leaves_room_for_others(session) -> None:
    """After the object 65535 new ones and daughters get the smallest ids that were never used."""
    assert session.add_object(id=65535).id == 65535
    assert session.add_object(id=1).id == 1
    assert session.add_object().id == 2
    session.remove_object(2)
    assert [o.id for o in session.divide(65535, 2)] == [3, 4]


@pytest.mark.parametrize("name", ["bell\x07", "zero\x00", "half \ud800"])
def test_names_can_be_written_anywhere(session, name) -> None:
    """A name with characters that no XML can hold is refused; the object keeps the one that it has."""
    session.add_object("cell")
    with pytest.raises(InputError, match="control characters"):
        session.rename(1, name)
    with pytest.raises(InputError, match="control characters"):
        session.add_object(name)
    assert [o.name for o in session.objects] == ["cell"]


@pytest.mark.parametrize("object_id", [70000, -1, 0])
def test_a_mask_needs_an_id_that_can_be(session, object_id) -> None:
    """A mask of an object whose id is out of range is an error that gives the range."""
    with pytest.raises(InputError, match="1 to 65535"):
        session.annotate(0, np.ones((96, 128), bool), objects=[object_id])


def test_ids_are_never_used_again(session) -> None:
    """A removed object's id stays taken, for strokes, masks and new objects."""
    assert session.add_object().id == 1
    assert session.add_object("cell", id=7).id == 7
    session.remove_object(7)
    assert session.add_object().id == 8
    for again in (
        lambda: session.add_object(id=7),
        lambda: session.annotate(0, np.full((96, 128), 7)),
        lambda: session.interact(Scribbles(0, [Stroke(7, [(5, 5)])])),
        lambda: session.rename(7, "x"),
    ):
        with pytest.raises(InputError, match="7 was removed"):
            again()
    assert [o.id for o in session.objects] == [1, 8]


def test_a_removed_object_is_gone_from_labels_and_quality(session, clip) -> None:
    """Removing an object takes it off every frame and leaves the other as it was."""
    session.interact(clip.scribbles(2, 1, 2))
    list(session.propagate())
    before = np.asarray(session.labels)
    session.remove_object(1)
    after = np.asarray(session.labels)
    assert not (after == 1).any()
    assert ((before == 2) <= (after == 2)).all()
    assert session.quality.shape == (8, 1)


def test_nothing_changes_a_locked_object(session, clip) -> None:
    """Strokes, paint, rounds and edits are refused or pass by a locked object, pixel for pixel."""
    session.interact(clip.scribbles(2, 1, 2))
    list(session.propagate())
    before = np.asarray(session.labels) == 1
    session.lock(1)
    for refused in (
        lambda: session.interact(clip.scribbles(2, 1)),
        lambda: session.annotate(2, clip.truth[2]),
        lambda: session.remove_object(1),
        lambda: session.end_object(1, 4),
        lambda: session.divide(1, 4),
    ):
        with pytest.raises(InputError, match="locked"):
            refused()
    over = np.where(clip.truth > 0, 2, 0)
    session.annotate(3, over[3])
    session.interact(Scribbles(5, [Stroke(2, clip.scribbles(5, 1).strokes[0].points)]))
    session.interact(Scribbles(6, [Stroke(0, clip.scribbles(6, 1).strokes[0].points)]))
    list(session.propagate())
    np.testing.assert_array_equal(np.asarray(session.labels) == 1, before)
    session.rename(1, "still mine")
    session.unlock(1)
    session.interact(clip.scribbles(2, 1))


def _move_away(session: Session) -> None:
    corner = np.zeros(session.shape[1:], np.int64)
    corner[:4, :4] = 2
    session.annotate(2, corner, objects=[2])


def _cover_and_lock_again(session: Session) -> None:
    session.annotate(2, np.full(session.shape[1:], 4), objects=[4])
    session.lock(1)


def _lock_and_cover(session: Session) -> None:
    session.annotate(2, np.full(session.shape[1:], 4), objects=[4])
    session.lock(4)
    session.annotate(2, np.full(session.shape[1:], 5), objects=[5])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: s.remove_object(2), id="a neighbour is removed"),
        pytest.param(lambda s: s.end_object(2, 2), id="a neighbour ends before"),
        pytest.param(lambda s: s.set_lifetime(3), id="a neighbour lives longer"),
        pytest.param(_move_away, id="a neighbour is painted elsewhere"),
        pytest.param(_cover_and_lock_again, id="it is covered and locked again"),
        pytest.param(_lock_and_cover, id="what covers it is locked and covered itself"),
    ],
)
def test_a_locked_object_keeps_its_pixels_whatever_neighbours_do(session, clip, change) -> None:
    """Pixels that a locked object had to leave to a neighbour don't come to it, and those that it has don't go."""
    where = clip.truth[2] == 1
    counted = np.cumsum(where).reshape(where.shape)
    upper, lower = where & (counted <= where.sum() // 3), where & (counted > 2 * where.sum() // 3)
    session.interact(clip.scribbles(2, 1))
    session.annotate(2, lower, objects=[2])
    session.annotate(2, upper, objects=[3])
    session.end_object(3, 1)
    before = session.labels[2] == 1
    assert upper[before].any()
    assert not lower[before].any()
    session.lock(1)
    change(session)
    np.testing.assert_array_equal(session.labels[2] == 1, before)
    session.unlock(1)
    assert (session.labels[2] == 1).tolist() != before.tolist()


def test_a_division_ends_the_mother_and_begins_the_daughters(session, clip) -> None:
    """The mother is gone from the division on, the daughters begin there, and the parent is kept."""
    session.interact(clip.scribbles(2, 1))
    list(session.propagate())
    one, two = session.divide(1, 5)
    assert (one.id, two.id, one.parent, two.parent) == (2, 3, 1, 1)
    assert one.lifetime == two.lifetime == range(5, 8)
    assert session.objects[0].lifetime == range(5)
    assert [bool(session.labels[t].any()) for t in range(8)] == [True] * 5 + [False] * 3
    session.annotate(5, np.where(clip.truth[5] == 1, 2, np.where(clip.truth[5] == 2, 3, 0)))
    assert [r.frame for r in session.propagate()] == [6, 7]
    assert set(np.unique(session.labels[7])) == {0, 2, 3}
    with pytest.raises(InputError, match="lives from frame 5"):
        session.annotate(4, clip.truth[4] == 1, objects=[2])
    with pytest.raises(InputError, match="lives from frame 0 to frame 4"):
        session.interact(clip.scribbles(6, 1))


def test_objects_that_are_there_may_be_daughters(session, clip) -> None:
    """Existing objects without a parent can be named as daughters, others can't."""
    session.interact(clip.scribbles(2, 1, 2))
    session.add_object(id=3)
    assert [o.id for o in session.divide(1, 4, [2, 9])] == [2, 9]
    for daughters, message in (([2, 5], "has a parent"), ([3], "two or more"), ([3, 3], "two or more")):
        with pytest.raises(InputError, match=message):
            session.divide(3, 6, daughters)


def test_an_ended_object_shows_again_when_its_end_is_taken_back(session, clip) -> None:
    """Ending an object hides its later masks; giving it a longer life shows them again."""
    session.interact(clip.scribbles(2, 1))
    list(session.propagate())
    before = np.asarray(session.labels)
    session.end_object(1, 4)
    assert not np.asarray(session.labels)[4:].any()
    session.set_lifetime(1)
    np.testing.assert_array_equal(np.asarray(session.labels), before)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.add_object(id=0), "1 to 65535"),
        (lambda s: s.add_object(id=70000), "1 to 65535"),
        (lambda s: s.add_object(id=1), "there already"),
        (lambda s: s.add_object(colour="red"), "#rrggbb"),
        (lambda s: s.add_object(start=9), "no frame"),
        (lambda s: s.add_object(parent=5), "no object 5"),
        (lambda s: s.recolour(1, (2, 0, 0)), "#rrggbb"),
        (lambda s: s.rename(5, "x"), "no object 5"),
        (lambda s: s.end_object(1, 0), "no frame"),
        (lambda s: s.divide(1, 4, 1), "two or more"),
        (lambda s: s.annotated_frames(5), "no object 5"),
    ],
)
def test_an_edit_that_cant_be_made_changes_nothing(session, edit, message: str) -> None:
    """Edits of what isn't there, or to what can't be, say so and leave no step."""
    session.add_object()
    with pytest.raises(InputError, match=message):
        edit(session)
    assert len(session.log) == 1


def test_objects_have_colours_of_their_own(session) -> None:
    """Neighbouring ids differ in colour, and a given colour is kept."""
    made = [session.add_object() for _ in range(6)]
    assert len({o.colour for o in made}) == 6
    assert session.add_object(colour=(1, 0.5, 0)).colour == "#ff8000"


# --- what outlives a round, and what a step did -----------------------------------------------------------------------


def test_undoing_a_round_keeps_the_objects_that_were_added(session, clip) -> None:
    """A round is strokes, paint and propagation: objects added or named meanwhile stay, without their masks."""
    session.add_object("cell")
    session.interact(clip.scribbles(2, 1))
    session.add_object("other")
    list(session.propagate())
    session.rename(2, "nucleus")
    full = state(session)
    assert [s.kind for s in session.undo(to="round")] == ["propagate", "interact"]
    assert [o.name for o in session.objects] == ["cell", "nucleus"]
    assert not np.asarray(session.labels).any()
    assert session.undo(to="round") == ()
    session.redo(to="round")
    assert state(session) == full


def test_an_edit_that_outlived_its_round_opens_no_round(session, clip) -> None:
    """After a round was taken back, propagation goes on with the round before it."""
    session.interact(clip.scribbles(2, 1))
    for _ in zip(range(3), session.propagate(), strict=False):
        pass
    session.interact(clip.scribbles(6, 2))
    session.add_object("more")
    assert session.open_round == 2
    session.undo(to="round")
    assert session.open_round == 2
    assert {r.round for r in session.propagate()} == {1}


def test_redoing_a_round_brings_the_edits_before_it_back(session, clip) -> None:
    """Objects that were taken back step by step are there again with the strokes that need them."""
    session.interact(clip.scribbles(2, 1))
    session.add_object("cell", id=2)
    session.interact(clip.scribbles(2, 2))
    full = state(session)
    for _ in range(3):
        session.undo()
    assert [s.kind for s in session.redo(to="round")] == ["interact", "add object", "interact"]
    assert state(session) == full


def test_the_spans_of_the_last_round_are_known_after_opening(clip, tmp_path) -> None:
    """Which frames the last propagation wrote, object by object, is read from the project."""
    with Session(open_frames(clip.video, axes="TYXC"), FakePredictor(), tmp_path / "a.ivos") as session:
        session.interact(clip.scribbles(2, 1, 2))
        assert session.changed_frames(1) == ()
        list(session.propagate())
        assert session.changed_frames(2) == (0, 1, 3, 4, 5, 6, 7)
        session.interact(clip.scribbles(5, 1))
        list(session.propagate())
        spans = [session.changed_frames(1), session.changed_frames(2)]
    assert spans == [(3, 4, 6, 7), ()]
    with Session.open(tmp_path / "a.ivos") as again:
        assert [again.changed_frames(1), again.changed_frames(2)] == spans
        again.undo(to="round")
        assert again.changed_frames(2) == (0, 1, 3, 4, 5, 6, 7)


def test_painted_masks_are_told_to_the_pixel(session, clip) -> None:
    """Replaying what a step painted, with the same starts of propagation, gives the same labels everywhere."""
    session.interact(clip.scribbles(2, 1, 2))
    session.labels[4] = clip.truth[4]
    session.labels[6, :5] = 0
    session.commit_paint()
    session.annotate(7, clip.truth[7], objects=[1])
    list(session.propagate())
    with Session(open_frames(clip.video, axes="TYXC"), FakePredictor()) as other:
        other.interact(clip.scribbles(2, 1, 2))
        for step in (s.number for s in session.log if s.kind == "annotate"):
            painted = session.painted_by(step)
            other.annotate(painted.frame, painted.labels, painted.objects, painted.spreads)
        list(other.propagate())
        np.testing.assert_array_equal(np.asarray(other.labels), np.asarray(session.labels))
    with pytest.raises(InputError, match='"interact"'):
        session.painted_by(session.log[0].number)


@pytest.mark.parametrize("stopped", [1, 3, 6, 9])
def test_a_stopped_propagation_can_be_done_again(session, clip, stopped) -> None:
    """`most` does as much as a call that was stopped, whatever is final by then."""
    annotated = [clip.scribbles(1, 1, 2), clip.scribbles(6, 1)]
    for scribbles in annotated:
        session.interact(scribbles)
    list(session.propagate(most=stopped))
    step = session.log[-1]
    assert step.frames == stopped
    assert "complete" not in step.detail
    with Session(open_frames(clip.video, axes="TYXC"), FakePredictor()) as other:
        for scribbles in annotated:
            other.interact(scribbles)
        done = 0  # frames written: `cancel` stops at the same one
        forget = other._cache.forget

        def count(frame=None):
            nonlocal done
            done += 1
            forget(frame)
            if done == stopped:
                other.cancel()

        other._cache.forget = count
        list(other.propagate())
        np.testing.assert_array_equal(np.asarray(other.labels), np.asarray(session.labels))
    list(session.propagate())
    assert session.log[-1].detail["complete"]


def test_objects_are_known_as_they_were(session) -> None:
    """`objects_after` gives the table of objects after any step of the log."""
    session.add_object("a")
    session.rename(1, "b")
    session.divide(1, 4)
    assert [[o.name for o in session.objects_after(s.number)] for s in session.log] == [
        ["a"],
        ["b"],
        ["b", "b.1", "b.2"],
    ]


def test_strokes_whose_model_failed_are_caught_up_with(session, clip, monkeypatch) -> None:
    """Strokes are kept while a model fails; `catch_up` makes their masks, once."""
    with monkeypatch.context() as patch:
        patch.setattr(session.model, "segment", lambda requests: (_ for _ in ()).throw(MemoryError("full")))
        with pytest.raises(OutOfMemory, match="frame 2"):
            session.interact(clip.scribbles(2, 1))
    assert len(session.strokes()) == 1
    assert [r.frame for r in session.catch_up()] == [2]
    assert session.catch_up() == ()
    with Session(open_frames(clip.video, axes="TYXC"), FakePredictor()) as other:
        other.interact(clip.scribbles(2, 1))
        np.testing.assert_array_equal(session.labels[2], other.labels[2])


def test_a_stroke_that_was_kept_is_taken_back_without_a_model(clip, tmp_path) -> None:
    """`keep` writes them, one can be taken back, and `catch_up` makes the masks that `interact` would make."""
    with Session(open_frames(clip.video, axes="TYXC"), project=tmp_path / "a.ivos") as session:
        session.keep(clip.scribbles(2, 1))
        session.keep(clip.scribbles(3, 2))
        session.remove_stroke(session.strokes()[1].id)
        with pytest.raises(InputError, match="no stroke"):
            session.keep(Scribbles(2, []))
    with Session.open(tmp_path / "a.ivos", open_frames(clip.video, axes="TYXC"), FakePredictor()) as session:
        assert [s.frame for s in session.strokes()] == [2]
        assert not np.asarray(session.labels).any()
        assert [r.frame for r in session.catch_up()] == [2]
        with Session(open_frames(clip.video, axes="TYXC"), FakePredictor()) as other:
            other.interact(clip.scribbles(2, 1))
            np.testing.assert_array_equal(np.asarray(session.labels), np.asarray(other.labels))


# --- from memory into a file -----------------------------------------------------------------------------------------


def test_a_session_in_memory_can_be_saved_and_gone_on_with(clip, tmp_path) -> None:
    """`save` keeps everything that was done, redo too; work goes on in the file, which finds its stack."""
    import tifffile

    tifffile.imwrite(tmp_path / "clip.tif", clip.video, photometric="rgb", metadata={"axes": "TYXS"})
    with Session(open_frames(tmp_path / "clip.tif"), FakePredictor()) as session:
        labels = session.labels
        session.interact(clip.scribbles(2, 1))
        list(session.propagate())
        session.undo()
        session.save(tmp_path / "a.ivos")
        assert session.path == tmp_path / "a.ivos"
        session.redo()
        session.interact(clip.scribbles(5, 2))
        full = np.asarray(session.labels)
        assert session.labels is labels
        with pytest.raises(ProjectError, match="in a file already"):
            session.save(tmp_path / "b.ivos")
        assert not (tmp_path / "b.ivos").exists()
        assert Session.open(tmp_path / "a.ivos").read_only
    with Session.open(tmp_path / "a.ivos") as again:
        assert again.stack is not None
        np.testing.assert_array_equal(np.asarray(again.labels), full)


def test_a_session_that_can_not_be_saved_stays_in_memory(clip, tmp_path) -> None:
    """Where the file exists or its folder is missing nothing is changed, and work goes on."""
    (tmp_path / "a.ivos").write_text("something else")
    with Session(open_frames(clip.video, axes="TYXC"), FakePredictor()) as session:
        session.add_object()
        for path in (tmp_path / "a.ivos", tmp_path / "missing" / "a.ivos"):
            with pytest.raises(ProjectError):
                session.save(path)
        assert session.path is None
        session.interact(clip.scribbles(2, 1))
        session.save(tmp_path / "b.ivos")
    assert (tmp_path / "a.ivos").read_text() == "something else"


def test_readers_notice_nothing_of_a_save(clip, tmp_path) -> None:
    """Threads that read while a session moves into its file always get the masks."""
    import threading

    with Session(open_frames(clip.video, axes="TYXC"), FakePredictor()) as session:
        session.interact(clip.scribbles(2, 1))
        truth, seen, end = np.asarray(session.labels[2]), [], threading.Event()

        def read() -> None:
            while not end.is_set():
                session._cache.forget()
                seen.append(np.array_equal(session.labels[2], truth))

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        session.save(tmp_path / "a.ivos")
        end.set()
        for reader in readers:
            reader.join()
        assert all(seen)
        assert seen


@pytest.mark.parametrize("to", ["step", "round"])
def test_undo_and_redo_read_the_end_of_the_history_only(session, clip, monkeypatch, to) -> None:
    """With many rounds behind it, taking back the last one and bringing it back again leaves the first ones unread."""
    for _ in range(20):
        session.interact(clip.scribbles(6, 1))
        list(session.propagate("forward"))
    read: list[int] = []
    everything = session._project._steps

    def counted(*asked):
        found = everything(*asked)
        read.extend(step.number for step in found)
        return found

    before, steps = state(session), session.log
    monkeypatch.setattr(session._project, "_steps", counted)
    undone = session.undo(to=to)
    assert {s.round for s in undone} == {steps[-1].round}
    assert [s.number for s in session.redo(to=to)] == [s.number for s in undone][::-1]
    assert len(read) == 2 * 32
    assert min(read) == len(steps) - 31 == 9
    assert state(session) == before


def test_objects_are_settled_by_a_whole_propagation_until_they_change(session, clip):
    """Both ways over all frames settle what they carry; strokes, paint or another lifetime unsettle that object."""
    session.interact(clip.scribbles(2, 1, 2))
    list(session.propagate("forward"))
    assert session.settled == frozenset()
    list(session.propagate())
    assert session.settled == {1, 2}
    session.rename(1, "left")
    session.interact(clip.scribbles(5, 1))
    assert session.settled == {2}
    list(session.propagate())
    assert session.settled == {1, 2}
    session.end_object(2, 6)
    assert session.settled == {1}
    session.undo()
    assert session.settled == {1, 2}
    session.set_lifetime(2, 1)
    assert session.settled == {1}
    session.set_lifetime(2)
    assert session.settled == {1, 2}
    session.annotate(6, clip.truth[6] == 2, objects=[2])
    assert session.settled == {1}


def test_a_propagation_that_stops_settles_nothing(session, clip):
    """What is left to be done is not over."""
    session.interact(clip.scribbles(2, 1, 2))
    for _ in session.propagate():
        session.cancel()
    assert session.settled == frozenset()
