"""Words for people."""

from __future__ import annotations

import re

UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
"""Characters that no XML, and so not every export, can hold."""

REPLACING = "overwrite=True"
"""How Python says that something may be replaced; messages have it, and who is no Python puts its own words there."""


def counted(count: int, thing: str) -> str:
    """A number and what it counts: "1 frame", "2 frames"."""
    return f"{count} {thing}{'s' * (count != 1)}"
