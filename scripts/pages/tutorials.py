"""Tutorials: Python scripts that run as they stand and become pages with what they printed and drew.

A picture that the words name, ``![what it shows](cells.png)``, is one that the script left in its working folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pages.cells import Cell, read

TOP = Path(__file__).parent.parent.parent
RUNNER = Path(__file__).parent / "cells.py"
KEPT = TOP / ".cache" / "tutorials"
PICTURE = re.compile(r"!\[[^\]]*\]\(([\w.-]+\.(?:png|webp|svg))\)")
SCREEN = ["xvfb-run", "-a", "-s", "-screen 0 1500x1000x24"]
LIMIT = 900
"""Seconds after which a tutorial counts as hung; on a quiet machine each takes under a minute."""


@dataclass(frozen=True)
class Page:
    """A tutorial as a page: Markdown, and the files of its pictures by name."""

    markdown: str
    pictures: dict[str, Path]


def page(script: Path) -> Page:
    """Run a tutorial (or take what it gave the last time, where nothing has changed since) and make its page.

    Raises
    ------
    RuntimeError
        It fails, or doesn't leave a picture that its words show; the message has its last lines.
    """
    cells = read(script)
    folder = KEPT / f"{script.stem}-{_fingerprint(script)}"
    if not (folder / "printed.json").exists():
        _run(script, folder)
    printed = json.loads((folder / "printed.json").read_text(encoding="utf-8"))
    wanted = [name for cell in cells if cell.kind == "text" for name in PICTURE.findall(cell.body)]
    missing = [name for name in wanted if not (folder / name).exists()]
    if missing:
        raise RuntimeError(f"{script.name} shows {', '.join(missing)}, but its run left no such picture.")
    return Page(_markdown(script, cells, printed), {name: folder / name for name in wanted})


def _fingerprint(script: Path) -> str:
    """Of everything that decides what a tutorial gives: itself, the package with its weights, the samples."""
    seen = hashlib.sha256()
    package = TOP / "src" / "napari_ivos"
    files = [p for p in package.rglob("*") if p.is_file() and p.suffix in {".py", ".safetensors", ".yaml"}]
    for path in [script, RUNNER, *sorted(files), *sorted((TOP / "sample_data").iterdir())]:
        seen.update(path.name.encode() + path.read_bytes())
    return seen.hexdigest()[:16]


def _run(script: Path, folder: Path) -> None:
    """Run a tutorial in a scratch folder that looks like a clone, and keep what it left of text and pictures."""
    screen = SCREEN if sys.platform == "linux" and not os.environ.get("DISPLAY") and shutil.which(SCREEN[0]) else []
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(TOP / "sample_data", Path(scratch) / "sample_data")
        process = subprocess.Popen(
            [*screen, sys.executable, str(RUNNER), str(script.resolve()), "printed.json"],
            cwd=scratch,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        said = _wait(process, script)
        if process.returncode:
            raise RuntimeError(f"{script.name} failed:\n{said[-6000:]}")
        for old in KEPT.glob(f"{script.stem}-*"):
            shutil.rmtree(old)
        folder.mkdir(parents=True)
        for left in Path(scratch).iterdir():
            if left.suffix in {".png", ".webp", ".svg", ".json"}:
                shutil.copy(left, folder)


def _wait(process: subprocess.Popen[str], script: Path) -> str:
    """What a run says until it ends; one that hangs is ended with everything that it started."""
    try:
        return process.communicate(timeout=LIMIT)[0]
    except subprocess.TimeoutExpired as error:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        said = process.communicate()[0]
        raise RuntimeError(f"{script.name} took more than {LIMIT} s:\n{said[-4000:]}") from error


def _markdown(script: Path, cells: list[Cell], printed: list[str]) -> str:
    parts = []
    for cell, said in zip(cells, printed, strict=True):
        if cell.kind == "text":
            parts.append(cell.body)
            continue
        shown = f"```python\n{cell.body}\n```"
        if said.strip():
            shown += f'\n\n```{{.text .no-copy title="prints"}}\n{said.rstrip()}\n```'
        parts.append(_folded(cell.title, shown) if cell.kind == "folded" else shown)
    where = script.resolve().relative_to(TOP).as_posix()
    parts.append(f"---\n\nThis page is the script `{where}`: it ran as it stands, and made the pictures above.")
    return "\n\n".join(parts) + "\n"


def _folded(title: str, shown: str) -> str:
    inside = "\n".join(f"    {line}" if line else "" for line in shown.splitlines())
    return f'??? example "{title or "The code"}"\n\n{inside}'
