"""Sequences as people keep them on disk."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_ivos.benchmark import datasets
from napari_ivos.errors import InputError


def truth(n=4, shape=(24, 32)):
    """Labels of two objects with ids 5 and 9; the second is absent on frame 0 and largest on frame 2."""
    labels = np.zeros((n, *shape), np.uint8)
    for t in range(n):
        labels[t, 2:10, 2 + t : 10 + t] = 5
        if t:
            labels[t, 12:20, 4 : 10 + (6 if t == 2 else 0)] = 9
    return labels


def write_folders(frames, masks, labels, palette=False):
    frames.mkdir(parents=True)
    masks.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for t, mask in enumerate(labels):
        Image.fromarray(rng.integers(0, 255, (*mask.shape, 3), dtype=np.uint8)).save(frames / f"{t:05d}.jpg")
        image = Image.fromarray(mask)
        if palette:
            image.putpalette(list(range(256)) * 3)
        image.save(masks / f"{t:05d}.png")


@pytest.fixture
def layouts(tmp_path):
    """One sequence in each layout that is known."""
    write_folders(tmp_path / "video/dog/frames", tmp_path / "video/dog/masks", truth())
    write_folders(
        tmp_path / "davis/JPEGImages/480p/cat", tmp_path / "davis/Annotations/480p/cat", truth(), palette=True
    )
    (tmp_path / "cells").mkdir()
    frames = np.arange(4 * 24 * 32, dtype=np.uint16).reshape(4, 24, 32)
    for name, stack in (("movie", frames), ("movie_labels", truth())):
        tifffile.imwrite(tmp_path / f"cells/{name}.tif", stack, photometric="minisblack")
    return tmp_path


def test_every_layout_gives_the_same_sequence(layouts):
    """Folders, DAVIS with palette masks, and TIFF stacks give the same labels, renumbered, with their group."""
    found = [datasets.read_sequence(p) for p in datasets.find_sequences(layouts)]
    assert [(s.group, s.name) for s in found] == [("cells", "movie"), ("video", "cat"), ("video", "dog")]
    expected = np.searchsorted([0, 5, 9], truth())
    for sequence in found:
        np.testing.assert_array_equal(sequence.labels, expected)
        assert sequence.ids == (5, 9)
        assert sequence.n_objects == 2
        assert sequence.frames.shape[:3] == (4, 24, 32)
    assert found[0].frames.dtype == np.uint16
    assert found[1].frames.shape == (4, 24, 32, 3)


@pytest.mark.parametrize("below", ["video/dog", "davis/JPEGImages/480p/cat", "cells/movie.tif", "davis", "video"])
def test_a_path_below_finds_one(layouts, below):
    """The folder of one sequence, or its file, is found as itself."""
    assert len(datasets.find_sequences(layouts / below)) == 1


def test_a_frame_without_mask_is_not_annotated(layouts):
    """A frame whose mask file is missing stays in the stack, but counts nowhere and is no first frame."""
    (layouts / "video/dog/masks/00002.png").unlink()
    sequence = datasets.read_sequence(layouts / "video/dog")
    assert len(sequence) == 4
    np.testing.assert_array_equal(sequence.counted("all").all(axis=1), [True, True, False, True])
    assert sequence.first_frame() != 2


def test_files_are_frames_in_the_order_in_which_people_count(tmp_path):
    """Numbers without leading zeros are in their order, and what a Mac leaves beside the files is no frame."""
    labels = truth(12)
    write_folders(tmp_path / "dog/frames", tmp_path / "dog/masks", labels)
    for folder in (tmp_path / "dog/frames", tmp_path / "dog/masks"):
        for file in sorted(folder.iterdir()):
            file.rename(folder / f"t{int(file.stem)}{file.suffix}")
        (folder / "._t0.png").write_bytes(b"no image")
    np.testing.assert_array_equal(datasets.read_sequence(tmp_path / "dog").labels, np.searchsorted([0, 5, 9], labels))


def test_frames_keep_the_depth_that_their_files_have(tmp_path):
    """Colours of 16 bits, which Pillow cuts to 8, come as they are."""
    import imagecodecs

    write_folders(tmp_path / "dog/frames", tmp_path / "dog/masks", truth())
    frames = np.random.default_rng(0).integers(0, 65535, (4, 24, 32, 3), dtype=np.uint16)
    for t, frame in enumerate(frames):
        (tmp_path / f"dog/frames/{t:05d}.jpg").unlink()
        (tmp_path / f"dog/frames/{t:05d}.png").write_bytes(imagecodecs.png_encode(frame))
    np.testing.assert_array_equal(datasets.read_sequence(tmp_path / "dog").frames, frames)


def test_scores_of_labelled_ids_only():
    """Scored by label, an object counts only on frames that have it; else on all."""
    sequence = datasets.Sequence("a", "g", np.zeros((4, 24, 32)), truth() // 4)
    np.testing.assert_array_equal(sequence.counted("labelled"), [[True, False], [True] * 2, [True] * 2, [True] * 2])
    assert sequence.counted("all").all()


def test_first_frame_shows_most():
    """Seed 0 starts where the objects are seen best; other seeds on frames nearly as good."""
    sequence = datasets.Sequence("a", "g", np.zeros((4, 24, 32)), truth() // 4)
    assert sequence.first_frame(0) == 2
    assert {sequence.first_frame(seed) for seed in range(1, 20)} <= {1, 2, 3}


def test_thinned_sequence_renumbers():
    """Each third frame of a stack drops the objects that are on none of them, and keeps their names."""
    labels = np.zeros((7, 8, 8), np.uint16)
    labels[1, :4] = 1
    labels[:, 6:] = 2
    thin = datasets.Sequence("a", "g", np.arange(7 * 64).reshape(7, 8, 8), labels, ids=(40, 70)).thin(3)
    assert len(thin) == 3
    assert thin.n_objects == 1
    assert thin.ids == (70,)
    assert (thin.frames[1] == np.arange(3 * 64, 4 * 64).reshape(8, 8)).all()


def test_bad_data_is_named(layouts):
    """Nothing there, sizes that differ, colour masks, and masks of other names are each said, with what was found."""
    (layouts / "empty").mkdir()
    with pytest.raises(InputError, match="no sequence with ground truth"):
        datasets.find_sequences(layouts / "empty")
    with pytest.raises(InputError, match="does not exist"):
        datasets.find_sequences(layouts / "nowhere")
    mask = layouts / "video/dog/masks/00001.png"
    Image.fromarray(np.zeros((10, 32), np.uint8)).save(mask)
    with pytest.raises(InputError, match=r"\(24, 32\).*\(10, 32\)"):
        datasets.read_sequence(layouts / "video/dog")
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(mask)
    with pytest.raises(InputError, match="mode RGB"):
        datasets.read_sequence(layouts / "video/dog")
    mask.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"00001\.png"):
        datasets.read_sequence(layouts / "video/dog")


def test_empty_truth_is_refused():
    """A ground truth without any object, or of another shape than the frames, is refused."""
    with pytest.raises(InputError, match="no object"):
        datasets.Sequence("a", "g", np.zeros((2, 8, 8)), np.zeros((2, 8, 8), int))
    with pytest.raises(InputError, match="shape"):
        datasets.Sequence("a", "g", np.zeros((2, 8, 8)), np.ones((2, 8, 9), int))
