"""Start all objects from another program's labels of one frame, and tell where an object ends."""

import numpy as np
import tifffile

import napari_ivos as ivos

# What Cellpose or StarDist would give for frame 20; here it is the sample's known mask of that frame.
labels = tifffile.imread("sample_data/cells_masks.tif", key=20).astype(np.uint16)

with ivos.Session("sample_data/cells.tif", ivos.load_model()) as session:
    session.annotate(20, labels)
    session.end_object(3, 40)  # gone from frame 40 on
    for _ in session.propagate(start=15, stop=45):
        pass
    areas = [np.count_nonzero(session.labels[t] == 3) for t in (20, 39, 40)]
    print(f"object 3 has {areas[0]} px on frame 20, {areas[1]} on frame 39, {areas[2]} on frame 40")
