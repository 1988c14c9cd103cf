"""Clusters on rough days: a worker or the scheduler is killed at a random moment; labels are the same in the end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_ivos import FakePredictor, Session
from napari_ivos.errors import IvosError

distributed = pytest.importorskip("distributed", reason="the extra `distributed` is not installed")

from napari_ivos.batch import Progress, run_batch, running  # noqa: E402 - needs distributed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FAULTS = int(os.environ.get("NAPARI_IVOS_CLUSTER_FAULTS", "1"))
"""How often a worker is killed, and how often the scheduler; 20 for the whole promise."""
FRAMES = 16

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")


@pytest.fixture(scope="module")
def expected(make_clip, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder with a stack and masks of its frame 8, and the labels that a session on one machine gives."""
    folder, clip = tmp_path_factory.mktemp("stack"), make_clip(FRAMES, (96, 128))
    tifffile.imwrite(folder / "s0.tif", clip.video, photometric="rgb", metadata={"axes": "TYXS"})
    tifffile.imwrite(folder / "start.tif", clip.truth[8])
    with Session(folder / "s0.tif", FakePredictor()) as session:
        session.annotate(8, clip.truth[8])
        list(session.propagate())
        return folder, np.asarray(session.labels)


@pytest.fixture
def manifest(expected, tmp_path: Path) -> Path:
    """Three stacks: the same one under three names."""
    for k in range(3):
        (tmp_path / f"s{k}.tif").write_bytes((expected[0] / "s0.tif").read_bytes())
    (tmp_path / "start.tif").write_bytes((expected[0] / "start.tif").read_bytes())
    rows = [{"input": f"s{k}.tif", "masks": "start.tif", "frame": 8, "format": "ome-tiff"} for k in range(3)]
    path = tmp_path / "all.json"
    path.write_text(json.dumps(rows))
    return path


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[distributed.Client, Callable[..., None]]]:
    """A scheduler and two workers, a process each, and a function that kills one of them by name, or signals to it."""
    program = [sys.executable, "-m", "distributed.cli.dask_"]
    place = ["--scheduler-file", str(folder / "scheduler.json")]
    commands = {"scheduler": [*place, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"]}
    for name in ("one", "two"):
        commands[name] = [*place, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = {
        name: subprocess.Popen(
            [*program[:2], program[2] + ("scheduler" if name == "scheduler" else "worker"), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
        )
        for name, options in commands.items()
    }
    try:
        with distributed.Client(scheduler_file=str(folder / "scheduler.json"), timeout=300) as client:
            client.wait_for_workers(2)
            yield client, lambda name, how=signal.SIGKILL: started[name].send_signal(how)
    finally:
        for process in started.values():
            process.kill()
            process.wait()


def killing(kill: Callable[..., None], name: str, after: int) -> Callable[[Progress], None]:
    """Kill a process once so many frames are done."""
    killed: list[str] = []

    def look(now: Progress) -> None:
        if now.frames >= after and not killed:
            killed.append(name)
            kill(name)

    return look


def test_a_scheduler_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    """Asking a scheduler that hangs how many workers it has ends in an error, and works again when it does."""
    with cluster(tmp_path) as (client, kill):
        kill("scheduler", signal.SIGSTOP)
        with pytest.raises(OSError, match="time"):
            running._threads(client, 0.2)
        kill("scheduler", signal.SIGCONT)
        assert running._threads(client, running.FIRST_ANSWER) == 2


def check(manifest: Path, labels: np.ndarray) -> None:
    """All three projects and exports hold the labels of a session."""
    for k in range(3):
        folder = manifest.parent / "all_results"
        with Session.open(folder / f"s{k}.ivos") as session:
            np.testing.assert_array_equal(np.asarray(session.labels), labels)
        np.testing.assert_array_equal(tifffile.imread(folder / f"s{k}" / "labels.ome.tif"), labels)


@pytest.mark.parametrize("seed", range(FAULTS))
def test_a_killed_worker_costs_its_parcels_only(expected, manifest: Path, tmp_path: Path, seed: int) -> None:
    """When a worker dies in the middle, the others do its parcels again, and all labels are those of a session."""
    chance, place = random.Random(seed), tmp_path / "cluster"
    place.mkdir()
    with cluster(place) as (client, kill):
        look = killing(kill, chance.choice(["one", "two"]), chance.randrange(2 * FRAMES))
        summary = run_batch(manifest, client, model=FakePredictor(), frames_a_parcel=2, progress=look)
    assert summary.complete, summary.as_text()
    check(manifest, expected[1])


@pytest.mark.parametrize("seed", range(FAULTS))
def test_a_killed_scheduler_ends_the_batch_and_the_next_call_goes_on(
    expected, manifest: Path, tmp_path: Path, seed: int
) -> None:
    """When the scheduler dies, the batch says so and keeps what is done; called again, it ends with the same labels."""
    chance, place = random.Random(seed), tmp_path / "cluster"
    place.mkdir()
    options: dict[str, Any] = {"model": FakePredictor(), "frames_a_parcel": 2}
    with cluster(place) as (client, kill):
        look = killing(kill, "scheduler", chance.randrange(2 * FRAMES))
        with pytest.raises(IvosError, match=r"cluster is gone.*kept"):
            run_batch(manifest, client, progress=look, **options)
    kept = {path.name for path in (manifest.parent / "all_results").glob("s*.ivos")}
    for name in kept:
        with Session.open(manifest.parent / "all_results" / name) as session:
            shown = np.asarray(session.labels)
        done = shown.any(axis=(1, 2))
        np.testing.assert_array_equal(shown[done], expected[1][done])
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, protocol="inproc"
        ) as local,
        distributed.Client(local) as client,
    ):
        assert run_batch(manifest, client, **options).complete
    check(manifest, expected[1])
