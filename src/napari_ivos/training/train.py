"""The training program: settings, data, networks, loop, in the order of execution.

Everything random is a function of (seed, step): clip k of step n is drawn from its own seed, so that a run that was
stopped and goes on from its checkpoint follows the same curve. A checkpoint is a safetensors file that holds the
networks, their moving average, the optimiser and what is needed to know what it is.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from napari_ivos.errors import InputError, WeightsError
from napari_ivos.networks.blocks import Architecture
from napari_ivos.networks.weights import architecture_of, new_networks, to_bytes
from napari_ivos.training.clips import Clip, ClipSource
from napari_ivos.training.rollout import Outcome, Rollout, RolloutSettings, channels_last

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_ivos.training.settings import TrainingSettings

CHECKPOINT = "checkpoint.safetensors"
EXPORT = "model.safetensors"
LOG = "log.csv"
_VALIDATION_SEED = 1_000_000_007


class ClipDataset(Dataset[list[Clip]]):
    """Batches by step: item n is the batch of step `first + n`, each clip drawn from a seed of its own."""

    def __init__(self, source: ClipSource, settings: TrainingSettings, first: int) -> None:
        self.source, self.settings, self.first = source, settings, first

    def __len__(self) -> int:
        return self.settings.steps - self.first

    def __getitem__(self, n: int) -> list[Clip]:
        s = self.settings
        start = s.seed * 2_000_000_011 + (self.first + n) * s.batch
        return [self.source.draw(start + k) for k in range(s.batch)]


class Trainer:
    """A run in progress: networks, their moving average, optimiser, and the step they have come to."""

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        self.device = torch.device(settings.device or _best_device())
        torch.manual_seed(settings.seed)
        if self.device.type == "cpu":
            torch.set_num_threads(settings.threads)
        self.architecture: Architecture = replace(architecture_of(settings.architecture), **settings.overrides)
        self.interaction, self.propagation = new_networks(self.architecture)
        self.networks = nn.ModuleDict({"interaction": self.interaction, "propagation": self.propagation})
        self._initialise()
        self.networks.to(self.device)
        channels_last(self.networks)
        self.average = {k: v.detach().clone() for k, v in self.networks.state_dict().items()}
        encoder = [p for n, p in self.networks.named_parameters() if ".encoder." in n and ".planes." not in n]
        rest = [p for n, p in self.networks.named_parameters() if not (".encoder." in n and ".planes." not in n)]
        groups = [{"params": rest, "share": 1.0}, {"params": encoder, "share": settings.encoder_rate}]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.step = 0
        self.hours = 0.0

    def _initialise(self) -> None:
        s = self.settings
        if s.imagenet:
            state = read_imagenet(Path(s.imagenet))
            self.interaction.encoder.load_imagenet(state)
            self.propagation.encoder.load_imagenet(state)
        if s.start_from:
            from napari_ivos.networks.weights import load_model

            model = load_model(s.start_from, device="cpu")
            self.interaction.load_state_dict(model.interaction.state_dict())
            self.propagation.load_state_dict(model.propagation.state_dict())

    def rollout(self) -> Rollout:
        amp = torch.bfloat16 if self.settings.amp else None
        return Rollout(self.interaction, self.propagation, self.architecture.size, self.device, amp)

    def rate(self) -> float:
        """The learning rate of this step: up over the warm-up, level, down over the cool-down."""
        s = self.settings
        up = min(1.0, (self.step + 1) / max(s.warm_up, 1))
        down = min(1.0, (s.steps - self.step) / max(s.cool_down, 1))
        return s.learning_rate * min(up, down)

    def advance(self, clips: list[Clip], rollout: Rollout) -> Outcome:
        """One optimiser step."""
        s = self.settings
        self.networks.train()
        rng = np.random.default_rng([s.seed, self.step, 7])
        outcome = rollout.run(clips, rng, RolloutSettings(corrections=bool(rng.random() < s.corrections)))
        loss = outcome.loss
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
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
        found, wanted = Architecture(**json.loads(notes["architecture"])).to_dict(), self.architecture.to_dict()
        if found != wanted:
            different = {k: (found[k], v) for k, v in wanted.items() if found[k] != v}
            raise WeightsError(f"The checkpoint {path} is of another architecture: (found, wanted) = {different}.")
        self._take(tensors)
        self.step, self.hours = int(notes["step"]), float(notes["hours"])
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
        """Write the averaged weights as a model of this package."""
        with self.averaged():
            blob = to_bytes(self.interaction, self.propagation, self.architecture, **notes)
        write_whole(path, blob)

    # --- validation -------------------------------------------------------------------------------------------------

    def validate(self, source: ClipSource) -> dict[str, float]:
        """Mean J of each stage of the whole rollout on held-out clips, with the averaged weights and no disturbance."""
        s = self.settings
        scores: dict[str, list[float]] = {}
        with self.averaged(), torch.no_grad():
            self.networks.eval()
            for first in range(0, s.validation_clips, s.batch):
                many = range(first, min(first + s.batch, s.validation_clips))
                clips = [source.draw(_VALIDATION_SEED + k) for k in many]
                rng = np.random.default_rng([_VALIDATION_SEED, first])
                outcome = self.rollout().run(clips, rng, RolloutSettings(jitter=False))
                for stage, values in outcome.scores.items():
                    scores.setdefault(stage, []).extend(values)
        return {stage: float(np.mean(values)) for stage, values in scores.items()}


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
    with interruptible():
        return _train(settings, folder, tell)


def _train(settings: TrainingSettings, folder: Path, tell: Any) -> Path:
    trainer = Trainer(settings)
    if trainer.resume(folder):
        tell(f"going on from step {trainer.step} in {folder}")
    source, held_out = (
        ClipSource(settings.data, settings.clips),
        ClipSource(settings.data, settings.clips, held_out=True),
    )
    loader = DataLoader(
        ClipDataset(source, settings, trainer.step),
        batch_size=None,
        num_workers=settings.workers,
        prefetch_factor=4 if settings.workers else None,
        multiprocessing_context="fork" if settings.workers and os.name == "posix" else None,
        worker_init_fn=_calm_worker,
    )
    _loop(trainer, loader, held_out, folder, tell)
    path = folder / EXPORT
    trainer.export(path, name=settings.architecture, steps=str(trainer.step), hours=f"{trainer.hours:.2f}")
    tell(f"weights are in {path}")
    return path


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it Ctrl-C and a scheduler's SIGTERM both raise KeyboardInterrupt, even where a shell had them ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _calm_worker(_: int) -> None:
    """A worker leaves Ctrl-C to the main process, ends when told to, and keeps to one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


def _loop(trainer: Trainer, loader: DataLoader[Any], held_out: ClipSource, folder: Path, tell: Any) -> None:
    settings, rollout = trainer.settings, trainer.rollout()
    sums: dict[str, list[float]] = {}
    saved = last = time.monotonic()
    waited = 0.0
    batches = iter(loader)
    try:
        while trainer.step < settings.steps:
            asked = time.monotonic()
            clips = next(batches)
            waited += time.monotonic() - asked
            outcome = trainer.advance(clips, rollout)
            now = time.monotonic()
            trainer.hours += (now - asked) / 3600
            for stage, value in outcome.losses.items():
                sums.setdefault(f"loss/{stage}", []).append(float(value.detach()))
            for stage, values in outcome.scores.items():
                sums.setdefault(f"J/{stage}", []).extend(values)
            if trainer.step % 50 == 0:
                row = {k: float(np.mean(v)) for k, v in sums.items()}
                row |= {"seconds a step": (now - last) / 50, "waiting share": waited / (now - last)}
                _log(folder, trainer, "train", row, tell)
                sums, last, waited = {}, now, 0.0
            if settings.validate_every and trainer.step % settings.validate_every == 0:
                _log(folder, trainer, "held out", {f"J/{k}": v for k, v in trainer.validate(held_out).items()}, tell)
                last = time.monotonic()
            if time.monotonic() - saved > settings.checkpoint_minutes * 60:
                trainer.save(folder)
                trainer.export(folder / EXPORT, name=settings.architecture, steps=str(trainer.step))
                saved = time.monotonic()
    except KeyboardInterrupt:
        trainer.save(folder)
        tell(f"stopped at step {trainer.step}; the same command goes on from the checkpoint in {folder}")
        raise
    trainer.save(folder)


def _log(folder: Path, trainer: Trainer, kind: str, row: dict[str, float], tell: Any) -> None:
    """Append to the CSV log (one line a value) and say it."""
    new = not (folder / LOG).exists()
    with (folder / LOG).open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", "hours", "kind", "name", "value"])
        for name, value in row.items():
            writer.writerow([trainer.step, f"{trainer.hours:.4f}", kind, name, f"{value:.6g}"])
    tell(f"step {trainer.step} ({kind}): " + ", ".join(f"{k} {v:.3f}" for k, v in row.items()))


def write_whole(path: Path, blob: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises
    ------
    InputError
        The disk is full, or the folder can't be written; an older file of that name stays as it was.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"{path} can't be written ({error.strerror}); an earlier one is as it was.") from error


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
