"""How far long jobs have come and how long they will still take, told no more often than people read; no Qt."""

from __future__ import annotations

import time
from dataclasses import dataclass

TELL_EVERY = 1.0
"""Seconds between two words about a job's progress: drawing them takes time from the networks."""


@dataclass(frozen=True)
class Progress:
    """How far a long job has come: for people, and in frames (`total` 0: unknown)."""

    kind: str
    done: int = 0
    total: int = 0
    seconds_left: float | None = None


class Meter:
    """Counts the frames of a propagation.

    Attributes
    ----------
    done : int
        Frames that came out so far.
    """

    def __init__(self) -> None:
        self.done = 0
        self._begun = self._told = 0.0

    def begin(self) -> None:
        """A propagation begins."""
        self.done, self._begun, self._told = 0, time.monotonic(), 0.0

    def count(self, total: int) -> Progress | None:
        """One frame more, of about `total`; None where it is too early to say so."""
        self.done += 1
        now = time.monotonic()
        if now - self._told < TELL_EVERY:
            return None
        self._told, spent = now, now - self._begun
        left = spent / self.done * max(total - self.done, 0)
        return Progress("propagate", self.done, max(total, self.done), left)
