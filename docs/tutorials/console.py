# %% [markdown]
# # Scripting from the console
#
# Whatever the window does, a line of Python does too, on the same session, at the same time. Open napari's console
# (the `>_` button, lower left) and type:
#
# ```python
# from napari_ivos.plugin import dock
# widget = dock()      # the panel of this viewer; opened where it isn't
# session = widget.session
# ```
#
# This page does it in a window of its own.

# %% [folded] A window with the sample
import napari
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_ivos.plugin import dock
from napari_ivos.plugin.sample_data import cells

viewer = napari.Viewer()
viewer.window._qt_window.resize(1280, 860)
data, options, _ = cells()[0]
viewer.add_image(data, **options)

# %%
widget = dock(viewer)
widget.start(viewer.layers[0], path=None)  # the Start button; None: kept in memory, nothing is saved
widget.wait()
session = widget.session
print(session)

# %% [markdown]
# ## Seed all objects from another program
#
# Say another plugin has segmented one frame, here frame 22, and its result is a Labels layer. A threshold and a
# watershed play its part. In the window it is *Draw > From labels*.

# %% [folded] The part of the other plugin
import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_li
from skimage.measure import label
from skimage.segmentation import watershed

smooth = gaussian(data[22].astype(float), 2)
bright = smooth > threshold_li(smooth)
middles = np.zeros(bright.shape, int)
depth = gaussian(distance_transform_edt(bright), 2)
places = peak_local_max(depth, labels=label(bright), min_distance=6)
middles[tuple(places.T)] = range(1, len(places) + 1)
found = np.zeros(data.shape, np.uint16)
found[22] = watershed(-depth, middles, mask=bright)

# %%
image = viewer.layers[0]
layer = viewer.add_labels(found, name="of another plugin", scale=image.scale, units=image.units)
widget.go_to(22)
widget.import_labels(layer, "masks")
widget.wait()
layer.visible = False
print(f"{len(session.objects)} objects, annotated on {session.annotated_frames()}")

# %% [markdown]
# Without a window it is one line: `session.annotate(22, found[22])`.
#
# ## Propagate, and ask what needs a look
#
# `widget.propagate()` runs beside the window, `session.propagate()` in your loop. Only one of them at a time: the other
# says that the session is busy.

# %%
widget.propagate("both")
widget.wait(600)
quality = np.asarray(session.quality)
for known, column in list(zip(session.objects, quality.T, strict=True))[:4]:
    print(f"{known.name}: mean quality {column.mean():.2f}, worst frame {column.argmin()}")
print(f"look at frame {session.suggest_frame()}")

# %% [folded] The picture
viewer.window._qt_window.resizeDocks([widget.parent()], [360], Qt.Orientation.Horizontal)
widget.next_frame()
for _ in range(4):
    QApplication.processEvents()
viewer.screenshot("console_window.png", canvas_only=False, flash=False)

# %% [markdown]
# ![What the console did, in the window](console_window.png)
#
# ## Measure without leaving
#
# `session.labels` is an array of the whole stack that is never held in memory as a whole: index it by frame.

# %%
areas = np.array(
    [np.bincount(session.labels[t].ravel(), minlength=len(session.objects) + 1)[1:] for t in range(0, 48, 8)]
)
print("area in px, every 8th frame:")
print(areas[:, :4])

# %% [markdown]
# ## The work as a script, and as a sentence
#
# *Copy as script* and *Copy methods text* put these on the clipboard. Run the script, and the same
# masks come out; what doesn't fit into text, such as painted masks, is written beside it.

# %%
folder = viewer.layers[0].metadata["napari_ivos"]["file"].rpartition("/")[0]
print(widget.script(".").replace(folder, "sample_data"))

# %%
print(widget.methods_text())

# %% [folded] The end
widget.desk.close()
viewer.close()
