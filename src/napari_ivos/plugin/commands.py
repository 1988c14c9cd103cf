"""The commands of napari's palette: each opens the widget where it isn't, and does what the button of its name does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_ivos.plugin.docking import open_dock

if TYPE_CHECKING:
    import napari


def start(viewer: napari.viewer.Viewer) -> None:
    """Begin with the chosen image, or go on with its project."""
    open_dock(viewer).run("start")


def load_model(viewer: napari.viewer.Viewer) -> None:
    """Load the chosen model on the chosen device."""
    open_dock(viewer).run("load_model")


def add_object(viewer: napari.viewer.Viewer) -> None:
    """Add an object and draw it next."""
    open_dock(viewer).run("add_object")


def remove_object(viewer: napari.viewer.Viewer) -> None:
    """Remove the chosen object with its masks."""
    open_dock(viewer).run("remove_object")


def divide(viewer: napari.viewer.Viewer) -> None:
    """End the chosen object before the frame on screen, where two daughters begin."""
    open_dock(viewer).run("divide")


def object_gone(viewer: napari.viewer.Viewer) -> None:
    """Let the chosen object end, or begin, beside the frame on screen; or be there after all."""
    open_dock(viewer).run("object_gone")


def next_object(viewer: napari.viewer.Viewer) -> None:
    """Draw for the next object."""
    open_dock(viewer).run("next_object")


def draw_background(viewer: napari.viewer.Viewer) -> None:
    """Draw what belongs to no object."""
    open_dock(viewer).run("draw_background")


def paint_mask(viewer: napari.viewer.Viewer) -> None:
    """Paint the chosen object's mask by hand."""
    open_dock(viewer).run("paint_mask")


def import_labels(viewer: napari.viewer.Viewer) -> None:
    """Take what the chosen Labels layer has on the frame on screen."""
    open_dock(viewer).run("import_labels")


def propagate(viewer: napari.viewer.Viewer) -> None:
    """Carry the masks to the other frames."""
    open_dock(viewer).run("propagate")


def stop(viewer: napari.viewer.Viewer) -> None:
    """Stop what runs."""
    open_dock(viewer).run("stop")


def undo(viewer: napari.viewer.Viewer) -> None:
    """Take back the last step."""
    open_dock(viewer).run("undo")


def redo(viewer: napari.viewer.Viewer) -> None:
    """Bring back what was undone."""
    open_dock(viewer).run("redo")


def undo_round(viewer: napari.viewer.Viewer) -> None:
    """Take back the last round."""
    open_dock(viewer).run("undo_round")


def redo_round(viewer: napari.viewer.Viewer) -> None:
    """Bring back the round that was undone."""
    open_dock(viewer).run("redo_round")


def compare(viewer: napari.viewer.Viewer) -> None:
    """Show the result before the last round, or after it again."""
    open_dock(viewer).run("compare")


def next_frame(viewer: napari.viewer.Viewer) -> None:
    """Go to the frame with the worst masks."""
    open_dock(viewer).run("next_frame")


def accept_frame(viewer: napari.viewer.Viewer) -> None:
    """Say that all masks of the frame on screen are right, or take it back."""
    open_dock(viewer).run("accept_frame")


def adapt(viewer: napari.viewer.Viewer) -> None:
    """Train the model on the work so far."""
    open_dock(viewer).run("adapt")


def drop_adapted(viewer: napari.viewer.Viewer) -> None:
    """Forget the weights that were adapted to the stack."""
    open_dock(viewer).run("drop_adapted")


def save_project(viewer: napari.viewer.Viewer) -> None:
    """Keep the work in a file."""
    open_dock(viewer).run("save_project")


def export(viewer: napari.viewer.Viewer) -> None:
    """Write the result for other programs."""
    open_dock(viewer).run("export")


def copy_script(viewer: napari.viewer.Viewer) -> None:
    """Copy the same work as a Python program."""
    open_dock(viewer).run("copy_script")


def copy_methods(viewer: napari.viewer.Viewer) -> None:
    """Copy sentences for a methods section."""
    open_dock(viewer).run("copy_methods")
