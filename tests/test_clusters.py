"""Clusters as a lab has them: the examples for SSH and SLURM, run where there is a server of SSH, or a SLURM."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

pytest.importorskip("distributed", reason="the extra `distributed` is not installed")

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parent.parent / "examples"
LIMIT = 300
"""Seconds after which a cluster counts as hung."""


@pytest.fixture
def manifest(tmp_path: Path, make_clip, square) -> Path:
    """Two short stacks with masks of their first frames."""
    for name, motion in (("one", 3), ("two", -3)):
        clip = make_clip(4, (64, 80), square((20, 28), (0, motion)))
        tifffile.imwrite(tmp_path / f"{name}.tif", clip.video, photometric="rgb", metadata={"axes": "TYXS"})
        tifffile.imwrite(tmp_path / f"{name}_first.tif", clip.truth[0])
    path = tmp_path / "stacks.csv"
    path.write_text("input,masks,frame,format\none.tif,one_first.tif,0,ome-tiff\ntwo.tif,two_first.tif,0,ome-tiff\n")
    return path


def run_example(name: str, manifest: Path, *arguments: str, **environment: str) -> str:
    """What an example of the documentation says, run on a manifest."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), manifest.name, *arguments],
        cwd=manifest.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(manifest: Path, said: str) -> None:
    """Both stacks are done, and their first frames are the masks that were given."""
    assert "2 stacks: 2 done; 6 frames" in said
    for name in ("one", "two"):
        labels = tifffile.imread(manifest.parent / "stacks_results" / name / "labels.ome.tif")
        np.testing.assert_array_equal(labels[0], tifffile.imread(manifest.parent / f"{name}_first.tif"))
        assert (labels > 0).any(axis=(1, 2)).all()


# -- SSH


@pytest.fixture
def ssh_home(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A home whose ``.ssh`` leads to an SSH server of its own on this machine, and that server's log."""
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no SSH server is installed (sshd)")
    pytest.importorskip("asyncssh", reason="asyncssh is not installed")
    if hasattr(os, "getuid") and os.getuid() == 0 and not Path("/run/sshd").is_dir():
        pytest.skip("sshd of root needs the folder /run/sshd")
    keys, place = tmp_path / "home" / ".ssh", tmp_path / "server"
    keys.mkdir(parents=True, mode=0o700)
    place.mkdir()
    for key in (keys / "id_ed25519", place / "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (place / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place / 'host'}\n"
        f"AuthorizedKeysFile {keys / 'id_ed25519.pub'}\n"
        "PasswordAuthentication no\nStrictModes no\nUsePAM no\nPidFile none\n"
    )
    (keys / "config").write_text(f"Host localhost\n  Port {port}\n  User {getpass.getuser()}\n")
    (keys / "known_hosts").write_text(f"[localhost]:{port} {(place / 'host.pub').read_text()}")
    log = place / "log"
    with log.open("w") as file:
        server = subprocess.Popen([program, "-D", "-e", "-f", str(place / "config")], stderr=file)
        try:
            yield keys.parent, log
        finally:
            server.terminate()
            server.wait()


def test_the_example_for_ssh_runs_on_workers_that_it_starts_by_ssh(manifest: Path, ssh_home: tuple[Path, Path]) -> None:
    """A scheduler and two workers are started over SSH, the batch is done on them, and none of them stays."""
    home, log = ssh_home
    check(manifest, run_example("cluster_ssh.py", manifest, "localhost", "localhost", HOME=str(home)))
    assert log.read_text().count("Accepted publickey") == 3


# -- SLURM


@pytest.fixture
def partition() -> str:
    """A partition of the SLURM that this machine belongs to, with a node that is up."""
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        pytest.skip("no SLURM is installed (sbatch, sinfo)")
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    found = subprocess.run(
        ["sinfo", "--noheader", "--states=idle,mixed", "--format=%R"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    names = found.stdout.split()
    if found.returncode or not names:
        pytest.skip(f"SLURM has no idle node: {(found.stderr or 'sinfo names none').strip()[:200]}")
    return names[0]


def test_the_example_for_slurm_runs_in_jobs_that_it_asks_for(manifest: Path, partition: str) -> None:
    """Jobs are submitted with `sbatch`, the batch is done in them, and none is left when it ends."""
    check(manifest, run_example("cluster_slurm.py", manifest, partition))
    logs = list((manifest.parent / "slurm_logs").glob("dask-worker-*.err"))
    assert logs
    job = logs[0].stem.rpartition("-")[2]
    left = subprocess.run(
        ["squeue", "--noheader", "--jobs", job, "--states=pending,running"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not left.stdout.strip(), left.stdout
