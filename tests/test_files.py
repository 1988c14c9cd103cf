"""Files that are there whole, or as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from napari_ivos.errors import InputError
from napari_ivos.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_there_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    """What was written replaces what was there, and no scratch file is left."""
    path = tmp_path / "notes.json"
    path.write_bytes(b"earlier")
    assert write_whole(path, b"later") == path
    assert path.read_bytes() == b"later"
    assert list(tmp_path.iterdir()) == [path]


def test_what_can_not_be_replaced_stays_and_the_letter_says_so(tmp_path: Path) -> None:
    """Where the last step fails, what was there is as it was, and the scratch file is gone."""
    path = tmp_path / "notes.json"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(InputError, match=r"can't be written .* is as it was"):
        write_whole(path, b"later")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("letters", [250, 300])
def test_a_name_that_is_too_long_is_an_error_in_words(letters: int, tmp_path: Path) -> None:
    """A name for which the file system has no room, with or without what a scratch file adds to it."""
    with pytest.raises(InputError, match="can't be written"):
        write_whole(tmp_path / ("n" * letters), b"data")
    assert list(tmp_path.iterdir()) == []
