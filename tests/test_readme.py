"""The front door: what README shows is what runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
sys.path.insert(0, str(TOP / "scripts"))

import carry_figures  # noqa: E402 - from the folder of scripts

README = (TOP / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^(?:<!-- command: (\w+) -->\n)?```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for _, language, code in BLOCKS if language == "python"]
START = (TOP / "docs" / "index.md").read_text(encoding="utf-8")
PYTHON_OF_START = re.findall(r"^```python\n(.*?)^```$", START, re.MULTILINE | re.DOTALL)
COMMANDS = {name: code.strip() for name, _, code in BLOCKS if name}
SHELL = [code for name, language, code in BLOCKS if language == "sh" and not name]


@pytest.fixture
def beside_samples(tmp_path, monkeypatch):
    """A scratch folder that looks like a clone as far as README's examples go."""
    shutil.copytree(TOP / "sample_data", tmp_path / "sample_data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("page", "code"),
    [*(("README.md", code) for code in PYTHON), *(("docs/index.md", code) for code in PYTHON_OF_START)],
    ids=lambda value: value.splitlines()[2][:40] if "\n" in value else value,
)
def test_python_in_the_readme_and_on_the_first_page_runs(page, code, beside_samples, capsys):
    """Each Python block runs as it stands, in a clone, without a warning."""
    exec(compile(code, page, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out
    assert list(beside_samples.glob("*.tif"))


def test_the_python_example_is_short():
    """Ten lines of Python, or a little more, show the whole job, and less on the first page."""
    (code,), (less,) = PYTHON, PYTHON_OF_START
    assert len([line for line in code.splitlines() if line.strip()]) <= 11
    assert len([line for line in less.splitlines() if line.strip()]) <= 6


def test_what_comes_first_stands_first():
    """PyTorch's CPU build is put in before a command brings the other, the environment is on before it is used."""
    index = "--index-url https://download.pytorch.org/whl/cpu"
    for page in (".github/workflows/test.yml", "docs/install.md"):
        assert index in (TOP / page).read_text(encoding="utf-8")
    places = [
        "CPU index first ([how](docs/install.md))",
        "<!-- command: demo -->",
        "<!-- command: tests -->",
        ". .venv/bin/activate",
        "## In Python",
    ]
    assert [README.count(place) for place in places] == [1] * len(places)
    assert sorted(places, key=README.index) == places


def test_what_is_to_be_chosen_in_napari_is_called_so():
    """The sample and the reader that README and the first page name are in the plugin's manifest."""
    manifest = (TOP / "napari.yaml").read_text(encoding="utf-8")
    (sample,) = re.findall(r"File > Open Sample > napari-ivos > ([^`]+)`", START)
    assert f"display_name: {sample}\n" in manifest
    for page in (README, START):
        (reader,) = re.findall(r"by which reader it is to open a video, choose \*([\w-]+)\*", page)
        assert f"\ndisplay_name: {reader}\n" in manifest


@pytest.mark.parametrize("code", SHELL, ids=lambda code: " ".join(code.split()[:2]))
def test_commands_in_the_readme_run(code, beside_samples):
    """Each command line shown runs as it stands, in a clone, and leaves its file."""
    program, *arguments = code.split()
    assert program == "napari-ivos"
    launch = [sys.executable, "-c", "import sys; from napari_ivos.cli import main; sys.exit(main())"]
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (beside_samples / "toy_labels.tif").stat().st_size > 0


@pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a Unix shell")
@pytest.mark.parametrize("name", ["demo", "tests"])
def test_set_up_commands_are_one_line_that_bash_reads(name):
    """Both set-up commands are single lines, so that they can be pasted, in correct shell syntax."""
    assert "\n" not in COMMANDS[name]
    subprocess.run(["bash", "-n", "-c", COMMANDS[name]], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a Unix shell")
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


def test_figures_are_those_of_the_last_measurement():
    """Each figure in README is what `docs/measured` has, rounded to README's digits."""
    assert carry_figures.carried(FIGURES) == FIGURES


def test_a_figure_that_changed_is_carried(tmp_path):
    """Another measurement changes the very figure that README has of it, and nothing else; a lost one is named."""
    shutil.copytree(carry_figures.FOLDER, tmp_path, dirs_exist_ok=True)
    kept = (tmp_path / "video.md").read_text(encoding="utf-8")
    (tmp_path / "video.md").write_text(re.sub(r"(\| camel \| ivos \| )[\d.]+", r"\g<1>0.128", kept), encoding="utf-8")
    changed = [
        (old, new)
        for old, new in zip(FIGURES.splitlines(), carry_figures.carried(FIGURES, tmp_path).splitlines(), strict=True)
        if old != new
    ]
    ((old, new),) = changed
    assert new.startswith("| camel | 0.13 |")
    assert new.split("|")[3:] == old.split("|")[3:]
    (tmp_path / "demo.md").write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="demo has nothing like"):
        carry_figures.carried(FIGURES, tmp_path)


MODELS = TOP / "src" / "napari_ivos" / "networks" / "models"


def test_the_size_of_the_model_is_one_figure():
    """Model card and measurement give the size of the weights in one unit, megabytes of a million bytes."""
    size = f"{(MODELS / 'compact.safetensors').stat().st_size / 1e6:.1f} MB"
    assert f"float16, {size};" in (MODELS / "compact.md").read_text(encoding="utf-8")
    assert f"| compact: file (float16) | {size} |" in (carry_figures.FOLDER / "sizes.md").read_text(encoding="utf-8")


def test_the_model_card_has_the_same_figures():
    """The figures of README and of the model card are one text."""
    card = (MODELS / "compact.md").read_text(encoding="utf-8")
    assert card.split("## Figures\n", 1)[1].split("\n## ", 1)[0].strip() == FIGURES.strip()
