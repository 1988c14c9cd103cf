"""``demo``: the main job on both sample stacks, which are simulated, compared with their known masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import napari_ivos
from napari_ivos.benchmark.metrics import frame_jaccard
from napari_ivos.cli.loading import load
from napari_ivos.cli.segmenting import run
from napari_ivos.cli.writing import plan, usual, write
from napari_ivos.errors import InputError
from napari_ivos.scribbles import read_davis

if TYPE_CHECKING:
    from napari_ivos.cli.output import Output
    from napari_ivos.session import Session

SAMPLES = ("cells", "toy")
FOLDER = Path("demo_output")


def demo(
    folder: Path | None, overwrite: bool, model_name: str | None, device: str | None, output: Output
) -> dict[str, Any]:
    """Segment both samples and write the results.

    Parameters
    ----------
    folder : Path or None
        Where to; None: "demo_output", whose earlier results are replaced.
    overwrite : bool
        Whether to replace earlier results in a folder that is named.
    model_name, device : str or None
        As for `load_model`.
    output : Output
        Where to say it.

    Returns
    -------
    dict
        By sample: J, time, files; JSON-able.
    """
    place = FOLDER if folder is None else folder
    overwrite = overwrite or folder is None
    formats = ",".join(usual())
    plans = {name: plan(place / name, formats, overwrite) for name in SAMPLES}
    model = load(model_name, device)
    if "video" not in usual():
        output.note("no overlay video: PyAV is not installed (pip install 'napari-ivos[video]')")
    found: dict[str, Any] = {"simulated": True, "model": model.name, "device": model.device, "samples": {}}
    for name in SAMPLES:
        data = sample_folder()
        with (
            napari_ivos.open_frames(data / f"{name}.tif") as stack,
            napari_ivos.Session(stack, model) as session,
        ):
            strokes = read_davis(data / f"{name}_scribbles.json", stack.shape)
            output.say(f"{name} (simulated data): {stack.shape[0]} frames, scribbles on frame {strokes[0].frame}")
            tally = run(session, strokes, {}, output)
            overlap = agreement(session, data / f"{name}_masks.tif")
            each = tally.per_mask or 0.0
            objects = len(session.objects)
            output.say(
                f"  J {overlap:.3f} against the known masks, {each * 1000:.0f} ms an object and frame "
                f"({objects} object{'s' if objects > 1 else ''}, {tally.seconds:.1f} s)"
            )
            title = f"simulated data: {name}, scribbles on frame {strokes[0].frame} only"
            written = write(session, plans[name], overwrite, output, title)
        found["samples"][name] = {
            "simulated": True,
            "j": round(overlap, 4),
            "seconds": round(tally.seconds, 3),
            "seconds_per_object_and_frame": round(each, 5),
            "outputs": written,
        }
    output.say(f"Everything is in {place.resolve()}. Both stacks are simulated: this shows that all runs.")
    return found


def sample_folder() -> Path:
    """Where the sample data are.

    Raises
    ------
    InputError
        They are missing from this installation.
    """
    folder = Path(napari_ivos.__file__).parent / "sample_data"
    if not (folder / f"{SAMPLES[0]}.tif").exists():
        raise InputError(f"The sample data are missing from this installation ({folder}); install again.")
    return folder


def agreement(session: Session, masks: Path) -> float:
    """Mean J over objects and frames; an object that is rightly absent on a frame counts as 1."""
    with napari_ivos.open_frames(masks) as truth:
        frames = [truth.raw(t) for t in range(truth.shape[0])]
    count = max(int(frame.max()) for frame in frames)
    return float(np.mean([frame_jaccard(frame, session.labels[t], count) for t, frame in enumerate(frames)]))
