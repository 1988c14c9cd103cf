"""``napari-ivos`` on the command line: parse, call, print.

The rule: a command turns arguments into calls of the package's public interface and its results into text or JSON;
whatever is worth doing without a terminal lives below. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``napari-ivos``; see `napari_ivos.cli.program.main`, which is loaded in here: Ctrl-C may come by then."""
    try:
        from napari_ivos.cli.program import main as run

        return run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("\nnapari-ivos: Stopped.\n")
        return INTERRUPTED
