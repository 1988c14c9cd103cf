"""Doctor, logs and reports: what is wrong is told, and nothing of the user's images or folders goes with it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_ivos import diagnostics
from napari_ivos.cli import arguments, main
from napari_ivos.diagnostics import checks, report
from napari_ivos.errors import InputError
from napari_ivos.wording import REPLACING


def test_doctor_finds_this_installation_sound(capsys) -> None:
    """Every part is checked, for machines as JSON; the exit code says whether there is a problem."""
    code = main(["doctor", "--json", "--no-test"])
    told = json.loads(capsys.readouterr().out)
    names = [check["name"] for check in told["checks"]]
    assert names == ["versions", "machine", "device", "weights", "codecs", "zarr", "video", "window", "projects"]
    assert code == (0 if told["ok"] else 1)
    assert all(check.get("hint") for check in told["checks"] if check["state"] != "ok")
    weights = next(check for check in told["checks"] if check["name"] == "weights")
    assert len(weights["facts"]["checksum"]) == 64
    assert weights["facts"]["path"] == "compact.safetensors"


def test_the_self_test_says_how_fast(monkeypatch) -> None:
    """It segments a moving square, right, and gives frames a second."""
    *_, found = diagnostics.doctor(device="cpu", seconds=0.01)
    assert found.name == "self-test"
    assert found.state == "ok"
    assert found.facts is not None
    assert found.facts["frames_per_second"] > 0
    assert found.facts["agreement"] > 0.5
    assert "frames/s" in found.found


def test_what_is_broken_becomes_a_problem_with_a_hint(monkeypatch, tmp_path: Path) -> None:
    """A check that fails in any way is told, and the others go on."""

    def broken() -> checks.Check:
        raise OSError("libgomp.so.1 is missing")

    monkeypatch.setattr(checks, "_device", broken)
    found = {check.name: check for check in diagnostics.doctor(tmp_path / "none.safetensors", seconds=0)}
    assert found["device"].state == "problem"
    assert "libgomp" in found["device"].found
    assert found["device"].hint
    assert found["weights"].state == "problem"
    assert "No model is called" in found["weights"].found
    assert found["projects"].state == "ok"


def test_the_package_is_silent_until_somebody_listens() -> None:
    """In a fresh process, a warning of the package writes nothing to stderr; the standard logging gets it."""
    code = "import logging, napari_ivos; logging.getLogger('napari_ivos.x').warning('hear me')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize(("level", "kept"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1), (None, 3)])
def test_a_log_file_gets_its_level(level: str | None, kept: int, tmp_path: Path) -> None:
    """A file gets what is at its level or above, with time and place; afterwards nobody listens."""
    logger, file = logging.getLogger("napari_ivos.test"), tmp_path / "a.log"
    before = list(logging.getLogger("napari_ivos").handlers)
    with diagnostics.listening(level, file):
        for each in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logger.log(each, "line")
    assert len(file.read_text(encoding="utf-8").splitlines()) == kept
    assert logging.getLogger("napari_ivos").handlers == before


def test_levels_on_the_command_line_are_those_there_are(tmp_path: Path, capsys) -> None:
    """The help names each; a log that can't be written is told."""
    assert arguments.LEVELS == diagnostics.LEVELS
    assert main(["doctor", "--no-test", "--log-file", str(tmp_path / "no" / "a.log")]) == 1
    assert "can't be written" in capsys.readouterr().err


def test_a_report_of_a_refused_file_is_written_on_request(tmp_path: Path, capsys) -> None:
    """`--report` holds the message, the place in the program, versions, and no folder."""
    folder = tmp_path / "jane doe" / "secret study"
    folder.mkdir(parents=True)
    (folder / "movie.tif").write_bytes(b"II*\0nothing")
    file = tmp_path / "report.txt"
    assert main(["info", str(folder / "movie.tif"), "--report", str(file)]) == 1
    text = file.read_text(encoding="utf-8")
    assert "InputError" in text
    assert "movie.tif" in text
    assert "numpy" in text
    assert "napari_ivos/frames/tiff.py" in text
    assert "jane" not in text
    assert "secret" not in text
    assert str(tmp_path) not in text


def test_an_unexpected_error_leaves_a_report(monkeypatch, tmp_path: Path, capsys) -> None:
    """An error that should not be is one line and a file, and the exit code is 1."""

    def broken(*_: object) -> int:
        pixels = np.arange(12345, 12345 + 64)
        raise ZeroDivisionError(f"{pixels!r} of {tmp_path / 'jane' / 'movie.tif'}")

    monkeypatch.setattr("napari_ivos.cli.commands.info", broken)
    monkeypatch.setattr(report.tempfile, "tempdir", str(tmp_path))
    assert main(["info", "x.tif"]) == 1
    assert "Please report it" in capsys.readouterr().err
    (written,) = tmp_path.glob("napari-ivos-report-*.txt")
    text = written.read_text(encoding="utf-8")
    assert "ZeroDivisionError" in text
    assert "movie.tif" in text
    assert "12345" not in text
    assert "jane" not in text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("open /data/jane/a b.tif", "open a b.tif"),
        ("'/data/jane doe/x.tif' is damaged", "'x.tif' is damaged"),
        ("C:\\Users\\jane\\x.tif is damaged", "x.tif is damaged"),
        ("\\\\server\\share\\x.tif", "x.tif"),
        ("../up/x.tif", "x.tif"),
        ("values array([1, 2,\n 3]) found", "values array(...) found"),
        (f"bad values {np.arange(100).reshape(10, 10)}, all", "bad values [...] all"),
        (f"bad values {np.linspace(0, 1e-7, 2000)}", "bad values [...] "),
        ("bad values [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10", "bad values [...] "),
        (f"bad values {list(np.arange(9) / 7)} seen", "bad values [...] seen"),
        ("row b'\\x00\\x01\\x02\\x03\\x00' seen", "row b'...' seen"),
        ("header=b'hell' of shape (3, 2, 30, 40)", "header=b'hell' of shape (3, 2, 30, 40)"),
        ("5 of 6 (0..5)", "5 of 6 (0..5)"),
    ],
)
def test_folders_and_arrays_are_taken_out_of_words(text: str, left: str) -> None:
    """What is left names files, numbers and causes only."""
    assert report.scrub(text) == left


def test_a_report_that_can_not_be_written_hides_no_error(tmp_path: Path, capsys) -> None:
    """The message of the error comes all the same."""
    assert main(["info", str(tmp_path / "no.tif"), "--report", str(tmp_path / "no" / "r.txt")]) == 1
    told = capsys.readouterr().err
    assert "There is no file" in told
    assert "could not be written" in told


def test_an_error_of_ours_carries_its_cause() -> None:
    """The report goes down the chain of causes."""
    try:
        try:
            raise KeyError("strip")
        except KeyError as cause:
            raise InputError("It can't be read.") from cause
    except InputError as error:
        text = diagnostics.error_report(error)
    assert "InputError: It can't be read." in text
    assert "because of:" in text
    assert "KeyError: 'strip'" in text


def test_the_window_leaves_a_report_of_what_should_not_be(monkeypatch, tmp_path: Path) -> None:
    """An unexpected error, or a model's, is told with the place of its report; one of ours by its letter alone."""
    from napari_ivos.errors import IvosError
    from napari_ivos.plugin import telling

    monkeypatch.setattr(report.tempfile, "tempdir", str(tmp_path))
    assert telling.failure(InputError("Give a frame.")) == "Give a frame."
    assert telling.failure(InputError(f"Replace it ({REPLACING}).")) == "Replace it (tick Replace what is there)."
    assert list(tmp_path.iterdir()) == []
    wrapped = IvosError("The model failed on frame 3.")
    wrapped.__cause__ = ZeroDivisionError("x")
    for error in (ZeroDivisionError("x"), wrapped):
        told = telling.failure(error)
        assert "without images" in told
        written = Path(told.split(" is in ")[1].split(";")[0])
        assert "ZeroDivisionError" in written.read_text(encoding="utf-8")
