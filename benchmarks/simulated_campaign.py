"""A campaign in virtual time, with alloop's own policy: what `simulate.py` runs.

Discrete events: trainings, chunks and labels of log-normal or heavy-tailed duration on pools whose jobs wait in a queue
and end with their walltime, with failures. A label is worth less the more ensembles were trained since the one that
asked for it last judged the frame. The quality of an ensemble follows from what its labels are worth together.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from alloop.faults import TASK_ATTEMPTS, ruling
from alloop.policy import Ending, Launch, Limits, Now, Plan, outdated_chunks, policy
from alloop.pools import Slot
from alloop.selection.picks import Candidate, Rules
from alloop.state import Durations, State

HOUR = 3600.0
LEVEL = {"name": "code", "content": {"labeler": "code"}}
KINDS = ("bootstrap", "train", "explore", "label", "evaluate", "quench")
ALL_MADE = "all labels are made"
OF_A_JOB = 0.9
"""Of its walltime, what a fresh job gives to a batch, as in `pool_params.job_time_s`."""


def fails_everywhere(lost: float) -> dict[str, dict[str, float]]:
    """Return shares of attempts by kind of task and failure class: those a node loses, and a few of the task's own."""
    return {kind: {"infra": lost, "numeric": 0.01} for kind in KINDS}


@dataclass(frozen=True)
class Duration:
    """Seconds a task takes: log-normal of a mean and a spread, or with a Pareto tail, or drawn from a record."""

    mean_s: float
    spread: float = 0.3
    tail: str = "lognormal"
    record: tuple[float, ...] = ()

    def draw(self, rng: random.Random) -> float:
        if self.record:
            return rng.choice(self.record)
        if self.tail == "pareto":  # a = 1.8: finite mean, infinite variance
            return self.mean_s * 0.8 / 1.8 * rng.paretovariate(1.8)
        return self.mean_s * math.exp(rng.gauss(-(self.spread**2) / 2, self.spread))


@dataclass(frozen=True)
class SimPool:
    """jobs of some slots each; each waits in the queue for queue_wait_s before it begins and ends with its walltime."""

    slots: int
    slots_per_job: int = 1
    queue_wait: Duration | None = None
    walltime_s: float = math.inf


@dataclass(frozen=True)
class World:
    """One simulated campaign; fails: kind of task -> failure class -> share of attempts."""

    labels: int = 400
    labels_per_iteration: int = 100
    train_after: int = 33
    models: int = 4
    chunks: int = 40
    chunks_per_trajectory: int = 2
    seed_labels: int = 60
    durations: dict[str, Duration] = field(
        default_factory=lambda: {
            "bootstrap": Duration(600),
            "train": Duration(2 * HOUR, 0.1),
            "explore": Duration(0.5 * HOUR, 0.3),
            "label": Duration(HOUR, 0.6),
            "evaluate": Duration(120, 0.1),
            "quench": Duration(HOUR, 0.1),
        }
    )
    pools: dict[str, SimPool] = field(
        default_factory=lambda: {"gpu": SimPool(4), "md": SimPool(40), "cpu": SimPool(20)}
    )
    runs_on: dict[str, str] = field(
        default_factory=lambda: dict.fromkeys(KINDS, "md") | {"train": "gpu", "label": "cpu"}
    )
    fails: dict[str, dict[str, float]] = field(default_factory=lambda: fails_everywhere(0.03))
    max_lag: int = 0
    decay: float = 0.8
    target: float = 0.35
    ensembles: int | None = None

    def limits(self, *, barrier: bool) -> Limits:
        iterations = max(1, math.ceil(self.labels / self.labels_per_iteration))
        slots = sum(pool.slots for pool in self.pools.values())
        early = iterations * max(1, round(self.labels_per_iteration / self.train_after))
        return Limits(
            self.ensembles or (iterations if barrier else early),
            slots,
            barrier=barrier,
            pools=self.runs_on,
            train_after=self.train_after,
            max_backlog=4 * self.labels_per_iteration,
            longest_s={name: OF_A_JOB * pool.walltime_s for name, pool in self.pools.items()},
        )


@dataclass
class Job:
    """A job of a pool: when it begins and ends, and how many of its slots are taken."""

    pool: str
    begins_s: float
    ends_s: float
    busy: int = 0


class Simulation:
    """One campaign in one order, from its first decision to its last label."""

    def __init__(self, world: World, *, barrier: bool, seed: int) -> None:
        self.world, self.limits, self.rng = world, world.limits(barrier=barrier), random.Random(seed)
        self.state = State()
        self.clock_s = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = itertools.count()
        self.jobs: dict[str, Job] = {}
        self.idle: dict[str, Slot] = {}
        self.failures: dict[str, list[dict[str, Any]]] = {}
        self.busy_s: Counter[str] = Counter()
        self.value: dict[str, float] = {}
        self.judged_by: dict[str, int] = {}
        self.errors: list[tuple[float, float]] = []
        self.attempts = 0
        self.wasted_s: Counter[str] = Counter()
        self.policy_s = 0.0
        self.ends = any(pool.walltime_s < math.inf for pool in world.pools.values())
        self.last_label_s = 0.0
        self.ending: Ending | None = None
        for name, pool in world.pools.items():
            for number in range(pool.slots // pool.slots_per_job):
                self.submit(name, f"{name}-{number}")
        self.decide("campaign", id="simulation", name="simulation", seed=seed)
        self.decide("start", levels={"target": LEVEL, "foundation": None})

    # -------------------------------------------------------------------------------- the machine

    def submit(self, pool: str, name: str) -> None:
        wait = self.world.pools[pool].queue_wait
        begins_s = self.clock_s + (wait.draw(self.rng) if wait else 0.0)
        self.jobs[name] = job = Job(pool, begins_s, begins_s + self.world.pools[pool].walltime_s)
        self.note_idle(name, job)
        for time_s in (begins_s, job.ends_s):
            if self.clock_s < time_s < math.inf:
                self.at(time_s, lambda: None)

    def at(self, time_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.events, (time_s, next(self.count), act))

    def note_idle(self, name: str, job: Job) -> None:
        """Keep the free slots of jobs that never end, so that they need not be made anew at every event."""
        if job.begins_s <= self.clock_s and job.ends_s == math.inf:
            for number in range(self.world.pools[job.pool].slots_per_job):
                slot = f"{name}/{number}"
                self.idle.pop(slot, None) if number < job.busy else self.idle.setdefault(slot, Slot(job.pool, slot))

    def free_slots(self) -> Iterator[Slot]:
        if all(pool.walltime_s == math.inf and pool.queue_wait is None for pool in self.world.pools.values()):
            yield from self.idle.values()
            return
        for name, job in self.jobs.items():
            if job.begins_s <= self.clock_s < job.ends_s:
                for number in range(job.busy, self.world.pools[job.pool].slots_per_job):
                    yield Slot(job.pool, f"{name}/{number}", job.ends_s - self.clock_s)

    def launch(self, launch: Launch) -> None:
        name = launch.slot.name.rpartition("/")[0]
        self.jobs[name].busy += 1
        self.note_idle(name, self.jobs[name])
        for key in launch.keys:
            self.state.begin(key)
        self.begin_next(name, list(launch.keys))

    def begin_next(self, job_name: str, keys: list[str]) -> None:
        job = self.jobs[job_name]
        if not keys:
            self.release(job_name)
            return
        key, rest = keys[0], keys[1:]
        self.attempts += 1
        seconds = self.world.durations[self.state.tasks[key].kind].draw(self.rng)
        fate = self.fate(self.state.tasks[key].kind)
        if fate:
            seconds *= self.rng.random()
        if self.clock_s + seconds > job.ends_s:
            fate, seconds = "walltime", job.ends_s - self.clock_s
        self.busy_s[job.pool] += seconds
        self.at(self.clock_s + seconds, lambda: self.end(job_name, key, rest, fate, seconds))

    def fate(self, kind: str) -> str:
        """Draw the failure class of an attempt, empty for one that ends well."""
        chance, below = self.rng.random(), 0.0
        for name, share in self.world.fails.get(kind, {}).items():
            below += share
            if chance < below:
                return name
        return ""

    def renew(self, plan: Plan) -> None:
        """Have a new job in place of each that has ended, or has no work and too little time for what waits."""
        for name, job in self.jobs.items() if self.ends else ():
            batches, longest_s = plan.demand.get(job.pool, (0, None))
            fresh_s = OF_A_JOB * self.world.pools[job.pool].walltime_s
            declined = batches > 0 and longest_s is not None and job.ends_s - self.clock_s < longest_s <= fresh_s
            if job.busy == 0 and job.begins_s <= self.clock_s and (declined or job.ends_s <= self.clock_s):
                self.submit(job.pool, name)

    def release(self, job_name: str) -> None:
        job = self.jobs[job_name]
        job.busy -= 1
        self.note_idle(job_name, job)
        if job.ends_s <= self.clock_s and job.busy == 0:
            self.submit(job.pool, job_name)

    def end(self, job_name: str, key: str, rest: list[str], fate: str, seconds: float) -> None:
        job, state = self.jobs[job_name], self.state
        if not fate:
            state.durations.setdefault(state.tasks[key].kind, Durations()).add(seconds)
            self.landed(key)
        else:
            self.wasted_s[job.pool] += seconds
            state.put_back(key)
            record = {"class": fate, "message": fate, "detail": "", "seconds": seconds}
            self.failures.setdefault(key, []).append(record)
            found = ruling(self.failures[key], TASK_ATTEMPTS)
            if found.given_up:
                self.decide("quarantine", key=key, name=key, **found.given_up)
            if found.wait_s:
                state.not_before[key] = self.clock_s + found.wait_s
                self.at(self.clock_s + found.wait_s, lambda: None)
            if found.needs_s:
                state.needs_s[key] = found.needs_s
        if fate == "walltime":
            for other in rest:
                state.put_back(other)
            rest = []
        self.begin_next(job_name, rest)

    # -------------------------------------------------------------------------------- the campaign

    def decide(self, kind: str, **content: Any) -> None:
        self.state.apply({"number": self.state.next_number, "kind": kind} | content)

    def landed(self, key: str) -> None:
        state, kind = self.state, self.state.tasks[key].kind
        state.settle_done(key)
        if kind == "label":
            self.last_label_s = self.clock_s
            lag = max(0, self.trained - self.judged_by.get(key, 0))
            self.value[key] = self.world.decay**lag
        for stage, iteration in state.asked_in[key]:
            if stage == "explore" and iteration in state.backlog.iterations():
                state.note_chunk(key, {"accurate": 0, "candidate": 100})
                state.backlog.add(iteration, self.frames(key, iteration))
            elif stage == "rank":
                known = 1 - self.error / max(self.errors[iteration - 1][1], 1e-9)
                found = state.backlog.of(range(iteration))
                state.backlog.rerank(
                    {c.identity: 0.1 if self.rng.random() < known else 0.5 for _, (c, _) in found},
                    lambda _: (0.25, 1.0),
                )
                self.judged_by |= {c.identity: iteration for _, (c, _) in found}
            elif stage == "train" and not state.open("train", iteration):
                self.errors.append(
                    (self.clock_s, self.error_of(state.decisions["train", iteration]["common"]["training"]))
                )

    @property
    def trained(self) -> int:
        """Number of the newest ensemble that exists."""
        return len(self.errors) - 1

    @property
    def error(self) -> float:
        return self.errors[-1][1]

    def error_of(self, labels: list[str]) -> float:
        """Error of an ensemble in units of that without labels: a power law in what the labels are worth together."""
        return (1 + sum(self.value[key] for key in labels) / self.world.seed_labels) ** -0.5

    def frames(self, chunk: str, iteration: int) -> Iterator[tuple[Candidate, dict[str, Any]]]:
        share = 2 * self.world.labels_per_iteration * self.world.chunks_per_trajectory // self.world.chunks
        for number in range(max(2, share)):
            key = f"{chunk}.{number}"
            self.judged_by[key] = iteration
            stratum = f"T{int(chunk.split('.')[1][1:]) % 8}"
            yield (
                Candidate(key, chunk, float(number), stratum, "candidate", "candidate", 0.5),
                pick_record(key, chunk, stratum, float(number)),
            )

    def content(self, kind: str, iteration: int, picks: int) -> dict[str, Any]:
        world, state = self.world, self.state
        if kind == "bootstrap":
            return tasks(f"bootstrap.{number}" for number in range(4))
        if kind == "seed_labels":
            keys = [f"seed.{number}" for number in range(world.seed_labels)]
            return {"level": LEVEL, "picks": [pick_record(key, "bootstrap.0", "T0", 0.0, "bootstrap") for key in keys]}
        if kind == "train":
            training = state.labels("training")
            return tasks((f"train{iteration}.{n}" for n in range(world.models)), common={"training": training})
        if kind == "explore":
            entries, per = [], world.chunks_per_trajectory
            for number in range(world.chunks):
                before = [f"explore{iteration}.t{number // per}.c{number % per - 1}"] if number % per else []
                entries.append(entry(f"explore{iteration}.t{number // per}.c{number % per}", before))
            withdrawn = outdated_chunks(state, iteration, world.max_lag)
            return {"common": {}, "inputs": [], "tasks": entries, "withdrawn": withdrawn}
        if kind == "pick":
            found = state.backlog.take(iteration, picks)
            return {"level": LEVEL, "picks": [record | {"reason": reason} for reason, record in found]}
        if kind == "select":
            return {"level": LEVEL, "picks": self.classical_picks(iteration) if self.limits.barrier else []}
        if kind == "verdict":
            return {"converged": False, "reason": "simulated"}
        if kind in ("quench", "assess"):
            return {"converged": False} | tasks(())
        return tasks([f"{kind}{iteration}"])

    def classical_picks(self, iteration: int) -> list[dict[str, Any]]:
        done = [
            task["key"]
            for task in self.state.decisions["explore", iteration]["tasks"]
            if task["key"] in self.state.done
        ]
        found = [record for chunk in done for _, record in self.frames(chunk, iteration)]
        chosen = self.rng.sample(found, min(len(found), self.world.labels_per_iteration))
        return [record | {"reason": "candidate"} for record in chosen]

    def run(self) -> None:
        """Go on to the end; the policy's own time is counted, that of the simulated world is not."""
        wanted = self.world.labels + self.world.seed_labels
        while True:
            now = Now(tuple(self.free_slots()), self.clock_s)
            began = time.process_time()
            plan = policy(self.state, self.limits, now)
            self.policy_s += time.process_time() - began
            if plan.ending or len(self.value) >= wanted:
                self.ending = plan.ending
                return
            for launch in plan.launch:
                self.launch(launch)
            if plan.due:
                kind, iteration = plan.due
                self.decide(kind, iteration=iteration, **self.content(kind, iteration, plan.picks))
                if kind == "explore" and not self.limits.barrier:
                    rules = Rules(self.world.labels_per_iteration, 1_000_000, 0.0, 0, {})
                    strata = min(8, self.world.chunks // self.world.chunks_per_trajectory)
                    self.state.backlog.open_round(iteration, rules, iteration, strata)
                continue
            self.renew(plan)
            if not self.events:
                raise RuntimeError("nothing runs and nothing is due")
            self.clock_s, _, act = heapq.heappop(self.events)
            act()

    def result(self) -> dict[str, Any]:
        makespan_s = self.last_label_s
        reached = [time_s for time_s, error in self.errors if error <= self.world.target]
        pools = self.world.pools.items()
        return {
            "makespan_h": makespan_s / HOUR,
            "utilisation": {name: self.busy_s[name] / (pool.slots * max(self.clock_s, 1e-9)) for name, pool in pools},
            "wasted_h": {name: self.wasted_s[name] / HOUR for name, _ in pools},
            "time_to_quality_h": reached[0] / HOUR if reached else None,
            "final_error": self.error if self.errors else None,
            "ensembles": len(self.errors),
            "labels": len(self.value),
            "ended": self.ending.reason if self.ending else ALL_MADE,
            "quarantined": len(self.state.quarantined),
            "attempts": self.attempts,
            "policy_ms_per_task": 1e3 * self.policy_s / max(1, self.attempts),
        }


def entry(key: str, inputs: list[str]) -> dict[str, Any]:
    return {"key": key, "name": key, "inputs": inputs, "spec": {}}


def tasks(keys: Any, common: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"common": common or {}, "inputs": [], "tasks": [entry(key, []) for key in keys]}


def pick_record(key: str, source: str, stratum: str, time_ps: float, reason: str = "candidate") -> dict[str, Any]:
    return {
        "key": key,
        "name": key,
        "source": {"task": source, "frame": 0},
        "given": False,
        "level": LEVEL["name"],
        "trajectory": source,
        "stratum": stratum,
        "time_ps": time_ps,
        "role": "training",
        "reason": reason,
    }
