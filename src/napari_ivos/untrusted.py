"""What a file from a stranger may not do, whatever its format: exhaust the interpreter's stack, or the memory.

Pure limits, no format: readers ask here before they parse or make something of a size that a file declares, and all who
share out work ask what this process may use.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

from napari_ivos.errors import OutOfMemory

CHUNK_BYTES = 1 << 30
"""A part of a file that can only be unpacked whole (a chunk, strip, tile or picture) may become at most so large."""
CHUNKS_ON_AXIS = 1 << 24
"""Chunks along one axis at most: a table of their borders is kept."""
TEXT_BYTES = 256 << 20
"""A file of text is read up to this size."""
_UNKNOWN_MACHINE = 8 << 30


def parse_json(text: str | bytes) -> Any:
    """Read JSON; every way in which it can be wrong is a ValueError.

    Raises
    ------
    ValueError
        Not JSON, text that is not UTF-8, a number of too many digits, or nesting beyond the interpreter's stack.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def check_text_size(path: Path) -> None:
    """ValueError for a text file that is too large to be read whole."""
    size = path.stat().st_size
    if size > TEXT_BYTES:
        raise ValueError(f"it has {size:,} bytes; at most {TEXT_BYTES:,} are read")


def cores() -> int:
    """Cores that this process may use: a job of a cluster has fewer than its machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def memory() -> int:
    """Bytes of memory that this process can have: the machine's, or less where one of its groups is limited."""
    return min([_machine(), *_group_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _group_limits(groups: Path, root: Path) -> list[int]:
    """Limits of a process's control groups and of those around them: a container's, a job's of a cluster."""
    limits: list[int] = []
    lines = groups.read_text(encoding="utf-8", errors="replace").splitlines() if groups.is_file() else []
    for line in ["0::/", *lines]:
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        for place in (p for p in (top / path.lstrip("/") / name).parents if p.is_relative_to(top)):
            file = place / name
            text = file.read_text(encoding="ascii").strip() if file.is_file() else ""
            limits += [int(text)] if text.isdigit() else []  # "max" where there is none
    return limits


def _machine() -> int:
    if sys.platform == "win32":
        import ctypes

        kilobytes = ctypes.c_ulonglong(0)
        found = ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes))
        return int(kilobytes.value) << 10 if found else _UNKNOWN_MACHINE
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return _UNKNOWN_MACHINE


def check_room(size: int, what: str) -> None:
    """Refuse to make something that takes more than half of the memory at once.

    Raises
    ------
    OutOfMemory
        Names both numbers.
    """
    most = memory() // 2
    if size > most:
        raise OutOfMemory(
            f"{what} needs {size / 2**30:,.1f} GB at once; on this machine at most {most / 2**30:,.1f} GB are taken. "
            "Ask for a smaller region or fewer frames."
        )
