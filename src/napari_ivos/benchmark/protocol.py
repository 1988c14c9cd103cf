"""The loop of the DAVIS interactive protocol: scribbles, a round of a method, scores, corrections on the worst frame.

The clock runs while the method works and at no other time: not while frames are read, scores counted or strokes made.
"""

from __future__ import annotations

import gc
import logging
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from napari_ivos.benchmark import metrics, robot
from napari_ivos.benchmark.datasets import Score, read_sequence
from napari_ivos.benchmark.datasets import Sequence as Stack
from napari_ivos.benchmark.methods import Method, make_method
from napari_ivos.errors import InputError, IvosError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from napari_ivos.scribbles import Scribbles

log = logging.getLogger(__name__)

ROUNDS = 8
"""Rounds of the protocol."""
TIME_LIMIT = 30.0
"""Seconds an object and round that a method may take."""
WORST_KEPT = 4
"""Worst frames of the last round whose labels are kept, to be drawn."""


@dataclass(frozen=True)
class Settings:
    """How a sequence is played.

    Parameters
    ----------
    rounds : int
        At most so many, from 1.
    every : int
        Each so-manieth frame is used.
    score : "all", "labelled" or "started"
        Which (object, frame) pairs count; see `datasets.Score`.
    time_limit : float or None
        Seconds an object and round; a round that takes longer does not count and is the last. None: no limit.
    boundary : bool
        Whether F is computed too (about as long as all the rest of the scoring).
    """

    rounds: int = ROUNDS
    every: int = 1
    score: Score = "all"
    time_limit: float | None = TIME_LIMIT
    boundary: bool = True

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InputError(f"{self.rounds} rounds: give a whole number from 1.")
        if self.every < 1:
            raise InputError(f"Every {self.every}-th frame: give a whole number from 1.")
        if self.score not in get_args(Score):
            raise InputError(f"Unknown score {self.score!r}; there are {', '.join(get_args(Score))}.")
        if self.time_limit is not None and not self.time_limit > 0:
            raise InputError(f"A time limit of {self.time_limit} s; give one above 0, or none.")


@dataclass(frozen=True)
class Round:
    """What one round gave.

    Parameters
    ----------
    number : int
        From 1.
    frame : int or None
        Where the strokes were (of the frames used, see `Settings.every`); None: nothing was left to correct, and the
        round took no time.
    strokes : int
        How many there were.
    j, f : float
        Means over all (frame, object) pairs that count; `f` is NaN where it was not asked for.
    interact_seconds, propagate_seconds : float
        Of the clock.
    memory : int
        Peak bytes of the process in this round above what it held before the method started.
    device_memory : int
        Peak bytes on a CUDA device; 0 where there is none.
    """

    number: int
    frame: int | None
    strokes: int
    j: float
    f: float
    interact_seconds: float
    propagate_seconds: float
    memory: int
    device_memory: int


@dataclass(frozen=True, eq=False)
class Result:
    """One method on one sequence with one seed.

    Parameters
    ----------
    rounds : tuple of Round
        As many as were asked for; once nothing is left to correct, or time is up, the last values are held.
    overtime : int or None
        The round that took too long, if one did.
    empty_j : float
        Mean J of a result without any mask: what doing nothing scores.
    frame_j : (R, T) float64 array
        Mean J of each frame after each round; NaN where nothing counts.
    object_j : (K,) float64 array
        Mean J of each object after the last round; NaN where nothing counts.
    worst : tuple of (int, labels (H, W))
        The worst frames after the last round, and what the method made of them.
    """

    sequence: str
    group: str
    method: str
    seed: int
    settings: Settings
    n_frames: int
    n_objects: int
    shape: tuple[int, int]
    rounds: tuple[Round, ...]
    overtime: int | None
    empty_j: float
    frame_j: npt.NDArray[np.float64]
    object_j: npt.NDArray[np.float64]
    worst: tuple[tuple[int, npt.NDArray[np.uint16]], ...] = ()
    source: str = ""

    @property
    def j(self) -> npt.NDArray[np.float64]:
        """(R,): mean J after each round."""
        return np.array([r.j for r in self.rounds])

    @property
    def f(self) -> npt.NDArray[np.float64]:
        """(R,): mean F after each round."""
        return np.array([r.f for r in self.rounds])

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """(R,): seconds from the first scribbles to the end of each round."""
        return np.cumsum([r.interact_seconds + r.propagate_seconds for r in self.rounds])

    @property
    def horizon(self) -> float:
        """Seconds that the protocol gives: limit times rounds times objects (30 s where there is no limit)."""
        limit = self.settings.time_limit
        return (TIME_LIMIT if limit is None else limit) * len(self.rounds) * self.n_objects


class _Scores:
    """J and F of the labels that a round gave, and the frames in the order in which they need work."""

    def __init__(self, stack: Stack, settings: Settings, first: int) -> None:
        self._stack, self._boundary = stack, settings.boundary
        self.counted = stack.counted(settings.score, first)
        if not self.counted.any():
            raise InputError(f"{stack.name}: no object on any annotated frame, so there is nothing to score.")

    def of(self, labels: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.float64], float]:
        """J (T, K) with NaN for what does not count, and mean F (NaN if not asked for)."""
        k = self._stack.n_objects
        j = np.where(self.counted, metrics.stack_jaccard(self._stack.labels, labels, k), np.nan)
        if not self._boundary:
            return j, float("nan")
        f = np.ones(self.counted.shape)
        for t in np.flatnonzero(self.counted.any(axis=1)):
            f[t] = metrics.frame_boundary_f(self._stack.labels[t], labels[t], k)
        return j, float(f[self.counted].mean())


def run(sequence: Stack, method: Method, settings: Settings | None = None, seed: int = 0) -> Result:
    """Play one sequence with one method.

    The first scribbles are simulated on the frame that shows the objects best; after each round the worst frame not
    used yet (mean J over its objects, the earlier one on a tie) gets corrections of every label that misses pixels,
    objects not seen before included. A frame on which no stroke can be drawn counts as used.

    Parameters
    ----------
    sequence : Sequence
        Frames and ground truth.
    method : Method
        Is started here and closed here.
    settings : Settings, optional
        The protocol's if not given.
    seed : int
        Of the first frame and its scribbles.

    Raises
    ------
    InputError
        Labels of a wrong shape from the method, or a sequence without anything to score.
    """
    settings = settings or Settings()
    stack = sequence.thin(settings.every)
    first = stack.first_frame(seed)
    scores = _Scores(stack, settings, first)
    play = _Play(stack, method, scores, settings)
    try:
        play.round(robot.first_scribbles(stack.labels[first], first, np.random.default_rng(seed)))
        while not play.over:
            scribbles = play.next_scribbles()
            if scribbles is None:
                break
            play.round(scribbles)
    finally:
        method.close()
    return play.result(method.name, seed)


@dataclass
class _Play:
    """What is known while a sequence is played."""

    stack: Stack
    method: Method
    scores: _Scores
    settings: Settings
    rounds: list[Round] = field(default_factory=list)
    maps: list[npt.NDArray[np.float64]] = field(default_factory=list)
    used: set[int] = field(default_factory=set)
    overtime: int | None = None

    def __post_init__(self) -> None:
        self.labels = np.zeros(self.stack.labels.shape, np.uint16)
        gc.collect()
        self.memory = PeakMemory()

    @property
    def over(self) -> bool:
        return self.overtime is not None or len(self.rounds) >= self.settings.rounds

    def round(self, scribbles: Scribbles) -> None:
        """One round on the clock, then its scores."""
        self.memory.reset()
        begin = time.perf_counter()
        if not self.rounds:
            self.method.start(self.stack.frames)
        self.method.interact(scribbles)
        middle = time.perf_counter()
        labels = np.asarray(self.method.propagate())
        end = time.perf_counter()
        memory, device = self.memory.peak()
        if labels.shape != self.labels.shape:
            raise InputError(
                f"Method {self.method.name!r} gave labels of shape {labels.shape}; the stack is {self.labels.shape}."
            )
        if labels.dtype.kind not in "iub":
            raise InputError(
                f"Method {self.method.name!r} gave labels of {labels.dtype}; they are whole numbers: the ids of the "
                "scribbles, 0 for background."
            )
        limit = self.settings.time_limit
        number = len(self.rounds) + 1
        if limit is not None and end - begin > limit * self.stack.n_objects:
            self.overtime = number
        else:
            self.labels = labels
        self.used.add(scribbles.frame)
        j, f = self.scores.of(self.labels)
        self.maps.append(j)
        counts = len(scribbles.strokes)
        times = (middle - begin, end - middle)
        self.rounds.append(Round(number, scribbles.frame, counts, float(np.nanmean(j)), f, *times, memory, device))

    def next_scribbles(self) -> Scribbles | None:
        """Corrections on the worst frame not used yet on which there is something to draw; None: nothing is left."""
        mean = _row_means(self.maps[-1])
        for t in np.argsort(mean, kind="stable"):
            if int(t) in self.used or np.isnan(mean[t]):
                continue
            truth, labels = self.stack.labels[t], self.labels[t]
            ignore = None
            if self.settings.score == "labelled":
                ignore = robot.unknown_pixels(truth, labels, self.scores.counted[t])
            scribbles = robot.correct(truth, labels, int(t), ignore)
            if scribbles.strokes:
                return scribbles
            self.used.add(int(t))
        return None

    def result(self, method: str, seed: int) -> Result:
        missing = self.settings.rounds - len(self.rounds)
        last = self.rounds[-1]
        held = [
            replace(last, number=last.number + i + 1, frame=None, strokes=0, interact_seconds=0, propagate_seconds=0)
            for i in range(missing)
        ]
        maps = self.maps + [self.maps[-1]] * missing
        mean = _row_means(maps[-1])
        worst = [int(t) for t in np.argsort(mean, kind="stable") if not np.isnan(mean[t])][:WORST_KEPT]
        return Result(
            sequence=self.stack.name,
            group=self.stack.group,
            method=method,
            seed=seed,
            settings=self.settings,
            n_frames=len(self.stack),
            n_objects=self.stack.n_objects,
            shape=(self.stack.labels.shape[1], self.stack.labels.shape[2]),
            rounds=tuple(self.rounds + held),
            overtime=self.overtime,
            empty_j=float((self.stack.areas == 0)[self.scores.counted].mean()),
            frame_j=np.stack([_row_means(m) for m in maps]),
            object_j=_row_means(maps[-1].T),
            worst=tuple((t, self.labels[t].astype(np.uint16)) for t in worst),
        )


def _row_means(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean of each row over what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)


class PeakMemory:
    """Peak memory of this process above where it stood, and of a CUDA device if torch runs on one.

    On Linux the system's own high-water mark is reset before each round; elsewhere it is the peak since the process
    began, so that a later method can't show less than an earlier one: run those in processes of their own (`jobs`).
    """

    def __init__(self) -> None:
        self._base = _status("VmRSS")

    def reset(self) -> None:
        mark = Path("/proc/self/clear_refs")
        if mark.exists():
            mark.write_text("5", encoding="ascii")
        cuda = _cuda()
        if cuda is not None:
            cuda.reset_peak_memory_stats()

    def peak(self) -> tuple[int, int]:
        """(bytes of the process, bytes on the device) since `reset`."""
        cuda = _cuda()
        device = 0 if cuda is None else int(cuda.max_memory_allocated())
        return max(_status("VmHWM") - self._base, 0), device


def _status(entry: str) -> int:
    """Bytes of one entry of the process's status; the peak of its whole life where the system has no such file."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(entry + ":"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)


def _cuda() -> Any:
    """torch.cuda where a method has loaded torch and runs on a CUDA device; a benchmark itself never loads torch."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return torch.cuda


@dataclass(frozen=True)
class Failure:
    """A run that ended with an error of this package."""

    sequence: str
    method: str
    seed: int
    message: str


@dataclass(frozen=True)
class _Task:
    path: str
    method: str
    seed: int
    settings: Settings
    model: str | None
    device: str | None


def benchmark(
    paths: Iterable[str | Path],
    methods: Sequence[str],
    seeds: Sequence[int] = (0,),
    settings: Settings | None = None,
    *,
    model: str | None = None,
    device: str | None = None,
    jobs: int = 1,
) -> Iterator[Result | Failure]:
    """Play every sequence with every method and seed, and give each result as it is done.

    Parameters
    ----------
    paths : iterable of path
        What `find_sequences` gives.
    methods : sequence of str
        Names that `make_method` knows.
    seeds : sequence of int
        Each is a play of its own.
    settings : Settings, optional
        The protocol's if not given.
    model, device : str, optional
        For "ivos": what `load_model` takes.
    jobs : int
        Processes at a time. 1 plays all in this process, each method made once.

    Yields
    ------
    Result or Failure
        In the order of paths, methods and seeds with one job, else as they end. An error of this package in one play
        is a `Failure`, and the others go on.

    Raises
    ------
    InputError
        No sequence, an unknown method, or fewer jobs than one.
    """
    if jobs < 1:
        raise InputError(f"{jobs} jobs: give a whole number from 1.")
    settings = settings or Settings()
    given = [str(p) for p in paths]
    if not given:
        raise InputError("No sequence to play.")
    made = {name: make_method(name, model, device) for name in methods} if jobs == 1 else {}
    tasks = [_Task(path, name, seed, settings, model, device) for path in given for name in methods for seed in seeds]
    if jobs > 1:
        yield from _in_processes(tasks, jobs)
        return
    stack: tuple[str, Stack] | None = None
    for task in tasks:
        try:
            if stack is None or stack[0] != task.path:
                stack = task.path, read_sequence(task.path)
            yield replace(run(stack[1], made[task.method], settings, task.seed), source=task.path)
        except IvosError as error:
            yield _failure(task, error)


def _failure(task: _Task, error: IvosError) -> Failure:
    log.error("%s with %s, seed %d: %s", task.path, task.method, task.seed, error)
    return Failure(Path(task.path).stem, task.method, task.seed, str(error))


def _play(task: _Task) -> Result | Failure:
    """One play in a process of its own."""
    try:
        method = make_method(task.method, task.model, task.device)
        return replace(run(read_sequence(task.path), method, task.settings, task.seed), source=task.path)
    except IvosError as error:
        return _failure(task, error)


def _in_processes(tasks: list[_Task], jobs: int) -> Iterator[Result | Failure]:
    # Fresh processes, one a play: nothing that one method leaves behind shows in another's memory.
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_quiet, max_tasks_per_child=1) as pool:
        futures: list[Future[Result | Failure]] = [pool.submit(_play, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _quiet() -> None:
    """Ctrl-C is the parent's: it cancels what has not begun."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
