"""Batches: many stacks on the workers of a dask cluster, by the same functions as a session and to the same labels.

The rule: this is the only place that knows dask.distributed. Workers compute and read frames; each stack's project is
written by one thread of the process that started the batch, and nothing is written outside the output folder.
"""

from __future__ import annotations

from napari_ivos.batch.manifest import COLUMNS, Entry, Manifest, read_manifest
from napari_ivos.batch.outlook import Outlook, StackOutlook, look_ahead
from napari_ivos.batch.running import BatchInterrupted, Progress, local_cluster, run_batch
from napari_ivos.batch.summary import StackResult, Summary

__all__ = [
    "COLUMNS",
    "BatchInterrupted",
    "Entry",
    "Manifest",
    "Outlook",
    "Progress",
    "StackOutlook",
    "StackResult",
    "Summary",
    "local_cluster",
    "look_ahead",
    "read_manifest",
    "run_batch",
]
