"""A cluster, a disk and a clock that exist in memory only, under the true driver, state, policy and rulings.

What the decisions hold is that of `policy_world`. Attempts end when somebody says so, and time passes likewise.
"""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import policy_world
from policy_world import World

from alloop import loop
from alloop.cost import Costs
from alloop.errors import CampaignHeldError
from alloop.faults import ruling
from alloop.loop import Driver
from alloop.policy import Ending, Limits
from alloop.pools import Ended, Slot
from alloop.state import Durations, State, decision_tasks
from alloop.store import FULL, NO_SPACE

MAX_ATTEMPTS = 3
LABEL_POOL = "batch"


@dataclass
class Attempt:
    """One try at a task; record: as in its attempt.json."""

    key: str
    batch: int
    began: float
    ended: bool = False
    published: bool = False
    failure: dict[str, Any] | None = None

    @property
    def record(self) -> dict[str, Any]:
        return {"batch": self.batch}


@dataclass
class Batch:
    """A process on the cluster; seen: whether whoever looks from outside can tell that it runs."""

    number: int
    keys: tuple[str, ...]
    slot: Slot
    epoch: int
    place: int = 0
    seen: bool = True
    failed: set[str] = field(default_factory=set)


@dataclass
class Cluster:
    """Disk, clock and processes, which drivers come and go in front of."""

    rng: random.Random
    slots: dict[str, int]
    now: float = 1000.0
    full: bool = False
    epoch: int = 0
    decisions: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, bool] = field(default_factory=dict)
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    batches: dict[int, Batch] = field(default_factory=dict)
    requests: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    quarantine: list[str] = field(default_factory=list)
    job_ends: dict[str, float] = field(default_factory=dict)
    inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    started: int = 0

    # -------------------------------------------------------------------------------- what processes do

    def begin(self, batch: Batch) -> None:
        """The next task of a batch begins, unless it is done, or the process belongs to a driver that is no more."""
        while batch.place < len(batch.keys):
            key = batch.keys[batch.place]
            if batch.epoch != self.epoch:
                batch.place = len(batch.keys)
            elif key in self.results or not batch.failed.isdisjoint(self.inputs[key]):
                batch.failed |= {key} - self.results.keys()
                batch.place += 1
            else:
                self.attempts.setdefault(key, []).append(Attempt(key, batch.number, self.now))
                return
        self.leave(batch)

    def current(self, batch: Batch) -> Attempt:
        return next(a for a in self.attempts[batch.keys[batch.place]] if a.batch == batch.number)

    def publish(self, batch: Batch, *, whole: bool = True) -> bool:
        """The task of a batch ends well; False if another attempt was first."""
        attempt = self.current(batch)
        first = attempt.key not in self.results
        if first:
            self.results[attempt.key] = whole
            attempt.ended = attempt.published = True
        else:
            self.fail(attempt, "late")
        self.go_on(batch)
        return first

    def go_on(self, batch: Batch) -> None:
        """Take up the next task of a batch; one that nobody sees any more ends with what it was at."""
        batch.place = batch.place + 1 if batch.seen else len(batch.keys)
        self.begin(batch)

    def fail(self, attempt: Attempt, kind: str, *, final: bool = False) -> None:
        if attempt.failure is None:
            self.now += 0.001  # no two at the same moment
            attempt.ended = True
            record = {"class": kind, "message": kind, "detail": "", "final": final, "time": f"{self.now:012.3f}"}
            attempt.failure = record | {"seconds": self.now - attempt.began, "attempt": f"{attempt.batch}"}

    def leave(self, batch: Batch) -> None:
        """The process of a batch is gone."""
        self.batches.pop(batch.number, None)

    def running(self, key: str) -> list[Attempt]:
        """Attempts at a task that can be seen to run."""
        found = []
        for attempt in self.attempts.get(key, ()):
            batch = self.batches.get(attempt.batch)
            if not attempt.ended and batch is not None and batch.seen:
                found.append(attempt)
        return found

    def record_death(self, key: str, code: int | None, *, unwatched: bool = False, cause: str = "") -> None:
        for attempt in self.attempts.get(key, ()):
            if not attempt.ended and attempt not in self.running(key):
                self.write()
                killed = "killed" if code is None or code < 0 else "crash"
                killed = "infra" if code == NO_SPACE else killed
                self.fail(attempt, cause or ("interrupted" if unwatched else killed))

    def write(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")

    def slot_end(self, slot: str) -> float:
        """When the job that a slot belongs to ends; a new one comes where one has ended."""
        if self.job_ends.get(slot, 0.0) <= self.now:
            self.job_ends[slot] = self.now + self.rng.choice((60.0, 300.0, 1e6))
        return self.job_ends[slot]


# ---------------------------------------------------------------------------------------- what the driver works with


class FakePool:
    """The pools of one driver."""

    def __init__(self, cluster: Cluster, campaign: FakeCampaign) -> None:
        self.cluster = cluster
        self.campaign = campaign
        self.events: list[Ended] = []
        self.watched: dict[int, tuple[tuple[str, ...], bool]] = {}
        self.budget: str | None = None

    def free_slots(self) -> list[Slot]:
        busy = {batch.slot.name for number, batch in self.cluster.batches.items() if number in self.watched}
        found = []
        self.budget = self.campaign.budget_used_up()
        for pool, count in self.cluster.slots.items():
            for name in (f"{pool}{number}" for number in range(count)):
                if name not in busy:
                    left = self.cluster.slot_end(name) - self.cluster.now if pool == LABEL_POOL else float("inf")
                    found.append(Slot(pool, name, left))
        return found

    def start(self, slot: Slot, keys: tuple[str, ...], folders: list[Path]) -> None:
        check_launch(self.cluster, self.campaign, slot, keys)
        assert self.budget is None, "launched beyond the budget"
        self.cluster.started += 1
        batch = Batch(self.cluster.started, keys, slot, self.campaign.epoch)
        self.cluster.batches[batch.number] = batch
        self.watched[batch.number] = keys, True
        self.cluster.begin(batch)
        if batch.number not in self.cluster.batches:
            self.hear(batch, 0, "")

    def demand(self, wanted: dict[str, Any]) -> None:
        pass

    def adopt(self, owner: dict[str, Any], keys: tuple[str, ...], folders: list[Path]) -> None:
        before, child = self.watched.get(owner["batch"], ((), False))
        self.watched[owner["batch"]] = tuple(dict.fromkeys(before + keys)), child

    def hear(self, batch: Batch, code: int | None, cause: str) -> None:
        """The process of a batch is gone; of one that an earlier driver started, only what it was at is known."""
        keys, child = self.watched.pop(batch.number)
        self.events.append(Ended(keys, code if child else None, cause))

    def alive(self, owner: dict[str, Any]) -> bool:
        batch = self.cluster.batches.get(owner["batch"])
        return batch is not None and batch.seen

    def wait(self, seconds: float) -> list[Ended]:
        events, self.events = self.events, []
        return events

    def troubles(self) -> list[str]:
        return []


class FakeCampaign:
    """The decisions and results of a cluster's disk, as one driver knows them."""

    def __init__(self, cluster: Cluster, world: World, most_labels: int = 1000) -> None:
        self.cluster = cluster
        self.world = world
        self.state = State()
        self.costs = Costs()
        self.run_folder = Path("run")
        self.store = SimpleNamespace(is_done=lambda task: task.key in cluster.results, iterations=Path())
        self.epoch = 0
        self.most_labels = most_labels

    def labels_left(self) -> int:
        begun = sum(len(self.cluster.attempts.get(key, ())) for key in self.state.picks)
        return max(0, self.most_labels - begun)

    def budget_used_up(self) -> str | None:
        return None if self.labels_left() else "all labels were begun"

    def take(self) -> None:
        self.load()
        if not self.cluster.decisions:
            self.append("campaign", id="w", name="world", seed=1)
        level = {"name": "vasp", "content": {"labeler": "vasp"}}
        self.append("start", levels={"target": level, "foundation": None})
        self.epoch = self.cluster.epoch = self.state.next_number - 1
        self.load()
        self.look()

    def load(self) -> None:
        self.state = self.world.state = State()
        for decision in self.cluster.decisions:
            self.state.apply(decision)

    def look(self) -> None:
        for key in self.state.tasks:
            if key in self.cluster.results:
                self.accept(key)
            elif key not in self.state.quarantined and self.cluster.running(key):
                self.state.begin(key)
        self.state.recount()

    def check_held(self) -> None:
        if len(self.cluster.decisions) > self.state.next_number:
            raise CampaignHeldError("another driver has taken over this campaign")

    def decide(self, kind: str, **more: Any) -> None:
        assert not self.cluster.full or kind in ("quarantine", "retry", "exclude"), f"{kind} tried on a full disk"
        self.append(kind, **more)

    def append(self, kind: str, **more: Any) -> None:
        self.check_held()
        self.cluster.write()
        time = f"{self.cluster.now:012.3f}"
        decision = {"number": self.state.next_number, "kind": kind, "time": time} | more
        self.cluster.decisions.append(decision)
        self.state.apply(decision)
        for task in decision_tasks(decision):
            self.cluster.inputs[task.key] = task.inputs
            if task.key in self.state.waiting and task.key in self.cluster.results:
                self.accept(task.key)

    def prepare(self, key: str) -> Path:
        return Path(key)

    folder = prepare

    def accept(self, key: str) -> bool:
        whole = self.cluster.results.get(key)
        if whole is None:
            return False
        if not whole:
            self.cluster.quarantine.append(key)
            del self.cluster.results[key]
            return False
        self.state.settle_done(key)
        taken = next(attempt for attempt in self.cluster.attempts[key] if attempt.published)
        kind = self.state.tasks[key].kind
        self.state.durations.setdefault(kind, Durations()).add(self.cluster.now - taken.began)
        return True

    def failures(self, key: str) -> list[dict[str, Any]]:
        found = [attempt.failure for attempt in self.cluster.attempts.get(key, ()) if attempt.failure is not None]
        self.cluster.rng.shuffle(found)
        return sorted(found, key=lambda failure: failure["time"])

    def attempts_at(self, key: str) -> list[Attempt]:
        return self.cluster.attempts.get(key, [])

    def beat(self) -> None:
        self.check_held()


def check_launch(cluster: Cluster, campaign: FakeCampaign, slot: Slot, keys: tuple[str, ...]) -> None:
    """What must hold of every batch that is started."""
    state = campaign.state
    assert not cluster.full, "launched on a full disk"
    assert campaign.epoch == cluster.epoch, "launched by a driver that lost the campaign"
    assert len(cluster.decisions) == state.next_number
    visible = [batch for batch in cluster.batches.values() if batch.seen and batch.slot.pool == slot.pool]
    # an orphan at a task that somebody out of sight has done meanwhile is nobody's to watch, and ends after it
    visible = [batch for batch in visible if cluster.current(batch).key not in cluster.results]
    assert len(visible) < cluster.slots[slot.pool], "more batches than slots"
    assert all(batch.slot.name != slot.name for batch in visible), "two batches on one slot"
    needs_s = 0.0
    for key in keys:
        assert key not in state.done and key not in state.quarantined, "finished work begun again"
        assert not cluster.running(key), "two attempts at one task"
        failures = [f for f in campaign.failures(key) if f["time"] > state.retried.get(key, "")]
        assert ruling(failures, MAX_ATTEMPTS).given_up is None, "tried again after it should have been given up"
        if failures and failures[-1]["class"] == "infra":
            times = sum(failure["class"] == "infra" for failure in failures)
            since = cluster.now - float(failures[-1]["time"])
            assert since >= min(5.0 * 2 ** (times - 1), 600.0) - 1e-3, (
                f"{times} failures of the site, and only {since} s of rest"
            )
        if failures and failures[-1]["class"] == "walltime":
            needs_s += 2 * failures[-1]["seconds"]
    assert slot.remaining_s >= needs_s, "a batch that does not fit into its job"


# ---------------------------------------------------------------------------------------- the driver


class FakeExplored:
    """Fills the backlog with frames made up by `policy_world`."""

    def __init__(self, campaign: FakeCampaign, param: Any) -> None:
        self.campaign = campaign

    def recover(self) -> None:
        state = self.campaign.state
        for iteration in sorted(state.unjudged):
            if not state.decided("select", iteration):
                self.begin(iteration, "explore")

    def begin(self, iteration: int, kind: str) -> None:
        state = self.campaign.state
        if kind == "explore":
            state.backlog.open_round(iteration, policy_world.RULES, iteration, policy_world.STRATA)
            for pick in state.picks_in.get(iteration, ()):
                where = pick["trajectory"], pick["stratum"], pick["time_ps"]
                state.backlog.note_pick(iteration, pick["key"], pick["reason"], *where)
        for entry in state.decisions[kind, iteration]["tasks"]:
            if entry["key"] in state.done:
                self.landed(entry["key"])

    def landed(self, key: str) -> None:
        self.campaign.world.done(key)


def _decider(kind: str) -> Any:
    return lambda campaign, param, iteration: policy_world.CONTENT[kind](campaign.world, iteration)


def _pick(campaign: FakeCampaign, param: Any, iteration: int, count: int) -> dict[str, Any]:
    best = campaign.state.backlog.take(iteration, count)
    assert 0 < len(best) <= count
    level = {"name": "vasp", "content": {"labeler": "vasp"}}
    return {"level": level, "picks": [record | {"reason": reason} for reason, record in best]}


class Silent:
    """A watcher that says nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@contextlib.contextmanager
def in_memory(cluster: Cluster) -> Iterator[None]:
    """Have the driver's module look at a cluster instead of files, clocks and disks."""

    def take(campaign: FakeCampaign) -> list[tuple[str, dict[str, Any]]]:
        taken = []
        for name, (kind, content) in list(cluster.requests.items()):
            if name not in campaign.state.requests:
                campaign.decide(kind, **content, request=name)
            del cluster.requests[name]
            taken.append((kind, content))
        return taken

    def record_death(folder: Path, code: int | None, **more: Any) -> None:
        cluster.record_death(str(folder), code, unwatched=more.get("unwatched", False), cause=more.get("cause", ""))

    free = SimpleNamespace(disk_usage=lambda place: SimpleNamespace(free=0.0 if cluster.full else 1e12))
    put = {
        "store": SimpleNamespace(
            FULL=FULL,
            NO_SPACE=NO_SPACE,
            record_death=record_death,
            live_records=lambda folder, alive: iter([a.record for a in cluster.running(str(folder))]),
        ),
        "requests": SimpleNamespace(take=take),
        "time": SimpleNamespace(monotonic=lambda: cluster.now, sleep=lambda seconds: None),
        "shutil": free,
        "DECIDERS": {kind: _decider(kind) for kind in policy_world.CONTENT},
        "decide_pick": _pick,
        "Explored": FakeExplored,
        "Snapshots": lambda campaign: SimpleNamespace(write=lambda **_: campaign.check_held()),
        "write_iteration": lambda campaign, iteration: None,
        "stop_requested": lambda campaign: None,
        "used_up": lambda costs, state, budget: budget.told(),
        "labels_left": lambda costs, state, budget: budget.left(),
    }
    before = {name: getattr(loop, name) for name in put}
    try:
        for name, value in put.items():
            setattr(loop, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(loop, name, value)


def new_driver(cluster: Cluster, world: World, limits: Limits, most_labels: int) -> Driver:
    """A driver that has just taken the campaign and looked around."""
    campaign = FakeCampaign(cluster, world, most_labels)
    budget = SimpleNamespace(
        when_used_up="stop", free_disk_GB=1.0, told=campaign.budget_used_up, left=campaign.labels_left
    )
    param = SimpleNamespace(budget=budget, label=SimpleNamespace(max_attempts=MAX_ATTEMPTS))
    campaign.take()
    driver = Driver(campaign, param, limits, FakePool(cluster, campaign), Silent())  # type: ignore[arg-type]
    driver._begin()
    return driver


def turn(driver: Driver) -> Ending | None:
    """One cycle of the driver."""
    return driver._patiently(driver._cycle)
