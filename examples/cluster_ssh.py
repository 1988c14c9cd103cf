"""A batch on machines that are reached by SSH: a scheduler on the first one, and a worker on each.

``python examples/cluster_ssh.py stacks.csv node1 node2 node3``. Names, keys and ports are those of ``~/.ssh``, and all
machines have this Python and the stacks under the same paths (packages: ``napari-ivos[distributed] asyncssh``).
"""

import sys

from distributed import Client, SSHCluster

import napari_ivos as ivos

manifest, *machines = sys.argv[1:]
cluster = SSHCluster(
    [machines[0], *machines],  # the scheduler's machine, then the workers'
    worker_options={"nthreads": 1},  # with several GPUs on each also "n_workers": 4; each worker takes a GPU of its own
)
with cluster, Client(cluster) as client:
    summary = ivos.run_batch(manifest, client)
print(summary.as_text())
sys.exit(0 if summary.complete else 1)
