"""The front door: what README shows is what runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^(?:<!-- command: (\w+) -->\n)?```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for _, language, code in BLOCKS if language == "python"]
COMMANDS = {name: code.strip() for name, _, code in BLOCKS if name}
SHELL = [code for name, language, code in BLOCKS if language == "sh" and not name]


@pytest.fixture
def beside_samples(tmp_path, monkeypatch):
    """A scratch folder that looks like a clone as far as README's examples go."""
    shutil.copytree(TOP / "sample_data", tmp_path / "sample_data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.splitlines()[2][:40])
def test_python_in_the_readme_runs(code, beside_samples, capsys):
    """Each Python block runs as it stands, in a clone, without a warning."""
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out
    assert list(beside_samples.glob("*.tif"))


def test_the_python_example_is_short():
    """Ten lines of Python, or a little more, show the whole job."""
    (code,) = PYTHON
    assert len([line for line in code.splitlines() if line.strip()]) <= 11


@pytest.mark.parametrize("code", SHELL, ids=lambda code: " ".join(code.split()[:2]))
def test_commands_in_the_readme_run(code, beside_samples):
    """Each command line shown runs as it stands, in a clone, and leaves its file."""
    program, *arguments = code.split()
    assert program == "napari-ivos"
    launch = [sys.executable, "-c", "import sys; from napari_ivos.cli import main; sys.exit(main())"]
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (beside_samples / "toy_labels.tif").stat().st_size > 0


@pytest.mark.parametrize("name", ["demo", "tests"])
def test_set_up_commands_are_one_line_that_bash_reads(name):
    """Both set-up commands are single lines, so that they can be pasted, in correct shell syntax."""
    assert "\n" not in COMMANDS[name]
    subprocess.run(["bash", "-n", "-c", COMMANDS[name]], check=True)


def test_ci_runs_the_test_command_of_the_readme(tmp_path):
    """What `.ci/run` cuts out of README is the test command, to the letter."""
    script = (TOP / ".ci" / "run").read_text()
    (cut,) = re.findall(r"^tests=.*$", script, re.MULTILINE)
    shown = subprocess.run(
        ["bash", "-c", f'{cut}; printf %s "$tests"'], cwd=TOP, capture_output=True, text=True, check=True
    )
    assert shown.stdout == COMMANDS["tests"]


@pytest.mark.parametrize("path", re.findall(r"`((?:sample_data/\S+|[A-Z]+)\.\w+)`", README))
def test_files_that_the_readme_names_are_there(path):
    """Files named in the text exist."""
    assert (TOP / path).is_file()


FIGURES = README.split("<!-- figures: begin -->", 1)[1].split("<!-- figures: end -->", 1)[0]
MEASURED = [
    ("interaction", r"mask shown: median \| (\d+) ms", r"first strokes to mask, one core \| (\d+) ms"),
    ("frame-size", r"1,000 x 1,000 px, a frame \(median\) \| ([\d.]+) ms", r"object and frame, one core \| (\d+) ms"),
    ("frame-size", r"in 20,000 x 20,000 px \| ([\d.]+) ms", r"in frames of 20,000 x 20,000 px \| (\d+) ms"),
    ("film", r"one thread \| ([\d.]+) ms", r"film of 480p, a frame, one core; two \| (\d+) ms"),
    ("film", r"threads, one a core \| ([\d.]+) ms", r"film of 480p, .* \| \d+ ms; (\d+) ms"),
    ("scaling", r"1,000 over one at 16: ([\d.]+)", r"over one among 16, time \| ([\d.]+) times"),
    ("scaling", r"\| 1,000 \| [\d.]+ \| [\d.]+ \| [\d.]+ \| ([\d.]+) ", r"with 1,000 objects \| ([\d.]+) s"),
    ("memory", r"growth .* \| (\d+) MB", r"growth of memory .* \| (\d+) MB"),
    ("sparse", r"open 100 GB zarr \| ([\d.]+) s", r"opening a 100 GB zarr; memory then \| ([\d.]+) s"),
    ("sparse", r"memory then \| (\d+) MB", r"opening a 100 GB zarr; memory then \| [\d.]+ s; (\d+) MB"),
    ("sizes", r"resnet50 over compact \| ([\d.]+)", r"over `compact`, time \| (\d+) times"),
    ("newcomer", r"its mask is there +([\d.]+) s", r"from starting napari .* \| ([\d.]+) s"),
    ("newcomer", r"all 48 frames have it +([\d.]+) s", r"from starting napari .* s; ([\d.]+) s"),
    ("window", r"dock opens in +([\d.]+) s", r"opening the panel in napari \| ([\d.]+) s"),
    ("window", r"others: median +(\d+) ms", r"mouse release to mask there, 480p \(median\) \| (\d+) ms"),
    ("window", r"of the engine alone +([\d.]+)", r"over the engine alone \| ([\d.]+)"),
    ("window", r"([\d.]+) % under 50", r"under 50 ms \| ([\d.]+) %"),
    ("demo", r"cells \(simulated\) \| ([\d.]+)", r"cells ([\d.]+), toy"),
    ("demo", r"toy \(simulated\) \| ([\d.]+)", r"toy ([\d.]+)\."),
    ("import", r"import napari_ivos, .* \| ([\d.]+) s", r"`import napari_ivos` \| ([\d.]+) s"),
]


@pytest.mark.parametrize(("part", "there", "here"), MEASURED, ids=[f"{m[0]}-{i}" for i, m in enumerate(MEASURED)])
def test_figures_are_those_of_the_last_measurement(part, there, here):
    """Each time and size in README is what `docs/measured` has, rounded to README's digits."""
    measured = re.search(there, (TOP / "docs" / "measured" / f"{part}.md").read_text(encoding="utf-8"))[1]
    shown = re.search(here, FIGURES)[1]
    digits = len(shown.partition(".")[2])
    assert abs(float(measured) - float(shown)) <= 0.5 * 10.0**-digits + 1e-9


def test_the_model_card_has_the_same_figures():
    """The figures of README and of the model card are one text."""
    card = (TOP / "src" / "napari_ivos" / "networks" / "models" / "compact.md").read_text(encoding="utf-8")
    assert card.split("## Figures\n", 1)[1].split("\n## ", 1)[0].strip() == FIGURES.strip()
