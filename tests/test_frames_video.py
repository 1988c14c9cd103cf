"""Videos: every frame by its exact number, whatever the codec, the container and the order of reading."""

from __future__ import annotations

import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_ivos.errors import FrameReadError, InputError
from napari_ivos.frames import open_frames, video
from napari_ivos.regions import Box

av = pytest.importorskip("av", reason="videos need PyAV: pip install napari-ivos[video]")

N, H, W = 75, 48, 128
BITS = 8


def picture(number: int) -> np.ndarray[Any, Any]:
    """Frame that shows its number as bright and dark bars, one for each bit, on a brown ground."""
    values = np.full((H, W, 3), (120, 90, 60), np.uint8)
    for bit in range(BITS):
        values[8:40, bit * 16 : bit * 16 + 16] = 235 if number >> bit & 1 else 20
    return values


def number_in(seen: np.ndarray[Any, Any]) -> int:
    """Number that a picture shows."""
    return sum(1 << bit for bit in range(BITS) if seen[12:36, bit * 16 + 4 : bit * 16 + 12].mean() > 0.5)


def write(path: Path, codec: str, pixels: str = "yuv420p", times: list[int] | None = None, **options: str) -> Path:
    """Write a video of numbered frames, at `times` in milliseconds or 40 ms apart."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = W, H, pixels
        stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, 25)
        for number in range(N):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = (times[number] if times else number), stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


UNEVEN = np.cumsum(np.random.default_rng(0).choice([1, 2, 40, 41, 500], N)).tolist()
VIDEOS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "H.264, B-frames": ("a.mp4", "libx264", {"bf": "3", "g": "24"}),
    "H.264, one key frame": ("a.mov", "libx264", {"bf": "3", "g": "250", "sc_threshold": "0"}),
    "H.264, open groups": ("a.mkv", "libx264", {"bf": "3", "g": "20", "x264-params": "open-gop=1:b-pyramid=normal"}),
    "H.264, open groups, MP4": ("a.mp4", "libx264", {"bf": "3", "g": "20", "x264-params": "open-gop=1"}),
    "H.264, uneven times": ("a.mp4", "libx264", {"bf": "2", "g": "16", "times": UNEVEN}),
    "H.264, late start": ("a.mkv", "libx264", {"bf": "2", "g": "16", "times": [7777 + 40 * k for k in range(N)]}),
    "H.264, key frames only": ("a.mov", "libx264", {"bf": "0", "g": "1"}),
    "H.264 in AVI, no times": ("a.avi", "libx264", {"bf": "2", "g": "12"}),
    "H.264, 10 bits": ("a.mkv", "libx264", {"pixels": "yuv420p10le", "g": "30"}),
    "MPEG-4, B-frames": ("a.m4v", "mpeg4", {"bf": "2", "g": "12"}),
    "MPEG-4 in AVI": ("a.avi", "mpeg4", {"bf": "0", "g": "12"}),
    "Motion JPEG": ("a.avi", "mjpeg", {"pixels": "yuvj420p"}),
    "VP8": ("a.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "40"}),
    "VP9": ("a.webm", "libvpx-vp9", {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "40"}),
    "uncompressed": ("a.avi", "rawvideo", {"pixels": "bgr24"}),
}


@pytest.fixture(scope="module", params=VIDEOS)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, codec, options = VIDEOS[request.param]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV can't write {codec}")
    return write(tmp_path_factory.mktemp("video") / name, codec, **options)


@pytest.fixture
def few_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for twelve decoded frames only, so that the file is sought in."""
    monkeypatch.setattr(video, "CACHE_BYTES", 12 * H * W * 3)


@pytest.mark.usefixtures("few_kept")
def test_frames_are_exact_forward_backward_and_at_random(file: Path) -> None:
    """Each frame shows its own number, read in order, in reverse and at random, with the same pixels each time."""
    with open_frames(file) as stack:
        assert stack.shape == (N, H, W)
        forward = [stack.raw(k) for k in range(N)]
        scale = np.iinfo(stack.dtype).max
        assert [number_in(values / scale) for values in forward] == list(range(N))
        for k in [*reversed(range(N)), *np.random.default_rng(1).integers(0, N, 60).tolist()]:
            assert np.array_equal(stack.raw(k), forward[k]), k
        box = Box(8, 16, 40, 64)
        assert np.array_equal(stack.raw(50, box), forward[50][box.slices])


@pytest.mark.usefixtures("few_kept")
def test_reading_forward_never_seeks_and_backward_seldom(tmp_path: Path) -> None:
    """Forward reading decodes on; backward reading seeks once for as many frames as are kept."""
    with open_frames(write(tmp_path / "a.mp4", "libx264", bf="3", g="24")) as stack:
        source: Any = stack.origin
        for k in range(0, N, 2):
            stack.read(k)
        assert source.seeks == 0
        for k in reversed(range(N)):
            stack.read(k)
        assert source.seeks <= 2 * N / 10
        before = source.seeks
        stack.read(60)
        assert source.seeks == before + 1


def test_colours_and_greys_keep_their_depth(tmp_path: Path) -> None:
    """8-bit colours are uint8 RGB as they are, deeper ones uint16; grey files have no channels and are stretched."""
    page = (Path(__file__).parent.parent / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    assert "Videos and folders of images have the axes TYXC, or TYX where they are grey" in " ".join(page.split())
    with open_frames(write(tmp_path / "a.mp4", "libx264")) as stack:
        assert (stack.axes, stack.dtype, stack.contrast[0]) == ("TYXC", np.uint8, (0.0, 255.0))
    with open_frames(write(tmp_path / "b.mkv", "libx264", "yuv420p10le")) as stack:
        assert (stack.axes, stack.dtype, stack.contrast[0]) == ("TYXC", np.uint16, (0.0, 65535.0))
    path = tmp_path / "c.mkv"
    values = np.random.default_rng(2).integers(100, 900, (9, H, W), dtype=np.uint16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = W, H, "gray16le"
        for frame in values:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray16le")))
        container.mux(stream.encode(None))
    with open_frames(path) as stack:
        assert (stack.axes, stack.dtype) == ("TYX", np.uint16)
        assert np.array_equal(stack.raw(5), values[5])
        assert np.allclose(stack.contrast, [(100, 899)], atol=10)


@pytest.mark.parametrize(
    ("matrix", "seen"),
    [
        ((1, 0, 0, 1), lambda p: p),
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
        ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
        ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
        ((1, 0, 0, -1), lambda p: p[::-1]),
        ((0, 1, 1, 0), lambda p: np.swapaxes(p, 0, 1)),
    ],
    ids=["as it is", "clockwise", "half a turn", "counterclockwise", "mirrored", "upside down", "transposed"],
)
def test_videos_are_seen_as_their_camera_was_held(
    tmp_path: Path, matrix: Any, seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a telephone writes beside its pictures turns and mirrors them, as in every player."""
    shown = np.zeros((H, W, 3), np.uint8)
    shown[:20, :50] = 200  # like itself only as it is
    monkeypatch.setattr(sys.modules[__name__], "picture", lambda number: shown)
    data = write(tmp_path / "a.mp4", "mpeg4", g="12", qscale="2").read_bytes()
    with open_frames(tmp_path / "a.mp4") as stack:
        plain = stack.raw(37)
    at = data.index(b"tkhd") + 44  # the matrix of a track's header, after its times, numbers and layers
    numbers = [0, 0, 1 << 30]
    a, b, c, d = (n << 16 for n in matrix)
    whole = struct.pack(">9i", a, b, 0, c, d, 0, *numbers)
    assert struct.unpack(">9i", data[at : at + 36]) == (1 << 16, 0, 0, 0, 1 << 16, 0, *numbers)
    (tmp_path / "a.mp4").write_bytes(data[:at] + whole + data[at + 36 :])
    with open_frames(tmp_path / "a.mp4") as stack:
        assert np.array_equal(stack.raw(37), seen(plain))


def test_a_video_is_known_by_its_packets(file: Path) -> None:
    """Fingerprint and description are the same when the file is opened again, and survive JSON options."""
    with open_frames(file) as stack, open_frames(file, **stack.describe()["open"]) as again:
        assert again.fingerprint() == stack.fingerprint()
        assert again.describe()["codec"] == stack.describe()["codec"]
        assert stack.describe()["kind"] == "video"


def test_other_frames_give_another_fingerprint(tmp_path: Path) -> None:
    """Another encoding is another file, and is not taken for the first."""
    one, two = (write(tmp_path / f"{g}.mp4", "libx264", g=g) for g in ("5", "9"))
    assert open_frames(one).fingerprint() != open_frames(two).fingerprint()


def test_reading_ahead_of_a_video_serves_the_next_read(file: Path) -> None:
    """Frames that were read ahead are the right ones."""
    with open_frames(file) as stack:
        for k in range(20, 30):
            stack.prefetch(k + 1)
            assert number_in(stack.read(k)) == k


def test_long_runs_between_key_frames_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`hint` says how to convert a video in which each step back decodes a long run."""
    monkeypatch.setattr(video, "LONG_RUN", 30)
    with open_frames(write(tmp_path / "a.mp4", "libx264", g="250", sc_threshold="0")) as stack:
        assert "75 frames" in str(stack.hint)
        assert "ffmpeg" in str(stack.hint)
    with open_frames(write(tmp_path / "b.mp4", "libx264", g="10")) as stack:
        assert stack.hint is None


def test_files_without_times_are_decoded_once_and_say_so(tmp_path: Path) -> None:
    """Where the packets have no presentation times, a note tells that the file was decoded to count its frames."""
    with open_frames(write(tmp_path / "a.avi", "libx264", bf="2", g="12")) as stack:
        assert any("decoded once" in note for note in stack.notes)


def test_a_movie_cut_before_its_index_is_refused(tmp_path: Path) -> None:
    """An MP4 that ends before its index can't be opened, and the message says what to do."""
    path = write(tmp_path / "a.mp4", "libx264")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"a\.mp4 can't be opened as a video.*Copy it again"):
        open_frames(path)


def test_a_movie_cut_after_its_index_keeps_what_is_there(tmp_path: Path) -> None:
    """A file cut in its pictures opens with the frames that are there; each of them is exact."""
    path = write(tmp_path / "a.mkv", "libx264", g="10")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with open_frames(path) as stack:
        assert 10 < len(stack) < N
        for k in (0, 5, len(stack) - 3):
            assert number_in(stack.read(k)) == k


def test_a_damaged_frame_is_named_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    """Bytes overwritten in one picture make that frame a FrameReadError; all others keep their number and values."""
    path = write(tmp_path / "a.avi", "mjpeg", "yuvj420p")
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    begin, size = packets[40]
    data[begin + 8 : begin + size] = bytes(size - 8)
    path.write_bytes(data)
    with open_frames(path) as stack:
        assert len(stack) == N
        with pytest.raises(FrameReadError, match=r"Frame 40 of a\.avi can't be decoded") as caught:
            stack.read(40)
        assert caught.value.frame == 40
        assert [number_in(stack.read(k)) for k in (39, 41, 74, 0)] == [39, 41, 74, 0]


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 99, b"\x00" * 5000], ids=["empty", "text", "zeros"])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    """An empty file, text or zeros under a video's name raise InputError."""
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mp4"):
        open_frames(path)


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    """A file with sound and no pictures says so."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match="no video"):
        open_frames(path)


def test_without_pyav_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyAV a video raises InputError that names the extra to install."""
    import sys

    path = tmp_path / "a.mp4"
    path.write_bytes(b"video")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"napari-ivos\[video\]"):
        open_frames(path)


def test_dropping_a_video_closes_its_file(tmp_path: Path) -> None:
    """A stack that is no longer referenced closes the video."""
    stack = open_frames(write(tmp_path / "a.mp4", "libx264"))
    source: Any = stack.origin
    stack.read(3)
    del stack
    with pytest.raises((ValueError, AssertionError, av.FFmpegError)):
        source.fetch((30, slice(0, 1), slice(0, 1), slice(0, 3)))
