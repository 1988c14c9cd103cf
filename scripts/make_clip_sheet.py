"""Contact sheets of what the networks are trained on: synthetic clips, and strokes of the simulated annotator.

``python scripts/make_clip_sheet.py DATA docs/images [--seed 0]``

Writes ``clips.webp``, ``scribbles.webp`` and ``clips.txt``, which names every source that is shown, with its licence.
Sources that show people, and share-alike ones, are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from napari_ivos.scribbles import Stroke
from napari_ivos.training import annotator
from napari_ivos.training.card import read_sources
from napari_ivos.training.clips import TARGET, Clip, ClipSettings, ClipSource
from napari_ivos.training.pictures import draw_frame, draw_strokes, sheet

LEFT_OUT = ("clothing_person_parts", "fib25_em_z000_119", "fib25_em_y_even")
CLIPS_A_ROW, ROWS = 4, 8
SIDE = 144


def clips_sheet(clips: list[Clip]) -> Image.Image:
    """Four clips a row, three frames each; the target is outlined in orange, other objects in blue."""
    strips = [sheet([[draw_frame(f, m) for f, m in zip(c.frames, c.labels, strict=True)]]) for c in clips]
    return Image.fromarray(sheet([strips[k : k + CLIPS_A_ROW] for k in range(0, len(strips), CLIPS_A_ROW)]))


def scribbles_sheet(clips: list[Clip]) -> Image.Image:
    """A row a style of stroke, then first strokes as they come, then corrections of a shifted mask."""
    rows = []
    shown = [(c, int(np.argmax((c.labels == TARGET).sum((1, 2))))) for c in clips]
    for n, style in enumerate(annotator.STYLES):
        row = []
        for k, (clip, t) in enumerate(shown[:8]):
            lines = annotator.draw_on(clip.labels[t] == TARGET, np.random.default_rng([n, k]), style)
            row.append(_drawn(clip, t, [Stroke(1, line) for line in lines]))
        rows.append(row)
    for start in (0, 8):
        row = []
        for k, (clip, t) in enumerate(shown[start : start + 8]):
            row.append(_drawn(clip, t, annotator.first_strokes(clip.labels[t], TARGET, np.random.default_rng([99, k]))))
        rows.append(row)
    rows.append([_corrected(clip, t, k) for k, (clip, t) in enumerate(shown[:8])])
    return Image.fromarray(sheet(rows))


def _drawn(clip: Clip, t: int, strokes: list[Stroke]) -> np.ndarray:
    return draw_strokes(draw_frame(clip.frames[t], clip.labels[t]), strokes)


def _corrected(clip: Clip, t: int, seed: int) -> np.ndarray:
    """A mask that is the truth moved by a fifth of its extent, and the strokes that mend it."""
    truth = clip.labels[t] == TARGET
    extent = int(max(np.ptp(np.flatnonzero(truth.any(axis))) for axis in (0, 1))) + 1
    wrong = np.roll(truth, (extent // 5, extent // 5), (0, 1))
    strokes = annotator.corrections(truth, wrong, np.random.default_rng(seed))
    return draw_strokes(draw_frame(clip.frames[t], truth.astype(np.uint8), wrong), strokes)


def attribution(clips: list[Clip], data: Path) -> str:
    """The sources that were drawn from, a line each."""
    table = read_sources(data)
    lines = ["Pictures in clips.webp and scribbles.webp: source, from, licence as declared there.", ""]
    drawn = {c.source for c in clips if not c.source.startswith("volume of ")}
    shown = sorted(drawn - {"shapes", "real", "cutouts"}) + ["emoji_fluent3d", "cutouts_3dgen"]
    shown += ["cancer_migration_auto", "usiigaci_t98g"]
    for name in shown:
        source = table.get(name)
        lines.append(f"{name}: {source.origin}: {source.licence}" if source else f"{name}: not stated")
    lines += ["", "Cut, moved, bent, mixed and re-coloured by scripts/make_clip_sheet.py."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Draw, write, say how large."""
    parser = argparse.ArgumentParser(description="Draw contact sheets of training clips and strokes.")
    parser.add_argument("data", type=Path, help="training data")
    parser.add_argument("output", type=Path, help="folder for the sheets")
    parser.add_argument("--seed", type=int, default=0, help="of the first clip (0)")
    options = parser.parse_args()
    source = ClipSource(options.data, ClipSettings(side=SIDE, frames=3, exclude=LEFT_OUT))
    clips = [source.draw(options.seed + k) for k in range(CLIPS_A_ROW * ROWS)]
    clips.sort(key=lambda c: c.source)
    options.output.mkdir(parents=True, exist_ok=True)
    mixed = [clips[k] for k in np.random.default_rng(options.seed).permutation(len(clips))]
    for name, picture in {"clips": clips_sheet(clips), "scribbles": scribbles_sheet(mixed)}.items():
        path = options.output / f"{name}.webp"
        picture.save(path, quality=72, method=6)
        print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size // 1024} KB")
    (options.output / "clips.txt").write_text(attribution(clips, options.data), encoding="utf-8")


if __name__ == "__main__":
    main()
