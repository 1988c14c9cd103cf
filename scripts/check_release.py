"""Everything that a release has to pass before it is published: ``python scripts/check_release.py [--folder DIST]``.

Builds source archive and wheel (the wheel out of the archive, as an installer would), checks both with twine,
check-wheel-contents and validate-pyproject, installs the wheel into an empty environment, and runs the demo there
from an empty folder with no network; where that can't be cut, it says so, and on Linux it fails if ``CI`` is set. Last
it writes the conda recipe with version and checksum of the archive.

The empty environment gets pip's own files and the wheel. Its dependencies are taken from this environment through a
path file, so that the check costs seconds and not five gigabytes; ``--full`` installs them anew instead.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
from pathlib import Path

TOP = Path(__file__).parent.parent


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command; what it printed.

    Raises
    ------
    SystemExit
        It failed; its output is shown.
    """
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def make(folder: Path) -> tuple[Path, Path]:
    """Build source archive and wheel into an empty folder; both."""
    import build
    from pyproject_hooks import quiet_subprocess_runner

    shutil.rmtree(folder, ignore_errors=True)
    sdist = Path(build.ProjectBuilder(TOP, runner=quiet_subprocess_runner).build("sdist", folder))
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(sdist) as archive:
            # Debian's Python 3.11 is older than filters, and does not ask for one
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(scratch)
        source = Path(scratch) / sdist.name.removesuffix(".tar.gz")
        wheel = Path(build.ProjectBuilder(source, runner=quiet_subprocess_runner).build("wheel", folder))
    for path in (sdist, wheel):
        say(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    return sdist, wheel


def check(sdist: Path, wheel: Path) -> None:
    """Metadata, README as the package page shows it, what the wheel holds, and pyproject.toml."""
    run(sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel))
    run(sys.executable, "-m", "check_wheel_contents", "--config", str(TOP / "pyproject.toml"), str(wheel))
    run(sys.executable, "-m", "validate_pyproject", str(TOP / "pyproject.toml"))
    say("twine, check-wheel-contents, validate-pyproject: passed")


def ways_without_network() -> list[list[str]]:
    """Beginnings of commands that run the rest without any network, on Linux.

    For root; for ordinary users, where the system lets them; and for those who are root for the asking, as on hosted
    runners: the command itself runs as the one who asked, in an environment of its own.
    """
    if sys.platform != "linux":
        return []
    back = ["setpriv", f"--reuid={os.getuid()}", f"--regid={os.getgid()}", "--init-groups", "--reset-env"]
    return [["unshare", "-n"], ["unshare", "-rn"], ["sudo", "-n", "unshare", "-n", *back]]


def without_network() -> list[str]:
    """How to run without a network here; empty where that can't be done.

    Raises
    ------
    SystemExit
        It can't be done under continuous integration on Linux, where nobody would read that it wasn't.
    """
    for way in ways_without_network():
        if shutil.which(way[0]) and subprocess.run([*way, "true"], capture_output=True, check=False).returncode == 0:
            return way
    if sys.platform == "linux" and os.environ.get("CI"):
        raise SystemExit(
            "failed: the network can't be cut here, so that nothing shows that the package needs none. Tried: "
            + "; ".join(" ".join(way) for way in ways_without_network())
        )
    return []


def install_and_run(wheel: Path, full: bool) -> None:
    """Install the wheel into an empty environment and run the demo from an empty folder, offline where possible."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "environment"
        venv.create(home, with_pip=True)
        scripts = home / ("Scripts" if os.name == "nt" else "bin")
        pip = [str(scripts / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run(*pip, str(wheel), *([] if full else ["--no-deps", "--no-index"]))
        if not full:
            _lend(scripts / "python")
        empty = Path(scratch) / "empty"
        empty.mkdir()
        offline = without_network()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        ask = "import napari_ivos; print(napari_ivos.__file__)"
        where = run(str(scripts / "python"), "-c", ask, cwd=empty, env=environment)
        if not Path(where.strip()).is_relative_to(home):
            raise SystemExit(f"the package that was run is not the installed one: {where.strip()}")
        program = str(scripts / "napari-ivos")
        version = run(*offline, program, "--version", cwd=empty, env=environment).strip()
        run(*offline, program, "demo", "--quiet", "--output", "demo", cwd=empty, env=environment)
        left = sum(path.is_file() for path in (empty / "demo").rglob("*"))
        say(f"{version}: installed, demo ran {'offline' if offline else 'WITH a network'} and left {left} files")
        if not offline:
            say("NOT CHECKED: that no network is needed. It can't be cut here; that takes Linux, and root or sudo.")


def _lend(python: Path) -> None:
    """Let an environment import the dependencies of this one, which come after its own."""
    asked = run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    own = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    # one `.pth` line only names a folder: an editable install there is not followed, so the wheel is what is imported
    (Path(asked.strip()) / "lent.pth").write_text("\n".join(own) + "\n", encoding="utf-8")


def conda_recipe(sdist: Path) -> Path:
    """Write the recipe for this archive beside it."""
    version = sdist.name.removesuffix(".tar.gz").split("-")[1]
    name = os.environ.get("GITHUB_REPOSITORY")
    home = f"https://github.com/{name}" if name else "https://pypi.org/project/napari-ivos/"
    text = (TOP / "packaging" / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    for mark, value in (("VERSION", version), ("HOME", home)):
        text = text.replace(mark, value)
    text = text.replace("SHA256", hashlib.sha256(sdist.read_bytes()).hexdigest())
    target = sdist.parent / "conda" / "recipe.yaml"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return target


def main() -> int:
    """Do all of it; 0 where all passed."""
    parser = argparse.ArgumentParser(description="Everything that a release has to pass before it is published.")
    parser.add_argument("--folder", type=Path, default=TOP / "dist", help="for archive, wheel and recipe (dist)")
    parser.add_argument("--full", action="store_true", help="install all dependencies anew")
    options = parser.parse_args()
    sdist, wheel = make(options.folder)
    check(sdist, wheel)
    install_and_run(wheel, options.full)
    say(f"conda recipe: {conda_recipe(sdist)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
