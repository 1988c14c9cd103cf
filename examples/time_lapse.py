"""Strokes on one frame of a time-lapse to labels and a table; and going on where the project was left."""

from pathlib import Path

import napari_ivos as ivos
from napari_ivos.scribbles import read_davis

project = Path("cells_example.ivos")
project.unlink(missing_ok=True)
stack = ivos.open_frames("sample_data/cells.tif")
model = ivos.load_model()

with ivos.Session(stack, model, project=project) as session:
    for scribbles in read_davis("sample_data/cells_scribbles.json", stack.shape):
        session.interact(scribbles)
    for count, _ in enumerate(session.propagate(direction="forward"), start=1):
        if count == 5:
            break  # as if the power had gone: what is done is kept

with ivos.Session.open(project, frames=stack, model=model) as session:
    print(f"{session.remaining()} frames to do")
    for _ in session.propagate():
        pass
    session.export("cells_example.ome.tif", overwrite=True)
    session.export("cells_example.csv", overwrite=True)
    print(f"{len(session.objects)} nuclei; look at frame {session.suggest_frame()}")
