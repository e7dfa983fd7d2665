"""Batches on a Ray cluster: ``--engine ray://…``, with the extra ``cluster``.

The process that calls :func:`xaicore.run.engine.get` is the driver: it cuts the batches, looks each up in the store and
writes what comes back into it, so nodes need no common folder and a killed driver continues where it stopped.
A batch is a Ray task in a process that computes one at a time; models stay in the processes.

- ``ray://HOST:PORT``: a running cluster, by the port of its Ray Client server (10001 where none is given);
- ``ray://auto``: the cluster that this machine is a node of, or the one named in ``$RAY_ADDRESS``;
- ``ray://local``: a cluster of this machine alone, begun now and ended with this process.
"""

from xaicore.run.cluster.connection import check, for_notebooks
from xaicore.run.cluster.engine import RayEngine
from xaicore.run.cluster.engine import RayEngine as get

__all__ = ["RayEngine", "check", "for_notebooks", "get"]
