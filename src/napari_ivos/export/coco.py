"""COCO: one JSON file, each object on each frame an annotation with its run lengths.

Run lengths count pixels down the columns, one column after another, beginning with background. Compressed, each count
(from the fourth on its difference from the count before last) is written in characters of 5 bits from the lowest on:
bit 6 says that more follow, and 48 is added to make them printable.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_ivos.export.images import digits_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_ivos.export.content import Content, Outline
    from napari_ivos.export.images import Tick
    from napari_ivos.regions import Box


def run_lengths(mask: npt.NDArray[np.bool_], box: Box, shape: tuple[int, int]) -> list[int]:
    """Count the runs of a mask (h, w) that lies at `box` in an image of `shape` (H, W), of which only it is looked at.

    Returns
    -------
    list of int
        Pixels of background, of object, of background ... down the columns; they sum to H * W.
    """
    height, width = shape
    down = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)  # an edge before and after each column
    down[:, 1:-1] = mask.T
    columns, edges = np.nonzero(np.diff(down, axis=1))
    places = (columns + box.x0) * height + edges + box.y0  # where something begins or ends, ascending
    if places.size == 0:
        return [height * width]
    ends, begins = places[1::2], places[::2]
    apart = np.append(begins[1:] != ends[:-1], True)  # a run may go on from the foot of a column to the next one's head
    begins, ends = begins[np.insert(apart[:-1], 0, True)], ends[apart]
    bounds = np.stack([begins, ends], 1).ravel()
    counts: list[int] = np.diff(np.concatenate(([0], bounds, [height * width]))).tolist()
    return counts if counts[-1] else counts[:-1]


def encode_rle(counts: Sequence[int]) -> str:
    """Compress run lengths into COCO's string."""
    text = []
    for place, count in enumerate(counts):
        left = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            bits = left & 0x1F
            left >>= 5
            more = left != (-1 if bits & 0x10 else 0)
            text.append(chr((bits | 0x20 if more else bits) + 48))
    return "".join(text)


def decode_rle(text: str) -> list[int]:
    """Run lengths of COCO's compressed string."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def coco(content: Content, path: Path, tick: Tick, compressed: bool = True) -> None:
    """Write COCO instance annotations: an image a frame, a category an object, an annotation an object on a frame.

    Parameters
    ----------
    content, path, tick
        What, where to, and the progress.
    compressed : bool
        Run lengths as COCO's string, or as a list of numbers.
    """
    frames, height, width = content.shape
    digits = digits_for(frames, 5)
    seen: set[int] = {o.id for o in content.objects}
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info": {"description": "labels of napari-ivos"}, "licenses": [],\n"images": [\n')
        for frame in range(frames):
            image = {"id": frame, "file_name": f"{frame:0{digits}d}.png", "height": height, "width": width}
            file.write(json.dumps(image) + (",\n" if frame < frames - 1 else "\n"))
        file.write('],\n"annotations": [\n')
        number = 0
        for frame in range(frames):
            for object_id, outline in content.outlines(frame).items():
                number += 1
                seen.add(object_id)
                annotation = _annotation(content, frame, object_id, outline, compressed) | {"id": number}
                file.write((",\n" if number > 1 else "") + json.dumps(annotation))
            tick(frame + 1)
        categories = [{"id": i, "name": content.object(i).name, "supercategory": "object"} for i in sorted(seen)]
        file.write('\n],\n"categories": ' + json.dumps(categories) + "}\n")


def _annotation(content: Content, frame: int, object_id: int, outline: Outline, compressed: bool) -> dict[str, Any]:
    box = outline.box
    counts = run_lengths(content.cut(frame, box) == object_id, box, content.shape[1:])
    return {
        "image_id": frame,
        "category_id": object_id,
        "track_id": object_id,
        "segmentation": {"size": list(content.shape[1:]), "counts": encode_rle(counts) if compressed else counts},
        "area": outline.area,
        "bbox": [box.x0, box.y0, box.width, box.height],
        "iscrowd": 0,
    }
