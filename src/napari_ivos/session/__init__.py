"""The engine: a `Session` owns all state and decides what a scribble, a painted mask or a propagation changes.

The rule: no torch, no Qt, no file formats in here. `session` is the public face; `annotating`, `plan`, `edits`,
`history` and `stacks` are pure or nearly so; `sweep` does the work of a propagation; `labels` shows the result as an
array.
"""

from napari_ivos.project import ObjectInfo, Step, StoredModel, StrokeRecord
from napari_ivos.session.history import Painted
from napari_ivos.session.labels import Labels, LabelsBefore, Quality
from napari_ivos.session.results import FrameResult, RoundInfo
from napari_ivos.session.session import Session

__all__ = [
    "FrameResult",
    "Labels",
    "LabelsBefore",
    "ObjectInfo",
    "Painted",
    "Quality",
    "RoundInfo",
    "Session",
    "Step",
    "StoredModel",
    "StrokeRecord",
]
