"""Measure the engine and print tables: ``python benchmarks/engine.py [PART ...]``.

Parts: import, sparse, frame-size, film, busy, memory, interaction, sizes, batches, dev, raw. Each runs in a process of
its own with one thread (a film with as many as it says), so that none sees another's memory or caches. The last two
need a folder of data (``--data``) with ``dev`` and ``raw`` in it, and the extra ``benchmark``; they go through the
command line, as a user does, with simulated first scribbles and one round. Nothing is trained here, and nothing is
tuned to what comes out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Rows = list[tuple[str, str, str]]
"""What, measured, wanted."""
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
OWN_THREADS = ("film", "busy")
"""Parts that say themselves how many threads compute."""


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def resident() -> float:
    """Memory that this process holds now, in MB of a million bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("/proc/self/status has no VmRSS: memory is measured on Linux only")


def peak() -> float:
    """The most that this process ever held, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def the_model(options: argparse.Namespace) -> Any:
    """Load the model that was asked for."""
    import napari_ivos
    from napari_ivos.predictor import FakePredictor

    return FakePredictor(128) if options.model == "fake" else napari_ivos.load_model(options.model, options.device)


# ------------------------------------------------------------------------------------------ import


def measure_import(options: argparse.Namespace) -> Rows:
    """How long ``import napari_ivos`` takes in a fresh process, and what it loads."""
    code = (
        "import sys, time; began = time.perf_counter(); import napari_ivos; "
        "took = time.perf_counter() - began; import json; "
        "print(json.dumps([took, sorted({m.split('.')[0] for m in sys.modules})]))"
    )
    times, modules = [], []
    for _ in range(7):
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        took, modules = json.loads(done.stdout)
        times.append(took)
    heavy = {"torch", "torchvision", "dask", "zarr", "tifffile", "av", "napari", "magicgui", "qtpy", "scipy", "PIL"}
    loaded = ", ".join(sorted(heavy & set(modules))) or "nothing"
    return [
        ("import napari_ivos, median of 7", f"{np.median(times):.3f} s", "< 0.3 s"),
        ("heavier than numpy loaded by it", loaded, "nothing"),
    ]


# ------------------------------------------------------------------------------------------ large stacks


def measure_sparse(options: argparse.Namespace) -> Rows:
    """Open a zarr of 100 GB without any chunk stored, and read a region of it."""
    import napari_ivos
    from napari_ivos.regions import Box

    with tempfile.TemporaryDirectory() as folder:
        shape = (250, 20_000, 20_000)
        _zarr(folder, shape, "uint8")
        began = time.perf_counter()
        stack = napari_ivos.open_frames(folder, axes="TYX")
        opened = time.perf_counter() - began
        memory = peak()
        began = time.perf_counter()
        stack.read(125, Box(10_000, 10_000, 10_256, 10_256))
        read = time.perf_counter() - began
        stack.close()
    return [
        (f"open {np.prod(shape) / 1e9:.0f} GB zarr", f"{opened:.2f} s", "< 1 s"),
        ("memory then", f"{memory:.0f} MB", "< 600 MB"),
        ("first region (256 px), contrast measured", f"{read:.2f} s", ""),
        ("memory at the end", f"{peak():.0f} MB", "< 600 MB"),
    ]


def _zarr(folder: str, shape: tuple[int, ...], dtype: str) -> Any:
    import zarr

    return zarr.create_array(folder, shape=shape, chunks=(1, 512, 512), dtype=dtype, fill_value=0, overwrite=True)


FRAMES = 24
SIDE = 600


def patch_of_frame(t: int) -> npt.NDArray[np.uint16]:
    """A disk of 100 px on a noisy ground, which moves 3 px a frame: (SIDE, SIDE)."""
    y, x = np.mgrid[:SIDE, :SIDE]
    noise = np.random.default_rng(t).normal(400, 40, (SIDE, SIDE))
    inside = (y - 200 - 3 * t) ** 2 + (x - 250 - 2 * t) ** 2 < 50**2
    return np.asarray(np.clip(noise + 2400 * inside, 0, 4000), np.uint16)


def time_in_frames_of(side: int, options: argparse.Namespace) -> npt.NDArray[np.float64]:
    """Seconds for each frame but the first, of an object of 100 px in frames of `side` px, chunks of 512."""
    import napari_ivos
    from napari_ivos import Scribbles, Session, Stroke

    corner = (side // 2 // 512) * 512 if side > 2 * SIDE else 0  # the same place within its chunks
    with tempfile.TemporaryDirectory() as folder:
        array = _zarr(folder, (FRAMES, side, side), "uint16")
        for t in range(FRAMES):
            array[t, corner : corner + SIDE, corner : corner + SIDE] = patch_of_frame(t)
        stack = napari_ivos.open_frames(folder, axes="TYX", contrast=(0, 4000))
        with stack, Session(stack, the_model(options), project=Path(folder) / "p.ivos") as session:
            centre = np.array([corner + 200, corner + 250])
            session.interact(Scribbles(0, [Stroke(1, [centre - 20, centre + 20])]))
            times, last = [], time.perf_counter()
            for _ in session.propagate():
                now = time.perf_counter()
                times.append(now - last)
                last = now
    return np.array(times[1:])


def measure_frame_size(options: argparse.Namespace) -> Rows:
    """The same object in small and in very large frames."""
    small, large = time_in_frames_of(1_000, options), time_in_frames_of(20_000, options)
    ratio = np.median(large) / np.median(small)
    return [
        ("100 px object in 1,000 x 1,000 px, a frame (median)", f"{np.median(small) * 1e3:.1f} ms", ""),
        ("the same in 20,000 x 20,000 px", f"{np.median(large) * 1e3:.1f} ms", ""),
        ("ratio", f"{ratio:.2f}", "<= 1.5"),
        ("memory, at most", f"{peak():.0f} MB", ""),
    ]


def film_centre(t: int) -> tuple[float, float]:
    """Where the ellipse of `film` is."""
    return 240 + 40 * np.sin(t / 12), 200 + 7 * t


def film(frames: int = 60) -> npt.NDArray[np.uint8]:
    """Frames of 480 x 854 px in colour: an ellipse of 240 x 160 px with a pattern moves over another: (T, H, W, 3)."""
    rng = np.random.default_rng(0)
    tiles = (rng.integers(low, high, (69, 123, 3)) for low, high in ((40, 140), (110, 220)))
    ground, skin = (np.kron(tile, np.ones((8, 8, 1))) for tile in tiles)
    y, x = np.mgrid[:480, :854]
    shown = []
    for t in range(frames):
        cy, cx = film_centre(t)
        inside = ((y - cy) / 80) ** 2 + ((x - cx) / 120) ** 2 < 1
        moved = np.roll(skin, (round(cy), round(cx)), (0, 1))[:480, :854]
        shown.append(np.where(inside[..., None], moved, ground[:480, t : t + 854]))
    return np.asarray(shown, np.uint8)


FILM_STROKES = {"": 60, ", strokes on eight frames": 8}
"""What is said of a film, and how many frames lie between those with strokes."""


def measure_film(options: argparse.Namespace) -> Rows:
    """A large object in a film, in a first round and in a late one, with one thread and with one a core."""
    import torch

    model, frames, cores = the_model(options), film(), os.cpu_count() or 1
    rows: Rows = []
    for threads in sorted({1, cores}):
        torch.set_num_threads(threads)
        for words, apart in FILM_STROKES.items():
            took = np.median([_play_film(frames, model, apart) for _ in range(3)])
            name = "one thread" if threads == 1 else f"{threads} threads, one a core"
            rows.append((f"240 px object in 480 x 854 px, a frame, {name}{words}", f"{took * 1e3:.1f} ms", "<= 40 ms"))
    return rows


def measure_busy(options: argparse.Namespace) -> Rows:
    """The same film by itself, and beside a program that uses one core."""
    import torch

    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # this is about sharing: no priority, for neither
    model, frames, cores = the_model(options), film(20), os.cpu_count() or 1
    rows: Rows = []
    for threads in sorted({1, max(1, cores - 1), cores}):
        torch.set_num_threads(threads)
        for words, beside in (("", contextlib.nullcontext), (" beside a program that uses one core", _busy)):
            with beside():
                took = np.median([_play_film(frames, model, 60) for _ in range(3)])
            name = "one thread" if threads == 1 else f"{threads} threads"
            rows.append((f"240 px object in 480 x 854 px, a frame, {name}{words}", f"{took * 1e3:.0f} ms", ""))
    return rows


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """A program that uses one core meanwhile."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            yield
        finally:
            other.kill()


def _play_film(frames: npt.NDArray[np.uint8], model: Any, apart: int) -> float:
    """Seconds a frame that a mask is carried to, with a stroke on each `apart`-th frame, all carried forward."""
    from napari_ivos import Scribbles, Session, Stroke

    with tempfile.TemporaryDirectory() as folder, Session(frames, model, Path(folder) / "p.ivos") as session:
        for t in range(0, len(frames), apart):
            cy, cx = film_centre(t)
            session.interact(Scribbles(t, [Stroke(1, [(cy - 40, cx - 50), (cy, cx), (cy + 30, cx + 60)])]))
        began = time.perf_counter()
        done = sum(1 for _ in session.propagate(direction="forward"))
        return (time.perf_counter() - began) / done


# ------------------------------------------------------------------------------------------ memory


class Discs:
    """A stack that is made when it is read: discs that wander over a noisy ground; (T, H, W) uint8."""

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, frames: int, objects: int, height: int = 480, width: int = 640) -> None:
        self.shape = (frames, height, width)
        self.objects = objects

    def centre(self, t: int, k: int) -> tuple[float, float]:
        """Centre of disc k on frame t."""
        turn = 2 * np.pi * (t / 400 + k / self.objects)
        return 240 + 140 * np.sin(turn + k), 90 + 460 * (k + 0.5) / self.objects + 25 * np.cos(2 * turn)

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint8]:
        t, rows, columns = key
        y = np.arange(self.shape[1])[rows][:, None]
        x = np.arange(self.shape[2])[columns][None]
        frames = [self._frame(int(f), y, x) for f in np.atleast_1d(np.arange(self.shape[0])[t])]
        return frames[0] if np.ndim(np.arange(self.shape[0])[t]) == 0 else np.stack(frames)

    def _frame(self, t: int, y: npt.NDArray[np.int64], x: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        image = 50 + (y * 7 + x * 13 + t * 29) % 17
        for k in range(self.objects):
            cy, cx = self.centre(t, k)
            image = np.where((y - cy) ** 2 + (x - cx) ** 2 < 26**2, 150 + 15 * k, image)
        return image.astype(np.uint8)


def measure_memory(options: argparse.Namespace) -> Rows:
    """Memory over a long stack of several objects, compared with the process just before."""
    from napari_ivos import Scribbles, Session, Stroke

    movie, model = Discs(options.frames, 5), the_model(options)
    strokes = []
    for k in range(movie.objects):
        centre = np.array(movie.centre(0, k))
        strokes.append(Stroke(k + 1, [centre - 8, centre + 8]))
    with Session(Discs(3, 5), model) as short:  # so that all that is loaded once is loaded
        short.interact(Scribbles(0, strokes))
        list(short.propagate())
    before = resident()
    most, frames, began = before, 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "p.ivos"
        with Session(movie, model, project=project) as session:
            session.interact(Scribbles(0, strokes))
            for result in session.propagate():
                frames += 1
                if result.frame % 20 == 0:
                    most = max(most, resident())
            found = [int(np.count_nonzero(session.labels[options.frames - 1] == k + 1)) for k in range(5)]
        took, size = time.perf_counter() - began, project.stat().st_size
    return [
        (f"growth over {frames} frames x 5 objects", f"{most - before:.0f} MB", "< 100 MB"),
        ("process before (torch loaded, one short run)", f"{before:.0f} MB", ""),
        ("an object and frame", f"{took / frames / 5 * 1e3:.1f} ms", ""),
        ("project file, an object and frame", f"{size / frames / 5 / 1e3:.2f} kB", ""),
        ("pixels of the objects on the last frame (2,120 each)", " ".join(map(str, found)), ""),
    ]


# ------------------------------------------------------------------------------------------ time


def measure_interaction(options: argparse.Namespace) -> Rows:
    """One interaction on one core: read, network, mask, project."""
    from napari_ivos import Scribbles, Session, Stroke

    movie = Discs(24, 5)
    first: list[float] = []
    again: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Session(movie, the_model(options), Path(folder) / "p.ivos") as session,
    ):
        for t in range(24):
            centre = np.array(movie.centre(t, 2))
            for times, shift in ((first, 0.0), (again, 6.0)):
                began = time.perf_counter()
                result = session.interact(Scribbles(t, [Stroke(3, [centre - 8 + shift, centre + 8])]))
                np.asarray(result.labels)
                times.append(time.perf_counter() - began)
    return [
        ("first strokes of an object, its mask shown: median", f"{np.median(first[2:]) * 1e3:.0f} ms", "< 150 ms"),
        ("the slowest of 22", f"{max(first[2:]) * 1e3:.0f} ms", ""),
        ("a further stroke: median", f"{np.median(again[2:]) * 1e3:.0f} ms", "< 150 ms"),
    ]


def measure_sizes(options: argparse.Namespace) -> Rows:
    """Both architectures on one core, with weights that were not trained (time does not depend on them)."""
    rows: Rows = []
    made = {name: _fresh(name) for name in ("compact", "resnet50")}
    repeats = {"compact": 6, "resnet50": 1}
    times: dict[str, list[list[float]]] = {name: [] for name in made}
    for _ in range(12):  # in turn, so that both meet the same machine
        for name, (predictor, _, _) in made.items():
            one, four = _propagations(predictor, 1), _propagations(predictor, 4)
            each = _time(lambda: predictor.propagate(one), repeats[name])  # noqa: B023
            times[name].append([each, _time(lambda: predictor.propagate(four), 1) / 4])  # noqa: B023
    for name, (_, parameters, size) in made.items():
        propagated, batch = np.median(times[name], axis=0)
        rows += [
            (
                f"{name}: parameters of both networks",
                f"{parameters / 1e6:.1f} M",
                "<= 15 M" if name == "compact" else "",
            ),
            (f"{name}: file (float16)", f"{size / 1e6:.1f} MB", ""),
            (f"{name}: propagation of one object of 80 px", f"{propagated * 1e3:.0f} ms", ""),
            (f"{name}: the same, four as a batch", f"{batch * 1e3:.0f} ms", ""),
        ]
    large, small = (float(np.median(times[name], axis=0)[0]) for name in ("resnet50", "compact"))
    return [*rows, ("resnet50 over compact", f"{large / small:.1f}", ">= 15")]


def _fresh(name: str) -> tuple[Any, int, int]:
    from napari_ivos.networks import weights
    from napari_ivos.networks.inference import TorchPredictor

    architecture = weights.architecture_of(name)
    networks = weights.new_networks(architecture)
    parameters = sum(p.numel() for network in networks for p in network.parameters())
    size = len(weights.to_bytes(*networks, architecture))
    return TorchPredictor(*networks, name=name, checksum="untrained", device="cpu"), parameters, size


def _propagations(predictor: Any, count: int) -> list[Any]:
    """Requests as those of an object of some 80 px, whose region has 200."""
    from napari_ivos.predictor import Interaction, Propagation, side_of
    from napari_ivos.regions import Box

    rng = np.random.default_rng(0)
    image = rng.random((200, 200, 3), np.float32)
    side = side_of(predictor, Box(0, 0, 200, 200))
    plane = np.zeros((side, side), np.float32)
    plane[side // 3 : side // 2, side // 3 : side // 2] = 1
    if not hasattr(predictor, "kept_reference"):
        predictor.kept_reference = predictor.segment([Interaction(image, plane, plane, 0 * plane)])[0].reference
    return [Propagation(image, plane, None, [predictor.kept_reference])] * count


def _time(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


BATCHES = (1, 8, 64)


def measure_batches(options: argparse.Namespace) -> Rows:
    """Objects propagated a second, by how many there are: the networks alone, and all of it with a session."""
    from scaling import Crowd

    from napari_ivos import Session

    model = the_model(options)
    rows: Rows = []
    frames = 20
    for count in BATCHES:
        alone = _time(lambda: model.propagate(_propagations(model, count)), 8)  # noqa: B023
        movie = Crowd(frames + 3, 1024)
        with tempfile.TemporaryDirectory() as folder, Session(movie, model, Path(folder) / "p.ivos") as session:
            session.annotate(0, movie.labels(count))
            running = session.propagate()
            next(running), next(running)
            began = time.perf_counter()
            done = sum(1 for _ in running)
            whole = (time.perf_counter() - began) / done
        rows += [
            (f"{count} objects: the networks alone", f"{count / alone:.1f} object-frames/s", ""),
            (f"{count} objects: reading, motion, networks, merging, project", f"{count / whole:.1f}", ""),
        ]
    return [("device", _device_name(options), ""), *rows]


def _device_name(options: argparse.Namespace) -> str:
    import torch

    if options.device.startswith("cuda"):
        return str(torch.cuda.get_device_name(options.device))
    return f"{options.device}, {torch.get_num_threads()} threads"


# ------------------------------------------------------------------------------------------ data


def measure_dev(options: argparse.Namespace) -> Rows:
    """Every development stack through the command line: simulated first scribbles, one round."""
    from napari_ivos.benchmark.datasets import find_sequences

    paths = find_sequences(options.data / "dev")
    paths += [p for p in find_sequences(options.data / "raw") if p.suffix]
    rows: Rows = []
    overlaps: dict[str, list[float]] = {}
    for path in paths:
        name, group, overlap, each, objects = _play(path, options)
        overlaps.setdefault(group, []).append(overlap)
        rows.append(
            (f"{group}/{name} ({objects} objects)", f"J {overlap:.3f}, {each * 1e3:.0f} ms an object and frame", "")
        )
        say(f"  {rows[-1][0]}: {rows[-1][1]}")
    return rows + [(f"mean of {group}", f"J {np.mean(values):.3f}", "") for group, values in overlaps.items()]


def _play(path: Path, options: argparse.Namespace) -> tuple[str, str, float, float, int]:
    import tifffile

    from napari_ivos.benchmark.datasets import read_sequence
    from napari_ivos.benchmark.metrics import stack_jaccard
    from napari_ivos.benchmark.robot import first_scribbles

    sequence = read_sequence(path)
    first = sequence.first_frame()
    strokes = first_scribbles(sequence.labels[first], first, np.random.default_rng(0))
    source = path / "frames" if (path / "frames").is_dir() else path
    facts, place = _segment(source, strokes, sequence.labels.shape, sequence.name, options)
    labels = tifffile.imread(place / "labels.ome.tif").reshape(sequence.labels.shape)
    counted = sequence.counted("labelled", first)
    j = stack_jaccard(sequence.labels, labels, sequence.n_objects)[counted].mean()
    return sequence.name, sequence.group, float(j), facts["seconds_per_object_and_frame"], sequence.n_objects


def measure_raw(options: argparse.Namespace) -> Rows:
    """Files as users have them, without known masks: scribbles on the brightest parts of the middle frame."""
    rows: Rows = []
    for path in sorted((options.data / "raw").iterdir()):
        if "labels" in path.name or path.suffix not in (".tif", ".mp4"):
            continue
        facts = _try(path, options)
        objects = facts["objects"]
        quality = np.mean([o["mean_quality"] for o in objects])
        each = facts["seconds_per_object_and_frame"] * 1e3
        text = f"{each:.0f} ms an object and frame, own estimate of quality {quality:.2f}"
        rows.append((f"{path.name}: {len(objects)} objects, {facts['shape'][0]} frames", text, ""))
        say(f"  {rows[-1][0]}: {rows[-1][1]}")
    return rows


def _try(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    import napari_ivos
    from napari_ivos.benchmark.robot import first_scribbles

    with napari_ivos.open_frames(path) as stack:
        shape, middle = stack.shape, stack.shape[0] // 2
        parts = _bright_parts(stack.read(middle).mean(axis=2))
    strokes = first_scribbles(parts, middle, np.random.default_rng(0))
    return _segment(path, strokes, shape, path.stem, options)[0]


def _bright_parts(image: npt.NDArray[np.float32], count: int = 5) -> npt.NDArray[np.int32]:
    """The largest bright parts of a picture, as labels 1..count."""
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    smooth = ndimage.gaussian_filter(image, max(image.shape) / 200)
    found, number = ndimage.label(smooth > threshold_otsu(smooth))
    sizes = ndimage.sum_labels(np.ones_like(found), found, np.arange(1, number + 1))
    labels = np.zeros(found.shape, np.int32)
    for rank, k in enumerate(np.argsort(-sizes)[:count], start=1):
        labels[found == k + 1] = rank
    return labels


def _segment(
    source: Path, strokes: Any, shape: Any, name: str, options: argparse.Namespace
) -> tuple[dict[str, Any], Path]:
    """Run ``napari-ivos segment`` in this process; its facts, and the folder of its results."""
    from napari_ivos.cli import main
    from napari_ivos.scribbles import write_davis

    place = options.output / name
    options.output.mkdir(parents=True, exist_ok=True)
    scribbles = options.output / f"{name}_scribbles.json"
    scribbles.write_text(json.dumps(write_davis([strokes], shape[:3], name)), encoding="utf-8")
    arguments = ["segment", str(source), "--scribbles", str(scribbles), "--output", str(place), "--overwrite"]
    arguments += ["--json", "--quiet", "--format", "ome-tiff,contact-sheet,table"]
    arguments += [part for key in ("model", "device") if (v := getattr(options, key)) for part in (f"--{key}", v)]
    model: Any = contextlib.nullcontext()
    if options.model == "fake":
        model = mock.patch("napari_ivos.load_model", return_value=the_model(options))
    said = io.StringIO()
    with contextlib.redirect_stdout(said), model:
        code = main(arguments)
    facts: dict[str, Any] = json.loads(said.getvalue())
    if code != 0:
        raise RuntimeError(f"{source}: {facts}")
    return facts, place


# ------------------------------------------------------------------------------------------ the program

PARTS: dict[str, tuple[str, Callable[[argparse.Namespace], Rows]]] = {
    "import": ("Import", measure_import),
    "sparse": ("A stack of 100 GB", measure_sparse),
    "frame-size": ("Cost and the size of frames", measure_frame_size),
    "film": ("A large object in a film", measure_film),
    "busy": ("A film beside another program", measure_busy),
    "memory": ("Memory", measure_memory),
    "interaction": ("One interaction on one core (480 x 640 px)", measure_interaction),
    "sizes": ("Two sizes of networks on one core", measure_sizes),
    "batches": ("Objects a second (frames of 1,024 px, objects of 40 px)", measure_batches),
    "dev": ("Development stacks, one round of simulated first scribbles", measure_dev),
    "raw": ("Files as users have them", measure_raw),
}


def arguments() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (all)")
    parser.add_argument("--model", help="a shipped model, a .safetensors file, or fake (compact)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda ... (cpu)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with dev and raw")
    parser.add_argument("--output", type=Path, default=Path("engine_output"), help="results of dev and raw")
    parser.add_argument("--frames", type=int, default=2000, help="frames of the part memory (2000)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return options


def table(title: str, rows: Rows) -> str:
    """A table in Markdown."""
    wanted = any(row[2] for row in rows)
    head = ["what", "measured", *(["wanted"] if wanted else [])]
    lines = [f"### {title}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(row if wanted else row[:2])} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the parts, each in a process of its own; 1 if one failed."""
    options = arguments()
    if options.inside:
        title, measure = PARTS[options.parts[0]]
        say("\n" + table(title, measure(options)))
        return 0
    failed = []
    for part in options.parts or PARTS:
        command = [sys.executable, __file__, part, "--inside", "--frames", str(options.frames)]
        for name in ("model", "device", "data", "output"):
            value = getattr(options, name)
            command += [] if value is None else [f"--{name}", str(value)]
        environment = os.environ | THREADS
        if part in OWN_THREADS:
            environment = {name: value for name, value in os.environ.items() if name not in THREADS}
        if subprocess.run(command, env=environment, check=False).returncode != 0:
            failed.append(part)
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
