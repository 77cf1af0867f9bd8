"""What is sent to dask: functions that run inside a worker on a compute node, or inside the scheduler."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from alloop.pools.drain import attempts_in_job
from alloop.pools.starting import attempt_command, run_process
from alloop.process import ProcessIdentity


@dataclass(frozen=True)
class Share:
    """What one slot of a job may use: its cores, and its part of the job's GPUs."""

    slot: int
    slots: int
    cores: int
    gpus_of_job: int = 0


def run_attempt(python: str | None, epoch: int, folders: list[str], share: Share, log: str) -> int:
    """Run tasks as one process of its own session on the worker's node and return its return code."""
    from alloop.potential.environment import md_environment

    own = {"ALLOOP_CORES": str(share.cores), "ALLOOP_SLOT": str(share.slot)}
    if share.gpus_of_job:
        devices = gpu_share(os.environ.get("CUDA_VISIBLE_DEVICES"), share)
        own |= {"CUDA_VISIBLE_DEVICES": devices, "ALLOOP_GPUS": str(devices.count(",") + 1)}
    environment = os.environ | md_environment(share.cores) | own
    return run_process(attempt_command(python, epoch, [Path(folder) for folder in folders]), environment, log)


def gpu_share(visible: str | None, share: Share) -> str:
    """Return the GPUs of one slot as CUDA_VISIBLE_DEVICES names them; with fewer GPUs than slots they are shared.

    visible: those that the job sees; without that, its GPUs are counted from 0.
    """
    devices = visible.split(",") if visible else [str(number) for number in range(share.gpus_of_job)]
    size = max(1, len(devices) // share.slots)
    return ",".join(devices[(share.slot * size) % len(devices) :][:size])


def describe() -> dict[str, Any]:
    """Return, on a worker, its node, how many seconds its job has left, and which attempts run in the job."""
    attempts = []
    for process in attempts_in_job(os.environ.get("ALLOOP_JOB", "")):
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            attempts.append(ProcessIdentity.of(process.pid).to_json())
    return {
        "node": os.environ.get("SLURMD_NODENAME") or platform.node(),
        "remaining_s": float(os.environ.get("ALLOOP_JOB_END", "inf")) - time.time(),
        "attempts": attempts,
    }


def terminate(owners: Iterable[dict[str, Any]]) -> None:
    """End attempts of this host with all their children (SIGTERM to each one's own session)."""
    for process in map(ProcessIdentity.from_json, owners):
        if process.pid > 1 and process.alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGTERM)


def connected(dask_scheduler: Any) -> dict[str, str]:
    """Return, on the scheduler, the workers that take work: address by name."""
    return {
        str(worker.name): address
        for address, worker in dask_scheduler.workers.items()
        if worker.status.name == "running"
    }
