"""`adapt`: read, test, learn, test, learn from all; and the model that a project keeps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_ivos.adapting import testing
from napari_ivos.adapting.material import Material
from napari_ivos.errors import InputError
from napari_ivos.wording import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Generator

    from napari_ivos.adapting.testing import Trial
    from napari_ivos.adapting.tuning import Prepared, Rng, Tuner
    from napari_ivos.networks.inference import TorchPredictor
    from napari_ivos.predictor import Predictor
    from napari_ivos.session import Session
    from napari_ivos.session.stacks import Stack

STEPS = 120
"""Steps that are taken where there is time; two quiet cores take about 0.4 s for one."""
SECONDS = 120.0
"""Time limit: what is learned until then counts."""
OBJECTS_READ = 144
"""Objects that are looked at, each once by both networks; steps draw from them and change them by chance."""
HELD_OUT_SHARE = 2 / 3
"""Share of the steps that is taken before the test, without the frame that is tested on."""
RESERVE = 1.5
"""Time kept for a test, over what the first one took."""

Stage = Literal["reading", "testing", "adapting", "done"]


@dataclass(frozen=True)
class AdaptReport:
    """What came of adapting.

    Parameters
    ----------
    objects, masks, frames : int
        What was learned from: objects, their masks, and the annotated frames among them.
    steps, planned : int
        Steps taken, and steps that would have been taken with more time.
    seconds : float
        All included.
    tested_on : int or None
        Annotated frame that was not learned from until the test; None where only one frame is annotated: then nothing
        could be tested.
    before, after : float or None
        Mean J there of masks carried from the nearest other annotated frame, by the model as it was and as adapted.
    kept : bool
        Whether the adapted model was better there and is what came out; else it is the model as it was.
    """

    objects: int
    masks: int
    frames: int
    steps: int
    planned: int
    seconds: float
    tested_on: int | None
    before: float | None
    after: float | None
    kept: bool

    def __str__(self) -> str:
        learned = (
            f"Learned from {self.masks} masks of {counted(self.objects, 'object')} "
            f"({counted(self.frames, 'annotated frame')}) in {self.seconds:.0f} s"
        )
        learned += "." if self.steps >= self.planned else f", {self.steps} of {self.planned} steps (time limit)."
        if self.before is None or self.after is None:
            return f"{learned} Not tested: annotate a second frame, and adapting can say whether it helps."
        test = f"On frame {self.tested_on}, not learned from: J {self.before:.3f} before, {self.after:.3f} after."
        return f"{learned} {test}" + ("" if self.kept else " That is no gain: the model stays as it was.")


@dataclass(frozen=True, eq=False)
class Adaptation:
    """How far adapting has come.

    Parameters
    ----------
    stage : "reading", "testing", "adapting" or "done"
    done, total : int
        Steps.
    seconds : float
        Since the beginning.
    loss : float or None
        Of the last step.
    model : TorchPredictor or None
        With the last one ("done"): the model to use.
    report : AdaptReport or None
        With the last one: what came of it.
    """

    stage: Stage
    done: int
    total: int
    seconds: float
    loss: float | None = None
    model: TorchPredictor | None = None
    report: AdaptReport | None = None

    @property
    def seconds_left(self) -> float | None:
        """About how long it still takes; None before the first step."""
        return self.seconds / self.done * (self.total - self.done) if self.done else None


def adapt(
    session: Session,
    *,
    model: Predictor | None = None,
    seconds: float = SECONDS,
    steps: int = STEPS,
    accepted: Collection[int] = (),
    device: str | None = None,
    seed: int = 0,
) -> Generator[Adaptation, None, TorchPredictor]:
    """Adapt a session's model to its stack: fine-tune it on the frames that the user annotated.

    Learned from are painted masks (to the pixel), masks from strokes with the strokes themselves, and with little
    weight propagated masks beside them that nobody had to correct. The session is read in the beginning only, never
    changed, and free for other work; closing the generator leaves nothing behind.

    Where two frames or more are annotated, one of them is kept back at first: if masks carried there are not better
    than before, the model comes back as it was. See `AdaptReport`.

    Parameters
    ----------
    session : Session
        With a stack, and something annotated.
    model : TorchPredictor, optional
        Where to start; the session's own if left out. One that was adapted before has seen all annotated frames, so
        that a test says little: start from `load_model()` again.
    seconds : float
        Time limit.
    steps : int
        Steps of learning, if the time is enough. Then the same session gives the same weights.
    accepted : collection of int
        Frames that are right although nobody annotated them, beside those of `session.accepted`: their masks count as
        if they were annotated.
    device : str, optional
        Where to compute; where the model is, if left out.
    seed : int
        Of all chance.

    Yields
    ------
    Adaptation
        After each step; the last one has the model and the report.

    Returns
    -------
    TorchPredictor
        For `session.use_model`, which keeps it in the project. The one that it started from where it did not help.

    Raises
    ------
    InputError
        No stack, no model of this package, nothing annotated, an accepted frame that is not there, no time.
    FrameReadError, OutOfMemory
        While it runs.

    Examples
    --------
    >>> for progress in ivos.adapt(session):  # doctest: +SKIP
    ...     print(progress.stage, progress.done, progress.total)
    >>> print(progress.report)  # doctest: +SKIP
    >>> session.use_model(progress.model)  # doctest: +SKIP
    """
    from napari_ivos.networks.inference import TorchPredictor, pick_device

    model, stack = session.model if model is None else model, session.stack
    if not isinstance(model, TorchPredictor):
        found = "no model" if model is None else f"the model {model.name!r}"
        raise InputError(f"Adapting needs networks of this package, from load_model(); there is {found}.")
    if stack is None:
        raise InputError("Adapting needs the frames, which were not found: open the project with frames=.")
    if not seconds > 0 or steps < 1:
        raise InputError(f"{steps} steps in {seconds:g} s: give at least one step, and more than 0 s.")
    wrong = sorted(f for f in accepted if f != int(f) or not 0 <= f < session.shape[0])
    if wrong:
        raise InputError(f"There is no frame {wrong[0]} to accept: the stack has frames 0 to {session.shape[0] - 1}.")
    material = Material(session, model, session.accepted.union(accepted))
    where = pick_device(device or model.device)
    run = _Run(model, stack, material, str(where), seconds, steps, np.random.default_rng(seed))
    return run.go()


class _Run:
    """One call of `adapt`."""

    def __init__(
        self,
        model: TorchPredictor,
        stack: Stack,
        material: Material,
        device: str,
        seconds: float,
        steps: int,
        rng: Rng,
    ) -> None:
        self.model, self.stack, self.material, self.device = model, stack, material, device
        self.seconds, self.planned, self.rng = seconds, steps, rng
        self.began = time.monotonic()
        self.loss: float | None = None
        self.steps = 0

    @property
    def spent(self) -> float:
        return time.monotonic() - self.began

    def told(self, stage: Stage) -> Adaptation:
        return Adaptation(stage, self.steps, self.planned, self.spent, self.loss)

    def go(self) -> Generator[Adaptation, None, TorchPredictor]:
        """Read, test, learn, test, learn from all."""
        import torch

        from napari_ivos.adapting.tuning import Tuner, joined

        self.began = time.monotonic()
        self.tuner: Tuner = Tuner(self.model, torch.device(self.device))
        trial, whole = testing.plan(self.material), self.material
        before = after = None
        yield self.told("reading")
        if trial is None:
            yield from self._learn((yield from self._read(whole, OBJECTS_READ)), self.planned, self.seconds)
        else:
            first = yield from self._read(whole.without(trial.frame), round(OBJECTS_READ * HELD_OUT_SHARE))
            rest = yield from self._read(whole, OBJECTS_READ - round(OBJECTS_READ * HELD_OUT_SHARE))
            yield self.told("testing")
            asked = self.spent
            before = testing.score(trial, self.model, self.stack)
            test = RESERVE * (self.spent - asked)
            limit = self.spent + HELD_OUT_SHARE * (self.seconds - self.spent - test)
            yield from self._learn(first, round(self.planned * HELD_OUT_SHARE), limit)
            yield self.told("testing")
            after = testing.score(trial, self._made(), self.stack)
            if after > before:
                both = joined([first[0], rest[0]]), joined([first[1], rest[1]])
                yield from self._learn(both, self.planned, self.seconds)
        kept = before is None or after is None or after > before
        made = self._made() if kept else self.model
        report = self._report(trial, before, after, kept)
        yield Adaptation("done", self.steps, self.planned, self.spent, self.loss, made, report)
        return made

    def _read(self, material: Material, count: int) -> Generator[Adaptation, None, tuple[Prepared, Prepared]]:
        """Looks of both networks at `count` objects drawn by chance."""
        from napari_ivos.adapting.tuning import joined, prepared

        drawn, carried = [], []
        for k in range(count):
            one, other = material.pick(self.rng)
            drawn.append(prepared([one], self.stack, self.model.architecture))
            carried.append(prepared([other], self.stack, self.model.architecture))
            if k % 16 == 15:
                yield self.told("reading")
        return joined(drawn), joined(carried)

    def _learn(self, looks: tuple[Prepared, Prepared], until: int, limit: float) -> Generator[Adaptation, None, None]:
        """Steps up to number `until`, as long as there is time."""
        while self.steps < until and (self.steps == 0 or self.spent < limit):
            self.loss = self.tuner.step(*looks, self.rng)
            self.steps += 1
            yield self.told("adapting")

    def _made(self) -> TorchPredictor:
        name = self.model.name.removesuffix(", adapted") + ", adapted"
        notes = {"adapted_from": self.model.checksum, "adapted_steps": str(self.steps)}
        return self.tuner.model(name, notes)

    def _report(self, trial: Trial | None, before: float | None, after: float | None, kept: bool) -> AdaptReport:
        known = self.material.known
        return AdaptReport(
            len(self.material.annotated),
            len(known),
            len({k.frame for mine in self.material.annotated.values() for k in mine}),
            self.steps,
            self.planned if kept else self.steps,
            self.spent,
            None if trial is None else trial.frame,
            before,
            after,
            kept,
        )


def adapted_model(session: Session, device: str | None = None) -> TorchPredictor | None:
    """The model that was adapted to a session's stack and is kept in its project; None where there is none.

    Parameters
    ----------
    session : Session
    device : str, optional
        As for `load_model`.

    Returns
    -------
    TorchPredictor or None
        For `session.use_model`.

    Raises
    ------
    ProjectError, WeightsError
        The kept weights are damaged, or of an architecture that this version does not know.
    """
    from napari_ivos.networks.weights import load_bytes

    kept = session.adapted
    if kept is None:
        return None
    return load_bytes(session.stored_weights(kept.checksum), kept.name, device, portable=True)
