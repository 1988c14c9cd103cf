"""Readers and writers for napari's File menu: projects and videos in, labels out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ivos.errors import InputError
from napari_ivos.plugin import projects

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_ivos.session import Session

LayerData = tuple[Any, dict[str, Any], str]
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")


def project_reader(path: str | list[str] | None = None) -> Callable[[str], list[LayerData]] | None:
    """A reader for one project; None for anything else.

    Without a path, as napari's command palette calls it, the user is asked for a project, which is opened.
    """
    if path is None:
        _run("open_project")
    return read_project if isinstance(path, str) and path.lower().endswith(projects.SUFFIX) else None


def video_reader(path: str | list[str] | None = None) -> Callable[[str], list[LayerData]] | None:
    """A reader for one video; None for anything else.

    Without a path, as napari's command palette calls it, the user is asked for a video, which is opened.
    """
    if path is None:
        _ask_for_video()
    return read_video if isinstance(path, str) and path.lower().endswith(VIDEOS) else None


def read_video(path: str) -> list[LayerData]:
    """A video as a lazy image layer: each frame is decoded when it is looked at, by its exact number."""
    from napari_ivos.frames import open_frames

    return [_image_data(open_frames(path), Path(path))]


def _image_data(stack: Any, file: Path | None) -> LayerData:
    data = projects.frames_array(stack)
    picture = data.ndim == 4 and projects.coloured(data)
    options: dict[str, Any] = {"name": stack.name, "rgb": picture, "axis_labels": ("t", "y", "x")}
    if data.ndim == 4 and not picture:
        options = {"name": stack.name, "channel_axis": 3}
    if file is not None:
        options["metadata"] = {projects.HINTS: {"file": str(file)}}
    return data, options, "image"


def read_project(path: str) -> list[LayerData]:
    """Open a project in the current viewer: its frames, masks, strokes and history, in the plugin's widget.

    Without a viewer, or where its frames are not found (which the widget says), the masks come as a plain Labels layer.
    """
    import napari

    from napari_ivos.session import Session

    viewer = napari.current_viewer()
    with Session.open(path) as session:
        if viewer is None:
            return [_masks(session)]
        from napari_ivos.plugin.docking import open_dock

        desk = open_dock(viewer).desk
        lost = projects.missing(session, desk.images)
        if lost:
            desk.notice(f"{lost} Until then, its masks are shown alone.", "warning")
            return [_masks(session)]
    desk.open_project(path)
    return [(None,)]  # type: ignore[list-item] # npe2's sign for "read, but no layer to add"


def _masks(session: Session) -> LayerData:
    """The masks of a project without its frames: a Labels layer that nothing is drawn on."""
    import numpy as np

    name = "" if session.path is None else session.path.stem
    return np.asarray(session.labels), {"name": f"{name} [objects]"}, "labels"


def _run(command: str) -> None:
    """Do what a button of the widget in the current viewer does; the widget is opened where it isn't."""
    from napari_ivos.plugin.docking import open_dock

    open_dock().run(command)


def _ask_for_video() -> None:
    """Let the user choose a video and show it in the current viewer."""
    import napari
    from qtpy.QtWidgets import QFileDialog

    viewer = napari.current_viewer()
    endings = " ".join(f"*{ending}" for ending in VIDEOS)
    path, _ = QFileDialog.getOpenFileName(None, "Open a video", filter=f"Videos ({endings})")
    if path and viewer is not None:
        viewer.open(path, plugin="napari-ivos")


def write_labels(path: str = "", data: Any = None, meta: dict[str, Any] | None = None) -> list[str]:
    """Write one Labels layer in the format that the path's ending means.

    Without a path, as napari's command palette calls it, the widget's dialog for exports is shown.
    """
    if not path:
        _run("export")
        return []
    from types import SimpleNamespace

    import numpy as np

    from napari_ivos.export import export

    if isinstance(data, Sequence):  # levels: what calls us need not say in `meta` that there are several
        data = data[0]
    labels = getattr(data, "labels", data)  # a session's labels with more axes
    if labels.ndim == 2:
        labels = np.asarray(labels)[None]
    if labels.ndim != 3:
        raise InputError(f"Labels of shape {labels.shape}: only (frames, rows, columns) can be written.")
    source = SimpleNamespace(labels=labels)
    return [str(export(source, path, overwrite=True).path)]
