"""Segment every stack of a folder that has scribbles beside it; a bad file fails alone.

For many stacks on many machines there is ``napari-ivos batch``.
"""

from pathlib import Path

import napari_ivos as ivos
from napari_ivos.scribbles import read_davis

model = ivos.load_model()
for path in sorted(Path("sample_data").glob("*.tif")):
    strokes = path.with_name(f"{path.stem}_scribbles.json")
    if not strokes.exists():
        continue
    try:
        with ivos.open_frames(path) as stack, ivos.Session(stack, model) as session:
            for scribbles in read_davis(strokes, stack.shape):
                session.interact(scribbles)
            frames = sum(1 for _ in session.propagate(start=8, stop=28))
            session.export(f"{path.stem}_labels.tif", overwrite=True)
    except ivos.IvosError as error:
        print(f"{path.name}: {error}")
    else:
        print(f"{path.name}: {frames} frames propagated")
