"""Frames that the user says are right: kept with the masks that were looked at, passed by when one is suggested."""

from __future__ import annotations

import numpy as np
import pytest

from napari_ivos import FakePredictor, Session
from napari_ivos.errors import InputError, ProjectError


@pytest.fixture
def session(make_clip, tmp_path):
    """A propagated session with a project."""
    clip = make_clip(6)
    with Session(clip.video, FakePredictor(), project=tmp_path / "a.ivos") as made:
        made.clip = clip
        made.interact(clip.scribbles(0, 1))
        list(made.propagate())
        yield made


def test_an_accepted_frame_is_not_suggested_until_it_is_taken_back(session):
    """Each frame that is accepted is passed by; with all accepted there is nothing left to suggest."""
    seen = []
    while (frame := session.suggest_frame()) is not None:
        seen.append(frame)
        session.accept(frame)
    assert sorted(seen) == [1, 2, 3, 4, 5]
    assert session.accepted == {1, 2, 3, 4, 5}
    session.accept(4, accepted=False)
    assert session.suggest_frame() == 4


def test_it_holds_for_the_masks_that_were_looked_at(session):
    """A round that writes other masks ends it, undoing the round brings it back, and so does opening the project."""
    session.accept(4)
    session.interact(session.clip.scribbles(2, 1))
    list(session.propagate())
    assert session.accepted == frozenset()
    session.undo("round")
    assert session.accepted == {4}
    path = session.path
    session.close()
    with Session.open(path) as again:
        assert again.accepted == {4}


def test_a_frame_that_is_not_there_is_refused(session):
    """The stack's frames are named."""
    with pytest.raises(InputError, match="frames 0 to 5"):
        session.accept(6)


def by_row(session, frame: int) -> None:
    """Accept a frame as projects were written before: by the ids of its masks' rows."""
    with session._project.transaction() as writer:
        writer.set_meta("accepted", {str(frame): sorted(row.id for row in session._project.rows(frame).values())})


@pytest.mark.parametrize("earlier", [False, True], ids=["by-step", "by-row"])
def test_other_masks_are_not_accepted_in_the_place_of_deleted_ones(session, earlier):
    """Masks that are written where accepted ones were deleted are not taken for them, also in projects made before."""
    before = {frame: {row.id for row in session._project.rows(frame).values()} for frame in range(6)}
    for frame in range(1, 6):
        by_row(session, frame) if earlier else session.accept(frame)
    session.undo()
    session.rename(1, "nucleus")
    session.compact()
    list(session.propagate())
    after = {frame: {row.id for row in session._project.rows(frame).values()} for frame in range(6)}
    assert before == after  # the ids of rows are given again
    assert session.accepted == frozenset()


def test_frames_that_were_accepted_by_row_stay_accepted(session):
    """What a project written before holds counts, also for masks that undoing brings back, and outlives a clean-up."""
    by_row(session, 4)
    assert session.accepted == {4}
    session.interact(session.clip.scribbles(2, 1))
    list(session.propagate())
    session.accept(1)
    assert session.accepted == {1}
    session.undo("round")
    assert session.accepted == {4}
    session.interact(session.clip.scribbles(3, 1))
    session.compact()
    assert session.accepted == {4}


def test_rows_of_masks_that_may_be_others_do_not_count(session):
    """Where masks were deleted after frames had been accepted by row, no frame counts as accepted."""
    by_row(session, 4)
    session.undo()
    session.rename(1, "nucleus")
    session._project.compact()  # as it was done before
    list(session.propagate())
    assert session.accepted == frozenset()


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        *(("accepted", e) for e in ([1], {"x": [1]}, {"99": [1]}, {"1": 3}, {"1": ["a"]}, {"1": [True]}, {"²": [1]})),
        ("accepted", {"1": [1 << 70]}),
        *(("accepted masks", e) for e in ([1], {"99": [[1, 2]]}, {"1": [3]}, {"1": [[1]]}, {"1": [[1, True]]})),
    ],
    ids=str,
)
def test_what_no_program_of_ours_wrote_is_refused(session, key, entry):
    """An entry of another kind ends in an error that names the project."""
    with session._project.transaction() as writer:
        writer.set_meta(key, entry)
    with pytest.raises(ProjectError, match=r"a\.ivos is damaged"):
        _ = session.accepted


def test_labels_are_not_touched(session):
    """Accepting changes no mask and is no step of the history."""
    before, log = np.asarray(session.labels), session.log
    session.accept(3)
    np.testing.assert_array_equal(np.asarray(session.labels), before)
    assert session.log == log
