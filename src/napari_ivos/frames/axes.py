"""Which axis of a source is what: letters from names, safe guesses, the layout that turns (frame, box) into an index.

Pure: strings, tuples and numpy. Letters: T time, Z depth, Y rows, X columns, C channels, S samples of a pixel; any
other letter is a further axis, held at one index.
"""

from __future__ import annotations

import math
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import InputError
from napari_ivos.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_ivos.regions import Box

Array = npt.NDArray[Any]
Selection = tuple[int | slice, ...]
"""A basic index with one entry, an integer or a slice of step 1, for every axis of a source."""

SHOWN_AT_MOST = 3
"""A network sees three planes."""
COLOURS = (3, 4)
"""Length of a last axis that is colours (RGB, RGBA) and can't be the width of a picture."""
UNKNOWN = "QI"
"""tifffile's letters for an axis that its file says nothing about."""

_NAMES = {
    "T": ("t", "time", "frame", "frames", "timepoint", "timepoints"),
    "Z": ("z", "depth", "plane", "slice", "slices", "lev", "level"),
    "Y": ("y", "row", "rows", "height", "lat", "latitude"),
    "X": ("x", "column", "columns", "col", "width", "lon", "longitude"),
    "C": ("c", "ch", "channel", "channels", "band", "bands", "wavelength"),
    "S": ("s", "rgb", "rgba", "sample", "samples", "colour", "color"),
}
_LETTERS = {name: letter for letter, names in _NAMES.items() for name in names}


LENGTHS = {"pm": "picometer", "nm": "nanometer", "µm": "micrometer", "mm": "millimeter", "cm": "centimeter"}
LENGTHS |= {"m": "meter", "Å": "angstrom", "in": "inch"}
TIMES = {"ns": "nanosecond", "µs": "microsecond", "ms": "millisecond", "s": "second", "min": "minute", "h": "hour"}
TIMES |= {"d": "day"}
"""Units as OME-TIFF writes them, and their names in OME-Zarr."""
SIZES = {"pm": 1e-6, "nm": 1e-3, "µm": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "Å": 1e-4, "in": 2.54e4}
SIZES |= {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
"""The same in micrometres and in seconds."""
_SYMBOLS = {name: symbol for symbol, name in (LENGTHS | TIMES).items()}
_SYMBOLS |= dict.fromkeys(("um", "micron", "microns", "micrometre"), "µm") | {"angström": "Å", "us": "µs"}
_SYMBOLS |= {"sec": "s", "secs": "s", "msec": "ms", "minutes": "min", "hr": "h", "hours": "h", "days": "d"}


def spacing_of(found: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[float, str]]:
    """Steps along axes, by letter, (length, unit), of those that a file gives: what says nothing is left out.

    Units are symbols of `LENGTHS` and `TIMES`, or "" where the file names none.
    """
    spacing = {}
    for letter, (given, named) in found.items():
        text = str(named or "").replace("\\u00B5", "µ").replace("μ", "µ").strip()  # ImageJ's escape; the Greek letter
        unit = text if text in LENGTHS or text in TIMES else _SYMBOLS.get(text.lower(), "")
        try:
            step = float(given)
        except (TypeError, ValueError, OverflowError):
            continue
        known = unit in (TIMES if letter == "T" else LENGTHS) or (not text and step != 1)
        if math.isfinite(step) and step > 0 and known:
            spacing[letter] = step, unit
    return spacing


def letters_of_names(names: Sequence[object]) -> str | None:
    """One letter for each axis name ("time" -> T); None where no rows and columns are among them.

    Names that say nothing get a free letter, so that they can be held at an index.
    """
    letters = [_LETTERS.get(str(name).lower(), "") for name in names]
    if letters.count("Y") != 1 or letters.count("X") != 1 or any(letters.count(x) > 1 for x in letters if x):
        return None
    free = [x for x in string.ascii_uppercase if x not in letters and x not in _NAMES]
    for i, (letter, name) in enumerate(zip(letters, names, strict=True)):
        if not letter:
            initial = str(name)[:1].upper()
            letters[i] = initial if initial in free else free[0]
            free.remove(letters[i])
    return "".join(letters)


def guess_axes(shape: tuple[int, ...]) -> str | None:
    """Axes of an array that says nothing about them, None where they can't be told.

    The rule: the last axis is colours where it has 3 or 4 entries and the one before it has more than 4 (no picture is
    3 px wide); what is left is "YX" or "TYX". Axes of length 1 in front of the picture are passed over.

    >>> guess_axes((512, 512)), guess_axes((48, 512, 512)), guess_axes((512, 512, 3)), guess_axes((48, 512, 512, 3))
    ('YX', 'TYX', 'YXC', 'TYXC')
    >>> guess_axes((48, 2, 512, 512)) is None
    True
    """
    coloured = len(shape) >= 3 and shape[-1] in COLOURS and shape[-2] > max(COLOURS)
    picture = "YXC" if coloured else "YX"
    front = shape[: len(shape) - len(picture)]
    long = [i for i, length in enumerate(front) if length > 1]
    if len(shape) < len(picture) or len(long) > 1:
        return None
    if len(front) <= 1:
        return "T" * len(front) + picture
    time = long[0] if long else 0
    others = iter(x for x in string.ascii_uppercase if x not in _NAMES)
    return "".join("T" if i == time else next(others) for i in range(len(front))) + picture


def check_axes(axes: str, shape: tuple[int, ...], name: str) -> str:
    """`axes` in capitals, once it fits `shape`; InputError where it doesn't."""
    letters = str(axes).upper()
    problem = ""
    if len(letters) != len(shape):
        problem = f"{len(letters)} letters for {len(shape)} axes"
    elif not letters.isalpha() or len(set(letters)) != len(letters):
        problem = "each axis needs a letter of its own"
    elif "Y" not in letters or "X" not in letters:
        problem = "rows (Y) and columns (X) must be among them"
    if problem:
        raise InputError(
            f"axes={axes!r} doesn't fit {name} of shape {shape}: {problem}. Give one letter for each axis, from T "
            f"(time), Z (depth), C (channels), Y (rows), X (columns), for example {_example(shape)}."
        )
    return letters


def unknown_axes(shape: tuple[int, ...], name: str) -> InputError:
    """Error for a source whose axes can't be told."""
    return InputError(
        f"{name} has {len(shape)} axes of lengths {shape}, and nothing says which is time, depth, channel, row or "
        f"column. Say so with one letter for each axis, for example {_example(shape)}."
    )


def _example(shape: tuple[int, ...]) -> str:
    few = {1: "X", 2: "YX", 3: "TYX", 4: "TCYX" if len(shape) == 4 and shape[1] <= 4 else "TZYX", 5: "TCZYX"}
    letters = few.get(len(shape), "ABDEFGHIJ"[: max(len(shape) - 5, 0)] + "TCZYX")
    if len(shape) == 1:
        return 'open_frames(array.reshape(rows, columns), axes="YX")'
    return f'open_frames(..., axes="{letters}") (on the command line: --axes {letters})'


@dataclass(frozen=True)
class Layout:
    """How (frame, box) of a stack is found in a source.

    Parameters
    ----------
    axes : str
        One letter for each axis of the source.
    shape : tuple of int
        Lengths of the source's axes.
    frame, row, column, channel : int or None
        Positions of the axes among `axes`; None where the source has no such axis, or a single channel.
    channels : tuple of int
        Source channels that are shown to the networks, 1 to 3; (0,) without a channel axis.
    fixed : mapping of int to int
        The index at which each further axis is held.
    """

    axes: str
    shape: tuple[int, ...]
    frame: int | None
    row: int
    column: int
    channel: int | None
    channels: tuple[int, ...]
    fixed: Mapping[int, int] = field(default_factory=dict)

    @property
    def stack_shape(self) -> tuple[int, int, int]:
        """(T, H, W)."""
        frames = 1 if self.frame is None else self.shape[self.frame]
        return frames, self.shape[self.row], self.shape[self.column]

    @property
    def channel_count(self) -> int | None:
        return None if self.channel is None else self.shape[self.channel]

    @property
    def coloured(self) -> bool:
        """Whether the channels are red, green and blue of a picture: samples (S), or a last axis of 3 or 4."""
        if self.channel is None or self.shape[self.channel] not in COLOURS:
            return False
        return self.axes[self.channel] == "S" or self.channel == len(self.axes) - 1

    @property
    def index(self) -> dict[str, int]:
        """Further axes of more than one entry and where they are held, by letter."""
        return {self.axes[i]: at for i, at in self.fixed.items() if self.shape[i] > 1}

    def selection(self, frame: int, box: Box, channels: slice) -> Selection:
        """Index into the source of one region of one frame."""
        rows, columns = box.slices
        picks: dict[int | None, int | slice] = {self.frame: frame, self.channel: channels}
        picks |= {self.row: rows, self.column: columns}
        return tuple(self.fixed[i] if i in self.fixed else picks[i] for i in range(len(self.shape)))

    def arrange(self, values: Array) -> Array:
        """Values that this index gave, with the axes that are left in the order (h, w) or (h, w, c)."""
        left = [i for i in range(len(self.shape)) if i != self.frame and i not in self.fixed]
        order = [self.row, self.column] + ([] if self.channel is None else [self.channel])
        return np.transpose(values, [left.index(i) for i in order])


def lay_out(
    axes: str,
    shape: tuple[int, ...],
    name: str,
    *,
    channels: Sequence[int] | None = None,
    index: Mapping[str, int] | None = None,
    frame_axis: str | None = None,
) -> tuple[Layout, list[str]]:
    """Layout of a source whose axes are known, and notes on what was chosen without being asked.

    The frame axis is `frame_axis`, else T if it has several entries, else Z, else an axis that the file says nothing
    about. Channels are C, or S where there is no C. All other axes are held at `index` (0 where it says nothing).
    """
    frame = _frame_axis(axes, shape, name, frame_axis)
    channel = _channel_axis(axes, shape, frame)  # None for a single channel: that is a plane, not an axis
    special = {frame, channel, axes.index("Y"), axes.index("X")}
    fixed, notes = _held(axes, shape, name, special, index or {}, still=frame is None)
    count = 1 if channel is None else shape[channel]
    chosen, more = _shown(count, name, channels)
    return Layout(axes, shape, frame, axes.index("Y"), axes.index("X"), channel, chosen, fixed), notes + more


def _channel_axis(axes: str, shape: tuple[int, ...], frame: int | None) -> int | None:
    """C or S, whichever has several entries; with both, S: it is RGB then, and C is a further axis."""
    found = [axes.index(x) for x in "SC" if x in axes and axes.index(x) != frame]
    return next((i for i in found if shape[i] > 1), None)


def _frame_axis(axes: str, shape: tuple[int, ...], name: str, asked: str | None) -> int | None:
    if asked is not None:
        letter = asked.upper()
        if len(letter) != 1 or letter not in axes or letter in "YX":
            raise InputError(
                f"frame_axis={asked!r} is not an axis of {name}, whose axes are {axes} of lengths {shape}; "
                "name one of its axes other than Y and X, usually T or Z."
            )
        return axes.index(letter)
    candidates = [axes.index(x) for x in "TZ" + UNKNOWN if x in axes]
    long = [i for i in candidates if shape[i] > 1]
    return next(iter(long or candidates), None)


def _held(
    axes: str, shape: tuple[int, ...], name: str, special: set[int | None], index: Mapping[str, int], still: bool
) -> tuple[dict[int, int], list[str]]:
    """Index of every further axis, and a note for each that was taken at 0 unasked; `still`: there is no frame axis."""
    asked = {key.upper(): value for key, value in index.items()}
    further = [i for i in range(len(axes)) if i not in special]
    allowed = {axes[i] for i in further}
    unknown = sorted(set(asked) - allowed)
    if unknown:
        listed = ", ".join(f"{axes[i]} (0..{shape[i] - 1})" for i in further) or "none"
        raise InputError(
            f"index names {', '.join(unknown)}, but the further axes of {name} (axes {axes}, lengths {shape}) are: "
            f"{listed}. Channels are chosen with channels=, the frame axis with frame_axis=."
        )
    fixed, notes = {}, []
    for i in further:
        letter, at = axes[i], int(asked.get(axes[i], 0))
        if not 0 <= at < shape[i]:
            raise InputError(f"index {letter}={at} is outside {name}: axis {letter} has entries 0 to {shape[i] - 1}.")
        fixed[i] = at
        if letter not in asked and shape[i] > 1:
            way = f', or make it the frames with frame_axis="{letter}"' if still else ""
            notes.append(
                f'axis {letter} has {shape[i]} entries; entry 0 is used. Choose with index={{"{letter}": ...}}{way}.'
            )
    return fixed, notes


def _shown(count: int, name: str, asked: Sequence[int] | None) -> tuple[tuple[int, ...], list[str]]:
    """Channels the networks see, and a note where the first three were taken unasked."""
    if asked is None:
        notes = []
        if count > SHOWN_AT_MOST:
            notes.append(f"{count} channels; the networks see the first three. Choose up to three with channels=.")
        return tuple(range(min(count, SHOWN_AT_MOST))), notes
    chosen = tuple(int(channel) for channel in asked)
    if not 1 <= len(chosen) <= SHOWN_AT_MOST or not all(0 <= channel < count for channel in chosen):
        raise InputError(
            f"channels={chosen} can't be shown: {name} has {counted(count, 'channel')} (0 to {count - 1}); "
            "give one, two or three of them."
        )
    return chosen, []
