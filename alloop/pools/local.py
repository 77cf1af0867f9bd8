"""The local pool: attempts as child processes of the workers of a dask LocalCluster, one per slot.

The attempt is a process of its own session, so it outlives worker and driver; a later driver adopts it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

from alloop.pools import Ended
from alloop.potential.environment import md_environment
from alloop.process import ProcessIdentity


def run_process(command: list[str], environment: dict[str, str], log: str) -> int:
    """Run a command in its own session, its output appended to a file, and return its return code."""
    with Path(log).open("ab") as stream:
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
        return child.wait()


class LocalPool:
    """At most `slots` batches at once on this machine."""

    def __init__(self, slots: int, threads: int, run_folder: Path, epoch: int) -> None:
        self.slots = slots
        self.epoch = epoch
        self._environment = os.environ | md_environment(threads)
        self._log = run_folder / "attempts.log"
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._busy: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()
        self._adopted: dict[ProcessIdentity, tuple[str, ...]] = {}
        self._cluster, self._client = _start_cluster(slots)

    @property
    def free(self) -> int:
        """Number of slots without work; attempts adopted from an earlier driver count as work."""
        return self.slots - len(self._busy) - len(self._adopted)

    def start(self, keys: tuple[str, ...], folders: list[Path]) -> None:
        """Start one process for a batch of tasks of one kind."""
        name = f"attempt-{uuid.uuid4().hex[:12]}"
        command = [sys.executable, "-m", "alloop.attempt", "--epoch", str(self.epoch), *map(str, folders)]
        self._busy[name] = keys
        future = self._client.submit(
            run_process, command, self._environment, str(self._log), key=name, pure=False, retries=0
        )
        future.add_done_callback(lambda done: self._ended.put(self._outcome(name, done)))

    def _outcome(self, name: str, future: Any) -> Ended:
        keys = self._busy.pop(name)
        return Ended(keys, future.result() if future.status == "finished" else None)

    def adopt(self, process: ProcessIdentity, keys: tuple[str, ...]) -> None:
        """Watch a process that an earlier driver started; its end is reported like any other."""
        with self._lock:
            watched = process in self._adopted
            self._adopted[process] = tuple(dict.fromkeys(self._adopted.get(process, ()) + keys))
        if watched:
            return

        def watch() -> None:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(process.pid)
                try:
                    if process.alive():
                        select.select([descriptor], [], [])
                finally:
                    os.close(descriptor)
            with self._lock:
                ended = self._adopted.pop(process)
            self._ended.put(Ended(ended, None))

        threading.Thread(target=watch, daemon=True).start()

    def wait(self, seconds: float) -> list[Ended]:
        """Return the batches that have ended, waiting up to `seconds` for the first."""
        ended = []
        with contextlib.suppress(queue.Empty):
            ended.append(self._ended.get(timeout=seconds))
            while True:
                ended.append(self._ended.get_nowait())
        return ended

    @staticmethod
    def end(processes: list[ProcessIdentity]) -> None:
        """End attempts with all their children (SIGTERM to each one's own session)."""
        for process in processes:
            if process.pid > 1 and process.alive():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGTERM)

    def close(self) -> None:
        """Stop the dask workers; attempts that still run go on by themselves."""
        self._client.close()
        self._cluster.close()


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
        )
        return cluster, Client(cluster)
    finally:
        signal.signal(signal.SIGINT, heard)
