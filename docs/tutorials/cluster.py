# %% [markdown]
# # A cluster
#
# You have scribbled on one frame of each of a hundred stacks (in the window, or by a program) and want all of them
# propagated, on all cores of this machine or on many machines. That is a *batch*. It needs the extra `distributed`:
# `pip install "napari-ivos[distributed]"`.
#
# ## 1. The manifest
#
# A CSV file with a line for each stack: its frames, and what it starts from (scribbles, masks, or a project). Paths are
# relative to the manifest. Here they are two short pieces of the simulated cells, each with a label image of its first
# frame, and a third line whose file got lost.

# %% [folded] The two pieces
import numpy as np
import tifffile

frames, truth = (tifffile.imread(f"sample_data/{name}.tif") for name in ("cells", "cells_masks"))
for name, start in (("morning", 4), ("evening", 30)):
    piece = {"photometric": "minisblack", "metadata": {"axes": "TYX"}}
    tifffile.imwrite(f"{name}.tif", frames[start : start + 8], imagej=True, **piece)
    tifffile.imwrite(f"{name}_first.tif", truth[start].astype(np.uint16))

# %%
from pathlib import Path

Path("stacks.csv").write_text(
    "name,input,masks,frame\n"
    "morning,morning.tif,morning_first.tif,0\n"
    "evening,evening.tif,evening_first.tif,0\n"
    "night,night.tif,evening_first.tif,0\n"
)
print(Path("stacks.csv").read_text())

# %% [folded] How this page runs commands
import re
import shlex
import subprocess
import sys


def shell(command):
    """Run a command as in a terminal; show what it prints, without the progress."""
    program, *arguments = shlex.split(command)
    launch = [sys.executable, "-m", "napari_ivos"] if program == "napari-ivos" else [program]
    here = f"{Path.cwd()}/"
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True, check=False)
    print(f"$ {command}\n{done.stdout.replace(here, '').rstrip()}")
    for line in done.stderr.splitlines():
        if re.search("stacks;|failed|Error", line):
            print(line.rpartition("\r")[2].replace(here, ""))
    print(f"(exit code {done.returncode})")


# %% [markdown]
# ## 2. Look before it runs
#
# `--dry-run` opens every stack and says what would be done, and what can't be: missing files, sizes that don't fit,
# results in the way. Nothing is started or written.

# %%
shell("napari-ivos batch stacks.csv --dry-run --output results")

# %% [markdown]
# Two can be done. The third one could be mended now; here it stays, to show what becomes of it.
#
# ## 3. On this machine
#
# `--workers` says how many processes; without it, one for each GPU, else one for each core. A progress bar and a link
# to the dashboard appear while it runs.

# %%
shell("napari-ivos batch stacks.csv --workers 2 --output results")

# %% [markdown]
# The bad line failed alone, with its reason, and the others are done. The exit code says that not all went well. The
# seconds are mostly those in which the workers start and load the model: so short are these stacks.
#
# ## 4. What there is
#
# Each stack has a project, which opens in napari like any other, and its exports: labels, overlay video, contact
# sheet and table, or what the column `format` asks for.

# %%
for path in sorted(Path("results").rglob("*")):
    if path.is_file() and not path.name.endswith("lock"):
        print(path)

# %% [folded] The picture
import shutil

sheet = next(path for path in sorted(Path("results").rglob("*.png")) if "evening" in str(path))
shutil.copy(sheet, "cluster_evening.png")

# %% [markdown]
# ![The contact sheet of one stack](cluster_evening.png)
#
# ## 5. Again
#
# The same command goes on where it was stopped: by Ctrl-C, by a power cut, by a scheduler that took the machine away.
# What is finished is not done again.

# %%
shell("napari-ivos batch stacks.csv --workers 2 --output results")

# %% [markdown]
# ## 6. On many machines
#
# The workers are those of a [dask](https://distributed.dask.org) cluster; the manifest, the results and the table stay
# the same. Only how the workers are started differs:
#
# === "By hand"
#
#     A scheduler on one machine, workers on the others, and its address for the batch:
#
#     ```sh
#     dask scheduler
#     dask worker tcp://10.0.0.1:8786 --nthreads 1 --nworkers 8     # on each machine
#     napari-ivos batch stacks.csv --scheduler tcp://10.0.0.1:8786
#     ```
#
# === "SSH"
#
#     `examples/cluster_ssh.py` starts a scheduler and a worker on each machine, and ends them after the batch:
#
#     ```sh
#     pip install asyncssh
#     python examples/cluster_ssh.py stacks.csv node1 node2 node3
#     ```
#
# === "SLURM"
#
#     `examples/cluster_slurm.py` asks for jobs while there is work, and gives them back:
#
#     ```sh
#     pip install dask-jobqueue
#     python examples/cluster_slurm.py stacks.csv gpu --gres=gpu:1
#     ```
#
# === "Python"
#
#     One function, with any dask client:
#
#     ```python
#     import napari_ivos as ivos
#     from distributed import Client
#
#     if __name__ == "__main__":
#         with Client("tcp://10.0.0.1:8786") as client:
#             summary = ivos.run_batch("stacks.csv", client, output="results")
#         print(summary.as_text())
#     ```
#
# All machines read the frames under the same paths. Only the one that gives the command writes: it alone commits to the
# project files. The two programs, what they went through and what to look at when a job does not start are in
# [Cluster](../cluster.md); what it costs at size in [Scaling](../scaling.md).
