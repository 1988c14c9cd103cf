"""Exports: labels and objects as the files that other programs read, frame by frame, whatever the number of frames.

The rule: what lives here reads labels, objects and frames through their public faces and writes files; it changes no
session. A file or folder appears under its name only when it is whole.
"""

from __future__ import annotations

from napari_ivos.export.coco import decode_rle, encode_rle
from napari_ivos.export.content import Content, ObjectFacts
from napari_ivos.export.pictures import picture
from napari_ivos.export.writing import FORMATS, Format, Written, check_apart, check_target, export, format_of

__all__ = [
    "FORMATS",
    "Content",
    "Format",
    "ObjectFacts",
    "Written",
    "check_apart",
    "check_target",
    "decode_rle",
    "encode_rle",
    "export",
    "format_of",
    "picture",
]
