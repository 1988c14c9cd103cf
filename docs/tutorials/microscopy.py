# %% [markdown]
# # A microscopy time-lapse
#
# You have a movie of nuclei and want to know, for each nucleus and each frame, where it is, how large and how bright.
# This tutorial goes from the movie to the table in the napari window. It uses the simulated cells that come with the
# plugin (`File > Open Sample > napari-ivos`): 48 frames, 16-bit, seven nuclei that move, touch and
# bleach. With your own movie everything is the same: drop the file on napari.
#
# ## 1. Open the stack
#
# Open the sample, then `Layers > Segment > Interactive video segmentation`. The panel says in its first lines what to
# do; everything in it is in the order of the work, from top to bottom.

# %% [folded] How this page drives the window
from pathlib import Path

import napari
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_ivos.plugin import dock
from napari_ivos.plugin.sample_data import cells

viewer = napari.Viewer()
viewer.window._qt_window.resize(1280, 860)
data, options, _ = cells()[0]
viewer.add_image(data, **options)
widget = dock(viewer)
viewer.window._qt_window.resizeDocks([widget.parent()], [360], Qt.Orientation.Horizontal)


def picture(name):
    """A picture of the whole window."""
    for _ in range(4):
        QApplication.processEvents()
    viewer.screenshot(f"{name}.png", canvas_only=False, flash=False)


def draw(frame, points):
    """A stroke of the chosen object, as the mouse draws it: (row, col) pixels."""
    widget.go_to(frame)
    viewer.layers.selection.active.add_paths([[frame, *point] for point in points])
    widget.wait()


picture("window_open")

# %% [markdown]
# ![The window with the sample open, before the start](window_open.png)
#
# ## 2. Start, and draw on a nucleus
#
# Press **Start**. The box *Stack* folds up; *Choose* opens it again. With your first stroke a project file is
# made beside the movie (of a sample, in a folder of your home), and from then on nothing is lost, whatever happens.
#
# Go to a frame on which the nuclei are well apart (here 22) and draw a line along a nucleus. The pen is already in
# your hand: the layer of object 1 is in path mode. When you let go of the mouse, the mask appears. A short line along
# the middle is enough. It should pass over the parts that look different, such as the bright and the dim end.

# %% [folded] How this page drives the window
widget.stack.folder.value = Path.cwd()  # "Project folder", under Advanced
widget.run("start")
widget.wait()
draw(22, [(27, 72), (31, 80), (26, 88), (21, 92)])
picture("window_stroke")

# %% [markdown]
# ![The first stroke and its mask](window_stroke.png)
#
# Wrong mask? Draw another line where it is missing, or press ++k++ and draw **background** where there is too much;
# ++k++ again goes back to the nucleus. ++u++ takes back the last stroke.
#
# ## 3. The other nuclei
#
# ++n++ goes to the next object, with a colour of its own. Draw on the next nucleus, and so on. Strokes of one object
# count as background for all others, so that touching nuclei separate.

# %% [folded] How this page drives the window
from napari_ivos.scribbles import read_davis

sample = viewer.layers[0].metadata["napari_ivos"]
strokes = read_davis(sample["scribbles"], widget.session.shape)[0].strokes
for stroke in strokes:
    if stroke.object_id > 1:
        widget.run("next_object")
        draw(22, stroke.points)
picture("window_objects")

# %% [markdown]
# ![Seven nuclei, each with a stroke and a mask](window_objects.png)
#
# ## 4. Propagate
#
# ++g++ carries all masks to all other frames, forward and backward. You can go on looking around meanwhile; ++q++
# stops and keeps what is done.
#
# The strip below the table is the whole movie, one row for each nucleus: green where the program is sure of its mask,
# yellow and red where it is less and less so, white ticks where you drew (hollow where you said that the nucleus is
# not there), a blue line above frames that you said are right; a thin line on black where it looked for the nucleus and
# found none, grey where it has not been yet. A click on it goes there.

# %% [folded] How this page drives the window
widget.run("propagate")
widget.wait(600)
picture("window_propagated")

# %% [markdown]
# ![All frames are segmented; the strip shows where it may be wrong](window_propagated.png)
#
# ## 5. Look where it matters
#
# ++j++ jumps to the frame with the least certain mask, and names its object. If it is right, ++h++ says so, and ++j++
# goes to the next one; if not, draw there and propagate again: only the frames between your annotated ones change.
# [Correcting well](correcting.md) is a tutorial of its own.
#
# ## 6. The table
#
# **Export** under *Save* writes labels for other programs (OME-TIFF, OME-Zarr, Cell Tracking Challenge, COCO ...), a
# video, and a table with the area, place, intensity and quality of each nucleus in each frame; areas in µm² and times
# in seconds, too, where the movie's file gives the size of a pixel and the time between frames. From napari's console,
# the same:

# %%
session = widget.session
session.export("cells.csv")
print("\n".join(Path("cells.csv").read_text().splitlines()[:4]))

# %% [markdown]
# The sample comes with its true masks, so here we can say how good it is. J is the overlap of a mask with the true
# one: the area they share, divided by the area of both together.

# %%
import numpy as np
import tifffile

truth = tifffile.imread("sample_data/cells_masks.tif")
labels = np.asarray(session.labels)
for nucleus in range(1, 8):
    ours, true = labels == nucleus, truth == nucleus
    print(f"nucleus {nucleus}: J {(ours & true).sum() / (ours | true).sum():.2f}")

# %% [folded] How this page ends
widget.desk.close()
viewer.close()

# %% [markdown]
# One stroke for each nucleus, on one frame of 48. The data are simulated: expect less on yours, and more strokes.
