"""Words for people."""

from __future__ import annotations

import re

UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
"""Characters that no XML, and so not every export, can hold."""


def counted(count: int, thing: str) -> str:
    """A number and what it counts: "1 frame", "2 frames"."""
    return f"{count} {thing}{'s' * (count != 1)}"
