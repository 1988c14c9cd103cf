"""Settings of a training run: a frozen dataclass, a sentence a field, read from a TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_ivos.errors import InputError
from napari_ivos.training.clips import ClipSettings
from napari_ivos.untrusted import check_text_size

_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "dict[str, Any]": (dict,),
    "list[str]": (list,),
}


@dataclass(frozen=True)
class Stage:
    """A part of a run with clips and regions of its own, such as small regions first and large ones later.

    Attributes
    ----------
    steps : int
        Optimiser steps in it.
    size : int
        Side of the region that the networks see, in pixels, a multiple of 32; 0: as the architecture says.
    clips : ClipSettings
        What clips look like; what a stage's table leaves out is as in the run's own ``[clips]``.
    """

    steps: int
    size: int = 0
    clips: ClipSettings = field(default_factory=ClipSettings)


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
        A model of this package to start from, as wide as this one or narrower; empty: none.
    frozen : list of str
        What keeps the weights that it starts with: beginnings of parameters' names, such as "interaction." or
        "interaction.encoder."; empty: everything learns.
    steps : int
        Optimiser steps in the whole run; with stages, their sum.
    hours : float
        Time that the whole run may take: the learning rate then falls as the time runs out, over the same share of the
        run as by steps, and the run ends with it, or after `steps`. 0: steps alone decide, and the same seed gives the
        same weights.
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
        Autocast to bfloat16, on GPUs and CPUs (a gain on GPUs; on a CPU only for encoders without depthwise
        convolutions, and only where it computes bfloat16 itself).
    small : float
        Share of steps at the architecture's `small` size of region, where it has one.
    corrections : float
        Share of steps with a second, correcting round.
    finished : float
        Share of annotated frames whose mask is true, as if it was painted or corrected until it was right.
    processes : int
        Processes that make each step together, each `batch / processes` of its clips. For GPUs: they share what a step
        does on the CPU, and several GPUs. The same seed and number of processes give the same clips.
    workers : int
        Processes that make clips, for each of those.
    threads : int
        Threads of each process, on a CPU those of the networks.
    device : str
        "cpu", "cuda", "mps", or empty for the best.
    seed : int
        Seed of everything.
    checkpoint_minutes : float
        Time between checkpoints.
    keep_hours : float
        Hours of training between models that are kept as ``model_HOURSh.safetensors``, to see what time is worth; 0:
        only the newest is there.
    validate_every : int
        Steps between validations; 0: never.
    validation_clips : int
        Held-out clips in a validation; they look as `clips` says in every stage.
    clips : ClipSettings
        What clips look like.
    stages : tuple of Stage
        The parts of the run, one after the other; empty: all of it is one. Learning rate, optimiser and moving average
        run through.
    """

    data: str
    output: str
    architecture: str = "compact"
    overrides: dict[str, Any] = field(default_factory=dict)
    imagenet: str = ""
    start_from: str = ""
    frozen: list[str] = field(default_factory=list)
    steps: int = 20000
    hours: float = 0.0
    batch: int = 8
    learning_rate: float = 6e-4
    encoder_rate: float = 0.3
    warm_up: int = 200
    cool_down: int = 4000
    weight_decay: float = 1e-4
    clip_norm: float = 5.0
    average: float = 0.998
    amp: bool = False
    small: float = 0.5
    corrections: float = 0.6
    finished: float = 0.12
    processes: int = 1
    workers: int = 1
    threads: int = 1
    device: str = ""
    seed: int = 0
    checkpoint_minutes: float = 10.0
    keep_hours: float = 0.0
    validate_every: int = 500
    validation_clips: int = 96
    clips: ClipSettings = field(default_factory=ClipSettings)
    stages: tuple[Stage, ...] = ()

    @property
    def plan(self) -> tuple[Stage, ...]:
        """The stages; of a run without any, itself as one."""
        return self.stages or (Stage(self.steps, 0, self.clips),)

    def stage_at(self, step: int) -> Stage:
        """The stage that optimiser step `step` (from 0) belongs to; the last one from the end on."""
        for stage in self.plan:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.plan[-1]

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
            check_text_size(path)
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"Training settings {path} can't be read: {error.strerror or error}.") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path.name} is not TOML: {error}.") from error
        for key in ("data", "output", "imagenet", "start_from"):
            if isinstance(values.get(key), str) and values[key]:
                if "\0" in values[key]:
                    raise InputError(f"{path.name}: {key} = {values[key]!r} is no path.")
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
        clips = _clips(values.pop("clips", {}), {}, f"{name} [clips]")
        stages = _stages(values.pop("stages", ()), dataclasses.asdict(clips), name)
        total = sum(stage.steps for stage in stages)
        if stages and values.setdefault("steps", total) != total:
            raise InputError(f"{name}: steps = {values['steps']!r}, but its stages have {total} together; give one.")
        checked = _checked(cls, values, name, skip=("clips", "stages"))
        batch, processes = (checked.get(key, getattr(cls, key)) for key in ("batch", "processes"))
        if processes < 1 or batch < 1 or batch % processes:
            raise InputError(f"{name}: a batch of {batch} clips can't be shared evenly by {processes} processes.")
        if not all(isinstance(prefix, str) and prefix for prefix in checked.get("frozen", [])):
            raise InputError(f"{name}: frozen = {checked['frozen']!r}; expected beginnings of parameters' names.")
        return cls(**checked, clips=clips, stages=stages)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def _clips(values: Any, common: dict[str, Any], name: str) -> ClipSettings:
    """Clip settings from a table; what it leaves out is as in `common`."""
    if isinstance(values, ClipSettings):
        return values
    if not isinstance(values, dict):
        raise InputError(f"{name}: {values!r} is a {type(values).__name__}, expected a table.")
    merged = {**common, **values}
    if "exclude" in merged:
        named = merged["exclude"]
        if not isinstance(named, list | tuple) or not all(isinstance(one, str) for one in named):
            raise InputError(f"{name}: exclude = {named!r}; expected a list of names.")
        merged["exclude"] = tuple(named)
    return ClipSettings(**_checked(ClipSettings, merged, name))


def _stages(values: Any, common: dict[str, Any], name: str) -> tuple[Stage, ...]:
    """Stages from an array of tables; `common` are the run's clip settings."""
    if not isinstance(values, list | tuple):
        raise InputError(f"{name}: stages = {values!r}; expected tables [[stages]].")
    found = []
    for k, value in enumerate(values, start=1):
        where = f"{name} [[stages]] {k}"
        if not isinstance(value, dict):
            raise InputError(f"{where}: {value!r} is a {type(value).__name__}, expected a table.")
        clips = _clips(value.get("clips", {}), common, f"{where} [clips]")
        plain = _checked(Stage, {key: v for key, v in value.items() if key != "clips"}, where, skip=("clips",))
        stage = Stage(**plain, clips=clips)
        if stage.steps < 1 or (stage.size and (stage.size % 32 or not 64 <= stage.size <= 512)):
            raise InputError(
                f"{where}: {stage.steps} steps at {stage.size} px; expected at least one step, and a size of 64 to 512 "
                "that is a multiple of 32."
            )
        found.append(stage)
    return tuple(found)


def _checked(kind: type, values: dict[str, Any], name: str, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    fields = {f.name: f for f in dataclasses.fields(kind) if f.name not in skip}
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
