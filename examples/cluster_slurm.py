"""A batch on the nodes of a SLURM cluster: jobs are asked for while there is work, and given back.

``python examples/cluster_slurm.py stacks.csv gpu --gres=gpu:1``: the manifest, a partition, and more options of
``sbatch``. All nodes have this Python and the stacks under the same paths (packages: ``napari-ivos[distributed]
dask-jobqueue``).
"""

import sys

from dask_jobqueue import SLURMCluster
from distributed import Client

import napari_ivos as ivos

manifest, partition, *options = sys.argv[1:]
cluster = SLURMCluster(
    queue=partition,
    cores=1,  # of each job: one worker with one thread
    processes=1,
    memory="4GB",
    walltime="04:00:00",
    job_extra_directives=options,
    worker_extra_args=["--lifetime", "230m", "--lifetime-stagger", "4m"],  # hands its work over before SLURM ends it
    log_directory="slurm_logs",
)
with cluster, Client(cluster) as client:
    cluster.adapt(minimum_jobs=1, maximum_jobs=20)
    summary = ivos.run_batch(manifest, client)
print(summary.as_text())
sys.exit(0 if summary.complete else 1)
