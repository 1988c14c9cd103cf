"""The mean of several models' weights: ``python scripts/average.py OUTPUT MODEL MODEL [MODEL ...] [--one-run]``.

Models that were trained on from one another lie close together; their mean is often as good as the best of them in
everything (Wortsman et al. 2022, model soups). All must be of one architecture, but for the sizes of region, which are
those of the first. OUTPUT is a model of this package that has its file's name; of one MODEL it is that model under
another name.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from napari_ivos import InputError
from napari_ivos.files import write_whole
from napari_ivos.networks.blocks import Architecture

SIZES = ("size", "small")
"""What may differ: weights do not depend on it."""


def average(models: list[Path], name: str, one_run: bool = False) -> bytes:
    """A model file, called `name`, whose weights are the mean of these models', of as many runs or states of one.

    Raises
    ------
    InputError
        Models of different architectures.
    """
    notes = []
    for path in models:
        with safe_open(path, "pt") as file:
            notes.append(dict(file.metadata() or {}))
    kinds = {json.dumps({k: v for k, v in _architecture(note).items() if k not in SIZES}) for note in notes}
    architecture = notes[0].get("architecture", "")
    if len(kinds) > 1:
        raise InputError(
            f"The models are of {len(kinds)} architectures, {sorted(map(str, kinds))}; give models of one."
        )
    weights = [load_file(path) for path in models]
    mean = {}
    for key, first in weights[0].items():
        values = torch.stack([w[key].double() for w in weights])
        mean[key] = values.mean(0).to(first.dtype) if first.is_floating_point() else first
    notes.sort(key=lambda note: float(note.get("hours", 0)))
    counted = notes[-1:] if one_run else notes  # of one run the state that was trained longest counts
    steps = " and ".join(note.get("steps", "?") for note in counted)
    hours = sum(float(note.get("hours", 0)) for note in counted)
    about = {"name": name, "steps": steps, "hours": f"{hours:.2f}", "architecture": architecture}
    return save(mean, {**notes[0], **about})


def _architecture(note: dict[str, str]) -> dict[str, object]:
    """The architecture in a model's header, the fields that it does not name as they are by default."""
    return Architecture(**json.loads(note["architecture"])).to_dict()


def main() -> None:
    """Read, average, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument(
        "--one-run",
        action="store_true",
        help="they are states of one run (and what it began from): only the longest counts",
    )
    options = parser.parse_args()
    write_whole(options.output, average(options.models, options.output.stem, options.one_run))
    print(f"{options.output}: the mean of {len(options.models)} models")


if __name__ == "__main__":
    main()
