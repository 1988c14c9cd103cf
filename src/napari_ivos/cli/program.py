"""From the arguments to the exit code: choose the command, run it, say in one line what went wrong."""

from __future__ import annotations

import atexit
import gc
import logging
import sys
from typing import TYPE_CHECKING

from napari_ivos import __version__
from napari_ivos.cli import INTERRUPTED
from napari_ivos.cli.arguments import parse
from napari_ivos.cli.output import Interrupted, Output
from napari_ivos.diagnostics.logs import listening
from napari_ivos.diagnostics.report import write_report
from napari_ivos.errors import IvosError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)

DONE, FAILED = 0, 1
"""Exit codes beside `INTERRUPTED`; wrong usage is argparse's 2."""


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
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    output = Output(json=getattr(options, "json", False), quiet=getattr(options, "quiet", False))
    try:
        with listening(options.log_level, options.log_file):
            return _run(options, output, given)
    except IvosError as error:
        if options.debug:
            raise
        return output.failed(str(error), FAILED)
    finally:  # all that torch and dask brought in is not worth a second's search for garbage as the process ends
        atexit.unregister(gc.freeze)
        atexit.register(gc.freeze)  # what is registered last is called first


def _run(options: argparse.Namespace, output: Output, given: Sequence[str]) -> int:
    """Run the command; every way in which it ends becomes an exit code."""
    try:
        _log.info("napari-ivos %s: %s", __version__, " ".join(given))
        code: int = options.run(options, output)
        _log.info("done, exit code %d", code)
    except IvosError as error:
        _log.info("failed", exc_info=error)
        if options.report is not None:
            _report(error, given, options, output)
        raise
    except Interrupted as stop:
        return output.interrupted(stop, INTERRUPTED)
    except KeyboardInterrupt:
        return output.interrupted(Interrupted("Stopped."), INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has gone; say nothing into the broken pipe at exit either
        output.forsake()
        return FAILED
    except Exception as error:
        _log.exception("unexpected")
        written = _report(error, given, options, output)
        if options.debug:
            raise
        where = "" if written is None else f" What is known of it, without images and folders, is in {written}."
        return output.failed(
            f"An error that should not be: {type(error).__name__}: {error}.{where} Please report it.", FAILED
        )
    return code


def _report(error: BaseException, given: Sequence[str], options: argparse.Namespace, output: Output) -> Path | None:
    """Write the report of an error; None where that fails too."""
    try:
        return write_report(error, given, options.report)
    except OSError as trouble:
        output.note(f"the report of the error could not be written: {trouble}")
        return None
