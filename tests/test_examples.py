"""Examples: each runs as it stands, in a folder that looks like a clone."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
EXAMPLES = TOP / "examples"
WINDOW = "in_napari.py"
CLUSTERS = {"cluster_ssh.py", "cluster_slurm.py"}
"""Run by `test_clusters`, where there are such clusters."""
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name not in {WINDOW, *CLUSTERS})


@pytest.fixture
def beside_samples(tmp_path, monkeypatch):
    """A scratch folder that holds the samples."""
    shutil.copytree(TOP / "sample_data", tmp_path / "sample_data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", PROGRAMS)
def test_examples_run(name, beside_samples, capsys):
    """Each program runs to its end without a warning and says what it found."""
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    said = capsys.readouterr().out
    assert said
    assert "Error" not in said


def test_the_example_in_the_window_runs(beside_samples):
    """The example that opens the window draws, propagates and hands over to the user."""
    code = (
        "import napari, runpy, sys; napari.run = lambda: napari.current_viewer().close();"
        "runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(EXAMPLES / WINDOW)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "NAPARI_CONFIG": str(beside_samples / "settings.yaml")},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "1 object; look at frame" in done.stdout


def test_the_notebook_runs(beside_samples):
    """The notebook runs from top to bottom, and is kept without outputs."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / "measure.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [cell for cell in code if cell.outputs or cell.execution_count]
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(beside_samples))
    assert (beside_samples / "cells_measured.csv").stat().st_size > 10_000


def test_the_list_of_examples_is_whole():
    """The examples' README has a line for each of them."""
    said = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    there = {path.name for path in EXAMPLES.iterdir() if path.suffix in {".py", ".ipynb"}}
    assert {name for name in there if f"`{name}`" not in said} == set()
