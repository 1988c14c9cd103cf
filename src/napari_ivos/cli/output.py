"""What a command says: text or one JSON object on stdout; progress, notes and errors on stderr."""

from __future__ import annotations

import json as _json
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_ivos.wording import REPLACING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SLOW = 10.0
"""Seconds between two lines of progress where nobody watches (a log file)."""

Step = Callable[..., None]
"""Called with the number of units that are done, and with words to be shown behind the bar, where there are any."""


class Interrupted(Exception):
    """The user stopped a command; the message says what is kept and how to go on.

    Parameters
    ----------
    message : str
        For people.
    facts : mapping, optional
        For machines.
    """

    def __init__(self, message: str, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.facts = dict(facts or {})


class Output:
    """Where a command's words go.

    Parameters
    ----------
    json : bool
        One JSON object on stdout instead of text.
    quiet : bool
        No progress.
    """

    def __init__(self, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self._bar: Any = None

    def say(self, text: str) -> None:
        """A line for people; nothing where machines read."""
        if not self.json:
            sys.stdout.write(_typed(text) + "\n")
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """A line beside the result, on stderr."""
        text = _typed(text)
        if self._bar is not None and sys.stderr.isatty():  # the bar is on the line where this would be written
            self._bar.write(f"note: {text}", file=sys.stderr)
            return
        sys.stderr.write(("" if self._bar is None else "\n") + f"note: {text}\n")
        sys.stderr.flush()

    def give(self, facts: Mapping[str, Any]) -> None:
        """The command's result for machines; nothing where people read."""
        if self.json:
            sys.stdout.write(_json.dumps(facts, default=str) + "\n")
            sys.stdout.flush()

    def failed(self, message: str, code: int) -> int:
        message = _typed(message)
        sys.stderr.write(f"napari-ivos: error: {message}\n")
        self.give({"error": message})
        return code

    def interrupted(self, stop: Interrupted, code: int) -> int:
        sys.stderr.write(f"\nnapari-ivos: {stop}\n")
        self.give({"interrupted": True, "message": str(stop), **stop.facts})
        return code

    def forsake(self) -> None:
        """Let the interpreter flush stdout into nothing at exit."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    @contextmanager
    def progress(self, what: str, total: int, unit: str = "frame") -> Iterator[Step]:
        """Show a bar with the time left on stderr, none of nothing; yields what is called with the number done."""
        from tqdm import tqdm

        watched = sys.stderr.isatty()
        with tqdm(
            desc=what,
            total=total,
            unit=unit,
            file=sys.stderr,
            disable=self.quiet or total == 0,
            mininterval=0.1 if watched else SLOW,
            miniters=0,  # words may change where the number does not
            ascii=not watched,
            dynamic_ncols=watched,
        ) as bar:

            def show(done: int, beside: str = "") -> None:
                if beside:
                    bar.set_postfix_str(beside, refresh=False)
                bar.update(done - bar.n)

            self._bar = bar
            try:
                yield show
            finally:
                self._bar = None
            bar.total = bar.n  # fewer frames than could have changed is not a failure
            bar.refresh()


def _typed(text: str) -> str:
    """Words for people, with what is typed here in the place of what Python has."""
    return text.replace(REPLACING, "--overwrite")
