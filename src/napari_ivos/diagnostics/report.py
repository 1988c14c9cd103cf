"""A report of an error: what was asked, what went wrong where, on which versions; no image data, no folders, no names.

Files are named, the folders that they lie in are not; of arrays it says that they were there.
"""

from __future__ import annotations

import getpass
import os
import platform
import re
import sys
import tempfile
import time
import traceback
from importlib import metadata
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from napari_ivos.diagnostics.logs import last_lines
from napari_ivos.untrusted import memory

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGES = (
    *("napari-ivos", "numpy", "torch", "torchvision", "safetensors", "dask", "zarr", "numcodecs", "tifffile"),
    *("imagecodecs", "pillow", "opencv-python-headless", "opencv-python", "av", "napari", "qtpy", "PyQt6", "PySide6"),
    *("PyQt5", "magicgui", "distributed"),
)
"""Whose versions matter."""
_MESSAGE = 600
_LOOKED_AT = 4000  # letters of a text that are looked at, whose pixels take time to find
_QUOTED = re.compile(r"(['\"])([^'\"\n]*[\\/][^'\"\n]*)\1")
_PATH = re.compile(r"(?:[A-Za-z]:)?[\\/]*(?:[^\s\\/'\":,;()<>|]+[\\/])+([^\s\\/'\":,;()<>|]*)")
_ARRAY = re.compile(r"\b(array|tensor)\(.*?\)(?=[\s,.;)\]]|$)", re.DOTALL)
_NUMBER = r"(?:np\.\w+\()?(?:[-+]?[\d.]+(?:e[-+]?\d+)?|[-+]?nan|[-+]?inf|True|False)"
_NUMBERS = re.compile(rf"(?<![\[(])[\[(][\s\[(]*+(?:{_NUMBER}[\s,\[\]()]++){{7,}}+(?:{_NUMBER})?")
"""Printed arrays and lists; a shape has fewer numbers."""
_BYTES = re.compile(r"\bb('(?:[^'\\]|\\.){9,}(?:'|$)|\"(?:[^\"\\]|\\.){9,}(?:\"|$))", re.DOTALL)


def versions() -> dict[str, str]:
    """Installed versions of the packages that matter; those that aren't there are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str]:
    """What this runs on, without its name."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "memory": f"{memory() / 2**30:.1f} GB",
    }


def scrub(text: str, known: Sequence[str] = ()) -> str:
    """Text without folders, user names and arrays.

    Parameters
    ----------
    text : str
        Its first 4000 letters count.
    known : sequence of str
        Paths that may be in it; found even where they hold spaces.
    """
    text = text[:_LOOKED_AT]
    places = {str(part) for path in known for part in _around(path)}
    places |= {str(Path.cwd()), str(Path.home()), tempfile.gettempdir(), sys.prefix}
    for place in sorted(places, key=len, reverse=True):
        if len(place) > 1:
            text = text.replace(place + "/", "").replace(place + "\\", "").replace(place, _name(place))
    text = _BYTES.sub("b'...'", _NUMBERS.sub("[...] ", _ARRAY.sub(r"\1(...)", text)))
    text = _QUOTED.sub(lambda found: f"{found[1]}{_name(found[2])}{found[1]}", text)
    text = _PATH.sub(lambda found: found[1], text)
    for name in {Path.home().name, _user()}:
        if len(name) > 2:
            text = re.sub(rf"\b{re.escape(name)}\b", "user", text)
    return text


def _around(path: str) -> list[Path]:
    """The folders of a path, as given and in full."""
    return [*Path(path).parents[:-1], *Path(path).absolute().parents[:-1]]


def _name(path: str) -> str:
    return PureWindowsPath(PurePosixPath(path).name).name


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a process of a user without a name
        return ""


def error_report(error: BaseException, command: Sequence[str] = ()) -> str:
    """The report of an error, as text.

    Parameters
    ----------
    error : BaseException
        What was raised.
    command : sequence of str
        What was asked for: the arguments of the command line.
    """
    asked = " ".join(_name(word) if "/" in word or "\\" in word else word for word in command)
    lines = ["napari-ivos error report", "", f"when: {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC"]
    lines += [f"asked: {scrub(asked, command)}"] if command else []
    lines += ["", *_story(error, command), "", "versions:"]
    lines += [f"  {name} {number}" for name, number in versions().items()]
    lines += ["", "machine:", *(f"  {name}: {value}" for name, value in machine().items())]
    log = last_lines()
    lines += ["", "log:", *(f"  {scrub(line, command)[:_MESSAGE]}" for line in log)] if log else []
    return "\n".join([*lines, ""])


def _story(error: BaseException, known: Sequence[str]) -> list[str]:
    """An error, where it came from, and what led to it; code, never values."""
    lines = []
    cause: BaseException | None = error
    while cause is not None:
        lines.append(f"{type(cause).__name__}: {scrub(str(cause), known)[:_MESSAGE]}")
        frames = traceback.extract_tb(cause.__traceback__)
        lines += [f"  {_module(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames]
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        lines += ["because of:"] if cause is not None else []
    return lines


def _module(file: str) -> str:
    """A source file by its place in its package."""
    parts = PurePosixPath(file.replace("\\", "/")).parts
    for home in ("site-packages", "src"):
        if home in parts:
            return "/".join(parts[len(parts) - parts[::-1].index(home) :])
    return parts[-1] if parts else file


def write_report(error: BaseException, command: Sequence[str] = (), file: Path | None = None) -> Path:
    """Write an error's report.

    Parameters
    ----------
    error, command
        As for `error_report`.
    file : Path, optional
        Where to; None: a new file among the temporary ones.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OSError
        It can't be written there.
    """
    text = error_report(error, command)
    if file is None:
        handle, name = tempfile.mkstemp(prefix="napari-ivos-report-", suffix=".txt")
        os.close(handle)
        file = Path(name)
    file.write_text(text, encoding="utf-8")
    return file
