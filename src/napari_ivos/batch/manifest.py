"""The manifest: which stacks, from what they start, where their results go; checked whole before anything starts.

A manifest may come from a stranger: results never leave the output folder, and what is read is a path on this machine.
"""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from napari_ivos.batch.summary import FILES, strangers
from napari_ivos.errors import InputError
from napari_ivos.session.exporting import NAMES, Target, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

PATHS = ("input", "scribbles", "masks", "project")
READING = ("axes", "channels", "index", "contrast", "frame_axis")
SHARED = ("format", "frame", "background", *READING)
"""What may be said once for all stacks of a JSON manifest."""
COLUMNS = ("name", *PATHS, "output", *SHARED)
"""Names of columns (CSV) and keys (JSON)."""
MAXIMUM_BYTES = 1 << 26
MAXIMUM_STACKS = 100_000
MAXIMUM_FIELD = 1 << 14
_NAME = re.compile(r'[^\\/:*?"<>|\x00-\x1f\x7f]{1,120}')
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
LOCK = ".batch"
"""In the output folder: beside this name lies the lock of the batch that writes there."""
_RENAME = "give the stack another name (column name), or another output"
_TOLD = 10  # errors of one manifest in one message


@dataclass(frozen=True)
class Entry:
    """One stack of a manifest; all paths are absolute.

    Parameters
    ----------
    name : str
        Names its results.
    place : str
        Where it stands in the manifest, for messages: "line 7", "stack 3".
    kept : Path
        Its project, in the output folder.
    output : Path
        Folder, or single file, of its exports, in the output folder.
    input : Path or None
        The frames; None: those that its project was made from.
    scribbles, masks : Path or None
        What it starts from.
    project : Path or None
        A project to start from; it is copied, and stays as it is.
    frame, background : int or None
        As for `read_starts`.
    formats : str or None
        Comma-separated; None: labels, overlay video, contact sheet and table, or what the ending of `output` says.
    reading : mapping
        Options of `open_frames`.
    """

    name: str
    place: str
    kept: Path
    output: Path
    input: Path | None = None
    scribbles: Path | None = None
    masks: Path | None = None
    project: Path | None = None
    frame: int | None = None
    background: int | None = None
    formats: str | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)

    def targets(self, overwrite: bool) -> list[Target]:
        """What is to be written; a name of `output` without ending is a folder.

        Raises
        ------
        InputError
            Something is in the way.
        """
        return plan(
            self.output, self.formats, overwrite, folder=not self.output.suffix or self.output.name == self.name
        )

    @property
    def record(self) -> Path:
        """What is known of the finished stack."""
        return self.kept.with_name(self.name + ".json")


@dataclass(frozen=True)
class Manifest:
    """Stacks, and the folder that all results go to."""

    path: Path
    output: Path
    entries: tuple[Entry, ...]


def read_manifest(path: str | Path, output: str | Path | None = None) -> Manifest:
    """Read and check a manifest.

    Parameters
    ----------
    path : path
        CSV (comma, semicolon or tab; the first line names the columns) or JSON (a list of stacks, or an object with
        "stacks", and "output" and what all stacks share). Columns: see `COLUMNS`; paths are relative to the manifest.
    output : path, optional
        Folder for all results. Without: the manifest's own "output", which must lie beside or below it, else
        "NAME_results" beside it.

    Raises
    ------
    InputError
        It can't be read, or something in it can't be used; each line with its trouble.
    """
    place = Path(path)
    text = _text(place)
    if place.suffix.lower() == ".json":
        rows, top = _json_rows(text, place)
    else:
        rows, top = _csv_rows(text, place), {}
    folder = _output_folder(place, output, top.get("output"))
    entries, problems = [], []
    for where, row in rows:
        try:
            if isinstance(row, InputError):
                raise row
            entries.append(_entry(where, row, place, folder))
        except InputError as error:
            problems.append(f"{where}: {error}")
    problems += _clashes(entries, folder) + _overwritten(entries, place, folder)
    if not entries and not problems:
        problems.append("it names no stack")
    if problems:
        more = f"\n  and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
        raise InputError(f"{place} can't be used:\n  " + "\n  ".join(problems[:_TOLD]) + more)
    return Manifest(place, folder, tuple(entries))


# -- reading


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAXIMUM_BYTES:
            raise InputError(f"{path} has {size:,} bytes; manifests have at most {MAXIMUM_BYTES:,}.")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"The manifest {path} can't be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The manifest {path} is not text in UTF-8 ({error}). Save it as CSV UTF-8.") from error


Rows = list[tuple[str, dict[str, Any] | InputError]]
"""Where each line stands, and what it says or why that can't be read."""


def _csv_rows(text: str, path: Path) -> Rows:
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        _check_head(names, path)
        rows: Rows = []
        for cells in _limited(reader, path):
            values = [cell.strip() for cell in cells]
            if not any(values) or values[0].startswith("#"):
                continue
            rows.append((f"line {reader.line_num}", _row(_csv_row, names, values)))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error}).") from error
    return rows


def _check_head(names: Sequence[str], path: Path) -> None:
    try:
        _check_names(names)
    except InputError as error:
        raise InputError(f"{path}, line 1, which names the columns: {error}.") from error


def _csv_row(names: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
    if len(values) > len(names):
        raise InputError(f"{len(values)} values for {len(names)} columns; quote a value that holds a comma")
    return {n: _from_cell(n, v) for n, v in zip(names, values, strict=False) if v}


def _row(make: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any] | InputError:
    """What a line says, or why that can't be read: it is told together with the trouble of all other lines."""
    try:
        return make(*given)
    except InputError as error:
        return error


def _limited(rows: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    for count, row in enumerate(rows):
        if count >= MAXIMUM_STACKS:
            raise InputError(f"{path} names more than {MAXIMUM_STACKS:,} stacks; cut it in several.")
        yield row


def _check_names(names: Sequence[str]) -> None:
    unknown = [str(name)[:40] for name in names if name not in COLUMNS]
    if unknown:
        raise InputError(f"unknown {', '.join(map(repr, unknown[:5]))}; there are {', '.join(COLUMNS)}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{', '.join(twice)} is there twice")


def _from_cell(name: str, text: str) -> Any:
    """A CSV cell as JSON would have it."""
    try:
        if name in ("frame", "background"):
            return int(text)
        if name == "channels":
            return [int(part) for part in re.split(r"[,; ]+", text)]
        if name == "contrast":
            return [float(part) for part in re.split(r"[,; ]+", text)]
        if name == "index":
            pairs = [part.partition("=") for part in re.split(r"[,; ]+", text)]
            return {axis.strip(): int(number) for axis, _, number in pairs}
    except ValueError as error:
        raise InputError(f"{name} {text[:40]!r} is not a number, or several") from error
    return text


def _json_rows(text: str, path: Path) -> tuple[Rows, dict[str, Any]]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}).") from error
    top: dict[str, Any] = data if isinstance(data, dict) else {"stacks": data}
    stacks = top.get("stacks")
    if not isinstance(stacks, list):
        raise InputError(f'{path}: a list of stacks, or an object with "stacks", is expected.')
    if len(stacks) > MAXIMUM_STACKS:
        raise InputError(
            f"{path} names {len(stacks):,} stacks; at most {MAXIMUM_STACKS:,} are taken: cut it in several."
        )
    shared = {key: value for key, value in top.items() if key not in ("stacks", "output")}
    for key in shared:
        if key not in SHARED:
            raise InputError(f"{path}: {key!r} can't be said for all stacks; there are {', '.join(SHARED)}, output.")
    return [(f"stack {number}", _row(_json_row, shared, row)) for number, row in enumerate(stacks, 1)], top


def _json_row(shared: Mapping[str, Any], row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise InputError(f"an object is expected, found {str(row)[:40]!r}")
    _check_names(list(row))
    return {**shared, **{k: v for k, v in row.items() if v is not None}}


# -- checking


def _output_folder(manifest: Path, given: str | Path | None, own: Any) -> Path:
    if given is not None:
        return Path(given).absolute()
    base = manifest.absolute().parent
    if own is None:
        return base / f"{manifest.stem}_results"
    return _inside(base, _checked_text("output", own), "the manifest's folder")


def _entry(where: str, row: Mapping[str, Any], manifest: Path, folder: Path) -> Entry:
    base = manifest.absolute().parent
    paths = {name: _source(base, name, row[name]) for name in PATHS if name in row}
    if "input" not in paths and "project" not in paths:
        raise InputError("neither input nor project is named")
    if not {"scribbles", "masks", "project"} & paths.keys():
        raise InputError("nothing says what to segment: name scribbles, masks or a project")
    origin = paths.get("input", paths.get("project"))
    name = _checked_text("name", row.get("name", "" if origin is None else _stem(origin)))
    if not _NAME.fullmatch(name) or name.strip(" .") != name or _DEVICES.fullmatch(name):
        raise InputError(f"{name[:60]!r} can't be the name of a file; give a plain name")
    formats = _formats(row.get("format"))
    given = row.get("output")
    target = folder / name if given is None else _inside(folder, _checked_text("output", given), "the output folder")
    for result in (folder / f"{name}.ivos", folder / f"{name}.json", target):
        _inside(folder, str(result.relative_to(folder)), "the output folder")
    frame, background = (_whole(key, row[key]) if key in row else None for key in ("frame", "background"))
    reading = {key: _reading(key, row[key]) for key in READING if key in row}
    kept = folder / f"{name}.ivos"
    frames, scribbles, masks, project = (paths.get(name) for name in PATHS)
    return Entry(name, where, kept, target, frames, scribbles, masks, project, frame, background, formats, reading)


def _stem(path: Path) -> str:
    return re.sub(r"(?i)\.(ome\.tiff?|ome\.zarr|[a-z0-9]{1,5})$", "", path.name)


def _checked_text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > MAXIMUM_FIELD or "\0" in value:
        raise InputError(f"{name} is {str(value)[:40]!r}; text is expected")
    if not value.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InputError(f"{name} is {value[:40]!r}, with half of a character: it can't be the name of a file")
    return value


def _source(base: Path, name: str, value: Any) -> Path:
    """A path that is read: on this machine, relative to the manifest or absolute."""
    text = _checked_text(name, value)
    if "://" in text or text.startswith(("\\\\", "//")):
        raise InputError(f"{name} {text!r} is on another machine; give a path on this one (mount or map the share)")
    return base / text


def _inside(folder: Path, text: str, what: str) -> Path:
    """A path that is written: below `folder`, whatever links there are."""
    windows, posix = PureWindowsPath(text), PurePosixPath(text)
    absolute = windows.drive or windows.root or posix.is_absolute()
    target = folder / text
    if absolute or ".." in windows.parts or not target.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{text!r} leads out of {what} ({folder}): results are written below it only")
    if target.resolve() == folder.resolve() and what == "the output folder":
        raise InputError(f"{text!r} is the output folder itself; name a file or folder in it")
    return target


def _formats(value: Any) -> str | None:
    if value is None:
        return None
    names = value if isinstance(value, list) else re.split(r"[,; ]+", _checked_text("format", value))
    unknown = [str(name)[:40] for name in names if name not in NAMES]
    if unknown or not names:
        raise InputError(f"unknown format {', '.join(unknown) or 'none'}; there are {', '.join(NAMES)}")
    return ",".join(names)


def _whole(name: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise InputError(f"{name} is {str(value)[:40]!r}; a whole number from 0 is expected")
    return value


def _reading(name: str, value: Any) -> Any:
    """An option of `open_frames`; whether it fits the stack is seen when that is opened."""
    if name in ("axes", "frame_axis"):
        return _checked_text(name, value)
    if name == "channels":
        return [_whole(name, n) for n in _several(name, value, 3)]
    if name == "index":
        if not isinstance(value, dict) or len(value) > len(COLUMNS):
            raise InputError(f"index is {str(value)[:40]!r}; an entry for each axis is expected, such as Z=12")
        return {_checked_text(name, axis): _whole(name, n) for axis, n in value.items()}
    numbers = _several(name, value, 2)
    if len(numbers) != 2 or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise InputError(f"contrast is {str(value)[:40]!r}; two numbers are expected")
    try:
        return tuple(float(n) for n in numbers)
    except OverflowError as error:
        raise InputError(f"contrast is {str(value)[:40]!r}...; numbers of at most 308 digits are expected") from error


def _several(name: str, value: Any, most: int) -> list[Any]:
    if not isinstance(value, list) or not 0 < len(value) <= most:
        raise InputError(f"{name} is {str(value)[:40]!r}; a list of at most {most} numbers is expected")
    return value


def _clashes(entries: Sequence[Entry], folder: Path) -> list[str]:
    """Results that two stacks, or a stack and the batch, would write to.

    Names that differ in case only are one file on many disks.
    """
    taken = {*FILES, f"{LOCK}-lock"}
    seen: dict[str, Entry] = {}
    problems = []
    for entry in entries:
        for path in (entry.kept, entry.record, entry.output):
            if path.relative_to(folder).parts[0].casefold() in taken:
                problems.append(f"{entry.place} would write {path.name}, which the batch itself writes: {_RENAME}")
                break
            before = seen.setdefault(str(path).casefold(), entry)
            if before is not entry:
                problems.append(
                    f"{entry.place} and {before.place} both write {path.name}: give each another name (column name)"
                )
                break
    return problems


def _overwritten(entries: Sequence[Entry], manifest: Path, folder: Path) -> list[str]:
    """Results that would take the place of what the user has: what is read, and the window's project beside a stack."""
    own = {manifest.resolve(): "the manifest"}
    for entry in entries:
        if entry.input is not None:
            own[entry.input.with_name(f"{_stem(entry.input)}.ivos").resolve()] = "where the window keeps its project"
    for entry in entries:
        for name in PATHS:
            path = getattr(entry, name)
            if path is not None:
                own[path.resolve()] = f"the {name} of {entry.place}"
    results = [(folder / name, "the summary") for name in FILES]
    results += [(path, entry.place) for entry in entries for path in (entry.kept, entry.record, entry.output)]
    problems = [
        f"{name} is in the output folder {folder}, and no batch wrote it: move it, or give another output folder"
        for name in strangers(folder)
        if (folder / name).resolve() not in own
    ]
    return problems + [
        f"{who} would be written to {path.name}, which is {own[path.resolve()]}: give another output folder"
        for path, who in results
        if path.resolve() in own
    ]
