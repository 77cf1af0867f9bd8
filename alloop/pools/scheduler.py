"""The dask scheduler of a campaign's batch jobs, as a process that outlives the driver.

``python -m alloop.pools.scheduler RUN_FOLDER CAMPAIGN_ID IDLE_MINUTES`` serves until it is told to end, another
scheduler has taken its place, its campaign folder is gone, or nobody has used it for two days. It writes
``RUN_FOLDER/scheduler.json`` itself, so that there is no moment at which it runs and nobody could find it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from alloop.pools.keys import campaign_keys, security
from alloop.pools.queues import job_free_environment
from alloop.process import ProcessIdentity, this_process
from alloop.store import read_json, write_json

IDLE_TIMEOUT = "2 days"
START_SECONDS = 60.0
WITHOUT_DRIVER_SECONDS = 600.0
"""When no driver has been connected for so long, workers without work are let go: their jobs would idle for nobody."""

LOOK_SECONDS = 20.0
"""Between looks whether this scheduler is still needed, and by whom."""

CONFIG = {
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.allowed-failures": 1_000_000,
    "distributed.scheduler.idle-timeout": IDLE_TIMEOUT,
    "distributed.admin.tick.limit": "1h",
    "distributed.admin.log-length": 1000,
    "distributed.admin.low-level-log-length": 1000,
}


def record_file(run_folder: Path) -> Path:
    """Return the file in which a campaign's scheduler says who it is and where it listens."""
    return run_folder / "scheduler.json"


def read_record(run_folder: Path, campaign_id: str) -> dict[str, Any] | None:
    """Return the record of this campaign's scheduler; None if there is none, or it is of another folder."""
    try:
        record = read_json(record_file(run_folder))
        if record["campaign"] == campaign_id and record["run_folder"] == str(run_folder.resolve()):
            ProcessIdentity.from_json(record), record["port"], record["address"]
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def is_gone(record: dict[str, Any]) -> bool:
    """Tell whether a scheduler is known to be dead; one on another host has to be asked."""
    process = ProcessIdentity.from_json(record)
    return process.is_local() and not process.alive()


def start(run_folder: Path, campaign_id: str, idle_minutes: float) -> subprocess.Popen[bytes]:
    """Start a scheduler in a session of its own; it is ready once its record has appeared."""
    command = [sys.executable, "-m", "alloop.pools.scheduler", str(run_folder), campaign_id, str(idle_minutes)]
    with (run_folder / "scheduler.log").open("ab") as log:
        return subprocess.Popen(
            command,
            env=job_free_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def host_address(interface: str | None) -> str:
    """Return the IP address by which compute nodes reach this host: that of the interface, if it exists here."""
    from distributed.utils import get_ip, get_ip_interface

    if interface is not None:
        with contextlib.suppress(ValueError):
            return str(get_ip_interface(interface))
    return str(get_ip())


async def serve(run_folder: Path, campaign_id: str, idle_minutes: float) -> None:
    """Run a scheduler until it is time to end."""
    import dask
    from distributed import Scheduler

    dask.config.set(CONFIG)
    keys = campaign_keys(run_folder / "tls", campaign_id)
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    async with Scheduler(
        port=0,
        protocol="tls://",
        security=security(keys),
        dashboard_address="127.0.0.1:0",
        idle_timeout=IDLE_TIMEOUT,
    ) as scheduler:
        record = this_process().to_json() | {
            "campaign": campaign_id,
            "run_folder": str(run_folder.resolve()),
            "address": scheduler.address,
            "port": scheduler.port,
            "dashboard_port": scheduler.http_server.port,
        }
        write_json(record_file(run_folder), record)
        ends = [asyncio.create_task(wait) for wait in (asked.wait(), scheduler.finished(), _replaced(run_folder))]
        ends.append(asyncio.create_task(_let_go(scheduler, idle_minutes)))
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()


async def _replaced(run_folder: Path) -> None:
    """Return once the campaign has another scheduler, or none and no folder any more."""
    silent = 0
    while silent < 3:  # a shared disk may be away for a moment
        await asyncio.sleep(LOOK_SECONDS)
        try:
            if ProcessIdentity.from_json(read_json(record_file(run_folder))) != this_process():
                return
            silent = 0
        except (OSError, ValueError, KeyError):
            silent += not run_folder.is_dir()


async def _let_go(scheduler: Any, idle_minutes: float) -> None:
    """Let workers go that have had no work for some minutes while no driver was connected."""
    seen = time.monotonic()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        now = time.monotonic()
        if any(name.startswith("Client") for name in scheduler.clients):
            seen = now
        elif now - seen > max(WITHOUT_DRIVER_SECONDS, 60 * idle_minutes):
            idle = [address for address, worker in scheduler.workers.items() if not worker.processing]
            if idle:
                await scheduler.retire_workers(workers=idle, close_workers=True, remove=True)


def main() -> None:
    """Serve as told on the command line."""
    parser = argparse.ArgumentParser(prog="python -m alloop.pools.scheduler", description=__doc__)
    parser.add_argument("run_folder", type=Path)
    parser.add_argument("campaign_id")
    parser.add_argument("idle_minutes", type=float)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.run_folder.resolve(), arguments.campaign_id, arguments.idle_minutes))


if __name__ == "__main__":
    main()
