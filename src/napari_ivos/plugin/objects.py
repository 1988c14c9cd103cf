"""What can be done with the objects of a desk: add, rename, hide, lock, remove, begin, end, divide; no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_ivos.plugin.work import Work
from napari_ivos.scribbles import BACKGROUND

if TYPE_CHECKING:
    from napari_ivos.session import ObjectInfo


class Objects(Work):
    """The part of a desk that has to do with objects; see `Work` for parameters."""

    def add_object(self, name: str | None = None) -> None:
        """Make an object and draw it next."""
        session, _ = self._live()
        self._edit(lambda: session.add_object(name), lambda made: self._objects_changed(made.id))

    def draw_background(self) -> None:
        """Draw what belongs to no object."""
        self.select(BACKGROUND)

    def draw_object(self) -> None:
        """Draw for the object that was drawn before the background."""
        session, _ = self._live()
        ids = [o.id for o in session.objects]
        if ids:
            self.select(self.before if self.before in ids else ids[0])
        else:
            self.add_object()

    def paint_mask(self) -> None:
        """Paint the chosen object's mask by hand: napari's brush, in the result layer or the part of it in view."""
        session, binding = self._live()
        self.show_before(False)
        ids = [o.id for o in session.objects]
        binding.paint_for(self.selected if self.selected in ids else next(iter(ids), 1))
        self.changed.emit()

    def next_object(self) -> None:
        """Draw for the next object of the table; after the last comes a new one."""
        session, _ = self._live()
        after = [o.id for o in session.objects if o.id > (self.selected or 0)]
        if after:
            self.select(after[0])
        else:
            self.add_object()

    def rename_object(self, object_id: int, name: str) -> None:
        """Give an object another name."""
        session, _ = self._live()
        self._edit(lambda: session.rename(object_id, name), self._objects_changed)

    def recolour_object(self, object_id: int, colour: str) -> None:
        """Show an object in another colour, "#rrggbb"."""
        session, _ = self._live()
        self._edit(lambda: session.recolour(object_id, colour), self._objects_changed)

    def hide_object(self, object_id: int, hidden: bool = True) -> None:
        """Hide an object's mask and strokes, or show them again."""
        _, binding = self._live()
        (binding.hidden.add if hidden else binding.hidden.discard)(object_id)
        binding.colour()
        self.changed.emit()

    def lock_object(self, object_id: int, locked: bool = True) -> None:
        """Let nothing change an object, or let it be changed again."""
        session, _ = self._live()
        self._edit(lambda: (session.lock if locked else session.unlock)(object_id), self._objects_changed)

    def remove_object(self, object_id: int) -> None:
        """Remove an object with its masks; undo brings it back."""
        session, _ = self._live()
        self._edit(lambda: session.remove_object(object_id), self._all_changed)

    def object_gone(self, object_id: int, gone: bool = True) -> None:
        """Let an object not be on the frame on screen, nor behind it as seen from where it was drawn; or be there.

        Before its first annotated frame that says when it begins, else when it ends.
        """
        session, binding = self._live()
        frame, last = binding.seen, session.shape[0] - 1
        drawn = [t for t in session.annotated_frames(object_id) if not self.review.absent[object_id][t]]
        one = next(o for o in session.objects if o.id == object_id)
        start, stop = one.lifetime.start, one.lifetime.stop
        if gone and drawn and frame < min(drawn):
            start = frame + 1
            said = f"{one.name} begins after this frame: frame {start} is its first."
        elif gone:
            stop = frame
            said = f"{one.name} is gone from this frame on: frame {stop - 1} is its last."
        else:
            start, stop = (0, stop) if frame < start else (start, last + 1)
            said = f"{one.name} may be on frames {start} to {stop - 1}. Where it has no mask yet, propagate."

        def then(_: None) -> None:
            self._all_changed()
            self.notice(said)

        self._edit(lambda: session.set_lifetime(object_id, start, stop), then)

    def divide(self, object_id: int, daughters: int = 2) -> None:
        """End an object before the frame on screen, where its daughters begin: annotate them next."""
        session, binding = self._live()
        frame = binding.seen

        def then(made: tuple[ObjectInfo, ...]) -> None:
            self._all_changed()
            self.draw_next(made[0].id)
            self.notice(f"Draw {' and '.join(o.name for o in made)} here, then propagate.")

        self._edit(lambda: session.divide(object_id, frame, daughters), then)
