"""Print the oldest version of every dependency that pyproject.toml allows: ``python scripts/oldest.py > oldest.txt``.

The tests run with these once per change, so that the lower bounds are true. Extras of other packages are kept; what
only checks and builds is left as it is.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = ("video", "train", "benchmark", "distributed", "napari")
BOUND = re.compile(r"^([A-Za-z0-9_.-]+(?:\[[\w,-]+\])?)>=([\w.]+)$")


def oldest(text: str) -> list[str]:
    """Requirements of the base installation and of `EXTRAS` of a pyproject.toml, each with ``==`` its lower bound.

    Raises
    ------
    ValueError
        A requirement that has no lower bound.
    """
    project = tomllib.loads(text)["project"]
    wanted = list(project["dependencies"])
    for extra in EXTRAS:
        wanted += [line for line in project["optional-dependencies"][extra] if not line.startswith("napari-ivos")]
    found = {}
    for line in wanted:
        bound = BOUND.match(line)
        if bound is None:
            raise ValueError(f"{line!r} has no plain lower bound, such as name>=1.2.")
        found[bound[1]] = f"{bound[1]}=={bound[2]}" if "." not in bound[2] else f"{bound[1]}~={_patch(bound[2])}"
    return sorted(found.values())


def _patch(version: str) -> str:
    """Of a series, its newest patch: 2.4 is 2.4.x, 3.0.6 is 3.0.6 and later patches."""
    return version if version.count(".") > 1 else f"{version}.0"


if __name__ == "__main__":
    pyproject = Path(__file__).parent.parent / "pyproject.toml"
    sys.stdout.write("\n".join(oldest(pyproject.read_text(encoding="utf-8"))) + "\n")
