"""Where an object ends for good: along Z behind a doubted mask, in other grey stacks behind two."""

from __future__ import annotations

import numpy as np
import pytest

from napari_ivos.frames import open_frames
from napari_ivos.predictor import FakePredictor
from napari_ivos.scribbles import Scribbles, Stroke
from napari_ivos.session import Session, stacks
from napari_ivos.steps import DOUBTED

FRAMES, DIM = 12, 6
GROUND, BRIGHT = 60, 200
FILM = "TYXC"
HARDLY = (GROUND + BRIGHT) // 2 + 5
"""Nearly as like the ground as the object: the mask is there, and worth little."""


def stack(axes: str = "TYX", dim: int = 2) -> np.ndarray:
    """A bright square that is dim on some frames: grey, the same grey in three channels, or a film with some red."""
    frames = np.full((FRAMES, 64, 80), GROUND, np.uint8)
    frames[:, 20:44, 30:54] = BRIGHT
    frames[DIM : DIM + dim, 20:44, 30:54] = HARDLY
    if "C" not in axes:
        return frames
    stored = np.repeat(frames[..., None], 3, -1)
    if axes == FILM:
        stored[:, :8, :8] = (BRIGHT, GROUND, GROUND)
    return stored


def stroke(frame: int) -> Scribbles:
    return Scribbles(frame, [Stroke(1, [(32, 36), (32, 48)])])


def found(session: Session) -> list[int]:
    """Frames on which the object has a mask."""
    return [t for t in range(FRAMES) if session.labels[t].any()]


def start(axes: str = "TYX", dim: int = 2) -> Session:
    return Session(open_frames(stack(axes, dim), axes=axes.split()[0]), FakePredictor())


@pytest.mark.parametrize(
    ("axes", "dim", "masks"),
    [
        ("ZYX", 2, DIM + 1),
        ("ZYXC", 1, DIM + 1),
        ("TYX", 2, DIM + 2),
        ("TYX", 1, FRAMES),
        ("TYXC grey", 2, DIM + 2),
        (FILM, 2, FRAMES),
    ],
)
def test_behind_doubted_masks_an_object_has_ended_unless_it_is_a_film(axes: str, dim: int, masks: int) -> None:
    """The doubted masks stay, and are the last: one along Z, two in grey however stored; a film's go on."""
    with start(axes, dim) as session:
        session.interact(stroke(2))
        reported = [result.frame for result in session.propagate()]
        assert session.quality[DIM, 0] < DOUBTED
        assert found(session) == list(range(masks))
        assert sorted(reported) == [t for t in found(session) if t != 2]
        assert list(session.propagate()) == []


def test_backward_it_ends_as_well() -> None:
    """From the last frame the search ends before the dim one."""
    with start() as session:
        session.interact(stroke(FRAMES - 1))
        list(session.propagate())
        assert found(session) == list(range(DIM, FRAMES))


def test_between_two_annotated_frames_an_object_does_not_end() -> None:
    """What is there before and after a dim frame is there in between."""
    with start() as session:
        session.interact(stroke(2))
        session.interact(stroke(10))
        list(session.propagate())
        assert found(session) == list(range(FRAMES))


def test_an_object_that_ended_begins_again_where_it_is_drawn() -> None:
    """A later round's stroke behind the end brings it back, and leaves what is before the first annotated frame."""
    with start() as session:
        session.interact(stroke(2))
        list(session.propagate())
        before = [session.labels[t].copy() for t in range(3)]
        session.interact(stroke(9))
        list(session.propagate())
        assert found(session) == list(range(FRAMES))
        assert all(np.array_equal(session.labels[t], was) for t, was in enumerate(before))


@pytest.mark.parametrize("stop", [DIM, DIM + 1, DIM + 2, DIM + 3])
def test_a_stop_around_the_end_changes_nothing(tmp_path, stop: int) -> None:
    """Propagated in two parts and by two sessions, an object ends where it ended in one."""
    path = tmp_path / "work.ivos"
    with Session(open_frames(stack(), axes="TYX"), FakePredictor(), project=path) as session:
        session.interact(stroke(2))
        list(session.propagate(stop=stop))
    with Session.open(path, frames=open_frames(stack(), axes="TYX"), model=FakePredictor()) as session:
        list(session.propagate())
        assert found(session) == list(range(DIM + 2))


@pytest.mark.parametrize(("axes", "masks"), [("ZYX", DIM + 1), ("TYX", FRAMES)])
def test_what_an_earlier_round_left_behind_the_end_goes_in_sections_only(axes: str, masks: int) -> None:
    """Where a later round says that the object ended, masks of earlier rounds behind it go along Z, and stay else."""
    frames = stack()
    frames[DIM : DIM + 2] = frames[DIM - 1]
    with Session(open_frames(frames, axes=axes), FakePredictor()) as session:
        session.interact(stroke(1))
        list(session.propagate())
        assert found(session) == list(range(FRAMES))
        frames[DIM : DIM + 2] = stack()[DIM]
        session.interact(stroke(4))
        list(session.propagate())
        assert found(session) == list(range(masks))


def frame_axes(session: Session) -> tuple[str, str]:
    """Along what the session's frames lie, and what its project says of it."""
    opened = session.stack.describe()["open"]
    assert opened["axes"][0] == opened["frame_axis"]
    return opened["frame_axis"], session.made_from["options"]["frame_axis"]


def test_what_a_file_does_not_say_its_project_knows(tmp_path) -> None:
    """Sections that the project knows stay so where they are only taken as times; who says it otherwise is heard."""
    import tifffile

    tiff, path = tmp_path / "nuclei.tif", tmp_path / "nuclei.ivos"
    tifffile.imwrite(tiff, stack(), metadata=None)
    with Session(open_frames(tiff, axes="ZYX"), FakePredictor(), project=path) as session:
        assert frame_axes(session) == ("Z", "Z")
    with Session.open(path, frames=open_frames(tiff), model=FakePredictor()) as session:
        assert frame_axes(session) == ("Z", "Z")
        session.interact(stroke(2))
        list(session.propagate())
        assert found(session) == list(range(DIM + 1))
    with Session.open(path, frames=open_frames(tiff, axes="TYX")) as session:
        assert frame_axes(session) == ("T", "T")
    with Session.open(path) as session:
        assert frame_axes(session) == ("T", "T")


def test_chosen_channels_stay_where_the_project_knows_the_axis(tmp_path) -> None:
    """Only the letter of the axis is taken over from the project: channels and values are those of the stack."""
    import tifffile

    tiff, path = tmp_path / "nuclei.tif", tmp_path / "nuclei.ivos"
    values = np.stack([np.zeros_like(stack()), stack()], axis=1)
    tifffile.imwrite(tiff, values, metadata={"axes": "QCYX"})
    Session(open_frames(tiff, axes="ZCYX", channels=(1,)), FakePredictor(), project=path).close()
    with Session.open(path, frames=open_frames(tiff, channels=(1,)), model=FakePredictor()) as session:
        assert frame_axes(session) == ("Z", "Z")
        assert session.stack.channels == (1,)
        np.testing.assert_array_equal(session.stack.raw(3)[..., 1], stack()[3])


@pytest.mark.parametrize("kept", [["Z"], {"Z": 1}, 7, None, "ZZ"], ids=str)
def test_an_axis_that_is_none_changes_nothing(kept) -> None:
    """Whatever a stranger's project says of the axis, the stack stays as it was opened."""
    frames = open_frames(stack(), axes="TYX")
    assert stacks.agree(frames, {"options": {"frame_axis": kept}}) == (frames, None)
