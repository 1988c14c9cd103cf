"""The codecs of a zarr folder from a stranger: which are taken, and how much a chunk may become when it is unpacked.

Only codecs that turn numbers into numbers are taken: none that runs code when it reads (pickle), none of another
package that happens to be installed. An array that somebody opened in Python and hands over is theirs, and left alone.
"""

from __future__ import annotations

import asyncio
import bz2
import lzma
import math
import zlib
from typing import TYPE_CHECKING, Any

from napari_ivos.errors import InputError
from napari_ivos.untrusted import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

TAKEN = frozenset(
    {
        *("bytes", "endian", "transpose", "sharding_indexed", "delta", "shuffle", "bitround", "quantize", "packbits"),
        *("fixedscaleoffset", "astype", "crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"),
        *("blosc", "zstd", "lz4", "gzip", "zlib", "bz2", "lzma"),
    }
)
"""Codecs that are taken, without the prefix "numcodecs."."""
GROWTH = 16
"""A chunk may unpack to so many times the bytes that its array declares; filters may narrow numbers in between."""
_SLACK = 1 << 20
_ZSTD_BLOCK = 1 << 17


def check_codecs(array: Any, name: str) -> None:
    """Refuse an array with codecs that are not taken or with huge chunks, and bound what its chunks may become.

    Parameters
    ----------
    array : zarr.Array
        Just opened from a folder.
    name : str
        How messages call it.

    Raises
    ------
    InputError
        Names the codec, or the size of a chunk.
    """
    found = set(_names(array.metadata.to_dict()))
    strange = sorted(found - TAKEN)
    if strange:
        raise InputError(
            f"{name} is packed with {', '.join(strange)}, which is not taken from files: it may be unknown, or run "
            "code when it is read. If you trust it, open it with zarr and hand it over: open_frames(zarr.open(...))."
        )
    steps = [*array.chunks, *(getattr(array, "shards", None) or ())]
    size = math.prod(array.chunks) * array.dtype.itemsize
    if size > CHUNK_BYTES or min(steps, default=1) < 1:
        raise InputError(
            f"{name} declares chunks of {tuple(array.chunks)}, {size / 2**30:,.1f} GB unpacked; chunks up to "
            f"{CHUNK_BYTES / 2**30:,.1f} GB are read. If that is true, rechunk it; else its metadata are damaged."
        )
    _bound(array)


def _names(metadata: dict[str, Any]) -> Iterator[str]:
    """Names of all codecs in the metadata of either format, those inside shards too."""
    listed = [*(metadata.get("codecs") or ()), *(metadata.get("filters") or ()), metadata.get("compressor")]
    for one in listed:
        if isinstance(one, dict):
            yield str(one.get("id", one.get("name", ""))).removeprefix("numcodecs.")
            inside = one.get("configuration")
            if isinstance(inside, dict):
                yield from _names({"codecs": [*inside.get("codecs", ()), *inside.get("index_codecs", ())]})


# -- unpacking with a limit


def _bound(array: Any) -> None:
    """Put limited versions of an array's codecs in the place of zarr's, which unpack whatever a chunk claims to be."""
    pipeline = array._async_array.codec_pipeline  # no public way leads to the codecs in use
    for codec in [*getattr(array.metadata, "codecs", ()), *pipeline]:
        _bound_codec(codec)


def _bound_codec(codec: Any) -> None:
    from zarr.abc.codec import BytesBytesCodec

    for inside in getattr(codec, "codecs", ()):
        _bound_codec(inside)
    packer = getattr(codec, "compressor", None)
    if packer is not None and not isinstance(packer, _Limited):
        object.__setattr__(codec, "compressor", _Limited(packer))
    if isinstance(codec, BytesBytesCodec) and not hasattr(codec, "_limited"):
        name = str(codec.to_dict()["name"]).removeprefix("numcodecs.")
        object.__setattr__(codec, "__class__", _limited_kind(type(codec), name))


def _limited_kind(kind: type[Any], name: str) -> type[Any]:
    """The class of a codec of format 3 that checks before it unpacks; copies that zarr makes of it do so too."""

    async def decode(self: Any, chunk_bytes: Any, chunk_spec: Any) -> Any:
        declared = math.prod(chunk_spec.shape) * chunk_spec.dtype.item_size
        plain = await asyncio.to_thread(unpack, name, chunk_bytes.to_bytes(), GROWTH * declared + _SLACK)
        if plain is None:
            return await kind._decode_single(self, chunk_bytes, chunk_spec)
        return chunk_spec.prototype.buffer.from_bytes(plain)

    return type(kind.__name__, (kind,), {"_limited": True, "_decode_single": decode})


class _Limited:
    """A compressor of format 2 that checks before it unpacks."""

    def __init__(self, packer: Any) -> None:
        self._packer = packer
        self.codec_id = str(getattr(packer, "codec_id", ""))

    def decode(self, data: Any, out: Any = None) -> Any:
        plain = unpack(self.codec_id, bytes(data), CHUNK_BYTES)
        return self._packer.decode(data, out) if plain is None else plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._packer, name)


def unpack(name: str, data: bytes, most: int) -> bytes | None:
    """Bytes of a packed chunk, or None where its header says that it is small enough to be unpacked by its own codec.

    Raises
    ------
    ValueError
        It becomes more than `most` bytes.
    """
    if name in ("gzip", "zlib"):
        return _inflate(data, most, 31 if name == "gzip" else 15)
    if name in ("bz2", "lzma"):
        machine: Any = bz2.BZ2Decompressor() if name == "bz2" else lzma.LZMADecompressor()
        plain: bytes = machine.decompress(data, most + 1)
        _check(len(plain), most)
        return plain
    if name == "blosc":
        # The first C-Blosc, which zarr uses, crashes on damaged chunks; the second reads the same ones and checks.
        import imagecodecs

        _check(int.from_bytes(data[4:8], "little"), most)
        return bytes(imagecodecs.blosc2_decode(data))
    if name == "lz4" and len(data) >= 4:
        _check(int.from_bytes(data[:4], "little"), most)
    elif name == "zstd":
        _check(_zstd_size(data), most)
    return None


def _check(size: int, most: int) -> None:
    if size > most:
        raise ValueError(f"a chunk unpacks to {size:,} bytes or more; its array leaves room for {most:,}")


def _inflate(data: bytes, most: int, form: int) -> bytes:
    """Deflated bytes, of one member or (gzip) several."""
    parts, left, rest = [], most, data
    while rest:
        machine = zlib.decompressobj(form)
        parts.append(machine.decompress(rest, left + 1))
        left -= len(parts[-1])
        _check(most - left, most)
        if not machine.eof:
            raise ValueError("a chunk is cut short")
        rest = machine.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _zstd_size(data: bytes) -> int:
    """Bytes that a zstd frame declares, or can become at most where it doesn't say."""
    if data[:4] != b"\x28\xb5\x2f\xfd" or len(data) < 6:
        return 0
    descriptor = data[4]
    single, code = bool(descriptor & 0x20), descriptor >> 6
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    width = (1 if single else 0, 2, 4, 8)[code]
    if width:
        return int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)
    size = 0
    while at + 3 <= len(data):
        header = int.from_bytes(data[at : at + 3], "little")
        last, kind, length = header & 1, header >> 1 & 3, header >> 3
        size += length if kind < 2 else _ZSTD_BLOCK
        at += 3 + (1 if kind == 1 else length)
        if last:
            break
    return size
