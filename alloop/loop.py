"""The driver's cycle: bring about what the policy wants, hear what came of it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from alloop import labelers, notify, requests, store
from alloop.campaign import Campaign
from alloop.config import Param, slots
from alloop.decisions import DECIDERS
from alloop.decisions.production import melting_glasses
from alloop.decisions.quenching import quench_section
from alloop.decisions.relaxing import relaxation
from alloop.decisions.selection import Explored, decide_pick
from alloop.errors import NOT_CONVERGED, CampaignHeldError, InputError, NeedsPersonError
from alloop.failpoint import failpoint
from alloop.faults import TASK_ATTEMPTS, ruling, signature
from alloop.policy import BRIEF, ORDER, Ending, Launch, Limits, Now, is_needed, policy
from alloop.pool_params import LOCAL, job_time_s, pool_of
from alloop.pools import Ended
from alloop.pools.fleet import Fleet, open_fleet
from alloop.report.cost import labels_left, used_up
from alloop.report.progress import Watcher
from alloop.report.snapshot import TROUBLES, Snapshots
from alloop.report.status import write_iteration

T = TypeVar("T")
TICK_SECONDS = 1.0
_LABELS_TOGETHER = 32


def limits(param: Param, max_iterations: int, *, quench_only: bool = False, barrier: bool = False) -> Limits:
    """Return the limits of a run from the configuration; labels share a process only where each is cheap."""
    labels = param.label.per_process or (_LABELS_TOGETHER if param.label.labeler in labelers.BUILT_IN else 1)
    foundation, most = param.label.foundation, param.select.max_labels
    return Limits(
        max_iterations,
        slots(param),
        {"label": labels, "relax": labels, "explore": 12, "evaluate": 8, "quench": 1000},
        quench_only,
        foundation.iterations if foundation else 0,
        _LABELS_TOGETHER if foundation and foundation.labeler in labelers.BUILT_IN else 1,
        barrier,
        {kind: pool_of(param.pools, kind) for kind in ORDER},
        param.train.after_labels or max(1, most // 3),
        param.explore.max_backlog or 4 * most,
        param.stop.accurate_fraction,
        {name: job_time_s(pool) for name, pool in param.pools.items()},
        param.stop.probe is not None,
        param.stop.relax is not None,
        quench_section(param),
        param.quench is not None and param.quench.when == "always",
        bool(melting_glasses(param)),
        param.quench is not None and param.quench.final_training is not None,
        relaxation(param),
    )


HANDED_OVER_FILE = "handed-over"
"""In ``run/``: the driver before this one left for its successor."""
_NOTIFY_SECONDS = 5.0
ASK_AGAIN_SECONDS = 60.0
"""What was told to end and has not is told again: a worker may not have heard."""
_STILLBORN = 9
"""So many processes in a row may end before they begin where nodes of a batch pool may be to blame, or a signal is."""

STOPPED = Ending(NOT_CONVERGED, "stopped by a person; nothing finished is lost, go on with: alloop run", "stopped")
HANDED_OVER = Ending(NOT_CONVERGED, "handed over: running work goes on, and the next driver adopts it", "stopped")


class Driver:
    """Brings about what the policy wants, as the one driver of a campaign."""

    def __init__(self, campaign: Campaign, param: Param, limits: Limits, pool: Fleet, watcher: Watcher) -> None:
        self.campaign = campaign
        self.param = param
        self.limits = limits
        self.pool = pool
        self.watcher = watcher
        self.snapshots = Snapshots(campaign)
        self.explored = None if limits.barrier else Explored(campaign, param)
        self.interrupts = 0
        self.leaves = False
        self._ended: deque[Ended] = deque()
        self._started: dict[tuple[str, ...], str] = {}
        self._stillborn = 0
        self._troubles: list[str] = []

    def run(self) -> Ending:
        """Go on until the policy says it is the end, or a person says stop."""
        self._begin()
        ending = self._patiently(self._cycle)
        while ending is None:
            ending = self._patiently(self._cycle)
        if ending.event == "budget" and self._hours_used_up() and not self._asked_to_stop():
            request_stop(self.campaign, now=False)  # batches that run shall not begin their further tasks
        return ending if ending is HANDED_OVER else self._finish(ending)

    def _begin(self) -> None:
        """See what earlier drivers have left."""
        if self.explored is not None:
            self.explored.recover()
        while not self._patiently(self._take_up):
            pass

    def _take_up(self) -> bool:
        self._heed()
        self._adopt()
        return True

    def _cycle(self) -> Ending | None:
        """One turn: ask the policy, do what it says, hear what has ended."""
        if self.leaves:
            self._patiently(lambda: self.snapshots.write(force=True))
            (self.campaign.run_folder / HANDED_OVER_FILE).touch()
            return HANDED_OVER
        if self._asked_to_stop():
            return STOPPED
        left = labels_left(self.campaign.costs, self.campaign.state, self.param.budget)
        slots = tuple(self.pool.free_slots())
        now = Now(slots, time.monotonic(), self._budget_used_up(), self._disk_full(), left, self._leaving())
        plan = policy(self.campaign.state, self.limits, now)
        self._launch(plan.launch)
        if plan.due:
            self._decide(*plan.due, plan.picks)
        if plan.ending or plan.due:
            return plan.ending
        self.pool.demand(plan.demand)
        self._settle(TICK_SECONDS)
        self._tick()
        return None

    def _patiently(self, act: Callable[[], T]) -> T | None:
        """Return what `act` does; None, after a while, if the disk is full: what is there is whole."""
        try:
            return act()
        except OSError as error:
            if error.errno not in store.FULL:
                raise
            self._wait_for_space()
            return None

    def _wait_for_space(self) -> None:
        self.watcher.say_once(f"no space left on the disk of {self.campaign.store.iterations}: waiting for some")
        time.sleep(TICK_SECONDS)

    def interrupt(self) -> None:
        """Ask the driver to stop: the first time running tasks may end by themselves, the second time not."""
        self.interrupts += 1
        with contextlib.suppress(CampaignHeldError):  # a campaign that is no longer this driver's is not its to stop
            self.campaign.check_held()
            request_stop(self.campaign, now=self.interrupts > 1)

    def hand_over(self) -> None:
        """Leave at once and let everything run that runs: the next driver adopts it."""
        self.leaves = True

    def _decide(self, kind: str, iteration: int, picks: int) -> None:
        self.campaign.check_held()
        if kind == "pick":
            content = decide_pick(self.campaign, self.param, iteration, picks)
        else:
            content = DECIDERS[kind](self.campaign, self.param, iteration)
        self.campaign.decide(kind, iteration=iteration, **content)
        if kind in ("explore", "rank", "describe") and self.explored is not None:
            self.explored.begin(iteration, kind)
        self.watcher.decided(kind, iteration, content)
        if kind != "pick":
            write_iteration(self.campaign, iteration)
            self.snapshots.write(force=True)

    def _launch(self, launch: tuple[Launch, ...]) -> None:
        for item in launch:
            self.campaign.check_held()
            folders = [self.campaign.prepare(key) for key in item.keys]
            failpoint("launch:before")
            self.pool.start(item.slot, item.keys, folders)
            failpoint("launch:after")
            self._started[item.keys] = item.slot.pool
            for key in item.keys:
                self.campaign.state.begin(key)

    def _leaving(self) -> Counter[str]:
        """Count, per pool, the processes that have published all their results and have yet to end, or soon will."""
        state = self.campaign.state
        return Counter(
            pool
            for keys, pool in self._started.items()
            if all(key not in state.running or state.tasks[key].kind in BRIEF for key in keys)
        )

    def _adopt(self) -> None:
        """Take over attempts that an earlier driver started and that still run; they occupy their slots."""
        self.campaign.check_held()
        for key in list(self.campaign.state.waiting):
            store.record_death(self.campaign.folder(key), None, unwatched=True, alive=self.pool.alive)
            self._rule(key)
        for key in sorted(self.campaign.state.running):
            if self._watch_again((key,)):
                self.watcher.adopted(self.campaign.state.tasks[key])
            else:
                self._settle_one(key, Ended((key,), None))

    def _watch_again(self, keys: tuple[str, ...]) -> bool:
        """Have the pools watch the process that still runs at one of a batch's tasks; False if none does."""
        folders = [self.campaign.folder(key) for key in keys]
        record = next((found for folder in folders for found in store.live_records(folder, self.pool.alive)), None)
        if record is not None:
            self.pool.adopt(record, keys, folders)
        return record is not None

    def _settle(self, seconds: float) -> None:
        """Hear what has ended within so many seconds, and note what came of it."""
        self._ended += self.pool.wait(seconds)
        while self._ended:
            batch = self._ended[0]
            self._started.pop(batch.keys, None)
            self._check_begun(batch)
            self._settle_batch(batch)
            self._ended.popleft()

    def _check_begun(self, batch: Ended) -> None:
        """Raise NeedsPersonError where attempt processes end before they begin a task: no retry can help there."""
        if batch.return_code == store.NO_SPACE:
            self._wait_for_space()
            return
        begun = any(self.campaign.attempts_at(key) for key in batch.keys)
        self._stillborn = 0 if begun or batch.return_code in (None, 0) else self._stillborn + 1
        kind = self.campaign.state.tasks[batch.keys[0]].kind
        own_fault = self.limits.pool(kind) == LOCAL and (batch.return_code or 0) > 0
        if self._stillborn > (0 if own_fault else _STILLBORN):
            raise NeedsPersonError(
                f"an attempt process ended with code {batch.return_code} before it began a task\n"
                f"  its output is in {self.campaign.run_folder / 'attempts.log'}"
            )

    def _settle_batch(self, batch: Ended) -> None:
        """Note what came of a batch; if its process is still at work, out of dask's sight, it goes on as a whole."""
        self.campaign.check_held()
        running = self.campaign.state.running
        left = tuple(key for key in batch.keys if key in running and not self._landed(key))
        if not self._watch_again(left):
            for key in left:
                self._settle_one(key, batch)

    def _settle_one(self, key: str, end: Ended) -> None:
        self.campaign.check_held()
        if self._landed(key) or self._watch_again((key,)):
            return
        folder = self.campaign.folder(key)
        store.record_death(folder, end.return_code, cause=end.cause, alive=self.pool.alive)
        self._rule(key)
        self.campaign.state.put_back(key)

    def _landed(self, key: str) -> bool:
        """Take in a task's result; False if there is none, or none that is whole."""
        if not self.campaign.accept(key):
            return False
        if self.explored is not None:
            self.explored.landed(key)
        self.watcher.done(self.campaign.state.tasks[key])
        return True

    def _rule(self, key: str) -> None:
        """Do what follows from a task's failures: give it up, or have its next attempt wait or get more time."""
        state, task = self.campaign.state, self.campaign.state.tasks[key]
        if key in state.superseded:  # nobody wants it any more
            return
        failures = self.campaign.failures(key)
        failures = [failure for failure in failures if failure["time"] > state.retried.get(key, "")]
        if not failures:
            return
        if failures[-1]["class"] == "bug" and is_needed(state, task):
            state.bugs.setdefault((task.kind, signature(failures[-1])), set()).add(key)
        found = ruling(failures, self.param.label.max_attempts if task.kind == "label" else TASK_ATTEMPTS)
        if found.given_up is not None:
            self.campaign.decide("quarantine", key=key, name=task.name, **found.given_up)
            self.watcher.quarantined(task, found.given_up["message"])
            return
        if found.wait_s:
            state.not_before[key] = time.monotonic() + found.wait_s
        if found.needs_s:
            state.needs_s[key] = found.needs_s

    def _tick(self) -> None:
        """Look at tasks whose batch goes on, tell that this driver lives, and refresh what people read."""
        self.campaign.check_held()
        for key in list(self.campaign.state.running):
            if self.campaign.store.is_done(self.campaign.state.tasks[key]):
                self._landed(key)  # one that is not whole is begun again when its batch has ended, no sooner
        self.campaign.beat()
        self._heed()
        self.snapshots.write()
        self._tell_troubles()
        self.watcher.tick(self.campaign)

    def _tell_troubles(self) -> None:
        """Tell what is wrong with the pools, here and in status."""
        found = self.pool.troubles()
        for trouble in found:
            self.watcher.say_once(trouble)
        if found != self._troubles:
            self._troubles = found
            store.write_json(self.campaign.run_folder / TROUBLES, found)

    def _heed(self) -> None:
        """Decide what persons have asked for."""
        for kind, content in requests.take(self.campaign):
            self.campaign.state.bugs.clear()
            self.watcher.say(f"{kind} of {len(content['keys'])} task(s), as a person asked")

    def _budget_used_up(self) -> str | None:
        """Return what of the budget is used up, if a run is to end there."""
        budget = self.param.budget
        return used_up(self.campaign.costs, self.campaign.state, budget) if budget.when_used_up == "stop" else None

    def _hours_used_up(self) -> bool:
        budget = self.param.budget.model_copy(update={"labels": None})
        return used_up(self.campaign.costs, self.campaign.state, budget) is not None

    def _disk_full(self) -> bool:
        """Tell whether less than the floor is free where results are written; nothing new begins then."""
        free_GB, floor = shutil.disk_usage(self.campaign.store.iterations).free / 1e9, self.param.budget.free_disk_GB
        full = free_GB < floor
        if full:
            place = self.campaign.store.iterations
            self.watcher.say_once(f"{free_GB:.3g} GB free in {place}, less than {floor:g}: nothing new begins")
        return full

    def _asked_to_stop(self) -> bool:
        return stop_requested(self.campaign) is not None

    def _finish(self, ending: Ending) -> Ending:
        """Let running tasks end (or end them, if asked to stop now) and leave the campaign in order."""
        if self.campaign.state.running:
            self.watcher.say(
                f"waiting for {len(self.campaign.state.running)} running task(s); Ctrl-C again ends them now"
            )
        asked: float | None = None
        while self.campaign.state.running and not self.leaves:
            now = time.monotonic()
            if stop_requested(self.campaign) == "now" and (asked is None or now - asked > ASK_AGAIN_SECONDS):
                asked = now
                folders = map(self.campaign.folder, self.campaign.state.running)
                self.pool.end([record for folder in folders for record in store.live_records(folder, self.pool.alive)])
            self._patiently(lambda: self.pool.demand({}))  # batch pools hear of lost jobs and workers here
            self._patiently(lambda: self._settle(TICK_SECONDS))
            self._patiently(self._tick)
        self._patiently(lambda: self.snapshots.write(force=True))
        return ending


def request_stop(campaign: Campaign, *, now: bool, cancel_jobs: bool = False) -> None:
    """Ask the campaign's driver, from any process, to stop deciding; with `now` also to end what runs."""
    campaign.run_folder.mkdir(parents=True, exist_ok=True)
    request = {"mode": "now" if now else "finish", "cancel_jobs": cancel_jobs}
    store.write_json(campaign.run_folder / "stop.json", request)


def cancel_requested(campaign: Campaign) -> bool:
    """Tell whether a person asked to have the batch jobs cancelled."""
    try:
        return bool(store.read_json(campaign.run_folder / "stop.json")["cancel_jobs"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def stop_requested(campaign: Campaign) -> str | None:
    """Return "finish" or "now" if a person asked the driver to stop."""
    try:
        return store.read_json(campaign.run_folder / "stop.json")["mode"]
    except (OSError, ValueError, KeyError):
        return None


def run(campaign: Campaign, param: Param, limits: Limits, watcher: Watcher) -> Ending:
    """Drive a campaign that this process has taken, from wherever it is."""
    assert campaign.epoch is not None, "take the campaign before driving it"
    try:
        pool = open_fleet(param, campaign.run_folder, campaign.state.identity["id"], campaign.epoch)
    except InputError:
        campaign.release()  # what the message advises shall find no driver
        raise
    driver = Driver(campaign, param, limits, pool, watcher)
    with on_signal(driver.interrupt, signal.SIGINT, signal.SIGTERM), on_signal(driver.hand_over, signal.SIGUSR1):
        ended = False
        try:
            ending = _told(campaign, param, driver)
            ended = ending is not HANDED_OVER and not campaign.state.running
            return ending
        finally:
            pool.close(cancel_jobs=ended or cancel_requested(campaign))
            (campaign.run_folder / TROUBLES).unlink(missing_ok=True)
            campaign.release()


def _told(campaign: Campaign, param: Param, driver: Driver) -> Ending:
    """Run the driver and have a person's command tell how it ended; a hand-over is no end."""
    command, say = param.notify.command, driver.watcher.say
    try:
        ending = driver.run()
    except CampaignHeldError:
        raise
    except Exception as error:
        notify.tell(command, "failed", str(error), campaign, say=say, wait_s=_NOTIFY_SECONDS)
        raise
    if ending is not HANDED_OVER:
        notify.tell(command, ending.event, ending.reason, campaign, say=say, wait_s=_NOTIFY_SECONDS)
    return ending


@contextlib.contextmanager
def on_signal(act: Callable[[], None], *numbers: signal.Signals) -> Iterator[None]:
    """Call `act` on these signals instead of raising where the program happens to be."""
    before = {number: signal.signal(number, lambda *_: act()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
