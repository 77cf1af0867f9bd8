"""The simulated world that a real campaign's record describes: sizes, durations, pools, failures and queue waits."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from simulated_campaign import KINDS, Duration, SimPool, World

from alloop.campaign import Campaign
from alloop.pool_params import BatchPoolParam, LocalPoolParam, PoolsParam, pool_of, pool_slots
from alloop.store import MANIFEST, failures, read_json

NOT_DRAWN = ("interrupted", "late", "walltime")
"""Failure classes that are no chance of an attempt's: a driver's end, a second attempt, and a job's (as simulated)."""


def replayed(folder: Path) -> tuple[World, dict[str, Any]]:
    """Return the world that a real campaign's record describes, and what that campaign took.

    Pools and sizes are those of its last start. Waits are those of batch jobs still on record, which is a day after
    their end; a pool without any has no wait.
    """
    campaign = Campaign(folder)
    state = campaign.load()
    durations, failed, last = _attempts(campaign)
    config, limit = state.starts[-1]["config"], state.starts[-1]["limit"]
    params: dict[str, LocalPoolParam | BatchPoolParam] = TypeAdapter(PoolsParam).validate_python(config["pools"])
    explores = [decision for (kind, _), decision in state.decisions.items() if kind == "explore"]
    chunks = max((len(decision["tasks"]) for decision in explores), default=1)
    labels = sum(pick.get("iteration", -1) >= 0 for pick in state.picks.values())
    per_iteration = config["select"]["max_labels"]
    world = World(
        labels=max(1, labels),
        labels_per_iteration=per_iteration,
        train_after=config["train"]["after_labels"] or max(1, per_iteration // 3),
        models=config["train"]["models"],
        chunks=chunks,
        chunks_per_trajectory=min(chunks, config["explore"]["chunks"]),
        seed_labels=max(1, len(state.picks) - labels),
        durations=World().durations | {kind: Duration(0, record=tuple(found)) for kind, found in durations.items()},
        pools=_pools(campaign.run_folder / "jobs", params, limit["slots"]),
        runs_on={kind: pool_of(params, kind) for kind in KINDS},
        fails={
            kind: {name: count / (classes.total() + len(durations.get(kind, ()))) for name, count in classes.items()}
            for kind, classes in failed.items()
        },
        max_lag=config["explore"]["max_lag"],
        ensembles=max(1, len(explores)),
    )
    real = {
        "slots": {name: pool.slots for name, pool in world.pools.items()},
        "queue_waits": {name: len(pool.queue_wait.record) for name, pool in world.pools.items() if pool.queue_wait},
        "failures": {kind: dict(classes) for kind, classes in failed.items()},
        "barrier": limit.get("barrier"),
        "labels": len(state.picks),
        "from": state.identity["time"],
        "to": last,
    }
    return world, real


def _attempts(campaign: Campaign) -> tuple[dict[str, list[float]], dict[str, Counter[str]], str | None]:
    """Return, by kind of task, how long it took and how often it failed in which class; and when the last one ended."""
    state = campaign.state
    durations: dict[str, list[float]] = {}
    failed: dict[str, Counter[str]] = {}
    ends: list[str] = []
    for key, task in state.tasks.items():
        tried = True
        if key in state.done:
            record = read_json(campaign.result(key) / MANIFEST)["record"]
            durations.setdefault(task.kind, []).append(record["seconds"])
            ends.append(record["ended"])
            tried = bool(record.get("failed_attempts"))
        if tried:
            classes = [failure["class"] for failure in failures(campaign.folder(key))]
            failed.setdefault(task.kind, Counter()).update(name for name in classes if name not in NOT_DRAWN)
    return durations, {kind: classes for kind, classes in failed.items() if classes}, max(ends, default=None)


def _pools(jobs: Path, params: dict[str, LocalPoolParam | BatchPoolParam], slots: int) -> dict[str, SimPool]:
    """Return the pools of a campaign; slots: of all, which tells those of local pools that name no number."""
    found: dict[str, SimPool] = {}
    waits = _queue_waits(jobs, params)
    named = sum(pool_slots(pool) for pool in params.values() if isinstance(pool, BatchPoolParam) or pool.slots)
    for name, pool in params.items():
        if isinstance(pool, BatchPoolParam):
            wait = Duration(0, record=tuple(waits[name])) if name in waits else None
            found[name] = SimPool(pool_slots(pool), pool.slots_per_job, wait, 60 * pool.walltime_minutes)
        else:
            found[name] = SimPool(pool.slots or max(1, slots - named), walltime_s=math.inf)
    return found


def _queue_waits(jobs: Path, params: dict[str, LocalPoolParam | BatchPoolParam]) -> dict[str, list[float]]:
    """Return, by batch pool, how long each job on record waited: from its creation to the begin of its walltime."""
    found: dict[str, list[float]] = {}
    for file in sorted(jobs.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            job = read_json(file)
            pool = params.get(job["pool"])
            if isinstance(pool, BatchPoolParam) and job["ends"] is not None:
                began = job["ends"] - 60 * pool.walltime_minutes
                found.setdefault(job["pool"], []).append(max(0.0, began - job["created"]))
    return found
