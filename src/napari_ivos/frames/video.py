"""Video files through PyAV, with exact frame numbers.

Frame k is the k-th picture in order of presentation. Where it lies is learnt from the packets, without decoding; to
read it, the file is sought to the last key picture shown before it and decoded up to it. Reading forward never seeks;
reading backward decodes a run of pictures once and keeps it.

Containers whose packets lie about the pictures (no times, hidden pictures) are found out when the file is opened: then
it is decoded once to count, and, where the pictures have no usable times, it is read from its beginning only.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.errors import FrameReadError, InputError
from napari_ivos.frames.blocks import ByteCache, Edges
from napari_ivos.untrusted import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_ivos.frames.axes import Selection
    from napari_ivos.frames.contrast import Range

Array = npt.NDArray[Any]

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpegts,mpeg,mpegvideo,h264,hevc,m4v,mjpeg"
"""Containers that are taken, as ffmpeg calls them: none that names other files."""
_PIXEL = 6  # bytes of a deep colour pixel
CACHE_BYTES = 64 << 20
"""Decoded pictures that are kept."""
STEP_FORWARD = 8
"""Pictures that are rather decoded than jumped over."""
CHECKED_PICTURES = 48
"""Pictures that are decoded when a file is opened, to see whether its packets tell the truth."""
THREADS = 4
"""Decoding threads at most."""
LONG_RUN = 120
"""Pictures between key pictures from which on jumping and reading backward are slow."""
_SIGNED_PACKETS = 16


@dataclass
class PictureIndex:
    """Where the pictures of a video are.

    Parameters
    ----------
    times : list of int
        Presentation time of each picture, ascending, in units of the stream's time base; empty where pictures have
        none.
    count : int
        Number of pictures.
    keys : list of (int, int)
        (presentation, decoding) time of the pictures from which decoding can start, ascending.
    signature : bytes
        Hash of some packets and of all times.
    """

    times: list[int]
    count: int
    keys: list[tuple[int, int]]
    signature: bytes
    _numbers: dict[int, int] = field(default_factory=dict)

    def number(self, time: int | None) -> int | None:
        """Which picture is shown at a time, None where the index has none."""
        if not self._numbers:
            self._numbers = {at: i for i, at in enumerate(self.times)}
        return None if time is None else self._numbers.get(time)

    def key_before(self, number: int) -> int:
        """Position in `keys` of the last one shown at or before a picture (0 where there is none before)."""
        return max(bisect.bisect_right(self.keys, (self.times[number], 1 << 62)) - 1, 0)

    def longest_run(self) -> int:
        """Largest number of pictures from one key picture to the next."""
        if not self.times or not self.keys:
            return self.count
        starts = [bisect.bisect_left(self.times, time) for time, _ in self.keys]
        return max(end - start for start, end in itertools.pairwise([*starts, self.count]))


class Video:
    """Source of the pictures of a video: axes TYXC (RGB), or TYX where the file is grey; 8 bits, deep files 16.

    Threads take turns: a file has one decoder.

    Raises
    ------
    InputError
        PyAV is missing, the file is no video, is damaged, or holds no pictures.
    """

    def __init__(self, path: Path) -> None:
        self.path: Path | None = path
        self._file = path
        self.name = path.name
        self.kind = "video"
        self.notes: list[str] = []
        self.seeking = True
        self.in_memory = False
        self.axes: str | None
        self.assumed = False
        self._lock = threading.RLock()
        self._cache = ByteCache(CACHE_BYTES)
        self._decoder = _Decoder(path)
        try:
            self._index = self._decoder.index(self.notes)
            first = self._decoder.first_picture()
        except InputError:
            self._decoder.close()
            raise
        except Exception as error:
            self._decoder.close()
            raise InputError(
                f"{path} can't be decoded ({type(error).__name__}: {error}): the video is damaged or was cut short. "
                "Copy it again from its origin, or try to repair it: ffmpeg -i in.mp4 -c copy out.mp4"
            ) from error
        self.shape: tuple[int, ...] = (self._index.count, *first.shape)
        self.dtype = first.dtype
        self.axes = "TYX" if first.ndim == 2 else "TYXC"
        self.edges: Edges | None = None
        self.as_is: Range | None = None if first.ndim == 2 else (0.0, float(np.iinfo(self.dtype).max))
        self._position = 0  # number of the picture that the decoder gives next
        self._asked = -1
        self._decoder.rewind()
        self.hint = self._hint()
        self.details: dict[str, Any] = self._decoder.details()

    @property
    def seeks(self) -> int:
        """How often the file was sought in."""
        return self._decoder.seeks

    def fetch(self, selection: Selection) -> Array:
        """Values of a basic index; pictures are decoded whole."""
        at, *rest = selection
        with self._lock:
            if isinstance(at, slice):
                return np.stack([self._picture(i)[tuple(rest)] for i in range(at.start, at.stop)])
            return self._picture(at)[tuple(rest)].copy()

    def _picture(self, number: int) -> Array:
        kept = self._cache.get(number)
        if kept is None:
            kept = self._decode_up_to(number)
            if kept.shape != self.shape[1:]:
                raise FrameReadError(
                    f"Frame {number} of {self.name} is {kept.shape[0]} x {kept.shape[1]} px, the first is "
                    f"{self.shape[1]} x {self.shape[2]} px. Convert the video to one size: ffmpeg -i {self.name} "
                    "out.mp4",
                    number,
                )
            self._cache.put(number, kept)
        self._asked = number
        return kept

    def _decode_up_to(self, number: int) -> Array:
        """Decode to a picture; those just before it are kept when reading goes backward."""
        backward = number < self._asked
        if not self._near(number):
            self._seek(number)
        keep_from = number - self._window() if backward else number
        for picture in self._decoder.pictures():
            at = self._index.number(picture.pts) if self._index.times else self._position
            if at is None or at < self._position:
                continue  # a picture without a place in the index, or a leftover of what came before the key picture
            self._position = at + 1
            if at > number:
                break
            if at == number:
                return self._decoder.pixels(picture)
            if at >= keep_from:
                self._cache.put(at, self._decoder.pixels(picture))
        else:
            self._position = self._index.count
        failures = self._decoder.failures
        cause = f"the decoder says: {failures[-1]}" if failures else "the decoder passes over it"
        self._decoder.lost = True
        raise FrameReadError(
            f"Frame {number} of {self.name} can't be decoded ({cause}). The video is damaged there: copy it again "
            "from its origin, or leave that frame out.",
            number,
        )

    def _near(self, number: int) -> bool:
        """Whether decoding on from where the decoder stands is at least as good as seeking."""
        if self._decoder.lost or number < self._position:
            return False
        if not self._index.times:
            return True
        key_time = self._index.keys[self._index.key_before(number)][0] if self._index.keys else 0
        key = bisect.bisect_left(self._index.times, key_time)
        return key <= self._position or number - self._position < STEP_FORWARD

    def _seek(self, number: int) -> None:
        """Place the decoder at or before a picture."""
        self._position = 0
        if not self._index.times or not self._index.keys:
            self._decoder.rewind()
            return
        key = self._index.key_before(number)
        while key > 0:
            time, decoding_time = self._index.keys[key]
            if self._decoder.seek(time, decoding_time):
                # Pictures before the key one may come out too, broken; they carry a smaller number.
                self._position = bisect.bisect_left(self._index.times, time)
                return
            key -= 1
        self._decoder.rewind()

    def _window(self) -> int:
        """How many pictures before one are kept when reading backward."""
        size = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        return max(1, CACHE_BYTES // size - 2)

    def _hint(self) -> str | None:
        run = self._index.longest_run()
        if run <= LONG_RUN:
            return None
        if not self._index.times:
            why = "has no usable times, so that every step back decodes it from the beginning"
        else:
            why = f"has up to {run} frames from one key frame to the next; a jump or a step back decodes them all"
        return (
            f"{self.name} {why}. To make this fast, convert it once without loss of frames: "
            f"ffmpeg -i {self.name} -c:v libx264 -crf 12 -g 12 -bf 0 -fps_mode passthrough out.mp4"
        )

    def signature(self) -> bytes | None:
        """Hash of packets and times: conversion to RGB may differ between machines in the last bit."""
        return self._index.signature

    def close(self) -> None:
        """Close the file; the pictures that are kept are dropped."""
        with self._lock:
            self._decoder.close()
            self._cache.clear()


class _Decoder:
    """One open file and the pictures that come out of it, in order of presentation."""

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError as error:
            raise InputError(
                f"{path.name} is a video, and reading videos needs PyAV. Install it: "
                'pip install "napari-ivos[video]" (or pip install av).'
            ) from error
        self._av = av
        self._path = path
        self.seeks = 0
        self.lost = False
        self.failures: list[str] = []
        self._open()

    def _open(self) -> None:
        try:
            # The content, not the name, tells ffmpeg what a file is: a playlist under a video's name would send it to
            # other files, or to the network.
            limits = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
            self._container = self._av.open(f"file:{self._path}", container_options=limits)
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise InputError(
                f"{self._path} can't be opened as a video ({error}): it is damaged, was cut short before its index was "
                "written, or is no video. Copy it again from its origin, or convert it: ffmpeg -i in out.mp4"
            ) from error
        stream: Any = self._container.streams.best("video")
        if stream is not None and stream.codec_context is None:
            self._container.close()
            raise InputError(
                f"{self._path} holds pictures of a kind that can't be decoded. Convert it: ffmpeg -i in out.mp4"
            )
        if stream is None:
            self._container.close()
            raise InputError(f"{self._path} holds no video, only sound or data. Give a file with pictures.")
        self._stream = stream
        self._check_size()
        self._stream.thread_type = "AUTO"
        # Each thread delays the first picture after a seek by one more.
        self._stream.codec_context.thread_count = min(THREADS, os.cpu_count() or 1)
        self._pictures: Iterator[Any] | None = None

    def _check_size(self) -> None:
        """InputError for pictures that are too large to be decoded."""
        width, height = self._stream.codec_context.width, self._stream.codec_context.height
        if width * height * _PIXEL > CHUNK_BYTES:
            self._container.close()
            raise InputError(
                f"{self._path} declares pictures of {width:,} x {height:,} px, {width * height * _PIXEL / 2**30:,.1f} "
                f"GB decoded; up to {CHUNK_BYTES / 2**30:,.1f} GB are read. It is damaged, or must be made smaller."
            )

    def rewind(self) -> None:
        """Begin again with the first picture; the file is opened anew, since not every format can be sought."""
        self.close()
        self._open()
        self.lost = False

    def seek(self, time: int, decoding_time: int) -> bool:
        """Place the decoder at the key picture of these times; False where the file doesn't go there."""
        self.lost = False
        for target in (time, decoding_time):
            try:
                self._container.seek(target, stream=self._stream, backward=True)
            except self._av.FFmpegError:
                continue
            self.seeks += 1
            packets = self._packets()
            first = next((packet for packet in packets if packet.pts is not None), None)
            if first is not None and first.is_keyframe and first.pts <= time:
                self._pictures = self._decode(_chain(first, packets))
                return True
        return False

    def pictures(self) -> Iterator[Any]:
        """Go on decoding from where the last call ended."""
        if self._pictures is None:
            self._pictures = self._decode(self._packets())
        return self._pictures

    def _packets(self) -> Iterator[Any]:
        return iter(self._container.demux(self._stream))

    def _decode(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Pictures of packets; a packet that can't be decoded is passed over and remembered."""
        self.failures = []
        while True:
            try:
                packet = next(packets)
                yield from packet.decode()
            except StopIteration:
                return
            except self._av.error.EOFError:
                return
            except self._av.FFmpegError as error:
                self.failures.append(str(error))

    def pixels(self, picture: Any) -> Array:
        """(h, w, 3) or (h, w) values of a decoded picture, upright."""
        values = picture.to_ndarray(format=self._pixel_format(picture.format))
        matrix = next((bytes(data) for data in picture.side_data if data.type.name == "DISPLAYMATRIX"), None)
        return np.asarray(values) if matrix is None else _upright(np.asarray(values), matrix)

    @staticmethod
    def _pixel_format(given: Any) -> str:
        deep = max((part.bits for part in given.components), default=8) > 8
        if len(given.components) == 1 and not given.has_palette:
            return "gray16le" if deep else "gray"
        return "rgb48le" if deep else "rgb24"

    def first_picture(self) -> Array:
        self.rewind()
        picture = next(self.pictures(), None)
        if picture is None:
            raise InputError(
                f"{self._path} holds no picture that can be decoded "
                f"({'; '.join(self.failures[:2]) or 'it is empty'}). Copy it again from its origin."
            )
        return self.pixels(picture)

    def details(self) -> dict[str, Any]:
        rate = self._stream.average_rate
        return {
            "codec": self._stream.codec_context.name,
            "frames_per_second": None if rate is None else round(float(rate), 4),
        }

    def index(self, notes: list[str]) -> PictureIndex:
        """Index from the packets if the first pictures bear it out, else from decoding them all."""
        stated = self._stream.frames
        index = self._index_of_packets()
        self.rewind()
        if not self._borne_out(index):
            self.rewind()
            index = self._index_of_pictures(index)
            notes.append("the file's packets don't tell which pictures it holds; it was decoded once to count them.")
        if index.count == 0:
            raise InputError(f"{self._path} holds no pictures. Copy it again from its origin.")
        if stated > index.count:
            notes.append(f"the file says that it holds {stated} frames, but {index.count} are there: it was cut short.")
        return index

    def _index_of_packets(self) -> PictureIndex:
        digest = hashlib.sha256()
        times: list[int] = []
        keys: list[tuple[int, int]] = []
        untimed = False
        for number, packet in enumerate(packet for packet in self._packets() if packet.size):
            if number < _SIGNED_PACKETS:
                digest.update(bytes(packet))
            digest.update(b"%d %r " % (packet.size, packet.pts))
            if packet.is_discard:
                continue
            if packet.pts is None:
                untimed = True
                continue
            times.append(packet.pts)
            if packet.is_keyframe:
                keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
        times.sort()
        if untimed or len(set(times)) < len(times):
            times, keys = [], []
        return PictureIndex(times, len(times), sorted(keys), digest.digest())

    def _borne_out(self, index: PictureIndex) -> bool:
        """Whether the first pictures that come out are the first of the index, all in their order."""
        if not index.times:
            return False
        seen = []
        for picture in self.pictures():
            seen.append(picture.pts)
            if len(seen) == CHECKED_PICTURES:
                break
        if self.failures:  # damage, not hidden pictures: a frame that can't be decoded keeps its number
            return True
        return bool(seen) and seen == index.times[:CHECKED_PICTURES]

    def _index_of_pictures(self, index: PictureIndex) -> PictureIndex:
        times = [picture.pts for picture in self.pictures()]
        ascending = None not in times and all(a < b for a, b in itertools.pairwise(times))
        usable = ascending and bool(index.times)
        return PictureIndex(times if usable else [], len(times), index.keys if usable else [], index.signature)

    def close(self) -> None:
        self._pictures = None
        self._container.close()


def _upright(values: Array, matrix: bytes) -> Array:
    """A picture turned and mirrored as its file's display matrix, 3 x 3 of int32, says; by quarters of a turn."""
    a, b, _, c, d = np.frombuffer(matrix, np.int32, 5).tolist()  # x' = a x + c y, y' = b x + d y
    if abs(b) > abs(a):
        values, right, down = np.swapaxes(values, 0, 1), c, b
    else:
        right, down = a, d
    return np.ascontiguousarray(values[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest
