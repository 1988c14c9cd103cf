"""Several processes that make every step together: each its part of the clips, all with the mean of their gradients.

On a GPU the networks wait for what a step does on the CPU: clips, scribbles, motion. Processes share that work, and
share the GPU (or the GPUs, where there are several). They begin with the same weights and take the same steps.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_ivos.errors import IvosError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from multiprocessing.process import BaseProcess
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Barrier

PATIENCE = timedelta(minutes=15)
"""How long a process waits for the others: one of them validates and writes checkpoints meanwhile."""

GOODBYE = 30.0
"""Seconds that the others have to end after the last step."""


@dataclass(frozen=True)
class Share:
    """A process's part in a run.

    Attributes
    ----------
    rank : int
        Which of the processes it is; the first, 0, also validates, logs and saves.
    of : int
        How many there are.
    """

    rank: int = 0
    of: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def part(self, count: int) -> range:
        """Its part of `count` things, which `of` divides."""
        each = count // self.of
        return range(self.rank * each, (self.rank + 1) * each)

    def device(self, name: str) -> torch.device:
        """The device that this process uses: with several GPUs, and none named by number, each process the next."""
        device = torch.device(name)
        if device.type == "cuda" and device.index is None and torch.cuda.is_available():
            return torch.device("cuda", self.rank % torch.cuda.device_count())
        return device

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[torch.nn.Parameter], note: float = 0.0) -> float:
        """Replace gradients by their means over all processes; one that some process lacks counts as 0 there.

        Returns
        -------
        float
            The first process's `note`, rounded to float32, in all processes.
        """
        noted = torch.tensor([note if self.first else 0.0])
        if self.of == 1:
            return float(noted)
        import torch.distributed as together

        own = list(parameters)
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).float() for p in own]).cpu()
        flat = torch.cat([flat, noted])
        together.all_reduce(flat)
        means = (flat[:-1] / self.of).to(own[0].device)
        for p, part in zip(own, torch.split(means, [p.numel() for p in own]), strict=True):
            p.grad = _like(part, p)
        return float(flat[-1])


def _like(values: Tensor, p: Tensor) -> Tensor:
    """Values as they were laid out by `reshape(-1)`, in the shape and memory format of a parameter."""
    out = torch.empty_like(p)
    out.copy_(values.view(p.shape))
    return out


@contextmanager
def sharing(processes: int, work: Callable[[Share], None]) -> Iterator[Share]:
    """Start the other processes, which do `work` with their share, and be the first of them within the context.

    Parameters
    ----------
    processes : int
        How many there are in all; with 1 nothing is started.
    work : callable
        What the others do, a function that can be pickled; it ends when they have made as many steps as the first.

    Raises
    ------
    IvosError
        What ended one of the others, in its own words.
    """
    if processes == 1:
        yield Share()
        return
    import torch.distributed as together
    import torch.multiprocessing as multiprocessing

    context = multiprocessing.get_context("spawn")
    troubles: SimpleQueue[IvosError] = context.SimpleQueue()
    started = context.Barrier(processes)
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder, "meeting").as_uri()
        others = [
            context.Process(target=_other, args=(Share(rank, processes), started, meeting, work, troubles))
            for rank in range(1, processes)
        ]
        for process in others:
            process.start()
        try:
            _await(others, started)
            _meet(Share(0, processes), meeting)
            yield Share(0, processes)
            for process in others:
                process.join(GOODBYE)
        except RuntimeError as error:  # a process that is gone
            if not troubles.empty():
                raise troubles.get() from error
            raise
        finally:
            for process in others:
                process.kill()
                process.join()
            if together.is_initialized():
                together.destroy_process_group()


def _await(others: Sequence[BaseProcess], started: Barrier) -> None:
    """Wait until all processes have started, or one has died at that."""
    while started.n_waiting < len(others):
        for process in others:
            process.join(0.05)
            if process.exitcode is not None:
                raise RuntimeError(f"A training process ended with code {process.exitcode} before it had begun.")
    started.wait()


def _meet(share: Share, meeting: str) -> None:
    """Join the others, on this machine only: nothing listens on the network."""
    import torch.distributed as together

    if sys.platform != "win32":  # whose loopback has no such name
        os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    together.init_process_group("gloo", init_method=meeting, rank=share.rank, world_size=share.of, timeout=PATIENCE)


def _other(share: Share, started: Barrier, meeting: str, work: Callable[[Share], None], troubles: Any) -> None:
    """What a process other than the first runs; it heeds no Ctrl-C, because the first ends it."""
    import signal

    import torch.distributed as together

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    started.wait()
    _meet(share, meeting)
    try:
        work(share)
    except IvosError as error:
        troubles.put(error)
    finally:
        together.destroy_process_group()
