"""``python -m napari_ivos.cli``: the command line without the installed script."""

from __future__ import annotations

import sys

from napari_ivos.cli import main

if __name__ == "__main__":
    sys.exit(main())
