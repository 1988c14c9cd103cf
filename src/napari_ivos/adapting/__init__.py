"""Adapting the networks to one stack: a little training on what its user has annotated, in about two minutes.

`material` turns a session into looks to learn from, `tuning` learns, `testing` says whether it helped; nothing in here
changes a session. Needs the base installation only.
"""

from __future__ import annotations

from napari_ivos.adapting.adaptation import STEPS, Adaptation, AdaptReport, adapt, adapted_model

__all__ = ["STEPS", "AdaptReport", "Adaptation", "adapt", "adapted_model"]
