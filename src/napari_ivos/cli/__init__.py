"""``napari-ivos`` on the command line: parse, call, print.

The rule: a command turns arguments into calls of the package's public interface and its results into text or JSON;
whatever is worth doing without a terminal lives below. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

from napari_ivos.cli.program import main

__all__ = ["main"]
