"""Projects: everything that a session knows, in one SQLite file (or in memory), append-only.

The rule: this is the only place that knows SQLite. `storage` opens the file as if a stranger had sent it, locks it and
keeps transactions whole; `schema` says what is in it; `blobs` packs patches and arrays; `project` reads and writes.
"""

from napari_ivos.project.extracts import Extract, Rows
from napari_ivos.project.project import LATEST, Project, Row, Stage, Writer, WrittenPatch
from napari_ivos.project.records import (
    ROUND_KINDS,
    Annotation,
    ObjectInfo,
    ObjectState,
    Step,
    StepState,
    StoredModel,
    StrokeRecord,
)

__all__ = [
    "LATEST",
    "ROUND_KINDS",
    "Annotation",
    "Extract",
    "ObjectInfo",
    "ObjectState",
    "Project",
    "Row",
    "Rows",
    "Stage",
    "Step",
    "StepState",
    "StoredModel",
    "StrokeRecord",
    "Writer",
    "WrittenPatch",
]
