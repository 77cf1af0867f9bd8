"""Batch pools: attempts in jobs of Slurm, PBS, LSF or Grid Engine.

A job is submitted when work waits, runs attempts in its slots one after the other, and is ended when there is nothing
left for it. Its record, the queue and the attempts' files say what is; dask only starts attempts and is quick to tell
of their end. Whatever dask loses is watched by other means, and whatever a driver leaves its successor takes up.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alloop.failpoint import failpoint
from alloop.pool_params import BatchPoolParam
from alloop.pools import Ended, Slot, jobqueue
from alloop.pools.drain import end_file
from alloop.pools.engine import Engine
from alloop.pools.jobs import KEPT_SECONDS, Job, Live, settings_hash
from alloop.pools.link import Worker
from alloop.pools.nodes import FAILURES, Nodes
from alloop.pools.queues import Look
from alloop.pools.running import Batch, existing_attempts, sign_of_end
from alloop.pools.starting import CANNOT_START, free_number, log_problem, outcome
from alloop.pools.submission import BackOff, Submitter
from alloop.pools.worker import Share, run_attempt, terminate
from alloop.process import ProcessIdentity

KILLED = (-9, -15, 137, 143)
"""Return codes of a process that was ended from outside."""


class BatchPool:
    """At most `jobs` jobs of one kind, and the attempts in them.

    A retired pool (`jobs` 0) is one that `param.json` no longer names: what runs in its jobs is watched to its end.
    """

    def __init__(
        self,
        name: str,
        param: BatchPoolParam,
        engine: Engine,
        events: queue.SimpleQueue[Ended],
        jobs: list[Job],
        *,
        retired: bool = False,
    ) -> None:
        self.name = name
        self._param = param
        self._engine = engine
        self._timing = engine.timing
        self._events = events
        self._limit = 0 if retired else param.jobs
        self._lock = threading.RLock()
        self._queue = engine.queues[param.type]
        interface = param.options.get("interface")
        self._place = jobqueue.Place(engine.run_folder, engine.link.address_file(interface), engine.run_folder / "tls")
        self._settings = settings_hash(jobqueue.job_script(name, param, "NAME", self._place))
        now = time.monotonic()
        self._live = {
            job.name: Live(job, submitted=0.0 if job.id is not None else now) for job in jobs if job.gone is None
        }
        self._gone = {job.name: job for job in jobs if job.gone is not None}
        self._given_up = {job.name: job for job in jobs if job.gone is not None and job.id is None}
        back_off = BackOff(self._timing.backoff, self._timing.longest_backoff)
        self._submitter = Submitter(name, param, self._place, back_off)
        self._nodes = Nodes(self._timing.avoid)
        self._ended: set[ProcessIdentity] = set()
        self._look = 0
        self._early_deaths = 0
        self._trouble: dict[str, str] = {}
        self._wanted_since: float | None = None
        self._unwanted_since: float | None = time.monotonic()

    # ---------------------------------------------------------------------------------------- what the driver asks

    def free_slots(self) -> list[Slot]:
        """Return the slots of connected workers that may take a batch now."""
        with self._lock:
            return [
                Slot(self.name, f"{live.job.name}/{number}", self._remaining(worker))
                for live, worker in self._usable()
                for number in range(live.job.slots)
                if number not in live.busy
            ]

    def demand(self, batches: int, longest_s: float | None) -> None:
        """Look after the jobs: note what queue and workers say, end what has no use, submit what is wanted."""
        with self._lock:
            if batches or self._live:
                self._engine.link.need()
            if self._live:
                self._queue.ask()
            self._take_back()
            self._note_queue(self._queue.look)
            self._note_workers()
            self._watch_batches()
            self._note_demand(batches)
            self._end_jobs(batches, longest_s)
            self._submit_jobs(batches, longest_s)
            for job in [job for job in self._gone.values() if time.time() - (job.gone or 0.0) > KEPT_SECONDS]:
                self._engine.records.clear(self._gone.pop(job.name))

    def start(self, slot: Slot, keys: tuple[str, ...], folders: list[Path]) -> None:
        """Start one process for a batch on the worker of a slot; if that is gone meanwhile, the batch ends at once."""
        name, _, number = slot.name.partition("/")
        with self._lock:
            found = {live.job.name: (live, worker) for live, worker in self._usable()}
            future = None
            if name in found and int(number) not in found[name][0].busy:
                live, worker = found[name]
                batch = Batch(keys, folders, int(number), worker.address, before=existing_attempts(folders))
                future = self._submit_attempt(worker, batch)
            if future is None:
                self._events.put(Ended(keys, None, "infra"))
                return
            batch.future = future
            live.busy[batch.slot] = batch
        future.add_done_callback(lambda done: self._heard(live, batch, done))

    def adopt(self, owner: dict[str, Any], keys: tuple[str, ...], folders: list[Path]) -> None:
        """Watch an attempt of an earlier driver by its record ``attempt.json``; it occupies a slot until it ends."""
        process = ProcessIdentity.from_json(owner)
        name = owner.get("job") or "unknown"
        with self._lock:
            live = self._live.get(name)
            if live is None:
                live = self._live[name] = Live(
                    Job(name, self.name, self._param.type, "", 0, time.time()), submitted=0.0
                )
                if name in self._gone:
                    live.job.gone = time.time()
            for batch in live.busy.values():
                if batch.owner == process:
                    batch.keys = tuple(dict.fromkeys(batch.keys + keys))
                    batch.folders += [folder for folder in folders if folder not in batch.folders]
                    return
            slot = free_number(owner.get("slot"), live.job.slots, live.busy)
            live.busy[slot] = Batch(keys, list(folders), slot, "", owner=process, watched=time.monotonic())

    def alive(self, owner: dict[str, Any]) -> bool:
        """Tell whether the process of an attempt's record may still run: it is here, or its job is not known gone."""
        process = ProcessIdentity.from_json(owner)
        if process.is_local():
            return process.alive()
        return owner.get("job") not in self._gone and process not in self._ended

    def end(self, owners: Iterable[dict[str, Any]]) -> None:
        """End attempts with all their children: here, through their job's worker, or with their job."""
        for owner in owners:
            name, process = str(owner.get("job")), ProcessIdentity.from_json(owner)
            worker = self._engine.link.workers.get(name)
            with self._lock:
                live = self._live.get(name)
                for batch in live.busy.values() if live is not None else ():
                    batch.find_owner(name)
                    batch.asked = batch.asked or batch.owner == process
                if process.is_local():
                    terminate([owner])
                elif worker is not None:
                    self._engine.link.terminate(worker.address, [owner])
                elif live is not None:
                    self._cancel(live)

    def troubles(self) -> list[str]:
        """Return what a person should know."""
        with self._lock:
            found = [f"pool {self.name}: {text}" for text in self._trouble.values()]
            if self._queue.failures > 2:
                found.append(f"pool {self.name}: the queue does not answer: {self._queue.problem}")
            if self._submitter.trouble:
                found.append(f"pool {self.name}: {self._submitter.trouble}")
            if self._nodes.avoided():
                nodes = ", ".join(sorted(self._nodes.avoided()))
                found.append(f"pool {self.name}: node(s) avoided after {FAILURES} failures in a row: {nodes}")
            if self._engine.link.problem:
                found.append(f"pool {self.name}: {self._engine.link.problem}")
            return found

    def close(self, *, cancel_jobs: bool) -> None:
        """Let go of the jobs, or cancel them all."""
        with self._lock:
            if cancel_jobs:
                for live in self._live.values():
                    self._tell_to_end(live)
                ids = [live.job.id for live in self._live.values() if live.job.id is not None]
                if ids:
                    self._submitter.cancel(self._param.type, ids)
        self._submitter.close()

    def has_jobs(self) -> bool:
        """Tell whether any of the pool's jobs is not known to be gone or told to end."""
        with self._lock:
            return any(live.job.told is None for live in self._live.values())

    # ---------------------------------------------------------------------------------------- slots

    def _remaining(self, worker: Worker) -> float:
        return worker.ends - time.monotonic() - self._timing.margin

    def _ranked(self) -> list[Live]:
        """Return the jobs that are not gone, those at work first, then the oldest."""
        living = [live for live in self._live.values() if live.job.gone is None]
        return sorted(living, key=lambda live: (not live.busy, live.job.created))

    def _usable(self) -> list[tuple[Live, Worker]]:
        """Return the jobs that may be given work, with their workers; those beyond the pool's size get no more."""
        workers, avoided = self._engine.link.workers, self._nodes.avoided()
        return [
            (live, workers[live.job.name])
            for live in self._ranked()[: self._limit]
            if live.job.name in workers
            and live.job.told is None
            and live.job.settings == self._settings
            and workers[live.job.name].node not in avoided
            and self._remaining(workers[live.job.name]) > 0
        ]

    def _submit_attempt(self, worker: Worker, batch: Batch) -> Any | None:
        param = self._param
        share = Share(batch.slot, param.slots_per_job, param.threads, param.gpus)
        folders = [str(folder) for folder in batch.folders]
        log = str(self._engine.run_folder / "attempts.log")
        key = f"attempt-{self._engine.epoch}-{time.monotonic_ns()}"
        return self._engine.link.submit(
            worker.address, key, run_attempt, param.python, self._engine.epoch, folders, share, log
        )

    # ---------------------------------------------------------------------------------------- ends of batches

    def _heard(self, live: Live, batch: Batch, future: Any) -> None:
        """Note what dask says of a batch, from any thread: its end, or that it is out of sight."""
        code, problem = outcome(future)
        future.release()
        if problem:
            log_problem(self._engine.run_folder / "attempts.log", problem)
        with self._lock:
            if problem:
                self._trouble["start"] = f"no process could be started on node {live.job.node}: {problem}"
            batch.future = None
            if live.busy.get(batch.slot) is not batch:
                return
            batch.return_code = code
            if code in KILLED and not batch.asked:
                batch.killed = time.monotonic()
            elif code is None:
                batch.watched = time.monotonic()
            else:
                self._finish(live, batch, self._cause_of(live, batch, code))

    def _cause_of(self, live: Live, batch: Batch, code: int) -> str:
        if code == 0:
            return ""
        began = batch.attempts()
        quick = time.monotonic() - batch.began < self._timing.quick
        if quick and not began and not any((folder / "result").exists() for folder in batch.folders):
            return "infra"
        return "walltime" if live.job.remaining_s() < self._timing.margin and not batch.settled() else ""

    def _finish(self, live: Live, batch: Batch, cause: str) -> None:
        live.busy.pop(batch.slot, None)
        live.idle_since = time.monotonic()
        batch.find_owner(live.job.name)
        if batch.owner is not None:
            self._ended.add(batch.owner)
        if batch.return_code == 0:
            self._nodes.succeeded(live.job.node)
        elif self._blames_node(live, batch, cause):
            self._nodes.failed(live.job.node)
        self._events.put(Ended(batch.keys, batch.return_code, cause))

    def _blames_node(self, live: Live, batch: Batch, cause: str) -> bool:
        lost = cause == "infra" and live.job.told is None
        return lost or batch.return_code == CANNOT_START or batch.left_infra_failure()

    def _watch_batches(self) -> None:
        for live in list(self._live.values()):
            worker = self._engine.link.workers.get(live.job.name)
            for batch in list(live.busy.values()):
                if batch.future is not None and (worker is None or worker.address != batch.address):
                    lost, batch.future, batch.watched = batch.future, None, time.monotonic()
                    lost.release()
                if batch.killed is not None:
                    self._judge_killed(live, batch, worker)
                elif batch.watched is not None:
                    self._look_at(live, batch, worker)
            if live.job.gone is not None:
                self._clear_away(live)

    def _look_at(self, live: Live, batch: Batch, worker: Worker | None) -> None:
        others = {other.owner for other in live.busy.values() if other is not batch and other.owner is not None}
        sign = sign_of_end(batch, live.job.name, worker, others)
        if sign == "killed" and not batch.asked:
            batch.killed = time.monotonic()
        elif sign is not None:
            self._finish(live, batch, "infra" if sign == "never began" else "")

    def _judge_killed(self, live: Live, batch: Batch, worker: Worker | None) -> None:
        """Settle a killed batch once it is clear that its job lives on; if the job is gone, that settles it."""
        assert batch.killed is not None
        waited = time.monotonic() - batch.killed
        if live.job.remaining_s() < self._timing.margin:
            self._finish(live, batch, "walltime")
        elif waited > self._timing.verdict * (1 if worker is not None else 4) and live.job.gone is None:
            self._finish(live, batch, "")

    def _clear_away(self, live: Live) -> None:
        """End the batches of a job that is gone; a process on this host may outlive its job."""
        for batch in list(live.busy.values()):
            if batch.owner is None or not batch.owner.alive():
                self._finish(live, batch, live.job.cause)
        if not live.busy:
            del self._live[live.job.name]

    # ---------------------------------------------------------------------------------------- what the queue says

    def _take_back(self) -> None:
        """Take back jobs that seemed never to have been submitted, and turn up after all."""
        for name in [
            name for name in self._given_up if name in self._queue.look.jobs or name in self._engine.link.workers
        ]:
            self._live[name] = Live(self._given_up.pop(name), submitted=0.0)
            self._live[name].job.gone = None
            self._gone.pop(name, None)

    def _note_queue(self, look: Look) -> None:
        if look.number == self._look:
            return
        self._look = look.number
        for live in list(self._live.values()):
            if live.submitted is None or look.began <= live.submitted or live.job.gone is not None:
                continue
            found = look.jobs.get(live.job.name)
            if found is None and live.cancelled is None and live.job.name in self._engine.link.workers:
                live.missing = 0  # its worker is the better witness
                continue
            if found is None:
                live.missing += 1
                if live.missing >= 2:
                    self._note_missing(live)
                continue
            live.missing, live.waiting = 0, found.state == "waiting"
            if (live.job.id, live.job.node) != (found.id, found.host or live.job.node):
                live.job.id, live.job.node = found.id, found.host or live.job.node
                self._save(live.job)
            if found.state == "stuck":
                self._trouble["stuck"] = f"job {found.id} is in an error state of the queue and is cancelled"
                self._cancel(live)

    def _save(self, job: Job) -> None:
        if job.settings:  # one that is only known from an attempt's record has none itself
            self._engine.records.save(job)

    def _note_missing(self, live: Live) -> None:
        """Note that a job is not in the queue, twice in a row: it is gone, or was never submitted."""
        job = live.job
        if job.id is None and job.settings:
            assert live.submitted is not None
            if time.monotonic() - live.submitted < self._timing.grace and not job.connected:
                return
            self._given_up[job.name] = job
        elif job.told is None and not job.connected and job.settings:
            self._early_deaths += 1
            tail = self._engine.records.log_tail(job)
            self._trouble["early"] = f"job {job.id} ended before its worker connected: {tail or 'it printed nothing'}"
            if self._early_deaths > 1:
                self._submitter.wait_after(self._early_deaths)
            self._nodes.failed(job.node)
        walltime = job.ends is not None and time.time() > job.ends - self._timing.margin
        job.cause = "walltime" if walltime else "infra"
        job.gone = time.time()
        self._gone[job.name] = job
        self._save(job)
        for batch in list(live.busy.values()):
            batch.find_owner(job.name)
            batch.watched = batch.watched or time.monotonic()
        if not live.busy:
            del self._live[job.name]

    def _note_workers(self) -> None:
        workers = self._engine.link.workers
        for name, live in self._live.items():
            worker = workers.get(name)
            if worker is None or live.job.gone is not None:
                continue
            ends = time.time() + worker.ends - time.monotonic()
            new = not live.job.connected
            if new or abs((live.job.ends or 0.0) - ends) > 5.0 or live.job.node != worker.node:
                live.job.connected, live.job.ends, live.job.node = True, ends, worker.node
                self._save(live.job)
            if new:
                live.idle_since = time.monotonic()
                self._early_deaths = 0
                self._trouble.pop("early", None)
        watched = {name for name, live in self._live.items() if any(b.watched for b in live.busy.values())}
        self._engine.link.look_at(self.name, watched)

    # ---------------------------------------------------------------------------------------- fewer jobs

    def _note_demand(self, batches: int) -> None:
        now = time.monotonic()
        if batches:
            self._unwanted_since, self._wanted_since = None, self._wanted_since or now
        else:
            self._unwanted_since, self._wanted_since = self._unwanted_since or now, None

    def _end_jobs(self, batches: int, longest_s: float | None) -> None:
        now = time.monotonic()
        avoided = self._nodes.avoided()
        for rank, live in enumerate(self._ranked()):
            if live.job.told is not None:
                told_long_ago = time.time() - live.job.told > self._timing.end
                if told_long_ago and not live.busy and now - (live.cancelled or 0.0) > self._timing.end:
                    self._cancel(live)
            elif not live.busy and live.submitted is not None:
                unfit = rank >= self._limit or live.job.settings != self._settings or live.job.node in avoided
                if unfit or self._is_idle(live, now, batches, longest_s):
                    self._tell_to_end(live)
                    if not live.job.connected:
                        self._cancel(live)

    def _is_idle(self, live: Live, now: float, batches: int, longest_s: float | None) -> bool:
        """Tell whether a job without work has no use: too long idle, unwanted, or too little time left."""
        limit_s = 60 * self._param.idle_minutes
        if not live.job.connected:
            return self._unwanted_since is not None and now - self._unwanted_since > limit_s
        remaining = live.job.remaining_s() - self._timing.margin
        if now - live.idle_since > limit_s or remaining <= 0:
            return True
        fresh = 60 * self._param.walltime_minutes - self._timing.margin
        declined = batches > 0 and self._wanted_since is not None and now - self._wanted_since > 3 * self._timing.poll
        waited = now - live.idle_since > 3 * self._timing.poll
        return declined and waited and longest_s is not None and remaining < longest_s <= fresh

    def _tell_to_end(self, live: Live) -> None:
        live.job.told = live.job.told or time.time()
        self._save(live.job)
        with contextlib.suppress(OSError):
            end_file(self._engine.run_folder, live.job.name).touch()
        worker = self._engine.link.workers.get(live.job.name)
        if worker is not None:
            self._engine.link.retire(worker.address)

    def _cancel(self, live: Live) -> None:
        live.cancelled = time.monotonic()
        if live.job.id is not None:
            self._submitter.cancel(live.job.kind, [live.job.id])

    # ---------------------------------------------------------------------------------------- more jobs

    def _submit_jobs(self, batches: int, longest_s: float | None) -> None:
        fresh = 60 * self._param.walltime_minutes - self._timing.margin
        if longest_s is not None and longest_s > fresh:
            self._trouble["long"] = (
                f"a batch may take {longest_s / 60:.0f} min, and a job has {fresh / 60:.0f} min for it; "
                f"raise pools.{self.name}.walltime_minutes"
            )
        else:
            self._trouble.pop("long", None)
        needed_s = min(longest_s or 0.0, fresh)
        free = coming = 0
        for live, worker in self._usable():
            free += live.job.slots - len(live.busy) if self._remaining(worker) >= needed_s else 0
        for live in self._live.values():
            starts = not live.job.connected and live.job.told is None and live.job.gone is None
            coming += live.job.slots if starts and live.job.settings == self._settings else 0
        wanted = batches > free + coming and len(self._ranked()) < self._limit
        if wanted and self._engine.link.ready() and self._submitter.ready():
            job = self._engine.records.create(self._engine.campaign_id, self.name, self._param, self._settings)
            failpoint("job:recorded")
            self._live[job.name] = live = Live(job)
            self._submitter.submit(job.name, self._nodes.avoided(), lambda job_id: self._submitted(live, job_id))

    def _submitted(self, live: Live, job_id: str | None) -> None:
        """Note the end of a submission, from the thread for commands."""
        with self._lock:
            live.submitted = time.monotonic()
            if job_id is not None and live.job.id is None:
                live.job.id = job_id
                self._save(live.job)
                failpoint("job:noted")
