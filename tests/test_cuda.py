"""On a CUDA device: what the CPU gives, in batches, within its memory, and trained by several processes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_ivos.benchmark.metrics import frame_jaccard
from napari_ivos.frames import open_frames
from napari_ivos.networks import load_model
from napari_ivos.networks.weights import DEFAULT
from napari_ivos.networks.weights import __file__ as weights_module
from napari_ivos.predictor import Interaction, Propagation
from napari_ivos.scribbles import read_davis
from napari_ivos.session import Session

torch = pytest.importorskip("torch")

if TYPE_CHECKING:
    from napari_ivos.networks.inference import TorchPredictor

SAMPLES = Path(__file__).parent.parent / "sample_data"
WEIGHTS = Path(weights_module).parent / "models" / f"{DEFAULT}.safetensors"

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
    pytest.mark.skipif(not WEIGHTS.exists(), reason="no trained weights in this checkout"),
]


@pytest.fixture(scope="module")
def model() -> TorchPredictor:
    """The shipped weights on the first CUDA device."""
    return load_model(device="cuda")


def requests(model: TorchPredictor, count: int) -> list[Propagation]:
    """Different discs on noise, each with a reference of its own."""
    found = []
    y, x = np.mgrid[: model.size, : model.size] / model.size
    for k in range(count):
        rng = np.random.default_rng(k)
        inside = np.hypot(y - rng.uniform(0.3, 0.7), x - rng.uniform(0.3, 0.7)) < rng.uniform(0.1, 0.25)
        image = (np.where(inside, 0.7, 0.3)[..., None] + rng.normal(0, 0.05, (*inside.shape, 3))).astype(np.float32)
        mask = inside.astype(np.float32)
        reference = model.segment([Interaction(image, mask, mask, 0 * mask)])[0].reference
        found.append(Propagation(image, mask, None, [reference], 0 * mask))
    return found


@pytest.mark.parametrize("name", ["cells", "toy"])
def test_a_gpu_segments_the_samples_as_the_cpu_does(model: TorchPredictor, name: str) -> None:
    """Labels of a round agree with those of the CPU (J > 0.97) and score against the known masks as they do."""
    truth = tifffile.imread(SAMPLES / f"{name}_masks.tif")[:12]
    labels = []
    for predictor in (model, load_model(device="cpu")):
        with open_frames(SAMPLES / f"{name}.tif") as stack, Session(stack, predictor) as session:
            for scribbles in read_davis(SAMPLES / f"{name}_scribbles.json", stack.shape):
                session.interact(scribbles)
            list(session.propagate(stop=11))
            labels.append(np.stack([session.labels[t] for t in range(12)]))
    count = int(truth.max())
    gpu, cpu = (np.mean([frame_jaccard(a, b, count) for a, b in zip(truth, found, strict=True)]) for found in labels)
    assert np.mean([frame_jaccard(a, b, count) for a, b in zip(labels[1], labels[0], strict=True)]) > 0.97
    assert abs(gpu - cpu) < 0.02
    assert gpu > 0.75


def test_a_batch_on_a_gpu_gives_what_its_objects_give_alone(model: TorchPredictor) -> None:
    """Nine objects at once and one by one: probabilities within what bfloat16 resolves."""
    wanted = requests(model, 9)
    together = model.propagate(wanted)
    for k, one in enumerate(wanted):
        assert np.abs(model.propagate([one])[0] - together[k]).max() < 0.05
        assert np.mean(np.abs(model.propagate([one])[0] - together[k])) < 0.002


def test_where_gpu_memory_is_short_batches_become_smaller(model: TorchPredictor) -> None:
    """With next to no memory left 64 objects still come out, equal to those with all of it."""
    wanted = requests(model, 8) * 8
    plenty = model.propagate(wanted)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 200 * 2**20) / total)
    try:
        scarce = model.propagate(wanted)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(scarce) == 64
    assert max(float(np.abs(a - b).max()) for a, b in zip(plenty, scarce, strict=True)) < 0.05
