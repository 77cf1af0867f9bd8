"""The loop: one pure policy that says what should be in flight, and one driver that brings it about."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from alloop import labelers, requests, store
from alloop.campaign import Campaign
from alloop.config import Param, slots
from alloop.decisions import DECIDERS
from alloop.errors import DONE, NEEDS_PERSON, NOT_CONVERGED, CampaignHeldError, NeedsPersonError
from alloop.pools import Ended
from alloop.pools.fleet import Fleet, open_fleet
from alloop.report.progress import Watcher
from alloop.report.status import write_iteration, write_snapshot
from alloop.state import State
from alloop.store import live_attempt

TASK_ATTEMPTS = 3
KILLED_LIMIT = 5
TICK_SECONDS = 1.0
SNAPSHOT_SECONDS = 5.0
_LABELS_TOGETHER = 32
NEEDED = ("bootstrap", "train", "evaluate", "quench")
"""Kinds of task the campaign cannot go on without; a lost label or chunk costs itself only."""


@dataclass(frozen=True)
class Limits:
    """What bounds a run: iterations to explore (and of them the foundation's), slots, tasks that share a process."""

    max_iterations: int
    slots: int
    batch: dict[str, int] = field(default_factory=dict)
    quench_only: bool = False
    foundation_iterations: int = 0
    foundation_batch: int = 1


def limits(param: Param, max_iterations: int, *, quench_only: bool = False) -> Limits:
    """Return the limits of a run from the configuration; labels share a process only where each is cheap."""
    labels = param.label.per_process or (_LABELS_TOGETHER if param.label.labeler in labelers.BUILT_IN else 1)
    batch = {"label": labels, "explore": 12, "evaluate": 8, "quench": 1000}
    foundation = param.label.foundation
    cheap = _LABELS_TOGETHER if foundation and foundation.labeler in labelers.BUILT_IN else 1
    iterations = foundation.iterations if foundation else 0
    return Limits(max_iterations, slots(param), batch, quench_only, iterations, cheap)


@dataclass(frozen=True)
class Ending:
    """Why a run ends, and with which exit code."""

    code: int
    reason: str


@dataclass(frozen=True)
class Plan:
    """What to do now: batches to launch, the decision that is due (kind, iteration), or the end."""

    launch: tuple[tuple[str, ...], ...] = ()
    due: tuple[str, int] | None = None
    ending: Ending | None = None


STOPPED = Ending(NOT_CONVERGED, "stopped by a person; nothing finished is lost, go on with: alloop run")


def policy(state: State, limits: Limits, free_slots: int) -> Plan:
    """Return which tasks should be in flight now and which decision is due: the whole strategy of alloop.

    Decisions fall due when the work they rest on has ended. An iteration is train, explore, select (which asks for
    labels), evaluate, verdict; before the first come bootstrap and its labels; after the last, all ensembles are
    assessed on one set and the glass is quenched. A cheap foundation may label first; promote and pretrain lead from
    its labels to the campaign's own. What is wanted and waits is launched as slots come free.
    """
    paused = [key for key in state.quarantined if state.tasks[key].kind in NEEDED]
    if paused:
        task = state.tasks[paused[0]]
        reason = f"{task.kind} {task.name} failed for good: {state.quarantined[paused[0]]['message']}"
        return Plan(ending=Ending(NEEDS_PERSON, reason))
    due = next_decision(state, limits)
    if isinstance(due, Ending):
        late = _late_labels(state, limits, free_slots)
        return Plan(ending=due) if late is None else Plan(launch=late)
    return Plan(launch=batches(state, limits, free_slots), due=due)


def _late_labels(state: State, limits: Limits, free_slots: int) -> tuple[tuple[str, ...], ...] | None:
    """Return the labels to launch before a run may end, None if none is left: a person may have retried old ones."""
    if limits.quench_only:
        return None
    found = [batch for batch in batches(state, limits, free_slots) if state.tasks[batch[0]].kind == "label"]
    under_way = any(state.tasks[key].kind == "label" for key in state.running)
    return tuple(found) if found or under_way else None


def next_decision(state: State, limits: Limits) -> tuple[str, int] | Ending | None:
    """Return the decision that is due, None while work it rests on is unfinished, or the end of the run."""
    for kind in ("bootstrap", "seed_labels"):
        if not state.decided(kind):
            return kind, -1
        if state.open(kind):
            return None
    i = state.iteration
    if i < 0 or state.decided("relabel", i):
        return _next_ensemble(state, limits, i + 1)
    if state.open("train", i):
        return None
    explores = i < limits.max_iterations and not limits.quench_only
    for kind in ("explore", "select", "evaluate", "verdict") if explores else ():
        if not state.decided(kind, i):
            return kind, i
        if state.open(kind, i):
            return None
    if explores and not state.decisions["verdict", i]["converged"]:
        return _next_ensemble(state, limits, i + 1)
    for kind in ("quench", "assess"):
        again = limits.quench_only and kind == "quench"
        if not _holds(state, kind, i) or (again and not state.decisions[kind, i]["tasks"]):
            return kind, i
    if state.open("assess", i) or state.open("quench", i):
        return None
    return _ending(state, i, quench_only=limits.quench_only)


def _next_ensemble(state: State, limits: Limits, i: int) -> tuple[str, int] | None:
    """Return what is due before ensemble i can train, or its training.

    Labels that are being made anew are waited for. Once the foundation has had its iterations, some structures get
    labels of the campaign's own level, and an ensemble pre-trains on the foundation's before the first on those.
    """
    if state.open("relabel", i - 1):
        return None
    if state.foundation_level is not None and i >= limits.foundation_iterations:
        return "promote", i - 1
    if state.decided("promote", i - 1):
        if state.open("promote", i - 1):
            return None
        if not state.decided("pretrain", i):
            return "pretrain", i
        if state.open("pretrain", i):
            return None
    return "train", i


def _holds(state: State, kind: str, iteration: int) -> bool:
    """Tell whether a closing decision was taken, and with the verdict there is now: a later one makes it due again."""
    decision, verdict = state.decisions.get((kind, iteration)), state.decisions.get(("verdict", iteration))
    return decision is not None and (verdict is None or decision["number"] > verdict["number"])


def _ending(state: State, iteration: int, *, quench_only: bool) -> Ending:
    verdict = state.decisions.get(("verdict", iteration))
    if verdict and verdict["converged"]:
        return Ending(DONE, f"converged in iteration {iteration}: {verdict['reason']}")
    if quench_only:
        return Ending(
            NOT_CONVERGED, "quenched with an ensemble that is not converged; explore further with: alloop run"
        )
    last = state.decisions.get(("verdict", iteration - 1))
    reason = last["reason"] if last else "no iteration has explored"
    return Ending(NOT_CONVERGED, f"not converged, the iteration limit is used up: {reason}")


def batches(state: State, limits: Limits, free_slots: int) -> tuple[tuple[str, ...], ...]:
    """Return waiting tasks as batches for the free slots, in order of request; cheap tasks share a process.

    A task that reads another's result waits for it, or follows it in the same batch.
    """
    found: list[tuple[str, ...]] = []
    waiting = dict(state.waiting)
    if limits.quench_only:
        waiting = {key: None for key in waiting if not _explores(state, key)}
    while waiting and len(found) < free_slots:
        chains = _ready_chains(state, waiting)
        if not chains:
            break
        share = -(-len(chains) // (free_slots - len(found)))
        together = [key for chain in chains[:share] for key in chain]
        batch = tuple(together[: _at_most_together(state, limits, together[0])])
        found.append(batch)
        for key in batch:
            del waiting[key]
    return tuple(found)


def _at_most_together(state: State, limits: Limits, key: str) -> int:
    kind = state.tasks[key].kind
    cheap = kind == "label" and state.foundation_level is not None
    return limits.foundation_batch if cheap else limits.batch.get(kind, 1)


def _explores(state: State, key: str) -> bool:
    """Tell whether a task serves the exploration that the last ensemble drives."""
    last = {("explore", state.iteration), ("select", state.iteration), ("evaluate", state.iteration)}
    return bool(last & set(state.asked_in[key]))


def _ready_chains(state: State, waiting: dict[str, None]) -> list[list[str]]:
    """Return the ready tasks of the kind that is first in line, each with those that may follow it directly."""
    chains: list[list[str]] = []
    place: dict[str, list[str]] = {}
    kind = None
    for key in waiting:
        task = state.tasks[key]
        if kind is not None and task.kind != kind:
            continue
        missing = [name for name in task.inputs if name not in state.done and name not in state.quarantined]
        if not missing:
            chains.append([key])
            place[key] = chains[-1]
        elif len(missing) == 1 and missing[0] in place:
            place[missing[0]].append(key)
            place[key] = place[missing[0]]
        else:
            continue
        kind = task.kind
    return chains


class Driver:
    """Brings about what the policy wants, as the one driver of a campaign."""

    def __init__(self, campaign: Campaign, param: Param, limits: Limits, pool: Fleet, watcher: Watcher) -> None:
        self.campaign = campaign
        self.param = param
        self.limits = limits
        self.pool = pool
        self.watcher = watcher
        self.interrupts = 0

    def run(self) -> Ending:
        """Go on until the policy says it is the end, or a person says stop."""
        self._heed()
        self._adopt()
        while True:
            plan = policy(self.campaign.state, self.limits, len(self.pool.free_slots()))
            if plan.ending or self._asked_to_stop():
                return self._finish(plan.ending or STOPPED)
            if plan.due:
                self._decide(*plan.due)
                continue
            self._launch(plan.launch)
            self._settle(self.pool.wait(TICK_SECONDS))
            self._tick()

    def interrupt(self) -> None:
        """Ask the driver to stop: the first time running tasks may end by themselves, the second time not."""
        self.interrupts += 1
        with contextlib.suppress(CampaignHeldError):  # a campaign that is no longer this driver's is not its to stop
            self.campaign.check_held()
            request_stop(self.campaign, now=self.interrupts > 1)

    def _decide(self, kind: str, iteration: int) -> None:
        self.campaign.check_held()
        content = DECIDERS[kind](self.campaign, self.param, iteration)
        self.campaign.decide(kind, iteration=iteration, **content)
        self.watcher.decided(kind, iteration, content)
        write_iteration(self.campaign, iteration)
        self._snapshot(force=True)

    def _launch(self, launch: tuple[tuple[str, ...], ...]) -> None:
        for keys in launch:
            self.campaign.check_held()
            folders = [self.campaign.prepare(key) for key in keys]
            self.pool.start(self.pool.free_slots()[0], keys, folders)
            for key in keys:
                self.campaign.state.begin(key)

    def _adopt(self) -> None:
        """Take over attempts that an earlier driver started and that still run; they occupy their slots."""
        self.campaign.check_held()
        for key in self.campaign.state.waiting:
            store.record_death(self.campaign.folder(key), None, unwatched=True)
        for key in sorted(self.campaign.state.running):
            process = live_attempt(self.campaign.folder(key))
            if process is None:
                self._settle_one(key, None)
            else:
                self.pool.adopt(process.to_json(), (key,), [self.campaign.folder(key)])
                self.watcher.adopted(self.campaign.state.tasks[key])

    def _settle(self, ended: list[Ended]) -> None:
        for batch in ended:
            if batch.return_code not in (None, 0) and not any(self.campaign.attempts_at(key) for key in batch.keys):
                raise NeedsPersonError(
                    f"an attempt process ended with code {batch.return_code} before it began a task\n"
                    f"  its output is in {self.campaign.run_folder / 'attempts.log'}"
                )
            for key in batch.keys:
                if key in self.campaign.state.running:
                    self._settle_one(key, batch.return_code)

    def _settle_one(self, key: str, return_code: int | None) -> None:
        self.campaign.check_held()
        state, task = self.campaign.state, self.campaign.state.tasks[key]
        if self.campaign.accept(key):
            self.watcher.done(task)
            return
        process = live_attempt(self.campaign.folder(key))
        if process is not None:
            self.pool.adopt(process.to_json(), (key,), [self.campaign.folder(key)])
            return
        store.record_death(self.campaign.folder(key), return_code)
        state.put_back(key)
        failures = self.campaign.failures(key)
        failures = [failure for failure in failures if failure["time"] > state.retried.get(key, "")]
        problem = given_up(failures, self.param.label.max_attempts if task.kind == "label" else TASK_ATTEMPTS)
        if problem is not None:
            self.campaign.decide("quarantine", key=key, name=task.name, **problem)
            self.watcher.quarantined(task, problem["message"])

    def _tick(self) -> None:
        """Look at tasks whose batch goes on, tell that this driver lives, and refresh what people read."""
        for key in list(self.campaign.state.running):
            if self.campaign.store.is_done(self.campaign.state.tasks[key]):
                self._settle_one(key, None)
        self.campaign.beat()
        self._heed()
        self._snapshot()
        self.watcher.tick(self.campaign)

    def _heed(self) -> None:
        """Decide what persons have asked for."""
        for kind, content in requests.take(self.campaign):
            self.watcher.say(f"{kind} of {len(content['keys'])} task(s), as a person asked")

    def _snapshot(self, *, force: bool = False) -> None:
        if force or time.monotonic() - self._snapshot_time > SNAPSHOT_SECONDS:
            self.campaign.check_held()
            write_snapshot(self.campaign)
            self._snapshot_time = time.monotonic()

    _snapshot_time = 0.0

    def _asked_to_stop(self) -> bool:
        return stop_requested(self.campaign) is not None

    def _finish(self, ending: Ending) -> Ending:
        """Let running tasks end (or end them, if asked to stop now) and leave the campaign in order."""
        if self.campaign.state.running:
            self.watcher.say(
                f"waiting for {len(self.campaign.state.running)} running task(s); Ctrl-C again ends them now"
            )
        asked = False
        while self.campaign.state.running:
            if stop_requested(self.campaign) == "now" and not asked:
                asked = True
                running = [live_attempt(self.campaign.folder(key)) for key in self.campaign.state.running]
                self.pool.end([process.to_json() for process in running if process is not None])
            self._settle(self.pool.wait(TICK_SECONDS))
            self._tick()
        self._snapshot(force=True)
        return ending


def given_up(failures: list[dict[str, Any]], limit: int) -> dict[str, Any] | None:
    """Return class and message of the failure for which a task is given up, None while another try is due.

    A process killed under the driver's eyes may have asked for too much, but is more likely no fault of the task, so it
    is tried more often. What was interrupted together with its driver, and a late writer, are no failures at all.
    """
    counted = [failure for failure in failures if failure["class"] not in store.FOREIGN_FAULTS]
    killed = [failure for failure in failures if failure["class"] == "killed"]
    if len(counted) >= limit or any(failure.get("final") for failure in counted):
        return {
            "class": counted[-1]["class"],
            "message": counted[-1]["message"],
            "detail": counted[-1]["detail"][-4000:],
        }
    if len(killed) >= KILLED_LIMIT:
        return {"class": "killed", "message": f"killed {len(killed)} times: {killed[-1]['message']}", "detail": ""}
    return None


def request_stop(campaign: Campaign, *, now: bool) -> None:
    """Ask the campaign's driver, from any process, to stop deciding; with `now` also to end what runs."""
    campaign.run_folder.mkdir(parents=True, exist_ok=True)
    store.write_json(campaign.run_folder / "stop.json", {"mode": "now" if now else "finish"})


def stop_requested(campaign: Campaign) -> str | None:
    """Return "finish" or "now" if a person asked the driver to stop."""
    try:
        return store.read_json(campaign.run_folder / "stop.json")["mode"]
    except (OSError, ValueError, KeyError):
        return None


def run(campaign: Campaign, param: Param, limits: Limits, watcher: Watcher) -> Ending:
    """Drive a campaign that this process has taken, from wherever it is."""
    assert campaign.epoch is not None, "take the campaign before driving it"
    pool = open_fleet(param, campaign.run_folder, campaign.state.identity["id"], campaign.epoch)
    driver = Driver(campaign, param, limits, pool, watcher)
    with on_interrupt(driver.interrupt):
        try:
            return driver.run()
        finally:
            pool.close()
            campaign.release()


@contextlib.contextmanager
def on_interrupt(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` on Ctrl-C or SIGTERM instead of raising where the program happens to be."""
    before = {number: signal.signal(number, lambda *_: act()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
