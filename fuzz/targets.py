"""The readers under attack: for each, good files to start from, and what is done with a hostile one."""

from __future__ import annotations

import functools
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ivos.scribbles import Scribbles, Stroke, covered_pixels, rasterise, read_davis

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_ivos import Session

SHAPE = (6, 40, 48)
"""(T, H, W) of the stack that hostile files belong to."""


@dataclass(frozen=True)
class Target:
    """One reader.

    Parameters
    ----------
    name : str
    seeds : callable
        Good inputs, and hostile ones worth starting from.
    run : callable
        Takes the bytes and an empty folder; ends well, or with an `IvosError`.
    tokens : tuple of bytes
        Words of the format.
    largest : int
        Bytes of an input at most.
    share : int
        Inputs in the normal tests.
    campaign : int
        Inputs in a campaign.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    run: Callable[[bytes, Path], None]
    tokens: tuple[bytes, ...] = ()
    largest: int = 1 << 14
    share: int = 200
    campaign: int = 5_000


def movie() -> np.ndarray:
    """(T, H, W) uint8 frames: a bright square that moves."""
    frames = np.full(SHAPE, 40, np.uint8)
    for t in range(SHAPE[0]):
        frames[t, 10:22, 4 + 4 * t : 16 + 4 * t] = 200
    return frames


# -- scribbles


def _scribble_seeds() -> list[bytes]:
    line = {"path": [[0.1, 0.4], [0.3, 0.5]], "object_id": 1, "start_time": 0, "end_time": 0}
    good = {"sequence": "a", "annotated_frame": 0, "scribbles": [[line], [], [{**line, "object_id": 0}], [], [], []]}
    wild = {**good, "scribbles": [[{**line, "path": [[1e300, -1e300], [-1e300, 1e300], [0.5, 0.5]]}]]}
    return [json.dumps(good).encode(), json.dumps(wild).encode(), b'{"scribbles": [[{"path": [[1]], "object_id": 2}]]}']


def _scribbles(data: bytes, folder: Path) -> None:
    from napari_ivos.regions import Box

    path = folder / "strokes.json"
    path.write_bytes(data)
    for scribbles in read_davis(path, SHAPE):
        for stroke in scribbles.strokes:
            stroke.box(SHAPE[1:])
        covered_pixels(scribbles.strokes, SHAPE[1:])
        rasterise(scribbles.strokes, Box(2, 2, 30, 30), (32, 32))
    _start(path)


def _start(strokes: Path) -> None:
    """Begin a session with a file of strokes as the command line and the batch do, twice."""
    from napari_ivos import FakePredictor, Session
    from napari_ivos.session.starts import new_strokes, read_starts

    with Session(movie(), FakePredictor()) as session:
        for _ in range(2):
            for scribbles in read_starts(session.shape, strokes, None, None).strokes:
                new = new_strokes(session, scribbles)
                if new:
                    session.interact(Scribbles(scribbles.frame, new))
        next(iter(session.propagate()), None)


# -- label images


def _painted_seeds() -> list[bytes]:
    from PIL import Image

    image = np.zeros(SHAPE[1:], np.uint8)
    image[5:9, 3:30], image[20:30, 10:12] = 1, 2
    found = []
    for kind, mode in (("png", "P"), ("png", "L"), ("png", "I;16"), ("bmp", "P"), ("gif", "P")):
        file = io.BytesIO()
        picture = Image.fromarray(image.astype(np.uint16) if mode == "I;16" else image)
        (picture.convert(mode) if mode in "PL" else picture).save(file, kind)
        found.append(kind.encode().ljust(4) + file.getvalue())
    for kind, values in (("npy", image), ("tif", np.stack([image] * SHAPE[0]))):
        found.append(kind.encode().ljust(4) + (_npy(values) if kind == "npy" else _tiff(values, compression="zlib")))
    return found


def _painted(data: bytes, folder: Path) -> None:
    from napari_ivos.frames.painted import label_images

    kind = data[:4].strip()
    ending = kind.decode() if kind in (b"png", b"bmp", b"gif", b"npy", b"tif") else "png"
    path = folder / f"labels.{ending}"
    path.write_bytes(data[4:])
    for frame, image in label_images(path, SHAPE).items():
        Scribbles.from_labels(frame, image, background=9)


# -- images and arrays


def _npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def _image_seeds() -> list[bytes]:
    from PIL import Image

    colours = np.stack([movie()[0], movie()[1], movie()[2]], -1)
    found = [b"npy " + _npy(movie()), b"npy " + _npy(movie().astype("<f4"))]
    for kind in ("png", "jpeg", "bmp", "webp", "tiff"):
        for values in (movie()[0], colours):
            file = io.BytesIO()
            Image.fromarray(values).save(file, kind)
            found.append(kind[:4].encode().ljust(4) + file.getvalue())
    import imagecodecs

    return [*found, b"png " + imagecodecs.png_encode(colours.astype(np.uint16) * 200)]


def _images(data: bytes, folder: Path) -> None:
    endings = {b"npy": "npy", b"png": "png", b"jpeg": "jpg", b"bmp": "bmp", b"webp": "webp", b"tiff": "tif"}
    ending = endings.get(data[:4].strip(), "png")
    inside = folder / "frames"
    inside.mkdir()
    path = inside / f"f0.{ending}"
    path.write_bytes(data[4:])
    look_at(path if ending in ("npy", "tif") else inside)


def look_at(path: Path) -> None:
    """Open a stack and read from it what a session would."""
    from napari_ivos import open_frames
    from napari_ivos.errors import InputError
    from napari_ivos.regions import Box

    try:
        opened = open_frames(path)
    except InputError as error:
        if "axes" not in str(error):
            raise
        return
    with opened as stack:
        frames, height, width = stack.shape
        stack.describe()
        str(stack.hint)
        stack.fingerprint()
        for frame in {0, frames // 2, frames - 1}:
            stack.read(frame, Box(0, 0, min(height, 64), min(width, 64)))
            stack.raw(frame, Box(max(height - 8, 0), max(width - 8, 0), height, width))


# -- TIFF


def _tiff(values: np.ndarray, **options: object) -> bytes:
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)  # type: ignore[arg-type]
    return file.getvalue()


def _tiff_seeds() -> list[bytes]:
    grey = movie()
    colours = np.stack([grey] * 3, -1)
    found = [
        _tiff(grey, imagej=True),
        _tiff(grey, photometric="minisblack"),
        _tiff(grey, ome=True, metadata={"axes": "TYX"}),
        _tiff(grey, bigtiff=True, photometric="minisblack", compression="lzw"),
        _tiff(colours, photometric="rgb", tile=(16, 16), compression="zlib", predictor=True),
        _tiff(grey.astype(np.uint16), photometric="minisblack", compression="zstd", rowsperstrip=8),
        _tiff(grey.astype(np.float32), photometric="minisblack", byteorder=">", metadata=None),
        _tiff(np.stack([grey] * 2, 1), ome=True, metadata={"axes": "TCYX"}, compression="deflate"),
        _tiff(colours, photometric="rgb", compression="jpeg"),
    ]
    ome = found[2]
    at = ome.find(b"<TiffData")
    return [*found, *(ome.replace(ome[at : at + 60], part.ljust(60)) for part in _OME_PARTS if at > 0)]


_OME_PARTS = (
    b'<TiffData IFD="0"><UUID FileName="../x.tif">urn:uuid:1</UUID>',
    b'<TiffData IFD="0"><UUID FileName="/etc/passwd">u</UUID></Tiff',
    b'<TiffData FirstT="99999" IFD="1" PlaneCount="99999999"/>',
)
_TIFF_TOKENS = (
    *(b"SizeT=", b"SizeX=", b"FileName=", b"PlaneCount=", b"<UUID", b"</UUID>", b"images=", b"slices=", b"frames="),
    *(b"ImageJ=1.11a\n", b'{"shape": [', b"hyperstack=true\n", b"<Pixels ", b"DimensionOrder=", b"<TiffData "),
    *(b"\x00\x01\x04\x00", b"\x01\x01\x04\x00", b"\x16\x01\x04\x00", b"\x42\x01\x04\x00", b"\x43\x01\x04\x00"),
    *(b"\x03\x01\x03\x00", b"\x02\x01\x03\x00", b"\x15\x01\x03\x00", b"\x11\x01\x04\x00", b"\x17\x01\x04\x00"),
)


def _tiffs(data: bytes, folder: Path) -> None:
    path = folder / "stack.tif"
    path.write_bytes(data)
    look_at(path)


# -- zarr


@functools.cache
def _zarr_files() -> list[dict[str, bytes]]:
    """Small zarr folders of every kind that is read, as paths and contents."""
    import zarr
    from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

    found = []
    for codec in (BloscCodec(cname="lz4"), GzipCodec(), ZstdCodec()):
        store: dict[str, Any] = {}
        made = zarr.create_array(store, shape=SHAPE, chunks=(1, 20, 24), dtype="u1", compressors=codec)
        made[:] = movie()
        found.append(_contents(store))
    for name in ("zlib", "bz2", "lzma", "lz4", "blosc"):
        import numcodecs

        store = {}
        codec2 = numcodecs.get_codec({"id": name})
        made = zarr.create_array(store, shape=SHAPE, chunks=(1, 20, 24), dtype="u2", zarr_format=2, compressors=codec2)
        made[:] = movie()
        found.append(_contents(store))
    for version, key in ((2, None), (3, "ome")):
        store = {}
        group = zarr.create_group(store, zarr_format=version)  # type: ignore[arg-type]
        made = group.create_array("0", shape=SHAPE, chunks=(1, 20, 24), dtype="u1")
        made[:] = movie()
        axes = [{"name": n, "type": t} for n, t in (("t", "time"), ("y", "space"), ("x", "space"))]
        ome: Any = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]}
        group.attrs.update(ome if key is None else {key: ome})
        found.append(_contents(store))
    return found


def _contents(store: dict[str, Any]) -> dict[str, bytes]:
    return {name: value.to_bytes() for name, value in sorted(store.items())}


def _zarr_seeds() -> list[bytes]:
    """First byte: which folder; second: which of its files; the rest: what that file holds."""
    found = []
    for k, files in enumerate(_zarr_files()):
        names = list(files)
        texts = [i for i, n in enumerate(names) if n.rsplit("/", 1)[-1] in ("zarr.json", ".zarray", ".zattrs")]
        chunks = [i for i in range(len(names)) if i not in texts][:1]
        found += [bytes((k, i)) + files[names[i]] for i in (*texts, *chunks)]
    return found


_ZARR_TOKENS = (
    *(b'"shape":', b'"chunks":', b'"chunk_shape":', b'"codecs":', b'"filters":', b'"compressor":', b'"dtype":'),
    *(b'{"id":"pickle","protocol":4}', b'{"name":"numcodecs.pickle"}', b'"|O"', b'"path":"../../x"', b'"path":"/etc"'),
    *(b'{"id":"vlen-utf8"}', b'{"id":"delta","dtype":"<u2"}', b'"sharding_indexed"', b'"data_type":', b'"<M8[ns]"'),
    *(
        b"9223372036854775807",
        b"1099511627776",
        b'"multiscales":',
        b'"datasets":',
        b'"axes":',
        b'"plate":',
        b'"omero":',
    ),
)


def _zarr(data: bytes, folder: Path) -> None:
    if len(data) < 2:
        return
    files = _zarr_files()[data[0] % len(_zarr_files())]
    chosen = list(files)[data[1] % len(files)]
    for name, content in files.items():
        path = folder / "movie.zarr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[2:] if name == chosen else content)
    look_at(folder / "movie.zarr")


# -- video


def _video_seeds() -> list[bytes]:
    import av

    found = []
    for kind, codec in (("mp4", "mpeg4"), ("avi", "mjpeg"), ("matroska", "mpeg4"), ("mov", "png")):
        file = io.BytesIO()
        with av.open(file, "w", format=kind) as container:
            stream: Any = container.add_stream(codec, rate=10)
            stream.width, stream.height = 48, 40
            stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")
            for frame in movie():
                picture = av.VideoFrame.from_ndarray(np.stack([frame] * 3, -1), "rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        found.append(kind.encode()[:4].ljust(4) + file.getvalue())
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n"
    return [
        *found,
        b"mp4 " + playlist,
        b"mp4 ffconcat version 1.0\nfile '/etc/passwd'\n",
        b"mp4 v=0\nm=video 1 RTP/AVP 96",
    ]


def _video(data: bytes, folder: Path) -> None:
    endings = {b"mp4": "mp4", b"avi": "avi", b"matr": "mkv", b"mov": "mov"}
    path = folder / f"movie.{endings.get(data[:4].strip(), 'webm')}"
    path.write_bytes(data[4:])
    look_at(path)


# -- weights


@functools.cache
def _tiny_model() -> bytes:
    """The smallest model there is, as its file."""
    from napari_ivos.networks.blocks import Architecture
    from napari_ivos.networks.weights import new_networks, to_bytes

    architecture = Architecture(size=64, width=1, fine_width=1, key=1)
    return to_bytes(*new_networks(architecture), architecture, name="tiny")


def _header_seeds() -> list[bytes]:
    blob = _tiny_model()
    size = int.from_bytes(blob[:8], "little")
    meta = json.loads(blob[8 : 8 + size])["__metadata__"]
    short = json.dumps({"__metadata__": meta}).encode()
    return [len(short).to_bytes(8, "little") + short, b"\x80\x04\x95.", b"PK\x03\x04"]


def _header(data: bytes, folder: Path) -> None:
    from napari_ivos.networks import weights

    path = folder / "m.safetensors"
    path.write_bytes(data)
    facts = weights.describe(path)
    json.dumps(facts)
    weights._architecture(facts["architecture"], "m")


def _weights_seeds() -> list[bytes]:
    """Patches of the tiny model's file: two bytes of place (of 65,536), one of length, the new bytes."""
    size = int.from_bytes(_tiny_model()[:8], "little")
    text = _tiny_model()[8 : 8 + size]
    at = (text.find(b'"F16"') + 9).to_bytes(2, "little")
    kinds = (b'"F64"', b'"I16"', b'"BF16', b'"U8" ', b'"F8" ', b'"I64"', b"[0,0]", b"[1e9]", b"null ")
    found = [at + bytes([len(kind)]) + kind for kind in kinds]
    place = text.find(b"data_offsets")
    return [*found, place.to_bytes(2, "little") + b"\x10data_offset\x00[0,9]", b"\x00\x00\x08" + b"\xff" * 8]


def _weights(data: bytes, folder: Path) -> None:
    from napari_ivos.networks.weights import load_model

    blob = bytearray(_tiny_model())
    while len(data) >= 3:
        at, length = int.from_bytes(data[:2], "little"), data[2]
        blob[at : at + length] = data[3 : 3 + length].ljust(length, b" ")
        data = data[3 + length :]
    path = folder / "m.safetensors"
    path.write_bytes(blob)
    load_model(path, device="cpu")


# -- training settings


def _settings_seeds() -> list[bytes]:
    return [
        b'data = "d"\noutput = "o"\nsteps = 5\n[clips]\nexclude = ["a"]\n[overrides]\nsize = 192\n',
        b'data = ""\noutput = "o"\nlearning_rate = 1e-3\namp = true\nclips = 3\n',
    ]


def _settings(data: bytes, folder: Path) -> None:
    from napari_ivos.training.settings import TrainingSettings

    path = folder / "run.toml"
    path.write_bytes(data)
    TrainingSettings.from_toml(path).to_dict()


# -- manifests


def _manifest_seeds() -> list[bytes]:
    """A first byte for the format, then the text."""
    stack = {"input": "a.tif", "scribbles": "a.json", "name": "a", "output": "labels.tif", "contrast": [0, 5]}
    whole = {"output": "results", "format": ["table"], "index": {"Z": 1}, "stacks": [stack, {**stack, "name": "b"}]}
    return [
        b"j" + json.dumps(whole).encode(),
        b"j" + json.dumps([{**stack, "name": "..", "output": "../../x"}]).encode(),
        b"j" + json.dumps([{**stack, "project": "\ud800", "contrast": [1, 10**400]}]).encode(),
        b"cname,input,scribbles,output,frame\na,a.tif,a.json,labels.tif,3\nb,/b.tif,b.json,/etc/x,0\n",
        b"cname;input;masks;index\nA;a.tif;a.png;Z=3\na;//server/a.tif;a.png;Z=1\n",
    ]


_MANIFEST_TOKENS = (
    *(b'"stacks":', b'"input":', b'"output":', b'"name":', b'"project":', b'"contrast":', b'"\\ud800"', b"../", b"CON"),
    *(
        b"https://x/y",
        b"\\\\\\\\server\\\\x",
        b"C:/x",
        b"name,input,masks,output\n",
        b"..\\\\",
        b"\x00",
        b'"a/../../b"',
    ),
)


def _manifest(data: bytes, folder: Path) -> None:
    from napari_ivos.batch.manifest import read_manifest

    inside = folder / "inside"
    inside.mkdir()
    path = inside / ("m.json" if data[:1] == b"j" else "m.csv")
    path.write_bytes(data[1:])
    for output in (None, inside / "results"):
        found = read_manifest(path, output)
        for entry in found.entries:
            for place in (entry.kept, entry.record, entry.output):
                if not place.resolve().is_relative_to(inside.resolve()):
                    raise AssertionError(f"{place} is outside of {inside}")


# -- the bytes inside a project


def _blob_seeds() -> list[bytes]:
    from napari_ivos.project.blobs import pack_array, pack_cells

    cells = np.zeros((12, 9), np.uint8)
    return [b"c" + pack_cells(cells), b"a" + pack_array(np.ones((5, 2))), b"a" + pack_array(np.ones((3, 3), "<f2"))]


def _blobs(data: bytes, folder: Path) -> None:
    from napari_ivos.project.blobs import unpack_array, unpack_cells

    if data[:1] == b"c":
        unpack_cells(data[1:], (40, 48), "A mask")
    else:
        unpack_array(data[1:], "An array")


# -- projects


@functools.cache
def _project_file() -> bytes:
    """A project with strokes, paint, propagated masks, an undone step and a stored model."""
    import tempfile
    from pathlib import Path

    from napari_ivos import FakePredictor, Session

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ivos"
        with Session(movie(), FakePredictor(), path) as session:
            session.interact(Scribbles(2, [Stroke(1, [(15, 14), (15, 20)])]))
            list(session.propagate())
            painted = np.zeros(SHAPE[1:], np.uint16)
            painted[30:36, 30:40] = 2
            session.annotate(3, painted)
            session.divide(1, 4, 2)
            session.lock(2)
            session.rename(2, "cell")
            session.store_model("m", "abc", b"weights" * 9)
            session.undo()
        return path.read_bytes()


def _project_seeds() -> list[bytes]:
    return [_project_file()]


def _project_bytes(data: bytes, folder: Path) -> None:
    path = folder / "a.ivos"
    path.write_bytes(data)
    use_project(path)


def use_project(path: Path) -> None:
    """Open a project and do with it what people do."""
    from napari_ivos import FakePredictor, Session
    from napari_ivos.cli.facts import project_facts

    json.dumps(project_facts(path))
    with Session.open(path, frames=movie(), model=FakePredictor(), force=True) as session:
        _look_into(session)
        if not session.read_only:
            _work_on(session, path)


def _look_into(session: Session) -> None:
    """Ask a session for everything that it knows."""
    frames = range(min(session.shape[0], 8))
    _ = [np.asarray(session.labels[t]) for t in frames], np.asarray(session.quality[: len(frames)])
    session.masks(0)
    for record in session.strokes():
        Stroke(record.object_id, record.points)
    for model in session.stored_models:
        session.stored_weights(model.checksum)
    _ = session.suggest_frame(), session.accepted, session.rounds, session.adapted, session.annotated_frames()
    for step in session.log:
        session.objects_after(step.number)
        if step.kind == "annotate" and step.state > 0:
            session.painted_by(step.number)
    for known in session.objects:
        session.changed_frames(known.id)


def _work_on(session: Session, path: Path) -> None:
    """Do with a session what people do."""
    session.redo()
    session.undo(to="round")
    session.catch_up()
    session.interact(Scribbles(1, [Stroke(7, [(14, 10), (15, 16)])]))
    for count, _ in enumerate(session.propagate()):
        if count > 12:
            break
    session.accept(2)
    session.undo()
    session.accept(1, False)
    session.compact()
    for name in ("table.csv", "labels.ome.tif", "coco.json"):
        session.export(path.with_name(name))


def _row_seeds() -> list[bytes]:
    """Edits of rows: table, column, row, kind of value, its length, its bytes."""
    found = [bytes((t, c, 0, kind, 8)) + b"\xff" * 8 for t in range(9) for c in range(3) for kind in range(6)]
    return [*found, b"".join(found[:20])]


def _project_rows(data: bytes, folder: Path) -> None:
    import sqlite3

    path = folder / "a.ivos"
    path.write_bytes(_project_file())
    connection = sqlite3.connect(path)
    try:
        tables = [r[0] for r in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        while len(data) >= 5:
            _edit_row(connection, tables, data)
            data = data[5 + data[4] :]
        connection.commit()
    finally:
        connection.close()
    use_project(path)


def _edit_row(connection: object, tables: list[str], data: bytes) -> None:
    import sqlite3

    if not isinstance(connection, sqlite3.Connection):
        return
    table = tables[data[0] % len(tables)]
    columns = [r[1] for r in connection.execute(f"PRAGMA table_info({table})")]
    column = columns[data[1] % len(columns)]
    value = _value(data[3], data[5 : 5 + data[4]])
    keys = ", ".join(r[1] for r in connection.execute(f"PRAGMA table_info({table})") if r[5])
    pick = f"({keys}) = (SELECT {keys} FROM {table} ORDER BY {keys} LIMIT 1 OFFSET {data[2] % 24})"
    try:
        connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ? WHERE {pick}", (value,))
    except (sqlite3.Error, OverflowError):
        return


def _value(kind: int, raw: bytes) -> object:
    """A value of a kind: numbers small and huge, text, bytes, JSON."""
    number = int.from_bytes(raw[:8].ljust(8, b"\0"), "little", signed=True)
    texts = ("", "[[[[" * 2000, "9" * 5000, "null", "[6, 40, 48]", "[2147483648, 1048576, 1048576]", '{"path": "/etc"}')
    choices: tuple[object, ...] = (
        *(number, number % 256, -1, raw, raw.decode("latin-1"), number / 7.0, 1e308, float("inf"), b"", 0, 1, 2, 3),
        *texts,
        '{"path": "../../../../etc/passwd", "options": {"axes": 5, "index": {"Z": "x"}}}',
        '{"name": [], "options": {"contrast": "x", "channels": [1e99]}}',
    )
    return choices[kind % len(choices)]


TARGETS = {
    target.name: target
    for target in (
        Target(
            "scribbles",
            _scribble_seeds,
            _scribbles,
            (b'"path":', b'"object_id":', b'"scribbles":'),
            1 << 14,
            400,
            100_000,
        ),
        Target(
            "settings",
            _settings_seeds,
            _settings,
            (b"clips", b"[[", b"exclude", b"data", b"steps"),
            1 << 13,
            400,
            100_000,
        ),
        Target("manifest", _manifest_seeds, _manifest, _MANIFEST_TOKENS, 1 << 13, 400, 50_000),
        Target("blobs", _blob_seeds, _blobs, (b"IVP1", b"IVA1"), 1 << 12, 400, 100_000),
        Target(
            "weights-header",
            _header_seeds,
            _header,
            (b"__metadata__", b"architecture", b"format", b"encoder"),
            1 << 13,
            200,
            50_000,
        ),
        Target("weights", _weights_seeds, _weights, (b"F16", b"F64", b"shape", b"data_offsets"), 1 << 10, 15, 1_000),
        Target("painted", _painted_seeds, _painted, (b"IHDR", b"PLTE", b"IDAT"), 1 << 14, 100, 20_000),
        Target(
            "images",
            _image_seeds,
            _images,
            (b"IHDR", b"iCCP", b"{'descr': '|O'", b"fortran_order"),
            1 << 15,
            80,
            20_000,
        ),
        Target("tiff", _tiff_seeds, _tiffs, _TIFF_TOKENS, 1 << 16, 60, 20_000),
        Target("zarr", _zarr_seeds, _zarr, _ZARR_TOKENS, 1 << 13, 40, 10_000),
        Target(
            "video", _video_seeds, _video, (b"moov", b"trak", b"stts", b"#EXTM3U", b"RIFF", b"LIST"), 1 << 16, 25, 3_000
        ),
        Target(
            "project-bytes",
            _project_seeds,
            _project_bytes,
            (b"CREATE TRIGGER t", b"CREATE VIEW v"),
            1 << 18,
            30,
            10_000,
        ),
        Target("project-rows", _row_seeds, _project_rows, (), 1 << 12, 25, 10_000),
    )
}
