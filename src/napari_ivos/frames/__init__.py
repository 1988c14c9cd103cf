"""Frames: any array, file, folder or video becomes a `FrameStack`: one region of one frame at a time, RGB in 0..1.

The rule: this is the only place that knows dask, zarr, TIFF, video, axes and contrast, and it knows nothing of objects.
"""

from napari_ivos.frames.opening import files_of, open_frames
from napari_ivos.frames.stack import FrameStack

__all__ = ["FrameStack", "files_of", "open_frames"]
