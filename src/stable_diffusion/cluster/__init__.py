"""Requests run by many machines: our own worker in actors of Ray, and what Ray leaves to us (the extra `cluster`).

    from stable_diffusion.cluster.connect import cluster, cluster_runner
    from stable_diffusion.cluster.settings import ClusterSettings

    with cluster(ClusterSettings(address="local", max_replicas=2)) as pool:
        for event in cluster_runner(pool).run(Request("a red cat")):
            ...

A replica that dies takes no request with it: the pool starts another, and the runner tries the request again from the
picture that it was at. Since a request with its seeds is a pure function, the pictures are those of one process.
"""

from __future__ import annotations
