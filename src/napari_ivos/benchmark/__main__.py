"""``python -m napari_ivos.benchmark DATA``: the same as ``napari-ivos benchmark DATA``."""

from __future__ import annotations

import argparse
import sys

from napari_ivos.benchmark.program import add_arguments, main
from napari_ivos.errors import IvosError


def _run() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m napari_ivos.benchmark", description="Play stacks with known masks and report J, F and time."
    )
    add_arguments(parser)
    try:
        return main(parser.parse_args())
    except IvosError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(_run())
