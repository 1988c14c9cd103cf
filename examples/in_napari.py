"""Open the window on a sample, draw and propagate by a script, and hand over to you (extra: all)."""

import napari

from napari_ivos.plugin import dock

viewer = napari.Viewer()
viewer.open_sample("napari-ivos", "cells")
widget = dock(viewer)
widget.start(viewer.layers[0], path=None)  # path=None: nothing is saved, it is an example
widget.wait(300)

widget.go_to(22)
viewer.layers.selection.active.add_paths([[22, 27, 72], [22, 31, 80], [22, 26, 88], [22, 21, 92]])
widget.wait(300)
widget.propagate("forward", 22, 32)
widget.wait(300)
print(f"{len(widget.session.objects)} object; look at frame {widget.session.suggest_frame()}")

napari.run()
