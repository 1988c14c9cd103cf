"""Measuring interactive segmentation: data, a simulated user, metrics, peers, and the report; imports nothing heavy.

What lives here plays whole stacks through the public interface of a session, or of any other `Method`. Nothing here
trains, and nothing here knows the networks. Needs the extra ``benchmark``.
"""

from __future__ import annotations

from napari_ivos.benchmark.datasets import Sequence, find_sequences, read_sequence
from napari_ivos.benchmark.methods import (
    METHODS,
    CopyMask,
    IvosMethod,
    Method,
    PixelForest,
    RandomWalkerFlow,
    make_method,
)
from napari_ivos.benchmark.metrics import area_under_curve, boundary_f, jaccard, value_at
from napari_ivos.benchmark.program import add_arguments, main
from napari_ivos.benchmark.protocol import Failure, Result, Round, Settings, benchmark, run
from napari_ivos.benchmark.report import write_report
from napari_ivos.benchmark.robot import correct, first_scribbles

__all__ = [
    "METHODS",
    "CopyMask",
    "Failure",
    "IvosMethod",
    "Method",
    "PixelForest",
    "RandomWalkerFlow",
    "Result",
    "Round",
    "Sequence",
    "Settings",
    "add_arguments",
    "area_under_curve",
    "benchmark",
    "boundary_f",
    "correct",
    "find_sequences",
    "first_scribbles",
    "jaccard",
    "main",
    "make_method",
    "read_sequence",
    "run",
    "value_at",
    "write_report",
]
