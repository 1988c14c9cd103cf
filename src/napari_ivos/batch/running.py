"""A whole batch: workers, stacks side by side, progress, stop, summary."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from napari_ivos.batch.deaf import deaf, held
from napari_ivos.batch.manifest import LOCK, Manifest, read_manifest
from napari_ivos.batch.model import AbsentModel, ModelSource
from napari_ivos.batch.summary import StackResult, Summary
from napari_ivos.errors import InputError, IvosError, ProjectError
from napari_ivos.project.locking import FileLock
from napari_ivos.untrusted import cores, memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from napari_ivos.batch.workers import Facts

_log = logging.getLogger(__name__)

STACKS_A_WORKER = 2
"""Stacks under way for each worker: while one is being written, another is computed."""
MOST_AT_ONCE = 256
REFRESH = 5.0
"""Seconds between two counts of the workers."""
WORKER_MEMORY = 3 << 29
"""Bytes that a worker should have at least: Python with torch and a model takes half of it."""
ANSWER = 5.0
"""Seconds that a scheduler gets for an answer while a batch runs, which goes on without."""
FIRST_ANSWER = 60.0
"""The same before anything was begun: without it the batch ends."""
_TRIES = 5  # to give all workers their model, while some leave
_WAKE = 0.2  # seconds after which Ctrl-C is heard where waiting can't be interrupted


@dataclass(frozen=True)
class Progress:
    """How far a batch is.

    Parameters
    ----------
    stacks, finished, failed : int
        All, those that are finished (now or earlier), those that failed.
    frames, planned : int
        Passes over a frame that are done, and that are known to be needed so far.
    last : StackResult or None
        The stack that came to its end just now.
    stopping : bool
        Ctrl-C was heard: nothing more is given out, and what the workers have in hand is waited for.
    """

    stacks: int
    finished: int
    failed: int
    frames: int
    planned: int
    last: StackResult | None = None
    stopping: bool = False


class BatchInterrupted(KeyboardInterrupt):
    """The user stopped a batch; what is done is kept, and the same call goes on.

    Parameters
    ----------
    summary : Summary
        What came of it until then.
    """

    def __init__(self, summary: Summary) -> None:
        super().__init__(summary.line())
        self.summary = summary


def run_batch(
    manifest: str | Path | Manifest,
    client: Any = None,
    *,
    output: str | Path | None = None,
    model: Any = None,
    device: str | None = None,
    workers: int | None = None,
    at_once: int | None = None,
    overwrite: bool = False,
    frames_a_parcel: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    started: Callable[[str], None] | None = None,
) -> Summary:
    """Segment many stacks on the workers of a dask cluster; goes on where an earlier call stopped.

    Parameters
    ----------
    manifest : path or Manifest
        CSV or JSON; see `napari_ivos.batch.read_manifest`.
    client : distributed.Client, optional
        The cluster. Without: workers of this machine, for the time of the call; in a script that takes
        ``if __name__ == "__main__":`` around it, because they import the script.
    output : path, optional
        Folder for all results; by default as the manifest says, else "NAME_results" beside it.
    model : str, path or Predictor, optional
        As for `load_model`, or what that returned; each worker loads it once.
    device : str, optional
        Where every worker computes. Without: the best it has; workers of a machine with several GPUs take one each.
    workers : int, optional
        Without `client`: how many workers; by default one a GPU, else one a core.
    at_once : int, optional
        Stacks under way at the same time; two for each worker by default.
    overwrite : bool
        Replace exports that are in the way and that no earlier run of this batch made.
    frames_a_parcel : int, optional
        Frames that a worker gets at a time; by default so many as take it some seconds. Labels don't depend on it.
    progress : callable
        Called with a `Progress` now and then, in this thread.
    started : callable
        Called with the address of the cluster's dashboard, before the first worker is waited for.

    Returns
    -------
    Summary
        Also written to the output folder, as text, CSV and JSON.

    Raises
    ------
    InputError
        The manifest can't be used; nothing was started.
    WeightsError
        The model can't be loaded.
    ProjectError
        Another batch writes to the output folder.
    IvosError
        The cluster is gone; what is done is kept.
    BatchInterrupted
        Ctrl-C, which waits for the frames that the workers have in hand; a second one does not.
    """
    if find_spec("distributed") is None:
        raise InputError("Not installed: distributed. Run: pip install 'napari-ivos[distributed]'.")
    if client is None:
        _refuse_in_worker()
    job = manifest if isinstance(manifest, Manifest) else read_manifest(manifest, output)
    source = ModelSource.of(model, device)
    begun = time.perf_counter()
    summary: Summary | None = None
    try:
        with ExitStack() as stack:
            stack.enter_context(_alone(job.output))
            summary = _nothing_left(job, source, progress, begun)
            if summary is not None:  # workers take longer to begin than all of this
                return summary
            cluster = stack.enter_context(local_cluster(workers)) if client is None else client
            if started is not None:
                started(str(cluster.dashboard_link))
            crew = stack.enter_context(_crew(cluster, source, frames_a_parcel))
            runner = _Runner(job, crew, overwrite, at_once, progress)
            results = runner.run()
            crew.check()
            seconds, devices = time.perf_counter() - begun, tuple(sorted(crew.devices))
            summary = Summary(results, seconds, source.title, devices)
            summary.write(job.output)
    except KeyboardInterrupt as stop:  # while workers are told to end; everything is written by then
        if summary is None:
            raise
        raise BatchInterrupted(summary) from stop
    if runner.interrupted:
        raise BatchInterrupted(summary)
    if crew.lost and not summary.complete:
        raise IvosError(
            f"The cluster is gone ({crew.lost}). {summary.line()} What is done is kept; the same call goes on."
        )
    return summary


def _nothing_left(
    job: Manifest, source: ModelSource, progress: Callable[[Progress], None] | None, begun: float
) -> Summary | None:
    """The summary of a batch whose stacks were all finished by earlier runs; None where something is to be done."""
    from napari_ivos.batch.job import all_finished

    results = all_finished(job.entries, source.checksum)
    if results is None:
        return None
    if progress is not None:
        progress(Progress(len(results), len(results), 0, 0, 0))
    summary = Summary(results, time.perf_counter() - begun, source.title)
    summary.write(job.output)
    return summary


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One batch at a time writes to a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        mine = lock.acquire()
    except OSError as error:
        raise ProjectError(f"The output folder {folder} can't be written ({error.strerror or error}).") from error
    if not mine:
        raise ProjectError(f"Another batch is writing to {folder}. Wait for it, or name another output folder.")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def local_cluster(workers: int | None = None) -> Iterator[Any]:
    """A client of workers on this machine: processes with one thread each, reachable from this machine only.

    Parameters
    ----------
    workers : int, optional
        One a GPU by default, else one a core, as far as the memory goes.
    """
    import os

    from distributed import Client, LocalCluster

    from napari_ivos.batch.nanny import BriefNanny

    if workers is not None and workers < 1:
        raise InputError(f"{workers} workers: at least one is needed.")
    count = workers or _default_workers()
    _warn(count)
    threads = max(1, cores() // count)
    given = {name: os.environ.get(name, str(threads)) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    opened = ExitStack()
    try:
        with held():  # half a cluster can't be closed
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                processes=True,
                worker_class=BriefNanny,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # the usual port may be taken, and answers other machines
                env=given,
                memory_limit=memory() // count,  # dask's own limit is a core's share, however few workers there are
                preload=["napari_ivos.batch.deaf"],
                silence_logs=logging.ERROR,
            )
            opened.enter_context(cluster)
            client = opened.enter_context(Client(cluster))
        yield client
    finally:
        with deaf():  # a further Ctrl-C would leave workers behind
            opened.close()


def _refuse_in_worker() -> None:
    """Refuse to start workers from a worker that is starting, which runs the script that started it."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(
            "Workers run the script that starts them: put the call of run_batch, in a script, below "
            "if __name__ == '__main__':"
        )


def _default_workers() -> int:
    from napari_ivos.networks.inference import cuda_devices

    return cuda_devices() or max(1, min(cores(), memory() // WORKER_MEMORY))


def _warn(count: int) -> None:
    """Say what so many workers on this machine will suffer from."""
    from napari_ivos.networks.inference import cuda_devices

    most = max(cores(), cuda_devices())
    if count > most:
        _log.warning("%d workers share %d cores: more than %d make nothing faster.", count, cores(), most)
    if memory() // count < WORKER_MEMORY:
        share, wanted = memory() / count / 2**30, WORKER_MEMORY / 2**30
        _log.warning(
            "%d workers have %.1f GiB of memory each; one that needs more is ended. Give each %.1f GiB: use fewer.",
            count,
            share,
            wanted,
        )


# -- the workers


class DaskCrew:
    """The workers of a dask cluster, for the jobs of one batch.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    model : AbsentModel
        What its workers compute with.
    frames_a_parcel : int or None
        As for `run_batch`.
    """

    def __init__(self, client: Any, model: AbsentModel, frames_a_parcel: int | None) -> None:
        self.client = client
        self.model = model
        self.frames_a_parcel = frames_a_parcel
        self.devices: set[str] = set()
        self.lost = ""
        self._address = client.scheduler_info().get("address", "its scheduler")  # while there is one to ask
        self.active = 0
        self.threads = 1
        self._alone = False
        self.events: queue.SimpleQueue[tuple[int, int, int, StackResult | None]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._out: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        """Give out nothing more."""
        self._stop.set()

    def halt(self) -> None:
        """Give out nothing more, and have the workers hand back what they have, after the frame at hand."""
        self.stop()
        threading.Thread(target=self._halt, name="ivos-halt", daemon=True).start()  # who can't answer holds nobody up

    def _halt(self) -> None:
        from napari_ivos.batch.workers import halt

        try:
            self.client.run(halt, on_error="ignore")
        except Exception as error:  # noqa: BLE001 - then parcels end where they would have
            _log.info("Not all workers heard that they are to stop (%s: %s).", type(error).__name__, error)

    def abort(self) -> None:
        """Take back what is out."""
        self.stop()
        with self._lock:
            out = list(self._out.values())
        self.client.cancel(out, force=True)

    def submit(self, job: int, near: str | None, function: Callable[..., Any], *arguments: Any) -> Any:
        options: dict[str, Any] = {} if near is None else {"workers": [near], "allow_other_workers": True}
        future = self.client.submit(function, *arguments, pure=False, priority=-job, **options)
        with self._lock:
            self._out[future.key] = future
        future.add_done_callback(self._back)
        return future

    def _back(self, future: Any) -> None:
        with self._lock:
            self._out.pop(future.key, None)

    def spare(self, ways: int) -> int:
        return max(1, self.threads // max(1, self.active * ways)) if self.model.separable else 1

    def refresh(self) -> None:
        """Ask how many workers there are: they may come and go."""
        try:
            found = _threads(self.client, ANSWER)
        except OSError as error:  # the next `check` finds out whether the cluster is gone
            _log.info("The scheduler did not say how many workers it has: %s", error)
            return
        if not found and not self._alone:
            _log.warning("The cluster has no worker left; the batch goes on when one comes.")
        elif found and self._alone:
            _log.warning("The cluster has workers again; the batch goes on.")
        self._alone = not found
        self.threads = found or 1

    def told(self, job: int, frames: int = 0, planned: int = 0) -> None:
        self.events.put((job, frames, planned, None))

    def check(self) -> None:
        """Find out whether the cluster is still there; without it, nothing is given out any more."""
        if not self.lost and self.client.status != "running":
            self.lost = f"the connection to {self._address} broke"
        if self.lost:
            self.abort()  # again and again: a job may have sent something in the meantime, and would wait for it


def _threads(client: Any, patience: float) -> int:
    """Threads of all workers.

    Raises
    ------
    OSError
        The scheduler does not say it in time; dask itself would wait for one that is gone until the end of time.
    """
    if client.status != "running":
        raise ConnectionError("the connection is closed")
    found: dict[str, int] = client.sync(client.scheduler.ncores, callback_timeout=patience)
    return sum(found.values())


@contextmanager
def _crew(client: Any, source: ModelSource, frames_a_parcel: int | None) -> Iterator[DaskCrew]:
    """Give the workers their model, and ask one of them who it is."""
    if not hasattr(client, "register_plugin"):
        raise InputError(f"A distributed.Client is needed, got a {type(client).__name__}.")
    try:
        facts = _introduce(client, source)
        crew = DaskCrew(client, AbsentModel(*facts), frames_a_parcel)
        crew.devices.add(facts.device)
        yield crew
    finally:
        _dismiss(client)


def _dismiss(client: Any) -> None:
    """Take the model from the workers."""
    from napari_ivos.batch.bench import NAME

    if client.status != "running":
        return
    try:
        client.unregister_worker_plugin(NAME)
    except Exception as error:  # noqa: BLE001 - dask raises what any worker says, as when one is just leaving
        _log.info("Not all workers have let go of their model (%s: %s); it goes with them.", type(error), error)


def _register(client: Any, plugin: Any, name: str) -> None:
    """Give a plugin to all workers; again, where one of them left at that moment, which fails it for all."""
    for tries_left in reversed(range(_TRIES)):
        try:
            client.register_plugin(plugin, name=name)
        except OSError as error:
            if not tries_left or client.status != "running":
                raise
            _log.info("A worker left while it got its model (%s); once more.", error)
        else:
            return


def _introduce(client: Any, source: ModelSource) -> Facts:
    """Send the model to all workers, those that come later too, and wait for the first one to load it."""
    from napari_ivos.batch.bench import NAME, ModelWorker
    from napari_ivos.batch.workers import identify

    try:
        _register(client, ModelWorker(source), NAME)
        if not _threads(client, FIRST_ANSWER):
            _log.warning("The cluster has no worker yet; the batch begins when the first one comes.")
        facts: Facts = client.submit(identify, pure=False).result()
    except IvosError:
        raise
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        if client.status != "running":
            raise IvosError(f"The cluster is gone ({told}). Nothing was begun; start it again.") from error
        raise IvosError(
            f"The workers can't begin ({told}). Install the same versions of napari-ivos and dask on all machines of "
            "the cluster, or start its workers again."
        ) from error
    return facts


# -- the stacks


class _Runner:
    """Jobs side by side, a thread each; what they tell is heard in the caller's thread."""

    def __init__(
        self,
        manifest: Manifest,
        crew: DaskCrew,
        overwrite: bool,
        at_once: int | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._entries = manifest.entries
        self._crew = crew
        self._overwrite = overwrite
        self._at_once = at_once
        self._progress = progress
        self._results: dict[int, StackResult] = {}
        self._frames = self._planned = self._begun = 0
        self._asked = -REFRESH
        self.interrupted = self._told = False

    def run(self) -> tuple[StackResult, ...]:
        """All stacks' results, in the order of the manifest."""
        with ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="ivos-stack") as pool:
            while len(self._results) < len(self._entries):
                try:
                    self._fill(pool)
                    self._listen()
                except KeyboardInterrupt:
                    with deaf():  # a third one would break off what the second one began
                        self._interrupt()
        return tuple(self._results[number] for number in range(len(self._entries)))

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        """Begin stacks, as many as the workers that are there now can use."""
        if not self._crew.stopping and time.perf_counter() - self._asked > REFRESH:
            self._crew.refresh()
            self._asked = time.perf_counter()
        most = self._at_once or max(2, STACKS_A_WORKER * self._crew.threads)
        while self._begun < len(self._entries) and self._begun - len(self._results) < min(most, MOST_AT_ONCE):
            number, self._begun = self._begun, self._begun + 1
            pool.submit(self._one, number)
        self._crew.active = self._begun - len(self._results)

    def _interrupt(self) -> None:
        """The first Ctrl-C waits for what is out, the second takes it back."""
        if self.interrupted:
            self._crew.abort()
        else:
            self._crew.halt()
        self.interrupted = True

    def _one(self, number: int) -> None:
        from napari_ivos.batch.job import Job

        entry = self._entries[number]
        result = StackResult(entry.name, "failed", "its thread ended")
        try:
            if self._crew.stopping:
                result = StackResult(entry.name, "stopped")
            else:
                result = Job(number, entry, self._crew, self._overwrite).run()
        finally:
            self._crew.events.put((number, 0, 0, result))

    def _listen(self) -> None:
        """Hear one thing that a job tells."""
        self._crew.check()
        if self.interrupted and not self._told and self._progress is not None:
            self._told = True
            self._progress(self._now(None))
        try:
            number, frames, planned, result = self._crew.events.get(timeout=_WAKE)
        except queue.Empty:
            return
        self._frames += frames
        self._planned += planned
        if result is not None:
            self._results[number] = result
        if self._progress is not None:
            self._progress(self._now(result))

    def _now(self, last: StackResult | None) -> Progress:
        states: Sequence[str] = [r.state for r in self._results.values()]
        done = sum(state in ("done", "earlier") for state in states)
        return Progress(
            len(self._entries), done, states.count("failed"), self._frames, self._planned, last, self.interrupted
        )
