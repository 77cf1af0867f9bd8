"""A driver that dies at a commit point of a submission: its successor neither loses the job nor submits it twice."""

from __future__ import annotations

import os
import signal

import pytest
from pools_kit import World

from alloop import failpoint

pytestmark = pytest.mark.ci
JOBS = 2


@pytest.mark.parametrize("point", ["job:recorded", "submit:before", "submit:after", "job:noted"])
def test_no_job_is_lost_or_doubled_wherever_its_submission_was_killed(world: World, point: str) -> None:
    assert killed_driver(world, point) == -signal.SIGKILL
    reached = [job["name"] for job in world.queue.jobs()]
    assert len(reached) == (point in ("submit:after", "job:noted"))
    (left,) = world.names()
    assert bool(world.record(left)["id"]) == (point == "job:noted")
    world.drive(jobs=JOBS)
    world.until(lambda: len(world.queue.jobs()) == JOBS, batches=9)
    world.settle(batches=9, seconds=1.0)
    names = sorted(job["name"] for job in world.queue.jobs())
    ids = {job["name"]: job["id"] for job in world.queue.jobs()}
    assert len(names) == JOBS and set(reached) <= set(names)
    living = [name for name in world.names() if world.record(name)["gone"] is None]
    assert living == names, "each job in the queue has its record, and the other way round"
    assert {name: world.record(name)["id"] for name in living} == ids
    assert (left in names) == bool(reached), "an intent that never reached the queue is given up"


def killed_driver(world: World, point: str) -> int:
    """Drive the pool in a child until it dies at a commit point; return how it ended."""
    pid = os.fork()
    if not pid:
        failpoint.armed = failpoint.Armed(name=point)
        try:
            world.drive(jobs=JOBS)
            world.settle(batches=9, seconds=10.0)
        finally:
            os._exit(70)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
