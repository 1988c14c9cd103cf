"""What napari shows: the only folder that may import napari, Qt and magicgui; it holds no state of a segmentation."""
