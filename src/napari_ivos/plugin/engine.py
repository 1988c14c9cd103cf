"""One thread in which everything runs that may take longer than a blink; no Qt.

Jobs are done in the order in which they came; a job that is a generator hands out its results one by one. What came out
waits in a list until `take` is called, and `ring` says, once, that there is something: a fast engine can't flood a slow
window. Errors leave the thread as our own, whatever they were: napari's and superqt's workers lose some of them.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from napari_ivos.errors import IvosError, OutOfMemory

JOIN_SECONDS = 10.0
"""How long closing waits for a job that was told to stop."""


@dataclass(eq=False)
class Job:
    """Something to do.

    Parameters
    ----------
    kind : str
        "interact", "propagate", "open" ...
    run : callable
        Called with the job in the engine's thread. A value, or an iterator whose items are handed out one by one.
    owner : object
        What it belongs to (a session); answers to owners that are gone are not looked at.
    stop : Event
        Set when its results are not wanted any more.
    then : callable, optional
        Called with the value, in the window's thread, when it is done.
    precious : bool
        What the user did: neither stopping nor closing drops it while it waits.
    again : callable, optional
        Does it once more, where a device had no memory for it and another one has.
    """

    kind: str
    run: Callable[[Job], Any]
    owner: object = None
    stop: threading.Event = field(default_factory=threading.Event)
    then: Callable[[Any], None] | None = None
    precious: bool = False
    again: Callable[[], None] | None = None
    number: int = field(default_factory=itertools.count(1).__next__)


@dataclass(frozen=True, eq=False)
class Event:
    """What came of a job: it "started", gave an "item", is "done" (with its value) or "failed" (with the error)."""

    kind: Literal["started", "item", "done", "failed"]
    job: Job
    value: Any = None


class Engine:
    """The thread.

    Parameters
    ----------
    ring : callable
        Called from any thread when there is something to `take`, with whether that is urgent: one frame more of many
        is not. Must return at once.
    """

    def __init__(self, ring: Callable[[bool], None]) -> None:
        self._ring = ring
        self._lock = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._events: deque[Event] = deque()
        self._current: Job | None = None
        self._closing = False
        self._last: Callable[[], None] | None = None
        self._thread: threading.Thread | None = None

    # -- asked by the window

    @property
    def current(self) -> Job | None:
        """The job that runs."""
        return self._current

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits to run."""
        with self._lock:
            return self._current is not None or bool(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing runs, nothing waits to run, and everything that came out was taken."""
        with self._lock:
            return self._current is None and not self._waiting and not self._events

    @property
    def closing(self) -> bool:
        """Whether nothing new is begun any more."""
        return self._closing

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What runs and what waits, in order."""
        with self._lock:
            return (*(() if self._current is None else (self._current,)), *self._waiting)

    def amend(self, change: Callable[[Job], bool]) -> bool:
        """Let `change` look at each job that has not begun, until it says that it changed one; whether it did."""
        with self._lock:
            return any(change(job) for job in self._waiting)

    def submit(self, job: Job) -> Job:
        """Do this when all before it is done."""
        with self._lock:
            if self._closing:
                raise IvosError("This window is being closed: nothing new is begun.")
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="napari-ivos engine", daemon=True)
                self._thread.start()
            self._lock.notify()
        return job

    def take(self) -> list[Event]:
        """Everything that came out since the last call, in order."""
        with self._lock:
            events = list(self._events)
            self._events.clear()
        return events

    def stop(self, kind: str | None = None) -> None:
        """Tell what runs, and drop what waits (of one kind, or all) unless it is precious; what is done stays."""
        with self._lock:
            self._waiting = deque(j for j in self._waiting if j.precious or kind not in (None, j.kind))
            if self._current is not None and kind in (None, self._current.kind):
                self._current.stop.set()

    def report(self, job: Job, value: Any) -> None:
        """Hand out a result of a job that is no generator; called from the engine's thread."""
        self._put(Event("item", job, value))

    def close(self, last: Callable[[], None] | None = None) -> bool:
        """Stop everything but precious jobs, do `last` in the thread, and end it; False where that takes too long.

        Then the thread goes on by itself until it can end, and does `last` there.
        """
        with self._lock:
            self._closing = True
            self._last = last
            self._waiting = deque(j for j in self._waiting if j.precious)
            if self._current is not None:
                self._current.stop.set()
            self._lock.notify()
            thread = self._thread
        if thread is None:
            if last is not None:
                last()
            return True
        thread.join(JOIN_SECONDS)
        return not thread.is_alive()

    # -- in the thread

    def _loop(self) -> None:
        while self._wait():
            self._do_next()
        last, self._last = self._last, None
        if last is not None:
            last()

    def _wait(self) -> bool:
        """Wait for a job; False where none will come any more."""
        with self._lock:
            while not self._waiting and not self._closing:
                self._lock.wait()
            return bool(self._waiting)

    def _do_next(self) -> None:
        """Do a job; it is a local of this call, so that nothing of it is held while the thread waits."""
        with self._lock:
            if not self._waiting:  # dropped meanwhile
                return
            job = self._current = self._waiting.popleft()
        self._put(Event("started", job))
        try:
            value = self._work(job)
        except Exception as error:  # noqa: BLE001 - a thread has nobody else to tell
            self._put(Event("failed", job, as_ours(error)), last=True)
        else:
            self._put(Event("done", job, value), last=True)

    def _work(self, job: Job) -> Any:
        result = job.run(job)
        if not isinstance(result, Iterator):
            return result
        try:
            for item in result:
                self._put(Event("item", job, item))
                if job.stop.is_set():
                    break
        finally:
            end = getattr(result, "close", None)
            if end is not None:
                end()
        return None

    def _put(self, event: Event, last: bool = False) -> None:
        with self._lock:
            if last:  # in one with its event: whoever finds nothing running finds what came of it
                self._current = None
            first = not self._events
            self._events.append(event)
            silent = self._closing
        urgent = event.kind != "item"
        if (first or urgent) and not silent:
            self._ring(urgent)


def as_ours(error: Exception) -> IvosError:
    """An error as one of this package, with what it was in its message."""
    if isinstance(error, IvosError):
        return error
    made: IvosError
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        made = OutOfMemory(f"Out of memory ({error}). Close other programs or choose the CPU, then go on.")
    else:
        made = IvosError(f"{type(error).__name__}: {error}")
    made.__cause__ = error
    return made
