"""The training program: settings, data, networks, loop, in the order of execution.

Everything random is a function of (seed, step): clip k of step n is drawn from its own seed, so that a run that was
stopped and goes on from its checkpoint follows the same curve. A checkpoint is a safetensors file that holds the
networks, their moving average, the optimiser and what is needed to know what it is.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from napari_ivos.errors import InputError, IvosError, WeightsError
from napari_ivos.files import write_whole
from napari_ivos.networks.blocks import Architecture
from napari_ivos.networks.weights import architecture_of, new_networks, to_bytes
from napari_ivos.training.card import model_card
from napari_ivos.training.clips import Clip, ClipSettings, ClipSource
from napari_ivos.training.journal import HELD_OUT, TRAIN, Journal
from napari_ivos.training.rollout import Outcome, Rollout, RolloutSettings, Track, channels_last
from napari_ivos.training.sharing import Share, sharing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_ivos.training.settings import TrainingSettings

CHECKPOINT = "checkpoint.safetensors"
EXPORT = "model.safetensors"
CARD = "model.md"
ROW_STEPS = 50
"""Steps that a row of the log takes together."""
EXAMPLES = 6
"""Held-out clips that are drawn at each validation."""
_VALIDATION_SEED = 1_000_000_007

GROWING = ("decoder.", "value.", "encoder.planes.", "kept.")
"""What may have more channels than in the model that a run starts from. Keys may not: all of them are compared."""
READ = ("decoder.lateral.1.weight", "decoder.lateral.1.0.weight")
"""What takes in what references know of each position: as many values as decoders are wide, and last the mask."""


class ClipDataset(Dataset[list[Clip]]):
    """Batches by step: item n is (this process's part of) the batch of step `first + n`, each clip from its own seed.

    A stage whose clips differ from those of `source` draws from a source of its own in the same folder.
    """

    def __init__(self, source: ClipSource, settings: TrainingSettings, first: int, share: Share | None = None) -> None:
        self.settings, self.first, self.share = settings, first, share or Share()
        self._sources: dict[ClipSettings, ClipSource] = {source.settings: source}
        for stage in settings.plan:
            if stage.clips not in self._sources:
                self._sources[stage.clips] = ClipSource(source.root, stage.clips, source.held_out)

    def __len__(self) -> int:
        return self.settings.steps - self.first

    def __getitem__(self, n: int) -> list[Clip]:
        s = self.settings
        start = s.seed * 2_000_000_011 + (self.first + n) * s.batch
        source = self._sources[s.stage_at(self.first + n).clips]
        return [source.draw(start + k) for k in self.share.part(s.batch)]


class _Told(Dataset["list[Clip] | IvosError"]):
    """The same batches for worker processes; an error of this package comes out as an item, its message whole."""

    def __init__(self, batches: ClipDataset) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, n: int) -> list[Clip] | IvosError:
        try:
            return self.batches[n]
        except IvosError as error:
            return error


class Trainer:
    """A run in progress: networks, their moving average, optimiser, and the step they have come to."""

    def __init__(self, settings: TrainingSettings, share: Share | None = None) -> None:
        self.settings = settings
        self.share = share or Share()
        self.device = self.share.device(settings.device or _best_device())
        torch.manual_seed(settings.seed)
        _use_threads(settings.threads)
        self._common: Architecture = _architecture(settings)
        self.step = 0
        self.hours = 0.0
        self.used = 0.0  # share of the run's hours, where they are limited, as all processes know it
        self.sums: dict[str, list[float]] = {}  # losses and scores since the last row of the log
        self.scores: dict[str, float] = {}  # of the last validation
        self.interaction, self.propagation = new_networks(self.architecture)
        self.networks = nn.ModuleDict({"interaction": self.interaction, "propagation": self.propagation})
        self._initialise()
        _freeze(self.networks, settings.frozen)
        self.networks.to(self.device)
        channels_last(self.networks)
        self.average = {k: v.detach().clone() for k, v in self.networks.state_dict().items()}
        learned = [(n, p) for n, p in self.networks.named_parameters() if p.requires_grad]
        encoder = [p for n, p in learned if ".encoder." in n and ".planes." not in n]
        rest = [p for n, p in learned if not (".encoder." in n and ".planes." not in n)]
        groups = [{"params": rest, "share": 1.0}, {"params": encoder, "share": settings.encoder_rate}]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)

    @property
    def architecture(self) -> Architecture:
        """The networks' architecture, with the size of region that the last step saw (the first will see)."""
        return self._architecture_at(max(self.step - 1, 0))

    def _architecture_at(self, step: int) -> Architecture:
        return replace(self._common, size=self.settings.stage_at(step).size or self._common.size)

    def _size_at(self, step: int) -> int:
        """The size of region of a step: where small objects have one of their own, it is drawn by chance."""
        architecture = self._architecture_at(step)
        chance = np.random.default_rng([self.settings.seed, step, 11]).random()
        smaller = 0 < architecture.small < architecture.size and chance < self.settings.small
        return architecture.small if smaller else architecture.size

    def _initialise(self) -> None:
        s = self.settings
        if s.imagenet:
            state = read_imagenet(Path(s.imagenet))
            self.interaction.encoder.load_imagenet(state)
            self.propagation.encoder.load_imagenet(state)
        if s.start_from:
            from napari_ivos.networks.weights import load_model

            model = load_model(s.start_from, device="cpu")
            for network, start in ((self.interaction, model.interaction), (self.propagation, model.propagation)):
                _begin_as(network, start, s.start_from)

    def rollout(self, size: int | None = None) -> Rollout:
        """The loop of use, with regions of that size, or of the one that the next step is to see."""
        amp = torch.bfloat16 if self.settings.amp else None
        side = size or self._size_at(self.step)
        return Rollout(self.interaction, self.propagation, side, self.device, amp, self.settings.threads)

    def rate(self) -> float:
        """The learning rate of this step: up over the warm-up, level, down over the cool-down."""
        s = self.settings
        up = min(1.0, (self.step + 1) / max(s.warm_up, 1))
        left = min(s.steps - self.step, (1 - self.used) * s.steps)
        return s.learning_rate * max(min(up, left / max(s.cool_down, 1), 1.0), 0.0)

    @property
    def done(self) -> bool:
        """Whether the run has come to its last step, or to the end of its time."""
        return self.step >= self.settings.steps or self.used >= 1.0

    def advance(self, clips: list[Clip], rollout: Rollout) -> Outcome:
        """One optimiser step."""
        s = self.settings
        self.networks.train()
        rng = np.random.default_rng([s.seed, self.step, 7])
        corrected = bool(rng.random() < s.corrections)  # or not in all processes alike
        if not self.share.first:
            rng = np.random.default_rng([s.seed, self.step, 7, self.share.rank])
        outcome = rollout.run(clips, rng, RolloutSettings(corrections=corrected, finished=s.finished))
        loss = outcome.loss
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        used = self.hours / s.hours if s.hours else 0.0
        self.used = self.share.average_gradients(self.networks.parameters(), used)
        norm = nn.utils.clip_grad_norm_(self.networks.parameters(), s.clip_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate() * group["share"]
        if bool(torch.isfinite(norm)):
            self.optimiser.step()
            self._follow()
        self.step += 1
        return outcome

    @torch.no_grad()
    def _follow(self) -> None:
        if not self.share.first:
            return
        decay = min(self.settings.average, (1 + self.step) / (10 + self.step))
        for key, value in self.networks.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the networks hold their moving average."""
        own = {k: v.detach().clone() for k, v in self.networks.state_dict().items()}
        self.networks.load_state_dict(self.average)
        try:
            yield
        finally:
            self.networks.load_state_dict(own)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the checkpoint beside the old one, then replace it: a full disk leaves the old one whole."""
        from safetensors.torch import save

        tensors = {f"network.{k}": v.detach().contiguous() for k, v in self.networks.state_dict().items()}
        tensors |= {f"average.{k}": v.contiguous() for k, v in self.average.items()}
        names = {id(p): n for n, p in self.networks.named_parameters()}
        for p, state in self.optimiser.state.items():
            for key, value in state.items():
                tensors[f"optimiser.{key}.{names[id(p)]}"] = value.detach().contiguous()
        notes = {
            "step": str(self.step),
            "hours": str(self.hours),
            "architecture": json.dumps(self.architecture.to_dict()),
            "settings": json.dumps(self.settings.to_dict()),
            "sums": json.dumps(self.sums),
            "scores": json.dumps(self.scores),
        }
        write_whole(folder / CHECKPOINT, save({k: v.cpu() for k, v in tensors.items()}, notes))

    def resume(self, folder: Path) -> bool:
        """Go on from the folder's checkpoint, if there is one.

        Raises
        ------
        WeightsError
            A checkpoint of another architecture, or a damaged one.
        """
        path = folder / CHECKPOINT
        if not path.exists():
            return False
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                notes = file.metadata()
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        except SafetensorError as error:
            raise WeightsError(f"The checkpoint {path} is damaged ({error}); remove it to start anew.") from error
        step = int(notes["step"])
        wanted = self._architecture_at(max(step - 1, 0)).to_dict()
        found = Architecture(**json.loads(notes["architecture"])).to_dict()
        if found != wanted:
            different = {k: (found[k], v) for k, v in wanted.items() if found[k] != v}
            raise WeightsError(f"The checkpoint {path} is of another architecture: (found, wanted) = {different}.")
        self._take(tensors)
        self.step, self.hours = step, float(notes["hours"])
        self.used = self.hours / self.settings.hours if self.settings.hours else 0.0
        self.sums, self.scores = json.loads(notes.get("sums", "{}")), json.loads(notes.get("scores", "{}"))
        return True

    def _take(self, tensors: dict[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v.to(self.device) for k, v in tensors.items() if k.startswith(prefix)}

        self.networks.load_state_dict(part("network."))
        self.average = part("average.")
        for name, p in self.networks.named_parameters():
            state = {k: tensors.get(f"optimiser.{k}.{name}") for k in ("step", "exp_avg", "exp_avg_sq")}
            if all(v is not None for v in state.values()):
                self.optimiser.state[p] = {
                    k: v if k == "step" else v.to(self.device).contiguous(memory_format=_format_of(p))  # type: ignore[union-attr]
                    for k, v in state.items()
                }

    def export(self, path: Path, **notes: str) -> None:
        """Write the averaged weights as a model of this package, and its model card beside it (`.md`)."""
        about = {"steps": str(self.step), "hours": f"{self.hours:.2f}", **notes}
        with self.averaged():
            blob = to_bytes(self.interaction, self.propagation, self.architecture, **about)
        write_whole(path, blob)
        count = sum(p.numel() for p in self.networks.parameters())
        facts = {
            "file": f"`{path.name}`, float16, {len(blob) / 1e6:.1f} MB",
            "parameters": f"{count / 1e6:.1f} million in both networks together",
            "training": f"{self.step} steps of {self.settings.batch} clips, {self.hours:.2f} hours",
            "device": f"{self.device}, {torch.get_num_threads()} threads" if self.device.type == "cpu" else _gpu(),
            "made with": f"napari-ivos {version()}, torch {torch.__version__}",
        }
        write_whole(path.with_suffix(".md"), model_card(self.settings, self.architecture, facts, self.scores).encode())

    # --- validation -------------------------------------------------------------------------------------------------

    def validate(self, source: ClipSource) -> dict[str, float]:
        """Mean J of each stage of the whole rollout on held-out clips, with the averaged weights and no disturbance."""
        s = self.settings
        self.examples: list[Track] = []
        scores: dict[str, list[float]] = {}
        with self.averaged(), torch.no_grad():
            self.networks.eval()
            for first in range(0, s.validation_clips, s.batch):
                many = range(first, min(first + s.batch, s.validation_clips))
                clips = [source.draw(_VALIDATION_SEED + k) for k in many]
                rng = np.random.default_rng([_VALIDATION_SEED, first])
                rollout = self.rollout(self._architecture_at(self.step).size)
                outcome = rollout.run(clips, rng, RolloutSettings(jitter=False))
                self.examples += rollout.tracks[: EXAMPLES - len(self.examples)]
                for stage, values in outcome.scores.items():
                    scores.setdefault(stage, []).extend(values)
        self.scores = {stage: float(np.mean(values)) for stage, values in scores.items()}
        return self.scores


def _architecture(settings: TrainingSettings) -> Architecture:
    """The architecture that the settings name, with their overrides.

    Raises
    ------
    InputError
        An override that is no field of an architecture, or a size that the networks can't take.
    """
    try:
        architecture = replace(architecture_of(settings.architecture), **settings.overrides)
    except TypeError as error:
        known = ", ".join(architecture_of(settings.architecture).to_dict())
        raise InputError(f"[overrides] holds {sorted(settings.overrides)}; known are {known}.") from error
    for name, size in (("size", architecture.size), ("small", architecture.small or architecture.size)):
        if type(size) is not int or size % 32 or not 64 <= size <= 512:
            raise InputError(f"[overrides]: {name} = {size!r}; expected 64 to 512, a multiple of 32.")
    return architecture


def _freeze(networks: nn.Module, prefixes: Sequence[str]) -> None:
    """Let all parameters whose names begin like one of these keep their weights.

    Raises
    ------
    InputError
        A beginning that no name has, or nothing is left to learn.
    """
    names = [name for name, _ in networks.named_parameters()]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            known = sorted({".".join(name.split(".")[:2]) + "." for name in names})
            raise InputError(f"frozen: no parameter's name begins with {prefix!r}; known are {', '.join(known)}.")
    for name, p in networks.named_parameters():
        p.requires_grad_(not name.startswith(tuple(prefixes)))
    if not any(p.requires_grad for p in networks.parameters()):
        raise InputError(f"frozen = {list(prefixes)}: nothing is left to learn.")


def _begin_as(network: nn.Module, start: nn.Module, name: str) -> None:
    """Take the weights of a model that may be from before residual masks and motion, or have narrower decoders.

    What the network adds to it stays as it was initialised, and counts nothing at first: the network does what the
    other one did (Chen et al. 2016, "Net2Net").

    Raises
    ------
    WeightsError
        It is of another architecture, or wider.
    """
    own = network.state_dict()
    found = {
        k: _grown(own[k], v, k) if k.startswith(GROWING) and k in own else v for k, v in start.state_dict().items()
    }
    other = [k for k, v in own.items() if not k.startswith("kept.") and getattr(found.get(k), "shape", None) != v.shape]
    if other or found.keys() - own.keys():
        lacking = (other or sorted(found.keys() - own.keys()))[0]
        raise WeightsError(f"{name} is of another architecture: its {lacking!r} is missing, or differs.")
    network.load_state_dict(found, strict=False)


def _grown(own: Tensor, old: Tensor, key: str) -> Tensor:
    """The weights `old` in the place of a part of `own`, which may have more outputs and inputs.

    Where more come in than came in before, they count nothing for the outputs that were there.
    """
    if own.shape == old.shape or own.ndim != old.ndim or own.shape[2:] != old.shape[2:]:
        return old
    if any(now < before for now, before in zip(own.shape, old.shape, strict=True)):
        return old
    grown = own.clone()
    grown[: len(old)] = 0
    if old.ndim == 1:
        grown[: len(old)] = old
        return grown
    columns = torch.arange(old.shape[1])
    if key in READ:
        columns[-1] = own.shape[1] - 1
    grown[: len(old), columns] = old
    return grown


def _gpu() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "mps"


def version() -> str:
    """The version of this package."""
    from napari_ivos import __version__

    return __version__


def train(settings: TrainingSettings, tell: Any = print) -> Path:
    """Run (or resume) a training to its last step.

    Parameters
    ----------
    settings : TrainingSettings
        The run.
    tell : callable
        Called with a line of text now and then.

    Returns
    -------
    Path
        The exported weights.
    """
    folder = Path(settings.output)
    folder.mkdir(parents=True, exist_ok=True)
    with interruptible() as interrupts, sharing(settings.processes, partial(_take_part, settings)) as share:
        return _train(settings, share, tell, interrupts)


def _train(settings: TrainingSettings, share: Share, tell: Any, interrupts: Interrupts) -> Path:
    folder = Path(settings.output)
    trainer = Trainer(settings, share)
    if trainer.resume(folder):
        tell(f"going on from step {trainer.step} in {folder}")
    held_out = ClipSource(settings.data, settings.clips, held_out=True)
    journal = Journal(folder, trainer.step)
    try:
        with _batches(trainer) as batches:
            _Loop(trainer, held_out, folder, journal, tell, interrupts).run(batches)
        journal.draw()
    finally:
        journal.close()
    path = folder / EXPORT
    trainer.export(path, name=settings.architecture)
    tell(f"weights are in {path}, their model card in {CARD}, curves and example clips beside them")
    return path


def _take_part(settings: TrainingSettings, share: Share) -> None:
    """What a process other than the first does: its part of each step, to the last."""
    trainer = Trainer(settings, share)
    trainer.resume(Path(settings.output))
    with _batches(trainer) as batches:
        while not trainer.done:
            clips = next(batches)
            if isinstance(clips, IvosError):
                raise clips
            trainer.advance(clips, trainer.rollout())


@contextmanager
def _batches(trainer: Trainer) -> Iterator[Iterator[list[Clip] | IvosError]]:
    """The process's clips from its step on, made by its worker processes."""
    settings = trainer.settings
    source = ClipSource(settings.data, settings.clips)
    loader: DataLoader[Any] = DataLoader(
        _Told(ClipDataset(source, settings, trainer.step, trainer.share)),
        batch_size=None,
        num_workers=settings.workers,
        prefetch_factor=4 if settings.workers else None,
        multiprocessing_context="fork" if settings.workers and os.name == "posix" else None,
        worker_init_fn=_calm_worker,
    )
    batches = iter(loader)
    try:
        yield batches
    finally:
        _end_workers(batches)


class Interrupts:
    """Ctrl-C and a scheduler's SIGTERM as KeyboardInterrupt, but never in the middle of what must be done whole."""

    def __init__(self) -> None:
        self._held = self._asked = False
        self.paused = False
        """Whether the process was stopped (Ctrl-Z, SIGSTOP) and went on since this was last set to False."""

    def went_on(self, number: int, frame: object) -> None:
        """SIGCONT's handler."""
        self.paused = True

    def handle(self, number: int, frame: object) -> None:
        """The signals' handler."""
        if not self._held or self._asked:  # the second time in a row it is meant at once
            raise KeyboardInterrupt
        self._asked = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it a signal waits: weights of which half are a step ahead would be no checkpoint."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._asked:
            self._asked = False
            raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Within it Ctrl-C and a scheduler's SIGTERM both raise KeyboardInterrupt, even where a shell had them ignored."""
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {number: signal.signal(number, interrupts.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    if hasattr(signal, "SIGCONT"):  # not on Windows
        before[signal.SIGCONT] = signal.signal(signal.SIGCONT, interrupts.went_on)
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_workers(batches: Iterator[list[Clip] | IvosError]) -> None:
    """End the worker processes at once.

    They heed no signal, and whoever holds an error of the run holds the iterator that would end them when it goes: the
    program would wait for them for ever when it ends.
    """
    shutdown = getattr(batches, "_shutdown_workers", None)  # PyTorch's own, where there are workers
    if shutdown is not None:
        shutdown()


def _calm_worker(_: int) -> None:
    """A worker leaves signals to the main process, which ends it (it ends by itself if that is gone); one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _use_threads(1)


def _use_threads(count: int) -> None:
    """Compute with so many threads in this process, OpenCV's included."""
    import cv2

    torch.set_num_threads(count)
    cv2.setNumThreads(count)


class _Loop:
    """The steps of a run, and what is written on the way."""

    def __init__(
        self,
        trainer: Trainer,
        held_out: ClipSource,
        folder: Path,
        journal: Journal,
        tell: Any,
        interrupts: Interrupts,
    ) -> None:
        self.interrupts = interrupts
        self.trainer, self.held_out, self.folder, self.journal, self.tell = trainer, held_out, folder, journal, tell
        self.waited = 0.0
        self.steps = 0  # since the last row of the log
        self.last = self.saved = time.monotonic()
        each = trainer.settings.keep_hours
        self.kept = trainer.hours // each if each else 0.0

    def run(self, batches: Iterator[list[Clip] | IvosError]) -> None:
        """To the last step; Ctrl-C and data that can't be read leave a checkpoint of the steps done."""
        trainer, stage = self.trainer, None
        try:
            while not trainer.done:
                if trainer.settings.stages and stage is not trainer.settings.stage_at(trainer.step):
                    stage = trainer.settings.stage_at(trainer.step)
                    at = trainer.settings.stages.index(stage) + 1
                    size = stage.size or trainer.architecture.size
                    self.tell(f"stage {at} of {len(trainer.settings.stages)}: {stage.steps} steps at {size} px")
                self._step(batches)
                self._write()
        except KeyboardInterrupt:
            self._save()
            self.tell(f"stopped at step {trainer.step}; the same command goes on from the checkpoint in {self.folder}")
            raise
        self._save()

    def _step(self, batches: Iterator[list[Clip] | IvosError]) -> None:
        trainer = self.trainer
        asked = time.monotonic()
        self.interrupts.paused = False
        clips = next(batches)
        self.waited += time.monotonic() - asked
        if isinstance(clips, IvosError):
            self._save()
            raise clips
        with self.interrupts.held():
            outcome = trainer.advance(clips, trainer.rollout())
            if not self.interrupts.paused:  # a step during which the process slept has no time that means anything
                trainer.hours += (time.monotonic() - asked) / 3600
            self.steps += 1
            for stage, value in outcome.losses.items():
                trainer.sums.setdefault(f"loss/{stage}", []).append(float(value.detach()))
            for stage, values in outcome.scores.items():
                trainer.sums.setdefault(f"J/{stage}", []).extend(values)
            self.journal.note(trainer.step, trainer.hours, float(outcome.loss.detach()))

    def _write(self) -> None:
        """What is due after this step: a row of the log, a validation, a checkpoint."""
        trainer, now = self.trainer, time.monotonic()
        if trainer.step % ROW_STEPS == 0:
            row = {k: float(np.mean(v)) for k, v in trainer.sums.items()}
            row |= {"seconds a step": (now - self.last) / self.steps, "waiting share": self.waited / (now - self.last)}
            self._log(TRAIN, row)
            trainer.sums, self.waited, self.steps, self.last = {}, 0.0, 0, now
        every = trainer.settings.validate_every
        if every and trainer.step % every == 0:
            self._log(HELD_OUT, {f"J/{k}": v for k, v in trainer.validate(self.held_out).items()})
            self.journal.show(trainer.step, trainer.examples)
            self.last += time.monotonic() - now
        self._keep()
        if now - self.saved > trainer.settings.checkpoint_minutes * 60:
            self._save()
            trainer.export(self.folder / EXPORT, name=trainer.settings.architecture)
            self.journal.draw()
            self.saved = time.monotonic()

    def _keep(self) -> None:
        """Keep a model whenever another `keep_hours` of training are over."""
        trainer, each = self.trainer, self.trainer.settings.keep_hours
        if each and trainer.hours // each > self.kept:
            self.kept = trainer.hours // each
            trainer.export(self.folder / f"model_{trainer.hours:.2f}h.safetensors", name=trainer.settings.architecture)

    def _log(self, kind: str, row: dict[str, float]) -> None:
        trainer = self.trainer
        self.journal.add(trainer.step, trainer.hours, kind, row)
        self.tell(f"step {trainer.step} ({kind}): " + ", ".join(f"{k} {v:.3f}" for k, v in row.items()))

    def _save(self) -> None:
        self.journal.flush()
        self.trainer.save(self.folder)


def read_imagenet(path: Path) -> dict[str, Tensor]:
    """An encoder's ImageNet weights: a .safetensors file, or a torchvision state dict (.pth).

    A .pth file is read by torch's restricted loader, which builds tensors and nothing else; models of this package are
    never read that way.

    Raises
    ------
    WeightsError
        The file is missing or neither of the two.
    """
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"The ImageNet weights {path} can't be read: {error.strerror or error}.") from error
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise WeightsError(f"{path} holds no plain state dict of tensors ({str(error).splitlines()[0]}).") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} holds a {type(state).__name__}; expected a state dict of tensors.")
    return state


def _format_of(p: Tensor) -> torch.memory_format:
    return torch.channels_last if p.ndim == 4 else torch.contiguous_format


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
