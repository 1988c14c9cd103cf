"""FrameStack: frames and regions of frames as the networks see them, from any source."""

from __future__ import annotations

import hashlib
import operator
import threading
import weakref
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import FrameReadError, InputError, OutOfMemory
from napari_ivos.frames import blocks
from napari_ivos.frames import contrast as contrasts
from napari_ivos.frames.ahead import ReadAhead
from napari_ivos.frames.blocks import BlockReader, merged_edges
from napari_ivos.frames.sources import Source, chunk_hint
from napari_ivos.regions import Box
from napari_ivos.untrusted import check_room

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from napari_ivos.frames.axes import Layout
    from napari_ivos.frames.contrast import Range

Array = npt.NDArray[Any]

_FLOATS = 12  # bytes of a pixel as the networks see it
FINGERPRINT_SAMPLES = 8
FINGERPRINT_SIDE = 64


class FrameStack:
    """Frames of one source, one region at a time; made by `open_frames`.

    May be read from several threads. Memory is bounded whatever the number of reads.

    Parameters
    ----------
    source : Source
        Where the values come from.
    layout : Layout
        Which axis of it is what.
    notes : sequence of str
        What was chosen without being asked.
    contrast : tuple of (low, high), optional
        One pair for each shown channel; None: measured at first use.
    owns : bool
        Whether closing the stack closes the source.
    assumed : bool
        Whether nothing said that the frames are times, and they are taken for it.

    Attributes
    ----------
    shape : tuple of int
        (T, H, W) of what the networks see.
    dtype : dtype
        Of the source, in this machine's byte order.
    axes : str
        Of the source, one letter for each axis: "TCYX".
    name : str
    source : Path or None
        File or folder it comes from, None for arrays.
    channels : tuple of int
        Source channels that are shown: one is repeated to grey, two become red and green, three RGB.
    notes : list of str
        What was chosen or found without being asked: axes held at 0, NaN values, constant images.
    hint : str or None
        What to do where the chunks of the source make reading one region of one frame expensive.
    """

    def __init__(
        self,
        source: Source,
        layout: Layout,
        notes: Sequence[str] = (),
        contrast: tuple[Range, ...] | None = None,
        owns: bool = True,
        assumed: bool = False,
    ) -> None:
        self.assumed = assumed
        self._source = source
        self._layout = layout
        self._blocks: BlockReader | None = None
        if source.edges is not None and not source.seeking:
            picture = (layout.row, layout.column)
            edges = tuple(merged_edges(e, blocks.CELL) if i in picture else e for i, e in enumerate(source.edges))
            self._blocks = BlockReader(source.fetch, edges, layout.fixed, source.dtype)
        self._contrast = contrast
        self._contrast_known = contrast is not None
        self._contrast_lock = threading.RLock()
        self._colourless: bool | None = None
        self._ahead = ReadAhead()
        self._closed = threading.Event()
        self._fingerprint: str | None = None
        self._strange_told = False
        self.notes = [*source.notes, *notes]
        # Dropping the last reference closes file and thread; the callback must not hold the stack itself.
        self._finalizer = weakref.finalize(self, _release, self._closed, self._ahead, source if owns else None)

    # -- what it is

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._layout.stack_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._source.dtype.newbyteorder("=")

    @property
    def axes(self) -> str:
        return self._layout.axes

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def source(self) -> Path | None:
        return self._source.path

    @property
    def origin(self) -> Source:
        """What the stack reads from, for a second stack of other axes or channels of the same."""
        return self._source

    @property
    def channels(self) -> tuple[int, ...]:
        return self._layout.channels

    @property
    def hint(self) -> str | None:
        roles = {"frame": self._layout.frame, "row": self._layout.row, "column": self._layout.column}
        return self._source.hint or chunk_hint(self._source, roles)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        frames, height, width = self.shape
        return f"<FrameStack {self.name}: {frames} frames of {height} x {width} px, {self.dtype}, axes {self.axes}>"

    # -- contrast

    @property
    def contrast(self) -> tuple[Range, ...]:
        """(low, high) for each shown channel: the source's values that become 0 and 1.

        Measured at first use from at most 64 chunks spread over time and space, or as set. 8-bit colour pictures are
        shown as they are: (0, 255), if there is colour in them (see `colourless`). Where the sample was constant, the
        first region read that is not sets it.
        """
        with self._contrast_lock:
            if self._contrast is None:
                self._contrast, self._contrast_known = self._measure()
            return self._contrast

    @contrast.setter
    def contrast(self, value: Any) -> None:
        """(low, high) for all shown channels, or one pair for each; None measures again."""
        ranges = None if value is None else contrasts.check_ranges(value, len(self.channels))
        with self._contrast_lock:
            self._contrast, self._contrast_known = ranges, ranges is not None

    @property
    def contrast_known(self) -> bool:
        """Whether the contrast is final: set, or measured on values that were not all the same."""
        with self._contrast_lock:
            return len(self.contrast) > 0 and self._contrast_known

    @property
    def colourless(self) -> bool:
        """Whether what is shown is grey: one channel, or red, green and blue that are the same all over a sample.

        Grey pictures are often stored in colours, as by a microscope's film export.
        """
        with self._contrast_lock:
            if self._colourless is None:
                self._colourless = len(self.channels) == 1 or (self._layout.coloured and self._all_grey())
            return self._colourless

    @property
    def pictured(self) -> bool:
        """Whether what is shown is in a camera's colours: red, green and blue of the same picture, and not grey."""
        return self._layout.coloured and len(self.channels) == 3 and not self.colourless

    def _all_grey(self) -> bool:
        """Whether no sample is in colour, though some show something; reading ends at the first that is."""
        shows = False
        for some in self._samples():
            if contrasts.in_colour(some):
                return False
            shows |= bool(some.size) and bool((some != some.flat[0]).any())
        return shows

    def _measure(self) -> tuple[tuple[Range, ...], bool]:
        plain = self._source.as_is
        if self.dtype.kind == "b":
            plain = (0.0, 1.0)
        elif self._layout.coloured and self.dtype == np.uint8:
            plain = (0.0, 255.0)
        grey = self._layout.coloured and len(self.channels) > 1 and self.colourless
        if plain is not None and not grey:
            return (plain,) * len(self.channels), True
        samples = list(self._samples())
        if not samples:
            self._note("no sampled frame could be read; the contrast is set by the first region that can.")
            return ((0.0, 1.0),) * len(self.channels), False
        ranges, final = self._measured(np.concatenate(samples))
        return ((ranges[0],) * len(ranges) if grey else ranges), final

    def _measured(self, values: Array) -> tuple[tuple[Range, ...], bool]:
        """Ranges of (n, c) values; they are final if any channel is."""
        results = [contrasts.measure(values[:, i]) for i in range(values.shape[1])]
        self._strange_told |= values.dtype.kind == "f" and not bool(np.isfinite(values).all())
        for channel, (_, _, notes) in zip(self.channels, results, strict=True):
            for note in notes:
                self._note(note if len(results) == 1 else f"channel {channel}: {note}")
        return tuple(result[0] for result in results), any(result[1] for result in results)

    def _samples(self) -> Iterator[Array]:
        """Pixels of at most `CHUNKS_AT_MOST` chunks, (n, c) each; unreadable frames are left out with a note."""
        frames, height, width = self.shape
        rows, columns = (
            self._cells(axis, length) for axis, length in zip(self._picture_axes, (height, width), strict=True)
        )
        chunks = contrasts.CHUNKS_AT_MOST // self._reads_per_region()
        chosen = np.unique(np.linspace(0, frames - 1, min(frames, contrasts.FRAMES_AT_MOST)).round().astype(int))
        per_frame = max(1, chunks // len(chosen))
        for order, frame in enumerate(chosen.tolist()):
            cells = contrasts.spread_cells((len(rows), len(columns)), per_frame, start=order * per_frame)
            for row, column in cells:
                box = Box(rows[row][0], columns[column][0], rows[row][1], columns[column][1])
                try:
                    shown = self._shown(frame, box, through_blocks=False)
                except FrameReadError as error:
                    self._note(f"left out of the contrast: {error}")
                    break
                yield contrasts.thin(shown)

    @property
    def _picture_axes(self) -> tuple[int, int]:
        return self._layout.row, self._layout.column

    def _cells(self, axis: int, length: int) -> list[tuple[int, int]]:
        """Begin and end of the middle part of every chunk along an axis; whole pictures where those are read anyway."""
        edges = None if self._source.edges is None else self._source.edges[axis]
        if edges is None:
            edges = np.append(np.arange(0, length, contrasts.CELL), length)
        if len(edges) == 2:
            return [(0, length)]
        cells = []
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            spare = max(0, end - begin - contrasts.CELL) // 2
            cells.append((begin + spare, end - spare))
        return cells

    # -- reading

    def read(self, frame: int, box: Box | None = None) -> npt.NDArray[np.float32]:
        """Region of a frame as the networks see it.

        Parameters
        ----------
        frame : int
            Index of the frame.
        box : Box, optional
            The region, inside the picture; only it is read. None: the whole frame.

        Returns
        -------
        (h, w, 3) float32
            0..1 with the contrast applied, NaN as 0.

        Raises
        ------
        FrameReadError
            The frame can't be read; the message names it and the cause.
        InputError
            No such frame, a box that is empty or reaches out of the picture, or a closed stack.
        """
        frame, box = self._place(frame, box)
        check_room(_FLOATS * box.height * box.width, f"Reading {_words(box)} of {self.name}")
        values = self._read_ahead(frame, box)
        if values is None:
            values = self._shown(frame, box)
        planes = contrasts.apply(values, self._ranges_for(values))
        if values.dtype.kind == "f" and not self._strange_told and not np.isfinite(values).all():
            self._note(f"frame {frame} holds values that are NaN or infinite; NaN is shown as 0.")
            self._strange_told = True
        count = planes.shape[2]
        if count == 1:
            return np.repeat(planes, 3, axis=2)
        if count == 2:
            return np.concatenate([planes, np.zeros_like(planes[..., :1])], axis=2)
        return planes

    def raw(self, frame: int, box: Box | None = None) -> Array:
        """Values of the source itself in a region of a frame.

        Parameters
        ----------
        frame, box
            As for `read`.

        Returns
        -------
        (h, w) or (h, w, C) array of the source's dtype
            All channels of the source, if it has a channel axis.

        Raises
        ------
        FrameReadError, InputError
            As for `read`.
        """
        frame, box = self._place(frame, box)
        count = self._layout.channel_count
        return np.array(self._fetch(frame, box, slice(0, 1 if count is None else count)), dtype=self.dtype)

    def prefetch(self, frame: int, box: Box | None = None) -> None:
        """Start to read a region in the background, so that it is there when `read` asks for it or for a part of it.

        A few regions are kept, the oldest dropped first; one that is too large for that is not read ahead. What goes
        wrong is raised by that `read`.
        """
        frame, box = self._place(frame, box)
        size = box.height * box.width * len(self.channels) * self.dtype.itemsize
        if not self._source.in_memory:
            self._ahead.start(frame, box, size, self._shown)

    def _read_ahead(self, frame: int, box: Box) -> Array | None:
        """Values of a region that was read ahead, None if it was not."""
        found = self._ahead.find(frame, box)
        if found is None:
            return None
        whole, future = found
        try:
            values = future.result()
        except CancelledError:  # dropped to make room between the look and now
            return None
        except Exception:
            self._ahead.forget(frame, whole)  # so that a second read tries again
            raise
        rows, columns = box.shift(-whole.y0, -whole.x0).slices
        return values[rows, columns]

    def _ranges_for(self, values: Array) -> tuple[Range, ...]:
        """Contrast; set by these (h, w, c) values where nothing that told was seen before."""
        with self._contrast_lock:
            ranges = self.contrast
            if not self._contrast_known:
                measured, known = self._measured(contrasts.thin(values))
                if known:
                    self._contrast, self._contrast_known = measured, True
                    return measured
            return ranges

    def _place(self, frame: int, box: Box | None) -> tuple[int, Box]:
        if self._closed.is_set():
            raise InputError(f"{self.name} is closed; open it again with open_frames.")
        frames, height, width = self.shape
        at = operator.index(frame)
        if not 0 <= at < frames:
            raise InputError(f"{self.name} has frames 0 to {frames - 1}; there is no frame {at}.")
        if box is None:
            return at, Box(0, 0, height, width)
        box = Box(*(int(side) for side in box))
        if box.empty or box.clip((height, width)) != box:
            raise InputError(
                f"The region rows {box.y0}..{box.y1}, columns {box.x0}..{box.x1} is empty or reaches out of the frames "
                f"of {self.name}, which have {height} rows and {width} columns."
            )
        return at, box

    def _shown(self, frame: int, box: Box, through_blocks: bool = True) -> Array:
        """(h, w, c) source values of the shown channels."""
        if self._layout.channel is None:
            return self._fetch(frame, box, slice(0, 1), through_blocks)[..., None]
        first, last = min(self.channels), max(self.channels)
        if self._reads_per_region() == 1:
            values = self._fetch(frame, box, slice(first, last + 1), through_blocks)
            # Picked one by one they would lie one behind the other, for all that comes to walk across.
            if list(self.channels) == list(range(first, last + 1)):
                return values
            return values[..., [channel - first for channel in self.channels]]
        parts = [self._fetch(frame, box, slice(c, c + 1), through_blocks) for c in self.channels]
        return np.concatenate(parts, axis=2)

    def _reads_per_region(self) -> int:
        """One, where the shown channels lie together; else one for each: channels between them are not read."""
        wanted = self.channels
        if self._layout.channel is None or max(wanted) - min(wanted) < len(wanted):
            return 1
        edges = None if self._source.edges is None else self._source.edges[self._layout.channel]
        together = self._source.seeking or (edges is not None and len(edges) == 2)
        return 1 if together else len(wanted)

    def _fetch(self, frame: int, box: Box, channels: slice, through_blocks: bool = True) -> Array:
        """(h, w) or (h, w, c) source values; any failure becomes a `FrameReadError`."""
        depth = 1 if self._layout.channel is None else channels.stop - channels.start
        check_room(box.height * box.width * depth * self.dtype.itemsize, f"Reading {_words(box)} of {self.name}")
        read = self._blocks.read if self._blocks is not None and through_blocks else self._source.fetch
        try:
            return self._layout.arrange(read(self._layout.selection(frame, box, channels)))
        except MemoryError as error:
            raise OutOfMemory(
                f"Frame {frame} of {self.name}: no memory for {box.height} x {box.width} px. Close other programs."
            ) from error
        except FrameReadError:
            raise
        except Exception as error:
            cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise FrameReadError(
                f"Frame {frame} of {self.name} can't be read ({cause}). The file may be damaged or cut short there: "
                "copy it again from its origin, or leave that frame out.",
                frame,
            ) from error

    # -- what a project keeps

    def fingerprint(self) -> str:
        """Hash by which the same stack is known again, on another machine too: 32 hexadecimal digits.

        Made from shape, dtype, shown channels and a few small regions; a frame that can't be read counts as such.
        """
        if self._fingerprint is None:
            dtype = f"{self.dtype.kind}{self.dtype.itemsize}"
            digest = hashlib.sha256(repr((1, self.shape, self._layout.channel_count, self.channels, dtype)).encode())
            try:
                signature = self._source.signature()
            except OSError as error:
                raise InputError(
                    f"The files of {self.name} can't be read any more ({error}); open it again."
                ) from error
            for part in [signature] if signature is not None else self._fingerprint_samples():
                digest.update(part)
            self._fingerprint = digest.hexdigest()[:32]
        return self._fingerprint

    def _fingerprint_samples(self) -> list[bytes]:
        frames, height, width = self.shape
        side = min(FINGERPRINT_SIDE, height), min(FINGERPRINT_SIDE, width)
        places = contrasts.spread_cells((1 << 16, 1 << 16), FINGERPRINT_SAMPLES)
        samples = []
        for frame, (row, column) in zip(
            np.linspace(0, frames - 1, len(places)).round().astype(int), places, strict=True
        ):
            y, x = row * (height - side[0] + 1) >> 16, column * (width - side[1] + 1) >> 16
            try:
                values = self._shown(int(frame), Box(y, x, y + side[0], x + side[1]))
            except FrameReadError:
                samples.append(b"unreadable")
            else:
                samples.append(np.ascontiguousarray(values, dtype=self.dtype.newbyteorder("<")).tobytes())
        return samples

    def describe(self) -> dict[str, Any]:
        """Facts about the stack, JSON-able.

        Returns
        -------
        dict
            name, kind, source (path or None), shape, dtype, axes, channels, contrast (None until known), notes, hint,
            `spacing` where the file gives it ([step, unit] by the letter of the axis), more for some kinds; and `open`,
            the options with which `open_frames(source, **options)` gives it again.
        """
        with self._contrast_lock:
            known = self._contrast if self._contrast_known else None
        ranges = None if known is None else [list(pair) for pair in known]
        frame = None if self._layout.frame is None else self.axes[self._layout.frame]
        options: dict[str, Any] = {"axes": self.axes, "channels": list(self.channels), "index": self._index()}
        options |= {"contrast": ranges, "frame_axis": frame}
        return {
            "name": self.name,
            "kind": self._source.kind,
            "source": None if self.source is None else str(self.source),
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "axes": self.axes,
            "source_shape": list(self._source.shape),
            "channels": list(self.channels),
            "contrast": ranges,
            "notes": list(self.notes),
            "hint": self.hint,
            **self._details(),
            "open": options,
        }

    def _details(self) -> dict[str, Any]:
        """What else is known of the source; steps along axes where these are what the file says that they are."""
        details = dict(self._source.details)
        if "spacing" in details:
            before = self._source.axes or ""
            kept = {x: list(step) for x, step in details["spacing"].items() if before.find(x) == self.axes.find(x)}
            details["spacing"] = kept
        return details

    def _index(self) -> dict[str, int]:
        series = self._source.details.get("series")
        return {**self._layout.index, **({} if series is None else {"series": int(series)})}

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    # -- the end

    def close(self) -> None:
        """Stop reading ahead and close the file; reading a closed stack is an InputError."""
        self._closed.set()
        self._ahead.close(wait=True)
        self._finalizer()
        if self._blocks is not None:
            self._blocks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _words(box: Box) -> str:
    return f"{box.height:,} x {box.width:,} px"


def _release(closed: threading.Event, ahead: ReadAhead, source: Source | None) -> None:
    """End a stack that was closed, or dropped: then nothing runs any more, or this is the reading thread itself."""
    closed.set()
    ahead.close(wait=False)
    if source is not None:
        source.close()
