"""``doctor``: one check after the other, each with what was found and, where something is wrong, what to do.

Packages are looked up and loaded by name: this module asks whether they work, and uses none of them.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_ivos.diagnostics.report import machine, versions
from napari_ivos.errors import IvosError
from napari_ivos.untrusted import memory
from napari_ivos.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

State = Literal["ok", "note", "problem"]
TEST_SECONDS = 5.0
"""How long the self-test works at most."""
_LEAST_MEMORY = 4 << 30
_LEAST_ROOM = 1 << 30
_CODECS = ("lzw", "deflate", "zstd", "jpeg8", "jpeg2k", "packbits", "lerc", "png")
"""Compressions that files from microscopes come with."""


@dataclass(frozen=True)
class Check:
    """What one check found.

    Parameters
    ----------
    name : str
        What was looked at.
    state : "ok", "note" or "problem"
        A note is something that is missing and not needed by everybody.
    found : str
    hint : str
        What to do; empty where all is well.
    facts : dict
        The same for machines, JSON-able.
    """

    name: str
    state: State
    found: str
    hint: str = ""
    facts: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value not in ("", None)}


def doctor(
    model: str | Path | None = None, device: str | None = None, seconds: float = TEST_SECONDS
) -> Iterator[Check]:
    """Check this installation.

    Parameters
    ----------
    model, device : optional
        As for `load_model`: what the self-test runs with.
    seconds : float
        How long the self-test works at most; 0 leaves it out.

    Yields
    ------
    Check
        One after the other, as they are done.
    """
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("versions", _versions),
        ("machine", _machine),
        ("device", _device),
        ("weights", lambda: _weights(model)),
        ("codecs", _codec),
        ("zarr", _zarr),
        ("video", _video),
        ("window", _window),
        ("projects", _projects),
    ]
    if seconds > 0:
        checks.append(("self-test", lambda: _self_test(model, device, seconds)))
    for name, check in checks:
        try:
            yield check()
        except Exception as error:  # noqa: BLE001 - whatever is broken in an installation is what is asked for
            yield Check(name, "problem", f"{type(error).__name__}: {error}", "Install napari-ivos again.")


def _versions() -> Check:
    found = versions()
    missing = [name for name in ("torch", "zarr", "tifffile", "imagecodecs", "safetensors") if name not in found]
    if missing:
        return Check("versions", "problem", f"not installed: {', '.join(missing)}", "pip install napari-ivos", found)
    return Check("versions", "ok", ", ".join(f"{name} {number}" for name, number in found.items()), facts=dict(found))


def _machine() -> Check:
    found = machine()
    words = f"Python {found['python']}, {found['system']}, {found['cores']} cores, {found['memory']}"
    if memory() < _LEAST_MEMORY:
        return Check("machine", "note", words, "Less than 4 GB: close other programs, and keep to few objects.", found)
    return Check("machine", "ok", words, facts=dict(found))


def _device() -> Check:
    torch = importlib.import_module("torch")
    threads = int(torch.get_num_threads())
    facts = {"torch": str(torch.__version__), "cuda": torch.version.cuda, "threads": threads}
    if torch.cuda.is_available():
        name = str(torch.cuda.get_device_name(0))
        return Check("device", "ok", f"cuda: {name}", facts={**facts, "device": "cuda", "name": name})
    if getattr(torch.backends, "mps", None) is not None and torch.backends.mps.is_available():
        return Check("device", "ok", "mps: Apple GPU", facts={**facts, "device": "mps"})
    facts["device"] = "cpu"
    words = f"cpu with {counted(threads, 'thread')}"
    if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
        why = "is built without CUDA" if torch.version.cuda is None else f"(CUDA {torch.version.cuda}) can't use it"
        hint = (
            f"There is an NVIDIA driver, but this torch {why}: install the one that pytorch.org names for the driver."
        )
        return Check("device", "problem", words, hint, facts)
    return Check("device", "ok", words, facts=facts)


def _weights(model: str | Path | None) -> Check:
    from napari_ivos.networks import weights

    facts = weights.describe(model)
    words = f"{facts['name']}: {facts['bytes'] / 1e6:.1f} MB, SHA-256 {facts['checksum'][:12]}"
    sealed = Path(facts["path"] + ".sha256").exists()
    facts["path"] = Path(facts["path"]).name
    return Check(
        "weights", "ok", words + (", as it was made" if sealed else ", no checksum to compare with"), "", facts
    )


def _codec() -> Check:
    imagecodecs = importlib.import_module("imagecodecs")
    missing = [name for name in _CODECS if not getattr(imagecodecs, name.upper()).available]
    packed = imagecodecs.zstd_encode(b"napari-ivos" * 99)
    if imagecodecs.zstd_decode(packed) != b"napari-ivos" * 99:
        return Check("codecs", "problem", "zstd gives other bytes than went in", "Install imagecodecs again.")
    if missing:
        hint = "Files packed so can't be read: install imagecodecs from PyPI or conda-forge."
        return Check("codecs", "note", f"missing: {', '.join(missing)}", hint, {"missing": missing})
    return Check("codecs", "ok", f"{', '.join(_CODECS)}", facts={"missing": []})


def _zarr() -> Check:
    zarr = importlib.import_module("zarr")
    values = np.arange(64, dtype=np.uint16).reshape(1, 8, 8)
    array = zarr.create_array({}, shape=values.shape, chunks=(1, 4, 4), dtype=values.dtype)
    array[:] = values
    if not np.array_equal(array[:], values):
        return Check("zarr", "problem", "gives other values than went in", "pip install --force-reinstall zarr")
    return Check("zarr", "ok", f"{zarr.__version__}, written and read", facts={"version": str(zarr.__version__)})


def _video() -> Check:
    try:
        av = importlib.import_module("av")
    except ImportError:
        return Check(
            "video", "note", "PyAV is not installed", "To read and write videos: pip install 'napari-ivos[video]'"
        )
    missing = [name for name in ("h264", "mpeg4", "mjpeg", "vp9") if name not in av.codecs_available]
    facts = {"version": str(av.__version__), "missing": missing}
    if missing:
        hint = "Videos of these kinds can't be read: install av from PyPI or conda-forge."
        return Check("video", "note", f"PyAV {av.__version__} without {', '.join(missing)}", hint, facts)
    return Check("video", "ok", f"PyAV {av.__version__}", facts=facts)


def _window() -> Check:
    found = versions()
    bindings = [name for name in ("PyQt6", "PySide6", "PyQt5") if name in found]
    facts = {"napari": found.get("napari"), "bindings": bindings}
    if "napari" not in found:
        return Check(
            "window", "note", "napari is not installed", "For the window: pip install 'napari-ivos[all]'", facts
        )
    if not bindings:
        return Check("window", "problem", f"napari {found['napari']} without a Qt", "pip install 'napari[all]'", facts)
    words = f"napari {found['napari']} with {', '.join(bindings)}"
    if len(bindings) > 1:
        hint = f"Several Qt bindings can disturb each other; QT_API={bindings[0].lower()} chooses one."
        return Check("window", "note", words, hint, facts)
    screen = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))
    if sys.platform == "linux" and not screen:
        return Check("window", "note", f"{words}; no display here", "Needed for the window only: see xvfb-run.", facts)
    return Check("window", "ok", words, facts=facts)


def _projects() -> Check:
    """Whether projects can be made, and there is room for them."""
    from napari_ivos.session import Session

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "doctor.ivos"
        with Session(np.zeros((2, 8, 8), np.uint8), project=path) as session:
            session.annotate(0, np.eye(8, dtype=np.uint16))
        with Session.open(path) as session:
            kept = bool((session.labels[0] == np.eye(8)).all())
    free = shutil.disk_usage(Path.cwd()).free
    sqlite = str(importlib.import_module("sqlite3").sqlite_version)
    facts = {"sqlite": sqlite, "free_bytes": free}
    words = f"SQLite {sqlite}, made and read again; {free / 2**30:,.1f} GB free in this folder"
    if not kept:
        return Check("projects", "problem", "a project gave back other masks", "Install napari-ivos again.", facts)
    if free < _LEAST_ROOM:
        return Check("projects", "problem", words, "Make room: projects are written all the time.", facts)
    return Check("projects", "ok", words, facts=facts)


def _self_test(model: str | Path | None, device: str | None, seconds: float) -> Check:
    """Segment a square that moves, for some seconds: does it work, and how fast, once it is warm."""
    from napari_ivos.networks import load_model
    from napari_ivos.networks.inference import leave_a_core
    from napari_ivos.scribbles import Scribbles, Stroke
    from napari_ivos.session import Session

    frames, truth = _clip(64)
    try:
        leave_a_core()  # as the command line does, whose speed this is to tell
        loaded = load_model(model, device=device)
        with Session(frames, loaded) as session:
            session.interact(Scribbles(0, [Stroke(1, [(60, 40), (60, 70)])]))
            running, done, overlaps = session.propagate(), 0, []
            next(running)
            began = time.perf_counter()
            for result in running:
                done += 1
                mask = result.labels == 1
                overlaps.append((mask & truth[result.frame]).sum() / (mask | truth[result.frame]).sum())
                if time.perf_counter() - began > seconds:
                    break
            spent = time.perf_counter() - began
    except IvosError as error:
        return Check(
            "self-test", "problem", str(error), "See the checks above, or Troubleshooting in the documentation."
        )
    rate, agreement = done / spent, float(np.mean(overlaps))
    facts: dict[str, Any] = {
        "frames": done,
        "seconds": round(spent, 3),
        "frames_per_second": round(rate, 2),
        "agreement": agreement,
    }
    facts |= {"model": loaded.name, "device": loaded.device}
    words = (
        f"{rate:.1f} frames/s with one object ({1000 / rate:.0f} ms a frame) by {loaded.name} on {loaded.device}; "
        f"J {agreement:.2f} on {done} frames of a moving square"
    )
    if agreement < 0.5:
        return Check("self-test", "problem", words, "The masks are wrong: another model, or a broken device?", facts)
    return Check("self-test", "ok", words, facts=facts)


def _clip(count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Frames (T, H, W, 3) uint8 of a bright square that moves over noise, and its masks (T, H, W) bool."""
    noise = np.random.default_rng(0).integers(30, 60, (120, 200, 3), dtype=np.uint8)
    frames = np.repeat(noise[None], count, 0)
    truth = np.zeros(frames.shape[:3], bool)
    for t in range(count):
        truth[t, 40:80, 30 + t : 80 + t] = True
    frames[truth] = (210, 120, 60)
    return frames, truth
