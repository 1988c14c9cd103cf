"""From and to elsewhere: labels of other layers in; exports, tracks, a script and sentences out; no Qt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_ivos.errors import IvosError
from napari_ivos.plugin import importing, projects, scripting, telling
from napari_ivos.plugin.drawing import patiently
from napari_ivos.plugin.engine import Job
from napari_ivos.plugin.work import Work
from napari_ivos.wording import counted

if TYPE_CHECKING:
    from napari.layers import Labels


class Exchange(Work):
    """The part of a desk that has to do with what comes from and goes elsewhere; see `Work` for parameters."""

    def import_labels(self, layer: Labels, how: Literal["objects", "masks", "scribbles"] = "objects") -> None:
        """Take what a Labels layer has on the frame on screen, in the background.

        Parameters
        ----------
        layer : Labels
            Painted by hand, or made by another plugin; with "objects" it is hidden afterwards, and they are seen.
        how : str
            "objects": each label starts a new object; "masks": labels are ids of objects, taken to the pixel;
            "scribbles": what was painted is drawn as strokes.
        """
        session, binding = self._live()
        frame = binding.seen
        self.show_before(False)
        image = importing.labels_on(layer, binding.image, binding.layout, frame)
        self._interrupt()
        self._keep()
        call = importing.IMPORTS[how]
        job = Job("import", lambda job: patiently(lambda: call(session, frame, image, layer.name)), session)

        def then(taken: tuple[int, ...]) -> None:
            self._all_changed()
            count = counted(len(taken), "object")
            if how == "objects":
                layer.visible = False
                self.draw_next(taken[0])
            hidden = " (hidden now)" * (how == "objects")
            self.notice(f"Took {count} of frame {frame} from {layer.name}{hidden}. Next: Propagate.")

        job.then, job.precious = then, True
        self.engine.submit(job)
        self.changed.emit()

    def export(self, path: str | Path, format: str | None = None, overwrite: bool = False) -> None:  # noqa: A002
        """Write the result for other programs, in the background."""
        session, _ = self._live()

        def run(job: Job) -> Any:
            def progress(done: int, total: int) -> None:
                if job.stop.is_set():
                    raise IvosError("The export was stopped; nothing was written.")
                self.exporter.report(job, (done, total))

            return session.export(path, format, overwrite=overwrite, progress=progress)

        def then(written: Any) -> None:
            self.notice(" ".join([f"Wrote {written.path}.", *written.notes]))

        self.exporter.submit(Job("export", run, session, then=then))
        self.changed.emit()

    def add_tracks(self) -> None:
        """Add a Tracks layer: where each object was, and which divided into which."""
        session, binding = self._live()

        def then(made: Any) -> None:
            self.viewer.add_layer(telling.tracks_layer(made, binding.image, binding.layout))

        self.exporter.submit(Job("tracks", lambda job: telling.tracks(session), session, then=then))

    def script(self, folder: str | Path | None = None) -> str:
        """The same work as a Python program: see `program`."""
        return self.program(folder)[0]

    def program(self, folder: str | Path | None = None) -> tuple[str, Path | None]:
        """The same work as a Python program, which gives the same labels to the last bit on the same machine.

        What does not fit into text (painted masks, adapted models) is written into `folder` (default: the project's),
        where the program looks for it. The second is the file of the masks; None where there are none.
        """
        session, _ = self._live()
        session.commit_paint()
        beside = Path(folder) if folder is not None else projects.copied_beside(session, "").resolve()
        return scripting.script(session, beside, self.model_source)

    def methods_text(self) -> str:
        """What was done, as sentences for a methods section."""
        return telling.methods_text(self._live()[0])
