"""Local pools: attempts as child processes of the workers of a dask LocalCluster, one worker per slot.

The attempt is a process of its own session, so it outlives worker and driver; a later driver adopts it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alloop.pool_params import LocalPoolParam, pool_slots
from alloop.pools import Ended, Slot
from alloop.pools.starting import attempt_command, free_number, log_problem, outcome, run_process
from alloop.potential.environment import md_environment
from alloop.process import ProcessIdentity


class LocalHost:
    """The dask cluster on this machine, which all local pools of a driver share; it starts when first needed."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._cluster: Any = None
        self._client: Any = None

    @property
    def client(self) -> Any:
        """The client of the cluster."""
        if self._client is None:
            self._cluster, self._client = _start_cluster(self._slots)
        return self._client

    def close(self) -> None:
        """Stop the dask workers; attempts that still run go on by themselves."""
        if self._client is not None:
            self._client.close()
            self._cluster.close()
            self._cluster = self._client = None


class LocalPool:
    """At most `slots` batches at once on this machine."""

    def __init__(
        self,
        name: str,
        param: LocalPoolParam,
        host: LocalHost,
        events: queue.SimpleQueue[Ended],
        run_folder: Path,
        epoch: int,
    ) -> None:
        self.name = name
        self.slots = pool_slots(param)
        self.epoch = epoch
        self._param = param
        self._host = host
        self._log = run_folder / "attempts.log"
        self._events = events
        self._lock = threading.Lock()
        self._busy: dict[int, str] = {}
        self._adopted: dict[ProcessIdentity, tuple[int, tuple[str, ...]]] = {}

    def free_slots(self) -> list[Slot]:
        """Return the slots without work; attempts adopted from an earlier driver count as work."""
        with self._lock:
            taken = self._taken()
            return [Slot(self.name, str(number)) for number in range(self.slots) if number not in taken]

    def _taken(self) -> set[int]:
        return {*self._busy, *(number for number, _ in self._adopted.values())}

    def demand(self, batches: int, longest_s: float | None) -> None:
        """Do nothing: a machine does not grow."""

    def start(self, slot: Slot, keys: tuple[str, ...], folders: list[Path]) -> None:
        """Start one process for a batch of tasks of one kind."""
        number, name = int(slot.name), f"attempt-{uuid.uuid4().hex[:12]}"
        with self._lock:
            self._busy[number] = name
        command = attempt_command(self._param.python, self.epoch, folders)
        future = self._host.client.submit(
            run_process, command, self._environment(number), str(self._log), key=name, pure=False, retries=0
        )

        def report(done: Any) -> None:
            with self._lock:
                del self._busy[number]
            code, problem = outcome(done)
            if problem:
                log_problem(self._log, problem)
            self._events.put(Ended(keys, code))

        future.add_done_callback(report)

    def _environment(self, number: int) -> dict[str, str]:
        own = {"ALLOOP_POOL": self.name, "ALLOOP_SLOT": str(number), "ALLOOP_CORES": str(self._param.threads)}
        if self._param.gpus:
            own |= {"CUDA_VISIBLE_DEVICES": str(number % self._param.gpus), "ALLOOP_GPUS": "1"}
        return os.environ | md_environment(self._param.threads) | own

    def adopt(self, owner: dict[str, Any], keys: tuple[str, ...], folders: list[Path]) -> None:
        """Watch a process that an earlier driver started; its end is reported like any other."""
        process = ProcessIdentity.from_json(owner)
        with self._lock:
            watched = process in self._adopted
            place, known = self._adopted.get(process, (None, ()))
            place = free_number(owner.get("slot"), self.slots, self._taken()) if place is None else place
            self._adopted[process] = place, tuple(dict.fromkeys(known + keys))
        if not watched:
            threading.Thread(target=self._watch, args=(process,), daemon=True).start()

    def _watch(self, process: ProcessIdentity) -> None:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(process.pid)
            try:
                if process.alive():
                    select.select([descriptor], [], [])
            finally:
                os.close(descriptor)
        with self._lock:
            _, ended = self._adopted.pop(process)
        self._events.put(Ended(ended, None))

    def alive(self, owner: dict[str, Any]) -> bool:
        """Tell whether the process of an attempt's record still runs; False for one of another host."""
        return ProcessIdentity.from_json(owner).alive()

    def end(self, owners: Iterable[dict[str, Any]]) -> None:
        """End attempts with all their children (SIGTERM to each one's own session)."""
        for process in map(ProcessIdentity.from_json, owners):
            if process.pid > 1 and process.alive():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGTERM)

    def troubles(self) -> list[str]:
        """Return nothing: what goes wrong on this machine shows in the attempts."""
        return []

    def close(self, *, cancel_jobs: bool) -> None:
        """Do nothing: the cluster belongs to all local pools, and attempts that still run go on by themselves."""


def _start_cluster(slots: int) -> tuple[Any, Any]:
    import dask
    from distributed import Client, LocalCluster

    dask.config.set(
        {
            "distributed.scheduler.work-stealing": False,
            "distributed.scheduler.allowed-failures": 1_000_000,
            "distributed.worker.memory.terminate": False,
            "distributed.worker.profile.enabled": False,  # it samples a hundred times a second
            "distributed.admin.tick.interval": "1s",
            "distributed.admin.tick.limit": "1h",
            "distributed.admin.system-monitor.interval": "10s",
        }
    )
    # A terminal's Ctrl-C goes to the whole process group; the workers, which start here, shall not hear it.
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        cluster = LocalCluster(
            n_workers=slots,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            silence_logs=50,
            security=True,  # keys that live in memory only: an open port would be an open account
        )
        return cluster, Client(cluster)
    finally:
        signal.signal(signal.SIGINT, heard)
