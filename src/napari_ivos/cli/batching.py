"""``batch``: a manifest of stacks, on workers of this machine or of a cluster."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_ivos.batch import BatchInterrupted, Progress, look_ahead, read_manifest, run_batch
from napari_ivos.cli.output import Interrupted
from napari_ivos.errors import InputError
from napari_ivos.wording import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from napari_ivos.batch import Outlook, Summary
    from napari_ivos.cli.output import Output

PATIENCE = "15s"
"""How long a scheduler may take to answer."""


def batch(options: argparse.Namespace, output: Output) -> Summary:
    """Run a batch as the arguments say.

    Raises
    ------
    IvosError
        The manifest or the model can't be used, or the cluster is gone.
    Interrupted
        The user stopped it.
    """
    manifest = read_manifest(options.manifest, options.output)
    output.note(f"{counted(len(manifest.entries), 'stack')}; results go to {manifest.output}")
    with _client(options.scheduler) as client, output.progress("batch", len(manifest.entries), "stack") as show:
        stopping: list[str] = []

        def told(now: Progress) -> None:
            show(now.finished + now.failed, f"{now.frames} of up to {now.planned} frames" if now.planned else "")
            if now.last is not None and now.last.state == "failed":
                output.note(f"{now.last.name} failed: {now.last.error}")
            if now.stopping and not stopping:
                stopping.append(
                    "Stopping: the frames that the workers have in hand are waited for. Ctrl-C again does not wait."
                )
                output.note(stopping[0])

        try:
            return run_batch(
                manifest,
                client,
                model=options.model,
                device=options.device,
                workers=options.workers,
                overwrite=options.overwrite,
                progress=told,
                started=lambda link: output.note(f"dashboard: {link}"),
            )
        except BatchInterrupted as stop:
            raise Interrupted(
                f"Stopped. {stop.summary.line()} What is done is kept in {manifest.output}; the same command again "
                "goes on.",
                stop.summary.as_dict(),
            ) from stop


def dry_run(options: argparse.Namespace, output: Output) -> Outlook:
    """Look at every stack of a batch, and do nothing.

    Raises
    ------
    IvosError
        The manifest or the model can't be used.
    """
    manifest = read_manifest(options.manifest, options.output)
    with output.progress("looking", len(manifest.entries), "stack") as show:
        return look_ahead(
            manifest, model=options.model, overwrite=options.overwrite, progress=lambda done, _: show(done)
        )


@contextmanager
def _client(address: str | None) -> Iterator[Any]:
    """A client of the scheduler at an address; None: workers of this machine, which `run_batch` starts."""
    if address is None:
        yield None
        return
    from napari_ivos.cli.commands import need_packages

    need_packages({"distributed": "distributed"}, "distributed")
    from distributed import Client

    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise InputError(
            f"No scheduler answers at {address} ({error}). Start one with `dask scheduler`, or use --workers N."
        ) from error
    with client:
        yield client
