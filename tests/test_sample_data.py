"""The simulated stacks that ship: what is in the files, and that the script makes just these."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_ivos.plugin import sample_data
from napari_ivos.scribbles import read_davis

TOP = Path(__file__).parent.parent
FOLDER = TOP / "sample_data"
SAMPLES = ["cells", "toy"]


@pytest.fixture(scope="module")
def masks() -> dict[str, np.ndarray]:
    return {name: tifffile.imread(FOLDER / f"{name}_masks.tif") for name in SAMPLES}


@pytest.fixture
def simulator(monkeypatch):
    """The script's own modules, importable while a test runs."""
    monkeypatch.syspath_prepend(str(TOP / "scripts"))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("simulator", "make_sample_data")]:
        del sys.modules[name]


def test_all_samples_together_take_less_than_6_mb():
    """The whole folder stays below 6 MB, so that a wheel can carry it."""
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6e6


@pytest.mark.parametrize(
    ("name", "axes", "shape", "dtype"),
    [("cells", "TYX", (48, 256, 320), np.uint16), ("toy", "TYXS", (48, 240, 320, 3), np.uint8)],
    ids=SAMPLES,
)
def test_stacks_are_ome_tiffs_with_named_axes(name, axes, shape, dtype):
    """Each stack is an OME-TIFF whose metadata names its axes, and its masks fit it."""
    with tifffile.TiffFile(FOLDER / f"{name}.tif") as file:
        assert file.is_ome
        assert (file.series[0].axes, file.series[0].shape, file.series[0].dtype) == (axes, shape, dtype)
    with tifffile.TiffFile(FOLDER / f"{name}_masks.tif") as file:
        assert (file.series[0].axes, file.series[0].shape) == ("TYX", shape[:3])


def test_every_cell_is_there_on_every_frame(masks):
    """Seven nuclei of 25 to 45 px are on all 48 frames."""
    areas = np.array([np.bincount(labels.ravel(), minlength=8)[1:] for labels in masks["cells"]])
    diameters = 2 * np.sqrt(areas / np.pi)
    assert areas.shape == (48, 7)
    assert diameters.min() > 22
    assert diameters.max() < 46


def test_some_cells_touch(masks):
    """On some frame two nuclei share a border, on another none do."""

    def touching(labels):
        pairs = [(labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])]
        return any(((one != other) & (one > 0) & (other > 0)).any() for one, other in pairs)

    found = [touching(labels) for labels in masks["cells"]]
    assert any(found)
    assert not all(found)


def test_cells_bleach(masks):
    """The light of the nuclei above the background falls by a third from the first ten frames to the last ten."""
    frames = tifffile.imread(FOLDER / "cells.tif").astype(float)
    light = [f[m > 0].mean() - f[m == 0].mean() for f, m in zip(frames, masks["cells"], strict=True)]
    assert np.mean(light[-10:]) < 0.67 * np.mean(light[:10])


def test_the_toy_is_partly_hidden_but_never_gone(masks):
    """The duck is always to be seen, and on some frame the pillar cuts it in two or takes a third of it."""
    areas = masks["toy"].reshape(48, -1).sum(axis=1)
    assert areas.min() > 0.3 * areas.max()
    assert areas.min() < 0.67 * areas.max()


@pytest.mark.parametrize(("name", "frame", "drawn"), [("cells", 22, [1, 2, 3, 4, 5, 6, 7]), ("toy", 12, [1, 0])])
def test_strokes_lie_inside_their_objects(masks, name, frame, drawn):
    """The scribbles hold a stroke an object, each point on the object it names (0: on the background)."""
    labels = masks[name]
    (scribbles,) = read_davis(FOLDER / f"{name}_scribbles.json", labels.shape)
    assert scribbles.frame == frame
    assert [stroke.object_id for stroke in scribbles.strokes] == drawn
    for stroke in scribbles.strokes:
        row, col = np.rint(stroke.points).astype(int).T
        assert (labels[frame][row, col] == stroke.object_id).all()


@pytest.mark.usefixtures("simulator")
@pytest.mark.parametrize("frame", [0, 22, 47])
def test_the_script_makes_the_cells_that_ship(masks, frame):
    """A frame simulated anew is the shipped one, but for a last digit on other machines."""
    from simulator import cells

    image, labels = cells.render(cells.simulate(), frame)
    shipped = tifffile.imread(FOLDER / "cells.tif", key=frame).astype(float)
    assert (labels != masks["cells"][frame]).mean() < 1e-4
    assert (np.abs(image - shipped) > 1).mean() < 1e-3


@pytest.mark.usefixtures("simulator")
@pytest.mark.parametrize("frame", [12, 30])
def test_the_script_makes_the_toy_that_ships(masks, frame):
    """A frame rendered anew is the shipped one, but for what JPEG takes."""
    from simulator import toy

    image, labels = toy.render(frame)
    shipped = tifffile.imread(FOLDER / "toy.tif")[frame].astype(float)
    assert (labels != masks["toy"][frame]).mean() < 1e-4
    assert np.abs(image - shipped).mean() < 4


@pytest.mark.usefixtures("simulator")
@pytest.mark.parametrize(("name", "count", "around"), [("cells", 1, False), ("toy", 2, True)], ids=SAMPLES)
def test_the_script_draws_the_scribbles_that_ship(masks, name, count, around):
    """Strokes drawn anew over the shipped masks are the shipped ones to a tenth of a pixel."""
    import make_sample_data
    from simulator import cells, strokes, toy

    labels = masks[name]
    (shipped,) = read_davis(FOLDER / f"{name}_scribbles.json", labels.shape)
    frame = {"cells": make_sample_data.CELLS_FRAME, "toy": make_sample_data.TOY_FRAME}[name]
    seed = {"cells": cells.SEED, "toy": toy.SEED}[name]
    anew = strokes.scribbles(labels[frame], frame, len(labels), name, seed, strokes=count, around=around)
    (drawn,) = read_davis(anew, labels.shape)
    for one, other in zip(drawn.strokes, shipped.strokes, strict=True):
        np.testing.assert_allclose(one.points, other.points, atol=0.1)


@pytest.mark.parametrize("name", SAMPLES)
def test_napari_gets_the_stack_as_a_layer_that_says_simulated(name):
    """The sample functions return one image layer whose name says simulated and whose hints are files that exist."""
    ((data, options, kind),) = getattr(sample_data, name)()
    assert kind == "image"
    assert "simulated" in options["name"]
    assert data.ndim - options["rgb"] == 3
    assert all(Path(path).is_file() for path in options["metadata"]["napari_ivos"].values())


@pytest.mark.parametrize("name", SAMPLES)
def test_napari_accepts_the_layer_as_it_is(name):
    """The layer data make an image layer with the frames' axes named and no warning."""
    layers = pytest.importorskip("napari.layers", reason="napari is an extra")
    ((data, options, _),) = getattr(sample_data, name)()
    layer = layers.Image(data, **options)
    assert (layer.ndim, layer.axis_labels, layer.rgb) == (3, ("t", "y", "x"), options["rgb"])


def test_the_manifest_says_simulated():
    """Each sample that the menu shows says that it is simulated."""
    manifest = pytest.importorskip("npe2", reason="npe2 comes with napari").PluginManifest
    entries = manifest.from_file(TOP / "napari.yaml").contributions.sample_data
    assert {entry.key for entry in entries} == set(SAMPLES)
    assert all("simulated" in entry.display_name for entry in entries)
