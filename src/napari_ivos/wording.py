"""Words for people."""

from __future__ import annotations


def counted(count: int, thing: str) -> str:
    """A number and what it counts: "1 frame", "2 frames"."""
    return f"{count} {thing}{'s' * (count != 1)}"
