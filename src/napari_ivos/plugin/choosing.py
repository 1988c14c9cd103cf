"""Which layers, axes and channels are offered, as layers come and go; what the user chose stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_ivos.errors import InputError
from napari_ivos.plugin import geometry

if TYPE_CHECKING:
    from magicgui.widgets import ComboBox

    from napari_ivos.plugin.desk import Desk
    from napari_ivos.plugin.geometry import Layout
    from napari_ivos.plugin.sections import DrawSection, StackSection

NOTHING = "Open an image: File > Open, or File > Open Sample."


class Choosing:
    """Keeps the choices of the window's sections in step with the viewer's layers.

    Parameters
    ----------
    desk : Desk
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._offered: tuple[Any, ...] = ()
        self._layout: Layout | None = None

    def images(self, widget: object = None) -> list[tuple[str, Any]]:
        """Layers that can be segmented, by name."""
        from napari.layers import Image

        return [(layer.name, layer) for layer in self._desk.viewer.layers if isinstance(layer, Image)]

    def labels(self, widget: object = None) -> list[tuple[str, Any]]:
        """Layers whose labels can be taken, by name."""
        from napari.layers import Labels

        ours = () if self._desk.binding is None else self._desk.binding.layers
        return [(x.name, x) for x in self._desk.viewer.layers if isinstance(x, Labels) and x not in ours]

    def layers_changed(self, stack: StackSection, draw: DrawSection) -> None:
        """Offer the layers that are there now."""
        images = [layer for _, layer in self.images()]
        _offer(stack.image, images)
        labels = [layer for _, layer in self.labels()]
        _offer(draw.labels, labels)
        if draw.labels.value is None and labels:
            draw.labels.value = labels[-1]
        if stack.image.value is None and images:
            stack.image.value = images[-1]
        self.image_changed(stack)

    def image_changed(self, stack: StackSection) -> None:
        """Offer the chosen layer's axes and channels, if they are others than before."""
        image = stack.image.value
        shape = None if image is None else geometry.full_data(image).shape
        like = [(n, x) for n, x in self.images() if x is not image and geometry.full_data(x).shape == shape]
        offered = (image, shape, tuple(like))
        if offered == self._offered:
            return
        keep, self._offered = offered[:2] == self._offered[:2], offered
        self._layout = None
        if image is None:
            stack.show_layout(None, NOTHING, [])
            return
        try:
            layout = geometry.layout_of(image)
        except InputError as error:
            stack.show_layout(None, str(error), [])
        else:
            stack.show_layout(layout, _words(layout), like, keep)
            self._layout = layout
            self.show_place(stack)

    def show_place(self, stack: StackSection) -> None:
        """Say which frames are segmented: those of the work that has begun, or those that Start would take now."""
        image, layout, chosen = stack.image.value, self._layout, stack.frames.value
        if layout is None:
            return
        binding = self._desk.binding
        if binding is not None and binding.image is image and (chosen is None or chosen[0] == binding.layout.frame):
            layout = binding.layout
        else:
            layout = layout if chosen is None else layout.with_frames_along(*chosen)
            layout = layout.held_at(geometry.place_shown(self._desk.viewer, image))
        words = _words(layout)
        if stack.words.text() != words:
            stack.words.setText(words)


def _words(layout: Layout) -> str:
    """What is segmented, and whether as times or as sections where nothing says which they are."""
    if layout.assumed:
        return f"{layout.words}, taken as times (sections: choose z under Advanced)"
    return layout.words


def _offer(box: ComboBox, layers: list[Any]) -> None:
    """Let a box of layers have their names of today; the chosen one stays chosen, also where it was renamed."""
    chosen = box.value
    with box.changed.blocked():
        box.reset_choices()
        if chosen in layers:
            box.value = chosen
    if box.value is not chosen:
        box.changed.emit(box.value)
