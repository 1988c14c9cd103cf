"""What a batch would do: every stack looked at on this machine, nothing started and nothing written."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from napari_ivos.batch.job import check_places, digest_of, finished, frames_of, goes_on, origin_of, targets_of
from napari_ivos.batch.manifest import Manifest, read_manifest
from napari_ivos.batch.model import ModelSource
from napari_ivos.batch.summary import table
from napari_ivos.errors import IvosError
from napari_ivos.session.starts import read_starts
from napari_ivos.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_ivos.batch.manifest import Entry

WORDS = {"new": "to do", "begun": "goes on", "earlier": "done earlier", "trouble": "can't be done"}


@dataclass(frozen=True)
class StackOutlook:
    """What would come of one stack.

    Parameters
    ----------
    name : str
        As in the manifest.
    state : {"new", "begun", "earlier", "trouble"}
        To be done; begun by an earlier run, and goes on; finished by one; can't be done as it is.
    error : str
        Why it can't be done, else "".
    shape : tuple of int or None
        (T, H, W); None where it was not looked at, or can't be opened.
    annotated : int
        Frames with strokes or masks to start from; 0 where it starts from a project.
    outputs : tuple of str
        What would be written beside its project.
    """

    name: str
    state: Literal["new", "begun", "earlier", "trouble"]
    error: str = ""
    shape: tuple[int, int, int] | None = None
    annotated: int = 0
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outlook:
    """What a batch would do.

    Parameters
    ----------
    stacks : tuple of StackOutlook
        In the order of the manifest.
    output : str
        Folder of all results.
    model : str
        Name and checksum.
    """

    stacks: tuple[StackOutlook, ...]
    output: str
    model: str

    @property
    def sound(self) -> bool:
        """Whether every stack can be done."""
        return all(s.state != "trouble" for s in self.stacks)

    def as_text(self) -> str:
        """A table for people."""
        rows = [("stack", "state", "frames", "size", "annotated", "")]
        for s in self.stacks:
            frames, size = ("", "") if s.shape is None else (str(s.shape[0]), f"{s.shape[1]} x {s.shape[2]}")
            rows.append((s.name, WORDS[s.state], frames, size, str(s.annotated or ""), s.error))
        return "\n".join([*table(rows, left=2), self.line()])

    def line(self) -> str:
        """One line about all of it."""
        counts: Counter[str] = Counter(s.state for s in self.stacks)
        told = ", ".join(f"{counts[state]} {words}" for state, words in WORDS.items() if counts[state])
        frames = sum(s.shape[0] for s in self.stacks if s.shape is not None and s.state in ("new", "begun"))
        return f"{counted(len(self.stacks), 'stack')}: {told}; {frames} frames; results would go to {self.output}."

    def as_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        counts = dict(Counter(s.state for s in self.stacks))
        return {
            "dry_run": True,
            "model": self.model,
            "output": self.output,
            "counts": counts,
            "sound": self.sound,
            "stacks": [asdict(s) for s in self.stacks],
        }


def look_ahead(
    manifest: str | Path | Manifest,
    *,
    output: str | Path | None = None,
    model: Any = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Outlook:
    """Look at every stack of a batch as `run_batch` would find it; nothing is computed, started or written.

    Files are opened, and strokes and masks read, one stack after the other on this machine; workers may see other files
    under the same paths.

    Parameters
    ----------
    manifest, output, model, overwrite
        As for `run_batch`.
    progress : callable
        Called with the numbers of stacks that were looked at, and of all.

    Returns
    -------
    Outlook

    Raises
    ------
    InputError
        The manifest can't be used.
    WeightsError
        The model can't be found.
    """
    job = manifest if isinstance(manifest, Manifest) else read_manifest(manifest, output)
    source = ModelSource.of(model, None)
    found = []
    for entry in job.entries:
        found.append(_outlook(entry, source.checksum, overwrite))
        if progress is not None:
            progress(len(found), len(job.entries))
    return Outlook(tuple(found), str(job.output), source.title)


def _outlook(entry: Entry, checksum: str, overwrite: bool) -> StackOutlook:
    from napari_ivos.frames import open_frames

    shape, annotated = None, 0
    try:
        origin = origin_of(entry)
        if finished(entry, digest_of(entry, checksum, origin)) is not None:
            return StackOutlook(entry.name, "earlier")
        check_places(entry)
        begun = goes_on(entry, origin)
        outputs = tuple(str(target.path) for target in targets_of(entry, overwrite))
        path, options = frames_of(entry, begun)
        with open_frames(path, **options) as stack:
            shape = stack.shape
        starts = read_starts(shape, entry.scribbles, entry.masks, entry.frame, entry.background)
        annotated = len(starts.masks.keys() | {s.frame for s in starts.strokes})
    except IvosError as error:
        return StackOutlook(entry.name, "trouble", str(error), shape)
    return StackOutlook(entry.name, "begun" if begun else "new", "", shape, annotated, outputs)
