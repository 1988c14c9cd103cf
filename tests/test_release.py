"""What is published: the package page, the citation, the recipes, and the workflows."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from rattler_build import RenderConfig, SingleOutputRecipe, VariantConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from types import ModuleType

TOP = Path(__file__).parent.parent
sys.path.insert(0, str(TOP / "scripts"))

from pages import tutorials  # noqa: E402 - from the folder of scripts

WORKFLOWS = sorted((TOP / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (TOP / "README.md").read_text(encoding="utf-8")
HOME = "https://github.com/someone/napari-ivos"


def load(path: str) -> ModuleType:
    """A module of the repository that is not part of the package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, TOP / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """The build hook that fills the package page."""
    return load("hatch_build.py")


# --- the package page -----------------------------------------------------------------------------------------------


def test_links_of_the_package_page_are_absolute(page):
    """In what is published, every picture and link of README is absolute or within the page."""
    links = re.findall(r"\]\(([^)\s]+)\)", page.absolute(README, HOME, "v1.0.0"))
    assert links
    assert all(link.startswith(("https://", "#")) for link in links)
    assert f"{HOME}/raw/v1.0.0/docs/images/window.webp" in links


@pytest.mark.parametrize(
    ("home", "target", "leads_to"),
    [
        (HOME, "docs/index.md", "https://someone.github.io/napari-ivos/"),
        (HOME, "docs/how/method.md", "https://someone.github.io/napari-ivos/how/method/"),
        (HOME, "examples/README.md", f"{HOME}/blob/v1.0.0/examples/README.md"),
        ("https://git.example.org/a/b", "docs/index.md", "https://git.example.org/a/b/blob/v1.0.0/docs/index.md"),
    ],
)
def test_links_to_the_documentation_lead_to_its_built_pages(page, home, target, leads_to):
    """What is read beside the package leads to the site that the workflow publishes, where there is one."""
    assert page.absolute(f"[words]({target})", home, "v1.0.0") == f"[words]({leads_to})"


def test_what_readme_links_to_is_there():
    """Every relative link of README leads to a file of the repository."""
    links = re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", README)
    assert links
    assert [link for link in links if not (TOP / link).exists()] == []


def test_pictures_of_the_readme_are_small():
    """No picture of README is above 3 MB, so that the page opens at once."""
    pictures = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", README)
    assert all((TOP / picture).stat().st_size < 3_000_000 for picture in pictures)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"GITHUB_REPOSITORY": "someone/napari-ivos"}, HOME),
        ({"GITHUB_REPOSITORY": "a/b", "GITHUB_SERVER_URL": "https://git.example.org"}, "https://git.example.org/a/b"),
        ({}, None),
    ],
    ids=["on GitHub", "on another server", "nowhere"],
)
def test_the_address_is_known_only_where_a_release_is_made(page, environment, expected, tmp_path):
    """The repository's address comes from the build's surroundings; without them nothing is invented."""
    assert page.repository(tmp_path, environment) == expected


@pytest.mark.parametrize(
    ("remote", "name"),
    [
        ("https://github.com/someone/napari-ivos.git", "someone/napari-ivos"),
        ("git@github.com:someone/napari-ivos.git", "someone/napari-ivos"),
        ("https://github.com/someone/napari-ivos/", "someone/napari-ivos"),
        ("/home/me/napari-ivos", None),
        ("https://example.org/someone/napari-ivos", None),
    ],
)
def test_remotes_on_github_give_the_address(page, remote, name):
    """A clone's remote gives the address where it is on GitHub, however it is written."""
    found = page.REMOTE.match(remote)
    assert (found["name"] if found else None) == name


# --- the check before a release ---------------------------------------------------------------------------------------

ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the network is cut on Linux only")


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> ModuleType:
    """The release check where these shell scripts come first on the path."""
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return load("scripts/check_release.py")


@ONLY_LINUX
def test_the_network_is_cut_by_sudo_where_a_user_alone_may_not(tmp_path, monkeypatch):
    """Who may not make namespaces, but has sudo, runs the package without a network and as themselves."""
    check = programs(
        tmp_path,
        monkeypatch,
        sudo='[ "$1" = -n ] || exit 1; shift; AS_ROOT=yes exec "$@"',
        unshare='[ "$1" = -n ] && [ -n "$AS_ROOT" ] || exit 1; shift; exec "$@"',
        setpriv='[ "$1 $2" = "--reuid=$(id -u) --regid=$(id -g)" ] || exit 1; shift 4; exec env -u AS_ROOT "$@"',
    )
    way = check.without_network()
    assert way[0] == "sudo"
    assert check.run(*way, "sh", "-c", "echo ${AS_ROOT:-no root}") == "no root\n"


@ONLY_LINUX
def test_a_release_is_not_made_where_the_network_can_not_be_cut(tmp_path, monkeypatch):
    """Under continuous integration the check fails if it can't run offline; elsewhere it goes on without."""
    check = programs(tmp_path, monkeypatch, sudo="exit 1", unshare="exit 1")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(SystemExit, match="network can't be cut here"):
        check.without_network()
    monkeypatch.delenv("CI")
    assert check.without_network() == []


# --- citation, recipes ------------------------------------------------------------------------------------------------


def test_the_citation_names_the_authors_of_the_method():
    """The citation file prefers the paper of 2019, gives the one of 2018, and has the same four authors in both."""
    citation = yaml.safe_load((TOP / "CITATION.cff").read_text(encoding="utf-8"))
    papers = [citation["preferred-citation"], *citation["references"]]
    assert [paper["year"] for paper in papers] == [2019, 2018]
    for paper in papers:
        assert [author["family-names"] for author in paper["authors"]] == ["Oh", "Lee", "Xu", "Kim"]
        assert paper["title"] in README.replace("\n", " ")
    assert citation["license"] == PROJECT["license"]


RELEASED = re.compile(r"^## \[(\d+(?:\.\d+)+)\] - (\d{4}-\d\d-\d\d)$", re.MULTILINE)


def agree(changelog: str, citation: dict[str, object]) -> bool:
    """Whether the citation file has version and date of the last release; neither before the first one."""
    last = RELEASED.search(changelog)
    expected = (last[1], date.fromisoformat(last[2])) if last else (None, None)
    return (citation.get("version"), citation.get("date-released")) == expected


def test_the_citation_has_version_and_date_of_the_last_release():
    """`version` and `date-released` are those of the changelog's newest release; before the first there are none."""
    citation = yaml.safe_load((TOP / "CITATION.cff").read_text(encoding="utf-8"))
    assert agree((TOP / "CHANGELOG.md").read_text(encoding="utf-8"), citation)


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ("version: 1.2.3\ndate-released: 2030-01-31", True),
        ("version: 1.2.2\ndate-released: 2030-01-31", False),
        ("version: 1.2.3", False),
        ("title: no version", False),
    ],
)
def test_a_citation_that_was_left_behind_is_found(fields, fits):
    """After a release, a citation file with another version, or without one, does not fit the changelog."""
    changelog = "## [Unreleased]\n\n## [1.2.3] - 2030-01-31\n\n- This.\n\n## [1.2.2] - 2029-12-01\n"
    assert agree(changelog, yaml.safe_load(fields)) is fits
    assert not agree("## [Unreleased]\n", {"version": "1.2.3"})


@pytest.mark.skipif(shutil.which("git") is None, reason="versions come from git")
@pytest.mark.parametrize(
    ("tags", "version"),
    [
        ([], r"0\.1\.0\.dev2\+g[0-9a-f]{7,}"),
        (["v1.2.3", "HEAD"], r"1\.2\.3"),
        (["v1.2.3", "HEAD~1"], r"1\.2\.4\.dev1\+g[0-9a-f]{7,}"),
    ],
    ids=["no tag", "the tag", "a commit later"],
)
def test_versions_are_what_the_page_of_the_release_says(tags, version, tmp_path):
    """A tag is its version; other commits have the commit in theirs, so that the package index takes none of them."""

    def git(*words: str) -> None:
        names = ["-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *names, *words], cwd=tmp_path, capture_output=True, check=True)

    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(TOP / name, tmp_path)
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    git("commit", "--allow-empty", "-m", "two")
    if tags:
        git("tag", *tags)
    said = subprocess.run(
        [sys.executable, "-m", "hatchling", "version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(version, said.stdout.strip()), said.stdout


def requirements(lines: list[str]) -> dict[str, str]:
    """Name to lower bound of requirements such as ``zarr>=3`` or ``zarr >=3``."""
    found = [re.match(r"([\w.-]+)(?:\[\w+\])?\s*>=\s*([\w.]+)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> dict[str, Any]:
    """The conda recipe of a source archive, as it is rendered to be built."""
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/napari-ivos")
    archive = tmp_path / "napari_ivos-1.2.3.tar.gz"
    archive.write_bytes(b"archive")
    written = load("scripts/check_release.py").conda_recipe(archive)
    (variant,) = SingleOutputRecipe.from_file(written).render(VariantConfig(), RenderConfig())
    return variant.recipe.to_dict()


def test_the_conda_recipe_is_rendered_for_an_archive(recipe):
    """The recipe that is written beside a source archive can be rendered, and builds that archive, for every system."""
    (source,) = recipe["source"]
    assert source["url"].endswith("/napari_ivos-1.2.3.tar.gz")
    assert source["sha256"] == hashlib.sha256(b"archive").hexdigest()
    assert (recipe["package"]["name"], recipe["package"]["version"]) == ("napari-ivos", "1.2.3")
    assert recipe["build"]["noarch"] == "python"
    (entry,) = PROJECT["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [" = ".join(entry)]
    assert recipe["about"]["homepage"] == HOME
    assert recipe["about"]["license"] == PROJECT["license"]


def test_the_conda_recipe_has_the_same_requirements(recipe):
    """The conda recipe asks for the packages of pyproject.toml with their bounds, by their names there."""
    names = {"dask": "dask-core", "torch": "pytorch", "opencv-python-headless": "py-opencv"}
    wanted = {names.get(name, name): bound for name, bound in requirements(PROJECT["dependencies"]).items()}
    asked = requirements(recipe["requirements"]["run"])
    assert asked.pop("python") == PROJECT["requires-python"].removeprefix(">=")
    assert asked == wanted


def test_the_oldest_versions_are_those_of_the_project():
    """The list of oldest dependencies has every requirement of the base installation."""
    oldest = load("scripts/oldest.py").oldest((TOP / "pyproject.toml").read_text(encoding="utf-8"))
    named = {re.match(r"[\w.-]+", line)[0] for line in oldest}
    assert {re.match(r"[\w.-]+", line)[0] for line in PROJECT["dependencies"]} <= named
    assert "zarr~=3.1.0" in oldest


@pytest.mark.parametrize("path", [*WORKFLOWS, TOP / ".github" / "dependabot.yml"], ids=lambda path: path.name)
def test_workflows_are_yaml_and_call_what_is_there(path):
    """Each workflow can be read, and the scripts that it runs exist."""
    text = path.read_text(encoding="utf-8")
    assert yaml.safe_load(text)
    assert [script for script in re.findall(r"scripts/\w+\.py", text) if not (TOP / script).exists()] == []


@pytest.mark.parametrize(
    ("kind", "paths"),
    [("github-workflows", WORKFLOWS), ("dependabot", [TOP / ".github" / "dependabot.yml"])],
    ids=["workflows", "dependabot"],
)
def test_workflows_are_of_the_published_schema(kind, paths):
    """GitHub's own schema has nothing against the workflows."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{kind}", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_try_each_python_that_is_declared():
    """The test matrix holds the Pythons that the classifiers name."""
    declared = set(re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"])))
    workflow = yaml.safe_load((TOP / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    assert set(workflow["jobs"]["tests"]["strategy"]["matrix"]["python"]) == declared


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_of_others_are_pinned(path):
    """An action that is not GitHub's own is named by the commit, with its version beside it."""
    named = re.findall(r"uses: (?!actions/)(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert [action for action in named if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)+", action)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_a_screen_that_windows_fit_on(path):
    """Jobs that test or make pages install README's packages before, and test on a screen of the tutorials' size."""
    screen = " ".join([*tutorials.SCREEN[:-1], f'"{tutorials.SCREEN[-1]}"'])
    for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
        runs = [step["run"] for step in job["steps"] if "run" in step]
        shown = [k for k, command in enumerate(runs) if re.search("pytest|mkdocs build", command)]
        assert not shown or ".ci/packages" in runs[: shown[0]]
        assert [runs[k] for k in shown if "pytest" in runs[k] and screen not in runs[k]] == []


@pytest.mark.skipif(sys.platform == "win32", reason="the script is for a Unix shell")
def test_packages_of_the_workflows_are_those_of_the_readme(tmp_path):
    """What `.ci/packages` installs are the packages that README's test command does."""
    (cut,) = re.findall(r"^packages=.*$", (TOP / ".ci" / "packages").read_text(encoding="utf-8"), re.MULTILINE)
    found = subprocess.run(
        ["bash", "-c", f"{cut}; echo $packages"], cwd=TOP, capture_output=True, text=True, check=True
    )
    assert f"apt-get install -y {found.stdout.strip()} && python3.11 -m venv" in README
    assert {"xvfb", "xauth", "libegl1"} < set(found.stdout.split())


def averaged(folder: Path, one_run: bool) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Weights and notes of the mean of two models: 10 steps in half an hour, 30 in one and a half."""
    paths = []
    for steps, hours, value in (("30", "1.50", 3.0), ("10", "0.50", 1.0)):
        paths.append(folder / f"{steps}.safetensors")
        notes = {"architecture": '{"size": 64}', "steps": steps, "hours": hours, "name": "part"}
        save_file({"weight": torch.full((2,), value, dtype=torch.float16)}, paths[-1], notes)
    made = folder / "mean.safetensors"
    made.write_bytes(load("scripts/average.py").average(paths, "mean", one_run))
    with safe_open(made, "pt") as file:
        return load_file(made), dict(file.metadata())


@pytest.mark.parametrize(("one_run", "steps", "hours"), [(True, "30", 1.5), (False, "10 and 30", 2.0)])
def test_a_mean_of_models_says_what_was_trained(tmp_path, one_run, steps, hours):
    """Weights are the mean; of states of one run the longest counts, of several runs all do."""
    weights, notes = averaged(tmp_path, one_run)
    assert weights["weight"].dtype == torch.float16
    assert weights["weight"].tolist() == [2.0, 2.0]
    assert (notes["steps"], float(notes["hours"]), notes["name"]) == (steps, hours, "mean")
