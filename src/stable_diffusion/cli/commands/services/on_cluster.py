"""What `serve` and `bulk` share where pictures are made on a cluster (--ray)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ....bulk.run import Team
    from ....bulk.work import WorkOrder
    from ....cluster.run import ClusterRunner
    from ....jobs.lease import Leases

OF_A_REPLICA = ("address", "max_replicas", "threads", "device", "dtype", "engine")


@contextmanager
def runners(config: Path | None, options: Mapping[str, Any]) -> Iterator[list[ClusterRunner]]:
    """A runner for each request that may run at once, on replicas that live as long as the block.

    options   by the names of the cluster's settings; None is not given. InvalidRequest where one is unusable.
    """
    from ....cluster.connect import cluster, cluster_runner
    from ....cluster.settings import read_cluster_settings

    settings = read_cluster_settings(config, {name: options.get(name) for name in OF_A_REPLICA})
    click.echo(f"{settings.min_replicas} to {settings.max_replicas} replicas on Ray at {settings.address}", err=True)
    with cluster(settings) as pool:
        runner = cluster_runner(pool)
        yield [runner] * settings.max_replicas


@contextmanager
def bulk_team(
    config: Path | None, options: Mapping[str, Any]
) -> Iterator[tuple[Callable[[Sequence[WorkOrder], Leases], Team], int]]:
    """The team of a `BulkRun` on a cluster, and how many workers it should have."""
    from ....cluster.bulk import ClusterTeam

    with runners(config, options) as found:
        yield lambda orders, leases: ClusterTeam(orders, leases, found[0]), len(found)
