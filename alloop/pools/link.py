"""The driver's connection to its batch jobs: the scheduler that runs or is started, and the workers that are connected.

All of it happens in a thread of its own, so that nothing here can hold up the driver. When the scheduler dies, the
connection is given up, another one is started, and the workers in jobs that still run connect to that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alloop.pools import scheduler
from alloop.pools.keys import campaign_keys, security
from alloop.pools.worker import connected, describe, terminate
from alloop.process import ProcessIdentity

LOGGER = logging.getLogger(__name__)
CALL_SECONDS = 15.0
FAILED_POLLS = 3
_LONGEST_PAUSE_S = 60.0
"""A scheduler that does not answer so often in a row is given up, even if its process lives."""
DESCRIBE_SECONDS = 10.0


@dataclass(frozen=True)
class Worker:
    """A dask worker in a job; times on the driver's monotonic clock.

    ends: when the job's walltime ends; seen: when it last told what runs in its job; attempts: what ran then.
    """

    address: str
    node: str
    ends: float
    seen: float
    attempts: frozenset[ProcessIdentity]


def pause_s(failures: int, poll_s: float) -> float:
    """Return how long to wait for the next look after so many in a row that failed, at most a minute."""
    if failures < FAILED_POLLS:
        return poll_s
    return min(2.0 ** min(failures, 16), _LONGEST_PAUSE_S)


class Link:
    """Connection to the campaign's scheduler, kept up by a thread from the first `need` on.

    workers: connected workers by the name of their job, replaced as a whole at each look.
    """

    def __init__(self, run_folder: Path, campaign_id: str, idle_minutes: float, poll_s: float) -> None:
        self.run_folder = run_folder
        self.workers: dict[str, Worker] = {}
        self.problem = ""
        self._campaign_id = campaign_id
        self._idle_minutes = idle_minutes
        self._poll_s = poll_s
        self._client: Any = None
        self._record: dict[str, Any] | None = None
        self._started: list[subprocess.Popen[bytes]] = []
        self._interfaces: set[str | None] = set()
        self._failed = 0
        self._tasks: deque[Callable[[Any], Any]] = deque()
        self._curious: dict[str, set[str]] = {}
        self._wake = threading.Event()
        self._needed = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="scheduler-link", daemon=True)
        self._thread.start()

    def address_file(self, interface: str | None) -> Path:
        """Return the file in which jobs find the scheduler's address as seen from a network interface."""
        self._interfaces.add(interface)
        return self.run_folder / f"scheduler.address{f'.{interface}' if interface else ''}"

    def need(self) -> None:
        """Say that a scheduler is needed from now on."""
        self._needed.set()

    def ready(self) -> bool:
        """Tell whether a scheduler is there and its address written down: a job begun before would wait or end."""
        return self._client is not None

    def look_at(self, pool: str, jobs: set[str]) -> None:
        """Say of which jobs of a pool the attempts matter, so that their workers are asked again and again."""
        self._curious[pool] = jobs

    def submit(self, address: str, key: str, function: Callable[..., Any], *arguments: Any) -> Any | None:
        """Run a function on one worker and no other; return its future, None if there is no scheduler now."""
        client = self._client
        if client is None or client.status != "running":
            return None
        with contextlib.suppress(Exception):
            return client.submit(
                function, *arguments, key=key, workers=[address], allow_other_workers=False, pure=False, retries=0
            )
        return None

    def retire(self, address: str) -> None:
        """Let a worker end, soon."""

        async def retired(client: Any) -> None:
            await client.scheduler.retire_workers(workers=[address], close_workers=True, remove=True)

        self._tasks.append(retired)
        self._wake.set()

    def terminate(self, address: str, owners: list[dict[str, Any]]) -> None:
        """End attempts on the node of a worker, soon."""

        async def ended(client: Any) -> None:
            await client._run(terminate, owners, workers=[address])

        self._tasks.append(ended)
        self._wake.set()

    def close(self, *, end_scheduler: bool) -> None:
        """Let go of the scheduler, which goes on for a later driver, or end it."""
        self._closed = True
        self._needed.set()
        self._wake.set()
        self._thread.join(2 * CALL_SECONDS)
        if end_scheduler and self._record is not None and not scheduler.is_gone(self._record):
            process = ProcessIdentity.from_json(self._record)
            if process.is_local():
                terminate([process.to_json()])
                _wait_until(lambda: self._reap() or not process.alive(), 10.0)

    # ---------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while True:
            self._needed.wait()
            if self._closed:
                break
            self._reap()
            try:
                if self._client is None:
                    self._connect()
                self._poll()
                self._failed, self.problem = 0, ""
            except Exception as error:  # whatever dask raises, the next look is the answer
                self._failed += 1
                self.problem = f"dask scheduler: {type(error).__name__}: {error}".strip(": ")
                dead = self._record is not None and scheduler.is_gone(self._record)
                if dead or self._failed >= FAILED_POLLS:
                    self._let_go()
            self._wake.wait(pause_s(self._failed, self._poll_s))
            self._wake.clear()
        self._let_go()

    def _reap(self) -> bool:
        """Collect schedulers this process started and that have ended; always False."""
        self._started = [process for process in self._started if process.poll() is None]
        return False

    def _connect(self) -> None:
        from distributed import Client

        for name in list(logging.root.manager.loggerDict):
            if name.startswith("distributed"):  # what it has to say is in `problem`
                logging.getLogger(name).setLevel(logging.CRITICAL)

        record = scheduler.read_record(self.run_folder, self._campaign_id)
        stale = record is not None and record == self._record and self._failed >= FAILED_POLLS
        if record is None or stale or scheduler.is_gone(record):
            record = self._start_scheduler()
        self._record = record
        address = f"tls://{scheduler.host_address(None)}:{record['port']}"
        if not ProcessIdentity.from_json(record).is_local():
            address = record["address"]
        keys = campaign_keys(self.run_folder / "tls", self._campaign_id)
        self._tell_addresses(record)
        self._client = Client(address, security=security(keys), timeout=CALL_SECONDS, set_as_default=False)

    def _tell_addresses(self, record: dict[str, Any]) -> None:
        local = ProcessIdentity.from_json(record).is_local()
        for interface in tuple(self._interfaces):
            host = f"tls://{scheduler.host_address(interface)}:{record['port']}"
            text = f"{host if local else record['address']}\n"
            file = self.address_file(interface)
            if not file.exists() or file.read_text() != text:
                aside = file.with_name(f".tmp.{file.name}")
                aside.write_text(text)
                aside.rename(file)

    def _start_scheduler(self) -> dict[str, Any]:
        campaign_keys(self.run_folder / "tls", self._campaign_id)
        process = scheduler.start(self.run_folder, self._campaign_id, self._idle_minutes)
        self._started.append(process)

        def ready() -> Any:
            if process.poll() is not None:
                tail = (self.run_folder / "scheduler.log").read_text(errors="replace").strip().splitlines()[-1:]
                raise RuntimeError(f"ended with code {process.returncode}: {' '.join(tail)}")
            record = scheduler.read_record(self.run_folder, self._campaign_id)
            return record if record is not None and record["pid"] == process.pid else None

        record = _wait_until(ready, scheduler.START_SECONDS)
        if record is None:
            process.terminate()
            raise TimeoutError(f"no scheduler within {scheduler.START_SECONDS:g} s of its start")
        return record

    def _let_go(self) -> None:
        client, self._client, self.workers = self._client, None, {}
        if client is not None:
            with contextlib.suppress(Exception):
                client.close(timeout=2)

    def _poll(self) -> None:
        client = self._client
        if self._record is not None and scheduler.is_gone(self._record):
            raise ConnectionError("its process is gone; another one is started")
        while self._tasks:
            try:  # a worker that is gone needs no farewell; who wants an attempt ended asks again
                client.sync(self._tasks.popleft(), client, callback_timeout=CALL_SECONDS)
            except Exception as error:
                LOGGER.warning("a worker did not hear: %s: %s", type(error).__name__, error)
        names = client.sync(client._run_on_scheduler, connected, callback_timeout=CALL_SECONDS)
        now = time.monotonic()
        curious = set().union(*self._curious.values())
        found: dict[str, Worker] = {}
        unknown: dict[str, str] = {}
        for name, address in names.items():
            worker = self.workers.get(name)
            if worker is None or worker.address != address:
                unknown[address] = name
                continue
            found[name] = worker
            if name in curious and now - worker.seen > 2 * self._poll_s:
                unknown[address] = name
        if unknown:
            told = client.sync(_describe_all, client, list(unknown), callback_timeout=4 * DESCRIBE_SECONDS)
            for address, answer in told.items():
                if answer is not None:
                    found[unknown[address]] = _worker(address, answer, now)
        self.workers = found


def _worker(address: str, answer: dict[str, Any], asked: float) -> Worker:
    attempts = frozenset(ProcessIdentity.from_json(record) for record in answer["attempts"])
    return Worker(address, answer["node"], asked + answer["remaining_s"], asked, attempts)


async def _describe_all(client: Any, addresses: list[str]) -> dict[str, dict[str, Any] | None]:
    """Ask workers about themselves, all at once; None for one that does not answer."""

    async def ask(address: str) -> tuple[str, dict[str, Any] | None]:
        try:
            told = await asyncio.wait_for(client._run(describe, workers=[address]), DESCRIBE_SECONDS)
            return address, told[address]
        except Exception:  # gone or hung: as good as not connected
            return address, None

    return dict(await asyncio.gather(*map(ask, addresses)))


def _wait_until(condition: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    return None
