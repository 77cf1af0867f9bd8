"""What all batch pools of a driver share: the connection to the scheduler, the queues, the jobs on record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alloop.pools.jobs import JobRecords
from alloop.pools.link import Link
from alloop.pools.queues import QueueWatch


@dataclass(frozen=True)
class Timing:
    """How long things take or may take, in seconds.

    look: between looks into the queue; poll: between looks at the scheduler; grace: before a submission nobody knows
    the outcome of is given up; end: a job told to end gets so long before it is cancelled; backoff, longest_backoff:
    after a failed submission; verdict: to find out whether a killed attempt's job was killed with it; margin: a job's
    last seconds, in which nothing begins; avoid: how long a node that fails is left out; quick: an attempt process
    that fails within this time without beginning a task failed for the node's reasons.
    """

    look: float = 10.0
    poll: float = 2.0
    grace: float = 60.0
    end: float = 60.0
    backoff: float = 10.0
    longest_backoff: float = 600.0
    verdict: float = 15.0
    margin: float = 60.0
    avoid: float = 6 * 3600.0
    quick: float = 30.0


@dataclass(frozen=True)
class Engine:
    """What all batch pools of a driver share; queues: one per type of batch system."""

    run_folder: Path
    campaign_id: str
    epoch: int
    link: Link
    records: JobRecords
    queues: Mapping[str, QueueWatch]
    timing: Timing
