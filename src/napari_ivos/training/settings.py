"""Settings of a training run: a frozen dataclass, a sentence a field, read from a TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_ivos.errors import InputError
from napari_ivos.training.clips import ClipSettings

_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}


@dataclass(frozen=True)
class TrainingSettings:
    """One training run.

    Attributes
    ----------
    data : str
        Folder with `stills/`, `cutouts/` and `clips/`.
    output : str
        Folder for the checkpoint, the log and the exported weights.
    architecture : str
        "compact" or "resnet50".
    overrides : dict
        Fields of the architecture that differ, such as ``size = 192``.
    imagenet : str
        Weights to start the encoders from: a .safetensors file (MobileNetV2) or a torchvision state dict saved as
        .safetensors (ResNet); empty: from scratch.
    start_from : str
        A model of this package to start from; empty: none.
    steps : int
        Optimiser steps in the whole run.
    batch : int
        Clips in a step.
    learning_rate, encoder_rate : float
        AdamW's learning rate, and the encoders' share of it.
    warm_up : int
        Steps over which the rate rises from 0.
    cool_down : int
        Steps at the end over which it falls to 0, linearly.
    weight_decay, clip_norm : float
        AdamW's decay; the largest norm of the gradient.
    average : float
        Decay of the moving average of the weights that is exported.
    amp : bool
        Autocast to bfloat16 (a gain on GPUs; not for depthwise convolutions on a CPU).
    corrections : float
        Share of steps with a second, correcting round.
    workers : int
        Processes that make clips.
    threads : int
        Threads of the networks on a CPU.
    device : str
        "cpu", "cuda", "mps", or empty for the best.
    seed : int
        Seed of everything.
    checkpoint_minutes : float
        Time between checkpoints.
    validate_every : int
        Steps between validations; 0: never.
    validation_clips : int
        Held-out clips in a validation.
    clips : ClipSettings
        What clips look like.
    """

    data: str
    output: str
    architecture: str = "compact"
    overrides: dict[str, Any] = field(default_factory=dict)
    imagenet: str = ""
    start_from: str = ""
    steps: int = 20000
    batch: int = 8
    learning_rate: float = 6e-4
    encoder_rate: float = 0.3
    warm_up: int = 200
    cool_down: int = 4000
    weight_decay: float = 1e-4
    clip_norm: float = 5.0
    average: float = 0.998
    amp: bool = False
    corrections: float = 0.6
    workers: int = 1
    threads: int = 1
    device: str = ""
    seed: int = 0
    checkpoint_minutes: float = 10.0
    validate_every: int = 500
    validation_clips: int = 96
    clips: ClipSettings = field(default_factory=ClipSettings)

    @classmethod
    def from_toml(cls, path: str | Path, **changes: Any) -> TrainingSettings:
        """Read a TOML file; paths in it are relative to it.

        Raises
        ------
        InputError
            A file that is missing or not TOML, a key that is unknown or missing, a value of the wrong type.
        """
        path = Path(path)
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"Training settings {path} can't be read: {error.strerror or error}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path.name} is not TOML: {error}.") from error
        for key in ("data", "output", "imagenet", "start_from"):
            if isinstance(values.get(key), str) and values[key]:
                values[key] = (
                    str((path.parent / values[key]).resolve())
                    if key != "start_from" or "/" in values[key]
                    else values[key]
                )
        return cls.from_dict({**values, **changes}, path.name)

    @classmethod
    def from_dict(cls, values: dict[str, Any], name: str = "settings") -> TrainingSettings:
        """Settings from a plain mapping; see `from_toml`."""
        values = dict(values)
        clips = values.pop("clips", {})
        if isinstance(clips, ClipSettings):
            clips = dataclasses.asdict(clips)
        if "exclude" in clips:
            clips = {**clips, "exclude": tuple(clips["exclude"])}
        checked = _checked(cls, values, name, skip="clips")
        return cls(**checked, clips=ClipSettings(**_checked(ClipSettings, clips, f"{name} [clips]")))

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def _checked(kind: type, values: dict[str, Any], name: str, skip: str = "") -> dict[str, Any]:
    fields = {f.name: f for f in dataclasses.fields(kind) if f.name != skip}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise InputError(f"{name}: unknown key {unknown[0]!r}; known are {', '.join(sorted(fields))}.")
    required = [
        n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = [n for n in required if n not in values]
    if missing:
        raise InputError(f"{name}: the key {missing[0]!r} is missing.")
    out = {}
    for key, value in values.items():
        wanted = _TYPES.get(str(fields[key].type))
        if wanted is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and wanted != (bool,))):
            raise InputError(f"{name}: {key} = {value!r} is a {type(value).__name__}, expected {fields[key].type}.")
        out[key] = value
    return out
