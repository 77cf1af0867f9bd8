"""The section `pools` of `param.json`: where each kind of task runs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StringConstraints, Tag

from alloop.param_types import Count, CountOrZero, Positive, Section

TaskKind = Literal["bootstrap", "label", "train", "explore", "evaluate", "quench"]
LOCAL = "local"
"""Name of the pool that always exists, and runs what no other pool does."""


class LocalPoolParam(Section):
    """Work on the machine of the driver, through a dask LocalCluster."""

    type: Literal["local"] = Field("local", description="local")
    tasks: list[TaskKind] = Field([], description="kinds of task that run here; `local` takes what is left")
    slots: Count | None = Field(None, description="tasks at once; the number of cores if not given")
    threads: Count = Field(1, description="threads per task")
    gpus: CountOrZero = Field(0, description="GPUs of the machine that its slots share")
    python: str | None = Field(None, description="Python that runs the tasks here; alloop's own if not given")


def _size(text: str) -> str:
    """Return the text as it is; ValueError if dask-jobqueue would not take it for a size."""
    from dask.utils import parse_bytes

    try:
        if parse_bytes(text) > 0:
            return text
    except ValueError:
        pass
    raise ValueError(f"found {text!r}, expected a size such as 100GB")


class BatchPoolParam(Section):
    """Work in jobs of a batch system, through dask-jobqueue."""

    type: Literal["slurm", "pbs", "lsf", "sge"] = Field(description="the batch system")
    tasks: list[TaskKind] = Field(description="kinds of task that run here")
    jobs: Count = Field(1, description="jobs at once, at most")
    slots_per_job: Count = Field(1, description="tasks at once in one job")
    threads: Count = Field(1, description="threads per task")
    cores: Count | None = Field(None, description="cores of one job; slots_per_job x threads if not given")
    memory: Annotated[str, AfterValidator(_size)] = Field("4GB", description="memory of one job")
    gpus: CountOrZero = Field(0, description="GPUs of one job, which its slots share; ask for them in options")
    walltime_minutes: Positive = Field(description="time limit of one job")
    queue: str | None = Field(None, description="queue or partition")
    idle_minutes: Positive = Field(5.0, description="a job without work for so long is ended")
    submits_per_minute: Positive = Field(20.0, description="jobs submitted per minute, at most")
    prologue: list[str] = Field(
        [], description="lines of the job script before the work; not for modules of VASP or CP2K (label.run.modules)"
    )
    python: str | None = Field(None, description="Python on the nodes; alloop's own if not given")
    options: dict[str, Any] = Field({}, description="any further option of dask-jobqueue, such as account")


def _kind_of_pool(value: Any) -> str:
    kind = value.get("type", LOCAL) if isinstance(value, Mapping) else getattr(value, "type", LOCAL)
    return LOCAL if kind == LOCAL else "batch"


PoolParam = Annotated[
    Annotated[LocalPoolParam, Tag(LOCAL)] | Annotated[BatchPoolParam, Tag("batch")], Discriminator(_kind_of_pool)
]
PoolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


def _with_local(value: Any) -> Any:
    return {LOCAL: {}, **value} if isinstance(value, Mapping) else value


PoolsParam = Annotated[dict[PoolName, PoolParam], BeforeValidator(_with_local)]


def check_pools(pools: Mapping[str, LocalPoolParam | BatchPoolParam]) -> None:
    """Raise ValueError if a kind of task has two pools, `local` is no local one, or a pool has nothing to run."""
    owner: dict[str, str] = {}
    if pools[LOCAL].type != LOCAL:
        raise ValueError("pools.local must be of type local; give the batch pool another name")
    for name, pool in pools.items():
        for kind in pool.tasks:
            if owner.setdefault(kind, name) != name:
                raise ValueError(f"{kind} is in the tasks of both pools.{owner[kind]} and pools.{name}; name it once")
        if not pool.tasks and name != LOCAL:
            raise ValueError(f"pools.{name} names no tasks; give the kinds it shall run, or leave it out")


def pool_of(pools: Mapping[str, LocalPoolParam | BatchPoolParam], kind: str) -> str:
    """Return the name of the pool that runs a kind of task; relaxing with the labeler runs where labels are made."""
    wanted = "label" if kind == "relax" else kind
    return next((name for name, pool in pools.items() if wanted in pool.tasks), LOCAL)


def pool_slots(pool: LocalPoolParam | BatchPoolParam) -> int:
    """Return how many tasks a pool runs at once; for a local one without a number, one per usable core."""
    if isinstance(pool, BatchPoolParam):
        return pool.jobs * pool.slots_per_job
    return pool.slots or len(os.sched_getaffinity(0))


_LAST_SECONDS = 60.0
_OF_A_JOB = 0.9


def job_time_s(pool: LocalPoolParam | BatchPoolParam) -> float:
    """Return the time a batch of tasks may ask for: of a fresh job all but what its start and its last minute take."""
    if isinstance(pool, LocalPoolParam):
        return math.inf
    return _OF_A_JOB * (60 * pool.walltime_minutes - _LAST_SECONDS)
