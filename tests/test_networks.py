"""Level 1: the two networks, their files, and the predictor around them, with fresh weights."""

from __future__ import annotations

import math
import pickle
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_ivos import FakePredictor, Predictor, Session, WeightsError, load_model, steps
from napari_ivos.motion import resampled
from napari_ivos.networks import inference, weights
from napari_ivos.networks.blocks import Architecture, KeptPlanes, MobileNetV2Encoder, make_encoder
from napari_ivos.networks.inference import TorchPredictor, pick_device, reference_shapes, unpack
from napari_ivos.networks.interaction import ReferenceTensors
from napari_ivos.networks.planes import crop
from napari_ivos.networks.propagation import FeatureAggregation, PropagationNetwork
from napari_ivos.networks.remembered import Remembered
from napari_ivos.predictor import Interaction, Propagation, side_of
from napari_ivos.regions import Box
from napari_ivos.scribbles import Stroke

SMALL = Architecture(size=64, width=16, fine_width=8, key=8)
ARCHITECTURES = {
    "compact": SMALL,
    "pooled only": Architecture(size=64, width=16, fine_width=8, key=8, spatial_reference=False),
    "spatial only": Architecture(size=64, width=16, fine_width=8, key=8, pooled_reference=False),
    "residual masks": Architecture(size=64, width=16, fine_width=8, key=8, residual_masks=True),
    "motion": Architecture(size=64, width=16, fine_width=8, key=8, residual_masks=True, motion=True),
    "resnet18": Architecture(encoder="resnet18", size=64, width=16, fine_width=8, key=8),
    "resnet50": Architecture(encoder="resnet50", size=64, width=16, fine_width=8, deep_laterals=True, key=8),
}


def predictor_of(architecture: Architecture) -> TorchPredictor:
    torch.manual_seed(0)
    return TorchPredictor(*weights.new_networks(architecture), name="fresh", checksum="0" * 64, device="cpu")


@pytest.fixture(scope="module")
def predictor() -> TorchPredictor:
    return predictor_of(SMALL)


def interaction(rng: np.random.Generator, shape: tuple[int, int] = (50, 70), known: bool = True) -> Interaction:
    plane = [rng.random((64, 64), np.float32) for _ in range(3)]
    return Interaction(rng.random((*shape, 3), np.float32), plane[0] if known else None, plane[1], plane[2])


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_every_architecture_gives_a_probability_for_each_object(architecture: Architecture) -> None:
    """Both networks give (S, S) probabilities in 0..1 for regions of any size, and references of the stated size."""
    rng = np.random.default_rng(0)
    model = predictor_of(architecture)
    results = model.segment([interaction(rng, shape, known) for shape, known in (((3, 200), True), ((64, 64), False))])
    expected = sum(int(np.prod(s)) for s in reference_shapes(architecture, 64))
    for result in results:
        assert result.probability.shape == (64, 64)
        assert 0 <= result.probability.min() <= result.probability.max() <= 1
        assert result.reference.shape == (expected,)
        assert result.reference.dtype == np.float16
    ask = Propagation(
        rng.random((31, 17, 3), np.float32), rng.random((64, 64), np.float32), None, [results[0].reference]
    )
    assert model.propagate([ask])[0].shape == (64, 64)


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_gradients_reach_every_parameter_of_both_networks(architecture: Architecture) -> None:
    """A loss on the propagated mask with two references trains every parameter, those of the interaction too."""
    torch.manual_seed(0)
    first, second = weights.new_networks(architecture)
    for block in (m for network in (first, second) for m in network.modules() if hasattr(m, "second")):
        torch.nn.init.normal_(block.second.weight, std=0.05)  # starts at zero, and would hide what lies before it
    image, planes = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    logits, reference = first(image, planes)
    other = first(image.flip(0), planes)[1]
    valid = torch.tensor([[True, True], [True, False]])
    carried = second(image, planes[:, : second.planes], second.memorise([reference, other], valid))
    sum(x.square().mean() for x in (*logits, *carried)).backward()
    silent = [
        name
        for network in (first, second)
        for name, p in network.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    frozen = (".bn", "bn1.", "downsample.1")  # BatchNorm keeps its statistics but its scale is trained
    unused = {"key", "value"} if not architecture.spatial_reference else set()
    assert [n for n in silent if not any(f in n for f in frozen) and n.split(".")[0] not in unused] == []


def test_results_of_a_batch_equal_those_one_by_one(predictor: TorchPredictor) -> None:
    """A mask and a reference do not depend on which objects share the batch, nor on how many references those have."""
    rng = np.random.default_rng(1)
    asks = [interaction(rng, (20 + 7 * k, 90 - 5 * k)) for k in range(11)]
    together = predictor.segment(asks)
    for ask, result in zip(asks, together, strict=True):
        alone = predictor.segment([ask])[0]
        np.testing.assert_allclose(alone.probability, result.probability, atol=2e-5)
        np.testing.assert_allclose(alone.reference.astype(float), result.reference.astype(float), atol=2e-2, rtol=1e-2)
    carried = [
        Propagation(a.image, a.positive, a.previous, [r.reference for r in together[: 1 + k % 3]])
        for k, a in enumerate(asks)
    ]
    for ask, p in zip(carried, predictor.propagate(carried), strict=True):
        np.testing.assert_allclose(predictor.propagate([ask])[0], p, atol=2e-5)


def test_what_references_say_is_put_together_once_for_all_frames(monkeypatch) -> None:
    """The same references are taken in once for many frames, others and another side anew; masks are the same."""
    model, fresh = predictor_of(TWO_SIDES), predictor_of(TWO_SIDES)
    fresh.propagation.load_state_dict(model.propagation.state_dict())
    rng, times = np.random.default_rng(0), []
    whole = model.propagation.memorise
    monkeypatch.setattr(model.propagation, "memorise", lambda *a: (times.append(1), whole(*a))[1])
    shape = sum(int(np.prod(s)) for s in reference_shapes(TWO_SIDES, 96))
    first, second = (rng.normal(size=shape).astype(np.float16) for _ in range(2))
    plan = [(96, [first], 1), (96, [first], 1), (64, [first], 2), (96, [first, second], 3), (96, [first], 3)]
    for side, references, expected in plan:
        ask = asked(side, rng, references)
        (found,) = model.propagate([ask])
        assert len(times) == expected
        fresh._memories = Remembered(0)
        np.testing.assert_array_equal(found, fresh.propagate([ask])[0])


def test_what_is_made_of_references_is_kept_for_these_very_arrays_within_a_weight() -> None:
    """The least recently used goes first, what weighs too much is not kept, and a new array in an old place is new."""
    kept, (a, b, c) = Remembered(10, len), np.zeros((3, 1), np.float16)
    assert [kept.get([x], lambda made=made: made) for x, made in ((a, "aaaa"), (b, "bbbb"))] == ["aaaa", "bbbb"]
    assert kept.get([a], lambda: "other") == "aaaa"
    assert kept.get([a], lambda: "x", "in another way") == "x"
    assert kept.get([a.copy()], lambda: "y") == "y"
    assert kept.get([a, b, c], lambda: "more than ten") == "more than ten"
    assert kept.get([c], lambda: "cccc") == "cccc"  # fourteen letters: those of b are too many
    assert kept.get([a], lambda: "other") == "aaaa"
    assert kept.get([b], lambda: "bb") == "bb"
    for n in range(100):
        assert kept.get([np.zeros(1, np.float16)], lambda made=str(n): made) == str(n)


TWO_SIDES = replace(SMALL, size=96, small=64, residual_masks=True, motion=True)


def test_small_regions_are_seen_at_fewer_pixels_and_large_ones_at_more() -> None:
    """A region that fits into the large side is seen at the small one; without a small side all are seen at one."""
    model, plain = predictor_of(TWO_SIDES), predictor_of(SMALL)
    for region, side in ((Box(0, 0, 20, 30), 64), (Box(5, 5, 101, 40), 64), (Box(5, 5, 102, 40), 96)):
        assert side_of(model, region) == side
        assert side_of(plain, region) == 64
    assert side_of(FakePredictor(32), Box(0, 0, 500, 500)) == 32


def asked(side: int, rng: np.random.Generator, references: list[np.ndarray] | None = None) -> Any:
    """A request of either network at a side, with planes drawn by chance."""
    image, *planes = (rng.random((side, side, *more), np.float32) for more in ((3,), (), (), ()))
    return Interaction(image, *planes) if references is None else Propagation(image, planes[0], None, references)


def test_requests_of_both_sides_in_one_call_are_answered_in_order_as_if_alone() -> None:
    """Large and small regions go through the networks in batches of their own, and come back in the order asked."""
    model, rng = predictor_of(TWO_SIDES), np.random.default_rng(0)
    looks = [asked(side, rng) for side in (64, 96, 64, 96, 96)]
    found = model.segment(looks)
    assert [one.probability.shape[0] for one in found] == [64, 96, 64, 96, 96]
    for look, one in zip(looks, found, strict=True):
        np.testing.assert_allclose(one.probability, model.segment([look])[0].probability, atol=1e-5)
    hops = [asked(side, rng, [one.reference]) for side, one in zip((96, 96, 64, 64, 96), found, strict=True)]
    for hop, answer in zip(hops, model.propagate(hops), strict=True):
        np.testing.assert_allclose(answer, model.propagate([hop])[0], atol=1e-5)


def test_what_was_learned_from_a_region_of_one_side_serves_at_the_other() -> None:
    """A reference of the other side is brought to this one: flat features stay what they were, and masks come out."""
    sizes = [sum(int(np.prod(s)) for s in reference_shapes(TWO_SIDES, side)) for side in (64, 96)]
    flat = [np.full(size, 0.5, np.float16) for size in sizes]
    for side in (64, 96):
        for features in vars(unpack(flat, TWO_SIDES, side, torch.device("cpu"))).values():
            assert features.shape[0] == 2
            assert features.shape[2] in (side // 32, side // 16)
            assert (features == 0.5).all()
    model, rng = predictor_of(TWO_SIDES), np.random.default_rng(0)
    learned = [one.reference for one in model.segment([asked(64, rng), asked(96, rng)])]
    assert model.propagate([asked(96, rng, learned)])[0].shape == (96, 96)
    with pytest.raises(WeightsError, match="another model made it"):
        model.propagate([asked(96, rng, [learned[0][:-1]])])


def test_an_object_that_grows_is_followed_from_one_side_to_the_other(monkeypatch) -> None:
    """Between a small and a large annotated mask the networks look at both sides, each with both references."""
    frames = np.zeros((4, 120, 120), np.uint8)
    rows, columns = np.indices((120, 120)) - 60
    for t, radius in enumerate((8, 14, 24, 45)):
        frames[t][rows**2 + columns**2 < radius**2] = 200
    model, seen = predictor_of(TWO_SIDES), []
    propagate = TorchPredictor.propagate

    def noted(self: TorchPredictor, requests: list[Propagation]) -> list[np.ndarray]:
        seen.extend((len(r.neighbour), len({len(x) for x in r.references})) for r in requests)
        return propagate(self, requests)

    monkeypatch.setattr(TorchPredictor, "propagate", noted)
    with Session(frames, model) as session:
        for t in (0, 3):
            session.annotate(t, (frames[t] > 0).astype(np.uint16))
        done = [result.frame for result in session.propagate()]
        assert sorted(done) == [1, 2]
        assert all(not session.masks(t)[1].empty for t in done)
    assert set(seen) == {(64, 2), (96, 2)}


def test_the_predictor_obeys_the_protocol_and_runs_a_frame(predictor: TorchPredictor) -> None:
    """A fresh model goes through the same steps as any predictor: scribble, mask, next frame."""
    assert isinstance(predictor, Predictor)
    frame = np.random.default_rng(2).random((90, 110, 3), np.float32)
    found = steps.segment(lambda b: frame[b.slices], (90, 110), predictor, [Stroke(1, [(40, 30), (50, 60)])], {}, [1])
    patches = {1: found[1].patch}
    carried = steps.propagate(lambda b: frame[b.slices], (90, 110), predictor, patches, {}, {1: [found[1].reference]})
    assert carried[1].probability.dtype == np.uint8


def test_a_model_file_gives_back_the_same_masks(predictor: TorchPredictor) -> None:
    """What is saved in float16 and loaded again computes what its float16 weights say, twice the same."""
    blob = weights.to_bytes(predictor.interaction, predictor.propagation, SMALL, name="mine")
    again, third = weights.load_bytes(blob, "x", "cpu"), weights.load_bytes(blob, "x", "cpu")
    assert (again.name, again.size, again.checksum) == ("mine", 64, weights.checksum_of(blob))
    assert again.portable_weights() is None
    assert weights.load_bytes(blob, "x", "cpu", portable=True).portable_weights() == blob
    ask = interaction(np.random.default_rng(3))
    p, q, r = (m.segment([ask])[0].probability for m in (predictor, again, third))
    np.testing.assert_array_equal(q, r)
    np.testing.assert_allclose(p, q, atol=5e-3)


def test_stride_two_convolutions_pad_as_the_imagenet_weights_expect() -> None:
    """On an even side the light encoder's first convolution sees padding at the right and bottom only."""
    encoder = MobileNetV2Encoder(1)
    torch.nn.init.zeros_(encoder.features[0].conv.weight)
    torch.nn.init.zeros_(encoder.features[0].conv.bias)
    encoder.features[0].conv.weight.data[0, 0, 0, 0] = 1.0  # looks up and left of its centre
    x = torch.zeros(1, 3, 4, 4)
    x[0, 0, 0, 0] = 1.0
    assert encoder.features[0](x)[0, 0].tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_halving_sums_the_same_with_and_without_gradients() -> None:
    """In use, where nothing is copied to be padded, features are those of training, at every stride."""
    torch.manual_seed(0)
    encoder, rng = MobileNetV2Encoder(3), torch.Generator().manual_seed(0)
    image, planes = (torch.rand(2, 3, 64, 64, generator=rng) for _ in range(2))
    learning = encoder(image, planes)
    with torch.inference_mode():
        using = encoder(image, planes)
    assert [x.shape[-1] for x in using] == [32, 16, 8, 4, 2]
    for a, b in zip(learning, using, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("numbers", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("depthwise", [False, True])
def test_the_gradients_of_halving_are_those_of_a_padded_convolution(depthwise: bool, numbers: torch.dtype) -> None:
    """What is learned does not depend on how a CPU computes it: pictures, weights, biases get the plain gradients."""
    torch.manual_seed(0)
    encoder = MobileNetV2Encoder(1).to(numbers)
    layer = encoder.features[2].depthwise if depthwise else encoder.features[0]
    conv, rng = layer.conv, torch.Generator().manual_seed(0)
    picture = torch.rand(2, conv.in_channels, 16, 24, generator=rng).to(numbers, memory_format=torch.channels_last)

    def padded(x: torch.Tensor) -> torch.Tensor:
        wide = torch.nn.functional.pad(x, (0, 1, 0, 1))
        return torch.nn.functional.conv2d(wide, conv.weight, conv.bias, 2, 0, 1, conv.groups)

    found = []
    for halve in (layer, padded):
        x = picture.clone().requires_grad_()
        y = halve(x)
        pull = torch.arange(y.numel()).reshape(y.shape) % 7 - 3
        found.append([y.detach(), *torch.autograd.grad((y * pull).sum(), [x, *conv.parameters()])])
    close = {"rtol": 1e-4, "atol": 1e-4} if numbers == torch.float32 else {"rtol": 0.02, "atol": 0.05}
    for own, plain in zip(*found, strict=True):
        torch.testing.assert_close(own, plain, **close)


@pytest.mark.parametrize("there", [False, True])
def test_decoders_compute_in_bfloat16_where_the_cpu_multiplies_it(monkeypatch, there: bool) -> None:
    """A CPU that multiplies it gives masks near those in float32, another one gives just those; training is as ever."""
    architecture, rng = replace(SMALL, residual_masks=True, motion=True), np.random.default_rng(0)
    monkeypatch.setattr(inference, "multiplies_bfloat16", lambda: False)
    plain = predictor_of(architecture)
    monkeypatch.setattr(inference, "multiplies_bfloat16", lambda: there)
    model = predictor_of(architecture)
    look = interaction(rng)
    first, second = (m.segment([look])[0] for m in (plain, model))
    hop = Propagation(rng.random((64, 64, 3), np.float32), look.positive, None, [first.reference])
    for a, b in ((first.probability, second.probability), (plain.propagate([hop])[0], model.propagate([hop])[0])):
        np.testing.assert_allclose(a, b, atol=0.02)
        assert (a != b).any() == there
    shapes = {640: 2, 96 + 16 + 1: 4, 32: 8, 24: 16, 16 + 3 + 3: 32}  # channels: side
    features = [torch.rand(1, c, side, side) for c, side in shapes.items()]
    assert model.propagation.decoder(features)[0].dtype == torch.float32
    with torch.inference_mode():
        assert (model.propagation.decoder(features)[0].dtype == torch.bfloat16) == there


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_takes_torchvisions_imagenet_weights(name: str) -> None:
    """Torchvision's state dict goes in whole, and with empty extra planes the first features are torchvision's own."""
    import torchvision

    torch.manual_seed(0)
    original = getattr(torchvision.models, name)(weights=None).eval()
    encoder = make_encoder(name, 2).eval()
    encoder.load_imagenet(original.state_dict())
    image = torch.rand(1, 3, 64, 64)
    taps = encoder(image, torch.zeros(1, 2, 64, 64))
    x = (image - encoder.mean) / encoder.std
    with torch.no_grad():
        x = original.maxpool(original.relu(original.bn1(original.conv1(x))))
        x = original.layer4(original.layer3(original.layer2(original.layer1(x))))
    torch.testing.assert_close(taps[-1], x, rtol=1e-3, atol=1e-4)
    with pytest.raises(WeightsError, match="not a state dict"):
        encoder.load_imagenet({"layer1.0.conv1.weight": torch.zeros(1)})


def test_attention_drops_weights_that_are_next_to_nothing_and_references_that_an_object_lacks() -> None:
    """Of what is far away, or not valid, nothing at all gets through, however large it is; the near value does."""
    query = torch.zeros(2, 4, 1, 1)
    far = math.sqrt(math.sqrt(4) * 40)  # a weight of e^-40
    keys = [torch.full((2, 4, 1, 1), x / 2) for x in (0.0, far, 0.0)]
    values = [torch.full((2, 3, 1, 1), x) for x in (1.0, 1e30, 5.0)]
    references = [ReferenceTensors(torch.zeros(2, 1, 1, 1), k, v) for k, v in zip(keys, values, strict=True)]
    valid = torch.tensor([[True, True, True], [True, True, False]])
    network = PropagationNetwork(Architecture(pooled_reference=False))
    found = network._read(query, network.memorise(references, valid))
    assert found.shape == (2, 3, 1, 1)
    assert found[0].flatten().tolist() == pytest.approx([3.0] * 3)
    assert found[1].flatten().tolist() == pytest.approx([1.0] * 3)


def test_aggregation_weights_each_channel_between_old_and_new() -> None:
    """The aggregate of two references lies between them in every channel, and of a reference with itself is itself."""
    torch.manual_seed(0)
    fold = FeatureAggregation(32)
    a, b = torch.rand(2, 32, 3, 3), torch.rand(2, 32, 3, 3)
    out = fold(a, b)
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    assert bool(((out >= low - 1e-5) & (out <= high + 1e-5)).all())
    torch.testing.assert_close(fold(a, a), a)


def test_cropping_by_roi_align_keeps_a_ramp() -> None:
    """A linear ramp cut to a region and resized is the same ramp, whether the region is enlarged or averaged."""
    ramp = torch.arange(400, dtype=torch.float32).expand(1, 1, 40, 400)
    for box, size in ((Box(4, 100, 36, 132), 64), (Box(0, 0, 40, 320), 64)):
        cut = crop(ramp, [box], size)[0, 0, size // 2]
        expected = box.x0 - 0.5 + (np.arange(size) + 0.5) * box.width / size
        inner = slice(4, -4)
        np.testing.assert_allclose(cut[inner].numpy(), expected[inner], atol=0.06)


@pytest.mark.parametrize("shape", [(300, 420), (100, 90), (193, 50), (48, 48), (5, 3), (700, 96)])
def test_regions_are_sampled_in_use_as_in_training(shape: tuple[int, int]) -> None:
    """What the networks are shown of a region in use is what ROI align cuts for them in training, pixel by pixel."""
    image = np.random.default_rng(0).random((*shape, 3), np.float32)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    trained = crop(planes, [Box(0, 0, *shape)], 192)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(resampled(image, (192, 192)), trained, atol=1e-4)


def test_a_region_of_a_huge_frame_is_averaged_in_little_memory() -> None:
    """A region of 7,000 x 3,000 pixels is shown as the mean of its pixels, without an image larger than itself."""
    rows, columns = np.indices((7_000, 3_000), np.float32)
    image = np.stack([rows / 7_000, columns / 3_000, np.ones_like(rows)], 2)
    tracemalloc.start()
    seen = resampled(image, (100, 100))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    down, along = np.meshgrid(*[(np.arange(100) + 0.5) / 100] * 2, indexing="ij")
    np.testing.assert_allclose(seen, np.stack([down, along, np.ones((100, 100))], 2), atol=1e-3)
    assert most < image.nbytes


def test_the_named_architectures_have_the_stated_sizes() -> None:
    """Compact has under 7.5 million parameters in both networks together, and the paper's over 46 million in one."""
    both = [sum(p.numel() for n in weights.new_networks(weights.architecture_of("compact")) for p in n.parameters())]
    assert both[0] < 7.5e6
    with torch.device("meta"):
        large = weights.new_networks(weights.architecture_of("resnet50"))
    assert 40e6 < sum(p.numel() for p in large[0].parameters()) < 55e6  # the paper says 46.5 million


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: pickle.dumps({"weights": 1}), "pickle"),
        (lambda b: b"PK\x03\x04" + b, "pickle"),
        (lambda b: b"", "not a safetensors"),
        (lambda b: b"\xff" * 100, "not a safetensors"),
        (lambda b: b[: len(b) // 2], "damaged"),
        (lambda b: b.replace(b"napari-ivos 1", b"napari-ivos 9"), "not made by this package"),
        (lambda b: b.replace(b'\\"width\\": 16', b'\\"width\\": 32'), "shape"),
        (lambda b: b.replace(b'\\"width\\"', b'\\"wodth\\"'), "does not know"),
        (lambda b: b.replace(b'\\"size\\": 64', b'\\"size\\": 65'), "impossible"),
        (lambda b: b.replace(b'\\"size\\": 64', b'\\"size\\": null'), "impossible"),
        (lambda b: b.replace(b'\\"width\\": 16', b'\\"width\\": -1'), "narrow or wide"),
        (lambda b: b.replace(b'\\"width\\": 16', b'\\"width\\": []'), "impossible"),
    ],
    ids=[
        *("pickle", "zip", "empty", "noise", "truncated", "format"),
        *("shape", "field", "size", "size-type", "width", "width-type"),
    ],
)
def test_a_damaged_or_foreign_model_file_is_refused(predictor: TorchPredictor, damage, message: str) -> None:
    """Each kind of bad weights gives a WeightsError that says what is wrong, and nothing is unpickled."""
    blob = damage(weights.to_bytes(predictor.interaction, predictor.propagation, SMALL))
    with pytest.raises(WeightsError, match=message):
        weights.load_bytes(blob, "a.safetensors", "cpu")


def test_a_wrong_checksum_is_named(tmp_path, predictor: TorchPredictor) -> None:
    """A model beside its .sha256 file is refused when one byte has changed, and taken when none has."""
    blob = weights.to_bytes(predictor.interaction, predictor.propagation, SMALL)
    path = tmp_path / "mine.safetensors"
    path.write_bytes(blob)
    (tmp_path / "mine.safetensors.sha256").write_text(weights.checksum_of(blob), encoding="ascii")
    assert load_model(path, device="cpu").checksum == weights.checksum_of(blob)
    path.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    with pytest.raises(WeightsError, match="checksum"):
        load_model(path, device="cpu")
    (tmp_path / "mine.safetensors.sha256").write_bytes(b"")
    with pytest.raises(WeightsError, match="checksum"):
        load_model(path, device="cpu")


def test_weights_that_are_not_finite_are_refused(predictor: TorchPredictor) -> None:
    """A NaN in a tensor is found when the model is loaded, not in the middle of somebody's work."""
    first, second = weights.new_networks(SMALL)
    first.key.bias.data[0] = float("nan")
    with pytest.raises(WeightsError, match="not finite"):
        weights.load_bytes(weights.to_bytes(first, second, SMALL), "bad", "cpu")


@pytest.mark.parametrize(("name", "message"), [("resnet50", "no trained weights"), ("nothing", "No model is called")])
def test_a_model_that_is_not_there_says_what_to_do(name: str, message: str) -> None:
    """An untrained architecture and an unknown name each get their own clear error."""
    with pytest.raises(WeightsError, match=message):
        load_model(name)


@pytest.mark.parametrize(("device", "message"), [("tpu9", "not a device"), ("cuda:77", "not there")])
def test_a_device_that_is_not_there_is_named(device: str, message: str) -> None:
    """Asking for a device that does not exist says which there are."""
    with pytest.raises(WeightsError, match=message):
        pick_device(device)


def test_running_out_of_memory_halves_the_batch_then_says_so(predictor: TorchPredictor, monkeypatch) -> None:
    """Where a batch does not fit its halves are tried; where one object does not fit, the error says what to do."""
    from napari_ivos import OutOfMemory

    sizes = []
    real = TorchPredictor._segment

    def tight(self, requests):
        sizes.append(len(requests))
        if len(requests) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, requests)

    monkeypatch.setattr(predictor, "_batch", 8)
    monkeypatch.setattr(TorchPredictor, "_segment", tight)
    asks = [interaction(np.random.default_rng(k)) for k in range(5)]
    assert len(predictor.segment(asks)) == 5
    assert sizes == [5, 2, 3, 1, 2]
    monkeypatch.setattr(TorchPredictor, "_segment", lambda self, r: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(OutOfMemory, match="device='cpu'"):
        predictor.segment(asks)


def test_networks_with_residual_masks_begin_by_handing_a_mask_on_as_it_is() -> None:
    """A mask that comes in to untrained networks whose decoders say nothing comes out as the sign of the logits."""
    first, second = weights.new_networks(replace(SMALL, residual_masks=True))
    for network in (first, second):
        for head in network.decoder.heads:
            torch.nn.init.zeros_(head.weight)
            torch.nn.init.zeros_(head.bias)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :20, :32] = 1
    known = 2 * mask - 1
    image = torch.rand(1, 3, 64, 64)
    logits, reference = first(image, torch.cat([known, torch.zeros(1, 2, 64, 64)], 1))
    assert torch.equal(logits[0] > 0, mask > 0)
    memory = second.memorise([reference], torch.ones(1, 1).bool())
    propagated = second(image, torch.cat([known, torch.zeros_like(known)], 1), memory)
    for out in propagated:
        assert torch.equal(out > 0, torch.nn.functional.adaptive_avg_pool2d(mask, out.shape[-1]) > 0.5)


def test_a_thin_line_of_a_kept_mask_is_neither_widened_nor_lost() -> None:
    """One pixel's line, narrower than any feature of the networks, goes through as it is, to the pixel."""
    kept = KeptPlanes((2.0,), fine=True)
    line = torch.full((1, 1, 64, 64), -1.0)
    line[..., 31] = 1
    logits = [torch.zeros(1, 1, side, side) for side in (32, 16, 8, 4)]
    finest, *coarse = kept(logits, line)
    assert torch.equal(finest > 0, line > 0)
    assert [x.shape[-1] for x in coarse] == [16, 8, 4]


@pytest.mark.skipif(sys.platform != "linux", reason="libraries have other names there, and none is looked at")
@pytest.mark.parametrize(
    ("mapped", "holds", "loaded", "said"),
    [
        ("7f00 /usr/lib/libLLVM-15.so.1", None, True, ""),
        ("7f00 /usr/lib/libc.so.6", None, False, ""),
        ("7f00 /usr/lib/libLLVM-15.so.1", b"no library", False, "triton can't be loaded"),
        (None, None, False, ""),
    ],
    ids=["Mesa drew first", "no other LLVM", "a broken triton", "not Linux"],
)
def test_triton_is_loaded_apart_where_another_llvm_came_first(
    tmp_path, monkeypatch, caplog, mapped, holds, loaded, said
):
    """Its library is loaded by itself only beside another LLVM; one that can't be is left to torch, and told."""
    from types import SimpleNamespace

    from napari_ivos.networks import llvm

    folder = tmp_path / "_C"
    folder.mkdir()
    library = folder / "libtriton.so"
    if holds is None:
        library.symlink_to(next(Path(torch.__file__).parent.glob("lib/libc10.so")))
    else:
        library.write_bytes(holds)
    (tmp_path / "maps").write_text(mapped or "")
    monkeypatch.setattr(llvm, "MAPPED", tmp_path / ("maps" if mapped else "nothing"))
    monkeypatch.setattr(llvm, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)]))
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    caplog.set_level("INFO", "napari_ivos")
    assert llvm.load_triton_apart() is loaded
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)
