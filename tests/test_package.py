"""The house: what importing loads, what is public, what wheel, source archive and editable install hold."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import build
import pytest
from pyproject_hooks import quiet_subprocess_runner

import napari_ivos

TOP = Path(__file__).parent.parent
SOURCE = TOP / "src" / "napari_ivos"
UNPACKED = (TOP / "PKG-INFO").exists()
IN_A_CLONE = pytest.mark.skipif(UNPACKED, reason="a source archive leaves out git and the links for editable installs")
KINDS = ["wheel", pytest.param("editable", marks=IN_A_CLONE)]
HEAVY = {"PIL", "av", "dask", "imagecodecs", "magicgui", "napari", "qtpy", "safetensors", "scipy", "tifffile", "torch"}
HEAVY |= {"PyQt6", "PySide6", "cv2", "matplotlib", "skimage", "sqlite3", "torchvision", "tqdm", "zarr"}


def _python(code: str, *arguments: str, cwd: Path | None = None) -> str:
    """What a fresh Python prints that runs `code`; its errors are this test's."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


# --- importing ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Top-level modules in a fresh process after `import napari_ivos`, less those before it."""
    code = "import sys; a = set(sys.modules); import napari_ivos, json; print(json.dumps([*set(sys.modules) - a]))"
    return {name.split(".")[0] for name in json.loads(_python(code))}


def test_importing_the_package_loads_nothing_heavy(loaded):
    """`import napari_ivos` leaves dask, zarr, TIFF, video, torch, napari, Qt and their like alone."""
    assert not loaded & HEAVY


def test_importing_the_package_loads_at_most_numpy(loaded):
    """Outside Python's own library, `import napari_ivos` loads itself and at most numpy."""
    assert loaded - sys.stdlib_module_names <= {"napari_ivos", "numpy"}


def test_loading_the_session_leaves_torch_and_napari_alone():
    """A session with the fake predictor needs neither torch nor napari."""
    code = "import sys, napari_ivos as i; i.Session, i.FakePredictor, i.Scribbles; print(*sys.modules)"
    assert not {name.split(".")[0] for name in _python(code).split()} & {"torch", "torchvision", "napari", "qtpy"}


# --- public names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", napari_ivos.__all__)
def test_public_names_resolve(name):
    """Every name in `__all__` is there, documented, and found again at the same place."""
    value = getattr(napari_ivos, name)
    assert value is getattr(napari_ivos, name)
    assert value.__doc__


def test_all_is_what_is_exported():
    """`__all__` is sorted, is what `dir` shows, and holds all errors, all lazy names and the version."""
    errors = {n.name for n in _tree(SOURCE / "errors.py").body if isinstance(n, ast.ClassDef)}
    expected = errors | set(napari_ivos._HOME) | {"__version__"}
    assert set(napari_ivos.__all__) == expected
    assert dir(napari_ivos) == sorted(napari_ivos.__all__)


def test_type_checkers_see_the_lazy_names():
    """The imports for type checkers name each lazy name and the module that it is loaded from."""
    (guarded,) = [node for node in _tree(SOURCE / "__init__.py").body if isinstance(node, ast.If)]
    seen = {a.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert seen == {name: f"napari_ivos.{home}" for name, home in napari_ivos._HOME.items()}


def test_an_unknown_name_is_an_attribute_error():
    """A misspelt name fails as it does in any module."""
    with pytest.raises(AttributeError, match="'napari_ivos' has no attribute 'Sesion'"):
        _ = napari_ivos.Sesion


# --- the house ----------------------------------------------------------------------------------------------------


def test_import_contracts_hold():
    """Every arrow points down, only the plugin knows napari, only networks and training know torch."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    assert "0 broken" in _python(code, cwd=TOP)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_modules_say_what_they_are_and_functions_are_short(path):
    """Each module has a docstring, and no function is longer than 60 lines, its documentation not counted."""
    assert ast.get_docstring(_tree(path))
    for function in _functions(path):
        start = function.body[1].lineno if ast.get_docstring(function) and len(function.body) > 1 else function.lineno
        assert (function.end_lineno or 0) - start <= 60, f"{function.name} at line {function.lineno}"


@pytest.mark.parametrize("path", sorted((TOP / "tests").rglob("test_*.py")), ids=lambda path: path.name)
def test_tests_state_a_fact(path):
    """Each test has a docstring, which states the fact that it proves."""
    tests = [function for function in _functions(path) if function.name.startswith("test_")]
    assert [function.name for function in tests if not ast.get_docstring(function)] == []


# --- distributions ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> dict[str, Path]:
    """Built without isolation: the source archive, the wheel made from it, and an editable install's wheel."""
    out = tmp_path_factory.mktemp("distributions")

    def make(source: Path, kind: str) -> Path:
        return Path(build.ProjectBuilder(source, runner=quiet_subprocess_runner).build(kind, out / kind))

    sdist = make(TOP, "sdist")
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian's Python 3.11 is older than filters
        archive.extractall(out)
    wheel = make(out / sdist.name.removesuffix(".tar.gz"), "wheel")
    return {"sdist": sdist, "wheel": wheel} | ({} if UNPACKED else {"editable": make(TOP, "editable")})


def _shipped() -> set[str]:
    """What a wheel must hold besides Python, by its place in the package."""
    samples = {f"sample_data/{path.name}" for path in (TOP / "sample_data").iterdir()}
    weights = {f"networks/models/{path.name}" for path in (SOURCE / "networks" / "models").glob("*.*")}
    return {"napari.yaml", "py.typed", *samples, *weights}


def test_the_wheel_holds_manifest_samples_and_weights_once(distributions):
    """The wheel made from the source archive holds each file once: manifest, sample data, weights, all modules."""
    names = zipfile.ZipFile(distributions["wheel"]).namelist()
    assert len(names) == len(set(names))
    inside = {name.removeprefix("napari_ivos/") for name in names if name.startswith("napari_ivos/")}
    modules = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py")}
    assert inside == _shipped() | modules


def test_the_wheel_brings_the_licence_but_no_tests(distributions):
    """A wheel is the package and its metadata, licence included; the tests stay at home."""
    names = zipfile.ZipFile(distributions["wheel"]).namelist()
    version = distributions["wheel"].name.split("-")[1]
    assert {name.split("/")[0] for name in names} == {"napari_ivos", f"napari_ivos-{version}.dist-info"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_source_archive_holds_each_file_once(distributions):
    """The source archive holds tests, scripts, manifest and sample data, the last two at the top only."""
    with tarfile.open(distributions["sdist"]) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames()]
    assert {"napari.yaml", "sample_data/cells.tif", "tests/test_package.py", "scripts/make_sample_data.py"} <= set(
        names
    )
    assert not [name for name in names if name.startswith("src/napari_ivos/sample_data")]
    assert "src/napari_ivos/napari.yaml" not in names


@IN_A_CLONE
@pytest.mark.skipif(shutil.which("git") is None, reason="git says what the repository holds")
def test_the_source_archive_holds_the_whole_repository(distributions):
    """The source archive has all that tests read: each file that git knows, but the links for editable installs."""
    said = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, check=True).stdout.decode()
    known = {name for name in said.split("\0") if name and (TOP / name).is_file()}
    with tarfile.open(distributions["sdist"]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert len(known) > 400
    assert known - names <= {"src/napari_ivos/napari.yaml", "src/napari_ivos/sample_data"}


@pytest.mark.parametrize("kind", KINDS)
def test_npe2_accepts_the_installed_manifest(distributions, kind, tmp_path):
    """`npe2 validate napari-ivos` passes for what the source archive's wheel and an editable install lay down."""
    zipfile.ZipFile(distributions[kind]).extractall(tmp_path)
    code = (
        "import site, sys; site.addsitedir(sys.argv[1]); sys.path.insert(0, sys.argv[1]); import napari_ivos;"
        "print(napari_ivos.__file__); from npe2.cli import app; app(['validate', 'napari-ivos'])"
    )
    said = _python(code, str(tmp_path), cwd=tmp_path)
    home = tmp_path / "napari_ivos" if kind == "wheel" else SOURCE
    assert said.splitlines()[0] == str(home / "__init__.py")
    assert "Manifest for 'napari-ivos' valid" in said


@pytest.mark.parametrize("kind", KINDS)
def test_installed_samples_open(distributions, kind, tmp_path):
    """The sample functions of an installed package find their files."""
    zipfile.ZipFile(distributions[kind]).extractall(tmp_path)
    code = (
        "import site, sys; site.addsitedir(sys.argv[1]); sys.path.insert(0, sys.argv[1]);"
        "from napari_ivos.plugin import sample_data as s; print(s.__file__, s.cells()[0][0].shape, s.toy()[0][0].shape)"
    )
    assert "(48, 256, 320) (48, 240, 320, 3)" in _python(code, str(tmp_path), cwd=tmp_path)


@IN_A_CLONE
@pytest.mark.parametrize("name", ["napari.yaml", "sample_data"])
def test_manifest_and_samples_live_at_the_top(name):
    """In the source tree, the package's manifest and samples are relative links to the ones at the top."""
    link = SOURCE / name
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == TOP / name
