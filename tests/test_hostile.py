"""Files from strangers: each ends in a letter; nothing hangs, runs, is written elsewhere, or takes the memory.

Inputs that once found a defect are here by name, or as files in `fuzz/regressions`.
"""

from __future__ import annotations

import ast
import bz2
import gzip
import io
import json
import os
import sqlite3
import struct
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_ivos import untrusted
from napari_ivos.errors import FrameReadError, InputError, IvosError, OutOfMemory, ProjectError, WeightsError
from napari_ivos.frames import codecs, open_frames
from napari_ivos.networks import weights
from napari_ivos.predictor import FakePredictor
from napari_ivos.project.soundness import check_companions
from napari_ivos.scribbles import MAXIMUM_POINTS, Scribbles, Stroke, read_davis
from napari_ivos.session import Session

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "napari_ivos"
SHAPE = (6, 40, 48)


# -- a share of the campaign


@pytest.mark.parametrize(
    "targets",
    [
        ("scribbles", "settings", "blobs", "weights-header", "weights", "painted", "images", "manifest"),
        ("tiff", "zarr", "video"),
        ("project-bytes", "project-rows"),
    ],
    ids=["words and pictures", "stacks", "projects"],
)
def test_hostile_files_end_in_letters(targets: tuple[str, ...], tmp_path: Path) -> None:
    """A deterministic share of the campaign, and every input that once found a defect, find none."""
    command = [sys.executable, "-m", "fuzz", *targets, "--inside", "--engine=plain", "--inputs=0"]
    command.append(f"--findings={tmp_path}")
    few = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **few}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.count(" 0 defects") == len(targets)


def test_nothing_in_the_package_runs_data() -> None:
    """No module unpickles, evaluates or executes anything, or loads weights in another way than safetensors."""
    forbidden = {"eval", "exec", "compile", "__import__"}
    modules = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    found = []
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in forbidden:
                found.append(f"{file.name}:{node.lineno} {node.func.id}")
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                names = {alias.name for alias in node.names} - {"UnpicklingError"}  # what torch raises where it refuses
                found += [f"{file.name}:{node.lineno} {name}" for name in names]
            if isinstance(node, ast.Import):
                found += [f"{file.name}:{node.lineno} {a.name}" for a in node.names if a.name.split(".")[0] in modules]
            if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
                wanted = node.arg == "weights_only"
                if not (isinstance(node.value, ast.Constant) and node.value.value is wanted):
                    found.append(f"{file.name}:{node.value.lineno} {node.arg}")
    assert found == []


# -- JSON, TOML, strokes, weights


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 100_000, id="nested"),
        pytest.param('{"scribbles": ' + "9" * 5000 + "}", id="a number of 5,000 digits"),
        pytest.param('{"scribbles": [[{"object_id": 1, "path": [[1' + "0" * 400 + ", 0.5]]}]]}", id="beyond floats"),
        pytest.param('{"scribbles": [[{"object_id": 1, "path": [[NaN, 0.5]]}]]}', id="nan"),
        pytest.param('{"scribbles": [[{"object_id": 1e999, "path": [[0, 0.5]]}]]}', id="infinite id"),
        pytest.param('{"scribbles": [5]}', id="no list"),
        pytest.param('{"scribbles": [["ab"]]}', id="text for strokes"),
    ],
)
def test_scribbles_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    """JSON that exhausts the stack or the numbers is an InputError, as any other that isn't scribbles."""
    path = tmp_path / "s.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        read_davis(path, SHAPE)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.sampled_from(["path", "object_id", "x"]), inside),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(_JSON)
def test_scribbles_of_any_json_are_read_or_refused(value: object) -> None:
    """Whatever JSON stands where strokes should be, it is read or refused with a letter."""
    for data in (
        value,
        {"scribbles": value},
        {"scribbles": [value]},
        {"scribbles": [[{"object_id": 1, "path": value}]]},
    ):
        try:
            found = read_davis(data, SHAPE) if isinstance(data, dict) else []
        except InputError:
            continue
        for scribbles in found:
            with np.errstate(all="ignore"):  # lengths beyond what floats hold
                assert all(stroke.box(SHAPE[1:]) is None or stroke.points.size for stroke in scribbles.strokes)


def test_a_stroke_of_too_many_points_is_refused() -> None:
    """The message has both numbers."""
    with pytest.raises(InputError, match=r"100,001 points; at most 100,000"):
        Stroke(1, np.zeros((MAXIMUM_POINTS + 1, 2)))


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000, "clips = 3", "data = 'a'\n[clips]\nexclude = 5", "data = 'a\\u0000'"]
)
def test_settings_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    """Training settings of the wrong types, or nested without end, are an InputError."""
    from napari_ivos.training.settings import TrainingSettings

    path = tmp_path / "r.toml"
    path.write_text(text.replace("'a\\u0000'", '"a\\u0000"'), encoding="utf-8")
    with pytest.raises(InputError):
        TrainingSettings.from_toml(path)


def _safetensors(meta: object, tensors: bytes = b"", **more: object) -> bytes:
    head = json.dumps({"__metadata__": meta, **more}).encode()
    return len(head).to_bytes(8, "little") + head + tensors


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"format": weights.FORMAT, "architecture": 5}, "not all text"),
        ({"format": weights.FORMAT, "architecture": "[" * 9000}, "nested too deeply"),
        ({"format": weights.FORMAT, "architecture": '{"size": 512, "width": 1024, "key": 1024}'}, "has .* bytes; its"),
    ],
    ids=["no text", "nested", "wide networks in a small file"],
)
def test_weights_with_a_hostile_header_are_refused(meta: dict, words: str, tmp_path: Path) -> None:
    """Notes that are no text, nesting without end, and an architecture that the file can't hold."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(_safetensors(meta))
    with pytest.raises(WeightsError, match=words):
        weights.load_model(path, device="cpu")


# -- pictures and arrays


def _png(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("depth", "colour"), [(8, 0), (16, 2)], ids=["grey", "deep colour"])
def test_a_picture_that_declares_too_much_is_refused(depth: int, colour: int, tmp_path: Path) -> None:
    """A PNG of 100 bytes that declares gigabytes is refused from its header, with its size."""
    (tmp_path / "f.png").write_bytes(_png(100_000, 100_000, depth, colour))
    with pytest.raises(InputError, match=r"100,000 x 100,000|10000000000 pixels"):
        open_frames(tmp_path / "f.png")


@pytest.mark.parametrize("data", [b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((", b"\x93NUMPY\x01\x00\x04\x00{\n  "])
def test_a_damaged_numpy_file_is_refused(data: bytes, tmp_path: Path) -> None:
    """Its header is Python text; whatever is wrong with that is an InputError."""
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(InputError, match="numpy"):
        open_frames(tmp_path / "a.npy")


def test_several_arrays_under_one_name_are_refused(tmp_path: Path) -> None:
    """An .npz under the name of an .npy says what it is."""
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    (tmp_path / "a.npy").write_bytes(file.getvalue())
    with pytest.raises(InputError, match="several arrays"):
        open_frames(tmp_path / "a.npy")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe under a stack's name is refused; opening it would wait for ever."""
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        open_frames(tmp_path / "a.tif")


# -- TIFF


def _tiff(path: Path, values: np.ndarray, **options: object) -> None:
    import tifffile

    tifffile.imwrite(path, values, **options)


def _patch_tag(path: Path, code: int, value: int) -> None:
    import tifffile

    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags[code]
        at, width = tag.valueoffset, {3: "<H", 4: "<I"}[tag.dtype]
    data = bytearray(path.read_bytes())
    data[at : at + struct.calcsize(width)] = struct.pack(width, value)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("code", "value", "words"),
    [(257, 939_000_000, "14,671,875 parts, but lists 1"), (256, 4_000_000_000, "parts of .* GB")],
    ids=["939 million rows", "wide strips"],
)
def test_a_flipped_bit_in_a_tiff_is_found_at_once(code: int, value: int, words: str, tmp_path: Path) -> None:
    """A page that declares more than its strips can hold is refused with the numbers, before a table of it is made."""
    path = tmp_path / "a.tif"
    _tiff(path, np.zeros((64, 64), np.uint16), compression="zlib", rowsperstrip=64)
    _patch_tag(path, code, value)
    with pytest.raises(InputError, match=words):
        open_frames(path)


def _ome(path: Path, size: str, data: str) -> None:
    """A TIFF of two planes whose OME metadata say what they like."""
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="urn:uuid:0"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="16" '
        f'SizeY="16" SizeC="1" SizeZ="1" SizeT="{size}">{data}</Pixels></Image></OME>'
    )
    _tiff(path, np.zeros((2, 16, 16), np.uint8), description=text, metadata=None, photometric="minisblack")


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.tif", "C:\\a.tif", "sub/a.tif", "..&#47;a.tif"])
def test_ome_metadata_lead_to_no_other_folder(name: str, tmp_path: Path) -> None:
    """A file that OME metadata name must lie beside the one that names it."""
    path = tmp_path / "a.ome.tif"
    _ome(path, "2", f'<TiffData IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:1</UUID></TiffData>')
    with pytest.raises(InputError, match="lies elsewhere"):
        open_frames(path)


@pytest.mark.parametrize(
    ("size", "data"),
    [("999999999", "<TiffData/>"), ("2", '<TiffData IFD="0" PlaneCount="999999999"/>'), ("9" * 30, "<TiffData/>")],
)
def test_ome_metadata_that_declare_millions_of_planes_are_refused(size: str, data: str, tmp_path: Path) -> None:
    """A count of planes is checked before a list of that length is made."""
    path = tmp_path / "a.ome.tif"
    _ome(path, size, data)
    with pytest.raises(InputError, match="at most 16,777,216 are read"):
        open_frames(path)


def test_entities_in_ome_metadata_do_not_grow(tmp_path: Path) -> None:
    """Nested entities, which make gigabytes of text out of a kilobyte, are not expanded."""
    entities = "".join(f'<!ENTITY e{k} "{f"&e{k - 1};" * 10 if k else "x" * 99}">' for k in range(9))
    text = f'<?xml version="1.0"?><!DOCTYPE OME [{entities}]><OME xmlns="a"><Image>&e8;</Image></OME>'
    path = tmp_path / "a.ome.tif"
    _tiff(path, np.zeros((4, 16, 16), np.uint8), description=text, metadata=None, photometric="minisblack")
    with open_frames(path) as stack:
        assert stack.read(0).max() == 0


# -- zarr


def _zarr2(folder: Path, chunk: bytes, **changes: object) -> Path:
    folder.mkdir()
    meta = {"zarr_format": 2, "shape": [1, 8, 8], "chunks": [1, 8, 8], "dtype": "<u2", "compressor": None}
    meta |= {"filters": None, "fill_value": 0, "order": "C", **changes}
    (folder / ".zarray").write_text(json.dumps(meta), encoding="utf-8")
    if chunk:
        (folder / "0.0.0").write_bytes(chunk)
    return folder


@pytest.mark.parametrize("where", ["compressor", "filters"])
@pytest.mark.parametrize("dtype", ["<u2", "|O"])
def test_a_zarr_that_would_unpickle_is_refused(where: str, dtype: str, tmp_path: Path) -> None:
    """A chunk that is a pickle which makes a file is never unpickled, wherever the metadata name the codec."""
    # Protocol 0: the global os.mkdir, called with a path when it is loaded.
    evil = b"cos\nmkdir\n(V" + str(tmp_path / "made").encode() + b"\ntR."
    codec = {"id": "pickle", "protocol": 0}
    path = _zarr2(tmp_path / "a.zarr", evil, **{where: [codec] if where == "filters" else codec, "dtype": dtype})
    with pytest.raises(InputError):
        open_frames(path)
    assert not (tmp_path / "made").exists()


def test_a_codec_that_is_not_known_here_is_refused_by_name(tmp_path: Path) -> None:
    """Codecs of other packages that happen to be installed are not taken from files."""
    path = _zarr2(tmp_path / "a.zarr", b"", compressor={"id": "base64"})
    with pytest.raises(InputError, match="packed with base64"):
        open_frames(path)


def _bomb(name: str) -> bytes:
    """A chunk that unpacks to 64 MB or says so, packed by a codec."""
    plain = bytes(64 << 20)
    if name == "zlib":
        return zlib.compress(plain, 9)
    if name == "gzip":
        return gzip.compress(plain, 9)
    if name == "bz2":
        return bz2.compress(plain)
    if name == "lz4":
        return struct.pack("<i", 1 << 30) + b"\x00" * 9
    if name == "blosc":
        return bytes([2, 1, 0x21, 2]) + struct.pack("<III", 1 << 30, 1 << 20, 30) + b"\x10\x00\x00\x00" + bytes(10)
    import imagecodecs

    return bytes(imagecodecs.zstd_encode(plain))


@pytest.mark.parametrize("name", ["zlib", "gzip", "bz2", "lz4", "blosc", "zstd"])
def test_a_chunk_that_grows_beyond_its_array_is_refused(name: str) -> None:
    """No codec unpacks more than it is allowed; the message has both numbers."""
    with pytest.raises(ValueError, match=r"unpacks to [\d,]+ bytes or more; its array leaves room for 1,000,000"):
        codecs.unpack(name, _bomb(name), 1_000_000)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("name", ["gzip", "zstd", "blosc", "bz2", "lzma"])
def test_bounded_codecs_read_what_zarr_writes(name: str, version: int, tmp_path: Path) -> None:
    """What zarr packed is read to the bit, and a bomb in the place of a chunk is a FrameReadError."""
    import numcodecs
    import zarr
    from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

    values = np.random.default_rng(0).integers(0, 9, (2, 24, 24), dtype=np.uint16)
    core = {"gzip": GzipCodec, "zstd": ZstdCodec, "blosc": BloscCodec}
    if version == 3 and name not in core:
        pytest.skip("format 3 has it by numcodecs only")
    packer = core[name]() if version == 3 else numcodecs.get_codec({"id": name})
    path = tmp_path / "a.zarr"
    made = zarr.create_array(
        path, shape=values.shape, chunks=(1, 24, 24), dtype=values.dtype, zarr_format=version, compressors=packer
    )
    made[:] = values
    with open_frames(path, axes="TYX") as stack:
        assert np.array_equal(stack.raw(1), values[1])
    chunk = path / ("c/0/0/0" if version == 3 else "0.0.0")
    if name in ("gzip", "bz2", "blosc") and version == 3:
        chunk.write_bytes(_bomb(name))
        with open_frames(path, axes="TYX") as stack, pytest.raises(FrameReadError, match="leaves room"):
            stack.raw(0)


def test_a_damaged_blosc_chunk_ends_no_process(tmp_path: Path) -> None:
    """Offsets that point anywhere, on which C-Blosc 1 crashes, are a FrameReadError."""
    chunk = bytes([2, 1, 0x21, 2]) + struct.pack("<III", 128, 128, 65) + b"decs" + bytes(45)
    path = _zarr2(tmp_path / "a.zarr", chunk, compressor={"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1})
    with open_frames(path, axes="TYX") as stack, pytest.raises(FrameReadError):
        stack.raw(0)


@pytest.mark.parametrize(
    ("shape", "chunks", "words"),
    [
        ([1, 1 << 20, 1 << 20], [1, 1 << 20, 1 << 20], "chunks up to 1.0 GB"),
        ([1 << 30, 8, 8], [1, 8, 8], "1,073,741,824 chunks along one axis"),
        ([1 << 40, 8, 8], [1 << 20, 1, 1], "axes up to"),
    ],
    ids=["one huge chunk", "endless chunks", "an endless axis"],
)
def test_a_zarr_that_declares_too_much_is_refused(shape: list, chunks: list, words: str, tmp_path: Path) -> None:
    """Sizes in metadata are checked before anything of that size is made."""
    path = _zarr2(tmp_path / "a.zarr", b"", shape=shape, chunks=chunks)
    with pytest.raises(InputError, match=words):
        open_frames(path, axes="TYX")


def test_a_frame_larger_than_the_memory_is_refused(tmp_path: Path) -> None:
    """A whole frame of an empty zarr that declares 1,000,000 x 1,000,000 px is not made; a small region is."""
    path = _zarr2(tmp_path / "a.zarr", b"", shape=[1, 1 << 20, 1 << 20], chunks=[1, 512, 512])
    with open_frames(path, axes="TYX") as stack:
        with pytest.raises(OutOfMemory, match=r"1,048,576 x 1,048,576 px .* needs [\d,.]+ GB"):
            stack.raw(0)
        from napari_ivos.regions import Box

        assert stack.raw(0, Box(0, 0, 4, 4)).max() == 0


# -- video


@pytest.mark.parametrize(
    "text",
    [
        b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n",
        b"ffconcat version 1.0\nfile a.png\n",
        b"v=0\nm=video 1 RTP/AVP 9",
    ],
    ids=["playlist", "concatenation", "stream"],
)
def test_a_playlist_under_a_videos_name_is_refused(text: bytes, tmp_path: Path) -> None:
    """Only containers of pictures are taken, none that sends the reader to other files or to the network."""
    pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(text)
    with pytest.raises(InputError, match="can't be opened as a video"):
        open_frames(tmp_path / "a.mp4")


# -- projects


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one propagated object."""
    frames = np.full((*SHAPE, 3), 40, np.uint8)
    frames[:, 10:22, 10:30] = (200, 60, 50)
    path = tmp_path / "a.ivos"
    with Session(open_frames(frames, axes="TYXC"), FakePredictor(), path) as session:
        session.interact(Scribbles(0, [Stroke(1, [(15, 14), (15, 24)])]))
        list(session.propagate())
    return path


def test_a_journal_can_not_delete_other_files(project: Path, tmp_path: Path) -> None:
    """A rollback journal that names another journal would make SQLite delete that file: nothing is opened."""
    victim = tmp_path / "precious.txt"
    victim.write_text("kept", encoding="utf-8")
    name = str(victim).encode()
    checksum = sum(b if b < 128 else b - 256 for b in name) & 0xFFFFFFFF
    magic = bytes.fromhex("d9d505f920a163d7")
    head = (magic + struct.pack(">5I", 0, 1, 1, 512, 4096)).ljust(512, b"\0")
    page = struct.pack(">I", (1 << 30) // 4096 + 1)
    journal = project.with_name(project.name + "-journal")
    journal.write_bytes(head + page + name + struct.pack(">II", len(name), checksum) + magic)
    with pytest.raises(ProjectError, match="names another journal"):
        Session.open(project)
    assert victim.read_text(encoding="utf-8") == "kept"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal", "-lock"])
def test_links_beside_a_project_lead_nowhere(project: Path, tmp_path: Path, ending: str) -> None:
    """A link where SQLite or the lock would write is refused, and what it points to is neither made nor changed."""
    target = tmp_path / "elsewhere"
    project.with_name(project.name + ending).symlink_to(target)
    with pytest.raises(ProjectError, match="is a link"):
        Session.open(project)
    assert not target.exists()


@pytest.mark.parametrize("looks", [1, 2, 3, 4])
def test_a_journal_that_goes_away_while_it_is_looked_at_is_no_fault(
    project: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """Another process may finish with its journal at any moment: after the first look, or the fourth."""
    journal, seen = project.with_name(project.name + "-journal"), []
    journal.write_bytes(bytes(40))

    def going(look):
        def looked(place: Path, **options: Any) -> os.stat_result:
            found = look(place, **options)
            if place == journal:
                seen.append(place)
                if len(seen) == looks:
                    journal.unlink()
            return found

        return looked

    monkeypatch.setattr(Path, "stat", going(Path.stat))
    monkeypatch.setattr(Path, "lstat", going(Path.lstat))
    check_companions(project)
    monkeypatch.undo()
    journal.unlink(missing_ok=True)
    with Session.open(project) as session:
        assert session.labels[0].any()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE steps SET state = 7",
        "UPDATE steps SET round = 'two'",
        'UPDATE steps SET detail = \'{"frame": "x"}\'',
        "UPDATE steps SET detail = '" + "[" * 9000 + "'",
        "UPDATE objects SET colour = 'url(x)'",
        "UPDATE objects SET name = x'ff'",
        "UPDATE objects SET start = 99",
        "UPDATE annotations SET frame = 4611686018427387904",
        "UPDATE strokes SET frame = -1",
        "UPDATE strokes SET points = 'line'",
        "UPDATE patches SET quality = 'good'",
        "UPDATE patches SET filled = x'01'",
        "UPDATE patches SET y1 = 1000000",
        "UPDATE patches SET data = zeroblob(40)",
        "UPDATE meta SET value = '[2147483648, 9, 9]' WHERE key = 'shape'",
        "UPDATE meta SET value = '5' WHERE key = 'stack'",
    ],
)
def test_values_of_the_wrong_kind_are_told(project: Path, change: str) -> None:
    """Whatever a column holds that this program doesn't write there is a letter, not an error deep in the engine."""
    with closing(sqlite3.connect(project)) as connection, connection:
        connection.execute(change)
    with pytest.raises(IvosError):
        _use(project)


def _use(path: Path) -> None:
    with Session.open(path, model=FakePredictor()) as session:
        assert len(session.log)
        assert len(session.rounds)
        assert session.objects
        session.strokes()
        np.asarray(session.labels)
        np.asarray(session.quality)
        session.annotated_frames()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON steps BEGIN DELETE FROM patches; END",
        "CREATE VIEW v AS SELECT load_extension('x')",
        "CREATE TABLE other (x)",
    ],
)
def test_a_file_with_code_of_its_own_is_not_opened(project: Path, statement: str) -> None:
    """Triggers, views and tables that are not ours are named, and the file is left as it is."""
    with closing(sqlite3.connect(project)) as connection, connection:
        connection.execute(statement)
    before = project.read_bytes()
    with pytest.raises(ProjectError, match="does not have the tables"):
        Session.open(project)
    assert project.read_bytes() == before


def test_labels_of_an_endless_stack_are_not_made(project: Path) -> None:
    """A project that declares huge frames is refused when all of them are asked for; a window is read."""
    with closing(sqlite3.connect(project)) as connection, connection:
        connection.execute("UPDATE meta SET value = '[6, 1048576, 1048576]' WHERE key = 'shape'")
    with Session.open(project) as session:
        with pytest.raises(OutOfMemory, match="GB"):
            np.asarray(session.labels)
        with pytest.raises(OutOfMemory, match="GB"):
            session.labels[0]
        assert session.labels[0, 12:14, 12:14].shape == (2, 2)


def test_strokes_that_unpack_to_gigabytes_are_refused(project: Path) -> None:
    """Many small strokes that each unpack to much are refused together."""
    from napari_ivos.project.blobs import pack_array

    packed = pack_array(np.zeros((MAXIMUM_POINTS, 2), np.float64))
    with closing(sqlite3.connect(project)) as connection, connection:
        for _ in range(400):
            connection.execute("INSERT INTO strokes (step, frame, object, points) VALUES (1, 0, 1, ?)", (packed,))
    with Session.open(project) as session, pytest.raises(ProjectError, match="more than 67,108,864 values"):
        session.strokes()


# -- limits


def test_the_memory_is_known() -> None:
    """The limit comes from the machine, and what is above half of it is refused with both numbers."""
    assert untrusted.memory() > 1 << 28
    untrusted.check_room(untrusted.memory() // 2, "This")
    with pytest.raises(OutOfMemory, match=r"That needs [\d,.]+ GB at once; on this machine at most [\d,.]+ GB"):
        untrusted.check_room(untrusted.memory() // 2 + 1, "That")


@pytest.mark.parametrize(
    ("said", "files", "limit"),
    [
        ("0::/", {"memory.max": "max"}, None),
        ("0::/", {"memory.max": "700"}, 700),
        ("0::/job_7/step_0", {"memory.max": "max", "job_7/memory.max": "300", "job_7/step_0/memory.max": "500"}, 300),
        (
            "4:memory:/job_7\n0::/",
            {"memory/memory.limit_in_bytes": "900", "memory/job_7/memory.limit_in_bytes": "8"},
            8,
        ),
        ("3:cpu:/job_7", {"memory/job_7/memory.limit_in_bytes": "8"}, None),
        (None, {}, None),
    ],
    ids=["none", "container", "job", "job-v1", "other-controller", "no-groups"],
)
def test_the_memory_of_a_job_is_its_group_s(tmp_path: Path, said, files, limit) -> None:
    """The least limit of a process's groups and of those around them counts: a cluster's job has less than its node."""
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text + "\n")
    if said is not None:
        (tmp_path / "groups").write_text(said + "\n")
    found = untrusted._group_limits(tmp_path / "groups", tmp_path / "root")
    assert min(found, default=None) == limit
