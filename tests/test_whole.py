"""The whole, with the shipped weights: scribbles on stacks with known masks, corrections, undo, kill -9 and resume."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_ivos.benchmark.datasets import read_sequence
from napari_ivos.benchmark.metrics import frame_jaccard
from napari_ivos.benchmark.robot import correct, first_scribbles
from napari_ivos.cli import main
from napari_ivos.frames import open_frames
from napari_ivos.networks import load_model
from napari_ivos.networks.weights import DEFAULT
from napari_ivos.networks.weights import __file__ as weights_module
from napari_ivos.scribbles import read_davis
from napari_ivos.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_ivos.networks.inference import TorchPredictor

SAMPLES = Path(__file__).parent.parent / "sample_data"
DEV = Path(__file__).parent.parent.parent / "shared" / "data" / "dev"
WEIGHTS = Path(weights_module).parent / "models" / f"{DEFAULT}.safetensors"

pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason="no trained weights in this checkout")


@pytest.fixture(scope="module")
def model() -> TorchPredictor:
    """The shipped weights on the CPU."""
    return load_model(device="cpu")


def agreement(truth: np.ndarray, labels: np.ndarray) -> float:
    """Mean J over frames and objects."""
    count = int(truth.max())
    return float(np.mean([frame_jaccard(a, b, count) for a, b in zip(truth, labels, strict=True)]))


@pytest.fixture(scope="module", params=["cells", "toy"])
def first_round(request: pytest.FixtureRequest, model: TorchPredictor) -> Iterator[tuple[Session, np.ndarray]]:
    """A sample stack after its own scribbles and one propagation, and its known masks; tests leave it as it was."""
    with open_frames(SAMPLES / f"{request.param}.tif") as stack, Session(stack, model) as session:
        for scribbles in read_davis(SAMPLES / f"{request.param}_scribbles.json", stack.shape):
            session.interact(scribbles)
        list(session.propagate())
        yield session, tifffile.imread(SAMPLES / f"{request.param}_masks.tif")


def test_one_scribbled_frame_segments_the_samples(first_round: tuple[Session, np.ndarray]) -> None:
    """Both sample stacks reach a mean J of 0.8 after round 1, all frames and objects counted."""
    session, truth = first_round
    assert agreement(truth, np.asarray(session.labels)) >= 0.8


def test_a_correction_raises_j_and_undo_takes_it_back(first_round: tuple[Session, np.ndarray]) -> None:
    """A second round on the worst frame raises the mean J; undone, every label is as it was, redone, as it became."""
    session, truth = first_round
    before = np.asarray(session.labels)
    count = int(truth.max())
    worst = int(np.argmin([frame_jaccard(a, b, count).mean() for a, b in zip(truth, before, strict=True)]))
    scribbles = correct(truth[worst], before[worst], worst)
    assert scribbles.strokes
    session.interact(scribbles)
    list(session.propagate())
    after = np.asarray(session.labels)
    assert agreement(truth, after) > agreement(truth, before)
    assert session.undo(to="round")
    assert np.array_equal(np.asarray(session.labels), before)
    session.redo(to="round")
    assert np.array_equal(np.asarray(session.labels), after)
    session.undo(to="round")


@pytest.mark.skipif(not DEV.exists(), reason="the development stacks are not here")
@pytest.mark.parametrize(("place", "frames"), [("video/car-shadow", 12), ("microscopy/usiigaci_t98g", 8)])
def test_real_stacks_get_usable_masks(model: TorchPredictor, place: str, frames: int) -> None:
    """The first frames of real stacks, never trained on, reach a mean J of 0.5 from one scribbled frame."""
    data = read_sequence(DEV / place)
    video, truth = data.frames[:frames], data.labels[:frames]
    ids = [i for i in np.unique(truth[0]).tolist() if i and all((mask == i).sum() > 50 for mask in truth)][:6]
    with open_frames(video, axes="TYXC"[: video.ndim]) as stack, Session(stack, model) as session:
        session.interact(first_scribbles(truth[0], 0, np.random.default_rng(0), ids))
        list(session.propagate())
        labels = np.asarray(session.labels)
    overlaps = [((labels == i) & (truth == i)).sum() / ((labels == i) | (truth == i)).sum() for i in ids]
    assert np.mean(overlaps) >= 0.5


KILLED = """
import os, signal, sys
from napari_ivos.cli import main
from napari_ivos.networks.inference import TorchPredictor
from napari_ivos.session import Session

calls, real, propagate = int(sys.argv[1]), TorchPredictor.propagate, Session.propagate

def counted(self, requests):
    global calls
    calls -= 1
    if calls < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, requests)

def reporting(self, *args, **options):
    for result in propagate(self, *args, **options):
        os.write(1, f"{result.frame}\\n".encode())
        yield result

TorchPredictor.propagate, Session.propagate = counted, reporting
sys.exit(main(sys.argv[2:]))
"""
"""The command line, in which the network's call of a given number is the process's last."""


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder with the first frames of the cells and masks of two of them; and an unbroken run's labels."""
    folder = tmp_path_factory.mktemp("short")
    truth = tifffile.imread(SAMPLES / "cells_masks.tif")[20:28]
    ids = np.unique(truth[4])[1:3]
    tifffile.imwrite(folder / "movie.tif", tifffile.imread(SAMPLES / "cells.tif")[20:28], photometric="minisblack")
    tifffile.imwrite(folder / "start.tif", np.where(np.isin(truth[4], ids), truth[4], 0))
    assert main([*command(folder, "whole.ivos"), "--output", str(folder / "whole.tif"), "--quiet"]) == 0
    return folder, tifffile.imread(folder / "whole.tif")


def command(folder: Path, project: str) -> list[str]:
    start = ["--masks", str(folder / "start.tif"), "--frame", "4"]
    return ["segment", str(folder / "movie.tif"), *start, "--project", str(folder / project), "--device", "cpu"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize("calls", [1, 5], ids=["early", "late"])
def test_a_killed_command_goes_on_to_the_same_labels(short: tuple[Path, np.ndarray], calls: int) -> None:
    """After kill -9 in the real network, reported frames are there, and the same command gives the same labels."""
    folder, expected = short
    project, output = f"killed{calls}.ivos", folder / f"killed{calls}.tif"
    arguments = [*command(folder, project), "--output", str(output), "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(calls), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not output.exists()
    reported = [int(line) for line in done.stdout.split()]
    assert len(reported) == calls
    with Session.open(folder / project) as session:
        for frame in reported:
            assert np.array_equal(session.labels[frame], expected[frame])
        assert session.read_only is None
    assert main(arguments) == 0
    assert np.array_equal(tifffile.imread(output), expected)
