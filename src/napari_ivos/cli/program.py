"""From the arguments to the exit code: choose the command, run it, say in one line what went wrong."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from napari_ivos.cli.arguments import parse
from napari_ivos.cli.output import Interrupted, Output
from napari_ivos.errors import IvosError

if TYPE_CHECKING:
    from collections.abc import Sequence

DONE, FAILED, INTERRUPTED = 0, 1, 130
"""Exit codes; wrong usage is argparse's 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``napari-ivos``.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; those of the process by default.

    Returns
    -------
    int
        0; 1 where something can't be used or done (one line on stderr says what); 130 after Ctrl-C. Wrong usage ends
        the process with 2.
    """
    options = parse(sys.argv[1:] if arguments is None else arguments)
    output = Output(json=getattr(options, "json", False), quiet=getattr(options, "quiet", False))
    try:
        code: int = options.run(options, output)
    except IvosError as error:
        if options.debug:
            raise
        return output.failed(str(error), FAILED)
    except Interrupted as stop:
        return output.interrupted(stop, INTERRUPTED)
    except KeyboardInterrupt:
        return output.interrupted(Interrupted("Stopped."), INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has gone; say nothing into the broken pipe at exit either
        output.forsake()
        return FAILED
    return code
