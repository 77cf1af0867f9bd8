"""All batch pools of a campaign as one driver opens and closes them."""

from __future__ import annotations

import queue
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alloop.pool_params import BatchPoolParam
from alloop.pools import Ended
from alloop.pools.batch import BatchPool
from alloop.pools.engine import Engine, Timing
from alloop.pools.jobs import JobRecords
from alloop.pools.link import Link
from alloop.pools.queues import QueueWatch


@dataclass(frozen=True)
class BatchHost:
    """All batch pools of a campaign, those of earlier configurations included, and what they share."""

    pools: dict[str, BatchPool]
    engine: Engine

    def close(self) -> None:
        """Let go of the scheduler, once the pools are closed; end it if no job is left for it."""
        for watch in self.engine.queues.values():
            watch.close()
        self.engine.link.close(end_scheduler=not any(pool.has_jobs() for pool in self.pools.values()))


def open_batch_pools(
    params: Mapping[str, BatchPoolParam],
    events: queue.SimpleQueue[Ended],
    run_folder: Path,
    campaign_id: str,
    epoch: int,
    timing: Timing | None = None,
) -> BatchHost:
    """Return the batch pools of a configuration, and retired ones for the jobs of pools that it no longer names.

    Raises InputError if dask-jobqueue does not accept the options of one.
    """
    timing = timing or Timing()
    records = JobRecords(run_folder)
    jobs = records.load()
    left = {job.pool: job.kind for job in jobs if job.gone is None and job.pool not in params}
    retired = {
        name: BatchPoolParam.model_validate({"type": kind, "tasks": [], "walltime_minutes": 60})
        for name, kind in left.items()
    }
    every = {**params, **retired}
    idle = max((param.idle_minutes for param in every.values()), default=5.0)
    link = Link(run_folder, campaign_id, idle, timing.poll)
    queues: dict[str, QueueWatch] = {
        kind: QueueWatch(kind, timing.look) for kind in {param.type for param in every.values()}
    }
    engine = Engine(run_folder, campaign_id, epoch, link, records, queues, timing)
    pools = {
        name: BatchPool(name, param, engine, events, [job for job in jobs if job.pool == name], retired=name in retired)
        for name, param in every.items()
    }
    return BatchHost(pools, engine)
