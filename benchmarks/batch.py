"""What a batch costs beside its networks: efficiency of two workers against one, bytes read, rows written.

``python benchmarks/batch.py efficiency`` runs the same simulated stacks on one worker and on two, in turn, with the
shipped model; ``... bytes`` counts what is read of chunked stacks against what is needed; ``... rows`` measures what
comes back from workers, and what it costs to plan and write it. Prints JSON; bytes also as a table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import napari_ivos as ivos
from napari_ivos.batch import Summary, local_cluster
from napari_ivos.scribbles import read_davis
from napari_ivos.session.parcels import carry_out, sharing

if TYPE_CHECKING:
    from napari_ivos.regions import Box

GREY, COLOURS = 60, ((210, 40, 40), (40, 200, 50))


def make_stacks(folder: Path, count: int, frames: int) -> Path:
    """Stacks of two squares that move, with a stroke on each on the first frame; the manifest's path."""
    rows = []
    for k in range(count):
        video = np.full((frames, 256, 256, 3), GREY, np.uint8)
        lines = []
        for i, colour in enumerate(COLOURS):
            for t in range(frames):
                y, x = 40 + 110 * i, 20 + 5 * t
                video[t, y : y + 40, x : x + 40] = colour
            path = [[30 / 255, (60 + 110 * i) / 255], [50 / 255, (60 + 110 * i) / 255]]
            lines.append({"path": path, "object_id": i + 1, "start_time": 0, "end_time": 1})
        np.save(folder / f"s{k}.npy", video)
        scribbles = {"sequence": f"s{k}", "scribbles": [lines, *[[] for _ in range(frames - 1)]]}
        (folder / f"s{k}.json").write_text(json.dumps(scribbles))
        rows.append({"input": f"s{k}.npy", "scribbles": f"s{k}.json", "axes": "TYXC", "format": "ome-tiff"})
    manifest = folder / "all.json"
    manifest.write_text(json.dumps(rows))
    return manifest


def _cpu() -> float:
    return time.process_time()


def timed(manifest: Path, client: Any, output: Path) -> dict[str, float]:
    """Wall time of a batch, and the processor time of its workers and of the writer."""
    before, own = sum(client.run(_cpu).values()), time.process_time()
    began = time.perf_counter()
    summary: Summary = ivos.run_batch(manifest, client, output=output)
    wall = time.perf_counter() - began
    if not summary.complete:
        raise SystemExit(summary.as_text())
    masks = sum(s.masks for s in summary.stacks)
    return {
        "wall_s": wall,
        "masks": masks,
        "masks_per_s": masks / wall,
        "workers_cpu_s": sum(client.run(_cpu).values()) - before,
        "writer_cpu_s": time.process_time() - own,
    }


def efficiency(stacks: int, frames: int, repeats: int) -> dict[str, Any]:
    """Rate at two workers over twice the rate at one: by the clock, and by processor time."""
    runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name, local_cluster(1) as one, local_cluster(2) as two:
        folder = Path(name)
        manifest = make_stacks(folder, stacks, frames)
        clients = {1: one, 2: two}
        for count, client in clients.items():  # workers load torch and the model
            timed(make_stacks(_made(folder / f"warm{count}"), 2 * count, 4), client, folder / f"w{count}")
        for k in range(repeats):
            for count, client in clients.items():
                runs[count].append(timed(manifest, client, folder / f"r{k}-{count}"))
    rate = {n: statistics.median(r["masks_per_s"] for r in found) for n, found in runs.items()}
    cost = {n: statistics.median(r["workers_cpu_s"] / r["masks"] for r in found) for n, found in runs.items()}
    return {
        "runs": runs,
        "masks_per_s": rate,
        "efficiency_by_clock": rate[2] / (2 * rate[1]),
        "cpu_s_per_mask": cost,
        "efficiency_by_processor": cost[1] / cost[2],
        "writer_cpu_share": statistics.median(r["writer_cpu_s"] / r["workers_cpu_s"] for r in runs[2]),
        "load": os.getloadavg(),
        "cores": os.cpu_count(),
    }


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


# -- bytes


class Counted:
    """Counts what is read of a zarr folder, and what of it the networks saw."""

    def __init__(self) -> None:
        self.read = 0
        self.chunks: dict[str, int] = {}
        self.pixels = 0

    def __enter__(self) -> Counted:
        from zarr.storage import LocalStore

        from napari_ivos.frames import FrameStack

        self._store, self._get, self._stack, self._seen = LocalStore, LocalStore.get, FrameStack, FrameStack.read
        get, read = self._get, self._seen

        async def counted(store: Any, key: str, *arguments: Any, **options: Any) -> Any:
            found = await get(store, key, *arguments, **options)
            if found is not None and "/c/" in f"/{key}":
                self.read += len(found)
                self.chunks[key] = len(found)
            return found

        def seen(stack: Any, frame: int, box: Box | None = None) -> Any:
            if box is not None:
                self.pixels += box.height * box.width * stack.dtype.itemsize * len(stack.channels)
            return read(stack, frame, box)

        LocalStore.get = counted  # type: ignore[method-assign,assignment]
        FrameStack.read = seen  # type: ignore[method-assign,assignment]
        return self

    def __exit__(self, *error: object) -> None:
        self._store.get = self._get  # type: ignore[method-assign]
        self._stack.read = self._seen  # type: ignore[method-assign]


def chunked(folder: Path, frames: int, side: int, chunks: tuple[int, int, int]) -> None:
    """A stack of two bright squares in a zarr array of these chunks, uncompressed, with strokes."""
    import zarr

    array = zarr.create_array(
        folder / "s.zarr", shape=(frames, side, side), chunks=chunks, dtype="uint16", compressors=None
    )
    rng = np.random.default_rng(0)
    for low in range(0, frames, chunks[0]):
        part = rng.integers(90, 110, (min(chunks[0], frames - low), side, side), dtype=np.uint16)
        for t in range(len(part)):
            for i in range(2):
                y, x = side // 4 + i * side // 2, side // 4 + 3 * (low + t)
                part[t, y : y + 60, x : x + 60] = 900
        array[low : low + len(part)] = part
    start = frames // 2
    lines = []
    for i in range(2):
        y, x = side // 4 + i * side // 2 + 30, side // 4 + 3 * start
        path = [[(x + across) / (side - 1), y / (side - 1)] for across in (10, 50)]
        lines.append({"path": path, "object_id": i + 1, "start_time": 0, "end_time": 1})
    scribbles = {"sequence": "s", "scribbles": [lines if t == start else [] for t in range(frames)]}
    (folder / "s.json").write_text(json.dumps(scribbles))


class _Follows(ivos.FakePredictor):
    """Reads what the shipped networks read: the neighbouring frame as well, to see the motion."""

    follows_motion = True


def _carried_out(folder: Path, workers: int, frames: int) -> None:
    """The work of a batch in this process, parcel by parcel, each part with a stack of its own as on a worker."""
    model = _Follows()
    options: dict[str, Any] = {"axes": "TYX", "contrast": (90, 900)}
    stacks = [ivos.open_frames(folder / "s.zarr", **options) for _ in range(workers)]
    with ivos.Session(stacks[0], model) as session, sharing(session) as shared:
        for scribbles in read_davis(folder / "s.json", session.shape):
            shared.draw(scribbles)
        for parcel in shared.strokes():
            shared.keep(carry_out(parcel, stacks[0], model))
        shared.plan()
        for place, part in enumerate(shared.parts()):
            references = shared.references(part)
            while (lot := shared.next(part, frames)) is not None:
                for each in lot.parcels:
                    lot.receive(each, carry_out(each, stacks[place % workers], model, references))
                shared.settle(part, lot)
    for stack in stacks:
        stack.close()


def bytes_read(frames: int, side: int) -> list[dict[str, Any]]:
    """Of stacks in chunks of several shapes: bytes read, bytes of the chunks that are needed, bytes that were seen."""
    found = []
    for chunks in ((1, 128, 128), (8, 128, 128), (1, side, side), (16, 64, 64)):
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as name, Counted() as counted:
                chunked(Path(name), frames, side, chunks)
                counted.read, counted.chunks, counted.pixels = 0, {}, 0
                _carried_out(Path(name), workers, 8)
            needed = sum(counted.chunks.values())
            found.append(
                {
                    "chunks": chunks,
                    "workers": workers,
                    "stack_MB": frames * side * side * 2 / 1e6,
                    "read_MB": counted.read / 1e6,
                    "needed_MB": needed / 1e6,
                    "seen_MB": counted.pixels / 1e6,
                    "read_over_needed": counted.read / needed,
                }
            )
            sys.stderr.write(json.dumps(found[-1]) + "\n")
    return found


# -- rows


def rows(frames: int) -> dict[str, Any]:
    """Of both samples: bytes of a mask and of an object's references, and what the one who writes spends on a mask."""
    model = ivos.load_model(device="cpu")
    found = {}
    for name in ("cells", "toy"):
        start = read_davis(f"sample_data/{name}_scribbles.json", ivos.open_frames(f"sample_data/{name}.tif").shape)
        with tempfile.TemporaryDirectory() as folder:
            stack = ivos.open_frames(f"sample_data/{name}.tif")
            with ivos.Session(stack, model, Path(folder) / "p.ivos") as session, sharing(session) as shared:
                for scribbles in start:
                    shared.draw(scribbles)
                for parcel in shared.strokes():
                    shared.keep(carry_out(parcel, stack, model))
                shared.plan()
                found[name] = _written(shared, stack, model, frames)
    return found


def _written(shared: Any, stack: Any, model: Any, frames: int) -> dict[str, float]:
    """Propagate some frames parcel by parcel; what came back, and what it took to plan and to write it."""
    sizes: list[int] = []
    learned = spent = 0.0
    parts = shared.parts()
    for part in parts:
        references = shared.references(part)
        learned += _bytes(references["learned"]) / len({track.object_id for track in part.tracks})
        for _ in range(frames // 4):
            began = time.process_time()
            lot = shared.next(part, 4)
            spent += time.process_time() - began
            if lot is None:
                break
            for parcel in lot.parcels:
                yielded = carry_out(parcel, stack, model, references)
                sizes += [_bytes([row]) for row in yielded.rows["patches"]]
                began = time.process_time()
                lot.receive(parcel, yielded)
                spent += time.process_time() - began
            began = time.process_time()
            shared.settle(part, lot)
            spent += time.process_time() - began
    return {
        "masks": len(sizes),
        "mask_kB": statistics.mean(sizes) / 1e3,
        "references_an_object_kB": learned / len(parts) / 1e3,
        "planned_and_written_ms_a_mask": 1e3 * spent / len(sizes),
    }


def _bytes(found: Any) -> int:
    return sum(len(value) for row in found for value in row if isinstance(value, bytes))


def table(found: list[dict[str, Any]]) -> str:
    """What was read of each chunk shape, in Markdown."""
    lines = [
        "| chunks (T, Y, X) | looked at | touched | read, one worker | read, two workers |",
        "|---|---|---|---|---|",
    ]
    for one, two in zip(found[::2], found[1::2], strict=True):
        shape = " x ".join(f"{n:,}" for n in one["chunks"])
        read = [f"{r['read_MB']:.1f} MB, {r['read_over_needed']:.2f} times" for r in (one, two)]
        lines.append(f"| {shape} | {one['seen_MB']:.1f} MB | {one['needed_MB']:.1f} MB | {read[0]} | {read[1]} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what the argument names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("efficiency", "bytes", "rows"))
    parser.add_argument("--stacks", type=int, default=6)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="bytes in Markdown instead of JSON")
    given = parser.parse_args()
    figures: Any
    if given.what == "efficiency":
        figures = efficiency(given.stacks, given.frames, given.repeats)
    elif given.what == "rows":
        figures = rows(given.frames)
    else:
        figures = bytes_read(32, 1024)
    if given.table and given.what == "bytes":
        sys.stdout.write(table(figures) + "\n")
    else:
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
