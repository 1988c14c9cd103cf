"""Correct a result in a second round: what changes, what stays, and how to take it back."""

import numpy as np
import tifffile

import napari_ivos as ivos
from napari_ivos.scribbles import read_davis

truth = tifffile.imread("sample_data/toy_masks.tif")

with ivos.Session("sample_data/toy.tif", ivos.load_model()) as session:
    session.interact(read_davis("sample_data/toy_scribbles.json", session.shape)[0])
    for _ in session.propagate():
        pass
    first = np.asarray(session.labels).copy()

    frame = session.suggest_frame()
    session.annotate(frame, truth[frame].astype(np.uint16))  # painted by hand, say
    changed = [result.frame for result in session.propagate()]
    print(f"round 2 from frame {frame}: frames {min(changed)} to {max(changed)} changed, 12 stays yours")

    session.undo(to="round")
    print(f"undone: {bool((np.asarray(session.labels) == first).all())}")
